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

/* Of node `m` of run `r` alone, through `visit`. Here, so that loops over all vertices can have it
 * inline, with the visit. */
static inline void schedule_run_successors(const dag *d, const dag_run *r, uint32_t m,
                                           schedule_visit visit, void *ud)
{
    for (uint32_t k = 0; k < r->succs.n; k++) {
        const dag_run *to = &d->runs[d->run_edges[r->succs.begin + k]];
        uint32_t at = to->n == 1 && r->n != 1 ? 0 : m;
        if (dag_run_alive(d, to, at))
            visit(ud, d->runs[to->lead].first + at);
    }
    uint32_t slice = dag_slice_after(d, r, m);
    if (slice != IR_NONE)
        visit(ud, r->first + slice);
}

/* Successors of vertex `v`. */
static inline void schedule_successors(const schedule_graph *s, uint32_t v, schedule_visit visit,
                                       void *ud)
{
    const pass_cx *cx = s->cx;
    const dag *d = cx->dag;
    const dag_run *r = &d->runs[d->node_run[v]];
    for (uint32_t i = d->node_run[v]; i != IR_NONE; i = d->runs[i].next)
        schedule_run_successors(d, &d->runs[i], v - r->first, visit, ud);
    if ((r->kind == PLAN_COMPUTE || r->kind == PLAN_UPDATE) &&
        (s->row_group == IR_NONE || s->row_group == r->group)) {
        uint32_t next = cx->node_pos[v] + 1;
        if (next < cx->group_order[r->group].n)
            visit(ud, cx->order_of[r->group][next]);
    }
    for (uint32_t k = s->list_begin[v]; s->row_group == IR_NONE && k < s->list_begin[v + 1]; k++)
        visit(ud, s->list[k]);
}

/* There is a cycle: report it. E0501 when one row alone contradicts the dataflow, E0502 when rows
 * wait for each other. Returns the failure. */
pps_status schedule_report_cycle(pass_cx *cx, const schedule_graph *s);

#endif
