/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_teams.c: who sits where in teams of ranks, and which elements of a parameter that cuts share
 * out a rank holds.
 */
#include "ir/plan.h"

void plan_find_seats(const plan_set *set, uint32_t rank, plan_seat *ret)
{
    for (uint32_t i = 0; i < set->n_teams; i++) {
        const plan_teams *t = &set->teams[i];
        ret[i] = (plan_seat){IR_NONE, IR_NONE};
        for (uint32_t k = 0; k < t->n_ranks; k++)
            if (set->team_ranks[t->ranks + k] == rank)
                ret[i] = (plan_seat){k / t->size, k % t->size};
    }
}

/* Held elements are those of the logical parameter in the same order: [d0, d1, ..] with every cut
 * dimension divided by its team's size (and before that, where a cut has blocks, seen as two). So
 * an element's coordinates are found from the last dimension on, and a run goes on as far as no cut
 * dimension in front of it is left. */
plan_run plan_held_run(const plan_set *set, const plan_param *q, const plan_seat *seats,
                       uint64_t at, uint64_t end)
{
    const ir_param *p = &set->params[q->param];
    uint64_t step = 1, logical = 0, rest = at, row = 1;
    bool whole = true; /* no cut among the dimensions so far */
    for (uint32_t d = p->n_dims; d-- > 0;) {
        /* [blocks, all / blocks] where the dimension is cut, [1, all] where it is not */
        uint64_t blocks = 1, all = p->dims[d], held = all, first = 0;
        for (int i = 0; i < PLAN_MAX_CUTS; i++) {
            const plan_cut *cut = &q->cuts[i];
            if (cut->teams == IR_NONE || cut->dim != d)
                continue;
            blocks = cut->blocks;
            all /= blocks;
            held = all / set->teams[cut->teams].size;
            first = held * seats[cut->teams].index;
        }
        logical += (first + rest % held) * step;
        rest /= held;
        step *= all;
        if (whole)
            row *= held;
        whole &= held == all;
        logical += rest % blocks * step;
        rest /= blocks;
        step *= blocks;
        if (whole)
            row *= blocks;
    }
    uint64_t n = row - at % row;
    return (plan_run){logical, n < end - at ? n : end - at};
}
