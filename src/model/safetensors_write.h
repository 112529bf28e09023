/* safetensors, written: names and shapes first, then the data in that order, cut as the caller likes. */
#ifndef HD_MODEL_SAFETENSORS_WRITE_H
#define HD_MODEL_SAFETENSORS_WRITE_H

#include "model/source.h"

typedef struct hd_safetensors_writer hd_safetensors_writer;

/* The file appears under its name with _commit, whole; _close before that leaves what was there. */
hd_status hd_safetensors_writer_open(hd_safetensors_writer **out, const char *path, hd_err *err);
void hd_safetensors_writer_close(hd_safetensors_writer *w); // accepts NULL
/* The next tensor: F32, F16, BF16, or whole numbers.  Wider types before narrower ones, so that
 * all are aligned. */
hd_status hd_safetensors_put(hd_safetensors_writer *w, const char *name, hd_type type, int n_dims, const int64_t *dim,
                             hd_err *err);
hd_status hd_safetensors_begin(hd_safetensors_writer *w, hd_err *err); // the header; no more tensors after it
hd_status hd_safetensors_write(hd_safetensors_writer *w, const void *p, size_t n_bytes, hd_err *err);
/* crc32c, bytes: of the whole file, or NULL.  HD_USAGE when the data written is not what was announced. */
hd_status hd_safetensors_commit(hd_safetensors_writer *w, uint32_t *crc32c, uint64_t *bytes, hd_err *err);

#endif
