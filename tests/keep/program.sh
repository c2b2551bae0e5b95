#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# program.sh: recompute and offload as a user meets them: what check, plan and run print, what traces name,
# plan files that run the same.
. "$(dirname "$0")/../lib/tap.sh"
cd "$tap_folder" || exit 1

cat >keep.pps <<'P'
from "models/llama" import llama
from "schedules" import gpipe
let pp, copies = [stream("pp"), stream("copies")]
param keep = true
train llama(tokens(16, 16), targets(), stages=2, layers=4, dim=32, heads=2, kv_heads=1, hidden=48, vocab=64) optimizer sgd(lr=0.1)
split {} by MB into 8
for s in 0..2 { place {PP: s} on [s] stream pp }
if keep {
  offload {PP: 0} to host stream copies
  recompute {PP: 1}
}
order gpipe(2, 8)
P

checks() {
    run_pps check keep.pps
    expect_status 0 && expect_out "least        host" || return 1
    awk '$1 == "0" && $(NF-1) > 0 { zero = 1 } $1 == "1" && $(NF-1) == 0 && $NF == "B" { one = 1 } END { exit !(zero && one) }' "$out" ||
        { why "rank 0 has host memory, rank 1 none:" "$(cat "$out")"; return 1; }
    run_pps check keep.pps --json
    grep -qE '"least":[0-9]+,"host":[1-9][0-9]*\},\{.*"host":0\}\]' "$out" || why "$(cat "$out")"
}
try "check prints host memory of every rank" checks

without() {
    run_pps check keep.pps -D keep=false
    expect_status 0 || return 1
    ! grep -q host "$out" || why "no column where there is nothing in it"
}
try "and says nothing of it where there is none" without

plans() {
    run_pps plan keep.pps
    expect_status 0 && expect_out " host=" "copies     offload BI PP0:0 bytes=" "copies<    fetch BW PP0:7 bytes=" ",host " || return 1
    [ "$(grep -cE 'compute +B PP1:[0-7] .*recompute' "$out")" -eq 8 ] || { why "8 passes recompute"; return 1; }
    run_pps plan keep.pps --format json
    expect_out '"kind": "offload"' '"label": "fetch BI PP0:3"' '"recompute": true' '"host": '
}
try "plan names the copies and what is made again" plans

# field NAME: the list of a run's last line
field() {
    tail -n 1 "$out" | sed -n "s/.*\"$1\":\[\([^]]*\)\].*/\1/p"
}

runs() {
    run_pps run keep.pps --steps 3 --kernels plain --log json -D keep=false
    expect_status 0 || return 1
    hash=$(tail -n 1 "$out" | sed 's/.*"params_sha256":"\([0-9a-f]*\)".*/\1/')
    before=$(field peak_bytes)
    run_pps run keep.pps --steps 3 --kernels plain --log json
    expect_status 0 && expect_out "\"params_sha256\":\"$hash\"" || return 1
    [ "$(field host_bytes)" = "$(field planned_host_bytes)" ] && [ "$(field peak_bytes)" = "$(field planned_bytes)" ] ||
        { why "memory is not as planned: $(tail -n 1 "$out")"; return 1; }
    echo "$before,$(field peak_bytes)" | awk -F, '{ exit !($3 < $1 && $4 < $2) }' ||
        { why "peaks $before, then $(field peak_bytes)"; return 1; }
    tail -n 1 "$out" | grep -qE '"offload":([0-9]+),"fetch":\1' || why "what is copied out comes back: $(tail -n 1 "$out")"
}
try "a run has the same bits in less memory" runs

files() {
    run_pps plan keep.pps -o keep.plan && run_pps plan keep.pps -o keep.txt
    expect_status 0 || return 1
    for plan in keep.plan keep.txt; do
        run_pps run $plan --steps 3 --kernels plain --log json
        expect_status 0 && expect_out "\"params_sha256\":\"$hash\"" || return 1
    done
    run_pps plan keep.txt -o again.plan
    cmp -s keep.plan again.plan || why "binary and text differ"
}
try "plan files hold it all" files

traces() {
    local label
    for backend in cpu paced; do
        run_pps run keep.pps --backend $backend --steps 1 --trace trace.json
        expect_status 0 || return 1
        for label in "offload BI PP0:2" "fetch BW PP0:5" "copies<"; do
            grep -qF "\"$label\"" trace.json || { why "the trace of $backend lacks $label"; return 1; }
        done
        [ "$(grep -c '"cat":"offload","pid":0,.*"microbatch":[0-7],.*"bytes":[1-9]' trace.json)" -eq 16 ] ||
            { why "16 copies with bytes and microbatch"; return 1; }
    done
}
try "traces name the copies" traces

profiles() {
    run_pps run keep.pps --steps 2 --kernels plain --profile costs.json
    expect_status 0 || return 1
    run_pps check keep.pps -D keep=false --costs costs.json
    expect_status 0 || return 1
    ! grep -qE '[[, ] *-[0-9]' costs.json || why "a negative cost: $(cat costs.json)"
}
try "measured costs are without what runs again" profiles

finish
