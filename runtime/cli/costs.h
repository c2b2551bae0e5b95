/* SPDX-License-Identifier: Apache-2.0
 *
 * costs.h: measured costs as a file: what `pps run --profile` writes and `--costs` reads.
 *
 *   {"pps_costs": 1,
 *    "computes": [{"chunk": "PP0", "seconds": [F, BI, BW]}, ...],   one microbatch on one rank
 *    "latency": SECONDS, "bytes_per_second": NUMBER}                of a communication
 */
#ifndef PPS_CLI_COSTS_H
#define PPS_CLI_COSTS_H

#include "passes/pps_plan.h"
#include "runtime/exec/exec.h"

typedef struct costs { /* owns what `machine` points to; costs_done */
    pass_machine machine;
    void *storage;
} costs;

/* From the marks of one step (marks[r]: rank r's): the median over ranks and microbatches of every
 * chunk's passes; a communication lasts from when its last rank came to its end, the shortest is
 * the latency, and the bytes of all take what they last beyond that. A backward that ran whole is
 * divided between its halves as their FLOPs are; one that ran F again counts without that.
 * E0974, E0978. */
pps_status costs_write(pps_state *st, const plan_set *set, exec_mark *const *marks,
                       const char *path);
/* E0979: the file cannot be read, or is not as above. `ret` is released with costs_done either way.
 */
pps_status costs_read(pps_state *st, const char *path, costs *ret);
void costs_done(costs *c);

#endif
