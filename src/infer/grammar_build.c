/* The tree that the readers of GBNF and of JSON schemas build: rules, and nodes that hang in them.
 *
 * Every call checks the builder's status first, so a reader may go on after an error as if nothing had
 * happened: what it builds then is never used. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "infer/grammar_impl.h"
#include "model/vocab.h"

hd_status hd_builder_fail(hd_builder *b, hd_status st, const char *fmt, ...)
{
    if (b->st != HD_OK) return b->st;
    char text[sizeof b->err->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return b->st = hd_fail(b->err, st, "%s", text);
}

hd_status hd_builder_open(hd_builder **out, hd_err *err)
{
    hd_builder *b = NULL;
    hd_status st = hd_alloc(&b, sizeof *b, err);
    if (st != HD_OK) return st;
    b->err = err;
    hd_buf_init(&b->pool, (size_t)16 << 20);
    hd_node_new(b, HD_NODE_EMPTY, 0, 0);
    st = b->st;
    if (st == HD_OK) *out = b;
    else hd_builder_close(b);
    return st;
}

void hd_builder_close(hd_builder *b)
{
    if (!b) return;
    free(b->node);
    free(b->set);
    free(b->rule);
    hd_buf_free(&b->pool);
    free(b);
}

/* Room for one element more; `what` names the cap. */
static bool grow(hd_builder *b, void *array, int32_t n, int32_t *cap, int32_t max, size_t size,
                 const char *what)
{
    if (b->st != HD_OK) return false;
    if (n >= max) {
        hd_builder_fail(b, HD_LIMIT, "grammar: more than %d %s", max, what);
        return false;
    }
    if (n < *cap) return true;
    int32_t more = *cap ? *cap * 2 : 64;
    b->st = hd_realloc(array, (size_t)more * size, b->err);
    if (b->st == HD_OK) *cap = more;
    return b->st == HD_OK;
}

int32_t hd_node_new(hd_builder *b, hd_node_kind kind, int32_t a, int32_t bb)
{
    if (!grow(b, &b->node, b->n_node, &b->cap_node, HD_GRAMMAR_NODES, sizeof *b->node, "parts")) return 0;
    b->node[b->n_node] = (hd_node){.kind = (uint8_t)kind, .a = a, .b = bb, .last = -1, .before = -1};
    return b->n_node++;
}

int32_t hd_node_append(hd_builder *b, int32_t parent, int32_t child)
{
    if (b->st != HD_OK) return 0;
    if (child == 0) child = hd_node_new(b, HD_NODE_EMPTY, 0, 0); // node 0 belongs to nobody
    if (b->st != HD_OK) return 0;
    b->node[child].before = b->node[parent].last;
    b->node[parent].last = child;
    return child;
}

static int32_t set_index(hd_builder *b, const hd_byteset *s)
{
    for (int32_t i = b->n_set - 1; i >= 0 && i >= b->n_set - 512; i--) // sets repeat soon or never
        if (memcmp(&b->set[i], s, sizeof *s) == 0) return i;
    if (!grow(b, &b->set, b->n_set, &b->cap_set, HD_GRAMMAR_NODES, sizeof *b->set, "sets of bytes")) return 0;
    b->set[b->n_set] = *s;
    return b->n_set++;
}

int32_t hd_node_bytes(hd_builder *b, const hd_byteset *s)
{
    int32_t set = b->st == HD_OK ? set_index(b, s) : 0;
    return hd_node_new(b, HD_NODE_SET, set, 0);
}

int32_t hd_node_never(hd_builder *b) { return hd_node_bytes(b, &(hd_byteset){{0}}); }

int32_t hd_node_literal(hd_builder *b, const void *bytes, size_t n)
{
    if (b->st != HD_OK) return 0;
    size_t at = b->pool.len;
    b->st = hd_buf_add(&b->pool, bytes, n, b->err);
    return hd_node_new(b, HD_NODE_LITERAL, (int32_t)at, (int32_t)n);
}

int32_t hd_node_text(hd_builder *b, const char *text) { return hd_node_literal(b, text, strlen(text)); }

int32_t hd_node_repeat(hd_builder *b, int32_t child, int32_t m, int32_t n)
{
    if (m > HD_GRAMMAR_REPEAT || n > HD_GRAMMAR_REPEAT)
        hd_builder_fail(b, HD_LIMIT, "grammar: a repetition of more than %d", HD_GRAMMAR_REPEAT);
    /* Copies are made of calls and sets, not of whole trees. */
    int copies = n < 0 ? m : n;
    if (b->st == HD_OK && copies > 2 && b->node[child].kind != HD_NODE_SET &&
        b->node[child].kind != HD_NODE_CALL)
        child = hd_node_call(b, hd_rule_anonymous(b, child));
    int32_t node = hd_node_new(b, HD_NODE_REPEAT, m, n);
    hd_node_append(b, node, child);
    return node;
}

int32_t hd_node_call(hd_builder *b, int32_t rule) { return hd_node_new(b, HD_NODE_CALL, rule, 0); }

/* ---- Rules ---- */

static int32_t add_rule(hd_builder *b, size_t name, size_t n, int32_t body)
{
    if (!grow(b, &b->rule, b->n_rule, &b->cap_rule, HD_GRAMMAR_RULES, sizeof *b->rule, "rules")) return 0;
    b->rule[b->n_rule] = (hd_rule){.name = (int32_t)name, .n_name = (int32_t)n, .body = body};
    return b->n_rule++;
}

int32_t hd_rule_anonymous(hd_builder *b, int32_t body) { return add_rule(b, 0, 0, body); }

int32_t hd_rule_named(hd_builder *b, const char *name, size_t n)
{
    if (b->st != HD_OK) return 0;
    const uint32_t mask = 2 * HD_GRAMMAR_RULES - 1;
    uint32_t i = (uint32_t)hd_hash_bytes(name, n, 1) & mask;
    for (; b->slot[i] != 0; i = (i + 1) & mask) {
        const hd_rule *r = &b->rule[b->slot[i] - 1];
        if ((size_t)r->n_name == n && memcmp(b->pool.data + r->name, name, n) == 0) return b->slot[i] - 1;
    }
    size_t at = b->pool.len;
    b->st = hd_buf_add(&b->pool, name, n, b->err);
    int32_t rule = add_rule(b, at, n, -1);
    if (b->st == HD_OK) b->slot[i] = rule + 1;
    return rule;
}
