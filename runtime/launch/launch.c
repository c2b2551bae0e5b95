/* SPDX-License-Identifier: Apache-2.0
 *
 * launch.c: a run from its options to its result: what is opened and made before ranks start, what
 * is read off the board after they ended, and how a failure is told. Ranks work in rank.c;
 * supervise.c follows them.
 *
 *   board  | blocks [rank] | losses [rank] | marks [rank] | parameters | gradients |
 */
#include "runtime/launch/rank.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Before ------------------------------------------------------------------------------------
 */

static pps_status open_weights(launch_cx *cx)
{
    const ir_train *train = &cx->set->train;
    const char *dir = cx->opt->base_dir;
    pps_state *st = cx->opt->st;
    if (!train->weights_path)
        return PPS_OK;
    bool joined = dir && dir[0] && train->weights_path[0] != '/';
    size_t n = strlen(train->weights_path) + (joined ? strlen(dir) + 1 : 0) + 1;
    char *path = malloc(n);
    if (!path)
        return PPS_ERR_NOMEM;
    snprintf(path, n, "%s%s%s", joined ? dir : "", joined ? "/" : "", train->weights_path);
    pps_status status = train_weights_open(st, path, train->weights_span, &cx->weights);
    free(path);
    PPS_TRY(status);
    return train_weights_check(st, cx->weights, cx->set, train->weights_span);
}

static pps_status open_inputs(launch_cx *cx, launch_result *result)
{
    const launch_options *opt = cx->opt;
    if (opt->backend != LAUNCH_CPU)
        return PPS_OK;
    PPS_TRY(train_data_open(opt->st, cx->set, opt->base_dir, &cx->data));
    PPS_TRY(open_weights(cx));
    PPS_TRY(train_layout_new(cx->set, &cx->layout));
    if (opt->plain_kernels)
        return PPS_OK;
    char reason[256];
    cx->has_blas = cpu_blas_open(&cx->blas, reason) == PPS_OK;
    if (cx->has_blas)
        memcpy(result->blas_core, cx->blas.core, sizeof(result->blas_core));
    else if (opt->st)
        pps_diag_done(pps_diag_start(opt->st, PPS_SEV_NOTE, 956, (pps_span){0},
                                     "running on plain C kernels: %s", reason));
    return PPS_OK;
}

static uint64_t trace_steps(const launch_options *opt)
{
    return opt->trace_steps ? opt->trace_steps : 1;
}

/* Work that only a host program can do: there is none here. */
static pps_status check_host_work(const launch_cx *cx)
{
    const plan_set *set = cx->set;
    if (cx->opt->backend == LAUNCH_PACED)
        return PPS_OK;
    for (uint32_t i = 0; i < set->n_programs; i++)
        for (uint32_t k = 0; k < set->programs[i].n_kernels; k++) {
            const plan_kernel *kernel = &set->kernels[set->programs[i].kernels + k];
            if (kernel->op != IR_OPAQUE)
                continue;
            if (cx->opt->st) {
                pps_diag *d = pps_diag_start(
                    cx->opt->st, PPS_SEV_ERROR, 958, set->train.source->span,
                    "'%s' is opaque: a host program supplies what it computes", kernel->attrs.host);
                pps_diag_help(d, "`pps check` and `--backend paced` need no compute");
                pps_diag_done(d);
            }
            return PPS_ERR_SCRIPT;
        }
    return PPS_OK;
}

static pps_status check_options(launch_cx *cx)
{
    const launch_options *opt = cx->opt;
    if (opt->steps == 0 || !opt->set)
        return PPS_ERR_ARG;
    if (opt->backend == LAUNCH_PACED && (opt->save_path || opt->save_gradients_path)) {
        if (opt->st)
            pps_error(opt->st, (pps_span){0}, 957,
                      "there is nothing to save: the paced backend sleeps instead of training");
        return PPS_ERR_SCRIPT;
    }
    PPS_TRY(check_host_work(cx));
    if (!opt->trace)
        return PPS_OK;
    cx->trace_first = opt->trace_first ? opt->trace_first - 1 : opt->steps - trace_steps(opt);
    cx->trace_end = cx->trace_first + trace_steps(opt);
    return trace_steps(opt) > opt->steps || cx->trace_end > opt->steps ? PPS_ERR_ARG : PPS_OK;
}

static char *take(char *base, uint64_t *at, uint64_t bytes)
{
    char *p = base ? base + *at : NULL;
    *at += (bytes + 63) / 64 * 64;
    return p;
}

/* Give every part of the board its place behind `base`, or only measure it, when that is NULL. */
static uint64_t lay_out_board(launch_cx *cx, char *base)
{
    const plan_set *set = cx->set;
    const launch_options *opt = cx->opt;
    uint64_t at = 0;
    cx->blocks = (rank_block *)take(base, &at, set->n_ranks * sizeof(rank_block));
    for (uint32_t i = 0; i < set->n_ranks; i++)
        cx->losses[i] = (double *)take(base, &at, set->n_losses * sizeof(double));
    for (uint32_t i = 0; i < set->n_ranks && opt->trace; i++)
        cx->marks[i] = (exec_mark *)take(
            base, &at, trace_steps(opt) * launch_plan(cx, i)->n_steps * sizeof(exec_mark));
    cx->params = cx->grads = NULL;
    if ((opt->want_hash || opt->save_path) && opt->backend == LAUNCH_CPU)
        cx->params = take(base, &at, cx->layout.bytes);
    if (opt->save_gradients_path)
        cx->grads = take(base, &at, cx->layout.bytes);
    return at;
}

static pps_status make_world(launch_cx *cx)
{
    const plan_set *set = cx->set;
    char reason[256];
    uint64_t *arena_bytes = calloc(set->n_ranks, sizeof(*arena_bytes));
    cx->losses = calloc(set->n_ranks, sizeof(*cx->losses));
    cx->marks = cx->opt->trace ? calloc(set->n_ranks, sizeof(*cx->marks)) : NULL;
    if (!arena_bytes || !cx->losses || (cx->opt->trace && !cx->marks)) {
        free(arena_bytes);
        return PPS_ERR_NOMEM;
    }
    coll_config config = {.n_ranks = set->n_ranks,
                          .arena_bytes = arena_bytes,
                          .board_bytes = lay_out_board(cx, NULL),
                          .channels = set->n_streams,
                          .max_group = 2}; /* the paced backend's pairs */
    bool paced = cx->opt->backend == LAUNCH_PACED;
    for (uint32_t i = 0; i < set->n_ranks; i++) {
        const plan *p = launch_plan(cx, i);
        arena_bytes[i] = paced ? exec_paced_arena_bytes(set) : exec_cpu_arena_bytes(p);
    }
    for (uint32_t i = 0; i < set->n_teams; i++)
        if (set->teams[i].size > config.max_group)
            config.max_group = set->teams[i].size;
    pps_status status = coll_world_new(&config, &cx->world, reason);
    free(arena_bytes);
    if (status == PPS_ERR_MACHINE && cx->opt->st)
        pps_error(cx->opt->st, (pps_span){0}, 955, "cannot hold the ranks' memory: %s", reason);
    if (status == PPS_OK)
        lay_out_board(cx, coll_world_board(cx->world));
    return status;
}

static pps_status new_result(const launch_cx *cx, launch_result *ret)
{
    uint32_t n = cx->set->n_ranks;
    *ret = (launch_result){.failed_rank = IR_NONE, .failed_step = IR_NONE};
    ret->planned_bytes = calloc(n, sizeof(uint64_t));
    ret->measured_bytes = calloc(n, sizeof(uint64_t));
    ret->planned_host_bytes = calloc(n, sizeof(uint64_t));
    ret->measured_host_bytes = calloc(n, sizeof(uint64_t));
    ret->sent_bytes = calloc(n, sizeof(*ret->sent_bytes));
    if (!ret->planned_bytes || !ret->measured_bytes || !ret->sent_bytes ||
        !ret->planned_host_bytes || !ret->measured_host_bytes)
        return PPS_ERR_NOMEM;
    for (uint32_t i = 0; i < n; i++) {
        ret->planned_bytes[i] = launch_plan(cx, i)->total_bytes;
        ret->planned_host_bytes[i] = launch_plan(cx, i)->host_bytes;
    }
    return PPS_OK;
}

/* ---- After -------------------------------------------------------------------------------------
 */

static pps_status read_board(launch_cx *cx, launch_result *result)
{
    const plan_set *set = cx->set;
    if (cx->marks && !(result->marks = calloc((size_t)set->n_ranks + 1, sizeof(*result->marks))))
        return PPS_ERR_NOMEM;
    for (uint32_t i = 0; i < set->n_ranks; i++) {
        const rank_block *block = &cx->blocks[i];
        result->measured_bytes[i] = block->measured_bytes;
        result->measured_host_bytes[i] = block->measured_host_bytes;
        memcpy(result->sent_bytes[i], block->sent, sizeof(block->sent));
        if (!cx->marks)
            continue;
        size_t bytes = trace_steps(cx->opt) * launch_plan(cx, i)->n_steps * sizeof(exec_mark);
        result->marks[i] = malloc(bytes + 1);
        if (!result->marks[i])
            return PPS_ERR_NOMEM;
        memcpy(result->marks[i], cx->marks[i], bytes);
    }
    return PPS_OK;
}

static pps_status write_results(launch_cx *cx, launch_result *result)
{
    const launch_options *opt = cx->opt;
    if (opt->want_hash && cx->params)
        train_sha256(cx->set, &cx->layout, cx->params, result->params_sha256);
    if (opt->save_path)
        PPS_TRY(train_save(opt->st, cx->set, &cx->layout, cx->params, opt->save_path));
    if (opt->save_gradients_path)
        PPS_TRY(train_save(opt->st, cx->set, &cx->layout, cx->grads, opt->save_gradients_path));
    return PPS_OK;
}

/* Which rank, in which step, where in its plan, and why. */
static void tell_failure(launch_cx *cx, launch_result *result, pps_status status, const char *how)
{
    pps_state *st = cx->opt->st;
    pps_span span = {0};
    char where[160] = "between steps", label[96];
    const char *reason = how;
    if (result->failed_rank >= cx->set->n_ranks) {
        if (st && status != PPS_ERR_INTERRUPT)
            pps_error(st, span, 955, "the ranks cannot run: %s", how[0] ? how : "out of memory");
        return;
    }
    const rank_block *block = &cx->blocks[result->failed_rank];
    const plan *p = launch_plan(cx, result->failed_rank);
    result->failed_step = block->exec.failed_step;
    result->failed_epoch = block->exec.epoch + 1;
    if (!block->exec.plan) {
        snprintf(where, sizeof(where), "before its first step");
        result->failed_step = IR_NONE;
    } else if (result->failed_step < p->n_steps) {
        span = plan_place_of(cx->set, &p->steps[result->failed_step]);
        plan_step_label(cx->set, p, &p->steps[result->failed_step], label, sizeof(label));
        snprintf(where, sizeof(where), "in step %llu at %s",
                 (unsigned long long)result->failed_epoch, label);
    } else {
        result->failed_step = IR_NONE;
    }
    if (!reason[0])
        reason = block->reason;
    if (!st)
        return;
    if (how[0])
        pps_error(st, span, 951, "rank %u was lost %s: %s", result->failed_rank, where, how);
    else if (status == PPS_ERR_COLL)
        pps_error(st, span, 952, "rank %u cannot communicate %s: %s", result->failed_rank, where,
                  reason);
    else if (status == PPS_ERR_LIMIT)
        pps_error(st, span, 953,
                  "more rows reached the experts of rank %u than its plan has room for, %s",
                  result->failed_rank, where);
    else
        pps_error(st, span, 954, "rank %u failed %s: %s", result->failed_rank, where,
                  status == PPS_ERR_NOMEM ? "out of memory" : "an operation it cannot do");
}

static void close_all(launch_cx *cx)
{
    coll_world_free(cx->world);
    if (cx->data)
        train_data_close(cx->data);
    if (cx->weights)
        train_weights_close(cx->weights);
    train_layout_done(&cx->layout);
    if (cx->has_blas)
        cpu_blas_close(&cx->blas);
    free(cx->losses);
    free(cx->marks);
}

/* ---- The run -----------------------------------------------------------------------------------
 */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static pps_status run_ranks(launch_cx *cx, launch_result *result)
{
    char how[256];
    cx->origin_ns = now_ns();
    pps_status status = launch_supervise(cx, result, how);
    if (status != PPS_OK) {
        tell_failure(cx, result, status, how);
        return status;
    }
    PPS_TRY(read_board(cx, result));
    return write_results(cx, result);
}

pps_status launch_run(const launch_options *opt, launch_result *ret)
{
    launch_cx cx = {.opt = opt, .set = opt->set};
    *ret = (launch_result){.failed_rank = IR_NONE, .failed_step = IR_NONE};
    PPS_TRY(check_options(&cx));
    pps_status status = new_result(&cx, ret);
    if (status == PPS_OK)
        status = open_inputs(&cx, ret);
    if (status == PPS_OK)
        status = make_world(&cx);
    if (status == PPS_OK)
        status = run_ranks(&cx, ret);
    close_all(&cx);
    return status;
}

void launch_result_done(launch_result *result)
{
    for (uint32_t i = 0; result->marks && result->marks[i]; i++)
        free(result->marks[i]);
    free(result->marks);
    free(result->planned_bytes);
    free(result->measured_bytes);
    free(result->planned_host_bytes);
    free(result->measured_host_bytes);
    free(result->sent_bytes);
    *result = (launch_result){0};
}
