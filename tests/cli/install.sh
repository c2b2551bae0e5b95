#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# install.sh: `meson install` into a DESTDIR; the installed program finds its installed stdlib.
. "$(dirname "$0")/../lib/tap.sh"
cd "$tap_folder" || exit 1

installed() {
    DESTDIR=$PWD/dest meson install -C "$PPS_BUILD" --no-rebuild >log 2>&1 ||
        { why "meson install failed" "$(tail -n 5 log | sed 's/^/# /')"; return 1; }
    program=$(find dest -type f -name pps -perm -u+x)
    [ -n "$program" ] || { why "no program"; return 1; }
    find dest -name qwen3_moe.pps | grep -q share/pps/stdlib/models/ || why "no stdlib"
}
try "meson install with DESTDIR" installed

runs() {
    # away from the build tree: only the installed stdlib is there
    env -u PPS_STDLIB timeout 20 "$PWD/$program" rows 1f1b 2 4 >"$out" 2>"$err"
    status=$?
    expect_status 0 && expect_out "F0:0 F0:1 B0:0"
}
if [ -n "${program:-}" ]; then
    try "the installed program runs" runs
else
    skip "the installed program runs" "it was not installed"
fi

finish
