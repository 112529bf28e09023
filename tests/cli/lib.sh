# For the scripts beside this one: `. "$(dirname "$0")/lib.sh"`.  Each check counts once; `finish` prints the result.
#   check WHAT COMMAND...             the command succeeds
#   says WHAT PATTERN COMMAND...      it succeeds and its output (both streams) matches the extended regular expression
#   fails WHAT STATUS PATTERN COMMAND...   it ends with STATUS and says so in one line of stderr that matches `hadal: .*PATTERN`
#   interrupted WHAT SECONDS PATTERN COMMAND...   Ctrl-C after SECONDS ends it with status 1 and such a message; COMMAND is no function, whose
#                           shell would get the signal
# $tmp is a folder of the script's own, removed at its end.
set -u
HADAL=${HADAL:-$(cd "$(dirname "$0")/../.." && pwd)/build/hadal}
passed=0 failed=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "failed: $*" >&2; }
check() {
    local what=$1; shift
    if "$@" >"$tmp/out" 2>&1; then pass; else fail "$what (status $?)"; tail -n 5 "$tmp/out" >&2; fi
}
says() {
    local what=$1 pattern=$2; shift 2
    if "$@" >"$tmp/out" 2>&1 && grep -qE -- "$pattern" "$tmp/out"; then pass
    else fail "$what: not the expected output"; tail -n 5 "$tmp/out" >&2; fi
}
fails() {
    local what=$1 status=$2 pattern=$3 got; shift 3
    "$@" >"$tmp/out" 2>"$tmp/err"; got=$?
    if [ "$got" = "$status" ] && grep -qE -- "^hadal: .*$pattern" "$tmp/err"; then pass
    else fail "$what: status $got, not $status, or not the expected message"; tail -n 5 "$tmp/err" >&2; fi
}
interrupted() {
    local what=$1 seconds=$2 pattern=$3 pid got; shift 3
    "$@" >"$tmp/out" 2>"$tmp/err" &
    pid=$!
    sleep "$seconds"
    kill -INT $pid
    wait $pid; got=$?
    if [ "$got" = 1 ] && grep -qE -- "hadal: .*$pattern" "$tmp/err"; then pass
    else fail "$what: status $got, not 1, or not the expected message"; tail -n 5 "$tmp/err" >&2; fi
}
# small_grammar SEED N: N sentences, so that there is something to learn.
small_grammar() {
    awk -v seed="$1" -v n="$2" 'BEGIN {
    srand(seed)
    split("the a one her his", d); split("cat dog king bird ship tree", s); split("saw liked found left made", v)
    for (i = 0; i < n; i++) {
        printf "%s %s %s %s %s. ", d[1 + int(rand() * 5)], s[1 + int(rand() * 6)], v[1 + int(rand() * 5)], d[1 + int(rand() * 5)], s[1 + int(rand() * 6)]
        if (i % 20 == 19) printf "\n\n"
    }
}'
}
# tiny_v3 LAYERS EXPERTS: the head of a recipe, a V3 of some ten thousand weights with a layer of multi-token prediction.
tiny_v3() {
    cat <<END
[model]
architecture = DeepseekV3ForCausalLM
hidden_size = 32
num_hidden_layers = $1
num_attention_heads = 2
num_key_value_heads = 2
q_lora_rank = 0
kv_lora_rank = 16
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
intermediate_size = 64
first_k_dense_replace = 1
n_routed_experts = $2
n_shared_experts = 1
num_experts_per_tok = 2
moe_intermediate_size = 32
n_group = 1
topk_group = 1
routed_scaling_factor = 1
num_nextn_predict_layers = 1
tie_word_embeddings = true
[tokenizer]
vocab = 320
END
}
finish() { echo "$passed passed, $failed failed"; [ "$failed" = 0 ]; }
