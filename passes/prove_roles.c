/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_roles.c: which bindings of a program are read and which written, from its kernels and the
 * letters of ops.def. A binding is read if some kernel reads a part of it that no kernel before has
 * written. What a host's own op does is not said in a plan: its bindings count as read and written
 * where nothing else is known of them.
 */
#include "passes/prove.h"

#include "ir/plan_row.h"

#include <string.h>

pps_status prove_roles_init(prover *p)
{
    uint32_t n = 0;
    PASS_ALLOC(p->roles_at, p->mem, p->set->n_programs);
    PASS_ALLOC(p->roles_done, p->mem, p->set->n_programs);
    for (uint32_t i = 0; i < p->set->n_programs; i++) {
        p->roles_at[i] = n;
        n += p->set->programs[i].n_bindings;
    }
    PASS_ALLOC(p->roles, p->mem, n);
    return PPS_OK;
}

/* Parts of bindings that kernels have written: (binding, offset), hashed. */
typedef struct written {
    const plan_operand **table;
    uint32_t mask;
} written;

static const plan_operand **place_of(const written *w, const plan_operand *o)
{
    uint32_t at = (uint32_t)((o->bind * 40503u + o->offset) * 2654435761u >> 7) & w->mask;
    while (w->table[at] != NULL &&
           (w->table[at]->bind != o->bind || w->table[at]->offset != o->offset))
        at = (at + 1) & w->mask;
    return &w->table[at];
}

/* What a kernel does with its operands; 0 where a plan does not say. */
static void operand_roles(const plan_kernel *k, uint8_t ret[PLAN_MAX_OPERANDS])
{
    ir_operand list[PLAN_MAX_OPERANDS];
    memset(ret, 0, k->n_operands);
    if (k->op == IR_OPAQUE || !plan_kernel_operands(k, list))
        return;
    for (uint32_t i = 0; i < k->n_operands; i++)
        switch (list[i].letter) {
        case 'o':
        case 's':
            ret[i] = k->phase == IR_PHASE_F ? PROVE_WRITES : PROVE_READS;
            break;
        case 'h':
            ret[i] = k->phase == IR_PHASE_BW ? PROVE_READS : PROVE_WRITES;
            break;
        case 'x':
        case 'w':
        case 'l':
            ret[i] = PROVE_WRITES;
            break;
        case 'c': /* slices of a microbatch, the first of which begins it */
            ret[i] = PROVE_READS;
            if (k->phase == IR_PHASE_F || list[i].index == 1)
                ret[i] = PROVE_BEGINS | PROVE_READS | PROVE_WRITES;
            break;
        case 'g': /* adds to what is there */
            ret[i] = PROVE_READS | PROVE_WRITES;
            break;
        default: /* i p d */
            ret[i] = PROVE_READS;
        }
}

pps_status prove_program_roles(const prover *p, uint32_t program, const uint8_t **ret)
{
    const plan_set *set = p->set;
    const plan_program *g = &set->programs[program];
    uint8_t *roles = p->roles + p->roles_at[program], of[PLAN_MAX_OPERANDS];
    uint32_t n = 0, size = 16;
    written w;
    *ret = roles;
    if (p->roles_done[program])
        return PPS_OK;
    p->roles_done[program] = true;
    for (uint32_t k = 0; k < g->n_kernels; k++)
        n += set->kernels[g->kernels + k].n_operands;
    while (size < 2 * n)
        size *= 2;
    PASS_ALLOC(w.table, p->mem, size);
    w.mask = size - 1;
    for (uint32_t k = 0; k < g->n_kernels; k++) {
        const plan_kernel *kernel = &set->kernels[g->kernels + k];
        const plan_operand *list = &set->operands[kernel->operands];
        operand_roles(kernel, of);
        for (uint32_t i = 0; i < kernel->n_operands; i++)
            if (list[i].space == PLAN_BIND && (of[i] & PROVE_READS) != 0 &&
                *place_of(&w, &list[i]) == NULL)
                roles[list[i].bind] |= of[i] & (PROVE_READS | PROVE_BEGINS);
        for (uint32_t i = 0; i < kernel->n_operands; i++)
            if (list[i].space == PLAN_BIND && (of[i] & PROVE_WRITES) != 0) {
                roles[list[i].bind] |= PROVE_WRITES;
                *place_of(&w, &list[i]) = &list[i];
            }
    }
    return PPS_OK;
}
