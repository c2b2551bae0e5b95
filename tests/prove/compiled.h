/* SPDX-License-Identifier: Apache-2.0
 *
 * compiled.h: plans from a script's text, and what they compute: run in a process of its own, under
 * a time limit, so that a plan that hangs or crashes is a result like any other.
 */
#ifndef PPS_TEST_PROVE_COMPILED_H
#define PPS_TEST_PROVE_COMPILED_H

#include "passes/pps_plan.h"
#include "runtime/cli/loader.h"

typedef struct compiled {
    loader loader;
    pps_state *st;
    ir_program *program;
    plan_set *set;     /* NULL unless `status` is PPS_OK */
    pps_status status; /* of the last step that ran */
    int code;          /* of the last error, 0 without one */
    char said[8192];   /* the errors */
} compiled;

/* `streams`: physical ones to merge onto, 0: one each. The stdlib is the build tree's. */
void compiled_open(compiled *c, const char *text, uint32_t streams);
void compiled_close(compiled *c);
/* Prove the plans as they are now: the error's code, 0 when they pass; `said` is its message. */
int compiled_prove(compiled *c, bool buffered);

enum { RUN_STEPS = 3 };
enum run_end { RUN_OK, RUN_FAILED, RUN_HUNG, RUN_CRASHED };
typedef struct run_result {
    enum run_end end;
    double loss[RUN_STEPS], aux[RUN_STEPS];
    /* logical parameters after all steps, and their gradients of the first, in name order; owned */
    float *params, *grads;
    uint64_t *ends; /* [n_tensors] elements up to the end of each */
    uint32_t n_tensors;
} run_result;
/* RUN_STEPS training steps, ranks as threads, plain kernels, activations filled with NaNs before
 * each step. */
run_result compiled_run(const compiled *c, unsigned limit_s);
void run_done(run_result *r);
/* How far `got` is from `wanted`: the largest relative difference of losses, and per tensor of
 * max|difference| / max|wanted|. Infinite unless both are RUN_OK. */
double run_difference(const run_result *got, const run_result *wanted);
const char *run_end_name(enum run_end end);

#endif
