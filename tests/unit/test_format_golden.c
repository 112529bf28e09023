/* Decoders against vectors of gguf-py: the same bits.  tests/golden/make_formats.py writes them:
 * blocks, then floats. */
#include "kernels/format.h"

#include "test.h"

static void golden(const hd_format *f)
{
    char path[512];
    snprintf(path, sizeof path, HD_SOURCE_DIR "/tests/golden/formats/%s.bin", f->name);
    FILE *in = fopen(path, "rb");
    CHECK(in != NULL, "%s", path);
    if (!in) return;
    static uint8_t file[1 << 16];
    size_t n = fread(file, 1, sizeof file, in);
    fclose(in);
    size_t per_block = (size_t)f->bytes + 4 * (size_t)f->block, blocks = n / per_block;
    size_t elements = blocks * (size_t)f->block, bytes = blocks * (size_t)f->bytes;
    CHECK(blocks >= 4 && n == blocks * per_block, "%s: %zu bytes", f->name, n);

    /* exact copies on the heap, at an odd address: the sanitizers see a byte read past either end */
    uint8_t *x = malloc(bytes + 1);
    float *y = malloc(4 * elements), *want = malloc(4 * elements);
    memcpy(x + 1, file, bytes);
    memcpy(want, file + bytes, 4 * elements);
    f->dequant(y, x + 1, (int64_t)elements);
    size_t bad = 0;
    for (size_t i = 0; i < elements; i++) bad += y[i] != want[i];
    CHECK(bad == 0, "%s: %zu of %zu differ", f->name, bad, elements);
    free(x);
    free(y);
    free(want);
}

/* Any bytes decode to something, without reading outside: every index of every book, scale and sign. */
static void any_byte_is_safe(const hd_format *f)
{
    size_t n = 64 * (size_t)f->bytes;
    uint8_t *x = malloc(n);
    float *y = malloc(4 * 64 * (size_t)f->block);
    uint32_t state = 1;
    for (int round = 0; round < 8; round++) {
        for (size_t i = 0; i < n; i++) {
            state = state * 1664525u + 1013904223u;
            x[i] = round == 0 ? 0xff : (uint8_t)(state >> 24);
        }
        f->dequant(y, x, 64 * (int64_t)f->block);
    }
    hd_test_passed++;
    free(x);
    free(y);
}

int main(void)
{
    int n = 0;
    for (int i = 0; hd_format_at(i); i++) {
        const hd_format *f = hd_format_at(i);
        if (!f->dequant) continue;
        if (f->type != HD_F32 && f->type != HD_F8_E4M3) {
            golden(f);
            n++;
        }
        any_byte_is_safe(f);
    }
    CHECK(n == 21, "%d formats have golden vectors", n);
    return hd_test_end();
}
