#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# programs.sh: what the compiler accepts and refuses. Every programs/*.pps is a test whose comments say what
# `pps check` must answer:
#
#   # expect ok                   status 0 and no error
#   # expect error: E0502         status 1 and this error, one line per error, no others
#   # expect note: E0515          a note of this code; notes that are not expected are wrong
#   # expect text: TEXT           somewhere in what was reported
#   # expect count: N NAME        so many steps of this kind in the plans of all groups
#   # expect same: FILE           the same plan as that program's
#   # expect options: TEXT        what `pps check` gets beside the file
. "$(dirname "$0")/../lib/tap.sh"
programs=$(cd "$(dirname "$0")/programs" && pwd) || exit 1
cd "$programs" || exit 1

# expectations FILE WORD: the texts behind `# expect WORD:`, a line each
expectations() {
    sed -n "s/^# expect $2: //p" "$1"
}

check_counts() {
    local n kind found
    run_pps plan "$1"
    while read -r n kind; do
        found=$(awk -v kind="$kind" '$1 ~ /^[0-9]+$/ && $3 == kind' "$out" | wc -l)
        [ "$found" -eq "$n" ] || { why "$found steps of $kind instead of $n"; return 1; }
    done < <(expectations "$1" count)
}

check_same() {
    local other
    while read -r other; do
        run_pps plan "$other"
        cp "$out" "$tap_folder/other"
        run_pps plan "$1"
        cmp -s "$out" "$tap_folder/other" ||
            { why "not the plan of $other:" "$(diff "$out" "$tap_folder/other" | head -n 5)"; return 1; }
    done < <(expectations "$1" same)
}

# What was reported, "error E0502" a line, in order of codes
reported() {
    sed -n 's/^\(error\|note\|warning\)\[\(E[0-9]*\)\].*/\1 \2/p' "$err" | sort
}

expected() {
    { expectations "$1" error | sed 's/^/error /'; expectations "$1" note | sed 's/^/note /'; } | sort
}

as_expected() {
    local file=$1 want=0 options text
    grep -q '^# expect ' "$file" || { why "it expects nothing"; return 1; }
    grep -q '^# expect error: ' "$file" && want=1
    read -ra options < <(expectations "$file" options; echo)
    run_pps check "$file" --diagnostics text ${options[@]+"${options[@]}"}
    expect_status "$want" || return 1
    if [ "$(reported)" != "$(expected "$file")" ]; then
        why "reported instead of '$(expected "$file" | paste -sd' ')':" "$(sed 's/^/# /' "$err" | head -n 20)"
        return 1
    fi
    while IFS= read -r text; do
        grep -qF -- "$text" "$err" || { why "'$text' is not in:" "$(sed 's/^/# /' "$err")"; return 1; }
    done < <(expectations "$file" text)
    check_counts "$file" && check_same "$file"
}

for file in ${1:-*.pps}; do
    try "${file%.pps}" as_expected "$file"
done
finish
