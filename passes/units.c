/* SPDX-License-Identifier: Apache-2.0
 *
 * units.c: which units of work, microbatches or slices of them, an entry of a row names. An op
 * without a slice names them all: F(0, 1) is microbatch 1 from its first positions to its last, and
 * B(0, 1) the way back, since a slice's gradients need those of later ones.
 */
#include "passes/pass.h"

#include <string.h>

static void take_term(const ir_program *p, const ir_term *t, const uint32_t **set, uint32_t *n)
{
    if (t->kind != PPS_TERM_SET)
        return;
    *set = p->ints + t->begin;
    *n = t->n;
}

pass_units pass_entry_units(const pass_cx *cx, const ir_entry *e, pps_pass pass)
{
    const ir_program *p = cx->program;
    const dag *d = cx->dag;
    pass_units u = {
        .n_mbs = d->n_mb / d->n_slices, .n_slices = d->n_slices, .back = pass != PPS_PASS_F};
    if (!e->general) {
        u.mb_first = e->mb;
        u.n_mbs = 1;
        if (e->slice > 0) {
            u.slice_first = e->slice - 1;
            u.n_slices = 1;
        }
        return u;
    }
    const ir_filter *f = &p->filters[e->filter];
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &p->terms[f->begin + i];
        if (strcmp(t->tag, d->mb_tag) == 0)
            take_term(p, t, &u.mb_set, &u.n_mbs);
        else if (d->slice_tag != NULL && strcmp(t->tag, d->slice_tag) == 0)
            take_term(p, t, &u.slice_set, &u.n_slices);
    }
    return u;
}

pass_unit_index pass_unit_at(const pass_units *u, uint32_t k)
{
    uint32_t mb = k / u->n_slices, slice = k % u->n_slices;
    if (u->back)
        slice = u->n_slices - 1 - slice;
    return (pass_unit_index){.mb = u->mb_set != NULL ? u->mb_set[mb] : u->mb_first + mb,
                             .slice = u->slice_set != NULL ? u->slice_set[slice]
                                                           : u->slice_first + slice};
}

uint32_t pass_unit(const pass_cx *cx, const pass_units *u, uint32_t k)
{
    const dag *d = cx->dag;
    pass_unit_index at = pass_unit_at(u, k);
    if (at.mb >= d->n_mb / d->n_slices || at.slice >= d->n_slices)
        return IR_NONE;
    return at.mb * d->n_slices + at.slice;
}
