# hadal inspect: what it says of the default model, as text and as JSON, and of what cannot be run.
. "$(dirname "$0")/lib.sh"
model=${HADAL_TEST_MODEL:-}
if [ -n "$model" ]; then
    says "configuration" 'LlamaForCausalLM: 30 layers, width 576' "$HADAL" inspect "$model"
    says "tokenizer" 'gpt2, split as smollm, 49152 tokens' "$HADAL" inspect "$model"
    says "chat format" '^chat format +smollm2' "$HADAL" inspect "$model"
    says "weights" '134.5 million in 272 tensors, 96.6 MB' "$HADAL" inspect "$model"
    says "memory plan" '^memory plan .*packed weights.*to work in' "$HADAL" inspect "$model"
    says "groups of tensors" 'blk\.\*\.ffn_down\.weight +30 x q4_1 +\[576, 1536\]' "$HADAL" inspect "$model"
    says "each tensor" 'blk\.29\.ffn_down\.weight +q4_1 +\[576, 1536\]' "$HADAL" inspect --tensors "$model"
    says "metadata" 'llama\.context_length = 8192' "$HADAL" inspect --metadata "$model"
    "$HADAL" inspect --json "$model" >"$tmp/json" 2>"$tmp/err"
    says "JSON" '^576 30 272 30081024 8192 49152 True smollm' python3 -c '
import json, sys
j = json.load(open(sys.argv[1]))
print(j["config"]["width"], j["config"]["layers"], len(j["tensors"]), j["tensors"][0]["bytes"],
      j["metadata"]["llama.context_length"], j["metadata"]["tokenizer.ggml.tokens"]["elements"],
      j["plan"]["packed_bytes"] > 50e6, j["chat_format"])' "$tmp/json"
fi

# An architecture that nothing here runs is listed all the same, with the reason.
mkdir "$tmp/odd"
echo '{"architectures": ["MysteryForCausalLM"], "vocab_size": 3}' >"$tmp/odd/config.json"
says "an unknown architecture" "cannot be run: .*MysteryForCausalLM' is not known" "$HADAL" inspect "$tmp/odd"
says "and in JSON" '"config_error": "config: .*MysteryForCausalLM' "$HADAL" inspect --json "$tmp/odd"
fails "it does not run" 1 "neither model.safetensors nor" "$HADAL" score "$tmp/odd" --text hi
fails "no model" 2 "one model is needed" "$HADAL" inspect
fails "a missing model" 1 "open: $tmp/none: No such file" "$HADAL" inspect "$tmp/none"
finish
