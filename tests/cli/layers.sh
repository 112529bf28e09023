# tools/layers accepts the tree and refuses each kind of wrong include.
. "$(dirname "$0")/lib.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
check "the tree" "$root/tools/layers"

# refuses FILE INCLUDE PATTERN: a tree of one file with one include.
refuses() {
    rm -rf "$tmp/src"
    mkdir -p "$tmp/src/$(dirname "$1")"
    echo "#include \"$2\"" >"$tmp/src/$1"
    if "$root/tools/layers" "$tmp/src" 2>"$tmp/err"; then fail "$1 may include $2"
    elif grep -q "$3" "$tmp/err"; then pass
    else fail "$1 includes $2: wrong message"; cat "$tmp/err" >&2; fi
}
accepts() {
    rm -rf "$tmp/src"
    mkdir -p "$tmp/src/$(dirname "$1")"
    echo "#include \"$2\"" >"$tmp/src/$1"
    check "$1 includes $2" "$root/tools/layers" "$tmp/src"
}
refuses base/x.c kernels/kernels.h "base may not include kernels"
refuses kernels/x86/x.c ops/ops.h "kernels may not include ops"
refuses model/x.h infer/session.h "model may not include infer"
refuses infer/x.c train/optim.h "infer may not include train"
refuses dist/x.c kernels/kernels.h "dist may not include kernels"
refuses tasks/x.c kernels/kernels.h "tasks sits on base alone"
refuses serve/x.c cli/cmd.h "serve may not include cli"
refuses ops/x.c x.h "not written from src/"
refuses ops/x.c ../base/err.h "not written from src/"
refuses odd/x.c base/err.h "folder odd is no layer"
accepts model/x.c ops/ops.h
accepts kernels/x86/x.c kernels/kernels.h
accepts cli/x.c serve/http.h
accepts base/x.c hadal.h
finish
