/* SPDX-License-Identifier: Apache-2.0
 *
 * compiled.h: plans from a script's text, the whole way: interpreter, stdlib, passes.
 */
#ifndef PPS_TEST_COMPILED_H
#define PPS_TEST_COMPILED_H

#include "passes/pps_plan.h"
#include "runtime/cli/loader.h"

typedef struct compiled {
    loader loader;
    pps_state *st;
    ir_program *program;
    plan_set *set;
    char said[16384]; /* diagnostics and what the script printed */
} compiled;

/* Compile `text`, made by printf from what follows; `streams`: physical ones to merge onto, 0: one
 * each. Anything but success fails the test, after printing what was said. */
void compile_text(compiled *c, uint32_t streams, const char *text, ...) PPS_PRINTF(3, 4);
void compiled_close(compiled *c);

/* Names of a schedule and of how its ranks are laid out, for scripts over a table of them. */
typedef struct schedule_case {
    const char *name;   /* for messages */
    const char *rows;   /* printf format: R, M */
    const char *stages; /* the stdlib's placement, a list of device lists: R, dp */
    uint32_t per_rank;  /* stages per rank */
    uint32_t least_mb;  /* times R, at least so many microbatches */
} schedule_case;
enum { N_SCHEDULES = 5 };
extern const schedule_case schedule_cases[N_SCHEDULES];

/* The directives of a pipeline of `R` ranks, `dp` replicas each, `M` microbatches, into `ret`:
 * split, place on `stream` (an expression that may use the stage `s`), replicate with `dp` > 1 on
 * stream "dp", with `ep` experts sharded over the replicas on stream "ep", order. */
void pipeline_text(const schedule_case *schedule, uint32_t R, uint32_t dp, bool ep, uint32_t M,
                   const char *stream, char *ret, size_t n);

#endif
