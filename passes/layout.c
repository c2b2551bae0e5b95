/* SPDX-License-Identifier: Apache-2.0
 *
 * layout.c: what a chunk runs in each pass, and where each operand lies.
 *
 * Forward runs the chunk's ops in order; backward runs them in reverse, an op's BI, then (in a
 * whole B) its BW. ops.def's operand strings say what a later pass reads, which decides where a
 * value lives:
 *
 *   read by another chunk      a binding of its own (BIND_OUT; the reader's BIND_IN)
 *   read by this chunk's BW    SAVE_BW, from F to BW
 *   read by this chunk's BI    SAVE_BI, from F to BI
 *   c0, c1                     CARRY, CARRIED, of all slices of a microbatch
 *   gradient or h read by BW   HELD, from BI to BW (WORK in a whole B)
 *   parameter under zero 3     its bucket, gathered for a window of the schedule
 *   its gradient, zero 2 or 3  its bucket, summed over a window
 *   none of these              WORK, packed by its life within the step
 *
 * A tensor's gradient is the sum of its uses' contributions, outside ones (by link) first, then
 * inside ones in reverse program order, added in one kernel when its producer's turn comes. The
 * sum's order does not depend on the schedule, so neither do the bits.
 *
 * Where sequences are split a kernel works on one slice, and ATTENTION becomes ATTENTION_SLICE,
 * which keeps keys and values for the slices that follow (c0) and sums their gradients (c1). It
 * copies them there, so they may come from anywhere: another region, another device group.
 *
 * All this is per chunk, not per microbatch.
 */
#include "passes/layout.h"

#include <string.h>

/* One contribution to the gradient of `t` will be written to *ret. */
static pps_status contribute(layout *l, ir_id t, where *ret)
{
    const ir_graph *g = l->cx->program->graph;
    const dag *d = l->cx->dag;
    uint32_t k = layout_position(g, l->c->in, t);
    if (k != IR_NONE && l->uses[t] == 1) {
        uint32_t link = d->link_lists[d->chunks[l->chunk].in_links.begin + k];
        return layout_bind(l, BIND_GRAD_OUT, link, 0, ret);
    }
    PPS_TRY(layout_temp(l, pass_grad_bytes(l->cx, t, l->chunk), false, ret));
    l->contrib_list[l->contrib[t].begin + l->contrib[t].n++] = *ret;
    return PPS_OK;
}

static pps_status emit_sum(layout *l, ir_id t, where out, const where *parts, uint32_t n)
{
    uint32_t first = l->n_operands;
    PPS_TRY(layout_push_operand(l, out));
    for (uint32_t i = 0; i < n; i++)
        PPS_TRY(layout_push_operand(l, parts[i]));
    plan_kernel k = {.op = PLAN_KERNEL_SUM,
                     .phase = IR_PHASE_F,
                     .B = l->b,
                     .T = 1,
                     .ep = 1,
                     .slices = l->n_slices,
                     .teams = IR_NONE,
                     .graph_op = l->cx->program->graph->tensors[t].op,
                     .n = pass_grad_bytes(l->cx, t, l->chunk) / 4};
    return layout_push_kernel(l, k, first);
}

/* The gradient of `t`, a tensor made here, summed now if it has several parts. */
static pps_status gradient(layout *l, ir_id t, bool held, where *ret)
{
    const dag *d = l->cx->dag;
    const dag_chunk *k = &d->chunks[l->chunk];
    if (l->grads[t].kind == W_NONE) {
        where parts[256];
        uint32_t n = 0;
        for (uint32_t j = 0; j < k->out_links.n && n < 256; j++) {
            uint32_t id = d->link_lists[k->out_links.begin + j];
            if (d->links[id].made == t && d->links[id].grad)
                PPS_TRY(layout_bind(l, BIND_GRAD_IN, id, 0, &parts[n++]));
        }
        for (uint32_t j = 0; j < l->contrib[t].n && n < 256; j++)
            parts[n++] = l->contrib_list[l->contrib[t].begin + j];
        if (n == 1) {
            l->grads[t] = parts[0];
        } else {
            where sum;
            PPS_TRY(layout_temp(l, pass_tensor_bytes(l->cx, t, l->chunk), false, &sum));
            PPS_TRY(emit_sum(l, t, sum, parts, n));
            l->grads[t] = sum;
        }
    }
    *ret = l->grads[t];
    if (held && ret->kind == W_TEMP)
        l->temps[ret->index].held = true;
    return PPS_OK;
}

static pps_status emit_op(layout *l, uint32_t i, ir_phase phase, where *values)
{
    pass_cx *cx = l->cx;
    const ir_graph *g = cx->program->graph;
    uint32_t op_id = g->lists[l->c->ops.begin + i];
    const ir_op *op = &l->ops[op_id];
    ir_operand list[IR_MAX_OPERANDS];
    where resolved[IR_MAX_OPERANDS];
    uint32_t n = ir_op_operands(op, phase, list);
    bool split_bi = l->pass == PPS_PASS_BI, split_bw = l->pass == PPS_PASS_BW;
    /* gradients first: they may need a sum of their own */
    for (uint32_t j = 0; j < n; j++) {
        ir_operand a = list[j];
        resolved[j] = (where){0};
        if (a.letter != 'd' || !l->has_d[op->out[a.index]])
            continue;
        ir_id t = op->out[a.index];
        if (split_bw) {
            if (l->d_bw[t].what != BIND_WORK)
                PPS_TRY(layout_at_home(l, l->d_bw[t], 0, &resolved[j]));
        } else {
            PPS_TRY(gradient(l, t,
                             split_bi && l->runs_bw[i] && layout_has_letter(op, IR_PHASE_BW, 'd'),
                             &resolved[j]));
        }
    }
    for (uint32_t j = 0; j < n; j++) {
        ir_operand a = list[j];
        where *r = &resolved[j];
        switch (a.letter) {
        case 'i':
            PPS_TRY(layout_value(l, op->in[a.index], values, r));
            break;
        case 'o':
            PPS_TRY(layout_value(l, op->out[a.index], values, r));
            break;
        case 'p':
            PPS_TRY(layout_param(l, op->param[a.index], W_PARAM, r));
            break;
        case 'g':
            PPS_TRY(layout_param(l, op->param[a.index], W_GRAD, r));
            break;
        case 's':
            PPS_TRY(layout_saved(l, i, a, r));
            break;
        case 'h':
            if (split_bw) {
                PPS_TRY(layout_bind(l, BIND_HELD, 0, l->held_h[i][a.index], r));
            } else {
                if (l->held_h[i][a.index] == UINT64_MAX) { /* made by BI, read by BW */
                    PPS_TRY(layout_temp(l, layout_extra_bytes(l, op, a), split_bi, r));
                    l->held_h[i][a.index] = r->index;
                }
                *r = (where){W_TEMP, (uint32_t)l->held_h[i][a.index], 0};
            }
            break;
        case 'c':
            PPS_TRY(layout_bind(l, a.index == 0 ? BIND_CARRY : BIND_CARRIED, 0, l->carry_at[i], r));
            break;
        case 'x':
            if (layout_wants_grad(l, op->in[a.index]))
                PPS_TRY(contribute(l, op->in[a.index], r));
            else
                PPS_TRY(layout_temp(l, pass_tensor_bytes(cx, op->in[a.index], l->chunk), false, r));
            break;
        case 'w':
            PPS_TRY(layout_temp(l, layout_extra_bytes(l, op, a), false, r));
            break;
        case 'l':
            if (l->pass == PPS_PASS_F)
                *r = (where){W_LOSS, l->n_loss++, 0};
            else /* F's went to the step's losses, this one goes nowhere */
                PPS_TRY(layout_temp(l, sizeof(double), false, r));
            break;
        case 'd':
            break;
        }
    }
    uint32_t first = l->n_operands;
    for (uint32_t j = 0; j < n; j++)
        PPS_TRY(layout_push_operand(l, resolved[j]));
    PPS_TRY(layout_push_kernel(l, layout_describe(l, op_id, phase), first));
    /* an input of several uses gets its sum right after the last of them */
    if (phase == IR_PHASE_BI)
        for (uint32_t j = 0; j < op->n_in; j++) {
            ir_id t = op->in[j];
            uint32_t k = layout_position(g, l->c->in, t);
            if (k == IR_NONE || !layout_wants_grad(l, t) || l->uses[t] < 2 ||
                l->contrib[t].n != l->uses[t] || l->grads[t].kind != W_NONE)
                continue;
            where out;
            const dag *d = cx->dag;
            PPS_TRY(layout_bind(l, BIND_GRAD_OUT,
                                d->link_lists[d->chunks[l->chunk].in_links.begin + k], 0, &out));
            PPS_TRY(emit_sum(l, t, out, l->contrib_list + l->contrib[t].begin, l->contrib[t].n));
            l->grads[t] = out;
        }
    return PPS_OK;
}

/* ---- a pass of a chunk
 * --- */

/* What the pass before left about the chunk's tensors. */
static void forget(layout *l)
{
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = layout_op(l, i);
        for (uint32_t k = 0; k < op->n_in + op->n_out; k++) {
            ir_id t = k < op->n_in ? op->in[k] : op->out[k - op->n_in];
            l->values[t] = l->grads[t] = (where){0};
            l->contrib[t].n = 0;
        }
        for (uint32_t k = 0; k < 4; k++)
            l->save_values[i][k] = (where){0};
    }
}

static pps_status build(layout *l, pass_chunk *chunk, pps_pass pass)
{
    where *values = l->values;
    forget(l);
    l->pass = pass;
    l->program = &chunk->programs[l->variant][pass];
    *l->program = (pass_program){.id = IR_NONE, .binds = {l->cx->n_binds, 0}};
    l->n_temps = l->n_operands = l->n_kernels = l->n_loss = 0;
    if (pass == PPS_PASS_F) {
        for (uint32_t i = 0; i < l->c->ops.n; i++)
            PPS_TRY(emit_op(l, i, IR_PHASE_F, values));
        return layout_finish(l, NULL);
    }
    if (pass != PPS_PASS_BW)
        for (uint32_t i = 0; i < l->c->ops.n; i++)
            for (int k = 0; k < 4; k++)
                l->held_h[i][k] = UINT64_MAX;
    for (uint32_t i = 0; i < l->c->ops.n; i++)
        if (l->variant == PASS_RECOMPUTES && pass != PPS_PASS_BW && l->runs_again[i])
            PPS_TRY(emit_op(l, i, IR_PHASE_F, values));
    for (uint32_t i = l->c->ops.n; i-- > 0;) {
        if (pass != PPS_PASS_BW && l->runs_bi[i])
            PPS_TRY(emit_op(l, i, IR_PHASE_BI, values));
        if (pass != PPS_PASS_BI && l->runs_bw[i])
            PPS_TRY(emit_op(l, i, IR_PHASE_BW, values));
        if (pass == PPS_PASS_BI && l->runs_bw[i] && !l->runs_bi[i]) {
            /* no input half: its gradients must still be summed for BW */
            const ir_op *op = layout_op(l, i);
            where unused;
            for (uint32_t o = 0; o < op->n_out; o++)
                if (l->has_d[op->out[o]] && layout_has_letter(op, IR_PHASE_BW, 'd'))
                    PPS_TRY(gradient(l, op->out[o], true, &unused));
        }
    }
    PPS_TRY(layout_finish(l, pass == PPS_PASS_BI ? &chunk->held_bytes[l->variant] : NULL));
    if (pass != PPS_PASS_BI)
        return PPS_OK;
    /* tell BW where things are: HELD offsets, or the link whose gradient it is */
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = layout_op(l, i);
        for (uint32_t o = 0; o < op->n_out; o++) {
            where w = l->grads[op->out[o]];
            home *d = &l->d_bw[op->out[o]];
            *d = (home){.what = BIND_WORK};
            if (w.kind == W_TEMP)
                *d = (home){.what = BIND_HELD, .offset = l->temps[w.index].offset};
            else if (w.kind == W_BIND)
                *d = (home){.what = BIND_GRAD_IN,
                            .index = l->cx->binds[l->program->binds.begin + w.index].index};
        }
        for (int k = 0; k < 4; k++)
            if (l->held_h[i][k] != UINT64_MAX)
                l->held_h[i][k] = l->temps[l->held_h[i][k]].offset;
    }
    return PPS_OK;
}

/* What F, and then the backward passes, run where nothing is kept. */
static pps_status build_again(layout *l, pass_chunk *chunk)
{
    const dag_chunk *k = &l->cx->dag->chunks[l->chunk];
    l->variant = PASS_RECOMPUTES;
    layout_homes_again(l, PPS_PASS_F);
    PPS_TRY(build(l, chunk, PPS_PASS_F));
    layout_homes_again(l, PPS_PASS_B);
    PPS_TRY(build(l, chunk, PPS_PASS_B));
    PPS_TRY(build(l, chunk, PPS_PASS_BI));
    layout_homes_again(l, PPS_PASS_BW);
    return k->w != IR_NONE ? build(l, chunk, PPS_PASS_BW) : PPS_OK;
}

static pps_status build_kept(layout *l, pass_chunk *chunk)
{
    const dag_chunk *k = &l->cx->dag->chunks[l->chunk];
    l->variant = PASS_KEEPS;
    PPS_TRY(build(l, chunk, PPS_PASS_F));
    if (k->b == IR_NONE)
        return PPS_OK;
    PPS_TRY(build(l, chunk, PPS_PASS_B));
    PPS_TRY(build(l, chunk, PPS_PASS_BI));
    return k->w != IR_NONE ? build(l, chunk, PPS_PASS_BW) : PPS_OK;
}

/* Which variants the chunk's microbatches run. One that keeps nothing anyway has nothing to
 * recompute, or to offload. */
static void find_variants(const layout *l, const pass_chunk *chunk, bool ret[PASS_VARIANTS])
{
    const pass_cx *cx = l->cx;
    dag *d = cx->dag;
    ret[PASS_KEEPS] = d->kept == NULL;
    ret[PASS_RECOMPUTES] = false;
    for (uint32_t m = 0; m < dag_n_mb(d, l->chunk) && d->kept != NULL; m++) {
        size_t at = (size_t)l->chunk * d->n_mb + m;
        if (d->kept[at] == DAG_RECOMPUTE && l->recomputes)
            cx->program->directives[cx->kept_by[at]].applied = true;
        else if (d->kept[at] == DAG_RECOMPUTE || chunk->save_bi_bytes + chunk->save_bw_bytes == 0)
            d->kept[at] = DAG_KEEP;
        ret[pass_variant_of(d, l->chunk, m)] = true;
    }
}

static pps_status start_chunk(layout *l, uint32_t c)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    uint32_t at = 0;
    l->chunk = c;
    l->c = &g->chunks[c];
    l->b = cx->local_rows[d->chunks[c].group];
    l->ep = d->chunks[c].ep;
    l->recomputes = false;
    PASS_ALLOC(l->saves, cx->scratch, l->c->ops.n);
    PASS_ALLOC(l->save_reads, cx->scratch, l->c->ops.n);
    PASS_ALLOC(l->save_values, cx->scratch, l->c->ops.n);
    PASS_ALLOC(l->held_h, cx->scratch, l->c->ops.n);
    PASS_ALLOC(l->carry_at, cx->scratch, l->c->ops.n);
    PASS_ALLOC(l->runs_bi, cx->scratch, l->c->ops.n);
    PASS_ALLOC(l->runs_bw, cx->scratch, l->c->ops.n);
    PASS_ALLOC(l->runs_again, cx->scratch, l->c->ops.n);
    /* only this chunk's tensors matter: reset those */
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = layout_op(l, i);
        for (uint32_t k = 0; k < op->n_in + op->n_out; k++) {
            ir_id t = k < op->n_in ? op->in[k] : op->out[k - op->n_in];
            l->uses[t] = 0;
            l->has_d[t] = l->reads[t] = 0;
            l->homes[t] = (home){.what = BIND_WORK};
        }
    }
    if (d->chunks[c].b != IR_NONE)
        layout_backward(l);
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = layout_op(l, i);
        for (uint32_t k = 0; k < op->n_in + op->n_out; k++) {
            ir_id t = k < op->n_in ? op->in[k] : op->out[k - op->n_in];
            l->contrib[t] = (ir_range){at, 0};
            at += l->uses[t];
        }
    }
    PASS_ALLOC(l->contrib_list, cx->scratch, at);
    return PPS_OK;
}

static pps_status layout_chunk(layout *l, uint32_t c)
{
    pass_chunk *chunk = &l->cx->chunks[c];
    bool variants[PASS_VARIANTS];
    PPS_TRY(start_chunk(l, c));
    for (int i = 0; i < PASS_VARIANTS * PPS_PASS_COUNT; i++)
        chunk->programs[i / PPS_PASS_COUNT][i % PPS_PASS_COUNT].id = IR_NONE;
    layout_homes(l, chunk);
    layout_carry(l, chunk);
    find_variants(l, chunk, variants);
    if (variants[PASS_KEEPS])
        PPS_TRY(build_kept(l, chunk));
    return variants[PASS_RECOMPUTES] ? build_again(l, chunk) : PPS_OK;
}

static pps_status check_effect(pass_cx *cx)
{
    const ir_program *p = cx->program;
    char text[256];
    for (uint32_t i = 0; i < p->n_directives; i++) {
        const ir_directive *s = &p->directives[i];
        if (p->kinds[i] != PPS_DIR_RECOMPUTE || s->applied)
            continue;
        return pps_diag_done(
            pass_diag(cx, s, s->source->subject_span, 410,
                      "recompute has no effect: %s keeps nothing between its passes but its inputs",
                      pass_filter_text(cx, &s->filter, text, sizeof text)));
    }
    return PPS_OK;
}

/* The ops as kernels do them: the graph's, but for those that go on where the slice before ended.
 */
static pps_status kernel_ops(layout *l)
{
    const ir_graph *g = l->cx->program->graph;
    ir_op *ops;
    l->ops = g->ops;
    if (l->n_slices == 1)
        return PPS_OK;
    PASS_ALLOC(ops, l->cx->scratch, g->n_ops);
    memcpy(ops, g->ops, g->n_ops * sizeof *ops);
    for (uint32_t i = 0; i < g->n_ops; i++)
        if (ops[i].kind == IR_ATTENTION)
            ops[i].kind = IR_ATTENTION_SLICE;
    l->ops = ops;
    return PPS_OK;
}

pps_status pass_layout(pass_cx *cx)
{
    const ir_graph *g = cx->program->graph;
    layout l = {.cx = cx, .n_slices = cx->dag->n_slices};
    PPS_TRY(kernel_ops(&l));
    PASS_ALLOC(cx->chunks, cx->mem, g->n_chunks);
    PASS_ALLOC(l.homes, cx->scratch, g->n_tensors);
    PASS_ALLOC(l.uses, cx->scratch, g->n_tensors);
    PASS_ALLOC(l.d_bw, cx->scratch, g->n_tensors);
    PASS_ALLOC(l.values, cx->scratch, g->n_tensors);
    PASS_ALLOC(l.grads, cx->scratch, g->n_tensors);
    PASS_ALLOC(l.contrib, cx->scratch, g->n_tensors);
    PASS_ALLOC(l.has_d, cx->scratch, g->n_tensors);
    PASS_ALLOC(l.reads, cx->scratch, g->n_tensors);
    uint32_t slots = 0;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        PPS_TRY(layout_chunk(&l, c));
        if (c % cx->dag->n_model_chunks == 0)
            slots = 0; /* another class: the same slots of other microbatches */
        cx->chunks[c].loss_first = slots;
        slots += g->chunks[c].n_loss;
    }
    cx->n_loss_step = slots;
    return check_effect(cx);
}
