# hadal distil: a teacher that is asked at each step, and the file of its probabilities (distil.teacher_cache): the same bits, also after
# kills while it is made or read, with other micro-batches and with ranks; files of another teacher, other data and other sizes, damaged
# ones, a full disk, and teachers whose numbers are none.
. "$(dirname "$0")/lib.sh"
cd "$tmp" || exit 1

awk 'BEGIN { srand(7)
    for (i = 0; i < 120; i++) { w[i] = ""; n = 2 + int(rand() * 6); for (j = 0; j < n; j++) w[i] = w[i] sprintf("%c", 97 + int(rand() * 10)) }
    for (i = 0; i < 400; i++) { n = 5 + int(rand() * 60); s = ""; for (j = 0; j < n; j++) s = s w[int(rand() * rand() * 120)] " "; print s } }' >text.txt
cat >teacher.ini <<'END'
[run]
out = teacher
threads = 2
[model]
architecture = Qwen2ForCausalLM
hidden_size = 48
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
intermediate_size = 80
[tokenizer]
vocab = 300
[data]
source = text.txt
divider = line
seq = 64
[train]
steps = 3
batch = 8
[log]
sample_every = 0
eval_every = 0
END
sed -e 's/^out = .*/out = live/' -e 's/^hidden_size.*/hidden_size = 32/' -e 's/^intermediate_size.*/intermediate_size = 48/' \
    -e 's/^vocab = .*/path = teacher\/tokenizer/' -e 's/^steps.*/steps = 12/' -e 's/^batch.*/&\nmicro = 4/' -e 's/^sample_every/save_every = 2\nkeep = 9\n&/' \
    teacher.ini >student.ini
cat >>student.ini <<'END'
[distil]
teacher = teacher/step-00000003
distil_weight = 0.8
distil_top = 5
END
check "a teacher" "$HADAL" pretrain teacher.ini

last=step-00000012 record=$((16 + 64 * 5 * 8))
distil() { "$HADAL" distil student.ini "$@"; }
cached() { local out=$1; shift; distil -s out="$out" -s teacher_cache=cache "$@"; }
same() { cmp "$1/$last/model.safetensors" "$2/$last/model.safetensors" && cmp "$1/$last/trainer.safetensors" "$2/$last/trainer.safetensors"; }

check "asked at each step" distil
says "a file is made" 'its probabilities come from cache' cached made
check "the same bits" same live made
check "nothing half made stays" [ ! -e cache.part ]
check "its size: 96 sequences of 64 rows of 5 ids" [ "$(stat -c %s cache)" = $((64 + 96 * record)) ]
cp cache keep
check "the file is read" cached read -s threads=1
check "the same bits" same live read
check "and stays as it is" cmp cache keep
check "other micro-batches" cached other -s micro=8
check "a shorter run" cached short -s steps=5
check "without its teacher" cached alone -s teacher=
check "the same bits" same live alone
cp -r made half
rm -r half/step-0000000[89] half/step-0000001?
check "gone on from step 6" cached half
check "the same bits" same live half

# ---- Broken off -----------------------------------------------------------------------------------------------------------
rm cache
for i in 1 2 3 4 5 6 7 8; do # killed at some moment, while it is made or read
    "$HADAL" distil student.ini -s out=killed -s teacher_cache=cache >/dev/null 2>&1 &
    pid=$!
    sleep 0.$((RANDOM % 9))$((RANDOM % 9))
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
done
check "to its end" cached killed
check "the file is that of an unbroken run" cmp cache keep
check "and so are the weights" same live killed

rm cache
head -c $((64 + 30 * record + 1000)) keep >cache.part # as a kill leaves it
check "taken up" cached taken
check "to the same file" cmp cache keep

rm cache
stopped() { # Ctrl-C while it is made
    "$HADAL" distil student.ini -s out=stopped -s teacher_cache=cache -s steps=20000 >/dev/null 2>stop.err &
    local pid=$! i
    for ((i = 0; i < 500; i++)); do [ -e cache.part ] && [ "$(stat -c %s cache.part)" -gt 200000 ] && break; sleep 0.02; done
    kill -INT $pid 2>/dev/null
    wait $pid
    [ $? != 0 ] && grep -qE 'cache: stopped at sequence [0-9]+ of 160000; the same command goes on' stop.err
}
check "an interrupt" stopped
check "what is made stays" [ "$(stat -c %s cache.part)" -gt 200000 ]
check "another length of the run begins anew" cached after
check "to the same file" cmp cache keep

cp -r live full
rm -r full/step-*
full() { (trap '' XFSZ; ulimit -f 100; exec "$HADAL" distil student.ini -s out=full -s teacher_cache=full.cache); }
fails "a full disk" 1 'write: full.cache' full
check "what was written stays" [ -e full.cache.part ]
check "room again" distil -s out=full -s teacher_cache=full.cache
check "the same file" cmp full.cache keep

# ---- Not this run's ---------------------------------------------------------------------------------------------------------
check "another teacher" "$HADAL" pretrain teacher.ini -s out=stranger -s seed=2 -s tokenizer.path=teacher/tokenizer
fails "of another teacher" 2 'cache: holds the probabilities of another teacher than .*stranger.*remove it, or name another' \
    cached x1 -s teacher=stranger/step-00000003
fails "of another seed" 2 'cache: is of other data, or of another run.seed' cached x2 -s seed=3
fails "of fewer ids" 2 'cache: holds 5 ids a row, distil.distil_top says 6' cached x3 -s distil_top=6
fails "of longer sequences" 2 'cache: is of sequences of 64 rows, data.seq says 32' cached x4 -s seq=32
fails "of fewer sequences" 2 'cache: holds 96 sequences, the run has 104' cached x5 -s steps=13
head -n 200 text.txt | tac >less.txt
fails "of other data" 2 'cache: is of other data' cached x6 -s source=less.txt
fails "no teacher to make it" 2 'nothere: is not there, and .distil. names no teacher' distil -s out=x7 -s teacher_cache=nothere -s teacher=
fails "neither" 2 'no teacher' distil -s out=x7 -s teacher=
fails "a folder" 1 'regular file' distil -s out=x8 -s teacher_cache=live
check "nothing was lost" cmp cache keep

# ---- Damage -----------------------------------------------------------------------------------------------------------------
flip() { printf '\377\377\377\377' | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }
flip cache 60000
fails "a damaged record" 1 'cache: record 23: damaged' cached x9
flip cache 20
fails "a damaged head" 1 'cache: its head is damaged' cached x10
head -c -1 keep >cache
fails "a file cut short" 1 'cache: .*cut short' cached x11
cp text.txt cache
fails "another file" 1 "cache: no file of a teacher's probabilities" cached x12
rm cache

# ---- No numbers ---------------------------------------------------------------------------------------------------------------
cp -r teacher/step-00000003 nan
size=$(stat -c %s nan/model.safetensors)
printf '\000\000\300\177' | dd of=nan/model.safetensors bs=1 seek=$((size - 400)) conv=notrunc 2>/dev/null # one NaN
fails "a teacher's NaN, asked" 1 'teacher: .*nan: .*weight: holds a number that is not finite' distil -s out=x13 -s teacher=nan
fails "a teacher's NaN, kept" 1 'teacher: .*nan: .*weight: holds a number that is not finite' cached x14 -s teacher=nan
check "no file is made of it" [ ! -e cache ]
check "nothing is learnt from it" [ -z "$(ls -d x13/step-* x14/step-* 2>/dev/null)" ]

# ---- Ranks ----------------------------------------------------------------------------------------------------------------------
export HADAL_MPI=${HADAL_BUILD:-$(dirname "$HADAL")}/hadal-mpi.so
if command -v mpirun >/dev/null && [ -e "$HADAL_MPI" ]; then
    export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    ranks() { timeout 200 mpirun --oversubscribe -n 2 "$HADAL" distil student.ini -s threads=1 "$@"; }
    check "two ranks, asked" ranks -s out=ranks
    check "two ranks make the file" ranks -s out=ranks2 -s teacher_cache=cache
    check "the same bits" cmp ranks/$last/model.safetensors ranks2/$last/model.safetensors
    check "two ranks read it" ranks -s out=ranks3 -s teacher_cache=cache
    check "the same bits" cmp ranks/$last/model.safetensors ranks3/$last/model.safetensors
    check "the file of one rank" cmp cache keep
fi
finish
