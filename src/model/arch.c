/* The list of architectures, and what their tables' columns mean.  An architecture is one file arch_*.c
 * and one line here. */
#include <stdio.h>
#include <string.h>

#include "model/arch.h"

static const hd_arch *const archs[] = {
    &hd_arch_deepseek_v2, &hd_arch_deepseek_v3, &hd_arch_qwen2, &hd_arch_qwen3, &hd_arch_llama,
};
enum { N_ARCHS = sizeof archs / sizeof archs[0] };

const hd_arch *hd_arch_at(int i) { return i >= 0 && i < N_ARCHS ? archs[i] : NULL; }

hd_status hd_arch_find(const hd_arch **out, const hd_config *c, hd_err *err)
{
    char known[256] = "";
    for (int i = 0; i < N_ARCHS; i++) {
        if (!strcmp(archs[i]->name, c->arch)) {
            *out = archs[i];
            return HD_OK;
        }
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", archs[i]->name);
    }
    return hd_fail(err, HD_UNSUPPORTED, "architecture: %.64s: not known here; known are %s", c->arch, known);
}

int64_t hd_dim_size(const hd_config *c, hd_dim d)
{
    switch (d) {
    case HD_DIM_NONE: return 1;
    case HD_DIM_MODEL: return c->d_model;
    case HD_DIM_2MODEL: return 2 * c->d_model;
    case HD_DIM_VOCAB: return c->n_vocab;
    case HD_DIM_Q: return (int64_t)c->n_heads * c->head_dim;
    case HD_DIM_KV: return (int64_t)c->n_kv_heads * c->head_dim;
    case HD_DIM_HEAD: return c->head_dim;
    case HD_DIM_HALF_HEAD: return c->head_dim / 2;
    case HD_DIM_FFN: return c->n_ffn;
    case HD_DIM_EXPERTS: return c->n_experts;
    case HD_DIM_EXPERT_FFN: return c->moe_ffn;
    case HD_DIM_SHARED_FFN: return (int64_t)c->n_shared_experts * c->moe_ffn;
    case HD_DIM_Q_LORA: return c->q_lora_rank;
    case HD_DIM_KV_LORA: return c->kv_lora_rank;
    case HD_DIM_KV_A: return (int64_t)c->kv_lora_rank + c->qk_rope_head_dim;
    case HD_DIM_QK: return (int64_t)c->n_heads * (c->qk_nope_head_dim + c->qk_rope_head_dim);
    case HD_DIM_KV_B: return (int64_t)c->n_heads * (c->qk_nope_head_dim + c->v_head_dim);
    case HD_DIM_V: return (int64_t)c->n_heads * c->v_head_dim;
    case HD_DIM_HEADS: return c->n_heads;
    case HD_DIM_NOPE: return c->qk_nope_head_dim;
    case HD_DIM_V_HEAD: return c->v_head_dim;
    }
    return 0;
}

bool hd_slot_exists(const hd_slot *s, const hd_config *c, hd_source_kind kind, int layer)
{
    bool moe = s->per_layer && hd_config_layer_is_moe(c, layer);
    unsigned have = 0;
    if (s->per_layer) have |= moe ? HD_IF_MOE : HD_IF_DENSE;
    if (moe && c->n_shared_experts > 0) have |= HD_IF_SHARED;
    if (c->topk == HD_TOPK_NOAUX) have |= HD_IF_CORRECTION;
    have |= c->q_lora_rank > 0 ? HD_IF_Q_LORA : HD_IF_NO_Q_LORA;
    if (c->qkv_bias) have |= HD_IF_QKV_BIAS;
    if (c->o_bias) have |= HD_IF_O_BIAS;
    if (c->mlp_bias) have |= HD_IF_MLP_BIAS;
    if (c->qk_norm) have |= HD_IF_QK_NORM;
    if (!c->tie_embeddings) have |= HD_IF_UNTIED;
    if (s->per_layer && layer >= c->n_layers) have |= HD_IF_MTP;
    if (kind == HD_SOURCE_GGUF) have |= HD_IF_GGUF;
    unsigned need = s->when;
    if (kind == HD_SOURCE_GGUF && s->flags & HD_SLOT_PRESENCE) // the caller looks whether it is there
        need &= HD_IF_DENSE | HD_IF_MOE | HD_IF_SHARED | HD_IF_MTP | HD_IF_Q_LORA | HD_IF_NO_Q_LORA;
    return (need & ~have) == 0 && (kind == HD_SOURCE_GGUF ? s->gguf : s->hf) != NULL;
}

int hd_slot_layers(const hd_slot *s, const hd_config *c) { return s->per_layer ? c->n_layers + c->n_mtp : 1; }

void hd_slot_name(char out[128], const char *pattern, int layer, int expert)
{
    int number[2] = {layer, expert}, used = 0;
    size_t n = 0;
    for (const char *p = pattern; *p && n < 127; p++) {
        if (p[0] == '%' && p[1] == 'd' && used < 2) {
            int w = snprintf(out + n, 128 - n, "%d", number[used++]);
            n = n + (size_t)w < 127 ? n + (size_t)w : 127;
            p++;
        } else out[n++] = *p;
    }
    out[n] = 0;
}

/* %d stands for one or more digits. */
static bool matches(const char *pattern, const char *name)
{
    if (!pattern) return false;
    while (*pattern) {
        if (pattern[0] == '%' && pattern[1] == 'd') {
            if (*name < '0' || *name > '9') return false;
            while (*name >= '0' && *name <= '9') name++;
            pattern += 2;
        } else if (*pattern++ != *name++) return false;
    }
    return *name == 0 || !strcmp(name, "_scale_inv"); // block scales of an FP8 weight
}

bool hd_arch_knows(const hd_arch *a, hd_source_kind kind, const char *name)
{
    for (int i = 0; i < a->n_slots; i++) {
        const hd_slot *s = &a->slots[i];
        if (kind == HD_SOURCE_HF ? matches(s->hf, name) : matches(s->gguf, name) || matches(s->gguf_each, name))
            return true;
    }
    return false;
}
