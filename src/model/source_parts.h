/* What a source is made of: shared by source.c, which opens, and by the readers of each kind of file. */
#ifndef HD_MODEL_SOURCE_PARTS_H
#define HD_MODEL_SOURCE_PARTS_H

#include "model/gguf.h"
#include "model/names.h"

enum { HD_MAX_JSON_FILES = 8 };

struct hd_source {
    hd_source_kind kind;
    char *path;
    hd_config config;
    bool has_config;
    bool list_only; // a configuration that cannot be run is kept in why_not, and is no failure
    hd_err why_not;

    hd_map *map; // the shards, in order
    char **file; // their paths
    int n_maps, cap_maps;

    hd_gguf **part; // [n_maps] of a GGUF source, else NULL
    struct {
        const char *name; // a literal of source.c
        json_t *json;
    } json[HD_MAX_JSON_FILES];
    int n_json;
    char *tensor_names; // safetensors names: a list of blocks, each beginning with the address of the next

    hd_tensor_info *tensor;
    int64_t n_tensors, cap_tensors;
    hd_names names;
};

/* Map one more file; its index is s->n_maps - 1. */
hd_status hd_source_add_file(hd_source *s, const char *path, hd_err *err);
hd_status hd_source_add_tensor(hd_source *s, const hd_tensor_info *t, hd_err *err);

/* Nothing known yet: ids -1, sampling -1, everything else zero. */
void hd_config_init(hd_config *c);
/* Keep an end-of-turn id once; -1 and ids past the table are dropped. */
void hd_config_add_eos(hd_config *c, int32_t id);
/* From the keys and the tensors of an opened GGUF source. */
hd_status hd_config_from_gguf(hd_config *c, const hd_source *s, const char *where, hd_err *err);

#endif
