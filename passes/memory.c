/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.c: where each buffer of a plan lies, and when its bytes may be used again.
 *
 * Buffers are placed in the order in which steps first write them. Bytes that were used before are
 * free for a step only if every earlier access happens before it: accesses of its own stream do; an
 * access on another stream does when the step's clock has seen it. Free segments therefore
 * remember, per stream, the last access of what lay there. Of the fitting segments the smallest is
 * taken (adjacent ones are joined on the way); if none fits the arena grows. No wait is added to
 * reuse memory. Buffers begin aligned; their sizes, and so the arena's, are exact.
 */
#include "passes/pass.h"

#include <string.h>

enum { ALIGN = 64 };

typedef struct segment { /* free bytes; its history lies in `history` */
    uint64_t offset, bytes;
    uint32_t row; /* in placer.history */
} segment;

typedef struct placer {
    arena *mem;
    const plan_step *steps;
    const uint32_t *clock; /* [n_steps][n_streams]: last step known complete + 1 */
    uint32_t n_streams;
    segment *segments; /* by offset */
    uint32_t n, cap;
    uint32_t *history; /* rows of n_streams: last access + 1 */
    uint32_t *spare;   /* unused rows */
    uint32_t n_spare, n_rows, cap_rows;
    uint64_t top;
} placer;

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
}

static pps_status new_row(placer *p, uint32_t *ret)
{
    if (p->n_spare > 0) {
        *ret = p->spare[--p->n_spare];
    } else {
        if (p->n_rows == p->cap_rows) {
            uint32_t cap = p->cap_rows * 2 + 64;
            uint32_t *rows = arena_new(p->mem, (size_t)cap * p->n_streams * sizeof *rows);
            uint32_t *spare = arena_new(p->mem, cap * sizeof *spare);
            if (rows == NULL || spare == NULL)
                return PPS_ERR_NOMEM;
            if (p->n_rows > 0)
                memcpy(rows, p->history, (size_t)p->n_rows * p->n_streams * sizeof *rows);
            p->history = rows;
            p->spare = spare;
            p->cap_rows = cap;
        }
        *ret = p->n_rows++;
    }
    memset(p->history + (size_t)*ret * p->n_streams, 0, p->n_streams * sizeof *p->history);
    return PPS_OK;
}

static bool available(const placer *p, const segment *s, uint32_t step)
{
    const uint32_t *h = p->history + (size_t)s->row * p->n_streams;
    const uint32_t *known = p->clock + (size_t)step * p->n_streams;
    for (uint32_t i = 0; i < p->n_streams; i++)
        if (h[i] > (i == p->steps[step].stream ? step : known[i]))
            return false;
    return true;
}

static void remove_segment(placer *p, uint32_t i)
{
    p->spare[p->n_spare++] = p->segments[i].row;
    memmove(p->segments + i, p->segments + i + 1, (p->n - i - 1) * sizeof *p->segments);
    p->n--;
}

static pps_status insert_segment(placer *p, uint64_t offset, uint64_t bytes, uint32_t row)
{
    uint32_t lo = 0, hi = p->n;
    if (p->n == p->cap) {
        uint32_t cap = p->cap * 2 + 64;
        segment *bigger = arena_new(p->mem, cap * sizeof *bigger);
        if (bigger == NULL)
            return PPS_ERR_NOMEM;
        if (p->n > 0)
            memcpy(bigger, p->segments, p->n * sizeof *bigger);
        p->segments = bigger;
        p->cap = cap;
    }
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (p->segments[mid].offset < offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    memmove(p->segments + lo + 1, p->segments + lo, (p->n - lo) * sizeof *p->segments);
    p->segments[lo] = (segment){offset, bytes, row};
    p->n++;
    return PPS_OK;
}

static void join_history(placer *p, uint32_t into, uint32_t from)
{
    uint32_t *a = p->history + (size_t)into * p->n_streams;
    const uint32_t *b = p->history + (size_t)from * p->n_streams;
    for (uint32_t i = 0; i < p->n_streams; i++)
        a[i] = b[i] > a[i] ? b[i] : a[i];
}

static pps_status take(placer *p, uint64_t bytes, uint32_t step, uint64_t *ret)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < p->n; i++) {
        if (!available(p, &p->segments[i], step))
            continue;
        while (i + 1 < p->n &&
               p->segments[i].offset + p->segments[i].bytes == p->segments[i + 1].offset &&
               available(p, &p->segments[i + 1], step)) {
            p->segments[i].bytes += p->segments[i + 1].bytes;
            join_history(p, p->segments[i].row, p->segments[i + 1].row);
            remove_segment(p, i + 1);
        }
        if (p->segments[i].bytes >= bytes &&
            (best == UINT32_MAX || p->segments[i].bytes < p->segments[best].bytes))
            best = i;
    }
    if (best != UINT32_MAX) {
        segment *s = &p->segments[best];
        *ret = s->offset;
        s->offset += bytes;
        s->bytes -= bytes;
        if (s->bytes == 0)
            remove_segment(p, best);
        return PPS_OK;
    }
    /* grow, using what is free at the top */
    *ret = p->top;
    if (p->n > 0) {
        const segment *last = &p->segments[p->n - 1];
        if (last->offset + last->bytes == p->top && available(p, last, step)) {
            *ret = last->offset;
            remove_segment(p, p->n - 1);
        }
    }
    p->top = *ret + bytes;
    return PPS_OK;
}

static pps_status give(placer *p, const memory_life *l)
{
    uint32_t row;
    PPS_TRY(new_row(p, &row));
    for (uint32_t k = 0; k < l->n_access; k++) {
        uint32_t *h = &p->history[(size_t)row * p->n_streams + p->steps[l->access[k]].stream];
        if (*h < l->access[k] + 1)
            *h = l->access[k] + 1;
    }
    return insert_segment(p, l->offset, aligned(l->bytes), row);
}

pps_status memory_place(arena *scratch, memory_life *lives, uint32_t n, const plan_step *steps,
                        uint32_t n_steps, const uint32_t *clock, uint32_t n_streams,
                        uint64_t *ret_bytes, uint64_t *ret_max_live)
{
    placer p = {.mem = scratch, .steps = steps, .clock = clock, .n_streams = n_streams};
    uint32_t *ending, *begin; /* lives by last step: counting sort */
    uint64_t live = 0, most = 0, end = 0;
    PASS_ALLOC(begin, scratch, n_steps + 1);
    PASS_ALLOC(ending, scratch, n);
    for (uint32_t i = 0; i < n; i++)
        begin[lives[i].last + 1]++;
    for (uint32_t t = 0; t < n_steps; t++)
        begin[t + 1] += begin[t];
    for (uint32_t i = 0; i < n; i++)
        ending[begin[lives[i].last]++] = i;
    /* begin[t] is now the end of t's lives */
    uint32_t next_end = 0, next = 0;
    for (uint32_t t = 0; t < n_steps; t++) {
        for (; next < n && lives[next].first == t; next++) {
            PPS_TRY(take(&p, aligned(lives[next].bytes), t, &lives[next].offset));
            live += lives[next].bytes;
            if (lives[next].offset + lives[next].bytes > end)
                end = lives[next].offset + lives[next].bytes;
        }
        most = live > most ? live : most;
        for (; next_end < begin[t]; next_end++) {
            PPS_TRY(give(&p, &lives[ending[next_end]]));
            live -= lives[ending[next_end]].bytes;
        }
    }
    *ret_bytes = end;
    *ret_max_live = most;
    return PPS_OK;
}
