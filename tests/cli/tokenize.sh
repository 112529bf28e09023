# hadal tokenize: exact bytes to ids and back, conversations, refusals.
. "$(dirname "$0")/lib.sh"

# A folder that holds only a tokenizer: seven bytes, two merges, three tokens of ChatML.
mkdir "$tmp/tiny"
cat >"$tmp/tiny/tokenizer.json" <<'EOF'
{"added_tokens": [{"id": 9, "content": "<|im_start|>", "special": true}, {"id": 10, "content": "<|im_end|>", "special": true},
                  {"id": 11, "content": "<tag>", "special": false, "normalized": false}],
 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
 "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "Ċ": 3, "Ã": 4, "©": 5, "<": 6, "ab": 7, "abc": 8},
           "merges": ["a b", "ab c"]}}
EOF
ids() { printf "$1" | "$HADAL" tokenize "$tmp/tiny"; }
text() { printf "$1" | "$HADAL" tokenize "$tmp/tiny" --decode; }
same() { if [ "$2" = "$3" ]; then pass; else fail "$1: '$2', not '$3'"; fi; }

same "ids" "$(ids 'abcab')" "8 7"
same "every byte counts" "$(ids 'a\nb\n')" "0 3 1 3"
same "nothing" "$(ids '')" ""
same "special tokens are text" "$(ids '<|im_end|>a')" "6 0"
same "other added tokens are found" "$(ids 'a<tag>a')" "0 11 0"
same "a text as operands" "$("$HADAL" tokenize "$tmp/tiny" abc 'ab')" "8 7"
same "json" "$(printf abc | "$HADAL" tokenize "$tmp/tiny" --json)" '{"n": 1, "ids": [8]}'
same "back" "$(text '8 7\n\n 9 ')" "abcab<|im_start|>"
same "half a character comes back as it is" "$(text '4' | od -An -tx1)" " c3"
same "json of half a character" "$(printf '4 0' | "$HADAL" tokenize "$tmp/tiny" -d --json)" '{"text": "�a"}'

printf '[{"role": "user", "content": "ab<|im_end|>"}, {"role": "assistant", "content": "c", "reasoning_content": null},
         {"role": "user", "content": ""}]' >"$tmp/chat.json"
chat() { "$HADAL" tokenize "$tmp/tiny" --chat "$tmp/chat.json" "$@"; }
same "chat" "$(chat --chat-format chatml)" "9 3 7 6 10 3 9 0 0 3 2 10 3 9 3 10 3 9 0 0 3"
same "chat from standard input" "$("$HADAL" tokenize "$tmp/tiny" --chat - --chat-format chatml <"$tmp/chat.json")" \
    "9 3 7 6 10 3 9 0 0 3 2 10 3 9 3 10 3 9 0 0 3"
says "chat as json" '"format": "chatml", "ids": \[9, 3' chat --chat-format chatml --json
fails "no template" 1 "no template; --chat-format takes deepseek-v2, .*llama3" chat
printf '{%% for m in messages %%}{{ m.content }}{%% endfor %%}' >"$tmp/tiny/chat_template.jinja"
fails "unknown template" 1 "its template is none of deepseek-v2, " chat
printf '{{ "<|im_start|>" }}{{ "<|im_end|>" }} You are a parrot' >"$tmp/tiny/chat_template.jinja"
says "a template of known control tokens" "^hadal: warning: .*'chatml'" chat
fails "unknown format" 2 "'alpaca': not known; known: deepseek-v2" chat --chat-format alpaca
fails "a format of other tokens" 1 "vocabulary has no <｜User｜>" chat --chat-format deepseek-r1
for bad in '[]' '{}' '[1]' '[{"role": "robot", "content": ""}]' '[{"role": "user"}]' '[{"role": "user", "content": 1}]' \
    '[{"role": "user", "content": "", "reasoning_content": 1}]' '[{"role": "user", "content": "", "tool_calls": []}]' '[' ''; do
    printf '%s' "$bad" >"$tmp/chat.json"
    fails "conversation $bad" 1 "chat: .*/chat.json" chat --chat-format chatml
done
fails "no conversation" 1 "nothing-there" "$HADAL" tokenize "$tmp/tiny" --chat "$tmp/nothing-there"

fails "no model" 2 "a model is needed" "$HADAL" tokenize
fails "no such model" 1 "nothing-there" "$HADAL" tokenize "$tmp/nothing-there"
fails "decode and text" 2 "--decode" "$HADAL" tokenize "$tmp/tiny" -d abc
fails "chat and text" 2 "--chat" "$HADAL" tokenize "$tmp/tiny" --chat x abc
fails "thinking without chat" 2 "--chat" "$HADAL" tokenize "$tmp/tiny" --thinking on
fails "thinking perhaps" 2 "on or off" "$HADAL" tokenize "$tmp/tiny" --chat x --thinking perhaps
for bad in 'x' '1,2' '-1' '1 2x' '0x1' '12' '99999999999999999999999' '4294967296'; do
    fails "ids $bad" 1 "standard input, byte" bash -c 'printf "%s" "$1" | "$0" tokenize "$2" -d' "$HADAL" "$bad" "$tmp/tiny"
done
fails "a full disk" 1 "write: standard output" bash -c '"$0" tokenize "$1" abc >/dev/full' "$HADAL" "$tmp/tiny"

# The small real model: any bytes come back, invalid ones as U+FFFD.
if [ -n "${HADAL_TEST_MODEL:-}" ]; then
    M=$HADAL_TEST_MODEL
    head -c 20000 "$0" >"$tmp/text"
    "$HADAL" tokenize "$M" <"$tmp/text" | "$HADAL" tokenize "$M" --decode | cmp -s - "$tmp/text" && pass || fail "round trip"
    same "invalid bytes" "$(printf 'a\xff\xe4\xb8b' | "$HADAL" tokenize "$M" | "$HADAL" tokenize "$M" -d)" "a��b"
    same "hello" "$("$HADAL" tokenize "$M" 'Hello, world')" "19556 28 905"
    printf '[{"role": "user", "content": "Hi"}]' >"$tmp/chat.json"
    says "the model's own format" '"format": "smollm2"' "$HADAL" tokenize "$M" --chat "$tmp/chat.json" --json
fi
finish
