/* What recipe.c and recipe_ini.c share: a value of a key, wherever it was written. */
#ifndef HD_TRAIN_RECIPE_PARTS_H
#define HD_TRAIN_RECIPE_PARTS_H

#include "base/err.h"

/* where: "recipe.ini:12", or "-s lr=1".  The value has its comment and quotes taken off. */
typedef hd_status hd_ini_fn(void *arg, const char *section, const char *key, const char *value, const char *where, hd_err *err);
/* Calls fn for every key of the file, in order; a section written twice and a line that is
 * none are errors. */
hd_status hd_ini_read(const char *path, hd_ini_fn *fn, void *arg, hd_err *err);
/* Takes comment, spaces and quotes off a value, in place. */
hd_status hd_ini_unquote(char *value, const char *where, hd_err *err);
/* Appends the value with quotes where it needs them.  false: it does not fit in `size` bytes. */
bool hd_ini_quote(char *out, size_t size, const char *value);

/* $NAME, ${NAME}, ${NAME:-TEXT}, $$. */
hd_status hd_expand(char *out, size_t size, const char *text, const char *where, hd_err *err);

#endif
