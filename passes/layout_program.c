/* SPDX-License-Identifier: Apache-2.0
 *
 * layout_program.c: the program being built: its bindings, its temporaries, its operands and
 * kernels. Temporaries get their offsets when all kernels are known: in WORK, packed by their lives
 * within the step, or one after the other in HELD.
 */
#include "passes/layout.h"

#include <string.h>

pps_status layout_grow(arena *mem, void **array, uint32_t *cap, uint32_t need, size_t item)
{
    if (need <= *cap)
        return PPS_OK;
    uint32_t wanted = need * 2 + 32;
    void *bigger = arena_new(mem, wanted * item);
    if (bigger == NULL)
        return PPS_ERR_NOMEM;
    if (*cap > 0)
        memcpy(bigger, *array, *cap * item);
    *array = bigger;
    *cap = wanted;
    return PPS_OK;
}

pps_status layout_bind(layout *l, uint8_t what, uint32_t index, uint64_t offset, where *ret)
{
    pass_cx *cx = l->cx;
    pass_program *p = l->program;
    uint32_t i = 0;
    while (i < p->binds.n && (cx->binds[p->binds.begin + i].what != what ||
                              cx->binds[p->binds.begin + i].index != index))
        i++;
    if (i == p->binds.n) {
        PPS_TRY(layout_grow(cx->mem, (void **)&cx->binds, &cx->cap_binds, cx->n_binds + 1,
                            sizeof *cx->binds));
        cx->binds[cx->n_binds++] = (pass_bind){what, index};
        p->binds.n++;
    }
    *ret = (where){W_BIND, i, offset};
    return PPS_OK;
}

pps_status layout_temp(layout *l, uint64_t bytes, bool held, where *ret)
{
    PPS_TRY(layout_grow(l->cx->scratch, (void **)&l->temps, &l->cap_temps, l->n_temps + 1,
                        sizeof *l->temps));
    l->temps[l->n_temps] = (temp){.bytes = bytes, .first = IR_NONE, .held = held};
    *ret = (where){W_TEMP, l->n_temps++, 0};
    return PPS_OK;
}

pps_status layout_at_home(layout *l, home h, uint64_t bytes, where *ret)
{
    if (h.what == BIND_WORK)
        return layout_temp(l, bytes, false, ret);
    return layout_bind(l, h.what, h.index, h.offset, ret);
}

pps_status layout_push_operand(layout *l, where w)
{
    PPS_TRY(layout_grow(l->cx->scratch, (void **)&l->operands, &l->cap_operands, l->n_operands + 1,
                        sizeof *l->operands));
    if (w.kind == W_TEMP) { /* the kernel being built is number n_kernels */
        temp *t = &l->temps[w.index];
        if (t->first == IR_NONE)
            t->first = l->n_kernels;
        t->last = l->n_kernels;
    }
    l->operands[l->n_operands++] = w;
    return PPS_OK;
}

pps_status layout_push_kernel(layout *l, plan_kernel k, uint32_t first_operand)
{
    PPS_TRY(layout_grow(l->cx->scratch, (void **)&l->kernels, &l->cap_kernels, l->n_kernels + 1,
                        sizeof *l->kernels));
    k.operands = first_operand;
    k.n_operands = (uint8_t)(l->n_operands - first_operand);
    l->kernels[l->n_kernels++] = k;
    return PPS_OK;
}

/* Does BI make this, which F made already, for BW too? */
static bool for_bw(const layout *l, uint8_t reads)
{
    return l->pass == PPS_PASS_BI && (reads & LAYOUT_IN_BW) != 0;
}

pps_status layout_value(layout *l, ir_id t, where *values, where *ret)
{
    const ir_graph *g = l->cx->program->graph;
    if (g->tensors[t].data != IR_NONE) {
        *ret = (where){W_DATA, g->tensors[t].data, 0};
        return PPS_OK;
    }
    if (l->homes[t].what != BIND_WORK)
        return layout_at_home(l, l->homes[t], 0, ret);
    if (values[t].kind == W_NONE) /* a temporary of F, made on first mention */
        PPS_TRY(layout_temp(l, pass_tensor_bytes(l->cx, t, l->chunk), for_bw(l, l->reads[t]),
                            &values[t]));
    *ret = values[t];
    return PPS_OK;
}

pps_status layout_saved(layout *l, uint32_t i, ir_operand s, where *ret)
{
    home h = l->saves[i][s.index];
    where *value = &l->save_values[i][s.index];
    if (h.what != BIND_WORK)
        return layout_at_home(l, h, 0, ret);
    if (value->kind == W_NONE)
        PPS_TRY(layout_temp(l, layout_extra_bytes(l, layout_op(l, i), s),
                            for_bw(l, l->save_reads[i][s.index]), value));
    *ret = *value;
    return PPS_OK;
}

pps_status layout_param(layout *l, ir_id param, where_kind kind, where *ret)
{
    const dag *d = l->cx->dag;
    if (param == IR_NONE)
        return PPS_OK;
    uint32_t bucket = dag_bucket_of(d, param, d->chunks[l->chunk].group);
    const dag_bucket *k = &d->buckets[bucket];
    if (k->zero == 3 && kind == W_PARAM)
        return layout_bind(l, BIND_PARAMS, bucket, d->param_offset[param], ret);
    if (k->zero >= 2 && kind == W_GRAD)
        return layout_bind(l, BIND_GRADS, bucket, d->param_offset[param], ret);
    *ret = (where){(uint8_t)kind, param, 0};
    return PPS_OK;
}

plan_kernel layout_describe(const layout *l, uint32_t op_id, ir_phase phase)
{
    const ir_graph *g = l->cx->program->graph;
    const ir_op *op = &l->ops[op_id];
    plan_kernel k = {.op = op->kind,
                     .phase = (uint8_t)phase,
                     .graph_op = op_id,
                     .B = l->b,
                     .T = 1,
                     .ep = 1,
                     .slices = l->n_slices,
                     .teams = IR_NONE,
                     .attrs = op->attrs};
    const ir_tensor *in = op->n_in > 0 ? &g->tensors[op->in[0]] : NULL;
    const ir_tensor *out = op->n_out > 0 ? &g->tensors[op->out[0]] : NULL;
    if (in != NULL) {
        k.n_in = in->dims[in->n_dims - 1];
        k.T = in->n_dims > 1 ? in->dims[1] : 1;
        if (in->flags & IR_TENSOR_ROWS)
            k.T /= op->attrs.top_k;
        k.T /= l->n_slices;
    }
    if (out != NULL)
        k.n_out = out->dims[out->n_dims - 1];
    uint32_t tensor = l->cx->dag->groups[l->cx->dag->chunks[l->chunk].group].tensor;
    if (op->shared) {
        k.teams = tensor;
        k.ep = l->cx->set->teams[tensor].size;
    }
    if (op->kind == IR_EXPERTS) {
        k.ep = l->ep;
        k.teams = l->cx->dag->chunks[l->chunk].ep_teams;
        k.n = ir_rows_per_batch_row(k.T, &op->attrs, l->ep) * l->b;
    }
    return k;
}

/* ---- offsets
 * --- */

/* Pack temporaries: each at the lowest offset free for its whole life, in order of first use. */
static pps_status pack(layout *l, uint64_t *ret_work, uint64_t *ret_held)
{
    uint32_t *order;
    PASS_ALLOC(order, l->cx->scratch, l->n_temps);
    for (uint32_t i = 0; i < l->n_temps; i++)
        order[i] = i;
    *ret_work = *ret_held = 0;
    uint32_t *live;
    uint32_t n_live = 0;
    PASS_ALLOC(live, l->cx->scratch, l->n_temps);
    /* temps are made in program order, but first mentioned when their kernel is pushed: sort by
     * that */
    for (uint32_t i = 1; i < l->n_temps; i++)
        for (uint32_t j = i; j > 0 && l->temps[order[j]].first < l->temps[order[j - 1]].first;
             j--) {
            uint32_t t = order[j];
            order[j] = order[j - 1];
            order[j - 1] = t;
        }
    for (uint32_t i = 0; i < l->n_temps; i++) {
        temp *t = &l->temps[order[i]];
        if (t->first == IR_NONE)
            continue;
        if (t->held) {
            t->offset = layout_append(ret_held, t->bytes);
            continue;
        }
        /* live list is kept sorted by offset */
        uint32_t keep = 0;
        for (uint32_t k = 0; k < n_live; k++)
            if (l->temps[live[k]].last >= t->first)
                live[keep++] = live[k];
        n_live = keep;
        uint64_t at = 0;
        uint32_t slot = 0;
        for (; slot < n_live && at + t->bytes > l->temps[live[slot]].offset; slot++)
            at = (l->temps[live[slot]].offset + l->temps[live[slot]].bytes + PLAN_ALIGN - 1) /
                 PLAN_ALIGN * PLAN_ALIGN;
        t->offset = at;
        memmove(live + slot + 1, live + slot, (n_live - slot) * sizeof *live);
        live[slot] = order[i];
        n_live++;
        if (at + t->bytes > *ret_work)
            *ret_work = at + t->bytes;
    }
    return PPS_OK;
}

pps_status layout_finish(layout *l, uint64_t *held_bytes)
{
    pass_cx *cx = l->cx;
    plan_set *set = cx->set;
    const ir_graph *g = cx->program->graph;
    uint64_t work, held;
    where work_bind = {0}, held_bind = {0};
    PPS_TRY(pack(l, &work, &held));
    if (work > 0)
        PPS_TRY(layout_bind(l, BIND_WORK, 0, 0, &work_bind));
    if (held > 0)
        PPS_TRY(layout_bind(l, BIND_HELD, 0, 0, &held_bind));
    if (held_bytes != NULL)
        *held_bytes = held;
    l->program->work_bytes = work;
    PPS_TRY(layout_grow(cx->mem, (void **)&set->programs, &cx->cap_programs, set->n_programs + 1,
                        sizeof *set->programs));
    PPS_TRY(layout_grow(cx->mem, (void **)&set->kernels, &cx->cap_kernels,
                        set->n_kernels + l->n_kernels, sizeof *set->kernels));
    PPS_TRY(layout_grow(cx->mem, (void **)&set->operands, &cx->cap_operands,
                        set->n_operands + l->n_operands, sizeof *set->operands));
    plan_program p = {.chunk = l->chunk,
                      .pass = (uint8_t)l->pass,
                      .kernels = set->n_kernels,
                      .n_kernels = l->n_kernels,
                      .n_bindings = l->program->binds.n,
                      .n_loss = l->n_loss};
    for (uint32_t i = 0; i < l->n_kernels; i++) {
        plan_kernel k = l->kernels[i];
        k.operands += set->n_operands;
        set->kernels[set->n_kernels++] = k;
        if (k.op != PLAN_KERNEL_SUM)
            p.flops += ir_op_flops(g, &g->ops[k.graph_op], (ir_phase)k.phase) * l->b / l->n_slices;
    }
    for (uint32_t i = 0; i < l->n_operands; i++) {
        where w = l->operands[i];
        plan_operand *o = &set->operands[set->n_operands++];
        switch ((where_kind)w.kind) {
        case W_NONE:
            *o = (plan_operand){.space = PLAN_ABSENT};
            break;
        case W_BIND:
            *o = (plan_operand){.space = PLAN_BIND, .bind = (uint16_t)w.index, .offset = w.offset};
            break;
        case W_TEMP: {
            const temp *t = &l->temps[w.index];
            *o = (plan_operand){.space = PLAN_BIND,
                                .bind = (uint16_t)(t->held ? held_bind.index : work_bind.index),
                                .offset = t->offset};
            p.bytes += (double)t->bytes;
            break;
        }
        case W_PARAM:
            *o = (plan_operand){.space = PLAN_PARAM, .index = w.index};
            break;
        case W_GRAD:
            *o = (plan_operand){.space = PLAN_GRAD, .index = w.index};
            break;
        case W_DATA:
            *o = (plan_operand){.space = PLAN_DATA, .index = w.index};
            break;
        case W_LOSS:
            *o = (plan_operand){.space = PLAN_LOSS, .index = w.index};
            break;
        }
    }
    l->program->id = set->n_programs;
    set->programs[set->n_programs++] = p;
    if (l->program->binds.n > 255) {
        pps_error(cx->st, l->c->span, 516, "a region touches %u buffers; at most 255 are possible",
                  l->program->binds.n);
        return PPS_ERR_SCRIPT;
    }
    return PPS_OK;
}
