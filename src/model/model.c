/* A model's life: plan the bytes, decide whether to pack, open the device, load, close. */
#include "model/model.h"

#include <string.h>

#include "base/avail.h"
#include "model/load.h"

/* Rows of one pass.  Products are near their best from a hundred rows on.  A small model's weights stay
 * in the core's own cache from slice to slice, so short slices, whose activations stay there too, are
 * faster (SmolLM2-135M, one thread, rows 512 / 256 / 128 / 64: 1224, 1287, 1399, 1247 ids a second) and
 * keep work memory small beside the file.  A larger one is read again for every slice (Qwen2.5-0.5B:
 * 531, 513, 498, 456). */
enum { SMALL_ROWS = 104, MAX_ROWS = 512, FIRST_WORK_TOK = 16384 };
static const uint64_t SMALL_BYTES = (uint64_t)256 << 20;

static int rows_for(const hd_source *s) { return hd_source_weight_bytes(s) < SMALL_BYTES ? SMALL_ROWS : MAX_ROWS; }
static int64_t first_work_tok(const hd_config *c) { return c->max_pos < FIRST_WORK_TOK ? c->max_pos : FIRST_WORK_TOK; }

/* The widest inner dimension of any product; on the way back a weight's rows are one too. */
int64_t hd_model_max_k(const hd_config *c, bool back)
{
    int64_t all[] = {c->d_model * (c->n_mtp > 0 ? 2 : 1),
                     c->n_ffn,
                     c->moe_ffn,
                     (int64_t)c->n_shared_experts * c->moe_ffn,
                     hd_dim_size(c, HD_DIM_Q),
                     c->q_lora_rank,
                     c->kv_lora_rank,
                     c->kv_lora_rank > 0 ? hd_dim_size(c, HD_DIM_V) : 0,
                     c->qk_nope_head_dim,
                     back ? c->n_vocab : 0,
                     back ? hd_dim_size(c, HD_DIM_KV) : 0,
                     back ? c->n_experts : 0,
                     back && c->kv_lora_rank > 0 ? hd_dim_size(c, HD_DIM_QK) : 0,
                     back && c->kv_lora_rank > 0 ? hd_dim_size(c, HD_DIM_KV_A) : 0};
    int64_t k = 1;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) k = all[i] > k ? all[i] : k;
    return k;
}

static size_t largest(size_t a, size_t b) { return a > b ? a : b; }

/* What lives all through a pass, and the most that one block takes. */
size_t hd_pass_bytes(const hd_config *c, int rows, int64_t max_tok, int n_threads)
{
    size_t M = (size_t)rows, D = (size_t)c->d_model, line = 64;
    size_t rope = (size_t)hd_rope_dim(c) * 4, vocab = (size_t)c->n_vocab * 4;
    size_t base = M * (3 * D * 4 + rope + 3 * 4 + sizeof(hd_attn_seq) + sizeof(void *)) +
                  (size_t)n_threads * (2 * D * 4 + line);
    hd_kv_shape kv = hd_cache_shape(c, HD_CACHE_F32);
    size_t attn = hd_attn_work_max(&kv, c->n_heads, rows, rows, max_tok, n_threads);
    size_t block = c->kv_lora_rank > 0 ? hd_block_mla_bytes(c, rows) : hd_block_gqa_bytes(c, rows);
    size_t ffn = largest(hd_block_ffn_bytes(c, rows), c->n_experts > 0 ? hd_block_moe_bytes(c, rows) : 0);
    size_t head = hd_blobs_bytes(c->d_model, rows) + M * D * 4;
    size_t mtp = c->n_mtp > 0 ? M * 2 * D * 4 + hd_blobs_bytes(2 * c->d_model, rows) : 0;
    return base + largest(largest(block + attn, ffn), largest(head, mtp)) + vocab + 64 * line;
}

hd_status hd_pass_work_open(hd_arena *work, const hd_model *m, int64_t max_tok, hd_err *err)
{
    size_t bytes = hd_pass_bytes(&m->cfg, m->max_rows, max_tok, hd_pool_threads(m->dev.pool));
    if (!m->ranks) return hd_arena_open(work, "work", bytes, err);
    return hd_arena_reserve(work, "work", bytes + hd_ranks_bytes_for(&m->cfg, m->max_rows, hd_ranks_most_rows(m->ranks, m->max_rows)).pass, err);
}

static hd_status plan_for(hd_plan *p, const hd_source *s, const hd_config *c, hd_cache_type type, int rows,
                          int n_threads, bool exact, hd_err *err)
{
    hd_status st;
    uint64_t unpacked;
    memset(p, 0, sizeof *p);
    HD_TRY(hd_weights_bytes(&p->packed_bytes, s, c, true, exact, err));
    HD_TRY(hd_weights_bytes(&unpacked, s, c, false, exact, err));
    p->file_bytes = hd_source_weight_bytes(s);
    p->work_bytes = hd_pass_bytes(c, rows, first_work_tok(c), n_threads);
    p->cache_bytes_per_tok = hd_cache_tok_bytes(c, type);
    p->available_bytes = hd_mem_available();
    /* Room for a short conversation beside the weights. */
    uint64_t rest = p->work_bytes + p->cache_bytes_per_tok * 1024;
    p->fits_packed = p->packed_bytes + rest <= p->available_bytes;
    p->fits_unpacked = unpacked + rest <= p->available_bytes;
fail:
    return st;
}

static hd_status config_of(hd_config *c, const hd_source *s, hd_err *err)
{
    const hd_config *read = hd_source_config(s);
    if (!read)
        return hd_fail(err, HD_UNSUPPORTED, "model: %.200s: holds no model configuration", hd_source_path(s));
    *c = *read;
    hd_config_drop_mtp(c, s);
    return HD_OK;
}

hd_status hd_model_plan(hd_plan *p, const hd_source *s, hd_cache_type type, hd_err *err)
{
    hd_config c;
    hd_status st = config_of(&c, s, err);
    return st == HD_OK ? plan_for(p, s, &c, type, rows_for(s), hd_cpu_threads(), false, err) : st;
}

/* Pack unless told otherwise; when it does not fit and nobody insists, keep the file's pages. */
static hd_status decide_pack(bool *pack, const hd_plan *p, int wish, const char *path, hd_err *err)
{
    *pack = wish == 1 || (wish < 0 && p->fits_packed);
    if (*pack ? p->fits_packed : p->fits_unpacked) {
        if (wish < 0 && !*pack)
            hd_warn("%s: packed weights need %.1f GB, %.1f GB are available: keeping the file's own pages, "
                    "which is slower",
                    path, (double)p->packed_bytes / 1e9, (double)p->available_bytes / 1e9);
        return HD_OK;
    }
    return hd_fail(
        err, HD_LIMIT,
        "model: %.200s: needs %.2f GB%s, %.2f GB are available: use a smaller model or a smaller format",
        path, (double)((*pack ? p->packed_bytes : 0) + p->work_bytes) / 1e9, *pack ? " packed" : "",
        (double)p->available_bytes / 1e9);
}

hd_status hd_model_describe(hd_model *m, const hd_source *s, int max_rows, hd_err *err)
{
    hd_status st;
    m->src = s;
    HD_TRY(config_of(&m->cfg, s, err));
    HD_TRY(hd_arch_find(&m->arch, &m->cfg, err));
    m->n_layer = m->cfg.n_layers + m->cfg.n_mtp;
    m->max_rows = max_rows > 0 ? max_rows : rows_for(s);
    m->work_tok = first_work_tok(&m->cfg);
fail:
    return st;
}

hd_status hd_model_open(hd_model **out, const hd_source *s, const hd_model_opts *o, hd_err *err)
{
    hd_status st;
    hd_model *m = NULL;
    hd_plan plan;
    bool pack;
    *out = NULL;
    HD_TRY(hd_alloc(&m, sizeof *m, err));
    HD_TRY(hd_model_describe(m, s, o->max_rows, err));
    HD_TRY(hd_dev_open(&m->dev, o->n_threads, o->exact, hd_model_max_k(&m->cfg, false), err));
    HD_TRY(plan_for(&plan, s, &m->cfg, HD_CACHE_F32, m->max_rows, hd_pool_threads(m->dev.pool), o->exact, err));
    HD_TRY(decide_pack(&pack, &plan, o->pack, hd_source_path(s), err));
    m->keep_pages = !pack;
    if (!pack) HD_TRY(hd_weights_bytes(&plan.packed_bytes, s, &m->cfg, false, o->exact, err));
    HD_TRY(hd_arena_open(&m->weights, "weights", plan.packed_bytes, err));
    HD_TRY(hd_arena_open(&m->work, "work", plan.work_bytes, err));
    HD_TRY(hd_weights_load(m, pack, o->quiet, err));
    HD_TRY(hd_rope_open(&m->rope, &m->cfg, m->w.rope_freq, err));
    m->attn_scale = hd_attn_scale(&m->cfg);
    *out = m;
    return HD_OK;
fail:
    hd_model_close(m);
    return st;
}

void hd_model_close(hd_model *m)
{
    if (!m) return;
    hd_train_close(m->train);
    hd_ranks_close(m->ranks);
    hd_rope_close(&m->rope);
    free(m->layer);
    free(m->heads);
    free(m->experts);
    hd_arena_close(&m->weights);
    hd_arena_close(&m->work);
    hd_dev_close(&m->dev);
    free(m);
}

const hd_config *hd_model_config(const hd_model *m) { return &m->cfg; }
double hd_model_packed_share(const hd_model *m) { return m->weights.cap ? (double)m->weights.used / (double)m->weights.cap : 1; }
hd_dev *hd_model_dev(hd_model *m) { return &m->dev; }
int hd_model_max_rows(const hd_model *m) { return m->max_rows; }
