/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_buckets.c: one plan's parameters and their gradients, bucket by bucket and, under zero 2
 * and 3, window of microbatches by window:
 *
 *   stored whole     adds ------------------------> reduced over ranks -.
 *   windows          cleared -> adds -> reduced, added to the slice ----+-> updated -> gathered
 *   uses of its parameters, and gathers of them for windows ------------'
 *
 * Each arrow means: over by the clocks when the next begins. Every step there is has its place in
 * this picture, once per step or window, by the bucket's level of zero. (That every microbatch's
 * contribution is made, and once, is prove_once.c's; that a window's buffer is its microbatch's and
 * cleared before, and gathered parameters are there, prove_memory.c's.)
 */
#include "passes/prove.h"

#include <string.h>

typedef struct bucket {
    uint32_t *adds, *uses; /* [n_lanes] latest step that adds to its stored gradients, that reads
                            * its stored parameters, + 1 */
    uint32_t summed, updated, gathered; /* once per step: the step, IR_NONE */
    uint32_t first_window, n_windows;   /* of gradients */
} bucket;

typedef struct window { /* steps, IR_NONE */
    uint32_t cleared, added, summed;
} window;

typedef struct books {
    const prover *p;
    const plan *plan;
    const prove_clock *clock;
    arena *mem;
    bucket *buckets;
    window *windows;
    uint8_t *marks; /* [4 * n_buckets] */
} books;

static pps_status wrong(const books *b, uint32_t step, int code, const char *what, uint32_t other,
                        const char *other_text)
{
    return prove_two(b->p, b->plan->group, step, code, what, other, other_text);
}

static pps_status all_before(const books *b, const uint32_t *latest, uint32_t step,
                             const char *what)
{
    uint32_t lane = prove_all_before(b->clock, latest, step);
    if (lane == IR_NONE)
        return PPS_OK;
    return wrong(b, step, 545, what, latest[lane] - 1,
                 "by this step, which nothing makes end before");
}

/* This happens to its bucket, or window, here and nowhere else. */
static pps_status once(const books *b, uint32_t *entry, uint32_t step)
{
    if (*entry != IR_NONE)
        return wrong(b, step, 546, "this happens to its bucket twice", *entry, "first here");
    *entry = step;
    return PPS_OK;
}

/* ---- what passes use ---------------------------------------------------------------------------
 */

static void add_use(const books *b, prove_uses *u, uint32_t id, prove_use how)
{
    uint32_t use = 4 * id + how;
    if (!b->marks[use])
        u->list[u->n++] = use;
    b->marks[use] = 1;
}

static pps_status use_operand(const books *b, uint32_t step, const plan_operand *o, prove_uses *u)
{
    bool grad = o->space == PLAN_GRAD;
    uint32_t id = b->p->param_bucket[o->index];
    if (id == IR_NONE)
        return wrong(b, step, 520, "a step uses a parameter that its group has not", IR_NONE, NULL);
    if (plan_sliced(&b->plan->buckets[id], grad ? PLAN_AREA_GRADS : PLAN_AREA_PARAMS))
        return wrong(b, step, 520, "a step uses what is stored in slices as if it were whole",
                     IR_NONE, NULL);
    add_use(b, u, id, grad ? PROVE_USE_GRADS : PROVE_USE_PARAMS);
    return PPS_OK;
}

/* A pass's bindings that are of buckets: windows of gradients, gathered parameters. */
static pps_status use_buffer(const books *b, uint32_t step, uint32_t k, prove_uses *u)
{
    const plan_set *set = b->p->set;
    const plan_work *w = plan_work_of(set, &b->plan->steps[step]);
    uint32_t buffer = set->work_buffers[w->buffers + k];
    uint8_t what = set->buffers[buffer].what;
    const uint8_t *roles;
    if (what != PLAN_BLOCK_GRADS && what != PLAN_BLOCK_PARAMS)
        return PPS_OK;
    PPS_TRY(prove_program_roles(b->p, w->program, &roles));
    if (what == PLAN_BLOCK_PARAMS && (roles[k] & PROVE_WRITES) != 0)
        return wrong(b, step, 520, "a step changes gathered parameters", IR_NONE, NULL);
    if (set->buffers[buffer].bucket >= b->plan->n_buckets)
        return wrong(b, step, 520, "a step uses a bucket that is not there", IR_NONE, NULL);
    add_use(b, u, set->buffers[buffer].bucket,
            what == PLAN_BLOCK_GRADS ? PROVE_USE_WINDOW : PROVE_USE_GATHERED);
    return PPS_OK;
}

/* Found once for all microbatches. */
static pps_status find_uses(const books *b, uint32_t step, const prove_uses **ret)
{
    const plan_set *set = b->p->set;
    const plan_step *s = &b->plan->steps[step];
    const plan_program *program = &set->programs[plan_work_of(set, s)->program];
    prove_uses *u = &b->p->uses[s->work];
    uint32_t n_most = s->n_bindings;
    *ret = u;
    if (u->plan == b->plan->group + 1)
        return PPS_OK;
    *u = (prove_uses){.plan = b->plan->group + 1};
    for (uint32_t k = 0; k < program->n_kernels; k++)
        n_most += set->kernels[program->kernels + k].n_operands;
    PASS_ALLOC(u->list, b->mem, n_most);
    for (uint32_t k = 0; k < program->n_kernels; k++) {
        const plan_kernel *kernel = &set->kernels[program->kernels + k];
        for (uint32_t i = 0; i < kernel->n_operands; i++) {
            const plan_operand *o = &set->operands[kernel->operands + i];
            if (o->space == PLAN_PARAM || o->space == PLAN_GRAD)
                PPS_TRY(use_operand(b, step, o, u));
        }
    }
    for (uint32_t k = 0; k < s->n_bindings; k++)
        PPS_TRY(use_buffer(b, step, k, u));
    for (uint32_t i = 0; i < u->n; i++)
        b->marks[u->list[i]] = 0;
    return PPS_OK;
}

static pps_status add_to_window(const books *b, uint32_t step, uint32_t id)
{
    const bucket *k = &b->buckets[id];
    window *w = &b->windows[k->first_window + b->plan->steps[step].mb / b->plan->buckets[id].every];
    if (w->cleared == IR_NONE)
        return wrong(b, step, 545, "a step adds to gradients that nothing has cleared", IR_NONE,
                     NULL);
    if (w->summed != IR_NONE)
        return wrong(b, step, 545, "a step adds to gradients after they were reduced", w->summed,
                     "reduced here");
    w->added = step;
    return PPS_OK;
}

static pps_status run_pass(const books *b, uint32_t step)
{
    uint32_t lane = prove_lane(b->clock, step);
    const prove_uses *u;
    PPS_TRY(find_uses(b, step, &u));
    for (uint32_t i = 0; i < u->n; i++) {
        uint32_t id = u->list[i] / 4;
        bucket *k = &b->buckets[id];
        if (k->updated != IR_NONE)
            return wrong(b, step, 545, "a step uses a bucket after its update", k->updated,
                         "updated here");
        switch ((prove_use)(u->list[i] % 4)) {
        case PROVE_USE_PARAMS:
            k->uses[lane] = step + 1;
            break;
        case PROVE_USE_GRADS:
            if (k->summed != IR_NONE)
                return wrong(b, step, 545, "a step adds to gradients after they were reduced",
                             k->summed, "reduced here");
            PPS_TRY(all_before(b, k->adds, step, "two steps may add to a gradient at once"));
            k->adds[lane] = step + 1;
            break;
        case PROVE_USE_WINDOW:
            PPS_TRY(add_to_window(b, step, id));
            break;
        case PROVE_USE_GATHERED:
            break;
        }
    }
    return PPS_OK;
}

/* ---- the steps of buckets ----------------------------------------------------------------------
 */

/* Does a bucket of this level have this step? In place, or through a window's buffer. */
static bool belongs(const plan_bucket *b, plan_step_kind kind, bool in_window)
{
    switch (kind) {
    case PLAN_UPDATE:
        return true;
    case PLAN_ALL_REDUCE:
        return plan_reduced(b) && b->zero == 0;
    case PLAN_REDUCE_SCATTER:
        return in_window ? b->zero >= 2 : b->zero == 1;
    case PLAN_CLEAR:
        return in_window && b->zero >= 2;
    case PLAN_ALL_GATHER:
        return in_window ? b->zero == 3 : b->zero == 1 || b->zero == 2;
    case PLAN_COMPUTE:
    case PLAN_SEND:
    case PLAN_RECV:
    case PLAN_COUNTS:
    case PLAN_ALL_TO_ALL:
    case PLAN_SHIFT:
    case PLAN_SUM:
    case PLAN_SEQ_SCATTER:
    case PLAN_SEQ_GATHER:
    case PLAN_SEQ_TAKE:
    case PLAN_STATS:
    case PLAN_OFFLOAD:
    case PLAN_FETCH:
    case PLAN_STEP_KIND_COUNT:
        break;
    }
    return false;
}

static pps_status reduce(const books *b, uint32_t step, uint32_t id, window *w)
{
    bucket *k = &b->buckets[id];
    if (k->updated != IR_NONE)
        return wrong(b, step, 545, "a bucket is reduced after its update", k->updated,
                     "updated here");
    if (w != NULL && (w->cleared == IR_NONE || w->added == IR_NONE))
        return wrong(b, step, 545, "a window of gradients is reduced before anything was added",
                     IR_NONE, NULL);
    PPS_TRY(once(b, w != NULL ? &w->summed : &k->summed, step));
    PPS_TRY(all_before(b, k->adds, step, "a gradient may not be complete yet"));
    k->adds[prove_lane(b->clock, step)] = step + 1;
    return PPS_OK;
}

static pps_status update(const books *b, uint32_t step, uint32_t id)
{
    const plan_bucket *of = &b->plan->buckets[id];
    bucket *k = &b->buckets[id];
    PPS_TRY(once(b, &k->updated, step));
    if (plan_reduced(of) && of->zero < 2 && k->summed == IR_NONE)
        return wrong(b, step, 545, "gradients are not summed over ranks before this", IR_NONE,
                     NULL);
    for (uint32_t w = 0; w < k->n_windows; w++)
        if (b->windows[k->first_window + w].summed == IR_NONE)
            return wrong(b, step, 545, "a window of gradients is not reduced before this", IR_NONE,
                         NULL);
    PPS_TRY(all_before(b, k->adds, step, "a gradient may not be complete yet"));
    return all_before(b, k->uses, step, "a parameter may still be in use");
}

static pps_status gather(const books *b, uint32_t step, uint32_t id, bool in_window)
{
    bucket *k = &b->buckets[id];
    if (in_window) {
        if (k->updated != IR_NONE)
            return wrong(b, step, 545, "parameters are gathered for a window after their update",
                         k->updated, "updated here");
        k->uses[prove_lane(b->clock, step)] = step + 1;
        return PPS_OK;
    }
    PPS_TRY(once(b, &k->gathered, step));
    if (k->updated == IR_NONE || !prove_before(b->clock, k->updated, step))
        return wrong(b, step, 545, "parameters may be gathered before their update", k->updated,
                     "the update");
    return PPS_OK;
}

/* A step in a window has its bucket's buffer, of windows as long as the bucket's. */
static pps_status check_buffer(const books *b, uint32_t step)
{
    const plan_set *set = b->p->set;
    const plan_step *s = &b->plan->steps[step];
    const plan_work *work = plan_work_of(set, s);
    const plan_buffer *buffer = &set->buffers[set->work_buffers[work->buffers]];
    bool grads = s->kind != PLAN_ALL_GATHER;
    if (buffer->bucket != work->chunk ||
        buffer->what != (grads ? PLAN_BLOCK_GRADS : PLAN_BLOCK_PARAMS) ||
        buffer->per != (grads ? b->plan->buckets[work->chunk].every : 0))
        return wrong(b, step, 546, "a bucket's step has another one's buffer", IR_NONE, NULL);
    return PPS_OK;
}

static pps_status run_step(const books *b, uint32_t step)
{
    const plan_step *s = &b->plan->steps[step];
    const plan_work *work = plan_work_of(b->p->set, s);
    const plan_bucket *of = &b->plan->buckets[work->chunk];
    bucket *k = &b->buckets[work->chunk];
    bool in_window = s->n_bindings > 0;
    uint32_t number = s->mb == IR_NONE ? 0 : s->mb;
    window *w = NULL;
    if (!belongs(of, (plan_step_kind)s->kind, in_window))
        return wrong(b, step, 546, "the bucket's level has no such step", IR_NONE, NULL);
    if (plan_is(s->kind, PLAN_COLLECTIVE) && work->bytes != of->bytes)
        return wrong(b, step, 548, "this carries more or less than its bucket", IR_NONE, NULL);
    if (plan_is(s->kind, PLAN_COLLECTIVE) && work->teams != of->teams)
        return wrong(b, step, 546, "a bucket's step is of other ranks than the bucket", IR_NONE,
                     NULL);
    if (in_window)
        PPS_TRY(check_buffer(b, step));
    if (in_window && s->kind != PLAN_ALL_GATHER) {
        if (number >= k->n_windows)
            return wrong(b, step, 546, "the bucket has no such window", IR_NONE, NULL);
        w = &b->windows[k->first_window + number];
    }
    switch ((plan_step_kind)s->kind) {
    case PLAN_CLEAR:
        return once(b, &w->cleared, step);
    case PLAN_ALL_REDUCE:
    case PLAN_REDUCE_SCATTER:
        return reduce(b, step, work->chunk, w);
    case PLAN_ALL_GATHER:
        return gather(b, step, work->chunk, in_window);
    case PLAN_UPDATE:
        return update(b, step, work->chunk);
    case PLAN_COMPUTE:
    case PLAN_SEND:
    case PLAN_RECV:
    case PLAN_COUNTS:
    case PLAN_ALL_TO_ALL:
    case PLAN_SHIFT:
    case PLAN_SUM:
    case PLAN_SEQ_SCATTER:
    case PLAN_SEQ_GATHER:
    case PLAN_SEQ_TAKE:
    case PLAN_STATS:
    case PLAN_OFFLOAD:
    case PLAN_FETCH:
    case PLAN_STEP_KIND_COUNT:
        break;
    }
    return PPS_OK;
}

/* ---- a plan ------------------------------------------------------------------------------------
 */

/* Whose parameters are whose. */
static pps_status index_params(const books *b)
{
    const plan *mine = b->plan;
    for (uint32_t i = 0; i < mine->n_buckets; i++)
        for (uint32_t j = 0; j < mine->buckets[i].n; j++) {
            uint32_t *of = &b->p->param_bucket[mine->params[mine->buckets[i].first + j].param];
            pps_span none = {0};
            if (*of != IR_NONE)
                return pps_error(b->p->st, none, 546, "group %u has a parameter in two buckets",
                                 mine->group);
            *of = i;
        }
    return PPS_OK;
}

static pps_status open_books(books *b)
{
    const plan *mine = b->plan;
    uint32_t n_windows = 0;
    PASS_ALLOC(b->buckets, b->mem, mine->n_buckets);
    PASS_ALLOC(b->marks, b->mem, 4 * (size_t)mine->n_buckets);
    for (uint32_t i = 0; i < mine->n_buckets; i++) {
        const plan_bucket *of = &mine->buckets[i];
        bucket *k = &b->buckets[i];
        k->summed = k->updated = k->gathered = IR_NONE;
        k->first_window = n_windows;
        if (of->zero >= 2)
            k->n_windows = (b->p->set->n_mb - 1) / of->every + 1;
        n_windows += k->n_windows;
        PASS_ALLOC(k->adds, b->mem, b->clock->n_lanes);
        PASS_ALLOC(k->uses, b->mem, b->clock->n_lanes);
    }
    PASS_ALLOC(b->windows, b->mem, n_windows);
    memset(b->windows, 0xff, n_windows * sizeof *b->windows);
    return index_params(b);
}

static pps_status close_books(const books *b)
{
    for (uint32_t i = 0; i < b->plan->n_buckets; i++) {
        const bucket *k = &b->buckets[i];
        uint8_t zero = b->plan->buckets[i].zero;
        pps_span none = {0};
        if (k->updated == IR_NONE)
            return pps_error(b->p->st, none, 546, "bucket %u of group %u is never updated", i,
                             b->plan->group);
        if ((zero == 1 || zero == 2) && k->gathered == IR_NONE)
            return wrong(b, k->updated, 546, "what this makes is not gathered", IR_NONE, NULL);
    }
    for (uint32_t i = 0; i < b->plan->n_params; i++)
        b->p->param_bucket[b->plan->params[i].param] = IR_NONE;
    return PPS_OK;
}

pps_status prove_buckets_init(prover *p)
{
    const plan_set *set = p->set;
    PASS_ALLOC(p->uses, p->mem, set->n_works);
    PASS_ALLOC(p->param_bucket, p->mem, set->n_params);
    memset(p->param_bucket, 0xff, set->n_params * sizeof *p->param_bucket);
    return PPS_OK;
}

pps_status prove_buckets(const prover *p, const plan *mine, const prove_clock *clock, arena *mem)
{
    books b = {.p = p, .plan = mine, .clock = clock, .mem = mem};
    PPS_TRY(open_books(&b));
    for (uint32_t i = 0; i < mine->n_steps; i++) {
        uint8_t kind = mine->steps[i].kind;
        if (kind == PLAN_COMPUTE)
            PPS_TRY(run_pass(&b, i));
        else if (plan_is(kind, PLAN_BUCKET))
            PPS_TRY(run_step(&b, i));
    }
    return close_books(&b);
}
