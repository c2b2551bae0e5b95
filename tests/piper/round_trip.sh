#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# round_trip.sh: Piper's files become scripts and the same files again; a script's schedule survives the way
# through Piper's file to the byte of its plans.
. "$(dirname "$0")/../lib/tap.sh"
files=$(cd "$(dirname "$0")" && pwd)
cd "$tap_folder" || exit 1

# is_same FILE FILE
is_same() {
    cmp -s "$1" "$2" || why "$1 and $2 differ:" "$(diff "$1" "$2" | head -n 6 | cut -c 1-120 | sed 's/^/# /')"
}

there_and_back() {
    run_pps import "$files/$1" --from piper-json -o imported.pps
    expect_status 0 || return 1
    run_pps export imported.pps --to piper-json -o exported.json
    expect_status 0 && is_same "$files/$1" exported.json
}
for file in two_stage one_f_one_b dualpipev; do
    try "$file.json is the same after import and export" there_and_back $file.json
done

# The rows of a script are those of the stdlib's builder.
rows_of() {
    local want=$1
    shift
    "$PPS" rows "$@" >want.rows
    # as ops of a script: F(0, 1) | B(3, 0) for F0:1|B3:0
    sed 's/|/ | /g; s/\([A-Z]\)\([0-9]*\):\([0-9]*\)/\1(\2, \3)/g; s/) \([A-Z]\)/) -> \1/g' want.rows >want.text
    run_pps import "$files/$want"
    sed -n '/^order/,$p' "$out" | tr '\n' ' ' | sed 's/  */ /g; s/ order /\norder /g; s/order //g; s/ $/\n/' >got.text
    is_same want.text got.text
}
try "Piper's 1F1B rows are the stdlib's" rows_of one_f_one_b.json 1f1b 2 4
try "Piper's DualPipeV rows are the stdlib's" rows_of dualpipev.json dualpipev 2 4

# write_script STAGES REPLICAS MICROBATCHES ROWS DEVICES MODEL
write_script() {
    local stages=$1 dp=$2 mbs=$3 rows=$4 devices=$5 model=$6
    {
        echo 'from "models/mlp" import mlp'
        echo 'from "models/qwen3_moe" import qwen3_moe'
        echo 'import "schedules" as schedules'
        echo 'let pp = stream("pp")'
        echo 'let dp = stream("dp")'
        echo 'let ep = stream("ep")'
        echo "train $model"
        echo "let devices = schedules.$devices"
        echo "for s in 0..$stages {"
        echo '  place {PP: s} on devices[s] stream pp'
        [ "$dp" -eq 1 ] || echo '  replicate {PP: s} on devices[s] reduce dp bucket 1'
        [ "$dp" -eq 1 ] || [ "${model#qwen}" = "$model" ] || echo '  shard {PP: s, EP: *} on devices[s] stream ep'
        echo '}'
        echo "split {} by MB into $mbs"
        echo "order schedules.$rows"
    } >script.pps
}

# The same arguments.
plans_survive() {
    local model=$6
    write_script "$@"
    run_pps plan script.pps
    expect_status 0 || return 1
    cp "$out" script.plan
    run_pps export script.pps -o through.json
    expect_status 0 || return 1
    run_pps import through.json --model "$model" -o back.pps
    expect_status 0 || return 1
    run_pps plan back.pps
    expect_status 0 || return 1
    is_same script.plan "$out" || return 1
    run_pps export back.pps
    expect_status 0 && is_same through.json "$out"
}
try "gpipe" plans_survive 2 1 4 'gpipe(2, 4)' 'loop_stages(2)' 'mlp(stages=2)'
try "1F1B, two replicas" plans_survive 2 2 4 'one_f_one_b(2, 4)' 'loop_stages(2, dp=2)' 'mlp(stages=2)'
try "interleaved 1F1B" plans_survive 4 1 4 'interleaved_1f1b(2, 4)' 'loop_stages(2, 2)' 'mlp(stages=4)'
try "zero bubble" plans_survive 3 1 5 'zerobubble(3, 5)' 'loop_stages(3)' 'mlp(tokens(10, 8), targets(), stages=3)'
try "DualPipeV, two replicas, experts sharded" plans_survive 4 2 4 'dualpipev(2, 4)' 'v_stages(2, 2)' \
    'qwen3_moe(tokens(16, 16), targets(), stages=4)'

clauses() {
    run_pps import "$files/two_stage.json" --model 'qwen3_moe(stages=2) optimizer adamw(lr=1e-3) seed 7' -o trained.pps
    expect_status 0 || return 1
    grep -qx 'train qwen3_moe(stages=2) optimizer adamw(lr=1e-3) seed 7' trained.pps &&
        grep -qx 'from "models/qwen3_moe" import qwen3_moe' trained.pps || why "$(head -n 12 trained.pps)"
}
try "clauses of train may follow the model" clauses

# All fields that Piper has.
cat >fields.json <<'EOF'
[
  {"op": "place", "filter": {"PP": 0}, "devices": [0, 1], "stream": "a \"b\" é"},
  {"op": "replicate", "filter": {"PP": 0, "EP": 3}, "devices": [1, 0], "reduce_stream": "for", "gather_stream": "2nd", "shard_grads": true, "bucket_size": 25},
  {"op": "replicate", "filter": {"PP": 0, "EP": 4}, "devices": [1, 0], "shard_params": true, "bucket_size": 0.1},
  {"op": "shard", "filter": {"PP": 0, "EP": "*"}, "devices": [1, 0], "stream": "s"},
  {"op": "split", "filter": {"PP": "*"}, "dim_name": "BATCH", "num_microbatches": 3},
  {"op": "order", "filters": [
    [{"PP": 0, "BATCH": 1, "PASS": "F"}, {"EP": 1, "PASS": "B"}],
    [{"PP": "*", "MB": "*", "PASS": "BW"}],
    [{"PP": 0, "EP": 2, "MB": 1, "PASS": "BI"}]
  ]}
]
EOF
all_fields() {
    files=. there_and_back fields.json
}
try "all fields" all_fields

# A row too long for a chain of `->` is written as a list.
long_row() {
    printf 'place {PP: 0} on [0]\nsplit {} by MB into 20000\norder [F(0, m) for m in 0..20000] + [B(0, m) for m in 0..20000]\n' >long.pps
    run_pps export long.pps -o long.json
    expect_status 0 || return 1
    files=. there_and_back long.json
}
try "a row of 40000 groups" long_row

finish
