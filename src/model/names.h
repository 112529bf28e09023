/* Names from files: refused when they could harm a terminal, and found again by hash. */
#ifndef HD_MODEL_NAMES_H
#define HD_MODEL_NAMES_H

#include "base/mem.h"

/* Printable ASCII of 1..max bytes?  Keys and tensor names are; anything else is an attack or damage. */
bool hd_name_ok(const char *p, size_t n, size_t max);
/* Any bytes as something fit for a message: at most cap-1 characters, others than printable ASCII as '?'. */
const char *hd_name_show(char *out, size_t cap, const char *p, size_t n);

/* Name -> id.  Open addressing, at most half full; SipHash with a random key (Aumasson and Bernstein 2012),
 * so that a file full of chosen names costs no more than an honest one.  Names are borrowed. */
typedef struct {
    const char *p;
    size_t n;
    int64_t id;
} hd_name_slot;

typedef struct {
    hd_name_slot *slot;
    size_t mask; // slots - 1, a power of two less one; 0 slots before init
    uint8_t key[16];
} hd_names;

hd_status hd_names_init(hd_names *t, size_t n_max, hd_err *err); // room for n_max names
void hd_names_free(hd_names *t);
bool hd_names_add(hd_names *t, const char *p, size_t n, int64_t id); // false: the name is there already
int64_t hd_names_find(const hd_names *t, const char *p, size_t n);   // -1: absent

#endif
