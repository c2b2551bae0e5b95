/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_attention.c: ROPE, causal grouped-query ATTENTION, and ATTENTION_SLICE, the same for one
 * slice of the sequences, which also sees all keys of the slices before it.
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

/* Turn each head's halves (x1, x2) by `sign` times its position's angles; row 0 is at `first`. */
static void rotate(const plan_kernel *k, size_t first, const cpu_real *in, cpu_real *out, int sign)
{
    size_t dim = k->attrs.head_dim, half = dim / 2, width = k->n_in;
    for (size_t j = 0; j < half; ++j) {
        double rate = pow(k->attrs.theta, -2.0 * (double)j / (double)dim);
        for (size_t t = 0; t < k->T; ++t) {
            double angle = (double)(first + t) * rate;
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
    rotate(k, (size_t)cx->slice * k->T, p[0], p[1], 1);
    return PPS_OK;
}

/* d0 x0 */
CPU_KERNEL(rope_bi)
{
    if (p[1] != NULL)
        rotate(k, (size_t)cx->slice * k->T, p[0], p[1], -1);
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

typedef struct running { /* softmax of some queries over the keys seen so far */
    cpu_real top[Q_BLOCK], total[Q_BLOCK];
} running;

/* Queries [t0, t0 + rows) of one head see `columns` keys from s0 on, of which those of their own
 * slice
 * (`causal`) may lie ahead of them. */
static void see_keys(const plan_kernel *k, head at, size_t t0, size_t rows, size_t s0,
                     size_t columns, bool causal, const cpu_real *query, const cpu_real *key,
                     const cpu_real *value, cpu_real *o, running *r)
{
    size_t dim = k->attrs.head_dim;
    cpu_real scale = 1 / (cpu_real)sqrt((double)dim);
    score_tile score;
    CPU_FN(product)
    (NULL, CPU_NT, rows, columns, dim, query + at.q + t0 * at.o_row, at.o_row,
     key + at.kv + s0 * at.kv_row, at.kv_row, score.at[0], S_BLOCK);
    for (size_t i = 0; i < rows; ++i) {
        size_t n = causal ? visible(t0 + i, s0, columns) : columns;
        memset(score.at[i] + n, 0, (columns - n) * sizeof *o);
        if (n == 0)
            continue;
        for (size_t s = 0; s < n; ++s)
            score.at[i][s] *= scale;
        cpu_real greatest = cpu_greatest(score.at[i], n);
        if (greatest > r->top[i]) {
            cpu_real shrink = cpu_exp(r->top[i] - greatest);
            r->total[i] *= shrink;
            for (size_t j = 0; j < dim; ++j)
                o[i * at.o_row + j] *= shrink;
            r->top[i] = greatest;
        }
        r->total[i] += cpu_exp_total(score.at[i], n, r->top[i], score.at[i]);
    }
    CPU_FN(product)
    (NULL, CPU_NN_ADD, rows, dim, columns, score.at[0], S_BLOCK, value + at.kv + s0 * at.kv_row,
     at.kv_row, o, at.o_row);
}

/* Elements of one slice's keys. */
static size_t slice_elems(const plan_kernel *k)
{
    return cpu_positions(k) * k->attrs.kv_heads * k->attrs.head_dim;
}

/* Queries [t0, t0 + rows) of one head, whose slice is the one after `before` others: keys and
 * values of those lie first. `lse` has one element per (t, head), `heads` apart. */
static void attend(const plan_kernel *k, head at, size_t before, size_t t0, size_t rows,
                   const cpu_real *query, const cpu_real *key, const cpu_real *value, cpu_real *out,
                   cpu_real *lse)
{
    size_t dim = k->attrs.head_dim;
    running r;
    cpu_real *o = out + at.q + t0 * at.o_row;
    for (size_t i = 0; i < rows; ++i) {
        r.top[i] = -(cpu_real)INFINITY;
        r.total[i] = 0;
        memset(o + i * at.o_row, 0, dim * sizeof *o);
    }
    for (size_t slice = 0; slice <= before; ++slice) {
        size_t end = slice < before ? k->T : t0 + rows, begin = slice * slice_elems(k);
        for (size_t s0 = 0; s0 < end; s0 += S_BLOCK)
            see_keys(k, at, t0, rows, s0, least(S_BLOCK, end - s0), slice == before, query,
                     key + begin, value + begin, o, &r);
    }
    for (size_t i = 0; i < rows; ++i) {
        for (size_t j = 0; j < dim; ++j)
            o[i * at.o_row + j] /= r.total[i];
        lse[i * k->attrs.heads] = r.top[i] + (cpu_real)log(r.total[i]);
    }
}

static void attend_all(const plan_kernel *k, size_t before, const cpu_real *query,
                       const cpu_real *key, const cpu_real *value, cpu_real *out, cpu_real *lse)
{
    size_t heads = k->attrs.heads;
    for (size_t b = 0; b < k->B; ++b)
        for (size_t h = 0; h < heads; ++h)
            for (size_t t0 = 0; t0 < k->T; t0 += Q_BLOCK)
                attend(k, find_head(k, b, h), before, t0, least(Q_BLOCK, k->T - t0), query, key,
                       value, out, lse + (b * k->T + t0) * heads + h);
}

/* i0 i1 i2 o0 s0 */
CPU_KERNEL(attention_f)
{
    attend_all(k, 0, p[0], p[1], p[2], p[3], p[4]);
    return PPS_OK;
}

/* i0 i1 i2 o0 s0 c0 */
CPU_KERNEL(attention_slice_f)
{
    size_t elems = slice_elems(k);
    cpu_real *key = p[5], *value = key + k->slices * elems;
    memcpy(key + cx->slice * elems, p[1], elems * sizeof *key);
    memcpy(value + cx->slice * elems, p[2], elems * sizeof *value);
    attend_all(k, cx->slice, p[0], key, value, p[3], p[4]);
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

typedef struct back { /* operands of the backward; gradients that nobody wants are NULL */
    const cpu_real *query, *key, *value, *out, *lse, *d_out;
    cpu_real *d_query, *d_key, *d_value;
} back;

/* Queries [t0, t0 + rows) of one head and `columns` keys from s0 on, which begin `kv` elements into
 * keys and values; d_total: dO O of each query. */
static void see_keys_back(const plan_kernel *k, head at, const back *p, size_t t0, size_t rows,
                          size_t s0, size_t columns, bool causal, size_t kv,
                          const cpu_real *d_total)
{
    size_t dim = k->attrs.head_dim, q_at = at.q + t0 * at.o_row, heads = k->attrs.heads;
    cpu_real scale = 1 / (cpu_real)sqrt((double)dim);
    const cpu_real *query = p->query + q_at, *d_out = p->d_out + q_at;
    const cpu_real *lse = p->lse + t0 * heads;
    score_tile score, d_prob;
    CPU_FN(product)
    (NULL, CPU_NT, rows, columns, dim, query, at.o_row, p->key + kv, at.kv_row, score.at[0],
     S_BLOCK);
    CPU_FN(product)
    (NULL, CPU_NT, rows, columns, dim, d_out, at.o_row, p->value + kv, at.kv_row, d_prob.at[0],
     S_BLOCK);
    for (size_t i = 0; i < rows; ++i)
        score_gradient(&score, &d_prob, i, causal ? visible(t0 + i, s0, columns) : columns, columns,
                       scale, lse[i * heads], d_total[i]);
    if (p->d_query != NULL)
        CPU_FN(product)
    (NULL, CPU_NN_ADD, rows, dim, columns, d_prob.at[0], S_BLOCK, p->key + kv, at.kv_row,
     p->d_query + q_at, at.o_row);
    if (p->d_key != NULL)
        CPU_FN(product)
    (NULL, CPU_TN_ADD, columns, dim, rows, d_prob.at[0], S_BLOCK, query, at.o_row, p->d_key + kv,
     at.kv_row);
    if (p->d_value != NULL)
        CPU_FN(product)
    (NULL, CPU_TN_ADD, columns, dim, rows, score.at[0], S_BLOCK, d_out, at.o_row, p->d_value + kv,
     at.kv_row);
}

static void attend_back(const plan_kernel *k, head at, const back *p, size_t before, size_t t0,
                        size_t rows)
{
    size_t dim = k->attrs.head_dim;
    const cpu_real *d_out = p->d_out + at.q + t0 * at.o_row, *out = p->out + at.q + t0 * at.o_row;
    cpu_real d_total[Q_BLOCK];
    for (size_t i = 0; i < rows; ++i)
        d_total[i] = cpu_dot(d_out + i * at.o_row, out + i * at.o_row, dim);
    for (size_t slice = 0; slice <= before; ++slice) {
        size_t end = slice < before ? k->T : t0 + rows;
        size_t begin = slice * slice_elems(k) + at.kv;
        for (size_t s0 = 0; s0 < end; s0 += S_BLOCK)
            see_keys_back(k, at, p, t0, rows, s0, least(S_BLOCK, end - s0), slice == before,
                          begin + s0 * at.kv_row, d_total);
    }
}

/* Gradients of the slices up to this one, whose queries' gradient is cleared first. */
static void attend_back_all(const plan_kernel *k, const back *p, size_t before)
{
    size_t heads = k->attrs.heads;
    if (p->d_query != NULL)
        memset(p->d_query, 0, cpu_positions(k) * heads * k->attrs.head_dim * sizeof(cpu_real));
    for (size_t b = 0; b < k->B; ++b)
        for (size_t h = 0; h < heads; ++h) {
            back of_head = *p;
            of_head.lse += b * k->T * heads + h;
            for (size_t t0 = 0; t0 < k->T; t0 += Q_BLOCK)
                attend_back(k, find_head(k, b, h), &of_head, before, t0, least(Q_BLOCK, k->T - t0));
        }
}

/* i0 i1 i2 o0 s0 d0 x0 x1 x2 */
CPU_KERNEL(attention_bi)
{
    const back operands = {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]};
    for (size_t i = 7; i <= 8; ++i)
        if (p[i] != NULL)
            memset(p[i], 0, slice_elems(k) * sizeof(cpu_real));
    attend_back_all(k, &operands, 0);
    return PPS_OK;
}

/* i0 o0 s0 c0 d0 x0 x1 x2 c1 */
CPU_KERNEL(attention_slice_bi)
{
    size_t elems = slice_elems(k), all = k->slices * elems;
    const cpu_real *key = p[3];
    cpu_real *d_key = p[8];
    const back operands = {p[0], key, key + all, p[1], p[2], p[4], p[5], d_key, d_key + all};
    if (cx->slice + 1 == k->slices)
        memset(d_key, 0, 2 * all * sizeof *d_key);
    attend_back_all(k, &operands, cx->slice);
    cpu_copy(p[6], d_key + cx->slice * elems, elems);
    cpu_copy(p[7], d_key + all + cx->slice * elems, elems);
    return PPS_OK;
}
