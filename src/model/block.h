/* Inside a model: weights by layer, and the blocks that a pass is made of.  Private to src/model.
 *
 * A block is a function from rows to rows.  It reads the residual stream x, leaves its own output in y, and
 * whoever comes next adds the two: the addition, the norm and the packing of activations for the next product
 * are one pass over the rows (hd_pass_norm). */
#ifndef HD_MODEL_BLOCK_H
#define HD_MODEL_BLOCK_H

#include "base/log.h"
#include "model/arch.h"
#include "model/model.h"
#include "model/ranks.h"
#include "model/rope.h"

/* SwiGLU network: down(silu(gate(x)) * up(x)). */
typedef struct {
    hd_linear gate, up, down;
} hd_ffn;

typedef struct {
    const float *attn_norm, *ffn_norm;
    bool moe;

    /* attention, GQA */
    hd_linear q, k, v, o;
    const float *q_norm, *k_norm; // Qwen3: per head

    /* attention, MLA: q_a, q_b (or q alone), kv_a; o as above */
    hd_linear q_a, q_b, kv_a;
    const float *q_a_norm, *kv_a_norm;
    hd_linear *k_b; // [heads] each [lora, nope]: a query's position-free part into the latent space
    hd_linear *v_b; // [heads] each [v, lora]: a mean latent into a head's value

    /* feed-forward: the dense network, or the shared experts of a MoE layer */
    hd_ffn ffn;
    hd_linear router;
    const float *router_bias; // [experts] correction of the choice, or NULL
    hd_ffn *expert;           // [experts]

    /* multi-token prediction */
    hd_linear eh_proj;
    const float *enorm, *hnorm, *head_norm;
} hd_layer;

typedef struct {
    hd_rows embed;
    const hd_tensor_info *embed_info;
    hd_linear head;
    const float *out_norm;
    const float *rope_freq; // [pairs] divisors or NULL
} hd_model_weights;

struct hd_model {
    const hd_source *src;
    hd_config cfg; // n_mtp is 0 when the file holds no MTP layer
    const hd_arch *arch;
    hd_dev dev;
    hd_model_weights w;
    hd_layer *layer; // [n_layers + n_mtp]
    int n_layer;
    hd_rope rope;
    float attn_scale;
    int max_rows;
    hd_arena weights; // panels and vectors
    hd_arena work;    // one pass
    hd_linear *heads; // storage of k_b and v_b
    hd_ffn *experts;  // storage of expert
    bool keep_pages;  // weights are read from the file's pages: nothing is released
    int embed_reads;  // rows looked up since the embedding's pages were released
    int64_t work_tok; // positions of one sequence that `work` has room for; grows when a longer one comes
    struct hd_train *train; // opened for training (model/tape.h), or NULL
    hd_ranks *ranks;        // training with experts on ranks, or NULL: all are here
};

/* What a source says of a model, before anything is allocated.  max_rows <= 0: a good number. */
hd_status hd_model_describe(hd_model *m, const hd_source *s, int max_rows, hd_err *err);
int64_t hd_model_max_k(const hd_config *c, bool back);
void hd_train_close(struct hd_train *t);

/* Work memory of one pass of `rows` rows, none beyond position max_tok. */
size_t hd_pass_bytes(const hd_config *c, int rows, int64_t max_tok, int n_threads);
hd_status hd_pass_work_open(hd_arena *work, const hd_model *m, int64_t max_tok, hd_err *err); // of m->max_rows rows, those of ranks too

/* The state of one pass. */
typedef struct {
    hd_model *m;
    hd_dev *d;
    hd_arena *work;
    const hd_batch *b;
    int M;
    int64_t D;
    const int32_t *pos; // [M]
    const int *seq_of;  // [M] index of the row's sequence
    const float *cs;    // [M, pairs, 2] rotations
    hd_attn_seq *aseq;  // [n_seqs]
    float *x;           // [M, D] residual stream
    float *y;           // [M, D] what the last block adds
    bool pending;       // y waits to be added
    float *norm;        // [threads, D] normed rows in flight
    hd_cache_type round;         // training: of keys and values before they are stored (params.h); F32: as they are
    hd_arena *kept;              // training: where what the tape notes is taken from; else NULL
    struct hd_layer_tape *tape;  // of the layer in hand, or NULL
} hd_pass;

/* Rows packed once in every kind that some product reads: files mix formats, so two weights that read the
 * same rows may want them as int8 and as bf16. */
typedef struct {
    hd_act act[HD_N_ACT];
    bool has[HD_N_ACT];
    bool fp8; // of the device
} hd_blobs;

/* w: the weights (NULL entries and empty ones are skipped) that will read rows of k numbers. */
void hd_blobs_init(hd_blobs *b, hd_pass *p, int64_t k, int M, const hd_linear *const *w, int n_w);
size_t hd_blobs_bytes(int64_t k, int M); // the most that hd_blobs_init takes
void hd_blobs_row(const hd_blobs *b, const hd_kernels *k, int64_t row, const float *x); // pack one row
void hd_blobs_pack(hd_blobs *b, hd_pass *p, const float *x, int64_t ldx);             // pack all rows
hd_mm hd_blobs_job(const hd_blobs *b, hd_pass *p, const hd_linear *w, int m0, int M, float *y, int64_t ldy);

float *hd_pass_take(hd_pass *p, int64_t n); // n floats of work memory
float *hd_pass_keep(hd_pass *p, int64_t n); // the same, kept for the way back when there is a tape

/* The parts of a pass, for those who drive one: begin and end, one layer's two blocks. */
hd_status hd_pass_begin(hd_pass *p, hd_model *m, const hd_batch *b, hd_err *err);
void hd_pass_attention(hd_pass *p, int il);
void hd_pass_ffn(hd_pass *p, int il);
void hd_pass_end(hd_pass *p);

/* x += y if something waits; h = rmsnorm(x) g, packed for w.  out: [M, D] or NULL: the normed rows as floats
 * too.  With a tape x is left as it was and the sum becomes the new p->x. */
void hd_pass_norm(hd_pass *p, const float *g, hd_blobs *out_blobs, float *out);

/* The latent norms have their own epsilon in the published models, whatever the configuration says. */
#define HD_LATENT_EPS 1e-6f

/* Each adds its result through p->y.  il: the layer's place in the cache. */
void hd_block_gqa(hd_pass *p, const hd_layer *l, int il);
void hd_block_mla(hd_pass *p, const hd_layer *l, int il);
void hd_block_ffn(hd_pass *p, const hd_layer *l);
void hd_block_moe(hd_pass *p, const hd_layer *l);
/* Work memory they take for M rows, attention's own excepted. */
size_t hd_block_gqa_bytes(const hd_config *c, int M);
size_t hd_block_mla_bytes(const hd_config *c, int M);
size_t hd_block_ffn_bytes(const hd_config *c, int M);
size_t hd_block_moe_bytes(const hd_config *c, int M);

/* Choose experts for one token (exported for its test).  logits: [E]; id, weight: [topk] by falling
 * score; scratch: [2E]. */
void hd_router_choose(const hd_config *c, const float *logits, const float *bias, int *id, float *weight,
                      float *scratch);

/* Look up one row of a matrix as floats. */
void hd_rows_decode(const hd_rows *r, int64_t row, float *y);

#endif
