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
    if (plan_is(r->kind, PLAN_COPY))
        return m->latency + (double)pass_copy_bytes(cx, r) / m->bytes;
    if (r->link == IR_NONE)
        return m->latency;
    const dag_link *k = &cx->dag->links[r->link];
    /* the side where rows lie with their tokens: what moves on average, not the worst case */
    uint32_t chunk = k->exchange != DAG_NO_EXCHANGE && !k->exchange_at_dst ? k->dst : k->src;
    return m->latency + (double)pass_tensor_bytes(cx, k->tensor, chunk) / m->bytes;
}
