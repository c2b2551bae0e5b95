/* SPDX-License-Identifier: Apache-2.0
 *
 * report.h: results as TAP, which meson and ./tests/run read. A failing check is one line that ends
 * in the one command that repeats it; the last line sums up.
 */
#ifndef PPS_TESTS_PARITY_REPORT_H
#define PPS_TESTS_PARITY_REPORT_H

#include <stdbool.h>
#include <stdint.h>

/* Why a check failed, one line. */
typedef struct reason {
    char text[640];
} reason;

/* Always false, so that failing and saying why is one line. */
bool fail(reason *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

typedef struct report {
    const char *command; /* repeats a unit when its name is added */
    uint32_t n_passed, n_failed, n_skipped;
} report;

/* Check `what` of `unit`, which --only selects. `why` is read when not `ok`. */
void report_check(report *r, const char *unit, const char *what, bool ok, const reason *why);
void report_skip(report *r, const char *unit, const char *cause);
/* The summary. True when nothing failed. */
bool report_end(const report *r);

#endif
