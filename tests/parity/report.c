/* SPDX-License-Identifier: Apache-2.0
 *
 * report.c: results as TAP.
 */
#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool fail(reason *why, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why->text, sizeof why->text, format, arguments);
    va_end(arguments);
    for (char *c = why->text; *c; c++) { /* one line; # would begin a directive */
        if (*c == '\n')
            *c = ' ';
        else if (*c == '#')
            *c = '/';
    }
    return false;
}

static uint32_t next(const report *r)
{
    return r->n_passed + r->n_failed + r->n_skipped + 1;
}

void report_check(report *r, const char *unit, const char *what, bool ok, const reason *why)
{
    uint32_t n = next(r);
    if (ok) {
        r->n_passed++;
        printf("ok %u - %s: %s\n", n, unit, what);
    } else {
        r->n_failed++;
        printf("not ok %u - %s: %s: %s; repeat: %s --only %s\n", n, unit, what, why->text,
               r->command, unit);
    }
    fflush(stdout);
}

void report_skip(report *r, const char *unit, const char *cause)
{
    uint32_t n = next(r);
    r->n_skipped++;
    printf("ok %u - %s # SKIP %s\n", n, unit, cause);
}

bool report_end(const report *r)
{
    printf("1..%u\n# %u passed, %u failed, %u skipped\n", next(r) - 1, r->n_passed, r->n_failed,
           r->n_skipped);
    return r->n_failed == 0;
}
