/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_pointwise.c: ADD, GELU, SWIGLU, SLICE and PLAN_KERNEL_SUM: each element on its own.
 */
#include "runtime/cpu/lanes.h"

/* i0 i1 o0 */
CPU_KERNEL(add_f)
{
    const cpu_real *a = p[0], *b = p[1];
    cpu_real *out = p[2];
    size_t n = cpu_positions(k) * k->n_in;
    for (size_t i = 0; i < n; ++i)
        out[i] = a[i] + b[i];
    return PPS_OK;
}

/* d0 x0 x1 */
CPU_KERNEL(add_bi)
{
    size_t n = cpu_positions(k) * k->n_in;
    cpu_copy(p[1], p[0], n);
    cpu_copy(p[2], p[0], n);
    return PPS_OK;
}

/* GELU in its tanh form is x sigmoid(2u), as (1 + tanh u) / 2 = sigmoid(2u):
 *   2u = c (x + 0.044715 x^3), c = 2 sqrt(2/pi) */
static const cpu_real gelu_scale = (cpu_real)1.5957691216057308;
static const cpu_real gelu_cubic = (cpu_real)0.044715;

/* i0 o0 */
CPU_KERNEL(gelu_f)
{
    const cpu_real *in = p[0];
    cpu_real *out = p[1];
    size_t n = cpu_positions(k) * k->n_in;
    for (size_t i = 0; i < n; ++i) {
        cpu_real x = in[i];
        out[i] = x * cpu_sigmoid(gelu_scale * (x + gelu_cubic * x * x * x));
    }
    return PPS_OK;
}

/* i0 d0 x0 */
CPU_KERNEL(gelu_bi)
{
    const cpu_real *in = p[0], *d_out = p[1];
    cpu_real *d_in = p[2];
    size_t n = cpu_positions(k) * k->n_in;
    for (size_t i = 0; d_in != NULL && i < n; ++i) {
        cpu_real x = in[i];
        cpu_real s = cpu_sigmoid(gelu_scale * (x + gelu_cubic * x * x * x));
        cpu_real slope = gelu_scale * (1 + 3 * gelu_cubic * x * x);
        d_in[i] = d_out[i] * (s + x * s * (1 - s) * slope);
    }
    return PPS_OK;
}

/* i0 i1 o0 */
CPU_KERNEL(swiglu_f)
{
    const cpu_real *gate = p[0], *up = p[1];
    cpu_real *out = p[2];
    size_t n = cpu_positions(k) * k->n_in;
    for (size_t i = 0; i < n; ++i)
        out[i] = gate[i] * cpu_sigmoid(gate[i]) * up[i];
    return PPS_OK;
}

/* i0 i1 d0 x0 x1 */
CPU_KERNEL(swiglu_bi)
{
    const cpu_real *gate = p[0], *up = p[1], *d_out = p[2];
    cpu_real *d_gate = p[3], *d_up = p[4];
    size_t n = cpu_positions(k) * k->n_in;
    for (size_t i = 0; d_gate != NULL && i < n; ++i) {
        cpu_real s = cpu_sigmoid(gate[i]);
        d_gate[i] = d_out[i] * up[i] * (s * (1 + gate[i] * (1 - s)));
    }
    for (size_t i = 0; d_up != NULL && i < n; ++i)
        d_up[i] = d_out[i] * (gate[i] * cpu_sigmoid(gate[i]));
    return PPS_OK;
}

/* i0 o0 */
CPU_KERNEL(slice_f)
{
    const cpu_real *in = p[0];
    cpu_real *out = p[1];
    size_t rows = cpu_positions(k);
    for (size_t r = 0; r < rows; ++r)
        memcpy(out + r * k->n_out, in + r * k->n_in + k->attrs.begin, k->n_out * sizeof *out);
    return PPS_OK;
}

/* d0 x0 */
CPU_KERNEL(slice_bi)
{
    const cpu_real *d_out = p[0];
    cpu_real *d_in = p[1];
    if (d_in == NULL)
        return PPS_OK;
    size_t rows = cpu_positions(k);
    memset(d_in, 0, rows * k->n_in * sizeof *d_in);
    for (size_t r = 0; r < rows; ++r)
        memcpy(d_in + r * k->n_in + k->attrs.begin, d_out + r * k->n_out, k->n_out * sizeof *d_in);
    return PPS_OK;
}

/* o a b c ... ; one input after the other, so o may be a */
CPU_KERNEL(sum)
{
    cpu_real *out = p[0];
    size_t n = k->n;
    if (k->n_operands > 1)
        cpu_copy(out, p[1], n);
    for (size_t j = 2; j < k->n_operands; ++j) {
        const cpu_real *in = p[j];
        for (size_t i = 0; i < n; ++i)
            out[i] += in[i];
    }
    return PPS_OK;
}
