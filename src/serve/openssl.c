#include "serve/openssl.h"

#include <dlfcn.h>
#include <string.h>

const hd_openssl *hd_openssl_open(hd_err *err)
{
    static hd_openssl table;
    static bool open;
    if (open) return &table;
    void *lib = dlopen("libevent_openssl-2.1.so.7", RTLD_NOW | RTLD_LOCAL), *f;
    if (!lib) goto missing;
#define X(name)                                                                                              \
    if (!(f = dlsym(lib, #name))) goto missing; /* looks into what the library brought, too */               \
    memcpy(&table.name, &f, sizeof f);
    HD_OPENSSL_FUNCTIONS(X)
#undef X
    open = true;
    return &table;
missing:
    hd_fail(err, HD_IO, "OpenSSL: %.200s: TLS needs it: apt install libevent-openssl-2.1-7", dlerror());
    return NULL;
}
