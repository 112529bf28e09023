/* The tokenizer of a GGUF file.  What opens must encode a text, and give ids inside the vocabulary, none of
 * them special. */
#include "encode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const hd_tokenizer *t)
{
    static const char text[] = "Hello, world 12345\n\n  e\xcc\x81 \xe4\xb8\xad\xff<think> abab <|im_end|>";
    hd_err err = {0};
    hd_ids ids;
    hd_buf back;
    hd_buf_init(&back, (size_t)64 << 20);
    must_encode(t, text, sizeof text - 1, &ids);
    for (int32_t id = -1; id <= (int32_t)hd_tokenizer_n_vocab(t) && id < 4096; id++)
        hd_tokenizer_decode(t, &id, 1, true, &back, &err);
    hd_buf_free(&back);
    hd_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_err err = {0};
    hd_gguf *g = NULL;
    hd_tokenizer *t = NULL;
    hd_map map = {data, size};
    if (size == 0 || hd_gguf_open(&g, &map, "fuzz", &err) != HD_OK) return 0;
    if (hd_tokenizer_from_gguf(&t, g, &err) == HD_OK) {
        use(t);
        hd_tokenizer_close(t);
    }
    hd_gguf_close(g);
    return 0;
}
