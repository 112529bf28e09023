/* Encoders: how near do they come?  Numbers like a weight matrix: normal, with a width of its
 * own for every 16.
 *
 * The limits are what ggml's own encoders reach on these very numbers (ggml_quantize_chunk of ggml 0.25.3, a
 * row a call; square root of mean square error over mean square, without and with importance weights drawn as
 * exp(1.2 normal)): hadal has to be no worse. */
#include "kernels/format.h"

#include <math.h>

#include "base/rng.h"
#include "test.h"

enum { ROWS = 32, K = 4096 };

static const struct { hd_type type; double plain, weighted; } limit[] = {
    {HD_Q8_0, 0.00598, 0.00601}, {HD_Q4_0, 0.09515, 0.08564}, {HD_Q4_1, 0.08507, 0.06700}, {HD_Q5_0, 0.04740, 0.04277},
    {HD_Q5_1, 0.04115, 0.03265}, {HD_Q2_K, 0.30037, 0.23355}, {HD_Q3_K, 0.15197, 0.13246}, {HD_Q4_K, 0.07841, 0.06887},
    {HD_Q5_K, 0.03956, 0.03586}, {HD_Q6_K, 0.01793, 0.01602},
};

static double relative_rmse(const hd_format *f, const float *x, const float *importance)
{
    static uint8_t q[K * 4];
    static float y[K];
    double error = 0, size = 0;
    for (int r = 0; r < ROWS; r++, x += K) {
        const float *weight = importance ? importance + r * K : NULL;
        f->quant(q, x, K, weight);
        f->dequant(y, q, K);
        for (int i = 0; i < K; i++) {
            double w = weight ? weight[i] : 1, e = (double)y[i] - x[i];
            error += w * e * e;
            size += w * x[i] * x[i];
        }
    }
    return sqrt(error / size);
}

int main(void)
{
    static float x[ROWS * K], importance[ROWS * K];
    hd_rng r;
    hd_rng_seed(&r, 7, 7);
    for (int i = 0; i < ROWS * K; i += 16) {
        float width = expf(0.5f * hd_rng_normal(&r));
        for (int j = 0; j < 16; j++) x[i + j] = width * hd_rng_normal(&r);
    }
    for (int i = 0; i < ROWS * K; i++) importance[i] = expf(1.2f * hd_rng_normal(&r));

    for (size_t t = 0; t < sizeof limit / sizeof limit[0]; t++) {
        const hd_format *f = hd_format_get((int)limit[t].type);
        double plain = relative_rmse(f, x, NULL), weighted = relative_rmse(f, x, importance);
        CHECK(plain <= limit[t].plain, "%s: error %.5f, limit %.5f", f->name, plain, limit[t].plain);
        CHECK(weighted <= limit[t].weighted, "%s: weighted error %.5f, limit %.5f", f->name, weighted, limit[t].weighted);
    }
    for (int t = 0; hd_format_at(t); t++) {
        const hd_format *f = hd_format_at(t);
        bool listed = f->block == 1;
        for (size_t i = 0; i < sizeof limit / sizeof limit[0]; i++) listed |= limit[i].type == f->type;
        CHECK(listed || !f->quant, "%s has an encoder and no limit here", f->name);
    }
    return hd_test_end();
}
