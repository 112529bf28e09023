#include "cli/edit.h"

#include <dlfcn.h>
#include <string.h>

const hd_edit *hd_edit_open(hd_err *err)
{
    static hd_edit table;
    static bool open;
    if (open) return &table;
    void *lib = dlopen("libedit.so.2", RTLD_NOW | RTLD_LOCAL), *f;
    if (!lib) goto missing;
#define X(name)                                                                                              \
    if (!(f = dlsym(lib, #name))) goto missing;                                                              \
    memcpy(&table.name, &f, sizeof f);
    HD_EDIT_FUNCTIONS(X)
#undef X
    open = true;
    return &table;
missing:
    hd_fail(err, HD_IO, "libedit: %.200s: editing lines needs it: apt install libedit2", dlerror());
    return NULL;
}
