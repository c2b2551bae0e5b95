/* SPDX-License-Identifier: Apache-2.0
 *
 * build.h: adding to an ir_graph. Used by the tracer and by whoever makes a graph by hand.
 *
 * Adding checks nothing but memory: ir_graph_verify says whether the result is a graph. All
 * functions return PPS_ERR_NOMEM when the graph's arena is out of memory, and change nothing then.
 */
#ifndef PPS_IR_BUILD_H
#define PPS_IR_BUILD_H

#include "ir/graph.h"

/* An empty graph in `mem`, with tagset 0. `st` (may be NULL) receives diagnostics. */
pps_status ir_graph_init(ir_graph *g, arena *mem, pps_state *st);

/* Make room for one more item of `item_bytes` in an arena array of `n`; old contents move. */
pps_status ir_grow(arena *mem, void **items, uint32_t n, uint32_t *cap, size_t item_bytes);
#define IR_GROW(mem, owner, array)                                                    \
    ir_grow(mem, (void **)&(owner)->array, (owner)->n_##array, &(owner)->cap_##array, \
            sizeof *(owner)->array)

/* A data input and its tensor. dims as in ir_data. */
pps_status ir_add_data(ir_graph *g, ir_data_kind kind, uint32_t key, uint32_t n_dims,
                       const uint32_t *dims, pps_span span, ir_id *ret_tensor);
/* Copies `*param`; the name must outlive the graph. */
pps_status ir_add_param(ir_graph *g, const ir_param *param, ir_id *ret);
/* Copies `*op` with n_out = 0; outputs are added by ir_add_output, in order. */
pps_status ir_add_op(ir_graph *g, const ir_op *op, ir_id *ret);
pps_status ir_add_output(ir_graph *g, ir_id op, ir_dtype dtype, uint8_t flags, uint32_t n_dims,
                         const uint32_t *dims, ir_id *ret_tensor);
/* Tensor `of` behind a border: another form of it, for ops of other chunks to read. */
pps_status ir_add_form(ir_graph *g, ir_id of, ir_border border, uint32_t directive, uint32_t n_dims,
                       const uint32_t *dims, ir_id *ret_tensor);
/* The tagset equal to `tags` (any order, each name once). Names are compared by text. */
pps_status ir_add_tagset(ir_graph *g, const ir_tag *tags, uint32_t n, ir_id *ret);
pps_status ir_add_region(ir_graph *g, const char *tag, uint32_t index, uint32_t trace,
                         pps_span span);
/* Append to ir_graph.lists. */
pps_status ir_add_list(ir_graph *g, uint32_t value);

/* The part of `from` that `loss_ops` needs, copied into `ret` (initialised here, in `mem`): its
 * ops, their tensors, parameters and data inputs, and the regions of the model call they came from.
 * Order is kept. `ret_loss` gets the new ids of the n loss ops. Errors: E1014 (regions of two model
 * calls in one loss), E1006 (two parameters of one name). */
pps_status ir_graph_trim(const ir_graph *from, arena *mem, const ir_id *loss_ops, uint32_t n,
                         ir_graph *ret, ir_id *ret_loss);

/* "[8, 32, 48]" */
enum { IR_SHAPE_TEXT = 64 };
const char *ir_shape_text(const uint32_t *dims, uint32_t n_dims, char buffer[IR_SHAPE_TEXT]);

#endif
