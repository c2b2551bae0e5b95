/* SPDX-License-Identifier: Apache-2.0
 *
 * exec.c: the walk over a plan. Steps are issued in the plan's order; each joins the queue of its
 * stream. The head of a queue begins once the steps it waits for are done, and leaves when done
 * itself.
 *
 *   issue order  C0  SEND@1  RECV@2  C1  ...        streams  0: C1
 *                                     ^ issued              1: SEND (under way)
 *                                                           2: RECV (under way)
 *
 * Computing occupies this thread (or, on the paced backend, pretends to), so the walk stops at a
 * PLAN_LOCAL step until that can begin, and communication and copies on all streams are advanced
 * there: between computes, and while waiting. What work is, and how to sleep, is the backend's.
 */
#include "runtime/exec/exec.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define EXEC_POISON 1
#else
#define EXEC_POISON 0
#endif

enum { STEP_FUTURE, STEP_QUEUED, STEP_BEGUN, STEP_DONE };

struct exec_streams {
    uint32_t n_streams, n_pending; /* pending: queued or begun */
    uint32_t *head, *tail;         /* [n_streams] queues of steps, IR_NONE when empty */
    uint32_t *next;                /* [n_steps] */
    uint8_t *state;                /* [n_steps] */
    /* with AddressSanitizer: the blocks each step uses, and how many steps use each */
    uint32_t *used_at, *used;    /* [n_steps + 1] into the list */
    uint32_t *n_users, *n_using; /* [n_blocks] in all; not done yet */
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Poisoned blocks ---------------------------------------------------------------------------
 */

#if EXEC_POISON
/* A step uses a block when a binding of it lies there during the block's life. The last user in
 * issue order need not be the last to end: a block is free when all of them are done. */
static bool uses(const plan *p, uint32_t step, const plan_block *b)
{
    const plan_step *s = &p->steps[step];
    bool used = step == b->first || step == b->last;
    for (uint32_t i = 0; i < s->n_bindings && !used; i++)
        used = !plan_host_binding(s, i) && p->bindings[s->bindings + i] - b->offset < b->units;
    return used;
}

static char *block_at(const exec_rank *r, const plan_block *b)
{
    return r->arena + r->plan->act_offset + (uint64_t)b->offset * PLAN_ALIGN;
}

/* Count the users by step, or list them: called twice. */
static void visit_uses(const plan *p, struct exec_streams *x, bool list)
{
    for (uint32_t b = 0; b < p->n_blocks; b++)
        for (uint32_t step = p->blocks[b].first; step <= p->blocks[b].last; step++) {
            if (!uses(p, step, &p->blocks[b]))
                continue;
            if (list)
                x->used[--x->used_at[step + 1]] = b;
            else
                x->used_at[step + 1]++, x->n_users[b]++;
        }
}

static pps_status poison_init(exec_rank *r)
{
    const plan *p = r->plan;
    struct exec_streams *x = r->streams;
    x->used_at = calloc((size_t)p->n_steps + 2, sizeof(uint32_t));
    x->n_users = calloc((size_t)p->n_blocks + 1, sizeof(uint32_t));
    x->n_using = calloc((size_t)p->n_blocks + 1, sizeof(uint32_t));
    if (!x->used_at || !x->n_users || !x->n_using)
        return PPS_ERR_NOMEM;
    visit_uses(p, x, false);
    for (uint32_t i = 0; i < p->n_steps; i++)
        x->used_at[i + 1] += x->used_at[i];
    uint32_t n_uses = x->used_at[p->n_steps];
    x->used = calloc((size_t)n_uses + 1, sizeof(uint32_t));
    if (!x->used)
        return PPS_ERR_NOMEM;
    visit_uses(p, x, true); /* from each range's end: used_at[i + 1] is now where step i's begins */
    memmove(x->used_at, x->used_at + 1, p->n_steps * sizeof(uint32_t));
    x->used_at[p->n_steps] = n_uses;
    for (uint32_t b = 0; b < p->n_blocks; b++)
        ASAN_POISON_MEMORY_REGION(block_at(r, &p->blocks[b]), plan_block_bytes(&p->blocks[b]));
    return PPS_OK;
}

static void poison_begin(exec_rank *r, uint32_t step)
{
    struct exec_streams *x = r->streams;
    if (!x->used)
        return;
    for (uint32_t i = x->used_at[step]; i < x->used_at[step + 1]; i++) {
        const plan_block *b = &r->plan->blocks[x->used[i]];
        if (b->first != step)
            continue;
        x->n_using[x->used[i]] = x->n_users[x->used[i]];
        ASAN_UNPOISON_MEMORY_REGION(block_at(r, b), plan_block_bytes(b));
    }
}

static void poison_end(exec_rank *r, uint32_t step)
{
    struct exec_streams *x = r->streams;
    if (!x->used)
        return;
    for (uint32_t i = x->used_at[step]; i < x->used_at[step + 1]; i++) {
        const plan_block *b = &r->plan->blocks[x->used[i]];
        if (--x->n_using[x->used[i]] == 0)
            ASAN_POISON_MEMORY_REGION(block_at(r, b), plan_block_bytes(b));
    }
}

static void poison_done(exec_rank *r)
{
    if (!r->streams->used)
        return;
    for (uint32_t b = 0; b < r->plan->n_blocks; b++) {
        const plan_block *block = &r->plan->blocks[b];
        ASAN_UNPOISON_MEMORY_REGION(block_at(r, block), plan_block_bytes(block));
    }
}
#else
static pps_status poison_init(exec_rank *r)
{
    (void)r;
    return PPS_OK;
}
static void poison_begin(exec_rank *r, uint32_t step)
{
    (void)r, (void)step;
}
static void poison_end(exec_rank *r, uint32_t step)
{
    (void)r, (void)step;
}
static void poison_done(exec_rank *r)
{
    (void)r;
}
#endif

/* ---- Queues ------------------------------------------------------------------------------------
 */

static bool computes(const plan_step *s)
{
    return plan_is(s->kind, PLAN_LOCAL);
}

static void enqueue(exec_rank *r, uint32_t step)
{
    struct exec_streams *x = r->streams;
    uint16_t stream = r->plan->steps[step].stream;
    x->state[step] = STEP_QUEUED;
    x->next[step] = IR_NONE;
    if (x->head[stream] == IR_NONE)
        x->head[stream] = step;
    else
        x->next[x->tail[stream]] = step;
    x->tail[stream] = step;
    x->n_pending++;
}

/* The first step that `step` waits for and that is not done, or IR_NONE. */
static uint32_t waits_for(const exec_rank *r, uint32_t step)
{
    const plan_step *s = &r->plan->steps[step];
    for (uint32_t i = 0; i < s->n_waits; i++)
        if (r->streams->state[r->plan->waits[s->waits + i]] != STEP_DONE)
            return r->plan->waits[s->waits + i];
    return IR_NONE;
}

static void finish(exec_rank *r, uint32_t step)
{
    struct exec_streams *x = r->streams;
    uint16_t stream = r->plan->steps[step].stream;
    x->state[step] = STEP_DONE;
    x->head[stream] = x->next[step];
    x->n_pending--;
    if (r->marks)
        r->marks[step].end_ns = now_ns() - r->origin_ns;
    poison_end(r, step);
}

static pps_status begin(exec_rank *r, uint32_t step)
{
    bool done = false;
    poison_begin(r, step);
    if (r->marks)
        r->marks[step] = (exec_mark){.begin_ns = now_ns() - r->origin_ns};
    r->failed_step = step;
    PPS_TRY(r->backend->begin(r->backend_self, r, step, &done));
    r->streams->state[step] = STEP_BEGUN;
    if (done)
        finish(r, step);
    return PPS_OK;
}

/* Move the head of one stream as far as it goes; a compute that has not begun is the walk's. */
static pps_status advance_stream(exec_rank *r, uint32_t stream, bool *progress)
{
    struct exec_streams *x = r->streams;
    for (uint32_t step; (step = x->head[stream]) != IR_NONE;) {
        if (x->state[step] == STEP_QUEUED) {
            if (computes(&r->plan->steps[step]) || waits_for(r, step) != IR_NONE)
                return PPS_OK;
            PPS_TRY(begin(r, step));
            *progress = true;
        } else {
            bool done = false;
            r->failed_step = step;
            PPS_TRY(r->backend->poll(r->backend_self, r, step, &done));
            if (done)
                finish(r, step);
        }
        if (x->state[step] != STEP_DONE)
            return PPS_OK;
        *progress = true;
    }
    return PPS_OK;
}

/* Everything that can move, until nothing does. */
static pps_status advance(exec_rank *r)
{
    struct exec_streams *x = r->streams;
    for (bool progress = x->n_pending > 0; progress;) {
        progress = false;
        for (uint32_t stream = 0; stream < x->n_streams; stream++)
            if (x->head[stream] != IR_NONE)
                PPS_TRY(advance_stream(r, stream, &progress));
    }
    return PPS_OK;
}

/* Nothing moves: sleep. `step` is what the walk is stopped at, IR_NONE at the plan's end. */
static pps_status idle(exec_rank *r, uint32_t step)
{
    struct exec_streams *x = r->streams;
    uint32_t blocker = IR_NONE;
    if (step != IR_NONE) {
        blocker = waits_for(r, step);
        if (blocker == IR_NONE)
            blocker = x->head[r->plan->steps[step].stream];
    }
    for (uint32_t stream = 0; stream < x->n_streams && blocker == IR_NONE; stream++)
        blocker = x->head[stream];
    r->failed_step = blocker;
    return r->backend->idle(r->backend_self, r);
}

/* ---- The walk ----------------------------------------------------------------------------------
 */

static pps_status issue_compute(exec_rank *r, uint32_t step)
{
    struct exec_streams *x = r->streams;
    uint16_t stream = r->plan->steps[step].stream;
    for (;;) {
        PPS_TRY(advance(r));
        if (x->head[stream] == step && waits_for(r, step) == IR_NONE)
            return begin(r, step);
        PPS_TRY(idle(r, step));
    }
}

pps_status exec_run_step(exec_rank *r)
{
    struct exec_streams *x = r->streams;
    const plan *p = r->plan;
    memset(x->state, STEP_FUTURE, p->n_steps);
    for (uint32_t step = 0; step < p->n_steps; step++) {
        enqueue(r, step);
        if (computes(&p->steps[step])) {
            PPS_TRY(issue_compute(r, step));
        } else {
            bool progress = false;
            PPS_TRY(advance_stream(r, p->steps[step].stream, &progress));
        }
    }
    for (;;) {
        PPS_TRY(advance(r));
        if (x->n_pending == 0)
            return PPS_OK;
        PPS_TRY(idle(r, IR_NONE));
    }
}

/* ---- Setting up --------------------------------------------------------------------------------
 */

pps_status exec_rank_seat(exec_rank *r)
{
    r->seats = malloc(((size_t)r->set->n_teams + 1) * sizeof(*r->seats));
    if (r->seats != NULL)
        plan_find_seats(r->set, r->rank, r->seats);
    return r->seats != NULL ? PPS_OK : PPS_ERR_NOMEM;
}

pps_status exec_rank_init(exec_rank *r)
{
    const plan *p = r->plan;
    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].stream >= r->set->n_streams)
            return PPS_ERR_ARG;
    struct exec_streams *x = calloc(1, sizeof(*x));
    if (!x)
        return PPS_ERR_NOMEM;
    r->streams = x;
    r->failed_step = IR_NONE;
    x->n_streams = r->set->n_streams;
    x->head = malloc((size_t)x->n_streams * sizeof(uint32_t));
    x->tail = calloc(x->n_streams, sizeof(uint32_t));
    x->next = calloc((size_t)p->n_steps + 1, sizeof(uint32_t));
    x->state = calloc((size_t)p->n_steps + 1, 1);
    if (!x->head || !x->tail || !x->next || !x->state ||
        (r->backend->has_memory && poison_init(r) != PPS_OK)) {
        exec_rank_done(r);
        return PPS_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < x->n_streams; i++)
        x->head[i] = IR_NONE;
    return PPS_OK;
}

void exec_rank_done(exec_rank *r)
{
    struct exec_streams *x = r->streams;
    free(r->seats);
    r->seats = NULL;
    if (!x)
        return;
    poison_done(r);
    free(x->head);
    free(x->tail);
    free(x->next);
    free(x->state);
    free(x->used_at);
    free(x->used);
    free(x->n_users);
    free(x->n_using);
    free(x);
    r->streams = NULL;
}
