/* What this processor's cores could do at most: short loops of nothing but the widest multiply-add of a
 * level, on registers (tiles) alone, so that a product's speed can be told as a share of it.
 *
 * peak_ops(level, bf16, threads) runs them on all threads of a pool and returns operations per second, 0 for
 * a level that has no loop here (plain C, NEON). */
#ifndef HD_BENCH_PEAK_H
#define HD_BENCH_PEAK_H

#include <string.h>

#include "base/pool.h"

enum { PEAK_STEPS = 20000 }; // of one chunk
static const double PEAK_SECONDS = 0.3;

typedef struct {
    double ops; // of one chunk
    void (*loop)(void);
} peak_loop;

static void peak_chunk(void *arg, int64_t c, int tid)
{
    (void)c, (void)tid;
    ((const peak_loop *)arg)->loop();
}

#if defined __x86_64__
#include <immintrin.h>

#define KEEP(x) __asm__ volatile("" : "+v"(x)) // the value is changed, as far as the compiler knows
#define PEAK_LOOP(name, isa, type, zero, step)                                                               \
    __attribute__((target(isa))) static void name(void)                                                      \
    {                                                                                                        \
        type s[10], a = zero, b = zero;                                                                      \
        for (int i = 0; i < 10; i++) s[i] = zero;                                                            \
        KEEP(a);                                                                                             \
        KEEP(b);                                                                                             \
        for (int n = 0; n < PEAK_STEPS; n++) {                                                               \
            _Pragma("GCC unroll 10") for (int i = 0; i < 10; i++) s[i] = step;                               \
        }                                                                                                    \
        for (int i = 0; i < 10; i++) KEEP(s[i]);                                                             \
    }
PEAK_LOOP(peak_fma_256, "avx2,fma", __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(a, b, s[i]))
PEAK_LOOP(peak_fma_512, "avx512f", __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(a, b, s[i]))
PEAK_LOOP(peak_int_512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(s[i], a, b))
PEAK_LOOP(peak_bf16_512, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), _mm512_dpbf16_ps(s[i], (__m512bh)a, (__m512bh)b))
/* Without VNNI: unsigned x signed bytes into pairs, pairs into fours, then the sum. */
PEAK_LOOP(peak_int_256, "avx2", __m256i, _mm256_setzero_si256(),
          _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_maddubs_epi16(s[i], a), b)))

#define PEAK_TILES(name, isa, mul)                                                                           \
    __attribute__((target("amx-tile," isa))) static void name(void)                                          \
    {                                                                                                        \
        struct {                                                                                             \
            uint8_t palette, start, zero[14];                                                                \
            uint16_t bytes[16];                                                                              \
            uint8_t rows[16];                                                                                \
        } c = {.palette = 1};                                                                                \
        for (int i = 0; i < 8; i++) c.rows[i] = 16, c.bytes[i] = 64;                                         \
        __asm__ volatile("" : : "r"(&c) : "memory"); /* the intrinsic reads 64 bytes, gcc 12 believes 8 */   \
        _tile_loadconfig(&c);                                                                                \
        _tile_zero(4);                                                                                       \
        _tile_zero(5);                                                                                       \
        for (int n = 0; n < PEAK_STEPS / 4; n++) {                                                           \
            mul(0, 4, 5);                                                                                    \
            mul(1, 4, 5);                                                                                    \
            mul(2, 4, 5);                                                                                    \
            mul(3, 4, 5);                                                                                    \
        }                                                                                                    \
        _tile_release();                                                                                     \
    }
PEAK_TILES(peak_amx_int, "amx-int8", _tile_dpbssd)
PEAK_TILES(peak_amx_bf16, "amx-bf16", _tile_dpbf16ps)

static bool peak_get(peak_loop *p, const char *level, bool integer)
{
    const double s = PEAK_STEPS;
    if (!strcmp(level, "amx"))
        *p = integer ? (peak_loop){s * 2 * 16 * 16 * 64, peak_amx_int} : (peak_loop){s * 2 * 16 * 16 * 32, peak_amx_bf16};
    else if (!strcmp(level, "zen4") && !integer) *p = (peak_loop){s * 10 * 2 * 32, peak_bf16_512};
    else if (!strcmp(level, "vnni") || !strcmp(level, "bf16") || !strcmp(level, "zen4"))
        *p = integer ? (peak_loop){s * 10 * 2 * 64, peak_int_512} : (peak_loop){s * 10 * 2 * 16, peak_fma_512};
    else if (!strcmp(level, "avx2"))
        *p = integer ? (peak_loop){s * 10 * 2 * 32, peak_int_256} : (peak_loop){s * 10 * 2 * 8, peak_fma_256};
    else return false;
    return true;
}
#else
static bool peak_get(peak_loop *p, const char *level, bool integer) { return (void)p, (void)level, (void)integer, false; }
#endif

static double now(void);

static double peak_ops(const char *level, bool integer, hd_pool *pool)
{
    peak_loop p;
    double best = 0;
    if (!peak_get(&p, level, integer)) return 0;
    for (double start = now(), t = start; t - start < PEAK_SECONDS;) { // long enough to see the cores when nobody else holds one
        int n = hd_pool_threads(pool) * 4;
        t = now();
        hd_pool_run(pool, n, peak_chunk, &p);
        double rate = p.ops * n / (now() - t);
        best = rate > best ? rate : best;
    }
    return best;
}

#endif
