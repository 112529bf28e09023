/* hadal: run DeepSeek-class reasoning models (V2, V3, R1 and the R1 distillations) on the hardware you have.
 *
 * The public library.  Types are opaque; no tensor shows here.  Every fallible call returns hd_status and fills the
 * caller's hd_err with what failed, where, and why (or what to do next).  Functions may be called from any thread as
 * long as one object is used by one thread at a time. */
#ifndef HADAL_H
#define HADAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HADAL_VERSION "0.1.0"

typedef enum {
    HD_OK = 0,
    HD_USAGE,       // the caller asked for something that makes no sense
    HD_IO,          // the system refused: open, read, write, map
    HD_FORMAT,      // bytes from outside are malformed
    HD_UNSUPPORTED, // well-formed, but nothing here can run it
    HD_LIMIT,       // a cap was reached: context full, buffer cap, memory plan
    HD_NOMEM,       // an allocation failed
    HD_CANCELLED,   // the caller's stop flag was seen
} hd_status;

/* What went wrong, for a person: "what: where: why".  Plain storage, the caller's; no clean-up. */
typedef struct {
    hd_status code;
    char msg[512];
} hd_err;

#ifdef __cplusplus
}
#endif
#endif
