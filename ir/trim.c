/* SPDX-License-Identifier: Apache-2.0
 *
 * trim.c: the part of a traced graph that one loss needs, as a graph of its own. A state traces
 * whatever its scripts call; what compiles is this copy, so nothing later has to ask which ops,
 * parameters or regions count.
 */
#include "ir/build.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct trimmer {
    const ir_graph *from;
    ir_graph *to;
    uint8_t *needed;                     /* [from->n_ops] */
    ir_id *op, *tensor, *param, *tagset; /* new ids, IR_NONE: not copied (yet) */
} trimmer;

static ir_id *map_new(arena *mem, uint32_t n)
{
    ir_id *map = arena_new(mem, ((size_t)n + 1) * sizeof *map);
    if (map)
        memset(map, 0xff, ((size_t)n + 1) * sizeof *map);
    return map;
}

static void mark(trimmer *t, const ir_id *loss_ops, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        t->needed[loss_ops[i]] = 1;
    for (ir_id id = t->from->n_ops; id-- > 0;) {
        const ir_op *op = &t->from->ops[id];
        for (uint32_t i = 0; t->needed[id] && i < op->n_in; i++)
            if (t->from->tensors[op->in[i]].op != IR_NONE)
                t->needed[t->from->tensors[op->in[i]].op] = 1;
    }
}

/* Tag indices restart with each outermost model call, so tagged ops of two calls cannot share a
 * loss. */
static pps_status find_trace(const trimmer *t, uint32_t *ret)
{
    const ir_op *tagged = NULL;
    uint32_t latest = 0;
    for (ir_id id = 0; id < t->from->n_ops; id++) {
        const ir_op *op = &t->from->ops[id];
        if (!t->needed[id])
            continue;
        latest = op->trace;
        if (op->tagset == 0)
            continue;
        if (tagged && tagged->trace != op->trace) {
            pps_diag *d = pps_diag_start(t->from->st, PPS_SEV_ERROR, 1014, op->span,
                                         "the loss joins regions of two model calls");
            pps_diag_label(d, "in a region of the second call");
            if (tagged->span.begin != op->span.begin)
                pps_diag_also(d, tagged->span, "in a region of the first call");
            pps_diag_note(d, "tag indices restart with each call; call the parts from one model");
            return pps_diag_done(d);
        }
        tagged = tagged ? tagged : op;
    }
    *ret = tagged ? tagged->trace : latest;
    return PPS_OK;
}

static pps_status copy_data(trimmer *t, ir_id tensor)
{
    if (t->tensor[tensor] != IR_NONE)
        return PPS_OK;
    const ir_data *d = &t->from->data[t->from->tensors[tensor].data];
    return ir_add_data(t->to, (ir_data_kind)d->kind, d->key, d->n_dims, d->dims, d->span,
                       &t->tensor[tensor]);
}

static pps_status copy_tagset(trimmer *t, ir_id tagset)
{
    if (t->tagset[tagset] != IR_NONE)
        return PPS_OK;
    const ir_tagset *set = &t->from->tagsets[tagset];
    return ir_add_tagset(t->to, &t->from->tags[set->begin], set->n, &t->tagset[tagset]);
}

static pps_status copy_op(trimmer *t, ir_id id)
{
    const ir_op *old = &t->from->ops[id];
    ir_op op = *old;
    for (uint32_t i = 0; i < op.n_in; i++) {
        if (t->from->tensors[op.in[i]].op == IR_NONE)
            PPS_TRY(copy_data(t, op.in[i]));
        op.in[i] = t->tensor[op.in[i]];
        assert(op.in[i] != IR_NONE);
    }
    for (uint32_t i = 0; i < op.n_param; i++) {
        if (op.param[i] == IR_NONE)
            continue;
        if (t->param[op.param[i]] == IR_NONE)
            PPS_TRY(ir_add_param(t->to, &t->from->params[op.param[i]], &t->param[op.param[i]]));
        op.param[i] = t->param[op.param[i]];
    }
    PPS_TRY(copy_tagset(t, op.tagset));
    op.tagset = t->tagset[op.tagset];
    PPS_TRY(ir_add_op(t->to, &op, &t->op[id]));
    for (uint32_t i = 0; i < old->n_out; i++) {
        const ir_tensor *out = &t->from->tensors[old->out[i]];
        PPS_TRY(ir_add_output(t->to, t->op[id], (ir_dtype)out->dtype, out->flags, out->n_dims,
                              out->dims, &t->tensor[old->out[i]]));
    }
    return PPS_OK;
}

static int by_name(const void *a, const void *b)
{
    const ir_param *const *p = a, *const *q = b;
    return strcmp((*p)->name, (*q)->name);
}

/* Within one model call a name is one parameter; two calls (or a call and what runs outside) may
 * have made two. */
static pps_status check_names(const ir_graph *g, arena *scratch)
{
    const ir_param **sorted = arena_new(scratch, (g->n_params + 1) * sizeof *sorted);
    if (!sorted)
        return PPS_ERR_NOMEM;
    for (uint32_t i = 0; i < g->n_params; i++)
        sorted[i] = &g->params[i];
    qsort(sorted, g->n_params, sizeof *sorted, by_name);
    for (uint32_t i = 1; i < g->n_params; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) != 0)
            continue;
        bool ordered = sorted[i - 1] < sorted[i];
        const ir_param *first = sorted[ordered ? i - 1 : i], *second = sorted[ordered ? i : i - 1];
        pps_diag *d = pps_diag_start(g->st, PPS_SEV_ERROR, 1006, second->span,
                                     "two parameters are named '%s'", second->name);
        pps_diag_also(d, first->span, "the other is made here, outside this model call");
        pps_diag_help(d, "give one of them another `name=`");
        return pps_diag_done(d);
    }
    return PPS_OK;
}

static pps_status trim(trimmer *t, arena *mem, arena *scratch, const ir_id *loss_ops, uint32_t n,
                       ir_id *ret_loss)
{
    const ir_graph *from = t->from;
    t->needed = arena_zero(scratch, from->n_ops + 1);
    t->op = map_new(scratch, from->n_ops);
    t->tensor = map_new(scratch, from->n_tensors);
    t->param = map_new(scratch, from->n_params);
    t->tagset = map_new(scratch, from->n_tagsets);
    if (!t->needed || !t->op || !t->tensor || !t->param || !t->tagset)
        return PPS_ERR_NOMEM;
    PPS_TRY(ir_graph_init(t->to, mem, from->st));
    mark(t, loss_ops, n);
    uint32_t trace = 0;
    PPS_TRY(find_trace(t, &trace));
    for (ir_id id = 0; id < from->n_ops; id++)
        if (t->needed[id])
            PPS_TRY(copy_op(t, id));
    for (uint32_t i = 0; i < from->n_regions; i++) {
        const ir_region *r = &from->regions[i];
        if (r->trace == trace)
            PPS_TRY(ir_add_region(t->to, r->tag, r->index, r->trace, r->span));
    }
    PPS_TRY(check_names(t->to, scratch));
    for (uint32_t i = 0; i < n; i++)
        ret_loss[i] = t->op[loss_ops[i]];
    return PPS_OK;
}

pps_status ir_graph_trim(const ir_graph *from, arena *mem, const ir_id *loss_ops, uint32_t n,
                         ir_graph *ret, ir_id *ret_loss)
{
    arena scratch;
    arena_init(&scratch, mem->alloc, mem->alloc_ud);
    trimmer t = {.from = from, .to = ret};
    pps_status status = trim(&t, mem, &scratch, loss_ops, n, ret_loss);
    arena_done(&scratch);
    return status;
}
