/* SPDX-License-Identifier: Apache-2.0
 *
 * cost.h: rows of `order`, timed with unit costs and no model.
 *
 * Stages are 0 to the highest named and stage s feeds s+1. A rank's row runs group after group;
 * what one stage costs is the share of the rank's model that it is, 1/v with v distinct stages in
 * the row; a stage that k rows run, each for other microbatches, counts as 1/k in each. A group is atomic: it starts when the inputs of all its ops are there (its ops do not
 * feed each other), takes the sum of their costs, and gives all its outputs at its end.
 * Communication is free and asynchronous. Where sequences are split a slice costs its share of a
 * microbatch: that later slices attend to more keys is not counted.
 */
#ifndef PPS_PASSES_COST_H
#define PPS_PASSES_COST_H

#include "ir/directive.h"

typedef struct cost_units { /* of a rank's whole share of the model; B takes bi + bw */
    double f, bi, bw;
} cost_units;

/* A row that cannot go on: `entry` waits for another op. */
typedef struct cost_stuck {
    uint32_t row;
    uint32_t entry;     /* in ir_program.entries */
    uint32_t waits_for; /* likewise; IR_NONE: no row runs that op */
    uint32_t stage, mb; /* the op waited for */
    uint8_t pass;       /* pps_pass; B stands for B or BI */
} cost_stuck;

typedef struct cost_rows {
    uint32_t n_ranks;  /* rows of the program */
    uint32_t n_stages; /* highest named + 1 */
    /* [entries] by index in ir_program.entries; every op of a group has the group's interval */
    double *begin, *end;
    double *busy; /* [n_ranks] */
    double
        *peak; /* [n_ranks] most activations held, in rank shares: from F to the end of B or BW */
    uint32_t *stages;      /* rank r's distinct stages, ascending: stages[stage_begin[r]] .. */
    uint32_t *stage_begin; /* [n_ranks + 1] */
    double makespan;
    double bubble;     /* 1 - busy / (n_ranks * makespan) */
    cost_stuck *stuck; /* [n_stuck], by row; empty unless the rows deadlock */
    uint32_t n_stuck;
} cost_rows;

/* Time the rows of `p`; `units` NULL means 1 each. Linear in entries (n log n in a row's stages).
 * `ret` is owned by the caller: release with cost_rows_done after success and after failure.
 * Errors: PPS_ERR_SCRIPT when the rows wait for each other or for an op that no row runs (then
 * ret->stuck says where), or name ops that need a model (tags beside PP and MB), or an op twice;
 * with diagnostics if p->st is set. PPS_ERR_NOMEM. */
pps_status cost_simulate_rows(const ir_program *p, const cost_units *units, cost_rows *ret);
void cost_rows_done(cost_rows *r);
/* The slice + 1 that an op of such rows names; 0: its whole microbatch. */
uint32_t cost_entry_slice(const ir_program *p, const ir_entry *e);

#endif
