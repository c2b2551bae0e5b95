/* SPDX-License-Identifier: Apache-2.0
 *
 * schedule.c: one global order of everything.
 *
 * A vertex is a node, but the ends of one operation are one: a transfer needs its send and its
 * receive, a collective over several groups all of them, as they do when they run. Vertices are
 * taken in order of the time at which they could start (list scheduling with costs from FLOPs), so
 * the order follows the dataflow, the rows, and roughly the clock. Everything else is read off this
 * order:
 *
 *   - it exists exactly when rows and dataflow agree; otherwise cycle.c shows who waits for whom;
 *   - communication of one stream runs in this order, on every rank: no two ranks can disagree, so
 * no stream order can add a wait cycle, merged streams included;
 *   - its positions are the communications' sequence numbers.
 *
 * A receive would block its stream and hold its buffer if it started long before its data is
 * needed: it waits for the compute two row groups before its consumer ("just in time"). That
 * compute precedes the consumer in the row, so the edge can close no cycle that is not one already.
 *
 * The issue order of a group keeps each stream in global order and issues communication as early as
 * its own device allows, right after the compute it depends on.
 */
#include "passes/machine.h"
#include "passes/schedule.h"

#include <string.h>

/* ---- just in time ------------------------------------------------------------------------------
 */

static pps_status just_in_time(pass_cx *cx)
{
    dag *d = cx->dag;
    uint32_t *slot; /* of transfers: row group of the first consumer, then `jit` in its place */
    PASS_NEW(cx->jit, cx->nodes, d->n_nodes);
    slot = cx->jit;
    memset(slot, 0xff, d->n_nodes * sizeof *slot);
    for (uint32_t l = 0; l < d->n_links; l++) {
        const dag_link *k = &d->links[l];
        const dag_link *carrier = &d->links[k->carrier];
        for (uint32_t m = 0; m < dag_n_mb(d, k->dst); m++) {
            if (carrier->f_send != IR_NONE) {
                uint32_t node = d->runs[carrier->f_send].first + m;
                uint32_t at = cx->node_slot[d->runs[d->chunks[k->dst].f].first + m];
                slot[node] = at < slot[node] ? at : slot[node];
            }
            if (k->b_send != IR_NONE)
                slot[d->runs[k->b_send].first + m] =
                    cx->node_slot[d->runs[d->chunks[k->src].b].first + m];
        }
    }
    for (uint32_t r = 0; r < d->n_runs; r++) {
        if (d->runs[r].kind != PLAN_SEND)
            continue;
        uint32_t group = d->runs[d->runs[r].pair].group;
        for (uint32_t m = 0; m < d->runs[r].n; m++) {
            uint32_t *node = &slot[d->runs[r].first + m];
            *node = *node != IR_NONE && *node >= 2 ? cx->slot_last[group][*node - 2] : IR_NONE;
        }
    }
    for (uint32_t e = 0; e < cx->n_extra; e++) { /* those that a row names are where it says */
        cx->jit[schedule_vertex(d, cx->extra_src[e])] = IR_NONE;
        cx->jit[schedule_vertex(d, cx->extra_dst[e])] = IR_NONE;
    }
    return PPS_OK;
}

/* ---- vertices and their edges
 * -------------------------------------------------------------------- */

uint32_t schedule_vertex(const dag *d, uint32_t node)
{
    const dag_run *r = &d->runs[d->node_run[node]];
    return d->runs[r->lead].first + (node - r->first);
}

/* Edges other than run edges, by source: rows' chains are implicit; jit and extra are lists. */
static pps_status index_edges(pass_cx *cx, schedule_graph *s)
{
    dag *d = cx->dag;
    uint32_t n = 0;
    s->cx = cx;
    s->row_group = IR_NONE;
    PASS_ALLOC(s->list_begin, cx->phase, d->n_nodes + 1);
    for (int fill = 0; fill < 2; fill++) {
        for (uint32_t r = 0; r < d->n_runs; r++) {
            uint32_t first = d->runs[r].first, end = first + d->runs[r].n;
            for (uint32_t v = first; v < end && d->runs[r].kind == PLAN_SEND; v++) {
                if (cx->jit[v] == IR_NONE)
                    continue;
                if (fill)
                    s->list[s->list_begin[cx->jit[v]]++] = v;
                else
                    s->list_begin[cx->jit[v]]++;
            }
        }
        for (uint32_t e = 0; e < cx->n_extra; e++) {
            uint32_t src = schedule_vertex(d, cx->extra_src[e]);
            if (fill)
                s->list[s->list_begin[src]++] = schedule_vertex(d, cx->extra_dst[e]);
            else
                s->list_begin[src]++;
        }
        if (fill)
            break;
        for (uint32_t v = 0; v <= d->n_nodes; v++) {
            uint32_t count = s->list_begin[v];
            s->list_begin[v] = n;
            n += count;
        }
        PASS_NEW(s->list, cx->phase, n);
    }
    /* filling moved each begin to its end, which is the next one's begin */
    memmove(s->list_begin + 1, s->list_begin, d->n_nodes * sizeof *s->list_begin);
    s->list_begin[0] = 0;
    return PPS_OK;
}

static bool is_vertex(const dag *d, uint32_t node)
{
    return d->runs[d->node_run[node]].lead == d->node_run[node] && dag_alive(d, node);
}

/* ---- list scheduling
 * ------------------------------------------------------------------------------- */

typedef struct entry {
    double ready;
    uint32_t vertex;
    uint8_t priority; /* transfers, exchanges, reductions, compute */
} entry;

typedef struct queue {
    arena *mem;
    entry *items;
    uint32_t n, cap;
} queue;

static bool before(const entry *a, const entry *b)
{
    if (a->ready != b->ready)
        return a->ready < b->ready;
    if (a->priority != b->priority)
        return a->priority < b->priority;
    return a->vertex < b->vertex;
}

/* Before as many pushes as `n`. */
static pps_status make_room(queue *q, uint32_t n)
{
    entry *items;
    if (n <= q->cap - q->n)
        return PPS_OK;
    uint32_t cap = 2 * (q->n + n) + 1024;
    PASS_NEW(items, q->mem, cap);
    if (q->n > 0)
        memcpy(items, q->items, q->n * sizeof *items);
    q->items = items;
    q->cap = cap;
    return PPS_OK;
}

static void push(queue *q, entry e)
{
    uint32_t i = q->n++;
    while (i > 0 && before(&e, &q->items[(i - 1) / 2])) {
        q->items[i] = q->items[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    q->items[i] = e;
}

static entry pop(queue *q)
{
    entry top = q->items[0], last = q->items[--q->n];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= q->n)
            break;
        if (child + 1 < q->n && before(&q->items[child + 1], &q->items[child]))
            child++;
        if (!before(&q->items[child], &last))
            break;
        q->items[i] = q->items[child];
        i = child;
    }
    if (q->n > 0)
        q->items[i] = last;
    return top;
}

typedef struct vertex {
    double ready;     /* latest end of the predecessors taken so far */
    uint32_t waiting; /* predecessors not yet taken */
} vertex;

typedef struct kahn {
    schedule_graph *s;
    vertex *vertices;  /* [n_nodes] */
    uint8_t *priority; /* [n_runs] */
    double *cost;      /* [3 * n_runs] seconds; [3 * i + 1]: of a whole B; + 2: of an F run again */
    double end;        /* of the vertex being taken */
    queue q;
} kahn;

static uint8_t priority_of(const dag_run *r)
{
    switch ((plan_step_kind)r->kind) {
    case PLAN_SEND:
    case PLAN_RECV:
        return 0;
    case PLAN_COUNTS:
    case PLAN_ALL_TO_ALL:
    case PLAN_SHIFT:
    case PLAN_SUM:
    case PLAN_SEQ_SCATTER:
    case PLAN_SEQ_GATHER:
    case PLAN_SEQ_TAKE:
    case PLAN_STATS:
        return 1;
    case PLAN_ALL_GATHER:
    case PLAN_ALL_REDUCE:
    case PLAN_REDUCE_SCATTER:
    case PLAN_OFFLOAD:
    case PLAN_FETCH:
        return 2;
    case PLAN_CLEAR:
    case PLAN_COMPUTE:
    case PLAN_UPDATE:
    case PLAN_STEP_KIND_COUNT:
        return 3;
    }
    return 3;
}

/* Seconds of each run's nodes: only the order depends on them. Counts take no time here: rows do
 * not lose their turn to rows that were made later. */
static pps_status find_costs(pass_cx *cx, kahn *k)
{
    const dag *d = cx->dag;
    PASS_ALLOC(k->cost, cx->phase, 3 * (size_t)d->n_runs);
    PASS_NEW(k->priority, cx->phase, d->n_runs);
    for (uint32_t i = 0; i < d->n_runs; i++) {
        const dag_run *r = &d->runs[i];
        double *cost = &k->cost[3 * i];
        k->priority[i] = priority_of(r);
        if (r->kind != PLAN_COMPUTE) {
            cost[0] = r->kind != PLAN_COUNTS ? machine_hop(cx, r) : 0.0;
            continue;
        }
        cost[0] = machine_compute(cx, r->chunk,
                                  r->pass == PPS_PASS_F    ? IR_PHASE_F
                                  : r->pass == PPS_PASS_BW ? IR_PHASE_BW
                                                           : IR_PHASE_BI);
        if (r->pass == PPS_PASS_BI) {
            cost[1] = cost[0] + machine_compute(cx, r->chunk, IR_PHASE_BW);
            cost[2] = machine_compute(cx, r->chunk, IR_PHASE_F);
        }
    }
    return PPS_OK;
}

static double cost_of(const kahn *k, uint32_t v)
{
    const dag *d = k->s->cx->dag;
    uint32_t run = d->node_run[v];
    const dag_run *r = &d->runs[run];
    const double *cost = &k->cost[3 * run];
    if (r->kind != PLAN_COMPUTE || r->pass != PPS_PASS_BI)
        return cost[0];
    bool again = dag_keeps(d, r->chunk, v - r->first) == DAG_RECOMPUTE;
    return cost[dag_pass(d, v) == PPS_PASS_B] + (again ? cost[2] : 0.0);
}

/* Predecessors of every vertex: edges of runs, of rows, and the listed ones. */
static void count_waiting(kahn *k, uint32_t *ret_vertices)
{
    const pass_cx *cx = k->s->cx;
    const dag *d = cx->dag;
    *ret_vertices = 0;
    for (uint32_t i = 0; i < d->n_runs; i++) {
        const dag_run *r = &d->runs[i];
        for (uint32_t m = 0; m < r->n; m++)
            *ret_vertices += r->lead == i && dag_run_alive(d, r, m);
        for (uint32_t e = 0; e < r->succs.n; e++) {
            const dag_run *to = &d->runs[d->run_edges[r->succs.begin + e]];
            vertex *lead = k->vertices + d->runs[to->lead].first;
            for (uint32_t m = 0; m < r->n; m++) {
                uint32_t at = to->n == 1 && r->n != 1 ? 0 : m;
                lead[at].waiting += dag_run_alive(d, r, m) && dag_run_alive(d, to, at);
            }
        }
        for (uint32_t m = 0; m < r->n && r->carried; m++) {
            uint32_t slice = dag_slice_after(d, r, m);
            if (slice != IR_NONE && dag_run_alive(d, r, m))
                k->vertices[r->first + slice].waiting++;
        }
    }
    for (uint32_t g = 0; g < d->n_groups; g++)
        for (uint32_t i = 1; i < cx->group_order[g].n; i++)
            k->vertices[cx->order_of[g][i]].waiting++;
    for (uint32_t i = 0; i < k->s->list_begin[d->n_nodes]; i++)
        k->vertices[k->s->list[i]].waiting++;
}

static void release(void *ud, uint32_t v)
{
    kahn *k = ud;
    vertex *x = &k->vertices[v];
    if (x->ready < k->end)
        x->ready = k->end;
    if (--x->waiting == 0)
        push(&k->q, (entry){x->ready, v, k->priority[k->s->cx->dag->node_run[v]]});
}

/* Most successors that a vertex can have. */
static uint32_t most_successors(const schedule_graph *s)
{
    const dag *d = s->cx->dag;
    uint32_t most = 0, listed = 0;
    for (uint32_t i = 0; i < d->n_runs; i++) {
        uint32_t n = 2; /* the next in its row, the next slice */
        for (uint32_t k = i; k != IR_NONE; k = d->runs[k].next)
            n += d->runs[k].succs.n;
        most = n > most ? n : most;
    }
    for (uint32_t v = 0; v < d->n_nodes; v++) {
        uint32_t n = s->list_begin[v + 1] - s->list_begin[v];
        listed = n > listed ? n : listed;
    }
    return most + listed;
}

static pps_status sort_all(pass_cx *cx, schedule_graph *s)
{
    dag *d = cx->dag;
    kahn k = {.s = s, .q = {.mem = cx->phase}};
    double *free_at;
    uint32_t n_vertices, n_taken = 0, at = 0, seq = 0, most = most_successors(s);
    PPS_TRY(find_costs(cx, &k));
    PASS_ALLOC(k.vertices, cx->phase, d->n_nodes);
    PASS_ALLOC(free_at, cx->phase, (size_t)d->n_groups * d->n_streams);
    PASS_NEW(cx->sorted, cx->phase, d->n_nodes);
    PASS_NEW(cx->seq, cx->nodes, d->n_nodes);
    count_waiting(&k, &n_vertices);
    for (uint32_t v = 0; v < d->n_nodes; v++)
        if (k.vertices[v].waiting == 0 && is_vertex(d, v)) {
            PPS_TRY(make_room(&k.q, 1));
            push(&k.q, (entry){0.0, v, k.priority[d->node_run[v]]});
        }
    while (k.q.n > 0) {
        entry e = pop(&k.q);
        uint32_t v = e.vertex;
        const dag_run *r = &d->runs[d->node_run[v]];
        double begin = e.ready;
        seq += !plan_is(r->kind, PLAN_LOCAL);
        for (uint32_t i = d->node_run[v]; i != IR_NONE; i = d->runs[i].next) {
            const dag_run *end = &d->runs[i];
            double *lane = &free_at[end->group * d->n_streams + end->stream];
            begin = *lane > begin ? *lane : begin;
        }
        k.end = begin + cost_of(&k, v);
        for (uint32_t i = d->node_run[v]; i != IR_NONE; i = d->runs[i].next) {
            const dag_run *end = &d->runs[i];
            uint32_t node = end->first + (v - r->first);
            free_at[end->group * d->n_streams + end->stream] = k.end;
            cx->sorted[at++] = node;
            cx->seq[node] = seq;
        }
        n_taken++;
        PPS_TRY(make_room(&k.q, most));
        schedule_successors(s, v, release, &k);
    }
    if (n_taken < n_vertices)
        return schedule_report_cycle(cx, s);
    return PPS_OK;
}

/* ---- issue order
 * ----------------------------------------------------------------------------------- */

/* Extra edges by destination, for keys and waits. */
static pps_status index_extra(pass_cx *cx)
{
    if (cx->n_extra == 0)
        return PPS_OK;
    uint32_t n = cx->dag->n_nodes;
    PASS_ALLOC(cx->extra_begin, cx->nodes, n + 1);
    PASS_ALLOC(cx->extra_list, cx->nodes, cx->n_extra);
    for (uint32_t e = 0; e < cx->n_extra; e++)
        cx->extra_begin[cx->extra_dst[e] + 1]++;
    for (uint32_t v = 0; v < n; v++)
        cx->extra_begin[v + 1] += cx->extra_begin[v];
    for (uint32_t e = cx->n_extra; e-- > 0;) {
        /* fill from the back, restoring the begins */
        cx->extra_list[--cx->extra_begin[cx->extra_dst[e] + 1]] = cx->extra_src[e];
    }
    memmove(cx->extra_begin, cx->extra_begin + 1, n * sizeof *cx->extra_begin);
    cx->extra_begin[n] = cx->n_extra;
    return PPS_OK;
}

/* Position among its group's stream-0 steps that node `v` must follow, from its predecessors there.
 */
static uint32_t follow_key(const pass_cx *cx, const uint32_t *key, uint32_t v)
{
    const dag *d = cx->dag;
    const dag_run *r = &d->runs[d->node_run[v]];
    uint32_t m = v - r->first, most = 0;
    for (uint32_t k = 0; k < r->preds.n; k++) {
        const dag_run *p = &d->runs[d->run_edges[r->preds.begin + k]];
        for (uint32_t i = 0; i < (r->n == 1 ? p->n : 1); i++) {
            uint32_t u = r->n == 1 ? p->first + i : p->first + m;
            if (dag_alive(d, u) && key[u] > most)
                most = key[u];
        }
    }
    uint32_t slice = dag_slice_before(d, r, m);
    if (slice != IR_NONE && key[r->first + slice] > most)
        most = key[r->first + slice];
    if (r->kind == PLAN_RECV) {
        uint32_t jit = cx->jit[d->runs[r->pair].first + m];
        if (jit != IR_NONE && key[jit] > most)
            most = key[jit];
    }
    if (cx->n_extra > 0)
        for (uint32_t e = cx->extra_begin[v]; e < cx->extra_begin[v + 1]; e++)
            if (key[cx->extra_list[e]] > most)
                most = key[cx->extra_list[e]];
    return most;
}

static pps_status issue_orders(pass_cx *cx)
{
    dag *d = cx->dag;
    uint32_t *key, *stream_key, *n_zero, *count;
    PASS_NEW(key, cx->phase, d->n_nodes);
    PASS_ALLOC(stream_key, cx->phase, (size_t)d->n_groups * d->n_streams);
    PASS_ALLOC(n_zero, cx->phase, d->n_groups);
    PASS_ALLOC(cx->group_issue, cx->scratch, d->n_groups);
    PASS_NEW(cx->issue, cx->nodes, d->n_alive);
    PASS_NEW(cx->step, cx->nodes, d->n_nodes);
    /* keys: stream-0 steps count 1, 2, ...; others take the key of what they must follow */
    for (uint32_t i = 0; i < d->n_alive; i++) {
        uint32_t v = cx->sorted[i];
        const dag_run *r = &d->runs[d->node_run[v]];
        uint32_t *last = &stream_key[r->group * d->n_streams + r->stream];
        if (r->stream == 0) {
            key[v] = ++n_zero[r->group];
        } else {
            uint32_t k = follow_key(cx, key, v);
            key[v] = k > *last ? k : *last;
        }
        *last = key[v];
        cx->group_issue[r->group].n++;
    }
    /* counting sort by (group, key), stable in global order, stream-0 steps first of their key */
    uint32_t at = 0, buckets = 0;
    for (uint32_t g = 0; g < d->n_groups; g++) {
        cx->group_issue[g].begin = at;
        at += cx->group_issue[g].n;
        buckets += n_zero[g] + 1;
    }
    uint32_t *base;
    PASS_ALLOC(base, cx->phase, d->n_groups);
    PASS_ALLOC(count, cx->phase, buckets + 1);
    for (uint32_t g = 0, b = 0; g < d->n_groups; b += n_zero[g] + 1, g++)
        base[g] = b;
    for (uint32_t i = 0; i < d->n_alive; i++) {
        uint32_t v = cx->sorted[i];
        count[base[d->runs[d->node_run[v]].group] + key[v]]++;
    }
    at = 0;
    for (uint32_t b = 0; b < buckets; b++) {
        uint32_t n = count[b];
        count[b] = at;
        at += n;
    }
    for (int zero = 1; zero >= 0; zero--)
        for (uint32_t i = 0; i < d->n_alive; i++) {
            uint32_t v = cx->sorted[i];
            const dag_run *r = &d->runs[d->node_run[v]];
            if ((r->stream == 0) == (zero == 1))
                cx->issue[count[base[r->group] + key[v]]++] = v;
        }
    for (uint32_t g = 0; g < d->n_groups; g++)
        for (uint32_t i = 0; i < cx->group_issue[g].n; i++)
            cx->step[cx->issue[cx->group_issue[g].begin + i]] = i;
    return PPS_OK;
}

pps_status pass_schedule(pass_cx *cx)
{
    schedule_graph s;
    PPS_TRY(just_in_time(cx));
    PPS_TRY(index_edges(cx, &s));
    PPS_TRY(sort_all(cx, &s));
    PPS_TRY(index_extra(cx));
    return issue_orders(cx);
}
