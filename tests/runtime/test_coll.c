/* SPDX-License-Identifier: Apache-2.0
 *
 * Communication between ranks: what arrives, that it is the same on every run and rank, and how it
 * ends when ranks disagree or one is lost. Every case runs with threads; most also with forked
 * processes.
 *
 * A case is a function that each rank runs; a rank fails by returning a number, which names the
 * check.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/coll/coll.h"

enum { MAX_RANKS = 4, ARENA = 1 << 20, CHANNELS = 5 };

typedef struct case_cx {
    coll_world *world;
    uint32_t rank, n_ranks;
    int (*body)(struct case_cx *cx, coll_rank *r, char *arena);
    int result;
} case_cx;

#define CHECK(condition)     \
    do {                     \
        if (!(condition))    \
            return __LINE__; \
    } while (0)

static const uint32_t everyone[MAX_RANKS] = {0, 1, 2, 3};

/* ---- Running a case ----------------------------------------------------------------------------
 */

static coll_world *new_world(uint32_t n_ranks)
{
    uint64_t bytes[MAX_RANKS] = {ARENA, ARENA, ARENA, ARENA};
    coll_config config = {.n_ranks = n_ranks,
                          .arena_bytes = bytes,
                          .board_bytes = 4096,
                          .channels = CHANNELS,
                          .max_group = n_ranks};
    coll_world *w = NULL;
    char reason[256];
    assert_int_equal(coll_world_new(&config, &w, reason), PPS_OK);
    return w;
}

static void *run_rank(void *ud)
{
    case_cx *cx = ud;
    coll_rank *r = NULL;
    cx->result = -1;
    if (coll_rank_new(cx->world, cx->rank, &r) == PPS_OK)
        cx->result = cx->body(cx, r, coll_world_arena(cx->world, cx->rank));
    coll_rank_free(r);
    return NULL;
}

static void run_threads(uint32_t n_ranks, int (*body)(case_cx *, coll_rank *, char *))
{
    case_cx cx[MAX_RANKS];
    pthread_t threads[MAX_RANKS];
    coll_world *w = new_world(n_ranks);
    for (uint32_t i = 0; i < n_ranks; i++) {
        cx[i] = (case_cx){w, i, n_ranks, body, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, run_rank, &cx[i]), 0);
    }
    for (uint32_t i = 0; i < n_ranks; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < n_ranks; i++)
        assert_int_equal(cx[i].result, 0);
    coll_world_free(w);
}

static pid_t fork_rank(coll_world *w, uint32_t rank, uint32_t n_ranks,
                       int (*body)(case_cx *, coll_rank *, char *))
{
    pid_t pid = fork();
    if (pid == 0) {
        case_cx cx = {w, rank, n_ranks, body, 0};
        run_rank(&cx);
        if (cx.result)
            fprintf(stderr, "rank %u: check in line %d\n", rank, cx.result);
        _exit(cx.result != 0);
    }
    return pid;
}

static void run_processes(uint32_t n_ranks, int (*body)(case_cx *, coll_rank *, char *))
{
    pid_t pids[MAX_RANKS];
    coll_world *w = new_world(n_ranks);
    for (uint32_t i = 0; i < n_ranks; i++)
        pids[i] = fork_rank(w, i, n_ranks, body);
    for (uint32_t i = 0; i < n_ranks; i++) {
        int status = -1;
        waitpid(pids[i], &status, 0);
        assert_int_equal(status, 0);
    }
    coll_world_free(w);
}

/* Drive several operations to their end, sleeping in between. */
static pps_status finish_ops(coll_rank *r, coll_op *ops, uint32_t n)
{
    bool done[16] = {false};
    for (;;) {
        uint32_t n_done = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (!done[i])
                PPS_TRY(coll_poll(r, &ops[i], &done[i]));
            n_done += done[i];
        }
        if (n_done == n)
            return PPS_OK;
        PPS_TRY(coll_wait_any(r, 1000000000u));
    }
}

static pps_status run_op(coll_rank *r, coll_op *op)
{
    PPS_TRY(coll_start(r, op));
    return finish_ops(r, op, 1);
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* ---- Point to point ----------------------------------------------------------------------------
 */

static void fill(char *p, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (char)(seed * 31 + i * 7 + i / 256);
}

static bool holds(const char *p, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != (char)(seed * 31 + i * 7 + i / 256))
            return false;
    return true;
}

/* Both ranks send to each other on every channel at once, with sizes that are odd, zero and large.
 */
static int both_directions(case_cx *cx, coll_rank *r, char *arena)
{
    static const uint64_t sizes[CHANNELS] = {1, 0, 4097, 65536, 12345};
    uint32_t peer = !cx->rank;
    for (uint64_t epoch = 0; epoch < 20; epoch++) {
        coll_op ops[2 * CHANNELS];
        for (uint32_t c = 0; c < CHANNELS; c++) {
            char *out = arena + (uint64_t)c * 65536, *in = arena + (uint64_t)(CHANNELS + c) * 65536;
            fill(out, sizes[c], cx->rank + 2 * c + 100 * (uint32_t)epoch);
            ops[2 * c] = (coll_op){.kind = COLL_SEND, .channel = c, .epoch = epoch, .peer = peer};
            ops[2 * c + 1] =
                (coll_op){.kind = COLL_RECV, .channel = c, .epoch = epoch, .peer = peer};
            ops[2 * c].seq = 1 + 2 * c + cx->rank;
            ops[2 * c + 1].seq = 1 + 2 * c + peer;
            ops[2 * c].send = out;
            ops[2 * c + 1].recv = in;
            ops[2 * c].bytes = ops[2 * c + 1].bytes = sizes[c];
            CHECK(coll_start(r, &ops[2 * c]) == PPS_OK);
            CHECK(coll_start(r, &ops[2 * c + 1]) == PPS_OK);
        }
        CHECK(finish_ops(r, ops, 2 * CHANNELS) == PPS_OK);
        for (uint32_t c = 0; c < CHANNELS; c++) {
            const char *in = arena + (uint64_t)(CHANNELS + c) * 65536;
            CHECK(holds(in, sizes[c], peer + 2 * c + 100 * (uint32_t)epoch));
            CHECK(ops[2 * c].sent_bytes == sizes[c] && ops[2 * c + 1].sent_bytes == 0);
        }
    }
    return 0;
}

/* More sends under way than a lane has entries: they arrive, in order. */
static int many_under_way(case_cx *cx, coll_rank *r, char *arena)
{
    enum { N = 11 };
    coll_op ops[N];
    for (uint32_t i = 0; i < N; i++) {
        char *data = arena + (uint64_t)i * 64;
        if (cx->rank == 0)
            fill(data, 64, i);
        ops[i] = (coll_op){.kind = cx->rank ? COLL_RECV : COLL_SEND, .channel = 1, .seq = i + 1};
        ops[i].peer = !cx->rank;
        ops[i].send = ops[i].recv = data;
        ops[i].bytes = 64;
        CHECK(coll_start(r, &ops[i]) == PPS_OK);
    }
    CHECK(finish_ops(r, ops, N) == PPS_OK);
    for (uint32_t i = 0; i < N; i++)
        CHECK(holds(arena + (uint64_t)i * 64, 64, i));
    return 0;
}

/* A send is looked at only after its lane entry was used again: it is done all the same. Two ranks
 * in one thread, so that the order is this one. */
static void test_late_look(void **state)
{
    (void)state;
    enum { N = 5 };
    coll_world *w = new_world(2);
    coll_rank *from, *to;
    coll_op sends[N], receives[N];
    bool done;
    assert_int_equal(coll_rank_new(w, 0, &from), PPS_OK);
    assert_int_equal(coll_rank_new(w, 1, &to), PPS_OK);
    for (uint32_t i = 0; i < N; i++) {
        sends[i] = (coll_op){.kind = COLL_SEND, .seq = i, .peer = 1, .bytes = 8};
        receives[i] = (coll_op){.kind = COLL_RECV, .seq = i, .peer = 0, .bytes = 8};
        sends[i].send = coll_world_arena(w, 0);
        receives[i].recv = coll_world_arena(w, 1);
        assert_int_equal(coll_start(from, &sends[i]), PPS_OK);
        assert_int_equal(coll_start(to, &receives[i]), PPS_OK);
        assert_int_equal(coll_poll(from, &sends[i], &done), PPS_OK);
        assert_false(done);
    }
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(coll_poll(from, &sends[N - 1], &done), PPS_OK);
        assert_int_equal(coll_poll(to, &receives[i], &done), PPS_OK);
        assert_true(done);
    }
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(coll_poll(from, &sends[i], &done), PPS_OK);
        assert_true(done);
    }
    coll_rank_free(from);
    coll_rank_free(to);
    coll_world_free(w);
}

static void test_p2p(void **state)
{
    (void)state;
    run_threads(2, both_directions);
    run_processes(2, both_directions);
    run_threads(2, many_under_way);
    run_processes(2, many_under_way);
}

/* ---- All-reduce --------------------------------------------------------------------------------
 */

static float part_of(uint32_t rank, uint64_t i, uint64_t round)
{
    uint64_t state = rank * 1000003u + i * 7919u + round;
    next_random(&state);
    return ((float)next_random(&state) - 1e9f) * 1.37e-7f;
}

static int reduce_odd_sizes(case_cx *cx, coll_rank *r, char *arena)
{
    static const uint64_t sizes[] = {0, 1, 2, 3, 5, 1023, 1024, 4099, 50001};
    float *data = (float *)arena;
    for (uint64_t round = 0; round < sizeof(sizes) / sizeof(sizes[0]); round++) {
        uint64_t n = sizes[round];
        for (uint64_t i = 0; i < n; i++)
            data[i] = part_of(cx->rank, i, round);
        coll_op op = {
            .kind = COLL_ALL_REDUCE, .channel = (uint32_t)round % CHANNELS, .epoch = round};
        op.seq = 7;
        op.group = everyone;
        op.group_size = cx->n_ranks;
        op.group_index = cx->rank;
        op.send = data;
        op.bytes = n * sizeof(float);
        CHECK(run_op(r, &op) == PPS_OK);
        for (uint64_t i = 0; i < n; i++) {
            float sum = part_of(0, i, round); /* group order: these very bits */
            for (uint32_t g = 1; g < cx->n_ranks; g++)
                sum += part_of(g, i, round);
            CHECK(memcmp(&sum, &data[i], sizeof(sum)) == 0);
        }
        uint64_t own = n * (cx->rank + 1) / cx->n_ranks - n * cx->rank / cx->n_ranks;
        CHECK(op.sent_bytes == (n - own + own * (cx->n_ranks - 1)) * sizeof(float));
    }
    return 0;
}

/* Two groups at once, {0, 2} and {1, 3}, in an order of ranks that is not ascending. */
static int reduce_subgroups(case_cx *cx, coll_rank *r, char *arena)
{
    static const uint32_t groups[2][2] = {{2, 0}, {3, 1}};
    float *data = (float *)arena;
    for (uint64_t epoch = 0; epoch < 50; epoch++) {
        for (uint64_t i = 0; i < 333; i++)
            data[i] = (float)(cx->rank + 1) * (float)(i + epoch);
        coll_op op = {.kind = COLL_ALL_REDUCE, .channel = 2, .seq = 1, .epoch = epoch};
        op.group = groups[cx->rank % 2];
        op.group_size = 2;
        op.group_index = cx->rank < 2;
        op.send = data;
        op.bytes = 333 * sizeof(float);
        CHECK(run_op(r, &op) == PPS_OK);
        for (uint64_t i = 0; i < 333; i++)
            CHECK(data[i] == (float)(2 * (cx->rank % 2) + 4) * (float)(i + epoch));
    }
    return 0;
}

static void test_all_reduce(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= MAX_RANKS; n++) {
        run_threads(n, reduce_odd_sizes);
        run_processes(n, reduce_odd_sizes);
    }
    run_threads(4, reduce_subgroups);
    run_processes(4, reduce_subgroups);
}

/* ---- All-to-all --------------------------------------------------------------------------------
 */

enum { EXPERTS = 8, WIDTH = 12, MAX_ROWS = 9 };

static int32_t count_of(uint32_t rank, uint32_t expert, uint64_t round)
{
    uint64_t state = rank * 131u + expert * 17u + round * 1009u;
    next_random(&state);
    if (round == 0)
        return 0;
    int32_t n = (int32_t)(next_random(&state) % (2 * MAX_ROWS)) - MAX_ROWS; /* half of them 0 */
    return n < 0 ? 0 : n;
}

static void make_row(char *row, uint32_t rank, uint32_t expert, int32_t i)
{
    fill(row, WIDTH, rank * 10007u + expert * 101u + (uint32_t)i);
}

static coll_op group_op(const case_cx *cx, coll_kind kind, uint32_t seq, uint64_t epoch)
{
    return (coll_op){.kind = kind,
                     .channel = 3,
                     .seq = seq,
                     .epoch = epoch,
                     .group = everyone,
                     .group_size = cx->n_ranks,
                     .group_index = cx->rank,
                     .experts = EXPERTS};
}

/* Counts, rows out to the experts' owners and back again; each row carries where it came from. */
static int there_and_back(case_cx *cx, coll_rank *r, char *arena)
{
    int32_t *own = (int32_t *)arena, *all = own + EXPERTS;
    char *rows = arena + 4096, *at_owner = arena + 65536, *back = arena + 3 * 65536;
    uint32_t n = cx->n_ranks, first = cx->rank * EXPERTS / n, end = (cx->rank + 1) * EXPERTS / n;
    for (uint64_t round = 0; round < 40; round++) {
        uint64_t n_own = 0, n_self = 0, n_in = 0;
        for (uint32_t e = 0; e < EXPERTS; e++) {
            own[e] = count_of(cx->rank, e, round);
            for (int32_t i = 0; i < own[e]; i++)
                make_row(rows + WIDTH * n_own++, cx->rank, e, i);
            n_self += e >= first && e < end ? (uint64_t)own[e] : 0;
        }
        coll_op counts = group_op(cx, COLL_COUNTS, 1, round);
        counts.send = own;
        counts.recv = all;
        CHECK(run_op(r, &counts) == PPS_OK);
        for (uint32_t g = 0; g < n; g++)
            for (uint32_t e = 0; e < EXPERTS; e++)
                CHECK(all[g * EXPERTS + e] == count_of(g, e, round));
        CHECK(counts.sent_bytes == (n - 1) * EXPERTS * sizeof(int32_t));
        coll_op out = group_op(cx, COLL_ALL_TO_ALL, 2, round);
        out.send = rows;
        out.recv = at_owner;
        out.counts = all;
        out.width = WIDTH;
        out.bytes = 2 * 65536;
        CHECK(run_op(r, &out) == PPS_OK);
        CHECK(out.sent_bytes == (n_own - n_self) * WIDTH);
        for (uint32_t e = first; e < end; e++)
            for (uint32_t g = 0; g < n; g++)
                for (int32_t i = 0; i < count_of(g, e, round); i++) {
                    char row[WIDTH];
                    make_row(row, g, e, i);
                    CHECK(memcmp(row, at_owner + WIDTH * n_in++, WIDTH) == 0);
                }
        memset(back, 0, 65536);
        coll_op ret = out;
        ret.seq = 3;
        ret.flags = COLL_RETURN;
        ret.send = at_owner;
        ret.recv = back;
        ret.bytes = n_own * WIDTH; /* exactly enough */
        CHECK(run_op(r, &ret) == PPS_OK);
        CHECK(ret.sent_bytes == (n_in - n_self) * WIDTH);
        CHECK(memcmp(back, rows, n_own * WIDTH) == 0);
    }
    return 0;
}

static int too_many_rows(case_cx *cx, coll_rank *r, char *arena)
{
    int32_t *all = (int32_t *)arena;
    for (uint32_t i = 0; i < cx->n_ranks * EXPERTS; i++)
        all[i] = 2;
    coll_op out = group_op(cx, COLL_ALL_TO_ALL, 2, 0);
    out.send = arena + 4096;
    out.recv = arena + 65536;
    out.counts = all;
    out.width = WIDTH;
    out.bytes = (2 * EXPERTS - 1) * WIDTH; /* one row short */
    CHECK(coll_start(r, &out) == PPS_ERR_LIMIT);
    return 0;
}

static void test_all_to_all(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= MAX_RANKS; n++) {
        run_threads(n, there_and_back);
        run_processes(n, there_and_back);
    }
    run_threads(2, too_many_rows);
}

/* Every distance there, and back again: each rank gets its own. */
static int around(case_cx *cx, coll_rank *r, char *arena)
{
    enum { N = 100 };
    uint32_t *own = (uint32_t *)arena, *there = own + 2 * N, *home = own + 4 * N;
    for (uint64_t round = 0; round < 40; round++)
        for (uint32_t shift = 1; shift < cx->n_ranks; shift++) {
            for (uint32_t i = 0; i < N; i++)
                own[i] = (uint32_t)(cx->rank * 1000 + i + round);
            coll_op op = group_op(cx, COLL_SHIFT, shift, round);
            op.shift = shift;
            op.send = own;
            op.recv = there;
            op.bytes = N * sizeof *own;
            CHECK(run_op(r, &op) == PPS_OK);
            CHECK(op.sent_bytes == N * sizeof *own);
            uint32_t from = (cx->rank + cx->n_ranks - shift) % cx->n_ranks;
            for (uint32_t i = 0; i < N; i++)
                CHECK(there[i] == from * 1000 + i + round);
            op.seq += MAX_RANKS;
            op.flags = COLL_RETURN;
            op.send = there;
            op.recv = home;
            CHECK(run_op(r, &op) == PPS_OK);
            CHECK(memcmp(own, home, N * sizeof *own) == 0);
        }
    return 0;
}

/* A shift over no rank, over all, and one that its peer believes to be longer. */
static int odd_shifts(case_cx *cx, coll_rank *r, char *arena)
{
    coll_op op = group_op(cx, COLL_SHIFT, 1, 0);
    op.send = arena;
    op.recv = arena + 64;
    op.bytes = 64;
    CHECK(coll_start(r, &op) == PPS_ERR_ARG);
    op.shift = cx->n_ranks;
    CHECK(coll_start(r, &op) == PPS_ERR_ARG);
    op.shift = cx->rank == 1 ? 2 : 1;
    CHECK(run_op(r, &op) == PPS_ERR_COLL);
    return 0;
}

static void test_shift(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= MAX_RANKS; n++) {
        run_threads(n, around);
        run_processes(n, around);
    }
    run_threads(3, odd_shifts);
}

/* ---- Disagreement and loss ---------------------------------------------------------------------
 */

/* Rank 1 is one communication ahead: it gets an error that names both, and so does rank 0. */
static int other_sequence(case_cx *cx, coll_rank *r, char *arena)
{
    coll_op op = {.kind = COLL_ALL_REDUCE, .seq = 5 + cx->rank, .group = everyone};
    op.group_size = 2;
    op.group_index = cx->rank;
    op.send = arena;
    op.bytes = 64;
    CHECK(run_op(r, &op) == PPS_ERR_COLL);
    CHECK(strstr(coll_rank_reason(r), "all-reduce 5") &&
          strstr(coll_rank_reason(r), "all-reduce 6"));
    return 0;
}

/* A receive meets a send of another size. The sender is woken by the abort of who noticed. */
static int other_size(case_cx *cx, coll_rank *r, char *arena)
{
    coll_op op = {.kind = cx->rank ? COLL_RECV : COLL_SEND, .seq = 9, .peer = !cx->rank};
    op.send = op.recv = arena;
    op.bytes = cx->rank ? 64 : 128;
    CHECK(run_op(r, &op) == PPS_ERR_COLL);
    if (cx->rank) {
        CHECK(strstr(coll_rank_reason(r), "128 bytes"));
        coll_world_abort(cx->world, cx->rank, PPS_ERR_COLL);
    }
    return 0;
}

static int collective_meets_send(case_cx *cx, coll_rank *r, char *arena)
{
    coll_op op = {.kind = cx->rank ? COLL_COUNTS : COLL_SEND, .seq = 2, .peer = 1};
    op.group = everyone;
    op.group_size = 2;
    op.group_index = cx->rank;
    op.send = arena;
    op.recv = arena + 64;
    op.experts = 4;
    op.bytes = cx->rank ? 0 : 16;
    CHECK(run_op(r, &op) == PPS_ERR_COLL);
    if (cx->rank)
        coll_world_abort(cx->world, cx->rank, PPS_ERR_COLL);
    return 0;
}

static int sleeps_until_aborted(case_cx *cx, coll_rank *r, char *arena)
{
    if (cx->rank == 0) {
        usleep(30000); /* the others are asleep by now, or will find out before they sleep */
        coll_world_abort(cx->world, 0, PPS_ERR_LIMIT);
        coll_world_abort(cx->world, 0, PPS_ERR_NOMEM);
        uint32_t rank;
        pps_status why;
        CHECK(coll_world_aborted(cx->world, &rank, &why) && rank == 0 && why == PPS_ERR_LIMIT);
        return 0;
    }
    if (cx->rank == 1) {
        CHECK(coll_barrier(r) == PPS_ERR_COLL);
        return 0;
    }
    coll_op op = {.kind = COLL_RECV, .seq = 1, .peer = 0, .recv = arena, .bytes = 8};
    CHECK(run_op(r, &op) == PPS_ERR_COLL);
    return 0;
}

static int wrong_arguments(case_cx *cx, coll_rank *r, char *arena)
{
    char elsewhere[8];
    coll_op op = {.kind = COLL_SEND, .peer = 0, .send = elsewhere, .bytes = 8};
    CHECK(coll_start(r, &op) == PPS_ERR_ARG);
    op.send = arena + ARENA - 4;
    CHECK(coll_start(r, &op) == PPS_ERR_ARG);
    op.send = arena;
    op.peer = cx->n_ranks;
    CHECK(coll_start(r, &op) == PPS_ERR_ARG);
    op.peer = 0;
    op.channel = CHANNELS;
    CHECK(coll_start(r, &op) == PPS_ERR_ARG);
    coll_op none = {0};
    bool done;
    CHECK(coll_poll(r, &none, &done) == PPS_ERR_ARG);
    return 0;
}

static void test_disagreement(void **state)
{
    (void)state;
    run_threads(2, other_sequence);
    run_processes(2, other_sequence);
    run_threads(2, other_size);
    run_processes(2, other_size);
    run_threads(2, collective_meets_send);
    run_threads(1, wrong_arguments);
}

static void test_abort_wakes(void **state)
{
    (void)state;
    run_threads(3, sleeps_until_aborted);
    run_processes(3, sleeps_until_aborted);
}

static int waits_for_rank_one(case_cx *cx, coll_rank *r, char *arena)
{
    if (cx->rank == 1)
        for (;;)
            pause();
    coll_op op = {.kind = COLL_RECV, .seq = 1, .peer = 1, .recv = arena, .bytes = 8};
    CHECK(run_op(r, &op) == PPS_ERR_COLL);
    return 0;
}

/* The launcher's part by hand: a child is killed, its parent aborts the world, the others end. */
static void test_killed_child(void **state)
{
    (void)state;
    coll_world *w = new_world(3);
    pid_t pids[3];
    for (uint32_t i = 0; i < 3; i++)
        pids[i] = fork_rank(w, i, 3, waits_for_rank_one);
    kill(pids[1], SIGKILL);
    int status = 0;
    assert_int_equal(waitpid(pids[1], &status, 0), pids[1]);
    assert_true(WIFSIGNALED(status));
    coll_world_abort(w, 1, PPS_ERR_COLL);
    for (uint32_t i = 0; i < 3; i += 2) {
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    coll_world_free(w);
}

static int many_barriers(case_cx *cx, coll_rank *r, char *arena)
{
    (void)arena;
    uint32_t *board = coll_world_board(cx->world);
    for (uint32_t i = 0; i < 200; i++) {
        if (cx->rank == i % cx->n_ranks)
            board[0] = i;
        CHECK(coll_barrier(r) == PPS_OK);
        CHECK(board[0] == i);
        CHECK(coll_barrier(r) == PPS_OK);
    }
    return 0;
}

static void test_barrier(void **state)
{
    (void)state;
    run_threads(4, many_barriers);
    run_processes(4, many_barriers);
}

static void test_too_large(void **state)
{
    (void)state;
    uint64_t bytes = (uint64_t)1 << 60;
    coll_config config = {.n_ranks = 1, .arena_bytes = &bytes, .channels = 1};
    coll_world *w = NULL;
    char reason[256];
    assert_int_equal(coll_world_new(&config, &w, reason), PPS_ERR_MACHINE);
    assert_non_null(strstr(reason, "GiB"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_p2p),          cmocka_unit_test(test_late_look),
        cmocka_unit_test(test_all_reduce),   cmocka_unit_test(test_all_to_all),
        cmocka_unit_test(test_disagreement), cmocka_unit_test(test_abort_wakes),
        cmocka_unit_test(test_killed_child), cmocka_unit_test(test_barrier),
        cmocka_unit_test(test_too_large),    cmocka_unit_test(test_shift),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
