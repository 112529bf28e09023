/* The same words in other tokens.
 *
 * A model may say "the" as t + he; the next turn's prompt tokenizes the history anew and has "the".  The
 * ids differ from there on, though every byte is the same, and all that was computed behind would be lost.
 * So the timelines that ended are kept as ids, and a prompt is compared with them by bytes: where both are
 * at the border of a token, the prompt may as well be spelled as the timeline was - as the model itself
 * chose to say it.
 *
 *      timeline   A B C | t he | c at | .            prompt   A B C | the | cat | . | <user> ...
 *                 same    \_ the same bytes _/       written  A B C | t he | c at | . | <user> ...
 *
 * Marks (special tokens) have no bytes that count: they must be the same id. */
#include "serve/past.h"

#include <string.h>

#include "kernels/attn.h" // HD_PAGE_TOK

enum { MAX_IDS = 1 << 20 };

static void forget(hd_past *p, int i)
{
    p->n_ids -= p->text[i].ids.n;
    hd_ids_free(&p->text[i].ids);
    p->text[i] = p->text[--p->n];
}

void hd_past_free(hd_past *p)
{
    while (p->n > 0) forget(p, p->n - 1);
}

static int64_t common(const hd_ids *a, const hd_ids *b)
{
    int64_t n = 0;
    while (n < a->n && n < b->n && a->id[n] == b->id[n]) n++;
    return n;
}

void hd_past_note(hd_past *p, uint64_t user, hd_ids *ids)
{
    for (int i = p->n - 1; i >= 0; i--)
        if (p->text[i].user == user && common(&p->text[i].ids, ids) == p->text[i].ids.n) forget(p, i);
    while (p->n > 0 && (p->n == HD_MAX_PAST || p->n_ids + ids->n > MAX_IDS)) {
        int oldest = 0;
        for (int i = 1; i < p->n; i++)
            if (p->text[i].used < p->text[oldest].used) oldest = i;
        forget(p, oldest);
    }
    p->n_ids += ids->n;
    p->text[p->n++] = (hd_past_text){user, ++p->clock, *ids};
    *ids = (hd_ids){0};
}

/* The last pair of token borders up to which a and b say the same bytes, from (*i, *j), where they do. */
static void walk(const hd_tokenizer *t, const hd_ids *a, const hd_ids *b, int64_t *i, int64_t *j)
{
    int64_t x = *i, y = *j;
    const char *p = NULL, *q = NULL;
    size_t np = 0, nq = 0; // bytes left of the tokens before x and y
    for (;;) {
        if (np == 0 && nq == 0) {
            *i = x, *j = y;
            if (x == a->n || y == b->n) return;
            bool mark = hd_tokenizer_is_special(t, a->id[x]) || hd_tokenizer_is_special(t, b->id[y]);
            if (mark) {
                if (a->id[x++] != b->id[y++]) return;
                continue;
            }
        }
        if (np == 0) {
            if (x == a->n || hd_tokenizer_is_special(t, a->id[x])) return;
            p = hd_tokenizer_bytes(t, a->id[x++], &np);
        }
        if (nq == 0) {
            if (y == b->n || hd_tokenizer_is_special(t, b->id[y])) return;
            q = hd_tokenizer_bytes(t, b->id[y++], &nq);
        }
        size_t n = np < nq ? np : nq;
        if (!p || !q || n == 0 || memcmp(p, q, n) != 0) return;
        p += n, q += n, np -= n, nq -= n;
    }
}

bool hd_past_spelled(hd_past *p, const hd_tokenizer *t, uint64_t user, const hd_ids *v, int64_t known, hd_ids *out)
{
    int64_t best_i = 0, best_j = known + HD_PAGE_TOK - 1;
    hd_past_text *best = NULL;
    for (int k = 0; t && k < p->n; k++) {
        hd_past_text *x = &p->text[k];
        if (x->user != user || x->ids.n <= best_j) continue;
        int64_t i = common(&x->ids, v), j = i;
        if (i == x->ids.n || i + HD_PAGE_TOK <= known) continue; // nothing to gain: it is known as it is, or parts too early
        walk(t, v, &x->ids, &i, &j);
        if (j > best_j) best = x, best_i = i, best_j = j;
    }
    if (!best) return false;
    best->used = ++p->clock;
    hd_status st = HD_OK;
    for (int64_t k = 0; k < best_j; k++) HD_TRY(hd_ids_add(out, best->ids.id[k], NULL));
    for (int64_t k = best_i; k < v->n; k++) HD_TRY(hd_ids_add(out, v->id[k], NULL));
fail:
    if (st != HD_OK) hd_ids_free(out);
    return st == HD_OK;
}
