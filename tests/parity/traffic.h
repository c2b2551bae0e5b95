/* SPDX-License-Identifier: Apache-2.0
 *
 * traffic.h: whether what ranks sent is what they had to: by the plan, by the trace, and by what
 * follows from the cell alone.
 */
#ifndef PPS_TESTS_PARITY_TRAFFIC_H
#define PPS_TESTS_PARITY_TRAFFIC_H

#include "cells.h"
#include "run.h"
#include "trace.h"

/* Per rank and kind: the run's own sums (the last line of its log), those over its trace, those of
 * the plan (`pps plan --format json`), and those computed here from stages, rows and the
 * parameters' sizes are the same. All-to-alls only have a bound in the plan. */
bool traffic_as_planned(const cell *c, const training *tr, const trace *t, const json_t *plan,
                        const tensor_file *params, reason *why);

/* Every all-to-all of every expert layer and microbatch is there, is a whole number of rows, and
 * the four of a layer agree: rows come back from where they went to, and gradients take the same
 * ways. */
bool traffic_of_experts(const cell *c, const trace *t, reason *why);

#endif
