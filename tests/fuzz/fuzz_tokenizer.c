/* tokenizer.json: bytes up to the first NUL are the file (or, when they are no JSON, nothing), the rest a
 * text.  What opens must encode the text, and give ids inside the vocabulary, none of them special. */
#include <string.h>

#include "encode.h"
#include "model/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const hd_tokenizer *t, const char *text, size_t n)
{
    hd_err err = {0};
    hd_ids ids;
    hd_buf back;
    hd_buf_init(&back, (size_t)64 << 20);
    must_encode(t, text, n, &ids);
    hd_tokenizer_decode(t, ids.id, ids.n, true, &back, &err);
    hd_tokenizer_find(t, "<|im_end|>");
    hd_buf_free(&back);
    hd_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_err err = {0};
    hd_tokenizer *t = NULL;
    json_t *json = NULL;
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    static const char otherwise[] = "Hello, world 12345\n\n  e\xcc\x81 \xe4\xb8\xad\xff<think>";
    if (hd_json_parse(&json, data, n, 1 << 16, "json", "fuzz", &err) == HD_OK) {
        if (hd_tokenizer_from_json(&t, json, json, &err) == HD_OK) {
            if (nul) use(t, (const char *)nul + 1, size - n - 1);
            use(t, otherwise, sizeof otherwise - 1);
            hd_tokenizer_close(t);
        }
        json_decref(json);
    }
    return 0;
}
