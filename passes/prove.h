/* SPDX-License-Identifier: Apache-2.0
 *
 * prove.h: shared by the proof's files.
 */
#ifndef PPS_PASSES_PROVE_H
#define PPS_PASSES_PROVE_H

#include "passes/pass.h"

/* prove_copies.c: what is copied to host memory comes back whole, where it belongs. bound[i]: block
 * that binding `i` of the plan is, of host_blocks if it is a host binding. E0518, E0520, E0521. */
pps_status prove_copies(pps_state *st, const plan_set *set, const plan *p, const uint32_t *bound,
                        arena *mem);

#endif
