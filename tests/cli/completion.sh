# The completion script does what a person at bash sees.
. "$(dirname "$0")/lib.sh"
"$HADAL" completion bash >"$tmp/hadal.bash" || fail "no script"
check "bash accepts it" bash -n "$tmp/hadal.bash"

# completes WORDS... EXPECTED: the last word of the line WORDS is completed with (among others) each of EXPECTED.
completes() {
    local line=$1 want got; shift
    got=$(bash --norc -c '. "$1"; read -ra COMP_WORDS <<<"$2"; [[ $2 = *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _hadal; printf "%s\n" "${COMPREPLY[@]}"' - "$tmp/hadal.bash" "$line")
    for want; do
        if grep -qxF -e "$want" <<<"$got"; then pass; else fail "'$line' is not completed with '$want': $got"; fi
    done
}
for verb in $("$HADAL" --help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    completes "hadal $verb" "$verb"
    completes "hadal $verb --" --help
done
completes "hadal g" generate
completes "hadal help " generate chat
completes "hadal chat x --t" --temp --top-k --top-p --threads --think-budget
completes "hadal chat x --cache-type " f16 q8_0
completes "hadal generate x --draft l" lookup
completes "hadal generate x --chat-format deepseek" deepseek-r1
completes "hadal quantize a b --type q4" q4_0 q4_k_m

# Every option that help names is one that the verb knows: asked for with a wrong value or unknown verbs it would say so.
for verb in chat generate bench; do
    for o in $(bash --norc -c '. "$1"; COMP_WORDS=(hadal "$2" --) COMP_CWORD=2; _hadal; echo "${COMPREPLY[@]}"' - "$tmp/hadal.bash" "$verb"); do
        [ "$o" = --help ] && continue
        "$HADAL" "$verb" "$o" >/dev/null 2>"$tmp/err" </dev/null
        if grep -q 'not known to' "$tmp/err"; then fail "$verb does not know $o"; else pass; fi
    done
done
fails "another shell" 2 "fish" "$HADAL" completion fish
finish
