/* What a run trains on, for other programs: a line of JSON for each micro-batch.
 *
 *   data_probe DIR SEQ SEED VOCAB FIRST N MICRO     sequences FIRST .. FIRST+N-1, MICRO at a time, of the packed folder DIR
 *   data_probe DIR SEQ SEED VOCAB --walk ROWS TOKENS     in the order of the file, until TOKENS targets: validation; then a line
 *                                                        {"bytes_per_token": x} */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/data.h"

static void list(const char *name, const int32_t *x, int n, const char *end)
{
    printf("\"%s\": [", name);
    for (int i = 0; i < n; i++) printf("%s%d", i ? ", " : "", x[i]);
    printf("]%s", end);
}

static int tell(const hd_micro *b)
{
    int n = 0;
    printf("{");
    list("tok", b->tok, b->n_rows, ", ");
    list("target", b->target, b->n_rows, ", ");
    list("len", b->len, b->n_docs, "}\n");
    for (int i = 0; i < b->n_rows; i++) n += b->target[i] >= 0;
    return n;
}

static hd_status run(hd_data *d, char **argv, hd_err *err)
{
    hd_status st = HD_OK;
    hd_micro b;
    uint64_t at = 0;
    bool more = true;
    if (!strcmp(argv[5], "--walk")) {
        for (int64_t n = 0, end = atoll(argv[7]); n < end;) {
            HD_TRY(hd_data_walk(d, 0, &at, atoi(argv[6]), &b, &more, err));
            if (!more) break;
            n += tell(&b);
        }
        printf("{\"bytes_per_token\": %.17g}\n", hd_data_bytes_per_token(d, 0));
        return HD_OK;
    }
    for (uint64_t i = strtoull(argv[5], NULL, 10), end = i + strtoull(argv[6], NULL, 10),
                  n = strtoull(argv[7], NULL, 10);
         i < end; i += n) {
        HD_TRY(hd_data_get(d, i, (int)n, &b, err));
        tell(&b);
    }
fail:
    return st;
}

int main(int argc, char **argv)
{
    hd_err err = {0};
    hd_data *d = NULL;
    if (argc != 8) {
        fprintf(stderr, "usage: data_probe DIR SEQ SEED VOCAB (FIRST N MICRO | --walk ROWS TOKENS)\n");
        return 2;
    }
    hd_data_source src = {argv[1], 1};
    hd_status st =
        hd_data_open(&d, &src, 1, atoi(argv[2]), strtoull(argv[3], NULL, 10), atoll(argv[4]), &err);
    if (st == HD_OK) st = run(d, argv, &err);
    hd_data_close(d);
    if (st != HD_OK) fprintf(stderr, "data_probe: %s\n", err.msg);
    return st != HD_OK;
}
