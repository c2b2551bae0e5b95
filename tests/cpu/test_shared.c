/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops whose work ranks share, in double: what the shares give, put together as the borders between
 * ranks do (sums in rank order, columns side by side, positions one after the other), is what the
 * whole op gives, forward and backward.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "runtime/cpu/kernels.h"

enum { B = 2, T = 4, ROWS = B * T, WIDTH = 6, MOST = 4, CLASSES = 24, VOCAB = 13 };

static double next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (double)(*state >> 8) / (1 << 23) - 1;
}

static void fill(double *a, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; ++i)
        a[i] = 3 * next(&seed);
}

static void near(const double *got, const double *want, size_t n, const char *what)
{
    for (size_t i = 0; i < n; ++i)
        if (!(fabs(got[i] - want[i]) <= 1e-12 * (1 + fabs(want[i]))))
            fail_msg("%s[%zu] is %.15g, not %.15g", what, i, got[i], want[i]);
}

static void run(plan_kernel k, ir_op_kind op, ir_phase phase, uint32_t n, uint32_t index, void **p)
{
    cpu_context cx = {.team_index = index};
    k.op = op;
    k.phase = (uint8_t)phase;
    k.ep = n;
    assert_int_equal(cpu_kernel_find_f64(op, phase)(&k, p, &cx), PPS_OK);
}

/* Columns [index * width, ...) of `all`, CLASSES wide. */
static void columns(const double *all, double *part, size_t width, uint32_t index)
{
    for (size_t r = 0; r < ROWS; ++r)
        memcpy(part + r * width, all + r * CLASSES + index * width, width * sizeof *part);
}

static void cross_entropy(void **state)
{
    (void)state;
    double logits[ROWS * CLASSES], d_logits[ROWS * CLASSES], lse[ROWS], loss;
    int32_t targets[ROWS];
    uint32_t seed = 3;
    fill(logits, ROWS * CLASSES, 1);
    for (size_t r = 0; r < ROWS; ++r)
        targets[r] = (int32_t)((next(&seed) + 1) / 2 * VOCAB);
    plan_kernel k = {.B = B, .T = T, .n_in = CLASSES, .attrs = {.vocab = VOCAB, .count = 2 * ROWS}};
    run(k, IR_CROSS_ENTROPY, IR_PHASE_F, 1, 0, (void *[]){logits, targets, &loss, lse});
    run(k, IR_CROSS_ENTROPY, IR_PHASE_BI, 1, 0, (void *[]){logits, targets, lse, d_logits});
    /* 3 ranks and more: the last one's columns are all padding */
    for (uint32_t n = 1; n <= MOST; ++n) {
        size_t width = CLASSES / n;
        double parts[MOST][ROWS * CLASSES], d_part[ROWS * CLASSES], want[ROWS * CLASSES];
        double stats[MOST * ROWS * 3], d_stats[ROWS * 3], own_lse[ROWS], own_loss;
        k.n_in = (uint32_t)width;
        k.n_out = 3;
        for (uint32_t i = 0; i < n; ++i) {
            columns(logits, parts[i], width, i);
            run(k, IR_CROSS_ENTROPY_PART, IR_PHASE_F, n, i,
                (void *[]){parts[i], targets, stats + i * ROWS * 3});
        }
        for (uint32_t i = 0; i < n; ++i) {
            k.n_in = 3 * n;
            run(k, IR_CROSS_ENTROPY_MERGE, IR_PHASE_F, n, i, (void *[]){stats, &own_loss, own_lse});
            near(&own_loss, &loss, 1, "loss");
            near(own_lse, lse, ROWS, "lse");
            run(k, IR_CROSS_ENTROPY_MERGE, IR_PHASE_BI, n, i, (void *[]){stats, own_lse, d_stats});
            k.n_in = (uint32_t)width;
            run(k, IR_CROSS_ENTROPY_PART, IR_PHASE_BI, n, i,
                (void *[]){parts[i], targets, stats + i * ROWS * 3, d_stats, d_part});
            columns(d_logits, want, width, i);
            near(d_part, want, ROWS * width, "d_logits");
        }
        targets[1] = VOCAB;
        cpu_context cx = {.team_index = n - 1};
        plan_kernel refused = k;
        refused.ep = n;
        assert_int_equal(cpu_kernel_find_f64(IR_CROSS_ENTROPY_PART, IR_PHASE_F)(
                             &refused, (void *[]){parts[0], targets, stats}, &cx),
                         PPS_ERR_ARG);
        targets[1] = 1;
        run((plan_kernel){.B = B, .T = T, .n_in = CLASSES, .attrs = k.attrs}, IR_CROSS_ENTROPY,
            IR_PHASE_F, 1, 0, (void *[]){logits, targets, &loss, lse});
        run((plan_kernel){.B = B, .T = T, .n_in = CLASSES, .attrs = k.attrs}, IR_CROSS_ENTROPY,
            IR_PHASE_BI, 1, 0, (void *[]){logits, targets, lse, d_logits});
    }
}

static void embedding(void **state)
{
    (void)state;
    double rows[12 * WIDTH], out[ROWS * WIDTH], d_out[ROWS * WIDTH], g[12 * WIDTH] = {0};
    int32_t ids[ROWS] = {0, 11, 5, 6, 3, 3, 8, 1};
    fill(rows, 12 * WIDTH, 5);
    fill(d_out, ROWS * WIDTH, 6);
    plan_kernel k = {.B = B, .T = T, .n_out = WIDTH, .attrs.vocab = 12};
    run(k, IR_EMBED, IR_PHASE_F, 1, 0, (void *[]){ids, rows, out});
    run(k, IR_EMBED, IR_PHASE_BW, 1, 0, (void *[]){ids, d_out, g});
    for (uint32_t n = 2; n <= MOST; ++n) {
        double sum[ROWS * WIDTH] = {0}, part[ROWS * WIDTH], g_parts[12 * WIDTH] = {0};
        for (uint32_t i = 0; i < n; ++i) {
            size_t first = i * 12 / n * WIDTH;
            run(k, IR_EMBED, IR_PHASE_F, n, i, (void *[]){ids, rows + first, part});
            run(k, IR_EMBED, IR_PHASE_BW, n, i, (void *[]){ids, d_out, g_parts + first});
            for (size_t j = 0; j < ROWS * WIDTH; ++j)
                sum[j] += part[j];
        }
        near(sum, out, ROWS * WIDTH, "embedding");
        near(g_parts, g, 12 * WIDTH, "its gradient");
        ids[2] = 12; /* nobody's row */
        cpu_context cx = {0};
        plan_kernel refused = k;
        refused.ep = n;
        assert_int_equal(
            cpu_kernel_find_f64(IR_EMBED, IR_PHASE_F)(&refused, (void *[]){ids, rows, part}, &cx),
            PPS_ERR_ARG);
        ids[2] = 5;
    }
}

static void positions(void **state)
{
    (void)state;
    double in[ROWS * WIDTH], table[T * WIDTH], out[ROWS * WIDTH], g[T * WIDTH] = {0};
    fill(in, ROWS * WIDTH, 7);
    fill(table, T * WIDTH, 8);
    plan_kernel k = {.B = B, .T = T, .n_in = WIDTH, .n_out = WIDTH};
    run(k, IR_POSITION, IR_PHASE_F, 1, 0, (void *[]){in, table, out});
    run(k, IR_POSITION, IR_PHASE_BW, 1, 0, (void *[]){in, g});
    for (uint32_t n = 2; n <= T; n += 2) {
        double sum[T * WIDTH] = {0};
        size_t mine = T / n * WIDTH;
        k.T = T / n;
        for (uint32_t i = 0; i < n; ++i) {
            double own[ROWS * WIDTH], own_out[ROWS * WIDTH], own_g[T * WIDTH] = {0};
            for (size_t b = 0; b < B; ++b)
                memcpy(own + b * mine, in + b * T * WIDTH + i * mine, mine * sizeof *own);
            run(k, IR_POSITION, IR_PHASE_F, n, i, (void *[]){own, table, own_out});
            run(k, IR_POSITION, IR_PHASE_BW, n, i, (void *[]){own, own_g});
            for (size_t b = 0; b < B; ++b)
                near(own_out + b * mine, out + b * T * WIDTH + i * mine, mine, "positions");
            for (size_t j = 0; j < T * WIDTH; ++j)
                sum[j] += own_g[j];
        }
        near(sum, g, T * WIDTH, "their gradient");
    }
}

/* Inputs in shares, outputs to be summed: the bias is there once, its gradient whole everywhere. */
static void bias_once(void **state)
{
    (void)state;
    enum { IN = 6, OUT = 3 };
    double in[ROWS * IN], w[OUT * IN], bias[OUT], out[ROWS * OUT], d[ROWS * OUT], g[OUT] = {0};
    double g_w[OUT * IN] = {0};
    fill(in, ROWS * IN, 9);
    fill(w, OUT * IN, 10);
    fill(bias, OUT, 11);
    fill(d, ROWS * OUT, 12);
    plan_kernel k = {.B = B, .T = T, .n_in = IN, .n_out = OUT};
    run(k, IR_LINEAR, IR_PHASE_F, 1, 0, (void *[]){in, w, bias, out});
    run(k, IR_LINEAR, IR_PHASE_BW, 1, 0, (void *[]){in, d, g_w, g});
    for (uint32_t n = 2; n <= 3; ++n) {
        double sum[ROWS * OUT] = {0};
        size_t share = IN / n;
        k.n_in = (uint32_t)share;
        for (uint32_t i = 0; i < n; ++i) {
            double own[ROWS * IN], own_w[OUT * IN], own_out[ROWS * OUT], own_g[OUT] = {0};
            double own_g_w[OUT * IN] = {0};
            for (size_t r = 0; r < ROWS; ++r)
                memcpy(own + r * share, in + r * IN + i * share, share * sizeof *own);
            for (size_t r = 0; r < OUT; ++r)
                memcpy(own_w + r * share, w + r * IN + i * share, share * sizeof *own);
            run(k, IR_LINEAR, IR_PHASE_F, n, i, (void *[]){own, own_w, bias, own_out});
            run(k, IR_LINEAR, IR_PHASE_BW, n, i, (void *[]){own, d, own_g_w, own_g});
            near(own_g, g, OUT, "gradient of the bias");
            for (size_t j = 0; j < ROWS * OUT; ++j)
                sum[j] += own_out[j];
        }
        near(sum, out, ROWS * OUT, "output");
    }
}

/* Gradients of gates come in parts; the auxiliary loss's own is added once. */
static void router_once(void **state)
{
    (void)state;
    enum { E = 5, K = 2 };
    double logits[ROWS * E], gates[ROWS * K], d[ROWS * K], x[ROWS * E], aux;
    int32_t route[2 * ROWS * K], counts[E];
    fill(logits, ROWS * E, 13);
    fill(d, ROWS * K, 14);
    plan_kernel k = {.B = B,
                     .T = T,
                     .n_in = E,
                     .n_out = K,
                     .attrs = {.experts = E, .top_k = K, .aux_coef = 0.5f, .count = B}};
    run(k, IR_ROUTER, IR_PHASE_F, 1, 0, (void *[]){logits, gates, route, counts, &aux});
    run(k, IR_ROUTER, IR_PHASE_BI, 1, 0, (void *[]){logits, gates, route, d, x});
    for (uint32_t n = 2; n <= 3; ++n) {
        double sum[ROWS * E] = {0}, left[ROWS * K];
        memcpy(left, d, sizeof left);
        for (uint32_t i = 0; i < n; ++i) {
            double own[ROWS * K], own_x[ROWS * E];
            for (size_t j = 0; j < ROWS * K; ++j) {
                own[j] = i + 1 < n ? d[j] * (double)(i + 1) : left[j];
                left[j] -= own[j];
            }
            run(k, IR_ROUTER, IR_PHASE_BI, n, i, (void *[]){logits, gates, route, own, own_x});
            for (size_t j = 0; j < ROWS * E; ++j)
                sum[j] += own_x[j];
        }
        near(sum, x, ROWS * E, "gradient of the logits");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cross_entropy), cmocka_unit_test(embedding),   cmocka_unit_test(positions),
        cmocka_unit_test(bias_once),     cmocka_unit_test(router_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
