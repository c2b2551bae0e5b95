/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_rounds.c: rounds of attention, from one finished plan alone. A round masks scores by where
 * it believes its keys to come from (attrs.shift), so keys of another rank would go unnoticed:
 * numbers like any others, and wrong ones. Therefore
 *
 *   SHIFT by j        first fills the block  ->  round j reads it as its keys or values
 *   round j backward  first fills the block  ->  SHIFT by j back
 *
 * of the same teams and microbatch, and round 0 reads no block that a SHIFT filled.
 */
#include "passes/prove.h"

#include <stdlib.h>
#include <string.h>

typedef struct rounds_prover {
    pps_state *st;
    const plan_set *set;
    const plan *p;
    arena *mem;
    uint32_t *at;     /* [n] where blocks begin, ascending */
    uint32_t *latest; /* [n] the last block that began there */
    uint32_t n, next; /* block */
    uint32_t teams;   /* in which its shifts run */
} rounds_prover;

static pps_status wrong(const rounds_prover *r, uint32_t step, const char *what)
{
    const plan_step *s = &r->p->steps[step];
    char label[128];
    plan_step_label(r->set, r->p, s, label, sizeof label);
    return pps_error(r->st, plan_place_of(r->set, s), 527, "%s: group %u step %u, %s", what,
                     r->p->group, step, label);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static pps_status index_blocks(rounds_prover *r)
{
    const plan *p = r->p;
    PASS_ALLOC(r->at, r->mem, p->n_blocks);
    PASS_ALLOC(r->latest, r->mem, p->n_blocks);
    for (uint32_t i = 0; i < p->n_blocks; i++)
        r->at[i] = p->blocks[i].offset;
    qsort(r->at, p->n_blocks, sizeof *r->at, by_number);
    for (uint32_t i = 0; i < p->n_blocks; i++)
        if (i == 0 || r->at[i] != r->at[r->n - 1])
            r->at[r->n++] = r->at[i];
    memset(r->latest, 0xff, p->n_blocks * sizeof *r->latest);
    return PPS_OK;
}

/* The block at an offset now, or IR_NONE. */
static uint32_t *block_at(const rounds_prover *r, uint32_t offset)
{
    uint32_t *found = bsearch(&offset, r->at, r->n, sizeof offset, by_number);
    return found != NULL ? &r->latest[found - r->at] : NULL;
}

/* The step that filled the block behind binding `i` of a step, NULL: no block is there. */
static const plan_step *filler(const rounds_prover *r, const plan_step *s, uint32_t i)
{
    if (i >= s->n_bindings)
        return NULL;
    const uint32_t *block = block_at(r, r->p->bindings[s->bindings + i]);
    return block != NULL && *block != IR_NONE ? &r->p->steps[r->p->blocks[*block].first] : NULL;
}

/* The kernel of a round that a compute step runs in this phase, with number *from or later. */
static const plan_kernel *next_round(const rounds_prover *r, const plan_step *s, uint32_t *from)
{
    uint32_t id = plan_work_of(r->set, s)->program;
    if (id >= r->set->n_programs)
        return NULL;
    const plan_program *program = &r->set->programs[id];
    for (; *from < program->n_kernels; ++*from) {
        const plan_kernel *k = &r->set->kernels[program->kernels + *from];
        if (k->op == IR_ATTENTION_PART)
            return k;
    }
    return NULL;
}

static bool shifts_for(const rounds_prover *r, const plan_step *shift, const plan_step *s,
                       const plan_kernel *k, bool back)
{
    const plan_work *w = plan_work_of(r->set, shift);
    return shift->kind == PLAN_SHIFT && shift->mb == s->mb && w->shift == k->attrs.shift &&
           w->teams == r->teams && k->attrs.parts == r->set->teams[r->teams].size &&
           ((shift->flags & PLAN_A2A_RETURN) != 0) == back;
}

/* The teams of the plan's shifts, in which every rank sits by its part of the sequences: rank i of
 * a team masks as part i. IR_NONE: there are none, or they do not. */
static uint32_t sequence_teams(const rounds_prover *r)
{
    const plan_set *set = r->set;
    uint32_t teams = IR_NONE, n = 0;
    for (uint32_t i = 0; i < r->p->n_steps && teams == IR_NONE; i++)
        if (r->p->steps[i].kind == PLAN_SHIFT)
            teams = plan_work_of(set, &r->p->steps[i])->teams;
    if (teams >= set->n_teams)
        return IR_NONE;
    const plan_teams *t = &set->teams[teams];
    for (uint32_t i = 0; i < t->n_ranks; i++) {
        uint32_t rank = set->team_ranks[t->ranks + i];
        if (set->rank_group[rank] != r->p->group)
            continue;
        if (set->rank_part[r->p->ranks + set->rank_index[rank]] != i % t->size)
            return IR_NONE;
        n++;
    }
    return n == r->p->n_ranks && t->size == r->p->n_parts ? teams : IR_NONE;
}

static pps_status check_compute(const rounds_prover *r, uint32_t step)
{
    const plan_step *s = &r->p->steps[step];
    const plan_kernel *k;
    for (uint32_t i = 0; (k = next_round(r, s, &i)) != NULL; i++)
        for (uint32_t j = 1; j <= 2; j++) { /* i1 and i2, in both phases */
            const plan_operand *o = &r->set->operands[k->operands + j];
            const plan_step *made = NULL;
            if (k->n_operands <= 2)
                return wrong(r, step, "a round of attention has no keys");
            if (o->space == PLAN_BIND)
                made = filler(r, s, o->bind);
            if (k->attrs.shift == 0 ? made != NULL && made->kind == PLAN_SHIFT
                                    : made == NULL || !shifts_for(r, made, s, k, false))
                return wrong(r, step, "a round of attention has the keys of another");
        }
    return PPS_OK;
}

/* What goes home is of the round that had it. */
static pps_status check_return(const rounds_prover *r, uint32_t step)
{
    const plan_step *s = &r->p->steps[step], *made = filler(r, s, 0);
    const plan_kernel *k;
    for (uint32_t i = 0;
         made != NULL && made->kind == PLAN_COMPUTE && (k = next_round(r, made, &i)) != NULL; i++)
        if (k->phase == IR_PHASE_BI && shifts_for(r, s, made, k, true))
            return PPS_OK;
    return wrong(r, step, "a round's gradients go to another rank than its keys came from");
}

static pps_status prove_plan(rounds_prover *r)
{
    const plan *p = r->p;
    pps_span none = {0};
    PPS_TRY(index_blocks(r));
    r->teams = sequence_teams(r);
    if (r->teams == IR_NONE)
        return pps_error(r->st, none, 527,
                         "group %u has rounds of attention, and no teams that sit by its ranks' "
                         "parts of the sequences",
                         p->group);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        for (; r->next < p->n_blocks && p->blocks[r->next].first <= i; r->next++)
            *block_at(r, p->blocks[r->next].offset) = r->next;
        if (p->steps[i].kind == PLAN_COMPUTE)
            PPS_TRY(check_compute(r, i));
        else if (p->steps[i].kind == PLAN_SHIFT && (p->steps[i].flags & PLAN_A2A_RETURN))
            PPS_TRY(check_return(r, i));
    }
    return PPS_OK;
}

pps_status prove_rounds(const prover *p)
{
    const plan_set *set = p->set;
    pps_status status = PPS_OK;
    bool any = false;
    for (uint32_t i = 0; i < set->n_kernels && !any; i++)
        any = set->kernels[i].op == IR_ATTENTION_PART;
    for (uint32_t i = 0; i < set->n_works && !any; i++)
        any = set->works[i].shift > 0;
    for (uint32_t g = 0; any && g < set->n_groups && status == PPS_OK; g++) {
        arena mem;
        arena_init(&mem, NULL, NULL);
        rounds_prover r = {.st = p->st, .set = set, .p = &set->plans[g], .mem = &mem};
        status = prove_plan(&r);
        arena_done(&mem);
    }
    return status;
}
