/* SPDX-License-Identifier: Apache-2.0
 *
 * prove.c: all plans together, checked from the plans alone, one property per file:
 *
 *   here             every number in a plan names something; waits point backward
 *   prove_match.c    sends meet their receives, collectives agree, all in one order per stream
 *   prove_once.c     every pass of every microbatch runs once
 *   prove_slices.c   slices of a sequence follow on each other
 *   prove_rounds.c   rounds of attention have their own keys
 *   prove_teams.c    gradients are summed over all that have a share, experts exchanged in one way
 *   prove_hang.c     no step waits for ever, under rendezvous or under buffered sends
 *   prove_memory.c   steps find in their buffers what belongs there; bytes are used again in time
 *   prove_buckets.c  gradients are complete when reduced, and reduced and applied once
 *
 * A plan that passes under rendezvous sends passes under buffered ones: a send that does not wait
 * for its receive takes edges away, and nothing else here depends on it.
 */
#include "passes/prove.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- messages ----------------------------------------------------------------------------------
 */

const char *prove_step_text(const prover *p, uint32_t group, uint32_t step, char *buffer, size_t n)
{
    const plan *mine = &p->set->plans[group];
    int at = snprintf(buffer, n, "group %u step %u, ", group, step);
    if (at > 0 && (size_t)at < n)
        plan_step_label(p->set, mine, &mine->steps[step], buffer + at, n - (size_t)at);
    return buffer;
}

pps_diag *prove_wrong(const prover *p, uint32_t group, uint32_t step, int code, const char *title,
                      ...)
{
    char text[256], where[160];
    va_list args;
    va_start(args, title);
    vsnprintf(text, sizeof text, title, args);
    va_end(args);
    return pps_diag_start(p->st, PPS_SEV_ERROR, code,
                          plan_place_of(p->set, &p->set->plans[group].steps[step]), "%s: %s", text,
                          prove_step_text(p, group, step, where, sizeof where));
}

void prove_other(const prover *p, pps_diag *diag, uint32_t group, uint32_t step, const char *text)
{
    pps_span span = plan_place_of(p->set, &p->set->plans[group].steps[step]);
    char where[160];
    prove_step_text(p, group, step, where, sizeof where);
    if (span.file != 0)
        pps_diag_also(diag, span, "%s: %s", text, where);
    else
        pps_diag_note(diag, "%s: %s", text, where);
}

pps_status prove_two(const prover *p, uint32_t group, uint32_t step, int code, const char *title,
                     uint32_t other, const char *other_text)
{
    pps_diag *diag = prove_wrong(p, group, step, code, "%s", title);
    if (other != IR_NONE)
        prove_other(p, diag, group, other, other_text);
    return pps_diag_done(diag);
}

/* ---- what a plan names -------------------------------------------------------------------------
 */

/* A step that does not even name things has no label: tell its place and number alone. */
static pps_status unnamed(const prover *p, uint32_t group, uint32_t step, int code,
                          const char *what)
{
    const plan_set *set = p->set;
    uint32_t place = set->plans[group].steps[step].place;
    pps_span span = place < set->n_places ? set->places[place] : (pps_span){0};
    return pps_error(p->st, span, code, "%s: group %u step %u", what, group, step);
}

static bool within(uint64_t first, uint64_t n, uint64_t of)
{
    return first <= of && n <= of - first;
}

static bool kernel_names_things(const plan_set *set, const plan_program *program,
                                const plan_kernel *k)
{
    if (k->op >= PLAN_KERNEL_COUNT || k->phase >= IR_PHASE_COUNT ||
        !within(k->operands, k->n_operands, set->n_operands) ||
        (k->op == PLAN_KERNEL_SUM && k->n_operands == 0))
        return false;
    for (uint32_t j = 0; j < k->n_operands; j++) {
        const plan_operand *o = &set->operands[k->operands + j];
        if ((o->space == PLAN_BIND && o->bind >= program->n_bindings) ||
            ((o->space == PLAN_PARAM || o->space == PLAN_GRAD) && o->index >= set->n_params) ||
            (o->space == PLAN_DATA && o->index >= set->n_data))
            return false;
    }
    return true;
}

/* Teams of equal sizes, every rank in one of them or in none; groups and ranks know each other. */
static pps_status check_teams(const prover *p)
{
    const plan_set *set = p->set;
    const pps_span none = {0};
    uint32_t *seen; /* [n_ranks] latest teams that it was in, + 1 */
    PASS_ALLOC(seen, p->mem, set->n_ranks);
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const plan *mine = &set->plans[g];
        bool whole = mine->group == g && within(mine->ranks, mine->n_ranks, set->n_ranks);
        for (uint32_t k = 0; whole && k < mine->n_ranks; k++) {
            uint32_t at = mine->ranks + k, rank = set->group_ranks[at];
            whole = rank < set->n_ranks && set->rank_group[rank] == g &&
                    set->rank_index[rank] == k && set->rank_replica[at] < mine->n_replicas &&
                    set->rank_part[at] < mine->n_parts;
        }
        if (!whole)
            return pps_error(p->st, none, 520, "group %u has ranks that are not there", g);
    }
    for (uint32_t i = 0; i < set->n_teams; i++) {
        const plan_teams *t = &set->teams[i];
        bool whole = within(t->ranks, t->n_ranks, set->n_team_ranks) && t->size > 0 &&
                     t->n_ranks % t->size == 0;
        for (uint32_t k = 0; whole && k < t->n_ranks; k++) {
            uint32_t rank = set->team_ranks[t->ranks + k];
            whole =
                rank < set->n_ranks && set->rank_group[rank] < set->n_groups && seen[rank] != i + 1;
            if (whole)
                seen[rank] = i + 1;
        }
        if (!whole)
            return pps_error(p->st, none, 520, "teams %u are no teams", i);
    }
    return PPS_OK;
}

static pps_status check_works(const prover *p)
{
    const plan_set *set = p->set;
    const pps_span none = {0};
    for (uint32_t i = 0; i < set->n_works; i++) {
        const plan_work *w = &set->works[i];
        bool whole = w->n_buffers == 0 || within(w->buffers, w->n_buffers, set->n_work_buffers);
        for (uint32_t k = 0; whole && k < w->n_buffers; k++)
            whole = set->work_buffers[w->buffers + k] < set->n_buffers;
        if (!whole)
            return pps_error(p->st, none, 520, "work %u names buffers that are not there", i);
    }
    for (uint32_t i = 0; i < set->n_programs; i++) {
        const plan_program *program = &set->programs[i];
        bool whole = program->chunk < set->n_chunks &&
                     set->chunk_model[program->chunk] < set->n_chunks &&
                     program->pass < PPS_PASS_COUNT &&
                     within(program->kernels, program->n_kernels, set->n_kernels);
        for (uint32_t k = 0; whole && k < program->n_kernels; k++)
            whole = kernel_names_things(set, program, &set->kernels[program->kernels + k]);
        if (!whole)
            return pps_error(p->st, none, 520, "program %u names what is not there", i);
    }
    return PPS_OK;
}

static pps_status check_compute(const prover *p, uint32_t g, uint32_t i)
{
    const plan_set *set = p->set;
    const plan_step *s = &set->plans[g].steps[i];
    const plan_work *w = plan_work_of(set, s);
    if (w->program >= set->n_programs)
        return unnamed(p, g, i, 520, "a step runs a program that is not there");
    const plan_program *program = &set->programs[w->program];
    if (program->chunk != w->chunk || program->pass != s->pass)
        return unnamed(p, g, i, 520, "a step does not run its own program");
    if (program->n_loss > 0 &&
        (uint64_t)w->loss + (uint64_t)s->mb * set->n_mb_losses + program->n_loss > set->n_losses)
        return unnamed(p, g, i, 520, "a step's losses are not there");
    return PPS_OK;
}

/* Counts of experts: one for each, of every rank that exchanges. */
static pps_status check_exchange(const prover *p, uint32_t g, uint32_t i)
{
    const plan_set *set = p->set;
    const plan *mine = &set->plans[g];
    const plan_step *s = &mine->steps[i];
    const plan_work *w = plan_work_of(set, s);
    const uint32_t *named = set->work_buffers + w->buffers;
    uint64_t own = 4ull * w->experts, all = own * set->teams[w->teams].size;
    bool counts = s->kind == PLAN_COUNTS;
    if (set->buffers[named[counts ? 1 : 2]].bytes == all &&
        (!counts || set->buffers[named[0]].bytes == own))
        return PPS_OK;
    return prove_two(p, g, i, 548, "an exchange has not the counts of its experts", IR_NONE, NULL);
}

static pps_status check_waits(const prover *p, uint32_t g, uint32_t i)
{
    const plan *mine = &p->set->plans[g];
    const plan_step *s = &mine->steps[i];
    for (uint32_t k = 0; k < s->n_waits; k++) {
        uint32_t wait = mine->waits[s->waits + k];
        if (wait >= i)
            return prove_two(p, g, i, 517, "a step waits for one that is issued after it", IR_NONE,
                             NULL);
        if (mine->steps[wait].stream == s->stream)
            return prove_two(p, g, i, 517, "a step waits for one of its own stream", wait,
                             "that one");
    }
    return PPS_OK;
}

static pps_status check_step(const prover *p, uint32_t g, uint32_t i, uint32_t n_steps)
{
    const plan_set *set = p->set;
    const plan *mine = &set->plans[g];
    const plan_step *s = &mine->steps[i];
    if (s->kind >= PLAN_STEP_KIND_COUNT || s->stream >= set->n_streams || s->work >= set->n_works ||
        s->place >= set->n_places || s->pass >= PPS_PASS_COUNT ||
        !within(s->bindings, s->n_bindings, mine->n_bindings) ||
        !within(s->waits, s->n_waits, mine->n_waits))
        return unnamed(p, g, i, 520, "a step names what is not there");
    const plan_work *w = plan_work_of(set, s);
    const char *letters = plan_bindings_of(s->kind);
    bool of_bucket = plan_is(s->kind, PLAN_BUCKET), transfer = plan_is(s->kind, PLAN_TRANSFER);
    if (w->chunk >= (of_bucket ? mine->n_buckets : set->n_chunks))
        return unnamed(p, g, i, 520,
                       of_bucket ? "a step works on a bucket that is not there"
                                 : "a step works for a chunk that is not there");
    if (!of_bucket && s->mb >= set->n_mb)
        return unnamed(p, g, i, 520, "a step works on a microbatch that is not there");
    if (s->kind == PLAN_COMPUTE)
        PPS_TRY(check_compute(p, g, i));
    uint32_t n_bindings =
        letters != NULL ? (uint32_t)strlen(letters) : set->programs[w->program].n_bindings;
    if (s->n_bindings != w->n_buffers ||
        (s->n_bindings != n_bindings && !(of_bucket && s->n_bindings == 0)))
        return unnamed(p, g, i, 520, "a step has not the buffers that it works on");
    if ((s->seq != 0) != plan_communicates(s->kind) || s->seq > n_steps)
        return pps_diag_done(
            prove_wrong(p, g, i, 511, "a step's sequence number is wrong (%u)", s->seq));
    if (plan_is(s->kind, PLAN_COLLECTIVE) && w->teams >= set->n_teams)
        return prove_two(p, g, i, 542, "a collective is of no team", IR_NONE, NULL);
    if (s->kind == PLAN_COUNTS || s->kind == PLAN_ALL_TO_ALL)
        PPS_TRY(check_exchange(p, g, i));
    if (transfer && (w->peer_group >= set->n_groups || w->peer_group == g ||
                     w->peer >= set->n_works || set->plans[w->peer_group].n_ranks != mine->n_ranks))
        return prove_two(p, g, i, 511, "a transfer does not match its other end", IR_NONE, NULL);
    return s->n_waits > 0 ? check_waits(p, g, i) : PPS_OK;
}

/* All steps of a work are of one kind, and exchange one way. */
static pps_status check_kind(const prover *p, uint32_t g, uint32_t i, uint8_t *kinds)
{
    const plan_step *s = &p->set->plans[g].steps[i];
    uint8_t kind = (uint8_t)(1 + 2 * s->kind + ((s->flags & PLAN_A2A_RETURN) != 0));
    if (kinds[s->work] != 0 && kinds[s->work] != kind)
        return prove_two(p, g, i, 520, "a step does something else than its work's others", IR_NONE,
                         NULL);
    kinds[s->work] = kind;
    return PPS_OK;
}

static pps_status check_blocks(const prover *p, const plan *mine, const plan_block *blocks,
                               uint32_t n, uint64_t bytes)
{
    const pps_span none = {0};
    for (uint32_t i = 0; i < n; i++) {
        const plan_block *b = &blocks[i];
        if (b->units == 0 || b->slack >= PLAN_ALIGN || b->first > b->last ||
            b->last >= mine->n_steps || (i > 0 && b->first < blocks[i - 1].first) ||
            (uint64_t)b->offset * PLAN_ALIGN + plan_block_bytes(b) > bytes ||
            (uint64_t)b->offset + b->units > UINT32_MAX)
            return pps_error(p->st, none, 519, "buffer %u of group %u lies outside the plan", i,
                             mine->group);
    }
    return PPS_OK;
}

static pps_status check_plan(const prover *p, uint32_t g, uint32_t n_steps, uint8_t *kinds)
{
    const plan_set *set = p->set;
    const plan *mine = &set->plans[g];
    const pps_span none = {0};
    for (uint32_t i = 0; i < mine->n_params; i++) {
        const plan_param *q = &mine->params[i];
        bool whole = q->param < set->n_params;
        for (int k = 0; k < PLAN_MAX_CUTS; k++)
            whole &= q->cuts[k].teams == IR_NONE || q->cuts[k].teams < set->n_teams;
        if (!whole)
            return pps_error(p->st, none, 520, "group %u holds a parameter that is not there", g);
    }
    for (uint32_t b = 0; b < mine->n_buckets; b++) {
        const plan_bucket *k = &mine->buckets[b];
        if (!within(k->first, k->n, mine->n_params) || k->zero > 3 ||
            (k->teams != IR_NONE && k->teams >= set->n_teams) || (k->zero >= 2 && k->every == 0))
            return pps_error(p->st, none, 520, "bucket %u of group %u names what is not there", b,
                             g);
    }
    for (uint32_t i = 0; i < mine->n_steps; i++) {
        PPS_TRY(check_step(p, g, i, n_steps));
        PPS_TRY(check_kind(p, g, i, kinds));
    }
    PPS_TRY(check_blocks(p, mine, mine->blocks, mine->n_blocks, mine->act_bytes));
    return check_blocks(p, mine, mine->host_blocks, mine->n_host_blocks, mine->host_bytes);
}

/* ---- the proof ---------------------------------------------------------------------------------
 */

/* Plan by plan, each in scratch memory of its own: at no time are two plans' held. */
static pps_status prove_plan(const prover *p, const plan *mine)
{
    prove_clock clock;
    arena mem;
    arena_init(&mem, NULL, NULL);
    pps_status status = prove_clock_init(&clock, p, mine, &mem);
    if (status == PPS_OK)
        status = prove_memory(p, mine, &clock, &mem);
    if (status == PPS_OK)
        status = prove_buckets(p, mine, &clock, &mem);
    arena_done(&mem);
    return status;
}

static pps_status prove(prover *p)
{
    const plan_set *set = p->set;
    uint64_t n_steps = 0;
    uint8_t *kinds; /* [n_works] */
    for (uint32_t g = 0; g < set->n_groups; g++)
        n_steps += set->plans[g].n_steps;
    if (n_steps > UINT32_MAX)
        return PPS_ERR_LIMIT;
    if (set->n_mb == 0 || set->n_slices == 0 || set->n_mb % set->n_slices != 0) {
        pps_span none = {0};
        return pps_error(p->st, none, 520, "%u units do not divide into %u slices", set->n_mb,
                         set->n_slices);
    }
    PPS_TRY(check_teams(p));
    PPS_TRY(check_works(p));
    PASS_ALLOC(kinds, p->mem, set->n_works);
    for (uint32_t g = 0; g < set->n_groups; g++)
        PPS_TRY(check_plan(p, g, (uint32_t)n_steps, kinds));
    PPS_TRY(prove_match(p));
    PPS_TRY(prove_hang(p));
    arena_done(p->mem);
    PPS_TRY(prove_once(p));
    PPS_TRY(prove_teams(p));
    PPS_TRY(prove_slices(p));
    PPS_TRY(prove_rounds(p));
    arena_done(p->mem);
    PPS_TRY(prove_roles_init(p));
    PPS_TRY(prove_buckets_init(p));
    for (uint32_t g = 0; g < set->n_groups; g++)
        PPS_TRY(prove_plan(p, &set->plans[g]));
    return PPS_OK;
}

pps_status pps_prove_with(pps_state *st, const plan_set *set, const prove_options *options)
{
    arena mem;
    arena_init(&mem, NULL, NULL);
    prover p = {
        .st = st, .set = set, .buffered = options != NULL && options->buffered, .mem = &mem};
    pps_status status = prove(&p);
    arena_done(&mem);
    return status;
}

pps_status pps_prove(pps_state *st, const plan_set *set)
{
    return pps_prove_with(st, set, NULL);
}

pps_status pass_prove(pass_cx *cx)
{
    return pps_prove(cx->st, cx->set);
}
