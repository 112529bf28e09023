/* Speed of the tokenizer alone: build/bench_tokenize MODEL FILE [RUNS].  Prints MB/s of encoding the whole
 * file (best and median of the runs, after one that fills the word cache) and of decoding its ids; one
 * thread. */
#include <stdio.h>

#include "base/log.h"
#include "model/tokenizer.h"

enum { MAX_RUNS = 100 };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *what, double *s, int n, size_t bytes)
{
    qsort(s, (size_t)n, sizeof *s, by_size);
    printf("%-7s %8.1f MB/s best, %8.1f median of %d\n", what, (double)bytes / 1e6 / s[0],
           (double)bytes / 1e6 / s[n / 2], n);
}

int main(int argc, char **argv)
{
    hd_status st;
    hd_err err = {0};
    hd_source *s = NULL;
    hd_tokenizer *t = NULL;
    hd_ids ids = {0};
    hd_buf text, back;
    double enc[MAX_RUNS], dec[MAX_RUNS];
    int runs = argc > 3 ? atoi(argv[3]) : 7;
    hd_buf_init(&text, (size_t)1 << 30);
    hd_buf_init(&back, SIZE_MAX);
    if (argc < 3 || runs < 1 || runs > MAX_RUNS) {
        fprintf(stderr, "usage: bench_tokenize MODEL FILE [RUNS]\n");
        return 2;
    }
    double t0 = hd_now_s();
    HD_TRY(hd_source_open(&s, argv[1], false, &err));
    HD_TRY(hd_tokenizer_open(&t, s, &err));
    double opened = hd_now_s() - t0;
    HD_TRY(hd_file_read(&text, argv[2], &err));
    for (int i = -1; i < runs; i++) {
        ids.n = 0;
        hd_buf_clear(&back);
        t0 = hd_now_s();
        HD_TRY(hd_tokenizer_encode(t, text.data, text.len, &ids, &err));
        double t1 = hd_now_s();
        HD_TRY(hd_tokenizer_decode(t, ids.id, ids.n, true, &back, &err));
        if (i >= 0) enc[i] = t1 - t0;
        if (i >= 0) dec[i] = hd_now_s() - t1;
    }
    printf("%s: opened in %.3f s; %zu bytes, %lld ids\n", argv[1], opened, text.len, (long long)ids.n);
    report("encode", enc, runs, text.len);
    report("decode", dec, runs, back.len);
fail:
    if (st != HD_OK) fprintf(stderr, "bench_tokenize: %s\n", err.msg);
    hd_ids_free(&ids);
    hd_buf_free(&text);
    hd_buf_free(&back);
    hd_tokenizer_close(t);
    hd_source_close(s);
    return st != HD_OK;
}
