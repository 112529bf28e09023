/* Counting words.  The texts' bytes come through in batches; memory does not grow with them, but with
 * the distinct words.
 *
 *   reader      documents -> a batch, cut into chunks where no word can cross
 *   threads     chunk -> words -> tables of the thread's own
 *   threads     those tables -> the tables of all, one thread for each table
 *   when the tables are over their memory: words seen once go, then those seen twice ...
 *
 * A batch has the same bytes whatever the threads, and sums do not know their order, so neither
 * does the result. */
#include <string.h>
#include <sys/stat.h>

#include "base/utf8.h"
#include "model/vocab.h"
#include "train/bpe_impl.h"

/* WORD_BYTES: of one in the tables, beside its text. */
enum { CHUNK = 128 << 10, BATCH = 32 << 20, WORD_BYTES = 48 };
static const size_t MAX_BYTES = (size_t)1 << 30;

/* As Qwen 2 and Llama 3 cut words, so that converters know the names. */
#define WORDS(digits)                                                                                        \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"   \
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const char hd_bpe_pattern_digits[] = WORDS("\\p{N}"), hd_bpe_pattern_numbers[] = WORDS("\\p{N}{1,3}");

/* ---- One table ---- */

static void table_close(hd_word_table *t)
{
    free(t->word);
    free(t->slot);
    free(t->text);
    *t = (hd_word_table){0};
}

static void table_clear(hd_word_table *t)
{
    if (t->n) memset(t->slot, 0, (t->mask + 1) * sizeof *t->slot);
    t->n = t->used = 0;
}

static hd_status table_slots(hd_word_table *t, size_t n_slots, hd_err *err)
{
    uint32_t *slot;
    hd_status st = hd_alloc_n(&slot, n_slots, sizeof *slot, err);
    if (st != HD_OK) return st;
    free(t->slot);
    t->slot = slot;
    t->mask = n_slots - 1;
    for (size_t i = 0; i < t->n; i++) {
        size_t k = t->word[i].hash & t->mask;
        while (slot[k]) k = (k + 1) & t->mask;
        slot[k] = (uint32_t)i + 1;
    }
    return HD_OK;
}

static hd_status table_room(hd_word_table *t, size_t len, hd_err *err)
{
    hd_status st = HD_OK;
    if (t->n >= UINT32_MAX / 2)
        return hd_fail(err, HD_LIMIT, "tokenizer: more than %zu distinct words in a table", t->n);
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 256;
        HD_TRY(hd_realloc(&t->word, cap * sizeof *t->word, err));
        t->cap = cap;
    }
    if (t->room - t->used < len) {
        size_t room = (t->room ? 2 * t->room : 4096) + len;
        HD_TRY(hd_realloc(&t->text, room, err));
        t->room = room;
    }
    if (!t->slot || t->n >= (t->mask + 1) / 2) HD_TRY(table_slots(t, t->slot ? 2 * (t->mask + 1) : 512, err));
fail:
    return st;
}

static hd_status table_add(hd_word_table *t, const char *s, size_t len, uint32_t hash, int64_t count,
                           hd_err *err)
{
    size_t k = hash & t->mask;
    for (; t->slot && t->slot[k]; k = (k + 1) & t->mask) {
        hd_word *w = &t->word[t->slot[k] - 1];
        if (w->hash != hash || w->len != len || memcmp(t->text + w->at, s, len) != 0) continue;
        w->count += count;
        return HD_OK;
    }
    hd_status st = table_room(t, len, err);
    if (st != HD_OK) return st;
    for (k = hash & t->mask; t->slot[k];) k = (k + 1) & t->mask;
    t->word[t->n] = (hd_word){t->used, count, (uint32_t)len, hash};
    memcpy(t->text + t->used, s, len);
    t->used += len;
    t->slot[k] = (uint32_t)++t->n;
    return HD_OK;
}

void hd_words_close(hd_words *w)
{
    for (int i = 0; i < HD_WORD_TABLES; i++) table_close(&w->table[i]);
    *w = (hd_words){0};
}

size_t hd_words_bytes(const hd_words *w)
{
    size_t n = 0;
    for (int i = 0; i < HD_WORD_TABLES; i++) n += w->table[i].used + w->table[i].n * WORD_BYTES;
    return n;
}

int64_t hd_words_distinct(const hd_words *w)
{
    int64_t n = 0;
    for (int i = 0; i < HD_WORD_TABLES; i++) n += (int64_t)w->table[i].n;
    return n;
}

/* ---- Rare words go ---- */

static hd_status table_keep(hd_word_table *t, int64_t least, int64_t *dropped, hd_err *err)
{
    hd_status st = HD_OK;
    hd_word_table kept = {0};
    for (size_t i = 0; i < t->n; i++) {
        const hd_word *w = &t->word[i];
        if (w->count < least) *dropped += w->count;
        else HD_TRY(table_add(&kept, t->text + w->at, w->len, w->hash, w->count, err));
    }
    table_close(t);
    *t = kept;
    return HD_OK;
fail:
    table_close(&kept);
    return st;
}

/* Down to half of the memory, so that it does not happen after each batch. */
static hd_status drop_rare(hd_words *w, size_t max_bytes, hd_err *err)
{
    hd_status st = HD_OK;
    enum { COUNTS = 4096 };
    size_t bytes[COUNTS] = {0}, left = hd_words_bytes(w);
    for (int i = 0; i < HD_WORD_TABLES; i++)
        for (size_t k = 0; k < w->table[i].n; k++) {
            const hd_word *x = &w->table[i].word[k];
            bytes[x->count < COUNTS ? x->count : COUNTS - 1] += x->len + WORD_BYTES;
        }
    int64_t least = 1;
    while (least < COUNTS - 1 && left > max_bytes / 2) left -= bytes[least++];
    if (left > max_bytes)
        return hd_fail(
            err, HD_LIMIT,
            "tokenizer: words: those seen %d times and more alone take over %zu MB: allow more memory",
            COUNTS, max_bytes >> 20);
    for (int i = 0; i < HD_WORD_TABLES; i++) HD_TRY(table_keep(&w->table[i], least, &w->n_dropped, err));
    if (least > w->least_kept) w->least_kept = least;
fail:
    return st;
}

/* ---- Batches ---- */

typedef struct {
    hd_word_table table[HD_WORD_TABLES];
    hd_pretok_work work;
    hd_buf repaired;
    int64_t n_words, n_dropped;
    hd_status st;
    hd_err err;
} counter; // of one thread

typedef struct {
    hd_words *all;
    hd_pool *pool;
    hd_pretok pretok;
    counter *of; // [threads]
    hd_buf text; // the batch
    size_t *cut; // [n + 1] where its chunks begin
    size_t n, cap;
    const volatile sig_atomic_t *stop;
} batch;

typedef struct {
    counter *c;
    uint64_t seed;
} sink;

static hd_status count_word(void *arg, const char *s, size_t n, hd_err *err)
{
    sink *k = arg;
    k->c->n_words++;
    if (n > HD_WORD_MAX) {
        k->c->n_dropped++;
        return HD_OK;
    }
    uint64_t hash = hd_hash_bytes(s, n, k->seed);
    return table_add(&k->c->table[hash >> 58], s, n, (uint32_t)hash, 1, err);
}

static bool valid_utf8(const char *s, size_t n)
{
    const uint8_t *u = (const uint8_t *)s;
    uint64_t eight;
    int32_t c;
    for (size_t i = 0; i < n;) {
        if (n - i >= 8 && (memcpy(&eight, u + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        i += (size_t)hd_utf8_next(u + i, n - i, &c);
        if (c < 0) return false;
    }
    return true;
}

static void count_chunk(void *arg, int64_t chunk, int tid)
{
    batch *b = arg;
    counter *c = &b->of[tid];
    sink k = {c, b->all->seed};
    if (c->st != HD_OK || (b->stop && *b->stop)) return;
    const char *s = b->text.data + b->cut[chunk];
    size_t n = b->cut[chunk + 1] - b->cut[chunk];
    if (!valid_utf8(s, n)) {
        hd_buf_clear(&c->repaired);
        c->st = hd_utf8_repair(&c->repaired, s, n, &c->err);
        s = c->repaired.data;
        n = c->repaired.len;
    }
    hd_pretok_begin(&c->work, n);
    if (c->st == HD_OK) c->st = hd_pretok_run(&b->pretok, &c->work, s, n, count_word, &k, &c->err);
}

static void gather_table(void *arg, int64_t i, int tid)
{
    batch *b = arg;
    counter *mine = &b->of[tid];
    for (int k = 0; k < hd_pool_threads(b->pool); k++) {
        hd_word_table *from = &b->of[k].table[i];
        for (size_t j = 0; j < from->n && mine->st == HD_OK; j++) {
            const hd_word *w = &from->word[j];
            mine->st =
                table_add(&b->all->table[i], from->text + w->at, w->len, w->hash, w->count, &mine->err);
        }
        table_clear(from);
    }
}

static hd_status first_failure(const batch *b, hd_err *err)
{
    for (int k = 0; k < hd_pool_threads(b->pool); k++)
        if (b->of[k].st != HD_OK) return hd_fail(err, b->of[k].st, "%s", b->of[k].err.msg);
    if (b->stop && *b->stop) return hd_fail(err, HD_CANCELLED, "tokenizer: stopped");
    return HD_OK;
}

/* The longest beginning of s[0..n) after `from` that ends where no word crosses: behind a line that ends in a
 * printing character, before a letter or digit.  n: no such place. */
static size_t safe_cut(const char *s, size_t from, size_t n)
{
    for (const char *p; from < n && (p = memchr(s + from, '\n', n - from)); from = (size_t)(p - s) + 1) {
        size_t at = (size_t)(p - s) + 1;
        if (at < 2 || at == n) continue;
        char before = s[at - 2], after = s[at];
        bool word = (after >= '0' && after <= '9') || (after >= 'A' && after <= 'Z') ||
                    (after >= 'a' && after <= 'z');
        if (before > ' ' && before < 0x7f && word) return at;
    }
    return n;
}

static hd_status add_cut(batch *b, size_t at, hd_err *err)
{
    if (b->n + 2 > b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 1024;
        hd_status st = hd_realloc(&b->cut, cap * sizeof *b->cut, err);
        if (st != HD_OK) return st;
        b->cap = cap;
    }
    b->cut[++b->n] = at;
    return HD_OK;
}

static hd_status add_document(batch *b, const hd_buf *doc, hd_err *err)
{
    hd_status st = HD_OK;
    size_t base = b->text.len;
    HD_TRY(hd_buf_add(&b->text, doc->data, doc->len, err));
    for (size_t at = 0; at < doc->len;) {
        size_t want = at + CHUNK;
        at = want < doc->len ? safe_cut(doc->data, want, doc->len) : doc->len;
        HD_TRY(add_cut(b, base + at, err));
    }
fail:
    return st;
}

static hd_status run_batch(batch *b, size_t max_bytes, hd_err *err)
{
    hd_status st = HD_OK;
    if (b->n == 0) return HD_OK;
    hd_pool_run(b->pool, (int64_t)b->n, count_chunk, b);
    HD_TRY(first_failure(b, err));
    hd_pool_run(b->pool, HD_WORD_TABLES, gather_table, b);
    HD_TRY(first_failure(b, err));
    b->all->bytes += (int64_t)b->text.len;
    hd_buf_clear(&b->text);
    b->n = 0;
    if (hd_words_bytes(b->all) > max_bytes) HD_TRY(drop_rare(b->all, max_bytes, err));
fail:
    return st;
}

static hd_status count_file(batch *b, const char *path, const hd_bpe_opts *o, size_t max_bytes,
                            hd_progress *bar, hd_err *err)
{
    hd_status st;
    hd_text *t = NULL;
    hd_buf doc;
    bool more = true;
    uint64_t done = 0;
    hd_buf_init(&doc, SIZE_MAX);
    HD_TRY(hd_text_open(&t, path, o->text, err));
    for (;;) {
        HD_TRY(hd_text_next(t, &doc, &more, err));
        if (!more) break;
        if (doc.len) HD_TRY(add_document(b, &doc, err));
        if (b->text.len < BATCH) continue;
        HD_TRY(run_batch(b, max_bytes, err));
        if (o->progress) hd_progress_add(bar, hd_text_done(t) - done);
        done = hd_text_done(t);
    }
    if (o->progress) hd_progress_add(bar, hd_text_done(t) - done);
fail:
    hd_text_close(t);
    hd_buf_free(&doc);
    return st;
}

static uint64_t size_of_files(const char *const *files, int n)
{
    uint64_t sum = 0;
    struct stat sb;
    for (int i = 0; i < n; i++)
        if (stat(files[i], &sb) == 0) sum += (uint64_t)sb.st_size;
    return sum;
}

static void batch_close(batch *b)
{
    for (int k = 0; b->of && k < hd_pool_threads(b->pool); k++) {
        for (int i = 0; i < HD_WORD_TABLES; i++) table_close(&b->of[k].table[i]);
        hd_pretok_work_close(&b->of[k].work);
        hd_buf_free(&b->of[k].repaired);
    }
    free(b->of);
    free(b->cut);
    hd_buf_free(&b->text);
    hd_pretok_close(&b->pretok);
}

static hd_status batch_open(batch *b, hd_words *w, hd_pool *pool, bool digits, hd_err *err)
{
    hd_status st;
    const char *pattern = digits ? hd_bpe_pattern_digits : hd_bpe_pattern_numbers;
    *b = (batch){.all = w, .pool = pool};
    hd_buf_init(&b->text, SIZE_MAX);
    HD_TRY(hd_alloc_n(&b->of, (size_t)hd_pool_threads(pool), sizeof *b->of, err));
    HD_TRY(hd_pretok_split(&b->pretok, pattern, strlen(pattern), false, HD_SPLIT_ISOLATED, false, err));
    for (int k = 0; k < hd_pool_threads(pool); k++) {
        hd_buf_init(&b->of[k].repaired, SIZE_MAX);
        HD_TRY(hd_pretok_work_open(&b->of[k].work, &b->pretok, err));
    }
    HD_TRY(hd_realloc(&b->cut, 1024 * sizeof *b->cut, err));
    b->cap = 1024;
    b->cut[0] = 0;
fail:
    return st;
}

hd_status hd_bpe_count(hd_words *w, hd_pool *pool, const char *const *files, int n_files,
                       const hd_bpe_opts *o, hd_err *err)
{
    hd_status st;
    batch b;
    hd_progress bar = {0};
    size_t max_bytes = o->max_bytes ? o->max_bytes : MAX_BYTES;
    *w = (hd_words){.seed = hd_hash_seed()};
    if (o->progress) hd_progress_begin(&bar, "words", size_of_files(files, n_files), "B");
    HD_TRY(batch_open(&b, w, pool, o->digits, err));
    b.stop = o->stop;
    for (int i = 0; i < n_files; i++) HD_TRY(count_file(&b, files[i], o, max_bytes, &bar, err));
    HD_TRY(run_batch(&b, max_bytes, err));
    for (int k = 0; k < hd_pool_threads(pool); k++) {
        w->n_words += b.of[k].n_words;
        w->n_dropped += b.of[k].n_dropped;
    }
fail:
    if (o->progress) hd_progress_end(&bar);
    batch_close(&b);
    if (st != HD_OK) hd_words_close(w);
    return st;
}
