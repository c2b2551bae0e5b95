/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_buckets.c: in every plan, each bucket's gradients are cleared, summed over microbatches and
 * ranks, and applied once each, and its parameters are read when they are whole:
 *
 *   - the steps that the bucket's level of `zero` has are there, each once, each window's once;
 *   - a pass that adds to gradients of a window adds to that of its microbatch, behind its CLEAR;
 *   - a reduction starts when the last pass that adds to what it reduces is known to have ended;
 * the update when all reductions, and all gathers of what it overwrites, are;
 *   - a pass reads gathered parameters when their gather is known to have ended.
 *
 * What a step knows follows from the order of its stream and from waits: `known` holds, for one
 * stream, its latest step that is over when a step starts (when it is on that stream: when it
 * ends), plus 1.
 */
#include "passes/pass.h"

#include <string.h>

typedef struct bucket_steps {
    uint32_t update, reduce, gather;  /* once per step: index + 1, 0: none */
    uint32_t first_window, n_windows; /* of gradients, in the lists of windows */
    uint32_t last_add;                /* latest pass that adds to gradients stored whole, + 1 */
} bucket_steps;

typedef struct check {
    pps_state *st;
    const plan_set *set;
    const plan *p;
    arena mem; /* of this plan */
    bucket_steps *buckets;
    uint32_t *clears, *reduces, *last_adds; /* [windows of gradients] step + 1 */
    uint32_t **known;                       /* [n_streams], NULL where not asked for */
    const plan_block **live;                /* blocks of buckets in use at the step at hand */
    uint32_t n_live, next_block;
    ir_range *program_buckets; /* [n_programs] in list: buckets whose stored gradients it adds to */
    uint32_t *list;
    uint32_t *role_begin; /* [n_programs] in roles */
    uint8_t *roles;       /* by binding: role */
} check;

/* What kernels do with a binding. An opaque kernel does not tell. */
typedef enum role { ROLE_OTHER, ROLE_READS_PARAMS, ROLE_ADDS_GRADS, ROLE_UNKNOWN } role;

static pps_status wrong(const check *c, uint32_t step, const char *what)
{
    char label[128];
    const plan_step *s = &c->p->steps[step];
    plan_step_label(c->set, c->p, s, label, sizeof label);
    return pps_error(c->st, plan_place_of(c->set, s), 520, "%s: %s", what, label);
}

static uint32_t window_of(const plan_step *s)
{
    return s->mb == IR_NONE ? 0 : s->mb;
}

/* ---- what steps know
 * ----------------------------------------------------------------------------- */

static pps_status learn(check *c, uint32_t stream)
{
    const plan *p = c->p;
    uint32_t *last, *known;
    if (c->known[stream] != NULL)
        return PPS_OK;
    PASS_ALLOC(known, &c->mem, p->n_steps);
    PASS_ALLOC(last, &c->mem, c->set->n_streams);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        known[i] = last[s->stream];
        for (uint32_t k = 0; k < s->n_waits; k++) {
            uint32_t theirs = known[p->waits[s->waits + k]];
            known[i] = theirs > known[i] ? theirs : known[i];
        }
        if (s->stream == stream)
            known[i] = i + 1;
        last[s->stream] = known[i];
    }
    c->known[stream] = known;
    return PPS_OK;
}

/* Is step `before` over when step `i` starts? */
static bool knows(const check *c, uint32_t i, uint32_t before)
{
    uint32_t stream = c->p->steps[before].stream;
    return before < i && c->known[stream][i] > before;
}

/* ---- the steps of buckets
 * ------------------------------------------------------------------------ */

static pps_status once(const check *c, uint32_t *entry, uint32_t step)
{
    if (*entry != 0)
        return wrong(c, step, "this happens to its bucket twice");
    *entry = step + 1;
    return PPS_OK;
}

static pps_status take_step(check *c, uint32_t i)
{
    const plan_step *s = &c->p->steps[i];
    uint32_t bucket = plan_work_of(c->set, s)->chunk, w = window_of(s);
    if (bucket >= c->p->n_buckets)
        return wrong(c, i, "there is no such bucket");
    const plan_bucket *b = &c->p->buckets[bucket];
    bucket_steps *steps = &c->buckets[bucket];
    bool windowed = s->n_bindings > 0, in_range = w < steps->n_windows;
    if (plan_is(s->kind, PLAN_COLLECTIVE) && plan_work_of(c->set, s)->bytes != b->bytes)
        return wrong(c, i, "this carries more or less than its bucket");
    switch ((plan_step_kind)s->kind) {
    case PLAN_UPDATE:
        return once(c, &steps->update, i);
    case PLAN_ALL_REDUCE:
        if (plan_reduced(b) && b->zero == 0)
            return once(c, &steps->reduce, i);
        break;
    case PLAN_REDUCE_SCATTER:
        if (b->zero == 1 && !windowed)
            return once(c, &steps->reduce, i);
        if (b->zero >= 2 && windowed && in_range)
            return once(c, &c->reduces[steps->first_window + w], i);
        break;
    case PLAN_CLEAR:
        if (b->zero >= 2 && windowed && in_range)
            return once(c, &c->clears[steps->first_window + w], i);
        break;
    case PLAN_ALL_GATHER:
        if (b->zero == 3 && windowed)
            return PPS_OK;
        if ((b->zero == 1 || b->zero == 2) && !windowed)
            return once(c, &steps->gather, i);
        break;
    case PLAN_COMPUTE:
    case PLAN_SEND:
    case PLAN_RECV:
    case PLAN_COUNTS:
    case PLAN_ALL_TO_ALL:
    case PLAN_OFFLOAD:
    case PLAN_FETCH:
    case PLAN_SHIFT:
    case PLAN_SUM:
    case PLAN_SEQ_SCATTER:
    case PLAN_SEQ_GATHER:
    case PLAN_SEQ_TAKE:
    case PLAN_STATS:
    case PLAN_STEP_KIND_COUNT:
        break;
    }
    return wrong(c, i, "the bucket's level has no such step");
}

static pps_status collect_steps(check *c)
{
    const plan *p = c->p;
    uint32_t n_windows = 0;
    PASS_ALLOC(c->buckets, &c->mem, p->n_buckets);
    PASS_ALLOC(c->known, &c->mem, c->set->n_streams);
    for (uint32_t b = 0; b < p->n_buckets; b++) {
        const plan_bucket *k = &p->buckets[b];
        c->buckets[b].first_window = n_windows;
        if (k->zero >= 2 && k->every > 0)
            c->buckets[b].n_windows = (c->set->n_mb + k->every - 1) / k->every;
        n_windows += c->buckets[b].n_windows;
    }
    PASS_ALLOC(c->clears, &c->mem, n_windows);
    PASS_ALLOC(c->reduces, &c->mem, n_windows);
    PASS_ALLOC(c->last_adds, &c->mem, n_windows);
    PPS_TRY(learn(c, 0));
    for (uint32_t i = 0; i < p->n_steps; i++) {
        PPS_TRY(learn(c, p->steps[i].stream)); /* a plan may compute on any stream */
        if (plan_is(p->steps[i].kind, PLAN_BUCKET))
            PPS_TRY(take_step(c, i));
    }
    return PPS_OK;
}

/* ---- what passes add to and read
 * ----------------------------------------------------------------- */

static void find_roles(check *c, uint32_t program, const plan_kernel *k)
{
    ir_operand list[IR_MAX_OPERANDS];
    ir_op op = {.kind = (uint8_t)k->op};
    uint32_t n = 0;
    if (k->op != PLAN_KERNEL_SUM && k->op != IR_OPAQUE)
        n = ir_op_operands(&op, (ir_phase)k->phase, list);
    for (uint32_t j = 0; j < k->n_operands; j++) {
        const plan_operand *o = &c->set->operands[k->operands + j];
        uint8_t *to = &c->roles[c->role_begin[program] + o->bind];
        if (o->space != PLAN_BIND)
            continue;
        if (k->op == IR_OPAQUE && *to == ROLE_OTHER)
            *to = ROLE_UNKNOWN;
        else if (j < n && list[j].letter == 'p')
            *to = ROLE_READS_PARAMS;
        else if (j < n && list[j].letter == 'g')
            *to = ROLE_ADDS_GRADS;
    }
}

/* From operands: buckets of stored gradients that each program of this plan adds to, and what it
 * does with its bindings. */
static pps_status index_programs(check *c)
{
    const plan_set *set = c->set;
    uint32_t *bucket_of, n = 0; /* [n_params] + 1 */
    bool *runs;                 /* [n_programs] here */
    PASS_ALLOC(runs, &c->mem, set->n_programs);
    PASS_ALLOC(bucket_of, &c->mem, set->n_params);
    for (uint32_t i = 0; i < c->p->n_steps; i++)
        if (c->p->steps[i].kind == PLAN_COMPUTE)
            runs[plan_work_of(set, &c->p->steps[i])->program] = true;
    PASS_ALLOC(c->program_buckets, &c->mem, set->n_programs);
    PASS_ALLOC(c->role_begin, &c->mem, set->n_programs);
    for (uint32_t i = 0; i < set->n_programs; i++) {
        c->role_begin[i] = n;
        n += runs[i] ? set->programs[i].n_bindings : 0;
    }
    PASS_ALLOC(c->roles, &c->mem, n);
    for (uint32_t i = 0; i < set->n_programs; i++)
        for (uint32_t k = 0; runs[i] && k < set->programs[i].n_kernels; k++)
            find_roles(c, i, &set->kernels[set->programs[i].kernels + k]);
    for (uint32_t b = 0; b < c->p->n_buckets; b++)
        for (uint32_t i = 0; i < c->p->buckets[b].n; i++)
            bucket_of[c->p->params[c->p->buckets[b].first + i].param] = b + 1;
    for (int fill = 0; fill < 2; fill++) {
        if (fill)
            PASS_ALLOC(c->list, &c->mem, n);
        n = 0;
        for (uint32_t i = 0; i < set->n_programs; i++) {
            const plan_program *program = &set->programs[i];
            uint32_t begin = n, latest = 0;
            uint32_t end = program->kernels + (runs[i] ? program->n_kernels : 0);
            for (uint32_t k = program->kernels; k < end; k++)
                for (uint32_t j = 0; j < set->kernels[k].n_operands; j++) {
                    const plan_operand *o = &set->operands[set->kernels[k].operands + j];
                    if (o->space != PLAN_GRAD || bucket_of[o->index] == 0 ||
                        bucket_of[o->index] == latest)
                        continue;
                    latest = bucket_of[o->index];
                    if (fill)
                        c->list[n] = latest - 1;
                    n++;
                }
            c->program_buckets[i] = (ir_range){begin, n - begin};
        }
    }
    return PPS_OK;
}

/* Blocks are in order of their first steps: let in those that begin at `step`, drop those that
 * ended. */
static void keep_live(check *c, uint32_t step)
{
    uint32_t keep = 0;
    for (uint32_t i = 0; i < c->n_live; i++)
        if (c->live[i]->last >= step)
            c->live[keep++] = c->live[i];
    c->n_live = keep;
    for (; c->next_block < c->p->n_blocks && c->p->blocks[c->next_block].first <= step;
         c->next_block++) {
        const plan_block *b = &c->p->blocks[c->next_block];
        if (b->what == PLAN_BLOCK_PARAMS || b->what == PLAN_BLOCK_GRADS)
            c->live[c->n_live++] = b;
    }
}

static const plan_block *live_at(const check *c, uint32_t offset)
{
    for (uint32_t i = 0; i < c->n_live; i++)
        if (c->live[i]->offset == offset)
            return c->live[i];
    return NULL;
}

/* A compute or a windowed step touches `block`, which `first` began. */
static pps_status touch(check *c, uint32_t i, const plan_block *block)
{
    const plan_step *s = &c->p->steps[i], *first = &c->p->steps[block->first];
    bool grads = block->what == PLAN_BLOCK_GRADS;
    if (first->kind != (grads ? PLAN_CLEAR : PLAN_ALL_GATHER))
        return wrong(c, i, "nothing made what this reads or adds to");
    uint32_t bucket = plan_work_of(c->set, first)->chunk, w = window_of(first);
    const plan_bucket *b = &c->p->buckets[bucket];
    if (i != block->first && !knows(c, i, block->first))
        return wrong(c, i, "this may start before its bucket is ready");
    if ((uint64_t)block->units * PLAN_ALIGN < b->bytes)
        return wrong(c, i, "a bucket's buffer is too small");
    if (s->kind != PLAN_COMPUTE)
        return plan_work_of(c->set, s)->chunk == bucket && window_of(s) == w
                   ? PPS_OK
                   : wrong(c, i, "this works on another window's buffer");
    if (!grads)
        return PPS_OK;
    if (s->mb / b->every != w)
        return wrong(c, i, "this adds to gradients of another window");
    c->last_adds[c->buckets[bucket].first_window + w] = i + 1;
    return PPS_OK;
}

static pps_status check_binding(check *c, uint32_t i, uint32_t k)
{
    const plan_step *s = &c->p->steps[i];
    role does = s->kind == PLAN_ALL_GATHER ? ROLE_READS_PARAMS : ROLE_ADDS_GRADS;
    if (s->kind == PLAN_COMPUTE)
        does = (role)c->roles[c->role_begin[plan_work_of(c->set, s)->program] + k];
    if (does == ROLE_OTHER)
        return PPS_OK;
    const plan_block *block = live_at(c, c->p->bindings[s->bindings + k]);
    if (block == NULL)
        return does == ROLE_UNKNOWN ? PPS_OK : wrong(c, i, "its bucket's buffer is not there");
    role lies_there = block->what == PLAN_BLOCK_PARAMS ? ROLE_READS_PARAMS : ROLE_ADDS_GRADS;
    if (does != ROLE_UNKNOWN && does != lies_there)
        return wrong(c, i, "this takes gradients for parameters, or parameters for gradients");
    return touch(c, i, block);
}

static pps_status follow_buffers(check *c)
{
    const plan *p = c->p;
    uint32_t n = 0;
    for (uint32_t b = 0; b < p->n_blocks; b++)
        n += p->blocks[b].what == PLAN_BLOCK_PARAMS || p->blocks[b].what == PLAN_BLOCK_GRADS;
    PASS_ALLOC(c->live, &c->mem, n);
    PPS_TRY(index_programs(c));
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        uint32_t program = plan_work_of(c->set, s)->program;
        keep_live(c, i);
        if (s->kind == PLAN_COMPUTE)
            for (uint32_t k = 0; k < c->program_buckets[program].n; k++)
                c->buckets[c->list[c->program_buckets[program].begin + k]].last_add = i + 1;
        else if (!plan_is(s->kind, PLAN_BUCKET))
            continue;
        for (uint32_t k = 0; k < s->n_bindings; k++)
            PPS_TRY(check_binding(c, i, k));
    }
    return PPS_OK;
}

/* ---- one bucket
 * ---------------------------------------------------------------------------------- */

static pps_status check_bucket(const check *c, uint32_t bucket)
{
    const plan_bucket *b = &c->p->buckets[bucket];
    const bucket_steps *steps = &c->buckets[bucket];
    pps_span none = {0};
    if (steps->update == 0)
        return pps_error(c->st, none, 520, "bucket %u is never updated", bucket);
    uint32_t update = steps->update - 1;
    if (b->zero < 2 && plan_reduced(b)) {
        if (steps->reduce == 0)
            return wrong(c, update, "gradients are not summed over ranks before this");
        if (steps->last_add != 0 && !knows(c, steps->reduce - 1, steps->last_add - 1))
            return wrong(c, steps->reduce - 1, "this may start before the last gradient is added");
        if (!knows(c, update, steps->reduce - 1))
            return wrong(c, update, "this may start before its gradients are summed");
    }
    if (!plan_reduced(b) && steps->last_add != 0 && !knows(c, update, steps->last_add - 1))
        return wrong(c, update, "this may start before the last gradient is added");
    if ((b->zero == 1 || b->zero == 2) && steps->gather == 0)
        return wrong(c, update, "what this makes is not gathered");
    if (steps->gather != 0 && !knows(c, steps->gather - 1, update))
        return wrong(c, steps->gather - 1, "this may start before the update");
    for (uint32_t w = steps->first_window; w < steps->first_window + steps->n_windows; w++) {
        if (c->clears[w] == 0 || c->reduces[w] == 0 || c->last_adds[w] == 0)
            return wrong(c, update, "a window of gradients is missing");
        if (!knows(c, c->reduces[w] - 1, c->last_adds[w] - 1))
            return wrong(c, c->reduces[w] - 1, "this may start before the last gradient is added");
        if (w > steps->first_window && !knows(c, c->reduces[w] - 1, c->reduces[w - 1] - 1))
            return wrong(c, c->reduces[w] - 1, "windows are not reduced in order");
        if (!knows(c, update, c->reduces[w] - 1))
            return wrong(c, update, "this may start before its gradients are summed");
    }
    return PPS_OK;
}

/* The update overwrites what gathers read. */
static pps_status check_gathers(const check *c)
{
    for (uint32_t i = 0; i < c->p->n_steps; i++) {
        const plan_step *s = &c->p->steps[i];
        if (s->kind != PLAN_ALL_GATHER || s->n_bindings == 0)
            continue;
        uint32_t update = c->buckets[plan_work_of(c->set, s)->chunk].update;
        if (!knows(c, update - 1, i))
            return wrong(c, update - 1, "this may start before a gather has read the parameters");
    }
    return PPS_OK;
}

static pps_status check_plan(check *c)
{
    PPS_TRY(collect_steps(c));
    PPS_TRY(follow_buffers(c));
    for (uint32_t b = 0; b < c->p->n_buckets; b++)
        PPS_TRY(check_bucket(c, b));
    return check_gathers(c);
}

pps_status prove_buckets(pps_state *st, const plan_set *set)
{
    for (uint32_t g = 0; g < set->n_groups; g++) {
        check c = {.st = st, .set = set, .p = &set->plans[g]};
        arena_init(&c.mem, NULL, NULL);
        pps_status status = check_plan(&c);
        arena_done(&c.mem);
        PPS_TRY(status);
    }
    return PPS_OK;
}
