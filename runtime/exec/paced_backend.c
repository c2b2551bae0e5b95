/* SPDX-License-Identifier: Apache-2.0
 *
 * paced_backend.c: computes and links that sleep. A schedule's overlap shows on a machine with
 * fewer cores than ranks, since sleeping needs none.
 *
 * Deadlines are absolute: a step starts when the last of its stream's previous step and the steps
 * it waits for was due (not when that was noticed), so late wake-ups do not add up. A communication
 * is a rendezvous: its ranks tell each other when they were ready, by a COUNTS operation whose two
 * "counts" are the halves of a time stamp; it starts when the last of them was, and completes its
 * cost later, at the same moment on all of them. Sequence numbers are checked as in a real run.
 */
#include "runtime/exec/exec.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/coll/coll.h"

enum { STAMP_INTS = 2, STAMP_BYTES = 8 };

/* When nothing is due: only a peer can wake us. */
#define IDLE_NS 500000000u

typedef struct paced_link { /* the communication a stream has under way */
    coll_op op;
    uint32_t pair[2]; /* SEND, RECV: a group of two */
    bool met;         /* all ranks' stamps are here */
} paced_link;

typedef struct paced_self {
    struct coll_rank *coll;
    exec_paced_costs costs;
    uint32_t n_streams, max_group;
    paced_link *links; /* [n_streams] */
    uint64_t *due;     /* [n_streams] of the step under way, 0 while not known */
    uint64_t *last;    /* [n_streams] when the stream's previous step was due */
    uint64_t *ends;    /* [n_steps] when a step was due */
    uint64_t epoch,
        epoch_ns; /* this training step and when it began; epoch + 1, 0 before the first */
} paced_self;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- Costs -------------------------------------------------------------------------------------
 */

/* Of a compute: F, BI and BW take one each, also where one step does several of them. */
static double units_of(const plan_step *s)
{
    return (s->pass == PPS_PASS_B ? 2.0 : 1.0) + (s->flags & PLAN_STEP_RECOMPUTE ? 1.0 : 0.0);
}

static uint64_t cost_ns(const paced_self *self, const exec_rank *r, const plan_step *s)
{
    const exec_paced_costs *c = &self->costs;
    switch ((plan_step_kind)s->kind) {
    case PLAN_COMPUTE:
        if (c->unit_ns > 0)
            return (uint64_t)(units_of(s) * c->unit_ns);
        return (uint64_t)(c->compute_ns_per_flop *
                          r->set->programs[plan_work_of(r->set, s)->program].flops);
    case PLAN_UPDATE:
    case PLAN_CLEAR:
    case PLAN_SEQ_TAKE:
        return 0;
    case PLAN_COUNTS: /* a few integers */
        return (uint64_t)c->latency_ns;
    case PLAN_SEND:
    case PLAN_RECV:
    case PLAN_ALL_REDUCE:
    case PLAN_ALL_TO_ALL:
    case PLAN_SHIFT:
    case PLAN_REDUCE_SCATTER:
    case PLAN_ALL_GATHER:
    case PLAN_OFFLOAD:
    case PLAN_FETCH:
    case PLAN_SUM:
    case PLAN_SEQ_SCATTER:
    case PLAN_SEQ_GATHER:
    case PLAN_STATS:
        if (c->comm_ratio > 0)
            return (uint64_t)(c->comm_ratio * c->unit_ns);
        return (uint64_t)(c->latency_ns + (double)plan_work_of(r->set, s)->bytes * c->ns_per_byte);
    case PLAN_STEP_KIND_COUNT:
        break;
    }
    return 0;
}

exec_paced_costs exec_paced_share(const plan_set *set, double unit_ns, double comm_share)
{
    double units = 0, n_comm = 0;
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const plan *p = &set->plans[g];
        for (uint32_t i = 0; i < p->n_steps; i++) {
            const plan_step *s = &p->steps[i];
            if (s->kind == PLAN_COMPUTE)
                units += p->n_ranks * units_of(s);
            else if (s->kind != PLAN_UPDATE && s->kind != PLAN_COUNTS && s->kind != PLAN_SEQ_TAKE)
                n_comm += p->n_ranks;
        }
    }
    return (exec_paced_costs){.unit_ns = unit_ns,
                              .comm_ratio = n_comm > 0 ? comm_share * units / n_comm : 0};
}

static uint64_t ready_ns(const paced_self *self, const exec_rank *r, const plan_step *s)
{
    uint64_t ready = later(self->epoch_ns, self->last[s->stream]);
    for (uint32_t i = 0; i < s->n_waits; i++)
        ready = later(ready, self->ends[r->plan->waits[s->waits + i]]);
    return ready;
}

/* ---- Stamps ------------------------------------------------------------------------------------
 */

/* Scratch per stream: our stamp, then the group's. */
static char *stamps(const paced_self *self, const exec_rank *r, uint32_t stream)
{
    return r->arena + (uint64_t)stream * (1 + self->max_group) * STAMP_BYTES;
}

static uint32_t largest_group(const plan_set *set)
{
    uint32_t most = 2; /* a send and its receive */
    for (uint32_t i = 0; i < set->n_teams; i++)
        if (set->teams[i].size > most)
            most = set->teams[i].size;
    return most;
}

uint64_t exec_paced_arena_bytes(const plan_set *set)
{
    return (uint64_t)set->n_streams * (1 + largest_group(set)) * STAMP_BYTES;
}

static pps_status meet(paced_self *self, exec_rank *r, const plan_step *s, uint64_t ready)
{
    paced_link *link = &self->links[s->stream];
    char *scratch = stamps(self, r, s->stream);
    link->met = false;
    link->op = (coll_op){.kind = COLL_COUNTS,
                         .channel = s->stream,
                         .seq = s->seq,
                         .epoch = r->epoch,
                         .send = scratch,
                         .recv = scratch + STAMP_BYTES,
                         .experts = STAMP_INTS};
    if (plan_is(s->kind, PLAN_COLLECTIVE)) {
        uint32_t id = plan_work_of(r->set, s)->teams;
        const plan_teams *teams = &r->set->teams[id];
        link->op.group = r->set->team_ranks + teams->ranks + r->seats[id].team * teams->size;
        link->op.group_size = teams->size;
        link->op.group_index = r->seats[id].index;
    }
    if (s->kind == PLAN_SEND || s->kind == PLAN_RECV) {
        uint32_t peer =
            r->set->group_ranks[r->set->plans[plan_work_of(r->set, s)->peer_group].ranks +
                                r->group_index];
        link->op.group_index = s->kind == PLAN_RECV;
        link->pair[link->op.group_index] = r->rank;
        link->pair[!link->op.group_index] = peer;
        link->op.group = link->pair;
        link->op.group_size = 2;
    }
    memcpy(scratch, &ready, STAMP_BYTES);
    return coll_start(self->coll, &link->op);
}

static uint64_t met_ns(const paced_self *self, const exec_rank *r, const plan_step *s)
{
    uint64_t met = 0;
    for (uint32_t i = 0; i < self->links[s->stream].op.group_size; i++) {
        uint64_t stamp;
        memcpy(&stamp, stamps(self, r, s->stream) + (1 + (uint64_t)i) * STAMP_BYTES, STAMP_BYTES);
        met = later(met, stamp);
    }
    return met;
}

/* ---- The backend -------------------------------------------------------------------------------
 */

static bool communicates(const plan_step *s)
{
    return plan_communicates(s->kind) && s->kind != PLAN_SEQ_TAKE;
}

static void account(const exec_rank *r, uint32_t step)
{
    const plan_step *s = &r->plan->steps[step];
    bool moves = !plan_is(s->kind, PLAN_LOCAL) && s->kind != PLAN_RECV;
    uint64_t bytes = moves ? plan_work_of(r->set, s)->bytes : 0;
    if (r->sent_bytes)
        r->sent_bytes[s->kind] += bytes;
    if (r->marks)
        r->marks[step].sent_bytes = bytes;
}

static pps_status poll(void *self_, exec_rank *r, uint32_t step, bool *ret_done)
{
    paced_self *self = self_;
    const plan_step *s = &r->plan->steps[step];
    if (communicates(s) && !self->links[s->stream].met) {
        paced_link *link = &self->links[s->stream];
        PPS_TRY(coll_poll(self->coll, &link->op, &link->met));
        if (!link->met)
            return PPS_OK;
        self->due[s->stream] = met_ns(self, r, s) + cost_ns(self, r, s);
    }
    if (now_ns() < self->due[s->stream])
        return PPS_OK;
    self->ends[step] = self->last[s->stream] = self->due[s->stream];
    self->due[s->stream] = 0;
    account(r, step);
    *ret_done = true;
    return PPS_OK;
}

static pps_status begin(void *self_, exec_rank *r, uint32_t step, bool *ret_done)
{
    paced_self *self = self_;
    const plan_step *s = &r->plan->steps[step];
    if (self->epoch != r->epoch + 1) {
        self->epoch = r->epoch + 1;
        self->epoch_ns = now_ns();
    }
    uint64_t ready = ready_ns(self, r, s);
    self->due[s->stream] = 0;
    if (communicates(s))
        PPS_TRY(meet(self, r, s, ready));
    else
        self->due[s->stream] = ready + cost_ns(self, r, s);
    return poll(self, r, step, ret_done);
}

static pps_status idle(void *self_, exec_rank *r)
{
    paced_self *self = self_;
    (void)r;
    uint64_t due = 0;
    for (uint32_t i = 0; i < self->n_streams; i++)
        if (self->due[i] && (!due || self->due[i] < due))
            due = self->due[i];
    uint64_t now = now_ns();
    if (due && due <= now)
        return coll_wait_any(self->coll, 0);
    return coll_wait_any(self->coll, due && due - now < IDLE_NS ? due - now : IDLE_NS);
}

const exec_backend exec_paced_backend = {"paced", begin, poll, idle, false};

/* ---- Setting up --------------------------------------------------------------------------------
 */

pps_status exec_paced_backend_new(exec_rank *r, struct coll_rank *coll,
                                  const exec_paced_costs *costs, void **ret_self)
{
    paced_self *self = calloc(1, sizeof(*self));
    if (!self)
        return PPS_ERR_NOMEM;
    self->coll = coll;
    self->costs = *costs;
    self->n_streams = r->set->n_streams;
    self->max_group = largest_group(r->set);
    self->links = calloc(self->n_streams, sizeof(paced_link));
    self->due = calloc(self->n_streams, sizeof(uint64_t));
    self->last = calloc(self->n_streams, sizeof(uint64_t));
    self->ends = calloc((size_t)r->plan->n_steps + 1, sizeof(uint64_t));
    if (!self->links || !self->due || !self->last || !self->ends) {
        exec_paced_backend_free(self);
        return PPS_ERR_NOMEM;
    }
    *ret_self = self;
    return PPS_OK;
}

void exec_paced_backend_free(void *self_)
{
    paced_self *self = self_;
    if (!self)
        return;
    free(self->links);
    free(self->due);
    free(self->last);
    free(self->ends);
    free(self);
}
