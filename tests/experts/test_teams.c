/* SPDX-License-Identifier: Apache-2.0
 *
 * test_teams.c: four replicas share out their experts two by two, so that every expert has two
 * owners: under every level of zero, on one pipeline rank and on two, they train the model that one
 * rank trains without directives, twice with the same bits, and use what was planned.
 */
#include "expert_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const char *const teams[] = {"[[0, 1], [2, 3]]", "[[0, 2], [1, 3]]"};
static const char *const schedules[] = {"one", "1f1b", "dualpipev"};

/* Trains one case, twice, and compares; `hash` gets its parameters' digest. */
static void check_case(const expert_case *e, const outcome *alone, char hash[65])
{
    compiled c;
    outcome o, again;
    print_message("%s, teams %s, %s, aux_loss %s\n", e->schedule, e->teams,
                  *e->clauses ? e->clauses : "plain", e->aux);
    expert_open(&c, e);
    zero_run(&c, &o);
    zero_run(&c, &again);
    expert_near(c.set, &o, alone);
    expert_as_planned(c.set, &o);
    assert_string_equal(o.result.params_sha256, again.result.params_sha256);
    assert_memory_equal(o.losses, again.losses, sizeof o.losses);
    memcpy(hash, o.result.params_sha256, 65);
    outcome_done(&o);
    outcome_done(&again);
    zero_close(&c);
}

static void run_alone(outcome *alone, const char *aux)
{
    compiled c;
    expert_open(&c, &(expert_case){.schedule = "alone", .aux = aux});
    zero_run(&c, alone);
    zero_close(&c);
}

static void teams_train_the_model_of_one_rank(void **state)
{
    static const char *const levels[] = {"", "zero 1", "zero 2", "zero 3"};
    (void)state;
    for (int aux = 0; aux < 2; aux++) {
        outcome alone;
        expert_case e = {.replicas = 4, .aux = aux ? "0.01" : "0.0"};
        run_alone(&alone, e.aux);
        for (int s = 0; s < 3; s++)
            for (int t = 0; t < 2; t++) {
                char hash[4][65];
                e.schedule = schedules[s];
                e.teams = teams[t];
                for (int z = 0; z < 4; z++) {
                    e.clauses = levels[z];
                    check_case(&e, &alone, hash[z]);
                }
                assert_string_equal(hash[1], hash[0]); /* zero 1 changes no bit */
            }
        outcome_done(&alone);
    }
}

/* Experts that two ranks hold and slices of them: gradients are added up over microbatches before
 * they are summed over the owners, in windows of any length, in buckets of any size; not after, not
 * in the shard, not of the last microbatch alone. */
static void gradients_of_replicated_shards_accumulate_before_they_are_reduced(void **state)
{
    static const char *const clauses[] = {
        "zero 2 every 2",
        "zero 2 every 3", /* the last window is shorter */
        "zero 2 every 4",
        "zero 2 bucket 0.003 every 2 gather ga",
        "zero 3 every 3 prefetch 2",
        "zero 3 bucket 0.003 every 4",
        "zero 3 bucket 0.0001 every 2", /* each parameter alone */
        "bucket 0.0001",
    };
    outcome alone;
    char hash[65];
    (void)state;
    run_alone(&alone, "0.01");
    for (size_t i = 0; i < sizeof clauses / sizeof *clauses; i++) {
        expert_case e = {.schedule = schedules[1 + i % 2],
                         .replicas = 4,
                         .teams = teams[i / 2 % 2],
                         .clauses = clauses[i],
                         .aux = "0.01"};
        check_case(&e, &alone, hash);
    }
    outcome_done(&alone);
}

/* Each rank holds half of the experts, and a slice of that half under zero: what it stores follows.
 */
static void owners_store_their_share(void **state)
{
    uint64_t stored[4], whole;
    compiled c;
    (void)state;
    expert_open(&c, &(expert_case){.schedule = "one", .replicas = 4, .clauses = "", .aux = "0.0"});
    whole = c.set->plans[0].param_bytes;
    zero_close(&c);
    uint64_t experts = (uint64_t)EXPERT_LAYERS * EXPERTS * 3 * 16 * 16 * 4;
    for (int z = 0; z < 4; z++) {
        char clauses[16];
        snprintf(clauses, sizeof clauses, "zero %d", z);
        expert_open(&c, &(expert_case){.schedule = "one",
                                       .replicas = 4,
                                       .teams = teams[1],
                                       .clauses = clauses,
                                       .aux = "0.0"});
        const plan *p = &c.set->plans[0];
        stored[z] = p->param_bytes;
        for (uint32_t b = 0; b < p->n_buckets; b++)
            if (p->params[p->buckets[b].first].cuts[0].teams != IR_NONE) {
                assert_int_equal(p->buckets[b].bytes, experts / 2);
                assert_int_equal(c.set->teams[p->buckets[b].teams].size, 2);
                assert_int_equal(p->buckets[b].slices, z > 0 ? 2 : 1);
            }
        zero_close(&c);
    }
    assert_int_equal(stored[0], whole - experts / 2);
    /* a quarter of everything, padded: slices are multiples of 64 bytes */
    assert_int_equal(stored[1], stored[2]);
    assert_true(stored[3] >= whole / 4 && stored[3] <= whole / 4 + 2 * PLAN_ALIGN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(teams_train_the_model_of_one_rank),
        cmocka_unit_test(gradients_of_replicated_shards_accumulate_before_they_are_reduced),
        cmocka_unit_test(owners_store_their_share),
    };
    return cmocka_run_group_tests_name("teams", tests, NULL, NULL);
}
