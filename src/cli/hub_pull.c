/* Fetching a model from the hub.
 *
 *   1. The listing (/api/models/REPO/tree/main) tells each file's size and, for large ones, its SHA-256.
 *   2. The name's files are chosen; their paths are checked before any becomes a path of ours.
 *   3. Each is downloaded to a hidden .part file, resumed by Range while the ETag stays the same, checked,
 *      renamed.
 *
 * So a file under its own name is whole and right, whatever the network, the server, or kill -9 did.  What
 * opens the model (config.json, a first part) comes last: a model is there when all of it is.  One pull a
 * repository, by flock. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/hub.h"
#include "cli/load.h"
#include "model/json.h"

enum { MAX_LISTING = 64 << 20, MAX_JSON = 2 << 20, MAX_PAGES = 50, MAX_ATTEMPTS = 10000, SHA_HEX = 64 };
enum { SMALL_FILE = 64 << 20 }; // a file without a checksum (it is kept in git) is no larger

typedef struct {
    char path[HD_HUB_PATH];
    uint64_t size;
    char sha[SHA_HEX + 1]; // "": the hub does not say
} remote;

typedef struct {
    hd_http *http;
    hd_pull *p;
    const char *repo;
    char *folder;
    int lock;
    remote *file;
    int n, cap;
    int *chosen, n_chosen; // in the order of fetching
    hd_buf checked;        // lines "SHA PATH\n" of files that were checked
    hd_err *err;
} puller;

/* ---- The listing ---- */

static bool to_buf(void *arg, const void *p, size_t n) { return hd_buf_add(arg, p, n, NULL) == HD_OK; }
static bool only_ok(void *arg, const hd_hub_reply *r) { return (void)arg, r->status == 200; }

/* What an answer that is no success means for the person who asked. */
static hd_status refused(const puller *u, const char *what, long status)
{
    if (status == 401 || status == 403)
        return hd_fail(u->err, HD_IO, "pull: %s: %s: the hub refuses (%ld): %s", u->repo, what, status,
                       getenv("HF_TOKEN") ? "HF_TOKEN has no access; accept the model's terms on its page"
                                          : "a private or gated model, or none; HF_TOKEN gives access");
    if (status == 404) return hd_fail(u->err, HD_IO, "pull: %s: %s: not on the hub (404)", u->repo, what);
    return hd_fail(u->err, HD_IO, "pull: %s: %s: the hub answers %ld", u->repo, what, status);
}

static bool will_not_change(long status)
{
    return status >= 400 && status < 500 && status != 408 && status != 416 && status != 429;
}

/* 0.1 s, 0.2, 0.4 ... 10 s, or as long as the server asks; ends early for Ctrl-C. */
static void pause_before(int failures, double at_least)
{
    double s = 0.1;
    for (int i = 1; i < failures && s < 10; i++) s *= 2;
    if (s < at_least) s = at_least;
    for (double until = hd_now_s() + s; hd_now_s() < until && !hd_interrupted;)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

static hd_status get_page(const puller *u, const char *url, hd_buf *body, hd_hub_reply *r)
{
    hd_request q = {.head = only_ok, .body = to_buf, .arg = body};
    for (int failures = 0;;) {
        hd_buf_clear(body);
        hd_status st = hd_http_get(u->http, url, &q, r, u->err);
        if (hd_interrupted || st == HD_NOMEM) return st;
        if (r->status != 200 && r->status != 0 && will_not_change(r->status))
            return refused(u, "listing", r->status);
        if (st == HD_OK && r->status == 200) return HD_OK;
        if (body->len >= body->max / 2)
            return hd_fail(u->err, HD_LIMIT, "pull: %s: the listing is too long", u->repo);
        if (++failures > u->p->retries)
            return r->status && r->status != 200 ? refused(u, "listing", r->status) : st;
        pause_before(failures, r->retry_after);
    }
}

static bool ends(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n > k && strcmp(s + n - k, tail) == 0;
}

/* Files that could be part of a model; pictures, papers and other frameworks' weights are not. */
static bool wanted(const char *path)
{
    static const char *const names[] = {"config.json",
                                        "generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "chat_template.json",
                                        "chat_template.jinja",
                                        "model.safetensors.index.json"};
    if (ends(path, ".gguf") || ends(path, ".safetensors")) return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(path, names[i]) == 0) return true;
    return false;
}

static hd_status add_remote(puller *u, const json_t *j)
{
    hd_status st = HD_OK;
    const char *type = json_string_value(json_object_get(j, "type")),
               *path = json_string_value(json_object_get(j, "path"));
    const json_t *lfs = json_object_get(j, "lfs"), *size = json_object_get(lfs, "size");
    const char *sha = json_string_value(json_object_get(lfs, "oid"));
    if (!json_is_integer(size)) size = json_object_get(j, "size");
    if (!type || !path || strcmp(type, "file") != 0 || !wanted(path)) return HD_OK;
    if (!hd_hub_safe_path(path)) {
        hd_err shown = {0};
        hd_fail(&shown, HD_FORMAT, "%.100s", path); // control characters masked
        return hd_fail(u->err, HD_FORMAT, "pull: %s: file name '%s' would leave the folder or cannot be kept",
                       u->repo, shown.msg);
    }
    if (!json_is_integer(size) || json_integer_value(size) < 0 ||
        (sha && strspn(sha, "0123456789abcdef") != SHA_HEX) || (sha && sha[SHA_HEX]))
        return hd_fail(u->err, HD_FORMAT, "pull: %s: %s: the listing gives no size or a strange checksum",
                       u->repo, path);
    if (!sha && json_integer_value(size) > SMALL_FILE)
        return hd_fail(u->err, HD_FORMAT, "pull: %s: %s: a large file without a checksum", u->repo, path);
    if (u->n == u->cap) {
        int cap = u->cap ? 2 * u->cap : 64;
        HD_TRY(hd_realloc(&u->file, (size_t)cap * sizeof *u->file, u->err));
        u->cap = cap;
    }
    remote *f = &u->file[u->n++];
    *f = (remote){.size = (uint64_t)json_integer_value(size)};
    snprintf(f->path, sizeof f->path, "%s", path);
    if (sha) memcpy(f->sha, sha, SHA_HEX);
fail:
    return st;
}

static hd_status read_listing(puller *u)
{
    hd_status st;
    hd_buf body;
    hd_hub_reply r;
    json_t *root = NULL, *v;
    char url[1400];
    size_t i;
    hd_buf_init(&body, MAX_LISTING);
    snprintf(url, sizeof url, "%.400s/api/models/%s/tree/main?recursive=true", hd_http_endpoint(u->http),
             u->repo);
    for (int page = 0;; page++) {
        if (page == MAX_PAGES)
            HD_TRY(hd_fail(u->err, HD_LIMIT, "pull: %s: the listing does not end", u->repo));
        HD_TRY(get_page(u, url, &body, &r));
        json_decref(root);
        root = NULL;
        HD_TRY(hd_json_parse(&root, body.data ? body.data : "", body.len, MAX_JSON, "pull", u->repo, u->err));
        if (!json_is_array(root))
            HD_TRY(hd_fail(u->err, HD_FORMAT, "pull: %s: the listing is no list", u->repo));
        json_array_foreach(root, i, v) HD_TRY(add_remote(u, v));
        if (!r.next[0]) break;
        snprintf(url, sizeof url, "%s", r.next); // the token goes along only where it would anyway
    }
fail:
    json_decref(root);
    hd_buf_free(&body);
    return st;
}

/* ---- The choice ---- */

static hd_status nothing_fits(const puller *u, const char *pick, bool several)
{
    char known[300] = "";
    for (int i = 0; i < u->n; i++) {
        size_t n = strlen(known);
        if (ends(u->file[i].path, ".gguf") && hd_hub_part(u->file[i].path) < 2 && n + 60 < sizeof known)
            snprintf(known + n, sizeof known - n, "%s%.100s", n ? ", " : "", u->file[i].path);
    }
    if (!known[0])
        return hd_fail(u->err, HD_UNSUPPORTED, "pull: %s: neither GGUF nor safetensors is there", u->repo);
    return hd_fail(u->err, HD_USAGE, "pull: %s: %s%s: there are %s", u->repo,
                   several ? "several files; add :FORMAT" : "no file for :", several ? "" : pick, known);
}

/* All parts of a split model, the first one last. */
static hd_status choose_parts(puller *u, int first)
{
    const char *path = u->file[first].path;
    size_t n = strlen(path);
    int count = atoi(path + n - 10), found = 0;
    for (int no = count; no >= 1; no--) {
        char name[HD_HUB_PATH + 32];
        snprintf(name, sizeof name, "%.*s-%05d%s", (int)(n - 20), path, no, path + n - 14);
        for (int i = 0; i < u->n; i++)
            if (strcmp(u->file[i].path, name) == 0) u->chosen[u->n_chosen++] = i, found++;
        if (found != count - no + 1)
            return hd_fail(u->err, HD_FORMAT, "pull: %s: %s is missing on the hub", u->repo, name);
    }
    return HD_OK;
}

static hd_status choose(puller *u, const char *pick)
{
    hd_status st;
    const char **path = NULL;
    int config = -1, tensors = 0;
    HD_TRY(hd_alloc_n(&path, (size_t)u->n, sizeof *path, u->err));
    HD_TRY(hd_alloc_n(&u->chosen, (size_t)u->n + 1, sizeof *u->chosen, u->err));
    for (int i = 0; i < u->n; i++) {
        path[i] = u->file[i].path;
        if (strcmp(path[i], "config.json") == 0) config = i;
        tensors += strncmp(path[i], "model", 5) == 0 && ends(path[i], ".safetensors");
    }
    if (!pick[0] && config >= 0 && tensors) {
        for (int pass = 0; pass < 2; pass++) // weights, then what describes them
            for (int i = 0; i < u->n; i++) {
                bool weights = ends(path[i], ".safetensors");
                if (strchr(path[i], '/') || i == config || weights != (pass == 0) || ends(path[i], ".gguf"))
                    continue;
                if (!weights || strncmp(path[i], "model", 5) == 0) u->chosen[u->n_chosen++] = i;
            }
        u->chosen[u->n_chosen++] = config;
        HD_TRY(hd_strdup(&u->p->path, u->folder, u->err));
        goto fail;
    }
    int k = hd_hub_choose(path, u->n, pick);
    if (k < 0) HD_TRY(nothing_fits(u, pick, k == HD_HUB_SEVERAL));
    if (hd_hub_part(path[k]) == 1) HD_TRY(choose_parts(u, k));
    else u->chosen[u->n_chosen++] = k;
    HD_TRY(hd_hub_join(&u->p->path, u->folder, path[k], u->err));
fail:
    free(path);
    return st;
}

/* ---- The folder ---- */

static hd_status make_dirs(const char *path, bool last_too, hd_err *err)
{
    char *copy = NULL;
    hd_status st = hd_strdup(&copy, path, err);
    for (char *p = copy; st == HD_OK && p && *p;) {
        char *slash = strchr(p + 1, '/');
        if (!slash && !last_too) break;
        if (slash) *slash = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST && errno != EROFS)
            st = hd_fail_errno(err, "create: %s", copy);
        if (slash) *slash = '/';
        p = slash;
    }
    free(copy);
    return st;
}

static hd_status lock_folder(puller *u)
{
    hd_status st;
    char *path = NULL;
    HD_TRY(make_dirs(u->folder, true, u->err));
    HD_TRY(hd_hub_join(&path, u->folder, ".lock", u->err));
    u->lock = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (u->lock < 0) HD_TRY(hd_fail_errno(u->err, "create: %s", path));
    if (flock(u->lock, LOCK_EX | LOCK_NB) != 0)
        st = errno == EWOULDBLOCK
                 ? hd_fail(u->err, HD_IO, "pull: %s: another pull of it is under way", u->repo)
                 : hd_fail_errno(u->err, "lock: %s", path);
fail:
    free(path);
    return st;
}

static hd_status read_checked(puller *u)
{
    char *path = NULL;
    hd_status st = hd_hub_join(&path, u->folder, ".checked", u->err);
    if (st == HD_OK && hd_is_file(path) && hd_file_read(&u->checked, path, NULL) != HD_OK)
        hd_buf_clear(&u->checked); // then everything is checked again
    free(path);
    return st;
}

static bool was_checked(const puller *u, const remote *f)
{
    char line[SHA_HEX + HD_HUB_PATH + 4];
    size_t n = (size_t)snprintf(line, sizeof line, "%s %s\n", f->sha, f->path);
    for (const char *p = u->checked.data; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
        if (strncmp(p, line, n) == 0) return true;
    return false;
}

/* Replace the file's line; a list that cannot be written costs a check later and nothing else. */
static hd_status note_checked(puller *u, const remote *f)
{
    hd_status st;
    hd_buf now;
    hd_newfile out = {.fd = -1};
    char *path = NULL;
    size_t n = strlen(f->path);
    hd_buf_init(&now, MAX_LISTING);
    for (const char *p = u->checked.data, *end; p && *p; p = end + 1) {
        if (!(end = strchr(p, '\n'))) break;
        size_t len = (size_t)(end - p);
        bool same = len == SHA_HEX + 1 + n && memcmp(p + SHA_HEX + 1, f->path, n) == 0;
        if (!same) HD_TRY(hd_buf_add(&now, p, len + 1, u->err));
    }
    HD_TRY(hd_buf_addf(&now, u->err, "%s %s\n", f->sha, f->path));
    HD_TRY(hd_hub_join(&path, u->folder, ".checked", u->err));
    if (hd_newfile_begin(&out, path, NULL) == HD_OK &&
        hd_newfile_write(&out, now.data, now.len, NULL) == HD_OK)
        hd_newfile_commit(&out, NULL);
    else hd_newfile_abort(&out);
    hd_buf_clear(&u->checked);
    HD_TRY(hd_buf_add(&u->checked, now.data, now.len, u->err));
fail:
    free(path);
    hd_buf_free(&now);
    return st;
}

/* ---- One file ---- */

typedef struct {
    const puller *u;
    const remote *f;
    char *target, *part, *etag_path;
    int fd;
    uint64_t at;    // bytes in the part file
    char etag[256]; // of the answer these came from
    crypto_hash_sha256_state sha;
    hd_progress bar;
    int write_errno; // of a full disk
    bool restart;    // what is there does not fit what the server sends
    const char *why; // the server's mistake
} transfer;

static bool start_over(transfer *t)
{
    crypto_hash_sha256_init(&t->sha);
    t->bar.done = t->at = 0;
    t->etag[0] = 0;
    unlink(t->etag_path);
    return ftruncate(t->fd, 0) == 0 && lseek(t->fd, 0, SEEK_SET) == 0;
}

/* Beside the part: which version of the file it is of.  If it cannot be kept, the checksum still decides. */
static void keep_etag(transfer *t, const char *etag)
{
    snprintf(t->etag, sizeof t->etag, "%s", etag);
    int fd = open(t->etag_path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) return;
    if (write(fd, etag, strlen(etag)) < 0) unlink(t->etag_path);
    close(fd);
}

static bool file_head(void *arg, const hd_hub_reply *r)
{
    transfer *t = arg;
    int64_t expected = (int64_t)t->f->size;
    if (r->status == 200) {
        if (t->at && !start_over(t)) return t->write_errno = errno, false;
        if (r->length >= 0 && r->length != expected)
            return t->why = "its length is not the listed one", false;
        keep_etag(t, r->etag);
        return true;
    }
    if (r->status == 206) {
        bool same = !t->etag[0] || !r->etag[0] || strcmp(t->etag, r->etag) == 0;
        t->restart = r->from != (int64_t)t->at || r->total != expected || !same;
        if (t->restart) t->why = same ? "it answers with another range" : "the file changed meanwhile";
        return !t->restart;
    }
    t->restart = r->status == 416;
    return false; // the status tells
}

static bool file_body(void *arg, const void *p, size_t n)
{
    transfer *t = arg;
    if (n > t->f->size - t->at) {
        t->restart = true;
        t->why = "it sends more than it announced";
        return false;
    }
    for (const char *s = p; n > 0;) {
        ssize_t k = write(t->fd, s, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return t->write_errno = errno, false;
        crypto_hash_sha256_update(&t->sha, (const unsigned char *)s, (unsigned long long)k);
        s += k, n -= (size_t)k;
        t->at += (uint64_t)k;
        hd_progress_add(&t->bar, (uint64_t)k);
    }
    return true;
}

/* Take up what an earlier pull left: its bytes go into the sum, and the position to its end. */
static hd_status take_up(transfer *t)
{
    static unsigned char block[1 << 16]; // one pull a process
    hd_buf etag;
    ssize_t k;
    hd_buf_init(&etag, sizeof t->etag - 1);
    struct stat sb;
    if (fstat(t->fd, &sb) != 0) return hd_fail_errno(t->u->err, "open: %s", t->part);
    if (hd_is_file(t->etag_path) && hd_file_read(&etag, t->etag_path, NULL) == HD_OK)
        snprintf(t->etag, sizeof t->etag, "%s", etag.data ? etag.data : "");
    hd_buf_free(&etag);
    for (const char *p = t->etag; *p; p++)
        if (*p < 0x20 || *p > 0x7e) t->etag[0] = 0; // not what we wrote: it would be sent as a header
    crypto_hash_sha256_init(&t->sha);
    bool of_this =
        S_ISREG(sb.st_mode) && (uint64_t)sb.st_size <= t->f->size && t->f->sha[0]; // else no way to tell
    if (!of_this) return start_over(t) ? HD_OK : hd_fail_errno(t->u->err, "write: %s", t->part);
    while ((k = read(t->fd, block, sizeof block)) > 0) {
        crypto_hash_sha256_update(&t->sha, block, (unsigned long long)k);
        t->at += (uint64_t)k;
    }
    if (k < 0) return hd_fail_errno(t->u->err, "read: %s", t->part);
    hd_progress_add(&t->bar, t->at);
    return HD_OK;
}

static bool right_sum(const transfer *t)
{
    unsigned char sum[crypto_hash_sha256_BYTES];
    char hex[SHA_HEX + 1];
    crypto_hash_sha256_state copy = t->sha;
    crypto_hash_sha256_final(&copy, sum);
    sodium_bin2hex(hex, sizeof hex, sum, sizeof sum);
    return !t->f->sha[0] || strcmp(hex, t->f->sha) == 0;
}

/* Path of the file in a URL: what is not plain becomes %XX. */
static void escape(char *out, const char *path)
{
    for (; *path; path++) {
        bool plain = (*path >= 'a' && *path <= 'z') || (*path >= 'A' && *path <= 'Z') ||
                     (*path >= '0' && *path <= '9') || strchr("/-._~", *path);
        out += sprintf(out, plain ? "%c" : "%%%02X", (unsigned char)*path);
    }
    *out = 0;
}

/* Attempts until the part file is whole, or one fails for good. */
static hd_status transfer_all(transfer *t)
{
    const puller *u = t->u;
    char path[3 * HD_HUB_PATH + 1], url[3 * HD_HUB_PATH + HD_HUB_NAME + 450];
    escape(path, t->f->path);
    snprintf(url, sizeof url, "%.400s/%s/resolve/main/%s", hd_http_endpoint(u->http), u->repo, path);
    uint64_t best = t->at;
    int failures = 0, wrong = 0;
    for (int attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        if (t->at == t->f->size && (t->f->size || attempt)) {
            if (right_sum(t)) return HD_OK;
            if (++wrong == 2) {
                start_over(t);
                return hd_fail(
                    u->err, HD_FORMAT,
                    "pull: %s: %s: the SHA-256 sum is wrong, twice: damaged on its way or on the hub",
                    u->repo, t->f->path);
            }
            if (!start_over(t)) return hd_fail_errno(u->err, "write: %s", t->part);
            best = 0;
        }
        hd_hub_reply r;
        hd_request q = {.from = t->at, .if_range = t->etag, .head = file_head, .body = file_body, .arg = t};
        t->why = NULL;
        t->restart = false;
        hd_status st = hd_http_get(u->http, url, &q, &r, u->err);
        if (t->write_errno) return errno = t->write_errno, hd_fail_errno(u->err, "write: %s", t->part);
        if (hd_interrupted)
            return hd_fail(u->err, HD_CANCELLED, "pull: %s: interrupted; the same command goes on from here",
                           t->f->path);
        if (st == HD_NOMEM) return st;
        if (t->restart && !start_over(t)) return hd_fail_errno(u->err, "write: %s", t->part);
        if (will_not_change(r.status)) return refused(u, t->f->path, r.status);
        bool gained = t->at > best;
        if (gained) best = t->at;
        failures = gained ? 0 : failures + 1;
        if (t->at == t->f->size) continue;
        if (failures > u->p->retries) {
            if (t->why)
                return hd_fail(u->err, HD_FORMAT, "pull: %s: %s: the server errs: %s", u->repo, t->f->path,
                               t->why);
            if (r.status >= 400) return refused(u, t->f->path, r.status);
            if (st != HD_OK) return st; // libcurl's words
            return hd_fail(u->err, HD_IO, "pull: %s: %s: the server sends only part of it", u->repo,
                           t->f->path);
        }
        pause_before(failures, r.retry_after);
    }
    return hd_fail(u->err, HD_IO, "pull: %s: %s: too many interruptions", u->repo, t->f->path);
}

static hd_status place(transfer *t)
{
    if (fsync(t->fd) != 0 && errno != EINVAL) return hd_fail_errno(t->u->err, "write: %s", t->part);
    if (rename(t->part, t->target) != 0) return hd_fail_errno(t->u->err, "rename: %s", t->target);
    unlink(t->etag_path);
    return HD_OK;
}

static hd_status name_paths(transfer *t)
{
    hd_status st;
    const char *slash = strrchr(t->f->path, '/');
    int dir = slash ? (int)(slash - t->f->path) + 1 : 0;
    char rel[HD_HUB_PATH + 16];
    HD_TRY(hd_hub_join(&t->target, t->u->folder, t->f->path, t->u->err));
    snprintf(rel, sizeof rel, "%.*s.%s.part", dir, t->f->path, t->f->path + dir);
    HD_TRY(hd_hub_join(&t->part, t->u->folder, rel, t->u->err));
    snprintf(rel, sizeof rel, "%.*s.%s.part.etag", dir, t->f->path, t->f->path + dir);
    HD_TRY(hd_hub_join(&t->etag_path, t->u->folder, rel, t->u->err));
    HD_TRY(make_dirs(t->target, false, t->u->err));
fail:
    return st;
}

/* The file under its own name is the one of the listing: by our notes, or by reading it. */
static hd_status is_here(transfer *t, bool *here)
{
    hd_status st = HD_OK;
    hd_map m = {0};
    struct stat sb;
    *here = false;
    if (lstat(t->target, &sb) != 0 || !S_ISREG(sb.st_mode) || (uint64_t)sb.st_size != t->f->size ||
        !t->f->sha[0])
        return HD_OK;
    if (was_checked(t->u, t->f) && !t->u->p->verify) return *here = true, HD_OK;
    HD_TRY(hd_map_open(&m, t->target, t->u->err));
    crypto_hash_sha256_init(&t->sha);
    hd_progress_begin(&t->bar, "checking", t->f->size, "B");
    for (size_t at = 0, n; at < m.size && !hd_interrupted; at += n) {
        n = m.size - at < 1 << 22 ? m.size - at : 1 << 22;
        crypto_hash_sha256_update(&t->sha, m.data + at, n);
        hd_progress_add(&t->bar, n);
        hd_map_release(&m, m.data + at, n);
    }
    hd_progress_end(&t->bar);
    *here = !hd_interrupted && right_sum(t);
    if (hd_interrupted) st = hd_fail(t->u->err, HD_CANCELLED, "pull: %s: interrupted", t->f->path);
fail:
    hd_map_close(&m);
    return st;
}

static hd_status fetch(puller *u, const remote *f)
{
    hd_status st;
    transfer t = {.u = u, .f = f, .fd = -1};
    bool here;
    const char *base = strrchr(f->path, '/');
    HD_TRY(name_paths(&t));
    HD_TRY(is_here(&t, &here));
    if (here) {
        u->p->n_kept++;
    } else {
        t.fd = open(t.part, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
        if (t.fd < 0) HD_TRY(hd_fail_errno(u->err, "create: %s", t.part));
        hd_progress_begin(&t.bar, base ? base + 1 : f->path, f->size, "B");
        st = take_up(&t);
        uint64_t had = t.at;
        if (st == HD_OK) st = transfer_all(&t);
        hd_progress_end(&t.bar);
        if (st == HD_OK) st = place(&t);
        if (st != HD_OK) goto fail;
        u->p->n_fetched++;
        u->p->bytes += t.at > had ? t.at - had : t.at;
    }
    if (f->sha[0] && !was_checked(u, f)) HD_TRY(note_checked(u, f));
fail:
    if (t.fd >= 0) close(t.fd);
    free(t.target);
    free(t.part);
    free(t.etag_path);
    return st;
}

/* Better told before an hour of downloading than after it. */
static hd_status check_space(const puller *u)
{
    struct statvfs fs;
    uint64_t need = 0, blocks;
    for (int i = 0; i < u->n_chosen; i++) {
        struct stat sb;
        const remote *f = &u->file[u->chosen[i]];
        transfer t = {.u = u, .f = f};
        hd_status st = name_paths(&t);
        bool here = st == HD_OK && lstat(t.target, &sb) == 0 && (uint64_t)sb.st_size == f->size;
        bool part = st == HD_OK && !here && lstat(t.part, &sb) == 0 && (uint64_t)sb.st_size <= f->size;
        if (!here && __builtin_add_overflow(need, part ? f->size - (uint64_t)sb.st_size : f->size, &need))
            need = UINT64_MAX;
        free(t.target);
        free(t.part);
        free(t.etag_path);
        if (st != HD_OK) return st;
    }
    if (statvfs(u->folder, &fs) != 0 ||
        __builtin_mul_overflow((uint64_t)fs.f_bavail, (uint64_t)fs.f_frsize, &blocks) || need <= blocks)
        return HD_OK;
    return hd_fail(u->err, HD_IO, "pull: %s: %.2f GB are to be fetched, %.2f GB are free there", u->folder,
                   (double)need / 1e9, (double)blocks / 1e9);
}

hd_status hd_hub_pull(hd_pull *p, const hd_hub_name *n, hd_err *err)
{
    hd_status st;
    puller u = {.p = p, .repo = n->repo, .lock = -1, .err = err};
    hd_buf_init(&u.checked, MAX_LISTING);
    if (sodium_init() < 0) HD_TRY(hd_fail(err, HD_IO, "pull: libsodium does not start"));
    HD_TRY(hd_http_open(&u.http, err));
    HD_TRY(hd_hub_repo_folder(&u.folder, n->repo, err));
    HD_TRY(read_listing(&u));
    HD_TRY(choose(&u, n->pick));
    HD_TRY(lock_folder(&u));
    HD_TRY(read_checked(&u));
    HD_TRY(check_space(&u));
    for (int i = 0; i < u.n_chosen; i++) HD_TRY(fetch(&u, &u.file[u.chosen[i]]));
fail:
    if (u.lock >= 0) close(u.lock); // and unlocks
    hd_http_close(u.http);
    hd_buf_free(&u.checked);
    free(u.folder);
    free(u.file);
    free(u.chosen);
    return st;
}
