/* Beginnings of prompts that the operator lets all users share: what one has asked behind them is read by
 * nobody else, but the beginning itself is computed once. */
#ifndef HD_SERVE_SHARED_H
#define HD_SERVE_SHARED_H

#include "model/tokenizer.h"

typedef struct hd_shared hd_shared;
typedef struct hd_engine hd_engine;

/* Each file holds a system prompt, or the beginning of one.  n 0: *out is NULL.  HD_IO,
 * HD_FORMAT, HD_LIMIT. */
hd_status hd_shared_open(hd_shared **out, const hd_engine *e, const char *const *file, int n, hd_err *err);
void hd_shared_close(hd_shared *s);
/* So many ids at the beginning of this prompt may be shared.  Any thread; s NULL: 0. */
int64_t hd_shared_tok(const hd_shared *s, const hd_ids *prompt);
/* The i-th prefix, or NULL behind the last: to be computed before anybody asks. */
const hd_ids *hd_shared_ids(const hd_shared *s, int i);

#endif
