/* SPDX-License-Identifier: Apache-2.0
 *
 * op_case.h: small instances of every op, and buffers for all operands of one, bound by the operand
 * lists of ops.def. Compiles for float and, with CPU_REAL_DOUBLE, for double.
 */
#ifndef PPS_TESTS_CPU_OP_CASE_H
#define PPS_TESTS_CPU_OP_CASE_H

#include "runtime/cpu/kernels.h"

typedef struct op_case {
    const char *name;
    plan_kernel k;
    bool no_bias;        /* LINEAR without p1 */
    uint32_t team_index; /* which rank of k.ep */
    uint32_t part;       /* which of k.attrs.parts */
} op_case;

extern const op_case op_cases[];
extern const size_t n_op_cases;

enum { OPERAND_LETTERS = 11, OPERAND_INDICES = 5 };

typedef struct operand {
    size_t n; /* elements; 0: no such operand */
    bool is_int;
    union {
        void *at;
        cpu_real *real;
        int32_t *ints;
        double *loss;
    };
} operand;

typedef struct operands {
    const op_case *c;
    operand all[OPERAND_LETTERS][OPERAND_INDICES];
} operands;

/* Allocates every operand exactly; fills inputs, parameters, output gradients and the begin values
 * of parameter gradients from `seed`, and the rest with bytes `poison`. */
void operands_init(operands *a, const op_case *c, uint32_t seed, int poison);
void operands_done(operands *a);
operand *operand_of(operands *a, char letter, size_t index);
size_t operand_bytes(const operand *o);

/* ops.def's list, "" where there is no kernel; and whether it names an operand. */
const char *operand_list(uint32_t op, uint32_t phase);
bool list_names(const char *list, char letter, size_t index);

typedef cpu_kernel_fn (*find_fn)(uint32_t op, uint32_t phase);
/* One phase, or all that have a kernel. Fails the test on any status but PPS_OK. */
void operands_run(operands *a, find_fn find, uint32_t phase, const cpu_blas *blas);
void operands_run_all(operands *a, find_fn find, const cpu_blas *blas);

/* Uniform in [-1, 1), the next of a sequence. */
double next_random(uint32_t *state);

#endif
