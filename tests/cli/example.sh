# The library as others see it: installed, found by pkg-config, linked both ways, showing hadal.h's functions and no others.
. "$(dirname "$0")/lib.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${HADAL_BUILD:-$root/build}
if [ "${build##*/}" = build-asan ]; then # its library needs the sanitizers' own at every link
    finish
    exit
fi

check "install" env DESTDIR="$tmp/root" meson install -C "$build" --no-rebuild --quiet
pc=$(dirname "$(find "$tmp/root" -name hadal.pc)")
so=$(find "$tmp/root" -name 'libhadal.so' | head -n 1)
export PKG_CONFIG_SYSROOT_DIR=$tmp/root PKG_CONFIG_LIBDIR=$pc:$(pkg-config --variable pc_path pkg-config)
cc=${CC:-cc}

shared() { $cc -Wall -Wextra -Werror -std=c11 "$1" -o "$2" $(pkg-config --cflags hadal) -L"$(dirname "$so")" -lhadal; }
static() { # the system's libraries stand where they always stand: their paths are not under the sysroot
    $cc -std=c11 "$1" -o "$2" $(pkg-config --cflags hadal) "${so%.so}.a" \
        $(unset PKG_CONFIG_SYSROOT_DIR; pkg-config --libs jansson libpcre2-8 libutf8proc libsodium libcurl) -lm -lpthread
}
check "the example, shared" shared "$root/examples/chat.c" "$tmp/chat"
check "the example, static" static "$root/examples/chat.c" "$tmp/chat-static"
export LD_LIBRARY_PATH=$(dirname "$so")
check "pkg-config knows the version" pkg-config --exact-version="$("$HADAL" --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1)" hadal

# The header stands alone, in C and in C++.
echo '#include <hadal.h>
int main(void) { return hd_version()[0] == 0; }' >"$tmp/alone.c"
check "the header alone" shared "$tmp/alone.c" "$tmp/alone"
check "run it" "$tmp/alone"
if command -v g++ >/dev/null; then
    cp "$tmp/alone.c" "$tmp/alone.cc"
    check "the header in C++" g++ -Wall -Wextra -Werror -fsyntax-only $(pkg-config --cflags hadal) "$tmp/alone.cc"
fi

# Names: those of the header, no more and no fewer.
grep -E '^HD_API' "$root/include/hadal.h" | grep -oE '\bhd_[a-z_]+\(' | tr -d '(' | sort -u >"$tmp/declared"
nm -D --defined-only "$so" | awk '$2 ~ /[TDBRVW]/ { print $3 }' | sed 's/@.*//' | sort -u >"$tmp/shown"
if [ -s "$tmp/shown" ] && cmp -s "$tmp/declared" "$tmp/shown"; then pass
else fail "names of the shared library"; diff "$tmp/declared" "$tmp/shown" | head -n 10 >&2; fi

says "the example without a model" 'usage' sh -c "$tmp/chat; [ \$? = 2 ]"
says "the example with a bad one" '^chat: .*' sh -c "$tmp/chat /dev/null; [ \$? = 1 ]"
if [ -n "${HADAL_TEST_MODEL:-}" ]; then
    says "an answer" '[^[:space:]]' sh -c "echo 'Say hello.' | timeout 60 $tmp/chat '$HADAL_TEST_MODEL'"
    says "the static one's" '[^[:space:]]' sh -c "echo 'Say hello.' | timeout 60 $tmp/chat-static '$HADAL_TEST_MODEL'"
fi
finish
