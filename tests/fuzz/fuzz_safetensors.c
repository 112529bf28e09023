/* The safetensors reader: the bytes are model.safetensors of a directory whose config.json is sound.  A first
 * byte of 'i' makes the rest the index of a sharded model instead. */
#include <string.h>

#include "model/model.h"

#include "fuzz/model_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 4, \"num_hidden_layers\": 1, "
    "\"num_attention_heads\": 2, \"vocab_size\": 8, \"intermediate_size\": 4}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_err err;
    hd_source *s = NULL;
    char index[128];
    bool is_index = size > 0 && data[0] == 'i';
    fuzz_put("config.json", config, sizeof config - 1);
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", fuzz_folder());
    if (is_index) {
        fuzz_put("model.safetensors.index.json", data + 1, size - 1);
    } else {
        unlink(index);
        fuzz_put("model.safetensors", data, size);
    }
    if (hd_source_open_list(&s, fuzz_folder(), &err) == HD_OK) {
        fuzz_visit(s);
        hd_source_close(s);
    }
    return 0;
}
