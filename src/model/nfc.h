/* Unicode normal forms (UAX 15) of valid UTF-8, in linear time whatever the text. */
#ifndef HD_MODEL_NFC_H
#define HD_MODEL_NFC_H

#include "base/buf.h"

typedef enum { HD_NFC, HD_NFD, HD_NFKC, HD_NFKD } hd_normal_form;

/* True when s is certainly in NFC already; false means "perhaps not". */
bool hd_nfc_quick(const char *s, size_t n);
/* Append s in the given form. */
hd_status hd_normalize(hd_buf *out, const char *s, size_t n, hd_normal_form form, hd_err *err);

#endif
