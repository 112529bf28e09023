/* Texts that ended lately, to recognise them when they come back in other tokens. */
#ifndef HD_SERVE_PAST_H
#define HD_SERVE_PAST_H

#include "model/tokenizer.h"

enum { HD_MAX_PAST = 64 };

typedef struct {
    uint64_t user;
    int64_t used;
    hd_ids ids;
} hd_past_text;

typedef struct {
    hd_past_text text[HD_MAX_PAST];
    int n;
    int64_t n_ids, clock;
} hd_past;

void hd_past_free(hd_past *p);
/* Note a timeline; takes the ids.  It replaces one that it goes on from. */
void hd_past_note(hd_past *p, uint64_t user, hd_ids *ids);
/* If a text of this user says in other ids what v begins with, write v as that text spells it, and then as v
 * goes on, to out.  `known`: so many ids of v are known as they are; false when no text reaches a page
 * further than that. */
bool hd_past_spelled(hd_past *p, const hd_tokenizer *t, uint64_t user, const hd_ids *v, int64_t known, hd_ids *out);

#endif
