/* The store's thread: takes all tasks that wait, does them in one transaction, and gives them back to
 * the network thread.
 *
 * So a handler never waits for a disk, and however many write at once, the disk is asked for one fsync.  When
 * the transaction cannot be committed none of its tasks is acknowledged: each is told of the failure.  When
 * it cannot even be begun (a full disk), tasks are tried one by one, so that reading still works. */
#include <stdio.h>
#include <string.h>

#include "serve/chats_impl.h"

enum { AT_ONCE = 8 };

/* ---- Tasks ---- */

static void gone(void *arg)
{
    hd_task *t = arg;
    t->r = NULL;
}

hd_task *hd_task_new(hd_chats *c, hd_req *r)
{
    hd_task *t = calloc(1, sizeof *t);
    if (!t) {
        if (r) hd_req_fail(r, 503, "no_memory", "no memory for this request");
        return NULL;
    }
    t->c = c;
    t->r = r;
    t->owner = HD_STORE_LOCAL;
    hd_buf_init(&t->body, 0);
    hd_buf_init(&t->text, SIZE_MAX);
    hd_buf_init(&t->more, SIZE_MAX);
    if (r) {
        t->user = hd_req_user(r);
        hd_req_on_gone(r, gone, t);
    }
    return t;
}

void hd_task_free(hd_task *t)
{
    if (!t) return;
    if (t->r) hd_req_on_gone(t->r, NULL, NULL);
    json_decref(t->in);
    json_decref(t->out);
    hd_buf_free(&t->body);
    hd_buf_free(&t->text);
    hd_buf_free(&t->more);
    hd_ids_free(&t->prompt);
    free(t);
}

void hd_task_reply(hd_task *t, int status, json_t *j)
{
    hd_req *r = t->r;
    char *text = j && r ? json_dumps(j, JSON_COMPACT) : NULL;
    t->r = NULL;
    if (r) {
        hd_req_on_gone(r, NULL, NULL);
        if (text) hd_reply(r, status, "application/json", text, strlen(text));
        else hd_req_fail(r, 503, "no_memory", "no memory for the reply");
    }
    free(text);
    json_decref(j);
}

void hd_task_fail(hd_task *t)
{
    hd_req *r = t->r;
    bool disk = strncmp(t->err.msg, "store:", 6) == 0 || t->st == HD_IO || t->st == HD_NOMEM;
    t->r = NULL;
    if (!r) return;
    hd_req_on_gone(r, NULL, NULL);
    if (t->unread) {
        hd_req_fail(r, t->why.http, t->why.code, t->why.message);
    } else if (disk) {
        hd_reply_header(r, "Retry-After", "10");
        hd_req_fail(r, 503, "store", t->err.msg);
    } else if (t->st == HD_USAGE) {
        hd_req_fail(r, 404, "not_found", t->err.msg);
    } else {
        hd_req_fail(r, t->st == HD_FORMAT ? 422 : 400, "invalid_value", t->err.msg);
    }
}

static void finish(hd_task *t)
{
    if (t->done && !t->unread) t->done(t);
    else if (t->st != HD_OK) hd_task_fail(t);
    else if (t->text.data || t->type) {
        hd_req *r = t->r;
        t->r = NULL;
        if (r) {
            hd_req_on_gone(r, NULL, NULL);
            hd_reply_take(r, 200, t->type ? t->type : "application/json", &t->text);
        }
    } else {
        hd_task_reply(t, 200, t->out ? json_incref(t->out) : json_object());
    }
    hd_task_free(t);
}

/* ---- Between the threads ---- */

void hd_task_start(hd_task *t)
{
    hd_chats *c = t->c;
    t->next = NULL;
    pthread_mutex_lock(&c->lock);
    if (c->last) c->last->next = t;
    else c->first = t;
    c->last = t;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

/* Those that are done, in the order of their doing, behind those that were found before. */
static void take_done(hd_chats *c)
{
    pthread_mutex_lock(&c->lock);
    hd_task *t = c->done, *list = NULL;
    c->done = NULL;
    pthread_mutex_unlock(&c->lock);
    hd_task **last = t ? &t->next : c->told_last; // the newest will be the last
    while (t) {
        hd_task *next = t->next;
        t->next = list;
        list = t;
        t = next;
    }
    if (!list) return;
    *c->told_last = list;
    c->told_last = last;
}

/* Network thread: tell a few of those who wait for it; between them the loop hears others. */
static void tell(void *arg)
{
    hd_chats *c = arg;
    take_done(c);
    for (int i = 0; c->told; i++) {
        if (i >= AT_ONCE && hd_net_post(c->server->net, tell, c, NULL) == HD_OK) return;
        hd_task *t = c->told;
        c->told = t->next;
        if (!c->told) c->told_last = &c->told;
        finish(t);
    }
}

static void give_back(hd_chats *c, hd_task *batch)
{
    pthread_mutex_lock(&c->lock);
    while (batch) {
        hd_task *next = batch->next;
        batch->next = c->done;
        c->done = batch;
        batch = next;
    }
    bool open = !c->stop;
    pthread_mutex_unlock(&c->lock);
    if (open) hd_net_post(c->server->net, tell, c, NULL); // without memory for it the next batch's post tells these, too
}

/* Megabytes of JSON: here they keep nobody but the store waiting. */
static void read_body(hd_task *t)
{
    if (t->body.len && hd_api_json(&t->in, t->body.data, t->body.len, &t->why) != HD_OK) {
        t->unread = true;
        t->st = HD_FORMAT;
    }
    hd_buf_free(&t->body);
}

static void work(hd_task *t, hd_store *s)
{
    if (t->unread) return;
    t->st = t->work(t, s, &t->err);
    if (t->st == HD_OK && t->out && !t->done) {
        char *text = json_dumps(t->out, JSON_COMPACT); // long lists: better here than on the network thread
        t->st = text ? hd_buf_adds(&t->text, text, &t->err) : hd_fail(&t->err, HD_NOMEM, "store: reply: no memory");
        free(text);
        json_decref(t->out);
        t->out = NULL;
    }
    json_decref(t->in); // a million values take their time to be freed, too
    t->in = NULL;
}

static void *run(void *arg)
{
    hd_chats *c = arg;
    for (;;) {
        hd_err err = {0};
        pthread_mutex_lock(&c->lock);
        while (!c->first && !c->stop) pthread_cond_wait(&c->wake, &c->lock);
        hd_task *batch = c->first;
        c->first = c->last = NULL;
        pthread_mutex_unlock(&c->lock);
        if (!batch) return NULL; // stopped, and nothing left
        for (hd_task *t = batch; t; t = t->next) read_body(t);
        bool group = hd_store_begin(c->store, &err) == HD_OK;
        for (hd_task *t = batch; t; t = t->next) work(t, c->store);
        hd_status st = group ? hd_store_commit(c->store, &err) : HD_OK;
        for (hd_task *t = batch; t && st != HD_OK; t = t->next) {
            if (t->st != HD_OK) continue;
            t->st = st;
            t->err = err;
        }
        give_back(c, batch);
    }
}

/* ---- Opening and closing ---- */

/* Whether the prompt differs with thinking on and off, and which of them is the default. */
static void look_at_thinking(hd_chats *c)
{
    hd_message m = {.role = "user", .text = "Hi"};
    hd_ids v[3] = {{0}};
    bool ok = true;
    for (int i = 0; i < 3; i++) ok = ok && hd_engine_render(c->server->engine, &m, 1, i - 1, &v[i], NULL) == HD_OK; // default, off, on
    if (ok) {
        size_t n = (size_t)v[2].n * sizeof *v[2].id;
        c->thinking_switch = v[1].n != v[2].n || memcmp(v[1].id, v[2].id, n) != 0;
        c->thinking_default = v[0].n == v[2].n && memcmp(v[0].id, v[2].id, n) == 0;
    }
    for (int i = 0; i < 3; i++) hd_ids_free(&v[i]);
}

hd_status hd_chats_open(hd_chats **out, hd_server *s, const char *path, hd_err *err)
{
    hd_status st;
    hd_chats *c = NULL;
    HD_TRY(hd_alloc(&c, sizeof *c, err));
    c->server = s;
    c->told_last = &c->told;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->wake, NULL);
    HD_TRY(hd_store_open(&c->store, path, err));
    look_at_thinking(c);
    if (pthread_create(&c->thread, NULL, run, c) != 0) HD_TRY(hd_fail(err, HD_NOMEM, "chats: no thread for the database"));
    c->started = true;
    *out = c;
    return HD_OK;
fail:
    hd_chats_close(c);
    return st;
}

void hd_chats_close(hd_chats *c)
{
    if (!c) return;
    hd_answers_close(c);
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    if (c->started) pthread_join(c->thread, NULL);
    take_done(c);
    for (hd_task *t = c->told, *next; t; t = next) {
        next = t->next;
        hd_task_free(t);
    }
    hd_store_close(c->store);
    pthread_cond_destroy(&c->wake);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
