#include "cli/edit.h"

const hd_edit *hd_edit_open(hd_err *err)
{
    static hd_edit table;
    static bool open;
    static const char *const names[] = {HD_EDIT_FUNCTIONS(HD_LIB_NAME)};
    enum { N = sizeof names / sizeof *names };
    if (!open) open = hd_lib_open(&table, names, N, "libedit.so.2", "editing lines", "libedit2", err) == HD_OK;
    return open ? &table : NULL;
}
