/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_clock.c: vector clocks of one plan. When a step begins, the step before it on its stream
 * and the steps it waits for are over, and so is all that was over when those began.
 */
#include "passes/prove.h"

#include <string.h>

pps_status prove_clock_init(prove_clock *c, const prover *p, const plan *mine, arena *mem)
{
    uint32_t *before; /* [lane] step + 1 */
    *c = (prove_clock){.plan = mine};
    PASS_ALLOC(c->lane, mem, p->set->n_streams);
    memset(c->lane, 0xff, p->set->n_streams * sizeof *c->lane);
    for (uint32_t i = 0; i < mine->n_steps; i++)
        if (c->lane[mine->steps[i].stream] == IR_NONE)
            c->lane[mine->steps[i].stream] = c->n_lanes++;
    uint32_t n = c->n_lanes;
    PASS_ALLOC(before, mem, n);
    c->known = arena_new(mem, ((size_t)mine->n_steps * n + 1) * sizeof *c->known);
    if (c->known == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t i = 0; i < mine->n_steps; i++) {
        const plan_step *s = &mine->steps[i];
        uint32_t *known = c->known + (size_t)i * n, *last = &before[c->lane[s->stream]];
        if (*last > 0)
            memcpy(known, c->known + (size_t)(*last - 1) * n, n * sizeof *known);
        else
            memset(known, 0, n * sizeof *known);
        known[c->lane[s->stream]] = *last;
        for (uint32_t k = 0; k < s->n_waits; k++) {
            uint32_t w = mine->waits[s->waits + k], lane = prove_lane(c, w);
            const uint32_t *theirs = c->known + (size_t)w * n;
            for (uint32_t j = 0; j < n; j++)
                known[j] = theirs[j] > known[j] ? theirs[j] : known[j];
            known[lane] = w + 1 > known[lane] ? w + 1 : known[lane];
        }
        *last = i + 1;
    }
    return PPS_OK;
}
