/* The Parquet reader: footer, pages, runs, snappy and zstd.  Reads the column "text" as far
 * as 10,000 values. */
#include "train/parquet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_err err = {0};
    hd_map m = {data, size};
    hd_parquet *p = NULL;
    const char *text;
    size_t n;
    bool more = true;
    volatile char sink = 0;
    if (!size || hd_parquet_open_map(&p, &m, "fuzz", "text", &err) != HD_OK) return 0;
    for (int i = 0; i < 10000 && hd_parquet_next(p, &text, &n, &more, &err) == HD_OK && more; i++)
        if (n) sink = (char)(sink ^ text[0] ^ text[n - 1]);
    hd_parquet_close(p);
    return 0;
}
