/* SPDX-License-Identifier: Apache-2.0
 *
 * test_windows.c: the windows of `zero 2` and `zero 3` in plans and in a trace, and what others got
 * wrong:
 *
 *   - only the last microbatch's gradients kept;
 *   - parameters resident all step under zero 3;
 *   - sums of the wrong extent: over microbatches and ranks, each contribution once.
 */
#include "zero_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const plan_bucket *bucket_of(const plan_set *set, const plan *p, const plan_step *s)
{
    return &p->buckets[plan_work_of(set, s)->chunk];
}

static uint32_t window_of(const plan_step *s)
{
    return s->mb == IR_NONE ? 0 : s->mb;
}

/* The block of kind `what` that binding `k` of step `i` lies at, or NULL. */
static const plan_block *block_of(const plan *p, uint32_t i, uint32_t k, plan_block_kind what)
{
    uint32_t at = p->bindings[p->steps[i].bindings + k];
    for (uint32_t b = 0; b < p->n_blocks; b++)
        if (p->blocks[b].what == what && p->blocks[b].offset == at && p->blocks[b].first <= i &&
            i <= p->blocks[b].last)
            return &p->blocks[b];
    return NULL;
}

/* ---- Gradients
 * ----------------------------------------------------------------------------------- */

static void check_gradients(const plan_set *set, const plan *p)
{
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        if (s->kind != PLAN_COMPUTE)
            continue;
        for (uint32_t k = 0; k < s->n_bindings; k++) {
            const plan_block *b = block_of(p, i, k, PLAN_BLOCK_GRADS);
            if (b == NULL)
                continue;
            /* cleared once, before its first use; reduced once, after its last */
            const plan_step *clear = &p->steps[b->first], *reduce = &p->steps[b->last];
            assert_int_equal(clear->kind, PLAN_CLEAR);
            assert_int_equal(reduce->kind, PLAN_REDUCE_SCATTER);
            assert_ptr_equal(bucket_of(set, p, clear), bucket_of(set, p, reduce));
            assert_int_equal(window_of(clear), window_of(reduce));
            assert_int_equal(s->mb / bucket_of(set, p, clear)->every, window_of(clear));
            assert_true(s->pass == PPS_PASS_B || s->pass == PPS_PASS_BW);
            assert_int_equal((uint64_t)b->units * PLAN_ALIGN, bucket_of(set, p, clear)->bytes);
        }
    }
    /* every window of every bucket is there once, reduced in microbatch order, before the update */
    for (uint32_t n = 0; n < p->n_buckets; n++) {
        const plan_bucket *bucket = &p->buckets[n];
        uint32_t n_clear = 0, n_reduce = 0, n_update = 0;
        if (bucket->zero < 2)
            continue;
        for (uint32_t i = 0; i < p->n_steps; i++) {
            const plan_step *s = &p->steps[i];
            if (!plan_is(s->kind, PLAN_BUCKET) || bucket_of(set, p, s) != bucket)
                continue;
            n_clear += s->kind == PLAN_CLEAR;
            n_update += s->kind == PLAN_UPDATE;
            if (s->kind == PLAN_REDUCE_SCATTER)
                assert_int_equal(window_of(s), n_reduce++);
            if (s->kind == PLAN_UPDATE)
                assert_int_equal(n_reduce, (ZERO_MB + bucket->every - 1) / bucket->every);
        }
        assert_int_equal(n_clear, n_reduce);
        assert_int_equal(n_update, 1);
    }
}

static void every_microbatch_is_summed_once(void **state)
{
    static const char *const clauses[] = {"zero 2", "zero 2 every 2 bucket 0.003",
                                          "zero 3 every 3 bucket 0.0001", "zero 3 every 4"};
    static const char *const schedules[] = {"1f1b", "dualpipev", "interleaved"};
    (void)state;
    for (size_t i = 0; i < sizeof clauses / sizeof *clauses; i++)
        for (size_t k = 0; k < sizeof schedules / sizeof *schedules; k++)
            for (int ep = 0; ep < 2; ep++) {
                compiled c;
                zero_open(&c,
                          &(zero_case){.schedule = schedules[k], .ep = ep, .clauses = clauses[i]});
                for (uint32_t g = 0; g < c.set->n_groups; g++)
                    check_gradients(c.set, &c.set->plans[g]);
                zero_close(&c);
            }
}

/* Rows may run the backward of microbatch 1 before that of 0: sums are in microbatch order all the
 * same, so are the bits. */
static const char backwards[] =
    "from \"models/mlp\" import mlp\n"
    "train mlp(tokens(8, 4), targets(), stages=1, dim=16) optimizer sgd(lr=0.1)\n"
    "split {} by MB into 4\n"
    "place {PP: 0} on [0, 1] stream stream(\"pp\")\n"
    "replicate {PP: 0} on [0, 1] reduce stream(\"dp\") zero %d\n"
    "order F(0, 0) -> F(0, 1) -> F(0, 2) -> F(0, 3) -> %s\n";

static void reductions_keep_microbatch_order(void **state)
{
    static const char *const orders[] = {"B(0, 0) -> B(0, 1) -> B(0, 2) -> B(0, 3)",
                                         "B(0, 3) -> B(0, 1) -> B(0, 2) -> B(0, 0)"};
    char hash[2][65], script[1024];
    (void)state;
    for (int i = 0; i < 2; i++) {
        compiled c;
        outcome o;
        snprintf(script, sizeof script, backwards, 2, orders[i]);
        zero_compile(&c, script);
        if (c.set == NULL)
            fail_msg("refused: %s", c.said);
        check_gradients(c.set, &c.set->plans[0]);
        zero_run(&c, &o);
        memcpy(hash[i], o.result.params_sha256, 65);
        outcome_done(&o);
        zero_close(&c);
    }
    assert_string_equal(hash[0], hash[1]);
}

/* ---- Gathered parameters
 * ------------------------------------------------------------------------- */

/* First compute that uses what gather `i` gathered. */
static uint32_t first_use(const plan *p, uint32_t i)
{
    const plan_block *b = block_of(p, i, 0, PLAN_BLOCK_PARAMS);
    assert_non_null(b);
    assert_int_equal(b->first, i);
    for (uint32_t use = i + 1; use <= b->last; use++)
        for (uint32_t k = 0; k < p->steps[use].n_bindings; k++)
            if (p->steps[use].kind == PLAN_COMPUTE && block_of(p, use, k, PLAN_BLOCK_PARAMS) == b)
                return use;
    fail_msg("nothing uses gather %u", i);
    return IR_NONE;
}

/* Last compute of the row groups before `slot`, and first of `slot` or later ones. */
static uint32_t last_before(const plan *p, uint32_t slot)
{
    uint32_t last = IR_NONE;
    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].kind == PLAN_COMPUTE && p->steps[i].row_group < slot)
            last = i;
    return last;
}

static uint32_t first_from(const plan *p, uint32_t slot)
{
    uint32_t i = 0;
    while (p->steps[i].kind != PLAN_COMPUTE || p->steps[i].row_group < slot)
        i++;
    return i;
}

static void check_gathers(const plan_set *set, const plan *p, uint32_t ahead, const char *stream)
{
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        if (s->kind != PLAN_ALL_GATHER)
            continue;
        uint32_t use = first_use(p, i), slot = p->steps[use].row_group;
        uint32_t start = slot > ahead ? slot - ahead : 0, before = last_before(p, start);
        assert_string_equal(set->streams[s->stream], stream);
        assert_true(i < first_from(p, start)); /* no later than the row group `ahead` of its use */
        if (before != IR_NONE)
            assert_true(i > before); /* and no sooner */
        const plan_block *b = block_of(p, i, 0, PLAN_BLOCK_PARAMS);
        assert_true(p->steps[b->last].pass != PPS_PASS_BW); /* free after BI */
    }
    /* what computes read under zero 3 was gathered */
    for (uint32_t b = 0; b < p->n_blocks; b++)
        if (p->blocks[b].what == PLAN_BLOCK_PARAMS)
            assert_int_equal(p->steps[p->blocks[b].first].kind, PLAN_ALL_GATHER);
}

static void gathers_start_ahead_of_their_use(void **state)
{
    static const char *const clauses[] = {"gather ga", "gather ga bucket 0.003", "gather dp", ""};
    static const char *const streams[] = {"ga", "ga", "dp", "gather"};
    static const char *const schedules[] = {"1f1b", "dualpipev", "interleaved"};
    (void)state;
    for (size_t i = 0; i < sizeof clauses / sizeof *clauses; i++)
        for (size_t k = 0; k < sizeof schedules / sizeof *schedules; k++)
            for (uint32_t ahead = 1; ahead <= 3; ahead++) {
                compiled c;
                char text[64];
                snprintf(text, sizeof text, "zero 3 prefetch %u %s", ahead, clauses[i]);
                zero_open(&c, &(zero_case){.schedule = schedules[k], .ep = true, .clauses = text});
                for (uint32_t g = 0; g < c.set->n_groups; g++)
                    check_gathers(c.set, &c.set->plans[g], ahead, streams[i]);
                zero_close(&c);
            }
}

/* The same in a trace: on the clock of the paced backend, a gather begins before the row group that
 * it is to run under does, unless its stream is still busy with the one before; and ends before its
 * use. */
static void gathers_precede_their_use_in_a_trace(void **state)
{
    compiled c;
    launch_result result;
    (void)state;
    zero_open(&c,
              &(zero_case){.schedule = "interleaved", .ep = true, .clauses = "zero 3 gather ga"});
    launch_options options = {.set = c.set,
                              .st = c.st,
                              .steps = 1,
                              .threads = true,
                              .backend = LAUNCH_PACED,
                              .paced = {.unit_ns = 2e5, .comm_ratio = 0.5},
                              .trace = true};
    assert_int_equal(launch_run(&options, &result), PPS_OK);
    for (uint32_t rank = 0; rank < c.set->n_ranks; rank++) {
        const plan *p = &c.set->plans[c.set->rank_group[rank]];
        const exec_mark *marks = result.marks[rank];
        uint64_t stream_free = 0;
        uint32_t n = 0, n_hidden = 0;
        for (uint32_t i = 0; i < p->n_steps; i++) {
            if (p->steps[i].kind != PLAN_ALL_GATHER)
                continue;
            uint32_t use = first_use(p, i), slot = p->steps[use].row_group;
            uint64_t group_begins = marks[first_from(p, slot > 1 ? slot - 1 : 0)].begin_ns;
            assert_true(marks[i].end_ns <= marks[use].begin_ns);
            assert_true(marks[i].begin_ns <=
                        (group_begins > stream_free ? group_begins : stream_free));
            stream_free = marks[i].end_ns;
            n++;
            n_hidden += slot > 0 && marks[i].end_ns <= marks[last_before(p, slot)].end_ns;
        }
        assert_true(n > 8 && n_hidden > n / 2);
    }
    launch_result_done(&result);
    zero_close(&c);
}

/* ---- What is resident
 * ---------------------------------------------------------------------------- */

static uint64_t most_live(const plan *p, plan_block_kind what)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        uint64_t live = 0;
        for (uint32_t b = 0; b < p->n_blocks; b++)
            if (p->blocks[b].what == what && p->blocks[b].first <= i && i <= p->blocks[b].last)
                live += (uint64_t)p->blocks[b].units * PLAN_ALIGN;
        most = live > most ? live : most;
    }
    return most;
}

static bool of_expert(const plan_set *set, const plan *p, const plan_bucket *b)
{
    return (set->params[p->params[b->first].param].flags & IR_PARAM_EXPERT) != 0;
}

/* Bytes of the buckets that zero 3 slices; *ret_kept: of those that it leaves alone. */
static uint64_t sliced_bytes(const plan *p, uint64_t *ret_kept)
{
    uint64_t all = 0;
    *ret_kept = 0;
    for (uint32_t b = 0; b < p->n_buckets; b++)
        *(p->buckets[b].zero == 3 ? &all : ret_kept) += p->buckets[b].bytes;
    return all;
}

static void parameters_come_and_go(void **state)
{
    (void)state;
    for (int ep = 0; ep < 2; ep++) {
        compiled c;
        zero_open(&c, &(zero_case){.schedule = "interleaved", .ep = ep, .clauses = "zero 3"});
        for (uint32_t g = 0; g < c.set->n_groups; g++) {
            const plan *p = &c.set->plans[g];
            uint64_t kept, all = sliced_bytes(p, &kept);
            uint32_t first = IR_NONE, last = 0, n_blocks = 0, n_sliced = 0;
            for (uint32_t i = 0; i < p->n_steps; i++)
                if (p->steps[i].kind == PLAN_COMPUTE) {
                    first = first == IR_NONE ? i : first;
                    last = i;
                }
            for (uint32_t b = 0; b < p->n_blocks; b++)
                if (p->blocks[b].what == PLAN_BLOCK_PARAMS) {
                    assert_true(p->blocks[b].first > first || p->blocks[b].last < last / 2);
                    n_blocks++;
                }
            for (uint32_t b = 0; b < p->n_buckets; b++)
                n_sliced += p->buckets[b].zero == 3;
            assert_int_equal(n_sliced, 4);
            assert_true((kept > 0) == (ep == 1));
            assert_true(n_blocks > n_sliced);                       /* gathered anew */
            assert_true(most_live(p, PLAN_BLOCK_PARAMS) < all);     /* never all at once */
            assert_true(most_live(p, PLAN_BLOCK_GRADS) <= all / 2); /* one summed, one on its way */
            assert_int_equal(p->param_bytes, all / 2 + kept);       /* slices for good */
        }
        zero_close(&c);
    }
}

/* With one stage per rank something of it always runs: row groups keep it resident, computes do
 * not. */
static void stage_comes_and_goes(bool ep)
{
    uint64_t live[2], kept;
    for (uint32_t prefetch = 0; prefetch < 2; prefetch++) {
        compiled c;
        zero_open(&c, &(zero_case){.schedule = "1f1b",
                                   .ep = ep,
                                   .clauses = prefetch ? "zero 3 bucket 0.003 prefetch 1"
                                                       : "zero 3 bucket 0.003 prefetch 0"});
        const plan *p = &c.set->plans[1];
        live[prefetch] = most_live(p, PLAN_BLOCK_PARAMS);
        if (prefetch == 1)
            assert_int_equal(live[1], sliced_bytes(p, &kept));
        else
            assert_true(live[0] < sliced_bytes(p, &kept) / 2);
        for (uint32_t i = 0; i < p->n_steps && prefetch == 0; i++) {
            if (p->steps[i].kind != PLAN_ALL_GATHER)
                continue;
            uint32_t n_between = 0; /* computes that it may run under */
            for (uint32_t k = i; k < first_use(p, i); k++)
                n_between += p->steps[k].kind == PLAN_COMPUTE;
            assert_true(n_between <= 1);
        }
        zero_close(&c);
    }
}

static void a_stage_comes_and_goes_by_buckets(void **state)
{
    (void)state;
    stage_comes_and_goes(false);
    stage_comes_and_goes(true);
}

/* What each level stores for good, of every class; experts that are shared out whole. */
static void levels_store_slices(void **state)
{
    static const uint32_t halves[4][3] = {{2, 2, 2}, {2, 2, 1}, {2, 1, 1}, {1, 1, 1}};
    (void)state;
    for (int i = 0; i < 8; i++) {
        compiled c;
        char text[32];
        int zero = i / 2;
        snprintf(text, sizeof text, "zero %d", zero);
        zero_open(&c, &(zero_case){.schedule = "dualpipev",
                                   .ep = i % 2,
                                   .clauses = text,
                                   .optimizer = "adamw(lr=1e-3)"});
        for (uint32_t g = 0; g < c.set->n_groups; g++) {
            const plan *p = &c.set->plans[g];
            uint64_t all = 0, kept = 0;
            for (uint32_t b = 0; b < p->n_buckets; b++) {
                bool owned = i % 2 == 1 && of_expert(c.set, p, &p->buckets[b]);
                assert_int_equal(p->buckets[b].zero, owned ? 0 : zero);
                if (p->buckets[b].zero > 0)
                    assert_int_equal(p->buckets[b].bytes % (PLAN_ALIGN * p->n_ranks), 0);
                *(owned ? &kept : &all) += p->buckets[b].bytes;
            }
            assert_int_equal(p->param_bytes, all * halves[zero][0] / 2 + kept);
            assert_int_equal(p->opt_offset - p->grad_offset, all * halves[zero][1] / 2 + kept);
            assert_int_equal(p->opt_bytes, 2 * (all * halves[zero][2] / 2 + kept));
        }
        zero_close(&c);
    }
}

/* Experts that are shared out have one owner: no level slices them, and their gradients add up
 * where they stay, never in a window's buffer. */
static void experts_keep_their_owner(void **state)
{
    (void)state;
    for (int zero = 2; zero < 4; zero++) {
        compiled c;
        zero_open(&c, &(zero_case){.schedule = "dualpipev",
                                   .ep = true,
                                   .clauses = zero == 2 ? "zero 2 every 2" : "zero 3"});
        for (uint32_t g = 0; g < c.set->n_groups; g++) {
            const plan *p = &c.set->plans[g];
            uint32_t n_adding = 0;
            for (uint32_t b = 0; b < p->n_buckets; b++)
                for (uint32_t i = 0; i < p->buckets[b].n; i++) {
                    const plan_param *q = &p->params[p->buckets[b].first + i];
                    bool expert = (c.set->params[q->param].flags & IR_PARAM_EXPERT) != 0;
                    assert_int_equal(p->buckets[b].zero, expert ? 0 : zero);
                    assert_int_equal(q->cuts[0].teams == IR_NONE ? 1 : 2, expert ? 2 : 1);
                }
            for (uint32_t i = 0; i < p->n_steps; i++) {
                const plan_step *s = &p->steps[i];
                if (plan_is(s->kind, PLAN_BUCKET) && of_expert(c.set, p, bucket_of(c.set, p, s)))
                    assert_int_equal(s->kind, PLAN_UPDATE);
                if (s->kind != PLAN_COMPUTE ||
                    strstr(c.set->chunk_names[plan_work_of(c.set, s)->chunk], "EP") == NULL)
                    continue;
                n_adding += s->pass == PPS_PASS_B || s->pass == PPS_PASS_BW;
                for (uint32_t k = 0; k < s->n_bindings; k++)
                    assert_true(block_of(p, i, k, PLAN_BLOCK_GRADS) == NULL &&
                                block_of(p, i, k, PLAN_BLOCK_PARAMS) == NULL);
            }
            assert_true(n_adding > 0);
        }
        zero_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_microbatch_is_summed_once),
        cmocka_unit_test(reductions_keep_microbatch_order),
        cmocka_unit_test(gathers_start_ahead_of_their_use),
        cmocka_unit_test(gathers_precede_their_use_in_a_trace),
        cmocka_unit_test(parameters_come_and_go),
        cmocka_unit_test(a_stage_comes_and_goes_by_buckets),
        cmocka_unit_test(levels_store_slices),
        cmocka_unit_test(experts_keep_their_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
