/* Storing and loading one position of the cache: the layout of attn.h in plain C, which every
 * level's own loops (attn_body.h) repeat bit by bit. */
#include "kernels/attn.h"

#include <assert.h>
#include <float.h>

#include "base/num.h"
#include "kernels/kv_near.h"

enum { Q8 = 32, KEY_PANELS = HD_PAGE_TOK / HD_KV_PANEL };

static int up(int n, int to) { return (n + to - 1) / to * to; }

/* Bytes of one key panel. */
static size_t key_panel_bytes(const hd_kv_shape *s)
{
    switch (s->type) {
    case HD_CACHE_F32: return (size_t)s->dk * HD_KV_PANEL * 4;
    case HD_CACHE_Q8_0: return (size_t)up(s->dk, Q8) / Q8 * (HD_KV_PANEL * 2 + Q8 * HD_KV_PANEL);
    default: return (size_t)up(s->dk, 32) * HD_KV_PANEL * 2;
    }
}

size_t hd_kv_key_bytes(const hd_kv_shape *s) { return KEY_PANELS * key_panel_bytes(s); }

size_t hd_kv_value_bytes(const hd_kv_shape *s)
{
    if (s->v_in_k) return 0;
    switch (s->type) {
    case HD_CACHE_F32: return (size_t)up(s->dv, HD_KV_PANEL) * HD_PAGE_TOK * 4;
    case HD_CACHE_Q8_0: return (size_t)up(s->dv, Q8) / Q8 * (HD_PAGE_TOK * 2 + Q8 * HD_PAGE_TOK);
    default: return (size_t)up(s->dv, HD_KV_PANEL) * HD_PAGE_TOK * 2;
    }
}

size_t hd_kv_page_bytes(const hd_kv_shape *s)
{
    return (size_t)s->n_kv * (hd_kv_key_bytes(s) + hd_kv_value_bytes(s));
}

size_t hd_attn_scratch_bytes(const hd_kv_shape *s)
{
    size_t dk = (size_t)up(s->dk, 32), dv = (size_t)up(s->dv, 32);
    return HD_ATTN_TILE * dk * 4          // queries, packed
           + HD_ATTN_TILE * HD_SEG_TOK * 4 // scores
           + HD_ATTN_TILE * HD_SEG_TOK * 2 // weights, bf16
           + HD_PAGE_TOK * (dk + dv) * 4;  // a page, widened to f32
}

/* Numbers that stay finite in the type. */
static float saturate(float x, float max)
{
    return x > max ? max : x < -max ? -max : x == x ? x : 0;
}
/* 32 numbers, those past n zero. */
static void block_16(hd_cache_type t, uint16_t h[32], const float *x, int n)
{
    uint32_t bits[32] = {0};
    memcpy(bits, x, (size_t)(n < 32 ? n : 32) * sizeof *x);
    if (t == HD_CACHE_BF16)
        for (int i = 0; i < 32; i++) h[i] = (uint16_t)(near_bf16(bits[i]) >> 16);
    else
        for (int i = 0; i < 32; i++) h[i] = f16_of(bits[i]);
}
static float from_16(hd_cache_type t, uint16_t h)
{
    return t == HD_CACHE_BF16 ? hd_bf16_to_f32(h) : hd_f16_to_f32(h);
}

/* Where numbers of position `slot` lie: number i at base + i * step for F32, and so on.  Keys and values
 * differ only in what runs down a panel (numbers, or positions), hence the two addressing rules below. */
static void put_q8(uint16_t *scale, int8_t *q, int step, const float *x, int n)
{
    float max = 0;
    for (int i = 0; i < n; i++) {
        float a = fabsf(saturate(x[i], FLT_MAX));
        if (a > max) max = a;
    }
    *scale = hd_f32_to_f16(saturate(max / 127, 65504));
    float d = hd_f16_to_f32(*scale), inv = d > 0 ? 1 / d : 0;
    for (int i = 0; i < Q8; i++) {
        float v = i < n ? saturate(x[i] * inv, 127) : 0;
        q[i * step] = (int8_t)lrintf(v);
    }
}

static void put_key(const hd_kv_shape *s, uint8_t *plane, int slot, const float *k)
{
    uint8_t *panel = plane + (size_t)(slot / HD_KV_PANEL) * key_panel_bytes(s);
    int c = slot % HD_KV_PANEL, dk = s->dk;
    if (s->type == HD_CACHE_F32) {
        float *p = (float *)panel + c;
        for (int i = 0; i < dk; i++) p[i * HD_KV_PANEL] = saturate(k[i], FLT_MAX);
    } else if (s->type == HD_CACHE_Q8_0) {
        for (int i = 0; i < dk; i += Q8, panel += HD_KV_PANEL * (2 + Q8))
            put_q8((uint16_t *)panel + c, (int8_t *)panel + HD_KV_PANEL * 2 + c, HD_KV_PANEL, k + i,
                   dk - i < Q8 ? dk - i : Q8);
    } else {
        for (int i = 0; i < dk; i += 32) {
            uint16_t h[32], *p = (uint16_t *)panel + 2 * c + i * HD_KV_PANEL;
            block_16(s->type, h, k + i, dk - i);
            for (int j = 0; j < 16; j++) memcpy(p + j * (HD_KV_PANEL * 2), h + 2 * j, 4); // a pair
        }
    }
}

static void get_key(const hd_kv_shape *s, const uint8_t *plane, int slot, float *k, int n)
{
    const uint8_t *panel = plane + (size_t)(slot / HD_KV_PANEL) * key_panel_bytes(s);
    int c = slot % HD_KV_PANEL;
    for (int i = 0; i < n; i++)
        if (s->type == HD_CACHE_F32) {
            k[i] = ((const float *)panel)[i * HD_KV_PANEL + c];
        } else if (s->type == HD_CACHE_Q8_0) {
            const uint8_t *b = panel + (size_t)(i / Q8) * HD_KV_PANEL * (2 + Q8);
            const int8_t *q = (const int8_t *)b + HD_KV_PANEL * 2;
            k[i] = hd_f16_to_f32(((const uint16_t *)b)[c]) * q[i % Q8 * HD_KV_PANEL + c];
        } else {
            k[i] = from_16(s->type, ((const uint16_t *)panel)[(i / 2 * HD_KV_PANEL + c) * 2 + i % 2]);
        }
}

static void put_value(const hd_kv_shape *s, uint8_t *plane, int slot, const float *v)
{
    int dv = s->dv, pad = up(dv, HD_KV_PANEL);
    for (int i = 0; i < pad && s->type == HD_CACHE_F32; i += HD_KV_PANEL) {
        float *p = (float *)plane + (size_t)i * HD_PAGE_TOK + slot * HD_KV_PANEL;
        for (int c = 0; c < HD_KV_PANEL; c++) p[c] = i + c < dv ? saturate(v[i + c], FLT_MAX) : 0;
    }
    for (int i = 0; i < pad && s->type != HD_CACHE_F32 && s->type != HD_CACHE_Q8_0; i += 32) {
        uint16_t h[32];
        block_16(s->type, h, v + i, dv - i);
        for (int j = 0; j < 32 && i + j < pad; j++)
            ((uint16_t *)plane)[(size_t)((i + j) / HD_KV_PANEL) * HD_PAGE_TOK * HD_KV_PANEL +
                                (size_t)(slot / 2 * HD_KV_PANEL + j % HD_KV_PANEL) * 2 + (size_t)slot % 2] = h[j];
    }
    if (s->type != HD_CACHE_Q8_0) return;
    for (int i = 0; i < dv; i += Q8, plane += HD_PAGE_TOK * (2 + Q8)) {
        int8_t q[Q8], *panel = (int8_t *)plane + HD_PAGE_TOK * 2;
        put_q8((uint16_t *)plane + slot, q, 1, v + i, dv - i < Q8 ? dv - i : Q8);
        memcpy(panel + slot * HD_KV_PANEL, q, HD_KV_PANEL);
        memcpy(panel + (HD_PAGE_TOK + slot) * HD_KV_PANEL, q + HD_KV_PANEL, HD_KV_PANEL);
    }
}

static void get_value(const hd_kv_shape *s, const uint8_t *plane, int slot, float *v)
{
    for (int i = 0; i < s->dv; i++) {
        size_t at = (size_t)(i / HD_KV_PANEL) * HD_PAGE_TOK * HD_KV_PANEL + i % HD_KV_PANEL * 2;
        if (s->type == HD_CACHE_F32) {
            v[i] = ((const float *)plane)[(size_t)(i / HD_KV_PANEL * HD_PAGE_TOK + slot) * HD_KV_PANEL + i % HD_KV_PANEL];
        } else if (s->type == HD_CACHE_Q8_0) {
            const uint8_t *b = plane + (size_t)(i / Q8) * HD_PAGE_TOK * (2 + Q8);
            const int8_t *q = (const int8_t *)b + HD_PAGE_TOK * 2 + (i % Q8 / HD_KV_PANEL) * HD_PAGE_TOK * HD_KV_PANEL;
            v[i] = hd_f16_to_f32(((const uint16_t *)b)[slot]) * q[slot * HD_KV_PANEL + i % HD_KV_PANEL];
        } else {
            v[i] = from_16(s->type, ((const uint16_t *)plane)[at + slot / 2 * (HD_KV_PANEL * 2) + slot % 2]);
        }
    }
}

void hd_kv_store(const hd_kv_shape *s, uint8_t *page, int slot, const float *k, const float *v)
{
    assert(slot >= 0 && slot < HD_PAGE_TOK);
    size_t key = hd_kv_key_bytes(s), value = hd_kv_value_bytes(s);
    for (int h = 0; h < s->n_kv; h++, page += key + value) {
        put_key(s, page, slot, k + (int64_t)h * s->dk);
        if (!s->v_in_k) put_value(s, page + key, slot, v + (int64_t)h * s->dv);
    }
}

void hd_kv_load(const hd_kv_shape *s, const uint8_t *page, int slot, float *k, float *v)
{
    size_t key = hd_kv_key_bytes(s), value = hd_kv_value_bytes(s);
    for (int h = 0; h < s->n_kv; h++, page += key + value) {
        if (k) get_key(s, page, slot, k + (int64_t)h * s->dk, s->dk);
        if (!v) continue;
        if (s->v_in_k) get_key(s, page, slot, v + (int64_t)h * s->dv, s->dv);
        else get_value(s, page + key, slot, v + (int64_t)h * s->dv);
    }
}

void hd_kv_round(hd_cache_type t, float *x, int64_t n)
{
    assert(t != HD_CACHE_Q8_0);
    if (t == HD_CACHE_BF16)
        for (int64_t i = 0; i < n; i++) x[i] = hd_f32_from_bits(near_bf16(hd_f32_bits(x[i])));
    if (t == HD_CACHE_F16)
        for (int64_t i = 0; i < n; i++) x[i] = hd_f32_from_bits(near_f16(hd_f32_bits(x[i])));
}
