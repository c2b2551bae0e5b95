/* SPDX-License-Identifier: Apache-2.0
 *
 * machine.c: costs as measured, or else from op shapes: FLOPs over a rate; bytes over a bandwidth
 * plus a latency.
 */
#include "passes/machine.h"

#include <stdlib.h>
#include <string.h>

const pass_machine machine_default = {.flops = 4e14, .bytes = 2e11, .latency = 1e-5};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const pass_cost *)a)->chunk, ((const pass_cost *)b)->chunk);
}

pps_status machine_open(pass_cx *cx)
{
    const pass_machine *m = cx->options->machine;
    const dag *d = cx->dag;
    pass_cost *sorted;
    bool *used;
    pps_span none = {0};
    if (m == NULL || m->costs == NULL)
        return PPS_OK;
    PASS_ALLOC(cx->measured, cx->scratch, d->graph->n_chunks);
    PASS_ALLOC(sorted, cx->scratch, m->n_costs);
    PASS_ALLOC(used, cx->phase, m->n_costs);
    memcpy(sorted, m->costs, m->n_costs * sizeof *sorted);
    qsort(sorted, m->n_costs, sizeof *sorted, by_name);
    for (uint32_t c = 0; c < d->n_model_chunks; c++) {
        char name[PASS_NAME_BYTES];
        pass_cost key = {.chunk = pass_chunk_name(cx, c, name)};
        const pass_cost *found =
            m->n_costs > 0 ? bsearch(&key, sorted, m->n_costs, sizeof *sorted, by_name) : NULL;
        if (found == NULL)
            return pps_error(cx->st, d->graph->chunks[c].span, 526,
                             "the measured costs have none of chunk %s: they are of another model",
                             name);
        used[found - sorted] = true;
        for (uint32_t i = c; i < d->graph->n_chunks; i += d->n_model_chunks)
            cx->measured[i] = found;
    }
    for (uint32_t i = 0; i < m->n_costs; i++)
        if (!used[i])
            return pps_error(cx->st, none, 526,
                             "there are measured costs of chunk %s, which the model does not have",
                             sorted[i].chunk);
    return PPS_OK;
}

static double or_default(double x, double otherwise)
{
    return x > 0.0 ? x : otherwise;
}

double machine_compute(const pass_cx *cx, uint32_t chunk, ir_phase phase)
{
    const ir_graph *g = cx->program->graph;
    ir_range ops = g->chunks[chunk].ops;
    double flops = 0.0, rate = machine_default.flops;
    if (cx->measured != NULL)
        return cx->measured[chunk]->seconds[phase];
    if (cx->options->machine != NULL)
        rate = or_default(cx->options->machine->flops, rate);
    for (uint32_t i = 0; i < ops.n; i++)
        flops += ir_op_flops(g, &g->ops[g->lists[ops.begin + i]], phase);
    flops *= cx->local_rows[cx->dag->chunks[chunk].group]; /* slices: a share each, on average */
    return flops / cx->dag->n_slices / rate;
}

double machine_hop(const pass_cx *cx, const dag_run *r)
{
    const pass_machine *m = cx->options->machine != NULL ? cx->options->machine : &machine_default;
    if (plan_is(r->kind, PLAN_COPY))
        return m->latency +
               (double)pass_copy_bytes(cx, r) / or_default(m->bytes, machine_default.bytes);
    if (r->link == IR_NONE)
        return m->latency;
    const dag_link *k = &cx->dag->links[r->link];
    pass_link_bytes bytes = pass_bytes_of_link(cx, k);
    double n, all = (double)(bytes.used > bytes.made ? bytes.used : bytes.made);
    double rate = or_default(m->bytes, machine_default.bytes);
    switch ((plan_step_kind)r->kind) {
    case PLAN_SEQ_TAKE:
        return 0.0;
    case PLAN_SUM: /* a scatter and a gather */
        n = cx->set->teams[r->teams].size;
        return m->latency + 2.0 * all * (n - 1) / n / rate;
    case PLAN_SEQ_SCATTER:
    case PLAN_SEQ_GATHER:
    case PLAN_STATS:
        n = cx->set->teams[r->teams].size;
        return m->latency + all * (n - 1) / n / rate;
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
    case PLAN_OFFLOAD: /* above */
    case PLAN_FETCH:
    case PLAN_STEP_KIND_COUNT:
        break;
    }
    /* between the borders rows lie with their tokens: what moves on average, not the worst case */
    return m->latency + (double)bytes.wire / rate;
}
