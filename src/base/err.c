/* Errors: messages are formatted where the failure is understood, and carried up unchanged. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Messages quote names from files and terminals; a control byte in one must not reach the screen of
 * whoever reads it. */
static void keep(hd_err *err, hd_status code, const char *msg)
{
    size_t i = 0;
    for (; msg[i] && i < sizeof err->msg - 1; i++) {
        bool control = (unsigned char)msg[i] < 0x20 || msg[i] == 0x7f;
        err->msg[i] = control ? '?' : msg[i];
    }
    err->msg[i] = 0;
    err->code = code;
}

hd_status hd_fail(hd_err *err, hd_status code, const char *fmt, ...)
{
    if (!err) return code;
    char msg[sizeof err->msg]; // formatted aside: an argument may be the message already in *err
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    keep(err, code, msg);
    return code;
}

hd_status hd_fail_errno(hd_err *err, const char *fmt, ...)
{
    int e = errno; // before anything below can change it
    hd_status code = e == ENOMEM ? HD_NOMEM : HD_IO;
    if (!err) return code;
    char msg[sizeof err->msg], why[128];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    /* A very long name may fill the message: the reason matters more than the end of the name. */
    size_t at = n < 0 ? 0 : (size_t)n, most = sizeof msg - sizeof why - 2;
    if (at > most) at = most;
    snprintf(msg + at, sizeof msg - at, ": %s", strerror_r(e, why, sizeof why));
    keep(err, code, msg);
    return code;
}
