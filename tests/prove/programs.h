/* SPDX-License-Identifier: Apache-2.0
 *
 * programs.h: random programs in the directive language: a small model, stages on a few device
 * groups, replicas, shared experts, microbatches, and an order that is valid by construction.
 */
#ifndef PPS_TEST_PROGRAMS_H
#define PPS_TEST_PROGRAMS_H

#include "tiny.h"

typedef struct program {
    char text[32768];
    char alone[1024]; /* the same model and training on one rank, nothing split */
    uint32_t n_ranks;
    uint32_t streams;     /* physical ones, as in pass_options */
    uint32_t n_overlaps;  /* overlapped groups in its rows */
    uint32_t n_transfers; /* sends and receives named in them */
    bool by_mb;           /* a stage lies on several groups */
    const char *order;    /* what kind of order it has */
} program;

/* With `swaps` it has rows in which so many pairs of ops have changed places. */
void program_random(program *p, random_source *r, uint32_t swaps);

#endif
