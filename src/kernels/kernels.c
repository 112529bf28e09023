/* Levels: what this machine can run, and the table of leaf functions for each.
 *
 * Each level inherits the one below it in the list and replaces what it does better; the tables are built
 * once, on the first call, and never change afterwards. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "kernels/level.h"

#if defined __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { F_AVX2 = 1, F_VNNI = 2, F_BF16 = 4, F_AMX = 8, F_FAST_BF16 = 16 };

static bool all(unsigned have, unsigned want) { return (have & want) == want; }

/* Linux hands out the 8 KB of tile state only to processes that ask (arch_prctl(2),
 * Documentation/arch/x86/xstate). */
static bool tiles_granted(void)
{
    enum { REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA) == 0;
}

/* CPUID says what the processor has, XCR0 which registers the kernel saves. */
static unsigned cpu_features(void)
{
    unsigned a, b, c, d, b7, c7, d7, a71 = 0, have = 0, lo, hi;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !all(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C)) return 0;
    __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    if (!all(lo, 6) || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return 0;
    if (a >= 1) __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    if (!all(b7, bit_AVX2 | bit_BMI2)) return 0;
    have |= F_AVX2;
    unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    if (!all(lo, 0xe6) || !all(b7, avx512) || !all(c7, bit_AVX512VNNI | bit_AVX512VBMI)) return have;
    have |= F_VNNI;
    if (!(a71 & 1u << 5)) return have; // AVX512_BF16
    have |= F_BF16;
    if (__get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx) have |= F_FAST_BF16;
    if (all(d7, 1u << 24 | 1u << 25 | 1u << 22) && all(lo, 3u << 17) && tiles_granted()) have |= F_AMX;
    return have;
}
#elif defined __aarch64__
#include <sys/auxv.h>

enum { F_DOTPROD = 1 };

/* HWCAP_ASIMDDP, bit 20 of the word (Documentation/arch/arm64/elf_hwcaps). */
static unsigned cpu_features(void) { return getauxval(AT_HWCAP) >> 20 & 1 ? F_DOTPROD : 0; }
#else
static unsigned cpu_features(void) { return 0; }
#endif

typedef void fill_fn(hd_kernels *k);

/* In order: each inherits the entries of the one before. */
static const struct {
    const char *name;
    unsigned needs, suits; // without the latter it runs, but only when it is asked for: such processors are no faster so
    fill_fn *fill[9];      // ends with NULL
} levels[] = {
    {"ref", 0, 0, {hd_fill_mul_ref, hd_fill_rows_ref, hd_fill_optim_ref, hd_fill_attn_ref, hd_fill_back_ref}},
#if defined __x86_64__
    {"avx2", F_AVX2, 0, {hd_fill_act_avx2, hd_fill_mul_avx2, hd_fill_float_avx2, hd_fill_bf12_avx2, hd_fill_rows_avx2, hd_fill_optim_avx2,
                      hd_fill_attn_avx2, hd_fill_back_avx2}},
    {"vnni", F_VNNI, 0, {hd_fill_act_vnni, hd_fill_mul_vnni, hd_fill_float_vnni, hd_fill_bf12_vnni, hd_fill_rows_vnni, hd_fill_optim_vnni,
                      hd_fill_attn_vnni, hd_fill_back_vnni}},
    {"bf16", F_BF16, 0, {hd_fill_attn_bf16}},
    {"zen4", F_BF16, F_FAST_BF16, {hd_fill_act_zen4, hd_fill_mul_zen4, hd_fill_float_zen4, hd_fill_back_zen4}},
    {"amx", F_AMX, 0, {hd_fill_mul_amx, hd_fill_float_amx, hd_fill_attn_amx, hd_fill_back_vnni}},
#elif defined __aarch64__
    {"neon", 0, 0, {hd_fill_act_neon, hd_fill_float_neon, hd_fill_bf12_neon, hd_fill_rows_neon, hd_fill_attn_neon, hd_fill_back_neon}},
    {"dotprod", F_DOTPROD, 0, {hd_fill_mul_dotprod}},
#endif
};
enum { N_LEVELS = sizeof levels / sizeof *levels };

static hd_kernels tables[N_LEVELS];
static int n_tables, usual; // the one that is chosen where nobody names one
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void build(void)
{
    unsigned have = cpu_features();
    hd_kernels t = {0};
    for (int i = 0; i < N_LEVELS; i++) {
        if ((have & levels[i].needs) != levels[i].needs) break;
        t.level = levels[i].name;
        for (fill_fn *const *f = levels[i].fill; *f; f++) (*f)(&t);
        if ((have & levels[i].suits) == levels[i].suits) usual = n_tables;
        tables[n_tables++] = t;
    }
}

const hd_kernels *hd_kernels_at(int i)
{
    pthread_once(&once, build);
    return i >= 0 && i < n_tables ? &tables[i] : NULL;
}

hd_status hd_kernels_get(const hd_kernels **out, hd_err *err)
{
    const char *want = getenv("HADAL_CPU");
    const hd_kernels *k;
    char names[128] = "";
    size_t used = 0;
    for (int i = 0; (k = hd_kernels_at(i)); i++) {
        const bool found = want && *want ? !strcasecmp(k->level, want) : i == usual;
        if (found) {
            *out = k;
            return HD_OK;
        }
        used += (size_t)snprintf(names + used, sizeof names - used, " %s", k->level);
    }
    return hd_fail(err, HD_USAGE, "HADAL_CPU=%.32s: this machine cannot run it: it can run%s", want, names);
}
