/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_backend.c: steps done for real, on the host. A compute runs its program's kernels in this
 * thread; an operand becomes an address by its space:
 *
 *   BIND   arena + act_offset + bindings[bind] + offset
 *   PARAM  arena + its bucket's place + the parameter's      GRAD  the same behind grad_offset
 *   DATA   arena + data_offset + the input's offset + the unit's rows
 *   LOSS   losses + the step's first slot + index
 *
 * Communication is handed to coll, one operation per stream (a stream runs one step at a time).
 * Copies to host memory and back run in slices, between which other streams move on.
 * Optimizer state of a parameter, or of the piece of it in this rank's slice, lies behind
 * opt_offset at (states per element) times its place.
 */
#include "runtime/exec/exec.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/coll/coll.h"
#include "runtime/cpu/cpu.h"

typedef struct cpu_copy { /* under way on a stream */
    const char *from;
    char *to;
    uint64_t left; /* bytes */
} cpu_copy;

typedef struct cpu_self {
    struct coll_rank *coll;
    cpu_context cx;
    cpu_kernel_fn *kernels; /* [set->n_kernels], NULL where this plan does not use one */
    uint64_t *param_at,
        *grad_at; /* [set->n_params] in the arena, of those that this rank stores whole */
    uint64_t *data_mb_bytes; /* [set->n_data] one unit's rows */
    coll_op *ops;            /* [n_streams] */
    cpu_copy *copies;        /* [n_streams] */
    uint32_t n_copies;       /* that are not done */
    void **operands;         /* of one kernel */
} cpu_self;

/* Short enough to let others move, long enough for that to cost nothing. */
#define SLICE_BYTES ((uint64_t)1 << 20)
/* Long enough not to matter, short enough to survive a bell that never rings. */
#define IDLE_NS 500000000u

/* ---- Computing ---------------------------------------------------------------------------------
 */

static void *address(const cpu_self *self, const exec_rank *r, const plan_step *s,
                     const plan_operand *o)
{
    const plan *p = r->plan;
    switch ((plan_space)o->space) {
    case PLAN_ABSENT:
        return NULL;
    case PLAN_BIND:
        return r->arena + p->act_offset + plan_binding(p, s, o->bind) + o->offset;
    case PLAN_PARAM:
        return r->arena + self->param_at[o->index];
    case PLAN_GRAD:
        return r->arena + self->grad_at[o->index];
    case PLAN_DATA:
        return r->arena + p->data_offset + r->set->data[o->index].offset +
               (s->mb == IR_NONE ? 0 : s->mb * self->data_mb_bytes[o->index]);
    case PLAN_LOSS:
        return r->losses + plan_work_of(r->set, s)->loss + s->mb * r->set->n_mb_losses + o->index;
    }
    return NULL;
}

static pps_status compute(cpu_self *self, exec_rank *r, const plan_step *s)
{
    self->cx.dropped = s->pass == PPS_PASS_F ? &r->dropped : NULL; /* once, whoever routes again */
    const plan_program *program = &r->set->programs[plan_work_of(r->set, s)->program];
    self->cx.slice = s->mb % r->set->n_slices;
    for (uint32_t i = 0; i < program->n_kernels; i++) {
        const plan_kernel *k = &r->set->kernels[program->kernels + i];
        for (uint32_t j = 0; j < k->n_operands; j++)
            self->operands[j] = address(self, r, s, &r->set->operands[k->operands + j]);
        self->cx.team_index = k->teams != IR_NONE ? r->seats[k->teams].index : 0;
        PPS_TRY(self->kernels[program->kernels + i](k, self->operands, &self->cx));
    }
    return PPS_OK;
}

static void update(exec_rank *r, const plan_bucket *bucket)
{
    const plan *p = r->plan;
    uint32_t slice = plan_slice_of(bucket, r->seats);
    char *params = r->arena + plan_bucket_at(bucket, PLAN_AREA_PARAMS, slice);
    char *grads = r->arena + p->grad_offset + plan_bucket_at(bucket, PLAN_AREA_GRADS, slice);
    uint64_t state_at = plan_bucket_at(bucket, PLAN_AREA_OPT, slice);
    ir_optimizer opt = r->set->train.optimizer;
    uint32_t states = cpu_optimizer_states(&opt);
    opt.lr *= r->lr_scale;
    if (r->before_update)
        r->before_update(r->before_update_ud, r, bucket);
    for (uint32_t i = bucket->first; i < bucket->first + bucket->n; i++) {
        const plan_param *param = &p->params[i];
        plan_piece piece = plan_piece_of(bucket, param, plan_sliced(bucket, PLAN_AREA_OPT), slice);
        size_t elems = (piece.end - piece.begin) / sizeof(float);
        float *state = (float *)(r->arena + p->opt_offset + states * (state_at + piece.begin));
        if (elems > 0)
            cpu_update(&opt, opt.decay_all || r->set->params[param->param].n_dims >= 2,
                       r->epoch + 1, elems, (float *)(params + piece.begin),
                       (float *)(grads + piece.begin), states >= 1 ? state : NULL,
                       states >= 2 ? state + elems : NULL);
    }
    memset(r->arena + p->grad_offset + bucket->offset[PLAN_AREA_GRADS], 0,
           plan_stored_bytes(bucket, PLAN_AREA_GRADS));
}

/* ---- Communication -----------------------------------------------------------------------------
 */

static void *binding(const exec_rank *r, const plan_step *s, uint32_t i)
{
    return r->arena + r->plan->act_offset + plan_binding(r->plan, s, i);
}

/* Collectives of a bucket: between what is stored here and, where the step has one, its binding. */
static void bucket_op(const exec_rank *r, const plan_step *s, coll_op *op)
{
    const plan *p = r->plan;
    const plan_bucket *b = &p->buckets[plan_work_of(r->set, s)->chunk];
    plan_area area = s->kind == PLAN_ALL_GATHER ? PLAN_AREA_PARAMS : PLAN_AREA_GRADS;
    char *stored = r->arena + (area == PLAN_AREA_GRADS ? p->grad_offset : 0);
    uint32_t index = plan_slice_of(b, r->seats);
    stored += plan_bucket_at(b, area, index);
    char *whole = s->n_bindings > 0 ? binding(r, s, 0) : stored;
    char *slice = stored + index * plan_slice_bytes(b);
    op->send = whole;
    op->recv = slice;
    if (s->kind == PLAN_ALL_REDUCE) {
        op->kind = COLL_ALL_REDUCE;
    } else if (s->kind == PLAN_REDUCE_SCATTER) {
        op->kind = COLL_REDUCE_SCATTER;
        op->flags = s->n_bindings > 0 ? COLL_ADD : 0;
    } else {
        op->kind = COLL_ALL_GATHER;
        op->send = slice;
        op->recv = whole;
    }
}

/* What a team shares, from binding 0 to binding 1. */
static void share_op(const plan_step *s, const plan_work *w, coll_op *op)
{
    op->width = w->width;
    if (s->kind == PLAN_SUM) { /* in place, on a copy */
        memcpy(op->recv, op->send, w->bytes);
        op->send = op->recv;
        op->kind = COLL_ALL_REDUCE;
    } else {
        op->kind = s->kind == PLAN_SEQ_SCATTER ? COLL_REDUCE_SCATTER : COLL_ALL_GATHER;
    }
}

/* This rank's positions of every batch row. */
static void take(const exec_rank *r, const plan_step *s)
{
    const plan_work *w = plan_work_of(r->set, s);
    uint32_t n = r->set->teams[w->teams].size;
    const char *from = (const char *)binding(r, s, 0) + (size_t)r->seats[w->teams].index * w->width;
    char *to = binding(r, s, 1);
    for (uint64_t done = 0; done < w->bytes; done += (uint64_t)n * w->width) {
        memcpy(to, from + done, w->width);
        to += w->width;
    }
}

static coll_op make_op(const exec_rank *r, const plan_step *s)
{
    const plan_work *w = plan_work_of(r->set, s);
    coll_op op = {.channel = s->stream, .seq = s->seq, .epoch = r->epoch, .bytes = w->bytes};
    if (s->kind == PLAN_SEND || s->kind == PLAN_RECV) {
        op.kind = s->kind == PLAN_SEND ? COLL_SEND : COLL_RECV;
        op.peer = r->set->group_ranks[r->set->plans[w->peer_group].ranks + r->group_index];
        op.send = op.recv = binding(r, s, 0);
        return op;
    }
    const plan_teams *teams = &r->set->teams[w->teams];
    plan_seat seat = r->seats[w->teams];
    op.group = r->set->team_ranks + teams->ranks + seat.team * teams->size;
    op.group_size = teams->size;
    op.group_index = seat.index;
    if (plan_is(s->kind, PLAN_BUCKET)) {
        bucket_op(r, s, &op);
        return op;
    }
    op.send = binding(r, s, 0);
    op.recv = binding(r, s, 1);
    if (s->kind == PLAN_SHIFT) {
        op.kind = COLL_SHIFT;
        op.flags = s->flags & PLAN_A2A_RETURN ? COLL_RETURN : 0;
        op.shift = w->shift;
        return op;
    }
    if (s->kind != PLAN_COUNTS && s->kind != PLAN_ALL_TO_ALL) {
        share_op(s, w, &op);
        return op;
    }
    op.kind = s->kind == PLAN_COUNTS ? COLL_COUNTS : COLL_ALL_TO_ALL;
    op.experts = w->experts;
    if (s->kind == PLAN_ALL_TO_ALL) {
        op.flags = s->flags & PLAN_A2A_RETURN ? COLL_RETURN : 0;
        op.counts = binding(r, s, 2);
        op.width = w->width;
    }
    return op;
}

/* ---- Copies ------------------------------------------------------------------------------------
 */

static uint64_t host_offset(const plan *p)
{
    return (p->total_bytes + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
}

/* A plan without host memory needs its own bytes and not one more. */
uint64_t exec_cpu_arena_bytes(const plan *p)
{
    return p->host_bytes > 0 ? host_offset(p) + p->host_bytes : p->total_bytes;
}

char *exec_cpu_host(const plan *p, char *memory)
{
    return memory + host_offset(p);
}

static cpu_copy make_copy(const exec_rank *r, const plan_step *s)
{
    char *device = binding(r, s, 0), *host = r->host + plan_binding(r->plan, s, 1);
    bool out = s->kind == PLAN_OFFLOAD;
    return (cpu_copy){.from = out ? device : host,
                      .to = out ? host : device,
                      .left = plan_work_of(r->set, s)->bytes};
}

static bool copy_slice(cpu_self *self, cpu_copy *c)
{
    uint64_t n = c->left < SLICE_BYTES ? c->left : SLICE_BYTES;
    memcpy(c->to, c->from, n);
    c->from += n;
    c->to += n;
    c->left -= n;
    self->n_copies -= c->left == 0;
    return c->left == 0;
}

static pps_status poll(void *self_, exec_rank *r, uint32_t step, bool *ret_done)
{
    cpu_self *self = self_;
    const plan_step *s = &r->plan->steps[step];
    coll_op *op = &self->ops[s->stream];
    uint64_t bytes = plan_work_of(r->set, s)->bytes;
    if (plan_is(s->kind, PLAN_COPY)) {
        *ret_done = copy_slice(self, &self->copies[s->stream]);
    } else {
        PPS_TRY(coll_poll(self->coll, op, ret_done));
        bytes = op->sent_bytes;
    }
    if (*ret_done && r->sent_bytes)
        r->sent_bytes[s->kind] += bytes;
    if (*ret_done && r->marks)
        r->marks[step].sent_bytes = bytes;
    return PPS_OK;
}

static pps_status begin(void *self_, exec_rank *r, uint32_t step, bool *ret_done)
{
    cpu_self *self = self_;
    const plan_step *s = &r->plan->steps[step];
    if (plan_is(s->kind, PLAN_LOCAL)) {
        PPS_TRY(coll_wait_any(self->coll, 0)); /* a lost peer is noticed within one compute */
        if (s->kind == PLAN_COMPUTE)
            PPS_TRY(compute(self, r, s));
        else if (s->kind == PLAN_UPDATE)
            update(r, &r->plan->buckets[plan_work_of(r->set, s)->chunk]);
        else
            memset(binding(r, s, 0), 0, plan_work_of(r->set, s)->bytes);
        *ret_done = true;
        return PPS_OK;
    }
    if (plan_is(s->kind, PLAN_COPY)) {
        self->copies[s->stream] = make_copy(r, s);
        self->n_copies++;
        return poll(self, r, step, ret_done);
    }
    if (s->kind == PLAN_SEQ_TAKE) {
        take(r, s);
        *ret_done = true;
        return PPS_OK;
    }
    self->ops[s->stream] = make_op(r, s);
    PPS_TRY(coll_start(self->coll, &self->ops[s->stream]));
    return poll(self, r, step, ret_done);
}

static pps_status idle(void *self_, exec_rank *r)
{
    cpu_self *self = self_;
    (void)r;
    return coll_wait_any(self->coll, self->n_copies > 0 ? 0 : IDLE_NS);
}

const exec_backend exec_cpu_backend = {"cpu", begin, poll, idle, true};

/* ---- Setting up --------------------------------------------------------------------------------
 */

static pps_status find_kernels(cpu_self *self, const exec_rank *r)
{
    const plan_set *set = r->set;
    for (uint32_t i = 0; i < r->plan->n_steps; i++) {
        const plan_step *s = &r->plan->steps[i];
        if (s->kind != PLAN_COMPUTE)
            continue;
        const plan_program *program = &set->programs[plan_work_of(set, s)->program];
        for (uint32_t j = program->kernels; j < program->kernels + program->n_kernels; j++) {
            if (!self->kernels[j])
                self->kernels[j] = cpu_kernel_find(set->kernels[j].op, set->kernels[j].phase);
            if (!self->kernels[j])
                return PPS_ERR_INTERNAL;
        }
    }
    return PPS_OK;
}

static pps_status fill_tables(cpu_self *self, const exec_rank *r)
{
    const plan_set *set = r->set;
    const plan *p = r->plan;
    uint64_t rows = set->batch / p->n_replicas;
    for (uint32_t b = 0; b < p->n_buckets; b++)
        for (uint32_t i = p->buckets[b].first; i < p->buckets[b].first + p->buckets[b].n; i++) {
            const plan_param *q = &p->params[i];
            self->param_at[q->param] = p->buckets[b].offset[PLAN_AREA_PARAMS] + q->offset;
            self->grad_at[q->param] =
                p->grad_offset + p->buckets[b].offset[PLAN_AREA_GRADS] + q->offset;
        }
    for (uint32_t i = 0; i < set->n_data; i++)
        self->data_mb_bytes[i] = rows * (set->data[i].row_elems / p->n_parts) /
                                 (set->n_mb ? set->n_mb : 1) * 4;
    return find_kernels(self, r);
}

pps_status exec_cpu_backend_new(exec_rank *r, struct coll_rank *coll, const struct cpu_blas *blas,
                                void **ret_self)
{
    const plan_set *set = r->set;
    cpu_self *self = calloc(1, sizeof(*self));
    if (!self)
        return PPS_ERR_NOMEM;
    uint32_t most = 0;
    for (uint32_t i = 0; i < set->n_kernels; i++)
        if (set->kernels[i].n_operands > most)
            most = set->kernels[i].n_operands;
    self->coll = coll;
    self->cx = (cpu_context){.blas = blas, .part = set->rank_part[r->plan->ranks + r->group_index]};
    self->kernels = calloc((size_t)set->n_kernels + 1, sizeof(*self->kernels));
    self->param_at = calloc((size_t)set->n_params + 1, sizeof(uint64_t));
    self->grad_at = calloc((size_t)set->n_params + 1, sizeof(uint64_t));
    self->data_mb_bytes = calloc((size_t)set->n_data + 1, sizeof(uint64_t));
    self->ops = calloc(set->n_streams, sizeof(coll_op));
    self->copies = calloc(set->n_streams, sizeof(cpu_copy));
    self->operands = calloc((size_t)most + 1, sizeof(void *));
    bool whole = self->kernels && self->param_at && self->grad_at && self->data_mb_bytes &&
                 self->ops && self->copies && self->operands;
    pps_status status = whole ? fill_tables(self, r) : PPS_ERR_NOMEM;
    if (status != PPS_OK) {
        exec_cpu_backend_free(self);
        return status;
    }
    *ret_self = self;
    return PPS_OK;
}

void exec_cpu_backend_free(void *self_)
{
    cpu_self *self = self_;
    if (!self)
        return;
    free(self->kernels);
    free(self->param_at);
    free(self->grad_at);
    free(self->data_mb_bytes);
    free(self->ops);
    free(self->copies);
    free(self->operands);
    free(self);
}
