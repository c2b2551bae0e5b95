/* SPDX-License-Identifier: Apache-2.0
 *
 * report.h: what the program prints: diagnostics, JSON, numbers with units, progress.
 */
#ifndef PPS_CLI_REPORT_H
#define PPS_CLI_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "ir/plan.h"
#include "lang/pps.h"

typedef struct reporter { /* pps_config.diag_ud */
    pps_state *st;        /* for places; NULL while there is none */
    bool json;            /* a line per message instead of text */
    uint32_t n_errors;
} reporter;

/* Whether `file` may be coloured: a terminal that is not dumb, and no NO_COLOR. */
bool report_color(FILE *file);

/* pps_config.diag and pps_config.print: stderr and stdout. */
void report_diag(void *ud, pps_severity severity, int code, pps_span span, const char *text);
void report_print(void *ud, const char *text, size_t n);
/* An ir_print_fn onto the FILE `ud`. */
void report_to_file(void *ud, const char *text, size_t n);

/* The exit status for `status`; says something on stderr if no diagnostic did. */
int report_exit(const reporter *r, pps_status status);

/* "1.5 MiB"; `buffer` has 32 bytes and is returned. */
const char *report_bytes(uint64_t bytes, char buffer[32]);
/* "1 h 02 min", "3 min 20 s", "12 s" */
const char *report_duration(double seconds, char buffer[32]);

json_t *report_number(double x); /* null unless finite */
/* What the figures beside it assume: {"bubble": "makespan", ...}. New reference. */
json_t *report_settings(void);
const char *report_settings_text(void);
/* One JSON value and a newline on stdout, 9 significant digits; consumes `value`. False: write
 * error. */
bool report_json(json_t *value, bool indent);

/* ---- The progress of a run
 * ------------------------------------------------------------------------ */
typedef struct progress {
    bool json, terminal;
    uint64_t steps;
    double begin_s, drawn_s; /* monotonic */
    uint64_t tokens_per_step;
    uint64_t choices, dropped; /* of a step: of experts that have a capacity; beyond it */
    double first_loss, last_loss, first_sum,
        last_sum; /* sums over the first and the last 10 steps */
    double recent[10];
    uint64_t n;
    bool open_line;
} progress;
void progress_begin(progress *p, bool json, uint64_t steps, uint64_t tokens_per_step);
/* `step` from 1. Where there are choices says how many were dropped. */
void progress_step(progress *p, uint64_t step, double loss, double aux_loss, double ms);
void progress_end(progress *p);
/* Mean losses of the first and last up to 10 steps. */
void progress_means(const progress *p, double *ret_first, double *ret_last);

#endif
