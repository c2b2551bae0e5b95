/* SPDX-License-Identifier: Apache-2.0
 *
 * parity.h: the units of the suite. Each is one name for --only, and reports several checks.
 */
#ifndef PPS_TESTS_PARITY_PARITY_H
#define PPS_TESTS_PARITY_PARITY_H

#include "cells.h"
#include "checks.h"

/* matrix.c: a cell against one rank without directives, and against the same cell in other ways */
void matrix_run(suite *s, const cell *c);

/* strategies.c: the scripts of strategies/, each under every combination of the values that it
 * names; strategies/README.md says how one is written */
enum { STRATEGY_PARAMETERS = 8 };
typedef struct strategy_unit {
    char *name;   /* "skip-schedule=dualpipev-dp=2" */
    char *script; /* absolute */
    char *truth;  /* a name for its run on one rank, which other units may share */
    char *words[2 * STRATEGY_PARAMETERS + 1]; /* "-D", "dp=2", ..., NULL */
    bool sampled;                             /* one of those without --all */
} strategy_unit;
/* Owned: strategies_free. False: `why`. */
bool strategies_read(const char *folder, uint64_t seed, strategy_unit **ret, uint32_t *ret_n,
                     reason *why);
void strategies_free(strategy_unit *units, uint32_t n);
/* strategy_run.c */
void strategy_run(suite *s, const strategy_unit *u);

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
enum { ORACLE_UNITS = 12 };
const char *oracle_name(uint32_t i);
void oracle_run(suite *s, uint32_t i);

#endif
