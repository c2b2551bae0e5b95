#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh: `pps run` as a user meets it: it trains, logs, saves and traces; the numbers do not depend on how
# ranks run; the outside oracles hold; Ctrl-C ends every process.
. "$(dirname "$0")/../lib/tap.sh"
cd "$tap_folder" || exit 1
shm_before=$(ls /dev/shm 2>/dev/null | grep pps | grep -v pps-test)
cp "$PPS_ROOT/stdlib/schedules.pps" text.txt

# A small model on 4 ranks: 2 pipeline ranks x 2 replicas, experts shared out, DualPipeV.
cat >moe.pps <<'P'
from "models/qwen3_moe" import qwen3_moe
from "schedules" import dualpipev, v_stages
let pp, dp, ep = [stream("pp"), stream("dp"), stream("ep")]
train qwen3_moe(tokens(16, 16), targets(), stages=4, layers=4, dim=32, heads=2, kv_heads=1, head_dim=16,
                experts=4, top_k=2, expert_hidden=32) data bytes("text.txt") optimizer adamw(lr=3e-3)
for s in 0..4 {
  place     {PP: s}        on v_stages(2, dp=2)[s] stream pp
  replicate {PP: s}        on v_stages(2, dp=2)[s] reduce dp
  shard     {PP: s, EP: *} on v_stages(2, dp=2)[s] stream ep
}
split {} by MB into 4
order dualpipev(2, 4)
P
# The same on one rank.
cat >alone.pps <<'P'
from "models/qwen3_moe" import qwen3_moe
train qwen3_moe(tokens(16, 16), targets(), stages=4, layers=4, dim=32, heads=2, kv_heads=1, head_dim=16,
                experts=4, top_k=2, expert_hidden=32) data bytes("text.txt") optimizer adamw(lr=3e-3)
P

# losses FILE: the losses of a JSON log
losses() {
    sed -n 's/.*"loss":\([-0-9.e+]*\),"aux.*/\1/p' "$1"
}
# near TOLERANCE FILE FILE: numbers, line by line, relative to the second
near() {
    paste -d ' ' "$2" "$3" | awk -v tolerance="$1" '
        NF != 2 { print "# line " NR ": one side is missing"; bad = 1; exit }
        { d = ($1 - $2) / $2; if (d < 0) d = -d; if (d > worst) worst = d }
        d > tolerance && !bad { print "# line " NR ": " $1 " instead of " $2; bad = 1 }
        END { if (NR == 0) print "# nothing to compare"; exit bad || NR == 0 }'
}

json_log() {
    run_pps run moe.pps --steps 20 --kernels plain --log json
    expect_status 0 || return 1
    cp "$out" moe.log
    [ "$(wc -l <moe.log)" -eq 21 ] || { why "20 steps and a last line, got $(wc -l <moe.log)"; return 1; }
    head -n 1 moe.log | grep -qE '^\{"step":1,"loss":[0-9.]+,"aux_loss":[0-9.e-]+,"ms":[0-9.]+,"tokens_per_s":[0-9.]+\}$' ||
        { why "first line: $(head -n 1 moe.log)"; return 1; }
    tail -n 1 moe.log | grep -qE '"done":true,"params_sha256":"[0-9a-f]{64}","peak_bytes":\[([0-9]+,){3}[0-9]+\],"planned_bytes":' ||
        why "last line: $(tail -n 1 moe.log)"
}
try "20 steps on 4 ranks, logged as JSON" json_log

learns() {
    losses moe.log | awk '
        { loss[NR] = $1 }
        END { first = loss[1] - log(256); if (first < -0.3 || first > 0.3) { print "# first loss " loss[1]; exit 1 }
              if (loss[NR] > 0.9 * loss[1]) { print "# last loss " loss[NR]; exit 1 } }'
}
try "the first loss is that of guessing, and it falls" learns

same_numbers() {
    run_pps run moe.pps --steps 20 --kernels plain --log json "$@"
    expect_status 0 || return 1
    losses "$out" >again
    losses moe.log | cmp -s - again || { why "losses differ"; return 1; }
    [ "$(tail -n 1 "$out" | cut -d '"' -f 6)" = "$(tail -n 1 moe.log | cut -d '"' -f 6)" ] || why "hashes differ"
}
try "twice gives the same bits" same_numbers
try "threads give the same bits as processes" same_numbers --ranks threads
try "merged streams give the same bits" same_numbers --streams 2
try "one stream gives the same bits" same_numbers --streams=1

one_rank() {
    run_pps run alone.pps --steps 20 --kernels plain --log json
    expect_status 0 || return 1
    losses "$out" >alone
    losses moe.log >moe
    near 1e-4 moe alone
}
try "4 ranks follow 1 rank" one_rank

text_log() {
    run_pps run moe.pps --steps 3
    expect_status 0 && expect_out "step 3/3" "loss" "tokens/s" "bubble" "makespan" "planned peak" "sha256"
}
try "the text log" text_log

trace() {
    run_pps run moe.pps --steps 2 --trace trace.json
    expect_status 0 || return 1
    local word
    for word in traceEvents '"rank 3"' '"name":"F PP0:0"' '"place":"moe.pps:'; do
        grep -qF "$word" trace.json || { why "the trace lacks $word"; return 1; }
    done
    run_pps run moe.pps --steps 1 --trace no/such/trace.json
    expect_status 3 "no/such/trace.json"
}
try "--trace" trace

# What each rank computed, in the order of its times, is what `pps rows` says.
traced_order() {
    cat >v.pps <<'P'
from "models/mlp" import mlp
from "schedules" import dualpipev, v_stages
let pp = stream("pp")
train mlp(tokens(8, 16), targets(), stages=4, dim=32) data bytes("text.txt") optimizer adamw(lr=1e-3)
for s in 0..4 { place {PP: s} on v_stages(2)[s] stream pp }
split {} by MB into 4
order dualpipev(2, 4)
P
    run_pps run v.pps --steps 2 --trace v.json
    expect_status 0 || return 1
    local rank
    for rank in 0 1; do
        grep -E '"cat":"compute","pid":'$rank, v.json |
            sed -n 's/.*"ts":\([0-9.]*\),.*"pass":"\([A-Z]*\)","microbatch":\([0-9]*\),"stage":\([0-9]*\).*/\1 \2\4:\3/p' |
            sort -n | cut -d ' ' -f 2 | tr '\n' ' ' | sed 's/ $//' >traced
        "$PPS" rows dualpipev 2 4 | sed -n "$((rank + 1))p" | tr '|' ' ' | tr -d '\n' >rows
        cmp -s traced rows || { why "rank $rank ran: $(cat traced)" "its row is: $(cat rows)"; return 1; }
    done
}
try "the trace's compute order is the row's" traced_order

saved() {
    run_pps run moe.pps --steps 2 --kernels plain --save saved.safetensors --save-gradients gradients.safetensors --log json
    expect_status 0 || return 1
    local file
    for file in saved gradients; do
        head -c 20000 $file.safetensors | grep -aqF 'model.layers.3.mlp.experts' ||
            { why "$file.safetensors lacks the experts"; return 1; }
    done
    # continuing from a file is the same as having started from it
    sed 's/optimizer/weights "saved.safetensors" optimizer/' moe.pps >from_saved.pps
    sed 's/optimizer/weights "saved.safetensors" optimizer/' alone.pps >alone_from_saved.pps
    run_pps run from_saved.pps --steps 1 --kernels plain --log json
    expect_status 0 && losses "$out" >a || return 1
    run_pps run alone_from_saved.pps --steps 1 --kernels plain --log json
    expect_status 0 && losses "$out" >b || return 1
    near 1e-5 a b
}
try "--save, --save-gradients, and weights from a file" saved

paced() {
    run_pps run moe.pps --steps 2 --backend paced
    expect_status 0
}
try "the paced backend" paced

oracles=$PPS_ROOT/../shared/oracles
# oracle NAME MODEL: every loss of the outside program, on one rank and on four
oracle() {
    local name=$1 script=$2 rows
    sed -n '/"losses"/,/\]/p' "$oracles/$name.json" | tr ',[]' '\n\n\n' | grep -oE '^ *[0-9]+\.[0-9]+ *$' >want
    rows=$(wc -l <want)
    printf '%s\n' "$script" >oracle.pps
    run_pps run oracle.pps --steps "$rows" --kernels plain --log json
    expect_status 0 && losses "$out" >got && near 1e-5 got want || return 1
    {
        printf 'from "schedules" import dualpipev, v_stages\nlet pp = stream("pp")\n%s\n' "$script"
        printf 'for s in 0..4 { place {PP: s} on v_stages(2)[s] stream pp }\nsplit {} by MB into 4\norder dualpipev(2, 4)\n'
    } >oracle.pps
    run_pps run oracle.pps --steps "$rows" --kernels plain --log json
    expect_status 0 && losses "$out" >got && near 1e-5 got want
}
if [ -e "$oracles/gpt2_tiny.bin" ]; then
    cp "$oracles"/*tiny* .
    try "the outside GPT-2" oracle gpt2_tiny 'from "models/gpt2" import gpt2
train gpt2(tokens(8, 32), targets(), stages=4, layers=4, heads=2, dim=48, vocab=250, context=64) data token_file("gpt2_tiny_tokens.bin") weights "gpt2_tiny.bin" optimizer adamw(lr=1e-3, weight_decay=0.1, decay="all")'
    try "the outside Qwen3-MoE" oracle qwen3_moe_tiny 'from "models/qwen3_moe" import qwen3_moe
train qwen3_moe(tokens(8, 32), targets(), stages=4, layers=4, dim=48, heads=4, kv_heads=2, head_dim=16, experts=8, top_k=2, expert_hidden=32, vocab=250, rope_theta=1e6, eps=1e-6, aux_loss=0.0) data token_file("gpt2_tiny_tokens.bin") weights "qwen3_moe_tiny.safetensors" optimizer adamw(lr=1e-3, weight_decay=0.1, decay="all")'
else
    skip "the outside GPT-2" "no shared/oracles beside the checkout"
    skip "the outside Qwen3-MoE" "no shared/oracles beside the checkout"
fi

# Processes of process group $1 that still live, zombies left out.
group_members() {
    local file stat
    for file in /proc/[0-9]*/stat; do
        stat=$(cat "$file" 2>/dev/null) || continue
        # shellcheck disable=SC2086
        set -- "$1" ${stat##*) }
        [ "$4" = "$1" ] && [ "$2" != Z ] && echo "${file//[^0-9]/}"
    done
}
# interrupted TARGET SIGNAL: a long run ends soon, of the signal, with all of its processes
interrupted() {
    local target=$1 signal=$2 pid i
    : >"$out" # what the last run wrote must not look like this one's
    set -m
    "$PPS" run moe.pps --steps 1000000 --log json >"$out" 2>"$err" </dev/null &
    pid=$!
    set +m
    for i in {1..1200}; do
        grep -q '"step":2' "$out" && break
        sleep 0.05
    done
    [ "$(group_members $pid | wc -l)" -ge 5 ] || { why "not running: $(head -n 3 "$err")"; kill -9 -- -$pid; return 1; }
    if [ "$target" = group ]; then kill -"$signal" -- -$pid; else kill -"$signal" $pid; fi
    for i in {1..100}; do
        [ -z "$(group_members $pid)" ] && break
        sleep 0.05
    done
    [ -z "$(group_members $pid)" ] || { why "still there: $(group_members $pid)"; kill -9 -- -$pid; return 1; }
    wait $pid 2>/dev/null
    status=$?
    case $signal in
    INT) [ $status -eq 130 ] || why "status $status" ;;
    *) [ $status -ne 0 ] || why "status 0" ;;
    esac
}
try "Ctrl-C ends every process" interrupted group INT
try "SIGINT to the parent alone ends every process" interrupted parent INT
try "SIGTERM to the parent ends every process" interrupted parent TERM
try "a killed parent takes its ranks along" interrupted parent KILL 2>/dev/null # bash says "Killed"

nothing_left() {
    [ "$(ls /dev/shm 2>/dev/null | grep pps | grep -v pps-test)" = "$shm_before" ] || why "files appeared in /dev/shm"
}
try "nothing left in /dev/shm" nothing_left

finish
