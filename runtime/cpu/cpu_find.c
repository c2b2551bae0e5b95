/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_find.c: chooses among the float builds of the kernels by what the processor has. They give
 * equal bits, so the choice is about speed alone. CPU_WIDE: the build has the AVX ones.
 */
#include "runtime/cpu/kernels.h"

#ifdef CPU_WIDE
extern const cpu_table cpu_table_avx2, cpu_table_avx512;
#endif

static const cpu_table *choose(void)
{
#ifdef CPU_WIDE
    if (__builtin_cpu_supports("avx512f"))
        return &cpu_table_avx512;
    if (__builtin_cpu_supports("avx2"))
        return &cpu_table_avx2;
#endif
    return &cpu_table_base;
}

cpu_kernel_fn cpu_kernel_find(uint32_t op, uint32_t phase)
{
    if (op >= PLAN_KERNEL_COUNT || phase >= IR_PHASE_COUNT)
        return NULL;
    return choose()->kernel[op][phase];
}
