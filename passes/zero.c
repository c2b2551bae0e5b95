/* SPDX-License-Identifier: Apache-2.0
 *
 * zero.c: what `zero 2` and `zero 3` add per window of microbatches, now that each group's compute
 * order is known. A window is a life of a bucket's transient buffer:
 *
 *   gradients   of `every` microbatches, counted from 0:
 *
 *       .. -> CLEAR(w) -> BW of the first -> .. -> BW of the last -> .. -> UPDATE
 *                                                   \-> REDUCE_SCATTER(w) -/
 *
 *       Windows are reduced in microbatch order, whatever order the rows have. A reduction may run
 *       under later computes, but not for ever, since it holds its buffer: a CLEAR waits for what
 *       was to be reduced two row groups before, and for all but the latest of what can be reduced
 *       since.
 *
 *   parameters  of neighbouring uses, which are passes that read parameters: F and BI, not BW, so
 *               what was gathered is free after BI.
 *
 *       row groups       s - D - 1        s - D        ...        s           s + 1
 *       compute              F  ----\      BW          ...        F     ..      BI
 *       gather's stream              \-> ALL_GATHER(v) -----------/
 *
 *       It starts with the row group D ahead of its first use (`prefetch D`), no sooner: memory;
 * and no later: it is the first thing its stream does then. A use joins the window of the one
 *       before it when its own gather would start in the same row group or the next: their buffers
 *       would follow on each other without a pause, and one gather serves both. `prefetch 0` counts
 *       computes instead of row groups, one ahead: a stage that always runs then comes and goes
 *       bucket by bucket.
 *
 * All these edges run forward in the group's order, so they close no cycle that is not there
 * already.
 */
#include "passes/pass.h"

#include <string.h>

enum { PASSES = PPS_PASS_COUNT - 1 }; /* F, B or BI, BW: per node at most one of the middle two */

typedef struct bucket_use { /* while walking a group's order */
    uint32_t last;          /* gathers: row group (or compute) of the latest use */
    uint32_t n_gathers;
    uint32_t first_reduce; /* reductions: window 0 in zero_cx.begins and .ends */
} bucket_use;

typedef struct gather_window {
    uint32_t bucket, node; /* its first use */
} gather_window;

typedef struct zero_cx {
    pass_cx *cx;
    bucket_use *uses; /* [n_buckets] */
    uint32_t *begins,
        *ends;              /* [windows of gradients] first and last compute node that adds to it */
    gather_window *gathers; /* in the order of their first uses, group by group */
    uint32_t n_gathers, cap_gathers;
} zero_cx;

static uint32_t pass_index(pps_pass pass)
{
    return pass == PPS_PASS_F ? 0 : pass == PPS_PASS_BW ? 2 : 1;
}

/* ---- who reads which bucket
 * ---------------------------------------------------------------------- */

static bool reads(const pass_cx *cx, uint32_t chunk, uint32_t bucket)
{
    for (int pass = 0; pass < PASS_VARIANTS * PPS_PASS_COUNT; pass++) {
        const pass_program *p = &cx->chunks[chunk].programs[0][pass];
        for (uint32_t i = 0; p->id != IR_NONE && i < p->binds.n; i++) {
            const pass_bind *bind = &cx->binds[p->binds.begin + i];
            if (bind->what == BIND_PARAMS && bind->index == bucket)
                return true;
        }
    }
    return false;
}

/* Each bucket's readers, from its parameters' chunks: a chunk has few buckets, so marks suffice. */
static pps_status find_users(pass_cx *cx)
{
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    uint32_t n = 0, *seen; /* [n_buckets] latest chunk counted, + 1 */
    PASS_ALLOC(cx->bucket_users, cx->scratch, d->n_buckets);
    PASS_ALLOC(seen, cx->phase, d->n_buckets);
    for (int fill = 0; fill < 2; fill++) {
        memset(seen, 0, d->n_buckets * sizeof *seen);
        for (uint32_t c = 0; c < g->n_chunks; c++)
            for (uint32_t i = 0; i < g->chunks[c].params.n; i++) {
                uint32_t b =
                    dag_bucket_of(d, g->lists[g->chunks[c].params.begin + i], d->chunks[c].group);
                if (b == IR_NONE || d->buckets[b].zero != 3 || seen[b] == c + 1 || !reads(cx, c, b))
                    continue;
                seen[b] = c + 1;
                if (fill)
                    cx->user_chunks[cx->bucket_users[b].begin + cx->bucket_users[b].n] = c;
                cx->bucket_users[b].n++;
            }
        for (uint32_t b = 0; b < d->n_buckets && !fill; b++) {
            cx->bucket_users[b].begin = n;
            n += cx->bucket_users[b].n;
            cx->bucket_users[b].n = 0;
        }
        if (!fill)
            PASS_ALLOC(cx->user_chunks, cx->scratch, n);
    }
    PASS_ALLOC(cx->user_window, cx->nodes, (size_t)n * PASSES * d->n_mb);
    return PPS_OK;
}

static uint32_t *window_entry(const pass_cx *cx, uint32_t bucket, uint32_t chunk, pps_pass pass,
                              uint32_t mb)
{
    uint32_t lo = cx->bucket_users[bucket].begin, hi = lo + cx->bucket_users[bucket].n - 1;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (cx->user_chunks[mid] < chunk)
            lo = mid + 1;
        else
            hi = mid;
    }
    return &cx->user_window[((size_t)lo * PASSES + pass_index(pass)) * cx->dag->n_mb + mb];
}

uint32_t pass_gather_window(const pass_cx *cx, uint32_t bucket, uint32_t chunk, pps_pass pass,
                            uint32_t mb)
{
    return *window_entry(cx, bucket, chunk, pass, mb);
}

/* ---- windows --------------------------------------------------------------------------------- */

/* In which a bucket's distances are counted: row groups, or with `prefetch 0` computes. */
typedef struct distance {
    bool computes;
    uint32_t ahead; /* a gather starts with the unit so far ahead of its first use */
} distance;

static distance distance_of(const pass_cx *cx, const dag_bucket *k)
{
    const ir_directive *s = &cx->program->directives[k->directive];
    bool given = pps_directive_clause(s->source, "prefetch") != NULL;
    bool computes = given && s->prefetch == 0;
    return (distance){computes, given && !computes ? s->prefetch : 1};
}

static uint32_t unit_of(const pass_cx *cx, distance by, uint32_t node)
{
    return by.computes ? cx->node_pos[node] : cx->node_slot[node];
}

static pps_status use_params(zero_cx *z, uint32_t bucket, uint32_t node)
{
    pass_cx *cx = z->cx;
    const dag_run *r = &cx->dag->runs[cx->dag->node_run[node]];
    bucket_use *u = &z->uses[bucket];
    distance by = distance_of(cx, &cx->dag->buckets[bucket]);
    uint32_t now = unit_of(cx, by, node);
    if (u->n_gathers == 0 || now - u->last > 1 + by.ahead) {
        if (z->n_gathers == z->cap_gathers) {
            uint32_t cap = z->cap_gathers * 2 + 64;
            gather_window *bigger = arena_new(cx->phase, cap * sizeof *bigger);
            if (bigger == NULL)
                return PPS_ERR_NOMEM;
            if (z->n_gathers > 0)
                memcpy(bigger, z->gathers, z->n_gathers * sizeof *bigger);
            z->gathers = bigger;
            z->cap_gathers = cap;
        }
        z->gathers[z->n_gathers++] = (gather_window){bucket, node};
        u->n_gathers++;
    }
    u->last = now;
    *window_entry(cx, bucket, r->chunk, dag_pass(cx->dag, node), node - r->first) =
        u->n_gathers - 1;
    return PPS_OK;
}

static void add_to_grads(zero_cx *z, uint32_t bucket, uint32_t node)
{
    const dag *d = z->cx->dag;
    uint32_t mb = dag_mb(d, node);
    uint32_t w = z->uses[bucket].first_reduce + pass_reduce_window(&d->buckets[bucket], mb);
    if (z->begins[w] == IR_NONE)
        z->begins[w] = node;
    z->ends[w] = node;
}

static pps_status walk_group(zero_cx *z, uint32_t group)
{
    pass_cx *cx = z->cx;
    const dag *d = cx->dag;
    for (uint32_t i = 0; i < cx->group_order[group].n; i++) {
        uint32_t node = cx->order_of[group][i];
        const dag_run *r = &d->runs[d->node_run[node]];
        if (r->kind != PLAN_COMPUTE)
            continue;
        const pass_program *p = pass_program_of(cx, node);
        for (uint32_t k = 0; k < p->binds.n; k++) {
            const pass_bind *bind = &cx->binds[p->binds.begin + k];
            if (bind->what == BIND_PARAMS)
                PPS_TRY(use_params(z, bind->index, node));
            else if (bind->what == BIND_GRADS)
                add_to_grads(z, bind->index, node);
        }
    }
    return PPS_OK;
}

static uint32_t n_reduces(const dag *d, const dag_bucket *k)
{
    return k->zero < 2 ? 0 : (d->n_mb + k->every - 1) / k->every;
}

static pps_status find_windows(zero_cx *z)
{
    pass_cx *cx = z->cx;
    const dag *d = cx->dag;
    uint32_t n = 0;
    PASS_ALLOC(z->uses, cx->phase, d->n_buckets);
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        z->uses[b].first_reduce = n;
        n += n_reduces(d, &d->buckets[b]);
    }
    PASS_ALLOC(z->begins, cx->phase, n);
    PASS_ALLOC(z->ends, cx->phase, n);
    memset(z->begins, 0xff, n * sizeof *z->begins);
    for (uint32_t group = 0; group < d->n_groups; group++)
        PPS_TRY(walk_group(z, group));
    return PPS_OK;
}

/* ---- their runs and edges
 * ------------------------------------------------------------------------ */

static pps_status window_runs(zero_cx *z, uint32_t b)
{
    dag *d = z->cx->dag;
    dag_bucket *k = &d->buckets[b];
    const struct {
        plan_step_kind kind;
        pps_pass pass;
        uint16_t stream;
        uint32_t n, *run;
        bool updates; /* must be over when the optimizer writes */
    } rows[] = {
        {PLAN_CLEAR, PPS_PASS_BW, 0, n_reduces(d, k), &k->clear, false},
        {PLAN_REDUCE_SCATTER, PPS_PASS_BW, k->reduce_stream, n_reduces(d, k), &k->reduce, true},
        {PLAN_ALL_GATHER, PPS_PASS_F, k->gather_stream, z->uses[b].n_gathers, &k->gather, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dag_run run = {.kind = (uint8_t)rows[i].kind,
                       .pass = (uint8_t)rows[i].pass,
                       .group = (uint16_t)k->group,
                       .stream = rows[i].stream,
                       .chunk = b,
                       .link = IR_NONE,
                       .teams = k->teams,
                       .n = rows[i].n,
                       .pair = IR_NONE,
                       .span = z->cx->program->directives[k->directive].source->span};
        if (rows[i].n == 0)
            continue;
        PPS_TRY(dag_add_run(d, run, rows[i].run));
        if (rows[i].updates)
            PPS_TRY(dag_add_edge(d, *rows[i].run, k->update));
    }
    return PPS_OK;
}

/* The windows of a group's gradients by where in its order they begin and can be reduced. */
typedef struct group_windows {
    uint32_t *first_begin, *first_ready; /* [positions] window, or IR_NONE */
    uint32_t *next_begin, *next_ready;   /* [windows] another one there */
    uint32_t *bucket, *index;            /* [windows] whose it is, and its number among those */
} group_windows;

static pps_status collect_windows(zero_cx *z, uint32_t group, group_windows *ret)
{
    pass_cx *cx = z->cx;
    const dag *d = cx->dag;
    uint32_t n = 0, at = 0, positions = cx->group_order[group].n;
    for (uint32_t b = 0; b < d->n_buckets; b++)
        n += d->buckets[b].group == group ? n_reduces(d, &d->buckets[b]) : 0;
    uint32_t **arrays[] = {&ret->next_begin, &ret->next_ready, &ret->bucket, &ret->index};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        PASS_ALLOC(*arrays[i], cx->phase, n);
    PASS_ALLOC(ret->first_begin, cx->phase, positions);
    PASS_ALLOC(ret->first_ready, cx->phase, positions);
    memset(ret->first_begin, 0xff, positions * sizeof *ret->first_begin);
    memset(ret->first_ready, 0xff, positions * sizeof *ret->first_ready);
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        uint32_t ready = 0; /* not before the windows before it */
        if (d->buckets[b].group != group)
            continue;
        for (uint32_t w = 0; w < n_reduces(d, &d->buckets[b]); w++, at++) {
            uint32_t begin = cx->node_pos[z->begins[z->uses[b].first_reduce + w]];
            uint32_t end = cx->node_pos[z->ends[z->uses[b].first_reduce + w]];
            ready = end > ready ? end : ready;
            ret->bucket[at] = b;
            ret->index[at] = w;
            ret->next_begin[at] = ret->first_begin[begin];
            ret->first_begin[begin] = at;
            ret->next_ready[at] = ret->first_ready[ready];
            ret->first_ready[ready] = at;
        }
    }
    return PPS_OK;
}

typedef struct recent_reduces { /* of one stream */
    uint32_t latest, before;    /* nodes, or IR_NONE */
    uint32_t slot;              /* after which the latest can run */
} recent_reduces;

static pps_status reduce_edges(zero_cx *z, uint32_t group)
{
    pass_cx *cx = z->cx;
    const dag *d = cx->dag;
    const uint32_t *order = cx->order_of[group];
    group_windows g;
    recent_reduces *recent;
    PPS_TRY(collect_windows(z, group, &g));
    PASS_ALLOC(recent, cx->phase, d->n_streams);
    memset(recent, 0xff, d->n_streams * sizeof *recent);
    for (uint32_t i = 0; i < cx->group_order[group].n; i++) {
        uint32_t slot = cx->node_slot[order[i]];
        for (uint32_t v = g.first_begin[i]; v != IR_NONE; v = g.next_begin[v]) {
            const dag_bucket *k = &d->buckets[g.bucket[v]];
            const recent_reduces *r = &recent[k->reduce_stream];
            uint32_t clear = d->runs[k->clear].first + g.index[v];
            bool rested = r->latest != IR_NONE && r->slot + 2 <= slot;
            if (i > 0)
                PPS_TRY(pass_add_extra(cx, order[i - 1], clear, IR_NONE));
            PPS_TRY(pass_add_extra(cx, clear, order[i], IR_NONE));
            if (rested || r->before != IR_NONE)
                PPS_TRY(pass_add_extra(cx, rested ? r->latest : r->before, clear, IR_NONE));
        }
        for (uint32_t v = g.first_ready[i]; v != IR_NONE; v = g.next_ready[v]) {
            const dag_bucket *k = &d->buckets[g.bucket[v]];
            recent_reduces *r = &recent[k->reduce_stream];
            uint32_t reduce = d->runs[k->reduce].first + g.index[v];
            PPS_TRY(pass_add_extra(cx, order[i], reduce, IR_NONE));
            if (g.index[v] > 0)
                PPS_TRY(pass_add_extra(cx, reduce - 1, reduce, IR_NONE));
            *r = (recent_reduces){.latest = reduce, .before = r->latest, .slot = slot};
        }
    }
    return PPS_OK;
}

static pps_status gather_edges(zero_cx *z)
{
    pass_cx *cx = z->cx;
    const dag *d = cx->dag;
    uint32_t *next; /* [n_buckets] window */
    PASS_ALLOC(next, cx->phase, d->n_buckets);
    for (uint32_t i = 0; i < z->n_gathers; i++) {
        const dag_bucket *k = &d->buckets[z->gathers[i].bucket];
        distance by = distance_of(cx, k);
        uint32_t use = z->gathers[i].node, now = unit_of(cx, by, use);
        uint32_t gather = d->runs[k->gather].first + next[z->gathers[i].bucket]++;
        uint32_t before = by.ahead + 1, after = IR_NONE; /* after the unit before it may start */
        const uint32_t *lasts = by.computes ? cx->order_of[k->group] : cx->slot_last[k->group];
        if (now >= before)
            after = lasts[now - before];
        if (after != IR_NONE)
            PPS_TRY(pass_add_extra(cx, after, gather, IR_NONE));
        PPS_TRY(pass_add_extra(cx, gather, use, IR_NONE));
    }
    return PPS_OK;
}

pps_status pass_extend_nodes(pass_cx *cx, uint32_t n_before)
{
    uint32_t n = cx->dag->n_nodes, **arrays[] = {&cx->node_pos, &cx->node_slot, &cx->node_entry};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        uint32_t *longer = arena_new(i == 0 ? cx->ordering : cx->nodes, n * sizeof *longer);
        if (longer == NULL)
            return PPS_ERR_NOMEM;
        memcpy(longer, *arrays[i], n_before * sizeof *longer);
        memset(longer + n_before, 0xff, (n - n_before) * sizeof *longer);
        *arrays[i] = longer;
    }
    return PPS_OK;
}

pps_status pass_zero(pass_cx *cx)
{
    dag *d = cx->dag;
    zero_cx z = {.cx = cx};
    uint32_t n_windowed = 0, n_nodes = d->n_nodes, n_extra = cx->n_extra;
    for (uint32_t b = 0; b < d->n_buckets; b++)
        n_windowed += d->buckets[b].zero >= 2;
    if (n_windowed == 0)
        return PPS_OK;
    PPS_TRY(find_users(cx));
    PPS_TRY(find_windows(&z));
    for (uint32_t b = 0; b < d->n_buckets; b++)
        if (d->buckets[b].zero >= 2)
            PPS_TRY(window_runs(&z, b));
    PPS_TRY(dag_seal(d));
    PPS_TRY(pass_extend_nodes(cx, n_nodes));
    for (uint32_t group = 0; group < d->n_groups; group++)
        PPS_TRY(reduce_edges(&z, group));
    PPS_TRY(gather_edges(&z));
    d->n_window_edges = cx->n_extra - n_extra;
    return PPS_OK;
}
