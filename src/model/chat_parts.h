/* Inside of the chat formats: a row of the table, and the pen its writers use.  For chat*.c and tests. */
#ifndef HD_MODEL_CHAT_PARTS_H
#define HD_MODEL_CHAT_PARTS_H

#include "model/chat.h"

enum { HD_CHAT_MARKS = 16 };

/* Writes a conversation as ids.  Plain text collects in `text` and is encoded as one stretch when a control
 * token (or the end) follows, because a template's tokenizer sees it as one: "User: " and what the user says
 * share words. Encoding never makes a special token, so nothing a message spells can become one. The first
 * failure stays in `st` and silences the rest, so that a format reads like its template. */
typedef struct {
    const hd_tokenizer *t;
    hd_ids *out;
    hd_buf text;
    hd_buf *mask; // NULL, or a byte for each id: 1 where it holds something of what the assistant says
    hd_buf said;  // the same for each byte of `text`
    bool says;    // the assistant is speaking
    hd_status st;
    hd_err *err;
} hd_chat_pen;

/* A stretch of a message, borrowed. */
typedef struct {
    const char *p;
    size_t n;
} hd_span;

void hd_chat_text(hd_chat_pen *p, const char *s); // the format's own words
void hd_chat_span(hd_chat_pen *p, hd_span s);     // somebody's words
/* A control token by its spelling; text where the vocabulary lacks it, as the model's own tokenizer would. */
void hd_chat_control(hd_chat_pen *p, const char *token);
/* What follows shares no id with what stands before: a prompt ends here. */
void hd_chat_border(hd_chat_pen *p);
/* What follows is the assistant's own (its words, the token that ends its turn), or no more. */
static inline void hd_chat_says(hd_chat_pen *p, bool says) { p->says = says; }
void hd_chat_bos(hd_chat_pen *p, const char *otherwise);
void hd_chat_json_string(hd_chat_pen *p, hd_span s); // quoted and escaped

hd_span hd_span_of(const char *s);
hd_span hd_span_trim(hd_span s);                                 // Python's str.strip()
hd_span hd_span_strip(hd_span s, char c, bool left, bool right); // of one character
bool hd_span_cut(hd_span s, const char *mark, bool last, hd_span *before,
                 hd_span *after); // at the first or last mark
bool hd_span_starts(hd_span s, const char *with);
bool hd_span_ends(hd_span s, const char *with);

typedef struct {
    const hd_msg *msg;
    int n;
    const hd_chat_opts *o;
    bool thinking; // o->thinking with the format's default filled in
} hd_conversation;

struct hd_chat_format {
    const char *name;
    /* Telling a template: `need` are its control tokens (and words, of a format without any); `also` those it
     * may hold beside them; it is this very format when all of `has` and none of `lacks` and `alien` stand in
     * it. */
    const char *need[HD_CHAT_MARKS], *also[HD_CHAT_MARKS], *has[HD_CHAT_MARKS], *lacks[HD_CHAT_MARKS];
    const char *const *alien; // of the whole family; NULL ends the list
    const char *const *stop;  // up to 8 tokens that end a turn, those the vocabulary has; NULL ends the list
    void (*write)(hd_chat_pen *p, const hd_chat_format *f, const hd_conversation *c);
    const char *system; // default system prompt; NULL: none
    /* What stands after the assistant's header, with thinking on and off.  Pieces that spell <think> or
     * </think> are control tokens.  Equal pointers: no switch. */
    const char *open_on, *open_off;
    bool thinks; // answers have <think> ... </think>
    bool think_default;
    unsigned flags; // the writer's own
};

extern const hd_chat_format hd_chat_formats[]; // a row without a name ends the table

#endif
