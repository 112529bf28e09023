/* The way back of config.c: every field of hd_config under its name in config.json.
 *
 * Where the classes of transformers have defaults of their own nothing is left out, so that two readers of
 * one file cannot disagree.  The rotary parameters take the older of their two spellings (rope_theta beside
 * rope_scaling), which all versions read.  A model without experts under DeepSeek's name says so twice: no
 * routed experts, and all layers dense. */
#include "model/config_write.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"
#include "model/json.h"

enum { MAX_JSON_BYTES = 1 << 24 };

/* ---- Writing an object ---- */

/* The first value that had no memory fails all of them: checked once, at the end. */
typedef struct {
    json_t *o;
    bool failed;
} maker;

static void put(maker *m, const char *key, json_t *v) { m->failed |= json_object_set_new(m->o, key, v) != 0; }
static void put_int(maker *m, const char *key, int64_t v) { put(m, key, json_integer(v)); }
static void put_bool(maker *m, const char *key, bool v) { put(m, key, json_boolean(v)); }
static void put_str(maker *m, const char *key, const char *v) { put(m, key, json_string(v)); }
static void put_real(maker *m, const char *key, double v) { put(m, key, json_real(v)); }

/* An f32 by its shortest decimal: 1e-06, not 9.99999997e-07. */
static void put_float(maker *m, const char *key, float v)
{
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v) break;
    }
    put_real(m, key, strtod(text, NULL));
}

static void put_id(maker *m, const char *key, int32_t id) { put(m, key, id < 0 ? json_null() : json_integer(id)); }

static void put_eos(maker *m, const hd_config *c)
{
    json_t *list = json_array();
    if (c->n_eos <= 1) {
        json_decref(list);
        put_id(m, "eos_token_id", c->n_eos ? c->eos[0] : -1);
        return;
    }
    for (int i = 0; i < c->n_eos; i++) m->failed |= json_array_append_new(list, json_integer(c->eos[i])) != 0;
    put(m, "eos_token_id", list);
}

static void put_rope(maker *m, const hd_config *c)
{
    static const char *const kinds[] = {"default", "linear", "llama3", "yarn"};
    const hd_rope_config *r = &c->rope;
    put_real(m, "rope_theta", r->theta);
    if (r->kind == HD_ROPE_NONE) {
        put(m, "rope_scaling", json_null());
        return;
    }
    maker s = {json_object(), false};
    put_str(&s, "rope_type", kinds[r->kind]);
    put_str(&s, "type", kinds[r->kind]);
    put_real(&s, "factor", r->factor);
    if (r->kind == HD_ROPE_LLAMA3) {
        put_real(&s, "low_freq_factor", r->low_freq_factor);
        put_real(&s, "high_freq_factor", r->high_freq_factor);
    }
    if (r->kind == HD_ROPE_YARN) {
        put_real(&s, "beta_fast", r->beta_fast);
        put_real(&s, "beta_slow", r->beta_slow);
        if (r->mscale != 0) put_real(&s, "mscale", r->mscale);
        if (r->mscale_all_dim != 0) put_real(&s, "mscale_all_dim", r->mscale_all_dim);
        if (r->attn_factor != 0) put_real(&s, "attention_factor", r->attn_factor);
        if (!r->truncate) put_bool(&s, "truncate", false);
    }
    if (r->kind != HD_ROPE_LINEAR) put_int(&s, "original_max_position_embeddings", r->original_max_pos);
    m->failed |= s.failed;
    put(m, "rope_scaling", s.o);
}

/* ---- Architectures ---- */

static void put_gqa(maker *m, const hd_config *c) { put_int(m, "head_dim", c->head_dim); }

static void put_llama(maker *m, const hd_config *c)
{
    put_gqa(m, c);
    put_bool(m, "attention_bias", c->qkv_bias);
    put_bool(m, "mlp_bias", c->mlp_bias);
}

static void put_qwen2(maker *m, const hd_config *c)
{
    put_gqa(m, c);
    put_bool(m, "use_sliding_window", false);
}

static void put_qwen3(maker *m, const hd_config *c)
{
    put_qwen2(m, c);
    put_bool(m, "attention_bias", c->qkv_bias);
}

static void put_deepseek(maker *m, const hd_config *c)
{
    put_bool(m, "attention_bias", c->qkv_bias);
    put(m, "q_lora_rank", c->q_lora_rank ? json_integer(c->q_lora_rank) : json_null());
    put_int(m, "kv_lora_rank", c->kv_lora_rank);
    put_int(m, "qk_nope_head_dim", c->qk_nope_head_dim);
    put_int(m, "qk_rope_head_dim", c->qk_rope_head_dim);
    put_int(m, "v_head_dim", c->v_head_dim);
    put_int(m, "n_routed_experts", c->n_experts);
    put_int(m, "n_shared_experts", c->n_shared_experts);
    put_int(m, "first_k_dense_replace", c->n_experts ? c->first_k_dense : c->n_layers);
    put_bool(m, "norm_topk_prob", c->norm_topk_prob);
    put_float(m, "routed_scaling_factor", c->routed_scaling);
    if (c->n_experts == 0) return;
    put_int(m, "num_experts_per_tok", c->n_experts_per_tok);
    put_int(m, "moe_intermediate_size", c->moe_ffn);
    put_int(m, "moe_layer_freq", c->moe_layer_freq);
    put_int(m, "n_group", c->n_group);
    put_int(m, "topk_group", c->topk_group);
}

static void put_deepseek_v2(maker *m, const hd_config *c)
{
    put_deepseek(m, c);
    put_str(m, "topk_method", c->topk == HD_TOPK_GROUP_LIMITED ? "group_limited_greedy" : "greedy");
    put_str(m, "scoring_func", "softmax");
}

static void put_deepseek_v3(maker *m, const hd_config *c)
{
    put_deepseek(m, c);
    put_str(m, "topk_method", "noaux_tc");
    put_str(m, "scoring_func", "sigmoid");
    put_bool(m, "rope_interleave", c->rope.pairs);
    put_int(m, "num_nextn_predict_layers", c->n_mtp);
}

static const struct {
    const char *arch, *model_type;
    void (*put)(maker *m, const hd_config *c);
    bool says_bias, qkv_bias; // the file says whether attention has biases, or the architecture does
    bool says_pairs, pairs;   // the same of rotary pairs
} architectures[] = {
    {"LlamaForCausalLM", "llama", put_llama, true, false, false, false},
    {"Qwen2ForCausalLM", "qwen2", put_qwen2, false, true, false, false},
    {"Qwen3ForCausalLM", "qwen3", put_qwen3, true, false, false, false},
    {"DeepseekV2ForCausalLM", "deepseek_v2", put_deepseek_v2, true, false, false, true},
    {"DeepseekV3ForCausalLM", "deepseek_v3", put_deepseek_v3, true, false, true, true},
};
enum { N_ARCH = sizeof architectures / sizeof architectures[0] };

/* What hd_config can hold (GGUF files tell biases one by one) and config.json has no words for. */
static hd_status check_words(const hd_config *c, int a, hd_err *err)
{
    const char *why = NULL;
    if (architectures[a].says_bias ? c->qkv_bias != c->o_bias : (c->qkv_bias != architectures[a].qkv_bias || c->o_bias))
        why = "biases of attention where this architecture has none";
    if (c->mlp_bias && architectures[a].put != put_llama) why = "biases of the feed-forward network";
    if (c->qk_norm != (architectures[a].put == put_qwen3)) why = "norms of queries and keys";
    if (c->rope.pairs != architectures[a].pairs && !architectures[a].says_pairs) why = "another order of the rotary pairs";
    if (why) return hd_fail(err, HD_UNSUPPORTED, "config.json: %s: has no word for %s", c->arch, why);
    return HD_OK;
}

/* ---- The two files ---- */

hd_status hd_config_to_json(json_t **out, const hd_config *c, const char *dtype, hd_err *err)
{
    hd_status st;
    int a = 0;
    *out = NULL;
    HD_TRY(hd_config_check(c, "config.json", err));
    while (a < N_ARCH && strcmp(architectures[a].arch, c->arch) != 0) a++;
    if (a == N_ARCH) return hd_fail(err, HD_UNSUPPORTED, "config.json: architecture '%.60s' is not known", c->arch);
    HD_TRY(check_words(c, a, err));
    maker m = {json_object(), false};
    put(&m, "architectures", json_pack("[s]", c->arch));
    put_str(&m, "model_type", architectures[a].model_type);
    put_int(&m, "vocab_size", c->n_vocab);
    put_int(&m, "hidden_size", c->d_model);
    put_int(&m, "intermediate_size", c->n_ffn);
    put_int(&m, "num_hidden_layers", c->n_layers);
    put_int(&m, "num_attention_heads", c->n_heads);
    put_int(&m, "num_key_value_heads", c->n_kv_heads);
    architectures[a].put(&m, c);
    put_int(&m, "max_position_embeddings", c->max_pos);
    put_rope(&m, c);
    put_float(&m, "rms_norm_eps", c->norm_eps);
    put_bool(&m, "tie_word_embeddings", c->tie_embeddings);
    put_str(&m, "hidden_act", "silu");
    put_real(&m, "attention_dropout", 0);
    put_bool(&m, "use_cache", true);
    put_id(&m, "bos_token_id", c->bos);
    put_eos(&m, c);
    put_id(&m, "pad_token_id", c->pad);
    put_str(&m, "torch_dtype", dtype);
    if (m.failed) {
        json_decref(m.o);
        return hd_fail(err, HD_NOMEM, "config.json: no memory");
    }
    *out = m.o;
fail:
    return st;
}

hd_status hd_config_generation(json_t **out, const hd_config *c, hd_err *err)
{
    maker m = {json_object(), false};
    put_id(&m, "bos_token_id", c->bos);
    put_eos(&m, c);
    if (c->pad >= 0) put_id(&m, "pad_token_id", c->pad);
    /* transformers refuses a temperature beside do_sample false, its default. */
    if (c->sampling.temperature > 0) put_bool(&m, "do_sample", true);
    if (c->sampling.temperature >= 0) put_float(&m, "temperature", c->sampling.temperature);
    if (c->sampling.top_p >= 0) put_float(&m, "top_p", c->sampling.top_p);
    if (c->sampling.min_p >= 0) put_float(&m, "min_p", c->sampling.min_p);
    if (c->sampling.repetition_penalty >= 0) put_float(&m, "repetition_penalty", c->sampling.repetition_penalty);
    if (c->sampling.top_k >= 0) put_int(&m, "top_k", c->sampling.top_k);
    if (m.failed) {
        json_decref(m.o);
        return hd_fail(err, HD_NOMEM, "generation_config.json: no memory");
    }
    *out = m.o;
    return HD_OK;
}

/* 15 digits make 0.1 of 0.1; where a number needs 17, all get them. */
static char *dump(const json_t *j)
{
    const size_t flags = JSON_INDENT(2) | JSON_ENCODE_ANY;
    char *text = json_dumps(j, flags | JSON_REAL_PRECISION(15));
    json_t *back = text ? hd_json_load(text, strlen(text), JSON_DECODE_ANY, NULL) : NULL;
    if (back && !json_equal(back, j)) {
        free(text);
        text = json_dumps(j, flags | JSON_REAL_PRECISION(17));
    }
    json_decref(back);
    return text;
}

hd_status hd_json_write(const char *dir, const char *name, const json_t *j, hd_err *err)
{
    hd_status st;
    hd_buf path;
    char *text = NULL;
    hd_buf_init(&path, 1 << 16);
    HD_TRY(hd_buf_addf(&path, err, "%s/%s", dir, name));
    text = dump(j);
    if (!text) HD_TRY(hd_fail(err, HD_NOMEM, "write: %s: no memory", path.data));
    HD_TRY(hd_json_save(path.data, text, err));
fail:
    free(text);
    hd_buf_free(&path);
    return st;
}

hd_status hd_config_write(const char *dir, const hd_config *c, const char *dtype, const json_t *also, hd_err *err)
{
    hd_status st;
    json_t *config = NULL, *generation = NULL;
    HD_TRY(hd_config_to_json(&config, c, dtype, err));
    HD_TRY(hd_config_generation(&generation, c, err));
    if (also && json_object_update_missing(config, (json_t *)also) != 0)
        HD_TRY(hd_fail(err, HD_NOMEM, "config.json: no memory"));
    HD_TRY(hd_json_write(dir, "generation_config.json", generation, err));
    HD_TRY(hd_json_write(dir, "config.json", config, err));
fail:
    json_decref(config);
    json_decref(generation);
    return st;
}

/* ---- Keys from text ---- */

typedef enum { WORD, WORDS, WHOLE, WHOLES, REAL, YES } kind;

static const struct {
    const char *key;
    kind kind;
} keys[] = {
    {"architectures", WORDS},
    {"vocab_size", WHOLE},
    {"hidden_size", WHOLE},
    {"intermediate_size", WHOLE},
    {"num_hidden_layers", WHOLE},
    {"num_attention_heads", WHOLE},
    {"num_key_value_heads", WHOLE},
    {"head_dim", WHOLE},
    {"max_position_embeddings", WHOLE},
    {"rms_norm_eps", REAL},
    {"tie_word_embeddings", YES},
    {"attention_bias", YES},
    {"mlp_bias", YES},
    {"hidden_act", WORD},
    {"initializer_range", REAL},
    {"rope_theta", REAL},
    {"rope_scaling.rope_type", WORD},
    {"rope_scaling.type", WORD},
    {"rope_scaling.factor", REAL},
    {"rope_scaling.original_max_position_embeddings", WHOLE},
    {"rope_scaling.low_freq_factor", REAL},
    {"rope_scaling.high_freq_factor", REAL},
    {"rope_scaling.beta_fast", REAL},
    {"rope_scaling.beta_slow", REAL},
    {"rope_scaling.mscale", REAL},
    {"rope_scaling.mscale_all_dim", REAL},
    {"rope_scaling.attention_factor", REAL},
    {"rope_scaling.truncate", YES},
    {"q_lora_rank", WHOLE},
    {"kv_lora_rank", WHOLE},
    {"qk_nope_head_dim", WHOLE},
    {"qk_rope_head_dim", WHOLE},
    {"v_head_dim", WHOLE},
    {"rope_interleave", YES},
    {"n_routed_experts", WHOLE},
    {"n_shared_experts", WHOLE},
    {"num_experts_per_tok", WHOLE},
    {"moe_intermediate_size", WHOLE},
    {"first_k_dense_replace", WHOLE},
    {"moe_layer_freq", WHOLE},
    {"n_group", WHOLE},
    {"topk_group", WHOLE},
    {"norm_topk_prob", YES},
    {"routed_scaling_factor", REAL},
    {"scoring_func", WORD},
    {"topk_method", WORD},
    {"num_nextn_predict_layers", WHOLE},
    {"bos_token_id", WHOLE},
    {"eos_token_id", WHOLES},
    {"pad_token_id", WHOLE},
};
enum { N_KEYS = sizeof keys / sizeof keys[0] };

const char *hd_config_key_at(int i) { return i >= 0 && i < N_KEYS ? keys[i].key : NULL; }

/* A whole number to the end of the text (or to a comma, which *end then shows). */
static json_t *whole(const char *text, const char **end)
{
    errno = 0;
    char *stop;
    long long v = strtoll(text, &stop, 10);
    *end = stop + strspn(stop, " ");
    return stop == text || errno || v < 0 || (**end && **end != ',') ? NULL : json_integer(v);
}

static json_t *wholes(const char *text)
{
    json_t *list = json_array();
    const char *p = text;
    for (;;) {
        json_t *v = whole(p, &p);
        if (!v || json_array_append_new(list, v) != 0) goto fail;
        if (!*p) break;
        p++;
    }
    return list;
fail:
    json_decref(list);
    return NULL;
}

/* NULL: the text is no value of this kind. */
static json_t *value(kind k, const char *text)
{
    char *stop;
    const char *end;
    if (!*text) return NULL;
    switch (k) {
    case WORD: return json_string(text);
    case WORDS: return json_pack("[s]", text);
    case WHOLE: {
        json_t *v = whole(text, &end);
        if (v && !*end) return v;
        json_decref(v);
        return NULL;
    }
    case WHOLES: return wholes(text);
    case REAL: {
        double v = strtod(text, &stop);
        return stop == text || *stop || !isfinite(v) ? NULL : json_real(v);
    }
    case YES:
        if (!strcmp(text, "true") || !strcmp(text, "yes") || !strcmp(text, "1")) return json_true();
        if (!strcmp(text, "false") || !strcmp(text, "no") || !strcmp(text, "0")) return json_false();
    }
    return NULL;
}

hd_status hd_config_set(json_t *config, const char *key, const char *text, const char *where, hd_err *err)
{
    static const char *const wants[] = {"a word", "a word", "a whole number from 0", "whole numbers from 0 with commas between", "a number",
                                        "true or false"};
    int i = 0;
    if (!strcmp(key, "architecture")) key = "architectures";
    while (i < N_KEYS && strcmp(keys[i].key, key) != 0) i++;
    if (i == N_KEYS) return hd_fail(err, HD_USAGE, "%s: %.80s: no key of a model's configuration", where, key);
    json_t *v = value(keys[i].kind, text), *o = config;
    if (!v) return hd_fail(err, HD_USAGE, "%s: %s: '%.60s' is not %s", where, key, text, wants[keys[i].kind]);
    if (!strncmp(key, "rope_scaling.", 13)) {
        key += 13;
        o = json_object_get(config, "rope_scaling");
        if (!json_is_object(o)) {
            o = json_object();
            if (json_object_set_new(config, "rope_scaling", o) != 0) o = NULL;
        }
    }
    if (json_object_set_new(o, key, v) != 0) return hd_fail(err, HD_NOMEM, "%s: %s: no memory", where, key);
    return HD_OK;
}
