/* hd_config to config.json and back: every architecture, every field; keys from text; what cannot be said. */
#include "model/config_write.h"

#include <unistd.h>

#include "base/folder.h"
#include "test.h"
#include "tiny.h"

static hd_err err;
static char dir[64];

static void same(const char *what, const char *field, double a, double b) { CHECK(a == b, "%s: %s: %g and %g", what, field, a, b); }

/* Through text on the disk, as readers see it. */
static void round_trip(const hd_config *c, const char *what)
{
    hd_config back;
    char path[128];
    CHECK_OK(hd_config_write(dir, c, "float32", NULL, &err));
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *j = json_load_file(path, 0, NULL);
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    json_t *g = json_load_file(path, 0, NULL);
    CHECK(j && g, "%s", what);
    memset(&back, 0, sizeof back);
    CHECK_OK(hd_config_from_json(&back, j, g, what, &err));
    json_decref(j);
    json_decref(g);
#define SAME(f) same(what, #f, (double)c->f, (double)back.f)
    CHECK(!strcmp(c->arch, back.arch), "%s", what);
    SAME(n_layers), SAME(n_mtp), SAME(d_model), SAME(n_ffn), SAME(n_vocab), SAME(n_heads), SAME(n_kv_heads), SAME(head_dim);
    SAME(max_pos), SAME(norm_eps), SAME(tie_embeddings), SAME(qkv_bias), SAME(o_bias), SAME(mlp_bias), SAME(qk_norm);
    SAME(rope.kind), SAME(rope.theta), SAME(rope.factor), SAME(rope.pairs), SAME(rope.original_max_pos), SAME(rope.truncate);
    SAME(rope.attn_factor);
    if (c->rope.kind == HD_ROPE_LLAMA3) SAME(rope.low_freq_factor), SAME(rope.high_freq_factor);
    if (c->rope.kind == HD_ROPE_YARN)
        SAME(rope.beta_fast), SAME(rope.beta_slow), SAME(rope.mscale), SAME(rope.mscale_all_dim);
    SAME(q_lora_rank), SAME(kv_lora_rank), SAME(qk_nope_head_dim), SAME(qk_rope_head_dim), SAME(v_head_dim);
    SAME(n_experts);
    if (c->n_experts > 0) {
        SAME(n_shared_experts), SAME(n_experts_per_tok), SAME(moe_ffn), SAME(first_k_dense), SAME(moe_layer_freq);
        SAME(n_group), SAME(topk_group), SAME(score), SAME(topk), SAME(norm_topk_prob), SAME(routed_scaling);
    }
    SAME(bos), SAME(pad), SAME(n_eos);
    for (int i = 0; i < c->n_eos; i++) SAME(eos[i]);
    SAME(sampling.temperature), SAME(sampling.top_p), SAME(sampling.min_p), SAME(sampling.repetition_penalty), SAME(sampling.top_k);
#undef SAME
}

static hd_config tiny_hf(tiny_kind kind)
{
    tiny_opts o = {.kind = kind};
    hd_config c = tiny_config(&o);
    if (kind == TINY_LLAMA) c.rope.pairs = false; // that of GGUF
    c.rope.original_max_pos = c.max_pos;
    c.rope.truncate = true;
    c.sampling.temperature = c.sampling.top_p = c.sampling.min_p = c.sampling.repetition_penalty = -1;
    c.sampling.top_k = -1;
    return c;
}

static void architectures(void)
{
    static const char *const what[] = {"llama", "qwen2", "qwen3", "v2", "v3"};
    for (int k = 0; k < N_TINY; k++) {
        hd_config c = tiny_hf(k);
        round_trip(&c, what[k]);
        c.n_eos = 3;
        c.eos[0] = 7, c.eos[1] = 1, c.eos[2] = 260;
        c.pad = 3;
        c.bos = -1;
        c.norm_eps = 1.25e-5f;
        c.tie_embeddings = !c.tie_embeddings;
        c.sampling.temperature = 0.6f, c.sampling.top_p = 0.95f, c.sampling.min_p = 0, c.sampling.repetition_penalty = 1.05f;
        c.sampling.top_k = 40;
        round_trip(&c, what[k]);
        if (k == TINY_LLAMA) c.mlp_bias = true;
        if (k != TINY_QWEN2) c.qkv_bias = c.o_bias = true;
        round_trip(&c, what[k]);
        for (hd_rope_kind r = HD_ROPE_LINEAR; r <= HD_ROPE_YARN; r++) {
            c.rope.kind = r;
            c.rope.theta = 1234567.890625;
            c.rope.factor = 1.0 / 3; // a number of 17 digits
            c.rope.low_freq_factor = 1.5, c.rope.high_freq_factor = 4;
            c.rope.original_max_pos = r == HD_ROPE_LINEAR ? c.max_pos : 512;
            c.rope.attn_factor = r == HD_ROPE_YARN ? 0.75 : 0;
            c.rope.beta_fast = 31.5, c.rope.beta_slow = 1.25, c.rope.mscale = 0.707, c.rope.mscale_all_dim = 0.707;
            c.rope.truncate = r != HD_ROPE_YARN;
            round_trip(&c, what[k]);
        }
    }
    hd_config v2 = tiny_hf(TINY_V2);
    v2.topk = HD_TOPK_GROUP_LIMITED;
    v2.n_group = 4, v2.topk_group = 2;
    v2.q_lora_rank = 24;
    round_trip(&v2, "v2 with groups");
    for (tiny_kind k = TINY_V2; k <= TINY_V3; k++) {
        hd_config dense = tiny_hf(k);
        dense.n_experts = dense.n_experts_per_tok = 0;
        round_trip(&dense, "dense");
    }
    hd_config halves = tiny_hf(TINY_V3);
    halves.rope.pairs = false;
    round_trip(&halves, "v3 rotating halves");
}

static void refused(hd_config *c, const char *word)
{
    json_t *j = NULL;
    CHECK(hd_config_to_json(&j, c, "float32", &err) != HD_OK && !j && strstr(err.msg, word), "%s: %s", word, err.msg);
}

static void without_words(void)
{
    hd_config c = tiny_hf(TINY_QWEN2);
    c.o_bias = true;
    refused(&c, "biases of attention");
    c = tiny_hf(TINY_LLAMA);
    c.qkv_bias = true;
    refused(&c, "biases of attention");
    c = tiny_hf(TINY_QWEN3);
    c.mlp_bias = true;
    refused(&c, "feed-forward");
    c = tiny_hf(TINY_LLAMA);
    c.rope.pairs = true;
    refused(&c, "rotary");
    c = tiny_hf(TINY_LLAMA);
    c.qk_norm = true;
    refused(&c, "norms");
    c = tiny_hf(TINY_LLAMA);
    strcpy(c.arch, "GPT2LMHeadModel");
    refused(&c, "not known");
    c = tiny_hf(TINY_LLAMA);
    c.n_heads = 3;
    refused(&c, "heads");
}

static void keys(void)
{
    static const char *const good[][2] = {
        {"architecture", "DeepseekV3ForCausalLM"}, {"vocab_size", "512"}, {"hidden_size", "128"}, {"intermediate_size", "344"},
        {"num_hidden_layers", "5"}, {"num_attention_heads", "4"}, {"q_lora_rank", "0"}, {"kv_lora_rank", "32"},
        {"qk_nope_head_dim", "32"}, {"qk_rope_head_dim", "16"}, {"v_head_dim", "32"}, {"n_routed_experts", "8"},
        {"num_experts_per_tok", "2"}, {"moe_intermediate_size", "64"}, {"n_group", "1"}, {"topk_group", "1"},
        {"first_k_dense_replace", "1"}, {"tie_word_embeddings", "yes"}, {"rms_norm_eps", "1e-5"}, {"eos_token_id", "1, 3"},
        {"num_nextn_predict_layers", "1"}, {"rope_scaling.rope_type", "yarn"}, {"rope_scaling.factor", "4"},
        {"rope_scaling.original_max_position_embeddings", "1024"}};
    static const char *const bad[][2] = {{"hidden_sise", "128"}, {"hidden_size", "128x"}, {"hidden_size", ""}, {"hidden_size", "-1"},
                                         {"hidden_size", "1,2"}, {"rms_norm_eps", "nan"}, {"rms_norm_eps", "small"},
                                         {"tie_word_embeddings", "perhaps"}, {"eos_token_id", "1,"}, {"eos_token_id", "1,x"},
                                         {"rope_scaling.fctor", "4"}, {"hidden_size", "99999999999999999999"}};
    hd_config c;
    json_t *j = json_object();
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) CHECK_OK(hd_config_set(j, good[i][0], good[i][1], "here:1", &err));
    CHECK_OK(hd_config_from_json(&c, j, NULL, "keys", &err));
    CHECK(c.n_vocab == 512 && c.d_model == 128 && c.n_layers == 5 && c.kv_lora_rank == 32 && c.n_experts == 8 && c.tie_embeddings);
    CHECK(c.norm_eps == 1e-5f && c.n_eos == 2 && c.eos[1] == 3 && c.n_mtp == 1);
    CHECK(c.rope.kind == HD_ROPE_YARN && c.rope.factor == 4 && c.rope.original_max_pos == 1024);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(hd_config_set(j, bad[i][0], bad[i][1], "here:7", &err) == HD_USAGE && strstr(err.msg, "here:7"), "%s = '%s'",
              bad[i][0], bad[i][1]);
    json_decref(j);
}

int main(void)
{
    snprintf(dir, sizeof dir, "/tmp/hadal-config-%ld", (long)getpid());
    CHECK_OK(hd_folder_make(dir, &err));
    architectures();
    without_words();
    keys();
    CHECK_OK(hd_folder_remove(dir, &err));
    return hd_test_end();
}
