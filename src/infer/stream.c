/* Text in pieces.  Bytes pass two gates:
 *
 *   token --> raw --[whole characters; wrong ones are U+FFFD]--> ready --[could it be a stop string?]--> text()
 *
 * The second gate also holds back line ends that may stand before the mark which ends a thought: they belong
 * to the format, as those behind it do.
 *
 * A stop string counts from the byte that completes it, and of two the one that is complete first ends the
 * text (the longer one if both end there).  So what is told does not depend on where the borders of the
 * tokens are. */
#include "infer/stream.h"

#include <string.h>

#include "base/utf8.h"

static const size_t MAX_HELD = (size_t)1 << 30; // of a buffer: far more than a token and a stop string

static bool is_valid(const char *s)
{
    size_t n = strlen(s);
    for (int32_t cp; n > 0;) {
        int len = hd_utf8_next((const uint8_t *)s, n, &cp);
        if (cp < 0) return false;
        s += len, n -= (size_t)len;
    }
    return true;
}

hd_status hd_stream_open(hd_stream *s, hd_text_kind kind, hd_err *err)
{
    s->kind = kind;
    s->stopped = s->at_start = false;
    s->found = NULL;
    hd_buf_init(&s->raw, MAX_HELD);
    hd_buf_init(&s->ready, MAX_HELD);
    if (s->n_stop < 0 || (s->n_stop > 0 && !s->stop))
        return hd_fail(err, HD_USAGE, "stop strings: %d of them without a list", s->n_stop);
    for (int i = 0; i < s->n_stop; i++)
        if (!s->stop[i] || !s->stop[i][0] || !is_valid(s->stop[i]))
            return hd_fail(err, HD_USAGE, "stop strings: number %d: is %s", i + 1,
                           s->stop[i] && s->stop[i][0] ? "no UTF-8" : "empty");
    return HD_OK;
}

void hd_stream_close(hd_stream *s)
{
    hd_buf_free(&s->raw);
    hd_buf_free(&s->ready);
}

static void cut_front(hd_buf *b, size_t n)
{
    if (n == 0) return;
    memmove(b->data, b->data + n, b->len - n + 1);
    b->len -= n;
}

/* Tell the first n bytes of `ready`. */
static void tell(hd_stream *s, size_t n)
{
    size_t skip = 0;
    while (s->at_start && skip < n && s->ready.data[skip] == '\n') skip++;
    if (n > skip) {
        s->at_start = false;
        if (s->text) s->text(s->arg, s->kind, s->ready.data + skip, n - skip);
    }
    cut_front(&s->ready, n);
}

/* Where the text ends because of a stop string, which is noted; SIZE_MAX: none is complete. */
static size_t find_stop(hd_stream *s)
{
    size_t start = SIZE_MAX, end = SIZE_MAX;
    for (int i = 0; i < s->n_stop; i++) {
        size_t n = strlen(s->stop[i]);
        const char *at = memmem(s->ready.data, s->ready.len, s->stop[i], n);
        if (!at) continue;
        size_t a = (size_t)(at - s->ready.data);
        if (a + n < end || (a + n == end && a < start)) start = a, end = a + n, s->found = s->stop[i];
    }
    return start;
}

/* Bytes at the end of `ready` that begin a stop string, or may belong to the end of a thought. */
static size_t held_back(const hd_stream *s)
{
    size_t most = 0;
    if (s->kind == HD_TEXT_THINKING) {
        while (most < s->ready.len && s->ready.data[s->ready.len - most - 1] == '\n') most++;
        return most;
    }
    for (int i = 0; i < s->n_stop; i++) {
        size_t n = strlen(s->stop[i]) - 1;
        if (n > s->ready.len) n = s->ready.len;
        for (; n > most; n--)
            if (memcmp(s->ready.data + s->ready.len - n, s->stop[i], n) == 0) most = n;
    }
    return most;
}

/* Move the first n bytes of `raw` through both gates. */
static hd_status pass_on(hd_stream *s, size_t n, hd_err *err)
{
    hd_status st;
    if (n == 0) return HD_OK;
    HD_TRY(hd_utf8_repair(&s->ready, s->raw.data, n, err));
    cut_front(&s->raw, n);
    size_t stop = s->kind == HD_TEXT_ANSWER ? find_stop(s) : SIZE_MAX;
    if (stop != SIZE_MAX) {
        tell(s, stop);
        s->stopped = true;
        hd_buf_clear(&s->raw);
        hd_buf_clear(&s->ready);
    } else {
        tell(s, s->ready.len - held_back(s));
    }
fail:
    return st;
}

hd_status hd_stream_add(hd_stream *s, const char *bytes, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    if (s->stopped || n == 0) return HD_OK;
    HD_TRY(hd_buf_add(&s->raw, bytes, n, err));
    HD_TRY(pass_on(s, hd_utf8_whole(s->raw.data, s->raw.len), err));
fail:
    return st;
}

hd_status hd_stream_end(hd_stream *s, hd_err *err)
{
    hd_status st = HD_OK;
    if (s->stopped) return HD_OK;
    HD_TRY(pass_on(s, s->raw.len, err));
    if (s->ready.len) tell(s, s->ready.len);
fail:
    return st;
}

hd_status hd_stream_turn(hd_stream *s, hd_text_kind kind, hd_err *err)
{
    hd_status st = HD_OK;
    if (s->stopped) return HD_OK;
    HD_TRY(pass_on(s, s->raw.len, err));
    size_t n = s->ready.len;
    if (s->kind == HD_TEXT_THINKING)
        while (n > 0 && s->ready.data[n - 1] == '\n') n--;
    if (n > 0) tell(s, n);
    hd_buf_clear(&s->ready);
    s->kind = kind;
    s->at_start = true;
fail:
    return st;
}

static bool is_silent(const hd_stream *s, int32_t id)
{
    for (int i = 0; i < s->n_spell; i++)
        if (s->spell[i] == id) return false;
    return hd_tokenizer_is_special(s->tok, id);
}

hd_status hd_stream_id(hd_stream *s, int32_t id, hd_err *err)
{
    size_t n = 0;
    if (id >= 0 && id == s->think_begin) return hd_stream_turn(s, HD_TEXT_THINKING, err);
    if (id >= 0 && id == s->think_end) return hd_stream_turn(s, HD_TEXT_ANSWER, err);
    const char *bytes = is_silent(s, id) ? NULL : hd_tokenizer_bytes(s->tok, id, &n);
    return bytes ? hd_stream_add(s, bytes, n, err) : HD_OK;
}
