/* The conversion itself: tensor by tensor, in slices of rows.  A slice is cut into chunks that the threads
 * take; a chunk is decoded, encoded, and decoded again to learn the error.  Slices are written in order, so
 * memory is one slice whatever the model's size, and the file is the same for any number of threads. */
#include "model/quantize.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/log.h"
#include "base/pool.h"
#include "model/source_parts.h"

static const int64_t SLICE_FLOATS = (int64_t)4 << 20, CHUNK_FLOATS = (int64_t)64 << 10;

/* One slice at work: rows [row0, row0+rows) of t into out. */
typedef struct {
    const hd_export *e;
    const hd_export_tensor *t;
    const hd_format *f;
    const float *importance; // [cols] of each stacked matrix, or NULL
    int64_t row0, rows, chunk_rows, cols;
    size_t row_bytes;
    uint8_t *out;
    float *scratch;          // threads x scratch_floats
    int64_t scratch_floats;
    double *error, *size;    // [chunks] sums of squares
    atomic_llong bad_row;    // a row that holds NaN or infinity, or -1
} slice;

static void run_chunk(void *arg, int64_t chunk, int tid)
{
    slice *s = arg;
    int64_t r0 = chunk * s->chunk_rows, n = s->rows - r0 < s->chunk_rows ? s->rows - r0 : s->chunk_rows;
    float *x = s->scratch + tid * s->scratch_floats, *y = x + s->chunk_rows * s->cols, *tmp = y + s->cols;
    double error = 0, size = 0;
    hd_export_read(s->e, s->t, s->row0 + r0, n, x, tmp);
    for (int64_t r = 0; r < n; r++, x += s->cols) {
        uint8_t *q = s->out + (size_t)(r0 + r) * s->row_bytes;
        const float *importance = s->importance;
        if (importance && s->t->n_dims == 3) importance += (s->row0 + r0 + r) / s->t->dim[1] * s->cols;
        s->f->quant(q, x, s->cols, importance);
        s->f->dequant(y, q, s->cols);
        bool finite = true;
        for (int64_t i = 0; i < s->cols; i++) {
            double d = (double)y[i] - x[i];
            finite &= isfinite(x[i]) && isfinite(y[i]);
            error += d * d;
            size += (double)x[i] * x[i];
        }
        if (!finite) atomic_store(&s->bad_row, s->row0 + r0 + r);
    }
    s->error[chunk] = error;
    s->size[chunk] = size;
}

/* ---- Where the file may go ---- */

/* Refuse a target that is one of the source's files: they are mapped, and the model would be lost if
 * it came out wrong. */
static hd_status check_target(const char *path, const hd_source *s, hd_err *err)
{
    struct stat out, in;
    if (stat(path, &out) != 0) return HD_OK;
    bool same = stat(hd_source_path(s), &in) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino;
    for (int i = 0; !same && i < s->n_maps; i++)
        same = stat(s->file[i], &in) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino;
    if (same) return hd_fail(err, HD_USAGE, "quantize: %s: is the model that is read; give another name", path);
    return HD_OK;
}

static hd_status check_space(const char *path, uint64_t need, hd_err *err)
{
    struct statvfs v;
    char dir[4096];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 0;
    if (n >= sizeof dir) return HD_OK; // creating the file will complain
    memcpy(dir, path, n);
    strcpy(dir + n, ".");
    if (statvfs(dir, &v) != 0) return HD_OK;
    uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
    if (room < need)
        return hd_fail(err, HD_IO, "quantize: %s: needs %.2f GB, the disk has %.2f GB left", path, (double)need / 1e9,
                       (double)room / 1e9);
    return HD_OK;
}

/* ---- Tensors ---- */

static size_t tensor_bytes(const hd_export_tensor *t)
{
    const hd_format *f = hd_format_get((int)t->type);
    size_t bytes = 0;
    hd_format_row_bytes(f, hd_export_cols(t), &bytes);
    return bytes * (size_t)hd_export_rows(t); // fits: the source's own size was checked, and the writer checks this one
}

static hd_status find_importance(const float **out, const hd_quantize_opts *o, const hd_export_tensor *t, hd_err *err)
{
    *out = NULL;
    for (int i = 0; i < o->n_importance; i++) {
        const hd_importance *m = &o->importance[i];
        if (strcmp(m->name, t->name) != 0) continue;
        if (m->cols != hd_export_cols(t) || m->experts != (t->n_dims == 3 ? t->dim[0] : 1))
            return hd_fail(err, HD_USAGE, "quantize: the importance of %s has another shape than the weight", t->name);
        *out = m->mean;
    }
    return HD_OK;
}

static hd_status copy_tensor(hd_gguf_writer *w, const hd_export_tensor *t, size_t row_bytes, hd_err *err)
{
    hd_status st = HD_OK;
    int64_t rows = hd_export_rows(t), step = t->stacked ? t->dim[1] : rows;
    for (int64_t r = 0; r < rows; r += step)
        HD_TRY(hd_gguf_write(w, hd_export_bytes(t, r), (size_t)step * row_bytes, err));
fail:
    return st;
}

typedef struct {
    const hd_export *e;
    const hd_quantize_opts *o;
    hd_gguf_writer *w;
    hd_pool *pool;
    hd_progress bar;
    double error, size;
} job;

static int64_t at_least_1(int64_t n) { return n > 0 ? n : 1; }

static hd_status convert_tensor(job *j, const hd_export_tensor *t, hd_err *err)
{
    hd_status st;
    int64_t rows = hd_export_rows(t), group = hd_export_group(t), chunks_max;
    slice s = {.e = j->e, .t = t, .f = hd_format_get((int)t->type), .cols = hd_export_cols(t)};
    uint64_t per_row = 0;
    hd_format_row_bytes(s.f, s.cols, &s.row_bytes);
    if (t->src) per_row = t->src[0].t->bytes / (uint64_t)(t->stacked ? t->dim[1] : rows);
    atomic_init(&s.bad_row, -1);

    HD_TRY(find_importance(&s.importance, j->o, t, err));
    s.chunk_rows = at_least_1(CHUNK_FLOATS / s.cols / group) * group;
    if (s.chunk_rows > rows) s.chunk_rows = rows;
    chunks_max = at_least_1(SLICE_FLOATS / (s.chunk_rows * s.cols));
    if (chunks_max > (rows + s.chunk_rows - 1) / s.chunk_rows) chunks_max = (rows + s.chunk_rows - 1) / s.chunk_rows;
    s.scratch_floats = (s.chunk_rows + 1) * s.cols + hd_export_scratch(t);
    HD_TRY(hd_alloc_n(&s.out, (size_t)(chunks_max * s.chunk_rows), s.row_bytes, err));
    HD_TRY(hd_alloc_n(&s.scratch, (size_t)hd_pool_threads(j->pool) * (size_t)s.scratch_floats, sizeof(float), err));
    HD_TRY(hd_alloc_n(&s.error, 2 * (size_t)chunks_max, sizeof(double), err));
    s.size = s.error + chunks_max;

    for (; s.row0 < rows; s.row0 += s.rows) {
        s.rows = chunks_max * s.chunk_rows < rows - s.row0 ? chunks_max * s.chunk_rows : rows - s.row0;
        int64_t chunks = (s.rows + s.chunk_rows - 1) / s.chunk_rows;
        hd_pool_run(j->pool, chunks, run_chunk, &s);
        if (atomic_load(&s.bad_row) >= 0) {
            st = hd_fail(err, HD_FORMAT, "quantize: weight %s: row %lld holds a number that is not finite or too large for %s",
                         t->name, (long long)atomic_load(&s.bad_row), s.f->name);
            goto fail;
        }
        for (int64_t i = 0; i < chunks; i++) {
            j->error += s.error[i];
            j->size += s.size[i];
        }
        HD_TRY(hd_gguf_write(j->w, s.out, (size_t)s.rows * s.row_bytes, err));
        hd_progress_add(&j->bar, per_row * (uint64_t)s.rows);
        if (j->o->stop && *j->o->stop) {
            st = hd_fail(err, HD_CANCELLED, "quantize: interrupted; nothing was written");
            goto fail;
        }
    }
fail:
    free(s.error);
    free(s.scratch);
    free(s.out);
    return st;
}

static hd_status put_head(hd_gguf_writer *w, const hd_export *e, const hd_quant_mix *mix, hd_err *err)
{
    hd_status st;
    HD_TRY(hd_export_keys(w, e->s, err));
    HD_TRY(hd_gguf_put_u32(w, "general.file_type", (uint32_t)mix->file_type, err));
    HD_TRY(hd_gguf_put_u32(w, "general.quantization_version", 2, err));
    for (int64_t i = 0; i < e->n; i++)
        HD_TRY(hd_gguf_put_tensor(w, e->tensor[i].name, e->tensor[i].type, e->tensor[i].n_dims, e->tensor[i].dim, err));
fail:
    return st;
}

/* Formats that can only be passed on are known before a byte is written. */
static hd_status check_decoders(const hd_export *e, hd_err *err)
{
    for (int64_t i = 0; i < e->n; i++) {
        const hd_export_tensor *t = &e->tensor[i];
        if (!t->src || t->from == t->type) continue;
        const hd_format *f = hd_format_get((int)t->from);
        if (!f->dequant)
            return hd_fail(err, HD_UNSUPPORTED, "quantize: weight %s: format %s cannot be decoded", t->name, f->name);
    }
    return HD_OK;
}

static void count(hd_quantize_report *r, const hd_export_tensor *t)
{
    const hd_format *f = hd_format_get((int)t->type);
    for (int i = 0; i < 64 && hd_format_at(i); i++) r->tensors_of[i] += hd_format_at(i) == f;
    r->n_tensors++;
    r->n_weights += hd_export_rows(t) * hd_export_cols(t);
    r->out_bytes += tensor_bytes(t);
}

hd_status hd_quantize(const char *path, const hd_source *s, const hd_quantize_opts *o, hd_quantize_report *r, hd_err *err)
{
    hd_status st;
    hd_export e = {0};
    job j = {.e = &e, .o = o};
    double t0 = hd_now_s();
    *r = (hd_quantize_report){.in_bytes = hd_source_weight_bytes(s)};
    HD_TRY(check_target(path, s, err));
    HD_TRY(hd_export_open(&e, s, err));
    HD_TRY(hd_quant_rules_apply(&e, o->mix, o->rules, o->n_importance > 0, &r->n_fallback, err));
    HD_TRY(check_decoders(&e, err));
    for (int64_t i = 0; i < e.n; i++) count(r, &e.tensor[i]);
    HD_TRY(check_space(path, r->out_bytes, err));
    HD_TRY(hd_pool_open(&j.pool, o->n_threads, err));
    HD_TRY(hd_gguf_writer_open(&j.w, path, err));
    HD_TRY(put_head(j.w, &e, o->mix, err));
    HD_TRY(hd_gguf_begin_data(j.w, err));

    hd_progress_begin(&j.bar, "quantizing", r->in_bytes, "B");
    for (int64_t i = 0; i < e.n && st == HD_OK; i++) {
        const hd_export_tensor *t = &e.tensor[i];
        if (hd_export_bytes(t, 0)) {
            size_t row = 0;
            hd_format_row_bytes(hd_format_get((int)t->type), hd_export_cols(t), &row);
            st = copy_tensor(j.w, t, row, err);
            hd_progress_add(&j.bar, tensor_bytes(t));
        } else {
            st = convert_tensor(&j, t, err);
        }
        hd_export_release(&e, t);
        if (st == HD_OK && o->stop && *o->stop) st = hd_fail(err, HD_CANCELLED, "quantize: interrupted; nothing was written");
    }
    hd_progress_end(&j.bar);
    HD_TRY(st);
    HD_TRY(hd_gguf_commit(j.w, err));
    struct stat done;
    if (stat(path, &done) == 0) r->out_bytes = (uint64_t)done.st_size;
    r->relative_rmse = j.size > 0 ? sqrt(j.error / j.size) : 0;
    r->seconds = hd_now_s() - t0;
fail:
    hd_gguf_writer_close(j.w);
    hd_pool_close(j.pool);
    hd_export_close(&e);
    return st;
}
