#include "model/json.h"

#include <string.h>

#include "model/names.h"

/* Commas and opening brackets outside of strings: never fewer than the values, less one. */
static size_t count_values(const char *p, size_t n)
{
    size_t count = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (p[i] == '\\') i++;
            else if (p[i] == '"') in_string = false;
        } else if (p[i] == '"') {
            in_string = true;
        } else {
            count += p[i] == ',' || p[i] == '[' || p[i] == '{';
        }
    }
    return count;
}

hd_status hd_json_parse(json_t **out, const void *text, size_t n, size_t max_values, const char *kind,
                        const char *where, hd_err *err)
{
    json_error_t at;
    char shown[160];
    if (!n) return hd_fail(err, HD_FORMAT, "%s: %s: nothing there, JSON expected", kind, where);
    if (count_values(text, n) > max_values)
        return hd_fail(err, HD_LIMIT, "%s: %s: more than %zu JSON values", kind, where, max_values);
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES, &at);
    if (*out) return HD_OK;
    return hd_fail(err, HD_FORMAT, "%s: %s: JSON, line %d: %s", kind, where, at.line,
                   hd_name_show(shown, sizeof shown, at.text, strlen(at.text)));
}
