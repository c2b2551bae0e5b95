/* SPDX-License-Identifier: Apache-2.0
 *
 * test_filter.c: filters are interned whatever their spelling, ops are immediates where they can
 * be,
 * `&` meets, contradictions are errors, groups are flat and rows hold nothing but groups.
 */
#include <stdio.h>
#include <string.h>
#include "fake_state.h"

static fake_state f;
static pps_state *st;

static int open_state(void **unused)
{
    (void)unused;
    fake_open(&f, 0, 0);
    st = &f.st;
    return 0;
}

static int close_state(void **unused)
{
    (void)unused;
    fake_close(&f);
    return 0;
}

static value pass(pps_pass p)
{
    return value_make(PPS_PASS, (uint64_t)p);
}

static value build1(const char *tag, value v)
{
    value made;
    const char *tags[] = {pps_intern(st, tag)};
    assert_int_equal(filter_build(st, 1, tags, NULL, &v, &made), PPS_OK);
    return made;
}

static value both(value a, value b)
{
    value made;
    assert_int_equal(filter_and(st, a, b, &made), PPS_OK);
    return made;
}

static value op(pps_pass p, int64_t stage, int64_t mb)
{
    value made;
    assert_int_equal(filter_op(st, p, stage, mb, 0, NULL, NULL, &made), PPS_OK);
    return made;
}

static value span_of_ints(int64_t begin, int64_t end)
{
    value r;
    assert_int_equal(range_new(st, begin, end, 1, &r), PPS_OK);
    return r;
}

static void equal_filters_are_one_object(void **unused)
{
    (void)unused;
    value a = build1("PP", span_of_ints(0, 3));
    value b = build1("PP", fake_ints(st, 4, (int64_t[]){2, 0, 1, 2}));
    assert_int_equal(pps_typeof(a), PPS_FILTER);
    assert_ptr_equal(a.as.ptr, b.as.ptr);
    value c = both(build1("EP", fake_string(st, "*")), a);
    value d = both(b, build1("EP", fake_string(st, "*")));
    assert_ptr_equal(c.as.ptr, d.as.ptr);
    assert_string_equal(fake_repr(st, c), "{PP: 0..3, EP: *}");
    assert_ptr_not_equal(a.as.ptr, build1("PP", pps_int(0)).as.ptr);
    for (int i = 0; i < 300; i++) /* the table grows */
        build1("PP", pps_int(i));
    assert_ptr_equal(a.as.ptr, build1("PP", span_of_ints(0, 3)).as.ptr);
}

static void unreached_filters_are_forgotten(void **unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++)
        build1("PP", pps_int(i));
    f.roots[f.n_roots++] = build1("PP", pps_int(7));
    heap_collect(st);
    assert_int_equal(st->filters.n, 1);
    assert_ptr_equal(build1("PP", pps_int(7)).as.ptr, f.roots[0].as.ptr);
    assert_string_equal(fake_repr(st, build1("PP", pps_int(8))), "{PP: 8}");
}

static void filters_print_as_written(void **unused)
{
    (void)unused;
    value pp0 = build1("PP", pps_int(0)), f_pass = build1("PASS", pass(PPS_PASS_F));
    assert_string_equal(fake_repr(st, both(f_pass, pp0)), "{PP: 0, PASS: F}");
    assert_string_equal(fake_repr(st, build1("MB", fake_string(st, "-"))), "{MB: -}");
    assert_string_equal(fake_repr(st, build1("PP", fake_ints(st, 2, (int64_t[]){3, 0}))),
                        "{PP: [0, 3]}");
    assert_string_equal(fake_repr(st, build1("COMM", fake_string(st, "SEND"))), "{COMM: SEND}");
    assert_string_equal(fake_repr(st, op(PPS_PASS_BW, 2, 5)), "BW(2, 5)");
    value with_dir, one = pps_int(1);
    const char *dir[] = {pps_intern(st, "DIR")};
    assert_int_equal(filter_op(st, PPS_PASS_F, 0, 1, 1, dir, &one, &with_dir), PPS_OK);
    assert_int_equal(pps_typeof(with_dir), PPS_FILTER);
    assert_string_equal(fake_repr(st, with_dir), "F(0, 1, DIR=1)");
    value send = build1("COMM", fake_string(st, "SEND"));
    assert_string_equal(fake_repr(st, both(with_dir, send)), "SEND(F(0, 1, DIR=1))");
    assert_string_equal(fake_repr(st, both(op(PPS_PASS_F, 0, 1), send)), "SEND(F(0, 1))");
    value none;
    assert_int_equal(filter_new(st, NULL, 0, NULL, 0, &none), PPS_OK);
    assert_string_equal(fake_repr(st, none), "{}");
}

static void a_filter_that_names_one_op_is_that_op(void **unused)
{
    (void)unused;
    value v = both(build1("PP", pps_int(3)), build1("PASS", pass(PPS_PASS_B)));
    v = both(v, build1("MB", pps_int(4)));
    assert_int_equal(pps_typeof(v), PPS_OP);
    assert_int_equal(v.as.bits, op(PPS_PASS_B, 3, 4).as.bits);
    pps_term terms[PPS_MAX_TERMS];
    int64_t scratch[2];
    assert_int_equal(pps_filter_terms(st, v, terms, scratch), 3);
    assert_string_equal(terms[0].tag, "MB");
    assert_int_equal(terms[0].ints[0], 4);
    assert_int_equal(terms[1].pass, PPS_PASS_B);
    assert_int_equal(terms[2].ints[0], 3);
    assert_int_equal(pps_filter_terms(st, pps_int(1), terms, scratch), -1);
}

static void and_meets_or_complains(void **unused)
{
    (void)unused;
    value v, a = build1("PP", span_of_ints(0, 4)), b = build1("PP", span_of_ints(2, 6));
    assert_string_equal(fake_repr(st, both(a, b)), "{PP: 2..4}");
    assert_ptr_equal(both(a, build1("PP", fake_string(st, "*"))).as.ptr, a.as.ptr);
    assert_ptr_equal(both(a, a).as.ptr, a.as.ptr);
    value empty;
    assert_int_equal(map_new(st, &empty), PPS_OK);
    assert_ptr_equal(both(empty, a).as.ptr, a.as.ptr);
    assert_int_equal(filter_and(st, a, build1("PP", pps_int(9)), &v), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 307);
    assert_int_equal(filter_and(st, a, build1("PP", fake_string(st, "-")), &v), PPS_ERR_SCRIPT);
    assert_int_equal(
        filter_and(st, build1("PASS", pass(PPS_PASS_B)), build1("PASS", pass(PPS_PASS_BI)), &v),
        PPS_ERR_SCRIPT);
    assert_int_equal(filter_and(st, a, pps_int(1), &v), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 304);
}

static void bad_filters_are_refused(void **unused)
{
    (void)unused;
    value v, bad[] = {pps_int(-1), span_of_ints(3, 3), span_of_ints(0, 1ll << 40)};
    const char *pp = st->tags.pp, *twice[] = {pp, pp};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(filter_build(st, 1, &pp, NULL, &bad[i], &v), PPS_ERR_SCRIPT);
        assert_int_equal(f.code, 307);
    }
    value two[] = {pps_int(0), pps_int(1)}, real = pps_float(1), word = fake_string(st, "x");
    assert_int_equal(filter_build(st, 2, twice, NULL, two, &v), PPS_ERR_SCRIPT);
    assert_string_equal(f.title, "tag PP is given twice");
    assert_int_equal(filter_build(st, 1, &pp, NULL, &real, &v), PPS_ERR_SCRIPT);
    assert_string_equal(f.help, "`int(x)` gives the int");
    assert_int_equal(filter_build(st, 1, &pp, NULL, &word, &v), PPS_ERR_SCRIPT);
    assert_int_equal(filter_build(st, 1, &st->tags.pass, NULL, &two[0], &v), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 304);
    assert_int_equal(filter_op(st, PPS_PASS_F, -1, 0, 0, NULL, NULL, &v), PPS_ERR_SCRIPT);
    assert_int_equal(filter_op(st, PPS_PASS_F, 1 << 24, 0, 0, NULL, NULL, &v), PPS_ERR_SCRIPT);
    assert_int_equal(filter_op(st, PPS_PASS_F, 0, 1ll << 32, 0, NULL, NULL, &v), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 307);
    assert_int_equal(filter_op(st, PPS_PASS_F, 0, 0, 1, &pp, two, &v), PPS_ERR_SCRIPT);
    assert_string_equal(f.title, "tag PP is given twice");
}

static void groups_are_flat_and_rows_are_lists(void **unused)
{
    (void)unused;
    value a = op(PPS_PASS_F, 1, 1), b = op(PPS_PASS_B, 1, 0), c = op(PPS_PASS_F, 1, 2), ab, abc, r;
    assert_int_equal(group_or(st, a, b, &ab), PPS_OK);
    assert_int_equal(group_or(st, ab, c, &abc), PPS_OK);
    assert_string_equal(fake_repr(st, abc), "F(1, 1) | B(1, 0) | F(1, 2)");
    assert_int_equal(row_arrow(st, a, ab, &r), PPS_OK);
    assert_int_equal(row_arrow(st, r, r, &r), PPS_OK);
    assert_string_equal(fake_repr(st, r),
                        "[F(1, 1), F(1, 1) | B(1, 0), F(1, 1), F(1, 1) | B(1, 0)]");
    assert_int_equal(row_append(st, r.as.ptr, r), PPS_OK); /* itself */
    assert_int_equal(((list *)r.as.ptr)->n, 8);
    assert_int_equal(group_or(st, a, r, &ab), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 304);
    assert_int_equal(row_arrow(st, a, pass(PPS_PASS_F), &r), PPS_ERR_SCRIPT);
    assert_string_equal(f.help, "name a stage and a microbatch: `F(s, m)`");
    assert_int_equal(row_arrow(st, a, fake_ints(st, 1, (int64_t[]){1}), &r), PPS_ERR_SCRIPT);
    assert_string_equal(f.title, "`->` joins ops, groups and rows, this is an int");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(equal_filters_are_one_object, open_state, close_state),
        cmocka_unit_test_setup_teardown(unreached_filters_are_forgotten, open_state, close_state),
        cmocka_unit_test_setup_teardown(filters_print_as_written, open_state, close_state),
        cmocka_unit_test_setup_teardown(a_filter_that_names_one_op_is_that_op, open_state,
                                        close_state),
        cmocka_unit_test_setup_teardown(and_meets_or_complains, open_state, close_state),
        cmocka_unit_test_setup_teardown(bad_filters_are_refused, open_state, close_state),
        cmocka_unit_test_setup_teardown(groups_are_flat_and_rows_are_lists, open_state,
                                        close_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
