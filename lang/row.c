/* SPDX-License-Identifier: Apache-2.0
 *
 * row.c: groups (a | b: ops that may overlap) and rows (a -> b: lists of groups). A group of one op
 * is the op itself, so a row's elements are ops, filters and groups. Whether a row makes sense is
 * for the passes to say.
 */
#include "lang/value.h"

#include <string.h>

#include "lang/state.h"

static bool is_group(value v)
{
    pps_type t = pps_typeof(v);
    return t == PPS_OP || t == PPS_FILTER || t == PPS_GROUP;
}

/* Members of `v` seen as a group; 0 when it cannot be one. */
static uint32_t group_members(const value *v, const value **ret)
{
    if (pps_typeof(*v) == PPS_GROUP) {
        const group *g = v->as.ptr;
        *ret = g->items;
        return g->n;
    }
    *ret = v;
    return is_group(*v) ? 1 : 0;
}

pps_status group_or(pps_state *st, value a, value b, value *ret)
{
    const value *items_a, *items_b;
    uint32_t n_a = group_members(&a, &items_a), n_b = group_members(&b, &items_b);
    if (n_a == 0 || n_b == 0)
        return pps_error(st, vm_current_span(st), 304, "`|` overlaps ops and groups, this is %s",
                         value_kind(st, n_a == 0 ? a : b));
    if (n_a > UINT32_MAX - n_b)
        return pps_error(st, vm_current_span(st), 312, "this group is too large");
    PPS_TRY(vm_charge(st, (uint64_t)n_a + n_b));
    void *p;
    PPS_TRY(heap_object(st, PPS_GROUP, sizeof(group) + ((size_t)n_a + n_b) * sizeof(value), &p));
    group *g = p;
    memcpy(g->items, items_a, n_a * sizeof(value));
    memcpy(g->items + n_a, items_b, n_b * sizeof(value));
    g->n = n_a + n_b;
    *ret = value_object(PPS_GROUP, g);
    return PPS_OK;
}

static pps_status not_a_step(pps_state *st, value v)
{
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 304, vm_current_span(st),
                                 "`->` joins ops, groups and rows, this is %s", value_kind(st, v));
    if (pps_typeof(v) == PPS_PASS)
        pps_diag_help(d, "name a stage and a microbatch: `F(s, m)`");
    return pps_diag_done(d);
}

pps_status row_append(pps_state *st, list *row, value v)
{
    if (is_group(v))
        return list_push(st, row, v);
    if (pps_typeof(v) != PPS_LIST)
        return not_a_step(st, v);
    const list *from = v.as.ptr;
    for (size_t i = 0; i < from->n; i++)
        if (!is_group(from->items[i]))
            return not_a_step(st, from->items[i]);
    return list_extend(st, row, v);
}

pps_status row_arrow(pps_state *st, value a, value b, value *ret)
{
    value row;
    PPS_TRY(list_new(st, 0, &row));
    PPS_TRY(row_append(st, row.as.ptr, a));
    PPS_TRY(row_append(st, row.as.ptr, b));
    *ret = row;
    return PPS_OK;
}
