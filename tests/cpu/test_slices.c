/* SPDX-License-Identifier: Apache-2.0
 *
 * Sequences in slices, in double: attention over slices one after the other is attention over the
 * whole; going back over them from last to first gives the gradients that differences give;
 * and what depends on the position knows where its slice begins.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/cpu/op_case.h"

enum { MOST = 4096 };

typedef struct sliced { /* attention of `slices` slices; operands slice by slice, [slices][B][T][n]
                         */
    plan_kernel k;
    size_t q, kv; /* elements of one slice */
    double in[3][MOST], out[MOST], lse[MOST], carry[MOST], d_out[MOST], x[3][MOST], carried[MOST];
} sliced;

static const plan_kernel kernels[] = {
    {.op = IR_ATTENTION_SLICE,
     .B = 2,
     .T = 3,
     .slices = 4,
     .attrs = {.heads = 4, .kv_heads = 2, .head_dim = 6}},
    {.op = IR_ATTENTION_SLICE, /* each slice longer than a tile */
     .B = 1,
     .T = 70,
     .slices = 2,
     .attrs = {.heads = 2, .kv_heads = 1, .head_dim = 2}},
    {.op = IR_ATTENTION_SLICE,
     .B = 3,
     .T = 1,
     .slices = 5,
     .attrs = {.heads = 3, .kv_heads = 3, .head_dim = 4}},
};

static void init(sliced *s, const plan_kernel *k)
{
    uint32_t seed = 23;
    memset(s, 0xff, sizeof *s);
    s->k = *k;
    s->q = cpu_positions(k) * k->attrs.heads * k->attrs.head_dim;
    s->kv = cpu_positions(k) * k->attrs.kv_heads * k->attrs.head_dim;
    assert_true(s->q * k->slices <= MOST && 2 * s->kv * k->slices <= MOST);
    for (size_t i = 0; i < s->q * k->slices; ++i) {
        s->in[0][i] = next_random(&seed);
        s->d_out[i] = next_random(&seed);
    }
    for (size_t i = 0; i < s->kv * k->slices; ++i) {
        s->in[1][i] = next_random(&seed);
        s->in[2][i] = next_random(&seed);
    }
}

static void forward(sliced *s)
{
    size_t rows = cpu_positions(&s->k) * s->k.attrs.heads;
    for (uint32_t i = 0; i < s->k.slices; ++i) {
        cpu_context cx = {.slice = i};
        void *p[] = {s->in[0] + i * s->q, s->in[1] + i * s->kv, s->in[2] + i * s->kv,
                     s->out + i * s->q,   s->lse + i * rows,    s->carry};
        s->k.n_operands = 6;
        assert_int_equal(cpu_kernel_find_f64(s->k.op, IR_PHASE_F)(&s->k, p, &cx), PPS_OK);
    }
}

static void backward(sliced *s)
{
    size_t rows = cpu_positions(&s->k) * s->k.attrs.heads;
    for (uint32_t i = s->k.slices; i-- > 0;) {
        cpu_context cx = {.slice = i};
        void *p[] = {
            s->in[0] + i * s->q, s->out + i * s->q,  s->lse + i * rows,   s->carry,
            s->d_out + i * s->q, s->x[0] + i * s->q, s->x[1] + i * s->kv, s->x[2] + i * s->kv,
            s->carried};
        s->k.n_operands = 9;
        assert_int_equal(cpu_kernel_find_f64(s->k.op, IR_PHASE_BI)(&s->k, p, &cx), PPS_OK);
    }
}

/* From slices to whole sequences: [slices][B][T][n] to [B][slices * T][n]. */
static void join(const sliced *s, const double *from, size_t n, double *to)
{
    size_t B = s->k.B, T = s->k.T;
    for (size_t i = 0; i < s->k.slices; ++i)
        for (size_t b = 0; b < B; ++b)
            memcpy(to + (b * s->k.slices + i) * T * n, from + (i * B + b) * T * n,
                   T * n * sizeof *to);
}

static void near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * (1 + fabs(want))))
        fail_msg("%.12g instead of %.12g", got, want);
}

static void as_whole_sequences(void **state)
{
    static sliced s, w; /* w: whole */
    static double out[MOST];
    (void)state;
    for (size_t n = 0; n < sizeof kernels / sizeof *kernels; ++n) {
        size_t heads = kernels[n].attrs.heads, dim = kernels[n].attrs.head_dim;
        size_t kv = kernels[n].attrs.kv_heads * dim, widths[3] = {heads * dim, kv, kv};
        init(&s, &kernels[n]);
        init(&w, &kernels[n]);
        forward(&s);
        w.k.op = IR_ATTENTION;
        w.k.T *= w.k.slices;
        for (size_t i = 0; i < 3; ++i)
            join(&s, s.in[i], widths[i], w.in[i]);
        join(&s, s.d_out, widths[0], w.d_out);
        cpu_context cx = {0};
        void *f[] = {w.in[0], w.in[1], w.in[2], w.out, w.lse};
        void *b[] = {w.in[0], w.in[1], w.in[2], w.out, w.lse, w.d_out, w.x[0], w.x[1], w.x[2]};
        assert_int_equal(cpu_kernel_find_f64(IR_ATTENTION, IR_PHASE_F)(&w.k, f, &cx), PPS_OK);
        assert_int_equal(cpu_kernel_find_f64(IR_ATTENTION, IR_PHASE_BI)(&w.k, b, &cx), PPS_OK);
        backward(&s);
        join(&s, s.out, widths[0], out);
        for (size_t i = 0; i < s.q * s.k.slices; ++i)
            near(out[i], w.out[i], 1e-12);
        for (size_t x = 0; x < 3; ++x) {
            join(&s, s.x[x], widths[x], out);
            for (size_t i = 0; i < (x == 0 ? s.q : s.kv) * s.k.slices; ++i)
                near(out[i], w.x[x][i], 1e-12);
        }
    }
}

static double loss(sliced *s)
{
    double sum = 0;
    forward(s);
    for (size_t i = 0; i < s->q * s->k.slices; ++i)
        sum += s->out[i] * s->d_out[i];
    return sum;
}

static void gradients_by_differences(void **state)
{
    static sliced s, moved;
    const double step = 1e-5;
    (void)state;
    for (size_t n = 0; n < sizeof kernels / sizeof *kernels; ++n) {
        init(&s, &kernels[n]);
        forward(&s);
        backward(&s);
        moved = s;
        for (size_t x = 0; x < 3; ++x)
            for (size_t i = 0; i < (x == 0 ? s.q : s.kv) * s.k.slices; i += n == 1 ? 13 : 1) {
                moved.in[x][i] = s.in[x][i] + step;
                double after = loss(&moved);
                moved.in[x][i] = s.in[x][i] - step;
                double before = loss(&moved);
                moved.in[x][i] = s.in[x][i];
                near(s.x[x][i], (after - before) / (2 * step), 1e-6);
            }
    }
}

/* An op on positions, in slices of T, against the same on slices * T at once; B is 1. */
static void places(uint32_t op, const plan_kernel *kernel)
{
    enum { N = 8, T = 5, SLICES = 3, ALL = N * T * SLICES };
    double in[ALL], table[ALL], out[ALL], whole[ALL], g_table[ALL] = {0}, g_whole[ALL] = {0};
    uint32_t seed = 3;
    plan_kernel k = *kernel, w = *kernel;
    k.T = T;
    w.T = T * SLICES;
    k.B = w.B = 1;
    k.slices = SLICES;
    w.slices = 1;
    k.n_in = k.n_out = w.n_in = w.n_out = N;
    for (size_t i = 0; i < ALL; ++i) {
        in[i] = next_random(&seed);
        table[i] = next_random(&seed);
    }
    bool has_table = op == IR_POSITION;
    for (uint32_t phase = 0; phase < IR_PHASE_COUNT; ++phase) {
        cpu_kernel_fn fn = cpu_kernel_find_f64(op, phase);
        if (fn == NULL)
            continue;
        for (uint32_t i = 0; i < SLICES; ++i) {
            cpu_context cx = {.slice = i};
            size_t at = i * N * T;
            void *p[] = {in + at, has_table && phase == IR_PHASE_F ? table : out + at, out + at};
            if (phase == IR_PHASE_BW)
                p[1] = g_table;
            assert_int_equal(fn(&k, p, &cx), PPS_OK);
        }
        cpu_context cx = {0};
        void *p[] = {in, has_table && phase == IR_PHASE_F ? table : whole, whole};
        if (phase == IR_PHASE_BW)
            p[1] = g_whole;
        assert_int_equal(fn(&w, p, &cx), PPS_OK);
        assert_memory_equal(phase == IR_PHASE_BW ? g_table : out,
                            phase == IR_PHASE_BW ? g_whole : whole, sizeof out);
    }
}

static void positions_count_from_the_sequence(void **state)
{
    (void)state;
    places(IR_POSITION, &(plan_kernel){.op = IR_POSITION, .ep = 1});
    places(IR_ROPE,
           &(plan_kernel){.op = IR_ROPE, .attrs = {.heads = 2, .head_dim = 4, .theta = 100}});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_whole_sequences),
        cmocka_unit_test(gradients_by_differences),
        cmocka_unit_test(positions_count_from_the_sequence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
