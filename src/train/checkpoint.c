/* Checkpoints.
 *
 *   DIR/step-00000120/config.json generation_config.json tokenizer.json ...   what
 *   transformers and hadal open
 *                     model.safetensors     the masters, f32
 *                     trainer.safetensors   the optimizer's moments (of more ranks: trainer-00001.safetensors ... too)
 *                     trainer.json          step, next index, ..., and of every other file its length and CRC-32C
 *
 * trainer.json is written last and carries a checksum of its own; the folder is written under another name,
 * synced, and renamed.  So a checkpoint is whole, or it is passed over: a kill leaves `step-*.part-PID`,
 * removed by the next write; a damaged disk or a truncated copy shows in a checksum.  A checkpoint that this
 * one replaces goes only when this one stands. */
#include "train/checkpoint.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "model/config_write.h"
#include "model/lora.h"
#include "model/safetensors_write.h"
#include "model/tokenizer_files.h"
#include "train/checkpoint_dir.h"

/* ---- trainer.json ---- */

static json_t *hex_of(const void *p, size_t n)
{
    const uint8_t *s = p;
    char *text = malloc(2 * n + 1);
    if (!text) return NULL;
    for (size_t i = 0; i < n; i++) snprintf(text + 2 * i, 3, "%02x", s[i]);
    json_t *j = json_stringn(text, 2 * n);
    free(text);
    return j;
}

static bool from_hex(void *p, size_t n, const json_t *j)
{
    const char *text = json_string_value(j);
    uint8_t *out = p;
    if (!text || strspn(text, "0123456789abcdef") != 2 * n || text[2 * n]) return false;
    for (size_t i = 0; i < n; i++) {
        unsigned v;
        sscanf(text + 2 * i, "%2x", &v);
        out[i] = (uint8_t)v;
    }
    return true;
}

/* Every regular file of the folder, as written. */
static hd_status sum_files(json_t *files, const char *dir, hd_err *err)
{
    hd_status st = HD_OK;
    char path[HD_CKPT_PATH], hex[16];
    DIR *d = opendir(dir);
    if (!d) return hd_fail_errno(err, "checkpoint: %s", dir);
    for (struct dirent *e; (e = readdir(d));) {
        uint32_t crc;
        uint64_t bytes;
        HD_TRY(hd_ckpt_path(path, dir, e->d_name, err));
        if (!hd_is_file(path)) continue;
        HD_TRY(hd_ckpt_file_crc(&crc, &bytes, path, err));
        snprintf(hex, sizeof hex, "%08x", crc);
        if (json_object_set_new(files, e->d_name, json_pack("{s:I, s:s}", "bytes", (json_int_t)bytes, "crc32c", hex)) != 0)
            HD_TRY(hd_fail(err, HD_NOMEM, "checkpoint: %s: no memory", dir));
    }
fail:
    closedir(d);
    return st;
}

static hd_status write_state(const char *dir, const hd_run_state *s, hd_err *err)
{
    hd_status st;
    uint32_t crc;
    char hex[16], next[32];
    json_t *files = json_object(), *j = NULL;
    HD_TRY(sum_files(files, dir, err));
    snprintf(next, sizeof next, "%llu", (unsigned long long)s->next_index); // all 64 bits: JSON's integers have 63
    j = json_pack("{s:i, s:I, s:I, s:s, s:f, s:o, s:O}", "format", HD_CKPT_FORMAT, "step", (json_int_t)s->step, "tokens",
                  (json_int_t)s->tokens, "next_index", next, "seconds", s->seconds, "extra", hex_of(s->extra, s->n_extra), "files",
                  files);
    if (!j) HD_TRY(hd_fail(err, HD_NOMEM, "checkpoint: trainer.json: no memory"));
    HD_TRY(hd_ckpt_json_crc(&crc, j, err));
    snprintf(hex, sizeof hex, "%08x", crc);
    if (json_object_set_new(j, "crc32c", json_string(hex)) != 0) HD_TRY(hd_fail(err, HD_NOMEM, "checkpoint: trainer.json: no memory"));
    HD_TRY(hd_json_write(dir, "trainer.json", j, err));
fail:
    json_decref(files);
    json_decref(j);
    return st;
}

/* ---- Tensors ---- */

/* A parameter's numbers as its tensor is shaped; others lie in a row. */
static hd_status announce(hd_safetensors_writer *w, const char *name, const hd_param *p, int64_t n, hd_type type, hd_err *err)
{
    int64_t dim[2] = {p->n, p->k};
    if (n != p->n * p->k) return hd_safetensors_put(w, name, type, 1, &n, err);
    return hd_safetensors_put(w, name, type, p->vector ? 1 : 2, p->vector ? &p->k : dim, err);
}

/* The weights: the parameters, or, where adapters are trained, the base's merged with them. */
static hd_param weight_at(const hd_model *m, const hd_params *p, int i, bool merged)
{
    hd_param w;
    if (!merged) return p->p[i];
    hd_lora_weight_at(m, i, &w);
    return w;
}

/* An expert of another rank to rank 0, into `room`. */
static hd_status bring(hd_comm *comm, const hd_params *p, const hd_param *q, float *room, hd_err *err)
{
    hd_status st;
    int rank = hd_comm_rank(comm);
    int64_t *n = NULL; // rows sent to each rank, received from each
    size_t ranks = (size_t)hd_comm_size(comm);
    HD_TRY(hd_alloc_n(&n, 2 * ranks, sizeof *n, err));
    if (rank == q->rank) n[0] = q->n;
    if (rank == 0) n[ranks + (size_t)q->rank] = q->n;
    HD_TRY(hd_comm_all_to_all(comm, rank == q->rank ? p->w + q->at : NULL, n, room, n + ranks, q->k, err));
fail:
    free(n);
    return st;
}

/* w NULL: nothing is written here, on another rank than the first or behind an error.  Where ranks hold
 * experts of their own, all go through all weights, whatever befalls the disk: the others would wait. */
static hd_status write_numbers(hd_safetensors_writer *w, hd_comm *comm, const hd_model *m, const hd_params *p, hd_err *err)
{
    hd_status st = HD_OK, written = HD_OK;
    float *room = NULL;
    size_t most = 0;
    int merged = hd_lora_n_weights(m), n = merged ? merged : p->n;
    for (int i = 0; i < p->n; i++)
        if (p->p[i].single && (size_t)(p->p[i].n * p->p[i].k) > most) most = (size_t)(p->p[i].n * p->p[i].k);
    if (!w && most == 0) return HD_OK;
    HD_TRY(hd_alloc_n(&room, most, sizeof *room, err));
    for (int i = 0; i < n; i++) {
        const hd_param q = weight_at(m, p, i, merged);
        bool far = q.single && q.rank > 0;
        if (far) HD_TRY(bring(comm, p, &q, room, err));
        if (!w || written != HD_OK) continue;
        const float *x = far ? room : merged ? hd_lora_weight_read(m, i) : p->w + q.at;
        written = hd_safetensors_write(w, x, (size_t)(q.n * q.k) * sizeof(float), err);
    }
    st = written;
fail:
    free(room);
    return st;
}

static hd_status begin_weights(hd_safetensors_writer **w, const char *dir, const hd_model *m, const hd_params *p, hd_err *err)
{
    hd_status st;
    char path[HD_CKPT_PATH];
    HD_TRY(hd_ckpt_path(path, dir, "model.safetensors", err));
    HD_TRY(hd_safetensors_writer_open(w, path, err));
    int merged = hd_lora_n_weights(m), n = merged ? merged : p->n;
    for (int i = 0; i < n; i++) {
        const hd_param q = weight_at(m, p, i, merged);
        HD_TRY(announce(*w, q.name, &q, q.n * q.k, HD_F32, err));
    }
    HD_TRY(hd_safetensors_begin(*w, err));
fail:
    return st;
}

static size_t size_of(hd_type t) { return t == HD_F32 ? 4 : 2; }

/* rank 0: trainer.safetensors; others: trainer-00001.safetensors, ... */
static hd_status write_moments(const char *dir, int rank, const hd_params *p, const hd_optim *o, hd_err *err)
{
    hd_status st;
    char path[HD_CKPT_PATH], name[40] = "trainer.safetensors";
    hd_safetensors_writer *w = NULL;
    hd_optim_state s;
    if (rank > 0) snprintf(name, sizeof name, "trainer-%05d.safetensors", rank);
    HD_TRY(hd_ckpt_path(path, dir, name, err));
    HD_TRY(hd_safetensors_writer_open(&w, path, err));
    for (int data = 0; data < 2; data++) {
        for (int half = 0; half < 2; half++) // f32 first: what is wider is aligned in front
            for (int i = 0; i < hd_optim_n_state(o); i++) {
                hd_optim_state_at(o, i, &s);
                if ((s.type != HD_F32) != half) continue;
                if (!data) HD_TRY(announce(w, s.name, &p->p[s.param], s.n, s.type, err));
                else HD_TRY(hd_safetensors_write(w, s.data, (size_t)s.n * size_of(s.type), err));
            }
        if (!data) HD_TRY(hd_safetensors_begin(w, err));
    }
    HD_TRY(hd_safetensors_commit(w, NULL, NULL, err));
fail:
    hd_safetensors_writer_close(w);
    return st;
}

/* ---- Writing ---- */

hd_status hd_ckpt_begin(hd_newfolder *f, const char *dir, const hd_run_state *s, hd_err *err)
{
    hd_status st;
    char path[HD_CKPT_PATH];
    if (s) HD_TRY(hd_ckpt_step_path(path, dir, s->step, err));
    else HD_TRY(hd_ckpt_path(path, dir, "", err));
    if (s) HD_TRY(hd_folder_make(dir, err));
    HD_TRY(hd_newfolder_begin(f, path, s != NULL, err));
fail:
    return st;
}

/* Rank 0's: all but the other ranks' moments.  *w is then open for the weights. */
static hd_status write_rest(hd_safetensors_writer **w, const char *tmp, const hd_model *m, const hd_params *p, const char *tokenizer,
                            hd_err *err)
{
    hd_status st;
    hd_config c = *hd_model_config(m);
    if (!strcmp(c.arch, "LlamaForCausalLM")) c.rope.pairs = false; // masters are in Hugging Face's order, whatever the source's
    HD_TRY(hd_config_write(tmp, &c, "float32", NULL, err));
    if (tokenizer && *tokenizer) HD_TRY(hd_tokenizer_copy(tmp, tokenizer, err));
    HD_TRY(begin_weights(w, tmp, m, p, err));
fail:
    return st;
}

/* What a rank brings. */
hd_status hd_ckpt_part(const char *tmp, int rank, hd_comm *comm, const hd_model *m, const hd_params *p, const hd_optim *o,
                       const char *tokenizer, hd_err *err)
{
    hd_status st, ready = HD_OK;
    hd_safetensors_writer *w = NULL;
    if (o) ready = write_moments(tmp, rank, p, o, err);
    if (rank == 0 && ready == HD_OK) ready = write_rest(&w, tmp, m, p, tokenizer, err);
    HD_TRY(write_numbers(ready == HD_OK ? w : NULL, comm, m, p, ready == HD_OK ? err : NULL));
    HD_TRY(ready);
    if (rank == 0) HD_TRY(hd_safetensors_commit(w, NULL, NULL, err));
fail:
    hd_safetensors_writer_close(w);
    return st;
}

hd_status hd_ckpt_finish(hd_newfolder *f, const char *dir, const hd_run_state *s, int keep, hd_err *err)
{
    hd_status st = HD_OK;
    if (s) HD_TRY(write_state(f->tmp, s, err));
    HD_TRY(hd_newfolder_commit(f, err));
    if (s && keep > 0) HD_TRY(hd_ckpt_rotate(dir, s->step, keep, err));
fail:
    return st;
}

hd_status hd_checkpoint_write(const char *dir, const hd_model *m, const hd_params *p, const hd_optim *o, const char *tokenizer,
                              const hd_run_state *s, int keep, hd_err *err)
{
    hd_status st;
    hd_newfolder f = {0};
    HD_TRY(hd_ckpt_begin(&f, dir, s, err));
    HD_TRY(hd_ckpt_part(f.tmp, 0, NULL, m, p, o, tokenizer, err));
    HD_TRY(hd_ckpt_finish(&f, dir, s, keep, err));
fail:
    hd_newfolder_abort(&f);
    return st;
}

/* Does everybody stand where this rank stands?  Each call is a meeting of all ranks. */
static hd_status all_well(hd_comm *comm, hd_status mine, hd_err *err)
{
    int64_t failed = mine != HD_OK;
    hd_status st = hd_comm_sum_i64(comm, &failed, 1, mine == HD_OK ? err : NULL);
    if (mine != HD_OK || st != HD_OK) return mine != HD_OK ? mine : st;
    return failed ? hd_fail(err, HD_IO, "checkpoint: not written: %lld other ranks failed", (long long)failed) : HD_OK;
}

hd_status hd_checkpoint_write_ranks(hd_comm *comm, const char *dir, const hd_model *m, const hd_params *p, const hd_optim *o,
                                    const char *tokenizer, const hd_run_state *s, int keep, hd_err *err)
{
    hd_status st;
    int rank = hd_comm_rank(comm);
    char tmp[HD_CKPT_PATH];
    int64_t pid = 0; // of rank 0: it names the folder
    hd_newfolder f = {0};
    if (rank == 0) {
        st = hd_ckpt_begin(&f, dir, s, err);
        pid = getpid();
    } else {
        st = s ? hd_ckpt_step_path(tmp, dir, s->step, err) : hd_fail(err, HD_USAGE, "checkpoint: ranks write a run's alone");
    }
    HD_TRY(all_well(comm, st, err));
    HD_TRY(hd_comm_sum_i64(comm, &pid, 1, err));
    if (rank > 0) snprintf(tmp + strlen(tmp), sizeof tmp - strlen(tmp), ".part-%lld", (long long)pid);
    HD_TRY(all_well(comm, hd_ckpt_part(rank ? tmp : f.tmp, rank, comm, m, p, o, tokenizer, err), err));
    if (rank == 0) st = hd_ckpt_finish(&f, dir, s, keep, err);
    HD_TRY(all_well(comm, st, err));
fail:
    hd_newfolder_abort(&f);
    return st;
}

/* ---- Reading ---- */

/* The file, among those that trainer.json names, that holds a tensor. */
typedef struct {
    hd_source **src;
    int n;
} parts;

static void close_parts(parts *f)
{
    for (int i = 0; i < f->n; i++) hd_source_close(f->src[i]);
    free(f->src);
}

static hd_status open_parts(parts *f, const json_t *j, const char *path, hd_err *err)
{
    hd_status st;
    char file[HD_CKPT_PATH];
    const char *name;
    json_t *v, *files = json_object_get(j, "files");
    HD_TRY(hd_alloc_n(&f->src, json_object_size(files), sizeof *f->src, err));
    json_object_foreach(files, name, v)
    {
        size_t n = strlen(name);
        if (strncmp(name, "trainer", 7) != 0 || n < 12 || strcmp(name + n - 12, ".safetensors") != 0) continue;
        HD_TRY(hd_ckpt_path(file, path, name, err));
        HD_TRY(hd_source_open_safetensors(&f->src[f->n], file, err));
        f->n++;
    }
fail:
    return st;
}

static hd_status read_moments(const json_t *j, const char *path, const hd_params *p, hd_optim *o, hd_err *err)
{
    hd_status st;
    parts f = {0};
    hd_optim_state s;
    HD_TRY(open_parts(&f, j, path, err));
    for (int i = 0; i < hd_optim_n_state(o); i++) {
        const hd_tensor_info *t = NULL;
        hd_optim_state_at(o, i, &s);
        for (int k = 0; !t && k < f.n; k++) t = hd_source_find(f.src[k], s.name);
        if (!t) HD_TRY(hd_fail(err, HD_FORMAT, "checkpoint: %s: %s is missing: was it written with another optimizer?", path, s.name));
        if (t->type != s.type || t->bytes != (size_t)s.n * size_of(s.type))
            HD_TRY(hd_fail(err, HD_FORMAT, "checkpoint: %s: %s of weight %s has %zu bytes of %s, this run keeps %zu of %s", path, s.name,
                           p->p[s.param].name, t->bytes, hd_format_get((int)t->type)->name, (size_t)s.n * size_of(s.type),
                           hd_format_get((int)s.type)->name));
        memcpy(s.data, t->data, t->bytes);
    }
fail:
    close_parts(&f);
    return st;
}

hd_status hd_checkpoint_read(const char *path, const hd_params *p, hd_optim *o, hd_run_state *s, hd_err *err)
{
    hd_status st;
    json_t *j = NULL;
    char *end;
    HD_TRY(hd_ckpt_read_json(&j, path, err));
    HD_TRY(hd_ckpt_check_files(j, path, err));
    const char *next = json_string_value(json_object_get(j, "next_index"));
    s->step = json_integer_value(json_object_get(j, "step"));
    s->tokens = json_integer_value(json_object_get(j, "tokens"));
    s->seconds = json_number_value(json_object_get(j, "seconds"));
    s->next_index = next ? strtoull(next, &end, 10) : 0;
    if (!next || end == next || *end || s->step < 0 || s->tokens < 0 || !(s->seconds >= 0))
        HD_TRY(hd_fail(err, HD_FORMAT, "checkpoint: %s: trainer.json: a number makes no sense", path));
    if (!from_hex(s->extra, s->n_extra, json_object_get(j, "extra")))
        HD_TRY(hd_fail(err, HD_FORMAT, "checkpoint: %s: trainer.json: extra state of another length than %zu bytes", path, s->n_extra));
    if (o) HD_TRY(read_moments(j, path, p, o, err));
fail:
    json_decref(j);
    return st;
}
