/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sha256.c: FIPS 180's example messages, and that cutting a message anywhere changes nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "runtime/train/sha256.h"

static void examples(void **state)
{
    (void)state;
    static const struct {
        const char *message, *digest;
        int times;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 1},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 1},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", 1},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrl"
         "mnopqrsmnop"
         "qrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1", 1},
        {"a", "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", 1000000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sha256 h;
        char hex[65];
        sha256_init(&h);
        for (int k = 0; k < cases[i].times; k++)
            sha256_add(&h, cases[i].message, strlen(cases[i].message));
        sha256_hex(&h, hex);
        assert_string_equal(hex, cases[i].digest);
    }
}

static void any_cut(void **state)
{
    (void)state;
    unsigned char message[300];
    for (size_t i = 0; i < sizeof message; i++)
        message[i] = (unsigned char)(i * 31 + 7);
    for (size_t n = 0; n <= sizeof message; n += 13) {
        char whole[65], cut[65];
        sha256 h;
        sha256_init(&h);
        sha256_add(&h, message, n);
        sha256_hex(&h, whole);
        for (size_t at = 0; at <= n; at++) {
            sha256_init(&h);
            sha256_add(&h, message, at);
            sha256_add(&h, message + at, n - at);
            sha256_hex(&h, cut);
            assert_string_equal(whole, cut);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(examples), cmocka_unit_test(any_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
