/* SPDX-License-Identifier: Apache-2.0
 *
 * The executor on plans made by hand: the order in which steps begin and end, what runs beside
 * what, and, on the CPU and paced backends, what comes out. Ranks are threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "plan_builder.h"
#include "runtime/coll/coll.h"
#include "runtime/exec/exec.h"

/* ---- A backend that only takes notes -----------------------------------------------------------
 */

enum { NOTE_BEGIN, NOTE_END };
typedef struct notes { /* communication ends `polls` polls after it began; computes at once */
    struct {
        int what;
        uint32_t step;
    } list[4 * PB_STEPS];
    uint32_t n, polls[PB_STEPS], seen[PB_STEPS], n_idle, fails_at;
    bool async_compute;
} notes;

static void note(notes *n, int what, uint32_t step)
{
    n->list[n->n].what = what;
    n->list[n->n++].step = step;
}

static pps_status note_poll(void *self, exec_rank *r, uint32_t step, bool *ret_done)
{
    notes *n = self;
    (void)r;
    *ret_done = n->seen[step]++ >= n->polls[step];
    if (*ret_done)
        note(n, NOTE_END, step);
    return PPS_OK;
}

static pps_status note_begin(void *self, exec_rank *r, uint32_t step, bool *ret_done)
{
    notes *n = self;
    uint8_t kind = r->plan->steps[step].kind;
    if (n->fails_at == step)
        return PPS_ERR_COLL;
    note(n, NOTE_BEGIN, step);
    n->seen[step] = 0;
    if (kind != PLAN_COMPUTE || n->async_compute)
        return PPS_OK;
    note(n, NOTE_END, step);
    *ret_done = true;
    return PPS_OK;
}

static pps_status note_idle(void *self, exec_rank *r)
{
    (void)r;
    ((notes *)self)->n_idle++;
    return PPS_OK;
}

static const exec_backend note_backend = {"notes", note_begin, note_poll, note_idle, false};

static uint32_t when(const notes *n, int what, uint32_t step)
{
    for (uint32_t i = 0; i < n->n; i++)
        if (n->list[i].what == what && n->list[i].step == step)
            return i;
    fail_msg("step %u never came", step);
    return 0;
}

static plan_step step_of(plan_step_kind kind, uint16_t stream)
{
    return (plan_step){.kind = (uint8_t)kind, .stream = stream, .mb = 0};
}

/* Run once; check what holds for every plan. Returns the status. */
static pps_status run_notes(plan_builder *b, notes *n, exec_mark *marks)
{
    double losses[8] = {0};
    exec_rank r = {.set = &b->set,
                   .plan = &b->plans[0],
                   .losses = losses,
                   .marks = marks,
                   .backend = &note_backend,
                   .backend_self = n};
    assert_int_equal(exec_rank_init(&r), PPS_OK);
    pps_status status = exec_run_step(&r);
    if (status != PPS_OK)
        assert_int_equal(r.failed_step, n->fails_at);
    exec_rank_done(&r);
    if (status != PPS_OK)
        return status;
    const plan *p = &b->plans[0];
    uint32_t last_compute = IR_NONE;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        for (uint32_t w = 0; w < s->n_waits; w++)
            assert_true(when(n, NOTE_END, p->waits[s->waits + w]) < when(n, NOTE_BEGIN, i));
        for (uint32_t j = 0; j < i; j++)
            if (p->steps[j].stream == s->stream)
                assert_true(when(n, NOTE_END, j) < when(n, NOTE_BEGIN, i));
        if (s->kind == PLAN_COMPUTE && last_compute != IR_NONE)
            assert_true(when(n, NOTE_BEGIN, last_compute) < when(n, NOTE_BEGIN, i));
        if (s->kind == PLAN_COMPUTE)
            last_compute = i;
        assert_true(when(n, NOTE_BEGIN, i) < when(n, NOTE_END, i));
    }
    assert_int_equal(n->n, 2 * p->n_steps);
    return PPS_OK;
}

static void test_order(void **state)
{
    (void)state;
    plan_builder b;
    pb_init(&b, 1, 1, 3);
    uint32_t c0 = pb_step(&b, 0, step_of(PLAN_COMPUTE, 0), NULL, NULL);
    uint32_t send = pb_step(&b, 0, step_of(PLAN_SEND, 1), PB_LIST(c0), NULL);
    uint32_t recv = pb_step(&b, 0, step_of(PLAN_RECV, 2), NULL, NULL);
    uint32_t c1 = pb_step(&b, 0, step_of(PLAN_COMPUTE, 0), NULL, NULL);
    uint32_t send2 = pb_step(&b, 0, step_of(PLAN_SEND, 1), NULL, NULL);
    uint32_t c2 = pb_step(&b, 0, step_of(PLAN_COMPUTE, 0), PB_LIST(recv), NULL);
    pb_finish(&b, 1);
    notes n = {.fails_at = IR_NONE};
    n.polls[send] = 2;
    n.polls[recv] = 4;
    exec_mark marks[8];
    assert_int_equal(run_notes(&b, &n, marks), PPS_OK);
    /* both are under way before c1 computes, and c1 does not wait for them */
    assert_true(when(&n, NOTE_BEGIN, send) < when(&n, NOTE_BEGIN, c1));
    assert_true(when(&n, NOTE_BEGIN, recv) < when(&n, NOTE_BEGIN, c1));
    assert_true(when(&n, NOTE_END, recv) > when(&n, NOTE_END, c1));
    assert_true(when(&n, NOTE_BEGIN, send2) > when(&n, NOTE_END, send)); /* one stream */
    assert_true(n.n_idle > 0);                                           /* c2 had to wait */
    for (uint32_t i = 0; i < 6; i++)
        assert_true(marks[i].begin_ns <= marks[i].end_ns);
    assert_true(marks[recv].end_ns <= marks[c2].begin_ns);
    assert_true(marks[send].end_ns <= marks[send2].begin_ns);
}

/* Everything on one stream, as after merging: strictly one after the other. */
static void test_one_stream(void **state)
{
    (void)state;
    plan_builder b;
    pb_init(&b, 1, 1, 1);
    for (uint32_t i = 0; i < 6; i++)
        pb_step(&b, 0, step_of(i % 2 ? PLAN_SEND : PLAN_COMPUTE, 0), NULL, NULL);
    pb_finish(&b, 1);
    notes n = {.fails_at = IR_NONE};
    for (uint32_t i = 0; i < 6; i++)
        n.polls[i] = i;
    assert_int_equal(run_notes(&b, &n, NULL), PPS_OK);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(when(&n, NOTE_END, i), 2 * i + 1);
}

/* A backend whose computes take time: communication issued after one begins beside it. */
static void test_async_compute(void **state)
{
    (void)state;
    plan_builder b;
    pb_init(&b, 1, 1, 2);
    uint32_t c0 = pb_step(&b, 0, step_of(PLAN_COMPUTE, 0), NULL, NULL);
    uint32_t send = pb_step(&b, 0, step_of(PLAN_SEND, 1), NULL, NULL);
    pb_step(&b, 0, step_of(PLAN_COMPUTE, 0), PB_LIST(send), NULL);
    pb_finish(&b, 1);
    notes n = {.fails_at = IR_NONE, .async_compute = true};
    n.polls[c0] = 3;
    n.polls[send] = 1;
    assert_int_equal(run_notes(&b, &n, NULL), PPS_OK);
    assert_true(when(&n, NOTE_BEGIN, send) < when(&n, NOTE_END, c0));
}

static void test_random_plans(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (uint32_t round = 0; round < 300; round++) {
        plan_builder b;
        notes n = {.fails_at = IR_NONE, .async_compute = round % 2};
        pb_init(&b, 1, 1, 4);
        for (uint32_t i = 0; i < 40; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            uint32_t dice = (uint32_t)(seed >> 33);
            uint16_t stream = (uint16_t)(dice % 4);
            uint32_t wait = i ? dice / 4 % i : IR_NONE;
            if (i && b.steps[0][wait].stream == stream)
                wait = IR_NONE;
            n.polls[i] = dice / 256 % 6;
            pb_step(&b, 0, step_of(stream ? PLAN_SEND : PLAN_COMPUTE, stream), PB_LIST(wait), NULL);
        }
        pb_finish(&b, 1);
        assert_int_equal(run_notes(&b, &n, NULL), PPS_OK);
    }
}

static void test_failure(void **state)
{
    (void)state;
    plan_builder b;
    pb_init(&b, 1, 1, 2);
    pb_step(&b, 0, step_of(PLAN_COMPUTE, 0), NULL, NULL);
    pb_step(&b, 0, step_of(PLAN_SEND, 1), NULL, NULL);
    pb_step(&b, 0, step_of(PLAN_COMPUTE, 0), NULL, NULL);
    pb_finish(&b, 1);
    for (uint32_t at = 0; at < 3; at++) {
        notes n = {.fails_at = at};
        assert_int_equal(run_notes(&b, &n, NULL), PPS_ERR_COLL);
    }
    b.steps[0][1].stream = 2; /* there is none */
    exec_rank r = {.set = &b.set, .plan = &b.plans[0], .backend = &note_backend};
    assert_int_equal(exec_rank_init(&r), PPS_ERR_ARG);
}

/* ---- Ranks as threads --------------------------------------------------------------------------
 */

enum { ROUNDS = 3 };
typedef struct runner {
    plan_builder *b;
    coll_world *world;
    const exec_paced_costs *paced; /* NULL: the CPU backend */
    uint32_t rank;
    pps_status status;
    exec_mark marks[PB_STEPS]; /* of the last round */
    uint64_t sent[PLAN_STEP_KIND_COUNT];
    bool poisoned;
    float params[4 * PB_ELEMS], seen_grads[4 * PB_ELEMS];
} runner;

static void keep_grads(void *ud, exec_rank *r, const plan_bucket *bucket)
{
    runner *run = ud;
    memcpy((char *)run->seen_grads + bucket->offset[PLAN_AREA_GRADS],
           r->arena + r->plan->grad_offset + bucket->offset[PLAN_AREA_GRADS], bucket->bytes);
#if defined(__SANITIZE_ADDRESS__)
    /* group 0 updates last of all: nothing of its activations is in use any more */
    if (r->plan->group == 0) {
        const char *slots = r->arena + r->plan->act_offset;
        run->poisoned = __asan_region_is_poisoned((void *)slots, PB_BYTES) == slots &&
                        __asan_region_is_poisoned((void *)(slots + PB_BYTES), PB_BYTES) != NULL;
    }
#endif
}

static void *run_rank(void *ud)
{
    runner *run = ud;
    const plan_set *set = &run->b->set;
    double losses[8] = {0};
    coll_rank *coll = NULL;
    void *self = NULL;
    const plan *p = &set->plans[set->rank_group[run->rank]];
    exec_rank r = {.set = set, .plan = p, .rank = run->rank, .lr_scale = 1, .losses = losses};
    r.group_index = set->rank_index[run->rank];
    r.arena = coll_world_arena(run->world, run->rank);
    r.sent_bytes = run->sent;
    r.before_update = keep_grads;
    r.before_update_ud = run;
    r.backend = run->paced ? &exec_paced_backend : &exec_cpu_backend;
    run->status = coll_rank_new(run->world, run->rank, &coll);
    if (run->status == PPS_OK)
        run->status = exec_rank_seat(&r);
    if (run->status == PPS_OK)
        run->status = run->paced ? exec_paced_backend_new(&r, coll, run->paced, &self)
                                 : exec_cpu_backend_new(&r, coll, NULL, &self);
    r.backend_self = self;
    if (run->status == PPS_OK)
        run->status = exec_rank_init(&r);
    for (uint64_t i = 0; !run->paced && i < p->param_bytes / sizeof(float); i++)
        ((float *)r.arena)[i] = 1;
    for (r.epoch = 0; r.epoch < ROUNDS && run->status == PPS_OK; r.epoch++) {
        r.marks = r.epoch + 1 == ROUNDS ? run->marks : NULL;
        run->status = exec_run_step(&r);
    }
    if (!run->paced)
        memcpy(run->params, r.arena, p->param_bytes);
    if (run->status != PPS_OK)
        coll_world_abort(run->world, run->rank, run->status);
    exec_rank_done(&r);
    if (run->paced)
        exec_paced_backend_free(self);
    else
        exec_cpu_backend_free(self);
    coll_rank_free(coll);
    return NULL;
}

static void run_all(plan_builder *b, runner *runs, const exec_paced_costs *paced)
{
    const plan_set *set = &b->set;
    uint64_t bytes[PB_RANKS];
    pthread_t threads[PB_RANKS];
    char reason[256];
    coll_world *w;
    for (uint32_t i = 0; i < set->n_ranks; i++)
        bytes[i] = paced ? exec_paced_arena_bytes(set) : set->plans[set->rank_group[i]].total_bytes;
    coll_config config = {.n_ranks = set->n_ranks,
                          .arena_bytes = bytes,
                          .channels = set->n_streams,
                          .max_group = PB_RANKS};
    assert_int_equal(coll_world_new(&config, &w, reason), PPS_OK);
    for (uint32_t i = 0; i < set->n_ranks; i++) {
        runs[i] = (runner){.b = b, .world = w, .paced = paced, .rank = i};
        assert_int_equal(pthread_create(&threads[i], NULL, run_rank, &runs[i]), 0);
    }
    for (uint32_t i = 0; i < set->n_ranks; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < set->n_ranks; i++)
        assert_int_equal(runs[i].status, PPS_OK);
    coll_world_free(w);
}

static plan_step transfer(plan_builder *b, plan_step_kind kind, uint16_t stream,
                          uint32_t peer_group, uint32_t seq)
{
    plan_step s = step_of(kind, stream);
    s.work = pb_peer(b, peer_group);
    s.seq = seq;
    return s;
}

static plan_step compute(plan_builder *b, uint32_t program)
{
    plan_step s = step_of(PLAN_COMPUTE, 0);
    s.work = pb_compute(b, program, 0);
    return s;
}

/* Group 0: x = p0 + p0, sent twice; then its gradient arrives. Group 1: both x, g1 += x + x, and
 * back goes their sum. Each group has `size` replicas, whose gradients are added. */
static void build_ping_pong(plan_builder *b, uint32_t size)
{
    pb_init(b, 2, size, 4);
    pb_param(b, 0, 0);
    pb_param(b, 1, 1);
    uint32_t twice = pb_sum(b, 3, (plan_operand[]){pb_bind(0), pb_of_param(0), pb_of_param(0)});
    uint32_t take = pb_sum(b, 3, (plan_operand[]){pb_of_grad(0), pb_of_grad(0), pb_bind(0)});
    uint32_t both =
        pb_sum(b, 4, (plan_operand[]){pb_of_grad(1), pb_of_grad(1), pb_bind(0), pb_bind(1)});
    uint32_t back = pb_sum(b, 3, (plan_operand[]){pb_bind(2), pb_bind(0), pb_bind(1)});
    plan_step reduce0 = step_of(PLAN_ALL_REDUCE, 3), reduce1 = reduce0;
    reduce0.seq = 4;
    reduce1.seq = 5;
    /* slot 0 is written again for the second send: it waits for the first */
    uint32_t c = pb_step(b, 0, compute(b, twice), NULL, PB_LIST(0));
    uint32_t s1 = pb_step(b, 0, transfer(b, PLAN_SEND, 1, 1, 1), PB_LIST(c), PB_LIST(0));
    uint32_t c2 = pb_step(b, 0, compute(b, twice), PB_LIST(s1), PB_LIST(0));
    uint32_t s2 = pb_step(b, 0, transfer(b, PLAN_SEND, 1, 1, 2), PB_LIST(c2), PB_LIST(0));
    uint32_t rc = pb_step(b, 0, transfer(b, PLAN_RECV, 2, 1, 3), PB_LIST(s2), PB_LIST(1));
    uint32_t g = pb_step(b, 0, compute(b, take), PB_LIST(rc), PB_LIST(1));
    uint32_t ar = pb_step(b, 0, reduce0, PB_LIST(g), NULL);
    pb_step(b, 0, step_of(PLAN_UPDATE, 0), PB_LIST(ar), NULL);
    pb_block(b, 0, 0, c, s1);
    pb_block(b, 0, 0, c2, s2);
    pb_block(b, 0, 1, rc, g);

    uint32_t r1 = pb_step(b, 1, transfer(b, PLAN_RECV, 1, 0, 1), NULL, PB_LIST(0));
    uint32_t r2 = pb_step(b, 1, transfer(b, PLAN_RECV, 1, 0, 2), NULL, PB_LIST(1));
    uint32_t sum = pb_step(b, 1, compute(b, back), PB_LIST(r1, r2), PB_LIST(0, 1, 2));
    uint32_t sg = pb_step(b, 1, transfer(b, PLAN_SEND, 2, 0, 3), PB_LIST(sum), PB_LIST(2));
    uint32_t bw = pb_step(b, 1, compute(b, both), NULL, PB_LIST(0, 1));
    uint32_t ar1 = pb_step(b, 1, reduce1, PB_LIST(bw), NULL);
    pb_step(b, 1, step_of(PLAN_UPDATE, 0), PB_LIST(ar1), NULL);
    pb_block(b, 1, 0, r1, bw);
    pb_block(b, 1, 1, r2, bw);
    pb_block(b, 1, 2, sum, sg);
    pb_finish(b, 3);
}

static void test_cpu_ranks(void **state)
{
    (void)state;
    static runner runs[PB_RANKS];
    for (uint32_t size = 1; size <= 2; size++) {
        plan_builder b;
        build_ping_pong(&b, size);
        run_all(&b, runs, NULL);
        /* x = 2 p0; g0 = g1 = size * 2x; p -= g, three times over */
        float p0 = 1, p1 = 1, g = 0;
        for (uint32_t i = 0; i < ROUNDS; i++) {
            g = (float)size * 4 * p0;
            p0 -= g;
            p1 -= g;
        }
        for (uint32_t r = 0; r < b.set.n_ranks; r++)
            for (uint32_t i = 0; i < PB_ELEMS; i++) {
                assert_true(runs[r].params[i] == (r < size ? p0 : p1));
                assert_true(runs[r].seen_grads[i] == g);
            }
#if defined(__SANITIZE_ADDRESS__)
        assert_true(runs[0].poisoned);
#endif
        assert_int_equal(runs[0].sent[PLAN_SEND], ROUNDS * 2 * PB_BYTES);
        assert_int_equal(runs[size].sent[PLAN_SEND], ROUNDS * PB_BYTES);
        assert_int_equal(runs[0].sent[PLAN_ALL_REDUCE], size == 1 ? 0 : ROUNDS * PB_BYTES);
        assert_int_equal(runs[0].marks[1].sent_bytes, PB_BYTES);
        for (uint32_t i = 0; i < b.plans[0].n_steps; i++)
            assert_true(runs[0].marks[i].begin_ns &&
                        runs[0].marks[i].begin_ns <= runs[0].marks[i].end_ns);
    }
}

/* The second receive names another operation than the second send. */
static void test_cpu_mismatch(void **state)
{
    (void)state;
    static runner runs[PB_RANKS];
    plan_builder b;
    build_ping_pong(&b, 1);
    b.steps[1][1].seq = 17;
    uint64_t bytes[2] = {b.plans[0].total_bytes, b.plans[1].total_bytes};
    coll_config config = {.n_ranks = 2, .arena_bytes = bytes, .channels = 4, .max_group = 2};
    coll_world *w;
    char reason[256];
    pthread_t threads[2];
    assert_int_equal(coll_world_new(&config, &w, reason), PPS_OK);
    for (uint32_t i = 0; i < 2; i++) {
        runs[i] = (runner){.b = &b, .world = w, .rank = i};
        assert_int_equal(pthread_create(&threads[i], NULL, run_rank, &runs[i]), 0);
    }
    for (uint32_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(runs[i].status, PPS_ERR_COLL);
    }
    coll_world_free(w);
}

/* ---- Paced -------------------------------------------------------------------------------------
 */

/* Two computes with a transfer between them that only the last step of the receiver needs: beside
 * the compute when on its own stream, between them when on the compute stream. */
static void build_overlap(plan_builder *b, uint16_t stream)
{
    pb_init(b, 2, 1, 2);
    uint32_t any = pb_sum(b, 3, (plan_operand[]){pb_bind(0), pb_bind(0), pb_bind(0)});
    for (uint32_t g = 0; g < 2; g++) {
        uint32_t c0 = pb_step(b, g, compute(b, any), NULL, PB_LIST(0));
        uint32_t t = pb_step(b, g, transfer(b, g ? PLAN_RECV : PLAN_SEND, stream, !g, 1),
                             stream ? PB_LIST(c0) : NULL, PB_LIST(0));
        pb_step(b, g, compute(b, any), NULL, PB_LIST(0));
        pb_step(b, g, compute(b, any), stream ? PB_LIST(t) : NULL, PB_LIST(0));
    }
    pb_finish(b, 1);
}

static void test_paced(void **state)
{
    (void)state;
    static runner runs[PB_RANKS];
    plan_builder b;
    exec_paced_costs costs = {.unit_ns = 4e6, .comm_ratio = 0.5};
    build_overlap(&b, 1);
    run_all(&b, runs, &costs);
    for (uint32_t r = 0; r < 2; r++) {
        const exec_mark *m = runs[r].marks;
        assert_true(m[0].end_ns - m[0].begin_ns >= 3900000); /* it slept */
        assert_true(m[1].begin_ns >= m[0].end_ns);           /* waits for the first compute */
        assert_true(m[1].begin_ns < m[2].end_ns);            /* beside the second */
        assert_true(m[3].begin_ns >= m[1].end_ns && m[3].begin_ns >= m[2].end_ns);
    }
    assert_int_equal(runs[0].sent[PLAN_SEND], ROUNDS * PB_BYTES);
    build_overlap(&b, 0);
    run_all(&b, runs, &costs);
    for (uint32_t r = 0; r < 2; r++) {
        const exec_mark *m = runs[r].marks;
        for (uint32_t i = 0; i < 3; i++)
            assert_true(m[i].end_ns <= m[i + 1].begin_ns);
    }
}

/* The same plans that move data also pace: groups of two, an all-reduce, costs by FLOPs and bytes.
 */
static void test_paced_costs(void **state)
{
    (void)state;
    static runner runs[PB_RANKS];
    plan_builder b;
    exec_paced_costs costs = {.compute_ns_per_flop = 100, .latency_ns = 1000, .ns_per_byte = 10};
    build_ping_pong(&b, 2);
    run_all(&b, runs, &costs);
    for (uint32_t r = 0; r < 4; r++) {
        const exec_mark *m = runs[r].marks;
        const plan *p = &b.plans[r / 2];
        for (uint32_t i = 0; i < p->n_steps; i++)
            for (uint32_t w = 0; w < p->steps[i].n_waits; w++)
                assert_true(m[p->waits[p->steps[i].waits + w]].end_ns <= m[i].begin_ns);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),         cmocka_unit_test(test_one_stream),
        cmocka_unit_test(test_async_compute), cmocka_unit_test(test_random_plans),
        cmocka_unit_test(test_failure),       cmocka_unit_test(test_cpu_ranks),
        cmocka_unit_test(test_cpu_mismatch),  cmocka_unit_test(test_paced),
        cmocka_unit_test(test_paced_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
