/* hadal data get: public corpora by name.
 *
 * A corpus is files at fixed addresses (a commit, never a branch) with their sizes and SHA-256 sums: what
 * arrives is what was looked at when the line was written, or an error.  A file is looked for, in this order,
 * in $HADAL_DATA/ID/FILE, in the cache ($XDG_CACHE_HOME/hadal/data/ID/FILE), and at its address; a download
 * goes to a hidden .part, goes on where it broke off, and is renamed when its sum is right. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/data.h"
#include "cli/hub.h"
#include "cli/load.h"
#include "model/json.h"

enum { SHA_HEX = 64, MAX_ATTEMPTS = 1000 };

typedef struct {
    const char *id, *file, *url;
    uint64_t bytes; // 0: not known
    const char *sha256, *licence, *what;
} corpus_file;

#define GITHUB "https://raw.githubusercontent.com/"
#define GSM8K                                                                                                \
    GITHUB "openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data/"
#define FOUNDRY                                                                                              \
    GITHUB "mosaicml/llm-foundry/8c8dd48f72168c5d51e2f7b151595892a8fba43d/scripts/eval/local_data/"          \
           "world_knowledge/"
#define QWEN GITHUB "QwenLM/Qwen2.5-Math/a45202bd16f1ec06f433442dc1152d0074773465/evaluation/data/"
#define AQUA GITHUB "google-deepmind/AQuA/26b64ed1f22208c6742f47df547dfd65088ec30d/"
#define WIKITEXT                                                                                             \
    GITHUB "pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8/word_language_model/data/wikitext-2/"

static const corpus_file corpora[] = {
    {"tinyshakespeare", "input.txt",
     GITHUB "karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
     1115394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed", "public domain",
     "plays, one text"},
    {"tinystories-sample", "tinystories-sample.txt",
     GITHUB "Niklas6/Mini_GPT/0e9893779c9e2048205ea1339eb588983d72adc1/tinystories.txt", 197290,
     "727e8b228375be3075114c20729c93ed6e81ae5d8fe7faf7cb54b304f0322d70", "CDLA-Sharing-1.0",
     "an excerpt of TinyStories"},
    {"wikitext2", "valid.txt", WIKITEXT "valid.txt", 1121681,
     "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8", "CC BY-SA", "validation text"},
    {"wikitext2", "test.txt", WIKITEXT "test.txt", 1256449,
     "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0", "CC BY-SA",
     "an evaluation: test text"},
    {"gsm8k", "train.jsonl", GSM8K "train.jsonl", 4166206,
     "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465", "MIT",
     "7,473 grade-school problems with solutions"},
    {"gsm8k", "test.jsonl", GSM8K "test.jsonl", 749738,
     "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14", "MIT",
     "an evaluation: 1,319 problems"},
    {"aqua", "dev.json", AQUA "dev.json", 132008,
     "4a52301d8a49ae0b286f8e697f9c5da1b109b247b825b47b4c6de34312dceec5", "Apache-2.0",
     "an evaluation: 254 algebra problems, five choices"},
    {"aqua", "test.json", AQUA "test.json", 130192,
     "de41581881ef95c5588c44ddc701c77fd480839241dd422a0d181262af24520c", "Apache-2.0",
     "an evaluation: 254 more"},
    {"arc", "arc_easy.jsonl", FOUNDRY "arc_easy.jsonl", 636665,
     "d2d12e59543acf9a5ef6079634a72b30215e36c2fd4236fff3bc855d287b87f5", "CC BY-SA 4.0",
     "an evaluation: 2,376 questions"},
    {"arc", "arc_challenge.jsonl", FOUNDRY "arc_challenge.jsonl", 365606,
     "1ae3aeedf1951d881cbd5c2e3a31e78a1993d251479afbe4cb413b6707244636", "CC BY-SA 4.0",
     "an evaluation: 1,172 harder ones"},
    {"svamp", "SVAMP.json", GITHUB "arkilpatel/SVAMP/689d7ccac74b9983a2ac7cc3b264f441b99e7c53/SVAMP.json",
     339970, "5be77703a6d891ae476d7c082787ad361392aa02453b132516cdd5f4e7934e3e", "MIT",
     "an evaluation: 1,000 problems"},
    {"multiarith", "multiarith.jsonl", QWEN "mawps/multiarith.jsonl", 109522,
     "12e8295088364af21fb6591dbdbd1dda452aade57227f63d725677471ded2951", "not stated",
     "an evaluation: 599 problems"},
    {"mmlu-stem", "test.jsonl", QWEN "mmlu_stem/test.jsonl", 1024981,
     "fd7c16f96067d285638abb5aaef9cd8a063b11454e14cb64df93141a58691478", "MIT",
     "an evaluation: 3,018 questions"},
};
enum { N_CORPORA = sizeof corpora / sizeof corpora[0] };

/* ---- Where files are ---- */

static hd_status join3(char **out, const char *a, const char *b, const char *c, hd_err *err)
{
    size_t n = strlen(a) + strlen(b) + strlen(c) + 3;
    hd_status st = hd_alloc(out, n, err);
    if (st == HD_OK) snprintf(*out, n, "%s/%s/%s", a, b, c);
    return st;
}

static hd_status cache_folder(char **out, hd_err *err)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg && xdg[0] == '/') return hd_hub_join(out, xdg, "hadal/data", err);
    if (home && home[0] == '/') return hd_hub_join(out, home, ".cache/hadal/data", err);
    return hd_fail(err, HD_IO, "data: folder: neither HOME nor XDG_CACHE_HOME says where to keep it");
}

static hd_status make_dirs(char *path, hd_err *err) // of the folders above path's last name
{
    for (char *p = path + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        bool bad = mkdir(path, 0777) != 0 && errno != EEXIST;
        if (bad) hd_fail_errno(err, "create: %s", path);
        *p = '/';
        if (bad) return HD_IO;
    }
    return HD_OK;
}

static void to_hex(char hex[SHA_HEX + 1], crypto_hash_sha256_state *sha)
{
    unsigned char sum[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_final(sha, sum);
    sodium_bin2hex(hex, SHA_HEX + 1, sum, sizeof sum);
}

/* Is `path` this file?  Told by its sum. */
static hd_status is_right(bool *right, const corpus_file *f, const char *path, hd_err *err)
{
    hd_status st;
    hd_map m;
    char hex[SHA_HEX + 1];
    crypto_hash_sha256_state sha;
    *right = false;
    HD_TRY(hd_map_open(&m, path, err));
    crypto_hash_sha256_init(&sha);
    if (m.size) crypto_hash_sha256_update(&sha, m.data, m.size);
    hd_map_close(&m);
    to_hex(hex, &sha);
    *right = strcmp(hex, f->sha256) == 0;
fail:
    return st;
}

/* ---- Fetching ---- */

typedef struct {
    const corpus_file *f;
    int fd, write_errno;
    uint64_t at;
    crypto_hash_sha256_state sha;
    bool restart;
    int64_t other_bytes; // what the server has, when that is another size; else 0
    hd_progress bar;
} transfer;

static bool start_over(transfer *t)
{
    t->at = 0;
    t->bar.done = 0;
    crypto_hash_sha256_init(&t->sha);
    return ftruncate(t->fd, 0) == 0 && lseek(t->fd, 0, SEEK_SET) == 0;
}

static bool on_head(void *arg, const hd_hub_reply *r)
{
    transfer *t = arg;
    int64_t all = r->status == 206 ? r->total : r->status == 200 ? r->length : -1;
    if (t->f->bytes && all > 0 && (uint64_t)all != t->f->bytes) return t->other_bytes = all, false;
    if (r->status == 206) t->restart = r->from != (int64_t)t->at;
    else if (r->status == 200 && t->at) return start_over(t); // no ranges there: it comes whole
    else t->restart = r->status == 416;
    return (r->status == 200 || r->status == 206) && !t->restart;
}

static bool on_body(void *arg, const void *p, size_t n)
{
    transfer *t = arg;
    if (t->f->bytes && n > t->f->bytes - t->at) return t->restart = true, false; // more than there should be
    crypto_hash_sha256_update(&t->sha, p, n);
    for (const char *s = p; n > 0;) {
        ssize_t k = write(t->fd, s, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return t->write_errno = errno, false;
        s += k, n -= (size_t)k, t->at += (uint64_t)k;
        hd_progress_add(&t->bar, (uint64_t)k);
    }
    return true;
}

/* What an earlier attempt left goes into the sum. */
static hd_status take_up(transfer *t, const char *part, hd_err *err)
{
    unsigned char block[1 << 14];
    ssize_t n;
    crypto_hash_sha256_init(&t->sha);
    while ((n = read(t->fd, block, sizeof block)) > 0) {
        crypto_hash_sha256_update(&t->sha, block, (unsigned long long)n);
        t->at += (uint64_t)n;
    }
    if (n < 0) return hd_fail_errno(err, "read: %s", part);
    if (t->f->bytes && t->at > t->f->bytes && !start_over(t)) return hd_fail_errno(err, "write: %s", part);
    hd_progress_add(&t->bar, t->at);
    return HD_OK;
}

static void wait_a_little(int failures, double at_least)
{
    double s = failures < 7 ? 0.1 * (1 << failures) : 10;
    if (s < at_least) s = at_least;
    for (double until = hd_now_s() + s; hd_now_s() < until && !hd_interrupted;)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

/* Attempts until the file is whole and right, or fails for good. */
static hd_status transfer_all(transfer *t, hd_http *http, const char *url, const char *part, int retries,
                              hd_err *err)
{
    const corpus_file *f = t->f;
    int failures = 0;
    uint64_t best = t->at;
    for (int attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        hd_hub_reply r = {0};
        hd_request q = {.from = t->at, .head = on_head, .body = on_body, .arg = t};
        uint64_t before = t->at;
        char hex[SHA_HEX + 1];
        hd_status st = HD_OK;
        t->restart = false;
        bool whole = f->bytes && t->at == f->bytes;
        if (!whole) st = hd_http_get(http, url, &q, &r, err);
        if (t->write_errno) return errno = t->write_errno, hd_fail_errno(err, "write: %s", part);
        if (hd_interrupted)
            return hd_fail(err, HD_CANCELLED, "data: %s: interrupted; the same command goes on from here",
                           f->file);
        if (st == HD_NOMEM || st == HD_USAGE) return st;
        if (whole || (st == HD_OK && !t->restart && (r.status == 200 || r.status == 206) &&
                      (!f->bytes || t->at == f->bytes))) {
            crypto_hash_sha256_state copy = t->sha;
            to_hex(hex, &copy);
            if (strcmp(hex, f->sha256) == 0) return HD_OK;
            if (!start_over(t)) return hd_fail_errno(err, "write: %s", part);
            if (!before) // it came in one piece
                return hd_fail(err, HD_FORMAT,
                               "data: %s: %.200s: the SHA-256 sum is %.12s..., not %.12s...: not the file "
                               "that was meant",
                               f->id, url, hex, f->sha256);
            continue;
        }
        if (t->other_bytes)
            return hd_fail(err, HD_FORMAT, "data: %s: %.200s: the server has a file of %lld bytes, not %llu",
                           f->id, url, (long long)t->other_bytes, (unsigned long long)f->bytes);
        if (r.status >= 400 && r.status < 500 && r.status != 408 && r.status != 416 && r.status != 429)
            return hd_fail(err, HD_IO, "data: %s: %.200s: the server answers %ld", f->id, url, r.status);
        if (t->restart && !start_over(t)) return hd_fail_errno(err, "write: %s", part);
        bool gained = t->at > best;
        if (gained) best = t->at;
        failures = gained ? 0 : failures + 1;
        if (failures > retries) {
            if (st != HD_OK && st != HD_CANCELLED) return st; // libcurl's words
            return hd_fail(err, HD_IO, "data: %s: %.200s: the server sends only part of it (status %ld)",
                           f->id, url, r.status);
        }
        wait_a_little(failures, r.retry_after);
    }
    return hd_fail(err, HD_IO, "data: %s: %.200s: too many interruptions", f->id, url);
}

static hd_status fetch(const corpus_file *f, char *target, hd_http **http, int retries, hd_err *err)
{
    hd_status st;
    transfer t = {.f = f, .fd = -1};
    char *part = NULL, *url = NULL;
    const char *mirror = getenv("HADAL_DATA_MIRROR"), *slash = strrchr(target, '/');
    if (!*http) HD_TRY(hd_http_open(http, err));
    HD_TRY(make_dirs(target, err));
    if (mirror && *mirror) HD_TRY(join3(&url, mirror, f->id, f->file, err));
    else HD_TRY(hd_strdup(&url, f->url, err));
    size_t dir = (size_t)(slash - target);
    HD_TRY(hd_alloc(&part, strlen(target) + 8, err));
    sprintf(part, "%.*s/.%s.part", (int)dir, target, slash + 1);
    t.fd = open(part, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (t.fd < 0) HD_TRY(hd_fail_errno(err, "create: %s", part));
    hd_progress_begin(&t.bar, f->file, f->bytes, "B");
    st = take_up(&t, part, err);
    if (st == HD_OK) st = transfer_all(&t, *http, url, part, retries, err);
    hd_progress_end(&t.bar);
    if (st != HD_OK) goto fail;
    if (fsync(t.fd) != 0 && errno != EINVAL) HD_TRY(hd_fail_errno(err, "write: %s", part));
    if (rename(part, target) != 0) HD_TRY(hd_fail_errno(err, "rename: %s", target));
fail:
    if (t.fd >= 0) close(t.fd);
    free(part);
    free(url);
    return st;
}

/* Finds the file, or brings it; *path: free(). */
static hd_status get_file(char **path, const corpus_file *f, hd_http **http, int retries, hd_err *err)
{
    hd_status st;
    bool right;
    char *cache = NULL;
    const char *local = getenv("HADAL_DATA");
    *path = NULL;
    if (local && *local) {
        HD_TRY(join3(path, local, f->id, f->file, err));
        if (hd_is_file(*path)) {
            HD_TRY(is_right(&right, f, *path, err));
            if (!right)
                HD_TRY(hd_fail(err, HD_FORMAT,
                               "data: %.300s: another file than %s names: its SHA-256 sum differs", *path,
                               f->id));
            return HD_OK;
        }
        free(*path);
        *path = NULL;
    }
    HD_TRY(cache_folder(&cache, err));
    HD_TRY(join3(path, cache, f->id, f->file, err));
    if (hd_is_file(*path)) {
        HD_TRY(is_right(&right, f, *path, err));
        if (right) goto fail;
    }
    HD_TRY(fetch(f, *path, http, retries, err));
fail:
    free(cache);
    if (st != HD_OK) {
        free(*path);
        *path = NULL;
    }
    return st;
}

/* ---- The verb ---- */

static hd_status list_all(bool json, hd_err *err)
{
    hd_json_note();
    json_t *list = json ? json_array() : NULL;
    for (int i = 0; i < N_CORPORA; i++) {
        const corpus_file *f = &corpora[i];
        if (json)
            json_array_append_new(list,
                                  json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:s}", "id", f->id, "file",
                                            f->file, "url", f->url, "bytes", (json_int_t)f->bytes, "sha256",
                                            f->sha256, "licence", f->licence, "what", f->what));
        else
            printf("%-20s %-24s %8.2f MB  %-18s %s\n", f->id, f->file, (double)f->bytes * 1e-6, f->licence,
                   f->what);
    }
    if (!json) return HD_OK;
    if (!hd_json_refused()) return hd_json_print_take(list, JSON_INDENT(1), "data: list", err);
    json_decref(list);
    return hd_fail(err, HD_NOMEM, "data: list: no memory");
}

/* An address becomes a line of the table: its last name is the file's, "url" its corpus. */
static hd_status of_url(corpus_file *f, const char *url, const char *sha256, hd_err *err)
{
    const char *slash = strrchr(url, '/');
    if (!sha256 || strlen(sha256) != SHA_HEX || strspn(sha256, "0123456789abcdef") != SHA_HEX)
        return hd_fail(err, HD_USAGE, "data: %.200s: --sha256 SUM is needed, %d digits in lower case", url,
                       SHA_HEX);
    if (!slash || !hd_hub_safe_path(slash + 1))
        return hd_fail(err, HD_USAGE, "data: %.200s: its last part is no name for a file", url);
    *f = (corpus_file){.id = "url", .file = slash + 1, .url = url, .sha256 = sha256};
    return HD_OK;
}

hd_status hd_data_cmd_get(int argc, char **argv, hd_err *err)
{
    hd_status st;
    const char *sha256 = NULL;
    int64_t retries = 8;
    bool json = false;
    int n = 0, found = 0;
    hd_http *http = NULL;
    json_t *list = NULL;
    char *path = NULL;
    corpus_file one;
    const hd_opt opts[] = {
        {"sha256", 0, HD_OPT_STR, &sha256, 0, 0},
        {"retries", 0, HD_OPT_INT, &retries, 0, 1000},
        {"json", 0, HD_OPT_FLAG, &json, 0, 0},
    };
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n == 0) return list_all(json, err);
    if (n != 1) return hd_fail(err, HD_USAGE, "data: one corpus at a time: hadal data get ID");
    if (sodium_init() < 0) return hd_fail(err, HD_IO, "data: libsodium does not start");
    bool url = strstr(argv[1], "://") != NULL;
    if (url) HD_TRY(of_url(&one, argv[1], sha256, err));
    else if (sha256) return hd_fail(err, HD_USAGE, "data: --sha256 belongs to a URL");
    hd_watch_signals();
    list = json ? json_array() : NULL;
    for (int i = 0; i < (url ? 1 : N_CORPORA); i++) {
        const corpus_file *f = url ? &one : &corpora[i];
        if (!url && strcmp(f->id, argv[1]) != 0) continue;
        found++;
        HD_TRY(get_file(&path, f, &http, (int)retries, err));
        if (!json) puts(path);
        else if (json_array_append_new(list, json_string(path)) != 0)
            HD_TRY(hd_fail(err, HD_NOMEM, "data: %s: no memory, or a path that is no UTF-8", f->id));
        free(path);
        path = NULL;
    }
    if (!found)
        HD_TRY(hd_fail(err, HD_USAGE, "data: '%.60s': no such corpus: hadal data get lists them", argv[1]));
    if (json) {
        json_t *all = list;
        list = NULL;
        HD_TRY(hd_json_print_take(all, 0, "data: files", err));
    }
fail:
    hd_http_close(http);
    json_decref(list);
    free(path);
    return st;
}
