/* A teacher: its likeliest ids against logits computed one document at a time, the same bits in any company;
 * numbers that are none; the file that keeps them, with every byte damaged, and broken off anywhere; its
 * texts, alone and together, broken off and taken up; failing allocations. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) // these bring an allocator of their own
#define NO_FAILURES
#else
#include "failalloc/failalloc.c"
#endif

#include <jansson.h>
#include <math.h>
#include <sys/stat.h>

#include "base/file.h"
#include "infer/score.h"
#include "sessions.h"
#include "train/chat_data.h"
#include "train/teacher.h"

/* ---- Probabilities ---- */

enum { N_DOCS = 6, ROWS = 1 + 5 + 130 + 64 + 3 + 40, MAX_TOP = 300 };

static int32_t tok[ROWS], target[ROWS];
static const int len[N_DOCS] = {1, 5, 130, 64, 3, 40};

static hd_micro micro(void)
{
    hd_rng r;
    hd_rng_seed(&r, 5, 5);
    for (int i = 0; i < ROWS; i++) {
        tok[i] = (int32_t)(hd_rng_u32(&r) % 256);
        target[i] = i % 3 == 0 || i > ROWS - 10 ? -1 : 7; // the last document's end is padding
    }
    for (int i = 200; i < 203; i++) target[i] = -1; // the fifth document has nothing to learn
    return (hd_micro){.n_rows = ROWS, .n_docs = N_DOCS, .tok = tok, .target = target, .len = len};
}

static hd_model *open_model(hd_source **src, tiny_kind kind, int n_threads, int max_rows)
{
    hd_model *m = NULL;
    CHECK_OK(hd_source_open(src, tiny_model(kind, 3), true, &err));
    CHECK_OK(hd_model_open(
        &m, *src, &(hd_model_opts){.n_threads = n_threads, .max_rows = max_rows, .quiet = true, .pack = 1},
        &err));
    if (!m) exit(hd_test_end());
    return m;
}

typedef struct {
    int first, n_top, bad;
    const int32_t *id;
    const float *logp;
} expected;

/* Is the list what this row of logits says? */
static hd_status compare_row(void *arg, int64_t pos, const float *logits, hd_err *e)
{
    expected *x = arg;
    int row = x->first + (int)pos;
    const int32_t *id = x->id + row * x->n_top;
    const float *logp = x->logp + row * x->n_top;
    if (target[row] < 0) {
        x->bad += id[0] != -1;
        return HD_OK;
    }
    bool listed[TINY_VOCAB] = {false};
    for (int k = 0; k < x->n_top; k++) {
        if (k >= TINY_VOCAB) {
            x->bad += id[k] != -1;
            continue;
        }
        if (id[k] < 0 || id[k] >= TINY_VOCAB || listed[id[k]]) {
            x->bad++;
            return HD_OK;
        }
        listed[id[k]] = true;
        x->bad += !(fabs((double)logp[k] - hd_log_prob(logits, TINY_VOCAB, id[k])) <
                    1e-6 * (1 + fabs((double)logp[k])));
        if (k)
            x->bad += logits[id[k]] > logits[id[k - 1]] ||
                      (logits[id[k]] == logits[id[k - 1]] && id[k] < id[k - 1]);
    }
    float least = x->n_top < TINY_VOCAB ? logits[id[x->n_top - 1]] : -INFINITY;
    for (int i = 0; i < TINY_VOCAB; i++) x->bad += !listed[i] && logits[i] > least;
    return HD_OK;
}

static void test_probabilities(tiny_kind kind)
{
    static int32_t id[2][ROWS * MAX_TOP];
    static float logp[2][ROWS * MAX_TOP];
    static const int tops[] = {1, 5, 272, MAX_TOP};
    hd_micro b = micro();
    hd_source *src = NULL;
    hd_model *m = open_model(&src, kind, 2, 0);
    for (int k = 0; k < 4; k++) {
        hd_teacher *t = NULL;
        CHECK_OK(hd_teacher_open(&t, m, tops[k], ROWS, &err));
        CHECK_OK(hd_teacher_run(t, &b, id[0], logp[0], &err));
        expected x = {.n_top = tops[k], .id = id[0], .logp = logp[0]};
        for (int d = 0; d < N_DOCS; x.first += len[d++])
            CHECK_OK(hd_score_run(m, hd_cache_default(hd_model_config(m)), tok + x.first, len[d], 0, 0,
                                  compare_row, &x, &err));
        CHECK(x.bad == 0, "kind %d, %d ids: %d faults", kind, tops[k], x.bad);
        CHECK_OK(hd_teacher_run(t, &b, id[1], logp[1], &err)); // again
        size_t n = (size_t)ROWS * (size_t)tops[k] * 4;
        CHECK(memcmp(id[0], id[1], n) == 0 && memcmp(logp[0], logp[1], n) == 0);
        hd_teacher_close(t);
    }
    /* One thread, short slices: the same bits. */
    hd_source *src1 = NULL;
    hd_model *m1 = open_model(&src1, kind, 1, 7);
    hd_teacher *t = NULL;
    CHECK_OK(hd_teacher_open(&t, m1, MAX_TOP, ROWS, &err));
    CHECK_OK(hd_teacher_run(t, &b, id[1], logp[1], &err));
    CHECK(memcmp(id[0], id[1], sizeof id[0]) == 0 && memcmp(logp[0], logp[1], sizeof logp[0]) == 0, "kind %d",
          kind);
    /* A document alone. */
    hd_micro one = {.n_rows = 64, .n_docs = 1, .tok = tok + 136, .target = target + 136, .len = len + 3};
    CHECK_OK(hd_teacher_run(t, &one, id[1], logp[1], &err));
    CHECK(memcmp(id[0] + 136 * MAX_TOP, id[1], 64 * MAX_TOP * 4) == 0 &&
          memcmp(logp[0] + 136 * MAX_TOP, logp[1], 64 * MAX_TOP * 4) == 0);
    /* None at all, and what is refused. */
    CHECK_OK(hd_teacher_run(t, &(hd_micro){0}, id[1], logp[1], &err));
    int32_t keep = tok[9];
    tok[9] = TINY_VOCAB;
    CHECK(hd_teacher_run(t, &b, id[1], logp[1], &err) == HD_USAGE && strstr(err.msg, "row 9"), "%s", err.msg);
    tok[9] = keep;
    b.n_docs--;
    CHECK(hd_teacher_run(t, &b, id[1], logp[1], &err) == HD_USAGE);
    b.n_docs++;
    hd_teacher_close(t);
    t = NULL;
    CHECK(hd_teacher_open(&t, m1, 0, ROWS, &err) == HD_USAGE && !t);
    CHECK_OK(hd_teacher_open(&t, m1, 4, ROWS - 1, &err));
    CHECK(hd_teacher_run(t, &b, id[1], logp[1], &err) == HD_USAGE);
    hd_teacher_close(t);
    hd_model_close(m1);
    hd_source_close(src1);
    hd_model_close(m);
    hd_source_close(src);
}

/* A copy of a tiny model with some bytes of a tensor replaced. */
static hd_source *spoilt(const char *tensor, size_t at, const void *bytes, size_t n)
{
    const char *from = tiny_model(TINY_LLAMA, 3);
    hd_source *src = NULL;
    hd_buf file;
    hd_buf_init(&file, SIZE_MAX);
    CHECK_OK(hd_source_open(&src, from, true, &err));
    CHECK_OK(hd_file_read(&file, from, &err));
    const hd_tensor_info *t = hd_source_find(src, tensor);
    CHECK(t != NULL, "%s", tensor);
    char *place = t ? memmem(file.data, file.len, t->data, t->bytes) : NULL;
    CHECK(place != NULL);
    if (place) memcpy(place + at, bytes, n);
    const char *path = build_file("spoilt.gguf", file.data, file.len);
    hd_source_close(src);
    src = NULL;
    CHECK_OK(hd_source_open(&src, path, true, &err));
    hd_buf_free(&file);
    return src;
}

static hd_status ask(const hd_source *src, bool check, hd_err *e)
{
    static int32_t id[ROWS * 4];
    static float logp[ROWS * 4];
    hd_status st;
    hd_micro b = micro();
    hd_model *m = NULL;
    hd_teacher *t = NULL;
    HD_TRY(hd_model_open(&m, src, &(hd_model_opts){.n_threads = 2, .quiet = true, .pack = -1}, e));
    if (check) HD_TRY(hd_teacher_check(src, hd_model_dev(m)->pool, e));
    HD_TRY(hd_teacher_open(&t, m, 4, ROWS, e));
    HD_TRY(hd_teacher_run(t, &b, id, logp, e));
fail:
    hd_teacher_close(t);
    hd_model_close(m);
    return st;
}

/* Numbers that are none, in a model of bytes, opened as a run opens it: in weights they are found before the
 * teacher is asked; those that come to be on the way, in what it answers. */
static void test_nan(void)
{
    static const float nan = NAN, infinite = INFINITY, huge = 3e38f;
    static const uint16_t half_nan = 0x7e00;
    static const struct {
        const char *tensor;
        size_t at;
        const void *bytes;
        size_t n;
    } c[] = {
        {"output_norm.weight", 8, &nan, 4},         {"blk.0.attn_norm.weight", 100, &infinite, 4},
        {"blk.1.attn_k.weight", 34, &half_nan, 2},  {"token_embd.weight", 34 * 1000, &half_nan, 2},
        {"blk.0.ffn_down.weight", 0, &half_nan, 2}, {"output.weight", 34 * 7, &half_nan, 2},
    };
    hd_source *src;
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        src = spoilt(c[i].tensor, c[i].at, c[i].bytes, c[i].n);
        CHECK(ask(src, true, &err) == HD_FORMAT && strstr(err.msg, c[i].tensor) && strstr(err.msg, "not finite"), "%s: %s", c[i].tensor,
              err.msg);
        hd_source_close(src);
    }
    src = spoilt(c[0].tensor, c[0].at, c[0].bytes, c[0].n); // bytes would hide it
    CHECK(ask(src, false, &err) == HD_FORMAT && strstr(err.msg, "no finite numbers"), "%s", err.msg);
    hd_source_close(src);
    src = spoilt("output_norm.weight", 8, &huge, 4); // finite, but not times a state of 2
    CHECK(ask(src, true, &err) == HD_FORMAT && strstr(err.msg, "no finite numbers"), "%s", err.msg);
    hd_source_close(src);
    CHECK_OK(hd_source_open(&src, tiny_model(TINY_LLAMA, 3), true, &err));
    CHECK_OK(ask(src, true, &err));
    hd_source_close(src);
}

/* ---- The file ---- */

enum { F_ROWS = 3, F_TOP = 2, F_RECORDS = 4, F_PRINT = 77 };
static const hd_teacher_meta meta = {
    .n_records = F_RECORDS, .n_vocab = 50, .rows = F_ROWS, .n_top = F_TOP, .teacher = 0x12345678, .data = 0x90abcdef};

static void lists(int32_t id[F_ROWS * F_TOP], float logp[F_ROWS * F_TOP], int record)
{
    for (int i = 0; i < F_ROWS * F_TOP; i++) {
        id[i] = 10 * record + i;
        logp[i] = -0.5f - (float)(i % F_TOP) - (float)record;
    }
    id[F_TOP] = id[F_TOP + 1] = -1; // no target
    logp[F_TOP] = logp[F_TOP + 1] = 0;
    id[2 * F_TOP + 1] = -1; // a short list
}

static hd_status write_records(const char *path, int n, hd_err *e)
{
    hd_status st;
    hd_teacher_writer *w = NULL;
    int64_t from;
    int32_t id[F_ROWS * F_TOP];
    float logp[F_ROWS * F_TOP];
    HD_TRY(hd_teacher_writer_open(&w, path, &meta, &from, e));
    for (int64_t i = from; i < n; i++) {
        lists(id, logp, (int)i);
        HD_TRY(hd_teacher_writer_add(w, F_PRINT + (uint32_t)i, id, logp, e));
    }
    HD_TRY(hd_teacher_writer_commit(w, e));
fail:
    hd_teacher_writer_close(w);
    return st;
}

/* Every record, compared with what was written; what opening or reading says. */
static hd_status read_records(const char *path, int *differ, hd_err *e)
{
    hd_status st;
    hd_teacher_file *f = NULL;
    HD_TRY(hd_teacher_file_open(&f, path, e));
    *differ += memcmp(hd_teacher_file_meta(f), &meta, sizeof meta) != 0;
    for (int i = 0; i < F_RECORDS; i++) {
        int32_t id[F_ROWS * F_TOP], want_id[F_ROWS * F_TOP];
        float logp[F_ROWS * F_TOP], want[F_ROWS * F_TOP];
        lists(want_id, want, i);
        HD_TRY(hd_teacher_file_get(f, i, F_PRINT + (uint32_t)i, id, logp, e));
        *differ += memcmp(id, want_id, sizeof id) != 0 || memcmp(logp, want, sizeof logp) != 0;
    }
fail:
    hd_teacher_file_close(f);
    return st;
}

static void test_file(void)
{
    const char *path = build_path("probs");
    int differ = 0;
    int64_t from;
    CHECK(write_records(path, F_RECORDS - 1, &err) == HD_USAGE && access(path, F_OK) != 0,
          "an unfinished file is none");
    CHECK(write_records(path, F_RECORDS + 1, &err) == HD_USAGE && access(path, F_OK) != 0);
    CHECK_OK(write_records(path, F_RECORDS, &err));
    CHECK_OK(read_records(path, &differ, &err));
    CHECK(differ == 0);
    hd_buf b;
    hd_buf_init(&b, 1 << 20);
    CHECK_OK(hd_file_read(&b, path, &err));
    CHECK(b.len == 64 + F_RECORDS * (16 + 2 * F_ROWS * F_TOP * 4));
    /* Any byte changed, any length cut. */
    int bad = 0;
    for (size_t i = 0; i < b.len; i++) {
        b.data[i] ^= 0x10;
        hd_status st = read_records(build_file("broken", b.data, b.len), &bad, &err);
        bad += st != HD_FORMAT || !strstr(err.msg, "broken");
        b.data[i] ^= 0x10;
    }
    CHECK(bad == 0, "%d", bad);
    for (size_t n = 0; n < b.len; n += 3)
        bad += read_records(build_file("broken", b.data, n), &bad, &err) != HD_FORMAT;
    CHECK(bad == 0, "%d", bad);
    hd_buf_free(&b);
    /* Lists that are none. */
    static const struct {
        int at;
        int32_t id;
        float logp;
        const char *why;
    } c[] = {
        {0, 50, -0.5f, "outside"},   {0, -2, -0.5f, "outside"},  {1, 3, NAN, "finite"},
        {1, 3, -INFINITY, "finite"}, {0, 3, INFINITY, "finite"}, {0, 3, 0.5f, "above 0"},
        {1, 3, -0.1f, "fall"},       {1, 0, -2, "twice"},        {F_TOP + 1, 3, -2, "behind"},
    };
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        hd_teacher_writer *w = NULL;
        int32_t id[F_ROWS * F_TOP];
        float logp[F_ROWS * F_TOP];
        lists(id, logp, 0);
        id[c[i].at] = c[i].id;
        logp[c[i].at] = c[i].logp;
        CHECK_OK(hd_teacher_writer_open(&w, build_path("none"), &meta, &from, &err));
        CHECK(hd_teacher_writer_add(w, F_PRINT, id, logp, &err) == HD_FORMAT && strstr(err.msg, c[i].why), "%zu: %s",
              i, err.msg);
        hd_teacher_writer_close(w);
    }
    hd_teacher_writer *w = NULL;
    hd_teacher_meta huge = {
        .n_records = INT64_MAX, .n_vocab = 50, .rows = INT32_MAX, .n_top = HD_TEACHER_MAX_TOP};
    CHECK(hd_teacher_writer_open(&w, build_path("none"), &huge, &from, &err) == HD_USAGE && !w);
    CHECK(access(build_path("none.part"), F_OK) != 0, "nothing was worth keeping");
    CHECK(read_records(build_path("missing"), &bad, &err) == HD_IO);
    hd_teacher_file *f = NULL;
    int32_t id[F_ROWS * F_TOP];
    float logp[F_ROWS * F_TOP];
    CHECK_OK(hd_teacher_file_open(&f, build_path("probs"), &err));
    CHECK(hd_teacher_file_get(f, 1, F_PRINT + 2, id, logp, &err) == HD_FORMAT && strstr(err.msg, "record 1") && strstr(err.msg, "other ids"),
          "%s", err.msg);
    CHECK(hd_teacher_file_get(f, F_RECORDS, F_PRINT, id, logp, &err) == HD_USAGE);
    hd_teacher_file_close(f);
}

/* What is there of a file that was broken off, wherever, and then ends as if it had not been. */
static void test_taken_up(void)
{
    enum { HEAD = 64, RECORD = 16 + 2 * F_ROWS * F_TOP * 4 };
    char path[512];
    hd_teacher_writer *w = NULL, *other = NULL;
    hd_buf whole, again;
    int64_t from;
    int bad = 0, differ = 0;
    snprintf(path, sizeof path, "%s", build_path("long"));
    hd_buf_init(&whole, 1 << 20);
    CHECK_OK(write_records(path, F_RECORDS, &err));
    CHECK_OK(hd_file_read(&whole, path, &err));
    for (size_t n = 0; n < whole.len; n++) {
        unlink(path);
        build_file("long.part", whole.data, n);
        CHECK_OK(hd_teacher_writer_open(&w, path, &meta, &from, &err));
        bad += from != (n < HEAD ? 0 : (int64_t)(n - HEAD) / RECORD);
        hd_teacher_writer_close(w);
        bad += write_records(path, F_RECORDS, &err) != HD_OK || read_records(path, &differ, &err) != HD_OK;
        hd_buf_init(&again, 1 << 20);
        CHECK_OK(hd_file_read(&again, path, &err));
        bad += again.len != whole.len || memcmp(again.data, whole.data, whole.len) != 0;
        hd_buf_free(&again);
    }
    CHECK(bad == 0 && differ == 0, "%d %d", bad, differ);
    /* A byte is another: what stands before it counts. */
    for (size_t i = 0; i < whole.len; i++) {
        whole.data[i] ^= 4;
        build_file("long.part", whole.data, whole.len);
        CHECK_OK(hd_teacher_writer_open(&w, path, &meta, &from, &err));
        bad += from != (i < HEAD ? 0 : (int64_t)(i - HEAD) / RECORD);
        hd_teacher_writer_close(w);
        whole.data[i] ^= 4;
    }
    CHECK(bad == 0, "%d", bad);
    /* Of another teacher: begun anew.  Two at once: refused. */
    hd_teacher_meta m = meta;
    m.teacher++;
    build_file("long.part", whole.data, whole.len);
    CHECK_OK(hd_teacher_writer_open(&w, path, &m, &from, &err));
    CHECK(from == 0);
    CHECK(hd_teacher_writer_open(&other, path, &meta, &from, &err) == HD_IO && strstr(err.msg, "another process"), "%s", err.msg);
    hd_teacher_writer_close(w);
    CHECK(mkdir(build_path("long.part"), 0777) == 0);
    CHECK(hd_teacher_writer_open(&w, path, &meta, &from, &err) == HD_IO);
    rmdir(build_path("long.part"));
    hd_buf_free(&whole);
}

/* ---- Texts ---- */

static const hd_bias soon[] = {{TINY_EOS, 3},
                               {TINY_END_THINK, 3}}; // random weights find no end by themselves
static const hd_sample_opts sampling = {
    .temperature = 1, .top_p = 1, .repetition_penalty = 1, .bias = soon, .n_bias = 2};
enum { N_PROMPTS = 14 };

static hd_engine *teacher_engine(int n_sessions)
{
    hd_engine *e = NULL;
    hd_engine_opts o = {
        .n_threads = 2, .ctx_tok = 256, .n_sessions = n_sessions, .chat_format = "deepseek-r1"};
    CHECK_OK(hd_engine_open(&e, tiny_model(TINY_V3, 3), &o, &err));
    if (!e) exit(hd_test_end());
    return e;
}

static const char *prompts_file(const char *name, const char *word)
{
    char text[8192];
    size_t n = 0;
    for (int i = 0; i < N_PROMPTS; i++) {
        const char *form = i % 3 == 0   ? "{\"prompt\": \"%s %d?\"}\n"
                           : i % 3 == 1 ? "{\"question\": \"%s %d?\", \"answer\": \"not read\"}\n"
                                        : "{\"messages\": [{\"role\": \"system\", \"content\": \"brief\"}, "
                                          "{\"role\": \"user\", \"content\": \"%s %d?\"}, "
                                          "{\"role\": \"assistant\", \"content\": \"left away\"}]}\n";
        n += (size_t)snprintf(text + n, sizeof text - n, form, word, i);
        if (i == 6) { // too long for the context
            n += (size_t)snprintf(text + n, sizeof text - n, "{\"prompt\": \"");
            memset(text + n, 'x', 400);
            n += 400;
            n += (size_t)snprintf(text + n, sizeof text - n, "\"}\n");
            i++;
        }
    }
    return build_file(name, text, n);
}

static hd_status make(const char *prompts, const char *out, int n_at_once, hd_teacher_texts_report *r,
                      hd_err *e)
{
    hd_engine *engine = teacher_engine(n_at_once);
    hd_status st = hd_teacher_texts(engine,
                                    &(hd_teacher_texts_opts){.prompts = prompts,
                                                             .out = out,
                                                             .n_at_once = n_at_once,
                                                             .max_tok = 60,
                                                             .thinking = -1,
                                                             .sampling = &sampling,
                                                             .seed = 11},
                                    r, e);
    hd_engine_close(engine);
    return st;
}

static bool holds(const char *path, const hd_buf *want)
{
    hd_buf b;
    hd_buf_init(&b, 1 << 20);
    bool same =
        hd_file_read(&b, path, &err) == HD_OK && b.len == want->len && memcmp(b.data, want->data, b.len) == 0;
    hd_buf_free(&b);
    return same;
}

static void test_texts(void)
{
    hd_teacher_texts_report r;
    char prompts[512], prompts2[512], out[512], other[512];
    snprintf(prompts, sizeof prompts, "%s", prompts_file("prompts.jsonl", "How many"));
    snprintf(prompts2, sizeof prompts2, "%s", prompts_file("prompts2.jsonl", "How few"));
    snprintf(out, sizeof out, "%s", build_path("texts.jsonl"));
    snprintf(other, sizeof other, "%s", build_path("other.jsonl"));
    CHECK_OK(make(prompts, out, 4, &r, &err));
    CHECK(r.n_prompts == N_PROMPTS && r.n_before == 0 && r.n_stopped + r.n_unfinished == N_PROMPTS &&
              r.n_stopped >= 3 && r.n_unfinished >= 1,
          "%lld stopped, %lld not", (long long)r.n_stopped, (long long)r.n_unfinished);
    hd_buf whole;
    hd_buf_init(&whole, 1 << 20);
    CHECK_OK(hd_file_read(&whole, out, &err));

    /* Lines in order; those that have messages are chat data whose last thought and answer are there. */
    hd_engine *e = teacher_engine(1);
    const hd_chat_format *f = NULL;
    for (int i = 0; hd_chat_at(i); i++)
        if (strcmp(hd_chat_name(hd_chat_at(i)), "deepseek-r1") == 0) f = hd_chat_at(i);
    int n = 0, n_stopped = 0;
    for (char *s = whole.data, *end; (end = memchr(s, '\n', whole.len - (size_t)(s - whole.data)));
         s = end + 1, n++) {
        json_t *o = json_loadb(s, (size_t)(end - s), 0, NULL), *messages = json_object_get(o, "messages");
        const char *finish = json_string_value(json_object_get(o, "finish"));
        CHECK(o && json_integer_value(json_object_get(o, "index")) == n && finish);
        if (n == 7) CHECK(strcmp(finish, "context") == 0, "%s", finish);
        CHECK((messages != NULL) == (strcmp(finish, "stop") == 0));
        if (messages) {
            hd_ids ids = {0};
            hd_buf mask;
            hd_buf_init(&mask, 1 << 20);
            json_t *last = json_array_get(messages, json_array_size(messages) - 1);
            CHECK(json_is_string(json_object_get(last, "content")) &&
                  json_is_string(json_object_get(last, "reasoning_content")));
            CHECK(json_array_size(messages) == (n % 3 == 2 ? 3 : 2));
            CHECK_OK(hd_chat_data_line(f, e->tok, s, (size_t)(end - s), &ids, &mask, &err));
            CHECK(ids.n > 0 && ids.id[ids.n - 1] == hd_tokenizer_find(e->tok, "<｜end▁of▁sentence｜>") &&
                  mask.data[ids.n - 1]);
            hd_ids_free(&ids);
            hd_buf_free(&mask);
            n_stopped++;
        }
        json_decref(o);
    }
    CHECK(n == N_PROMPTS && n_stopped == r.n_stopped);
    hd_engine_close(e);

    /* Alone, and in other company: the same texts. */
    static const int company[] = {1, 3, 9};
    for (int i = 0; i < 3; i++) {
        unlink(other);
        CHECK_OK(make(prompts, other, company[i], &r, &err));
        CHECK(holds(other, &whole), "%d at once", company[i]);
    }
    /* Broken off anywhere, in the middle of a line too. */
    for (int i = 0; i < 6; i++) {
        size_t at = whole.len * (size_t)i / 5;
        build_file("other.jsonl", whole.data, at);
        CHECK_OK(make(prompts, other, 3, &r, &err));
        CHECK(holds(other, &whole), "cut at %zu", at);
        CHECK(r.n_before + r.n_stopped + r.n_unfinished == N_PROMPTS);
    }
    /* Stopped. */
    volatile sig_atomic_t stop = 1;
    build_file("other.jsonl", whole.data, whole.len / 2);
    e = teacher_engine(2);
    hd_teacher_texts_opts o = {.prompts = prompts,
                               .out = other,
                               .n_at_once = 2,
                               .max_tok = 60,
                               .thinking = -1,
                               .sampling = &sampling,
                               .seed = 11,
                               .stop = &stop};
    CHECK(hd_teacher_texts(e, &o, &r, &err) == HD_CANCELLED && strstr(err.msg, "goes on"), "%s", err.msg);
    stop = 0;
    CHECK_OK(hd_teacher_texts(e, &o, &r, &err));
    CHECK(holds(other, &whole));
    o.seed = 12; // other texts
    unlink(other);
    CHECK_OK(hd_teacher_texts(e, &o, &r, &err));
    CHECK(!holds(other, &whole));

    /* Files that do not belong together. */
    o.prompts = prompts2;
    size_t first = (size_t)((char *)memchr(whole.data, '\n', whole.len) + 1 - whole.data);
    bool had = false; // a line with messages to compare
    for (size_t at = first; at < whole.len && !had; at++) {
        if (whole.data[at] != '\n' && at != first) continue;
        build_file("other.jsonl", whole.data, at + (at != first));
        hd_status st = hd_teacher_texts(e, &o, &r, &err);
        had = st == HD_USAGE && strstr(err.msg, "other prompts");
    }
    CHECK(had, "answers to other prompts are not continued");
    build_file("other.jsonl", "{\"a\": 1}\n", 9);
    CHECK(hd_teacher_texts(e, &o, &r, &err) == HD_FORMAT && strstr(err.msg, "no index"), "%s", err.msg);
    build_file("other.jsonl", "{\"index\": 99}\n", 14);
    CHECK(hd_teacher_texts(e, &o, &r, &err) == HD_USAGE && strstr(err.msg, "more answers"), "%s", err.msg);
    build_file("bad.jsonl", "{\"prompt\": 5}\n", 14);
    unlink(other);
    o.prompts = build_path("bad.jsonl");
    CHECK(hd_teacher_texts(e, &o, &r, &err) == HD_FORMAT && strstr(err.msg, "line 1"), "%s", err.msg);
    o.prompts = build_path("nothere.jsonl");
    CHECK(hd_teacher_texts(e, &o, &r, &err) == HD_IO);
    hd_engine_close(e);
    hd_buf_free(&whole);
}

/* Greedy: what hd_generate says to the same conversation. */
static void text_sink(void *arg, hd_text_kind kind, const char *text, size_t n)
{
    hd_buf *b = arg;
    CHECK_OK(hd_buf_add(&b[kind], text, n, &err));
}

static void test_greedy(void)
{
    static const hd_bias at_once[] = {{TINY_EOS, 12}, {TINY_END_THINK, 12.5f}};
    const hd_sample_opts greedy = {.top_p = 1, .repetition_penalty = 100, .bias = at_once, .n_bias = 2};
    hd_teacher_texts_report r;
    hd_engine *e = teacher_engine(2);
    char out[512], prompts[512];
    snprintf(out, sizeof out, "%s", build_path("greedy.jsonl"));
    snprintf(prompts, sizeof prompts, "%s", prompts_file("prompts.jsonl", "How many"));
    hd_teacher_texts_opts o = {
        .prompts = prompts, .out = out, .n_at_once = 2, .max_tok = 60, .thinking = -1, .sampling = &greedy};
    CHECK_OK(hd_teacher_texts(e, &o, &r, &err));
    FILE *f = fopen(out, "r");
    char line[8192];
    int compared = 0;
    while (f && fgets(line, sizeof line, f)) {
        json_t *j = json_loads(line, 0, NULL), *messages = json_object_get(j, "messages");
        size_t n = json_array_size(messages);
        if (n) {
            hd_message m[4];
            hd_ids ids = {0};
            hd_session *s = open_session(e);
            hd_sampler *p = NULL;
            hd_buf text[2];
            for (size_t i = 0; i + 1 < n; i++)
                m[i] = (hd_message){
                    .role = json_string_value(json_object_get(json_array_get(messages, i), "role")),
                    .text = json_string_value(json_object_get(json_array_get(messages, i), "content"))};
            for (int i = 0; i < 2; i++) {
                hd_buf_init(&text[i], 1 << 20);
                CHECK_OK(hd_buf_adds(&text[i], "", &err));
            }
            CHECK_OK(hd_engine_render(e, m, (int)n - 1, -1, &ids, &err));
            CHECK_OK(hd_sampler_open(&p, &greedy, hd_engine_n_vocab(e), &err));
            hd_sampler_reset(p, ids.id, ids.n);
            CHECK_OK(hd_session_sync(s, ids.id, ids.n, NULL, &err));
            CHECK_OK(hd_generate(
                s, p, &(hd_generate_opts){.max_tok = 60, .chat = true, .text = text_sink, .arg = text}, NULL,
                &err));
            json_t *last = json_array_get(messages, n - 1);
            const char *thought = json_string_value(json_object_get(last, "reasoning_content")),
                       *answer = json_string_value(json_object_get(last, "content"));
            size_t n_thought = strlen(thought); // the stream leaves line ends before the mark, too
            CHECK(strncmp(text[HD_TEXT_THINKING].data, thought, n_thought) == 0, "%s\n%s",
                  text[HD_TEXT_THINKING].data, thought);
            CHECK(strcmp(text[HD_TEXT_ANSWER].data, answer) == 0, "%s\n%s", text[HD_TEXT_ANSWER].data,
                  answer);
            compared++;
            for (int i = 0; i < 2; i++) hd_buf_free(&text[i]);
            hd_ids_free(&ids);
            hd_sampler_close(p);
            hd_session_close(s);
        }
        json_decref(j);
    }
    CHECK(compared >= 3, "%d", compared);
    if (f) fclose(f);
    hd_engine_close(e);
}

/* ---- Failing allocations ---- */

#ifndef NO_FAILURES
static hd_model *fail_model;
static hd_engine *fail_engine;

static hd_status teacher_life(hd_err *why)
{
    static int32_t id[ROWS * 4];
    static float logp[ROWS * 4];
    hd_status st;
    hd_teacher *t = NULL;
    hd_micro b = micro();
    HD_TRY(hd_teacher_open(&t, fail_model, 4, ROWS, why));
    HD_TRY(hd_teacher_run(t, &b, id, logp, why));
fail:
    hd_teacher_close(t);
    return st;
}

static hd_status file_life(hd_err *why)
{
    int differ = 0;
    hd_status st;
    HD_TRY(write_records(build_path("alloc"), F_RECORDS, why));
    HD_TRY(read_records(build_path("alloc"), &differ, why));
fail:
    return st;
}

static hd_status texts_life(hd_err *why)
{
    hd_teacher_texts_report r;
    const char *prompts = build_path("prompts.jsonl"), *out = build_path("alloc.jsonl");
    unlink(out);
    return hd_teacher_texts(fail_engine,
                            &(hd_teacher_texts_opts){.prompts = prompts,
                                                     .out = out,
                                                     .n_at_once = 2,
                                                     .max_tok = 8,
                                                     .thinking = -1,
                                                     .sampling = &sampling},
                            &r, why);
}

static void test_failures(hd_status (*life)(hd_err *), const char *what)
{
    int n = 1, bad = 0;
    for (;; n++) {
        hd_err why = {0};
        atomic_store(&made, 0);
        fail_at = n;
        hd_status st = life(&why);
        fail_at = 0;
        if (st == HD_OK && atomic_load(&made) < n) break;
        bad += st != HD_OK && (st != HD_NOMEM || !why.msg[0]);
        if (st != HD_OK && st != HD_NOMEM)
            fprintf(stderr, "%s: allocation %d: status %d: %s\n", what, n, st, why.msg);
        if (bad > 3) break;
    }
    CHECK(bad == 0 && n > 5, "%s: %d bad of %d", what, bad, n);
}
#endif

int main(void)
{
    build_begin();
    test_probabilities(TINY_LLAMA);
    test_probabilities(TINY_V3);
    test_nan();
    test_file();
    test_taken_up();
    test_texts();
    test_greedy();
#ifndef NO_FAILURES
    hd_source *src = NULL;
    fail_model = open_model(&src, TINY_LLAMA, 2, 0);
    fail_engine = teacher_engine(2);
    test_failures(teacher_life, "probabilities");
    test_failures(file_life, "file");
    test_failures(texts_life, "texts");
    hd_engine_close(fail_engine);
    hd_model_close(fail_model);
    hd_source_close(src);
#endif
    build_end();
    return hd_test_end();
}
