/* Chat formats for tokenizers that are trained here: the special tokens of a format, and its template
 * for other programs. */
#ifndef HD_TRAIN_CHAT_TEMPLATE_H
#define HD_TRAIN_CHAT_TEMPLATE_H

#include "base/err.h"

enum { HD_TEMPLATE_SPECIALS = 8 };

typedef struct {
    const char *name; // as in model/chat_formats.c
    const char *bos, *eos, *pad;
    bool adds_bos; // plain text begins with bos
    const char *special[HD_TEMPLATE_SPECIALS];
    const char *text; // Jinja, the same ids as hd_chat_render
} hd_chat_template;

/* HD_USAGE lists the names. */
hd_status hd_chat_template_find(const hd_chat_template **out, const char *name, hd_err *err);
const hd_chat_template *hd_chat_template_at(int i); // NULL ends the table

#endif
