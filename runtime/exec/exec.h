/* SPDX-License-Identifier: Apache-2.0
 *
 * exec.h: one rank runs its plan. Knows steps, streams and waits; knows no strategy, and nothing of
 * how work is done: a backend computes and communicates.
 */
#ifndef PPS_RUNTIME_EXEC_H
#define PPS_RUNTIME_EXEC_H

#include "ir/plan.h"

typedef struct exec_rank exec_rank;

/* One step's time, ns from the run's start. For communication: issued and completed. */
typedef struct exec_mark {
    uint64_t begin_ns, end_ns;
    uint64_t sent_bytes; /* communication: bytes that left this rank; copies: bytes copied */
} exec_mark;

/* What a backend does. Addresses are this rank's. `begin` starts a step and returns at once for
 * communication (and for paced compute); a backend that computes in the calling thread returns with
 * *ret_done set. `poll` advances a started step. `idle` sleeps until something may have changed. */
typedef struct exec_backend {
    const char *name;
    pps_status (*begin)(void *self, exec_rank *r, uint32_t step, bool *ret_done);
    pps_status (*poll)(void *self, exec_rank *r, uint32_t step, bool *ret_done);
    pps_status (*idle)(void *self, exec_rank *r);
    bool has_memory; /* exec_rank.arena is the plan's; else scratch of the backend's own */
} exec_backend;

struct exec_rank {
    const plan_set *set;
    const plan *plan;
    uint32_t rank, group_index;
    plan_seat *seats;     /* [set->n_teams], by exec_rank_seat */
    char *arena;          /* plan->total_bytes */
    char *host;           /* plan->host_bytes of host memory; NULL on the paced backend */
    double *losses;       /* [set->n_losses] for this rank: slots of its own F steps are written */
    uint64_t epoch;       /* training step, from 0 */
    exec_mark *marks;     /* [plan->n_steps], or NULL */
    uint64_t origin_ns;   /* the run's start (CLOCK_MONOTONIC): marks count from here */
    uint64_t *sent_bytes; /* [PLAN_STEP_KIND_COUNT] running sums */
    uint64_t dropped;     /* running sum: choices of experts beyond their capacity */
    float lr_scale;
    const exec_backend *backend;
    void *backend_self;
    /* called before an UPDATE step zeroes its gradients, or NULL */
    void (*before_update)(void *ud, exec_rank *r, const plan_bucket *bucket);
    void *before_update_ud;
    uint32_t failed_step; /* the step now begun, polled or waited for: where a failure happened */
    struct exec_streams *streams; /* exec.c */
};

/* Finds the rank's seats in teams; backends ask for them. exec_rank_done frees them. */
pps_status exec_rank_seat(exec_rank *r);
/* Allocates what the step loop needs; nothing is allocated later. When built with AddressSanitizer,
 * activation blocks that are not in use are poisoned from here to exec_rank_done. `backend` is set.
 */
pps_status exec_rank_init(exec_rank *r);
void exec_rank_done(exec_rank *r);
/* One training step: every step of the plan once. The plan is issued in order: a communication
 * joins its stream's queue, computing waits until it can begin. */
pps_status exec_run_step(exec_rank *r);

/* cpu_backend.c: compute by cpu kernels, communication by coll, copies by the thread that has
 * nothing else to do. A CPU rank's own memory is host memory already: both lie in one arena of
 * exec_cpu_arena_bytes, host memory from exec_cpu_host on. */
struct coll_rank;
struct cpu_blas;
uint64_t exec_cpu_arena_bytes(const plan *p);
char *exec_cpu_host(const plan *p, char *memory);
pps_status exec_cpu_backend_new(exec_rank *r, struct coll_rank *coll, const struct cpu_blas *blas,
                                void **ret_self);
void exec_cpu_backend_free(void *self);
extern const exec_backend exec_cpu_backend;
/* paced_backend.c: computes and links sleep instead of working, by the costs given; several ranks
 * as processes or threads, over the same coll for rendezvous. No data moves: exec_rank.arena is
 * scratch of exec_paced_arena_bytes. B takes two units (BI then BW), one more where F is
 * recomputed, UPDATE nothing, COUNTS the latency alone; copies cost what communication does, and
 * wait for nobody. */
uint64_t exec_paced_arena_bytes(const plan_set *set);
typedef struct exec_paced_costs {
    double compute_ns_per_flop; /* or, when unit_ns > 0, every F, BI, BW of a chunk takes unit_ns */
    double unit_ns;
    double comm_ratio; /* > 0: every communication or copy takes comm_ratio * unit_ns */
    double latency_ns, ns_per_byte; /* otherwise latency + bytes * ns_per_byte */
} exec_paced_costs;
/* Costs under which every F, BI, BW takes `unit_ns`, every communication but COUNTS the same time,
 * and all ranks' communication together `comm_share` of their computes. */
exec_paced_costs exec_paced_share(const plan_set *set, double unit_ns, double comm_share);
pps_status exec_paced_backend_new(exec_rank *r, struct coll_rank *coll,
                                  const exec_paced_costs *costs, void **ret_self);
void exec_paced_backend_free(void *self);
extern const exec_backend exec_paced_backend;

#endif
