/* Shared libraries that are opened when their functions are first wanted, so that a process that wants none
 * holds none of their memory.  A caller lists the functions as a macro, makes a struct of pointers of it,
 * and has it filled:
 *
 *     #define FUNCTIONS(X) X(el_init) X(el_end)
 *     static struct { HD_LIB_POINTERS(FUNCTIONS) } table;
 *     static const char *const names[] = {FUNCTIONS(HD_LIB_NAME)}; */
#ifndef HD_BASE_LIB_H
#define HD_BASE_LIB_H

#include "base/err.h"

#define HD_LIB_POINTER(f)          __typeof__(f) *f;
#define HD_LIB_POINTERS(FUNCTIONS) FUNCTIONS(HD_LIB_POINTER)
#define HD_LIB_NAME(f)             #f,

/* table: n pointers to functions, in the order of names; they stay until the program ends.  file: the
 * library; what needs it, and the Debian package, are told where it is not to be had (HD_IO; table is
 * of no use then). */
hd_status hd_lib_open(void *table, const char *const *names, int n, const char *file, const char *what, const char *package, hd_err *err);

#endif
