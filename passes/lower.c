/* SPDX-License-Identifier: Apache-2.0
 *
 * lower.c: from the issue orders and the chunks' programs to one plan per device group: parameters,
 * optimizer state and data get their offsets, every node becomes a step that touches buffers and
 * waits for others, and memory.c places the buffers. Groups are lowered one after the other, each
 * in scratch memory of its own.
 *
 * Waits: a step needs to wait only for the latest of its predecessors on each other stream, and not
 * even for that if it, or what it already waits for, is known to come later. `clock` holds, per
 * step and stream, the last step known complete when the step starts.
 *
 * A rank that only ever sends on a stream would never learn that what it sent has arrived, and
 * could never use those buffers again. So the first compute of a row group also waits for the sends
 * that the global order puts before the group before: they have mostly ended, and what follows the
 * global order cannot wait in a circle. The same goes for copies to host memory.
 */
#include "passes/lower.h"

#include <stdlib.h>
#include <string.h>

typedef struct lower {
    pass_cx *cx;
    arena *mem; /* this group's */
    lower_buffers buffers;
    lower_named named;
    uint32_t *work_of, *run_place, *origin_place, n_origins, *n_bindings;
    plan *plan;
    uint32_t *block_of; /* [lives] the plan's block; untouched + family: none so far */
    plan_block *blocks; /* by first touch */
    memory_uses *uses;  /* of each */
    uint32_t n_blocks, n_host;
    uint32_t *place_of; /* [n_blocks] number in its memory, in_host +; NULL: all on the device */
    uint32_t *lane, n_lanes; /* [n_streams] of those that this group uses */
    uint32_t *clock;         /* [n_steps][n_lanes]: step + 1 */
    uint32_t *lane_at;       /* [n_lanes] latest step + 1 */
    uint32_t *need;          /* [n_lanes] */
    uint32_t *waits;         /* growing */
    uint32_t cap_waits;
    uint32_t *next_on;        /* [n_steps] the next of the same stream so far, or IR_NONE */
    uint32_t *settled;        /* [n_lanes] the first step that may still go on */
    uint32_t row_group;       /* of the last compute */
    uint32_t seq, seq_before; /* where it, and the group before it, begin in the global order */
} lower;

static const uint32_t untouched = 1u << 31; /* family + that: a life without a block */
static const uint32_t in_host = 1u << 31;   /* block of host memory + that */

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
}

/* ---- waits
 * --------------------------------------------------------------------------------------- */

static void need(lower *l, uint32_t node)
{
    uint32_t step = l->cx->step[node], *latest = &l->need[l->lane[l->plan->steps[step].stream]];
    *latest = step + 1 > *latest ? step + 1 : *latest;
}

static void needs_of(lower *l, uint32_t v)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    const dag_run *r = &d->runs[d->node_run[v]];
    for (uint32_t k = 0; k < r->preds.n; k++) {
        const dag_run *p = &d->runs[d->run_edges[r->preds.begin + k]];
        if (r->n == p->n) {
            if (dag_alive(d, p->first + (v - r->first)))
                need(l, p->first + (v - r->first));
        } else {
            for (uint32_t m = 0; m < p->n; m++)
                if (dag_alive(d, p->first + m))
                    need(l, p->first + m);
        }
    }
    uint32_t slice = dag_slice_before(d, r, v - r->first);
    if (slice != IR_NONE)
        need(l, r->first + slice);
    if (r->kind == PLAN_RECV) {
        uint32_t jit = cx->jit[d->runs[r->pair].first + (v - r->first)];
        if (jit != IR_NONE)
            need(l, jit);
    }
    if (cx->n_extra > 0)
        for (uint32_t e = cx->extra_begin[v]; e < cx->extra_begin[v + 1]; e++)
            need(l, cx->extra_list[e]);
}

/* At the first compute of a row group: wait for sends and copies to host memory that were due by
 * the group before. */
static void settle(lower *l, uint32_t v)
{
    const pass_cx *cx = l->cx;
    const plan_step *steps = l->plan->steps;
    const uint32_t *issue = cx->issue + cx->group_issue[l->plan->group].begin;
    if (cx->node_slot[v] == l->row_group)
        return;
    l->row_group = cx->node_slot[v];
    l->seq_before = l->seq;
    l->seq = cx->seq[v];
    for (uint32_t s = 0; s < l->n_lanes; s++) {
        uint32_t next = s != l->lane[0] ? l->settled[s] : IR_NONE;
        for (; next != IR_NONE; next = l->next_on[next]) {
            bool copies = steps[next].kind == PLAN_OFFLOAD;
            if (cx->seq[issue[next]] >= l->seq_before + copies)
                break;
            if (copies || steps[next].kind == PLAN_SEND)
                need(l, issue[next]);
        }
        l->settled[s] = next;
    }
}

static void enter_lane(lower *l, uint32_t lane, uint32_t step)
{
    uint32_t before = l->lane_at[lane];
    l->next_on[step] = IR_NONE;
    if (before > 0)
        l->next_on[before - 1] = step;
    if (l->settled[lane] == IR_NONE)
        l->settled[lane] = step;
}

static pps_status set_waits(lower *l, uint32_t v, uint32_t step)
{
    plan *p = l->plan;
    plan_step *s = &p->steps[step];
    uint32_t n = l->n_lanes, *clock = l->clock + (size_t)step * n, lane = l->lane[s->stream];
    memset(l->need, 0, n * sizeof *l->need);
    needs_of(l, v);
    if (s->kind == PLAN_COMPUTE)
        settle(l, v);
    enter_lane(l, lane, step);
    uint32_t before = l->lane_at[lane];
    if (before > 0) {
        memcpy(clock, l->clock + (size_t)(before - 1) * n, n * sizeof *clock);
        clock[lane] = before;
    } else {
        memset(clock, 0, n * sizeof *clock);
    }
    s->waits = p->n_waits;
    for (;;) { /* latest first: it is likeliest to bring the others along */
        uint32_t best = IR_NONE;
        for (uint32_t i = 0; i < n; i++)
            if (i != lane && l->need[i] > clock[i] &&
                (best == IR_NONE || l->need[i] > l->need[best]))
                best = i;
        if (best == IR_NONE)
            break;
        if (p->n_waits == l->cap_waits) {
            uint32_t cap = l->cap_waits * 2 + 1024;
            uint32_t *bigger = realloc(l->waits, cap * sizeof *bigger);
            if (bigger == NULL)
                return PPS_ERR_NOMEM;
            l->waits = bigger;
            l->cap_waits = cap;
        }
        uint32_t target = l->need[best] - 1;
        const uint32_t *theirs = l->clock + (size_t)target * n;
        l->waits[p->n_waits++] = target;
        s->n_waits++;
        for (uint32_t i = 0; i < n; i++)
            clock[i] = theirs[i] > clock[i] ? theirs[i] : clock[i];
        clock[best] = target + 1;
    }
    l->lane_at[lane] = step + 1;
    return PPS_OK;
}

/* ---- a step
 * -------------------------------------------------------------------------------------- */

static uint32_t begin_block(lower *l, plan_block b, uint32_t step)
{
    if (b.units == 0)
        return IR_NONE;
    b.first = step;
    l->n_host += b.what == PLAN_BLOCK_HOST;
    l->blocks[l->n_blocks] = b;
    l->uses[l->n_blocks] = (memory_uses){{0}};
    return l->n_blocks++;
}

static pps_status use_block(lower *l, uint32_t block, uint32_t step)
{
    plan *p = l->plan;
    p->bindings[p->n_bindings++] = block; /* its place once it has one */
    p->steps[step].n_bindings++;
    if (block == IR_NONE)
        return PPS_OK;
    uint32_t *last = l->uses[block].last;
    l->blocks[block].last = step;
    for (size_t k = 0; k < sizeof l->uses->last / sizeof *last; k++)
        if (last[k] == 0 || p->steps[last[k] - 1].stream == p->steps[step].stream) {
            last[k] = step + 1;
            return PPS_OK;
        }
    pps_error(l->cx->st, plan_place_of(l->cx->set, &p->steps[step]), 9903,
              "a buffer is touched by more than %zu streams", sizeof l->uses->last / sizeof *last);
    return PPS_ERR_INTERNAL;
}

static pps_status touch(lower *l, uint32_t life, uint32_t step)
{
    uint32_t *block = &l->block_of[life];
    if (*block != IR_NONE && *block >= untouched) {
        const family *f = &l->buffers.families[*block - untouched];
        *block = begin_block(l, memory_block_of(f->bytes, f->what), step);
    }
    return use_block(l, *block, step);
}

static pps_status compute(lower *l, uint32_t v, uint32_t step)
{
    pass_cx *cx = l->cx;
    const dag_run *r = &cx->dag->runs[cx->dag->node_run[v]];
    plan_step *s = &l->plan->steps[step];
    const pass_program *program = pass_program_of(cx, v);
    uint32_t entry = cx->node_entry[v], lives[UINT8_MAX];
    s->row_group = cx->node_slot[v];
    if (cx->node_overlap[v])
        s->flags |= PLAN_STEP_OVERLAP;
    if (r->pass == PPS_PASS_BI &&
        pass_variant_of(cx->dag, r->chunk, v - r->first) == PASS_RECOMPUTES)
        s->flags |= PLAN_STEP_RECOMPUTE;
    if (entry != IR_NONE) {
        uint32_t place = l->origin_place[cx->program->entries[entry].origin];
        s->place = place != 0 ? place : s->place;
    }
    for (uint32_t i = 0; i < program->binds.n; i++) {
        uint32_t life = lower_bind_life(&l->buffers, &cx->binds[program->binds.begin + i], r->chunk,
                                        (pps_pass)s->pass, v - r->first);
        lives[i] = life;
        if (life != IR_NONE) {
            PPS_TRY(touch(l, life, step));
            continue;
        }
        plan_block work = memory_block_of(program->work_bytes, PLAN_BLOCK_WORK);
        PPS_TRY(use_block(l, begin_block(l, work, step), step));
    }
    return lower_named_note(&l->named, r->group, s, lives, program->work_bytes);
}

static pps_status make_step(lower *l, uint32_t v, uint32_t step)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    uint32_t run = d->node_run[v], lives[3];
    const dag_run *r = &d->runs[run];
    plan_step *s = &l->plan->steps[step];
    pps_pass pass = dag_pass(d, v);
    *s = (plan_step){.kind = r->kind,
                     .pass = (uint8_t)pass,
                     .flags = r->flags,
                     .stream = r->stream,
                     .work = l->work_of[lower_work(d, v)],
                     .mb = dag_mb(d, v),
                     .bindings = l->plan->n_bindings,
                     .seq = plan_communicates(r->kind) ? cx->seq[v] : 0,
                     .row_group = IR_NONE,
                     .place = l->run_place[run]};
    PPS_TRY(set_waits(l, v, step));
    if (r->kind == PLAN_COMPUTE)
        return compute(l, v, step);
    if (r->link != IR_NONE && r->pass != PPS_PASS_F)
        s->pass = dag_split(d, r->chunk, v - r->first) ? PPS_PASS_BI : PPS_PASS_B;
    uint32_t n = lower_comm_lives(&l->buffers, v, lives);
    for (uint32_t i = 0; i < n; i++)
        PPS_TRY(touch(l, lives[i], step));
    return lower_named_note(&l->named, r->group, s, lives, 0);
}

/* ---- a plan
 * -------------------------------------------------------------------------------------- */

static pps_status place_params(pass_cx *cx, uint32_t group)
{
    const dag *d = cx->dag;
    plan_set *set = cx->set;
    plan *p = &set->plans[group];
    uint64_t at[PLAN_AREA_COUNT] = {0};
    *p = (plan){.group = group,
                .n_ranks = d->groups[group].n_ranks,
                .ranks = d->groups[group].ranks,
                .n_replicas = d->groups[group].n_replicas,
                .n_parts = d->groups[group].sequence != IR_NONE
                               ? set->teams[d->groups[group].sequence].size
                               : 1,
                .n_steps = cx->group_issue[group].n};
    for (uint32_t b = 0; b < d->n_buckets; b++)
        if (d->buckets[b].group == group) {
            p->n_buckets++;
            p->n_params += d->buckets[b].n;
        }
    PASS_ALLOC(p->buckets, cx->mem, p->n_buckets);
    PASS_ALLOC(p->params, cx->mem, p->n_params);
    p->n_buckets = p->n_params = 0;
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        const dag_bucket *k = &d->buckets[b];
        if (k->group != group)
            continue;
        plan_bucket *to = &p->buckets[p->n_buckets];
        *to = (plan_bucket){.first = p->n_params,
                            .n = k->n,
                            .bytes = k->bytes,
                            .teams = k->teams,
                            .spread = k->spread,
                            .slices = k->zero > 0 ? set->teams[k->teams].size : 1,
                            .zero = k->zero,
                            .every = k->every};
        for (uint32_t i = 0; i < k->n; i++) {
            uint32_t q = d->bucket_params[k->first + i];
            plan_param *held = &p->params[p->n_params++];
            *held = (plan_param){
                .param = q, .offset = d->param_offset[q], .elems = pass_held_elems(cx, q)};
            memcpy(held->cuts, cx->param_cuts[q], sizeof held->cuts);
        }
        for (int area = 0; area < PLAN_AREA_COUNT; area++) {
            to->offset[area] = at[area];
            at[area] += plan_stored_bytes(to, (plan_area)area);
        }
        cx->bucket_index[b] = p->n_buckets++;
    }
    uint32_t states = cx->program->train.optimizer.kind == IR_OPT_ADAMW ? 2
                      : cx->program->train.optimizer.momentum != 0.0f   ? 1
                                                                        : 0;
    p->param_bytes = at[PLAN_AREA_PARAMS];
    p->grad_offset = p->param_bytes;
    p->opt_offset = p->grad_offset + at[PLAN_AREA_GRADS];
    p->opt_bytes = states * at[PLAN_AREA_OPT];
    p->data_offset = p->opt_offset + p->opt_bytes;
    uint64_t data = 0;
    for (uint32_t k = 0; k < set->n_data; k++) {
        set->data[k].offset = data;
        data += aligned(4ull * (set->data[k].row_elems / p->n_parts) * cx->local_rows[group] *
                        (set->n_mb / set->n_slices));
    }
    p->data_bytes = data;
    p->act_offset = p->data_offset + data;
    return PPS_OK;
}

/* Bindings of the steps that have a work, numbered as by lower_work. */
static pps_status count_bindings(lower *l)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    PASS_ALLOC(l->n_bindings, cx->phase, LOWER_WORKS * (size_t)d->n_runs);
    for (uint32_t i = 0; i < d->n_runs; i++) {
        const dag_run *r = &d->runs[i];
        uint32_t lives[3], *n = &l->n_bindings[LOWER_WORKS * i];
        if (r->kind != PLAN_COMPUTE)
            n[0] = lower_comm_lives(&l->buffers, r->first, lives);
        for (uint32_t k = 0; r->kind == PLAN_COMPUTE && k < LOWER_WORKS; k++) {
            const pass_program *variant = cx->chunks[r->chunk].programs[k / 2];
            n[k] = variant[k % 2 != 0 ? PPS_PASS_B : r->pass].binds.n;
        }
    }
    return PPS_OK;
}

/* The streams of a group, room for its blocks; and how many bindings its steps have in all. */
static pps_status start_group(lower *l, uint32_t group, uint32_t *ret_bindings)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    const lower_buffers *b = &l->buffers;
    ir_range issue = cx->group_issue[group];
    uint32_t n_blocks = 0;
    PASS_NEW(l->lane, l->mem, d->n_streams);
    memset(l->lane, 0xff, d->n_streams * sizeof *l->lane);
    l->n_lanes = 0;
    *ret_bindings = 0;
    for (uint32_t i = 0; i < issue.n; i++) {
        uint32_t v = cx->issue[issue.begin + i];
        const dag_run *r = &d->runs[d->node_run[v]];
        bool compute = r->kind == PLAN_COMPUTE;
        if (l->lane[r->stream] == IR_NONE)
            l->lane[r->stream] = l->n_lanes++;
        n_blocks += compute;
        *ret_bindings += l->n_bindings[lower_work(d, v)];
    }
    PASS_NEW(l->block_of, l->mem, b->n_lives[group]);
    for (uint32_t i = 0; i < b->n_families; i++) {
        const family *f = &b->families[i];
        for (uint32_t m = 0; f->group == group && m < f->n; m++)
            l->block_of[f->base + m] = untouched + i;
        n_blocks += f->group == group && f->bytes > 0 ? f->n : 0;
    }
    if (n_blocks >= untouched)
        return PPS_ERR_LIMIT;
    PASS_NEW(l->blocks, l->mem, n_blocks);
    PASS_NEW(l->uses, l->mem, n_blocks);
    l->n_blocks = l->n_host = 0;
    return PPS_OK;
}

static pps_status too_large(const lower *l)
{
    const dag_group *group = &l->cx->dag->groups[l->plan->group];
    pps_diag *diag = pps_diag_start(
        l->cx->st, PPS_SEV_ERROR, 522, group->span,
        "the activations of rank %u take more than the %llu GiB a plan can have",
        l->cx->dag->group_ranks[group->ranks], (unsigned long long)PLAN_ALIGN << 32 >> 30);
    pps_diag_help(diag, "split the batch into more microbatches, or the model into more stages");
    return pps_diag_done(diag);
}

/* Where the blocks of one memory lie. */
static pps_status place_memory(lower *l, plan_block *blocks, uint32_t n, const uint32_t *ends,
                               memory_sizes *ret)
{
    pps_status status = memory_place(l->mem, blocks, ends, n, l->plan->n_steps, ret);
    return status == PPS_ERR_LIMIT ? too_large(l) : status;
}

static uint32_t offset_of(const lower *l, uint32_t block)
{
    const plan *p = l->plan;
    if (block == IR_NONE)
        return 0;
    uint32_t at = l->place_of != NULL ? l->place_of[block] : block;
    return at >= in_host ? p->host_blocks[at - in_host].offset : p->blocks[at].offset;
}

static pps_status place_blocks(lower *l, const uint32_t *ends, const uint32_t *host_ends)
{
    plan *p = l->plan;
    memory_sizes device, host = {0};
    PPS_TRY(place_memory(l, p->blocks, p->n_blocks, ends, &device));
    if (p->n_host_blocks > 0)
        PPS_TRY(place_memory(l, p->host_blocks, p->n_host_blocks, host_ends, &host));
    p->act_bytes = device.bytes;
    p->max_live_bytes = device.live;
    p->least_bytes = device.least;
    p->host_bytes = host.bytes;
    p->host_live_bytes = host.live;
    for (uint32_t i = 0; i < p->n_bindings; i++)
        p->bindings[i] = offset_of(l, p->bindings[i]);
    p->total_bytes = p->act_offset + p->act_bytes;
    return PPS_OK;
}

/* An exchange of expert rows that no capacity bounds. */
static bool takes_every_choice(const pass_cx *cx, uint32_t v)
{
    const dag *d = cx->dag;
    const dag_run *r = &d->runs[d->node_run[v]];
    if (r->kind != PLAN_ALL_TO_ALL)
        return false;
    return d->graph->ops[d->graph->tensors[d->links[r->link].tensor].op].attrs.capacity == 0;
}

/* The plan's blocks, by memory: those of the device, then those of the host, and their uses
 * likewise. */
static pps_status divide_blocks(lower *l, arena *mem)
{
    plan *p = l->plan;
    uint32_t at[2] = {0, 0};
    p->n_host_blocks = l->n_host;
    p->n_blocks = l->n_blocks - l->n_host;
    PASS_NEW(p->blocks, l->cx->mem, p->n_blocks);
    l->place_of = NULL;
    if (l->n_host == 0) {
        memcpy(p->blocks, l->blocks, p->n_blocks * sizeof *p->blocks);
        return PPS_OK;
    }
    memory_uses *uses;
    PASS_NEW(uses, l->mem, l->n_blocks);
    PASS_NEW(p->host_blocks, l->cx->mem, p->n_host_blocks);
    PASS_NEW(l->place_of, mem, l->n_blocks);
    for (uint32_t i = 0; i < l->n_blocks; i++) {
        bool host = l->blocks[i].what == PLAN_BLOCK_HOST;
        uint32_t k = at[host]++;
        (host ? p->host_blocks : p->blocks)[k] = l->blocks[i];
        uses[host ? p->n_blocks + k : k] = l->uses[i];
        l->place_of[i] = host ? in_host + k : k;
    }
    l->uses = uses;
    return PPS_OK;
}

/* Steps with their waits; which blocks they touch, and in `ends` when those are free again. */
static pps_status make_steps(lower *l, uint32_t group, arena *mem, uint32_t **ret_ends,
                             uint32_t **ret_host_ends)
{
    pass_cx *cx = l->cx;
    plan *p = l->plan = &cx->set->plans[group];
    ir_range issue = cx->group_issue[group];
    uint32_t n_bindings;
    PPS_TRY(start_group(l, group, &n_bindings));
    PASS_NEW(p->steps, cx->mem, issue.n);
    PASS_NEW(p->bindings, cx->mem, n_bindings);
    PASS_NEW(l->clock, l->mem, (size_t)issue.n * l->n_lanes);
    PASS_ALLOC(l->lane_at, l->mem, l->n_lanes);
    PASS_ALLOC(l->need, l->mem, l->n_lanes);
    PASS_NEW(l->next_on, l->mem, issue.n);
    PASS_NEW(l->settled, l->mem, l->n_lanes);
    memset(l->settled, 0xff, l->n_lanes * sizeof *l->settled);
    l->row_group = IR_NONE;
    l->seq = l->seq_before = 0;
    for (uint32_t i = 0; i < issue.n; i++) {
        PPS_TRY(make_step(l, cx->issue[issue.begin + i], i));
        p->dropless |= takes_every_choice(cx, cx->issue[issue.begin + i]);
    }
    PASS_NEW(p->waits, cx->mem, p->n_waits);
    if (p->n_waits > 0)
        memcpy(p->waits, l->waits, p->n_waits * sizeof *p->waits);
    PPS_TRY(divide_blocks(l, mem));
    PPS_TRY(memory_ends(mem, l->mem, p->blocks, l->uses, p->n_blocks, p->steps, p->n_steps,
                        l->clock, l->lane, l->n_lanes, ret_ends));
    if (p->n_host_blocks == 0)
        return PPS_OK;
    return memory_ends(mem, l->mem, p->host_blocks, l->uses + p->n_blocks, p->n_host_blocks,
                       p->steps, p->n_steps, l->clock, l->lane, l->n_lanes, ret_host_ends);
}

/* What it takes to make steps is gone before their blocks are placed. */
static pps_status lower_group(lower *l, uint32_t group)
{
    arena making, placing;
    uint32_t *ends, *host_ends = NULL;
    arena_init(&making, NULL, NULL);
    arena_init(&placing, NULL, NULL);
    arena_recycle(&making, l->cx->spares);
    arena_recycle(&placing, l->cx->spares);
    l->mem = &making;
    pps_status status = make_steps(l, group, &placing, &ends, &host_ends);
    arena_done(&making);
    l->mem = &placing;
    if (status == PPS_OK)
        status = place_blocks(l, ends, host_ends);
    arena_done(&placing);
    return status;
}

pps_status pass_lower(pass_cx *cx)
{
    lower l = {.cx = cx};
    PPS_TRY(lower_tables(cx));
    for (uint32_t g = 0; g < cx->dag->n_groups; g++)
        PPS_TRY(place_params(cx, g));
    PPS_TRY(lower_works(cx, &l.work_of));
    PPS_TRY(lower_places(cx, &l.run_place, &l.origin_place, &l.n_origins));
    PPS_TRY(lower_buffers_init(&l.buffers, cx));
    PPS_TRY(count_bindings(&l));
    PPS_TRY(lower_named_init(&l.named, &l.buffers));
    pps_status status = PPS_OK;
    for (uint32_t g = 0; g < cx->dag->n_groups && status == PPS_OK; g++)
        status = lower_group(&l, g);
    free(l.waits);
    return status;
}
