/* Options: a walk over argv with a table beside it.  getopt_long is not used because it knows neither kinds
 * nor ranges, so that every command would check its numbers by hand. */
#include "cli/opts.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const hd_opt *by_name(const hd_opt *opts, int n, const char *name, size_t len)
{
    for (int i = 0; i < n; i++) {
        if (strlen(opts[i].name) == len && memcmp(opts[i].name, name, len) == 0) return &opts[i];
    }
    return NULL;
}

static const hd_opt *by_letter(const hd_opt *opts, int n, char c)
{
    for (int i = 0; i < n; i++) {
        if (opts[i].letter == c && c != 0) return &opts[i];
    }
    return NULL;
}

static hd_status bad_value(const hd_opt *o, const char *text, hd_err *err)
{
    if (o->kind == HD_OPT_INT)
        return hd_fail(err, HD_USAGE, "option --%s: '%s': needs a whole number from %.0f to %.0f", o->name, text, o->min,
                       o->max);
    return hd_fail(err, HD_USAGE, "option --%s: '%s': needs a number from %g to %g", o->name, text, o->min, o->max);
}

static hd_status set(const hd_opt *o, const char *text, hd_err *err)
{
    char *end = NULL;
    errno = 0;
    switch (o->kind) {
    case HD_OPT_FLAG: *(bool *)o->to = true; break;
    case HD_OPT_STR: *(const char **)o->to = text; break;
    case HD_OPT_LIST: {
        hd_opt_list *l = o->to;
        if (l->n == HD_OPT_LIST_MAX) return hd_fail(err, HD_USAGE, "option --%s: given more than %d times", o->name, (int)HD_OPT_LIST_MAX);
        l->v[l->n++] = text;
        break;
    }
    case HD_OPT_INT: {
        long long v = strtoll(text, &end, 10);
        if (end == text || *end || errno || (double)v < o->min || (double)v > o->max) return bad_value(o, text, err);
        *(int64_t *)o->to = v;
        break;
    }
    case HD_OPT_FLOAT: {
        double v = strtod(text, &end);
        bool in = v >= o->min && v <= o->max; // false for a NaN
        if (end == text || *end || !in) return bad_value(o, text, err);
        *(double *)o->to = v;
        break;
    }
    }
    return HD_OK;
}

/* "-5" and "-.5" are operands (or values), not options: no option's letter is a digit or a dot. */
static bool is_option(const char *s) { return s[0] == '-' && s[1] && !strchr("0123456789.", s[1]); }

hd_status hd_opts_parse(const hd_opt *opts, int n_opts, int argc, char **argv, int *n_operands, hd_err *err)
{
    int n = 0;
    bool only_operands = false;
    *n_operands = 0;
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        if (only_operands || !is_option(a)) {
            argv[1 + n++] = a; // n < i: nothing unread is overwritten
            continue;
        }
        if (strcmp(a, "--") == 0) {
            only_operands = true;
            continue;
        }
        const hd_opt *o;
        const char *value = NULL;
        if (a[1] == '-') {
            size_t len = strcspn(a + 2, "=");
            o = by_name(opts, n_opts, a + 2, len);
            if (a[2 + len]) value = a + 2 + len + 1;
        } else {
            o = by_letter(opts, n_opts, a[1]);
            if (a[2]) value = a + 2; // -n5
        }
        if (!o) return hd_fail(err, HD_USAGE, "option %s: not known to '%s': see hadal %s --help", a, argv[0], argv[0]);
        if (o->kind == HD_OPT_FLAG && value)
            return hd_fail(err, HD_USAGE, "option %s: takes no value", a);
        if (o->kind != HD_OPT_FLAG && !value) {
            if (++i == argc) return hd_fail(err, HD_USAGE, "option %s: needs a value", a);
            value = argv[i];
        }
        hd_status st = set(o, value, err);
        if (st != HD_OK) return st;
    }
    *n_operands = n;
    return HD_OK;
}
