/* SPDX-License-Identifier: Apache-2.0
 *
 * graph.c: what ops.def says, as data: names, operands per phase, and from them the bytes each
 * operand needs and the FLOPs each phase costs. Which op is which appears only in the size and cost
 * rules.
 */
#include "ir/graph.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    const char *operands[IR_PHASE_COUNT];
} op_table[IR_OP_COUNT] = {
#define OP(name, text, f, bi, bw) [IR_##name] = {text, {f, bi, bw}},
#include "ir/ops.def"
#undef OP
};

const char *ir_op_name(ir_op_kind kind)
{
    assert(kind < IR_OP_COUNT);
    return op_table[kind].name;
}

bool ir_op_has_loss(ir_op_kind kind)
{
    return strchr(op_table[kind].operands[IR_PHASE_F], 'l') != NULL;
}

/* "i0 p0 p1 o0" */
static uint32_t parse_operands(const char *text, ir_operand ret[IR_MAX_OPERANDS])
{
    uint32_t n = 0;
    for (const char *at = text; *at; at += at[2] ? 3 : 2) {
        assert(n < IR_MAX_OPERANDS && at[1] >= '0' && at[1] <= '9');
        ret[n++] = (ir_operand){at[0], (uint8_t)(at[1] - '0')};
    }
    return n;
}

/* An OPAQUE's lists come from its counts. s0 and h0 are always listed: their place is the same for
 * all hosts, their extent may be 0. Without parameters there is no BW. */
static uint32_t opaque_operands(const ir_op *op, ir_phase phase, ir_operand ret[IR_MAX_OPERANDS])
{
    static const char order[IR_PHASE_COUNT][7] = {"ipos", "ipsdxh", "ishdg"};
    if (phase == IR_PHASE_BW && op->n_param == 0)
        return 0;
    uint32_t n = 0;
    for (const char *letter = order[phase]; *letter; letter++) {
        uint32_t count = 1;
        if (*letter == 'i' || *letter == 'x')
            count = op->n_in;
        else if (*letter == 'o' || *letter == 'd')
            count = op->n_out;
        else if (*letter == 'p' || *letter == 'g')
            count = op->n_param;
        for (uint32_t i = 0; i < count; i++)
            ret[n++] = (ir_operand){*letter, (uint8_t)i};
    }
    return n;
}

uint32_t ir_op_operands(const ir_op *op, ir_phase phase, ir_operand ret[IR_MAX_OPERANDS])
{
    assert(op->kind < IR_OP_COUNT && phase < IR_PHASE_COUNT);
    if (op->kind == IR_OPAQUE)
        return opaque_operands(op, phase, ret);
    uint32_t n = parse_operands(op_table[op->kind].operands[phase], ret);
    /* the first round's have no round before them: those operands come last */
    if (op->kind == IR_ATTENTION_PART && op->attrs.shift == 0)
        while (n > 0 && strchr("ix", ret[n - 1].letter) && ret[n - 1].index >= 3)
            n--;
    return n;
}

/* ---- Bytes ------------------------------------------------------------------------------------
 */

uint64_t ir_rows_per_batch_row(uint32_t T, const ir_attrs *a, uint32_t ep)
{
    uint32_t here = a->experts / ep;
    uint64_t chosen = (uint64_t)(a->top_k < here ? a->top_k : here) * T;
    uint64_t taken = a->capacity > 0 ? (uint64_t)here * a->capacity : chosen;
    return (taken < chosen ? taken : chosen) * ep;
}

uint64_t ir_param_elems(const ir_param *p)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < p->n_dims; i++)
        n *= p->dims[i];
    return n;
}

static uint32_t last_dim(const ir_tensor *t)
{
    return t->n_dims ? t->dims[t->n_dims - 1] : 1;
}

/* Elements of one batch row (of the whole tensor where there is no batch dimension). */
static uint64_t row_elems(const ir_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = t->flags & IR_TENSOR_BATCH ? 1 : 0; i < t->n_dims; i++)
        n *= t->dims[i];
    return n;
}

/* Most expert rows of one batch row, for an op that reads or writes them in tensor `rows`. */
static uint64_t expert_rows(const ir_op *op, const ir_tensor *rows, uint32_t ep)
{
    return ir_rows_per_batch_row(rows->dims[1] / op->attrs.top_k, &op->attrs, ep ? ep : 1);
}

ir_extent ir_tensor_extent(const ir_graph *g, const ir_tensor *t, uint32_t ep)
{
    if (t->flags & IR_TENSOR_ROWS)
        return (ir_extent){.per_row = 4 * expert_rows(&g->ops[t->op], t, ep) * last_dim(t)};
    if (t->flags & IR_TENSOR_COUNTS)
        return (ir_extent){.fixed = 4 * row_elems(t) * (ep ? ep : 1)};
    if (t->flags & IR_TENSOR_BATCH)
        return (ir_extent){.per_row = 4 * row_elems(t)};
    return (ir_extent){.fixed = 4 * row_elems(t)};
}

static uint64_t per_row(uint64_t bytes, uint32_t batch)
{
    return (bytes + batch - 1) / batch;
}

ir_extent ir_op_extra(const ir_graph *g, const ir_op *op, ir_operand operand, uint32_t ep)
{
    const ir_tensor *in = &g->tensors[op->in[0]];
    uint64_t T = in->dims[1], n = last_dim(in);
    char letter = operand.letter;
    ir_extent none = {0, 0};
    switch ((ir_op_kind)op->kind) {
    case IR_RMSNORM:
        if (letter == 's')
            return (ir_extent){.per_row = 4 * T * (n / op->attrs.group)};
        return letter == 'h' ? (ir_extent){.fixed = 4 * (uint64_t)op->attrs.group} : none;
    case IR_LAYERNORM:
        if (letter == 's')
            return (ir_extent){.per_row = 4 * T * 2};
        return letter == 'h' ? (ir_extent){.fixed = 4 * 2 * n} : none;
    case IR_ATTENTION:
    case IR_ATTENTION_END:
    case IR_ATTENTION_SLICE:
        if (letter == 'c') /* keys and values, or their gradients, of all slices */
            return (ir_extent){.per_row = 4 * T * 2 * op->attrs.kv_heads * op->attrs.head_dim};
        return letter == 's' ? (ir_extent){.per_row = 4 * T * op->attrs.heads} : none;
    case IR_EXPERTS: {
        uint64_t rows = expert_rows(op, in, ep), hidden = op->attrs.hidden;
        if (letter == 's' || letter == 'h')
            return (ir_extent){.per_row = 4 * rows * 2 * hidden};
        return letter == 'w' ? (ir_extent){.per_row = 4 * rows * hidden} : none;
    }
    case IR_CROSS_ENTROPY:
    case IR_CROSS_ENTROPY_MERGE:
        return letter == 's' ? (ir_extent){.per_row = 4 * T} : none;
    case IR_OPAQUE:
        if (letter == 's')
            return (ir_extent){.per_row = per_row(op->attrs.save_bytes, in->dims[0])};
        if (letter == 'h')
            return (ir_extent){.per_row = per_row(op->attrs.hold_bytes, in->dims[0])};
        return none;
    case IR_ATTENTION_PART:
    case IR_EMBED:
    case IR_POSITION:
    case IR_LINEAR:
    case IR_ROPE:
    case IR_GELU:
    case IR_SWIGLU:
    case IR_ADD:
    case IR_SLICE:
    case IR_ROUTER:
    case IR_DISPATCH:
    case IR_COMBINE:
    case IR_CROSS_ENTROPY_PART:
    case IR_MSE:
    case IR_OP_COUNT:
        break;
    }
    return none;
}

/* ---- FLOPs ------------------------------------------------------------------------------------
 */

/* A matrix product of [m,k] and [k,n] counts 2mnk; the rest are rough counts per element, which
 * only need to be right beside the products. */
double ir_op_flops(const ir_graph *g, const ir_op *op, ir_phase phase)
{
    ir_operand operands[IR_MAX_OPERANDS];
    if (ir_op_operands(op, phase, operands) == 0)
        return 0;
    const ir_tensor *in = &g->tensors[op->in[0]];
    double T = in->dims[1], n_in = last_dim(in);
    double n_out = op->n_out ? last_dim(&g->tensors[op->out[0]]) : 0;
    const ir_attrs *a = &op->attrs;
    switch ((ir_op_kind)op->kind) {
    case IR_LINEAR: /* each phase is one product of the same three sizes */
        return 2 * T * n_in * n_out;
    case IR_EXPERTS: /* three products in F; their gradients are three more in BI and in BW */
        return 6 * (double)expert_rows(op, in, 1) * n_in * a->hidden;
    case IR_ATTENTION_PART: /* two of its four pairs of blocks, or one and two halves */
    case IR_ATTENTION:
    case IR_ATTENTION_SLICE: { /* causal: half of T^2. F: QK', PV. BI: QK' again, dV, dP, dQ, dK */
        double product = T * T * a->heads * a->head_dim;
        return phase == IR_PHASE_F ? 2 * product : 5 * product;
    }
    case IR_RMSNORM:
    case IR_LAYERNORM:
        return phase == IR_PHASE_F ? 5 * T * n_in : phase == IR_PHASE_BI ? 10 * T * n_in : n_in;
    case IR_GELU:
    case IR_SWIGLU:
        return 12 * T * n_in;
    case IR_ROPE:
    case IR_ATTENTION_END:
        return 4 * T * n_in;
    case IR_CROSS_ENTROPY:
    case IR_CROSS_ENTROPY_PART:
    case IR_CROSS_ENTROPY_MERGE:
    case IR_ROUTER:
        return 6 * T * n_in;
    case IR_MSE:
        return 3 * T * n_in;
    case IR_EMBED:
    case IR_POSITION:
    case IR_ADD:
    case IR_SLICE:
        return T * n_out;
    case IR_DISPATCH:
        return (double)ir_rows_per_batch_row(in->dims[1], a, 1) * n_in;
    case IR_COMBINE:
        return 2 * (double)expert_rows(op, in, 1) * n_in;
    case IR_OPAQUE:
        return a->flops[phase] / in->dims[0];
    case IR_OP_COUNT:
        break;
    }
    return 0;
}

const char *ir_tagset_text(const ir_graph *g, ir_id tagset, char *buffer, size_t n)
{
    const ir_tagset *set = &g->tagsets[tagset];
    size_t at = 0;
    if (n == 0)
        return buffer;
    buffer[0] = '\0';
    for (uint32_t i = 0; i <= set->n && at < n; i++) {
        const ir_tag *tag = i < set->n ? &g->tags[set->begin + i] : NULL;
        int wrote =
            tag ? snprintf(buffer + at, n - at, "%s%s: %u", i ? ", " : "{", tag->name, tag->index)
                : snprintf(buffer + at, n - at, "%s", set->n ? "}" : "{}");
        at += (size_t)wrote;
    }
    return buffer;
}
