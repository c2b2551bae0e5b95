/* SPDX-License-Identifier: Apache-2.0
 *
 * ring.c: when keys and values travel to the rounds of attention that read them. Data alone would
 * let all of them come as soon as they are made, and those of the backward, which are there since
 * the forward, at any time. A shift waits for the compute two places before its round in its
 * group's order:
 *
 *   compute   .. k v  | round 0 | round 1 | round 2 | ..
 *   ring              | shift 1 | shift 2 | shift 3 |        a block of keys in use, one on its way
 *
 * so it travels while the compute before its round runs, and at most two blocks of other ranks'
 * keys and values are there at once, however many ranks share a sequence.
 */
#include "passes/pass.h"

/* Each of the run's nodes after the compute two before the node of `use` that it serves. */
static pps_status hold_back(pass_cx *cx, uint32_t run, uint32_t use)
{
    const dag *d = cx->dag;
    for (uint32_t m = 0; run != IR_NONE && m < d->runs[run].n; m++) {
        uint32_t at = cx->node_pos[d->runs[use].first + m];
        if (at >= 2)
            PPS_TRY(pass_add_extra(cx, cx->order_of[d->runs[run].group][at - 2],
                                   d->runs[run].first + m, IR_NONE));
    }
    return PPS_OK;
}

pps_status pass_ring(pass_cx *cx)
{
    const dag *d = cx->dag;
    for (uint32_t l = 0; l < d->n_links; l++) {
        const dag_link *k = &d->links[l];
        if (k->border[DAG_DST] != IR_BORDER_SHIFT)
            continue;
        PPS_TRY(hold_back(cx, k->f_border[DAG_DST], d->chunks[k->dst].f));
        PPS_TRY(hold_back(cx, k->b_again, d->chunks[k->dst].b));
    }
    return PPS_OK;
}
