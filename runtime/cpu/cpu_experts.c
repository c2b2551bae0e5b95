/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_experts.c: EXPERTS: one SwiGLU MLP per expert over its run of rows.
 *
 *   a = i p0^T, b = i p1^T, h = silu(a) b, o = h p2^T
 *   s0: a | b per row;  h0: da | db per row;  w0: h, or dh in BI
 *
 * With ep ranks a rank owns experts [team_index * E/ep, (team_index + 1) * E/ep), its parameters
 * hold those alone, and an expert's rows are what each source rank counted for it:
 *
 *   rows   | expert 4: from rank 0, from rank 1 | expert 5: from rank 0, .. |   rank 1 of 2, E = 8
 */
#include "runtime/cpu/lanes.h"

/* The rows of one of our experts. */
typedef struct run {
    size_t first, n;
} run;

/* Where counts of one source rank begin for our experts; without sharding every rank owns all. */
static size_t first_own(const plan_kernel *k, const cpu_context *cx)
{
    return k->ep > 1 ? cx->team_index * (k->attrs.experts / k->ep) : 0;
}

/* The run after `before` for own expert e (before the first: n = 0 at 0). */
static run next_run(const plan_kernel *k, const cpu_context *cx, const int32_t *counts, size_t e,
                    run before)
{
    size_t experts = k->attrs.experts, own = first_own(k, cx);
    run r = {.first = before.first + before.n};
    for (size_t source = 0; source < k->ep; ++source)
        r.n += (size_t)counts[source * experts + own + e];
    return r;
}

/* PPS_ERR_LIMIT: more rows than the buffers hold; PPS_ERR_ARG: not counts. */
static pps_status check_rows(const plan_kernel *k, const cpu_context *cx, const int32_t *counts)
{
    size_t experts = k->attrs.experts, own = experts / k->ep;
    uint64_t rows = 0;
    for (size_t source = 0; source < k->ep; ++source)
        for (size_t e = 0; e < own; ++e) {
            int32_t n = counts[source * experts + first_own(k, cx) + e];
            if (n < 0)
                return PPS_ERR_ARG;
            rows += (uint64_t)n;
        }
    return rows > k->n ? PPS_ERR_LIMIT : PPS_OK;
}

/* h = silu(a) b of `n` rows */
static void gated(const cpu_real *products, size_t hidden, size_t n, cpu_real *h)
{
    for (size_t r = 0; r < n; ++r) {
        const cpu_real *a = products + 2 * r * hidden, *b = a + hidden;
        for (size_t j = 0; j < hidden; ++j)
            h[r * hidden + j] = a[j] * cpu_sigmoid(a[j]) * b[j];
    }
}

/* da, db from dh */
static void gated_gradient(const cpu_real *products, const cpu_real *dh, size_t hidden, size_t n,
                           cpu_real *d_products)
{
    for (size_t r = 0; r < n; ++r) {
        const cpu_real *a = products + 2 * r * hidden, *b = a + hidden;
        cpu_real *da = d_products + 2 * r * hidden, *db = da + hidden;
        for (size_t j = 0; j < hidden; ++j) {
            cpu_real s = cpu_sigmoid(a[j]), d = dh[r * hidden + j];
            da[j] = d * b[j] * (s * (1 + a[j] * (1 - s)));
            db[j] = d * (a[j] * s);
        }
    }
}

/* Every row has its place in the workspace, so that what is used does not depend on how rows spread
 * over experts. */
/* i0 i1 p0 p1 p2 o0 s0 w0 */
CPU_KERNEL(experts_f)
{
    const cpu_real *in = p[0], *w_gate = p[2], *w_up = p[3], *w_down = p[4];
    const int32_t *counts = p[1];
    cpu_real *out = p[5], *products = p[6], *all_h = p[7];
    size_t n = k->n_in, hidden = k->attrs.hidden, weights = n * hidden;
    PPS_TRY(check_rows(k, cx, counts));
    run r = {0};
    for (size_t e = 0; e < k->attrs.experts / k->ep; ++e) {
        r = next_run(k, cx, counts, e, r);
        const cpu_real *x = in + r.first * n;
        cpu_real *ab = products + r.first * 2 * hidden, *y = out + r.first * n;
        cpu_real *h = all_h + r.first * hidden;
        CPU_FN(product)
        (cx->blas, CPU_NT, r.n, hidden, n, x, n, w_gate + e * weights, n, ab, 2 * hidden);
        CPU_FN(product)
        (cx->blas, CPU_NT, r.n, hidden, n, x, n, w_up + e * weights, n, ab + hidden, 2 * hidden);
        gated(ab, hidden, r.n, h);
        CPU_FN(product)
        (cx->blas, CPU_NT, r.n, n, hidden, h, hidden, w_down + e * weights, hidden, y, n);
    }
    return PPS_OK;
}

/* i1 p0 p1 p2 s0 d0 x0 h0 w0 */
CPU_KERNEL(experts_bi)
{
    const cpu_real *w_gate = p[1], *w_up = p[2], *w_down = p[3], *products = p[4], *d_out = p[5];
    const int32_t *counts = p[0];
    cpu_real *d_in = p[6], *d_products = p[7], *all_dh = p[8];
    size_t n = k->n_in, hidden = k->attrs.hidden, weights = n * hidden;
    PPS_TRY(check_rows(k, cx, counts));
    run r = {0};
    for (size_t e = 0; e < k->attrs.experts / k->ep; ++e) {
        r = next_run(k, cx, counts, e, r);
        const cpu_real *ab = products + r.first * 2 * hidden, *dy = d_out + r.first * n;
        cpu_real *d_ab = d_products + r.first * 2 * hidden, *dh = all_dh + r.first * hidden;
        CPU_FN(product)
        (cx->blas, CPU_NN, r.n, hidden, n, dy, n, w_down + e * weights, hidden, dh, hidden);
        gated_gradient(ab, dh, hidden, r.n, d_ab);
        if (d_in == NULL)
            continue;
        cpu_real *dx = d_in + r.first * n;
        CPU_FN(product)
        (cx->blas, CPU_NN, r.n, n, hidden, d_ab, 2 * hidden, w_gate + e * weights, n, dx, n);
        CPU_FN(product)
        (cx->blas, CPU_NN_ADD, r.n, n, hidden, d_ab + hidden, 2 * hidden, w_up + e * weights, n, dx,
         n);
    }
    return PPS_OK;
}

/* i0 i1 s0 d0 h0 g0 g1 g2 w0 */
CPU_KERNEL(experts_bw)
{
    const cpu_real *in = p[0], *products = p[2], *d_out = p[3], *d_products = p[4];
    const int32_t *counts = p[1];
    cpu_real *g_gate = p[5], *g_up = p[6], *g_down = p[7], *all_h = p[8];
    size_t n = k->n_in, hidden = k->attrs.hidden, weights = n * hidden;
    PPS_TRY(check_rows(k, cx, counts));
    run r = {0};
    for (size_t e = 0; e < k->attrs.experts / k->ep; ++e) {
        r = next_run(k, cx, counts, e, r);
        const cpu_real *x = in + r.first * n, *ab = products + r.first * 2 * hidden;
        const cpu_real *d_ab = d_products + r.first * 2 * hidden;
        cpu_real *h = all_h + r.first * hidden;
        CPU_FN(product)
        (cx->blas, CPU_TN_ADD, hidden, n, r.n, d_ab, 2 * hidden, x, n, g_gate + e * weights, n);
        CPU_FN(product)
        (cx->blas, CPU_TN_ADD, hidden, n, r.n, d_ab + hidden, 2 * hidden, x, n, g_up + e * weights,
         n);
        gated(ab, hidden, r.n, h);
        CPU_FN(product)
        (cx->blas, CPU_TN_ADD, n, hidden, r.n, d_out + r.first * n, n, h, hidden,
         g_down + e * weights, hidden);
    }
    return PPS_OK;
}
