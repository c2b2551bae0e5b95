/* SPDX-License-Identifier: Apache-2.0
 *
 * list.c: growable arrays of values, and ranges. Changing a list first asks object_mutable, which
 * refuses frozen lists and those a loop walks. Indexing by script values is for index.c, what
 * scripts call (`.pop`, `.sort`) for methods_list.c.
 */
#include "lang/value.h"

#include <string.h>

#include "lang/state.h"

pps_status object_mutable(pps_state *st, object *o)
{
    if (!o->frozen && !o->iterating)
        return PPS_OK;
    const char *what = pps_type_name((pps_type)o->type);
    if (o->iterating)
        return pps_error(st, vm_current_span(st), 309,
                         "this %s cannot change while a loop walks it", what);
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 308, vm_current_span(st),
                                 "this %s belongs to an imported module and cannot change", what);
    pps_diag_help(d, "change a copy: `.copy()`");
    return pps_diag_done(d);
}

#define LIST_MAX (SIZE_MAX / 4 / sizeof(value)) /* so that sizes in bytes never wrap */

static pps_status too_long(pps_state *st, size_t n)
{
    return pps_error(st, vm_current_span(st), 312, "%zu elements are too many for a list", n);
}

pps_status list_new(pps_state *st, size_t cap, value *ret)
{
    if (cap > LIST_MAX)
        return too_long(st, cap);
    void *p, *items = NULL;
    PPS_TRY(heap_object(st, PPS_LIST, sizeof(list), &p));
    list *l = p;
    if (cap) { /* on failure the empty list is garbage, collected like any other */
        PPS_TRY(heap_alloc(st, cap * sizeof(value), &items));
        l->items = items;
        l->cap = cap;
    }
    *ret = value_object(PPS_LIST, l);
    return PPS_OK;
}

pps_status list_reserve(pps_state *st, list *l, size_t cap)
{
    if (cap <= l->cap)
        return PPS_OK;
    if (cap > LIST_MAX)
        return too_long(st, cap);
    size_t doubled = l->cap ? 2 * l->cap : 4;
    if (cap < doubled)
        cap = doubled;
    void *p = l->items;
    PPS_TRY(heap_grow(st, &p, l->cap * sizeof(value), cap * sizeof(value)));
    l->items = p;
    l->cap = cap;
    return PPS_OK;
}

pps_status list_push(pps_state *st, list *l, value v)
{
    if (l->o.frozen | l->o.iterating)
        return object_mutable(st, &l->o);
    if (l->n == l->cap)
        PPS_TRY(list_reserve(st, l, l->n + 1));
    l->items[l->n++] = v;
    return PPS_OK;
}

pps_status list_extend(pps_state *st, list *l, value iterable)
{
    PPS_TRY(object_mutable(st, &l->o));
    size_t n;
    PPS_TRY(value_count(st, iterable, vm_current_span(st), &n));
    if (n > LIST_MAX)
        return too_long(st, n);
    PPS_TRY(vm_charge(st, n));
    PPS_TRY(list_reserve(st, l, l->n + n));
    if (pps_typeof(iterable) == PPS_LIST) { /* may be `l` itself: take the items after growing */
        const list *from = iterable.as.ptr;
        if (n)
            memmove(l->items + l->n, from->items, n * sizeof(value));
        l->n += n;
        return PPS_OK;
    }
    value_iter it;
    PPS_TRY(iter_begin(st, &it, iterable, vm_current_span(st)));
    pps_status status;
    value v;
    bool more;
    while ((status = iter_next(st, &it, &v, &more)) == PPS_OK && more)
        l->items[l->n++] = v;
    iter_end(&it);
    return status;
}

void list_reverse(list *l)
{
    for (size_t i = 0, j = l->n; i + 1 < j; i++) {
        value v = l->items[i];
        l->items[i] = l->items[--j];
        l->items[j] = v;
    }
}

/* ---- Ranges ---------------------------------------------------------------------------------- */

pps_status range_new(pps_state *st, int64_t begin, int64_t end, int64_t step, value *ret)
{
    if (step == 0)
        return pps_error(st, vm_current_span(st), 312, "the step of a range cannot be 0");
    void *p;
    PPS_TRY(heap_object(st, PPS_RANGE, sizeof(range), &p));
    range *r = p;
    r->begin = begin;
    r->end = end;
    r->step = step;
    *ret = value_object(PPS_RANGE, r);
    return PPS_OK;
}

size_t range_count(const range *r)
{
    bool up = r->step > 0;
    if (up ? r->begin >= r->end : r->begin <= r->end)
        return 0;
    uint64_t distance =
        up ? (uint64_t)r->end - (uint64_t)r->begin : (uint64_t)r->begin - (uint64_t)r->end;
    uint64_t stride = up ? (uint64_t)r->step : 0 - (uint64_t)r->step;
    return (distance - 1) / stride + 1;
}
