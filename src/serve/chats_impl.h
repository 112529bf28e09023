/* Between the parts of the page's server: tasks for the store (chats_store.c), answers (answers.c),
 * routes (api_chats.c). */
#ifndef HD_SERVE_CHATS_IMPL_H
#define HD_SERVE_CHATS_IMPL_H

#include <pthread.h>

#include "serve/api.h"
#include "serve/chats.h"
#include "serve/store.h"

typedef struct hd_answer hd_answer;

struct hd_chats {
    hd_server *server;
    hd_store *store; // the store's thread alone, once it runs
    int thinking_switch, thinking_default; // of the model: 0 or 1

    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct hd_task *first, *last; // to do
    struct hd_task *done;         // to be told, newest first
    struct hd_task *told, **told_last; // being told, network thread alone
    bool stop;

    hd_answer *answers; // network thread alone
    hd_timer *pulse;    // keeps quiet streams alive, and saves
};

/* ---- Tasks ---- */

typedef struct hd_task hd_task;
struct hd_task {
    hd_task *next;
    hd_chats *c;
    hd_req *r; // who asked; NULL: nobody, or gone
    /* On the store's thread, in a transaction with others.  May use all fields below. */
    hd_status (*work)(hd_task *t, hd_store *s, hd_err *err);
    /* On the network thread, exactly once (but not while the server closes).  st tells whether the work was
     * done and is on the disk.
     * NULL: reply with `text`, or with the error.  The task is freed afterwards. */
    void (*done)(hd_task *t);
    hd_status st;
    hd_err err;
    int64_t owner, id, chat, other; // what the work is about
    const char *type;               // of the reply, NULL: JSON
    hd_buf body;                    // of the request: becomes `in` on the store's thread, or is refused (unread, why)
    json_t *in, *out;               // the request's body; the reply's, unless text was filled; gone when `done` is called
    hd_buf text, more;
    uint64_t user;
    char state[16];
    bool all_of_it; // id 0 stands for everything
    /* An answer's prompt. */
    hd_ids prompt;
    hd_sample_opts sample;
    int64_t max_tok;
    bool goes_on;     // text and more are what the answer already has
    bool next_turn;   // the prompt of the question after this answer
    bool refused, unread;
    hd_api_error why;
};

/* r may be NULL.  Without memory NULL, and the request is answered with 503. */
hd_task *hd_task_new(hd_chats *c, hd_req *r);
void hd_task_start(hd_task *t);
void hd_task_free(hd_task *t);
/* A reply of JSON (taken) to the task's request, if it is still there. */
void hd_task_reply(hd_task *t, int status, json_t *j);
void hd_task_fail(hd_task *t);

/* ---- Sampling of a chat ---- */

/* settings (an object or NULL) over the model's own; HD_FORMAT names what is out of range. */
hd_status hd_chats_settings(const hd_chats *c, const json_t *settings, hd_sample_opts *o, int64_t *max_tok, int *thinking, hd_err *err);

/* After an answer with a thought: compute what its next turn will begin with, when there is time. */
void hd_chats_warm(hd_chats *c, int64_t owner, int64_t answer, uint64_t user);

/* ---- Answers ---- */

/* A stored question (t->prompt and so on filled by the work): submit, and reply with {chat, answer}. */
void hd_answer_begin(hd_task *t);
/* Stream to r what message `id` is and becomes; false: no such answer is running. */
bool hd_answer_watch(hd_chats *c, int64_t id, hd_req *r);
void hd_answer_stop(hd_chats *c, int64_t owner, int64_t id); // as the person asked
/* Forget those of this chat (0: of this owner), without saving: their rows go. */
void hd_answer_drop(hd_chats *c, int64_t owner, int64_t chat, int64_t id);
/* The server closes: save what there is, in tasks that the store's thread still does. */
void hd_answers_close(hd_chats *c);
/* One event of a stream of server-sent events; j is taken. */
void hd_answer_put(hd_req *r, json_t *j);

#endif
