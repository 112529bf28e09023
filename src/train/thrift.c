#include "train/thrift.h"

enum { MAX_DEPTH = 16 }; // Parquet's own structures are five deep

static uint8_t byte(hd_thrift *c)
{
    if (c->bad || c->p == c->end) return c->bad = true, 0;
    return *c->p++;
}

static uint64_t varint(hd_thrift *c)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t b = byte(c);
        v |= (uint64_t)(b & 127) << shift;
        if (b < 128) return c->bad ? 0 : v;
    }
    return c->bad = true, 0;
}

static int64_t zigzag(hd_thrift *c)
{
    uint64_t v = varint(c);
    return (int64_t)(v >> 1 ^ -(v & 1));
}

bool hd_thrift_next(hd_thrift *c, hd_thrift_field *f)
{
    uint8_t b = byte(c);
    if (c->bad || !b) return false; // 0: the end
    f->type = b & 15;
    int64_t id = b >> 4 ? f->id + (b >> 4) : zigzag(c);
    if (id < 0 || id > 32767 || f->type < HD_THRIFT_TRUE || f->type > HD_THRIFT_STRUCT) c->bad = true;
    f->id = (int)id;
    return !c->bad;
}

/* n and the elements' type; each element takes a byte at least. */
static int64_t list(hd_thrift *c, int *type)
{
    uint8_t b = byte(c);
    uint64_t n = b >> 4 == 15 ? varint(c) : b >> 4;
    *type = b & 15;
    if (c->bad || n > (uint64_t)(c->end - c->p)) return c->bad = true, 0;
    return (int64_t)n;
}

static void skip_bytes(hd_thrift *c, uint64_t n)
{
    if (c->bad || n > (uint64_t)(c->end - c->p)) c->bad = true;
    else c->p += n;
}

static void skip(hd_thrift *c, int type, bool in_list, int depth)
{
    int of, to;
    int64_t n;
    hd_thrift_field f = {0};
    if (depth > MAX_DEPTH) c->bad = true;
    if (c->bad) return;
    switch (type) {
    case HD_THRIFT_TRUE:
    case HD_THRIFT_FALSE:
        if (in_list) byte(c); // as a field, the type is the value
        break;
    case HD_THRIFT_BYTE: byte(c); break;
    case HD_THRIFT_I16:
    case HD_THRIFT_I32:
    case HD_THRIFT_I64: varint(c); break;
    case HD_THRIFT_DOUBLE: skip_bytes(c, 8); break;
    case HD_THRIFT_BINARY: skip_bytes(c, varint(c)); break;
    case HD_THRIFT_LIST:
    case HD_THRIFT_SET:
        n = list(c, &of);
        for (int64_t i = 0; i < n && !c->bad; i++) skip(c, of, true, depth + 1);
        break;
    case HD_THRIFT_MAP:
        n = (int64_t)varint(c);
        if (!n) break;
        of = byte(c), to = of & 15, of >>= 4;
        if (n < 0 || n > c->end - c->p) c->bad = true;
        for (int64_t i = 0; i < n && !c->bad; i++) skip(c, of, true, depth + 1), skip(c, to, true, depth + 1);
        break;
    case HD_THRIFT_STRUCT:
        while (hd_thrift_next(c, &f)) skip(c, f.type, false, depth + 1);
        break;
    default: c->bad = true;
    }
}

void hd_thrift_skip(hd_thrift *c, const hd_thrift_field *f) { skip(c, f->type, false, 0); }

int64_t hd_thrift_int(hd_thrift *c, const hd_thrift_field *f)
{
    if (f->type < HD_THRIFT_I16 || f->type > HD_THRIFT_I64) return c->bad = true, 0;
    return zigzag(c);
}

bool hd_thrift_bool(hd_thrift *c, const hd_thrift_field *f)
{
    if (f->type != HD_THRIFT_TRUE && f->type != HD_THRIFT_FALSE) c->bad = true;
    return f->type == HD_THRIFT_TRUE;
}

const char *hd_thrift_text(hd_thrift *c, const hd_thrift_field *f, size_t *n)
{
    uint64_t len = f->type == HD_THRIFT_BINARY ? varint(c) : UINT64_MAX;
    const char *p = (const char *)c->p;
    skip_bytes(c, len);
    *n = c->bad ? 0 : (size_t)len;
    return p;
}

void hd_thrift_struct(hd_thrift *c, const hd_thrift_field *f)
{
    if (f->type != HD_THRIFT_STRUCT) c->bad = true;
}

int64_t hd_thrift_structs(hd_thrift *c, const hd_thrift_field *f)
{
    int of = 0;
    int64_t n = f->type == HD_THRIFT_LIST ? list(c, &of) : 0;
    if (f->type != HD_THRIFT_LIST || (n && of != HD_THRIFT_STRUCT)) return c->bad = true, 0;
    return n;
}
