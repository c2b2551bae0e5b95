/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_loss.c: CROSS_ENTROPY and MSE. Losses are summed in double and divided by the global count,
 * so the parts of a batch add up to the loss of the whole.
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
