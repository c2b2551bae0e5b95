/* SPDX-License-Identifier: Apache-2.0
 *
 * checks.h: what holds for every training whatever its strategy: it computes what one rank
 * computes, the same bits again and in other surroundings, and sends, holds and runs what its plan
 * says. Cells (matrix.c) and strategies (strategies.c) are units made of these checks.
 */
#ifndef PPS_TESTS_PARITY_CHECKS_H
#define PPS_TESTS_PARITY_CHECKS_H

#include "report.h"
#include "run.h"
#include "trace.h"

enum { UNIT_NAME = 192, REFERENCES = 96 };
enum { SGD_STEPS = 5, ADAMW_STEPS = 12 };

/* What `pps run` is given. */
typedef struct subject {
    const char *script;       /* from the folder, or absolute */
    const char *const *words; /* "-D", "dp=2", ... NULL-terminated; NULL: none */
} subject;

/* A run that others are compared with. */
typedef struct reference {
    char name[UNIT_NAME + 32];
    bool ok;
    reason why; /* it failed */
    training tr;
    tensor_file params, gradients;
} reference;

typedef struct suite {
    tool tool;
    report report;
    const char *oracles; /* folder */
    reference cache[REFERENCES];
    uint32_t n_cached;
} suite;

/* The run of `of` for `steps`, from the cache when one of this name is there. Borrowed until the
 * next call. */
const reference *checks_reference(suite *s, const char *name, const subject *of, uint32_t steps);
void checks_forget(suite *s); /* empties the cache */

typedef struct unit_run {
    suite *s;
    const char *name; /* of the unit */
    subject of;
    training tr;
    tensor_file params, gradients;
    trace trace;
    reason why; /* why the check at hand fails */
} unit_run;

/* Trains 5 steps of SGD; reported as "trains". False: nothing to check. Owned either way:
 * checks_end. */
bool checks_begin(unit_run *r);
void checks_end(unit_run *r);
/* Reports `ok`, with r->why when it is false. */
void checks_report(unit_run *r, const char *what, bool ok);

/* Losses within 1e-5 relative, gradients of step 1 and parameters within 1e-5 of each tensor's
 * largest element. */
void checks_numbers(unit_run *r, const reference *one_rank);
/* Losses under AdamW within 1e-4 of those of one rank. */
void checks_adamw(unit_run *r, const subject *adamw, const reference *one_rank);
void checks_bits(unit_run *r, const char *what, const reference *other);
/* Twice, with ranks as threads, on one and two streams: the same bits; with OpenBLAS: near. */
void checks_again(unit_run *r);
/* Measured bytes of each rank within the planned ones; `exact`: they are these, or these in
 * steps of 64. */
void checks_memory(unit_run *r, bool exact);
/* `pps plan --format json`; owned: json_decref. NULL: r->why says why. */
json_t *checks_plan(unit_run *r);

#endif
