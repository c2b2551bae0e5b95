/* SPDX-License-Identifier: Apache-2.0
 *
 * cells.h: the matrix: a tiny Qwen3-MoE under every schedule, pipeline depth and kind of
 * replication, and the script of each cell.
 */
#ifndef PPS_TESTS_PARITY_CELLS_H
#define PPS_TESTS_PARITY_CELLS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum cell_schedule {
    CELL_GPIPE,
    CELL_ONE_F_ONE_B,
    CELL_INTERLEAVED,
    CELL_ZEROBUBBLE,
    CELL_DUALPIPEV,
    CELL_SCHEDULES
} cell_schedule;

typedef struct cell {
    cell_schedule schedule;
    uint32_t ranks;    /* pipeline ranks */
    uint32_t replicas; /* of each */
    bool experts;      /* sharded over the replicas */
    uint32_t mbs;
    bool aux;      /* with an auxiliary loss */
    uint32_t team; /* with `experts`: over so many replicas each; 0: all */
    bool across;   /* these are not neighbours: replicas 0 and 2, 1 and 3 */
    uint32_t zero;
    double capacity; /* of the experts; 0: none */
} cell;

/* The model's sizes. Every parameter is a multiple of 64 bytes, so that buckets have no gaps. */
enum {
    CELL_LAYERS_PER_RANK = 2,
    CELL_T = 16,
    CELL_DIM = 16,
    CELL_EXPERTS = 4,
    CELL_TOP_K = 2,
    CELL_MAX = 512,
    CELL_NAME = 64,
};

/* All cells, in a fixed order; the number. */
uint32_t cells_all(cell cells[CELL_MAX]);
const char *cell_name(const cell *c, char name[CELL_NAME]); /* "dualpipev-pp2-dp2ep-m4-aux" */
uint32_t cell_layers(const cell *c);
uint32_t cell_stages(const cell *c);
uint32_t cell_batch(const cell *c); /* global batch rows */
/* What a sample takes one of, per schedule that has some. */
enum { CELL_KINDS = 5 };
uint32_t cell_kind(const cell *c);
/* Replicas that share the experts; 1: none do. */
uint32_t cell_sharers(const cell *c);
/* The replica of place `index` in the team of replica `d`. */
uint32_t cell_mate(const cell *c, uint32_t d, uint32_t index);
/* The pipeline rank that holds stage `s`; replica d of it is world rank d * ranks + that. */
uint32_t cell_rank_of(const cell *c, uint32_t s);
/* "dualpipev(2, 4)" */
const char *cell_builder(const cell *c, char text[CELL_NAME]);
/* The script; `alone`: the same model and batch on one rank, without directives. */
void cell_write(const cell *c, const char *optimizer, bool alone, FILE *file);

#endif
