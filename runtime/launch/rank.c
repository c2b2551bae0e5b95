/* SPDX-License-Identifier: Apache-2.0
 *
 * rank.c: one rank from its first parameter to its last report.
 *
 * The arena comes zeroed from the segment, so gradients and optimizer state begin at 0. Activations
 * are filled with a pattern, a float that no kernel writes (a signalling NaN); after the run the
 * highest word that differs tells how much memory was used.
 */
#include "runtime/launch/rank.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATTERN 0x7fa5c3e1u

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Memory ------------------------------------------------------------------------------------
 */

/* Blocks are poisoned between steps when built with AddressSanitizer: these two look all the same.
 */
#define UNPOISONED __attribute__((no_sanitize("address")))

UNPOISONED static void fill_pattern(char *memory, uint64_t bytes)
{
    uint32_t *words = (uint32_t *)memory;
    for (uint64_t i = 0; i < bytes / sizeof(*words); i++)
        words[i] = PATTERN;
}

UNPOISONED static uint64_t changed_end(const char *memory, uint64_t bytes)
{
    const uint32_t *words = (const uint32_t *)memory;
    uint64_t n = bytes / sizeof(*words);
    while (n && words[n - 1] == PATTERN)
        n--;
    return n * sizeof(*words);
}

static void measure(const plan *p, rank_block *block)
{
    uint64_t end = p->act_offset + changed_end(block->exec.arena + p->act_offset, p->act_bytes);
    uint64_t host = changed_end(block->exec.host, p->host_bytes);
    if (end > block->measured_bytes)
        block->measured_bytes = end;
    if (host > block->measured_host_bytes)
        block->measured_host_bytes = host;
}

static void fill_patterns(const plan *p, exec_rank *r)
{
    fill_pattern(r->arena + p->act_offset, p->act_bytes);
    fill_pattern(r->host, p->host_bytes);
}

/* Which data inputs the group's programs read: the others have no room in its arena. */
static void used_data(const plan_set *set, const plan *p, bool *used)
{
    for (uint32_t i = 0; i < p->n_steps; i++) {
        if (p->steps[i].kind != PLAN_COMPUTE)
            continue;
        const plan_program *program = &set->programs[plan_work_of(set, &p->steps[i])->program];
        for (uint32_t k = program->kernels; k < program->kernels + program->n_kernels; k++)
            for (uint32_t j = 0; j < set->kernels[k].n_operands; j++) {
                const plan_operand *o = &set->operands[set->kernels[k].operands + j];
                if (o->space == PLAN_DATA)
                    used[o->index] = true;
            }
    }
}

/* ---- Gradients of the first step ---------------------------------------------------------------
 */

static bool speaks(const exec_rank *r)
{
    return r->set->rank_speaks[r->plan->ranks + r->group_index];
}

static void export_gradients(void *ud, exec_rank *r, const plan_bucket *bucket)
{
    const launch_cx *cx = ud;
    if (r->epoch != 0)
        return;
    train_export(r->set, r->plan, bucket, PLAN_AREA_GRADS, r->seats, speaks(r), r->arena,
                 &cx->layout, cx->grads);
}

/* ---- Steps -------------------------------------------------------------------------------------
 */

static pps_status write_all(int fd, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n) {
        ssize_t wrote = write(fd, at, n);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return PPS_ERR_IO;
        at += wrote;
        n -= (size_t)wrote;
    }
    return PPS_OK;
}

static pps_status one_step(const launch_cx *cx, rank_block *block, const bool *used, uint64_t step,
                           int fd)
{
    exec_rank *r = &block->exec;
    const plan *p = r->plan;
    bool cpu = cx->opt->backend == LAUNCH_CPU;
    rank_report report = {.step = step, .begin_ns = now_ns()};
    r->epoch = step;
    r->dropped = 0;
    r->marks = NULL;
    if (cx->marks && step >= cx->trace_first && step < cx->trace_end)
        r->marks = cx->marks[r->rank] + (step - cx->trace_first) * p->n_steps;
    memset(block->sent_now, 0, sizeof(block->sent_now));
    if (cpu && (step == 0 || cx->opt->memory_check))
        fill_patterns(p, r);
    for (uint32_t k = 0; cpu && k < cx->set->n_data; k++)
        if (used[k])
            train_data_fill(cx->data, k, step, train_share_of(cx->set, r->rank),
                            r->arena + p->data_offset + cx->set->data[k].offset);
    PPS_TRY(exec_run_step(r));
    r->failed_step = IR_NONE;
    if (cpu && (step + 1 == cx->opt->steps || cx->opt->memory_check))
        measure(p, block);
    if (!cx->marks || step == cx->trace_first)
        memcpy(block->sent, block->sent_now, sizeof(block->sent));
    report.end_ns = now_ns();
    report.dropped = r->dropped;
    PPS_TRY(write_all(fd, &report, sizeof(report)));
    return write_all(fd, r->losses, cx->set->n_losses * sizeof(double));
}

static pps_status all_steps(const launch_cx *cx, rank_block *block, coll_rank *coll, int fd)
{
    exec_rank *r = &block->exec;
    const plan *p = r->plan;
    bool *used = calloc((size_t)cx->set->n_data + 1, sizeof(*used));
    if (!used)
        return PPS_ERR_NOMEM;
    used_data(cx->set, p, used);
    if (cx->opt->backend == LAUNCH_CPU)
        train_fill_params(cx->set, p, r->seats, cx->weights, r->arena);
    pps_status status = coll_barrier(coll);
    for (uint64_t step = 0; step < cx->opt->steps && status == PPS_OK; step++)
        status = one_step(cx, block, used, step, fd);
    for (uint32_t b = 0; b < p->n_buckets && status == PPS_OK && cx->params; b++)
        train_export(cx->set, p, &p->buckets[b], PLAN_AREA_PARAMS, r->seats, speaks(r), r->arena,
                     &cx->layout, cx->params);
    free(used);
    return status;
}

static pps_status with_backend(const launch_cx *cx, rank_block *block, coll_rank *coll, int fd)
{
    exec_rank *r = &block->exec;
    bool cpu = cx->opt->backend == LAUNCH_CPU;
    void *self = NULL;
    if (cpu)
        PPS_TRY(exec_cpu_backend_new(r, coll, cx->has_blas ? &cx->blas : NULL, &self));
    else
        PPS_TRY(exec_paced_backend_new(r, coll, &cx->opt->paced, &self));
    r->backend = cpu ? &exec_cpu_backend : &exec_paced_backend;
    r->backend_self = self;
    pps_status status = exec_rank_init(r);
    if (status == PPS_OK)
        status = all_steps(cx, block, coll, fd);
    exec_rank_done(r);
    if (cpu)
        exec_cpu_backend_free(self);
    else
        exec_paced_backend_free(self);
    return status;
}

pps_status rank_run(const launch_cx *cx, uint32_t rank, int fd)
{
    rank_block *block = &cx->blocks[rank];
    coll_rank *coll = NULL;
    char *memory = coll_world_arena(cx->world, rank);
    bool cpu = cx->opt->backend == LAUNCH_CPU;
    pps_status status = coll_rank_new(cx->world, rank, &coll);
    block->exec = (exec_rank){
        .set = cx->set,
        .plan = launch_plan(cx, rank),
        .rank = rank,
        .group_index = cx->set->rank_index[rank],
        .arena = memory,
        .host = cpu ? exec_cpu_host(launch_plan(cx, rank), memory) : NULL,
        .losses = cx->losses[rank],
        .origin_ns = cx->origin_ns,
        .sent_bytes = block->sent_now,
        .lr_scale = 1.0f,
        .before_update = cx->grads ? export_gradients : NULL,
        .before_update_ud = (void *)cx,
        .failed_step = IR_NONE,
    };
    if (status == PPS_OK)
        status = exec_rank_seat(&block->exec);
    if (status == PPS_OK)
        status = with_backend(cx, block, coll, fd);
    block->status = status;
    if (coll)
        memcpy(block->reason, coll_rank_reason(coll), sizeof(block->reason));
    if (status != PPS_OK)
        coll_world_abort(cx->world, rank, status);
    coll_rank_free(coll);
    return status;
}
