/* SPDX-License-Identifier: Apache-2.0
 *
 * view.h: schedules as pictures. One timeline form serves simulated and real runs: rows are ranks,
 * spans are steps with a begin and an end in any unit.
 */
#ifndef PPS_RUNTIME_VIEW_H
#define PPS_RUNTIME_VIEW_H

#include "ir/plan.h"

typedef struct view_span {
    uint32_t rank, lane; /* lane: stream */
    double begin, end;
    uint8_t kind; /* plan_step_kind */
    uint8_t pass; /* pps_pass */
    uint32_t stage, mb;
    uint32_t slice;    /* of the microbatch, + 1; 0: all of it */
    uint32_t pair;     /* overlapped group's number on its rank, or IR_NONE */
    uint8_t upper;     /* its stage's position among its rank's, from 0: drawn as so many primes */
    const char *label; /* borrowed */
    const char *place; /* "quickstart.pps:12", borrowed, may be NULL */
    uint64_t bytes;    /* communication */
} view_span;

typedef struct view_timeline {
    const char *title, *unit; /* "unit costs", "ns" */
    uint32_t n_ranks, n_lanes;
    const char *const *lanes;      /* stream names */
    const char *const *rank_names; /* "rank 0 (0,3)" */
    view_span *spans;              /* by rank, then begin */
    uint32_t n_spans;
    double makespan, bubble;
    const double *peak;   /* [n_ranks] most live activations, in rank shares; NULL: not known */
    const char *settings; /* "F=1 BI=1 BW=1, makespan, pairs atomic, ..." */
} view_timeline;

/* Rows' compute ops with unit costs per rank share (F = BI = BW = 1/v, B = 2/v), pairs atomic: the
 * grid `pps view` shows. Spans are per op, on lane 0; ops of a pair have the pair's interval. A row
 * is a rank. Owned by the caller; release with view_timeline_free. `p` may go before it. Errors:
 * those of cost_simulate_rows (rows that deadlock, ...), reported; PPS_ERR_NOMEM. */
pps_status view_from_rows(const ir_program *p, view_timeline **ret);
void view_timeline_free(view_timeline *t);

/* Terminal grid of lane 0's computes, a row a rank, a column a slot of its row (time does not
 * show):
 *
 *   rank 0 (0,3)  F0 F1  F2 F0' I0' W0' F1'    F3+B1' F2'+B0 B2' F3'+B1 B3' I2 W2  I3 W3
 *   rank 1 (1,2)  F0 F0' F1 F1' F2  B0' F2'+B0 F3+B1' F3'+B1 B2' B2     I3' I3 W3' W3
 *   bubble 7.7 %   makespan 13   peak live activations 2.5, 2.5     (settings)
 *
 * I and W are BI and BW; numbers are microbatches, F1.2 is slice 2 of microbatch 1; primes mark the
 * rank's later stages. `color`:
 * ANSI colours (F blue, B green, BI cyan, BW yellow; overlapped pairs bold). Wraps nothing;
 * `columns` 0 = unlimited, else rows are cut with "..." at that width (the last line never is). */
void view_grid(const view_timeline *t, bool color, uint32_t columns, ir_print_fn print, void *ud);
/* The schedule as SVG: rows are ranks, boxes ops coloured by pass and shaded by stage, overlapped
 * pairs bold-framed, bubbles white, legend, time axis, title with bubble and settings. */
void view_svg(const view_timeline *t, ir_print_fn print, void *ud);
/* Chrome/Perfetto trace JSON: process = rank, thread = stream; args hold stage, microbatch, place,
 * bytes. Times are written in microseconds from `unit_ns` per timeline unit. */
void view_perfetto(const view_timeline *t, double unit_ns, ir_print_fn print, void *ud);

#endif
