# hadal cost plan: DeepSeek-V3's own numbers from its configuration, and what is refused.  (tests/unit/test_cost.c has the arithmetic.)
. "$(dirname "$0")/lib.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
h800=$root/recipes/machines/h800.ini
cat >"$tmp/config.json" <<'JSON'
{"architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
 "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_nextn_predict_layers": 1, "num_attention_heads": 128,
 "num_key_value_heads": 128, "n_shared_experts": 1, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
 "first_k_dense_replace": 3, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
 "v_head_dim": 128, "max_position_embeddings": 163840}
JSON
plan() { "$HADAL" cost plan --model "$tmp/config.json" --tokens 14.8T --machine "$h800" "$@"; }

for line in '671 B weights, 37.* B of them used by a token' '11\.[56] B more, 13\.5 B with' \
    '2,664 K hours of one H800: 180 K a trillion tokens x 14\.8 T tokens, \$5\.328 M' '[0-9.]+ % of the fp8 peak \([0-9.]+ % of bf16' \
    '119 K hours as quoted, \$0\.238 M; estimated here [0-9]+ K \(-[0-9]+ %\)' '5 K hours as quoted, \$0\.010 M' \
    '2,788 K hours, \$5\.576 M at \$2 an hour: the official run only, excluding prior research and ablations'; do
    says "V3: $line" "$line" plan
done
says "json" '"device_hours": 2664[0-9]{3}' plan --json
says "a folder, another length" 'sequences of 131072' "$HADAL" cost plan --model "$tmp" --tokens 1e9 --machine "$h800" --seq 131072
says "help" 'examples:' "$HADAL" cost --help

fails "no verb of its own" 2 "cost plan" "$HADAL" cost
fails "nothing to plan" 2 "are needed" "$HADAL" cost plan
fails "no number" 2 "is no number" "$HADAL" cost plan --model "$tmp" --tokens many --machine "$h800"
fails "an optimizer" 2 "adamw and muon" "$HADAL" cost plan --model "$tmp" --tokens 1T --machine "$h800" --optimizer sgd
fails "no machine" 1 "" "$HADAL" cost plan --model "$tmp" --tokens 1T --machine "$tmp/none.ini"
sed 's/watts/wats/' "$h800" >"$tmp/bad.ini"
fails "a word that is not known" 1 "wats: is not known .line [0-9]+" "$HADAL" cost plan --model "$tmp" --tokens 1T --machine "$tmp/bad.ini"
fails "no run" 1 "log.csv" "$HADAL" cost run "$tmp" --machine "$h800"
finish
