/* Options of a command: one table row each; `--name value`, `--name=value`, `-n value`, and operands.
 * --help is answered by main before run() is called. */
#ifndef HD_CLI_OPTS_H
#define HD_CLI_OPTS_H

#include "base/err.h"

typedef enum { HD_OPT_FLAG, HD_OPT_INT, HD_OPT_FLOAT, HD_OPT_STR, HD_OPT_LIST } hd_opt_kind;

/* An option that may be given several times. */
enum { HD_OPT_LIST_MAX = 64 };
typedef struct {
    const char *v[HD_OPT_LIST_MAX];
    int n;
} hd_opt_list;

typedef struct {
    const char *name; // "temp" for --temp
    char letter;      // 'p' for -p, 0: none
    hd_opt_kind kind;
    void *to;        // bool*, int64_t*, double*, const char**, hd_opt_list*
    double min, max; // of numbers
} hd_opt;

/* Fills the targets; operands (non-options, and all after "--") are moved to the front of argv[1..];
 * *n_operands says how many.  HD_USAGE names the option and its range. */
hd_status hd_opts_parse(const hd_opt *opts, int n_opts, int argc, char **argv, int *n_operands, hd_err *err);

#endif
