# hadal tokenizer: what it writes, says and refuses; a Ctrl-C and a full disk leave nothing half done.
. "$(dirname "$0")/lib.sh"
text=$tmp/text.txt
for i in $(seq 400); do echo "the weather of day $i is like the weather of the other day, whatever the day"; done >"$text"

says "a report" 'tok: 280 tokens, .* bytes a token; from 0.0 MB' "$HADAL" tokenizer "$text" -o "$tmp/tok" --vocab 280
check "both files" [ -s "$tmp/tok/tokenizer.json" -a -s "$tmp/tok/tokenizer_config.json" ]
says "ids" '^[0-9 ]+$' "$HADAL" tokenize "$tmp/tok" "the weather"
check "few ids" [ "$("$HADAL" tokenize "$tmp/tok" "the weather" | wc -w)" -lt 5 ]
says "json" '"n_vocab": 280,.*"bytes_per_token": [0-9.]+' "$HADAL" tokenizer "$text" -o "$tmp/tok" --vocab 280 --json
cp "$tmp/tok/tokenizer.json" "$tmp/first"
"$HADAL" tokenizer "$text" -o "$tmp/tok" --vocab 280 -t 1 >/dev/null
check "the same again" cmp "$tmp/first" "$tmp/tok/tokenizer.json"
says "fewer than asked" 'warning: .*no more pairs.*[0-9]+ tokens instead of 4000' "$HADAL" tokenizer "$text" -o "$tmp/all" --vocab 4000
says "chat" '^[0-9 ]+$' sh -c "'$HADAL' tokenizer '$text' -o '$tmp/chat' --vocab 280 --chat-format deepseek-r1 >/dev/null &&
    echo '[{\"role\": \"user\", \"content\": \"hi\"}]' | '$HADAL' tokenize '$tmp/chat' --chat -"
says "documents by a line" ', [0-9]+ distinct' "$HADAL" tokenizer "$text" -o "$tmp/tok" --vocab 280 --divider '<|endoftext|>' --special '<|endoftext|>' --special '<|x|>'
check "special tokens in order" grep -q '"id": 279, *$\|"<|x|>"' "$tmp/tok/tokenizer.json"

fails "no files" 2 'files are needed' "$HADAL" tokenizer -o "$tmp/tok" --vocab 280
fails "no folder" 2 '-o DIR' "$HADAL" tokenizer "$text" --vocab 280
fails "no size" 2 '--vocab N' "$HADAL" tokenizer "$text" -o "$tmp/tok"
fails "too small" 2 'vocabulary of 200: 257 to' "$HADAL" tokenizer "$text" -o "$tmp/tok" --vocab 200
fails "unknown format" 2 "'klingon'.*chatml" "$HADAL" tokenizer "$text" -o "$tmp/tok" --vocab 280 --chat-format klingon
fails "no such file" 1 'nothere.txt' "$HADAL" tokenizer "$tmp/nothere.txt" -o "$tmp/new" --vocab 280
fails "a folder as text" 1 'is a folder' "$HADAL" tokenizer "$tmp" -o "$tmp/new" --vocab 280
check "nothing was made" [ ! -e "$tmp/new" ]

# A full disk: the old files stay, none beside them.
cp -r "$tmp/tok" "$tmp/full"
before=$(cd "$tmp/full" && cksum ./*)
fails "a full disk" 1 'write: .*full/tokenizer' bash -c "ulimit -f 1; trap '' XFSZ; exec '$HADAL' tokenizer '$text' -o '$tmp/full' --vocab 2000"
check "the old files" [ "$before" = "$(cd "$tmp/full" && cksum ./*)" ]

# Ctrl-C, while a pipe of its own keeps it reading.
for i in $(seq 12); do cat "$text"; done >"$tmp/part"
for i in $(seq 300); do cat "$tmp/part"; done >"$tmp/long.txt"
interrupted "Ctrl-C" 0.3 'tokenizer: stopped' "$HADAL" tokenizer "$tmp/long.txt" -o "$tmp/int" --vocab 5000
check "nothing written" [ ! -e "$tmp/int" ]
finish
