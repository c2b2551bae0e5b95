/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer_order.c: rows that name transfers. Left alone, the schedule pass orders transfers so
 * that they cannot block each other. A row may take that over: SEND(F(0, 1)) names the transfers of
 * what F(0, 1) makes, RECV(F(2, 0)) those of what it needs. They then run one after the other in
 * the order of the row, none before the compute named ahead of it.
 */
#include "passes/pass.h"

#include <string.h>

pps_status pass_add_extra(pass_cx *cx, uint32_t src, uint32_t dst, uint32_t entry)
{
    if (cx->n_extra == cx->cap_extra) {
        uint32_t cap = cx->cap_extra * 2 + 64;
        uint32_t **arrays[3] = {&cx->extra_src, &cx->extra_dst, &cx->extra_entry};
        for (int i = 0; i < 3; i++) {
            uint32_t *copy = arena_new(cx->nodes, cap * sizeof *copy);
            if (copy == NULL)
                return PPS_ERR_NOMEM;
            if (cx->n_extra > 0)
                memcpy(copy, *arrays[i], cx->n_extra * sizeof *copy);
            *arrays[i] = copy;
        }
        cx->cap_extra = cap;
    }
    cx->extra_src[cx->n_extra] = src;
    cx->extra_dst[cx->n_extra] = dst;
    cx->extra_entry[cx->n_extra++] = entry;
    return PPS_OK;
}

static bool names(const pass_cx *cx, const ir_entry *e, uint32_t chunk)
{
    if (!e->general)
        return dag_stage(cx->program->graph, chunk) == e->stage;
    pass_match m;
    return pass_match_chunk(cx, &cx->program->filters[e->filter], chunk, &m);
}

/* The run of the transfer of `link` that `e` names, or IR_NONE. */
static uint32_t transfer_run(const pass_cx *cx, const ir_entry *e, const dag_link *l)
{
    bool forward = e->pass == PPS_PASS_F, send = e->comm == PPS_COMM_SEND;
    uint32_t end = forward == send ? l->src : l->dst; /* the chunk whose op the entry names */
    if (!names(cx, e, end))
        return IR_NONE;
    if (forward)
        return send ? l->f_send : l->f_recv;
    return send ? l->b_send : l->b_recv;
}

pps_status pass_transfer_order(pass_cx *cx)
{
    const ir_program *p = cx->program;
    const dag *d = cx->dag;
    uint32_t *before, *now;
    PASS_ALLOC(before, cx->scratch, d->n_links);
    PASS_ALLOC(now, cx->scratch, d->n_links);
    for (uint32_t r = 0; r < p->n_rows; r++) {
        uint32_t compute = IR_NONE, n_before = 0, group = IR_NONE, slot = 0;
        for (uint32_t i = p->rows[r].begin; i < p->rows[r].begin + p->rows[r].n; i++) {
            const ir_entry *e = &p->entries[i];
            bool joined =
                e->joins || (i + 1 < p->rows[r].begin + p->rows[r].n && p->entries[i + 1].joins);
            slot += i > p->rows[r].begin && !e->joins;
            if (e->comm == PPS_COMM_NONE) {
                for (uint32_t g = 0; g < d->n_groups && group == IR_NONE; g++)
                    if (cx->group_row[g] == r)
                        group = g;
                if (group != IR_NONE && slot < cx->n_slots[group])
                    compute = cx->slot_last[group][slot];
                continue;
            }
            pps_span span = pps_origin_span(cx->st, e->origin);
            if (joined)
                return pps_error(cx->st, span, 513,
                                 "a transfer cannot be part of an overlapped group");
            pass_units units = pass_entry_units(cx, e, (pps_pass)e->pass);
            for (uint32_t u = 0; u < pass_n_units(&units); u++) {
                uint32_t n_now = 0, unit = pass_unit(cx, &units, u);
                for (uint32_t l = 0; l < d->n_links && unit != IR_NONE; l++) {
                    uint32_t run = transfer_run(cx, e, &d->links[l]);
                    uint32_t turn =
                        run != IR_NONE ? dag_mb_index(d, d->links[l].dst, unit) : IR_NONE;
                    if (turn == IR_NONE)
                        continue;
                    uint32_t node = d->runs[run].first + turn;
                    if (compute != IR_NONE)
                        PPS_TRY(pass_add_extra(cx, compute, node, i));
                    for (uint32_t k = 0; k < n_before; k++)
                        PPS_TRY(pass_add_extra(cx, before[k], node, i));
                    now[n_now++] = node;
                }
                if (n_now == 0)
                    return pps_error(cx->st, span, 514,
                                     "this op %s nothing: its data stays on one device group",
                                     e->comm == PPS_COMM_SEND ? "sends" : "receives");
                memcpy(before, now, n_now * sizeof *now);
                n_before = n_now;
            }
        }
    }
    return PPS_OK;
}
