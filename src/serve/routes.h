/* Who has rows in the route table: one declaration here and one line in route.c add a file's rows. */
#ifndef HD_SERVE_ROUTES_H
#define HD_SERVE_ROUTES_H

#include "serve/net.h"

/* Rows of one file each; a row without a method ends them. */
extern const hd_route hd_routes_base[]; // route.c: health, metrics
extern const hd_route hd_routes_page[];  // assets.c: the chat page's files
extern const hd_route hd_routes_chats[]; // api_chats.c: what the page asks for
extern const hd_route hd_routes_login[];

extern const hd_route hd_routes_openai[];    // api_openai.c
extern const hd_route hd_routes_anthropic[]; // api_anthropic.c
extern const hd_route hd_routes_ollama[];    // api_ollama.c
extern const hd_route hd_routes_responses[]; // api_responses.c
extern const hd_route hd_routes_openapi[];   // openapi.c

#endif
