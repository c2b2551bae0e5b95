/* SPDX-License-Identifier: Apache-2.0
 *
 * builtins_seq.c: builtins over everything that can be walked: range, enumerate, zip, sorted,
 * reversed, any, all, list. They give lists, not lazy sequences: rows are small and lists print.
 */
#include "lang/builtins.h"

pps_status builtin_range(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    int64_t begin, end, step;
    PPS_TRY(arg_int(st, 0, argv[0], &begin));
    PPS_TRY(arg_int(st, 2, argv[2], &step));
    if (step == 0)
        return pps_error(st, pps_arg_span(st, 2), 312, "the step of a range cannot be 0");
    if (pps_typeof(argv[1]) == PPS_NIL)
        return range_new(st, 0, begin, step, ret);
    PPS_TRY(arg_int(st, 1, argv[1], &end));
    return range_new(st, begin, end, step, ret);
}

static pps_status new_list_of(pps_state *st, value from, value *ret)
{
    size_t n; /* for the error at the argument; list_extend would name the call */
    PPS_TRY(value_count(st, from, pps_arg_span(st, 0), &n));
    PPS_TRY(list_new(st, 0, ret));
    return list_extend(st, ret->as.ptr, from);
}

pps_status builtin_list(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    return new_list_of(st, argv[0], ret);
}

static pps_status new_pair(pps_state *st, value a, value b, value *ret)
{
    PPS_TRY(list_new(st, 2, ret));
    list *l = ret->as.ptr;
    l->items[0] = a;
    l->items[1] = b;
    l->n = 2;
    return PPS_OK;
}

pps_status builtin_enumerate(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    int64_t start, last;
    PPS_TRY(arg_int(st, 1, argv[1], &start));
    PPS_TRY(new_list_of(st, argv[0], ret));
    list *l = ret->as.ptr;
    if (__builtin_add_overflow(start, (int64_t)l->n, &last))
        return pps_error(st, pps_arg_span(st, 1), 602, "these numbers do not fit in 64 bits");
    PPS_TRY(vm_charge(st, l->n));
    for (size_t i = 0; i < l->n; i++)
        PPS_TRY(new_pair(st, pps_int(start + (int64_t)i), l->items[i], &l->items[i]));
    return PPS_OK;
}

/* The walks of `zip`, side by side, one element of each per round. */
static pps_status zip_rounds(pps_state *st, value_iter *its, size_t n, list *ret)
{
    for (;;) {
        value row;
        bool more = n > 0;
        PPS_TRY(vm_charge(st, n));
        PPS_TRY(list_new(st, n, &row));
        list *l = row.as.ptr;
        for (size_t i = 0; i < n && more; i++) {
            PPS_TRY(iter_next(st, &its[i], &l->items[i], &more));
            l->n += more;
        }
        if (!more)
            return PPS_OK;
        PPS_TRY(list_push(st, ret, row));
    }
}

pps_status builtin_zip(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    const list *lists = argv[0].as.ptr;
    void *p;
    size_t bytes = lists->n * sizeof(value_iter), n_begun = 0;
    PPS_TRY(list_new(st, 0, ret));
    if (lists->n == 0)
        return PPS_OK;
    PPS_TRY(heap_alloc(st, bytes, &p));
    value_iter *its = p;
    pps_status status = PPS_OK;
    for (size_t i = 0; i < lists->n && status == PPS_OK; i++) {
        status = iter_begin(st, &its[i], lists->items[i], pps_arg_span(st, 0));
        n_begun += status == PPS_OK;
    }
    if (status == PPS_OK)
        status = zip_rounds(st, its, lists->n, ret->as.ptr);
    for (size_t i = 0; i < n_begun; i++)
        iter_end(&its[i]);
    heap_free(st, p, bytes);
    return status;
}

pps_status builtin_sorted(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    bool reverse;
    PPS_TRY(arg_bool(st, 2, argv[2], &reverse));
    PPS_TRY(new_list_of(st, argv[0], ret));
    PPS_TRY(heap_protect(st, *ret));
    pps_status status = sort_list(st, ret->as.ptr, argv[1], reverse);
    heap_unprotect(st, 1);
    return status;
}

pps_status builtin_reversed(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    PPS_TRY(new_list_of(st, argv[0], ret));
    list_reverse(ret->as.ptr);
    return PPS_OK;
}

/* Is one of the bools equal to `wanted`? */
static pps_status find_bool(pps_state *st, value xs, bool wanted, bool *ret)
{
    value_iter it;
    value v;
    bool more, found = false;
    PPS_TRY(iter_begin(st, &it, xs, pps_arg_span(st, 0)));
    pps_status status;
    while ((status = iter_next(st, &it, &v, &more)) == PPS_OK && more && !found) {
        status = vm_charge(st, 1);
        if (status == PPS_OK && pps_typeof(v) != PPS_BOOL)
            status = pps_error(st, pps_arg_span(st, 0), 304,
                               "only bools are wanted, one of these is %s", value_kind(st, v));
        if (status != PPS_OK)
            break;
        found = pps_as_bool(v) == wanted;
    }
    iter_end(&it);
    *ret = found;
    return status;
}

pps_status builtin_any(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    bool found;
    PPS_TRY(find_bool(st, argv[0], true, &found));
    *ret = pps_bool(found);
    return PPS_OK;
}

pps_status builtin_all(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    bool found;
    PPS_TRY(find_bool(st, argv[0], false, &found));
    *ret = pps_bool(!found);
    return PPS_OK;
}
