#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# planfile.sh: plan files as a user meets them: they stand for their script in every command, run to the same
# bits on a machine that has neither script nor stdlib, and are refused with a clear message when something
# is wrong with them.
. "$(dirname "$0")/../lib/tap.sh"
cd "$tap_folder" || exit 1
cp "$PPS_ROOT/stdlib/schedules.pps" text.txt

cat >moe.pps <<'P'
from "models/qwen3_moe" import qwen3_moe
from "schedules" import dualpipev, v_stages
param mbs = 4
let pp, dp, ep = [stream("pp"), stream("dp"), stream("ep")]
train qwen3_moe(tokens(16, 16), targets(), stages=4, layers=4, dim=32, heads=2, kv_heads=1, head_dim=16,
                experts=4, top_k=2, expert_hidden=32) data bytes("text.txt") optimizer adamw(lr=3e-3)
for s in 0..4 {
  place     {PP: s}        on v_stages(2, dp=2)[s] stream pp
  replicate {PP: s}        on v_stages(2, dp=2)[s] reduce dp
  shard     {PP: s, EP: *} on v_stages(2, dp=2)[s] stream ep
}
split {} by MB into mbs
order dualpipev(2, mbs)
P
cat >mlp.pps <<'P'
from "models/mlp" import mlp
from "schedules" import one_f_one_b
let pp = stream("pp")
train mlp(tokens(24, 16), targets(), stages=2, layers=2, dim=16) optimizer sgd(lr=0.1, momentum=0.9)
for s in 0..2 { place {PP: s} on [s] stream pp }
split {} by MB into 4
order one_f_one_b(2, 4)
P
cat >gpt2.pps <<'P'
from "models/gpt2" import gpt2
train gpt2(tokens(8, 32), targets(), stages=1, layers=2, heads=2, dim=48, context=64) data bytes(["text.txt", "text.txt"]) optimizer adamw(lr=1e-3)
P

writes() {
    local name
    for name in moe mlp gpt2; do
        run_pps plan $name.pps -o $name.plan
        expect_status 0 && [ ! -s "$out" ] || { why "-o also prints"; return 1; }
        run_pps plan $name.pps -o $name.plan.txt
        expect_status 0 || return 1
        run_pps plan $name.pps --format file-text
        expect_status 0 && cmp -s "$out" $name.plan.txt || { why "file-text is not what -o writes"; return 1; }
    done
    [ "$(head -n 1 moe.plan.txt)" = "pps-plan 1" ] || why "first line: $(head -n 1 moe.plan.txt)"
}
try "pps plan -o" writes

converts() {
    local name
    for name in moe mlp gpt2; do
        "$PPS" plan $name.plan -o a.plan && cmp a.plan $name.plan || { why "$name: binary again"; return 1; }
        "$PPS" plan $name.plan.txt -o a.plan && cmp a.plan $name.plan || { why "$name: from text"; return 1; }
        "$PPS" plan $name.plan -o a.plan.txt && cmp a.plan.txt $name.plan.txt || { why "$name: to text"; return 1; }
    done
}
try "either form to the other, byte for byte" converts

# The last line of a log without what depends on the clock, and the losses.
numbers() {
    sed -n 's/.*"loss":\([-0-9.e+]*\),"aux_loss":\([-0-9.e+]*\),.*/\1 \2/p; s/.*"params_sha256":"\([0-9a-f]*\)".*/\1/p' "$1"
}
runs_equally() {
    local name file
    for name in moe mlp gpt2; do
        mkdir -p far
        cp $name.plan far/a_plan # the name says nothing
        cp $name.plan.txt far/words
        cp text.txt far
        run_pps run $name.pps --steps 5 --kernels plain --log json
        expect_status 0 && numbers "$out" >want || return 1
        [ "$(tail -n 1 want | wc -c)" -eq 65 ] || { why "no hash"; return 1; }
        for file in a_plan words; do
            PPS_STDLIB=/nonexistent run_pps run far/$file --steps 5 --kernels plain --log json "$@"
            expect_status 0 && numbers "$out" | cmp -s - want || { why "$name: $file gives other numbers"; return 1; }
        done
    done
}
try "running a plan file gives the script's bits" runs_equally
try "also on threads" runs_equally --ranks threads

reads() {
    local command
    for command in "check --json" "plan" "plan --json" "plan --format dot" "plan --rank 1" "view"; do
        # shellcheck disable=SC2086
        run_pps ${command%% *} moe.pps ${command#"${command%% *}"}
        expect_status 0 && sed 's/"compile_ms":[0-9.e-]*//' "$out" >want || return 1
        # shellcheck disable=SC2086
        run_pps ${command%% *} moe.plan ${command#"${command%% *}"}
        expect_status 0 && sed 's/"compile_ms":[0-9.e-]*//' "$out" | cmp -s - want ||
            { why "pps $command says something else"; return 1; }
    done
    run_pps view mlp.plan -o mlp.svg
    expect_status 0 && grep -q "<svg" mlp.svg || { why "no svg"; return 1; }
    run_pps run moe.plan --steps 2 --trace trace.json
    expect_status 0 && grep -qF '"place":"moe.pps:' trace.json || { why "a trace without places"; return 1; }
    run_pps run moe.plan --steps 1 --backend paced
    expect_status 0
}
try "check, plan, view, traces and the paced backend take plan files" reads

places() {
    mkdir -p bare
    cp moe.plan bare
    run_pps run bare/moe.plan --steps 1
    expect_status 1 "error[E0901]" "--> moe.pps:6:" || return 1
    ! grep -q '^ *6 |' "$err" || why "it shows a line that it does not have"
}
try "messages name the script's places" places

options() {
    run_pps run moe.plan -D mbs=8
    expect_status 1 "E0976" "every parameter" || return 1
    run_pps check moe.plan --streams 1
    expect_status 1 "E0976" "streams" || return 1
    run_pps check moe.plan -n 4
    expect_status 0 || return 1
    run_pps check moe.plan -n 3
    expect_status 1 "3 ranks" "plan file has 4" || return 1
    run_pps plan moe.plan --rank 4
    expect_status 1 "plan file has ranks 0 to 3" || return 1
    run_pps dump moe.plan --stage graph
    expect_status 1 "E0975" || return 1
    run_pps plan moe.pps -o a.plan --rank 0
    expect_status 2 || return 1
    run_pps plan moe.pps -o a.plan --format dot
    expect_status 2 || return 1
    run_pps plan moe.pps -o no/such/folder/a.plan
    expect_status 3 "no/such/folder" || return 1
    [ -z "$(ls -- *.tmp 2>/dev/null)" ] || why "a temporary file stays"
}
try "options that a plan file cannot honour" options

# with BYTE OFFSET FILE: a copy whose byte there has another value
with() {
    cp moe.plan damaged.plan
    printf "$1" | dd of=damaged.plan bs=1 seek="$2" conv=notrunc 2>/dev/null
}
damaged() {
    local n size
    size=$(wc -c <moe.plan)
    for n in 10 100 1000 $((size - 1)); do
        head -c $n moe.plan >cut.plan
        run_pps run cut.plan
        expect_status 1 "E1102" "'cut.plan' is cut off" || return 1
    done
    { cat moe.plan; echo; } >long.plan
    run_pps check long.plan
    expect_status 1 "E1102" "goes on" || return 1
    with '\377' 5000
    run_pps run damaged.plan
    expect_status 1 "E1103" "section" "checksum" || return 1
    with '\002' 8
    run_pps view damaged.plan
    expect_status 1 "E1103" "header" || return 1
    sed 's/^pps-plan 1/pps-plan 2/' moe.plan.txt >newer.plan.txt
    run_pps run newer.plan.txt
    expect_status 1 "E1104" "version 2" "newer" "--> newer.plan.txt:1:" || return 1
    sed 's/ n_mb=4/ n_mb=5/' moe.plan.txt >changed.plan.txt
    run_pps run changed.plan.txt
    expect_status 1 "E1103" || return 1
    sed 's/ crc=.*/ crc=-/' changed.plan.txt >changed2.plan.txt
    run_pps run changed2.plan.txt
    expect_status 1 "E1106" || return 1
    sed 's/ crc=.*/ crc=-/; s/^step kind=send/step kind=sent/' moe.plan.txt >word.plan.txt
    run_pps run word.plan.txt
    expect_status 1 "E1105" "'kind'" "--> word.plan.txt:" || return 1
    run_pps run moe.plan.txt --diagnostics json
    expect_status 0
}
try "damaged, changed and newer files are refused" damaged

# Every step alike, and yet no plan: the proofs still hold over what a file says.
proved() {
    # the first receive of rank 0 before everything that makes its partner send
    awk '/^step kind=recv/ && !done { sub(/ seq=[0-9]+/, " seq=1"); done = 1 } { sub(/ crc=.*/, " crc=-"); print }' \
        mlp.plan.txt >mixed.plan.txt
    run_pps run mixed.plan.txt --steps 1
    expect_status 1 "E05" || return 1
    awk '/^wait step=/ && !done { print "wait step=16"; done = 1; next } { sub(/ crc=.*/, " crc=-"); print }' \
        mlp.plan.txt >late.plan.txt
    run_pps check late.plan.txt
    expect_status 1 "E05"
}
try "a file's plans are proved before they run" proved

finish
