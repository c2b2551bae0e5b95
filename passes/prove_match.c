/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_match.c: communication of several plans fits together. A sequence number names a transfer
 * (a send and its receive) or a collective (a step of every plan that has ranks in its teams). Its
 * ends agree on what it is, and are on one stream.
 *
 * A pair of ranks has one channel per stream and direction, first in, first out:
 *
 *   group 0, stream pp:  send a, send b        group 1, stream pp:  receive b, receive a
 *   channel 0 -> 1:      a is 0, b is 1                             b is 0, a is 1: they cross
 *
 * So each end of a transfer must have the same number on its channel. A collective that spans plans
 * takes a number on the channels between all of them, so whatever its teams, their ranks come to
 * the same collectives in the same order. Ranks of one group share a plan: what they do among
 * themselves cannot differ.
 */
#include "passes/prove.h"

#include <stdlib.h>
#include <string.h>

typedef struct end { /* the first step met with a sequence number */
    uint32_t group, step;
    uint32_t number; /* on its channel */
    uint32_t n;      /* steps met */
} end;

typedef struct span { /* a group that has ranks in some teams */
    uint32_t group, n_ranks;
} span;

typedef struct matcher {
    prover *p;
    span *groups;       /* of each teams */
    uint32_t *group_at; /* [n_teams + 1] first, in `groups` */
    end *ends;          /* [n_seq + 1] */
    uint32_t *out;      /* [n_groups][n_streams] next numbers on the channels to each group */
    uint32_t *in;       /* [n_groups][n_streams] and from each */
    uint32_t *spans;    /* [sum over members] numbers out and in, towards each other member */
    uint32_t *span_at;  /* [n_members] first of its two lists in `spans` */
    uint32_t cap_members;
} matcher;

static const plan_step *step_at(const prover *p, uint32_t group, uint32_t step)
{
    return &p->set->plans[group].steps[step];
}

static pps_status two(const prover *p, uint32_t g, uint32_t i, const end *e, int code,
                      const char *what, const char *other)
{
    pps_diag *diag = prove_wrong(p, g, i, code, "%s", what);
    prove_other(p, diag, e->group, e->step, other);
    return pps_diag_done(diag);
}

static pps_status add_member(matcher *m, uint32_t seq, uint32_t group, uint32_t step)
{
    prover *p = m->p;
    if (p->n_members == m->cap_members) {
        uint32_t cap = m->cap_members * 2 + 64;
        prove_member *bigger;
        PASS_ALLOC(bigger, p->mem, cap);
        if (p->n_members > 0)
            memcpy(bigger, p->members, p->n_members * sizeof *bigger);
        p->members = bigger;
        m->cap_members = cap;
    }
    p->members[p->n_members++] = (prove_member){seq, group, step};
    return PPS_OK;
}

/* Which groups have ranks in which teams. */
static pps_status find_spans(matcher *m)
{
    const plan_set *set = m->p->set;
    uint32_t *latest, n = 0; /* [n_groups] its last span, + 1 */
    PASS_ALLOC(m->groups, m->p->mem, set->n_team_ranks);
    PASS_ALLOC(m->group_at, m->p->mem, set->n_teams + 1);
    PASS_ALLOC(latest, m->p->mem, set->n_groups);
    for (uint32_t i = 0; i < set->n_teams; i++) {
        m->group_at[i] = n;
        for (uint32_t k = 0; k < set->teams[i].n_ranks; k++) {
            uint32_t g = set->rank_group[set->team_ranks[set->teams[i].ranks + k]];
            if (latest[g] <= m->group_at[i]) {
                m->groups[n++] = (span){.group = g};
                latest[g] = n;
            }
            m->groups[latest[g] - 1].n_ranks++;
        }
    }
    m->group_at[set->n_teams] = n;
    return PPS_OK;
}

/* Buckets that are reduced or gathered together hold the same. */
static bool same_bucket(const plan_set *set, uint32_t g, uint32_t a, uint32_t h, uint32_t b)
{
    const plan_bucket *x = &set->plans[g].buckets[a], *y = &set->plans[h].buckets[b];
    for (uint32_t i = 0; i < x->n && x->n == y->n; i++) {
        const plan_param *q = &set->plans[g].params[x->first + i];
        const plan_param *r = &set->plans[h].params[y->first + i];
        if (q->param != r->param || q->offset != r->offset || q->elems != r->elems ||
            memcmp(q->cuts, r->cuts, sizeof q->cuts) != 0)
            return false;
    }
    return x->n == y->n && x->zero == y->zero && x->every == y->every && x->slices == y->slices;
}

/* All ranks of a plan run its steps: all must have seats in the teams. */
static pps_status check_seats(const matcher *m, uint32_t g, uint32_t i)
{
    const prover *p = m->p;
    uint32_t teams = plan_work_of(p->set, step_at(p, g, i))->teams;
    for (uint32_t k = m->group_at[teams]; k < m->group_at[teams + 1]; k++)
        if (m->groups[k].group == g && m->groups[k].n_ranks == p->set->plans[g].n_ranks)
            return PPS_OK;
    return prove_two(p, g, i, 542, "a collective's teams leave out ranks of its device group",
                     IR_NONE, NULL);
}

static pps_status match_collective(matcher *m, uint32_t g, uint32_t i, end *e)
{
    prover *p = m->p;
    const plan_step *s = step_at(p, g, i), *o = step_at(p, e->group, e->step);
    const plan_work *w = plan_work_of(p->set, s), *x = plan_work_of(p->set, o);
    if (s->kind != o->kind || ((s->flags ^ o->flags) & PLAN_A2A_RETURN) != 0)
        return two(p, g, i, e, 542, "device groups disagree about a collective",
                   "here it is of another kind");
    if (g == e->group || (p->n_members > 0 && p->members[p->n_members - 1].seq == s->seq &&
                          p->members[p->n_members - 1].group == g))
        return two(p, g, i, e, 542, "a device group takes part in a collective twice",
                   "here first");
    if (w->bytes != x->bytes || w->width != x->width || w->experts != x->experts || s->mb != o->mb)
        return two(p, g, i, e, 542, "device groups disagree about a collective",
                   "here it has other bytes, experts or another microbatch");
    if (w->teams != x->teams)
        return two(p, g, i, e, 542, "device groups disagree about a collective",
                   "here it is of other teams");
    if (plan_is(s->kind, PLAN_BUCKET) && !same_bucket(p->set, g, w->chunk, e->group, x->chunk))
        return two(p, g, i, e, 542, "device groups disagree about a collective",
                   "here it is of another bucket");
    if (s->stream != o->stream)
        return two(p, g, i, e, 540, "a collective is on two streams", "here it is on another");
    if (e->n == 1)
        PPS_TRY(add_member(m, s->seq, e->group, e->step));
    return add_member(m, s->seq, g, i);
}

static pps_status match_transfer(const matcher *m, uint32_t g, uint32_t i, const end *e)
{
    const prover *p = m->p;
    const plan_step *s = step_at(p, g, i), *o = step_at(p, e->group, e->step);
    const plan_work *w = plan_work_of(p->set, s), *x = plan_work_of(p->set, o);
    if (e->n > 1)
        return two(p, g, i, e, 511, "three steps share one transfer", "one of them");
    if (!plan_is(o->kind, PLAN_TRANSFER) || s->kind == o->kind || w->peer_group != e->group ||
        x->peer_group != g || w->bytes != x->bytes || w->peer != o->work || x->peer != s->work ||
        s->mb != o->mb)
        return two(p, g, i, e, 511, "a transfer does not match its other end", "the other end");
    if (s->stream != o->stream)
        return two(p, g, i, e, 540, "the two ends of a transfer are on different streams",
                   "the other end");
    return PPS_OK;
}

static pps_status match_ends(matcher *m)
{
    prover *p = m->p;
    const plan_set *set = p->set;
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++)
            if (set->plans[g].steps[i].seq > p->n_seq)
                p->n_seq = set->plans[g].steps[i].seq;
    PASS_ALLOC(m->ends, p->mem, p->n_seq + (size_t)1);
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
            const plan_step *s = &set->plans[g].steps[i];
            end *e = &m->ends[s->seq];
            if (s->seq == 0)
                continue;
            if (plan_is(s->kind, PLAN_COLLECTIVE))
                PPS_TRY(check_seats(m, g, i));
            if (e->n == 0)
                *e = (end){.group = g, .step = i};
            else if (plan_is(s->kind, PLAN_TRANSFER))
                PPS_TRY(match_transfer(m, g, i, e));
            else
                PPS_TRY(match_collective(m, g, i, e));
            e->n++;
        }
    for (uint32_t q = 1; q <= p->n_seq; q++) {
        const end *e = &m->ends[q];
        const plan_step *s = e->n > 0 ? step_at(p, e->group, e->step) : NULL;
        if (s == NULL)
            continue;
        if (e->n == 1 && plan_is(s->kind, PLAN_TRANSFER))
            return pps_diag_done(
                prove_wrong(p, e->group, e->step, 511, "a transfer has no other end"));
        uint32_t teams = plan_work_of(set, s)->teams;
        if (plan_is(s->kind, PLAN_COLLECTIVE) &&
            e->n != m->group_at[teams + 1] - m->group_at[teams])
            return pps_diag_done(prove_wrong(p, e->group, e->step, 542,
                                             "a collective has %u of the %u device groups that its "
                                             "teams are of",
                                             e->n, m->group_at[teams + 1] - m->group_at[teams]));
    }
    return PPS_OK;
}

/* ---- collectives that span plans ----------------------------------------------------------------
 */

static int by_seq(const void *a, const void *b)
{
    const prove_member *x = a, *y = b;
    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return (x->group > y->group) - (x->group < y->group);
}

ir_range prove_members(const prover *p, uint32_t seq)
{
    uint32_t lo = 0, hi = p->n_members;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (p->members[mid].seq < seq)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (hi = lo; hi < p->n_members && p->members[hi].seq == seq; hi++)
        ;
    return (ir_range){lo, hi - lo};
}

/* A member's numbers towards member k of its collective: out at [k], in at [n + k]. */
static pps_status plan_spans(matcher *m)
{
    prover *p = m->p;
    uint32_t n = 0;
    if (p->n_members == 0)
        return PPS_OK;
    qsort(p->members, p->n_members, sizeof *p->members, by_seq);
    PASS_ALLOC(m->span_at, p->mem, p->n_members);
    for (uint32_t i = 0; i < p->n_members; i++) {
        m->span_at[i] = n;
        n += 2 * prove_members(p, p->members[i].seq).n;
    }
    PASS_ALLOC(m->spans, p->mem, n);
    return PPS_OK;
}

static void number_span(const matcher *m, uint32_t g, const plan_step *s, uint32_t n_streams)
{
    const prover *p = m->p;
    ir_range all = prove_members(p, s->seq);
    uint32_t mine = all.begin;
    while (mine < all.begin + all.n && p->members[mine].group != g)
        mine++;
    for (uint32_t k = 0; k < all.n; k++) {
        uint32_t other = p->members[all.begin + k].group;
        uint32_t *numbers = m->spans + m->span_at[mine];
        if (other == g)
            continue;
        numbers[k] = m->out[other * n_streams + s->stream]++;
        numbers[all.n + k] = m->in[other * n_streams + s->stream]++;
    }
}

static pps_status compare_spans(const matcher *m)
{
    const prover *p = m->p;
    for (uint32_t i = 0; i < p->n_members; i++) {
        ir_range all = prove_members(p, p->members[i].seq);
        for (uint32_t k = 0; k < all.n; k++) {
            uint32_t other = all.begin + k;
            if (other == i ||
                m->spans[m->span_at[i] + k] == m->spans[m->span_at[other] + all.n + i - all.begin])
                continue;
            const prove_member *a = &p->members[i], *b = &p->members[other];
            end e = {.group = b->group, .step = b->step};
            return two(p, a->group, a->step, &e, 541,
                       "a collective crosses other communication of its device groups",
                       "here it comes earlier or later");
        }
    }
    return PPS_OK;
}

/* ---- order --------------------------------------------------------------------------------------
 */

static const char *ordinal(uint32_t i)
{
    static const char *const endings[] = {"th", "st", "nd", "rd"};
    return endings[i / 10 % 10 != 1 && i % 10 < 4 ? i % 10 : 0];
}

static pps_status crossed(const matcher *m, uint32_t g, uint32_t i, uint32_t number)
{
    const prover *p = m->p;
    const plan_step *s = step_at(p, g, i);
    const end *e = &m->ends[s->seq];
    const char *stream = p->set->streams[s->stream];
    pps_diag *diag = prove_wrong(p, g, i, 541, "transfers between two device groups cross");
    prove_other(p, diag, e->group, e->step, "the other end");
    pps_diag_note(
        diag,
        "on stream %s this is the %u%s %s group %u, and its other end the %u%s there: each "
        "would meet another transfer",
        stream, number + 1, ordinal(number + 1),
        s->kind == PLAN_SEND ? "transfer to" : "transfer from", e->group, e->number + 1,
        ordinal(e->number + 1));
    return pps_diag_done(diag);
}

static pps_status match_orders(matcher *m)
{
    prover *p = m->p;
    const plan_set *set = p->set;
    size_t n = (size_t)set->n_groups * set->n_streams;
    PPS_TRY(plan_spans(m));
    PASS_ALLOC(m->out, p->mem, n);
    PASS_ALLOC(m->in, p->mem, n);
    for (uint32_t g = 0; g < set->n_groups; g++) {
        memset(m->out, 0, n * sizeof *m->out);
        memset(m->in, 0, n * sizeof *m->in);
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
            const plan_step *s = &set->plans[g].steps[i];
            end *e = &m->ends[s->seq];
            if (s->seq == 0)
                continue;
            if (!plan_is(s->kind, PLAN_TRANSFER)) {
                if (e->n > 1)
                    number_span(m, g, s, set->n_streams);
                continue;
            }
            uint32_t channel = plan_work_of(set, s)->peer_group * set->n_streams + s->stream;
            uint32_t number = s->kind == PLAN_SEND ? m->out[channel]++ : m->in[channel]++;
            if (e->group == g && e->step == i)
                e->number = number;
            else if (e->number != number)
                return crossed(m, g, i, number);
        }
    }
    return compare_spans(m);
}

pps_status prove_match(prover *p)
{
    matcher m = {.p = p};
    PPS_TRY(find_spans(&m));
    PPS_TRY(match_ends(&m));
    return match_orders(&m);
}
