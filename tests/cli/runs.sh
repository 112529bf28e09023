# hadal runs, hadal plot: made-up logs listed and drawn, refusals; hadal pretrain's way with bad recipes.
. "$(dirname "$0")/lib.sh"

# make_run DIR NAME STEPS MOE: a run's folder with so many steps.
make_run() {
    mkdir -p "$1"
    printf '[run]\nname = %s\n[train]\nsteps = 40\n' "$2" >"$1/recipe.ini"
    awk -v n="$3" -v moe="$4" -v dir="$1" 'BEGIN {
        print "step,tokens,loss,mtp_loss,balance_loss,lr,grad_norm,tok_s,seconds,share_of_peak,load_max,load_min,skipped" >(dir "/log.csv")
        print "step,tokens,bpb,seconds" >(dir "/val.csv")
        for (i = 1; i <= n; i++) {
            loss = i == 7 ? "nan" : 2 + 3 / i
            print i "," i * 512 "," loss ",0,0,0.001," 1 + 1 / i ",9000," i * 0.5 ",0.3," moe * 1.5 "," moe * 0.5 ",0" >(dir "/log.csv")
            if (i % 10 == 0) print i "," i * 512 "," 1 + 1 / i "," i * 0.5 >(dir "/val.csv")
        } }'
}
cd "$tmp" || exit 1
says "no runs at all" '^no runs in runs$' "$HADAL" runs
make_run "runs/first" "first" 40 1
make_run "runs/it's a_second" "second" 20 0
make_run "< touch owned" "odd" 12 0
make_run "runs/empty" "empty" 0 0
mkdir -p runs/no-run
says "a run that is done" '^runs/first +40/40 +2\.0750 +1\.0250 +0\.006  done$' "$HADAL" runs
says "one that stopped" "^runs/it's a_second +20/40 .*  stopped\$" "$HADAL" runs runs
says "one folder" '^runs/first ' "$HADAL" runs runs/first
check "no others then" test "$(wc -l <out)" = 2
says "as JSON" '"dir": "runs/first", "name": "first", "step": 40, "steps": 40, "tokens": 20480, "loss": 2.075, "val_bpb": 1.025' \
    sh -c "\"$HADAL\" runs --json | python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)))'"
check "three of them" python3 -c "import json, subprocess, sys; l = json.loads(subprocess.check_output([sys.argv[1], 'runs', '--json'])); sys.exit(len(l) != 3)" "$HADAL"
fails "no such folder" 1 "runs: nowhere: No such file" "$HADAL" runs nowhere
fails "too many" 2 "one folder at most" "$HADAL" runs a b

fails "nothing to plot" 2 "one to 16 runs" "$HADAL" plot
fails "no run" 2 "runs/no-run: no run's folder" "$HADAL" plot runs/no-run
fails "no step so far" 2 "runs/empty: no step is logged" "$HADAL" plot runs/empty
fails "no such form" 2 "-o x.pdf: a name that ends in" "$HADAL" plot runs/first -o x.pdf
fails "no such axis" 2 "--x time: none of step" "$HADAL" plot runs/first -x time
mkdir bin
ln -s "$(command -v true)" bin/true
fails "without gnuplot" 1 "gnuplot: not installed: apt-get install gnuplot-nox" env PATH="$tmp/bin" "$HADAL" plot runs/first
printf '#!/bin/sh\ncat >/dev/null\nexit 3\n' >bin/gnuplot
chmod +x bin/gnuplot
fails "gnuplot fails" 1 "gnuplot: failed with status 3" env PATH="$tmp/bin:$PATH" "$HADAL" plot runs/first
if command -v gnuplot >/dev/null; then
    says "an SVG in the run's folder" '^runs/first/plot.svg$' "$HADAL" plot runs/first
    check "it is XML" python3 -c "import xml.dom.minidom as m; m.parse('runs/first/plot.svg')"
    check "six panels" grep -q "most and least loaded expert" runs/first/plot.svg
    says "several runs" '"runs": 2, "steps": 60' "$HADAL" plot runs/first "runs/it's a_second" -x hours -o both.svg --json
    check "both are named" grep -q '>second<' both.svg
    says "a name that looks like a command" 'odd.png' "$HADAL" plot "< touch owned" -x tokens -o 'odd.png'
    check "is none" test ! -e owned
    check "it is a PNG" sh -c "head -c 4 odd.png | grep -q PNG"
    fails "where nothing can be written" 1 "gnuplot" "$HADAL" plot runs/first -o nowhere/x.svg
    check "a dense run has no panel of experts" sh -c "'$HADAL' plot \"runs/it's a_second\" -o d.svg && ! grep -q 'loaded expert' d.svg"
fi

# Recipes are refused before anything is made.
printf '[model]\narchitecture = Qwen2ForCausalLM\nhiden_size = 64\n' >bad.ini
fails "a misspelt key" 2 "bad.ini:3: 'hiden_size': no key of a recipe: did you mean model.hidden_size" "$HADAL" pretrain bad.ini
fails "no recipe" 1 "nowhere.ini" "$HADAL" pretrain nowhere.ini
fails "a misspelt setting" 2 "-s stpes=3: 'stpes'.*did you mean train.steps" "$HADAL" pretrain bad.ini -s stpes=3
check "nothing was made" test ! -e runs/bad
finish
