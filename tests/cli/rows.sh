#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# rows.sh: the stdlib's schedules: the rows that are known by heart, and properties of many sizes: every op
# once, BI before BW, no deadlock, and the known lengths of a step in unit costs.
. "$(dirname "$0")/../lib/tap.sh"

# rows_are WANT ARGUMENT...
rows_are() {
    local want=$1
    shift
    run_pps rows "$@"
    expect_status 0 || return 1
    [ "$(cat "$out")" = "$want" ] || why "got:" "$(sed 's/^/# /' "$out")"
}

try "1f1b 2 4" rows_are \
"F0:0 F0:1 B0:0 F0:2 B0:1 F0:3 B0:2 B0:3
F1:0 B1:0 F1:1 B1:1 F1:2 B1:2 F1:3 B1:3" 1f1b 2 4
try "one_f_one_b(2, 4) as an expression" rows_are "$("$PPS" rows 1f1b 2 4)" 'one_f_one_b(2, 4)'
try "1f1b(2, 4) as an expression" rows_are "$("$PPS" rows 1f1b 2 4)" '1f1b(2, 4)'
try "1f1b 4 8 equals one_f_one_b(4, 8)" rows_are "$("$PPS" rows 1f1b 4 8)" 'one_f_one_b(4, 8)'
try "dualpipev 2 4" rows_are \
"F0:0 F0:1 F0:2 F3:0 BI3:0 BW3:0 F3:1 F0:3|B3:1 F3:2|B0:0 B3:2 F3:3|B0:1 B3:3 BI0:2 BW0:2 BI0:3 BW0:3
F1:0 F2:0 F1:1 F2:1 F1:2 B2:0 F2:2|B1:0 F1:3|B2:1 F2:3|B1:1 B2:2 B1:2 BI2:3 BI1:3 BW2:3 BW1:3" dualpipev 2 4
try "gpipe 2 2" rows_are \
"F0:0 F0:1 B0:0 B0:1
F1:0 F1:1 B1:0 B1:1" gpipe 2 2
try "zerobubble 2 3" rows_are \
"F0:0 F0:1 BI0:0 BW0:0 F0:2 BI0:1 BW0:1 BI0:2 BW0:2
F1:0 BI1:0 F1:1 BI1:1 BW1:0 F1:2 BI1:2 BW1:1 BW1:2" zerobubble 2 3
try "interleaved_1f1b 2 2" rows_are \
"F0:0 F0:1 F2:0 F2:1 B2:0 B2:1 B0:0 B0:1
F1:0 F1:1 F3:0 B3:0 F3:1 B3:1 B1:0 B1:1" interleaved_1f1b 2 2
try "dualpipe 4 8" rows_are \
"F0:0 F0:1 F0:2 F3:4 BI3:4 BW3:4 F3:5 F0:3|B3:5 F3:6|B0:0 B3:6 F3:7|B0:1 B3:7 BI0:2 BW0:2 BI0:3 BW0:3
F1:0 F2:4 F1:1 F2:5 F1:2 B2:4 F2:6|B1:0 F1:3|B2:5 F2:7|B1:1 B2:6 B1:2 BI2:7 BI1:3 BW2:7 BW1:3
F1:4 F2:0 F1:5 F2:1 F1:6 B2:0 F2:2|B1:4 F1:7|B2:1 F2:3|B1:5 B2:2 B1:6 BI2:3 BI1:7 BW2:3 BW1:7
F0:4 F0:5 F0:6 F3:0 BI3:0 BW3:0 F3:1 F0:7|B3:1 F3:2|B0:4 B3:2 F3:3|B0:5 B3:3 BI0:6 BW0:6 BI0:7 BW0:7" dualpipe 4 8
try "chimera 4 4" rows_are \
"F0:0 F0:1 F3:2 B3:2 F3:3 B3:3 B0:0 B0:1
F1:0 F2:2 F1:1 F2:3 B2:2 B1:0 B2:3 B1:1
F1:2 F2:0 F1:3 F2:1 B2:0 B1:2 B2:1 B1:3
F0:2 F0:3 F3:0 B3:0 F3:1 B3:1 B0:2 B0:3" chimera 4 4
try "interleaved_1f1b with v=3 by name" rows_are "$("$PPS" rows interleaved_1f1b 2 4 3)" interleaved_1f1b 2 4 v=3

# Time the rows on stdin with F = BI = BW = 1/v and print "LENGTH peak ACTIVATIONS" of the step, or say what is
# wrong. A group starts when the inputs of all its ops are there and gives its outputs at its end. Of v stages
# in a row one that k rows run counts 1/k.
timed() {
    awk -v stages="$1" -v mbs="$2" '
    function op(text, parts) {
        match(text, /^[A-Z]+/)
        pass = substr(text, 1, RLENGTH)
        split(substr(text, RLENGTH + 1), parts, ":")
        stage = parts[1]; mb = parts[2]
    }
    function ready(need) { return need in end }
    function need_of(   after) {
        if (pass == "F") return stage > 0 ? "F" stage - 1 ":" mb : ""
        if (pass == "BW") return "BI" stage ":" mb
        after = stage + 1
        return stage < stages - 1 ? "D" after ":" mb : "F" stage ":" mb
    }
    { ranks = NR; n[NR] = split($0, row, " "); for (i = 1; i <= n[NR]; i++) group[NR, i] = row[i]
      for (i = 1; i <= n[NR]; i++) { k = split(row[i], ops, "|")
          for (j = 1; j <= k; j++) { op(ops[j]); if (!((NR, stage) in seen)) { seen[NR, stage] = 1; copies[stage]++ } } } }
    END {
        for (key in seen) { split(key, part, SUBSEP); v[part[1]] += 1 / copies[part[2]] }
        for (r = 1; r <= ranks; r++) { at[r] = 1; free[r] = 0 }
        do {
            moved = 0
            for (r = 1; r <= ranks; r++) while (at[r] <= n[r]) {
                k = split(group[r, at[r]], ops, "|"); start = free[r]; cost = 0; ok = 1
                for (j = 1; j <= k; j++) {
                    op(ops[j]); need = need_of()
                    if (need != "" && !ready(need)) { ok = 0; break }
                    if (need != "" && end[need] > start) start = end[need]
                    if (pass ~ /^B/ && pass != "BW" && !ready("F" stage ":" mb)) { ok = 0; break }
                    cost += (pass == "B" ? 2 : 1) / v[r]
                }
                if (!ok) break
                for (j = 1; j <= k; j++) {
                    op(ops[j])
                    if (ops[j] in end) { print "twice: " ops[j]; exit }
                    end[ops[j]] = start + cost
                    if (pass == "B" || pass == "BI") end["D" stage ":" mb] = start + cost
                    done[pass]++
                    if (pass == "F") live[r] += 1 / v[r]
                }
                if (live[r] > peak) peak = live[r]
                for (j = 1; j <= k; j++) { op(ops[j]); if (pass == "B" || pass == "BW") live[r] -= 1 / v[r] }
                free[r] = start + cost; at[r]++; moved = 1
                if (free[r] > makespan) makespan = free[r]
            }
        } while (moved)
        for (r = 1; r <= ranks; r++) if (at[r] <= n[r]) { print "deadlock at " group[r, at[r]]; exit }
        if (done["F"] != stages * mbs || done["B"] + done["BI"] != stages * mbs || done["BI"] != done["BW"]) {
            print "counts: F " done["F"] " B " done["B"] " BI " done["BI"] " BW " done["BW"]; exit }
        printf "%.9g peak %.9g\n", makespan, peak
    }'
}

# takes LENGTH STAGES MICROBATCHES ARGUMENT...: LENGTH may be "any", or go on with " peak ACTIVATIONS"
takes() {
    local want=$1 stages=$2 mbs=$3 got
    shift 3
    run_pps rows "$@"
    expect_status 0 || return 1
    got=$(timed "$stages" "$mbs" <"$out")
    case $want/$got in
    any/[0-9]*) return 0 ;;
    "$got/$got" | "${got%% *}/$got") return 0 ;;
    *) why "'pps rows $*' takes $got instead of $want" ;;
    esac
}

lengths() {
    local M
    for M in 8 16 32; do
        takes $((3 * (M + 3))) 4 $M gpipe 4 $M || return 1
        takes $((3 * (M + 3))) 4 $M 1f1b 4 $M || return 1
        takes $((3 * M + 3)) 4 $M zerobubble 4 $M || return 1
        takes "$(awk "BEGIN { print 3 * $M + 9 / 2 }")" 8 $M interleaved_1f1b 4 $M || return 1
        takes "$(awk "BEGIN { print 3 * $M + 9 / 4 }")" 16 $M interleaved_1f1b 4 $M 4 || return 1
        takes "$((3 * M + 3)) peak 4.5" 8 $M dualpipev 4 $M || return 1
        takes "$((3 * M + 2)) peak 5" 4 $M dualpipe 4 $M || return 1
        takes "$((3 * M + 2 * (M / 4 + 1))) peak 4" 4 $M chimera 4 $M || return 1
    done
    takes "16 peak 4" 4 4 chimera 4 4
}
try "4 ranks take the known time" lengths

both_ways() {
    local R M
    for R in 2 4 6 8; do
        for M in $((2 * R)) $((2 * R + 2)) $((4 * R)); do
            takes "$((3 * M + R - 2)) peak $((R + 1))" $R $M dualpipe $R $M || return 1
        done
        for M in $R $((2 * R)) $((5 * R)); do
            takes "$((3 * M + (R - 2) * (M / R + 1))) peak $R" $R $M chimera $R $M || return 1
        done
    done
}
try "dualpipe and chimera take the known time and memory" both_ways

# Every size up to 6 ranks and 13 microbatches with PPS_TEST_ALL, else some of them by the seed.
RANDOM=${PPS_TEST_SEED:-1}
sizes() {
    local builder=$1 R M v
    for R in 1 2 3 4 5 6; do
        for M in 1 2 3 4 5 6 7 8 9 10 11 12 13; do
            [ -n "${PPS_TEST_ALL:-}" ] || [ $((RANDOM % 8)) -eq 0 ] || continue
            case $builder in
            interleaved_1f1b)
                [ $((M % R)) -eq 0 ] || continue
                for v in 1 2 3; do takes any $((R * v)) $M $builder $R $M $v || return 1; done
                ;;
            dualpipe)
                [ $((R % 2)) -eq 1 ] || [ $((M % 2)) -eq 1 ] || [ "$M" -lt $((2 * R)) ] ||
                    takes any $R $M $builder $R $M || return 1
                ;;
            chimera)
                [ $((R % 2)) -eq 1 ] || [ $((M % 2)) -eq 1 ] || takes any $R $M $builder $R $M || return 1
                ;;
            dualpipev) [ "$M" -lt $((2 * R)) ] || takes any $((2 * R)) $M $builder $R $M || return 1 ;;
            *) takes any $R $M $builder $R $M || return 1 ;;
            esac
        done
    done
}
for builder in gpipe one_f_one_b zerobubble interleaved_1f1b dualpipev dualpipe chimera; do
    try "$builder: every op once, no deadlock" sizes $builder
done

refused() {
    local text=$1
    shift
    run_pps rows "$@"
    expect_status 1 "$text"
}
try "a ragged interleaved schedule is refused" refused "multiple of 4 microbatches" interleaved_1f1b 4 6
try "dualpipev with few microbatches is refused" refused "at least 8 microbatches" dualpipev 4 7
try "dualpipe with few microbatches is refused" refused "at least 8 microbatches" dualpipe 4 6
try "dualpipe on three ranks is refused" refused "an even number of ranks, got 3" dualpipe 3 8
try "chimera with odd microbatches is refused" refused "an even number of microbatches, got 5" chimera 4 5
try "no ranks are refused" refused "number of ranks R is 0" 1f1b 0 4
try "half a microbatch is refused" refused "number of microbatches M is 2.5" gpipe 2 2.5
try "an unknown builder is refused" refused "one_f_one_b" one_f_one_bb 2 4
try "a value that is no schedule is refused" refused "error" 3

finish
