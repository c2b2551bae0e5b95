/* SPDX-License-Identifier: Apache-2.0
 *
 * The proof against broken plans: what the compiler makes passes, and each way to break it is
 * refused with its code. Plans are changed in place and put back; a step whose work is changed gets
 * one of its own first, since microbatches share theirs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compiled.h"

/* Transfers, exchanges, reductions, split backwards, overlapped pairs. */
static const char moe[] = "from \"models/qwen3_moe\" import qwen3_moe\n"
                          "from \"schedules\" import dualpipev\n"
                          "let pp, dp, ep = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\")]\n"
                          "train qwen3_moe(tokens(16, 8), targets(), stages=4, layers=4, dim=16,"
                          " heads=2, kv_heads=1, head_dim=8, experts=4, top_k=2, expert_hidden=8,"
                          " vocab=32) optimizer sgd(0.1)\n"
                          "split {} by MB into 4\n"
                          "for s in 0..4 {\n"
                          "  let d = if s == 0 or s == 3 then [0, 2] else [1, 3]\n"
                          "  place {PP: s} on d stream pp\n"
                          "  replicate {PP: s} on d reduce dp\n"
                          "  shard {PP: s, EP: *} on d stream ep\n"
                          "}\n"
                          "order dualpipev(2, 4)\n";
static const char pipeline[] = "from \"models/mlp\" import mlp\n"
                               "from \"schedules\" import zerobubble\n"
                               "train mlp(tokens(8, 8), targets(), stages=4, dim=8, vocab=16)"
                               " optimizer sgd(0.1)\n"
                               "split {} by MB into 4\n"
                               "for s in 0..4 { place {PP: s} on [s] }\n"
                               "order zerobubble(4, 4)\n";

/* Tensors shared by two teams, positions by the ranks of each. */
static const char tensor[] = "from \"models/llama\" import llama\n"
                             "train llama(tokens(8, 8), targets(), stages=1, layers=2, dim=16,"
                             " heads=2, kv_heads=2, hidden=8, vocab=32) optimizer sgd(0.1)\n"
                             "split {} by MB into 2\n"
                             "place {} on [0, 1, 2, 3]\n"
                             "replicate {} on [0, 1, 2, 3]\n"
                             "shard {TP: *} on [[0, 1], [2, 3]] as tensor sequence true\n";

static compiled c;
static plan_work *works; /* the set's, and the two that own_work hands out */
static uint32_t n_shared;

/* Prove the plans of `c` as they are now; the code of the error, 0 when they pass. */
static int proved(void)
{
    c.n_errors = 0;
    c.said[0] = '\0';
    pps_clear_errors(c.st);
    pps_status status = pps_prove(c.st, c.set);
    assert_true(status == PPS_OK || (status == PPS_ERR_SCRIPT && c.n_errors == 1));
    return status == PPS_OK ? 0 : c.codes[0];
}

static int open_script(const char *text)
{
    if (!compiled_ok(&c, text))
        return -1;
    n_shared = c.set->n_works;
    works = calloc(n_shared + 2, sizeof *works);
    if (works == NULL)
        return -1;
    memcpy(works, c.set->works, n_shared * sizeof *works);
    c.set->works = works;
    c.set->n_works += 2;
    return 0;
}

static int open_moe(void **state)
{
    (void)state;
    return open_script(moe);
}

static int open_pipeline(void **state)
{
    (void)state;
    return open_script(pipeline);
}

static int open_tensor(void **state)
{
    (void)state;
    return open_script(tensor);
}

static int close_script(void **state)
{
    (void)state;
    compiled_close(&c);
    free(works);
    return 0;
}

/* A copy of its work for this step alone; two steps at a time, `which` 0 and 1, may have one. */
static plan_work *own_work(plan_step *s, uint32_t which)
{
    works[n_shared + which] = works[s->work];
    s->work = n_shared + which;
    return &works[s->work];
}

static uint32_t chunk_of(const plan_step *s)
{
    return plan_work_of(c.set, s)->chunk;
}

/* The nth step of this kind in a plan. */
static plan_step *step_of(plan *p, plan_step_kind kind, uint32_t nth)
{
    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].kind == kind && nth-- == 0)
            return &p->steps[i];
    fail_msg("there is no such step");
    return NULL;
}

static void what_is_made_passes(void **state)
{
    (void)state;
    assert_int_equal(proved(), 0);
}

/* Waits are the fewest that keep the edges: without any one of them, some memory would be used too
 * early. Only receives have waits for another reason, they are held back until they are needed; and
 * computes wait for sends lest their buffers are lost, whether or not others take their place. */
static void no_wait_can_be_dropped(void **state)
{
    uint32_t dropped = 0, refused = 0, held_back = 0;
    (void)state;
    for (uint32_t g = 0; g < c.set->n_groups; g++)
        for (uint32_t i = 0; i < c.set->plans[g].n_steps; i++) {
            plan *p = &c.set->plans[g];
            plan_step *s = &p->steps[i], was = *s;
            for (uint32_t k = 0; k < was.n_waits; k++) {
                uint32_t *waits = p->waits + s->waits, mine = waits[k];
                waits[k] = waits[was.n_waits - 1];
                s->n_waits--;
                int code = proved();
                s->n_waits++;
                waits[was.n_waits - 1] = waits[k];
                waits[k] = mine;
                dropped++;
                bool for_send = s->kind == PLAN_COMPUTE && p->steps[mine].kind == PLAN_SEND;
                if (code == 0 && (s->kind == PLAN_RECV || for_send)) {
                    held_back++;
                    continue;
                }
                if (code != 519 && code != 520 && code != 545)
                    fail_msg("group %u step %u without its wait for %u: code %d", g, i, mine, code);
                refused++;
            }
        }
    assert_true(dropped > 30 && refused > 0 && held_back < dropped / 2);
    assert_int_equal(proved(), 0);
}

static void waits_point_backward_to_other_streams(void **state)
{
    (void)state;
    plan *p = &c.set->plans[0];
    for (uint32_t i = 0; i < p->n_steps; i++) {
        if (p->steps[i].n_waits == 0)
            continue;
        uint32_t *wait = &p->waits[p->steps[i].waits], was = *wait;
        *wait = i;
        assert_int_equal(proved(), 517);
        *wait = p->n_steps - 1;
        assert_int_equal(proved(), 517);
        for (uint32_t j = 0; j < i; j++)
            if (p->steps[j].stream == p->steps[i].stream) {
                *wait = j;
                assert_int_equal(proved(), 517);
            }
        *wait = was;
    }
    assert_int_equal(proved(), 0);
}

static void transfers_match_their_other_ends(void **state)
{
    (void)state;
    plan_step *s = step_of(&c.set->plans[0], PLAN_SEND, 1), was = *s;
    s->seq = 4000000; /* nobody has this one */
    assert_int_equal(proved(), 511);
    s->seq = step_of(&c.set->plans[0], PLAN_SEND, 0)->seq;
    assert_int_equal(proved(), 511);
    *s = was;
    own_work(s, 0)->bytes += 4;
    assert_int_equal(proved(), 511);
    *s = was;
    own_work(s, 0)->peer_group = 0;
    assert_int_equal(proved(), 511);
    *s = was;
    s->kind = PLAN_RECV;
    assert_int_equal(proved(), 520); /* not what others of its work are */
    own_work(s, 0);
    assert_int_equal(proved(), 511);
    *s = was;
    s->seq = 0;
    assert_int_equal(proved(), 511);
    *s = was;
    assert_int_equal(proved(), 0);
}

/* Two sends to one peer the other way round, each with its own waits dropped: the peer receives
 * them in the old order on one stream, so neither end meets its own. */
static void transfers_in_another_order_are_refused(void **state)
{
    (void)state;
    plan *p = &c.set->plans[0];
    plan_step *a = step_of(p, PLAN_SEND, 0), *b = step_of(p, PLAN_SEND, 1);
    plan_step was_a = *a, was_b = *b;
    assert_int_equal(a->stream, b->stream);
    assert_int_equal(plan_work_of(c.set, a)->peer_group, plan_work_of(c.set, b)->peer_group);
    *a = was_b;
    *b = was_a;
    a->n_waits = b->n_waits = 0;
    assert_int_equal(proved(), 541);
    assert_non_null(strstr(c.said, "transfers between two device groups cross"));
    *a = was_a;
    *b = was_b;
    assert_int_equal(proved(), 0);
}

/* Neighbours of one stream the other way round: fine when they have nothing to do with each other.
 */
static void swapped_steps_are_refused_or_independent(void **state)
{
    uint32_t refused = 0, accepted = 0;
    (void)state;
    for (uint32_t g = 0; g < c.set->n_groups; g++) {
        plan *p = &c.set->plans[g];
        for (uint32_t i = 0; i + 1 < p->n_steps; i++) {
            plan_step a = p->steps[i], b = p->steps[i + 1];
            if (a.stream != b.stream)
                continue;
            p->steps[i] = b;
            p->steps[i + 1] = a;
            int code = proved();
            p->steps[i] = a;
            p->steps[i + 1] = b;
            accepted += code == 0;
            refused += code != 0;
            bool same_op = a.kind == PLAN_COMPUTE && b.kind == PLAN_COMPUTE && a.mb == b.mb;
            if (same_op && chunk_of(&a) == chunk_of(&b) &&
                code == 0) /* F and B, BI and BW of one chunk */
                fail_msg("group %u steps %u and %u can be swapped", g, i, i + 1);
            if (a.kind == PLAN_COMPUTE && b.kind == PLAN_UPDATE)
                assert_true(code == 520 || code == 519 || code == 0);
        }
    }
    assert_true(refused > 0);
    assert_int_equal(proved(), 0);
}

static void work_runs_once(void **state)
{
    (void)state;
    plan *p = &c.set->plans[1];
    for (uint32_t i = 0; i < p->n_steps; i++) {
        plan_step *s = &p->steps[i];
        if (s->kind != PLAN_COMPUTE)
            continue;
        uint32_t was = s->mb;
        s->mb = (was + 1) % c.set->n_mb;
        assert_int_equal(proved(), 518);
        s->mb = was;
    }
    c.set->n_mb++; /* of the last one nothing runs */
    assert_int_equal(proved(), 521);
    assert_non_null(strstr(c.said, "a pass never runs"));
    c.set->n_mb--;

    plan_step *last = &p->steps[p->n_steps - 1];
    assert_int_equal(last->kind, PLAN_UPDATE);
    p->n_steps--;
    assert_int_equal(proved(), 546);
    p->n_steps++;
    assert_int_equal(proved(), 0);
}

static void whole_and_split_backwards_exclude_each_other(void **state)
{
    (void)state;
    uint32_t tried = 0;
    for (uint32_t g = 0; g < c.set->n_groups; g++)
        for (uint32_t i = 0; i < c.set->plans[g].n_steps; i++) {
            plan_step *s = &c.set->plans[g].steps[i];
            if (s->kind != PLAN_COMPUTE || s->pass != PPS_PASS_BI)
                continue;
            uint32_t shared = s->work, whole = 0;
            s->pass = PPS_PASS_B;
            assert_int_equal(proved(), 520); /* with the program of BI */
            while (c.set->programs[whole].chunk != chunk_of(s) ||
                   c.set->programs[whole].pass != PPS_PASS_B)
                whole++;
            own_work(s, 0)->program = whole;
            int code =
                proved(); /* BW's is twice; some chunks have none, so that B and BI are one */
            assert_true(code == 518 || code == 0 || code == 520);
            tried += code == 518;
            s->pass = PPS_PASS_BI;
            s->work = shared;
        }
    assert_true(tried > 0);
}

static void move_block(plan *p, plan_block *b, uint32_t offset)
{
    for (uint32_t i = b->first; i <= b->last; i++)
        for (uint32_t k = 0; k < p->steps[i].n_bindings; k++) {
            uint32_t *binding = &p->bindings[p->steps[i].bindings + k];
            *binding = *binding == b->offset ? offset : *binding;
        }
    b->offset = offset;
}

/* Every buffer moved onto every other that lives at the same time. */
static void live_buffers_share_no_bytes(void **state)
{
    (void)state;
    plan *p = &c.set->plans[0];
    uint32_t tried = 0;
    uint32_t *bindings = malloc(p->n_bindings * sizeof *bindings);
    assert_non_null(bindings);
    memcpy(bindings, p->bindings, p->n_bindings * sizeof *bindings);
    for (uint32_t i = 0; i < p->n_blocks; i += 1 + p->n_blocks / 40)
        for (uint32_t j = 0; j < p->n_blocks; j++) {
            plan_block *a = &p->blocks[i], *b = &p->blocks[j];
            uint32_t was = b->offset;
            if (i == j || b->first > a->last || a->first > b->last ||
                (uint64_t)a->offset * PLAN_ALIGN + plan_block_bytes(b) > p->act_bytes)
                continue;
            move_block(p, b, a->offset);
            assert_int_equal(proved(), 519);
            b->offset = was;
            memcpy(p->bindings, bindings, p->n_bindings * sizeof *bindings);
            tried++;
        }
    free(bindings);
    assert_true(tried > 20);
    assert_int_equal(proved(), 0);
    p->act_bytes--;
    assert_int_equal(proved(), 519);
    p->act_bytes++;
    /* sizes and places whose sums leave 32 bits, and a last unit that is not there at all */
    plan_block *b = &p->blocks[3], was_b = *b;
    b->offset = UINT32_MAX - b->units / 2;
    assert_int_equal(proved(), 519);
    *b = was_b;
    b->units = UINT32_MAX;
    assert_int_equal(proved(), 519);
    *b = was_b;
    b->slack = PLAN_ALIGN;
    assert_int_equal(proved(), 519);
    *b = was_b;
    b->units = 0;
    assert_int_equal(proved(), 519);
    *b = was_b;
    assert_int_equal(proved(), 0);
    b->last = p->n_steps;
    assert_int_equal(proved(), 519);
}

/* Does a buffer that lives at `step` begin at this unit? */
static bool begins_live(const plan *p, uint32_t offset, uint32_t step)
{
    for (uint32_t i = 0; i < p->n_blocks; i++)
        if (p->blocks[i].offset == offset && p->blocks[i].first <= step &&
            step <= p->blocks[i].last)
            return true;
    return false;
}

static void steps_use_buffers_that_are_there(void **state)
{
    (void)state;
    plan *p = &c.set->plans[0];
    uint32_t tried = 0;
    for (uint32_t t = 0; t < p->n_steps; t++)
        for (uint32_t k = t % 3; k < p->steps[t].n_bindings; k += 3) {
            uint32_t *binding = &p->bindings[p->steps[t].bindings + k], was = *binding;
            do
                (*binding)++;
            while (begins_live(p, *binding, t));
            int code =
                proved(); /* it fills what is not listed, or uses what is not there, any more */
            assert_true(code == 519 || code == 520 || code == 544);
            *binding = was;
            tried++;
        }
    assert_true(tried >= p->n_bindings / 3);
    plan_step *s = step_of(p, PLAN_COMPUTE, 2), was = *s;
    own_work(s, 0)->program = c.set->n_programs;
    assert_int_equal(proved(), 520);
    *s = was;
    s->work = c.set->n_works;
    assert_int_equal(proved(), 520);
    *s = was;
    s->place = c.set->n_places;
    assert_int_equal(proved(), 520);
    *s = was;
    assert_int_equal(proved(), 0);
}

static void buckets_are_reduced_and_updated_once(void **state)
{
    (void)state;
    plan *p = &c.set->plans[0];
    plan_step *update = step_of(p, PLAN_UPDATE, 1), *reduce = step_of(p, PLAN_ALL_REDUCE, 0);
    plan_step was = *update;
    own_work(update, 0)->chunk = chunk_of(step_of(p, PLAN_UPDATE, 0));
    assert_int_equal(proved(), 546);
    own_work(update, 0)->chunk = p->n_buckets;
    assert_int_equal(proved(), 520);
    *update = was;
    was = *reduce;
    uint32_t teams = p->buckets[chunk_of(reduce)].teams;
    p->buckets[chunk_of(reduce)].teams = IR_NONE; /* replicas that nobody sums */
    assert_int_equal(proved(), 550);
    p->buckets[chunk_of(reduce)].teams = teams;
    /* before its gradients are complete */
    plan_work *other = own_work(reduce, 0);
    other->chunk = chunk_of(step_of(p, PLAN_ALL_REDUCE, 1));
    assert_int_equal(proved(), 548); /* with the bytes of the one it was */
    other->bytes = p->buckets[other->chunk].bytes;
    assert_int_equal(proved(), 545);
    *reduce = was;
    assert_int_equal(proved(), 0);
}

/* Teams of other ranks, for one step alone and for all; ranks of other rows, or that do not speak.
 */
static void tensors_are_shared_in_one_way(void **state)
{
    (void)state;
    static const plan_step_kind kinds[] = {PLAN_SEQ_SCATTER, PLAN_SEQ_GATHER, PLAN_STATS};
    plan *p = &c.set->plans[0];
    uint32_t teams = plan_work_of(c.set, step_of(p, PLAN_STATS, 0))->teams;
    assert_int_equal(c.set->teams[teams].size, 2);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        plan_step *s = step_of(p, kinds[i], 0), was = *s;
        own_work(s, 0)->teams = 0; /* the whole group's */
        assert_int_equal(proved(), 550);
        assert_non_null(strstr(c.said, "tensors are shared in two ways"));
        *s = was;
    }
    uint32_t *ranks = c.set->team_ranks + c.set->teams[teams].ranks;
    ranks[1] = 2, ranks[2] = 1; /* [0, 2] and [1, 3] */
    assert_int_equal(proved(), 550);
    ranks[1] = 1, ranks[2] = 2;
    c.set->rank_speaks[1] = true;
    assert_int_equal(proved(), 550);
    assert_non_null(strstr(c.said, "shares tensors between ranks of different rows"));
    c.set->rank_speaks[1] = false;
    assert_int_equal(proved(), 0);
}

#define ON_TENSOR(test)   cmocka_unit_test_setup_teardown(test, open_tensor, close_script)
#define ON_MOE(test)      cmocka_unit_test_setup_teardown(test, open_moe, close_script)
#define ON_PIPELINE(test) cmocka_unit_test_setup_teardown(test, open_pipeline, close_script)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_MOE(what_is_made_passes),
        ON_PIPELINE(what_is_made_passes),
        ON_MOE(no_wait_can_be_dropped),
        ON_PIPELINE(no_wait_can_be_dropped),
        ON_TENSOR(no_wait_can_be_dropped),
        ON_TENSOR(tensors_are_shared_in_one_way),
        ON_TENSOR(swapped_steps_are_refused_or_independent),
        ON_TENSOR(live_buffers_share_no_bytes),
        ON_TENSOR(steps_use_buffers_that_are_there),
        ON_MOE(waits_point_backward_to_other_streams),
        ON_MOE(transfers_match_their_other_ends),
        ON_MOE(transfers_in_another_order_are_refused),
        ON_PIPELINE(transfers_in_another_order_are_refused),
        ON_MOE(swapped_steps_are_refused_or_independent),
        ON_PIPELINE(swapped_steps_are_refused_or_independent),
        ON_MOE(work_runs_once),
        ON_MOE(whole_and_split_backwards_exclude_each_other),
        ON_PIPELINE(whole_and_split_backwards_exclude_each_other),
        ON_MOE(live_buffers_share_no_bytes),
        ON_MOE(steps_use_buffers_that_are_there),
        ON_MOE(buckets_are_reduced_and_updated_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
