/* SPDX-License-Identifier: Apache-2.0
 *
 * sizes.c: how many batch rows a microbatch has on one rank, and what tensors measure there. A
 * slice has its share of the positions of each row.
 */
#include "passes/pass.h"

pps_status pass_local_rows(pass_cx *cx)
{
    const dag *d = cx->dag;
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    PASS_ALLOC(cx->local_rows, cx->scratch, d->n_groups);
    uint32_t batch = g->n_data > 0 ? g->data[0].dims[0] : 1;
    for (uint32_t i = 0; i < d->n_groups; i++) {
        uint32_t n_mb = d->n_mb / d->n_slices, parts = d->groups[i].n_replicas * n_mb;
        if (batch % parts != 0) {
            pps_diag *diag = pass_diag(cx, NULL, d->groups[i].span, 210,
                                       "cannot divide %u rows over %u replicas of %u microbatches",
                                       batch, d->groups[i].n_replicas, n_mb);
            pps_diag_also(diag, g->data[0].span, "the batch comes from here");
            if (d->split != IR_NONE)
                pps_diag_also(diag, p->directives[d->split].source->span, "split here");
            return pps_diag_done(diag);
        }
        cx->local_rows[i] = batch / parts;
    }
    return PPS_OK;
}

uint64_t pass_tensor_bytes(const pass_cx *cx, ir_id tensor, uint32_t chunk)
{
    const ir_graph *g = cx->program->graph;
    const ir_tensor *t = &g->tensors[tensor];
    const dag_chunk *k = &cx->dag->chunks[chunk];
    if (t->flags & IR_TENSOR_COUNTS)
        return 4ull * t->dims[0] * k->ep;
    ir_extent e = ir_tensor_extent(g, t, k->ep);
    return e.per_row / cx->dag->n_slices * cx->local_rows[k->group] + e.fixed;
}

uint64_t pass_grad_bytes(const pass_cx *cx, ir_id tensor, uint32_t chunk)
{
    const ir_tensor *tensors = cx->program->graph->tensors;
    while (tensors[tensor].border != IR_NO_BORDER &&
           dag_border_step((ir_border)tensors[tensor].border, PPS_PASS_BI) == PLAN_NONE)
        tensor = tensors[tensor].of;
    return pass_tensor_bytes(cx, tensor, chunk);
}

pass_link_bytes pass_bytes_of_link(const pass_cx *cx, const dag_link *k)
{
    /* rows lie with their tokens on the way, whichever end is sharded */
    uint32_t on_the_way = k->border[DAG_SRC] == IR_BORDER_ROWS ? k->dst : k->src;
    return (pass_link_bytes){.made = pass_tensor_bytes(cx, k->made, k->src),
                             .wire = pass_tensor_bytes(cx, k->wire, on_the_way),
                             .used = pass_tensor_bytes(cx, k->tensor, k->dst)};
}
