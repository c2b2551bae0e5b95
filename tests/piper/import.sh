#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# import.sh: what `pps import` says about Piper's files: quirks are taken with a note, silent mistakes and
# broken JSON are refused at their line and column.
. "$(dirname "$0")/../lib/tap.sh"
cd "$tap_folder" || exit 1

place='{"op": "place", "filter": {"PP": 0}, "devices": [0], "stream": "pp"}'

# imports JSON: the text of out.pps in $out
imports() {
    printf '%s\n' "$1" >file.json
    run_pps import file.json --from piper-json
    shift
    expect_status 0 "$@"
}
# refused JSON LINE:COLUMN TEXT...
refused() {
    printf '%s\n' "$1" >file.json
    run_pps import file.json
    [ ! -s "$out" ] || { why "something was written"; return 1; }
    local place=$2
    shift 2
    expect_status 1 "--> file.json:$place" "$@"
}

quirk() {
    local want=$1
    shift
    imports "$@" && expect_out "$want"
}
try "an index as a string" quirk 'place {PP: 1} on [2]' \
    '[{"op": "place", "filter": {"PP": "1"}, "devices": [2]}]' "note: an index written as a string"
try "any index" quirk 'place {PP: 1, EP: *} on [2]' '[{"op": "place", "filter": {"EP": "*", "PP": 1}, "devices": [2]}]'
try "device for devices, as a list" quirk 'place {PP: 0} on [3, 4]' \
    '[{"op": "place", "filter": {"PP": 0}, "device": [3, 4]}]' 'note: `device` is read as `devices`'
try "device for devices, as a number" quirk 'place {PP: 0} on [3]' '[{"op": "place", "filter": {"PP": 0}, "device": 3}]'
try "null fields are not given" quirk 'replicate {} on [0, 1]' \
    '[{"op": "replicate", "filter": {}, "devices": [0, 1], "bucket_size": null, "gather_stream": null}]'
try "unknown fields are told" quirk 'place {PP: 0} on [0]' \
    '[{"op": "place", "filter": {"PP": 0}, "devices": [0], "colour": 3}]' "note: \`place\` has no field 'colour'"
try "a fraction of a megabyte" quirk 'replicate {} on [0, 1] zero 2 bucket 12.5' \
    '[{"op": "replicate", "filter": {}, "devices": [0, 1], "bucket_size": 12.5, "shard_grads": true}]' "2^20 bytes"
try "both ways of sharding are zero 3" quirk 'replicate {} on [0, 1] zero 3' \
    '[{"op": "replicate", "filter": {}, "devices": [0, 1], "shard_params": true, "shard_grads": true}]'
try "a fork's prefetch_distance" quirk 'zero 3 prefetch 2' \
    '[{"op": "replicate", "filter": {}, "devices": [0, 1], "shard_params": true, "prefetch_distance": 2, "regather": true}]' \
    "\`prefetch_distance\` is a fork's"
try "streams are named, how often too" quirk 'let pp = stream("pp")' "[$place]" "pp (1)"
try "Piper's compute stream" quirk 'let default_stream = stream("default_stream")' \
    '[{"op": "place", "filter": {"PP": 0}, "devices": [0], "stream": "default_stream"}]' "is where Piper computes"
try "a stream named like a word of the language" quirk 'let for_2 = stream("for")' \
    '[{"op": "place", "filter": {"PP": 0}, "devices": [0], "stream": "for"}]'
try "an empty list" imports '[]'
try "a file that begins with a byte order mark" imports "$(printf '\xef\xbb\xbf')[$place]"

loop='let devices = [[0], [1]]    # devices[stage]
for s in 0..2 {
  place {PP: s} on devices[s] stream pp
  replicate {PP: s} on devices[s]
}
shard {PP: 1} on [1]'
looped() {
    imports "[$place, ${place//0/1}, "'{"op": "shard", "filter": {"PP": 1}, "devices": [1]},
        {"op": "replicate", "filter": {"PP": 0}, "devices": [0]},
        {"op": "replicate", "filter": {"PP": 1}, "devices": [1]}]' || return 1
    [ "$(sed -n '/^let dev/,/^shard/p' "$out")" = "$loop" ] || why "$(cat "$out")"
}
try "regular directives share a loop" looped

try "a place that an earlier one covers" refused "[$place,
{\"op\": \"place\", \"filter\": {\"PP\": \"*\"}, \"devices\": [1], \"stream\": \"pp\"}]" 2:27 E0475 "silently win"
try "replicate twice" refused '[{"op": "replicate", "filter": {"PP": 0}, "devices": [0, 1]},
{"op": "replicate", "filter": {"PP": 0, "EP": "*"}, "devices": [0, 1]}]' 2:31 E0475 "reduced twice"
try "places on two streams" refused "[$place,
{\"op\": \"place\", \"filter\": {\"PP\": 1}, \"devices\": [1], \"stream\": \"pq\"}]" 2:1 E0475 "'pp' and 'pq'"
try "the same dimension twice" refused '[{"op": "split", "filter": {"PP": 0}, "dim_name": "MB", "num_microbatches": 2},
 {"op": "split", "filter": {"PP": 1}, "dim_name": "MB", "num_microbatches": 2}]' 2:28 E0475
try "null as an index" refused '[{"op": "place", "filter": {"PP": null}, "devices": [0]}]' 1:35 E0473 "PP: -"
try "a dash as an index" refused '[{"op": "place", "filter": {"PP": "-"}, "devices": [0]}]' 1:35 E0473 "matches nothing"
try "a word as an index" refused '[{"op": "place", "filter": {"PP": "x"}, "devices": [0]}]' 1:35 E0473
try "a fraction as an index" refused '[{"op": "place", "filter": {"PP": 1.5}, "devices": [0]}]' 1:35 E0472
try "a tag that no script can have" refused '[{"op": "place", "filter": {"P P": 1}, "devices": [0]}]' 1:29 E0472
try "an update as a pass" refused '[{"op": "order", "filters": [[{"PP": 0, "MB": 0, "PASS": "UPD"}], []]}]' 1:58 E0472 "updates run last"
try "a pass that is any" refused '[{"op": "order", "filters": [[{"PP": 0, "MB": 0, "PASS": "*"}], []]}]' 1:58 E0472
try "a row's filter without a pass" refused '[{"op": "order", "filters": [[{"PP": 0, "MB": 0}], []]}]' 1:31 E0472
try "one group" refused '[{"op": "order", "filters": [[{"PP": 0, "MB": 0, "PASS": "F"}]]}]' 1:29 E0472 "at least 2 groups"
try "an empty group" refused '[{"op": "order", "filters": [[{"PP": 0, "MB": 0, "PASS": "F"}], []]}]' 1:65 E0472
try "a misspelt directive" refused '[{"op": "palce"}]' 1:9 E0471 "did you mean 'place'?"
try "no directive's name" refused "[$place, {}]" 1:72 E0471
try "something other than a directive" refused '[3]' 1:2 E0471
try "an object instead of a list" refused '{"op": "place"}' 1:1 E0471
try "a misspelt field" refused '[{"op": "replicate", "filter": {}, "devices": [0], "shard_grad": true}]' 1:52 \
    E0472 "did you mean 'shard_grads'?"
try "a field of another directive" refused '[{"op": "replicate", "filter": {}, "devices": [0], "stream": "x"}]' 1:52 \
    E0472 "reduce_stream"
try "no devices" refused '[{"op": "place", "filter": {"PP": 0}}]' 1:2 E0472 "'devices'"
try "an empty list of devices" refused '[{"op": "place", "filter": {"PP": 0}, "devices": []}]' 1:50 E0472
try "a device twice" refused '[{"op": "place", "filter": {"PP": 0}, "devices": [1, 2, 1]}]' 1:50 E0472
try "no microbatches" refused '[{"op": "split", "filter": {}, "dim_name": "MB", "num_microbatches": 0}]' 1:70 E0472
try "a bucket of nothing" refused '[{"op": "replicate", "filter": {}, "devices": [0], "bucket_size": 0}]' 1:67 E0472
try "all mistakes are told" refused '[{"op": "place", "filter": {"PP": null}, "devices": [0]},
{"op": "place", "filter": {"PP": 0}, "devices": []}]' 1:35 E0473 "--> file.json:2:49" E0472

for op in shard_tensor ring_exchange layout mesh route fuse_collectives; do
    try "a fork's $op" refused "[{\"op\": \"$op\"}]" 1:9 E0474 "= help:"
done
try "a fork's regather" refused '[{"op": "replicate", "filter": {}, "devices": [0], "regather": false}]' 1:64 E0474

try "an empty file" refused '' 2:1 E0470
try "a comma too many" refused '[{"op": "place", "devices": [0,]}]' 1:32 E0470
try "a list that is not closed" refused "[$place
" 3:1 E0470
try "a string that is not closed" refused '[{"op": "pl' 1: E0470
try "two values" refused "[$place] 4" 1:72 E0470
try "a key twice" refused '[{"op": "place",
"op": "place"}]' 2: E0470 "duplicate"
try "a number too large" refused '[{"op": "place", "filter": {"PP": 99999999999999999999}}]' 1: E0470
try "not UTF-8" refused "$(printf '[{"op": "pl\xff"}]')" 1: E0470

deep() {
    refused "[$(printf '%100000s' '' | tr ' ' '[')" 1:18 E0477 || return 1
    refused "[{\"op\": $(printf '%100000s' '' | tr ' ' '[')$(printf '%100000s' '' | tr ' ' ']')}]" 1: E0477
}
try "100000 nested lists" deep
large() {
    { printf '[['; head -c 20000000 /dev/zero | sed 's/\x0/{},/g'; } >large.json
    run_pps import large.json
    expect_status 1 "--> large.json:1:2" E0477 "too large"
}
try "60 MB of empty objects" large
many_streams() {
    local i
    for i in $(seq 400); do
        printf '{"op": "shard", "filter": {"EP": %d}, "devices": [0], "stream": "%d"},\n' "$i" "$i"
    done >streams
    refused "[$(cat streams) $place]" 257: E0477
}
try "hundreds of streams" many_streams

missing() {
    run_pps import missing.json
    expect_status 1 "missing.json"
}
try "a file that is not there" missing

# With a model the script must compile: what Piper takes and hangs on is refused with its cycle.
op() { printf '[{"PP": %d, "MB": %d, "PASS": "%s"}]' "$1" "$2" "$3"; }
deadlock() {
    printf '%s\n' "[$place, {\"op\": \"place\", \"filter\": {\"PP\": 1}, \"devices\": [1]},
        {\"op\": \"split\", \"filter\": {}, \"dim_name\": \"MB\", \"num_microbatches\": 2},
        {\"op\": \"order\", \"filters\": [$(op 0 0 F), $(op 0 0 B), $(op 0 1 F), $(op 0 1 B)]},
        {\"op\": \"order\", \"filters\": [$(op 1 0 F), $(op 1 1 F), $(op 1 0 B), $(op 1 1 B)]}]" >file.json
    run_pps import file.json
    expect_status 0 || return 1
    run_pps import file.json --model 'mlp(stages=2)' -o deadlock.pps
    expect_status 1 E0502 || return 1
    [ ! -e deadlock.pps ] || why "the script was written"
}
try "a deadlock between ranks" deadlock
unknown_stage() {
    printf '[%s, %s]\n' "$place" "${place//0/7}" >file.json
    run_pps import file.json --model 'mlp(stages=2)'
    expect_status 1 E0204
}
try "a stage that the model does not have" unknown_stage

finish
