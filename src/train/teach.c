/* A teacher asked, or its file read.  A record of the file is one sequence of the run, found by its number
 * and bound to its ids: a run with other data, another seed or other lengths is told that the file is not its
 * own, before its first step when the first sequence differs, else at the record that does. */
#include "train/teach.h"

#include <string.h>

#include "base/log.h"
#include "train/teacher.h"

static const int64_t MOST_SEQUENCES = INT64_C(1) << 32;

struct hd_teach {
    const hd_recipe *r;
    int64_t n_vocab;
    /* asked */
    hd_source *src;
    hd_model *model;
    hd_teacher *teacher;
    /* read */
    hd_teacher_file *file;
    int32_t *id; // [micro, seq, distil_top]
    float *logp;
};

static void dismiss(hd_teach *t)
{
    hd_teacher_close(t->teacher);
    hd_model_close(t->model);
    hd_source_close(t->src);
    t->teacher = NULL;
    t->model = NULL;
    t->src = NULL;
}

void hd_teach_close(hd_teach *t)
{
    if (!t) return;
    dismiss(t);
    hd_teacher_file_close(t->file);
    free(t->id);
    free(t->logp);
    free(t);
}

/* ---- The model ---- */

static hd_status find_teacher(hd_teach *t, hd_err *err)
{
    hd_status st;
    const char *path = t->r->teacher;
    if (!path[0])
        return hd_fail(err, HD_USAGE, "distil: %s: is not there, and [distil] names no teacher to make it", t->r->teacher_cache);
    HD_TRY(hd_source_open(&t->src, path, true, err));
    const hd_config *c = hd_source_config(t->src);
    if (c && c->n_vocab != t->n_vocab)
        return hd_fail(err, HD_USAGE, "distil: %s: its vocabulary has %lld ids, the student's %lld: they must be the same", path,
                       (long long)c->n_vocab, (long long)t->n_vocab);
fail:
    return st;
}

static hd_status hire(hd_teach *t, hd_err *err)
{
    hd_status st;
    int rows = t->r->micro * t->r->seq;
    hd_model_opts o = {.n_threads = t->r->n_threads, .pack = -1, .max_rows = rows};
    HD_TRY(hd_model_open(&t->model, t->src, &o, err));
    HD_TRY(hd_teacher_check(t->src, hd_model_dev(t->model)->pool, err));
    HD_TRY(hd_teacher_open(&t->teacher, t->model, t->r->distil_top, rows, err));
fail:
    return st;
}

/* ---- The file ---- */

/* Sequence k of a micro-batch of whole ones; *doc: its first document, then that of the next. */
static hd_micro sequence(const hd_micro *b, int seq, int k, int *doc)
{
    hd_micro one = {.n_rows = seq, .tok = b->tok + (int64_t)k * seq, .target = b->target + (int64_t)k * seq, .len = b->len + *doc};
    for (int rows = 0; rows < seq; rows += b->len[(*doc)++]) one.n_docs++;
    return one;
}

static hd_status count_sequences(int64_t *n, const hd_recipe *r, hd_err *err)
{
    int64_t step = 1, micro = r->batch / r->micro;
    *n = 0;
    for (; step <= r->steps && step <= r->schedule.batch_ramp && *n < MOST_SEQUENCES; step++)
        *n += hd_schedule_micro(&r->schedule, step, micro) * r->micro;
    int64_t left = r->steps - step + 1; // whole batches
    if (left > MOST_SEQUENCES / r->batch || *n + left * r->batch > MOST_SEQUENCES)
        return hd_fail(err, HD_USAGE, "distil: %s: a run of more than %lld sequences", r->teacher_cache, (long long)MOST_SEQUENCES);
    *n += left * r->batch;
    return HD_OK;
}

/* What the file of this run is: sizes, and what it belongs to. */
static hd_status describe(hd_teach *t, hd_data *data, hd_teacher_meta *m, hd_err *err)
{
    hd_status st;
    hd_micro b;
    *m = (hd_teacher_meta){.n_vocab = t->n_vocab, .rows = t->r->seq, .n_top = t->r->distil_top};
    HD_TRY(count_sequences(&m->n_records, t->r, err));
    HD_TRY(hd_data_get(data, 0, 1, &b, err));
    m->data = hd_teacher_print_rows(&b);
    if (t->src) HD_TRY(hd_teacher_print_model(&m->teacher, t->src, err));
fail:
    return st;
}

static hd_status make(hd_teach *t, const hd_teacher_meta *m, hd_data *data, const volatile sig_atomic_t *stop, hd_err *err)
{
    hd_status st;
    const hd_recipe *r = t->r;
    hd_teacher_writer *w = NULL;
    hd_progress bar = {0};
    hd_micro b;
    int64_t n = 0, record = (int64_t)r->seq * r->distil_top;
    HD_TRY(hd_teacher_writer_open(&w, r->teacher_cache, m, &n, err));
    if (n < m->n_records) HD_TRY(hire(t, err));
    hd_progress_begin(&bar, "asking the teacher", (uint64_t)m->n_records, "sequences");
    hd_progress_add(&bar, (uint64_t)n);
    while (n < m->n_records) {
        if (stop && *stop)
            HD_TRY(hd_fail(err, HD_CANCELLED, "distil: %s: stopped at sequence %lld of %lld; the same command goes on from there",
                           r->teacher_cache, (long long)n, (long long)m->n_records));
        int k = m->n_records - n < r->micro ? (int)(m->n_records - n) : r->micro, doc = 0;
        HD_TRY(hd_data_get(data, (uint64_t)n, k, &b, err));
        HD_TRY(hd_teacher_run(t->teacher, &b, t->id, t->logp, err));
        for (int i = 0; i < k; i++) {
            hd_micro one = sequence(&b, r->seq, i, &doc);
            HD_TRY(hd_teacher_writer_add(w, hd_teacher_print_rows(&one), t->id + i * record, t->logp + i * record, err));
        }
        n += k;
        hd_progress_add(&bar, (uint64_t)k);
    }
    HD_TRY(hd_teacher_writer_commit(w, err));
fail:
    hd_progress_end(&bar);
    hd_teacher_writer_close(w);
    return st;
}

/* Is the file that of this run?  m: what it should be. */
static hd_status fits(const hd_teach *t, const hd_teacher_meta *m, hd_err *err)
{
    const hd_teacher_meta *f = hd_teacher_file_meta(t->file);
    const char *path = t->r->teacher_cache;
    static const char else_[] = "remove it, or name another distil.teacher_cache";
    if (t->src && f->teacher != m->teacher)
        return hd_fail(err, HD_USAGE, "distil: %s: holds the probabilities of another teacher than %s: %s", path, t->r->teacher, else_);
    if (f->n_vocab != m->n_vocab)
        return hd_fail(err, HD_USAGE, "distil: %s: is of a vocabulary of %lld ids, the student's has %lld: %s", path, (long long)f->n_vocab,
                       (long long)m->n_vocab, else_);
    if (f->rows != m->rows)
        return hd_fail(err, HD_USAGE, "distil: %s: is of sequences of %d rows, data.seq says %d: %s", path, f->rows, m->rows, else_);
    if (f->n_top != m->n_top)
        return hd_fail(err, HD_USAGE, "distil: %s: holds %d ids a row, distil.distil_top says %d: %s", path, f->n_top, m->n_top, else_);
    if (f->data != m->data)
        return hd_fail(err, HD_USAGE, "distil: %s: is of other data, or of another run.seed: %s", path, else_);
    if (f->n_records < m->n_records)
        return hd_fail(err, HD_USAGE, "distil: %s: holds %lld sequences, the run has %lld: %s", path, (long long)f->n_records,
                       (long long)m->n_records, else_);
    return HD_OK;
}

static hd_status open_file(hd_teach *t, hd_data *data, hd_comm *comm, const volatile sig_atomic_t *stop, hd_err *err)
{
    hd_status st = HD_OK;
    hd_teacher_meta m = {0};
    const char *path = t->r->teacher_cache;
    int64_t stopped = 0; // all ranks leave together
    if (hd_comm_rank(comm) == 0) {
        bool there = hd_is_file(path);
        if (t->r->teacher[0] || !there) HD_TRY(find_teacher(t, err));
        HD_TRY(describe(t, data, &m, err));
        if (!there) st = make(t, &m, data, stop, err);
        if (st != HD_OK && (st != HD_CANCELLED || hd_comm_size(comm) == 1)) return st;
        stopped = st == HD_CANCELLED;
    }
    hd_err sum_err;
    if (hd_comm_sum_i64(comm, &stopped, 1, &sum_err) != HD_OK) return hd_fail(err, HD_IO, "%s", sum_err.msg);
    if (stopped) return HD_CANCELLED; // rank 0's err says it
    HD_TRY(hd_teacher_file_open(&t->file, path, err));
    if (hd_comm_rank(comm) == 0) HD_TRY(fits(t, &m, err));
    HD_TRY(hd_comm_barrier(comm, err)); // nobody reads a file that does not fit
    dismiss(t);
fail:
    return st;
}

/* ---- The run's side ---- */

hd_status hd_teach_open(hd_teach **out, const hd_recipe *r, const hd_config *c, hd_data *data, hd_comm *comm,
                        const volatile sig_atomic_t *stop, hd_err *err)
{
    hd_status st;
    hd_teach *t = NULL;
    size_t n = (size_t)r->micro * (size_t)r->seq;
    *out = NULL;
    if (r->kind != HD_RUN_DISTIL || r->distil_weight <= 0) return HD_OK;
    HD_TRY(hd_alloc(&t, sizeof *t, err));
    t->r = r;
    t->n_vocab = c->n_vocab;
    HD_TRY(hd_alloc_n(&t->id, n, (size_t)r->distil_top * sizeof *t->id, err));
    HD_TRY(hd_alloc_n(&t->logp, n, (size_t)r->distil_top * sizeof *t->logp, err));
    if (r->teacher_cache[0]) HD_TRY(open_file(t, data, comm, stop, err));
    else {
        HD_TRY(find_teacher(t, err));
        HD_TRY(hire(t, err));
    }
    *out = t;
    return HD_OK;
fail:
    hd_teach_close(t);
    return st;
}

hd_status hd_teach_micro(hd_teach *t, uint64_t index, hd_micro *b, hd_err *err)
{
    hd_status st = HD_OK;
    if (!t) return HD_OK;
    int64_t record = (int64_t)t->r->seq * t->r->distil_top;
    if (t->teacher) HD_TRY(hd_teacher_run(t->teacher, b, t->id, t->logp, err));
    else
        for (int k = 0, doc = 0; k < b->n_rows / t->r->seq; k++) {
            hd_micro one = sequence(b, t->r->seq, k, &doc);
            HD_TRY(hd_teacher_file_get(t->file, (int64_t)index + k, hd_teacher_print_rows(&one), t->id + k * record, t->logp + k * record, err));
        }
    b->teacher_id = t->id;
    b->teacher_logp = t->logp;
    b->n_top = t->r->distil_top;
fail:
    return st;
}
