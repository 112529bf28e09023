/* Shards: one writer that only appends, and a reader over a mapping.  shard.h draws the file. */
#include "train/shard.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"

enum { BLOCK = 1 << 16 };
static const char MAGIC[8] = {'H', 'D', 'T', 'O', 'K', 'S', '\n', 1}; // the last byte is the version
static const int64_t MOST_IDS = INT64_C(1) << 40, MOST_VOCAB = INT64_C(1) << 31;

typedef struct {
    char magic[8];
    uint8_t tokenizer[HD_SHARD_PRINT];
    uint32_t id_bytes, block_bytes;
    uint64_t n_vocab, n_docs, n_tok, n_ranges, n_targets, text_bytes;
    uint32_t zero[7], crc; // crc: of all that stands before it
} head;
_Static_assert(sizeof(head) == 128, "no holes");

typedef struct {
    uint64_t end, ranges_end, text_bytes;
} doc_row;

typedef struct {
    uint32_t from, to;
} range;

static uint32_t head_crc(const head *h) { return hd_crc32c(0, h, offsetof(head, crc)); }

/* ---- Writing ---- */

struct hd_shard_writer {
    hd_newfile f;
    hd_shard_info about;
    uint8_t *block;
    size_t in_block;
    hd_buf docs, ranges, sums;
    bool failed;
};

void hd_shard_writer_close(hd_shard_writer *w)
{
    if (!w) return;
    hd_newfile_abort(&w->f);
    hd_buf_free(&w->docs);
    hd_buf_free(&w->ranges);
    hd_buf_free(&w->sums);
    free(w->block);
    free(w);
}

const hd_shard_info *hd_shard_written(const hd_shard_writer *w) { return &w->about; }

hd_status hd_shard_create(hd_shard_writer **out, const char *path, const uint8_t tokenizer[HD_SHARD_PRINT],
                          int64_t n_vocab, hd_err *err)
{
    static const head empty;
    hd_status st;
    hd_shard_writer *w = NULL;
    if (n_vocab < 1 || n_vocab > MOST_VOCAB)
        return hd_fail(err, HD_LIMIT, "shard: %.200s: a vocabulary of %lld", path, (long long)n_vocab);
    HD_TRY(hd_alloc(&w, sizeof *w, err));
    w->f.fd = -1;
    w->about.n_vocab = n_vocab;
    w->about.id_bytes = n_vocab <= 1 << 16 ? 2 : 4;
    memcpy(w->about.tokenizer, tokenizer, HD_SHARD_PRINT);
    hd_buf_init(&w->docs, SIZE_MAX / 4);
    hd_buf_init(&w->ranges, SIZE_MAX / 4);
    hd_buf_init(&w->sums, SIZE_MAX / 4);
    HD_TRY(hd_alloc(&w->block, BLOCK, err));
    HD_TRY(hd_newfile_begin(&w->f, path, err));
    HD_TRY(hd_newfile_write(&w->f, &empty, sizeof empty, err));
    *out = w;
    return HD_OK;
fail:
    hd_shard_writer_close(w);
    return st;
}

static hd_status flush_block(hd_shard_writer *w, hd_err *err)
{
    hd_status st;
    uint32_t sum = hd_crc32c(0, w->block, w->in_block);
    HD_TRY(hd_buf_add(&w->sums, &sum, sizeof sum, err));
    HD_TRY(hd_newfile_write(&w->f, w->block, w->in_block, err));
    w->in_block = 0;
fail:
    return st;
}

static hd_status put(hd_shard_writer *w, const void *p, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    for (const uint8_t *s = p; n;) {
        size_t k = BLOCK - w->in_block;
        if (k > n) k = n;
        memcpy(w->block + w->in_block, s, k);
        w->in_block += k, s += k, n -= k;
        if (w->in_block == BLOCK) HD_TRY(flush_block(w, err));
    }
fail:
    return st;
}

static hd_status put_ids(hd_shard_writer *w, const int32_t *id, int64_t n, hd_err *err)
{
    hd_status st = HD_OK;
    uint16_t small[1024];
    if (w->about.id_bytes == 4) return put(w, id, (size_t)n * 4, err);
    for (int64_t i = 0, k; i < n; i += k) {
        k = n - i < 1024 ? n - i : 1024;
        for (int64_t j = 0; j < k; j++) small[j] = (uint16_t)id[i + j];
        HD_TRY(put(w, small, (size_t)k * 2, err));
    }
fail:
    return st;
}

static hd_status add_ranges(hd_shard_writer *w, const uint8_t *learnt, int64_t n, hd_err *err)
{
    hd_status st = HD_OK;
    for (int64_t i = 0; i < n;) {
        if (!learnt[i]) {
            i++;
            continue;
        }
        range r = {.from = (uint32_t)i};
        for (; i < n && learnt[i]; i++) w->about.n_targets += i > 0;
        r.to = (uint32_t)i;
        HD_TRY(hd_buf_add(&w->ranges, &r, sizeof r, err));
        w->about.n_ranges++;
    }
fail:
    return st;
}

hd_status hd_shard_add(hd_shard_writer *w, const int32_t *id, int64_t n, const uint8_t *learnt,
                       uint64_t text_bytes, hd_err *err)
{
    hd_status st = HD_OK;
    int64_t ranges = w->about.n_ranges;
    if (w->failed || n < 1 || n > INT32_MAX || n > MOST_IDS - w->about.n_tok)
        return hd_fail(err, HD_LIMIT, "shard: %.200s: a document of %lld ids", w->f.path ? w->f.path : "",
                       (long long)n);
    for (int64_t i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= w->about.n_vocab)
            return hd_fail(err, HD_FORMAT, "shard: %.200s: id %d: the vocabulary has ids 0 to %lld",
                           w->f.path, (int)id[i], (long long)w->about.n_vocab - 1);
    w->failed = true; // until all of it is in: half a document would be no document
    HD_TRY(put_ids(w, id, n, err));
    if (learnt) HD_TRY(add_ranges(w, learnt, n, err));
    if (learnt && w->about.n_ranges == ranges)
        HD_TRY(hd_fail(err, HD_FORMAT, "shard: %.200s: a document of which nothing is learnt", w->f.path));
    if (!learnt) w->about.n_targets += n - 1;
    w->about.n_tok += n;
    w->about.text_bytes += text_bytes;
    doc_row d = {(uint64_t)w->about.n_tok, (uint64_t)w->about.n_ranges, text_bytes};
    HD_TRY(hd_buf_add(&w->docs, &d, sizeof d, err));
    w->about.n_docs++;
    w->failed = false;
fail:
    return st;
}

static hd_status put_head(hd_shard_writer *w, hd_err *err)
{
    const hd_shard_info *a = &w->about;
    head h = {.id_bytes = (uint32_t)a->id_bytes,
              .block_bytes = BLOCK,
              .n_vocab = (uint64_t)a->n_vocab,
              .n_docs = (uint64_t)a->n_docs,
              .n_tok = (uint64_t)a->n_tok,
              .n_ranges = (uint64_t)a->n_ranges,
              .n_targets = (uint64_t)a->n_targets,
              .text_bytes = a->text_bytes};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    memcpy(h.tokenizer, a->tokenizer, HD_SHARD_PRINT);
    h.crc = head_crc(&h);
    for (size_t at = 0; at < sizeof h;) {
        ssize_t n = pwrite(w->f.fd, (const char *)&h + at, sizeof h - at, (off_t)at);
        if (n < 0 && errno != EINTR) return hd_fail_errno(err, "write: %s", w->f.path);
        if (n > 0) at += (size_t)n;
    }
    return HD_OK;
}

hd_status hd_shard_finish(hd_shard_writer *w, hd_err *err)
{
    static const uint8_t zeros[8];
    hd_status st = HD_OK;
    if (w->failed) return hd_fail(err, HD_IO, "shard: %.200s: an earlier write failed", w->f.path);
    w->failed = true;
    HD_TRY(put(w, zeros, -(size_t)(w->about.n_tok * w->about.id_bytes) & 7, err));
    HD_TRY(put(w, w->docs.data, w->docs.len, err));
    HD_TRY(put(w, w->ranges.data, w->ranges.len, err));
    if (w->in_block) HD_TRY(flush_block(w, err));
    uint32_t sum = hd_crc32c(0, w->sums.data, w->sums.len);
    HD_TRY(hd_buf_add(&w->sums, &sum, sizeof sum, err));
    HD_TRY(hd_newfile_write(&w->f, w->sums.data, w->sums.len, err));
    HD_TRY(put_head(w, err));
    HD_TRY(hd_newfile_commit(&w->f, err));
fail:
    return st;
}

/* ---- Reading ---- */

struct hd_shard {
    hd_map own, map;
    char *name;
    hd_shard_info about;
    const uint8_t *ids; // at 128
    const doc_row *docs;
    const range *ranges;
    const uint8_t *sums; // u32 each, at any address
    size_t body_bytes, n_blocks;
    uint8_t *checked; // a bit for each block
};

const hd_shard_info *hd_shard_about(const hd_shard *s) { return &s->about; }
const char *hd_shard_name(const hd_shard *s) { return s->name; }

void hd_shard_close(hd_shard *s)
{
    if (!s) return;
    hd_map_close(&s->own);
    free(s->checked);
    free(s->name);
    free(s);
}

static hd_status damaged(const hd_shard *s, const char *why, hd_err *err)
{
    return hd_fail(err, HD_FORMAT, "shard: %.200s: damaged: %s", s->name, why);
}

static hd_status check_block(hd_shard *s, size_t b, hd_err *err)
{
    uint32_t want;
    size_t at = b * BLOCK, n = s->body_bytes - at < BLOCK ? s->body_bytes - at : BLOCK;
    if (s->checked[b / 8] >> b % 8 & 1) return HD_OK;
    memcpy(&want, s->sums + 4 * b, 4);
    if (hd_crc32c(0, s->ids + at, n) != want)
        return hd_fail(err, HD_FORMAT,
                       "shard: %.200s: damaged: the checksum of bytes %zu to %zu is wrong: pack it anew",
                       s->name, sizeof(head) + at, sizeof(head) + at + n - 1);
    s->checked[b / 8] |= (uint8_t)(1 << b % 8);
    return HD_OK;
}

/* Bytes [from, to) of the body. */
static hd_status check_bytes(hd_shard *s, size_t from, size_t to, hd_err *err)
{
    hd_status st = HD_OK;
    for (size_t b = from / BLOCK; b * BLOCK < to; b++) HD_TRY(check_block(s, b, err));
fail:
    return st;
}

hd_status hd_shard_check(hd_shard *s, hd_err *err) { return check_bytes(s, 0, s->body_bytes, err); }

static hd_status read_head(hd_shard *s, hd_err *err)
{
    head h;
    hd_shard_info *a = &s->about;
    size_t ids, docs, ranges, sums, total;
    if (s->map.size < sizeof h) return hd_fail(err, HD_FORMAT, "shard: %.200s: no token shard", s->name);
    memcpy(&h, s->map.data, sizeof h);
    if (memcmp(h.magic, MAGIC, sizeof MAGIC - 1) != 0)
        return hd_fail(err, HD_FORMAT, "shard: %.200s: no token shard", s->name);
    if (h.magic[7] != MAGIC[7])
        return hd_fail(err, HD_UNSUPPORTED, "shard: %.200s: version %d, this program reads %d: pack it anew",
                       s->name, h.magic[7], MAGIC[7]);
    if (h.crc != head_crc(&h)) return damaged(s, "its head", err);
    bool sane = (h.id_bytes == 2 || h.id_bytes == 4) && h.block_bytes == BLOCK && h.n_vocab > 0 &&
                h.n_vocab <= (uint64_t)MOST_VOCAB && h.n_tok <= (uint64_t)MOST_IDS && h.n_docs <= h.n_tok &&
                h.n_ranges <= h.n_tok && h.n_targets <= h.n_tok;
    sane = sane && hd_mul(&ids, h.n_tok, h.id_bytes) && hd_add(&ids, ids, 7) &&
           hd_mul(&docs, h.n_docs, sizeof(doc_row)) && hd_mul(&ranges, h.n_ranges, sizeof(range));
    if (!sane) return damaged(s, "its head", err);
    ids &= ~(size_t)7;
    if (!hd_add(&s->body_bytes, ids, docs) || !hd_add(&s->body_bytes, s->body_bytes, ranges))
        return damaged(s, "its head", err);
    s->n_blocks = s->body_bytes / BLOCK + (s->body_bytes % BLOCK != 0);
    if (!hd_mul(&sums, s->n_blocks + 1, 4) || !hd_add(&total, s->body_bytes, sums) ||
        !hd_add(&total, total, sizeof h) || total != s->map.size)
        return damaged(s, "another size than its head says", err);
    memcpy(a->tokenizer, h.tokenizer, HD_SHARD_PRINT);
    a->id_bytes = (int)h.id_bytes;
    a->n_vocab = (int64_t)h.n_vocab;
    a->n_docs = (int64_t)h.n_docs;
    a->n_tok = (int64_t)h.n_tok;
    a->n_ranges = (int64_t)h.n_ranges;
    a->n_targets = (int64_t)h.n_targets;
    a->text_bytes = h.text_bytes;
    s->ids = s->map.data + sizeof h;
    s->docs = (const doc_row *)(s->ids + ids);
    s->ranges = (const range *)(s->ids + ids + docs);
    s->sums = s->ids + s->body_bytes;
    return HD_OK;
}

/* The sums, and the rows that everything else relies on: in order, and inside. */
static hd_status check_index(hd_shard *s, hd_err *err)
{
    uint32_t want;
    memcpy(&want, s->sums + 4 * s->n_blocks, 4);
    if (hd_crc32c(0, s->sums, 4 * s->n_blocks) != want) return damaged(s, "its checksums", err);
    hd_status st = check_bytes(s, (size_t)((const uint8_t *)s->docs - s->ids), s->body_bytes, err);
    if (st != HD_OK) return st;
    uint64_t tok = 0, r = 0, bytes = 0, n_tok = (uint64_t)s->about.n_tok,
             n_ranges = (uint64_t)s->about.n_ranges;
    int64_t targets = 0;
    for (int64_t i = 0; i < s->about.n_docs; i++) {
        const doc_row *d = &s->docs[i];
        if (d->end <= tok || d->end > n_tok || d->end - tok > INT32_MAX || d->ranges_end < r ||
            d->ranges_end > n_ranges)
            return damaged(s, "a document's row", err);
        uint64_t n = d->end - tok, at = 0;
        if (r == d->ranges_end) targets += (int64_t)n - 1;
        for (; r < d->ranges_end; r++) {
            const range *g = &s->ranges[r];
            if (g->from < at || g->from >= g->to || g->to > n) return damaged(s, "a document's ranges", err);
            targets += (int64_t)(g->to - g->from) - (g->from == 0);
            at = g->to;
        }
        tok = d->end;
        bytes += d->text_bytes;
    }
    if (tok != n_tok || r != n_ranges || bytes != s->about.text_bytes || targets != s->about.n_targets)
        return damaged(s, "its counts", err);
    return HD_OK;
}

static hd_status open_any(hd_shard **out, const hd_map *m, const char *name, hd_err *err)
{
    hd_status st;
    hd_shard *s = NULL;
    HD_TRY(hd_alloc(&s, sizeof *s, err));
    HD_TRY(hd_strdup(&s->name, name, err));
    if (!m) HD_TRY(hd_map_open(&s->own, name, err));
    s->map = m ? *m : s->own;
    HD_TRY(read_head(s, err));
    HD_TRY(hd_alloc(&s->checked, s->n_blocks / 8 + 1, err));
    HD_TRY(check_index(s, err));
    *out = s;
    return HD_OK;
fail:
    hd_shard_close(s);
    return st;
}

hd_status hd_shard_open(hd_shard **out, const char *path, hd_err *err)
{
    return open_any(out, NULL, path, err);
}

hd_status hd_shard_open_map(hd_shard **out, const hd_map *m, const char *name, hd_err *err)
{
    return open_any(out, m, name, err);
}

hd_shard_doc hd_shard_doc_at(const hd_shard *s, int64_t i)
{
    int64_t at = i ? (int64_t)s->docs[i - 1].end : 0, r = i ? (int64_t)s->docs[i - 1].ranges_end : 0;
    return (hd_shard_doc){at, (int64_t)s->docs[i].end - at, r, (int64_t)s->docs[i].ranges_end - r,
                          s->docs[i].text_bytes};
}

hd_status hd_shard_read(hd_shard *s, int64_t at, int64_t n, int32_t *id, hd_err *err)
{
    hd_status st;
    if (at < 0 || n < 0 || n > s->about.n_tok || at > s->about.n_tok - n)
        return hd_fail(err, HD_USAGE, "shard: %.200s: ids %lld to %lld: it has %lld", s->name, (long long)at,
                       (long long)(at + n), (long long)s->about.n_tok);
    size_t from = (size_t)at * (size_t)s->about.id_bytes;
    HD_TRY(check_bytes(s, from, from + (size_t)n * (size_t)s->about.id_bytes, err));
    const uint8_t *p = s->ids + from;
    bool outside = false;
    for (int64_t i = 0; i < n; i++) {
        uint32_t v = 0;
        if (s->about.id_bytes == 2) v = (uint32_t)p[2 * i] | (uint32_t)p[2 * i + 1] << 8;
        else memcpy(&v, p + 4 * i, 4);
        outside |= v >= (uint64_t)s->about.n_vocab;
        id[i] = (int32_t)v;
    }
    if (outside) HD_TRY(damaged(s, "an id outside of its vocabulary", err));
fail:
    return st;
}

void hd_shard_learnt(const hd_shard *s, const hd_shard_doc *d, int64_t from, int64_t n, uint8_t *learnt)
{
    memset(learnt, d->n_ranges == 0, (size_t)n);
    for (int64_t r = d->range; r < d->range + d->n_ranges; r++) {
        int64_t a = s->ranges[r].from - from, b = s->ranges[r].to - from;
        if (a < 0) a = 0;
        if (b > n) b = n;
        if (a < b) memset(learnt + a, 1, (size_t)(b - a));
    }
}
