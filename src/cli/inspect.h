/* What `hadal inspect` found out about a model, gathered once and then written for people or for machines. */
#ifndef HD_CLI_INSPECT_H
#define HD_CLI_INSPECT_H

#include "model/gguf.h"
#include "model/model.h"

typedef struct {
    const hd_source *source;
    uint64_t n_weights;  // numbers in all tensors
    char tokenizer[160]; // its kind, or "" and the reason in tokenizer_err
    int64_t n_tokens;
    hd_err tokenizer_err;
    const char *chat; // name of the chat format, or NULL and the reason in chat_err
    hd_err chat_err;
    bool has_plan;
    hd_plan plan;
    hd_err plan_err; // why there is none
} hd_facts;

typedef struct {
    bool tensors, metadata; // list every one
} hd_inspect_opts;

hd_status hd_inspect_text(const hd_facts *f, const hd_inspect_opts *o, hd_err *err);
void hd_inspect_json(const hd_facts *f); // streamed: a million tensors need no document in memory

/* Text of a file's on a terminal: valid UTF-8 of at most max bytes, control and direction-changing characters
 * as '?'. */
void hd_inspect_show(const char *p, size_t n, size_t max);
/* One number or string: a key's value, or element i of its array (walked by *pos; start both at 0).  False at
 * the end. */
typedef struct {
    enum { HD_VALUE_INT, HD_VALUE_FLOAT, HD_VALUE_BOOL, HD_VALUE_STR } kind;
    int64_t i;
    double f;
    hd_gguf_str s;
} hd_value;
bool hd_inspect_value(const hd_gguf_kv *kv, uint64_t i, size_t *pos, hd_value *v);
const char *hd_gguf_type_name(hd_gguf_type t);

#endif
