/* GGUF v2 and v3: read (bounds-checked, mapped) and write.  Format:
 * github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#ifndef HD_MODEL_GGUF_H
#define HD_MODEL_GGUF_H

#include "model/source.h"

typedef enum {
    HD_GGUF_U8, HD_GGUF_I8, HD_GGUF_U16, HD_GGUF_I16, HD_GGUF_U32, HD_GGUF_I32, HD_GGUF_F32, HD_GGUF_BOOL,
    HD_GGUF_STR, HD_GGUF_ARR, HD_GGUF_U64, HD_GGUF_I64, HD_GGUF_F64,
} hd_gguf_type;

typedef struct {
    const char *p; // into the file, not NUL-terminated
    uint64_t n;
} hd_gguf_str;

typedef struct {
    hd_gguf_str key;
    hd_gguf_type type, elem; // elem: of an array
    uint64_t n;              // elements of an array, else 1
    const uint8_t *data;     // first byte of the value (of the first element)
    size_t bytes;            // all of it, checked against the file
} hd_gguf_kv;

/* ---- Reading ---- */

/* Parse one mapped file.  The map is borrowed and must outlive *out; where names it in messages.  Every key,
 * tensor and byte range is checked; tensor i's data lies inside the map.  HD_FORMAT for what breaks the
 * format, HD_UNSUPPORTED for other versions, byte orders and tensor types, HD_LIMIT past a cap. */
hd_status hd_gguf_open(hd_gguf **out, const hd_map *map, const char *where, hd_err *err);
void hd_gguf_close(hd_gguf *g);
int64_t hd_gguf_n_tensors(const hd_gguf *g);
const hd_tensor_info *hd_gguf_tensor(const hd_gguf *g, int64_t i); // in the file's order

int64_t hd_gguf_n_kv(const hd_gguf *g);
const hd_gguf_kv *hd_gguf_kv_at(const hd_gguf *g, int64_t i);
const hd_gguf_kv *hd_gguf_find(const hd_gguf *g, const char *key); // NULL if absent

/* Scalars of any integer (or float) type, converted; false when absent, of another kind, or out of range. */
bool hd_gguf_i64(const hd_gguf *g, const char *key, int64_t *v);
bool hd_gguf_f64(const hd_gguf *g, const char *key, double *v);
bool hd_gguf_bool(const hd_gguf *g, const char *key, bool *v);
bool hd_gguf_string(const hd_gguf *g, const char *key, hd_gguf_str *v);
/* Walk an array of strings: *pos starts at 0 and advances; false at the end. */
bool hd_gguf_arr_str(const hd_gguf_kv *kv, size_t *pos, hd_gguf_str *v);
/* Element i of an array of numbers. */
bool hd_gguf_arr_f64(const hd_gguf_kv *kv, uint64_t i, double *v);
bool hd_gguf_arr_i64(const hd_gguf_kv *kv, uint64_t i, int64_t *v);

/* ---- Writing: collect keys, declare tensors, begin the file, append data in the declared order, commit. - */
typedef struct hd_gguf_writer hd_gguf_writer;
hd_status hd_gguf_writer_open(hd_gguf_writer **out, const char *path, hd_err *err);
void hd_gguf_writer_close(hd_gguf_writer *w); // without commit the target file is as it was
hd_status hd_gguf_put_kv(hd_gguf_writer *w, const hd_gguf_kv *kv, hd_err *err); // copy one from another file
hd_status hd_gguf_put_u32(hd_gguf_writer *w, const char *key, uint32_t v, hd_err *err);
hd_status hd_gguf_put_f32(hd_gguf_writer *w, const char *key, float v, hd_err *err);
hd_status hd_gguf_put_bool(hd_gguf_writer *w, const char *key, bool v, hd_err *err);
hd_status hd_gguf_put_str(hd_gguf_writer *w, const char *key, const char *v, size_t n, hd_err *err);
hd_status hd_gguf_put_arr(hd_gguf_writer *w, const char *key, hd_gguf_type elem, const void *data, uint64_t n,
                          hd_err *err); // numbers
hd_status hd_gguf_put_arr_str(hd_gguf_writer *w, const char *key, const hd_gguf_str *v, uint64_t n, hd_err *err);
/* dim: outermost first, as everywhere here */
hd_status hd_gguf_put_tensor(hd_gguf_writer *w, const char *name, hd_type type, int n_dims, const int64_t *dim,
                             hd_err *err);
hd_status hd_gguf_begin_data(hd_gguf_writer *w, hd_err *err);
/* Bytes of the next tensor, in any number of calls; padding is added when it is complete. */
hd_status hd_gguf_write(hd_gguf_writer *w, const void *p, size_t n, hd_err *err);
hd_status hd_gguf_commit(hd_gguf_writer *w, hd_err *err);

#endif
