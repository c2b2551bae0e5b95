/* SPDX-License-Identifier: Apache-2.0
 *
 * pps_plan.h: compile a program to plans.
 */
#ifndef PPS_PLAN_H
#define PPS_PLAN_H

#include "ir/plan.h"

typedef struct pass_cost { /* measured: one microbatch of a chunk on one rank */
    const char *chunk;     /* as plan_set.chunk_names has it */
    double seconds[IR_PHASE_COUNT];
} pass_cost;

typedef struct pass_machine { /* how long work takes; only ratios matter */
    double flops;           /* FLOP/s of a rank, where there are no measured costs; 0: a default */
    double bytes;           /* bytes/s of a link; 0: a default */
    double latency;         /* seconds of a communication without bytes */
    const pass_cost *costs; /* of every chunk of the model (E0526), or NULL */
    uint32_t n_costs;
} pass_machine;

typedef struct pass_options {
    uint32_t max_streams; /* physical streams to merge onto, compute included; 0: one each */
    bool verify;          /* check every invariant after every pass */
    const char
        *dump_stage; /* a pass's name, "graph", "rows" or "plan": print that stage; NULL: none */
    const pass_machine *machine; /* NULL: a default */
    ir_print_fn dump;
    void *dump_ud;
    void (*ran)(void *ud, const char *pass); /* a pass has ended; NULL: nobody asks */
    void *ran_ud;
} pass_options;

/* Apply the directives of `p`, order, prove and lower. On PPS_OK *ret is owned: pps_plan_free. On
 * failure the reasons were reported to `st`. `p` must outlive the plans. */
PPS_API pps_status pps_compile(pps_state *st, ir_program *p, const pass_options *options,
                               plan_set **ret);
PPS_API void pps_plan_free(plan_set *set);

/* Names of the stages `dump_stage` takes, in order; ends with NULL. */
PPS_API const char *const *pps_compile_stages(void);

/* Check finished plans as a whole, trusting nothing that made them: every number names something,
 * waits point backward and to other streams; sends meet their receives and collectives of several
 * plans agree, on one stream and in one order; no step waits for ever; every pass of every
 * microbatch runs once; every binding finds what belongs there, written before; no bytes are used
 * again while they may be in use; gradients are complete when they are reduced, and applied once.
 * PPS_ERR_SCRIPT after reporting the first violation, with the code of its kind: E0502, E0511,
 * E0517 to E0521, E0540 to E0548. */
PPS_API pps_status pps_prove(pps_state *st, const plan_set *set);

typedef struct prove_options {
    bool buffered; /* a send ends without its receive; else both ends meet (the stricter verdict,
                    * which implies the other) */
} prove_options;
PPS_API pps_status pps_prove_with(pps_state *st, const plan_set *set, const prove_options *options);

#endif
