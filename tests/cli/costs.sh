#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# costs.sh: measured costs: a run writes them, later compilations overlap by them.
. "$(dirname "$0")/../lib/tap.sh"
cd "$tap_folder" || exit 1

cat >moe.pps <<'P'
from "models/qwen3_moe" import qwen3_moe
from "schedules" import dualpipev, v_stages
let pp, dp, ep = [stream("pp"), stream("dp"), stream("ep")]
train qwen3_moe(tokens(16, 16), targets(), stages=4, layers=4, dim=32, heads=2, kv_heads=1, head_dim=16,
                experts=4, top_k=2, expert_hidden=32) optimizer sgd(lr=0.1)
for s in 0..4 {
  place     {PP: s}        on v_stages(2, dp=2)[s] stream pp
  replicate {PP: s}        on v_stages(2, dp=2)[s] reduce dp
  shard     {PP: s, EP: *} on v_stages(2, dp=2)[s] stream ep
}
split {} by MB into 8
order dualpipev(2, 8)
P

profile() {
    run_pps run moe.pps --steps 2 --profile costs.json
    expect_status 0 || return 1
    grep -q '"PP3.EP3"' costs.json && grep -q '"bytes_per_second"' costs.json || why "no costs:" "$(cat costs.json)"
}
try "a run writes what its steps took" profile

# Of computes that all take a millisecond: exchanges of a microsecond can hide under them, ones of a second cannot.
by_costs() {
    local hidden
    sed -E 's/^( +)[0-9.e-]+(,?)$/\10.001\2/; s/"latency": [^,]*/"latency": '"$1"'/
            s/"bytes_per_second": .*/"bytes_per_second": 1e12/' costs.json >mine.json
    run_pps check moe.pps --costs mine.json --json
    expect_status 0 || return 1
    hidden=$(sed -E 's/.*"hidden_exchange":([0-9.e-]+).*/\1/' "$out")
    awk -v h="$hidden" "BEGIN { exit !(h $2) }" || why "hidden: $hidden, not $2"
}
short_ones() { by_costs 1e-6 '> 0.3'; }
long_ones() { by_costs 1 '< 0.05'; }
try "short exchanges are under compute" short_ones
try "long ones are not" long_ones

says() {
    run_pps check moe.pps --costs costs.json
    expect_status 0 || return 1
    grep -q '% of the exchanges in overlapped groups are under compute (measured costs)' "$out" || why "$(cat "$out")"
}
try "check says how much" says

refused() {
    run_pps check "$1" --costs "$2"
    expect_status "$3" "$4"
}
other_model() {
    sed 's/stages=4, layers=4/stages=2, layers=2/; s/0\.\.4/0..2/; s/v_stages(2, dp=2)\[s\]/[0, 1]/; /^order/d' moe.pps >two.pps
    refused two.pps costs.json 1 E0526
}
broken() {
    head -c 100 costs.json >cut.json
    refused moe.pps cut.json 1 E0979 || return 1
    sed 's/"pps_costs": 1/"pps_costs": 2/' costs.json >newer.json
    refused moe.pps newer.json 1 "newer version" || return 1
    sed 's/"seconds": \[/"seconds": [-1, /' costs.json >negative.json
    refused moe.pps negative.json 1 "three numbers" || return 1
    refused moe.pps nowhere.json 1 E0979
}
settled() {
    run_pps plan moe.pps -o moe.plan && refused moe.plan costs.json 1 E0976
}
try "costs of another model" other_model
try "costs that cannot be read" broken
try "a plan file is settled" settled
finish
