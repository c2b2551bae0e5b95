/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu.h: kernels on the host. Two sets with one calling convention: plain C (the oracle: a row's
 * result does not depend on how many rows there are, and no result on anything but its operands),
 * and the same with matrix products by OpenBLAS.
 *
 * The plain set compiles for float (cpu_real = float) and, for finite-difference checks, double.
 */
#ifndef PPS_RUNTIME_CPU_H
#define PPS_RUNTIME_CPU_H

#include "ir/plan.h"

typedef struct cpu_context {
    uint32_t team_index; /* in the kernel's teams: which share of an op with ep > 1 is its own */
    uint32_t part;       /* of every sequence, where attrs.parts > 1 */
    const struct cpu_blas *blas; /* NULL: plain products */
    uint32_t slice; /* of the microbatch's sequences: its first position is slice * k->T */
    uint64_t *dropped;           /* ROUTER in F adds the choices that it dropped, or NULL */
} cpu_context;

/* Run one kernel. `p[i]` is the address of operand i of ops.def's list (NULL when absent); outputs
 * do not overlap inputs except where ops.def says so. An xN nobody wants may be NULL too. Router
 * counts and routes are int32. Loss operands are double. Errors: PPS_ERR_LIMIT (expert rows exceed
 * k->n), PPS_ERR_ARG (a token id or target outside the vocabulary, a negative count). On error
 * outputs are undefined. */
typedef pps_status (*cpu_kernel_fn)(const plan_kernel *k, void *const *p, const cpu_context *cx);

/* Kernel of (op, phase), or NULL where ops.def has an empty string. PLAN_KERNEL_SUM uses phase F.
 */
cpu_kernel_fn cpu_kernel_find(uint32_t op, uint32_t phase);
cpu_kernel_fn cpu_kernel_find_f64(uint32_t op, uint32_t phase); /* float operands are double */

/* ---- cpu_blas.c: OpenBLAS, serial build, opened at run time
 * -------------------------------------- */
typedef struct cpu_blas {
    void *library;
    void (*sgemm)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                  const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);
    char core[64]; /* as openblas_get_corename says */
} cpu_blas;
/* Sets OPENBLAS_CORETYPE from CPUID unless the user set it, then dlopens the serial library. Call
 * before threads exist. On failure `reason` says why and nothing is left open; callers use plain
 * kernels. */
pps_status cpu_blas_open(cpu_blas *ret, char reason[256]);
void cpu_blas_close(cpu_blas *blas);

/* ---- optimizer.c
 * --------------------------------------------------------------------------------- */
/* One parameter segment, in place. `step` counts from 1. State: adamw m then v [elems each]; sgd
 * with momentum one [elems]; plain sgd none. `decay` says whether weight decay applies to this
 * segment. */
void cpu_update(const ir_optimizer *opt, bool decay, uint64_t step, uint64_t elems, float *param,
                const float *grad, float *state_m, float *state_v);
uint32_t cpu_optimizer_states(const ir_optimizer *opt); /* floats of state per element: 0, 1 or 2 */

#endif
