/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_period.c: long schedules repeat themselves, and so can their memory.
 *
 *   spans     warm up | P P P P P P P P P P P P P P P P | cool down      P: the spans of one period
 *   ring      P P P P, and again for ever: a turn
 *   all       warm up | P P | P P P P   P P P P   P P P P   P P | cool down
 *             ----- head ----           ring, turn by turn       -- tail ---
 *
 * A turn of the ring is placed once. Head and tail are what is left when the schedule is cut behind
 * the last span of the warm up to end, and behind the last period; what is alive at a cut lies
 * where the ring has it. So the work does not depend on the number of microbatches. Spans that
 * begin in the warm up and end in the cool down lie below everything else.
 *
 * A turn is as many periods as it takes until it is each span's place's turn again: a span that
 * lasts 2.6 periods needs three places, and comes back to its first after three periods.
 */
#include "passes/memory.h"

#include <string.h>

enum {
    WINDOW = 1 << 16,
    LONGEST_TURN = 1 << 12, /* spans */
    RINGS = 2               /* orders that are tried for it */
};

typedef struct memory_period {
    uint32_t first;        /* span with which the first period begins, the only one of its step */
    uint32_t spans, steps; /* of one period */
    uint32_t n;            /* periods; 0: spans do not repeat */
} memory_period;

/* Spans i and j are alike, and come alike after the span before them. */
static bool alike(const memory_span *s, uint32_t i, uint32_t j)
{
    return s[i].units == s[j].units && s[i].end - s[i].first == s[j].end - s[j].first &&
           s[i].first - s[i - 1].first == s[j].first - s[j - 1].first && s[i].what == s[j].what &&
           s[i].slack == s[j].slack;
}

static pps_status find_period(const memory_problem *p, memory_period *ret)
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
    while (first < end && s[first].first == s[first - 1].first)
        first++;
    *ret = (memory_period){.first = first,
                           .spans = period,
                           .steps = s[first + period].first - s[first].first,
                           .n = (end - first) / period};
    return PPS_OK;
}

/* ---- Ring --------------------------------------------------------------------------------------
 */

typedef struct answer {
    uint32_t cut;         /* span with which the ring begins */
    const uint32_t *ring; /* [turn * t.spans] offsets from `floor` */
    uint32_t *parts;      /* offsets of head and tail, one behind the other */
    uint64_t bytes;
} answer;

typedef struct repeat {
    const memory_problem *p;
    memory_period t;
    uint32_t reach, turn;    /* periods: that a span can last, of a turn */
    uint32_t cut_step;       /* at which the ring begins */
    uint32_t end, end_step;  /* the cool down begins */
    uint64_t floor;          /* units of what lies below all */
    const memory_span *like; /* [turn * t.spans] spans of a turn */
    answer best, tried;
} repeat;

static uint32_t periods(const repeat *r, uint32_t steps)
{
    return (steps + r->t.steps - 1) / r->t.steps;
}

/* Units of places that are idle until it is their turn, if a turn has `n` periods. */
static uint64_t idle_units(const repeat *r, uint32_t n)
{
    const memory_span *s = r->p->spans + r->t.first;
    uint64_t idle = 0;
    for (uint32_t i = 0; i < r->t.spans; i++) {
        uint32_t places = periods(r, s[i].end - s[i].first), rest = n % places;
        idle += (uint64_t)(rest > places - rest ? places - rest : rest) * s[i].units;
    }
    return idle;
}

/* Periods of a turn: the fewest after which nearly all spans are back in their places. */
static uint32_t choose_turn(const repeat *r)
{
    uint64_t least = UINT64_MAX, few = r->p->goal / PLAN_ALIGN / 64;
    uint32_t n, most = LONGEST_TURN / r->t.spans;
    for (n = r->reach; n <= most; n++) {
        uint64_t idle = idle_units(r, n);
        least = idle < least ? idle : least;
    }
    for (n = r->reach; n <= most && idle_units(r, n) > least + few; n++)
        ;
    return n <= most ? n : 0;
}

static bool below_all(const repeat *r, uint32_t span)
{
    return span < r->t.first && r->p->spans[span].end > r->end_step;
}

/* Where the ring begins: behind the last span of the warm up to end. False when there is no ring
 * that is worth it. */
static bool find_cuts(repeat *r)
{
    const memory_problem *p = r->p;
    const memory_period *t = &r->t;
    uint32_t begin = p->spans[t->first].first, last = begin;
    r->end = t->first + t->n * t->spans;
    r->end_step = begin + t->n * t->steps;
    r->floor = 0;
    r->reach = 1;
    for (uint32_t i = t->first; i < t->first + t->spans; i++) {
        uint32_t n = periods(r, p->spans[i].end - p->spans[i].first);
        r->reach = n > r->reach ? n : r->reach;
    }
    for (uint32_t i = 0; i < t->first; i++) {
        if (below_all(r, i))
            r->floor += p->spans[i].units;
        else if (p->spans[i].end > last)
            last = p->spans[i].end;
    }
    uint32_t head = periods(r, last - begin);
    r->turn = choose_turn(r);
    r->tried.cut = t->first + head * t->spans;
    r->cut_step = begin + head * t->steps;
    return r->turn > 0 && head < t->n && (uint64_t)r->turn * t->steps < UINT32_MAX / 3 &&
           (uint64_t)r->tried.cut + (p->n - r->end) + r->turn * t->spans < p->n / 2;
}

static uint32_t ring_offset(const repeat *r, const answer *a, uint32_t span)
{
    uint32_t n = r->turn * r->t.spans, ahead = span < a->cut ? (a->cut - span + n - 1) / n * n : 0;
    return (uint32_t)(a->ring[(span + ahead - a->cut) % n] + r->floor);
}

static pps_status make_turn(repeat *r)
{
    const memory_period *t = &r->t;
    const memory_span *first = r->p->spans + t->first;
    uint32_t n = r->turn * t->spans;
    memory_span *spans = arena_new(r->p->mem, ((size_t)n + 1) * sizeof *spans);
    if (spans == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t earlier = first->first - i / t->spans * t->steps;
        spans[i] = first[i % t->spans];
        spans[i].first -= earlier;
        spans[i].end -= earlier;
    }
    r->like = spans;
    return PPS_OK;
}

static pps_status place_turn(repeat *r, int how)
{
    uint32_t *ring;
    memory_problem turn = {.mem = r->p->mem,
                           .spans = r->like,
                           .n = r->turn * r->t.spans,
                           .n_steps = r->turn * r->t.steps,
                           .ring = r->t.spans};
    PASS_ALLOC(ring, r->p->mem, turn.n);
    PPS_TRY(memory_largest_first(&turn, how, ring, &r->tried.bytes));
    r->tried.ring = ring;
    if (r->tried.bytes != UINT64_MAX)
        r->tried.bytes += r->floor * PLAN_ALIGN;
    if (r->tried.bytes / PLAN_ALIGN >= UINT32_MAX) /* memory.c places no more */
        r->tried.bytes = UINT64_MAX;
    return PPS_OK;
}

/* ---- Head and tail ------------------------------------------------------------------------------
 */

typedef struct part { /* head or tail */
    uint32_t begin, end, begin_step, end_step;
    memory_span *spans;
    uint32_t *fixed, *of, n, floor;
} part;

static void add_span(const repeat *r, part *t, uint32_t i)
{
    memory_span x = r->p->spans[i];
    bool given = i < t->begin || x.end > t->end_step;
    if (i < t->begin && x.end <= t->begin_step)
        return;
    t->fixed[t->n] = IR_NONE;
    if (below_all(r, i)) {
        t->fixed[t->n] = t->floor;
        t->floor += x.units;
    } else if (given) {
        t->fixed[t->n] = ring_offset(r, &r->tried, i);
    }
    x.first = i < t->begin ? 0 : x.first - t->begin_step;
    x.end = (x.end < t->end_step ? x.end : t->end_step) - t->begin_step;
    t->spans[t->n] = x;
    t->of[t->n++] = i;
}

/* Offsets of the spans that begin in the part. A head is placed backward from its cut first, a tail
 * forward: away from what is given. */
static pps_status place_part(const repeat *r, part *t, int how, uint32_t *ret_offset,
                             uint64_t *ret_bytes)
{
    const memory_problem *p = r->p;
    uint32_t back = r->reach * r->t.spans, from = t->begin > back ? t->begin - back : 0;
    uint32_t warm_up = from < r->t.first ? 0 : r->t.first, most = warm_up + t->end - from, *offset;
    uint64_t bytes;
    PASS_ALLOC(t->spans, p->mem, most);
    PASS_ALLOC(t->fixed, p->mem, most);
    PASS_ALLOC(t->of, p->mem, most);
    PASS_ALLOC(offset, p->mem, most);
    for (uint32_t i = 0; i < warm_up; i++)
        add_span(r, t, i);
    for (uint32_t i = warm_up > 0 ? from : 0; i < t->end; i++)
        add_span(r, t, i);
    memory_problem problem = {.mem = p->mem,
                              .spans = t->spans,
                              .n = t->n,
                              .n_steps = t->end_step - t->begin_step,
                              .fixed = t->fixed};
    *ret_bytes = UINT64_MAX;
    for (int k = 0; k<MEMORY_ORDERS && * ret_bytes> p->goal; k++) {
        PPS_TRY(memory_largest_first(&problem, how ^ k, offset, &bytes));
        if (bytes >= *ret_bytes)
            continue;
        *ret_bytes = bytes;
        for (uint32_t i = 0; i < t->n; i++)
            if (t->of[i] >= t->begin)
                ret_offset[t->of[i] - t->begin] = offset[i];
    }
    return PPS_OK;
}

/* Head and tail for the ring at hand. */
static pps_status try_ring(repeat *r)
{
    const memory_problem *p = r->p;
    answer *a = &r->tried;
    part head = {.end = a->cut, .end_step = r->cut_step};
    part tail = {.begin = r->end, .end = p->n, .begin_step = r->end_step, .end_step = p->n_steps};
    uint64_t bytes[2];
    PASS_ALLOC(a->parts, p->mem, a->cut + (p->n - r->end));
    PPS_TRY(place_part(r, &head, 1, a->parts, &bytes[0]));
    PPS_TRY(place_part(r, &tail, 0, a->parts + a->cut, &bytes[1]));
    for (int i = 0; i < 2; i++)
        a->bytes = bytes[i] > a->bytes ? bytes[i] : a->bytes;
    if (a->bytes < r->best.bytes)
        r->best = *a;
    return PPS_OK;
}

pps_status memory_repeat(const memory_problem *p, uint32_t *offset, uint64_t *ret_bytes)
{
    repeat r = {.p = p, .best = {.bytes = UINT64_MAX}};
    *ret_bytes = UINT64_MAX;
    PPS_TRY(find_period(p, &r.t));
    if (r.t.n == 0 || !find_cuts(&r))
        return PPS_OK;
    PPS_TRY(make_turn(&r));
    for (int how = 0; how < RINGS && r.best.bytes > p->goal; how++) {
        PPS_TRY(place_turn(&r, how));
        if (r.tried.bytes < r.best.bytes)
            PPS_TRY(try_ring(&r));
    }
    const answer *a = &r.best;
    *ret_bytes = a->bytes;
    if (a->bytes == UINT64_MAX)
        return PPS_OK;
    memcpy(offset, a->parts, a->cut * sizeof *offset);
    memcpy(offset + r.end, a->parts + a->cut, (p->n - r.end) * sizeof *offset);
    for (uint32_t i = a->cut; i < r.end; i++)
        offset[i] = ring_offset(&r, a, i);
    return PPS_OK;
}
