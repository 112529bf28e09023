# hadal quantize on tiny models: every type opens again and stays near the model it came from; importance and measuring.
. "$(dirname "$0")/lib.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
python3 "$root/tests/failalloc/make_models.py" "$tmp/m" || fail "the models were not made"
head -c 3000 "$root/CONTRIBUTING.md" >"$tmp/text"

# field NAME: of the JSON report in $tmp/out.
field() { sed -n "s/.*\"$1\": \([0-9.e+-]*\).*/\1/p" "$tmp/out"; }
below() { awk -v x="$1" -v y="$2" 'BEGIN { exit !(x != "" && x >= 0 && x < y) }'; }

# A KL that each type must stay under on random weights, three times and more what was seen; where a matrix comes out wrong it
# is above 1.  The router of random experts has near ties, so deepseek moves most.
for pair in f32:1e-4 f16:1e-3 q8_0:0.02 q5_1:0.15 q4_0:0.3 q4_k_m:0.3 q6_k:0.02; do
    type=${pair%:*} most=${pair#*:}
    for model in llama.gguf deepseek.gguf qwen2; do
        check "$model to $type" "$HADAL" quantize "$tmp/m/$model" "$tmp/o.gguf" -t "$type" --measure "$tmp/text" --chunks 1 --json
        below "$(field kl)" "$most" && pass || fail "$model to $type: KL $(field kl), not below $most"
    done
done

# The same bytes for any number of threads, and other bytes with a text's importance, which never loses much.
"$HADAL" quantize "$tmp/m/deepseek.gguf" "$tmp/one.gguf" -t q4_0 --threads 1 >/dev/null
"$HADAL" quantize "$tmp/m/deepseek.gguf" "$tmp/two.gguf" -t q4_0 --threads 2 >/dev/null
check "threads do not change the file" cmp "$tmp/one.gguf" "$tmp/two.gguf"
for model in deepseek.gguf qwen2; do
    says "$model: importance" 'importance from [0-9]+ ids, perplexity' \
        "$HADAL" quantize "$tmp/m/$model" "$tmp/i1.gguf" -t q4_0 --imatrix-text "$tmp/text" --threads 1
    "$HADAL" quantize "$tmp/m/$model" "$tmp/plain.gguf" -t q4_0 >/dev/null
    if cmp -s "$tmp/plain.gguf" "$tmp/i1.gguf"; then fail "$model: importance changes nothing"; else pass; fi
    "$HADAL" quantize "$tmp/m/$model" "$tmp/i2.gguf" -t q4_0 --imatrix-text "$tmp/text" --threads 2 >/dev/null
    check "$model: importance is the same on two threads" cmp "$tmp/i1.gguf" "$tmp/i2.gguf"
done

# Rules: repeated or with commas, the first that matches counts.
says "rules repeated" '(q8_0.*q5_0|q5_0.*q8_0)' "$HADAL" quantize "$tmp/m/llama.gguf" "$tmp/r1.gguf" -t f16 \
    --tensor-type attn_v=q8_0 --tensor-type 'ffn_(up|gate)=q5_0' --tensor-type ffn=f32
"$HADAL" quantize "$tmp/m/llama.gguf" "$tmp/r2.gguf" -t f16 --tensor-type 'attn_v=q8_0,ffn_(up|gate)=q5_0,ffn=f32' >/dev/null
check "rules with commas" cmp "$tmp/r1.gguf" "$tmp/r2.gguf"

fails "one name" 2 "two names are needed" "$HADAL" quantize "$tmp/m/llama.gguf"
fails "an unknown type" 2 "not known: f32, f16" "$HADAL" quantize "$tmp/m/llama.gguf" "$tmp/x.gguf" -t q9
fails "an unwritable format" 2 "cannot be written" "$HADAL" quantize "$tmp/m/llama.gguf" "$tmp/x.gguf" --tensor-type a=iq2_xs
fails "a rule without =" 2 "is not PATTERN=TYPE" "$HADAL" quantize "$tmp/m/llama.gguf" "$tmp/x.gguf" --tensor-type a
fails "over the source" 2 "is the model that is read" "$HADAL" quantize "$tmp/m/llama.gguf" "$tmp/m/llama.gguf"
fails "a text that is a device" 1 "is a device" "$HADAL" quantize "$tmp/m/llama.gguf" "$tmp/x.gguf" --imatrix-text /dev/null
echo hi >"$tmp/short"
fails "a text of two ids" 2 "no text to measure with" "$HADAL" quantize "$tmp/m/llama.gguf" "$tmp/x.gguf" --imatrix-text "$tmp/short"
fails "a text that is not there" 1 "nowhere" "$HADAL" quantize "$tmp/m/llama.gguf" "$tmp/x.gguf" --measure "$tmp/nowhere"
fails "a folder that is not there" 1 "nowhere" "$HADAL" quantize "$tmp/m/llama.gguf" "$tmp/nowhere/x.gguf"
[ ! -e "$tmp/x.gguf" ] || [ "$("$HADAL" quantize "$tmp/x.gguf" "$tmp/y.gguf" >/dev/null; echo $?)" = 0 ] && pass || fail "half a file was left"
finish
