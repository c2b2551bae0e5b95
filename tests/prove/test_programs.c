/* SPDX-License-Identifier: Apache-2.0
 *
 * Random valid programs compile, are proved under both kinds of sends, and compute what one rank
 * computes: losses, gradients of the first step and parameters after the last differ by rounding
 * alone, since sums over the batch are taken in other orders.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "compiled.h"
#include "programs.h"

static const double tolerance = 1e-5;
enum { LIMIT_S = 60 };

static program p;
static compiled c, alone;

static void compiles(uint64_t seed, uint32_t i)
{
    compiled_open(&c, p.text, p.streams);
    if (c.status == PPS_OK)
        return;
    printf("%s\n%s\n", p.text, c.said);
    fail_msg("program %u of seed %llu (%s) does not compile", i, (unsigned long long)seed, p.order);
}

static void is_proved(uint64_t seed, uint32_t i)
{
    for (int buffered = 0; buffered < 2; buffered++) {
        if (compiled_prove(&c, buffered) == 0)
            continue;
        printf("%s\n%s\n", p.text, c.said);
        fail_msg("program %u of seed %llu is refused", i, (unsigned long long)seed);
    }
}

static void computes_the_same(uint64_t seed, uint32_t i)
{
    compiled_open(&alone, p.alone, 0);
    assert_int_equal(alone.status, PPS_OK);
    run_result one = compiled_run(&alone, LIMIT_S), all = compiled_run(&c, LIMIT_S);
    double apart = run_difference(&all, &one);
    compiled_close(&alone);
    assert_int_equal(one.end, RUN_OK);
    if (!(apart <= tolerance)) {
        printf("%s\n", p.text);
        fail_msg("program %u of seed %llu (%s, %u streams) %s: %.3g apart, loss %.9g %.9g %.9g "
                 "instead of %.9g %.9g %.9g",
                 i, (unsigned long long)seed, p.order, p.streams, run_end_name(all.end), apart,
                 all.loss[0], all.loss[1], all.loss[2], one.loss[0], one.loss[1], one.loss[2]);
    }
    run_done(&one);
    run_done(&all);
}

static void random_programs(void **state)
{
    uint64_t seed = random_seed();
    random_source r = {seed};
    uint32_t n = run_everything() ? 5000 : 800, every = 4, ran = 0, orders[3] = {0};
    uint32_t overlaps = 0, transfers = 0, by_mb = 0;
    (void)state;
    for (uint32_t i = 0; i < n; i++) {
        program_random(&p, &r, 0);
        compiles(seed, i);
        is_proved(seed, i);
        if (i % every == 0) {
            computes_the_same(seed, i);
            ran++;
        }
        orders[p.order[0] == 'b' ? 0 : p.order[0] == 'd' ? 1 : 2]++;
        overlaps += p.n_overlaps;
        transfers += p.n_transfers;
        by_mb += p.by_mb;
        compiled_close(&c);
    }
    printf("seed %llu: %u programs proved (%u by builders, %u in the default order, %u by rows; %u "
           "with stages on several groups, %u overlapped groups, %u named ends of transfers), %u "
           "ran\n",
           (unsigned long long)seed, n, orders[0], orders[1], orders[2], by_mb, overlaps, transfers,
           ran);
}

/* Rows with ops out of place: refused as contradicting the dataflow (or each other), or right. */
static void random_disorder(void **state)
{
    uint64_t seed = random_seed();
    random_source r = {~seed};
    uint32_t n = run_everything() ? 3000 : 300, refused[3] = {0}, accepted = 0;
    (void)state;
    for (uint32_t i = 0; i < n; i++) {
        program_random(&p, &r, 1 + random_below(&r, 4));
        compiled_open(&c, p.text, p.streams);
        if (c.status == PPS_OK) {
            is_proved(seed, i);
            computes_the_same(seed, i);
            accepted++;
        } else if (c.code == 501 || c.code == 502 || c.code == 505) {
            refused[c.code == 505 ? 2 : c.code - 501]++;
        } else {
            printf("%s\n%s\n", p.text, c.said);
            fail_msg("disordered program %u of seed %llu: code %d", i, (unsigned long long)seed,
                     c.code);
        }
        compiled_close(&c);
    }
    printf(
        "seed %llu: %u programs with ops out of place, refused E0501: %u E0502: %u E0505: %u, %u "
        "accepted and right\n",
        (unsigned long long)seed, n, refused[0], refused[1], refused[2], accepted);
    assert_true(accepted > 0 && refused[0] > 0 && refused[1] > 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_programs),
                                       cmocka_unit_test(random_disorder)};
    if (!test_options(argc, argv)) {
        fprintf(stderr, "options: --all, --seed N\n");
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
