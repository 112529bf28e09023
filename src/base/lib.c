#include "base/lib.h"

#include <dlfcn.h>
#include <string.h>

hd_status hd_lib_open(void *table, const char *const *names, int n, const char *file, const char *what, const char *package, hd_err *err)
{
    void *lib = dlopen(file, RTLD_NOW | RTLD_LOCAL), *f = lib;
    for (int i = 0; i < n && f; i++) {
        f = dlsym(lib, names[i]); // looks into what the library brought, too
        memcpy((char *)table + (size_t)i * sizeof f, &f, sizeof f);
    }
    if (f) return HD_OK;
    return hd_fail(err, HD_IO, "open: %.200s: %s needs it: apt install %s", dlerror(), what, package);
}
