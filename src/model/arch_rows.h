/* How the rows of an architecture's table are written: macros that keep one weight on one line.  Included
 * by arch_*.c only.
 *
 *     MATRIX(field of hd_layer, Hugging Face name, GGUF name, rows, columns, exists if, facts)
 *
 * The names lack what all weights of a layer share: `model.layers.N.` and `blk.N.`. */
#ifndef HD_MODEL_ARCH_ROWS_H
#define HD_MODEL_ARCH_ROWS_H

#include "model/block.h"

#define HD_ROW(f, hf, gg, each, r, c, kind, when, flags)                                                      \
    {f, true, "model.layers.%d." hf, "blk.%d." gg, each, HD_DIM_##r, HD_DIM_##c, kind, when, flags}
#define MATRIX(f, hf, gg, r, c, when, flags)                                                                  \
    HD_ROW(offsetof(hd_layer, f), hf, gg, NULL, r, c, HD_SLOT_MATRIX, when, flags)
#define ROUTER(f, hf, gg, r, c, when) HD_ROW(offsetof(hd_layer, f), hf, gg, NULL, r, c, HD_SLOT_ROUTER, when, 0)
#define KV_B(f, hf, gg, r, c) HD_ROW(offsetof(hd_layer, f), hf, gg, NULL, r, c, HD_SLOT_KV_B, 0, HD_SLOT_PRESENCE)
#define NORM(f, hf, gg, n, when, flags)                                                                       \
    HD_ROW(offsetof(hd_layer, f), hf, gg, NULL, n, NONE, HD_SLOT_NORM, when, flags)
/* No key of GGUF tells whether a bias exists: the tensor's presence does. */
#define BIAS(f, hf, gg, n, when, flags)                                                                       \
    HD_ROW(offsetof(hd_layer, f), hf, gg, NULL, n, NONE, HD_SLOT_BIAS, when, HD_SLOT_PRESENCE | (flags))
/* f: a field of hd_ffn.  each: the name in old GGUF files with one tensor an expert. */
#define EXPERT(f, hf, gg, each, r, c)                                                                         \
    HD_ROW(offsetof(hd_ffn, f), hf, gg, "blk.%d." each, r, c, HD_SLOT_EXPERT, HD_IF_MOE, 0)
/* In GGUF alone, beside the form that both have. */
#define SPLIT(f, gg, r, c, kind)                                                                              \
    {offsetof(hd_layer, f), true, NULL, "blk.%d." gg, NULL, HD_DIM_##r, HD_DIM_##c, kind, HD_IF_GGUF, HD_SLOT_PRESENCE}

/* The head stands first: loaded first, its source and its panels never add to all the rest. */
#define HD_MODEL_ROWS                                                                                         \
    {offsetof(hd_model_weights, head), false, "lm_head.weight", "output.weight", NULL, HD_DIM_VOCAB,          \
     HD_DIM_MODEL, HD_SLOT_HEAD, HD_IF_UNTIED, HD_SLOT_PRESENCE},                                             \
    {offsetof(hd_model_weights, embed), false, "model.embed_tokens.weight", "token_embd.weight", NULL,        \
     HD_DIM_VOCAB, HD_DIM_MODEL, HD_SLOT_EMBED, 0, 0},                                                        \
    {offsetof(hd_model_weights, out_norm), false, "model.norm.weight", "output_norm.weight", NULL,            \
     HD_DIM_MODEL, HD_DIM_NONE, HD_SLOT_NORM, 0, 0},                                                          \
    {offsetof(hd_model_weights, rope_freq), false, NULL, "rope_freqs.weight", NULL, HD_DIM_HALF_HEAD,         \
     HD_DIM_NONE, HD_SLOT_ROPE_FREQ, HD_IF_GGUF, HD_SLOT_OPTIONAL}

#endif
