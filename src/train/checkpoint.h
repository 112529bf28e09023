/* Checkpoints: a Hugging Face directory that transformers loads (config.json, model.safetensors in f32,
 * tokenizer files, generation_config.json), and beside them what a run needs to go on (trainer.safetensors:
 * moments; trainer.json: step, data index, random state, CRC-32C of every file).  Written under another name
 * and renamed when whole and synced; the newest whole one counts, and older ones are removed only then. */
#ifndef HD_TRAIN_CHECKPOINT_H
#define HD_TRAIN_CHECKPOINT_H

#include "dist/comm.h"
#include "train/optim.h"

typedef struct {
    int64_t step, tokens;
    uint64_t next_index;   // of hd_data_get
    double seconds;        // spent so far
    void *extra;           // more state, plain bytes (hd_spikes ...): in trainer.json as hex
    size_t n_extra;
} hd_run_state;

/* dir/step-%08lld; keep: how many to leave (0: all).  tokenizer: folder whose tokenizer files are
 * copied, or NULL.  o NULL: no moments; s NULL: weights alone, into dir itself (an export).  A failure
 * leaves what was there. */
hd_status hd_checkpoint_write(const char *dir, const hd_model *m, const hd_params *p, const hd_optim *o,
                              const char *tokenizer, const hd_run_state *s, int keep, hd_err *err);
/* The same when ranks own parts of the optimizer's state: every rank calls it, each writes its own moments
 * into one folder (so all see one file system), rank 0 all else; experts that other ranks hold come to it one
 * by one.  It stands everywhere or nowhere. */
hd_status hd_checkpoint_write_ranks(hd_comm *comm, const char *dir, const hd_model *m, const hd_params *p, const hd_optim *o,
                                    const char *tokenizer, const hd_run_state *s, int keep, hd_err *err);
/* The newest whole checkpoint's folder into path[1024], "" when there is none; damaged ones are told of
 * and passed over. */
hd_status hd_checkpoint_find(char *path, const char *dir, hd_err *err);
/* Moments and state back, whatever number of ranks wrote them; the weights come through
 * hd_model_open_train of the folder. */
hd_status hd_checkpoint_read(const char *path, const hd_params *p, hd_optim *o, hd_run_state *s, hd_err *err);

/* A model of random weights as a Hugging Face directory, for a run's first step: `config` as of config.json,
 * checked.  Normal with std (0.02, or initializer_range), projections into the residual stream scaled by 1 /
 * sqrt(2 layers), norms 1, biases 0; the values depend on the seed and the tensor's name alone. */
hd_status hd_model_init(const char *dir, const json_t *config, uint64_t seed, const char *tokenizer, hd_err *err);

#endif
