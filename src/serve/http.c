/* The request reader: a machine that takes one byte of a head at a time, and bodies in runs.
 *
 *   LINE --CRLF--> LINE ... --empty line--> HEADED --accept--> BODY | SIZE | DONE
 *   SIZE --CRLF--> CHUNK --CRLF--> SIZE ... --"0" CRLF CRLF--> DONE
 *
 * A head is kept as it came, its lines cut by NULs; a line is looked at as a whole when its CRLF has
 * come, and the fields together when the head ends.  So a byte is judged by what stood before it alone,
 * and cuts cannot matter. */
#include "serve/http.h"

#include <string.h>
#include <strings.h>

#include "base/utf8.h"

enum {
    AT_LINE,
    AT_HEADED,
    AT_BODY,
    AT_SIZE,
    AT_CHUNK,
    AT_CHUNK_CR,
    AT_CHUNK_LF,
    AT_LAST_CR,
    AT_LAST_LF,
    AT_DONE,
    AT_BAD
};
enum { SIZE_DIGITS = 8 }; // of a chunk: up to 4 GB, far beyond any cap

static hd_h1_state refuse(hd_h1 *h, int status, const char *reason)
{
    h->status = status;
    h->reason = reason;
    h->at = AT_BAD;
    return HD_H1_BAD;
}

void hd_h1_init(hd_h1 *h)
{
    *h = (hd_h1){0};
    hd_buf_init(&h->head, HD_H1_HEAD_MAX);
    hd_buf_init(&h->text, HD_H1_TARGET + 1);
    hd_buf_init(&h->body, 0);
}

void hd_h1_free(hd_h1 *h)
{
    hd_buf_free(&h->head);
    hd_buf_free(&h->text);
    hd_buf_free(&h->body);
}

void hd_h1_reset(hd_h1 *h)
{
    hd_buf head = h->head, text = h->text; // their memory is used again; a body's is not
    hd_buf_free(&h->body);
    *h = (hd_h1){.head = head, .text = text};
    hd_buf_clear(&h->head);
    hd_buf_clear(&h->text);
    hd_buf_init(&h->body, 0);
}

bool hd_h1_begun(const hd_h1 *h) { return h->head.len > 0 || h->at != AT_LINE; }

static const char *find(const hd_h1_pair *v, int n, const char *name)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(v[i].name, name) == 0) return v[i].value;
    }
    return NULL;
}
const char *hd_h1_field(const hd_h1 *h, const char *name) { return find(h->field, h->n_fields, name); }
const char *hd_h1_param(const hd_h1 *h, const char *name) { return find(h->param, h->n_params, name); }

/* ---- Characters ---- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_token(char c) { return c && (is_digit(c) || is_alpha(c) || strchr("!#$%&'*+-.^_`|~", c)); }
/* RFC 3986: pchar, "/" and "?"; the percent sign is checked where it is decoded. */
static bool is_target(char c)
{
    return c && (is_digit(c) || is_alpha(c) || strchr("-._~!$&'()*+,;=:@/?%", c));
}

static bool is_control(char c) { return (unsigned char)c < 0x20 || c == 0x7f; }

static bool all(const char *s, size_t n, bool (*is)(char))
{
    for (size_t i = 0; i < n; i++) {
        if (!is(s[i])) return false;
    }
    return n > 0;
}

/* ---- The target ---- */

static bool valid_utf8(const char *s, size_t n)
{
    int32_t cp;
    for (size_t i = 0; i < n;) {
        i += (size_t)hd_utf8_next((const uint8_t *)s + i, n - i, &cp);
        if (cp < 0) return false;
    }
    return true;
}

/* Decode s[0..n) to h->text, with a NUL behind; its place there, or NULL with the request refused.  The text
 * never grows (its room is reserved before), so places stay. */
static const char *decode(hd_h1 *h, const char *s, size_t n, bool query)
{
    char *to = h->text.data + h->text.len, *from = to;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '%') {
            int hi = n - i > 2 ? hd_hex_digit(s[i + 1]) : -1, lo = n - i > 2 ? hd_hex_digit(s[i + 2]) : -1;
            if (hi < 0 || lo < 0) return refuse(h, 400, "target: % without two hexadecimal digits"), NULL;
            c = (char)(hi * 16 + lo);
            i += 2;
            if (c == 0) return refuse(h, 400, "target: an escaped NUL"), NULL;
            if (!query && (c == '/' || c == '\\')) return refuse(h, 400, "target: an escaped slash"), NULL;
            if (!query && is_control(c)) return refuse(h, 400, "target: an escaped control byte"), NULL;
        } else if (c == '+' && query) {
            c = ' ';
        }
        *to++ = c;
    }
    *to = 0;
    h->text.len += (size_t)(to - from) + 1;
    if (!valid_utf8(from, (size_t)(to - from))) return refuse(h, 400, "target: not UTF-8"), NULL;
    return from;
}

/* A segment "." or ".." of a decoded path. */
static bool has_dots(const char *path)
{
    for (const char *s = path; s; s = strchr(s, '/')) {
        s += *s == '/';
        size_t n = strcspn(s, "/");
        if ((n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.')) return true;
    }
    return false;
}

static hd_h1_state query(hd_h1 *h, const char *s)
{
    while (*s) {
        size_t n = strcspn(s, "&");
        size_t k = strcspn(s, "&=");
        if (n > 0) {
            if (h->n_params == HD_H1_PARAMS) return refuse(h, 414, "target: too many parameters");
            hd_h1_pair *p = &h->param[h->n_params];
            if (!(p->name = decode(h, s, k, true))) return HD_H1_BAD;
            if (!(p->value = k < n ? decode(h, s + k + 1, n - k - 1, true) : "")) return HD_H1_BAD;
            h->n_params++;
        }
        s += n + (s[n] == '&');
    }
    return HD_H1_MORE;
}

static hd_h1_state target(hd_h1 *h, const char *s)
{
    size_t n = strlen(s), path = strcspn(s, "?");
    if (n > HD_H1_TARGET) return refuse(h, 414, "target: too long");
    if (s[0] != '/') return refuse(h, 400, "target: not a path");
    if (!all(s, n, is_target)) return refuse(h, 400, "target: a character that has to be escaped");
    /* What is decoded is no longer than what came, each "=" and "&" turning into a NUL, and
     * one for the last. */
    if (hd_buf_add(&h->text, s, n + 1, NULL) != HD_OK) return refuse(h, 503, "out of memory");
    hd_buf_clear(&h->text);
    if (!(h->path = decode(h, s, path, false))) return HD_H1_BAD;
    if (has_dots(h->path)) return refuse(h, 400, "target: a segment of dots");
    return s[path] ? query(h, s + path + 1) : HD_H1_MORE;
}

/* ---- The head ---- */

/* METHOD SP TARGET SP HTTP/1.x */
static hd_h1_state request_line(hd_h1 *h, char *line)
{
    char *sp = strchr(line, ' '), *sp2 = sp ? strchr(sp + 1, ' ') : NULL;
    if (!sp2 || sp == line || sp2 == sp + 1 || strchr(sp2 + 1, ' '))
        return refuse(h, 400, "request line: not METHOD TARGET VERSION");
    *sp = *sp2 = 0;
    const char *v = sp2 + 1;
    if (strncmp(v, "HTTP/", 5) != 0 || !is_digit(v[5]) || v[6] != '.' || !is_digit(v[7]) || v[8])
        return refuse(h, 400, "request line: no HTTP version");
    if (v[5] != '1' || v[7] > '1') return refuse(h, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    size_t n = strlen(line);
    if (!all(line, n, is_token)) return refuse(h, 400, "request line: not a method");
    static const char *const known[] = {"GET",    "HEAD",    "POST",  "PUT",  "PATCH",
                                        "DELETE", "OPTIONS", "TRACE", "QUERY"}; // 405 where no row has it
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) found |= strcmp(line, known[i]) == 0;
    if (!found) return refuse(h, 501, "a method that is not known here");
    h->minor = v[7] - '0';
    h->target_at = (size_t)(sp + 1 - line);
    return target(h, sp + 1);
}

/* NAME: VALUE, blanks around the value dropped */
static hd_h1_state field_line(hd_h1 *h, char *line)
{
    if (*line == ' ' || *line == '\t') return refuse(h, 400, "header: a folded line");
    char *colon = strchr(line, ':');
    if (!colon || !all(line, (size_t)(colon - line), is_token))
        return refuse(h, 400, "header: not NAME: VALUE");
    if (h->n_lines == HD_H1_FIELDS) return refuse(h, 431, "header: too many fields");
    for (char *s = line; s < colon; s++) *s |= *s >= 'A' && *s <= 'Z' ? 0x20 : 0;
    char *v = colon + 1, *end = v + strlen(v);
    *colon = 0;
    while (*v == ' ' || *v == '\t') v++;
    while (end > v && (end[-1] == ' ' || end[-1] == '\t')) *--end = 0;
    h->name_at[h->n_lines] = (uint16_t)(line - h->head.data);
    h->value_at[h->n_lines++] = (uint16_t)(v - h->head.data);
    return HD_H1_MORE;
}

/* How often a field stands in the head; its last value. */
static int count(const hd_h1 *h, const char *name, const char **value)
{
    int n = 0;
    for (int i = 0; i < h->n_fields; i++) {
        if (strcmp(h->field[i].name, name) == 0) n++, *value = h->field[i].value;
    }
    return n;
}

static bool lists(const char *value, const char *word)
{
    size_t n = strlen(word);
    for (const char *s = value; *s;) {
        s += strspn(s, " \t,");
        size_t k = strcspn(s, " \t,");
        if (k == n && strncasecmp(s, word, n) == 0) return true;
        s += k;
    }
    return false;
}

static hd_h1_state content_length(hd_h1 *h, const char *v)
{
    size_t n = strlen(v);
    if (!all(v, n, is_digit)) return refuse(h, 400, "Content-Length: not a number");
    if (n > 18) return refuse(h, 413, "Content-Length: larger than anything taken here");
    for (; *v; v++) h->length = h->length * 10 + (uint64_t)(*v - '0');
    h->has_body = h->length > 0;
    return HD_H1_MORE;
}

/* Where the body ends: the fields that two readers must not read differently. */
static hd_h1_state framing(hd_h1 *h)
{
    const char *length = NULL, *coding = NULL, *other = NULL;
    int n_length = count(h, "content-length", &length), n_coding = count(h, "transfer-encoding", &coding);
    if (n_length > 1) return refuse(h, 400, "Content-Length: given more than once");
    if (n_coding > 1) return refuse(h, 400, "Transfer-Encoding: given more than once");
    if (n_length && n_coding) return refuse(h, 400, "Content-Length beside Transfer-Encoding");
    if (n_coding && h->minor == 0) return refuse(h, 400, "Transfer-Encoding: not in HTTP/1.0");
    if (n_coding && strcasecmp(coding, "chunked") != 0)
        return refuse(h, 400, "Transfer-Encoding: only chunked is taken");
    if (count(h, "trailer", &other)) return refuse(h, 400, "Trailer: not taken");
    if (count(h, "content-encoding", &other) && strcasecmp(other, "identity") != 0)
        return refuse(h, 415, "Content-Encoding: a body must come as it is");
    h->chunked = h->has_body = n_coding == 1;
    bool may_have =
        strcmp(h->method, "POST") == 0 || strcmp(h->method, "PUT") == 0 || strcmp(h->method, "PATCH") == 0;
    if (may_have && !n_length && !n_coding) return refuse(h, 411, "Content-Length: needed with this method");
    return n_length ? content_length(h, length) : HD_H1_MORE;
}

static hd_h1_state connection(hd_h1 *h)
{
    const char *v = NULL;
    h->keep_alive = h->minor == 1;
    for (int i = 0; i < h->n_fields; i++) {
        if (strcmp(h->field[i].name, "connection") != 0) continue;
        if (lists(h->field[i].value, "close")) h->keep_alive = false;
        if (lists(h->field[i].value, "upgrade")) return refuse(h, 400, "Upgrade: not done here");
    }
    if (count(h, "upgrade", &v)) return refuse(h, 400, "Upgrade: not done here");
    if (count(h, "expect", &v)) {
        if (strcasecmp(v, "100-continue") != 0)
            return refuse(h, 417, "Expect: only 100-continue is known here");
        h->expects_continue = h->minor == 1;
    }
    return HD_H1_MORE;
}

static hd_h1_state end_of_head(hd_h1 *h)
{
    const char *host = NULL;
    if (h->line == 0) return refuse(h, 400, "request line: empty");
    h->method = h->head.data; // which moves no more
    h->target = h->head.data + h->target_at;
    for (; h->n_fields < h->n_lines; h->n_fields++)
        h->field[h->n_fields] =
            (hd_h1_pair){h->head.data + h->name_at[h->n_fields], h->head.data + h->value_at[h->n_fields]};
    int n = count(h, "host", &host);
    if (n > 1 || (n == 0 && h->minor == 1)) return refuse(h, 400, "Host: needed exactly once");
    if (n && hd_http_host_len(host) < 0) return refuse(h, 400, "Host: not a name and a port");
    if (framing(h) == HD_H1_BAD || connection(h) == HD_H1_BAD) return HD_H1_BAD;
    h->at = AT_HEADED;
    return HD_H1_HEADED;
}

/* One byte of a line; HD_H1_HEADED after the empty one. */
static hd_h1_state head_byte(hd_h1 *h, char c)
{
    if (h->cr && c != '\n') return refuse(h, 400, "a CR without LF");
    if (!h->cr && c == '\n') return refuse(h, 400, "a line end without CR");
    if (c == '\r') return h->cr = true, HD_H1_MORE;
    if (c != '\n' && c != '\t' && is_control(c)) return refuse(h, 400, "a control byte");
    size_t len = h->head.len - h->line;
    bool first = h->line == 0;
    if (c != '\n') {
        if (len == HD_H1_LINE)
            return first ? refuse(h, 414, "request line: too long")
                         : refuse(h, 431, "header: a line too long");
        if (h->head.len >= HD_H1_HEAD_MAX - 1) return refuse(h, 431, "header: too long");
        return hd_buf_add(&h->head, &c, 1, NULL) == HD_OK ? HD_H1_MORE : refuse(h, 503, "out of memory");
    }
    h->cr = false;
    if (len == 0) return end_of_head(h);
    if (h->head.len >= HD_H1_HEAD_MAX) return refuse(h, 431, "header: too long");
    if (hd_buf_add(&h->head, "", 1, NULL) != HD_OK) return refuse(h, 503, "out of memory");
    size_t at = h->line;
    h->line = h->head.len;
    return first ? request_line(h, h->head.data + at) : field_line(h, h->head.data + at);
}

/* ---- The body ---- */

hd_h1_state hd_h1_accept(hd_h1 *h, size_t max_body)
{
    if (h->at != AT_HEADED) return h->at == AT_BAD ? HD_H1_BAD : HD_H1_MORE;
    h->body.max = max_body;
    if (!h->chunked && h->length > max_body) return refuse(h, 413, "body: longer than this takes");
    if (!h->has_body) return h->at = AT_DONE, HD_H1_DONE;
    h->left = h->chunked ? 0 : (size_t)h->length;
    h->at = h->chunked ? AT_SIZE : AT_BODY;
    return HD_H1_MORE;
}

/* One byte of "1a2b" CRLF */
static hd_h1_state size_byte(hd_h1 *h, char c)
{
    int d = hd_hex_digit(c);
    if (h->cr) {
        if (c != '\n') return refuse(h, 400, "chunk: a CR without LF");
        h->cr = false;
        h->digits = 0;
        if (h->left > h->body.max - h->body.len) return refuse(h, 413, "body: longer than this takes");
        h->at = h->left ? AT_CHUNK : AT_LAST_CR;
    } else if (c == '\r' && h->digits > 0) {
        h->cr = true;
    } else if (d < 0) {
        return refuse(h, 400, c == ';' ? "chunk: an extension" : "chunk: not a size");
    } else if (h->digits++ == SIZE_DIGITS) {
        return refuse(h, 400, "chunk: a size too long");
    } else {
        h->left = (h->digits == 1 ? 0 : h->left * 16) + (size_t)d;
    }
    return HD_H1_MORE;
}

/* The bytes that must stand behind a chunk and at the end. */
static hd_h1_state fixed_byte(hd_h1 *h, char c)
{
    bool cr = h->at == AT_CHUNK_CR || h->at == AT_LAST_CR;
    if (c != (cr ? '\r' : '\n'))
        return refuse(h, 400, h->at == AT_LAST_CR ? "chunk: a trailer" : "chunk: no CRLF behind it");
    static const int next[] = {[AT_CHUNK_CR] = AT_CHUNK_LF,
                               [AT_CHUNK_LF] = AT_SIZE,
                               [AT_LAST_CR] = AT_LAST_LF,
                               [AT_LAST_LF] = AT_DONE};
    h->at = next[h->at];
    return h->at == AT_DONE ? HD_H1_DONE : HD_H1_MORE;
}

static hd_h1_state run(hd_h1 *h, const char *p, size_t n, size_t *used)
{
    size_t take = n < h->left ? n : h->left;
    if (hd_buf_add(&h->body, p, take, NULL) != HD_OK) return refuse(h, 503, "out of memory");
    h->left -= take;
    *used += take;
    if (h->left) return HD_H1_MORE;
    h->at = h->chunked ? AT_CHUNK_CR : AT_DONE;
    return h->chunked ? HD_H1_MORE : HD_H1_DONE;
}

hd_h1_state hd_h1_feed(hd_h1 *h, const void *p, size_t n, size_t *used)
{
    const char *s = p;
    hd_h1_state st = HD_H1_MORE;
    *used = 0;
    while (st == HD_H1_MORE && *used < n) {
        const char *c = s + *used;
        switch (h->at) {
        case AT_LINE: st = head_byte(h, *c), ++*used; break;
        case AT_SIZE: st = size_byte(h, *c), ++*used; break;
        case AT_BODY:
        case AT_CHUNK: st = run(h, c, n - *used, used); break;
        case AT_HEADED: return HD_H1_HEADED;
        case AT_DONE: return HD_H1_DONE;
        case AT_BAD: return HD_H1_BAD;
        default: st = fixed_byte(h, *c), ++*used; break;
        }
    }
    return st;
}

/* ---- Pieces ---- */

static bool is_host(char c) { return is_digit(c) || is_alpha(c) || c == '-' || c == '.' || c == '_'; }
static bool is_v6(char c) { return hd_hex_digit(c) >= 0 || c == ':' || c == '.'; }

int hd_http_host_len(const char *host)
{
    size_t n;
    if (host[0] == '[') {
        n = strcspn(host, "]");
        if (!host[n] || !all(host + 1, n - 1, is_v6)) return -1;
        n++;
    } else {
        n = strcspn(host, ":");
        if (!all(host, n, is_host)) return -1;
    }
    if (n > 255) return -1;
    if (!host[n]) return (int)n;
    size_t digits = strlen(host + n) - 1;
    if (host[n] != ':' || digits > 5 || !all(host + n + 1, digits, is_digit)) return -1;
    return (int)n;
}

const char *hd_http_reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } table[] = {
        {100, "Continue"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
        {529, "Overloaded"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].status == status) return table[i].text;
    }
    return status < 400 ? "OK" : "Error";
}
