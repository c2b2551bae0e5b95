/* SPDX-License-Identifier: Apache-2.0
 *
 * rank_threads.c: see rank_threads.h.
 */
#include "rank_threads.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/coll/coll.h"
#include "runtime/train/train.h"

typedef struct rank_thread {
    rank_threads *all;
    coll_world *world;
    train_data *data;
    uint32_t rank;
    pps_status status;
    uint64_t last_step_ns;
    double *losses;
    void *inner; /* the backend's self */
} rank_thread;

/* ---- Between executor and backend --------------------------------------------------------------
 */

static const exec_backend *inner_of(const rank_thread *t)
{
    return t->all->paced ? &exec_paced_backend : &exec_cpu_backend;
}

static void tell(void (*hook)(void *ud, exec_rank *r, uint32_t step), const rank_thread *t,
                 exec_rank *r, uint32_t step)
{
    if (hook)
        hook(t->all->watch.ud, r, step);
}

static pps_status watched_begin(void *self, exec_rank *r, uint32_t step, bool *ret_done)
{
    rank_thread *t = self;
    tell(t->all->watch.before, t, r, step);
    PPS_TRY(inner_of(t)->begin(t->inner, r, step, ret_done));
    if (*ret_done)
        tell(t->all->watch.after, t, r, step);
    return PPS_OK;
}

static pps_status watched_poll(void *self, exec_rank *r, uint32_t step, bool *ret_done)
{
    rank_thread *t = self;
    PPS_TRY(inner_of(t)->poll(t->inner, r, step, ret_done));
    if (*ret_done)
        tell(t->all->watch.after, t, r, step);
    return PPS_OK;
}

static pps_status watched_idle(void *self, exec_rank *r)
{
    rank_thread *t = self;
    return inner_of(t)->idle(t->inner, r);
}

/* ---- A rank ------------------------------------------------------------------------------------
 */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool reads_data(const plan_set *set, const plan *p, uint32_t input)
{
    for (uint32_t i = 0; i < p->n_steps; i++) {
        if (p->steps[i].kind != PLAN_COMPUTE)
            continue;
        const plan_program *program = &set->programs[plan_work_of(set, &p->steps[i])->program];
        for (uint32_t k = program->kernels; k < program->kernels + program->n_kernels; k++)
            for (uint32_t j = 0; j < set->kernels[k].n_operands; j++) {
                const plan_operand *o = &set->operands[set->kernels[k].operands + j];
                if (o->space == PLAN_DATA && o->index == input)
                    return true;
            }
    }
    return false;
}

static pps_status one_step(rank_thread *t, exec_rank *r)
{
    const plan_set *set = r->set;
    const plan *p = r->plan;
    for (uint32_t k = 0; !t->all->paced && k < set->n_data; k++)
        if (reads_data(set, p, k))
            train_data_fill(t->data, k, r->epoch, train_share_of(set, r->rank),
                            r->arena + p->data_offset + set->data[k].offset);
    uint64_t begin_ns = now_ns();
    if (t->all->watch.loop)
        t->all->watch.loop(t->all->watch.ud, r, true);
    pps_status status = exec_run_step(r);
    if (t->all->watch.loop)
        t->all->watch.loop(t->all->watch.ud, r, false);
    t->last_step_ns = now_ns() - begin_ns;
    return status;
}

static pps_status all_steps(rank_thread *t, exec_rank *r, coll_rank *coll)
{
    rank_threads *all = t->all;
    const exec_backend watched = {"watched", watched_begin, watched_poll, watched_idle,
                                  !all->paced};
    PPS_TRY(exec_rank_seat(r));
    if (all->paced)
        PPS_TRY(exec_paced_backend_new(r, coll, all->paced, &t->inner));
    else
        PPS_TRY(exec_cpu_backend_new(r, coll, all->blas, &t->inner));
    r->backend = &watched;
    r->backend_self = t;
    pps_status status = exec_rank_init(r);
    if (status == PPS_OK && !all->paced)
        train_fill_params(r->set, r->plan, r->seats, NULL, r->arena);
    for (r->epoch = 0; r->epoch < all->steps && status == PPS_OK; r->epoch++) {
        status = coll_barrier(coll);
        if (status == PPS_OK)
            status = one_step(t, r);
    }
    exec_rank_done(r);
    if (all->paced)
        exec_paced_backend_free(t->inner);
    else
        exec_cpu_backend_free(t->inner);
    return status;
}

static void *rank_main(void *ud)
{
    rank_thread *t = ud;
    const plan_set *set = t->all->compiled->set;
    coll_rank *coll = NULL;
    exec_rank r = {.set = set,
                   .plan = &set->plans[set->rank_group[t->rank]],
                   .rank = t->rank,
                   .group_index = set->rank_index[t->rank],
                   .arena = coll_world_arena(t->world, t->rank),
                   .host = exec_cpu_host(&set->plans[set->rank_group[t->rank]],
                                         coll_world_arena(t->world, t->rank)),
                   .losses = t->losses,
                   .lr_scale = 1};
    t->status = coll_rank_new(t->world, t->rank, &coll);
    if (t->status == PPS_OK)
        t->status = all_steps(t, &r, coll);
    if (t->status != PPS_OK)
        coll_world_abort(t->world, t->rank, t->status);
    coll_rank_free(coll);
    return NULL;
}

/* ---- All of them -------------------------------------------------------------------------------
 */

static void gather(rank_threads *all, coll_world *world)
{
    const plan_set *set = all->compiled->set;
    train_layout layout;
    assert_int_equal(train_layout_new(set, &layout), PPS_OK);
    char *params = calloc(1, layout.bytes + 1);
    assert_non_null(params);
    plan_seat *seats = calloc(set->n_teams, sizeof *seats);
    assert_non_null(seats);
    for (uint32_t i = 0; i < set->n_ranks; i++) {
        const plan *p = &set->plans[set->rank_group[i]];
        plan_find_seats(set, i, seats);
        for (uint32_t b = 0; b < p->n_buckets; b++)
            train_export(set, p, &p->buckets[b], PLAN_AREA_PARAMS, seats,
                         set->rank_speaks[p->ranks + set->rank_index[i]],
                         coll_world_arena(world, i), &layout, params);
    }
    free(seats);
    train_sha256(set, &layout, params, all->sha256);
    free(params);
    train_layout_done(&layout);
}

static coll_world *new_world(const rank_threads *all)
{
    const plan_set *set = all->compiled->set;
    uint64_t *bytes = calloc(set->n_ranks, sizeof *bytes);
    coll_config config = {.n_ranks = set->n_ranks,
                          .arena_bytes = bytes,
                          .channels = set->n_streams,
                          .max_group = set->n_ranks > 2 ? set->n_ranks : 2};
    coll_world *world = NULL;
    char reason[256] = "";
    for (uint32_t i = 0; i < set->n_ranks; i++)
        bytes[i] = all->paced ? exec_paced_arena_bytes(set)
                              : exec_cpu_arena_bytes(&set->plans[set->rank_group[i]]);
    if (coll_world_new(&config, &world, reason) != PPS_OK)
        fail_msg("no segment: %s", reason);
    free(bytes);
    return world;
}

void rank_threads_run(rank_threads *all)
{
    const plan_set *set = all->compiled->set;
    coll_world *world = new_world(all);
    train_data *data = NULL;
    rank_thread *ranks = calloc(set->n_ranks, sizeof *ranks);
    pthread_t *threads = calloc(set->n_ranks, sizeof *threads);
    double *losses = calloc((size_t)set->n_ranks * set->n_losses + 1, sizeof *losses);
    if (!all->paced)
        assert_int_equal(train_data_open(all->compiled->st, set, NULL, &data), PPS_OK);
    for (uint32_t i = 0; i < set->n_ranks; i++) {
        ranks[i] = (rank_thread){.all = all,
                                 .world = world,
                                 .data = data,
                                 .rank = i,
                                 .losses = losses + (size_t)i * set->n_losses};
        assert_int_equal(pthread_create(&threads[i], NULL, rank_main, &ranks[i]), 0);
    }
    all->last_step_ns = 0;
    for (uint32_t i = 0; i < set->n_ranks; i++) {
        pthread_join(threads[i], NULL);
        if (ranks[i].last_step_ns > all->last_step_ns)
            all->last_step_ns = ranks[i].last_step_ns;
    }
    for (uint32_t i = 0; i < set->n_ranks; i++)
        assert_int_equal(ranks[i].status, PPS_OK);
    all->loss = 0;
    for (uint32_t i = 0; i < set->n_ranks * set->n_losses; i++)
        all->loss += losses[i];
    if (!all->paced)
        gather(all, world);
    if (data)
        train_data_close(data);
    free(losses);
    free(threads);
    free(ranks);
    coll_world_free(world);
}
