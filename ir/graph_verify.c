/* SPDX-License-Identifier: Apache-2.0
 *
 * graph_verify.c: every invariant of graph.h, checked. A violation is our bug (or a host's, for
 * graphs made by hand), never the user's: PPS_ERR_INTERNAL, with the first one named.
 */
#include "ir/build.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pps_status broken(const ir_graph *g, pps_span span, const char *format, ...)
    PPS_PRINTF(3, 4);
static pps_status broken(const ir_graph *g, pps_span span, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (g->st)
        pps_error(g->st, span, 1099, "internal error in the model graph: %s", text);
    return PPS_ERR_INTERNAL;
}

#define CHECK(condition, span, ...)              \
    do {                                         \
        if (!(condition))                        \
            return broken(g, span, __VA_ARGS__); \
    } while (0)

static bool dims_are_positive(const uint32_t *dims, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (dims[i] == 0)
            return false;
    return n <= IR_MAX_DIMS;
}

static pps_status verify_tensors(const ir_graph *g)
{
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const ir_tensor *t = &g->tensors[i];
        CHECK(t->dtype == IR_F32 || t->dtype == IR_I32, t->span, "tensor %u has no dtype", i);
        CHECK(dims_are_positive(t->dims, t->n_dims), t->span, "tensor %u has an empty dimension",
              i);
        CHECK(!(t->flags & IR_TENSOR_GRAD) || t->dtype == IR_F32, t->span,
              "a gradient flows through int tensor %u", i);
        if (t->border != IR_NO_BORDER) {
            CHECK(t->border < IR_BORDER_COUNT && t->of < i && t->op != IR_NONE &&
                      g->tensors[t->of].op == t->op && g->tensors[t->of].out == t->out,
                  t->span, "tensor %u is no form of tensor %u", i, t->of);
        } else if (t->op != IR_NONE) {
            CHECK(t->op < g->n_ops && t->out < g->ops[t->op].n_out &&
                      g->ops[t->op].out[t->out] == i && t->data == IR_NONE,
                  t->span, "tensor %u is not output %u of op %u", i, t->out, t->op);
        } else {
            CHECK(t->data < g->n_data && g->data[t->data].tensor == i, t->span,
                  "tensor %u has neither a producer nor data", i);
        }
        if (t->flags & (IR_TENSOR_ROWS | IR_TENSOR_COUNTS))
            CHECK(t->op != IR_NONE && g->ops[t->op].attrs.experts && g->ops[t->op].attrs.top_k,
                  t->span, "tensor %u counts experts, its op has none", i);
    }
    return PPS_OK;
}

static pps_status verify_params(const ir_graph *g)
{
    for (uint32_t i = 0; i < g->n_params; i++) {
        const ir_param *p = &g->params[i];
        CHECK(p->name && p->name[0], p->span, "parameter %u has no name", i);
        CHECK(p->n_dims > 0 && dims_are_positive(p->dims, p->n_dims), p->span,
              "parameter '%s' has an empty dimension", p->name);
    }
    return PPS_OK;
}

/* Operand lists must name nothing the op does not have. */
static pps_status verify_operands(const ir_graph *g, uint32_t id)
{
    const ir_op *op = &g->ops[id];
    for (int phase = 0; phase < IR_PHASE_COUNT; phase++) {
        ir_operand operands[IR_MAX_OPERANDS];
        uint32_t n = ir_op_operands(op, (ir_phase)phase, operands);
        for (uint32_t i = 0; i < n; i++) {
            char letter = operands[i].letter;
            uint32_t have = strchr("ix", letter)   ? op->n_in
                            : strchr("od", letter) ? op->n_out
                            : strchr("pg", letter) ? op->n_param
                                                   : 1;
            CHECK(operands[i].index < have, op->span, "op %u (%s) lacks operand %c%u", id,
                  ir_op_name((ir_op_kind)op->kind), letter, operands[i].index);
        }
    }
    return PPS_OK;
}

static pps_status verify_ops(const ir_graph *g)
{
    for (uint32_t id = 0; id < g->n_ops; id++) {
        const ir_op *op = &g->ops[id];
        CHECK(op->kind < IR_OP_COUNT, op->span, "op %u has no kind", id);
        CHECK(op->n_in > 0 && op->n_in <= IR_MAX_IN && op->n_out <= IR_MAX_OUT &&
                  op->n_param <= IR_MAX_PARAM,
              op->span, "op %u has too many operands, or no input", id);
        CHECK(op->tagset < g->n_tagsets, op->span, "op %u has no tagset", id);
        for (uint32_t i = 0; i < op->n_in; i++) {
            CHECK(op->in[i] < g->n_tensors, op->span, "op %u reads no tensor", id);
            ir_id from = g->tensors[op->in[i]].op;
            CHECK(from == IR_NONE || from < id, op->span, "op %u reads a later op's output", id);
        }
        for (uint32_t i = 0; i < op->n_out; i++)
            CHECK(op->out[i] < g->n_tensors && g->tensors[op->out[i]].op == id, op->span,
                  "output %u of op %u is another's", i, id);
        for (uint32_t i = 0; i < op->n_param; i++)
            CHECK(op->param[i] < g->n_params || op->param[i] == IR_NONE, op->span,
                  "op %u has no parameter %u", id, i);
        PPS_TRY(verify_operands(g, id));
    }
    for (uint32_t i = 0; i < g->n_tagsets; i++) {
        const ir_tagset *set = &g->tagsets[i];
        CHECK(set->begin + set->n <= g->n_tags && (i > 0 || set->n == 0), (pps_span){0},
              "tagset %u is out of range", i);
        for (uint32_t k = 1; k < set->n; k++)
            CHECK(strcmp(g->tags[set->begin + k - 1].name, g->tags[set->begin + k].name) < 0,
                  (pps_span){0}, "tagset %u is not sorted", i);
    }
    return PPS_OK;
}

static bool contains(const ir_graph *g, ir_range list, uint32_t value)
{
    for (uint32_t i = 0; i < list.n; i++)
        if (g->lists[list.begin + i] == value)
            return true;
    return false;
}

static pps_status verify_chunk(const ir_graph *g, uint32_t id)
{
    const ir_chunk *c = &g->chunks[id];
    CHECK(c->ops.n > 0, c->span, "chunk %u is empty", id);
    for (uint32_t i = 0; i < c->ops.n; i++) {
        ir_id at = g->lists[c->ops.begin + i];
        CHECK(at < g->n_ops && g->op_chunk[at] == id && g->ops[at].tagset == c->tagset, c->span,
              "op %u is not of chunk %u", at, id);
        const ir_op *op = &g->ops[at];
        for (uint32_t k = 0; k < op->n_in; k++) {
            const ir_tensor *t = &g->tensors[op->in[k]];
            if (t->op == IR_NONE)
                CHECK(contains(g, c->data, t->data), c->span, "chunk %u does not list data %u", id,
                      t->data);
            else
                CHECK((g->op_chunk[t->op] == id && t->border == IR_NO_BORDER) ||
                          (g->op_chunk[t->op] < id && contains(g, c->in, op->in[k]) &&
                           contains(g, g->chunks[g->op_chunk[t->op]].out, ir_made(g, op->in[k]))),
                      c->span, "tensor %u reaches chunk %u unlisted", op->in[k], id);
        }
        for (uint32_t k = 0; k < op->n_param; k++)
            CHECK(op->param[k] == IR_NONE || contains(g, c->params, op->param[k]), c->span,
                  "chunk %u does not list parameter %u", id, op->param[k]);
    }
    return PPS_OK;
}

pps_status ir_graph_verify(const ir_graph *g)
{
    PPS_TRY(verify_tensors(g));
    PPS_TRY(verify_params(g));
    PPS_TRY(verify_ops(g));
    for (uint32_t i = 0; i < g->n_chunks; i++)
        PPS_TRY(verify_chunk(g, i));
    return PPS_OK;
}
