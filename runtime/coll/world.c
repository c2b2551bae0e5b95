/* SPDX-License-Identifier: Apache-2.0
 *
 * world.c: the shared segment, and how ranks wait for each other.
 *
 * The segment is an unnamed memory file, mapped once before ranks start: forked processes and
 * threads see it at the same address, and it is gone with the last of them. Pages are touched when
 * used, so an unused lane costs nothing.
 *
 * Waiting. Every rank has a bell, a counter that peers bump after they did something for it. A rank
 * that found nothing to do sleeps until its bell differs from what it was when its last wait ended;
 * whatever was rung since then makes the wait return at once, so no wake-up is lost. Operations are
 * in coll.c.
 */
#include "runtime/coll/segment.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPINS = 200 }; /* about 2 us: longer than a hand-off between two running ranks */

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* ---- The segment -------------------------------------------------------------------------------
 */

static pps_status fail(char reason[256], pps_status status, const char *what)
{
    snprintf(reason, 256, "%s: %s", what, strerror(errno));
    return status;
}

static pps_status map_segment(coll_world *w, char reason[256])
{
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (w->bytes > machine) {
        snprintf(reason, 256, "the ranks together need %.1f GiB; this machine has %.1f GiB",
                 (double)w->bytes / (1 << 30), (double)machine / (1 << 30));
        return PPS_ERR_MACHINE;
    }
    int fd = memfd_create("pps", MFD_CLOEXEC);
    if (fd < 0)
        return fail(reason, PPS_ERR_MACHINE, "cannot make a shared memory file");
    if (ftruncate(fd, (off_t)w->bytes) != 0) {
        fail(reason, PPS_ERR_MACHINE, "cannot size the shared memory file");
        close(fd);
        return PPS_ERR_MACHINE;
    }
    void *base = mmap(NULL, w->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    close(fd);
    if (base == MAP_FAILED)
        return fail(reason, PPS_ERR_MACHINE, "cannot map the ranks' memory");
    w->base = base;
    return PPS_OK;
}

pps_status coll_world_new(const coll_config *config, coll_world **ret, char reason[256])
{
    uint32_t n = config->n_ranks;
    snprintf(reason, 256, "out of memory");
    if (n == 0 || config->channels == 0)
        return PPS_ERR_ARG;
    coll_world *w = calloc(1, sizeof(*w));
    if (!w)
        return PPS_ERR_NOMEM;
    w->n_ranks = n;
    w->channels = config->channels;
    w->max_group = config->max_group ? config->max_group : 1;
    w->arena_offset = calloc(n, sizeof(uint64_t));
    w->arena_bytes = calloc(n, sizeof(uint64_t));
    if (!w->arena_offset || !w->arena_bytes) {
        coll_world_free(w);
        return PPS_ERR_NOMEM;
    }
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t bells = sizeof(coll_control);
    uint64_t lanes = bells + n * sizeof(coll_bell);
    uint64_t n_entries = (uint64_t)n * n * w->channels * COLL_LANE_DEPTH;
    uint64_t board = round_up(lanes + n_entries * sizeof(coll_entry), page);
    uint64_t end = board + round_up(config->board_bytes, page);
    for (uint32_t i = 0; i < n; i++) {
        w->arena_offset[i] = end + page;
        w->arena_bytes[i] = config->arena_bytes[i];
        end = w->arena_offset[i] + round_up(config->arena_bytes[i], page);
    }
    w->bytes = end + page;
    pps_status status = map_segment(w, reason);
    if (status != PPS_OK) {
        coll_world_free(w);
        return status;
    }
    w->control = (coll_control *)w->base;
    w->bells = (coll_bell *)(w->base + bells);
    w->lanes = (coll_entry *)(w->base + lanes);
    w->board = w->base + board;
    for (uint32_t i = 0; i < n; i++)
        mprotect(w->base + w->arena_offset[i] - page, page, PROT_NONE);
    mprotect(w->base + end, page, PROT_NONE);
    reason[0] = 0;
    *ret = w;
    return PPS_OK;
}

void coll_world_free(coll_world *w)
{
    if (!w)
        return;
    if (w->base)
        munmap(w->base, w->bytes);
    free(w->arena_offset);
    free(w->arena_bytes);
    free(w);
}

void *coll_world_arena(coll_world *w, uint32_t rank)
{
    return w->base + w->arena_offset[rank];
}

void *coll_world_board(coll_world *w)
{
    return w->board;
}

/* ---- Bells -------------------------------------------------------------------------------------
 */

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
    return syscall(SYS_futex, (void *)word, op, value, timeout, NULL, 0);
}

void coll_ring(coll_world *w, uint32_t rank)
{
    coll_bell *bell = &w->bells[rank];
    atomic_fetch_add(&bell->rung, 1);
    /* both sides are sequentially consistent: either we see the sleeper, or it sees the new count
     */
    if (atomic_load(&bell->asleep))
        futex(&bell->rung, FUTEX_WAKE, 1, NULL);
}

pps_status coll_wait_any(coll_rank *r, uint64_t timeout_ns)
{
    coll_bell *bell = &r->world->bells[r->rank];
    if (coll_is_aborted(r->world))
        return PPS_ERR_COLL;
    if (timeout_ns == 0)
        return PPS_OK;
    bool rung = atomic_load(&bell->rung) != r->seen;
    for (uint32_t i = 0; i < r->spins && !rung; i++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
        rung = atomic_load(&bell->rung) != r->seen;
    }
    if (!rung) {
        struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                                   .tv_nsec = (long)(timeout_ns % 1000000000u)};
        atomic_store(&bell->asleep, 1);
        futex(&bell->rung, FUTEX_WAIT, r->seen, &timeout);
        atomic_store(&bell->asleep, 0);
    }
    r->seen = atomic_load(&bell->rung);
    return coll_is_aborted(r->world) ? PPS_ERR_COLL : PPS_OK;
}

/* ---- Ending together ---------------------------------------------------------------------------
 */

void coll_world_abort(coll_world *w, uint32_t rank, pps_status why)
{
    uint64_t none = 0;
    uint64_t value = ((uint64_t)why << 32) + rank;
    if (why == PPS_OK || !atomic_compare_exchange_strong(&w->control->aborted, &none, value))
        return;
    for (uint32_t i = 0; i < w->n_ranks; i++)
        coll_ring(w, i);
}

bool coll_world_aborted(const coll_world *w, uint32_t *ret_rank, pps_status *ret_why)
{
    uint64_t value = atomic_load_explicit(&w->control->aborted, memory_order_acquire);
    if (value == 0)
        return false;
    *ret_rank = (uint32_t)value;
    *ret_why = (pps_status)(value >> 32);
    return true;
}

pps_status coll_barrier(coll_rank *r)
{
    coll_control *control = r->world->control;
    uint32_t generation = atomic_load(&control->generation);
    if (atomic_fetch_add(&control->arrived, 1) + 1 == r->world->n_ranks) {
        atomic_store(&control->arrived, 0);
        atomic_fetch_add(&control->generation, 1);
        for (uint32_t i = 0; i < r->world->n_ranks; i++)
            coll_ring(r->world, i);
        return coll_is_aborted(r->world) ? PPS_ERR_COLL : PPS_OK;
    }
    while (atomic_load(&control->generation) == generation)
        PPS_TRY(coll_wait_any(r, 1000000000u));
    return PPS_OK;
}

/* ---- A rank's view -----------------------------------------------------------------------------
 */

pps_status coll_rank_new(coll_world *w, uint32_t rank, coll_rank **ret)
{
    if (rank >= w->n_ranks)
        return PPS_ERR_ARG;
    coll_rank *r = calloc(1, sizeof(*r));
    if (!r)
        return PPS_ERR_NOMEM;
    size_t lanes = (size_t)w->n_ranks * w->channels, parts = (size_t)w->channels * w->max_group;
    r->world = w;
    r->rank = rank;
    r->seen = atomic_load(&w->bells[rank].rung);
    cpu_set_t cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof(cores), &cores) == 0 &&
        (uint32_t)CPU_COUNT(&cores) >= w->n_ranks)
        r->spins = SPINS;
    r->out = calloc(lanes, sizeof(uint64_t));
    r->in = calloc(lanes, sizeof(uint64_t));
    r->coll_out = calloc(parts, sizeof(uint64_t));
    r->coll_in = calloc(parts, sizeof(uint64_t));
    r->coll_busy = calloc(w->channels, sizeof(bool));
    if (!r->out || !r->in || !r->coll_out || !r->coll_in || !r->coll_busy) {
        coll_rank_free(r);
        return PPS_ERR_NOMEM;
    }
    *ret = r;
    return PPS_OK;
}

void coll_rank_free(coll_rank *r)
{
    if (!r)
        return;
    free(r->out);
    free(r->in);
    free(r->coll_out);
    free(r->coll_in);
    free(r->coll_busy);
    free(r);
}

const char *coll_rank_reason(const coll_rank *r)
{
    return r->reason;
}
