/* From a request to what the engine is given. */
#ifndef HD_SERVE_API_PROMPT_H
#define HD_SERVE_API_PROMPT_H

#include "serve/api.h"

/* The grammar that a request's answer must keep to; NULL: none. */
hd_status hd_api_grammar(hd_grammar **out, const hd_chat_request *q, const hd_server *s, hd_api_error *e);

#endif
