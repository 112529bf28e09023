/* config.json and generation_config.json from hd_config, and single keys of config.json from text.  What is
 * written reads back to the same hd_config, and transformers' configuration classes find every value under
 * the name they know. */
#ifndef HD_MODEL_CONFIG_WRITE_H
#define HD_MODEL_CONFIG_WRITE_H

#include "model/config.h"

/* dtype: "float32", "bfloat16", ... as the weights beside it are stored.  The caller's to json_decref. */
hd_status hd_config_to_json(json_t **out, const hd_config *c, const char *dtype, hd_err *err);
/* The ends of a turn and the sampling that the model recommends. */
hd_status hd_config_generation(json_t **out, const hd_config *c, hd_err *err);
/* A JSON file of a folder, whole or not at all. */
hd_status hd_json_write(const char *dir, const char *name, const json_t *j, hd_err *err);
/* Both files into a folder.  also: keys to add to config.json (initializer_range ...), or NULL. */
hd_status hd_config_write(const char *dir, const hd_config *c, const char *dtype, const json_t *also, hd_err *err);

/* One key of config.json from text: `key` as there ("hidden_size", "architectures", "rope_scaling.factor"),
 * or `architecture`.
 * HD_USAGE: a key that the reader does not know, or text that is no value of its kind.  where:
 * "recipe.ini:12". */
hd_status hd_config_set(json_t *config, const char *key, const char *text, const char *where, hd_err *err);
const char *hd_config_key_at(int i); // walk the keys it knows; NULL past their end

#endif
