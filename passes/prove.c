/* SPDX-License-Identifier: Apache-2.0
 *
 * prove.c: all plans together, checked from the plans alone.
 *
 * A step can start when the step before it on its stream, the steps it waits for, and, since one
 * host thread issues in order, the computes issued before it have finished; a transfer when both
 * its ends can. If these edges have no cycle, every step starts some time, whatever the timing: the
 * steps can be taken in an order in which each finds everything it waits for done. Under buffered
 * sends a send does not wait for its receive, which removes edges, so the same order serves.
 * Conversely a cycle is a hang under rendezvous sends.
 *
 * Beside that: transfers match, ranks of a group agree by sharing a plan, every chunk runs each
 * pass of each microbatch once (so every gradient is summed once), memory is used in an order that
 * the waits keep (prove_memory.c), and buckets are cleared, summed, applied and gathered in order
 * (prove_buckets.c), slices of a sequence follow on each other (prove_slices.c), and rounds of attention
 * have their own keys (prove_rounds.c).
 */
#include "passes/pass.h"

#include <string.h>

typedef struct prover {
    pps_state *st;
    const plan_set *set;
    arena *mem;
    uint32_t *base; /* [n_groups] first vertex of each plan */
    uint32_t n;
    uint32_t *lead; /* [n] the first end of its transfer or collective; itself if alone */
} prover;

static pps_status wrong(const prover *p, const plan_step *s, int code, const char *what)
{
    return pps_error(p->st, plan_place_of(p->set, s), code, "%s", what);
}

/* Steps name works and places that are there: all that follows may follow them. */
static pps_status check_tables(const prover *p, const plan *mine)
{
    const plan_set *set = p->set;
    for (uint32_t i = 0; i < mine->n_steps; i++) {
        const plan_step *s = &mine->steps[i];
        pps_span none = {0};
        if (s->work >= set->n_works || s->place >= set->n_places)
            return pps_error(p->st, none, 520,
                             "group %u step %u names a work or a place that is not there",
                             mine->group, i);
    }
    return PPS_OK;
}

static pps_status check_waits(const prover *p, const plan *mine)
{
    for (uint32_t i = 0; i < mine->n_steps; i++) {
        const plan_step *s = &mine->steps[i];
        for (uint32_t k = 0; k < s->n_waits; k++) {
            uint32_t w = mine->waits[s->waits + k];
            if (w >= i)
                return wrong(p, s, 517, "a step waits for one that is issued after it");
            if (mine->steps[w].stream == s->stream)
                return wrong(p, s, 517, "a step waits for one of its own stream");
        }
    }
    return PPS_OK;
}

/* Are two steps with one sequence number ends of the same operation? */
static bool match(const plan_set *set, const plan_step *s, uint32_t g, const plan_step *o,
                  uint32_t h)
{
    const plan_work *a = plan_work_of(set, s), *b = plan_work_of(set, o);
    if (s->stream != o->stream || a->bytes != b->bytes || g == h)
        return false;
    if (plan_is(s->kind, PLAN_COLLECTIVE))
        return s->kind == o->kind && a->teams == b->teams;
    return (s->kind == PLAN_SEND || s->kind == PLAN_RECV) && o->kind != s->kind &&
           (o->kind == PLAN_SEND || o->kind == PLAN_RECV) && a->peer_group == h &&
           b->peer_group == g;
}

/* Ends of one operation get one vertex; all of them must be there. */
static pps_status match_ends(prover *p)
{
    const plan_set *set = p->set;
    uint32_t n_seq = 0;
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++)
            if (set->plans[g].steps[i].seq > n_seq)
                n_seq = set->plans[g].steps[i].seq;
    uint32_t *first, *group, *ranks; /* by sequence number; ranks: of the plans that take part */
    PASS_ALLOC(first, p->mem, n_seq + 1);
    PASS_ALLOC(group, p->mem, n_seq + 1);
    PASS_ALLOC(ranks, p->mem, n_seq + 1);
    memset(first, 0xff, (n_seq + 1) * sizeof *first);
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
            const plan_step *s = &set->plans[g].steps[i];
            uint32_t v = p->base[g] + i, q = s->seq;
            p->lead[v] = v;
            if (plan_is(s->kind, PLAN_COLLECTIVE) && plan_work_of(set, s)->teams >= set->n_teams)
                return wrong(p, s, 511, "a collective is of no team");
            if (q == 0)
                continue;
            if (first[q] == IR_NONE) {
                first[q] = i;
                group[q] = g;
            } else if (!match(set, s, g, &set->plans[group[q]].steps[first[q]], group[q])) {
                return wrong(p, s, 511, "a transfer or collective does not match its other end");
            }
            p->lead[v] = p->base[group[q]] + first[q];
            ranks[q] += set->plans[g].n_ranks;
        }
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
            const plan_step *s = &set->plans[g].steps[i];
            bool transfer = s->kind == PLAN_SEND || s->kind == PLAN_RECV;
            if (!transfer && !plan_is(s->kind, PLAN_COLLECTIVE))
                continue;
            uint32_t wanted = transfer ? 2 * set->plans[g].n_ranks
                                       : set->teams[plan_work_of(set, s)->teams].n_ranks;
            if (ranks[s->seq] < wanted)
                return wrong(p, s, 511, "a transfer or collective has no other end");
            if (ranks[s->seq] > wanted)
                return wrong(p, s, 511,
                             "more steps share a transfer or collective than it has ends");
        }
    return PPS_OK;
}

/* Predecessors inside a plan, through `visit(ud, step)`: at most 2 + n_waits. */
typedef struct plan_order {
    uint32_t *stream_before, *compute_before; /* [n] vertex + 1, or 0 */
} plan_order;

static pps_status index_order(const prover *p, plan_order *o)
{
    const plan_set *set = p->set;
    uint32_t *last;
    PASS_ALLOC(o->stream_before, p->mem, p->n);
    PASS_ALLOC(o->compute_before, p->mem, p->n);
    PASS_ALLOC(last, p->mem, set->n_streams);
    for (uint32_t g = 0; g < set->n_groups; g++) {
        uint32_t compute = 0;
        memset(last, 0, set->n_streams * sizeof *last);
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
            const plan_step *s = &set->plans[g].steps[i];
            uint32_t v = p->base[g] + i;
            o->stream_before[v] = last[s->stream];
            o->compute_before[v] = compute == last[s->stream] ? 0 : compute;
            last[s->stream] = v + 1;
            if (plan_is(s->kind, PLAN_LOCAL))
                compute = v + 1;
        }
    }
    return PPS_OK;
}

static uint32_t preds_of(const prover *p, const plan_order *o, uint32_t g, uint32_t i,
                         uint32_t *ret)
{
    const plan *mine = &p->set->plans[g];
    const plan_step *s = &mine->steps[i];
    uint32_t v = p->base[g] + i, n = 0;
    if (o->stream_before[v] != 0)
        ret[n++] = o->stream_before[v] - 1;
    if (o->compute_before[v] != 0)
        ret[n++] = o->compute_before[v] - 1;
    for (uint32_t k = 0; k < s->n_waits; k++)
        ret[n++] = p->base[g] + mine->waits[s->waits + k];
    return n;
}

static uint32_t vertex_of(const prover *p, uint32_t v)
{
    return p->lead[v];
}

static pps_status check_cycles(prover *p)
{
    const plan_set *set = p->set;
    plan_order o;
    uint32_t *begin, *list, *waiting, *queue, n_edges = 0, *preds;
    PPS_TRY(index_order(p, &o));
    PASS_ALLOC(begin, p->mem, p->n + 1);
    PASS_ALLOC(waiting, p->mem, p->n);
    PASS_ALLOC(queue, p->mem, p->n);
    PASS_ALLOC(preds, p->mem, 2 + set->n_streams);
    for (int fill = 0; fill < 2; fill++) {
        list = NULL;
        if (fill) {
            for (uint32_t v = 0, at = 0; v <= p->n; v++) {
                uint32_t count = begin[v];
                begin[v] = at;
                at += count;
            }
            PASS_ALLOC(list, p->mem, n_edges);
        }
        for (uint32_t g = 0; g < set->n_groups; g++)
            for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
                uint32_t to = vertex_of(p, p->base[g] + i);
                uint32_t n = preds_of(p, &o, g, i, preds);
                for (uint32_t k = 0; k < n; k++) {
                    uint32_t from = vertex_of(p, preds[k]);
                    if (fill)
                        list[begin[from]++] = to;
                    else
                        begin[from]++, n_edges++, waiting[to]++;
                }
            }
    }
    /* filling moved begins to ends */
    uint32_t n_queue = 0, taken = 0, vertices = 0;
    for (uint32_t v = 0; v < p->n; v++)
        if (vertex_of(p, v) == v) {
            vertices++;
            if (waiting[v] == 0)
                queue[n_queue++] = v;
        }
    for (; taken < n_queue; taken++) {
        uint32_t v = queue[taken], at = v == 0 ? 0 : begin[v - 1];
        for (; at < begin[v]; at++)
            if (--waiting[list[at]] == 0)
                queue[n_queue++] = list[at];
    }
    if (taken == vertices)
        return PPS_OK;
    pps_diag *diag = NULL;
    uint32_t shown = 0;
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
            const plan_step *s = &set->plans[g].steps[i];
            char label[128];
            if (waiting[vertex_of(p, p->base[g] + i)] == 0 || s->kind == PLAN_COMPUTE)
                continue;
            if (diag == NULL)
                diag = pps_diag_start(p->st, PPS_SEV_ERROR, 502, plan_place_of(set, s),
                                      "the plans wait for each other");
            plan_step_label(set, &set->plans[g], s, label, sizeof label);
            if (shown++ < 8)
                pps_diag_note(diag, "group %u step %u never starts: %s", g, i, label);
            break;
        }
    if (diag == NULL) {
        pps_span none = {0};
        diag = pps_diag_start(p->st, PPS_SEV_ERROR, 502, none, "the plans wait for each other");
    }
    return pps_diag_done(diag);
}

/* A program for a pass says that the chunk needs it: F, then B or BI and BW, of every microbatch.
 */
static pps_status check_once(const prover *p)
{
    const plan_set *set = p->set;
    const uint8_t f = 1 << PPS_PASS_F, b = 1 << PPS_PASS_B, bi = 1 << PPS_PASS_BI,
                  bw = 1 << PPS_PASS_BW;
    uint8_t *seen, *wanted; /* bit per pass */
    PASS_ALLOC(seen, p->mem, (size_t)set->n_chunks * set->n_mb);
    PASS_ALLOC(wanted, p->mem, set->n_chunks);
    for (uint32_t i = 0; i < set->n_programs; i++)
        wanted[set->chunk_model[set->programs[i].chunk]] |= (uint8_t)(1u << set->programs[i].pass);
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
            const plan_step *s = &set->plans[g].steps[i];
            if (s->kind != PLAN_COMPUTE)
                continue;
            const plan_work *w = plan_work_of(set, s);
            if (w->program >= set->n_programs || w->chunk >= set->n_chunks || s->mb >= set->n_mb ||
                set->programs[w->program].chunk != w->chunk ||
                set->programs[w->program].pass != s->pass)
                return wrong(p, s, 520, "a step does not run its own program");
            uint8_t *bits = &seen[(size_t)set->chunk_model[w->chunk] * set->n_mb + s->mb];
            uint8_t bit = (uint8_t)(1u << s->pass);
            uint8_t against = bit == b ? bi | bw : bit == bi || bit == bw ? b : 0;
            if ((*bits & (bit | against)) != 0)
                return wrong(p, s, 518, "a pass of one microbatch runs twice");
            *bits |= bit;
        }
    for (uint32_t c = 0; c < set->n_chunks; c++)
        for (uint32_t m = 0; m < set->n_mb; m++) {
            uint8_t bits = seen[(size_t)c * set->n_mb + m], need = wanted[c] & f;
            if (wanted[c] & (b | bi))
                need |= bits & b ? b : bi | (wanted[c] & bw);
            if ((bits & need) != need) {
                pps_span none = {0};
                return pps_error(p->st, none, 521, "%s, microbatch %u: a pass never runs",
                                 set->chunk_names[c], m / set->n_slices);
            }
        }
    return PPS_OK;
}

static pps_status prove(prover *p)
{
    const plan_set *set = p->set;
    PASS_ALLOC(p->base, p->mem, set->n_groups);
    for (uint32_t g = 0; g < set->n_groups; g++) {
        p->base[g] = p->n;
        p->n += set->plans[g].n_steps;
    }
    PASS_ALLOC(p->lead, p->mem, p->n);
    for (uint32_t g = 0; g < set->n_groups; g++) {
        PPS_TRY(check_tables(p, &set->plans[g]));
        PPS_TRY(check_waits(p, &set->plans[g]));
    }
    PPS_TRY(match_ends(p));
    PPS_TRY(check_cycles(p));
    PPS_TRY(check_once(p));
    return PPS_OK;
}

/* Memory plan by plan, each in scratch memory of its own: at no time are two plans' held. */
static pps_status prove_memory(pps_state *st, const plan_set *set)
{
    pps_status status = PPS_OK;
    for (uint32_t g = 0; g < set->n_groups && status == PPS_OK; g++) {
        arena mem;
        arena_init(&mem, NULL, NULL);
        status = pass_prove_memory(st, set, &set->plans[g], &mem);
        arena_done(&mem);
    }
    return status;
}

pps_status pps_prove(pps_state *st, const plan_set *set)
{
    arena mem;
    arena_init(&mem, NULL, NULL);
    prover p = {.st = st, .set = set, .mem = &mem};
    pps_status status = prove(&p);
    arena_done(&mem);
    if (status == PPS_OK)
        status = prove_memory(st, set);
    if (status == PPS_OK)
        status = prove_buckets(st, set);
    if (status == PPS_OK)
        status = prove_rounds(st, set);
    if (status == PPS_OK)
        status = prove_teams(st, set);
    return status == PPS_OK ? prove_slices(st, set) : status;
}

pps_status pass_prove(pass_cx *cx)
{
    return pps_prove(cx->st, cx->set);
}
