/* Recipes: what is read, what is refused and how it is said, settings over files, the environment, and
 * writing that reads back. */
#include <glob.h>
#include <math.h>
#include <unistd.h>

#include "base/file.h"
#include "test.h"
#include "train/recipe.h"

static hd_err err;
static char path[300];

#define MODEL "[model]\narchitecture = Qwen2ForCausalLM\nhidden_size = 64\nintermediate_size = 128\nnum_hidden_layers = 2\n" \
              "num_attention_heads = 4\nnum_key_value_heads = 2\ntie_word_embeddings = true\n"
#define SMALL MODEL "[data]\nsource = a.txt\n"

static hd_status read_with(hd_recipe *r, hd_run_kind kind, const char *text, const char *const *set, int n)
{
    FILE *f = fopen(path, "w");
    CHECK(f != NULL);
    if (f) fputs(text, f), fclose(f);
    return hd_recipe_read(r, kind, path, set, n, &err);
}

static hd_status parse(hd_recipe *r, const char *text) { return read_with(r, HD_RUN_PRETRAIN, text, NULL, 0); }

static void test_values(void)
{
    hd_recipe r;
    CHECK_OK(parse(&r, "# a run\n[model]\narchitecture = DeepseekV3ForCausalLM ; as published\nhidden_size = 64\nintermediate_size = 128\n"
                      "num_hidden_layers=2\nnum_attention_heads=4\nnum_key_value_heads=4\nkv_lora_rank=32\nqk_nope_head_dim=16\n"
                      "qk_rope_head_dim=8\nv_head_dim=16\nn_routed_experts=8\nnum_experts_per_tok=2\nmoe_intermediate_size=32\n"
                      "n_shared_experts=1\nfirst_k_dense_replace=1\nn_group=1\ntopk_group=1\nnum_nextn_predict_layers=1\n\n"
                      "[tokenizer]\nvocab = 512\n[data]\nsource = a.txt\nsource = \"b; c.txt @ 0.25\"\nval = v.txt\nseq=128\ndivider = <|end|>\n"
                      "[train]\nsteps = 500\nbatch = 64\nprecision = f32\nrecompute = yes\nclip = 0.5\n"
                      "[optim]\nlr = 1e-3\nwarmup = 10%\ndecay = 50\noptimizer = adamw\nschedule = cosine\nbeta2 = 0.98\n"
                      "[log]\nsample_prompt = \"  Once \\\"upon\\\"\\n\"\n[cost]\nwatts = 65\n"));
    CHECK(strcmp(r.out + strlen(r.out) - strlen(r.name), r.name) == 0 && strncmp(r.out, "runs/", 5) == 0);
    CHECK(strcmp(json_string_value(json_array_get(json_object_get(r.config, "architectures"), 0)), "DeepseekV3ForCausalLM") == 0);
    CHECK(json_integer_value(json_object_get(r.config, "vocab_size")) == 512);
    CHECK(json_integer_value(json_object_get(r.config, "max_position_embeddings")) == 128);
    CHECK(r.n_sources == 2 && strcmp(r.source[1].path, "b; c.txt") == 0 && r.source[1].weight == 0.25 && r.source[0].weight == 1);
    CHECK(r.steps == 500 && r.schedule.steps == 500 && r.schedule.warmup == 50 && r.schedule.decay == 50);
    CHECK(r.batch == 64 && r.micro == 8 && r.seq == 128); // 1024 rows at most
    CHECK(r.precision == HD_TRAIN_F32 && r.recompute && r.clip == 0.5f);
    CHECK(r.optim.matrices == HD_OPT_ADAMW && r.optim.beta2 == 0.98 && r.schedule.kind == HD_SCHED_COSINE && r.schedule.lr == 1e-3f);
    CHECK(strcmp(r.sample_prompt, "  Once \"upon\"\n") == 0 && r.watts == 65);
    CHECK(strcmp(hd_recipe_divider(&r), "<|end|>") == 0);
    hd_recipe_free(&r);

    CHECK_OK(parse(&r, SMALL));
    CHECK(r.schedule.warmup == 20 && r.schedule.decay == 200 && r.optim.matrices == HD_OPT_MUON && r.mtp_weight == 0.3f);
    CHECK(hd_recipe_divider(&r) == NULL && r.seed == 1 && r.keep == 2);
    hd_recipe_free(&r);
    CHECK_OK(parse(&r, SMALL "divider = blank\n"));
    CHECK(strcmp(hd_recipe_divider(&r), "") == 0);
    hd_recipe_free(&r);
    CHECK_OK(parse(&r, SMALL "divider = line\n"));
    CHECK(strcmp(hd_recipe_divider(&r), "\n") == 0);
    hd_recipe_free(&r);
    CHECK_OK(read_with(&r, HD_RUN_SFT, "[model]\ninit = some/model\n[data]\nsource = a.jsonl\n", NULL, 0));
    CHECK(strcmp(r.init, "some/model") == 0 && !r.config && r.optim.matrices == HD_OPT_ADAMW && r.schedule.lr == 2e-5f);
    hd_recipe_free(&r);
}

static void refused(const char *text, const char *line, const char *why)
{
    hd_recipe r;
    memset(&r, 1, sizeof r);
    hd_status st = parse(&r, text);
    CHECK(st == HD_USAGE, "status %d for %s", st, text);
    CHECK(strstr(err.msg, line) && strstr(err.msg, why), "'%s' lacks '%s' or '%s'", err.msg, line, why);
}

static void test_refusals(void)
{
    refused(SMALL "[train]\nstpes = 3\n", ".ini:12: 'stpes'", "did you mean train.steps?");
    refused("[model]\nhiden_size = 3\n", ".ini:2: 'hiden_size'", "did you mean model.hidden_size?");
    refused(SMALL "[train]\nlr = 3\n", ":12:", "did you mean optim.lr?");
    refused(SMALL "[train]\nsomething_else = 3\n", ":12:", "no key of a recipe");
    refused(SMALL "[train]\nsteps = many\n", ":12: steps", "'many' is no whole number");
    refused(SMALL "[train]\nsteps = 1.5\n", ":12: steps", "no whole number");
    refused(SMALL "[train]\nsteps = 0\n", ":12: steps", "not between 1 and");
    refused(SMALL "[train]\nsteps = 99999999999999999999999\n", ":12: steps", "");
    refused(SMALL "[train]\nclip = nan\n", ":12: clip", "not between");
    refused(SMALL "[train]\nclip = 1e999\n", ":12: clip", "");
    refused(SMALL "[train]\nprecision = f64\n", ":12: precision", "bf16 f32 fp8");
    refused(SMALL "[train]\nrecompute = maybe\n", ":12: recompute", "neither yes nor no");
    refused(SMALL "[optim]\nwarmup = 120%\n", ":12: warmup", "not between 0 and 100");
    refused(SMALL "[train]\nsteps = 1\nsteps = 2\n", ":13: steps", "twice");
    refused(SMALL "hidden_size = 1\n", ":11:", "did you mean model.hidden_size?");
    refused(SMALL "[data]\n", ":11: [data]", "twice");
    refused(SMALL "[model]\n", ":11: [model]", "twice");
    refused(MODEL "hidden_size = 1\n", ":9: hidden_size", "twice");
    refused(SMALL "[trian]\nsteps = 3\n", ":12: [trian]", "no section");
    refused("steps = 3\n", ":1: 'steps'", "before the first [section]");
    refused(SMALL "[train]\nwhat is this\n", ":12:", "neither [section] nor key = value");
    refused(SMALL "[log]\nsample_prompt = \"open\n", ":12:", "does not end");
    refused(SMALL "source = x @ none\n", ":11: source", "no number");
    refused(SMALL "source = x @ 0\n", ":11: source", "not between");
    refused(MODEL, ".ini", "no source");
    refused("[data]\nsource = a\n", "[model]", "neither init nor");
    refused("[model]\ninit = x\nhidden_size = 64\n[data]\nsource = a\n", "[model]", "not both");
    refused(MODEL "num_key_value_heads_x = 1\n", ":9:", "did you mean model.num_key_value_heads?");
    refused("[model]\nhidden_size = -1\n", ":2: hidden_size", "whole number");
    refused(MODEL "vocab_size = 100\n[data]\nsource = a\n", "vocab_size", "fewer than tokenizer.vocab");
    refused(MODEL "max_position_embeddings = 100\n[data]\nsource = a\n", "data.seq", "more than the model's 100");
    refused(SMALL "[train]\nbatch = 10\nmicro = 3\n", "train.micro", "does not divide");
    refused(SMALL "[lora]\nlora_rank = 4\n", "lora.lora_rank", "published weights");
    refused(SMALL "[run]\nname = a/b\n", "run.name", "not a path");
    static char text[6000] = SMALL "val = ";
    memset(text + strlen(SMALL "val = "), 'x', 5000);
    refused(text, ":11:", "a line of more than");
    strcpy(text, SMALL "val = ");
    memset(text + strlen(SMALL "val = "), 'x', 1500);
    text[strlen(SMALL "val = ") + 1500] = 0;
    refused(text, ":11:", "more than 1023 characters");
    strcpy(text, SMALL);
    for (int i = 0; i < HD_RECIPE_SOURCES; i++) strcat(text, "source = b\n");
    refused(text, ":42: source", "more than 32");
    hd_recipe r;
    CHECK(hd_recipe_read(&r, HD_RUN_PRETRAIN, "/nowhere.ini", NULL, 0, &err) != HD_OK && strstr(err.msg, "/nowhere.ini"));
    CHECK(read_with(&r, HD_RUN_DISTIL, SMALL, NULL, 0) == HD_USAGE && strstr(err.msg, "no teacher"));
}

static void refused_set(const char *setting, const char *why)
{
    hd_recipe r;
    CHECK(read_with(&r, HD_RUN_PRETRAIN, SMALL, &setting, 1) == HD_USAGE && strstr(err.msg, why) && strstr(err.msg, "-s "),
          "'%s' lacks '%s'", err.msg, why);
}

static void test_settings(void)
{
    hd_recipe r;
    const char *set[] = {"steps=50", "optim.lr=0.5", "out=here", "data.source=c.txt @ 2", "source=d.txt", "model.hidden_size=32",
                         "num_hidden_layers=3", "name=x=y", "warmup=7"};
    CHECK_OK(read_with(&r, HD_RUN_PRETRAIN, MODEL "[data]\nsource = $HADAL_NO_SUCH/a.txt\n[train]\nsteps = 9\n", set, 9));
    CHECK(r.steps == 50 && r.schedule.lr == 0.5f && strcmp(r.out, "here") == 0 && strcmp(r.name, "x=y") == 0);
    CHECK(r.schedule.warmup == 7 && r.schedule.decay == 10);
    CHECK(r.n_sources == 2 && strcmp(r.source[0].path, "c.txt") == 0 && r.source[0].weight == 2); // and the file's is gone
    CHECK(json_integer_value(json_object_get(r.config, "hidden_size")) == 32);
    CHECK(json_integer_value(json_object_get(r.config, "num_hidden_layers")) == 3);
    hd_recipe_free(&r);
    refused_set("steps", "no key=value");
    refused_set("=3", "no key=value");
    refused_set("stps=3", "did you mean train.steps?");
    refused_set("train.lr=3", "did you mean optim.lr?");
    refused_set("steps=x", "'x' is no whole number");
    refused_set("model.hiden_size=3", "did you mean model.hidden_size?");
}

static void test_environment(void)
{
    hd_recipe r;
    setenv("HADAL_TEST_DIR", "/some where", 1);
    setenv("HADAL_TEST_EMPTY", "", 1);
    unsetenv("HADAL_NO_SUCH");
    CHECK_OK(parse(&r, SMALL "source = $HADAL_TEST_DIR/x\nsource = a${HADAL_TEST_DIR}b @ 3\nsource = ${HADAL_NO_SUCH:-data}/y\n"
                            "source = ${HADAL_TEST_EMPTY:-}z$$1\nval = ${HADAL_NO_SUCH:-$HADAL_TEST_DIR/c}/v\n"));
    CHECK(strcmp(r.val, "/some where/c/v") == 0);
    CHECK(strcmp(r.source[1].path, "/some where/x") == 0 && strcmp(r.source[2].path, "a/some whereb") == 0 && r.source[2].weight == 3);
    CHECK(strcmp(r.source[3].path, "data/y") == 0 && strcmp(r.source[4].path, "z$1") == 0);
    hd_recipe_free(&r);
    refused(SMALL "val = $HADAL_NO_SUCH/x\n", ":11: $HADAL_NO_SUCH", "no such variable");
    refused(SMALL "val = ${HADAL\n", ":11:", "${NAME}");
    refused(SMALL "val = a$/x\n", ":11:", "no name of a variable");
}

/* Written, read, written again: the same text, and the same numbers. */
static void test_write(void)
{
    hd_recipe r, s;
    hd_buf one, two;
    hd_buf_init(&one, 1 << 20);
    hd_buf_init(&two, 1 << 20);
    CHECK_OK(parse(&r, MODEL "rope_scaling.rope_type = yarn\nrope_scaling.factor = 4.5\nrope_scaling.original_max_position_embeddings = 64\n"
                            "eos_token_id = 1,2\nrms_norm_eps = 1e-6\n[data]\nsource = a$$b @ 0.3\nsource = \"x ; y\"\ndivider = \" ;; \"\n"
                            "[optim]\nlr = 0.0012345678\nwarmup = 3%\n[log]\nsample_prompt = \"a\\nb\\\\ \"\n"));
    CHECK_OK(hd_recipe_write(&r, &one, &err));
    CHECK_OK(parse(&s, one.data));
    CHECK_OK(hd_recipe_write(&s, &two, &err));
    CHECK(strcmp(one.data, two.data) == 0, "%s\n%s", one.data, two.data);
    CHECK(json_equal(r.config, s.config) && strcmp(r.source[0].path, "a$b") == 0 && strcmp(s.source[0].path, "a$b") == 0);
    CHECK(strcmp(s.source[1].path, "x ; y") == 0 && strcmp(s.divider, " ;; ") == 0 && strcmp(s.sample_prompt, "a\nb\\ ") == 0);
    CHECK(s.source[0].weight == 0.3 && s.schedule.lr == r.schedule.lr && s.schedule.warmup == 30 && s.schedule.decay == r.schedule.decay);
    CHECK(s.optim.beta1 == r.optim.beta1 && s.optim.eps == r.optim.eps && s.eval_tokens == r.eval_tokens && s.micro == r.micro);
    hd_recipe_free(&r);
    hd_recipe_free(&s);
    hd_buf_free(&one);
    hd_buf_free(&two);
}

/* The recipes of the project are recipes. */
static void test_ours(void)
{
    glob_t g;
    setenv("HADAL_MODEL", "some.gguf", 1);
    CHECK(glob(HD_SOURCE_DIR "/recipes/*.ini", 0, NULL, &g) == 0 && g.gl_pathc >= 10);
    for (size_t i = 0; i < g.gl_pathc; i++) {
        hd_recipe r;
        hd_run_kind kind = strstr(g.gl_pathv[i], "/sft") ? HD_RUN_SFT : strstr(g.gl_pathv[i], "/distil") ? HD_RUN_DISTIL : HD_RUN_PRETRAIN;
        CHECK_OK(hd_recipe_read(&r, kind, g.gl_pathv[i], NULL, 0, &err));
        hd_recipe_free(&r);
    }
    globfree(&g);
}

int main(void)
{
    snprintf(path, sizeof path, "/tmp/hadal-test-recipe-%d.ini", (int)getpid());
    test_values();
    test_refusals();
    test_settings();
    test_environment();
    test_write();
    test_ours();
    remove(path);
    return hd_test_end();
}
