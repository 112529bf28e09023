/* Schedules at their corners, and spikes among ordinary losses. */
#include <math.h>

#include "test.h"
#include "train/schedule.h"

static bool near(double a, double b) { return fabs(a - b) <= 1e-6 * fabs(b) + 1e-12; }

static void test_lr(void)
{
    hd_schedule s = {.kind = HD_SCHED_WSD, .lr = 0.01f, .min_lr = 0.1f, .steps = 1000, .warmup = 100, .decay = 200};
    CHECK(near(hd_schedule_lr(&s, 1), 0.0001));
    CHECK(near(hd_schedule_lr(&s, 50), 0.005));
    CHECK(near(hd_schedule_lr(&s, 100), 0.01));
    CHECK(near(hd_schedule_lr(&s, 101), 0.01));
    CHECK(near(hd_schedule_lr(&s, 800), 0.01));
    CHECK(near(hd_schedule_lr(&s, 850), 0.01 * (0.1 + 0.9 * 0.5))); // 1 - sqrt(1/4)
    CHECK(near(hd_schedule_lr(&s, 1000), 0.001));
    CHECK(near(hd_schedule_lr(&s, 2000), 0.001)); // past the end it stays there
    s.kind = HD_SCHED_COSINE;
    CHECK(near(hd_schedule_lr(&s, 100), 0.01));
    CHECK(near(hd_schedule_lr(&s, 550), 0.0055));
    CHECK(near(hd_schedule_lr(&s, 1000), 0.001));
    for (int64_t i = 101; i < 1000; i++) CHECK(hd_schedule_lr(&s, i + 1) < hd_schedule_lr(&s, i), "at %d", (int)i);
    s.kind = HD_SCHED_CONSTANT;
    CHECK(near(hd_schedule_lr(&s, 1000), 0.01));
    s = (hd_schedule){.kind = HD_SCHED_COSINE, .lr = 1, .steps = 1, .warmup = 0}; // nothing divides by zero
    CHECK(near(hd_schedule_lr(&s, 1), 0));
    s = (hd_schedule){.kind = HD_SCHED_WSD, .lr = 1, .steps = 10, .warmup = 0, .decay = 0};
    CHECK(near(hd_schedule_lr(&s, 10), 1));
    s = (hd_schedule){.kind = HD_SCHED_COSINE, .lr = 1, .steps = 5, .warmup = 10};
    CHECK(near(hd_schedule_lr(&s, 5), 0.5));
}

static void test_ramp(void)
{
    hd_schedule s = {.batch_ramp = 100};
    CHECK(hd_schedule_micro(&s, 1, 16) == 4);
    CHECK(hd_schedule_micro(&s, 51, 16) == 10); // 0.625
    CHECK(hd_schedule_micro(&s, 101, 16) == 16);
    CHECK(hd_schedule_micro(&s, 1, 1) == 1);
    CHECK(hd_schedule_micro(&s, 1, 2) >= 1);
    for (int64_t i = 1; i < 200; i++) {
        int64_t m = hd_schedule_micro(&s, i, 7);
        CHECK(m >= 1 && m <= 7 && m <= hd_schedule_micro(&s, i + 1, 7), "step %d: %d", (int)i, (int)m);
    }
    s.batch_ramp = 0;
    CHECK(hd_schedule_micro(&s, 1, 16) == 16);
}

static double noise(int i) { return sin(i * 12.9898) * 0.05; }

static void test_spikes(void)
{
    hd_spikes s = {0}, off = {0}, copy;
    for (int i = 0; i < 31; i++) CHECK(!hd_spikes_seen(&s, i == 20 ? 50 : 3, 1, 6), "step %d is too early to tell", i);
    s = (hd_spikes){0};
    for (int i = 0; i < 1000; i++) {
        CHECK(!hd_spikes_seen(&s, 3 - i * 0.001 + noise(i), 1 + noise(i + 7), 6), "step %d", i);
        hd_spikes_seen(&off, 3 + noise(i), 1, 0);
    }
    CHECK(hd_spikes_seen(&s, 4, 1, 6));
    CHECK(!hd_spikes_seen(&s, 2 + noise(3), 1, 6));
    CHECK(hd_spikes_seen(&s, 2, 9, 6)); // the gradient's norm alone
    CHECK(!hd_spikes_seen(&off, 1e9, 1e9, 0));
    copy = s;
    CHECK(hd_spikes_seen(&s, NAN, 1, 6) && hd_spikes_seen(&s, 1, INFINITY, 0));
    CHECK(memcmp(&copy, &s, sizeof s) == 0); // no trace
    int n = 0; // a lasting change is accepted within a window
    while (n < 128 && hd_spikes_seen(&s, 4 + noise(n), 1, 6)) n++;
    CHECK(n > 0 && n < 64, "%d steps", n);
    s = (hd_spikes){0};
    for (int i = 0; i < 64; i++) hd_spikes_seen(&s, 2, 1, 6);
    CHECK(!hd_spikes_seen(&s, 2 + 1e-6, 1, 6)); // a flat record
    CHECK(hd_spikes_seen(&s, 2.1, 1, 6));
}

int main(void)
{
    test_lr();
    test_ramp();
    test_spikes();
    return hd_test_end();
}
