# Fails each allocation in turn: a command then ends with status 1 and `hadal: what: where: why`, or succeeds without it;
# never with a signal.  The n-th allocation for n = 1, 2, 3, ... up to 150, then in steps that grow, until a run makes fewer.
. "$(dirname "$0")/lib.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
lib=${HADAL_BUILD:-$root/build}/tests/failalloc.so
if [ ! -f "$lib" ]; then
    [ "${HADAL_BUILD##*/}" != build-asan ] && fail "no $lib" # the sanitizers bring an allocator of their own
    finish
    exit
fi

# each_fails COMMAND...
each_fails() {
    local n=1 status bad=0 runs=0
    while :; do
        rm -f "$tmp/mark"
        HADAL_FAIL_AT=$n HADAL_FAIL_MARK=$tmp/mark LD_PRELOAD=$lib timeout 20 "$HADAL" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
        status=$?
        [ -e "$tmp/mark" ] || break
        runs=$((runs + 1))
        if [ $status != 0 ] && { [ $status != 1 ] || ! grep -q '^hadal: ' "$tmp/err"; }; then
            bad=$((bad + 1))
            echo "hadal $*: allocation $n fails: status $status, $(tail -n 1 "$tmp/err")" >&2
            [ $bad -lt 5 ] || break
        fi
        n=$((n < 150 ? n + 1 : n + n / 40))
    done
    if [ $bad = 0 ] && [ $status = 0 ]; then pass; else fail "hadal $* with failing allocations ($runs runs, last status $status)"; fi
}

has_verb() { "$HADAL" --help | grep -q "^  $1 "; }

each_fails --version
! has_verb completion || each_fails completion bash
# The small golden models, when their makers have left them here: one of each kind of file.
for model in "$root"/tests/golden/failalloc/*; do
    [ -e "$model" ] || continue
    ! has_verb inspect || each_fails inspect "$model"
    ! has_verb tokenize || each_fails tokenize "$model" "Hello, world"
done
finish
