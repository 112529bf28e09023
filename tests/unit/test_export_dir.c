/* Exports that tests/cli/export.sh does not reach: the llama3 frequency rule there and back, what llama.cpp
 * cannot take, split kv_b. */
#include <unistd.h>

#include "base/folder.h"
#include "model/config_write.h"
#include "model/export.h"
#include "model/export_dir.h"
#include "model/quantize.h"
#include "test.h"
#include "tiny.h"
#include "train/checkpoint.h"

static hd_err err;
static char dir[64];

static const char *at(const char *name)
{
    static char path[4][128];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, 128, "%s/%s", dir, name);
    return p;
}

static hd_status to_dir(const char *to, const char *from)
{
    hd_source *s = NULL;
    hd_export_dir_opts o = {.type = HD_F32, .quiet = true};
    hd_export_dir_report r;
    hd_status st = hd_source_open(&s, from, true, &err);
    if (st == HD_OK) st = hd_export_dir(to, s, &o, &r, &err);
    hd_source_close(s);
    return st;
}

static hd_status to_gguf(const char *to, const char *from)
{
    hd_source *s = NULL;
    hd_quantize_opts q = {.mix = hd_quant_mix_named("f32"), .n_threads = 1};
    hd_quantize_report r;
    hd_status st = hd_source_open(&s, from, true, &err);
    if (st == HD_OK) st = hd_quantize(to, s, &q, &r, &err);
    hd_source_close(s);
    return st;
}

static void llama3_rule(void)
{
    json_t *j = json_pack("{s:[s],s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:i,s:{s:s,s:f,s:f,s:f,s:i}}", "architectures", "LlamaForCausalLM",
                          "vocab_size", 64, "hidden_size", 128, "intermediate_size", 64, "num_hidden_layers", 1, "num_attention_heads", 2,
                          "num_key_value_heads", 1, "rope_theta", 500000.0, "max_position_embeddings", 131072, "rope_scaling",
                          "rope_type", "llama3", "factor", 32.0, "low_freq_factor", 1.0, "high_freq_factor", 4.0,
                          "original_max_position_embeddings", 8192);
    hd_source *a = NULL, *b = NULL;
    CHECK_OK(hd_model_init(at("l3"), j, 1, NULL, &err));
    CHECK_OK(to_gguf(at("l3.gguf"), at("l3")));
    CHECK_OK(to_dir(at("l3b"), at("l3.gguf")));
    CHECK_OK(hd_source_open(&a, at("l3"), true, &err));
    CHECK_OK(hd_source_open(&b, at("l3b"), true, &err));
    const hd_rope_config *x = &hd_source_config(a)->rope, *y = &hd_source_config(b)->rope;
    CHECK(y->kind == HD_ROPE_LLAMA3 && x->factor == y->factor && x->high_freq_factor == y->high_freq_factor && x->theta == y->theta &&
          x->original_max_pos == y->original_max_pos && !y->pairs);
    for (int64_t i = 0; i < hd_source_n_tensors(a); i++) {
        const hd_tensor_info *t = hd_source_tensor(a, i), *u = hd_source_find(b, t->name);
        CHECK(u && t->bytes == u->bytes && !memcmp(t->data, u->data, t->bytes), "%s", t->name);
    }
    hd_source_close(a);
    hd_source_close(b);
    /* The same rule with other numbers leaves divisors that no published model has. */
    json_object_set_new(json_object_get(j, "rope_scaling"), "low_freq_factor", json_real(2));
    CHECK_OK(hd_model_init(at("odd"), j, 1, NULL, &err));
    CHECK_OK(to_gguf(at("odd.gguf"), at("odd")));
    CHECK(to_dir(at("oddb"), at("odd.gguf")) == HD_UNSUPPORTED && strstr(err.msg, "llama3") && !hd_is_dir(at("oddb")), "%s", err.msg);
    json_decref(j);
}

/* Files of both ages, kv_b in one piece and in two halves (tests/cli/export.sh compares what they hold). */
static void both_kv_b(void)
{
    hd_source *s[2] = {0};
    for (int split = 0; split < 2; split++) {
        tiny_opts o = {.kind = TINY_V3, .type = HD_F32, .seed = 3, .split_kv_b = split};
        hd_err e = {0};
        CHECK(tiny_write(at(split ? "s.gguf" : "w.gguf"), &o, &e) == HD_OK, "%s", e.msg);
        CHECK_OK(to_dir(at(split ? "s" : "w"), at(split ? "s.gguf" : "w.gguf")));
        CHECK_OK(hd_source_open(&s[split], at(split ? "s" : "w"), true, &err));
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.self_attn.kv_b_proj.weight", 1);
        const hd_tensor_info *t = hd_source_find(s[split], name);
        CHECK(t && t->dim[0] == 4 * 64 && t->dim[1] == 64);
        CHECK(hd_source_config(s[split])->n_mtp == 1 && hd_source_find(s[split], "model.layers.3.eh_proj.weight"));
    }
    hd_source_close(s[0]);
    hd_source_close(s[1]);
}

static void fits(void)
{
    static const char *const word[] = {NULL, "512 layers", "1024 experts", "a shared one", "latent attention", "queries and keys"};
    for (int i = 0; i < 6; i++) {
        tiny_opts o = {.kind = i == 5 ? TINY_QWEN3 : TINY_V3};
        hd_config c = tiny_config(&o);
        if (i == 1) c.n_layers = 512;
        if (i == 2) c.n_experts = 1025;
        if (i == 3) c.n_shared_experts = 0;
        if (i >= 4) c.qkv_bias = true;
        hd_status st = hd_export_fits_llama_cpp(&c, "here", &err);
        CHECK(word[i] ? st == HD_UNSUPPORTED && strstr(err.msg, word[i]) : st == HD_OK, "%d: %s", i, err.msg);
    }
}

int main(void)
{
    snprintf(dir, sizeof dir, "/tmp/hadal-export-%ld", (long)getpid());
    CHECK_OK(hd_folder_make(dir, &err));
    llama3_rule();
    both_kv_b();
    fits();
    CHECK_OK(hd_folder_remove(dir, &err));
    return hd_test_end();
}
