/* hadal generate: continue a text, and print the continuation alone. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/utf8.h"
#include "cli/cmd.h"
#include "cli/load.h"
#include "cli/terminal.h"
#include "model/json.h"

enum { MAX_PROMPT = 256 << 20 };

typedef struct {
    const char *prompt, *file, *system, *session, *grammar, *schema;
    int64_t n, think;
    bool chat, json, no_bos, stats;
    hd_opt_list stop;
    hd_load_opts load;
} options;

typedef struct {
    hd_buf text, thinking;
    bool print, tty, failed; // tty: a person's screen, which must not obey the model
} output;

static void on_text(void *arg, hd_text_kind kind, const char *text, size_t n)
{
    output *o = arg;
    if (o->print && kind == HD_TEXT_ANSWER) {
        if (o->tty) hd_print_shown(stdout, text, n);
        else fwrite(text, 1, n, stdout);
        fflush(stdout);
    }
    if (!o->print && hd_buf_add(kind == HD_TEXT_ANSWER ? &o->text : &o->thinking, text, n, NULL) != HD_OK)
        o->failed = true;
}

/* The prompt's bytes: -p, -f FILE ("-" is standard input), or standard input. */
static hd_status read_prompt(hd_buf *b, const options *o, hd_err *err)
{
    char part[65536];
    size_t n;
    hd_status st;
    if (o->prompt) return hd_buf_adds(b, o->prompt, err);
    if (o->file && strcmp(o->file, "-") != 0) return hd_file_read(b, o->file, err);
    if (isatty(STDIN_FILENO) == 1) fputs("reading the prompt: Ctrl-D ends it\n", stderr);
    while ((n = fread(part, 1, sizeof part, stdin)) > 0) HD_TRY(hd_buf_add(b, part, n, err));
    if (ferror(stdin)) return hd_fail_errno(err, "generate: standard input");
    return HD_OK;
fail:
    return st;
}

static hd_status prompt_ids(hd_ids *ids, const hd_loaded *l, const hd_buf *text, const options *o,
                            hd_err *err)
{
    const char *s = text->data ? text->data : "";
    if (o->chat) {
        hd_message m[2] = {{.role = "system", .text = o->system}, {.role = "user", .text = s}};
        return o->system ? hd_engine_render(l->engine, m, 2, -1, ids, err)
                         : hd_engine_render(l->engine, m + 1, 1, -1, ids, err);
    }
    const hd_tokenizer *t = hd_engine_tokenizer(l->engine, err);
    if (!t) return HD_UNSUPPORTED;
    hd_status st = HD_OK;
    if (!o->no_bos && hd_tokenizer_adds_bos(t) && hd_tokenizer_bos(t) >= 0)
        st = hd_ids_add(ids, hd_tokenizer_bos(t), err);
    if (st == HD_OK) st = hd_tokenizer_encode(t, s, text->len, ids, err);
    if (st == HD_OK && ids->n == 0)
        st = hd_fail(err, HD_USAGE, "generate: empty prompt: give one with -p TEXT");
    return st;
}

/* The answer's grammar: NULL without the options. */
static hd_status read_grammar(hd_grammar **g, const options *o, hd_err *err)
{
    hd_status st = HD_OK;
    hd_buf text;
    hd_buf_init(&text, 16 << 20);
    if (o->grammar && o->schema)
        HD_TRY(hd_fail(err, HD_USAGE, "generate: give --grammar or --json-schema, not both"));
    if (o->grammar || o->schema) HD_TRY(hd_file_read(&text, o->grammar ? o->grammar : o->schema, err));
    if (o->grammar) HD_TRY(hd_grammar_open(g, text.data ? text.data : "", text.len, err));
    if (o->schema) HD_TRY(hd_grammar_open_schema_text(g, text.data ? text.data : "", text.len, err));
fail:
    hd_buf_free(&text);
    return st;
}

static const char *reason(hd_stop_reason why)
{
    static const char *const names[] = {"stop", "length", "stop_string", "context", "interrupted"};
    return names[why];
}

static hd_status print_json(const hd_loaded *l, const output *out, const hd_generated *r, int64_t n_prompt,
                            double prompt_s, hd_err *err)
{
    json_t *ids = json_array();
    const int32_t *id = hd_session_ids(l->session);
    bool whole = ids != NULL && !out->failed;
    for (int64_t i = n_prompt; whole && i < hd_session_len(l->session); i++)
        whole = json_array_append_new(ids, json_integer(id[i])) == 0;
    json_t *j = json_pack("{s:s%, s:s%, s:o, s:s, s:I, s:I, s:f, s:f, s:I, s:I, s:I}", "text",
                          out->text.data ? out->text.data : "", out->text.len, "reasoning_content",
                          out->thinking.data ? out->thinking.data : "", out->thinking.len, "ids", ids,
                          "finish_reason", reason(r->why), "prompt_tokens", (json_int_t)n_prompt,
                          "completion_tokens", (json_int_t)r->n_tok, "prompt_seconds", prompt_s, "seconds",
                          r->seconds, "passes", (json_int_t)r->n_passes, "drafted", (json_int_t)r->n_drafted,
                          "accepted", (json_int_t)r->n_accepted);
    if (!whole) {
        json_decref(j);
        return hd_fail(err, HD_NOMEM, "generate: no memory for the report");
    }
    return hd_json_print_take(j, JSON_PRESERVE_ORDER, "generate: report", err);
}

static void print_stats(const hd_generated *r, int64_t n_prompt, double prompt_s)
{
    fprintf(stderr, "%lld prompt ids in %.2f s (%.1f/s), %lld ids in %.2f s (%.1f/s)", (long long)n_prompt,
            prompt_s, (double)n_prompt / prompt_s, (long long)r->n_tok, r->seconds,
            (double)r->n_tok / r->seconds);
    if (r->n_drafted > 0)
        fprintf(stderr, ", %lld passes, %lld of %lld guesses accepted", (long long)r->n_passes,
                (long long)r->n_accepted, (long long)r->n_drafted);
    fputc('\n', stderr);
}

static hd_status generate(hd_loaded *l, const options *o, const hd_ids *ids, hd_grammar *grammar, hd_err *err)
{
    hd_status st;
    output out = {.print = !o->json, .tty = isatty(STDOUT_FILENO) == 1};
    hd_generated r;
    hd_watch watch = {.stop = &hd_interrupted};
    hd_generate_opts g = {.max_tok = o->n,
                          .stop = o->stop.v,
                          .n_stop = o->stop.n,
                          .chat = o->chat,
                          .text = on_text,
                          .arg = &out,
                          .grammar = grammar};
    g.limit_thinking = o->think >= 0;
    g.think_tok = o->think;
    g.stop_flag = &hd_interrupted;
    hd_buf_init(&out.text, (size_t)1 << 30);
    hd_buf_init(&out.thinking, (size_t)1 << 30);
    double t0 = hd_now_s();
    if (o->session && hd_is_file(o->session)) HD_TRY(hd_session_restore(l->session, o->session, err));
    HD_TRY(hd_session_sync(l->session, ids->id, ids->n, &watch, err));
    double prompt_s = hd_now_s() - t0;
    hd_sampler_reset(l->sampler, ids->id, ids->n);
    HD_TRY(hd_generate(l->session, l->sampler, &g, &r, err));
    if (o->json) HD_TRY(print_json(l, &out, &r, ids->n, prompt_s, err));
    else putchar('\n');
    if (o->session) HD_TRY(hd_session_save(l->session, o->session, err));
    if (o->stats) print_stats(&r, ids->n, prompt_s);
    if (r.why == HD_STOP_CONTEXT)
        hd_warn("generate: the context of %lld ids is full: ask for more with --ctx",
                (long long)hd_engine_ctx_tok(l->engine));
    if (r.why == HD_STOP_FLAG)
        st = hd_fail(err, HD_CANCELLED, "generate: interrupted after %lld ids", (long long)r.n_tok);
fail:
    hd_buf_free(&out.text);
    hd_buf_free(&out.thinking);
    return st;
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    options o = {.n = 256, .think = -1, .load = HD_LOAD_DEFAULTS};
    const hd_opt opts[] = {
        {"prompt", 'p', HD_OPT_STR, &o.prompt, 0, 0},
        {"file", 'f', HD_OPT_STR, &o.file, 0, 0},
        {"n-predict", 'n', HD_OPT_INT, &o.n, 0, 1 << 30},
        {"chat", 0, HD_OPT_FLAG, &o.chat, 0, 0},
        {"chat-format", 0, HD_OPT_STR, &o.load.chat_format, 0, 0},
        {"system", 0, HD_OPT_STR, &o.system, 0, 0},
        {"think-budget", 0, HD_OPT_INT, &o.think, 0, 1 << 30},
        {"session", 0, HD_OPT_STR, &o.session, 0, 0},
        {"stop", 0, HD_OPT_LIST, &o.stop, 0, 0},
        {"grammar", 0, HD_OPT_STR, &o.grammar, 0, 0},
        {"json-schema", 0, HD_OPT_STR, &o.schema, 0, 0},
        {"no-bos", 0, HD_OPT_FLAG, &o.no_bos, 0, 0},
        {"stats", 0, HD_OPT_FLAG, &o.stats, 0, 0},
        {"json", 0, HD_OPT_FLAG, &o.json, 0, 0},
        HD_MODEL_OPTS(o.load),
        HD_DRAFT_OPTS(o.load),
        HD_SAMPLE_OPTS(o.load),
    };
    int n = 0;
    hd_loaded l = {0};
    hd_ids ids = {0};
    hd_grammar *grammar = NULL;
    hd_buf text;
    hd_buf_init(&text, MAX_PROMPT);
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n != 1) HD_TRY(hd_fail(err, HD_USAGE, "generate: one model is needed: hadal generate MODEL -p TEXT"));
    if (o.prompt && o.file)
        HD_TRY(hd_fail(err, HD_USAGE, "generate: give the prompt with -p or with -f, not both"));
    HD_TRY(read_grammar(&grammar, &o, err));
    HD_TRY(read_prompt(&text, &o, err));
    hd_watch_signals();
    HD_TRY(hd_load(&l, argv[1], &o.load, err));
    HD_TRY(prompt_ids(&ids, &l, &text, &o, err));
    HD_TRY(generate(&l, &o, &ids, grammar, err));
fail:
    hd_grammar_close(grammar);
    hd_ids_free(&ids);
    hd_buf_free(&text);
    hd_loaded_close(&l);
    return st;
}

const hd_command hd_cmd_generate = {
    .verb = "generate",
    .summary = "continue a text",
    .help =
        "usage: hadal generate MODEL [-p TEXT | -f FILE] [options]\n\n"
        "Prints the continuation alone; without -p and -f the prompt is read from standard input.\n\n"
        "  -p, --prompt TEXT  -f, --file FILE\n"
        "  -n, --n-predict N        at most N ids (256); 0: until the text or the context ends\n"
        "      --chat               the prompt is what a user says; --system TEXT goes before it\n"
        "      --chat-format NAME   instead of the model's own\n"
        "      --think-budget N     end the thinking after N ids\n"
        "      --stop TEXT          end before this text (may be repeated)\n"
        "      --session FILE       keep what was computed, and take it up when a prompt begins the same\n"
        "      --grammar FILE       the answer keeps to this GBNF grammar\n"
        "      --json-schema FILE   the answer is JSON that this schema accepts\n"
        "      --no-bos             do not begin with the model's BOS\n"
        "      --stats              speed on stderr\n"
        "      --json               one JSON object: text, ids, finish_reason, counts, "
        "seconds\n" HD_MODEL_HELP HD_DRAFT_HELP HD_SAMPLE_HELP "\nexamples:\n"
        "  hadal generate smollm2.gguf -p 'Once upon a time' -n 64 --temp 0\n"
        "  hadal generate r1.gguf --chat -p 'What is 17 * 23?' --think-budget 500\n"
        "  hadal generate qwen-1.5b.gguf -f code.py --draft qwen-0.5b.gguf --stats\n",
    .run = run,
};
