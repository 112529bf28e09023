/* Words on stderr, so that stdout stays clean for what a command computes. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void hd_warn(const char *fmt, ...)
{
    char msg[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    for (char *s = msg; *s; s++) { // as in errors: quoted names may hold terminal controls
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
    }
    fprintf(stderr, "hadal: warning: %s\n", msg); // one call: lines of several threads do not mix
}

double hd_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* "1.4 GB" for bytes, "1234 tensors" for the rest. */
static void amount(char *s, size_t size, uint64_t v, const char *unit)
{
    if (strcmp(unit, "B") != 0) snprintf(s, size, "%llu %s", (unsigned long long)v, unit);
    else if (v >= 1000000000) snprintf(s, size, "%.2f GB", (double)v * 1e-9);
    else if (v >= 1000000) snprintf(s, size, "%.1f MB", (double)v * 1e-6);
    else if (v >= 1000) snprintf(s, size, "%.0f KB", (double)v * 1e-3);
    else snprintf(s, size, "%llu B", (unsigned long long)v);
}

static void draw(const hd_progress *p, double now)
{
    char done[48], total[48], bar[25] = "........................", eta[32] = "";
    int width = (int)sizeof bar - 1;
    double part = p->total ? (double)p->done / (double)p->total : 1;
    if (part > 1) part = 1;
    memset(bar, '#', (size_t)(part * width));
    amount(done, sizeof done, p->done, p->unit);
    amount(total, sizeof total, p->total, p->unit);
    double spent = now - p->t0;
    if (part > 0 && part < 1 && spent > 1) snprintf(eta, sizeof eta, ", %.0f s left", spent / part - spent);
    fprintf(stderr, "\r\033[K%s [%s] %3.0f %%  %s of %s%s", p->what, bar, part * 100, done, total, eta);
}

void hd_progress_begin(hd_progress *p, const char *what, uint64_t total, const char *unit)
{
    *p = (hd_progress){.what = what, .unit = unit, .total = total, .t0 = hd_now_s()};
    p->shown = isatty(STDERR_FILENO) == 1;
    if (p->shown) draw(p, p->t0);
}

void hd_progress_add(hd_progress *p, uint64_t n)
{
    p->done += n;
    if (!p->shown) return;
    double now = hd_now_s();
    if (now - p->t_drawn < 0.1) return;
    p->t_drawn = now;
    draw(p, now);
}

void hd_progress_end(hd_progress *p)
{
    const char *ask = getenv("HADAL_PROGRESS");
    double now = hd_now_s();
    if (p->shown) {
        draw(p, now);
        fputc('\n', stderr);
    } else if (ask && strcmp(ask, "1") == 0) {
        char done[48];
        amount(done, sizeof done, p->done, p->unit);
        fprintf(stderr, "%s: %s in %.1f s\n", p->what, done, now - p->t0);
    }
    p->shown = false;
}
