/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_extent.c: how much memory each operand of a kernel covers, from the kernel's sizes alone:
 * ops.def's shapes once more, as numbers. What is read as a divisor must not be 0.
 */
#include "ir/plan_row.h"

#include <assert.h>

enum { MAX_SIDE = 5 };

typedef struct shapes { /* elements of 4 bytes; gradients have their tensor's size */
    uint64_t in[MAX_SIDE], out[MAX_SIDE], param[MAX_SIDE];
    uint64_t save, hold, work, carry;
    bool whole; /* sizes make sense */
} shapes;

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t times3(uint64_t a, uint64_t b, uint64_t c)
{
    return times(times(a, b), c);
}

static bool divides(uint64_t divisor, uint64_t n)
{
    return divisor != 0 && n % divisor == 0;
}

/* A rank's part of a sequence is two blocks. */
static bool parts_fit(const plan_kernel *k)
{
    return k->attrs.parts < 2 || k->T % 2 == 0;
}

static shapes shapes_of(const plan_kernel *k)
{
    const ir_attrs *a = &k->attrs;
    uint64_t rows = times(k->B, k->T), in = times(rows, k->n_in), out = times(rows, k->n_out);
    uint64_t choices = times(rows, a->top_k);
    uint64_t taken = a->capacity > 0 ? times3(k->B, a->experts, a->capacity) : choices;
    uint64_t expert_rows = taken < choices ? taken : choices; /* alone */
    shapes s = {.whole = true};
    switch ((ir_op_kind)k->op) {
    case IR_EMBED:
        if (!divides(k->ep, a->vocab))
            return (shapes){.whole = false};
        return (shapes){{rows}, {out}, {times(a->vocab / k->ep, k->n_out)}, .whole = true};
    case IR_POSITION:
        return (shapes){
            {in},
            {in},
            {times(times3(k->slices, k->T, k->ep), times(k->n_in, a->parts > 1 ? a->parts : 1))},
            .whole = k->n_in == k->n_out && parts_fit(k)};
    case IR_LINEAR:
        return (shapes){{in}, {out}, {times(k->n_in, k->n_out), k->n_out}, .whole = true};
    case IR_RMSNORM:
        s = (shapes){{in}, {in}, {a->group}, .hold = a->group};
        s.whole = divides(a->group, k->n_in);
        s.save = s.whole ? times(rows, k->n_in / a->group) : 0;
        return s;
    case IR_LAYERNORM:
        return (shapes){{in},
                        {in},
                        {k->n_in, k->n_in},
                        .save = times(rows, 2),
                        .hold = 2ull * k->n_in,
                        .whole = k->n_in > 0};
    case IR_ROPE:
        return (shapes){{in},
                        {in},
                        .whole = times(a->heads, a->head_dim) == k->n_in && a->head_dim > 0 &&
                                 a->head_dim % 2 == 0 && parts_fit(k)};
    case IR_ATTENTION:
    case IR_ATTENTION_SLICE: {
        uint64_t q = times3(rows, a->heads, a->head_dim);
        uint64_t kv = times3(rows, a->kv_heads, a->head_dim);
        return (shapes){{q, kv, kv},
                        {q},
                        .save = times(rows, a->heads),
                        .work = 2ull * k->T,
                        .carry = times3(kv, 2, k->slices),
                        .whole = a->head_dim > 0 && divides(a->kv_heads, a->heads)};
    }
    case IR_ATTENTION_PART: {
        uint64_t q = times3(rows, a->heads, a->head_dim), stats = times3(rows, a->heads, 2);
        uint64_t kv = times3(rows, a->kv_heads, a->head_dim);
        s = (shapes){{q, kv, kv, q, stats}, {q, stats}};
        s.whole = a->head_dim > 0 && divides(a->kv_heads, a->heads) && parts_fit(k) &&
                  a->parts > 1 && a->shift < a->parts;
        return s;
    }
    case IR_ATTENTION_END: {
        uint64_t q = times3(rows, a->heads, a->head_dim);
        return (shapes){{q, times3(rows, a->heads, 2)},
                        {q},
                        .save = times(rows, a->heads),
                        .whole = a->head_dim > 0};
    }
    case IR_GELU:
    case IR_SWIGLU:
    case IR_ADD:
        return (shapes){{in, in}, {in}, .whole = k->n_in == k->n_out};
    case IR_SLICE:
        s = (shapes){{in}, {out}};
        s.whole = a->begin <= k->n_in && k->n_out <= k->n_in - a->begin;
        return s;
    case IR_ROUTER:
        return (shapes){{in},
                        {choices, times(choices, 2), a->experts},
                        .whole = k->n_in == a->experts && a->top_k > 0 && a->top_k <= a->experts};
    case IR_DISPATCH:
        return (shapes){
            {in, times(choices, 2)}, {times(expert_rows, k->n_in)}, .whole = a->top_k > 0};
    case IR_EXPERTS: {
        uint64_t weights = 0;
        s.whole = divides(k->ep, a->experts) && a->experts > 0 && k->n_in == k->n_out;
        if (s.whole)
            weights = times3(a->experts / k->ep, a->hidden, k->n_in);
        return (shapes){{times(k->n, k->n_in), times(k->ep, a->experts)},
                        {times(k->n, k->n_in)},
                        {weights, weights, weights},
                        .save = times3(k->n, 2, a->hidden),
                        .hold = times3(k->n, 2, a->hidden),
                        .work = times(k->n, a->hidden),
                        .whole = s.whole};
    }
    case IR_COMBINE:
        return (shapes){{times(expert_rows, k->n_in), choices, times(choices, 2)},
                        {in},
                        .whole = a->top_k > 0 && k->n_in == k->n_out};
    case IR_CROSS_ENTROPY:
        return (shapes){
            {in, rows}, .save = rows, .whole = a->vocab > 0 && a->vocab <= k->n_in && a->count > 0};
    case IR_CROSS_ENTROPY_PART:
        return (shapes){{in, rows}, {out}, .whole = a->vocab > 0 && k->n_in > 0 && k->n_out == 3};
    case IR_CROSS_ENTROPY_MERGE:
        return (shapes){{in}, .save = rows, .whole = k->n_in == times(3, k->ep) && a->count > 0};
    case IR_MSE:
        return (shapes){{in, in}, .whole = a->count > 0};
    case IR_OPAQUE: /* the host's own business */
    case IR_OP_COUNT:
        break;
    }
    return s;
}

bool plan_kernel_operands(const plan_kernel *k, ir_operand ret[PLAN_MAX_OPERANDS])
{
    ir_op op = {.kind = (uint8_t)k->op, .attrs = k->attrs};
    bool fixed = k->op != PLAN_KERNEL_SUM && k->op != IR_OPAQUE;
    if (fixed)
        return ir_op_operands(&op, (ir_phase)k->phase, ret) == k->n_operands && k->n_operands > 0;
    for (uint32_t i = 0; i < k->n_operands; i++)
        ret[i] = (ir_operand){i == 0 ? 'o' : 'i', 0};
    return k->op == IR_OPAQUE || (k->n_operands >= 2 && k->phase == IR_PHASE_F);
}

bool plan_operand_elems(const plan_kernel *k, ir_operand o, uint64_t *ret)
{
    shapes s;
    *ret = 0;
    if (k->op == PLAN_KERNEL_SUM) {
        *ret = k->n;
        return true;
    }
    s = shapes_of(k);
    if (!s.whole)
        return false;
    switch (o.letter) {
    case 'i':
    case 'x':
        assert(o.index < MAX_SIDE);
        *ret = s.in[o.index];
        if (o.letter == 'x' && k->op == IR_CROSS_ENTROPY_MERGE)
            *ret /= k->ep; /* of the own part */
        break;
    case 'o':
    case 'd':
        assert(o.index < MAX_SIDE);
        *ret = s.out[o.index];
        break;
    case 'p':
    case 'g':
        assert(o.index < MAX_SIDE);
        *ret = s.param[o.index];
        break;
    case 's':
        *ret = s.save;
        break;
    case 'h':
        *ret = s.hold;
        break;
    case 'w':
        *ret = s.work;
        break;
    case 'c':
        *ret = s.carry;
        break;
    case 'l':
        *ret = 1;
        break;
    default:
        break;
    }
    return true;
}
