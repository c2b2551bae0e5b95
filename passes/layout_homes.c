/* SPDX-License-Identifier: Apache-2.0
 *
 * layout_homes.c: what a chunk's passes keep for each other, from ops.def's operand strings: an op
 * that runs BI or BW names what it reads there, which must then live as long.
 */
#include "passes/layout.h"

bool layout_has_letter(const ir_op *op, ir_phase phase, char letter)
{
    ir_operand list[IR_MAX_OPERANDS];
    uint32_t n = ir_op_operands(op, phase, list);
    for (uint32_t i = 0; i < n; i++)
        if (list[i].letter == letter)
            return true;
    return false;
}

uint64_t layout_append(uint64_t *end, uint64_t bytes)
{
    uint64_t offset = (*end + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
    *end = offset + bytes;
    return offset;
}

/* Of what an op reads in BI or BW: what the chunk made itself, in F. */
static void find_reads(layout *l)
{
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = layout_op(l, i);
        for (int phase = IR_PHASE_BI; phase <= IR_PHASE_BW; phase++) {
            ir_operand list[IR_MAX_OPERANDS];
            uint8_t bit = phase == IR_PHASE_BI ? LAYOUT_IN_BI : LAYOUT_IN_BW;
            uint32_t n = ir_op_operands(op, (ir_phase)phase, list);
            if (phase == IR_PHASE_BI ? !l->runs_bi[i] : !l->runs_bw[i])
                continue;
            for (uint32_t j = 0; j < n; j++)
                if (list[j].letter == 's')
                    l->save_reads[i][list[j].index] |= bit;
                else if (list[j].letter == 'i')
                    l->reads[op->in[list[j].index]] |= bit;
                else if (list[j].letter == 'o')
                    l->reads[op->out[list[j].index]] |= bit;
        }
    }
}

/* Backwards from what BI and BW read: a kernel of F that makes any of it, and those that make what
 * such a kernel reads. */
static void find_again(layout *l)
{
    enum { AGAIN = 4 }; /* beside LAYOUT_IN_*: a kernel that runs again reads it */
    for (uint32_t i = l->c->ops.n; i-- > 0;) {
        const ir_op *op = layout_op(l, i);
        ir_operand list[IR_MAX_OPERANDS];
        uint32_t n = ir_op_operands(op, IR_PHASE_F, list);
        bool runs = false;
        for (uint32_t o = 0; o < op->n_out; o++)
            runs |= l->reads[op->out[o]] != 0;
        for (uint32_t k = 0; k < 4; k++)
            runs |= l->save_reads[i][k] != 0;
        for (uint32_t j = 0; j < n && runs; j++)
            if (list[j].letter == 'i')
                l->reads[op->in[list[j].index]] |= AGAIN;
        l->runs_again[i] = runs;
        l->recomputes |= runs;
    }
}

void layout_backward(layout *l)
{
    const dag *d = l->cx->dag;
    const dag_chunk *k = &d->chunks[l->chunk];
    for (uint32_t i = l->c->ops.n; i-- > 0;) {
        const ir_op *op = layout_op(l, i);
        bool arrives = op->kind != IR_ROUTER && ir_op_has_loss((ir_op_kind)op->kind);
        for (uint32_t o = 0; o < op->n_out; o++) {
            bool outside = false;
            for (uint32_t j = 0; j < k->out_links.n; j++) {
                const dag_link *link = &d->links[d->link_lists[k->out_links.begin + j]];
                outside |= link->made == op->out[o] && link->grad;
            }
            l->has_d[op->out[o]] = outside || l->uses[op->out[o]] > 0;
            arrives |= l->has_d[op->out[o]];
        }
        arrives |= op->kind == IR_ROUTER && op->attrs.aux_coef > 0.0f;
        bool input = false, weight = false;
        for (uint32_t j = 0; j < op->n_in; j++)
            input |= layout_wants_grad(l, op->in[j]);
        for (uint32_t j = 0; j < op->n_param; j++)
            weight |= op->param[j] != IR_NONE;
        ir_operand list[IR_MAX_OPERANDS];
        l->runs_bw[i] = arrives && weight && ir_op_operands(op, IR_PHASE_BW, list) > 0;
        l->runs_bi[i] = arrives && ir_op_operands(op, IR_PHASE_BI, list) > 0 &&
                        (input || (weight && layout_has_letter(op, IR_PHASE_BI, 'h')));
        if (l->runs_bi[i]) {
            uint32_t n = ir_op_operands(op, IR_PHASE_BI, list);
            for (uint32_t j = 0; j < n; j++)
                if (list[j].letter == 'x' && layout_wants_grad(l, op->in[list[j].index]))
                    l->uses[op->in[list[j].index]]++;
        }
    }
    find_reads(l);
    find_again(l);
}

static home save(pass_chunk *chunk, uint8_t reads, uint64_t bytes)
{
    if (reads & LAYOUT_IN_BW)
        return (home){.what = BIND_SAVE_BW, .offset = layout_append(&chunk->save_bw_bytes, bytes)};
    if (reads & LAYOUT_IN_BI)
        return (home){.what = BIND_SAVE_BI, .offset = layout_append(&chunk->save_bi_bytes, bytes)};
    return (home){.what = BIND_WORK};
}

void layout_homes(layout *l, pass_chunk *ret)
{
    const ir_graph *g = l->cx->program->graph;
    for (uint32_t k = 0; k < l->c->in.n; k++)
        l->homes[g->lists[l->c->in.begin + k]] = (home){.what = BIND_IN, .index = k};
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = layout_op(l, i);
        for (uint32_t o = 0; o < op->n_out; o++) {
            uint32_t out = layout_position(g, l->c->out, op->out[o]);
            uint64_t bytes = pass_tensor_bytes(l->cx, op->out[o], l->chunk);
            l->homes[op->out[o]] = out != IR_NONE ? (home){.what = BIND_OUT, .index = out}
                                                  : save(ret, l->reads[op->out[o]], bytes);
        }
        for (uint8_t k = 0; k < 4; k++)
            if (l->save_reads[i][k] != 0)
                l->saves[i][k] =
                    save(ret, l->save_reads[i][k], layout_extra_bytes(l, op, (ir_operand){'s', k}));
            else
                l->saves[i][k] = (home){.what = BIND_WORK};
    }
}

void layout_carry(layout *l, pass_chunk *ret)
{
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = layout_op(l, i);
        if (layout_has_letter(op, IR_PHASE_F, 'c'))
            l->carry_at[i] = layout_append(&ret->carry_bytes[0],
                                           layout_extra_bytes(l, op, (ir_operand){'c', 0}));
    }
    ret->carry_bytes[1] = ret->carry_bytes[0];
}

/* What BI left in HELD is there for BW; no other pass leaves anything. */
static home again(const layout *l, pps_pass pass, uint8_t reads, const where *value)
{
    if (pass != PPS_PASS_BW || !(reads & LAYOUT_IN_BW))
        return (home){.what = BIND_WORK};
    return (home){.what = BIND_HELD, .offset = l->temps[value->index].offset};
}

void layout_homes_again(layout *l, pps_pass pass)
{
    const ir_graph *g = l->cx->program->graph;
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = layout_op(l, i);
        for (uint32_t o = 0; o < op->n_out; o++) {
            ir_id t = op->out[o];
            uint32_t out = layout_position(g, l->c->out, t);
            if (out != IR_NONE && pass == PPS_PASS_F)
                l->homes[t] = (home){.what = BIND_OUT, .index = out};
            else
                l->homes[t] = again(l, pass, l->reads[t], &l->values[t]);
        }
        for (uint32_t k = 0; k < 4; k++)
            l->saves[i][k] = again(l, pass, l->save_reads[i][k], &l->save_values[i][k]);
    }
}
