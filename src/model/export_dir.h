/* A source as a Hugging Face directory that transformers and hadal read alike: config.json,
 * generation_config.json, model.safetensors, tokenizer files.  Any format comes out as plain numbers. */
#ifndef HD_MODEL_EXPORT_DIR_H
#define HD_MODEL_EXPORT_DIR_H

#include <signal.h>

#include "model/source.h"

typedef struct {
    hd_type type; // of all weights: HD_F32, HD_BF16, HD_F16 (V3's correction biases are f32 in any case, as published)
    bool quiet;   // no progress bar
    const volatile sig_atomic_t *stop;
} hd_export_dir_opts;

typedef struct {
    int64_t n_tensors, n_weights;
    uint64_t bytes;
    double seconds;
} hd_export_dir_report;

/* dir appears when it is whole; one that is there and not empty is refused.  HD_UNSUPPORTED for what
 * config.json cannot say. */
hd_status hd_export_dir(const char *dir, const hd_source *s, const hd_export_dir_opts *o, hd_export_dir_report *r, hd_err *err);

#endif
