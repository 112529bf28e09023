# hadal distil --make-texts: lines in order, taken up after a kill and after a full disk, to the same texts; what is refused.
. "$(dirname "$0")/lib.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
python3 "$root/tests/failalloc/make_models.py" "$tmp/models" || fail "the models were not made"
model=$tmp/models/llama.gguf
for i in $(seq 40); do
    echo "{\"question\": \"the hello of $i\", \"answer\": \"-\"}"
done >"$tmp/prompts.jsonl"
command=("$HADAL" distil --make-texts "$model" "$tmp/prompts.jsonl" -n 12 --temp 1.5 --seed 7)
texts() { "${command[@]}" "$@"; }

says "a report" 'out.jsonl: 40 prompts, 0 of them before; [0-9]+ answered, [0-9]+ left out' texts -o "$tmp/out.jsonl"
check "a line a prompt" [ "$(wc -l <"$tmp/out.jsonl")" = 40 ]
check "in order" python3 -c "
import json
rows = [json.loads(line) for line in open('$tmp/out.jsonl')]
assert [r['index'] for r in rows] == list(range(40))
assert all(('messages' in r) == (r['finish'] == 'stop') for r in rows)
assert any(r['finish'] == 'length' for r in rows)
for r in rows:
    if 'messages' in r:
        assert r['messages'][0] == {'role': 'user', 'content': 'the hello of %d' % (r['index'] + 1)}
        assert r['messages'][1]['role'] == 'assistant'
"
says "all there" '40 prompts, 40 of them before; 0 answered, 0 left out' texts -o "$tmp/out.jsonl"
says "json" '"prompts": 40, "before": 0,' texts -o "$tmp/other.jsonl" -j 3 -t 1 --json
check "the same texts with others at once" cmp "$tmp/out.jsonl" "$tmp/other.jsonl"

# Killed at some moment, as often as it takes.
rm "$tmp/other.jsonl"
for i in 1 2 3 4 5 6; do
    "${command[@]}" -o "$tmp/other.jsonl" -j 2 -t 1 >"$tmp/out" 2>&1 & # no function: its shell would be killed instead
    pid=$!
    sleep 0.0$((i * 3))
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
done
texts -o "$tmp/other.jsonl" >"$tmp/out" 2>&1
check "the same texts after kills" cmp "$tmp/out.jsonl" "$tmp/other.jsonl"

# A full disk.
rm "$tmp/other.jsonl"
fails "a full disk" 1 'write: .*other.jsonl' bash -c "ulimit -f 1; trap '' XFSZ; exec '$HADAL' distil --make-texts '$model' '$tmp/prompts.jsonl' -n 12 --temp 1.5 --seed 7 -o '$tmp/other.jsonl'"
texts -o "$tmp/other.jsonl" >"$tmp/out" 2>&1
check "the same texts once there is room" cmp "$tmp/out.jsonl" "$tmp/other.jsonl"

fails "no prompts" 2 'wants a model, prompts and -o' "$HADAL" distil --make-texts "$model" -o "$tmp/x.jsonl"
fails "no output" 2 'wants a model, prompts and -o' texts
fails "a switch" 2 'on or off' texts -o "$tmp/x.jsonl" --thinking maybe
fails "no such file" 1 'nothere.jsonl' "$HADAL" distil --make-texts "$model" "$tmp/nothere.jsonl" -o "$tmp/x.jsonl"
echo '{"text": "no prompt"}' >"$tmp/bad.jsonl"
fails "no prompt in a line" 1 'line 1: no prompt' "$HADAL" distil --make-texts "$model" "$tmp/bad.jsonl" -o "$tmp/x.jsonl"
fails "another file" 1 'not a file of this command' "$HADAL" distil --make-texts "$model" "$tmp/prompts.jsonl" -o "$tmp/bad.jsonl"
fails "a folder" 1 'open: ' texts -o "$tmp"
finish
