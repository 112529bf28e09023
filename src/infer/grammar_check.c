/* What must hold of a program before anybody follows it.
 *
 * need(q): to reach the end of q's rule, so many more rules must be open at once, at the least.  A set needs
 * what follows it; a fork the smaller of two; a call of R needs max(what follows, 1 + need(start of R)), or
 * need(start of R) when nothing follows, for then R's end is the caller's and nothing is pushed.  That is a
 * shortest path where the length of a way is its deepest place: points are settled level by level, each after
 * what it leads to (Knuth, "A generalization of Dijkstra's algorithm", 1977).  What cannot end within
 * HD_GRAMMAR_DEPTH is cut off while the text is followed, so whatever stays alive can be brought to an end.
 *
 * The same walk without sets finds the rules that can be empty; and a rule that can call itself before it has
 * read a byte is refused. */
#include <string.h>

#include "infer/grammar_impl.h"

/* Who leads to a point: lists of callers, as heads and links. */
typedef struct {
    int32_t *head, *link;          // link[2 q + i]: the next of the list that holds way i of point q
    int32_t *caller, *next_caller; // calls of a rule
    int32_t *rule_at;              // the rule that starts at a point, -1: none
    uint8_t *value;                // settled, or HD_NEVER
    int32_t *queue[HD_GRAMMAR_DEPTH + 1], n_queue[HD_GRAMMAR_DEPTH + 1], cap_queue[HD_GRAMMAR_DEPTH + 1];
} solver;

static void solver_close(solver *s)
{
    free(s->head);
    free(s->link);
    free(s->caller);
    free(s->next_caller);
    free(s->rule_at);
    free(s->value);
    for (int i = 0; i <= HD_GRAMMAR_DEPTH; i++) free(s->queue[i]);
}

static void lead(solver *s, int32_t q, int way, int32_t to)
{
    s->link[2 * q + way] = s->head[to];
    s->head[to] = 2 * q + way;
}

static hd_status solver_open(solver *s, const hd_program *p, bool through_sets, hd_err *err)
{
    hd_status st;
    size_t n = (size_t)p->n_point;
    *s = (solver){0};
    HD_TRY(hd_alloc_n(&s->head, n, sizeof *s->head, err));
    HD_TRY(hd_alloc_n(&s->link, 2 * n, sizeof *s->link, err));
    HD_TRY(hd_alloc_n(&s->caller, (size_t)p->n_rule, sizeof *s->caller, err));
    HD_TRY(hd_alloc_n(&s->next_caller, n, sizeof *s->next_caller, err));
    HD_TRY(hd_alloc_n(&s->rule_at, n, sizeof *s->rule_at, err));
    HD_TRY(hd_alloc_n(&s->value, n, sizeof *s->value, err));
    memset(s->value, HD_NEVER, n);
    memset(s->head, -1, n * sizeof *s->head);
    memset(s->caller, -1, (size_t)p->n_rule * sizeof *s->caller);
    memset(s->rule_at, -1, n * sizeof *s->rule_at);
    for (int32_t r = 0; r < p->n_rule; r++) s->rule_at[p->start[r]] = r; // a rule's points are its own
    for (int32_t q = 0; q < p->n_point; q++) {
        const hd_point *x = &p->point[q];
        hd_byteset none = {{0}};
        if (x->kind == HD_POINT_SET && through_sets && memcmp(&p->set[x->a], &none, sizeof none) != 0)
            lead(s, q, 0, x->b);
        if (x->kind == HD_POINT_SPLIT) lead(s, q, 0, x->a), lead(s, q, 1, x->b);
        if (x->kind == HD_POINT_CALL) {
            lead(s, q, 0, x->b);
            s->next_caller[q] = s->caller[x->a];
            s->caller[x->a] = q;
        }
    }
fail:
    return st;
}

static hd_status offer(solver *s, int32_t q, int level, hd_err *err)
{
    if (level > HD_GRAMMAR_DEPTH || s->value[q] != HD_NEVER) return HD_OK;
    if (s->n_queue[level] == s->cap_queue[level]) {
        int32_t more = s->cap_queue[level] ? s->cap_queue[level] * 2 : 256;
        hd_status st = hd_realloc(&s->queue[level], (size_t)more * sizeof *s->queue[level], err);
        if (st != HD_OK) return st;
        s->cap_queue[level] = more;
    }
    s->queue[level][s->n_queue[level]++] = q;
    return HD_OK;
}

/* A call counts when both what it calls and what follows are settled. */
static hd_status offer_call(solver *s, const hd_program *p, int32_t q, hd_err *err)
{
    const hd_point *x = &p->point[q];
    int in = s->value[p->start[x->a]], after = s->value[x->b];
    if (in == HD_NEVER || after == HD_NEVER) return HD_OK;
    in += p->point[x->b].kind != HD_POINT_RETURN;
    return offer(s, q, in > after ? in : after, err);
}

static hd_status solve(solver *s, const hd_program *p, hd_err *err)
{
    hd_status st = HD_OK;
    for (int32_t q = 0; q < p->n_point; q++)
        if (p->point[q].kind == HD_POINT_RETURN) HD_TRY(offer(s, q, 0, err));
    for (int level = 0; level <= HD_GRAMMAR_DEPTH; level++)
        while (s->n_queue[level] > 0) {
            int32_t q = s->queue[level][--s->n_queue[level]];
            if (s->value[q] != HD_NEVER) continue;
            s->value[q] = (uint8_t)level;
            for (int32_t l = s->head[q]; l >= 0; l = s->link[l]) {
                bool call = p->point[l / 2].kind == HD_POINT_CALL;
                HD_TRY(call ? offer_call(s, p, l / 2, err) : offer(s, l / 2, level, err));
            }
            if (s->rule_at[q] < 0) continue;
            for (int32_t c = s->caller[s->rule_at[q]]; c >= 0; c = s->next_caller[c])
                HD_TRY(offer_call(s, p, c, err));
        }
fail:
    return st;
}

/* ---- Left recursion ---- */

typedef struct {
    const hd_program *p;
    const uint8_t *empty; // what can reach its rule's end without a byte: not HD_NEVER
    int32_t *edge, n_edge, cap_edge;
    int32_t *first; // [n_rule + 1] rules that rule r can call before it has read a byte: edge[first[r]] ...
    int32_t *todo, *seen;
} recursion;

static hd_status first_calls(recursion *x, int32_t rule, hd_err *err)
{
    const hd_program *p = x->p;
    int32_t n = 0;
    x->todo[n++] = p->start[rule];
    x->seen[p->start[rule]] = rule + 1;
    while (n > 0) {
        const hd_point *q = &p->point[x->todo[--n]];
        int32_t next[2] = {-1, -1};
        if (q->kind == HD_POINT_SPLIT) next[0] = q->a, next[1] = q->b;
        if (q->kind == HD_POINT_CALL) {
            if (x->empty[p->start[q->a]] != HD_NEVER) next[0] = q->b;
            if (x->n_edge == x->cap_edge) {
                int32_t more = x->cap_edge ? x->cap_edge * 2 : 256;
                hd_status st = hd_realloc(&x->edge, (size_t)more * sizeof *x->edge, err);
                if (st != HD_OK) return st;
                x->cap_edge = more;
            }
            x->edge[x->n_edge++] = q->a;
        }
        for (int i = 0; i < 2; i++)
            if (next[i] >= 0 && x->seen[next[i]] != rule + 1) {
                x->seen[next[i]] = rule + 1;
                x->todo[n++] = next[i];
            }
    }
    return HD_OK;
}

/* Walk down the calls; a rule met while it is still on the way is a circle.  Returns one such rule, or -1. */
static int32_t circle(const recursion *x, int32_t *way, int32_t *at, uint8_t *color)
{
    for (int32_t r = 0; r < x->p->n_rule; r++) {
        int32_t n = 0;
        if (color[r] != 0) continue;
        way[n] = r;
        at[n++] = x->first[r];
        color[r] = 1;
        while (n > 0) {
            int32_t top = way[n - 1];
            if (at[n - 1] == x->first[top + 1]) {
                color[top] = 2;
                n--;
                continue;
            }
            int32_t to = x->edge[at[n - 1]++];
            if (color[to] == 1) return to;
            if (color[to] == 2) continue;
            color[to] = 1;
            way[n] = to;
            at[n++] = x->first[to];
        }
    }
    return -1;
}

static hd_status left_recursion(const hd_program *p, const uint8_t *empty, const hd_builder *b)
{
    hd_status st;
    hd_err *err = b->err;
    recursion x = {.p = p, .empty = empty};
    int32_t *way = NULL, *at = NULL, rule = -1;
    uint8_t *color = NULL;
    HD_TRY(hd_alloc_n(&x.first, (size_t)p->n_rule + 1, sizeof *x.first, err));
    HD_TRY(hd_alloc_n(&x.todo, (size_t)p->n_point, sizeof *x.todo, err));
    HD_TRY(hd_alloc_n(&x.seen, (size_t)p->n_point, sizeof *x.seen, err));
    HD_TRY(hd_alloc_n(&way, (size_t)p->n_rule, sizeof *way, err));
    HD_TRY(hd_alloc_n(&at, (size_t)p->n_rule, sizeof *at, err));
    HD_TRY(hd_alloc_n(&color, (size_t)p->n_rule, 1, err));
    for (int32_t r = 0; r < p->n_rule; r++) {
        HD_TRY(first_calls(&x, r, err));
        x.first[r + 1] = x.n_edge;
    }
    rule = circle(&x, way, at, color);
    if (rule >= 0) {
        const hd_rule *r = &b->rule[rule];
        int n = r->n_name < 80 ? r->n_name : 80;
        st = hd_fail(err, HD_FORMAT,
                     "grammar: rule %.*s: left recursion: it can call itself before it has read anything", n,
                     b->pool.data ? b->pool.data + r->name : "");
    }
fail:
    free(x.edge);
    free(x.first);
    free(x.todo);
    free(x.seen);
    free(way);
    free(at);
    free(color);
    return st;
}

/* ---- Classes of bytes ---- */

/* Split the classes by each set in turn; sets that split nothing cost a look at 256 bytes. */
static void classes(hd_program *p, const bool *used)
{
    p->n_class = 1;
    for (int32_t s = 0; s < p->n_set && p->n_class < 256; s++) {
        int16_t in[256];
        if (!used[s]) continue;
        memset(in, -1, sizeof in);
        uint8_t out[256];
        int size[256] = {0}, inside[256] = {0};
        for (int i = 0; i < 256; i++) {
            size[p->class_of[i]]++;
            inside[p->class_of[i]] += hd_byteset_has(&p->set[s], i);
        }
        for (int i = 0; i < 256; i++) {
            int c = p->class_of[i];
            out[i] = (uint8_t)c;
            if (!hd_byteset_has(&p->set[s], i) || inside[c] == size[c]) continue;
            if (in[c] < 0) in[c] = (int16_t)p->n_class++;
            out[i] = (uint8_t)in[c];
        }
        memcpy(p->class_of, out, sizeof out);
    }
    for (int i = 255; i >= 0; i--) p->byte_of[p->class_of[i]] = (uint8_t)i;
}

hd_status hd_program_check(hd_program *p, const hd_builder *b)
{
    hd_status st;
    solver empty = {0}, need = {0};
    bool *used = NULL;
    HD_TRY(solver_open(&empty, p, false, b->err));
    HD_TRY(solve(&empty, p, b->err));
    HD_TRY(left_recursion(p, empty.value, b));
    HD_TRY(solver_open(&need, p, true, b->err));
    HD_TRY(solve(&need, p, b->err));
    HD_TRY(hd_alloc_n(&used, (size_t)p->n_set, 1, b->err));
    for (int32_t q = 0; q < p->n_point; q++) {
        p->point[q].need = need.value[q];
        if (p->point[q].kind == HD_POINT_SET) used[p->point[q].a] = true;
    }
    classes(p, used);
    if (need.value[p->start[p->root]] == HD_NEVER)
        st = hd_fail(b->err, HD_FORMAT,
                     "grammar: no text fits it, or none with at most %d rules in one another",
                     HD_GRAMMAR_DEPTH);
fail:
    free(used);
    solver_close(&empty);
    solver_close(&need);
    return st;
}
