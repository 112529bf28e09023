/* safetensors, single and sharded: github.com/huggingface/safetensors#format */
#ifndef HD_MODEL_SAFETENSORS_H
#define HD_MODEL_SAFETENSORS_H

#include "model/source.h"

/* Map and list the shards of s's directory: those of model.safetensors.index.json, else model.safetensors.
 * Without either: HD_FORMAT when need_weights. */
hd_status hd_safetensors_read(hd_source *s, bool need_weights, hd_err *err);
/* Map and list one file. */
hd_status hd_safetensors_read_file(hd_source *s, const char *path, hd_err *err);
/* Once the tensors are indexed: each FP8 matrix has its block scales, NAME_scale_inv, beside it
 * (arXiv:2412.19437, 3.3). */
hd_status hd_safetensors_check_fp8(const hd_source *s, hd_err *err);

#endif
