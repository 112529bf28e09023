/* libedit, opened when a person sits at a terminal: with what it brings it is 0.4 MB of every process that
 * is linked with it. */
#ifndef HD_CLI_EDIT_H
#define HD_CLI_EDIT_H

#include <histedit.h>

#include "base/lib.h"

#define HD_EDIT_FUNCTIONS(X)                                                                                 \
    X(el_init)                                                                                               \
    X(el_end)                                                                                                \
    X(el_get)                                                                                                \
    X(el_set)                                                                                                \
    X(el_wset)                                                                                               \
    X(el_gets)                                                                                               \
    X(el_source)                                                                                             \
    X(el_resize)                                                                                             \
    X(el_insertstr)                                                                                          \
    X(history)                                                                                               \
    X(history_init)                                                                                          \
    X(history_end)

/* Each function under its own name and type: lib->el_gets(). */
typedef struct {
    HD_LIB_POINTERS(HD_EDIT_FUNCTIONS)
} hd_edit;

/* The functions, or NULL and HD_IO when the library is not to be had.  They stay until the program ends. */
const hd_edit *hd_edit_open(hd_err *err);

#endif
