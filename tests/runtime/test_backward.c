/* SPDX-License-Identifier: Apache-2.0
 *
 * The two halves of a backward are real. A BI leaves every weight gradient as it was, to the bit,
 * and its input gradients are final: the same bytes when they are last used, and the same as a
 * whole B makes. The BW that follows is what changes the weight gradients; after it nothing that
 * its pass saved or held is alive, and all of it may be overwritten without changing a result.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "rank_threads.h"

/* The rows of 1F1B with every B split, its BW owed until the end: the furthest it can be deferred,
 * in microbatch order, so that sums agree to the bit. */
enum { N_RANKS = 2, N_MB = 4 };

static void compile_pipeline(compiled *c, bool split, bool shard)
{
    compile_text(c, 0,
                 "from \"models/qwen3_moe\" import qwen3_moe\n"
                 "from \"schedules\" import one_f_one_b\n"
                 "train qwen3_moe(tokens(%d, 6), targets(), stages=%d, layers=4, dim=16, heads=2, "
                 "kv_heads=1, head_dim=8, experts=4, top_k=2, expert_hidden=12, vocab=61) "
                 "optimizer sgd(lr=0.1)\n"
                 "split {} by MB into %d\n"
                 "for s in 0..%d {\n"
                 "  place {PP: s} on [2 * s, 2 * s + 1] stream stream(\"pp\")\n"
                 "  replicate {PP: s} on [2 * s, 2 * s + 1] reduce stream(\"dp\")\n"
                 "%s"
                 "}\n"
                 "fn halves(row) => [if op.pass() == B then BI(op.stage(), op.mb()) else op "
                 "for op in row] + [BW(op.stage(), op.mb()) for op in row if op.pass() == B]\n"
                 "fn whole(row) => row\n"
                 "order one_f_one_b(%d, %d).map(%s)\n",
                 2 * N_MB, N_RANKS, N_MB, N_RANKS,
                 shard ? "  shard {PP: s, EP: *} on [2 * s, 2 * s + 1] stream stream(\"ep\")\n"
                       : "",
                 N_RANKS, N_MB, split ? "halves" : "whole");
}

/* ---- Watching ----------------------------------------------------------------------------------
 */

enum { MAX_RANKS = 2 * N_RANKS };

typedef struct seen { /* by one rank; what went wrong is counted, since asserts end only main */
    uint64_t *hash;   /* [n_blocks] of a gradient block when its BI or B was done; 0: none */
    char *grads;      /* weight gradients before the compute under way */
    uint32_t n_bi, n_bw, n_dx, n_used;
    uint32_t bi_changed, bw_idle, dx_changed;
} seen;

typedef struct watcher {
    seen ranks[MAX_RANKS];
    bool spoil;
} watcher;

static uint64_t hash_of(const exec_rank *r, const plan_block *b)
{
    uint64_t offset = r->plan->act_offset + (uint64_t)b->offset * PLAN_ALIGN;
    const unsigned char *at = (const unsigned char *)r->arena + offset;
    uint64_t h = 1469598103934665603u;
    for (uint64_t i = 0; i < plan_block_bytes(b); i++)
        h = (h ^ at[i]) * 1099511628211u;
    return h ? h : 1;
}

/* Does the program of `s` add to a parameter's gradient? */
static bool has_weights(const plan_set *set, const plan_step *s)
{
    const plan_program *program = &set->programs[plan_work_of(set, s)->program];
    for (uint32_t k = program->kernels; k < program->kernels + program->n_kernels; k++)
        for (uint32_t j = 0; j < set->kernels[k].n_operands; j++)
            if (set->operands[set->kernels[k].operands + j].space == PLAN_GRAD)
                return true;
    return false;
}

/* May `step`, which is about to begin, look at block `b`? A compute, until the block's last step
 * has begun; communication may begin after that, and only knows of what it uses itself. */
static bool may_look(const plan *p, uint32_t step, const plan_block *b)
{
    const plan_step *s = &p->steps[step];
    bool uses = false;
    for (uint32_t i = 0; i < s->n_bindings; i++)
        uses |= p->bindings[s->bindings + i] - b->offset < b->units;
    return b->first < step && step <= b->last && (uses || s->kind == PLAN_COMPUTE);
}

static void before(void *ud, exec_rank *r, uint32_t step)
{
    watcher *w = ud;
    seen *s = &w->ranks[r->rank];
    const plan *p = r->plan;
    memcpy(s->grads, r->arena + p->grad_offset, p->param_bytes);
    /* whatever reads or forwards an input gradient gets the bytes its BI left */
    for (uint32_t b = 0; b < p->n_blocks; b++)
        if (s->hash[b] && may_look(p, step, &p->blocks[b])) {
            s->n_used++;
            s->dx_changed += hash_of(r, &p->blocks[b]) != s->hash[b];
        }
}

static void after(void *ud, exec_rank *r, uint32_t step)
{
    watcher *w = ud;
    seen *s = &w->ranks[r->rank];
    const plan *p = r->plan;
    const plan_step *at = &p->steps[step];
    if (at->kind != PLAN_COMPUTE)
        return;
    bool changed = memcmp(s->grads, r->arena + p->grad_offset, p->param_bytes) != 0;
    if (at->pass == PPS_PASS_BI) {
        s->n_bi++;
        s->bi_changed += changed || has_weights(r->set, at);
    }
    if (at->pass == PPS_PASS_BW) {
        s->n_bw++;
        s->bw_idle += !changed || !has_weights(r->set, at);
    }
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        const plan_block *block = &p->blocks[b];
        if (block->what == PLAN_BLOCK_GRAD && block->first == step) {
            s->n_dx++;
            s->hash[b] = hash_of(r, block);
        }
#if !defined(__SANITIZE_ADDRESS__) /* there the executor poisoned it */
        bool kept = block->what == PLAN_BLOCK_SAVE || block->what == PLAN_BLOCK_HELD;
        if (w->spoil && kept && block->last == step)
            memset(r->arena + p->act_offset + (uint64_t)block->offset * PLAN_ALIGN, 0xff,
                   plan_block_bytes(block));
#endif
    }
}

static void watch(watcher *w, const compiled *c, rank_threads *run)
{
    for (uint32_t i = 0; i < c->set->n_ranks; i++) {
        const plan *p = &c->set->plans[c->set->rank_group[i]];
        w->ranks[i] = (seen){.hash = calloc(p->n_blocks + 1, sizeof(uint64_t)),
                             .grads = calloc(1, p->param_bytes + 1)};
        assert_non_null(w->ranks[i].hash);
        assert_non_null(w->ranks[i].grads);
    }
    *run = (rank_threads){
        .compiled = c, .steps = 1, .watch = {.ud = w, .before = before, .after = after}};
    rank_threads_run(run);
}

static void watch_done(watcher *w)
{
    for (uint32_t i = 0; i < MAX_RANKS; i++) {
        free(w->ranks[i].hash);
        free(w->ranks[i].grads);
    }
}

/* ---- Tests -------------------------------------------------------------------------------------
 */

/* Hashes of the input gradients of a rank, by (chunk, microbatch): their sum over a step's blocks.
 */
static uint64_t gradients_of(const plan_set *set, const plan *p, const seen *s, uint32_t chunk,
                             uint32_t mb)
{
    uint64_t sum = 0;
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        const plan_step *at = &p->steps[p->blocks[b].first];
        if (s->hash[b] && plan_work_of(set, at)->chunk == chunk && at->mb == mb)
            sum += s->hash[b];
    }
    return sum;
}

static void check_halves(bool shard)
{
    compiled whole, split;
    watcher w[2] = {0};
    rank_threads run[2];
    compile_pipeline(&whole, false, shard);
    compile_pipeline(&split, true, shard);
    watch(&w[0], &whole, &run[0]);
    watch(&w[1], &split, &run[1]);
    for (uint32_t i = 0; i < MAX_RANKS; i++) {
        const seen *s = &w[1].ranks[i];
        const plan *p = &split.set->plans[split.set->rank_group[i]];
        const plan *other = &whole.set->plans[p->group];
        assert_true(s->n_bi >= N_MB * 5); /* two layers with experts: five chunks */
        assert_true(s->n_bw > 0 && s->n_bw <= s->n_bi);
        assert_int_equal(s->bi_changed, 0);
        assert_int_equal(s->bw_idle, 0);
        assert_true(s->n_dx > 0 && s->n_used >= s->n_dx);
        assert_int_equal(s->dx_changed, 0);
        assert_int_equal(w[0].ranks[i].n_bi + w[0].ranks[i].n_bw, 0);
        assert_int_equal(w[0].ranks[i].dx_changed, 0);
        /* sharded, the rows that an expert's buffers have room for are more than it writes */
        for (uint32_t chunk = 0; chunk < split.set->n_chunks && !shard; chunk++)
            for (uint32_t mb = 0; mb < N_MB; mb++)
                assert_true(gradients_of(split.set, p, s, chunk, mb) ==
                            gradients_of(whole.set, other, &w[0].ranks[i], chunk, mb));
    }
    assert_string_equal(run[0].sha256, run[1].sha256);
    assert_true(run[0].loss == run[1].loss && run[0].loss > 0);
    print_message("rank 0: %u BI, %u BW, %u input gradients followed\n", w[1].ranks[0].n_bi,
                  w[1].ranks[0].n_bw, w[1].ranks[0].n_dx);
    watch_done(&w[0]);
    watch_done(&w[1]);
    compiled_close(&whole);
    compiled_close(&split);
}

static void test_halves(void **state)
{
    (void)state;
    check_halves(false);
    check_halves(true);
}

/* The compute of `pass` of the chunk and microbatch of step `s`, or IR_NONE. */
static uint32_t step_of(const plan_set *set, const plan *p, const plan_step *s, pps_pass pass)
{
    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].kind == PLAN_COMPUTE && p->steps[i].pass == pass &&
            plan_work_of(set, &p->steps[i])->chunk == plan_work_of(set, s)->chunk &&
            p->steps[i].mb == s->mb)
            return i;
    return IR_NONE;
}

static void test_nothing_held(void **state)
{
    (void)state;
    compiled c;
    uint32_t n_held = 0, n_saved = 0;
    compile_pipeline(&c, true, true);
    for (uint32_t g = 0; g < c.set->n_groups; g++) {
        const plan *p = &c.set->plans[g];
        for (uint32_t b = 0; b < p->n_blocks; b++) {
            const plan_block *block = &p->blocks[b];
            if (block->what != PLAN_BLOCK_SAVE && block->what != PLAN_BLOCK_HELD)
                continue;
            const plan_step *s = &p->steps[block->first];
            assert_int_equal(s->kind, PLAN_COMPUTE);
            assert_true(s->pass == PPS_PASS_F || s->pass == PPS_PASS_BI);
            uint32_t bi = step_of(c.set, p, s, PPS_PASS_BI), bw = step_of(c.set, p, s, PPS_PASS_BW);
            assert_true(bi != IR_NONE);
            /* SAVE ends with its BI; HELD lives through it and ends with its BW */
            assert_int_equal(block->last, block->what == PLAN_BLOCK_SAVE ? bi : bw);
            n_saved += block->what == PLAN_BLOCK_SAVE;
            n_held += block->what == PLAN_BLOCK_HELD;
        }
    }
    assert_true(n_saved > 0 && n_held > 0);
    rank_threads clean = {.compiled = &c, .steps = 1}, spoilt;
    watcher w = {.spoil = true};
    rank_threads_run(&clean);
    watch(&w, &c, &spoilt);
    assert_string_equal(clean.sha256, spoilt.sha256);
    assert_true(clean.loss == spoilt.loss);
    watch_done(&w);
    compiled_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_nothing_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
