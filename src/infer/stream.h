/* From ids to text that may be shown: whole characters, no stop strings, thinking apart from the answer. */
#ifndef HD_INFER_STREAM_H
#define HD_INFER_STREAM_H

#include "base/buf.h"
#include "model/tokenizer.h"

typedef struct {
    /* Set by the caller before hd_stream_open; all borrowed. */
    void (*text)(void *arg, hd_text_kind kind, const char *text,
                 size_t n); // NULL: the stop strings alone count
    void *arg;
    const char *const *stop; // end the answer; a thought may spell them
    int n_stop;
    const hd_tokenizer *tok;        // for hd_stream_id
    int32_t think_begin, think_end; // marks of a thought, -1: none
    const int32_t *spell;           // special ids that are part of the text, spelled (marks of tool calls)
    int n_spell;

    hd_text_kind kind;
    bool stopped;  // a stop string is complete: nothing follows
    const char *found; // ... this one
    bool at_start; // line ends here belong to the mark of a thought
    hd_buf raw;    // bytes that may still become a character
    hd_buf ready;  // valid text that may still become a stop string
} hd_stream;

/* Starts with this kind of text.  HD_USAGE: a stop string that is empty, missing or no UTF-8. */
hd_status hd_stream_open(hd_stream *s, hd_text_kind kind, hd_err *err);
void hd_stream_close(hd_stream *s);
/* One id more: a mark, or text (special ids have none).  HD_NOMEM. */
hd_status hd_stream_id(hd_stream *s, int32_t id, hd_err *err);
hd_status hd_stream_add(hd_stream *s, const char *bytes, size_t n, hd_err *err); // bytes of one token
/* A thought begins or ends: what was held back is told, line ends around the mark are left out. */
hd_status hd_stream_turn(hd_stream *s, hd_text_kind kind, hd_err *err);
/* The end: what was held back is told; half a character becomes U+FFFD. */
hd_status hd_stream_end(hd_stream *s, hd_err *err);

#endif
