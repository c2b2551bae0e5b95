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

void train_fill_params(const plan_set *set, const plan *p, const plan_seat *seats,
                       const train_weights *w, char *memory)
{
    for (uint32_t b = 0; b < p->n_buckets; b++) {
        const plan_bucket *k = &p->buckets[b];
        uint32_t slice = plan_slice_of(k, seats);
        char *bucket = memory + plan_bucket_at(k, PLAN_AREA_PARAMS, slice);
        for (uint32_t i = k->first; i < k->first + k->n; i++) {
            const plan_param *held = &p->params[i];
            const ir_param *param = &set->params[held->param];
            plan_piece piece = plan_piece_of(k, held, plan_sliced(k, PLAN_AREA_PARAMS), slice);
            uint64_t at = (piece.begin - held->offset) / sizeof(float);
            uint64_t end = (piece.end - held->offset) / sizeof(float);
            float *dest = (float *)(bucket + piece.begin);
            while (at < end) {
                plan_run run = plan_held_run(set, held, seats, at, end);
                if (w != NULL)
                    train_weights_read(w, param, run.first, run.n, dest);
                else
                    train_init_param(param, set->train.seed, run.first, run.n, dest);
                dest += run.n;
                at += run.n;
            }
        }
    }
}
