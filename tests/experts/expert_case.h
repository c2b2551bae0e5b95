/* SPDX-License-Identifier: Apache-2.0
 *
 * expert_case.h: a small Mixture-of-Experts transformer on one or two pipeline ranks of any number
 * of replicas, its experts in teams of replicas, with or without a capacity; and what one rank
 * makes of the same model.
 */
#ifndef PPS_TEST_EXPERT_CASE_H
#define PPS_TEST_EXPERT_CASE_H

#include "tests/zero/zero_case.h"

enum { EXPERT_LAYERS = 4, EXPERT_MB = 4, EXPERT_BATCH = 16, EXPERT_T = 8, EXPERTS = 4, TOP_K = 2 };

typedef struct expert_case {
    const char
        *schedule; /* "alone": one rank; "one", "1f1b", "dualpipev": replicas of 1 or 2 ranks */
    uint32_t replicas;
    const char *teams;    /* of replicas: "[[0, 1], [2, 3]]"; NULL: experts are not shared out */
    const char *clauses;  /* of replicate */
    const char *capacity; /* of shard, NULL: none; alone too */
    const char *aux;      /* aux_loss */
} expert_case;

void expert_script(const expert_case *e, char *script, size_t n);
void expert_open(compiled *c, const expert_case *e); /* fails the test when refused */

/* Losses within 1e-5, gradients of step 1 and parameters at the end within 1e-5 of each tensor's
 * largest element: float32, sums in another order. */
void expert_near(const plan_set *set, const outcome *o, const outcome *alone);
/* Memory as planned, or less where rows depend on the data; bytes sent as planned, exchanged rows
 * at most. */
void expert_as_planned(const plan_set *set, const outcome *o);

#endif
