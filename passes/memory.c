/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.c: where each buffer of a plan lies, and when its bytes may be used again.
 *
 * Steps of several streams run side by side, so a buffer is not free when the last step that
 * touches it has been issued: bytes may be used again by steps that are known to run after every
 * access. Of each access, `clock` tells the first step from which on all steps that begin a buffer
 * know it; with that, a buffer is a span of issue positions, and what remains is to stack spans:
 *
 *   offset ^    +-----+ +---+            spans that overlap in time lie apart;
 *          | +--+--+  | |   +-+--+       the highest end is what the plan needs,
 *          | |  a  | b| | c   | d|       the most bytes live at one step is the least
 *          +-+-----+--+-+-----+--+-> step    that any way could need
 *
 * Placing the largest first mostly ends within a few percent of the bound, best fit in issue order
 * costs least; memory_search.c's other orders are tried where neither serves, until one does, and
 * the best is kept. Of a long schedule, what repeats is placed once (memory_period.c). All of this
 * is the same on every machine.
 */
#include "passes/memory.h"

#include <string.h>

enum {
    FEW = 300,  /* spans up to which single ones are moved about */
    MANY = 4096 /* spans from which on repetitions are looked for */
};

plan_block memory_block_of(uint64_t bytes, uint8_t what)
{
    uint64_t units = bytes / PLAN_ALIGN + (bytes % PLAN_ALIGN != 0);
    if (units >= UINT32_MAX) /* more than memory_place places */
        units = UINT32_MAX, bytes = units * PLAN_ALIGN;
    return (plan_block){
        .units = (uint32_t)units, .slack = (uint8_t)(units * PLAN_ALIGN - bytes), .what = what};
}

/* ---- Spans
 * --------------------------------------------------------------------------------------- */

typedef struct timeline {
    const plan_step *steps;
    uint32_t n_steps;
    const uint32_t *clock; /* [n_steps][n_lanes]: last step known complete + 1 */
    const uint32_t *lane;  /* [stream] */
    uint32_t n_lanes;
    uint32_t *next;    /* [n_steps] step of the same lane */
    uint32_t *at;      /* [n_lanes][n_lanes]: what each lane knows first not of each other's */
    uint32_t *until;   /* [n_lanes] its latest step that began a block, + 1 */
    uint32_t *blocked; /* [n_steps] the first step from which on all that begin blocks know it */
} timeline;

/* Lane `own` now knows of each other lane's steps below clock[lane], of those from at[lane] on for
 * the first time: no step of it before until[own] did. */
static void learn(const timeline *t, uint32_t own, const uint32_t *clock)
{
    uint32_t *at = t->at + (size_t)own * t->n_lanes, until = t->until[own];
    for (uint32_t s = 0; s < t->n_lanes; s++)
        for (; s != own && at[s] < clock[s]; at[s] = t->next[at[s]])
            if (until > t->blocked[at[s]])
                t->blocked[at[s]] = until;
}

static pps_status find_blocked(arena *mem, timeline *t, const plan_block *blocks, uint32_t n)
{
    uint32_t *begin, *all;
    PASS_ALLOC(t->blocked, mem, t->n_steps);
    PASS_NEW(t->next, mem, t->n_steps);
    PASS_NEW(t->at, mem, (size_t)t->n_lanes * t->n_lanes);
    PASS_ALLOC(t->until, mem, t->n_lanes);
    PASS_NEW(begin, mem, t->n_lanes);
    PASS_NEW(all, mem, t->n_lanes);
    for (uint32_t s = 0; s < t->n_lanes; s++)
        begin[s] = all[s] = t->n_steps;
    for (uint32_t i = t->n_steps; i-- > 0;) {
        t->next[i] = begin[t->lane[t->steps[i].stream]];
        begin[t->lane[t->steps[i].stream]] = i;
    }
    for (uint32_t s = 0; s < t->n_lanes; s++)
        memcpy(t->at + (size_t)s * t->n_lanes, begin, t->n_lanes * sizeof *begin);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t step = blocks[i].first, own = t->lane[t->steps[step].stream];
        if (step + 1 == t->until[own])
            continue;
        learn(t, own, t->clock + (size_t)step * t->n_lanes);
        t->until[own] = step + 1;
    }
    for (uint32_t s = 0; s < t->n_lanes; s++)
        if (t->until[s] > 0)
            learn(t, s, all);
    return PPS_OK;
}

pps_status memory_ends(arena *mem, arena *scratch, const plan_block *blocks,
                       const memory_uses *uses, uint32_t n, const plan_step *steps,
                       uint32_t n_steps, const uint32_t *clock, const uint32_t *lane,
                       uint32_t n_lanes, uint32_t **ret)
{
    timeline t = {
        .steps = steps, .n_steps = n_steps, .clock = clock, .lane = lane, .n_lanes = n_lanes};
    uint32_t *ends;
    PPS_TRY(find_blocked(scratch, &t, blocks, n));
    PASS_NEW(ends, mem, n);
    for (uint32_t i = 0; i < n; i++) {
        ends[i] = blocks[i].last + 1;
        for (uint32_t k = 0; k < sizeof uses->last / sizeof *uses->last; k++)
            if (uses[i].last[k] > 0 && t.blocked[uses[i].last[k] - 1] > ends[i])
                ends[i] = t.blocked[uses[i].last[k] - 1];
    }
    *ret = ends;
    return PPS_OK;
}

/* Most bytes of spans at one step: what no placing of them can go below. */
static pps_status most_spanned(const memory_problem *p, uint64_t *ret)
{
    uint64_t *ended, held = 0, most = 0;
    PASS_ALLOC(ended, p->mem, p->n_steps + 1);
    for (uint32_t i = 0; i < p->n; i++)
        ended[p->spans[i].end] += memory_end(&p->spans[i], 0);
    for (uint32_t t = 0, i = 0; t < p->n_steps; t++) {
        held -= ended[t];
        for (; i < p->n && p->spans[i].first == t; i++)
            held += memory_end(&p->spans[i], 0);
        most = held > most ? held : most;
    }
    *ret = most;
    return PPS_OK;
}

/* Most bytes live at one step. */
static pps_status most_live(arena *mem, const plan_block *blocks, uint32_t n, uint32_t n_steps,
                            uint64_t *ret)
{
    uint64_t *ended, live = 0, most = 0; /* [n_steps] bytes that a step is the last to touch */
    PASS_ALLOC(ended, mem, n_steps);
    for (uint32_t i = 0; i < n; i++)
        ended[blocks[i].last] += plan_block_bytes(&blocks[i]);
    for (uint32_t t = 0, i = 0; t < n_steps; t++) {
        for (; i < n && blocks[i].first == t; i++)
            live += plan_block_bytes(&blocks[i]);
        most = live > most ? live : most;
        live -= ended[t];
    }
    *ret = most;
    return PPS_OK;
}

/* ---- Best fit in issue order
 * --------------------------------------------------------------------- */

typedef struct gap {
    uint32_t offset, units;
} gap;

typedef struct gaps { /* free bytes below the top, by offset; none touch */
    gap *items;
    uint32_t n, cap;
    uint64_t top;
} gaps;

static pps_status give(arena *mem, gaps *g, uint32_t offset, uint32_t units)
{
    uint32_t lo = 0, hi = g->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (g->items[mid].offset < offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    bool below = lo > 0 && g->items[lo - 1].offset + g->items[lo - 1].units == offset;
    bool above = lo < g->n && offset + units == g->items[lo].offset;
    if (below) {
        g->items[lo - 1].units += units;
        if (!above)
            return PPS_OK;
        g->items[lo - 1].units += g->items[lo].units;
        memmove(g->items + lo, g->items + lo + 1, (--g->n - lo) * sizeof *g->items);
    } else if (above) {
        g->items[lo] = (gap){offset, units + g->items[lo].units};
    } else {
        if (g->n == g->cap) {
            uint32_t cap = g->cap * 2 + 64;
            gap *items = arena_new(mem, cap * sizeof *items);
            if (items == NULL)
                return PPS_ERR_NOMEM;
            if (g->n > 0)
                memcpy(items, g->items, g->n * sizeof *items);
            g->items = items;
            g->cap = cap;
        }
        memmove(g->items + lo + 1, g->items + lo, (g->n++ - lo) * sizeof *g->items);
        g->items[lo] = (gap){offset, units};
    }
    return PPS_OK;
}

static uint32_t take(gaps *g, uint32_t units)
{
    uint32_t best = IR_NONE, least = UINT32_MAX;
    for (uint32_t i = 0; i < g->n && least != units; i++)
        if (g->items[i].units >= units && g->items[i].units < least) {
            best = i;
            least = g->items[i].units;
        }
    if (best != IR_NONE) {
        gap *from = &g->items[best];
        uint32_t offset = from->offset;
        from->offset += units;
        from->units -= units;
        if (from->units == 0)
            memmove(from, from + 1, (--g->n - best) * sizeof *from);
        return offset;
    }
    /* the arena grows, from its last gap if that reaches the top */
    uint64_t offset = g->top;
    if (g->n > 0 && g->items[g->n - 1].offset + (uint64_t)g->items[g->n - 1].units == g->top)
        offset = g->items[--g->n].offset;
    g->top = offset + units;
    return (uint32_t)offset;
}

pps_status memory_best_fit(const memory_problem *p, uint32_t *offset, uint64_t *ret_bytes)
{
    uint32_t *ending, *begin; /* spans by end: ending[begin[t] ..) */
    gaps g = {0};
    uint64_t most = 0;
    PASS_ALLOC(begin, p->mem, p->n_steps + 1);
    if ((ending = arena_new(p->mem, ((size_t)p->n + 1) * sizeof *ending)) == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t i = 0; i < p->n; i++)
        begin[p->spans[i].end]++;
    for (uint32_t t = 0, at = 0; t <= p->n_steps; t++) {
        at += begin[t];
        begin[t] = at;
    }
    for (uint32_t i = p->n; i-- > 0;) /* from each list's end, which becomes its begin */
        ending[--begin[p->spans[i].end]] = i;
    uint32_t ended = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        const memory_span *s = &p->spans[i];
        for (; ended < begin[s->first + 1]; ended++)
            PPS_TRY(give(p->mem, &g, offset[ending[ended]], p->spans[ending[ended]].units));
        offset[i] = take(&g, s->units);
        if (g.top >= UINT32_MAX) {
            *ret_bytes = UINT64_MAX;
            return PPS_OK;
        }
        uint64_t end = memory_end(s, offset[i]);
        most = end > most ? end : most;
    }
    *ret_bytes = most;
    return PPS_OK;
}

/* ---- All ways
 * ------------------------------------------------------------------------------------ */

typedef struct search {
    memory_problem problem;
    uint32_t *best, *tried; /* offsets */
    uint64_t bytes;         /* of the best */
} search;

static pps_status solve(search *s, int how, uint64_t *ret_bytes)
{
    const memory_problem *p = &s->problem;
    if (how < 0)
        return memory_best_fit(p, s->tried, ret_bytes);
    return how < MEMORY_ORDERS ? memory_largest_first(p, how, s->tried, ret_bytes)
                               : memory_climb(p, s->tried, ret_bytes);
}

static void keep_better(search *s, uint64_t bytes)
{
    uint32_t *tried = s->tried;
    if (bytes >= s->bytes)
        return;
    s->bytes = bytes;
    s->tried = s->best;
    s->best = tried;
}

static pps_status try_way(search *s, int how)
{
    uint64_t bytes;
    PPS_TRY(solve(s, how, &bytes));
    keep_better(s, bytes);
    return PPS_OK;
}

static pps_status try_ways(search *s, const int *ways, size_t n, uint64_t enough)
{
    for (size_t i = 0; i < n && s->bytes > enough; i++)
        PPS_TRY(try_way(s, ways[i]));
    return PPS_OK;
}

/* Until the goal is met, or where trying takes longer, nearly met. Of very many spans, what repeats
 * is placed once first. */
static pps_status try_all(search *s)
{
    static const int few[] = {0, -1, 1, 2, 3, MEMORY_ORDERS}, some[] = {0, -1, 1, 2, 3},
                     many[] = {-1, 0, 1};
    const memory_problem *p = &s->problem;
    uint64_t bytes, near = p->goal + p->goal / 64;
    if (p->n <= FEW)
        return try_ways(s, few, sizeof few / sizeof *few, p->goal);
    if (p->n < MANY)
        return try_ways(s, some, sizeof some / sizeof *some, near);
    PPS_TRY(memory_repeat(p, s->tried, &bytes));
    keep_better(s, bytes);
    return try_ways(s, many, sizeof many / sizeof *many, near);
}

pps_status memory_place(arena *scratch, plan_block *blocks, const uint32_t *end, uint32_t n,
                        uint32_t n_steps, memory_sizes *ret)
{
    search s = {.problem = {.mem = scratch, .n = n, .n_steps = n_steps}, .bytes = UINT64_MAX};
    memory_problem *p = &s.problem;
    memory_span *spans;
    PPS_TRY(most_live(scratch, blocks, n, n_steps, &ret->live));
    PASS_NEW(spans, scratch, n);
    for (uint32_t i = 0; i < n; i++)
        spans[i] = (memory_span){.first = blocks[i].first,
                                 .end = end[i],
                                 .units = blocks[i].units,
                                 .what = blocks[i].what,
                                 .slack = blocks[i].slack};
    p->spans = spans;
    PPS_TRY(most_spanned(p, &ret->least));
    p->goal = ret->live + ret->live / 20;
    p->goal = ret->least > p->goal ? ret->least + ret->least / 100 : p->goal;
    PASS_NEW(s.best, scratch, n);
    PASS_NEW(s.tried, scratch, n);
    PPS_TRY(try_all(&s));
    if (n > 0 && s.bytes == UINT64_MAX)
        return PPS_ERR_LIMIT;
    for (uint32_t i = 0; i < n; i++)
        blocks[i].offset = s.best[i];
    ret->bytes = n > 0 ? s.bytes : 0;
    return PPS_OK;
}
