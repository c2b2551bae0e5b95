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

void layout_backward(layout *l)
{
    const dag *d = l->cx->dag;
    const dag_chunk *k = &d->chunks[l->chunk];
    for (uint32_t i = l->c->ops.n; i-- > 0;) {
        const ir_op *op = layout_op(l, i);
        bool arrives = op->kind == IR_CROSS_ENTROPY || op->kind == IR_MSE;
        for (uint32_t o = 0; o < op->n_out; o++) {
            bool outside = false;
            for (uint32_t j = 0; j < k->out_links.n; j++) {
                const dag_link *link = &d->links[d->link_lists[k->out_links.begin + j]];
                outside |= link->tensor == op->out[o] && link->grad;
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
}

void layout_homes(layout *l, pass_chunk *ret)
{
    const ir_graph *g = l->cx->program->graph;
    enum { IN_BI = 1, IN_BW = 2 };
    for (uint32_t k = 0; k < l->c->in.n; k++)
        l->homes[g->lists[l->c->in.begin + k]] = (home){.what = BIND_IN, .index = k};
    for (int step = 0; step < 2; step++) { /* first what is needed later, then where it goes */
        for (uint32_t i = 0; i < l->c->ops.n; i++) {
            const ir_op *op = layout_op(l, i);
            ir_operand list[IR_MAX_OPERANDS];
            if (step == 1) {
                for (uint32_t o = 0; o < op->n_out; o++) {
                    home *h = &l->homes[op->out[o]];
                    uint32_t need = h->index, out = layout_position(g, l->c->out, op->out[o]);
                    uint64_t bytes = pass_tensor_bytes(l->cx, op->out[o], l->chunk);
                    *h = (home){.what = BIND_WORK};
                    if (out != IR_NONE) {
                        *h = (home){.what = BIND_OUT, .index = out};
                    } else if (need & IN_BW) {
                        *h = (home){.what = BIND_SAVE_BW,
                                    .offset = layout_append(&ret->save_bw_bytes, bytes)};
                    } else if (need & IN_BI) {
                        *h = (home){.what = BIND_SAVE_BI,
                                    .offset = layout_append(&ret->save_bi_bytes, bytes)};
                    }
                }
            }
            uint32_t need_s[4] = {0};
            for (int phase = IR_PHASE_BI; phase <= IR_PHASE_BW; phase++) {
                if (phase == IR_PHASE_BI ? !l->runs_bi[i] : !l->runs_bw[i])
                    continue;
                uint32_t bit = phase == IR_PHASE_BI ? IN_BI : IN_BW;
                uint32_t n = ir_op_operands(op, (ir_phase)phase, list);
                for (uint32_t j = 0; j < n; j++) {
                    if (list[j].letter == 's')
                        need_s[list[j].index] |= bit;
                    if (step == 1 || (list[j].letter != 'i' && list[j].letter != 'o'))
                        continue;
                    ir_id t =
                        list[j].letter == 'i' ? op->in[list[j].index] : op->out[list[j].index];
                    if (l->homes[t].what == BIND_WORK)
                        l->homes[t].index |= bit;
                }
            }
            if (step == 0)
                continue;
            for (uint8_t k = 0; k < 4; k++) {
                l->saves[i][k] = (home){.what = BIND_WORK};
                if (need_s[k] == 0)
                    continue;
                uint64_t bytes = layout_extra_bytes(l, op, (ir_operand){'s', k});
                bool bw = (need_s[k] & IN_BW) != 0;
                uint64_t *at = bw ? &ret->save_bw_bytes : &ret->save_bi_bytes;
                l->saves[i][k] = (home){.what = bw ? BIND_SAVE_BW : BIND_SAVE_BI,
                                        .offset = layout_append(at, bytes)};
            }
        }
    }
}
