/* /openapi.json. */
#ifndef HD_SERVE_OPENAPI_H
#define HD_SERVE_OPENAPI_H

#include "serve/api.h"

json_t *hd_openapi_json(const hd_server *s);                     // a new reference; NULL without memory
bool hd_openapi_describes(const char *method, const char *path); // a route's, as its row has it

#endif
