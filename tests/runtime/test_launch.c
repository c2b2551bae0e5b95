/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole runs on hand-made plans: the same numbers with threads and processes, what is measured and
 * traced, and how a run ends when a rank is killed, a signal comes, plans disagree or the parent
 * dies. However it ends, no process stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "plan_builder.h"
#include "runtime/launch/launch.h"

/* ---- Around a run ------------------------------------------------------------------------------
 */

typedef struct diags {
    int code;
    char text[1024];
} diags;

static void keep_diag(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    diags *d = ud;
    (void)span;
    if (severity != PPS_SEV_ERROR)
        return;
    d->code = code;
    snprintf(d->text, sizeof(d->text), "%s", text);
}

static pps_state *open_state(diags *d)
{
    pps_config config = {.size = sizeof(config), .diag = keep_diag, .diag_ud = d};
    pps_state *st = NULL;
    *d = (diags){0};
    assert_int_equal(pps_open(PPS_ABI, &config, &st), PPS_OK);
    return st;
}

/* Process ids of the children of `pid`; -1 when this system does not list them. */
static int children_of(pid_t pid, pid_t *ret, int max)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "r");
    int n = 0, child;
    if (!f)
        return -1;
    while (n < max && fscanf(f, "%d", &child) == 1)
        ret[n++] = child;
    fclose(f);
    return n;
}

static void assert_no_children(void)
{
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- Plans -------------------------------------------------------------------------------------
 */

static plan_step step_of(plan_builder *b, plan_step_kind kind, uint16_t stream,
                         uint32_t peer_group, uint32_t seq)
{
    return (plan_step){
        .kind = (uint8_t)kind, .stream = stream, .work = pb_peer(b, peer_group), .seq = seq};
}

static plan_step compute(plan_builder *b, uint32_t program, uint32_t loss)
{
    return (plan_step){.kind = PLAN_COMPUTE, .work = pb_compute(b, program, loss)};
}

/* Two groups of two replicas. Group 0: x = p0 + p0, loss = mean (x - p0)^2, x is sent. Group 1: g1
 * = x, aux loss = mean (x - p1)^2. Gradients are summed over replicas; group 0 has none. */
static void build_training(plan_builder *b)
{
    pb_init(b, 2, 2, 3);
    pb_param(b, 0, 0);
    pb_param(b, 1, 1);
    uint32_t loss = pb_loss(b, 0, false), aux = pb_loss(b, 1, true);
    uint32_t twice = pb_sum(b, 3, (plan_operand[]){pb_bind(0), pb_of_param(0), pb_of_param(0)});
    uint32_t take = pb_sum(b, 3, (plan_operand[]){pb_of_grad(1), pb_of_grad(1), pb_bind(0)});
    uint32_t mse0 = pb_mse(b, pb_bind(0), pb_of_param(0));
    uint32_t mse1 = pb_mse(b, pb_bind(0), pb_of_param(1));
    uint32_t c = pb_step(b, 0, compute(b, twice, 0), NULL, PB_LIST(0));
    uint32_t s = pb_step(b, 0, step_of(b, PLAN_SEND, 1, 1, 1), PB_LIST(c), PB_LIST(0));
    uint32_t l = pb_step(b, 0, compute(b, mse0, loss), NULL, PB_LIST(0));
    pb_step(b, 0, step_of(b, PLAN_UPDATE, 0, 0, 0), PB_LIST(s), NULL);
    pb_block(b, 0, 0, c, l);
    uint32_t r = pb_step(b, 1, step_of(b, PLAN_RECV, 1, 0, 1), NULL, PB_LIST(0));
    uint32_t m = pb_step(b, 1, compute(b, mse1, aux), PB_LIST(r), PB_LIST(0));
    uint32_t g = pb_step(b, 1, compute(b, take, 0), NULL, PB_LIST(0));
    uint32_t ar = pb_step(b, 1, step_of(b, PLAN_ALL_REDUCE, 2, 0, 2), PB_LIST(m, g), NULL);
    pb_step(b, 1, step_of(b, PLAN_UPDATE, 0, 0, 0), PB_LIST(ar), NULL);
    pb_block(b, 1, 0, r, g);
    pb_finish(b, 1);
}

typedef struct told { /* what on_step said */
    uint64_t n;
    double loss[8], aux[8];
    bool in_order;
} told;

static void on_step(void *ud, uint64_t step, double loss, double aux_loss, double ms)
{
    told *t = ud;
    t->in_order = (t->n == 0 || t->in_order) && step == t->n + 1 && ms >= 0;
    t->loss[t->n] = loss;
    t->aux[t->n++] = aux_loss;
}

/* ---- Runs that succeed -------------------------------------------------------------------------
 */

static void test_training(void **state)
{
    (void)state;
    plan_builder b;
    char hash[2][65];
    build_training(&b);
    for (int threads = 0; threads < 2; threads++) {
        diags d;
        told t = {0};
        pps_state *st = open_state(&d);
        launch_options opt = {.set = &b.set,
                              .st = st,
                              .steps = 4,
                              .threads = threads,
                              .plain_kernels = true,
                              .trace = true,
                              .trace_first = 3,
                              .trace_steps = 2,
                              .want_hash = true,
                              .on_step = on_step,
                              .on_step_ud = &t,
                              .memory_check = threads};
        launch_result result;
        assert_int_equal(launch_run(&opt, &result), PPS_OK);
        assert_int_equal(result.steps_done, 4);
        assert_int_equal(t.n, 4);
        assert_true(t.in_order);
        /* p0 stays 1: x = 2; p1 = 1, -3, -7, -11: two replicas' x each step */
        for (int i = 0; i < 4; i++) {
            double away = 2 - (1 - 4.0 * i);
            assert_true(t.loss[i] == 2);
            assert_true(t.aux[i] == 2 * away * away);
        }
        assert_true(result.first_loss == 2 && result.last_loss == 2);
        for (uint32_t r = 0; r < 4; r++) {
            const plan *p = &b.plans[r / 2];
            assert_int_equal(result.planned_bytes[r], p->total_bytes);
            assert_int_equal(result.measured_bytes[r], p->total_bytes);
            for (uint32_t i = 0; i < p->n_steps; i++) {
                const exec_mark *first = &result.marks[r][i], *second = first + p->n_steps;
                assert_true(first->begin_ns > 0 && first->begin_ns <= first->end_ns);
                assert_true(first->end_ns <= second->begin_ns &&
                            second->begin_ns <= second->end_ns);
            }
            assert_int_equal(result.sent_bytes[r][PLAN_SEND], r < 2 ? PB_BYTES : 0);
            assert_int_equal(result.sent_bytes[r][PLAN_ALL_REDUCE], r < 2 ? 0 : PB_BYTES);
        }
        assert_int_equal(strlen(result.params_sha256), 64);
        memcpy(hash[threads], result.params_sha256, sizeof(hash[0]));
        assert_int_equal(d.code, 0);
        launch_result_done(&result);
        pps_close(st);
        assert_no_children();
    }
    assert_string_equal(hash[0], hash[1]);
}

static void test_options(void **state)
{
    (void)state;
    plan_builder b;
    diags d;
    launch_result result;
    build_training(&b);
    launch_options opt = {.set = &b.set, .plain_kernels = true};
    assert_int_equal(launch_run(&opt, &result), PPS_ERR_ARG);
    launch_result_done(&result);
    opt.steps = 2;
    opt.trace = true;
    opt.trace_first = 3;
    assert_int_equal(launch_run(&opt, &result), PPS_ERR_ARG);
    launch_result_done(&result);
    opt = (launch_options){.set = &b.set, .steps = 1, .backend = LAUNCH_PACED, .save_path = "x"};
    opt.st = open_state(&d);
    assert_int_equal(launch_run(&opt, &result), PPS_ERR_SCRIPT);
    assert_int_equal(d.code, 957);
    launch_result_done(&result);
    pps_close(opt.st);
}

/* ---- Runs that end early -----------------------------------------------------------------------
 */

/* A paced run that would take minutes. */
static launch_options long_run(plan_builder *b, pps_state *st, bool threads)
{
    build_training(b);
    return (launch_options){.set = &b->set,
                            .st = st,
                            .steps = 10000,
                            .threads = threads,
                            .backend = LAUNCH_PACED,
                            .paced = {.unit_ns = 2e7, .comm_ratio = 0.5}};
}

typedef struct blow { /* what happens at step 2 */
    int signal;
    int child; /* which child is hit, -1: this process */
    bool unlisted;
} blow;

static void strike(void *ud, uint64_t step, double loss, double aux_loss, double ms)
{
    blow *b = ud;
    pid_t children[PB_RANKS];
    (void)loss, (void)aux_loss, (void)ms;
    if (step != 2)
        return;
    if (b->child < 0) {
        kill(getpid(), b->signal);
        return;
    }
    b->unlisted = children_of(getpid(), children, PB_RANKS) != 4;
    kill(b->unlisted ? getpid() : children[b->child], b->unlisted ? SIGINT : b->signal);
}

static void test_killed_rank(void **state)
{
    (void)state;
    static const int signals[] = {SIGKILL, SIGTERM, SIGABRT};
    for (int i = 0; i < 3; i++) {
        plan_builder b;
        diags d;
        pps_state *st = open_state(&d);
        blow hit = {.signal = signals[i], .child = i};
        launch_options opt = long_run(&b, st, false);
        launch_result result;
        opt.on_step = strike;
        opt.on_step_ud = &hit;
        double begin = seconds();
        pps_status status = launch_run(&opt, &result);
        assert_true(seconds() - begin < 5);
        assert_no_children();
        if (hit.unlisted) {
            print_message("the machine does not list a process's children\n");
            skip();
        }
        assert_int_equal(status, PPS_ERR_COLL);
        assert_int_equal(result.failed_rank, i);
        assert_true(result.failed_epoch >= 2 && result.failed_epoch <= 4);
        assert_int_equal(d.code, 951);
        char rank[32];
        snprintf(rank, sizeof(rank), "rank %d", i);
        assert_non_null(strstr(d.text, rank));
        assert_non_null(strstr(d.text, strsignal(signals[i])));
        launch_result_done(&result);
        pps_close(st);
    }
}

static void test_signal(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        plan_builder b;
        diags d;
        pps_state *st = open_state(&d);
        blow hit = {.signal = i % 2 ? SIGTERM : SIGINT, .child = -1};
        launch_options opt = long_run(&b, st, i >= 2);
        launch_result result;
        opt.on_step = strike;
        opt.on_step_ud = &hit;
        double begin = seconds();
        assert_int_equal(launch_run(&opt, &result), PPS_ERR_INTERRUPT);
        assert_true(seconds() - begin < 5);
        assert_true(result.steps_done >= 2);
        assert_int_equal(result.failed_rank, IR_NONE);
        assert_int_equal(d.code, 0);
        assert_no_children();
        launch_result_done(&result);
        pps_close(st);
    }
}

static void test_disagreeing_plans(void **state)
{
    (void)state;
    for (int threads = 0; threads < 2; threads++) {
        plan_builder b;
        diags d;
        pps_state *st = open_state(&d);
        build_training(&b);
        b.steps[1][0].seq = 3;
        launch_options opt = {
            .set = &b.set, .st = st, .steps = 5, .threads = threads, .plain_kernels = true};
        launch_result result;
        assert_int_equal(launch_run(&opt, &result), PPS_ERR_COLL);
        assert_true(result.failed_rank >= 2);
        assert_int_equal(result.failed_step, 0);
        assert_int_equal(d.code, 952);
        assert_non_null(strstr(d.text, "receive 3"));
        assert_no_children();
        launch_result_done(&result);
        pps_close(st);
    }
}

static bool is_running(pid_t pid)
{
    char path[64], line[256] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    bool read = fgets(line, sizeof(line), f) != NULL;
    fclose(f);
    const char *state = read ? strrchr(line, ')') : NULL;
    return state && state[2] != 'Z';
}

static void test_killed_parent(void **state)
{
    (void)state;
    pid_t ranks[PB_RANKS];
    int n = 0;
    pid_t parent = fork();
    if (parent == 0) {
        plan_builder b;
        launch_options opt = long_run(&b, NULL, false);
        launch_result result;
        launch_run(&opt, &result);
        _exit(1);
    }
    double begin = seconds();
    while (seconds() - begin < 5 && (n = children_of(parent, ranks, PB_RANKS)) >= 0 && n < 4)
        usleep(2000);
    usleep(20000);
    kill(parent, SIGKILL);
    waitpid(parent, NULL, 0);
    if (n < 0) {
        print_message("the machine does not list a process's children\n");
        skip();
    }
    assert_int_equal(n, 4);
    for (int i = 0; i < n; i++) {
        while (is_running(ranks[i]) && seconds() - begin < 10)
            usleep(2000);
        assert_false(is_running(ranks[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training),          cmocka_unit_test(test_options),
        cmocka_unit_test(test_killed_rank),       cmocka_unit_test(test_signal),
        cmocka_unit_test(test_disagreeing_plans), cmocka_unit_test(test_killed_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
