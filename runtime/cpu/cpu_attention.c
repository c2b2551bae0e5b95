/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_attention.c: causal grouped-query ATTENTION, whole, of one slice of the sequences, and in
 * parts.
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
 * dS = P (dO V^T - sum(dO O)), dQ = scale dS K, dK = scale dS^T Q. Neither needs the workspace
 * operand.
 *
 * ATTENTION_SLICE is the same for one slice, which also sees all keys of the slices before it.
 *
 * ATTENTION_PART is one round of the same: the running state comes in and goes out as tensors, and
 * queries and keys are each two blocks of consecutive positions (kernels.h: cpu_place), so a round
 * is four pairs of blocks, each seen whole, along its diagonal, or not at all. Its backward needs
 * the log-sum-exp and sum(dO O) of the whole row, which the last round's end hands to all of them.
 */
#include "runtime/cpu/lanes.h"

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

/* Consecutive queries and keys of one head. The query at t0 sees `ahead` keys from s0 on, the next
 * one more. */
typedef struct span_pair {
    size_t t0, rows, s0, keys, ahead;
} span_pair;

/* How many of the tile's `columns` keys from the span's key number `s` on query number i sees. */
static size_t visible(const span_pair *a, size_t i, size_t s, size_t columns)
{
    size_t n = a->ahead + i;
    return n <= s ? 0 : least(n - s, columns);
}

/* Keys that some query of the span sees. */
static size_t seen(const span_pair *a)
{
    return a->ahead + a->rows <= 1 ? 0 : least(a->ahead + a->rows - 1, a->keys);
}

typedef struct running { /* per query of a tile: greatest score, and sum of exp(score - greatest) */
    cpu_real top[Q_BLOCK], total[Q_BLOCK];
} running;

/* Add what the queries see among these keys to `o`, their first row, and to the running state. */
static void attend(const plan_kernel *k, head at, const span_pair *a, void *const *p, cpu_real *o,
                   running *run)
{
    size_t dim = k->attrs.head_dim, n_seen = seen(a);
    cpu_real scale = 1 / (cpu_real)sqrt((double)dim);
    score_tile score;
    const cpu_real *query = (const cpu_real *)p[0] + at.q + a->t0 * at.o_row;
    const cpu_real *key = (const cpu_real *)p[1] + at.kv + a->s0 * at.kv_row;
    const cpu_real *value = (const cpu_real *)p[2] + at.kv + a->s0 * at.kv_row;
    for (size_t s0 = 0; s0 < n_seen; s0 += S_BLOCK) {
        size_t columns = least(S_BLOCK, n_seen - s0);
        CPU_FN(product)
        (NULL, CPU_NT, a->rows, columns, dim, query, at.o_row, key + s0 * at.kv_row, at.kv_row,
         score.at[0], S_BLOCK);
        for (size_t i = 0; i < a->rows; ++i) {
            size_t n = visible(a, i, s0, columns);
            memset(score.at[i] + n, 0, (columns - n) * sizeof *o);
            if (n == 0)
                continue;
            for (size_t s = 0; s < n; ++s)
                score.at[i][s] *= scale;
            cpu_real greatest = cpu_greatest(score.at[i], n);
            if (greatest > run->top[i]) {
                cpu_real shrink = cpu_exp(run->top[i] - greatest);
                run->total[i] *= shrink;
                for (size_t j = 0; j < dim; ++j)
                    o[i * at.o_row + j] *= shrink;
                run->top[i] = greatest;
            }
            run->total[i] += cpu_exp_total(score.at[i], n, run->top[i], score.at[i]);
        }
        CPU_FN(product)
        (NULL, CPU_NN_ADD, a->rows, dim, columns, score.at[0], S_BLOCK, value + s0 * at.kv_row,
         at.kv_row, o, at.o_row);
    }
}

static void start(head at, size_t rows, size_t dim, cpu_real *o, running *run)
{
    for (size_t i = 0; i < rows; ++i) {
        run->top[i] = -(cpu_real)INFINITY;
        run->total[i] = 0;
        memset(o + i * at.o_row, 0, dim * sizeof *o);
    }
}

/* Elements of one slice's keys. */
static size_t slice_elems(const plan_kernel *k)
{
    return cpu_positions(k) * k->attrs.kv_heads * k->attrs.head_dim;
}

/* What queries [t0, t0 + rows) see of the keys of slice number `slice`, their own being `last`. */
static span_pair slice_span(const plan_kernel *k, size_t slice, size_t last, size_t t0, size_t rows)
{
    return (span_pair){t0, rows, 0, k->T, slice < last ? k->T : t0 + 1};
}

/* All queries of slice number `last`: keys and values of the slices up to it lie one after the
 * other. */
static void attend_all(const plan_kernel *k, size_t last, void *query, cpu_real *key,
                       cpu_real *value, cpu_real *out, cpu_real *lse)
{
    size_t heads = k->attrs.heads, dim = k->attrs.head_dim, elems = slice_elems(k);
    running run;
    for (size_t b = 0; b < k->B; ++b)
        for (size_t h = 0; h < heads; ++h)
            for (size_t t0 = 0; t0 < k->T; t0 += Q_BLOCK) {
                size_t rows = least(Q_BLOCK, k->T - t0);
                head at = find_head(k, b, h);
                cpu_real *o = out + at.q + t0 * at.o_row;
                cpu_real *ends = lse + (b * k->T + t0) * heads + h;
                start(at, rows, dim, o, &run);
                for (size_t slice = 0; slice <= last; ++slice) {
                    span_pair a = slice_span(k, slice, last, t0, rows);
                    void *const p[] = {query, key + slice * elems, value + slice * elems};
                    attend(k, at, &a, p, o, &run);
                }
                for (size_t i = 0; i < rows; ++i) {
                    for (size_t j = 0; j < dim; ++j)
                        o[i * at.o_row + j] /= run.total[i];
                    ends[i * heads] = run.top[i] + (cpu_real)log(run.total[i]);
                }
            }
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

/* score: P, of which n entries count; d_prob: dO V^T on entry, scale * dS on return. */
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

typedef struct row_end { /* per query of a tile: log-sum-exp, and sum(dO O) */
    cpu_real lse[Q_BLOCK], d_total[Q_BLOCK];
} row_end;

/* Add the gradients of these queries and keys; x: of q, k, v, NULL where nobody wants one. */
static void attend_back(const plan_kernel *k, head at, const span_pair *a, void *const *p,
                        const cpu_real *d_out, void *const *x, const row_end *end)
{
    size_t dim = k->attrs.head_dim, q_at = at.q + a->t0 * at.o_row, n_seen = seen(a);
    cpu_real scale = 1 / (cpu_real)sqrt((double)dim);
    const cpu_real *query = (const cpu_real *)p[0] + q_at;
    score_tile score, d_prob;
    d_out += q_at;
    for (size_t s0 = 0; s0 < n_seen; s0 += S_BLOCK) {
        size_t columns = least(S_BLOCK, n_seen - s0);
        size_t kv_at = at.kv + (a->s0 + s0) * at.kv_row;
        const cpu_real *key = (const cpu_real *)p[1] + kv_at;
        const cpu_real *value = (const cpu_real *)p[2] + kv_at;
        CPU_FN(product)
        (NULL, CPU_NT, a->rows, columns, dim, query, at.o_row, key, at.kv_row, score.at[0],
         S_BLOCK);
        CPU_FN(product)
        (NULL, CPU_NT, a->rows, columns, dim, d_out, at.o_row, value, at.kv_row, d_prob.at[0],
         S_BLOCK);
        for (size_t i = 0; i < a->rows; ++i)
            score_gradient(&score, &d_prob, i, visible(a, i, s0, columns), columns, scale,
                           end->lse[i], end->d_total[i]);
        if (x[0] != NULL)
            CPU_FN(product)
        (NULL, CPU_NN_ADD, a->rows, dim, columns, d_prob.at[0], S_BLOCK, key, at.kv_row,
         (cpu_real *)x[0] + q_at, at.o_row);
        if (x[1] != NULL)
            CPU_FN(product)
        (NULL, CPU_TN_ADD, columns, dim, a->rows, d_prob.at[0], S_BLOCK, query, at.o_row,
         (cpu_real *)x[1] + kv_at, at.kv_row);
        if (x[2] != NULL)
            CPU_FN(product)
        (NULL, CPU_TN_ADD, columns, dim, a->rows, score.at[0], S_BLOCK, d_out, at.o_row,
         (cpu_real *)x[2] + kv_at, at.kv_row);
    }
}

/* Of q, k and v. */
static void clear_gradients(const plan_kernel *k, void *const *x)
{
    for (size_t i = 0; i < 3; ++i)
        if (x[i] != NULL)
            memset(x[i], 0,
                   cpu_positions(k) * (i == 0 ? k->attrs.heads : k->attrs.kv_heads) *
                       k->attrs.head_dim * sizeof(cpu_real));
}

/* Add the gradients of all queries of slice number `last` and of the slices up to it; p: q, keys,
 * values; x: their gradients, NULL where nobody wants one. */
static void attend_back_all(const plan_kernel *k, size_t last, cpu_real *const *p,
                            const cpu_real *out, const cpu_real *lse, const cpu_real *d_out,
                            cpu_real *const *x)
{
    size_t heads = k->attrs.heads, dim = k->attrs.head_dim, elems = slice_elems(k);
    row_end end;
    for (size_t b = 0; b < k->B; ++b)
        for (size_t h = 0; h < heads; ++h)
            for (size_t t0 = 0; t0 < k->T; t0 += Q_BLOCK) {
                size_t rows = least(Q_BLOCK, k->T - t0);
                head at = find_head(k, b, h);
                for (size_t i = 0; i < rows; ++i) {
                    size_t row = at.q + (t0 + i) * at.o_row;
                    end.lse[i] = lse[(b * k->T + t0 + i) * heads + h];
                    end.d_total[i] = cpu_dot(d_out + row, out + row, dim);
                }
                for (size_t slice = 0; slice <= last; ++slice) {
                    span_pair a = slice_span(k, slice, last, t0, rows);
                    size_t from = slice * elems;
                    void *const of[] = {p[0], p[1] + from, p[2] + from};
                    void *const to[] = {x[0], x[1] != NULL ? x[1] + from : NULL,
                                        x[2] != NULL ? x[2] + from : NULL};
                    attend_back(k, at, &a, of, d_out, to, &end);
                }
            }
}

/* i0 i1 i2 o0 s0 d0 x0 x1 x2 */
CPU_KERNEL(attention_bi)
{
    cpu_real *const of[] = {p[0], p[1], p[2]}, *const to[] = {p[6], p[7], p[8]};
    clear_gradients(k, p + 6);
    attend_back_all(k, 0, of, p[3], p[4], p[5], to);
    return PPS_OK;
}

/* i0 o0 s0 c0 d0 x0 x1 x2 c1 */
CPU_KERNEL(attention_slice_bi)
{
    size_t elems = slice_elems(k), all = k->slices * elems;
    cpu_real *key = p[3], *d_key = p[8];
    cpu_real *const of[] = {p[0], key, key + all}, *const to[] = {p[5], d_key, d_key + all};
    void *const own[] = {p[5], NULL, NULL};
    clear_gradients(k, own);
    if (cx->slice + 1 == k->slices)
        memset(d_key, 0, 2 * all * sizeof *d_key);
    attend_back_all(k, cx->slice, of, p[1], p[2], p[4], to);
    cpu_copy(p[6], d_key + cx->slice * elems, elems);
    cpu_copy(p[7], d_key + all + cx->slice * elems, elems);
    return PPS_OK;
}

/* ---- parts -----------------------------------------------------------------------------------
 */

/* The pairs of blocks of a round in which some query sees some key, in local positions. */
typedef struct block_pair {
    size_t t0, s0;
    bool diagonal; /* the same block: else every query sees every key */
} block_pair;

static size_t find_pairs(const plan_kernel *k, const cpu_context *cx, block_pair ret[4])
{
    uint32_t parts = k->attrs.parts, owner = (cx->part + parts - k->attrs.shift) % parts;
    uint32_t mine[2] = {cx->part, 2 * parts - 1 - cx->part};
    uint32_t theirs[2] = {owner, 2 * parts - 1 - owner};
    size_t n = 0, block = k->T / 2;
    for (size_t i = 0; i < 2; ++i)
        for (size_t j = 0; j < 2; ++j)
            if (theirs[j] <= mine[i])
                ret[n++] = (block_pair){i * block, j * block, theirs[j] == mine[i]};
    return n;
}

/* The keys' block as queries [t0, t0 + rows) of the pair see it. */
static span_pair pair_span(const plan_kernel *k, const block_pair *b, size_t t0, size_t rows)
{
    size_t block = k->T / 2;
    return (span_pair){t0, rows, b->s0, block, b->diagonal ? t0 - b->t0 + 1 : block};
}

/* One tile of queries, [t0, t0 + rows) of the block that begins at `block`. */
static void part_tile(const plan_kernel *k, head at, const block_pair *pairs, size_t n_pairs,
                      size_t block, size_t t0, size_t rows, void *const *p, cpu_real *stats)
{
    size_t heads = k->attrs.heads, dim = k->attrs.head_dim;
    cpu_real *o = (cpu_real *)p[3] + at.q + t0 * at.o_row;
    running run;
    start(at, rows, dim, o, &run);
    if (k->attrs.shift > 0) { /* go on from the round before */
        const cpu_real *before = (const cpu_real *)p[5] + (o - (cpu_real *)p[3]);
        const cpu_real *was = (const cpu_real *)p[6] + (stats - (cpu_real *)p[4]);
        for (size_t i = 0; i < rows; ++i) {
            memcpy(o + i * at.o_row, before + i * at.o_row, dim * sizeof *o);
            run.top[i] = was[2 * i * heads];
            run.total[i] = was[2 * i * heads + 1];
        }
    }
    for (size_t j = 0; j < n_pairs; ++j) {
        span_pair a = pair_span(k, &pairs[j], t0, rows);
        if (pairs[j].t0 == block)
            attend(k, at, &a, p, o, &run);
    }
    for (size_t i = 0; i < rows; ++i) {
        stats[2 * i * heads] = run.top[i];
        stats[2 * i * heads + 1] = run.total[i];
    }
}

/* i0 i1 i2 o0 o1 [i3 i4] */
CPU_KERNEL(attention_part_f)
{
    size_t heads = k->attrs.heads, block = k->T / 2;
    block_pair pairs[4];
    size_t n_pairs = find_pairs(k, cx, pairs);
    for (size_t b = 0; b < k->B; ++b)
        for (size_t h = 0; h < heads; ++h)
            for (size_t begin = 0; begin < k->T; begin += block)
                for (size_t t0 = begin; t0 < begin + block; t0 += Q_BLOCK)
                    part_tile(k, find_head(k, b, h), pairs, n_pairs, begin, t0,
                              least(Q_BLOCK, begin + block - t0), p,
                              (cpu_real *)p[4] + 2 * ((b * k->T + t0) * heads + h));
    return PPS_OK;
}

/* i0 i1 i2 d0 d1 x0 x1 x2 [x3 x4] */
CPU_KERNEL(attention_part_bi)
{
    size_t heads = k->attrs.heads, block = k->T / 2, rows_all = cpu_positions(k) * heads;
    const cpu_real *d_out = p[3], *ends = p[4];
    block_pair pairs[4];
    size_t n_pairs = find_pairs(k, cx, pairs);
    row_end end;
    clear_gradients(k, p + 5);
    for (size_t b = 0; b < k->B; ++b)
        for (size_t h = 0; h < heads; ++h)
            for (size_t j = 0; j < n_pairs; ++j)
                for (size_t t = 0; t < block; t += Q_BLOCK) {
                    size_t rows = least(Q_BLOCK, block - t), t0 = pairs[j].t0 + t;
                    span_pair a = pair_span(k, &pairs[j], t0, rows);
                    const cpu_real *at = ends + 2 * ((b * k->T + t0) * heads + h);
                    for (size_t i = 0; i < rows; ++i) {
                        end.lse[i] = at[2 * i * heads];
                        end.d_total[i] = at[2 * i * heads + 1];
                    }
                    attend_back(k, find_head(k, b, h), &a, p, d_out, p + 5, &end);
                }
    if (k->attrs.shift > 0) {
        cpu_copy(p[8], d_out, rows_all * k->attrs.head_dim);
        cpu_copy(p[9], ends, rows_all * 2);
    }
    return PPS_OK;
}

/* i0 i1 o0 s0 */
CPU_KERNEL(attention_end_f)
{
    const cpu_real *sum = p[0], *stats = p[1];
    cpu_real *out = p[2], *lse = p[3];
    size_t n = cpu_positions(k) * k->attrs.heads, dim = k->attrs.head_dim;
    for (size_t r = 0; r < n; ++r) {
        for (size_t j = 0; j < dim; ++j)
            out[r * dim + j] = sum[r * dim + j] / stats[2 * r + 1];
        lse[r] = stats[2 * r] + (cpu_real)log(stats[2 * r + 1]);
    }
    return PPS_OK;
}

/* o0 s0 d0 x0 x1 */
CPU_KERNEL(attention_end_bi)
{
    const cpu_real *out = p[0], *lse = p[1], *d_out = p[2];
    cpu_real *ends = p[4];
    size_t n = cpu_positions(k) * k->attrs.heads, dim = k->attrs.head_dim;
    cpu_copy(p[3], d_out, n * dim);
    for (size_t r = 0; ends != NULL && r < n; ++r) {
        ends[2 * r] = lse[r];
        ends[2 * r + 1] = cpu_dot(d_out + r * dim, out + r * dim, dim);
    }
    return PPS_OK;
}
