/* See vocab.h.  Tokens lie one after another in one blob; the index is a table of ids twice as large
 * as their number. */
#include "model/vocab.h"

#include <string.h>
#include <sys/random.h>

uint64_t hd_hash_seed(void)
{
    uint64_t s = 0;
    if (getrandom(&s, sizeof s, GRND_NONBLOCK) != sizeof s) s = (uint64_t)(uintptr_t)&s; // early boot: the address varies
    return s | 1;
}

uint64_t hd_hash_bytes(const void *p, size_t n, uint64_t seed)
{
    const uint8_t *s = p;
    uint64_t h = seed ^ n * 0x9e3779b97f4a7c15u, w;
    for (; n > 8; n -= 8, s += 8) {
        memcpy(&w, s, 8);
        h = hd_fold(h ^ w, 0xa0761d6478bd642fu);
    }
    w = 0;
    for (size_t i = 0; i < n; i++) w |= (uint64_t)s[i] << 8 * i;
    h = hd_fold(h ^ w, 0xe7037ed1a0b428dbu);
    return hd_fold(h ^ seed, 0x8ebc6af09c88c6e3u);
}

bool hd_unspell(char *out, size_t *n_out, const char *s, size_t n)
{
    const uint8_t *u = (const uint8_t *)s;
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        unsigned c = u[i];
        if (c < 0x80) i++;
        else if ((c & 0xe0) == 0xc0 && i + 1 < n && (u[i + 1] & 0xc0) == 0x80) {
            c = (c & 0x1f) << 6 | (u[i + 1] & 0x3f);
            i += 2;
        } else return false;

        if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xff && c != 0xad)) out[k++] = (char)c;
        else if (c >= 0x100 && c <= 0x120) out[k++] = (char)(c - 0x100);        // 0x00 - 0x20
        else if (c >= 0x121 && c <= 0x142) out[k++] = (char)(c - 0x121 + 0x7f); // 0x7f - 0xa0
        else if (c == 0x143) out[k++] = (char)0xad;
        else return false;
    }
    *n_out = k;
    return true;
}

hd_status hd_vocab_open(hd_vocab *v, int64_t n, size_t n_bytes, hd_err *err)
{
    hd_status st;
    *v = (hd_vocab){.n = n, .cap = n_bytes, .seed = hd_hash_seed()};
    if (n < 1 || n > INT32_MAX / 4) return hd_fail(err, HD_FORMAT, "tokenizer: vocabulary: %lld ids", (long long)n);
    if (n_bytes > UINT32_MAX) return hd_fail(err, HD_LIMIT, "tokenizer: vocabulary: more than 4 GiB of text");
    size_t slots = 64;
    while (slots < (size_t)n * 2) slots *= 2;
    v->mask = slots - 1;
    HD_TRY(hd_alloc_n(&v->off, (size_t)n, sizeof *v->off, err));
    HD_TRY(hd_alloc_n(&v->len, (size_t)n, sizeof *v->len, err));
    HD_TRY(hd_alloc_n(&v->kind, (size_t)n, 1, err));
    HD_TRY(hd_alloc(&v->blob, n_bytes, err));
    HD_TRY(hd_alloc_n(&v->slot, slots, sizeof *v->slot, err));
    memset(v->slot, 0xff, slots * sizeof *v->slot);
    return HD_OK;
fail:
    hd_vocab_close(v);
    return st;
}

void hd_vocab_close(hd_vocab *v)
{
    free(v->off);
    free(v->len);
    free(v->kind);
    free(v->blob);
    free(v->slot);
    *v = (hd_vocab){0};
}

/* The slot that holds these bytes, or the free one where they belong.  The table is at most half full. */
static size_t slot_of(const hd_vocab *v, const void *bytes, size_t n)
{
    size_t i = hd_hash_bytes(bytes, n, v->seed) & v->mask;
    for (; v->slot[i] >= 0; i = (i + 1) & v->mask) {
        int32_t id = v->slot[i];
        if (v->len[id] == n && memcmp(v->blob + v->off[id], bytes, n) == 0) break;
    }
    return i;
}

int32_t hd_vocab_find(const hd_vocab *v, const void *bytes, size_t n) { return v->slot[slot_of(v, bytes, n)]; }

hd_status hd_vocab_set(hd_vocab *v, int64_t id, const char *s, size_t n, hd_token_kind kind, const char *where, hd_err *err)
{
    if (id < 0 || id >= v->n)
        return hd_fail(err, HD_FORMAT, "tokenizer: %s: id %lld is not below %lld", where, (long long)id, (long long)v->n);
    if (v->kind[id] != HD_TOKEN_HOLE)
        return hd_fail(err, HD_FORMAT, "tokenizer: %s: id %lld is defined twice", where, (long long)id);
    if (n > HD_MAX_TOKEN_BYTES || n > v->cap - v->used)
        return hd_fail(err, HD_FORMAT, "tokenizer: %s: token %lld is %zu bytes long", where, (long long)id, n);

    char *to = v->blob + v->used;
    bool index = kind != HD_TOKEN_NORMAL || hd_unspell(to, &n, s, n);
    if ((kind != HD_TOKEN_NORMAL || !index) && n) memcpy(to, s, n);
    v->off[id] = (uint32_t)v->used;
    v->len[id] = (uint32_t)n;
    v->kind[id] = (uint8_t)kind;
    v->used += n;
    if (!index || n == 0) return HD_OK;
    int32_t *slot = &v->slot[slot_of(v, to, n)];
    bool normal = kind == HD_TOKEN_NORMAL, old_normal = *slot >= 0 && v->kind[*slot] == HD_TOKEN_NORMAL;
    if (*slot < 0 || (normal && !old_normal) || (normal == old_normal && *slot > id)) *slot = (int32_t)id;
    return HD_OK;
}
