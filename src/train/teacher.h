/* The teacher's side of distillation: its probabilities for the rows of a micro-batch, a file that keeps
 * them, and its texts.
 *
 * Probabilities are the n_top likeliest ids of a row with their natural log-probabilities (of the whole
 * vocabulary, at temperature 1), falling, the lower id first among equals: the fields teacher_id and
 * teacher_logp of hd_micro.  Rows without a target have no list (its first id is -1). */
#ifndef HD_TRAIN_TEACHER_H
#define HD_TRAIN_TEACHER_H

#include <signal.h>

#include "model/train_pass.h"

/* ---- Probabilities ---- */

typedef struct hd_teacher hd_teacher;

enum { HD_TEACHER_MAX_TOP = 1 << 16 };

/* m: opened for inference (hd_model_open), with the student's vocabulary; borrowed.  max_rows: of
 * one micro-batch. */
hd_status hd_teacher_open(hd_teacher **out, hd_model *m, int n_top, int max_rows, hd_err *err);
void hd_teacher_close(hd_teacher *t);
/* b: its rows, targets and documents.  id, logp: [b->n_rows, n_top], written.  The bits depend on a
 * row's document alone.
 * HD_FORMAT: a state or a logit that is no finite number.  HD_USAGE: an id outside the teacher's vocabulary,
 * more rows than max_rows. */
hd_status hd_teacher_run(hd_teacher *t, const hd_micro *b, int32_t *id, float *logp, hd_err *err);

/* Every weight of s, decoded: one that is no finite number is HD_FORMAT, and its tensor is named.  Where
 * activations are packed to bytes, or keys kept in 16 bits, a NaN on its way vanishes, and the logits are
 * wrong but finite. */
hd_status hd_teacher_check(const hd_source *s, hd_pool *pool, hd_err *err);

/* ---- Kept on disk ---- */

/* Records of `rows` rows by number 0, 1, ...: one for each sequence of a run, so that a
 * teacher is asked once. */
typedef struct {
    int64_t n_records, n_vocab;
    int rows, n_top;
    uint32_t teacher, data; // prints of what they belong to: the caller's, compared by the caller
} hd_teacher_meta;

/* CRC-32C of a sequence: its ids, targets and documents.  A record bears that of its own. */
uint32_t hd_teacher_print_rows(const hd_micro *b);
/* CRC-32C of a model: of every file that holds its weights, and of a folder's config.json. */
hd_status hd_teacher_print_model(uint32_t *crc, const hd_source *s, hd_err *err);

typedef struct hd_teacher_writer hd_teacher_writer;
/* The file appears when it is committed, whole.  Until then it is PATH.part, which stays when a run
 * is broken off: whole records of the same meta are kept, and *n says how many.  HD_IO: another
 * process is writing it. */
hd_status hd_teacher_writer_open(hd_teacher_writer **out, const char *path, const hd_teacher_meta *m, int64_t *n,
                                 hd_err *err);
/* The next record, of the rows with this print.  HD_FORMAT: lists that are none (NaN, ids outside the
 * vocabulary, not falling). */
hd_status hd_teacher_writer_add(hd_teacher_writer *w, uint32_t print, const int32_t *id, const float *logp, hd_err *err);
hd_status hd_teacher_writer_commit(hd_teacher_writer *w,
                                   hd_err *err); // HD_USAGE: fewer records than announced
void hd_teacher_writer_close(hd_teacher_writer *w);

typedef struct hd_teacher_file hd_teacher_file;
/* HD_FORMAT: not such a file, cut short, or its head is damaged. */
hd_status hd_teacher_file_open(hd_teacher_file **out, const char *path, hd_err *err);
void hd_teacher_file_close(hd_teacher_file *f);
const hd_teacher_meta *hd_teacher_file_meta(const hd_teacher_file *f);
/* Record `index`, checked; id, logp: [rows, n_top].  HD_FORMAT: damaged, or of rows with another print (the
 * file and the record are named). */
hd_status hd_teacher_file_get(const hd_teacher_file *f, int64_t index, uint32_t print, int32_t *id, float *logp, hd_err *err);

/* ---- Texts ---- */

/* Answers of a teacher to prompts, as conversations for hd_chat_data_line (arXiv:2501.12948, 2.4).
 *
 * A line of `prompts` is {"prompt": ...}, {"question": ...} or {"messages": [...]}, whose last answer, if
 * it ends in one, is left away.  A line of `out`: {"index": n, "finish": "stop", "messages": [...]}, in the
 * order of the prompts.  An answer that did not come to its end within max_tok is no text to learn: its
 * line has "finish": "length" and no messages, and so has that of a prompt too long for the context
 * ("finish": "context").
 *
 * Each text has a seed of its own, so it depends neither on its company nor on a run that was broken off:
 * `out` is taken up behind its last whole line. */
typedef struct {
    const char *prompts, *out;
    int n_at_once;   // sequences; 0: as many as the engine's sessions hold is the caller's to know: 8
    int64_t max_tok; // of an answer; 0: 1024
    int thinking;    // 1 on, 0 off, -1 the format's default
    const hd_sample_opts *sampling; // NULL: what the model asks for
    uint64_t seed;
    bool progress;
    const volatile sig_atomic_t *stop;
} hd_teacher_texts_opts;

typedef struct {
    int64_t n_prompts, n_before;     // in all; answered by earlier runs
    int64_t n_stopped, n_unfinished; // of this run
    int64_t n_tok;
    double seconds;
} hd_teacher_texts_report;

/* e: with n_at_once sessions.  HD_CANCELLED: *stop was set; what is finished is kept.  HD_USAGE: `out` is
 * of other prompts. */
hd_status hd_teacher_texts(hd_engine *e, const hd_teacher_texts_opts *o, hd_teacher_texts_report *r,
                           hd_err *err);

/* The same from a model's path.  ctx_tok: of one sequence; 0: the model's, as memory allows. */
hd_status hd_teacher_make_texts(const char *model, int n_threads, int64_t ctx_tok,
                                const hd_teacher_texts_opts *o, hd_teacher_texts_report *r, hd_err *err);

#endif
