/* Random models: they open and run, the values depend on the seed and the name alone, their spread is the one
 * asked for; safetensors files refuse what does not fit; a folder that is taken is left alone. */
#include <math.h>
#include <unistd.h>

#include "base/folder.h"
#include "base/num.h"
#include "model/config_write.h"
#include "model/model.h"
#include "model/safetensors_write.h"
#include "test.h"
#include "train/checkpoint.h"

static hd_err err;
static char dir[1024];

static json_t *config(int layers, const char *arch)
{
    bool v3 = !strcmp(arch, "DeepseekV3ForCausalLM"), mla = v3 || !strcmp(arch, "DeepseekV2ForCausalLM");
    json_t *j = json_pack("{s:[s],s:i,s:i,s:i,s:i,s:i,s:i,s:b}", "architectures", arch, "vocab_size", 160, "hidden_size", 64,
                          "intermediate_size", 96, "num_hidden_layers", layers, "num_attention_heads", 4, "num_key_value_heads",
                          mla ? 4 : 2, "tie_word_embeddings", !mla);
    json_object_set_new(j, "max_position_embeddings", json_integer(512));
    if (!mla) json_object_set_new(j, "head_dim", json_integer(16));
    json_t *m = mla ? json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i}", "q_lora_rank", 32, "kv_lora_rank", 32,
                                "qk_nope_head_dim", 16, "qk_rope_head_dim", 8, "v_head_dim", 16, "n_routed_experts", 4,
                                "num_experts_per_tok", 2, "moe_intermediate_size", 48, "first_k_dense_replace", 1, "n_group", 1,
                                "topk_group", 1, "num_nextn_predict_layers", v3)
                    : json_object();
    json_object_update(j, m);
    json_decref(m);
    return j;
}

static hd_status init_with(const char *name, int layers, const char *arch, uint64_t seed, const char *tokenizer, hd_source **s)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    json_t *j = config(layers, arch);
    if (strstr(name, "tied")) {
        json_object_set_new(j, "q_lora_rank", json_null());
        json_object_set_new(j, "tie_word_embeddings", json_true());
    }
    if (strstr(name, "dense")) json_object_set_new(j, "n_routed_experts", json_integer(0));
    if (tokenizer) { // with words, and with logits far apart
        json_object_set_new(j, "vocab_size", json_integer(320));
        json_object_set_new(j, "initializer_range", json_real(0.2));
    }
    hd_status st = hd_model_init(path, j, seed, tokenizer, &err);
    json_decref(j);
    if (st == HD_OK) st = hd_source_open(s, path, true, &err);
    return st;
}

static hd_status init(const char *name, int layers, const char *arch, uint64_t seed, hd_source **s)
{
    return init_with(name, layers, arch, seed, NULL, s);
}

/* Logits of one row; all must be numbers. */
static void runs(const hd_source *s, const char *what)
{
    hd_model *m = NULL;
    hd_cache *cache = NULL;
    hd_seq *seq = NULL;
    float logits[160];
    int32_t tok[3] = {1, 5, 9}, n_of = 3;
    hd_model_opts o = {.n_threads = 1, .exact = true, .pack = 1, .quiet = true};
    CHECK_OK(hd_model_open(&m, s, &o, &err));
    if (!m) return;
    CHECK_OK(hd_cache_open(&cache, hd_model_config(m), HD_CACHE_F32, 64, &err));
    CHECK_OK(hd_seq_open(&seq, cache, &err));
    hd_batch b = {.n_rows = 3, .tok = tok, .n_seqs = 1, .n_of = &n_of, .seq = &seq};
    CHECK_OK(hd_forward(m, &b, logits, NULL, &err));
    bool finite = true, moves = false;
    for (int i = 0; i < 160; i++) finite &= isfinite(logits[i]) != 0, moves |= logits[i] != logits[0];
    CHECK(finite && moves, "%s", what);
    hd_seq_close(seq);
    hd_cache_close(cache);
    hd_model_close(m);
}

static double spread(const hd_source *s, const char *name)
{
    const hd_tensor_info *t = hd_source_find(s, name);
    CHECK(t && t->type == HD_F32, "%s", name);
    if (!t) return 0;
    const float *x = (const float *)(const void *)t->data;
    size_t n = t->bytes / 4;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum / (double)n);
}

static bool same(const hd_source *a, const hd_source *b, const char *name)
{
    const hd_tensor_info *x = hd_source_find(a, name), *y = hd_source_find(b, name);
    return x && y && x->bytes == y->bytes && !memcmp(x->data, y->data, x->bytes);
}

static void values(void)
{
    static const char *const archs[] = {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "DeepseekV2ForCausalLM",
                                        "DeepseekV3ForCausalLM"};
    hd_source *s = NULL, *again = NULL, *other = NULL, *deeper = NULL;
    for (int i = 0; i < 5; i++) {
        CHECK_OK(init(archs[i], 3, archs[i], 1, &s));
        runs(s, archs[i]);
        hd_source_close(s);
        s = NULL;
    }
    CHECK_OK(init("a", 3, archs[4], 7, &s));
    CHECK_OK(init("b", 3, archs[4], 7, &again));
    CHECK_OK(init("c", 3, archs[4], 8, &other));
    CHECK_OK(init("d", 5, archs[4], 7, &deeper));
    static const char *const names[] = {"model.embed_tokens.weight", "model.layers.1.mlp.experts.3.up_proj.weight",
                                        "model.layers.3.eh_proj.weight", "model.layers.2.mlp.gate.weight"};
    for (int i = 0; i < 4; i++) {
        CHECK(same(s, again, names[i]), "%s", names[i]);
        CHECK(!same(s, other, names[i]), "%s", names[i]);
        double got = spread(s, names[i]);
        CHECK(fabs(got - 0.02) < 0.02 * 4 / sqrt(2 * 256), "%s: %g", names[i], got); // 256: the smallest's numbers
    }
    CHECK(same(s, deeper, names[0]) && same(s, deeper, names[1]));
    CHECK(!same(s, s, "model.layers.3.embed_tokens.weight")); // shared, not stored twice
    double o = spread(s, "model.layers.0.self_attn.o_proj.weight") * sqrt(6), down = spread(s, "model.layers.1.mlp.experts.0.down_proj.weight") * sqrt(6);
    CHECK(fabs(o - 0.02) < 1e-3 && fabs(down - 0.02) < 1e-3, "%g %g", o, down);
    CHECK(spread(s, "model.norm.weight") == 1 && spread(s, "model.layers.1.mlp.gate.e_score_correction_bias") == 0);
    hd_source_close(s), hd_source_close(again), hd_source_close(other), hd_source_close(deeper);
    s = NULL;
    CHECK(init("a", 3, archs[4], 7, &s) == HD_IO && strstr(err.msg, "already"), "%s", err.msg);
}

static void bad_configs(void)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/bad", dir);
    json_t *j = config(2, "LlamaForCausalLM");
    json_object_set_new(j, "initializer_range", json_real(-1));
    CHECK(hd_model_init(path, j, 1, NULL, &err) == HD_FORMAT && strstr(err.msg, "initializer_range"), "%s", err.msg);
    json_object_set_new(j, "initializer_range", json_real(0.1));
    json_object_set_new(j, "num_attention_heads", json_integer(0));
    CHECK(hd_model_init(path, j, 1, NULL, &err) != HD_OK && !hd_is_dir(path));
    json_object_set_new(j, "num_attention_heads", json_integer(4));
    CHECK(hd_model_init(path, j, 1, "/nonexistent", &err) != HD_OK && !hd_is_dir(path));
    CHECK_OK(hd_model_init(path, j, 1, NULL, &err));
    hd_source *s = NULL;
    CHECK_OK(hd_source_open(&s, path, true, &err));
    CHECK(fabs(spread(s, "model.embed_tokens.weight") - 0.1) < 3e-3);
    hd_source_close(s);
    json_decref(j);
}

static void writer(void)
{
    char path[1200];
    hd_safetensors_writer *w = NULL;
    int64_t dim[2] = {2, 3}, none[1] = {0}, huge[2] = {INT64_MAX, INT64_MAX};
    float x[6] = {1, 2, 3, 4, 5, 6};
    snprintf(path, sizeof path, "%s/x.safetensors", dir);
    CHECK_OK(hd_safetensors_writer_open(&w, path, &err));
    CHECK(hd_safetensors_put(w, "a\"b", HD_F32, 2, dim, &err) == HD_USAGE);
    CHECK(hd_safetensors_put(w, "a", HD_Q8_0, 2, dim, &err) == HD_USAGE);
    CHECK(hd_safetensors_put(w, "a", HD_F32, 1, none, &err) == HD_USAGE);
    CHECK(hd_safetensors_put(w, "a", HD_F32, 2, huge, &err) == HD_USAGE);
    CHECK_OK(hd_safetensors_put(w, "h", HD_BF16, 1, (int64_t[]){3}, &err));
    CHECK(hd_safetensors_put(w, "a", HD_F32, 2, dim, &err) == HD_USAGE && strstr(err.msg, "aligned"));
    hd_safetensors_writer_close(w);
    CHECK_OK(hd_safetensors_writer_open(&w, path, &err));
    CHECK_OK(hd_safetensors_put(w, "a", HD_F32, 2, dim, &err));
    CHECK(hd_safetensors_write(w, x, 4, &err) == HD_USAGE);
    CHECK_OK(hd_safetensors_begin(w, &err));
    CHECK_OK(hd_safetensors_write(w, x, 20, &err));
    CHECK(hd_safetensors_commit(w, NULL, NULL, &err) == HD_USAGE && !hd_is_file(path));
    CHECK(hd_safetensors_write(w, x, 8, &err) == HD_USAGE);
    CHECK_OK(hd_safetensors_write(w, x + 5, 4, &err));
    CHECK_OK(hd_safetensors_commit(w, NULL, NULL, &err));
    CHECK(hd_is_file(path));
    hd_safetensors_writer_close(w);
}

/* For tests/oracle/test_export_full.py: one model of each architecture, into folders named after it. */
static int make_models(const char *where, const char *tokenizer)
{
    static const char *const archs[] = {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "DeepseekV2ForCausalLM",
                                        "DeepseekV3ForCausalLM", "tied-DeepseekV3ForCausalLM", "dense-DeepseekV3ForCausalLM"};
    hd_source *s = NULL;
    snprintf(dir, sizeof dir, "%s", where);
    CHECK_OK(hd_folder_make(dir, &err));
    for (int i = 0; i < 7; i++) {
        const char *arch = strchr(archs[i], '-');
        if (init_with(archs[i], 3, arch ? arch + 1 : archs[i], 1, tokenizer, &s) != HD_OK) fprintf(stderr, "%s\n", err.msg);
        hd_source_close(s);
        s = NULL;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1) return make_models(argv[1], argc > 2 ? argv[2] : NULL);
    snprintf(dir, sizeof dir, "/tmp/hadal-init-%ld", (long)getpid());
    CHECK_OK(hd_folder_make(dir, &err));
    values();
    bad_configs();
    writer();
    CHECK_OK(hd_folder_remove(dir, &err));
    return hd_test_end();
}
