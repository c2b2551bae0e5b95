/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_attention.c: ROPE and causal grouped-query ATTENTION.
 *
 * Scores exist only as tiles of Q_BLOCK queries by S_BLOCK keys, on the stack:
 *
 *              keys s0 ..
 *            +----------+
 *   queries  |    s > t |   scores past the diagonal become probabilities of exactly 0
 *   t0 ..    |          |
 *            +----------+
 *
 * Forward keeps a running maximum and sum per query and rescales what it has when the maximum
 * grows. Tiles begin at multiples of their size, so what a query sees does not depend on T or B.
 * Backward makes the probabilities again from the saved log-sum-exp: P = exp(S - lse), dV = P^T dO,
 * dS = P (dO V^T - sum(dO O)), dQ = scale dS K, dK = scale dS^T Q Neither needs the workspace
 * operand.
 */
#include "runtime/cpu/lanes.h"

/* Turn each head's halves (x1, x2) by `sign` times its position's angles. */
static void rotate(const plan_kernel *k, const cpu_real *in, cpu_real *out, int sign)
{
    size_t dim = k->attrs.head_dim, half = dim / 2, width = k->n_in;
    for (size_t j = 0; j < half; ++j) {
        double rate = pow(k->attrs.theta, -2.0 * (double)j / (double)dim);
        for (size_t t = 0; t < k->T; ++t) {
            cpu_real c = (cpu_real)cos((double)t * rate), s = (cpu_real)sin((double)t * rate);
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
    rotate(k, p[0], p[1], 1);
    return PPS_OK;
}

/* d0 x0 */
CPU_KERNEL(rope_bi)
{
    if (p[1] != NULL)
        rotate(k, p[0], p[1], -1);
    return PPS_OK;
}

enum { Q_BLOCK = 32, S_BLOCK = 64 };

typedef struct score_tile {
    cpu_real at[Q_BLOCK][S_BLOCK];
} score_tile;

typedef struct head { /* one (batch row, head): where its parts begin, and their row distances */
    size_t q, kv, o_row, kv_row;
} head;

static head find_head(const plan_kernel *k, size_t b, size_t h)
{
    size_t dim = k->attrs.head_dim, heads = k->attrs.heads, kv_heads = k->attrs.kv_heads;
    return (head){
        .q = (b * k->T * heads + h) * dim,
        .kv = (b * k->T * kv_heads + h / (heads / kv_heads)) * dim,
        .o_row = heads * dim,
        .kv_row = kv_heads * dim,
    };
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How many of the tile's `columns` keys from s0 on the query at position t sees. */
static size_t visible(size_t t, size_t s0, size_t columns)
{
    return t < s0 ? 0 : least(t - s0 + 1, columns);
}

/* Queries [t0, t0 + rows) of one head. `lse` has one element per (t, head), `heads` apart. */
static void attend(const plan_kernel *k, head at, size_t t0, size_t rows, const cpu_real *query,
                   const cpu_real *key, const cpu_real *value, cpu_real *out, cpu_real *lse)
{
    size_t dim = k->attrs.head_dim;
    cpu_real scale = 1 / (cpu_real)sqrt((double)dim);
    score_tile score;
    cpu_real top[Q_BLOCK], total[Q_BLOCK];
    cpu_real *o = out + at.q + t0 * at.o_row;
    for (size_t i = 0; i < rows; ++i) {
        top[i] = -(cpu_real)INFINITY;
        total[i] = 0;
        memset(o + i * at.o_row, 0, dim * sizeof *o);
    }
    for (size_t s0 = 0; s0 < t0 + rows; s0 += S_BLOCK) {
        size_t columns = least(S_BLOCK, t0 + rows - s0);
        CPU_FN(product)
        (NULL, CPU_NT, rows, columns, dim, query + at.q + t0 * at.o_row, at.o_row,
         key + at.kv + s0 * at.kv_row, at.kv_row, score.at[0], S_BLOCK);
        for (size_t i = 0; i < rows; ++i) {
            size_t n = visible(t0 + i, s0, columns);
            memset(score.at[i] + n, 0, (columns - n) * sizeof *o);
            if (n == 0)
                continue;
            for (size_t s = 0; s < n; ++s)
                score.at[i][s] *= scale;
            cpu_real greatest = cpu_greatest(score.at[i], n);
            if (greatest > top[i]) {
                cpu_real shrink = cpu_exp(top[i] - greatest);
                total[i] *= shrink;
                for (size_t j = 0; j < dim; ++j)
                    o[i * at.o_row + j] *= shrink;
                top[i] = greatest;
            }
            total[i] += cpu_exp_total(score.at[i], n, top[i], score.at[i]);
        }
        CPU_FN(product)
        (NULL, CPU_NN_ADD, rows, dim, columns, score.at[0], S_BLOCK, value + at.kv + s0 * at.kv_row,
         at.kv_row, o, at.o_row);
    }
    for (size_t i = 0; i < rows; ++i) {
        for (size_t j = 0; j < dim; ++j)
            o[i * at.o_row + j] /= total[i];
        lse[i * k->attrs.heads] = top[i] + (cpu_real)log(total[i]);
    }
}

/* i0 i1 i2 o0 s0 */
CPU_KERNEL(attention_f)
{
    size_t heads = k->attrs.heads;
    cpu_real *lse = p[4];
    for (size_t b = 0; b < k->B; ++b)
        for (size_t h = 0; h < heads; ++h)
            for (size_t t0 = 0; t0 < k->T; t0 += Q_BLOCK)
                attend(k, find_head(k, b, h), t0, least(Q_BLOCK, k->T - t0), p[0], p[1], p[2], p[3],
                       lse + (b * k->T + t0) * heads + h);
    return PPS_OK;
}

/* score: P, of which `visible` entries count; d_prob: dO V^T on entry, scale * dS on return. */
static void score_gradient(score_tile *score, score_tile *d_prob, size_t i, size_t n,
                           size_t columns, cpu_real scale, cpu_real lse, cpu_real d_total)
{
    cpu_real *prob = score->at[i], *ds = d_prob->at[i];
    for (size_t s = 0; s < n; ++s) {
        prob[s] = cpu_exp(prob[s] * scale - lse);
        ds[s] = prob[s] * (ds[s] - d_total) * scale;
    }
    memset(prob + n, 0, (columns - n) * sizeof *prob);
    memset(ds + n, 0, (columns - n) * sizeof *ds);
}

/* Queries [t0, t0 + rows) of one head; p as attention_bi's. */
static void attend_back(const plan_kernel *k, head at, size_t t0, size_t rows, void *const *p,
                        const cpu_real *lse)
{
    size_t dim = k->attrs.head_dim, q_at = at.q + t0 * at.o_row;
    cpu_real scale = 1 / (cpu_real)sqrt((double)dim);
    const cpu_real *query = (const cpu_real *)p[0] + q_at, *out = (const cpu_real *)p[3] + q_at;
    const cpu_real *d_out = (const cpu_real *)p[5] + q_at;
    score_tile score, d_prob;
    cpu_real d_total[Q_BLOCK];
    for (size_t i = 0; i < rows; ++i)
        d_total[i] = cpu_dot(d_out + i * at.o_row, out + i * at.o_row, dim);
    for (size_t s0 = 0; s0 < t0 + rows; s0 += S_BLOCK) {
        size_t columns = least(S_BLOCK, t0 + rows - s0), kv_at = at.kv + s0 * at.kv_row;
        const cpu_real *key = (const cpu_real *)p[1] + kv_at;
        const cpu_real *value = (const cpu_real *)p[2] + kv_at;
        CPU_FN(product)
        (NULL, CPU_NT, rows, columns, dim, query, at.o_row, key, at.kv_row, score.at[0], S_BLOCK);
        CPU_FN(product)
        (NULL, CPU_NT, rows, columns, dim, d_out, at.o_row, value, at.kv_row, d_prob.at[0],
         S_BLOCK);
        for (size_t i = 0; i < rows; ++i)
            score_gradient(&score, &d_prob, i, visible(t0 + i, s0, columns), columns, scale,
                           lse[i * k->attrs.heads], d_total[i]);
        if (p[6] != NULL)
            CPU_FN(product)
            (NULL, CPU_NN_ADD, rows, dim, columns, d_prob.at[0], S_BLOCK, key, at.kv_row,
             (cpu_real *)p[6] + q_at, at.o_row);
        if (p[7] != NULL)
            CPU_FN(product)
            (NULL, CPU_TN_ADD, columns, dim, rows, d_prob.at[0], S_BLOCK, query, at.o_row,
             (cpu_real *)p[7] + kv_at, at.kv_row);
        if (p[8] != NULL)
            CPU_FN(product)
            (NULL, CPU_TN_ADD, columns, dim, rows, score.at[0], S_BLOCK, d_out, at.o_row,
             (cpu_real *)p[8] + kv_at, at.kv_row);
    }
}

/* i0 i1 i2 o0 s0 d0 x0 x1 x2 */
CPU_KERNEL(attention_bi)
{
    size_t heads = k->attrs.heads, dim = k->attrs.head_dim, rows = cpu_positions(k);
    const cpu_real *lse = p[4];
    for (size_t i = 6; i <= 8; ++i)
        if (p[i] != NULL)
            memset(p[i], 0, rows * (i == 6 ? heads : k->attrs.kv_heads) * dim * sizeof(cpu_real));
    for (size_t b = 0; b < k->B; ++b)
        for (size_t h = 0; h < heads; ++h)
            for (size_t t0 = 0; t0 < k->T; t0 += Q_BLOCK)
                attend_back(k, find_head(k, b, h), t0, least(Q_BLOCK, k->T - t0), p,
                            lse + (b * k->T + t0) * heads + h);
    return PPS_OK;
}
