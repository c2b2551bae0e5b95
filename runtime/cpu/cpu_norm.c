/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_norm.c: RMSNORM and LAYERNORM.
 *
 * BI needs x and leaves the parameters' gradients of this microbatch in h0, summed in row order; BW
 * adds them. With y = w * n and n the normalised row, u = w * dy: RMS    n = x r,           dx = r
 * (u - n mean(u n)) layer  n = (x - mean) r,  dx = r (u - mean(u) - n mean(u n))
 */
#include "runtime/cpu/lanes.h"

static void add_to(cpu_real *to, const cpu_real *from, size_t n)
{
    for (size_t j = 0; j < n; ++j)
        to[j] += from[j];
}

/* i0 p0 o0 s0 */
CPU_KERNEL(rmsnorm_f)
{
    const cpu_real *in = p[0], *weight = p[1];
    cpu_real *out = p[2], *scale = p[3];
    size_t n = k->attrs.group, rows = cpu_positions(k) * (k->n_in / n);
    for (size_t r = 0; r < rows; ++r) {
        const cpu_real *x = in + r * n;
        cpu_real s = 1 / (cpu_real)sqrt(cpu_dot(x, x, n) / (cpu_real)n + (cpu_real)k->attrs.eps);
        for (size_t j = 0; j < n; ++j)
            out[r * n + j] = weight[j] * (x[j] * s);
        scale[r] = s;
    }
    return PPS_OK;
}

/* i0 p0 s0 d0 x0 h0 */
CPU_KERNEL(rmsnorm_bi)
{
    const cpu_real *in = p[0], *weight = p[1], *scale = p[2], *d_out = p[3];
    cpu_real *d_in = p[4], *held = p[5];
    size_t n = k->attrs.group, rows = cpu_positions(k) * (k->n_in / n);
    memset(held, 0, n * sizeof *held);
    for (size_t r = 0; r < rows; ++r) {
        const cpu_real *x = in + r * n, *dy = d_out + r * n;
        cpu_real s = scale[r];
        for (size_t j = 0; j < n; ++j)
            held[j] += dy[j] * (x[j] * s);
        if (d_in == NULL)
            continue;
        cpu_real *dx = d_in + r * n;
        for (size_t j = 0; j < n; ++j)
            dx[j] = weight[j] * dy[j];
        cpu_real mean = s * cpu_dot(dx, x, n) / (cpu_real)n;
        for (size_t j = 0; j < n; ++j)
            dx[j] = s * (dx[j] - (x[j] * s) * mean);
    }
    return PPS_OK;
}

/* h0 g0 */
CPU_KERNEL(rmsnorm_bw)
{
    add_to(p[1], p[0], k->attrs.group);
    return PPS_OK;
}

/* i0 p0 p1 o0 s0 */
CPU_KERNEL(layernorm_f)
{
    const cpu_real *in = p[0], *weight = p[1], *bias = p[2];
    cpu_real *out = p[3], *saved = p[4];
    size_t n = k->n_in, rows = cpu_positions(k);
    for (size_t r = 0; r < rows; ++r) {
        const cpu_real *x = in + r * n;
        cpu_real *y = out + r * n;
        cpu_real mean = cpu_total(x, n) / (cpu_real)n;
        for (size_t j = 0; j < n; ++j)
            y[j] = x[j] - mean;
        cpu_real s = 1 / (cpu_real)sqrt(cpu_dot(y, y, n) / (cpu_real)n + (cpu_real)k->attrs.eps);
        for (size_t j = 0; j < n; ++j)
            y[j] = weight[j] * (y[j] * s);
        for (size_t j = 0; bias != NULL && j < n; ++j)
            y[j] += bias[j];
        saved[2 * r] = mean;
        saved[2 * r + 1] = s;
    }
    return PPS_OK;
}

/* i0 p0 s0 d0 x0 h0 */
CPU_KERNEL(layernorm_bi)
{
    const cpu_real *in = p[0], *weight = p[1], *saved = p[2], *d_out = p[3];
    cpu_real *d_in = p[4], *held = p[5];
    size_t n = k->n_in, rows = cpu_positions(k);
    memset(held, 0, 2 * n * sizeof *held);
    for (size_t r = 0; r < rows; ++r) {
        const cpu_real *x = in + r * n, *dy = d_out + r * n;
        cpu_real m = saved[2 * r], s = saved[2 * r + 1];
        cpu_real lane[CPU_LANES] = {0}, lane_n[CPU_LANES] = {0};
        for (size_t j = 0; j < n; ++j)
            held[j] += dy[j] * ((x[j] - m) * s);
        add_to(held + n, dy, n);
        if (d_in == NULL)
            continue;
        cpu_real *dx = d_in + r * n;
        size_t j = 0;
        for (; j + CPU_LANES <= n; j += CPU_LANES)
            for (size_t l = 0; l < CPU_LANES; ++l) {
                cpu_real u = weight[j + l] * dy[j + l];
                lane[l] += u;
                lane_n[l] += u * ((x[j + l] - m) * s);
            }
        for (size_t l = 0; j < n; ++j, ++l) {
            cpu_real u = weight[j] * dy[j];
            lane[l] += u;
            lane_n[l] += u * ((x[j] - m) * s);
        }
        cpu_real mean_u = cpu_fold(lane) / (cpu_real)n, mean_n = cpu_fold(lane_n) / (cpu_real)n;
        for (j = 0; j < n; ++j)
            dx[j] = s * (weight[j] * dy[j] - mean_u - ((x[j] - m) * s) * mean_n);
    }
    return PPS_OK;
}

/* h0 g0 g1 */
CPU_KERNEL(layernorm_bw)
{
    const cpu_real *held = p[0];
    add_to(p[1], held, k->n_in);
    if (p[2] != NULL)
        add_to(p[2], held + k->n_in, k->n_in);
    return PPS_OK;
}
