/* SPDX-License-Identifier: Apache-2.0
 *
 * rank_threads.h: a plan set run by threads of the test, every step of which can be watched. The
 * watcher stands between executor and backend; neither knows of it.
 */
#ifndef PPS_TEST_RANK_THREADS_H
#define PPS_TEST_RANK_THREADS_H

#include "compiled.h"
#include "runtime/cpu/cpu.h"
#include "runtime/exec/exec.h"

/* Called in the rank's thread, where asserts do not work. NULL: not called. */
typedef struct rank_watch {
    void *ud;                                              /* handed to each */
    void (*before)(void *ud, exec_rank *r, uint32_t step); /* before the step begins */
    void (*after)(void *ud, exec_rank *r, uint32_t step);  /* after it is done */
    void (*loop)(void *ud, exec_rank *r, bool enters);     /* around exec_run_step */
} rank_watch;

typedef struct rank_threads {
    const compiled *compiled;
    uint64_t steps;
    const exec_paced_costs *paced; /* NULL: the CPU backend */
    const cpu_blas *blas;          /* NULL: plain kernels */
    rank_watch watch;
    /* results */
    double loss; /* of the last step, all slots */
    char sha256[65];
    uint64_t last_step_ns; /* of the slowest rank */
} rank_threads;

/* Run; fails the test when a rank fails. */
void rank_threads_run(rank_threads *t);

#endif
