/* SPDX-License-Identifier: Apache-2.0
 *
 * chunk.c: cutting the traced graph: which ops the loss needs, through which tensors gradients
 * flow, and the maximal runs of ops with one tagset and no cut between them.
 *
 *   op        0    1    2    3    4    5          chunks   {PP: 0}   {EP: 0, PP: 0}   {PP: 0}
 *   tagset  {PP:0}   {EP:0,PP:0}  {PP:0}                   ops 0 1   ops 2 3          ops 4 5
 *
 * Runs follow the trace, so chunks are in topological order and a tensor only goes to later ones.
 * Every walk here touches each op once.
 */
#include "ir/build.h"

#include <string.h>

typedef struct marks {     /* scratch of one cut */
    uint8_t *op_needed;    /* [n_ops] */
    uint8_t *tensor_wants; /* [n_tensors] a gradient arrives at it */
    uint8_t *tensor_dep;   /* [n_tensors] it depends on a parameter through float operands */
} marks;

static pps_status marks_new(const ir_graph *g, arena *mem, marks *ret)
{
    ret->op_needed = arena_zero(mem, g->n_ops + 1);
    ret->tensor_wants = arena_zero(mem, g->n_tensors + 1);
    ret->tensor_dep = arena_zero(mem, g->n_tensors + 1);
    return ret->op_needed && ret->tensor_wants && ret->tensor_dep ? PPS_OK : PPS_ERR_NOMEM;
}

static void mark_needed(const ir_graph *g, const ir_id *loss_ops, uint32_t n, uint8_t *needed)
{
    for (uint32_t i = 0; i < n; i++)
        needed[loss_ops[i]] = 1;
    for (uint32_t id = g->n_ops; id-- > 0;) {
        if (!needed[id])
            continue;
        const ir_op *op = &g->ops[id];
        for (uint32_t i = 0; i < op->n_in; i++)
            if (g->tensors[op->in[i]].op != IR_NONE)
                needed[g->tensors[op->in[i]].op] = 1;
    }
}

static void mark_dependent(const ir_graph *g, marks *m)
{
    for (uint32_t id = 0; id < g->n_ops; id++) {
        const ir_op *op = &g->ops[id];
        bool dep = false;
        for (uint32_t i = 0; i < op->n_param; i++)
            dep |= op->param[i] != IR_NONE;
        for (uint32_t i = 0; i < op->n_in; i++)
            dep |= m->tensor_dep[ir_made(g, op->in[i])];
        for (uint32_t i = 0; i < op->n_out; i++)
            m->tensor_dep[op->out[i]] = dep && g->tensors[op->out[i]].dtype == IR_F32;
    }
}

static void mark_wanted(const ir_graph *g, marks *m)
{
    for (uint32_t id = g->n_ops; id-- > 0;) {
        const ir_op *op = &g->ops[id];
        bool arrives = ir_op_has_loss((ir_op_kind)op->kind);
        for (uint32_t i = 0; i < op->n_out; i++)
            arrives |= m->tensor_wants[op->out[i]];
        if (!m->op_needed[id] || !arrives)
            continue;
        ir_operand operands[IR_MAX_OPERANDS];
        uint32_t n = ir_op_operands(op, IR_PHASE_BI, operands);
        for (uint32_t i = 0; i < n; i++)
            if (operands[i].letter == 'x') {
                ir_id in = op->in[operands[i].index];
                m->tensor_wants[in] = m->tensor_wants[ir_made(g, in)] = 1;
            }
    }
}

static void set_grad_flags(ir_graph *g, const marks *m)
{
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        ir_tensor *t = &g->tensors[i];
        bool grad = t->op != IR_NONE && m->op_needed[t->op] && m->tensor_wants[i] &&
                    m->tensor_dep[ir_made(g, i)];
        t->flags = (uint8_t)(grad ? t->flags | IR_TENSOR_GRAD : t->flags & ~IR_TENSOR_GRAD);
    }
}

/* All data a loss reads has one batch and one sequence length: a row of one belongs to a row of the
 * other. */
static pps_status check_data(const ir_graph *g, const marks *m)
{
    const ir_data *first = NULL;
    for (uint32_t id = 0; id < g->n_ops; id++) {
        for (uint32_t i = 0; m->op_needed[id] && i < g->ops[id].n_in; i++) {
            const ir_tensor *t = &g->tensors[g->ops[id].in[i]];
            if (t->op != IR_NONE)
                continue;
            const ir_data *d = &g->data[t->data];
            if (first && (d->dims[0] != first->dims[0] || d->dims[1] != first->dims[1])) {
                pps_diag *diag = pps_diag_start(
                    g->st, PPS_SEV_ERROR, 1015, d->span,
                    "the loss reads data of different sizes: [%u, %u, ..] and [%u, %u, ..]",
                    d->dims[0], d->dims[1], first->dims[0], first->dims[1]);
                pps_diag_also(diag, first->span, "batch %u, %u positions here", first->dims[0],
                              first->dims[1]);
                return pps_diag_done(diag);
            }
            first = first ? first : d;
        }
    }
    return PPS_OK;
}

/* ---- Cutting ----------------------------------------------------------------------------------
 */

/* Chunk of every needed op; counts chunks. */
static uint32_t assign_chunks(const ir_graph *g, const uint8_t *needed, ir_id *op_chunk)
{
    uint32_t n = 0;
    ir_id last = IR_NONE;
    for (uint32_t id = 0; id < g->n_ops; id++) {
        op_chunk[id] = IR_NONE;
        if (!needed[id])
            continue;
        if (last == IR_NONE || g->ops[id].tagset != g->ops[last].tagset || g->ops[id].cut)
            n++;
        op_chunk[id] = n - 1;
        last = id;
    }
    return n;
}

typedef struct cutter {
    ir_graph *g;
    uint8_t *crosses;                               /* [n_tensors] used by another chunk */
    uint32_t *seen_tensor, *seen_data, *seen_param; /* last chunk that listed it, plus 1 */
    const ir_id *first_op;                          /* [n_chunks + 1] */
} cutter;

/* Append `value` to the open list unless this chunk has it already. */
static pps_status list_once(cutter *c, uint32_t *seen, uint32_t chunk, uint32_t value,
                            ir_range *list)
{
    if (seen[value] == chunk + 1)
        return PPS_OK;
    seen[value] = chunk + 1;
    list->n++;
    return ir_add_list(c->g, value);
}

static bool op_has_weights(const ir_op *op)
{
    ir_operand operands[IR_MAX_OPERANDS];
    return ir_op_operands(op, IR_PHASE_BW, operands) > 0;
}

/* The ops of chunk `id`, from its first op up to the next chunk's first. */
#define FOR_CHUNK_OPS(c, id, op)                                           \
    for (ir_id op = (c)->first_op[id]; op < (c)->first_op[(id) + 1]; op++) \
        if ((c)->g->op_chunk[op] == (id))

static pps_status fill_chunk(cutter *c, uint32_t id)
{
    ir_graph *g = c->g;
    ir_chunk *chunk = &g->chunks[id];
    const ir_op *first = &g->ops[c->first_op[id]];
    *chunk = (ir_chunk){.tagset = first->tagset, .span = first->span};

    chunk->ops.begin = g->n_lists;
    FOR_CHUNK_OPS(c, id, at)
    {
        PPS_TRY(ir_add_list(g, at));
        chunk->ops.n++;
        chunk->n_loss += ir_op_has_loss((ir_op_kind)g->ops[at].kind);
        chunk->has_weights |= op_has_weights(&g->ops[at]);
    }
    chunk->in.begin = g->n_lists;
    FOR_CHUNK_OPS(c, id, at)
    {
        for (uint32_t i = 0; i < g->ops[at].n_in; i++) {
            ir_id t = g->ops[at].in[i];
            if (g->tensors[t].op == IR_NONE || g->op_chunk[g->tensors[t].op] == id)
                continue;
            PPS_TRY(list_once(c, c->seen_tensor, id, t, &chunk->in));
            chunk->has_grad_in |= (g->tensors[t].flags & IR_TENSOR_GRAD) != 0;
        }
    }
    chunk->out.begin = g->n_lists;
    FOR_CHUNK_OPS(c, id, at)
    {
        for (uint32_t i = 0; i < g->ops[at].n_out; i++)
            if (c->crosses[g->ops[at].out[i]])
                PPS_TRY(list_once(c, c->seen_tensor, id, g->ops[at].out[i], &chunk->out));
    }
    chunk->data.begin = g->n_lists;
    FOR_CHUNK_OPS(c, id, at)
    {
        for (uint32_t i = 0; i < g->ops[at].n_in; i++) {
            const ir_tensor *t = &g->tensors[g->ops[at].in[i]];
            if (t->op == IR_NONE)
                PPS_TRY(list_once(c, c->seen_data, id, t->data, &chunk->data));
        }
    }
    chunk->params.begin = g->n_lists;
    FOR_CHUNK_OPS(c, id, at)
    {
        for (uint32_t i = 0; i < g->ops[at].n_param; i++)
            if (g->ops[at].param[i] != IR_NONE)
                PPS_TRY(list_once(c, c->seen_param, id, g->ops[at].param[i], &chunk->params));
    }
    return PPS_OK;
}

static pps_status fill_chunks(ir_graph *g, arena *scratch)
{
    cutter c = {.g = g};
    ir_id *first_op = arena_new(scratch, (g->n_chunks + 1) * sizeof *first_op);
    c.crosses = arena_zero(scratch, g->n_tensors + 1);
    c.seen_tensor = arena_zero(scratch, (g->n_tensors + 1) * sizeof(uint32_t));
    c.seen_data = arena_zero(scratch, (g->n_data + 1) * sizeof(uint32_t));
    c.seen_param = arena_zero(scratch, (g->n_params + 1) * sizeof(uint32_t));
    if (!first_op || !c.crosses || !c.seen_tensor || !c.seen_data || !c.seen_param)
        return PPS_ERR_NOMEM;
    c.first_op = first_op;
    for (ir_id at = g->n_ops; at-- > 0;) {
        if (g->op_chunk[at] == IR_NONE)
            continue;
        first_op[g->op_chunk[at]] = at;
        for (uint32_t i = 0; i < g->ops[at].n_in; i++) {
            ir_id from = g->tensors[g->ops[at].in[i]].op;
            if (from != IR_NONE && g->op_chunk[from] != g->op_chunk[at])
                c.crosses[ir_made(g, g->ops[at].in[i])] = 1;
        }
    }
    first_op[g->n_chunks] = g->n_ops;
    for (uint32_t id = 0; id < g->n_chunks; id++)
        PPS_TRY(fill_chunk(&c, id));
    return PPS_OK;
}

static pps_status cut(ir_graph *g, arena *scratch, const ir_id *loss_ops, uint32_t n_loss_ops)
{
    marks m;
    PPS_TRY(marks_new(g, scratch, &m));
    mark_needed(g, loss_ops, n_loss_ops, m.op_needed);
    PPS_TRY(check_data(g, &m));
    mark_dependent(g, &m);
    mark_wanted(g, &m);
    set_grad_flags(g, &m);

    g->op_chunk = arena_new(g->mem, (g->n_ops + 1) * sizeof *g->op_chunk);
    if (!g->op_chunk)
        return PPS_ERR_NOMEM;
    uint32_t n = assign_chunks(g, m.op_needed, g->op_chunk);
    g->chunks = arena_zero(g->mem, (n + 1) * sizeof *g->chunks);
    if (!g->chunks)
        return PPS_ERR_NOMEM;
    g->n_chunks = n;
    g->n_lists = 0;
    return fill_chunks(g, scratch);
}

pps_status ir_graph_cut(ir_graph *g, const ir_id *loss_ops, uint32_t n_loss_ops)
{
    arena scratch;
    arena_init(&scratch, g->mem->alloc, g->mem->alloc_ud);
    pps_status status = cut(g, &scratch, loss_ops, n_loss_ops);
    arena_done(&scratch);
    if (status != PPS_OK)
        g->n_chunks = 0;
    return status;
}
