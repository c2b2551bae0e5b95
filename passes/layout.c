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
#include "passes/pass.h"

#include <string.h>

enum { ALIGN = 64 };

typedef struct temp { /* a buffer inside the step, or in HELD */
    uint64_t bytes, offset;
    uint32_t first, last; /* kernels */
    bool held;
} temp;

typedef enum where_kind { W_NONE, W_BIND, W_TEMP, W_PARAM, W_GRAD, W_DATA, W_LOSS } where_kind;
typedef struct where { /* an operand before offsets are known */
    uint8_t kind;
    uint32_t index;  /* binding, temp, parameter, data input, loss slot */
    uint64_t offset; /* W_BIND: inside it */
} where;

typedef struct home { /* where a tensor or an s operand lives from pass to pass */
    uint8_t what;     /* pass_bind_kind, or BIND_WORK for none */
    uint32_t index;   /* BIND_IN, BIND_OUT */
    uint64_t offset;
} home;

typedef struct layout {
    pass_cx *cx;
    uint32_t chunk, b, ep; /* local batch rows of a microbatch; ranks sharing experts */
    const ir_chunk *c;
    const ir_op *ops;  /* the graph's, as kernels do them */
    uint32_t n_slices; /* of a microbatch */
    /* by tensor, valid for this chunk's */
    home *homes;
    uint32_t *uses;    /* [n_tensors] gradient contributions from inside */
    home *d_bw;        /* [n_tensors] where BW finds the gradient */
    where *values;     /* [n_tensors] where this pass has a value without a home */
    where *grads;      /* [n_tensors] gradient once summed, in this pass */
    ir_range *contrib; /* [n_tensors] in contrib_list */
    where *contrib_list;
    uint8_t *has_d; /* [n_tensors] */
    /* by op of the chunk (position) */
    home (*saves)[4];
    uint64_t (*held_h)[4]; /* offsets in HELD */
    uint64_t *carry_at;    /* offset in CARRY, and in CARRIED */
    uint8_t *runs_bi, *runs_bw;
    /* the program being built */
    pass_program *program;
    pps_pass pass;
    temp *temps;
    uint32_t n_temps, cap_temps;
    where *operands;
    uint32_t n_operands, cap_operands;
    plan_kernel *kernels;
    uint32_t n_kernels, cap_kernels;
    uint32_t n_loss;
} layout;

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
}

/* Room for `bytes` behind `*end`, which moves to its end: sizes stay exact, begins are aligned. */
static uint64_t append(uint64_t *end, uint64_t bytes)
{
    uint64_t offset = aligned(*end);
    *end = offset + bytes;
    return offset;
}

static pps_status grow(arena *mem, void **array, uint32_t *cap, uint32_t need, size_t item)
{
    if (need <= *cap)
        return PPS_OK;
    uint32_t wanted = need * 2 + 32;
    void *bigger = arena_zero(mem, wanted * item);
    if (bigger == NULL)
        return PPS_ERR_NOMEM;
    if (*cap > 0)
        memcpy(bigger, *array, *cap * item);
    *array = bigger;
    *cap = wanted;
    return PPS_OK;
}

/* ---- sizes -------------------------------------------------------------------------------------
 */

static uint64_t extra_bytes(const layout *l, const ir_op *op, ir_operand operand)
{
    ir_extent e = ir_op_extra(l->cx->program->graph, op, operand, l->ep);
    uint64_t parts = operand.letter == 'c' ? 1 : l->n_slices;
    return e.per_row / parts * l->b + e.fixed;
}

static uint32_t position(const ir_graph *g, ir_range list, uint32_t item)
{
    for (uint32_t i = 0; i < list.n; i++)
        if (g->lists[list.begin + i] == item)
            return i;
    return IR_NONE;
}

static const ir_op *op_at(const layout *l, uint32_t i)
{
    const ir_graph *g = l->cx->program->graph;
    return &l->ops[g->lists[l->c->ops.begin + i]];
}

/* ---- what is kept
 * -------------------------------------------------------------------------------- */

static bool wants_grad(const layout *l, ir_id tensor)
{
    return (l->cx->program->graph->tensors[tensor].flags & IR_TENSOR_GRAD) != 0;
}

static bool has_letter(const ir_op *op, ir_phase phase, char letter)
{
    ir_operand list[IR_MAX_OPERANDS];
    uint32_t n = ir_op_operands(op, phase, list);
    for (uint32_t i = 0; i < n; i++)
        if (list[i].letter == letter)
            return true;
    return false;
}

/* Which ops run BI and BW here, and which tensors get a gradient. */
static void find_backward(layout *l)
{
    const dag *d = l->cx->dag;
    const dag_chunk *k = &d->chunks[l->chunk];
    for (uint32_t i = l->c->ops.n; i-- > 0;) {
        const ir_op *op = op_at(l, i);
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
            input |= wants_grad(l, op->in[j]);
        for (uint32_t j = 0; j < op->n_param; j++)
            weight |= op->param[j] != IR_NONE;
        ir_operand list[IR_MAX_OPERANDS];
        l->runs_bw[i] = arrives && weight && ir_op_operands(op, IR_PHASE_BW, list) > 0;
        l->runs_bi[i] = arrives && ir_op_operands(op, IR_PHASE_BI, list) > 0 &&
                        (input || (weight && has_letter(op, IR_PHASE_BI, 'h')));
        if (l->runs_bi[i]) {
            uint32_t n = ir_op_operands(op, IR_PHASE_BI, list);
            for (uint32_t j = 0; j < n; j++)
                if (list[j].letter == 'x' && wants_grad(l, op->in[list[j].index]))
                    l->uses[op->in[list[j].index]]++;
        }
    }
}

/* Homes of tensors and saved operands, and the sizes of the chunk's SAVE and HELD blocks. */
static void find_homes(layout *l, pass_chunk *ret)
{
    const ir_graph *g = l->cx->program->graph;
    enum { IN_BI = 1, IN_BW = 2 };
    for (uint32_t k = 0; k < l->c->in.n; k++)
        l->homes[g->lists[l->c->in.begin + k]] = (home){.what = BIND_IN, .index = k};
    for (int step = 0; step < 2; step++) { /* first what is needed later, then where it goes */
        for (uint32_t i = 0; i < l->c->ops.n; i++) {
            const ir_op *op = op_at(l, i);
            ir_operand list[IR_MAX_OPERANDS];
            if (step == 1) {
                for (uint32_t o = 0; o < op->n_out; o++) {
                    home *h = &l->homes[op->out[o]];
                    uint32_t need = h->index, out = position(g, l->c->out, op->out[o]);
                    uint64_t bytes = pass_tensor_bytes(l->cx, op->out[o], l->chunk);
                    *h = (home){.what = BIND_WORK};
                    if (out != IR_NONE) {
                        *h = (home){.what = BIND_OUT, .index = out};
                    } else if (need & IN_BW) {
                        *h = (home){.what = BIND_SAVE_BW,
                                    .offset = append(&ret->save_bw_bytes, bytes)};
                    } else if (need & IN_BI) {
                        *h = (home){.what = BIND_SAVE_BI,
                                    .offset = append(&ret->save_bi_bytes, bytes)};
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
                uint64_t bytes = extra_bytes(l, op, (ir_operand){'s', k});
                bool bw = (need_s[k] & IN_BW) != 0;
                uint64_t *at = bw ? &ret->save_bw_bytes : &ret->save_bi_bytes;
                l->saves[i][k] =
                    (home){.what = bw ? BIND_SAVE_BW : BIND_SAVE_BI, .offset = append(at, bytes)};
            }
        }
    }
}

/* ---- building a program -------------------------------------------------------------------------
 */

static pps_status bind(layout *l, uint8_t what, uint32_t index, uint64_t offset, where *ret)
{
    pass_cx *cx = l->cx;
    pass_program *p = l->program;
    uint32_t i = 0;
    while (i < p->binds.n && (cx->binds[p->binds.begin + i].what != what ||
                              cx->binds[p->binds.begin + i].index != index))
        i++;
    if (i == p->binds.n) {
        PPS_TRY(
            grow(cx->mem, (void **)&cx->binds, &cx->cap_binds, cx->n_binds + 1, sizeof *cx->binds));
        cx->binds[cx->n_binds++] = (pass_bind){what, index};
        p->binds.n++;
    }
    *ret = (where){W_BIND, i, offset};
    return PPS_OK;
}

static pps_status new_temp(layout *l, uint64_t bytes, bool held, where *ret)
{
    PPS_TRY(
        grow(l->cx->scratch, (void **)&l->temps, &l->cap_temps, l->n_temps + 1, sizeof *l->temps));
    l->temps[l->n_temps] = (temp){.bytes = bytes, .first = IR_NONE, .held = held};
    *ret = (where){W_TEMP, l->n_temps++, 0};
    return PPS_OK;
}

static pps_status at_home(layout *l, home h, uint64_t bytes, where *ret)
{
    if (h.what == BIND_WORK)
        return new_temp(l, bytes, false, ret);
    return bind(l, h.what, h.index, h.offset, ret);
}

static pps_status push_operand(layout *l, where w)
{
    PPS_TRY(grow(l->cx->scratch, (void **)&l->operands, &l->cap_operands, l->n_operands + 1,
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

static pps_status push_kernel(layout *l, plan_kernel k, uint32_t first_operand)
{
    PPS_TRY(grow(l->cx->scratch, (void **)&l->kernels, &l->cap_kernels, l->n_kernels + 1,
                 sizeof *l->kernels));
    k.operands = first_operand;
    k.n_operands = (uint8_t)(l->n_operands - first_operand);
    l->kernels[l->n_kernels++] = k;
    return PPS_OK;
}

static pps_status tensor_where(layout *l, ir_id t, where *values, where *ret)
{
    const ir_graph *g = l->cx->program->graph;
    if (g->tensors[t].data != IR_NONE) {
        *ret = (where){W_DATA, g->tensors[t].data, 0};
        return PPS_OK;
    }
    if (l->homes[t].what != BIND_WORK)
        return at_home(l, l->homes[t], 0, ret);
    if (values[t].kind == W_NONE) /* a temporary of F, made on first mention */
        PPS_TRY(new_temp(l, pass_tensor_bytes(l->cx, t, l->chunk), false, &values[t]));
    *ret = values[t];
    return PPS_OK;
}

/* A parameter or its gradient: stored for good, or in a buffer of its bucket's window. */
static pps_status param_where(layout *l, ir_id param, where_kind kind, where *ret)
{
    const dag *d = l->cx->dag;
    if (param == IR_NONE)
        return PPS_OK;
    uint32_t bucket = dag_bucket_of(d, param, d->chunks[l->chunk].group);
    const dag_bucket *k = &d->buckets[bucket];
    if (k->zero == 3 && kind == W_PARAM)
        return bind(l, BIND_PARAMS, bucket, d->param_offset[param], ret);
    if (k->zero >= 2 && kind == W_GRAD)
        return bind(l, BIND_GRADS, bucket, d->param_offset[param], ret);
    *ret = (where){(uint8_t)kind, param, 0};
    return PPS_OK;
}

static plan_kernel describe(const layout *l, uint32_t op_id, ir_phase phase)
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

/* One contribution to the gradient of `t` will be written to *ret. */
static pps_status contribute(layout *l, ir_id t, where *ret)
{
    const ir_graph *g = l->cx->program->graph;
    const dag *d = l->cx->dag;
    uint32_t k = position(g, l->c->in, t);
    if (k != IR_NONE && l->uses[t] == 1) {
        uint32_t link = d->link_lists[d->chunks[l->chunk].in_links.begin + k];
        return bind(l, BIND_GRAD_OUT, link, 0, ret);
    }
    PPS_TRY(new_temp(l, pass_grad_bytes(l->cx, t, l->chunk), false, ret));
    l->contrib_list[l->contrib[t].begin + l->contrib[t].n++] = *ret;
    return PPS_OK;
}

static pps_status emit_sum(layout *l, ir_id t, where out, const where *parts, uint32_t n)
{
    uint32_t first = l->n_operands;
    PPS_TRY(push_operand(l, out));
    for (uint32_t i = 0; i < n; i++)
        PPS_TRY(push_operand(l, parts[i]));
    plan_kernel k = {.op = PLAN_KERNEL_SUM,
                     .phase = IR_PHASE_F,
                     .B = l->b,
                     .T = 1,
                     .ep = 1,
                     .slices = l->n_slices,
                     .teams = IR_NONE,
                     .graph_op = l->cx->program->graph->tensors[t].op,
                     .n = pass_grad_bytes(l->cx, t, l->chunk) / 4};
    return push_kernel(l, k, first);
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
                PPS_TRY(bind(l, BIND_GRAD_IN, id, 0, &parts[n++]));
        }
        for (uint32_t j = 0; j < l->contrib[t].n && n < 256; j++)
            parts[n++] = l->contrib_list[l->contrib[t].begin + j];
        if (n == 1) {
            l->grads[t] = parts[0];
        } else {
            where sum;
            PPS_TRY(new_temp(l, pass_tensor_bytes(l->cx, t, l->chunk), false, &sum));
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
                PPS_TRY(at_home(l, l->d_bw[t], 0, &resolved[j]));
        } else {
            PPS_TRY(gradient(l, t, split_bi && l->runs_bw[i] && has_letter(op, IR_PHASE_BW, 'd'),
                             &resolved[j]));
        }
    }
    for (uint32_t j = 0; j < n; j++) {
        ir_operand a = list[j];
        where *r = &resolved[j];
        switch (a.letter) {
        case 'i':
            PPS_TRY(tensor_where(l, op->in[a.index], values, r));
            break;
        case 'o':
            PPS_TRY(tensor_where(l, op->out[a.index], values, r));
            break;
        case 'p':
            PPS_TRY(param_where(l, op->param[a.index], W_PARAM, r));
            break;
        case 'g':
            PPS_TRY(param_where(l, op->param[a.index], W_GRAD, r));
            break;
        case 's':
            PPS_TRY(at_home(l, l->saves[i][a.index], extra_bytes(l, op, a), r));
            break;
        case 'h':
            if (split_bw) {
                PPS_TRY(bind(l, BIND_HELD, 0, l->held_h[i][a.index], r));
            } else {
                if (l->held_h[i][a.index] == UINT64_MAX) { /* made by BI, read by BW */
                    PPS_TRY(new_temp(l, extra_bytes(l, op, a), split_bi, r));
                    l->held_h[i][a.index] = r->index;
                }
                *r = (where){W_TEMP, (uint32_t)l->held_h[i][a.index], 0};
            }
            break;
        case 'c':
            PPS_TRY(bind(l, a.index == 0 ? BIND_CARRY : BIND_CARRIED, 0, l->carry_at[i], r));
            break;
        case 'x':
            if (wants_grad(l, op->in[a.index]))
                PPS_TRY(contribute(l, op->in[a.index], r));
            else
                PPS_TRY(new_temp(l, pass_tensor_bytes(cx, op->in[a.index], l->chunk), false, r));
            break;
        case 'w':
            PPS_TRY(new_temp(l, extra_bytes(l, op, a), false, r));
            break;
        case 'l':
            *r = (where){W_LOSS, l->n_loss++, 0};
            break;
        case 'd':
            break;
        }
    }
    uint32_t first = l->n_operands;
    for (uint32_t j = 0; j < n; j++)
        PPS_TRY(push_operand(l, resolved[j]));
    PPS_TRY(push_kernel(l, describe(l, op_id, phase), first));
    /* an input of several uses gets its sum right after the last of them */
    if (phase == IR_PHASE_BI)
        for (uint32_t j = 0; j < op->n_in; j++) {
            ir_id t = op->in[j];
            uint32_t k = position(g, l->c->in, t);
            if (k == IR_NONE || !wants_grad(l, t) || l->uses[t] < 2 ||
                l->contrib[t].n != l->uses[t] || l->grads[t].kind != W_NONE)
                continue;
            where out;
            const dag *d = cx->dag;
            PPS_TRY(bind(l, BIND_GRAD_OUT, d->link_lists[d->chunks[l->chunk].in_links.begin + k], 0,
                         &out));
            PPS_TRY(emit_sum(l, t, out, l->contrib_list + l->contrib[t].begin, l->contrib[t].n));
            l->grads[t] = out;
        }
    return PPS_OK;
}

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
            t->offset = append(ret_held, t->bytes);
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
            at = aligned(l->temps[live[slot]].offset + l->temps[live[slot]].bytes);
        t->offset = at;
        memmove(live + slot + 1, live + slot, (n_live - slot) * sizeof *live);
        live[slot] = order[i];
        n_live++;
        if (at + t->bytes > *ret_work)
            *ret_work = at + t->bytes;
    }
    return PPS_OK;
}

static pps_status finish_program(layout *l, uint64_t *held_bytes)
{
    pass_cx *cx = l->cx;
    plan_set *set = cx->set;
    const ir_graph *g = cx->program->graph;
    uint64_t work, held;
    where work_bind = {0}, held_bind = {0};
    PPS_TRY(pack(l, &work, &held));
    if (work > 0)
        PPS_TRY(bind(l, BIND_WORK, 0, 0, &work_bind));
    if (held > 0)
        PPS_TRY(bind(l, BIND_HELD, 0, 0, &held_bind));
    if (held_bytes != NULL)
        *held_bytes = held;
    l->program->work_bytes = work;
    PPS_TRY(grow(cx->mem, (void **)&set->programs, &cx->cap_programs, set->n_programs + 1,
                 sizeof *set->programs));
    PPS_TRY(grow(cx->mem, (void **)&set->kernels, &cx->cap_kernels, set->n_kernels + l->n_kernels,
                 sizeof *set->kernels));
    PPS_TRY(grow(cx->mem, (void **)&set->operands, &cx->cap_operands,
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

/* Where what slices carry lies: keys and values of one op after the other, their gradients alike.
 */
static void find_carry(layout *l, pass_chunk *ret)
{
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = op_at(l, i);
        if (!has_letter(op, IR_PHASE_F, 'c'))
            continue;
        l->carry_at[i] = append(&ret->carry_bytes[0], extra_bytes(l, op, (ir_operand){'c', 0}));
    }
    ret->carry_bytes[1] = ret->carry_bytes[0];
}

/* What the pass before left about the chunk's tensors. */
static void forget(layout *l)
{
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = op_at(l, i);
        for (uint32_t k = 0; k < op->n_in + op->n_out; k++) {
            ir_id t = k < op->n_in ? op->in[k] : op->out[k - op->n_in];
            l->values[t] = l->grads[t] = (where){0};
            l->contrib[t].n = 0;
        }
    }
}

static pps_status build(layout *l, pass_chunk *chunk, pps_pass pass)
{
    where *values = l->values;
    forget(l);
    l->pass = pass;
    l->program = &chunk->programs[pass];
    *l->program = (pass_program){.id = IR_NONE, .binds = {l->cx->n_binds, 0}};
    l->n_temps = l->n_operands = l->n_kernels = l->n_loss = 0;
    if (pass == PPS_PASS_F) {
        for (uint32_t i = 0; i < l->c->ops.n; i++)
            PPS_TRY(emit_op(l, i, IR_PHASE_F, values));
        return finish_program(l, NULL);
    }
    if (pass != PPS_PASS_BW)
        for (uint32_t i = 0; i < l->c->ops.n; i++)
            for (int k = 0; k < 4; k++)
                l->held_h[i][k] = UINT64_MAX;
    for (uint32_t i = l->c->ops.n; i-- > 0;) {
        if (pass != PPS_PASS_BW && l->runs_bi[i])
            PPS_TRY(emit_op(l, i, IR_PHASE_BI, values));
        if (pass != PPS_PASS_BI && l->runs_bw[i])
            PPS_TRY(emit_op(l, i, IR_PHASE_BW, values));
        if (pass == PPS_PASS_BI && l->runs_bw[i] && !l->runs_bi[i]) {
            /* no input half: its gradients must still be summed for BW */
            const ir_op *op = op_at(l, i);
            where unused;
            for (uint32_t o = 0; o < op->n_out; o++)
                if (l->has_d[op->out[o]] && has_letter(op, IR_PHASE_BW, 'd'))
                    PPS_TRY(gradient(l, op->out[o], true, &unused));
        }
    }
    PPS_TRY(finish_program(l, pass == PPS_PASS_BI ? &chunk->held_bytes : NULL));
    if (pass != PPS_PASS_BI)
        return PPS_OK;
    /* tell BW where things are: HELD offsets, or the link whose gradient it is */
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = op_at(l, i);
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

static pps_status layout_chunk(layout *l, uint32_t c)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    pass_chunk *chunk = &cx->chunks[c];
    l->chunk = c;
    l->c = &g->chunks[c];
    l->b = cx->local_rows[d->chunks[c].group];
    l->ep = d->chunks[c].ep;
    PASS_ALLOC(l->saves, cx->scratch, l->c->ops.n);
    PASS_ALLOC(l->held_h, cx->scratch, l->c->ops.n);
    PASS_ALLOC(l->carry_at, cx->scratch, l->c->ops.n);
    PASS_ALLOC(l->runs_bi, cx->scratch, l->c->ops.n);
    PASS_ALLOC(l->runs_bw, cx->scratch, l->c->ops.n);
    /* only this chunk's tensors matter: reset those */
    uint32_t at = 0;
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = op_at(l, i);
        for (uint32_t k = 0; k < op->n_in + op->n_out; k++) {
            ir_id t = k < op->n_in ? op->in[k] : op->out[k - op->n_in];
            l->uses[t] = 0;
            l->has_d[t] = 0;
            l->homes[t] = (home){.what = BIND_WORK};
        }
    }
    if (d->chunks[c].b != IR_NONE)
        find_backward(l);
    for (uint32_t i = 0; i < l->c->ops.n; i++) {
        const ir_op *op = op_at(l, i);
        for (uint32_t k = 0; k < op->n_in + op->n_out; k++) {
            ir_id t = k < op->n_in ? op->in[k] : op->out[k - op->n_in];
            l->contrib[t] = (ir_range){at, 0};
            at += l->uses[t];
        }
    }
    PASS_ALLOC(l->contrib_list, cx->scratch, at);
    find_homes(l, chunk);
    find_carry(l, chunk);
    for (int pass = 0; pass < PPS_PASS_COUNT; pass++)
        chunk->programs[pass].id = IR_NONE;
    PPS_TRY(build(l, chunk, PPS_PASS_F));
    if (d->chunks[c].b == IR_NONE)
        return PPS_OK;
    PPS_TRY(build(l, chunk, PPS_PASS_B));
    PPS_TRY(build(l, chunk, PPS_PASS_BI));
    if (d->chunks[c].w != IR_NONE)
        PPS_TRY(build(l, chunk, PPS_PASS_BW));
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
    uint32_t slots = 0;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        PPS_TRY(layout_chunk(&l, c));
        if (c % cx->dag->n_model_chunks == 0)
            slots = 0; /* another class: the same slots of other microbatches */
        cx->chunks[c].loss_first = slots;
        slots += g->chunks[c].n_loss;
    }
    cx->n_loss_step = slots;
    return PPS_OK;
}
