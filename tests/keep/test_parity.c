/* SPDX-License-Identifier: Apache-2.0
 *
 * test_parity.c: what F kept, what was made again and what came back from host memory are the same
 * bits: losses, gradients and parameters do not change, under any schedule, with replicas, sharded
 * experts and zero; memory in use is what was planned, and less than before.
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
    "offload {} to host",
    "offload {PP: 0} to host stream h",
    "offload {PP: 0, MB: 0..6} to host stream pp\nrecompute {MB: [6, 7]}",
};
static const char *const of_experts[] = {
    "recompute {EP: *}",
    "recompute {EP: -, MB: 1..5}",
    "offload {EP: *} to host stream h\nrecompute {EP: -}",
};

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
        uint64_t host = o->result.planned_host_bytes[r];
        if (shared ? measured > planned : measured != planned)
            fail_msg("rank %u: planned %llu, measured %llu", r, (unsigned long long)planned,
                     (unsigned long long)measured);
        measured = o->result.measured_host_bytes[r];
        if (shared ? measured > host : measured != host)
            fail_msg("rank %u: %llu bytes of host memory planned, %llu measured", r,
                     (unsigned long long)host, (unsigned long long)measured);
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
            for (size_t d = 0; d < sizeof of_experts / sizeof *of_experts && k.experts; d++) {
                k.keep = of_experts[d];
                check_case(k, &plain);
            }
            outcome_done(&plain);
            zero_close(&c);
        }
}

typedef struct peaks { /* by rank */
    uint64_t total[8], live[8], host[8];
} peaks;

static peaks peaks_of(const keep_case *k)
{
    compiled c;
    peaks ret = {0};
    keep_open(&c, k);
    assert_true(c.set->n_ranks <= 8);
    for (uint32_t r = 0; r < c.set->n_ranks; r++) {
        const plan *p = &c.set->plans[c.set->rank_group[r]];
        ret.total[r] = p->total_bytes;
        ret.live[r] = p->max_live_bytes;
        ret.host[r] = p->host_bytes;
    }
    zero_close(&c);
    return ret;
}

/* The first rank holds the most microbatches: it gains most. No rank loses. */
static void peaks_fall(void **state)
{
    (void)state;
    for (int s = 0; s < N_SCHEDULES; s++)
        for (int i = 0; i < N_KINDS; i++) {
            keep_case k = {all_schedules[s], kinds[i].experts, kinds[i].shared, kinds[i].clauses,
                           ""};
            peaks kept = peaks_of(&k), dropped, away;
            k.keep = "recompute {}";
            dropped = peaks_of(&k);
            k.keep = "offload {} to host";
            away = peaks_of(&k);
            print_message("%s, kind %d: %llu kept, %llu recomputed, %llu offloaded and %llu on the "
                          "host\n",
                          k.schedule, i, (unsigned long long)kept.total[0],
                          (unsigned long long)dropped.total[0], (unsigned long long)away.total[0],
                          (unsigned long long)away.host[0]);
            assert_true(dropped.total[0] < kept.total[0] && dropped.live[0] < kept.live[0]);
            assert_true(away.total[0] < kept.total[0] && away.live[0] < kept.live[0]);
            assert_true(kept.host[0] == 0 && dropped.host[0] == 0 && away.host[0] > 0);
            for (int r = 0; r < 8; r++)
                assert_true(dropped.live[r] <= kept.live[r] && away.live[r] <= kept.live[r]);
        }
}

/* known[i]: the last step of `stream` that is over when step i begins, + 1; by streams and waits.
 */
static uint32_t *knows(const plan_set *set, const plan *p, uint16_t stream)
{
    uint32_t *known = calloc(p->n_steps, sizeof *known), *last = calloc(set->n_streams, 4);
    assert_true(known != NULL && last != NULL);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        known[i] = last[s->stream];
        for (uint32_t k = 0; k < s->n_waits; k++) {
            uint32_t w = p->waits[s->waits + k];
            uint32_t theirs = p->steps[w].stream == stream ? w + 1 : known[w];
            known[i] = theirs > known[i] ? theirs : known[i];
        }
        last[s->stream] = s->stream == stream ? i + 1 : known[i];
    }
    free(last);
    return known;
}

static const plan_step *compute_after(const plan *p, uint32_t i)
{
    while (++i < p->n_steps && p->steps[i].kind != PLAN_COMPUTE)
        ;
    return i < p->n_steps ? &p->steps[i] : NULL;
}

/* Copies have time: a compute comes between one out and the first step that waits for it, and
 * between what lets one back start and its reader. */
static void copies_run_beside_computes(void **state)
{
    (void)state;
    for (int s = 0; s < N_SCHEDULES; s++) {
        compiled c;
        uint32_t n_out = 0, n_back = 0;
        keep_open(&c,
                  &(keep_case){.schedule = all_schedules[s], .keep = "offload {PP: 0} to host"});
        const plan *p = &c.set->plans[0];
        uint32_t *known = NULL, *of_compute = knows(c.set, p, 0);
        for (uint32_t i = 0; i < p->n_steps; i++) {
            const plan_step *copy = &p->steps[i], *next = compute_after(p, i);
            if (copy->kind == PLAN_OFFLOAD) {
                if (known == NULL)
                    known = knows(c.set, p, copy->stream);
                assert_true(known[next - p->steps] <= i);
                n_out++;
            } else if (copy->kind == PLAN_FETCH) { /* `next` runs while it is under way */
                for (uint32_t k = 0; k < next->n_waits; k++)
                    assert_int_not_equal(p->waits[next->waits + k], i);
                assert_true(of_compute[i] <= next - p->steps);
                n_back++;
            }
        }
        assert_true(n_out > 0 && n_out == n_back);
        free(known);
        free(of_compute);
        zero_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_change),
        cmocka_unit_test(peaks_fall),
        cmocka_unit_test(copies_run_beside_computes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
