/* See pretok_quick.h.  These patterns match at every place of a text, so one function stands for a search:
 *
 *   GPT-2     '(?:[sdmt]|ll|ve|re)         | ?\p{L}+               | ?\p{N}+           | ?[^\s\p{L}\p{N}]+         |spaces
 *   DIGITS    (?i:'s|'t|'re|'ve|'m|'ll|'d) |[^\r\n\p{L}\p{N}]?\p{L}+ |\p{N} or \p{N}{1,3} | ?[^\s\p{L}\p{N}]+[\r\n]* |lines |spaces
 *   (NUMBERS)
 *   lines     \s*[\r\n]+          up to the last line end of the white space
 *   spaces    \s+(?!\S)|\s+       all of it; before a word all but the last, which belongs to the word, unless it is alone
 *
 * As soon as a byte matters that is no printable ASCII and no white space, the answer is 0.  Novels, English
 * and French, are cut at 137 MB/s; by PCRE2 alone at 46 (DIGITS) and 59 (GPT-2). */
#include "model/pretok_quick.h"

#include <stdbool.h>
#include <stdint.h>

enum { UNSURE, LETTER, DIGIT, SPACE, LINE, OTHER }; // LINE: \r and \n

static const uint8_t class_of[256] = {
    ['\t'] = SPACE,        ['\v'] = SPACE,         ['\f'] = SPACE,        [' '] = SPACE,
    ['\n'] = LINE,         ['\r'] = LINE,          ['!' ... '/'] = OTHER, ['0' ... '9'] = DIGIT,
    [':' ... '@'] = OTHER, ['A' ... 'Z'] = LETTER, ['[' ... '`'] = OTHER, ['a' ... 'z'] = LETTER,
    ['{' ... '~'] = OTHER, // all others: UNSURE
};

typedef struct {
    const char *s;
    size_t n;
} text;

/* Behind the end: something that stops every run and is no white space. */
enum { END = OTHER + 1 };
static inline int class_at(text t, size_t i) { return i < t.n ? class_of[(uint8_t)t.s[i]] : END; }

/* The end of the run of one class from i on; 0: it may go on beyond ASCII. */
static inline size_t run_end(text t, size_t i, int class)
{
    int c;
    while ((c = class_at(t, i)) == class) i++;
    return c == UNSURE ? 0 : i;
}

static inline bool is_space(int class) { return class == SPACE || class == LINE; }

/* 's 't 'm 'd 're 've 'll at an apostrophe; 0: none of them. */
static size_t contraction(text t, size_t at, bool any_case)
{
    char low[2] = {0};
    for (size_t i = 0; i < 2 && at + 1 + i < t.n; i++)
        low[i] = any_case ? (char)(t.s[at + 1 + i] | 0x20) : t.s[at + 1 + i];
    bool one = low[0] == 's' || low[0] == 't' || low[0] == 'm' || low[0] == 'd';
    bool two = (low[0] == 'r' && low[1] == 'e') || (low[0] == 'v' && low[1] == 'e') ||
               (low[0] == 'l' && low[1] == 'l');
    return one ? at + 2 : two ? at + 3 : 0;
}

static size_t white(text t, size_t at, bool lines)
{
    size_t end = at, last = 0;
    int c;
    for (; is_space(c = class_at(t, end)); end++)
        if (c == LINE) last = end + 1;
    if (c == UNSURE) return 0;
    if (lines && last) return last;
    return c == END || end - at == 1 ? end : end - 1;
}

static size_t gpt2(text t, size_t at)
{
    int c = class_at(t, at), next;
    size_t end;
    if (t.s[at] == '\'' && (end = contraction(t, at, false))) return end;
    if (is_space(c)) {
        if (t.s[at] != ' ') return white(t, at, false);
        next = class_at(t, at + 1);
        if (next == UNSURE) return 0;
        if (is_space(next) || next == END) return white(t, at, false);
        return run_end(t, at + 1, next);
    }
    return run_end(t, at, c);
}

static size_t llama3(text t, size_t at, int most_digits)
{
    int c = class_at(t, at), next = class_at(t, at + 1);
    size_t end;
    if (t.s[at] == '\'') {
        if (next == UNSURE) return 0; // a long s is an s to who ignores case
        if ((end = contraction(t, at, true))) return end;
    }
    if (c == LETTER) return run_end(t, at, LETTER);
    if (c == DIGIT) {
        int k = 1;
        while (k < most_digits && class_at(t, at + (size_t)k) == DIGIT) k++;
        return k < most_digits && class_at(t, at + (size_t)k) == UNSURE ? 0 : at + (size_t)k;
    }
    if (c != LINE && next == UNSURE) return 0;
    if (c != LINE && next == LETTER) return run_end(t, at + 1, LETTER);
    if (c == OTHER || (t.s[at] == ' ' && next == OTHER)) {
        end = run_end(t, at + 1, OTHER);
        while (end && class_at(t, end) == LINE) end++;
        return end;
    }
    return white(t, at, true);
}

size_t hd_quick_match(hd_quick kind, const char *s, size_t n, size_t at)
{
    text t = {s, n};
    if (class_at(t, at) == UNSURE) return 0;
    switch (kind) {
    case HD_QUICK_GPT2: return gpt2(t, at);
    case HD_QUICK_DIGITS: return llama3(t, at, 1);
    case HD_QUICK_NUMBERS: return llama3(t, at, 3);
    case HD_QUICK_NONE: break;
    }
    return 0;
}
