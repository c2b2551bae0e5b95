/* SPDX-License-Identifier: Apache-2.0
 *
 * layout.h: shared by the files of the layout pass. One chunk at a time: layout_homes.c says what
 * its passes keep for each other and where, layout.c which kernels they run, and layout_program.c
 * turns those into programs, with bindings and offsets.
 */
#ifndef PPS_PASSES_LAYOUT_H
#define PPS_PASSES_LAYOUT_H

#include "passes/pass.h"

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
    uint8_t *reads; /* [n_tensors] of those made here: which passes read it, LAYOUT_IN_* */
    /* by op of the chunk (position) */
    home (*saves)[4];
    uint8_t (*save_reads)[4]; /* LAYOUT_IN_* */
    uint64_t (*held_h)[4];    /* offsets in HELD */
    uint64_t *carry_at;       /* offset in CARRY, and in CARRIED */
    uint8_t *runs_bi, *runs_bw;
    uint8_t *runs_again; /* F's kernel, in the backward that recomputes */
    bool recomputes;     /* which a chunk does that has any of those */
    /* the program being built */
    pass_program *program;
    pps_pass pass;
    pass_variant variant;
    where (*save_values)[4]; /* where this pass has an s operand without a home */
    temp *temps;
    uint32_t n_temps, cap_temps;
    where *operands;
    uint32_t n_operands, cap_operands;
    plan_kernel *kernels;
    uint32_t n_kernels, cap_kernels;
    uint32_t n_loss;
} layout;

enum { LAYOUT_IN_BI = 1, LAYOUT_IN_BW = 2 };

/* layout_homes.c: which ops run BI and BW here, which tensors get a gradient, what the two read
 * of F, and which of F's kernels make that. */
void layout_backward(layout *l);
/* Homes of tensors and saved operands, and the sizes of the chunk's SAVE blocks. */
void layout_homes(layout *l, pass_chunk *ret);
/* Where what slices carry lies: keys and values of one op after the other, their gradients alike.
 */
void layout_carry(layout *l, pass_chunk *ret);
/* Homes for `pass` where nothing is kept: before BW's, BI's program must be there. */
void layout_homes_again(layout *l, pps_pass pass);
/* Does the op's kernel of `phase` have an operand of this kind? */
bool layout_has_letter(const ir_op *op, ir_phase phase, char letter);
/* Room for `bytes` behind `*end`, which moves to its end: sizes stay exact, begins are aligned. */
uint64_t layout_append(uint64_t *end, uint64_t bytes);

/* layout_program.c: the program being built. Operands are pushed, then the kernel that has them,
 * from number `first_operand` on. */
pps_status layout_grow(arena *mem, void **array, uint32_t *cap, uint32_t need, size_t item);
pps_status layout_bind(layout *l, uint8_t what, uint32_t index, uint64_t offset, where *ret);
pps_status layout_temp(layout *l, uint64_t bytes, bool held, where *ret);
/* Where `h` is; BIND_WORK: in a new temporary of `bytes`. */
pps_status layout_at_home(layout *l, home h, uint64_t bytes, where *ret);
pps_status layout_value(layout *l, ir_id t, where *values, where *ret);
/* An s operand of op `i`. */
pps_status layout_saved(layout *l, uint32_t i, ir_operand s, where *ret);
/* A parameter or its gradient: stored for good, or in a buffer of its bucket's window. */
pps_status layout_param(layout *l, ir_id param, where_kind kind, where *ret);
pps_status layout_push_operand(layout *l, where w);
pps_status layout_push_kernel(layout *l, plan_kernel k, uint32_t first_operand);
plan_kernel layout_describe(const layout *l, uint32_t op_id, ir_phase phase);
/* Pack temporaries and add the program to the set. held_bytes: NULL, or what it leaves in HELD. */
pps_status layout_finish(layout *l, uint64_t *held_bytes);

static inline uint32_t layout_position(const ir_graph *g, ir_range list, uint32_t item)
{
    for (uint32_t i = 0; i < list.n; i++)
        if (g->lists[list.begin + i] == item)
            return i;
    return IR_NONE;
}

static inline const ir_op *layout_op(const layout *l, uint32_t i)
{
    const ir_graph *g = l->cx->program->graph;
    return &l->ops[g->lists[l->c->ops.begin + i]];
}

static inline bool layout_wants_grad(const layout *l, ir_id tensor)
{
    return (l->cx->program->graph->tensors[tensor].flags & IR_TENSOR_GRAD) != 0;
}

/* Bytes of an s, h, w or c operand. */
static inline uint64_t layout_extra_bytes(const layout *l, const ir_op *op, ir_operand operand)
{
    ir_extent e = ir_op_extra(l->cx->program->graph, op, operand, l->ep);
    uint64_t parts = operand.letter == 'c' ? 1 : l->n_slices;
    return e.per_row / parts * l->b + e.fixed;
}

#endif
