# hadal score: log-probabilities, logits, perplexity and KL of the default model, the same with any slices and threads.
. "$(dirname "$0")/lib.sh"
model=${HADAL_TEST_MODEL:-}
fails "no text" 2 'a model and one of' "$HADAL" score some.gguf
fails "two texts" 2 'a model and one of' "$HADAL" score some.gguf --text a --tokens 1
fails "no model" 1 'nowhere.gguf' "$HADAL" score "$tmp/nowhere.gguf" --text a
if [ -n "$model" ]; then
    fails "an id past the vocabulary" 2 'token 49152: the vocabulary has 0..49151' "$HADAL" score "$model" --tokens 1,49152
    fails "ids that are none" 2 "'x,3': ids are numbers" "$HADAL" score "$model" --tokens 1,x,3
    fails "an unknown cache" 2 'cache type q1' "$HADAL" score "$model" --tokens 1,2 --cache q1
    fails "a short text" 2 'at least two chunks of 512' "$HADAL" score "$model" --text hello -c 512
    fails "a folder that is not there" 1 'No such file' "$HADAL" score "$model" --tokens 1,2 --logits "$tmp/no/logits"
    fails "a full disk" 1 'No space left' "$HADAL" score "$model" --tokens 1,2,3 --logits /dev/full
    text='The capital of France is Paris, and the capital of Germany is Berlin. The capital of Italy is Rome.'
    "$HADAL" score "$model" --text "$text" --logits "$tmp/a" >"$tmp/one" 2>"$tmp/err"
    "$HADAL" score "$model" --text "$text" --logits "$tmp/b" --slice 1 -t 1 --no-pack >"$tmp/two" 2>"$tmp/err"
    check "the same figures" cmp "$tmp/one" "$tmp/two"
    check "the same logits" cmp "$tmp/a" "$tmp/b"
    says "a row of logits for each id" '^4325376$' stat -c %s "$tmp/a" # 22 ids of 49152
    says "what everybody knows is likely" '^13 .*-0\.0' sed -n '13s/\t/ /gp' "$tmp/one"
    check "exact and fast agree" python3 -c '
import array, math, sys
def rows(p):
    a = array.array("f", open(p, "rb").read())
    return [a[i:i + 49152] for i in range(0, len(a), 49152)]
import subprocess
subprocess.run([sys.argv[1], "score", sys.argv[2], "--text", sys.argv[3], "--exact", "--logits", sys.argv[5]], check=True, stdout=subprocess.DEVNULL)
for x, y in zip(rows(sys.argv[4]), rows(sys.argv[5])):
    zx, zy = (math.log(math.fsum(map(math.exp, r))) for r in (x, y))
    kl = math.fsum(math.exp(b - zy) * (b - zy - a + zx) for a, b in zip(x, y))
    assert 0 <= kl + 1e-6 < 0.05, kl' "$HADAL" "$model" "$text" "$tmp/a" "$tmp/c"
    for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "$text"; done >"$tmp/text"
    says "perplexity" '^perplexity [1-4]\.[0-9]+ \+- .*, 4 chunks of 64 ids, 124 scored' "$HADAL" score "$model" -f "$tmp/text" -c 64
    says "perplexity as JSON" '"scored": 62, "chunks": 2, "ctx": 64' \
        "$HADAL" score "$model" -f "$tmp/text" -c 64 --chunks 2 --json
    says "KL to exact" 'KL 0\.00[0-9]+ \+- .* likeliest id at (9[0-9]|100)' "$HADAL" score "$model" -f "$tmp/text" -c 64 --chunks 2 --kl
    says "by id as JSON" '"ids": ?3, "nll": ?[0-9.]+, .*"logprobs": ?\[-' "$HADAL" score "$model" --tokens 504,3575,282 --json
fi
finish
