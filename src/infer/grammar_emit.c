/* From the tree to the program, backwards: emit(node, to) makes the points that read the node and then go on
 * at `to`, and gives the first of them.  What comes behind is always known, so nothing is patched but loops.
 *
 * Recursion is as deep as the tree, which its readers keep under some hundred levels. */
#include <string.h>

#include "infer/grammar_impl.h"

typedef struct {
    hd_program *p;
    hd_builder *b;
} emitter;

static int32_t put(emitter *e, hd_point_kind kind, int32_t a, int32_t b)
{
    hd_program *p = e->p;
    if (e->b->st != HD_OK) return 0;
    if (p->n_point >= HD_GRAMMAR_POINTS) {
        hd_builder_fail(e->b, HD_LIMIT, "grammar: too large: more than %d points", HD_GRAMMAR_POINTS);
        return 0;
    }
    if (p->n_point == p->cap_point) {
        int32_t more = p->cap_point ? p->cap_point * 2 : 256;
        e->b->st = hd_realloc(&p->point, (size_t)more * sizeof *p->point, e->b->err);
        if (e->b->st != HD_OK) return 0;
        p->cap_point = more;
    }
    p->point[p->n_point] = (hd_point){.kind = (uint8_t)kind, .need = HD_NEVER, .a = a, .b = b};
    return p->n_point++;
}

/* Sets of one byte have the byte's index: hd_program_emit puts them there. */
static int32_t literal(emitter *e, const uint8_t *s, int32_t n, int32_t to)
{
    for (int32_t i = n - 1; i >= 0; i--) to = put(e, HD_POINT_SET, s[i], to);
    return to;
}

/* ---- Words: alternatives that are texts, read as a tree ---- */

typedef struct {
    const uint8_t *s;
    int32_t n;
} word;

static int by_bytes(const void *pa, const void *pb)
{
    const word *a = pa, *b = pb;
    int c = memcmp(a->s, b->s, (size_t)(a->n < b->n ? a->n : b->n));
    return c != 0 ? c : (a->n > b->n) - (a->n < b->n);
}

enum { WORDS_DEPTH = 64 }; // forks on one word's way; further ones are left to the automaton

/* Sorted words w[0..n) that agree in their first `at` bytes. */
static int32_t words(emitter *e, const word *w, int32_t n, int32_t at, int depth, int32_t to)
{
    int32_t all = -1, i = 0;
    if (n == 1) return literal(e, w->s + at, w->n - at, to);
    int32_t same = at;
    while (same < w[0].n && same < w[n - 1].n && w[0].s[same] == w[n - 1].s[same]) same++;
    while (i < n && w[i].n == same) all = to, i++; // words that end here
    while (i < n && e->b->st == HD_OK) {
        int32_t k = i + 1;
        if (depth < WORDS_DEPTH)
            while (k < n && w[k].s[same] == w[i].s[same]) k++;
        int32_t one = words(e, w + i, k - i, same, depth + 1, to);
        all = all < 0 ? one : put(e, HD_POINT_SPLIT, one, all);
        i = k;
    }
    return literal(e, w->s + at, same - at, all);
}

static int32_t emit(emitter *e, int32_t node, int32_t to);

static int32_t alternatives(emitter *e, const hd_node *n, int32_t to)
{
    int32_t all = -1, n_word = 0, at = 0;
    word *w = NULL;
    for (int32_t c = n->last; c >= 0; c = e->b->node[c].before)
        n_word += e->b->node[c].kind == HD_NODE_LITERAL;
    hd_status st = hd_alloc_n(&w, (size_t)n_word, sizeof *w, e->b->err);
    if (st != HD_OK) e->b->st = st;
    for (int32_t c = n->last; c >= 0 && e->b->st == HD_OK; c = e->b->node[c].before) {
        const hd_node *k = &e->b->node[c];
        if (k->kind == HD_NODE_LITERAL) {
            w[at++] = (word){(const uint8_t *)e->b->pool.data + k->a, k->b};
            continue;
        }
        int32_t one = emit(e, c, to);
        all = all < 0 ? one : put(e, HD_POINT_SPLIT, one, all);
    }
    if (e->b->st == HD_OK && n_word > 0) {
        qsort(w, (size_t)n_word, sizeof *w, by_bytes);
        int32_t one = words(e, w, n_word, 0, 0, to);
        all = all < 0 ? one : put(e, HD_POINT_SPLIT, one, all);
    }
    free(w);
    return all < 0 ? to : all;
}

/* Each copy makes a point of its own, so that the cap on points also bounds the time of copies of nothing. */
static int32_t repeat(emitter *e, const hd_node *n, int32_t to)
{
    int32_t m = n->a, child = n->last, end = to;
    if (n->b < 0) {
        int32_t loop = put(e, HD_POINT_SPLIT, to, to);
        int32_t body = emit(e, child, loop);
        if (e->b->st != HD_OK) return 0;
        e->p->point[loop].a = body;
        to = m > 0 ? body : loop;
        m--;
    }
    for (int32_t i = n->b; i > n->a && e->b->st == HD_OK; i--)
        to = put(e, HD_POINT_SPLIT, emit(e, child, to), end);
    for (int32_t i = 0; i < m && e->b->st == HD_OK; i++) {
        int32_t next = emit(e, child, to);
        to = next == to ? put(e, HD_POINT_SPLIT, to, to) : next;
    }
    return to;
}

static int32_t children_of(const emitter *e, const hd_node *n)
{
    int32_t count = 0;
    for (int32_t c = n->last; c >= 0; c = e->b->node[c].before) count++;
    return count;
}

static int32_t chain(emitter *e, const hd_node *n, int32_t to)
{
    int32_t i = children_of(e, n), end = to;
    for (int32_t c = n->last; c >= 0 && e->b->st == HD_OK; c = e->b->node[c].before) {
        int32_t one = emit(e, c, to);
        to = --i >= n->a ? put(e, HD_POINT_SPLIT, one, end) : one;
    }
    return to;
}

/* Two ways run side by side: `first`, where no member is written yet, and `more`, where the next one
 * needs its comma. */
static int32_t members(emitter *e, const hd_node *n, int32_t to)
{
    int32_t first = to, more = to;
    if (n->b >= 0) {
        more = put(e, HD_POINT_SPLIT, to, to);
        int32_t other = put(e, HD_POINT_CALL, n->b, more);
        int32_t comma = put(e, HD_POINT_CALL, n->a, other);
        if (e->b->st != HD_OK) return 0;
        e->p->point[more].a = comma;
        first = put(e, HD_POINT_SPLIT, other, to);
    }
    for (int32_t c = n->last; c >= 0 && e->b->st == HD_OK; c = e->b->node[c].before) {
        bool optional = e->b->node[c].optional;
        int32_t one = emit(e, c, more);
        int32_t comma = put(e, HD_POINT_CALL, n->a, one);
        more = optional ? put(e, HD_POINT_SPLIT, comma, more) : comma;
        first = optional ? put(e, HD_POINT_SPLIT, one, first) : one;
    }
    return first;
}

static int32_t emit(emitter *e, int32_t node, int32_t to)
{
    const hd_node *n = &e->b->node[node];
    if (e->b->st != HD_OK) return 0;
    switch ((hd_node_kind)n->kind) {
    case HD_NODE_EMPTY: return to;
    case HD_NODE_SET: return put(e, HD_POINT_SET, 256 + n->a, to);
    case HD_NODE_LITERAL: return literal(e, (const uint8_t *)e->b->pool.data + n->a, n->b, to);
    case HD_NODE_SEQ:
        for (int32_t c = n->last; c >= 0; c = e->b->node[c].before) to = emit(e, c, to);
        return to;
    case HD_NODE_ALT: return alternatives(e, n, to);
    case HD_NODE_REPEAT: return repeat(e, n, to);
    case HD_NODE_CHAIN: return chain(e, n, to);
    case HD_NODE_MEMBERS: return members(e, n, to);
    case HD_NODE_CALL: return put(e, HD_POINT_CALL, n->a, to);
    }
    return to;
}

hd_status hd_program_emit(hd_program *p, hd_builder *b, int32_t root)
{
    emitter e = {p, b};
    hd_status st = b->st;
    if (st != HD_OK) return st;
    p->root = root;
    p->n_rule = b->n_rule;
    p->n_set = 256 + b->n_set;
    HD_TRY(hd_alloc_n(&p->start, (size_t)p->n_rule, sizeof *p->start, b->err));
    HD_TRY(hd_alloc_n(&p->set, (size_t)p->n_set, sizeof *p->set, b->err));
    for (int i = 0; i < 256; i++) hd_byteset_add(&p->set[i], i, i);
    if (b->n_set > 0) memcpy(p->set + 256, b->set, (size_t)b->n_set * sizeof *b->set);
    for (int32_t i = 0; i < b->n_rule && b->st == HD_OK; i++)
        p->start[i] = emit(&e, b->rule[i].body, put(&e, HD_POINT_RETURN, i, 0));
    st = b->st;
fail:
    return b->st = st;
}

void hd_program_close(hd_program *p)
{
    free(p->point);
    free(p->start);
    free(p->set);
    *p = (hd_program){0};
}
