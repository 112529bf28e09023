/* A teacher's probabilities on disk.
 *
 *   head      64 bytes, the last four of them CRC-32C of those before
 *   records   number u64, print of its rows u32, CRC-32C u32 of both and of what follows;
 *             ids i32 [rows, n_top], log-probabilities f32 [rows, n_top]
 *
 * Numbers are little-endian.  The size follows from the head and is compared with the file's before anything
 * is read.  A file that is being made is its own journal: what a run that was broken off left is read to the
 * last whole record. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/file.h"
#include "train/teacher.h"

typedef struct {
    char magic[8];
    int64_t n_records, n_vocab;
    int32_t rows, n_top;
    uint32_t teacher, data;
    uint8_t zero[20];
    uint32_t crc;
} head;
_Static_assert(sizeof(head) == 64, "no holes");

typedef struct {
    uint64_t index;
    uint32_t print, crc;
} record;
_Static_assert(sizeof(record) == 16, "no holes");

static const char MAGIC[8] = {'H', 'D', 'T', 'E', 'A', 'C', 'H', 1};

struct hd_teacher_writer {
    hd_newfile file;
    hd_teacher_meta m;
    char *path;
    int64_t n;
    size_t list_bytes;
};

struct hd_teacher_file {
    hd_map map;
    hd_teacher_meta m;
    char *path;
    size_t list_bytes; // of ids, and of log-probabilities
};

static uint32_t head_crc(const head *h) { return hd_crc32c(0, h, sizeof *h - sizeof h->crc); }

static uint32_t record_crc(const record *r, const void *id, const void *logp, size_t list_bytes)
{
    uint32_t crc = hd_crc32c(0, r, offsetof(record, crc));
    return hd_crc32c(hd_crc32c(crc, id, list_bytes), logp, list_bytes);
}

/* The record at p, its lists copied out; false: it is not number `index`, or damaged. */
static bool take_record(record *r, int32_t *id, float *logp, const uint8_t *p, size_t list_bytes, int64_t index)
{
    memcpy(r, p, sizeof *r);
    memcpy(id, p + sizeof *r, list_bytes);
    memcpy(logp, p + sizeof *r + list_bytes, list_bytes);
    return r->index == (uint64_t)index && r->crc == record_crc(r, id, logp, list_bytes);
}

/* Bytes of a record's list and of the file; false: not a size that can be. */
static bool sizes(const hd_teacher_meta *m, size_t *list_bytes, size_t *file_bytes)
{
    size_t n;
    if (m->n_records < 0 || m->n_vocab < 1 || m->n_vocab > INT32_MAX || m->rows < 1 || m->n_top < 1 ||
        m->n_top > HD_TEACHER_MAX_TOP)
        return false;
    return hd_mul(list_bytes, (size_t)m->rows, (size_t)m->n_top * 4) && hd_mul(&n, *list_bytes, 2) &&
           hd_add(&n, n, sizeof(record)) && hd_mul(&n, n, (size_t)m->n_records) &&
           hd_add(file_bytes, n, sizeof(head));
}

/* What is wrong with a record's lists; NULL: nothing. */
static const char *fault(const hd_teacher_meta *m, const int32_t *id, const float *logp, int *row)
{
    for (*row = 0; *row < m->rows; ++*row, id += m->n_top, logp += m->n_top) {
        for (int k = 0; k < m->n_top && id[k] != -1; k++) {
            if (id[k] < 0 || id[k] >= m->n_vocab) return "an id outside the vocabulary";
            if (!isfinite(logp[k])) return "a log-probability that is no finite number";
            if (logp[k] > 1e-3f) return "a log-probability above 0";
            if (k && logp[k] > logp[k - 1]) return "log-probabilities that do not fall";
            if (k && id[k] == id[k - 1]) return "an id twice";
        }
        bool ended = false;
        for (int k = 0; k < m->n_top; k++) {
            if (ended && id[k] != -1) return "an id behind the end of its list";
            ended |= id[k] == -1;
        }
    }
    return NULL;
}

/* ---- Prints ---- */

uint32_t hd_teacher_print_rows(const hd_micro *b)
{
    uint32_t crc = hd_crc32c(0, b->tok, (size_t)b->n_rows * sizeof *b->tok);
    crc = hd_crc32c(crc, b->target, (size_t)b->n_rows * sizeof *b->target);
    return hd_crc32c(crc, b->len, (size_t)b->n_docs * sizeof *b->len);
}

static hd_status print_file(uint32_t *crc, const char *path, hd_err *err)
{
    hd_map map;
    hd_status st = hd_map_open(&map, path, err);
    if (st != HD_OK) return st;
    *crc = hd_crc32c(*crc, map.data, map.size);
    hd_map_close(&map);
    return HD_OK;
}

hd_status hd_teacher_print_model(uint32_t *crc, const hd_source *s, hd_err *err)
{
    hd_status st = HD_OK;
    uint64_t bytes;
    char config[1200];
    *crc = 0;
    snprintf(config, sizeof config, "%s/config.json", hd_source_path(s));
    if (hd_source_get_kind(s) == HD_SOURCE_HF) HD_TRY(print_file(crc, config, err));
    for (int i = 0; i < hd_source_n_files(s); i++) HD_TRY(print_file(crc, hd_source_file(s, i, &bytes), err));
fail:
    return st;
}

/* ---- Writing ---- */

void hd_teacher_writer_close(hd_teacher_writer *w)
{
    if (!w) return;
    if (w->n == 0) w->file.stays = false; // nothing to go on from
    hd_newfile_abort(&w->file);
    free(w->path);
    free(w);
}

/* Whole records behind this very head in what an earlier run left. */
static hd_status count_whole(hd_teacher_writer *w, const head *h, hd_err *err)
{
    hd_status st;
    hd_map map = {0};
    int32_t *id = NULL;
    float *logp = NULL;
    record r;
    int row;
    size_t step = sizeof r + 2 * w->list_bytes;
    HD_TRY(hd_map_open(&map, w->file.tmp, err));
    if (map.size < sizeof *h || memcmp(map.data, h, sizeof *h) != 0) goto fail;
    HD_TRY(hd_alloc(&id, w->list_bytes, err));
    HD_TRY(hd_alloc(&logp, w->list_bytes, err));
    for (const uint8_t *p = map.data + sizeof *h; (size_t)(map.data + map.size - p) >= step && w->n < w->m.n_records; p += step, w->n++)
        if (!take_record(&r, id, logp, p, w->list_bytes, w->n) || fault(&w->m, id, logp, &row)) break;
fail:
    hd_map_close(&map);
    free(id);
    free(logp);
    return st;
}

hd_status hd_teacher_writer_open(hd_teacher_writer **out, const char *path, const hd_teacher_meta *m, int64_t *n, hd_err *err)
{
    hd_status st;
    hd_teacher_writer *w = NULL;
    size_t list, bytes;
    head h = {.n_records = m->n_records, .n_vocab = m->n_vocab, .rows = m->rows, .n_top = m->n_top, .teacher = m->teacher, .data = m->data};
    if (!sizes(m, &list, &bytes)) return hd_fail(err, HD_USAGE, "teacher: %s: a size that no file has", path);
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    h.crc = head_crc(&h);
    HD_TRY(hd_alloc(&w, sizeof *w, err));
    w->m = *m;
    w->list_bytes = list;
    w->file.fd = -1;
    HD_TRY(hd_strdup(&w->path, path, err));
    HD_TRY(hd_newfile_take_up(&w->file, path, err));
    HD_TRY(count_whole(w, &h, err));
    if (w->n > 0) HD_TRY(hd_newfile_cut(&w->file, sizeof h + (uint64_t)w->n * (sizeof(record) + 2 * list), err));
    else {
        HD_TRY(hd_newfile_cut(&w->file, 0, err));
        HD_TRY(hd_newfile_write(&w->file, &h, sizeof h, err));
    }
    *n = w->n;
    *out = w;
    return HD_OK;
fail:
    hd_teacher_writer_close(w);
    return st;
}

hd_status hd_teacher_writer_add(hd_teacher_writer *w, uint32_t print, const int32_t *id, const float *logp, hd_err *err)
{
    hd_status st;
    int row;
    record r = {.index = (uint64_t)w->n, .print = print};
    const char *why = fault(&w->m, id, logp, &row);
    if (why)
        return hd_fail(err, HD_FORMAT, "teacher: %s: record %lld, row %d: %s", w->path, (long long)w->n, row,
                       why);
    if (w->n == w->m.n_records)
        return hd_fail(err, HD_USAGE, "teacher: %s: more records than announced", w->path);
    r.crc = record_crc(&r, id, logp, w->list_bytes);
    HD_TRY(hd_newfile_write(&w->file, &r, sizeof r, err));
    HD_TRY(hd_newfile_write(&w->file, id, w->list_bytes, err));
    HD_TRY(hd_newfile_write(&w->file, logp, w->list_bytes, err));
    w->n++;
fail:
    return st;
}

hd_status hd_teacher_writer_commit(hd_teacher_writer *w, hd_err *err)
{
    if (w->n != w->m.n_records)
        return hd_fail(err, HD_USAGE, "teacher: %s: %lld records of %lld", w->path, (long long)w->n,
                       (long long)w->m.n_records);
    return hd_newfile_commit(&w->file, err);
}

/* ---- Reading ---- */

void hd_teacher_file_close(hd_teacher_file *f)
{
    if (!f) return;
    hd_map_close(&f->map);
    free(f->path);
    free(f);
}

hd_status hd_teacher_file_open(hd_teacher_file **out, const char *path, hd_err *err)
{
    hd_status st;
    hd_teacher_file *f = NULL;
    head h;
    size_t bytes = 0;
    HD_TRY(hd_alloc(&f, sizeof *f, err));
    HD_TRY(hd_strdup(&f->path, path, err));
    HD_TRY(hd_map_open(&f->map, path, err));
    if (f->map.size < sizeof h || memcmp(f->map.data, MAGIC, sizeof MAGIC) != 0)
        HD_TRY(hd_fail(err, HD_FORMAT, "teacher: %s: no file of a teacher's probabilities", path));
    memcpy(&h, f->map.data, sizeof h);
    f->m = (hd_teacher_meta){h.n_records, h.n_vocab, h.rows, h.n_top, h.teacher, h.data};
    if (h.crc != head_crc(&h) || !sizes(&f->m, &f->list_bytes, &bytes))
        HD_TRY(hd_fail(err, HD_FORMAT, "teacher: %s: its head is damaged", path));
    if (bytes != f->map.size)
        HD_TRY(hd_fail(err, HD_FORMAT, "teacher: %s: %zu bytes, %zu are expected: cut short, or damaged",
                       path, f->map.size, bytes));
    *out = f;
    return HD_OK;
fail:
    hd_teacher_file_close(f);
    return st;
}

const hd_teacher_meta *hd_teacher_file_meta(const hd_teacher_file *f) { return &f->m; }

hd_status hd_teacher_file_get(const hd_teacher_file *f, int64_t index, uint32_t print, int32_t *id, float *logp, hd_err *err)
{
    record r;
    int row;
    if (index < 0 || index >= f->m.n_records)
        return hd_fail(err, HD_USAGE, "teacher: %s: record %lld of %lld", f->path, (long long)index,
                       (long long)f->m.n_records);
    const uint8_t *p = f->map.data + sizeof(head) + (size_t)index * (sizeof r + 2 * f->list_bytes);
    if (!take_record(&r, id, logp, p, f->list_bytes, index))
        return hd_fail(err, HD_FORMAT, "teacher: %s: record %lld: damaged: its checksum is another", f->path,
                       (long long)index);
    const char *why = fault(&f->m, id, logp, &row);
    if (why)
        return hd_fail(err, HD_FORMAT, "teacher: %s: record %lld, row %d: %s", f->path, (long long)index, row,
                       why);
    if (r.print != print)
        return hd_fail(err, HD_FORMAT, "teacher: %s: record %lld: belongs to other ids than those of the run's sequence", f->path,
                       (long long)index);
    return HD_OK;
}
