/* Panels: which there are, how long they are, and how to read one back into plain floats.  panel.h draws the
 * bytes, panel_pack.c writes them. */
#include <assert.h>
#include <string.h>

#include "base/num.h"
#include "kernels/panel.h"

/* The 4-bit non-linear table of ggml's iq4_nl (a table of data: the values are the format). */
const int8_t hd_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t pad64(int64_t k) { return ceil_div(k, 64) * 64; }

size_t hd_act_bytes(hd_act_kind kind, int64_t k)
{
    size_t kp = (size_t)pad64(k), n = 0;
    switch (kind) {
    case HD_ACT_F32:
    case HD_ACT_WIDE: n = kp * 4; break;
    case HD_ACT_BF16: n = kp * 2; break;
    case HD_ACT_Q8: n = kp + kp / 32 * 8 + kp / 32 * 2; break;
    case HD_ACT_Q8K: {
        size_t k8 = (size_t)ceil_div(k, 256) * 256;
        n = k8 + k8 / HD_Q8K_GROUP * 4 + k8 / 16 * 2 + k8 / 32 * 2;
        break;
    }
    case HD_N_ACT: break;
    }
    n = (n + 63) / 64 * 64;
    return n % 2048 == 0 ? n + 64 : n; // else many rows' same place falls on few sets of the first-level cache
}

void hd_act_unpack(hd_act_kind kind, const void *blob, float *x, int64_t k)
{
    int64_t kp = kind == HD_ACT_Q8K ? ceil_div(k, 256) * 256 : pad64(k), group = kind == HD_ACT_Q8K ? HD_Q8K_GROUP : 32;
    const float *scale = (const float *)(const void *)((const uint8_t *)blob + kp);
    switch (kind) {
    case HD_ACT_F32:
    case HD_ACT_WIDE: memcpy(x, blob, (size_t)k * sizeof *x); break;
    case HD_ACT_BF16:
        for (int64_t i = 0; i < k; i++) x[i] = hd_bf16_to_f32(((const uint16_t *)blob)[i]);
        break;
    case HD_ACT_Q8:
    case HD_ACT_Q8K:
        for (int64_t i = 0; i < k; i++) x[i] = scale[i / group] * (float)((const int8_t *)blob)[i];
        break;
    case HD_N_ACT: break;
    }
}

size_t hd_mul_scratch_bytes(int64_t k) { return (void)k, HD_MUL_SCRATCH; }

static size_t bytes_f32(int64_t k) { return (size_t)k * 128; }
static size_t bytes_f16(int64_t k) { return (size_t)k * 64; }
static size_t bytes_bf16(int64_t k) { return (size_t)pad64(k) * 64; }
static size_t bytes_bf12(int64_t k) { return (size_t)ceil_div(k, BF12_K) * BF12_BLOCK; }
static size_t bytes_f8(int64_t k) { return (size_t)ceil_div(k, 128) * 64 + (size_t)pad64(k) * 32; }
#define BYTES(name, ID, block)                                                                               \
    static size_t bytes_##name(int64_t k) { return (size_t)ceil_div(k, block) * P_##ID; }
#define BYTES_SIMPLE(name, ID) BYTES(name, ID, 32)
#define BYTES_K(name, ID)      BYTES(name, ID, 256)
SIMPLE_PANELS(BYTES_SIMPLE)
K_PANELS(BYTES_K)

static void load_f16(float *o, const uint8_t *p)
{
    for (int r = 0; r < 32; r++) {
        uint16_t h;
        memcpy(&h, p + 2 * r, 2);
        o[r] = hd_f16_to_f32(h);
    }
}

/* The integers of a block: low nibbles, with one (bits = 5) or two (bits = 6) more from `high`. */
static void get_quads(int8_t q[32][32], const uint8_t *low, const uint8_t *high, int bits, int offset)
{
    for (int j = 0; j < 8; j++)
        for (int r = 0; r < 32; r++)
            for (int e = 0; e < 4; e++) {
                int v = low[(j / 2 * 32 + r) * 4 + e] >> (j & 1) * 4 & 15;
                if (bits == 5) v |= (high[r * 4 + e] >> j & 1) << 4;
                if (bits == 6) v |= (high[(j / 4 * 32 + r) * 4 + e] >> j % 4 * 2 & 3) << 4;
                q[r][4 * j + e] = (int8_t)(v - offset);
            }
}

/* Formats with one f16 scale, and perhaps one f16 minimum, per block of 32. */
static void get_simple(hd_panel_block *o, hd_panel_id id, const uint8_t *p, int64_t b)
{
    static const struct {
        int bytes, bits, offset;
        bool min;
    } layout[HD_N_PANEL] = {
        [HD_PANEL_Q8_0] = {P_Q8_0, 8, 0, false}, [HD_PANEL_Q4_0] = {P_Q4_0, 4, 8, false},
        [HD_PANEL_Q4_1] = {P_Q4_1, 4, 0, true},  [HD_PANEL_Q5_0] = {P_Q5_0, 5, 16, false},
        [HD_PANEL_Q5_1] = {P_Q5_1, 5, 0, true},  [HD_PANEL_IQ4_NL] = {P_IQ4_NL, 4, 0, false},
    };
    p += b * layout[id].bytes;
    load_f16(o->d, p);
    p += P_F16;
    if (layout[id].min) {
        load_f16(o->dmin, p);
        p += P_F16;
    }
    for (int r = 0; r < 32; r++) {
        o->sc[0][r] = o->sc[1][r] = 1;
        o->dmin[r] = layout[id].min ? -o->dmin[r] : 0;
        o->min[r] = layout[id].min;
    }
    if (layout[id].bits == 8) {
        for (int j = 0; j < 8; j++)
            for (int r = 0; r < 32; r++)
                for (int e = 0; e < 4; e++) o->q[r][4 * j + e] = (int8_t)(p[(j * 32 + r) * 4 + e] - 128);
        return;
    }
    get_quads(o->q, p, p + P_LOW, layout[id].bits, layout[id].offset);
    if (id == HD_PANEL_IQ4_NL)
        for (int r = 0; r < 32; r++)
            for (int i = 0; i < 32; i++) o->q[r][i] = hd_iq4_values[o->q[r][i]];
}

static void get_q45_k(hd_panel_block *o, const uint8_t *p, int64_t b, int bits)
{
    int pair_bytes = bits == 5 ? P_Q5_K_PAIR : P_Q4_K_PAIR, h = (int)(b & 1);
    p += b / 8 * (bits == 5 ? P_Q5_K : P_Q4_K);
    load_f16(o->d, p);
    load_f16(o->dmin, p + P_F16);
    p += 2 * P_F16 + b % 8 / 2 * pair_bytes;
    for (int r = 0; r < 32; r++) {
        o->sc[0][r] = o->sc[1][r] = p[h * 32 + r];
        o->min[r] = p[64 + 2 * r + h];
    }
    p += 128 + h * (P_LOW + (bits == 5 ? P_BIT5 : 0));
    get_quads(o->q, p, p + P_LOW, bits, 0);
}

static void get_q6_k(hd_panel_block *o, const uint8_t *p, int64_t b)
{
    p += b / 8 * P_Q6_K;
    load_f16(o->d, p);
    p += P_F16 + b % 8 * P_Q6_K_BLOCK;
    for (int r = 0; r < 32; r++) {
        o->sc[0][r] = (int8_t)p[r];
        o->sc[1][r] = (int8_t)p[32 + r];
        o->dmin[r] = 0;
        o->min[r] = 0;
    }
    get_quads(o->q, p + 64, p + 64 + P_LOW, 6, 32);
}

void hd_panel_block_get(hd_panel_block *o, hd_panel_id id, const uint8_t *panel, int64_t b)
{
    switch (id) {
    case HD_PANEL_Q4_K: get_q45_k(o, panel, b, 4); break;
    case HD_PANEL_Q5_K: get_q45_k(o, panel, b, 5); break;
    case HD_PANEL_Q6_K: get_q6_k(o, panel, b); break;
    default: get_simple(o, id, panel, b); break;
    }
}

static void unpack_int(hd_panel_id id, float *out, const uint8_t *panel, int64_t k)
{
    hd_panel_block o;
    for (int64_t b = 0; b < ceil_div(k, 32); b++) {
        hd_panel_block_get(&o, id, panel, b);
        for (int i = 0; i < 32; i++)
            for (int r = 0; r < 32; r++)
                out[(b * 32 + i) * 32 + r] = o.d[r] * (float)(o.sc[i / 16][r] * o.q[r][i]) -
                                             o.dmin[r] * (float)o.min[r];
    }
}

#define UNPACK_INT(name, ID)                                                                                 \
    static void unpack_##name(float *out, const void *panel, int64_t k) { unpack_int(HD_PANEL_##ID, out, panel, k); }
SIMPLE_PANELS(UNPACK_INT)
K_PANELS(UNPACK_INT)

static void unpack_f32(float *out, const void *panel, int64_t k) { memcpy(out, panel, (size_t)k * 128); }

static void unpack_f16(float *out, const void *panel, int64_t k)
{
    const uint16_t *w = panel;
    for (int64_t i = 0; i < k * 32; i++) out[i] = hd_f16_to_f32(w[i]);
}

static void unpack_bf16(float *out, const void *panel, int64_t k)
{
    const uint16_t *w = panel;
    for (int64_t i = 0; i < k; i++)
        for (int r = 0; r < 32; r++) out[i * 32 + r] = hd_bf16_to_f32(w[(i / 2 * 32 + r) * 2 + i % 2]);
}

static void unpack_f8(float *out, const void *panel, int64_t k)
{
    const uint8_t *p = panel;
    for (int64_t i = 0; i < k; i++) {
        const uint8_t *g = p + i / 128 * P_F8;
        float scale;
        memcpy(&scale, g, 4);
        for (int r = 0; r < 32; r++)
            out[i * 32 + r] = scale * hd_f8e4m3_to_f32(g[64 + (i % 128 / 2 * 32 + r) * 2 + i % 2]);
    }
}

#define ROW(name, ID, act)    [HD_PANEL_##ID] = {HD_PANEL_##ID, #name, act, bytes_##name, hd_pack_##name, unpack_##name},
#define ROW_SIMPLE(name, ID)  ROW(name, ID, HD_ACT_Q8)
#define ROW_K(name, ID)       ROW(name, ID, HD_ACT_Q8K)
static const hd_panel_kind kinds[HD_N_PANEL] = {
    ROW(f32, F32, HD_ACT_F32) ROW(f16, F16, HD_ACT_F32)
    ROW(bf16, BF16, HD_ACT_BF16) ROW(f8, F8, HD_ACT_BF16)
    SIMPLE_PANELS(ROW_SIMPLE)
    K_PANELS(ROW_K)
    [HD_PANEL_BF12] = {HD_PANEL_BF12, "bf12", HD_ACT_BF16, bytes_bf12, NULL, hd_unpack_bf12},
};

const hd_panel_kind *hd_panel_get(hd_panel_id id)
{
    assert(id >= 0 && id < HD_N_PANEL);
    return &kinds[id];
}

const hd_panel_kind *hd_panel_for(hd_type type, bool *resident)
{
    *resident = true;
    switch (type) {
    case HD_F32: return &kinds[HD_PANEL_F32];
    case HD_F16: return &kinds[HD_PANEL_F16];
    case HD_BF16: return &kinds[HD_PANEL_BF16];
    case HD_F8_E4M3: return &kinds[HD_PANEL_F8];
    case HD_Q8_0: return &kinds[HD_PANEL_Q8_0];
    case HD_Q4_0: return &kinds[HD_PANEL_Q4_0];
    case HD_Q4_1: return &kinds[HD_PANEL_Q4_1];
    case HD_Q5_0: return &kinds[HD_PANEL_Q5_0];
    case HD_Q5_1: return &kinds[HD_PANEL_Q5_1];
    case HD_IQ4_NL: return &kinds[HD_PANEL_IQ4_NL];
    case HD_Q4_K: return &kinds[HD_PANEL_Q4_K];
    case HD_Q5_K: return &kinds[HD_PANEL_Q5_K];
    case HD_Q6_K: return &kinds[HD_PANEL_Q6_K];
    default: *resident = false; return &kinds[HD_PANEL_F32];
    }
}
