/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.h: placing the buffers of one plan, shared by memory.c and the searches it may try.
 */
#ifndef PPS_PASSES_MEMORY_H
#define PPS_PASSES_MEMORY_H

#include "passes/pass.h"

/* A buffer's bytes are its own from step `first` up to, not including, step `end`: every step from
 * there on that begins a buffer knows that all accesses are over. Buffers whose spans do not
 * overlap may share bytes. */
typedef struct memory_span {
    uint32_t first, end;
    uint32_t units; /* PLAN_ALIGN bytes each */
    uint8_t what, slack;
} memory_span;

typedef struct memory_problem {
    arena *mem;
    const memory_span *spans; /* by `first` */
    uint32_t n, n_steps;
    uint64_t goal;         /* bytes that are few enough */
    const uint32_t *fixed; /* [n] offsets that are given, IR_NONE: to be found; or NULL */
    uint32_t ring;         /* 0, or spans of a period: all comes again after n_steps, for ever */
} memory_problem;

/* Each writes offset[i] of span i, in units, and *ret_bytes, what they need: UINT64_MAX when the
 * search was given up. */
pps_status memory_best_fit(const memory_problem *p, uint32_t *offset, uint64_t *ret_bytes);

enum { MEMORY_ORDERS = 4 }; /* memory_largest_first's */
/* Largest first, each at the lowest offset free over its whole span. Odd `how`: time reversed; from
 * 2 on, size counts times the span. The only one that keeps to `fixed` and to `ring`: a span of a
 * ring lasts at most n_steps, and may end after them. */
pps_status memory_largest_first(const memory_problem *p, int how, uint32_t *offset,
                                uint64_t *ret_bytes);
/* For few spans: orders of single spans, improved by moving forward what ends too high. */
pps_status memory_climb(const memory_problem *p, uint32_t *offset, uint64_t *ret_bytes);

/* memory_period.c: the same for spans most of which repeat, in time that does not grow with how
 * often they do. UINT64_MAX also when they do not repeat often enough for that. */
pps_status memory_repeat(const memory_problem *p, uint32_t *offset, uint64_t *ret_bytes);

/* Bytes up to the end of span `s` at `offset`. */
static inline uint64_t memory_end(const memory_span *s, uint32_t offset)
{
    return ((uint64_t)offset + s->units) * PLAN_ALIGN - s->slack;
}

#endif
