/* The chat formats: one row each in the table at the end, and four writers, each the few lines that its
 * family's templates come down to for conversations without function calls.
 *
 *   DeepSeek V2    BOS system\n\n User: ...\n\n Assistant: ... EOS User: ...
 *   DeepSeek V3    BOS system <｜User｜>...<｜Assistant｜>...EOS <｜User｜>...      V3.1 and R1: the same and
 *                  <think>
 *   ChatML         <|im_start|>role\n...<|im_end|>\n                              Qwen, SmolLM
 *   Llama 3        BOS <|start_header_id|>role<|end_header_id|>\n\n...<|eot_id|>
 *
 * A writer follows its templates to the letter, oddities included: a model has seen nothing else.  Reasoning
 * (message.thinking) appears only where the template puts it back; Qwen 3 alone does, and for the last turn
 * only. */
#include <string.h>
#include <time.h>

#include "model/chat_parts.h"

#define DS_BOS         "<｜begin▁of▁sentence｜>"
#define DS_EOS         "<｜end▁of▁sentence｜>"
#define DS_USER        "<｜User｜>"
#define DS_ASSISTANT   "<｜Assistant｜>"
#define DS_OUTPUT      "<｜tool▁output▁begin｜>"
#define DS_OUTPUT_END  "<｜tool▁output▁end｜>"
#define DS_OUTPUTS     "<｜tool▁outputs▁begin｜>"
#define DS_OUTPUTS_END "<｜tool▁outputs▁end｜>"
#define DS_CALLS       "<｜tool▁calls▁begin｜>"
#define DS_CALLS_END   "<｜tool▁calls▁end｜>"
#define DS_CALL        "<｜tool▁call▁begin｜>"
#define DS_CALL_END    "<｜tool▁call▁end｜>"
#define DS_SEP         "<｜tool▁sep｜>"

static hd_span content(const hd_msg *m) { return (hd_span){m->text, m->n}; }

static const char *role_name(hd_role r)
{
    static const char *const names[] = {"system", "user", "assistant", "tool"};
    return names[r];
}

/* Format text that may spell <think> or </think>: those are control tokens whatever their kind in the
 * vocabulary. */
static void put_marked(hd_chat_pen *p, const char *s)
{
    static const char *const marks[] = {"<think>", "</think>"};
    while (*s) {
        size_t plain = strcspn(s, "<");
        hd_chat_span(p, (hd_span){s, plain});
        s += plain;
        const char *mark = NULL;
        for (int i = 0; i < 2 && !mark; i++)
            if (strncmp(s, marks[i], strlen(marks[i])) == 0) mark = marks[i];
        if (mark) hd_chat_control(p, mark);
        else if (*s) hd_chat_span(p, (hd_span){s, 1});
        s += mark ? strlen(mark) : *s != 0;
    }
}

/* What follows the assistant's header when it is to speak. */
static void put_opening(hd_chat_pen *p, const hd_chat_format *f, const hd_conversation *c)
{
    const char *s = c->thinking ? f->open_on : f->open_off;
    if (s) put_marked(p, s);
}

/* Calls as most models write them: JSON between <tool_call> and </tool_call>, a line each. */
static void put_tagged_calls(hd_chat_pen *p, const hd_msg *m)
{
    for (int i = 0; i < m->n_call; i++) {
        if (i > 0 || m->n > 0) hd_chat_text(p, "\n");
        hd_chat_control(p, "<tool_call>");
        hd_chat_text(p, "\n{\"name\": ");
        hd_chat_json_string(p, hd_span_of(m->call[i].name));
        hd_chat_text(p, ", \"arguments\": ");
        hd_chat_text(p, m->call[i].arguments);
        hd_chat_text(p, "}\n");
        hd_chat_control(p, "</tool_call>");
    }
}

/* ---- DeepSeek V2 ---- */

static void write_deepseek_v2(hd_chat_pen *p, const hd_chat_format *f, const hd_conversation *c)
{
    hd_chat_bos(p, DS_BOS);
    for (int i = 0; i < c->n; i++) {
        const hd_msg *m = &c->msg[i];
        if (m->role == HD_ROLE_TOOL) continue;
        if (m->role == HD_ROLE_USER) hd_chat_text(p, "User: ");
        if (m->role == HD_ROLE_ASSISTANT) {
            hd_chat_text(p, "Assistant:");
            hd_chat_says(p, true);
            hd_chat_text(p, " ");
        }
        hd_chat_span(p, content(m));
        put_tagged_calls(p, m);
        if (m->role == HD_ROLE_ASSISTANT) hd_chat_control(p, DS_EOS);
        else hd_chat_text(p, "\n\n");
        hd_chat_says(p, false);
    }
    if (c->o->add_generation_prompt) hd_chat_text(p, "Assistant:");
}

/* ---- DeepSeek V2.5, V3, V3.1, R1 ---- */

enum {
    LAST_SYSTEM = 1,  // the last system prompt counts; else all, with an empty line between
    DROP_THOUGHT = 2, // an answer begins after its last </think>
    WITH_USER =
        4,   // the assistant's header is part of the user's turn; answers to tools drop their thoughts too
    V31 = 8, // a mark that the answer has no thought, after the first header; one block a tool output
};

static void put_systems(hd_chat_pen *p, const hd_conversation *c, bool last_only)
{
    bool first = true;
    const hd_msg *last = NULL;
    for (int i = 0; i < c->n; i++) {
        if (c->msg[i].role != HD_ROLE_SYSTEM) continue;
        last = &c->msg[i];
        if (last_only) continue;
        if (!first) hd_chat_text(p, "\n\n");
        first = false;
        hd_chat_span(p, content(last));
    }
    if (last_only && last) hd_chat_span(p, content(last));
}

static hd_span answer(const hd_chat_format *f, const hd_msg *m)
{
    hd_span s = content(m), before;
    if (f->flags & (DROP_THOUGHT | V31)) hd_span_cut(s, "</think>", f->flags & DROP_THOUGHT, &before, &s);
    return s;
}

/* No prompt without the beginning of a thought. */
static bool always_thinks(const hd_chat_format *f)
{
    return f->open_on && f->open_on[0] && strcmp(f->open_on, f->open_off) == 0;
}

/* A thought (perhaps none) as the model writes it, behind what it is given. */
static void put_thought(hd_chat_pen *p, const hd_chat_format *f, const hd_msg *m)
{
    const char *line = f->flags & V31 ? "" : "\n";
    if (f->open_on) {
        put_marked(p, f->open_on);
        hd_chat_border(p);
    }
    hd_chat_says(p, true);
    if (!f->open_on) {
        hd_chat_control(p, "<think>");
        hd_chat_text(p, line);
    }
    hd_chat_span(p, hd_span_strip((hd_span){m->thinking, m->n_thinking}, '\n', true, true));
    hd_chat_text(p, line);
    hd_chat_control(p, "</think>");
    hd_chat_text(p, line);
    hd_chat_text(p, line);
}

static void put_output(hd_chat_pen *p, const hd_chat_format *f, const hd_msg *m, bool *first)
{
    if (!(f->flags & V31)) {
        if (*first) hd_chat_control(p, DS_OUTPUTS);
        else hd_chat_text(p, "\n");
        *first = false;
    }
    hd_chat_control(p, DS_OUTPUT);
    hd_chat_span(p, content(m));
    hd_chat_control(p, DS_OUTPUT_END);
}

/* V3 and R1 name the kind of tool and fence the arguments; V3.1 writes name and arguments alone. */
static void put_deepseek_calls(hd_chat_pen *p, const hd_msg *m, bool v31)
{
    hd_chat_control(p, DS_CALLS);
    for (int i = 0; i < m->n_call; i++) {
        if (i > 0 && !v31) hd_chat_text(p, "\n");
        hd_chat_control(p, DS_CALL);
        if (!v31) {
            hd_chat_text(p, "function");
            hd_chat_control(p, DS_SEP);
        }
        hd_chat_text(p, m->call[i].name);
        if (v31) hd_chat_control(p, DS_SEP);
        else hd_chat_text(p, "\n```json\n");
        hd_chat_text(p, m->call[i].arguments);
        if (!v31) hd_chat_text(p, "\n```");
        hd_chat_control(p, DS_CALL_END);
    }
    hd_chat_control(p, DS_CALLS_END);
}

static void write_deepseek(hd_chat_pen *p, const hd_chat_format *f, const hd_conversation *c)
{
    bool v31 = f->flags & V31, tool = false, first_output = true, after_user = false, keep;
    hd_chat_bos(p, DS_BOS);
    put_systems(p, c, f->flags & LAST_SYSTEM);
    for (int i = 0; i < c->n; i++) {
        const hd_msg *m = &c->msg[i];
        switch (m->role) {
        case HD_ROLE_SYSTEM: continue;
        case HD_ROLE_USER:
            tool = false;
            hd_chat_control(p, DS_USER);
            hd_chat_span(p, content(m));
            if (f->flags & WITH_USER) hd_chat_control(p, DS_ASSISTANT);
            break;
        case HD_ROLE_ASSISTANT:
            keep = c->o->keep_thought && i == c->n - 1 && f->thinks && (m->thinking || always_thinks(f));
            if (v31 && after_user) {
                hd_chat_control(p, DS_ASSISTANT);
                if (!keep) put_marked(p, f->open_off);
            }
            if (!v31 && tool) hd_chat_control(p, DS_OUTPUTS_END);
            if (!v31 && !tool && !(f->flags & WITH_USER)) hd_chat_control(p, DS_ASSISTANT);
            if (keep) put_thought(p, f, m);
            hd_chat_says(p, true);
            hd_chat_span(p, keep || (tool && !(f->flags & WITH_USER)) ? content(m) : answer(f, m));
            if (m->n_call > 0) {
                put_deepseek_calls(p, m, v31);
                first_output = true;
            }
            hd_chat_control(p, DS_EOS);
            hd_chat_says(p, false);
            tool = false;
            break;
        case HD_ROLE_TOOL:
            tool = true;
            put_output(p, f, m, &first_output);
            break;
        }
        after_user = m->role == HD_ROLE_USER;
    }
    if (tool && !v31) hd_chat_control(p, DS_OUTPUTS_END);
    if (!c->o->add_generation_prompt || tool || (v31 && !after_user)) return;
    if (!(f->flags & WITH_USER) || !after_user) hd_chat_control(p, DS_ASSISTANT);
    put_opening(p, f, c);
}

/* ---- ChatML ---- */

enum {
    TOOL_ROLE = 1, // tool outputs are turns of their own; else <tool_response> in a user's turn
    RETHINK = 2,   // the reasoning of the last turn is shown again (Qwen 3)
};

static void put_header(hd_chat_pen *p, const char *role)
{
    hd_chat_control(p, "<|im_start|>");
    hd_chat_text(p, role);
    hd_chat_text(p, "\n");
}

static void put_end(hd_chat_pen *p)
{
    hd_chat_control(p, "<|im_end|>");
    hd_chat_says(p, false);
    hd_chat_text(p, "\n");
}

/* Neighbouring outputs share one turn. */
static void put_tool_response(hd_chat_pen *p, const hd_conversation *c, int i)
{
    if (i == 0 || c->msg[i - 1].role != HD_ROLE_TOOL) {
        hd_chat_control(p, "<|im_start|>");
        hd_chat_text(p, "user");
    }
    hd_chat_text(p, "\n");
    hd_chat_control(p, "<tool_response>");
    hd_chat_text(p, "\n");
    hd_chat_span(p, content(&c->msg[i]));
    hd_chat_text(p, "\n");
    hd_chat_control(p, "</tool_response>");
    if (i == c->n - 1 || c->msg[i + 1].role != HD_ROLE_TOOL) put_end(p);
}

/* The last message a person wrote: reasoning after it belongs to the turn that is going on. */
static int last_query(const hd_conversation *c)
{
    for (int i = c->n - 1; i >= 0; i--) {
        hd_span s = content(&c->msg[i]);
        if (c->msg[i].role != HD_ROLE_USER) continue;
        if (!hd_span_starts(s, "<tool_response>") || !hd_span_ends(s, "</tool_response>")) return i;
    }
    return c->n - 1;
}

/* An answer whose reasoning comes apart or inside it, between <think> and </think>. */
static void put_rethought(hd_chat_pen *p, const hd_chat_format *f, const hd_conversation *c, int i, int query)
{
    const hd_msg *m = &c->msg[i];
    hd_span text = content(m), thought = {m->thinking, m->n_thinking}, first, rest, after;
    if (!m->thinking) {
        thought = (hd_span){"", 0};
        if (hd_span_cut(text, "</think>", false, &first, &rest)) {
            thought = hd_span_strip(first, '\n', false, true);
            hd_span_cut(thought, "<think>", true, &first, &thought);
            thought = hd_span_strip(thought, '\n', true, false);
            hd_span_cut(text, "</think>", true, &first, &after);
            text = hd_span_strip(after, '\n', true, false);
        }
    }
    if (i > query && (i == c->n - 1 || thought.n)) {
        thought = hd_span_strip(thought, '\n', true, true);
        bool given = always_thinks(f);
        hd_chat_says(p, thought.n && !given);   // nobody says that there is no thought
        hd_chat_control(p, "<think>");
        hd_chat_text(p, "\n");
        hd_chat_says(p, thought.n || given);
        hd_chat_span(p, thought);
        hd_chat_text(p, "\n");
        hd_chat_control(p, "</think>");
        hd_chat_text(p, "\n\n");
        text = hd_span_strip(text, '\n', true, false);
    }
    hd_chat_says(p, true);
    hd_chat_span(p, text);
}

static void write_chatml(hd_chat_pen *p, const hd_chat_format *f, const hd_conversation *c)
{
    int query = f->flags & RETHINK ? last_query(c) : 0;
    if (f->system && c->msg[0].role != HD_ROLE_SYSTEM) {
        put_header(p, "system");
        hd_chat_text(p, f->system);
        put_end(p);
    }
    for (int i = 0; i < c->n; i++) {
        const hd_msg *m = &c->msg[i];
        if (m->role == HD_ROLE_TOOL && !(f->flags & TOOL_ROLE)) {
            put_tool_response(p, c, i);
            continue;
        }
        put_header(p, role_name(m->role));
        if (m->role == HD_ROLE_ASSISTANT && f->flags & RETHINK) put_rethought(p, f, c, i, query);
        else {
            hd_chat_says(p, m->role == HD_ROLE_ASSISTANT);
            hd_chat_span(p, content(m));
        }
        put_tagged_calls(p, m);
        put_end(p);
    }
    if (!c->o->add_generation_prompt) return;
    put_header(p, "assistant");
    put_opening(p, f, c);
}

/* ---- Llama 3 ---- */

enum {
    DATED = 1, // a system turn with dates comes first, whatever the conversation
    TODAY = 2, // the real date
};

static void put_date(hd_chat_pen *p, bool today)
{
    static const char month[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char text[16];
    time_t now = time(NULL);
    struct tm t;
    if (!today || !localtime_r(&now, &t)) {
        hd_chat_text(p, "26 Jul 2024");
        return;
    }
    snprintf(text, sizeof text, "%02d %.3s %d", t.tm_mday % 100, month + 3 * (t.tm_mon % 12),
             (t.tm_year + 1900) % 10000);
    hd_chat_text(p, text);
}

static void put_llama_header(hd_chat_pen *p, const char *role)
{
    hd_chat_control(p, "<|start_header_id|>");
    hd_chat_text(p, role);
    hd_chat_control(p, "<|end_header_id|>");
    hd_chat_text(p, "\n\n");
}

/* JSON alone; the templates know one call a message, several are set apart as the models do it. */
static void put_llama_calls(hd_chat_pen *p, const hd_msg *m)
{
    if (m->n_call > 0 && m->n > 0) hd_chat_text(p, "\n");
    for (int i = 0; i < m->n_call; i++) {
        hd_chat_text(p, i > 0 ? "; {\"name\": " : "{\"name\": ");
        hd_chat_json_string(p, hd_span_of(m->call[i].name));
        hd_chat_text(p, ", \"parameters\": ");
        hd_chat_text(p, m->call[i].arguments);
        hd_chat_text(p, "}");
    }
}

static void write_llama3(hd_chat_pen *p, const hd_chat_format *f, const hd_conversation *c)
{
    int i = 0;
    hd_chat_bos(p, "<|begin_of_text|>");
    if (f->flags & DATED) {
        put_llama_header(p, "system");
        hd_chat_text(p, "Cutting Knowledge Date: December 2023\nToday Date: ");
        put_date(p, f->flags & TODAY);
        hd_chat_text(p, "\n\n");
        if (c->msg[0].role == HD_ROLE_SYSTEM) hd_chat_span(p, hd_span_trim(content(&c->msg[i++])));
        hd_chat_control(p, "<|eot_id|>");
    }
    for (; i < c->n; i++) {
        const hd_msg *m = &c->msg[i];
        bool quoted = m->role == HD_ROLE_TOOL && f->flags & DATED;
        put_llama_header(p, quoted ? "ipython" : role_name(m->role));
        hd_chat_says(p, m->role == HD_ROLE_ASSISTANT);
        if (quoted) hd_chat_json_string(p, content(m));
        else hd_chat_span(p, hd_span_trim(content(m)));
        put_llama_calls(p, m);
        hd_chat_control(p, "<|eot_id|>");
        hd_chat_says(p, false);
    }
    if (c->o->add_generation_prompt) put_llama_header(p, "assistant");
}

/* ---- The table ---- */

static const char *const alien[] = {"macro ", NULL};
static const char *const alien_chatml[] = {"macro ", "bos_token", NULL};
static const char *const stop_deepseek[] = {DS_EOS, "<|EOT|>", NULL};
static const char *const stop_chatml[] = {"<|im_end|>", "<|endoftext|>", NULL};
static const char *const stop_llama3[] = {"<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", NULL};

#define NEED_DEEPSEEK                                                                                        \
    .need = {DS_USER, DS_ASSISTANT},                                                                         \
    .also = {DS_BOS,                                                                                         \
             DS_EOS,                                                                                         \
             DS_OUTPUT,                                                                                      \
             DS_OUTPUT_END,                                                                                  \
             DS_OUTPUTS,                                                                                     \
             DS_OUTPUTS_END,                                                                                 \
             DS_CALLS,                                                                                       \
             DS_CALLS_END,                                                                                   \
             DS_CALL,                                                                                        \
             DS_CALL_END,                                                                                    \
             DS_SEP},                                                                                        \
    .alien = alien, .stop = stop_deepseek, .write = write_deepseek
#define NEED_CHATML                                                                                          \
    .need = {"<|im_start|>", "<|im_end|>"}, .also = {"<|endoftext|>"}, .alien = alien_chatml,                \
    .stop = stop_chatml, .write = write_chatml
#define NEED_LLAMA3                                                                                          \
    .need = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},                                      \
    .also = {"<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>", "<|python_tag|>"}, .alien = alien,        \
    .stop = stop_llama3, .write = write_llama3

/* Of rows that fit a template equally badly the first is used. */
const hd_chat_format hd_chat_formats[] = {
    {.name = "deepseek-v2",
     .need = {"User: ", "Assistant:"},
     .also = {DS_BOS, DS_EOS},
     .has = {"Assistant: ", "eos_token"},
     .lacks = {"tool", "<think>"},
     .alien = alien,
     .stop = stop_deepseek,
     .write = write_deepseek_v2},
    {.name = "deepseek-v2.5",
     NEED_DEEPSEEK,
     .has = {"is_output_first"},
     .lacks = {"is_first_sp", "is_last_user", "</think>"},
     .flags = LAST_SYSTEM},
    {.name = "deepseek-v3",
     NEED_DEEPSEEK,
     .has = {"is_first_sp", "is_output_first"},
     .lacks = {"is_last_user", "</think>"}},
    {.name = "deepseek-v3.1",
     NEED_DEEPSEEK,
     .has = {"is_first_sp", "is_last_user", "not thinking", "split('</think>', 1)"},
     .lacks = {"<think></think>"},
     .thinks = true,
     .open_on = "<think>",
     .open_off = "</think>",
     .flags = V31},
    {.name = "deepseek-v3.1-pair",
     NEED_DEEPSEEK,
     .has = {"is_first_sp", "is_last_user", "not thinking", "split('</think>', 1)", "<think></think>"},
     .thinks = true,
     .open_on = "<think>",
     .open_off = "<think></think>",
     .flags = V31},
    {.name = "deepseek-r1",
     NEED_DEEPSEEK,
     .has = {"is_first_sp", "split('</think>')[-1]", DS_ASSISTANT "<think>"},
     .lacks = {"is_last_user", "enable_thinking"},
     .thinks = true,
     .open_on = "<think>\n",
     .open_off = "<think>\n",
     .flags = DROP_THOUGHT},
    {.name = "deepseek-r1-0120",
     NEED_DEEPSEEK,
     .has = {"is_first_sp", "split('</think>')[-1]"},
     .lacks = {"is_last_user", "<think>"},
     .thinks = true,
     .flags = DROP_THOUGHT},
    {.name = "deepseek-v3-0324",
     NEED_DEEPSEEK,
     .has = {"is_first_sp", "is_last_user", "+ '" DS_ASSISTANT "'"},
     .lacks = {"think>"},
     .flags = WITH_USER},
    {.name = "deepseek-r1-0528",
     NEED_DEEPSEEK,
     .has = {"is_first_sp", "is_last_user", "split('</think>')[-1]", "+ '" DS_ASSISTANT "'"},
     .lacks = {"<think>"},
     .thinks = true,
     .flags = DROP_THOUGHT | WITH_USER},
    {.name = "deepseek-r1-distill",
     NEED_DEEPSEEK,
     .has = {"split('</think>')[-1]", DS_ASSISTANT "<think>", "is_output_first"},
     .lacks = {"is_first_sp", "is_last_user", "enable_thinking"},
     .thinks = true,
     .open_on = "<think>\n",
     .open_off = "<think>\n",
     .flags = DROP_THOUGHT | LAST_SYSTEM},
    {.name = "deepseek-r1-distill-0120",
     NEED_DEEPSEEK,
     .has = {"split('</think>')[-1]", "is_output_first"},
     .lacks = {"is_first_sp", "is_last_user", "<think>"},
     .thinks = true,
     .flags = DROP_THOUGHT | LAST_SYSTEM},

    {.name = "chatml",
     NEED_CHATML,
     .has = {"add_generation_prompt"},
     .lacks = {"You are", "tools", "tool_response", "think>", "trim", "raise_exception"},
     .flags = TOOL_ROLE},
    {.name = "qwen1.5",
     NEED_CHATML,
     .has = {"You are a helpful assistant<|im_end|>"},
     .lacks = {"You are Qwen", "tools", "tool_response", "think>", "trim"},
     .flags = TOOL_ROLE,
     .system = "You are a helpful assistant"},
    {.name = "qwen2",
     NEED_CHATML,
     .has = {"You are a helpful assistant."},
     .lacks = {"You are Qwen", "tools", "tool_response", "think>", "trim"},
     .flags = TOOL_ROLE,
     .system = "You are a helpful assistant."},
    {.name = "qwen2.5",
     NEED_CHATML,
     .has = {"You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", "tool_response"},
     .lacks = {"think>"},
     .system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {.name = "qwen2.5-base",
     NEED_CHATML,
     .has = {"You are a helpful assistant.", "tool_response"},
     .lacks = {"You are Qwen", "think>"},
     .system = "You are a helpful assistant."},
    {.name = "qwen3",
     NEED_CHATML,
     .has = {"tool_response", "last_query_index", "reasoning_content", "</think>",
             "enable_thinking is false"},
     .lacks = {"You are Qwen"},
     .thinks = true,
     .think_default = true,
     .open_on = "",
     .open_off = "<think>\n\n</think>\n\n",
     .flags = RETHINK},
    {.name = "qwen3-thinking",
     NEED_CHATML,
     .has = {"tool_response", "last_query_index", "reasoning_content", "</think>",
             "assistant\\n<think>\\n' }}"},
     .lacks = {"You are Qwen", "enable_thinking"},
     .thinks = true,
     .open_on = "<think>\n",
     .open_off = "<think>\n",
     .flags = RETHINK},
    {.name = "qwen3-2507",
     NEED_CHATML,
     .has = {"tool_response", "last_query_index", "reasoning_content", "</think>"},
     .lacks = {"You are Qwen", "enable_thinking", "assistant\\n<think>\\n' }}"},
     .thinks = true,
     .flags = RETHINK},
    {.name = "qwen3-instruct",
     NEED_CHATML,
     .has = {"tool_response", "is string"},
     .lacks = {"You are Qwen", "You are a helpful", "think>", "reasoning_content"}},
    {.name = "smollm2",
     NEED_CHATML,
     .has = {"You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
     .lacks = {"tools", "think>"},
     .flags = TOOL_ROLE,
     .system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},

    {.name = "llama3", NEED_LLAMA3, .has = {"trim"}, .lacks = {"Cutting Knowledge", "tools", "think>"}},
    {.name = "llama3.1",
     NEED_LLAMA3,
     .has = {"Cutting Knowledge Date: December 2023", "26 Jul 2024", "ipython"},
     .lacks = {"strftime_now", "think>"},
     .flags = DATED},
    {.name = "llama3.2",
     NEED_LLAMA3,
     .has = {"Cutting Knowledge Date: December 2023", "strftime_now", "ipython"},
     .lacks = {"think>"},
     .flags = DATED | TODAY},
    {.name = NULL},
};
