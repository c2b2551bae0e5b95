/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention in rounds over 2, 3 and 4 parts of the sequence against whole attention, output and
 * gradients, in double: the ranks' rounds run here one after the other, each with the keys of
 * another rank. Whole attention's gradients are held to central differences by test_gradients.c, so
 * equal ones are right; some are held to differences of the rounds themselves all the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "runtime/cpu/kernels.h"

enum { MOST_PARTS = 4 };

typedef struct rounds_case {
    const char *name;
    uint32_t parts, B, T, heads, kv_heads, dim; /* T: of the whole sequence */
    double spread;                              /* of q and k: large ones make scores underflow */
} rounds_case;

static const rounds_case cases[] = {
    {"two parts", 2, 2, 12, 3, 3, 4, 1},
    {"two parts, grouped", 2, 2, 16, 4, 2, 6, 1},
    {"three parts", 3, 1, 18, 2, 1, 4, 1},
    {"four parts, one position a block", 4, 2, 8, 2, 2, 2, 1},
    {"two parts, blocks of several tiles", 2, 1, 300, 2, 1, 4, 1},
    {"four parts, scores far apart", 4, 1, 24, 2, 2, 4, 60},
};
enum { N_CASES = sizeof cases / sizeof *cases };

typedef struct tensors { /* one rank's, or with `parts` = 0 the whole sequence's */
    double *q, *k, *v, *out, *lse, *d_out, *dq, *dk, *dv;
} tensors;

static size_t wide(const rounds_case *c, uint32_t parts)
{
    return (size_t)c->B * c->T / (parts ? parts : 1) * c->heads * c->dim;
}

static size_t narrow(const rounds_case *c, uint32_t parts)
{
    return wide(c, parts) / c->heads * c->kv_heads;
}

static double *numbers(size_t n)
{
    double *at = malloc(n * sizeof *at);
    assert_non_null(at);
    for (size_t i = 0; i < n; ++i)
        at[i] = NAN;
    return at;
}

static void tensors_init(tensors *t, const rounds_case *c, uint32_t parts)
{
    double **const all[9] = {&t->q, &t->out, &t->d_out, &t->dq, &t->k,
                             &t->v, &t->dk,  &t->dv,    &t->lse};
    for (int i = 0; i < 9; ++i)
        *all[i] = numbers(i < 4 ? wide(c, parts) : narrow(c, parts) + wide(c, parts));
}

static void tensors_done(tensors *t)
{
    double *const all[9] = {t->q, t->k, t->v, t->out, t->lse, t->d_out, t->dq, t->dk, t->dv};
    for (int i = 0; i < 9; ++i)
        free(all[i]);
}

static plan_kernel kernel(const rounds_case *c, uint32_t op, uint32_t parts, uint32_t shift)
{
    uint32_t width = c->heads * c->dim;
    return (plan_kernel){.op = (uint16_t)op,
                         .B = c->B,
                         .T = c->T / (parts ? parts : 1),
                         .n_in = width,
                         .n_out = width,
                         .attrs = {.heads = c->heads,
                                   .kv_heads = c->kv_heads,
                                   .head_dim = c->dim,
                                   .parts = parts,
                                   .shift = shift}};
}

static void run(const plan_kernel *k, uint32_t phase, uint32_t part, void **p)
{
    cpu_context cx = {.part = part};
    assert_int_equal(cpu_kernel_find_f64(k->op, phase)(k, p, &cx), PPS_OK);
}

/* Copy rank `part`'s positions between the whole and its own; `row` elements per position. */
static void deal(const rounds_case *c, uint32_t part, double *whole, double *own, size_t row,
                 bool back)
{
    size_t local = c->T / c->parts, block = local / 2;
    for (size_t b = 0; b < c->B; ++b)
        for (size_t t = 0; t < local; ++t) {
            size_t at =
                t < block ? part * block + t : (2 * c->parts - 1 - part) * block + t - block;
            double *w = whole + (b * c->T + at) * row, *o = own + (b * local + t) * row;
            memcpy(back ? w : o, back ? o : w, row * sizeof *w);
        }
}

typedef struct ranks { /* all ranks of a team, and the state between their rounds */
    const rounds_case *c;
    tensors at[MOST_PARTS];
    double *sum[MOST_PARTS][MOST_PARTS], *stats[MOST_PARTS][MOST_PARTS];
} ranks;

static void forward(ranks *r)
{
    const rounds_case *c = r->c;
    for (uint32_t i = 0; i < c->parts; ++i) {
        for (uint32_t j = 0; j < c->parts; ++j) {
            const tensors *keys = &r->at[(i + c->parts - j) % c->parts];
            plan_kernel k = kernel(c, IR_ATTENTION_PART, c->parts, j);
            void *p[7] = {r->at[i].q, keys->k, keys->v, r->sum[i][j], r->stats[i][j]};
            if (j > 0) {
                p[5] = r->sum[i][j - 1];
                p[6] = r->stats[i][j - 1];
            }
            run(&k, IR_PHASE_F, i, p);
        }
        plan_kernel end = kernel(c, IR_ATTENTION_END, c->parts, 0);
        run(&end, IR_PHASE_F, i,
            (void *[]){r->sum[i][c->parts - 1], r->stats[i][c->parts - 1], r->at[i].out,
                       r->at[i].lse});
    }
}

static void add(double *to, const double *from, size_t n)
{
    for (size_t i = 0; i < n; ++i)
        to[i] += from[i];
}

static void backward(ranks *r)
{
    const rounds_case *c = r->c;
    size_t nq = wide(c, c->parts), nk = narrow(c, c->parts);
    for (uint32_t i = 0; i < c->parts; ++i) {
        memset(r->at[i].dq, 0, nq * sizeof(double));
        memset(r->at[i].dk, 0, nk * sizeof(double));
        memset(r->at[i].dv, 0, nk * sizeof(double));
    }
    for (uint32_t i = 0; i < c->parts; ++i) {
        double *d[2] = {numbers(nq), numbers(nq)}, *ends[2] = {numbers(2 * nq), numbers(2 * nq)};
        double *dq = numbers(nq), *dk = numbers(nk), *dv = numbers(nk);
        plan_kernel end = kernel(c, IR_ATTENTION_END, c->parts, 0);
        run(&end, IR_PHASE_BI, i,
            (void *[]){r->at[i].out, r->at[i].lse, r->at[i].d_out, d[0], ends[0]});
        for (uint32_t j = c->parts; j-- > 0;) {
            uint32_t owner = (i + c->parts - j) % c->parts, now = (c->parts - 1 - j) % 2;
            plan_kernel k = kernel(c, IR_ATTENTION_PART, c->parts, j);
            run(&k, IR_PHASE_BI, i,
                (void *[]){r->at[i].q, r->at[owner].k, r->at[owner].v, d[now], ends[now], dq, dk,
                           dv, d[!now], ends[!now]});
            add(r->at[i].dq, dq, nq);
            add(r->at[owner].dk, dk, nk);
            add(r->at[owner].dv, dv, nk);
        }
        for (int n = 0; n < 2; ++n) {
            free(d[n]);
            free(ends[n]);
        }
        free(dq);
        free(dk);
        free(dv);
    }
}

static void near(const char *name, const char *what, const double *got, const double *want,
                 size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; ++i)
        most = fmax(most, fabs(want[i]));
    for (size_t i = 0; i < n; ++i)
        if (!(fabs(got[i] - want[i]) <= 1e-12 * most))
            fail_msg("%s: %s[%zu] is %.15g, not %.15g", name, what, i, got[i], want[i]);
}

static void fill(double *at, size_t n, double spread, uint32_t *seed)
{
    for (size_t i = 0; i < n; ++i) {
        *seed = *seed * 1664525u + 1013904223u;
        at[i] = spread * ((double)(*seed >> 8) / (1 << 23) - 1);
    }
}

static void setup(ranks *r, tensors *whole, const rounds_case *c)
{
    uint32_t seed = 17;
    size_t row = c->heads * c->dim, kv_row = c->kv_heads * c->dim;
    *r = (ranks){.c = c};
    tensors_init(whole, c, 0);
    fill(whole->q, wide(c, 0), c->spread, &seed);
    fill(whole->k, narrow(c, 0), c->spread, &seed);
    fill(whole->v, narrow(c, 0), 1, &seed);
    fill(whole->d_out, wide(c, 0), 1, &seed);
    for (uint32_t i = 0; i < c->parts; ++i) {
        tensors_init(&r->at[i], c, c->parts);
        deal(c, i, whole->q, r->at[i].q, row, false);
        deal(c, i, whole->k, r->at[i].k, kv_row, false);
        deal(c, i, whole->v, r->at[i].v, kv_row, false);
        deal(c, i, whole->d_out, r->at[i].d_out, row, false);
        for (uint32_t j = 0; j < c->parts; ++j) {
            r->sum[i][j] = numbers(wide(c, c->parts));
            r->stats[i][j] = numbers(wide(c, c->parts) / c->dim * 2);
        }
    }
}

static void teardown(ranks *r, tensors *whole)
{
    tensors_done(whole);
    for (uint32_t i = 0; i < r->c->parts; ++i) {
        tensors_done(&r->at[i]);
        for (uint32_t j = 0; j < r->c->parts; ++j) {
            free(r->sum[i][j]);
            free(r->stats[i][j]);
        }
    }
}

static void as_whole(void **state)
{
    const rounds_case *c = *state;
    size_t row = c->heads * c->dim, kv_row = c->kv_heads * c->dim;
    ranks r;
    tensors whole, got;
    setup(&r, &whole, c);
    tensors_init(&got, c, 0);
    plan_kernel k = kernel(c, IR_ATTENTION, 0, 0);
    run(&k, IR_PHASE_F, 0, (void *[]){whole.q, whole.k, whole.v, whole.out, whole.lse});
    run(&k, IR_PHASE_BI, 0,
        (void *[]){whole.q, whole.k, whole.v, whole.out, whole.lse, whole.d_out, whole.dq, whole.dk,
                   whole.dv});
    forward(&r);
    backward(&r);
    for (uint32_t i = 0; i < c->parts; ++i) {
        deal(c, i, got.out, r.at[i].out, row, true);
        deal(c, i, got.lse, r.at[i].lse, c->heads, true);
        deal(c, i, got.dq, r.at[i].dq, row, true);
        deal(c, i, got.dk, r.at[i].dk, kv_row, true);
        deal(c, i, got.dv, r.at[i].dv, kv_row, true);
    }
    near(c->name, "out", got.out, whole.out, wide(c, 0));
    near(c->name, "log-sum-exp", got.lse, whole.lse, wide(c, 0) / c->dim);
    near(c->name, "dq", got.dq, whole.dq, wide(c, 0));
    near(c->name, "dk", got.dk, whole.dk, narrow(c, 0));
    near(c->name, "dv", got.dv, whole.dv, narrow(c, 0));
    tensors_done(&got);
    teardown(&r, &whole);
}

static double loss(ranks *r)
{
    double sum = 0;
    forward(r);
    for (uint32_t i = 0; i < r->c->parts; ++i)
        for (size_t j = 0; j < wide(r->c, r->c->parts); ++j)
            sum += r->at[i].out[j] * r->at[i].d_out[j];
    return sum;
}

/* Central differences through all rounds of all ranks: a key's reach other ranks' outputs. */
static void differences(void **state)
{
    const rounds_case *c = *state;
    ranks r;
    tensors whole;
    if (c->spread > 1 || c->T > 20)
        return; /* too steep for a step, or too many */
    setup(&r, &whole, c);
    forward(&r);
    backward(&r);
    for (uint32_t i = 0; i < c->parts; ++i)
        for (int which = 0; which < 3; ++which) {
            double *x = which == 0 ? r.at[i].q : which == 1 ? r.at[i].k : r.at[i].v;
            const double *dx = which == 0 ? r.at[i].dq : which == 1 ? r.at[i].dk : r.at[i].dv;
            size_t n = which == 0 ? wide(c, c->parts) : narrow(c, c->parts);
            for (size_t j = 0; j < n; ++j) {
                const double step = 1e-5;
                double was = x[j];
                x[j] = was + step;
                double after = loss(&r);
                x[j] = was - step;
                double want = (after - loss(&r)) / (2 * step);
                x[j] = was;
                if (!(fabs(dx[j] - want) <= 1e-6 * (1 + fabs(want))))
                    fail_msg("%s: rank %u's d%c[%zu] is %.9g, by differences %.9g", c->name, i,
                             "qkv"[which], j, dx[j], want);
            }
        }
    teardown(&r, &whole);
}

/* Every rank's rounds cost the same: what the dealing of blocks is for. */
static void even_work(void **state)
{
    (void)state;
    const uint32_t parts = 4, block = 3;
    for (uint32_t shift = 1; shift < parts; ++shift)
        for (uint32_t part = 0; part < parts; ++part) {
            plan_kernel k = {.T = 2 * block, .attrs = {.parts = parts}};
            cpu_context mine = {.part = part},
                        theirs = {.part = (part + parts - shift) % parts};
            uint32_t seen = 0;
            for (uint32_t t = 0; t < k.T; ++t)
                for (uint32_t s = 0; s < k.T; ++s)
                    seen += cpu_place(&k, &theirs, k.T, s) <= cpu_place(&k, &mine, k.T, t);
            assert_int_equal(seen, 2 * block * block);
        }
}

int main(void)
{
    struct CMUnitTest tests[2 * N_CASES + 1] = {cmocka_unit_test(even_work)};
    for (size_t i = 0; i < N_CASES; ++i) {
        tests[1 + i] = (struct CMUnitTest){
            .name = cases[i].name, .test_func = as_whole, .initial_state = (void *)&cases[i]};
        tests[1 + N_CASES + i] = (struct CMUnitTest){
            .name = cases[i].name, .test_func = differences, .initial_state = (void *)&cases[i]};
    }
    return _cmocka_run_group_tests("rounds", tests, 2 * N_CASES + 1, NULL, NULL);
}
