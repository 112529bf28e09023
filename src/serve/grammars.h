/* Grammars that were compiled lately: clients send the same schema with every request. */
#ifndef HD_SERVE_GRAMMARS_H
#define HD_SERVE_GRAMMARS_H

#include "infer/grammar.h"

typedef struct hd_grammars hd_grammars;

hd_status hd_grammars_open(hd_grammars **out, hd_err *err);
void hd_grammars_close(hd_grammars *c);
/* The grammar of a schema (NULL: any JSON object), or of GBNF text; *out is one reference.  Any thread.  c
 * NULL: compiled anew.  Errors are those of hd_grammar_open_schema and hd_grammar_open, and are not kept. */
hd_status hd_grammars_schema(hd_grammars *c, hd_grammar **out, const json_t *schema, hd_err *err);
hd_status hd_grammars_text(hd_grammars *c, hd_grammar **out, const char *text, hd_err *err);

#endif
