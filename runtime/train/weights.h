/* SPDX-License-Identifier: Apache-2.0
 *
 * weights.h: a weights file as a table of named float32 tensors, whatever its format. For this
 * folder only.
 */
#ifndef PPS_TRAIN_WEIGHTS_H
#define PPS_TRAIN_WEIGHTS_H

#include "lang/arena.h"
#include "runtime/train/file.h"
#include "runtime/train/train.h"

typedef struct weights_tensor {
    const char *name; /* in train_weights.mem */
    const unsigned char *data;
    uint64_t bytes; /* 4 * product of dims; data .. data + bytes lies inside the map */
    uint32_t n_dims;
    uint32_t dims[IR_MAX_DIMS];
} weights_tensor;

struct train_weights {
    file_map map;
    arena mem;
    const char *path;        /* for messages */
    weights_tensor *tensors; /* by name, distinct */
    uint32_t n_tensors;
};

/* Readers fill tensors and n_tensors from w->map, in any order, every bound checked. PPS_ERR_SCRIPT
 * after a report of E0912 at `span`, PPS_ERR_NOMEM. */
bool checkpoint_is(const file_map *map); /* by its magic: llm.c's checkpoint */
pps_status checkpoint_read(pps_state *st, train_weights *w, pps_span span);
pps_status safetensors_read(pps_state *st, train_weights *w, pps_span span);

enum { SAFETENSORS_ALIGN = 64 }; /* our own files: data begins at a multiple */

#endif
