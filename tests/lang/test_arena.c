/* SPDX-License-Identifier: Apache-2.0
 *
 * test_arena.c: arenas, interning, sources and their places.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "front_state.h"

static void small_and_large_requests_do_not_overlap(void **state)
{
    (void)state;
    arena a;
    unsigned char *parts[200];
    arena_init(&a, NULL, NULL);
    for (size_t i = 0; i < 200; i++) {
        size_t bytes = i % 7 == 0 ? 5000 * i : 3 * i;
        parts[i] = arena_new(&a, bytes);
        assert_non_null(parts[i]);
        assert_int_equal((uintptr_t)parts[i] % 16, 0);
        memset(parts[i], (int)i, bytes);
    }
    for (size_t i = 1; i < 200; i++)
        for (size_t k = 0; k < (i % 7 == 0 ? 5000 * i : 3 * i); k++)
            assert_int_equal(parts[i][k], i);
    arena_done(&a);
    assert_int_equal(a.bytes, 0);
}

static void reset_keeps_one_block(void **state)
{
    (void)state;
    arena a;
    arena_init(&a, NULL, NULL);
    for (int i = 0; i < 10000; i++)
        assert_non_null(arena_new(&a, 100));
    size_t all = a.bytes;
    arena_reset(&a);
    assert_true(a.bytes < all && a.bytes > 0);
    size_t one = a.bytes;
    char *zeroed = arena_zero(&a, 64);
    for (int i = 0; i < 64; i++)
        assert_int_equal(zeroed[i], 0);
    assert_int_equal(a.bytes, one);
    assert_string_equal(arena_copy(&a, "copy me", 4), "copy");
    assert_null(arena_new(&a, SIZE_MAX));
    assert_null(arena_copy(&a, "", SIZE_MAX));
    arena_done(&a);
}

/* What one arena gives up serves the next, if it fits well; never is more kept than was in use. */
static void large_blocks_are_used_again(void **state)
{
    enum { LARGE = 8 << 20 };
    arena_spares spares = {0};
    arena a, b;
    (void)state;
    arena_init(&a, NULL, NULL);
    arena_init(&b, NULL, NULL);
    arena_recycle(&a, &spares);
    arena_recycle(&b, &spares);
    char *first = arena_new(&a, LARGE), *second = arena_new(&a, 2 * LARGE);
    assert_true(first != NULL && second != NULL);
    memset(first, 1, LARGE);
    memset(second, 2, 2 * LARGE);
    assert_true(spares.bytes == 0 && spares.used > 3 * LARGE);
    size_t most = spares.used;
    arena_done(&a);
    assert_true(spares.bytes == most && spares.used == 0);
    char *zero = arena_zero(&b, LARGE - 1000);
    assert_ptr_equal(zero, first);
    for (size_t i = 0; i < LARGE - 1000; i++)
        assert_int_equal(zero[i], 0);
    assert_true(spares.bytes < most && spares.bytes >= 2 * LARGE);
    assert_non_null(arena_new(&b, 3 * LARGE / 2 - 1000)); /* the second would do, and is taken */
    assert_int_equal(spares.bytes, 0);
    arena_done(&b);
    assert_non_null(arena_new(&a, 4 * LARGE)); /* new: what is spare gives way */
    assert_int_equal(spares.bytes, 0);
    arena_done(&a);
    assert_int_equal(spares.used, 0);
    arena_spares_done(&spares);
    assert_int_equal(spares.bytes, 0);
    assert_null(spares.blocks);
}

static void failing_allocator_is_no_crash(void **state)
{
    (void)state;
    for (size_t fail_at = 1; fail_at < 30; fail_at++) {
        front_state f;
        if (front_open(&f, fail_at)) {
            char name[32];
            for (int i = 0; i < 2000; i++) {
                snprintf(name, sizeof name, "name%d", i % 1000);
                const char *once = pps_intern(&f.st, name), *twice = pps_intern(&f.st, name);
                if (once != NULL && twice != NULL)
                    assert_ptr_equal(once, twice);
            }
        }
        front_close(&f);
    }
}

static void interning_gives_one_pointer(void **state)
{
    (void)state;
    arena a;
    intern_table t;
    const char *first[3000];
    char name[32];
    arena_init(&a, NULL, NULL);
    intern_init(&t, &a);
    for (int i = 0; i < 3000; i++) {
        int n = snprintf(name, sizeof name, "n%d", i);
        first[i] = intern(&t, name, (size_t)n);
    }
    for (int i = 0; i < 3000; i++) {
        int n = snprintf(name, sizeof name, "n%d and more", i);
        assert_ptr_equal(intern(&t, name, (size_t)(n - 9)), first[i]);
        assert_int_equal(strlen(first[i]), n - 9);
    }
    assert_int_equal(t.n, 3000);
    intern_done(&t);
    arena_done(&a);
}

static void assert_place(front_state *f, uint32_t file, uint32_t offset, uint32_t line,
                         uint32_t column)
{
    const char *name;
    uint32_t got_line, got_column;
    pps_span_place(&f->st, (pps_span){file, offset, offset}, &name, &got_line, &got_column);
    assert_string_equal(name, "a.pps");
    assert_int_equal(got_line, line);
    assert_int_equal(got_column, column);
}

static void places_count_code_points(void **state)
{
    (void)state;
    static const char source[] = "\xef\xbb\xbf"
                                 "ab\n\nh\xc3\xa9llo\r\n\tx";
    front_state f;
    uint32_t file, line, begin, end;
    assert_true(front_open(&f, 0));
    assert_int_equal(source_add(&f.st, "a.pps", source, sizeof source - 1, &file), PPS_OK);
    assert_int_equal(file, 1);
    assert_int_equal(source_get(&f.st, file)->text[0], 'a'); /* no byte order mark */
    assert_place(&f, file, 0, 1, 1);
    assert_place(&f, file, 2, 1, 3);
    assert_place(&f, file, 3, 2, 1);
    assert_place(&f, file, 7, 3, 3); /* behind the two bytes of e acute */
    assert_place(&f, file, 13, 4, 2);
    assert_place(&f, file, 999, 4, 3);
    source_line(&f.st, file, 5, &line, &begin, &end);
    assert_int_equal(line, 3);
    assert_int_equal(begin, 4);
    assert_int_equal(end, 11);
    assert_null(source_get(&f.st, 0));
    assert_null(source_get(&f.st, 2));
    front_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_and_large_requests_do_not_overlap),
        cmocka_unit_test(reset_keeps_one_block),
        cmocka_unit_test(large_blocks_are_used_again),
        cmocka_unit_test(failing_allocator_is_no_crash),
        cmocka_unit_test(interning_gives_one_pointer),
        cmocka_unit_test(places_count_code_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
