/* The tokenizer of a GGUF file: tokenizer.ggml.tokens, token_type, merges, pre.  Only byte-level BPE
 * ("gpt2") is known. */
#include <string.h>

#include "base/log.h"
#include "model/tokenizer_impl.h"

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

static hd_token_kind kind_of(const hd_gguf_kv *types, uint64_t i, hd_gguf_str s)
{
    int64_t type = TYPE_NORMAL;
    if (types) hd_gguf_arr_i64(types, i, &type);
    if (type == TYPE_NORMAL || type == TYPE_BYTE) return HD_TOKEN_NORMAL;
    if (type == TYPE_USER_DEFINED && !hd_looks_special(s.p, s.n)) return HD_TOKEN_ADDED;
    return HD_TOKEN_SPECIAL;
}

static const hd_gguf_kv *strings(const hd_gguf *g, const char *key)
{
    const hd_gguf_kv *kv = hd_gguf_find(g, key);
    return kv && kv->type == HD_GGUF_ARR && kv->elem == HD_GGUF_STR && kv->n > 0 ? kv : NULL;
}

static hd_status read_tokens(hd_tokenizer *t, const hd_gguf *g, hd_err *err)
{
    hd_status st;
    hd_gguf_str s;
    const hd_gguf_kv *tokens = strings(g, "tokenizer.ggml.tokens"), *types = hd_gguf_find(g, "tokenizer.ggml.token_type");
    if (!tokens) return hd_fail(err, HD_FORMAT, "tokenizer: tokenizer.ggml.tokens: no list of strings");
    if (types && (types->type != HD_GGUF_ARR || types->n != tokens->n))
        return hd_fail(err, HD_FORMAT, "tokenizer: tokenizer.ggml.token_type: not as long as the list of tokens");

    int64_t n_added = 0;
    size_t added_bytes = 0, pos = 0;
    for (uint64_t i = 0; hd_gguf_arr_str(tokens, &pos, &s); i++)
        if (kind_of(types, i, s) != HD_TOKEN_NORMAL) {
            n_added++;
            added_bytes += s.n;
        }
    HD_TRY(hd_vocab_open(&t->vocab, tokens->n > INT32_MAX ? INT32_MAX : (int64_t)tokens->n, tokens->bytes, err));
    HD_TRY(hd_added_open(&t->raw, n_added, added_bytes, err));
    pos = 0;
    for (int64_t i = 0; i < t->vocab.n; i++) {
        if (!hd_gguf_arr_str(tokens, &pos, &s))
            return hd_fail(err, HD_FORMAT, "tokenizer: tokenizer.ggml.tokens: ends at %lld", (long long)i);
        hd_token_kind kind = kind_of(types, (uint64_t)i, s);
        HD_TRY(hd_vocab_set(&t->vocab, i, s.p, s.n, kind, "tokenizer.ggml.tokens", err));
        if (kind != HD_TOKEN_NORMAL)
            HD_TRY(hd_added_put(&t->raw, s.p, s.n, (hd_added){.id = (int32_t)i, .special = kind == HD_TOKEN_SPECIAL}, err));
    }
    return HD_OK;
fail:
    return st;
}

/* One line, "left right"; neither side can hold a space, for the byte alphabet has none. */
static hd_status read_merges(hd_tokenizer *t, const hd_gguf *g, hd_err *err)
{
    hd_status st;
    char side[2][HD_MAX_TOKEN_BYTES];
    const hd_gguf_kv *merges = strings(g, "tokenizer.ggml.merges");
    if (!merges) return hd_fail(err, HD_FORMAT, "tokenizer: tokenizer.ggml.merges: no list of strings");
    HD_TRY(hd_bpe_open(&t->bpe, merges->n > INT32_MAX ? INT32_MAX : (int64_t)merges->n, err));
    hd_gguf_str s;
    size_t pos = 0;
    for (int64_t i = 0; hd_gguf_arr_str(merges, &pos, &s); i++) {
        const char *gap = s.n ? memchr(s.p, ' ', s.n) : NULL;
        size_t a = gap ? (size_t)(gap - s.p) : 0, b = gap ? s.n - a - 1 : 0;
        if (a == 0 || b == 0 || a > HD_MAX_TOKEN_BYTES || b > HD_MAX_TOKEN_BYTES || !hd_unspell(side[0], &a, s.p, a) ||
            !hd_unspell(side[1], &b, gap + 1, b))
            return hd_fail(err, HD_FORMAT, "tokenizer: tokenizer.ggml.merges: line %lld is no pair of byte-level tokens",
                           (long long)i);
        HD_TRY(hd_bpe_add(&t->bpe, &t->vocab, i, side[0], a, side[1], b, err));
    }
    return HD_OK;
fail:
    return st;
}

hd_status hd_tokenizer_from_gguf(hd_tokenizer **out, const hd_gguf *g, hd_err *err)
{
    hd_status st;
    hd_tokenizer *t = NULL;
    hd_gguf_str s;
    char pre[65] = "default";
    bool nfc = false, ignore_merges = false;
    int64_t bos = -1;

    if (!hd_gguf_string(g, "tokenizer.ggml.model", &s))
        return hd_fail(err, HD_FORMAT, "tokenizer: tokenizer.ggml.model: the file holds no tokenizer");
    if (s.n != 4 || memcmp(s.p, "gpt2", 4) != 0)
        return hd_fail(err, HD_UNSUPPORTED, "tokenizer: tokenizer.ggml.model: '%.*s' is unknown; known: gpt2",
                       (int)(s.n < 64 ? s.n : 64), s.p);
    if (!hd_gguf_string(g, "tokenizer.ggml.pre", &s))
        hd_warn("the file has no tokenizer.ggml.pre: words are cut the 'default' way, which may not be the model's");
    else if (s.n < sizeof pre) {
        memcpy(pre, s.p, s.n);
        pre[s.n] = 0;
    } else memcpy(pre, s.p, sizeof pre - 1);

    HD_TRY(hd_tokenizer_new(&t, err));
    HD_TRY(hd_pretok_named(&t->pretok, pre, &nfc, &ignore_merges, err));
    if (nfc) t->normal[t->n_normal++] = HD_NFC;
    HD_TRY(read_tokens(t, g, err));
    HD_TRY(read_merges(t, g, err));
    t->bpe.ignore_merges = ignore_merges;
    if (hd_gguf_i64(g, "tokenizer.ggml.bos_token_id", &bos) && bos >= 0 && bos < t->vocab.n) t->bos = (int32_t)bos;
    t->adds_bos = strcmp(pre, "llama-bpe") == 0; // where the file does not say, as llama.cpp does
    hd_gguf_bool(g, "tokenizer.ggml.add_bos_token", &t->adds_bos);
    HD_TRY(hd_tokenizer_finish(t, err));
    *out = t;
    return HD_OK;
fail:
    hd_tokenizer_close(t);
    return st;
}
