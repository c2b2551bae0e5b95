/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory: the activations are filled with a pattern before a step, and the highest byte that
 * changed is the peak the plan announced, for every schedule and number of ranks; with experts on
 * several ranks the plan is the worst case. Bytes of a buffer that is not in use may hold anything;
 * under AddressSanitizer, touching them ends the program.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rank_threads.h"
#include "runtime/launch/launch.h"

typedef struct model_case {
    const char *name;
    const char *text; /* printf format: rows of the batch, stages, layers */
} model_case;

/* Odd sizes: nothing but the plan's own alignment makes buffers end where others begin. */
static const model_case models[] = {
    {"mlp", "from \"models/mlp\" import mlp\n"
            "train mlp(tokens(%u, 7), targets(), stages=%u, layers=%u, dim=9, hidden=13, vocab=31)"
            " optimizer sgd(lr=0.1)\n"},
    {"llama", "from \"models/llama\" import llama\n"
              "train llama(tokens(%u, 5), targets(), stages=%u, layers=%u, dim=12, heads=2, "
              "kv_heads=1, hidden=11, vocab=31) optimizer adamw(lr=1e-3)\n"},
    {"qwen3_moe", "from \"models/qwen3_moe\" import qwen3_moe\n"
                  "train qwen3_moe(tokens(%u, 5), targets(), stages=%u, layers=%u, dim=12, "
                  "heads=2, kv_heads=1, head_dim=6, experts=4, top_k=2, expert_hidden=7, vocab=31) "
                  "optimizer sgd(lr=0.1, momentum=0.9)\n"},
};
enum { N_MODELS = 3, MOE = 2 };

static void compile_case(compiled *c, const model_case *model, const schedule_case *schedule,
                         uint32_t n_pipeline, uint32_t dp, bool ep, uint32_t n_mb)
{
    char head[1024], pipeline[2048];
    uint32_t stages = n_pipeline * schedule->per_rank;
    snprintf(head, sizeof head, model->text, n_mb * dp, stages, stages);
    pipeline_text(schedule, n_pipeline, dp, ep, n_mb, "\"pp\"", pipeline, sizeof pipeline);
    compile_text(c, 0,
                 "from \"schedules\" import gpipe, one_f_one_b, interleaved_1f1b, zerobubble, "
                 "dualpipev, loop_stages, v_stages\n%s%s",
                 head, pipeline);
}

/* ---- Planned and measured ----------------------------------------------------------------------
 */

typedef struct cell {
    uint32_t pipeline, dp;
    bool ep;
} cell;

static void measure(const model_case *model, const schedule_case *schedule, cell at)
{
    compiled c;
    uint32_t n_mb = 2 * at.pipeline;
    if (n_mb < schedule->least_mb * at.pipeline)
        n_mb = schedule->least_mb * at.pipeline;
    compile_case(&c, model, schedule, at.pipeline, at.dp, at.ep, n_mb);
    launch_options opt = {.set = c.set,
                          .st = c.st,
                          .steps = 2,
                          .threads = true,
                          .plain_kernels = true,
                          .memory_check = true};
    launch_result result;
    pps_status status = launch_run(&opt, &result);
    if (status != PPS_OK)
        fail_msg("%s", c.said);
    for (uint32_t r = 0; r < c.set->n_ranks; r++) {
        const plan *p = &c.set->plans[c.set->rank_group[r]];
        assert_int_equal(result.planned_bytes[r], p->total_bytes);
        assert_int_equal(p->dropless, at.ep);
        if (at.ep ? result.measured_bytes[r] > result.planned_bytes[r]
                  : result.measured_bytes[r] != result.planned_bytes[r])
            fail_msg("%s, %s, %u x %u ranks, rank %u: planned %llu, measured %llu", model->name,
                     schedule->name, at.pipeline, at.dp, r,
                     (unsigned long long)result.planned_bytes[r],
                     (unsigned long long)result.measured_bytes[r]);
        assert_true(result.measured_bytes[r] > p->act_offset);
    }
    launch_result_done(&result);
    compiled_close(&c);
}

static void test_exact(void **state)
{
    (void)state;
    static const cell cells[] = {{1, 1, false}, {2, 1, false}, {4, 1, false}, {2, 2, false}};
    for (uint32_t m = 0; m < N_MODELS; m++)
        for (uint32_t s = 0; s < N_SCHEDULES; s++)
            for (size_t k = 0; k < sizeof cells / sizeof *cells; k++)
                measure(&models[m], &schedule_cases[s], cells[k]);
}

static void test_worst_case(void **state)
{
    (void)state;
    static const cell cells[] = {{1, 2, true}, {2, 2, true}, {1, 4, true}};
    for (uint32_t s = 0; s < N_SCHEDULES; s++)
        for (size_t k = 0; k < sizeof cells / sizeof *cells; k++)
            measure(&models[MOE], &schedule_cases[s], cells[k]);
}

/* ---- Buffers that are not in use ---------------------------------------------------------------
 */

/* When rank 0 begins its first update, nothing is in use any more: it reads what a forward saved.
 */
static void read_freed(void *ud, exec_rank *r, uint32_t step)
{
    volatile const char *slots = r->arena + r->plan->act_offset;
    (void)ud;
    if (r->rank != 0 || r->plan->steps[step].kind != PLAN_UPDATE)
        return;
    for (uint32_t b = 0; b < r->plan->n_blocks; b++)
        if (r->plan->blocks[b].what == PLAN_BLOCK_SAVE)
            (void)slots[(uint64_t)r->plan->blocks[b].offset * PLAN_ALIGN];
}

static void test_poison(void **state)
{
    (void)state;
#if !defined(__SANITIZE_ADDRESS__)
    print_message("built without AddressSanitizer: nothing poisons freed buffers\n");
    skip();
#endif
    int ends[2];
    char said[65536];
    size_t n = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        compiled c;
        rank_threads run = {.compiled = &c, .steps = 1, .watch = {.before = read_freed}};
        dup2(ends[1], STDERR_FILENO);
        compile_case(&c, &models[0], &schedule_cases[1], 2, 1, false, 4);
        rank_threads_run(&run);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t got = 1; got > 0 && n < sizeof said - 1; n += (size_t)(got > 0 ? got : 0))
        got = read(ends[0], said + n, sizeof said - 1 - n);
    said[n] = '\0';
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_non_null(strstr(said, "use-after-poison"));
}

/* The same without a sanitizer: whatever is freed gets garbage (NaNs) at once, and the numbers do
 * not change. Blocks of one step alone, or of several steps of one stream, are free after the
 * last. */
static void spoil_freed(void *ud, exec_rank *r, uint32_t step)
{
    const plan *p = r->plan;
    (void)ud;
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        const plan_block *block = &p->blocks[b];
        bool computed = block->what == PLAN_BLOCK_SAVE || block->what == PLAN_BLOCK_HELD ||
                        block->what == PLAN_BLOCK_WORK;
        if (!computed || block->last != step)
            continue;
#if !defined(__SANITIZE_ADDRESS__)
        memset(r->arena + p->act_offset + (uint64_t)block->offset * PLAN_ALIGN, 0xff,
               plan_block_bytes(block));
#endif
    }
}

static void test_garbage(void **state)
{
    (void)state;
    for (uint32_t m = 0; m < N_MODELS; m++)
        for (uint32_t s = 0; s < N_SCHEDULES; s++) {
            compiled c;
            compile_case(&c, &models[m], &schedule_cases[s], 2, 2, m == MOE, 4);
            rank_threads clean = {.compiled = &c, .steps = 2};
            rank_threads spoilt = {.compiled = &c, .steps = 2, .watch = {.after = spoil_freed}};
            rank_threads_run(&clean);
            rank_threads_run(&spoilt);
            assert_string_equal(clean.sha256, spoilt.sha256);
            assert_true(clean.loss == spoilt.loss && clean.loss > 0);
            compiled_close(&c);
        }
}

/* ---- Bytes used again --------------------------------------------------------------------------
 */

/* clock[i][s]: the steps of stream s known to be done when step i begins, as the last one + 1. By
 * streams and waits alone: what a host thread happens to do first is not counted on. */
static uint32_t *clocks(const plan_set *set, const plan *p)
{
    uint32_t n = set->n_streams;
    uint32_t *clock = calloc((size_t)p->n_steps * n + 1, sizeof *clock);
    uint32_t *last = calloc(n, sizeof *last);
    assert_non_null(clock);
    assert_non_null(last);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        for (uint32_t k = 0; k <= s->n_waits; k++) {
            uint32_t from = k < s->n_waits ? p->waits[s->waits + k] + 1 : last[s->stream];
            if (!from)
                continue;
            uint32_t *mine = &clock[(size_t)i * n], *theirs = &clock[(size_t)(from - 1) * n];
            for (uint32_t j = 0; j < n; j++)
                mine[j] = theirs[j] > mine[j] ? theirs[j] : mine[j];
            uint16_t stream = p->steps[from - 1].stream;
            mine[stream] = from > mine[stream] ? from : mine[stream];
        }
        last[s->stream] = i + 1;
    }
    free(last);
    return clock;
}

/* Every step that touched `old` is done before the first step of `new` begins. */
static void check_after(const plan_set *set, const plan *p, const uint32_t *clock,
                        const plan_block *old, const plan_block *new)
{
    for (uint32_t i = old->first; i <= old->last; i++) {
        const plan_step *s = &p->steps[i];
        bool uses = false;
        for (uint32_t k = 0; k < s->n_bindings; k++)
            uses |= p->bindings[s->bindings + k] - old->offset < old->units;
        if (uses && clock[(size_t) new->first * set->n_streams + s->stream] <= i)
            fail_msg("step %u reuses bytes that step %u may still use", new->first, i);
    }
}

static void test_reuse(void **state)
{
    (void)state;
    uint32_t n_reused = 0;
    for (uint32_t s = 0; s < N_SCHEDULES; s++) {
        compiled c;
        compile_case(&c, &models[MOE], &schedule_cases[s], 2, 2, true, 6);
        for (uint32_t g = 0; g < c.set->n_groups; g++) {
            const plan *p = &c.set->plans[g];
            uint32_t *clock = clocks(c.set, p);
            for (uint32_t i = 0; i < p->n_blocks; i++)
                for (uint32_t j = 0; j < p->n_blocks; j++) {
                    const plan_block *old = &p->blocks[i], *new = &p->blocks[j];
                    if (old->last >= new->first || old->offset >= new->offset + new->units ||
                        new->offset >= old->offset + old->units)
                        continue;
                    check_after(c.set, p, clock, old, new);
                    n_reused++;
                }
            free(clock);
        }
        compiled_close(&c);
    }
    assert_true(n_reused > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),  cmocka_unit_test(test_worst_case),
        cmocka_unit_test(test_poison), cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_reuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
