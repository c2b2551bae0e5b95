/* SPDX-License-Identifier: Apache-2.0
 *
 * test_clauses.c: clauses of `replicate` that would do nothing are refused where they stand, and
 * those that do something are taken.
 */
#include "zero_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static void model(char *script, size_t n, const char *split, const char *replicate,
                  const char *more)
{
    int used =
        snprintf(script, n,
                 "from \"models/qwen3_moe\" import qwen3_moe\n"
                 "let dp = stream(\"dp\")\n"
                 "train qwen3_moe(tokens(16, 8), targets(), stages=1, layers=2, dim=16, heads=2, "
                 "kv_heads=1, head_dim=8, experts=4, top_k=2, expert_hidden=16, vocab=50)\n"
                 "%s\n"
                 "place {} on [0, 1]\n"
                 "%s\n"
                 "%s\n",
                 split, replicate, more);
    assert_true(used > 0 && (size_t)used < n);
}

static const char split4[] = "split {} by MB into 4";
static const char shard[] = "shard {EP: *} on [0, 1]";

static const struct {
    const char *split, *replicate, *more;
    const char *place, *says, *also; /* NULL place: accepted */
} rows[] = {
    {split4, "replicate {} on [0, 1] reduce dp gather dp", "", "6:34",
     "`gather` has no effect below `zero 1`", "every rank updates all parameters itself"},
    {split4, "replicate {} on [0, 1] zero 0 gather dp", "", "6:31", "below `zero 1`", ""},
    {split4, "replicate {} on [0, 1] zero 1 every 2", "", "6:31",
     "`every` has no effect below `zero 2`", "after the last microbatch"},
    {split4, "replicate {} on [0, 1] zero 2 prefetch 2", "", "6:31",
     "`prefetch` has no effect below `zero 3`", ""},
    {split4, "replicate {} on [0, 1] shard_grads true prefetch 2", "", "6:41", "below `zero 3`",
     ""},
    {split4, "replicate {} on [0, 1] zero 2 every 5", "", "6:37", "there are no 5 microbatches",
     "this split makes 4"},
    {"", "replicate {} on [0, 1] zero 2 every 2", "", "6:37", "there are no 2 microbatches",
     "there is one microbatch"},
    {split4, "replicate {EP: *} on [0, 1] zero 2\nreplicate {EP: -} on [0, 1]", shard, "6:29",
     "`zero 2` has no effect", "has one owner already"},
    {split4, "replicate {} on [0, 1] reduce dp zero 2 every 4", shard, NULL, "", ""},
    {"", "replicate {} on [0, 1] reduce dp zero 3 every 1 prefetch 9", "", NULL, "", ""},
    {split4, "replicate {} on [0, 1] shard_params true prefetch 1 gather dp bucket 0.01", shard,
     NULL, "", ""},
    {split4, "replicate {} on [0, 1] zero 0", "", NULL, "", ""},
    {split4, "replicate {} on [0, 1] zero 3 prefetch 0", "", NULL, "", ""},
};

static void clauses_without_effect_are_refused(void **state)
{
    char script[2048], place[32];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        compiled c;
        model(script, sizeof script, rows[i].split, rows[i].replicate, rows[i].more);
        zero_compile(&c, script);
        snprintf(place, sizeof place, "test.pps:%s", rows[i].place != NULL ? rows[i].place : "");
        bool as_wanted = rows[i].place == NULL
                             ? c.set != NULL
                             : c.set == NULL && c.code == 410 && strstr(c.said, place) != NULL &&
                                   strstr(c.said, rows[i].says) != NULL &&
                                   strstr(c.said, rows[i].also) != NULL;
        if (!as_wanted)
            fail_msg("%s\n%s\nwanted %s: %s (%s)", rows[i].replicate, c.said, place, rows[i].says,
                     rows[i].also);
        zero_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(clauses_without_effect_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
