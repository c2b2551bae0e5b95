/* SPDX-License-Identifier: Apache-2.0
 *
 * Bits of the plain kernels: the same again, the same whatever the processor's vectors, a row the
 * same with and without other rows, and weight gradients the same whether rows come at once or in
 * turn.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "runtime/cpu/lanes.h"
#include "tests/cpu/op_case.h"

#ifdef CPU_WIDE
extern const cpu_table cpu_table_avx2, cpu_table_avx512;

static cpu_kernel_fn find_avx2(uint32_t op, uint32_t phase)
{
    return cpu_table_avx2.kernel[op][phase];
}

static cpu_kernel_fn find_avx512(uint32_t op, uint32_t phase)
{
    return cpu_table_avx512.kernel[op][phase];
}
#endif

static cpu_kernel_fn find_base(uint32_t op, uint32_t phase)
{
    return cpu_table_base.kernel[op][phase];
}

static void same_bytes(const op_case *c, char letter, size_t index, const void *a, const void *b,
                       size_t bytes)
{
    if (bytes > 0 && memcmp(a, b, bytes) != 0)
        fail_msg("%s: %c%zu differs", c->name, letter, index);
}

/* Everything that `first` and `second` leave, from buffers that held different rubbish. */
static void same_results(find_fn first, find_fn second)
{
    for (size_t n = 0; n < n_op_cases; ++n) {
        const op_case *c = &op_cases[n];
        operands a, b;
        operands_init(&a, c, 11, 0xff);
        operands_init(&b, c, 11, 0x00);
        operands_run_all(&a, first, NULL);
        operands_run_all(&b, second, NULL);
        for (const char *l = "osxgh"; *l != '\0'; ++l)
            for (size_t i = 0; i < OPERAND_INDICES; ++i) {
                bool is_used = false;
                for (uint32_t phase = 0; phase < IR_PHASE_COUNT; ++phase)
                    is_used |= list_names(operand_list(c->k.op, phase), *l, i);
                const operand *o = operand_of(&a, *l, i);
                if (is_used)
                    same_bytes(c, *l, i, o->at, operand_of(&b, *l, i)->at, operand_bytes(o));
            }
        if (list_names(operand_list(c->k.op, IR_PHASE_F), 'l', 0))
            same_bytes(c, 'l', 0, operand_of(&a, 'l', 0)->at, operand_of(&b, 'l', 0)->at,
                       sizeof(double));
        operands_done(&a);
        operands_done(&b);
    }
}

static void same_again(void **state)
{
    (void)state;
    same_results(cpu_kernel_find, cpu_kernel_find);
}

static void same_on_every_vector_width(void **state)
{
    (void)state;
    same_results(cpu_kernel_find, find_base);
#ifdef CPU_WIDE
    if (__builtin_cpu_supports("avx2"))
        same_results(find_avx2, find_base);
    if (__builtin_cpu_supports("avx512f"))
        same_results(find_avx512, find_base);
#endif
}

/* Copy row b's share of every operand that has a batch dimension from `all` to `one`, and those
 * without one whole. */
static void take_row(operands *all, operands *one, size_t b, const char *which)
{
    for (const char *l = which; *l != '\0'; ++l)
        for (size_t i = 0; i < OPERAND_INDICES; ++i) {
            operand *to = operand_of(one, *l, i);
            if (operand_bytes(to) > 0)
                memcpy(to->at,
                       (char *)operand_of(all, *l, i)->at + (*l == 'p' ? 0 : b) * operand_bytes(to),
                       operand_bytes(to));
        }
}

/* Operands have B rows; those of expert rows and routes mix rows of the batch. */
static bool has_rows(const op_case *c)
{
    return c->k.op != IR_DISPATCH && c->k.op != IR_EXPERTS && c->k.op != IR_COMBINE;
}

static void row_alone(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_op_cases; ++n) {
        const op_case *c = &op_cases[n];
        op_case single = *c;
        operands all, one;
        if (!has_rows(c))
            continue;
        single.k.B = 1;
        operands_init(&all, c, 13, 0);
        operands_run_all(&all, cpu_kernel_find, NULL);
        for (size_t b = 0; b < c->k.B; ++b) {
            operands_init(&one, &single, 13, 0);
            take_row(&all, &one, b, "ipd");
            operands_run_all(&one, cpu_kernel_find, NULL);
            for (const char *l = "osx"; *l != '\0'; ++l)
                for (size_t i = 0; i < OPERAND_INDICES; ++i) {
                    const operand *o = operand_of(&one, *l, i);
                    size_t bytes = operand_bytes(o);
                    if (!o->is_int && bytes > 0)
                        same_bytes(c, *l, i, o->at, (char *)operand_of(&all, *l, i)->at + b * bytes,
                                   bytes);
                }
            operands_done(&one);
        }
        operands_done(&all);
    }
}

static void weight_gradients_in_row_order(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_op_cases; ++n) {
        const op_case *c = &op_cases[n];
        op_case single = *c;
        operands all, one;
        if (c->k.op != IR_LINEAR && c->k.op != IR_EMBED && c->k.op != IR_POSITION)
            continue;
        single.k.B = 1;
        operands_init(&all, c, 17, 0);
        operands_init(&one, &single, 17, 0);
        for (size_t i = 0; i < OPERAND_INDICES; ++i) {
            operand *begin = operand_of(&all, 'g', i);
            if (begin->n > 0)
                memcpy(operand_of(&one, 'g', i)->at, begin->at, operand_bytes(begin));
        }
        operands_run(&all, cpu_kernel_find, IR_PHASE_BW, NULL);
        for (size_t b = 0; b < c->k.B; ++b) {
            take_row(&all, &one, b, "ipd");
            operands_run(&one, cpu_kernel_find, IR_PHASE_BW, NULL);
        }
        for (size_t i = 0; i < OPERAND_INDICES; ++i)
            same_bytes(c, 'g', i, operand_of(&all, 'g', i)->at, operand_of(&one, 'g', i)->at,
                       operand_bytes(operand_of(&all, 'g', i)));
        operands_done(&all);
        operands_done(&one);
    }
}

/* One row at a time through its expert, weight gradients summed on the way: the same as all at
 * once. */
static void expert_row_alone(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_op_cases; ++n) {
        const op_case *c = &op_cases[n];
        if (c->k.op != IR_EXPERTS || c->k.ep != 1)
            continue;
        op_case single = *c;
        operands all, one;
        size_t width = c->k.n_in * sizeof(float);
        single.k.n = 1;
        operands_init(&all, c, 19, 0);
        operands_init(&one, &single, 19, 0);
        take_row(&all, &one, 0, "p");
        for (size_t i = 0; i < OPERAND_INDICES; ++i)
            memcpy(operand_of(&one, 'g', i)->at, operand_of(&all, 'g', i)->at,
                   operand_bytes(operand_of(&one, 'g', i)));
        operands_run_all(&all, cpu_kernel_find, NULL);
        size_t row = 0;
        const int32_t *counts = operand_of(&all, 'i', 1)->ints;
        int32_t *own = operand_of(&one, 'i', 1)->ints;
        for (size_t e = 0; e < c->k.attrs.experts; ++e)
            for (int32_t r = 0; r < counts[e]; ++r, ++row) {
                memset(own, 0, c->k.attrs.experts * sizeof *own);
                own[e] = 1;
                memcpy(operand_of(&one, 'i', 0)->at,
                       (char *)operand_of(&all, 'i', 0)->at + row * width, width);
                memcpy(operand_of(&one, 'd', 0)->at,
                       (char *)operand_of(&all, 'd', 0)->at + row * width, width);
                operands_run_all(&one, cpu_kernel_find, NULL);
                for (const char *l = "ox"; *l != '\0'; ++l)
                    same_bytes(c, *l, 0, operand_of(&one, *l, 0)->at,
                               (char *)operand_of(&all, *l, 0)->at + row * width, width);
            }
        for (size_t i = 0; i < OPERAND_INDICES; ++i)
            same_bytes(c, 'g', i, operand_of(&all, 'g', i)->at, operand_of(&one, 'g', i)->at,
                       operand_bytes(operand_of(&all, 'g', i)));
        operands_done(&all);
        operands_done(&one);
    }
}

static void exponential(void **state)
{
    (void)state;
    for (float x = -86.9f; x < 87.9f; x += 0.00137f) {
        double want = exp((double)x);
        assert_true(fabs((double)cpu_exp(x) - want) <= 2e-7 * want);
    }
    assert_true(cpu_exp(0) == 1);
    assert_true(cpu_exp(-88) == 0 && cpu_exp(-1e30f) == 0 && cpu_exp(-INFINITY) == 0);
    assert_true(isinf(cpu_exp(89)) && isinf(cpu_exp(1e30f)) && isinf(cpu_exp(INFINITY)));
    assert_true(isnan(cpu_exp(NAN)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_again),       cmocka_unit_test(same_on_every_vector_width),
        cmocka_unit_test(row_alone),        cmocka_unit_test(weight_gradients_in_row_order),
        cmocka_unit_test(expert_row_alone), cmocka_unit_test(exponential),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
