/* SPDX-License-Identifier: Apache-2.0
 *
 * test_prove.c: plans whose copies to host memory come too late, too early, cut short, to the wrong
 * place or not at all are refused. Each row changes one thing of a good plan.
 */
#include "keep_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static uint32_t bytes_of(const plan_set *set, const plan_step *s)
{
    return (uint32_t)plan_work_of(set, s)->bytes;
}

/* The n-th step of a kind, from 0. */
static plan_step *step_of(plan *p, plan_step_kind kind, uint32_t n)
{
    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].kind == kind && n-- == 0)
            return &p->steps[i];
    fail_msg("no such step");
    return NULL;
}

/* Another copy of the same kind and size while the first step's host buffer lives. */
static plan_step *other_copy(const plan_set *set, plan *p, plan_step *s)
{
    for (plan_step *o = p->steps; o < p->steps + p->n_steps; o++)
        if (o != s && o->kind == s->kind && bytes_of(set, o) == bytes_of(set, s) &&
            p->bindings[o->bindings + 1] != p->bindings[s->bindings + 1])
            return o;
    fail_msg("no such copy");
    return NULL;
}

static plan_block *host_block_of(plan *p, uint32_t first)
{
    for (uint32_t b = 0; b < p->n_host_blocks; b++)
        if (p->host_blocks[b].first == first)
            return &p->host_blocks[b];
    fail_msg("no such block");
    return NULL;
}

static void no_waits(plan_set *set, plan *p, plan_step *s)
{
    (void)set, (void)p;
    s->n_waits = 0;
}

/* Those that begin nothing new may start at once. */
static void readers_wait_for_nothing(plan_set *set, plan *p, plan_step *s)
{
    (void)set;
    for (plan_step *o = s + 1; o < p->steps + p->n_steps; o++)
        if (o->kind == PLAN_COMPUTE)
            o->n_waits = 0;
}

static void no_binding(plan_set *set, plan *p, plan_step *s)
{
    (void)set, (void)p;
    s->n_bindings = 1;
}

static void half_of_it(plan_set *set, plan *p, plan_step *s)
{
    (void)p;
    set->works[s->work].bytes /= 2;
}

static void other_microbatch(plan_set *set, plan *p, plan_step *s)
{
    (void)set, (void)p;
    s->mb = (s->mb + 1) % set->n_mb;
}

static void other_host_buffer(plan_set *set, plan *p, plan_step *s)
{
    p->bindings[s->bindings + 1] = p->bindings[other_copy(set, p, s)->bindings + 1];
}

static void other_device_buffer(plan_set *set, plan *p, plan_step *s)
{
    p->bindings[s->bindings] = p->bindings[other_copy(set, p, s)->bindings];
}

static void freed_too_early(plan_set *set, plan *p, plan_step *s)
{
    (void)set;
    plan_block *b = host_block_of(p, (uint32_t)(s - p->steps));
    b->last = b->first;
}

/* Its host buffer moves onto one that lives then. */
static void onto_another(plan_set *set, plan *p, plan_step *s)
{
    plan_block *mine = host_block_of(p, (uint32_t)(s - p->steps));
    for (uint32_t b = 0; b < p->n_host_blocks; b++) {
        plan_block *o = &p->host_blocks[b];
        if (o == mine || o->first > mine->last || o->last < mine->first)
            continue;
        for (plan_step *user = p->steps; user < p->steps + p->n_steps; user++)
            if (plan_is(user->kind, PLAN_COPY) && p->bindings[user->bindings + 1] == mine->offset &&
                (uint32_t)(user - p->steps) >= mine->first &&
                (uint32_t)(user - p->steps) <= mine->last)
                p->bindings[user->bindings + 1] = o->offset;
        mine->offset = o->offset;
        return;
    }
    (void)set;
    fail_msg("nothing else lives there");
}

static void outside(plan_set *set, plan *p, plan_step *s)
{
    (void)set, (void)s;
    p->host_bytes--;
}

/* It does something else. */
static void never_fetched(plan_set *set, plan *p, plan_step *s)
{
    (void)set;
    const plan_step *update = step_of(p, PLAN_UPDATE, 0);
    s->kind = update->kind;
    s->pass = update->pass;
    s->work = update->work;
    s->n_bindings = 0;
}

static void fetched_twice(plan_set *set, plan *p, plan_step *s)
{
    plan_step *o = other_copy(set, p, s);
    o->mb = s->mb;
    o->work = s->work;
    o->pass = s->pass;
    other_host_buffer(set, p, o);
    p->bindings[o->bindings + 1] = p->bindings[s->bindings + 1];
}

/* A backward reads what came back for another one. */
static void reads_another(plan_set *set, plan *p, plan_step *s)
{
    plan_step *o = s + 1;
    while (o->kind != s->kind || o->pass != s->pass)
        o++;
    for (plan_step *b = o; b < p->steps + p->n_steps; b++)
        for (uint32_t k = 0; b->kind == PLAN_COMPUTE && b->mb == s->mb && k < b->n_bindings; k++)
            if (p->bindings[b->bindings + k] == p->bindings[s->bindings]) {
                p->bindings[b->bindings + k] = p->bindings[o->bindings];
                return;
            }
    (void)set;
    fail_msg("nothing reads it");
}

static const struct {
    const char *name;
    plan_step_kind kind;
    uint32_t n; /* which of the kind */
    void (*change)(plan_set *set, plan *p, plan_step *s);
    int code, or_code;
} rows[] = {
    {"a copy before its forward pass", PLAN_OFFLOAD, 0, no_waits, 519, 520},
    {"a fetch before its copy", PLAN_FETCH, 0, no_waits, 519, 520},
    {"a backward before its fetch", PLAN_FETCH, 0, readers_wait_for_nothing, 519, 520},
    {"a copy to nowhere", PLAN_OFFLOAD, 1, no_binding, 520, 0},
    {"a fetch from nowhere", PLAN_FETCH, 1, no_binding, 520, 0},
    {"half a copy", PLAN_OFFLOAD, 0, half_of_it, 548, 0},
    {"half a fetch", PLAN_FETCH, 0, half_of_it, 548, 0},
    {"a copy of another microbatch", PLAN_OFFLOAD, 0, other_microbatch, 544, 0},
    {"a fetch of another microbatch", PLAN_FETCH, 0, other_microbatch, 544, 0},
    {"a copy to another's host memory", PLAN_OFFLOAD, 0, other_host_buffer, 519, 0},
    {"a fetch from another's host memory", PLAN_FETCH, 0, other_host_buffer, 544, 0},
    {"a copy of another's values", PLAN_OFFLOAD, 1, other_device_buffer, 520, 0},
    {"a fetch to another's buffer", PLAN_FETCH, 0, other_device_buffer, 519, 0},
    {"host memory freed too early", PLAN_OFFLOAD, 0, freed_too_early, 519, 0},
    {"host memory used twice at once", PLAN_OFFLOAD, 2, onto_another, 519, 0},
    {"host memory outside the plan's", PLAN_OFFLOAD, 0, outside, 519, 0},
    {"a copy that never comes back", PLAN_FETCH, 0, never_fetched, 520, 0},
    {"a copy that comes back twice", PLAN_FETCH, 0, fetched_twice, 519, 518},
    {"a backward of another microbatch", PLAN_FETCH, 0, reads_another, 544, 0},
};

static void changed_plans_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        compiled c;
        keep_open(&c, &(keep_case){.schedule = "gpipe", .keep = "offload {} to host"});
        assert_int_equal(pps_prove(c.st, c.set), PPS_OK);
        plan *p = &c.set->plans[1];
        rows[i].change(c.set, p, step_of(p, rows[i].kind, rows[i].n));
        pps_status status = pps_prove(c.st, c.set);
        if (status != PPS_ERR_SCRIPT || (c.code != rows[i].code && c.code != rows[i].or_code))
            fail_msg("%s: status %d, E%04d\n%s", rows[i].name, (int)status, c.code, c.said);
        zero_close(&c);
    }
}

/* Waits are the fewest that keep memory whole: without one, something may be used too early. But a
 * fetch is held back lest it takes memory too soon, and computes wait for copies for the same
 * reason. */
static void no_wait_of_a_copy_can_be_dropped(void **state)
{
    compiled c;
    uint32_t refused = 0;
    (void)state;
    keep_open(&c, &(keep_case){.schedule = "zerobubble", .keep = "offload {PP: 0} to host"});
    plan *p = &c.set->plans[0];
    for (uint32_t i = 0; i < p->n_steps; i++) {
        plan_step *s = &p->steps[i], was = *s;
        for (uint32_t k = 0; k < was.n_waits; k++) {
            uint32_t *waits = p->waits + s->waits, mine = waits[k];
            bool copies = plan_is(p->steps[mine].kind, PLAN_COPY);
            bool held_back = s->kind == PLAN_FETCH || p->steps[mine].kind == PLAN_OFFLOAD;
            if (!copies && !plan_is(s->kind, PLAN_COPY))
                continue;
            waits[k] = waits[was.n_waits - 1];
            s->n_waits--;
            c.code = 0;
            pps_status status = pps_prove(c.st, c.set);
            s->n_waits++;
            waits[was.n_waits - 1] = waits[k];
            waits[k] = mine;
            pps_clear_errors(c.st);
            if (status != PPS_OK && c.code != 519 && c.code != 520)
                fail_msg("step %u without its wait for %u: E%04d", i, mine, c.code);
            if (status == PPS_OK && !held_back)
                fail_msg("step %u does not need its wait for %u", i, mine);
            refused += status != PPS_OK;
        }
    }
    assert_true(refused > 10);
    assert_int_equal(pps_prove(c.st, c.set), PPS_OK);
    zero_close(&c);
}

/* Attention that runs again writes its slice's keys and values where they are, nowhere else. */
static void slices_are_made_again_in_place(void **state)
{
    compiled c;
    uint32_t changed = 0;
    (void)state;
    keep_open(&c, &(keep_case){.schedule = "gpipe",
                               .keep = "split {} by SEQ into 7 along sequence\nrecompute {}"});
    assert_int_equal(pps_prove(c.st, c.set), PPS_OK);
    for (uint32_t i = 0; i < c.set->n_programs; i++)
        for (uint32_t k = 0; k < c.set->programs[i].n_kernels; k++) {
            plan_kernel *kernel = &c.set->kernels[c.set->programs[i].kernels + k];
            if (c.set->programs[i].pass == PPS_PASS_F || kernel->op != IR_ATTENTION_SLICE ||
                kernel->phase != IR_PHASE_F)
                continue;
            plan_operand *carried = &c.set->operands[kernel->operands + kernel->n_operands - 1];
            carried->offset += PLAN_ALIGN;
            c.code = 0;
            assert_int_equal(pps_prove(c.st, c.set), PPS_ERR_SCRIPT);
            assert_int_equal(c.code, 524);
            pps_clear_errors(c.st);
            carried->offset -= PLAN_ALIGN;
            changed++;
        }
    assert_true(changed > 0);
    assert_int_equal(pps_prove(c.st, c.set), PPS_OK);
    zero_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changed_plans_are_refused),
        cmocka_unit_test(no_wait_of_a_copy_can_be_dropped),
        cmocka_unit_test(slices_are_made_again_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
