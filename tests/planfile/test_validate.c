/* SPDX-License-Identifier: Apache-2.0
 *
 * test_validate.c: every plan that compiles is valid; one thing made wrong at a time is found, and
 * named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>

#include "compiled.h"

/* The first step of a kind in plan 0, and its work. */
static plan_step *step_of(plan_set *s, plan_step_kind kind)
{
    for (uint32_t i = 0; i < s->plans[0].n_steps; i++)
        if (s->plans[0].steps[i].kind == kind)
            return &s->plans[0].steps[i];
    fail();
    return NULL;
}

static plan_work *work_of(plan_set *s, plan_step_kind kind)
{
    return &s->works[step_of(s, kind)->work];
}

static plan_kernel *kernel_of(plan_set *s, uint32_t op)
{
    for (uint32_t i = 0; i < s->n_kernels; i++)
        if (s->kernels[i].op == op)
            return &s->kernels[i];
    fail();
    return NULL;
}

static plan_operand *operand_of(plan_set *s, uint32_t op, plan_space space)
{
    const plan_kernel *k = kernel_of(s, op);
    for (uint32_t i = 0; i < k->n_operands; i++)
        if (s->operands[k->operands + i].space == space)
            return &s->operands[k->operands + i];
    fail();
    return NULL;
}

#define P0 s->plans[0]
/* name, what is done to the MoE plans `s`, part of the message */
#define CASES(X)                                                                                   \
    X(no_groups, s->n_groups = 0, "past the end")                                                  \
    X(a_stream, P0.steps[3].stream = 99, "'stream' of step 3 of group 0")                          \
    X(a_work, P0.steps[3].work = s->n_works, "'work' of step 3")                                   \
    X(a_named_buffer, s->work_buffers[1] = s->n_buffers, "'buffer' of named 1")                    \
    X(a_kind_of_buffer, s->buffers[0].what = 99, "'what' of buffer 0")                             \
    X(named_buffers, s->works[0].n_buffers = UINT32_MAX, "'buffers' of work 0")                    \
    X(a_peer, work_of(s, PLAN_SEND)->peer = s->n_works, "'peer' of work")                          \
    X(bucket_without_slices, P0.buckets[0].slices = 0, "bucket 0 of group 0 is in no slices")      \
    X(a_place, P0.steps[3].place = s->n_places, "'place' of step 3")                               \
    X(waits, P0.steps[3].waits = UINT32_MAX, "'waits' of step 3")                                  \
    X(bindings, P0.steps[3].bindings = P0.n_bindings, "'bindings' of step 3")                      \
    X(a_kind, P0.steps[3].kind = 200, "'kind' of step 3")                                          \
    X(a_wait, P0.waits[0] = P0.n_steps, "'step' of wait 0")                                        \
    X(many_waits, (P0.steps[3].waits = 0, P0.steps[3].n_waits = 9), "waits for more steps")        \
    X(an_operand, s->kernels[0].operands = s->n_operands, "'operands' of kernel 0")                \
    X(an_op, s->kernels[0].op = PLAN_KERNEL_COUNT, "'op' of kernel 0")                             \
    X(a_name, s->params[0].name = "", "'name' of parameter 0")                                     \
    X(one_name, s->params[1].name = s->params[0].name, "two parameters")                           \
    X(a_dimension, s->params[0].dims[0] = 0, "parameter 0 has no elements")                        \
    X(huge_dimensions, s->params[0].dims[0] = s->params[0].dims[1] = UINT32_MAX, "too many")       \
    X(not_a_number, s->hidden = NAN, "'hidden' of plans 0")                                        \
    X(microbatches, s->n_mb = 1u << 31, "computes")                                                \
    X(no_slices, s->n_slices = 0, "microbatches")                                                  \
    X(odd_slices, s->n_slices = 3, "do not divide into 3 slices")                                  \
    X(nameless_slices, s->n_slices = 2, "do not divide into 2 slices")                             \
    X(other_slices, (s->n_slices = 2, s->slice_tag = "SEQ"), "")                                   \
    X(kernel_slices, kernel_of(s, IR_ROPE)->slices = 2, "other operands")                          \
    X(losses, s->n_mb_losses++, "losses")                                                          \
    X(batch, s->batch++, "do not divide")                                                          \
    X(twice_a_rank, s->group_ranks[1] = s->group_ranks[0], "in two places")                        \
    X(a_rank, s->group_ranks[1] = s->n_ranks, "'rank' of rank 1")                                  \
    X(data_path, s->train.data = IR_SOURCE_BYTES, "without a path")                                \
    X(small_total, P0.total_bytes -= PLAN_ALIGN, "areas overlap")                                  \
    X(huge_area, P0.act_bytes = UINT64_MAX, "too large")                                           \
    X(optimizer_room, P0.opt_bytes = 0, "optimizer")                                               \
    X(a_bucket, P0.buckets[0].bytes += P0.param_bytes, "bucket 0 of group 0")                      \
    X(held_offset, P0.params[0].offset += 4, "held 0 of group 0")                                  \
    X(held_elems, P0.params[0].elems--, "no slice")                                                \
    X(held_twice, P0.params[1].param = P0.params[0].param, "")                                     \
    X(a_block, P0.blocks[0].units = UINT32_MAX, "block 0 of group 0")                              \
    X(a_binding, P0.bindings[0] = UINT32_MAX, "too small for its program")                         \
    X(dead_block, P0.blocks[0].last = P0.blocks[0].first, "has a buffer that is too small")        \
    X(late_block, P0.blocks[1].first = P0.blocks[1].last = P0.n_steps - 1, "comes too late")       \
    X(wide_operand, kernel_of(s, IR_LINEAR)->n_out *= 1000, "is not inside the memory")            \
    X(overflowing, kernel_of(s, IR_LINEAR)->B = kernel_of(s, IR_LINEAR)->T = UINT32_MAX,           \
      "is not inside the memory")                                                                  \
    X(no_heads, kernel_of(s, IR_ATTENTION)->attrs.kv_heads = 0, "is not inside the memory")        \
    X(no_vocabulary, kernel_of(s, IR_EMBED)->attrs.vocab = UINT32_MAX, "is not inside the memory") \
    X(operand_offset, operand_of(s, IR_RMSNORM, PLAN_BIND)->offset = 1,                            \
      "is not inside the memory")                                                                  \
    X(operand_absent, operand_of(s, IR_RMSNORM, PLAN_PARAM)->space = PLAN_ABSENT,                  \
      "is not inside the memory")                                                                  \
    X(operand_data, operand_of(s, IR_EMBED, PLAN_DATA)->index = 77, "is not inside the memory")    \
    X(operand_param, operand_of(s, IR_EMBED, PLAN_PARAM)->index = 1, "is not inside the memory")   \
    X(expert_ranks, kernel_of(s, IR_EXPERTS)->ep = 3, "other operands, or more ranks")             \
    X(few_operands, kernel_of(s, IR_LINEAR)->n_operands--, "other operands")                       \
    X(a_program, work_of(s, PLAN_COMPUTE)->program = IR_NONE, "nothing to compute")                \
    X(a_microbatch, step_of(s, PLAN_COMPUTE)->mb = s->n_mb, "another chunk, pass or microbatch")   \
    X(peer, work_of(s, PLAN_SEND)->peer_group = 0, "no group of the same size")                    \
    X(sent_bytes, work_of(s, PLAN_SEND)->bytes = UINT64_MAX, "no room for its bytes")              \
    X(counts, work_of(s, PLAN_COUNTS)->experts = UINT32_MAX, "no room for its counts")             \
    X(rows, work_of(s, PLAN_ALL_TO_ALL)->width = 0, "no room for its rows")                        \
    X(reduced, work_of(s, PLAN_ALL_REDUCE)->bytes -= 4, "reduces more or less")                    \
    X(updated, work_of(s, PLAN_UPDATE)->chunk = 99, "of no bucket")                                \
    X(sequence, step_of(s, PLAN_SEND)->seq = UINT32_MAX, "order of communication")                 \
    X(no_sequence, step_of(s, PLAN_SEND)->seq = 0, "order of communication")                       \
    X(program_kernels, s->programs[1].kernels = 0, "kernels are not those after")

#define BREAK(name, change, part)         \
    static void break_##name(plan_set *s) \
    {                                     \
        change;                           \
    }
CASES(BREAK)

static const struct {
    const char *name;
    void (*change)(plan_set *s);
    const char *part;
} cases[] = {
#define CASE(name, change, part) {#name, break_##name, part},
    CASES(CASE)};

static void broken(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        compiled c;
        char reason[256];
        compiled_script(&c, compiled_scripts[2]);
        assert_non_null(c.set);
        cases[i].change(c.set);
        pps_status status = plan_validate(c.set, reason, NULL);
        if (status != PPS_ERR_SCRIPT || strstr(reason, cases[i].part) == NULL)
            print_message("%s: status %d, \"%s\"\n", cases[i].name, status, reason);
        assert_int_equal(status, PPS_ERR_SCRIPT);
        assert_non_null(strstr(reason, cases[i].part));
        compiled_close(&c);
    }
}

#define SHARED_CASES(X)                                                                          \
    X(scatter_width, work_of(s, PLAN_SEQ_SCATTER)->width += 4, "shares rows of another width")   \
    X(scatter_bytes, work_of(s, PLAN_SEQ_SCATTER)->bytes += 4, "its team cannot divide")         \
    X(gather_bytes, work_of(s, PLAN_SEQ_GATHER)->bytes *= 2, "no room for what its team shares") \
    X(stats_bytes, work_of(s, PLAN_STATS)->bytes *= 2, "no room for what its team shares")       \
    X(stats_width, work_of(s, PLAN_STATS)->width = 4, "shares rows of another width")            \
    X(stats_teams, work_of(s, PLAN_STATS)->teams = IR_NONE, "of no teams")                       \
    X(merge_ranks, kernel_of(s, IR_CROSS_ENTROPY_MERGE)->ep = 3, "or more ranks")                \
    X(part_width, kernel_of(s, IR_CROSS_ENTROPY_PART)->n_out = 2, "is not inside the memory")    \
    X(table_ranks, kernel_of(s, IR_EMBED)->ep = 3, "or more ranks")                              \
    X(cut_blocks, cut_of(s)->blocks = 5, "is no slice of its parameter")                         \
    X(no_blocks, cut_of(s)->blocks = 0, "is no slice of its parameter")

/* A dimension that is cut in each of several blocks. */
static plan_cut *cut_of(plan_set *s)
{
    for (uint32_t i = 0; i < P0.n_params; i++)
        for (int k = 0; k < PLAN_MAX_CUTS; k++)
            if (P0.params[i].cuts[k].teams != IR_NONE && P0.params[i].cuts[k].blocks > 1)
                return &P0.params[i].cuts[k];
    fail();
    return NULL;
}
SHARED_CASES(BREAK)

static void broken_shares(void **state)
{
    static const struct {
        const char *name;
        void (*change)(plan_set *s);
        const char *part;
    } shared_cases[] = {SHARED_CASES(CASE)};
    (void)state;
    for (size_t i = 0; i < sizeof shared_cases / sizeof *shared_cases; i++) {
        compiled c;
        char reason[256];
        compiled_script(&c, compiled_scripts[3]);
        assert_non_null(c.set);
        shared_cases[i].change(c.set);
        pps_status status = plan_validate(c.set, reason, NULL);
        if (status != PPS_ERR_SCRIPT || strstr(reason, shared_cases[i].part) == NULL)
            print_message("%s: status %d, \"%s\"\n", shared_cases[i].name, status, reason);
        assert_int_equal(status, PPS_ERR_SCRIPT);
        assert_non_null(strstr(reason, shared_cases[i].part));
        compiled_close(&c);
    }
}

static void whole(void **state)
{
    (void)state;
    for (unsigned i = 0; i < compiled_n_scripts; i++) {
        compiled c;
        char reason[256];
        compiled_script(&c, compiled_scripts[i]);
        assert_non_null(c.set);
        assert_int_equal(plan_validate(c.set, reason, NULL), PPS_OK);
        compiled_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole),
        cmocka_unit_test(broken),
        cmocka_unit_test(broken_shares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
