/* Conversations: the first byte chooses the format, the second the options; then messages, each a byte for
 * the role and text up to a NUL; a text may hold reasoning behind a 0x01.  Whatever a message says, the
 * special tokens of the conversation are those of the same conversation with other words.  The bytes are also
 * read as a template. */
#include <jansson.h>
#include <string.h>

#include "model/chat_parts.h"
#include "model/tokenizer_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_MSG = 64 };

/* Bytes a to z and some others, with every kind of control token. */
static const char vocabulary[] =
    "{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"model\": {\"type\": "
    "\"BPE\", \"vocab\": {"
    "\"a\": 0, \"b\": 1, \"c\": 2, \"<\": 3, \">\": 4, \"|\": 5, \"\\u010a\": 6, \"\\u0120\": 7, \"ab\": 8, "
    "\"\\u00ef\": 9},"
    "\"merges\": [\"a b\"]}, \"added_tokens\": ["
    "{\"id\": 10, \"content\": \"<|im_start|>\"}, {\"id\": 11, \"content\": \"<|im_end|>\"},"
    "{\"id\": 12, \"content\": \"<｜User｜>\"}, {\"id\": 13, \"content\": \"<｜Assistant｜>\"},"
    "{\"id\": 14, \"content\": \"<｜begin▁of▁sentence｜>\"}, {\"id\": 15, \"content\": "
    "\"<｜end▁of▁sentence｜>\"},"
    "{\"id\": 16, \"content\": \"<think>\"}, {\"id\": 17, \"content\": \"</think>\"},"
    "{\"id\": 18, \"content\": \"<|start_header_id|>\"}, {\"id\": 19, \"content\": \"<|end_header_id|>\"},"
    "{\"id\": 20, \"content\": \"<|eot_id|>\"}, {\"id\": 21, \"content\": \"<｜tool▁output▁begin｜>\"},"
    "{\"id\": 22, \"content\": \"<tool_response>\"}]}";

static hd_tokenizer *small(void)
{
    static hd_tokenizer *t; // kept: reachable, so no leak
    hd_err err = {0};
    json_t *j = t ? NULL : json_loads(vocabulary, 0, NULL);
    if (j && hd_tokenizer_from_json(&t, j, NULL, &err) != HD_OK) abort();
    json_decref(j);
    return t;
}

static int read_messages(hd_msg *msg, const uint8_t *p, size_t n)
{
    int k = 0;
    while (n > 0 && k < MAX_MSG) {
        const char *text = (const char *)p + 1;
        const uint8_t *end = memchr(p + 1, 0, n - 1);
        size_t len = end ? (size_t)(end - p - 1) : n - 1;
        const char *thought = len ? memchr(text, 1, len) : NULL;
        msg[k] = (hd_msg){
            .role = (hd_role)(p[0] % 4), .text = text, .n = thought ? (size_t)(thought - text) : len};
        if (thought) msg[k].thinking = thought + 1, msg[k].n_thinking = len - msg[k].n - 1;
        k++;
        size_t used = end ? len + 2 : n;
        p += used;
        n -= used;
    }
    return k;
}

static int64_t n_special(const hd_chat_format *f, const hd_msg *msg, int n, const hd_chat_opts *o)
{
    hd_err err = {0};
    hd_ids ids = {0};
    int64_t count = 0;
    if (hd_chat_render(f, small(), msg, n, o, &ids, &err) != HD_OK) abort();
    for (int64_t i = 0; i < ids.n; i++) {
        if (ids.id[i] < 0 || ids.id[i] >= hd_tokenizer_n_vocab(small())) abort();
        count += hd_tokenizer_is_special(small(), ids.id[i]);
    }
    hd_ids_free(&ids);
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_msg msg[MAX_MSG];
    bool sure;
    int n_formats = 0, n = size > 2 ? read_messages(msg, data + 2, size - 2) : 0;
    hd_chat_told(size ? (const char *)data : "", size, &sure);
    if (n == 0) return 0;
    while (hd_chat_at(n_formats)) n_formats++;
    const hd_chat_format *f = hd_chat_at(data[0] % n_formats);
    hd_chat_opts o = {.add_generation_prompt = data[1] & 1, .thinking = data[1] % 3 - 1};
    int64_t said = n_special(f, msg, n, &o);
    for (int i = 0; i < n; i++) msg[i].text = "ab", msg[i].n = 2;
    if (n_special(f, msg, n, &o) != said) abort();
    return 0;
}
