/* SPDX-License-Identifier: Apache-2.0
 *
 * lower_set.c: the tables that all plans of a set share: ranks, parameters, data, losses, names,
 * and the works that steps refer to.
 */
#include "passes/lower.h"

#include <stdio.h>
#include <string.h>

static pps_status copy_text(arena *mem, const char *text, const char **ret)
{
    *ret = arena_copy(mem, text, strlen(text));
    return *ret == NULL ? PPS_ERR_NOMEM : PPS_OK;
}

static pps_status name_chunks(pass_cx *cx)
{
    plan_set *set = cx->set;
    const ir_graph *g = cx->program->graph;
    PASS_ALLOC(set->chunk_names, cx->mem, g->n_chunks);
    PASS_ALLOC(set->chunk_stage, cx->mem, g->n_chunks);
    PASS_ALLOC(set->chunk_model, cx->mem, g->n_chunks);
    set->n_chunks = g->n_chunks;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        char name[PASS_NAME_BYTES];
        uint32_t stage = dag_stage(g, c), model = c % cx->dag->n_model_chunks;
        PPS_TRY(copy_text(cx->mem, pass_chunk_name(cx, c, name), &set->chunk_names[c]));
        set->chunk_stage[c] = stage == IR_NONE ? model : stage;
        set->chunk_model[c] = model;
    }
    return PPS_OK;
}

pps_status lower_tables(pass_cx *cx)
{
    plan_set *set = cx->set;
    const dag *d = cx->dag;
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    set->n_groups = d->n_groups;
    set->n_ranks = d->n_ranks;
    set->n_mb = d->n_mb;
    set->n_slices = d->n_slices;
    if (d->slice_tag != NULL)
        PPS_TRY(copy_text(cx->mem, d->slice_tag, &set->slice_tag));
    set->train = p->train;
    set->n_nodes = d->n_alive;
    uint64_t n_edges = d->n_node_edges + d->n_window_edges;
    set->n_edges = n_edges > UINT32_MAX ? UINT32_MAX : (uint32_t)n_edges;
    PASS_ALLOC(set->plans, cx->mem, d->n_groups);
    PASS_ALLOC(set->group_ranks, cx->mem, d->n_ranks);
    PASS_ALLOC(set->rank_group, cx->mem, d->n_ranks);
    PASS_ALLOC(set->rank_index, cx->mem, d->n_ranks);
    for (uint32_t i = 0; i < d->n_groups; i++)
        for (uint32_t k = 0; k < d->groups[i].n_ranks; k++) {
            uint32_t rank = d->group_ranks[d->groups[i].ranks + k];
            set->group_ranks[d->groups[i].ranks + k] = rank;
            set->rank_group[rank] = i;
            set->rank_index[rank] = k;
        }
    PASS_ALLOC(cx->bucket_index, cx->scratch, d->n_buckets);
    PASS_ALLOC(set->rank_replica, cx->mem, d->n_ranks);
    PASS_ALLOC(set->rank_part, cx->mem, d->n_ranks);
    PASS_ALLOC(set->rank_speaks, cx->mem, d->n_ranks);
    for (uint32_t i = 0; i < d->n_groups; i++) {
        uint32_t at = d->groups[i].ranks;
        PPS_TRY(pass_rank_roles(cx, i, set->rank_replica + at, set->rank_part + at,
                                set->rank_speaks + at));
    }
    set->n_params = g->n_params;
    PASS_ALLOC(set->params, cx->mem, g->n_params);
    for (uint32_t i = 0; i < g->n_params; i++) {
        set->params[i] = g->params[i];
        PPS_TRY(copy_text(cx->mem, g->params[i].name, &set->params[i].name));
    }
    set->n_data = g->n_data;
    PASS_ALLOC(set->data, cx->mem, g->n_data);
    for (uint32_t k = 0; k < g->n_data; k++) {
        uint32_t elems = 1;
        for (uint32_t i = 1; i < g->data[k].n_dims; i++)
            elems *= g->data[k].dims[i];
        set->data[k] =
            (plan_data){.kind = g->data[k].kind, .key = g->data[k].key, .row_elems = elems};
        set->batch = g->data[k].dims[0];
        set->T = g->data[k].n_dims > 1 ? g->data[k].dims[1] : 1;
    }
    set->n_mb_losses = cx->n_loss_step;
    set->n_losses = d->n_mb * cx->n_loss_step;
    PASS_ALLOC(set->losses, cx->mem, set->n_losses);
    for (uint32_t m = 0, at = 0; m < d->n_mb; m++)
        for (uint32_t k = 0, c; k < d->n_model_chunks; k++)
            for (uint32_t i = 0; i < g->chunks[k].ops.n; i++) {
                const ir_op *op = &g->ops[g->lists[g->chunks[k].ops.begin + i]];
                c = d->mb_class[m] * d->n_model_chunks + k;
                if (ir_op_has_loss((ir_op_kind)op->kind))
                    set->losses[at++] =
                        (plan_loss_slot){.group = d->chunks[c].group, .aux = op->kind == IR_ROUTER};
            }
    PASS_ALLOC(set->streams, cx->mem, d->n_streams);
    set->n_streams = d->n_streams;
    for (uint32_t i = 0; i < d->n_streams; i++)
        PPS_TRY(copy_text(cx->mem, d->streams[i], &set->streams[i]));
    return name_chunks(cx);
}

static uint64_t row_bytes(const ir_graph *g, ir_id tensor)
{
    const ir_tensor *t = &g->tensors[tensor];
    return 4ull * t->dims[t->n_dims - 1];
}

/* Bytes a hop's payload has: of expert rows at most, as they arrive; of what a team shares all. */
static uint64_t hop_bytes(const pass_cx *cx, uint32_t run, const dag_link *k)
{
    const dag_run *r = &cx->dag->runs[run];
    pass_link_bytes bytes = pass_bytes_of_link(cx, k);
    bool forward = r->pass == PPS_PASS_F, at_dst;
    if (r->kind == PLAN_SEND || r->kind == PLAN_RECV)
        return bytes.wire;
    at_dst = dag_end_of(cx->dag, run) == DAG_DST;
    uint64_t outer = at_dst ? bytes.used : bytes.made;
    if (r->kind != PLAN_ALL_TO_ALL && r->kind != PLAN_COUNTS)
        return outer > bytes.wire ? outer : bytes.wire;
    return forward == at_dst ? outer : bytes.wire;
}

/* Bytes of one rank's positions of one batch row, at a border that shares them out. */
static uint32_t positions_bytes(const dag *d, uint32_t run, const dag_link *k)
{
    const ir_tensor *a = &d->graph->tensors[k->wire];
    const ir_tensor *b = &d->graph->tensors[dag_end_of(d, run) == DAG_DST ? k->tensor : k->made];
    const ir_tensor *part = a->dims[1] < b->dims[1] ? a : b;
    uint32_t elems = 1;
    for (uint32_t i = 1; i < part->n_dims; i++)
        elems *= part->dims[i];
    return 4 * elems;
}

/* A work for each program and way to keep that the run's nodes may have: what was fetched lies in
 * buffers of its own. */
static void compute_works(pass_cx *cx, const dag_run *r, plan_work w, uint32_t *work_of)
{
    const pass_chunk *c = &cx->chunks[r->chunk];
    const dag_chunk *of = &cx->dag->chunks[r->chunk];
    plan_set *set = cx->set;
    bool offloads = of->offload[0] != IR_NONE || of->offload[1] != IR_NONE;
    w.loss = c->loss_first;
    for (int k = 0; k < LOWER_WORKS; k++) {
        bool whole = k % 2 != 0;
        if ((whole && r->pass != PPS_PASS_BI) || (k / 2 == DAG_OFFLOAD && !offloads))
            continue;
        pass_variant variant = k / 2 == DAG_RECOMPUTE ? PASS_RECOMPUTES : PASS_KEEPS;
        w.program = c->programs[variant][whole ? PPS_PASS_B : r->pass].id;
        if (w.program == IR_NONE && k != 0)
            continue;
        work_of[k] = set->n_works;
        set->works[set->n_works++] = w;
    }
}

pps_status lower_works(pass_cx *cx, uint32_t **ret)
{
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    plan_set *set = cx->set;
    uint32_t *work_of;
    uint32_t most = 0;
    for (uint32_t i = 0; i < d->n_runs; i++)
        most += d->runs[i].kind == PLAN_COMPUTE ? LOWER_WORKS : 1;
    PASS_ALLOC(work_of, cx->phase, LOWER_WORKS * (size_t)d->n_runs);
    PASS_ALLOC(set->works, cx->mem, most);
    for (uint32_t i = 0; i < d->n_runs; i++) {
        const dag_run *r = &d->runs[i];
        plan_work w = {.program = IR_NONE,
                       .chunk = r->chunk,
                       .peer_group = IR_NONE,
                       .peer = IR_NONE,
                       .teams = plan_is(r->kind, PLAN_COLLECTIVE) ? r->teams : IR_NONE};
        if (r->kind == PLAN_COMPUTE) {
            compute_works(cx, r, w, work_of + LOWER_WORKS * i);
            continue;
        }
        if (dag_of_bucket(r)) {
            w.chunk = cx->bucket_index[r->chunk];
            if (r->kind != PLAN_UPDATE)
                w.bytes = d->buckets[r->chunk].bytes;
        } else if (plan_is(r->kind, PLAN_COPY)) {
            w.bytes = pass_copy_bytes(cx, r);
        } else {
            const dag_link *k = &d->links[r->link];
            bool at_dst = dag_end_of(d, i) == DAG_DST;
            w.bytes = hop_bytes(cx, i, k);
            if (r->kind == PLAN_SEND || r->kind == PLAN_RECV) {
                w.peer_group = d->runs[r->pair].group;
            } else if (r->kind == PLAN_SHIFT) {
                w.shift = g->tensors[k->tensor].shift;
            } else if (r->kind == PLAN_COUNTS) {
                w.experts = g->tensors[k->tensor].dims[0];
            } else if (r->kind == PLAN_SEQ_SCATTER || r->kind == PLAN_SEQ_GATHER ||
                       r->kind == PLAN_SEQ_TAKE) {
                w.width = positions_bytes(d, i, k);
            } else if (r->kind == PLAN_ALL_TO_ALL) {
                uint32_t counts =
                    pass_counts_link(d, at_dst ? k->dst : k->src, at_dst ? k->tensor : k->made);
                w.experts = g->tensors[d->links[counts].tensor].dims[0];
                w.width = (uint32_t)row_bytes(g, k->tensor);
            }
        }
        work_of[LOWER_WORKS * i] = set->n_works;
        set->works[set->n_works++] = w;
    }
    for (uint32_t i = 0; i < d->n_runs; i++)
        if (d->runs[i].kind == PLAN_SEND || d->runs[i].kind == PLAN_RECV)
            set->works[work_of[LOWER_WORKS * i]].peer = work_of[LOWER_WORKS * d->runs[i].pair];
    *ret = work_of;
    return PPS_OK;
}

/* Places: none, then each origin that a row's entry has, then each run's directive. */
pps_status lower_places(pass_cx *cx, uint32_t **ret_run_place, uint32_t **ret_origin_place,
                        uint32_t *ret_n_origins)
{
    const dag *d = cx->dag;
    const ir_program *p = cx->program;
    plan_set *set = cx->set;
    uint32_t n_origins = 0, *origin_place, *run_place;
    for (uint32_t i = 0; i < p->n_entries; i++)
        if (p->entries[i].origin >= n_origins)
            n_origins = p->entries[i].origin + 1;
    PASS_ALLOC(origin_place, cx->phase, n_origins);
    PASS_ALLOC(run_place, cx->phase, d->n_runs);
    for (uint32_t i = 0; i < p->n_entries; i++)
        origin_place[p->entries[i].origin] = 1;
    uint32_t n = 1;
    for (uint32_t i = 1; i < n_origins; i++)
        n += origin_place[i];
    PASS_ALLOC(set->places, cx->mem, n + d->n_runs);
    n = 1;
    for (uint32_t i = 1; i < n_origins; i++) {
        pps_span span = pps_origin_span(cx->st, i);
        if (origin_place[i] == 0)
            continue;
        origin_place[i] = span.file == 0 ? 0 : n;
        if (span.file != 0)
            set->places[n++] = span;
    }
    if (n_origins > 0)
        origin_place[0] = 0;
    for (uint32_t i = 0; i < d->n_runs; i++) {
        const pps_span *last = &set->places[n - 1], *span = &d->runs[i].span;
        if (n == 1 || last->file != span->file || last->begin != span->begin ||
            last->end != span->end)
            set->places[n++] = *span;
        run_place[i] = n - 1;
    }
    set->n_places = n;
    *ret_run_place = run_place;
    *ret_origin_place = origin_place;
    *ret_n_origins = n_origins;
    return PPS_OK;
}
