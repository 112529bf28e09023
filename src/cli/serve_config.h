/* What `hadal serve` reads beside its command line: a file of options, and API keys. */
#ifndef HD_CLI_SERVE_CONFIG_H
#define HD_CLI_SERVE_CONFIG_H

#include "base/buf.h"

/* Words as of a command line, in memory of their own. */
typedef struct {
    char **v;
    int n, cap;
} hd_words;
hd_status hd_words_add(hd_words *w, const char *s, size_t n, hd_err *err);
void hd_words_free(hd_words *w);

/* If argv has --config FILE, *out is argv with the file's options before the command line's own, so
 * that these win; else argv as it is.  "name = value" is --name value, "name = yes" and "name = no" are
 * flags, "model = M" is the operand when the command line has none; "#" and ";" begin comments,
 * [sections] are for the reader. */
hd_status hd_config_words(hd_words *out, int argc, char **argv, hd_err *err);

/* SHA-256 sums (hexadecimal) of the keys in a file, one a line, and of $HADAL_API_KEY; file may be NULL. */
hd_status hd_config_keys(hd_words *out, const char *file, hd_err *err);

#endif
