/* SPDX-License-Identifier: Apache-2.0
 *
 * test_prove.c: plans that would lose, repeat or misplace a bucket's gradients, or read parameters
 * that are not whole, are refused. Each row changes one step of a good plan.
 */
#include "zero_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* The n-th step of a kind, from 0. */
static plan_step *step_of(plan *p, plan_step_kind kind, uint32_t n)
{
    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].kind == kind && n-- == 0)
            return &p->steps[i];
    fail_msg("no such step");
    return NULL;
}

static void another_window(plan *p, plan_step *s)
{
    (void)p;
    s->mb = (s->mb + 1) % ZERO_MB;
}

static void no_waits(plan *p, plan_step *s)
{
    (void)p;
    s->n_waits = 0;
}

static void no_binding(plan *p, plan_step *s)
{
    (void)p;
    s->n_bindings = 0;
}

static void no_such_step(plan *p, plan_step *s) /* it clears, or sums, something else once more */
{
    (void)p;
    s->kind = s->kind == PLAN_CLEAR ? PLAN_REDUCE_SCATTER : PLAN_ALL_REDUCE;
}

/* The pass behind it adds to a buffer that nobody reduces: what others did with all but the last
 * microbatch. */
static void adds_elsewhere(plan *p, plan_step *s)
{
    uint32_t at = p->bindings[s->bindings];
    plan_step *add = s;
    for (;;) {
        add++;
        for (uint32_t k = 0; add->kind == PLAN_COMPUTE && k < add->n_bindings; k++)
            if (p->bindings[add->bindings + k] == at) {
                p->bindings[add->bindings + k] = p->act_bytes / PLAN_ALIGN;
                return;
            }
    }
}

/* ... or two passes add to each other's. */
static void adds_to_another(plan *p, plan_step *s)
{
    (void)p;
    while (s->kind != PLAN_COMPUTE || (s->pass != PPS_PASS_B && s->pass != PPS_PASS_BW))
        s++;
    plan_step *other = s + 1;
    while (other->work != s->work)
        other++;
    uint32_t mb = s->mb;
    s->mb = other->mb;
    other->mb = mb;
}

/* What uses its buffer first does not wait for it. */
static void use_without_waiting(plan *p, plan_step *s)
{
    uint32_t at = p->bindings[s->bindings];
    for (plan_step *use = s + 1;; use++)
        for (uint32_t k = 0; use->kind == PLAN_COMPUTE && k < use->n_bindings; k++)
            if (p->bindings[use->bindings + k] == at) {
                use->n_waits = 0;
                return;
            }
}

static const struct {
    const char *clauses;
    plan_step_kind kind;
    uint32_t n; /* which of the kind */
    void (*change)(plan *p, plan_step *s);
    int code;
} rows[] = {
    {"", PLAN_ALL_REDUCE, 0, no_waits, 545},
    {"", PLAN_UPDATE, 0, no_waits, 545},
    {"zero 1", PLAN_REDUCE_SCATTER, 0, no_waits, 545},
    {"zero 1", PLAN_REDUCE_SCATTER, 1, no_such_step, 546},
    {"zero 1", PLAN_UPDATE, 0, no_waits, 545},
    {"zero 1", PLAN_ALL_GATHER, 0, no_waits, 545},
    {"zero 2", PLAN_CLEAR, 0, another_window, 544},
    {"zero 2", PLAN_CLEAR, 2, no_such_step, 511},
    {"zero 2", PLAN_CLEAR, 1, adds_elsewhere, 520},
    {"zero 2", PLAN_CLEAR, 1, adds_to_another, 544},
    {"zero 2", PLAN_REDUCE_SCATTER, 1, another_window, 544},
    {"zero 2", PLAN_REDUCE_SCATTER, 3, no_waits, 520},
    {"zero 2", PLAN_REDUCE_SCATTER, 0, no_such_step, 520},
    {"zero 2", PLAN_REDUCE_SCATTER, 0, no_binding, 520},
    {"zero 2", PLAN_ALL_GATHER, 0, no_waits, 545},
    {"zero 3 gather ga", PLAN_ALL_GATHER, 1, no_such_step, 520},
    {"zero 3 gather ga", PLAN_ALL_GATHER, 0, no_binding, 520},
    {"zero 3 gather ga", PLAN_ALL_GATHER, 0, use_without_waiting, 520},
};

static void changed_plans_are_refused(void **state)
{
    (void)state;
    for (size_t at = 0; at < 2 * (sizeof rows / sizeof *rows); at++) {
        compiled c;
        size_t i = at / 2;
        zero_open(&c, &(zero_case){.schedule = "interleaved",
                                   .ep = at % 2, /* experts shared out */
                                   .clauses = rows[i].clauses});
        assert_int_equal(pps_prove(c.st, c.set), PPS_OK);
        plan *p = &c.set->plans[1];
        rows[i].change(p, step_of(p, rows[i].kind, rows[i].n));
        pps_status status = pps_prove(c.st, c.set);
        if (status != PPS_ERR_SCRIPT || c.code != rows[i].code)
            fail_msg("row %zu%s: status %d, E%04d\n%s", i, at % 2 ? ", experts shared out" : "",
                     (int)status, c.code, c.said);
        zero_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(changed_plans_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
