/* The API without sockets: a request's JSON into one struct, a job's events into one writer,
 * whatever the dialect.
 *
 *   body --> dialect->read --> hd_chat_request --> (api_common.c: prompt, grammar, jobs)
 *   job events --> hd_writer_event --> dialect's pieces --> hd_writer.out --> (api_common.c: reply)
 *
 * A dialect (OpenAI's chat and completions, Anthropic, ollama, Responses) is one row of functions; streaming,
 * usage, reasons, tool calls and errors are kept once, here and in api_writer.c.  Reading and rendering run
 * on threads of work.h, all else on the network thread. */
#ifndef HD_SERVE_API_H
#define HD_SERVE_API_H

#include <jansson.h>

#include "serve/routes.h"
#include "serve/server.h"
#include "serve/tools.h"

enum {
    HD_API_MAX_CHOICES = 4,
    HD_API_MAX_STOPS = 16,
    HD_API_MAX_BIAS = 1024,
    HD_API_MAX_MESSAGES = 10000,
    HD_API_MAX_DEPTH = 256,      // levels of a request's JSON
    HD_API_MAX_VALUES = 1 << 20, // and values
    HD_API_MAX_BODY = 16 << 20,  // bytes
    HD_API_MAX_TOP = 20,         // top_logprobs
};

/* ---- Errors ---- */

typedef struct {
    int http;         // 400, 404, 422, 429, 501, 503 ...
    const char *code; // "invalid_value"; static
    char param[96];   // the field that is wrong, or ""
    char message[3000];
    int64_t n_prompt, n_ctx; // of a prompt that is too long; else 0
} hd_api_error;

/* Fill e; always HD_USAGE, so that HD_TRY leaves. */
hd_status hd_refuse(hd_api_error *e, int http, const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
hd_status hd_refuse_nomem(hd_api_error *e);
/* What a failure below means to a client. */
hd_status hd_refuse_for(hd_api_error *e, const hd_err *err, const char *param);

/* ---- A request ---- */

/* Memory that lives as long as the request. */
typedef struct hd_keep hd_keep;

typedef struct hd_dialect hd_dialect;

typedef enum { HD_FORMAT_TEXT, HD_FORMAT_JSON, HD_FORMAT_SCHEMA, HD_FORMAT_GRAMMAR } hd_format_kind;

typedef struct {
    const hd_dialect *dialect;
    json_t *body; // strings below are often its own
    hd_keep *keep;
    const char *model;      // as asked for; NULL: not given
    const char *model_name; // as answered
    int thinking;           // 1 on, 0 off, -1 the format's default
    int thinking_otherwise; // where neither request nor alias says it

    hd_message *msg; // a conversation; else a prompt
    int n_msg;
    bool prefix;                                  // the last message is the answer's beginning
    const char *prompt[HD_API_MAX_CHOICES];       // bare text
    const json_t *prompt_ids[HD_API_MAX_CHOICES]; // or ids
    int n_prompt;
    const char *suffix; // fill in the middle
    bool echo, raw;
    bool load_only; // ollama: nothing to answer

    bool stream, include_usage;
    int n;
    int64_t max_tok;
    hd_sample_opts sample;
    bool has_seed;
    hd_bias *bias;
    const char *stop[HD_API_MAX_STOPS];
    int n_stop;
    bool logprobs;
    int n_top;
    bool limit_thinking;
    int64_t think_tok;

    hd_format_kind format;
    const json_t *schema;
    const char *grammar;
    hd_tools tools;
} hd_chat_request;

/* Zeros, and the model's own sampling. */
void hd_chat_request_open(hd_chat_request *q, const hd_dialect *d, const hd_sample_opts *defaults);
void hd_chat_request_close(hd_chat_request *q);
/* Parse a body by the dialect's rules: q is complete, but for the model (hd_api_choose_model). */
hd_status hd_chat_request_read(hd_chat_request *q, const char *body, size_t n, hd_api_error *e);
/* The JSON of a body: an object, of bounded depth and size. */
hd_status hd_api_json(json_t **out, const char *body, size_t n, hd_api_error *e);
/* Find the model asked for among the server's names; 404 lists them. */
hd_status hd_api_choose_model(hd_chat_request *q, const hd_server *s, hd_api_error *e);
const hd_alias *hd_api_find_model(const hd_server *s, const char *name, bool *is_model);

/* Zeroed memory of the request; NULL without memory. */
void *hd_keep_alloc(hd_keep **k, size_t n);
const char *hd_keep_text(hd_keep **k, const char *s, size_t n);
void hd_keep_free(hd_keep *k);

/* ---- Fields (api_fields.c) ---- */

typedef enum { HD_FIELD_BOOL, HD_FIELD_INT, HD_FIELD_INT64, HD_FIELD_FLOAT } hd_field_kind;

/* A plain field: where it goes, and its range.  The same rows describe it in /openapi.json. */
typedef struct {
    const char *name;
    hd_field_kind kind;
    double min, max;
    size_t at; // offset in hd_chat_request
    const char *what;
} hd_field;
extern const hd_field hd_fields_openai[], hd_fields_anthropic[], hd_fields_ollama[],
    hd_fields_responses[]; // a row without a name ends it

/* Read those of the rows that o has; null counts as absent.  422 names what is of a wrong type
 * or out of range. */
hd_status hd_fields_read(void *into, const hd_field *row, const json_t *o, const char *prefix,
                         hd_api_error *e);
/* One string (or null): *out stays as it is when there is none. */
hd_status hd_field_string(const char **out, const json_t *o, const char *name, hd_api_error *e);
hd_status hd_field_bool(bool *out, const json_t *o, const char *name, hd_api_error *e);
/* "stop": a string or a list of up to 16. */
hd_status hd_field_stop(hd_chat_request *q, const json_t *o, const char *name, hd_api_error *e);
hd_status hd_field_bias(hd_chat_request *q, const json_t *o, hd_api_error *e);
/* How long it may think: "none" ... "high". */
hd_status hd_field_effort(hd_chat_request *q, const json_t *v, const char *name, hd_api_error *e);
/* Content that is a string, or a list of text parts, or null (*out "").  what: "messages[3].content". */
hd_status hd_field_content(hd_chat_request *q, const char **out, const json_t *v, const char *what,
                           hd_api_error *e);
/* Functions as OpenAI lists them ({"type": "function", "function": {...}}); flat: Responses' and
 * Anthropic's way. */
hd_status hd_field_tools(hd_chat_request *q, const json_t *v, bool flat, const char *schema_key,
                         hd_api_error *e);
/* "tool_choice" of OpenAI and Responses, once the tools are read. */
hd_status hd_field_tool_choice(hd_chat_request *q, const json_t *v, hd_api_error *e);
/* This is to be called (name: of HD_TOOLS_NAMED, may be NULL): is it there? */
hd_status hd_field_tool_chosen(hd_chat_request *q, hd_tool_choice choice, const char *name, hd_api_error *e);
/* A schema, or {"type": "json_object"} and its like. */
hd_status hd_field_format(hd_chat_request *q, const json_t *v, const char *name, hd_api_error *e);
/* Room for n messages. */
hd_status hd_request_messages(hd_chat_request *q, size_t n, const char *name, hd_api_error *e);

/* ---- The writer (api_writer.c) ---- */

typedef struct {
    char id[40];
    char *name, *arguments;
} hd_call_out;

typedef struct hd_writer hd_writer;

typedef struct {
    hd_writer *w; // which choice of which writer, for its parser
    int i;
    hd_buf text, thinking; // told so far (kept for whole replies, and by dialects that repeat it)
    json_t *logprobs;      // list, not yet told of in a stream
    json_t *logprobs_thinking;
    hd_call_out *call;
    int n_call;
    bool calling; // the last of them is not told to its end
    hd_tool_parser tools;
    bool begun, ended;
    hd_end reason;
    const char *stop_string; // one of the request's
    int64_t gen_tok, thinking_tok;
} hd_choice;

struct hd_writer {
    const hd_chat_request *q;
    const hd_dialect *d;
    const hd_tokenizer *tok; // for log-probabilities; may be NULL without them
    const char *id;          // of the request
    int64_t created;
    bool reasoning_too; // `reasoning` beside `reasoning_content`
    hd_choice choice[HD_API_MAX_CHOICES];
    int n_choice, n_ended;
    int64_t prompt_tok, cached_tok;
    double queue_s, prefill_s, gen_s;
    hd_buf out;   // what is to be sent; the caller sends and clears it
    hd_status st; // the first failure silences the rest
    hd_err err;
    bool failed; // the answer ended with an error:
    hd_api_error why;

    int block, item, seq; // counters of the dialects that number their parts
    char block_kind;
};

void hd_writer_open(hd_writer *w, const hd_chat_request *q, const hd_tokenizer *tok, const char *id,
                    int n_choice, int64_t prompt_tok);
void hd_writer_close(hd_writer *w);
/* What a stream begins with. */
void hd_writer_begin(hd_writer *w);
/* One event of choice i: appends to w->out when the request streams. */
void hd_writer_event(hd_writer *w, int i, const hd_job_event *e);
static inline bool hd_writer_done(const hd_writer *w) { return w->n_ended == w->n_choice || w->failed; }
/* The whole reply, after the last choice ended. */
void hd_writer_whole(hd_writer *w);
/* An error in mid-stream, in the dialect's shape. */
void hd_writer_fail(hd_writer *w, const hd_api_error *e);

/* For dialects.  j is taken; NULL counts as no memory. */
void hd_writer_put(hd_writer *w, const char *before, json_t *j, const char *after);
json_t *hd_text_json(const char *s, size_t n); // a string
json_t *hd_time_json(int64_t seconds);         // since 1970, as "2006-01-02T15:04:05Z"
/* A call's arguments as an object, {} where the limit cut them off. */
json_t *hd_call_object(const hd_call_out *c);
/* Take the list away. */
json_t *hd_take(json_t **j);
/* Both names of everything. */
json_t *hd_usage_openai(const hd_writer *w);
json_t *hd_timings(const hd_writer *w);

struct hd_dialect {
    const char *name;
    const char *stream_type; // Content-Type of a stream
    const char *keep_alive;  // sent in a stream while nothing else is; NULL: nothing may be
    const char *id_prefix, *call_prefix;
    hd_status (*read)(hd_chat_request *q, const json_t *o, hd_api_error *e);
    /* Pieces of a stream; each may be NULL.  text: n bytes more of the answer (or of the thought). */
    void (*begin)(hd_writer *w);
    void (*text)(hd_writer *w, int i, bool thinking, const char *s, size_t n);
    /* A call: its name, its arguments in one piece or many, its end (all of them are in c then). */
    void (*call_begin)(hd_writer *w, int i, const hd_call_out *c);
    void (*call_part)(hd_writer *w, int i, const hd_call_out *c, const char *s, size_t n);
    void (*call_end)(hd_writer *w, int i, const hd_call_out *c);
    void (*choice_end)(hd_writer *w, int i);
    void (*end)(hd_writer *w);
    json_t *(*whole)(hd_writer *w);
    json_t *(*error)(const hd_api_error *e, const char *id);
    void (*stream_error)(hd_writer *w, json_t *error_take);
    bool stream_default;
};
extern const hd_dialect hd_dialect_chat, hd_dialect_completion, hd_dialect_anthropic, hd_dialect_ollama_chat,
    hd_dialect_ollama_generate, hd_dialect_responses;

/* ---- Handlers (api_common.c and each dialect's file) ---- */

/* Answer with a completion in this dialect. */
void hd_api_run(hd_req *r, const hd_dialect *d);
/* Answer with what `make` makes of the body, away from the network thread; nothing of a request
 * may be used there. */
void hd_api_aside(hd_req *r, const hd_dialect *d,
                  hd_status (*make)(json_t **out, const char *body, size_t n, const hd_server *s, hd_api_error *e));
/* A whole reply of JSON (taken), or an error in the dialect's shape. */
void hd_api_reply(hd_req *r, int status, json_t *j);
void hd_api_refuse(hd_req *r, const hd_dialect *d, const hd_api_error *e);
void hd_api_fail(hd_req *r, const hd_dialect *d, int status, const char *code, const char *message);
void hd_api_fail_openai(hd_req *r, int status, const char *code, const char *message);
void hd_api_fail_anthropic(hd_req *r, int status, const char *code, const char *message);
void hd_api_fail_ollama(hd_req *r, int status, const char *code, const char *message);
/* The ids of a request's prompt (one of n_prompt), with the tools told of. */
hd_status hd_api_prompt(hd_ids *out, const hd_chat_request *q, const hd_server *s, int i, hd_api_error *e);

#endif
