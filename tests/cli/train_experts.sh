# Experts on ranks (train.expert_parallel): a run repeats to the bit, has the losses of one whose ranks hold all experts, goes on with
# any number of ranks, ends when a rank is killed, and takes less memory.
. "$(dirname "$0")/lib.sh"
build=${HADAL_BUILD:-$(dirname "$HADAL")}
export HADAL_MPI=$build/hadal-mpi.so
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 # MPI keeps what it has until the process ends
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

small_grammar 5 3000 >"$tmp/text.txt"
head -n 20 "$tmp/text.txt" >"$tmp/val.txt"
tiny_v3 3 3 >"$tmp/r.ini"
cat >>"$tmp/r.ini" <<END
[data]
source = $tmp/text.txt
val = $tmp/val.txt
divider = blank
seq = 32
[train]
steps = 8
batch = 6
micro = 1
precision = f32
mtp_weight = 0.1
expert_parallel = yes
[optim]
lr = 0.003
[run]
threads = 1
[log]
eval_every = 4
save_every = 4
sample_every = 8
END

# What one process alone says of the key.
sed -e '/^\[model\]/,/^\[tokenizer\]/c [model]\narchitecture = Qwen2ForCausalLM\nhidden_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\nnum_key_value_heads = 2\nintermediate_size = 32\n[tokenizer]' \
    "$tmp/r.ini" >"$tmp/dense.ini"
fails "a model without experts" 2 'train.expert_parallel: .* has no experts' "$HADAL" pretrain "$tmp/dense.ini" -s out="$tmp/dense"
sed -e "/^\[model\]/,/^\[tokenizer\]/c [model]\ninit = $tmp\n[tokenizer]" "$tmp/r.ini" >"$tmp/lora.ini"
fails "adapters" 2 'train.expert_parallel: .*lora_rank' "$HADAL" pretrain "$tmp/lora.ini" -s lora_rank=4
if ! command -v mpirun >/dev/null || [ ! -e "$HADAL_MPI" ]; then
    echo "skipped: several ranks: no MPI here (libopenmpi-dev, openmpi-bin)"
    finish
    exit
fi

run() { # run RANKS OUT SETTING...
    local n=$1 out=$2; shift 2
    local go=(timeout 200 mpirun --oversubscribe -n "$n")
    [ "$n" = 1 ] && go=()
    "${go[@]}" "$HADAL" pretrain "$tmp/r.ini" -s out="$tmp/$out" "$@"
}
column() { cut -d, -f"$(head -n 1 "$tmp/$1" | tr , '\n' | grep -nx "$2" | cut -d: -f1)" "$tmp/$1" | tail -n +2; }
near() { # near A B LIMIT: losses and validation of two runs
    paste <(column "$1/log.csv" loss; column "$1/val.csv" bpb) <(column "$2/log.csv" loss; column "$2/val.csv" bpb) | awk -v limit="$3" '
        { d = $1 - $2; if (d < 0) d = -d; if (!(d <= limit * $1)) bad = 1; n++ } END { exit bad || n != 10 }'
}
same() { # weights and moments, whoever wrote which of them
    local step=step-00000008
    cmp "$tmp/$1/$step/model.safetensors" "$tmp/$2/$step/model.safetensors" &&
        for f in "$tmp/$1/$step"/trainer*.safetensors; do cmp "$f" "$tmp/$2/$step/$(basename "$f")" || return 1; done
}
head_of() { head -c $((8 + $(od -An -tu8 -N8 "$1"))) "$1"; } # of a safetensors file: names, shapes, places

# Six micro-batches: on four ranks two have none in the last round.  Three experts: on two ranks one has two, on four the first has none.
for n in 2 4; do
    check "$n ranks" run $n apart$n
    check "$n ranks again" run $n again$n
    check "$n ranks: the same bits again" same apart$n again$n
    check "$n ranks: the same losses again" cmp <(column apart$n/log.csv loss) <(column again$n/log.csv loss)
    check "$n ranks, all experts on each" run $n whole$n -s expert_parallel=no
    check "$n ranks: its losses within rounding" near whole$n apart$n 2e-6
    check "$n ranks: its loads" cmp "$tmp/whole$n/load.csv" "$tmp/apart$n/load.csv"
    check "$n ranks: a sample of text, once" [ "$(grep -c '^--- step 8 ---' "$tmp/apart$n/samples.txt")" = 1 ]
    check "$n ranks: experts' moments are on their ranks" [ -e "$tmp/apart$n/step-00000008/trainer-0000$((n - 1)).safetensors" ]
    check "$n ranks: the same tensors in a checkpoint" cmp <(head_of "$tmp/whole$n/step-00000008/model.safetensors") <(head_of "$tmp/apart$n/step-00000008/model.safetensors")
done
check "recomputing" run 4 light -s recompute=yes
check "recomputing: the same bits" same apart4 light
check "bf16" run 2 bf16 -s precision=bf16
check "bf16: near" near whole2 bf16 2e-3
check "the first loss to the last digit" [ "$(column whole2/log.csv loss | head -n 1)" = "$(column apart2/log.csv loss | head -n 1)" ]
says "a checkpoint speaks by itself" '[a-z]' "$HADAL" generate "$tmp/apart4" -p 'the cat' -n 4 --temp 0

# Half of the way with 2 ranks, the rest with others, with and without.
cp -r "$tmp/apart2" "$tmp/half" && rm -r "$tmp/half/step-00000008"
for n in 4 2 1; do
    cp -r "$tmp/half" "$tmp/on$n"
    check "and on with $n ranks" run $n on$n
    check "and on with $n ranks: the losses" near apart2 on$n 2e-5
done
check "2 after 2 ranks: the bits of an unbroken run" same on2 apart2
cp -r "$tmp/half" "$tmp/onwhole"
check "and on with all experts on each" run 2 onwhole -s expert_parallel=no
check "and on with all experts on each: the losses" near apart2 onwhole 2e-6

# A rank is killed: the run ends, and goes on to the bits of one that nothing befell.
long="-s steps=40 -s save_every=2 -s sample_every=0"
check "unbroken" run 2 long $long
run 2 killed $long >"$tmp/out" 2>"$tmp/err" &
for ((i = 0; i < 1000; i++)); do [ -n "$(ls -d "$tmp"/killed/step-*[0-9] 2>/dev/null)" ] && break; sleep 0.02; done
pid=
for i in /proc/[0-9]*; do # a rank of this very run
    { read -r name <"$i/comm" && mapfile -d '' -t words <"$i/cmdline"; } 2>/dev/null || continue
    [[ $name = hadal && " ${words[*]} " = *" out=$tmp/killed "* ]] && pid=${i#/proc/}
done
kill -KILL "$pid"
wait $!
status=$?
check "a killed rank ends the run" [ $status != 0 -a $status != 124 ]
check "before its end" [ ! -e "$tmp/killed/step-00000040" ]
check "it goes on" run 2 killed $long
check "to the same weights" cmp "$tmp/killed/step-00000040/model.safetensors" "$tmp/long/step-00000040/model.safetensors"

# What a rank holds: of a model that is little but experts.
cat >"$tmp/peak" <<'END'
# peak FOLDER COMMAND...: the most memory that it had, in kB, into FOLDER/RANK
to=$1/$OMPI_COMM_WORLD_RANK; shift
"$@" & pid=$!
while kill -0 $pid 2>/dev/null; do
    while read -r key n _; do [ "$key" = VmHWM: ] && echo "$n" >"$to"; done 2>/dev/null <"/proc/$pid/status"
    sleep 0.05
done
wait $pid
END
heavy() { # heavy YES|NO
    mkdir "$tmp/peak-$1"
    timeout 200 mpirun --oversubscribe -n 2 bash "$tmp/peak" "$tmp/peak-$1" "$HADAL" pretrain "$tmp/r.ini" -s out="$tmp/heavy-$1" -s expert_parallel="$1" \
        -s hidden_size=64 -s n_routed_experts=16 -s moe_intermediate_size=1024 -s num_nextn_predict_layers=0 -s steps=2 -s eval_every=0 \
        -s save_every=0 -s sample_every=0
}
case ${HADAL_BUILD:-} in
*build-asan) ;; # whose own memory hides it
*)
    check "heavy experts on every rank" heavy no
    check "heavy experts apart" heavy yes
    for r in 0 1; do # of 6.3 M weights half are elsewhere: masters, gradients and panels both ways, 50 MB
        check "rank $r holds less" [ "$(($(cat "$tmp/peak-no/$r") - $(cat "$tmp/peak-yes/$r")))" -gt 40000 ]
    done
    ;;
esac
finish
