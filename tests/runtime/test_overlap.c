/* SPDX-License-Identifier: Apache-2.0
 *
 * Overlap is real: in DualPipeV's plans with sharded experts, every all-to-all between two computes
 * of an overlapped op has a compute of the other op between its issue and whoever waits for it; and
 * on the paced backend, where computes and links sleep, a step is faster for it than with the same
 * rows where every `|` became `->`.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "rank_threads.h"

/* DualPipeV on R ranks times two replicas that share the experts; a layer per stage. `flat`: each
 * overlapped group becomes its ops one after the other. */
static void compile_dualpipev(compiled *c, uint32_t R, uint32_t M, bool flat)
{
    compile_text(c, 0,
                 "from \"models/qwen3_moe\" import qwen3_moe\n"
                 "from \"schedules\" import dualpipev, v_stages\n"
                 "train qwen3_moe(tokens(%u, 8), targets(), stages=%u, layers=%u, dim=16, heads=2, "
                 "kv_heads=1, head_dim=8, experts=4, top_k=2, expert_hidden=16, vocab=64) "
                 "optimizer sgd(lr=0.1)\n"
                 "split {} by MB into %u\n"
                 "let stages_on = v_stages(%u, 2)\n"
                 "for s in 0..%u {\n"
                 "  place {PP: s} on stages_on[s] stream stream(\"pp\")\n"
                 "  replicate {PP: s} on stages_on[s] reduce stream(\"dp\")\n"
                 "  shard {PP: s, EP: *} on stages_on[s] stream stream(\"ep\")\n"
                 "}\n"
                 "fn ops(group) => if type(group) == \"op\" then [group] else group\n"
                 "fn flat(rows) => [[op for group in row for op in ops(group)] for row in rows]\n"
                 "order %s(dualpipev(%u, %u))\n",
                 2 * M, 2 * R, 2 * R, M, R, 2 * R, flat ? "flat" : "", R, M);
}

/* ---- In the plan -------------------------------------------------------------------------------
 */

/* The first compute that can only begin after communication step `i`: that step, or a later one of
 * its stream, is among its waits. */
static uint32_t compute_after(const plan *p, uint32_t i)
{
    for (uint32_t j = i + 1; j < p->n_steps; j++) {
        const plan_step *s = &p->steps[j];
        for (uint32_t w = 0; s->kind == PLAN_COMPUTE && w < s->n_waits; w++) {
            uint32_t target = p->waits[s->waits + w];
            if (target >= i && p->steps[target].stream == p->steps[i].stream)
                return j;
        }
    }
    return IR_NONE;
}

/* The compute that step `i` waits for, itself or through the steps before it on its stream. */
static uint32_t compute_before(const plan *p, uint32_t i)
{
    for (uint32_t j = i + 1; j-- > 0;) {
        const plan_step *s = &p->steps[j];
        for (uint32_t w = 0; s->stream == p->steps[i].stream && w < s->n_waits; w++)
            if (p->steps[p->waits[s->waits + w]].kind == PLAN_COMPUTE)
                return p->waits[s->waits + w];
    }
    return IR_NONE;
}

static bool same_op(const plan_set *set, const plan_step *a, const plan_step *b)
{
    return a->pass == b->pass && a->mb == b->mb &&
           set->chunk_stage[plan_work_of(set, a)->chunk] ==
               set->chunk_stage[plan_work_of(set, b)->chunk];
}

/* All-to-alls of `p` whose op is one of an overlapped group; each must have the other op's compute
 * between its ends. */
static uint32_t overlapped_exchanges(const plan_set *set, const plan *p)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        if (p->steps[i].kind != PLAN_ALL_TO_ALL)
            continue;
        uint32_t from = compute_before(p, i), to = compute_after(p, i), n_other = 0;
        assert_true(from < i && to != IR_NONE);
        const plan_step *a = &p->steps[from], *b = &p->steps[to];
        assert_true(same_op(set, a, b));
        if (!(a->flags & PLAN_STEP_OVERLAP))
            continue;
        assert_int_equal(a->row_group, b->row_group);
        for (uint32_t j = i + 1; j < to; j++)
            n_other += p->steps[j].kind == PLAN_COMPUTE && p->steps[j].row_group == a->row_group &&
                       !same_op(set, &p->steps[j], a);
        assert_true(n_other > 0);
        n++;
    }
    return n;
}

static void test_plan(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{1, 2}, {2, 4}, {2, 7}, {4, 8}, {4, 12}};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        compiled c;
        compile_dualpipev(&c, sizes[k][0], sizes[k][1], false);
        uint32_t n_exchanges = 0, n_pairs = 0;
        for (uint32_t g = 0; g < c.set->n_groups; g++) {
            n_exchanges += overlapped_exchanges(c.set, &c.set->plans[g]);
            for (const char *at = c.set->row_text[g]; (at = strchr(at, '|')); at++)
                n_pairs++;
        }
        /* both ops of a pair go out to the experts of their one layer and back */
        assert_true(n_pairs > 0);
        assert_int_equal(n_exchanges, 4 * n_pairs);
        print_message("%u ranks x 2, %u microbatches: %u pairs, %u all-to-alls under computes\n",
                      sizes[k][0], sizes[k][1], n_pairs, n_exchanges);
        compiled_close(&c);
    }
}

/* ---- In time -----------------------------------------------------------------------------------
 */

enum { R = 2, M = 24, UNIT_MS = 2 };

/* The median of three steps. Deadlines of the paced backend are absolute, so late wake-ups do not
 * add up, and the times repeat to a fraction of a unit. */
static double step_ms(const compiled *c, const exec_paced_costs *costs)
{
    double ms[3];
    for (int i = 0; i < 3; i++) {
        rank_threads run = {.compiled = c, .steps = 1, .paced = costs};
        rank_threads_run(&run);
        ms[i] = (double)run.last_step_ns / 1e6;
    }
    double least = ms[0] < ms[1] ? ms[0] : ms[1], most = ms[0] < ms[1] ? ms[1] : ms[0];
    return ms[2] < least ? least : ms[2] > most ? most : ms[2];
}

/* "Communication half of compute" in two readings. All of it: a pair of 9 units then has 12.1 in a
 * row. The all-to-alls alone: 13.5, and transfers take as long as they do. */
static void test_time(void **state)
{
    (void)state;
    compiled overlapped, flat;
    compile_dualpipev(&overlapped, R, M, false);
    compile_dualpipev(&flat, R, M, true);
    exec_paced_costs costs = exec_paced_share(overlapped.set, UNIT_MS * 1e6, 0.5);
    for (int exchanges_alone = 0; exchanges_alone < 2; exchanges_alone++) {
        if (exchanges_alone)
            costs.comm_ratio = 0.5 * 9 / 4; /* F, BI, BW of three chunks; four all-to-alls */
        double with = step_ms(&overlapped, &costs), without = step_ms(&flat, &costs);
        print_message("%s half of compute, %d ranks x 2, %d microbatches, units of %d ms: "
                      "%.0f ms with |, %.0f ms with ->: %.1f %% faster, %.1f %% less time\n",
                      exchanges_alone ? "all-to-alls" : "communication", R, M, UNIT_MS, with,
                      without, 100 * (without / with - 1), 100 * (1 - with / without));
        assert_true(without >= 1.25 * with);
        if (exchanges_alone)
            assert_true(with <= 0.75 * without);
    }
    compiled_close(&overlapped);
    compiled_close(&flat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
