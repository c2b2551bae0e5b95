#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# examples.sh: what README and the examples promise.
. "$(dirname "$0")/../lib/tap.sh"
cd "$PPS_ROOT/examples" || exit 1

checked() {
    run_pps check "$1"
    expect_status 0
}
for script in *.pps; do
    try "check $script" checked "$script"
done

readme_program() {
    sed -n '/^```$/,/^```$/p' ../README.md | sed '1d; /^```$/,$d' | cmp -s - first.pps ||
        why "README's first program is not examples/first.pps"
}
try "README's program is an example" readme_program

readme_output() {
    run_pps view first.pps
    expect_status 0 || return 1
    head -n 2 "$out" >"$tap_folder/grid"
    grep -E '^    rank [01] ' ../README.md | sed 's/^    //' | cmp -s - "$tap_folder/grid" ||
        why "README's grid is not what pps view prints"
}
try "README's grid is what is printed" readme_output

# The first loss is that of guessing among 256; the last ten are a quarter under the first ten.
quickstart_learns() {
    run_pps run quickstart.pps --steps 200 --log json
    expect_status 0 || return 1
    sed -n 's/.*"loss":\([0-9.e+]*\),"aux.*/\1/p' "$out" | awk '
        NR == 1 { off = $1 - log(256) }
        NR <= 10 { first += $1 }
        { loss[NR] = $1 }
        END {
            for (i = NR - 9; i <= NR; i++) last += loss[i]
            if (NR != 200 || off > 0.3 || off < -0.3 || last > 0.75 * first) {
                print "# " NR " steps, off by " off ", means " first / 10 " and " last / 10; exit 1 }
        }'
}
try "the quickstart learns" quickstart_learns

# Without what a build needs and with --no-install: the list, the command, status 3.
no_install() {
    mkdir -p "$tap_folder/bin"
    local tool
    for tool in bash env dirname grep id cat sed; do ln -sf "$(command -v $tool)" "$tap_folder/bin/$tool"; done
    PATH=$tap_folder/bin bash quickstart --no-install >"$out" 2>"$err"
    status=$?
    expect_status 3 && expect_out "missing:" "meson" "apt-get install" || return 1
    PATH=$tap_folder/bin bash ../tests/run --no-install >"$out" 2>"$err"
    status=$?
    expect_status 3 && expect_out "libcmocka-dev"
}
try "--no-install lists what is missing" no_install

finish
