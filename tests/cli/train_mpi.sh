# A run over ranks: repeats to the bit, agrees with one rank within rounding, goes on with another number of ranks.
. "$(dirname "$0")/lib.sh"
build=${HADAL_BUILD:-$(dirname "$HADAL")}
export HADAL_MPI=$build/hadal-mpi.so
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 # MPI keeps what it has until the process ends
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
if ! command -v mpirun >/dev/null || [ ! -e "$HADAL_MPI" ]; then
    echo "skipped: no MPI here (libopenmpi-dev, openmpi-bin)"
    finish
    exit
fi

small_grammar 3 6000 >"$tmp/text.txt"
tiny_v3 2 4 >"$tmp/r.ini"
cat >>"$tmp/r.ini" <<END
[data]
source = $tmp/text.txt
divider = blank
seq = 32
[train]
steps = 8
batch = 8
micro = 1
precision = f32
mtp_weight = 0.1
[optim]
lr = 0.003
[run]
threads = 1
[log]
save_every = 4
END

run() { # run RANKS OUT SETTING...
    local n=$1 out=$2; shift 2
    local go=(timeout 200 mpirun --oversubscribe -n "$n")
    [ "$n" = 1 ] && go=()
    "${go[@]}" "$HADAL" pretrain "$tmp/r.ini" -s out="$tmp/$out" "$@"
}
losses() { cut -d, -f"$(head -n 1 "$tmp/$1/log.csv" | tr , '\n' | grep -nx loss | cut -d: -f1)" "$tmp/$1/log.csv" | tail -n +2; }
near() { # near A B LIMIT: the losses of two runs, step by step
    paste <(losses "$1") <(losses "$2") | awk -v limit="$3" '
        { d = $1 - $2; if (d < 0) d = -d; if (!(d <= limit * $1)) bad = 1; n++ } END { exit bad || n != 8 }'
}
same() { # weights and moments, whoever wrote which of them
    local step=step-00000008
    cmp "$tmp/$1/$step/model.safetensors" "$tmp/$2/$step/model.safetensors" &&
        for f in "$tmp/$1/$step"/trainer*.safetensors; do cmp "$f" "$tmp/$2/$step/$(basename "$f")" || return 1; done
}

check "one rank" run 1 one
for n in 2 4; do
    check "$n ranks" run $n ranks$n
    check "$n ranks again" run $n again$n
    check "$n ranks: the same bits again" same ranks$n again$n
    check "$n ranks: the same losses again" cmp <(losses ranks$n) <(losses again$n)
    check "$n ranks: one rank's losses within rounding" near one ranks$n 2e-5
    check "$n ranks share the moments" [ -e "$tmp/ranks$n/step-00000008/trainer-0000$((n - 1)).safetensors" ]
done
check "it learns" awk 'NR == 1 { a = $1 } { b = $1 } END { exit !(b < a - 0.1) }' <(losses one)

# Half of the way with 2 ranks, the rest with 4, 2 and 1.
cp -r "$tmp/ranks2" "$tmp/half"
check "half of the way" rm -r "$tmp/half/step-00000008"
for n in 4 2 1; do
    cp -r "$tmp/half" "$tmp/on$n"
    check "and on with $n ranks" run $n on$n
done
cp -r "$tmp/half" "$tmp/on4again"
check "and on with 4 ranks again" run 4 on4again
check "4 after 2 ranks: the same bits again" same on4 on4again
check "2 after 2 ranks: the bits of an unbroken run" same on2 ranks2
near one on4 2e-5 && near one on1 2e-5 && pass || fail "a run that goes on with other ranks leaves one rank's losses"

# One rank is killed, another run is asked to stop: both go on to the bits of one that nothing befell.
long="-s steps=24 -s save_every=2"
check "unbroken" run 2 whole $long
# A rank of $1's run, once a checkpoint stands; the run's status is then in $status.
befall() { # befall OUT SIGNAL
    local i pid= name words
    run 2 "$1" $long >"$tmp/out" 2>"$tmp/err" &
    for ((i = 0; i < 1000; i++)); do [ -n "$(ls -d "$tmp/$1"/step-*[0-9] 2>/dev/null)" ] && break; sleep 0.02; done
    for i in /proc/[0-9]*; do # a rank of this very run; no program is started meanwhile: the run is short
        { read -r name <"$i/comm" && mapfile -d '' -t words <"$i/cmdline"; } 2>/dev/null || continue
        [[ $name = hadal && " ${words[*]} " = *" out=$tmp/$1 "* ]] && pid=${i#/proc/}
    done
    kill -"$2" "$pid"
    wait $!
    status=$?
}
befall killed KILL
check "a killed rank ends the run" [ $status != 0 ]
check "before its end" [ ! -e "$tmp/killed/step-00000024" ]
check "it goes on" run 2 killed $long
check "to the same weights" cmp "$tmp/killed/step-00000024/model.safetensors" "$tmp/whole/step-00000024/model.safetensors"
befall stopped TERM
check "a rank that is asked stops all" [ $status = 1 -a ! -e "$tmp/stopped/step-00000024" ]
check "which is told once" [ "$(grep -c '^hadal: train: stopped at step' "$tmp/err")" = 1 ]
check "it goes on, too" run 2 stopped $long
check "to the same weights, too" cmp "$tmp/stopped/step-00000024/model.safetensors" "$tmp/whole/step-00000024/model.safetensors"

# What goes wrong for all is told once; so is what one rank alone meets.
run 2 bad -s train.batch=0 >"$tmp/out" 2>"$tmp/err"
status=$?
check "a bad setting: status" [ $status = 2 ]
check "a bad setting: told once" [ "$(grep -c '^hadal: ' "$tmp/err")" = 1 ]
finish
