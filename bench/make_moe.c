/* make_moe TYPE FILE: write the random model of experts that the benchmarks run, 1.27 billion weights, as
 * GGUF.
 *
 * A small DeepSeek: 12 layers (the first dense) of 64 experts, 6 of them and 2 shared for each token,
 * attention through latents in the proportions of V2.  (llama.cpp opens it too: it has a query latent, so it
 * may not have 26 or 27 layers.) Speed depends on shapes and formats, not on values; so that the file is made
 * as fast as the disk takes it, rows are put together from a few thousand random blocks instead of being
 * encoded one by one. */
#include "tiny.h"

enum { POOL = 4096, V = 32000 };

/* Encoded blocks that a tensor's rows are drawn from, all of one format and one size of weights. */
typedef struct {
    hd_type type;
    float dev;
    uint8_t *block;
    size_t bytes;
} pool;

static pool the_pool; // of the tensor being written; made anew when format or size changes

static hd_config config(void)
{
    hd_config c = tiny_config(&(tiny_opts){.kind = TINY_V2});
    c.n_layers = 12;
    c.d_model = 1024;
    c.n_ffn = 4096;
    c.n_vocab = V;
    c.n_heads = c.n_kv_heads = 8;
    c.q_lora_rank = c.kv_lora_rank = 512;
    c.qk_nope_head_dim = c.v_head_dim = 128;
    c.qk_rope_head_dim = 64;
    c.head_dim = 192;
    c.n_experts = 64;
    c.n_experts_per_tok = 6;
    c.n_shared_experts = 2;
    c.moe_ffn = 512;
    c.max_pos = 32768;
    return c;
}

static void fill_pool(tiny_writer *t, hd_type type, float mean, float dev)
{
    const hd_format *f = hd_format_get((int)type);
    float x[256];
    the_pool = (pool){type, dev, realloc(the_pool.block, (size_t)POOL * (size_t)f->bytes), (size_t)f->bytes};
    if (!the_pool.block) abort();
    for (int b = 0; b < POOL; b++) {
        for (int i = 0; i < f->block; i++) x[i] = mean + dev * hd_rng_normal(&t->rng);
        f->quant(the_pool.block + (size_t)b * the_pool.bytes, x, f->block, NULL);
    }
}

static hd_status rows_from_pool(tiny_writer *t, const hd_slot *s, hd_type type, int64_t rows, int64_t k)
{
    enum { CHUNK = 1 << 16 };
    hd_status st = HD_OK;
    const hd_format *f = hd_format_get((int)type);
    bool vector = s->kind == HD_SLOT_NORM || s->kind == HD_SLOT_BIAS;
    float dev = s->kind == HD_SLOT_EMBED ? 1.0f : vector ? 0.2f : 1.2f / sqrtf((float)k);
    if (vector || the_pool.type != type || the_pool.dev != dev)
        fill_pool(t, type, s->kind == HD_SLOT_NORM ? 1 : 0, dev);
    uint8_t *out = malloc(CHUNK);
    if (!out) return HD_NOMEM;
    size_t used = 0;
    for (int64_t left = rows * k / f->block; left > 0; left--) {
        memcpy(out + used, the_pool.block + hd_rng_u32(&t->rng) % POOL * the_pool.bytes, the_pool.bytes);
        used += the_pool.bytes;
        if (left > 1 && used + the_pool.bytes <= CHUNK) continue;
        HD_TRY(hd_gguf_write(t->w, out, used, t->err));
        used = 0;
    }
    if (vector) the_pool.type = (hd_type)-1;
fail:
    free(out);
    return st;
}

/* Bytes, then words that nobody says. */
static hd_status vocab(tiny_writer *t)
{
    hd_status st;
    static char text[V][12];
    static hd_gguf_str token[V];
    static int32_t type[V];
    hd_gguf_str merge = {"t h", 3};
    int others = 0;
    for (int i = 0; i < V; i++) {
        size_t n =
            i < 256 ? tiny_byte(text[i], i, &others) : (size_t)snprintf(text[i], sizeof text[i], "word%d", i);
        if (i == 256) memcpy(text[i], "th", n = 2);
        token[i] = (hd_gguf_str){text[i], n};
        type[i] = 1;
    }
    HD_TRY(hd_gguf_put_str(t->w, "tokenizer.ggml.model", "gpt2", 4, t->err));
    HD_TRY(hd_gguf_put_str(t->w, "tokenizer.ggml.pre", "default", 7, t->err));
    HD_TRY(hd_gguf_put_arr_str(t->w, "tokenizer.ggml.tokens", token, V, t->err));
    HD_TRY(hd_gguf_put_arr(t->w, "tokenizer.ggml.token_type", HD_GGUF_I32, type, V, t->err));
    HD_TRY(hd_gguf_put_arr_str(t->w, "tokenizer.ggml.merges", &merge, 1, t->err));
    HD_TRY(hd_gguf_put_u32(t->w, "tokenizer.ggml.bos_token_id", V - 2, t->err));
    HD_TRY(hd_gguf_put_u32(t->w, "tokenizer.ggml.eos_token_id", V - 1, t->err));
fail:
    return st;
}

int main(int argc, char **argv)
{
    hd_err err = {0};
    hd_config c = config();
    const hd_format *f = argc == 3 ? hd_format_named(argv[1]) : NULL;
    if (!f || !f->quant || f->block > 256) {
        fprintf(stderr, "usage: make_moe TYPE FILE   (q4_k, q8_0, bf16, ...)\n");
        return 2;
    }
    tiny_opts o = {.kind = TINY_V2, .type = f->type, .seed = 1, .split_kv_b = true};
    tiny_writer t = {.c = &c, .o = &o, .err = &err, .rows = rows_from_pool, .vocab = vocab};
    hd_status st = tiny_write_by(&t, argv[2]);
    free(the_pool.block);
    if (st != HD_OK) fprintf(stderr, "make_moe: %s\n", err.msg);
    return st != HD_OK;
}
