/* SPDX-License-Identifier: Apache-2.0
 *
 * fixture.h: a state that remembers the last diagnostic, small files, and plan sets made by hand.
 * Test code only.
 */
#ifndef PPS_TESTS_TRAIN_FIXTURE_H
#define PPS_TESTS_TRAIN_FIXTURE_H

#include "runtime/train/train.h"

typedef struct fixture {
    pps_state *st;
    int code; /* of the last diagnostic, 0: none since fixture_clear */
    char text[2048];
    char folder[64]; /* for files, removed at the end */
} fixture;

int fixture_open(void **state);  /* cmocka set-up */
int fixture_close(void **state); /* and tear-down */
void fixture_clear(fixture *f);
/* The diagnostic has `code` and says `part`. */
void fixture_expect(fixture *f, int code, const char *part);
/* Write a file into the folder; *path is overwritten by the next call. */
const char *fixture_file(fixture *f, const char *name, const void *bytes, size_t n);
const char *fixture_path(fixture *f, const char *name);
/* A file of the oracles, PPS_ORACLES or `fallback`-relative; NULL after saying that the test is
 * skipped. */
const char *fixture_oracle(const char *name);

ir_param fixture_param(const char *name, uint32_t a, uint32_t b,
                       uint32_t c); /* 0: no such dimension */

#endif
