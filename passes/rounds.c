/* SPDX-License-Identifier: Apache-2.0
 *
 * rounds.c: what `shard F on DEVICES as sequence` does to the model graph, before anything else
 * looks at it. Ranks that share sequences hold 1/n of the positions each, two blocks of 2n (see
 * cpu_place in runtime/cpu/kernels.h), so every tensor gets T/n positions, and attention takes n
 * rounds, in round j with the keys and values of the rank j places before:
 *
 *   .. q k v = ..               |  .. q k v = ..
 *   o = attention(q, k, v)      |  a0, s0 = part(q, k, v)                     a chunk
 *   .. = f(o)                   |  a1, s1 = part(q, k>>1, v>>1, a0, s0)       a chunk, and so on
 *                               |  o = end(a1, s1), .. = f(o)                 a chunk
 *
 * k>>j is k behind a border, IR_BORDER_SHIFT. Rounds are chunks of their own so that the next
 * round's keys can travel while one computes. A chain of rounds instead of a merge of all: two
 * states are alive at a time, not n.
 *
 * The whole graph is rewritten: sequences are shared by all device groups alike or by none
 * (sequence.c checks that, once groups are known, and finds each round's directive).
 */
#include "ir/build.h"
#include "passes/pass.h"

#include <string.h>

typedef struct rounds {
    pass_cx *cx;
    const ir_graph *from;
    ir_graph *to;
    uint32_t parts;
    ir_id *op; /* [from->n_ops] new ids */
    const ir_directive *directive;
} rounds;

static bool is_sequence(const ir_program *p, uint32_t i)
{
    return p->kinds[i] == PPS_DIR_SHARD && p->directives[i].as[0] == 's';
}

/* How many ranks share a sequence, and the first directive that says so; NULL: none. */
static pps_status find_parts(pass_cx *cx, uint32_t *ret_parts, const ir_directive **ret)
{
    const ir_program *p = cx->program;
    *ret = NULL;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        const ir_directive *s = &p->directives[i];
        if (!is_sequence(p, i))
            continue;
        uint32_t parts = s->devices.n / s->devices.n_groups;
        if (parts < 2)
            return pps_diag_done(
                pass_diag(cx, s, s->devices.span, 410, "shard on one device has no effect"));
        if (*ret != NULL && parts != *ret_parts) {
            pps_diag *diag =
                pass_diag(cx, s, s->devices.span, 431,
                          "%u ranks share a sequence here, and %u elsewhere", parts, *ret_parts);
            pps_diag_also(diag, (*ret)->devices.span, "%u here", *ret_parts);
            pps_diag_note(diag, "stages hand on the positions that they work on");
            return pps_diag_done(diag);
        }
        *ret = *ret != NULL ? *ret : s;
        *ret_parts = parts;
    }
    return PPS_OK;
}

/* ---- what cannot be divided
 * ----------------------------------------------------------------------- */

static pps_status refuse(const rounds *r, const ir_op *op, const char *what)
{
    const ir_directive *s = r->directive;
    pps_diag *diag = pass_diag(r->cx, s, s->source->span, 433, "%s", what);
    pps_diag_also(diag, op->span, "this op");
    return pps_diag_done(diag);
}

static pps_status check(const rounds *r)
{
    const ir_graph *g = r->from;
    const ir_directive *s = r->directive;
    for (uint32_t i = 0; i < g->n_data; i++)
        if (g->data[i].dims[1] % (2 * r->parts) != 0) {
            pps_diag *diag = pass_diag(r->cx, s, s->devices.span, 210,
                                       "cannot divide %u positions into two blocks for each of %u "
                                       "ranks",
                                       g->data[i].dims[1], r->parts);
            pps_diag_also(diag, g->data[i].span, "the sequences come from here");
            return pps_diag_done(diag);
        }
    for (uint32_t i = 0; i < r->cx->program->n_directives; i++) {
        const ir_directive *other = &r->cx->program->directives[i];
        const pps_clause *capacity = pps_directive_clause(other->source, "capacity");
        if (capacity == NULL)
            continue;
        pps_diag *diag = pass_diag(r->cx, s, s->source->span, 433,
                                   "a capacity is of whole sequences, which this divides");
        pps_diag_also(diag, capacity->word_span, "this capacity");
        return pps_diag_done(diag);
    }
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const ir_op *op = &g->ops[i];
        if (op->kind == IR_ROUTER && op->attrs.aux_coef > 0.0f)
            return refuse(r, op,
                          "a router's auxiliary loss is over whole sequences, which this "
                          "divides");
        if (op->kind == IR_OPAQUE)
            return refuse(r, op, "a host computes this over whole sequences, which this divides");
    }
    return PPS_OK;
}

/* ---- the new graph
 * ------------------------------------------------------------------------------------ */

/* Tensors keep their ids; the old ones' places in the order of ops are set as ops are copied. */
static pps_status begin_graph(rounds *r)
{
    const ir_graph *g = r->from;
    arena *mem = r->cx->scratch;
    PASS_ALLOC(r->to, mem, 1);
    *r->to = *g;
    r->to->mem = mem;
    r->to->ops = NULL;
    r->to->n_ops = r->to->cap_ops = 0;
    r->to->lists = NULL;
    r->to->n_lists = r->to->cap_lists = 0;
    r->to->chunks = NULL;
    r->to->n_chunks = 0;
    PASS_ALLOC(r->to->tensors, mem, g->n_tensors);
    r->to->cap_tensors = g->n_tensors;
    memcpy(r->to->tensors, g->tensors, g->n_tensors * sizeof *g->tensors);
    for (uint32_t i = 0; i < g->n_tensors; i++)
        if ((g->tensors[i].flags & IR_TENSOR_BATCH) && g->tensors[i].n_dims > 1)
            r->to->tensors[i].dims[1] /= r->parts;
    PASS_ALLOC(r->op, mem, g->n_ops);
    return PPS_OK;
}

/* An op as it was, with its outputs. */
static pps_status keep_op(rounds *r, const ir_op *op, ir_id *ret)
{
    ir_graph *g = r->to;
    PPS_TRY(ir_add_op(g, op, ret));
    ir_op *made = &g->ops[*ret];
    made->n_out = op->n_out;
    if (op->kind == IR_POSITION || op->kind == IR_ROPE)
        made->attrs.parts = r->parts;
    for (uint32_t i = 0; i < op->n_out; i++)
        g->tensors[op->out[i]].op = *ret;
    return PPS_OK;
}

/* A tensor that a chunk makes: data is in every rank's memory, but a border needs a maker. */
static pps_status made_tensor(rounds *r, const ir_op *attention, ir_id tensor, ir_id *ret)
{
    ir_graph *g = r->to;
    const ir_tensor t = g->tensors[tensor];
    *ret = tensor;
    if (t.op != IR_NONE)
        return PPS_OK;
    ir_op copy = {.kind = IR_SLICE,
                  .n_in = 1,
                  .in = {tensor},
                  .tagset = attention->tagset,
                  .trace = attention->trace,
                  .span = attention->span};
    ir_id op;
    PPS_TRY(ir_add_op(g, &copy, &op));
    return ir_add_output(g, op, IR_F32, t.flags, t.n_dims, t.dims, ret);
}

static pps_status shifted(rounds *r, ir_id tensor, uint32_t shift, ir_id *ret)
{
    ir_graph *g = r->to;
    const ir_tensor t = g->tensors[tensor];
    if (shift == 0) {
        *ret = tensor;
        return PPS_OK;
    }
    PPS_TRY(ir_add_form(g, tensor, IR_BORDER_SHIFT, IR_NONE, t.n_dims, t.dims, ret));
    g->tensors[*ret].shift = shift;
    return PPS_OK;
}

static pps_status add_round(rounds *r, const ir_op *attention, const ir_id kv[2], uint32_t shift,
                            ir_id state[2])
{
    ir_graph *g = r->to;
    const ir_tensor q = g->tensors[attention->in[0]];
    ir_op part = *attention;
    ir_id op;
    part.kind = IR_ATTENTION_PART;
    part.cut = true;
    part.attrs.parts = r->parts;
    part.attrs.shift = shift;
    PPS_TRY(shifted(r, kv[0], shift, &part.in[1]));
    part.in[2] = part.in[1];
    if (kv[1] != kv[0])
        PPS_TRY(shifted(r, kv[1], shift, &part.in[2]));
    if (shift > 0) {
        part.n_in = 5;
        part.in[3] = state[0];
        part.in[4] = state[1];
    }
    const uint32_t stats[3] = {q.dims[0], q.dims[1], 2 * attention->attrs.heads};
    PPS_TRY(ir_add_op(g, &part, &op));
    PPS_TRY(ir_add_output(g, op, IR_F32, IR_TENSOR_BATCH, q.n_dims, q.dims, &state[0]));
    return ir_add_output(g, op, IR_F32, IR_TENSOR_BATCH, 3, stats, &state[1]);
}

static pps_status divide_attention(rounds *r, const ir_op *attention, ir_id *ret)
{
    ir_id kv[2], state[2] = {IR_NONE, IR_NONE};
    PPS_TRY(made_tensor(r, attention, attention->in[1], &kv[0]));
    kv[1] = kv[0];
    if (attention->in[2] != attention->in[1])
        PPS_TRY(made_tensor(r, attention, attention->in[2], &kv[1]));
    for (uint32_t shift = 0; shift < r->parts; shift++)
        PPS_TRY(add_round(r, attention, kv, shift, state));
    ir_op end = *attention;
    end.kind = IR_ATTENTION_END;
    end.cut = true;
    end.n_in = 2;
    end.in[0] = state[0];
    end.in[1] = state[1];
    return keep_op(r, &end, ret);
}

pps_status pass_rounds(pass_cx *cx)
{
    rounds r = {.cx = cx, .from = cx->program->graph};
    const ir_train *train = &cx->program->train;
    ir_id *loss_ops;
    PPS_TRY(find_parts(cx, &r.parts, &r.directive));
    if (r.directive == NULL)
        return PPS_OK;
    PPS_TRY(check(&r));
    PPS_TRY(begin_graph(&r));
    for (uint32_t i = 0; i < r.from->n_ops; i++) {
        const ir_op *op = &r.from->ops[i];
        if (op->kind == IR_ATTENTION)
            PPS_TRY(divide_attention(&r, op, &r.op[i]));
        else
            PPS_TRY(keep_op(&r, op, &r.op[i]));
    }
    PASS_ALLOC(loss_ops, cx->scratch, train->n_loss_ops);
    for (uint32_t i = 0; i < train->n_loss_ops; i++)
        loss_ops[i] = r.op[train->loss_ops[i]];
    return pass_replace_graph(cx, r.to, loss_ops);
}
