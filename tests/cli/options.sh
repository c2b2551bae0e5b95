#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# options.sh: the command line: help, exit statuses, spelling of options, and JSON that has what it must.
. "$(dirname "$0")/../lib/tap.sh"
cd "$tap_folder" || exit 1

cat >two.pps <<'P'
from "models/mlp" import mlp
from "schedules" import one_f_one_b
param mbs = 4
let pp = stream("pp")
train mlp(tokens(24, 16), targets(), stages=2, layers=2, dim=16) optimizer adamw(lr=1e-3)
for s in 0..2 { place {PP: s} on [s] stream pp }
split {} by MB into mbs
order one_f_one_b(2, mbs)
P

usage() {
    run_pps "$@"
    expect_status 2
}
no_arguments() {
    run_pps
    expect_status 2 "usage:" "pps run"
}
try "no arguments: help, status 2" no_arguments
try "an unknown command" usage chek two.pps
unknown() {
    run_pps chek two.pps
    expect_status 2 "did you mean 'check'" || return 1
    run_pps run two.pps --stesp 3
    expect_status 2 "did you mean '--steps'"
}
try "did you mean" unknown
try "a missing script" usage run
try "a second script" usage check two.pps two.pps
try "an option without its value" usage run two.pps --steps
try "a number that is none" usage run two.pps --steps many
try "no steps at all" usage run two.pps --steps 0
try "a choice that is none" usage run two.pps --backend=tpu
try "-D without a value" usage check two.pps -D mbs
try "a flag with a value" usage check two.pps --json=1
try "an unknown stage" usage dump two.pps --stage nothing
try "an unknown picture" usage view two.pps -o out.gif

help() {
    local command
    run_pps --help
    expect_status 0 && expect_out "usage:" || return 1
    run_pps --version
    expect_status 0 && grep -qE '^pps [0-9]+\.[0-9]+\.[0-9]+$' "$out" || { why "no version"; return 1; }
    for command in run check rows plan dump view; do
        run_pps $command --help
        expect_status 0 && expect_out "example:" "pps $command" "--max-steps" || return 1
        run_pps help $command
        expect_status 0 && expect_out "example:" || return 1
    done
}
try "help" help

parameters() {
    local spelling
    run_pps rows 1f1b 2 6
    cp "$out" rows
    for spelling in "-D mbs=6" "-Dmbs=6"; do
        # shellcheck disable=SC2086
        run_pps check two.pps $spelling --json
        expect_status 0 || return 1
        [ "$(json_field plan_steps)" != "" ] || { why "no plan_steps"; return 1; }
    done
}
json_field() {
    sed -n "s/.*\"$1\":\(\[[^]]*\]\|{[^}]*}\|[^,}]*\).*/\1/p" "$out"
}
try "script parameters" parameters

check_json() {
    local field
    run_pps check two.pps --json
    expect_status 0 || return 1
    [ "$(wc -l <"$out")" -eq 1 ] || { why "one object is one line"; return 1; }
    for field in ranks nodes edges plan_steps peak_bytes memory bubble compile_ms settings; do
        [ -n "$(json_field $field)" ] || { why "no $field"; return 1; }
    done
    [ "$(json_field ranks)" = 2 ] || { why "ranks: $(json_field ranks)"; return 1; }
    grep -q '"bubble":0.2,' "$out" || why "bubble: $(json_field bubble)"
}
try "check --json" check_json

ranks() {
    run_pps check two.pps -n 2
    expect_status 0 || return 1
    run_pps check two.pps -n3
    expect_status 1 "3 ranks" "two.pps:6" " 5 | train"
}
try "-n must be what the script places" ranks

plan_forms() {
    run_pps plan two.pps
    expect_status 0 && cp "$out" all || return 1
    run_pps plan two.pps --rank 1
    expect_status 0 || return 1
    [ "$(wc -l <"$out")" -lt "$(wc -l <all)" ] || { why "--rank 1 prints as much as all"; return 1; }
    run_pps plan two.pps --rank 2
    expect_status 1 "rank 2" || return 1
    run_pps plan two.pps --format json
    expect_status 0 && cp "$out" json && expect_out '"steps"' '"waits"' || return 1
    run_pps plan two.pps --json
    cmp -s "$out" json || { why "--json is not --format json"; return 1; }
    run_pps plan two.pps --format=dot
    expect_status 0 && expect_out "digraph" "style=dashed"
}
try "plan as text, JSON and dot" plan_forms

dump_stages() {
    local stage
    run_pps dump two.pps --stage list
    expect_status 0 && cp "$out" stages || return 1
    while read -r stage; do
        run_pps dump two.pps --stage "$stage"
        expect_status 0 || return 1
        [ -s "$out" ] || { why "stage $stage prints nothing"; return 1; }
    done <stages
    run_pps dump two.pps
    expect_status 2 "graph"
}
try "every stage of dump" dump_stages

views() {
    run_pps view two.pps
    expect_status 0 && expect_out "rank 0" "F0" || return 1
    grep -q $'\033' "$out" && { why "colours without a terminal"; return 1; }
    run_pps view two.pps -o two.svg
    expect_status 0 && grep -q "<svg" two.svg || { why "no svg"; return 1; }
    run_pps view two.pps -o two.json
    expect_status 0 && grep -q "traceEvents" two.json || { why "no trace"; return 1; }
    run_pps view two.pps -o no/such/folder/two.svg
    expect_status 3 "no/such/folder"
}
try "views" views

stdlib_elsewhere() {
    cp -r "$PPS_ROOT/stdlib" mine
    echo 'fn mine() => [F(0, 0) -> B(0, 0)]' >>mine/schedules.pps
    PPS_STDLIB=$PWD/mine run_pps rows 'mine()'
    expect_status 0 && expect_out "F0:0 B0:0"
}
try "PPS_STDLIB" stdlib_elsewhere

write_error() {
    [ -e /dev/full ] || return 0
    timeout 20 "$PPS" rows 1f1b 2 4 >/dev/full 2>"$err"
    status=$?
    expect_status 3 "write"
}
try "a full disk" write_error

finish
