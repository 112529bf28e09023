/* The table of number formats: sizes, names, and what encoding then decoding must keep. */
#include "kernels/format.h"

#include <math.h>

#include "base/rng.h"
#include "test.h"

static void table_is_consistent(void)
{
    int n = 0;
    for (const hd_format *f; (f = hd_format_at(n)); n++) {
        CHECK(hd_format_get((int)f->type) == f, "%s", f->name);
        CHECK(hd_format_named(f->name) == f, "%s", f->name);
        CHECK(f->block > 0 && f->bytes > 0, "%s", f->name);
        CHECK(!f->quant || f->dequant, "%s can be written but not read", f->name);
    }
    CHECK(n >= 36, "%d formats", n);
    CHECK(hd_format_at(-1) == NULL);
    CHECK(hd_format_get(4) == NULL && hd_format_get(-1) == NULL && hd_format_get(1 << 30) == NULL);
    CHECK(hd_format_named("Q4_K") == hd_format_get(HD_Q4_K));
    CHECK(hd_format_named("q4") == NULL && hd_format_named("") == NULL);
}

static void row_bytes_are_checked(void)
{
    const hd_format *f = hd_format_get(HD_Q4_K), *w = hd_format_get(HD_F64);
    size_t n = 7;
    CHECK(hd_format_row_bytes(f, 512, &n) && n == 288);
    CHECK(hd_format_row_bytes(f, 0, &n) && n == 0);
    n = 7;
    CHECK(!hd_format_row_bytes(f, 500, &n) && n == 7);
    CHECK(!hd_format_row_bytes(f, -256, &n) && n == 7);
    CHECK(!hd_format_row_bytes(w, INT64_MAX, &n) && n == 7);
}

/* Largest error of one element, in steps of the format: half a step where the scale spans the block,
 * a step or so where it is fitted for the least square error, which may leave the outermost number
 * beyond the last code. */
static void round_trip_is_close(void)
{
    static const struct { hd_type type; double steps, codes; } rows[] = {
        {HD_F32, 0, 1}, {HD_F16, 0.5, 1024}, {HD_BF16, 0.5, 128}, {HD_Q8_0, 0.6, 127},
        {HD_Q4_0, 1.1, 8}, {HD_Q4_1, 1.1, 7.5}, {HD_Q5_0, 1.1, 16}, {HD_Q5_1, 1.1, 15.5},
    };
    enum { N = 4096 };
    static float x[N], y[N];
    static uint8_t q[N * 4];
    hd_rng r;
    hd_rng_seed(&r, 1, 1);
    for (int i = 0; i < N; i++) x[i] = hd_rng_normal(&r) * (1 + (float)(i / 32));
    for (size_t t = 0; t < sizeof rows / sizeof rows[0]; t++) {
        const hd_format *f = hd_format_get((int)rows[t].type);
        f->quant(q, x, N, NULL);
        f->dequant(y, q, N);
        int bad = 0;
        for (int b = 0; b < N; b += 32) {
            float top = 0, low = 0;
            for (int i = b; i < b + 32; i++) {
                top = x[i] > top ? x[i] : top;
                low = x[i] < low ? x[i] : low;
            }
            double reach = fmax(top, -low), step = reach / rows[t].codes;
            for (int i = b; i < b + 32; i++) bad += fabs(x[i] - y[i]) > rows[t].steps * step;
        }
        CHECK(bad == 0, "%s: %d of %d too far", f->name, bad, N);
    }
}

/* Zeros stay zeros, and no number from outside makes an encoder misbehave (the sanitizers watch). */
static void odd_numbers_are_survived(void)
{
    float x[256], y[256];
    uint8_t q[256 * 8];
    const float odd[] = {0, INFINITY, -INFINITY, NAN, 3e38f, -3e38f, 1e-45f, -1e-40f};
    for (int t = 0; hd_format_at(t); t++) {
        const hd_format *f = hd_format_at(t);
        if (!f->quant) continue;
        memset(x, 0, sizeof x);
        f->quant(q, x, 256, NULL);
        f->dequant(y, q, 256);
        int nonzero = 0;
        for (int i = 0; i < 256; i++) nonzero += y[i] != 0;
        CHECK(nonzero == 0, "%s", f->name);
        for (int i = 0; i < 256; i++) x[i] = odd[(i * 5 + i / 32) % 8];
        f->quant(q, x, 256, NULL);
        f->quant(q, x, 256, x);
        f->dequant(y, q, 256);
        hd_test_passed++;
    }
}

int main(void)
{
    table_is_consistent();
    row_bytes_are_checked();
    round_trip_is_close();
    odd_numbers_are_survived();
    return hd_test_end();
}
