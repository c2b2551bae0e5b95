/* SPDX-License-Identifier: Apache-2.0
 *
 * order.c: from rows to each device group's compute order.
 *
 * A row is read once: every entry names the compute nodes of its chunks (a stage's regions run one
 * after the other; backward, in reverse), groups of several entries are interleaved, and the update
 * steps come last. Nodes are found through an index from stage to chunks, so the cost is linear in
 * the rows. Whether the order agrees with the dataflow is for the schedule pass, which sees all
 * groups at once.
 */
#include "passes/pass.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct order_cx {
    pass_cx *cx;
    ir_range *stage_chunks; /* [n_stages] in chunk_list */
    uint32_t *chunk_list;
    uint32_t n_stages;
    uint32_t *matched; /* chunks of the entry at hand */
    uint32_t n_matched;
    uint32_t *nodes; /* compute nodes of the row group at hand, entry after entry */
    uint32_t n_nodes, cap_nodes;
    uint32_t *counts;   /* nodes per entry of the row group */
    uint32_t *node_row; /* [n_nodes] row that names it */
    uint32_t of_group;  /* a default row's group: its entries mean what that group has of a stage */
} order_cx;

/* ---- what an entry names --------------------------------------------------------------------- */

static pps_span entry_span(const order_cx *o, const ir_entry *e)
{
    return pps_origin_span(o->cx->st, e->origin);
}

static void entry_text(const order_cx *o, const ir_entry *e, char *buffer, size_t n)
{
    static const char *const passes[] = {"F", "B", "BI", "BW"};
    if (e->general)
        pass_filter_text(o->cx, &o->cx->program->filters[e->filter], buffer, n);
    else if (e->slice > 0)
        snprintf(buffer, n, "%s(%u, %u, %s=%u)", passes[e->pass], e->stage, e->mb,
                 o->cx->dag->slice_tag, e->slice - 1);
    else
        snprintf(buffer, n, "%s(%u, %u)", passes[e->pass], e->stage, e->mb);
}

static pps_diag *entry_diag(const order_cx *o, const ir_row *row, const ir_entry *e, int code,
                            const char *title, ...) PPS_PRINTF(5, 6);
static pps_diag *entry_diag(const order_cx *o, const ir_row *row, const ir_entry *e, int code,
                            const char *title, ...)
{
    const pps_directive *d =
        row->directive == IR_NONE ? NULL : o->cx->program->orders[row->directive];
    pps_span span = entry_span(o, e);
    char text[512];
    va_list args;
    va_start(args, title);
    vsnprintf(text, sizeof text, title, args);
    va_end(args);
    if (span.file == 0 && d != NULL)
        span = d->span;
    pps_diag *diag = pps_diag_start(o->cx->st, PPS_SEV_ERROR, code, span, "%s", text);
    if (d != NULL &&
        (span.begin < d->span.begin || span.end > d->span.end || span.file != d->span.file))
        pps_diag_also(diag, d->span, "in the order given here");
    return diag;
}

/* A unit that no split makes. */
static pps_status no_unit(const order_cx *o, const ir_row *row, const ir_entry *e,
                          pass_unit_index at)
{
    const dag *d = o->cx->dag;
    const ir_program *p = o->cx->program;
    bool of_mb = at.mb >= d->n_mb / d->n_slices;
    const char *what = of_mb ? "microbatch" : "slice";
    uint32_t split = of_mb ? d->split : d->sequence_split;
    pps_diag *diag =
        entry_diag(o, row, e, 205, "%s %u does not exist", what, of_mb ? at.mb : at.slice);
    if (split != IR_NONE)
        pps_diag_also(diag, p->directives[split].source->span, "this split makes %s%s 0 to %u",
                      what, of_mb ? "es" : "s", (of_mb ? d->n_mb / d->n_slices : d->n_slices) - 1);
    else
        pps_diag_note(diag, "nothing splits the batch: there is one microbatch, 0");
    return pps_diag_done(diag);
}

static pps_status entry_chunks(order_cx *o, const ir_row *row, const ir_entry *e, pass_units *units,
                               pps_pass *ret_pass)
{
    pass_cx *cx = o->cx;
    const ir_graph *g = cx->program->graph;
    char text[256];
    o->n_matched = 0;
    *ret_pass = (pps_pass)e->pass;
    if (!e->general) {
        if (e->stage < o->n_stages) {
            ir_range list = o->stage_chunks[e->stage];
            for (uint32_t i = 0; i < list.n; i++) {
                uint32_t chunk = o->chunk_list[list.begin + i];
                if (o->of_group == IR_NONE || cx->dag->chunks[chunk].group == o->of_group)
                    o->matched[o->n_matched++] = chunk;
            }
        }
    } else {
        const ir_filter *f = &cx->program->filters[e->filter];
        pass_match m = {0};
        bool has_pass = false;
        /* who names one stage can mean its chunks alone */
        bool of_stage = e->stage != IR_NONE && e->stage < o->n_stages;
        uint32_t n = of_stage ? o->stage_chunks[e->stage].n : g->n_chunks;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t c = of_stage ? o->chunk_list[o->stage_chunks[e->stage].begin + i] : i;
            if (pass_match_chunk(cx, f, c, &m))
                o->matched[o->n_matched++] = c;
        }
        for (uint32_t i = 0; i < f->n; i++) {
            const ir_term *t = &cx->program->terms[f->begin + i];
            if (t->kind == PPS_TERM_PASS) {
                *ret_pass = (pps_pass)t->pass;
                has_pass = true;
            }
        }
        if (!has_pass)
            return pps_diag_done(entry_diag(o, row, e, 512, "%s in a row does not say which PASS",
                                            pass_filter_text(cx, f, text, sizeof text)));
    }
    if (o->n_matched == 0) {
        entry_text(o, e, text, sizeof text);
        pps_diag *diag =
            e->general || o->n_stages == 0
                ? entry_diag(o, row, e, 206, "%s matches nothing to order", text)
                : entry_diag(o, row, e, 204, "tag PP has indices 0 to %u, there is no PP %u",
                             o->n_stages - 1, e->stage);
        return pps_diag_done(diag);
    }
    *units = pass_entry_units(cx, e, *ret_pass);
    for (uint32_t i = 0; i < pass_n_units(units); i++)
        if (pass_unit(cx, units, i) == IR_NONE)
            return no_unit(o, row, e, pass_unit_at(units, i));
    return PPS_OK;
}

/* Does the chunk's class have one of these units? */
static bool runs_any(const pass_cx *cx, uint32_t chunk, const pass_units *units)
{
    const dag *d = cx->dag;
    bool any = d->n_classes == 1;
    for (uint32_t k = 0; k < pass_n_units(units) && !any; k++)
        any = dag_mb_index(d, chunk, pass_unit(cx, units, k)) != IR_NONE;
    return any;
}

/* IR_NONE: the chunk has no such pass, or its class not this microbatch. */
static uint32_t compute_node(const dag *d, uint32_t chunk, pps_pass pass, uint32_t mb)
{
    const dag_chunk *k = &d->chunks[chunk];
    uint32_t run = pass == PPS_PASS_F ? k->f : pass == PPS_PASS_BW ? k->w : k->b;
    uint32_t index = dag_mb_index(d, chunk, mb);
    return run == IR_NONE || index == IR_NONE ? IR_NONE : d->runs[run].first + index;
}

/* ---- pass one: which backwards are split -------------------------------------------------------
 */

static pps_status mark_split(order_cx *o, const ir_row *row, uint32_t index, uint32_t *whole_entry,
                             uint32_t *split_entry)
{
    pass_cx *cx = o->cx;
    dag *d = cx->dag;
    const ir_entry *e = &cx->program->entries[index];
    pass_units units;
    pps_pass pass;
    if (e->comm != PPS_COMM_NONE)
        return PPS_OK;
    PPS_TRY(entry_chunks(o, row, e, &units, &pass));
    if (pass == PPS_PASS_F)
        return PPS_OK;
    for (uint32_t i = 0; i < o->n_matched; i++)
        for (uint32_t k = 0; k < pass_n_units(&units); k++) {
            uint32_t mb = pass_unit(cx, &units, k);
            uint32_t turn = dag_mb_index(d, o->matched[i], mb);
            size_t at = (size_t)o->matched[i] * d->n_mb + turn;
            if (turn == IR_NONE)
                continue;
            uint32_t *mine = pass == PPS_PASS_B ? whole_entry : split_entry;
            uint32_t *other = pass == PPS_PASS_B ? split_entry : whole_entry;
            if (other[at] != IR_NONE) {
                pps_diag *diag = entry_diag(
                    o, row, e, 506, "backward of stage %u, microbatch %u is both whole and split",
                    dag_stage(d->graph, o->matched[i]) == IR_NONE
                        ? 0
                        : dag_stage(d->graph, o->matched[i]),
                    mb / d->n_slices);
                pps_diag_label(diag, pass == PPS_PASS_B ? "whole here" : "split here");
                pps_diag_also(diag, entry_span(o, &cx->program->entries[other[at]]),
                              pass == PPS_PASS_B ? "split here" : "whole here");
                return pps_diag_done(diag);
            }
            if (mine[at] == IR_NONE)
                mine[at] = index;
            if (pass != PPS_PASS_B)
                d->split_bw[at] = 1;
        }
    return PPS_OK;
}

/* ---- pass two: nodes
 * ----------------------------------------------------------------------------- */

static pps_status repeated(order_cx *o, uint32_t row_index, const ir_entry *e, uint32_t node)
{
    pass_cx *cx = o->cx;
    const ir_row *row = &cx->program->rows[row_index];
    uint32_t first = cx->node_entry[node];
    char text[256];
    dag_label(cx->dag, node, text, sizeof text);
    pps_diag *diag = o->node_row[node] == row_index
                         ? entry_diag(o, row, e, 507, "%s is already in this row at position %u",
                                      text, cx->node_slot[node])
                         : entry_diag(o, row, e, 507, "%s is already in another row", text);
    pps_diag_also(diag, entry_span(o, &cx->program->entries[first]), "first here");
    return pps_diag_done(diag);
}

static pps_status wrong_group(order_cx *o, const ir_row *row, const ir_entry *e,
                              const ir_entry *first, uint32_t group, uint32_t other)
{
    dag *d = o->cx->dag;
    char a[256], b[256], on_a[128], on_b[128];
    entry_text(o, first, a, sizeof a);
    entry_text(o, e, b, sizeof b);
    pass_devices_text(d->group_ranks + d->groups[group].ranks, d->groups[group].n_ranks, on_a,
                      sizeof on_a);
    pass_devices_text(d->group_ranks + d->groups[other].ranks, d->groups[other].n_ranks, on_b,
                      sizeof on_b);
    if (e->joins) {
        pps_diag *diag = entry_diag(
            o, row, e, 508, "%s and %s are on different devices, they cannot overlap", a, b);
        pps_diag_note(diag, "%s is on %s, %s on %s", a, on_a, b, on_b);
        return pps_diag_done(diag);
    }
    pps_diag *diag = entry_diag(o, row, e, 503, "a row orders work of one device group");
    pps_diag_label(diag, "%s is on %s", b, on_b);
    pps_diag_also(diag, entry_span(o, first), "%s is on %s", a, on_a);
    pps_diag_help(diag, "cross-device order comes from the dataflow; write one row per rank");
    return pps_diag_done(diag);
}

static pps_status push_node(order_cx *o, uint32_t node)
{
    if (o->n_nodes == o->cap_nodes) {
        uint32_t cap = o->cap_nodes * 2 + 64;
        uint32_t *bigger = arena_new(o->cx->phase, cap * sizeof *bigger);
        if (bigger == NULL)
            return PPS_ERR_NOMEM;
        if (o->n_nodes > 0)
            memcpy(bigger, o->nodes, o->n_nodes * sizeof *bigger);
        o->nodes = bigger;
        o->cap_nodes = cap;
    }
    o->nodes[o->n_nodes++] = node;
    return PPS_OK;
}

/* The nodes of one entry, in the order in which they run; they are marked as this entry's. */
static pps_status entry_nodes(order_cx *o, uint32_t row_index, uint32_t index, uint32_t slot,
                              uint32_t *group)
{
    pass_cx *cx = o->cx;
    dag *d = cx->dag;
    const ir_row *row = &cx->program->rows[row_index];
    const ir_entry *e = &cx->program->entries[index];
    pass_units units;
    pps_pass pass;
    PPS_TRY(entry_chunks(o, row, e, &units, &pass));
    for (uint32_t i = 0; i < o->n_matched; i++) {
        uint32_t here = d->chunks[o->matched[i]].group;
        if (!runs_any(cx, o->matched[i], &units))
            continue;
        if (*group == IR_NONE)
            *group = here;
        if (here != *group)
            return wrong_group(o, row, e, &cx->program->entries[row->begin], *group, here);
    }
    if (e->comm != PPS_COMM_NONE)
        return PPS_OK; /* transfers: transfer_order.c */
    for (uint32_t k = 0; k < pass_n_units(&units); k++) {
        uint32_t mb = pass_unit(cx, &units, k);
        for (uint32_t i = 0; i < o->n_matched; i++) {
            uint32_t chunk = o->matched[pass == PPS_PASS_F ? i : o->n_matched - 1 - i];
            uint32_t node = compute_node(d, chunk, pass, mb);
            if (node == IR_NONE)
                continue;
            if (cx->node_entry[node] != IR_NONE)
                return repeated(o, row_index, e, node);
            if (pass == PPS_PASS_BW) {
                uint32_t bi = compute_node(d, chunk, PPS_PASS_BI, mb);
                if (cx->node_entry[bi] == IR_NONE) {
                    char a[96];
                    dag_label(d, bi, a, sizeof a);
                    pps_diag *diag =
                        entry_diag(o, row, e, 505, "this BW comes before its input half, %s", a);
                    for (uint32_t j = index + 1; j < row->begin + row->n; j++) {
                        const ir_entry *later = &cx->program->entries[j];
                        if (!later->general && later->pass == PPS_PASS_BI &&
                            later->stage == e->stage && later->mb == e->mb && !e->general)
                            pps_diag_also(diag, entry_span(o, later), "which is here");
                    }
                    return pps_diag_done(diag);
                }
            }
            cx->node_entry[node] = index;
            cx->node_slot[node] = slot;
            o->node_row[node] = row_index;
            PPS_TRY(push_node(o, node));
        }
    }
    return PPS_OK;
}

static pps_status incomplete(order_cx *o, uint32_t group, const ir_row *row, uint32_t node,
                             uint32_t n_missing)
{
    pass_cx *cx = o->cx;
    dag *d = cx->dag;
    const dag_run *r = &d->runs[d->node_run[node]];
    const ir_entry *first = &cx->program->entries[row->begin];
    char text[96], on[128];
    dag_label(d, node, text, sizeof text);
    if (r->pass == PPS_PASS_BW) {
        const ir_entry *bi =
            &cx->program->entries[cx->node_entry[d->runs[d->chunks[r->chunk].b].first +
                                                 (node - r->first)]];
        char op[96];
        entry_text(o, bi, op, sizeof op);
        pps_diag *diag =
            entry_diag(o, row, bi, 504,
                       "%s has no BW in this row; the weight gradient would never be computed", op);
        if (!bi->general)
            pps_diag_help(diag, "append `BW(%u, %u)` or use `B(%u, %u)`", bi->stage, bi->mb,
                          bi->stage, bi->mb);
        return pps_diag_done(diag);
    }
    pass_devices_text(d->group_ranks + d->groups[group].ranks, d->groups[group].n_ranks, on,
                      sizeof on);
    pps_diag *diag = n_missing > 1
                         ? entry_diag(o, row, first, 509, "the row of %s leaves out %s and %u more",
                                      on, text, n_missing - 1)
                         : entry_diag(o, row, first, 509, "the row of %s leaves out %s", on, text);
    pps_diag_note(diag, "a row names every op of its devices once; without any row they run in the "
                        "default order");
    return pps_diag_done(diag);
}

static pps_status read_row(order_cx *o, uint32_t row_index)
{
    pass_cx *cx = o->cx;
    dag *d = cx->dag;
    ir_program *p = cx->program;
    const ir_row row = p->rows[row_index];
    uint32_t group = IR_NONE, at = 0, slot = 0;
    uint32_t *slot_last, *order;
    PASS_ALLOC(slot_last, cx->ordering, row.n_groups);
    o->n_nodes = 0;

    /* length is known only afterwards: nodes of all slots first, then in place */
    uint32_t *merged = NULL, cap = 0;
    for (uint32_t i = row.begin; i < row.begin + row.n;) {
        uint32_t begin = o->n_nodes, n_ops = 0;
        o->counts[0] = 0;
        do {
            uint32_t before = o->n_nodes;
            PPS_TRY(entry_nodes(o, row_index, i, slot, &group));
            o->counts[n_ops++] = o->n_nodes - before;
            i++;
        } while (i < row.begin + row.n && p->entries[i].joins);
        uint32_t n = o->n_nodes - begin;
        if (n_ops > 1 && n > 0) {
            if (n > cap) {
                cap = 2 * n;
                PASS_ALLOC(merged, cx->phase, cap);
            }
            PPS_TRY(pass_interleave(cx, o->nodes + begin, o->counts, n_ops, merged));
            memcpy(o->nodes + begin, merged, n * sizeof *merged);
            for (uint32_t k = begin; k < o->n_nodes; k++)
                cx->node_overlap[o->nodes[k]] = 1;
        }
        if (n > 0) {
            slot_last[slot] = o->nodes[o->n_nodes - 1];
        } else {
            slot_last[slot] = slot > 0 ? slot_last[slot - 1] : IR_NONE;
        }
        slot++;
    }
    if (cx->group_row[group] != IR_NONE) {
        char on[128];
        pass_devices_text(d->group_ranks + d->groups[group].ranks, d->groups[group].n_ranks, on,
                          sizeof on);
        const ir_row *first = &p->rows[cx->group_row[group]];
        pps_diag *diag =
            entry_diag(o, &row, &p->entries[row.begin], 510, "devices %s have two rows", on);
        pps_diag_also(diag, entry_span(o, &p->entries[first->begin]), "the other begins here");
        pps_diag_help(diag, "write one row per device group: a -> b");
        return pps_diag_done(diag);
    }
    cx->group_row[group] = row_index;
    cx->slot_last[group] = slot_last;
    cx->n_slots[group] = slot;

    PASS_ALLOC(order, cx->ordering, o->n_nodes + d->n_buckets);
    memcpy(order, o->nodes, o->n_nodes * sizeof *order);
    at = o->n_nodes;
    for (uint32_t b = 0; b < d->n_buckets; b++)
        if (d->buckets[b].group == group)
            order[at++] = d->runs[d->buckets[b].update].first;
    cx->group_order[group] = (ir_range){0, at};
    cx->order_of[group] = order;
    for (uint32_t i = 0; i < at; i++)
        cx->node_pos[order[i]] = i;
    return PPS_OK;
}

/* Every alive compute node is in its group's row. */
static pps_status check_complete(order_cx *o)
{
    pass_cx *cx = o->cx;
    dag *d = cx->dag;
    for (uint32_t g = 0; g < d->n_groups; g++) {
        uint32_t missing = IR_NONE, n = 0;
        for (uint32_t r = 0; r < d->n_runs; r++) {
            if (d->runs[r].kind != PLAN_COMPUTE || d->runs[r].group != g)
                continue;
            for (uint32_t m = 0; m < d->runs[r].n; m++) {
                uint32_t node = d->runs[r].first + m;
                if (!dag_alive(d, node) || cx->node_entry[node] != IR_NONE)
                    continue;
                if (missing == IR_NONE)
                    missing = node;
                n++;
            }
        }
        if (missing != IR_NONE)
            return incomplete(o, g, &cx->program->rows[cx->group_row[g]], missing, n);
    }
    return PPS_OK;
}

static pps_status index_stages(order_cx *o, bool defaults)
{
    pass_cx *cx = o->cx;
    const ir_graph *g = cx->program->graph;
    uint32_t *stage;
    uint32_t current = 0, n = 0;
    PASS_ALLOC(stage, cx->phase, g->n_chunks);
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        stage[c] = dag_stage(g, c);
        if (stage[c] == IR_NONE && defaults)
            stage[c] = current;
        if (stage[c] != IR_NONE)
            current = stage[c];
        if (stage[c] != IR_NONE && stage[c] >= n)
            n = stage[c] + 1;
    }
    o->n_stages = n;
    PASS_ALLOC(o->stage_chunks, cx->phase, n);
    PASS_ALLOC(o->chunk_list, cx->phase, g->n_chunks);
    for (uint32_t c = 0; c < g->n_chunks; c++)
        if (stage[c] != IR_NONE)
            o->stage_chunks[stage[c]].n++;
    uint32_t at = 0;
    for (uint32_t s = 0; s < n; s++) {
        o->stage_chunks[s].begin = at;
        at += o->stage_chunks[s].n;
        o->stage_chunks[s].n = 0;
    }
    for (uint32_t c = 0; c < g->n_chunks; c++)
        if (stage[c] != IR_NONE) {
            ir_range *list = &o->stage_chunks[stage[c]];
            o->chunk_list[list->begin + list->n++] = c;
        }
    return PPS_OK;
}

pps_status pass_order(pass_cx *cx)
{
    dag *d = cx->dag;
    ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    order_cx o = {.cx = cx, .of_group = IR_NONE};
    size_t backwards = (size_t)g->n_chunks * d->n_mb;
    uint32_t *whole, *split;
    bool *has_row;
    PASS_ALLOC(cx->node_pos, cx->ordering, d->n_nodes);
    PASS_ALLOC(cx->node_slot, cx->nodes, d->n_nodes);
    PASS_ALLOC(cx->node_entry, cx->nodes, d->n_nodes);
    PASS_ALLOC(cx->node_overlap, cx->nodes, d->n_nodes);
    PASS_ALLOC(cx->group_order, cx->scratch, d->n_groups);
    PASS_ALLOC(cx->order_of, cx->ordering, d->n_groups);
    PASS_ALLOC(cx->group_row, cx->scratch, d->n_groups);
    PASS_ALLOC(cx->slot_last, cx->ordering, d->n_groups);
    PASS_ALLOC(cx->n_slots, cx->ordering, d->n_groups);
    PASS_ALLOC(o.node_row, cx->phase, d->n_nodes);
    PASS_ALLOC(o.matched, cx->phase, g->n_chunks);
    PASS_ALLOC(whole, cx->phase, backwards);
    PASS_ALLOC(split, cx->phase, backwards);
    PASS_ALLOC(has_row, cx->phase, d->n_groups);
    uint32_t widest = 1;
    for (uint32_t r = 0; r < p->n_rows; r++)
        widest = p->rows[r].n > widest ? p->rows[r].n : widest;
    PASS_ALLOC(o.counts, cx->phase, widest);
    memset(whole, 0xff, backwards * sizeof *whole);
    memset(split, 0xff, backwards * sizeof *split);
    memset(cx->node_entry, 0xff, d->n_nodes * sizeof *cx->node_entry);
    memset(cx->node_slot, 0xff, d->n_nodes * sizeof *cx->node_slot);
    for (uint32_t i = 0; i < d->n_groups; i++)
        cx->group_row[i] = IR_NONE;

    PPS_TRY(index_stages(&o, false));
    uint32_t n_given = p->n_rows;
    for (uint32_t r = 0; r < n_given; r++)
        for (uint32_t i = 0; i < p->rows[r].n; i++)
            PPS_TRY(mark_split(&o, &p->rows[r], p->rows[r].begin + i, whole, split));
    for (uint32_t r = 0; r < n_given; r++) {
        if (p->rows[r].n == 0)
            continue;
        PPS_TRY(read_row(&o, r));
    }
    bool all = true;
    for (uint32_t i = 0; i < d->n_groups; i++) {
        has_row[i] = cx->group_row[i] != IR_NONE;
        all &= has_row[i];
    }
    if (!all) {
        PPS_TRY(pass_default_rows(cx, has_row));
        PPS_TRY(index_stages(&o, true));
        o.of_group = 0;
        for (uint32_t r = n_given; r < p->n_rows; r++, o.of_group++) {
            const uint32_t n = p->rows[r].n;
            while (has_row[o.of_group])
                o.of_group++;
            if (n > widest) {
                widest = n;
                PASS_ALLOC(o.counts, cx->phase, widest);
            }
            PPS_TRY(read_row(&o, r));
        }
    }
    dag_count(d);
    PPS_TRY(check_complete(&o));
    return pass_transfer_order(cx);
}
