/* SPDX-License-Identifier: Apache-2.0
 *
 * The optimizers against their formulas in double, three steps each.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "runtime/cpu/cpu.h"

enum { N = 37, STEPS = 3 };

typedef struct reference {
    double param[N], m[N], v[N];
} reference;

static double gradient_at(uint64_t step, size_t i)
{
    return sin((double)(step * 100 + i)) * (i % 5 == 0 ? 1e-4 : 1);
}

static void expect_step(const ir_optimizer *opt, double decay, uint64_t step, reference *r)
{
    for (size_t i = 0; i < N; ++i) {
        double g = gradient_at(step, i), lr = (double)opt->lr, move;
        if (opt->kind == IR_OPT_ADAMW) {
            double b1 = (double)opt->beta1, b2 = (double)opt->beta2;
            r->m[i] = b1 * r->m[i] + (1 - b1) * g;
            r->v[i] = b2 * r->v[i] + (1 - b2) * g * g;
            move = r->m[i] / (1 - pow(b1, (double)step)) /
                   (sqrt(r->v[i] / (1 - pow(b2, (double)step))) + (double)opt->eps);
        } else {
            r->m[i] = (double)opt->momentum * r->m[i] + g;
            move = r->m[i];
        }
        r->param[i] -= lr * (move + decay * r->param[i]);
    }
}

static void compare(const ir_optimizer *opt, bool decay)
{
    reference want = {0};
    float param[N], grad[N], m[N] = {0}, v[N] = {0};
    uint32_t states = cpu_optimizer_states(opt);
    for (size_t i = 0; i < N; ++i)
        param[i] = (float)(want.param[i] = (double)(float)cos((double)i));
    for (uint64_t step = 1; step <= STEPS; ++step) {
        for (size_t i = 0; i < N; ++i)
            grad[i] = (float)gradient_at(step, i);
        cpu_update(opt, decay, step, N, param, grad, states > 0 ? m : NULL, states > 1 ? v : NULL);
        expect_step(opt, decay ? (double)opt->weight_decay : 0, step, &want);
    }
    for (size_t i = 0; i < N; ++i)
        assert_true(fabs((double)param[i] - want.param[i]) <= 1e-6);
}

static void sgd(void **state)
{
    (void)state;
    ir_optimizer opt = {.kind = IR_OPT_SGD, .lr = 0.1f};
    assert_int_equal(cpu_optimizer_states(&opt), 0);
    compare(&opt, true);
}

static void sgd_with_momentum(void **state)
{
    (void)state;
    ir_optimizer opt = {.kind = IR_OPT_SGD, .lr = 0.1f, .momentum = 0.9f};
    assert_int_equal(cpu_optimizer_states(&opt), 1);
    compare(&opt, false);
}

static void adamw(void **state)
{
    (void)state;
    ir_optimizer opt = {.kind = IR_OPT_ADAMW,
                        .lr = 0.01f,
                        .beta1 = 0.9f,
                        .beta2 = 0.99f,
                        .eps = 1e-8f,
                        .weight_decay = 0.1f};
    assert_int_equal(cpu_optimizer_states(&opt), 2);
    compare(&opt, true);
    compare(&opt, false);
}

/* A segment does not depend on where it was cut: as buckets and shards need it. */
static void element_by_element(void **state)
{
    (void)state;
    ir_optimizer opt = {.kind = IR_OPT_ADAMW,
                        .lr = 0.01f,
                        .beta1 = 0.9f,
                        .beta2 = 0.99f,
                        .eps = 1e-8f,
                        .weight_decay = 0.1f};
    float whole[N], parts[N], grad[N], m[2][N] = {0}, v[2][N] = {0};
    for (size_t i = 0; i < N; ++i) {
        whole[i] = parts[i] = (float)cos((double)i);
        grad[i] = (float)gradient_at(1, i);
    }
    cpu_update(&opt, true, 1, N, whole, grad, m[0], v[0]);
    for (size_t i = 0; i < N; i += 5) {
        size_t n = N - i < 5 ? N - i : 5;
        cpu_update(&opt, true, 1, n, parts + i, grad + i, m[1] + i, v[1] + i);
    }
    assert_memory_equal(whole, parts, sizeof whole);
    assert_memory_equal(m[0], m[1], sizeof m[0]);
    assert_memory_equal(v[0], v[1], sizeof v[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sgd),
        cmocka_unit_test(sgd_with_momentum),
        cmocka_unit_test(adamw),
        cmocka_unit_test(element_by_element),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
