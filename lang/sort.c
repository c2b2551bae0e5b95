/* SPDX-License-Identifier: Apache-2.0
 *
 * sort.c: stable merge sort of values. What moves is a permutation of indices, so a comparison that
 * fails (values without an order) leaves everything where it was, and keys and items follow one
 * order. Comparing never runs script code; key functions run before, into a list of keys.
 */
#include "lang/builtins.h"

#include <string.h>

typedef struct sorter {
    pps_state *st;
    const value *keys;
    bool reverse;
} sorter;

/* Does the element at `right` go before the one at `left`, which stands before it now? */
static pps_status goes_first(const sorter *s, uint32_t left, uint32_t right, bool *ret)
{
    int order;
    PPS_TRY(value_compare(s->st, s->keys[left], s->keys[right], &order));
    *ret = s->reverse ? order < 0 : order > 0;
    return PPS_OK;
}

static pps_status merge(const sorter *s, const uint32_t *from, uint32_t *to, size_t begin,
                        size_t middle, size_t end)
{
    size_t i = begin, j = middle, k = begin;
    bool right = false;
    if (middle < end) /* already in order: the usual case of a list sorted before */
        PPS_TRY(goes_first(s, from[middle - 1], from[middle], &right));
    if (!right) {
        memcpy(to + begin, from + begin, (end - begin) * sizeof(uint32_t));
        return PPS_OK;
    }
    while (i < middle && j < end) {
        PPS_TRY(goes_first(s, from[i], from[j], &right));
        to[k++] = right ? from[j++] : from[i++];
    }
    memcpy(to + k, from + i, (middle - i) * sizeof(uint32_t));
    memcpy(to + k + (middle - i), from + j, (end - j) * sizeof(uint32_t));
    return PPS_OK;
}

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Sorts `order`, with `spare` as the other half of each pass; says which of the two has the result.
 */
static pps_status merge_sort(const sorter *s, uint32_t *order, uint32_t *spare, size_t n,
                             uint32_t **ret)
{
    for (size_t width = 1; width < n; width *= 2) {
        PPS_TRY(vm_charge(s->st, n));
        for (size_t begin = 0; begin < n; begin += 2 * width)
            PPS_TRY(merge(s, order, spare, begin, at_most(begin + width, n),
                          at_most(begin + 2 * width, n)));
        uint32_t *sorted = spare;
        spare = order;
        order = sorted;
    }
    *ret = order;
    return PPS_OK;
}

static void permute(value *items, value *copy, const uint32_t *order, size_t n)
{
    memcpy(copy, items, n * sizeof(value));
    for (size_t i = 0; i < n; i++)
        items[i] = copy[order[i]];
}

pps_status sort_values(pps_state *st, value *items, const value *keys, size_t n, bool reverse)
{
    if (n < 2)
        return PPS_OK;
    if (n > UINT32_MAX)
        return pps_error(st, pps_call_span(st), 312, "%zu elements are too many to sort", n);
    size_t bytes = 2 * n * sizeof(uint32_t) + n * sizeof(value);
    void *block;
    PPS_TRY(heap_alloc(st, bytes, &block));
    value *copy = block;
    uint32_t *order = (uint32_t *)(copy + n), *sorted = order;
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    sorter s = {st, keys ? keys : items, reverse};
    pps_status status = merge_sort(&s, order, order + n, n, &sorted);
    if (status == PPS_OK)
        permute(items, copy, sorted, n);
    heap_free(st, block, bytes);
    return status;
}

static pps_status fill_keys(pps_state *st, const list *l, value key, list *keys)
{
    for (size_t i = 0; i < l->n; i++) {
        PPS_TRY(vm_charge(st, 1));
        PPS_TRY(call_one(st, key, l->items[i], &keys->items[i]));
    }
    return PPS_OK;
}

pps_status sort_list(pps_state *st, list *l, value key, bool reverse)
{
    PPS_TRY(object_mutable(st, &l->o));
    if (pps_typeof(key) == PPS_NIL)
        return sort_values(st, l->items, NULL, l->n, reverse);
    list *keys;
    PPS_TRY(hold(st, l->n, &keys));
    l->o.iterating++;
    pps_status status = fill_keys(st, l, key, keys);
    l->o.iterating--;
    if (status == PPS_OK)
        status = sort_values(st, l->items, keys->items, l->n, reverse);
    heap_unprotect(st, 1);
    return status;
}
