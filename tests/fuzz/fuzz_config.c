/* config.json and generation_config.json: the bytes up to a NUL are the one, those behind it the other. */
#include <string.h>

#include "model/config.h"
#include "model/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_err err;
    hd_config c;
    json_t *config = NULL, *generation = NULL;
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    if (nul && hd_json_parse(&generation, nul + 1, size - n - 1, 10000, "json", "generation", &err) != HD_OK)
        generation = NULL;
    if (hd_json_parse(&config, data, n, 10000, "json", "config", &err) == HD_OK &&
        hd_config_from_json(&c, config, generation, "fuzz", &err) == HD_OK) {
        /* What the check promises must hold, and must hold again. */
        if (hd_config_check(&c, "fuzz", &err) != HD_OK) __builtin_trap();
        for (int i = 0; i < c.n_layers && i < 8; i++) (void)hd_config_layer_is_moe(&c, i);
    }
    json_decref(config);
    json_decref(generation);
    return 0;
}
