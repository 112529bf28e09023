#include "serve/openssl.h"

const hd_openssl *hd_openssl_open(hd_err *err)
{
    static hd_openssl table;
    static bool open;
    static const char *const names[] = {HD_OPENSSL_FUNCTIONS(HD_LIB_NAME)};
    enum { N = sizeof names / sizeof *names };
    if (!open) open = hd_lib_open(&table, names, N, "libevent_openssl-2.1.so.7", "TLS", "libevent-openssl-2.1-7", err) == HD_OK;
    return open ? &table : NULL;
}
