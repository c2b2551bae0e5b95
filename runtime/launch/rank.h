/* SPDX-License-Identifier: Apache-2.0
 *
 * rank.h: what the parent and its ranks share. Internal to runtime/launch.
 */
#ifndef PPS_RUNTIME_LAUNCH_RANK_H
#define PPS_RUNTIME_LAUNCH_RANK_H

#include "runtime/coll/coll.h"
#include "runtime/cpu/cpu.h"
#include "runtime/launch/launch.h"
#include "runtime/train/train.h"

typedef struct rank_block { /* on the board: written by its rank, read by the parent afterwards */
    _Alignas(64) exec_rank exec; /* its failed_step and epoch are current while the rank runs */
    pps_status status;
    uint64_t measured_bytes, measured_host_bytes;
    uint64_t sent_now[PLAN_STEP_KIND_COUNT], sent[PLAN_STEP_KIND_COUNT];
    char reason[256];
} rank_block;

typedef struct launch_cx { /* made before ranks start, then constant */
    const launch_options *opt;
    const plan_set *set;
    coll_world *world;
    rank_block *blocks;              /* [n_ranks] */
    double **losses;                 /* [n_ranks][n_losses], on the board */
    exec_mark **marks;               /* [n_ranks], on the board, NULL without trace */
    char *params, *grads;            /* gathered, on the board, NULL when not wanted */
    uint64_t trace_first, trace_end; /* training steps, from 0 */
    train_data *data;
    train_weights *weights;
    train_layout layout;
    cpu_blas blas;
    bool has_blas;
    uint64_t origin_ns;
} launch_cx;

/* What a rank writes to its pipe after every step, followed by its n_losses doubles. */
typedef struct rank_report {
    uint64_t step;             /* from 0 */
    uint64_t begin_ns, end_ns; /* CLOCK_MONOTONIC */
    uint64_t dropped;          /* choices that this rank's routers dropped */
} rank_report;

static inline const plan *launch_plan(const launch_cx *cx, uint32_t rank)
{
    return &cx->set->plans[cx->set->rank_group[rank]];
}

/* rank.c: everything one rank does, in its own process or thread. Reports go to `fd`. On failure
 * the world is aborted and the block says why. */
pps_status rank_run(const launch_cx *cx, uint32_t rank, int fd);

/* supervise.c: start the ranks, follow them to their end, add up losses. Fills steps, losses and
 * where it failed. `ret_how` tells what happened to a rank that was lost ("killed by signal 9
 * (Killed)"). */
pps_status launch_supervise(launch_cx *cx, launch_result *result, char ret_how[256]);

#endif
