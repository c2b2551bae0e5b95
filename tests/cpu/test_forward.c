/* SPDX-License-Identifier: Apache-2.0
 *
 * Forward kernels against their definitions in ops.def, written out plainly, in double; and what
 * the kernels refuse. Gradients then follow from test_gradients.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/cpu/op_case.h"

static void near(const op_case *c, const char *what, size_t at, double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * (1 + fabs(want))))
        fail_msg("%s: %s[%zu] is %.15g, not %.15g", c->name, what, at, got, want);
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; ++i)
        sum += a[i] * b[i];
    return sum;
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double logsumexp(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; ++i)
        sum += exp(x[i]);
    return log(sum);
}

static void norm(operands *a)
{
    const plan_kernel *k = &a->c->k;
    bool centred = k->op == IR_LAYERNORM;
    size_t n = centred ? k->n_in : k->attrs.group;
    const double *weight = operand_of(a, 'p', 0)->real, *bias = operand_of(a, 'p', 1)->real;
    for (size_t r = 0; r < cpu_positions(k) * k->n_in / n; ++r) {
        const double *x = operand_of(a, 'i', 0)->real + r * n;
        double mean = 0, square = 0;
        for (size_t j = 0; centred && j < n; ++j)
            mean += x[j] / (double)n;
        for (size_t j = 0; j < n; ++j)
            square += (x[j] - mean) * (x[j] - mean) / (double)n;
        double scale = sqrt(square + (double)k->attrs.eps);
        for (size_t j = 0; j < n; ++j)
            near(a->c, "o", r * n + j, operand_of(a, 'o', 0)->real[r * n + j],
                 weight[j] * (x[j] - mean) / scale + (centred ? bias[j] : 0));
    }
}

/* The place in its sequence of local position t, of a rank that holds blocks `part` and
 * 2 parts - 1 - part. */
static size_t place(const plan_kernel *k, size_t part, size_t t)
{
    size_t block = k->T / 2;
    if (k->attrs.parts == 0)
        return t;
    return t / block == 0 ? part * block + t : (2 * k->attrs.parts - 1 - part) * block + t - block;
}

static void attention(operands *a)
{
    const plan_kernel *k = &a->c->k;
    size_t dim = k->attrs.head_dim, heads = k->attrs.heads, kv_heads = k->attrs.kv_heads;
    const double *q = operand_of(a, 'i', 0)->real, *key = operand_of(a, 'i', 1)->real;
    const double *value = operand_of(a, 'i', 2)->real;
    double score[128];
    for (size_t r = 0; r < cpu_positions(k) * heads; ++r) {
        size_t h = r % heads, t = r / heads % k->T, b = r / heads / k->T, kv = h * kv_heads / heads;
        for (size_t s = 0; s <= t; ++s)
            score[s] = dot(q + r * dim, key + ((b * k->T + s) * kv_heads + kv) * dim, dim) /
                       sqrt((double)dim);
        double lse = logsumexp(score, t + 1);
        near(a->c, "s", r, operand_of(a, 's', 0)->real[r], lse);
        for (size_t j = 0; j < dim; ++j) {
            double want = 0;
            for (size_t s = 0; s <= t; ++s)
                want += exp(score[s] - lse) * value[((b * k->T + s) * kv_heads + kv) * dim + j];
            near(a->c, "o", r * dim + j, operand_of(a, 'o', 0)->real[r * dim + j], want);
        }
    }
}

/* One round: greatest score, sum and weighted sum so far, from what the round before left. */
static void attention_round(operands *a)
{
    const plan_kernel *k = &a->c->k;
    size_t dim = k->attrs.head_dim, heads = k->attrs.heads, kv_heads = k->attrs.kv_heads;
    size_t owner = (a->c->part + k->attrs.parts - k->attrs.shift) % k->attrs.parts;
    const double *q = operand_of(a, 'i', 0)->real, *key = operand_of(a, 'i', 1)->real;
    const double *value = operand_of(a, 'i', 2)->real, *stats = operand_of(a, 'o', 1)->real;
    for (size_t r = 0; r < cpu_positions(k) * heads; ++r) {
        size_t h = r % heads, t = r / heads % k->T, b = r / heads / k->T, kv = h * kv_heads / heads;
        double top = -INFINITY, total = 0, out[16] = {0}, score[128];
        if (k->attrs.shift > 0)
            top = operand_of(a, 'i', 4)->real[2 * r];
        double was = top;
        for (size_t s = 0; s < k->T; ++s) {
            score[s] = -INFINITY;
            if (place(k, owner, s) <= place(k, a->c->part, t))
                score[s] = dot(q + r * dim, key + ((b * k->T + s) * kv_heads + kv) * dim, dim) /
                           sqrt((double)dim);
            top = score[s] > top ? score[s] : top;
        }
        if (k->attrs.shift > 0) {
            total = operand_of(a, 'i', 4)->real[2 * r + 1] * exp(was - top);
            for (size_t j = 0; j < dim; ++j)
                out[j] = operand_of(a, 'i', 3)->real[r * dim + j] * exp(was - top);
        }
        for (size_t s = 0; s < k->T; ++s) {
            total += exp(score[s] - top);
            for (size_t j = 0; j < dim; ++j)
                out[j] += exp(score[s] - top) * value[((b * k->T + s) * kv_heads + kv) * dim + j];
        }
        near(a->c, "o1", 2 * r, stats[2 * r], top);
        near(a->c, "o1", 2 * r + 1, stats[2 * r + 1], total);
        for (size_t j = 0; j < dim; ++j)
            near(a->c, "o0", r * dim + j, operand_of(a, 'o', 0)->real[r * dim + j], out[j]);
    }
}

static void attention_end(operands *a)
{
    size_t dim = a->c->k.attrs.head_dim;
    const double *stats = operand_of(a, 'i', 1)->real;
    for (size_t i = 0; i < operand_of(a, 'o', 0)->n; ++i)
        near(a->c, "o", i, operand_of(a, 'o', 0)->real[i],
             operand_of(a, 'i', 0)->real[i] / stats[2 * (i / dim) + 1]);
    for (size_t r = 0; r < operand_of(a, 's', 0)->n; ++r)
        near(a->c, "s", r, operand_of(a, 's', 0)->real[r], stats[2 * r] + log(stats[2 * r + 1]));
}

static void rope(operands *a)
{
    const plan_kernel *k = &a->c->k;
    const double *in = operand_of(a, 'i', 0)->real, *out = operand_of(a, 'o', 0)->real;
    size_t dim = k->attrs.head_dim;
    for (size_t i = 0; i < operand_of(a, 'i', 0)->n; ++i) {
        size_t j = i % dim, t = place(k, a->c->part, i / k->n_in % k->T);
        bool upper = j >= dim / 2;
        double angle =
            (double)t * pow((double)k->attrs.theta, -2.0 * (double)(j % (dim / 2)) / (double)dim);
        double other = upper ? in[i - dim / 2] * sin(angle) : -in[i + dim / 2] * sin(angle);
        near(a->c, "o", i, out[i], in[i] * cos(angle) + other);
    }
}

static void pointwise(operands *a)
{
    const plan_kernel *k = &a->c->k;
    const double *x = operand_of(a, 'i', 0)->real, *y = operand_of(a, 'i', 1)->real;
    for (size_t i = 0; i < operand_of(a, 'o', 0)->n; ++i) {
        double want = x[i];
        if (k->op == IR_GELU)
            want *= (1 + tanh(sqrt(2 / acos(-1)) * (x[i] + 0.044715 * x[i] * x[i] * x[i]))) / 2;
        else if (k->op == IR_SWIGLU)
            want = silu(x[i]) * y[i];
        else if (k->op == IR_ADD)
            want += y[i];
        else
            want = x[i / k->n_out * k->n_in + k->attrs.begin + i % k->n_out];
        near(a->c, "o", i, operand_of(a, 'o', 0)->real[i], want);
    }
}

static void linear(operands *a)
{
    const plan_kernel *k = &a->c->k;
    for (size_t i = 0; i < operand_of(a, 'o', 0)->n; ++i) {
        size_t r = i / k->n_out, j = i % k->n_out;
        double want = dot(operand_of(a, 'i', 0)->real + r * k->n_in,
                          operand_of(a, 'p', 0)->real + j * k->n_in, k->n_in);
        near(a->c, "o", i, operand_of(a, 'o', 0)->real[i],
             want + (a->c->no_bias ? 0 : operand_of(a, 'p', 1)->real[j]));
    }
}

static void table(operands *a)
{
    const plan_kernel *k = &a->c->k;
    for (size_t i = 0; i < operand_of(a, 'o', 0)->n; ++i) {
        size_t r = i / k->n_out, j = i % k->n_out;
        const operand *in = operand_of(a, 'i', 0);
        const double *rows = operand_of(a, 'p', 0)->real;
        double want = in->is_int
                          ? rows[(size_t)in->ints[r] * k->n_out + j]
                          : in->real[i] + rows[place(k, a->c->part, r % k->T) * k->n_out + j];
        near(a->c, "o", i, operand_of(a, 'o', 0)->real[i], want);
    }
}

/* How many choices of batch row b, dropped or not, went to expert e. */
static double chosen(const operands *a, const int32_t *expert, size_t b, size_t e)
{
    size_t per_row = (size_t)a->c->k.T * a->c->k.attrs.top_k, n = 0;
    for (size_t c = b * per_row; c < (b + 1) * per_row; ++c)
        n += (size_t)expert[c] == e;
    return (double)n;
}

/* Is choice c beyond its expert's capacity: have earlier ones of its batch row filled it? */
static bool dropped(const operands *a, const int32_t *expert, size_t c)
{
    const plan_kernel *k = &a->c->k;
    size_t per_row = (size_t)k->T * k->attrs.top_k, before = 0;
    for (size_t other = c / per_row * per_row; other < c; ++other)
        before += expert[other] == expert[c];
    return k->attrs.capacity > 0 && before >= k->attrs.capacity;
}

static void router(operands *a)
{
    const plan_kernel *k = &a->c->k;
    size_t n = k->attrs.experts, top_k = k->attrs.top_k, all = cpu_positions(k) * top_k;
    const int32_t *expert = operand_of(a, 'o', 1)->ints, *row = expert + all;
    const double *gates = operand_of(a, 'o', 0)->real, *logits = operand_of(a, 'i', 0)->real;
    double aux = 0;
    for (size_t b = 0; b < k->B; ++b)
        for (size_t e = 0; e < n; ++e) {
            double mean = 0;
            for (size_t t = 0; t < k->T; ++t) {
                const double *logit = logits + (b * k->T + t) * n;
                mean += exp(logit[e] - logsumexp(logit, n)) / k->T;
            }
            aux += (double)k->attrs.aux_coef * (double)n * chosen(a, expert, b, e) /
                   (k->T * (double)top_k) * mean / k->attrs.count;
        }
    near(a->c, "l", 0, *operand_of(a, 'l', 0)->loss, aux);
    for (size_t r = 0; r < cpu_positions(k); ++r) {
        const double *logit = logits + r * n;
        double sum = 0, lse = logsumexp(logit, n);
        for (size_t j = 0; j < top_k; ++j) {
            size_t better = 0;
            for (size_t e = 0; e < n; ++e)
                better += logit[e] > logit[expert[r * top_k + j]];
            assert_int_equal(better, j);
            sum += exp(logit[expert[r * top_k + j]] - lse);
        }
        for (size_t j = 0; j < top_k; ++j)
            near(a->c, "o", r * top_k + j, gates[r * top_k + j],
                 exp(logit[expert[r * top_k + j]] - lse) / (k->attrs.renorm ? sum : 1));
    }
    size_t n_dropped = 0;
    for (size_t c = 0; c < all; ++c) { /* rows: by expert, then by choice */
        size_t before = 0;
        for (size_t other = 0; other < all; ++other)
            before += !dropped(a, expert, other) &&
                      (expert[other] < expert[c] || (expert[other] == expert[c] && other < c));
        assert_int_equal(row[c], dropped(a, expert, c) ? -1 : (int)before);
        n_dropped += dropped(a, expert, c);
    }
    assert_true((n_dropped > 0) == (k->attrs.capacity > 0)); /* the cases are not idle */
    for (size_t e = 0; e < n; ++e) {
        int count = 0;
        for (size_t c = 0; c < all; ++c)
            count += (size_t)expert[c] == e && !dropped(a, expert, c);
        assert_int_equal(operand_of(a, 'o', 2)->ints[e], count);
    }
}

static void exchange(operands *a)
{
    const plan_kernel *k = &a->c->k;
    size_t n = k->n_in, top_k = k->attrs.top_k, all = cpu_positions(k) * top_k;
    const double *in = operand_of(a, 'i', 0)->real, *out = operand_of(a, 'o', 0)->real;
    bool is_dispatch = k->op == IR_DISPATCH;
    const int32_t *row = operand_of(a, 'i', is_dispatch ? 1 : 2)->ints + all;
    for (size_t i = 0; i < cpu_positions(k) * n; ++i) {
        double want = 0;
        for (size_t j = 0; j < top_k; ++j) {
            size_t c = i / n * top_k + j, at = (size_t)row[c] * n + i % n;
            if (row[c] < 0)
                continue;
            if (is_dispatch)
                near(a->c, "o", at, out[at], in[i]);
            else
                want += operand_of(a, 'i', 1)->real[c] * in[at];
        }
        if (!is_dispatch)
            near(a->c, "o", i, out[i], want);
    }
}

static void experts(operands *a)
{
    const plan_kernel *k = &a->c->k;
    size_t n = k->n_in, hidden = k->attrs.hidden, own = k->attrs.experts / k->ep, row = 0;
    const int32_t *counts = operand_of(a, 'i', 1)->ints;
    const double *w[3];
    for (size_t i = 0; i < 3; ++i)
        w[i] = operand_of(a, 'p', i)->real;
    for (size_t e = 0; e < own; ++e)
        for (size_t source = 0; source < k->ep; ++source)
            for (int32_t i = 0; i < counts[source * k->attrs.experts + a->c->team_index * own + e];
                 ++i, ++row) {
                const double *x = operand_of(a, 'i', 0)->real + row * n;
                for (size_t j = 0; j < n; ++j) {
                    double want = 0;
                    for (size_t h = 0; h < hidden; ++h)
                        want += w[2][(e * n + j) * hidden + h] *
                                silu(dot(x, w[0] + (e * hidden + h) * n, n)) *
                                dot(x, w[1] + (e * hidden + h) * n, n);
                    near(a->c, "o", row * n + j, operand_of(a, 'o', 0)->real[row * n + j], want);
                }
            }
    assert_int_equal(row, k->n); /* the case fills its buffers exactly */
}

static void loss(operands *a)
{
    const plan_kernel *k = &a->c->k;
    const operand *second = operand_of(a, 'i', 1);
    const double *x = operand_of(a, 'i', 0)->real;
    double sum = 0;
    if (k->op == IR_CROSS_ENTROPY)
        for (size_t r = 0; r < second->n; ++r)
            sum += logsumexp(x + r * k->n_in, k->attrs.vocab) -
                   x[r * k->n_in + (size_t)second->ints[r]];
    else
        for (size_t i = 0; i < second->n; ++i)
            sum += (x[i] - second->real[i]) * (x[i] - second->real[i]);
    near(a->c, "l", 0, *operand_of(a, 'l', 0)->loss, sum / k->attrs.count);
}

static void definition(void **state)
{
    static void (*const checks[IR_OP_COUNT])(operands * a) = {
        [IR_EMBED] = table,
        [IR_POSITION] = table,
        [IR_LINEAR] = linear,
        [IR_RMSNORM] = norm,
        [IR_LAYERNORM] = norm,
        [IR_ROPE] = rope,
        [IR_ATTENTION] = attention,
        [IR_GELU] = pointwise,
        [IR_SWIGLU] = pointwise,
        [IR_ADD] = pointwise,
        [IR_SLICE] = pointwise,
        [IR_ROUTER] = router,
        [IR_DISPATCH] = exchange,
        [IR_EXPERTS] = experts,
        [IR_COMBINE] = exchange,
        [IR_CROSS_ENTROPY] = loss,
        [IR_MSE] = loss,
        [IR_ATTENTION_PART] = attention_round,
        [IR_ATTENTION_END] = attention_end,
        [IR_ATTENTION_SLICE] = attention,
    };
    const op_case *c = *state;
    operands a;
    operands_init(&a, c, 5, 0xff);
    operands_run(&a, cpu_kernel_find_f64, IR_PHASE_F, NULL);
    checks[c->k.op](&a);
    operands_done(&a);
}

static void ties_take_the_lower_expert(void **state)
{
    (void)state;
    const float logits[8] = {1, 3, 2, 3, 2, 3, 0, 2};
    const int32_t want[5] = {1, 3, 5, 2, 4};
    float gates[5];
    int32_t route[10], counts[8];
    double aux;
    void *p[] = {(void *)logits, gates, route, counts, &aux};
    plan_kernel k = {.op = IR_ROUTER,
                     .B = 1,
                     .T = 1,
                     .n_in = 8,
                     .n_out = 5,
                     .n_operands = 5,
                     .attrs = {.experts = 8, .top_k = 5, .count = 1}};
    cpu_context cx = {0};
    assert_int_equal(cpu_kernel_find(IR_ROUTER, IR_PHASE_F)(&k, p, &cx), PPS_OK);
    assert_memory_equal(route, want, sizeof want);
    assert_true(aux == 0);
}

/* Two batch rows of three tokens that all prefer expert 1, then expert 0, and a capacity of 2. */
static void capacity_is_of_a_batch_row(void **state)
{
    (void)state;
    const float logits[12] = {1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2};
    const int32_t want[24] = {1, 0, 1, 0, 1,  0,  1, 0, 1, 0, 1,  0,
                              4, 0, 5, 1, -1, -1, 6, 2, 7, 3, -1, -1};
    float gates[12];
    int32_t route[24], counts[2];
    double aux;
    uint64_t n_dropped = 10;
    void *p[] = {(void *)logits, gates, route, counts, &aux};
    plan_kernel k = {.op = IR_ROUTER,
                     .B = 2,
                     .T = 3,
                     .n_in = 2,
                     .n_out = 2,
                     .n_operands = 5,
                     .attrs = {.experts = 2, .top_k = 2, .capacity = 2, .count = 2}};
    cpu_context cx = {.dropped = &n_dropped};
    assert_int_equal(cpu_kernel_find(IR_ROUTER, IR_PHASE_F)(&k, p, &cx), PPS_OK);
    assert_memory_equal(route, want, sizeof want);
    assert_int_equal(counts[0], 4);
    assert_int_equal(counts[1], 4);
    assert_int_equal(n_dropped, 10 + 4);
    assert_true(gates[4] == gates[0]); /* a dropped choice keeps its gate */
}

static pps_status run_forward(operands *a, plan_kernel k)
{
    cpu_context cx = {.team_index = a->c->team_index};
    if (k.op == IR_EXPERTS) {
        void *p[] = {operand_of(a, 'i', 0)->at, operand_of(a, 'i', 1)->at,
                     operand_of(a, 'p', 0)->at, operand_of(a, 'p', 1)->at,
                     operand_of(a, 'p', 2)->at, operand_of(a, 'o', 0)->at,
                     operand_of(a, 's', 0)->at, operand_of(a, 'w', 0)->at};
        return cpu_kernel_find_f64(k.op, IR_PHASE_F)(&k, p, &cx);
    }
    if (k.op == IR_EMBED) {
        void *p[] = {operand_of(a, 'i', 0)->at, operand_of(a, 'p', 0)->at,
                     operand_of(a, 'o', 0)->at};
        return cpu_kernel_find_f64(k.op, IR_PHASE_F)(&k, p, &cx);
    }
    void *p[] = {operand_of(a, 'i', 0)->at, operand_of(a, 'i', 1)->at, operand_of(a, 'l', 0)->at,
                 operand_of(a, 's', 0)->at};
    return cpu_kernel_find_f64(k.op, IR_PHASE_F)(&k, p, &cx);
}

static void refusals(void **state)
{
    (void)state;
    for (size_t n = 0; n < n_op_cases; ++n) {
        plan_kernel k = op_cases[n].k;
        operands a;
        if (k.op != IR_EXPERTS && k.op != IR_EMBED && k.op != IR_CROSS_ENTROPY)
            continue;
        operands_init(&a, &op_cases[n], 3, 0);
        assert_int_equal(run_forward(&a, k), PPS_OK);
        if (k.op == IR_EXPERTS) {
            k.n -= 1;
            assert_int_equal(run_forward(&a, k), PPS_ERR_LIMIT);
            int32_t *counts = operand_of(&a, 'i', 1)->ints;
            counts[op_cases[n].team_index * k.attrs.experts / k.ep] = -1;
            assert_int_equal(run_forward(&a, k), PPS_ERR_ARG);
        } else {
            int32_t *ids = operand_of(&a, 'i', k.op == IR_EMBED ? 0 : 1)->ints;
            ids[1] = (int32_t)k.attrs.vocab;
            assert_int_equal(run_forward(&a, k), PPS_ERR_ARG);
            ids[1] = -1;
            assert_int_equal(run_forward(&a, k), PPS_ERR_ARG);
        }
        operands_done(&a);
    }
}

static void sum(void **state)
{
    (void)state;
    float a[3] = {1, 2, 3}, b[3] = {10, 20, 30}, c[3] = {100, 200, 300}, out[3];
    void *apart[] = {out, a, b, c}, *in_place[] = {a, a, b, c};
    cpu_context cx = {0};
    plan_kernel k = {.op = PLAN_KERNEL_SUM, .n = 3, .n_operands = 4};
    cpu_kernel_fn fn = cpu_kernel_find(PLAN_KERNEL_SUM, IR_PHASE_F);
    assert_int_equal(fn(&k, apart, &cx), PPS_OK);
    for (size_t i = 0; i < 3; ++i)
        assert_true(out[i] == (float)(111 * (i + 1)));
    assert_int_equal(fn(&k, in_place, &cx), PPS_OK);
    assert_memory_equal(a, out, sizeof out);
    k.n_operands = 2;
    assert_int_equal(fn(&k, (void *[]){out, b}, &cx), PPS_OK);
    assert_memory_equal(b, out, sizeof out);
}

int main(void)
{
    struct CMUnitTest tests[64] = {
        cmocka_unit_test(ties_take_the_lower_expert),
        cmocka_unit_test(capacity_is_of_a_batch_row),
        cmocka_unit_test(refusals),
        cmocka_unit_test(sum),
    };
    size_t n = 4;
    for (size_t i = 0; i < n_op_cases; ++i)
        tests[n++] = (struct CMUnitTest){.name = op_cases[i].name,
                                         .test_func = definition,
                                         .initial_state = (void *)&op_cases[i]};
    return _cmocka_run_group_tests("forward", tests, n, NULL, NULL);
}
