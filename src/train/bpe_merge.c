/* Learning merges from counted words.
 *
 * Each word is a row of symbols, at first its bytes.  The pair that stands most often side by side,
 * counted over all texts, becomes a new symbol; the rows where it stands are rewritten, and so on.
 * Nothing is ever counted twice:
 *
 *   count    pair -> how often it stands somewhere now                    a hash table
 *   queue    pairs by count, with the words where they may stand          a heap; a count there may be old
 *   a merge  walks the pair's words.  Beside x a b y it takes away the pairs (x a) and (b y) and adds (x ab)
 *            and (ab y); since one side of all these is known, sums by the other side are arrays, and the
 *            hash table is asked once for each neighbour, not once for each place.
 *
 * Only pairs with the new symbol can come into being, so a pair's list of words is complete when it is made;
 * it may name words where the pair no longer stands.  Each merge makes two entries in such lists and one
 * symbol less, so all lists together are no longer than three times the words.
 *
 * The order is that of Hugging Face's BpeTrainer, and so are two oddities.  A token that two different merges
 * spell is one token (a bc, ab c).  A pair that was merged keeps its count: when it comes into being once
 * more, which only such tokens can bring about, it counts on from there; of the same merge twice the later
 * one stands in the file. */
#include <string.h>

#include "model/vocab.h"
#include "train/bpe_impl.h"

enum { N_BYTES = 256 };

/* ---- Pair counts ---- */

typedef struct {
    uint64_t pair; // a << 32 | b, plus one; 0: free
    int64_t count;
} pair_count;

typedef struct {
    pair_count *of;
    size_t n, mask;
} pair_table;

static uint64_t pair_of(int32_t a, int32_t b) { return (uint64_t)(uint32_t)a << 32 | (uint32_t)b; }

static size_t pair_slot(const pair_table *t, uint64_t pair)
{
    size_t k = (size_t)hd_fold(pair + 1, 0x9e3779b97f4a7c15u) & t->mask;
    while (t->of[k].pair && t->of[k].pair != pair + 1) k = (k + 1) & t->mask;
    return k;
}

static hd_status pair_grow(pair_table *t, hd_err *err)
{
    pair_table wide = {.n = t->n, .mask = t->of ? 2 * t->mask + 1 : (1 << 16) - 1};
    hd_status st = hd_alloc_n(&wide.of, wide.mask + 1, sizeof *wide.of, err);
    if (st != HD_OK) return st;
    for (size_t i = 0; t->of && i <= t->mask; i++)
        if (t->of[i].pair) wide.of[pair_slot(&wide, t->of[i].pair - 1)] = t->of[i];
    free(t->of);
    *t = wide;
    return HD_OK;
}

static hd_status pair_add(pair_table *t, uint64_t pair, int64_t add, int64_t *count, hd_err *err)
{
    hd_status st = HD_OK;
    if (!t->of || t->n > t->mask / 2) HD_TRY(pair_grow(t, err));
    pair_count *c = &t->of[pair_slot(t, pair)];
    t->n += c->pair == 0;
    c->pair = pair + 1;
    *count = c->count += add;
fail:
    return st;
}

/* ---- The queue ---- */

typedef struct {
    int64_t count;
    uint64_t pair;
    uint64_t at; // its words: place[at .. at + n)
    uint32_t n;
} candidate;

static bool before(const candidate *a, const candidate *b)
{
    return a->count != b->count ? a->count > b->count : a->pair < b->pair;
}

typedef struct {
    candidate *of; // four children a node
    size_t n, cap;
} queue;

static void sift_down(queue *q, size_t i)
{
    candidate x = q->of[i];
    for (;;) {
        size_t first = 4 * i + 1, best = first;
        if (first >= q->n) break;
        for (size_t k = first + 1; k < first + 4 && k < q->n; k++)
            if (before(&q->of[k], &q->of[best])) best = k;
        if (!before(&q->of[best], &x)) break;
        q->of[i] = q->of[best];
        i = best;
    }
    q->of[i] = x;
}

static hd_status queue_push(queue *q, candidate x, hd_err *err)
{
    if (q->n == q->cap) {
        size_t cap = q->cap ? 2 * q->cap : 4096;
        hd_status st = hd_realloc(&q->of, cap * sizeof *q->of, err);
        if (st != HD_OK) return st;
        q->cap = cap;
    }
    size_t i = q->n++;
    for (; i && before(&x, &q->of[(i - 1) / 4]); i = (i - 1) / 4) q->of[i] = q->of[(i - 1) / 4];
    q->of[i] = x;
    return HD_OK;
}

static void queue_pop(queue *q)
{
    q->of[0] = q->of[--q->n];
    if (q->n) sift_down(q, 0);
}

/* ---- The state ---- */

typedef enum {
    LEFT_GOES,
    RIGHT_GOES,
    LEFT_COMES,
    RIGHT_COMES,
    SIDES
} side; // (x a) (b x) - and (x ab) (ab x) +

typedef struct {
    side side;
    int32_t symbol; // the other one
    int64_t add;
    uint32_t n;    // words where it comes
    uint32_t last; // of them, plus one
    uint64_t at;
} change;

typedef struct {
    uint32_t change, word;
} coming;

typedef struct {
    hd_bpe_learnt *out;
    int64_t n_wanted;
    /* words */
    size_t n_words;
    int32_t *symbol;  // of all words
    uint64_t *first;  // [n_words] of each in `symbol`
    uint32_t *len;    // [n_words]
    int64_t *count;   // [n_words]
    size_t n_symbols; // of all words, at first
    /* pairs */
    pair_table pairs;
    queue queue;
    uint32_t *place; // lists of words
    size_t n_place, cap_place;
    /* one merge */
    int32_t *of_side[SIDES]; // [n_wanted] symbol -> its change + 1
    change *change;
    size_t n_change, cap_change;
    coming *coming;
    size_t n_coming, cap_coming;
    /* tokens by their bytes */
    int32_t *slot; // id + 1
    size_t mask;
    uint64_t seed;
} learner;

static void learner_close(learner *l)
{
    free(l->symbol);
    free(l->first);
    free(l->len);
    free(l->count);
    free(l->pairs.of);
    free(l->queue.of);
    free(l->place);
    for (int i = 0; i < SIDES; i++) free(l->of_side[i]);
    free(l->change);
    free(l->coming);
    free(l->slot);
}

/* ---- Tokens ---- */

void hd_bpe_learnt_close(hd_bpe_learnt *l)
{
    free(l->at);
    free(l->text);
    free(l->join);
    *l = (hd_bpe_learnt){0};
}

uint8_t hd_bpe_byte(int id)
{
    static const uint8_t from[] = {0x21, 0xa1, 0xae, 0x00, 0x7f, 0xad},
                         to[] = {0x7e, 0xac, 0xff, 0x20, 0xa0, 0xad};
    for (int i = 0;; i++) {
        int n = to[i] - from[i] + 1;
        if (id < n) return (uint8_t)(from[i] + id);
        id -= n;
    }
}

hd_status hd_bpe_spell(hd_buf *out, const char *bytes, size_t n, hd_err *err)
{
    for (size_t i = 0; i < n; i++) {
        int c = (uint8_t)bytes[i];
        if (c <= 0x20) c += 0x100;
        else if (c >= 0x7f && c <= 0xa0) c += 0x121 - 0x7f;
        else if (c == 0xad) c = 0x143;
        char s[2] = {(char)c};
        if (c >= 0x80) s[0] = (char)(0xc0 | c >> 6), s[1] = (char)(0x80 | (c & 0x3f));
        hd_status st = hd_buf_add(out, s, c >= 0x80 ? 2 : 1, err);
        if (st != HD_OK) return st;
    }
    return HD_OK;
}

static const char *token(const hd_bpe_learnt *l, int32_t id, size_t *n)
{
    *n = (size_t)(l->at[id + 1] - l->at[id]);
    return l->text + l->at[id];
}

/* The token of the bytes that end l->out->text at `used`, made when it is new. */
static int32_t intern(learner *l, size_t n)
{
    hd_bpe_learnt *o = l->out;
    const char *s = o->text + o->used;
    size_t k = (size_t)hd_hash_bytes(s, n, l->seed) & l->mask, have;
    for (; l->slot[k]; k = (k + 1) & l->mask) {
        const char *known = token(o, l->slot[k] - 1, &have);
        if (have == n && memcmp(known, s, n) == 0) return l->slot[k] - 1;
    }
    o->used += n;
    l->slot[k] = (int32_t)++o->n;
    o->at[o->n] = o->used;
    return (int32_t)o->n - 1;
}

static hd_status text_room(hd_bpe_learnt *o, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    if (o->room - o->used >= n) return HD_OK;
    size_t room = 2 * o->room + n + 4096;
    HD_TRY(hd_realloc(&o->text, room, err));
    o->room = room;
fail:
    return st;
}

static hd_status joined(learner *l, int32_t a, int32_t b, size_t *n, hd_err *err)
{
    hd_bpe_learnt *o = l->out;
    size_t na = (size_t)(o->at[a + 1] - o->at[a]), nb = (size_t)(o->at[b + 1] - o->at[b]);
    hd_status st = text_room(o, na + nb, err);
    if (st != HD_OK) return st;
    memcpy(o->text + o->used, o->text + o->at[a], na);
    memcpy(o->text + o->used + na, o->text + o->at[b], nb);
    *n = na + nb;
    return HD_OK;
}

static hd_status is_special(bool *yes, const learner *l, size_t n, const char *const *special, int n_special,
                            hd_err *err)
{
    hd_buf spelled;
    hd_buf_init(&spelled, SIZE_MAX);
    hd_status st = hd_bpe_spell(&spelled, l->out->text + l->out->used, n, err);
    *yes = false;
    for (int i = 0; i < n_special && st == HD_OK; i++) *yes |= strcmp(spelled.data, special[i]) == 0;
    hd_buf_free(&spelled);
    return st;
}

/* ---- The beginning ---- */

static hd_status learner_open(learner *l, hd_bpe_learnt *out, const hd_words *w, int64_t n, hd_err *err)
{
    hd_status st;
    *l = (learner){.out = out, .n_wanted = n, .seed = hd_hash_seed()};
    *out = (hd_bpe_learnt){0};
    size_t slots = 1024, n_words = 0;
    while (slots < 2 * (size_t)n) slots *= 2;
    l->mask = slots - 1;
    for (int i = 0; i < HD_WORD_TABLES; i++) {
        n_words += w->table[i].n;
        l->n_symbols += w->table[i].used;
    }
    if (n_words >= UINT32_MAX - 1) return hd_fail(err, HD_LIMIT, "tokenizer: more than 2^32 distinct words");
    HD_TRY(hd_alloc_n(&l->slot, slots, sizeof *l->slot, err));
    HD_TRY(hd_alloc_n(&out->at, (size_t)n + 1, sizeof *out->at, err));
    for (int i = 0; i < SIDES; i++) HD_TRY(hd_alloc_n(&l->of_side[i], (size_t)n, sizeof **l->of_side, err));
    HD_TRY(hd_alloc_n(&l->symbol, l->n_symbols, sizeof *l->symbol, err));
    HD_TRY(hd_alloc_n(&l->first, n_words, sizeof *l->first, err));
    HD_TRY(hd_alloc_n(&l->len, n_words, sizeof *l->len, err));
    HD_TRY(hd_alloc_n(&l->count, n_words, sizeof *l->count, err));
    HD_TRY(text_room(out, N_BYTES, err));
    for (int i = 0; i < N_BYTES; i++) {
        out->text[out->used] = (char)hd_bpe_byte(i);
        intern(l, 1);
    }
fail:
    return st;
}

static void take_words(learner *l, const hd_words *w)
{
    int32_t id_of[N_BYTES];
    size_t at = 0;
    for (int i = 0; i < N_BYTES; i++) id_of[hd_bpe_byte(i)] = i;
    for (int i = 0; i < HD_WORD_TABLES; i++) {
        const hd_word_table *t = &w->table[i];
        for (size_t k = 0; k < t->n; k++) {
            const hd_word *x = &t->word[k];
            l->first[l->n_words] = at;
            l->len[l->n_words] = x->len;
            l->count[l->n_words++] = x->count;
            for (uint32_t j = 0; j < x->len; j++) l->symbol[at++] = id_of[(uint8_t)t->text[x->at + j]];
        }
    }
}

/* Pairs of bytes are few: their counts and lists are arrays. */
static hd_status first_pairs(learner *l, hd_err *err)
{
    hd_status st;
    enum { PAIRS = N_BYTES * N_BYTES };
    typedef struct {
        int64_t count;
        uint64_t at;
        uint32_t n, last;
    } first_pair;
    first_pair *p = NULL;
    HD_TRY(hd_alloc_n(&p, PAIRS, sizeof *p, err));
    for (int fill = 0; fill < 2; fill++) {
        for (size_t i = 0; i < l->n_words; i++) {
            const int32_t *s = l->symbol + l->first[i];
            for (uint32_t k = 0; k + 1 < l->len[i]; k++) {
                first_pair *q = &p[s[k] * N_BYTES + s[k + 1]];
                if (!fill) q->count += l->count[i];
                if (q->last == i + 1) continue;
                q->last = (uint32_t)i + 1;
                if (fill) l->place[q->at + q->n] = (uint32_t)i;
                q->n++;
            }
        }
        for (int k = 0; k < PAIRS && !fill; k++) {
            p[k].at = l->n_place;
            l->n_place += p[k].n;
            p[k].n = p[k].last = 0;
        }
        if (fill) break;
        l->cap_place = 2 * l->n_place + 1;
        HD_TRY(hd_realloc(&l->place, l->cap_place * sizeof *l->place, err));
    }
    for (int k = 0; k < PAIRS; k++) {
        uint64_t pair = pair_of(k / N_BYTES, k % N_BYTES);
        int64_t count;
        if (!p[k].n) continue;
        HD_TRY(pair_add(&l->pairs, pair, p[k].count, &count, err));
        HD_TRY(queue_push(&l->queue, (candidate){count, pair, p[k].at, p[k].n}, err));
    }
fail:
    free(p);
    return st;
}

/* ---- One merge ---- */

/* Room for what one word can change: four pairs for each place. */
static hd_status change_room(learner *l, size_t places, hd_err *err)
{
    hd_status st = HD_OK;
    if (l->n_change + 4 * places > l->cap_change) {
        size_t cap = 2 * l->cap_change + 4 * places;
        HD_TRY(hd_realloc(&l->change, cap * sizeof *l->change, err));
        l->cap_change = cap;
    }
    if (l->n_coming + 2 * places > l->cap_coming) {
        size_t cap = 2 * l->cap_coming + 2 * places;
        HD_TRY(hd_realloc(&l->coming, cap * sizeof *l->coming, err));
        l->cap_coming = cap;
    }
fail:
    return st;
}

static inline void note(learner *l, side s, int32_t symbol, int64_t add, uint32_t word)
{
    int32_t *at = &l->of_side[s][symbol];
    if (!*at) {
        l->change[l->n_change] = (change){.side = s, .symbol = symbol};
        *at = (int32_t)++l->n_change;
    }
    change *c = &l->change[*at - 1];
    c->add += add;
    if (add < 0 || c->last == word + 1) return;
    c->last = word + 1;
    c->n++;
    l->coming[l->n_coming++] = (coming){(uint32_t)*at - 1, word};
}

/* Rewrite one word, from left to right; what stands left of a place is rewritten already. */
static void merge_word(learner *l, uint32_t word, int32_t a, int32_t b, int32_t id)
{
    int32_t *s = l->symbol + l->first[word];
    uint32_t n = l->len[word], to = 0, from = 0;
    int64_t count = l->count[word];
    while (from + 1 < n && !(s[from] == a && s[from + 1] == b)) from++;
    if (from + 1 >= n) return;
    for (to = from; from < n; to++) {
        if (!(s[from] == a && from + 1 < n && s[from + 1] == b)) {
            s[to] = s[from++];
            continue;
        }
        if (to > 0) {
            note(l, LEFT_GOES, s[to - 1], -count, word);
            note(l, LEFT_COMES, s[to - 1], count, word);
        }
        from += 2;
        s[to] = id;
        if (from < n) {
            int32_t next = s[from];
            note(l, RIGHT_GOES, next, -count, word);
            if (next == id) note(l, LEFT_COMES, id, count, word); // (ab ab) has two sides
            else note(l, RIGHT_COMES, next, count, word);
        }
    }
    l->len[word] = to;
}

static hd_status place_room(learner *l, size_t n, hd_err *err)
{
    if (l->cap_place - l->n_place >= n) return HD_OK;
    size_t cap = l->cap_place + l->cap_place / 2 + n;
    hd_status st = hd_realloc(&l->place, cap * sizeof *l->place, err);
    if (st == HD_OK) l->cap_place = cap;
    return st;
}

/* The sums of a merge into the counts, its new pairs into the queue. */
static hd_status settle(learner *l, int32_t a, int32_t b, int32_t id, int64_t min_count, hd_err *err)
{
    hd_status st = HD_OK;
    HD_TRY(place_room(l, l->n_coming, err));
    for (size_t i = 0; i < l->n_change; i++) {
        change *c = &l->change[i];
        c->at = l->n_place;
        l->n_place += c->n;
        c->n = 0;
    }
    for (size_t i = 0; i < l->n_coming; i++) {
        change *c = &l->change[l->coming[i].change];
        l->place[c->at + c->n++] = l->coming[i].word;
    }
    /* Counts first: (ab ab) may be told of twice, as may a pair that goes. */
    for (size_t i = 0; i < l->n_change; i++) {
        const change *c = &l->change[i];
        const uint64_t pair[SIDES] = {pair_of(c->symbol, a), pair_of(b, c->symbol), pair_of(c->symbol, id),
                                      pair_of(id, c->symbol)};
        int64_t count;
        HD_TRY(pair_add(&l->pairs, pair[c->side], c->add, &count, err));
    }
    for (size_t i = 0; i < l->n_change; i++) {
        const change *c = &l->change[i];
        if (c->n == 0) continue;
        uint64_t pair = c->side == LEFT_COMES ? pair_of(c->symbol, id) : pair_of(id, c->symbol);
        int64_t count = l->pairs.of[pair_slot(&l->pairs, pair)].count;
        if (count >= min_count) HD_TRY(queue_push(&l->queue, (candidate){count, pair, c->at, c->n}, err));
    }
fail:
    for (size_t i = 0; i < l->n_change; i++) l->of_side[l->change[i].side][l->change[i].symbol] = 0;
    l->n_change = l->n_coming = 0;
    return st;
}

static hd_status add_join(hd_bpe_learnt *o, hd_bpe_join j, hd_err *err)
{
    hd_status st = HD_OK;
    if ((o->n_join & (o->n_join - 1)) == 0) // room for the next power of two
        HD_TRY(hd_realloc(&o->join, (size_t)(o->n_join ? 2 * o->n_join : 1) * sizeof *o->join, err));
    o->join[o->n_join++] = j;
fail:
    return st;
}

static hd_status merge(learner *l, const candidate *x, int64_t min_count, const char *const *special,
                       int n_special, hd_err *err)
{
    hd_status st;
    int32_t a = (int32_t)(x->pair >> 32), b = (int32_t)(uint32_t)x->pair, id;
    size_t n;
    bool taken;
    HD_TRY(joined(l, a, b, &n, err));
    HD_TRY(is_special(&taken, l, n, special, n_special, err));
    if (taken) return HD_OK;
    id = intern(l, n);
    HD_TRY(add_join(l->out, (hd_bpe_join){a, b, id}, err));
    for (uint32_t i = 0; i < x->n; i++) {
        uint32_t word = l->place[x->at + i];
        HD_TRY(change_room(l, l->len[word], err));
        merge_word(l, word, a, b, id);
    }
    HD_TRY(settle(l, a, b, id, min_count, err));
fail:
    return st;
}

/* ---- All of it ---- */

/* Of the same pair merged twice the later line stands. */
static hd_status drop_repeats(hd_bpe_learnt *o, hd_err *err)
{
    hd_status st = HD_OK;
    pair_table last = {0};
    int64_t n = 0, line;
    for (int64_t i = 0; i < o->n_join; i++) {
        HD_TRY(pair_add(&last, pair_of(o->join[i].a, o->join[i].b), 0, &line, err));
        last.of[pair_slot(&last, pair_of(o->join[i].a, o->join[i].b))].count = i;
    }
    for (int64_t i = 0; i < o->n_join; i++)
        if (last.of[pair_slot(&last, pair_of(o->join[i].a, o->join[i].b))].count == i)
            o->join[n++] = o->join[i];
    o->n_join = n;
fail:
    free(last.of);
    return st;
}

static void count_tokens(const learner *l, hd_bpe_learnt *o)
{
    for (size_t i = 0; i < l->n_words; i++) {
        const int32_t *s = l->symbol + l->first[i];
        o->n_tokens += (double)l->len[i] * (double)l->count[i];
        for (uint32_t k = 0; k < l->len[i]; k++)
            o->n_bytes += (double)(o->at[s[k] + 1] - o->at[s[k]]) * (double)l->count[i];
    }
}

hd_status hd_bpe_learn(hd_bpe_learnt *out, const hd_words *w, int64_t n, int64_t min_count,
                       const char *const *special, int n_special, bool progress,
                       const volatile sig_atomic_t *stop, hd_err *err)
{
    hd_status st;
    learner l;
    hd_progress bar = {0};
    if (progress) hd_progress_begin(&bar, "merges", (uint64_t)(n - N_BYTES), "merges");
    HD_TRY(learner_open(&l, out, w, n, err));
    take_words(&l, w);
    HD_TRY(first_pairs(&l, err));
    while (out->n < n && l.queue.n) {
        candidate x = l.queue.of[0];
        int64_t count = l.pairs.of[pair_slot(&l.pairs, x.pair)].count, n_before = out->n;
        if (count != x.count) { // old: back to its place
            l.queue.of[0].count = count;
            if (count > 0) sift_down(&l.queue, 0);
            else queue_pop(&l.queue);
            continue;
        }
        if (count < min_count) break;
        if (stop && *stop) HD_TRY(hd_fail(err, HD_CANCELLED, "tokenizer: stopped"));
        queue_pop(&l.queue);
        HD_TRY(merge(&l, &x, min_count, special, n_special, err));
        if (progress) hd_progress_add(&bar, (uint64_t)(out->n - n_before));
    }
    HD_TRY(drop_repeats(out, err));
    count_tokens(&l, out);
fail:
    if (progress) hd_progress_end(&bar);
    learner_close(&l);
    if (st != HD_OK) hd_bpe_learnt_close(out);
    return st;
}
