/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_hang.c: no step waits for ever.
 *
 * A step begins when the step before it on its stream and the steps it waits for are over, and the
 * host has issued it: it issues in order and stays at a compute until that is over. A transfer is
 * over when both its ends have begun (a buffered send at once), a collective when all have. None of
 * this is a choice: what can begin or end stays able to, whatever else happens first. So all
 * executions reach the same steps, and one is enough: the plans are run here without doing their
 * work. Steps that this run does not reach wait for ever in every run; then the cycle among them is
 * told.
 *
 * The work list holds streams that may be able to move. Each step is begun and ended once, and a
 * stream that waits for a step of another hangs in that one's list until it is over: linear in
 * steps and waits.
 */
#include "passes/prove.h"

#include <string.h>

typedef struct lane { /* one stream of one plan */
    uint32_t head;    /* its first step that is not over, IR_NONE */
    uint32_t waits;   /* while in a list: the step that the head waits for; else IR_NONE */
    uint32_t waiting; /* lanes that wait for steps of this one: first of a list */
    uint32_t next;    /* in such a list */
    bool begun;       /* the head has */
    bool listed;      /* in the work list */
} lane;

typedef struct runner {
    const prover *p;
    uint32_t n_streams;
    lane *lanes;     /* [n_groups][n_streams] */
    uint32_t *base;  /* [n_groups] first step of each plan in `next` */
    uint32_t *next;  /* [all steps] next step of the same stream, IR_NONE */
    uint32_t *host;  /* [n_groups] the compute the host is at; n_steps behind the last */
    uint8_t *met;    /* [n_seq + 1] transfers: ENDS that have begun */
    uint32_t *begun; /* [n_members] collectives that span plans: how many members, at the first */
    uint32_t *work, n_work;
} runner;
enum { END_SEND = 1, END_RECV = 2 };

static const plan *plan_of(const runner *r, uint32_t id)
{
    return &r->p->set->plans[id / r->n_streams];
}

static void list(runner *r, uint32_t id)
{
    if (!r->lanes[id].listed && r->lanes[id].head != IR_NONE) {
        r->lanes[id].listed = true;
        r->work[r->n_work++] = id;
    }
}

/* The host goes on to the next compute: what it issues on the way may begin. */
static void issue(runner *r, uint32_t group, uint32_t from)
{
    const plan *mine = &r->p->set->plans[group];
    uint32_t i = from;
    for (; i < mine->n_steps; i++) {
        uint32_t id = group * r->n_streams + mine->steps[i].stream;
        if (r->lanes[id].head == i)
            list(r, id);
        if (plan_is(mine->steps[i].kind, PLAN_LOCAL))
            break;
    }
    r->host[group] = i;
}

static bool is_over(const runner *r, uint32_t group, uint32_t step)
{
    const plan *mine = &r->p->set->plans[group];
    uint32_t head = r->lanes[group * r->n_streams + mine->steps[step].stream].head;
    return head == IR_NONE || head > step;
}

/* The first step that `step` of this plan waits for and that is not over, or IR_NONE. */
static uint32_t waits_for(const runner *r, uint32_t group, uint32_t step)
{
    const plan *mine = &r->p->set->plans[group];
    const plan_step *s = &mine->steps[step];
    for (uint32_t k = 0; k < s->n_waits; k++)
        if (!is_over(r, group, mine->waits[s->waits + k]))
            return mine->waits[s->waits + k];
    return IR_NONE;
}

static void begin(runner *r, uint32_t id, const plan_step *s)
{
    const prover *p = r->p;
    if (s->kind == PLAN_SEND || s->kind == PLAN_RECV) {
        r->met[s->seq] |= s->kind == PLAN_SEND ? END_SEND : END_RECV;
        list(r, plan_work_of(p->set, s)->peer_group * r->n_streams + s->stream);
    } else if (p->n_members > 0 && s->seq != 0) {
        ir_range all = prove_members(p, s->seq);
        if (all.n > 0 && ++r->begun[all.begin] == all.n)
            for (uint32_t k = 0; k < all.n; k++)
                list(r, p->members[all.begin + k].group * r->n_streams + s->stream);
    }
    r->lanes[id].begun = true;
}

static bool can_end(const runner *r, const plan_step *s)
{
    const prover *p = r->p;
    if (s->kind == PLAN_SEND)
        return p->buffered || r->met[s->seq] == (END_SEND | END_RECV);
    if (s->kind == PLAN_RECV)
        return (r->met[s->seq] & END_SEND) != 0;
    if (p->n_members == 0 || s->seq == 0)
        return true;
    ir_range all = prove_members(p, s->seq);
    return all.n == 0 || r->begun[all.begin] == all.n;
}

static void finish(runner *r, uint32_t id, uint32_t step)
{
    uint32_t group = id / r->n_streams, *link = &r->lanes[id].waiting;
    lane *l = &r->lanes[id];
    l->head = r->next[r->base[group] + step];
    l->begun = false;
    while (*link != IR_NONE) {
        uint32_t other = *link;
        if (r->lanes[other].waits <= step) {
            *link = r->lanes[other].next;
            r->lanes[other].waits = IR_NONE;
            list(r, other);
        } else {
            link = &r->lanes[other].next;
        }
    }
    if (r->host[group] == step)
        issue(r, group, step + 1);
}

/* Move one stream as far as it goes. */
static void run_lane(runner *r, uint32_t id)
{
    uint32_t group = id / r->n_streams;
    lane *l = &r->lanes[id];
    while (l->waits == IR_NONE && l->head != IR_NONE && l->head <= r->host[group]) {
        const plan_step *s = &plan_of(r, id)->steps[l->head];
        if (!l->begun) {
            uint32_t wait = waits_for(r, group, l->head);
            if (wait != IR_NONE) {
                lane *other = &r->lanes[group * r->n_streams + plan_of(r, id)->steps[wait].stream];
                l->waits = wait;
                l->next = other->waiting;
                other->waiting = id;
                return;
            }
            begin(r, id, s);
        }
        if (!can_end(r, s))
            return;
        finish(r, id, l->head);
    }
}

static pps_status set_up(runner *r)
{
    const prover *p = r->p;
    const plan_set *set = p->set;
    uint32_t n_lanes = set->n_groups * set->n_streams, n = 0, *last;
    PASS_ALLOC(r->lanes, p->mem, n_lanes);
    PASS_ALLOC(r->work, p->mem, n_lanes);
    PASS_ALLOC(r->base, p->mem, set->n_groups);
    PASS_ALLOC(r->host, p->mem, set->n_groups);
    PASS_ALLOC(r->met, p->mem, p->n_seq + (size_t)1);
    PASS_ALLOC(r->begun, p->mem, p->n_members);
    PASS_ALLOC(last, p->mem, set->n_streams);
    for (uint32_t g = 0; g < set->n_groups; g++) {
        r->base[g] = n;
        n += set->plans[g].n_steps;
    }
    PASS_ALLOC(r->next, p->mem, n);
    for (uint32_t i = 0; i < n_lanes; i++)
        r->lanes[i] = (lane){.head = IR_NONE, .waits = IR_NONE, .waiting = IR_NONE};
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const plan *mine = &set->plans[g];
        memset(last, 0xff, set->n_streams * sizeof *last);
        for (uint32_t i = mine->n_steps; i-- > 0;) {
            r->next[r->base[g] + i] = last[mine->steps[i].stream];
            last[mine->steps[i].stream] = i;
        }
        for (uint32_t k = 0; k < set->n_streams; k++)
            r->lanes[g * set->n_streams + k].head = last[k];
    }
    return PPS_OK;
}

/* ---- the cycle ---------------------------------------------------------------------------------
 */

typedef struct place {
    uint32_t group, step;
} place;

/* What a step that is not over waits for, and how. */
static place blocker(const runner *r, place at, const char **ret_why)
{
    const prover *p = r->p;
    const plan *mine = &p->set->plans[at.group];
    const plan_step *s = &mine->steps[at.step];
    uint32_t wait = waits_for(r, at.group, at.step);
    uint32_t head = r->lanes[at.group * r->n_streams + s->stream].head;
    if (head != at.step) {
        *ret_why = "comes on its stream after";
        return (place){at.group, head};
    }
    if (wait != IR_NONE) {
        *ret_why = "waits for";
        return (place){at.group, wait};
    }
    if (r->host[at.group] < at.step) {
        *ret_why = "is issued after";
        return (place){at.group, r->host[at.group]};
    }
    *ret_why = plan_is(s->kind, PLAN_TRANSFER) ? "needs its other end,"
                                               : "needs all its device groups, also";
    ir_range all = prove_members(p, s->seq);
    for (uint32_t k = 0; k < all.n; k++) {
        const prove_member *m = &p->members[all.begin + k];
        const lane *l = &r->lanes[m->group * r->n_streams + s->stream];
        if (l->head != m->step || !l->begun)
            return (place){m->group, m->step};
    }
    place other = {plan_work_of(p->set, s)->peer_group, 0};
    while (p->set->plans[other.group].steps[other.step].seq != s->seq)
        other.step++;
    return other;
}

static bool has_place(const runner *r, place at)
{
    return plan_place_of(r->p->set, &r->p->set->plans[at.group].steps[at.step]).file != 0;
}

static bool same(place a, place b)
{
    return a.group == b.group && a.step == b.step;
}

static pps_status report(const runner *r, uint32_t id)
{
    enum { MOST = 16 };
    const prover *p = r->p;
    const char *why;
    char a[160], b[160];
    place at = {id / r->n_streams, r->lanes[id].head}, slow = at, first;
    do { /* two walkers on the way from `at` meet inside the cycle that it ends in */
        at = blocker(r, blocker(r, at, &why), &why);
        slow = blocker(r, slow, &why);
    } while (!same(at, slow));
    do /* begin where the script has a word */
        at = blocker(r, at, &why);
    while (!same(at, slow) && !has_place(r, at));
    first = at;
    pps_diag *diag =
        prove_wrong(p, at.group, at.step, 502,
                    p->buffered ? "the plans wait for each other, even with buffered sends"
                                : "the plans wait for each other; this step never ends");
    for (uint32_t n = 0;; n++) {
        place next = blocker(r, at, &why);
        if (n == MOST)
            pps_diag_note(diag, "...");
        if (n < MOST)
            pps_diag_note(diag, "%s %s %s", prove_step_text(p, at.group, at.step, a, sizeof a), why,
                          prove_step_text(p, next.group, next.step, b, sizeof b));
        at = next;
        if (same(at, first))
            break;
        if (n + 1 < MOST && has_place(r, at))
            prove_other(p, diag, at.group, at.step, "part of the cycle");
    }
    return pps_diag_done(diag);
}

pps_status prove_hang(const prover *p)
{
    runner r = {.p = p, .n_streams = p->set->n_streams};
    PPS_TRY(set_up(&r));
    for (uint32_t g = 0; g < p->set->n_groups; g++)
        issue(&r, g, 0);
    while (r.n_work > 0) {
        uint32_t id = r.work[--r.n_work];
        r.lanes[id].listed = false;
        run_lane(&r, id);
    }
    for (uint32_t id = 0; id < p->set->n_groups * r.n_streams; id++)
        if (r.lanes[id].head != IR_NONE)
            return report(&r, id);
    return PPS_OK;
}
