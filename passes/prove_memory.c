/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_memory.c: one plan's activations, and what it keeps in host memory, from the plan alone.
 *
 * A work says which buffer each of its bindings is, and the step of which microbatch or window, so
 * of every byte there is a story to check, step by step in issue order:
 *
 *   buffer 7, mb 0   written by step 3 ---- read by 5 ---- read by 9
 *   buffer 2, mb 1                                                   written by 12 ---- read by 13
 *                    `-- each reader finds buffer 7 of mb 0,         `-- 12 begins when 3, 5 and 9
 *                        and begins when 3 is over                       are over
 *
 * "Over" is meant by the clocks: on every timing that streams and waits allow. A gradient is read
 * once (by its one consumer: a hop, or a chunk's B, or its BI and BW), or a contribution would be
 * lost or counted twice; a copy in host memory is fetched once. The blocks that a plan lists are
 * held against what steps really do.
 */
#include "passes/prove.h"

#include <string.h>

typedef struct life { /* one buffer of one microbatch or window, while its bytes are its own */
    uint32_t buffer, number;
    uint32_t slot, end; /* borders in the space */
    uint32_t block;     /* in plan.blocks */
    uint32_t writer;    /* the latest */
    uint32_t reader;    /* the latest step that reads it, IR_NONE */
    uint32_t stretches; /* of the space that it owns */
    bool whole;         /* nobody has taken bytes of it yet */
    uint8_t host;
} life;

typedef struct memory { /* the device's, and the host's */
    prove_space space;
    const plan_block *blocks;
    uint32_t n_blocks, next_block; /* blocks before it have begun */
    uint8_t *begun;                /* [n_blocks that begin with the step at hand] */
    uint32_t n_begin, cap_begun;
} memory;

typedef struct story {
    const prover *p;
    const plan *plan;
    const prove_clock *clock;
    arena *mem;
    memory memories[2]; /* [host] */
    life *lives;
    uint32_t *touched; /* [lives][n_lanes] latest step on each lane that touches it, + 1 */
    uint32_t n_lives, cap_lives, unused; /* unused: linked through `slot` */
    uint32_t step;
} story;

static pps_status wrong(const story *t, int code, const char *what, uint32_t other,
                        const char *other_text)
{
    return prove_two(t->p, t->plan->group, t->step, code, what, other, other_text);
}

static uint32_t *touched_of(const story *t, uint32_t id)
{
    return t->touched + (size_t)id * t->clock->n_lanes;
}

static const plan_block *block_of(const story *t, const life *l)
{
    return &t->memories[l->host].blocks[l->block];
}

/* ---- lives --------------------------------------------------------------------------------------
 */

static pps_status new_life(story *t, uint32_t *ret)
{
    uint32_t n = t->clock->n_lanes;
    if (t->unused != IR_NONE) {
        *ret = t->unused;
        t->unused = t->lives[*ret].slot;
    } else {
        if (t->n_lives == t->cap_lives) {
            uint32_t cap = t->cap_lives * 2 + 256;
            life *lives = arena_new(t->mem, cap * sizeof *lives);
            uint32_t *touched = arena_new(t->mem, (size_t)cap * n * sizeof *touched);
            if (lives == NULL || touched == NULL)
                return PPS_ERR_NOMEM;
            if (t->n_lives > 0) {
                memcpy(lives, t->lives, t->n_lives * sizeof *lives);
                memcpy(touched, t->touched, (size_t)t->n_lives * n * sizeof *touched);
            }
            t->lives = lives;
            t->touched = touched;
            t->cap_lives = cap;
        }
        *ret = t->n_lives++;
    }
    memset(touched_of(t, *ret), 0, n * sizeof *t->touched);
    return PPS_OK;
}

/* A life is over for good: its block ends with its last use, and a gradient has been used. */
static pps_status check_life(const story *t, uint32_t id)
{
    const life *l = &t->lives[id];
    uint32_t g = t->plan->group, last = 0, listed = block_of(t, l)->last;
    for (uint32_t k = 0; k < t->clock->n_lanes; k++)
        last = touched_of(t, id)[k] > last ? touched_of(t, id)[k] : last;
    if (listed + 1 != last)
        return prove_two(t->p, g, last - 1, 519, "a buffer is listed for longer than it is used",
                         listed, "to here");
    if (t->p->set->buffers[l->buffer].what == PLAN_BLOCK_GRAD && l->reader == IR_NONE)
        return prove_two(t->p, g, l->writer, 543, "a gradient is made and never used", IR_NONE,
                         NULL);
    if (l->host && l->reader == IR_NONE)
        return prove_two(t->p, g, l->writer, 521, "what this copies is never fetched", IR_NONE,
                         NULL);
    return PPS_OK;
}

/* Life `id` loses bytes to the step at hand; its stretches change by `change`. */
static pps_status loses(void *ud, uint32_t id, int change)
{
    story *t = ud;
    life *l = &t->lives[id];
    uint32_t lane;
    if (block_of(t, l)->last >= t->step)
        return wrong(t, 519, "two live buffers share bytes", block_of(t, l)->last,
                     "its bytes are another buffer's until here");
    lane = prove_all_before(t->clock, touched_of(t, id), t->step);
    if (lane != IR_NONE)
        return wrong(t, 519, "a buffer's bytes may still be in use", touched_of(t, id)[lane] - 1,
                     "by this step, which nothing makes end before");
    if (l->whole)
        PPS_TRY(check_life(t, id));
    l->whole = false;
    l->stretches += (uint32_t)change;
    if (l->stretches == 0) {
        l->slot = t->unused;
        t->unused = id;
    }
    return PPS_OK;
}

static pps_status not_listed(const story *t)
{
    return wrong(t, 519, "a step fills a buffer that the plan does not list", IR_NONE, NULL);
}

/* The block of the step at hand with these borders, each taken once. */
static pps_status take_block(story *t, memory *m, uint32_t offset, const plan_buffer *of,
                             uint32_t *ret)
{
    for (uint32_t n = 0; n < m->n_begin; n++) {
        const plan_block *b = &m->blocks[m->next_block + n];
        if (b->offset != offset || plan_block_bytes(b) != of->bytes || b->what != of->what ||
            m->begun[n])
            continue;
        m->begun[n] = 1;
        *ret = m->next_block + n;
        return PPS_OK;
    }
    return not_listed(t);
}

static pps_status begin_life(story *t, uint8_t host, uint32_t buffer, uint32_t number,
                             uint32_t slot, uint32_t units, uint32_t *ret)
{
    memory *m = &t->memories[host];
    uint32_t block = 0;
    if (slot == IR_NONE)
        return not_listed(t);
    PPS_TRY(take_block(t, m, m->space.border[slot], &t->p->set->buffers[buffer], &block));
    PPS_TRY(new_life(t, ret));
    life *l = &t->lives[*ret];
    *l = (life){.buffer = buffer,
                .number = number,
                .slot = slot,
                .end = prove_space_slot(&m->space, m->space.border[slot] + units),
                .block = block,
                .writer = t->step,
                .reader = IR_NONE,
                .stretches = 1,
                .whole = true,
                .host = host};
    return prove_space_paint(&m->space, l->slot, l->end, *ret, loses, t);
}

/* ---- accesses
 * ------------------------------------------------------------------------------------
 */

/* The whole life that begins at `slot`, IR_NONE. */
static uint32_t life_at(const story *t, uint8_t host, uint32_t slot)
{
    uint32_t id = slot != IR_NONE ? t->memories[host].space.owner[slot] : IR_NONE;
    return id != IR_NONE && t->lives[id].whole && t->lives[id].slot == slot ? id : IR_NONE;
}

/* May a step that reads this gradient do so, after another did? */
static bool same_consumer(const story *t, uint32_t a, uint32_t b)
{
    const plan_step *s = &t->plan->steps[a], *o = &t->plan->steps[b];
    return s->kind == PLAN_COMPUTE && o->kind == PLAN_COMPUTE &&
           plan_work_of(t->p->set, s)->chunk == plan_work_of(t->p->set, o)->chunk;
}

static pps_status read_life(story *t, life *l)
{
    bool grad = t->p->set->buffers[l->buffer].what == PLAN_BLOCK_GRAD;
    if (!prove_before(t->clock, l->writer, t->step))
        return wrong(t, 520, "a step uses a buffer that may not be filled yet", l->writer,
                     "filled by this step, which nothing makes end before");
    if (grad && l->reader != IR_NONE && l->reader != t->step &&
        !same_consumer(t, l->reader, t->step))
        return wrong(t, 543, "a gradient is used twice", l->reader, "first used here");
    if (l->host && l->reader != IR_NONE)
        return wrong(t, 518, "a copy is fetched twice", l->reader, "first fetched here");
    l->reader = t->step;
    return PPS_OK;
}

static pps_status write_life(story *t, life *l, uint32_t id)
{
    uint32_t lane = prove_all_before(t->clock, touched_of(t, id), t->step);
    if (lane != IR_NONE)
        return wrong(t, 519, "a buffer is changed that may still be in use",
                     touched_of(t, id)[lane] - 1, "by this step, which nothing makes end before");
    l->writer = t->step;
    return PPS_OK;
}

/* Which of a buffer's a step means. */
static uint32_t number_of(const plan_buffer *b, const plan_step *s)
{
    if (b->per <= 1 || s->mb == IR_NONE)
        return b->per == 0 || s->mb == IR_NONE ? 0 : s->mb;
    return plan_is(s->kind, PLAN_BUCKET) ? s->mb : s->mb / b->per;
}

static pps_status use_binding(story *t, uint32_t k, uint8_t role)
{
    const plan_set *set = t->p->set;
    const plan_step *s = &t->plan->steps[t->step];
    uint32_t buffer = set->work_buffers[plan_work_of(set, s)->buffers + k];
    uint32_t offset = t->plan->bindings[s->bindings + k];
    const plan_buffer *b = &set->buffers[buffer];
    uint8_t host = plan_host_binding(s, k);
    uint64_t units = b->bytes / PLAN_ALIGN + (b->bytes % PLAN_ALIGN != 0);
    if (units == 0)
        return PPS_OK;
    if (units > UINT32_MAX || offset > UINT32_MAX - units)
        return wrong(t, 519, "a buffer lies outside the plan", IR_NONE, NULL);
    if ((b->what == PLAN_BLOCK_HOST) != host)
        return wrong(t, 520, "a buffer is not in the memory that its step means", IR_NONE, NULL);
    uint32_t slot = prove_space_slot(&t->memories[host].space, offset), id = life_at(t, host, slot);
    uint32_t number = number_of(b, s);
    bool there = id != IR_NONE && t->lives[id].buffer == buffer && t->lives[id].number == number;
    if (role == 0) /* a host's own op */
        role = there ? PROVE_READS : PROVE_WRITES;
    if (role & PROVE_BEGINS)
        role = there ? PROVE_READS | PROVE_WRITES : PROVE_WRITES;
    if (role == PROVE_WRITES && there && b->per > 0)
        return wrong(t, 518, "a buffer is filled twice", t->lives[id].writer, "first filled here");
    if (role == PROVE_WRITES) {
        PPS_TRY(begin_life(t, host, buffer, number, slot, (uint32_t)units, &id));
    } else if (!there) {
        return id == IR_NONE
                   ? wrong(t, 520, "a step uses a buffer that is not there", IR_NONE, NULL)
                   : wrong(t, 544, "a step finds another step's buffer", t->lives[id].writer,
                           "filled by this step");
    }
    life *l = &t->lives[id];
    if (t->step > block_of(t, l)->last)
        return wrong(t, 519, "a step uses a buffer after its listed end", block_of(t, l)->last,
                     "the end");
    if (role & PROVE_READS)
        PPS_TRY(read_life(t, l));
    if (role & PROVE_WRITES)
        PPS_TRY(write_life(t, l, id));
    touched_of(t, id)[prove_lane(t->clock, t->step)] = t->step + 1;
    return PPS_OK;
}

/* Bytes that a communication's binding must have; UINT64_MAX: its kind alone does not say. Of what
 * a team shares, a rank has its part in the binding without a capital. */
static uint64_t payload(const story *t, const plan_step *s, char letter)
{
    const plan_work *w = plan_work_of(t->p->set, s);
    bool shares = s->kind == PLAN_SEQ_SCATTER || s->kind == PLAN_SEQ_GATHER ||
                  s->kind == PLAN_SEQ_TAKE || s->kind == PLAN_STATS;
    if (letter < 'a')
        return w->bytes;
    return shares ? w->bytes / t->p->set->teams[w->teams].size : UINT64_MAX;
}

static pps_status use_bindings(story *t)
{
    const plan_set *set = t->p->set;
    const plan_step *s = &t->plan->steps[t->step];
    const plan_work *w = plan_work_of(set, s);
    const char *letters = plan_bindings_of(s->kind);
    const uint8_t *roles = NULL;
    if (s->n_bindings == 0)
        return PPS_OK;
    if (letters == NULL)
        PPS_TRY(prove_program_roles(t->p, w->program, &roles));
    for (uint32_t k = 0; k < s->n_bindings; k++) {
        uint64_t bytes = letters != NULL ? payload(t, s, letters[k]) : UINT64_MAX;
        if (bytes != UINT64_MAX && bytes != set->buffers[set->work_buffers[w->buffers + k]].bytes)
            return wrong(t, 548, "a communication carries other bytes than its buffer has", IR_NONE,
                         NULL);
        PPS_TRY(use_binding(t, k, roles != NULL ? roles[k] : prove_role_of(letters[k])));
    }
    return PPS_OK;
}

/* Blocks that begin at the step at hand; `begun` is cleared for them. */
static pps_status start_step(story *t, memory *m)
{
    uint32_t n = 0;
    while (m->next_block + n < m->n_blocks && m->blocks[m->next_block + n].first == t->step)
        n++;
    if (n > m->cap_begun) {
        m->cap_begun = 2 * n + 16;
        PASS_ALLOC(m->begun, t->mem, m->cap_begun);
    }
    if (n > 0)
        memset(m->begun, 0, n);
    m->n_begin = n;
    return PPS_OK;
}

static pps_status end_step(story *t, memory *m)
{
    for (uint32_t i = 0; i < m->n_begin; i++)
        if (!m->begun[i])
            return wrong(t, 520, "the plan lists a buffer that this step does not fill", IR_NONE,
                         NULL);
    m->next_block += m->n_begin;
    return PPS_OK;
}

static pps_status end_memory(const story *t, const memory *m)
{
    for (uint32_t at = 0; (at = prove_space_next(&m->space, at)) != IR_NONE; at++)
        if (t->lives[m->space.owner[at]].whole)
            PPS_TRY(check_life(t, m->space.owner[at]));
    return PPS_OK;
}

pps_status prove_memory(const prover *p, const plan *mine, const prove_clock *clock, arena *mem)
{
    story t = {.p = p, .plan = mine, .clock = clock, .mem = mem, .unused = IR_NONE};
    t.memories[0] = (memory){.blocks = mine->blocks, .n_blocks = mine->n_blocks};
    t.memories[1] = (memory){.blocks = mine->host_blocks, .n_blocks = mine->n_host_blocks};
    for (int i = 0; i < 2; i++)
        PPS_TRY(prove_space_init(&t.memories[i].space, t.memories[i].blocks, t.memories[i].n_blocks,
                                 mem));
    for (; t.step < mine->n_steps; t.step++) {
        PPS_TRY(start_step(&t, &t.memories[0]));
        PPS_TRY(start_step(&t, &t.memories[1]));
        PPS_TRY(use_bindings(&t));
        PPS_TRY(end_step(&t, &t.memories[0]));
        PPS_TRY(end_step(&t, &t.memories[1]));
    }
    PPS_TRY(end_memory(&t, &t.memories[0]));
    return end_memory(&t, &t.memories[1]);
}
