/* Streaming text.  Bytes are held back for one of three reasons:
 *   1. they may be the beginning of a character (hd_utf8_whole)
 *   2. they may be the beginning of a stop string
 *   3. they are line ends around the marks of a thought, which belong to the format and not to the text
 * What is certain goes to the caller at once. */
#include "infer/stream.h"

#include <string.h>

#include "base/utf8.h"

enum { MAX_HELD = 1 << 20 };

hd_status hd_stream_open(hd_stream *s, const hd_tokenizer *tok, const hd_generate_opts *o,
                         int32_t think_begin, int32_t think_end, bool thinking, hd_err *err)
{
    *s = (hd_stream){.tok = tok,
                     .o = o,
                     .think_begin = think_begin,
                     .think_end = think_end,
                     .thinking = thinking,
                     .fresh = o->chat};
    hd_buf_init(&s->held, MAX_HELD);
    for (int i = 0; i < o->n_stop; i++) {
        size_t n = o->stop[i] ? strlen(o->stop[i]) : 0;
        if (n == 0 || n > 65536)
            return hd_fail(err, HD_USAGE, "stop string %d: must have 1 to 65536 bytes", i);
        if (n > s->longest_stop) s->longest_stop = n;
    }
    return HD_OK;
}

void hd_stream_close(hd_stream *s) { hd_buf_free(&s->held); }

static void drop(hd_buf *b, size_t n)
{
    memmove(b->data, b->data + n, b->len - n + 1);
    b->len -= n;
}

/* Show the first n held bytes. */
static hd_status show(hd_stream *s, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    hd_buf clean;
    if (n == 0) return HD_OK;
    hd_buf_init(&clean, 3 * (size_t)MAX_HELD + 1);
    HD_TRY(hd_utf8_repair(&clean, s->held.data, n, err));
    if (s->o->text)
        s->o->text(s->o->arg, s->thinking ? HD_TEXT_THINKING : HD_TEXT_ANSWER, clean.data, clean.len);
    drop(&s->held, n);
fail:
    hd_buf_free(&clean);
    return st;
}

/* The first place where a stop string stands; SIZE_MAX: nowhere. */
static size_t find_stop(const hd_stream *s)
{
    size_t at = SIZE_MAX;
    for (int i = 0; i < s->o->n_stop; i++) {
        const char *p = memmem(s->held.data, s->held.len, s->o->stop[i], strlen(s->o->stop[i]));
        if (p && (size_t)(p - s->held.data) < at) at = (size_t)(p - s->held.data);
    }
    return at;
}

/* Bytes at the end that could be the beginning of a stop string. */
static size_t maybe_stop(const hd_stream *s)
{
    size_t longest = s->longest_stop > 0 ? s->longest_stop - 1 : 0;
    if (longest > s->held.len) longest = s->held.len;
    for (size_t n = longest; n > 0; n--)
        for (int i = 0; i < s->o->n_stop; i++)
            if (strlen(s->o->stop[i]) > n && memcmp(s->held.data + s->held.len - n, s->o->stop[i], n) == 0)
                return n;
    return 0;
}

/* Show what is certain; `all`: everything. */
static hd_status flush(hd_stream *s, bool all, hd_err *err)
{
    bool stops = s->o->n_stop > 0 && !s->thinking;
    if (s->fresh && s->held.len > 0) {
        size_t n = strspn(s->held.data, "\r\n");
        drop(&s->held, n);
        if (s->held.len > 0) s->fresh = false;
    }
    if (s->held.len == 0) return HD_OK;
    if (stops) {
        size_t at = find_stop(s);
        if (at != SIZE_MAX) {
            s->stopped = true;
            s->held.len = at;
            s->held.data[at] = 0;
            return show(s, at, err);
        }
    }
    size_t n = s->held.len;
    if (!all) {
        n = hd_utf8_whole(s->held.data, s->held.len);
        size_t sure = stops ? s->held.len - maybe_stop(s) : s->held.len;
        /* A thought's last line end is the format's. */
        if (s->o->chat && s->thinking)
            while (sure > 0 && s->held.data[sure - 1] == '\n') sure--;
        if (sure < n) n = hd_utf8_whole(s->held.data, sure);
    }
    return show(s, n, err);
}

/* A thought begins or ends. */
static hd_status turn(hd_stream *s, bool thinking, hd_err *err)
{
    if (s->thinking && s->held.data)
        while (s->held.len > 0 && s->held.data[s->held.len - 1] == '\n') s->held.data[--s->held.len] = 0;
    hd_status st = flush(s, true, err);
    s->thinking = thinking;
    s->fresh = true;
    return st;
}

hd_status hd_stream_id(hd_stream *s, int32_t id, hd_err *err)
{
    size_t n = 0;
    if (s->stopped) return HD_OK;
    if (s->o->chat && id >= 0 && id == s->think_begin) return turn(s, true, err);
    if (s->o->chat && id >= 0 && id == s->think_end) return turn(s, false, err);
    const char *bytes = hd_tokenizer_is_special(s->tok, id) ? NULL : hd_tokenizer_bytes(s->tok, id, &n);
    if (!bytes || n == 0) return HD_OK;
    hd_status st = hd_buf_add(&s->held, bytes, n, err);
    return st == HD_OK ? flush(s, false, err) : st;
}

hd_status hd_stream_end(hd_stream *s, hd_err *err) { return s->stopped ? HD_OK : flush(s, true, err); }
