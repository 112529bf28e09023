# hadal serve as a program: its options, its file of options, keys, log, metrics, --lan, and how it stops.
. "$(dirname "$0")/lib.sh"
export XDG_STATE_HOME=$tmp/state XDG_CACHE_HOME=$tmp/cache
unset HADAL_API_KEY
model=${HADAL_TEST_MODEL:-}
key=a-key-of-twenty-four-let
s() { "$HADAL" serve "$@"; }

fails "no model" 2 "one model is needed" s
fails "two models" 2 "one model is needed" s a b
fails "others without a key" 2 "option --host 0.0.0.0: .*--api-key-file" s m --host 0.0.0.0
fails "a name for an address" 2 "option --host: 'localhost'" s m --host localhost
fails "certificate alone" 2 "one without the other" s m --cert x
fails "no such certificate" 1 "certificate: $tmp/none" s m --cert "$tmp/none" --key "$tmp/none"
fails "alias" 2 "option --alias: 'x=perhaps'" s m --alias x=perhaps
fails "port" 2 "option --port: '65536'" s m --port 65536
fails "no such model" 1 "nosuch" s "$tmp/nosuch.gguf" --port 0
fails "lan and open" 2 "option --lan" s m --lan --open

# The file of options says what the command line could; the command line wins.
conf=$tmp/conf
config() { printf '%b' "$1" >"$conf"; }
config 'port = 70000\n'
fails "config: checked as options are" 2 "option --port: '70000'" s m --config "$conf"
config 'model = m\n[section]\n# a comment\n; another\nhost = "0.0.0.0"\nopen = no\n'
fails "config: read" 2 "option --host 0.0.0.0" s --config "$conf"
config 'nonsense\n'
fails "config: not NAME = VALUE" 2 "conf: line 1: not NAME = VALUE" s m --config "$conf"
config '\nno such = 1\n'
fails "config: line and name" 2 "conf: line 2: 'no such' is no option" s m --config "$conf"
config 'colour = red\n'
fails "config: unknown option" 2 "option --colour" s m --config "$conf"
config 'config = x\n'
fails "config: no file in a file" 2 "line 1: 'config'" s m --config "$conf"
config 'port = 1\00002\n'
fails "config: a NUL" 1 "NUL" s m --config "$conf"
fails "config: no such file" 1 "none" s m "--config=$tmp/none"

# Keys.
echo short >"$tmp/keys"
fails "a key that can be guessed" 2 "API key in line 1: shorter" s m --api-key-file "$tmp/keys"
: >"$tmp/keys"
fails "no key in the file" 2 "no API key in it" s m --api-key-file "$tmp/keys"
HADAL_API_KEY=short fails "key from the environment" 2 "shorter" s m

[ -f "$model" ] || { echo "no model at hand: \$HADAL_TEST_MODEL"; finish; exit; }

# begin OPTIONS...: start it in the background; $pid, and $url once it answers.
begin() {
    : >"$tmp/url"
    "$HADAL" serve "$model" --port 0 --ctx 2048 --sessions 2 "$@" >"$tmp/url" 2>"$tmp/said" &
    pid=$!
    for _ in $(seq 300); do
        url=$(head -n 1 "$tmp/url")
        [ -n "$url" ] && return
        kill -0 $pid 2>/dev/null || break
        sleep 0.1
    done
    fail "did not start: $*"; cat "$tmp/said" >&2
}
# end STATUS: Ctrl-C, and what it ends with.
end() {
    kill -INT $pid
    wait $pid; local got=$?
    if [ $got = "$1" ]; then pass; else fail "ended with $got, not $1"; cat "$tmp/said" >&2; fi
}
get() { curl -sS --max-time 60 "$@"; }
code() { get -o /dev/null -w '%{http_code}' "$@"; }
same() { if [ "$2" = "$3" ]; then pass; else fail "$1: '$2' is not '$3'"; fi; }
ask='{"messages":[{"role":"user","content":"zebra crossing, in a word?"}],"max_tokens":8,"temperature":0}'
json='Content-Type: application/json'

# Keys in a file and in the environment; a log; metrics; a config that the command line overrides.
echo "# who" >"$tmp/keys"; echo "$key" >>"$tmp/keys"
config "api-key-file = $tmp/keys\nalias = gpt-x\nalias = gpt-y\nparallel = 4\nno-chats = yes\nlog = /nonexistent/log\n"
metrics=$((20000 + RANDOM % 20000))
HADAL_API_KEY=$key-2 begin --config "$conf" --log "$tmp/log" --metrics-port $metrics
same "health needs no key" "$(get "${url}health")" '{"status":"ok"}'
same "no key" "$(code "${url}v1/models")" 401
same "wrong key" "$(code "${url}v1/models" -H "Authorization: Bearer $key-3")" 401
same "key of the file" "$(code "${url}v1/models" -H "Authorization: Bearer $key")" 200
same "key of the environment" "$(code "${url}v1/models" -H "x-api-key: $key-2")" 200
says "aliases" gpt-y get "${url}v1/models" -H "Authorization: Bearer $key"
says "an answer" '"finish_reason"' get "${url}v1/chat/completions" -H "Authorization: Bearer $key" -H "$json" -d "$ask"
same "metrics are not for all" "$(code "${url}metrics" -H "Authorization: Bearer $key")" 404
says "metrics" 'hadal_requests_total\{method="POST",route="/chat/completions",status="200"\} 1' get "http://127.0.0.1:$metrics/metrics"
says "metrics of the scheduler" 'hadal_jobs_total 1' get "http://127.0.0.1:$metrics/metrics"
fails "a port that is taken" 1 "listen: 127.0.0.1:[0-9]+: " s "$model" --port "$(sed 's/.*:\([0-9]*\).*/\1/' <<<"$url")"
end 0
same "nothing is said in the log" "$(grep -c -e zebra -e "$key" "$tmp/log")" 0
check "the log is JSON, a line a request" python3 -c '
import json, sys
lines = [json.loads(l) for l in open(sys.argv[1])]
chat = [l for l in lines if l["route"] == "/chat/completions"]
assert len(lines) >= 9 and len(chat) == 1, lines
assert chat[0]["status"] == 200 and chat[0]["prompt"] > 5 and chat[0]["generated"] > 0 and chat[0]["ms"] > 0, chat' "$tmp/log"

# Stopping while a stream runs: it is finished, the door is closed, the status is 0.
begin --no-chats --cache-gb 0
long='{"messages":[{"role":"user","content":"Count."}],"max_tokens":90,"stream":true,"logit_bias":{"2":-100}}'
get -N "${url}v1/chat/completions" -H "$json" -d "$long" >"$tmp/stream" 2>&1 &
reader=$!
for _ in $(seq 600); do [ "$(grep -c content "$tmp/stream")" -gt 3 ] && break; sleep 0.05; done
end 0
wait $reader
same "the stream came to its end" "$(grep -c '^data: \[DONE\]' "$tmp/stream")" 1
check "it refuses after the stop" bash -c "! curl -s --max-time 5 ${url}health"

# A phone: link, login, both ends of TLS.
begin --lan
host=${url%/once/*}
same "not without a login" "$(code -k "$host/v1/models")" 401
same "the link" "$(code -k -c "$tmp/jar" "$url")" 303
same "the cookie" "$(code -k -b "$tmp/jar" "$host/v1/models")" 200
same "the link is void" "$(code -k "$url")" 403
same "plain HTTP is led to TLS" "$(code "http${host#https}/")" 307
for _ in $(seq 50); do [ "$(grep -c once "$tmp/url")" = 2 ] && break; sleep 0.1; done
same "the next link" "$(code -k "$(tail -n 1 "$tmp/url")")" 303
same "rights of what is kept" "$(stat -c %a "$tmp/state/hadal/lan-key.pem" "$tmp/state/hadal/login-secret" | tr '\n' ' ')" "600 600 "
end 0
# A renewed certificate is taken up by SIGHUP, and one that is none changes nothing.
mkdir "$tmp/tls" "$tmp/state2"
cp "$tmp/state/hadal/lan-cert.pem" "$tmp/tls/cert"; cp "$tmp/state/hadal/lan-key.pem" "$tmp/tls/key"
XDG_STATE_HOME=$tmp/state2 begin --lan
end 0
presented() { python3 -c 'import ssl, sys; print(ssl.get_server_certificate(("127.0.0.1", int(sys.argv[1]))), end="")' "$(sed 's/.*:\([0-9]*\).*/\1/' <<<"$url")"; }
begin --no-chats --cert "$tmp/tls/cert" --key "$tmp/tls/key"
same "the first certificate" "$(presented)" "$(cat "$tmp/state/hadal/lan-cert.pem")"
cp "$tmp/state2/hadal/lan-cert.pem" "$tmp/tls/cert"; cp "$tmp/state2/hadal/lan-key.pem" "$tmp/tls/key"
kill -HUP $pid
for _ in $(seq 50); do [ "$(presented)" = "$(cat "$tmp/tls/cert")" ] && break; sleep 0.1; done
same "the second" "$(presented)" "$(cat "$tmp/state2/hadal/lan-cert.pem")"
echo none >"$tmp/tls/cert"
kill -HUP $pid
for _ in $(seq 50); do grep -q "stays as it was" "$tmp/said" && break; sleep 0.1; done
says "why it is not taken" "certificate: $tmp/tls/cert: .*stays as it was" cat "$tmp/said"
same "still the second" "$(presented)" "$(cat "$tmp/state2/hadal/lan-cert.pem")"
same "it answers" "$(get -k "${url}health")" '{"status":"ok"}'
end 0

begin --lan
same "the login outlives a restart" "$(code -k -b "$tmp/jar" "${url%/once/*}/v1/models")" 200
end 0
finish
