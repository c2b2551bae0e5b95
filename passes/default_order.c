/* SPDX-License-Identifier: Apache-2.0
 *
 * default_order.c: rows for device groups that have none: 1F1B by dataflow.
 *
 * The stages run in virtual time (F = 1, B = 2) under one rule: a backward that is ready goes
 * first; a forward may start while fewer microbatches of its stage are under way than stages lie
 * from it to the end. On one stage per group this is 1F1B. What is run is written down, so the rows
 * can be followed. Groups that have rows take part with the same rule; only the others' rows are
 * kept.
 */
#include "passes/pass.h"

#include <stdio.h>
#include <string.h>

typedef struct stage {
    uint32_t group, cap;
    uint32_t n_f, n_b;       /* started */
    uint32_t done_f, done_b; /* finished */
    ir_range preds, succs;   /* stages it reads from, stages that read from it */
    bool backward;
} stage;

typedef struct sim {
    pass_cx *cx;
    stage *stages;
    uint32_t n_stages;
    uint32_t *edges;
    ir_range *group_stages; /* [n_groups] in group_list */
    uint32_t *group_list;
    double *busy_until;
    uint32_t *running; /* [n_groups] stage, or IR_NONE */
    bool *running_b;
    ir_entry **rows; /* [n_groups] */
    uint32_t *n_row;
} sim;

static pps_status make_stages(sim *s)
{
    pass_cx *cx = s->cx;
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    uint32_t *of, current = 0;
    PASS_ALLOC(of, cx->phase, g->n_chunks);
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        uint32_t tag = dag_stage(g, c);
        of[c] = current = tag == IR_NONE ? current : tag;
        if (of[c] >= s->n_stages)
            s->n_stages = of[c] + 1;
    }
    PASS_ALLOC(s->stages, cx->phase, s->n_stages);
    for (uint32_t i = 0; i < s->n_stages; i++)
        s->stages[i].group = IR_NONE;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        stage *k = &s->stages[of[c]];
        if (k->group == IR_NONE)
            k->group = d->chunks[c].group;
        k->backward |= d->chunks[c].b != IR_NONE;
    }
    /* distinct neighbours */
    uint8_t *joined;
    PASS_ALLOC(joined, cx->phase, (size_t)s->n_stages * s->n_stages);
    uint32_t n_edges = 0;
    for (uint32_t l = 0; l < d->n_links; l++) {
        uint32_t a = of[d->links[l].src], b = of[d->links[l].dst];
        if (a != b && !joined[(size_t)a * s->n_stages + b]) {
            joined[(size_t)a * s->n_stages + b] = 1;
            n_edges++;
        }
    }
    PASS_ALLOC(s->edges, cx->phase, 2 * (size_t)n_edges);
    uint32_t at = 0;
    for (uint32_t i = 0; i < s->n_stages; i++) {
        stage *k = &s->stages[i];
        k->preds.begin = at;
        for (uint32_t j = 0; j < s->n_stages; j++)
            if (joined[(size_t)j * s->n_stages + i])
                s->edges[at++] = j;
        k->preds.n = at - k->preds.begin;
        k->succs.begin = at;
        for (uint32_t j = 0; j < s->n_stages; j++)
            if (joined[(size_t)i * s->n_stages + j])
                s->edges[at++] = j;
        k->succs.n = at - k->succs.begin;
    }
    /* stages to the end, by relaxation from the last: edges go from lower to higher stage */
    for (uint32_t i = s->n_stages; i-- > 0;) {
        s->stages[i].cap = 1;
        for (uint32_t k = 0; k < s->stages[i].succs.n; k++) {
            uint32_t j = s->edges[s->stages[i].succs.begin + k];
            if (j > i && s->stages[j].cap + 1 > s->stages[i].cap)
                s->stages[i].cap = s->stages[j].cap + 1;
        }
    }
    PASS_ALLOC(s->group_stages, cx->phase, d->n_groups);
    PASS_ALLOC(s->group_list, cx->phase, s->n_stages);
    at = 0;
    for (uint32_t i = 0; i < d->n_groups; i++) {
        s->group_stages[i].begin = at;
        for (uint32_t k = 0; k < s->n_stages; k++)
            if (s->stages[k].group == i)
                s->group_list[at++] = k;
        s->group_stages[i].n = at - s->group_stages[i].begin;
    }
    return PPS_OK;
}

/* What `group` would run now: *ret_stage, *ret_backward; false when nothing is ready. */
static bool choose(const sim *s, uint32_t group, uint32_t *ret_stage, bool *ret_backward)
{
    uint32_t n_mb = s->cx->dag->n_mb, best = IR_NONE;
    ir_range list = s->group_stages[group];
    for (uint32_t i = list.n; i-- > 0;) { /* later stages first: their backward frees the most */
        const stage *k = &s->stages[s->group_list[list.begin + i]];
        bool ready = k->backward && k->n_b < n_mb && k->n_b < k->done_f;
        for (uint32_t j = 0; j < k->succs.n && ready; j++) {
            const stage *next = &s->stages[s->edges[k->succs.begin + j]];
            ready = !next->backward || next->done_b > k->n_b;
        }
        if (ready && (best == IR_NONE || k->n_b < s->stages[best].n_b))
            best = s->group_list[list.begin + i];
    }
    if (best != IR_NONE) {
        *ret_stage = best;
        *ret_backward = true;
        return true;
    }
    for (uint32_t i = list.n; i-- > 0;) {
        const stage *k = &s->stages[s->group_list[list.begin + i]];
        bool ready = k->n_f < n_mb && (!k->backward || k->n_f - k->done_b < k->cap);
        for (uint32_t j = 0; j < k->preds.n && ready; j++)
            ready = s->stages[s->edges[k->preds.begin + j]].done_f > k->n_f;
        if (ready && (best == IR_NONE || k->n_f < s->stages[best].n_f))
            best = s->group_list[list.begin + i];
    }
    *ret_stage = best;
    *ret_backward = false;
    return best != IR_NONE;
}

static void start(sim *s, uint32_t group, double now)
{
    uint32_t which;
    bool backward;
    if (s->running[group] != IR_NONE || !choose(s, group, &which, &backward))
        return;
    stage *k = &s->stages[which];
    ir_entry e = {.stage = which, .pass = backward ? PPS_PASS_B : PPS_PASS_F};
    e.mb = backward ? k->n_b++ : k->n_f++;
    s->rows[group][s->n_row[group]++] = e;
    s->running[group] = which;
    s->running_b[group] = backward;
    s->busy_until[group] = now + (backward ? 2.0 : 1.0);
}

/* Earliest group to finish; groups are few, and each turn starts at least one op. */
static bool finish_next(sim *s, double *now)
{
    uint32_t n = s->cx->dag->n_groups;
    double soonest = -1.0;
    for (uint32_t g = 0; g < n; g++)
        if (s->running[g] != IR_NONE && (soonest < 0.0 || s->busy_until[g] < soonest))
            soonest = s->busy_until[g];
    if (soonest < 0.0)
        return false;
    for (uint32_t g = 0; g < n; g++)
        if (s->running[g] != IR_NONE && s->busy_until[g] <= soonest) {
            stage *k = &s->stages[s->running[g]];
            if (s->running_b[g])
                k->done_b++;
            else
                k->done_f++;
            s->running[g] = IR_NONE;
        }
    *now = soonest;
    return true;
}

static pps_status append_row(pass_cx *cx, const ir_entry *entries, uint32_t n)
{
    ir_program *p = cx->program;
    if (p->n_entries + n > p->cap_entries) {
        uint32_t cap = (p->n_entries + n) * 2;
        ir_entry *bigger = arena_new(p->mem, cap * sizeof *bigger);
        if (bigger == NULL)
            return PPS_ERR_NOMEM;
        if (p->n_entries > 0)
            memcpy(bigger, p->entries, p->n_entries * sizeof *bigger);
        p->entries = bigger;
        p->cap_entries = cap;
    }
    if (p->n_rows == p->cap_rows) {
        uint32_t cap = p->cap_rows * 2 + 16;
        ir_row *bigger = arena_new(p->mem, cap * sizeof *bigger);
        if (bigger == NULL)
            return PPS_ERR_NOMEM;
        if (p->n_rows > 0)
            memcpy(bigger, p->rows, p->n_rows * sizeof *bigger);
        p->rows = bigger;
        p->cap_rows = cap;
    }
    p->rows[p->n_rows++] =
        (ir_row){.begin = p->n_entries, .n = n, .n_groups = n, .directive = IR_NONE};
    memcpy(p->entries + p->n_entries, entries, n * sizeof *entries);
    p->n_entries += n;
    return PPS_OK;
}

pps_status pass_default_rows(pass_cx *cx, const bool *has_row)
{
    const dag *d = cx->dag;
    sim s = {.cx = cx};
    double now = 0.0;
    PPS_TRY(make_stages(&s));
    PASS_ALLOC(s.busy_until, cx->phase, d->n_groups);
    PASS_ALLOC(s.running, cx->phase, d->n_groups);
    PASS_ALLOC(s.running_b, cx->phase, d->n_groups);
    PASS_ALLOC(s.n_row, cx->phase, d->n_groups);
    PASS_ALLOC(s.rows, cx->phase, d->n_groups);
    for (uint32_t g = 0; g < d->n_groups; g++) {
        s.running[g] = IR_NONE;
        PASS_ALLOC(s.rows[g], cx->phase, 2 * (size_t)s.group_stages[g].n * d->n_mb);
    }
    do {
        for (uint32_t g = 0; g < d->n_groups; g++)
            start(&s, g, now);
    } while (finish_next(&s, &now));

    char which[256] = "";
    size_t at = 0;
    uint32_t n = 0, multi = 0;
    for (uint32_t g = 0; g < d->n_groups; g++) {
        if (has_row[g])
            continue;
        char on[96];
        pass_devices_text(d->group_ranks + d->groups[g].ranks, d->groups[g].n_ranks, on, sizeof on);
        if (at + strlen(on) + 8 < sizeof which)
            at += (size_t)snprintf(which + at, sizeof which - at, "%s%s", n > 0 ? ", " : "", on);
        n++;
        multi += s.n_row[g] > 2;
        PPS_TRY(append_row(cx, s.rows[g], s.n_row[g]));
    }
    if (multi > 0 && d->n_groups > 1) {
        const ir_program *p = cx->program;
        pps_diag *note =
            pps_diag_start(cx->st, PPS_SEV_NOTE, 515, p->train.source->span,
                           "no `order` for devices %s: they run 1F1B by dataflow", which);
        pps_diag_done(note);
    }
    return PPS_OK;
}
