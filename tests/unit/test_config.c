/* hd_config from config.json: the published models' files, both spellings of the rotary parameters, and
 * hostile values. */
#include "test.h"

#include <float.h>
#include <math.h>

#include "model/config.h"

static hd_err err;
static hd_config c;

/* Read config (and generation, or NULL) given as text; single quotes stand for double ones. */
static hd_status read_text(const char *config, const char *generation)
{
    char *text[2] = {strdup(config), strdup(generation ? generation : "null")};
    json_t *j[2];
    for (int i = 0; i < 2; i++) {
        if (!text[i]) abort();
        for (char *p = text[i]; *p; p++)
            if (*p == '\'') *p = '"';
        j[i] = json_loads(text[i], JSON_DECODE_ANY, NULL);
        free(text[i]);
    }
    memset(&err, 0, sizeof err);
    CHECK(j[0] && j[1], "%s", config);
    hd_status st = hd_config_from_json(&c, j[0], generation ? j[1] : NULL, "here", &err);
    json_decref(j[0]);
    json_decref(j[1]);
    return st;
}

#define READ(config, generation) CHECK(read_text(config, generation) == HD_OK, "%s", err.msg)
#define REFUSED(status, word, config)                                                                        \
    do {                                                                                                     \
        hd_status st_ = read_text(config, NULL);                                                             \
        CHECK(st_ == (status) && strstr(err.msg, word), "status %d: %s", (int)st_, err.msg);                 \
    } while (0)

/* deepseek-ai/DeepSeek-R1, config.json */
static const char *const R1 =
    "{'architectures':['DeepseekV3ForCausalLM'],'attention_bias':false,'attention_dropout':0.0,'bos_token_id'"
    ":0,"
    "'eos_token_id':1,'ep_size':1,'first_k_dense_replace':3,'hidden_act':'silu','hidden_size':7168,"
    "'initializer_range':0.02,'intermediate_size':18432,'kv_lora_rank':512,'max_position_embeddings':163840,"
    "'model_type':'deepseek_v3','moe_intermediate_size':2048,'moe_layer_freq':1,'n_group':8,'n_routed_"
    "experts':256,"
    "'n_shared_experts':1,'norm_topk_prob':true,'num_attention_heads':128,'num_experts_per_tok':8,"
    "'num_hidden_layers':61,'num_key_value_heads':128,'num_nextn_predict_layers':1,'q_lora_rank':1536,"
    "'qk_nope_head_dim':128,'qk_rope_head_dim':64,'quantization_config':{'activation_scheme':'dynamic','fmt':"
    "'e4m3',"
    "'quant_method':'fp8','weight_block_size':[128,128]},'rms_norm_eps':1e-06,'rope_scaling':{'beta_fast':32,"
    "'beta_slow':1,'factor':40,'mscale':1.0,'mscale_all_dim':1.0,'original_max_position_embeddings':4096,'"
    "type':'yarn'},"
    "'rope_theta':10000,'routed_scaling_factor':2.5,'scoring_func':'sigmoid','tie_word_embeddings':false,"
    "'topk_group':4,'topk_method':'noaux_tc','torch_dtype':'bfloat16','use_cache':true,'v_head_dim':128,"
    "'vocab_size':129280}";

/* deepseek-ai/DeepSeek-V2-Lite-Chat, config.json */
static const char *const V2_LITE =
    "{'architectures':['DeepseekV2ForCausalLM'],'attention_bias':false,'bos_token_id':100000,'eos_token_id':"
    "100001,"
    "'first_k_dense_replace':1,'hidden_act':'silu','hidden_size':2048,'intermediate_size':10944,'kv_lora_"
    "rank':512,"
    "'max_position_embeddings':163840,'moe_intermediate_size':1408,'moe_layer_freq':1,'n_group':1,"
    "'n_routed_experts':64,'n_shared_experts':2,'norm_topk_prob':false,'num_attention_heads':16,"
    "'num_experts_per_tok':6,'num_hidden_layers':27,'num_key_value_heads':16,'q_lora_rank':null,"
    "'qk_nope_head_dim':128,'qk_rope_head_dim':64,'rms_norm_eps':1e-06,'rope_scaling':{'beta_fast':32,'beta_"
    "slow':1,"
    "'factor':40,'mscale':0.707,'mscale_all_dim':0.707,'original_max_position_embeddings':4096,'type':'yarn'}"
    ","
    "'rope_theta':10000,'routed_scaling_factor':1.0,'scoring_func':'softmax','seq_aux':true,"
    "'tie_word_embeddings':false,'topk_group':1,'topk_method':'greedy','v_head_dim':128,'vocab_size':102400}";

static void test_deepseek(void)
{
    READ(R1, "{'bos_token_id':0,'do_sample':true,'eos_token_id':1,'temperature':0.6,'top_p':0.95}");
    CHECK(!strcmp(c.arch, "DeepseekV3ForCausalLM") && c.n_layers == 61 && c.n_mtp == 1 && c.d_model == 7168);
    CHECK(c.n_ffn == 18432 && c.n_vocab == 129280 && c.n_heads == 128 && c.n_kv_heads == 128 &&
          c.max_pos == 163840);
    CHECK(c.q_lora_rank == 1536 && c.kv_lora_rank == 512 && c.qk_nope_head_dim == 128 &&
          c.qk_rope_head_dim == 64);
    CHECK(c.v_head_dim == 128 && c.head_dim == 192 && !c.qkv_bias && !c.o_bias && !c.tie_embeddings);
    CHECK(c.n_experts == 256 && c.n_shared_experts == 1 && c.n_experts_per_tok == 8 && c.moe_ffn == 2048);
    CHECK(c.first_k_dense == 3 && c.n_group == 8 && c.topk_group == 4 && c.norm_topk_prob &&
          c.routed_scaling == 2.5f);
    CHECK(c.score == HD_SCORE_SIGMOID && c.topk == HD_TOPK_NOAUX);
    CHECK(c.rope.kind == HD_ROPE_YARN && c.rope.factor == 40 && c.rope.original_max_pos == 4096 &&
          c.rope.pairs);
    CHECK(c.rope.mscale == 1 && c.rope.mscale_all_dim == 1 && c.rope.attn_factor == 0 && c.rope.truncate);
    CHECK(c.bos == 0 && c.pad == -1 && c.n_eos == 1 && c.eos[0] == 1);
    CHECK(c.sampling.temperature == 0.6f && c.sampling.top_p == 0.95f && c.sampling.top_k == -1 &&
          c.sampling.min_p == -1);
    CHECK(!hd_config_layer_is_moe(&c, 2) && hd_config_layer_is_moe(&c, 3) && hd_config_layer_is_moe(&c, 61));

    READ(V2_LITE, NULL);
    CHECK(c.q_lora_rank == 0 && c.kv_lora_rank == 512 && c.n_layers == 27 && c.n_mtp == 0 &&
          c.n_experts_per_tok == 6);
    CHECK(c.score == HD_SCORE_SOFTMAX && c.topk == HD_TOPK_GREEDY && !c.norm_topk_prob &&
          c.routed_scaling == 1);
    CHECK(c.rope.mscale_all_dim == 0.707 && c.rope.mscale == 0.707 && c.sampling.temperature == -1);

    /* As transformers writes it: what equals a default is there, what is null stays null. */
    READ("{'architectures':['DeepseekV2ForCausalLM'],'hidden_size':64,'num_attention_heads':4,'num_key_value_"
         "heads':null,"
         "'num_hidden_layers':2,'q_lora_rank':24,'kv_lora_rank':16,'qk_nope_head_dim':8,'qk_rope_head_dim':4,"
         "'v_head_dim':8,"
         "'n_routed_experts':8,'num_experts_per_tok':2,'n_group':4,'topk_group':2,'topk_method':'group_"
         "limited_greedy',"
         "'rope_parameters':{'rope_theta':5000.0,'rope_type':'default'},'head_dim':4}",
         NULL);
    CHECK(c.n_kv_heads == 4 && c.head_dim == 12 && c.topk == HD_TOPK_GROUP_LIMITED && c.n_group == 4 &&
          c.moe_ffn == 1407);
    CHECK(c.n_shared_experts == 2 && c.first_k_dense == 0 && c.rope.theta == 5000 &&
          c.rope.kind == HD_ROPE_NONE);

    /* DeepseekV3Config() and nothing else */
    READ("{'architectures':['DeepseekV3ForCausalLM']}", NULL);
    CHECK(c.d_model == 7168 && c.n_vocab == 129280 && c.q_lora_rank == 1536 && c.n_group == 8 &&
          c.routed_scaling == 2.5f);
    CHECK(c.bos == 0 && c.n_eos == 1 && c.eos[0] == 1 && c.max_pos == 4096 && c.norm_topk_prob);
    READ("{'architectures':['DeepseekV3ForCausalLM'],'rope_interleave':false,'q_lora_rank':null,'num_mtp_"
         "layers':2}",
         NULL);
    CHECK(!c.rope.pairs && c.q_lora_rank == 0 && c.n_mtp == 2);
}

static void test_qwen_llama(void)
{
    /* Qwen/Qwen2.5-Coder-0.5B-Instruct */
    READ("{'architectures':['Qwen2ForCausalLM'],'bos_token_id':151643,'eos_token_id':151645,'hidden_act':'"
         "silu',"
         "'hidden_size':896,'intermediate_size':4864,'max_position_embeddings':32768,'max_window_layers':24,"
         "'num_attention_heads':14,'num_hidden_layers':24,'num_key_value_heads':2,'rms_norm_eps':1e-06,'rope_"
         "theta':1000000.0,"
         "'sliding_window':32768,'tie_word_embeddings':true,'use_sliding_window':false,'vocab_size':151936}",
         "{'bos_token_id':151643,'pad_token_id':151643,'do_sample':true,'eos_token_id':[151645,151643],"
         "'repetition_penalty':1.1,'temperature':0.7,'top_p':0.8,'top_k':20}");
    CHECK(c.head_dim == 64 && c.n_kv_heads == 2 && c.qkv_bias && !c.o_bias && c.tie_embeddings &&
          !c.rope.pairs && !c.qk_norm);
    CHECK(c.n_eos == 2 && c.eos[0] == 151645 && c.eos[1] == 151643 && c.sampling.top_k == 20 &&
          c.sampling.repetition_penalty == 1.1f);
    CHECK(c.kv_lora_rank == 0 && c.n_experts == 0 && !hd_config_layer_is_moe(&c, 5));

    /* Qwen/Qwen3-8B (and the R1-0528 distillation, with yarn) */
    READ("{'architectures':['Qwen3ForCausalLM'],'attention_bias':false,'head_dim':128,'hidden_size':4096,'"
         "intermediate_size':12288,"
         "'max_position_embeddings':131072,'num_attention_heads':32,'num_hidden_layers':36,'num_key_value_"
         "heads':8,"
         "'rope_scaling':{'rope_type':'yarn','factor':4.0,'original_max_position_embeddings':32768,'attn_"
         "factor':0.8782488562869419},"
         "'rope_theta':1000000,'sliding_window':null,'tie_word_embeddings':false,'use_sliding_window':false,'"
         "vocab_size':151936}",
         NULL);
    CHECK(c.qk_norm && !c.qkv_bias && c.head_dim == 128 && c.rope.kind == HD_ROPE_YARN &&
          c.rope.factor == 4 && c.rope.beta_fast == 32);
    CHECK(c.rope.original_max_pos == 32768 && c.n_eos == 0 && c.bos == -1);
    READ("{'architectures':['Qwen3ForCausalLM'],'hidden_size':64,'num_attention_heads':4,'num_key_value_"
         "heads':2}",
         NULL);
    CHECK(c.head_dim == 128, "Qwen3's default is no quotient");

    /* meta-llama/Llama-3.1-8B-Instruct (and DeepSeek-R1-Distill-Llama-8B) */
    READ("{'architectures':['LlamaForCausalLM'],'attention_bias':false,'bos_token_id':128000,'eos_token_id':["
         "128001,128008,128009],"
         "'hidden_size':4096,'intermediate_size':14336,'max_position_embeddings':131072,'mlp_bias':false,'"
         "num_attention_heads':32,"
         "'num_hidden_layers':32,'num_key_value_heads':8,'rms_norm_eps':1e-05,'rope_scaling':{'factor':8.0,'"
         "low_freq_factor':1.0,"
         "'high_freq_factor':4.0,'original_max_position_embeddings':8192,'rope_type':'llama3'},'rope_theta':"
         "500000.0,"
         "'vocab_size':128256}",
         NULL);
    CHECK(c.rope.kind == HD_ROPE_LLAMA3 && c.rope.factor == 8 && c.rope.low_freq_factor == 1 &&
          c.rope.high_freq_factor == 4);
    CHECK(c.rope.original_max_pos == 8192 && c.n_eos == 3 && c.norm_eps == 1e-5f && c.head_dim == 128 &&
          !c.rope.pairs);
    READ("{'architectures':['LlamaForCausalLM'],'attention_bias':true,'mlp_bias':true,'head_dim':32}", NULL);
    CHECK(c.qkv_bias && c.o_bias && c.mlp_bias && c.head_dim == 32 && c.bos == 1 && c.eos[0] == 2);
}

/* One model, three ways to say the same. */
static void test_rope_spellings(void)
{
#define LLAMA "{'architectures':['LlamaForCausalLM'],'max_position_embeddings':4096,"
    static const char *const same[] = {
        LLAMA "'rope_theta':500.0,'rope_scaling':{'type':'linear','factor':4.0}}",
        LLAMA "'rope_theta':500.0,'rope_scaling':{'rope_type':'linear','factor':4}}",
        LLAMA "'rope_parameters':{'rope_theta':500,'rope_type':'linear','factor':4.0}}",
        LLAMA "'rope_theta':500.0,'rope_parameters':{'rope_type':'linear','factor':4.0}}",
        LLAMA "'rope_parameters':{'full_attention':{'rope_theta':500,'rope_type':'linear','factor':4.0}}}",
        LLAMA "'rope_parameters':{'a':{'rope_theta':500,'rope_type':'linear','factor':4},"
              "'b':{'rope_theta':500,'rope_type':'linear','factor':4}}}",
    };
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        READ(same[i], NULL);
        CHECK(c.rope.kind == HD_ROPE_LINEAR && c.rope.theta == 500 && c.rope.factor == 4 &&
                  c.rope.original_max_pos == 4096,
              "%s", same[i]);
    }
    READ(LLAMA "'rope_theta':500.0,'rope_scaling':null}", NULL);
    CHECK(c.rope.kind == HD_ROPE_NONE && c.rope.factor == 1 && c.rope.theta == 500);
    READ(LLAMA "'rope_parameters':{'rope_type':'yarn','factor':null,'original_max_position_embeddings':1024,'"
               "truncate':false}}",
         NULL);
    CHECK(c.rope.factor == 4 && !c.rope.truncate, "yarn without a factor");
    READ(LLAMA "'rope_parameters':{'rope_type':'yarn','factor':2,'attention_factor':1.25,'beta_fast':16,'"
               "beta_slow':2}}",
         NULL);
    CHECK(c.rope.attn_factor == 1.25 && c.rope.beta_fast == 16 && c.rope.beta_slow == 2 &&
          c.rope.original_max_pos == 4096);
    REFUSED(HD_UNSUPPORTED, "'longrope'", LLAMA "'rope_scaling':{'type':'longrope','factor':4.0}}");
    REFUSED(HD_UNSUPPORTED, "'dynamic'", LLAMA "'rope_scaling':{'type':'dynamic','factor':4.0}}");
    REFUSED(HD_UNSUPPORTED, "differ by layer",
            LLAMA "'rope_parameters':{'a':{'rope_theta':1},'b':{'rope_theta':2}}}");
    REFUSED(HD_UNSUPPORTED, "partial_rotary_factor",
            LLAMA "'rope_parameters':{'partial_rotary_factor':0.5}}");
    REFUSED(HD_FORMAT, "no object", LLAMA "'rope_scaling':[1]}");
    REFUSED(HD_FORMAT, "without a factor", LLAMA "'rope_scaling':{'type':'linear'}}");
    REFUSED(HD_FORMAT, "rope->theta", LLAMA "'rope_theta':-1}");
    REFUSED(HD_FORMAT, "rope->theta", LLAMA "'rope_theta':0}");
    REFUSED(HD_FORMAT, "rope->factor", LLAMA "'rope_scaling':{'type':'linear','factor':-4}}");
    REFUSED(HD_FORMAT, "high_freq_factor",
            LLAMA "'rope_scaling':{'type':'llama3','factor':8,'low_freq_factor':4,'high_freq_factor':4}}");
    REFUSED(HD_FORMAT, "beta_fast",
            LLAMA "'rope_scaling':{'type':'yarn','factor':8,'beta_fast':1,'beta_slow':32}}");
}

/* Replace one number of R1's configuration by hostile ones: never a crash, and never a value that breaks the
 * relations. */
static void test_hostile_numbers(void)
{
    static const char *const keys[] = {
        "'hidden_size':7168",
        "'intermediate_size':18432",
        "'num_hidden_layers':61",
        "'num_attention_heads':128",
        "'kv_lora_rank':512",
        "'vocab_size':129280",
        "'qk_nope_head_dim':128",
        "'qk_rope_head_dim':64",
        "'v_head_dim':128",
        "'n_routed_experts':256",
        "'num_experts_per_tok':8",
        "'moe_intermediate_size':2048",
        "'moe_layer_freq':1",
        "'n_group':8",
        "'topk_group':4",
        "'n_shared_experts':1",
        "'num_nextn_predict_layers':1",
        "'max_position_embeddings':163840",
        "'first_k_dense_replace':3",
        "'rms_norm_eps':1e-06",
        "'routed_scaling_factor':2.5",
        "'factor':40",
        "'original_max_position_embeddings':4096",
    };
    static const char *const must_fail[] = {
        "-1",          "1.5",  "\"8\"", "[]", "{}", "true", "2147483648", "4294967296", "9223372036854775807",
        "-2147483648", "1e300"};
    static const char *const must_live[] = {"0", "1", "2", "3", "7", "2147483647", "1e9", "null"};
    char text[4096];
    int taken = 0;
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        const char *at = strstr(R1, keys[k]), *colon = strchr(keys[k], ':');
        CHECK(at != NULL, "%s", keys[k]);
        for (size_t v = 0; v < 19; v++) {
            const char *value = v < 11 ? must_fail[v] : must_live[v - 11];
            snprintf(text, sizeof text, "%.*s%.*s:%s%s", (int)(at - R1), R1, (int)(colon - keys[k]), keys[k],
                     value, at + strlen(keys[k]));
            hd_status st = read_text(text, NULL);
            if (st != HD_OK && !err.msg[0]) taken++;
            if (st == HD_OK && hd_config_check(&c, "here", &err) != HD_OK) taken++;
            if (st == HD_OK && v < 11 && k < 19) {
                taken++;
                fprintf(stderr, "taken: %s = %s\n", keys[k], value);
            }
        }
    }
    CHECK(taken == 0, "%d", taken);
}

static void test_refused(void)
{
    REFUSED(HD_FORMAT, "no object", "[]");
    REFUSED(HD_FORMAT, "no object", "7");
    REFUSED(HD_UNSUPPORTED, "(none)", "{}");
    REFUSED(HD_UNSUPPORTED, "LlamaForCausalLM", "{'architectures':['MixtralForCausalLM']}");
    REFUSED(HD_UNSUPPORTED, "?[2J", "{'architectures':['\\u001b[2J']}");
    REFUSED(HD_UNSUPPORTED, "(none)", "{'architectures':'LlamaForCausalLM'}");
    REFUSED(HD_UNSUPPORTED, "'gelu'", "{'architectures':['LlamaForCausalLM'],'hidden_act':'gelu'}");
    REFUSED(HD_UNSUPPORTED, "'awq'",
            "{'architectures':['LlamaForCausalLM'],'quantization_config':{'quant_method':'awq'}}");
    REFUSED(HD_UNSUPPORTED, "weight_block_size",
            "{'architectures':['LlamaForCausalLM'],'quantization_config':{'quant_method':'fp8','weight_block_"
            "size':[64,128]}}");
    REFUSED(HD_UNSUPPORTED, "sliding", "{'architectures':['Qwen2ForCausalLM'],'use_sliding_window':true}");
    REFUSED(HD_UNSUPPORTED, "sliding",
            "{'architectures':['Qwen3ForCausalLM'],'layer_types':['full_attention','sliding_attention']}");
    REFUSED(HD_FORMAT, "share",
            "{'architectures':['LlamaForCausalLM'],'num_attention_heads':32,'num_key_value_heads':5}");
    REFUSED(HD_FORMAT, "n_kv_heads",
            "{'architectures':['LlamaForCausalLM'],'num_attention_heads':4,'num_key_value_heads':8}");
    REFUSED(HD_FORMAT, "n_heads", "{'architectures':['LlamaForCausalLM'],'num_attention_heads':0}");
    REFUSED(HD_FORMAT, "odd", "{'architectures':['LlamaForCausalLM'],'head_dim':33}");
    REFUSED(HD_UNSUPPORTED, "scoring_func",
            "{'architectures':['DeepseekV3ForCausalLM'],'scoring_func':'softmax'}");
    REFUSED(HD_UNSUPPORTED, "topk_method",
            "{'architectures':['DeepseekV2ForCausalLM'],'num_experts_per_tok':6,'topk_method':'noaux_tc'}");
    REFUSED(HD_FORMAT, "groups", "{'architectures':['DeepseekV3ForCausalLM'],'n_group':7}");
    REFUSED(HD_FORMAT, "cannot come from",
            "{'architectures':['DeepseekV3ForCausalLM'],'num_experts_per_tok':200}");
}

static void test_ids(void)
{
    READ("{'architectures':['LlamaForCausalLM'],'vocab_size':10,'bos_token_id':11,'eos_token_id':[3,3,-4,99,"
         "4.5,'x',null,5],'pad_token_id':-1}",
         NULL);
    CHECK(c.bos == -1 && c.pad == -1 && c.n_eos == 2 && c.eos[0] == 3 && c.eos[1] == 5);
    READ("{'architectures':['LlamaForCausalLM'],'vocab_size':1}", NULL);
    CHECK(c.bos == -1 && c.n_eos == 0, "defaults past the vocabulary");
    READ("{'architectures':['LlamaForCausalLM'],'vocab_size':200,'eos_token_id':[1,2,3,4,5,6,7,8,9,10,11,12,"
         "13,14,15,16,17,18]}",
         NULL);
    CHECK(c.n_eos == HD_MAX_EOS);
    READ("{'architectures':['LlamaForCausalLM'],'eos_token_id':7}", "{'eos_token_id':9}");
    CHECK(c.n_eos == 2 && c.eos[0] == 9 && c.eos[1] == 7, "both files' ids end a turn");
}

int main(void)
{
    test_deepseek();
    test_qwen_llama();
    test_rope_spellings();
    test_hostile_numbers();
    test_refused();
    test_ids();
    return hd_test_end();
}
