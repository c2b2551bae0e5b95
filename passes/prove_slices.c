/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_slices.c: where sequences are split, what a microbatch's slices hand on to each other is
 * whole when it is read. From the plans alone:
 *
 *   - of each chunk and microbatch, forward passes that carry run from the first slice to the last,
 *     then backward ones from the last to the first, all on one stream, so in this order;
 *   - all of them do so in one block per carried operand, which the first of them begins and which
 *     lives until the last;
 *   - inside it each op has a place of its own, the same forward and backward, and where a backward
 *     runs the forward again.
 *
 * That every pass of every slice runs once is prove.c's.
 */
#include "passes/prove.h"

typedef struct carry { /* of a program: bindings of c0 and c1, IR_NONE where it has none */
    uint32_t bind[2];
    uint32_t ops; /* first of its carrying ops in the list of offsets, in program order */
    uint32_t n_ops;
} carry;

typedef struct place { /* of one op in what is carried */
    uint64_t offset, end;
} place;

typedef struct follow { /* a chunk's microbatch */
    uint32_t group, stream;
    uint32_t n_f, n_b; /* slices that have run */
    uint32_t block[2]; /* in plan.blocks */
} follow;

typedef struct slice_prover {
    pps_state *st;
    const plan_set *set;
    arena *mem;
    carry *carries;   /* [n_programs] */
    place *places;    /* of c0, then of c1 of each op */
    uint32_t *number; /* [n_chunks] among those that carry, IR_NONE */
    uint32_t n_carrying;
    follow *follows; /* [n_carrying * microbatches] */
} slice_prover;

static pps_status wrong(const slice_prover *p, const plan *mine, const plan_step *s,
                        const char *what)
{
    char label[128];
    plan_step_label(p->set, mine, s, label, sizeof label);
    return pps_error(p->st, plan_place_of(p->set, s), 524, "%s: group %u step %u, %s", what,
                     mine->group, (uint32_t)(s - mine->steps), label);
}

/* ---- programs ----------------------------------------------------------------------------------
 */

/* The carried operands of a kernel, c0 and c1; NULL where it has none. */
static void carried_operands(const plan_set *set, const plan_kernel *k, const plan_operand *ret[2])
{
    ir_operand list[IR_MAX_OPERANDS];
    ir_op op = {.kind = (uint8_t)k->op};
    ret[0] = ret[1] = NULL;
    if (k->op != IR_ATTENTION_SLICE)
        return;
    uint32_t n = ir_op_operands(&op, (ir_phase)k->phase, list);
    for (uint32_t i = 0; i < n && i < k->n_operands; i++)
        if (list[i].letter == 'c')
            ret[list[i].index] = &set->operands[k->operands + i];
}

/* A kernel of F in a backward: what F left is made again first. */
static bool runs_again(const plan_program *program, const plan_kernel *k)
{
    return program->pass != PPS_PASS_F && k->phase == IR_PHASE_F;
}

/* Such a kernel writes its slice's keys and values again: to where its own op's backward reads
 * them, so where they are already. */
static bool again_in_place(const plan_set *set, const plan_program *program)
{
    const plan_kernel *kernels = set->kernels + program->kernels;
    for (uint32_t i = 0; i < program->n_kernels; i++) {
        const plan_operand *made[2], *read[2] = {NULL, NULL};
        carried_operands(set, &kernels[i], made);
        if (made[0] == NULL || !runs_again(program, &kernels[i]))
            continue;
        for (uint32_t k = i + 1; k < program->n_kernels && read[0] == NULL; k++)
            if (kernels[k].graph_op == kernels[i].graph_op)
                carried_operands(set, &kernels[k], read);
        if (read[0] == NULL || made[0]->space != PLAN_BIND || read[0]->space != PLAN_BIND ||
            made[0]->bind != read[0]->bind || made[0]->offset != read[0]->offset)
            return false;
    }
    return true;
}

static pps_status read_program(slice_prover *p, uint32_t id, uint32_t *n_places)
{
    const plan_set *set = p->set;
    const plan_program *program = &set->programs[id];
    carry *c = &p->carries[id];
    pps_span none = {0};
    *c = (carry){.bind = {IR_NONE, IR_NONE}, .ops = *n_places};
    for (uint32_t i = 0; i < program->n_kernels; i++) {
        const plan_kernel *k = &set->kernels[program->kernels + i];
        const plan_operand *carried[2];
        uint64_t elems = 0;
        carried_operands(set, k, carried);
        if (carried[0] == NULL || runs_again(program, k))
            continue;
        uint64_t kv = (uint64_t)k->B * k->T * k->attrs.kv_heads * k->attrs.head_dim;
        elems = 2 * kv * k->slices;
        for (int which = 0; which < 2; which++) {
            place *to = &p->places[2 * *n_places + which];
            *to = (place){0};
            if (carried[which] == NULL)
                continue;
            bool first = c->bind[which] == IR_NONE;
            if (carried[which]->space != PLAN_BIND ||
                (!first && c->bind[which] != carried[which]->bind))
                return pps_error(p->st, none, 524, "%s carries in several buffers",
                                 set->chunk_names[program->chunk]);
            c->bind[which] = carried[which]->bind;
            *to = (place){carried[which]->offset, carried[which]->offset + 4 * elems};
        }
        c->n_ops++;
        ++*n_places;
    }
    if (c->n_ops > 0 && p->number[program->chunk] == IR_NONE)
        p->number[program->chunk] = p->n_carrying++;
    return PPS_OK;
}

/* Ops of a program in the order of the forward. */
static const place *place_of(const slice_prover *p, uint32_t program, uint32_t i, int which)
{
    const carry *c = &p->carries[program];
    bool forward = p->set->programs[program].pass == PPS_PASS_F;
    return &p->places[2 * (c->ops + (forward ? i : c->n_ops - 1 - i)) + which];
}

/* Places of a program's ops lie apart, and c0's are those of the chunk's forward. */
static bool places_agree(const slice_prover *p, uint32_t program, const uint32_t *forward)
{
    const carry *c = &p->carries[program];
    uint32_t f = forward[p->set->programs[program].chunk];
    if (c->n_ops == 0)
        return true;
    if (f == IR_NONE || p->carries[f].n_ops < c->n_ops)
        return false;
    for (int which = 0; which < 2 && c->bind[which] != IR_NONE; which++)
        for (uint32_t i = 0; i < c->n_ops; i++) {
            const place *at = place_of(p, program, i, which);
            if (i > 0 && at->offset < place_of(p, program, i - 1, which)->end)
                return false;
            if (which == 0 && at->offset != place_of(p, f, i, 0)->offset)
                return false;
        }
    return true;
}

static pps_status read_programs(slice_prover *p)
{
    const plan_set *set = p->set;
    uint32_t n_ops = 0, n_places = 0, *forward;
    pps_span none = {0};
    for (uint32_t i = 0; i < set->n_kernels; i++)
        n_ops += set->kernels[i].op == IR_ATTENTION_SLICE;
    PASS_ALLOC(p->carries, p->mem, set->n_programs);
    PASS_ALLOC(p->places, p->mem, 2 * (size_t)n_ops);
    PASS_ALLOC(p->number, p->mem, set->n_chunks);
    PASS_ALLOC(forward, p->mem, set->n_chunks);
    for (uint32_t c = 0; c < set->n_chunks; c++)
        p->number[c] = forward[c] = IR_NONE;
    for (uint32_t i = 0; i < set->n_programs; i++) {
        PPS_TRY(read_program(p, i, &n_places));
        if (set->programs[i].pass == PPS_PASS_F)
            forward[set->programs[i].chunk] = i;
    }
    for (uint32_t i = 0; i < set->n_programs; i++)
        if (!places_agree(p, i, forward) || !again_in_place(set, &set->programs[i]))
            return pps_error(p->st, none, 524, "%s: what slices carry lies in each other's place",
                             set->chunk_names[set->programs[i].chunk]);
    return PPS_OK;
}

/* ---- steps -------------------------------------------------------------------------------------
 */

/* The block that begins with `step` at this offset, or IR_NONE; `next` is the first that does. */
static uint32_t block_of(const plan *mine, uint32_t next, uint32_t step, uint32_t offset)
{
    for (; next < mine->n_blocks && mine->blocks[next].first == step; next++)
        if (mine->blocks[next].offset == offset)
            return next;
    return IR_NONE;
}

static pps_status follow_step(slice_prover *p, const plan *mine, uint32_t i, uint32_t next_block)
{
    const plan_set *set = p->set;
    const plan_step *s = &mine->steps[i];
    const plan_work *w = plan_work_of(set, s);
    const carry *c = &p->carries[w->program];
    uint32_t n_slices = set->n_slices, slice = s->mb % n_slices, n_mb = set->n_mb / n_slices;
    if (c->n_ops == 0)
        return PPS_OK;
    follow *f = &p->follows[(size_t)p->number[w->chunk] * n_mb + s->mb / n_slices];
    bool forward = s->pass == PPS_PASS_F, begins = f->n_f == 0;
    if (forward ? slice != f->n_f || f->n_b > 0
                : f->n_f != n_slices || slice != n_slices - 1 - f->n_b)
        return wrong(p, mine, s, "slices do not follow on each other");
    if (!begins && (s->stream != f->stream || mine->group != f->group))
        return wrong(p, mine, s, "slices of a microbatch run on several streams or devices");
    f->stream = s->stream;
    f->group = mine->group;
    for (int which = 0; which < 2; which++) {
        if (c->bind[which] == IR_NONE)
            continue;
        if (c->bind[which] >= s->n_bindings)
            return wrong(p, mine, s, "what slices carry has no buffer");
        uint32_t offset = mine->bindings[s->bindings + c->bind[which]];
        if (which == 0 ? begins : f->n_b == 0)
            f->block[which] = block_of(mine, next_block, i, offset);
        uint32_t block = f->block[which];
        if (block == IR_NONE || mine->blocks[block].offset != offset ||
            mine->blocks[block].last < i)
            return wrong(p, mine, s, "a slice does not find what the one before it left");
    }
    f->n_f += forward;
    f->n_b += !forward;
    return PPS_OK;
}

static pps_status prove_plan(slice_prover *p, const plan *mine)
{
    uint32_t next_block = 0;
    for (uint32_t i = 0; i < mine->n_steps; i++) {
        while (next_block < mine->n_blocks && mine->blocks[next_block].first < i)
            next_block++;
        if (mine->steps[i].kind == PLAN_COMPUTE)
            PPS_TRY(follow_step(p, mine, i, next_block));
    }
    return PPS_OK;
}

static pps_status prove_all(slice_prover *p)
{
    const plan_set *set = p->set;
    PPS_TRY(read_programs(p));
    PASS_ALLOC(p->follows, p->mem, (size_t)p->n_carrying * (set->n_mb / set->n_slices));
    for (uint32_t g = 0; g < set->n_groups && p->n_carrying > 0; g++)
        PPS_TRY(prove_plan(p, &set->plans[g]));
    return PPS_OK;
}

pps_status prove_slices(const prover *whole)
{
    slice_prover p = {.st = whole->st, .set = whole->set, .mem = whole->mem};
    return p.set->n_slices == 1 ? PPS_OK : prove_all(&p);
}
