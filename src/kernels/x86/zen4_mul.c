/* Integer products where the hardware's own prefetcher keeps up with a core that reads line after line, and
 * loses its way where lines are read as the sums need them (AMD's from Zen 4 on, measured).  So a block's
 * lines are touched in order before it is multiplied, while one or two rows leave the core waiting for memory;
 * with more rows weights are fetched into the second-level cache, from far ahead. */
#include "kernels/x86/vnni_int.h"

enum { FAR = 8192 };

INLINE void fetch_weights(hd_panel_id id, int rows, const uint8_t *p, int n_bytes)
{
    if (rows > 2) {
        UNROLL for (int i = 0; i < n_bytes; i += 64) _mm_prefetch((const char *)p + FAR + i, _MM_HINT_T1);
        return;
    }
    UNROLL for (int i = 0; i < n_bytes; i += 64) (void)*(const volatile uint8_t *)(p + i);
}
#include "kernels/x86/int_body.h"

void hd_fill_mul_zen4(hd_kernels *k) { SIMPLE_PANELS(MUL_FILL) K_PANELS(MUL_FILL) }
