/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_search.c: spans stacked out of order, for plans on which best fit leaves holes.
 *
 * Largest first. Spans of one size (a class) are placed in the order of their begins, classes one
 * after the other. What was placed hangs in slots, an offset and the disjoint spans of one size
 * that lie there; slots are kept by offset:
 *
 *   slot 2  offset 48   [....]    [..]     [...]
 *   slot 1  offset 16      [...]    [....]      [..]         a new span walks the slots upward: the
 *   slot 0  offset  0   [..][..] [..][..]  [..][..]          first gap that is large enough is its
 *                            ^ cursors                       place
 *
 * Begins grow within a class, so each slot's cursor, at the first span that has not ended, only
 * moves on, and a slot costs one comparison. A schedule in its steady state uses the same few slots
 * over and over, however many microbatches it has; the walk is given up where it does not.
 *
 * Spans on a ring, which come again for ever, differ in three things. Classes are those that come
 * again within a turn, so that one class is as regular as can be. Those that run over the ring's
 * end are placed first of their class, a turn early. And a slot's cursor goes round: behind the
 * last span lies the first, a turn later.
 *
 * Climb. Spans are placed one by one in some order, each at the lowest offset free; one that ends
 * too high is moved to an earlier place in the order, and the new order is kept if it is no worse.
 */
#include "passes/memory.h"

#include <stdlib.h>
#include <string.h>

/* ---- Largest first
 * ------------------------------------------------------------------------------- */

enum {
    MAX_CLASSES = 1024, /* more sizes than that are not searched */
    TABLE = 4096,
    FEW = 256,   /* spans for which no time is to be saved */
    TINY = 512,  /* classes that hold one part of so many are tiny */
    VISITS = 800 /* slots walked per span, on average, before giving up */
};

typedef struct span_class {
    uint32_t units;
    uint8_t what;
    uint32_t n, begin; /* in `sorted` */
    uint64_t steps;    /* of its spans together */
    double weight;
} span_class;

typedef struct slot { /* what the walk looks at */
    uint32_t offset, top;
    uint32_t first, end; /* of the span at the cursor; UINT32_MAX behind the last */
    uint32_t chain;
} slot;

typedef struct chain {   /* a slot's spans */
    uint32_t head, tail; /* linked by stacker.next */
    uint32_t cursor, before;
    uint32_t later; /* steps by which the cursor's span comes later than it says: turns of a ring */
    bool given;     /* it has one span, which was given */
} chain;

typedef struct interval {
    uint32_t begin, end;
} interval;

typedef struct stacker {
    const memory_problem *p;
    bool reversed;
    interval *when; /* [n] as seen in the direction of the walk */
    span_class *classes;
    uint32_t n_classes;
    uint32_t *class_of; /* [n] */
    uint32_t *sorted;   /* spans by class, in the order of their begins */
    uint32_t *next;     /* [n] span behind it in its slot */
    slot *slots;
    chain *chains;
    uint32_t n_slots, cap_slots;
} stacker;

/* On a ring, the turn that is looked at is the third, so that what lies before has a number. */
static void look(stacker *s)
{
    const memory_problem *p = s->p;
    uint32_t turn = p->n_steps;
    for (uint32_t i = 0; i < p->n; i++) {
        const memory_span *x = &p->spans[i];
        uint32_t begin = x->first;
        if (p->ring > 0)
            begin += x->end > turn ? turn : 2 * turn;
        else if (s->reversed)
            begin = turn - x->end;
        s->when[i] = (interval){begin, begin + (x->end - x->first)};
    }
}

static int by_weight(const void *a, const void *b)
{
    const span_class *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    if (x->units != y->units)
        return x->units < y->units ? 1 : -1;
    if (x->what != y->what)
        return x->what < y->what ? -1 : 1;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* Classes by size, or by size and kind; false when there are too many. */
static bool find_classes(stacker *s, bool by_kind, uint16_t *table)
{
    const memory_problem *p = s->p;
    memset(table, 0xff, TABLE * sizeof *table);
    for (uint32_t i = 0; i < p->n; i++) {
        const memory_span *x = &p->spans[i];
        uint8_t what = by_kind ? x->what : 0;
        uint32_t at = ((x->units + what * 0x10001u) * 2654435761u) >> 20;
        while (table[at] != UINT16_MAX &&
               (s->classes[table[at]].units != x->units || s->classes[table[at]].what != what))
            at = (at + 1) % TABLE;
        if (table[at] == UINT16_MAX) {
            if (s->n_classes == MAX_CLASSES)
                return false;
            table[at] = (uint16_t)s->n_classes;
            s->classes[s->n_classes++] = (span_class){.units = x->units, .what = what};
        }
        s->class_of[i] = table[at];
        s->classes[table[at]].n++;
        s->classes[table[at]].steps += x->end - x->first;
    }
    return true;
}

/* On a ring: those at the same place of every period. */
static void ring_classes(stacker *s)
{
    const memory_problem *p = s->p;
    s->n_classes = p->ring;
    for (uint32_t i = 0; i < p->n; i++) {
        const memory_span *x = &p->spans[i];
        span_class *k = &s->classes[i % p->ring];
        if (i < p->ring)
            *k = (span_class){.units = x->units, .what = x->what};
        k->n++;
        k->steps += x->end - x->first;
        s->class_of[i] = i % p->ring;
    }
}

/* Spans by begin (ends, for reversed time), then by class: both counting sorts. */
static pps_status sort_spans(stacker *s)
{
    const memory_problem *p = s->p;
    uint32_t *by_begin, *begin, *at;
    PASS_ALLOC(at, p->mem, s->n_classes);
    if ((by_begin = arena_new(p->mem, ((size_t)p->n + 1) * sizeof *by_begin)) == NULL)
        return PPS_ERR_NOMEM;
    if (s->reversed) {
        PASS_ALLOC(begin, p->mem, p->n_steps + 1);
        for (uint32_t i = 0; i < p->n; i++)
            begin[s->when[i].begin + 1]++;
        for (uint32_t t = 0; t < p->n_steps; t++)
            begin[t + 1] += begin[t];
        for (uint32_t i = 0; i < p->n; i++)
            by_begin[begin[s->when[i].begin]++] = i;
    } else {
        uint32_t n = 0;
        for (uint32_t i = 0; i < p->n; i++)
            if (p->ring > 0 && p->spans[i].end > p->n_steps)
                by_begin[n++] = i;
        for (uint32_t i = 0; i < p->n; i++)
            if (p->ring == 0 || p->spans[i].end <= p->n_steps)
                by_begin[n++] = i;
    }
    for (uint32_t c = 0; c < s->n_classes; c++)
        at[c] = s->classes[c].n;
    for (uint32_t c = 0, sum = 0; c < s->n_classes; c++) {
        uint32_t n = at[c];
        at[c] = s->classes[c].begin = sum;
        sum += n;
    }
    for (uint32_t i = 0; i < p->n; i++)
        s->sorted[at[s->class_of[by_begin[i]]]++] = by_begin[i];
    return PPS_OK;
}

static void set_cursor(const stacker *s, slot *x, uint32_t span, uint32_t later)
{
    chain *c = &s->chains[x->chain];
    bool behind = span == IR_NONE;
    c->cursor = span;
    c->later = later;
    x->first = behind ? UINT32_MAX : s->when[span].begin + later;
    x->end = behind ? UINT32_MAX : s->when[span].end + later;
}

static void next_cursor(const stacker *s, slot *x)
{
    chain *c = &s->chains[x->chain];
    uint32_t next = s->next[c->cursor];
    bool round = next == IR_NONE && s->p->ring > 0;
    c->before = c->cursor;
    set_cursor(s, x, round ? c->head : next, c->later + (round ? s->p->n_steps : 0));
}

/* Back to what may lie beside a class's first span, which begins at `begin`: on a ring, what the
 * turn before left behind. */
static void reset_cursors(stacker *s, uint32_t begin)
{
    uint32_t turn = s->p->n_steps, later = s->p->ring > 0 && begin < 2 * turn ? 0u - turn : 0;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        slot *x = &s->slots[i];
        s->chains[x->chain].before = IR_NONE;
        set_cursor(s, x, s->chains[x->chain].head, later);
    }
}

/* A span that ends before the cursor's begins. */
static void insert(const stacker *s, slot *x, uint32_t span)
{
    chain *c = &s->chains[x->chain];
    s->next[span] = IR_NONE;
    if (c->cursor == c->head && c->later == 0) {
        s->next[span] = c->head;
        c->head = span;
    } else if (c->cursor == c->head || c->cursor == IR_NONE) {
        s->next[c->tail] = span;
        c->tail = span;
    } else {
        s->next[span] = c->cursor;
        s->next[c->before] = span;
    }
    set_cursor(s, x, span, 0);
}

static pps_status more_slots(stacker *s)
{
    uint32_t cap = s->cap_slots * 2 + 128;
    slot *slots;
    chain *chains;
    PASS_NEW(slots, s->p->mem, cap);
    PASS_NEW(chains, s->p->mem, cap);
    if (s->n_slots > 0) {
        memcpy(slots, s->slots, s->n_slots * sizeof *slots);
        memcpy(chains, s->chains, s->n_slots * sizeof *chains);
    }
    s->slots = slots;
    s->chains = chains;
    s->cap_slots = cap;
    return PPS_OK;
}

static pps_status add_slot(stacker *s, uint32_t at, uint32_t span, uint32_t offset, bool given)
{
    slot x = {offset, offset + s->p->spans[span].units, 0, 0, s->n_slots};
    if (s->n_slots == s->cap_slots)
        PPS_TRY(more_slots(s));
    s->chains[s->n_slots] = (chain){.head = span, .tail = span, .before = IR_NONE, .given = given};
    s->next[span] = IR_NONE;
    set_cursor(s, &x, span, 0);
    memmove(s->slots + at + 1, s->slots + at, (s->n_slots++ - at) * sizeof *s->slots);
    s->slots[at] = x;
    return PPS_OK;
}

/* The lowest offset free over the span, IR_NONE beyond what an offset can name; adds to *visits. */
static uint32_t lowest(stacker *s, interval span, uint32_t units, uint64_t *visits)
{
    uint64_t at = 0, stop = units;
    slot *x = s->slots, *end = x + s->n_slots;
    for (; x < end && x->offset < stop; x++) {
        while (x->end <= span.begin) /* not so of UINT32_MAX */
            next_cursor(s, x);
        uint32_t top = x->first < span.end ? x->top : 0; /* no branch to mispredict */
        at = top > at ? top : at;
        stop = at + units;
    }
    *visits += (uint64_t)(x - s->slots);
    return stop >= UINT32_MAX ? IR_NONE : (uint32_t)at;
}

static pps_status place_span(stacker *s, uint32_t span, uint32_t offset, bool given)
{
    uint32_t lo = 0, hi = s->n_slots, top = offset + s->p->spans[span].units;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->slots[mid].offset < offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (uint32_t at = lo; at < s->n_slots && s->slots[at].offset == offset && !given; at++)
        if (s->slots[at].top == top && !s->chains[s->slots[at].chain].given) {
            insert(s, &s->slots[at], span);
            return PPS_OK;
        }
    return add_slot(s, lo, span, offset, given);
}

/* Each in a slot of its own. */
static pps_status place_given(stacker *s, uint32_t *offset, uint64_t *most)
{
    const memory_problem *p = s->p;
    for (uint32_t i = 0; p->fixed != NULL && i < p->n; i++) {
        if (p->fixed[i] == IR_NONE)
            continue;
        uint64_t end = memory_end(&p->spans[i], p->fixed[i]);
        offset[i] = p->fixed[i];
        *most = end > *most ? end : *most;
        PPS_TRY(place_span(s, i, offset[i], true));
    }
    return PPS_OK;
}

/* Classes [begin, end) from `base` units up. */
static pps_status stack(stacker *s, uint32_t begin, uint32_t end, uint64_t base, uint32_t *offset,
                        uint64_t *bytes)
{
    const memory_problem *p = s->p;
    uint64_t visits = 0;
    for (uint32_t c = begin; c < end; c++) {
        const span_class *k = &s->classes[c];
        reset_cursors(s, s->when[s->sorted[k->begin]].begin);
        for (uint32_t i = 0; i < k->n; i++) {
            uint32_t span = s->sorted[k->begin + i];
            if (p->fixed != NULL && p->fixed[span] != IR_NONE)
                continue;
            uint32_t at = lowest(s, s->when[span], k->units, &visits);
            if (at == IR_NONE || base + at + k->units >= UINT32_MAX ||
                visits > (uint64_t)VISITS * p->n) {
                *bytes = UINT64_MAX;
                return PPS_OK;
            }
            PPS_TRY(place_span(s, span, at, false));
            offset[span] = (uint32_t)base + at;
            uint64_t top = memory_end(&p->spans[span], offset[span]);
            *bytes = top > *bytes ? top : *bytes;
        }
    }
    return PPS_OK;
}

/* Classes but for the smallest, which together hardly hold anything: they lie above the others.
 * Walking through all of those would take them as long as all the rest. */
static uint32_t not_tiny(const stacker *s)
{
    double all = 0, tiny = 0;
    uint32_t n = s->n_classes;
    for (uint32_t c = 0; c < n; c++)
        all += (double)s->classes[c].steps * s->classes[c].units;
    while (n > 0 && s->p->n >= FEW) {
        tiny += (double)s->classes[n - 1].steps * s->classes[n - 1].units;
        if (tiny * TINY > all)
            break;
        n--;
    }
    return n;
}

pps_status memory_largest_first(const memory_problem *p, int how, uint32_t *offset,
                                uint64_t *ret_bytes)
{
    stacker s = {.p = p, .reversed = how % 2 == 1 && p->ring == 0};
    *ret_bytes = UINT64_MAX;
    if (p->ring > MAX_CLASSES)
        return PPS_OK;
    PASS_NEW(s.when, p->mem, p->n);
    PASS_NEW(s.classes, p->mem, MAX_CLASSES);
    PASS_NEW(s.class_of, p->mem, p->n);
    PASS_NEW(s.sorted, p->mem, p->n);
    PASS_NEW(s.next, p->mem, p->n);
    look(&s);
    if (p->ring > 0) {
        ring_classes(&s);
    } else {
        uint16_t *table;
        PASS_NEW(table, p->mem, TABLE);
        if (!find_classes(&s, how >= 2, table))
            return PPS_OK;
    }
    PPS_TRY(sort_spans(&s));
    for (uint32_t c = 0; c < s.n_classes; c++) {
        span_class *k = &s.classes[c];
        double steps = (double)k->steps / k->n, period = (double)p->n_steps * p->ring / p->n;
        k->weight = k->units;
        if (how >= 2)
            k->weight *= steps;
        if (p->ring > 0 && how % 2 == 1 && steps < period)
            k->weight *= 1e-12;
    }
    qsort(s.classes, s.n_classes, sizeof *s.classes, by_weight);
    uint32_t n = not_tiny(&s);
    uint64_t bytes = 0;
    PPS_TRY(place_given(&s, offset, &bytes));
    PPS_TRY(stack(&s, 0, n, 0, offset, &bytes));
    s.n_slots = 0; /* what is tiny does not look below */
    if (bytes != UINT64_MAX)
        PPS_TRY(stack(&s, n, s.n_classes, (bytes + PLAN_ALIGN - 1) / PLAN_ALIGN, offset, &bytes));
    *ret_bytes = bytes;
    return PPS_OK;
}

/* ---- Climb
 * --------------------------------------------------------------------------------------- */

enum { CLIMBS = 5 };
enum { CLIMB_WORK = 4096 }; /* comparisons of one climb, per span */

typedef struct placed {
    uint32_t offset, top, first, end;
    uint32_t rank; /* in the order */
} placed;

typedef struct climber {
    const memory_problem *p;
    uint32_t *order, *moved;
    placed *now, *trial; /* by offset */
    uint64_t work;
    uint64_t seed;
} climber;

/* Place order[from..), given that `all` holds what came before. */
static uint64_t place_rest(climber *c, const uint32_t *order, uint32_t from, placed *all)
{
    const memory_problem *p = c->p;
    uint64_t most = 0;
    for (uint32_t i = 0; i < from; i++) {
        uint64_t end = (uint64_t)all[i].top * PLAN_ALIGN;
        most = end > most ? end : most;
    }
    for (uint32_t i = from; i < p->n; i++) {
        const memory_span *s = &p->spans[order[i]];
        uint64_t at = 0;
        uint32_t k = 0;
        for (; k < i && all[k].offset < at + s->units; k++)
            if (all[k].first < s->end && all[k].end > s->first && all[k].top > at)
                at = all[k].top;
        c->work += k;
        if (at + s->units >= UINT32_MAX)
            return UINT64_MAX;
        while (k > 0 && all[k - 1].offset > at)
            k--;
        memmove(all + k + 1, all + k, (i - k) * sizeof *all);
        all[k] = (placed){(uint32_t)at, (uint32_t)at + s->units, s->first, s->end, i};
        most = (at + s->units) * PLAN_ALIGN > most ? (at + s->units) * PLAN_ALIGN : most;
    }
    return most;
}

static uint32_t below(climber *c, uint32_t n)
{
    c->seed = c->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(((c->seed >> 32) * n) >> 32);
}

/* One that ends above the goal, to somewhere earlier; false when there is none. */
static bool move_one(climber *c, uint32_t *ret_from)
{
    uint32_t n_high = 0, rank = 0;
    for (uint32_t i = 0; i < c->p->n; i++)
        if ((uint64_t)c->now[i].top * PLAN_ALIGN > c->p->goal && c->now[i].rank > 0 &&
            below(c, ++n_high) == 0)
            rank = c->now[i].rank;
    if (n_high == 0)
        return false;
    uint32_t to = below(c, rank), span = c->order[rank];
    memcpy(c->moved, c->order, c->p->n * sizeof *c->moved);
    memmove(c->moved + to + 1, c->moved + to, (rank - to) * sizeof *c->moved);
    c->moved[to] = span;
    *ret_from = to;
    return true;
}

static uint64_t climb(climber *c)
{
    uint32_t from;
    c->work = 0;
    uint64_t bytes = place_rest(c, c->order, 0, c->now);
    while (bytes > c->p->goal && c->work < (uint64_t)CLIMB_WORK * c->p->n && move_one(c, &from)) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < c->p->n; i++)
            if (c->now[i].rank < from)
                c->trial[n++] = c->now[i];
        uint64_t other = place_rest(c, c->moved, from, c->trial);
        if (other > bytes)
            continue;
        uint32_t *order = c->order;
        placed *now = c->now;
        c->order = c->moved;
        c->now = c->trial;
        c->moved = order;
        c->trial = now;
        bytes = other;
    }
    return bytes;
}

typedef struct ranked {
    double weight;
    uint32_t span;
} ranked;

static int by_rank(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return x->span < y->span ? -1 : x->span > y->span;
}

static double climb_weight(const memory_span *s, int how)
{
    double steps = s->end - s->first;
    switch (how) {
    case 0:
        return s->end; /* what lives last, first */
    case 1:
        return steps;
    case 2:
        return steps * s->units;
    case 3:
        return -(double)s->first;
    }
    return s->units;
}

pps_status memory_climb(const memory_problem *p, uint32_t *offset, uint64_t *ret_bytes)
{
    climber c = {.p = p, .seed = p->n};
    ranked *ranks;
    uint64_t least = UINT64_MAX;
    PASS_ALLOC(ranks, p->mem, p->n);
    PASS_ALLOC(c.order, p->mem, p->n);
    PASS_ALLOC(c.moved, p->mem, p->n);
    PASS_ALLOC(c.now, p->mem, p->n);
    PASS_ALLOC(c.trial, p->mem, p->n);
    *ret_bytes = UINT64_MAX;
    for (int how = 0; how < CLIMBS && least > p->goal; how++) {
        for (uint32_t i = 0; i < p->n; i++)
            ranks[i] = (ranked){climb_weight(&p->spans[i], how), i};
        qsort(ranks, p->n, sizeof *ranks, by_rank);
        for (uint32_t i = 0; i < p->n; i++)
            c.order[i] = ranks[i].span;
        uint64_t bytes = climb(&c);
        if (bytes >= least)
            continue;
        least = bytes;
        *ret_bytes = 0;
        for (uint32_t i = 0; i < p->n; i++) {
            const placed *x = &c.now[i];
            uint32_t span = c.order[x->rank];
            uint64_t end = memory_end(&p->spans[span], x->offset);
            offset[span] = x->offset;
            *ret_bytes = end > *ret_bytes ? end : *ret_bytes;
        }
    }
    return PPS_OK;
}
