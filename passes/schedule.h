/* SPDX-License-Identifier: Apache-2.0
 *
 * schedule.h: the graph that the schedule pass sorts, shared with the report of its cycles.
 */
#ifndef PPS_PASSES_SCHEDULE_H
#define PPS_PASSES_SCHEDULE_H

#include "passes/pass.h"

typedef struct schedule_graph {
    pass_cx *cx;
    uint32_t *list_begin; /* [n_nodes + 1] just-in-time and extra edges, by source */
    uint32_t *list;
    uint32_t row_group; /* IR_NONE; or a device group: its row and the dataflow are all there is */
} schedule_graph;

typedef void (*schedule_visit)(void *ud, uint32_t vertex);

/* A send and its receive are one vertex, the send's node. */
uint32_t schedule_vertex(const dag *d, uint32_t node);
void schedule_successors(const schedule_graph *s, uint32_t vertex, schedule_visit visit, void *ud);

/* There is a cycle: report it. E0501 when one row alone contradicts the dataflow, E0502 when rows
 * wait for each other. Returns the failure. */
pps_status schedule_report_cycle(pass_cx *cx, const schedule_graph *s);

#endif
