/* A model of random weights: the slot table names and sizes them, the seed and each name draw them.
 *
 * Matrices are normal with one deviation (GPT-2's 0.02, or initializer_range); those whose output is added to
 * the residual stream are divided by sqrt(2 layers), so that the sum over layers starts no wider than one
 * (Radford et al. 2019, 2.3).  A tensor's numbers come from a stream of their own, made of its name: neither
 * the order of the table nor the number of layers moves them, and one model can be compared with another that
 * has a layer more. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/folder.h"
#include "base/log.h"
#include "base/rng.h"
#include "model/config_write.h"
#include "model/safetensors_write.h"
#include "model/tokenizer_files.h"
#include "train/checkpoint.h"

enum { BLOCK = 16384 };

typedef struct {
    const hd_config *c;
    hd_safetensors_writer *w;
    uint64_t seed;
    double std;
    bool data; // the second walk
    hd_err *err;
} job;

/* FNV-1a (Fowler, Noll, Vo): 64 bits of a name. */
static uint64_t hash(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 0x100000001b3u;
    return h;
}

static double deviation(const job *j, const hd_slot *s)
{
    bool adds = s->rows == HD_DIM_MODEL && s->cols != HD_DIM_2MODEL && (s->kind == HD_SLOT_MATRIX || s->kind == HD_SLOT_EXPERT);
    return adds ? j->std / sqrt(2.0 * j->c->n_layers) : j->std;
}

static hd_status one(job *j, const hd_slot *s, int layer, int expert)
{
    char name[128];
    float x[BLOCK];
    hd_status st = HD_OK;
    hd_rng r;
    bool vector = s->cols == HD_DIM_NONE;
    int64_t dim[2] = {hd_dim_size(j->c, s->rows), hd_dim_size(j->c, s->cols)};
    hd_slot_name(name, s->hf, layer, expert);
    if (!j->data) return hd_safetensors_put(j->w, name, HD_F32, vector ? 1 : 2, dim, j->err);
    hd_rng_seed(&r, j->seed, hash(name));
    float std = (float)deviation(j, s), flat = s->kind == HD_SLOT_NORM ? 1 : 0;
    for (int64_t left = dim[0] * dim[1]; left > 0;) {
        int64_t n = left < BLOCK ? left : BLOCK;
        for (int64_t i = 0; i < n; i++) x[i] = vector ? flat : std * hd_rng_normal(&r);
        HD_TRY(hd_safetensors_write(j->w, x, (size_t)n * sizeof *x, j->err));
        left -= n;
    }
fail:
    return st;
}

static hd_status walk(job *j, const hd_arch *a)
{
    hd_status st = HD_OK;
    for (int layer = -1; layer < j->c->n_layers + j->c->n_mtp; layer++)
        for (int i = 0; i < a->n_slots; i++) {
            const hd_slot *s = &a->slots[i];
            int l = layer < 0 ? 0 : layer, n = s->kind == HD_SLOT_EXPERT ? j->c->n_experts : 1;
            if (s->per_layer != (layer >= 0) || !hd_slot_exists(s, j->c, HD_SOURCE_HF, l)) continue;
            for (int x = 0; x < n; x++) HD_TRY(one(j, s, l, x));
        }
fail:
    return st;
}

static hd_status write_weights(job *j, const char *dir)
{
    hd_status st;
    char path[4200];
    const hd_arch *a;
    HD_TRY(hd_arch_find(&a, j->c, j->err));
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    HD_TRY(hd_safetensors_writer_open(&j->w, path, j->err));
    HD_TRY(walk(j, a));
    HD_TRY(hd_safetensors_begin(j->w, j->err));
    j->data = true;
    HD_TRY(walk(j, a));
    HD_TRY(hd_safetensors_commit(j->w, NULL, NULL, j->err));
fail:
    hd_safetensors_writer_close(j->w);
    return st;
}

static hd_status read_std(double *std, json_t **also, const json_t *config, hd_err *err)
{
    const json_t *range = json_object_get(config, "initializer_range");
    *std = 0.02;
    if (range && !json_is_null(range)) *std = json_is_number(range) ? json_number_value(range) : -1;
    if (!(*std > 0 && *std <= 1))
        return hd_fail(err, HD_FORMAT, "config: initializer_range: is no number above 0, at most 1");
    *also = json_pack("{s:f}", "initializer_range", *std);
    return *also ? HD_OK : hd_fail(err, HD_NOMEM, "config: no memory");
}

hd_status hd_model_init(const char *dir, const json_t *config, uint64_t seed, const char *tokenizer, hd_err *err)
{
    hd_status st;
    hd_config c;
    hd_newfolder f = {0};
    json_t *also = NULL;
    job j = {.c = &c, .seed = seed, .err = err};
    HD_TRY(hd_config_from_json(&c, config, NULL, dir, err));
    HD_TRY(read_std(&j.std, &also, config, err));
    if (tokenizer && *tokenizer) HD_TRY(hd_tokenizer_ids(&c, config, tokenizer, err));
    HD_TRY(hd_newfolder_begin(&f, dir, false, err));
    HD_TRY(write_weights(&j, f.tmp));
    if (tokenizer && *tokenizer) HD_TRY(hd_tokenizer_copy(f.tmp, tokenizer, err));
    HD_TRY(hd_config_write(f.tmp, &c, "float32", also, err));
    HD_TRY(hd_newfolder_commit(&f, err));
fail:
    hd_newfolder_abort(&f);
    json_decref(also);
    return st;
}
