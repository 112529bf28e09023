/* Optimizers over the flat arrays of model/params.h: AdamW (arXiv:1711.05101) and Muon (train/muon.h), chosen
 * per parameter; decay groups; clipping.
 *
 * The state is packed too (exp_avg and exp_avg_sq of each parameter; Muon uses the first alone), so that
 * ranks may each hold a part of it (ZeRO-1, arXiv:1910.02054): every parameter belongs to one owner, whole.
 * The result does not depend on who owns what, nor on threads. */
#ifndef HD_TRAIN_OPTIM_H
#define HD_TRAIN_OPTIM_H

#include "model/params.h"
#include "ops/ops.h"

typedef enum { HD_OPT_ADAMW, HD_OPT_MUON } hd_optim_kind;

typedef struct {
    hd_optim_kind matrices;          // of matrices inside layers; embeddings, heads, routers and vectors always use AdamW
    double beta1, beta2, eps;        // AdamW
    float weight_decay;              // of matrices; vectors and embeddings: none
    float muon_momentum;             // 0.95, Nesterov
    int muon_steps;                  // Newton-Schulz steps, 5
    float muon_lr_scale;             // 0.2 sqrt(max(n, k)) times this: matches AdamW's size of an update (arXiv:2502.16982)
    float embed_lr_scale;            // of embeddings and heads
    bool moments_bf16;               // moments kept in bf16 (arXiv:2412.19437, 3.3.2); beta2 at most 0.98, since a
                                     // smaller step of the average would round to none
} hd_optim_config;

typedef struct hd_optim hd_optim;

/* The defaults of the fields above: Muon, or AdamW with 0.9, 0.95, 1e-8; decay 0.1. */
extern const hd_optim_config hd_optim_defaults;

/* owner: [params->n] or NULL: state is kept and steps are made only for parameters with owner[i] == rank.
 * Frozen parameters have neither.  p is borrowed. */
hd_status hd_optim_open(hd_optim **out, const hd_params *p, const hd_optim_config *c, const int *owner, int rank,
                        hd_err *err);
void hd_optim_close(hd_optim *o);
/* One update: w -= lr ..., from gradients g times grad_scale (1, or less when clipped).  step counts from 1.
 * w, g: [n_flat], laid out as params->w. */
void hd_optim_step(hd_optim *o, hd_dev *d, float *w, const float *g, float lr, float grad_scale, int64_t step);

/* The state, for checkpoints: tensors by name ("exp_avg.<parameter>", "exp_avg_sq.<parameter>"), f32 or bf16;
 * and of every rank the adapters themselves ("weight.<parameter>"), of which a checkpoint's weights hold the
 * sum with the base alone. */
int hd_optim_n_state(const hd_optim *o);
typedef struct {
    char name[160];
    int param;   // index in params
    int64_t n;   // numbers
    hd_type type;
    void *data;
} hd_optim_state;
void hd_optim_state_at(const hd_optim *o, int i, hd_optim_state *s);
/* Bytes of state and work memory; owner, rank: as above. */
uint64_t hd_optim_bytes(const hd_params *p, const hd_optim_config *c, const int *owner, int rank);
bool hd_optim_is_muon(const hd_optim_config *c, const hd_param *p);

/* What gradients of this norm are multiplied with so that it is at most `clip`; clip 0: 1, always. */
float hd_clip_scale(double norm, double clip);

#endif
