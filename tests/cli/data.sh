# hadal data: packing, looking, fetching from a server on this machine that cuts, lies and stops.
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
export XDG_CACHE_HOME=$tmp/cache
unset HF_TOKEN HADAL_DATA HADAL_DATA_MIRROR
data() { "$HADAL" data "$@"; }

# ---- pack, info, show ----
for i in $(seq 200); do printf 'the weather of day %d is like the weather of the other day\n<|end|>\n' "$i"; done >"$tmp/text.txt"
"$HADAL" tokenizer "$tmp/text.txt" -o "$tmp/tok" --vocab 300 --chat-format chatml >/dev/null 2>&1 || fail "no tokenizer"
says "a report" 'p: 200 documents, [0-9]+ ids, [0-9.]+ bytes a target' data pack "$tmp/tok" "$tmp/text.txt" --divider '<|end|>' -o "$tmp/p"
says "info" 'p: 200 documents, .* in 1 shard' data info "$tmp/p"
says "info in JSON" '"docs": 200,.*"masked": false' data info "$tmp/p" --json
check "all of it checked" data info "$tmp/p" --check
says "show" '^the weather of day 7 is like' data show "$tmp/p" --tokenizer "$tmp/tok" --from 7 -n 1
check "one document" [ "$(data show "$tmp/p" --tokenizer "$tmp/tok" --from 200 -n 9 | grep -c '^---')" = 1 ]
says "show in JSON" '"learnt": \[\[0, [0-9]+\]\], "document": 7, "text": "the weather of day 7 ' \
    data show "$tmp/p" --tokenizer "$tmp/tok" --from 7 -n 1 --json
says "show a file" '^--- document 3 ---$' data show "$tmp/text.txt" --divider '<|end|>' -n 3
says "lines" 'l: 400 documents' data pack "$tmp/tok" "$tmp/text.txt" --divider '\n' -o "$tmp/l"
says "without duplicates" '199 the same' data pack "$tmp/tok" "$tmp/text.txt" --divider '\n' -o "$tmp/l" --replace --dedup --near 1
says "near ones too" 'left out: 0 the same, [0-9]+ nearly' data pack "$tmp/tok" "$tmp/text.txt" --divider '<|end|>' -o "$tmp/d" --near 0.3
says "validation" 'val: [0-9]+ documents' data pack "$tmp/tok" "$tmp/text.txt" --divider '<|end|>' -o "$tmp/v" --val-share 0.2
check "packed alike by two threads" data pack "$tmp/tok" "$tmp/text.txt" --divider '<|end|>' -o "$tmp/v2" --val-share 0.2 -t 2
check "to the byte" diff -r "$tmp/v" "$tmp/v2"
says "validation is a folder of shards" 'documents' data info "$tmp/v/val"
echo '{"question": "a day", "answer": "the weather"}' >"$tmp/chat.jsonl"
says "a conversation" 'c: 1 documents' data pack "$tmp/tok" "$tmp/chat.jsonl" --chat -o "$tmp/c"
says "its answer alone" 'answers alone' data info "$tmp/c"
echo 'they say the weather of day 17 is like the weather of the other day, and so on' >"$tmp/eval.txt"
says "contamination" 'left out: 1 that share words' data pack "$tmp/tok" "$tmp/text.txt" --divider '<|end|>' -o "$tmp/clean" --against "$tmp/eval.txt"
says "and which it was" 'document 17: text 1 of .*eval.txt' data pack "$tmp/tok" "$tmp/text.txt" --divider '<|end|>' -o "$tmp/clean" \
    --against "$tmp/eval.txt" --replace
check "kept with the data" grep -q '"overlapping": 1' "$tmp/clean/pack.json"
says "JSON" '"docs": 199,.*"report": \{' data pack "$tmp/tok" "$tmp/text.txt" --divider '<|end|>' -o "$tmp/clean" --against "$tmp/eval.txt" --replace --json

fails "no part" 2 'pack, get, info or show' data
fails "another part" 2 'data: knead: pack' data knead
fails "no files" 2 'files are needed' data pack "$tmp/tok" -o "$tmp/x"
fails "no folder" 2 '-o DIR' data pack "$tmp/tok" "$tmp/text.txt"
fails "packed already" 2 'holds packed data already: --replace' data pack "$tmp/tok" "$tmp/text.txt" -o "$tmp/p"
fails "no such file" 1 'nothere.txt: no such file' data pack "$tmp/tok" "$tmp/nothere.txt" -o "$tmp/x"
fails "no such field" 1 "chat.jsonl:1: field 'text' is not there" data pack "$tmp/tok" "$tmp/chat.jsonl" -o "$tmp/x"
fails "no conversation" 1 'bad.jsonl: document 1' sh -c "echo '{\"a\": 1}' >'$tmp/bad.jsonl'; exec '$HADAL' data pack '$tmp/tok' '$tmp/bad.jsonl' --chat -o '$tmp/x'"
fails "a field and a conversation" 2 'no --field' data pack "$tmp/tok" "$tmp/chat.jsonl" --chat --field x -o "$tmp/x"
fails "a share of all" 2 'val-share' data pack "$tmp/tok" "$tmp/text.txt" -o "$tmp/x" --val-share 1
check "nothing was made" [ ! -e "$tmp/x" ]
fails "no shards" 1 'no pack.json' data info "$tmp"
fails "no tokenizer" 2 '--tokenizer MODEL is needed' data show "$tmp/p"
"$HADAL" tokenizer "$tmp/text.txt" -o "$tmp/tok2" --vocab 290 >/dev/null 2>&1
fails "another tokenizer" 1 'packed with another tokenizer' data show "$tmp/p" --tokenizer "$tmp/tok2"
fails "another file on a full disk" 1 'write: .*full/' bash -c "ulimit -f 1; trap '' XFSZ; exec '$HADAL' data pack '$tmp/tok' '$tmp/text.txt' -o '$tmp/full'"
check "of which nothing stays" [ ! -e "$tmp/full" ]
printf 'x' | dd of="$tmp/p/00000.tok" bs=1 seek=1000 conv=notrunc status=none
fails "a damaged shard" 1 '00000.tok: damaged: the checksum of bytes' data info "$tmp/p" --check
truncate -s 2000 "$tmp/p/00000.tok"
fails "a shard cut short" 1 '00000.tok: damaged' data info "$tmp/p"

# Ctrl-C
for i in $(seq 300); do cat "$tmp/text.txt"; done >"$tmp/part"
for i in $(seq 20); do cat "$tmp/part"; done >"$tmp/long.txt"
interrupted "Ctrl-C" 0.3 'data: interrupted' "$HADAL" data pack "$tmp/tok" "$tmp/long.txt" --divider '<|end|>' -o "$tmp/int"
check "nothing stays" [ ! -e "$tmp/int" ]

# ---- get ----
says "the list" '^gsm8k +train.jsonl +4.17 MB  MIT ' data get
says "the list in JSON" '"id": "tinyshakespeare"' data get --json
python3 "$here/hub_server.py" "$tmp/log" >"$tmp/address" 2>"$tmp/server.err" &
server=$!
trap 'kill $server 2>/dev/null; rm -rf "$tmp"' EXIT
for _ in $(seq 100); do [ -s "$tmp/address" ] && break; sleep 0.1; done
export HF_ENDPOINT=$(cat "$tmp/address") no_proxy=127.0.0.1
sum=$(python3 -c 'import random, hashlib; random.seed(1); print(hashlib.sha256(random.randbytes(300000)).hexdigest())')
get() { "$HADAL" data get --retries 2 "$@"; }
url() { echo "$HF_ENDPOINT/o/$1/resolve/main/m-q4_k_m.gguf"; }
file=$tmp/cache/hadal/data/url/m-q4_k_m.gguf
# brings REPO WHAT: it is fetched, and its bytes are right
brings() {
    rm -rf "$tmp/cache"
    if get "$(url "$1")" --sha256 "$sum" >"$tmp/out" 2>"$tmp/err" && [ "$(cat "$tmp/out")" = "$file" ] &&
        [ "$(sha256sum "$file" | cut -d ' ' -f 1)" = "$sum" ]; then pass
    else fail "$2"; cat "$tmp/err" >&2; fi
}
brings plain "a file by its address"
check "what is here is not fetched again" get "$(url plain)" --sha256 "$sum"
check "asked once" [ "$(grep -c 'o/plain/resolve' "$tmp/log")" = 1 ]
printf damaged | dd of="$file" conv=notrunc status=none
check "damage is mended" get "$(url plain)" --sha256 "$sum"
check "to the byte" [ "$(sha256sum "$file" | cut -d ' ' -f 1)" = "$sum" ]
brings cut "a connection that breaks off twice"
check "it went on from where it stopped" grep -q 'o/cut/resolve/main/m-q4_k_m.gguf bytes=100000-' "$tmp/log"
brings no-range "a server without ranges"
brings flaky "503 twice"
brings other-range "another range than asked for"
brings moved "a redirection"
rm -rf "$tmp/cache"
for repo in wrong less more chunks; do
    fails "other bytes ($repo)" 1 'SHA-256 sum is' get "$(url $repo)" --sha256 "$sum"
done
fails "404" 1 'answers 404' get "$(url gone)" --sha256 "$sum"
fails "503 for ever" 1 'status 503' get "$(url down)" --sha256 "$sum"
fails "a break, then 404" 1 'answers 404' get "$(url stop)" --sha256 "$sum"
check "no file has its name" [ ! -e "$file" ]
check "a second run goes on" get "$(url stop)" --sha256 "$sum"
check "from the part" grep -q 'o/stop/resolve/main/m-q4_k_m.gguf bytes=100000-' "$tmp/log"
rm -rf "$tmp/cache"
interrupted "Ctrl-C, and how to go on" 0.5 'interrupted; the same command goes on' "$HADAL" data get "$(url slow)" --sha256 "$sum"
fails "no sum" 2 '--sha256 SUM is needed' get "$(url plain)"
fails "a strange sum" 2 '--sha256 SUM is needed' get "$(url plain)" --sha256 ../../x
fails "no name" 2 'no name for a file' get "$HF_ENDPOINT/.." --sha256 "$sum"
fails "no such corpus" 2 "'klingon': no such corpus" get klingon
export HADAL_DATA_MIRROR=$HF_ENDPOINT/o/corpora/resolve/main
fails "a mirror with other bytes" 1 'tinyshakespeare: .*SHA-256 sum is' get tinyshakespeare
fails "a mirror with fewer" 1 'svamp: .*has a file of 300000 bytes, not 339970' get svamp
check "nothing of it stays" [ -z "$(find "$tmp/cache" -name input.txt -o -name SVAMP.json)" ]
# local copies
mkdir -p "$tmp/local/tinyshakespeare"
echo 'not the plays' >"$tmp/local/tinyshakespeare/input.txt"
fails "a copy that is another file" 1 'another file than tinyshakespeare names' env HADAL_DATA="$tmp/local" "$HADAL" data get tinyshakespeare
finish
