#include "cli/hub_curl.h"

#include <dlfcn.h>
#include <string.h>

const hd_curl *hd_curl_open(hd_err *err)
{
    static hd_curl curl;
    static bool open;
    if (open) return &curl;
    void *lib = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL), *f;
    if (!lib) goto missing;
#define X(name)                                                                                              \
    if (!(f = dlsym(lib, #name))) goto missing;                                                              \
    memcpy(&curl.name, &f, sizeof f);
    HD_CURL_FUNCTIONS(X)
#undef X
    open = true;
    return &curl;
missing:
    hd_fail(err, HD_IO, "libcurl: %.200s: downloads need it: apt install libcurl4", dlerror());
    return NULL;
}
