/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cost.c: the unit-cost simulation against the closed forms and tables known for each
 * schedule, and its verdict on rows that cannot run.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "passes/cost.h"
#include "row_builder.h"

/* Costs are sums of a few hundred terms 1/v: exact for powers of two, else to rounding. */
#define TOLERANCE 1e-9

static void assert_near(double a, double b, const char *what, uint32_t R, uint32_t M)
{
    if (!(fabs(a - b) <= TOLERANCE))
        fail_msg("%s, %u ranks, %u microbatches: %.12g instead of %.12g", what, R, M, a, b);
}

static double worst(const cost_rows *c)
{
    double most = 0;
    for (uint32_t r = 0; r < c->n_ranks; r++)
        most = fmax(most, c->peak[r]);
    return most;
}

/* Simulate, compare, and check that every rank is busy for 3M units. Releases `p`. */
static void check(ir_program *p, const char *what, uint32_t R, uint32_t M, double makespan,
                  double peak)
{
    cost_rows c;
    assert_int_equal(cost_simulate_rows(p, NULL, &c), PPS_OK);
    assert_int_equal(c.n_ranks, R);
    assert_near(c.makespan, makespan, what, R, M);
    if (peak >= 0)
        assert_near(worst(&c), peak, what, R, M);
    for (uint32_t r = 0; r < R; r++)
        assert_near(c.busy[r], 3.0 * M, what, R, M);
    assert_near(c.bubble, 1 - 3.0 * M / makespan, what, R, M);
    cost_rows_done(&c);
    rows_done(p);
}

static const uint32_t table_m[] = {8, 16, 32};

static void table_cells(void **state)
{
    (void)state;
    ir_program p = {0};
    for (int i = 0; i < 3; i++) {
        uint32_t m = table_m[i];
        rows_gpipe(&p, 4, m);
        check(&p, "gpipe", 4, m, (double[]){33, 57, 105}[i], m);
        rows_1f1b(&p, 4, m);
        check(&p, "1f1b", 4, m, (double[]){33, 57, 105}[i], 4);
        rows_eager_1f1b(&p, 4, m);
        check(&p, "eager", 4, m, (double[]){33, 57, 105}[i], 7);
        rows_interleaved(&p, 4, m, 2);
        check(&p, "interleaved v=2", 4, m, (double[]){28.5, 52.5, 100.5}[i], 5.5);
        rows_interleaved(&p, 4, m, 4);
        check(&p, "interleaved v=4", 4, m, (double[]){26.25, 50.25, 98.25}[i], 4.75);
        rows_looped_bfs(&p, 4, m, 2);
        check(&p, "looped bfs v=2", 4, m, (double[]){28.5, 52.5, 100.5}[i], m);
        rows_looped_bfs(&p, 4, m, 4);
        check(&p, "looped bfs v=4", 4, m, (double[]){26.25, 50.25, 98.25}[i], m);
        rows_zerobubble(&p, 4, m);
        check(&p, "zerobubble", 4, m, (double[]){27, 51, 99}[i], 4);
        rows_dualpipev(&p, 4, m);
        check(&p, "dualpipev", 4, m, (double[]){27, 51, 99}[i], 4.5);
    }
}

static void closed_forms(void **state)
{
    (void)state;
    ir_program p = {0};
    for (uint32_t R = 1; R <= 8; R++)
        for (uint32_t M = 1; M <= 24; M++) {
            double base = 3.0 * M;
            rows_gpipe(&p, R, M);
            check(&p, "gpipe", R, M, base + 3.0 * (R - 1), M);
            rows_1f1b(&p, R, M);
            check(&p, "1f1b", R, M, base + 3.0 * (R - 1), M < R ? M : R);
            rows_eager_1f1b(&p, R, M);
            check(&p, "eager", R, M, base + 3.0 * (R - 1), M < 2 * R - 1 ? M : 2 * R - 1);
            for (uint32_t v = 2; v <= 4; v++) {
                if (M % R == 0) {
                    double peak = R + (R - 1.0) / v;
                    rows_interleaved(&p, R, M, v);
                    check(&p, "interleaved", R, M, base + 3.0 * (R - 1) / v, peak < M ? peak : M);
                }
                if (M >= R) {
                    rows_looped_bfs(&p, R, M, v);
                    check(&p, "looped bfs", R, M, base + 3.0 * (R - 1) / v, M);
                }
            }
            if (M >= R) {
                rows_zerobubble(&p, R, M);
                check(&p, "zerobubble", R, M, base + (R - 1), R);
            }
            if (M >= 2 * R) {
                rows_dualpipev(&p, R, M);
                check(&p, "dualpipev", R, M, base + (R - 1), R + 0.5);
            }
        }
}

static void peaks_by_rank(void **state)
{
    (void)state;
    ir_program p = {0};
    cost_rows c;
    rows_1f1b(&p, 4, 8);
    assert_int_equal(cost_simulate_rows(&p, NULL, &c), PPS_OK);
    for (uint32_t r = 0; r < 4; r++)
        assert_near(c.peak[r], 4 - r, "1f1b", 4, 8);
    cost_rows_done(&c);
    rows_done(&p);
    rows_interleaved(&p, 4, 8, 2);
    assert_int_equal(cost_simulate_rows(&p, NULL, &c), PPS_OK);
    for (uint32_t r = 0; r < 4; r++)
        assert_near(c.peak[r], 5.5 - r, "interleaved", 4, 8);
    cost_rows_done(&c);
    rows_done(&p);
}

/* Idle time stays a multiple of the costs when they differ from each other. */
static void unequal_costs(void **state)
{
    (void)state;
    static const cost_units units[] = {{1, 1, 1}, {1, 1, 0.5}, {1, 1.2, 0.8}, {2, 3, 1}};
    static const uint32_t sizes[][2] = {{4, 8}, {8, 32}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        for (size_t k = 0; k < 2; k++) {
            uint32_t R = sizes[k][0], M = sizes[k][1];
            cost_units u = units[i];
            double busy = M * (u.f + u.bi + u.bw);
            ir_program p = {0};
            cost_rows c;
            rows_1f1b(&p, R, M);
            assert_int_equal(cost_simulate_rows(&p, &u, &c), PPS_OK);
            assert_near(c.makespan - busy, (R - 1) * (u.f + u.bi + u.bw), "1f1b", R, M);
            cost_rows_done(&c);
            rows_done(&p);
            rows_interleaved(&p, R, M, 2);
            assert_int_equal(cost_simulate_rows(&p, &u, &c), PPS_OK);
            assert_near(c.makespan - busy, (R - 1) * (u.f + u.bi + u.bw) / 2, "interleaved", R, M);
            cost_rows_done(&c);
            rows_done(&p);
        }
}

static void groups_are_atomic(void **state)
{
    (void)state;
    ir_program p = {0};
    cost_rows c;
    /* rank 0: F0:0 1, F0:1 1, then F0:2|B0:0 together from 4 (B1:0 ends) to 7 */
    rows_parse(&p, "F0:0 F0:1 F0:2|B0:0 B0:1 B0:2\nF1:0 B1:0 F1:1 B1:1 F1:2 B1:2");
    assert_int_equal(cost_simulate_rows(&p, NULL, &c), PPS_OK);
    assert_near(c.begin[2], 4, "pair begin", 2, 3);
    assert_near(c.begin[3], 4, "pair begin", 2, 3);
    assert_near(c.end[2], 7, "pair end", 2, 3);
    assert_near(c.end[3], 7, "pair end", 2, 3);
    assert_near(c.begin[6 + 4], 7, "F1:2 waits for the whole pair", 2, 3);
    assert_near(c.peak[0], 3, "a pair holds both", 2, 3);
    cost_rows_done(&c);
    rows_done(&p);
}

/* Two copies of a stage share its microbatches: a rank that holds two of them holds one rank share.
 * Chimera's drawing: 16 steps of which 12 are busy. */
static void copies_share_a_stage(void **state)
{
    (void)state;
    ir_program p = {0};
    rows_parse(&p, "F0:0 F0:1 F3:2 B3:2 F3:3 B3:3 B0:0 B0:1\n"
                   "F1:0 F2:2 F1:1 F2:3 B2:2 B1:0 B2:3 B1:1\n"
                   "F1:2 F2:0 F1:3 F2:1 B2:0 B1:2 B2:1 B1:3\n"
                   "F0:2 F0:3 F3:0 B3:0 F3:1 B3:1 B0:2 B0:3");
    check(&p, "chimera", 4, 4, 16, 4);
}

static void deadlock_names_the_rows(void **state)
{
    (void)state;
    ir_program p = {0};
    cost_rows c;
    rows_parse(&p, "F0:0 B0:0 F0:1 B0:1\nF1:0 F1:1 B1:0 B1:1");
    assert_int_equal(cost_simulate_rows(&p, NULL, &c), PPS_ERR_SCRIPT);
    assert_int_equal(c.n_stuck, 2);
    assert_int_equal(c.stuck[0].entry, 1); /* B0:0 waits for B1:0 */
    assert_int_equal(c.stuck[0].waits_for, 6);
    assert_int_equal(c.stuck[0].pass, PPS_PASS_B);
    assert_int_equal(c.stuck[1].entry, 5); /* F1:1 waits for F0:1 */
    assert_int_equal(c.stuck[1].waits_for, 2);
    cost_rows_done(&c);
    rows_done(&p);
    /* ops of a group do not feed each other */
    rows_parse(&p, "F0:0 B0:0|F1:0 B1:0");
    assert_int_equal(cost_simulate_rows(&p, NULL, &c), PPS_ERR_SCRIPT);
    cost_rows_done(&c);
    rows_done(&p);
}

static void missing_and_repeated_ops(void **state)
{
    (void)state;
    ir_program p = {0};
    cost_rows c;
    rows_parse(&p, "F0:0 BI0:0 BW0:0\nF1:0");
    assert_int_equal(cost_simulate_rows(&p, NULL, &c), PPS_ERR_SCRIPT);
    assert_int_equal(c.n_stuck, 1);
    assert_int_equal(c.stuck[0].waits_for, IR_NONE);
    assert_int_equal(c.stuck[0].stage, 1);
    assert_int_equal(c.stuck[0].pass, PPS_PASS_B);
    cost_rows_done(&c);
    rows_done(&p);
    rows_parse(&p, "F0:0 F0:0");
    assert_int_equal(cost_simulate_rows(&p, NULL, &c), PPS_ERR_SCRIPT);
    cost_rows_done(&c);
    rows_done(&p);
}

/* Slices are shares of a microbatch, named by a filter or by the entry; other tags have no costs. */
static void slices(void **state)
{
    (void)state;
    cost_rows c;
    ir_program p = {0};
    uint32_t ints[] = {0, 1};
    ir_term terms[] = {{.tag = "SEQ", .kind = PPS_TERM_SET, .begin = 1, .n = 1}};
    ir_filter filters[] = {{.begin = 0, .n = 1}};
    rows_parse(&p, "F0:0 F0:0 B0:0\nF1:0 B1:0 B1:0");
    p.terms = terms;
    p.filters = filters;
    p.ints = ints;
    p.slice_tag = "SEQ";
    p.n_slices = 2;
    p.entries[0].slice = 1;
    p.entries[1].general = true; /* slice 1 */
    p.entries[4].slice = 2;
    p.entries[5].slice = 1;
    assert_int_equal(cost_simulate_rows(&p, NULL, &c), PPS_OK);
    assert_true(c.end[0] == 0.5 && c.end[1] == 1); /* half a forward each */
    assert_true(c.begin[3] == 1 && c.end[3] == 2); /* the whole one waits for both */
    assert_true(c.end[4] == 3 && c.end[5] == 4);
    assert_true(c.begin[2] == 4 && c.end[2] == 6);
    assert_true(c.peak[0] == 1 && c.busy[1] == 3);
    cost_rows_done(&c);
    terms[0].tag = "DIR";
    assert_int_equal(cost_simulate_rows(&p, NULL, &c), PPS_ERR_SCRIPT);
    cost_rows_done(&c);
    rows_done(&p);
}

static void edges(void **state)
{
    (void)state;
    ir_program p = {0};
    cost_rows c;
    assert_int_equal(cost_simulate_rows(&p, NULL, &c), PPS_OK); /* no rows */
    assert_near(c.makespan, 0, "empty", 0, 0);
    assert_near(c.bubble, 0, "empty", 0, 0);
    cost_rows_done(&c);
    /* sparse, huge indices; forward only; an idle rank */
    rows_parse(&p, "F0:4294967295 F0:7\n");
    assert_int_equal(cost_simulate_rows(&p, NULL, &c), PPS_OK);
    assert_near(c.makespan, 2, "forward only", 2, 2);
    assert_near(c.bubble, 0.5, "an idle rank counts", 2, 2);
    cost_rows_done(&c);
    rows_done(&p);
}

/* A long pipeline takes one sweep, not one per rank. */
static void many_ops(void **state)
{
    (void)state;
    ir_program p = {0};
    rows_1f1b(&p, 256, 2048);
    check(&p, "1f1b", 256, 2048, 3.0 * 2048 + 3 * 255, 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_cells),
        cmocka_unit_test(closed_forms),
        cmocka_unit_test(peaks_by_rank),
        cmocka_unit_test(unequal_costs),
        cmocka_unit_test(groups_are_atomic),
        cmocka_unit_test(copies_share_a_stage),
        cmocka_unit_test(deadlock_names_the_rows),
        cmocka_unit_test(missing_and_repeated_ops),
        cmocka_unit_test(slices),
        cmocka_unit_test(edges),
        cmocka_unit_test(many_ops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
