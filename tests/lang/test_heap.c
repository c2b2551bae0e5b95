/* SPDX-License-Identifier: Apache-2.0
 *
 * test_heap.c: counted allocation, marking and sweeping, limits, and every single allocation
 * failing.
 */
#include <stdio.h>
#include <string.h>
#include "fake_state.h"

static void unreached_objects_go(void **unused)
{
    (void)unused;
    fake_state f;
    fake_open(&f, 0, 0);
    pps_state *st = &f.st;
    value kept, inner, lost, m;
    assert_int_equal(list_new(st, 0, &kept), PPS_OK);
    assert_int_equal(list_new(st, 3, &inner), PPS_OK);
    assert_int_equal(list_new(st, 100, &lost), PPS_OK);
    assert_int_equal(map_new(st, &m), PPS_OK);
    value inside = fake_string(st, "a value in a map in a list");
    assert_int_equal(map_set(st, m.as.ptr, fake_string(st, "key"), inside), PPS_OK);
    assert_int_equal(list_push(st, kept.as.ptr, inner), PPS_OK);
    assert_int_equal(list_push(st, kept.as.ptr, m), PPS_OK);
    assert_int_equal(list_push(st, inner.as.ptr, kept), PPS_OK); /* a cycle */
    f.roots[f.n_roots++] = kept;
    f.roots[f.n_roots++] = lost;
    heap_collect(st); /* takes its mark stack */
    size_t before = st->heap.bytes;
    f.n_roots--;
    heap_collect(st);
    assert_int_equal(before - st->heap.bytes, sizeof(list) + 100 * sizeof(value));
    assert_string_equal(fake_repr(st, inside), "\"a value in a map in a list\"");
    f.n_roots = 0;
    heap_collect(st);
    assert_null(st->heap.all);
    fake_close(&f);
}

static void protected_values_stay(void **unused)
{
    (void)unused;
    fake_state f;
    fake_open(&f, 0, 0);
    pps_state *st = &f.st;
    for (int i = 0; i < 40; i++)
        assert_int_equal(heap_protect(st, fake_string(st, "kept")), PPS_OK);
    heap_collect(st);
    size_t n = 0;
    for (object *o = st->heap.all; o; o = o->next_all)
        n++;
    assert_int_equal(n, 40);
    heap_unprotect(st, 40);
    heap_collect(st);
    assert_null(st->heap.all);
    fake_close(&f);
}

/* A list in a list in a list ...: marking must not follow it on the C stack. */
static value nested(pps_state *st, size_t depth)
{
    value outer, v;
    assert_int_equal(list_new(st, 1, &outer), PPS_OK);
    for (size_t i = 0; i < depth; i++) {
        assert_int_equal(list_new(st, 1, &v), PPS_OK);
        assert_int_equal(list_push(st, v.as.ptr, outer), PPS_OK);
        outer = v;
    }
    return outer;
}

static void deep_nesting_is_marked(void **unused)
{
    (void)unused;
    fake_state f;
    fake_open(&f, 0, 0);
    pps_state *st = &f.st;
    f.roots[f.n_roots++] = nested(st, 200000);
    size_t before = st->heap.bytes;
    heap_collect(st);
    assert_true(st->heap.bytes >= before);
    bool same;
    value other = nested(st, 200000);
    assert_int_equal(value_equal(st, f.roots[0], other, &same), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 801);
    fake_close(&f);
}

/* The mark stack cannot grow: objects are found by walking all of them instead. */
static void marking_survives_no_memory(void **unused)
{
    (void)unused;
    for (size_t fail_at = 1; fail_at <= 4; fail_at++) {
        fake_state f;
        fake_open(&f, 0, 0);
        pps_state *st = &f.st;
        value all;
        assert_int_equal(list_new(st, 0, &all), PPS_OK);
        for (int i = 0; i < 3000; i++)
            assert_int_equal(list_push(st, all.as.ptr, nested(st, 1)), PPS_OK);
        f.roots[f.n_roots++] = all;
        size_t before = st->heap.bytes;
        f.n_allocs = 0;
        f.fail_at = fail_at;
        heap_collect(st);
        size_t stack = st->heap.cap_gray * sizeof(object *);
        assert_int_equal(st->heap.bytes - stack, before);
        list *l = all.as.ptr;
        for (size_t i = 0; i < l->n; i++)
            assert_int_equal(((list *)l->items[i].as.ptr)->n, 1);
        fake_close(&f);
    }
}

static void the_limit_holds(void **unused)
{
    (void)unused;
    fake_state f;
    fake_open(&f, 100000, 0);
    pps_state *st = &f.st;
    value v;
    pps_status status = PPS_OK;
    assert_int_equal(list_new(st, 0, &v), PPS_OK);
    while (status == PPS_OK)
        status = list_push(st, v.as.ptr, pps_nil());
    assert_int_equal(status, PPS_ERR_LIMIT);
    assert_int_equal(f.code, 803);
    assert_true(st->heap.peak_bytes <= 100000);
    size_t n = ((list *)v.as.ptr)->n;
    assert_int_equal(((list *)v.as.ptr)->cap, n); /* as it was before the refused growth */
    assert_int_equal(list_reserve(st, v.as.ptr, SIZE_MAX), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 312);
    assert_true(heap_wants_collection(st));
    heap_collect(st);
    assert_false(heap_wants_collection(st));
    fake_close(&f);
}

static void nothing_is_collected_early(void **unused)
{
    (void)unused;
    fake_state f;
    fake_open(&f, 0, 0);
    pps_state *st = &f.st;
    value v;
    assert_int_equal(list_new(st, 1 << 20, &v), PPS_OK); /* 16 MiB */
    assert_false(heap_wants_collection(st));
    assert_int_equal(list_new(st, 1 << 20, &v), PPS_OK);
    assert_true(heap_wants_collection(st));
    f.roots[f.n_roots++] = v;
    heap_collect(st);
    assert_false(heap_wants_collection(st));
    fake_close(&f);
}

/* A bit of everything that allocates. Ends at the first failure, as the interpreter does. */
static pps_status work(pps_state *st)
{
    value l, m, v, key, row;
    PPS_TRY(list_new(st, 0, &l));
    PPS_TRY(heap_protect(st, l));
    for (int i = 0; i < 20; i++)
        PPS_TRY(list_push(st, l.as.ptr, pps_int(i * 7 % 20)));
    PPS_TRY(list_extend(st, l.as.ptr, l));
    PPS_TRY(map_new(st, &m));
    PPS_TRY(heap_protect(st, m));
    for (int i = 0; i < 20; i++) {
        PPS_TRY(string_new(st, "k\0\1\2\3\4\5\6\7" + i % 8, 2, &key));
        PPS_TRY(map_set(st, m.as.ptr, key, l));
        PPS_TRY(map_set(st, m.as.ptr, pps_int(i), key));
    }
    heap_collect(st);
    const char *tags[] = {st->tags.pp, st->tags.pass};
    PPS_TRY(range_new(st, 0, 40, 1, &v));
    value vals[] = {v, value_make(PPS_PASS, PPS_PASS_B)};
    PPS_TRY(filter_build(st, 2, tags, NULL, vals, &v));
    PPS_TRY(filter_and(st, v, pps_op(3, 1, PPS_PASS_B, PPS_COMM_NONE), &v));
    PPS_TRY(group_or(st, v, v, &v));
    PPS_TRY(row_arrow(st, v, v, &row));
    PPS_TRY(value_concat(st, row, l, &row));
    text t;
    text_init(&t, st);
    text_repr(&t, m);
    text_repr(&t, row);
    return text_string(&t, &v);
}

static void each_allocation_may_fail(void **unused)
{
    (void)unused;
    size_t n = 1;
    for (;; n++) {
        fake_state f;
        fake_open(&f, 0, n);
        pps_status status = work(&f.st);
        heap_unprotect(&f.st, f.st.heap.n_protected);
        if (status == PPS_OK) { /* the collector's own stack may fail unnoticed */
            bool all = f.n_allocs < n;
            fake_close(&f);
            if (all)
                break;
            continue;
        }
        assert_int_equal(status, PPS_ERR_NOMEM);
        assert_int_equal(f.code, 804);
        assert_int_equal(f.n_errors, 1);
        fake_close(&f);
    }
    assert_true(n > 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unreached_objects_go),     cmocka_unit_test(protected_values_stay),
        cmocka_unit_test(deep_nesting_is_marked),   cmocka_unit_test(marking_survives_no_memory),
        cmocka_unit_test(the_limit_holds),          cmocka_unit_test(nothing_is_collected_early),
        cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
