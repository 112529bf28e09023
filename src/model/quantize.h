/* Write a model as GGUF with its weights in other formats. */
#ifndef HD_MODEL_QUANTIZE_H
#define HD_MODEL_QUANTIZE_H

#include <signal.h>

#include "model/export.h"

/* A named mix of formats, as llama.cpp's file types: most weights in `base`, some in better ones. */
typedef struct {
    const char *name; // "q4_k_m"
    hd_type base;
    int file_type; // general.file_type
} hd_quant_mix;

const hd_quant_mix *hd_quant_mix_named(const char *name); // NULL if unknown; "q4_k" means "q4_k_m"
const hd_quant_mix *hd_quant_mix_at(int i);               // walk the table; NULL past its end

/* Mean squares of what each weight's columns are multiplied with, by GGUF name. */
typedef struct {
    char name[64];
    int64_t cols;
    const float *mean; // [experts][cols]
    int64_t experts;   // matrices of a weight with three dimensions, else 1
} hd_importance;

/* Choose every tensor's format: the mix's choice, then the first rule whose pattern is found in the name.
 * rules: "PATTERN=TYPE,PATTERN=TYPE" (POSIX extended regular expressions) or NULL.  Vectors, norms and
 * routers stay f32.  Rows that are no multiple of 256 fall back to a format with blocks of 32; n_fallback
 * counts them.  HD_USAGE for a bad rule. */
hd_status hd_quant_rules_apply(hd_export *e, const hd_quant_mix *mix, const char *rules, bool importance, int *n_fallback,
                               hd_err *err);

typedef struct {
    const hd_quant_mix *mix;
    const char *rules;               // or NULL
    const hd_importance *importance; // [n_importance] or NULL
    int n_importance;
    int n_threads;                   // <= 0: physical cores
    const volatile sig_atomic_t *stop; // non-zero: give up (HD_CANCELLED); or NULL
} hd_quantize_opts;

typedef struct {
    int64_t n_tensors, n_weights;
    int n_fallback;
    uint64_t in_bytes, out_bytes; // of weights; of the file
    int64_t tensors_of[64];       // by position in the table of formats
    double relative_rmse;         // of all weights that changed format: |new - old| / |old|
    double seconds;
} hd_quantize_report;

/* Blocks until the file stands complete under its name; otherwise an older one of that name is as it was.
 * Memory: a slice of rows.  A progress bar is drawn on a terminal.
 * HD_USAGE when path is one of the source's own files; HD_FORMAT for weights that are NaN or infinite. */
hd_status hd_quantize(const char *path, const hd_source *s, const hd_quantize_opts *o, hd_quantize_report *r, hd_err *err);

#endif
