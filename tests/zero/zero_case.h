/* SPDX-License-Identifier: Apache-2.0
 *
 * zero_case.h: a small Mixture-of-Experts transformer on two pipeline ranks of two replicas each,
 * under any clauses of `replicate`: compiled, run, and its tensors at hand.
 */
#ifndef PPS_TEST_ZERO_CASE_H
#define PPS_TEST_ZERO_CASE_H

#include "passes/pps_plan.h"
#include "runtime/cli/loader.h"
#include "runtime/launch/launch.h"
#include "runtime/train/train.h"

enum { ZERO_MB = 4, ZERO_STEPS = 5 };

typedef struct zero_case {
    const char
        *schedule; /* "alone": one rank without directives; "1f1b", "interleaved", "dualpipev" */
    bool ep;       /* experts shared out over the replicas; else replicated as all else */
    const char *clauses;   /* of replicate */
    const char *optimizer; /* NULL: sgd(lr=0.1) */
} zero_case;

typedef struct compiled {
    loader loader;
    pps_state *st;
    ir_program *program;
    plan_set *set; /* NULL when refused */
    int code;      /* of the last error */
    char said[8192];
} compiled;

void zero_compile(compiled *c, const char *script); /* set is NULL after an error of the script */
void zero_open(compiled *c, const zero_case *z);    /* fails the test when refused */
void zero_close(compiled *c);

typedef struct outcome {
    launch_result result;
    double losses[ZERO_STEPS];
    float *params, *grads; /* logical, in name order; gradients of step 1 */
} outcome;
/* Train with ranks as threads on the plain kernels, every byte of activations checked. */
void zero_run(compiled *c, outcome *ret);
void outcome_done(outcome *o);

/* Fails the test unless each tensor is within 1e-5 of the other's largest element. */
void zero_near(const char *what, const plan_set *set, const float *got, const float *wanted);
/* ... unless memory in use and bytes sent are the plan's; `ep`: rows sent depend on the data. */
void zero_as_planned(const plan_set *set, const outcome *o, bool ep);

#endif
