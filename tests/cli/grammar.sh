# generate --grammar and --json-schema on the default model: answers keep to them, with drafts too; what is refused.
. "$(dirname "$0")/lib.sh"
model=${HADAL_TEST_MODEL:-}
[ -f "$model" ] || { echo "no model at hand: \$HADAL_TEST_MODEL"; finish; exit; }
g() { "$HADAL" generate "$model" --chat -p "Describe Paris." -n 200 "$@"; }
same() { if [ "$2" = "$3" ]; then pass; else fail "$1: '$2' is not '$3'"; fi; }

echo 'root ::= "yes" | "no" | "it is " [a-z]{3,8} "."' >"$tmp/answer.gbnf"
for seed in 1 2 3; do
    text=$(g --temp 1.5 -s $seed --grammar "$tmp/answer.gbnf")
    if [[ $text =~ ^(yes|no|it\ is\ [a-z]{3,8}\.)$ ]]; then pass; else fail "grammar: '$text'"; fi
done

cat >"$tmp/schema.json" <<'JSON'
{"type": "object", "additionalProperties": false, "required": ["city", "since", "river"],
 "properties": {"city": {"type": "string", "minLength": 2, "maxLength": 12}, "since": {"type": "integer", "minimum": -300, "maximum": 100},
                "river": {"enum": ["Seine", "Thames"]}, "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2}}}
JSON
check='
import json, sys
j = json.loads(sys.stdin.read())
assert set(j) - {"tags"} == {"city", "since", "river"} and 2 <= len(j["city"]) <= 12 and -300 <= j["since"] <= 100, j
assert j["river"] in ("Seine", "Thames") and all(len(t) <= 8 for t in j.get("tags", [])) and len(j.get("tags", [])) <= 2, j'
for seed in 1 2 3; do
    g --temp 1.5 -s $seed --json-schema "$tmp/schema.json" >"$tmp/out"
    if python3 -c "$check" <"$tmp/out" 2>"$tmp/err"; then pass; else fail "schema: $(cat "$tmp/out" "$tmp/err")"; fi
done
text=$(g --temp 0 --json-schema "$tmp/schema.json")
same "guesses change nothing" "$(g --temp 0 --json-schema "$tmp/schema.json" --draft lookup)" "$text"
same "it ends by itself" "$(g --temp 0 --json-schema "$tmp/schema.json" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["finish_reason"])')" stop

fails "both" 2 "not both" g --grammar "$tmp/answer.gbnf" --json-schema "$tmp/schema.json"
fails "no such file" 1 "nothing: No such file" g --grammar "$tmp/nothing"
echo 'root ::= (' >"$tmp/bad"
fails "syntax" 1 "grammar: line 2, column 1" g --grammar "$tmp/bad"
echo '{"properties": {"a": {"uniqueItems": true}}}' >"$tmp/bad"
fails "a keyword" 1 'schema: #/properties/a: keyword "uniqueItems" is not supported' g --json-schema "$tmp/bad"
python3 -c 'print("root ::= " + "(" * 1000000)' >"$tmp/bad"
fails "a million brackets" 1 "grammar: 1000010 bytes" g --grammar "$tmp/bad"
python3 -c 'print("[" * 1000000)' >"$tmp/bad"
fails "a million brackets" 1 "schema" g --json-schema "$tmp/bad"
finish
