/* SPDX-License-Identifier: Apache-2.0
 *
 * norms.h: L2 norms of tensors under the names that outside programs give them.
 */
#ifndef PPS_TESTS_PARITY_NORMS_H
#define PPS_TESTS_PARITY_NORMS_H

#include <jansson.h>

#include "tensors.h"

double norm_of(const float *values, uint64_t elems);

/* The norm of what an outside program calls `name`:
 *
 *   ours         model.norm.weight
 *   one expert   model.layers.0.mlp.experts.3.up_proj.weight: a slice of our [experts, ...] tensor
 *   llm.c's      fcw: that parameter of all layers together
 *
 * False when there is no such tensor. */
bool norm_find(const tensor_file *f, const char *name, double *ret);

/* Every norm of `expected`, {name: norm}, within `tolerance` relative, and so that of all tensors
 * together: none is left out. The worst goes to *ret_worst. */
bool norms_near(const tensor_file *f, const json_t *expected, double tolerance, double *ret_worst,
                reason *why);

#endif
