# Models that lie: each is refused with one line and status 1, at once, within a fixed memory, and without a crash.
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
python3 "$here/make_hostile.py" "$tmp/models" || fail "the models were not made"

# The sanitizers reserve terabytes of addresses, so memory is limited only without them.
case ${HADAL_BUILD:-} in *san) limit=unlimited seconds=20 ;; *) limit=3000000 seconds=5 ;; esac
# refused VERB MODEL OPTION...: status 1 (2: a name that was meant otherwise), one line of the right form, no control bytes
refused() {
    (ulimit -v $limit; exec timeout $seconds "$HADAL" "$@") >"$tmp/out" 2>"$tmp/err" </dev/null
    local status=$?
    if { [ $status = 1 ] || [ $status = 2 ]; } && tail -n 1 "$tmp/err" | grep -qE '^hadal: [^:]+: .' &&
        ! LC_ALL=C grep -q '[^[:print:][:space:]]' "$tmp/err"; then pass
    else fail "hadal $*: status $status"; tail -n 3 "$tmp/err" >&2; fi
}
# survives VERB MODEL...: refused, or listed with the reason
survives() {
    (ulimit -v $limit; exec timeout $seconds "$HADAL" "$@") >"$tmp/out" 2>"$tmp/err" </dev/null
    local status=$?
    if [ $status = 0 ] && grep -qE 'cannot be run|"config_error"|memory plan +none' "$tmp/out"; then pass
    elif [ $status = 1 ] || [ $status = 2 ] && tail -n 1 "$tmp/err" | grep -qE '^hadal: [^:]+: .'; then pass
    else fail "hadal $*: status $status"; tail -n 3 "$tmp/err" >&2; fi
}
for model in "$tmp"/models/*; do
    refused score "$model" --text hello --threads 1
    survives inspect "$model"
done
for model in /dev/random /dev/zero /dev/null / /proc/self/mem "$tmp/none" "$tmp/none/" "" . -; do
    refused inspect "$model"
    refused score "$model" --text hello
    refused tokenize "$model"
done
# Truncation at every length: the reader's own tests cut at each byte; here the program meets some of them
llama=$tmp/base/llama.gguf
size=$(stat -c %s "$llama")
for ((n = 0; n < size; n += size / 40 + 1)); do
    head -c $n "$llama" >"$tmp/cut.gguf"
    refused score "$tmp/cut.gguf" --text hello --threads 1
done
# The same models unharmed do run
check "the GGUF they were made from" "$HADAL" score "$llama" --text hello --threads 1
check "the directory they were made from" "$HADAL" score "$tmp/base/qwen2" --text hello --threads 1
finish
