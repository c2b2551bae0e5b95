/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_period.c: long schedules repeat themselves, and so can their memory.
 *
 *   all       warm up | P P P P P P P P P P P P P P P P | cool down      P: the spans of one period
 *   shorter   warm up | P P:P P | cool down
 *   section                [P P P]        begins and ends with what is alive at the cut `:`
 *   all       warm up | P P:[P P P][P P P] ... [P P P]:P P | cool down
 *
 * The shorter problem is solved, then a section of some periods that finds in use what is alive at
 * a cut of it, and leaves exactly the same in use, as many periods later. Sections can follow each
 * other for as long as the schedule goes on, so the work does not depend on the number of
 * microbatches. Where spans take turns in their places, the section is as long as it takes until it
 * is the first one's turn again: the number of periods after which most bytes alive recur.
 */
#include "passes/memory.h"

#include <string.h>

enum { WINDOW = 1 << 16 };

/* Spans i and j are alike, and come alike after the span before them. */
static bool alike(const memory_span *s, uint32_t i, uint32_t j)
{
    return s[i].units == s[j].units && s[i].end - s[i].first == s[j].end - s[j].first &&
           s[i].first - s[i - 1].first == s[j].first - s[j - 1].first && s[i].what == s[j].what &&
           s[i].slack == s[j].slack;
}

pps_status memory_period_find(const memory_problem *p, memory_period *ret)
{
    const memory_span *s = p->spans;
    uint32_t n = p->n / 4 < WINDOW ? p->n / 4 : WINDOW, base = p->n / 2 - n / 2, k = 0;
    uint32_t *border; /* of the first i + 1 spans of the window: longest that begins and ends it */
    ret->n = 0;
    if (n < 8)
        return PPS_OK;
    PASS_ALLOC(border, p->mem, n);
    for (uint32_t i = 1; i < n; i++) {
        while (k > 0 && !alike(s, base + i, base + k))
            k = border[k - 1];
        k += alike(s, base + i, base + k);
        border[i] = k;
    }
    uint32_t period = n - border[n - 1], first = base, end = base + n;
    if (period > n / 3)
        return PPS_OK;
    while (first > 1 && alike(s, first - 1, first - 1 + period))
        first--;
    while (end < p->n && alike(s, end, end - period))
        end++;
    *ret = (memory_period){.first = first,
                           .spans = period,
                           .steps = s[first + period].first - s[first].first,
                           .n = (end - first) / period};
    return PPS_OK;
}

pps_status memory_shorten(const memory_problem *p, const memory_period *t, uint32_t kept,
                          memory_problem *ret)
{
    uint32_t cut = t->first + kept * t->spans, out = (t->n - kept) * t->spans;
    uint32_t steps = (t->n - kept) * t->steps;
    memory_span *spans = arena_new(p->mem, ((size_t)(p->n - out) + 1) * sizeof *spans);
    if (spans == NULL)
        return PPS_ERR_NOMEM;
    memcpy(spans, p->spans, cut * sizeof *spans);
    for (uint32_t i = cut; i < p->n - out; i++) {
        spans[i] = p->spans[i + out];
        spans[i].first -= steps;
        spans[i].end -= steps;
    }
    *ret = *p;
    ret->spans = spans;
    ret->n = p->n - out;
    ret->n_steps = p->n_steps - steps;
    return PPS_OK;
}

/* ---- Sections
 * ------------------------------------------------------------------------------------- */

typedef struct alive {
    uint32_t back; /* spans before the cut */
    uint32_t left; /* steps after it */
    uint32_t offset;
} alive;

typedef struct cut {
    uint32_t begin, n; /* in `list` */
} cut;

typedef struct cuts {
    cut *items; /* at the begin of each period */
    alive *list;
    uint32_t n_list, cap_list;
} cuts;

static pps_status add_alive(arena *mem, cuts *c, alive x)
{
    if (c->n_list == c->cap_list) {
        uint32_t cap = c->cap_list * 2 + 4096;
        alive *list = arena_new(mem, cap * sizeof *list);
        if (list == NULL)
            return PPS_ERR_NOMEM;
        if (c->n_list > 0)
            memcpy(list, c->list, c->n_list * sizeof *list);
        c->list = list;
        c->cap_list = cap;
    }
    c->list[c->n_list++] = x;
    return PPS_OK;
}

static pps_status find_cuts(const memory_problem *p, const memory_period *t, uint32_t kept,
                            const uint32_t *offset, cuts *ret)
{
    uint32_t *live, n_live = 0, next = 0;
    PASS_ALLOC(ret->items, p->mem, kept);
    if ((live = arena_new(p->mem, ((size_t)p->n + 1) * sizeof *live)) == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t k = 0; k < kept; k++) {
        uint32_t at = t->first + k * t->spans, now = p->spans[at].first, n = 0;
        cut *c = &ret->items[k];
        c->begin = ret->n_list;
        for (uint32_t i = 0; i < n_live; i++)
            if (p->spans[live[i]].end > now)
                live[n++] = live[i];
        for (; next < at; next++)
            if (p->spans[next].end > now)
                live[n++] = next;
        n_live = n;
        for (uint32_t i = 0; i < n_live; i++) {
            alive x = {at - live[i], p->spans[live[i]].end - now, offset[live[i]]};
            PPS_TRY(add_alive(p->mem, ret, x));
        }
        c->n = n_live;
    }
    return PPS_OK;
}

uint32_t memory_period_reach(const memory_problem *p, const memory_period *t)
{
    uint32_t longest = 0;
    for (uint32_t i = t->first; i < t->first + t->spans; i++)
        if (p->spans[i].end - p->spans[i].first > longest)
            longest = p->spans[i].end - p->spans[i].first;
    return longest / t->steps + 1;
}

/* Bytes alive at both cuts in the same places, in PLAN_ALIGN bytes; *ret_all: at the first. */
static uint64_t recurring(const memory_problem *p, const cuts *c, const cut *a, const cut *b,
                          uint32_t at, uint64_t *ret_all)
{
    uint64_t same = 0, all = 0;
    uint32_t i = 0, k = 0;
    for (; i < a->n; i++) { /* both by `back`, largest first */
        const alive *x = &c->list[a->begin + i];
        uint32_t units = p->spans[at - x->back].units;
        all += units;
        while (k < b->n && c->list[b->begin + k].back > x->back)
            k++;
        if (k < b->n && memcmp(&c->list[b->begin + k], x, sizeof *x) == 0)
            same += units;
    }
    *ret_all = all;
    return same;
}

pps_status memory_recurrence(const memory_problem *p, const memory_period *t, uint32_t kept,
                             const uint32_t *offset, uint32_t *ret_begin, uint32_t *ret_n)
{
    cuts c = {0};
    uint32_t reach = memory_period_reach(p, t), begin = kept / 2, n = 2 * reach + 1;
    uint64_t most = 0, all;
    PPS_TRY(find_cuts(p, t, kept, offset, &c));
    *ret_begin = begin;
    *ret_n = n;
    for (; begin + n + reach < kept; n++) {
        uint32_t at = t->first + begin * t->spans;
        uint64_t same = recurring(p, &c, &c.items[begin], &c.items[begin + n], at, &all);
        if (same > most)
            *ret_n = n;
        most = same > most ? same : most;
        if (same == all)
            break;
    }
    return PPS_OK;
}

pps_status memory_section(const memory_problem *p, const memory_period *t, uint32_t begin,
                          uint32_t n, const uint32_t *offset, uint32_t *ret_offset,
                          uint64_t *ret_bytes)
{
    uint32_t at = t->first + begin * t->spans, n_new = n * t->spans, n_old = 0;
    uint32_t now = p->spans[at].first, steps = n * t->steps, *fixed, *old;
    memory_problem section = *p;
    memory_span *spans;
    uint64_t bytes = UINT64_MAX;
    PASS_ALLOC(old, p->mem, at);
    for (uint32_t i = 0; i < at; i++)
        if (p->spans[i].end > now)
            old[n_old++] = i;
    PASS_ALLOC(spans, p->mem, n_old + n_new);
    PASS_ALLOC(fixed, p->mem, n_old + n_new);
    memset(fixed, 0xff, (n_old + n_new) * sizeof *fixed);
    for (uint32_t i = 0; i < n_old; i++) {
        spans[i] = p->spans[old[i]];
        spans[i].first = 0;
        spans[i].end -= now;
        fixed[i] = offset[old[i]];
        /* its like, as many periods later, is alive at the section's end */
        uint32_t twin = old[i] + n_new - at;
        if (old[i] + n_new < at)
            return PPS_OK;
        fixed[n_old + twin] = fixed[i];
    }
    for (uint32_t i = 0; i < n_new; i++) {
        memory_span *s = &spans[n_old + i];
        uint32_t period = i / t->spans;
        *s = p->spans[at + i % t->spans];
        s->first += period * t->steps - now;
        s->end += period * t->steps - now;
        s->end = s->end > steps ? steps : s->end;
    }
    section.spans = spans;
    section.n = n_old + n_new;
    section.n_steps = steps;
    section.fixed = fixed;
    uint32_t *tried, *best;
    PASS_ALLOC(tried, p->mem, section.n);
    PASS_ALLOC(best, p->mem, section.n);
    for (int how = 0; how < MEMORY_ORDERS && bytes > p->goal; how++) {
        uint64_t these;
        PPS_TRY(memory_largest_first(&section, how, tried, &these));
        if (these >= bytes)
            continue;
        uint32_t *swap = best;
        best = tried;
        tried = swap;
        bytes = these;
    }
    memcpy(ret_offset, best + n_old, n_new * sizeof *ret_offset);
    *ret_bytes = bytes;
    return PPS_OK;
}
