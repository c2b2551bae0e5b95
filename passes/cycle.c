/* SPDX-License-Identifier: Apache-2.0
 *
 * cycle.c: why an order cannot run: a row that contradicts the dataflow alone, with the path, or
 * the shortest cycle over several rows, told edge by edge with the script's lines.
 */
#include "passes/schedule.h"

#include <stdio.h>
#include <string.h>

typedef struct search {
    const schedule_graph *s;
    uint32_t *waiting;
    uint32_t *from; /* breadth-first tree */
    uint32_t *queue;
    uint32_t n, at, current;
    uint32_t target;
    bool found;
} search;

/* Edges that follow from rows cannot be part of a cycle of their own: leave out just-in-time ones,
 * and those into the work of windows. */
static bool is_jit(const search *x, uint32_t from, uint32_t to)
{
    const dag *d = x->s->cx->dag;
    return x->s->cx->jit[to] == from || dag_of_bucket(&d->runs[d->node_run[to]]);
}

static void count(void *ud, uint32_t v)
{
    search *x = ud;
    if (!is_jit(x, x->current, v))
        x->waiting[v]++;
}

static void drop(void *ud, uint32_t v)
{
    search *x = ud;
    if (!is_jit(x, x->current, v) && --x->waiting[v] == 0)
        x->queue[x->n++] = v;
}

static void reach(void *ud, uint32_t v)
{
    search *x = ud;
    if (is_jit(x, x->current, v) || x->waiting[v] == 0 || x->found)
        return;
    if (v == x->target) {
        x->found = true;
        return;
    }
    if (x->from[v] == IR_NONE) {
        x->from[v] = x->current;
        x->queue[x->n++] = v;
    }
}

static void mark_from(void *ud, uint32_t v)
{
    search *x = ud;
    if (!is_jit(x, x->current, v) && x->waiting[v] != 0)
        x->from[v] = x->current;
}

/* Is u -> v the row's word (and not the dataflow's)? */
static bool row_edge(const pass_cx *cx, uint32_t u, uint32_t v)
{
    const dag *d = cx->dag;
    const dag_run *a = &d->runs[d->node_run[u]], *b = &d->runs[d->node_run[v]];
    return a->group == b->group && a->kind == PLAN_COMPUTE && b->kind == PLAN_COMPUTE &&
           cx->node_pos[u] + 1 == cx->node_pos[v] && cx->node_entry[u] != cx->node_entry[v];
}

/* Is the step of the cycle from `i` on the word of this group's row? */
static bool in_row(const pass_cx *cx, uint32_t group, const uint32_t *cycle, uint32_t n, uint32_t i)
{
    return cx->dag->runs[cx->dag->node_run[cycle[i]]].group == group &&
           row_edge(cx, cycle[i], cycle[(i + 1) % n]);
}

/* The extra edge (a row's word about transfers) that leads from vertex u to v, or IR_NONE. Those
 * that no row says are told as dataflow. */
static uint32_t extra_edge(const pass_cx *cx, uint32_t u, uint32_t v)
{
    for (uint32_t e = 0; e < cx->n_extra; e++)
        if (cx->extra_entry[e] != IR_NONE && schedule_vertex(cx->dag, cx->extra_src[e]) == u &&
            schedule_vertex(cx->dag, cx->extra_dst[e]) == v)
            return e;
    return IR_NONE;
}

static const ir_entry *entry_of(const pass_cx *cx, uint32_t v)
{
    uint32_t e = cx->node_entry[v];
    return e == IR_NONE ? NULL : &cx->program->entries[e];
}

static void op_text(const pass_cx *cx, uint32_t v, char *buffer, size_t n)
{
    static const char *const passes[] = {"F", "B", "BI", "BW"};
    const ir_entry *e = entry_of(cx, v);
    if (e != NULL && !e->general && e->slice == 0)
        snprintf(buffer, n, "%s(%u, %u)", passes[e->pass], e->stage, e->mb);
    else
        dag_label(cx->dag, v, buffer, n);
}

static void place_text(pass_cx *cx, pps_span span, char *buffer, size_t n)
{
    const char *file;
    uint32_t line, column;
    if (span.file == 0) {
        snprintf(buffer, n, "default order");
        return;
    }
    pps_span_place(cx->st, span, &file, &line, &column);
    snprintf(buffer, n, "%s:%u:%u", file, line, column);
}

static pps_span entry_span(pass_cx *cx, uint32_t v)
{
    const ir_entry *e = entry_of(cx, v);
    pps_span none = {0};
    return e == NULL ? none : pps_origin_span(cx->st, e->origin);
}

static pps_span row_span(pass_cx *cx, uint32_t v)
{
    pps_span span = entry_span(cx, v);
    uint32_t row = cx->group_row[cx->dag->runs[cx->dag->node_run[v]].group];
    uint32_t order = cx->program->rows[row].directive;
    if (span.file == 0 && order != IR_NONE)
        span = cx->program->orders[order]->span;
    return span;
}

/* One row against the dataflow: `first` is named before `then`, but needs it. */
static pps_status report_one(pass_cx *cx, const uint32_t *cycle, uint32_t n, uint32_t first,
                             uint32_t then)
{
    char a[96], b[96], path[512];
    size_t at = 0;
    uint32_t shown = 0, last_entry = IR_NONE;
    op_text(cx, cycle[then], a, sizeof a);
    op_text(cx, cycle[first], b, sizeof b);
    pps_diag *diag = pps_diag_start(cx->st, PPS_SEV_ERROR, 501, row_span(cx, cycle[then]),
                                    "this order contradicts the dataflow");
    pps_diag_label(diag, "%s must run before %s", a, b);
    pps_diag_also(diag, row_span(cx, cycle[first]),
                  cx->node_slot[cycle[first]] == cx->node_slot[cycle[then]]
                      ? "%s overlaps it here"
                      : "%s is named here, ahead of it",
                  b);
    for (uint32_t i = then;; i = (i + 1) % n) {
        uint32_t v = cycle[i];
        if (cx->dag->runs[cx->dag->node_run[v]].kind == PLAN_COMPUTE &&
            (cx->node_entry[v] != last_entry || cx->node_entry[v] == IR_NONE)) {
            char op[96];
            op_text(cx, v, op, sizeof op);
            last_entry = cx->node_entry[v];
            shown++;
            if ((shown <= 5 || i == first) && at + strlen(op) + 10 < sizeof path)
                at +=
                    (size_t)snprintf(path + at, sizeof path - at, "%s%s", at > 0 ? " -> " : "", op);
            else if (shown == 6 && at + 10 < sizeof path)
                at += (size_t)snprintf(path + at, sizeof path - at, " -> ...");
        }
        if (i == first)
            break;
    }
    pps_diag_note(diag, "%s", path);
    return pps_diag_done(diag);
}

static uint32_t row_of_entry(const pass_cx *cx, uint32_t entry)
{
    uint32_t r = 0;
    while (r < cx->program->n_rows &&
           (entry < cx->program->rows[r].begin ||
            entry - cx->program->rows[r].begin >= cx->program->rows[r].n))
        r++;
    return r;
}

/* The row behind a step of the cycle, IR_NONE for the dataflow; and the place in it. */
static uint32_t step_row(pass_cx *cx, uint32_t u, uint32_t v, pps_span *ret_span)
{
    uint32_t e = extra_edge(cx, u, v);
    if (e != IR_NONE) {
        *ret_span = pps_origin_span(cx->st, cx->program->entries[cx->extra_entry[e]].origin);
        return row_of_entry(cx, cx->extra_entry[e]);
    }
    if (!row_edge(cx, u, v))
        return IR_NONE;
    *ret_span = row_span(cx, v);
    return cx->group_row[cx->dag->runs[cx->dag->node_run[u]].group];
}

/* A stretch of one row, from position k of the cycle on, which is told up to `end`; returns its
 * last position. */
static uint32_t note_row(pass_cx *cx, pps_diag *diag, const uint32_t *cycle, uint32_t n, uint32_t k,
                         uint32_t end)
{
    dag *d = cx->dag;
    uint32_t u = cycle[k % n], w = cycle[(k + 1) % n], group = d->runs[d->node_run[u]].group;
    char a[96], b[96], where[160], on[96];
    while (k + 2 <= end && row_edge(cx, w, cycle[(k + 2) % n]))
        w = cycle[(++k + 1) % n];
    op_text(cx, u, a, sizeof a);
    op_text(cx, w, b, sizeof b);
    place_text(cx, row_span(cx, w), where, sizeof where);
    pass_devices_text(d->group_ranks + d->groups[group].ranks, d->groups[group].n_ranks, on,
                      sizeof on);
    pps_diag_note(diag, "%s before %s: row of %s, positions %u and %u, %s", a, b, on,
                  cx->node_slot[u], cx->node_slot[w], where);
    return k;
}

static pps_status report_many(pass_cx *cx, const uint32_t *cycle, uint32_t n)
{
    dag *d = cx->dag;
    pps_span span = {0}, here = {0};
    uint32_t row = IR_NONE, lines = 0, begin = 0;
    bool several = false;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t mine = step_row(cx, cycle[i], cycle[(i + 1) % n], &here);
        if (mine == IR_NONE)
            continue;
        several |= row != IR_NONE && row != mine;
        span = row == IR_NONE ? here : span;
        row = mine;
        /* begin where a row does, so that its stretch is not cut */
        if (!row_edge(cx, cycle[(i + n - 1) % n], cycle[i]))
            begin = i;
    }
    pps_diag *diag = pps_diag_start(cx->st, PPS_SEV_ERROR, several ? 502 : 501, span,
                                    several ? "the rows wait for each other"
                                            : "this order contradicts the dataflow");
    for (uint32_t k = begin; k < begin + n && lines < 24; k++) {
        uint32_t u = cycle[k % n], v = cycle[(k + 1) % n], e = extra_edge(cx, u, v);
        char a[96], b[96], where[160];
        if (e != IR_NONE) {
            op_text(cx, cx->extra_src[e], a, sizeof a);
            op_text(cx, cx->extra_dst[e], b, sizeof b);
            step_row(cx, u, v, &here);
            place_text(cx, here, where, sizeof where);
            pps_diag_note(diag, "%s before %s: order, %s", a, b, where);
            lines++;
            continue;
        }
        bool named = extra_edge(cx, cycle[(k + n - 1) % n], u) != IR_NONE; /* a row's transfer */
        if (d->runs[d->node_run[u]].kind != PLAN_COMPUTE && !named)
            continue;
        if (row_edge(cx, u, v)) {
            k = note_row(cx, diag, cycle, n, k, begin + n);
            lines++;
            continue;
        }
        /* dataflow: to the next compute of another op, or to a transfer that a row names */
        uint32_t j = k + 1;
        while (j < k + n && d->runs[d->node_run[cycle[j % n]]].kind != PLAN_COMPUTE &&
               extra_edge(cx, cycle[j % n], cycle[(j + 1) % n]) == IR_NONE)
            j++;
        v = cycle[j % n];
        if (cx->node_entry[u] != IR_NONE && cx->node_entry[u] == cx->node_entry[v])
            continue;
        op_text(cx, u, a, sizeof a);
        op_text(cx, v, b, sizeof b);
        pps_diag_note(diag, "%s before %s: dataflow", a, b);
        lines++;
    }
    return pps_diag_done(diag);
}

/* The shortest cycle through a stuck vertex: each waits for the one before it. *ret_n is 0 when
 * there is no cycle. */
static pps_status find_cycle(pass_cx *cx, const schedule_graph *s, uint32_t *ret, uint32_t *ret_n)
{
    const dag *d = cx->dag;
    search x = {.s = s};
    PASS_ALLOC(x.waiting, cx->phase, d->n_nodes);
    PASS_ALLOC(x.queue, cx->phase, d->n_nodes + 1);
    PASS_ALLOC(x.from, cx->phase, d->n_nodes);
    *ret_n = 0;
    for (uint32_t v = 0; v < d->n_nodes; v++)
        if (schedule_vertex(d, v) == v && dag_alive(d, v)) {
            x.current = v;
            schedule_successors(s, v, count, &x);
        }
    for (uint32_t v = 0; v < d->n_nodes; v++)
        if (schedule_vertex(d, v) == v && dag_alive(d, v) && x.waiting[v] == 0)
            x.queue[x.n++] = v;
    while (x.at < x.n) {
        x.current = x.queue[x.at++];
        schedule_successors(s, x.current, drop, &x);
    }
    /* What still waits has a predecessor that waits: walking these back ends in a cycle. From a
     * vertex on it, the shortest way back to itself. */
    uint32_t start = IR_NONE;
    memset(x.from, 0xff, d->n_nodes * sizeof *x.from);
    for (uint32_t v = 0; v < d->n_nodes; v++)
        if (x.waiting[v] != 0) {
            x.current = start = v;
            schedule_successors(s, v, mark_from, &x);
        }
    if (start == IR_NONE)
        return PPS_OK;
    for (uint32_t steps = 0; steps < d->n_nodes && x.from[start] != IR_NONE; steps++)
        start = x.from[start];
    memset(x.from, 0xff, d->n_nodes * sizeof *x.from);
    x.n = x.at = 0;
    x.queue[x.n++] = x.target = start;
    while (x.at < x.n && !x.found) {
        x.current = x.queue[x.at++];
        schedule_successors(s, x.current, reach, &x);
    }
    if (!x.found)
        return PPS_OK;
    uint32_t n = 0;
    for (uint32_t v = x.current; v != x.target; v = x.from[v])
        ret[n++] = v;
    ret[n++] = x.target;
    for (uint32_t i = 0; i < n / 2; i++) {
        uint32_t t = ret[i];
        ret[i] = ret[n - 1 - i];
        ret[n - 1 - i] = t;
    }
    *ret_n = n;
    return PPS_OK;
}

pps_status schedule_report_cycle(pass_cx *cx, const schedule_graph *s)
{
    const dag *d = cx->dag;
    uint32_t *cycle, *own, n = 0, n_own = 0;
    PASS_ALLOC(cycle, cx->phase, d->n_nodes);
    PASS_ALLOC(own, cx->phase, d->n_nodes);
    PPS_TRY(find_cycle(cx, s, cycle, &n));
    if (n == 0) {
        pps_span none = {0};
        return pps_error(cx->st, none, 9902, "the schedule is stuck without a cycle");
    }
    /* Does one of the rows contradict the dataflow alone? The others need not be blamed then. */
    uint32_t group = IR_NONE;
    for (uint32_t i = 0; i < n && n_own == 0; i++) {
        if (!row_edge(cx, cycle[i], cycle[(i + 1) % n]))
            continue;
        schedule_graph one = *s;
        one.row_group = group = d->runs[d->node_run[cycle[i]]].group;
        PPS_TRY(find_cycle(cx, &one, own, &n_own));
    }
    /* Round the cycle, stretches of the row alternate with paths of the dataflow. Some path leads
     * backward in the row, or positions would grow for ever: from `then` to `first`. */
    for (uint32_t i = 0; i < n_own; i++) {
        uint32_t then = (i + 1) % n_own, first = then;
        if (!in_row(cx, group, own, n_own, i) || in_row(cx, group, own, n_own, then))
            continue;
        while (!in_row(cx, group, own, n_own, first))
            first = (first + 1) % n_own;
        if (cx->node_pos[own[then]] > cx->node_pos[own[first]])
            return report_one(cx, own, n_own, first, then);
    }
    return report_many(cx, cycle, n);
}
