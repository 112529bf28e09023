/* hd_quantize on small models made here: a GGUF `llama`, and Hugging Face directories of llama and
 * DeepSeek-V3, whose numbers say where they came from. */
#include "model/quantize.h"

#include <math.h>
#include <unistd.h>

#include "base/rng.h"
#include "files_build.h"
#include "test.h"

static hd_err err;

static hd_quantize_opts opts_of(const char *type)
{
    return (hd_quantize_opts){.mix = hd_quant_mix_named(type), .n_threads = 2};
}

static hd_status convert(const char *in, const char *out, const hd_quantize_opts *o, hd_quantize_report *r)
{
    hd_source *s = NULL;
    hd_status st = hd_source_open(&s, in, true, &err);
    if (st == HD_OK) st = hd_quantize(out, s, o, r, &err);
    hd_source_close(s);
    return st;
}

/* ---- A GGUF model: 2 layers of width 256, with rows of 320 in ffn_down that no super-block fits ---- */

enum { D = 256, FFN = 320, HEADS = 4, V = 64 };

static hd_status put_matrix(hd_gguf_writer *w, const char *name, int64_t rows, int64_t cols, bool data, hd_rng *r, float spoil)
{
    const int64_t dim[2] = {rows, cols};
    if (!data) return hd_gguf_put_tensor(w, name, HD_F32, cols ? 2 : 1, dim, &err);
    for (int64_t i = 0; i < rows * (cols ? cols : 1); i++) {
        float v = i == 5 ? hd_rng_normal(r) * spoil : hd_rng_normal(r);
        hd_status st = hd_gguf_write(w, &v, 4, &err);
        if (st != HD_OK) return st;
    }
    return HD_OK;
}

static void write_llama(const char *path, float spoil)
{
    hd_gguf_writer *w = NULL;
    char name[64];
    hd_rng r;
    CHECK_OK(hd_gguf_writer_open(&w, path, &err));
    CHECK_OK(hd_gguf_put_str(w, "general.architecture", "llama", 5, &err));
    CHECK_OK(hd_gguf_put_u32(w, "general.file_type", 0, &err));
    CHECK_OK(hd_gguf_put_u32(w, "llama.block_count", 2, &err));
    CHECK_OK(hd_gguf_put_u32(w, "llama.context_length", 64, &err));
    CHECK_OK(hd_gguf_put_u32(w, "llama.embedding_length", D, &err));
    CHECK_OK(hd_gguf_put_u32(w, "llama.feed_forward_length", FFN, &err));
    CHECK_OK(hd_gguf_put_u32(w, "llama.attention.head_count", HEADS, &err));
    CHECK_OK(hd_gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f, &err));
    for (int data = 0; data < 2; data++) {
        hd_rng_seed(&r, 3, 3);
        if (data) CHECK_OK(hd_gguf_begin_data(w, &err));
        CHECK_OK(put_matrix(w, "token_embd.weight", V, D, data, &r, 1));
        CHECK_OK(put_matrix(w, "output_norm.weight", D, 0, data, &r, 1));
        for (int l = 0; l < 2; l++) {
            static const struct { const char *name; int64_t rows, cols; } t[] = {
                {"attn_norm", D, 0}, {"attn_q", D, D}, {"attn_k", D, D}, {"attn_v", D, D}, {"attn_output", D, D},
                {"ffn_norm", D, 0}, {"ffn_gate", FFN, D}, {"ffn_up", FFN, D}, {"ffn_down", D, FFN},
            };
            for (int i = 0; i < 9; i++) {
                snprintf(name, sizeof name, "blk.%d.%s.weight", l, t[i].name);
                CHECK_OK(put_matrix(w, name, t[i].rows, t[i].cols, data, &r, i == 1 ? spoil : 1));
            }
        }
    }
    CHECK_OK(hd_gguf_commit(w, &err));
    hd_gguf_writer_close(w);
}

static hd_type type_of(const hd_source *s, const char *name)
{
    const hd_tensor_info *t = hd_source_find(s, name);
    return t ? t->type : (hd_type)-1;
}

static void mixes_and_rules(void)
{
    char in[300], out[300];
    hd_quantize_report r;
    hd_source *s = NULL, *orig = NULL;
    snprintf(in, sizeof in, "%s", build_path("in.gguf"));
    snprintf(out, sizeof out, "%s", build_path("out.gguf"));
    write_llama(in, 1);
    hd_quantize_opts o = opts_of("q4_k_m");
    o.rules = "blk.1.attn_q=q3_k,attn_(q|k)=q8_0";
    CHECK_OK(convert(in, out, &o, &r));
    CHECK(r.n_tensors == 20 && r.n_fallback == 2, "%lld tensors, %d fallbacks", (long long)r.n_tensors, r.n_fallback);
    CHECK(r.relative_rmse > 0.005 && r.relative_rmse < 0.08, "%g", r.relative_rmse);
    CHECK_OK(hd_source_open(&s, out, true, &err));
    CHECK_OK(hd_source_open(&orig, in, true, &err));
    CHECK(type_of(s, "token_embd.weight") == HD_Q6_K, "a tied embedding is the output matrix");
    CHECK(type_of(s, "blk.0.attn_norm.weight") == HD_F32);
    CHECK(type_of(s, "blk.0.attn_q.weight") == HD_Q8_0);
    CHECK(type_of(s, "blk.1.attn_q.weight") == HD_Q3_K, "the first rule that matches counts");
    CHECK(type_of(s, "blk.0.ffn_gate.weight") == HD_Q4_K);
    CHECK(type_of(s, "blk.1.attn_v.weight") == HD_Q6_K, "the last layer gets more bits");
    CHECK(type_of(s, "blk.1.ffn_down.weight") == HD_Q8_0, "rows of 320: q6_k falls back to q8_0");
    for (int64_t i = 0; s && i < hd_source_n_tensors(orig); i++) { // every weight is near its original, in its place
        const hd_tensor_info *a = hd_source_tensor(orig, i), *b = hd_source_find(s, a->name);
        size_t n = a->bytes / 4;
        float *y = malloc(n * 4);
        double error = 0, size = 0;
        hd_format_get((int)b->type)->dequant(y, b->data, (int64_t)n);
        for (size_t k = 0; k < n; k++) {
            float x;
            memcpy(&x, a->data + 4 * k, 4);
            error += (x - y[k]) * (x - y[k]);
            size += x * x;
        }
        CHECK(sqrt(error / size) < 0.16, "%s: %g", a->name, sqrt(error / size));
        free(y);
    }
    hd_source_close(s);
    hd_source_close(orig);

    hd_buf one, two;
    hd_buf_init(&one, 1 << 24);
    hd_buf_init(&two, 1 << 24);
    CHECK_OK(hd_file_read(&one, out, &err));
    o.n_threads = 1;
    CHECK_OK(convert(in, out, &o, &r));
    CHECK_OK(hd_file_read(&two, out, &err));
    CHECK(one.len == two.len && memcmp(one.data, two.data, one.len) == 0, "1 and 2 threads write other bytes");

    CHECK(convert(in, in, &o, &r) == HD_USAGE, "the input may not be overwritten");
    o.rules = "attn_q=q9_9";
    CHECK(convert(in, out, &o, &r) == HD_USAGE);
    o.rules = "(=q8_0";
    CHECK(convert(in, out, &o, &r) == HD_USAGE);
    o.rules = NULL;
    volatile sig_atomic_t stop = 1;
    o.stop = &stop;
    CHECK(convert(in, out, &o, &r) == HD_CANCELLED);
    o.stop = NULL;
    const float bad[] = {NAN, INFINITY, 1e30f};
    for (int i = 0; i < 3; i++) {
        write_llama(in, bad[i]);
        CHECK(convert(in, out, &o, &r) == HD_FORMAT, "%g is written", (double)bad[i]);
        CHECK(strstr(err.msg, "blk.0.attn_q.weight"), "%s", err.msg);
    }
    hd_buf_clear(&one);
    CHECK_OK(hd_file_read(&one, out, &err));
    CHECK(one.len == two.len && memcmp(one.data, two.data, one.len) == 0, "failures touched the old file");
    hd_buf_free(&one);
    hd_buf_free(&two);
}

/* ---- Hugging Face directories: element i of a weight is base + i, so that its place is known afterwards - */

typedef struct {
    hd_buf head, data;
} tensors;

static void add(tensors *t, float base, int64_t rows, int64_t cols, const char *name)
{
    size_t begin = t->data.len;
    char shape[64];
    for (int64_t i = 0; i < rows * (cols ? cols : 1); i++) {
        float v = base + (float)i;
        hd_buf_add(&t->data, &v, 4, NULL);
    }
    if (cols) snprintf(shape, sizeof shape, "%lld,%lld", (long long)rows, (long long)cols);
    else snprintf(shape, sizeof shape, "%lld", (long long)rows);
    hd_buf_addf(&t->head, NULL, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", t->head.len ? "," : "{",
                name, shape, begin, t->data.len);
}

static void save(tensors *t, const char *config)
{
    hd_buf file;
    hd_buf_init(&file, 1 << 26);
    hd_buf_adds(&t->head, "}", NULL);
    while (t->head.len % 8) hd_buf_adds(&t->head, " ", NULL);
    uint64_t n = t->head.len;
    hd_buf_add(&file, &n, 8, NULL);
    hd_buf_add(&file, t->head.data, t->head.len, NULL);
    hd_buf_add(&file, t->data.data, t->data.len, NULL);
    build_file("model.safetensors", file.data, file.len);
    build_file("config.json", config, strlen(config));
    hd_buf_free(&file);
    hd_buf_free(&t->head);
    hd_buf_free(&t->data);
}

static void begin(tensors *t)
{
    hd_buf_init(&t->head, 1 << 20);
    hd_buf_init(&t->data, 1 << 26);
}

static float at(const hd_source *s, const char *name, int64_t i)
{
    const hd_tensor_info *t = s ? hd_source_find(s, name) : NULL;
    float v = NAN;
    CHECK(t != NULL, "%s is missing", name);
    if (t && (size_t)i < t->bytes / 4) memcpy(&v, t->data + 4 * (size_t)i, 4);
    return v;
}

static void llama_directory(void)
{
    tensors t;
    hd_quantize_report r;
    hd_source *s = NULL;
    char out[300];
    begin(&t);
    add(&t, 0, 16, 8, "model.embed_tokens.weight");
    add(&t, 0, 8, 0, "model.norm.weight");
    add(&t, 0, 16, 8, "lm_head.weight");
    static const char *const norms[] = {"input_layernorm", "post_attention_layernorm"};
    char name[96];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "model.layers.0.%s.weight", norms[i]);
        add(&t, 0, 8, 0, name);
    }
    static const char *const squares[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"};
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "model.layers.0.%s.weight", squares[i]);
        add(&t, (float)(1000 * i), 8, 8, name);
    }
    add(&t, 0, 12, 8, "model.layers.0.mlp.gate_proj.weight");
    add(&t, 500, 12, 8, "model.layers.0.mlp.up_proj.weight");
    add(&t, 0, 8, 12, "model.layers.0.mlp.down_proj.weight");
    save(&t, "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":1,"
             "\"num_attention_heads\":2,\"num_key_value_heads\":2,\"vocab_size\":16,\"max_position_embeddings\":64,"
             "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
             "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":32}}");
    snprintf(out, sizeof out, "%s", build_path("llama.gguf"));
    hd_quantize_opts o = opts_of("f32");
    hd_status st = convert(build_dir, out, &o, &r);
    CHECK(st == HD_OK, "%s", err.msg);
    if (st != HD_OK) return;
    CHECK_OK(hd_source_open(&s, out, true, &err));
    /* a head of 4 rows: 0 2 1 3 */
    CHECK(at(s, "blk.0.attn_q.weight", 0) == 0 && at(s, "blk.0.attn_q.weight", 8) == 16);
    CHECK(at(s, "blk.0.attn_q.weight", 16) == 8 && at(s, "blk.0.attn_q.weight", 24) == 24);
    CHECK(at(s, "blk.0.attn_k.weight", 8 * 5) == 1000 + 8 * 6, "the second head too");
    CHECK(at(s, "blk.0.attn_v.weight", 8) == 2008, "values are not rotated");
    CHECK(at(s, "blk.0.ffn_up.weight", 3) == 503);
    /* frequency 1 turns 32 / 2 pi = 5.1 times in the original context: kept; 1/100 turns 0.05
     * times: divided by 8 */
    CHECK(at(s, "rope_freqs.weight", 0) == 1 && at(s, "rope_freqs.weight", 1) == 8);
    hd_source_close(s);
}

static void deepseek_directory(void)
{
    enum { HEADS_ = 2, NOPE = 4, ROPE = 2, VAL = 3, LORA = 5, QL = 6, W = 8, X = 4 };
    tensors t;
    hd_quantize_report r;
    hd_source *s = NULL;
    char name[96], out[300];
    const char *config =
        "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":%d,"
        "\"num_attention_heads\":2,\"num_key_value_heads\":2,\"vocab_size\":16,\"max_position_embeddings\":64,"
        "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"q_lora_rank\":6,\"kv_lora_rank\":5,\"qk_nope_head_dim\":4,"
        "\"qk_rope_head_dim\":2,\"v_head_dim\":3,\"n_routed_experts\":4,\"num_experts_per_tok\":2,\"n_shared_experts\":1,"
        "\"moe_intermediate_size\":3,\"first_k_dense_replace\":0,\"n_group\":2,\"topk_group\":1,\"norm_topk_prob\":true,"
        "\"routed_scaling_factor\":2.5,\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\",\"rope_scaling\":null}";
    for (int layers = 1; layers <= 26; layers += 25) {
        begin(&t);
        add(&t, 0, 16, W, "model.embed_tokens.weight");
        add(&t, 0, W, 0, "model.norm.weight");
        add(&t, 0, 16, W, "lm_head.weight");
        for (int l = 0; l < layers; l++) {
            const struct { const char *name; int64_t rows, cols; } of[] = {
                {"input_layernorm.weight", W, 0}, {"post_attention_layernorm.weight", W, 0},
                {"self_attn.q_a_proj.weight", QL, W}, {"self_attn.q_a_layernorm.weight", QL, 0},
                {"self_attn.q_b_proj.weight", HEADS_ * (NOPE + ROPE), QL},
                {"self_attn.kv_a_proj_with_mqa.weight", LORA + ROPE, W}, {"self_attn.kv_a_layernorm.weight", LORA, 0},
                {"self_attn.kv_b_proj.weight", HEADS_ * (NOPE + VAL), LORA}, {"self_attn.o_proj.weight", W, HEADS_ * VAL},
                {"mlp.gate.weight", X, W}, {"mlp.gate.e_score_correction_bias", X, 0},
                {"mlp.shared_experts.gate_proj.weight", 3, W}, {"mlp.shared_experts.up_proj.weight", 3, W},
                {"mlp.shared_experts.down_proj.weight", W, 3},
            };
            for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
                snprintf(name, sizeof name, "model.layers.%d.%s", l, of[i].name);
                add(&t, 0, of[i].rows, of[i].cols, name);
            }
            for (int x = 0; x < X; x++) {
                snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.gate_proj.weight", l, x);
                add(&t, (float)(100 * x), 3, W, name);
                snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.up_proj.weight", l, x);
                add(&t, (float)(100 * x), 3, W, name);
                snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.down_proj.weight", l, x);
                add(&t, (float)(100 * x), W, 3, name);
            }
        }
        char text[2048];
        snprintf(text, sizeof text, config, layers);
        save(&t, text);
        snprintf(out, sizeof out, "%s", build_path("v3.gguf"));
        hd_quantize_opts o = opts_of("f32");
        hd_status st = convert(build_dir, out, &o, &r);
        if (layers == 26) {
            CHECK(st == HD_UNSUPPORTED && strstr(err.msg, "query latent"), "%d %s", (int)st, err.msg);
            return;
        }
        CHECK(st == HD_OK, "%s", err.msg);
        if (st != HD_OK) return;
        CHECK_OK(hd_source_open(&s, out, true, &err));
        /* k_b[h][l][k] = kv_b[h (nope + v) + k][l];  v_b[h][v][l] = kv_b[h (nope + v) + nope + v][l] */
        for (int h = 0; h < HEADS_; h++)
            for (int l = 0; l < LORA; l++) {
                for (int k = 0; k < NOPE; k++)
                    CHECK(at(s, "blk.0.attn_k_b.weight", (h * LORA + l) * NOPE + k) ==
                          (float)((h * (NOPE + VAL) + k) * LORA + l));
                for (int v = 0; v < VAL; v++)
                    CHECK(at(s, "blk.0.attn_v_b.weight", (h * VAL + v) * LORA + l) ==
                          (float)((h * (NOPE + VAL) + NOPE + v) * LORA + l));
            }
        CHECK(at(s, "blk.0.ffn_down_exps.weight", 2 * W * 3 + 7) == 207, "experts are stacked in order");
        CHECK(at(s, "blk.0.exp_probs_b.bias", 3) == 3);
        const hd_config *c = hd_source_config(s);
        CHECK(c && c->q_lora_rank == QL && c->kv_lora_rank == LORA && c->qk_nope_head_dim == NOPE && c->v_head_dim == VAL);
        CHECK(c && c->score == HD_SCORE_SIGMOID && c->n_group == 2 && c->topk_group == 1 && c->norm_topk_prob);
        CHECK(c && c->routed_scaling == 2.5f && c->n_experts == X && c->n_experts_per_tok == 2 && c->moe_ffn == 3);
        hd_source_close(s);
    }
}

int main(void)
{
    build_begin();
    mixes_and_rules();
    unlink(build_path("in.gguf"));
    llama_directory();
    deepseek_directory();
    build_end();
    return hd_test_end();
}
