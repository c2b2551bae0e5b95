/* SPDX-License-Identifier: Apache-2.0
 *
 * mutate.h: one random change to finished plans. What a step means (programs, kernels, what a
 * work's bindings are) is left alone: that is the specification; everything that says where, when
 * and with whom may change.
 */
#ifndef PPS_TEST_MUTATE_H
#define PPS_TEST_MUTATE_H

#include "tiny.h"

enum { MUTATION_NAME = 128 };
/* Change `set`, which the compiler made, in place; `what` says how. False when the change drawn has
 * nothing to work on, or changes nothing (then nothing was changed). */
bool mutate(plan_set *set, random_source *r, char what[MUTATION_NAME]);

#endif
