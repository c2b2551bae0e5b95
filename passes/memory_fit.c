/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_fit.c: spans placed in the order in which they begin, each in about the smallest gap that
 * ended spans have left and that holds it. What it costs does not depend on how many gaps there
 * are.
 *
 *   offset  0                                    top
 *           |xxxx|  gap  |xx| gap |xxxxxxx|  gap |         gaps never touch: what is given back
 * joins its neighbours, found by where they begin lists   [64..65] -> gap -> gap and end [66..67]
 *           [68..69] -> gap                                gaps of about one size hang in one list
 */
#include "passes/memory.h"

#include <string.h>

enum {
    STEPS = 32,           /* lists between a power of two and the next */
    N_LISTS = 28 * STEPS, /* of sizes below 2^32 */
    LOOKED_AT = 16,       /* gaps of a list */
    N_WORDS = (N_LISTS + 63) / 64
};

typedef struct gap {
    uint32_t offset, units;
    uint32_t next, before;         /* in the list of its size */
    uint32_t next_begin, next_end; /* in the tables */
} gap;

typedef struct gaps {
    gap *items;
    uint32_t n, cap, unused;           /* unused: linked by `next` */
    uint32_t *by_begin, *by_end, mask; /* hashed */
    uint32_t lists[N_LISTS];
    uint64_t used[N_WORDS]; /* which lists have gaps */
    uint64_t top;
} gaps;

/* Sizes up to 2 * STEPS have lists of their own. */
static uint32_t list_of(uint32_t units)
{
    if (units < 2 * STEPS)
        return units;
    uint32_t power = 31 - (uint32_t)__builtin_clz(units); /* 6 .. 31 */
    return (power - 5) * STEPS + (units >> (power - 5));
}

static uint32_t hash(const gaps *g, uint32_t offset)
{
    return (offset * 2654435761u) >> 7 & g->mask;
}

static void hang(gaps *g, uint32_t id)
{
    gap *x = &g->items[id];
    uint32_t list = list_of(x->units);
    uint32_t begin = hash(g, x->offset), end = hash(g, x->offset + x->units);
    x->before = IR_NONE;
    x->next = g->lists[list];
    if (x->next != IR_NONE)
        g->items[x->next].before = id;
    g->lists[list] = id;
    g->used[list / 64] |= (uint64_t)1 << list % 64;
    x->next_begin = g->by_begin[begin];
    g->by_begin[begin] = id;
    x->next_end = g->by_end[end];
    g->by_end[end] = id;
}

static void unhang(gaps *g, uint32_t id)
{
    gap *x = &g->items[id];
    uint32_t list = list_of(x->units);
    if (x->next != IR_NONE)
        g->items[x->next].before = x->before;
    if (x->before != IR_NONE)
        g->items[x->before].next = x->next;
    else if ((g->lists[list] = x->next) == IR_NONE)
        g->used[list / 64] &= ~((uint64_t)1 << list % 64);
    uint32_t *at = &g->by_begin[hash(g, x->offset)];
    while (*at != id)
        at = &g->items[*at].next_begin;
    *at = x->next_begin;
    at = &g->by_end[hash(g, x->offset + x->units)];
    while (*at != id)
        at = &g->items[*at].next_end;
    *at = x->next_end;
    x->next = g->unused;
    g->unused = id;
}

static pps_status add_gap(arena *mem, gaps *g, uint32_t offset, uint32_t units)
{
    if (g->unused == IR_NONE) {
        uint32_t cap = g->cap * 2 + 256, size = 512;
        gap *items;
        while (size < cap)
            size *= 2;
        PASS_NEW(items, mem, cap);
        PASS_NEW(g->by_begin, mem, size);
        PASS_NEW(g->by_end, mem, size);
        if (g->cap > 0)
            memcpy(items, g->items, g->cap * sizeof *items);
        memset(g->by_begin, 0xff, size * sizeof *g->by_begin);
        memset(g->by_end, 0xff, size * sizeof *g->by_end);
        memset(g->lists, 0xff, sizeof g->lists);
        memset(g->used, 0, sizeof g->used);
        g->mask = size - 1;
        g->items = items;
        for (uint32_t i = 0; i < g->cap; i++) /* none is unused */
            hang(g, i);
        for (uint32_t i = cap; i-- > g->cap; g->unused = i)
            items[i].next = g->unused;
        g->cap = cap;
    }
    uint32_t id = g->unused;
    g->unused = g->items[id].next;
    g->items[id] = (gap){.offset = offset, .units = units};
    hang(g, id);
    return PPS_OK;
}

static pps_status give(arena *mem, gaps *g, uint32_t offset, uint32_t units)
{
    uint32_t below = IR_NONE, above = IR_NONE;
    if (g->cap > 0) {
        below = g->by_end[hash(g, offset)];
        above = g->by_begin[hash(g, offset + units)];
    }
    while (below != IR_NONE && g->items[below].offset + g->items[below].units != offset)
        below = g->items[below].next_end;
    while (above != IR_NONE && g->items[above].offset != offset + units)
        above = g->items[above].next_begin;
    if (below != IR_NONE) {
        offset = g->items[below].offset;
        units += g->items[below].units;
        unhang(g, below);
    }
    if (above != IR_NONE) {
        units += g->items[above].units;
        unhang(g, above);
    }
    return add_gap(mem, g, offset, units);
}

/* Of the first few of a list, the smallest that is large enough; the lowest of these. */
static uint32_t best_of(const gaps *g, uint32_t list, uint32_t units)
{
    uint32_t best = IR_NONE, id = g->lists[list];
    gap least = {.offset = UINT32_MAX, .units = UINT32_MAX};
    for (uint32_t i = 0; i < LOOKED_AT && id != IR_NONE; i++, id = g->items[id].next) {
        const gap *x = &g->items[id];
        if (x->units < units || x->units > least.units ||
            (x->units == least.units && x->offset > least.offset))
            continue;
        least = *x;
        best = id;
    }
    return best;
}

static uint32_t find_gap(const gaps *g, uint32_t units)
{
    uint32_t list = list_of(units), best = IR_NONE;
    for (uint32_t word = list / 64; word < N_WORDS && best == IR_NONE; word++) {
        uint64_t bits = g->used[word];
        if (word == list / 64)
            bits &= ~(uint64_t)0 << list % 64;
        for (; bits != 0 && best == IR_NONE; bits &= bits - 1)
            best = best_of(g, word * 64 + (uint32_t)__builtin_ctzll(bits), units);
    }
    return best;
}

static pps_status take(arena *mem, gaps *g, uint32_t units, uint64_t *ret_offset)
{
    uint32_t best = g->cap > 0 ? find_gap(g, units) : IR_NONE;
    if (best != IR_NONE) {
        gap x = g->items[best];
        unhang(g, best);
        *ret_offset = x.offset;
        return x.units == units ? PPS_OK : add_gap(mem, g, x.offset + units, x.units - units);
    }
    /* more is needed, from the last gap on if that reaches the top */
    uint32_t last =
        g->cap > 0 && g->top <= UINT32_MAX ? g->by_end[hash(g, (uint32_t)g->top)] : IR_NONE;
    while (last != IR_NONE && g->items[last].offset + (uint64_t)g->items[last].units != g->top)
        last = g->items[last].next_end;
    *ret_offset = g->top;
    if (last != IR_NONE) {
        *ret_offset = g->items[last].offset;
        unhang(g, last);
    }
    g->top = *ret_offset + units;
    return PPS_OK;
}

pps_status memory_best_fit(const memory_problem *p, uint32_t *offset, uint64_t *ret_bytes)
{
    uint32_t *ending, *begin; /* spans by end: ending[begin[t] ..) */
    gaps *g;
    uint64_t most = 0;
    PASS_ALLOC(begin, p->mem, p->n_steps + 1);
    PASS_NEW(ending, p->mem, p->n);
    PASS_ALLOC(g, p->mem, 1);
    g->unused = IR_NONE;
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
        uint64_t at;
        for (; ended < begin[s->first + 1]; ended++)
            PPS_TRY(give(p->mem, g, offset[ending[ended]], p->spans[ending[ended]].units));
        PPS_TRY(take(p->mem, g, s->units, &at));
        if (g->top >= UINT32_MAX) {
            *ret_bytes = UINT64_MAX;
            return PPS_OK;
        }
        offset[i] = (uint32_t)at;
        uint64_t end = memory_end(s, offset[i]);
        most = end > most ? end : most;
    }
    *ret_bytes = most;
    return PPS_OK;
}
