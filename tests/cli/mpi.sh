# Ranks: every operation of dist/comm.h with 1, 2 and 4 of them, the same bits each time, and clean ends when one fails.
. "$(dirname "$0")/lib.sh"
build=${HADAL_BUILD:-$(dirname "$HADAL")}
probe=$build/tests/probe/comm_probe
export HADAL_MPI=$build/hadal-mpi.so
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 # MPI keeps what it has until the process ends
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# An end of the run that nobody brings about would be a hang, not a failure: hence the limit.
ranks() { timeout 100 mpirun --oversubscribe -n "$@"; }

says "experts on one rank" '^[0-9]+ passed, 0 failed$' "$build/tests/probe/expert_probe"
grep '^crc' "$tmp/out" >"$tmp/experts"
says "alone" '^[0-9]+ passed, 0 failed$' "$probe" check
check "under mpirun with one rank no module is needed" env OMPI_COMM_WORLD_SIZE=1 HADAL_MPI=/nowhere "$probe" check
fails "a module that is no module" 1 'comm: started as one of 2 ranks: .*invalid ELF' env OMPI_COMM_WORLD_SIZE=2 HADAL_MPI="$0" "$probe" check
mkdir "$tmp/alone" && cp "$probe" "$tmp/alone/"
if [ ! -e "$(sed -n 's/.*-DHD_MODULE_DIR="\([^"]*\)".*/\1/p' "$build/build.ninja" 2>/dev/null | head -n 1)/hadal-mpi.so" ]; then
    fails "no module" 1 'comm: started as one of 3 ranks: no hadal-mpi.so' env -u HADAL_MPI PMI_SIZE=3 "$tmp/alone/comm_probe" check
fi
if ! command -v mpirun >/dev/null || [ ! -e "$HADAL_MPI" ]; then
    echo "skipped: several ranks: no MPI here (libopenmpi-dev, openmpi-bin)"
    finish
    exit
fi
fails "another MPI's mpirun" 1 'started as one of 3 ranks, MPI sees 1' env PMI_SIZE=3 "$probe" check

for n in 2 4; do
    says "$n ranks" '^[0-9]+ passed, 0 failed$' ranks $n "$probe" check
    grep '^crc' "$tmp/out" >"$tmp/first"
    says "$n ranks again" '^[0-9]+ passed, 0 failed$' ranks $n "$probe" check
    grep '^crc' "$tmp/out" >"$tmp/second"
    check "$n ranks: the same bits again" cmp "$tmp/first" "$tmp/second"
    check "$n ranks: as many checksums" [ "$(wc -w <"$tmp/first")" = $((n + 1)) ]
done

for n in 2 3 4; do
    says "experts on $n ranks" '^[0-9]+ passed, 0 failed$' ranks $n "$build/tests/probe/expert_probe"
    grep '^crc' "$tmp/out" >"$tmp/again"
    check "experts on $n ranks: the bits of one" cmp "$tmp/experts" "$tmp/again"
done

# Training passes with experts on ranks: the rows' losses and the experts' gradients have the bits of one rank that holds all.
for model in v3_mtp v2_lite; do
    folder=$(dirname "$0")/../golden/train/$model
    says "passes of $model on one rank" '^[0-9]+ passed, 0 failed$' "$build/tests/probe/ranks_probe" "$folder"
    grep '^crc' "$tmp/out" >"$tmp/passes"
    check "passes of $model: all cases" [ "$(wc -l <"$tmp/passes")" = 12 ]
    for n in 2 3 4; do
        says "passes of $model on $n ranks" '^[0-9]+ passed, 0 failed$' ranks $n "$build/tests/probe/ranks_probe" "$folder"
        grep '^crc' "$tmp/out" >"$tmp/again"
        check "passes of $model on $n ranks: the bits of one" cmp "$tmp/passes" "$tmp/again"
    done
done

ends() { # ends WHAT PATTERN COMMAND...: a status above 0, no hang, the pattern once on stderr
    local what=$1 pattern=$2 got; shift 2
    "$@" >"$tmp/out" 2>"$tmp/err"; got=$?
    if [ "$got" != 0 ] && [ "$got" != 124 ] && [ "$(grep -cE -- "$pattern" "$tmp/err")" = 1 ]; then pass
    else fail "$what: status $got, or not the expected message"; tail -n 20 "$tmp/err" >&2; fi
}
ends "one rank gives up" '^hadal: probe: the last rank gives up$' ranks 4 "$probe" fail
ends "rows that are not sent" '^hadal: comm: rank [01] of 2: rank [01] sent 16 bytes, 32 were awaited' ranks 2 "$probe" lie

# kill -9 of one rank: mpirun says so once and ends the others.
timeout 100 mpirun --oversubscribe -n 4 "$probe" die >"$tmp/pids" 2>"$tmp/err" &
run=$!
for ((i = 0; i < 600; i++)); do
    [ "$(grep -c '^pid' "$tmp/pids")" = 4 ] && break
    sleep 0.1
done
sleep 0.3
kill -9 "$(awk 'NR == 2 { print $2 }' "$tmp/pids")"
wait $run
status=$?
check "a killed rank ends the run in time" [ $status != 0 -a $status != 124 ]
check "and that is said once" [ "$(grep -c 'signal 9' "$tmp/err")" = 1 ]
left() { # ranks that live: not gone, nor dead and waiting for an init that is slow to reap
    for pid in $(awk '{ print $2 }' "$tmp/pids"); do grep -s '^State' "/proc/$pid/status" | grep -v Z; done
}
for ((i = 0; i < 100; i++)); do [ -z "$(left)" ] && break; sleep 0.1; done
check "no rank is left: $(left)" [ -z "$(left)" ]
finish
