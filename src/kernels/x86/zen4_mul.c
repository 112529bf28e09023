/* Integer products where weights are read fastest into the second-level cache and from far ahead (AMD's from Zen 4 on, measured), but for
 * one row of a lean format, 4 or 5 bits and a plain scale, which is read faster into the first. */
#include "kernels/x86/vnni_int.h"

enum { AHEAD_MANY = 8192, AHEAD_ONE = 3072 };

INLINE void fetch_weights(hd_panel_id id, int rows, const uint8_t *p, int n_bytes)
{
    const bool lean = id != HD_PANEL_Q8_0 && id != HD_PANEL_Q4_K && id != HD_PANEL_Q5_K && id != HD_PANEL_Q6_K;
    if (rows == 1 && lean) fetch(p + AHEAD, n_bytes);
    else fetch_2(p + (rows == 1 ? AHEAD_ONE : AHEAD_MANY), n_bytes);
}
#include "kernels/x86/int_body.h"

void hd_fill_mul_zen4(hd_kernels *k) { SIMPLE_PANELS(MUL_FILL) K_PANELS(MUL_FILL) }
