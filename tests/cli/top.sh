# hadal top against a running server, and without one.
. "$(dirname "$0")/lib.sh"
model=${HADAL_TEST_MODEL:-}

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
fails "no server" 1 'metrics-port' "$HADAL" top --port "$port" --once
fails "an operand" 2 'takes options only' "$HADAL" top here
if [ -n "$model" ]; then
    "$HADAL" serve "$model" --port 0 --metrics-port "$port" --no-chats --cache-gb 0 --ctx 512 >"$tmp/serve" 2>&1 &
    server=$!
    for _ in $(seq 200); do "$HADAL" top --port "$port" --once >/dev/null 2>&1 && break; sleep 0.05; done
    says "one look" 'running .* waiting' "$HADAL" top --port "$port" --once
    says "a bar" 'cache +\[\.*\] +0 %' "$HADAL" top --port "$port" --once
    says "an object" '^\{.*"jobs_live":0(\.0)?,.*"cache_pages":[1-9].*\}$' "$HADAL" top --port "$port" --once --json
    timeout -s INT 1.5 "$HADAL" top --port "$port" --json >"$tmp/objects" 2>&1
    says "an object a second until Ctrl-C" '^\{.*\}$' head -n 2 "$tmp/objects"
    kill -INT $server
    wait $server
    status=$?
    check "the server ends well" [ $status = 0 ]
fi
finish
