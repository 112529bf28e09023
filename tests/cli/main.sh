# The program's frame: help, version, exit status, broken pipes.
. "$(dirname "$0")/lib.sh"

says "help" '^usage: hadal VERB' "$HADAL" --help
says "-h" '^usage: hadal VERB' "$HADAL" -h
says "version" '^hadal [0-9]+\.[0-9]+\.[0-9]+$' "$HADAL" --version
fails "unknown verb" 2 "verb 'frobnicate'" "$HADAL" frobnicate
fails "no verb" 2 "verb" "$HADAL"
fails "unknown verb's help" 2 "verb 'frobnicate'" "$HADAL" help frobnicate
fails "control bytes of an argument are masked" 2 "verb '\?\[31m'" "$HADAL" $'\e[31m'
fails "full disk" 1 "write: standard output: No space" bash -c '"$0" --help >/dev/full' "$HADAL"
says "a reader that leaves is no failure" '^0$' bash -c '{ sleep 0.2; "$0" --help; echo $? >&2; } | true' "$HADAL"

# Every verb of the table: help with examples, and a refusal of options it does not know.
for verb in $("$HADAL" --help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    says "$verb --help" "hadal $verb" "$HADAL" "$verb" --help
    says "help $verb" "hadal $verb" "$HADAL" help "$verb"
    fails "$verb --no-such-option" 2 "no-such-option" "$HADAL" "$verb" --no-such-option
done
finish
