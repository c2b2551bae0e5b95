/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.c: where each buffer of a plan lies, and when its bytes may be used again.
 *
 * Buffers are placed in the order in which steps first write them. Bytes that were used before are
 * free for a step only if every earlier access happens before it: accesses of its own stream do; an
 * access on another stream does when the step's clock has seen it. Free segments therefore
 * remember, per stream, the last access of what lay there. No wait is added to reuse
 * memory. Buffers begin aligned; their sizes, and so the arena's, are exact.
 *
 * A schedule's steady state asks for the same sizes over and over: free segments hang in bins by
 * exact size, and the latest that may be used is taken at once. Otherwise all free segments are
 * walked by offset, adjacent usable ones joined, and the smallest that fits is cut; if none fits
 * the arena grows.
 */
#include "passes/pass.h"

#include <string.h>

enum { N_BINS = 1024, PROBES = 4 };

typedef struct segment { /* PLAN_ALIGN bytes each */
    uint32_t offset, units;
    uint32_t above, below;       /* neighbours by offset, used or free; IR_NONE */
    uint32_t bin_next, bin_prev; /* free: others of its bin; free list of records: next */
    bool free;
} segment;

typedef struct placer {
    arena *mem;
    const plan_step *steps;
    const uint32_t *clock; /* [n_steps][n_streams]: last step known complete + 1 */
    uint32_t n_streams;
    segment *segments;
    uint32_t *history; /* [segments][n_streams]: last access + 1 */
    uint32_t n, cap, unused;
    uint32_t bottom, top_segment, top;
    uint32_t n_free; /* free segments */
    uint32_t bins[N_BINS];
} placer;

static uint32_t bin_of(uint32_t units)
{
    return (units * 2654435761u) >> 22;
}

static uint32_t *history_of(const placer *p, uint32_t s)
{
    return p->history + (size_t)s * p->n_streams;
}

static pps_status new_segment(placer *p, uint32_t *ret)
{
    if (p->unused != IR_NONE) {
        *ret = p->unused;
        p->unused = p->segments[*ret].bin_next;
    } else {
        if (p->n == p->cap) {
            uint32_t cap = p->cap * 2 + 256;
            segment *segments = arena_new(p->mem, cap * sizeof *segments);
            uint32_t *history = arena_new(p->mem, (size_t)cap * p->n_streams * sizeof *history);
            if (segments == NULL || history == NULL)
                return PPS_ERR_NOMEM;
            if (p->n > 0) {
                memcpy(segments, p->segments, p->n * sizeof *segments);
                memcpy(history, p->history, (size_t)p->n * p->n_streams * sizeof *history);
            }
            p->segments = segments;
            p->history = history;
            p->cap = cap;
        }
        *ret = p->n++;
    }
    memset(history_of(p, *ret), 0, p->n_streams * sizeof *p->history);
    return PPS_OK;
}

static void enter_bin(placer *p, uint32_t i)
{
    segment *s = &p->segments[i];
    uint32_t *bin = &p->bins[bin_of(s->units)];
    s->free = true;
    s->bin_prev = IR_NONE;
    s->bin_next = *bin;
    if (*bin != IR_NONE)
        p->segments[*bin].bin_prev = i;
    *bin = i;
    p->n_free++;
}

static void leave_bin(placer *p, uint32_t i)
{
    segment *s = &p->segments[i];
    if (s->bin_prev != IR_NONE)
        p->segments[s->bin_prev].bin_next = s->bin_next;
    else
        p->bins[bin_of(s->units)] = s->bin_next;
    if (s->bin_next != IR_NONE)
        p->segments[s->bin_next].bin_prev = s->bin_prev;
    s->free = false;
    p->n_free--;
}

static bool usable(const placer *p, uint32_t i, uint32_t step)
{
    const uint32_t *h = history_of(p, i), *known = p->clock + (size_t)step * p->n_streams;
    for (uint32_t k = 0; k < p->n_streams; k++)
        if (h[k] > (k == p->steps[step].stream ? step : known[k]))
            return false;
    return true;
}

/* Segment `i` takes in its free neighbour above. */
static void join(placer *p, uint32_t i)
{
    uint32_t above = p->segments[i].above, *a = history_of(p, i);
    const uint32_t *b = history_of(p, above);
    leave_bin(p, above);
    leave_bin(p, i);
    for (uint32_t k = 0; k < p->n_streams; k++)
        a[k] = b[k] > a[k] ? b[k] : a[k];
    p->segments[i].units += p->segments[above].units;
    p->segments[i].above = p->segments[above].above;
    if (p->segments[i].above != IR_NONE)
        p->segments[p->segments[i].above].below = i;
    else
        p->top_segment = i;
    p->segments[above].bin_next = p->unused;
    p->unused = above;
    enter_bin(p, i);
}

/* Cut segment `i` to `units`; the rest stays free with the same history. */
static pps_status cut(placer *p, uint32_t i, uint32_t units)
{
    uint32_t rest;
    if (p->segments[i].units == units)
        return PPS_OK;
    PPS_TRY(new_segment(p, &rest));
    segment *s = &p->segments[i], *r = &p->segments[rest];
    memcpy(history_of(p, rest), history_of(p, i), p->n_streams * sizeof *p->history);
    *r = (segment){
        .offset = s->offset + units, .units = s->units - units, .above = s->above, .below = i};
    if (s->above != IR_NONE)
        p->segments[s->above].below = rest;
    else
        p->top_segment = rest;
    s->above = rest;
    s->units = units;
    enter_bin(p, rest);
    return PPS_OK;
}

static pps_status grow_top(placer *p, uint32_t units, uint32_t step, uint32_t *ret)
{
    uint32_t last = p->top_segment;
    bool reused = last != IR_NONE && p->segments[last].free && usable(p, last, step);
    if (units >= UINT32_MAX - (p->top - (reused ? p->segments[last].units : 0)))
        return PPS_ERR_LIMIT;
    if (reused) {
        leave_bin(p, last);
        p->top += units - p->segments[last].units;
        p->segments[last].units = units;
        *ret = last;
        return PPS_OK;
    }
    PPS_TRY(new_segment(p, ret));
    p->segments[*ret] =
        (segment){.offset = p->top, .units = units, .above = IR_NONE, .below = last};
    if (last != IR_NONE)
        p->segments[last].above = *ret;
    p->top_segment = *ret;
    if (p->bottom == IR_NONE)
        p->bottom = *ret;
    p->top += units;
    return PPS_OK;
}

static pps_status take(placer *p, uint32_t units, uint32_t step, uint32_t *ret)
{
    uint32_t best = IR_NONE, probes = 0;
    for (uint32_t i = p->bins[bin_of(units)]; i != IR_NONE && probes < PROBES;
         i = p->segments[i].bin_next, probes++)
        if (p->segments[i].units == units && usable(p, i, step)) {
            leave_bin(p, i);
            *ret = i;
            return PPS_OK;
        }
    for (uint32_t i = p->n_free > 0 ? p->bottom : IR_NONE; i != IR_NONE; i = p->segments[i].above) {
        if (!p->segments[i].free || !usable(p, i, step))
            continue;
        while (p->segments[i].above != IR_NONE && p->segments[p->segments[i].above].free &&
               usable(p, p->segments[i].above, step))
            join(p, i);
        if (p->segments[i].units >= units &&
            (best == IR_NONE || p->segments[i].units < p->segments[best].units))
            best = i;
    }
    if (best == IR_NONE)
        return grow_top(p, units, step, ret);
    leave_bin(p, best);
    *ret = best;
    return cut(p, best, units);
}

memory_life memory_life_of(uint64_t bytes, uint8_t what)
{
    uint64_t units = bytes / PLAN_ALIGN + (bytes % PLAN_ALIGN != 0);
    if (units >= UINT32_MAX) /* more than memory_place places */
        units = UINT32_MAX, bytes = units * PLAN_ALIGN;
    return (memory_life){.units = (uint32_t)units,
                         .slack = (uint8_t)(units * PLAN_ALIGN - bytes),
                         .first = IR_NONE,
                         .what = what};
}

pps_status memory_place(arena *scratch, memory_life *lives, const uint32_t *order, uint32_t n,
                        const plan_step *steps, uint32_t n_steps, const uint32_t *clock,
                        uint32_t n_streams, uint64_t *ret_bytes, uint64_t *ret_max_live)
{
    placer p = {.mem = scratch,
                .steps = steps,
                .clock = clock,
                .n_streams = n_streams,
                .unused = IR_NONE,
                .bottom = IR_NONE,
                .top_segment = IR_NONE};
    uint32_t *ending, *begin, *lies_in; /* lives by last step: counting sort */
    uint64_t live = 0, most = 0, end = 0;
    memset(p.bins, 0xff, sizeof p.bins);
    PASS_ALLOC(begin, scratch, n_steps + 1);
    PASS_ALLOC(ending, scratch, n);
    PASS_ALLOC(lies_in, scratch, n);
    for (uint32_t i = 0; i < n; i++)
        begin[lives[order[i]].last + 1]++;
    for (uint32_t t = 0; t < n_steps; t++)
        begin[t + 1] += begin[t];
    for (uint32_t i = 0; i < n; i++)
        ending[begin[lives[order[i]].last]++] = i;
    /* begin[t] is now the end of t's lives */
    uint32_t next_end = 0, next = 0;
    for (uint32_t t = 0; t < n_steps; t++) {
        for (; next < n && lives[order[next]].first == t; next++) {
            memory_life *l = &lives[order[next]];
            PPS_TRY(take(&p, l->units, t, &lies_in[next]));
            l->offset = p.segments[lies_in[next]].offset;
            uint64_t last = ((uint64_t)l->offset + l->units) * PLAN_ALIGN - l->slack;
            end = last > end ? last : end;
            live += (uint64_t)l->units * PLAN_ALIGN - l->slack;
        }
        most = live > most ? live : most;
        for (; next_end < begin[t]; next_end++) {
            const memory_life *l = &lives[order[ending[next_end]]];
            uint32_t *h = history_of(&p, lies_in[ending[next_end]]);
            for (uint32_t k = 0; k < l->n_access; k++)
                if (h[steps[l->access[k]].stream] < l->access[k] + 1)
                    h[steps[l->access[k]].stream] = l->access[k] + 1;
            enter_bin(&p, lies_in[ending[next_end]]);
            live -= (uint64_t)l->units * PLAN_ALIGN - l->slack;
        }
    }
    *ret_bytes = end;
    *ret_max_live = most;
    return PPS_OK;
}
