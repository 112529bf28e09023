# A run's bits: killed at random steps and gone on, with one thread and two, again, packed by the run or before: the same
# weights and moments.  And what may go wrong: damaged shards and checkpoints, a full disk, weights that are no numbers, recipes
# with unknown keys: an error that says so, and nothing lost.
. "$(dirname "$0")/lib.sh"
cd "$tmp" || exit 1

awk 'BEGIN { srand(7)
    for (i = 0; i < 120; i++) { w[i] = ""; n = 2 + int(rand() * 6); for (j = 0; j < n; j++) w[i] = w[i] sprintf("%c", 97 + int(rand() * 10)) }
    for (i = 0; i < 500; i++) { n = 5 + int(rand() * 60); s = ""; for (j = 0; j < n; j++) s = s w[int(rand() * rand() * 120)] " "; print s } }' >text.txt
head -n 40 text.txt >val.txt
cat >moe.ini <<'END'
[run]
out = moe
threads = 2
[model]
architecture = DeepseekV3ForCausalLM
hidden_size = 48
num_hidden_layers = 2
num_attention_heads = 3
num_key_value_heads = 3
q_lora_rank = 0
kv_lora_rank = 24
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
intermediate_size = 64
first_k_dense_replace = 1
n_routed_experts = 4
n_shared_experts = 1
num_experts_per_tok = 2
moe_intermediate_size = 24
n_group = 1
topk_group = 1
num_nextn_predict_layers = 1
[tokenizer]
vocab = 300
[data]
source = text.txt
val = val.txt
divider = "\n"
seq = 64
[train]
steps = 40
batch = 8
micro = 4
[log]
eval_every = 20
save_every = 4
keep = 3
sample_every = 0
END
sed -e '/^\[model\]/,/^\[tokenizer\]/c [model]\narchitecture = Qwen2ForCausalLM\nhidden_size = 48\nnum_hidden_layers = 2\nnum_attention_heads = 4\nnum_key_value_heads = 2\nintermediate_size = 80\n[tokenizer]' \
    -e 's/= moe/= dense/' -e 's/^micro.*/&\nprecision = f32\nrecompute = yes/' moe.ini >dense.ini

pretrain() { "$HADAL" pretrain "$@"; }
last=step-00000040
same() { cmp "$1/$last/model.safetensors" "$2/$last/model.safetensors" && cmp "$1/$last/trainer.safetensors" "$2/$last/trainer.safetensors"; }
column() { cut -d, -f1-7,13 "$1/log.csv"; } # without what the clock says
steps_of() { # whole lines of the log, but for its head
    local n=0
    [ -e "$1/log.csv" ] && n=$(wc -l <"$1/log.csv")
    echo $((n > 0 ? n - 1 : 0))
}

# killed DIR RECIPE OPTIONS: the run, killed with -9 whenever it has made some more steps, until it is through.
killed() {
    local dir=$1 kills=0 pid until; shift
    while [ ! -e "$dir/$last" ]; do
        "$HADAL" pretrain "$@" >/dev/null 2>&1 & # not a function: the signal must reach the program itself
        pid=$!
        until=$(($(steps_of "$dir") % 40 + 1 + RANDOM % 9))
        while kill -0 "$pid" 2>/dev/null && { [ "$kills" -ge 8 ] || [ "$(steps_of "$dir")" -lt "$until" ]; }; do sleep 0.01; done
        kill -9 "$pid" 2>/dev/null && kills=$((kills + 1))
        wait "$pid" 2>/dev/null
        [ "$kills" -lt 30 ] || return 1
    done
    echo "$kills kills"
    [ "$kills" -gt 0 ]
}

both='moe dense'
case $HADAL_BUILD in *build-asan) both=moe ;; esac # sanitizers slow each of these runs tenfold
for r in $both; do
    check "$r: a run" pretrain $r.ini
    check "$r: the same again" pretrain $r.ini -s out=$r-again
    check "$r: its bits" same $r $r-again
    check "$r: one thread, saved at its end alone" pretrain $r.ini -s out=$r-one -s threads=1 -s save_every=0
    check "$r: its bits with one thread" same $r $r-one
    check "$r: killed now and then" killed $r-killed $r.ini -s out=$r-killed
    check "$r: its bits when killed" same $r $r-killed
    check "$r: a log without gaps" diff <(column $r) <(column $r-killed)
    check "$r: the data packed before" pretrain $r.ini -s out=$r-packed -s source="$tmp/$r/data/0" -s val="$tmp/$r/data/val" \
        -s tokenizer.path="$tmp/$r/tokenizer" -s model.vocab_size=300
    check "$r: its bits then" same $r $r-packed
    check "$r: once done, done" pretrain $r.ini
done

# Ctrl-C saves and says so; the same command goes on.
stopped() {
    "$HADAL" pretrain moe.ini -s out=stopped >/dev/null 2>stop.err &
    local pid=$!
    while kill -0 $pid 2>/dev/null && [ "$(steps_of stopped)" -lt 6 ]; do sleep 0.01; done
    kill -INT $pid 2>/dev/null
    wait $pid
    [ $? != 0 ] && grep -q 'stopped at step' stop.err
}
check "an interrupt" stopped
check "goes on" pretrain moe.ini -s out=stopped
check "its bits after an interrupt" same moe stopped

# ---- Damage -------------------------------------------------------------------------------------------------------------
flip() { printf '\377\377\377\377' | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }

cp -r moe cut
truncate -s -100 cut/$last/model.safetensors
says "a truncated checkpoint is passed over" 'step-00000040' pretrain moe.ini -s out=cut
check "and made again" same moe cut
cp -r moe flipped
flip flipped/$last/trainer.safetensors 4000
says "a damaged one too" 'step-00000040' pretrain moe.ini -s out=flipped
check "and made again" same moe flipped

cp -r moe shard
rm -r shard/step-*
flip shard/data/0/00000.tok 400
fails "a damaged shard" 1 '00000.tok' pretrain moe.ini -s out=shard
check "leaves the shard" [ -e shard/data/0/00000.tok ]

# A disk that is full: files may not grow beyond some blocks; the checkpoints that are there stay.
cp -r moe full
rm -r full/$last
sum_before=$(cat full/step-00000036/* | cksum)
full() { (trap '' XFSZ; ulimit -f 64; exec "$HADAL" pretrain moe.ini -s out=full); }
fails "a full disk" 1 'full' full
check "the checkpoint before it stays" [ "$(cat full/step-00000036/* | cksum)" = "$sum_before" ]
check "no half of one" [ ! -e full/$last ]
mkdir disk # the same on one that is really full, where a small one may be mounted
if mount -t tmpfs -o size=$(($(du -sk full | cut -f1) + 24))k none disk 2>/dev/null; then
    cp -r full disk/full
    fails "no space left" 1 'No space left|the disk has .* left' pretrain moe.ini -s out=disk/full
    check "the checkpoint before it stays on it" [ "$(cat disk/full/step-00000036/* | cksum)" = "$sum_before" ]
    check "no half of one on it" [ ! -e disk/full/$last ]
    umount disk
fi
check "room again" pretrain moe.ini -s out=full
check "its bits" same moe full

# ---- No numbers ----------------------------------------------------------------------------------------------------------
cp -r moe/$last nan
size=$(stat -c %s nan/model.safetensors)
for i in $(seq 100 1500 60000); do # somewhere in every larger tensor
    printf '\000\000\300\177' | dd of=nan/model.safetensors bs=1 seek=$((size - 4 * i)) conv=notrunc 2>/dev/null
done
sed -e '/^\[model\]/,/^\[tokenizer\]/c [model]\ninit = nan' -e '/^vocab/d' moe.ini >nan.ini
fails "weights that are no numbers" 1 'not finite' pretrain nan.ini -s out=bad
check "nothing is saved then" [ -z "$(ls -d bad/step-* 2>/dev/null)" ]
cat >distil.ini <<END
[run]
out = student
[model]
init = moe/$last
[data]
source = text.txt
val = val.txt
divider = "\n"
seq = 64
[train]
steps = 4
batch = 4
[distil]
teacher = nan
[log]
eval_every = 0
sample_every = 0
END
fails "a teacher's numbers" 1 'finite|teacher' "$HADAL" distil distil.ini
check "a teacher that can be asked" "$HADAL" distil distil.ini -s teacher="moe/$last" -s out=student2

# ---- Recipes --------------------------------------------------------------------------------------------------------------
sed 's/^batch/bach/' moe.ini >bad.ini
fails "an unknown key" 2 "bad.ini:[0-9]+: 'bach': no key of a recipe: did you mean train.batch" pretrain bad.ini
fails "an unknown setting" 2 "stepz" pretrain moe.ini -s stepz=3
fails "a rate that diverges" 1 'finite|diverged' pretrain dense.ini -s out=diverged -s lr=100 -s steps=200 -s spike_sigmas=0 -s clip=0
finish
