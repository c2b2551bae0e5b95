/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_table.c: which kernel runs an op in a phase, for one build of the kernels. An empty slot is a
 * pass with an empty operand list in ops.def. OPAQUE has none: its work is a host's.
 */
#include "runtime/cpu/kernels.h"

#define F  IR_PHASE_F
#define BI IR_PHASE_BI
#define BW IR_PHASE_BW

const cpu_table CPU_FN(table) = {{
    [IR_EMBED] = {[F] = CPU_FN(embed_f), [BW] = CPU_FN(embed_bw)},
    [IR_POSITION] = {CPU_FN(position_f), CPU_FN(position_bi), CPU_FN(position_bw)},
    [IR_LINEAR] = {CPU_FN(linear_f), CPU_FN(linear_bi), CPU_FN(linear_bw)},
    [IR_RMSNORM] = {CPU_FN(rmsnorm_f), CPU_FN(rmsnorm_bi), CPU_FN(rmsnorm_bw)},
    [IR_LAYERNORM] = {CPU_FN(layernorm_f), CPU_FN(layernorm_bi), CPU_FN(layernorm_bw)},
    [IR_ROPE] = {[F] = CPU_FN(rope_f), [BI] = CPU_FN(rope_bi)},
    [IR_ATTENTION] = {[F] = CPU_FN(attention_f), [BI] = CPU_FN(attention_bi)},
    [IR_ATTENTION_SLICE] = {[F] = CPU_FN(attention_slice_f), [BI] = CPU_FN(attention_slice_bi)},
    [IR_ATTENTION_PART] = {[F] = CPU_FN(attention_part_f), [BI] = CPU_FN(attention_part_bi)},
    [IR_ATTENTION_END] = {[F] = CPU_FN(attention_end_f), [BI] = CPU_FN(attention_end_bi)},
    [IR_GELU] = {[F] = CPU_FN(gelu_f), [BI] = CPU_FN(gelu_bi)},
    [IR_SWIGLU] = {[F] = CPU_FN(swiglu_f), [BI] = CPU_FN(swiglu_bi)},
    [IR_ADD] = {[F] = CPU_FN(add_f), [BI] = CPU_FN(add_bi)},
    [IR_SLICE] = {[F] = CPU_FN(slice_f), [BI] = CPU_FN(slice_bi)},
    [IR_ROUTER] = {[F] = CPU_FN(router_f), [BI] = CPU_FN(router_bi)},
    [IR_DISPATCH] = {[F] = CPU_FN(dispatch_f), [BI] = CPU_FN(dispatch_bi)},
    [IR_EXPERTS] = {CPU_FN(experts_f), CPU_FN(experts_bi), CPU_FN(experts_bw)},
    [IR_COMBINE] = {[F] = CPU_FN(combine_f), [BI] = CPU_FN(combine_bi)},
    [IR_CROSS_ENTROPY] = {[F] = CPU_FN(cross_entropy_f), [BI] = CPU_FN(cross_entropy_bi)},
    [IR_CROSS_ENTROPY_PART] =
        {[F] = CPU_FN(cross_entropy_part_f), [BI] = CPU_FN(cross_entropy_part_bi)},
    [IR_CROSS_ENTROPY_MERGE] =
        {[F] = CPU_FN(cross_entropy_merge_f), [BI] = CPU_FN(cross_entropy_merge_bi)},
    [IR_MSE] = {[F] = CPU_FN(mse_f), [BI] = CPU_FN(mse_bi)},
    [PLAN_KERNEL_SUM] = {[F] = CPU_FN(sum)},
}};

#ifdef CPU_REAL_DOUBLE
cpu_kernel_fn cpu_kernel_find_f64(uint32_t op, uint32_t phase)
{
    if (op >= PLAN_KERNEL_COUNT || phase >= IR_PHASE_COUNT)
        return NULL;
    return cpu_table_f64.kernel[op][phase];
}
#endif
