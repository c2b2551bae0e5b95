/* SPDX-License-Identifier: Apache-2.0
 *
 * optimizer.c: SGD with momentum and AdamW, element by element, in place.
 *
 *   sgd     m = momentum m + g,  p -= lr (m + decay p)
 *   adamw   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2
 *           p -= lr (m/(1 - b1^t) / (sqrt(v/(1 - b2^t)) + eps) + decay p)
 */
#include "runtime/cpu/cpu.h"

#include <math.h>

uint32_t cpu_optimizer_states(const ir_optimizer *opt)
{
    switch ((ir_optimizer_kind)opt->kind) {
    case IR_OPT_SGD:
        return opt->momentum != 0 ? 1 : 0;
    case IR_OPT_ADAMW:
        return 2;
    }
    return 0;
}

static void sgd(const ir_optimizer *opt, float decay, uint64_t elems, float *restrict param,
                const float *restrict grad, float *restrict state)
{
    float lr = opt->lr, momentum = opt->momentum;
    if (momentum == 0) {
        for (uint64_t i = 0; i < elems; ++i)
            param[i] -= lr * (grad[i] + decay * param[i]);
        return;
    }
    for (uint64_t i = 0; i < elems; ++i) {
        state[i] = momentum * state[i] + grad[i];
        param[i] -= lr * (state[i] + decay * param[i]);
    }
}

static void adamw(const ir_optimizer *opt, float decay, uint64_t step, uint64_t elems,
                  float *restrict param, const float *restrict grad, float *restrict state_m,
                  float *restrict state_v)
{
    float lr = opt->lr, beta1 = opt->beta1, beta2 = opt->beta2, eps = opt->eps;
    float whole1 = (float)(1 - pow((double)beta1, (double)step));
    float whole2 = (float)(1 - pow((double)beta2, (double)step));
    for (uint64_t i = 0; i < elems; ++i) {
        float g = grad[i];
        float m = beta1 * state_m[i] + (1 - beta1) * g;
        float v = beta2 * state_v[i] + (1 - beta2) * g * g;
        state_m[i] = m;
        state_v[i] = v;
        float move = (m / whole1) / (sqrtf(v / whole2) + eps);
        param[i] -= lr * (move + decay * param[i]);
    }
}

void cpu_update(const ir_optimizer *opt, bool decay, uint64_t step, uint64_t elems, float *param,
                const float *grad, float *state_m, float *state_v)
{
    float rate = decay ? opt->weight_decay : 0;
    switch ((ir_optimizer_kind)opt->kind) {
    case IR_OPT_SGD:
        sgd(opt, rate, elems, param, grad, state_m);
        return;
    case IR_OPT_ADAMW:
        adamw(opt, rate, step, elems, param, grad, state_m, state_v);
        return;
    }
}
