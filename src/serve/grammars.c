/* Kept by their source text, compared whole: a hash of it would be no shorter to look at than the first bytes
 * of thirty texts.  A grammar keeps states of its own (HD_GRAMMAR_KEPT at most), so few are kept, and the one
 * not asked for longest goes first; texts too long to be kept are compiled each time. */
#include "serve/grammars.h"

#include <pthread.h>
#include <string.h>

enum { MAX_KEPT = 16, MAX_TEXT = 64 << 10 };

typedef struct {
    char *text; // 'j' and a schema, or 'g' and GBNF
    hd_grammar *g;
    int64_t used;
} kept;

struct hd_grammars {
    pthread_mutex_t lock;
    kept k[MAX_KEPT];
    int n;
    int64_t clock;
};

hd_status hd_grammars_open(hd_grammars **out, hd_err *err)
{
    hd_status st = hd_alloc(out, sizeof **out, err);
    if (st == HD_OK) pthread_mutex_init(&(*out)->lock, NULL);
    return st;
}

static void forget(kept *k)
{
    free(k->text);
    hd_grammar_close(k->g);
}

void hd_grammars_close(hd_grammars *c)
{
    if (!c) return;
    for (int i = 0; i < c->n; i++) forget(&c->k[i]);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static hd_grammar *find(hd_grammars *c, const char *text)
{
    hd_grammar *g = NULL;
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < c->n && !g; i++)
        if (strcmp(c->k[i].text, text) == 0) {
            c->k[i].used = ++c->clock;
            g = hd_grammar_ref(c->k[i].g);
        }
    pthread_mutex_unlock(&c->lock);
    return g;
}

/* Takes the text.  Two threads may both have compiled it: then it stands there twice until one goes. */
static void keep(hd_grammars *c, char *text, hd_grammar *g)
{
    pthread_mutex_lock(&c->lock);
    kept *k = &c->k[0];
    if (c->n < MAX_KEPT) k = &c->k[c->n++];
    else {
        for (int i = 1; i < MAX_KEPT; i++)
            if (c->k[i].used < k->used) k = &c->k[i];
        forget(k);
    }
    *k = (kept){text, hd_grammar_ref(g), ++c->clock};
    pthread_mutex_unlock(&c->lock);
}

static char *name(char kind, const char *text)
{
    size_t n = text ? strlen(text) : MAX_TEXT;
    char *s = n < MAX_TEXT ? malloc(n + 2) : NULL;
    if (!s) return NULL;
    s[0] = kind;
    memcpy(s + 1, text, n + 1);
    return s;
}

/* What is known by this name (taken), or what compiling brings. */
static hd_status get(hd_grammars *c, hd_grammar **out, char *key, const json_t *schema, const char *text, hd_err *err)
{
    hd_status st = HD_OK;
    *out = key ? find(c, key) : NULL;
    if (!*out) {
        st = text ? hd_grammar_open(out, text, strlen(text), err) : hd_grammar_open_schema(out, schema, err);
        if (st == HD_OK && key) {
            keep(c, key, *out);
            return HD_OK;
        }
    }
    free(key);
    return st;
}

hd_status hd_grammars_schema(hd_grammars *c, hd_grammar **out, const json_t *schema, hd_err *err)
{
    char *text = c && schema ? json_dumps(schema, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    char *key = c ? name('j', schema ? text : "") : NULL;
    free(text);
    return get(c, out, key, schema, NULL, err);
}

hd_status hd_grammars_text(hd_grammars *c, hd_grammar **out, const char *text, hd_err *err)
{
    return get(c, out, c ? name('g', text) : NULL, NULL, text, err);
}
