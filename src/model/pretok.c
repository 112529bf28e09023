/* See pretok.h.
 *
 * A file may carry a pattern that never ends on some text.  Matching therefore goes in windows of start
 * places with a small limit of steps, falls back to one start at a time with a large one, and watches the
 * clock: text that takes more than SECONDS_BASE + its length / BYTES_PER_SECOND of processor time, over all
 * its parts, is an error.  Known patterns are 100 times faster, on the worst text 6 times. */
#include "model/pretok.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { MAX_PATTERN = 1 << 16, WINDOW = 4096, FEW_STEPS = 20000, JIT_STACK = 1 << 20 };
#define SECONDS_BASE     0.7
#define BYTES_PER_SECOND 250e3

/* Patterns as published in the models' tokenizer.json files; names from llama.cpp's converter
 * (tokenizer.ggml.pre). */
const char hd_pattern_gpt2[] = "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
#define QWEN2                                                                                                          \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"    \
    "|\\s+(?!\\S)|\\s+"
#define LLAMA3                                                                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"            \
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define DEEPSEEK3                                                                                                      \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"                \
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define DEEPSEEK_LETTERS \
    "\\s?[" \
    "A-Za-z\\xb5\\xc0-\\xd6\\xd8-\\xf6\\xf8-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}\\x{295}-\\x{2af}" \
    "\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}" \
    "\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}" \
    "\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}" \
    "\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}" \
    "\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}" \
    "\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}" \
    "\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}" \
    "\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}" \
    "\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}" \
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}" \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}" \
    "\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}" \
    "\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}" \
    "]+"
#define DEEPSEEK_CJK "[\\x{800}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]+"

static const struct {
    const char *name;
    bool nfc, ignore_merges;
    const char *pattern[7];
} named[] = {
    {"default", .pattern = {"[\\p{P}\\$\\+<=>\\^~\\|]+", hd_pattern_gpt2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {"gpt-2", .pattern = {hd_pattern_gpt2}},
    {"smollm", .pattern = {"\\p{N}", hd_pattern_gpt2}},
    {"qwen2", .nfc = true, .pattern = {QWEN2}},
    {"deepseek-r1-qwen", .nfc = true, .pattern = {QWEN2}},
    {"stablelm2", .pattern = {QWEN2}}, // as llama.cpp has it; the name for Qwen 2's words without a normal form
    {"llama-bpe", .ignore_merges = true, .pattern = {LLAMA3}},
    {"deepseek-llm",
     .pattern = {"[\\r\\n]", DEEPSEEK_LETTERS, "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+", "\\s+$", DEEPSEEK_CJK, "\\p{N}+"}},
    {"deepseek-coder", .pattern = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", DEEPSEEK_CJK, "\\p{N}"}},
    {"deepseek-v3", .pattern = {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]+", DEEPSEEK3}},
};

/* ---- Stages ---- */

static hd_status add_stage(hd_pretok *p, hd_split s, hd_err *err)
{
    if (p->n == HD_MAX_SPLITS)
        return hd_fail(err, HD_UNSUPPORTED, "tokenizer: pre_tokenizer: more than %d stages", HD_MAX_SPLITS);
    p->split[p->n++] = s;
    return HD_OK;
}

hd_status hd_pretok_prefix_space(hd_pretok *p, hd_err *err) { return add_stage(p, (hd_split){0}, err); }

static hd_quick quick_of(const char *pattern, size_t n)
{
    static const struct {
        const char *pattern;
        hd_quick kind;
    } known[] = {{hd_pattern_gpt2, HD_QUICK_GPT2}, {QWEN2, HD_QUICK_DIGITS}, {LLAMA3, HD_QUICK_NUMBERS}};
    for (int i = 0; i < 3; i++)
        if (strlen(known[i].pattern) == n && memcmp(known[i].pattern, pattern, n) == 0) return known[i].kind;
    return HD_QUICK_NONE;
}

hd_status hd_pretok_split(hd_pretok *p, const char *pattern, size_t n, bool literal, hd_split_how how, bool invert,
                          hd_err *err)
{
    hd_status st;
    hd_buf b;
    hd_split s = {.how = how, .invert = invert, .quick = literal ? HD_QUICK_NONE : quick_of(pattern, n)};
    pcre2_compile_context *ctx = NULL;
    hd_buf_init(&b, 64 * MAX_PATTERN);
    if (n > MAX_PATTERN) {
        st = hd_fail(err, HD_LIMIT, "tokenizer: pattern: %zu bytes: at most %d", n, MAX_PATTERN);
        goto fail;
    }
    /* `\s+$` tries every place of a run that does not reach the end: n squared.  The same match, found at
     * run starts only: */
    static const char slow[] = "\\s+$", quick[] = "(?<!\\s)\\s+$";
    if (!literal && n == sizeof slow - 1 && memcmp(pattern, slow, n) == 0) {
        pattern = quick;
        n = sizeof quick - 1;
    }
    if (literal) HD_TRY(hd_buf_add(&b, pattern, n, err));
    else HD_TRY(hd_pattern_to_pcre2(&b, pattern, n, err));

    ctx = pcre2_compile_context_create(NULL);
    if (!ctx) {
        st = hd_fail(err, HD_NOMEM, "tokenizer: pattern: out of memory");
        goto fail;
    }
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    uint32_t flags = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_USE_OFFSET_LIMIT;
    if (literal) flags = PCRE2_UTF | PCRE2_LITERAL | PCRE2_USE_OFFSET_LIMIT;
    int code;
    PCRE2_SIZE at;
    s.code = pcre2_compile((PCRE2_SPTR)(b.data ? b.data : ""), b.len, flags, &code, &at, ctx);
    if (!s.code) {
        char why[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        st = hd_fail(err, code == PCRE2_ERROR_HEAP_FAILED ? HD_NOMEM : HD_FORMAT, "tokenizer: pattern: byte %zu: %s", (size_t)at, why);
        goto fail;
    }
    pcre2_jit_compile(s.code, PCRE2_JIT_COMPLETE); // where machine code is forbidden the interpreter serves
    HD_TRY(add_stage(p, s, err));
    s.code = NULL;
    st = HD_OK;
fail:
    pcre2_code_free(s.code);
    pcre2_compile_context_free(ctx);
    hd_buf_free(&b);
    return st;
}

void hd_pretok_close(hd_pretok *p)
{
    for (int i = 0; i < p->n; i++) pcre2_code_free(p->split[i].code);
    *p = (hd_pretok){0};
}

const char *const *hd_pretok_patterns(const char *pre, bool *nfc, bool *ignore_merges)
{
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        if (strcmp(named[i].name, pre) != 0) continue;
        *nfc = named[i].nfc;
        *ignore_merges = named[i].ignore_merges;
        return named[i].pattern;
    }
    return NULL;
}

hd_status hd_pretok_named(hd_pretok *p, const char *pre, bool *nfc, bool *ignore_merges, hd_err *err)
{
    hd_status st = HD_OK;
    size_t n_named = sizeof named / sizeof *named;
    const char *const *s = hd_pretok_patterns(pre, nfc, ignore_merges);
    if (s) {
        for (; *s; s++) HD_TRY(hd_pretok_split(p, *s, strlen(*s), false, HD_SPLIT_ISOLATED, false, err));
        return HD_OK;
    }
    char known[256] = "";
    for (size_t i = 0, k = 0; i < n_named; i++)
        k += (size_t)snprintf(known + k, sizeof known - k, "%s%s", i ? ", " : "", named[i].name);
    return hd_fail(err, HD_UNSUPPORTED, "tokenizer: tokenizer.ggml.pre: '%.64s' is unknown; known: %s", pre, known);
fail:
    return st;
}

/* ---- Cutting ---- */

hd_status hd_pretok_work_open(hd_pretok_work *w, const hd_pretok *p, hd_err *err)
{
    *w = (hd_pretok_work){0};
    hd_buf_init(&w->prefixed, SIZE_MAX);
    w->ctx = pcre2_match_context_create(NULL);
    w->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK, NULL);
    bool ok = w->ctx != NULL; // without a JIT there is no stack
    for (int i = 0; i < p->n && ok; i++)
        if (p->split[i].code) ok = (w->match[i] = pcre2_match_data_create_from_pattern(p->split[i].code, NULL)) != NULL;
    if (!ok) {
        hd_pretok_work_close(w);
        return hd_fail(err, HD_NOMEM, "tokenizer: out of memory");
    }
    if (w->stack) pcre2_jit_stack_assign(w->ctx, NULL, w->stack);
    pcre2_set_heap_limit(w->ctx, 64 << 10); // KiB
    return HD_OK;
}

void hd_pretok_work_close(hd_pretok_work *w)
{
    for (int i = 0; i < HD_MAX_SPLITS; i++) pcre2_match_data_free(w->match[i]);
    pcre2_jit_stack_free(w->stack);
    pcre2_match_context_free(w->ctx);
    hd_buf_free(&w->prefixed);
    *w = (hd_pretok_work){0};
}

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct {
    const hd_pretok *p;
    hd_pretok_work *w;
    hd_piece_fn *fn;
    void *arg;
    hd_err *err;
    unsigned calls;
} run;

/* Find the first match of stage `k` that is not empty at or after `at`; *from = n when there is none. */
static hd_status find_match(run *r, int k, const char *s, size_t n, size_t at, size_t *from, size_t *to)
{
    const hd_split *sp = &r->p->split[k];
    size_t careful_to = 0; // up to here one start at a time
    if (sp->quick && at < n) {
        *to = hd_quick_match(sp->quick, s, n, at);
        *from = at;
        if (*to) return HD_OK;
    }
    while (at < n) {
        bool careful = at < careful_to;
        size_t last = careful ? at : at + WINDOW;
        size_t steps = careful ? FEW_STEPS * 100 + 16 * n : FEW_STEPS;
        pcre2_set_offset_limit(r->w->ctx, last);
        pcre2_set_match_limit(r->w->ctx, steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps);
        int got = pcre2_match(sp->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK, r->w->match[k], r->w->ctx);
        if ((careful || ++r->calls % 256 == 0 || got < 0) && cpu_s() > r->w->deadline)
            return hd_fail(r->err, HD_LIMIT, "tokenizer: pattern: takes too long on this text");
        if (got >= 0) {
            PCRE2_SIZE *o = pcre2_get_ovector_pointer(r->w->match[k]);
            if (o[1] > o[0]) {
                *from = o[0];
                *to = o[1];
                return HD_OK;
            }
            last = o[0]; // empty: look behind it
        } else if (got == PCRE2_ERROR_MATCHLIMIT && !careful) {
            careful_to = at + WINDOW;
            continue;
        } else if (got != PCRE2_ERROR_NOMATCH) {
            char why[128] = "";
            pcre2_get_error_message(got, (PCRE2_UCHAR *)why, sizeof why);
            return hd_fail(r->err, HD_LIMIT, "tokenizer: pattern: %s", why);
        }
        at = last + 1;
        while (at < n && (s[at] & 0xc0) == 0x80) at++;
    }
    *from = *to = n;
    return HD_OK;
}

static hd_status cut(run *r, int k, const char *s, size_t n);

/* The pieces of one stage as they come, joined as `how` says, then handed to the next stage. */
typedef struct {
    size_t from, to;
    bool held, before; // a piece waits; whether the last one came from a match
} joiner;

static hd_status flush(run *r, int k, const char *s, joiner *j)
{
    if (!j->held) return HD_OK;
    j->held = false;
    return cut(r, k + 1, s + j->from, j->to - j->from);
}

static hd_status piece(run *r, int k, const char *s, joiner *j, size_t from, size_t to, bool match)
{
    hd_status st = HD_OK;
    const hd_split *sp = &r->p->split[k];
    match ^= sp->invert;
    bool join = false;
    switch (sp->how) {
    case HD_SPLIT_REMOVED:
        if (match) return HD_OK;
        break;
    case HD_SPLIT_ISOLATED: break;
    case HD_SPLIT_CONTIGUOUS: join = match == j->before; break;
    case HD_SPLIT_MERGED_PREV: join = match && !j->before; break;
    case HD_SPLIT_MERGED_NEXT: join = !match && j->before; break;
    }
    if (!(join && j->held)) {
        st = flush(r, k, s, j);
        j->from = from;
    }
    j->to = to;
    j->held = true;
    j->before = match;
    return st;
}

static hd_status cut(run *r, int k, const char *s, size_t n)
{
    hd_status st;
    if (n == 0) return HD_OK;
    if (k == r->p->n) return r->fn(r->arg, s, n, r->err);
    const hd_split *sp = &r->p->split[k];
    if (!sp->code) {
        if (s[0] == ' ') return cut(r, k + 1, s, n);
        hd_buf b = r->w->prefixed; // taken while in use: a second such stage gets its own
        hd_buf_init(&r->w->prefixed, SIZE_MAX);
        hd_buf_clear(&b);
        st = hd_buf_adds(&b, " ", r->err);
        if (st == HD_OK) st = hd_buf_add(&b, s, n, r->err);
        if (st == HD_OK) st = cut(r, k + 1, b.data, b.len);
        hd_buf_free(&r->w->prefixed);
        r->w->prefixed = b;
        return st;
    }
    joiner j = {0};
    for (size_t at = 0, from = 0, to = 0; at < n; at = to) {
        HD_TRY(find_match(r, k, s, n, at, &from, &to));
        if (from > at) HD_TRY(piece(r, k, s, &j, at, from, false));
        if (to > from) HD_TRY(piece(r, k, s, &j, from, to, true));
    }
    return flush(r, k, s, &j);
fail:
    return st;
}

void hd_pretok_begin(hd_pretok_work *w, size_t n) { w->deadline = cpu_s() + SECONDS_BASE + (double)n / BYTES_PER_SECOND; }

hd_status hd_pretok_run(const hd_pretok *p, hd_pretok_work *w, const char *s, size_t n, hd_piece_fn *fn, void *arg,
                        hd_err *err)
{
    run r = {.p = p, .w = w, .fn = fn, .arg = arg, .err = err};
    return cut(&r, 0, s, n);
}
