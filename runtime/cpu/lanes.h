/* SPDX-License-Identifier: Apache-2.0
 *
 * lanes.h: reductions over a row, and the exponential, in forms that vectorise without changing
 * bits.
 *
 * A row is summed in CPU_LANES interleaved partial sums, element i into lane i % CPU_LANES; the
 * lanes are then folded in halves. That order depends on the row's length alone, not on the width
 * of the machine's vectors:
 *
 *   x0 x1 .. x15 | x16 x17 .. x31 | ..      lane[l] = x[l] + x[16+l] + ..
 *   lane: (0+8) (1+9) .. (7+15)  ->  (+4)  ->  (+2)  ->  (+1)
 */
#ifndef PPS_RUNTIME_CPU_LANES_H
#define PPS_RUNTIME_CPU_LANES_H

#include "runtime/cpu/kernels.h"

#if defined(__AVX512F__)
enum { CPU_VEC_BYTES = 64 };
#elif defined(__AVX__)
enum { CPU_VEC_BYTES = 32 };
#else
enum { CPU_VEC_BYTES = 16 };
#endif
typedef cpu_real cpu_vec __attribute__((vector_size(CPU_VEC_BYTES)));

enum {
    CPU_LANES = 64 / sizeof(cpu_real),
    CPU_VEC = CPU_VEC_BYTES / sizeof(cpu_real), /* elements of one vector */
    CPU_VECS = CPU_LANES / CPU_VEC,             /* vectors that make up the lanes */
};

static inline cpu_real cpu_fold(cpu_real lane[CPU_LANES])
{
    for (size_t half = CPU_LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; ++l)
            lane[l] += lane[l + half];
    return lane[0];
}

/* sum a[i] * b[i] */
static inline cpu_real cpu_dot(const cpu_real *a, const cpu_real *b, size_t n)
{
    cpu_vec sum[CPU_VECS] = {{0}};
    size_t i = 0;
    for (; i + CPU_LANES <= n; i += CPU_LANES)
        for (size_t v = 0; v < CPU_VECS; ++v) {
            cpu_vec x, y;
            memcpy(&x, a + i + v * CPU_VEC, sizeof x);
            memcpy(&y, b + i + v * CPU_VEC, sizeof y);
            sum[v] += x * y;
        }
    cpu_real lane[CPU_LANES];
    memcpy(lane, sum, sizeof lane);
    for (size_t l = 0; i < n; ++i, ++l)
        lane[l] += a[i] * b[i];
    return cpu_fold(lane);
}

/* sum a[i] */
static inline cpu_real cpu_total(const cpu_real *a, size_t n)
{
    cpu_vec sum[CPU_VECS] = {{0}};
    size_t i = 0;
    for (; i + CPU_LANES <= n; i += CPU_LANES)
        for (size_t v = 0; v < CPU_VECS; ++v) {
            cpu_vec x;
            memcpy(&x, a + i + v * CPU_VEC, sizeof x);
            sum[v] += x;
        }
    cpu_real lane[CPU_LANES];
    memcpy(lane, sum, sizeof lane);
    for (size_t l = 0; i < n; ++i, ++l)
        lane[l] += a[i];
    return cpu_fold(lane);
}

/* The greatest of n >= 1 elements. */
static inline cpu_real cpu_greatest(const cpu_real *a, size_t n)
{
    cpu_real lane[CPU_LANES];
    for (size_t l = 0; l < CPU_LANES; ++l)
        lane[l] = a[0];
    size_t i = 0;
    for (; i + CPU_LANES <= n; i += CPU_LANES)
        for (size_t l = 0; l < CPU_LANES; ++l)
            lane[l] = a[i + l] > lane[l] ? a[i + l] : lane[l];
    for (; i < n; ++i)
        lane[0] = a[i] > lane[0] ? a[i] : lane[0];
    for (size_t l = 1; l < CPU_LANES; ++l)
        lane[0] = lane[l] > lane[0] ? lane[l] : lane[0];
    return lane[0];
}

/* e^x. In float: x = n ln 2 + r with |r| <= ln 2 / 2, the series of e^r to r^7 (its remainder is
 * under 6e-9), times 2^n put together from bits. Without branches, so loops over it vectorise; 0
 * for x < -87, infinite for x > 88, NaN for NaN. Not libm's, whose bits differ from machine to
 * machine. */
static inline cpu_real cpu_exp(cpu_real x)
{
#ifdef CPU_REAL_DOUBLE
    return exp(x);
#else
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves an integer in the low bits */
    union {
        float f;
        uint32_t bits;
    } n, scale;
    n.f = x * 1.44269504f + round;
    float whole = n.f - round;
    float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f; /* ln 2 in two parts */
    float e = 1.0f / 5040;
    e = e * r + 1.0f / 720;
    e = e * r + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    scale.bits = (n.bits + 127) << 23; /* the constant's own bits are shifted out */
    e *= scale.f;
    e = x < -87.0f ? 0.0f : e;
    return x > 88.0f ? INFINITY : e;
#endif
}

/* sum e^(a[i] - top); where `to` is given, each term is left there (to may be a). */
static inline cpu_real cpu_exp_total(const cpu_real *a, size_t n, cpu_real top, cpu_real *to)
{
    cpu_real lane[CPU_LANES] = {0}, term[CPU_LANES];
    size_t i = 0;
    for (; i + CPU_LANES <= n; i += CPU_LANES) {
        for (size_t l = 0; l < CPU_LANES; ++l)
            term[l] = cpu_exp(a[i + l] - top);
        for (size_t l = 0; l < CPU_LANES; ++l)
            lane[l] += term[l];
        if (to != NULL)
            memcpy(to + i, term, sizeof term);
    }
    for (size_t l = 0; i < n; ++i, ++l) {
        term[0] = cpu_exp(a[i] - top);
        lane[l] += term[0];
        if (to != NULL)
            to[i] = term[0];
    }
    return cpu_fold(lane);
}

static inline cpu_real cpu_sigmoid(cpu_real x)
{
    return 1 / (1 + cpu_exp(-x));
}

#endif
