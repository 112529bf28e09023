/* Conversations for fine-tuning: a line of JSON to ids in the model's own chat format, with a mask that says
 * which of them are
 * learnt: those of the assistant's texts and of the token that ends its turn, no others.
 *
 * A line is an object of one of these forms (further keys are ignored):
 *     {"messages": [{"role": "system|user|assistant|tool", "content": "...",
 *     "reasoning_content": "..."}, ...]}
 *     {"prompt": "...", "completion": "..."}        also "response" in place of "completion"
 *     {"question": "...", "answer": "..."}
 *
 * The ids are those that hd_chat_render gives the whole conversation.  One thing is added for models that
 * think: the thought of the last answer stands before it as the model would have written it, even where
 * templates drop the thoughts of past turns, since it is what such a model has to learn; where prompts always
 * end inside a thought (R1), an answer without one begins with its end. */
#ifndef HD_TRAIN_CHAT_DATA_H
#define HD_TRAIN_CHAT_DATA_H

#include "base/buf.h"
#include "model/chat.h"

enum { HD_CHAT_DATA_MAX_MESSAGES = 4096 };

/* Append a line's ids, and to `mask` one byte for each of them: 1 where the id is learnt (it is the target of
 * the row before it).  f, t: the model's (hd_chat_pick).  On an error nothing is appended.  HD_FORMAT: no
 * such object, or no answer in it; the message says what, the caller adds where. */
hd_status hd_chat_data_line(const hd_chat_format *f, const hd_tokenizer *t, const char *line, size_t n,
                            hd_ids *ids, hd_buf *mask, hd_err *err);

#endif
