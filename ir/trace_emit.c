/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_emit.c: adding ops, outputs and parameters to the traced graph, with the regions and names
 * of the model call under way. What shapes an op needs is for its builtin to check.
 */
#include "ir/trace.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum {
    STEPS_PER_OP = 200,  /* charged against the step limit: what an op's memory is worth */
    MAX_ELEMS_LOG2 = 44, /* of one tensor or parameter: products of sizes stay far from 2^64 */
};

pps_value trace_handle(const tracer *tr, trace_type type, uint32_t payload)
{
    return pps_handle(tr->types[type], payload);
}

const ir_tensor *trace_tensor(const tracer *tr, ir_id id)
{
    return &tr->graph.tensors[id];
}

pps_status trace_done(const trace_call *c, ir_id tensor, pps_value *ret)
{
    if (c->status == PPS_OK)
        *ret = trace_handle(c->tr, TRACE_TENSOR, tensor);
    return c->status;
}

static bool too_large(const uint32_t *dims, uint32_t n_dims)
{
    uint64_t elems = 1;
    for (uint32_t i = 0; i < n_dims; i++) {
        elems *= dims[i];
        if (elems > (uint64_t)1 << MAX_ELEMS_LOG2)
            return true;
    }
    return false;
}

static bool fits(trace_call *c, const char *what, const uint32_t *dims, uint32_t n_dims)
{
    if (c->status == PPS_OK && too_large(dims, n_dims)) {
        char shape[IR_SHAPE_TEXT];
        c->status = pps_error(c->tr->st, pps_call_span(c->tr->st), 1003,
                              "%s: %s of shape %s is too large (2^%d elements at most)", c->name,
                              what, ir_shape_text(dims, n_dims, shape), MAX_ELEMS_LOG2);
    }
    return c->status == PPS_OK;
}

/* ---- Parameters ---------------------------------------------------------------------------------
 */

const char *trace_base(trace_call *c, const char *given, ir_op_kind kind)
{
    if (given || c->status != PPS_OK)
        return given;
    char text[64];
    snprintf(text, sizeof text, "%s.%u", kind == IR_OP_COUNT ? "attention" : ir_op_name(kind),
             c->tr->unnamed[kind]++);
    const char *name = pps_intern(c->tr->st, text);
    if (!name)
        c->status = PPS_ERR_NOMEM;
    return name;
}

static uint32_t name_slot_of(const name_slot *slots, uint32_t cap, const char *name)
{
    uint32_t at = (uint32_t)(((uintptr_t)name >> 3) * 2654435761u) & (cap - 1);
    while (slots[at].name && slots[at].name != name)
        at = (at + 1) & (cap - 1);
    return at;
}

static pps_status names_grow(tracer *tr)
{
    if (tr->n_names * 2 < tr->cap_names)
        return PPS_OK;
    uint32_t cap = tr->cap_names ? tr->cap_names * 2 : 256;
    name_slot *slots = arena_zero(&tr->mem, cap * sizeof *slots);
    if (!slots)
        return PPS_ERR_NOMEM;
    for (uint32_t i = 0; i < tr->cap_names; i++)
        if (tr->names[i].name)
            slots[name_slot_of(slots, cap, tr->names[i].name)] = tr->names[i];
    tr->names = slots;
    tr->cap_names = cap;
    return PPS_OK;
}

const char *trace_name(trace_call *c, const char *base, const char *suffix)
{
    if (c->status != PPS_OK)
        return NULL;
    size_t n = strlen(base), m = strlen(suffix);
    char *text = arena_new(&c->tr->mem, n + m + 1);
    if (!text) {
        c->status = PPS_ERR_NOMEM;
        return NULL;
    }
    memcpy(text, base, n);
    memcpy(text + n, suffix, m + 1);
    const char *name = pps_intern(c->tr->st, text);
    if (!name)
        c->status = PPS_ERR_NOMEM;
    return name;
}

/* A name made twice in one scope is one parameter, if both say the same of it. */
static void check_same(trace_call *c, const ir_param *old, const ir_param *again)
{
    bool same_shape = old->n_dims == again->n_dims &&
                      memcmp(old->dims, again->dims, old->n_dims * sizeof *old->dims) == 0;
    if (same_shape && old->init == again->init && old->init_std == again->init_std)
        return;
    char first[IR_SHAPE_TEXT], second[IR_SHAPE_TEXT];
    ir_shape_text(old->dims, old->n_dims, first);
    ir_shape_text(again->dims, again->n_dims, second);
    pps_diag *d =
        same_shape ? pps_diag_start(c->tr->st, PPS_SEV_ERROR, 1006, again->span,
                                    "parameter '%s' is made twice, with different initial values",
                                    again->name)
                   : pps_diag_start(c->tr->st, PPS_SEV_ERROR, 1006, again->span,
                                    "parameter '%s' of shape %s exists already, with shape %s",
                                    again->name, second, first);
    pps_diag_also(d, old->span, "first made here");
    c->status = pps_diag_done(d);
}

ir_id trace_param(trace_call *c, const char *base, const char *suffix, ir_init init, float std,
                  uint32_t n_dims, const uint32_t *dims, uint8_t flags)
{
    tracer *tr = c->tr;
    if (!fits(c, "a parameter", dims, n_dims))
        return 0;
    const char *name = trace_name(c, base, suffix);
    if (name && (c->status = names_grow(tr)) == PPS_OK) {
        ir_param p = {.name = name,
                      .n_dims = (uint8_t)n_dims,
                      .init = (uint8_t)init,
                      .flags = flags,
                      .init_std = init == IR_INIT_NORMAL ? std : 0,
                      .trace = trace_now(tr),
                      .span = pps_call_span(tr->st)};
        memcpy(p.dims, dims, n_dims * sizeof *dims);
        name_slot *slot = &tr->names[name_slot_of(tr->names, tr->cap_names, name)];
        if (slot->name) {
            check_same(c, &tr->graph.params[slot->param], &p);
            return slot->param;
        }
        ir_id id;
        c->status = ir_add_param(&tr->graph, &p, &id);
        if (c->status == PPS_OK) {
            *slot = (name_slot){name, id};
            tr->n_names++;
            return id;
        }
    }
    return 0;
}

/* ---- Ops ----------------------------------------------------------------------------------------
 */

static ir_id open_tagset(trace_call *c)
{
    tracer *tr = c->tr;
    if (tr->tagset == IR_NONE) {
        ir_tag tags[TRACE_MAX_TAGS];
        for (uint32_t i = 0; i < tr->n_open; i++)
            tags[i] = tr->open[i].tag;
        c->status = ir_add_tagset(&tr->graph, tags, tr->n_open, &tr->tagset);
    }
    return tr->tagset;
}

ir_id trace_emit(trace_call *c, const trace_op *op)
{
    tracer *tr = c->tr;
    if (c->status != PPS_OK)
        return 0;
    ir_op o = {.kind = (uint8_t)op->kind,
               .n_in = (uint8_t)op->n_in,
               .n_param = (uint8_t)op->n_param,
               .tagset = op->tagset == IR_NONE ? open_tagset(c) : op->tagset,
               .trace = trace_now(tr),
               .span = pps_call_span(tr->st),
               .attrs = op->attrs};
    memcpy(o.in, op->in, sizeof o.in);
    memcpy(o.param, op->param, sizeof o.param);
    ir_id id = 0;
    if (c->status == PPS_OK)
        c->status = pps_charge(tr->st, STEPS_PER_OP);
    if (c->status == PPS_OK)
        c->status = ir_add_op(&tr->graph, &o, &id);
    return id;
}

ir_id trace_output(trace_call *c, ir_id op, ir_dtype dtype, uint8_t flags, uint32_t n_dims,
                   const uint32_t *dims)
{
    if (!fits(c, "a tensor", dims, n_dims))
        return 0;
    ir_graph *g = &c->tr->graph;
    const ir_op *o = &g->ops[op];
    /* Until the graph is cut, GRAD means: computed from parameters. */
    bool from_params = false;
    for (uint32_t i = 0; i < o->n_param; i++)
        from_params |= o->param[i] != IR_NONE;
    for (uint32_t i = 0; i < o->n_in; i++)
        from_params |= (g->tensors[o->in[i]].flags & IR_TENSOR_GRAD) != 0;
    if (from_params && dtype == IR_F32)
        flags |= IR_TENSOR_GRAD;
    ir_id id = 0;
    c->status = ir_add_output(g, op, dtype, flags, n_dims, dims, &id);
    return id;
}

ir_id trace_output_like(trace_call *c, ir_id op, ir_id like, uint32_t n)
{
    if (c->status != PPS_OK)
        return 0;
    const ir_tensor *t = trace_tensor(c->tr, like);
    uint32_t dims[3] = {t->dims[0], t->dims[1], n};
    return trace_output(c, op, IR_F32, IR_TENSOR_BATCH, 3, dims);
}

ir_id trace_linear(trace_call *c, ir_id x, uint32_t n, bool bias, const char *base, ir_id weight,
                   float std)
{
    if (c->status != PPS_OK)
        return 0;
    uint32_t dims[2] = {n, trace_tensor(c->tr, x)->dims[2]};
    if (weight == IR_NONE)
        weight = trace_param(c, base, ".weight", IR_INIT_NORMAL, std, 2, dims, 0);
    trace_op op = {.kind = IR_LINEAR,
                   .n_in = 1,
                   .n_param = 2,
                   .in = {x},
                   .param = {weight, IR_NONE},
                   .tagset = IR_NONE};
    if (bias)
        op.param[1] = trace_param(c, base, ".bias", IR_INIT_ZERO, 0, 1, dims, 0);
    ir_id id = trace_emit(c, &op);
    return trace_output_like(c, id, x, n);
}

ir_id trace_rmsnorm(trace_call *c, ir_id x, uint32_t group, float eps, const char *base)
{
    if (c->status != PPS_OK)
        return 0;
    trace_op op = {.kind = IR_RMSNORM,
                   .n_in = 1,
                   .n_param = 1,
                   .in = {x},
                   .attrs = {.group = group, .eps = eps},
                   .tagset = IR_NONE};
    op.param[0] = trace_param(c, base, ".weight", IR_INIT_ONE, 0, 1, &group, 0);
    ir_id id = trace_emit(c, &op);
    return c->status == PPS_OK ? trace_output_like(c, id, x, trace_tensor(c->tr, x)->dims[2]) : 0;
}

ir_id trace_rope(trace_call *c, ir_id x, uint32_t head_dim, float theta)
{
    if (c->status != PPS_OK)
        return 0;
    uint32_t width = trace_tensor(c->tr, x)->dims[2];
    trace_op op = {.kind = IR_ROPE,
                   .n_in = 1,
                   .in = {x},
                   .attrs = {.head_dim = head_dim, .heads = width / head_dim, .theta = theta},
                   .tagset = IR_NONE};
    ir_id id = trace_emit(c, &op);
    return trace_output_like(c, id, x, width);
}

ir_id trace_attention(trace_call *c, ir_id q, ir_id k, ir_id v, uint32_t heads, uint32_t kv_heads)
{
    if (c->status != PPS_OK)
        return 0;
    uint32_t width = trace_tensor(c->tr, q)->dims[2];
    trace_op op = {.kind = IR_ATTENTION,
                   .n_in = 3,
                   .in = {q, k, v},
                   .attrs = {.heads = heads, .kv_heads = kv_heads, .head_dim = width / heads},
                   .tagset = IR_NONE};
    ir_id id = trace_emit(c, &op);
    return trace_output_like(c, id, q, width);
}

pps_status trace_define(tracer *tr, const trace_builtin *table, size_t n)
{
    for (size_t i = 0; i < n; i++)
        PPS_TRY(pps_def(tr->st, table[i].signature, table[i].fn, tr, NULL, table[i].doc));
    return PPS_OK;
}
