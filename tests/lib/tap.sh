# SPDX-License-Identifier: Apache-2.0
#
# tap.sh: shell tests that report in TAP, which meson and ./tests/run both read. Sourced by the suites in
# tests/*/*.sh. The environment: PPS is the program; PPS_ROOT the checkout; PPS_TEST_ALL non-empty runs what
# is otherwise sampled by PPS_TEST_SEED.
#
#   try NAME COMMAND...       one test: the command (often a function) succeeds
#   skip NAME CAUSE
#   run_pps ARGUMENT...       runs the program under a time limit: $status, and files $out and $err
#   finish                    the last line of a suite
#
# A test function says why it fails with `why TEXT`, and returns 1.
set -u
shopt -s inherit_errexit 2>/dev/null

PPS=${PPS:?names the program to test}
PPS_ROOT=${PPS_ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
tap_folder=$(mktemp -d)
trap 'rm -rf "$tap_folder"' EXIT
out=$tap_folder/out
err=$tap_folder/err
status=0
tap_n=0
tap_failed=0
run_limit=${PPS_TEST_LIMIT:-60}

why() {
    printf '# %s\n' "$@"
    return 1
}

try() {
    local name=$1
    shift
    tap_n=$((tap_n + 1))
    if "$@"; then
        echo "ok $tap_n - $name"
    else
        tap_failed=$((tap_failed + 1))
        echo "not ok $tap_n - $name"
    fi
}

skip() {
    tap_n=$((tap_n + 1))
    echo "ok $tap_n - $1 # SKIP $2"
}

run_pps() {
    timeout -k 5 "$run_limit" "$PPS" "$@" >"$out" 2>"$err" </dev/null
    status=$?
}

# The last run ended with status $1, and its messages contain each further argument.
expect_status() {
    local want=$1 text
    shift
    if [ "$status" -ne "$want" ]; then
        why "status $status instead of $want" "$(head -n 5 "$err" | cut -c 1-200 | sed 's/^/# /')"
        return 1
    fi
    for text in "$@"; do
        grep -qF -- "$text" "$err" || {
            why "stderr lacks '$text':" "$(head -n 12 "$err" | cut -c 1-200 | sed 's/^/# /')"
            return 1
        }
    done
}

expect_out() {
    local text
    for text in "$@"; do
        grep -qF -- "$text" "$out" || { why "stdout lacks '$text'"; return 1; }
    done
}

finish() {
    echo "1..$tap_n"
    [ "$tap_failed" -eq 0 ]
    exit
}
