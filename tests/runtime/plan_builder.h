/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_builder.h: plan sets by hand, for tests of what runs them. Everything lies in fixed arrays
 * of the builder; errors are asserts.
 */
#ifndef PPS_TEST_PLAN_BUILDER_H
#define PPS_TEST_PLAN_BUILDER_H

#include "ir/plan.h"

enum { PB_GROUPS = 4, PB_RANKS = 8, PB_STEPS = 64, PB_POOL = 256, PB_ELEMS = 16 };
enum { PB_BYTES = PB_ELEMS * 4 }; /* every buffer and parameter of these plans: 16 floats */
_Static_assert(PB_BYTES % PLAN_ALIGN == 0, "slots begin where buffers may");

typedef struct plan_builder {
    plan_set set;
    plan plans[PB_GROUPS];
    plan_step steps[PB_GROUPS][PB_STEPS];
    uint32_t bindings[PB_GROUPS][PB_POOL];
    uint32_t waits[PB_GROUPS][PB_POOL];
    plan_block blocks[PB_GROUPS][PB_POOL];
    plan_param params[PB_GROUPS][4];
    plan_bucket buckets[PB_GROUPS][4];
    ir_param ir_params[4];
    plan_work works[PB_STEPS];
    pps_span places[1];
    plan_data data[2];
    plan_loss_slot losses[8];
    plan_program programs[16];
    plan_kernel kernels[16];
    plan_operand operands[64];
    uint32_t group_ranks[PB_RANKS], rank_group[PB_RANKS], rank_index[PB_RANKS];
    uint32_t rank_replica[PB_RANKS], rank_part[PB_RANKS], team_ranks[PB_RANKS];
    bool rank_speaks[PB_RANKS];
    plan_teams teams[PB_GROUPS];
    const char *streams[8], *chunk_names[1];
    uint32_t chunk_stage[1], chunk_model[1];
} plan_builder;

/* `n_groups` groups of `group_size` consecutive ranks; one chunk "PP0"; plain SGD with lr 1. */
void pb_init(plan_builder *b, uint32_t n_groups, uint32_t group_size, uint32_t n_streams);
/* Parameter `id` (name "p<id>", initialised to ones) on `group`, a bucket of its own. */
void pb_param(plan_builder *b, uint32_t group, uint32_t id);
/* o = a + b [+ c] in one program; operands by the three makers below. */
uint32_t pb_sum(plan_builder *b, uint32_t n, const plan_operand *operands);
/* Loss slot 0 of its step = mean of (a - b)^2; slots are added with pb_loss. */
uint32_t pb_mse(plan_builder *b, plan_operand x, plan_operand y);
uint32_t pb_loss(plan_builder *b, uint32_t group, bool aux);
plan_operand pb_bind(uint16_t i);
plan_operand pb_of_param(uint32_t id);
plan_operand pb_of_grad(uint32_t id);
/* What a step works on, for plan_step.work; 0, which is there from the start, is bucket 0, of
 * PB_BYTES. Without `bytes` these are PB_BYTES. */
uint32_t pb_work(plan_builder *b, plan_work work);
uint32_t pb_compute(plan_builder *b, uint32_t program, uint32_t loss);
uint32_t pb_peer(plan_builder *b, uint32_t peer_group);
/* Append a step; lists end with IR_NONE and may be NULL. Bindings are slots of PB_BYTES. */
uint32_t pb_step(plan_builder *b, uint32_t group, plan_step step, const uint32_t *waits,
                 const uint32_t *slots);
/* A life of slot `slot`, for the poisoning of what is free. */
void pb_block(plan_builder *b, uint32_t group, uint32_t slot, uint32_t first, uint32_t last);
/* Offsets and sizes; `slots` activation slots everywhere. */
void pb_finish(plan_builder *b, uint32_t slots);

#define PB_LIST(...)         \
    (const uint32_t[])       \
    {                        \
        __VA_ARGS__, IR_NONE \
    }

#endif
