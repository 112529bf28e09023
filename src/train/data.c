/* Which rows come when.  Everything follows from (seed, index); what is kept is only a cache of it.
 *
 *   index      -> source    a fixed cycle of CYCLE sequences deals the sources out by weight, evenly spread
 *              -> ordinal   how many sequences that source has given before
 *   ordinal    -> epoch     each epoch is planned in order: its documents in a shuffled order (a keyed permutation: no list
 *                           of documents is ever made), in windows, each window packed by itself.  Planning
 *                           says how many sequences an epoch and its windows have; of the packing only the
 *                           window in use is kept.
 *              -> sequence  the window's sequences, shuffled
 *
 * A window is packed best-fit-decreasing (arXiv:2404.10830: fewer cuts than concatenating, hardly more
 * padding): documents by falling length, each into the sequence whose free rows it leaves the fewest of.
 * Those longer than a sequence are cut into as few pieces as can be, and come second: the first piece of each
 * fills the largest gap so far, to the row, and their last pieces are cut once more where nothing takes them
 * whole.  With that freedom documents of a log-normal length around 200 leave 0.2 % of sequences of 256
 * empty; without it, it was 5.9 %.  Where no gap is to be filled the first cut is drawn, anew each epoch, so
 * that borders move.
 *
 * A cut loses no target: the last row of a piece predicts the first id of the next.  Only a document's
 * last row has none. */
#include "train/data.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "train/shard_dir.h"

/* WORTH_A_CUT: a gap of a 32nd of a sequence is. */
enum { CYCLE = 4096, WINDOW_DOCS = 1 << 16, MAX_SEQ = 1 << 24, WORTH_A_CUT = 32 };
static const int64_t WINDOW_TOK = INT64_C(1) << 26;

typedef struct {
    int64_t doc;
    int32_t at, n; // rows [at, at+n) of it
} piece;

typedef struct {
    int64_t doc, seq; // first document (in shuffled order), first sequence, within the epoch
} window;

typedef struct {
    hd_shard_dir dir;
    double weight;
    int per_cycle;
    uint64_t key;
    int64_t *epoch_first; // [n_epochs + 1] sequences before each epoch that was planned
    int64_t n_epochs, epoch_cap;
    /* the epoch that is planned */
    int64_t epoch; // -1: none
    window *win;   // [n_win + 1]
    int64_t n_win, win_cap;
    /* the window that is packed */
    int64_t at_win; // -1: none
    piece *part;    // by sequence
    int32_t *first; // [n_seq + 1] into part
    int64_t n_seq, first_cap;
} source;

/* Memory of the packing, the sources' common one. */
typedef struct {
    piece *part;                         // as the documents come
    int32_t *order, *bin, *next, *count; // by length; sequence of each; list of gaps; of the sort
    uint64_t *some;                      // bit r: some sequence has r rows free
    int32_t *at_free;                    // [seq + 1] the newest of them, -1
    int64_t n, n_bins, cap, bin_cap, order_cap, next_cap;
    int seq; // 0: no room yet
} packing;

struct hd_data {
    source *src;
    int n_src, seq;
    int64_t cycle;    // sequences of the cycle, 1 for one source
    uint16_t *slot;   // [cycle] source
    uint16_t *before; // [cycle] that source's slots before this one
    packing pack;
    /* what the caller gets */
    int32_t *tok, *target, *ids;
    uint8_t *learnt;
    int *len;
    int64_t row_cap;
};

/* ---- Chance ---- */

/* The finalizer of SplitMix64 (Steele et al. 2014). */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t mix3(uint64_t a, uint64_t b, uint64_t c) { return mix(mix(mix(a) ^ b) ^ c); }

/* A permutation of 0 .. n-1 chosen by `key`: a Feistel network over the next even power of two, walked until
 * it lands inside (fewer than four steps on average). */
static int64_t permute(int64_t i, int64_t n, uint64_t key)
{
    int half = 1;
    while ((INT64_C(1) << 2 * half) < n) half++;
    uint64_t mask = (UINT64_C(1) << half) - 1, x = (uint64_t)i;
    do {
        uint64_t l = x >> half, r = x & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint64_t t = l ^ (mix(key ^ mix(r + (round << 56))) & mask);
            l = r;
            r = t;
        }
        x = l << half | r;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}

/* ---- Packing a window ---- */

static hd_status grow(void *inout, int64_t *cap, int64_t n, size_t size, hd_err *err)
{
    size_t bytes;
    int64_t want = n + n / 2 + 64;
    if (n <= *cap) return HD_OK;
    if (!hd_mul(&bytes, (size_t)want, size))
        return hd_fail(err, HD_NOMEM, "data: a plan of %" PRId64 " rows", n);
    hd_status st = hd_realloc(inout, bytes, err);
    if (st == HD_OK) *cap = want;
    return st;
}

static hd_status pack_room(packing *p, int seq, hd_err *err)
{
    hd_status st;
    if (p->seq == seq) return HD_OK;
    HD_TRY(hd_alloc_n(&p->count, (size_t)seq + 2, sizeof *p->count, err));
    HD_TRY(hd_alloc_n(&p->some, (size_t)seq / 64 + 1, sizeof *p->some, err));
    HD_TRY(hd_alloc_n(&p->at_free, (size_t)seq + 1, sizeof *p->at_free, err));
    p->seq = seq;
fail:
    return st;
}

/* A piece more, in no sequence yet. */
static hd_status add_piece(packing *p, int64_t doc, int64_t at, int64_t n, hd_err *err)
{
    hd_status st;
    if (p->n == INT32_MAX) return hd_fail(err, HD_LIMIT, "data: sequences too short for documents so long");
    HD_TRY(grow(&p->part, &p->cap, p->n + 1, sizeof *p->part, err));
    HD_TRY(grow(&p->bin, &p->bin_cap, p->n + 1, sizeof *p->bin, err));
    HD_TRY(grow(&p->order, &p->order_cap, p->n + 1, sizeof *p->order, err));
    HD_TRY(
        grow(&p->next, &p->next_cap, p->n + 1, sizeof *p->next, err)); // as many sequences as pieces, at most
    p->bin[p->n] = -1;
    p->part[p->n++] = (piece){doc, (int32_t)at, (int32_t)n};
fail:
    return st;
}

/* The smallest r >= n with a sequence that has r rows free, or -1. */
static int least_free(const packing *p, int n)
{
    int w = n / 64, words = p->seq / 64 + 1;
    uint64_t bits = p->some[w] & UINT64_MAX << n % 64;
    while (!bits && ++w < words) bits = p->some[w];
    return bits ? w * 64 + __builtin_ctzll(bits) : -1;
}

/* The largest gap there is, 0: none. */
static int most_free(const packing *p)
{
    for (int w = p->seq / 64; w >= 0; w--)
        if (p->some[w]) return w * 64 + 63 - __builtin_clzll(p->some[w]);
    return 0;
}

static void put_free(packing *p, int32_t bin, int rows)
{
    if (!rows) return; // full: nobody looks for it
    p->next[bin] = p->at_free[rows];
    p->at_free[rows] = bin;
    p->some[rows / 64] |= UINT64_C(1) << rows % 64;
}

static int32_t take_free(packing *p, int rows)
{
    int32_t bin = p->at_free[rows];
    p->at_free[rows] = p->next[bin];
    if (p->at_free[rows] < 0) p->some[rows / 64] &= ~(UINT64_C(1) << rows % 64);
    return bin;
}

/* Puts piece i where it fits best, or into a sequence of its own. */
static void place(packing *p, int64_t i)
{
    int n = p->part[i].n, r = least_free(p, n);
    int32_t bin = r < 0 ? (int32_t)p->n_bins++ : take_free(p, r);
    p->bin[i] = bin;
    put_free(p, bin, (r < 0 ? p->seq : r) - n);
}

/* Where nothing takes piece i whole, its beginning fills the largest gap, if that is worth a cut; and so
 * on with the rest. */
static hd_status place_cut(packing *p, int64_t i, hd_err *err)
{
    hd_status st = HD_OK;
    int gap;
    while (least_free(p, p->part[i].n) < 0 && (gap = most_free(p)) >= p->seq / WORTH_A_CUT && gap > 0) {
        piece all = p->part[i];
        p->part[i].n = gap;
        p->bin[i] = take_free(p, gap);
        HD_TRY(add_piece(p, all.doc, all.at + gap, all.n - gap, err));
        i = p->n - 1;
    }
    place(p, i);
fail:
    return st;
}

/* Pieces from .. n-1, longest first and equal ones in the order in which they came. */
static hd_status best_fit(packing *p, int64_t from, bool may_cut, hd_err *err)
{
    hd_status st = HD_OK;
    int seq = p->seq;
    int64_t end = p->n;
    memset(p->count, 0, ((size_t)seq + 2) * sizeof *p->count);
    for (int64_t i = from; i < end; i++) p->count[seq - p->part[i].n + 1]++;
    for (int r = 1; r <= seq; r++) p->count[r] += p->count[r - 1];
    for (int64_t i = from; i < end; i++) p->order[from + p->count[seq - p->part[i].n]++] = (int32_t)i;
    for (int64_t k = from; k < end; k++) {
        if (may_cut) HD_TRY(place_cut(p, p->order[k], err));
        else place(p, p->order[k]);
    }
fail:
    return st;
}

/* A long document: the first piece, as long as the largest gap when the rest then needs no piece more, else
 * of a length that is drawn; whole sequences; the rest, whose place is found later.  One of more than eight
 * sequences may have a piece too many, so that its first can be of any length. */
static hd_status cut(packing *p, int64_t doc, int64_t n, uint64_t key, hd_err *err)
{
    hd_status st = HD_OK;
    int64_t seq = p->seq, parts = (n + seq - 1) / seq + (n >= 8 * seq), least = n - (parts - 1) * seq, at;
    if (least < 1) least = 1;
    int64_t gap = most_free(p),
            first = gap >= least ? gap : least + (int64_t)(mix(key) % (uint64_t)(seq - least + 1));
    HD_TRY(add_piece(p, doc, 0, first, err));
    if (gap >= least) p->bin[p->n - 1] = take_free(p, (int)gap);
    for (at = first; n - at >= seq; at += seq) {
        HD_TRY(add_piece(p, doc, at, seq, err));
        p->bin[p->n - 1] = (int32_t)p->n_bins++;
    }
    if (at < n) HD_TRY(add_piece(p, doc, at, n - at, err));
fail:
    return st;
}

/* Pieces that have no sequence yet go to the end: [from, n). */
static int64_t unplaced_last(packing *p)
{
    int64_t to = 0;
    for (int64_t i = 0; i < p->n; i++) {
        if (p->bin[i] < 0) continue;
        piece t = p->part[to];
        int32_t b = p->bin[to];
        p->part[to] = p->part[i], p->bin[to] = p->bin[i];
        p->part[i] = t, p->bin[i] = b;
        to++;
    }
    return to;
}

/* The window that begins with `doc` in the epoch's order.  *end: the first document that is not in it. */
static hd_status pack_window(packing *p, const source *s, int64_t epoch, int64_t doc, int64_t *end, int seq,
                             hd_err *err)
{
    hd_status st;
    int64_t n_docs = hd_shard_dir_docs(&s->dir), tok = 0, i, which;
    uint64_t key = mix3(s->key, 1, (uint64_t)epoch);
    hd_shard_doc row;
    HD_TRY(pack_room(p, seq, err));
    for (int r = 0; r <= seq; r++) p->at_free[r] = -1;
    memset(p->some, 0, ((size_t)seq / 64 + 1) * sizeof *p->some);
    p->n = p->n_bins = 0;
    for (i = doc; i < n_docs && i - doc < WINDOW_DOCS && tok < WINDOW_TOK; i++) {
        which = permute(i, n_docs, key);
        hd_shard_dir_doc(&s->dir, which, &row);
        if (row.n <= seq) HD_TRY(add_piece(p, which, 0, row.n, err));
        tok += row.n;
    }
    *end = i;
    HD_TRY(best_fit(p, 0, false, err));
    for (i = doc; i < *end; i++) {
        which = permute(i, n_docs, key);
        hd_shard_dir_doc(&s->dir, which, &row);
        if (row.n > seq)
            HD_TRY(cut(p, which, row.n, mix3(s->key ^ (uint64_t)which, 2, (uint64_t)epoch), err));
    }
    HD_TRY(best_fit(p, unplaced_last(p), true, err));
fail:
    return st;
}

/* The packed window becomes the source's: pieces by sequence, sequences shuffled. */
static hd_status keep(source *s, const packing *p, int64_t w, hd_err *err)
{
    hd_status st;
    int64_t n = p->n_bins;
    uint64_t key = mix3(s->key ^ (uint64_t)w, 3, (uint64_t)s->epoch);
    int32_t *place = NULL;
    s->at_win = -1;
    HD_TRY(grow(&s->first, &s->first_cap, n + 1, sizeof *s->first, err));
    HD_TRY(hd_realloc(&s->part, (size_t)p->n * sizeof *s->part, err));
    HD_TRY(hd_alloc_n(&place, (size_t)n, sizeof *place, err));
    memset(s->first, 0, (size_t)(n + 1) * sizeof *s->first);
    for (int64_t b = 0; b < n; b++) place[b] = (int32_t)permute(b, n, key);
    for (int64_t i = 0; i < p->n; i++) s->first[place[p->bin[i]] + 1]++;
    for (int64_t b = 0; b < n; b++) s->first[b + 1] += s->first[b];
    for (int64_t i = 0; i < p->n; i++) s->part[s->first[place[p->bin[i]]]++] = p->part[i];
    for (int64_t b = n; b > 0; b--) s->first[b] = s->first[b - 1]; // each was moved to its end
    s->first[0] = 0;
    s->n_seq = n;
    s->at_win = w;
fail:
    free(place);
    return st;
}

/* ---- Epochs ---- */

static hd_status plan_epoch(hd_data *d, source *s, int64_t epoch, hd_err *err)
{
    hd_status st = HD_OK;
    int64_t doc = 0, seq = 0, n_docs = hd_shard_dir_docs(&s->dir);
    s->epoch = s->at_win = -1;
    s->n_win = 0;
    while (doc < n_docs) {
        HD_TRY(grow(&s->win, &s->win_cap, s->n_win + 2, sizeof *s->win, err));
        s->win[s->n_win++] = (window){doc, seq};
        HD_TRY(pack_window(&d->pack, s, epoch, doc, &doc, d->seq, err));
        seq += d->pack.n_bins;
    }
    s->win[s->n_win] = (window){doc, seq};
    s->epoch = epoch;
    if (epoch == s->n_epochs) {
        HD_TRY(grow(&s->epoch_first, &s->epoch_cap, s->n_epochs + 2, sizeof *s->epoch_first, err));
        s->epoch_first[0] = 0;
        s->epoch_first[epoch + 1] = s->epoch_first[epoch] + seq;
        s->n_epochs++;
    }
fail:
    return st;
}

/* The epoch of the source's sequence `ordinal`.  Epochs before it are planned once, for how many
 * sequences they have. */
static hd_status find_epoch(hd_data *d, source *s, int64_t ordinal, int64_t *epoch, hd_err *err)
{
    hd_status st = HD_OK;
    while (!s->n_epochs || s->epoch_first[s->n_epochs] <= ordinal) HD_TRY(plan_epoch(d, s, s->n_epochs, err));
    int64_t lo = 0, hi = s->n_epochs - 1;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (ordinal < s->epoch_first[mid + 1]) hi = mid;
        else lo = mid + 1;
    }
    *epoch = lo;
fail:
    return st;
}

/* The pieces of the source's sequence `ordinal`. */
static hd_status find_pieces(hd_data *d, source *s, int64_t ordinal, const piece **part, int *n, hd_err *err)
{
    hd_status st;
    int64_t epoch, end;
    HD_TRY(find_epoch(d, s, ordinal, &epoch, err));
    if (s->epoch != epoch) HD_TRY(plan_epoch(d, s, epoch, err));
    int64_t i = ordinal - s->epoch_first[epoch], lo = 0, hi = s->n_win - 1;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (i < s->win[mid + 1].seq) hi = mid;
        else lo = mid + 1;
    }
    if (s->at_win != lo) {
        HD_TRY(pack_window(&d->pack, s, epoch, s->win[lo].doc, &end, d->seq, err));
        HD_TRY(keep(s, &d->pack, lo, err));
    }
    i -= s->win[lo].seq;
    *part = s->part + s->first[i];
    *n = s->first[i + 1] - s->first[i];
fail:
    return st;
}

/* ---- Open, close ---- */

void hd_data_close(hd_data *d)
{
    if (!d) return;
    for (int i = 0; d->src && i < d->n_src; i++) {
        source *s = &d->src[i];
        hd_shard_dir_close(&s->dir);
        free(s->epoch_first);
        free(s->win);
        free(s->part);
        free(s->first);
    }
    packing *p = &d->pack;
    free(p->part), free(p->order), free(p->bin), free(p->next), free(p->count), free(p->some),
        free(p->at_free);
    free(d->src);
    free(d->slot);
    free(d->before);
    free(d->tok);
    free(d->target);
    free(d->ids);
    free(d->learnt);
    free(d->len);
    free(d);
}

/* The cycle: each slot goes to the source that is furthest behind its share. */
static hd_status deal(hd_data *d, const hd_data_source *src, hd_err *err)
{
    hd_status st;
    double sum = 0;
    for (int k = 0; k < d->n_src; k++) {
        if (!(src[k].weight > 0) || !isfinite(src[k].weight))
            HD_TRY(hd_fail(err, HD_USAGE, "data: %.200s: a weight of %g: needs more than 0", src[k].path,
                           src[k].weight));
        sum += src[k].weight;
    }
    d->cycle = d->n_src == 1 ? 1 : CYCLE;
    HD_TRY(hd_alloc_n(&d->slot, (size_t)d->cycle, sizeof *d->slot, err));
    HD_TRY(hd_alloc_n(&d->before, (size_t)d->cycle, sizeof *d->before, err));
    for (int64_t i = 0; i < d->cycle; i++) {
        int best = 0;
        double most = -1e300;
        for (int k = 0; k < d->n_src; k++) {
            double behind = src[k].weight / sum * (double)(i + 1) - d->src[k].per_cycle;
            if (behind > most) best = k, most = behind;
        }
        d->slot[i] = (uint16_t)best;
        d->before[i] = (uint16_t)d->src[best].per_cycle++;
    }
    for (int k = 0; k < d->n_src; k++)
        if (!d->src[k].per_cycle)
            HD_TRY(hd_fail(err, HD_USAGE, "data: %.200s: a share of %g: less than one sequence in %d",
                           src[k].path, src[k].weight / sum, CYCLE));
    st = HD_OK;
fail:
    return st;
}

static hd_status open_source(hd_data *d, int k, const char *path, uint64_t seed, int64_t n_vocab, hd_err *err)
{
    hd_status st;
    source *s = &d->src[k];
    HD_TRY(hd_shard_dir_open(&s->dir, path, err));
    s->epoch = s->at_win = -1;
    s->key = mix3(seed, 4, (uint64_t)k);
    const hd_shard_info *a = hd_shard_dir_about(&s->dir), *b = hd_shard_dir_about(&d->src[0].dir);
    if (!hd_shard_dir_docs(&s->dir))
        HD_TRY(hd_fail(err, HD_FORMAT, "data: %.200s: no documents in it", path));
    if (a->n_vocab > n_vocab)
        HD_TRY(hd_fail(err, HD_FORMAT,
                       "data: %.200s: packed for a vocabulary of %" PRId64 ", the model has %" PRId64, path,
                       a->n_vocab, n_vocab));
    if (memcmp(a->tokenizer, b->tokenizer, HD_SHARD_PRINT) != 0)
        HD_TRY(hd_fail(err, HD_FORMAT, "data: %.200s: packed with another tokenizer than %.200s", path,
                       d->src[0].dir.path));
fail:
    return st;
}

hd_status hd_data_open(hd_data **out, const hd_data_source *src, int n_src, int seq, uint64_t seed,
                       int64_t n_vocab, hd_err *err)
{
    hd_status st;
    hd_data *d = NULL;
    if (n_src < 1 || n_src > CYCLE || seq < 2 || seq > MAX_SEQ)
        return hd_fail(err, HD_USAGE, "data: %d sources, sequences of %d: 1 source and 2 rows are the least",
                       n_src, seq);
    HD_TRY(hd_alloc(&d, sizeof *d, err));
    d->seq = seq;
    HD_TRY(hd_alloc_n(&d->src, (size_t)n_src, sizeof *d->src, err));
    for (; d->n_src < n_src;) {
        d->n_src++;
        HD_TRY(open_source(d, d->n_src - 1, src[d->n_src - 1].path, seed, n_vocab, err));
    }
    HD_TRY(deal(d, src, err));
    *out = d;
    return HD_OK;
fail:
    hd_data_close(d);
    return st;
}

/* ---- Rows ---- */

static hd_status want_rows(hd_data *d, int64_t n, hd_err *err)
{
    hd_status st = HD_OK;
    if (n <= d->row_cap) return HD_OK;
    d->row_cap = 0;
    HD_TRY(hd_realloc(&d->tok, (size_t)n * sizeof *d->tok, err));
    HD_TRY(hd_realloc(&d->target, (size_t)n * sizeof *d->target, err));
    HD_TRY(hd_realloc(&d->len, (size_t)n * sizeof *d->len, err));
    HD_TRY(hd_realloc(&d->ids, (size_t)(n + 1) * sizeof *d->ids, err));
    HD_TRY(hd_realloc(&d->learnt, (size_t)(n + 1), err));
    d->row_cap = n;
fail:
    return st;
}

/* Rows [at, at+n) of a document behind the rows that `b` has. */
static hd_status put_rows(hd_data *d, const source *s, int64_t doc, int64_t at, int64_t n, hd_micro *b,
                          hd_err *err)
{
    hd_status st;
    hd_shard_doc row;
    hd_shard *shard = hd_shard_dir_doc(&s->dir, doc, &row);
    int64_t more = at + n < row.n; // the id behind the last row, which that row predicts
    HD_TRY(hd_shard_read(shard, row.at + at, n + more, d->ids, err));
    hd_shard_learnt(shard, &row, at, n + more, d->learnt);
    int32_t *tok = d->tok + b->n_rows, *target = d->target + b->n_rows;
    for (int64_t i = 0; i < n; i++) {
        tok[i] = d->ids[i];
        target[i] = i + 1 < n + more && d->learnt[i + 1] ? d->ids[i + 1] : -1;
    }
    d->len[b->n_docs++] = (int)n;
    b->n_rows += (int)n;
fail:
    return st;
}

static void put_padding(hd_data *d, int n, hd_micro *b)
{
    if (n <= 0) return;
    for (int i = 0; i < n; i++) d->tok[b->n_rows + i] = 0, d->target[b->n_rows + i] = -1;
    d->len[b->n_docs++] = n;
    b->n_rows += n;
}

static void hand_out(const hd_data *d, hd_micro *b)
{
    b->tok = d->tok;
    b->target = d->target;
    b->len = d->len;
}

/* The source of sequence `index`, and which of its own it is. */
static source *source_of(const hd_data *d, uint64_t index, int64_t *ordinal)
{
    int64_t i = (int64_t)(index % (uint64_t)d->cycle), round = (int64_t)(index / (uint64_t)d->cycle);
    source *s = &d->src[d->slot[i]];
    *ordinal = round * s->per_cycle + d->before[i];
    return s;
}

hd_status hd_data_get(hd_data *d, uint64_t index, int n, hd_micro *b, hd_err *err)
{
    hd_status st;
    *b = (hd_micro){0};
    if (n < 1 || n > INT32_MAX / d->seq || index > UINT64_C(1) << 56)
        return hd_fail(err, HD_USAGE, "data: %d sequences of %d rows from %" PRIu64, n, d->seq, index);
    HD_TRY(want_rows(d, (int64_t)n * d->seq, err));
    for (int k = 0; k < n; k++) {
        const piece *part;
        int64_t ordinal;
        int parts, from = b->n_rows;
        source *s = source_of(d, index + (uint64_t)k, &ordinal);
        HD_TRY(find_pieces(d, s, ordinal, &part, &parts, err));
        for (int i = 0; i < parts; i++) HD_TRY(put_rows(d, s, part[i].doc, part[i].at, part[i].n, b, err));
        put_padding(d, d->seq - (b->n_rows - from), b);
    }
    hand_out(d, b);
fail:
    if (st != HD_OK) *b = (hd_micro){0};
    return st;
}

/* *at counts ids of the source.  Documents are cut at multiples of the sequence's length, as long as
 * max_rows allows. */
hd_status hd_data_walk(hd_data *d, int k, uint64_t *at, int max_rows, hd_micro *b, bool *more, hd_err *err)
{
    hd_status st;
    *b = (hd_micro){0};
    *more = false;
    if (k < 0 || k >= d->n_src || max_rows < 1)
        return hd_fail(err, HD_USAGE, "data: source %d, %d rows", k, max_rows);
    source *s = &d->src[k];
    HD_TRY(want_rows(d, max_rows, err));
    while (*at < (uint64_t)hd_shard_dir_tok(&s->dir)) {
        hd_shard_doc row;
        int64_t from, doc = hd_shard_dir_doc_of(&s->dir, (int64_t)*at, &from);
        int64_t n = d->seq - from % d->seq, room = max_rows - b->n_rows;
        hd_shard_dir_doc(&s->dir, doc, &row);
        if (n > row.n - from) n = row.n - from;
        if (n > room && b->n_rows) break;
        if (n > room) n = room;
        HD_TRY(put_rows(d, s, doc, from, n, b, err));
        *at += (uint64_t)n;
        *more = true;
        if (b->n_rows == max_rows) break;
    }
    hand_out(d, b);
    st = HD_OK;
fail:
    if (st != HD_OK) *b = (hd_micro){0};
    return st;
}

/* ---- Figures ---- */

int64_t hd_data_tokens(const hd_data *d)
{
    int64_t n = 0;
    for (int k = 0; k < d->n_src; k++) n += hd_shard_dir_tok(&d->src[k].dir);
    return n;
}

double hd_data_bytes_per_token(const hd_data *d, int source_k)
{
    const hd_shard_dir *dir = &d->src[source_k].dir;
    return dir->n_targets ? (double)dir->text_bytes / (double)dir->n_targets : 0;
}

const uint8_t *hd_data_tokenizer(const hd_data *d) { return hd_shard_dir_about(&d->src[0].dir)->tokenizer; }

/* Planned epochs count as what they have; one that nobody planned yet, as the last one that was. */
double hd_data_epoch(const hd_data *d, uint64_t index)
{
    const source *s = &d->src[0];
    int64_t i = (int64_t)(index % (uint64_t)d->cycle),
            ordinal = (int64_t)(index / (uint64_t)d->cycle) * s->per_cycle;
    for (int64_t k = 0; k < i; k++) ordinal += d->slot[k] == 0;
    if (!s->n_epochs) return (double)ordinal * d->seq / (double)hd_shard_dir_tok(&s->dir);
    int64_t e = 0;
    while (e < s->n_epochs - 1 && ordinal >= s->epoch_first[e + 1]) e++;
    return (double)e +
           (double)(ordinal - s->epoch_first[e]) / (double)(s->epoch_first[e + 1] - s->epoch_first[e]);
}
