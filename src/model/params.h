/* The weights of a model in training: one flat array of f32 masters, and beside it arrays of the same layout
 * for the gradients and for whatever an optimizer keeps.  A parameter is a range of it.
 *
 * The model's forward pass reads panels packed from the masters (hd_params_refresh after each update);
 * vectors (norms, biases) and the embedding's rows are read from the masters themselves.  So a master's
 * address tells its gradient's: g = params->g + (w - params->w). */
#ifndef HD_MODEL_PARAMS_H
#define HD_MODEL_PARAMS_H

#include "dist/comm.h"
#include "model/arch.h"
#include "model/model.h"

typedef struct {
    char name[128];      // as in a Hugging Face checkpoint
    const hd_slot *slot;
    int layer, expert;   // -1: none
    int64_t at;          // first float in the flat arrays, a multiple of 16; -1: nowhere here
    int64_t n, k;        // [n, k]; a vector is [1, k]
    bool vector;         // [k] in files
    bool frozen;         // router biases (moved by balancing, not by gradients): no gradient, no optimizer
    bool single;         // with experts on ranks: one rank alone has it,
    int rank;            //   this one
    bool adapter;        // A or B of a matrix (model/lora.h): no weight of a checkpoint, but of a run's state
} hd_param;

typedef struct hd_params {
    hd_param *p;
    int n;
    int64_t n_flat;      // floats of each flat array, padding included (zero there, always)
    int64_t n_shared;    // of them those that every rank has; this rank's own lie behind
    int64_t n_weights;   // parameters of all ranks, without padding
    float *w, *g;        // [n_flat] each, 64-byte aligned
    float *const *router_bias; // [layers] into w, or NULL: what balancing moves
} hd_params;

typedef enum { HD_TRAIN_BF16, HD_TRAIN_F32, HD_TRAIN_FP8 } hd_train_precision;

enum { HD_LEAST_K = 1024 }; // products this wide (ops/rate.c) always fit in a training model's device

/* Open a source (a directory or GGUF in any format: decoded) for training: masters, gradients (zero),
 * panels both ways.
 * max_rows: rows of one micro-batch.  Close with hd_model_close. */
hd_status hd_model_open_train(hd_model **out, const hd_source *s, hd_train_precision precision, int n_threads, int max_rows,
                              hd_err *err);
/* The same with experts on ranks (model/ranks.h), if the model has any: each rank of comm holds its own, and
 * the ranks' passes are made together.  comm is borrowed. */
hd_status hd_model_open_ranks(hd_model **out, const hd_source *s, hd_train_precision precision, hd_comm *comm, int n_threads, int max_rows,
                              hd_err *err);
uint64_t hd_model_rank_bytes(const hd_model *m); // sent so far for the sake of experts on ranks
hd_params *hd_model_params(hd_model *m); // NULL unless opened for training
void hd_params_refresh(hd_model *m);     // panels from masters
const hd_param *hd_params_find(const hd_params *p, const char *name);

/* Training keeps keys and values as f32 of the numbers that the cache of a session would hold in f16: the
 * same bits, and nothing to widen on the way there or back.  Where the way back multiplies pairs of bf16
 * (hd_back_kernels.outer_pairs) it keeps them in that.  The type of its cache, and what is rounded to first
 * (F32: nothing is). */
hd_cache_type hd_train_cache(const hd_config *c, hd_train_precision p, const hd_kernels *k);
hd_cache_type hd_train_round(const hd_config *c, hd_train_precision p, const hd_kernels *k);

/* What training would take on each rank, for the plan that is printed first.  Bytes. */
typedef struct {
    uint64_t masters, gradients, panels, tape, work, cache;
    int64_t n_weights, n_active; // weights; those that one token uses
} hd_train_plan;
/* ranks: that experts are on, evenly chosen; 1: all are here. */
hd_status hd_train_plan_for(hd_train_plan *p, const hd_config *c, hd_train_precision precision, int rows, int n_threads,
                            bool recompute, int ranks, hd_err *err);
/* What more it is where passes go side by side (model/train_pass.h). */
void hd_train_plan_lanes(hd_train_plan *p, const hd_config *c, int rows, int n_threads);

#endif
