/* SPDX-License-Identifier: Apache-2.0
 *
 * test_weights.c: initial values, weights files good and hostile, what ranks export, what is saved.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "fixture.h"
#include "runtime/train/sha256.h"

static const pps_span no_span;

/* ---- initial values ------------------------------------------------------------------------- */

static void any_slice_is_the_same(void **state)
{
    (void)state;
    enum { N = 1001 };
    ir_param p = fixture_param("model.x.weight", N, 0, 0);
    float whole[N], part[N];
    train_init_param(&p, 7, 0, N, whole);
    for (uint64_t first = 0; first < N; first += 97)
        for (uint64_t n = 1; first + n <= N; n += 151) {
            train_init_param(&p, 7, first, n, part);
            assert_memory_equal(part, whole + first, n * sizeof *part);
        }
}

static void values_depend_on_name_and_seed(void **state)
{
    (void)state;
    ir_param p = fixture_param("a", 64, 0, 0), q = fixture_param("b", 64, 0, 0);
    float x[64], y[64];
    train_init_param(&p, 1, 0, 64, x);
    train_init_param(&p, 2, 0, 64, y);
    assert_memory_not_equal(x, y, sizeof x);
    train_init_param(&q, 1, 0, 64, y);
    assert_memory_not_equal(x, y, sizeof x);
    train_init_param(&p, 1, 0, 64, y);
    assert_memory_equal(x, y, sizeof x);
    p.init = IR_INIT_ONE;
    train_init_param(&p, 1, 3, 2, x);
    assert_true(x[0] == 1 && x[1] == 1);
    p.init = IR_INIT_ZERO;
    train_init_param(&p, 1, 3, 2, x);
    assert_true(x[0] == 0 && x[1] == 0);
}

static void values_are_normal(void **state)
{
    (void)state;
    enum { N = 200000 };
    ir_param p = fixture_param("w", N, 0, 0);
    float *x = malloc(N * sizeof *x);
    assert_non_null(x);
    train_init_param(&p, 1, 0, N, x);
    double sum = 0, squares = 0, next = 0;
    int within = 0;
    for (int i = 0; i < N; i++) {
        double z = x[i] / 0.02;
        assert_true(isfinite(z));
        sum += z;
        squares += z * z;
        within += fabs(z) < 1;
        next += i > 0 ? z * x[i - 1] / 0.02 : 0;
    }
    /* deviations 0.0022, 0.0032, 0.001, 0.0022 */
    assert_true(fabs(sum / N) < 0.01);
    assert_true(fabs(squares / N - 1) < 0.015);
    assert_true(fabs((double)within / N - 0.6827) < 0.005);
    assert_true(fabs(next / N) < 0.01);
    free(x);
}

/* ---- files ---------------------------------------------------------------------------------- */

/* A safetensors file with this header and `data_bytes` bytes 0, 1, 2, ... */
static const char *write_safetensors(fixture *f, const char *header, size_t data_bytes)
{
    size_t n = strlen(header);
    unsigned char *file = malloc(8 + n + data_bytes);
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)n >> (8 * i));
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++)
        file[8 + n + i] = (unsigned char)i;
    const char *path = fixture_file(f, "w.safetensors", file, 8 + n + data_bytes);
    free(file);
    return path;
}

static train_weights *open_weights(fixture *f, const char *path)
{
    train_weights *w = NULL;
    if (train_weights_open(f->st, path, no_span, &w) != PPS_OK)
        fail_msg("%s", f->text);
    return w;
}

static void expect_refused(fixture *f, const char *path, int code, const char *part)
{
    train_weights *w = NULL;
    assert_int_equal(train_weights_open(f->st, path, no_span, &w), PPS_ERR_SCRIPT);
    assert_null(w);
    fixture_expect(f, code, part);
}

static void hostile_headers(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *header, *part;
        size_t data_bytes;
    } cases[] = {
        {"[]", "not an object", 0},
        {"{\"a\":", "bad safetensors header", 0},
        {"{\"a\":1}", "has no dtype", 0},
        {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}", "not of type F32", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", "has no shape", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}",
         "too many dimensions", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", "bad shape", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", "bad shape", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967295,4294967295,4294967295],\"data_offsets\":["
         "0,4]}}",
         "larger than the file", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", "do not fit its shape",
         8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", "outside the file", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", "outside the file", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", "outside the file",
         4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "outside the file", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", "after a gap", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         "4 bytes after its last", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         "'b' overlaps", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         "bad safetensors header", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refused(f, write_safetensors(f, cases[i].header, cases[i].data_bytes), 912,
                       cases[i].part);

    unsigned char bytes[16] = {9, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    for (size_t n = 0; n <= sizeof bytes; n++) /* the header is longer than the file */
        expect_refused(f, fixture_file(f, "short", bytes, n), 912, "neither a safetensors file");
    memset(bytes, 0xff, 8);
    expect_refused(f, fixture_file(f, "long", bytes, sizeof bytes), 912,
                   "neither a safetensors file");
    expect_refused(f, fixture_path(f, "nowhere"), 911, "No such file");
}

static void write_checkpoint(fixture *f, const int32_t header[8], size_t bytes)
{
    unsigned char *file = calloc(1, bytes + 1024);
    assert_non_null(file);
    memcpy(file, header, 8 * sizeof *header);
    for (size_t i = 0; i < bytes / 4; i++) {
        float value = (float)i;
        memcpy(file + 1024 + 4 * i, &value, 4);
    }
    fixture_file(f, "c.bin", file, 1024 + bytes);
    free(file);
}

static void checkpoint_of_two_layers(void **state)
{
    fixture *f = *state;
    /* context 3, vocabulary 5 padded to 6, 2 layers, width 2 */
    enum {
        C = 2,
        L = 2,
        V = 6,
        X = 3,
        LAYERS = L * (4 * C + 3 * C * C + 3 * C + C * C + C + 8 * C * C + 5 * C)
    };
    enum { N = V * C + X * C + LAYERS + 2 * C };
    const int32_t good[8] = {20240326, 3, X, 5, L, 1, C, V};
    write_checkpoint(f, good, 4 * N);
    train_weights *w = open_weights(f, fixture_path(f, "c.bin"));
    float x[16];
    ir_param p = fixture_param("transformer.wte.weight", V, C, 0);
    train_weights_read(w, &p, 3, 2, x);
    assert_true(x[0] == 3 && x[1] == 4);
    /* ln_1.weight of layer 1 follows wte, wpe and layer 0's */
    p = fixture_param("transformer.h.1.ln_1.weight", C, 0, 0);
    train_weights_read(w, &p, 0, 2, x);
    assert_true(x[0] == V * C + X * C + C && x[1] == x[0] + 1);
    p = fixture_param("transformer.ln_f.bias", C, 0, 0);
    train_weights_read(w, &p, 0, 2, x);
    assert_true(x[1] == N - 1);
    train_weights_close(w);

    write_checkpoint(f, good, 4 * N + 4);
    expect_refused(f, fixture_path(f, "c.bin"), 912, "its header asks for");
    write_checkpoint(f, good, 4 * N - 4);
    expect_refused(f, fixture_path(f, "c.bin"), 912, "its header asks for");
    const int32_t bf16[8] = {20240326, 5, X, 5, L, 1, C, V};
    write_checkpoint(f, bf16, 4 * N);
    expect_refused(f, fixture_path(f, "c.bin"), 912, "version 5");
    const int32_t huge[8] = {20240326, 3, X, 5, L, 1, 0x7fffffff, V};
    write_checkpoint(f, huge, 4 * N);
    expect_refused(f, fixture_path(f, "c.bin"), 912, "impossible size");
    const int32_t negative[8] = {20240326, 3, X, 5, -1, 1, C, V};
    write_checkpoint(f, negative, 4 * N);
    expect_refused(f, fixture_path(f, "c.bin"), 912, "impossible size");
    const int32_t wide[8] = {20240326, 3, X, 5, 65536, 1, 1 << 24, V};
    write_checkpoint(f, wide, 4 * N);
    expect_refused(f, fixture_path(f, "c.bin"), 912, "its header asks for");
}

/* ---- model against file --------------------------------------------------------------------- */

static const char two_experts[] =
    "{\"m.e.0.up.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
    "\"m.e.1.up.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[24,48]},"
    "\"n\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[48,56]},\"__metadata__\":{\"a\":"
    "\"b\"}}";

static void model_against_file(void **state)
{
    fixture *f = *state;
    train_weights *w = open_weights(f, write_safetensors(f, two_experts, 56));
    ir_param params[3] = {fixture_param("n", 2, 0, 0), fixture_param("m.e.up", 2, 2, 3)};
    params[1].flags = IR_PARAM_EXPERT;
    plan_set set = {.params = params, .n_params = 2};
    assert_int_equal(train_weights_check(f->st, w, &set, no_span), PPS_OK);

    set.n_params = 1;
    assert_int_equal(train_weights_check(f->st, w, &set, no_span), PPS_ERR_SCRIPT);
    fixture_expect(f, 915, "m.e.0.up.weight");
    set.n_params = 3;
    params[2] = fixture_param("other", 2, 0, 0);
    assert_int_equal(train_weights_check(f->st, w, &set, no_span), PPS_ERR_SCRIPT);
    fixture_expect(f, 913, "no tensor 'other'");
    set.n_params = 2;
    params[1].dims[0] = 3; /* more experts than the file has */
    assert_int_equal(train_weights_check(f->st, w, &set, no_span), PPS_ERR_SCRIPT);
    fixture_expect(f, 913, "no tensor 'm.e.up'");
    params[1].dims[0] = 2;
    params[1].dims[2] = 2;
    assert_int_equal(train_weights_check(f->st, w, &set, no_span), PPS_ERR_SCRIPT);
    fixture_expect(f, 914, "as [2, 3], the model needs [2, 2]");
    params[1].dims[2] = 3;
    params[0].dims[0] = 3;
    assert_int_equal(train_weights_check(f->st, w, &set, no_span), PPS_ERR_SCRIPT);
    fixture_expect(f, 914, "as [2], the model needs [3]");
    params[0].dims[0] = 2;
    params[1].flags = 0; /* not experts: no stacking */
    assert_int_equal(train_weights_check(f->st, w, &set, no_span), PPS_ERR_SCRIPT);
    fixture_expect(f, 913, "no tensor 'm.e.up'");
    train_weights_close(w);
}

/* ---- ranks, gathering, saving --------------------------------------------------------------- */

typedef struct two_ranks { /* a replicated and a sharded parameter */
    ir_param params[2];
    plan_param held[2];
    plan_bucket bucket;
    plan plan;
    plan_teams teams;
    plan_set set;
} two_ranks;

static const plan_cut uncut = {.teams = IR_NONE};

static void make_two_ranks(two_ranks *m)
{
    memset(m, 0, sizeof *m);
    m->params[0] = fixture_param("n", 2, 0, 0);
    m->params[1] = fixture_param("m.e.up", 2, 2, 3);
    m->params[1].flags = IR_PARAM_EXPERT;
    m->held[0] = (plan_param){.param = 1, .cuts = {{.teams = 0, .blocks = 1}, uncut}, .offset = 0, .elems = 6};
    m->held[1] = (plan_param){.param = 0, .cuts = {uncut, uncut}, .offset = 24, .elems = 2};
    m->bucket = (plan_bucket){.n = 2, .bytes = 32, .teams = IR_NONE, .slices = 1};
    m->teams = (plan_teams){0, 2, 2};
    m->plan = (plan){.n_ranks = 2,
                     .params = m->held,
                     .n_params = 2,
                     .buckets = &m->bucket,
                     .n_buckets = 1,
                     .param_bytes = 32,
                     .grad_offset = 32};
    m->set = (plan_set){.params = m->params,
                        .n_params = 2,
                        .n_groups = 1,
                        .n_ranks = 2,
                        .plans = &m->plan,
                        .teams = &m->teams,
                        .n_teams = 1};
    m->set.train.seed = 3;
}

static void gather(const two_ranks *m, const train_weights *w, const train_layout *layout,
                   char gathered[56])
{
    memset(gathered, 0xee, 56);
    for (uint32_t rank = 0; rank < 2; rank++) {
        float local[8];
        const plan_seat seat = {0, rank};
        train_fill_params(&m->set, &m->plan, &seat, w, (char *)local);
        train_export(&m->set, &m->plan, &m->bucket, PLAN_AREA_PARAMS, &seat, true, (char *)local,
                     layout, gathered);
    }
}

static void ranks_hold_slices_of_one_model(void **state)
{
    fixture *f = *state;
    two_ranks m;
    make_two_ranks(&m);
    train_layout layout;
    assert_int_equal(train_layout_new(&m.set, &layout), PPS_OK);
    assert_int_equal(layout.bytes, 56);
    assert_int_equal(layout.order[0], 1); /* "m.e.up" before "n" */
    assert_int_equal(layout.offsets[0], 48);
    char gathered[56];
    gather(&m, NULL, &layout, gathered);
    float whole[14];
    train_init_param(&m.params[1], 3, 0, 12, whole);
    train_init_param(&m.params[0], 3, 0, 2, whole + 12);
    assert_memory_equal(gathered, whole, 56);

    train_weights *w = open_weights(f, write_safetensors(f, two_experts, 56));
    gather(&m, w, &layout, gathered);
    for (int i = 0; i < 56; i++)
        assert_int_equal(gathered[i], i);
    train_weights_close(w);

    char hex[65], expected[65];
    sha256 h;
    sha256_init(&h);
    sha256_add(&h, "m.e.up", 7);
    sha256_add(&h, gathered, 48);
    sha256_add(&h, "n", 2);
    sha256_add(&h, gathered + 48, 8);
    sha256_hex(&h, expected);
    train_sha256(&m.set, &layout, gathered, hex);
    assert_string_equal(hex, expected);
    train_layout_done(&layout);
}

/* A bucket of 3 x 64 bytes over three ranks that holds "a" of 100 bytes and "b" of 40 behind it:
 * slices end within parameters and in the gap between them. Each element has one rank that hands it
 * over. */
static void slices_cut_across_parameters(void **state)
{
    enum { BYTES = 3 * PLAN_ALIGN, A = 25, B = 10 };
    ir_param params[2] = {fixture_param("a", A, 0, 0), fixture_param("b", B, 0, 0)};
    plan_param held[2] = {
        {.param = 0, .cuts = {uncut, uncut}, .elems = A},
        {.param = 1, .cuts = {uncut, uncut}, .offset = 2 * PLAN_ALIGN, .elems = B}};
    float whole[A + B];
    (void)state;
    for (uint8_t zero = 0; zero <= 3; zero++) {
        plan_teams teams = {0, 3, 3};
        plan_bucket bucket = {
            .n = 2, .bytes = BYTES, .teams = 0, .slices = zero > 0 ? 3 : 1, .zero = zero};
        plan p = {.n_ranks = 3, .params = held, .n_params = 2, .buckets = &bucket, .n_buckets = 1};
        plan_set set = {.params = params,
                        .n_params = 2,
                        .plans = &p,
                        .train.seed = 5,
                        .teams = &teams,
                        .n_teams = 1};
        train_layout layout;
        float values[A + B], grads[A + B], memory[2 * BYTES / 4];
        assert_int_equal(train_layout_new(&set, &layout), PPS_OK);
        train_init_param(&params[0], 5, 0, A, whole);
        train_init_param(&params[1], 5, 0, B, whole + A);
        memset(values, 0xee, sizeof values);
        memset(grads, 0xee, sizeof grads);
        p.grad_offset = plan_stored_bytes(&bucket, PLAN_AREA_PARAMS);
        uint64_t stored = p.grad_offset + plan_stored_bytes(&bucket, PLAN_AREA_GRADS);
        assert_int_equal(stored, (zero < 3 ? BYTES : BYTES / 3) + (zero < 2 ? BYTES : BYTES / 3));
        for (uint32_t rank = 0; rank < 3; rank++) {
            memset(memory, 0, sizeof memory);
            const plan_seat seat = {0, rank};
            train_fill_params(&set, &p, &seat, NULL, (char *)memory);
            for (uint64_t i = stored / 4; i < sizeof memory / sizeof *memory; i++)
                assert_true(memory[i] == 0); /* nothing beyond what is planned */
            /* sums are right in the rank's own slice, under zero 0 everywhere */
            for (uint64_t i = p.grad_offset / 4; i < stored / 4; i++)
                memory[i] = (float)i;
            train_export(&set, &p, &bucket, PLAN_AREA_PARAMS, &seat, true, (char *)memory, &layout,
                         (char *)values);
            train_export(&set, &p, &bucket, PLAN_AREA_GRADS, &seat, true, (char *)memory, &layout,
                         (char *)grads);
        }
        assert_memory_equal(values, whole, sizeof whole);
        for (uint32_t i = 0; i < A + B; i++) {
            uint64_t at = i < A ? i : 2 * PLAN_ALIGN / 4 + (i - A);
            at = zero < 2 ? at : at % (PLAN_ALIGN / 4);
            assert_true(grads[i] == (float)(p.grad_offset / 4 + at));
        }
        train_layout_done(&layout);
    }
}

static void saved_weights_come_back(void **state)
{
    fixture *f = *state;
    two_ranks m;
    make_two_ranks(&m);
    train_layout layout;
    assert_int_equal(train_layout_new(&m.set, &layout), PPS_OK);
    char gathered[56], again[56];
    gather(&m, NULL, &layout, gathered);
    const char *path = fixture_path(f, "saved.safetensors");
    assert_int_equal(train_save(f->st, &m.set, &layout, gathered, path), PPS_OK);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    unsigned char length[8];
    assert_int_equal(fread(length, 1, 8, file), 8);
    assert_int_equal((8 + length[0] + 256 * length[1]) % 64, 0);
    fclose(file);
    train_weights *w = open_weights(f, path);
    assert_int_equal(train_weights_check(f->st, w, &m.set, no_span), PPS_OK);
    gather(&m, w, &layout, again);
    assert_memory_equal(gathered, again, 56);
    train_weights_close(w);

    path = fixture_path(f, "no/such/folder");
    assert_int_equal(train_save(f->st, &m.set, &layout, gathered, path), PPS_ERR_IO);
    fixture_expect(f, 921, "No such file");
    train_layout_done(&layout);
}

/* ---- files that others wrote ---------------------------------------------------------------- */

static double norm(const train_weights *w, const ir_param *p)
{
    uint64_t n = ir_param_elems(p);
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    train_weights_read(w, p, 0, n, x);
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        assert_true(isfinite(x[i]));
        sum += (double)x[i] * x[i];
    }
    free(x);
    return sqrt(sum / (double)n);
}

static void oracle_gpt2(void **state)
{
    fixture *f = *state;
    const char *path = fixture_oracle("gpt2_tiny.bin");
    if (path == NULL) {
        print_message("no gpt2_tiny.bin among the oracles\n");
        skip();
    }
    enum { C = 48, L = 4 };
    static const struct {
        const char *name;
        uint32_t a, b;
    } per_layer[12] = {{"ln_1.weight", C, 0},
                       {"ln_1.bias", C, 0},
                       {"attn.c_attn.weight", 3 * C, C},
                       {"attn.c_attn.bias", 3 * C, 0},
                       {"attn.c_proj.weight", C, C},
                       {"attn.c_proj.bias", C, 0},
                       {"ln_2.weight", C, 0},
                       {"ln_2.bias", C, 0},
                       {"mlp.c_fc.weight", 4 * C, C},
                       {"mlp.c_fc.bias", 4 * C, 0},
                       {"mlp.c_proj.weight", C, 4 * C},
                       {"mlp.c_proj.bias", C, 0}};
    static char names[12 * L][64];
    ir_param params[4 + 12 * L] = {fixture_param("transformer.wte.weight", 256, C, 0),
                                   fixture_param("transformer.wpe.weight", 64, C, 0),
                                   fixture_param("transformer.ln_f.weight", C, 0, 0),
                                   fixture_param("transformer.ln_f.bias", C, 0, 0)};
    for (int i = 0; i < 12 * L; i++) {
        snprintf(names[i], sizeof names[i], "transformer.h.%d.%s", i / 12, per_layer[i % 12].name);
        params[4 + i] = fixture_param(names[i], per_layer[i % 12].a, per_layer[i % 12].b, 0);
    }
    plan_set set = {.params = params, .n_params = 4 + 12 * L};
    train_weights *w = open_weights(f, path);
    if (train_weights_check(f->st, w, &set, no_span) != PPS_OK)
        fail_msg("%s", f->text);
    for (uint32_t i = 0; i < set.n_params; i++) /* a misplaced slice would show in a norm of 1 */
        assert_true(norm(w, &params[i]) < 3);
    for (int l = 0; l < L; l++) { /* layer norms begin near 1, weights near 0 */
        assert_true(fabs(norm(w, &params[4 + 12 * l]) - 1) < 0.5);
        assert_true(norm(w, &params[4 + 12 * l + 2]) < 0.5);
    }
    train_weights_close(w);
}

static void oracle_qwen3_moe(void **state)
{
    fixture *f = *state;
    const char *path = fixture_oracle("qwen3_moe_tiny.safetensors");
    if (path == NULL) {
        print_message("no qwen3_moe_tiny.safetensors among the oracles\n");
        skip();
    }
    enum { C = 48, L = 4, E = 8, H = 32, PER_LAYER = 12 };
    static const struct {
        const char *name;
        uint32_t a, b, c;
    } per_layer[PER_LAYER] = {
        {"input_layernorm.weight", C, 0, 0},   {"self_attn.q_proj.weight", 64, C, 0},
        {"self_attn.k_proj.weight", 32, C, 0}, {"self_attn.v_proj.weight", 32, C, 0},
        {"self_attn.o_proj.weight", C, 64, 0}, {"self_attn.q_norm.weight", 16, 0, 0},
        {"self_attn.k_norm.weight", 16, 0, 0}, {"post_attention_layernorm.weight", C, 0, 0},
        {"mlp.gate.weight", E, C, 0},          {"mlp.experts.gate_proj", E, H, C},
        {"mlp.experts.up_proj", E, H, C},      {"mlp.experts.down_proj", E, C, H}};
    static char names[PER_LAYER * L][64];
    ir_param params[3 + PER_LAYER * L] = {fixture_param("model.embed_tokens.weight", 250, C, 0),
                                          fixture_param("model.norm.weight", C, 0, 0),
                                          fixture_param("lm_head.weight", 250, C, 0)};
    for (int i = 0; i < PER_LAYER * L; i++) {
        int k = i % PER_LAYER;
        snprintf(names[i], sizeof names[i], "model.layers.%d.%s", i / PER_LAYER, per_layer[k].name);
        params[3 + i] = fixture_param(names[i], per_layer[k].a, per_layer[k].b, per_layer[k].c);
        params[3 + i].flags = per_layer[k].c != 0 ? IR_PARAM_EXPERT : 0;
    }
    plan_set set = {.params = params, .n_params = 3 + PER_LAYER * L};
    train_weights *w = open_weights(f, path);
    if (train_weights_check(f->st, w, &set, no_span) != PPS_OK)
        fail_msg("%s", f->text);
    for (uint32_t i = 0; i < set.n_params; i++)
        assert_true(norm(w, &params[i]) < 3);
    /* expert 3's slice, read across its edges, is its own tensor */
    ir_param one = fixture_param("model.layers.2.mlp.experts.3.up_proj.weight", H, C, 0);
    ir_param all = params[3 + 2 * PER_LAYER + 10];
    float a[H * C], b[H * C + 10];
    train_weights_read(w, &one, 0, H * C, a);
    train_weights_read(w, &all, 3 * H * C - 5, H * C + 10, b);
    assert_memory_equal(a, b + 5, sizeof a);
    train_weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_slice_is_the_same),
        cmocka_unit_test(values_depend_on_name_and_seed),
        cmocka_unit_test(values_are_normal),
        cmocka_unit_test_setup_teardown(hostile_headers, fixture_open, fixture_close),
        cmocka_unit_test_setup_teardown(checkpoint_of_two_layers, fixture_open, fixture_close),
        cmocka_unit_test_setup_teardown(model_against_file, fixture_open, fixture_close),
        cmocka_unit_test(slices_cut_across_parameters),
        cmocka_unit_test_setup_teardown(ranks_hold_slices_of_one_model, fixture_open,
                                        fixture_close),
        cmocka_unit_test_setup_teardown(saved_weights_come_back, fixture_open, fixture_close),
        cmocka_unit_test_setup_teardown(oracle_gpt2, fixture_open, fixture_close),
        cmocka_unit_test_setup_teardown(oracle_qwen3_moe, fixture_open, fixture_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
