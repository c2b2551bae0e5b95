/* SPDX-License-Identifier: Apache-2.0
 *
 * test_map.c: insertion order, deletion, keys that are equal across types, random use against an
 * array.
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

static map *new_map(void)
{
    value v;
    assert_int_equal(map_new(st, &v), PPS_OK);
    return v.as.ptr;
}

static void set(map *m, value key, value val)
{
    assert_int_equal(map_set(st, m, key, val), PPS_OK);
}

/* The int stored at `key`, -1 when there is none. */
static int64_t get(map *m, value key)
{
    value v;
    bool found;
    assert_int_equal(map_get(st, m, key, &v, &found), PPS_OK);
    return found ? v.as.i : -1;
}

static const char *shown(map *m)
{
    return fake_repr(st, value_object(PPS_MAP, m));
}

static void order_is_of_insertion(void **unused)
{
    (void)unused;
    map *m = new_map();
    bool found;
    assert_string_equal(shown(m), "{}");
    set(m, fake_string(st, "b"), pps_int(1));
    set(m, pps_int(-3), pps_int(2));
    set(m, fake_string(st, "a"), pps_int(3));
    set(m, fake_string(st, "b"), pps_int(4)); /* keeps its place */
    assert_string_equal(shown(m), "{\"b\": 4, (-3): 2, \"a\": 3}");
    assert_int_equal(map_delete(st, m, fake_string(st, "b"), &found), PPS_OK);
    assert_true(found);
    assert_int_equal(map_delete(st, m, fake_string(st, "b"), &found), PPS_OK);
    assert_false(found);
    set(m, fake_string(st, "b"), pps_int(5)); /* now last */
    assert_string_equal(shown(m), "{(-3): 2, \"a\": 3, \"b\": 5}");
}

static void equal_keys_are_one(void **unused)
{
    (void)unused;
    map *m = new_map();
    set(m, pps_int(1), pps_int(10));
    set(m, pps_float(1.0), pps_int(11));
    assert_int_equal(get(m, pps_int(1)), 11);
    set(m, pps_float(0.0), pps_int(12));
    assert_int_equal(get(m, pps_float(-0.0)), 12);
    set(m, pps_bool(true), pps_int(13)); /* not 1 */
    assert_int_equal(get(m, pps_int(1)), 11);
    set(m, pps_float(0x1p53), pps_int(14));
    assert_int_equal(get(m, pps_int((1ll << 53) + 1)), -1); /* equal only after rounding */
    value a = pps_op(1, 2, PPS_PASS_F, PPS_COMM_NONE), pair, same_pair, r;
    set(m, value_with_origin(a, 7), pps_int(15));
    assert_int_equal(get(m, value_with_origin(a, 8)), 15); /* where it was made does not count */
    assert_int_equal(group_or(st, a, a, &pair), PPS_OK);
    assert_int_equal(group_or(st, a, value_with_origin(a, 9), &same_pair), PPS_OK);
    set(m, pair, pps_int(16));
    assert_int_equal(get(m, same_pair), 16);
    assert_int_equal(range_new(st, 0, 10, 3, &r), PPS_OK); /* 0 3 6 9 */
    set(m, r, pps_int(17));
    assert_int_equal(range_new(st, 0, 12, 3, &r), PPS_OK);
    assert_int_equal(get(m, r), 17);
    set(m, pps_float(0.0 / 0.0), pps_int(18)); /* nan equals nothing */
    assert_int_equal(get(m, pps_float(0.0 / 0.0)), -1);
}

static void lists_are_no_keys(void **unused)
{
    (void)unused;
    map *m = new_map();
    assert_int_equal(map_set(st, m, fake_ints(st, 0, NULL), pps_nil()), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 305);
    assert_string_equal(f.title, "a list cannot be a map key");
}

static void frozen_and_walked_maps_refuse(void **unused)
{
    (void)unused;
    map *m = new_map();
    value_iter it;
    bool found;
    set(m, pps_int(1), pps_int(1));
    assert_int_equal(iter_begin(st, &it, value_object(PPS_MAP, m), (pps_span){0}), PPS_OK);
    set(m, pps_int(1), pps_int(2)); /* the keys stay the same */
    assert_int_equal(map_set(st, m, pps_int(2), pps_int(2)), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 309);
    assert_int_equal(map_delete(st, m, pps_int(1), &found), PPS_ERR_SCRIPT);
    iter_end(&it);
    set(m, pps_int(2), pps_int(2));
    value outer = fake_ints(st, 0, NULL);
    assert_int_equal(list_push(st, outer.as.ptr, value_object(PPS_MAP, m)), PPS_OK);
    value_freeze(outer);
    assert_int_equal(map_set(st, m, pps_int(1), pps_int(3)), PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 308);
    assert_int_equal(list_push(st, outer.as.ptr, pps_nil()), PPS_ERR_SCRIPT);
    assert_int_equal(value_index_set(st, outer, pps_int(0), pps_nil()), PPS_ERR_SCRIPT);
}

static void a_queue_stays_small(void **unused)
{
    (void)unused;
    map *m = new_map();
    bool found;
    for (int i = 0; i < 10000; i++) {
        set(m, pps_int(i), pps_int(i));
        if (i >= 3) {
            assert_int_equal(map_delete(st, m, pps_int(i - 3), &found), PPS_OK);
            assert_true(found);
        }
    }
    assert_int_equal(m->n_live, 3);
    assert_true(m->cap_entries <= 16);
    assert_string_equal(shown(m), "{9997: 9997, 9998: 9998, 9999: 9999}");
}

static void random_use_matches_an_array(void **unused)
{
    (void)unused;
    enum { N = 300 };
    int64_t expected[N];
    map *m = new_map();
    uint32_t x = 12345;
    memset(expected, 0xff, sizeof(expected));
    for (int i = 0; i < 20000; i++) {
        x = x * 1664525u + 1013904223u;
        uint32_t key = (x >> 8) % N;
        bool found;
        if ((x >> 28) < 10) {
            set(m, pps_int(key), pps_int(i));
            expected[key] = i;
        } else {
            assert_int_equal(map_delete(st, m, pps_int(key), &found), PPS_OK);
            assert_int_equal(found, expected[key] >= 0);
            expected[key] = -1;
        }
    }
    uint32_t n = 0;
    for (int i = 0; i < N; i++) {
        assert_int_equal(get(m, pps_int(i)), expected[i]);
        n += expected[i] >= 0;
    }
    assert_int_equal(m->n_live, n);
}

static void missing_keys_are_told(void **unused)
{
    (void)unused;
    map *m = new_map();
    value v;
    set(m, fake_string(st, "warmup"), pps_int(1));
    assert_int_equal(value_index(st, value_object(PPS_MAP, m), fake_string(st, "warmpu"), &v),
                     PPS_ERR_SCRIPT);
    assert_int_equal(f.code, 311);
    assert_string_equal(f.title, "this map has no key \"warmpu\"");
    assert_string_equal(f.help, "did you mean \"warmup\"?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(order_is_of_insertion, open_state, close_state),
        cmocka_unit_test_setup_teardown(equal_keys_are_one, open_state, close_state),
        cmocka_unit_test_setup_teardown(lists_are_no_keys, open_state, close_state),
        cmocka_unit_test_setup_teardown(frozen_and_walked_maps_refuse, open_state, close_state),
        cmocka_unit_test_setup_teardown(a_queue_stays_small, open_state, close_state),
        cmocka_unit_test_setup_teardown(random_use_matches_an_array, open_state, close_state),
        cmocka_unit_test_setup_teardown(missing_keys_are_told, open_state, close_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
