/* The state of `hadal chat`, shared by its loop (cmd_chat.c), one answer (chat_answer.c) and its slash
 * commands (chat_slash.c). */
#ifndef HD_CLI_CHAT_H
#define HD_CLI_CHAT_H

#include "cli/lines.h"
#include "cli/load.h"
#include "cli/talk.h"

typedef struct {
    hd_load_opts load;
    hd_loaded model;
    hd_talk talk;
    hd_lines *lines;
    bool tty;                      // a person sits here: prompts, colours, questions
    bool drop_oldest;              // agreed beforehand
    bool show_thinking;            // as it is thought; else folded into one line
    int thinking;                  // hd_engine_render's switch
    int64_t think_budget, max_tok; // < 0, 0: none
    int n_retries;
    bool quit;
} hd_chat;

/* Let the model answer the last user turn, show it and add it to the conversation.  A stopped answer is kept
 * as far as it came.  When the conversation does not fit, asks whether to drop the oldest turns; unless that
 * is agreed the user turn is taken back, and without a person it is HD_LIMIT. */
hd_status hd_chat_answer(hd_chat *c, hd_err *err);

/* Run a line that begins with a slash.  An error is the command's, not the chat's end. */
hd_status hd_chat_slash(hd_chat *c, const char *line, hd_err *err);

#endif
