/* A small vocabulary with the control tokens of all chat formats: bytes, a few merges. */
#ifndef HD_CHAT_VOCAB_H
#define HD_CHAT_VOCAB_H

#include <jansson.h>

#include "base/utf8.h"
#include "model/tokenizer_impl.h"
#include "test.h"

static const char *const controls[] = {
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁outputs▁end｜>",
    "<|EOT|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<think>",
    "</think>",
    "<tool_response>",
    "</tool_response>",
};
enum { N_CONTROLS = sizeof controls / sizeof controls[0], FIRST_ADDED = 16 };
static const char *const merged[] = {"Ġ H", "l l", "Ċ Ċ", ": Ġ", "e r", "o n"};

/* A byte as byte-level vocabularies spell it. */
static inline const char *spell(int byte)
{
    static char s[5];
    int32_t c = byte, extra = 256;
    for (int b = 0; b < 256; b++) {
        bool same = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
        if (!same && b == byte) c = extra;
        extra += !same;
    }
    s[hd_utf8_put(s, c)] = 0;
    return s;
}

/* tokenizer.json with 256 bytes, a few merges and the control tokens but those of which `without` is the
 * beginning. */
static inline json_t *small_vocabulary(const char *without)
{
    json_t *vocab = json_object(), *merges = json_array(), *added = json_array();
    int id = 0;
    for (; id < 256; id++) json_object_set_new(vocab, spell(id), json_integer(id));
    for (size_t i = 0; i < sizeof merged / sizeof merged[0]; i++) {
        char joined[16];
        const char *gap = strchr(merged[i], ' ');
        snprintf(joined, sizeof joined, "%.*s%s", (int)(gap - merged[i]), merged[i], gap + 1);
        json_object_set_new(vocab, joined, json_integer(id++));
        json_array_append_new(merges, json_string(merged[i]));
    }
    for (int i = 0; i < N_CONTROLS; i++) {
        if (without && strncmp(controls[i], without, strlen(without)) == 0) continue;
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b}", "id", id++, "content", controls[i],
                                               "special", i < FIRST_ADDED, "normalized", 0));
    }
    return json_pack("{s:{s:s, s:b, s:b}, s:{s:s, s:o, s:o}, s:o}", "pre_tokenizer", "type", "ByteLevel",
                     "add_prefix_space", 0, "use_regex", 1, "model", "type", "BPE", "vocab", vocab, "merges",
                     merges, "added_tokens", added);
}

static inline hd_tokenizer *small_tokenizer(void)
{
    hd_err err = {0};
    hd_tokenizer *t = NULL;
    json_t *j = small_vocabulary(NULL);
    CHECK_OK(hd_tokenizer_from_json(&t, j, NULL, &err));
    json_decref(j);
    return t;
}

#endif
