#include "cli/hub_curl.h"

const hd_curl *hd_curl_open(hd_err *err)
{
    static hd_curl table;
    static bool open;
    static const char *const names[] = {HD_CURL_FUNCTIONS(HD_LIB_NAME)};
    enum { N = sizeof names / sizeof *names };
    if (!open) open = hd_lib_open(&table, names, N, "libcurl.so.4", "downloading", "libcurl4", err) == HD_OK;
    return open ? &table : NULL;
}
