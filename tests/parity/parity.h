/* SPDX-License-Identifier: Apache-2.0
 *
 * parity.h: the units of the suite. Each is one name for --only, and reports several checks.
 */
#ifndef PPS_TESTS_PARITY_PARITY_H
#define PPS_TESTS_PARITY_PARITY_H

#include "cells.h"
#include "report.h"
#include "run.h"

enum { MATRIX_CACHE = 96 };

/* A run that others are compared with. */
typedef struct matrix_reference {
    char name[CELL_NAME + 16];
    bool ok;
    reason why; /* it failed */
    training tr;
    tensor_file params, gradients;
} matrix_reference;

typedef struct suite {
    tool tool;
    report report;
    const char *oracles; /* folder */
    matrix_reference cache[MATRIX_CACHE];
    uint32_t n_cached;
} suite;

/* matrix.c: a cell against one rank without directives, and against the same cell in other ways */
void matrix_run(suite *s, const cell *c);
void matrix_done(suite *s);

/* routing.c: rows that leave their rank, counted here from a router's weights */
typedef struct routing_unit {
    const char *name;
    uint32_t copies, size; /* ranks; ranks that share the experts */
    bool across;           /* these are not neighbours: 0 and 2, 1 and 3 */
    double capacity;       /* 0: none */
} routing_unit;
void routing_run(suite *s, const routing_unit *u);

/* memory.c: planned bytes against measured ones, without experts */
void memory_run(suite *s, const char *unit);

/* oracle.c: what other programs computed */
enum { ORACLE_UNITS = 7 };
const char *oracle_name(uint32_t i);
void oracle_run(suite *s, uint32_t i);

#endif
