/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_embed.c: EMBED and POSITION: rows of a table, by token and by place; ROPE: a turn by place.
 */
#include "runtime/cpu/lanes.h"

static void add_row(cpu_real *to, const cpu_real *row, size_t n)
{
    for (size_t j = 0; j < n; ++j)
        to[j] += row[j];
}

/* The row of a valid id in this rank's part of the table, or past its end. */
static size_t own_row(const plan_kernel *k, const cpu_context *cx, int32_t id)
{
    size_t rows = k->attrs.vocab / cpu_sharers(k);
    return (size_t)id - (k->ep > 1 ? cx->team_index * rows : 0); /* wraps below */
}

/* i0 p0 o0. PPS_ERR_ARG: an id outside the vocabulary. */
CPU_KERNEL(embed_f)
{
    const int32_t *ids = p[0];
    const cpu_real *table = p[1];
    cpu_real *out = p[2];
    size_t rows = cpu_positions(k), n = k->n_out, held = k->attrs.vocab / cpu_sharers(k);
    for (size_t r = 0; r < rows; ++r) {
        if (ids[r] < 0 || (uint32_t)ids[r] >= k->attrs.vocab)
            return PPS_ERR_ARG;
        size_t row = own_row(k, cx, ids[r]);
        if (row < held)
            memcpy(out + r * n, table + row * n, n * sizeof *out);
        else
            memset(out + r * n, 0, n * sizeof *out);
    }
    return PPS_OK;
}

/* i0 d0 g0 */
CPU_KERNEL(embed_bw)
{
    const int32_t *ids = p[0];
    const cpu_real *d_out = p[1];
    cpu_real *g_table = p[2];
    size_t rows = cpu_positions(k), n = k->n_out, held = k->attrs.vocab / cpu_sharers(k);
    for (size_t r = 0; r < rows; ++r) {
        if (ids[r] < 0 || (uint32_t)ids[r] >= k->attrs.vocab)
            return PPS_ERR_ARG;
        size_t row = own_row(k, cx, ids[r]);
        if (row < held)
            add_row(g_table + row * n, d_out + r * n, n);
    }
    return PPS_OK;
}

/* The table's row for local position t. */
static size_t table_row(const plan_kernel *k, const cpu_context *cx, size_t t)
{
    size_t before = k->ep > 1 ? (size_t)cx->team_index * k->T : 0, n = k->T * cpu_sharers(k);
    return cx->slice * n + cpu_place(k, cx, n, before + t);
}

/* i0 p0 o0 */
CPU_KERNEL(position_f)
{
    const cpu_real *in = p[0], *table = p[1];
    cpu_real *out = p[2];
    size_t n = k->n_in;
    for (size_t b = 0; b < k->B; ++b)
        for (size_t t = 0; t < k->T; ++t) {
            const cpu_real *row = table + table_row(k, cx, t) * n;
            for (size_t j = 0, at = (b * k->T + t) * n; j < n; ++j)
                out[at + j] = in[at + j] + row[j];
        }
    return PPS_OK;
}

/* d0 x0 */
CPU_KERNEL(position_bi)
{
    cpu_copy(p[1], p[0], cpu_positions(k) * k->n_in);
    return PPS_OK;
}

/* d0 g0 */
CPU_KERNEL(position_bw)
{
    const cpu_real *d_out = p[0];
    cpu_real *g_table = p[1];
    size_t n = k->n_in;
    for (size_t b = 0; b < k->B; ++b)
        for (size_t t = 0; t < k->T; ++t)
            add_row(g_table + table_row(k, cx, t) * n, d_out + (b * k->T + t) * n, n);
    return PPS_OK;
}

/* Turn each head's halves (x1, x2) by `sign` times its position's angles. */
static void rotate(const plan_kernel *k, const cpu_context *cx, const cpu_real *in, cpu_real *out,
                   int sign)
{
    size_t dim = k->attrs.head_dim, half = dim / 2, width = k->n_in;
    for (size_t j = 0; j < half; ++j) {
        double rate = pow(k->attrs.theta, -2.0 * (double)j / (double)dim);
        for (size_t t = 0; t < k->T; ++t) {
            double angle = (double)(cx->slice * (size_t)k->T + cpu_place(k, cx, k->T, t)) * rate;
            cpu_real c = (cpu_real)cos(angle), s = (cpu_real)sin(angle);
            s *= (cpu_real)sign;
            for (size_t b = 0; b < k->B; ++b)
                for (size_t h = 0; h < width; h += dim) {
                    size_t i = (b * k->T + t) * width + h + j;
                    cpu_real x1 = in[i], x2 = in[i + half];
                    out[i] = x1 * c - x2 * s;
                    out[i + half] = x2 * c + x1 * s;
                }
        }
    }
}

/* i0 o0 */
CPU_KERNEL(rope_f)
{
    rotate(k, cx, p[0], p[1], 1);
    return PPS_OK;
}

/* d0 x0 */
CPU_KERNEL(rope_bi)
{
    if (p[1] != NULL)
        rotate(k, cx, p[0], p[1], -1);
    return PPS_OK;
}
