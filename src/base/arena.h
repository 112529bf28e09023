/* An arena: memory of one lifetime.  Sized from a plan, allocated once, reset as a whole; nothing in it
 * is freed singly. */
#ifndef HD_BASE_ARENA_H
#define HD_BASE_ARENA_H

#include "base/mem.h"

typedef struct {
    uint8_t *base;
    size_t used, cap, peak;
    const char *name; // for messages: "work", "cache"
} hd_arena;

/* _reserve: by hd_reserve_aligned. */
hd_status hd_arena_open(hd_arena *a, const char *name, size_t cap_bytes, hd_err *err);
hd_status hd_arena_reserve(hd_arena *a, const char *name, size_t cap_bytes, hd_err *err);
void hd_arena_close(hd_arena *a);
/* 64-byte aligned, not zeroed; NULL when the plan was too small (a bug in the plan: callers assert). */
void *hd_arena_take(hd_arena *a, size_t n_bytes);
/* The last n_bytes, a multiple of 64, of what was taken last are free again. */
static inline void hd_arena_give(hd_arena *a, size_t n_bytes) { a->used -= n_bytes; }
static inline void hd_arena_reset(hd_arena *a) { a->used = 0; }

#endif
