/* A recipe: one INI file a run, over it key=value settings of the command line.
 *
 *     [model]                          a new model: keys of config.json, or `init`: weights to start from
 *     architecture = DeepseekV3ForCausalLM
 *     hidden_size = 128
 *     [data]
 *     source = ${HADAL_DATA:-data}/stories.txt @ 0.7     may be repeated; the number is its share
 *     [optim]
 *     lr = 0.002                       ; a comment
 *     warmup = 2%                      of the steps
 *
 * In paths $NAME and ${NAME} are the environment's, ${NAME:-TEXT} has a value for when it is not set, $$ is a
 * dollar.  A value in double quotes keeps its spaces and semicolons; inside, \n \t \" \\ mean what they mean
 * in C.  A setting is section.key=value, or key=value where one section alone has that key.  An unknown key,
 * a value outside its range, a section or key twice: an error that names file, line and key. */
#ifndef HD_TRAIN_RECIPE_H
#define HD_TRAIN_RECIPE_H

#include <jansson.h>

#include "train/data.h"
#include "train/optim.h"
#include "train/schedule.h"

typedef enum { HD_RUN_PRETRAIN, HD_RUN_SFT, HD_RUN_DISTIL } hd_run_kind;

enum { HD_RECIPE_SOURCES = 32 };

typedef struct {
    hd_run_kind kind;
    char name[64];
    char out[1024];          // the run's folder; default runs/<name>
    /* [model]: a config of our own (keys of config.json), or published weights to start from */
    char init[1024];         // directory or GGUF; empty: random weights from `config`
    json_t *config;          // keys of [model] as config.json wants them; owned
    /* [tokenizer] */
    char tokenizer[1024];    // a directory; empty: trained from the data
    int64_t vocab;
    /* [data] */
    struct {
        char path[1024];     // file, glob or packed folder; $NAME and ${NAME} of the environment are put in
        double weight;
    } source[HD_RECIPE_SOURCES];
    int n_sources;
    char val[1024];          // validation text, same forms
    char field[64], divider[64], chat_format[64]; // divider: see hd_recipe_divider
    char teacher[1024];      // distil: a model
    char teacher_cache[1024]; // ... and a file of its probabilities; empty: it is asked at each step
    int seq;                 // rows of a sequence
    uint64_t seed;
    /* [train] */
    int64_t steps;
    int batch, micro;        // sequences of a step over all ranks; of a micro-batch
    hd_train_precision precision;
    bool recompute, expert_parallel;
    float mtp_weight, balance_alpha, bias_speed, zloss, clip, distil_weight, temperature;
    int distil_top;
    double spike_sigmas;     // 0: never skip
    int lora_rank;           // 0: whole
    float lora_alpha;
    int64_t eval_every, save_every, sample_every;
    int keep;                // checkpoints kept
    int64_t eval_tokens;
    char sample_prompt[256];
    int n_threads;
    hd_optim_config optim;   // [optim]
    hd_schedule schedule;
    double watts, usd_per_kwh, usd_per_hour; // [cost]
} hd_recipe;

/* HD_USAGE for what the file or a setting says, HD_IO when it cannot be read.  *r needs no initial value;
 * nothing of it is left on an error. */
hd_status hd_recipe_read(hd_recipe *r, hd_run_kind kind, const char *path, const char *const *settings, int n_settings,
                         hd_err *err);
void hd_recipe_free(hd_recipe *r);
/* data.divider as hd_text_opts wants it: none, or empty: NULL; blank: ""; line: "\n"; else
 * the line itself. */
const char *hd_recipe_divider(const hd_recipe *r);
/* Sequences of seq rows in a micro-batch when the recipe does not say: as many as divide the batch and
 * have 512 rows at most, so that what one operation hands to the next is still in the second-level
 * cache; 1024 unless a new model is known to be dense: with experts longer passes add to all gradients
 * less often.  Still longer ones want up to five times the memory and were slower (doc/log.md). */
int hd_recipe_micro(int batch, int seq, bool dense);
/* The whole recipe as INI text, defaults and the environment put in: kept in the run's folder, so that a run
 * says what it was.  Reading it gives the same recipe. */
hd_status hd_recipe_write(const hd_recipe *r, hd_buf *out, hd_err *err);

#endif
