# hadal inspect: what it says of the default model, as text and as JSON, and of what cannot be run.
. "$(dirname "$0")/lib.sh"
model=${HADAL_TEST_MODEL:-}
if [ -n "$model" ]; then
    says "configuration" 'LlamaForCausalLM: 30 layers, width 576' "$HADAL" inspect "$model"
    says "tokenizer" 'gpt2, split as smollm, 49152 tokens' "$HADAL" inspect "$model"
    says "chat format" '^chat format +smollm2' "$HADAL" inspect "$model"
    says "weights" '134.5 million in 272 tensors, 96.6 MB' "$HADAL" inspect "$model"
    says "memory plan" '^memory plan .*packed weights, .* to work in, .* cache .* a token' "$HADAL" inspect "$model"
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

# DeepSeek R1 in its real size, 671 billion weights (and 14 of the multi-token-prediction layer), from any part of a split
# GGUF and from a directory of shards: sparse files, which no test machine could load.
python3 "$(dirname "$0")/make_r1.py" gguf "$tmp/r1" && python3 "$(dirname "$0")/make_r1.py" hf "$tmp/r1-hf" || fail "no sparse files"
says "R1 as GGUF" '671\.03 billion in 1025 tensors, 435 GB' "$HADAL" inspect "$tmp/r1/r1-00003-of-00009.gguf"
says "R1's attention" 'MLA: 128 heads of 128 \+ 64, values of 128, key latent 512, query latent 1536' "$HADAL" inspect "$tmp/r1"
says "R1's plan" '^memory plan +4[0-9][0-9] GB for 163840 tokens: .*cache \(70\.3 kB a token\)' "$HADAL" inspect "$tmp/r1"
says "R1 does not fit" 'the weights do not fit' "$HADAL" inspect "$tmp/r1"
says "R1 as published, FP8" '684\.53 billion in 91991 tensors, 689 GB' "$HADAL" inspect "$tmp/r1-hf"
says "its experts" 'experts\.\*\.down_proj\.weight +15104 x f8_e4m3 \[7168, 2048\]' "$HADAL" inspect "$tmp/r1-hf"
says "its plan" '^memory plan +[67][0-9][0-9] GB for 163840 tokens' "$HADAL" inspect "$tmp/r1-hf"
fails "a missing part" 1 'r1-00005-of-00009.gguf: part 5 of 9 is missing' \
    bash -c 'mv "$1/r1-00005-of-00009.gguf" "$1/away"; "$0" inspect "$1"' "$HADAL" "$tmp/r1"

# An architecture that nothing here runs is listed all the same, with the reason.
mkdir "$tmp/odd"
echo '{"architectures": ["MysteryForCausalLM"], "vocab_size": 3}' >"$tmp/odd/config.json"
says "an unknown architecture" "cannot be run: .*MysteryForCausalLM' is not known" "$HADAL" inspect "$tmp/odd"
says "and in JSON" '"config_error": "config: .*MysteryForCausalLM' "$HADAL" inspect --json "$tmp/odd"
fails "it does not run" 1 "neither model.safetensors nor" "$HADAL" score "$tmp/odd" --text hi
fails "no model" 2 "one model is needed" "$HADAL" inspect
fails "a missing model" 1 "open: $tmp/none: No such file" "$HADAL" inspect "$tmp/none"
finish
