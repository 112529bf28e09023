/* Bodies of requests, per dialect (the first byte); behind a NUL, what a model answers, in pieces that its
 * bytes choose.  A body is refused with a 4xx or becomes a request whose numbers are in their ranges; every
 * reply and every event is JSON. */
#include <string.h>

#include "serve/api.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const hd_dialect *const dialects[] = {
    &hd_dialect_chat,        &hd_dialect_completion,      &hd_dialect_anthropic,
    &hd_dialect_ollama_chat, &hd_dialect_ollama_generate, &hd_dialect_responses};

static void check_json(const char *s, size_t n)
{
    json_t *j = json_loadb(s, n, JSON_ALLOW_NUL, NULL); // a model may write one
    if (!j) abort();
    json_decref(j);
}

/* Each line of a stream: JSON behind "data: " (but for the last one), a line of JSON, the name of an event, a
 * comment, nothing. */
static void check_stream(const char *s, size_t n)
{
    for (const char *end; n > 0; n -= (size_t)(end + 1 - s), s = end + 1) {
        end = memchr(s, '\n', n);
        if (!end) abort();
        size_t len = (size_t)(end - s);
        if (len > 6 && memcmp(s, "data: ", 6) == 0) {
            if (len != 12 || memcmp(s + 6, "[DONE]", 6) != 0) check_json(s + 6, len - 6);
        } else if (len && s[0] == '{') {
            check_json(s, len);
        } else if (len && s[0] != ':' && memcmp(s, "event", 5) != 0) {
            abort();
        }
    }
}

static void check_request(const hd_chat_request *q)
{
    bool good = q->sample.temperature >= 0 && q->sample.temperature <= 2 && q->sample.top_p > 0 &&
                q->sample.top_p <= 1 && q->n >= 1 && q->n <= HD_API_MAX_CHOICES &&
                q->n_stop <= HD_API_MAX_STOPS && q->n_top <= HD_API_MAX_TOP && q->n_prompt * q->n <= 4;
    for (int i = 0; i < q->n_msg; i++) good = good && q->msg[i].role && q->msg[i].text;
    if (!good || (!q->n_msg && !q->n_prompt && !q->load_only)) abort();
}

static void answer(hd_chat_request *q, const uint8_t *p, size_t n)
{
    hd_writer w;
    hd_writer_open(&w, q, NULL, "req-1", q->n, 5);
    hd_writer_begin(&w);
    for (size_t i = 0; i < n;) {
        size_t len = 1 + p[i] % 16;
        if (len > n - i) len = n - i;
        for (size_t k = 0; k < len; k++) // whole characters are the scheduler's promise
            if (p[i + k] >= 128) len = k ? k : 1;
        char one[16];
        memcpy(one, p + i, len);
        if ((uint8_t)one[0] >= 128) one[0] = '?';
        hd_job_event e = {.kind = HD_JOB_TEXT,
                          .text_kind = p[i] % 5 == 0 ? HD_TEXT_THINKING : HD_TEXT_ANSWER,
                          .text = one,
                          .n = len};
        hd_writer_event(&w, 0, &e);
        i += len;
    }
    for (int i = 0; i < q->n; i++)
        hd_writer_event(&w, i,
                        &(hd_job_event){.kind = HD_JOB_DONE,
                                        .reason = n % 2 ? HD_END_STOP : HD_END_LENGTH,
                                        .gen_tok = 3});
    if (w.st != HD_OK || !hd_writer_done(&w)) abort();
    if (q->stream) check_stream(w.out.data ? w.out.data : "", w.out.len);
    else {
        hd_writer_whole(&w);
        check_json(w.out.data, w.out.len);
    }
    hd_writer_close(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const hd_sample_opts defaults = {.temperature = 0.7f, .top_p = 0.9f, .repetition_penalty = 1};
    static const hd_server server = {.model_name = "m", .any_model = true};
    hd_chat_request q;
    hd_api_error e = {0};
    if (size < 1) return 0;
    const uint8_t *body = data + 1, *end = memchr(body, 0, size - 1);
    size_t n = end ? (size_t)(end - body) : size - 1;
    hd_chat_request_open(&q, dialects[data[0] % 6], &defaults);
    hd_status st = hd_chat_request_read(&q, (const char *)body, n, &e);
    if (st == HD_OK) st = hd_api_choose_model(&q, &server, &e);
    if (st == HD_OK) {
        check_request(&q);
        answer(&q, end ? end + 1 : data, end ? size - 2 - n : 0);
    } else {
        if (e.http < 400 || e.http > 499 || !e.message[0]) abort();
        json_t *j = q.dialect->error(&e, "req-1");
        if (!j) abort();
        json_decref(j);
    }
    hd_chat_request_close(&q);
    return 0;
}
