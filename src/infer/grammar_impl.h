/* Inside a grammar.  Private to src/infer and to tests.
 *
 *   GBNF text ---grammar_gbnf.c--+
 *                                +--> tree of rules --grammar_emit.c--> program --grammar_check.c--> checked program
 *   JSON schema --schema*.c------+    (grammar_build.c)
 *
 *   program + a text's bytes --grammar_auto.c--> states, made when first met --grammar_mask.c--> ids that may follow
 *
 * A program is a machine over bytes with a stack: a rule that is called remembers where to go on.  All that
 * the bytes so far can mean is a set of places, each a point in the program with a stack of returns.  Such a
 * set is a state; the sets that a text meets repeat, so each is kept with the states that follow from it and
 * the ids that may follow. */
#ifndef HD_INFER_GRAMMAR_IMPL_H
#define HD_INFER_GRAMMAR_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "infer/grammar.h"
#include "model/vocab_tree.h"

/* The caps.  A source over one is refused with HD_LIMIT; what the last three bound ends a
 * text with HD_LIMIT. */
enum {
    HD_GRAMMAR_BYTES = 256 << 10, // of GBNF text
    HD_GRAMMAR_RULES = 8192,
    HD_GRAMMAR_DEPTH = 64,       // groups in groups, schemas in schemas, and rules open at once in a text
    HD_GRAMMAR_REPEAT = 10000,   // m and n of {m,n}
    HD_GRAMMAR_NODES = 1 << 18,  // of the tree
    HD_GRAMMAR_POINTS = 1 << 17, // of the program
    HD_GRAMMAR_ALIVE = 2048,     // places alive at once
    HD_GRAMMAR_WORK = 400000,    // places looked at for one id's mask
    HD_GRAMMAR_KEPT = 8 << 20,   // bytes of states kept between two ids
    HD_SCHEMA_VALUES = 20000,    // values of a schema
};

/* ---- The tree (grammar_build.c) ---- */

typedef struct {
    uint64_t w[4];
} hd_byteset;

static inline void hd_byteset_add(hd_byteset *s, int lo, int hi)
{
    for (int b = lo; b <= hi; b++) s->w[b >> 6] |= 1ull << (b & 63);
}
static inline bool hd_byteset_has(const hd_byteset *s, int b) { return s->w[b >> 6] >> (b & 63) & 1; }

typedef enum {
    HD_NODE_EMPTY,   // the empty text
    HD_NODE_SET,     // one byte of set a; an empty set matches nothing
    HD_NODE_LITERAL, // b bytes of the pool from a
    HD_NODE_SEQ,     // the children in order
    HD_NODE_ALT,     // one of the children
    HD_NODE_REPEAT,  // the child a to b times; b < 0: without end
    HD_NODE_CHAIN,   // the first k children in order, a <= k <= all
    HD_NODE_MEMBERS, // some of the children in order, but each that is not optional, joined by rule a; then any number of
                     // rule b's (b < 0: none)
    HD_NODE_CALL, // rule a
} hd_node_kind;

/* Children hang together from the last to the first: the program is made backwards. */
typedef struct {
    uint8_t kind;
    bool optional;
    int32_t a, b;
    int32_t last, before; // last child; the sibling before this one; -1: none
} hd_node;

typedef struct {
    int32_t name, n_name; // in the pool
    int32_t body;         // -1: not defined yet
    int32_t where;        // offset in the source of its first mention
} hd_rule;

/* Errors stick: after the first, calls do nothing and give node 0, the empty text.  So the readers need to
 * look at st in loops and at their end only. */
typedef struct hd_builder {
    hd_status st;
    hd_err *err;
    hd_node *node;
    int32_t n_node, cap_node;
    hd_byteset *set;
    int32_t n_set, cap_set;
    hd_rule *rule;
    int32_t n_rule, cap_rule;
    int32_t slot[2 * HD_GRAMMAR_RULES]; // rules by name: index + 1
    hd_buf pool;
} hd_builder;

hd_status hd_builder_open(hd_builder **out, hd_err *err);
void hd_builder_close(hd_builder *b);
hd_status hd_builder_fail(hd_builder *b, hd_status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

int32_t hd_node_new(hd_builder *b, hd_node_kind kind, int32_t a, int32_t bb);
int32_t hd_node_append(hd_builder *b, int32_t parent, int32_t child); // gives the child
int32_t hd_node_bytes(hd_builder *b, const hd_byteset *s);
int32_t hd_node_literal(hd_builder *b, const void *bytes, size_t n);
int32_t hd_node_text(hd_builder *b, const char *text);
int32_t hd_node_never(hd_builder *b); // matches no text
int32_t hd_node_repeat(hd_builder *b, int32_t child, int32_t m, int32_t n);
int32_t hd_node_call(hd_builder *b, int32_t rule);
/* The rule of this name, made without a body when there is none. */
int32_t hd_rule_named(hd_builder *b, const char *name, size_t n);
/* A rule with this body and no name. */
int32_t hd_rule_anonymous(hd_builder *b, int32_t body);

/* ---- Characters (grammar_chars.c) ---- */

enum { HD_CHARS_RANGES = 512 };

typedef struct {
    struct {
        int32_t lo, hi;
    } r[HD_CHARS_RANGES];
    int n;
    bool full; // a range found no room
} hd_chars;

void hd_chars_add(hd_chars *c, int32_t lo, int32_t hi);
void hd_chars_sort(hd_chars *c); // in order, apart, without surrogates
void hd_chars_not(hd_chars *c);
bool hd_chars_has(const hd_chars *c, int32_t cp); // sorted
/* A character of the set, as UTF-8; json: as it is spelled in a JSON string, escaped where it
 * must be.  Sorts c. */
int32_t hd_node_chars(hd_builder *b, hd_chars *c, bool json);

/* ---- The program (grammar_emit.c, grammar_check.c) ---- */

typedef enum {
    HD_POINT_SET,   // a byte of set a, then b
    HD_POINT_SPLIT, // a or b
    HD_POINT_CALL,  // rule a, then b
    HD_POINT_RETURN,
} hd_point_kind;

typedef struct {
    uint8_t kind;
    uint8_t
        need; // rules that must be open inside this one, at the least, to reach the end of this rule; HD_NEVER
    int32_t a, b;
} hd_point;

enum { HD_NEVER = 255 };

typedef struct {
    hd_point *point;
    int32_t n_point, cap_point;
    int32_t *start; // [n_rule]
    int32_t n_rule, root;
    hd_byteset *set; // [n_set]
    int32_t n_set;
    uint8_t class_of[256]; // bytes that no set tells apart
    uint8_t byte_of[256];  // one of each class
    int n_class;
} hd_program;

/* The builder's rules, from `root`; takes its sets. */
hd_status hd_program_emit(hd_program *p, hd_builder *b, int32_t root);
/* Depths, classes; HD_FORMAT: left recursion, or no text fits. */
hd_status hd_program_check(hd_program *p, const hd_builder *b);
void hd_program_close(hd_program *p);

hd_status hd_gbnf_read(hd_builder *b, const char *text, size_t n, int32_t *root);
hd_status hd_schema_read(hd_builder *b, const json_t *schema, int32_t *root);

/* ---- The automaton (grammar_auto.c) ---- */

enum { HD_UNMADE = 0, HD_DEAD = 1 }; // states that stand for none; the first real one is 2

/* A stack of returns; stack 0 is empty. */
typedef struct {
    int32_t to, below;
    int32_t depth;
} hd_stack;

#define HD_PLACE_END UINT64_MAX // a place: point << 32 | stack; or the end of the text

typedef struct {
    uint64_t hash;
    uint32_t first, n; // places
    int32_t mask;      // in hd_automaton.mask, -1: none
    int8_t plain;      // so many plain characters may follow, whichever they are; -1: not known
    bool may_end;
} hd_state;

typedef struct hd_mask {
    uint64_t *bit; // ids that may follow
    uint32_t state;
    bool any;
} hd_mask;

enum { HD_MASKS = 64 };

typedef struct {
    const hd_program *p;
    hd_stack *stack;
    uint32_t n_stack, cap_stack;
    uint32_t *stack_slot, n_stack_slot;
    uint64_t *place;
    uint32_t n_place, cap_place;
    hd_state *state;
    uint32_t *next; // [n_state, n_class]
    uint32_t n_state, cap_state;
    uint32_t *state_slot, n_state_slot;
    uint64_t *todo, *seen, *found; // of one step
    uint32_t *seen_stamp, stamp;
    uint32_t n_found;
    int64_t work; // left of HD_GRAMMAR_WORK
    hd_mask mask[HD_MASKS];
    int n_mask, oldest;
    const hd_vocab_tree *tree; // that the masks are of
} hd_automaton;

hd_status hd_automaton_open(hd_automaton *a, const hd_program *p, hd_err *err);
void hd_automaton_close(hd_automaton *a);
hd_status hd_automaton_begin(hd_automaton *a, uint32_t *state, hd_err *err);
/* After one byte more; HD_DEAD: it cannot follow. */
hd_status hd_automaton_make(hd_automaton *a, uint32_t from, int class, uint32_t *to, hd_err *err);
static inline hd_status hd_automaton_step(hd_automaton *a, uint32_t from, int class, uint32_t *to,
                                          hd_err *err)
{
    *to = a->next[(size_t)from * (size_t)a->p->n_class + (size_t) class];
    return *to != HD_UNMADE ? HD_OK : hd_automaton_make(a, from, class, to, err);
}
size_t hd_automaton_bytes(const hd_automaton *a);
/* Forget all states but these, which get new numbers. */
hd_status hd_automaton_flush(hd_automaton *a, uint32_t **keep, int n, hd_err *err);
/* The ids that may follow a state; valid until the next call. */
hd_status hd_automaton_mask(hd_automaton *a, uint32_t state, const hd_vocab_tree *t, uint32_t *path,
                            const hd_mask **out, hd_err *err);

/* ---- What is shared, what is each text's own (grammar.c) ---- */

struct hd_grammar {
    atomic_int refs;
    hd_program program;
    pthread_mutex_t lock; // for all below
    bool has_lock;
    hd_automaton automaton;
    hd_grammar_state *first; // texts that follow it
};

struct hd_grammar_state {
    hd_grammar *g;
    const hd_tokenizer *tok;
    const hd_vocab_tree *tree;
    uint32_t now;
    uint32_t *path; // [tree->max_depth + 1] of a walk
    hd_grammar_state *next, **link;
};

#endif
