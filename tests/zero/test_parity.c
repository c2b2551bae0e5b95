/* SPDX-License-Identifier: Apache-2.0
 *
 * test_parity.c: `zero 0` to `zero 3`, crossed with schedules, shared experts, bucket sizes and
 * windows, train the model that one rank trains without directives, and use what was planned:
 *
 *   - losses, gradients of step 1 and parameters after 5 SGD steps agree: losses within 1e-5
 * relative, tensors within 1e-5 of their largest element (float32, sums in another order);
 *   - the same run again gives the same bits, and zero 1 those of zero 0;
 *   - memory in use and bytes sent are those of the plan.
 */
#include "zero_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *const schedules[] = {"1f1b", "dualpipev", "interleaved"};
static const char *const clauses[] = {
    /* zero 0 and 1 in pairs: the same bits */
    "",
    "zero 1",
    "bucket 0.003",
    "zero 1 bucket 0.003 gather ga",
    "zero 2",
    "zero 2 every 2",
    "zero 2 every 3", /* the last window is shorter */
    "zero 2 every 4",
    "zero 2 bucket 0.003",
    "zero 2 bucket 0.003 every 2 gather ga",
    "zero 2 bucket 0.0001", /* each parameter alone */
    "zero 3",
    "zero 3 every 2 gather ga",
    "zero 3 every 3 prefetch 2",
    "zero 3 gather dp", /* all on the reductions' stream */
    "zero 3 bucket 0.003 prefetch 3",
    "zero 3 bucket 0.003 every 4",
    "zero 3 bucket 0.0001 every 2",
    "zero 3 bucket 0.003 prefetch 0",
    "shard_params true",
};

static void check_cell(const zero_case *z, const outcome *alone, char hash[65])
{
    compiled c;
    outcome o, again;
    zero_open(&c, z);
    zero_run(&c, &o);
    zero_run(&c, &again);
    for (int i = 0; i < ZERO_STEPS; i++)
        if (!(fabs(o.losses[i] - alone->losses[i]) <= 1e-5 * fabs(alone->losses[i])))
            fail_msg("loss %d is %.9g, not %.9g", i + 1, o.losses[i], alone->losses[i]);
    zero_near("gradient", c.set, o.grads, alone->grads);
    zero_near("value", c.set, o.params, alone->params);
    assert_string_equal(o.result.params_sha256, again.result.params_sha256);
    assert_memory_equal(o.losses, again.losses, sizeof o.losses);
    zero_as_planned(c.set, &o, z->ep);
    memcpy(hash, o.result.params_sha256, 65);
    outcome_done(&o);
    outcome_done(&again);
    zero_close(&c);
}

static void cells_train_the_model_of_one_rank(void **state)
{
    compiled c;
    outcome alone;
    (void)state;
    zero_open(&c, &(zero_case){.schedule = "alone"});
    zero_run(&c, &alone);
    for (size_t s = 0; s < sizeof schedules / sizeof *schedules; s++)
        for (int ep = 0; ep < 2; ep++) {
            char hash[65], plain[65] = "";
            for (size_t i = 0; i < sizeof clauses / sizeof *clauses; i++) {
                zero_case z = {.schedule = schedules[s], .ep = ep, .clauses = clauses[i]};
                print_message("%s%s, %s\n", z.schedule, ep ? ", experts shared out" : "",
                              *z.clauses ? z.clauses : "plain");
                check_cell(&z, &alone, hash);
                if (*plain == '\0')
                    memcpy(plain, hash, sizeof plain);
                if (i < 4)
                    assert_string_equal(hash, plain);
            }
        }
    outcome_done(&alone);
    zero_close(&c);
}

/* Optimizer state of slices, and decay of some parameters in a slice but not of others: the same
 * bits. */
static void slices_update_as_wholes(void **state)
{
    static const char *const optimizers[] = {"adamw(lr=1e-3, weight_decay=0.1)",
                                             "adamw(lr=1e-3, weight_decay=0.1, decay=\"all\")",
                                             "sgd(lr=0.1, momentum=0.9)"};
    (void)state;
    for (size_t i = 0; i < sizeof optimizers / sizeof *optimizers; i++) {
        char hash[2][65];
        for (int zero = 0; zero < 2; zero++) {
            compiled c;
            outcome o;
            zero_open(&c, &(zero_case){.schedule = "dualpipev",
                                       .ep = true,
                                       .clauses = zero ? "zero 1 bucket 0.003" : "",
                                       .optimizer = optimizers[i]});
            zero_run(&c, &o);
            memcpy(hash[zero], o.result.params_sha256, 65);
            outcome_done(&o);
            zero_close(&c);
        }
        assert_string_equal(hash[0], hash[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_train_the_model_of_one_rank),
        cmocka_unit_test(slices_update_as_wholes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
