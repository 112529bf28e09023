/* A column of a Parquet file.  (github.com/apache/parquet-format: README.md, Encodings.md, parquet.thrift)
 *
 *     "PAR1"  row group 0: chunk of column 0, of column 1 ...  row group 1 ...  footer  its length, u32  "PAR1"
 *
 *     chunk   [dictionary page]  data page  data page ...
 *     page    header (thrift), body (perhaps compressed)
 *     body    v1: definition levels behind their u32 length, values       (all of it compressed)
 *             v2: definition levels, values                              (the values compressed)
 *
 * An optional column has one definition level a row, 0 for null, as runs; values of rows that are null are
 * not there.  PLAIN values are a u32 length and the bytes.  With a dictionary they are indices, as runs of a
 * width that the first byte tells.
 *
 * The file is mapped.  Of a chunk only the dictionary and the page that is being read are in
 * memory, unpacked. */
#include "train/parquet.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "train/snappy.h"
#include "train/thrift.h"

enum { MAX_PAGE = 128 << 20 }; // unpacked; writers aim at 1 MB, and a page holds one value at least

typedef enum { BYTE_ARRAY = 6 } physical;
typedef enum { CODEC_NONE = 0, CODEC_SNAPPY = 1, CODEC_ZSTD = 6 } codec;
typedef enum { ENC_PLAIN = 0, ENC_PLAIN_DICTIONARY = 2, ENC_RLE = 3, ENC_RLE_DICTIONARY = 8 } encoding;
typedef enum { PAGE_DATA = 0, PAGE_INDEX = 1, PAGE_DICTIONARY = 2, PAGE_DATA_V2 = 3 } page_kind;

typedef struct {
    uint64_t from, bytes; // in the file, checked
    int64_t n_values, codec;
} chunk;

/* Runs of small numbers (Encodings.md, RLE and bit-packing): header & 1: header / 2 groups of 8 packed
 * values; else header / 2 times one value. */
typedef struct {
    const uint8_t *p, *end;
    int width;
    uint64_t left; // of the run
    bool packed;
    int bit; // packed: of *p, the next value's first
    uint32_t value;
} runs;

typedef struct {
    const uint8_t *p;
    uint32_t n;
} word;

typedef struct {
    int64_t kind, plain_bytes, packed_bytes, n_values, encoding, def_encoding, def_bytes, rep_bytes;
    bool compressed;
} page_head;

struct hd_parquet {
    hd_map own, map;
    char *name;
    int64_t n_rows;
    int column; // index among the leaves
    bool optional;
    chunk *chunk;
    int64_t n_chunks, at_chunk; // at_chunk: the next one
    /* the chunk that is being read */
    const uint8_t *p, *end;
    int64_t chunk_left; // values not yet in a page
    uint8_t *dict_mem;
    word *dict;
    size_t dict_cap;
    int64_t n_dict; // -1: the chunk has none
    /* the page */
    int64_t page_left;
    uint8_t *page_mem;
    size_t page_cap;
    bool by_index;
    const uint8_t *value, *value_end; // PLAIN
    runs def, index;
    ZSTD_DCtx *z;
};

static hd_status damaged(const hd_parquet *p, const char *why, hd_err *err)
{
    return hd_fail(err, HD_FORMAT, "parquet: %.200s: damaged: %s", p->name, why);
}

/* ---- Footer ---- */

typedef struct {
    const char *name;
    size_t n_name;
    int64_t type, repetition, n_children;
} element;

static void read_element(hd_thrift *c, element *e)
{
    hd_thrift_field f = {0};
    *e = (element){.type = -1};
    while (hd_thrift_next(c, &f)) switch (f.id) {
        case 1: e->type = hd_thrift_int(c, &f); break;
        case 3: e->repetition = hd_thrift_int(c, &f); break;
        case 4: e->name = hd_thrift_text(c, &f, &e->n_name); break;
        case 5: e->n_children = hd_thrift_int(c, &f); break;
        default: hd_thrift_skip(c, &f);
        }
}

/* The schema is a tree in depth-first order; its leaves are the columns.  Ours must be a
 * child of the root. */
static hd_status read_schema(hd_parquet *p, hd_thrift *c, const hd_thrift_field *f, const char *column,
                             hd_err *err)
{
    element e;
    int64_t n = hd_thrift_structs(c, f), below = 0; // elements still to come inside of a group
    int leaf = 0;
    char there[200] = "";
    size_t at = 0;
    for (int64_t i = 0; i < n && !c->bad; i++) {
        read_element(c, &e);
        if (i == 0) continue; // the root
        bool top = below == 0;
        if (!top) below--;
        if (e.n_children < 0 || e.n_children > n) return damaged(p, "its schema", err);
        below += e.n_children;
        bool text = top && !e.n_children && e.type == BYTE_ARRAY && e.repetition != 2;
        bool wanted = top && p->column < 0 && e.n_name == strlen(column) && e.n_name &&
                      memcmp(e.name, column, e.n_name) == 0;
        if (wanted && !text)
            return hd_fail(err, HD_UNSUPPORTED,
                           "parquet: %.200s: column '%.60s' is %s: text columns can be read", p->name, column,
                           e.n_children || e.repetition == 2 ? "a group or a list" : "no text");
        if (wanted) p->column = leaf, p->optional = e.repetition == 1;
        if (text && at < sizeof there - 80)
            at += (size_t)snprintf(there + at, sizeof there - at, "%s%.*s", at ? ", " : "",
                                   (int)(e.n_name < 60 ? e.n_name : 60), e.name);
        leaf += !e.n_children;
    }
    if (c->bad || below) return damaged(p, "its schema", err);
    if (p->column < 0)
        return hd_fail(err, HD_USAGE, "parquet: %.200s: no column '%.60s'; text columns: %s", p->name, column,
                       at ? there : "none");
    return HD_OK;
}

/* ColumnMetaData.  A field that is not there stays -1. */
static hd_status read_chunk(hd_parquet *p, hd_thrift *c, chunk *k, uint64_t data_end, hd_err *err)
{
    int64_t type = -1, dict = -1, data = -1, bytes = -1;
    hd_thrift_field f = {0};
    size_t end;
    *k = (chunk){.n_values = -1, .codec = -1};
    while (hd_thrift_next(c, &f)) switch (f.id) {
        case 1: type = hd_thrift_int(c, &f); break;
        case 4: k->codec = hd_thrift_int(c, &f); break;
        case 5: k->n_values = hd_thrift_int(c, &f); break;
        case 7: bytes = hd_thrift_int(c, &f); break;
        case 9: data = hd_thrift_int(c, &f); break;
        case 11: dict = hd_thrift_int(c, &f); break;
        default: hd_thrift_skip(c, &f);
        }
    if (dict > 0 && (dict < data || data <= 0)) data = dict; // 0: a column without a row has no data page
    if (c->bad || type != BYTE_ARRAY || k->n_values < 0 || data < 4 || bytes < 0 ||
        !hd_add(&end, (size_t)data, (size_t)bytes) || end > data_end)
        return damaged(p, "a column lies outside of the file", err);
    if (k->codec != CODEC_NONE && k->codec != CODEC_SNAPPY && k->codec != CODEC_ZSTD)
        return hd_fail(err, HD_UNSUPPORTED,
                       "parquet: %.200s: compression %s (%" PRId64 "): none, snappy and zstd can be read",
                       p->name,
                       k->codec == 2                    ? "gzip"
                       : k->codec == 4                  ? "brotli"
                       : k->codec == 5 || k->codec == 7 ? "lz4"
                                                        : "unknown",
                       k->codec);
    k->from = (uint64_t)data;
    k->bytes = (uint64_t)bytes;
    return HD_OK;
}

/* RowGroup: of its columns ours. */
static hd_status read_group(hd_parquet *p, hd_thrift *c, chunk *k, uint64_t data_end, hd_err *err)
{
    hd_status st = HD_OK;
    bool seen = false;
    hd_thrift_field f = {0};
    while (hd_thrift_next(c, &f)) {
        if (f.id != 1) {
            hd_thrift_skip(c, &f);
            continue;
        }
        int64_t n = hd_thrift_structs(c, &f);
        for (int64_t i = 0; i < n && !c->bad; i++) {
            hd_thrift_field g = {0};
            while (hd_thrift_next(c, &g)) {
                if (i == p->column && g.id == 1)
                    HD_TRY(hd_fail(err, HD_UNSUPPORTED, "parquet: %.200s: its columns lie in other files",
                                   p->name));
                if (i != p->column || g.id != 3) {
                    hd_thrift_skip(c, &g);
                    continue;
                }
                hd_thrift_struct(c, &g);
                HD_TRY(read_chunk(p, c, k, data_end, err));
                seen = true;
            }
        }
    }
    if (c->bad || !seen) HD_TRY(damaged(p, "a row group", err));
fail:
    return st;
}

static hd_status read_footer(hd_parquet *p, const char *column, hd_err *err)
{
    hd_status st = HD_OK;
    uint32_t n;
    const hd_map *m = &p->map;
    if (m->size < 12 || memcmp(m->data, "PAR1", 4) != 0) {
        bool locked = m->size >= 4 && memcmp(m->data, "PARE", 4) == 0;
        return hd_fail(err, locked ? HD_UNSUPPORTED : HD_FORMAT, "parquet: %.200s: %s", p->name,
                       locked ? "encrypted" : "no Parquet file");
    }
    if (memcmp(m->data + m->size - 4, "PAR1", 4) != 0) return damaged(p, "cut short: it has no footer", err);
    memcpy(&n, m->data + m->size - 8, 4);
    if (n > m->size - 12) return damaged(p, "the footer's length", err);
    uint64_t data_end = m->size - 8 - n;
    hd_thrift c = {m->data + data_end, m->data + m->size - 8, false};
    hd_thrift_field f = {0};
    while (hd_thrift_next(&c, &f)) switch (f.id) {
        case 2: HD_TRY(read_schema(p, &c, &f, column, err)); break;
        case 3: p->n_rows = hd_thrift_int(&c, &f); break;
        case 4:
            if (p->column < 0 || p->chunk) HD_TRY(damaged(p, "the footer", err));
            p->n_chunks = hd_thrift_structs(&c, &f);
            HD_TRY(hd_alloc_n(&p->chunk, (size_t)p->n_chunks, sizeof *p->chunk, err));
            for (int64_t i = 0; i < p->n_chunks; i++) HD_TRY(read_group(p, &c, &p->chunk[i], data_end, err));
            break;
        default: hd_thrift_skip(&c, &f);
        }
    if (c.bad || p->column < 0 || p->n_rows < 0) HD_TRY(damaged(p, "the footer", err));
fail:
    return st;
}

/* ---- Pages ---- */

static void read_page_head(hd_thrift *c, page_head *h)
{
    hd_thrift_field f = {0}, g;
    *h = (page_head){.kind = -1,
                     .plain_bytes = -1,
                     .packed_bytes = -1,
                     .n_values = -1,
                     .encoding = -1,
                     .compressed = true};
    while (hd_thrift_next(c, &f)) switch (f.id) {
        case 1: h->kind = hd_thrift_int(c, &f); break;
        case 2: h->plain_bytes = hd_thrift_int(c, &f); break;
        case 3: h->packed_bytes = hd_thrift_int(c, &f); break;
        case 5: // of v1
        case 7: // of a dictionary
            hd_thrift_struct(c, &f);
            g = (hd_thrift_field){0};
            while (hd_thrift_next(c, &g)) {
                if (g.id == 1) h->n_values = hd_thrift_int(c, &g);
                else if (g.id == 2) h->encoding = hd_thrift_int(c, &g);
                else if (g.id == 3 && f.id == 5) h->def_encoding = hd_thrift_int(c, &g);
                else hd_thrift_skip(c, &g);
            }
            break;
        case 8: // of v2
            hd_thrift_struct(c, &f);
            g = (hd_thrift_field){0};
            while (hd_thrift_next(c, &g)) switch (g.id) {
                case 1: h->n_values = hd_thrift_int(c, &g); break;
                case 4: h->encoding = hd_thrift_int(c, &g); break;
                case 5: h->def_bytes = hd_thrift_int(c, &g); break;
                case 6: h->rep_bytes = hd_thrift_int(c, &g); break;
                case 7: h->compressed = hd_thrift_bool(c, &g); break;
                default: hd_thrift_skip(c, &g);
                }
            break;
        default: hd_thrift_skip(c, &f);
        }
}

/* packed[0..n) into exactly n_plain bytes at out. */
static hd_status unpack(hd_parquet *p, int64_t how, uint8_t *out, size_t n_plain, const uint8_t *packed,
                        size_t n, hd_err *err)
{
    size_t r;
    switch (how) {
    case CODEC_NONE:
        if (n != n_plain) return damaged(p, "a page's size", err);
        if (n) memcpy(out, packed, n);
        return HD_OK;
    case CODEC_SNAPPY:
        return hd_snappy_unpack(out, n_plain, packed, n) ? HD_OK : damaged(p, "a page's snappy", err);
    default:
        if (!p->z && !(p->z = ZSTD_createDCtx()))
            return hd_fail(err, HD_NOMEM, "parquet: %.200s: no memory for zstd", p->name);
        r = ZSTD_decompressDCtx(p->z, out, n_plain, packed, n);
        if (ZSTD_isError(r) && ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation)
            return hd_fail(err, HD_NOMEM, "parquet: %.200s: no memory for zstd", p->name);
        return r == n_plain ? HD_OK : damaged(p, "a page's zstd", err);
    }
}

static hd_status want(uint8_t **mem, size_t *cap, size_t n, hd_err *err)
{
    if (n <= *cap && *mem) return HD_OK;
    hd_status st = hd_realloc(mem, n + n / 4, err);
    if (st == HD_OK) *cap = n + n / 4;
    return st;
}

/* A PLAIN value off [*p, end). */
static bool plain_value(word *w, const uint8_t **p, const uint8_t *end)
{
    if (end - *p < 4) return false;
    memcpy(&w->n, *p, 4);
    *p += 4;
    if (w->n > (size_t)(end - *p)) return false;
    w->p = *p;
    *p += w->n;
    return true;
}

static hd_status read_dictionary(hd_parquet *p, const chunk *k, const page_head *h, const uint8_t *body,
                                 hd_err *err)
{
    hd_status st;
    if (p->n_dict >= 0 || p->chunk_left != k->n_values) HD_TRY(damaged(p, "a second dictionary", err));
    if (h->encoding != ENC_PLAIN && h->encoding != ENC_PLAIN_DICTIONARY)
        HD_TRY(hd_fail(err, HD_UNSUPPORTED, "parquet: %.200s: a dictionary of encoding %" PRId64, p->name,
                       h->encoding));
    if (h->n_values < 0 || h->n_values > h->plain_bytes / 4) HD_TRY(damaged(p, "a dictionary's size", err));
    HD_TRY(want(&p->dict_mem, &p->dict_cap, (size_t)h->plain_bytes, err));
    HD_TRY(unpack(p, k->codec, p->dict_mem, (size_t)h->plain_bytes, body, (size_t)h->packed_bytes, err));
    free(p->dict);
    p->dict = NULL;
    HD_TRY(hd_alloc_n(&p->dict, (size_t)h->n_values, sizeof *p->dict, err));
    const uint8_t *at = p->dict_mem, *end = at + h->plain_bytes;
    for (int64_t i = 0; i < h->n_values; i++)
        if (!plain_value(&p->dict[i], &at, end)) HD_TRY(damaged(p, "a dictionary's word", err));
    p->n_dict = h->n_values;
fail:
    return st;
}

/* The page's parts: where its definition levels are and where its values begin. */
static hd_status read_data(hd_parquet *p, const chunk *k, const page_head *h, const uint8_t *body,
                           hd_err *err)
{
    hd_status st;
    size_t levels = 0, plain = (size_t)h->plain_bytes, packed = (size_t)h->packed_bytes;
    bool v2 = h->kind == PAGE_DATA_V2;
    if (h->n_values < 0 || h->n_values > p->chunk_left) HD_TRY(damaged(p, "a page's count of rows", err));
    p->by_index = h->encoding == ENC_RLE_DICTIONARY || h->encoding == ENC_PLAIN_DICTIONARY;
    if (!p->by_index && h->encoding != ENC_PLAIN)
        HD_TRY(hd_fail(err, HD_UNSUPPORTED,
                       "parquet: %.200s: encoding %" PRId64 ": PLAIN and dictionary can be read", p->name,
                       h->encoding));
    if (p->by_index && p->n_dict < 0) HD_TRY(damaged(p, "a dictionary is missing", err));
    if (v2) {
        if (h->rep_bytes != 0 || h->def_bytes < 0 || h->def_bytes > h->packed_bytes ||
            h->def_bytes > h->plain_bytes)
            HD_TRY(damaged(p, "a page's levels", err));
        levels = (size_t)h->def_bytes;
    } else if (p->optional && h->def_encoding != ENC_RLE) {
        HD_TRY(hd_fail(err, HD_UNSUPPORTED, "parquet: %.200s: definition levels of encoding %" PRId64,
                       p->name, h->def_encoding));
    }
    HD_TRY(want(&p->page_mem, &p->page_cap, plain, err));
    if (levels) memcpy(p->page_mem, body, levels);
    bool raw = v2 && !h->compressed;
    /* A v2 page of nulls alone has no values, and some writers then leave out even the empty frame. */
    if (packed > levels || plain > levels)
        HD_TRY(unpack(p, raw ? CODEC_NONE : k->codec, p->page_mem + levels, plain - levels, body + levels,
                      packed - levels, err));
    const uint8_t *at = p->page_mem, *end = at + plain;
    if (!v2 && p->optional) {
        uint32_t n;
        if (plain < 4) HD_TRY(damaged(p, "a page's levels", err));
        memcpy(&n, at, 4);
        at += 4;
        if (n > (size_t)(end - at)) HD_TRY(damaged(p, "a page's levels", err));
        levels = n;
    }
    p->def = (runs){.p = at, .end = at + levels, .width = 1};
    at += levels;
    p->value = at, p->value_end = end;
    if (p->by_index) {
        int width = at < end ? *at++ : 0;
        if (width > 32) HD_TRY(damaged(p, "an index's width", err));
        p->index = (runs){.p = at, .end = end, .width = width};
    }
    p->page_left = h->n_values;
    p->chunk_left -= h->n_values;
fail:
    return st;
}

/* The chunk's next page. */
static hd_status next_page(hd_parquet *p, hd_err *err)
{
    hd_status st;
    const chunk *k = &p->chunk[p->at_chunk - 1];
    page_head h;
    hd_thrift c = {p->p, p->end, false};
    read_page_head(&c, &h);
    if (c.bad || h.plain_bytes < 0 || h.packed_bytes < 0 || h.packed_bytes > c.end - c.p)
        HD_TRY(damaged(p, "a page's head", err));
    if (h.plain_bytes > MAX_PAGE)
        HD_TRY(hd_fail(err, HD_LIMIT, "parquet: %.200s: a page of %" PRId64 " bytes: over the limit of %d",
                       p->name, h.plain_bytes, MAX_PAGE));
    const uint8_t *body = c.p;
    p->p = body + h.packed_bytes;
    if (h.kind == PAGE_DICTIONARY) HD_TRY(read_dictionary(p, k, &h, body, err));
    else if (h.kind == PAGE_DATA || h.kind == PAGE_DATA_V2) HD_TRY(read_data(p, k, &h, body, err));
    else if (h.kind != PAGE_INDEX) HD_TRY(damaged(p, "a page of unknown kind", err));
    st = HD_OK;
fail:
    return st;
}

static void next_chunk(hd_parquet *p)
{
    const chunk *k = &p->chunk[p->at_chunk];
    if (p->at_chunk > 0) hd_map_release(&p->own, p->map.data + k[-1].from, k[-1].bytes);
    p->p = p->map.data + k->from;
    p->end = p->p + k->bytes;
    p->chunk_left = k->n_values;
    p->n_dict = -1;
    p->at_chunk++;
}

/* ---- Values ---- */

/* Makes sure that a run is under way. */
static bool runs_more(runs *r)
{
    while (!r->left) {
        uint64_t head = 0;
        int shift = 0, bytes = (r->width + 7) / 8;
        for (;; shift += 7) {
            if (r->p >= r->end || shift > 35) return false;
            uint8_t b = *r->p++;
            head |= (uint64_t)(b & 127) << shift;
            if (b < 128) break;
        }
        r->packed = head & 1;
        r->left = r->packed ? (head >> 1) * 8 : head >> 1;
        r->bit = 0;
        if (r->packed) continue;
        if (r->end - r->p < bytes) return false;
        r->value = 0;
        for (int i = 0; i < bytes; i++) r->value |= (uint32_t)*r->p++ << 8 * i;
    }
    return true;
}

static bool runs_next(runs *r, uint32_t *v)
{
    if (!runs_more(r)) return false;
    r->left--;
    if (!r->packed) return *v = r->value, true;
    uint64_t bits = 0;
    int need = r->bit + r->width, n = (need + 7) / 8;
    if (r->end - r->p < n) return false;
    for (int i = 0; i < n; i++) bits |= (uint64_t)r->p[i] << 8 * i;
    *v = (uint32_t)(bits >> r->bit & ((UINT64_C(1) << r->width) - 1));
    r->p += need / 8;
    r->bit = need % 8;
    return true;
}

/* Passes over nulls; a long run of them at once, since a few bytes may stand for billions. */
static bool skip_nulls(hd_parquet *p)
{
    uint32_t level;
    while (p->page_left) {
        if (!runs_more(&p->def)) return false;
        if (!p->def.packed && p->def.value == 0) {
            uint64_t n = p->def.left < (uint64_t)p->page_left ? p->def.left : (uint64_t)p->page_left;
            p->def.left -= n;
            p->page_left -= (int64_t)n;
            continue;
        }
        if (!runs_next(&p->def, &level) || level > 1) return false;
        if (level) return true;
        p->page_left--;
    }
    return true;
}

hd_status hd_parquet_next(hd_parquet *p, const char **text, size_t *n, bool *more, hd_err *err)
{
    hd_status st = HD_OK;
    uint32_t i;
    word w = {0};
    *more = false;
    for (;;) {
        if (p->page_left && p->optional && !skip_nulls(p)) HD_TRY(damaged(p, "definition levels", err));
        if (p->page_left) break;
        if (p->chunk_left)
            HD_TRY(p->p < p->end ? next_page(p, err) : damaged(p, "a column with too few rows", err));
        else if (p->at_chunk < p->n_chunks) next_chunk(p);
        else return HD_OK;
    }
    if (p->by_index) {
        if (!runs_next(&p->index, &i) || i >= p->n_dict)
            HD_TRY(damaged(p, "an index into the dictionary", err));
        w = p->dict[i];
    } else if (!plain_value(&w, &p->value, p->value_end)) {
        HD_TRY(damaged(p, "a value's length", err));
    }
    p->page_left--;
    *text = (const char *)w.p;
    *n = w.n;
    *more = true;
fail:
    return st;
}

/* ---- Open, close ---- */

void hd_parquet_close(hd_parquet *p)
{
    if (!p) return;
    ZSTD_freeDCtx(p->z);
    hd_map_close(&p->own);
    free(p->name);
    free(p->chunk);
    free(p->dict);
    free(p->dict_mem);
    free(p->page_mem);
    free(p);
}

static hd_status open_any(hd_parquet **out, const hd_map *m, const char *name, const char *column,
                          hd_err *err)
{
    hd_status st;
    hd_parquet *p = NULL;
    HD_TRY(hd_alloc(&p, sizeof *p, err));
    HD_TRY(hd_strdup(&p->name, name, err));
    if (!m) HD_TRY(hd_map_open(&p->own, name, err));
    p->map = m ? *m : p->own;
    p->column = -1;
    HD_TRY(read_footer(p, column, err));
    *out = p;
    return HD_OK;
fail:
    hd_parquet_close(p);
    return st;
}

hd_status hd_parquet_open(hd_parquet **out, const char *path, const char *column, hd_err *err)
{
    return open_any(out, NULL, path, column, err);
}

hd_status hd_parquet_open_map(hd_parquet **out, const hd_map *m, const char *name, const char *column,
                              hd_err *err)
{
    return open_any(out, m, name, column, err);
}

int64_t hd_parquet_rows(const hd_parquet *p) { return p->n_rows; }
uint64_t hd_parquet_done(const hd_parquet *p) { return p->p ? (uint64_t)(p->p - p->map.data) : 0; }
