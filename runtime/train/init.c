/* SPDX-License-Identifier: Apache-2.0
 *
 * init.c: initial parameters, from the seed or from a file, for whatever part of them a rank holds.
 */
#include "runtime/train/train.h"
#include "runtime/train/random.h"

#include <string.h>

void train_init_param(const ir_param *p, uint64_t seed, uint64_t first, uint64_t elems, float *dest)
{
    switch ((ir_init)p->init) {
    case IR_INIT_NORMAL:
        random_normals(random_name_key(seed, p->name), first, elems, p->init_std, dest);
        return;
    case IR_INIT_ZERO:
        memset(dest, 0, elems * sizeof *dest);
        return;
    case IR_INIT_ONE:
        for (uint64_t i = 0; i < elems; i++)
            dest[i] = 1;
        return;
    }
}

void train_fill_params(const plan_set *set, const plan *p, uint32_t group_index,
                       const train_weights *w, float *params)
{
    for (uint32_t i = 0; i < p->n_params; i++) {
        const plan_param *held = &p->params[i];
        const ir_param *param = &set->params[held->param];
        uint64_t first = held->shards > 1 ? group_index * held->elems : 0;
        float *dest = params + held->offset / sizeof(float);
        if (w != NULL)
            train_weights_read(w, param, first, held->elems, dest);
        else
            train_init_param(param, set->train.seed, first, held->elems, dest);
    }
}
