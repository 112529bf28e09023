/* The planner: DeepSeek-V3's published sizes, hours and dollars; small models counted by hand;
 * machines' files. */
#include <math.h>
#include <unistd.h>

#include "base/folder.h"
#include "eval/cost_run.h"
#include "test.h"
#include "train/checkpoint.h"

static hd_err err;
static char path[64];

static const char *const V3 =
    "{'architectures':['DeepseekV3ForCausalLM'],'first_k_dense_replace':3,'hidden_size':7168,'intermediate_size':18432,"
    "'kv_lora_rank':512,'max_position_embeddings':163840,'moe_intermediate_size':2048,'n_group':8,'n_routed_experts':256,"
    "'n_shared_experts':1,'num_attention_heads':128,'num_experts_per_tok':8,'num_hidden_layers':61,'num_key_value_heads':128,"
    "'num_nextn_predict_layers':1,'q_lora_rank':1536,'qk_nope_head_dim':128,'qk_rope_head_dim':64,'topk_group':4,"
    "'v_head_dim':128,'vocab_size':129280}";

static hd_config config(const char *text)
{
    hd_config c = {0};
    char *copy = strdup(text);
    if (!copy) abort();
    for (char *p = copy; *p; p++)
        if (*p == '\'') *p = '"';
    json_t *j = json_loads(copy, 0, NULL);
    CHECK_OK(hd_config_from_json(&c, j, NULL, "test", &err));
    json_decref(j);
    free(copy);
    return c;
}

static bool near(double a, double b, double share) { return fabs(a - b) <= share * fabs(b); }

/* arXiv:2412.19437: 671 B weights, 37 B used by a token; the published checkpoint's notes: MTP 11.5 B of its
 * own, 14 B with what it shares (685 B in all); table 1: 2,664 K + 119 K + 5 K hours of an H800 at $2, 180 K
 * hours a trillion tokens. */
static void deepseek_v3(void)
{
    hd_config c = config(V3);
    hd_machine m;
    hd_cost p, longer;
    hd_cost_quoted q;
    hd_cost_ask a = {.tokens = 14.8e12, .seq = 4096};
    CHECK_OK(hd_machine_read(&m, HD_SOURCE_DIR "/recipes/machines/h800.ini", &err));
    CHECK_OK(hd_cost_plan(&p, &c, &a, &m, &err));
    CHECK(near((double)p.n_weights, 671e9, 0.001), "%lld", (long long)p.n_weights);
    CHECK(p.n_weights + p.n_mtp + p.n_shared > 684e9 && p.n_weights + p.n_mtp + p.n_shared < 685e9, "%lld", (long long)p.n_mtp);
    CHECK(near((double)p.n_active, 37e9, 0.02) && near((double)p.n_multiplied, 36.7e9, 0.005), "%lld", (long long)p.n_active);
    CHECK(near((double)p.n_mtp, 11.5e9, 0.01) && near((double)(p.n_mtp_active + p.n_shared), 2.4e9, 0.06));
    /* 61 layers of 128 heads: 192 numbers of a score and 128 of a value, two FLOPs each, three times, half
     * of 4096 positions. */
    CHECK(near(p.flops_attention, 61.0 * 128 * 320 * 2 * 3 * 4097 / 2, 1e-12));
    CHECK(near(p.flops_matrices, 6 * (double)p.n_multiplied, 1e-12));
    CHECK(near(p.flops_per_token, p.flops_matrices + p.flops_attention + p.flops_mtp, 1e-12) && p.flops_mtp > 0);
    CHECK(near(p.device_hours, 2664e3, 0.01) && near(p.usd, 5.328e6, 0.01), "%g hours, $%g", p.device_hours, p.usd);
    CHECK(near(p.hours * 2048, p.device_hours, 1e-9));
    CHECK(hd_cost_quote(&q, &p, &a, &c, &m));
    CHECK(near(q.pretrain_hours, 2664e3, 1e-9) && near(q.hours, 2788e3, 1e-9) && near(q.usd, 5.576e6, 1e-9));
    CHECK(near(q.implied_utilization * 2664e3 * 3600 * 1979e12, p.flops, 1e-6), "%g", q.implied_utilization);
    /* The estimate of context extension, by hand: FLOPs at both lengths over the rate of pre-training. */
    double rate = p.flops / 2664e3, want = 0;
    for (int i = 0; i < 2; i++) {
        hd_cost_ask b = {.tokens = 1000.0 * (i ? 480 : 1920) * (i ? 131072 : 32768), .seq = i ? 131072 : 32768};
        CHECK_OK(hd_cost_plan(&longer, &c, &b, &m, &err));
        want += longer.flops / rate;
    }
    CHECK(near(q.context_estimate, want, 1e-9) && q.context_estimate > 50e3 && q.context_estimate < 119e3, "%g", q.context_estimate);
    CHECK(near(q.context_estimate_full, 119e3, 0.05), "%g", q.context_estimate_full); // what counts all of attention comes near
    c.n_layers = 60; // another model: nothing is quoted of it, and the file's own share counts
    CHECK_OK(hd_cost_plan(&p, &c, &a, &m, &err));
    CHECK(!hd_cost_quote(&q, &p, &a, &c, &m) && p.utilization == 0.2);
}

/* Five steps of X X^T [r, r], its square and a product with X [r, c]; the first two are symmetric,
 * in panels of 32. */
static double newton_schulz(double r, double c) { return 5 * (r * (r + 32) * c + r * (r + 32) * r + 2 * r * r * c); }

static void by_hand(void)
{
    hd_config c = config("{'architectures':['LlamaForCausalLM'],'vocab_size':512,'hidden_size':128,'intermediate_size':352,"
                         "'num_hidden_layers':5,'num_attention_heads':4,'num_key_value_heads':2,'tie_word_embeddings':true}");
    hd_machine m = {.devices = 2, .peak_flops = 1e9, .utilization = 0.5, .watts = 100, .usd_per_hour = 3, .usd_per_kwh = 0.5};
    hd_cost p;
    hd_cost_ask a = {.tokens = 1e6, .seq = 255};
    int64_t layer = 128 * 128 * 2 + 128 * 64 * 2 + 3 * 128 * 352, all = 5 * (layer + 2 * 128) + 128 + 512 * 128;
    CHECK_OK(hd_cost_plan(&p, &c, &a, &m, &err));
    CHECK(p.n_weights == all && p.n_active == all && p.n_multiplied == 5 * layer + 512 * 128 && p.n_mtp == 0);
    double flops = 6 * (double)p.n_multiplied + 5 * 3 * 2 * 4 * (32 + 32) * 128.0;
    CHECK(near(p.flops_per_token, flops, 1e-12), "%g %g", p.flops_per_token, flops);
    CHECK(near(p.device_hours, flops * 1e6 / 0.5e9 / 3600, 1e-12) && near(p.hours, p.device_hours / 2, 1e-12));
    CHECK(near(p.kwh, p.device_hours * 0.1, 1e-12) && near(p.usd, p.device_hours * 3 + p.kwh * 0.5, 1e-12));
    /* Updates: 1e6 tokens in batches of 1000 are 1000 updates of all weights. */
    m.adamw_s = 1e8, m.muon_s = 1e7, m.muon_flops = 1e9;
    a.batch_tokens = 1000;
    CHECK_OK(hd_cost_plan(&p, &c, &a, &m, &err));
    CHECK(near(p.update_hours, 1000 * (double)all / 1e8 / 3600 * 2, 1e-12));
    a.muon = true;
    CHECK_OK(hd_cost_plan(&p, &c, &a, &m, &err));
    /* All matrices but the embedding. */
    double muon = 5 * (2 * newton_schulz(128, 128) + 2 * newton_schulz(64, 128) + 3 * newton_schulz(128, 352));
    CHECK(p.muon_work == muon, "%g, %g", p.muon_work, muon);
    CHECK(near(p.update_hours, 1000 * ((double)all / 1e7 + muon / 1e9) / 3600 * 2, 1e-12));
    /* Five rates of one second's work each: a token takes five. */
    m.muon_s = m.muon_flops = 0;
    for (int k = 0; k < HD_WORK_KINDS; k++) m.rate[k] = p.work[k];
    CHECK_OK(hd_cost_plan(&p, &c, &a, &m, &err));
    CHECK(near(p.device_hours, 5e6 / 3600, 1e-12) && near(p.utilization, flops / 5 / 1e9, 1e-12), "%g hours", p.device_hours);
    m.rate[HD_WORK_PAIRS] = 0; // for nothing
    CHECK_OK(hd_cost_plan(&p, &c, &a, &m, &err));
    CHECK(near(p.device_hours, 4e6 / 3600, 1e-12));
    double numbers = 5 * (2 * (128 + 128) + 2 * (128 + 64) + 3 * (128 + 352)) + 512 + 128;
    CHECK(p.work[HD_WORK_MATRICES] == 6 * (double)p.n_multiplied && p.work[HD_WORK_NUMBERS] == numbers);
    CHECK(near(p.work[HD_WORK_ATTENTION], p.flops_attention, 1e-12) && p.work[HD_WORK_PAIRS] == 5 * 4 * 128);
    a.batch_tokens = 8 * 255; // four passes of two sequences, 512 rows at most
    CHECK_OK(hd_cost_plan(&p, &c, &a, &m, &err));
    CHECK(near(p.work[HD_WORK_WEIGHTS], (double)p.n_multiplied / (2 * 255), 1e-12), "%g", p.work[HD_WORK_WEIGHTS]);
    a.micro_tokens = 255;
    CHECK_OK(hd_cost_plan(&p, &c, &a, &m, &err));
    CHECK(near(p.work[HD_WORK_WEIGHTS], (double)p.n_multiplied / 255, 1e-12));
    a.tokens = -1;
    CHECK(hd_cost_plan(&p, &c, &a, &m, &err) == HD_USAGE);
}

/* Latent attention, experts, one token further. */
static void by_hand_moe(void)
{
    hd_config c = config("{'architectures':['DeepseekV3ForCausalLM'],'vocab_size':512,'hidden_size':128,'intermediate_size':384,"
                         "'num_hidden_layers':3,'num_attention_heads':4,'num_key_value_heads':4,'q_lora_rank':null,'kv_lora_rank':64,"
                         "'qk_nope_head_dim':32,'qk_rope_head_dim':16,'v_head_dim':48,'n_routed_experts':8,'n_shared_experts':1,"
                         "'num_experts_per_tok':2,'moe_intermediate_size':96,'first_k_dense_replace':1,'n_group':1,'topk_group':1,"
                         "'num_nextn_predict_layers':1,'tie_word_embeddings':true}");
    hd_machine m = {.devices = 1, .peak_flops = 1e9, .utilization = 0.5};
    hd_cost p;
    hd_cost_ask a = {.tokens = 1, .seq = 127, .micro_tokens = 254};
    CHECK_OK(hd_cost_plan(&p, &c, &a, &m, &err));
    /* Four layers with MTP's.  kv_b is two products a head: of the key's half and of the value's, both
     * with the latent. */
    double attention = (128 + 4 * 48) + (128 + 64 + 16) + 4 * (32 + 64 + 64 + 48) + (4 * 48 + 128);
    double dense = 3 * (128 + 384), experts = (128 + 8) + 3 * 3 * (128 + 96), head = 128 + 512, join = 256 + 128;
    CHECK(p.work[HD_WORK_NUMBERS] == 4 * attention + dense + 3 * experts + 2 * head + join, "%g", p.work[HD_WORK_NUMBERS]);
    CHECK(p.work[HD_WORK_ATTENTION] == 4 * 6 * 4 * (64 + 16 + 64) * 64.0 && p.work[HD_WORK_PAIRS] == 4 * 4 * 64);
    CHECK(near(p.work[HD_WORK_MATRICES] + p.flops_attention * 4 / 3, p.flops_per_token, 1e-12));
    /* Once in a micro-batch all experts are passed through, not only those that a token chose. */
    double idle = 3 * 6 * 3 * 128 * 96;
    double muon = 4 * (newton_schulz(128, 192) + newton_schulz(80, 128) + newton_schulz(64, 4 * 80) + newton_schulz(128, 192)) +
                  3 * newton_schulz(128, 384) + 3 * 3 * (8 + 1) * newton_schulz(96, 128) + newton_schulz(128, 256);
    CHECK(p.muon_work == muon, "%g, %g", p.muon_work, muon);
    CHECK(near(p.work[HD_WORK_WEIGHTS] * 254, p.work[HD_WORK_MATRICES] / 6 + idle, 1e-12), "%g", p.work[HD_WORK_WEIGHTS]);
}

/* Rates are found again from what they make of work, and one that explains nothing takes no time. */
static void fit(void)
{
    static const double want[] = {3e11, 1.5e11, 5e8, 1e9, 4e9};
    enum { N = 8, K = HD_WORK_KINDS };
    static const double work[N][K] = {
        {1.5e6, 4e5, 2e3, 6e3, 240},   {6e6, 2e6, 5e3, 1.3e4, 1e3},   {6e7, 3.5e6, 4e3, 4.7e4, 1e4},  {2e8, 9e6, 1.2e4, 7e4, 3.4e4},
        {7.5e6, 4.4e6, 5e3, 2e4, 2e3}, {7e7, 1.8e7, 9e3, 1e5, 2.6e4}, {2.8e7, 1e6, 800, 4.2e4, 9.5e4}, {2.9e7, 4e6, 3e3, 8e4, 1.4e4},
    };
    double seconds[N] = {0}, rate[K], none[N][K];
    for (int i = 0; i < N; i++)
        for (int k = 0; k < K; k++) seconds[i] += work[i][k] / want[k];
    hd_cost_fit(rate, work, seconds, N);
    for (int k = 0; k < K; k++) CHECK(near(rate[k], want[k], 1e-6), "%d: %g", k, rate[k]);
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < K; k++) none[i][k] = k == HD_WORK_WEIGHTS ? 0 : work[i][k];
        seconds[i] = none[i][HD_WORK_MATRICES] / 3e11 + none[i][HD_WORK_ATTENTION] / 1e11 - none[i][HD_WORK_PAIRS] / 1e10;
    }
    hd_cost_fit(rate, none, seconds, N);
    CHECK(rate[HD_WORK_WEIGHTS] == 0 && rate[HD_WORK_PAIRS] == 0 && near(rate[HD_WORK_MATRICES], 3e11, 0.05), "%g", rate[HD_WORK_MATRICES]);
}

static hd_status read_text(hd_machine *m, const char *text)
{
    hd_newfile f;
    memset(&err, 0, sizeof err);
    CHECK_OK(hd_newfile_begin(&f, path, &err));
    CHECK_OK(hd_newfile_write(&f, text, strlen(text), &err));
    CHECK_OK(hd_newfile_commit(&f, &err));
    return hd_machine_read(m, path, &err);
}

static void machines(void)
{
    static const struct {
        const char *text, *word;
    } bad[] = {
        {"[machine]\npeak_tflops = 1\nutilization = 0.5\nwats = 5\n", "wats: is not known (line 4)"},
        {"[machine]\npeak_tflops = fast\n", "'fast' is no value"},
        {"[machine]\nutilization = 0.5\n", "peak_tflops: is missing"},
        {"[machine]\npeak_tflops = 1\n", "utilization: is missing"},
        {"[machine]\npeak_tflops = 1\nutilization = 1.5\n", "at most 1"},
        {"[machine]\npeak_tflops = -1\n", "no value"},
        {"[machine]\npeak_tflops = 1\ndevices = 1.5\n", "devices"},
        {"[machine]\npeak_tflops\n", "line 2"},
        {"[machine]\npeak_tflops = 1\nutilization = 0.1\n[dense]\n256 = 0.2\n", "[dense] 256: an earlier version measured it"},
        {"[machine]\npeak_tflops = 1\nmuon_weights_s = much\n", "muon_weights_s: 'much' is no value"},
        {"[machine]\npeak_tflops = 1\n[pass]\nmatrices_tflops = -1\n", "matrices_tflops: '-1' is no value"},
        {"[machine]\npeak_tflops = 1\n[pass]\nnumbers_s = 1e9\n", "utilization: is missing"},
        {"[machine]\npeak_tflops = 1\nutilization = 0.1\n[quoted]\ntokens = 1T\n", "hours_per_trillion"},
        {"[machine]\npeak_tflops = 1\nutilization = 0.1\n[quoted]\ncontext_phases = 12\n", "context_phases"},
        {"[machin]\npeak_tflops = 1\n", "is not known"},
        {"", "peak_tflops"},
    };
    hd_machine m, back;
    hd_buf text;
    double v;
    hd_buf_init(&text, 1 << 16);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(read_text(&m, bad[i].text) == HD_FORMAT && strstr(err.msg, bad[i].word), "%zu: %s", i, err.msg);
    CHECK_OK(hd_machine_read(&m, HD_SOURCE_DIR "/recipes/machines/h800.ini", &err));
    for (int k = 0; k < HD_WORK_KINDS; k++) m.rate[k] = 1e9 * (k + 1);
    m.adamw_s = 2.5e8, m.muon_s = 1.5e8;
    CHECK_OK(hd_machine_print(&text, &m, &err));
    CHECK(read_text(&back, text.data) == HD_OK, "%s\n%s", err.msg, text.data);
    CHECK(!strcmp(m.name, back.name) && m.devices == back.devices && m.peak_flops == back.peak_flops && m.watts == back.watts);
    CHECK(m.adamw_s == back.adamw_s && m.muon_s == back.muon_s && !memcmp(m.rate, back.rate, sizeof m.rate));
    CHECK(!strcmp(m.quote.source, back.quote.source) && m.quote.d_model == back.quote.d_model && back.quote.n_phases == 2 &&
          m.quote.phase_tokens[1] == back.quote.phase_tokens[1]);
    hd_buf_free(&text);
    unlink(path);
    CHECK(hd_machine_read(&m, path, &err) == HD_IO);
    CHECK(hd_cost_number(&v, "14.8T") && v == 14.8e12 && hd_cost_number(&v, "3e9") && v == 3e9 && hd_cost_number(&v, "64K") && v == 64e3);
    static const char *const no[] = {"", "T", "x", "1TB", "-1", "0", "inf", "nan", "1e999", "1 T"};
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) CHECK(!hd_cost_number(&v, no[i]), "%s", no[i]);
}

/* A run's folder with a log of three steps; then without what it needs. */
static void put(const char *dir, const char *name, const char *text)
{
    char file[200];
    hd_newfile f;
    snprintf(file, sizeof file, "%s/%s", dir, name);
    CHECK_OK(hd_newfile_begin(&f, file, &err));
    CHECK_OK(hd_newfile_write(&f, text, strlen(text), &err));
    CHECK_OK(hd_newfile_commit(&f, &err));
}

static void runs(void)
{
    static const char head[] = "step,tokens,loss,seconds,skipped\n";
    char dir[64], first[80], file[200], log[300];
    hd_machine m = {.devices = 1, .peak_flops = 1e9, .utilization = 0.25, .adamw_s = 5e6, .muon_s = 1e6, .muon_flops = 1e8};
    hd_cost_run r;
    hd_source *s = NULL;
    hd_model *model = NULL;
    snprintf(dir, sizeof dir, "/tmp/hadal-run-%ld", (long)getpid());
    snprintf(first, sizeof first, "%s/first", dir);
    CHECK_OK(hd_folder_make(dir, &err));
    json_t *j = json_pack("{s:[s],s:i,s:i,s:i,s:i,s:i,s:i}", "architectures", "LlamaForCausalLM", "vocab_size", 64, "hidden_size", 32,
                          "intermediate_size", 64, "num_hidden_layers", 2, "num_attention_heads", 2, "max_position_embeddings", 128);
    CHECK_OK(hd_model_init(first, j, 1, NULL, &err));
    json_decref(j);
    CHECK_OK(hd_source_open(&s, first, true, &err));
    CHECK_OK(hd_model_open_train(&model, s, HD_TRAIN_F32, 1, 16, &err));
    put(dir, "recipe.ini", "[run]\nname = x\n[data]\nseq = 64\n[train]\nbatch = 8\nmicro = 2\n[optim]\noptimizer = muon\n");
    snprintf(log, sizeof log, "%s1,512,4.1,0.5,0\n2,1024,4.0,1.0,0\n3,1536,3.9,1.5,0\n", head);
    put(dir, "log.csv", log);
    CHECK(hd_cost_run_read(&r, dir, &m, &err) == HD_FORMAT && strstr(err.msg, "checkpoint"), "%s", err.msg);
    hd_run_state state = {.step = 3};
    CHECK_OK(hd_checkpoint_write(dir, model, hd_model_params(model), NULL, NULL, &state, 1, &err));
    CHECK_OK(hd_cost_run_read(&r, dir, &m, &err));
    CHECK(r.ask.tokens == 1536 && r.ask.seq == 64 && r.ask.batch_tokens == 512 && r.ask.micro_tokens == 128 && r.ask.muon && near(r.hours * 3600, 1.5, 1e-12));
    double want = r.plan.flops_per_token * 1536 / 0.25e9 + 3 * ((double)r.plan.n_weights / 1e6 + r.plan.muon_work / 1e8);
    CHECK(near(r.plan.hours * 3600, want, 1e-9), "%g, %g", r.plan.hours * 3600, want);
    snprintf(log, sizeof log, "%s1,512,4.1,0.5,0\n2,1024,4.0,1.0,0\n3,15", head); // a line that was being written
    put(dir, "log.csv", log);
    CHECK_OK(hd_cost_run_read(&r, dir, &m, &err));
    CHECK(r.ask.tokens == 1024);
    static const char *const bad[] = {"", "step,loss\n1,2\n", "step,tokens,seconds\n", "step,tokens,seconds\n1,x,2\n", "step,tokens,seconds\n1,2\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put(dir, "log.csv", bad[i]);
        CHECK(hd_cost_run_read(&r, dir, &m, &err) == HD_FORMAT && strstr(err.msg, "log.csv"), "%zu: %s", i, err.msg);
    }
    put(dir, "log.csv", log);
    put(dir, "recipe.ini", "[train]\nbatch = 8\n");
    CHECK(hd_cost_run_read(&r, dir, &m, &err) == HD_FORMAT && strstr(err.msg, "seq"), "%s", err.msg);
    snprintf(file, sizeof file, "%s/recipe.ini", dir);
    unlink(file);
    CHECK(hd_cost_run_read(&r, dir, &m, &err) == HD_IO);
    hd_model_close(model);
    hd_source_close(s);
    CHECK_OK(hd_folder_remove(dir, &err));
}

int main(void)
{
    snprintf(path, sizeof path, "/tmp/hadal-machine-%ld.ini", (long)getpid());
    deepseek_v3();
    by_hand();
    by_hand_moe();
    fit();
    machines();
    runs();
    return hd_test_end();
}
