/* SPDX-License-Identifier: Apache-2.0
 *
 * keep_case.h: scripts of a small model on a pipeline of four ranks, with and without directives
 * about what forward passes keep.
 */
#ifndef PPS_TEST_KEEP_CASE_H
#define PPS_TEST_KEEP_CASE_H

#include "../zero/zero_case.h"

typedef struct keep_case {
    const char *schedule; /* "gpipe", "1f1b", "interleaved", "zerobubble", "dualpipev" */
    bool experts;         /* a Mixture of Experts instead of a Llama */
    bool shared;          /* its experts shared out over the replicas */
    const char *clauses;  /* of replicate, over two replicas; NULL: one */
    const char *keep;     /* directives about what is kept, "" for none */
} keep_case;

void keep_open(compiled *c, const keep_case *k); /* fails the test when refused */

#endif
