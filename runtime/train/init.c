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
                       const train_weights *w, char *memory)
{
    for (uint32_t b = 0; b < p->n_buckets; b++) {
        const plan_bucket *k = &p->buckets[b];
        char *bucket = memory + plan_bucket_at(p, k, PLAN_AREA_PARAMS, group_index);
        for (uint32_t i = k->first; i < k->first + k->n; i++) {
            const plan_param *held = &p->params[i];
            const ir_param *param = &set->params[held->param];
            plan_piece piece =
                plan_piece_of(p, k, held, plan_sliced(k, PLAN_AREA_PARAMS), group_index);
            uint64_t first = (piece.begin - held->offset) / sizeof(float);
            uint64_t elems = (piece.end - piece.begin) / sizeof(float);
            float *dest = (float *)(bucket + piece.begin);
            if (held->shards > 1)
                first += group_index * held->elems;
            if (elems == 0)
                continue;
            if (w != NULL)
                train_weights_read(w, param, first, elems, dest);
            else
                train_init_param(param, set->train.seed, first, elems, dest);
        }
    }
}
