#include "train/words.h"

#include "base/utf8.h"
#include "model/json.h"

enum { FIRST_LONE = 0x2e80, MAX_VALUES = 1 << 20 };

uint64_t hd_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

void hd_wordhash_free(hd_wordhash *w)
{
    free(w->hash);
    *w = (hd_wordhash){0};
}

static hd_status add(hd_wordhash *w, uint64_t h, hd_err *err)
{
    if (w->n == w->cap) {
        int64_t cap = w->cap ? 2 * w->cap : 256;
        hd_status st = hd_realloc(&w->hash, (size_t)cap * sizeof *w->hash, err);
        if (st != HD_OK) return st;
        w->cap = cap;
    }
    w->hash[w->n++] = hd_mix(h);
    return HD_OK;
}

hd_status hd_wordhash_add(hd_wordhash *w, const void *text, size_t n, hd_err *err)
{
    static const uint64_t START = UINT64_C(0xcbf29ce484222325),
                          STEP = UINT64_C(0x100000001b3); // FNV-1a, 64 bits
    hd_status st = HD_OK;
    const uint8_t *s = text;
    uint64_t h = START;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = s[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80;
        if (c >= 'A' && c <= 'Z') c |= 0x20, letter = true;
        if (letter && c < 0xe2) {
            h = (h ^ c) * STEP;
            continue;
        }
        int32_t cp = -1;
        int len = letter ? hd_utf8_next(s + i, n - i, &cp) : 1;
        if (letter && cp < FIRST_LONE) {
            for (int k = 0; k < len; k++) h = (h ^ s[i + (size_t)k]) * STEP;
            i += (size_t)len - 1;
            continue;
        }
        if (h != START) HD_TRY(add(w, h, err));
        h = START;
        if (letter) HD_TRY(add(w, (uint64_t)cp, err));
        i += (size_t)len - 1;
    }
    if (h != START) HD_TRY(add(w, h, err));
fail:
    return st;
}

bool hd_json_strings_of(hd_buf *out, const json_t *j)
{
    const char *key;
    json_t *v;
    size_t i;
    if (json_is_string(j))
        return hd_buf_add(out, json_string_value(j), json_string_length(j), NULL) == HD_OK &&
               hd_buf_adds(out, "\n", NULL) == HD_OK;
    json_object_foreach((json_t *)j, key, v) if (!hd_json_strings_of(out, v)) return false;
    json_array_foreach(j, i, v) if (!hd_json_strings_of(out, v)) return false;
    return true;
}

bool hd_json_strings(hd_buf *out, const char *json, size_t n)
{
    json_t *j = NULL;
    hd_err err;
    bool ok = hd_json_parse(&j, json, n, MAX_VALUES, "", "", &err) == HD_OK && hd_json_strings_of(out, j);
    json_decref(j);
    return ok;
}
