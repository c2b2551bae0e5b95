/* SPDX-License-Identifier: Apache-2.0
 *
 * index.c: elements of sequences and maps: c[i], c[a:b], `in`, `+`, `*`, and walking.
 *
 * Indices are ints, never floats; negative ones count from the end. Everything that can be walked
 * (list, range, map by its keys, group, string by code points) is walked by one iterator, which
 * marks lists and maps as iterated so that they refuse to change meanwhile. The VM has its own fast
 * paths for lists and ranges; this is what they fall back to, and what the builtins use.
 */
#include "lang/value.h"

#include <string.h>

#include "lang/state.h"

static pps_status wrong_index_type(pps_state *st, value c, value key)
{
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 304, vm_current_span(st),
                                 "the index of %s must be an int, this is %s", value_kind(st, c),
                                 value_kind(st, key));
    if (pps_typeof(key) == PPS_FLOAT)
        pps_diag_help(d, "`int(x)` gives the int");
    return pps_diag_done(d);
}

static pps_status not_indexable(pps_state *st, value c)
{
    return pps_error(st, vm_current_span(st), 304, "%s has no elements to index",
                     value_kind(st, c));
}

static const char *element_word(value c)
{
    return pps_typeof(c) == PPS_STRING ? "characters" : "elements";
}

/* Length of what is indexed by position. */
static bool positional_length(value c, size_t *ret)
{
    switch (pps_typeof(c)) {
    case PPS_LIST:
        *ret = ((list *)c.as.ptr)->n;
        return true;
    case PPS_STRING:
        *ret = ((string *)c.as.ptr)->n_chars;
        return true;
    case PPS_RANGE:
        *ret = range_count(c.as.ptr);
        return true;
    case PPS_GROUP:
        *ret = ((group *)c.as.ptr)->n;
        return true;
    default: /* every other type has no positions */
        return false;
    }
}

static pps_status position(pps_state *st, value c, size_t n, value key, size_t *ret)
{
    if (pps_typeof(key) != PPS_INT)
        return wrong_index_type(st, c, key);
    int64_t i = key.as.i;
    uint64_t at = i < 0 ? (uint64_t)i + n : (uint64_t)i; /* still above n when too negative */
    if (at >= n)
        return pps_error(st, vm_current_span(st), 310,
                         "index %lld is out of range: this %s has %zu %s", (long long)i,
                         value_type_name(st, c), n, element_word(c));
    *ret = (size_t)at;
    return PPS_OK;
}

static int64_t range_at(const range *r, size_t i)
{
    return (int64_t)((uint64_t)r->begin + (uint64_t)i * (uint64_t)r->step);
}

static pps_status key_missing(pps_state *st, map *m, value key)
{
    text t;
    text_init(&t, st);
    text_repr(&t, key);
    pps_diag *d =
        pps_diag_start(st, PPS_SEV_ERROR, 311, vm_current_span(st), "this map has no key %s",
                       t.status == PPS_OK ? t.bytes : "like this");
    text_done(&t);
    const char *names[64];
    size_t n = 0;
    if (pps_typeof(key) == PPS_STRING) {
        for (uint32_t i = 0; i < m->n_entries && n < 64; i++)
            if (m->entries[i].live && pps_typeof(m->entries[i].key) == PPS_STRING)
                names[n++] = ((string *)m->entries[i].key.as.ptr)->bytes;
        const char *near = pps_did_you_mean(((string *)key.as.ptr)->bytes, names, n);
        if (near)
            pps_diag_help(d, "did you mean \"%s\"?", near);
    }
    return pps_diag_done(d);
}

pps_status value_index(pps_state *st, value c, value key, value *ret)
{
    size_t n, at;
    if (pps_typeof(c) == PPS_MAP) {
        bool found;
        PPS_TRY(map_get(st, c.as.ptr, key, ret, &found));
        return found ? PPS_OK : key_missing(st, c.as.ptr, key);
    }
    if (!positional_length(c, &n))
        return not_indexable(st, c);
    PPS_TRY(position(st, c, n, key, &at));
    if (pps_typeof(c) == PPS_LIST) {
        *ret = ((list *)c.as.ptr)->items[at];
    } else if (pps_typeof(c) == PPS_RANGE) {
        *ret = pps_int(range_at(c.as.ptr, at));
    } else if (pps_typeof(c) == PPS_GROUP) {
        *ret = ((group *)c.as.ptr)->items[at];
    } else {
        const string *s = c.as.ptr;
        if (s->n_chars != s->n_bytes)
            PPS_TRY(vm_charge(st, at / 8));
        size_t begin = string_offset(s, at), end = begin + 1;
        while (((unsigned char)s->bytes[end] & 0xc0) == 0x80)
            end++;
        return string_new(st, s->bytes + begin, end - begin, ret);
    }
    return PPS_OK;
}

pps_status value_index_set(pps_state *st, value c, value key, value v)
{
    if (pps_typeof(c) == PPS_MAP)
        return map_set(st, c.as.ptr, key, v);
    if (pps_typeof(c) != PPS_LIST)
        return pps_error(st, vm_current_span(st), 304, "the elements of %s cannot be assigned",
                         value_kind(st, c));
    list *l = c.as.ptr;
    size_t at;
    PPS_TRY(position(st, c, l->n, key, &at));
    if (l->o.frozen) /* a loop may replace elements of the list it walks: the length stays */
        return object_mutable(st, &l->o);
    l->items[at] = v;
    return PPS_OK;
}

static pps_status slice_bound(pps_state *st, value c, size_t n, value bound, size_t open,
                              size_t *ret)
{
    *ret = open;
    if (pps_typeof(bound) == PPS_NIL)
        return PPS_OK;
    if (pps_typeof(bound) != PPS_INT)
        return wrong_index_type(st, c, bound);
    int64_t i = bound.as.i;
    if (i < 0)
        *ret = 0 - (uint64_t)i > n ? 0 : n - (size_t)(0 - (uint64_t)i);
    else
        *ret = (uint64_t)i > n ? n : (size_t)i;
    return PPS_OK;
}

pps_status value_slice(pps_state *st, value c, value begin, value end, value *ret)
{
    size_t n, from, to;
    if (!positional_length(c, &n) || pps_typeof(c) == PPS_GROUP)
        return pps_error(st, vm_current_span(st), 304, "%s cannot be sliced", value_kind(st, c));
    PPS_TRY(slice_bound(st, c, n, begin, 0, &from));
    PPS_TRY(slice_bound(st, c, n, end, n, &to));
    if (to < from)
        to = from;
    if (pps_typeof(c) == PPS_RANGE) {
        const range *r = c.as.ptr;
        if (from == to)
            return range_new(st, r->begin, r->begin, r->step, ret);
        /* One step past the last may not fit in 64 bits; its own neighbour always does. */
        int64_t last = range_at(r, to - 1);
        return range_new(st, range_at(r, from), r->step > 0 ? last + 1 : last - 1, r->step, ret);
    }
    if (pps_typeof(c) == PPS_STRING) {
        const string *s = c.as.ptr;
        PPS_TRY(vm_charge(st, to / 8));
        size_t b = string_offset(s, from), e = string_offset(s, to);
        return string_new(st, s->bytes + b, e - b, ret);
    }
    PPS_TRY(vm_charge(st, to - from));
    PPS_TRY(list_new(st, to - from, ret));
    list *l = ret->as.ptr;
    if (to > from)
        memcpy(l->items, ((list *)c.as.ptr)->items + from, (to - from) * sizeof(value));
    l->n = to - from;
    return PPS_OK;
}

static pps_status items_contain(pps_state *st, const value *items, size_t n, value v, bool *ret)
{
    PPS_TRY(vm_charge(st, n / 4));
    bool same = false;
    for (size_t i = 0; i < n && !same; i++)
        PPS_TRY(value_equal(st, items[i], v, &same));
    *ret = same;
    return PPS_OK;
}

static pps_status string_contains(pps_state *st, value c, value v, bool *ret)
{
    if (pps_typeof(v) != PPS_STRING)
        return pps_error(st, vm_current_span(st), 304, "only a string can be in a string, not %s",
                         value_kind(st, v));
    const string *s = c.as.ptr, *part = v.as.ptr;
    PPS_TRY(vm_charge(st, s->n_bytes / 16));
    *ret = string_find(s->bytes, s->n_bytes, part->bytes, part->n_bytes, 0) != SIZE_MAX;
    return PPS_OK;
}

static bool range_contains(const range *r, value v)
{
    int64_t i = v.as.i;
    if (pps_typeof(v) == PPS_FLOAT) {
        if (!(v.as.f >= -0x1p63 && v.as.f < 0x1p63) || v.as.f != (double)(int64_t)v.as.f)
            return false;
        i = (int64_t)v.as.f;
    } else if (pps_typeof(v) != PPS_INT) {
        return false;
    }
    if (r->step > 0)
        return i >= r->begin && i < r->end &&
               ((uint64_t)i - (uint64_t)r->begin) % (uint64_t)r->step == 0;
    return i <= r->begin && i > r->end &&
           ((uint64_t)r->begin - (uint64_t)i) % (0 - (uint64_t)r->step) == 0;
}

pps_status value_contains(pps_state *st, value c, value v, bool *ret)
{
    switch (pps_typeof(c)) {
    case PPS_LIST: {
        const list *l = c.as.ptr;
        return items_contain(st, l->items, l->n, v, ret);
    }
    case PPS_GROUP: {
        const group *g = c.as.ptr;
        return items_contain(st, g->items, g->n, v, ret);
    }
    case PPS_MAP: {
        value unused;
        return map_get(st, c.as.ptr, v, &unused, ret);
    }
    case PPS_STRING:
        return string_contains(st, c, v, ret);
    case PPS_RANGE:
        *ret = range_contains(c.as.ptr, v);
        return PPS_OK;
    default: /* nothing is in any other type */
        return pps_error(st, vm_current_span(st), 304,
                         "`in` needs a list, map, string, range or "
                         "group on its right, this is %s",
                         value_kind(st, c));
    }
}

/* ---- Sums and multiples ---------------------------------------------------------------------- */

pps_status value_concat(pps_state *st, value a, value b, value *ret)
{
    pps_type ta = pps_typeof(a), tb = pps_typeof(b);
    if (ta == PPS_LIST && tb == PPS_LIST) {
        const list *x = a.as.ptr, *y = b.as.ptr;
        PPS_TRY(vm_charge(st, x->n + y->n));
        PPS_TRY(list_new(st, x->n + y->n, ret));
        list *l = ret->as.ptr;
        if (x->n)
            memcpy(l->items, x->items, x->n * sizeof(value));
        if (y->n)
            memcpy(l->items + x->n, y->items, y->n * sizeof(value));
        l->n = x->n + y->n;
        return PPS_OK;
    }
    if (ta == PPS_STRING && tb == PPS_STRING) {
        const string *x = a.as.ptr, *y = b.as.ptr;
        PPS_TRY(vm_charge(st, (x->n_bytes + y->n_bytes) / 16));
        text t;
        text_init(&t, st);
        text_add(&t, x->bytes, x->n_bytes);
        text_add(&t, y->bytes, y->n_bytes);
        return text_string(&t, ret);
    }
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 304, vm_current_span(st),
                                 "cannot add %s and %s", value_kind(st, a), value_kind(st, b));
    if (ta == PPS_STRING || tb == PPS_STRING)
        pps_diag_help(d, "`str(x)` or f\"...{x}...\" makes text of a value");
    return pps_diag_done(d);
}

static pps_status too_long(pps_state *st, value a, int64_t times)
{
    return pps_error(st, vm_current_span(st), 312, "%lld copies of this %s are too many",
                     (long long)times, value_type_name(st, a));
}

pps_status value_repeat(pps_state *st, value a, int64_t times, value *ret)
{
    if (times < 0)
        return pps_error(st, vm_current_span(st), 312, "cannot repeat something %lld times",
                         (long long)times);
    if (pps_typeof(a) == PPS_LIST) {
        const list *x = a.as.ptr;
        size_t n;
        if (__builtin_mul_overflow(x->n, (size_t)times, &n) || n > SIZE_MAX / 2 / sizeof(value))
            return too_long(st, a, times);
        PPS_TRY(vm_charge(st, n));
        PPS_TRY(list_new(st, n, ret));
        list *l = ret->as.ptr;
        for (; l->n < n; l->n += x->n)
            memcpy(l->items + l->n, x->items, x->n * sizeof(value));
        return PPS_OK;
    }
    if (pps_typeof(a) != PPS_STRING)
        return pps_error(st, vm_current_span(st), 304, "%s cannot be repeated", value_kind(st, a));
    const string *s = a.as.ptr;
    size_t n;
    if (__builtin_mul_overflow(s->n_bytes, (size_t)times, &n) || n >= UINT32_MAX)
        return too_long(st, a, times);
    PPS_TRY(vm_charge(st, n / 16 + (n ? (uint64_t)times / 4 : 0)));
    text t;
    text_init(&t, st);
    for (int64_t i = 0; n && i < times && t.status == PPS_OK; i++)
        text_add(&t, s->bytes, s->n_bytes);
    return text_string(&t, ret);
}

/* ---- Walking --------------------------------------------------------------------------------- */

static pps_status not_iterable(pps_state *st, value c, pps_span span)
{
    pps_diag *d =
        pps_diag_start(st, PPS_SEV_ERROR, 304, span,
                       "%s has no elements to walk; a list, range, map, string or group is needed",
                       value_kind(st, c));
    if (pps_typeof(c) == PPS_INT)
        pps_diag_help(d, "`0..n` counts from 0 to n - 1");
    return pps_diag_done(d);
}

pps_status value_count(pps_state *st, value c, pps_span span, size_t *ret)
{
    if (pps_typeof(c) == PPS_MAP)
        *ret = ((map *)c.as.ptr)->n_live;
    else if (!positional_length(c, ret))
        return not_iterable(st, c, span);
    return PPS_OK;
}

pps_status iter_begin(pps_state *st, value_iter *it, value c, pps_span span)
{
    size_t n;
    PPS_TRY(value_count(st, c, span, &n));
    *it = (value_iter){.c = c};
    if (pps_typeof(c) == PPS_LIST || pps_typeof(c) == PPS_MAP)
        ((object *)c.as.ptr)->iterating++;
    return PPS_OK;
}

void iter_end(value_iter *it)
{
    if (pps_typeof(it->c) == PPS_LIST || pps_typeof(it->c) == PPS_MAP)
        ((object *)it->c.as.ptr)->iterating--;
}

static pps_status next_char(pps_state *st, value_iter *it, value *ret, bool *ret_more)
{
    const string *s = it->c.as.ptr;
    *ret_more = it->at < s->n_bytes;
    if (!*ret_more)
        return PPS_OK;
    size_t end = it->at + 1;
    while (((unsigned char)s->bytes[end] & 0xc0) == 0x80)
        end++;
    PPS_TRY(string_new(st, s->bytes + it->at, end - it->at, ret));
    it->at = end;
    return PPS_OK;
}

pps_status iter_next(pps_state *st, value_iter *it, value *ret, bool *ret_more)
{
    size_t n;
    switch (pps_typeof(it->c)) {
    case PPS_STRING:
        return next_char(st, it, ret, ret_more);
    case PPS_MAP: {
        const map *m = it->c.as.ptr;
        while (it->at < m->n_entries && !m->entries[it->at].live)
            it->at++;
        *ret_more = it->at < m->n_entries;
        if (*ret_more)
            *ret = m->entries[it->at++].key;
        return PPS_OK;
    }
    default: /* iter_begin let only sequences through */
        *ret_more = positional_length(it->c, &n) && it->at < n;
        if (*ret_more) {
            size_t i = it->at++;
            if (pps_typeof(it->c) == PPS_RANGE)
                *ret = pps_int(range_at(it->c.as.ptr, i));
            else if (pps_typeof(it->c) == PPS_LIST)
                *ret = ((list *)it->c.as.ptr)->items[i];
            else
                *ret = ((group *)it->c.as.ptr)->items[i];
        }
        return PPS_OK;
    }
}

/* ---- Freezing -------------------------------------------------------------------------------- */

/* Marks before it descends, so a cycle ends. What nests deeper than the bound stays changeable. */
static void freeze_at(value v, uint32_t depth)
{
    if ((pps_typeof(v) != PPS_LIST && pps_typeof(v) != PPS_MAP) || depth > 1000)
        return;
    object *o = v.as.ptr;
    if (o->frozen)
        return;
    o->frozen = 1;
    if (pps_typeof(v) == PPS_LIST) {
        const list *l = v.as.ptr;
        for (size_t i = 0; i < l->n; i++)
            freeze_at(l->items[i], depth + 1);
    } else {
        const map *m = v.as.ptr;
        for (uint32_t i = 0; i < m->n_entries; i++)
            freeze_at(m->entries[i].val, depth + 1);
    }
}

void value_freeze(value v)
{
    freeze_at(v, 0);
}
