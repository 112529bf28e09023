/* From ids to text that may be shown: whole characters, no stop strings, thinking apart from the answer. */
#ifndef HD_INFER_STREAM_H
#define HD_INFER_STREAM_H

#include "base/buf.h"
#include "model/tokenizer.h"

typedef struct {
    const hd_tokenizer *tok;
    const hd_generate_opts *o;
    int32_t think_begin, think_end; // -1: none
    bool thinking;                  // inside a thought
    bool fresh;                     // nothing of this part was shown yet: line ends before it are dropped
    bool stopped;                   // a stop string was seen
    hd_buf held;                    // bytes not yet shown
    size_t longest_stop;
} hd_stream;

/* o is borrowed as long as the stream. */
hd_status hd_stream_open(hd_stream *s, const hd_tokenizer *tok, const hd_generate_opts *o,
                         int32_t think_begin, int32_t think_end, bool thinking, hd_err *err);
void hd_stream_close(hd_stream *s);
/* One id more.  Afterwards s->stopped tells whether a stop string has ended the text. */
hd_status hd_stream_id(hd_stream *s, int32_t id, hd_err *err);
/* The end: what was held back is shown; half a character becomes U+FFFD. */
hd_status hd_stream_end(hd_stream *s, hd_err *err);

#endif
