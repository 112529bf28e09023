# generate on the default model, chat and bench through pipes.
. "$(dirname "$0")/lib.sh"
model=${HADAL_TEST_MODEL:-}
[ -f "$model" ] || { echo "no model at hand: \$HADAL_TEST_MODEL"; finish; exit; }
g() { "$HADAL" generate "$model" --temp 0 "$@"; }
# field NAME: of the JSON object on standard input
field() { python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)[sys.argv[1]]))' "$1"; }
# same WHAT A B
same() { if [ "$2" = "$3" ]; then pass; else fail "$1: '$2' is not '$3'"; fi; }
prompt='The capital of France is'

says "greedy" 'Paris' g -p "$prompt" -n 8
text=$(g -p "$prompt" -n 24)
printf %s "$prompt" >"$tmp/prompt"
same "-f" "$(g -f "$tmp/prompt" -n 24)" "$text"
same "-f -" "$(g -f - -n 24 <"$tmp/prompt")" "$text"
same "standard input" "$(g -n 24 <"$tmp/prompt")" "$text"
same "one thread" "$(g -p "$prompt" -n 24 -t 1)" "$text"
same "no pack" "$(g -p "$prompt" -n 24 --no-pack)" "$text"
same "look-up changes nothing" "$(g -p "$prompt" -n 24 --draft lookup)" "$text"
same "a drafting model changes nothing" "$(g -p "$prompt" -n 24 --draft "$model")" "$text"
same "stop" "$(g -p "$prompt" -n 8 --stop Paris)" " "

g -p "$prompt" -n 24 --json >"$tmp/json"
same "json: text" "$(field text <"$tmp/json")" "$(printf %s "$text" | python3 -c 'import json, sys; print(json.dumps(sys.stdin.read()))')"
same "json: completion_tokens" "$(field completion_tokens <"$tmp/json")" 24
same "json: finish_reason" "$(field finish_reason <"$tmp/json")" '"length"'
same "json: 24 ids" "$(field ids <"$tmp/json" | tr ',' '\n' | wc -l)" 24
same "json: stop string" "$(g -p "$prompt" --stop Paris --json | field finish_reason)" '"stop_string"'
same "json: end of the turn" "$(g --chat -p 'Say yes.' -n 200 --json | field finish_reason)" '"stop"'
same "json: context" "$(g -p "$prompt" -n 0 -c 24 --logit-bias 2=-inf --logit-bias 0=-inf --json 2>/dev/null | field finish_reason)" '"context"'

same "session: kept" "$(g -p "$prompt" -n 24 --session "$tmp/session")" "$text"
same "session: taken up" "$(g -p "$prompt" -n 24 --session "$tmp/session")" "$text"
head -c 1000 "$tmp/session" >"$tmp/cut"
fails "session: cut short" 1 "$tmp/cut" g -p "$prompt" -n 24 --session "$tmp/cut"

r() { "$HADAL" generate "$model" --temp 1 -p "$prompt" -n 24 "$@"; }
same "a seed repeats" "$(r -s 5)" "$(r -s 5)"
if [ "$(r -s 5)" != "$(r -s 6)" ]; then pass; else fail "two seeds, one text"; fi
if [ "$(g -p "$prompt" -n 8 --chat)" != "$(g -p "$prompt" -n 8)" ]; then pass; else fail "--chat changes nothing"; fi

fails "no model" 2 "one model is needed" "$HADAL" generate -p x
fails "two prompts" 2 "not both" g -p x -f "$tmp/prompt"
fails "-n" 2 "option --n-predict" g -p x -n many
fails "--temp" 2 "option --temp: '-1'" g -p x --temp -1
fails "--draft-max" 2 "option --draft-max" g -p x --draft lookup --draft-max 99
fails "--logit-bias" 2 "option --logit-bias" g -p x --logit-bias 5
fails "--cache-type" 2 "q9" g -p x --cache-type q9
fails "--chat-format" 2 "nonsense" g --chat -p x --chat-format nonsense
fails "no such file" 1 "nothing: No such file" "$HADAL" generate "$tmp/nothing" -p x
fails "a prompt that is a folder" 1 "$tmp" g -f "$tmp"
fails "a prompt longer than the context" 1 "context" g -p "$(printf 'red blue %.0s' {1..60})" -c 32

# Ctrl-C: what was generated stands, the status says that it is not all.
# One signal, once there is an answer (timeout(1) would send it twice, which means "at once").
"$HADAL" generate "$model" -p "$prompt" --temp 0 -n 0 --logit-bias 2=-inf --logit-bias 0=-inf >"$tmp/out" 2>"$tmp/err" &
pid=$!
for ((i = 0; i < 600; i++)); do
    grep -q Paris "$tmp/out" && break
    sleep 0.1
done
kill -INT $pid
wait $pid
same "interrupted: status" $? 1
if grep -q "hadal: .*interrupted" "$tmp/err" && grep -q Paris "$tmp/out"; then pass; else fail "interrupted: message"; fi

# chat through pipes: lines in, answers out.
c() { "$HADAL" chat "$model" --temp 0 -n 16 "$@" 2>"$tmp/err"; }
answers=$(printf 'Say yes.\n\nSay no.\n' | c)
if [ -n "$answers" ] && ! printf %s "$answers" | grep -q '> \|ids'; then pass; else fail "chat: $answers"; fi
if grep -q 'a context of' "$tmp/err"; then pass; else fail "chat does not say how long its context is"; fi
same "chat: one question is generate --chat" "$(printf 'Say yes.\n' | c)" "$(g --chat -p 'Say yes.' -n 16)"
printf 'Say yes.\n/save %s\n' "$tmp/talk" | c >/dev/null
same "chat: saved" "$(python3 -c 'import json, sys; print([m["role"] for m in json.load(open(sys.argv[1]))])' "$tmp/talk")" "['user', 'assistant']"
printf '/retry\n' | c --load "$tmp/talk" >"$tmp/retry"
same "chat: retry after load, greedy" "$(cat "$tmp/retry")" "$(printf 'Say yes.\n' | c)"
fails "chat: wrong command" 2 "/frobnicate" bash -c 'echo /frobnicate | "$0" chat "$1"' "$HADAL" "$model"
fails "chat: too long a message" 1 "context" bash -c 'printf "red blue %.0s" {1..60} | "$0" chat "$1" -c 64' "$HADAL" "$model"
fails "chat: no model" 2 "one model" "$HADAL" chat

# bench: figures are numbers above zero.
"$HADAL" bench "$model" -p 16 -n 4 -r 2 --json >"$tmp/json" 2>/dev/null
for f in prompt_tok_s gen_tok_s first_token_s rss_bytes weight_bytes read_bytes_s read_share; do
    check "bench: $f" python3 -c 'import json, sys; sys.exit(not json.load(open(sys.argv[1]))[sys.argv[2]] > 0)' "$tmp/json" $f
done
case $HADAL_BUILD in # the sanitizers hold memory of their own
*build-*san) ;;
*)
    # 135M weights leave the least room beside them: 1.07 and 1.095 were measured, q8_0 and bf16 have more.
    for n in 8 512; do
        "$HADAL" bench "$model" -p $n -n 2 -r 1 -t 2 --json >"$tmp/memory" 2>/dev/null
        check "bench: a prompt of $n: memory below 1.1 x the file, beside the cache" python3 -c 'import json, os, sys
b = json.load(open(sys.argv[1]))
sys.exit(not 0.5 < (b["peak_rss_bytes"] - b["cache_bytes"]) / os.path.getsize(sys.argv[2]) < 1.1)' "$tmp/memory" "$model"
    done
    ;;
esac
same "bench: weights of a token" "$(field token_weights <"$tmp/json")" 134480000.0
same "bench: of a token of a prompt, which the head is not for" "$(field prompt_weights <"$tmp/json")" 106168000.0
says "bench: text" 'generating 4 .*tok/s.*of the .* GB/s' "$HADAL" bench "$model" -p 16 -n 4 -r 1
says "bench: three at once" '3 sequences at once' "$HADAL" bench "$model" -p 8 -n 4 -r 1 -b 3
says "bench: three alike" '3 sequences at once' "$HADAL" bench "$model" -p 8 -n 4 -r 1 -b 3 --alike
fails "bench: no model" 2 "one model" "$HADAL" bench
fails "bench: -r" 2 "option --reps" "$HADAL" bench "$model" -r 0
finish
