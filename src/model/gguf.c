/* GGUF v2 and v3, the reader: one pass over a mapped file.
 *
 *   "GGUF" version:u32 n_tensors:u64 n_kv:u64
 *   n_kv x      { key:str type:u32 value }          str = length:u64 bytes; array = elem:u32 count:u64 elements
 *   n_tensors x { name:str n_dims:u32 dim:u64[n_dims] type:u32 offset:u64 }      dim[0] is the innermost
 *   padding to general.alignment, then the data; offsets count from there
 *
 * Nothing declared is believed: a count only says when to stop, arrays grow as entries are really read, and
 * each read asks the cursor whether the bytes are there.  What is kept of a value is its place in the file,
 * already checked, so that later readers need no checks of their own.  The writer is gguf_write.c. */
#include "model/gguf.h"

#include <string.h>

#include "model/names.h"

enum {
    MAX_KV = 1 << 16,      // real files: about 60
    MAX_TENSORS = 1 << 20, // DeepSeek-V3 with one tensor per expert matrix: 46 thousand
    MAX_KEY = 65535,       // of the format
    MAX_NAME = 255,
    MAX_ALIGN = 1 << 20,
};
/* Keys and tensor infos together, so that nothing walks a terabyte of declared strings; a 256 k vocabulary
 * takes 12 MB. */
static const size_t MAX_HEAD_BYTES = (size_t)128 << 20;

struct hd_gguf {
    hd_gguf_kv *kv;
    int64_t n_kv, cap_kv;
    hd_names keys;
    hd_tensor_info *tensor;
    int64_t n_tensors, cap_tensors;
    char *names; // all tensor names, NUL-terminated
};

/* ---- A cursor that cannot leave the file ---- */

typedef struct {
    const uint8_t *base;
    size_t at, end;
    const char *where;
    hd_err *err;
} cursor;

static hd_status take(cursor *c, size_t n, const uint8_t **p, const char *what)
{
    *p = c->base + c->at;
    if (n > c->end - c->at)
        return hd_fail(c->err, HD_FORMAT, "gguf: %s: %s at byte %zu needs %zu bytes, %zu are left", c->where,
                       what, c->at, n, c->end - c->at);
    c->at += n;
    return HD_OK;
}

static hd_status take_u32(cursor *c, uint32_t *v, const char *what)
{
    const uint8_t *p;
    hd_status st = take(c, 4, &p, what);
    if (st == HD_OK) memcpy(v, p, 4);
    return st;
}

static hd_status take_u64(cursor *c, uint64_t *v, const char *what)
{
    const uint8_t *p;
    hd_status st = take(c, 8, &p, what);
    if (st == HD_OK) memcpy(v, p, 8);
    return st;
}

static hd_status take_str(cursor *c, hd_gguf_str *s, const char *what)
{
    hd_status st;
    const uint8_t *p = NULL;
    HD_TRY(take_u64(c, &s->n, what));
    HD_TRY(take(c, s->n, &p, what));
    s->p = (const char *)p;
fail:
    return st;
}

/* ---- Keys ---- */

/* Bytes of one value of a plain type; 0 for strings, arrays and unknown types. */
static size_t scalar_bytes(uint32_t type)
{
    static const uint8_t bytes[] = {
        [HD_GGUF_U8] = 1,  [HD_GGUF_I8] = 1,  [HD_GGUF_U16] = 2,  [HD_GGUF_I16] = 2, [HD_GGUF_U32] = 4,
        [HD_GGUF_I32] = 4, [HD_GGUF_F32] = 4, [HD_GGUF_BOOL] = 1, [HD_GGUF_STR] = 0, [HD_GGUF_ARR] = 0,
        [HD_GGUF_U64] = 8, [HD_GGUF_I64] = 8, [HD_GGUF_F64] = 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

/* n values of a type that is no array. */
static hd_status take_values(cursor *c, hd_gguf_kv *kv, uint32_t type, uint64_t n, const char *key)
{
    hd_status st = HD_OK;
    size_t begin = c->at, bytes = scalar_bytes(type);
    const uint8_t *p;
    hd_gguf_str s;
    if (type == HD_GGUF_STR) {
        for (uint64_t i = 0; i < n; i++) HD_TRY(take_str(c, &s, "a string"));
    } else {
        if (!bytes)
            return hd_fail(c->err, HD_FORMAT, "gguf: %s: key '%s': value type %u is unknown", c->where, key,
                           type);
        if (!hd_mul(&bytes, bytes, n))
            return hd_fail(c->err, HD_FORMAT, "gguf: %s: key '%s': %llu elements: the size wraps", c->where,
                           key, (unsigned long long)n);
        HD_TRY(take(c, bytes, &p, "a value"));
    }
    kv->data = c->base + begin;
    kv->bytes = c->at - begin;
    kv->n = n;
fail:
    return st;
}

static hd_status take_kv(hd_gguf *g, cursor *c)
{
    hd_status st;
    hd_gguf_kv kv = {0};
    uint32_t type, elem;
    uint64_t n;
    char key[80];
    HD_TRY(take_str(c, &kv.key, "a key"));
    if (!hd_name_ok(kv.key.p, kv.key.n, MAX_KEY))
        return hd_fail(c->err, HD_FORMAT,
                       "gguf: %s: the key before byte %zu is empty, too long or not printable", c->where,
                       c->at);
    hd_name_show(key, sizeof key, kv.key.p, kv.key.n);
    HD_TRY(take_u32(c, &type, "a value type"));
    kv.type = type;
    if (type == HD_GGUF_ARR) {
        HD_TRY(take_u32(c, &elem, "an element type"));
        HD_TRY(take_u64(c, &n, "an array length"));
        if (elem == HD_GGUF_ARR)
            return hd_fail(c->err, HD_UNSUPPORTED,
                           "gguf: %s: key '%s': arrays of arrays are not used by any model", c->where, key);
        kv.elem = elem;
        HD_TRY(take_values(c, &kv, elem, n, key));
    } else {
        HD_TRY(take_values(c, &kv, type, 1, key));
    }
    if (g->n_kv == g->cap_kv) {
        g->cap_kv = g->cap_kv ? 2 * g->cap_kv : 64;
        HD_TRY(hd_realloc(&g->kv, (size_t)g->cap_kv * sizeof *g->kv, c->err));
    }
    g->kv[g->n_kv++] = kv;
fail:
    return st;
}

static hd_status index_keys(hd_gguf *g, const cursor *c)
{
    hd_status st;
    char key[80];
    HD_TRY(hd_names_init(&g->keys, (size_t)g->n_kv, c->err));
    for (int64_t i = 0; i < g->n_kv; i++) {
        const hd_gguf_str *k = &g->kv[i].key;
        if (!hd_names_add(&g->keys, k->p, k->n, i))
            return hd_fail(c->err, HD_FORMAT, "gguf: %s: key '%s' stands there twice", c->where,
                           hd_name_show(key, sizeof key, k->p, k->n));
    }
fail:
    return st;
}

/* ---- Tensors ---- */

static hd_status take_tensor(hd_gguf *g, cursor *c, size_t *name_bytes)
{
    hd_status st;
    hd_gguf_str s;
    uint32_t n_dims, type;
    uint64_t dim[HD_MAX_DIMS], offset;
    char name[80];
    hd_tensor_info t = {0};
    HD_TRY(take_str(c, &s, "a tensor name"));
    if (!hd_name_ok(s.p, s.n, MAX_NAME))
        return hd_fail(c->err, HD_FORMAT,
                       "gguf: %s: tensor %lld: the name is empty, too long or not printable", c->where,
                       (long long)g->n_tensors);
    hd_name_show(name, sizeof name, s.p, s.n);
    HD_TRY(take_u32(c, &n_dims, "a number of dimensions"));
    if (n_dims < 1 || n_dims > HD_MAX_DIMS)
        return hd_fail(c->err, HD_FORMAT, "gguf: %s: tensor '%s': %u dimensions (1 to %d can be)", c->where,
                       name, n_dims, HD_MAX_DIMS);
    size_t rows = 1;
    for (uint32_t i = 0; i < n_dims; i++) {
        HD_TRY(take_u64(c, &dim[i], "a dimension"));
        if (dim[i] < 1 || dim[i] > INT64_MAX || (i > 0 && !hd_mul(&rows, rows, dim[i])))
            return hd_fail(c->err, HD_FORMAT, "gguf: %s: tensor '%s': dimension %u is %llu", c->where, name,
                           i, (unsigned long long)dim[i]);
        t.dim[n_dims - 1 - i] = (int64_t)dim[i];
    }
    HD_TRY(take_u32(c, &type, "a tensor type"));
    HD_TRY(take_u64(c, &offset, "a tensor offset"));
    const hd_format *f = type < 1000 ? hd_format_get((int)type) : NULL;
    if (!f)
        return hd_fail(c->err, HD_UNSUPPORTED, "gguf: %s: tensor '%s': type %u is unknown", c->where, name,
                       type);
    if (!hd_format_row_bytes(f, t.dim[n_dims - 1], &t.bytes) || !hd_mul(&t.bytes, t.bytes, rows))
        return hd_fail(c->err, HD_FORMAT,
                       "gguf: %s: tensor '%s': rows of %lld numbers do not make blocks of %s", c->where, name,
                       (long long)t.dim[n_dims - 1], f->name);
    t.type = f->type;
    t.n_dims = (int)n_dims;
    /* Until the names are copied and the data's place is known, two fields hold what the file says. */
    t.name = s.p;
    t.file = (int)s.n;
    t.data = (const uint8_t *)(uintptr_t)offset;
    *name_bytes += s.n + 1;
    if (g->n_tensors == g->cap_tensors) {
        g->cap_tensors = g->cap_tensors ? 2 * g->cap_tensors : 256;
        HD_TRY(hd_realloc(&g->tensor, (size_t)g->cap_tensors * sizeof *g->tensor, c->err));
    }
    g->tensor[g->n_tensors++] = t;
fail:
    return st;
}

/* Offsets become pointers, names become strings. */
static hd_status place_tensors(hd_gguf *g, const cursor *c, size_t align, size_t file_size, size_t name_bytes)
{
    hd_status st;
    size_t data, end;
    HD_TRY(hd_alloc(&g->names, name_bytes, c->err));
    if (!hd_add(&data, c->at, align - 1)) data = SIZE_MAX;
    data &= ~(align - 1);
    char *name = g->names;
    for (int64_t i = 0; i < g->n_tensors; i++) {
        hd_tensor_info *t = &g->tensor[i];
        memcpy(name, t->name, (size_t)t->file); // zeroed memory ends it
        t->name = name;
        name += t->file + 1;
        t->file = 0;
        size_t offset = (size_t)(uintptr_t)t->data;
        if (offset % align)
            return hd_fail(c->err, HD_FORMAT, "gguf: %s: tensor '%s': offset %zu is no multiple of %zu",
                           c->where, t->name, offset, align);
        if (!hd_add(&offset, offset, data) || !hd_add(&end, offset, t->bytes) || end > file_size)
            return hd_fail(c->err, HD_FORMAT,
                           "gguf: %s: tensor '%s' ends past the file's %zu bytes: truncated or damaged",
                           c->where, t->name, file_size);
        t->data = c->base + offset;
    }
fail:
    return st;
}

static int by_place(const void *a, const void *b)
{
    const hd_tensor_info *x = *(const hd_tensor_info *const *)a, *y = *(const hd_tensor_info *const *)b;
    return (x->data > y->data) - (x->data < y->data);
}

static hd_status check_overlap(const hd_gguf *g, const cursor *c)
{
    hd_status st;
    const hd_tensor_info **order = NULL;
    HD_TRY(hd_alloc_n(&order, (size_t)g->n_tensors, sizeof *order, c->err));
    for (int64_t i = 0; i < g->n_tensors; i++) order[i] = &g->tensor[i];
    qsort(order, (size_t)g->n_tensors, sizeof *order, by_place);
    for (int64_t i = 1; i < g->n_tensors; i++)
        if (order[i - 1]->data + order[i - 1]->bytes > order[i]->data)
            HD_TRY(hd_fail(c->err, HD_FORMAT, "gguf: %s: tensors '%s' and '%s' overlap", c->where,
                           order[i - 1]->name, order[i]->name));
fail:
    free(order);
    return st;
}

static hd_status read_alignment(const hd_gguf *g, const cursor *c, size_t *align)
{
    int64_t v = 32;
    if (hd_gguf_find(g, "general.alignment") && !hd_gguf_i64(g, "general.alignment", &v)) v = 0;
    if (v < 8 || v > MAX_ALIGN || (v & (v - 1)))
        return hd_fail(c->err, HD_FORMAT, "gguf: %s: general.alignment must be a power of two from 8 to %d",
                       c->where, MAX_ALIGN);
    *align = (size_t)v;
    return HD_OK;
}

static hd_status read_version(cursor *c)
{
    hd_status st;
    const uint8_t *magic;
    uint32_t version;
    HD_TRY(take(c, 4, &magic, "the magic number"));
    if (memcmp(magic, "GGUF", 4) != 0)
        return hd_fail(c->err, HD_FORMAT, "gguf: %s: this is no GGUF file", c->where);
    HD_TRY(take_u32(c, &version, "the version"));
    if ((version & 0xffff) == 0 && version >> 16)
        return hd_fail(c->err, HD_UNSUPPORTED,
                       "gguf: %s: a big-endian file; convert it again for little-endian machines", c->where);
    if (version != 2 && version != 3)
        return hd_fail(c->err, HD_UNSUPPORTED, "gguf: %s: version %u; 2 and 3 can be read", c->where,
                       version);
fail:
    return st;
}

hd_status hd_gguf_open(hd_gguf **out, const hd_map *map, const char *where, hd_err *err)
{
    hd_status st;
    hd_gguf *g = NULL;
    const uint8_t *base = map->data ? map->data : (const uint8_t *)""; // of an empty file
    cursor c = {base, 0, map->size < MAX_HEAD_BYTES ? map->size : MAX_HEAD_BYTES, where, err};
    uint64_t n_tensors, n_kv;
    size_t align = 0, name_bytes = 0;
    HD_TRY(hd_alloc(&g, sizeof *g, err));
    HD_TRY(read_version(&c));
    HD_TRY(take_u64(&c, &n_tensors, "the number of tensors"));
    HD_TRY(take_u64(&c, &n_kv, "the number of keys"));
    if (n_kv > MAX_KV || n_tensors > MAX_TENSORS)
        HD_TRY(hd_fail(err, HD_LIMIT,
                       "gguf: %s: %llu keys and %llu tensors declared; at most %d and %d are read", where,
                       (unsigned long long)n_kv, (unsigned long long)n_tensors, MAX_KV, MAX_TENSORS));
    for (uint64_t i = 0; i < n_kv; i++) HD_TRY(take_kv(g, &c));
    HD_TRY(index_keys(g, &c));
    HD_TRY(read_alignment(g, &c, &align));
    for (uint64_t i = 0; i < n_tensors; i++) HD_TRY(take_tensor(g, &c, &name_bytes));
    HD_TRY(place_tensors(g, &c, align, map->size, name_bytes));
    HD_TRY(check_overlap(g, &c));
    *out = g;
    return HD_OK;
fail:
    hd_gguf_close(g);
    return st;
}

void hd_gguf_close(hd_gguf *g)
{
    if (!g) return;
    hd_names_free(&g->keys);
    free(g->kv);
    free(g->tensor);
    free(g->names);
    free(g);
}

/* ---- What was read ---- */

int64_t hd_gguf_n_tensors(const hd_gguf *g) { return g->n_tensors; }
const hd_tensor_info *hd_gguf_tensor(const hd_gguf *g, int64_t i)
{
    return i >= 0 && i < g->n_tensors ? &g->tensor[i] : NULL;
}
int64_t hd_gguf_n_kv(const hd_gguf *g) { return g->n_kv; }
const hd_gguf_kv *hd_gguf_kv_at(const hd_gguf *g, int64_t i)
{
    return i >= 0 && i < g->n_kv ? &g->kv[i] : NULL;
}

const hd_gguf_kv *hd_gguf_find(const hd_gguf *g, const char *key)
{
    int64_t i = hd_names_find(&g->keys, key, strlen(key));
    return i < 0 ? NULL : &g->kv[i];
}

/* One number at p: integers that fit go to *i, floats to *f; false for other types. */
static bool number(hd_gguf_type type, const uint8_t *p, int64_t *i, double *f, bool *is_float)
{
    union {
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
        float f32;
        double f64;
    } v;
    memcpy(&v, p, scalar_bytes(type));
    *is_float = false;
    switch (type) {
    case HD_GGUF_U8: *i = *p; return true;
    case HD_GGUF_I8: *i = (int8_t)*p; return true;
    case HD_GGUF_U16: *i = v.u16; return true;
    case HD_GGUF_I16: *i = v.i16; return true;
    case HD_GGUF_U32: *i = v.u32; return true;
    case HD_GGUF_I32: *i = v.i32; return true;
    case HD_GGUF_U64: *i = (int64_t)v.u64; return v.u64 <= INT64_MAX;
    case HD_GGUF_I64: *i = v.i64; return true;
    case HD_GGUF_F32: *f = v.f32, *is_float = true; return true;
    case HD_GGUF_F64: *f = v.f64, *is_float = true; return true;
    default: return false; // booleans, strings and arrays are no numbers
    }
}

bool hd_gguf_i64(const hd_gguf *g, const char *key, int64_t *v)
{
    const hd_gguf_kv *kv = hd_gguf_find(g, key);
    int64_t i;
    double f;
    bool is_float;
    if (!kv || !number(kv->type, kv->data, &i, &f, &is_float) || is_float) return false;
    *v = i;
    return true;
}

bool hd_gguf_f64(const hd_gguf *g, const char *key, double *v)
{
    const hd_gguf_kv *kv = hd_gguf_find(g, key);
    int64_t i;
    double f;
    bool is_float;
    if (!kv || !number(kv->type, kv->data, &i, &f, &is_float)) return false;
    *v = is_float ? f : (double)i;
    return true;
}

bool hd_gguf_bool(const hd_gguf *g, const char *key, bool *v)
{
    const hd_gguf_kv *kv = hd_gguf_find(g, key);
    if (!kv || kv->type != HD_GGUF_BOOL || kv->data[0] > 1) return false;
    *v = kv->data[0];
    return true;
}

bool hd_gguf_string(const hd_gguf *g, const char *key, hd_gguf_str *v)
{
    const hd_gguf_kv *kv = hd_gguf_find(g, key);
    if (!kv || kv->type != HD_GGUF_STR) return false;
    *v = (hd_gguf_str){(const char *)kv->data + 8, kv->bytes - 8};
    return true;
}

bool hd_gguf_arr_str(const hd_gguf_kv *kv, size_t *pos, hd_gguf_str *v)
{
    if (kv->type != HD_GGUF_ARR || kv->elem != HD_GGUF_STR || *pos >= kv->bytes) return false;
    memcpy(&v->n, kv->data + *pos, 8); // lengths were checked when the file was opened
    v->p = (const char *)kv->data + *pos + 8;
    *pos += 8 + v->n;
    return true;
}

bool hd_gguf_arr_f64(const hd_gguf_kv *kv, uint64_t i, double *v)
{
    int64_t n;
    double f;
    bool is_float;
    size_t size = kv->type == HD_GGUF_ARR ? scalar_bytes(kv->elem) : 0;
    if (!size || i >= kv->n || !number(kv->elem, kv->data + i * size, &n, &f, &is_float)) return false;
    *v = is_float ? f : (double)n;
    return true;
}

bool hd_gguf_arr_i64(const hd_gguf_kv *kv, uint64_t i, int64_t *v)
{
    int64_t n;
    double f;
    bool is_float;
    size_t size = kv->type == HD_GGUF_ARR ? scalar_bytes(kv->elem) : 0;
    if (!size || i >= kv->n || !number(kv->elem, kv->data + i * size, &n, &f, &is_float) || is_float)
        return false;
    *v = n;
    return true;
}
