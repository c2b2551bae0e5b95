/* SPDX-License-Identifier: Apache-2.0
 *
 * trace.c: what ir adds to a state: handle types, the builtins of the trace_*.c files, and the
 * hooks that follow model calls, regions and directives. Directives are taken apart as they run
 * (form.c) and put together for the compiler when the script has ended (directive.c).
 */
#include "ir/trace.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t trace_now(const tracer *tr)
{
    return tr->n_scopes - 1;
}

/* ---- Handles ------------------------------------------------------------------------------------
 */

static pps_status on_binary(pps_state *st, void *ud, const char *op, pps_value a, pps_value b,
                            pps_value *ret)
{
    tracer *tr = ud;
    if (strcmp(op, "+") == 0)
        return trace_add(tr, a, b, ret);
    bool tensor = trace_is(tr, a, TRACE_TENSOR) || trace_is(tr, b, TRACE_TENSOR);
    bool loss = trace_is(tr, a, TRACE_LOSS) || trace_is(tr, b, TRACE_LOSS);
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 1009, pps_call_span(st),
                                 "`%s` does not go with %s and %s", op, trace_kind_name(tr, a),
                                 trace_kind_name(tr, b));
    if (tensor || loss)
        pps_diag_note(d, "%s only have `+`", tensor ? "tensors" : "losses");
    return pps_diag_done(d);
}

static pps_status shape_value(pps_state *st, const uint32_t *dims, uint32_t n, pps_value *ret)
{
    PPS_TRY(pps_list(st, ret));
    for (uint32_t i = 0; i < n; i++)
        PPS_TRY(pps_list_push(st, *ret, pps_int(dims[i])));
    return PPS_OK;
}

static pps_status no_field(tracer *tr, pps_value v, const char *name, const char *has)
{
    pps_diag *d = pps_diag_start(tr->st, PPS_SEV_ERROR, 1010, pps_call_span(tr->st),
                                 "a %s has no field '%s'", trace_kind_name(tr, v), name);
    if (has) {
        const char *meant = pps_did_you_mean(name, &has, 1);
        if (meant)
            pps_diag_help(d, "did you mean '%s'?", meant);
        else
            pps_diag_note(d, "it has: %s", has);
    }
    return pps_diag_done(d);
}

static pps_status on_field(pps_state *st, void *ud, pps_value v, const char *name, pps_value *ret)
{
    tracer *tr = ud;
    bool tensor = trace_is(tr, v, TRACE_TENSOR), param = trace_is(tr, v, TRACE_PARAM);
    bool loss = trace_is(tr, v, TRACE_LOSS);
    if (!(tensor || param || loss) || strcmp(name, "shape") != 0)
        return no_field(tr, v, name, tensor || param || loss ? "shape" : NULL);
    if (loss)
        return pps_list(st, ret);
    uint64_t id = pps_handle_payload(v);
    const ir_tensor *t = &tr->graph.tensors[id];
    const ir_param *p = &tr->graph.params[id];
    return tensor ? shape_value(st, t->dims, t->n_dims, ret)
                  : shape_value(st, p->dims, p->n_dims, ret);
}

static void on_print(pps_state *st, void *ud, pps_value v, char *buffer, size_t n)
{
    (void)st;
    tracer *tr = ud;
    uint64_t id = pps_handle_payload(v);
    char shape[IR_SHAPE_TEXT];
    if (trace_is(tr, v, TRACE_TENSOR)) {
        const ir_tensor *t = &tr->graph.tensors[id];
        snprintf(buffer, n, "<tensor %s %s>", t->dtype == IR_F32 ? "f32" : "i32",
                 ir_shape_text(t->dims, t->n_dims, shape));
    } else if (trace_is(tr, v, TRACE_LOSS)) {
        uint32_t terms = tr->losses[id].n;
        snprintf(buffer, n, "<loss of %u term%s>", terms, terms == 1 ? "" : "s");
    } else if (trace_is(tr, v, TRACE_ROUTE)) {
        const ir_attrs *a = &tr->graph.ops[id].attrs;
        snprintf(buffer, n, "<route to %u of %u experts>", a->top_k, a->experts);
    } else if (trace_is(tr, v, TRACE_ROWS)) {
        const ir_tensor *t = &tr->graph.tensors[tr->graph.ops[id].out[0]];
        snprintf(buffer, n, "<expert rows %s>", ir_shape_text(t->dims, t->n_dims, shape));
    } else if (trace_is(tr, v, TRACE_PARAM)) {
        const ir_param *p = &tr->graph.params[id];
        snprintf(buffer, n, "<parameter %s %s>", p->name, ir_shape_text(p->dims, p->n_dims, shape));
    } else if (trace_is(tr, v, TRACE_DATA)) {
        snprintf(buffer, n, "<data %s>", tr->sources[id].paths);
    } else {
        const ir_optimizer *o = &tr->optimizers[id];
        snprintf(buffer, n, "<optimizer %s lr=%g>", o->kind == IR_OPT_ADAMW ? "adamw" : "sgd",
                 (double)o->lr);
    }
}

static pps_status register_handles(tracer *tr)
{
    static const char *const names[TRACE_TYPE_COUNT] = {
        [TRACE_TENSOR] = "tensor",       [TRACE_LOSS] = "loss",       [TRACE_ROUTE] = "route",
        [TRACE_ROWS] = "expert rows",    [TRACE_PARAM] = "parameter", [TRACE_DATA] = "data",
        [TRACE_OPTIMIZER] = "optimizer",
    };
    for (int i = 0; i < TRACE_TYPE_COUNT; i++) {
        pps_handle_ops ops = {
            .name = names[i], .binary = on_binary, .field = on_field, .print = on_print};
        PPS_TRY(pps_handle_register(tr->st, &ops, tr, &tr->types[i]));
    }
    return PPS_OK;
}

/* ---- Hooks --------------------------------------------------------------------------------------
 */

static pps_status new_scope(tracer *tr, const char *model, pps_span span)
{
    PPS_TRY(IR_GROW(&tr->mem, tr, scopes));
    tr->scopes[tr->n_scopes++] = (trace_scope){model, span};
    if (tr->cap_names)
        memset(tr->names, 0, tr->cap_names * sizeof *tr->names);
    tr->n_names = 0;
    memset(tr->unnamed, 0, sizeof tr->unnamed);
    tr->n_open = 0;
    tr->tagset = 0;
    return PPS_OK;
}

/* Names, numbers and tag indices restart with an outermost model call; what follows the call (a
 * loss, say) still belongs to it. */
static pps_status on_model(void *ud, pps_state *st, bool enter, uint32_t depth, const char *name,
                           pps_span span)
{
    (void)st;
    tracer *tr = ud;
    if (enter && depth == 0) {
        const char *model = pps_intern(tr->st, name ? name : "model");
        if (!model)
            return PPS_ERR_NOMEM;
        return new_scope(tr, model, span);
    }
    return PPS_OK;
}

static pps_status open_region(tracer *tr, const char *tag, uint32_t index, pps_span span)
{
    static const char *const reserved[] = {"PASS", "COMM", "MB"};
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (strcmp(tag, reserved[i]) == 0)
            return pps_error(tr->st, span, 1011, "'%s' cannot be the tag of a region", tag);
    for (uint32_t i = 0; i < tr->n_open; i++) {
        if (strcmp(tr->open[i].tag.name, tag) != 0)
            continue;
        pps_diag *d = pps_diag_start(tr->st, PPS_SEV_ERROR, 1011, span,
                                     "this region of tag %s lies inside another one", tag);
        pps_diag_also(d, tr->open[i].span, "%s %u begins here", tag, tr->open[i].tag.index);
        return pps_diag_done(d);
    }
    if (tr->n_open == TRACE_MAX_TAGS)
        return pps_error(tr->st, span, 1011, "more than %d regions inside each other",
                         TRACE_MAX_TAGS);
    const char *name = pps_intern(tr->st, tag);
    if (!name)
        return PPS_ERR_NOMEM;
    PPS_TRY(ir_add_region(&tr->graph, name, index, trace_now(tr), span));
    tr->open[tr->n_open].tag = (ir_tag){name, index};
    tr->open[tr->n_open].span = span;
    tr->n_open++;
    tr->tagset = IR_NONE;
    return PPS_OK;
}

static pps_status on_annotate(void *ud, pps_state *st, bool enter, const char *tag, uint32_t index,
                              pps_span span)
{
    (void)st;
    tracer *tr = ud;
    if (enter)
        return open_region(tr, tag, index, span);
    /* A region whose opening was refused is closed too: close only what is open. */
    for (uint32_t i = tr->n_open; i-- > 0;) {
        if (strcmp(tr->open[i].tag.name, tag) != 0 || tr->open[i].tag.index != index)
            continue;
        tr->n_open = i;
        tr->tagset = i ? IR_NONE : 0;
        break;
    }
    return PPS_OK;
}

static pps_status on_directive(void *ud, pps_state *st, const pps_directive *directive)
{
    (void)st;
    tracer *tr = ud;
    trace_record record;
    PPS_TRY(form_take(tr, directive, &record));
    PPS_TRY(IR_GROW(&tr->mem, tr, records));
    tr->records[tr->n_records++] = record;
    return PPS_OK;
}

/* ---- Life ---------------------------------------------------------------------------------------
 */

static pps_status open_tracer(tracer *tr)
{
    pps_state *st = tr->st;
    PPS_TRY(ir_graph_init(&tr->graph, &tr->mem, st));
    PPS_TRY(ir_graph_init(&tr->trained, &tr->mem, st));
    PPS_TRY(new_scope(tr, NULL, (pps_span){0}));
    PPS_TRY(register_handles(tr));
    PPS_TRY(trace_define_layers(tr));
    PPS_TRY(trace_define_experts(tr));
    PPS_TRY(trace_define_train(tr));
    pps_hooks hooks = {
        .ud = tr, .on_model = on_model, .on_annotate = on_annotate, .on_directive = on_directive};
    pps_set_hooks(st, &hooks);
    return PPS_OK;
}

pps_status ir_open(pps_state *st, ir_program **ret)
{
    tracer *tr = calloc(1, sizeof *tr);
    if (!tr)
        return PPS_ERR_NOMEM;
    arena_init(&tr->mem, NULL, NULL);
    tr->st = st;
    tr->tokens = IR_NONE;
    tr->program = (ir_program){.graph = &tr->trained, .st = st, .mem = &tr->mem};
    pps_status status = open_tracer(tr);
    if (status != PPS_OK) {
        pps_set_hooks(st, &(pps_hooks){0});
        ir_close(&tr->program);
        return status;
    }
    *ret = &tr->program;
    return PPS_OK;
}

void ir_close(ir_program *p)
{
    if (!p)
        return;
    tracer *tr = (tracer *)p;
    arena_done(&tr->mem);
    free(tr);
}
