/* Integer products with AVX-512 VNNI; the loops are in int_body.h. */
#include "kernels/x86/vnni_int.h"

INLINE void fetch_weights(hd_panel_id id, int rows, const uint8_t *p, int n_bytes)
{
    (void)id, (void)rows;
    fetch(p + AHEAD, n_bytes);
}
#include "kernels/x86/int_body.h"

#define ENTRY(name, ID) [HD_PANEL_##ID] = mul_##name,
hd_panel_mul_fn *const hd_vnni_mul[HD_N_PANEL] = {SIMPLE_PANELS(ENTRY) K_PANELS(ENTRY)};

void hd_fill_mul_vnni(hd_kernels *k) { SIMPLE_PANELS(MUL_FILL) K_PANELS(MUL_FILL) }
