/* hadal pretrain, sft, distil: three verbs over one loop (train/trainer.c); what differs is in the recipe. */
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/distil_texts.h"
#include "cli/hub.h"
#include "cli/load.h"
#include "cli/opts.h"
#include "train/trainer.h"

/* A model that a recipe names, by what every command takes for a MODEL: a path, a run's
 * folder, a pulled name. */
static hd_status resolve(char *name, size_t size, hd_err *err)
{
    char *path;
    if (!*name) return HD_OK;
    hd_status st = hd_hub_resolve(&path, name, err);
    if (st == HD_OK && strlen(path) >= size) st = hd_fail(err, HD_LIMIT, "recipe: %.100s...: path too long", path);
    if (st == HD_OK) memcpy(name, path, strlen(path) + 1);
    free(path);
    return st;
}

static hd_status read_recipe(hd_recipe *r, hd_run_kind kind, const char *path, const hd_opt_list *settings, hd_err *err)
{
    hd_status st;
    HD_TRY(hd_recipe_read(r, kind, path, settings->v, settings->n, err));
    HD_TRY(resolve(r->init, sizeof r->init, err));
    HD_TRY(resolve(r->teacher, sizeof r->teacher, err));
    HD_TRY(resolve(r->tokenizer, sizeof r->tokenizer, err));
fail:
    return st;
}

static hd_status run_recipe(hd_run_kind kind, int argc, char **argv, hd_err *err)
{
    hd_status st;
    hd_opt_list settings = {0};
    bool json = false;
    int n = 0;
    hd_recipe r = {0};
    hd_comm *comm = NULL;
    hd_opt opts[] = {{"set", 's', HD_OPT_LIST, &settings, 0, 0}, {"json", 0, HD_OPT_FLAG, &json, 0, 0}};
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n != 1) return hd_fail(err, HD_USAGE, "%s: wants one recipe (recipes/*.ini); `hadal %s --help` shows examples", argv[0], argv[0]);
    HD_TRY(hd_comm_open(&comm, err));
    st = read_recipe(&r, kind, argv[1], &settings, err);
    hd_watch_signals();
    hd_run_opts o = {.json = json, .stop = &hd_interrupted};
    if (st == HD_OK) st = hd_train_run(&r, comm, &o, err);
    if (st == HD_CANCELLED && hd_comm_rank(comm) > 0) st = HD_OK; // rank 0 says it
    if (st != HD_OK && st != HD_CANCELLED && hd_comm_size(comm) > 1) hd_comm_abort(comm, err->msg, st == HD_USAGE ? 2 : 1);
fail:
    hd_comm_close(comm);
    hd_recipe_free(&r);
    return st;
}

static hd_status pretrain(int argc, char **argv, hd_err *err) { return run_recipe(HD_RUN_PRETRAIN, argc, argv, err); }
static hd_status sft(int argc, char **argv, hd_err *err) { return run_recipe(HD_RUN_SFT, argc, argv, err); }
static hd_status distil(int argc, char **argv, hd_err *err)
{
    return hd_asks_for_texts(argc, argv) ? hd_distil_texts(argc, argv, err) : run_recipe(HD_RUN_DISTIL, argc, argv, err);
}

#define COMMON_HELP                                                                                                                \
    "  -s, --set KEY=VALUE      over the recipe: steps=200, out=runs/x, train.batch=16, optim.lr=1e-3 ... (repeat)\n"              \
    "      --json               one JSON object a step on stdout\n"                                                                \
    "\n"                                                                                                                           \
    "A run lives in its folder (`out`): recipe, log.csv, samples, checkpoints.  The same command goes on from the newest whole\n"  \
    "checkpoint, to the same bits as if it had never stopped; Ctrl-C saves one.  Every checkpoint is a Hugging Face directory.\n"  \
    "\n"

const hd_command hd_cmd_pretrain = {
    "pretrain", "train a model from random weights, as a recipe says",
    "usage: hadal pretrain RECIPE [-s key=value ...]\n"
    "\n" COMMON_HELP
    "examples:\n"
    "  hadal pretrain recipes/shakespeare.ini\n"
    "  hadal pretrain recipes/shakespeare.ini -s steps=200 -s out=runs/first\n"
    "  mpirun -n 2 hadal pretrain recipes/stories.ini\n"
    "  hadal plot runs/first            hadal generate runs/first -p 'ROMEO:' -n 100\n",
    pretrain};

const hd_command hd_cmd_sft = {
    "sft", "go on training a model on conversations, loss on the answers",
    "usage: hadal sft RECIPE [-s key=value ...]\n"
    "\n" COMMON_HELP
    "examples:\n"
    "  hadal sft recipes/sft-gsm8k.ini\n"
    "  hadal sft recipes/sft-gsm8k.ini -s init=smollm2.gguf -s lora_rank=16\n",
    sft};

const hd_command hd_cmd_distil = {
    "distil", "train a model on a larger one's probabilities or texts",
    "usage: hadal distil RECIPE [-s key=value ...]\n"
    "\n" COMMON_HELP HD_DISTIL_TEXTS_HELP "\n"
    "examples:\n"
    "  hadal distil recipes/distil.ini -s teacher=runs/large -s teacher_cache=runs/probabilities\n"
    "  hadal distil --make-texts runs/large prompts.jsonl -o texts.jsonl --temp 0.6 -j 16\n",
    distil};
