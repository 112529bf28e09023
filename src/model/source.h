/* A model on disk, whatever its form: a Hugging Face directory (config.json, *.safetensors, tokenizer.json)
 * or GGUF (one file, or -00001-of-000NN).  Opens, checks and lists; reads no weight.  All memory is mapped;
 * tensors point into it. */
#ifndef HD_MODEL_SOURCE_H
#define HD_MODEL_SOURCE_H

#include "base/file.h"
#include "kernels/format.h"
#include "model/config.h"

enum { HD_MAX_DIMS = 4 };

typedef struct {
    const char *name;         // as in the file
    hd_type type;
    int n_dims;
    int64_t dim[HD_MAX_DIMS]; // outermost first: a matrix is [rows, columns]
    const uint8_t *data;      // mapped, data .. data+bytes checked against the file
    size_t bytes;
    int file;                 // index of the shard
} hd_tensor_info;

typedef enum { HD_SOURCE_HF, HD_SOURCE_GGUF } hd_source_kind;

typedef struct hd_source hd_source;
typedef struct hd_gguf hd_gguf; // model/gguf.h

/* need_weights false: a folder or GGUF that holds only a tokenizer (or a config) is enough. */
hd_status hd_source_open(hd_source **out, const char *path, bool need_weights, hd_err *err);
/* To list what is there: a model of an architecture or with a configuration that cannot be run opens too, and
 * hd_source_why_not says why it cannot (NULL: it can).  No weights are needed. */
hd_status hd_source_open_list(hd_source **out, const char *path, hd_err *err);
const char *hd_source_why_not(const hd_source *s);
/* One safetensors file by itself: tensors, no configuration. */
hd_status hd_source_open_safetensors(hd_source **out, const char *path, hd_err *err);
void hd_source_close(hd_source *s);

hd_source_kind hd_source_get_kind(const hd_source *s);
const char *hd_source_path(const hd_source *s);
/* NULL when the source holds no model configuration (tokenizer only). */
const hd_config *hd_source_config(const hd_source *s);
const hd_gguf *hd_source_gguf(const hd_source *s);  // the first part; NULL for a directory
int hd_source_n_files(const hd_source *s);          // that hold tensors
const char *hd_source_file(const hd_source *s, int i, uint64_t *bytes);
/* Parsed JSON files of a directory by name ("tokenizer.json", "tokenizer_config.json"); NULL
 * when absent or GGUF. */
const json_t *hd_source_json(const hd_source *s, const char *file);

int64_t hd_source_n_tensors(const hd_source *s);
const hd_tensor_info *hd_source_tensor(const hd_source *s, int64_t i);
const hd_tensor_info *hd_source_find(const hd_source *s, const char *name); // hashed; NULL if absent
uint64_t hd_source_weight_bytes(const hd_source *s);
/* The tensor's pages will not be read again: drop them from memory (whole pages inside it). */
void hd_source_release(const hd_source *s, const hd_tensor_info *t);
void hd_source_release_all(const hd_source *s); // the same for all of it, names and keys too

#endif
