/* SPDX-License-Identifier: Apache-2.0
 *
 * Changed plans: the compiler's plans with one random change are refused, not proved or (by what
 * reads plan files) found to be no plan; or compute what they did before. Never something else,
 * never nothing (a run that hangs is ended), never a crash of the proof.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "compiled.h"
#include "ir/plan_file.h"
#include "mutate.h"
#include "programs.h"

/* Weight gradients of other microbatches may be added in another order. */
static const double tolerance = 1e-5;
enum { LIMIT_S = 30, INVALID = 1106 /* what a plan file would be refused with */ };

static program p;
static compiled c;

/* One plan, to be put back. */
typedef struct saved {
    plan plan;
    plan_step *steps;
    uint32_t *waits, *bindings;
    plan_block *blocks;
    plan_bucket *buckets;
    plan_param *params;
} saved;
typedef struct saved_set {
    arena mem;
    saved *plans;
    plan_work *works;
    plan_loss_slot *losses;
} saved_set;

static void *copy(arena *mem, const void *from, size_t bytes)
{
    void *to = arena_new(mem, bytes + 1);
    assert_non_null(to);
    memcpy(to, from, bytes);
    return to;
}

static void save(saved_set *s, const plan_set *set)
{
    arena_init(&s->mem, NULL, NULL);
    s->works = copy(&s->mem, set->works, set->n_works * sizeof *set->works);
    s->losses = copy(&s->mem, set->losses, set->n_losses * sizeof *set->losses);
    s->plans = arena_zero(&s->mem, set->n_groups * sizeof *s->plans);
    assert_non_null(s->plans);
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const plan *from = &set->plans[g];
        s->plans[g] = (saved){
            .plan = *from,
            .steps = copy(&s->mem, from->steps, from->n_steps * sizeof *from->steps),
            .waits = copy(&s->mem, from->waits, from->n_waits * sizeof *from->waits),
            .bindings = copy(&s->mem, from->bindings, from->n_bindings * sizeof *from->bindings),
            .blocks = copy(&s->mem, from->blocks, from->n_blocks * sizeof *from->blocks),
            .buckets = copy(&s->mem, from->buckets, from->n_buckets * sizeof *from->buckets),
            .params = copy(&s->mem, from->params, from->n_params * sizeof *from->params)};
    }
}

static void put_back(const saved_set *s, plan_set *set)
{
    memcpy(set->works, s->works, set->n_works * sizeof *set->works);
    memcpy(set->losses, s->losses, set->n_losses * sizeof *set->losses);
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const saved *from = &s->plans[g];
        plan *to = &set->plans[g];
        *to = from->plan;
        memcpy(to->steps, from->steps, to->n_steps * sizeof *to->steps);
        memcpy(to->waits, from->waits, to->n_waits * sizeof *to->waits);
        memcpy(to->bindings, from->bindings, to->n_bindings * sizeof *to->bindings);
        memcpy(to->blocks, from->blocks, to->n_blocks * sizeof *to->blocks);
        memcpy(to->buckets, from->buckets, to->n_buckets * sizeof *to->buckets);
        memcpy(to->params, from->params, to->n_params * sizeof *to->params);
    }
}

static struct {
    uint32_t drawn, refused, equal, codes[1200];
} tally;

static void change_once(random_source *r, const run_result *right, uint64_t seed, uint32_t i)
{
    char what[MUTATION_NAME], reason[256];
    if (!mutate(c.set, r, what))
        return;
    tally.drawn++;
    int code = compiled_prove(&c, false);
    if (code == 0 && plan_validate(c.set, reason, NULL) != PPS_OK)
        code = INVALID;
    tally.codes[code]++;
    if (code != 0) {
        tally.refused++;
        return;
    }
    run_result ran = compiled_run(&c, LIMIT_S);
    double apart = run_difference(&ran, right);
    if (!(apart <= tolerance)) {
        printf("%s\n", p.text);
        fail_msg("program %u of seed %llu with '%s' was accepted and %s: %.3g apart, loss %.9g "
                 "%.9g %.9g instead of %.9g %.9g %.9g",
                 i, (unsigned long long)seed, what, run_end_name(ran.end), apart, ran.loss[0],
                 ran.loss[1], ran.loss[2], right->loss[0], right->loss[1], right->loss[2]);
    }
    run_done(&ran);
    tally.equal++;
}

static void random_changes(void **state)
{
    uint64_t seed = random_seed();
    random_source r = {seed * 31 + 7};
    uint32_t n = run_everything() ? 1500 : 100, each = 40;
    (void)state;
    for (uint32_t i = 0; i < n; i++) {
        saved_set was;
        program_random(&p, &r, 0);
        compiled_open(&c, p.text, p.streams);
        assert_int_equal(c.status, PPS_OK);
        run_result right = compiled_run(&c, LIMIT_S);
        assert_int_equal(right.end, RUN_OK);
        save(&was, c.set);
        for (uint32_t k = 0; k < each; k++) {
            change_once(&r, &right, seed, i);
            put_back(&was, c.set);
        }
        assert_int_equal(compiled_prove(&c, false), 0);
        run_done(&right);
        arena_done(&was.mem);
        compiled_close(&c);
    }
    printf("seed %llu: %u changes to %u programs, %u refused (", (unsigned long long)seed,
           tally.drawn, n, tally.refused);
    for (int code = 1; code < 1200; code++)
        if (tally.codes[code] > 0)
            printf(" E%04d: %u", code, tally.codes[code]);
    printf(" ), %u accepted and equal\n", tally.equal);
    assert_true(tally.refused > 0 && tally.equal > 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_changes)};
    if (!test_options(argc, argv)) {
        fprintf(stderr, "options: --all, --seed N\n");
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
