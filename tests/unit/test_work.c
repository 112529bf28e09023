/* Work beside the network thread: everything is finished there and once, what is big leaves a thread to the
 * small, what waits can be taken back, and closing finishes the rest.  And grammars that are kept. */
#include "serve/work.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "serve/grammars.h"
#include "test.h"

static hd_err err;
static hd_net *net;
static hd_work *pool;
static pthread_t net_thread;

typedef struct {
    hd_chore c; // first
    int number, n_worked, n_finished;
    bool elsewhere, here;
} chore;

enum { N = 300 };
static chore all[N];
static int n_finished;
static atomic_int n_big, most_big;
static atomic_bool gate;

static void work(hd_chore *c)
{
    chore *x = (chore *)c;
    x->n_worked++;
    x->elsewhere = !pthread_equal(pthread_self(), net_thread);
    if (!c->big) return;
    int n = atomic_fetch_add(&n_big, 1) + 1;
    if (n > atomic_load(&most_big)) atomic_store(&most_big, n);
    usleep(500);
    atomic_fetch_sub(&n_big, 1);
}

static void finish(hd_chore *c)
{
    chore *x = (chore *)c;
    x->n_finished++;
    x->here = pthread_equal(pthread_self(), net_thread);
    if (++n_finished == N) hd_net_stop(net);
}

static void open_net(int n_threads)
{
    hd_net_opts o = {.address = "127.0.0.1", .log_fd = -1};
    CHECK_OK(hd_net_open(&net, &o, &err));
    CHECK_OK(hd_work_open(&pool, net, n_threads, &err));
    if (!net || !pool) exit(hd_test_end());
}

static void close_net(void)
{
    hd_work_close(pool);
    hd_net_close(net);
    pool = NULL;
    net = NULL;
}

static void begin_all(void *arg)
{
    for (int i = 0; i < N; i++) {
        all[i] = (chore){.c = {.work = work, .finish = finish, .big = i % 3 == 0}, .number = i};
        hd_work_start(pool, &all[i].c);
    }
}

static void test_all(int n_threads)
{
    n_finished = 0;
    atomic_store(&most_big, 0);
    net_thread = pthread_self();
    open_net(n_threads);
    CHECK_OK(hd_net_post(net, begin_all, NULL, &err));
    CHECK_OK(hd_net_run(net, 1000, &err));
    int good = 0;
    for (int i = 0; i < N; i++) good += all[i].n_worked == 1 && all[i].n_finished == 1 && all[i].elsewhere && all[i].here;
    CHECK(good == N && n_finished == N, "%d of %d, %d finished", good, N, n_finished);
    CHECK(atomic_load(&most_big) <= (n_threads > 1 ? n_threads - 1 : 1), "%d big ones at once", atomic_load(&most_big));
    close_net();
}

/* ---- Taking back, closing ---- */

static void wait_gate(hd_chore *c)
{
    ((chore *)c)->n_worked++;
    while (!atomic_load(&gate)) usleep(1000);
}

static void note(hd_chore *c) { ((chore *)c)->n_finished++; }

static void test_forget(void)
{
    chore first = {.c = {.work = wait_gate, .finish = note}}, second = {.c = {.work = work, .finish = note}}, third = second, fourth = second;
    open_net(1);
    atomic_store(&gate, false);
    hd_work_start(pool, &first.c);
    for (int i = 0; i < 5000 && hd_work_forget(pool, &first.c); i++) { // until its thread has begun
        hd_work_start(pool, &first.c);
        usleep(1000);
    }
    hd_work_start(pool, &second.c);
    hd_work_start(pool, &third.c);
    CHECK(hd_work_forget(pool, &third.c), "the last");
    hd_work_start(pool, &fourth.c); // the list's end is where it was
    CHECK(!hd_work_forget(pool, &first.c) && !hd_work_forget(pool, &third.c), "under way, or not there");
    atomic_store(&gate, true);
    close_net();
    CHECK(first.n_worked == 1 && first.n_finished == 1 && second.n_finished == 1 && third.n_finished == 0 && fourth.n_finished == 1,
          "%d %d %d %d", first.n_finished, second.n_finished, third.n_finished, fourth.n_finished);
    CHECK(third.n_worked == 0);
    net_thread = pthread_self();
    hd_work_start(NULL, &third.c); // without threads: at once
    CHECK(third.n_worked == 1 && third.n_finished == 1 && !third.elsewhere && !hd_work_forget(NULL, &third.c));
}

/* ---- Grammars ---- */

static void *compile(void *arg)
{
    hd_grammars *c = arg;
    for (int i = 0; i < 200; i++) {
        hd_grammar *g = NULL;
        char text[64];
        snprintf(text, sizeof text, "root ::= \"%d\"", i % 20);
        if (hd_grammars_text(c, &g, text, NULL) != HD_OK) abort();
        hd_grammar_close(g);
    }
    return NULL;
}

static void test_grammars(void)
{
    hd_grammars *c = NULL;
    hd_grammar *a = NULL, *b = NULL, *any = NULL;
    pthread_t t[3];
    json_t *schema = json_pack("{s:s}", "type", "boolean"), *other = json_pack("{s:s}", "type", "boolean");
    CHECK_OK(hd_grammars_open(&c, &err));
    CHECK_OK(hd_grammars_schema(c, &a, schema, &err));
    CHECK_OK(hd_grammars_schema(c, &b, other, &err));
    CHECK(a && a == b, "the same text is the same grammar");
    hd_grammar_close(b);
    CHECK_OK(hd_grammars_schema(c, &any, NULL, &err));
    CHECK(any && any != a);
    hd_grammar_close(any);
    CHECK_OK(hd_grammars_text(c, &b, "root ::= \"x\"", &err));
    CHECK(b && b != a);
    hd_grammar_close(b);
    b = NULL;
    CHECK(hd_grammars_text(c, &b, "root ::= (", &err) != HD_OK && !b && err.msg[0]);
    CHECK(hd_grammars_text(c, &b, "root ::= (", &err) != HD_OK && !b, "a failure is not kept");
    for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, compile, c);
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    CHECK_OK(hd_grammars_schema(c, &b, schema, &err));
    CHECK(b && b != a, "what was long not asked for is compiled anew, and the old one lives while somebody holds it");
    hd_grammar_close(a);
    hd_grammar_close(b);
    hd_grammars_close(c);
    CHECK_OK(hd_grammars_schema(NULL, &a, schema, &err));
    hd_grammar_close(a);
    json_decref(schema);
    json_decref(other);
}

int main(void)
{
    test_all(2);
    test_all(1);
    test_all(3);
    test_forget();
    test_grammars();
    return hd_test_end();
}
