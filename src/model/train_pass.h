/* One micro-batch forward and backward: hd_forward's own blocks, with a tape that keeps what
 * the way back needs.
 *
 *   loss = 1/N sum of cross-entropy(logits_t, target_t)                       N: target tokens of the whole step
 *        + mtp_weight 1/N_mtp sum of cross-entropy of the MTP layer, one token further   (arXiv:2412.19437, eq. 24-25)
 *        + balance_alpha times the sequence-wise balance loss                (eq. 17-20; V2: expert-level, arXiv:2405.04434)
 *        + zloss 1/N sum of lse^2                                            (arXiv:2204.02311)
 *
 * Gradients are added to params->g, so micro-batches accumulate. */
#ifndef HD_MODEL_TRAIN_PASS_H
#define HD_MODEL_TRAIN_PASS_H

#include "model/params.h"

/* Documents of a micro-batch: rows of document i are consecutive, at positions 0 .. len[i]-1;
 * attention stays inside. */
typedef struct {
    int n_rows, n_docs;    // > 0; with experts on ranks also 0: this rank has no rows, but walks along
    const int32_t *tok;    // [n_rows]
    const int32_t *target; // [n_rows] the id that row predicts; -1: no loss (a prompt, the last of a document, padding)
    const int *len;        // [n_docs] > 0, sum n_rows
    /* distillation, or NULL: a teacher's ids and log-probabilities, falling; -1 ends a list */
    const int32_t *teacher_id;   // [n_rows, n_top]
    const float *teacher_logp;   // [n_rows, n_top]
    int n_top;
    /* reinforcement and weighting, or NULL: multiplies each row's loss */
    const float *weight;         // [n_rows]
} hd_micro;

typedef struct {
    float loss_scale;     // 1 / N
    float mtp_weight;     // 0: the MTP layer is left alone
    float mtp_scale;      // 1 / N_mtp
    float balance_alpha;  // 0: none
    float balance_scale;  // 1 / sequences of the whole step
    float zloss;
    float distil_weight;  // of the distillation loss; 1 - it of the cross-entropy
    float temperature;
    bool recompute;       // keep only each layer's input; run the layer again on the way back
    bool backward;        // false: evaluate only
} hd_pass_opts;

typedef struct {
    double loss;         // sum of cross-entropy in nats over n_target rows, unscaled
    double mtp_loss;     // the same of the MTP layer over n_mtp rows
    double distil_loss;
    double balance_loss; // sum of the sequence-wise loss over layers and sequences, without alpha; only on a way back
    int64_t n_target, n_mtp;
    int64_t *load;       // [layers + MTP layers, experts] tokens sent to each expert, added to; the caller's, or NULL
    float *row_loss;     // [n_rows] or NULL: cross-entropy by row
} hd_pass_result;

/* HD_FORMAT when a loss is not finite.  With experts on ranks all ranks call it together, with
 * the same options. */
hd_status hd_train_pass(hd_model *m, const hd_micro *b, const hd_pass_opts *o, hd_pass_result *r, hd_err *err);

/* Passes of a step, n of them, 1 .. hd_train_most_passes: the results are added to *r.  Where the model is
 * small they run side by side and add to gradients of their own (train_lanes.c): params->g has them after
 * hd_train_sum, once for all passes of a step.  Any number of threads gives the same bits.  Elsewhere, and
 * with experts on ranks or adapters, a pass is hd_train_pass, and there is nothing to sum.
 * o->backward; r->row_loss: NULL. */
enum { HD_MOST_PASSES = 64 };
int hd_train_most_passes(const hd_model *m); // HD_MOST_PASSES or 1
hd_status hd_train_passes(hd_model *m, const hd_micro *b, int n, const hd_pass_opts *o, hd_pass_result *r, hd_err *err);
void hd_train_sum(hd_model *m);

/* Rows of targets that MTP has in this micro-batch: row t where both t and t+1 have targets
 * in one document. */
int64_t hd_micro_mtp_targets(const hd_micro *b);

#endif
