/* SPDX-License-Identifier: Apache-2.0
 *
 * build.c: growing a graph. Arrays live in the graph's arena and double when full; the old copy
 * stays behind in the arena, so all of them together waste at most as much as they hold.
 */
#include "ir/build.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

pps_status ir_grow(arena *mem, void **items, uint32_t n, uint32_t *cap, size_t item_bytes)
{
    if (n < *cap)
        return PPS_OK;
    if (*cap > UINT32_MAX / 2 - 1)
        return PPS_ERR_NOMEM;
    uint32_t new_cap = *cap ? *cap * 2 : 16;
    void *bigger = arena_new(mem, new_cap * item_bytes);
    if (!bigger)
        return PPS_ERR_NOMEM;
    if (n)
        memcpy(bigger, *items, n * item_bytes);
    *items = bigger;
    *cap = new_cap;
    return PPS_OK;
}

pps_status ir_graph_init(ir_graph *g, arena *mem, pps_state *st)
{
    memset(g, 0, sizeof *g);
    g->mem = mem;
    g->st = st;
    PPS_TRY(IR_GROW(mem, g, tagsets));
    g->tagsets[g->n_tagsets++] = (ir_tagset){0, 0};
    return PPS_OK;
}

static pps_status add_tensor(ir_graph *g, const ir_tensor *t, const uint32_t *dims, ir_id *ret)
{
    assert(t->n_dims <= IR_MAX_DIMS);
    PPS_TRY(IR_GROW(g->mem, g, tensors));
    ir_tensor *made = &g->tensors[g->n_tensors];
    *made = *t;
    memcpy(made->dims, dims, t->n_dims * sizeof *dims);
    *ret = g->n_tensors++;
    return PPS_OK;
}

pps_status ir_add_data(ir_graph *g, ir_data_kind kind, uint32_t key, uint32_t n_dims,
                       const uint32_t *dims, pps_span span, ir_id *ret_tensor)
{
    PPS_TRY(IR_GROW(g->mem, g, data));
    ir_tensor t = {.dtype = kind == IR_DATA_FEATURES ? IR_F32 : IR_I32,
                   .n_dims = (uint8_t)n_dims,
                   .flags = IR_TENSOR_BATCH,
                   .op = IR_NONE,
                   .data = g->n_data,
                   .span = span};
    ir_id tensor;
    PPS_TRY(add_tensor(g, &t, dims, &tensor));
    ir_data *d = &g->data[g->n_data++];
    *d = (ir_data){.kind = (uint8_t)kind,
                   .key = key,
                   .n_dims = (uint8_t)n_dims,
                   .tensor = tensor,
                   .span = span};
    memcpy(d->dims, dims, n_dims * sizeof *dims);
    *ret_tensor = tensor;
    return PPS_OK;
}

pps_status ir_add_param(ir_graph *g, const ir_param *param, ir_id *ret)
{
    PPS_TRY(IR_GROW(g->mem, g, params));
    g->params[g->n_params] = *param;
    *ret = g->n_params++;
    return PPS_OK;
}

pps_status ir_add_op(ir_graph *g, const ir_op *op, ir_id *ret)
{
    PPS_TRY(IR_GROW(g->mem, g, ops));
    g->ops[g->n_ops] = *op;
    g->ops[g->n_ops].n_out = 0;
    *ret = g->n_ops++;
    return PPS_OK;
}

pps_status ir_add_output(ir_graph *g, ir_id op, ir_dtype dtype, uint8_t flags, uint32_t n_dims,
                         const uint32_t *dims, ir_id *ret_tensor)
{
    ir_op *o = &g->ops[op];
    assert(o->n_out < IR_MAX_OUT);
    ir_tensor t = {.dtype = (uint8_t)dtype,
                   .n_dims = (uint8_t)n_dims,
                   .flags = flags,
                   .out = o->n_out,
                   .op = op,
                   .data = IR_NONE,
                   .span = o->span};
    PPS_TRY(add_tensor(g, &t, dims, ret_tensor));
    o->out[o->n_out++] = *ret_tensor;
    return PPS_OK;
}

pps_status ir_add_form(ir_graph *g, ir_id of, ir_border border, uint32_t directive, uint32_t n_dims,
                       const uint32_t *dims, ir_id *ret_tensor)
{
    ir_tensor t = g->tensors[of];
    t.n_dims = (uint8_t)n_dims;
    t.border = (uint8_t)border;
    t.of = of;
    t.directive = directive;
    return add_tensor(g, &t, dims, ret_tensor);
}

pps_status ir_add_tagset(ir_graph *g, const ir_tag *tags, uint32_t n, ir_id *ret)
{
    ir_tag sorted[PPS_MAX_TERMS];
    assert(n <= PPS_MAX_TERMS);
    for (uint32_t i = 0; i < n; i++) { /* insertion sort: a handful of nested regions */
        uint32_t at = i;
        for (; at > 0 && strcmp(sorted[at - 1].name, tags[i].name) > 0; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = tags[i];
    }
    /* Newest first: regions open and close in order, so the one asked for is near the end. */
    for (uint32_t s = g->n_tagsets; s-- > 0;) {
        const ir_tagset *set = &g->tagsets[s];
        uint32_t i = 0;
        while (set->n == n && i < n && g->tags[set->begin + i].index == sorted[i].index &&
               strcmp(g->tags[set->begin + i].name, sorted[i].name) == 0)
            i++;
        if (set->n == n && i == n) {
            *ret = s;
            return PPS_OK;
        }
    }
    PPS_TRY(IR_GROW(g->mem, g, tagsets));
    uint32_t begin = g->n_tags;
    for (uint32_t i = 0; i < n; i++) {
        PPS_TRY(IR_GROW(g->mem, g, tags));
        g->tags[g->n_tags++] = sorted[i];
    }
    g->tagsets[g->n_tagsets] = (ir_tagset){begin, n};
    *ret = g->n_tagsets++;
    return PPS_OK;
}

pps_status ir_add_region(ir_graph *g, const char *tag, uint32_t index, uint32_t trace,
                         pps_span span)
{
    PPS_TRY(IR_GROW(g->mem, g, regions));
    g->regions[g->n_regions++] = (ir_region){tag, index, trace, span};
    return PPS_OK;
}

pps_status ir_add_list(ir_graph *g, uint32_t value)
{
    PPS_TRY(IR_GROW(g->mem, g, lists));
    g->lists[g->n_lists++] = value;
    return PPS_OK;
}

const char *ir_shape_text(const uint32_t *dims, uint32_t n_dims, char buffer[IR_SHAPE_TEXT])
{
    int n = snprintf(buffer, IR_SHAPE_TEXT, "[");
    for (uint32_t i = 0; i < n_dims; i++)
        n +=
            snprintf(buffer + n, (size_t)(IR_SHAPE_TEXT - n), "%s%" PRIu32, i ? ", " : "", dims[i]);
    snprintf(buffer + n, (size_t)(IR_SHAPE_TEXT - n), "]");
    return buffer;
}
