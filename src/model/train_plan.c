/* What training will take, from a configuration alone: the table of weights says how many there are, the
 * tape's own sums how much a row leaves behind. */
#include <string.h>

#include "model/tape.h"

static size_t panels_of(const hd_panel_kind *kind, int64_t n, int64_t k)
{
    return kind->bytes(k) * (size_t)((n + HD_PANEL_ROWS - 1) / HD_PANEL_ROWS) +
           kind->bytes(n) * (size_t)((k + HD_PANEL_ROWS - 1) / HD_PANEL_ROWS);
}

/* One slot in one layer. */
static void count_slot(hd_train_plan *p, const hd_config *c, const hd_slot *s, hd_train_precision precision, int ranks)
{
    int64_t n = hd_dim_size(c, s->rows), k = hd_dim_size(c, s->cols), copies = s->kind == HD_SLOT_EXPERT ? c->n_experts : 1;
    int64_t here = s->kind == HD_SLOT_EXPERT ? (copies + ranks - 1) / ranks : 1; // the most that a rank has
    int64_t active = s->kind == HD_SLOT_EXPERT ? c->n_experts_per_tok : 1;
    bool vector = s->cols == HD_DIM_NONE, tied = s->kind == HD_SLOT_EMBED && c->tie_embeddings;
    bool head = precision == HD_TRAIN_FP8 && (s->kind == HD_SLOT_HEAD || tied);
    bool f32 = precision == HD_TRAIN_F32 || s->kind == HD_SLOT_ROUTER || head;
    const hd_panel_kind *kind = hd_panel_get(f32 ? HD_PANEL_F32 : HD_PANEL_BF16);
    p->n_weights += n * k * copies;
    if (s->kind != HD_SLOT_EMBED || tied) p->n_active += n * k * active;
    p->masters += (uint64_t)(((n * k + 15) / 16 * 16) * here) * 4;
    if (!vector && (s->kind != HD_SLOT_EMBED || tied)) p->panels += panels_of(kind, n, k) * (uint64_t)here;
}

size_t hd_train_work_bytes(const hd_config *c, int rows, int n_threads)
{
    return hd_pass_bytes(c, rows, 16384, n_threads) + hd_back_bytes(c, rows, n_threads);
}

hd_status hd_train_plan_for(hd_train_plan *p, const hd_config *c, hd_train_precision precision, int rows, int n_threads,
                            bool recompute, int ranks, hd_err *err)
{
    hd_status st;
    const hd_arch *a;
    const hd_kernels *k;
    size_t layer = 0, slots = (size_t)rows * (size_t)c->n_experts_per_tok;
    hd_ranks_bytes more = {0};
    memset(p, 0, sizeof *p);
    HD_TRY(hd_arch_find(&a, c, err));
    HD_TRY(hd_kernels_get(&k, err));
    for (int i = 0; i < a->n_slots; i++)
        for (int l = 0; l < hd_slot_layers(&a->slots[i], c); l++)
            if (hd_slot_exists(&a->slots[i], c, HD_SOURCE_HF, l)) count_slot(p, c, &a->slots[i], precision, ranks);
    p->gradients = p->masters;
    if (ranks > 1 && c->n_experts > 0) more = hd_ranks_bytes_for(c, rows, (int64_t)slots);
    for (int l = 0; l < c->n_layers + c->n_mtp; l++) {
        size_t bytes = hd_tape_layer_bytes(c, l, rows);
        if (more.tape > 0 && hd_config_layer_is_moe(c, l)) bytes += more.tape - 8 * slots * (size_t)c->moe_ffn; // what experts keep, there for here
        if (!recompute) p->tape += bytes;
        layer = bytes > layer ? bytes : layer;
    }
    p->tape += (uint64_t)rows * (uint64_t)c->d_model * 4 * (recompute ? (uint64_t)c->n_layers + 2 : 2);
    if (recompute) p->tape += layer;
    p->work = hd_train_work_bytes(c, rows, n_threads) + more.pass + more.back;
    p->cache = hd_cache_tok_bytes(c, hd_train_cache(c, precision, k)) * (uint64_t)rows;
fail:
    return st;
}
