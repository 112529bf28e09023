/* Requests of HTTP/1.1 and HTTP/1.0, read strictly from bytes as they arrive.  No sockets, no clock: bytes
 * in, a request or a refusal out, and never a different answer for other cuts between the bytes.
 *
 * Where RFC 9112 lets a recipient be generous, this one is not: two readers that are generous in different
 * ways disagree on where a request ends, and that is what request smuggling is made of.  Refused are
 *   - line ends other than CRLF, empty lines before a request, folded lines, a blank before a
 *     colon, control bytes
 *   - more than one Content-Length, one beside Transfer-Encoding, one that is not digits alone
 *   - any Transfer-Encoding but exactly "chunked", or with HTTP/1.0; chunk extensions; trailers
 *   - no Host or several (HTTP/1.0 may do without), Upgrade, Content-Encoding
 *   - targets that are not a path; in it NUL, an escaped slash, a segment "." or "..", what is no UTF-8
 * After a refusal the connection must be closed: what follows on it has no known beginning. */
#ifndef HD_SERVE_HTTP_H
#define HD_SERVE_HTTP_H

#include "base/buf.h"

enum {
    HD_H1_LINE = 8 << 10,      // bytes of one line of the head, CRLF not counted
    HD_H1_TARGET = 4 << 10,    // of the target
    HD_H1_HEAD_MAX = 32 << 10, // of the whole head
    HD_H1_FIELDS = 64,
    HD_H1_PARAMS = 32, // of the query
};

typedef enum {
    HD_H1_MORE,   // all bytes taken, the request is not whole
    HD_H1_HEADED, // the head is whole: hd_h1_accept says how long a body may be, then feed on
    HD_H1_DONE,   // the request is whole; what was not taken belongs to the next one
    HD_H1_BAD,    // .status and .reason; nothing more is taken
} hd_h1_state;

typedef struct {
    const char *name, *value; // name in small letters
} hd_h1_pair;

/* Start from hd_h1_init; hd_h1_reset for the next request on the connection. */
typedef struct {
    /* From HD_H1_HEADED on; before that, and after a refusal of the head, there is no method and
     * there are no fields. */
    const char *method, *target;                         // target: as it came
    const char *path;                                    // decoded, without the query
    hd_h1_pair field[HD_H1_FIELDS], param[HD_H1_PARAMS]; // param: of the query, decoded
    int n_fields, n_params, minor;                       // minor: of HTTP/1.x
    bool keep_alive, expects_continue, has_body, chunked;
    uint64_t length; // of Content-Length
    /* After HD_H1_BAD. */
    int status;
    const char *reason;
    /* Body so far: body.data is NUL-terminated, and NULL when there is none. */
    hd_buf body;

    /* Inside. */
    int at;                 // the state of the machine
    size_t line, target_at; // where in head the line begins
    uint16_t name_at[HD_H1_FIELDS], value_at[HD_H1_FIELDS];
    int n_lines; // fields so far
    size_t left; // bytes of body or chunk to come
    int digits;
    bool cr;
    hd_buf head, text; // raw lines cut by NULs; the decoded path and query
} hd_h1;

void hd_h1_init(hd_h1 *h);
void hd_h1_free(hd_h1 *h);
void hd_h1_reset(hd_h1 *h);
/* Take bytes; *used says how many. */
hd_h1_state hd_h1_feed(hd_h1 *h, const void *p, size_t n, size_t *used);
/* After HD_H1_HEADED: HD_H1_BAD with 413 when the body is known to be longer than max_body, HD_H1_DONE when
 * there is none to come, else HD_H1_MORE. */
hd_h1_state hd_h1_accept(hd_h1 *h, size_t max_body);
bool hd_h1_begun(const hd_h1 *h);                          // some byte of a request has come
const char *hd_h1_field(const hd_h1 *h, const char *name); // name in small letters; the first value, or NULL
const char *hd_h1_param(const hd_h1 *h, const char *name);

/* ---- Pieces that others need ---- */

/* "name", "name:port", "1.2.3.4:80", "[::1]:80": where the port begins (the length without ":port"), or
 * -1 for nonsense. */
int hd_http_host_len(const char *host);
const char *hd_http_reason(int status); // "Not Found"

#endif
