/* SPDX-License-Identifier: Apache-2.0
 *
 * machine.c: costs from op shapes: FLOPs over a rate, bytes over a bandwidth plus a latency.
 */
#include "passes/machine.h"

const pass_machine machine_default = {.flops = 4e14, .bytes = 2e11, .latency = 1e-5};

static const pass_machine *machine_of(const pass_cx *cx)
{
    return cx->options->machine != NULL ? cx->options->machine : &machine_default;
}

double machine_compute(const pass_cx *cx, uint32_t chunk, ir_phase phase)
{
    const ir_graph *g = cx->program->graph;
    ir_range ops = g->chunks[chunk].ops;
    double flops = 0.0;
    for (uint32_t i = 0; i < ops.n; i++)
        flops += ir_op_flops(g, &g->ops[g->lists[ops.begin + i]], phase);
    return flops * cx->local_rows[cx->dag->chunks[chunk].group] / machine_of(cx)->flops;
}

double machine_hop(const pass_cx *cx, const dag_run *r)
{
    const pass_machine *m = machine_of(cx);
    if (r->link == IR_NONE)
        return m->latency;
    const dag_link *k = &cx->dag->links[r->link];
    pass_link_bytes bytes = pass_bytes_of_link(cx, k);
    double n, all = (double)(bytes.used > bytes.made ? bytes.used : bytes.made);
    switch ((plan_step_kind)r->kind) {
    case PLAN_SEQ_TAKE:
        return 0.0;
    case PLAN_SUM: /* a scatter and a gather */
        n = cx->set->teams[r->teams].size;
        return m->latency + 2.0 * all * (n - 1) / n / m->bytes;
    case PLAN_SEQ_SCATTER:
    case PLAN_SEQ_GATHER:
    case PLAN_STATS:
        n = cx->set->teams[r->teams].size;
        return m->latency + all * (n - 1) / n / m->bytes;
    case PLAN_SEND:
    case PLAN_RECV:
    case PLAN_COUNTS:
    case PLAN_ALL_TO_ALL:
    case PLAN_SHIFT:
    case PLAN_COMPUTE:
    case PLAN_ALL_REDUCE:
    case PLAN_UPDATE:
    case PLAN_REDUCE_SCATTER:
    case PLAN_ALL_GATHER:
    case PLAN_CLEAR:
    case PLAN_STEP_KIND_COUNT:
        break;
    }
    /* between the borders rows lie with their tokens: what moves on average, not the worst case */
    return m->latency + (double)bytes.wire / m->bytes;
}
