/* SPDX-License-Identifier: Apache-2.0
 *
 * test_plan.c: what plans of slices look like, and that plans are refused in which a slice would
 * not find what the one before it left.
 */
#include "zero_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { MBS = 3, SLICES = 4 };

static void open_plan(compiled *c, uint32_t slices, const char *order)
{
    char script[2048];
    snprintf(script, sizeof script,
             "from \"models/llama\" import llama\n"
             "train llama(tokens(6, 16), targets(), stages=2, layers=4, dim=16, heads=2) "
             "optimizer sgd(lr=0.1)\n"
             "split {} by MB into %d\n"
             "split {} by SEQ into %u along sequence\n"
             "place {PP: 0} on [0]\n"
             "place {PP: 1} on [1]\n%s",
             MBS, slices, order);
    zero_compile(c, script);
    if (c->set == NULL)
        fail_msg("refused:\n%s\n%s", script, c->said);
}

static const plan_kernel *attention_of(const plan_set *set, const plan_step *s)
{
    const plan_program *program = &set->programs[plan_work_of(set, s)->program];
    for (uint32_t i = program->kernels; i < program->kernels + program->n_kernels; i++)
        if (set->kernels[i].op == IR_ATTENTION_SLICE)
            return &set->kernels[i];
    return NULL;
}

/* Forward by slices, backward from the last; as many under way as 1F1B has, and the rest of one
 * microbatch. */
static void default_order(void **state)
{
    compiled c;
    (void)state;
    open_plan(&c, SLICES, "");
    for (uint32_t g = 0; g < c.set->n_groups; g++) {
        const plan *p = &c.set->plans[g];
        uint32_t n_f = 0, n_b = 0, most = 0;
        for (uint32_t i = 0; i < p->n_steps; i++) {
            const plan_step *s = &p->steps[i];
            if (s->kind != PLAN_COMPUTE)
                continue;
            if (s->pass == PPS_PASS_F) {
                assert_int_equal(s->mb, n_f++);
            } else {
                assert_int_equal(s->pass, PPS_PASS_B);
                assert_int_equal(s->mb / SLICES, n_b / SLICES);
                assert_int_equal(s->mb % SLICES, SLICES - 1 - n_b % SLICES);
                n_b++;
            }
            most = n_f - n_b > most ? n_f - n_b : most;
        }
        assert_int_equal(n_f, MBS * SLICES);
        assert_int_equal(n_b, MBS * SLICES);
        assert_int_equal(most, SLICES + 1 - g);
    }
    zero_close(&c);
}

/* With unit costs (p - 1) / (m s + p - 1) of the time is idle, as in 1F1B of so many microbatches.
 */
static void bubble(void **state)
{
    (void)state;
    for (uint32_t slices = 1; slices <= 16; slices *= 2) {
        compiled c;
        open_plan(&c, slices, "");
        assert_float_equal(c.set->bubble, 1.0 / (MBS * slices + 1), 1e-9);
        zero_close(&c);
    }
}

/* What a microbatch carries is one buffer, for all layers of a stage, from the first slice's
 * forward to its backward; and one for gradients, from the last slice's backward. */
static void carried_buffers(void **state)
{
    compiled c;
    (void)state;
    open_plan(&c, SLICES, "");
    for (uint32_t g = 0; g < c.set->n_groups; g++) {
        const plan *p = &c.set->plans[g];
        uint32_t n = 0;
        for (uint32_t i = 0; i < p->n_blocks; i++) {
            const plan_block *b = &p->blocks[i];
            const plan_step *first = &p->steps[b->first], *last = &p->steps[b->last];
            if (b->what != PLAN_BLOCK_CARRY)
                continue;
            n++;
            assert_int_equal(last->pass, PPS_PASS_B);
            assert_int_equal(last->mb % SLICES, 0);
            assert_int_equal(first->mb / SLICES, last->mb / SLICES);
            assert_int_equal(first->mb % SLICES, first->pass == PPS_PASS_F ? 0 : SLICES - 1);
            /* keys and values of 2 layers, 2 rows, 16 positions */
            const plan_kernel *k = attention_of(c.set, first);
            assert_int_equal(plan_block_bytes(b),
                             2 * 2 * 2 * 16 * k->attrs.kv_heads * k->attrs.head_dim * 4);
        }
        assert_int_equal(n, 2 * MBS);
    }
    zero_close(&c);
}

/* Nodes and steps are units: as many as so many microbatches would make. */
static void as_many_as_microbatches(void **state)
{
    compiled c;
    uint32_t n[2], steps[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        open_plan(&c, i == 0 ? 2 : 8, "");
        n[i] = c.set->n_nodes;
        steps[i] = c.set->plans[0].n_steps;
        zero_close(&c);
    }
    assert_int_equal(n[1] - 2, 4 * (n[0] - 2)); /* but for the updates */
    assert_int_equal(steps[1] - 1, 4 * (steps[0] - 1));
}

/* ---- refused --------------------------------------------------------------------------------- */

typedef struct at { /* a step that carries */
    plan *p;
    plan_step *s;
    uint32_t *carry; /* its binding of c0 */
} at;

/* The n-th step of `pass` of plan 0 that has attention. */
static at carrying(plan_set *set, pps_pass pass, uint32_t n)
{
    plan *p = &set->plans[0];
    for (uint32_t i = 0; i < p->n_steps; i++) {
        plan_step *s = &p->steps[i];
        const plan_kernel *k = s->kind == PLAN_COMPUTE ? attention_of(set, s) : NULL;
        if (k == NULL || s->pass != pass || n-- > 0)
            continue;
        uint32_t operand = k->phase == IR_PHASE_F ? 5 : 3;
        uint32_t bind = set->operands[k->operands + operand].bind;
        return (at){p, s, &p->bindings[s->bindings + bind]};
    }
    fail_msg("no such step");
    return (at){0};
}

static void swap_units(plan_set *set, pps_pass pass, uint32_t a, uint32_t b)
{
    plan_step *one = carrying(set, pass, a).s, *other = carrying(set, pass, b).s;
    uint32_t mb = one->mb;
    one->mb = other->mb;
    other->mb = mb;
}

static void forward_out_of_order(plan_set *set)
{
    swap_units(set, PPS_PASS_F, 1, 2);
}

static void backward_out_of_order(plan_set *set)
{
    swap_units(set, PPS_PASS_B, 1, 2);
}

static void first_backward_is_not_the_last_slice(plan_set *set)
{
    swap_units(set, PPS_PASS_B, 0, 1);
}

static void another_microbatch_reads_it(plan_set *set)
{
    swap_units(set, PPS_PASS_F, SLICES - 1, SLICES);
}

static void another_buffer(plan_set *set)
{
    at one = carrying(set, PPS_PASS_F, 1), other = carrying(set, PPS_PASS_F, SLICES);
    *one.carry = *other.carry;
}

static void backward_reads_gradients(plan_set *set)
{
    at b = carrying(set, PPS_PASS_B, 1);
    const plan_kernel *k = attention_of(set, b.s);
    uint32_t c1 = b.p->bindings[b.s->bindings + set->operands[k->operands + 8].bind];
    *b.carry = c1;
}

static void another_stream(plan_set *set)
{
    carrying(set, PPS_PASS_F, 1).s->stream = 1;
}

/* The layers of a stage would overwrite each other's keys. */
static void one_place_for_two_layers(plan_set *set)
{
    const plan_kernel *k = NULL;
    for (uint32_t i = 0; i < set->n_kernels; i++) {
        if (set->kernels[i].op != IR_ATTENTION_SLICE)
            continue;
        if (k != NULL) {
            set->operands[set->kernels[i].operands + 5].offset =
                set->operands[k->operands + 5].offset;
            return;
        }
        k = &set->kernels[i];
    }
}

/* Forward and backward do not mean the same. */
static void places_change(plan_set *set)
{
    at b = carrying(set, PPS_PASS_B, 0);
    const plan_kernel *k = attention_of(set, b.s);
    set->operands[k->operands + 3].offset += 64;
}

static void broken_plans_are_refused(void **state)
{
    static const struct {
        const char *name;
        void (*change)(plan_set *set);
    } rows[] = {
        {"forward out of order", forward_out_of_order},
        {"backward out of order", backward_out_of_order},
        {"backward does not begin with the last slice", first_backward_is_not_the_last_slice},
        {"another microbatch reads it", another_microbatch_reads_it},
        {"another buffer", another_buffer},
        {"backward reads gradients for keys", backward_reads_gradients},
        {"another stream", another_stream},
        {"one place for two layers", one_place_for_two_layers},
        {"places change", places_change},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        compiled c;
        open_plan(&c, SLICES, "");
        assert_int_equal(pps_prove(c.st, c.set), PPS_OK);
        rows[i].change(c.set);
        c.code = 0;
        if (pps_prove(c.st, c.set) == PPS_OK)
            fail_msg("%s: proved", rows[i].name);
        print_message("%s: E%04d\n", rows[i].name, c.code);
        zero_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(default_order),
        cmocka_unit_test(bubble),
        cmocka_unit_test(carried_buffers),
        cmocka_unit_test(as_many_as_microbatches),
        cmocka_unit_test(broken_plans_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
