/* A prefix is what two conversations have in common that begin with this system prompt and ask different
 * things; and, for plain completions, the text alone.  A prompt is compared with each id by id, so that
 * nothing is shared but what the operator wrote and the marks of the chat format around it. */
#include "serve/shared.h"

#include <string.h>

#include "base/file.h"
#include "hadal.h"

enum { MAX_TEXT = 1 << 20 };

struct hd_shared {
    int n;
    hd_ids ids[]; // two a file; one that this model cannot say is empty
};

static int64_t common(const hd_ids *a, const hd_ids *b)
{
    int64_t n = 0;
    while (n < a->n && n < b->n && a->id[n] == b->id[n]) n++;
    return n;
}

static hd_status chat_ids(hd_ids *out, const hd_engine *e, const char *text, hd_err *err)
{
    hd_status st;
    hd_ids other = {0};
    hd_message m[2] = {{.role = "system", .text = text}, {.role = "user", .text = "a"}};
    if (!hd_engine_chat_name(e)) return HD_OK;
    HD_TRY(hd_engine_render(e, m, 2, -1, out, err));
    m[1].text = "0";
    HD_TRY(hd_engine_render(e, m, 2, -1, &other, err));
    out->n = common(out, &other);
fail:
    hd_ids_free(&other);
    return st;
}

static hd_status plain_ids(hd_ids *out, const hd_engine *e, const char *text, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    const hd_tokenizer *t = hd_engine_tokenizer(e, err);
    if (!t) return err->code;
    if (hd_tokenizer_adds_bos(t)) HD_TRY(hd_ids_add(out, hd_tokenizer_bos(t), err));
    HD_TRY(hd_tokenizer_encode(t, text, n, out, err));
fail:
    return st;
}

hd_status hd_shared_open(hd_shared **out, const hd_engine *e, const char *const *file, int n, hd_err *err)
{
    hd_status st = HD_OK;
    hd_shared *s = NULL;
    hd_buf text;
    *out = NULL;
    hd_buf_init(&text, MAX_TEXT);
    if (n == 0) return HD_OK;
    HD_TRY(hd_alloc(&s, sizeof *s + 2 * (size_t)n * sizeof s->ids[0], err));
    s->n = 2 * n;
    for (int i = 0; i < n; i++) {
        hd_buf_clear(&text);
        HD_TRY(hd_file_read(&text, file[i], err));
        while (text.len && text.data[text.len - 1] == '\n') text.data[--text.len] = 0; // an editor's, not the prompt's
        if (!text.len || strlen(text.data) != text.len)
            HD_TRY(hd_fail(err, HD_FORMAT, "shared prefix: %s: %s", file[i], text.len ? "a NUL in it" : "empty"));
        HD_TRY(chat_ids(&s->ids[2 * i], e, text.data, err));
        HD_TRY(plain_ids(&s->ids[2 * i + 1], e, text.data, text.len, err));
        if (s->ids[2 * i].n >= hd_engine_ctx_tok(e))
            HD_TRY(hd_fail(err, HD_LIMIT, "shared prefix: %s: %lld tokens, and the context holds %lld", file[i],
                           (long long)s->ids[2 * i].n, (long long)hd_engine_ctx_tok(e)));
    }
    *out = s;
    s = NULL;
fail:
    hd_buf_free(&text);
    hd_shared_close(s);
    return st;
}

void hd_shared_close(hd_shared *s)
{
    for (int i = 0; s && i < s->n; i++) hd_ids_free(&s->ids[i]);
    free(s);
}

int64_t hd_shared_tok(const hd_shared *s, const hd_ids *prompt)
{
    int64_t best = 0;
    for (int i = 0; s && i < s->n; i++) {
        int64_t n = common(&s->ids[i], prompt);
        if (n > best) best = n;
    }
    return best;
}

const hd_ids *hd_shared_ids(const hd_shared *s, int i) { return s && i < s->n ? &s->ids[i] : NULL; }
