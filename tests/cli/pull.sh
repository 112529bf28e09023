# hadal pull and hadal models against a server on this machine that cuts, lies, changes its mind and redirects.
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
export XDG_CACHE_HOME=$tmp/cache
unset HF_TOKEN
models=$tmp/cache/hadal/models
log=$tmp/log
: >"$log"
python3 "$here/hub_server.py" "$log" >"$tmp/address" 2>"$tmp/server.err" &
server=$!
trap 'kill $server 2>/dev/null; rm -rf "$tmp"' EXIT
for _ in $(seq 100); do [ -s "$tmp/address" ] && break; sleep 0.1; done
export HF_ENDPOINT=$(cat "$tmp/address") no_proxy=127.0.0.1
pull() { "$HADAL" pull --retries 2 "$@"; }
sum_of() { sha256sum "$1" 2>/dev/null | cut -c 1-12; }
want=$(python3 -c 'import random, hashlib; random.seed(1); print(hashlib.sha256(random.randbytes(300000)).hexdigest()[:12])')
# brings REPO WHAT: it is fetched, and its bytes are right
brings() {
    local repo=$1 what=$2
    if pull "o/$repo" >"$tmp/out" 2>"$tmp/err" && [ "$(sum_of "$(tail -n 1 "$tmp/out")")" = "$want" ]; then pass
    else fail "$what"; cat "$tmp/err" >&2; fi
}
# leaves_nothing REPO: no file of the repository has a name of its own
leaves_nothing() {
    if [ -z "$(find "$models/o--$1" -type f ! -name '.*' 2>/dev/null)" ]; then pass; else fail "o/$1 left a file"; fi
}

brings plain "a file"
says "its path is printed" "^$models/o--plain/m-q4_k_m.gguf$" pull o/plain
check "what is here is not fetched again" test "$(grep -c 'o/plain/resolve' "$log")" = 1
says "another format" "o--plain/m-q8_0.gguf$" pull o/plain:Q8_0
says "a file by name" "o--plain/m-q8_0.gguf$" pull o/plain:m-q8_0.gguf
fails "a format that is not there" 2 "no file for :iq1_s: there are m-q4_k_m.gguf, m-q8_0.gguf" pull o/plain:iq1_s
fails "no name" 2 "neither in the catalogue" pull not-a-name
fails "a name that climbs" 2 "neither in the catalogue" pull ../..
fails "a format that climbs" 2 "neither in the catalogue" pull o/plain:../../x
says "the catalogue" '^r1:1.5b +unsloth/DeepSeek-R1-Distill-Qwen-1.5B-GGUF:Q4_K_M$' "$HADAL" pull --list
printf damaged | dd of="$models/o--plain/m-q4_k_m.gguf" conv=notrunc status=none
check "damage is not seen by default" pull o/plain
check "damage is seen by --verify" pull --verify o/plain
check "and mended" test "$(sum_of "$models/o--plain/m-q4_k_m.gguf")" = "$want"

# Interruptions
brings cut "a connection that breaks off twice"
check "it went on from where it stopped" grep -q 'o/cut/resolve/main/m-q4_k_m.gguf bytes=100000- "v1"' "$log"
brings no-range "a server without ranges"
brings flaky "503 twice"
brings changing "a file that changes between two answers"
brings stale "a range of a changed file"
brings other-range "another range than asked for"
brings other-total "a range of another size"
fails "a break, then 404" 1 "not on the hub \(404\)" pull o/stop
check "the part is kept" test "$(stat -c %s "$models/o--stop/.m-q4_k_m.gguf.part")" = 100000
says "an unfinished download is listed" '^o/stop +unfinished' "$HADAL" models
leaves_nothing stop
brings stop "it goes on in a second run"
check "from the part" grep -q 'o/stop/resolve/main/m-q4_k_m.gguf bytes=100000- "v1"' "$log"

# Lies
brings wrong-once "wrong bytes once"
fails "wrong bytes for ever" 1 "SHA-256 sum is wrong" pull o/wrong; leaves_nothing wrong
fails "a longer file" 1 "length is not the listed one" pull o/more; leaves_nothing more
fails "a shorter file" 1 "length is not the listed one" pull o/less; leaves_nothing less
fails "a file without end" 1 "more than it announced" pull o/chunks; leaves_nothing chunks
fails "a path that climbs" 1 "file name '../../../evil.gguf'" pull o/up
fails "an absolute path" 1 "file name '/tmp/hadal-evil.gguf'" pull o/absolute
fails "a hidden folder" 1 "file name 'a/.ssh/x.gguf'" pull o/hidden
fails "terminal controls" 1 "file name 'a\?\[31m.gguf'" pull o/escape
fails "a checksum that is a path" 1 "strange checksum" pull o/badsum
fails "a negative size" 1 "gives no size" pull o/negative
fails "an impossible size" 1 "are to be fetched" pull o/huge
fails "a listing that is no JSON" 1 "pull: o/junk: JSON" pull o/junk
fails "a listing of brackets" 1 "pull: o/deep" pull o/deep
fails "a listing without end" 1 "the listing does not end" pull o/endless
fails "a missing part" 1 "m-q4_k_m-00002-of-00003.gguf is missing on the hub" pull o/hole
check "nothing was written elsewhere" test "$(find "$tmp/cache" -name '*evil*' | wc -l)" = 0

# Refusals and redirections
fails "401" 1 "HF_TOKEN gives access" pull o/e401
fails "403" 1 "the hub refuses \(403\)" pull o/e403
fails "404" 1 "not on the hub \(404\)" pull o/e404
fails "500" 1 "the hub answers 500" pull o/e500
fails "404 for a file" 1 "not on the hub \(404\)" pull o/gone; leaves_nothing gone
fails "503 for ever" 1 "the hub answers 503" pull o/down; leaves_nothing down
fails "a redirection without end" 1 "redirected more than" pull o/loop
fails "a redirection to a file of ours" 1 "no http or https address" pull o/file
brings moved "a file on another host"
fails "a private model without a token" 1 "HF_TOKEN gives access" pull o/private
export HF_TOKEN=hf_secret
brings private "a private model"
check "the token goes to the hub" grep -q '^hub .*o/private/resolve.* token$' "$log"
check "and to no other host" bash -c '! grep -q "^other .* token$" "$1"' - "$log"
HF_TOKEN=$'a\r\nb' fails "a token with a line break" 2 "HF_TOKEN" pull o/plain
unset HF_TOKEN
HF_ENDPOINT=http://127.0.0.1:1 fails "nobody there" 1 "hub: http://127.0.0.1:1/" pull o/plain
HF_ENDPOINT=ftp://127.0.0.1 fails "an endpoint of another kind" 2 "HF_ENDPOINT" pull o/plain

# Several files
says "a split model" "o--split/big/m-q4_k_m-00001-of-00003.gguf$" pull o/split
check "all its parts" test "$(ls "$models/o--split/big" | wc -l)" = 3
says "the parts come before the first" '00003.*00002.*00001' bash -c 'grep -o "o/split/resolve[^ ]*" "$1" | tr "\n" " "' - "$log"
says "a directory" "o--hf$" pull o/hf
check "what belongs to it" test "$(ls "$models/o--hf" | tr '\n' ' ')" = "config.json model.safetensors tokenizer.json "
check "a listing in pages" pull o/paged

# One pull at a time; a killed one leaves nothing under the model's name
"$HADAL" pull o/slow >"$tmp/slow.out" 2>&1 &
slow=$!
for _ in $(seq 100); do [ -s "$models/o--slow/.m-q4_k_m.gguf.part" ] && break; sleep 0.05; done
fails "a second pull" 1 "another pull of it is under way" pull o/slow
kill -9 $slow
{ wait $slow; } 2>/dev/null
leaves_nothing slow
check "the killed one's part is kept" test -s "$models/o--slow/.m-q4_k_m.gguf.part"
"$HADAL" pull o/slow >"$tmp/slow.out" 2>&1 &
slow=$!
sleep 0.5
kill -INT $slow
wait $slow
check "Ctrl-C" grep -q "interrupted; the same command goes on" "$tmp/slow.out"

# A full disk (here: a limit on the size of files) keeps the old file whole
cp "$models/o--plain/m-q4_k_m.gguf" "$tmp/old"
printf damaged | dd of="$models/o--plain/m-q4_k_m.gguf" conv=notrunc status=none
cp "$models/o--plain/m-q4_k_m.gguf" "$tmp/old"
fails "a full disk" 1 "write: .*File too large" bash -c 'ulimit -f 100; exec "$0" pull --verify o/plain' "$HADAL"
check "the old file is as it was" cmp "$tmp/old" "$models/o--plain/m-q4_k_m.gguf"

# The list
says "a pulled file" "^o/plain:m-q4_k_m.gguf +0.00 GB +20.*$models/o--plain/m-q4_k_m.gguf" "$HADAL" models
says "a pulled directory" "^o/hf +0.00 GB .*o--hf$" "$HADAL" models
says "a split model has one line" '^1$' bash -c '"$0" models | grep -c "^o/split"' "$HADAL"
says "JSON" '^15000$' bash -c '"$0" models --json | python3 -c "
import json, sys
print([m[\"bytes\"] for m in json.load(sys.stdin) if m[\"name\"].startswith(\"o/split\")][0])"' "$HADAL"
fails "a pulled name is opened" 1 "gguf: $models/o--moved/m-q4_k_m.gguf: this is no GGUF" "$HADAL" inspect o/moved
fails "a name that is not pulled" 1 "not pulled yet: hadal pull r1:1.5b" "$HADAL" inspect r1:1.5b
fails "nor its repository" 1 "not pulled yet: hadal pull someone/something" "$HADAL" inspect someone/something
fails "a path that is not there" 1 "open: .*/none.gguf: No such file" "$HADAL" inspect "$tmp/none.gguf"
says "removal" "^removed o/split:big" "$HADAL" models --remove o/split:big/m-q4_k_m-00001-of-00003.gguf
check "with its folder" test ! -e "$models/o--split"
says "removal of one of two" "^removed o/plain:m-q8_0.gguf" "$HADAL" models --remove o/plain:m-q8_0.gguf
check "the other stays" test -e "$models/o--plain/m-q4_k_m.gguf"
says "removal of a directory" "^removed o/hf" "$HADAL" models --remove o/hf
check "all of it" test ! -e "$models/o--hf"
fails "removal of a stranger" 1 "not among the pulled models" "$HADAL" models --remove "$tmp/address"
check "which stays" test -s "$tmp/address"
cp "$tmp/old" "$models/mine.gguf"
says "a file put there by hand" "^mine +0.00 GB" "$HADAL" models
fails "opens by its name" 1 "mine.gguf: this is no GGUF" "$HADAL" inspect mine
says "and is removed" "^removed mine" "$HADAL" models --remove mine

# A short name is a model everywhere
if [ -n "${HADAL_TEST_MODEL:-}" ]; then
    mkdir -p "$models/bartowski--SmolLM2-135M-Instruct-GGUF"
    ln "$HADAL_TEST_MODEL" "$models/bartowski--SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q8_0.gguf" 2>/dev/null ||
        cp "$HADAL_TEST_MODEL" "$models/bartowski--SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q8_0.gguf"
    says "its name in the list" '^smollm2:135m +0.10 GB' "$HADAL" models
    says "inspect" '30 layers' "$HADAL" inspect smollm2:135m
    says "tokenize" '19556' bash -c 'printf Hello | "$0" tokenize SmolLM2:135M' "$HADAL"
    says "generate" '.' "$HADAL" generate smollm2:135m -p Hello -n 2 --temp 0
    check "score" "$HADAL" score smollm2:135m --text "Hello world"
    check "quantize" "$HADAL" quantize smollm2:135m "$tmp/q.gguf" --type q4_0
fi
finish
