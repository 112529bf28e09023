/* See bpe_train.h: options checked, words counted, merges learnt, files written. */
#include "train/bpe_train.h"

#include <string.h>

#include "base/utf8.h"
#include "model/added.h"
#include "train/bpe_impl.h"

enum { N_BYTES = 256, MAX_VOCAB = 1 << 22, MAX_SPECIAL = 4096 };

typedef struct {
    const char **token;
    int n;
} specials;

static hd_status add_special(specials *s, const char *token, hd_err *err)
{
    size_t n = strlen(token), n_chars = 0;
    int32_t c;
    for (size_t i = 0; i < n; n_chars++) {
        i += (size_t)hd_utf8_next((const uint8_t *)token + i, n - i, &c);
        if (c < 0) return hd_fail(err, HD_USAGE, "tokenizer: special token '%.40s': invalid UTF-8", token);
    }
    if (n_chars < 2 || n > HD_MAX_ADDED_BYTES)
        return hd_fail(err, HD_USAGE,
                       "tokenizer: special token '%.40s': two characters to %d bytes are allowed", token,
                       HD_MAX_ADDED_BYTES);
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->token[i], token) == 0) return HD_OK;
    s->token[s->n++] = token;
    return HD_OK;
}

static hd_status collect_specials(specials *s, const hd_bpe_opts *o, const hd_chat_template *chat,
                                  hd_err *err)
{
    hd_status st;
    if (o->n_special < 0 || o->n_special > MAX_SPECIAL)
        return hd_fail(err, HD_USAGE, "tokenizer: at most %d special tokens", MAX_SPECIAL);
    HD_TRY(hd_alloc_n(&s->token, (size_t)o->n_special + HD_TEMPLATE_SPECIALS + 1, sizeof *s->token, err));
    for (int i = 0; chat && i < HD_TEMPLATE_SPECIALS && chat->special[i]; i++)
        HD_TRY(add_special(s, chat->special[i], err));
    for (int i = 0; i < o->n_special; i++) HD_TRY(add_special(s, o->special[i], err));
    if (s->n == 0) HD_TRY(add_special(s, "<|endoftext|>", err));
    if (o->n_vocab < N_BYTES + s->n || o->n_vocab > MAX_VOCAB)
        st = hd_fail(
            err, HD_USAGE,
            "tokenizer: a vocabulary of %lld: %d to %d are possible, for %d bytes and %d special tokens",
            (long long)o->n_vocab, N_BYTES + s->n, MAX_VOCAB, N_BYTES, s->n);
fail:
    return st;
}

hd_status hd_bpe_train(const char *dir, const char *const *files, int n_files, const hd_bpe_opts *o,
                       hd_bpe_report *r, hd_err *err)
{
    hd_status st;
    const hd_chat_template *chat = NULL;
    specials s = {0};
    hd_pool *pool = NULL;
    hd_words words = {0};
    hd_bpe_learnt learnt = {0};
    double t0 = hd_now_s(), t1;
    if (n_files < 1) return hd_fail(err, HD_USAGE, "tokenizer: no files to learn from");
    if (o->chat_format) HD_TRY(hd_chat_template_find(&chat, o->chat_format, err));
    HD_TRY(collect_specials(&s, o, chat, err));
    HD_TRY(hd_pool_open(&pool, o->n_threads, err));
    HD_TRY(hd_bpe_count(&words, pool, files, n_files, o, err));
    if (words.n_words == 0) HD_TRY(hd_fail(err, HD_FORMAT, "tokenizer: %s: no text in the files", files[0]));
    if (words.least_kept)
        hd_warn(
            "tokenizer: memory for words is full: words seen less than %lld times were dropped as they came",
            (long long)words.least_kept);
    t1 = hd_now_s();
    HD_TRY(hd_bpe_learn(&learnt, &words, o->n_vocab - s.n, o->min_count ? o->min_count : 2, s.token, s.n,
                        o->progress, o->stop, err));
    *r = (hd_bpe_report){.bytes = words.bytes,
                         .words = words.n_words,
                         .distinct = hd_words_distinct(&words),
                         .merges = learnt.n_join,
                         .n_vocab = learnt.n + s.n,
                         .dropped = words.n_dropped,
                         .count_s = t1 - t0,
                         .merge_s = hd_now_s() - t1,
                         .bytes_per_token = learnt.n_tokens > 0 ? learnt.n_bytes / learnt.n_tokens : 0};
    HD_TRY(hd_bpe_write(dir, &learnt, o->digits, s.token, s.n, chat, err));
    r->seconds = hd_now_s() - t0;
fail:
    hd_bpe_learnt_close(&learnt);
    hd_words_close(&words);
    hd_pool_close(pool);
    free(s.token);
    return st;
}
