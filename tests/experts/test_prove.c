/* SPDX-License-Identifier: Apache-2.0
 *
 * test_prove.c: plans that share out experts, exchange their rows or sum their gradients over other
 * ranks than they should are refused. Each row changes one number of a good plan.
 */
#include "expert_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* Four replicas on one group: teams 0 are the group, then others of two ranks. */
typedef struct numbers {
    uint32_t shared, owners; /* teams that share experts out; of ranks with the same experts */
} numbers;

static plan_bucket *bucket_of(plan_set *set, bool experts)
{
    plan *p = &set->plans[0];
    for (uint32_t b = 0; b < p->n_buckets; b++)
        if ((p->params[p->buckets[b].first].cuts[0].teams != IR_NONE) == experts)
            return &p->buckets[b];
    fail_msg("no such bucket");
    return NULL;
}

static void rework(plan_set *set, plan_step_kind kind, uint32_t from, uint32_t teams)
{
    for (uint32_t i = 0; i < set->plans[0].n_steps; i++) {
        const plan_step *s = &set->plans[0].steps[i];
        if (s->kind == kind && set->works[s->work].teams == from)
            set->works[s->work].teams = teams;
    }
}

static void summed_over_sharers(plan_set *set, numbers n)
{
    bucket_of(set, true)->teams = n.shared;
    rework(set, PLAN_ALL_REDUCE, n.owners, n.shared);
}

static void summed_over_all(plan_set *set, numbers n)
{
    bucket_of(set, true)->teams = 0;
    rework(set, PLAN_ALL_REDUCE, n.owners, 0);
}

static void the_rest_summed_over_some(plan_set *set, numbers n)
{
    bucket_of(set, false)->teams = n.owners;
    rework(set, PLAN_ALL_REDUCE, 0, n.owners);
}

static void rows_to_others(plan_set *set, numbers n)
{
    rework(set, PLAN_ALL_TO_ALL, n.shared, n.owners);
}

static void counts_of_others(plan_set *set, numbers n)
{
    rework(set, PLAN_COUNTS, n.shared, n.owners);
}

static void computed_as_others(plan_set *set, numbers n)
{
    for (uint32_t i = 0; i < set->n_kernels; i++)
        if (set->kernels[i].teams == n.shared)
            set->kernels[i].teams = n.owners;
}

static void held_as_others(plan_set *set, numbers n)
{
    plan *p = &set->plans[0];
    for (uint32_t i = 0; i < p->n_params; i++)
        if (p->params[i].cuts[0].teams == n.shared)
            p->params[i].cuts[0].teams = n.owners;
}

static const struct row {
    const char *what;
    void (*change)(plan_set *set, numbers n);
    const char *said;
} rows[] = {
    {"experts' gradients summed over ranks with different experts", summed_over_sharers,
     "ranks with different slices sum gradients"},
    {"experts' gradients summed over all ranks", summed_over_all,
     "ranks with different slices sum gradients"},
    {"other gradients summed over half of the replicas", the_rest_summed_over_some,
     "a replica's gradients are in no sum"},
    {"rows exchanged with other ranks than counted", rows_to_others,
     "rows are exchanged in other teams than counted"},
    {"rows counted with other ranks", counts_of_others, "other teams"},
    {"other experts computed than held", computed_as_others, "E0550"},
    {"other experts held than computed", held_as_others, "E0550"},
};

static void refused(void **state)
{
    const struct row *row = *state;
    for (int z = 0; z < 2; z++) {
        compiled c;
        expert_open(&c, &(expert_case){.schedule = "one",
                                       .replicas = 4,
                                       .teams = "[[0, 1], [2, 3]]",
                                       .clauses = z ? "zero 3" : "",
                                       .aux = "0.0"});
        assert_int_equal(pps_prove(c.st, c.set), PPS_OK);
        const plan_bucket *b = bucket_of(c.set, true);
        const plan_param *q = &c.set->plans[0].params[b->first];
        if (z && row->change == summed_over_all) {
            zero_close(&c); /* slices of another number: plan_validate's */
            continue;
        }
        row->change(c.set, (numbers){.shared = q->cuts[0].teams, .owners = b->teams});
        c.said[0] = '\0';
        assert_int_equal(pps_prove(c.st, c.set), PPS_ERR_SCRIPT);
        if (strstr(c.said, row->said) == NULL)
            fail_msg("'%s' is not in:\n%s", row->said, c.said);
        zero_close(&c);
    }
}

int main(void)
{
    struct CMUnitTest tests[sizeof rows / sizeof *rows];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        tests[i] = (struct CMUnitTest){
            .name = rows[i].what, .test_func = refused, .initial_state = (void *)&rows[i]};
    return cmocka_run_group_tests_name("prove", tests, NULL, NULL);
}
