/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels with OpenBLAS against plain ones, op by op. Both add the same float32 products, in
 * different orders: they agree to a few units in the last place of the largest element.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/cpu/op_case.h"

static void agree(const op_case *c, char letter, size_t index, const operand *plain,
                  const operand *fast)
{
    double greatest = 0;
    for (size_t i = 0; i < plain->n; ++i)
        greatest = fmax(greatest, fabs((double)plain->real[i]));
    for (size_t i = 0; i < plain->n; ++i) {
        double apart = fabs((double)plain->real[i] - (double)fast->real[i]);
        if (!(apart <= 1e-6 * (1 + greatest)))
            fail_msg("%s: %c%zu[%zu] is %.9g, plain %.9g", c->name, letter, index, i,
                     (double)fast->real[i], (double)plain->real[i]);
    }
}

static void op_by_op(const op_case *c, const cpu_blas *blas)
{
    operands plain, fast;
    operands_init(&plain, c, 23, 0);
    operands_init(&fast, c, 23, 0);
    operands_run_all(&plain, cpu_kernel_find, NULL);
    operands_run_all(&fast, cpu_kernel_find, blas);
    for (const char *l = "osxgh"; *l != '\0'; ++l)
        for (size_t i = 0; i < OPERAND_INDICES; ++i)
            if (!operand_of(&plain, *l, i)->is_int)
                agree(c, *l, i, operand_of(&plain, *l, i), operand_of(&fast, *l, i));
    operands_done(&plain);
    operands_done(&fast);
}

static void every_op(void **state)
{
    static const op_case large = {"linear, large",
                                  {.op = IR_LINEAR, .B = 4, .T = 33, .n_in = 300, .n_out = 200}};
    for (size_t n = 0; n < n_op_cases; ++n)
        op_by_op(&op_cases[n], *state);
    op_by_op(&large, *state);
}

static void closing_nothing(void **state)
{
    (void)state;
    cpu_blas none = {0};
    cpu_blas_close(NULL);
    cpu_blas_close(&none);
}

int main(void)
{
    cpu_blas blas;
    char reason[256] = "";
    if (cpu_blas_open(&blas, reason) != PPS_OK) {
        print_message("skipped: no OpenBLAS: %s\n", reason);
        return 77;
    }
    print_message("OpenBLAS, core %s\n", blas.core);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(every_op, &blas),
        cmocka_unit_test(closing_nothing),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cpu_blas_close(&blas);
    return failed;
}
