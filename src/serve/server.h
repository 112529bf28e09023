/* The server as its handlers see it: what hd_req_app returns. */
#ifndef HD_SERVE_SERVER_H
#define HD_SERVE_SERVER_H

#include "serve/grammars.h"
#include "serve/net.h"
#include "serve/sched.h"
#include "serve/shared.h"
#include "serve/work.h"

typedef struct hd_chats hd_chats;

/* A name that clients ask for. */
typedef struct {
    char name[128];
    int thinking; // 1 on, 0 off, -1 the format's default
} hd_alias;

typedef struct hd_server {
    hd_engine *engine;           // for render, tokenize, names: only functions that read it (it belongs to the scheduler)
    const hd_tokenizer *tok;
    const char *model_name;      // how it calls itself in /v1/models
    int64_t created;             // Unix seconds
    const hd_alias *alias;
    int n_alias;
    bool any_model;              // an unknown model name means the one there is, instead of 404
    bool send_reasoning_too;     // `reasoning` beside `reasoning_content`
    int64_t default_max_tok;     // 0: until the context ends
    hd_sched *sched;
    hd_net *net;
    hd_work *work;               // for what would keep the network thread; NULL: it does it itself
    hd_grammars *grammars;       // NULL: each is compiled anew
    hd_shared *shared;           // prefixes that users share; NULL: none
    hd_chats *chats;             // conversations of the page (chats.h); NULL: none kept
} hd_server;

void hd_server_metrics(void *app, hd_buf *out); // the scheduler's lines of /metrics; app: the hd_server

static inline hd_server *hd_server_of(const hd_req *r) { return hd_req_app(r); }

#endif
