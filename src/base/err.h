/* Errors: one status, one message, filled once where the failure is understood best. */
#ifndef HD_BASE_ERR_H
#define HD_BASE_ERR_H

#include "hadal.h"

/* Fill err (may be NULL) with a printf-style message "what: where: why" and return code. */
hd_status hd_fail(hd_err *err, hd_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for a failed system call: ": " and strerror(errno) are appended; code is HD_IO
 * (HD_NOMEM for ENOMEM). */
hd_status hd_fail_errno(hd_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Run a fallible call; on failure leave through the function's one exit.  Needs `hd_status st`
 * and a label `fail`. */
#define HD_TRY(call)                                                                               \
    do {                                                                                           \
        st = (call);                                                                               \
        if (st != HD_OK) goto fail;                                                                \
    } while (0)

#endif
