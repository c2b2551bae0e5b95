/* SPDX-License-Identifier: Apache-2.0
 *
 * test_slices.c: reduce-scatter and all-gather of the shared-memory ranks: every slice where it
 * belongs, in place and apart, added or not, whole or in pieces, for groups of 1 to 4 ranks; sums
 * in group order; sizes that do not divide, or leave a rank's memory, refused.
 */
#include "runtime/coll/coll.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_RANKS = 4, SLICE = 3000, ROUNDS = 6 }; /* floats; more than one block of a sum */

typedef struct runner {
    coll_world *world;
    uint32_t rank, n;
    pps_status status;
    bool right;
} runner;

static const uint32_t group[MAX_RANKS] = {0, 1, 2, 3};

/* What rank `r` has at element `i` in a round: of sizes so different that the order of sums shows.
 */
static float value(uint32_t r, uint64_t i, int round)
{
    static const float scale[MAX_RANKS] = {1.0f, 1e8f, -1e8f, 3.0f};
    return scale[r] * (1.0f + (float)((i + (uint64_t)round) % 7));
}

static float sum(uint32_t n, uint64_t i, int round)
{
    float total = value(0, i, round);
    for (uint32_t r = 1; r < n; r++)
        total += value(r, i, round);
    return total;
}

static pps_status run_op(coll_rank *r, coll_op *op)
{
    bool done = false;
    PPS_TRY(coll_start(r, op));
    while (!done) {
        PPS_TRY(coll_poll(r, op, &done));
        if (!done)
            PPS_TRY(coll_wait_any(r, 100000000));
    }
    return PPS_OK;
}

/* Rounds alternate: sums in place, sums apart, sums added; then each rank's slice goes to all. */
static pps_status one_round(runner *run, coll_rank *r, int round)
{
    uint32_t n = run->n, own = run->rank * SLICE;
    float *all = coll_world_arena(run->world, run->rank), *apart = all + MAX_RANKS * SLICE;
    bool in_place = round % 3 == 0, add = round % 3 == 2;
    coll_op op = {.kind = COLL_REDUCE_SCATTER,
                  .flags = add ? COLL_ADD : 0,
                  .seq = 2 * (uint32_t)round + 1,
                  .group = group,
                  .group_size = n,
                  .group_index = run->rank,
                  .send = all,
                  .recv = in_place ? all + own : apart,
                  .bytes = (uint64_t)n * SLICE * 4};
    for (uint64_t i = 0; i < (uint64_t)n * SLICE; i++)
        all[i] = value(run->rank, i, round);
    for (uint64_t i = 0; i < SLICE; i++)
        apart[i] = 0.5f;
    PPS_TRY(run_op(r, &op));
    const float *mine = op.recv;
    for (uint64_t i = 0; i < SLICE; i++)
        run->right &= mine[i] == (add ? 0.5f : 0.0f) + sum(n, own + i, round);
    for (uint64_t i = 0; i < (uint64_t)n * SLICE; i++) /* what is not ours is as it was */
        run->right &= (in_place && i / SLICE == run->rank) || all[i] == value(run->rank, i, round);
    run->right &= op.sent_bytes == (n - 1) * (uint64_t)SLICE * 4;

    op.kind = COLL_ALL_GATHER;
    op.flags = 0;
    op.seq++;
    op.send = op.recv;
    op.recv = all;
    PPS_TRY(run_op(r, &op));
    for (uint64_t i = 0; i < (uint64_t)n * SLICE; i++)
        run->right &= all[i] == (add ? 0.5f : 0.0f) + sum(n, i, round);
    run->right &= op.sent_bytes == (n - 1) * (uint64_t)SLICE * 4;
    return coll_barrier(r);
}

/* Slices in pieces of PIECE floats: piece k of rank i is the (k n + i)-th of all. */
static pps_status pieces_round(runner *run, coll_rank *r, int round)
{
    enum { PIECE = SLICE / 3 };
    uint32_t n = run->n;
    float *all = coll_world_arena(run->world, run->rank), *apart = all + MAX_RANKS * SLICE;
    coll_op op = {.kind = COLL_REDUCE_SCATTER,
                  .seq = 100 + 2 * (uint32_t)round,
                  .group = group,
                  .group_size = n,
                  .group_index = run->rank,
                  .send = all,
                  .recv = apart,
                  .width = PIECE * 4,
                  .bytes = (uint64_t)n * SLICE * 4};
    for (uint64_t i = 0; i < (uint64_t)n * SLICE; i++)
        all[i] = value(run->rank, i, round);
    PPS_TRY(run_op(r, &op));
    for (uint64_t i = 0; i < SLICE; i++)
        run->right &= apart[i] == sum(n, (i / PIECE * n + run->rank) * PIECE + i % PIECE, round);
    run->right &= op.sent_bytes == (n - 1) * (uint64_t)SLICE * 4;

    op.kind = COLL_ALL_GATHER;
    op.seq++;
    op.send = apart;
    op.recv = all;
    PPS_TRY(run_op(r, &op));
    for (uint64_t i = 0; i < (uint64_t)n * SLICE; i++)
        run->right &= all[i] == sum(n, i, round);
    run->right &= op.sent_bytes == (n - 1) * (uint64_t)SLICE * 4;
    return coll_barrier(r);
}

static void *run_rank(void *ud)
{
    runner *run = ud;
    coll_rank *r;
    run->right = true;
    run->status = coll_rank_new(run->world, run->rank, &r);
    for (int round = 0; round < ROUNDS && run->status == PPS_OK; round++)
        run->status = one_round(run, r, round);
    for (int round = 0; round < ROUNDS && run->status == PPS_OK; round++)
        run->status = pieces_round(run, r, round);
    if (run->status != PPS_OK)
        coll_world_abort(run->world, run->rank, run->status);
    coll_rank_free(r);
    return NULL;
}

static coll_world *new_world(uint32_t n)
{
    uint64_t bytes[MAX_RANKS];
    char reason[256];
    coll_world *w;
    for (uint32_t i = 0; i < n; i++)
        bytes[i] = (MAX_RANKS + 1) * SLICE * 4;
    coll_config config = {.n_ranks = n, .arena_bytes = bytes, .channels = 1, .max_group = n};
    assert_int_equal(coll_world_new(&config, &w, reason), PPS_OK);
    return w;
}

static void slices_are_summed_and_gathered(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= MAX_RANKS; n++) {
        coll_world *w = new_world(n);
        runner runs[MAX_RANKS];
        pthread_t threads[MAX_RANKS];
        for (uint32_t i = 0; i < n; i++) {
            runs[i] = (runner){.world = w, .rank = i, .n = n};
            assert_int_equal(pthread_create(&threads[i], NULL, run_rank, &runs[i]), 0);
        }
        for (uint32_t i = 0; i < n; i++)
            pthread_join(threads[i], NULL);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(runs[i].status, PPS_OK);
            assert_true(runs[i].right);
        }
        coll_world_free(w);
    }
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    coll_world *w = new_world(2);
    coll_rank *r;
    char *memory = coll_world_arena(w, 0), *end = memory + (MAX_RANKS + 1) * SLICE * 4;
    assert_int_equal(coll_rank_new(w, 0, &r), PPS_OK);
    const struct {
        coll_kind kind;
        char *send, *recv;
        uint64_t bytes;
        uint32_t width;
    } rows[] = {
        {COLL_REDUCE_SCATTER, memory, memory + 64, 32, 12}, /* pieces do not make up a slice */
        {COLL_ALL_GATHER, memory + 64, memory, 32, 6},
        {COLL_REDUCE_SCATTER, memory, memory, 12}, /* one float and a half each */
        {COLL_ALL_GATHER, memory, memory, 12},
        {COLL_REDUCE_SCATTER, end - 8, memory, 16},
        {COLL_REDUCE_SCATTER, memory, end - 4, 16},
        {COLL_ALL_GATHER, end - 4, memory, 16},
        {COLL_ALL_GATHER, memory, end - 8, 16},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        coll_op op = {.kind = rows[i].kind,
                      .seq = 1,
                      .group = group,
                      .group_size = 2,
                      .send = rows[i].send,
                      .recv = rows[i].recv,
                      .width = rows[i].width,
                      .bytes = rows[i].bytes};
        assert_int_equal(coll_start(r, &op), PPS_ERR_ARG);
    }
    coll_rank_free(r);
    coll_world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_are_summed_and_gathered),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
