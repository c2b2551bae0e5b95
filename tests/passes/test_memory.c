/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_ends and memory_place on random blocks, streams and waits, against the rule itself: bytes
 * are used again only by a step that begins after every earlier access to them has ended.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "passes/pass.h"

enum { MAX_STEPS = 90, MAX_STREAMS = 4, MAX_BLOCKS = 80 };

typedef struct trial {
    plan_step steps[MAX_STEPS];
    uint32_t clock[MAX_STEPS * MAX_STREAMS];
    bool before[MAX_STEPS]
               [MAX_STEPS];        /* [a][b]: a has ended when b begins; by closure, not clocks */
    plan_block blocks[MAX_BLOCKS]; /* by first step */
    memory_uses uses[MAX_BLOCKS];
    uint32_t n_steps, n_streams, n_blocks;
} trial;

static uint32_t seed;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)(seed >> 8) * n) >> 24);
}

/* Streams, then waits: `before` by walking edges, `clock` as lower.c keeps it. */
static void make_steps(trial *t, uint32_t n_steps, uint32_t n_streams)
{
    uint32_t last[MAX_STREAMS] = {0};
    t->n_steps = n_steps;
    t->n_streams = n_streams;
    for (uint32_t i = 0; i < n_steps; i++) {
        uint32_t stream = random_below(n_streams), *clock = t->clock + i * n_streams;
        t->steps[i] = (plan_step){.stream = (uint16_t)stream};
        memset(clock, 0, n_streams * sizeof *clock);
        for (uint32_t a = 0; a < n_steps; a++)
            t->before[a][i] = false;
        uint32_t preds[3], n_preds = 0;
        if (last[stream] > 0)
            preds[n_preds++] = last[stream] - 1;
        for (uint32_t k = random_below(3); k > 0 && i > 0; k--)
            preds[n_preds++] = random_below(i);
        for (uint32_t k = 0; k < n_preds; k++) {
            uint32_t p = preds[k], of = t->steps[p].stream;
            t->before[p][i] = true;
            for (uint32_t a = 0; a < p; a++)
                t->before[a][i] |= t->before[a][p];
            for (uint32_t s = 0; s < n_streams; s++)
                if (t->clock[p * n_streams + s] > clock[s])
                    clock[s] = t->clock[p * n_streams + s];
            if (clock[of] < p + 1)
                clock[of] = p + 1;
        }
        last[stream] = i + 1;
    }
}

static void access_block(trial *t, plan_block *b, memory_uses *u, uint32_t step)
{
    uint32_t k = 0;
    while (u->last[k] > 0 && t->steps[u->last[k] - 1].stream != t->steps[step].stream)
        k++;
    u->last[k] = step + 1 > u->last[k] ? step + 1 : u->last[k];
    b->last = step > b->last ? step : b->last;
}

static uint64_t offset_of(const plan_block *b)
{
    return (uint64_t)b->offset * PLAN_ALIGN;
}

/* Sizes are any number of bytes, or all one unit. */
static void make_blocks(trial *t, uint32_t n, bool equal_sizes)
{
    t->n_blocks = n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t first = random_below(t->n_steps), span = random_below(12) + 1, at = i;
        uint64_t bytes = equal_sizes ? PLAN_ALIGN : 1 + random_below(20 * PLAN_ALIGN);
        plan_block b = memory_block_of(bytes, 0);
        memory_uses u = {{0}};
        assert_int_equal(plan_block_bytes(&b), bytes);
        b.first = b.last = first;
        access_block(t, &b, &u, first);
        for (uint32_t k = random_below(4); k > 0; k--) {
            uint32_t step = first + random_below(span);
            if (step < t->n_steps)
                access_block(t, &b, &u, step);
        }
        for (; at > 0 && t->blocks[at - 1].first > first; at--) {
            t->blocks[at] = t->blocks[at - 1];
            t->uses[at] = t->uses[at - 1];
        }
        t->blocks[at] = b;
        t->uses[at] = u;
    }
}

static uint64_t most_live(const trial *t)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < t->n_steps; i++) {
        uint64_t live = 0;
        for (uint32_t k = 0; k < t->n_blocks; k++)
            if (t->blocks[k].first <= i && i <= t->blocks[k].last)
                live += plan_block_bytes(&t->blocks[k]);
        most = live > most ? live : most;
    }
    return most;
}

static void check_places(const trial *t, uint64_t bytes)
{
    for (uint32_t i = 0; i < t->n_blocks; i++) {
        const plan_block *a = &t->blocks[i];
        assert_true(offset_of(a) + plan_block_bytes(a) <= bytes);
        for (uint32_t j = i + 1; j < t->n_blocks; j++) {
            const plan_block *b = &t->blocks[j];
            if (offset_of(a) + plan_block_bytes(a) <= offset_of(b) ||
                offset_of(b) + plan_block_bytes(b) <= offset_of(a))
                continue;
            assert_true(a->last < b->first);
            for (uint32_t k = 0; k < MAX_STREAMS && t->uses[i].last[k] > 0; k++)
                if (!t->before[t->uses[i].last[k] - 1][b->first])
                    fail_msg("seed %u: step %u may still use what step %u fills", seed,
                             t->uses[i].last[k] - 1, b->first);
        }
    }
}

static pps_status place(plan_block *blocks, const memory_uses *uses, uint32_t n,
                        const plan_step *steps, uint32_t n_steps, const uint32_t *clock,
                        uint32_t n_streams, uint64_t *ret_bytes, uint64_t *ret_most)
{
    static const uint32_t lane[MAX_STREAMS] = {0, 1, 2, 3};
    arena mem;
    uint32_t *ends;
    arena_init(&mem, NULL, NULL);
    assert_int_equal(
        memory_ends(&mem, &mem, blocks, uses, n, steps, n_steps, clock, lane, n_streams, &ends),
        PPS_OK);
    memory_sizes sizes = {0};
    pps_status status = memory_place(&mem, blocks, ends, n, n_steps, &sizes);
    *ret_bytes = sizes.bytes;
    *ret_most = sizes.live;
    if (status == PPS_OK)
        assert_true(sizes.live <= sizes.least && sizes.least <= sizes.bytes);
    arena_done(&mem);
    return status;
}

static void run_trial(trial *t, uint64_t *ret_bytes, uint64_t *ret_most)
{
    assert_int_equal(place(t->blocks, t->uses, t->n_blocks, t->steps, t->n_steps, t->clock,
                           t->n_streams, ret_bytes, ret_most),
                     PPS_OK);
}

static void bytes_are_used_again_only_when_free(void **state)
{
    static trial t;
    (void)state;
    uint64_t sum_bytes = 0, sum_blocks = 0;
    for (uint32_t n = 0; n < 1500; n++) {
        uint64_t bytes, most;
        seed = n;
        make_steps(&t, 2 + random_below(MAX_STEPS - 2), 1 + random_below(MAX_STREAMS));
        make_blocks(&t, random_below(MAX_BLOCKS), false);
        run_trial(&t, &bytes, &most);
        check_places(&t, bytes);
        assert_int_equal(most, most_live(&t));
        assert_true(bytes >= most);
        sum_bytes += bytes;
        for (uint32_t k = 0; k < t.n_blocks; k++)
            sum_blocks += plan_block_bytes(&t.blocks[k]);
    }
    assert_true(sum_bytes * 3 < sum_blocks * 2); /* and they are used again, rare as waits are */
}

/* One stream and one size: nothing can be lost between blocks. */
static void equal_blocks_on_one_stream_need_the_least(void **state)
{
    static trial t;
    (void)state;
    for (uint32_t n = 0; n < 300; n++) {
        uint64_t bytes, most;
        seed = n;
        make_steps(&t, MAX_STEPS, 1);
        make_blocks(&t, MAX_BLOCKS, true);
        run_trial(&t, &bytes, &most);
        check_places(&t, bytes);
        assert_int_equal(bytes, most);
    }
}

typedef struct long_trial { /* on one stream, each step known to all behind it */
    plan_step *steps;
    uint32_t *clock, n_steps;
    plan_block *blocks; /* by first step */
    memory_uses *uses;
    uint32_t n;
} long_trial;

static void long_trial_init(long_trial *t, uint32_t most_steps, uint32_t most_blocks)
{
    *t = (long_trial){.steps = calloc(most_steps, sizeof *t->steps),
                      .clock = calloc(most_steps, sizeof *t->clock),
                      .blocks = calloc(most_blocks, sizeof *t->blocks),
                      .uses = calloc(most_blocks, sizeof *t->uses)};
    assert_true(t->steps != NULL && t->clock != NULL && t->blocks != NULL && t->uses != NULL);
    for (uint32_t i = 0; i < most_steps; i++)
        t->clock[i] = i;
}

static void long_trial_done(long_trial *t)
{
    free(t->steps);
    free(t->clock);
    free(t->blocks);
    free(t->uses);
}

static void add_block(long_trial *t, uint32_t first, uint32_t last, uint32_t units)
{
    plan_block *b = &t->blocks[t->n];
    *b = memory_block_of((uint64_t)units * PLAN_ALIGN - units % 7, 0);
    b->first = first;
    b->last = last < t->n_steps ? last : t->n_steps - 1;
    t->uses[t->n++] = (memory_uses){{b->last + 1}};
}

static uint64_t place_long(long_trial *t, uint64_t *ret_most)
{
    uint64_t bytes;
    assert_int_equal(
        place(t->blocks, t->uses, t->n, t->steps, t->n_steps, t->clock, 1, &bytes, ret_most),
        PPS_OK);
    assert_true(bytes >= *ret_most);
    for (uint32_t i = 0; i < t->n; i++) {
        const plan_block *a = &t->blocks[i];
        assert_true(offset_of(a) + plan_block_bytes(a) <= bytes);
        for (uint32_t j = i + 1; j < t->n && t->blocks[j].first <= a->last; j++) {
            const plan_block *b = &t->blocks[j];
            if (a->offset < b->offset + b->units && b->offset < a->offset + a->units)
                fail_msg("seed %u: blocks %u and %u share bytes", seed, i, j);
        }
    }
    return bytes;
}

/* The same few blocks over and over, behind others: however often, no more is lost between them. */
static void long_schedules_lose_no_more(void **state)
{
    enum { PERIOD = 6, KINDS = 5, WARM_UP = 3, MOST = 20000 };
    static const uint32_t units[KINDS] = {48, 16, 32, 8, 64}, spans[KINDS] = {14, 3, 21, 9, 1};
    long_trial t;
    uint64_t at_first = 0, most;
    (void)state;
    long_trial_init(&t, MOST * PERIOD, MOST * KINDS);
    for (uint32_t n_periods = 20; n_periods <= MOST; n_periods *= 10) {
        t.n = 0;
        t.n_steps = n_periods * PERIOD;
        for (uint32_t m = 0; m < n_periods; m++)
            for (uint32_t k = 0; k < (m < WARM_UP ? KINDS - 1 : KINDS); k++)
                add_block(&t, m * PERIOD + k, m * PERIOD + k + spans[k], units[k]);
        uint64_t bytes = place_long(&t, &most);
        if (n_periods == 20)
            at_first = bytes;
        assert_true(bytes * 20 <= at_first * 21);
    }
    long_trial_done(&t);
}

typedef struct repetition {
    uint32_t period, kinds, n_periods;     /* steps, blocks, how often */
    uint32_t at[12], units[12], lasts[12]; /* of each kind */
    uint32_t n_before, n_after, n_through; /* blocks of the warm up and the cool down, of all */
} repetition;

static repetition make_repetition(uint32_t most)
{
    repetition r = {.period = 4 + random_below(20),
                    .kinds = 3 + random_below(10),
                    .n_periods = most * 3 / 4 + random_below(most / 4),
                    .n_before = random_below(60),
                    .n_after = random_below(60),
                    .n_through = random_below(3)};
    for (uint32_t k = 0; k < r.kinds; k++) {
        r.at[k] = k * r.period / r.kinds;
        r.units[k] = 1 + random_below(60);
        r.lasts[k] = random_below(random_below(2) == 0 ? 4 : 12 * r.period);
    }
    return r;
}

/* Warm up, periods, cool down: the first and the last as long as two periods, with blocks that
 * reach into what comes next. */
static void repeat_blocks(const repetition *r, long_trial *t)
{
    uint32_t warm_up = 2 * r->period, end = warm_up + r->n_periods * r->period;
    t->n = 0;
    t->n_steps = end + warm_up;
    for (uint32_t i = 0; i < r->n_through; i++)
        add_block(t, 0, end + random_below(warm_up), 1 + random_below(40));
    for (uint32_t i = 0; i < r->n_before; i++)
        add_block(t, i * warm_up / r->n_before, warm_up + random_below(3 * r->period),
                  1 + random_below(40));
    for (uint32_t m = 0; m < r->n_periods; m++)
        for (uint32_t k = 0; k < r->kinds; k++) {
            uint32_t first = warm_up + m * r->period + r->at[k];
            add_block(t, first, first + r->lasts[k], r->units[k]);
        }
    for (uint32_t i = 0; i < r->n_after; i++) {
        uint32_t first = end + i * warm_up / r->n_after;
        add_block(t, first, first + random_below(t->n_steps - first), 1 + random_below(40));
    }
}

/* However blocks repeat, and whatever is before and behind: no two share bytes. */
static void repetitions_do_not_collide(void **state)
{
    enum { PERIODS = 2000 };
    long_trial t;
    double worst = 0;
    (void)state;
    long_trial_init(&t, (PERIODS + 4) * 24, PERIODS * 12 + 200);
    for (uint32_t n = 0; n < 300; n++) {
        uint64_t most;
        seed = n;
        repetition r = make_repetition(PERIODS);
        repeat_blocks(&r, &t);
        seed = n;
        double fit = (double)place_long(&t, &most) / (double)most;
        worst = fit > worst ? fit : worst;
    }
    assert_true(worst < 1.3);
    long_trial_done(&t);
}

/* What another stream has touched last is not free before that is known to have ended. */
static void another_stream_keeps_its_bytes(void **state)
{
    (void)state;
    for (int known = 0; known < 2; known++) {
        uint64_t bytes, most;
        plan_step steps[4] = {{.stream = 0}, {.stream = 1}, {.stream = 0}, {.stream = 0}};
        const uint32_t clock[8] = {0, 0, 1, 0, 1, 0, 3, known ? 2 : 0};
        plan_block blocks[2] = {{.units = 2, .first = 0, .last = 1},
                                {.units = 2, .first = 3, .last = 3}};
        const memory_uses uses[2] = {{{1, 2}}, {{4}}};
        assert_int_equal(place(blocks, uses, 2, steps, 4, clock, 2, &bytes, &most), PPS_OK);
        assert_int_equal(bytes, known ? 128 : 256);
        assert_int_equal(most, 128);
    }
}

/* The last unit that an offset can name is not placed, by one block or by several. */
static void too_much_is_refused(void **state)
{
    (void)state;
    const uint64_t most = (uint64_t)PLAN_ALIGN * (UINT32_MAX - 1);
    const uint64_t sizes[][2] = {{most, 0},          {most + 1, 0},      {UINT64_MAX, 0},
                                 {most - 64, 64},    {most - 64, 65},    {most / 2, most / 2},
                                 {most, most},       {UINT64_MAX, 1},    {1, most},
                                 {1ull << 38, 1000}, {1000, 1ull << 38}, {1ull << 37, 1ull << 37}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int reused = 0; reused < 2; reused++) { /* the first ends before the second begins */
            const plan_step steps[2] = {{.stream = 0}, {.stream = 0}};
            const uint32_t clock[2] = {0, 1};
            uint32_t n = sizes[i][1] > 0 ? 2 : 1;
            uint64_t bytes, most_live, units[2], need;
            plan_block blocks[2];
            memory_uses uses[2];
            for (uint32_t k = 0; k < n; k++) {
                units[k] = sizes[i][k] / PLAN_ALIGN + (sizes[i][k] % PLAN_ALIGN != 0);
                blocks[k] = memory_block_of(sizes[i][k], 0);
                blocks[k].first = k;
                blocks[k].last = reused ? k : 1;
                uses[k] = (memory_uses){{blocks[k].last + 1}};
            }
            need = n == 1                ? units[0]
                   : !reused             ? units[0] + units[1]
                   : units[0] < units[1] ? units[1]
                                         : units[0];
            pps_status status = place(blocks, uses, n, steps, 2, clock, 1, &bytes, &most_live);
            assert_int_equal(status, need < UINT32_MAX ? PPS_OK : PPS_ERR_LIMIT);
            if (status == PPS_OK)
                assert_true(bytes <= need * PLAN_ALIGN && bytes > (need - 1) * PLAN_ALIGN);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_used_again_only_when_free),
        cmocka_unit_test(equal_blocks_on_one_stream_need_the_least),
        cmocka_unit_test(long_schedules_lose_no_more),
        cmocka_unit_test(repetitions_do_not_collide),
        cmocka_unit_test(another_stream_keeps_its_bytes),
        cmocka_unit_test(too_much_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
