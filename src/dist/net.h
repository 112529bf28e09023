/* What a module that joins ranks gives: messages between pairs of ranks, nothing else.  Sums, their order and
 * the cutting into pieces are comm.c's, so they do not depend on the network.  The module includes this
 * header alone and links nothing of hadal. */
#ifndef HD_DIST_NET_H
#define HD_DIST_NET_H

#include <stddef.h>

enum { HD_NET_VERSION = 1, HD_NET_SLOTS = 2, HD_NET_WHY = 256 };

/* Between this rank and another; 0 bytes: nothing that way. */
typedef struct {
    int rank;
    const void *send;
    void *recv;
    size_t n_send, n_recv; // bytes, fewer than 2^31
} hd_net_part;

/* Functions return 0, or another number after writing why[HD_NET_WHY]. */
typedef struct {
    int version, rank, size;
    /* Begin what `part` says, as `slot`; both memories stay untouched until hd_net's finish(slot).
     * Messages of a pair arrive in the order in which they were begun; one of another length than
     * awaited is an error. */
    int (*start)(int slot, const hd_net_part *part, int n, char *why);
    int (*finish)(int slot, char *why);
    int (*barrier)(char *why);
    void (*stop)(int status); // ends all ranks; does not return
    void (*close)(void);      // meets all ranks
} hd_net;

/* The one symbol of the module, called once in a process. */
#define HD_NET_SYMBOL "hd_net_open"
typedef int hd_net_open_fn(hd_net *net, char *why);

#endif
