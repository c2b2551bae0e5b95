/* SPDX-License-Identifier: Apache-2.0
 *
 * machine.h: how long work takes on some machine, from FLOPs and bytes. Only ratios matter to the
 * passes that order work; a measured profile replaces the defaults.
 */
#ifndef PPS_PASSES_MACHINE_H
#define PPS_PASSES_MACHINE_H

#include "passes/pass.h"

/* Defaults: one GPU of a recent server (bf16 products at 40 % of 1e15 FLOP/s) and its links. */
extern const pass_machine machine_default;

/* Finds each chunk's measured costs, where there are any: E0526 for chunks without, or costs
 * without a chunk. Once, before the others; they are kept in cx->measured. */
pps_status machine_open(pass_cx *cx);
/* Seconds of one microbatch of `chunk` in `phase` on one rank. */
double machine_compute(const pass_cx *cx, uint32_t chunk, ir_phase phase);
/* Seconds of a communication run for one microbatch (expert rows: as many as there are tokens). */
double machine_hop(const pass_cx *cx, const dag_run *r);

#endif
