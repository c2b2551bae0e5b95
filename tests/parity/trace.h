/* SPDX-License-Identifier: Apache-2.0
 *
 * trace.h: what the ranks really did, from the merged trace of a run.
 */
#ifndef PPS_TESTS_PARITY_TRACE_H
#define PPS_TESTS_PARITY_TRACE_H

#include <jansson.h>

#include "report.h"

typedef struct trace_event {
    uint32_t rank;
    double begin_us;
    const char *kind, *pass; /* "compute", "F"; pass "" when it has none */
    const char *label;       /* "F PP0.EP0:3", "all_to_all back B PP0:3" */
    int64_t stage, mb, pair; /* -1: none */
    uint64_t bytes;          /* that left the rank */
} trace_event;

typedef struct trace {
    json_t *root;
    trace_event *events; /* by rank, then begin; texts belong to root */
    uint32_t n;
} trace;

/* Owned: trace_done. */
bool trace_read(const char *path, trace *ret, reason *why);
void trace_done(trace *t);

uint64_t trace_sent(const trace *t, uint32_t rank, const char *kind);

/* The computes of `rank` are those of `row` ("F0:0 F0:1|B1:0 ..."), in its order: each op is
 * `chunks` computes, forwards through the stage, backwards the other way round; ops joined by `|`
 * may mix, and only they. A stage ends behind its last experts, without a parameter there and so
 * without a BW, but for stage `last`, which ends with the loss. */
bool trace_follows(const trace *t, uint32_t rank, const char *row, uint32_t chunks, uint32_t last,
                   reason *why);

#endif
