/* The tape: what a training pass keeps of each layer for the way back, and the state of that way.  Private to
 * src/model (train_pass.c drives it; back_*.c stand beside the block_*.c whose derivatives they are).
 *
 * A block on its way forward asks hd_pass_keep for the arrays that its derivative reads, and notes them in
 * p->tape; in inference there is no tape and the same call takes work memory.  On its way back it gets the
 * gradient of what it added to the residual stream, which is the gradient of the stream itself (x' = x +
 * f(norm(x))), and adds its own share:
 *
 *   dx = dx' + norm'(f'(dx'))
 *
 * Gradients of weights are added at the weight's own place in the flat array of gradients (params.h). */
#ifndef HD_MODEL_TAPE_H
#define HD_MODEL_TAPE_H

#include "model/block.h"
#include "model/params.h"
#include "model/train_pass.h"
#include "ops/back.h"

typedef struct hd_layer_tape {
    float *x_attn, *x_ffn;  // [M, D] the residual stream that each block's norm read
    float *q, *k, *v;       // rotated.  MLA: q [M, H, nope + rope]; k [M, lora + rope]: the latent normed, the rest rotated
    float *q_raw, *k_raw;   // before the norm: per head (Qwen3); MLA: latents [M, q_lora], [M, lora + rope]
    float *q_abs;           // MLA: [M, H, lora + rope]
    float *mean;            // MLA: [M, H, lora]
    float *heads;           // [M, H, v] what Wo reads
    float *lse;             // [M, H]
    float *gate, *up;       // [M, F] before SwiGLU; MoE: of the shared experts
    float *logits, *weight; // router: [M, E]; [M, K]
    int *id, *slot, *first; // [M, K], [M, K], [E + 1]
    int *run;               // [E + 1] first row of each expert: `first`, or with ranks that of rows that came
    float *rows;            // [run[E], D] with ranks: what experts read; else NULL, and rows are slots
    float *egate, *eup;     // [run[E], F]
} hd_layer_tape;

typedef struct {
    hd_pass *p;
    hd_params *params;
    const hd_pass_opts *o;
    hd_pass_result *r;
    const hd_layer_tape *t; // of the layer in hand
    int il;
    hd_arena *work;
    float *dx;     // [M, D] gradient of the residual stream
    const int *len; // [n_docs]
    int n_docs;
} hd_back;

/* A weight of the base model that adapters change or leave alone (model/lora.h). */
typedef struct {
    const hd_slot *slot;
    int layer, expert;
    hd_rows rows;          // as the source has them
    int vector;            // its place among the parameters, or -1: a matrix
    int A, B;              // likewise of its adapters, or -1
    int linear, n_linear;  // its matrices in hd_train.linear: one, or the heads' halves of kv_b
    hd_linear a, b;        // A [r, k], B [n, r], both ways
} hd_lora_base;

typedef struct {
    int rank;
    float scale;           // alpha / rank
    uint64_t seed;
    hd_lora_base *base;
    int n;
    float *merged;         // a matrix at a time
    size_t merged_bytes;
} hd_lora;

/* What training holds beside the model. */
struct hd_train {
    hd_params params;
    hd_lora *lora;      // NULL: the weights themselves are trained
    hd_train_precision precision;
    bool pairs_in_file; // the source's rotated heads hold adjacent pairs; ours hold halves
    hd_linear **linear; // all that hd_params_refresh packs
    int64_t *row0;      // with adapters: each one's first row in its weight
    int n_linear;
    hd_linear *back;    // storage of their transposes
    hd_linear *key;     // MLA: [layers, heads] each the key's half of kv_b as it stands, [nope, lora]
    hd_arena panels, tape, work;
    hd_cache *cache;
    size_t w_bytes;
    float **router_bias; // [n_layer]
    struct hd_lanes *lanes; // for passes side by side (train_lanes.c), or NULL
};

/* Threads, work memory, tape and cache of one pass at a time, into what has none of them yet; and their end. */
hd_status hd_train_open_pass(hd_model *m, int n_threads, hd_err *err);
void hd_train_close_pass(hd_model *m);

/* *out is NULL where passes go one after the other. */
hd_status hd_lanes_open(struct hd_lanes **out, const hd_model *m, hd_err *err);
void hd_lanes_close(struct hd_lanes *l);

/* lora.c's, for those who open, pack and go back. */
void hd_lora_pack(hd_model *m, bool all); // panels from the source and the adapters; all: also of what has none
void hd_lora_grads(hd_back *b, const hd_mm_grad *jobs, int n);
void hd_lora_close(hd_lora *l);
hd_status hd_lora_start(hd_model *m, hd_err *err); // A drawn, all panels packed
int64_t hd_row_in_file(const struct hd_train *t, int64_t head_dim, const hd_slot *s, int64_t row);

float *hd_back_take(hd_back *b, int64_t n); // n floats of the way back's work memory
float *hd_grad_of(const hd_back *b, const float *master);
/* Whether gradients of f (NULL: or any other) are made of rows as products read them: f32 rows that only they
 * would read are not written then.  A bias's gradient is a sum of f32. */
bool hd_back_by_act(const hd_back *b, const hd_ffn *f);
/* Room for M rows as w reads them; a gradient dy is read by w->back. */
hd_act *hd_back_act(hd_back *b, const hd_linear *w, int M);
/* The f of n sides as w read them, in one parallel region; into work memory, as their act. */
void hd_back_pack(hd_back *b, hd_side *s, const hd_linear *const *w, int n, int M);
/* dx = sum of n terms w^T dy, or is added to; dy without acts get them, for jobs. */
void hd_back_mul(hd_back *b, const hd_linear *const *w, hd_side *dy, int n, int M, float *dx, int64_t ld, bool add);
/* The job that adds a weight's gradient (and its bias's). */
hd_mm_grad hd_back_job(const hd_back *b, const hd_linear *w, hd_side x, hd_side dy, int M);
/* Runs such jobs; with adapters, their part of them. */
void hd_back_grads(hd_back *b, const hd_mm_grad *jobs, int n);
/* h = rmsnorm(x) g, again: M rows that w read; f: something else reads them in f32. */
hd_side hd_back_norm(hd_back *b, const float *x, int64_t ldx, const float *g, const hd_linear *w, int M, float eps, bool f);
/* dx += norm'(dh), and the norm's own gradient. */
void hd_back_norm_add(hd_back *b, const float *dh, const float *x, const float *g);

void hd_back_gqa(hd_back *b, const hd_layer *l);
void hd_back_mla(hd_back *b, const hd_layer *l);
/* SwiGLU's way back for M rows of f (NULL: there are none), and what comes out of it as f's matrices read it:
 * dgate, dup and a.  gate,
 * up: [M, F] the tape's, which may become their gradients; da: [M, F] is read when it runs. */
hd_swiglu_grad hd_back_swiglu_of(hd_back *b, const hd_ffn *f, float *gate, float *up, const float *da, int M, int64_t F, hd_side out[3]);
/* dh = the way back of y = down(silu(gate h) * up h), or is added to; the tape's gate and up, which may
 * become their gradients. */
void hd_back_swiglu(hd_back *b, const hd_ffn *f, hd_side h, float *dh, bool add);

void hd_back_ffn(hd_back *b, const hd_layer *l);
void hd_back_moe(hd_back *b, const hd_layer *l);

/* Bytes of tape of one layer, and of work memory on the way back, for M rows. */
size_t hd_tape_layer_bytes(const hd_config *c, int layer, int M);
size_t hd_back_bytes(const hd_config *c, int M, int n_threads);
size_t hd_train_work_bytes(const hd_config *c, int rows, int n_threads); // and on the way there, too

#endif
