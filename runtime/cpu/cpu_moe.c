/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_moe.c: ROUTER, DISPATCH and COMBINE; the experts themselves are in cpu_experts.c.
 *
 * A choice is (position, j): the j-th expert of a position. The route names each choice's expert
 * and its row among the expert rows, which lie expert after expert; an exchange between ranks
 * happens outside, between DISPATCH and EXPERTS and between EXPERTS and COMBINE.
 *
 * Under a capacity an expert takes the first `capacity` choices of each batch row, in the order of
 * positions, then of j. A later choice is dropped: it keeps its expert and its gate, but its row is
 * NO_ROW. Renormalised gates are not normalised again over what is left.
 */
#include "runtime/cpu/lanes.h"

enum { NO_ROW = -1 };

static size_t choices(const plan_kernel *k)
{
    return cpu_positions(k) * k->attrs.top_k;
}

/* Softmax of one position's logits as top and sum: p[e] = exp(logit[e] - top) / sum. */
typedef struct softmax {
    cpu_real top, sum;
} softmax;

static softmax softmax_of(const cpu_real *logit, size_t n)
{
    softmax s = {.top = cpu_greatest(logit, n)};
    s.sum = cpu_exp_total(logit, n, s.top, NULL);
    return s;
}

static cpu_real probability(softmax s, cpu_real logit)
{
    return cpu_exp(logit - s.top) / s.sum;
}

/* The top_k most probable experts in descending order, kept sorted by insertion. A later expert
 * moves ahead only when strictly more probable, so ties keep the lower one. */
static void choose(const plan_kernel *k, const cpu_real *logit, cpu_real *gate, int32_t *expert)
{
    size_t n = k->attrs.experts, top_k = k->attrs.top_k, kept = 0;
    softmax s = softmax_of(logit, n);
    for (size_t e = 0; e < n; ++e) {
        cpu_real prob = probability(s, logit[e]);
        size_t at = kept;
        while (at > 0 && prob > gate[at - 1])
            --at;
        if (at == top_k)
            continue;
        if (kept < top_k)
            ++kept;
        for (size_t j = kept - 1; j > at; --j) {
            gate[j] = gate[j - 1];
            expert[j] = expert[j - 1];
        }
        gate[at] = prob;
        expert[at] = (int32_t)e;
    }
    if (k->attrs.renorm) {
        cpu_real sum = 0;
        for (size_t j = 0; j < top_k; ++j)
            sum += gate[j];
        for (size_t j = 0; j < top_k; ++j)
            gate[j] /= sum;
    }
}

/* sum over e of f_e P_e of batch row b, in double. `count` is scratch [experts]. */
static double balance(const plan_kernel *k, const cpu_real *logits, const int32_t *expert, size_t b,
                      int32_t *count)
{
    size_t n = k->attrs.experts, per_row = (size_t)k->T * k->attrs.top_k;
    memset(count, 0, n * sizeof *count);
    for (size_t c = b * per_row; c < (b + 1) * per_row; ++c)
        ++count[expert[c]];
    double sum = 0;
    for (size_t t = 0; t < k->T; ++t) {
        const cpu_real *logit = logits + (b * k->T + t) * n;
        softmax s = softmax_of(logit, n);
        for (size_t e = 0; e < n; ++e)
            sum += (double)count[e] * (double)probability(s, logit[e]);
    }
    return sum / ((double)per_row * (double)k->T);
}

/* Position 0 for choices that their experts take, NO_ROW for the others; how many those are.
 * `count` is scratch [experts]. */
static uint64_t drop(const plan_kernel *k, const int32_t *expert, int32_t *position, int32_t *count)
{
    size_t per_row = (size_t)k->T * k->attrs.top_k;
    uint64_t dropped = 0;
    memset(position, 0, choices(k) * sizeof *position);
    for (size_t b = 0; k->attrs.capacity > 0 && b < k->B; ++b) {
        memset(count, 0, k->attrs.experts * sizeof *count);
        for (size_t c = b * per_row; c < (b + 1) * per_row; ++c)
            if ((uint32_t)++count[expert[c]] > k->attrs.capacity) {
                position[c] = NO_ROW;
                ++dropped;
            }
    }
    return dropped;
}

/* i0 o0 o1 o2 l0 */
CPU_KERNEL(router_f)
{
    const cpu_real *logits = p[0];
    cpu_real *gates = p[1];
    int32_t *expert = p[2], *position = expert + choices(k), *count = p[3];
    double *loss = p[4];
    size_t n = k->attrs.experts, top_k = k->attrs.top_k;
    for (size_t r = 0; r < cpu_positions(k); ++r)
        choose(k, logits + r * n, gates + r * top_k, expert + r * top_k);
    double sum = 0;
    for (size_t b = 0; k->attrs.aux_coef != 0 && b < k->B; ++b)
        sum += (double)n * balance(k, logits, expert, b, count) / k->attrs.count;
    *loss = (double)k->attrs.aux_coef * sum;

    uint64_t dropped = drop(k, expert, position, count);
    if (cx->dropped != NULL)
        *cx->dropped += dropped;
    /* counts become each expert's next row, and in the end the row after its last */
    memset(count, 0, n * sizeof *count);
    for (size_t c = 0; c < choices(k); ++c)
        count[expert[c]] += position[c] != NO_ROW;
    int32_t row = 0;
    for (size_t e = 0; e < n; ++e) {
        int32_t rows = count[e];
        count[e] = row;
        row += rows;
    }
    for (size_t c = 0; c < choices(k); ++c)
        if (position[c] != NO_ROW)
            position[c] = count[expert[c]]++;
    for (size_t e = n; e-- > 1;)
        count[e] -= count[e - 1];
    return PPS_OK;
}

/* Add a position's dl from its gates. Renormalised gates are a softmax over the chosen logits
 * alone: dl = g (dg - <g, dg>) there. Otherwise they are entries of the full softmax: dl = p (dp -
 * <p, dp>), dp = dg at the chosen and 0 elsewhere. */
static void add_gate_gradient(const plan_kernel *k, const cpu_real *logit, softmax s,
                              const cpu_real *gate, const cpu_real *d_gate, const int32_t *expert,
                              cpu_real *d_logit)
{
    size_t top_k = k->attrs.top_k;
    cpu_real inner = 0;
    for (size_t j = 0; j < top_k; ++j)
        inner += gate[j] * d_gate[j];
    for (size_t j = 0; j < top_k; ++j)
        d_logit[expert[j]] += gate[j] * (k->attrs.renorm ? d_gate[j] - inner : d_gate[j]);
    for (size_t e = 0; !k->attrs.renorm && e < k->attrs.experts; ++e)
        d_logit[e] -= probability(s, logit[e]) * inner;
}

/* i0 o0 o1 d0 x0. The auxiliary loss gives p (f - <p, f>) aux_coef experts / (T B_global). A batch
 * row's choices are counted in the gradient of its last position, which is written last and in
 * place. */
CPU_KERNEL(router_bi)
{
    const cpu_real *logits = p[0], *gates = p[1], *d_gates = p[3];
    const int32_t *expert = p[2];
    cpu_real *d_logits = p[4];
    size_t n = k->attrs.experts, top_k = k->attrs.top_k, per_row = (size_t)k->T * top_k;
    if (d_logits == NULL)
        return PPS_OK;
    bool aux = k->attrs.aux_coef != 0 && cpu_first(k, cx);
    cpu_real weight = 0;
    if (aux)
        weight = (cpu_real)((double)k->attrs.aux_coef * (double)n /
                            ((double)per_row * (double)k->T * k->attrs.count));
    for (size_t b = 0; b < k->B; ++b) {
        cpu_real *count = d_logits + ((b + 1) * k->T - 1) * n;
        memset(count, 0, n * sizeof *count);
        for (size_t c = b * per_row; aux && c < (b + 1) * per_row; ++c)
            count[expert[c]] += 1;
        for (size_t r = b * k->T; r < (b + 1) * k->T; ++r) {
            const cpu_real *logit = logits + r * n;
            cpu_real *d_logit = d_logits + r * n, inner = 0;
            softmax s = softmax_of(logit, n);
            for (size_t e = 0; aux && e < n; ++e)
                inner += probability(s, logit[e]) * count[e];
            for (size_t e = 0; e < n; ++e)
                d_logit[e] = aux ? weight * probability(s, logit[e]) * (count[e] - inner) : 0;
            if (d_gates != NULL)
                add_gate_gradient(k, logit, s, gates + r * top_k, d_gates + r * top_k,
                                  expert + r * top_k, d_logit);
        }
    }
    return PPS_OK;
}

/* i0 i1 o0 */
CPU_KERNEL(dispatch_f)
{
    const cpu_real *in = p[0];
    const int32_t *position = (const int32_t *)p[1] + choices(k);
    cpu_real *rows = p[2];
    size_t n = k->n_in;
    for (size_t c = 0; c < choices(k); ++c)
        if (position[c] != NO_ROW)
            memcpy(rows + (size_t)position[c] * n, in + c / k->attrs.top_k * n, n * sizeof *in);
    return PPS_OK;
}

/* i1 d0 x0 */
CPU_KERNEL(dispatch_bi)
{
    const int32_t *position = (const int32_t *)p[0] + choices(k);
    const cpu_real *d_rows = p[1];
    cpu_real *d_in = p[2];
    size_t n = k->n_in, top_k = k->attrs.top_k;
    for (size_t c = 0; d_in != NULL && c < choices(k); ++c) {
        cpu_real *to = d_in + c / top_k * n;
        if (position[c] == NO_ROW) {
            if (c % top_k == 0)
                memset(to, 0, n * sizeof *to);
            continue;
        }
        const cpu_real *from = d_rows + (size_t)position[c] * n;
        if (c % top_k == 0)
            memcpy(to, from, n * sizeof *to);
        else
            for (size_t i = 0; i < n; ++i)
                to[i] += from[i];
    }
    return PPS_OK;
}

/* i0 i1 i2 o0 */
CPU_KERNEL(combine_f)
{
    const cpu_real *rows = p[0], *gates = p[1];
    const int32_t *position = (const int32_t *)p[2] + choices(k);
    cpu_real *out = p[3];
    size_t n = k->n_out, top_k = k->attrs.top_k;
    for (size_t c = 0; c < choices(k); ++c) {
        cpu_real *to = out + c / top_k * n, gate = gates[c];
        if (position[c] == NO_ROW) {
            if (c % top_k == 0)
                memset(to, 0, n * sizeof *to);
            continue;
        }
        const cpu_real *from = rows + (size_t)position[c] * n;
        if (c % top_k == 0)
            for (size_t i = 0; i < n; ++i)
                to[i] = gate * from[i];
        else
            for (size_t i = 0; i < n; ++i)
                to[i] += gate * from[i];
    }
    return PPS_OK;
}

/* i0 i1 i2 d0 x0 x1 */
CPU_KERNEL(combine_bi)
{
    const cpu_real *rows = p[0], *gates = p[1], *d_out = p[3];
    const int32_t *position = (const int32_t *)p[2] + choices(k);
    cpu_real *d_rows = p[4], *d_gates = p[5];
    size_t n = k->n_out, top_k = k->attrs.top_k;
    for (size_t c = 0; c < choices(k); ++c) {
        if (position[c] == NO_ROW) {
            if (d_gates != NULL)
                d_gates[c] = 0;
            continue;
        }
        size_t row = (size_t)position[c] * n;
        const cpu_real *from = d_out + c / top_k * n;
        for (size_t i = 0; d_rows != NULL && i < n; ++i)
            d_rows[row + i] = gates[c] * from[i];
        if (d_gates != NULL)
            d_gates[c] = cpu_dot(rows + row, from, n);
    }
    return PPS_OK;
}
