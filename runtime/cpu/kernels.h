/* SPDX-License-Identifier: Apache-2.0
 *
 * kernels.h: what the kernel sources share. They are compiled several times, as
 *
 *   suffix    cpu_real  instructions         found by
 *   _base     float     the build's own      cpu_kernel_find, on any machine
 *   _avx2     float     -mavx2               cpu_kernel_find, where the machine has them
 *   _avx512   float     -mavx512f            the same
 *   _f64      double    the build's own      cpu_kernel_find_f64
 *
 * so every external name goes through CPU_FN. The float builds give equal bits: each sum has one
 * order, written out in the source (never left to the vectoriser), and products are never fused
 * into sums.
 */
#ifndef PPS_RUNTIME_CPU_KERNELS_H
#define PPS_RUNTIME_CPU_KERNELS_H

#include <math.h>
#include <string.h>

#include "runtime/cpu/cpu.h"

#ifdef CPU_REAL_DOUBLE
typedef double cpu_real;
#define CPU_SUFFIX _f64
#else
typedef float cpu_real;
#ifndef CPU_SUFFIX
#define CPU_SUFFIX _base
#endif
#endif

#define CPU_JOIN_(a, b) a##b
#define CPU_JOIN(a, b)  CPU_JOIN_(a, b)
#define CPU_FN(name)    CPU_JOIN(cpu_##name, CPU_SUFFIX)

/* The head of a kernel's definition or declaration. */
#define CPU_KERNEL(name)                                          \
    pps_status CPU_FN(name)(const plan_kernel *k, void *const *p, \
                            __attribute__((unused)) const cpu_context *cx)

/* Every kernel: op and phase as in ops.def. */
#define CPU_KERNEL_LIST(K)    \
    K(embed_f)                \
    K(embed_bw)               \
    K(position_f)             \
    K(position_bi)            \
    K(position_bw)            \
    K(linear_f)               \
    K(linear_bi)              \
    K(linear_bw)              \
    K(rmsnorm_f)              \
    K(rmsnorm_bi)             \
    K(rmsnorm_bw)             \
    K(layernorm_f)            \
    K(layernorm_bi)           \
    K(layernorm_bw)           \
    K(rope_f)                 \
    K(rope_bi)                \
    K(attention_f)            \
    K(attention_bi)           \
    K(attention_slice_f)      \
    K(attention_slice_bi)     \
    K(attention_part_f)       \
    K(attention_part_bi)      \
    K(attention_end_f)        \
    K(attention_end_bi)       \
    K(gelu_f)                 \
    K(gelu_bi)                \
    K(swiglu_f)               \
    K(swiglu_bi)              \
    K(add_f)                  \
    K(add_bi)                 \
    K(slice_f)                \
    K(slice_bi)               \
    K(router_f)               \
    K(router_bi)              \
    K(dispatch_f)             \
    K(dispatch_bi)            \
    K(experts_f)              \
    K(experts_bi)             \
    K(experts_bw)             \
    K(combine_f)              \
    K(combine_bi)             \
    K(cross_entropy_f)        \
    K(cross_entropy_bi)       \
    K(cross_entropy_part_f)   \
    K(cross_entropy_part_bi)  \
    K(cross_entropy_merge_f)  \
    K(cross_entropy_merge_bi) \
    K(mse_f)                  \
    K(mse_bi)                 \
    K(sum)

#define K(name) CPU_KERNEL(name);
CPU_KERNEL_LIST(K)
#undef K

/* cpu_table.c: the kernels of one build. */
typedef struct cpu_table {
    cpu_kernel_fn kernel[PLAN_KERNEL_COUNT][IR_PHASE_COUNT];
} cpu_table;
extern const cpu_table CPU_FN(table);

/* ---- cpu_gemm.c: matrix products, row major
 * ------------------------------------------------------ */
typedef enum cpu_form {
    CPU_NT,     /* c  = a b^T   a [m, k], b [n, k] */
    CPU_NN,     /* c  = a b     a [m, k], b [k, n] */
    CPU_NN_ADD, /* c += a b */
    CPU_TN_ADD, /* c += a^T b   a [k, m], b [k, n] */
} cpu_form;

/* c [m, n]; ldX is the distance of rows in elements. Each element of c adds its k products one
 * after the other, from k = 0, onto what it starts from: whatever m and n are, and however k is
 * divided into calls. `blas` (NULL: none) does the product its own way instead; only the float
 * builds use it. */
void CPU_FN(product)(const cpu_blas *blas, cpu_form form, size_t m, size_t n, size_t k,
                     const cpu_real *a, size_t lda, const cpu_real *b, size_t ldb, cpu_real *c,
                     size_t ldc);

/* Positions of the local microbatch. */
static inline size_t cpu_positions(const plan_kernel *k)
{
    return (size_t)k->B * k->T;
}

/* Ranks that share the kernel's op, and whether this is the one that does what is done once. */
static inline size_t cpu_sharers(const plan_kernel *k)
{
    return k->ep > 1 ? k->ep : 1;
}
static inline bool cpu_first(const plan_kernel *k, const cpu_context *cx)
{
    return k->ep <= 1 || cx->team_index == 0;
}

/* The place in its sequence of position t of the `n` consecutive ones that its rank and those that
 * share an op with it have. Ranks that share sequences hold two blocks of consecutive positions
 * each, of 2 parts in all: part i blocks i and 2 parts - 1 - i, so that each has as much to attend
 * to as any other (graph.h: ir_attrs.parts). */
static inline size_t cpu_place(const plan_kernel *k, const cpu_context *cx, size_t n, size_t t)
{
    if (k->attrs.parts < 2)
        return t;
    size_t block = n / 2;
    return t < block ? cx->part * block + t
                     : (2 * (size_t)k->attrs.parts - 1 - cx->part) * block + (t - block);
}

/* Copy `n` elements unless there is nowhere to (gradient not wanted) or it is the same place. */
static inline void cpu_copy(cpu_real *to, const cpu_real *from, size_t n)
{
    if (to != NULL && to != from)
        memcpy(to, from, n * sizeof(cpu_real));
}

#endif
