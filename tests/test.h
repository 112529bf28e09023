/* A test program: functions full of CHECKs, a main that runs them and ends with `N passed, N failed`. */
#ifndef HD_TEST_H
#define HD_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Ends main. */
static inline int hd_test_end(void)
{
    printf("%d passed, %d failed\n", hd_test_passed, hd_test_failed);
    return hd_test_failed != 0;
}

#endif
