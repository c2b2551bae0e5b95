#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# batch.sh: how large a batch the levels of ZeRO allow with a pipeline: the worst rank's planned peak of the
# preset qwen3-moe-1b under 1F1B, for PP 2, 4 and 8, DP 2 and 4, zero 0 to 3 and growing microbatches. Nothing
# runs: these are the bytes that plans ask for. Prints the table of passes/README.md.
#
#   tests/bench/batch.sh [PPS]        PPS: the program, build/runtime/cli/pps by default
#
# A row is a sequence of 256 tokens; a batch is DP x 2 PP microbatches of the rows that a column says. Stages
# have layers such that those with the embedding and the output, 155M parameters each, need no more than others.
# The last columns: with the bytes that zero 0 needs for 1, 2 and 4 rows, how many times as many rows fit.
set -euo pipefail
pps=${1:-$(dirname "$0")/../../build/runtime/cli/pps}
command -v "$pps" >/dev/null || { echo "batch.sh: no program $pps; name it: tests/bench/batch.sh PPS" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/batch.pps" <<'SCRIPT'
from "models/qwen3_moe" import qwen3_moe
from "schedules" import one_f_one_b, loop_stages
param alone = false
param R = 4
param D = 2
param rows = 1
param zero = 0
let layers = {2: [8, 8], 4: [2, 6, 6, 2], 8: [0, 3, 3, 3, 3, 2, 2, 0]}[R]
let M = 2 * R
let pp, dp, ga = [stream("pp"), stream("dp"), stream("ga")]
train qwen3_moe(tokens(D * M * rows, 256), targets(), preset="qwen3-moe-1b", stages=if alone then 1 else R,
                layers=if alone then 16 else layers) optimizer adamw(lr=1e-3)
if not alone {
  let at = loop_stages(R, dp=D)
  for s in 0..R {
    place {PP: s} on at[s] stream pp
    if zero == 0 { replicate {PP: s} on at[s] reduce dp bucket 25 }
    if zero == 1 or zero == 2 { replicate {PP: s} on at[s] reduce dp gather ga zero zero bucket 25 }
    if zero == 3 { replicate {PP: s} on at[s] reduce dp gather ga zero 3 prefetch 0 bucket 25 }
  }
  split {} by MB into M
  order one_f_one_b(R, M)
}
SCRIPT

# peak R D ZERO ROWS: bytes of the worst rank
peak() {
    "$pps" check "$folder/batch.pps" --json -D "R=$1" -D "D=$2" -D "zero=$3" -D "rows=$4" |
        sed 's/.*"peak_bytes":\[\([0-9,]*\)\].*/\1/' | tr ',' '\n' | sort -n | tail -n 1
}

# rows_within BYTES R D ZERO: the most rows that need no more; peaks grow with rows
rows_within() {
    local low=0 high=1 middle
    while [ "$(peak "$2" "$3" "$4" $high)" -le "$1" ]; do
        low=$high
        high=$((2 * high))
    done
    while [ $((high - low)) -gt 1 ]; do
        middle=$(((low + high) / 2))
        if [ "$(peak "$2" "$3" "$4" $middle)" -le "$1" ]; then low=$middle; else high=$middle; fi
    done
    echo $low
}

gib() { awk -v bytes="$1" 'BEGIN { printf "%.2f", bytes / 2 ^ 30 }'; }

"$pps" check "$folder/batch.pps" --json -D alone=true |
    sed 's/.*"parameters":\([0-9]*\).*/\1/' | awk '{ printf "%.3f billion parameters\n\n", $1 / 4e9 }'
echo "| PP | DP | zero | 1 row | 2 | 4 | 8 | 16 | as zero 0 with 1 | with 2 | with 4 |"
echo "|---|---|---|---|---|---|---|---|---|---|---|"
for R in 2 4 8; do
    for D in 2 4; do
        for zero in 0 1 2 3; do
            line="| $R | $D | $zero |"
            for rows in 1 2 4 8 16; do line+=" $(gib "$(peak $R $D $zero $rows)") |"; done
            for rows in 1 2 4; do
                fit=$(rows_within "$(peak $R $D 0 $rows)" $R $D $zero)
                line+=" $(awk -v a="$fit" -v b=$rows 'BEGIN { printf "%.4gx", a / b }') |"
            done
            echo "$line"
        done
    done
done
