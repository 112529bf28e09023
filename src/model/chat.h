/* Conversations to ids: one table row per known chat format, told from the model's own template. */
#ifndef HD_MODEL_CHAT_H
#define HD_MODEL_CHAT_H

#include "model/tokenizer.h"

typedef enum { HD_ROLE_SYSTEM, HD_ROLE_USER, HD_ROLE_ASSISTANT, HD_ROLE_TOOL } hd_role;

typedef struct {
    hd_role role;
    const char *text; // content, n bytes; never read as special tokens
    size_t n;
    const char *thinking; // assistant: reasoning_content, or NULL
    size_t n_thinking;
    const hd_call *call; // assistant: tools it called, after its text
    int n_call;
} hd_msg;

typedef struct hd_chat_format hd_chat_format;

/* name NULL: told from the source's template (tokenizer_config.json, chat_template.jinja,
 * tokenizer.chat_template); an unknown template is an error that lists the known names; one whose control
 * tokens match a known format uses it with a warning. */
hd_status hd_chat_pick(const hd_chat_format **out, const hd_source *s, const hd_tokenizer *t,
                       const char *name, hd_err *err);
const char *hd_chat_name(const hd_chat_format *f);
const hd_chat_format *hd_chat_at(int i); // walk the table
/* The system prompt that the format called `name` puts first when a conversation has none; NULL: none. */
const char *hd_chat_default_system(const char *name);
/* The format of a template's text, NULL if unknown; *sure false: only its control tokens match. */
const hd_chat_format *hd_chat_told(const char *text, size_t n, bool *sure);

typedef struct {
    bool add_generation_prompt;
    int thinking; // 1 on, 0 off, -1: the format's default; formats without a switch ignore it
    /* The last message's thought stands before it as the model would have written it, in formats that drop
     * the thoughts of past turns too; an empty one where prompts always end inside a thought. */
    bool keep_thought;
} hd_chat_opts;

/* Append the ids of the whole conversation (BOS included where the template has it). */
hd_status hd_chat_render(const hd_chat_format *f, const hd_tokenizer *t, const hd_msg *msg, int n_msg,
                         const hd_chat_opts *o, hd_ids *out, hd_err *err);
/* The same; and to mask, unless NULL, a byte for each id: 1 where it holds something of what the assistant
 * says (its words, its calls, its own thoughts) or ends its turn, 0 for what is given to it. */
hd_status hd_chat_render_mask(const hd_chat_format *f, const hd_tokenizer *t, const hd_msg *msg, int n_msg, const hd_chat_opts *o,
                              hd_ids *out, hd_buf *mask, hd_err *err);
/* Ids that end a turn in this format, beside the config's eos. */
int hd_chat_stops(const hd_chat_format *f, const hd_tokenizer *t, int32_t out[8]);
/* Ids of <think> and </think>, -1 when the format has none; *open: the generation prompt already ends inside
 * a thought (by the format's default; where a switch is used, the last of these ids in the rendered prompt
 * tells). */
void hd_chat_think_ids(const hd_chat_format *f, const hd_tokenizer *t, int32_t *begin, int32_t *end,
                       bool *open);

#endif
