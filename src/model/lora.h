/* LoRA (arXiv:2106.09685): a model too large to train whole learns W = W0 + alpha/r B A, with A [r, k]
 * and B [n, r], for the matrices of every layer: q, k, v, o, gate, up, down, those of experts, and MLA's
 * q_a, q_b and kv_a.  (kv_b, whose halves meet the heads one by one, stays; so do routers, embeddings,
 * heads and all vectors.)
 *
 * W0 is never held in f32: it stays in its file, whatever its format.  The forward pass and the way back to
 * dx read panels of W itself, packed anew after each update (decode, add alpha/r B A, round, pack); so
 * neither knows of adapters, and what was trained is what the merged model computes, to the bit.  The
 * gradient of W is never formed:
 *
 *   dB += alpha/r dy^T (A x)         dA += alpha/r (B^T dy)^T x
 *
 * Memory: panels both ways, 4 bytes a weight, beside 16 and more of training whole.  A starts uniform in
 * +-1/sqrt(k), B at zero: the first step is the base model's. */
#ifndef HD_MODEL_LORA_H
#define HD_MODEL_LORA_H

#include "model/params.h"

/* As hd_model_open_train.  hd_model_params then lists A and B as lora_A and lora_B behind their matrix's name
 * (.adapter), and the vectors, frozen.  The source stays open as long as the model.  HD_USAGE: rank < 1. */
hd_status hd_model_open_lora(hd_model **out, const hd_source *s, hd_train_precision precision, int rank, float alpha, uint64_t seed,
                             int n_threads, int max_rows, hd_err *err);

/* The merged model, weight by weight, in the order and under the names of a checkpoint: 0 weights
 * without adapters. */
int hd_lora_n_weights(const hd_model *m);
void hd_lora_weight_at(const hd_model *m, int i, hd_param *p); // name, slot, n, k, vector
/* Its numbers [n, k], with the adapters as they are now; good until the next call. */
const float *hd_lora_weight_read(const hd_model *m, int i);

#endif
