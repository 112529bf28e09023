/* A model in memory: configuration, weights by layer, and what one pass needs.  Loading follows the
 * architecture's slot
 * table: one row per weight, which gives its names in both kinds of file, its shape and its place. */
#ifndef HD_MODEL_MODEL_H
#define HD_MODEL_MODEL_H

#include "model/cache.h"
#include "model/source.h"
#include "ops/ops.h"

typedef struct {
    int n_threads;  // <= 0: physical cores available
    bool exact;     // f32 throughout
    int pack;       // 1 pack, 0 the file's own pages, -1: by the memory plan
    bool quiet;     // no progress bar
    int max_rows;   // rows of one pass; <= 0: a good number for the model's size
} hd_model_opts;

typedef struct hd_model hd_model;

/* The source stays open (and borrowed) as long as the model. */
hd_status hd_model_open(hd_model **out, const hd_source *s, const hd_model_opts *o, hd_err *err);
void hd_model_close(hd_model *m);
const hd_config *hd_model_config(const hd_model *m);
/* The panels' bytes by what their formats say: below 1 where bf16 lies in 12 bits (kernels/panel_bf12.c). */
double hd_model_packed_share(const hd_model *m);
hd_dev *hd_model_dev(hd_model *m);

/* What loading would take, before anything is loaded. */
typedef struct {
    uint64_t file_bytes;          // weights as stored
    uint64_t packed_bytes;        // weights in panels
    uint64_t work_bytes;          // activations of one slice
    uint64_t cache_bytes_per_tok;
    uint64_t available_bytes;     // memory this process may use (MemAvailable, cgroup limit)
    bool fits_packed, fits_unpacked;
} hd_plan;
hd_status hd_model_plan(hd_plan *p, const hd_source *s, hd_cache_type type, hd_err *err);

/* One ragged batch: rows of any number of sequences, each sequence's rows consecutive and its positions
 * rising by one from hd_seq_len. */
typedef struct {
    int n_rows;
    const int32_t *tok;  // [n_rows]
    const bool *want;    // [n_rows] logits wanted, or NULL: every sequence's last row
    int n_seqs;
    const int32_t *n_of; // [n_seqs] rows of each
    hd_seq *const *seq;  // [n_seqs]
    float *const *logits; // [number of wanted rows] where each one's go, or NULL: into hd_forward's own array
} hd_batch;

/* Run the batch: stores keys and values, advances the sequences.
 * logits: [number of wanted rows, n_vocab] in order of rows; NULL: none, or where the batch says.
 * hidden: [n_rows, d_model], the states after the final norm (what MTP reads), or NULL. */
hd_status hd_forward(hd_model *m, const hd_batch *b, float *logits, float *hidden, hd_err *err);

/* The MTP layer (arXiv:2412.19437, eq. 21-23): row i joins the embedding of b->tok[i] (the token *after* the
 * one that produced the state) with hidden_in[i], and predicts the token after it.  Its keys live in the
 * cache's extra layer at the sequence's positions; sequences are separate ones kept for drafting.
 * hidden_in: [n_rows, d_model].  hidden_out: after shared_head.norm, what a further step reads. */
hd_status hd_forward_mtp(hd_model *m, const hd_batch *b, const float *hidden_in, float *logits, float *hidden_out,
                         hd_err *err);

int hd_model_max_rows(const hd_model *m); // rows of one pass at most: longer prompts go in slices

#endif
