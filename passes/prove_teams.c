/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_teams.c: teams fit what they share out, from the plans alone:
 *
 *   - ranks that sum a bucket's gradients hold the same slice of each of its parameters;
 *   - what they sum comes from every replica and every part of the sequence: from those ranks, or
 *     through the ranks that share the parameter out with them, none of them twice;
 *   - a parameter that several groups hold is summed over all of them;
 *   - experts are computed, their rows exchanged and their counts told in the same teams;
 *   - tensors are shared in one way by all that a plan does: in teams of the ranks that work on the
 *     same rows and positions, the first of which speaks.
 *
 * A rank's share of an expert's gradient is the rows that its team's ranks sent it. So of experts
 * in teams {0, 1} and {2, 3} ranks 0 and 2 sum theirs: 0 stands for 0 and 1, 2 for 2 and 3.
 */
#include "passes/prove.h"

#include <string.h>

#include "ir/plan_row.h"

typedef struct mark { /* of a rank: in which sum its share is, and through whom */
    uint32_t sum, through;
} mark;

typedef struct check {
    const prover *p;
    const plan_set *set;
    arena *mem;
    uint32_t **seat; /* [n_teams] of its ranks: team * size + index, IR_NONE; made when asked for */
    mark *from;      /* [n_ranks] */
    uint32_t sum;    /* the one at hand, from 1 */
    uint32_t *covered; /* [most replicas * parts] latest sum with it */
} check;

/* The step that sums the gradients of the bucket with this parameter; else the one that applies
 * them; IR_NONE. */
static uint32_t summing_step(const check *c, const plan *p, uint32_t param)
{
    uint32_t b = 0, at = 0, found = IR_NONE;
    while (at < p->n_params && p->params[at].param != param)
        at++;
    while (b < p->n_buckets && at - p->buckets[b].first >= p->buckets[b].n)
        b++;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        if (!plan_is(s->kind, PLAN_BUCKET) || plan_work_of(c->set, s)->chunk != b)
            continue;
        if (s->kind == PLAN_ALL_REDUCE || s->kind == PLAN_REDUCE_SCATTER)
            return i;
        found = s->kind == PLAN_UPDATE ? i : found;
    }
    return found;
}

static pps_status wrong(const check *c, uint32_t group, uint32_t param, const char *what)
{
    const ir_param *q = &c->set->params[param];
    uint32_t step = summing_step(c, &c->set->plans[group], param);
    if (step == IR_NONE)
        return pps_error(c->p->st, q->span, 550, "%s: '%s' of group %u", what, q->name, group);
    pps_diag *diag = prove_wrong(c->p, group, step, 550, "%s: '%s'", what, q->name);
    if (q->span.file != 0)
        pps_diag_also(diag, q->span, "the parameter");
    return pps_diag_done(diag);
}

static pps_status seats(check *c, uint32_t teams, const uint32_t **ret)
{
    const plan_teams *t = &c->set->teams[teams];
    if (c->seat[teams] == NULL) {
        PASS_ALLOC(c->seat[teams], c->mem, c->set->n_ranks);
        memset(c->seat[teams], 0xff, c->set->n_ranks * sizeof **c->seat);
        for (uint32_t i = 0; i < t->n_ranks; i++)
            c->seat[teams][c->set->team_ranks[t->ranks + i]] = i;
    }
    *ret = c->seat[teams];
    return PPS_OK;
}

/* ---- gradients
 * ----------------------------------------------------------------------------------- */

/* `rank`, of those that sum, brings its own share and those of the ranks that it shares with. */
static pps_status bring(check *c, const plan *p, const plan_param *q, uint32_t rank)
{
    const plan_set *set = c->set;
    for (int i = -1; i < PLAN_MAX_CUTS; i++) {
        const uint32_t *seat, *ranks = &rank;
        uint32_t n = 1;
        if (i >= 0) {
            if (q->cuts[i].teams == IR_NONE)
                continue;
            const plan_teams *t = &set->teams[q->cuts[i].teams];
            PPS_TRY(seats(c, q->cuts[i].teams, &seat));
            ranks = set->team_ranks + t->ranks + seat[rank] / t->size * t->size;
            n = t->size;
        }
        for (uint32_t k = 0; k < n; k++) {
            uint32_t r = ranks[k];
            if (set->rank_group[r] != p->group)
                continue; /* another plan's group counts its own */
            if (c->from[r].sum == c->sum && c->from[r].through != rank)
                return wrong(c, p->group, q->param, "a rank's gradients are in a sum twice");
            c->from[r] = (mark){c->sum, rank};
            uint32_t at = p->ranks + set->rank_index[r];
            c->covered[set->rank_replica[at] * p->n_parts + set->rank_part[at]] = c->sum;
        }
    }
    return PPS_OK;
}

/* The ranks that sum one parameter's gradients, `n` of them. */
static pps_status check_sum(check *c, const plan *p, const plan_param *q, const uint32_t *ranks,
                            uint32_t n)
{
    const plan_set *set = c->set;
    c->sum++;
    for (uint32_t k = 0; k < n; k++) {
        if (set->rank_group[ranks[k]] != p->group)
            continue;
        for (int i = 0; i < PLAN_MAX_CUTS; i++) {
            const uint32_t *seat;
            if (q->cuts[i].teams == IR_NONE)
                continue;
            uint32_t size = set->teams[q->cuts[i].teams].size;
            PPS_TRY(seats(c, q->cuts[i].teams, &seat));
            if (seat[ranks[k]] == IR_NONE)
                return wrong(c, p->group, q->param, "a rank has no seat where this is shared out");
            if (seat[ranks[k]] % size != seat[ranks[0]] % size)
                return wrong(c, p->group, q->param, "ranks with different slices sum gradients");
        }
        PPS_TRY(bring(c, p, q, ranks[k]));
    }
    for (uint32_t i = 0; i < p->n_replicas * p->n_parts; i++)
        if (c->covered[i] != c->sum)
            return wrong(c, p->group, q->param, "a replica's gradients are in no sum");
    return PPS_OK;
}

static pps_status check_bucket(check *c, const plan *p, const plan_bucket *b)
{
    const plan_set *set = c->set;
    const plan_param *last = NULL;
    for (uint32_t i = b->first; i < b->first + b->n; i++) {
        const plan_param *q = &p->params[i];
        if (last != NULL && memcmp(last->cuts, q->cuts, sizeof q->cuts) == 0)
            continue;
        last = q;
        if (!plan_reduced(b)) { /* each rank alone */
            for (uint32_t k = 0; k < p->n_ranks; k++)
                PPS_TRY(check_sum(c, p, q, &set->group_ranks[p->ranks + k], 1));
            continue;
        }
        const plan_teams *t = &set->teams[b->teams];
        for (uint32_t at = 0; at < t->n_ranks; at += t->size) {
            bool here = false; /* teams may lie on several groups */
            for (uint32_t k = at; k < at + t->size; k++)
                here |= set->rank_group[set->team_ranks[t->ranks + k]] == p->group;
            if (here)
                PPS_TRY(check_sum(c, p, q, set->team_ranks + t->ranks + at, t->size));
        }
    }
    return PPS_OK;
}

/* A parameter that several groups hold: their buckets are reduced together, over all of them. (What
 * such buckets hold is the same: prove_match.c.) */
static pps_status check_holders(check *c)
{
    const plan_set *set = c->set;
    uint32_t *n_holders, *latest, *n_spanned; /* latest: [n_groups] teams counted, + 1 */
    PASS_ALLOC(n_holders, c->mem, set->n_params);
    PASS_ALLOC(latest, c->mem, set->n_groups);
    PASS_ALLOC(n_spanned, c->mem, set->n_teams);
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_params; i++)
            n_holders[set->plans[g].params[i].param]++;
    for (uint32_t i = 0; i < set->n_teams; i++)
        for (uint32_t k = 0; k < set->teams[i].n_ranks; k++) {
            uint32_t *of = &latest[set->rank_group[set->team_ranks[set->teams[i].ranks + k]]];
            n_spanned[i] += *of != i + 1;
            *of = i + 1;
        }
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t b = 0; b < set->plans[g].n_buckets; b++) {
            const plan_bucket *k = &set->plans[g].buckets[b];
            for (uint32_t i = k->first; i < k->first + k->n; i++) {
                uint32_t q = set->plans[g].params[i].param;
                if (n_holders[q] != (plan_reduced(k) ? n_spanned[k->teams] : 1))
                    return wrong(c, g, q,
                                 n_holders[q] > 1
                                     ? "a device group's gradients are in no sum with another's"
                                     : "gradients are summed with a group that has them not");
            }
        }
    return PPS_OK;
}

/* ---- experts
 * ------------------------------------------------------------------------------------- */

/* Has every rank of the plan the same team, in the same order, in both? */
static pps_status alike(check *c, const plan *p, uint32_t a, uint32_t b, bool *ret)
{
    const plan_set *set = c->set;
    const uint32_t *seat_a, *seat_b;
    *ret = a == b;
    if (a == b || a == IR_NONE || b == IR_NONE)
        return PPS_OK;
    const plan_teams *ta = &set->teams[a], *tb = &set->teams[b];
    PPS_TRY(seats(c, a, &seat_a));
    PPS_TRY(seats(c, b, &seat_b));
    *ret = ta->size == tb->size;
    for (uint32_t i = 0; i < p->n_ranks && *ret; i++) {
        uint32_t rank = set->group_ranks[p->ranks + i], x = seat_a[rank], y = seat_b[rank];
        *ret = x != IR_NONE && y != IR_NONE && x % ta->size == y % tb->size;
        for (uint32_t k = 0; k < ta->size && *ret; k++)
            *ret = set->team_ranks[ta->ranks + x - x % ta->size + k] ==
                   set->team_ranks[tb->ranks + y - y % tb->size + k];
    }
    return PPS_OK;
}

typedef struct experts {
    bool *seen;     /* [n_works] */
    uint32_t *told; /* [n_buffers] teams that counts are told in, IR_NONE */
    plan_cut *cut;  /* [n_params] how it is shared out in the plan at hand */
} experts;

static pps_status step_wrong(const check *c, const plan *p, uint32_t step, const char *what)
{
    return prove_two(c->p, p->group, step, 550, what, IR_NONE, NULL);
}

/* The kernel's parameters are cut as its own teams sit; its counts, i1, were told in these. */
static pps_status check_kernel(check *c, const plan *p, const experts *x, uint32_t step,
                               const plan_kernel *k)
{
    const plan_work *w = plan_work_of(c->set, &p->steps[step]);
    ir_operand list[PLAN_MAX_OPERANDS];
    if (!plan_kernel_operands(k, list))
        return step_wrong(c, p, step, "experts without their operands");
    for (uint32_t i = 0; i < k->n_operands; i++) {
        const plan_operand *o = &c->set->operands[k->operands + i];
        bool param = o->space == PLAN_PARAM || o->space == PLAN_GRAD;
        bool fits = true, counts = list[i].letter == 'i' && list[i].index == 1;
        if (param)
            PPS_TRY(alike(c, p, x->cut[o->index].teams, k->teams, &fits));
        if (!fits || (param && (x->cut[o->index].dim != 0 || x->cut[o->index].blocks != 1)))
            return step_wrong(c, p, step, "experts are not shared out as they are computed");
        if (counts && o->space == PLAN_BIND &&
            x->told[c->set->work_buffers[w->buffers + o->bind]] != k->teams)
            return step_wrong(c, p, step, "experts' rows were counted in other teams");
    }
    return PPS_OK;
}

/* A step of a work that has not been looked at. */
static pps_status check_exchange(check *c, const plan *p, const experts *x, uint32_t step)
{
    const plan_set *set = c->set;
    const plan_step *s = &p->steps[step];
    const plan_work *w = plan_work_of(set, s);
    if (s->kind == PLAN_ALL_TO_ALL && x->told[set->work_buffers[w->buffers + 2]] != w->teams)
        return step_wrong(c, p, step, "rows are exchanged in other teams than counted");
    if (s->kind != PLAN_COMPUTE)
        return PPS_OK;
    const plan_program *program = &set->programs[w->program];
    for (uint32_t k = program->kernels; k < program->kernels + program->n_kernels; k++)
        if (set->kernels[k].op == IR_EXPERTS && set->kernels[k].ep > 1)
            PPS_TRY(check_kernel(c, p, x, step, &set->kernels[k]));
    return PPS_OK;
}

/* Counts lie where prove_memory.c finds them, so one step speaks for all of its work. */
static pps_status check_experts(check *c)
{
    const plan_set *set = c->set;
    experts x;
    PASS_ALLOC(x.seen, c->mem, set->n_works);
    PASS_ALLOC(x.told, c->mem, set->n_buffers);
    PASS_ALLOC(x.cut, c->mem, set->n_params);
    memset(x.told, 0xff, set->n_buffers * sizeof *x.told);
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
            const plan_work *w = plan_work_of(set, &set->plans[g].steps[i]);
            if (set->plans[g].steps[i].kind == PLAN_COUNTS)
                x.told[set->work_buffers[w->buffers + 1]] = w->teams;
        }
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const plan *p = &set->plans[g];
        for (uint32_t i = 0; i < p->n_params; i++)
            x.cut[p->params[i].param] = p->params[i].cuts[0];
        for (uint32_t i = 0; i < p->n_steps; i++) {
            if (x.seen[p->steps[i].work])
                continue;
            x.seen[p->steps[i].work] = true;
            PPS_TRY(check_exchange(c, p, &x, i));
        }
    }
    return PPS_OK;
}

/* ---- tensors
 * ------------------------------------------------------------------------------------- */

static bool shares_tensors(unsigned kind)
{
    return kind == PLAN_SUM || kind == PLAN_SEQ_SCATTER || kind == PLAN_SEQ_GATHER ||
           kind == PLAN_SEQ_TAKE || kind == PLAN_STATS;
}

/* `teams`, IR_NONE until something says which, are those of `other` too. */
static pps_status join_shares(check *c, const plan *p, uint32_t step, uint32_t other,
                              uint32_t *teams)
{
    bool fits = true;
    if (other == IR_NONE)
        return PPS_OK;
    if (*teams == IR_NONE)
        *teams = other;
    PPS_TRY(alike(c, p, *teams, other, &fits));
    return fits ? PPS_OK : step_wrong(c, p, step, "tensors are shared in two ways");
}

/* Does every rank's team have the ranks of its rows and positions, all of them? */
static pps_status check_roles(check *c, const plan *p, uint32_t teams)
{
    const plan_set *set = c->set;
    const plan_teams *t = &set->teams[teams];
    const uint32_t *seat;
    pps_span none = {0};
    bool fits = (uint64_t)t->size * p->n_replicas * p->n_parts == p->n_ranks;
    PPS_TRY(seats(c, teams, &seat));
    for (uint32_t i = 0; i < p->n_ranks && fits; i++) {
        uint32_t at = seat[set->group_ranks[p->ranks + i]], mine = p->ranks + i;
        fits = at != IR_NONE && set->rank_speaks[mine] == (at % t->size == 0);
        for (uint32_t k = 0; k < t->size && fits; k++) {
            uint32_t rank = set->team_ranks[t->ranks + at - at % t->size + k];
            uint32_t its = p->ranks + set->rank_index[rank];
            fits = set->rank_group[rank] == p->group &&
                   set->rank_replica[its] == set->rank_replica[mine] &&
                   set->rank_part[its] == set->rank_part[mine];
        }
    }
    return fits ? PPS_OK
                : pps_error(c->p->st, none, 550,
                            "group %u shares tensors between ranks of different rows", p->group);
}

/* `seen`: [n_programs] latest plan that they were met in, + 1. */
static pps_status check_shares(check *c, const plan *p, uint32_t *seen)
{
    const plan_set *set = c->set;
    uint32_t teams = IR_NONE;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        const plan_work *w = plan_work_of(set, s);
        if (shares_tensors(s->kind))
            PPS_TRY(join_shares(c, p, i, w->teams, &teams));
        if (s->kind != PLAN_COMPUTE || seen[w->program] == p->group + 1)
            continue;
        seen[w->program] = p->group + 1;
        const plan_program *program = &set->programs[w->program];
        for (uint32_t k = program->kernels; k < program->kernels + program->n_kernels; k++)
            if (set->kernels[k].op != IR_EXPERTS && set->kernels[k].ep > 1)
                PPS_TRY(join_shares(c, p, i, set->kernels[k].teams, &teams));
    }
    for (uint32_t i = 0; i < p->n_params && p->n_steps > 0; i++)
        PPS_TRY(join_shares(c, p, 0, p->params[i].cuts[PASS_CUT_TENSOR].teams, &teams));
    return teams == IR_NONE ? PPS_OK : check_roles(c, p, teams);
}

pps_status prove_teams(const prover *p)
{
    const plan_set *set = p->set;
    check c = {.p = p, .set = set, .mem = p->mem};
    uint32_t *seen;
    size_t most = 0;
    for (uint32_t g = 0; g < set->n_groups; g++) {
        size_t n = (size_t)set->plans[g].n_replicas * set->plans[g].n_parts;
        most = n > most ? n : most;
    }
    PASS_ALLOC(c.seat, c.mem, set->n_teams);
    PASS_ALLOC(c.from, c.mem, set->n_ranks);
    PASS_ALLOC(c.covered, c.mem, most);
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t b = 0; b < set->plans[g].n_buckets; b++)
            PPS_TRY(check_bucket(&c, &set->plans[g], &set->plans[g].buckets[b]));
    PASS_ALLOC(seen, p->mem, set->n_programs);
    for (uint32_t g = 0; g < set->n_groups; g++)
        PPS_TRY(check_shares(&c, &set->plans[g], seen));
    PPS_TRY(check_holders(&c));
    return check_experts(&c);
}
