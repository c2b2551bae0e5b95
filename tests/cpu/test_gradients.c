/* SPDX-License-Identifier: Apache-2.0
 *
 * Every gradient of every op against central differences, in double. The loss is <o, d> plus the
 * op's own loss; BI runs before BW, as in a split backward. With steps of 1e-5 the differences' own
 * error is about 1e-10, so 1e-6 leaves no room for a wrong term.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/cpu/op_case.h"

static double loss_of(operands *a)
{
    const char *list = operand_list(a->c->k.op, IR_PHASE_F);
    double sum = 0;
    operands_run(a, cpu_kernel_find_f64, IR_PHASE_F, NULL);
    for (size_t i = 0; i < OPERAND_INDICES; ++i) {
        const operand *o = operand_of(a, 'o', i), *d = operand_of(a, 'd', i);
        if (list_names(list, 'o', i))
            for (size_t j = 0; j < d->n; ++j)
                sum += o->real[j] * d->real[j];
    }
    return list_names(list, 'l', 0) ? sum + *operand_of(a, 'l', 0)->loss : sum;
}

static double difference(operands *a, cpu_real *at)
{
    const double step = 1e-5;
    double was = *at;
    *at = was + step;
    double after = loss_of(a);
    *at = was - step;
    double before = loss_of(a);
    *at = was;
    return (after - before) / (2 * step);
}

static void check(operands *a, char letter, size_t index, const operand *gradient,
                  const operand *begin)
{
    operand *o = operand_of(a, letter, index);
    for (size_t j = 0; j < o->n; ++j) {
        double want = difference(a, &o->real[j]);
        double got = gradient->real[j] - (begin != NULL ? begin->real[j] : 0);
        if (!(fabs(got - want) <= 1e-6 * (1 + fabs(want))))
            fail_msg("%s: gradient of %c%zu[%zu] is %.9g, by differences %.9g", a->c->name, letter,
                     index, j, got, want);
    }
}

static void every_gradient(void **state)
{
    const op_case *c = *state;
    operands a, begin;
    operands_init(&a, c, 7, 0xff);
    operands_init(&begin, c, 7, 0xff); /* the same begin values of g */
    operands_run_all(&a, cpu_kernel_find_f64, NULL);
    for (size_t i = 0; i < OPERAND_INDICES; ++i) {
        if (list_names(operand_list(c->k.op, IR_PHASE_BI), 'x', i) &&
            !operand_of(&a, 'i', i)->is_int)
            check(&a, 'i', i, operand_of(&a, 'x', i), NULL);
        if (list_names(operand_list(c->k.op, IR_PHASE_BW), 'g', i))
            check(&a, 'p', i, operand_of(&a, 'g', i), operand_of(&begin, 'g', i));
    }
    operands_done(&a);
    operands_done(&begin);
}

/* A gradient nobody wants has no address. */
static void unwanted_input_gradients(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_op_cases; ++n) {
        operands a;
        operands_init(&a, &op_cases[n], 7, 0);
        for (size_t i = 0; i < OPERAND_INDICES; ++i) {
            free(operand_of(&a, 'x', i)->at);
            operand_of(&a, 'x', i)->at = NULL;
        }
        operands_run_all(&a, cpu_kernel_find_f64, NULL);
        operands_done(&a);
    }
}

/* Only the auxiliary loss: nobody used the gates. */
static void router_without_gate_gradient(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_op_cases; ++n) {
        operands a, zero;
        if (op_cases[n].k.op != IR_ROUTER)
            continue;
        operands_init(&a, &op_cases[n], 7, 0);
        operands_init(&zero, &op_cases[n], 7, 0);
        free(operand_of(&a, 'd', 0)->at);
        operand_of(&a, 'd', 0)->at = NULL;
        memset(operand_of(&zero, 'd', 0)->at, 0, operand_bytes(operand_of(&zero, 'd', 0)));
        operands_run_all(&a, cpu_kernel_find_f64, NULL);
        operands_run_all(&zero, cpu_kernel_find_f64, NULL);
        const operand *x = operand_of(&a, 'x', 0);
        for (size_t j = 0; j < x->n; ++j)
            assert_true(x->real[j] == operand_of(&zero, 'x', 0)->real[j]);
        operands_done(&a);
        operands_done(&zero);
    }
}

int main(void)
{
    struct CMUnitTest tests[64] = {
        cmocka_unit_test(unwanted_input_gradients),
        cmocka_unit_test(router_without_gate_gradient),
    };
    size_t n = 2;
    for (size_t i = 0; i < n_op_cases; ++i)
        if (op_cases[i].k.op != IR_ATTENTION_PART && op_cases[i].k.op != IR_ATTENTION_END)
            tests[n++] = (struct CMUnitTest){.name = op_cases[i].name,
                                             .test_func = every_gradient,
                                             .initial_state = (void *)&op_cases[i]};
    return _cmocka_run_group_tests("gradients", tests, n, NULL, NULL);
}
