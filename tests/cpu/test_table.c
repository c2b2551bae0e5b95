/* SPDX-License-Identifier: Apache-2.0
 *
 * A kernel for every pass of every op that has operands, and for no other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "runtime/cpu/cpu.h"

static const struct {
    const char *name;
    const char *list[IR_PHASE_COUNT];
} ops[IR_OP_COUNT] = {
#define OP(NAME, text, f, bi, bw) [IR_##NAME] = {text, {f, bi, bw}},
#include "ir/ops.def"
#undef OP
};

static void walk(cpu_kernel_fn (*find)(uint32_t op, uint32_t phase))
{
    for (uint32_t op = 0; op < IR_OP_COUNT; ++op)
        for (uint32_t phase = 0; phase < IR_PHASE_COUNT; ++phase) {
            bool want = ops[op].list[phase][0] != '\0', has = find(op, phase) != NULL;
            if (want != has)
                fail_msg("%s, phase %u: %s", ops[op].name, phase,
                         want ? "no kernel" : "a kernel without operands");
        }
    assert_non_null(find(PLAN_KERNEL_SUM, IR_PHASE_F));
    assert_null(find(PLAN_KERNEL_SUM, IR_PHASE_BI));
    assert_null(find(IR_OPAQUE, IR_PHASE_F));
    assert_null(find(PLAN_KERNEL_COUNT, IR_PHASE_F));
    assert_null(find(IR_LINEAR, IR_PHASE_COUNT));
}

static void float_kernels(void **state)
{
    (void)state;
    walk(cpu_kernel_find);
}

static void double_kernels(void **state)
{
    (void)state;
    walk(cpu_kernel_find_f64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float_kernels),
        cmocka_unit_test(double_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
