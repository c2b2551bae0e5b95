/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_memory.c: one plan's memory, checked from the plan alone.
 *
 * Steps are ordered by their streams and waits, nothing else (a host that issues computes one by
 * one orders more). `clock[step][stream]` is the last step of that stream, plus one, that has ended
 * when the step begins. Then, of every byte of the activations, and of host memory:
 *
 *   life 1   first ----- access ------- access          every access follows the life's first,
 * which life 2                                      first   fills it; the first access of the next
 * life follows all accesses of the one before
 *
 * Which life each binding is of, prove_copies.c wants to know.
 */
#include "passes/prove.h"

#include <string.h>

typedef struct segment { /* bytes whose last life has ended, by `begin` */
    uint64_t begin, end; /* PLAN_ALIGN bytes each, as blocks and bindings */
    uint32_t block;
} segment;

typedef struct memory_prover {
    pps_state *st;
    const plan_set *set;
    const plan *plan;
    arena *mem;
    uint32_t n_streams;
    uint32_t *clock; /* [n_steps][n_streams] */
    uint32_t *bound; /* [n_bindings] block that it is, or NULL */
    /* the memory at hand */
    const plan_block *blocks;
    uint32_t n_blocks;
    uint64_t bytes;
    bool host;
    uint32_t *active; /* blocks alive, by offset */
    uint32_t n_active;
    uint32_t *last;    /* [n_blocks][n_streams] last access + 1 */
    uint32_t *ends;    /* blocks by last step: ends[end_at[t]] .. ends[end_at[t + 1]] */
    uint32_t *end_at;  /* [n_steps + 1] */
    segment *segments; /* at most two more per block than before */
    uint32_t n_segments;
} memory_prover;

static pps_status wrong(const memory_prover *p, uint32_t step, int code, const char *what)
{
    const plan_step *s = &p->plan->steps[step];
    char label[128];
    plan_step_label(p->set, p->plan, s, label, sizeof label);
    return pps_error(p->st, plan_place_of(p->set, s), code, "%s: group %u step %u, %s", what,
                     p->plan->group, step, label);
}

/* ---- Clocks -------------------------------------------------------------------------------------
 */

static pps_status make_clocks(memory_prover *p)
{
    const plan *mine = p->plan;
    uint32_t n = p->n_streams, *before;
    PASS_ALLOC(p->clock, p->mem, (size_t)mine->n_steps * n);
    PASS_ALLOC(before, p->mem, n);
    for (uint32_t i = 0; i < mine->n_steps; i++) {
        const plan_step *s = &mine->steps[i];
        uint32_t *clock = p->clock + (size_t)i * n;
        if (before[s->stream] > 0)
            memcpy(clock, p->clock + (size_t)(before[s->stream] - 1) * n, n * sizeof *clock);
        clock[s->stream] = before[s->stream];
        for (uint32_t k = 0; k < s->n_waits; k++) {
            uint32_t w = mine->waits[s->waits + k];
            const uint32_t *theirs = p->clock + (size_t)w * n;
            for (uint32_t j = 0; j < n; j++)
                clock[j] = theirs[j] > clock[j] ? theirs[j] : clock[j];
            uint32_t *at = &clock[mine->steps[w].stream];
            *at = w + 1 > *at ? w + 1 : *at;
        }
        before[s->stream] = i + 1;
    }
    return PPS_OK;
}

/* Have all accesses in `last` ([n_streams], step + 1) ended when `step` begins? */
static bool all_before(const memory_prover *p, const uint32_t *last, uint32_t step)
{
    const uint32_t *clock = p->clock + (size_t)step * p->n_streams;
    for (uint32_t i = 0; i < p->n_streams; i++)
        if (last[i] > clock[i])
            return false;
    return true;
}

/* ---- Activations --------------------------------------------------------------------------------
 */

/* Position of the first active block at `offset` or beyond. */
static uint32_t find_active(const memory_prover *p, uint64_t offset)
{
    uint32_t lo = 0;
    for (uint32_t n = p->n_active; n > 0; n /= 2) { /* no branch to mispredict */
        uint32_t half = n - n / 2;
        lo = p->blocks[p->active[lo + half - 1]].offset < offset ? lo + half : lo;
    }
    return lo;
}

static uint32_t find_segment(const memory_prover *p, uint64_t offset) /* the first ending beyond */
{
    uint32_t lo = 0;
    for (uint32_t n = p->n_segments; n > 0; n /= 2) {
        uint32_t half = n - n / 2;
        lo = p->segments[lo + half - 1].end <= offset ? lo + half : lo;
    }
    return lo;
}

static pps_status begin_block(memory_prover *p, uint32_t id)
{
    const plan_block *blocks = p->blocks, *b = &blocks[id];
    uint32_t at = find_active(p, b->offset);
    const plan_block *below = at > 0 ? &blocks[p->active[at - 1]] : NULL;
    if (b->units == 0 || b->slack >= PLAN_ALIGN ||
        (uint64_t)b->offset * PLAN_ALIGN + plan_block_bytes(b) > p->bytes)
        return wrong(p, b->first, 519, "a buffer lies outside the plan");
    if ((below != NULL && (uint64_t)below->offset + below->units > b->offset) ||
        (at < p->n_active && (uint64_t)b->offset + b->units > blocks[p->active[at]].offset))
        return wrong(p, b->first, 519, "two live buffers share bytes");
    for (uint32_t i = find_segment(p, b->offset);
         i < p->n_segments && p->segments[i].begin < (uint64_t)b->offset + b->units; i++)
        if (!all_before(p, p->last + (size_t)p->segments[i].block * p->n_streams, b->first))
            return wrong(p, b->first, 519, "a buffer's bytes may still be in use");
    memmove(p->active + at + 1, p->active + at, (p->n_active - at) * sizeof *p->active);
    p->active[at] = id;
    p->n_active++;
    return PPS_OK;
}

/* The bytes of block `id` remember it, in place of what lay there before. */
static void end_block(memory_prover *p, uint32_t id)
{
    const plan_block *b = &p->blocks[id];
    uint64_t begin = b->offset, end = (uint64_t)b->offset + b->units;
    uint32_t at = find_active(p, b->offset), lo = find_segment(p, begin), hi = lo, n = 0;
    segment pieces[3];
    memmove(p->active + at, p->active + at + 1, (p->n_active - at - 1) * sizeof *p->active);
    p->n_active--;
    while (hi < p->n_segments && p->segments[hi].begin < end)
        hi++;
    if (lo < hi && p->segments[lo].begin < begin)
        pieces[n++] = (segment){p->segments[lo].begin, begin, p->segments[lo].block};
    pieces[n++] = (segment){begin, end, id};
    if (lo < hi && p->segments[hi - 1].end > end)
        pieces[n++] = (segment){end, p->segments[hi - 1].end, p->segments[hi - 1].block};
    memmove(p->segments + lo + n, p->segments + hi, (p->n_segments - hi) * sizeof *pieces);
    memcpy(p->segments + lo, pieces, n * sizeof *pieces);
    p->n_segments = p->n_segments - (hi - lo) + n;
}

static pps_status use_buffers(memory_prover *p, uint32_t step)
{
    const plan *mine = p->plan;
    const plan_step *s = &mine->steps[step];
    for (uint32_t k = 0; k < s->n_bindings; k++) {
        uint64_t offset = mine->bindings[s->bindings + k];
        uint32_t at = find_active(p, offset);
        if (plan_host_binding(s, k) != p->host)
            continue;
        if (at == p->n_active || p->blocks[p->active[at]].offset != offset)
            return wrong(p, step, 520, "a step uses a buffer that is not there");
        uint32_t id = p->active[at], first = p->blocks[id].first;
        uint32_t *last = p->last + (size_t)id * p->n_streams;
        uint32_t filled = p->clock[(size_t)step * p->n_streams + mine->steps[first].stream];
        if (first != step && filled < first + 1)
            return wrong(p, step, 520, "a step uses a buffer that may not be filled yet");
        last[s->stream] = step + 1;
        if (p->bound != NULL)
            p->bound[s->bindings + k] = id;
    }
    return PPS_OK;
}

static pps_status check_blocks(memory_prover *p)
{
    const plan *mine = p->plan;
    uint32_t n = p->n_blocks, next = 0;
    PASS_ALLOC(p->active, p->mem, n);
    PASS_ALLOC(p->last, p->mem, (size_t)n * p->n_streams);
    PASS_ALLOC(p->segments, p->mem, 2 * (size_t)n);
    PASS_ALLOC(p->ends, p->mem, n);
    PASS_ALLOC(p->end_at, p->mem, (size_t)mine->n_steps + 1);
    for (uint32_t i = 0; i < n; i++) {
        const plan_block *b = &p->blocks[i];
        if (b->first > b->last || b->last >= mine->n_steps ||
            (i > 0 && b->first < p->blocks[i - 1].first))
            return wrong(p, 0, 519, "a buffer lies outside the plan");
        p->end_at[b->last + 1]++;
    }
    for (uint32_t t = 0; t < mine->n_steps; t++)
        p->end_at[t + 1] += p->end_at[t];
    for (uint32_t i = n; i-- > 0;) /* fill from each list's end, which becomes its begin */
        p->ends[--p->end_at[p->blocks[i].last + 1]] = i;
    for (uint32_t t = 0; t < mine->n_steps; t++) {
        uint32_t end = t + 1 < mine->n_steps ? p->end_at[t + 2] : n;
        for (; next < n && p->blocks[next].first == t; next++)
            PPS_TRY(begin_block(p, next));
        PPS_TRY(use_buffers(p, t));
        for (uint32_t i = p->end_at[t + 1]; i < end; i++)
            end_block(p, p->ends[i]);
    }
    return PPS_OK;
}

pps_status pass_prove_memory(pps_state *st, const plan_set *set, const plan *p, arena *mem)
{
    memory_prover m = {.st = st, .set = set, .plan = p, .mem = mem, .n_streams = set->n_streams};
    if (p->n_steps == 0)
        return PPS_OK;
    uint32_t n_copies = 0;
    for (uint32_t i = 0; i < p->n_steps; i++)
        n_copies += plan_is(p->steps[i].kind, PLAN_COPY);
    if (n_copies > 0)
        PASS_ALLOC(m.bound, mem, p->n_bindings);
    m.blocks = p->blocks;
    m.n_blocks = p->n_blocks;
    m.bytes = p->act_bytes;
    PPS_TRY(make_clocks(&m));
    PPS_TRY(check_blocks(&m));
    if (n_copies == 0 && p->n_host_blocks == 0)
        return PPS_OK;
    m.blocks = p->host_blocks;
    m.n_blocks = p->n_host_blocks;
    m.bytes = p->host_bytes;
    m.host = true;
    m.n_active = m.n_segments = 0;
    PPS_TRY(check_blocks(&m));
    return n_copies > 0 ? prove_copies(st, set, p, m.bound, mem) : PPS_OK;
}
