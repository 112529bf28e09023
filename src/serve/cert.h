/* Certificates signed by themselves (hadal serve --lan). */
#ifndef HD_SERVE_CERT_H
#define HD_SERVE_CERT_H

#include "base/buf.h"

/* See to it that the two files hold a certificate for these names and addresses (NULL-terminated) and its
 * key: kept if they fit and last, else made anew, with rights for their owner alone. */
hd_status hd_cert_ready(const char *cert_file, const char *key_file, const char *const *name, hd_err *err);

#endif
