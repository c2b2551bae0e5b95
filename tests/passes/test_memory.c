/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_place on random lives, streams and waits, against the rule itself: bytes are used again
 * only by a step that begins after every earlier access to them has ended.
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

enum { MAX_STEPS = 90, MAX_STREAMS = 4, MAX_LIVES = 80 };

typedef struct trial {
    plan_step steps[MAX_STEPS];
    uint32_t clock[MAX_STEPS * MAX_STREAMS];
    bool before[MAX_STEPS]
               [MAX_STEPS]; /* [a][b]: a has ended when b begins; by closure, not clocks */
    memory_life lives[MAX_LIVES];
    uint32_t order[MAX_LIVES]; /* lives that are used, by first step */
    uint32_t n_steps, n_streams, n_lives, n_order;
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

static void access_life(trial *t, memory_life *l, uint32_t step)
{
    for (uint32_t k = 0; k < l->n_access; k++)
        if (t->steps[l->access[k]].stream == t->steps[step].stream) {
            l->access[k] = step > l->access[k] ? step : l->access[k];
            return;
        }
    l->access[l->n_access++] = step;
}

static uint64_t bytes_of(const memory_life *l)
{
    return (uint64_t)l->units * PLAN_ALIGN - l->slack;
}

static uint64_t offset_of(const memory_life *l)
{
    return (uint64_t)l->offset * PLAN_ALIGN;
}

/* Lives lie in any order, some of them unused; `order` sorts the others. Sizes are any number of
 * bytes, or all one unit. */
static void make_lives(trial *t, uint32_t n, bool equal_sizes)
{
    t->n_lives = n;
    t->n_order = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t first = random_below(t->n_steps), span = random_below(12) + 1;
        uint64_t bytes = equal_sizes ? PLAN_ALIGN : 1 + random_below(20 * PLAN_ALIGN);
        memory_life *l = &t->lives[i];
        *l = memory_life_of(bytes, 0);
        assert_int_equal(bytes_of(l), bytes);
        assert_int_equal(l->first, IR_NONE);
        if (!equal_sizes && random_below(10) == 0)
            continue;
        l->first = l->last = first;
        access_life(t, l, first);
        for (uint32_t k = random_below(4); k > 0; k--) {
            uint32_t step = first + random_below(span);
            if (step < t->n_steps)
                access_life(t, l, step);
        }
        for (uint32_t k = 0; k < l->n_access; k++)
            l->last = l->access[k] > l->last ? l->access[k] : l->last;
        uint32_t at = t->n_order++;
        for (; at > 0 && t->lives[t->order[at - 1]].first > first; at--)
            t->order[at] = t->order[at - 1];
        t->order[at] = i;
    }
}

static uint64_t most_live(const trial *t)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < t->n_steps; i++) {
        uint64_t live = 0;
        for (uint32_t k = 0; k < t->n_order; k++) {
            const memory_life *l = &t->lives[t->order[k]];
            if (l->first <= i && i <= l->last)
                live += bytes_of(l);
        }
        most = live > most ? live : most;
    }
    return most;
}

static void check_places(const trial *t, uint64_t bytes)
{
    for (uint32_t i = 0; i < t->n_order; i++) {
        const memory_life *a = &t->lives[t->order[i]];
        assert_true(offset_of(a) + bytes_of(a) <= bytes);
        for (uint32_t j = i + 1; j < t->n_order; j++) {
            const memory_life *b = &t->lives[t->order[j]];
            if (offset_of(a) + bytes_of(a) <= offset_of(b) ||
                offset_of(b) + bytes_of(b) <= offset_of(a))
                continue;
            assert_true(a->last < b->first);
            for (uint32_t k = 0; k < a->n_access; k++)
                if (!t->before[a->access[k]][b->first])
                    fail_msg("seed %u: step %u may still use what step %u fills", seed,
                             a->access[k], b->first);
        }
    }
}

static void run_trial(trial *t, uint64_t *ret_bytes, uint64_t *ret_most)
{
    arena scratch;
    arena_init(&scratch, NULL, NULL);
    assert_int_equal(memory_place(&scratch, t->lives, t->order, t->n_order, t->steps, t->n_steps,
                                  t->clock, t->n_streams, ret_bytes, ret_most),
                     PPS_OK);
    arena_done(&scratch);
}

static void bytes_are_used_again_only_when_free(void **state)
{
    static trial t;
    (void)state;
    uint64_t sum_bytes = 0, sum_lives = 0;
    for (uint32_t n = 0; n < 1500; n++) {
        uint64_t bytes, most;
        seed = n;
        make_steps(&t, 2 + random_below(MAX_STEPS - 2), 1 + random_below(MAX_STREAMS));
        make_lives(&t, random_below(MAX_LIVES), false);
        run_trial(&t, &bytes, &most);
        check_places(&t, bytes);
        assert_int_equal(most, most_live(&t));
        assert_true(bytes >= most);
        sum_bytes += bytes;
        for (uint32_t k = 0; k < t.n_order; k++)
            sum_lives += bytes_of(&t.lives[t.order[k]]);
    }
    assert_true(sum_bytes * 3 < sum_lives * 2); /* and they are used again, rare as waits are */
}

/* One stream and one size: nothing can be lost between lives. */
static void equal_lives_on_one_stream_need_the_least(void **state)
{
    static trial t;
    (void)state;
    for (uint32_t n = 0; n < 300; n++) {
        uint64_t bytes, most;
        seed = n;
        make_steps(&t, MAX_STEPS, 1);
        make_lives(&t, MAX_LIVES, true);
        run_trial(&t, &bytes, &most);
        check_places(&t, bytes);
        assert_int_equal(bytes, most);
    }
}

/* The same few lives over and over, behind others: however often, no more is lost between them. */
static void long_schedules_lose_no_more(void **state)
{
    enum { PERIOD = 6, KINDS = 5, WARM_UP = 3, MOST = 20000 };
    static const uint32_t units[KINDS] = {48, 16, 32, 8, 64}, spans[KINDS] = {14, 3, 21, 9, 1};
    plan_step *steps = calloc(MOST * PERIOD, sizeof *steps);
    uint32_t *clock = calloc(MOST * PERIOD, sizeof *clock);
    memory_life *lives = calloc(MOST * KINDS, sizeof *lives);
    uint32_t *order = calloc(MOST * KINDS, sizeof *order);
    uint64_t at_first = 0;
    (void)state;
    assert_true(steps != NULL && clock != NULL && lives != NULL && order != NULL);
    for (uint32_t i = 0; i < MOST * PERIOD; i++)
        clock[i] = i;
    for (uint32_t n_periods = 20; n_periods <= MOST; n_periods *= 10) {
        uint32_t n_steps = n_periods * PERIOD, n = 0;
        uint64_t bytes, most;
        arena scratch;
        for (uint32_t m = 0; m < n_periods; m++)
            for (uint32_t k = 0; k < (m < WARM_UP ? KINDS - 1 : KINDS); k++, n++) {
                uint32_t first = m * PERIOD + k, last = first + spans[k];
                lives[n] = memory_life_of((uint64_t)units[k] * PLAN_ALIGN, 0);
                lives[n].first = first;
                lives[n].last = last < n_steps ? last : n_steps - 1;
                lives[n].access[lives[n].n_access++] = lives[n].last;
                order[n] = n;
            }
        arena_init(&scratch, NULL, NULL);
        assert_int_equal(
            memory_place(&scratch, lives, order, n, steps, n_steps, clock, 1, &bytes, &most),
            PPS_OK);
        arena_done(&scratch);
        assert_true(bytes >= most);
        if (n_periods == 20)
            at_first = bytes;
        assert_true(bytes * 20 <= at_first * 21);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = i + 1; j < n && lives[j].first <= lives[i].last; j++)
                assert_true(lives[i].offset + lives[i].units <= lives[j].offset ||
                            lives[j].offset + lives[j].units <= lives[i].offset);
    }
    free(steps);
    free(clock);
    free(lives);
    free(order);
}

typedef struct repetition {
    uint32_t period, kinds, n_periods;     /* steps, lives, how often */
    uint32_t at[12], units[12], lasts[12]; /* of each kind */
    uint32_t n_before, n_after, n_through; /* lives of the warm up and the cool down, of all */
} repetition;

static uint32_t add_life(memory_life *lives, uint32_t n, uint32_t first, uint32_t last,
                         uint32_t units)
{
    lives[n] = memory_life_of((uint64_t)units * PLAN_ALIGN - units % 7, 0);
    lives[n].first = first;
    lives[n].last = last;
    lives[n].access[lives[n].n_access++] = last;
    return n + 1;
}

/* Warm up, periods, cool down: each as long as two periods, with lives that reach into the next. */
static uint32_t make_repetition(const repetition *r, memory_life *lives, uint32_t *ret_steps)
{
    uint32_t n = 0, warm_up = 2 * r->period, end = warm_up + r->n_periods * r->period;
    *ret_steps = end + warm_up;
    for (uint32_t i = 0; i < r->n_through; i++)
        n = add_life(lives, n, 0, end + random_below(warm_up), 1 + random_below(40));
    for (uint32_t i = 0; i < r->n_before; i++)
        n = add_life(lives, n, i * warm_up / r->n_before, warm_up + random_below(3 * r->period),
                     1 + random_below(40));
    for (uint32_t m = 0; m < r->n_periods; m++)
        for (uint32_t k = 0; k < r->kinds; k++) {
            uint32_t first = warm_up + m * r->period + r->at[k], last = first + r->lasts[k];
            n = add_life(lives, n, first, last < *ret_steps ? last : *ret_steps - 1, r->units[k]);
        }
    for (uint32_t i = 0; i < r->n_after; i++) {
        uint32_t first = end + i * warm_up / r->n_after;
        n = add_life(lives, n, first, first + random_below(*ret_steps - first),
                     1 + random_below(40));
    }
    return n;
}

/* However lives repeat, and whatever is before and behind: no two share bytes. */
static void repetitions_do_not_collide(void **state)
{
    enum { PERIODS = 2000, MOST_LIVES = PERIODS * 12 + 200 };
    memory_life *lives = calloc(MOST_LIVES, sizeof *lives);
    uint32_t *order = calloc(MOST_LIVES, sizeof *order), *clock = NULL;
    plan_step *steps = NULL;
    double worst = 0;
    (void)state;
    assert_true(lives != NULL && order != NULL);
    for (seed = 1; seed < 400;) {
        uint32_t again = seed + 1, n_steps;
        repetition r = {.period = 4 + random_below(20),
                        .kinds = 3 + random_below(10),
                        .n_periods = 1500 + random_below(PERIODS - 1500),
                        .n_before = random_below(60),
                        .n_after = random_below(60),
                        .n_through = random_below(3)};
        for (uint32_t k = 0; k < r.kinds; k++) {
            r.at[k] = k * r.period / r.kinds;
            r.units[k] = 1 + random_below(60);
            r.lasts[k] = random_below(random_below(2) == 0 ? 4 : 12 * r.period);
        }
        uint32_t n = make_repetition(&r, lives, &n_steps);
        uint64_t bytes, most;
        arena scratch;
        clock = realloc(clock, n_steps * sizeof *clock);
        steps = realloc(steps, n_steps * sizeof *steps);
        assert_true(clock != NULL && steps != NULL);
        memset(steps, 0, n_steps * sizeof *steps);
        for (uint32_t i = 0; i < n_steps; i++)
            clock[i] = i;
        for (uint32_t i = 0; i < n; i++)
            order[i] = i;
        arena_init(&scratch, NULL, NULL);
        assert_int_equal(
            memory_place(&scratch, lives, order, n, steps, n_steps, clock, 1, &bytes, &most),
            PPS_OK);
        arena_done(&scratch);
        assert_true(bytes >= most);
        worst = (double)bytes / (double)most > worst ? (double)bytes / (double)most : worst;
        for (uint32_t i = 0; i < n; i++) {
            assert_true(((uint64_t)lives[i].offset + lives[i].units) * PLAN_ALIGN -
                            lives[i].slack <=
                        bytes);
            for (uint32_t j = i + 1; j < n && lives[j].first <= lives[i].last; j++)
                if (lives[i].offset < lives[j].offset + lives[j].units &&
                    lives[j].offset < lives[i].offset + lives[i].units)
                    fail_msg("seed %u: lives %u and %u share bytes", again - 1, i, j);
        }
        seed = again;
    }
    assert_true(worst < 1.25);
    free(steps);
    free(clock);
    free(lives);
    free(order);
}

/* What another stream has touched last is not free before that is known to have ended. */
static void another_stream_keeps_its_bytes(void **state)
{
    (void)state;
    for (int known = 0; known < 2; known++) {
        arena scratch;
        uint64_t bytes, most;
        plan_step steps[4] = {{.stream = 0}, {.stream = 1}, {.stream = 0}, {.stream = 0}};
        const uint32_t clock[8] = {0, 0, 1, 0, 1, 0, 3, known ? 2 : 0};
        memory_life lives[2] = {
            {.units = 2, .first = 0, .last = 1, .access = {0, 1}, .n_access = 2},
            {.units = 2, .first = 3, .last = 3, .access = {3}, .n_access = 1}};
        const uint32_t order[2] = {0, 1};
        arena_init(&scratch, NULL, NULL);
        assert_int_equal(memory_place(&scratch, lives, order, 2, steps, 4, clock, 2, &bytes, &most),
                         PPS_OK);
        assert_int_equal(bytes, known ? 128 : 256);
        assert_int_equal(most, 128);
        arena_done(&scratch);
    }
}

/* The last unit that an offset can name is not placed, by one life or by several. */
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
            const uint32_t clock[2] = {0, 1}, order[2] = {0, 1};
            uint32_t n = sizes[i][1] > 0 ? 2 : 1;
            uint64_t bytes, most_live, units[2], need;
            memory_life lives[2];
            arena scratch;
            for (uint32_t k = 0; k < n; k++) {
                units[k] = sizes[i][k] / PLAN_ALIGN + (sizes[i][k] % PLAN_ALIGN != 0);
                lives[k] = memory_life_of(sizes[i][k], 0);
                lives[k].first = k;
                lives[k].last = reused ? k : 1;
                lives[k].access[0] = lives[k].last;
                lives[k].n_access = 1;
            }
            need = n == 1                ? units[0]
                   : !reused             ? units[0] + units[1]
                   : units[0] < units[1] ? units[1]
                                         : units[0];
            arena_init(&scratch, NULL, NULL);
            pps_status status =
                memory_place(&scratch, lives, order, n, steps, 2, clock, 1, &bytes, &most_live);
            assert_int_equal(status, need < UINT32_MAX ? PPS_OK : PPS_ERR_LIMIT);
            if (status == PPS_OK)
                assert_true(bytes <= need * PLAN_ALIGN && bytes > (need - 1) * PLAN_ALIGN);
            arena_done(&scratch);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_used_again_only_when_free),
        cmocka_unit_test(equal_lives_on_one_stream_need_the_least),
        cmocka_unit_test(long_schedules_lose_no_more),
        cmocka_unit_test(repetitions_do_not_collide),
        cmocka_unit_test(another_stream_keeps_its_bytes),
        cmocka_unit_test(too_much_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
