# What is written stays whole: a full disk, a failing write and kill -9 leave the old file, and nothing half-made under its
# name.  (The same for pull: pull.sh.)
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
python3 "$here/../failalloc/make_models.py" "$tmp/models" || fail "the models were not made"
mkdir "$tmp/place"
out=$tmp/place/model.gguf
check "a first file" "$HADAL" quantize "$tmp/models/llama.gguf" "$out" --type f16
cp "$out" "$tmp/old"

# Every limit on the size of a file from a kilobyte to just too small
size=$(stat -c %s "$out")
for ((blocks = 1; blocks * 1024 < size; blocks += size / 1024 / 12 + 1)); do
    fails "a disk that is full after $blocks kB" 1 "write: .*File too large" \
        bash -c 'ulimit -f $1; exec "$0" quantize "$2" "$3" --type f16 --threads 1' "$HADAL" $blocks "$tmp/models/qwen2" "$out"
    check "the old file stays" cmp "$tmp/old" "$out"
    check "and nothing else" test "$(ls -A "$tmp/place")" = model.gguf
done

# A real full disk, where a small one may be mounted
mkdir "$tmp/disk"
if mount -t tmpfs -o size=64k none "$tmp/disk" 2>/dev/null; then
    cp "$tmp/models/qwen2/config.json" "$tmp/disk/model.gguf"
    fails "no space left" 1 "(write: .*No space left|the disk has .* left)" "$HADAL" quantize "$tmp/models/llama.gguf" "$tmp/disk/model.gguf" --type f16
    check "the old file stays on it" cmp "$tmp/models/qwen2/config.json" "$tmp/disk/model.gguf"
    check "and nothing else on it" test "$(ls -A "$tmp/disk")" = model.gguf
    umount "$tmp/disk"
fi
fails "a folder that is not there" 1 "create: " "$HADAL" quantize "$tmp/models/llama.gguf" "$tmp/none/model.gguf"
fails "the model itself" 1 "." "$HADAL" quantize "$tmp/models/llama.gguf" "$tmp/models"

# kill -9 at several moments: the old file or the whole new one, never a mixture
check "the new file" "$HADAL" quantize "$tmp/models/llama.gguf" "$tmp/new" --type q8_0 --threads 1
mixed=0 killed=0
for ms in 1 2 3 5 8 12 20 35 60; do
    "$HADAL" quantize "$tmp/models/llama.gguf" "$out" --type q8_0 --threads 1 >/dev/null 2>&1 &
    pid=$!
    sleep "$(printf '0.%03d' $ms)"
    kill -9 $pid 2>/dev/null
    { wait $pid; } 2>/dev/null
    [ $? = 137 ] && killed=$((killed + 1))
    cmp -s "$tmp/old" "$out" || cmp -s "$tmp/new" "$out" || mixed=$((mixed + 1))
    cp "$tmp/old" "$out"
done
check "killed at nine moments ($killed in time)" test $mixed = 0
finish
