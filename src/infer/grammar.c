/* Grammars: opening, following a text, forbidding ids. */
#include <math.h>
#include <string.h>

#include "infer/grammar_impl.h"
#include "model/json.h"

/* ---- Grammars ---- */

/* From what `read` builds: the tree, the program, an automaton without states. */
static hd_status finish(hd_grammar **out, hd_builder *b, int32_t root, hd_err *err)
{
    hd_status st;
    hd_grammar *g = NULL;
    HD_TRY(hd_alloc(&g, sizeof *g, err));
    atomic_init(&g->refs, 1);
    if (pthread_mutex_init(&g->lock, NULL) != 0) HD_TRY(hd_fail(err, HD_NOMEM, "grammar: no lock to be had"));
    g->has_lock = true;
    HD_TRY(hd_program_emit(&g->program, b, root));
    HD_TRY(hd_program_check(&g->program, b));
    HD_TRY(hd_automaton_open(&g->automaton, &g->program, err));
    *out = g;
    return HD_OK;
fail:
    hd_grammar_close(g);
    return st;
}

hd_status hd_grammar_open(hd_grammar **out, const char *text, size_t n, hd_err *err)
{
    hd_status st;
    hd_builder *b = NULL;
    int32_t root = 0;
    *out = NULL;
    HD_TRY(hd_builder_open(&b, err));
    HD_TRY(hd_gbnf_read(b, text, n, &root));
    HD_TRY(finish(out, b, root, err));
fail:
    hd_builder_close(b);
    return st;
}

hd_status hd_grammar_open_schema(hd_grammar **out, const json_t *schema, hd_err *err)
{
    hd_status st;
    hd_builder *b = NULL;
    int32_t root = 0;
    *out = NULL;
    HD_TRY(hd_builder_open(&b, err));
    HD_TRY(hd_schema_read(b, schema, &root));
    HD_TRY(finish(out, b, root, err));
fail:
    hd_builder_close(b);
    return st;
}

hd_status hd_grammar_open_schema_text(hd_grammar **out, const char *text, size_t n, hd_err *err)
{
    json_t *schema = NULL;
    *out = NULL;
    hd_status st = hd_json_parse(&schema, text, n, HD_SCHEMA_VALUES, "schema", "JSON", err);
    if (st == HD_OK) st = hd_grammar_open_schema(out, schema, err);
    json_decref(schema);
    return st;
}

hd_grammar *hd_grammar_ref(hd_grammar *g)
{
    if (g) atomic_fetch_add(&g->refs, 1);
    return g;
}

void hd_grammar_close(hd_grammar *g)
{
    if (!g || atomic_fetch_sub(&g->refs, 1) > 1) return;
    hd_automaton_close(&g->automaton);
    hd_program_close(&g->program);
    if (g->has_lock) pthread_mutex_destroy(&g->lock);
    free(g);
}

/* ---- Texts ---- */

/* Between two ids: too many states are forgotten, but for those where texts stand. */
static hd_status tidy(hd_grammar *g, hd_err *err)
{
    hd_status st = HD_OK;
    uint32_t **keep = NULL;
    int n = 0;
    g->automaton.work = HD_GRAMMAR_WORK;
    if (hd_automaton_bytes(&g->automaton) < HD_GRAMMAR_KEPT) return HD_OK;
    for (hd_grammar_state *s = g->first; s; s = s->next) n++;
    st = hd_alloc_n(&keep, (size_t)n, sizeof *keep, err);
    if (st != HD_OK) return st;
    n = 0;
    for (hd_grammar_state *s = g->first; s; s = s->next) keep[n++] = &s->now;
    st = hd_automaton_flush(&g->automaton, keep, n, err);
    free(keep);
    return st;
}

hd_status hd_grammar_state_open(hd_grammar_state **out, hd_grammar *g, const hd_tokenizer *t, hd_err *err)
{
    hd_status st;
    hd_grammar_state *s = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&s, sizeof *s, err));
    s->tok = t;
    HD_TRY(hd_tokenizer_tree(t, &s->tree, err));
    HD_TRY(hd_alloc_n(&s->path, (size_t)s->tree->max_depth + 1, sizeof *s->path, err));
    s->g = hd_grammar_ref(g);
    pthread_mutex_lock(&g->lock);
    st = tidy(g, err);
    if (st == HD_OK) st = hd_automaton_begin(&g->automaton, &s->now, err);
    if (st == HD_OK) {
        s->next = g->first;
        s->link = &g->first;
        if (s->next) s->next->link = &s->next;
        g->first = s;
    }
    pthread_mutex_unlock(&g->lock);
    HD_TRY(st);
    *out = s;
    return HD_OK;
fail:
    hd_grammar_state_close(s);
    return st;
}

void hd_grammar_state_close(hd_grammar_state *s)
{
    if (!s) return;
    if (s->link) {
        pthread_mutex_lock(&s->g->lock);
        *s->link = s->next;
        if (s->next) s->next->link = s->link;
        pthread_mutex_unlock(&s->g->lock);
    }
    hd_grammar_close(s->g);
    free(s->path);
    free(s);
}

static bool may_end(const hd_grammar_state *s) { return s->g->automaton.state[s->now].may_end; }

bool hd_grammar_may_end(const hd_grammar_state *s)
{
    pthread_mutex_lock(&s->g->lock);
    bool end = may_end(s);
    pthread_mutex_unlock(&s->g->lock);
    return end;
}

bool hd_grammar_must_end(const hd_grammar_state *s)
{
    pthread_mutex_lock(&s->g->lock);
    bool end = may_end(s) && s->g->automaton.state[s->now].n == 1; // the end is all there is
    pthread_mutex_unlock(&s->g->lock);
    return end;
}

static void forbid(float *logits, int64_t n_vocab, const hd_mask *m, int64_t n_id)
{
    for (int64_t i = 0; i < n_vocab; i += 64) {
        uint64_t word = i < n_id ? m->bit[i >> 6] : 0;
        int64_t end = i + 64 < n_vocab ? i + 64 : n_vocab;
        if (word == UINT64_MAX) continue;
        for (int64_t k = i; k < end; k++)
            if (!(word >> (k - i) & 1)) logits[k] = -INFINITY;
    }
}

/* The stop ids keep what the model gave them while everything else is masked. */
hd_status hd_grammar_mask(hd_grammar_state *s, float *logits, int64_t n_vocab, const int32_t *stop,
                          int n_stop, hd_err *err)
{
    enum { MOST_STOPS = 64 };
    float kept[MOST_STOPS];
    const hd_mask *m = NULL;
    if (n_stop > MOST_STOPS)
        return hd_fail(err, HD_USAGE, "grammar: %d stop ids: at most %d", n_stop, MOST_STOPS);
    pthread_mutex_lock(&s->g->lock);
    hd_status st = tidy(s->g, err);
    if (st == HD_OK) st = hd_automaton_mask(&s->g->automaton, s->now, s->tree, s->path, &m, err);
    if (st == HD_OK && !m->any && !may_end(s))
        st = hd_fail(err, HD_UNSUPPORTED, "grammar: no token of this model spells what must follow");
    if (st == HD_OK) {
        bool end = may_end(s);
        for (int i = 0; i < n_stop; i++)
            kept[i] = end && stop[i] >= 0 && stop[i] < n_vocab ? logits[stop[i]] : -INFINITY;
        forbid(logits, n_vocab, m, s->tree->n_id);
        for (int i = 0; i < n_stop; i++)
            if (stop[i] >= 0 && stop[i] < n_vocab) logits[stop[i]] = kept[i];
    }
    pthread_mutex_unlock(&s->g->lock);
    return st;
}

hd_status hd_grammar_accept(hd_grammar_state *s, int32_t id, hd_err *err)
{
    hd_status st;
    size_t n = 0;
    hd_automaton *a = &s->g->automaton;
    const char *bytes = hd_tokenizer_bytes(s->tok, id, &n);
    if (!bytes || n == 0 || hd_tokenizer_is_special(s->tok, id))
        return hd_fail(err, HD_FORMAT, "grammar: id %d has no text", id);
    pthread_mutex_lock(&s->g->lock);
    uint32_t now = s->now;
    HD_TRY(tidy(s->g, err));
    now = s->now;
    for (size_t i = 0; i < n && now != HD_DEAD; i++)
        HD_TRY(hd_automaton_step(a, now, a->p->class_of[(uint8_t)bytes[i]], &now, err));
    if (now == HD_DEAD) HD_TRY(hd_fail(err, HD_FORMAT, "grammar: id %d cannot follow here", id));
    s->now = now;
fail:
    pthread_mutex_unlock(&s->g->lock);
    return st;
}
