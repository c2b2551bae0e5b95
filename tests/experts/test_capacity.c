/* SPDX-License-Identifier: Apache-2.0
 *
 * test_capacity.c: with a capacity, replicas, teams, pipelines and microbatches train what one rank
 * with the same capacity trains: it is of a sequence, which nothing of these divides.
 */
#include "expert_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* Room for 2, 4 and 5 of a sequence's 8 positions. */
static const char *const capacities[] = {"0.5", "1.0", "1.25"};

static void capacity_is_that_of_one_rank(void **state)
{
    static const expert_case cases[] = {
        {.schedule = "one", .replicas = 1, .teams = "[[0]]", .clauses = "", .aux = "0.0"},
        {.schedule = "one", .replicas = 2, .teams = "[[0], [1]]", .clauses = "", .aux = "0.01"},
        {.schedule = "one", .replicas = 2, .teams = "[[0, 1]]", .clauses = "", .aux = "0.0"},
        {.schedule = "1f1b", .replicas = 2, .teams = "[[0, 1]]", .clauses = "", .aux = "0.01"},
        {.schedule = "1f1b",
         .replicas = 4,
         .teams = "[[0, 2], [1, 3]]",
         .clauses = "zero 2",
         .aux = "0.0"},
        {.schedule = "dualpipev",
         .replicas = 2,
         .teams = "[[0, 1]]",
         .clauses = "zero 3",
         .aux = "0.01"},
        {.schedule = "dualpipev",
         .replicas = 4,
         .teams = "[[0, 1, 2, 3]]",
         .clauses = "",
         .aux = "0.0"},
    };
    (void)state;
    for (size_t k = 0; k < sizeof capacities / sizeof *capacities; k++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            compiled c;
            outcome alone, o, again;
            expert_case e = cases[i];
            e.capacity = capacities[k];
            print_message("%s, %u replicas, teams %s, capacity %s\n", e.schedule, e.replicas,
                          e.teams, e.capacity);
            expert_open(&c,
                        &(expert_case){.schedule = "alone", .capacity = e.capacity, .aux = e.aux});
            zero_run(&c, &alone);
            zero_close(&c);
            expert_open(&c, &e);
            zero_run(&c, &o);
            zero_run(&c, &again);
            expert_near(c.set, &o, &alone);
            expert_as_planned(c.set, &o);
            assert_int_equal(o.result.dropped, alone.result.dropped);
            assert_string_equal(o.result.params_sha256, again.result.params_sha256);
            outcome_done(&alone);
            outcome_done(&o);
            outcome_done(&again);
            zero_close(&c);
        }
}

/* The model is another one: a capacity that changed nothing would pass the test above. */
static void a_capacity_drops(void **state)
{
    (void)state;
    double last = 0;
    for (size_t k = 0; k < 1 + sizeof capacities / sizeof *capacities; k++) {
        compiled c;
        outcome o;
        expert_open(&c, &(expert_case){.schedule = "alone",
                                       .capacity = k > 0 ? capacities[k - 1] : NULL,
                                       .aux = "0.0"});
        zero_run(&c, &o);
        assert_true(fabs(o.losses[ZERO_STEPS - 1] - last) > 1e-7);
        assert_true(k == 0 ? o.result.dropped == 0 : o.result.dropped > 0);
        last = o.losses[ZERO_STEPS - 1];
        outcome_done(&o);
        zero_close(&c);
    }
}

/* Two ranks with two experts each: without a capacity either may get all choices of both. */
static void a_capacity_bounds_memory(void **state)
{
    uint64_t bytes[4];
    (void)state;
    for (size_t k = 0; k < 4; k++) {
        compiled c;
        expert_open(&c, &(expert_case){.schedule = "one",
                                       .replicas = 2,
                                       .teams = "[[0, 1]]",
                                       .clauses = "",
                                       .capacity = k < 3 ? capacities[k] : NULL,
                                       .aux = "0.0"});
        const plan *p = &c.set->plans[0];
        uint64_t most = 0;
        for (uint32_t i = 0; i < p->n_steps; i++)
            if (p->steps[i].kind == PLAN_ALL_TO_ALL && !(p->steps[i].flags & PLAN_A2A_RETURN))
                most = plan_work_of(c.set, &p->steps[i])->bytes;
        /* rows of two ranks, of EXPERT_BATCH / 2 / EXPERT_MB = 2 sequences each */
        static const uint64_t taken[] = {2, 4, 5, 8};
        assert_int_equal(most, 2 * 2 * (EXPERTS / 2) * taken[k] * 16 * sizeof(float));
        assert_int_equal(p->dropless, k == 3);
        bytes[k] = p->act_bytes;
        zero_close(&c);
    }
    print_message("activations at capacity 0.5, 1, 1.25, none: %llu, %llu, %llu, %llu bytes\n",
                  (unsigned long long)bytes[0], (unsigned long long)bytes[1],
                  (unsigned long long)bytes[2], (unsigned long long)bytes[3]);
    assert_true(bytes[0] < bytes[1] && bytes[1] < bytes[2] && bytes[2] < bytes[3]);
}

/* The caller's graph stays what the script made it: compiled again, it is what it was. */
static void compiling_twice_gives_one_plan(void **state)
{
    compiled c;
    plan_set *second;
    (void)state;
    expert_open(&c, &(expert_case){.schedule = "alone", .capacity = "1.0", .aux = "0.0"});
    for (uint32_t i = 0; i < c.program->graph->n_ops; i++)
        assert_int_equal(c.program->graph->ops[i].attrs.capacity, 0);
    assert_int_equal(pps_compile(c.st, c.program, NULL, &second), PPS_OK);
    assert_int_equal(second->plans[0].total_bytes, c.set->plans[0].total_bytes);
    pps_plan_free(second);
    zero_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capacity_is_that_of_one_rank),
        cmocka_unit_test(a_capacity_drops),
        cmocka_unit_test(a_capacity_bounds_memory),
        cmocka_unit_test(compiling_twice_gives_one_plan),
    };
    return cmocka_run_group_tests_name("capacity", tests, NULL, NULL);
}
