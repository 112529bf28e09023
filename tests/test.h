/* A test program: functions full of CHECKs, a main that runs them and ends with `N passed, N failed`. */
#ifndef HD_TEST_H
#define HD_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"

static int hd_test_passed, hd_test_failed;

/* One check; a failed one says where and goes on. */
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (cond) hd_test_passed++;                                                                \
        else {                                                                                     \
            hd_test_failed++;                                                                      \
            fprintf(stderr, "%s:%d: %s ", __FILE__, __LINE__, #cond);                              \
            fprintf(stderr, " " __VA_ARGS__);                                                      \
            fprintf(stderr, "\n");                                                                 \
        }                                                                                          \
    } while (0)

/* A fallible call that must succeed. */
#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        hd_status st_ = (call);                                                                    \
        CHECK(st_ == HD_OK, "status %d: %s", (int)st_, err.msg);                                   \
    } while (0)

/* Seconds of this process's own work: what other programs do to the clock on the wall does not count.  For
 * limits on work that must not explode; sanitizers slow it several times, hence the slack. */
static inline double hd_test_cpu_s(void) { return (double)clock() / CLOCKS_PER_SEC; }
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { HD_TEST_SLACK = 10 };
#else
enum { HD_TEST_SLACK = 2 };
#endif

/* Ends main. */
static inline int hd_test_end(void)
{
    printf("%d passed, %d failed\n", hd_test_passed, hd_test_failed);
    return hd_test_failed != 0;
}

#endif
