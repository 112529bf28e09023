/* Weights by the slot table: walk them, count their memory, bring them in.  Private to src/model. */
#ifndef HD_MODEL_LOAD_H
#define HD_MODEL_LOAD_H

#include "model/block.h"

/* One matrix or vector of a slot, as the file holds it. */
typedef struct {
    const hd_slot *slot;
    int layer, expert; // expert: -1 unless the slot is an expert's
    const hd_tensor_info *t;
    hd_rows rows; // a vector is one row
    bool last;    // nothing later reads this tensor: its pages may go
} hd_weight;

typedef hd_status hd_weight_fn(void *arg, const hd_weight *w, hd_err *err);

/* Every weight of a model in the order of its table; shapes are checked.  HD_FORMAT: one is missing or has
 * another shape. */
hd_status hd_weights_walk(const hd_source *s, const hd_config *c, hd_weight_fn *fn, void *arg, hd_err *err);

/* Bytes of the weights' arena. */
hd_status hd_weights_bytes(uint64_t *bytes, const hd_source *s, const hd_config *c, bool pack, bool exact,
                           hd_err *err);
/* Fill m->w and m->layer; m->weights is open with that many bytes.  Draws a progress bar unless quiet. */
hd_status hd_weights_load(hd_model *m, bool pack, bool quiet, hd_err *err);

/* The configuration without an MTP layer that the file does not hold. */
void hd_config_drop_mtp(hd_config *c, const hd_source *s);

#endif
