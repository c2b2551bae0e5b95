/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_loss.c: CROSS_ENTROPY, whole or over columns that ranks share, and MSE. Losses are summed in
 * double and divided by the global count, so the parts of a batch add up to the loss of the whole.
 */
#include "runtime/cpu/lanes.h"

/* i0 i1 l0 s0. PPS_ERR_ARG: a target outside the vocabulary. */
CPU_KERNEL(cross_entropy_f)
{
    const cpu_real *logits = p[0];
    const int32_t *targets = p[1];
    double *loss = p[2];
    cpu_real *lse = p[3];
    size_t rows = cpu_positions(k);
    double sum = 0;
    for (size_t r = 0; r < rows; ++r) {
        const cpu_real *logit = logits + r * k->n_in;
        if (targets[r] < 0 || (uint32_t)targets[r] >= k->attrs.vocab)
            return PPS_ERR_ARG;
        cpu_real top = cpu_greatest(logit, k->attrs.vocab);
        double total = (double)top + log((double)cpu_exp_total(logit, k->attrs.vocab, top, NULL));
        sum += total - (double)logit[targets[r]];
        lse[r] = (cpu_real)total;
    }
    *loss = sum / k->attrs.count;
    return PPS_OK;
}

/* i0 i1 s0 x0 */
CPU_KERNEL(cross_entropy_bi)
{
    const cpu_real *logits = p[0], *lse = p[2];
    const int32_t *targets = p[1];
    cpu_real *d_logits = p[3], scale = (cpu_real)(1 / k->attrs.count);
    size_t rows = cpu_positions(k), vocab = k->attrs.vocab;
    for (size_t r = 0; d_logits != NULL && r < rows; ++r) {
        const cpu_real *logit = logits + r * k->n_in;
        cpu_real *d_logit = d_logits + r * k->n_in, total = lse[r];
        for (size_t j = 0; j < vocab; ++j)
            d_logit[j] = cpu_exp(logit[j] - total);
        d_logit[targets[r]] -= 1;
        for (size_t j = 0; j < vocab; ++j)
            d_logit[j] *= scale;
        memset(d_logit + vocab, 0, (k->n_in - vocab) * sizeof *d_logit);
    }
    return PPS_OK;
}

/* ---- columns shared by ranks
 * ------------------------------------------------------------------------------------------- */

typedef struct vocab_part { /* columns [begin, begin + n) of the vocabulary are here */
    size_t begin, n;
} vocab_part;

/* The last ranks' columns may lie past the vocabulary, in its padding. */
static vocab_part own_columns(const plan_kernel *k, const cpu_context *cx)
{
    size_t begin = k->ep > 1 ? (size_t)cx->team_index * k->n_in : 0, vocab = k->attrs.vocab;
    size_t left = begin < vocab ? vocab - begin : 0;
    return (vocab_part){begin, left < k->n_in ? left : k->n_in};
}

/* i0 i1 o0. PPS_ERR_ARG: a target outside the vocabulary. */
CPU_KERNEL(cross_entropy_part_f)
{
    const cpu_real *logits = p[0];
    const int32_t *targets = p[1];
    cpu_real *stats = p[2];
    vocab_part own = own_columns(k, cx);
    for (size_t r = 0; r < cpu_positions(k); ++r) {
        const cpu_real *logit = logits + r * k->n_in;
        cpu_real *stat = stats + r * 3;
        if (targets[r] < 0 || (uint32_t)targets[r] >= k->attrs.vocab)
            return PPS_ERR_ARG;
        size_t at = (size_t)targets[r] - own.begin; /* wraps below */
        stat[0] = own.n > 0 ? cpu_greatest(logit, own.n) : 0;
        stat[1] = own.n > 0 ? cpu_exp_total(logit, own.n, stat[0], NULL) : 0;
        stat[2] = at < own.n ? logit[at] : 0;
    }
    return PPS_OK;
}

/* i0 i1 o0 d0 x0 */
CPU_KERNEL(cross_entropy_part_bi)
{
    const cpu_real *logits = p[0], *stats = p[2], *d_stats = p[3];
    const int32_t *targets = p[1];
    cpu_real *d_logits = p[4];
    vocab_part own = own_columns(k, cx);
    for (size_t r = 0; d_logits != NULL && r < cpu_positions(k); ++r) {
        const cpu_real *logit = logits + r * k->n_in;
        cpu_real *d_logit = d_logits + r * k->n_in, top = stats[r * 3], scale = d_stats[r * 3 + 1];
        size_t at = (size_t)targets[r] - own.begin;
        for (size_t j = 0; j < own.n; ++j)
            d_logit[j] = cpu_exp(logit[j] - top) * scale;
        if (at < own.n)
            d_logit[at] += d_stats[r * 3 + 2];
        memset(d_logit + own.n, 0, (k->n_in - own.n) * sizeof *d_logit);
    }
    return PPS_OK;
}

/* i0 l0 s0. A part without columns has sum 0, and says nothing. */
CPU_KERNEL(cross_entropy_merge_f)
{
    const cpu_real *stats = p[0];
    double *loss = p[1], sum = 0;
    cpu_real *lse = p[2];
    size_t rows = cpu_positions(k), parts = cpu_sharers(k);
    for (size_t r = 0; r < rows; ++r) {
        cpu_real top = stats[r * 3];
        double total = 0, target = 0;
        for (size_t i = 0; i < parts; ++i) {
            const cpu_real *stat = stats + (i * rows + r) * 3;
            if (stat[1] > 0 && stat[0] > top)
                top = stat[0];
        }
        for (size_t i = 0; i < parts; ++i) {
            const cpu_real *stat = stats + (i * rows + r) * 3;
            if (stat[1] > 0)
                total += (double)stat[1] * exp((double)stat[0] - (double)top);
            target += (double)stat[2];
        }
        total = (double)top + log(total);
        sum += total - target;
        lse[r] = (cpu_real)total;
    }
    *loss = sum / k->attrs.count;
    return PPS_OK;
}

/* i0 s0 x0 */
CPU_KERNEL(cross_entropy_merge_bi)
{
    const cpu_real *stats = p[0], *lse = p[1];
    cpu_real *d_stats = p[2], scale = (cpu_real)(1 / k->attrs.count);
    size_t rows = cpu_positions(k);
    if (k->ep > 1)
        stats += cx->team_index * rows * 3;
    for (size_t r = 0; d_stats != NULL && r < rows; ++r) {
        d_stats[r * 3] = 0;
        d_stats[r * 3 + 1] = stats[r * 3 + 1] > 0 ? cpu_exp(stats[r * 3] - lse[r]) * scale : 0;
        d_stats[r * 3 + 2] = -scale;
    }
    return PPS_OK;
}

/* i0 i1 l0 */
CPU_KERNEL(mse_f)
{
    const cpu_real *a = p[0], *b = p[1];
    double *loss = p[2];
    size_t n = cpu_positions(k) * k->n_in;
    double sum = 0;
    for (size_t i = 0; i < n; ++i) {
        double difference = (double)a[i] - (double)b[i];
        sum += difference * difference;
    }
    *loss = sum / k->attrs.count;
    return PPS_OK;
}

/* i0 i1 x0 */
CPU_KERNEL(mse_bi)
{
    const cpu_real *a = p[0], *b = p[1];
    cpu_real *d_a = p[2], scale = (cpu_real)(2 / k->attrs.count);
    size_t n = cpu_positions(k) * k->n_in;
    for (size_t i = 0; d_a != NULL && i < n; ++i)
        d_a[i] = scale * (a[i] - b[i]);
    return PPS_OK;
}
