/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_once.c: every chunk of the model runs each pass of each microbatch once, on whichever
 * device group has that microbatch. Programs say what passes a chunk has: F, and for its backward
 * B, or BI and (where there are weights) BW. So every contribution to a parameter's gradient is
 * made, and made once. And every loss is written by one step, on the device group that reports it.
 */
#include "passes/prove.h"

static pps_status twice(const prover *p, uint32_t group, uint32_t step, uint8_t bits)
{
    const plan_set *set = p->set;
    const plan_step *s = &set->plans[group].steps[step];
    pps_diag *diag = prove_wrong(p, group, step, 518, "a pass of one microbatch runs twice");
    for (uint32_t g = 0; g <= group; g++)
        for (uint32_t i = 0; i < (g == group ? step : set->plans[g].n_steps); i++) {
            const plan_step *o = &set->plans[g].steps[i];
            if (o->kind != PLAN_COMPUTE || o->mb != s->mb || (bits & 1u << o->pass) == 0 ||
                set->chunk_model[plan_work_of(set, o)->chunk] !=
                    set->chunk_model[plan_work_of(set, s)->chunk])
                continue;
            prove_other(p, diag, g, i, "it ran before");
            return pps_diag_done(diag);
        }
    return pps_diag_done(diag);
}

static pps_status prove_losses(const prover *p)
{
    const plan_set *set = p->set;
    bool *written;
    PASS_ALLOC(written, p->mem, set->n_losses);
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
            const plan_step *s = &set->plans[g].steps[i];
            const plan_work *w = plan_work_of(set, s);
            if (s->kind != PLAN_COMPUTE || set->programs[w->program].n_loss == 0)
                continue;
            uint32_t first = w->loss + s->mb * set->n_mb_losses;
            for (uint32_t k = 0; k < set->programs[w->program].n_loss; k++) {
                if (written[first + k])
                    return prove_two(p, g, i, 518, "a loss is written twice", IR_NONE, NULL);
                if (set->losses[first + k].group != g)
                    return prove_two(p, g, i, 520, "a loss is reported by another device group",
                                     IR_NONE, NULL);
                written[first + k] = true;
            }
        }
    for (uint32_t i = 0; i < set->n_losses; i++)
        if (!written[i]) {
            pps_span none = {0};
            return pps_error(p->st, none, 521, "loss %u is never written", i);
        }
    return PPS_OK;
}

static pps_status prove_passes(const prover *p)
{
    const plan_set *set = p->set;
    const uint8_t f = 1 << PPS_PASS_F, b = 1 << PPS_PASS_B, bi = 1 << PPS_PASS_BI,
                  bw = 1 << PPS_PASS_BW;
    uint8_t *seen, *wanted; /* bit per pass */
    uint32_t *group;        /* where a chunk runs */
    PASS_ALLOC(seen, p->mem, (size_t)set->n_chunks * set->n_mb);
    PASS_ALLOC(wanted, p->mem, set->n_chunks);
    PASS_ALLOC(group, p->mem, set->n_chunks);
    for (uint32_t i = 0; i < set->n_programs; i++)
        wanted[set->chunk_model[set->programs[i].chunk]] |= (uint8_t)(1u << set->programs[i].pass);
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
            const plan_step *s = &set->plans[g].steps[i];
            if (s->kind != PLAN_COMPUTE)
                continue;
            uint32_t chunk = set->chunk_model[plan_work_of(set, s)->chunk];
            uint8_t *bits = &seen[(size_t)chunk * set->n_mb + s->mb];
            uint8_t bit = (uint8_t)(1u << s->pass);
            uint8_t against = bit | (bit == b ? bi | bw : bit == bi || bit == bw ? b : 0);
            if (*bits & against)
                return twice(p, g, i, *bits & against);
            *bits |= bit;
            group[chunk] = g;
        }
    for (uint32_t c = 0; c < set->n_chunks; c++)
        for (uint32_t m = 0; m < set->n_mb; m++) {
            uint8_t bits = seen[(size_t)c * set->n_mb + m], need = wanted[c] & f;
            if (wanted[c] & (b | bi))
                need |= bits & b ? b : wanted[c] & (bi | bw);
            if ((bits & need) != need) {
                static const char *const names[] = {"F", "B", "BI", "BW"};
                int pass = __builtin_ctz(need & ~(unsigned)bits);
                pps_span none = {0};
                return pps_error(p->st, none, 521,
                                 "a pass never runs: %s of %s, microbatch %u, group %u",
                                 names[pass], set->chunk_names[c], m / set->n_slices, group[c]);
            }
        }
    return PPS_OK;
}

pps_status prove_once(const prover *p)
{
    PPS_TRY(prove_passes(p));
    return prove_losses(p);
}
