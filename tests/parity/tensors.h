/* SPDX-License-Identifier: Apache-2.0
 *
 * tensors.h: named float32 tensors from safetensors files, and how far two such files are apart.
 */
#ifndef PPS_TESTS_PARITY_TENSORS_H
#define PPS_TESTS_PARITY_TENSORS_H

#include <stddef.h>

#include "report.h"

typedef struct tensor {
    const char *name; /* borrowed from the file */
    uint64_t first_dim, elems;
    const float *values;
} tensor;

typedef struct tensor_file {
    tensor *tensors; /* sorted by name */
    uint32_t n;
    char *bytes;  /* the file */
    void *header; /* json_t */
} tensor_file;

/* Owned: tensors_done. */
bool tensors_read(const char *path, tensor_file *ret, reason *why);
void tensors_done(tensor_file *f);
const tensor *tensors_find(const tensor_file *f, const char *name); /* NULL: none */

/* max|difference| / max|reference| of the worst tensor. A reference of zeros only counts as 1. */
typedef struct tensor_worst {
    double error, difference;
    const char *name;
} tensor_worst;
/* False when names or sizes differ, or a value is not finite. */
bool tensors_compare(const tensor_file *f, const tensor_file *reference, tensor_worst *ret,
                     reason *why);
/* The same, and the worst must not be above `tolerance`. */
bool tensors_near(const tensor_file *f, const tensor_file *reference, double tolerance,
                  reason *why);

#endif
