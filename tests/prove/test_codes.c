/* SPDX-License-Identifier: Apache-2.0
 *
 * Every way to break a plan has its code, at the script's line, and names the steps: broken
 * plans for each kind of violation. (Cycles and crossings of tiny plans are test_hang.c's.)
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

/* Transfers, exchanges, reductions, split backwards on two groups of two ranks. */
static const char script[] =
    "from \"models/qwen3_moe\" import qwen3_moe\n"
    "from \"schedules\" import zerobubble\n"
    "let pp, dp, ep = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\")]\n"
    "train qwen3_moe(tokens(16, 6), targets(), stages=2, layers=2, dim=8, heads=2, kv_heads=1,"
    " head_dim=4, experts=4, top_k=2, expert_hidden=8, vocab=16) optimizer sgd(lr=0.1)\n"
    "split {} by MB into 4\n"
    "for s in 0..2 {\n"
    "  place {PP: s} on [s, s + 2] stream pp\n"
    "  replicate {PP: s} on [s, s + 2] reduce dp\n"
    "  shard {PP: s, EP: *} on [s, s + 2] stream ep\n"
    "}\n"
    "order zerobubble(2, 4)\n";

static compiled c;

static int start(void **state)
{
    (void)state;
    compiled_open(&c, script, 0);
    if (c.status != PPS_OK)
        printf("%s\n", c.said);
    return c.status == PPS_OK ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    compiled_close(&c);
    return 0;
}

/* The plans as they are now are refused with this code, and the message has these parts. */
static void refused(int code, const char *a, const char *b)
{
    int got = compiled_prove(&c, false);
    if (got != code || strstr(c.said, a) == NULL || strstr(c.said, b) == NULL)
        fail_msg("wanted E%04d with \"%s\" and \"%s\", got %d: %s", code, a, b, got, c.said);
}

static plan *group(uint32_t g)
{
    return &c.set->plans[g];
}

/* The first step of this kind, pass and microbatch (IR_NONE: any). */
static uint32_t step_of(const plan *p, plan_step_kind kind, int pass, uint32_t mb)
{
    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].kind == kind && (pass < 0 || p->steps[i].pass == pass) &&
            (mb == IR_NONE || p->steps[i].mb == mb))
            return i;
    fail_msg("there is no such step");
    return 0;
}

static plan_work *work_of(const plan_step *s)
{
    return &c.set->works[s->work];
}

static void the_plan_passes(void **state)
{
    (void)state;
    assert_int_equal(compiled_prove(&c, false), 0);
    assert_int_equal(compiled_prove(&c, true), 0);
}

/* Issue step `from` just before step `to`, and without its waits; waits on others follow them. */
static void move_up(plan *p, uint32_t from, uint32_t to)
{
    plan_step moved = p->steps[from];
    moved.n_waits = 0;
    memmove(p->steps + to + 1, p->steps + to, (from - to) * sizeof *p->steps);
    p->steps[to] = moved;
    for (uint32_t k = 0; k < p->n_waits; k++) {
        uint32_t *wait = &p->waits[k];
        *wait = *wait == from ? to : *wait >= to && *wait < from ? *wait + 1 : *wait;
    }
}

/* Group 1 waits for microbatch 2 before it sends the gradient of microbatch 0, which group 0 needs
 * before it makes microbatch 2. */
static void a_cycle(void **state)
{
    (void)state;
    plan *p = group(1);
    uint32_t send = step_of(p, PLAN_SEND, -1, 0), recv = step_of(p, PLAN_RECV, -1, 2);
    assert_true(send < recv && p->steps[send].n_waits > 0);
    move_up(p, recv, send);
    p->waits[p->steps[send + 1].waits] = send;
    for (int buffered = 0; buffered < 2; buffered++) {
        assert_int_equal(compiled_prove(&c, buffered), 502);
        assert_non_null(strstr(c.said, buffered ? "even with buffered sends" : "never ends"));
        assert_non_null(strstr(c.said, " waits for group 1 step"));
        assert_non_null(strstr(c.said, "comes on its stream after"));
        assert_non_null(strstr(c.said, "needs its other end"));
        assert_non_null(strstr(c.said, "random.pps:7")); /* where transfers get their stream */
    }
}

static void a_transfer_without_its_end(void **state)
{
    (void)state;
    plan_step *s = &group(0)->steps[step_of(group(0), PLAN_SEND, -1, 1)], was = *s;
    s->seq = (uint32_t)c.set->n_nodes;
    refused(511, "a transfer has no other end", "random.pps:7");
    s->seq = UINT32_MAX;
    refused(511, "a step's sequence number is wrong", "send");
    *s = was;
    work_of(s)->bytes += 4;
    refused(511, "a transfer does not match its other end", "the other end: group 0 step");
    work_of(s)->bytes -= 4;
    work_of(s)->peer = 0;
    refused(511, "a transfer does not match its other end", "recv");
}

static void a_payload_unlike_its_buffer(void **state)
{
    (void)state;
    work_of(&group(0)->steps[step_of(group(0), PLAN_ALL_TO_ALL, -1, 0)])->bytes += 64;
    refused(548, "a communication carries other bytes than its buffer has", "random.pps:9");
}

static void an_exchange_of_other_experts(void **state)
{
    (void)state;
    work_of(&group(0)->steps[step_of(group(0), PLAN_ALL_TO_ALL, -1, 0)])->experts--;
    refused(548, "an exchange has not the counts of its experts", "random.pps:9");
}

static void a_step_unlike_the_others_of_its_work(void **state)
{
    (void)state;
    plan_step *s = &group(0)->steps[step_of(group(0), PLAN_ALL_TO_ALL, -1, 1)];
    s->flags ^= PLAN_A2A_RETURN;
    refused(520, "a step does something else than its work's others", "random.pps:9");
}

/* The loss of microbatch 1 goes where that of microbatch 0 goes; or another group is to report it.
 */
static void losses_written_twice(void **state)
{
    (void)state;
    plan_step *s = &group(1)->steps[step_of(group(1), PLAN_COMPUTE, PPS_PASS_F, 0)];
    while (c.set->programs[work_of(s)->program].n_loss == 0)
        s++;
    c.set->losses[work_of(s)->loss].group = 0;
    refused(520, "a loss is reported by another device group", "group 1 step");
    c.set->losses[work_of(s)->loss].group = 1;
    uint32_t each = c.set->n_mb_losses;
    c.set->n_mb_losses = 0;
    refused(518, "a loss is written twice", "PP0:1");
    c.set->n_mb_losses = each;
    c.set->losses[c.set->n_losses++].group = 1; /* arrays have room for one more */
    refused(521, "is never written", "loss");
}

static void a_reduction_unlike_its_bucket(void **state)
{
    (void)state;
    work_of(&group(0)->steps[step_of(group(0), PLAN_ALL_REDUCE, -1, IR_NONE)])->bytes += 64;
    refused(548, "this carries more or less than its bucket", "random.pps:8");
}

static void a_wait_on_a_later_step(void **state)
{
    (void)state;
    plan *p = group(0);
    uint32_t i = 0;
    while (p->steps[i].n_waits == 0)
        i++;
    p->waits[p->steps[i].waits] = i;
    refused(517, "a step waits for one that is issued after it", "group 0 step");
}

static void a_pass_that_runs_twice(void **state)
{
    (void)state;
    plan_step *s = &group(1)->steps[step_of(group(1), PLAN_COMPUTE, PPS_PASS_BW, 2)];
    s->mb = 1;
    refused(518, "a pass of one microbatch runs twice", "it ran before: group 1 step");
    s->mb = 2;
    c.set->n_mb++; /* of the last one nothing runs */
    refused(521, "a pass never runs", "microbatch 4");
}

static void a_bucket_that_is_never_updated(void **state)
{
    (void)state;
    plan *p = group(0);
    assert_int_equal(p->steps[p->n_steps - 1].kind, PLAN_UPDATE);
    p->n_steps--;
    refused(546, "is never updated", "group 0");
}

static void a_bucket_that_is_updated_twice(void **state)
{
    (void)state;
    plan *p = group(0);
    plan_step *last = &p->steps[p->n_steps - 1], *first = last;
    while ((first - 1)->kind == PLAN_UPDATE || (first - 1)->kind == PLAN_ALL_REDUCE)
        first--;
    while (first->kind != PLAN_UPDATE)
        first++;
    assert_true(first != last);
    last->work = first->work;
    refused(546, "this happens to its bucket twice", "first here: group 0 step");
}

static void gradients_that_are_not_complete(void **state)
{
    (void)state;
    plan *p = group(0);
    p->steps[step_of(p, PLAN_ALL_REDUCE, -1, IR_NONE)].n_waits = 0;
    refused(545, "a gradient may not be complete yet", "by this step, which nothing makes end");
}

static void gradients_that_are_not_summed(void **state)
{
    (void)state;
    plan *p = group(0);
    uint32_t bucket = work_of(&p->steps[step_of(p, PLAN_ALL_REDUCE, -1, IR_NONE)])->chunk;
    p->buckets[bucket].teams = IR_NONE;
    refused(550, "a replica's gradients are in no sum", "random.pps:8");
}

/* A send that waits for nothing may read before the compute has written. */
static void a_read_before_its_write(void **state)
{
    (void)state;
    plan *p = group(0);
    uint32_t send = step_of(p, PLAN_SEND, PPS_PASS_F, IR_NONE);
    assert_true(p->steps[send].n_waits > 0);
    p->steps[send].n_waits = 0;
    refused(520, "a step uses a buffer that may not be filled yet", "filled by this step");
}

/* Some wait keeps a buffer until its last reader is over, and nothing else. */
static void bytes_used_again_too_early(void **state)
{
    uint32_t found = 0;
    (void)state;
    for (uint32_t g = 0; g < 2; g++)
        for (uint32_t i = 0; i < group(g)->n_steps; i++) {
            plan_step *s = &group(g)->steps[i];
            uint16_t was = s->n_waits;
            s->n_waits = 0;
            if (compiled_prove(&c, false) == 519) {
                refused(519, "may still be in use", "by this step, which nothing makes end before");
                found++;
            }
            s->n_waits = was;
        }
    assert_true(found > 0);
}

static void live_buffers_that_share_bytes(void **state)
{
    (void)state;
    plan *p = group(0);
    plan_block *a = NULL, *b = NULL;
    for (uint32_t i = 0; i < p->n_blocks && b == NULL; i++)
        for (uint32_t j = i + 1; j < p->n_blocks; j++) {
            a = &p->blocks[i];
            if (p->blocks[j].first > a->first && p->blocks[j].first <= a->last &&
                p->blocks[j].units <= a->units)
                b = &p->blocks[j];
        }
    assert_non_null(b);
    for (uint32_t i = b->first; i <= b->last; i++)
        for (uint32_t k = 0; k < p->steps[i].n_bindings; k++)
            if (p->bindings[p->steps[i].bindings + k] == b->offset)
                p->bindings[p->steps[i].bindings + k] = a->offset;
    b->offset = a->offset;
    int code = compiled_prove(&c, false);
    assert_int_equal(code, 519);
    assert_non_null(strstr(c.said, "two live buffers share bytes"));
    assert_non_null(strstr(c.said, "its bytes are another buffer's until here: group 0 step"));
    p->act_bytes -= PLAN_ALIGN;
    refused(519, "lies outside the plan", "group 0");
}

static void two_ends_on_two_streams(void **state)
{
    (void)state;
    plan *p = group(0);
    plan_step *s = &p->steps[step_of(p, PLAN_SEND, PPS_PASS_F, 0)];
    s->stream = p->steps[step_of(p, PLAN_ALL_REDUCE, -1, IR_NONE)].stream;
    refused(540, "the two ends of a transfer are on different streams", "the other end");
}

static void transfers_that_cross(void **state)
{
    (void)state;
    plan *p = group(0);
    plan_step *a = &p->steps[step_of(p, PLAN_SEND, PPS_PASS_F, 0)],
              *b = &p->steps[step_of(p, PLAN_SEND, PPS_PASS_F, 1)], was = *a;
    assert_int_equal(a->work, b->work);
    *a = *b;
    *b = was;
    a->n_waits = b->n_waits = 0;
    refused(541, "transfers between two device groups cross", "on stream pp this is the");
    assert_non_null(strstr(c.said, "each would meet another transfer"));
}

/* A collective of both groups, which the one calls another microbatch's, or another kind. */
static void groups_that_disagree(void **state)
{
    (void)state;
    plan_step *a = &group(0)->steps[step_of(group(0), PLAN_COUNTS, PPS_PASS_F, 0)];
    plan_step *b = &group(1)->steps[step_of(group(1), PLAN_COUNTS, PPS_PASS_F, 1)];
    uint32_t was = b->seq;
    b->seq = a->seq;
    refused(542, "device groups disagree about a collective", "another microbatch");
    b->seq = was;
    b = &group(1)->steps[step_of(group(1), PLAN_ALL_TO_ALL, PPS_PASS_F, 0)];
    b->seq = a->seq;
    refused(542, "device groups disagree about a collective", "here it is of another kind");
}

/* The value that steps of this kind write, and its blocks, as if it were a gradient. */
static void call_gradient(plan_step_kind kind, uint32_t binding)
{
    for (uint32_t g = 0; g < c.set->n_groups; g++)
        for (uint32_t i = 0; i < group(g)->n_steps; i++) {
            const plan_step *s = &group(g)->steps[i];
            if (s->kind != kind)
                continue;
            c.set->buffers[c.set->work_buffers[work_of(s)->buffers + binding]].what =
                PLAN_BLOCK_GRAD;
            for (uint32_t b = 0; b < group(g)->n_blocks; b++)
                if (group(g)->blocks[b].first == i &&
                    group(g)->blocks[b].offset == group(g)->bindings[s->bindings + binding])
                    group(g)->blocks[b].what = PLAN_BLOCK_GRAD;
        }
}

/* All exchanges of a microbatch read its counts: a gradient must not be used like that. */
static void a_gradient_that_is_used_twice(void **state)
{
    (void)state;
    call_gradient(PLAN_COUNTS, 1);
    refused(543, "a gradient is used twice", "first used here: group");
}

/* Nobody reads a workspace afterwards: a gradient would be lost. */
static void a_gradient_that_is_not_used(void **state)
{
    (void)state;
    uint32_t work = IR_NONE;
    plan *p = group(0);
    for (uint32_t i = 0; i < p->n_blocks; i++) {
        plan_block *b = &p->blocks[i];
        const plan_step *s = &p->steps[b->first];
        if (b->what != PLAN_BLOCK_WORK || (work != IR_NONE && s->work != work))
            continue;
        work = s->work;
        b->what = PLAN_BLOCK_GRAD;
        for (uint32_t k = 0; k < s->n_bindings; k++)
            if (p->bindings[s->bindings + k] == b->offset)
                c.set->buffers[c.set->work_buffers[work_of(s)->buffers + k]].what = PLAN_BLOCK_GRAD;
    }
    assert_int_not_equal(work, IR_NONE);
    refused(543, "a gradient is made and never used", "group 0 step");
}

static void a_binding_of_another_microbatch(void **state)
{
    (void)state;
    plan *p = group(1);
    uint32_t tried = 0;
    for (uint32_t i = 0; i < p->n_steps; i++)
        for (uint32_t j = 0; j < i; j++) {
            plan_step *s = &p->steps[i], *o = &p->steps[j];
            if (s->work != o->work || s->n_bindings == 0)
                continue;
            uint32_t *mine = &p->bindings[s->bindings], was = *mine;
            *mine = p->bindings[o->bindings];
            int code = *mine != was ? compiled_prove(&c, false) : 0;
            if (code == 544) {
                refused(544, "a step finds another step's buffer", "filled by this step");
                tried++;
            }
            assert_true(code == 0 ? *mine == was : code == 544 || code == 519 || code == 520);
            *mine = was;
        }
    assert_true(tried > 0);
}

static void numbers_that_name_nothing(void **state)
{
    (void)state;
    plan *p = group(0);
    uint32_t i = step_of(p, PLAN_COMPUTE, PPS_PASS_F, 0);
    plan_step *s = &p->steps[i], was = *s;
    s->work = c.set->n_works;
    refused(520, "a step names what is not there", "group 0 step");
    *s = was;
    s->mb = c.set->n_mb;
    refused(520, "a microbatch that is not there", "schedules:"); /* the row is a builder's */
    *s = was;
    work_of(s)->program = c.set->n_programs;
    refused(520, "a program that is not there", "group 0 step");
    work_of(s)->program =
        work_of(&p->steps[step_of(p, PLAN_COMPUTE, PPS_PASS_BW, IR_NONE)])->program;
    refused(520, "a step does not run its own program", "group 0 step");
}

/* ---- a model whose stages lie on two groups each, which sum their gradients together
 * --------------
 */

static const char two_way[] =
    "from \"models/mlp\" import mlp\n"
    "from \"schedules\" import chimera, two_way_stages\n"
    "let dp = stream(\"dp\")\n"
    "train mlp(tokens(8, 4), targets(), stages=2, dim=8, hidden=8, vocab=16)"
    " optimizer sgd(lr=0.1)\n"
    "split {} by MB into 4\n"
    "for s, mbs, at in two_way_stages(2, 4, dp=2) {\n"
    "  place {PP: s, MB: mbs} on at\n"
    "  replicate {PP: s, MB: mbs} on at reduce dp\n"
    "}\n"
    "order chimera(2, 4)\n";

static int start_two_way(void **state)
{
    (void)state;
    compiled_open(&c, two_way, 0);
    if (c.status != PPS_OK)
        printf("%s\n", c.said);
    return c.status == PPS_OK ? 0 : -1;
}

static plan_step *reduction(uint32_t g)
{
    return &group(g)->steps[step_of(group(g), PLAN_ALL_REDUCE, -1, IR_NONE)];
}

static void collectives_of_two_groups(void **state)
{
    (void)state;
    assert_int_equal(compiled_prove(&c, false), 0);
    plan_step *s = reduction(1), was = *s;
    const plan_bucket *bucket = &group(1)->buckets[work_of(s)->chunk];
    plan_param *held = &group(1)->params[bucket->first];
    s->seq = (uint32_t)c.set->n_nodes;
    refused(542, "a collective has 1 of the 2 device groups", "random.pps:8");
    *s = was;
    held->offset += PLAN_ALIGN;
    refused(542, "device groups disagree about a collective", "here it is of another bucket");
    held->offset -= PLAN_ALIGN;
    uint32_t teams = work_of(s)->teams;
    work_of(s)->teams = 1; /* its own group's */
    refused(542, "device groups disagree about a collective", "here it is of other teams");
    work_of(s)->teams = c.set->n_teams;
    refused(542, "a collective is of no team", "random.pps:8");
    work_of(s)->teams = 0;
    refused(542, "a collective's teams leave out ranks of its device group", "group 1 step");
    work_of(s)->teams = teams;
    assert_int_equal(compiled_prove(&c, false), 0);
}

/* Each group sums what it has, and nobody sums the two. */
static void groups_that_sum_apart(void **state)
{
    (void)state;
    for (uint32_t g = 0; g < 2; g++)
        for (uint32_t i = 0; i < group(g)->n_steps; i++) {
            plan_step *s = &group(g)->steps[i];
            if (s->kind != PLAN_ALL_REDUCE)
                continue;
            work_of(s)->teams = group(g)->buckets[work_of(s)->chunk].teams = g;
            s->seq = c.set->n_nodes - s->seq * 2 - g; /* each its own number */
        }
    refused(550, "a device group's gradients are in no sum with another's", "random.pps:8");
    assert_non_null(strstr(c.said, "the parameter"));
}

/* ---- a rank alone, whose computes run on a stream of their own ----------------------------------
 */

static const char alone[] =
    "from \"models/mlp\" import mlp\n"
    "train mlp(tokens(4, 4), targets(), stages=2, dim=8, hidden=8, vocab=16)"
    " optimizer sgd(lr=0.1)\n"
    "split {} by MB into 2\n";
static const char *streams[2];
static uint32_t *waits; /* the plan's, and room for more */

static int start_alone(void **state)
{
    (void)state;
    compiled_open(&c, alone, 0);
    if (c.status != PPS_OK)
        return -1;
    plan *p = group(0);
    waits = calloc(p->n_waits + p->n_steps, sizeof *waits);
    if (waits == NULL)
        return -1;
    memcpy(waits, p->waits, p->n_waits * sizeof *waits);
    p->waits = waits;
    streams[0] = c.set->streams[0];
    streams[1] = "more";
    c.set->streams = streams;
    c.set->n_streams = 2;
    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].kind == PLAN_COMPUTE)
            p->steps[i].stream = 1;
    return 0;
}

static int stop_alone(void **state)
{
    free(waits);
    return stop(state);
}

static void wait_for(plan *p, uint32_t step, uint32_t other)
{
    plan_step *s = &p->steps[step];
    assert_int_equal(s->n_waits, 0);
    s->waits = p->n_waits;
    s->n_waits = 1;
    p->waits[p->n_waits++] = other;
}

/* Updates know nothing of the stream that adds to their gradients, unless they wait. */
static void updates_on_another_stream(void **state)
{
    (void)state;
    plan *p = group(0);
    uint32_t update = step_of(p, PLAN_UPDATE, -1, IR_NONE);
    refused(545, "a gradient may not be complete yet", "by this step, which nothing makes end");
    wait_for(p, update, update - 1);
    assert_int_equal(p->steps[update - 1].kind, PLAN_COMPUTE);
    assert_int_equal(compiled_prove(&c, false), 0);
    /* of two computes on different streams, neither waits for the other */
    p->steps[update - 1].stream = 0;
    p->steps[update].n_waits = 0;
    int code = compiled_prove(&c, false); /* what it reads, or where it adds */
    assert_true(code == 520 || code == 545);
}

#define ON_PLANS(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_PLANS(the_plan_passes),
        ON_PLANS(a_cycle),
        ON_PLANS(a_transfer_without_its_end),
        ON_PLANS(a_payload_unlike_its_buffer),
        ON_PLANS(a_reduction_unlike_its_bucket),
        ON_PLANS(an_exchange_of_other_experts),
        ON_PLANS(a_step_unlike_the_others_of_its_work),
        ON_PLANS(losses_written_twice),
        ON_PLANS(a_wait_on_a_later_step),
        ON_PLANS(a_pass_that_runs_twice),
        ON_PLANS(a_bucket_that_is_never_updated),
        ON_PLANS(a_bucket_that_is_updated_twice),
        ON_PLANS(gradients_that_are_not_complete),
        ON_PLANS(gradients_that_are_not_summed),
        ON_PLANS(a_read_before_its_write),
        ON_PLANS(bytes_used_again_too_early),
        ON_PLANS(live_buffers_that_share_bytes),
        ON_PLANS(two_ends_on_two_streams),
        ON_PLANS(transfers_that_cross),
        ON_PLANS(groups_that_disagree),
        ON_PLANS(a_gradient_that_is_used_twice),
        ON_PLANS(a_gradient_that_is_not_used),
        ON_PLANS(a_binding_of_another_microbatch),
        ON_PLANS(numbers_that_name_nothing),
        cmocka_unit_test_setup_teardown(collectives_of_two_groups, start_two_way, stop),
        cmocka_unit_test_setup_teardown(groups_that_sum_apart, start_two_way, stop),
        cmocka_unit_test_setup_teardown(updates_on_another_stream, start_alone, stop_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
