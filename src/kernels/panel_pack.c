/* Packing: 32 rows of a file into one panel (panel.h draws it).  Runs once per weight at load, or just in
 * time when the file's pages are kept, so it works on 4 bytes (a quad) at a time.
 *
 * The formats' blocks are ggml's (GGUF); each function names the fields it reads.  All of them store 16 or 32
 * quants as nibbles of consecutive bytes: low nibbles first half, high nibbles second half. */
#include "base/num.h"
#include "kernels/panel.h"

#define M4 0x0f0f0f0fu

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static void put32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static void put16(uint8_t *p, const uint8_t *from) { memcpy(p, from, 2); }

/* Rows of this panel that exist; the rest of the panel is zeroed first. */
static int rows_of(uint8_t *panel, size_t n_bytes, const hd_rows *src, int64_t row0)
{
    int64_t n = src->n - row0;
    if (n >= 32) return 32;
    memset(panel, 0, n_bytes);
    return n < 0 ? 0 : (int)n;
}

static const uint8_t *row(const hd_rows *src, int64_t r) { return src->data + (size_t)r * src->row_bytes; }

/* ---- Floats -------------------------------------------------------------------------------------------- */

static void pack_decoded(float *w, const hd_rows *src, int64_t row0, int n_rows)
{
    const hd_format *f = hd_format_get(src->type);
    float tmp[256];
    for (int r = 0; r < n_rows; r++) {
        const uint8_t *p = row(src, row0 + r);
        for (int64_t k0 = 0; k0 < src->k; k0 += 256) { // every block length divides 256
            int n = src->k - k0 < 256 ? (int)(src->k - k0) : 256;
            f->dequant(tmp, p + (size_t)(k0 / f->block) * (size_t)f->bytes, n);
            for (int i = 0; i < n; i++) w[(k0 + i) * 32 + r] = tmp[i];
        }
    }
}

void hd_pack_f32(void *panel, const hd_rows *src, int64_t row0)
{
    float *w = panel;
    int n = rows_of(panel, (size_t)src->k * 128, src, row0);
    if (src->type != HD_F32) {
        pack_decoded(w, src, row0, n);
        return;
    }
    for (int64_t k0 = 0; k0 < src->k; k0 += 16) // 16 columns of 32 rows: whole cache lines on both sides
        for (int r = 0; r < n; r++) {
            const uint8_t *p = row(src, row0 + r);
            for (int64_t i = k0; i < src->k && i < k0 + 16; i++) memcpy(&w[i * 32 + r], p + i * 4, 4);
        }
}

void hd_pack_f16(void *panel, const hd_rows *src, int64_t row0)
{
    uint16_t *w = panel;
    int n = rows_of(panel, (size_t)src->k * 64, src, row0);
    for (int64_t k0 = 0; k0 < src->k; k0 += 32)
        for (int r = 0; r < n; r++) {
            const uint8_t *p = row(src, row0 + r);
            for (int64_t i = k0; i < src->k && i < k0 + 32; i++) memcpy(&w[i * 32 + r], p + i * 2, 2);
        }
}

void hd_pack_bf16(void *panel, const hd_rows *src, int64_t row0)
{
    uint8_t *w = panel;
    int64_t kp = (src->k + 63) / 64 * 64, even = src->k / 2 * 2;
    int n = rows_of(panel, (size_t)kp * 64, src, row0);
    memset(w + (size_t)even * 64, 0, (size_t)(kp - even) * 64);
    for (int64_t k0 = 0; k0 < src->k; k0 += 32)
        for (int r = 0; r < n; r++) {
            const uint8_t *p = row(src, row0 + r);
            int64_t i = k0;
            for (; i < even && i < k0 + 32; i += 2) put32(w + (i / 2 * 32 + r) * 4, get32(p + i * 2));
            if (i < src->k && i < k0 + 32) put16(w + (i / 2 * 32 + r) * 4, p + i * 2);
        }
}

/* All 32 rows lie in one band of 128 rows, so they share a scale per 128 columns (DeepSeek-V3,
 * arXiv:2412.19437). */
void hd_pack_f8(void *panel, const hd_rows *src, int64_t row0)
{
    uint8_t *w = panel;
    int64_t kp = (src->k + 63) / 64 * 64, groups = (src->k + 127) / 128, n_bytes = groups * 64 + kp * 32;
    int n = rows_of(panel, (size_t)n_bytes, src, row0);
    for (int64_t g = 0; g < groups; g++) {
        uint8_t *o = w + g * P_F8;
        int64_t k0 = g * 128, left = src->k - k0, m = left < 128 ? left : 128;
        memset(o, 0, 64);
        if (n > 0) memcpy(o, &src->f8_scale[row0 / 128 * src->f8_scale_ld + g], 4);
        if (m < 128) memset(o + 64, 0, (size_t)((m + 63) / 64 * 64) * 32);
        for (int r = 0; r < n; r++) {
            const uint8_t *p = row(src, row0 + r) + k0;
            for (int64_t i = 0; i < m; i++) o[64 + (i / 2 * 32 + r) * 2 + i % 2] = p[i];
        }
    }
}

/* ---- One scale per block of 32 ------------------------------------------------------------------------- */

/* 8 quads (one nibble per byte) of one row into `low`. */
static void put_low(uint8_t *low, int r, const uint32_t q[8])
{
    for (int j = 0; j < 4; j++) put32(low + (j * 32 + r) * 4, q[2 * j] | q[2 * j + 1] << 4);
}

/* Nibbles of 16 bytes: low ones are elements 0..15, high ones 16..31. */
static void get_nibbles(uint32_t q[8], const uint8_t *p)
{
    for (int j = 0; j < 4; j++) {
        uint32_t v = get32(p + 4 * j);
        q[j] = v & M4;
        q[j + 4] = v >> 4 & M4;
    }
}

/* Bit i of h is element i's: spread to bit j of byte (r, e), i = 4j + e.
 * The 4 bits of a quad go to 4 bytes by a multiplication (bit e lands at 8e: shifts 0, 7, 14, 21
 * do not overlap). */
static void put_bit5(uint8_t *bit5, int r, uint32_t h)
{
    uint32_t v = 0;
    for (int j = 0; j < 8; j++) v |= ((h >> 4 * j & 15) * 0x204081u & 0x01010101u) << j;
    put32(bit5 + r * 4, v);
}

/* head: the f16 numbers in front of a file's block; each becomes a line of 32. */
static void pack_nibbles(uint8_t *w, const hd_rows *src, int64_t row0, int heads, bool five)
{
    int bytes = heads * 2 + (five ? 4 : 0) + 16, out = heads * P_F16 + P_LOW + (five ? P_BIT5 : 0);
    int64_t nb = src->k / 32;
    int n = rows_of(w, (size_t)(nb * out), src, row0);
    for (int r = 0; r < n; r++) {
        const uint8_t *p = row(src, row0 + r);
        uint8_t *o = w;
        for (int64_t b = 0; b < nb; b++, p += bytes, o += out) {
            uint32_t q[8];
            for (int h = 0; h < heads; h++) put16(o + h * P_F16 + 2 * r, p + 2 * h);
            get_nibbles(q, p + bytes - 16);
            put_low(o + heads * P_F16, r, q);
            if (five) put_bit5(o + heads * P_F16 + P_LOW, r, get32(p + heads * 2));
        }
    }
}

/* d, qs[16] */
void hd_pack_q4_0(void *panel, const hd_rows *src, int64_t row0) { pack_nibbles(panel, src, row0, 1, false); }
void hd_pack_iq4_nl(void *panel, const hd_rows *src, int64_t row0) { pack_nibbles(panel, src, row0, 1, false); }
/* d, m, qs[16] */
void hd_pack_q4_1(void *panel, const hd_rows *src, int64_t row0) { pack_nibbles(panel, src, row0, 2, false); }
/* d, qh (32 bits), qs[16] */
void hd_pack_q5_0(void *panel, const hd_rows *src, int64_t row0) { pack_nibbles(panel, src, row0, 1, true); }
/* d, m, qh, qs[16] */
void hd_pack_q5_1(void *panel, const hd_rows *src, int64_t row0) { pack_nibbles(panel, src, row0, 2, true); }

/* d, qs[32] signed */
void hd_pack_q8_0(void *panel, const hd_rows *src, int64_t row0)
{
    uint8_t *w = panel;
    int64_t nb = src->k / 32;
    int n = rows_of(panel, (size_t)nb * P_Q8_0, src, row0);
    for (int r = 0; r < n; r++) {
        const uint8_t *p = row(src, row0 + r);
        uint8_t *o = w;
        for (int64_t b = 0; b < nb; b++, p += 34, o += P_Q8_0) {
            put16(o + 2 * r, p);
            for (int j = 0; j < 8; j++)
                put32(o + P_F16 + (j * 32 + r) * 4, get32(p + 2 + 4 * j) ^ 0x80808080u); // + 128
        }
    }
}

/* ---- K formats: 256 with 8 or 16 small integer scales -------------------------------------------------- */

/* 12 bytes hold 8 scales and 8 minima of 6 bits: the first four whole in bytes 0..3 and 4..7, the last four
 * as nibbles in bytes 8..11, their upper two bits above those of the first eight. */
static void get_scales(uint8_t sc[8], uint8_t mn[8], const uint8_t *s)
{
    for (int i = 0; i < 4; i++) {
        sc[i] = s[i] & 63;
        mn[i] = s[i + 4] & 63;
        sc[i + 4] = (uint8_t)((s[i + 8] & 15) | s[i] >> 6 << 4);
        mn[i + 4] = (uint8_t)(s[i + 8] >> 4 | s[i + 4] >> 6 << 4);
    }
}

/* d, dmin, scales[12], (q5_K: qh[32],) qs[128]: 32 bytes of qs hold block 2c (low nibbles) and 2c+1 (high);
 * bit b of qh[i] belongs to element i of block b. */
static void pack_q45_k(uint8_t *w, const hd_rows *src, int64_t row0, bool five)
{
    int bytes = five ? 176 : 144, pair = five ? P_Q5_K_PAIR : P_Q4_K_PAIR, out = five ? P_Q5_K : P_Q4_K;
    int64_t ns = src->k / 256;
    int n = rows_of(w, (size_t)(ns * out), src, row0);
    for (int r = 0; r < n; r++) {
        const uint8_t *p = row(src, row0 + r);
        uint8_t *o = w;
        for (int64_t s = 0; s < ns; s++, p += bytes, o += out) {
            const uint8_t *qs = p + bytes - 128, *qh = p + 16;
            uint8_t sc[8], mn[8];
            put16(o + 2 * r, p);
            put16(o + P_F16 + 2 * r, p + 2);
            get_scales(sc, mn, p + 4);
            for (int b = 0; b < 8; b++) {
                uint8_t *op = o + 2 * P_F16 + b / 2 * pair, *low = op + 128 + (b & 1) * (pair - 128) / 2;
                uint32_t q[8], h = 0;
                op[(b & 1) * 32 + r] = sc[b];
                op[64 + 2 * r + (b & 1)] = mn[b];
                for (int j = 0; j < 8; j++) {
                    q[j] = get32(qs + b / 2 * 32 + 4 * j) >> (b & 1) * 4 & M4;
                    if (five) h |= (get32(qh + 4 * j) >> b & 0x01010101u) << j;
                }
                put_low(low, r, q);
                if (five) put32(low + P_LOW + r * 4, h);
            }
        }
    }
}

void hd_pack_q4_k(void *panel, const hd_rows *src, int64_t row0) { pack_q45_k(panel, src, row0, false); }
void hd_pack_q5_k(void *panel, const hd_rows *src, int64_t row0) { pack_q45_k(panel, src, row0, true); }

/* ql[128], qh[64], scales[16] signed, d.  Half h of 128: blocks 0..3 take, from 64 bytes of ql, the low
 * nibbles of the first 32, of the last 32, then the high nibbles; and bits 2b of 32 bytes of qh. */
void hd_pack_q6_k(void *panel, const hd_rows *src, int64_t row0)
{
    uint8_t *w = panel;
    int64_t ns = src->k / 256;
    int n = rows_of(panel, (size_t)ns * P_Q6_K, src, row0);
    for (int r = 0; r < n; r++) {
        const uint8_t *p = row(src, row0 + r);
        uint8_t *o = w;
        for (int64_t s = 0; s < ns; s++, p += 210, o += P_Q6_K) {
            put16(o + 2 * r, p + 208);
            for (int b = 0; b < 8; b++) {
                uint8_t *ob = o + P_F16 + b * P_Q6_K_BLOCK, *low = ob + 64;
                const uint8_t *ql = p + b / 4 * 64 + (b & 1) * 32, *qh = p + 128 + b / 4 * 32;
                uint32_t q[8], h[2] = {0, 0};
                ob[r] = p[192 + 2 * b];
                ob[32 + r] = p[193 + 2 * b];
                for (int j = 0; j < 8; j++) {
                    q[j] = get32(ql + 4 * j) >> (b & 2) * 2 & M4;
                    h[j / 4] |= (get32(qh + 4 * j) >> b % 4 * 2 & 0x03030303u) << j % 4 * 2;
                }
                put_low(low, r, q);
                put32(low + P_LOW + r * 4, h[0]);
                put32(low + P_LOW + (32 + r) * 4, h[1]);
            }
        }
    }
}
