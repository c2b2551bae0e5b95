/* SPDX-License-Identifier: Apache-2.0
 *
 * The step loop: it allocates nothing, on either backend, and the process does not grow; and the
 * number of physical streams does not change a bit of what is trained.
 *
 * Allocations are counted by standing in for the C library's (or, under a sanitizer, by its hook)
 * while any rank is inside its loop, whoever makes them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rank_threads.h"

/* ---- Counting ----------------------------------------------------------------------------------
 */

static _Atomic uint32_t ranks_inside; /* their loop */
static _Atomic uint64_t n_allocations, n_seen_at_all;

static void count_one(void)
{
    atomic_fetch_add(&n_seen_at_all, 1);
    if (atomic_load(&ranks_inside) > 0)
        atomic_fetch_add(&n_allocations, 1);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
/* sanitizer/allocator_interface.h, which gcc does not bring */
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));

static void on_malloc(const volatile void *memory, size_t bytes)
{
    (void)memory, (void)bytes;
    count_one();
}

static void on_free(const volatile void *memory)
{
    (void)memory;
}

static void start_counting(void)
{
    __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
}
#else
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

__attribute__((visibility("default"))) void *malloc(size_t bytes)
{
    count_one();
    return __libc_malloc(bytes);
}

__attribute__((visibility("default"))) void *calloc(size_t n, size_t bytes)
{
    count_one();
    return __libc_calloc(n, bytes);
}

__attribute__((visibility("default"))) void *realloc(void *memory, size_t bytes)
{
    count_one();
    return __libc_realloc(memory, bytes);
}

__attribute__((visibility("default"))) void *aligned_alloc(size_t align, size_t bytes)
{
    count_one();
    return __libc_memalign(align, bytes);
}

static void start_counting(void)
{
}
#endif

/* Pages of address space of this process: grows with whatever is mapped past the allocator. Read
 * without stdio, which allocates. */
static long mapped_pages(void)
{
    char text[64] = "";
    int fd = open("/proc/self/statm", O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    return n > 0 ? strtol(text, NULL, 10) : 0;
}

typedef struct growth {
    uint64_t first_step;        /* from this one on allocations count */
    _Atomic long before, after; /* mapped pages, taken by rank 0 between its steps */
} growth;

static void on_loop(void *ud, exec_rank *r, bool enters)
{
    growth *g = ud;
    if (r->rank == 0 && enters && r->epoch == g->first_step)
        atomic_store(&g->before, mapped_pages());
    if (r->epoch >= g->first_step) {
        if (enters)
            atomic_fetch_add(&ranks_inside, 1);
        else
            atomic_fetch_sub(&ranks_inside, 1);
    }
    if (r->rank == 0 && !enters)
        atomic_store(&g->after, mapped_pages());
}

/* ---- Plans -------------------------------------------------------------------------------------
 */

static void compile_moe(compiled *c, uint32_t schedule, uint32_t streams, const char *transfers)
{
    char pipeline[2048];
    const schedule_case *s = &schedule_cases[schedule];
    pipeline_text(s, 2, 2, true, 4, transfers, pipeline, sizeof pipeline);
    compile_text(c, streams,
                 "from \"models/qwen3_moe\" import qwen3_moe\n"
                 "from \"schedules\" import gpipe, one_f_one_b, interleaved_1f1b, zerobubble, "
                 "dualpipev, loop_stages, v_stages\n"
                 "train qwen3_moe(tokens(8, 16), targets(), stages=%u, layers=4, dim=32, heads=2, "
                 "kv_heads=1, head_dim=16, experts=8, top_k=2, expert_hidden=24, vocab=80) "
                 "optimizer adamw(lr=1e-3)\n%s",
                 2 * s->per_rank, pipeline);
}

/* ---- Tests -------------------------------------------------------------------------------------
 */

/* `warm`: steps before counting begins. */
static void check_growth(const compiled *c, const exec_paced_costs *paced, const cpu_blas *blas,
                         uint64_t warm)
{
    growth g = {.first_step = warm};
    rank_threads run = {.compiled = c,
                        .steps = warm + 4,
                        .paced = paced,
                        .blas = blas,
                        .watch = {.ud = &g, .loop = on_loop}};
    uint64_t seen = atomic_load(&n_seen_at_all);
    atomic_store(&n_allocations, 0);
    rank_threads_run(&run);
    assert_true(atomic_load(&n_seen_at_all) > seen); /* the counter works */
    assert_int_equal(atomic_load(&n_allocations), 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they map as they like */
    assert_true(g.before > 0);
    if (!blas) /* it maps a buffer for each rank that ever computed beside others */
        assert_true(g.after <= g.before);
#endif
}

static void test_allocations(void **state)
{
    (void)state;
    start_counting();
    const exec_paced_costs costs = {.unit_ns = 1e5, .comm_ratio = 0.5};
    cpu_blas blas;
    char reason[256];
    bool has_blas = cpu_blas_open(&blas, reason) == PPS_OK;
    for (uint32_t s = 0; s < N_SCHEDULES; s++) {
        compiled c;
        compile_moe(&c, s, 0, "\"pp\"");
        check_growth(&c, NULL, NULL, 0);
        check_growth(&c, &costs, NULL, 0);
        if (has_blas)
            check_growth(&c, NULL, &blas, 1);
        compiled_close(&c);
    }
    if (has_blas)
        cpu_blas_close(&blas);
    else
        print_message("without OpenBLAS: %s\n", reason);
}

static void test_streams(void **state)
{
    (void)state;
    for (uint32_t s = 0; s < N_SCHEDULES; s++) {
        char first[65] = "";
        for (uint32_t streams = 0; streams <= 4; streams++) {
            compiled c;
            bool own = streams == 4; /* a stream per stage, whose transfers cross the streams */
            compile_moe(&c, s, own ? 0 : streams, own ? "f\"stage{s}\"" : "\"pp\"");
            if (own) /* compute, dp, ep, one per stage, and ways back */
                assert_true(c.set->n_streams > 3 + 2 * schedule_cases[s].per_rank);
            else /* compute, pp and its way back, dp, ep */
                assert_int_equal(c.set->n_streams, streams ? streams : 5);
            rank_threads run = {.compiled = &c, .steps = 3};
            rank_threads_run(&run);
            if (streams == 0)
                memcpy(first, run.sha256, sizeof first);
            assert_string_equal(run.sha256, first);
            compiled_close(&c);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
