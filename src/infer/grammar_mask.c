/* Masks: which ids may follow a state.
 *
 * The vocabulary's tree is walked with the automaton: where a byte cannot follow, all words below are
 * skipped.  Inside a string nearly all words may follow, and a walk would visit them all; so parts of the
 * vocabulary that are made of at most k plain characters are taken whole when any k plain characters may
 * follow, which is asked of the automaton
 * directly: all states it can be in after one such character, after two, ... until no new one comes.
 *
 * What a mask costs is in doc/grammar.md. */
#include <string.h>

#include "infer/grammar_impl.h"

/* ---- Plain characters ---- */

/* Bytes of a character as UTF-8 has them: in phase 0 it begins, in phase p it goes on. */
typedef struct {
    uint8_t phase, lo, hi, then;
} utf8_way;

static const utf8_way ways[] = {
    {0, 0x20, 0x21, 0}, {0, 0x23, 0x5B, 0}, {0, 0x5D, 0x7F, 0}, // not " and not the backslash
    {0, 0xC2, 0xDF, 1}, {0, 0xE0, 0xE0, 2}, {0, 0xE1, 0xEC, 3}, {0, 0xED, 0xED, 4}, {0, 0xEE, 0xEF, 3},
    {0, 0xF0, 0xF0, 5}, {0, 0xF1, 0xF3, 6}, {0, 0xF4, 0xF4, 7}, {1, 0x80, 0xBF, 0}, {2, 0xA0, 0xBF, 1},
    {3, 0x80, 0xBF, 1}, {4, 0x80, 0x9F, 1}, {5, 0x90, 0xBF, 3}, {6, 0x80, 0xBF, 3}, {7, 0x80, 0x8F, 3},
};
enum { N_WAYS = sizeof ways / sizeof ways[0], MOST_PLAIN = 32, MOST_STATES = 48 };

typedef struct {
    uint32_t state;
    uint8_t phase;
} plain_state;

typedef struct {
    plain_state at[MOST_STATES];
    int n;
} plain_set;

/* False: no room. */
static bool add(plain_set *s, uint32_t state, uint8_t phase)
{
    for (int i = 0; i < s->n; i++)
        if (s->at[i].state == state && s->at[i].phase == phase) return true;
    if (s->n == MOST_STATES) return false;
    s->at[s->n++] = (plain_state){state, phase};
    return true;
}

/* All states after one plain character more; *all: each such character can follow each state. */
static hd_status one_more(hd_automaton *a, const plain_set *from, plain_set *to, bool *all, hd_err *err)
{
    plain_set mid = *from; // grows by the states inside a character
    to->n = 0;
    for (int i = 0; i < mid.n; i++)
        for (int w = 0; w < N_WAYS; w++) {
            if (ways[w].phase != mid.at[i].phase) continue;
            int last = -1;
            for (int b = ways[w].lo; b <= ways[w].hi; b++) {
                uint32_t next;
                int class = a->p->class_of[b];
                if (class == last) continue;
                last = class;
                hd_status st = hd_automaton_step(a, mid.at[i].state, class, &next, err);
                if (st != HD_OK) return st;
                *all = *all && next != HD_DEAD && add(ways[w].then ? &mid : to, next, ways[w].then);
                if (!*all) return HD_OK;
            }
        }
    return HD_OK;
}

static bool same(const plain_set *x, const plain_set *y)
{
    plain_set copy = *x;
    if (x->n != y->n) return false;
    for (int i = 0; i < y->n; i++)
        if (!add(&copy, y->at[i].state, y->at[i].phase)) return false;
    return copy.n == x->n;
}

/* So many plain characters may follow `state`, whichever they are. */
static hd_status plain_run(hd_automaton *a, uint32_t state, int *run, hd_err *err)
{
    plain_set now = {.n = 0}, next;
    bool all = true;
    add(&now, state, 0);
    for (*run = 0; *run < MOST_PLAIN; ++*run) {
        hd_status st = one_more(a, &now, &next, &all, err);
        if (st != HD_OK) return st;
        if (!all) return HD_OK;
        if (same(&now, &next)) break; // and so on for ever
        now = next;
    }
    *run = MOST_PLAIN;
    return HD_OK;
}

/* ---- The walk ---- */

static hd_status walk(hd_automaton *a, const hd_vocab_tree *t, int part, uint32_t *path, uint64_t *bit,
                      hd_err *err)
{
    const hd_program *p = a->p;
    uint32_t end = t->first[part + 1];
    for (uint32_t i = t->first[part]; i < end;) {
        const hd_tree_node *n = &t->node[i];
        uint32_t next;
        hd_status st = hd_automaton_step(a, path[n->depth], p->class_of[n->byte], &next, err);
        if (st != HD_OK) return st;
        if (next == HD_DEAD) {
            i = n->skip;
            continue;
        }
        if (n->id >= 0) bit[n->id >> 6] |= 1ull << (n->id & 63);
        path[n->depth + 1] = next;
        i++;
    }
    return HD_OK;
}

/* A place for one mask more, the oldest one's when all are taken. */
static hd_status new_mask(hd_automaton *a, size_t n_word64, hd_mask **out, int *index, hd_err *err)
{
    int i = a->n_mask < HD_MASKS ? a->n_mask : a->oldest;
    hd_mask *m = &a->mask[i];
    if (!m->bit) {
        hd_status st = hd_alloc_n(&m->bit, n_word64, sizeof *m->bit, err);
        if (st != HD_OK) return st;
    } else {
        if (a->state[m->state].mask == i) a->state[m->state].mask = -1;
        memset(m->bit, 0, n_word64 * sizeof *m->bit);
    }
    if (i == a->n_mask) a->n_mask++;
    else a->oldest = (a->oldest + 1) % HD_MASKS;
    m->state = HD_DEAD;
    m->any = false;
    *out = m;
    *index = i;
    return HD_OK;
}

static void forget_masks(hd_automaton *a)
{
    for (int i = 0; i < a->n_mask; i++) {
        a->state[a->mask[i].state].mask = -1;
        free(a->mask[i].bit);
        a->mask[i] = (hd_mask){0};
    }
    a->n_mask = a->oldest = 0;
}

hd_status hd_automaton_mask(hd_automaton *a, uint32_t state, const hd_vocab_tree *t, uint32_t *path,
                            const hd_mask **out, hd_err *err)
{
    hd_status st = HD_OK;
    hd_mask *m;
    int index, run = a->state[state].plain;
    if (a->tree != t) forget_masks(a);
    a->tree = t;
    if (a->state[state].mask >= 0) {
        *out = &a->mask[a->state[state].mask];
        return HD_OK;
    }
    if (run < 0) HD_TRY(plain_run(a, state, &run, err));
    a->state[state].plain = (int8_t)run;
    HD_TRY(new_mask(a, t->n_word64, &m, &index, err));
    path[0] = state;
    for (int part = 0; part < HD_TREE_PARTS; part++) {
        if (t->plain[part] > 0 && t->plain[part] <= run)
            for (size_t i = 0; i < t->n_word64; i++) m->bit[i] |= t->bit[part][i];
        else HD_TRY(walk(a, t, part, path, m->bit, err));
    }
    for (size_t i = 0; i < t->n_word64 && !m->any; i++) m->any = m->bit[i] != 0;
    m->state = state;
    a->state[state].mask = index;
    *out = m;
fail:
    return st;
}
