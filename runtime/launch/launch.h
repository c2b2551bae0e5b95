/* SPDX-License-Identifier: Apache-2.0
 *
 * launch.h: run a plan set on this machine, one process or thread per rank, and watch over them.
 *
 * The caller's process is the parent: it opens data and weights, makes the shared segment, starts
 * the ranks, adds up their losses, and ends them together: on SIGINT or SIGTERM, when one is lost,
 * when one fails. Ranks that are processes die with the parent. Nothing is left behind in any case.
 */
#ifndef PPS_RUNTIME_LAUNCH_H
#define PPS_RUNTIME_LAUNCH_H

#include "runtime/exec/exec.h"

typedef enum launch_backend { LAUNCH_CPU, LAUNCH_PACED } launch_backend;

typedef struct launch_options {
    const plan_set *set;
    pps_state *st;        /* diagnostics go here; NULL: none are made */
    const char *base_dir; /* data and weights paths are relative to it; NULL: the current one */
    uint64_t steps;
    bool threads; /* ranks are threads of this process; else forked processes */
    launch_backend backend;
    bool plain_kernels; /* no OpenBLAS. Without it: OpenBLAS, or plain kernels and a note */
    exec_paced_costs paced;
    bool trace;
    bool memory_check; /* fill the activations with a pattern before every step, not only the first:
                        * a step that reads what an earlier one left meets NaNs */
    const char *save_path, *save_gradients_path; /* safetensors; gradients are those of step 1 */
    bool want_hash; /* the paced backend has no parameters: its hash stays "" */
    /* In the parent, in step order; `step` counts from 1; `ms` since the step before ended. */
    void (*on_step)(void *ud, uint64_t step, double loss, double aux_loss, double ms);
    void *on_step_ud;
    uint32_t trace_first; /* with `trace`: first traced step, from 1; 0: the last `trace_steps` */
    uint32_t trace_steps; /* 0: 1 */
} launch_options;

/* Owned by the caller; release with launch_result_done, whatever launch_run returned. */
typedef struct launch_result {
    uint64_t steps_done;
    double first_loss, last_loss;
    uint64_t dropped; /* choices of experts beyond their capacity, in the last step; 0 where none is
                       * planned and on the paced backend; current when on_step is called */
    /* [n_ranks]. Measured: the end of the highest bytes that changed in the arena; 0 on the paced
     * backend, which has no memory. */
    uint64_t *planned_bytes, *measured_bytes;
    uint64_t *planned_host_bytes, *measured_host_bytes; /* [n_ranks] the same of host memory */
    char params_sha256[65];
    exec_mark **marks; /* [n_ranks][trace_steps * n_steps of its plan], or NULL without `trace` */
    /* [n_ranks] bytes that left each rank, or were copied to host memory and back, of the first
     * traced step, else of the last */
    uint64_t (*sent_bytes)[PLAN_STEP_KIND_COUNT];
    char blas_core[64]; /* "" with plain kernels */
    /* where the run failed; IR_NONE when it did not, or not on a rank, or between steps */
    uint32_t failed_rank, failed_step;
    uint64_t failed_epoch; /* training step, from 1 */
} launch_result;

/* Run `steps` training steps. Errors, each with a diagnostic:
 *   PPS_ERR_SCRIPT     data or weights do not fit (train.h); saving from the paced backend (E0957)
 *   PPS_ERR_ARG        no steps, or a trace beyond them (no diagnostic)
 *   PPS_ERR_COLL       a rank was lost, or plans disagree (E0951, E0952)
 *   PPS_ERR_LIMIT      more rows reached an expert's rank than its plan has room for (E0953)
 *   PPS_ERR_MACHINE    the machine cannot hold or start the ranks (E0955)
 *   PPS_ERR_INTERRUPT  SIGINT or SIGTERM (no diagnostic)
 *   PPS_ERR_IO         the result could not be written
 * SIGINT and SIGTERM are blocked in this thread, and taken, while it runs. */
pps_status launch_run(const launch_options *opt, launch_result *ret);
void launch_result_done(launch_result *result);

#endif
