#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# export.sh: what `pps export` makes of what Piper says otherwise, and what it refuses, each at its place in
# the script.
. "$(dirname "$0")/../lib/tap.sh"
cd "$tap_folder" || exit 1

# exports SCRIPT TEXT...: each text is in the file
exports() {
    printf '%s\n' "$1" >script.pps
    run_pps export script.pps --to piper-json
    shift
    expect_status 0 && expect_out "$@"
}
# refused SCRIPT LINE:COLUMN TEXT...
refused() {
    printf '%s\n' "$1" >script.pps
    run_pps export script.pps --to piper-json -o out.json
    [ ! -e out.json ] || { why "something was written"; return 1; }
    local place=$2
    shift 2
    expect_status 1 "--> script.pps:$place" "$@"
}

try "ranges and lists are plain indices" exports 'place {PP: 0..2} on [0]
place {PP: [4, 2]} on [0]
order F(0, 0) -> {PP: 2, MB: 0..2, PASS: F}' \
    '{"op": "place", "filter": {"PP": 0}, "devices": [0]},' '{"op": "place", "filter": {"PP": 1}, "devices": [0]},' \
    '{"op": "place", "filter": {"PP": 2}, "devices": [0]},' '{"op": "place", "filter": {"PP": 4}, "devices": [0]},' \
    '[{"PP": 2, "MB": 0, "PASS": "F"}, {"PP": 2, "MB": 1, "PASS": "F"}]'
try "any index stays" exports 'place {PP: 0} on [0]
shard {EP: *} on [0]' '"filter": {"EP": "*"}'
try "more tags than stage and microbatch" exports 'place {PP: 0} on [0]
order F(0, 1, EP=2) -> {PP: 0, PASS: B}' '[{"PP": 0, "EP": 2, "MB": 1, "PASS": "F"}]' '[{"PP": 0, "PASS": "B"}]'
try "zero 2 and 3, buckets, streams" exports 'let a = stream("a \"b\"")
place {PP: 0} on [0, 1] stream stream("pp")
replicate {PP: 0, EP: 0} on [0, 1] reduce a zero 2 bucket 1.5
replicate {PP: 0, EP: 1} on [0, 1] gather a shard_params true' \
    '"reduce_stream": "a \"b\"", "shard_grads": true, "bucket_size": 1.5}' '"gather_stream": "a \"b\"", "shard_params": true}'
try "replicate before shard" exports 'shard {EP: *} on [0]
replicate {PP: 0} on [0]
place {PP: 0} on [0]' '[
  {"op": "place", "filter": {"PP": 0}, "devices": [0]},
  {"op": "replicate", "filter": {"PP": 0}, "devices": [0]},
  {"op": "shard",'
try "no split is a split into one" exports 'place {PP: 0} on [0]' \
    '{"op": "split", "filter": {}, "dim_name": "MB", "num_microbatches": 1}'
try "a place of everything, with a model" exports 'from "models/mlp" import mlp
train mlp(stages=2)
place {} on [0]' '"filter": {"PP": 0}, "devices": [0]}' '"filter": {"PP": 1}, "devices": [0]}'

try "no such tag" refused 'place {PP: 0} on [0]
shard {PP: 0, EP: -} on [0]' 2:7 E0490 "without the tag EP"
try "no such tag, in a row" refused 'place {PP: 0} on [0]
order F(0, 0) -> {PP: 0, EP: -, PASS: B}' 2:7 E0490
try "zero 1" refused 'place {PP: 0} on [0, 1]
replicate {PP: 0} on [0, 1] zero 1' 2:29 E0490
try "every" refused 'place {PP: 0} on [0, 1]
replicate {PP: 0} on [0, 1] every 2' 2:29 E0490
try "prefetch" refused 'place {PP: 0} on [0, 1]
replicate {PP: 0} on [0, 1] zero 3 prefetch 1' 2:36 E0490
try "recompute" refused 'place {PP: 0} on [0]
recompute {PP: 0}' 2:1 E0490
try "offload" refused 'place {PP: 0} on [0]
offload {PP: 0} to host' 2:1 E0490
try "tensor parallelism" refused 'place {PP: 0} on [0, 1]
shard {TP: *} on [0, 1] as tensor' 2:25 E0490
try "ring attention" refused 'place {PP: 0} on [0, 1]
shard {CP: *} on [0, 1] as sequence' 2:25 E0490
try "capacity" refused 'place {PP: 0} on [0, 1]
shard {EP: *} on [0, 1] capacity 1.25' 2:25 E0490
try "expert groups" refused 'place {PP: 0} on [0, 1, 2, 3]
shard {EP: *} on [[0, 1], [2, 3]]' 2:18 E0490
try "two split dimensions" refused 'place {PP: 0} on [0]
split {} by MB into 2
split {} by SEQ into 2' 3:1 E0490 "the first split"
try "slices of sequences" refused 'place {PP: 0} on [0]
split {} by MB into 2
split {} by SEQ into 2 along sequence' 3:24 E0490 "nothing passes between their parts"
try "a split of several stages" refused 'place {PP: 0..2} on [0]
split {PP: 0..2} by MB into 2' 2:7 E0490 'write `split {}`'
try "a place by microbatch" refused 'place {PP: 0, MB: 0..2} on [0]' 1:7 E0490 "depends on MB"
try "a place by a split tag of another name" refused 'place {PP: 0, PART: 1} on [0]
split {} by PART into 2' 1:7 E0490 "depends on PART"
try "two streams of places" refused 'place {PP: 0} on [0] stream stream("a")
place {PP: 1} on [1] stream stream("b")' 2:1 E0490 "stream 'b'"
try "a transfer in a row" refused 'place {PP: 0} on [0]
order F(0, 0) -> SEND(F(0, 0))' 2:18 E0490
try "a row of one group" refused 'place {PP: 0} on [0]
order F(0, 0) | B(0, 0)' 2:7 E0490
try "a place that names no stage" refused 'place {} on [0]' 1:7 E0490
try "places that repeat each other" refused 'place {PP: 0} on [0]
place {PP: 0..2} on [0]' 2:7 E0475
try "no order on two devices" refused 'place {PP: 0} on [0]
place {PP: 1} on [1]' 1:1 E0491 one_f_one_b
loop_value='for s in 0..2 {
  place {PP: s} on [s, s + 2]
  replicate {PP: s} on [s, s + 2] zero 1
}
order F(0, 0) -> B(0, 0)'
try "a mistake in a loop" refused "$loop_value" 3:35 E0490 "s = 0"

no_place() {
    printf 'split {} by MB into 2\n' >script.pps
    run_pps export script.pps
    expect_status 1 E0491 "place for every stage"
}
try "no place" no_place
no_compile() {
    printf 'from "models/mlp" import mlp\ntrain mlp(stages=2)\nplace {} on [0]\norder F(0, 0) -> B(0, 0)\n' >script.pps
    run_pps export script.pps -o out.json
    expect_status 1 E0509 || return 1
    [ ! -e out.json ] || why "something was written"
}
try "a script that does not compile" no_compile
cannot_write() {
    printf 'place {PP: 0} on [0]\n' >script.pps
    run_pps export script.pps -o no/such/folder.json
    expect_status 3 E0974
}
try "a file that cannot be written" cannot_write

finish
