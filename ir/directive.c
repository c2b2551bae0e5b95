/* SPDX-License-Identifier: Apache-2.0
 *
 * directive.c: when the script has ended: the directives that count, in script order, the one
 * `train` among them, and the graph that its loss needs, cut into chunks.
 *
 * Directives were taken apart as they ran; the state's list says which of them still count (a REPL
 * takes back those of a failed entry). Calling ir_program_finish again starts over, after more was
 * run.
 */
#include "ir/trace.h"

#include <stdio.h>
#include <string.h>

/* The record of `d`; records are in the order of the state's list, with some that no longer count.
 */
static const trace_record *find_record(const tracer *tr, const pps_directive *d, uint32_t *cursor)
{
    for (uint32_t i = *cursor; i < tr->n_records; i++)
        if (tr->records[i].source == d) {
            *cursor = i + 1;
            return &tr->records[i];
        }
    return NULL;
}

static pps_status add_train(tracer *tr, const pps_directive *d)
{
    ir_program *p = &tr->program;
    if (p->has_train) {
        pps_diag *diag = form_diag(tr, d, d->span, 447, "a script trains one loss");
        pps_diag_also(diag, p->train.source->span, "the first `train` is here");
        pps_diag_help(diag, "losses can be added: train a + b");
        return pps_diag_done(diag);
    }
    PPS_TRY(form_train(tr, d, &p->train));
    p->has_train = true;
    return PPS_OK;
}

static pps_status add_order(tracer *tr, const trace_record *r)
{
    ir_program *p = &tr->program;
    PPS_TRY(IR_GROW(&tr->mem, p, orders));
    uint32_t order = p->n_orders;
    p->orders[p->n_orders++] = r->source;
    for (uint32_t i = 0; i < r->n_rows; i++) {
        PPS_TRY(IR_GROW(&tr->mem, p, rows));
        p->rows[p->n_rows] = tr->rows[r->rows + i];
        p->rows[p->n_rows++].directive = order;
    }
    return PPS_OK;
}

/* `kinds` runs beside `directives`: both have room for cap_directives. */
static pps_status add_directive(tracer *tr, const trace_record *r)
{
    ir_program *p = &tr->program;
    if (p->n_directives == p->cap_directives) {
        PPS_TRY(IR_GROW(&tr->mem, p, directives));
        uint8_t *kinds = arena_new(&tr->mem, p->cap_directives);
        if (!kinds)
            return PPS_ERR_NOMEM;
        if (p->n_directives)
            memcpy(kinds, p->kinds, p->n_directives);
        p->kinds = kinds;
    }
    p->kinds[p->n_directives] = (uint8_t)r->source->kind;
    p->directives[p->n_directives++] = r->directive;
    if (r->directive.along_sequence) {
        p->slice_tag = r->directive.tag;
        p->n_slices = r->directive.n;
    }
    return PPS_OK;
}

static pps_status collect_one(tracer *tr, const pps_directive *d, uint32_t *cursor)
{
    trace_record late;
    const trace_record *r = find_record(tr, d, cursor);
    if (!r) { /* recorded before ir_open, or refused inside an attempt(...) */
        PPS_TRY(form_take(tr, d, &late));
        r = &late;
    }
    if (d->kind == PPS_DIR_TRAIN)
        return add_train(tr, d);
    return d->kind == PPS_DIR_ORDER ? add_order(tr, r) : add_directive(tr, r);
}

pps_status ir_program_collect(ir_program *p)
{
    tracer *tr = (tracer *)p;
    p->n_directives = p->n_orders = p->n_rows = 0;
    p->has_train = false;
    p->slice_tag = NULL;
    p->n_slices = 1;
    uint32_t cursor = 0;
    pps_status result = PPS_OK;
    size_t n = pps_directive_count(tr->st);
    for (size_t i = 0; i < n; i++) {
        pps_status status = collect_one(tr, pps_directive_at(tr->st, i), &cursor);
        if (status != PPS_OK && status != PPS_ERR_SCRIPT)
            return status;
        result = status != PPS_OK ? status : result;
    }
    return result;
}

static pps_status no_train(tracer *tr)
{
    size_t n = pps_directive_count(tr->st);
    pps_span span = n ? pps_directive_at(tr->st, 0)->span : (pps_span){0, 0, 0};
    pps_diag *d = pps_diag_start(tr->st, PPS_SEV_ERROR, 448, span,
                                 "there is no `train`, so there is nothing to compile");
    pps_diag_help(d, "write `train LOSS`, LOSS being what the model returns");
    return pps_diag_done(d);
}

/* The model call that the trained graph's regions, or else its last op, belong to. */
static const trace_scope *trained_scope(const tracer *tr)
{
    const ir_graph *g = &tr->trained;
    if (g->n_regions > 0)
        return &tr->scopes[g->regions[0].trace];
    return &tr->scopes[g->ops[g->n_ops - 1].trace];
}

static pps_status build_graph(tracer *tr)
{
    ir_train *train = &tr->program.train;
    ir_id *loss_ops = arena_new(&tr->mem, train->n_loss_ops * sizeof *loss_ops);
    if (!loss_ops)
        return PPS_ERR_NOMEM;
    PPS_TRY(ir_graph_trim(&tr->graph, &tr->mem, train->loss_ops, train->n_loss_ops, &tr->trained,
                          loss_ops));
    train->loss_ops = loss_ops;
    if (tr->trained.n_params == 0)
        return pps_error(tr->st, train->source->subject_span, 1018,
                         "this loss depends on no parameter, so there is nothing to train");
    PPS_TRY(ir_graph_cut(&tr->trained, loss_ops, train->n_loss_ops));
    return ir_graph_verify(&tr->trained);
}

pps_status ir_program_finish(ir_program *p)
{
    tracer *tr = (tracer *)p;
    PPS_TRY(ir_program_collect(p));
    if (!p->has_train)
        return no_train(tr);
    PPS_TRY(build_graph(tr));
    PPS_TRY(form_check_tags(tr, trained_scope(tr)));
    if (!p->train.has_optimizer)
        pps_diag_done(pps_diag_start(tr->st, PPS_SEV_NOTE, 0, p->train.source->span,
                                     "no optimizer is named: this trains with sgd(lr=0.01)"));
    return PPS_OK;
}
