/* A source seen as the GGUF file it would make: which keys, which tensors, and where each tensor's rows come
 * from.  A GGUF source passes through as it is; a Hugging Face directory is renamed, permuted, split and
 * stacked as llama.cpp expects.  Nothing here chooses formats or writes a file: quantize.c does. */
#ifndef HD_MODEL_EXPORT_H
#define HD_MODEL_EXPORT_H

#include "model/arch.h"
#include "model/gguf.h"

typedef enum {
    HD_TAKE_ROWS,   // the source's rows as they are
    HD_TAKE_ROTARY, // llama: rows of each head from halves to adjacent pairs
    HD_TAKE_K_B,    // MLA: the key part of kv_b, transposed within each head
    HD_TAKE_V_B,    // MLA: the value part of kv_b
    HD_TAKE_FREQS,  // computed: divisors of the rotary frequencies
} hd_take;

/* A weight of the source; scale: of FP8 weights, one per 128x128 block, else NULL. */
typedef struct {
    const hd_tensor_info *t, *scale;
} hd_export_src;

typedef struct {
    char name[64];
    hd_take take;
    int layer; // -1: none
    int n_dims;
    int64_t dim[HD_MAX_DIMS]; // outermost first
    const hd_export_src *src; // one, or dim[0] of them when `stacked`
    bool stacked;
    hd_type from; // format of the source
    hd_type type; // format to write; chosen by hd_quant_rules_apply
} hd_export_tensor;

typedef struct {
    const hd_source *s;
    hd_export_tensor *tensor;
    int64_t n, cap;
    hd_export_src **block; // owns the sources' descriptions
    int64_t n_blocks, cap_blocks;
} hd_export;

/* Checks every shape.  HD_UNSUPPORTED for a model that GGUF (or llama.cpp) cannot express, HD_FORMAT for a
 * missing or misshapen weight.  s is borrowed. */
hd_status hd_export_open(hd_export *e, const hd_source *s, hd_err *err);
void hd_export_close(hd_export *e);

/* Would llama.cpp open what hd_export_open made of such a model?  HD_UNSUPPORTED says why not. */
hd_status hd_export_fits_llama_cpp(const hd_config *c, const char *where, hd_err *err);

int64_t hd_export_cols(const hd_export_tensor *t); // elements of a row
int64_t hd_export_rows(const hd_export_tensor *t); // all rows; a vector is one
/* Rows come in groups of this many: a transposed head is read at once. */
int64_t hd_export_group(const hd_export_tensor *t);
/* Floats of scratch memory that hd_export_read needs. */
int64_t hd_export_scratch(const hd_export_tensor *t);
/* Rows [row0, row0+n), whole groups, decoded to y[n][cols].  Any thread; cannot fail. */
void hd_export_read(const hd_export *e, const hd_export_tensor *t, int64_t row0, int64_t n, float *y, float *scratch);
/* The bytes of rows [row0, ...) where the file's own can be copied (same format, rows as they
 * are); else NULL. */
const uint8_t *hd_export_bytes(const hd_export_tensor *t, int64_t row0);
/* The source's pages of this tensor are not needed any more. */
void hd_export_release(const hd_export *e, const hd_export_tensor *t);

/* Every key but general.file_type and general.quantization_version. */
hd_status hd_export_keys(hd_gguf_writer *w, const hd_source *s, hd_err *err);
/* The tokenizer's keys (tokenizer.ggml.*, tokenizer.chat_template) of a Hugging Face directory. */
hd_status hd_export_vocab(hd_gguf_writer *w, const hd_source *s, hd_err *err);

#endif
