# hadal export on tiny models: what comes out of either kind of file opens again with the same ids and the same logits.
. "$(dirname "$0")/lib.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
python3 "$root/tests/failalloc/make_models.py" "$tmp/m" || fail "the models were not made"
head -c 600 "$root/CONTRIBUTING.md" >"$tmp/text"

# near A B MOST: the files of f32 logits hold as many numbers, and none is further apart than MOST.
near() {
    python3 - "$@" <<'PY'
import array, sys
a, b = (array.array("f", open(p, "rb").read()) for p in sys.argv[1:3])
worst = max((abs(x - y) for x, y in zip(a, b)), default=9)
print(len(a), len(b), worst)
sys.exit(len(a) != len(b) or len(a) == 0 or not worst <= float(sys.argv[3]))
PY
}
logits() { "$HADAL" score "$1" -f "$tmp/text" --exact --logits "$2" >/dev/null; }
ids() { "$HADAL" tokenize "$1" <"$tmp/text"; }

# From each kind to a directory, in f32 (a rotation of halves sums in another order than one of pairs) and in bf16; and on to GGUF.
for name in llama.gguf deepseek.gguf qwen2; do
    model=${name%.gguf}
    logits "$tmp/m/$name" "$tmp/want"
    ids "$tmp/m/$name" >"$tmp/want.ids"
    check "$model to a directory" "$HADAL" export "$tmp/m/$name" -o "$tmp/d-$model" --type f32
    check "$model: the directory's logits are written" logits "$tmp/d-$model" "$tmp/got"
    check "$model: the directory's logits" near "$tmp/want" "$tmp/got" 2e-5
    ids "$tmp/d-$model" >"$tmp/got.ids"
    check "$model: the directory's ids" cmp "$tmp/want.ids" "$tmp/got.ids"
    check "$model: on to GGUF" "$HADAL" export "$tmp/d-$model" -o "$tmp/g.gguf" --type f32
    check "$model: the second GGUF's logits are written" logits "$tmp/g.gguf" "$tmp/got"
    check "$model: the second GGUF's logits" near "$tmp/want" "$tmp/got" 2e-5
    check "$model: and back" "$HADAL" export "$tmp/g.gguf" -o "$tmp/b-$model" --type f32
    check "$model: the same weights after two conversions" cmp "$tmp/d-$model/model.safetensors" "$tmp/b-$model/model.safetensors"
    for type in bf16 f16; do
        check "$model in $type" "$HADAL" export "$tmp/m/$name" -o "$tmp/$type-$model" --type "$type"
        check "$model in $type opens" "$HADAL" score "$tmp/$type-$model" -f "$tmp/text"
    done
done

# The report, and what is refused; a refusal leaves nothing.
says "json" '"form": "Hugging Face directory".*' "$HADAL" export "$tmp/m/qwen2" -o "$tmp/j" --json
says "help" 'examples:' "$HADAL" export --help
fails "no output" 2 "a model and -o are needed" "$HADAL" export "$tmp/m/qwen2"
fails "no model" 2 "a model and -o are needed" "$HADAL" export -o "$tmp/x"
fails "a format of GGUF in a directory" 2 "a directory holds f32, bf16 or f16" "$HADAL" export "$tmp/m/qwen2" -o "$tmp/x" --type q8_0
fails "an unknown format" 2 "not known" "$HADAL" export "$tmp/m/qwen2" -o "$tmp/x.gguf" --type q9
fails "a directory that is taken" 1 "is there already" "$HADAL" export "$tmp/m/qwen2" -o "$tmp/j"
fails "a model that is not there" 1 "" "$HADAL" export "$tmp/nothing" -o "$tmp/x"
if [ -e "$tmp/x" ] || ls "$tmp" | grep -q part-; then fail "a refusal left something"; else pass; fi

# No room: nothing is left, and what was there stays.
cp "$tmp/g.gguf" "$tmp/old.gguf"
(ulimit -f 16; trap '' XFSZ; "$HADAL" export "$tmp/m/qwen2" -o "$tmp/full" >"$tmp/out" 2>"$tmp/err")
[ $? = 1 ] && grep -q '^hadal: write' "$tmp/err" && pass || fail "no room: $(cat "$tmp/err")"
(ulimit -f 16; trap '' XFSZ; "$HADAL" export "$tmp/m/qwen2" -o "$tmp/old.gguf" >"$tmp/out" 2>"$tmp/err")
[ $? = 1 ] && cmp -s "$tmp/g.gguf" "$tmp/old.gguf" && pass || fail "no room: the old file changed"
if [ -e "$tmp/full" ] || ls "$tmp" | grep -q part-; then fail "no room: something was left"; else pass; fi
finish
