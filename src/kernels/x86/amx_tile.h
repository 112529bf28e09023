/* The tiles' shape, for the amx products.  Tiles 0-3 are sums, 4 and 5 activations [rows][a_bytes], 6 and 7
 * weights [a_bytes/4][64]. */
#ifndef HD_KERNELS_X86_AMX_TILE_H
#define HD_KERNELS_X86_AMX_TILE_H

#include "kernels/x86/vnni_int.h"

enum {
    TILE_ROWS = 16,
    MOST_ROWS = 512, // rows of one pass over a panel
};

typedef struct {
    uint8_t palette, start_row, zero[14];
    uint16_t colsb[16];
    uint8_t rows[16];
} tile_config; // LDTILECFG, Intel SDM volume 1, 18.2

static inline void tiles_open(int rows, int a_bytes)
{
    tile_config c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        c.rows[i] = (uint8_t)(i < 6 ? rows : a_bytes / 4);
        c.colsb[i] = (uint16_t)(i == 4 || i == 5 ? a_bytes : 64);
    }
    __asm__ volatile("" : : "r"(&c) : "memory"); // the intrinsic reads 64 bytes, gcc 12 believes 8
    _tile_loadconfig(&c);
}

#endif
