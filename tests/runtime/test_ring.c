/* SPDX-License-Identifier: Apache-2.0
 *
 * Rounds of attention: keys travel while the round before computes, in the plan and in time; no
 * more than two foreign blocks of them are there at once; a layer keeps what its share of the
 * positions asks for; and plans whose rounds would have the keys of another are refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rank_threads.h"

/* GPT-2 over `parts` ranks, alone for 1. */
static void compile(compiled *c, uint32_t parts, uint32_t layers, uint32_t mb, uint32_t streams)
{
    char directives[256] = "", ranks[32] = "[0, 1, 2, 3]";
    ranks[3 * parts - 1] = ']';
    ranks[3 * parts] = 0;
    if (parts > 1)
        snprintf(directives, sizeof directives,
                 "place {} on %s\nreplicate {} on %s reduce stream(\"dp\")\n"
                 "shard {} on %s as sequence stream stream(\"cp\")\n",
                 ranks, ranks, ranks);
    compile_text(c, streams,
                 "from \"models/gpt2\" import gpt2\n"
                 "train gpt2(tokens(4, 64), targets(), stages=1, layers=%u, heads=2, dim=32, "
                 "vocab=64) optimizer sgd(lr=0.1)\n"
                 "split {} by MB into %u\n%s",
                 layers, mb, directives);
}

/* ---- In the plan -------------------------------------------------------------------------------
 */

/* clock[i * n_streams + s]: step of stream s, plus one, that has ended when step i begins. */
static uint32_t *clocks(const plan_set *set, const plan *p)
{
    uint32_t n = set->n_streams, *clock = calloc((size_t)p->n_steps * n, sizeof *clock);
    uint32_t before[16] = {0};
    assert_true(clock != NULL && n <= 16);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        uint32_t *own = clock + (size_t)i * n;
        if (before[s->stream] > 0)
            memcpy(own, clock + (size_t)(before[s->stream] - 1) * n, n * sizeof *own);
        own[s->stream] = before[s->stream];
        for (uint32_t w = 0; w < s->n_waits; w++) {
            uint32_t on = p->waits[s->waits + w];
            for (uint32_t k = 0; k < n; k++)
                if (clock[(size_t)on * n + k] > own[k])
                    own[k] = clock[(size_t)on * n + k];
            if (own[p->steps[on].stream] < on + 1)
                own[p->steps[on].stream] = on + 1;
        }
        before[s->stream] = i + 1;
    }
    return clock;
}

static bool known(const plan_set *set, const plan *p, const uint32_t *clock, uint32_t at,
                  uint32_t ended)
{
    return clock[(size_t)at * set->n_streams + p->steps[ended].stream] > ended;
}

/* The compute after step `i` that uses what binding 1 of it fills. */
static uint32_t reader_of(const plan *p, uint32_t i)
{
    uint32_t offset = p->bindings[p->steps[i].bindings + 1];
    for (uint32_t j = i + 1; j < p->n_steps; j++)
        for (uint32_t k = 0; p->steps[j].kind == PLAN_COMPUTE && k < p->steps[j].n_bindings; k++)
            if (p->bindings[p->steps[j].bindings + k] == offset)
                return j;
    fail_msg("nobody reads what step %u brings", i);
    return IR_NONE;
}

static uint32_t compute_before(const plan *p, uint32_t i)
{
    while (i-- > 0)
        if (p->steps[i].kind == PLAN_COMPUTE)
            return i;
    fail_msg("there is no compute before it");
    return IR_NONE;
}

static void keys_travel_under_a_round(void **state)
{
    (void)state;
    for (uint32_t parts = 2; parts <= 4; parts++) {
        if (64 % (2 * parts) != 0)
            continue;
        compiled c;
        compile(&c, parts, 2, 2, 0);
        const plan *p = &c.set->plans[0];
        uint32_t *clock = clocks(c.set, p), n = 0;
        for (uint32_t i = 0; i < p->n_steps; i++) {
            if (p->steps[i].kind != PLAN_SHIFT || (p->steps[i].flags & PLAN_A2A_RETURN))
                continue;
            uint32_t round = reader_of(p, i), under = compute_before(p, round);
            assert_true(known(c.set, p, clock, round, i));
            assert_false(known(c.set, p, clock, under, i)); /* neither waits for the other */
            assert_false(known(c.set, p, clock, i, under));
            n++;
        }
        /* keys and values, forward and once more backward, layers and microbatches */
        assert_int_equal(n, 2 * 2 * (parts - 1) * 2 * 2);
        free(clock);
        compiled_close(&c);
    }
}

/* A round's gradients go home while the next round's backward computes. */
static void gradients_travel_under_a_round(void **state)
{
    (void)state;
    compiled c;
    compile(&c, 4, 1, 1, 0);
    const plan *p = &c.set->plans[0];
    uint32_t *clock = clocks(c.set, p), n = 0;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        if (p->steps[i].kind != PLAN_SHIFT || !(p->steps[i].flags & PLAN_A2A_RETURN))
            continue;
        uint32_t round = i, under, home = reader_of(p, i);
        while (p->steps[round].kind != PLAN_COMPUTE || !known(c.set, p, clock, i, round))
            round--;
        under = round + 1;
        while (p->steps[under].kind != PLAN_COMPUTE)
            under++;
        assert_true(under < home);
        assert_true(known(c.set, p, clock, home, i));
        assert_false(known(c.set, p, clock, under, i));
        assert_false(known(c.set, p, clock, i, under));
        n++;
    }
    assert_int_equal(n, 2 * 3);
    free(clock);
    compiled_close(&c);
}

static void two_foreign_blocks(void **state)
{
    (void)state;
    compiled c;
    compile(&c, 4, 3, 4, 0);
    const plan *p = &c.set->plans[0];
    uint32_t most = 0;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        uint32_t live = 0;
        for (uint32_t b = 0; b < p->n_blocks; b++) {
            const plan_block *k = &p->blocks[b];
            const plan_step *made = &p->steps[k->first];
            live += k->first <= i && i <= k->last && made->kind == PLAN_SHIFT &&
                    !(made->flags & PLAN_A2A_RETURN);
        }
        most = live > most ? live : most;
    }
    assert_int_equal(most, 2 * 2); /* of keys and of values */
    compiled_close(&c);
}

/* What two more layers add to the activations, all else being equal. */
static double layer_bytes(uint32_t parts)
{
    uint64_t bytes[2];
    for (uint32_t i = 0; i < 2; i++) {
        compiled c;
        compile(&c, parts, 2 + 2 * i, 1, 0);
        bytes[i] = c.set->plans[0].max_live_bytes;
        compiled_close(&c);
    }
    return (double)(bytes[1] - bytes[0]) / 2;
}

static void layers_keep_their_share(void **state)
{
    (void)state;
    double whole = layer_bytes(1);
    for (uint32_t parts = 2; parts <= 4; parts *= 2) {
        double share = layer_bytes(parts) * parts / whole;
        print_message("%u parts: a layer keeps %.0f of %.0f bytes\n", parts, whole * share / parts,
                      whole);
        assert_true(share > 0.9 && share < 1.1);
    }
}

/* ---- In time -----------------------------------------------------------------------------------
 */

enum { UNIT_MS = 4 };

static double step_ms(uint32_t streams, double ratio)
{
    double least = 0;
    compiled c;
    compile(&c, 4, 2, 1, streams);
    exec_paced_costs costs = {.unit_ns = UNIT_MS * 1e6, .comm_ratio = ratio};
    for (int i = 0; i < 3; i++) {
        rank_threads run = {.compiled = &c, .steps = 1, .paced = &costs};
        rank_threads_run(&run);
        double ms = (double)run.last_step_ns / 1e6;
        least = i == 0 || ms < least ? ms : least;
    }
    compiled_close(&c);
    return least;
}

/* Two shifts of 0.4 units under each round, four under each backward of two units. */
static void communication_hides(void **state)
{
    (void)state;
    double none = step_ms(0, 1e-6), hidden = step_ms(0, 0.4), exposed = step_ms(1, 0.4);
    print_message("4 parts, 2 layers, units of %d ms: %.0f ms without communication, %.0f ms "
                  "with it, %.0f ms with it on the computes' stream: %.0f %% of it hidden\n",
                  UNIT_MS, none, hidden, exposed, 100 * (exposed - hidden) / (exposed - none));
    assert_true(exposed - none > 2 * 3 * 6 * 0.4 * UNIT_MS * 0.9);
    assert_true((exposed - hidden) / (exposed - none) > 0.9);
}

/* ---- Refused -----------------------------------------------------------------------------------
 */

static plan_step *shift_step(plan *p, uint32_t n, bool back)
{
    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].kind == PLAN_SHIFT &&
            ((p->steps[i].flags & PLAN_A2A_RETURN) != 0) == back && n-- == 0)
            return &p->steps[i];
    fail_msg("there is no such shift");
    return NULL;
}

static void other_way(plan_set *set, plan *p) /* all of its work */
{
    uint32_t work = shift_step(p, 0, false)->work;
    (void)set;
    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].work == work)
            p->steps[i].flags |= PLAN_A2A_RETURN;
}

static void home_to_another(plan_set *set, plan *p)
{
    set->works[shift_step(p, 0, true)->work].shift ^= 3;
}

static void keys_of_another(plan_set *set, plan *p)
{
    set->works[shift_step(p, 2, false)->work].shift = 1;
}

static void other_teams(plan_set *set, plan *p)
{
    set->works[shift_step(p, 1, false)->work].teams = set->n_teams - 1;
}

static void other_microbatch(plan_set *set, plan *p)
{
    (void)set;
    shift_step(p, 0, false)->mb ^= 1;
}

static void own_keys_twice(plan_set *set, plan *p) /* round 1 believes to be round 2 */
{
    (void)p;
    for (uint32_t i = 0; i < set->n_kernels; i++)
        if (set->kernels[i].op == IR_ATTENTION_PART && set->kernels[i].attrs.shift == 1)
            set->kernels[i].attrs.shift = 2;
}

static void other_part(plan_set *set,
                       plan *p) /* two ranks hold what they believe the other holds */
{
    set->rank_part[p->ranks] = 1;
    set->rank_part[p->ranks + 1] = 0;
}

static void early_round(plan_set *set, plan *p)
{
    (void)set;
    p->steps[reader_of(p, (uint32_t)(shift_step(p, 0, false) - p->steps))].n_waits = 0;
}

static void early_shift(plan_set *set, plan *p)
{
    (void)set;
    shift_step(p, 0, false)->n_waits = 0;
}

static void refusals(void **state)
{
    static const struct {
        void (*change)(plan_set *set, plan *p);
        const char *code;
    } rows[] = {
        {other_way, "E0527"},   {home_to_another, "E0527"},  {keys_of_another, "E0527"},
        {other_teams, "E0527"}, {other_microbatch, "E0527"}, {own_keys_twice, "E0527"},
        {other_part, "E0527"},  {early_round, "E0520"},      {early_shift, "E0520"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        compiled c;
        compile(&c, 4, 1, 2, 0);
        assert_int_equal(pps_prove(c.st, c.set), PPS_OK);
        /* teams of the same ranks, in pairs */
        plan_teams *teams = calloc(c.set->n_teams + 1, sizeof *teams);
        memcpy(teams, c.set->teams, c.set->n_teams * sizeof *teams);
        teams[c.set->n_teams] = teams[0];
        teams[c.set->n_teams].size = 2;
        c.set->teams = teams;
        c.set->n_teams++;
        rows[i].change(c.set, &c.set->plans[0]);
        assert_int_equal(pps_prove(c.st, c.set), PPS_ERR_SCRIPT);
        if (strstr(c.said, rows[i].code) == NULL)
            fail_msg("change %zu: no %s in %s", i, rows[i].code, c.said);
        free(teams);
        compiled_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_travel_under_a_round),
        cmocka_unit_test(gradients_travel_under_a_round),
        cmocka_unit_test(two_foreign_blocks),
        cmocka_unit_test(layers_keep_their_share),
        cmocka_unit_test(communication_hides),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
