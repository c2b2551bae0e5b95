/* SPDX-License-Identifier: Apache-2.0
 *
 * value.c: what makes two values equal, which comes first, and their hashes.
 *
 * Containers are walked recursively to at most MAX_NESTING levels, so neither a cyclic list nor one
 * nested by a hostile script reaches the end of the C stack; each container met is charged as
 * steps, so a value that shares its parts exponentially often ends at the step limit. An int and a
 * float that are equal hash alike. Filters are interned, so equal ones are one object.
 */
#include "lang/value.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lang/state.h"

#define MAX_NESTING 1000

static const char *const type_names[] = {
    [PPS_NIL] = "nil",       [PPS_BOOL] = "bool",     [PPS_INT] = "int",
    [PPS_FLOAT] = "float",   [PPS_PASS] = "pass",     [PPS_OP] = "op",
    [PPS_STREAM] = "stream", [PPS_HANDLE] = "handle", [PPS_STRING] = "string",
    [PPS_RANGE] = "range",   [PPS_LIST] = "list",     [PPS_MAP] = "map",
    [PPS_FILTER] = "filter", [PPS_GROUP] = "group",   [PPS_FN] = "function",
    [PPS_MODULE] = "module",
};

const char *pps_type_name(pps_type type)
{
    return type_names[type];
}

const char *value_type_name(pps_state *st, value v)
{
    if (pps_typeof(v) == PPS_HANDLE) {
        void *ud;
        const pps_handle_ops *ops = vm_handle_ops(st, (uint32_t)(v.tag >> TAG_ORIGIN_SHIFT), &ud);
        if (ops)
            return ops->name;
    }
    return type_names[pps_typeof(v)];
}

const char *value_kind(pps_state *st, value v)
{
    char words[64];
    const char *name = value_type_name(st, v);
    snprintf(words, sizeof(words), "%s %s", strchr("aeio", name[0]) ? "an" : "a", name);
    const char *kept = pps_typeof(v) == PPS_NIL ? name : pps_intern(st, words);
    return kept ? kept : name;
}

static pps_status nested_too_deep(pps_state *st)
{
    return pps_error(st, vm_current_span(st), 801, "these values nest deeper than %d levels",
                     MAX_NESTING);
}

/* ---- Equality -------------------------------------------------------------------------------- */

/* -1, 0, 1 without rounding `i` to a double; 1 (i first) is never given for nan. */
static int compare_int_float(int64_t i, double f)
{
    if (isnan(f) || f >= 0x1p63)
        return -1;
    if (f < -0x1p63)
        return 1;
    int64_t whole = (int64_t)f; /* towards zero; in range */
    if (i != whole)
        return i < whole ? -1 : 1;
    double rest = f - (double)whole; /* exact: above 2^53 it is 0 */
    return rest > 0 ? -1 : rest < 0;
}

static bool equal_ranges(const range *a, const range *b)
{
    size_t n = range_count(a);
    if (n != range_count(b))
        return false;
    return n == 0 || (a->begin == b->begin && (n == 1 || a->step == b->step));
}

static pps_status equal_at(pps_state *st, value a, value b, uint32_t depth, bool *ret);

static pps_status equal_items(pps_state *st, const value *a, size_t n_a, const value *b, size_t n_b,
                              uint32_t depth, bool *ret)
{
    bool same = n_a == n_b;
    if (same)
        PPS_TRY(vm_charge(st, n_a));
    for (size_t i = 0; i < n_a && same; i++)
        PPS_TRY(equal_at(st, a[i], b[i], depth + 1, &same));
    *ret = same;
    return PPS_OK;
}

static pps_status equal_maps(pps_state *st, map *a, map *b, uint32_t depth, bool *ret)
{
    *ret = false;
    if (a->n_live != b->n_live)
        return PPS_OK;
    PPS_TRY(vm_charge(st, a->n_entries));
    for (uint32_t i = 0; i < a->n_entries; i++) {
        if (!a->entries[i].live)
            continue;
        value other;
        bool found, same;
        PPS_TRY(map_get(st, b, a->entries[i].key, &other, &found));
        if (!found)
            return PPS_OK;
        PPS_TRY(equal_at(st, a->entries[i].val, other, depth + 1, &same));
        if (!same)
            return PPS_OK;
    }
    *ret = true;
    return PPS_OK;
}

static pps_status equal_at(pps_state *st, value a, value b, uint32_t depth, bool *ret)
{
    pps_type ta = pps_typeof(a), tb = pps_typeof(b);
    if (ta != tb) {
        *ret = (ta == PPS_INT && tb == PPS_FLOAT && compare_int_float(a.as.i, b.as.f) == 0) ||
               (ta == PPS_FLOAT && tb == PPS_INT && compare_int_float(b.as.i, a.as.f) == 0);
        return PPS_OK;
    }
    if (depth > MAX_NESTING)
        return nested_too_deep(st);
    switch (ta) {
    case PPS_NIL:
        *ret = true;
        return PPS_OK;
    case PPS_FLOAT:
        *ret = a.as.f == b.as.f;
        return PPS_OK;
    case PPS_HANDLE:
        *ret = a.tag == b.tag && a.as.bits == b.as.bits;
        return PPS_OK;
    case PPS_BOOL:
    case PPS_INT:
    case PPS_PASS:
    case PPS_OP: /* the origin in the tag does not count */
    case PPS_STREAM:
    case PPS_FILTER:
    case PPS_FN:
    case PPS_MODULE:
        *ret = a.as.bits == b.as.bits;
        return PPS_OK;
    case PPS_STRING:
    case PPS_RANGE:
    case PPS_LIST:
    case PPS_MAP:
    case PPS_GROUP:
        break;
    }
    if (a.as.ptr == b.as.ptr) {
        *ret = true;
        return PPS_OK;
    }
    if (ta == PPS_STRING) {
        *ret = string_compare(a.as.ptr, b.as.ptr) == 0;
        return PPS_OK;
    }
    if (ta == PPS_RANGE) {
        *ret = equal_ranges(a.as.ptr, b.as.ptr);
        return PPS_OK;
    }
    if (ta == PPS_MAP)
        return equal_maps(st, a.as.ptr, b.as.ptr, depth, ret);
    if (ta == PPS_LIST) {
        const list *x = a.as.ptr, *y = b.as.ptr;
        return equal_items(st, x->items, x->n, y->items, y->n, depth, ret);
    }
    const group *x = a.as.ptr, *y = b.as.ptr;
    return equal_items(st, x->items, x->n, y->items, y->n, depth, ret);
}

pps_status value_equal(pps_state *st, value a, value b, bool *ret)
{
    return equal_at(st, a, b, 0, ret);
}

/* ---- Order ----------------------------------------------------------------------------------- */

static int compare_floats(double a, double b)
{
    if (isnan(a) || isnan(b))
        return isnan(a) - isnan(b);
    return (a > b) - (a < b);
}

static bool is_number(pps_type t)
{
    return t == PPS_INT || t == PPS_FLOAT;
}

static int compare_numbers(value a, value b)
{
    if (pps_typeof(a) == PPS_INT)
        return pps_typeof(b) == PPS_INT ? (a.as.i > b.as.i) - (a.as.i < b.as.i)
                                        : compare_int_float(a.as.i, b.as.f);
    return pps_typeof(b) == PPS_INT ? -compare_int_float(b.as.i, a.as.f)
                                    : compare_floats(a.as.f, b.as.f);
}

static pps_status compare_at(pps_state *st, value a, value b, uint32_t depth, int *ret)
{
    pps_type ta = pps_typeof(a), tb = pps_typeof(b);
    if (is_number(ta) && is_number(tb)) {
        *ret = compare_numbers(a, b);
        return PPS_OK;
    }
    if (ta == PPS_STRING && tb == PPS_STRING) {
        *ret = string_compare(a.as.ptr, b.as.ptr);
        return PPS_OK;
    }
    if (ta != PPS_LIST || tb != PPS_LIST)
        return pps_error(st, vm_current_span(st), 304, "%s and %s cannot be ordered",
                         value_kind(st, a), value_kind(st, b));
    if (depth > MAX_NESTING)
        return nested_too_deep(st);
    const list *x = a.as.ptr, *y = b.as.ptr;
    int order = 0;
    if (x != y) {
        size_t n = x->n < y->n ? x->n : y->n;
        PPS_TRY(vm_charge(st, n));
        for (size_t i = 0; i < n && order == 0; i++)
            PPS_TRY(compare_at(st, x->items[i], y->items[i], depth + 1, &order));
        if (order == 0)
            order = (x->n > y->n) - (x->n < y->n);
    }
    *ret = order;
    return PPS_OK;
}

pps_status value_compare(pps_state *st, value a, value b, int *ret)
{
    return compare_at(st, a, b, 0, ret);
}

/* ---- Hash ------------------------------------------------------------------------------------ */

static uint32_t hash_bits(uint64_t x) /* the finaliser of a 64-bit mixer: every bit reaches all */
{
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    return (uint32_t)x;
}

static uint32_t hash_float(double f)
{
    if (f >= -0x1p63 && f < 0x1p63 && f == (double)(int64_t)f)
        return hash_bits((uint64_t)(int64_t)f); /* as the equal int; 0.0 and -0.0 alike */
    if (isnan(f))
        return 0x7ff8;
    uint64_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return hash_bits(bits);
}

static uint32_t hash_range(const range *r)
{
    size_t n = range_count(r);
    uint64_t h = n;
    if (n > 0)
        h = hash_bits(h ^ (uint64_t)r->begin);
    if (n > 1)
        h = hash_bits(h << 32 ^ (uint64_t)r->step);
    return hash_bits(h + PPS_RANGE);
}

pps_status value_hash(pps_state *st, value v, uint32_t *ret)
{
    pps_type t = pps_typeof(v);
    switch (t) {
    case PPS_INT:
        *ret = hash_bits((uint64_t)v.as.i);
        return PPS_OK;
    case PPS_FLOAT:
        *ret = hash_float(v.as.f);
        return PPS_OK;
    case PPS_NIL:
        *ret = 1;
        return PPS_OK;
    case PPS_BOOL:
    case PPS_PASS:
    case PPS_OP:
    case PPS_STREAM:
    case PPS_HANDLE:
    case PPS_FN: /* identity; no script sees the order of hashes */
    case PPS_MODULE:
        *ret = hash_bits(v.as.bits + ((uint64_t)t << 56));
        return PPS_OK;
    case PPS_STRING:
        *ret = string_hash(v.as.ptr);
        return PPS_OK;
    case PPS_RANGE:
        *ret = hash_range(v.as.ptr);
        return PPS_OK;
    case PPS_FILTER:
        *ret = ((filter *)v.as.ptr)->hash;
        return PPS_OK;
    case PPS_GROUP: {
        const group *g = v.as.ptr;
        uint64_t h = g->n;
        for (uint32_t i = 0; i < g->n; i++) {
            uint32_t item;
            PPS_TRY(value_hash(st, g->items[i], &item)); /* an op or a filter: no deeper */
            h = hash_bits(h << 32 ^ item);
        }
        *ret = (uint32_t)h;
        return PPS_OK;
    }
    case PPS_LIST:
    case PPS_MAP:
        break;
    }
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 305, vm_current_span(st),
                                 "%s cannot be a map key", value_kind(st, v));
    pps_diag_note(d, "keys are values that never change: numbers, strings, ops, filters, ...");
    return pps_diag_done(d);
}
