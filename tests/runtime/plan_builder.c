/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_builder.c: see plan_builder.h.
 */
#include "plan_builder.h"

#include <assert.h>
#include <string.h>

void pb_init(plan_builder *b, uint32_t n_groups, uint32_t group_size, uint32_t n_streams)
{
    static const char *const stream_names[8] = {"compute", "s1", "s2", "s3",
                                                "s4",      "s5", "s6", "s7"};
    memset(b, 0, sizeof(*b));
    assert(n_groups <= PB_GROUPS && n_groups * group_size <= PB_RANKS && n_streams <= 8);
    b->set = (plan_set){
        .n_groups = n_groups,
        .n_ranks = n_groups * group_size,
        .plans = b->plans,
        .group_ranks = b->group_ranks,
        .rank_group = b->rank_group,
        .rank_index = b->rank_index,
        .rank_replica = b->rank_replica,
        .rank_part = b->rank_part,
        .rank_speaks = b->rank_speaks,
        .teams = b->teams,
        .n_teams = n_groups,
        .team_ranks = b->team_ranks,
        .n_team_ranks = n_groups * group_size,
        .n_mb = 1,
        .n_slices = 1,
        .batch = group_size,
        .T = 1,
        .works = b->works,
        .places = b->places,
        .n_places = 1,
        .programs = b->programs,
        .kernels = b->kernels,
        .operands = b->operands,
        .params = b->ir_params,
        .data = b->data,
        .losses = b->losses,
        .streams = b->streams,
        .n_streams = n_streams,
        .chunk_names = b->chunk_names,
        .chunk_stage = b->chunk_stage,
        .chunk_model = b->chunk_model,
        .n_chunks = 1,
        .train = {.optimizer = {.kind = IR_OPT_SGD, .lr = 1}, .has_optimizer = true},
    };
    memcpy(b->streams, stream_names, sizeof(stream_names));
    b->chunk_names[0] = "PP0";
    pb_work(b, (plan_work){.program = IR_NONE});
    for (uint32_t g = 0; g < n_groups; g++) {
        b->teams[g] = (plan_teams){g * group_size, group_size, group_size};
        b->plans[g] = (plan){.group = g,
                             .n_ranks = group_size,
                             .n_replicas = group_size,
                             .n_parts = 1,
                             .ranks = g * group_size,
                             .steps = b->steps[g],
                             .bindings = b->bindings[g],
                             .waits = b->waits[g],
                             .blocks = b->blocks[g],
                             .params = b->params[g],
                             .buckets = b->buckets[g]};
        for (uint32_t i = 0; i < group_size; i++) {
            uint32_t rank = g * group_size + i;
            b->group_ranks[rank] = rank;
            b->rank_group[rank] = g;
            b->rank_index[rank] = i;
            b->rank_replica[rank] = i;
            b->rank_speaks[rank] = true;
            b->team_ranks[rank] = rank;
        }
    }
}

/* Held by every rank of the group, one of which speaks for it. */
void pb_param(plan_builder *b, uint32_t group, uint32_t id)
{
    static const char *const names[4] = {"p0", "p1", "p2", "p3"};
    plan *p = &b->plans[group];
    uint64_t offset = p->n_params * (uint64_t)PB_BYTES;
    b->ir_params[id] =
        (ir_param){.name = names[id], .n_dims = 1, .init = IR_INIT_ONE, .dims = {PB_ELEMS}};
    if (id >= b->set.n_params)
        b->set.n_params = id + 1;
    b->params[group][p->n_params] = (plan_param){
        .param = id, .cuts = {{.teams = IR_NONE}, {.teams = IR_NONE}}, .elems = PB_ELEMS};
    b->buckets[group][p->n_buckets++] = (plan_bucket){.first = p->n_params++,
                                                      .n = 1,
                                                      .bytes = PB_BYTES,
                                                      .teams = p->n_ranks > 1 ? group : IR_NONE,
                                                      .slices = 1,
                                                      .offset = {offset, offset, offset}};
}

plan_operand pb_bind(uint16_t i)
{
    return (plan_operand){.space = PLAN_BIND, .bind = i};
}

plan_operand pb_of_param(uint32_t id)
{
    return (plan_operand){.space = PLAN_PARAM, .index = id};
}

plan_operand pb_of_grad(uint32_t id)
{
    return (plan_operand){.space = PLAN_GRAD, .index = id};
}

static uint32_t add_program(plan_builder *b, plan_kernel kernel, uint32_t n,
                            const plan_operand *operands)
{
    uint32_t id = b->set.n_programs++;
    assert(id < 16 && b->set.n_operands + n <= 64);
    b->programs[id] = (plan_program){.kernels = b->set.n_kernels, .n_kernels = 1, .flops = 1000};
    kernel.n_operands = (uint8_t)n;
    kernel.operands = b->set.n_operands;
    kernel.ep = 1;
    kernel.teams = IR_NONE;
    b->kernels[b->set.n_kernels++] = kernel;
    memcpy(b->operands + b->set.n_operands, operands, n * sizeof(*operands));
    b->set.n_operands += n;
    return id;
}

uint32_t pb_sum(plan_builder *b, uint32_t n, const plan_operand *operands)
{
    return add_program(b, (plan_kernel){.op = PLAN_KERNEL_SUM, .n = PB_ELEMS}, n, operands);
}

uint32_t pb_mse(plan_builder *b, plan_operand x, plan_operand y)
{
    plan_kernel kernel = {.op = IR_MSE, .B = 1, .T = 1, .n_in = PB_ELEMS, .n_out = PB_ELEMS};
    plan_operand operands[] = {x, y, {.space = PLAN_LOSS}};
    kernel.attrs.count = PB_ELEMS;
    return add_program(b, kernel, 3, operands);
}

uint32_t pb_loss(plan_builder *b, uint32_t group, bool aux)
{
    b->losses[b->set.n_losses] = (plan_loss_slot){.group = group, .aux = aux};
    b->set.n_mb_losses = b->set.n_losses + 1; /* there is one microbatch */
    return b->set.n_losses++;
}

uint32_t pb_work(plan_builder *b, plan_work work)
{
    assert(b->set.n_works < PB_STEPS);
    if (!work.bytes)
        work.bytes = PB_BYTES;
    b->works[b->set.n_works] = work;
    return b->set.n_works++;
}

uint32_t pb_compute(plan_builder *b, uint32_t program, uint32_t loss)
{
    return pb_work(b, (plan_work){.program = program, .loss = loss});
}

uint32_t pb_peer(plan_builder *b, uint32_t peer_group)
{
    return pb_work(b, (plan_work){.program = IR_NONE, .peer_group = peer_group});
}

uint32_t pb_step(plan_builder *b, uint32_t group, plan_step step, const uint32_t *waits,
                 const uint32_t *slots)
{
    plan *p = &b->plans[group];
    if (plan_is(step.kind, PLAN_COLLECTIVE)) {
        plan_work work = b->works[step.work];
        work.teams = group;
        step.work = pb_work(b, work);
    }
    assert(p->n_steps < PB_STEPS && p->n_waits + 8 < PB_POOL && p->n_bindings + 8 < PB_POOL);
    step.waits = p->n_waits;
    for (; waits && *waits != IR_NONE; waits++, step.n_waits++)
        b->waits[group][p->n_waits++] = *waits;
    step.bindings = p->n_bindings;
    for (; slots && *slots != IR_NONE; slots++, step.n_bindings++)
        b->bindings[group][p->n_bindings++] = *slots * (PB_BYTES / PLAN_ALIGN);
    b->steps[group][p->n_steps] = step;
    return p->n_steps++;
}

void pb_block(plan_builder *b, uint32_t group, uint32_t slot, uint32_t first, uint32_t last)
{
    plan *p = &b->plans[group];
    b->blocks[group][p->n_blocks++] = (plan_block){.offset = slot * (PB_BYTES / PLAN_ALIGN),
                                                   .units = PB_BYTES / PLAN_ALIGN,
                                                   .first = first,
                                                   .last = last};
}

void pb_finish(plan_builder *b, uint32_t slots)
{
    for (uint32_t g = 0; g < b->set.n_groups; g++) {
        plan *p = &b->plans[g];
        p->param_bytes = p->n_params * (uint64_t)PB_BYTES;
        p->grad_offset = p->param_bytes;
        p->opt_offset = p->data_offset = p->act_offset = 2 * p->param_bytes;
        p->act_bytes = slots * (uint64_t)PB_BYTES;
        p->total_bytes = p->act_offset + p->act_bytes;
    }
}
