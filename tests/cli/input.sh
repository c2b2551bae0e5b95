#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# input.sh: bad input ends with a clear message that names its place, status 1, soon, and leaves nothing
# behind.
. "$(dirname "$0")/../lib/tap.sh"
cd "$tap_folder" || exit 1
shm_before=$(ls /dev/shm 2>/dev/null | grep pps | grep -v pps-test)

# refused FILE TEXT...: `pps check FILE` ends with status 1, naming FILE with a line, and each TEXT
refused() {
    local file=$1
    shift
    run_pps check "$file"
    expect_status 1 "--> $file:" "$@"
}

printf 'let x = 1\nlet s = "caf\xe9"\n' >latin.pps
try "not UTF-8" refused latin.pps "UTF-8" "latin.pps:2:"

long_line() {
    head -c 100000000 /dev/zero | tr '\0' 'a' >long.pps
    refused long.pps
    local result=$?
    [ "$(wc -c <"$err")" -lt 20000 ] || { why "the message repeats the line"; result=1; }
    rm -f long.pps
    return $result
}
try "a line of 100 MB" long_line

open_100000=$(printf '%100000s' '' | tr ' ' '[')
printf 'let x = %s\n' "$open_100000" >brackets.pps
try "100000 nested brackets" refused brackets.pps
printf 'let x = %s1%s\n' "$open_100000" "$(printf '%100000s' '' | tr ' ' ']')" >balanced.pps
try "100000 balanced brackets" refused balanced.pps
printf 'let x = %s1\n' "$(printf '%100000s' '' | tr ' ' '-')" >minus.pps
try "100000 minus signs" refused minus.pps

cat >opaque.pps <<'PPS'
model net(x, y) {
  let h = embed(x, 64, 16)
  annotate PP { h = opaque("solver", [h], [[8, 16, 16]], save=1024, hold=512, flops=[10.0, 10.0, 10.0]) }
  return cross_entropy(linear(h, 64), y)
}
train net(tokens(8, 16), targets()) optimizer sgd(lr=0.1)
PPS
opaque() {
    run_pps check opaque.pps
    expect_status 0 || return 1
    run_pps run opaque.pps --steps 1
    expect_status 1 "E0958" "'solver' is opaque" "opaque.pps:6:"
}
try "host compute is planned, and refused without its host" opaque

printf 'let i = 0\nwhile true {\n  i += 1\n}\n' >endless.pps
endless() {
    run_pps check endless.pps --max-steps 1000000
    expect_status 1 "endless.pps:2:" "1000000"
}
try "an endless loop" endless
printf 'fn f(n) => f(n + 1)\nf(0)\n' >deep.pps
try "endless recursion" refused deep.pps "E0801"

bomb() {
    run_pps check "$1" --max-memory=64M
    expect_status 1 "--> $1:" "its limit is 67108864"
}
printf 'let xs = [0]\nwhile true {\n  xs.extend(xs)\n}\n' >list_bomb.pps
try "a list that grows" bomb list_bomb.pps
printf 'let s = "x"\nwhile true {\n  s = s + s\n}\n' >string_bomb.pps
try "a string that grows" bomb string_bomb.pps
printf 'let xs = [0] * 1000000000000\n' >repeat_bomb.pps
try "a huge list at once" refused repeat_bomb.pps "E080"
printf 'let m = {}\nlet i = 0\nwhile true {\n  m[i] = [i]\n  i += 1\n}\n' >map_bomb.pps
try "a map that grows" bomb map_bomb.pps

missing_script() {
    run_pps check nothing.pps
    expect_status 1 "nothing.pps" "No such file"
}
try "a missing script" missing_script
folder_script() {
    mkdir -p folder.pps
    run_pps check folder.pps
    expect_status 1 "folder.pps" "folder"
}
try "a folder as script" folder_script
printf 'import "nothing.pps"\n' >import_missing.pps
try "a missing module" refused import_missing.pps "nothing.pps"
printf 'import "../../etc/passwd.pps"\n' >import_up.pps
try "a module outside the script's folder" refused import_up.pps
printf 'import "no_such_module"\n' >import_unknown.pps
try "a module that the stdlib lacks" refused import_unknown.pps "no_such_module"
import_link() {
    mkdir -p outside inside
    echo 'let x = 1' >outside/a.pps
    ln -sf ../outside/a.pps inside/a.pps
    echo 'import "a.pps"' >inside/main.pps
    refused inside/main.pps "outside"
}
try "a link out of the script's folder" import_link
printf 'import "a.pps"\n' >b.pps
printf 'import "b.pps"\n' >a.pps
cycle() {
    run_pps check a.pps
    expect_status 1 "E0701" "a.pps -> b.pps -> a.pps" "--> b.pps:1"
}
try "an import cycle" cycle

printf 'from "models/mlp" import mlp\ntrain mlp(stages=3, layers=4)\n' >uneven.pps
uneven() {
    run_pps check uneven.pps
    expect_status 1 "4 layers do not divide into 3 stages" "uneven.pps:2"
}
try "layers that do not divide" uneven

# refused LAYERS TEXT: what a list of layers per stage cannot be
refused() {
    printf 'from "models/mlp" import mlp\ntrain mlp(stages=3, layers=%s)\n' "$1" >list.pps
    run_pps check list.pps
    expect_status 1 "$2" "list.pps:2"
}
lists() {
    refused "[1, 2]" "layers=[1, 2] is for 2 stages, but stages=3" &&
        refused "[1, 0, 2]" "stage 1 has no layers: only the first and the last of 3 stages have something else" &&
        refused "[1, -1, 2]" "stage 1 cannot have -1 layers" && refused "[1, 1.5, 2]" "stage 1 cannot have 1.5 layers"
}
try "layers per stage" lists
printf 'from "models/mlp" import mlp\ntrain mlp(tokens(8, 32), targets(), stages=1) data bytes("short.txt")\n' >short.pps
printf 'too short' >short.txt
short_data() {
    run_pps run short.pps --steps 1
    expect_status 1 "short.pps:2:" "short.txt"
}
try "data shorter than a batch" short_data
missing_data() {
    rm -f short.txt
    run_pps run short.pps --steps 1
    expect_status 1 "short.pps:2:" "short.txt"
}
try "missing data" missing_data
parameter() {
    printf 'param ranks = 2 where ranks >= 1\n' >param.pps
    run_pps check param.pps -D rank=3
    expect_status 1 "did you mean \`ranks\`" || return 1
    run_pps check param.pps -D ranks=0
    expect_status 1 "param.pps:1:" || return 1
    run_pps check param.pps -D ranks=many
    expect_status 1 "many"
}
try "parameters: unknown, refused, of a wrong type" parameter

json_diagnostics() {
    run_pps check uneven.pps --diagnostics json
    expect_status 1 '"severity":1' '"message":' '"range":{"start":{"line":25,' || return 1
    run_pps check latin.pps --diagnostics=json
    expect_status 1 '"code":"E0010"' || return 1
    [ "$(wc -l <"$err")" -eq 1 ] || why "one message is one line"
}
try "diagnostics as JSON" json_diagnostics

nothing_left() {
    [ "$(ls /dev/shm 2>/dev/null | grep pps | grep -v pps-test)" = "$shm_before" ] || why "files appeared in /dev/shm"
}
try "nothing left in /dev/shm" nothing_left

finish
