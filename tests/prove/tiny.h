/* SPDX-License-Identifier: Apache-2.0
 *
 * tiny.h: plans small enough to try every way in which they can run. One rank per plan, at most 3
 * ranks of 8 steps on 3 streams; steps compute or communicate and touch no memory.
 */
#ifndef PPS_TEST_TINY_H
#define PPS_TEST_TINY_H

#include "passes/pps_plan.h"

enum { TINY_RANKS = 3, TINY_STEPS = 8, TINY_STREAMS = 3 };

typedef enum tiny_kind { TINY_COMPUTE, TINY_SEND, TINY_RECV, TINY_COLLECTIVE } tiny_kind;

typedef struct tiny_step {
    uint8_t kind, stream;
    uint8_t seq;   /* communication: from 1; a collective's members are the ranks that have it */
    uint8_t peer;  /* SEND, RECV */
    uint8_t waits; /* bit per earlier step of another stream */
} tiny_step;

typedef struct tiny {
    uint32_t n_ranks;
    uint32_t n_steps[TINY_RANKS];
    tiny_step steps[TINY_RANKS][TINY_STEPS];
} tiny;

typedef struct random_source {
    uint64_t state;
} random_source;
uint32_t random_below(random_source *r, uint32_t n);
/* `--all` and `--seed N`, which are as PPS_TEST_ALL non-empty and PPS_TEST_SEED; false: others. */
bool test_options(int argc, char **argv);
uint64_t random_seed(void); /* printed by the tests that draw from it */
bool run_everything(void);

void tiny_add(tiny *t, uint32_t rank, tiny_step step);
void tiny_print(const tiny *t);
/* A random plan: transfers and collectives of 1 to `n_comm`, some of them crossed, on other streams
 * or waiting for each other. */
void tiny_random(tiny *t, random_source *r, uint32_t n_comm);

/* tiny_plan.c: what pps_prove says: the error's code, 0 when it accepts. */
typedef struct tiny_prover tiny_prover;
tiny_prover *tiny_prover_new(void);
void tiny_prover_free(tiny_prover *p);
int tiny_prove(tiny_prover *p, const tiny *t, bool buffered);
const char *tiny_said(const tiny_prover *p); /* the message of the last error */

/* brute.c: run it in every way. */
typedef struct brute_result {
    bool blocks;     /* some run stops before all steps are over, or mixes two transfers up */
    bool completes;  /* some run does not */
    uint32_t states; /* how many there are */
} brute_result;
typedef struct brute brute;
brute *brute_new(void);
void brute_free(brute *b);
brute_result brute_run(brute *b, const tiny *t, bool buffered);

#endif
