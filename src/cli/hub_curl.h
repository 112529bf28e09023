/* libcurl, opened when it is first wanted.  It brings some thirty libraries with it, 6 MB of
 * memory and several
 * milliseconds: a chat that downloads nothing need not pay for them at every start. */
#ifndef HD_CLI_HUB_CURL_H
#define HD_CLI_HUB_CURL_H

#define CURL_DISABLE_TYPECHECK // its checking macros would hide the names of the functions
#include <curl/curl.h>

#include "base/lib.h"

#define HD_CURL_FUNCTIONS(X)                                                                                 \
    X(curl_global_init)                                                                                      \
    X(curl_global_cleanup)                                                                                   \
    X(curl_easy_init)                                                                                        \
    X(curl_easy_reset)                                                                                       \
    X(curl_easy_setopt)                                                                                      \
    X(curl_easy_perform)                                                                                     \
    X(curl_easy_getinfo)                                                                                     \
    X(curl_easy_strerror)                                                                                    \
    X(curl_easy_cleanup)                                                                                     \
    X(curl_slist_append)                                                                                     \
    X(curl_slist_free_all)                                                                                   \
    X(curl_url)                                                                                              \
    X(curl_url_set)                                                                                          \
    X(curl_url_get)                                                                                          \
    X(curl_url_cleanup)                                                                                      \
    X(curl_free)

/* Each function under its own name and type: curl->curl_easy_init(). */
typedef struct {
    HD_LIB_POINTERS(HD_CURL_FUNCTIONS)
} hd_curl;

/* The functions, or NULL and HD_IO when the library is not to be had.  They stay until the program ends. */
const hd_curl *hd_curl_open(hd_err *err);

#endif
