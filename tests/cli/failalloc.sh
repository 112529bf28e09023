# Fails each allocation in turn: a command then ends with status 1 and `hadal: what: where: why`, or does all its work without
# it (a cache, a hint); never with a signal, and never with half of its output.  Of a run with many allocations some are
# failed, evenly spread; all of them in the full tests.
. "$(dirname "$0")/lib.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
lib=${HADAL_BUILD:-$root/build}/tests/failalloc.so
if [ ! -f "$lib" ]; then
    case ${HADAL_BUILD##*/} in build-*san) ;; *) fail "no $lib" ;; esac # the sanitizers bring an allocator of their own
    finish
    exit
fi
most=40
[ -n "${HADAL_TEST_FULL:-}" ] && most=1000000000

# What a command printed, without its numbers: sizes, times and free memory differ from run to run.
words() { sed -E 's/-?[0-9.]+(e[-+]?[0-9]+)?//g' "$1"; }

# each_fails COMMAND...   ($input: its standard input, default empty)
each_fails() {
    local i n count status bad=0 runs
    rm -rf "$tmp/out.dir" # a folder that is there is refused
    timeout 20 env HADAL_FAIL_COUNT="$tmp/count" LD_PRELOAD="$lib" "$HADAL" "$@" >"$tmp/want" 2>"$tmp/err" <"${input:-/dev/null}" || {
        fail "hadal $*: without any failing allocation"
        cat "$tmp/err" >&2
        return
    }
    words "$tmp/want" >"$tmp/want.words"
    count=$(cat "$tmp/count")
    runs=$((count < most ? count : most))
    for ((i = 0; i < runs; i++)); do
        n=$((i * count / runs + 1))
        rm -rf "$tmp/out.dir"
        timeout 20 env HADAL_FAIL_AT=$n LD_PRELOAD="$lib" "$HADAL" "$@" \
            >"$tmp/out" 2>"$tmp/err" <"${input:-/dev/null}"
        status=$?
        if [ $status = 1 ] && grep -q '^hadal: [^:]*: ' "$tmp/err"; then continue; fi
        if [ $status = 0 ] && words "$tmp/out" | cmp -s - "$tmp/want.words"; then continue; fi
        bad=$((bad + 1))
        echo "hadal $*: allocation $n of $count fails: status $status, $(tail -n 1 "$tmp/err")" >&2
        [ $bad -lt 5 ] || break
    done
    if [ $bad = 0 ]; then pass; else fail "hadal $* with failing allocations ($count)"; fi
}

has_verb() { "$HADAL" --help | grep -q "^  $1 "; }
# tries VERB ARGUMENT...: the verb, where the program has it.
tries() { ! has_verb "$1" || each_fails "$@"; }

python3 "$root/tests/failalloc/make_models.py" "$tmp/models" || fail "the models were not made"
echo "the hello world, the world" >"$tmp/text"
printf 'hello\n/help\nthe world\n/quit\n' >"$tmp/lines"
echo '[{"role": "system", "content": "Be brief"}, {"role": "user", "content": "hello"}]' >"$tmp/chat"
env HADAL_FAIL_COUNT="$tmp/count" LD_PRELOAD="$lib" "$HADAL" inspect "$tmp/models/llama.gguf" >"$tmp/out" 2>&1
check "allocations are counted" [ "$(cat "$tmp/count")" -gt 20 ]
each_fails --version
each_fails --help
tries completion bash
tries cost plan --model "$tmp/models/qwen2" --tokens 1T --machine "$root/recipes/machines/h800.ini" --json
tries models list
mkdir "$tmp/run"
printf '[run]\nname = x\n[train]\nsteps = 3\n' >"$tmp/run/recipe.ini"
printf 'step,tokens,loss,mtp_loss,balance_loss,lr,grad_norm,tok_s,seconds\n1,8,2.5,0,0,1,1,9,0.5\n' >"$tmp/run/log.csv"
tries runs "$tmp/run" --json
for model in "$tmp"/models/*; do
    tries inspect "$model"
    tries inspect "$model" --json
    input=$tmp/text tries tokenize "$model"
    tries tokenize "$model" --json --chat "$tmp/chat"
    tries quantize "$model" "$tmp/out.gguf" --type q8_0 --threads 1
    tries export "$model" -o "$tmp/out.dir" --type bf16
    tries quantize "$model" "$tmp/out.gguf" --type q4_0 --imatrix-text "$tmp/text" --measure "$tmp/text" --threads 1
    tries score "$model" --text-file "$tmp/text" --threads 1
    tries score "$model" --text-file "$tmp/text" --ctx 6 --json --threads 2
    tries generate "$model" -p hello -n 4 --temp 0 --threads 1
    tries generate "$model" --chat -p hello -n 4 --temp 0 --json --threads 1 --draft lookup --stop zz
    input=$tmp/lines tries chat "$model" -n 3 --temp 0 --threads 1
done
input=$tmp/text tries tokenize "$tmp/models/qwen2" --json
tries data pack "$tmp/models/qwen2" "$tmp/text" -o "$tmp/packed" --replace --dedup --against "$tmp/chat" --val-share 0.1 --threads 1
"$HADAL" data pack "$tmp/models/qwen2" "$tmp/text" -o "$tmp/packed" --replace >/dev/null # what failed left nothing
tries data info "$tmp/packed" --json --check
tries data show "$tmp/packed" --tokenizer "$tmp/models/qwen2" --json
tries data show "$tmp/text" --divider ''
tries data get --json
# A run of one step, its teacher's probabilities made and read.
printf '%s\n' '[run]' "out = $tmp/out.dir" 'threads = 1' '[model]' "init = $tmp/models/qwen2" '[data]' "source = $tmp/text" "val = $tmp/text" \
    'seq = 8' '[train]' 'steps = 1' 'batch = 1' '[distil]' "teacher = $tmp/models/llama.gguf" "teacher_cache = $tmp/out.dir/probabilities" \
    'distil_top = 3' '[log]' 'sample_every = 0' >"$tmp/distil.ini"
tries distil "$tmp/distil.ini"
tries quantize "$tmp/models/llama.gguf" "$tmp/out.gguf" --type q4_0 --json --tensor-type 'attn_v=q8_0,ffn_down=q5_1'
# A tokenizer alone: opened, used for text, for ids and for a conversation; then the one of the small model, a GGUF file.
if has_verb tokenize; then
    mkdir "$tmp/tiny"
    printf '%s' '{"added_tokens": [{"id": 5, "content": "<|im_start|>", "special": true}, {"id": 6, "content": "<t>"},' \
        '{"id": 7, "content": "<|im_end|>", "special": true}], "normalizer": {"type": "NFC"}, "pre_tokenizer":' \
        '{"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]}, "model": {"type": "BPE",' \
        '"vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u00c3": 4}, "merges": ["a b"]}}' >"$tmp/tiny/tokenizer.json"
    printf '{"chat_template": "<|im_start|><|im_end|>{{ add_generation_prompt }}"}' >"$tmp/tiny/tokenizer_config.json"
    printf '[{"role": "system", "content": "ab"}, {"role": "user", "content": "ab\u00e9"}]' >"$tmp/chat.json"
    each_fails tokenize "$tmp/tiny" $'ab<t> e\u0301\u0323\u0301 \xff' "$(printf 'ab%.0s' $(seq 200))"
    each_fails tokenize "$tmp/tiny" --chat "$tmp/chat.json" --json
    # Numbers that Jansson's buffer grows for, after which it takes a character back: each of the allocations.
    printf '{"model_max_length": 1000000000000000019884624838656, "scores": [0.1234567890123456789, "a", -1.12345678901234567890123456789012345], ' >"$tmp/tiny/tokenizer_config.json"
    printf '"chat_template": "<|im_start|><|im_end|>{{ add_generation_prompt }}"}' >>"$tmp/tiny/tokenizer_config.json"
    most=1000 each_fails tokenize "$tmp/tiny" --chat "$tmp/chat.json" --json
    [ -z "${HADAL_TEST_MODEL:-}" ] || each_fails tokenize "$HADAL_TEST_MODEL" --chat "$tmp/chat.json"
fi
finish
