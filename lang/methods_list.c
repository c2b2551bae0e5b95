/* SPDX-License-Identifier: Apache-2.0
 *
 * methods_list.c: methods of lists and ranges. Whatever calls script code counts as a loop over the
 * list meanwhile, so a callback cannot pull it away.
 */
#include "lang/builtins.h"

#include <string.h>

static list *self_list(const method_args *a)
{
    return a->self.as.ptr;
}

pps_status method_list_append(pps_state *st, const method_args *a, value *ret)
{
    *ret = pps_nil();
    return list_push(st, self_list(a), a->v[0]);
}

pps_status method_list_extend(pps_state *st, const method_args *a, value *ret)
{
    size_t n; /* for the error at the argument */
    PPS_TRY(value_count(st, a->v[0], pps_arg_span(st, a->written[0]), &n));
    *ret = pps_nil();
    return list_extend(st, self_list(a), a->v[0]);
}

/* A position to remove (`n` positions) or to insert at (one more); negative ones from the end. */
static pps_status position(pps_state *st, const method_args *a, size_t n, size_t *ret)
{
    int64_t i;
    PPS_TRY(arg_int(st, a->written[0], a->v[0], &i));
    uint64_t at = i < 0 ? (uint64_t)i + self_list(a)->n : (uint64_t)i;
    if (at >= n)
        return pps_error(st, pps_arg_span(st, a->written[0]), 310,
                         "index %lld is out of range: this list has %zu elements", (long long)i,
                         self_list(a)->n);
    *ret = at;
    return PPS_OK;
}

pps_status method_list_pop(pps_state *st, const method_args *a, value *ret)
{
    list *l = self_list(a);
    PPS_TRY(object_mutable(st, &l->o));
    if (l->n == 0)
        return pps_error(st, pps_call_span(st), 310, "this list is empty, there is nothing to pop");
    size_t at = l->n - 1;
    if (a->given[0])
        PPS_TRY(position(st, a, l->n, &at));
    PPS_TRY(vm_charge(st, (l->n - at) / 16));
    *ret = l->items[at];
    memmove(l->items + at, l->items + at + 1, (l->n - at - 1) * sizeof(value));
    l->n--;
    return PPS_OK;
}

pps_status method_list_insert(pps_state *st, const method_args *a, value *ret)
{
    list *l = self_list(a);
    size_t at;
    PPS_TRY(position(st, a, l->n + 1, &at));
    PPS_TRY(vm_charge(st, (l->n - at) / 16));
    PPS_TRY(list_push(st, l, a->v[1]));
    memmove(l->items + at + 1, l->items + at, (l->n - at - 1) * sizeof(value));
    l->items[at] = a->v[1];
    *ret = pps_nil();
    return PPS_OK;
}

pps_status method_list_index(pps_state *st, const method_args *a, value *ret)
{
    const list *l = self_list(a);
    PPS_TRY(vm_charge(st, l->n / 4));
    for (size_t i = 0; i < l->n; i++) {
        bool same;
        PPS_TRY(value_equal(st, l->items[i], a->v[0], &same));
        if (same) {
            *ret = pps_int((int64_t)i);
            return PPS_OK;
        }
    }
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 312, pps_arg_span(st, a->written[0]),
                                 "this list has no such element");
    pps_diag_help(d, "`x in xs` asks whether it has");
    return pps_diag_done(d);
}

pps_status method_list_count(pps_state *st, const method_args *a, value *ret)
{
    const list *l = self_list(a);
    int64_t n = 0;
    PPS_TRY(vm_charge(st, l->n / 4));
    for (size_t i = 0; i < l->n; i++) {
        bool same;
        PPS_TRY(value_equal(st, l->items[i], a->v[0], &same));
        n += same;
    }
    *ret = pps_int(n);
    return PPS_OK;
}

pps_status method_list_sort(pps_state *st, const method_args *a, value *ret)
{
    bool reverse = false;
    if (a->given[1])
        PPS_TRY(arg_bool(st, a->written[1], a->v[1], &reverse));
    *ret = pps_nil();
    return sort_list(st, self_list(a), a->v[0], reverse);
}

pps_status method_list_reverse(pps_state *st, const method_args *a, value *ret)
{
    list *l = self_list(a);
    PPS_TRY(object_mutable(st, &l->o));
    PPS_TRY(vm_charge(st, l->n / 4));
    list_reverse(l);
    *ret = pps_nil();
    return PPS_OK;
}

pps_status method_list_copy(pps_state *st, const method_args *a, value *ret)
{
    return value_slice(st, a->self, pps_nil(), pps_nil(), ret);
}

pps_status method_list_clear(pps_state *st, const method_args *a, value *ret)
{
    PPS_TRY(object_mutable(st, &self_list(a)->o));
    self_list(a)->n = 0;
    *ret = pps_nil();
    return PPS_OK;
}

pps_status method_any_contains(pps_state *st, const method_args *a, value *ret)
{
    bool found;
    PPS_TRY(value_contains(st, a->self, a->v[0], &found));
    *ret = pps_bool(found);
    return PPS_OK;
}

/* ---- Calling a function for each element ------------------------------------------------------
 */

static pps_status keep_mapped(pps_state *st, value v, value result, list *ret)
{
    (void)v;
    return list_push(st, ret, result);
}

static pps_status keep_if_true(pps_state *st, value v, value result, list *ret)
{
    if (pps_typeof(result) != PPS_BOOL)
        return pps_error(st, pps_arg_span(st, 0), 304,
                         "this function gives %s where a bool is needed", value_kind(st, result));
    return pps_as_bool(result) ? list_push(st, ret, v) : PPS_OK;
}

typedef pps_status (*keep_fn)(pps_state *st, value v, value result, list *ret);

/* The callback may put another element in v's place, so v is held until it is kept or not. */
static pps_status call_and_keep(pps_state *st, value fn, value v, keep_fn keep, list *ret)
{
    value result;
    PPS_TRY(vm_charge(st, 1));
    PPS_TRY(heap_protect(st, v));
    pps_status status = call_one(st, fn, v, &result);
    if (status == PPS_OK)
        status = keep(st, v, result, ret);
    heap_unprotect(st, 1);
    return status;
}

static pps_status for_each(pps_state *st, const method_args *a, keep_fn keep, value *ret)
{
    value_iter it;
    value v;
    bool more;
    PPS_TRY(list_new(st, 0, ret));
    PPS_TRY(iter_begin(st, &it, a->self, pps_call_span(st)));
    pps_status status = heap_protect(st, *ret);
    if (status == PPS_OK) {
        while ((status = iter_next(st, &it, &v, &more)) == PPS_OK && more) {
            status = call_and_keep(st, a->v[0], v, keep, ret->as.ptr);
            if (status != PPS_OK)
                break;
        }
        heap_unprotect(st, 1);
    }
    iter_end(&it);
    return status;
}

pps_status method_any_map(pps_state *st, const method_args *a, value *ret)
{
    return for_each(st, a, keep_mapped, ret);
}

pps_status method_any_filter(pps_state *st, const method_args *a, value *ret)
{
    return for_each(st, a, keep_if_true, ret);
}
