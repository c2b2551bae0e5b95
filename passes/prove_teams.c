/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_teams.c: teams fit what they share out, from the plans alone:
 *
 *   - ranks that sum a bucket's gradients hold the same slice of each of its parameters;
 *   - what they sum comes from every replica and every part of the sequence: from those ranks, or
 *     through the ranks that share the parameter out with them, none of them twice;
 *   - experts are computed, their rows exchanged and their counts told in the same teams;
 *   - tensors are shared in one way by all that a plan does: in teams of the ranks that work on the
 *     same rows and positions, the first of which speaks.
 *
 * A rank's share of an expert's gradient is the rows that its team's ranks sent it. So of experts
 * in teams {0, 1} and {2, 3} ranks 0 and 2 sum theirs: 0 stands for 0 and 1, 2 for 2 and 3.
 */
#include "passes/pass.h"

#include <string.h>

typedef struct check {
    pps_state *st;
    const plan_set *set;
    arena *mem;
    uint32_t **seat; /* [n_teams] of its ranks: team * size + index, IR_NONE; made when asked for */
    uint32_t *from;  /* [n_ranks] whose sum a rank's share is in: one of the team, plus one */
    bool *covered;   /* [replicas * parts] of a group */
} check;

static pps_status wrong(const check *c, uint32_t group, uint32_t param, const char *what)
{
    pps_span none = {0};
    return pps_error(c->st, none, 550, "%s: '%s' of group %u", what, c->set->params[param].name,
                     group);
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
            if (c->from[r] != 0 && c->from[r] != rank + 1)
                return wrong(c, p->group, q->param, "a rank's gradients are in a sum twice");
            c->from[r] = rank + 1;
            uint32_t at = p->ranks + set->rank_index[r];
            c->covered[set->rank_replica[at] * p->n_parts + set->rank_part[at]] = true;
        }
    }
    return PPS_OK;
}

/* The ranks that sum one parameter's gradients, `n` of them. */
static pps_status check_sum(check *c, const plan *p, const plan_param *q, const uint32_t *ranks,
                            uint32_t n)
{
    const plan_set *set = c->set;
    memset(c->from, 0, set->n_ranks * sizeof *c->from);
    memset(c->covered, 0, (size_t)p->n_replicas * p->n_parts * sizeof *c->covered);
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
        if (!c->covered[i])
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

/* ---- experts
 * ------------------------------------------------------------------------------------- */

typedef struct told { /* which teams the counts at an offset were last told in */
    uint32_t offset, teams;
} told;

typedef struct experts {
    ir_range *program; /* [n_programs] in `kernels`: experts that ranks share */
    uint32_t *kernels;
    uint32_t *seen; /* [n_programs] by which plan: group + 1 */
    /* of the plan at hand */
    told *table;
    uint32_t mask;
    uint32_t *cut; /* [n_params] teams that share it out */
} experts;

static told *told_at(const experts *x, uint32_t offset)
{
    uint32_t at = offset * 2654435761u;
    at = (at ^ at >> 15) & x->mask;
    while (x->table[at].teams != 0 && x->table[at].offset != offset)
        at = (at + 1) & x->mask;
    return &x->table[at];
}

static pps_status step_wrong(const check *c, const plan *p, uint32_t step, const char *what)
{
    char label[128];
    const plan_step *s = &p->steps[step];
    plan_step_label(c->set, p, s, label, sizeof label);
    return pps_error(c->st, plan_place_of(c->set, s), 550, "%s: group %u step %u, %s", what,
                     p->group, step, label);
}

static pps_status find_experts(const check *c, experts *x)
{
    const plan_set *set = c->set;
    uint32_t n = 0;
    PASS_ALLOC(x->program, c->mem, set->n_programs);
    PASS_ALLOC(x->kernels, c->mem, set->n_kernels);
    PASS_ALLOC(x->seen, c->mem, set->n_programs);
    PASS_ALLOC(x->cut, c->mem, set->n_params);
    for (uint32_t i = 0; i < set->n_programs; i++) {
        const plan_program *program = &set->programs[i];
        x->program[i].begin = n;
        for (uint32_t k = program->kernels; k < program->kernels + program->n_kernels; k++)
            if (set->kernels[k].op == IR_EXPERTS && set->kernels[k].ep > 1)
                x->kernels[n++] = k;
        x->program[i].n = n - x->program[i].begin;
    }
    return PPS_OK;
}

static pps_status start_plan(const plan *p, arena *mem, experts *x)
{
    uint32_t n_counts = 0;
    for (uint32_t i = 0; i < p->n_steps; i++)
        n_counts += p->steps[i].kind == PLAN_COUNTS;
    x->mask = 15;
    while (x->mask < 2 * n_counts)
        x->mask = 2 * x->mask + 1;
    PASS_ALLOC(x->table, mem, x->mask);
    for (uint32_t i = 0; i < p->n_params; i++)
        x->cut[p->params[i].param] = p->params[i].cuts[0].teams;
    return PPS_OK;
}

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

/* The kernel's parameters are cut as its own teams sit. Looked at once. */
static pps_status check_kernel(check *c, const plan *p, const experts *x, uint32_t step,
                               const plan_kernel *k)
{
    for (uint32_t i = 0; i < k->n_operands; i++) {
        const plan_operand *o = &c->set->operands[k->operands + i];
        bool fits;
        if (o->space != PLAN_PARAM && o->space != PLAN_GRAD)
            continue;
        PPS_TRY(alike(c, p, x->cut[o->index], k->teams, &fits));
        if (!fits)
            return step_wrong(c, p, step, "experts are not shared out as they are computed");
    }
    return PPS_OK;
}

/* Its counts, i1, were told in its own teams. */
static pps_status check_counts(const check *c, const plan *p, const experts *x, uint32_t step,
                               const plan_kernel *k)
{
    ir_operand list[IR_MAX_OPERANDS];
    ir_op op = {.kind = (uint8_t)k->op};
    uint32_t n = ir_op_operands(&op, (ir_phase)k->phase, list);
    for (uint32_t i = 0; i < n && i < k->n_operands; i++) {
        const plan_operand *o = &c->set->operands[k->operands + i];
        if (list[i].letter != 'i' || list[i].index != 1 || o->space != PLAN_BIND)
            continue;
        const told *t = told_at(x, p->bindings[p->steps[step].bindings + o->bind]);
        if (t->teams != k->teams + 1)
            return step_wrong(c, p, step, "experts' rows were counted in other teams");
    }
    return PPS_OK;
}

static pps_status check_exchanges(check *c, const plan *p, experts *x, arena *mem)
{
    const plan_set *set = c->set;
    PPS_TRY(start_plan(p, mem, x));
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        const plan_work *w = plan_work_of(set, s);
        uint32_t needs = s->kind == PLAN_COUNTS ? 2 : s->kind == PLAN_ALL_TO_ALL ? 3 : 0;
        if (s->n_bindings < needs)
            return step_wrong(c, p, i, "an exchange without its buffers");
        if (s->kind == PLAN_COUNTS) {
            uint32_t offset = p->bindings[s->bindings + 1];
            *told_at(x, offset) = (told){offset, w->teams + 1};
        } else if (s->kind == PLAN_ALL_TO_ALL) {
            if (told_at(x, p->bindings[s->bindings + 2])->teams != w->teams + 1)
                return step_wrong(c, p, i, "rows are exchanged in other teams than counted");
        } else if (s->kind == PLAN_COMPUTE) {
            ir_range list = x->program[w->program];
            for (uint32_t k = 0; k < list.n; k++) {
                const plan_kernel *kernel = &set->kernels[x->kernels[list.begin + k]];
                if (x->seen[w->program] != p->group + 1)
                    PPS_TRY(check_kernel(c, p, x, i, kernel));
                PPS_TRY(check_counts(c, p, x, i, kernel));
            }
            x->seen[w->program] = p->group + 1;
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
                : pps_error(c->st, none, 550,
                            "group %u shares tensors between ranks of different rows", p->group);
}

static pps_status check_shares(check *c, const plan *p, arena *mem)
{
    const plan_set *set = c->set;
    uint32_t teams = IR_NONE;
    bool *seen;
    PASS_ALLOC(seen, mem, set->n_programs);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        const plan_work *w = plan_work_of(set, s);
        if (shares_tensors(s->kind))
            PPS_TRY(join_shares(c, p, i, w->teams, &teams));
        if (s->kind != PLAN_COMPUTE || seen[w->program])
            continue;
        seen[w->program] = true;
        const plan_program *program = &set->programs[w->program];
        for (uint32_t k = program->kernels; k < program->kernels + program->n_kernels; k++)
            if (set->kernels[k].op != IR_EXPERTS && set->kernels[k].ep > 1)
                PPS_TRY(join_shares(c, p, i, set->kernels[k].teams, &teams));
    }
    for (uint32_t i = 0; i < p->n_params && p->n_steps > 0; i++)
        PPS_TRY(join_shares(c, p, 0, p->params[i].cuts[PASS_CUT_TENSOR].teams, &teams));
    return teams == IR_NONE ? PPS_OK : check_roles(c, p, teams);
}

/* ---- all plans
 * ----------------------------------------------------------------------------------- */

static pps_status check_set(check *c)
{
    const plan_set *set = c->set;
    experts x = {0};
    PPS_TRY(find_experts(c, &x));
    PASS_ALLOC(c->seat, c->mem, set->n_teams);
    PASS_ALLOC(c->from, c->mem, set->n_ranks);
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const plan *p = &set->plans[g];
        arena mem;
        PASS_ALLOC(c->covered, c->mem, (size_t)p->n_replicas * p->n_parts);
        for (uint32_t b = 0; b < p->n_buckets; b++)
            PPS_TRY(check_bucket(c, p, &p->buckets[b]));
        arena_init(&mem, NULL, NULL);
        pps_status status = check_exchanges(c, p, &x, &mem);
        if (status == PPS_OK)
            status = check_shares(c, p, &mem);
        arena_done(&mem);
        PPS_TRY(status);
    }
    return PPS_OK;
}

pps_status prove_teams(pps_state *st, const plan_set *set)
{
    arena mem;
    check c = {.st = st, .set = set, .mem = &mem};
    arena_init(&mem, NULL, NULL);
    pps_status status = check_set(&c);
    arena_done(&mem);
    return status;
}
