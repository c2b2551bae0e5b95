/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of an overlapped group: chains merged evenly, each kept in its own order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "passes/pass.h"

/* Op i's nodes are 'a' + i, numbered: merged "a0 b0 a1" is written "aba". */
static void check_merge(const char *want, uint32_t n_ops, const uint32_t *n)
{
    uint32_t nodes[512] = {0}, ret[512], total = 0, next[80] = {0};
    char text[513];
    for (uint32_t i = 0; i < n_ops; i++)
        for (uint32_t k = 0; k < n[i]; k++)
            nodes[total++] = i * 1000 + k;
    pass_interleave(nodes, n, n_ops, ret);
    for (uint32_t k = 0; k < total; k++) {
        uint32_t op = ret[k] / 1000;
        assert_true(op < n_ops);
        assert_int_equal(ret[k] % 1000,
                         next[op]); /* an op's chain stays in order, each node once */
        next[op]++;
        text[k] = (char)('a' + op % 26);
    }
    text[total] = '\0';
    for (uint32_t i = 0; i < n_ops; i++)
        assert_int_equal(next[i], n[i]);
    if (want != NULL)
        assert_string_equal(text, want);
}

static void chains_are_merged_evenly(void **state)
{
    (void)state;
    check_merge("ababab", 2, (const uint32_t[]){3, 3});
    check_merge("aabaa", 2, (const uint32_t[]){4, 1});
    check_merge("abcabc", 3, (const uint32_t[]){2, 2, 2});
    check_merge("aaa", 1, (const uint32_t[]){3});
    check_merge("bbb", 2, (const uint32_t[]){0, 3});
    check_merge("ab", 2, (const uint32_t[]){1, 1}); /* ties go to the op named first */
    check_merge("babbab", 2, (const uint32_t[]){2, 4});
    check_merge("", 2, (const uint32_t[]){0, 0});
}

/* Between two nodes of the longer chain stands a node of the other wherever there are enough. */
static void neighbours_of_equal_chains_alternate(void **state)
{
    (void)state;
    for (uint32_t a = 1; a < 40; a++) {
        uint32_t nodes[80], n[2] = {a, a}, ret[80];
        for (uint32_t i = 0; i < 2 * a; i++)
            nodes[i] = i;
        pass_interleave(nodes, n, 2, ret);
        for (uint32_t i = 0; i < 2 * a; i++)
            assert_int_equal(ret[i], i % 2 * a + i / 2);
    }
}

static void any_lengths_keep_every_node(void **state)
{
    uint32_t seed = 7;
    (void)state;
    for (uint32_t trial = 0; trial < 300; trial++) {
        uint32_t n[70], n_ops = 1 + trial % 70;
        for (uint32_t i = 0; i < n_ops; i++) {
            seed = seed * 1664525u + 1013904223u;
            n[i] = (seed >> 20) % 8;
        }
        check_merge(NULL, n_ops, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_are_merged_evenly),
        cmocka_unit_test(neighbours_of_equal_chains_alternate),
        cmocka_unit_test(any_lengths_keep_every_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
