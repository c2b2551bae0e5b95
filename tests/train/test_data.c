/* SPDX-License-Identifier: Apache-2.0
 *
 * test_data.c: which ids a batch has, from bytes, token files and seeds, and the messages for bad
 * data.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "fixture.h"

enum { B = 4, T = 8 };

typedef struct data_set { /* tokens, targets, features of width 3 */
    plan_data data[3];
    plan_kernel kernels[2];
    plan_set set;
} data_set;

static void make(data_set *d, ir_source_kind kind, const char *paths, uint32_t n_paths,
                 uint32_t vocab)
{
    memset(d, 0, sizeof *d);
    d->data[0] = (plan_data){.kind = IR_DATA_TOKENS, .row_elems = T};
    d->data[1] = (plan_data){.kind = IR_DATA_TARGETS, .row_elems = T};
    d->data[2] = (plan_data){.kind = IR_DATA_FEATURES, .key = 1, .row_elems = T * 3};
    d->kernels[0] = (plan_kernel){.op = IR_EMBED, .attrs.vocab = vocab};
    d->kernels[1] = (plan_kernel){.op = IR_CROSS_ENTROPY, .attrs.vocab = vocab + 7};
    d->set = (plan_set){.n_mb = 1,
                        .n_slices = 1,
                        .batch = B,
                        .T = T,
                        .data = d->data,
                        .n_data = 3,
                        .kernels = d->kernels,
                        .n_kernels = 2};
    d->set.train =
        (ir_train){.data = (uint8_t)kind, .data_path = paths, .n_data_paths = n_paths, .seed = 5};
}

static train_data *open_data(fixture *f, const data_set *d)
{
    train_data *data = NULL;
    pps_status status = train_data_open(f->st, &d->set, f->folder, &data);
    if (status != PPS_OK)
        fail_msg("%s", f->text);
    return data;
}

static train_share rows_of(uint32_t replica, uint32_t n_replicas)
{
    return (train_share){.replica = replica, .n_replicas = n_replicas, .n_parts = 1};
}

static void windows_of_bytes(void **state)
{
    fixture *f = *state;
    unsigned char text[100];
    for (int i = 0; i < 100; i++)
        text[i] = (unsigned char)(255 - i);
    fixture_file(f, "a", text, 30);
    fixture_file(f, "empty", text, 0);
    fixture_file(f, "b", text + 30, 70);
    data_set d;
    make(&d, IR_SOURCE_BYTES, "a\0empty\0b\0empty", 4, 256);
    train_data *data = open_data(f, &d);
    assert_int_equal(train_data_tokens(data), 100);
    for (uint64_t step = 0; step < 20; step++) {
        int32_t tokens[B * T], targets[B * T];
        train_data_fill(data, 0, step, rows_of(0, 1), tokens);
        train_data_fill(data, 1, step, rows_of(0, 1), targets);
        for (uint64_t r = 0; r < B; r++)
            for (uint64_t t = 0; t < T; t++) {
                uint64_t at = (step * B + r) * T + t;
                assert_int_equal(tokens[r * T + t], text[at % 100]);
                assert_int_equal(targets[r * T + t], text[(at + 1) % 100]);
            }
    }
    train_data_close(data);
}

/* The rows of two or four replicas, one after the other, are the rows of one. */
static void replicas_share_a_batch(void **state)
{
    fixture *f = *state;
    data_set d;
    make(&d, IR_SOURCE_NONE, NULL, 0, 250);
    train_data *data = open_data(f, &d);
    assert_int_equal(train_data_tokens(data), 0);
    for (uint32_t k = 0; k < 3; k++) {
        int32_t whole[B * T * 3], parts[B * T * 3];
        size_t bytes = B * d.data[k].row_elems * 4;
        train_data_fill(data, k, 3, rows_of(0, 1), whole);
        for (uint32_t n = 2; n <= 4; n += 2) {
            for (uint32_t i = 0; i < n; i++)
                train_data_fill(data, k, 3, rows_of(i, n), (char *)parts + i * bytes / n);
            assert_memory_equal(whole, parts, bytes);
        }
    }
    train_data_close(data);
}

/* Parts of the positions, put back block by block, are the rows. */
static void parts_share_sequences(void **state)
{
    fixture *f = *state;
    data_set d;
    make(&d, IR_SOURCE_NONE, NULL, 0, 250);
    train_data *data = open_data(f, &d);
    for (uint32_t k = 0; k < 3; k++) {
        int32_t whole[B * T * 3], own[B * T * 3], again[B * T * 3];
        size_t width = d.data[k].row_elems / T;
        train_data_fill(data, k, 3, rows_of(0, 1), whole);
        for (uint32_t n = 2; n <= 4; n += 2) {
            size_t block = T / (2 * n) * width;
            for (uint32_t part = 0; part < n; part++) {
                train_share share = {.n_replicas = 2, .part = part, .n_parts = n};
                for (share.replica = 0; share.replica < 2; share.replica++) {
                    train_data_fill(data, k, 3, share, own);
                    for (size_t r = 0; r < B / 2; r++)
                        for (size_t i = 0; i < 2; i++) {
                            size_t to = i == 0 ? part : 2 * n - 1 - part;
                            memcpy(again + (share.replica * B / 2 + r) * T * width + to * block,
                                   own + (2 * r + i) * block, block * 4);
                        }
                }
            }
            assert_memory_equal(whole, again, B * T * width * 4);
        }
    }
    train_data_close(data);
}

static void drawn_ids(void **state)
{
    fixture *f = *state;
    data_set d;
    make(&d, IR_SOURCE_NONE, NULL, 0, 11);
    train_data *data = open_data(f, &d);
    uint32_t seen[11] = {0};
    for (uint64_t step = 0; step < 500; step++) {
        int32_t tokens[B * T], targets[B * T];
        train_data_fill(data, 0, step, rows_of(0, 1), tokens);
        train_data_fill(data, 1, step, rows_of(0, 1), targets);
        assert_memory_equal(tokens + 1, targets, sizeof tokens - 4);
        for (int i = 0; i < B * T; i++) {
            assert_in_range(tokens[i], 0, 10);
            seen[tokens[i]]++;
        }
    }
    for (int i = 0; i < 11; i++) /* 16000 draws: 1455 each, deviation 36 */
        assert_in_range(seen[i], 1455 - 200, 1455 + 200);
    train_data_close(data);
}

static void features_are_normal(void **state)
{
    fixture *f = *state;
    data_set d;
    make(&d, IR_SOURCE_NONE, NULL, 0, 11);
    train_data *data = open_data(f, &d);
    double sum = 0, squares = 0;
    int n = 0;
    float first[B * T * 3], x[B * T * 3];
    train_data_fill(data, 2, 0, rows_of(0, 1), first);
    for (uint64_t step = 0; step < 500; step++) {
        train_data_fill(data, 2, step, rows_of(0, 1), x);
        for (int i = 0; i < B * T * 3; i++, n++) {
            sum += x[i];
            squares += (double)x[i] * x[i];
        }
    }
    assert_true(fabs(sum / n) < 0.02); /* 48000 draws: deviation 0.0046 */
    assert_true(fabs(squares / n - 1) < 0.03);
    assert_memory_not_equal(first, x, sizeof x);
    d.data[2].key = 2;
    train_data_fill(data, 2, 0, rows_of(0, 1), x);
    assert_memory_not_equal(first, x, sizeof x);
    train_data_close(data);
}

static void write_tokens(fixture *f, const char *name, int32_t magic, int32_t version, int32_t n,
                         int32_t held)
{
    int32_t header[256] = {magic, version, n};
    unsigned char *file = calloc(1, sizeof header + 2 * (size_t)held);
    assert_non_null(file);
    memcpy(file, header, sizeof header);
    for (int i = 0; i < held; i++) {
        file[sizeof header + 2 * (size_t)i] = (unsigned char)(i * 3);
        file[sizeof header + 2 * (size_t)i + 1] = (unsigned char)(i % 5);
    }
    fixture_file(f, name, file, sizeof header + 2 * (size_t)held);
    free(file);
}

static void token_files(void **state)
{
    fixture *f = *state;
    write_tokens(f, "t.bin", 20240520, 1, 50, 50);
    data_set d;
    make(&d, IR_SOURCE_TOKENS, "t.bin", 1, 50257);
    train_data *data = open_data(f, &d);
    assert_int_equal(train_data_tokens(data), 50);
    int32_t tokens[B * T];
    train_data_fill(data, 0, 1, rows_of(0, 1), tokens);
    for (int i = 0; i < B * T; i++) {
        int at = (B * T + i) % 50;
        assert_int_equal(tokens[i], (at * 3) % 256 + 256 * (at % 5));
    }
    train_data_close(data);
}

static void expect_refused(fixture *f, const data_set *d, int code, const char *part)
{
    train_data *data = NULL;
    assert_int_equal(train_data_open(f->st, &d->set, f->folder, &data), PPS_ERR_SCRIPT);
    assert_null(data);
    fixture_expect(f, code, part);
}

static void bad_data(void **state)
{
    fixture *f = *state;
    data_set d;
    make(&d, IR_SOURCE_BYTES, "nowhere", 1, 256);
    expect_refused(f, &d, 901, "No such file");
    make(&d, IR_SOURCE_BYTES, ".", 1, 256);
    expect_refused(f, &d, 901, "folder");
    fixture_path(f, "pipe");
    assert_int_equal(mkfifo(fixture_path(f, "pipe"), 0600), 0);
    make(&d, IR_SOURCE_BYTES, "pipe", 1, 256);
    expect_refused(f, &d, 901, "not a regular file");

    char text[B * T + 1];
    memset(text, 'x', sizeof text);
    make(&d, IR_SOURCE_BYTES, "short", 1, 256);
    fixture_file(f, "short", text, B * T);
    expect_refused(f, &d, 903, "32 ids, 33 needed");
    fixture_file(f, "short", text, B * T + 1);
    train_data_close(open_data(f, &d));
    fixture_file(f, "short", text, 0);
    expect_refused(f, &d, 903, "0 ids");
    make(&d, IR_SOURCE_BYTES, "long", 1, 'x');
    fixture_file(f, "long", text, sizeof text);
    expect_refused(f, &d, 904, "has id 120, the model's vocabulary is 120");

    make(&d, IR_SOURCE_TOKENS, "t.bin", 1, 50257);
    fixture_file(f, "t.bin", text, sizeof text);
    expect_refused(f, &d, 902, "not an llm.c token file");
    write_tokens(f, "t.bin", 20240521, 1, 50, 50);
    expect_refused(f, &d, 902, "not an llm.c token file");
    write_tokens(f, "t.bin", 20240520, 2, 50, 50);
    expect_refused(f, &d, 902, "version 2");
    write_tokens(f, "t.bin", 20240520, 1, 51, 50);
    expect_refused(f, &d, 902, "holds 50 ids, its header says 51");
    write_tokens(f, "t.bin", 20240520, 1, -1, 50);
    expect_refused(f, &d, 902, "its header says 4294967295");
    write_tokens(f, "t.bin", 20240520, 1, 20, 50);
    expect_refused(f, &d, 903, "20 ids");
    write_tokens(f, "t.bin", 20240520, 1, 50, 50);
    make(&d, IR_SOURCE_TOKENS, "t.bin", 1, 1000);
    expect_refused(f, &d, 904, "vocabulary is 1000");
}

static void oracle_tokens(void **state)
{
    fixture *f = *state;
    const char *path = fixture_oracle("gpt2_tiny_tokens.bin");
    if (path == NULL) {
        print_message("no gpt2_tiny_tokens.bin among the oracles\n");
        skip();
    }
    data_set d;
    char *absolute = realpath(path, NULL);
    make(&d, IR_SOURCE_TOKENS, absolute, 1, 250);
    train_data *data = open_data(f, &d);
    assert_int_equal(train_data_tokens(data), 12801);
    train_data_close(data);
    free(absolute);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(windows_of_bytes, fixture_open, fixture_close),
        cmocka_unit_test_setup_teardown(replicas_share_a_batch, fixture_open, fixture_close),
        cmocka_unit_test_setup_teardown(parts_share_sequences, fixture_open, fixture_close),
        cmocka_unit_test_setup_teardown(drawn_ids, fixture_open, fixture_close),
        cmocka_unit_test_setup_teardown(features_are_normal, fixture_open, fixture_close),
        cmocka_unit_test_setup_teardown(token_files, fixture_open, fixture_close),
        cmocka_unit_test_setup_teardown(bad_data, fixture_open, fixture_close),
        cmocka_unit_test_setup_teardown(oracle_tokens, fixture_open, fixture_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
