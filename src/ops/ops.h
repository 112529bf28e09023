/* Operations on rows, spread over threads.  An op asserts its shapes and cannot fail.  Everything is f32,
 * row-major; outputs are handed out whole to one thread, so bits depend neither on threads nor on batch.
 *
 * hd_dev is the device: kernels of one level, the pool, and scratch memory planned once. */
#ifndef HD_OPS_OPS_H
#define HD_OPS_OPS_H

#include "base/arena.h"
#include "base/pool.h"
#include "kernels/kernels.h"

typedef struct hd_mm hd_mm;

typedef struct {
    const hd_kernels *k;
    hd_pool *pool;
    bool exact;       // f32 activations, weights decoded to f32, f32 sums
    bool fp8;         // training: what enters a product of bf16 panels is rounded to E4M3 first (ops/fp8.h)
    bool wide;        // training: rows for bf16 panels are packed as HD_ACT_WIDE (the level has wide_mul)
    uint8_t *scratch; // threads x scratch_bytes
    size_t scratch_bytes;
    /* Told of all products before they run, or NULL: how activations are measured. */
    void (*watch)(void *arg, const hd_mm *jobs, int n_jobs);
    void *watch_arg;
} hd_dev;

/* max_k: the widest inner dimension of any product.  level NULL: the best. */
hd_status hd_dev_open(hd_dev *d, int n_threads, bool exact, int64_t max_k, hd_err *err);
void hd_dev_close(hd_dev *d);

/* A weight matrix [n, k] ready to multiply: packed panels, or the file's own rows (no-pack; same bits). */
typedef struct hd_linear {
    hd_rows src;                // the file's rows: always valid as a description; data may be released after packing
    const hd_panel_kind *kind;
    uint8_t *panels;            // NULL: each panel is packed just in time
    const float *bias;          // [n] or NULL, added to the product
    struct hd_linear *back;     // training: the transposed panels, [k, n]; else NULL
} hd_linear;

size_t hd_linear_packed_bytes(const hd_rows *src); // at most; 0 for formats that stay as rows
/* Describe src; nothing is allocated. */
void hd_linear_init(hd_linear *w, const hd_rows *src);
/* Pack into dst (hd_linear_packed_bytes, 64-byte aligned); how many of them it took: fewer where bf16 fits
 * bf12.  Threaded. */
size_t hd_linear_pack(hd_dev *d, hd_linear *w, uint8_t *dst);

/* A thread's room for 3 rows of max_k numbers, between products. */
static inline float *hd_dev_row(const hd_dev *d, int tid) { return (float *)(void *)(d->scratch + (size_t)tid * d->scratch_bytes); }

/* Blobs of M rows, all of one kind. */
typedef struct {
    hd_act_kind kind;
    int64_t k;
    int M;
    size_t stride;
    uint8_t *data; // from the caller's arena: M * hd_act_bytes(kind, k)
} hd_act;

/* The kind that w reads on this device (HD_ACT_F32 when exact). */
hd_act_kind hd_linear_act(const hd_dev *d, const hd_linear *w);
void hd_act_init(hd_act *a, hd_act_kind kind, int64_t k, int M, hd_arena *work);
/* Row m, of x[k]; fp8: the device's. */
void hd_act_pack_row(const hd_act *a, const hd_kernels *k, bool fp8, int64_t m, const float *x);
/* One term of a sum of products: W x, x [M, k] with rows ldx floats apart. */
typedef struct {
    const hd_linear *w;
    const float *x;
    int64_t ldx;
} hd_term;

/* All rows.  x: [M, k], ldx floats apart. */
void hd_act_pack(hd_dev *d, hd_act *a, const float *x, int64_t ldx);

/* y[m, :] = W x[m] + bias   for rows [m0, m0+M) of act */
struct hd_mm {
    const hd_linear *w;
    const hd_act *act;
    int m0, M;
    float *y; // [M, n], ldy floats apart
    int64_t ldy;
    float *const *rows; // [M] instead of y: where each row of it lies, of a job by itself
    bool add;   // to what y holds
    int n_more; // so many jobs behind this one are further terms of its sums, with the same n and M: y, ldy and add stand here
};

/* The x of n terms, all of M rows, in one parallel region; a[i] is of term i. */
void hd_acts_pack(hd_dev *d, hd_act *a, const hd_term *t, int n);

/* All jobs in one parallel region: q, k, v of a layer, gate and up, or the experts of a MoE layer. */
void hd_mm_run(hd_dev *d, const hd_mm *jobs, int n_jobs);
/* The common case: y[M, n] = W x + bias; packs x into `work` (reset to its mark on return). */
void hd_linear_mul(hd_dev *d, const hd_linear *w, const float *x, int64_t ldx, int M, float *y,
                   int64_t ldy, hd_arena *work);
/* y[M, n] = sum of up to HD_MAX_TERMS terms' W x + bias, or is added to. */
enum { HD_MAX_TERMS = 4 };
void hd_linear_sum(hd_dev *d, const hd_term *t, int n, int M, float *y, int64_t ldy, bool add, hd_arena *work);

/* fn for rows 0..M-1, in chunks; for norms, rotations, activations. */
typedef void hd_row_fn(void *arg, int64_t row, int tid);
void hd_rows_run(hd_dev *d, int64_t M, hd_row_fn *fn, void *arg);

#endif
