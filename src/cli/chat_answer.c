/* One answer of a chat: the conversation to ids, its fit in the context, the stream on the screen, the new
 * turn.
 *
 * Folding: a thought in progress is one line that is redrawn; when it ends the line says how long it took,
 * and /think shows it.  Text that has scrolled away cannot be folded on a terminal, so folding is decided
 * before. */
#include "cli/chat.h"

#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/terminal.h"

enum { MAX_ANSWER = 256 << 20 };

/* What the callbacks share. */
typedef struct {
    const hd_chat *c;
    hd_buf text, thinking;
    hd_err *err;
    hd_status st;       // of adding to the buffers
    double t0, t_drawn; // of the thought; of its line
    bool in_thought, line_open, any;
} screen;

static void end_thought(screen *s)
{
    if (!s->in_thought) return;
    s->in_thought = false;
    if (!s->c->tty) return;
    if (s->c->show_thinking) fputs("\n", stdout);
    else {
        if (hd_terminal_can_style(stdout)) fputs("\r\033[K", stdout);
        hd_printf_dim(stdout, "(thought for %.0f s; /think shows it)\n", hd_now_s() - s->t0);
    }
}

static void on_thought(screen *s, const char *text, size_t n)
{
    double now = hd_now_s();
    if (!s->in_thought) s->t0 = now;
    s->in_thought = true;
    if (!s->c->tty) return;
    if (s->c->show_thinking) hd_print_dim(stdout, text, n);
    else if (now - s->t_drawn > 0.2 && hd_terminal_can_style(stdout)) {
        s->t_drawn = now;
        fputs("\r\033[K", stdout);
        hd_printf_dim(stdout, "thinking, %.0f s", now - s->t0);
    }
    fflush(stdout);
}

static void on_answer(screen *s, const char *text, size_t n)
{
    end_thought(s);
    while (!s->any && n > 0 && (*text == '\n' || *text == ' '))
        text++, n--; // between the thought and the answer
    if (n == 0) return;
    s->any = true;
    s->line_open = text[n - 1] != '\n';
    if (isatty(STDOUT_FILENO) == 1) hd_print_shown(stdout, text, n);
    else fwrite(text, 1, n, stdout);
    fflush(stdout);
}

static void on_text(void *arg, hd_text_kind kind, const char *text, size_t n)
{
    screen *s = arg;
    hd_status st = hd_buf_add(kind == HD_TEXT_ANSWER ? &s->text : &s->thinking, text, n, s->err);
    if (st != HD_OK) s->st = st;
    if (kind == HD_TEXT_THINKING) on_thought(s, text, n);
    else on_answer(s, text, n);
}

static void on_progress(void *arg, int64_t done, int64_t total)
{
    (void)arg;
    if (!hd_terminal_can_style(stderr) || total < 256) return;
    fputs("\r\033[K", stderr);
    if (done < total) hd_printf_dim(stderr, "reading %lld of %lld ids", (long long)done, (long long)total);
}

/* Room to answer in: without it a question that just fits would end in half a sentence. */
static int64_t room_tok(int64_t ctx) { return ctx / 8 < 256 ? ctx / 8 : 256; }

static hd_status render(hd_chat *c, hd_ids *ids, hd_err *err)
{
    ids->n = 0;
    return hd_engine_render(c->model.engine, c->talk.msg, c->talk.n, c->thinking, ids, err);
}

/* Ids of a conversation that fits, after asking when turns must go.  HD_LIMIT: it does not. */
static hd_status fit(hd_chat *c, hd_ids *ids, hd_err *err)
{
    int64_t ctx = hd_engine_ctx_tok(c->model.engine);
    bool agreed = c->drop_oldest;
    int dropped = 0;
    hd_status st = render(c, ids, err);
    while (st == HD_OK && ids->n > ctx - room_tok(ctx)) {
        if (!agreed && c->tty) {
            printf("The context is full: this conversation has %lld ids, and %lld are possible with room for "
                   "an answer.\n",
                   (long long)ids->n, (long long)(ctx - room_tok(ctx)));
            agreed = hd_lines_ask(c->lines, "Drop the oldest turns? [y/N] ");
        }
        if (!agreed || !hd_talk_drop_oldest(&c->talk))
            return hd_fail(err, HD_LIMIT, "chat: context: full: %lld ids of %lld: %s", (long long)ids->n,
                           (long long)ctx,
                           agreed ? "this message alone is too long"
                                  : "drop the oldest turns, or ask for more with --ctx");
        dropped++;
        st = render(c, ids, err);
    }
    if (dropped && st == HD_OK)
        fprintf(stderr, "(dropped the oldest %d %s)\n", dropped, dropped == 1 ? "exchange" : "exchanges");
    return st;
}

static void print_after(const hd_chat *c, const hd_generated *r)
{
    int64_t ctx = hd_engine_ctx_tok(c->model.engine), left = ctx - hd_session_len(c->model.session);
    if (r->why == HD_STOP_CONTEXT) printf("[the context is full: the answer ends here]\n");
    if (r->why == HD_STOP_FLAG) printf("[stopped]\n");
    if (r->why == HD_STOP_LENGTH) printf("[%lld ids: the answer ends here]\n", (long long)r->n_tok);
    char guessed[48] = "";
    if (r->n_drafted > 0 && r->n_passes > 0)
        snprintf(guessed, sizeof guessed, ", %.2f a pass", (double)r->n_tok / (double)r->n_passes);
    hd_printf_dim(stdout, "[%lld ids, %.1f a second%s; %lld of %lld left]\n", (long long)r->n_tok,
                  r->seconds > 0 ? (double)r->n_tok / r->seconds : 0, guessed, (long long)left,
                  (long long)ctx);
}

static hd_status generate(hd_chat *c, const hd_ids *ids, screen *s, hd_err *err)
{
    hd_status st;
    hd_generated r;
    hd_watch watch = {.progress = on_progress, .stop = &hd_interrupted};
    hd_generate_opts g = {.max_tok = c->max_tok,
                          .chat = true,
                          .limit_thinking = c->think_budget >= 0,
                          .think_tok = c->think_budget,
                          .text = on_text,
                          .arg = s,
                          .stop_flag = &hd_interrupted};
    HD_TRY(hd_session_sync(c->model.session, ids->id, ids->n, &watch, err));
    hd_sampler_reset(c->model.sampler, ids->id, ids->n);
    HD_TRY(hd_generate(c->model.session, c->model.sampler, &g, &r, err));
    HD_TRY(s->st);
    end_thought(s);
    if (s->line_open || !s->any) putchar('\n');
    if (c->tty) print_after(c, &r);
    HD_TRY(hd_talk_add(&c->talk, "assistant", s->text.data ? s->text.data : "", s->thinking.data, err));
    if (!c->tty && r.why == HD_STOP_CONTEXT)
        hd_warn("chat: the context of %lld ids is full: the answer is cut off",
                (long long)hd_engine_ctx_tok(c->model.engine));
fail:
    return st;
}

hd_status hd_chat_answer(hd_chat *c, hd_err *err)
{
    hd_status st;
    hd_ids ids = {0};
    screen s = {.c = c, .err = err};
    hd_buf_init(&s.text, MAX_ANSWER);
    hd_buf_init(&s.thinking, MAX_ANSWER);
    HD_TRY(fit(c, &ids, err));
    HD_TRY(generate(c, &ids, &s, err));
fail:
    if (st != HD_OK) hd_talk_pop(&c->talk); // the question: unanswered, it would stand before the next one
    if (st == HD_CANCELLED && c->tty) {     // while the prompt was read
        hd_printf_dim(stdout, "\n[stopped before the answer; the message is not kept]\n");
        st = HD_OK;
    }
    hd_buf_free(&s.text);
    hd_buf_free(&s.thinking);
    hd_ids_free(&ids);
    return st;
}
