/* The automaton: states made when they are first met.
 *
 * A place (point, stack) says where in the program one reading of the text so far stands, and which rules are
 * open around it.  Stacks share what lies below their top, and equal stacks have one number, so a place is 64
 * bits.  A step takes all places of a state over one byte and closes the result under forks, calls and
 * returns; places that could not reach an end within the depth that is left are dropped, so every state that
 * exists can still be finished. */
#include <string.h>

#include "infer/grammar_impl.h"
#include "model/vocab.h"

enum { SEEN = 1 << 14, MOST_SEEN = SEEN / 2, STATE_COST = 32 };

static uint64_t place_of(int32_t point, uint32_t stack) { return (uint64_t)(uint32_t)point << 32 | stack; }

/* ---- Memory ---- */

static hd_status grow(void *array, uint32_t n, uint32_t more, uint32_t *cap, size_t size, hd_err *err)
{
    if (n + more <= *cap) return HD_OK;
    uint32_t to = *cap ? *cap * 2 : 256;
    while (to < n + more) to *= 2;
    hd_status st = hd_realloc(array, to * size, err);
    if (st == HD_OK) *cap = to;
    return st;
}

/* A table of slots (index + 1) over n things, at most half full; `hash` tells each thing's. */
static hd_status rehash(uint32_t **slot, uint32_t *n_slot, uint32_t n, const hd_automaton *a,
                        uint64_t (*hash)(const hd_automaton *a, uint32_t i), hd_err *err)
{
    if (2 * n < *n_slot) return HD_OK;
    uint32_t size = *n_slot ? *n_slot * 2 : 1024, *fresh = NULL;
    hd_status st = hd_alloc_n(&fresh, size, sizeof *fresh, err);
    if (st != HD_OK) return st;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = (uint32_t)hash(a, i) & (size - 1);
        while (fresh[k]) k = (k + 1) & (size - 1);
        fresh[k] = i + 1;
    }
    free(*slot);
    *slot = fresh;
    *n_slot = size;
    return HD_OK;
}

static uint64_t stack_hash(const hd_automaton *a, uint32_t i)
{
    return hd_fold((uint64_t)(uint32_t)a->stack[i].to << 32 | (uint32_t)a->stack[i].below,
                   0x9E3779B97F4A7C15u);
}

static uint64_t state_hash(const hd_automaton *a, uint32_t i) { return a->state[i].hash; }

size_t hd_automaton_bytes(const hd_automaton *a)
{
    return a->n_stack * sizeof *a->stack + a->n_place * sizeof *a->place +
           a->n_state * (sizeof *a->state + (size_t)a->p->n_class * sizeof *a->next);
}

/* ---- Stacks and states, each once ---- */

static hd_status push(hd_automaton *a, int32_t to, uint32_t below, uint32_t *out, hd_err *err)
{
    hd_status st;
    HD_TRY(rehash(&a->stack_slot, &a->n_stack_slot, a->n_stack, a, stack_hash, err));
    HD_TRY(grow(&a->stack, a->n_stack, 1, &a->cap_stack, sizeof *a->stack, err));
    a->stack[a->n_stack] = (hd_stack){to, (int32_t)below, a->stack[below].depth + 1};
    uint32_t k = (uint32_t)stack_hash(a, a->n_stack) & (a->n_stack_slot - 1);
    for (; a->stack_slot[k]; k = (k + 1) & (a->n_stack_slot - 1)) {
        const hd_stack *s = &a->stack[a->stack_slot[k] - 1];
        if (s->to == to && s->below == (int32_t)below) {
            *out = a->stack_slot[k] - 1;
            return HD_OK;
        }
    }
    *out = a->n_stack++;
    a->stack_slot[k] = a->n_stack;
fail:
    return st;
}

static int by_number(const void *pa, const void *pb)
{
    uint64_t x = *(const uint64_t *)pa, y = *(const uint64_t *)pb;
    return (x > y) - (x < y);
}

/* A state number for `n` more states with their rows of next. */
static hd_status room_for_state(hd_automaton *a, hd_err *err)
{
    hd_status st;
    uint32_t cap = a->cap_state;
    HD_TRY(grow(&a->state, a->n_state, 1, &cap, sizeof *a->state, err));
    if (cap != a->cap_state) {
        HD_TRY(hd_realloc(&a->next, (size_t)cap * (size_t)a->p->n_class * sizeof *a->next, err));
        a->cap_state = cap;
    }
fail:
    return st;
}

/* The state of the places in found[], which it sorts. */
static hd_status state_of(hd_automaton *a, uint32_t *out, hd_err *err)
{
    hd_status st;
    uint32_t n = a->n_found;
    *out = HD_DEAD;
    if (n == 0) return HD_OK;
    qsort(a->found, n, sizeof *a->found, by_number);
    uint64_t hash = hd_hash_bytes(a->found, n * sizeof *a->found, 1);
    HD_TRY(rehash(&a->state_slot, &a->n_state_slot, a->n_state, a, state_hash, err));
    uint32_t k = (uint32_t)hash & (a->n_state_slot - 1);
    for (; a->state_slot[k]; k = (k + 1) & (a->n_state_slot - 1)) {
        const hd_state *s = &a->state[a->state_slot[k] - 1];
        if (s->hash == hash && s->n == n &&
            memcmp(a->place + s->first, a->found, n * sizeof *a->found) == 0) {
            *out = a->state_slot[k] - 1;
            return HD_OK;
        }
    }
    HD_TRY(grow(&a->place, a->n_place, n, &a->cap_place, sizeof *a->place, err));
    HD_TRY(room_for_state(a, err));
    memcpy(a->place + a->n_place, a->found, n * sizeof *a->found);
    bool end = a->found[n - 1] == HD_PLACE_END;
    a->state[a->n_state] =
        (hd_state){.hash = hash, .first = a->n_place, .n = n, .mask = -1, .plain = -1, .may_end = end};
    memset(a->next + (size_t)a->n_state * (size_t)a->p->n_class, 0, (size_t)a->p->n_class * sizeof *a->next);
    a->n_place += n;
    *out = a->n_state++;
    a->state_slot[k] = a->n_state;
    a->work -= STATE_COST;
fail:
    return st;
}

/* ---- Steps ---- */

typedef struct {
    hd_automaton *a;
    uint32_t n_todo, n_seen;
} closure;

static void begin(closure *c, hd_automaton *a)
{
    *c = (closure){a, 0, 0};
    a->n_found = 0;
    if (++a->stamp == 0) {
        memset(a->seen_stamp, 0, SEEN * sizeof *a->seen_stamp);
        a->stamp = 1;
    }
}

/* Look at a place, unless it was looked at or cannot be finished. */
static hd_status visit(closure *c, int32_t point, uint32_t stack, hd_err *err)
{
    hd_automaton *a = c->a;
    if (a->stack[stack].depth + a->p->point[point].need > HD_GRAMMAR_DEPTH) return HD_OK;
    uint64_t place = place_of(point, stack);
    uint32_t k = (uint32_t)hd_fold(place, 0x9E3779B97F4A7C15u) & (SEEN - 1);
    for (; a->seen_stamp[k] == a->stamp; k = (k + 1) & (SEEN - 1))
        if (a->seen[k] == place) return HD_OK;
    if (++c->n_seen > MOST_SEEN)
        return hd_fail(err, HD_LIMIT,
                       "grammar: the text can be read in more than %d ways: make it less ambiguous",
                       HD_GRAMMAR_ALIVE);
    a->seen_stamp[k] = a->stamp;
    a->seen[k] = place;
    a->todo[c->n_todo++] = place;
    a->work--;
    return HD_OK;
}

static hd_status found(hd_automaton *a, uint64_t place, hd_err *err)
{
    if (a->n_found >= HD_GRAMMAR_ALIVE)
        return hd_fail(err, HD_LIMIT,
                       "grammar: the text can be read in more than %d ways: make it less ambiguous",
                       HD_GRAMMAR_ALIVE);
    a->found[a->n_found++] = place;
    return HD_OK;
}

/* Where the rule that is done was called from; the end of the text when it was the first. */
static hd_status go_back(closure *c, uint32_t stack, bool *end, hd_err *err)
{
    const hd_stack s = c->a->stack[stack];
    if (stack != 0) return visit(c, s.to, (uint32_t)s.below, err);
    bool first = !*end;
    *end = true;
    return first ? found(c->a, HD_PLACE_END, err) : HD_OK;
}

static hd_status call(closure *c, const hd_point *q, uint32_t stack, hd_err *err)
{
    hd_automaton *a = c->a;
    const hd_point *after = &a->p->point[q->b];
    if (after->kind != HD_POINT_RETURN) {
        if (a->stack[stack].depth + after->need > HD_GRAMMAR_DEPTH ||
            a->stack[stack].depth >= HD_GRAMMAR_DEPTH)
            return HD_OK;
        hd_status st = push(a, q->b, stack, &stack, err);
        if (st != HD_OK) return st;
    }
    return visit(c, a->p->start[q->a], stack, err);
}

static hd_status close_places(closure *c, hd_err *err)
{
    hd_automaton *a = c->a;
    hd_status st = HD_OK;
    bool end = false;
    while (c->n_todo > 0) {
        uint64_t place = a->todo[--c->n_todo];
        const hd_point *q = &a->p->point[place >> 32];
        uint32_t stack = (uint32_t)place;
        switch ((hd_point_kind)q->kind) {
        case HD_POINT_SET: HD_TRY(found(a, place, err)); break;
        case HD_POINT_SPLIT:
            HD_TRY(visit(c, q->a, stack, err));
            HD_TRY(visit(c, q->b, stack, err));
            break;
        case HD_POINT_CALL: HD_TRY(call(c, q, stack, err)); break;
        case HD_POINT_RETURN: HD_TRY(go_back(c, stack, &end, err)); break;
        }
    }
fail:
    return st;
}

hd_status hd_automaton_begin(hd_automaton *a, uint32_t *state, hd_err *err)
{
    hd_status st;
    closure c;
    begin(&c, a);
    HD_TRY(visit(&c, a->p->start[a->p->root], 0, err));
    HD_TRY(close_places(&c, err));
    HD_TRY(state_of(a, state, err));
fail:
    return st;
}

hd_status hd_automaton_make(hd_automaton *a, uint32_t from, int class, uint32_t *to, hd_err *err)
{
    hd_status st;
    closure c;
    int byte = a->p->byte_of[class];
    if (a->work <= 0)
        return hd_fail(err, HD_LIMIT,
                       "grammar: too many ways to go on: make it less ambiguous, or its counts smaller");
    begin(&c, a);
    for (uint32_t i = 0; i < a->state[from].n; i++) {
        uint64_t place = a->place[a->state[from].first + i];
        if (place == HD_PLACE_END) break;
        const hd_point *q = &a->p->point[place >> 32];
        a->work--;
        if (hd_byteset_has(&a->p->set[q->a], byte)) HD_TRY(visit(&c, q->b, (uint32_t)place, err));
    }
    HD_TRY(close_places(&c, err));
    HD_TRY(state_of(a, to, err));
    a->next[(size_t)from * (size_t)a->p->n_class + (size_t) class] = *to;
fail:
    return st;
}

/* ---- Opening, forgetting ---- */

/* The bottom stack, and the two states that stand for none. */
static hd_status first_things(hd_automaton *a, hd_err *err)
{
    hd_status st;
    HD_TRY(grow(&a->stack, 0, 1, &a->cap_stack, sizeof *a->stack, err));
    a->stack[0] = (hd_stack){-1, -1, 0};
    a->n_stack = 1;
    for (a->n_state = 0; a->n_state <= HD_DEAD; a->n_state++) {
        HD_TRY(room_for_state(a, err));
        a->state[a->n_state] = (hd_state){.mask = -1, .plain = -1};
        for (int c = 0; c < a->p->n_class; c++) a->next[(int)a->n_state * a->p->n_class + c] = HD_DEAD;
    }
fail:
    return st;
}

hd_status hd_automaton_open(hd_automaton *a, const hd_program *p, hd_err *err)
{
    hd_status st;
    *a = (hd_automaton){.p = p, .work = HD_GRAMMAR_WORK};
    HD_TRY(hd_alloc_n(&a->todo, MOST_SEEN + 1, sizeof *a->todo, err));
    HD_TRY(hd_alloc_n(&a->seen, SEEN, sizeof *a->seen, err));
    HD_TRY(hd_alloc_n(&a->seen_stamp, SEEN, sizeof *a->seen_stamp, err));
    HD_TRY(hd_alloc_n(&a->found, HD_GRAMMAR_ALIVE, sizeof *a->found, err));
    HD_TRY(first_things(a, err));
fail:
    if (st != HD_OK) hd_automaton_close(a);
    return st;
}

void hd_automaton_close(hd_automaton *a)
{
    free(a->stack);
    free(a->stack_slot);
    free(a->place);
    free(a->state);
    free(a->next);
    free(a->state_slot);
    free(a->todo);
    free(a->seen);
    free(a->seen_stamp);
    free(a->found);
    for (int i = 0; i < HD_MASKS; i++) free(a->mask[i].bit);
    *a = (hd_automaton){0};
}

/* A place of the old automaton in the new one: its stack is laid anew from the bottom. */
static hd_status move_place(hd_automaton *to, const hd_automaton *from, uint64_t place, hd_err *err)
{
    int32_t way[HD_GRAMMAR_DEPTH + 1], n = 0;
    uint32_t stack = 0;
    if (place == HD_PLACE_END) return found(to, place, err);
    for (uint32_t s = (uint32_t)place; s != 0; s = (uint32_t)from->stack[s].below)
        way[n++] = from->stack[s].to;
    while (n > 0) {
        hd_status st = push(to, way[--n], stack, &stack, err);
        if (st != HD_OK) return st;
    }
    return found(to, place_of((int32_t)(place >> 32), stack), err);
}

hd_status hd_automaton_flush(hd_automaton *a, uint32_t **keep, int n, hd_err *err)
{
    hd_status st;
    hd_automaton fresh = {0};
    uint32_t *number = NULL;
    HD_TRY(hd_alloc_n(&number, (size_t)n, sizeof *number, err));
    HD_TRY(hd_automaton_open(&fresh, a->p, err));
    for (int i = 0; i < n; i++) {
        const hd_state *s = &a->state[*keep[i]];
        fresh.n_found = 0;
        for (uint32_t k = 0; k < s->n; k++) HD_TRY(move_place(&fresh, a, a->place[s->first + k], err));
        HD_TRY(state_of(&fresh, &number[i], err));
    }
    for (int i = 0; i < n; i++) *keep[i] = number[i]; // only now that nothing can fail
    fresh.work = a->work;
    free(number);
    hd_automaton_close(a);
    *a = fresh;
    return HD_OK;
fail:
    free(number);
    hd_automaton_close(&fresh);
    return st;
}
