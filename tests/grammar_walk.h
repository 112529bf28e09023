/* A random walk through a grammar: at each step any id that the mask leaves, until the text ends.  After a
 * while impatience prefers closing bytes, so that walks come to an end. */
#ifndef HD_TESTS_GRAMMAR_WALK_H
#define HD_TESTS_GRAMMAR_WALK_H

#include <math.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "base/utf8.h"
#include "infer/grammar.h"
#include "model/tokenizer_impl.h"

enum { WALK_STOP = -1 };

typedef struct {
    hd_buf text;
    int n_tok;
    bool ended;
    double mask_s, worst_s; // processor's time of all masks, of the slowest
} walk_result;

static inline double walk_cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The one byte of an id's text, or -1. */
static inline int walk_byte(const hd_tokenizer *t, int32_t id)
{
    size_t n = 0;
    const char *s = hd_tokenizer_bytes(t, id, &n);
    return s && n == 1 && !hd_tokenizer_is_special(t, id) ? (uint8_t)s[0] : -1;
}

/* Of the ids that are left: any, or (impatient) one that closes something, else one of a single
 * printable character. */
static inline int32_t walk_pick(const float *logits, int64_t n, int32_t stop, hd_rng *rng, const hd_tokenizer *t,
                                bool impatient)
{
    int32_t pick = WALK_STOP;
    int best = 0, n_best = 0;
    bool close = impatient && hd_rng_unit(rng) < 0.5;
    for (int64_t i = 0; i < n; i++) {
        if (!(logits[i] > -INFINITY)) continue;
        int byte = impatient ? walk_byte(t, (int32_t)i) : -1;
        int worth = i == stop ? (impatient ? 5 : 1) : byte > ' ' && byte < 0x7f ? 2 : 1;
        if (close && byte > 0 && strchr("]}\"", byte)) worth = byte == '"' ? 4 : 3;
        if (worth < best) continue;
        if (worth > best) n_best = 0;
        best = worth;
        if (hd_rng_unit(rng) * ++n_best < 1) pick = (int32_t)i; // each of the best with the same probability
    }
    return pick;
}

/* stop: the id that ends a turn. */
static inline hd_status walk(walk_result *r, hd_grammar *g, const hd_tokenizer *t, int32_t stop, hd_rng *rng, int max_tok,
                             hd_err *err)
{
    hd_status st;
    hd_grammar_state *s = NULL;
    int64_t n = hd_tokenizer_n_vocab(t) + 3; // models have more rows than words
    float *logits = NULL;
    hd_buf_init(&r->text, 1 << 24);
    r->n_tok = 0;
    r->ended = false;
    r->mask_s = r->worst_s = 0;
    HD_TRY(hd_alloc_n(&logits, (size_t)n, sizeof *logits, err));
    HD_TRY(hd_grammar_state_open(&s, g, t, err));
    while (r->n_tok < max_tok) {
        for (int64_t i = 0; i < n; i++) logits[i] = 0;
        double t0 = walk_cpu_s();
        HD_TRY(hd_grammar_mask(s, logits, n, &stop, 1, err));
        t0 = walk_cpu_s() - t0;
        r->mask_s += t0;
        if (t0 > r->worst_s) r->worst_s = t0;
        int32_t id = walk_pick(logits, n, stop, rng, t, r->n_tok > 12 + (int)(hd_rng_unit(rng) * 60));
        if (id == stop || id == WALK_STOP) {
            r->ended = id == stop;
            break;
        }
        HD_TRY(hd_grammar_accept(s, id, err));
        HD_TRY(hd_tokenizer_decode(t, &id, 1, false, &r->text, err));
        r->n_tok++;
    }
fail:
    hd_grammar_state_close(s);
    free(logits);
    return st;
}

/* ---- A tokenizer of all bytes, some words, halves of characters, and two special tokens ---- */

static inline void walk_spell(char *out, const char *bytes, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        int b = (uint8_t)bytes[i], k = 0;
        bool self = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        for (int c = 0; c < b && !self; c++) k += !((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || c >= 0xae);
        len += (size_t)hd_utf8_put(out + len, self ? b : 0x100 + k);
    }
    out[len] = 0;
}

static inline hd_status walk_tokenizer(hd_tokenizer **out, int32_t *stop, hd_err *err)
{
    static const char *const words[] = {
        "{\"", "\":", "\": ", "\": \"", "\",", "\", \"", "\"}", "}}", "]}", ", ", ",\"", "},{", "[{", "null", "true", "false", "nu",
        "se", "the", " the", "name", "\"name", "age", "value", "a", "ab", "abc", "abcd", "\\\"", "\\u", "\\n", "00", "123", "12",
        "1.5", "-1", "e+", "2024", "-02-", "\xc3\xa9", "\xe4\xb8\xad", "\xe6\x96", "\xf0\x9f", "\x98\x80", "\xf0\x9f\x98\x80",
        "\xa9 x", "caf\xc3", "    ", "\n\n", "()", "hello world, this is a long word of many characters, more than 32", "x\"y"};
    json_t *vocab = json_object(), *added = json_array();
    char text[512];
    int id = 0;
    for (int b = 0; b < 256; b++) {
        char c = (char)b;
        walk_spell(text, &c, 1);
        json_object_set_new(vocab, text, json_integer(id++));
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        walk_spell(text, words[i], strlen(words[i]));
        if (!json_object_get(vocab, text)) json_object_set_new(vocab, text, json_integer(id++));
    }
    *stop = id;
    json_array_append_new(added, json_pack("{s:i, s:s, s:b}", "id", id++, "content", "<|end|>", "special", 1));
    json_array_append_new(added, json_pack("{s:i, s:s, s:b}", "id", id++, "content", "<|start|>", "special", 1));
    json_t *j = json_pack("{s:n, s:{s:s, s:b, s:b}, s:{s:s, s:o, s:[]}, s:o}", "normalizer", "pre_tokenizer", "type",
                          "ByteLevel", "add_prefix_space", 0, "use_regex", 1, "model", "type", "BPE", "vocab", vocab, "merges",
                          "added_tokens", added);
    hd_status st = hd_tokenizer_from_json(out, j, NULL, err);
    json_decref(j);
    return st;
}

#endif
