/* SPDX-License-Identifier: Apache-2.0
 *
 * test_text.c: floats read back from as few digits as needed, values print as source, cycles end;
 * and what belongs to text: UTF-8, order, equality and hashes of values, indexing and slices.
 */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
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

static void floats_are_short(void **unused)
{
    (void)unused;
    static const struct {
        double f;
        const char *shown;
    } cases[] = {
        {0.0, "0.0"},
        {-0.0, "-0.0"},
        {1.0, "1.0"},
        {0.1, "0.1"},
        {1.0 / 3, "0.3333333333333333"},
        {-2.5, "-2.5"},
        {100.0, "100.0"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e16"},
        {1.5e300, "1.5e300"},
        {0.00001, "0.00001"},
        {0.000001, "1e-6"},
        {123456.789, "123456.789"},
        {5e-324, "5e-324"},
        {1.7976931348623157e308, "1.7976931348623157e308"},
        {0.1 + 0.2, "0.30000000000000004"},
        {INFINITY, "inf"},
        {-INFINITY, "-inf"},
        {NAN, "nan"},
    };
    char shown[32];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(value_float_text(cases[i].f, shown), strlen(cases[i].shown));
        assert_string_equal(shown, cases[i].shown);
    }
}

static void floats_read_back(void **unused)
{
    (void)unused;
    uint64_t x = 88172645463325252u;
    char shown[32];
    for (int i = 0; i < 20000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        double d;
        memcpy(&d, &x, sizeof(d));
        if (!isfinite(d))
            continue;
        assert_true(value_float_text(d, shown) < 32);
        assert_true(strtod(shown, NULL) == d);
        assert_non_null(strpbrk(shown, ".e"));
    }
}

static void floats_ignore_the_locale(void **unused)
{
    (void)unused;
    char shown[32];
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8")) {
        print_message("the machine has no locale with a decimal comma\n");
        skip();
    }
    value_float_text(1234.5, shown);
    setlocale(LC_NUMERIC, "C");
    assert_string_equal(shown, "1234.5");
}

static void values_print_as_source(void **unused)
{
    (void)unused;
    value l = fake_ints(st, 2, (int64_t[]){1, -2}), m, r;
    assert_int_equal(map_new(st, &m), PPS_OK);
    assert_int_equal(range_new(st, 0, 4, 1, &r), PPS_OK);
    assert_int_equal(map_set(st, m.as.ptr, r, l), PPS_OK);
    assert_int_equal(map_set(st, m.as.ptr, pps_op(0, 1, PPS_PASS_F, PPS_COMM_SEND), pps_nil()),
                     PPS_OK);
    assert_int_equal(list_push(st, l.as.ptr, pps_bool(true)), PPS_OK);
    assert_int_equal(list_push(st, l.as.ptr, fake_string(st, "a\"\\\n\t\1é")), PPS_OK);
    assert_string_equal(fake_repr(st, m), "{(0..4): [1, -2, true, \"a\\\"\\\\\\n\\t\\x01é\"], "
                                          "(SEND(F(0, 1))): nil}");
    assert_int_equal(range_new(st, 9, 0, -2, &r), PPS_OK);
    assert_string_equal(fake_repr(st, r), "range(9, 0, -2)");
    assert_string_equal(fake_repr(st, pps_int(INT64_MIN)), "(-9223372036854775807 - 1)");
    assert_string_equal(fake_repr(st, pps_float(-INFINITY)), "float(\"-inf\")");
    assert_string_equal(fake_repr(st, value_make(PPS_STREAM, 0)), "stream(\"pp\")");
    text t;
    text_init(&t, st);
    text_display(&t, fake_string(st, "bare "));
    text_display(&t, pps_float(2));
    char *bytes;
    size_t n;
    assert_int_equal(text_take(&t, &bytes, &n), PPS_OK);
    assert_string_equal(bytes, "bare 2.0");
    heap_free(st, bytes, n + 1);
}

static void cycles_end(void **unused)
{
    (void)unused;
    value l = fake_ints(st, 1, (int64_t[]){1}), m;
    assert_int_equal(map_new(st, &m), PPS_OK);
    assert_int_equal(map_set(st, m.as.ptr, pps_int(0), l), PPS_OK);
    assert_int_equal(list_push(st, l.as.ptr, m), PPS_OK);
    assert_int_equal(list_push(st, l.as.ptr, l), PPS_OK);
    assert_string_equal(fake_repr(st, l), "[1, {0: [...]}, [...]]");
    value other = fake_ints(st, 1, (int64_t[]){1});
    assert_int_equal(list_push(st, other.as.ptr, m), PPS_OK);
    assert_int_equal(list_push(st, other.as.ptr, other), PPS_OK);
    bool same;
    int order;
    assert_int_equal(value_equal(st, l, other, &same), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 801);
    assert_int_equal(value_equal(st, l, l, &same), PPS_OK);
    assert_true(same);
    assert_int_equal(value_compare(st, l, other, &order), PPS_ERR_SCRIPT); /* maps have no order */
}

static bool equal(value a, value b)
{
    bool same;
    assert_int_equal(value_equal(st, a, b, &same), PPS_OK);
    return same;
}

static int order(value a, value b)
{
    int o;
    assert_int_equal(value_compare(st, a, b, &o), PPS_OK);
    return o;
}

static void ints_and_floats_compare_exactly(void **unused)
{
    (void)unused;
    int64_t big = (1ll << 53) + 1;
    assert_true(equal(pps_int(1), pps_float(1)));
    assert_false(equal(pps_int(big), pps_float(0x1p53)));
    assert_false(equal(pps_int(INT64_MAX), pps_float(0x1p63)));
    assert_true(equal(pps_int(INT64_MIN), pps_float(-0x1p63)));
    assert_false(equal(pps_bool(true), pps_int(1)));
    assert_false(equal(pps_float(NAN), pps_float(NAN)));
    assert_int_equal(order(pps_int(big), pps_float(0x1p53)), 1);
    assert_int_equal(order(pps_float(0x1p63), pps_int(INT64_MAX)), 1);
    assert_int_equal(order(pps_int(-1), pps_float(-0.5)), -1);
    assert_int_equal(order(pps_int(0), pps_float(-0.5)), 1);
    assert_int_equal(order(pps_int(3), pps_float(NAN)), -1);
    assert_int_equal(order(pps_float(NAN), pps_float(INFINITY)), 1);
    assert_int_equal(order(fake_ints(st, 2, (int64_t[]){1, 2}), fake_ints(st, 1, (int64_t[]){1})),
                     1);
    assert_int_equal(order(fake_string(st, "ab"), fake_string(st, "b")), -1);
    assert_int_equal(order(fake_string(st, "é"), fake_string(st, "z")), 1);
    uint32_t a, b;
    assert_int_equal(value_hash(st, pps_int(-7), &a), PPS_OK);
    assert_int_equal(value_hash(st, pps_float(-7), &b), PPS_OK);
    assert_int_equal(a, b);
    int o;
    assert_int_equal(value_compare(st, pps_int(1), fake_string(st, "1"), &o), PPS_ERR_SCRIPT);
    assert_string_equal(f.title, "an int and a string cannot be ordered");
}

static void utf8_is_checked(void **unused)
{
    (void)unused;
    assert_true(string_is_utf8("aé€😀", strlen("aé€😀")));
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc3",
                                      "\xe0\x80\x80",
                                      "\xed\xa0\x80",
                                      "\xf0\x80\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf8\x88\x80\x80\x80",
                                      "a\xff"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(string_is_utf8(bad[i], strlen(bad[i])));
}

static const char *slice(value c, value begin, value end)
{
    value v;
    assert_int_equal(value_slice(st, c, begin, end, &v), PPS_OK);
    return fake_repr(st, v);
}

static void elements_and_slices(void **unused)
{
    (void)unused;
    value s = fake_string(st, "aé€z"), v, l = fake_ints(st, 3, (int64_t[]){5, 6, 7}), r;
    value nil = pps_nil();
    assert_int_equal(value_index(st, s, pps_int(2), &v), PPS_OK);
    assert_string_equal(fake_repr(st, v), "\"€\"");
    assert_int_equal(value_index(st, s, pps_int(-1), &v), PPS_OK);
    assert_string_equal(fake_repr(st, v), "\"z\"");
    assert_string_equal(slice(s, pps_int(1), pps_int(3)), "\"é€\"");
    assert_string_equal(slice(s, pps_int(-2), nil), "\"€z\"");
    assert_string_equal(slice(l, nil, pps_int(-1)), "[5, 6]");
    assert_string_equal(slice(l, pps_int(2), pps_int(1)), "[]");
    assert_string_equal(slice(l, pps_int(-100), pps_int(100)), "[5, 6, 7]");
    assert_int_equal(range_new(st, 0, 10, 3, &r), PPS_OK);
    assert_string_equal(slice(r, pps_int(1), nil), "range(3, 10, 3)");
    assert_int_equal(value_index(st, l, pps_int(3), &v), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 310);
    assert_string_equal(f.title, "index 3 is out of range: this list has 3 elements");
    assert_int_equal(value_index(st, l, pps_int(INT64_MIN), &v), PPS_ERR_SCRIPT);
    assert_int_equal(value_index(st, l, pps_float(1), &v), PPS_ERR_SCRIPT);
    assert_string_equal(f.title, "the index of a list must be an int, this is a float");
    assert_string_equal(f.help, "`int(x)` gives the int");
    bool in;
    assert_int_equal(value_contains(st, r, pps_int(9), &in), PPS_OK);
    assert_true(in);
    assert_int_equal(value_contains(st, r, pps_int(10), &in), PPS_OK);
    assert_false(in);
    assert_int_equal(value_contains(st, s, fake_string(st, "é€"), &in), PPS_OK);
    assert_true(in);
    assert_int_equal(value_repeat(st, l, INT64_MAX, &v), PPS_ERR_SCRIPT);
    assert_int_equal(value_repeat(st, s, 2, &v), PPS_OK);
    assert_string_equal(fake_repr(st, v), "\"aé€zaé€z\"");
}

static void ranges_count_to_the_ends(void **unused)
{
    (void)unused;
    static const struct {
        int64_t begin, end, step;
        size_t n;
    } cases[] = {
        {0, 0, 1, 0},
        {0, 5, 2, 3},
        {5, 0, -2, 3},
        {5, 0, 1, 0},
        {0, 5, -1, 0},
        {INT64_MIN, INT64_MAX, 1, SIZE_MAX},
        {INT64_MAX, INT64_MIN, INT64_MIN, 2},
        {INT64_MIN, INT64_MAX, INT64_MAX, 3},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        range r = {.begin = cases[i].begin, .end = cases[i].end, .step = cases[i].step};
        assert_int_equal(range_count(&r), cases[i].n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(floats_are_short, open_state, close_state),
        cmocka_unit_test_setup_teardown(floats_read_back, open_state, close_state),
        cmocka_unit_test_setup_teardown(floats_ignore_the_locale, open_state, close_state),
        cmocka_unit_test_setup_teardown(values_print_as_source, open_state, close_state),
        cmocka_unit_test_setup_teardown(cycles_end, open_state, close_state),
        cmocka_unit_test_setup_teardown(ints_and_floats_compare_exactly, open_state, close_state),
        cmocka_unit_test_setup_teardown(utf8_is_checked, open_state, close_state),
        cmocka_unit_test_setup_teardown(elements_and_slices, open_state, close_state),
        cmocka_unit_test_setup_teardown(ranges_count_to_the_ends, open_state, close_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
