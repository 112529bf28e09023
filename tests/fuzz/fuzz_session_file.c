/* Session files.  The first byte of an input says how much of it is believable: without bit 0 the rest is the
 * file as it is; with it the rest is a head and what follows, of the right model, filled with zeros to the
 * length that the head asks for, and the checksum is right: so that the fuzzer need not find a hash. */
#include <sodium.h>
#include <sys/mman.h>

#include "infer/session.h"
#include "tiny.h"

enum { HEAD = 72, MODEL_AT = 8, MODEL = 32, HASH = 32, MOST = 1 << 20 };

static hd_session *session;
static uint8_t model[MODEL];

static void need(hd_status st, const hd_err *err)
{
    if (st == HD_OK) return;
    fprintf(stderr, "%s\n", err->msg);
    abort();
}

static void begin(void)
{
    char path[] = "/tmp/hadal-fuzz-XXXXXX";
    hd_err err = {0};
    hd_engine *e;
    hd_engine_opts o = {.n_threads = 1, .ctx_tok = 512, .cache_type = "q8_0"};
    tiny_opts t = {.kind = TINY_V2, .type = HD_Q8_0, .seed = 1};
    hd_map m;
    int fd = mkstemp(path);
    if (fd < 0) abort();
    close(fd);
    need(tiny_write(path, &t, &err), &err);
    need(hd_engine_open(&e, path, &o, &err), &err);
    need(hd_session_open(&session, e, &err), &err);
    need(hd_session_save(session, path, &err), &err); // an empty one tells the fingerprint
    need(hd_map_open(&m, path, &err), &err);
    memcpy(model, m.data + MODEL_AT, MODEL);
    hd_map_close(&m);
    unlink(path);
}

/* What the head says the file's length is, checksum left out; 0: nothing sensible. */
static size_t wanted(const uint8_t *head)
{
    uint32_t layers;
    uint64_t bytes, ids, done;
    size_t n, pages;
    memcpy(&layers, head + 40, 4);
    memcpy(&bytes, head + 48, 8);
    memcpy(&ids, head + 56, 8);
    memcpy(&done, head + 64, 8);
    if (done > MOST || !hd_mul(&n, ids, 4) || !hd_mul(&pages, (done + 63) / 64, bytes) ||
        !hd_mul(&pages, pages, layers) || !hd_add(&n, n, pages) || !hd_add(&n, n, HEAD))
        return 0;
    return n > MOST ? 0 : n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[MOST + HASH];
    char path[64];
    if (!session) begin();
    if (size < 1 || size > MOST) return 0;
    size_t n = size - 1;
    memset(file, 0, sizeof file);
    memcpy(file, data + 1, n);
    if ((data[0] & 1) && n >= HEAD) {
        memcpy(file + MODEL_AT, model, MODEL);
        size_t want = wanted(file);
        if (want > n) n = want;
        crypto_generichash(file + n, HASH, file, n, NULL, 0);
        n += HASH;
    }
    int fd = memfd_create("session", 0);
    if (fd < 0 || write(fd, file, n) != (ssize_t)n) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (hd_session_restore(session, path, NULL) == HD_OK && hd_session_len(session) > 0 &&
        hd_session_len(session) < 16) { // what was taken in must be fit for use
        const float *logits;
        if (hd_session_logits(session, &logits, NULL) != HD_OK) abort();
    }
    close(fd);
    return 0;
}
