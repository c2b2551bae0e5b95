/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_copies.c: in a plan whose memory is proved (every access after the step that fills its
 * buffer, no byte used again too early), what a forward pass kept, copied to host memory and
 * fetched back is the same when the backward pass reads it:
 *
 *   F of (chunk, microbatch) fills  -> OFFLOAD reads it whole, fills a host buffer of its size
 *     -> one FETCH reads that, fills another buffer of that size -> B, BI or BW of the same
 *
 * What a backward reads of a buffer that F filled and that was copied out as well needs no fetch:
 * it is still there. A copy that nobody fetches is lost, so it is refused.
 */
#include "passes/prove.h"

typedef struct copies {
    pps_state *st;
    const plan_set *set;
    const plan *p;
    const uint32_t *bound;
    uint32_t *fetched; /* [n_host_blocks] FETCH that reads it, + 1 */
} copies;

static pps_status wrong(const copies *c, uint32_t step, int code, const char *what)
{
    const plan_step *s = &c->p->steps[step];
    char label[128];
    plan_step_label(c->set, c->p, s, label, sizeof label);
    return pps_error(c->st, plan_place_of(c->set, s), code, "%s: group %u step %u, %s", what,
                     c->p->group, step, label);
}

/* The same chunk and microbatch. */
static bool belongs(const copies *c, const plan_step *a, const plan_step *b)
{
    return a->mb == b->mb && plan_work_of(c->set, a)->chunk == plan_work_of(c->set, b)->chunk;
}

static pps_status check_copy(copies *c, uint32_t i)
{
    const plan_step *s = &c->p->steps[i];
    if (s->n_bindings != 2)
        return wrong(c, i, 520, "a copy is from one buffer to another");
    uint32_t there = c->bound[s->bindings + 1];
    const plan_block *device = &c->p->blocks[c->bound[s->bindings]];
    const plan_block *host = &c->p->host_blocks[there];
    const plan_step *filled = &c->p->steps[s->kind == PLAN_OFFLOAD ? device->first : host->first];
    uint64_t bytes = plan_work_of(c->set, s)->bytes;
    if (bytes != plan_block_bytes(device) || bytes != plan_block_bytes(host))
        return wrong(c, i, 520, "a copy is not of a whole buffer");
    if ((s->kind == PLAN_OFFLOAD ? host->first : device->first) != i)
        return wrong(c, i, 520, "a copy goes where something else is");
    if (s->kind == PLAN_OFFLOAD)
        return filled->kind == PLAN_COMPUTE && filled->pass == PPS_PASS_F && belongs(c, filled, s)
                   ? PPS_OK
                   : wrong(c, i, 520, "this copies what its forward pass did not make");
    if (filled->kind != PLAN_OFFLOAD || filled->pass != s->pass || !belongs(c, filled, s))
        return wrong(c, i, 520, "this fetches what was copied for another");
    if (c->fetched[there] != 0)
        return wrong(c, i, 518, "this was fetched before");
    c->fetched[there] = i + 1;
    return PPS_OK;
}

static pps_status check_reader(const copies *c, uint32_t i)
{
    const plan_step *s = &c->p->steps[i];
    for (uint32_t k = 0; k < s->n_bindings; k++) {
        const plan_step *filled = &c->p->steps[c->p->blocks[c->bound[s->bindings + k]].first];
        if (filled->kind != PLAN_FETCH)
            continue;
        if (s->kind != PLAN_COMPUTE || s->pass == PPS_PASS_F || !belongs(c, s, filled))
            return wrong(c, i, 520, "this uses what was fetched for another");
    }
    return PPS_OK;
}

pps_status prove_copies(pps_state *st, const plan_set *set, const plan *p, const uint32_t *bound,
                        arena *mem)
{
    copies c = {.st = st, .set = set, .p = p, .bound = bound};
    PASS_ALLOC(c.fetched, mem, p->n_host_blocks);
    for (uint32_t i = 0; i < p->n_steps; i++)
        PPS_TRY(plan_is(p->steps[i].kind, PLAN_COPY) ? check_copy(&c, i) : check_reader(&c, i));
    for (uint32_t b = 0; b < p->n_host_blocks; b++)
        if (c.fetched[b] == 0)
            return wrong(&c, p->host_blocks[b].first, 521, "what this copies is never fetched");
    return PPS_OK;
}
