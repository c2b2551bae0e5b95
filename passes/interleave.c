/* SPDX-License-Identifier: Apache-2.0
 *
 * interleave.c: the order of an overlapped group. Its ops' chains of chunks are merged evenly, so
 * that the exchange between two chunks of one op has a chunk of another op to hide under:
 *
 *     F:  f0 ~~> e ~~> f1        f0 b0 e b1 f1 b2
 *     B:  b0 ~~> b1 ~~> b2       each ~~> runs under the compute that stands between its ends
 *
 * Within an op the order is kept. Costs are not weighed.
 */
#include "passes/pass.h"

void pass_interleave(const uint32_t *nodes, const uint32_t *n, uint32_t n_ops, uint32_t *ret)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < n_ops; i++)
        total += n[i];
    /* Take from the op whose next node lies earliest in its own chain, as a fraction of that chain;
     * ties go to the op named first. taken[i] is read off `ret`'s progress by counting. */
    uint32_t taken[64] = {0};
    if (n_ops > 64) { /* more ops than any stream could overlap: keep them in the order given */
        for (uint32_t k = 0; k < total; k++)
            ret[k] = nodes[k];
        return;
    }
    for (uint32_t k = 0; k < total; k++) {
        uint32_t best = UINT32_MAX, base = 0, best_at = 0;
        for (uint32_t i = 0; i < n_ops; i++) {
            /* (taken + 1/2) / n, compared by cross multiplication */
            if (taken[i] < n[i] &&
                (best == UINT32_MAX ||
                 (uint64_t)(2 * taken[i] + 1) * n[best] < (uint64_t)(2 * taken[best] + 1) * n[i])) {
                best = i;
                best_at = base + taken[i];
            }
            base += n[i];
        }
        taken[best]++;
        ret[k] = nodes[best_at];
    }
}
