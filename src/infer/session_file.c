/* A session on disk: its ids and what the model remembers of them.
 *
 *   "HDSESS\n" 1               8 bytes, the last is the version
 *   fingerprint                32 bytes: BLAKE2b of what the model's answers depend on: its rotary rule, and
 *                              every tensor's name, format, shape and first bytes
 *   layers, cache type         u32, u32
 *   bytes of one layer's part
 *   of a page, ids, computed
 *   positions                  u64 each
 *   ids                        i32 each
 *   pages                      for each page, for each layer, its bytes
 *   checksum                   32 bytes: BLAKE2b of all that stands before
 *
 * Numbers are little-endian, as on every machine that hadal runs on.  The size follows from the head and is
 * compared with the file's before anything is allocated.  Slots behind the last position are written as
 * zeros: a page may have served another conversation before, which is nobody's business. */
#include <sodium.h>
#include <string.h>

#include "base/file.h"
#include "infer/session.h"

enum { HASH = HD_FINGERPRINT };

typedef struct {
    char magic[8];
    uint8_t model[HASH];
    uint32_t n_layers, cache_type;
    uint64_t layer_bytes, n_ids, n_done;
} head;
_Static_assert(sizeof(head) == 72, "no holes");

static const char MAGIC[8] = {'H', 'D', 'S', 'E', 'S', 'S', '\n', 1};

void hd_engine_fingerprint(const hd_engine *e, uint8_t out[HASH])
{
    crypto_generichash_state h;
    const hd_config *c = hd_model_config(e->model);
    const double rule[] = {c->rope.kind,
                           c->rope.theta,
                           c->rope.factor,
                           c->rope.low_freq_factor,
                           c->rope.high_freq_factor,
                           c->rope.beta_fast,
                           c->rope.beta_slow,
                           c->rope.mscale,
                           c->rope.mscale_all_dim,
                           c->rope.attn_factor,
                           (double)c->rope.original_max_pos,
                           (double)c->norm_eps,
                           (double)c->routed_scaling,
                           c->n_heads,
                           c->n_experts_per_tok};
    crypto_generichash_init(&h, NULL, 0, HASH);
    crypto_generichash_update(&h, (const uint8_t *)rule, sizeof rule);
    for (int64_t i = 0; i < hd_source_n_tensors(e->src); i++) {
        const hd_tensor_info *t = hd_source_tensor(e->src, i);
        int64_t about[2 + HD_MAX_DIMS] = {(int64_t)t->type, t->n_dims};
        for (int d = 0; d < t->n_dims; d++) about[2 + d] = t->dim[d];
        crypto_generichash_update(&h, (const uint8_t *)t->name, strlen(t->name));
        crypto_generichash_update(&h, (const uint8_t *)about, sizeof about);
        crypto_generichash_update(&h, t->data, t->bytes < 64 ? t->bytes : 64);
    }
    crypto_generichash_final(&h, out, HASH);
}

static head head_of(const hd_session *s)
{
    head h = {.n_layers = (uint32_t)hd_model_config(s->e->model)->n_layers, .cache_type = (uint32_t)s->e->cache_type};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    hd_engine_fingerprint(s->e, h.model);
    h.layer_bytes = hd_kv_page_bytes(hd_seq_shape(s->seq));
    h.n_ids = (uint64_t)s->ids.n;
    h.n_done = (uint64_t)hd_seq_len(s->seq);
    return h;
}

static int64_t pages_of(uint64_t n_done) { return (int64_t)((n_done + HD_PAGE_TOK - 1) / HD_PAGE_TOK); }

static hd_status put(hd_newfile *f, crypto_generichash_state *sum, const void *p, size_t n, hd_err *err)
{
    crypto_generichash_update(sum, p, n);
    return hd_newfile_write(f, p, n, err);
}

/* Page `page` of every layer; slots from `used` on as zeros.  copy: a layer's bytes; zeros: as many as a key
 * or a value has. */
static hd_status put_page(hd_newfile *f, crypto_generichash_state *sum, hd_session *s, const head *h,
                          int64_t page, int used, uint8_t *copy, const float *zeros, hd_err *err)
{
    hd_status st = HD_OK;
    for (uint32_t l = 0; l < h->n_layers; l++) {
        const uint8_t *bytes = hd_seq_pages(s->seq, (int)l)[page];
        if (used < HD_PAGE_TOK) {
            memcpy(copy, bytes, h->layer_bytes);
            for (int slot = used; slot < HD_PAGE_TOK; slot++)
                hd_kv_store(hd_seq_shape(s->seq), copy, slot, zeros, zeros);
            bytes = copy;
        }
        HD_TRY(put(f, sum, bytes, h->layer_bytes, err));
    }
fail:
    return st;
}

hd_status hd_session_save(hd_session *s, const char *path, hd_err *err)
{
    hd_status st;
    hd_newfile f = {.fd = -1};
    crypto_generichash_state sum;
    uint8_t hash[HASH];
    hd_session_settle(s);
    head h = head_of(s);
    const hd_kv_shape *shape = hd_seq_shape(s->seq);
    uint8_t *copy = NULL;
    float *zeros = NULL;
    HD_TRY(hd_alloc_aligned(&copy, h.layer_bytes, err));
    HD_TRY(hd_alloc_n(&zeros, (size_t)shape->n_kv * (size_t)(shape->dk > shape->dv ? shape->dk : shape->dv),
                      sizeof *zeros, err));
    crypto_generichash_init(&sum, NULL, 0, HASH);
    HD_TRY(hd_newfile_begin(&f, path, err));
    HD_TRY(put(&f, &sum, &h, sizeof h, err));
    if (s->ids.n > 0) HD_TRY(put(&f, &sum, s->ids.id, (size_t)s->ids.n * sizeof *s->ids.id, err));
    for (int64_t page = 0; page < pages_of(h.n_done); page++) {
        int64_t used = (int64_t)h.n_done - page * HD_PAGE_TOK;
        HD_TRY(
            put_page(&f, &sum, s, &h, page, used < HD_PAGE_TOK ? (int)used : HD_PAGE_TOK, copy, zeros, err));
    }
    crypto_generichash_final(&sum, hash, HASH);
    HD_TRY(hd_newfile_write(&f, hash, HASH, err));
    HD_TRY(hd_newfile_commit(&f, err));
fail:
    hd_newfile_abort(&f);
    hd_free_aligned(copy, h.layer_bytes);
    free(zeros);
    return st;
}

/* Everything that can be told from the head alone. */
static hd_status check_head(const hd_session *s, const head *h, size_t size, const char *path, hd_err *err)
{
    head mine = head_of(s);
    size_t ids, pages, want;
    if (memcmp(h->magic, MAGIC, 7) != 0)
        return hd_fail(err, HD_FORMAT, "session: %.200s: no session file", path);
    if (h->magic[7] != MAGIC[7])
        return hd_fail(err, HD_UNSUPPORTED, "session: %.200s: version %d, version %d is read here", path,
                       h->magic[7], MAGIC[7]);
    if (memcmp(h->model, mine.model, HASH) != 0)
        return hd_fail(err, HD_FORMAT, "session: %.200s: of another model", path);
    if (h->n_layers != mine.n_layers || h->layer_bytes != mine.layer_bytes ||
        h->cache_type != mine.cache_type)
        return hd_fail(
            err, HD_FORMAT,
            "session: %.200s: its cache has another type or shape: open the model with the same --cache-type",
            path);
    if (h->n_ids > (uint64_t)s->e->ctx_tok)
        return hd_fail(err, HD_LIMIT,
                       "session: %.200s: %llu ids, the context holds %lld: ask for more with --ctx", path,
                       (unsigned long long)h->n_ids, (long long)s->e->ctx_tok);
    if (h->n_done > h->n_ids || !hd_mul(&ids, (size_t)h->n_ids, 4) ||
        !hd_mul(&pages, (size_t)pages_of(h->n_done), h->layer_bytes * h->n_layers) ||
        !hd_add(&want, ids, pages) || !hd_add(&want, want, sizeof *h + HASH) || want != size)
        return hd_fail(err, HD_FORMAT, "session: %.200s: cut short or altered", path);
    return HD_OK;
}

static hd_status restore(hd_session *s, const hd_map *m, const char *path, hd_err *err)
{
    hd_status st;
    head h;
    uint8_t hash[HASH];
    if (m->size < sizeof h + HASH)
        return hd_fail(err, HD_FORMAT, "session: %.200s: cut short, or no session file", path);
    memcpy(&h, m->data, sizeof h);
    HD_TRY(check_head(s, &h, m->size, path, err));
    crypto_generichash(hash, HASH, m->data, m->size - HASH, NULL, 0);
    if (memcmp(hash, m->data + m->size - HASH, HASH) != 0)
        return hd_fail(err, HD_FORMAT, "session: %.200s: altered: its checksum differs", path);

    const uint8_t *p = m->data + sizeof h;
    for (uint64_t i = 0; i < h.n_ids; i++, p += 4) {
        int32_t id;
        memcpy(&id, p, 4);
        if (id < 0 || id >= s->e->n_vocab)
            return hd_fail(err, HD_FORMAT, "session: %.200s: id %d is none of the model's", path, id);
        HD_TRY(hd_ids_add(&s->ids, id, err));
    }
    HD_TRY(hd_seq_reserve(s->seq, (int64_t)h.n_done, err));
    for (int64_t page = 0; page < pages_of(h.n_done); page++)
        for (uint32_t l = 0; l < h.n_layers; l++, p += h.layer_bytes)
            memcpy(hd_seq_pages(s->seq, (int)l)[page], p, h.layer_bytes);
    hd_seq_advance(s->seq, (int64_t)h.n_done);
fail:
    return st;
}

static void empty(hd_session *s)
{
    hd_session_rewind(s, 0);
    s->ids.n = 0;
    s->ready = false;
}

hd_status hd_session_restore(hd_session *s, const char *path, hd_err *err)
{
    hd_map m = {0};
    empty(s);
    hd_status st = hd_map_open(&m, path, err);
    if (st == HD_OK) st = restore(s, &m, path, err);
    if (st != HD_OK) empty(s);
    hd_map_close(&m);
    return st;
}
