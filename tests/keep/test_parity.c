/* SPDX-License-Identifier: Apache-2.0
 *
 * test_parity.c: what F kept and what was made again are the same bits: losses, gradients and
 * parameters do not change, under any schedule, with replicas, sharded experts and zero; memory in
 * use is what was planned, and less than before.
 */
#include "keep_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *const all_schedules[] = {"gpipe", "1f1b", "interleaved", "zerobubble",
                                            "dualpipev"};
enum { N_SCHEDULES = sizeof all_schedules / sizeof *all_schedules };

static const struct {
    bool experts, shared;
    const char *clauses;
} kinds[] = {
    {false, false, NULL},
    {true, false, NULL},
    {true, true, ""},
    {true, true, "zero 3 bucket 0.002"},
    {false, false, "zero 2 every 2"},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static const char *const directives[] = {
    "recompute {}",
    "recompute {MB: 0..2}",
    "recompute {PP: 0}\nrecompute {PP: 1, MB: [0, 2, 5]}",
};
static const char *const of_experts[] = {"recompute {EP: *}", "recompute {EP: -, MB: 1..5}"};

static void same_run(const compiled *c, const outcome *a, const outcome *b)
{
    train_layout layout;
    assert_int_equal(train_layout_new(c->set, &layout), PPS_OK);
    assert_memory_equal(a->losses, b->losses, sizeof a->losses);
    assert_memory_equal(a->grads, b->grads, layout.bytes);
    assert_memory_equal(a->params, b->params, layout.bytes);
    assert_string_equal(a->result.params_sha256, b->result.params_sha256);
    train_layout_done(&layout);
}

static void as_planned(const compiled *c, const outcome *o, bool shared)
{
    for (uint32_t r = 0; r < c->set->n_ranks; r++) {
        uint64_t measured = o->result.measured_bytes[r], planned = o->result.planned_bytes[r];
        if (shared ? measured > planned : measured != planned)
            fail_msg("rank %u: planned %llu, measured %llu", r, (unsigned long long)planned,
                     (unsigned long long)measured);
    }
}

static void check_case(keep_case k, const outcome *plain)
{
    compiled c;
    outcome o;
    print_message("%s%s%s%s%s: %s\n", k.schedule, k.experts ? ", experts" : "",
                  k.shared ? " shared out" : "", k.clauses != NULL ? ", replicas " : "",
                  k.clauses != NULL ? k.clauses : "", k.keep);
    keep_open(&c, &k);
    zero_run(&c, &o);
    same_run(&c, &o, plain);
    as_planned(&c, &o, k.shared);
    outcome_done(&o);
    zero_close(&c);
}

static void bits_do_not_change(void **state)
{
    (void)state;
    for (int s = 0; s < N_SCHEDULES; s++)
        for (int i = 0; i < N_KINDS; i++) {
            compiled c;
            outcome plain;
            keep_case k = {all_schedules[s], kinds[i].experts, kinds[i].shared, kinds[i].clauses,
                           ""};
            keep_open(&c, &k);
            zero_run(&c, &plain);
            for (size_t d = 0; d < sizeof directives / sizeof *directives; d++) {
                k.keep = directives[d];
                check_case(k, &plain);
            }
            for (size_t d = 0; d < 2 && k.experts; d++) {
                k.keep = of_experts[d];
                check_case(k, &plain);
            }
            outcome_done(&plain);
            zero_close(&c);
        }
}

/* Peak and most bytes live of each rank; *ret_saved: in blocks that F keeps, at most at once. */
static void peaks_of(const keep_case *k, uint64_t *ret_peak, uint64_t *ret_live)
{
    compiled c;
    keep_open(&c, k);
    for (uint32_t r = 0; r < c.set->n_ranks; r++) {
        const plan *p = &c.set->plans[c.set->rank_group[r]];
        ret_peak[r] = p->total_bytes;
        ret_live[r] = p->max_live_bytes;
    }
    zero_close(&c);
}

/* GPipe holds all microbatches: what is dropped is most of its activations. */
static void peaks_fall(void **state)
{
    uint64_t kept[4], live[4], dropped[4], dropped_live[4];
    (void)state;
    for (int s = 0; s < N_SCHEDULES; s++)
        for (int i = 0; i < N_KINDS; i++) {
            keep_case k = {all_schedules[s], kinds[i].experts, kinds[i].shared, kinds[i].clauses,
                           ""};
            peaks_of(&k, kept, live);
            k.keep = "recompute {}";
            peaks_of(&k, dropped, dropped_live);
            /* the first rank holds the most microbatches */
            if (dropped[0] >= kept[0] || dropped_live[0] >= live[0])
                fail_msg("%s, kind %d: %llu bytes kept, %llu recomputed", k.schedule, i,
                         (unsigned long long)kept[0], (unsigned long long)dropped[0]);
            if (s == 0 && i == 0)
                assert_true(2 * dropped_live[0] < live[0]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_change),
        cmocka_unit_test(peaks_fall),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
