/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_check.c: one plan of a set whose indices are good: its memory is laid out one area after the
 * other, its programs touch only memory that they name, and every step has what its kind needs.
 * What a program needs of each binding is found once per plan, then compared at every step with the
 * block that lives there then. (That no two living blocks share bytes is proved elsewhere.)
 */
#include "ir/plan_row.h"

#include <stdlib.h>
#include <string.h>

typedef struct checked { /* a program as a plan uses it */
    uint32_t seen_by;    /* group + 1 that `needs` is about */
    uint64_t first;      /* in `needs`: bytes of each binding */
} checked;

typedef struct memory_area { /* memory that blocks share, in the order of their first step */
    const char *name;
    const plan_block *blocks;
    uint32_t n, next; /* the next to begin */
    uint64_t bytes;
    uint32_t *starts, *latest; /* [n_starts] where any begins, ascending; the last that did there */
    uint32_t n_starts;
} memory_area;

typedef struct walk {
    plan_checker *c;
    const plan_set *set;
    const plan *p;
    uint32_t g;
    uint32_t *held;  /* [n_params] index in p->params + 1 */
    uint8_t *sliced; /* [n_params] level of zero of the bucket that holds it */
    checked *programs;
    uint64_t *needs;
    uint64_t mb_rows; /* of one microbatch on one rank */
    uint32_t max_seq;
    memory_area device, host;
} walk;

/* ---- Memory -----------------------------------------------------------------------------------
 */

static uint32_t optimizer_states(const ir_optimizer *o)
{
    return o->kind == IR_OPT_ADAMW ? 2 : o->momentum != 0.0f ? 1 : 0;
}

/* params | grads | optimizer | data | activations: each begins where or after the one before ends.
 */
static pps_status check_areas(const walk *w)
{
    const plan *p = w->p;
    const uint64_t areas[][2] = {{0, p->param_bytes},           {p->grad_offset, 0},
                                 {p->opt_offset, p->opt_bytes}, {p->data_offset, p->data_bytes},
                                 {p->act_offset, p->act_bytes}, {p->total_bytes, 0}};
    uint64_t at = 0;
    for (uint32_t i = 0; i < sizeof areas / sizeof areas[0]; i++) {
        if (areas[i][0] < at || areas[i][0] > PLAN_MAX_BYTES || areas[i][1] > PLAN_MAX_BYTES ||
            (areas[i][0] % PLAN_ALIGN != 0 && areas[i][0] != p->total_bytes))
            return plan_wrong(w->c, "group %u's memory: its areas overlap, or are too large", w->g);
        at = areas[i][0] + areas[i][1];
    }
    if (p->host_bytes > PLAN_MAX_BYTES)
        return plan_wrong(w->c, "group %u's host memory is too large", w->g);
    uint64_t state = 0;
    for (uint32_t b = 0; b < p->n_buckets; b++)
        if (p->buckets[b].slices == 0)
            return plan_wrong(w->c, "bucket %u of group %u is in no slices", b, w->g);
    for (uint32_t b = 0; b < p->n_buckets && state <= PLAN_MAX_BYTES; b++)
        state += plan_stored_bytes(&p->buckets[b], PLAN_AREA_OPT);
    if (p->opt_bytes / 4 < optimizer_states(&w->set->train.optimizer) * (state / 4) &&
        state <= p->param_bytes)
        return plan_wrong(w->c, "group %u has no room for its optimizer's state", w->g);
    return PPS_OK;
}

/* Does every rank of the group have a seat in these teams? */
static bool group_sits_in(const walk *w, uint32_t teams)
{
    const plan_teams *t = &w->set->teams[teams];
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_ranks; i++)
        n += w->set->rank_group[w->set->team_ranks[t->ranks + i]] == w->g;
    return n == w->p->n_ranks;
}

static bool slices_fit(const walk *w, const plan_bucket *b)
{
    if (b->teams != IR_NONE && !group_sits_in(w, b->teams))
        return false;
    if (b->zero == 0)
        return b->slices == 1;
    return b->teams != IR_NONE && b->slices == w->set->teams[b->teams].size &&
           b->bytes % (4ull * b->slices) == 0;
}

/* Ranks that hold the parameter between them; 0: that cannot be. */
static uint64_t shards_of(const walk *w, const plan_param *q)
{
    const ir_param *p = &w->set->params[q->param];
    uint64_t shards = 1, left[IR_MAX_DIMS];
    for (uint32_t d = 0; d < IR_MAX_DIMS; d++)
        left[d] = d < p->n_dims ? p->dims[d] : 0;
    for (int i = 0; i < PLAN_MAX_CUTS; i++) {
        const plan_cut *cut = &q->cuts[i];
        if (cut->teams == IR_NONE)
            continue;
        uint32_t size = w->set->teams[cut->teams].size;
        if (left[cut->dim] == 0 || cut->blocks == 0 || left[cut->dim] % cut->blocks != 0 ||
            left[cut->dim] / cut->blocks % size != 0 || !group_sits_in(w, cut->teams))
            return 0;
        left[cut->dim] = 0; /* once */
        shards *= size;
    }
    return shards;
}

/* What a bucket stores in each area comes after what the one before it stores there, inside the
 * area. */
static bool bucket_fits(const walk *w, const plan_bucket *bucket, uint64_t at[PLAN_AREA_COUNT])
{
    const plan *p = w->p;
    uint64_t states = optimizer_states(&w->set->train.optimizer);
    const uint64_t room[PLAN_AREA_COUNT] = {[PLAN_AREA_PARAMS] = p->param_bytes,
                                            [PLAN_AREA_GRADS] = p->opt_offset - p->grad_offset,
                                            [PLAN_AREA_OPT] = states > 0 ? p->opt_bytes / states
                                                                         : PLAN_MAX_BYTES};
    if (bucket->bytes > PLAN_MAX_BYTES || bucket->bytes % 4 != 0 || !slices_fit(w, bucket))
        return false;
    for (int area = 0; area < PLAN_AREA_COUNT; area++) {
        uint64_t stored = plan_stored_bytes(bucket, (plan_area)area);
        if (bucket->offset[area] < at[area] || bucket->offset[area] > room[area] ||
            bucket->offset[area] % 4 != 0 || stored > room[area] - bucket->offset[area])
            return false;
        at[area] = bucket->offset[area] + stored;
    }
    return true;
}

/* Parameters and buckets in order, every parameter in one bucket. */
static pps_status check_buckets(const walk *w)
{
    const plan *p = w->p;
    uint64_t at[PLAN_AREA_COUNT] = {0};
    uint32_t next = 0;
    for (uint32_t b = 0; b < p->n_buckets; b++) {
        const plan_bucket *bucket = &p->buckets[b];
        if (bucket->first != next || !bucket_fits(w, bucket, at))
            return plan_wrong(w->c,
                              "bucket %u of group %u lies outside the parameters, or on "
                              "another bucket",
                              b, w->g);
        uint64_t inside = 0;
        for (; next < bucket->first + bucket->n; next++) {
            const plan_param *q = &p->params[next];
            uint64_t elems = ir_param_elems(&w->set->params[q->param]);
            uint64_t shards = shards_of(w, q);
            if (shards == 0 || q->elems > elems || q->elems * shards != elems)
                return plan_wrong(w->c, "held %u of group %u is no slice of its parameter", next,
                                  w->g);
            if (q->offset < inside || q->offset % PLAN_ALIGN != 0 || q->offset > bucket->bytes ||
                q->elems * 4 > bucket->bytes - q->offset)
                return plan_wrong(w->c, "held %u of group %u lies outside its bucket", next, w->g);
            if (w->held[q->param] != 0)
                return plan_wrong(w->c, "group %u holds parameter %u twice", w->g, q->param);
            w->held[q->param] = next + 1;
            w->sliced[q->param] = bucket->zero;
            inside = q->offset + q->elems * 4;
        }
    }
    return next == p->n_params
               ? PPS_OK
               : plan_wrong(w->c, "held %u of group %u is in no bucket", next, w->g);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Where blocks begin, ascending, and which of those that begin there came last. */
static void index_blocks(memory_area *a)
{
    a->n_starts = a->next = 0;
    for (uint32_t i = 0; i < a->n; i++)
        a->starts[i] = a->blocks[i].offset;
    if (a->n > 0)
        qsort(a->starts, a->n, sizeof *a->starts, by_number);
    for (uint32_t i = 0; i < a->n; i++)
        if (i == 0 || a->starts[i] != a->starts[a->n_starts - 1])
            a->starts[a->n_starts++] = a->starts[i];
    memset(a->latest, 0xff, a->n_starts * sizeof *a->latest);
}

static uint32_t *latest_at(const memory_area *a, uint32_t offset)
{
    const uint32_t *start = NULL;
    if (a->n_starts > 0)
        start = bsearch(&offset, a->starts, a->n_starts, sizeof offset, by_number);
    return start != NULL ? &a->latest[start - a->starts] : NULL;
}

static pps_status check_blocks(const walk *w, memory_area *a)
{
    for (uint32_t i = 0; i < a->n; i++) {
        const plan_block *b = &a->blocks[i];
        uint64_t end = (uint64_t)b->offset + b->units;
        if (b->first > b->last || b->units == 0 || end > UINT32_MAX ||
            (uint64_t)b->offset * PLAN_ALIGN + plan_block_bytes(b) > a->bytes)
            return plan_wrong(w->c, "block %u of group %u lies outside the %s", i, w->g, a->name);
        if (i > 0 && b->first < b[-1].first)
            return plan_wrong(w->c, "block %u of group %u comes too late", i, w->g);
    }
    index_blocks(a);
    return PPS_OK;
}

static void begin_blocks(memory_area *a, uint32_t step)
{
    for (; a->next < a->n && a->blocks[a->next].first == step; a->next++)
        *latest_at(a, a->blocks[a->next].offset) = a->next;
}

/* ---- Programs ---------------------------------------------------------------------------------
 */

static bool may_be_absent(const plan_kernel *k, ir_operand o)
{
    bool bias = (o.letter == 'p' || o.letter == 'g') && o.index == 1 &&
                (k->op == IR_LINEAR || k->op == IR_LAYERNORM);
    return bias || o.letter == 'x' || k->op == IR_OPAQUE;
}

/* Is the operand, of `bytes`, inside the memory that it names? Bindings are noted in `needs`. */
static bool operand_fits(const walk *w, const plan_program *program, const plan_kernel *k,
                         ir_operand letter, const plan_operand *o, uint64_t *needs)
{
    uint64_t elems, end, held, unit;
    if (!plan_operand_elems(k, letter, &elems) || elems > PLAN_MAX_BYTES / 4)
        return false;
    /* losses are F's: a kernel of F that runs again in a backward writes its own nowhere */
    bool is_loss = letter.letter == 'l', of_f = program->pass == PPS_PASS_F;
    if ((is_loss && of_f) != (o->space == PLAN_LOSS))
        return false;
    switch ((plan_space)o->space) {
    case PLAN_ABSENT:
        return may_be_absent(k, letter);
    case PLAN_BIND:
        unit = is_loss ? sizeof(double) : sizeof(float);
        if (o->bind >= program->n_bindings || o->offset > PLAN_MAX_BYTES || o->offset % unit != 0)
            return false;
        end = o->offset + elems * unit;
        if (end > needs[o->bind])
            needs[o->bind] = end;
        return true;
    case PLAN_PARAM:
    case PLAN_GRAD:
        held = o->index < w->set->n_params ? w->held[o->index] : 0;
        if (held != 0 && w->sliced[o->index] >= (o->space == PLAN_PARAM ? 3 : 2))
            return false; /* only a slice of it is stored */
        return held != 0 && elems <= w->p->params[held - 1].elems;
    case PLAN_DATA: {
        if (o->index >= w->set->n_data)
            return false;
        const plan_data *d = &w->set->data[o->index];
        uint64_t n_mb = w->set->n_mb / w->set->n_slices;
        uint64_t rows = w->mb_rows * n_mb, room = w->p->data_bytes;
        uint64_t row = d->row_elems / w->p->n_parts;
        return d->offset <= room && d->offset % PLAN_ALIGN == 0 && row > 0 &&
               rows <= (room - d->offset) / 4 / row &&
               elems <= w->mb_rows * (row / w->set->n_slices);
    }
    case PLAN_LOSS:
        return o->index < program->n_loss;
    }
    return false;
}

/* Does the kernel divide its work over as many ranks as sit in its teams? */
static bool team_fits(const walk *w, const plan_kernel *k)
{
    if (k->attrs.parts > 1 && k->attrs.parts != w->p->n_parts)
        return false;
    if (k->teams == IR_NONE)
        return k->ep == 1;
    return k->ep == w->set->teams[k->teams].size && group_sits_in(w, k->teams);
}

static pps_status check_program(const walk *w, uint32_t id)
{
    const plan_program *program = &w->set->programs[id];
    uint64_t *needs = w->needs + w->programs[id].first;
    w->programs[id].seen_by = w->g + 1;
    memset(needs, 0, program->n_bindings * sizeof *needs);
    if (program->n_loss > w->set->n_mb_losses)
        return plan_wrong(w->c, "program %u has too many losses", id);
    for (uint32_t i = program->kernels; i < program->kernels + program->n_kernels; i++) {
        const plan_kernel *k = &w->set->kernels[i];
        ir_operand list[PLAN_MAX_OPERANDS];
        if (!plan_kernel_operands(k, list) || !team_fits(w, k) || k->slices != w->set->n_slices)
            return plan_wrong(w->c, "kernel %u has other operands, or more ranks, than it can have",
                              i);
        for (uint32_t j = 0; j < k->n_operands; j++)
            if (!operand_fits(w, program, k, list[j], &w->set->operands[k->operands + j], needs))
                return plan_wrong(w->c,
                                  "operand %u of kernel %u is not inside the memory of group %u", j,
                                  i, w->g);
    }
    return PPS_OK;
}

/* ---- Steps ------------------------------------------------------------------------------------
 */

/* Does the step have a binding `i`: the begin of a block that lives now and has `bytes`? */
static bool has_room(const walk *w, const plan_step *s, uint32_t i, uint64_t bytes)
{
    const memory_area *a = plan_host_binding(s, i) ? &w->host : &w->device;
    if (i >= s->n_bindings)
        return false;
    if (bytes == 0)
        return plan_binding(w->p, s, i) <= a->bytes;
    const uint32_t *latest = latest_at(a, w->p->bindings[s->bindings + i]);
    if (latest == NULL || *latest == IR_NONE)
        return false;
    const plan_block *b = &a->blocks[*latest];
    return b->last >= (uint32_t)(s - w->p->steps) && bytes <= plan_block_bytes(b);
}

static const char *wrong_compute(const walk *w, const plan_step *s, const plan_work *work)
{
    if (work->program == IR_NONE)
        return "has nothing to compute";
    const plan_program *program = &w->set->programs[work->program];
    if (program->chunk != work->chunk || program->pass != s->pass || s->mb >= w->set->n_mb)
        return "computes another chunk, pass or microbatch than it says";
    for (uint32_t i = 0; i < program->n_bindings; i++)
        if (!has_room(w, s, i, w->needs[w->programs[work->program].first + i]))
            return "has a buffer that is too small for its program";
    if (program->n_loss > 0 &&
        (uint64_t)work->loss + (uint64_t)s->mb * w->set->n_mb_losses + program->n_loss >
            w->set->n_losses)
        return "has no slots for its losses";
    return NULL;
}

static const char *wrong_transfer(const walk *w, const plan_step *s, const plan_work *work)
{
    if (work->peer_group == IR_NONE || work->peer_group == w->g ||
        w->set->plans[work->peer_group].n_ranks != w->p->n_ranks)
        return "has no group of the same size at its other end";
    return has_room(w, s, 0, work->bytes) ? NULL : "has no room for its bytes";
}

/* Steps of zero: in place on what is stored whole, through a binding where only slices are. */
static const char *wrong_slices(const walk *w, const plan_step *s, const plan_bucket *bucket)
{
    plan_area area = s->kind == PLAN_ALL_GATHER ? PLAN_AREA_PARAMS : PLAN_AREA_GRADS;
    if (s->kind != PLAN_CLEAR && plan_work_of(w->set, s)->teams != bucket->teams)
        return "is not of its bucket's teams";
    if (bucket->zero == 0 || plan_sliced(bucket, area) != (s->n_bindings > 0))
        return "does not go with how its bucket is stored";
    return s->n_bindings == 0 || has_room(w, s, 0, bucket->bytes) ? NULL
                                                                  : "has no room for its bucket";
}

/* What a team shares: one binding has all, the other one rank's part of it. */
static const char *wrong_share(const walk *w, const plan_step *s, const plan_work *work,
                               uint64_t n_team)
{
    uint64_t all = work->bytes, part = s->kind == PLAN_SUM ? all : all / n_team;
    bool grows = s->kind == PLAN_SEQ_GATHER || s->kind == PLAN_STATS;
    bool pieces = s->kind != PLAN_SUM && s->kind != PLAN_STATS;
    if (all % 4 != 0 || part % 4 != 0 || (s->kind != PLAN_SUM && all % n_team != 0))
        return "shares what its team cannot divide";
    if (pieces ? work->width == 0 || work->width % 4 != 0 || part % work->width != 0
               : work->width != 0)
        return "shares rows of another width";
    return has_room(w, s, 0, grows ? part : all) && has_room(w, s, 1, grows ? all : part)
               ? NULL
               : "has no room for what its team shares";
}

/* What is wrong with a step, NULL: nothing. */
static const char *wrong_kind(const walk *w, const plan_step *s)
{
    const plan_work *work = plan_work_of(w->set, s);
    uint64_t counts = (uint64_t)work->experts * 4;
    if (plan_is(s->kind, PLAN_COLLECTIVE) &&
        (work->teams == IR_NONE || !group_sits_in(w, work->teams)))
        return "is of no teams in which all ranks of its plan sit";
    uint64_t n_team = work->teams != IR_NONE ? w->set->teams[work->teams].size : 1;
    switch ((plan_step_kind)s->kind) {
    case PLAN_COMPUTE:
        return work->chunk < w->set->n_chunks ? wrong_compute(w, s, work) : "is of no chunk";
    case PLAN_SEND:
    case PLAN_RECV:
        return work->chunk < w->set->n_chunks ? wrong_transfer(w, s, work) : "is of no chunk";
    case PLAN_COUNTS:
    case PLAN_ALL_TO_ALL:
        if (work->chunk >= w->set->n_chunks || work->experts == 0)
            return "is of no chunk, or of no experts";
        if (s->kind == PLAN_COUNTS)
            return has_room(w, s, 0, counts) && has_room(w, s, 1, counts * n_team)
                       ? NULL
                       : "has no room for its counts";
        return work->width > 0 && work->width % 4 == 0 && has_room(w, s, 0, 0) &&
                       has_room(w, s, 1, work->bytes) && has_room(w, s, 2, counts * n_team)
                   ? NULL
                   : "has no room for its rows";
    case PLAN_SHIFT:
        if (work->chunk >= w->set->n_chunks || work->shift == 0 || work->shift >= n_team)
            return "is of no chunk, or leads out of its team";
        return has_room(w, s, 0, work->bytes) && has_room(w, s, 1, work->bytes)
                   ? NULL
                   : "has no room for its bytes";
    case PLAN_SUM:
    case PLAN_SEQ_SCATTER:
    case PLAN_SEQ_GATHER:
    case PLAN_SEQ_TAKE:
    case PLAN_STATS:
        return work->chunk < w->set->n_chunks ? wrong_share(w, s, work, n_team) : "is of no chunk";
    case PLAN_ALL_REDUCE:
    case PLAN_UPDATE:
        if (work->chunk >= w->p->n_buckets)
            return "is of no bucket";
        if (s->kind == PLAN_UPDATE)
            return NULL;
        if (work->teams != w->p->buckets[work->chunk].teams)
            return "is not of its bucket's teams";
        return work->bytes == w->p->buckets[work->chunk].bytes
                   ? NULL
                   : "reduces more or less than its bucket";
    case PLAN_REDUCE_SCATTER:
    case PLAN_ALL_GATHER:
    case PLAN_CLEAR:
        return work->chunk < w->p->n_buckets ? wrong_slices(w, s, &w->p->buckets[work->chunk])
                                             : "is of no bucket";
    case PLAN_OFFLOAD:
    case PLAN_FETCH:
        if (work->chunk >= w->set->n_chunks || s->mb >= w->set->n_mb)
            return "is of no chunk, or of no microbatch";
        return work->bytes > 0 && has_room(w, s, 0, work->bytes) && has_room(w, s, 1, work->bytes)
                   ? NULL
                   : "has no room for its bytes";
    case PLAN_STEP_KIND_COUNT:
        break;
    }
    return "is of no kind";
}

static pps_status check_steps(walk *w)
{
    for (uint32_t i = 0; i < w->p->n_steps; i++) {
        const plan_step *s = &w->p->steps[i];
        const plan_work *work = plan_work_of(w->set, s);
        const char *what = NULL;
        begin_blocks(&w->device, i);
        begin_blocks(&w->host, i);
        if (s->kind == PLAN_COMPUTE && work->program != IR_NONE &&
            w->programs[work->program].seen_by != w->g + 1)
            PPS_TRY(check_program(w, work->program));
        if (plan_communicates(s->kind) ? s->seq == 0 || s->seq > w->max_seq : s->seq != 0)
            what = "has no place in the order of communication";
        else if (s->n_waits >= w->set->n_streams)
            what = "waits for more steps than there are other streams";
        else
            what = wrong_kind(w, s);
        if (what != NULL) {
            w->c->span = plan_place_of(w->set, s);
            return plan_wrong(w->c, "step %u of group %u (%s) %s", i, w->g,
                              plan_step_name((plan_step_kind)s->kind), what);
        }
    }
    return PPS_OK;
}

static pps_status check_plan(walk *w, uint32_t g)
{
    const plan *p = &w->set->plans[g];
    w->g = g;
    w->p = p;
    w->mb_rows = w->set->batch / ((uint64_t)p->n_replicas * (w->set->n_mb / w->set->n_slices));
    PPS_TRY(check_areas(w));
    PPS_TRY(check_buckets(w));
    w->device.blocks = p->blocks;
    w->device.n = p->n_blocks;
    w->device.bytes = p->act_bytes;
    w->host.blocks = p->host_blocks;
    w->host.n = p->n_host_blocks;
    w->host.bytes = p->host_bytes;
    PPS_TRY(check_blocks(w, &w->device));
    PPS_TRY(check_blocks(w, &w->host));
    PPS_TRY(check_steps(w));
    for (uint32_t i = 0; i < p->n_params; i++)
        w->held[p->params[i].param] = 0;
    return PPS_OK;
}

static pps_status make_area(plan_checker *c, memory_area *a, uint32_t most)
{
    a->starts = arena_new(&c->mem, ((size_t)most + 1) * sizeof *a->starts);
    a->latest = arena_new(&c->mem, ((size_t)most + 1) * sizeof *a->latest);
    return a->starts != NULL && a->latest != NULL ? PPS_OK : PPS_ERR_NOMEM;
}

/* Room for what is found, once for all plans. Programs own their kernels one after the other. */
static pps_status make_tables(walk *w)
{
    const plan_set *set = w->set;
    uint64_t n_needs = 0, n_kernels = 0;
    uint32_t most = 0, most_host = 0;
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const plan *p = &set->plans[g];
        most = p->n_blocks > most ? p->n_blocks : most;
        most_host = p->n_host_blocks > most_host ? p->n_host_blocks : most_host;
    }
    w->device.name = "activations";
    w->host.name = "host memory";
    PPS_TRY(make_area(w->c, &w->device, most));
    PPS_TRY(make_area(w->c, &w->host, most_host));
    w->held = arena_zero(&w->c->mem, ((size_t)set->n_params + 1) * sizeof *w->held);
    w->sliced = arena_zero(&w->c->mem, (size_t)set->n_params + 1);
    w->programs = arena_zero(&w->c->mem, ((size_t)set->n_programs + 1) * sizeof *w->programs);
    if (w->held == NULL || w->sliced == NULL || w->programs == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t i = 0; i < set->n_programs; i++) {
        w->programs[i].first = n_needs;
        n_needs += set->programs[i].n_bindings;
        if (set->programs[i].kernels != n_kernels)
            return plan_wrong(w->c, "program %u's kernels are not those after program %u's", i,
                              i > 0 ? i - 1 : 0);
        n_kernels += set->programs[i].n_kernels;
    }
    w->needs = arena_zero(&w->c->mem, (n_needs + 1) * sizeof *w->needs);
    return w->needs != NULL ? PPS_OK : PPS_ERR_NOMEM;
}

pps_status plan_check(plan_checker *c)
{
    walk w = {.c = c, .set = c->set};
    for (uint32_t i = 0; i < c->set->n_groups; i++)
        w.max_seq += c->set->plans[i].n_steps;
    PPS_TRY(make_tables(&w));
    for (uint32_t g = 0; g < c->set->n_groups; g++)
        PPS_TRY(check_plan(&w, g));
    return PPS_OK;
}
