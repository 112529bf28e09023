/* See live.h. */
#include "train/live.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"

#define EVERY_S_TERMINAL 0.1
#define EVERY_S_ELSEWHERE 10.0

void hd_live_begin(hd_live *l, const hd_recipe *r)
{
    *l = (hd_live){.r = r, .terminal = isatty(STDERR_FILENO) == 1, .bpb = -1, .last_step = -1};
}

static void add(char *out, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void add(char *out, size_t size, const char *fmt, ...)
{
    size_t n = strlen(out);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out + n, size - n, fmt, ap);
    va_end(ap);
}

static void add_time(char *out, size_t size, double s)
{
    if (s < 100) add(out, size, "%.0f s", s);
    else if (s < 6000) add(out, size, "%.0f min", s / 60);
    else if (s < 48 * 3600) add(out, size, "%.1f h", s / 3600);
    else add(out, size, "%.1f days", s / 86400);
}

void hd_live_text(char *out, size_t size, const hd_live *l, const hd_step_log *s)
{
    enum { BAR = 20 };
    const hd_recipe *r = l->r;
    double part = s->steps > 0 ? (double)s->step / (double)s->steps : 1, hours = s->seconds / 3600, kwh = r->watts * hours / 1000;
    int full = (int)(part * BAR);
    snprintf(out, size, "%s [%.*s%.*s] %lld/%lld  loss %.4f", r->name, full, "####################", BAR - full, "....................",
             (long long)s->step, (long long)s->steps, s->loss);
    if (l->bpb >= 0) add(out, size, "  val %.4f bpb", l->bpb);
    if (s->skipped) add(out, size, "  skipped");
    if (s->tok_s < 1e4) add(out, size, "  %.0f tok/s", s->tok_s);
    else add(out, size, "  %.1fk tok/s", s->tok_s / 1e3);
    if (s->share_of_peak > 0) add(out, size, "  %.0f %% of peak", 100 * s->share_of_peak);
    if (l->step_s > 0 && s->step < s->steps) {
        add(out, size, "  ");
        add_time(out, size, l->step_s * (double)(s->steps - s->step));
        add(out, size, " left");
    }
    add(out, size, "  so far %.3g h", hours);
    if (r->watts > 0) add(out, size, ", %.3g kWh", kwh);
    if (r->usd_per_kwh > 0 || r->usd_per_hour > 0) add(out, size, ", $%.3g", kwh * r->usd_per_kwh + hours * r->usd_per_hour);
}

static int columns(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 10 ? w.ws_col : 80;
}

static void draw(hd_live *l)
{
    if (l->terminal) fprintf(stderr, "\r\033[K%.*s", columns() - 1, l->line);
    else fprintf(stderr, "%s\n", l->line);
    l->drawn = hd_now_s();
}

void hd_live_step(hd_live *l, const hd_step_log *s)
{
    double took = s->seconds - l->last_seconds;
    if (l->last_step >= 0 && s->step == l->last_step + 1 && took > 0)
        l->step_s = l->step_s > 0 ? 0.95 * l->step_s + 0.05 * took : took;
    l->last_step = s->step;
    l->last_seconds = s->seconds;
    if (s->val_bpb >= 0) l->bpb = s->val_bpb;
    hd_live_text(l->line, sizeof l->line, l, s);
    double every = l->terminal ? EVERY_S_TERMINAL : EVERY_S_ELSEWHERE;
    if (l->drawn == 0 || s->step == s->steps || hd_now_s() - l->drawn >= every) draw(l);
}

void hd_live_say(hd_live *l, const char *text)
{
    if (!l->terminal || l->drawn == 0) {
        fprintf(stderr, "%s\n", text);
        return;
    }
    fprintf(stderr, "\r\033[K%s\n", text);
    draw(l);
}

void hd_live_end(hd_live *l)
{
    if (l->terminal && l->drawn > 0) {
        draw(l);
        fputc('\n', stderr);
    }
    l->drawn = 0;
}
