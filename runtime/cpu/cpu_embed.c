/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_embed.c: EMBED and POSITION: rows of a table, by token and by place.
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

/* Where this rank's positions begin in the table. */
static size_t first_position(const plan_kernel *k, const cpu_context *cx)
{
    return k->ep > 1 ? (size_t)cx->team_index * k->T * k->n_in : 0;
}

/* i0 p0 o0 */
CPU_KERNEL(position_f)
{
    const cpu_real *in = p[0], *table = (const cpu_real *)p[1] + first_position(k, cx);
    cpu_real *out = p[2];
    size_t per_row = (size_t)k->T * k->n_in;
    table += cx->slice * k->ep * per_row;
    for (size_t b = 0; b < k->B; ++b)
        for (size_t i = 0; i < per_row; ++i)
            out[b * per_row + i] = in[b * per_row + i] + table[i];
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
    size_t per_row = (size_t)k->T * k->n_in;
    for (size_t b = 0; b < k->B; ++b)
        add_row((cpu_real *)p[1] + first_position(k, cx) + cx->slice * k->ep * per_row,
                d_out + b * per_row, per_row);
    return PPS_OK;
}
