/* From the loop over one tile to a product: what the levels' files of products share.
 * Private to src/kernels.
 *
 * A tile is one panel (attention's: one or four) by a few rows, as many as the registers hold sums for.  A level writes
 * the loop of a tile once, as an INLINE function of the number of rows; MUL makes a function of it for each
 * number up to `most`, and a product that cuts its M rows into tiles of nearly equal height.  An output's sum
 * has one order whatever the tile (promise 2 of doc/tour.md), so the cut is free. */
#ifndef HD_KERNELS_TILE_H
#define HD_KERNELS_TILE_H

#include "kernels/inline.h"
#include "kernels/panel.h"

typedef struct {
    const uint8_t *w, *act; // the panel; the first row's blob
    const uint8_t *next;    // weights to fetch meanwhile, where a level does so, else NULL
    int64_t k;
    size_t stride; // of act
    float *y;
    int64_t ldy;
    bool add;       // to what stands in y, where a level cuts k
    int64_t panels; // bytes from one panel to the next, where a tile takes several
} tile;

#define AT(p, m) ((const void *)((const uint8_t *)(p) + (size_t)(m) * t->stride)) // the same place in row m

typedef void tile_fn(const tile *t);

/* All M rows of a product, of which t is the first tile; it is left anywhere. */
static inline void run_tiles(tile_fn *const *fn, int most, tile *t, int M)
{
    const int n = (M + most - 1) / most;
    const uint8_t *act = t->act;
    float *y = t->y;
    for (int i = 0, m = 0; i < n; i++) {
        const int end = (int)((int64_t)M * (i + 1) / n);
        t->act = act + (size_t)m * t->stride;
        t->y = y + m * t->ldy;
        fn[end - m](t);
        m = end;
    }
}

/* mul_NAME, a product; `call` is the loop of a tile `t` with `rows` rows. */
#define MUL(name, most, call)                                                                                  \
    TILES(name, most, call)                                                                                  \
    static void mul_##name(MUL_PARAMS)                                                                       \
    {                                                                                                        \
        (void)scratch;                                                                                       \
        run_tiles(name##_tiles, most, &(tile){panel, act, NULL, k, stride, y, ldy, .add = false}, M);       \
    }

/* name_tiles, the loops of up to `most` rows; `most` may be a macro. */
#define TILES(name, most, call)    TILES_OF(name, most, call)
#define TILES_OF(name, most, call) TILES_##most(name, call)

#define TILE(name, n, call)                                                                                  \
    static void name##_##n(const tile *t)                                                                    \
    {                                                                                                        \
        enum { rows = n };                                                                                   \
        call;                                                                                                \
    }
#define TILES_2(name, call)                                                                                  \
    TILE(name, 1, call) TILE(name, 2, call)                                                                  \
    static tile_fn *const name##_tiles[] = {NULL, name##_1, name##_2};
#define TILES_4(name, call)                                                                                  \
    TILE(name, 1, call) TILE(name, 2, call) TILE(name, 3, call) TILE(name, 4, call)                          \
    static tile_fn *const name##_tiles[] = {NULL, name##_1, name##_2, name##_3, name##_4};
#define TILES_5(name, call)                                                                                  \
    TILE(name, 1, call) TILE(name, 2, call) TILE(name, 3, call) TILE(name, 4, call) TILE(name, 5, call)      \
    static tile_fn *const name##_tiles[] = {NULL, name##_1, name##_2, name##_3, name##_4, name##_5};
#define TILES_6(name, call)                                                                                  \
    TILE(name, 1, call) TILE(name, 2, call) TILE(name, 3, call) TILE(name, 4, call) TILE(name, 5, call) TILE(name, 6, call) \
    static tile_fn *const name##_tiles[] = {NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6};
#define TILES_7(name, call)                                                                                  \
    TILE(name, 1, call) TILE(name, 2, call) TILE(name, 3, call) TILE(name, 4, call) TILE(name, 5, call) TILE(name, 6, call) \
    TILE(name, 7, call)                                                                                      \
    static tile_fn *const name##_tiles[] = {NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6, name##_7};
#define UP_TO_8(name, call)                                                                                  \
    TILE(name, 1, call) TILE(name, 2, call) TILE(name, 3, call) TILE(name, 4, call)                          \
    TILE(name, 5, call) TILE(name, 6, call) TILE(name, 7, call) TILE(name, 8, call)
#define TABLE_8(name) NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6, name##_7, name##_8
#define TILES_8(name, call)                                                                                  \
    UP_TO_8(name, call)                                                                                      \
    static tile_fn *const name##_tiles[] = {TABLE_8(name)};
#define TILES_16(name, call)                                                                                 \
    UP_TO_8(name, call)                                                                                      \
    TILE(name, 9, call) TILE(name, 10, call) TILE(name, 11, call) TILE(name, 12, call)                       \
    TILE(name, 13, call) TILE(name, 14, call) TILE(name, 15, call) TILE(name, 16, call)                      \
    static tile_fn *const name##_tiles[] = {TABLE_8(name), name##_9,  name##_10, name##_11, name##_12,       \
                                            name##_13,     name##_14, name##_15, name##_16};

#endif
