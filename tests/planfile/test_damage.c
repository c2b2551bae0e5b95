/* SPDX-License-Identifier: Apache-2.0
 *
 * test_damage.c: a damaged plan file is refused, saying what is wrong; one that was changed behind
 * its checksums is refused, or is a plan that can be walked and proved. Nothing crashes or hangs.
 * The seed of what is drawn is PPS_TEST_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "compiled.h"
#include "ir/plan_row.h"

enum { FLIPS = 2000, CHANGES = 4000 };

typedef struct drawn {
    uint64_t at;
} drawn;

static uint32_t draw(drawn *d, uint32_t under)
{
    uint64_t x = d->at += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return (uint32_t)((x ^ x >> 31) % under);
}

static drawn begin(uint64_t stream)
{
    const char *seed = getenv("PPS_TEST_SEED");
    drawn d = {(seed != NULL ? strtoull(seed, NULL, 10) : 1) * 1000 + stream};
    print_message("seed %s\n", seed != NULL ? seed : "1");
    return d;
}

static bytes file_of(unsigned script, plan_file_form form)
{
    compiled a;
    compiled_script(&a, compiled_scripts[script]);
    assert_non_null(a.set);
    bytes x = bytes_of(a.st, a.set, form);
    compiled_close(&a);
    return x;
}

static void every_truncation(void **state)
{
    (void)state;
    for (int form = PLAN_FILE_BINARY; form <= PLAN_FILE_TEXT; form++) {
        bytes x = file_of(0, (plan_file_form)form);
        for (size_t n = 0; n < x.n; n++) {
            compiled b;
            compiled_read(&b, x.data, n);
            assert_null(b.set);
            if (n < 9)
                assert_true(b.code == 1101 || b.code == 1102);
            else
                assert_true(b.code >= 1102 && b.code <= 1105);
            if (form == PLAN_FILE_BINARY && n >= 8)
                assert_int_equal(b.code, 1102);
            compiled_close(&b);
        }
        compiled b;
        x.data = realloc(x.data, x.n + 2);
        memcpy(x.data + x.n, "x\n", 2);
        compiled_read(&b, x.data, x.n + 2);
        assert_int_equal(b.code, 1102);
        compiled_close(&b);
        free(x.data);
    }
}

static void flipped_bits(void **state)
{
    (void)state;
    drawn d = begin(1);
    for (int form = PLAN_FILE_BINARY; form <= PLAN_FILE_TEXT; form++) {
        bytes x = file_of(1, (plan_file_form)form);
        for (int i = 0; i < FLIPS; i++) {
            uint32_t at = draw(&d, (uint32_t)x.n);
            unsigned char bit = (unsigned char)(1 << draw(&d, 8));
            compiled b;
            x.data[at] ^= bit;
            compiled_read(&b, x.data, x.n);
            if (b.set != NULL)
                print_message("byte %u, bit %02x\n", at, bit);
            assert_null(b.set);
            assert_true(b.code >= 1101 && b.code <= 1106);
            compiled_close(&b);
            x.data[at] ^= bit;
        }
        free(x.data);
    }
}

/* ---- Behind the checksums ---------------------------------------------------------------------
 */

static uint64_t load(const unsigned char *at, int n)
{
    uint64_t value = 0;
    for (int i = 0; i < n; i++)
        value |= (uint64_t)at[i] << 8 * i;
    return value;
}

static void store(unsigned char *at, uint64_t value, int n)
{
    for (int i = 0; i < n; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

/* Make a binary file's checksums true again. */
static void seal(bytes *x)
{
    plan_crc crc;
    plan_crc_init(&crc);
    for (uint32_t i = 0; i < PLAN_SECTIONS; i++) {
        unsigned char *row = x->data + PLAN_AT_ROWS + i * PLAN_ROW_BYTES;
        uint64_t at = load(row + PLAN_ROW_OFFSET, 8), n = load(row + PLAN_ROW_LENGTH, 8);
        if (at > x->n || n > x->n - at)
            continue;
        crc.sum = 0;
        plan_crc_add(&crc, x->data + at, n);
        store(row + PLAN_ROW_CRC, crc.sum, 4);
    }
    crc.sum = 0;
    plan_crc_add(&crc, x->data, PLAN_AT_CRC);
    plan_crc_add(&crc, x->data + PLAN_AT_LAYOUT, PLAN_HEADER_BYTES - PLAN_AT_LAYOUT);
    store(x->data + PLAN_AT_CRC, crc.sum, 4);
}

static void discard(void *ud, const char *text, size_t n)
{
    (void)ud, (void)text, (void)n;
}

/* Everything that looks at a plan without running it. */
static void use(compiled *c, uint32_t *n_valid, uint32_t *n_proved)
{
    if (c->set == NULL)
        return;
    (*n_valid)++;
    *n_proved += pps_prove(c->st, c->set) == PPS_OK;
    for (uint32_t g = 0; g < c->set->n_groups; g++)
        plan_dump(c->set, g, discard, NULL);
    assert_int_equal(plan_file_write(c->st, c->set, PLAN_FILE_BINARY, discard, NULL), PPS_OK);
    assert_int_equal(plan_file_write(c->st, c->set, PLAN_FILE_TEXT, discard, NULL), PPS_OK);
}

static void change(drawn *d, unsigned char *at, size_t room)
{
    static const uint64_t values[] = {
        0,         1,      2,          3,          0x7f,           0xff,
        0x100,     0xffff, 0x7fffffff, 0x80000000, UINT32_MAX - 1, UINT32_MAX,
        UINT64_MAX};
    int n = 1 << draw(d, 4);
    if ((size_t)n > room)
        return;
    switch (draw(d, 4)) {
    case 0:
        *at ^= (unsigned char)(1 << draw(d, 8));
        break;
    case 1:
        store(at, load(at, n) + 1 - 2 * draw(d, 2), n);
        break;
    case 2:
        store(at, values[draw(d, sizeof values / sizeof values[0])], n);
        break;
    default:
        *at = (unsigned char)draw(d, 256);
        break;
    }
}

static void changed_behind_checksums(void **state)
{
    (void)state;
    drawn d = begin(2);
    uint32_t n_valid = 0, n_proved = 0;
    for (unsigned script = 0; script < 3; script++) {
        bytes x = file_of(script, PLAN_FILE_BINARY), y = {malloc(x.n), x.n, x.n};
        for (int i = 0; i < CHANGES / 3; i++) {
            memcpy(y.data, x.data, x.n);
            for (uint32_t k = 0, n = 1 + draw(&d, 3); k < n; k++) {
                /* half of them in the steps, by bytes the largest part but not by meaning */
                uint32_t from = draw(&d, 8) == 0 ? PLAN_AT_VERSION : PLAN_HEADER_BYTES;
                uint32_t at = from + draw(&d, (uint32_t)x.n - from);
                if (draw(&d, 2) == 0) { /* or in some section, small ones as often as others */
                    const unsigned char *row =
                        x.data + PLAN_AT_ROWS + draw(&d, PLAN_SECTIONS) * PLAN_ROW_BYTES;
                    uint32_t length = (uint32_t)load(row + PLAN_ROW_LENGTH, 8);
                    if (length > 0)
                        at = (uint32_t)load(row + PLAN_ROW_OFFSET, 8) + draw(&d, length);
                }
                change(&d, y.data + at, x.n - at);
            }
            seal(&y);
            compiled b;
            compiled_read(&b, y.data, y.n);
            use(&b, &n_valid, &n_proved);
            compiled_close(&b);
        }
        free(x.data);
        free(y.data);
    }
    print_message("of %d changed files %u hold plans, %u of them proved\n", CHANGES, n_valid,
                  n_proved);
}

static void changed_texts(void **state)
{
    (void)state;
    drawn d = begin(3);
    uint32_t n_valid = 0, n_proved = 0;
    bytes x = file_of(1, PLAN_FILE_TEXT), y = {malloc(x.n), x.n, x.n};
    x.n -= strlen("12345678\n");
    memcpy(x.data + x.n, "-\n", 2);
    x.n += 2;
    for (int i = 0; i < CHANGES / 4; i++) {
        static const char drawn_from[] = "0123456789-\"\\ =:.e\n#";
        memcpy(y.data, x.data, x.n);
        for (uint32_t k = 0, n = 1 + draw(&d, 2); k < n; k++) {
            uint32_t at = draw(&d, (uint32_t)x.n - 8);
            y.data[at] = (unsigned char)drawn_from[draw(&d, sizeof drawn_from - 1)];
        }
        compiled b;
        compiled_read(&b, y.data, x.n);
        use(&b, &n_valid, &n_proved);
        compiled_close(&b);
    }
    print_message("of %d changed texts %u hold plans, %u of them proved\n", CHANGES / 4, n_valid,
                  n_proved);
    free(x.data);
    free(y.data);
}

static void other_versions(void **state)
{
    (void)state;
    compiled b;
    bytes x = file_of(0, PLAN_FILE_BINARY);
    store(x.data + PLAN_AT_VERSION, PLAN_FILE_VERSION + 1, 4);
    seal(&x);
    compiled_read(&b, x.data, x.n);
    assert_int_equal(b.code, 1104);
    assert_non_null(strstr(b.said, "version 2"));
    assert_non_null(strstr(b.said, "newer"));
    compiled_close(&b);
    store(x.data + PLAN_AT_VERSION, PLAN_FILE_VERSION, 4);
    x.data[PLAN_AT_LAYOUT] ^= 1;
    seal(&x);
    compiled_read(&b, x.data, x.n);
    assert_int_equal(b.code, 1104);
    assert_non_null(strstr(b.said, "another build"));
    compiled_close(&b);
    free(x.data);
    x = file_of(0, PLAN_FILE_TEXT);
    x.data[strlen(PLAN_TEXT_MAGIC)]++;
    compiled_read(&b, x.data, x.n);
    assert_int_equal(b.code, 1104);
    assert_non_null(strstr(b.said, "--> x.plan:1:"));
    compiled_close(&b);
    free(x.data);
}

/* What messages say about where. */
static void told_where(void **state)
{
    (void)state;
    compiled b;
    bytes x = file_of(0, PLAN_FILE_BINARY);
    const unsigned char *row =
        x.data + PLAN_AT_ROWS + (PLAN_SECTION_TABLES + PLAN_TABLE_STEP) * PLAN_ROW_BYTES;
    uint64_t steps = load(row + PLAN_ROW_OFFSET, 8);
    x.data[steps + 4]++;
    compiled_read(&b, x.data, x.n);
    assert_int_equal(b.code, 1103);
    assert_non_null(strstr(b.said, "'step' section"));
    compiled_close(&b);
    x.data[steps + 4] = 200;
    seal(&x);
    compiled_read(&b, x.data, x.n);
    assert_int_equal(b.code, 1106);
    assert_non_null(strstr(b.said, "'stream' of step 0 of group 0"));
    compiled_close(&b);
    compiled_read(&b, "let x = 1\n", 10);
    assert_int_equal(b.code, 1101);
    compiled_close(&b);
    free(x.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_truncation),         cmocka_unit_test(flipped_bits),
        cmocka_unit_test(changed_behind_checksums), cmocka_unit_test(changed_texts),
        cmocka_unit_test(other_versions),           cmocka_unit_test(told_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
