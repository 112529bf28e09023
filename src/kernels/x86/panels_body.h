/* From a product of one panel's part to products of several panels that share rows, included by the levels
 * that cut k.  Private to src/kernels/x86.
 *
 * Rows pass MOST_M at a time, which stay in the second-level cache, and of these up to PART_K of k, in equal
 * parts, so that a panel's part stays in the first.  An output's running sum waits in y between the parts, so
 * its order is that of k however it is cut.  One row is a stream through one panel after the other, fetched
 * ONE_AHEAD bytes ahead.  Before including, a level defines PART_K, ONE_AHEAD and
 *
 *   static const uint8_t *bring_rows(int rows, const uint8_t *act, size_t *stride, int64_t n, void *scratch)
 *
 * n numbers of rows that are `*stride` bytes apart, as the level's products want them: where they are, or in
 * scratch with a stride of their own. */
enum { MOST_M = 128, FEW = 16 };

/* nk of k of one panel, from `at` on; `next` is fetched meanwhile. */
typedef void block_fn(const uint8_t *at, const uint8_t *next, int64_t nk, const uint8_t *act, size_t stride, int rows, float *y, int64_t ldy,
                      bool add, void *scratch);

typedef struct {
    block_fn *mul;
    int64_t unit, bytes; // of k, and what they take in a panel
    int64_t pad;         // k is a multiple of this, in the panel and in the blob: behind it there are zeros
    int64_t few_k;       // instead of PART_K for up to FEW rows, where their panel is met once; or 0
    int64_t few_ahead;   // for up to half of these, bytes to fetch ahead instead of the next panel's part; or 0
} panel_form;

INLINE void mul_panels(const panel_form *form, const void *panels, size_t step, int n, int64_t k, const uint8_t *act, size_t stride, int M,
                       float *y, int64_t ldy, bool add, void *scratch, const void *then)
{
    const int64_t most = M <= FEW && form->few_k ? form->few_k : PART_K, parts = (k + most - 1) / most;
    const int64_t ahead = M == 1 ? ONE_AHEAD : M <= FEW / 2 ? form->few_ahead : 0;
    const int64_t part = ((k + parts - 1) / parts + form->unit - 1) / form->unit * form->unit;
    const uint8_t *block = panels;
    for (int m0 = 0; m0 < M; m0 += MOST_M, act += MOST_M * stride, y += MOST_M * ldy, block = panels) {
        const int rows = M - m0 < MOST_M ? M - m0 : MOST_M;
        for (int64_t k0 = 0; k0 < k; k0 += part) {
            const int64_t nk = k - k0 < part ? (k - k0 + form->pad - 1) / form->pad * form->pad : part;
            const uint8_t *at = block;
            size_t apart = stride;
            block += (nk + form->unit - 1) / form->unit * form->bytes;
            const uint8_t *x = bring_rows(rows, act + k0 * 2, &apart, nk, scratch);
            for (int p = 0; p < n; p++, at += step) {
                const uint8_t *next = ahead ? at + ahead : p + 1 < n ? at + step : k0 + part < k || !then ? block : then;
                form->mul(at, next, nk, x, apart, rows, y + HD_PANEL_ROWS * p, ldy, add || k0 > 0, scratch);
            }
        }
    }
}

/* mul_panels_NAME, by block_NAME and the rest of its form. */
#define MUL_PANELS(name, ...)                                                                                               \
    static void mul_panels_##name(const void *panels, size_t step, int n, int64_t k, const uint8_t *act, size_t stride, int M,\
                                  float *y, int64_t ldy, bool add, void *scratch, const void *then)                         \
    {                                                                                                                       \
        static const panel_form form = {block_##name, __VA_ARGS__};                                                         \
        mul_panels(&form, panels, step, n, k, act, stride, M, y, ldy, add, scratch, then);                                  \
    }

/* mul_one_NAME, of one panel, and both in a level's table k. */
#define MUL_ONE(name)                                                                                                       \
    static void mul_one_##name(MUL_PARAMS) { mul_panels_##name(panel, 0, 1, k, act, stride, M, y, ldy, false, scratch, NULL); }
#define FILL_PANELS(name, ID)                                                                                               \
    k->panel_mul[HD_PANEL_##ID] = mul_one_##name;                                                                           \
    k->panels_mul[HD_PANEL_##ID] = mul_panels_##name;
