/* SPDX-License-Identifier: Apache-2.0
 *
 * tensor.h: `shard F on DEVICES as tensor`: what each rank of a team has of every tensor and of
 * every parameter, found from the ops of the regions alone.
 */
#ifndef PPS_PASSES_TENSOR_H
#define PPS_PASSES_TENSOR_H

#include "passes/pass.h"

typedef enum tensor_form {                 /* what one rank of a team of n has of a tensor */
                           TENSOR_WHOLE,   /* all of it, as the others */
                           TENSOR_SPLIT,   /* 1/n of the last dimension */
                           TENSOR_PARTIAL, /* a part of a sum */
                           TENSOR_SHARED,  /* T/n positions */
} tensor_form;

typedef enum tensor_mode {                  /* how ranks divide an op */
                           TENSOR_PLAIN,    /* not: each does it on what it has */
                           TENSOR_COLUMNS,  /* LINEAR: outputs */
                           TENSOR_ROWS,     /* LINEAR: inputs; outputs are parts of sums */
                           TENSOR_ELEMENTS, /* on split inputs: heads, or elements one by one */
                           TENSOR_TABLE,    /* EMBED: rows of the table; others' ids give zeros */
                           TENSOR_HIDDEN,   /* EXPERTS: width inside each expert */
                           TENSOR_CLASSES,  /* CROSS_ENTROPY: columns of the logits */
} tensor_mode;

typedef struct tensor_use { /* an input of an op */
    uint8_t form;           /* what the op works on */
    bool parts_back;        /* the gradient it gives is a part of a sum */
    bool convert_grad;      /* and must be summed before the producer gets it */
} tensor_use;

typedef struct tensor_layout {
    /* given: */
    pass_cx *cx;
    const ir_graph *graph;
    const uint32_t *region; /* [n_ops] directive of the tensor region it is in, or IR_NONE */
    const uint32_t *home;   /* [n_ops] the first directive about its devices, or IR_NONE: none */
    /* found: */
    uint8_t *form;                 /* [n_tensors] as made */
    uint8_t *mode;                 /* [n_ops] */
    bool *shared;                  /* [n_ops] as ir_op.shared */
    uint8_t *parts_back;           /* [n_tensors] which gradients its uses give */
    bool *given_parts;             /* [n_ops] the gradients of its outputs are parts of sums */
    uint32_t *blocks;              /* [n_ops] COLUMNS: equal parts of the outputs, each divided */
    tensor_use (*uses)[IR_MAX_IN]; /* [n_ops] */
    pass_param_share *params;      /* [graph->n_params] */
    uint32_t *param_op;            /* [n_params] first op that uses it, or IR_NONE */
} tensor_layout;

static inline uint32_t tensor_team(const pass_cx *cx, uint32_t directive)
{
    const ir_devices *d = &cx->program->directives[directive].devices;
    return d->n / d->n_groups;
}

/* Arrays are allocated in cx->scratch. Errors: PPS_ERR_SCRIPT with E0434 (sizes that do not
 * divide), E0435 (attention of shared positions that is in no region), E0436 (a region that divides
 * some of what an op needs and not the rest), E0437 (a parameter divided in two ways), E0438
 * (positions that the next device group does not share). */
pps_status tensor_infer(tensor_layout *l);

#endif
