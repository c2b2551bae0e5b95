/* SPDX-License-Identifier: Apache-2.0
 *
 * The proof against the truth: a plan is accepted exactly when no way of running it blocks or mixes
 * transfers up, under rendezvous and under buffered sends. Small plans one after the other, larger
 * ones at random.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tiny.h"

static tiny_prover *prover;
static brute *runs;
static struct {
    uint32_t plans, accepted, rendezvous_only, codes[600];
    uint64_t states;
} tally;

static int start(void **state)
{
    (void)state;
    prover = tiny_prover_new();
    runs = brute_new();
    return 0;
}

static int stop(void **state)
{
    (void)state;
    tiny_prover_free(prover);
    brute_free(runs);
    return 0;
}

/* Both verdicts on one plan against all its runs; counts what was seen. */
static void compare(const tiny *t)
{
    bool blocks[2];
    for (int buffered = 0; buffered < 2; buffered++) {
        brute_result truth = brute_run(runs, t, buffered);
        int code = tiny_prove(prover, t, buffered);
        blocks[buffered] = truth.blocks;
        tally.states += truth.states;
        tally.codes[code]++;
        if ((code == 0) == !truth.blocks && truth.completes != truth.blocks)
            continue;
        tiny_print(t);
        fail_msg("%s sends: %s, %s, code %d: %s", buffered ? "buffered" : "rendezvous",
                 truth.blocks ? "some run blocks" : "no run blocks",
                 truth.completes ? "some run completes" : "no run completes", code,
                 tiny_said(prover));
    }
    tally.plans++;
    tally.accepted += !blocks[0];
    tally.rendezvous_only += blocks[0] && !blocks[1];
    if (blocks[1] && !blocks[0])
        fail_msg("blocks with buffered sends alone");
}

static void report(const char *what)
{
    printf("%s: %u plans, %llu states; %u accepted, %u more with buffered sends; refused as cycle "
           "%u, crossed %u, on two streams %u\n",
           what, tally.plans, (unsigned long long)tally.states, tally.accepted,
           tally.rendezvous_only, tally.codes[502], tally.codes[541], tally.codes[540]);
    assert_true(tally.accepted > 0 && tally.accepted < tally.plans);
    memset(&tally, 0, sizeof tally);
}

static const uint8_t orders[6][3] = {{0, 1, 2}, {1, 0, 2}, {0, 2, 1},
                                     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

/* Communication number k of plan `code`: its kind, and its stream on each rank. Reads off digits.
 */
static void add_comm(tiny *t, uint32_t rank, uint32_t k, uint32_t kind, uint32_t stream)
{
    tiny_step s = {.seq = (uint8_t)(k + 1), .stream = (uint8_t)stream, .peer = (uint8_t)!rank};
    s.kind = kind == 2 ? TINY_COLLECTIVE : kind == rank ? TINY_SEND : TINY_RECV;
    tiny_add(t, rank, s);
}

static void add_compute(tiny *t, uint32_t rank, uint32_t stream)
{
    tiny_add(t, rank, (tiny_step){.kind = TINY_COMPUTE, .stream = (uint8_t)stream});
}

/* Two ranks, n communications: every kind, direction, order and stream (at each end its own, or the
 * same at both), and a compute at every place of each rank, or none. */
static void all_of(uint32_t n, bool own_streams, uint32_t every)
{
    static const uint32_t n_orders[] = {1, 1, 2, 6};
    uint32_t kinds = 1, streams = 1u << (own_streams ? 2 * n : n), at = 0;
    for (uint32_t k = 0; k < n; k++)
        kinds *= 3;
    for (uint32_t kind = 0; kind < kinds; kind++)
        for (uint32_t stream = 0; stream < streams; stream++)
            for (uint32_t order = 0; order < n_orders[n]; order++)
                for (uint32_t place = 0; place < (n + 2) * (n + 2); place++) {
                    uint32_t digits[3] = {kind % 3, kind / 3 % 3, kind / 9 % 3};
                    uint32_t compute[2] = {place % (n + 2), place / (n + 2)};
                    tiny t = {.n_ranks = 2};
                    if (at++ % every != 0)
                        continue;
                    for (uint32_t g = 0; g < 2; g++)
                        for (uint32_t i = 0; i <= n; i++) {
                            uint32_t k = g == 0 || i == n ? i : orders[order][i];
                            if (compute[g] == i)
                                add_compute(&t, g, 0);
                            if (i < n)
                                add_comm(&t, g, k, digits[k],
                                         stream >> (own_streams ? 2 * k + g : k) & 1);
                        }
                    compare(&t);
                }
}

static void every_plan_of_two_ranks(void **state)
{
    (void)state;
    all_of(1, true, 1);
    all_of(2, true, 1);
    all_of(3, false, run_everything() ? 1 : 7);
    if (run_everything())
        all_of(3, true, 1);
    report("two ranks, up to three communications and a compute each");
}

/* ---- three ranks: transfers between any two, collectives of any two or all ----------------------
 */

typedef struct comm_kind {
    uint8_t ranks, from; /* bit per rank; the sender, 3: a collective */
} comm_kind;
enum { N_COMM_KINDS = 10 };
static const comm_kind comm_kinds[N_COMM_KINDS] = {
    {3, 0}, {3, 1}, {5, 0}, {5, 2}, {6, 1}, {6, 2}, {3, 3}, {5, 3}, {6, 3}, {7, 3},
};
/* A rank's steps: its communications in this order. False when another order means the same. */
static bool add_rank(tiny *t, uint32_t rank, const comm_kind *const *kinds, uint32_t n,
                     const uint8_t *order, uint32_t streams)
{
    uint32_t others = 0; /* not this rank's: they come last and as numbered, or this is a repeat */
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = order[i], both = kinds[k]->ranks & ~(1u << rank);
        if (!(kinds[k]->ranks >> rank & 1)) {
            if (others > k + 1)
                return false;
            others = k + 1;
            continue;
        }
        if (others > 0)
            return false;
        tiny_step s = {.seq = (uint8_t)(k + 1), .stream = (uint8_t)(streams >> k & 1)};
        s.kind = kinds[k]->from == 3 ? TINY_COLLECTIVE
                                     : (kinds[k]->from == rank ? TINY_SEND : TINY_RECV);
        if (kinds[k]->from != 3)
            s.peer = (uint8_t)__builtin_ctz(both);
        tiny_add(t, rank, s);
    }
    return true;
}

/* Every n communications, in every order on each rank, each on one of two streams; one of `every`
 * plans. */
static void all_of_three(uint32_t n, uint32_t every)
{
    static const uint32_t n_orders[] = {1, 1, 2, 6}, n_kinds[] = {1, 10, 100, 1000};
    uint32_t at = (uint32_t)(random_seed() % every);
    for (uint32_t kind = 0; kind < n_kinds[n]; kind++)
        for (uint32_t streams = 0; streams < 1u << n; streams++)
            for (uint32_t order = 0; order < n_orders[n] * n_orders[n] * n_orders[n]; order++) {
                uint32_t digits[3] = {order % n_orders[n], order / n_orders[n] % n_orders[n],
                                      order / n_orders[n] / n_orders[n]};
                const comm_kind *kinds[3] = {&comm_kinds[kind % 10], &comm_kinds[kind / 10 % 10],
                                             &comm_kinds[kind / 100]};
                tiny t = {.n_ranks = 3};
                bool is_new = true;
                for (uint32_t g = 0; g < 3; g++)
                    is_new = is_new && add_rank(&t, g, kinds, n, orders[digits[g]], streams);
                if (is_new && at++ % every == 0)
                    compare(&t);
            }
}

static void every_plan_of_three_ranks(void **state)
{
    (void)state;
    all_of_three(1, 1);
    all_of_three(2, 1);
    all_of_three(3, run_everything() ? 1 : 401);
    report("three ranks, up to three communications");
}

static void random_plans(void **state)
{
    random_source r = {random_seed()};
    uint32_t n = run_everything() ? 60000 : 1000;
    (void)state;
    for (uint32_t i = 0; i < n; i++) {
        tiny t;
        tiny_random(&t, &r, 2 + random_below(&r, i % 16 == 0 ? 8 : 4));
        compare(&t);
    }
    printf("seed %llu, ", (unsigned long long)random_seed());
    report("up to three ranks of eight steps");
}

/* Two ranks that both send before they receive: a hang unless sends are buffered. */
static void sends_before_receives(void **state)
{
    (void)state;
    tiny t = {.n_ranks = 2};
    for (uint32_t g = 0; g < 2; g++) {
        add_comm(&t, g, g, g, 0);
        add_comm(&t, g, !g, !g, 0);
        add_compute(&t, g, 1);
    }
    assert_int_equal(tiny_prove(prover, &t, false), 502);
    assert_non_null(strstr(tiny_said(prover), "this step never ends"));
    assert_non_null(strstr(tiny_said(prover), "needs its other end"));
    assert_non_null(strstr(tiny_said(prover), "comes on its stream after"));
    assert_int_equal(tiny_prove(prover, &t, true), 0);
}

static void crossed_transfers(void **state)
{
    (void)state;
    tiny t = {.n_ranks = 2};
    add_comm(&t, 0, 0, 0, 1);
    add_comm(&t, 0, 1, 0, 1);
    add_comm(&t, 1, 1, 0, 1);
    add_comm(&t, 1, 0, 0, 1);
    for (int buffered = 0; buffered < 2; buffered++) {
        assert_int_equal(tiny_prove(prover, &t, buffered), 541);
        assert_non_null(strstr(tiny_said(prover), "the 1st transfer from group 0"));
        assert_non_null(strstr(tiny_said(prover), "its other end the 2nd there"));
    }
}

/* Collectives of several plans, in another order on one of them, or apart from a transfer. */
static void crossed_collectives(void **state)
{
    (void)state;
    tiny t = {.n_ranks = 3};
    for (uint32_t g = 0; g < 3; g++)
        for (uint32_t k = 0; k < 2; k++)
            tiny_add(&t, g,
                     (tiny_step){TINY_COLLECTIVE, 0, (uint8_t)(1 + (g == 2 ? !k : k)), 0, 0});
    assert_int_equal(tiny_prove(prover, &t, false), 541);
    assert_non_null(strstr(tiny_said(prover), "crosses other communication"));

    tiny u = {.n_ranks = 2};
    add_comm(&u, 0, 0, 0, 0);
    add_comm(&u, 0, 1, 2, 0);
    add_comm(&u, 1, 1, 2, 0);
    add_comm(&u, 1, 0, 0, 0);
    assert_int_equal(tiny_prove(prover, &u, true), 541);
    u.steps[1][0].stream = 1; /* the collective */
    assert_int_equal(tiny_prove(prover, &u, true), 540);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sends_before_receives),     cmocka_unit_test(crossed_transfers),
        cmocka_unit_test(crossed_collectives),       cmocka_unit_test(every_plan_of_two_ranks),
        cmocka_unit_test(every_plan_of_three_ranks), cmocka_unit_test(random_plans),
    };
    if (!test_options(argc, argv)) {
        fprintf(stderr, "options: --all, --seed N\n");
        return 2;
    }
    return cmocka_run_group_tests(tests, start, stop);
}
