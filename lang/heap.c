/* SPDX-License-Identifier: Apache-2.0
 *
 * heap.c: memory of one state: counted allocation, the list of objects, mark and sweep.
 *
 * Every allocation passes `resize`, which counts bytes against the limit before it asks the
 * allocator, so a refusal leaves everything as it was. Marking uses a stack on the heap, never the
 * C stack: a list nested a million deep is marked like any other. When that stack cannot grow, the
 * object stays MARK_GRAY without being on it, and `mark_lost` finds it by walking the list of all
 * objects: slower, never wrong, so a collection cannot fail.
 *
 *   MARK_WHITE  not reached yet        MARK_GRAY  reached, children not     MARK_BLACK  done
 *
 * What roots are is for vm_mark_roots to say; what FN and MODULE objects hold, for vm_object_mark.
 */
#include "lang/value.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lang/state.h"

enum { MARK_WHITE, MARK_GRAY, MARK_BLACK };

/* Below this many bytes nothing is ever collected: most scripts end before. */
#define HEAP_FIRST_THRESHOLD ((size_t)32 << 20)

static void *raw_resize(pps_state *st, void *ptr, size_t old_bytes, size_t new_bytes)
{
    if (st->config.alloc)
        return st->config.alloc(st->config.alloc_ud, ptr, old_bytes, new_bytes);
    if (new_bytes == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, new_bytes);
}

static pps_status resize(pps_state *st, void **ptr, size_t old_bytes, size_t new_bytes)
{
    heap *h = &st->heap;
    if (new_bytes > old_bytes && h->max_bytes &&
        (h->bytes > h->max_bytes || new_bytes - old_bytes > h->max_bytes - h->bytes))
        return PPS_ERR_LIMIT;
    void *p = raw_resize(st, *ptr, old_bytes, new_bytes);
    if (!p && new_bytes)
        return PPS_ERR_NOMEM;
    *ptr = p;
    h->bytes = h->bytes - old_bytes + new_bytes;
    if (h->bytes > h->peak_bytes)
        h->peak_bytes = h->bytes;
    return PPS_OK;
}

/* Say why an allocation failed. The report itself may fail to allocate; that stays silent. */
static pps_status report(pps_state *st, pps_status status, size_t bytes)
{
    if (st->heap.reporting)
        return status;
    st->heap.reporting = true;
    pps_span span = {0};
    if (st->vm)
        span = vm_current_span(st);
    if (status == PPS_ERR_LIMIT)
        pps_error(st, span, 803,
                  "this run holds %zu bytes and may not take %zu more: its limit is %zu",
                  st->heap.bytes, bytes, st->heap.max_bytes);
    else
        pps_error(st, span, 804, "the machine has no memory left");
    st->heap.reporting = false;
    return status;
}

pps_status heap_no_memory(pps_state *st)
{
    return report(st, PPS_ERR_NOMEM, 0);
}

pps_status heap_alloc(pps_state *st, size_t bytes, void **ret)
{
    void *p = NULL;
    pps_status status = resize(st, &p, 0, bytes);
    if (status != PPS_OK)
        return report(st, status, bytes);
    *ret = p;
    return PPS_OK;
}

pps_status heap_grow(pps_state *st, void **ptr, size_t old_bytes, size_t new_bytes)
{
    pps_status status = resize(st, ptr, old_bytes, new_bytes);
    if (status != PPS_OK)
        return report(st, status, new_bytes - old_bytes);
    return PPS_OK;
}

void heap_free(pps_state *st, void *ptr, size_t bytes)
{
    if (!ptr)
        return;
    raw_resize(st, ptr, bytes, 0);
    st->heap.bytes -= bytes;
}

void *heap_arena_alloc(void *ud, void *ptr, size_t old_bytes, size_t new_bytes)
{
    if (new_bytes == 0) {
        heap_free(ud, ptr, old_bytes);
        return NULL;
    }
    return resize(ud, &ptr, old_bytes, new_bytes) == PPS_OK ? ptr : NULL;
}

pps_status heap_object(pps_state *st, pps_type type, size_t bytes, void **ret)
{
    void *p;
    PPS_TRY(heap_alloc(st, bytes, &p));
    memset(p, 0, bytes);
    object *o = p;
    o->type = (uint8_t)type;
    o->next_all = st->heap.all;
    st->heap.all = o;
    *ret = p;
    return PPS_OK;
}

pps_status heap_protect(pps_state *st, value v)
{
    heap *h = &st->heap;
    if (h->n_protected == h->cap_protected) {
        size_t cap = h->cap_protected ? 2 * h->cap_protected : 16;
        void *p = h->protected_values;
        PPS_TRY(heap_grow(st, &p, h->cap_protected * sizeof(value), cap * sizeof(value)));
        h->protected_values = p;
        h->cap_protected = cap;
    }
    h->protected_values[h->n_protected++] = v;
    return PPS_OK;
}

void heap_unprotect(pps_state *st, size_t n)
{
    assert(n <= st->heap.n_protected);
    st->heap.n_protected -= n;
}

/* ---- Marking --------------------------------------------------------------------------------- */

void heap_mark_object(pps_state *st, object *o)
{
    heap *h = &st->heap;
    if (!o || o->marked != MARK_WHITE)
        return;
    if (o->type == PPS_STRING || o->type == PPS_RANGE || o->type == PPS_FILTER) {
        o->marked = MARK_BLACK; /* holds no values */
        return;
    }
    o->marked = MARK_GRAY;
    if (h->n_gray == h->cap_gray) {
        size_t cap = h->cap_gray ? 2 * h->cap_gray : 256;
        /* beyond the limit if need be: collecting is the way back under it */
        size_t old_bytes = h->cap_gray * sizeof(object *), bytes = cap * sizeof(object *);
        void *p = raw_resize(st, h->gray, old_bytes, bytes);
        if (!p) {
            h->gray_lost = true;
            return;
        }
        h->bytes += bytes - old_bytes;
        h->gray = p;
        h->cap_gray = cap;
    }
    h->gray[h->n_gray++] = o;
}

void heap_mark(pps_state *st, value v)
{
    if (value_is_heap(v))
        heap_mark_object(st, v.as.ptr);
}

static void mark_children(pps_state *st, object *o)
{
    o->marked = MARK_BLACK;
    switch ((pps_type)o->type) {
    case PPS_LIST: {
        list *l = (list *)o;
        for (size_t i = 0; i < l->n; i++)
            heap_mark(st, l->items[i]);
        break;
    }
    case PPS_MAP: {
        map *m = (map *)o;
        for (uint32_t i = 0; i < m->n_entries; i++) {
            if (!m->entries[i].live)
                continue;
            heap_mark(st, m->entries[i].key);
            heap_mark(st, m->entries[i].val);
        }
        break;
    }
    case PPS_GROUP: {
        group *g = (group *)o;
        for (uint32_t i = 0; i < g->n; i++)
            heap_mark(st, g->items[i]);
        break;
    }
    case PPS_FN:
    case PPS_MODULE:
        vm_object_mark(st, o);
        break;
    case PPS_NIL:
    case PPS_BOOL:
    case PPS_INT:
    case PPS_FLOAT:
    case PPS_PASS:
    case PPS_OP:
    case PPS_STREAM:
    case PPS_HANDLE:
    case PPS_STRING:
    case PPS_RANGE:
    case PPS_FILTER:
        break;
    }
}

static void mark_gray(pps_state *st)
{
    heap *h = &st->heap;
    while (h->n_gray)
        mark_children(st, h->gray[--h->n_gray]);
}

static void mark_lost(pps_state *st)
{
    while (st->heap.gray_lost) {
        st->heap.gray_lost = false;
        for (object *o = st->heap.all; o; o = o->next_all) {
            if (o->marked != MARK_GRAY)
                continue;
            mark_children(st, o);
            mark_gray(st);
        }
    }
}

/* ---- Sweeping -------------------------------------------------------------------------------- */

static void object_free(pps_state *st, object *o)
{
    switch ((pps_type)o->type) {
    case PPS_STRING:
        heap_free(st, o, sizeof(string) + ((string *)o)->n_bytes + 1);
        return;
    case PPS_RANGE:
        heap_free(st, o, sizeof(range));
        return;
    case PPS_LIST: {
        list *l = (list *)o;
        heap_free(st, l->items, l->cap * sizeof(value));
        heap_free(st, l, sizeof(list));
        return;
    }
    case PPS_MAP: {
        map *m = (map *)o;
        heap_free(st, m->entries, m->cap_entries * sizeof(map_entry));
        heap_free(st, m->index, m->cap_index * sizeof(int32_t));
        heap_free(st, m, sizeof(map));
        return;
    }
    case PPS_FILTER: {
        filter *f = (filter *)o;
        heap_free(st, f,
                  sizeof(filter) + f->n_terms * sizeof(filter_term) + f->n_ints * sizeof(int64_t));
        return;
    }
    case PPS_GROUP:
        heap_free(st, o, sizeof(group) + ((group *)o)->n * sizeof(value));
        return;
    case PPS_FN:
    case PPS_MODULE:
        vm_object_free(st, o);
        return;
    case PPS_NIL:
    case PPS_BOOL:
    case PPS_INT:
    case PPS_FLOAT:
    case PPS_PASS:
    case PPS_OP:
    case PPS_STREAM:
    case PPS_HANDLE:
        break;
    }
    assert(!"an immediate on the heap");
}

bool heap_wants_collection(pps_state *st)
{
    return st->heap.bytes >= st->heap.threshold;
}

/* Twice what is live, but not below the first threshold; near the limit, halfway to it, so that
 * garbage is collected before it counts as memory the script may not have. In the last 64th there
 * is too little to gain: collecting there over and over would cost more than it finds. */
static void set_threshold(heap *h)
{
    size_t live = h->bytes;
    h->threshold = live > HEAP_FIRST_THRESHOLD / 2 ? 2 * live : HEAP_FIRST_THRESHOLD;
    if (h->max_bytes) {
        size_t left = live < h->max_bytes ? h->max_bytes - live : 0;
        size_t half_way = left > h->max_bytes / 64 ? live + left / 2 : h->max_bytes;
        if (h->threshold > half_way)
            h->threshold = half_way;
    }
}

void heap_collect(pps_state *st)
{
    heap *h = &st->heap;
    vm_mark_roots(st);
    for (size_t i = 0; i < h->n_protected; i++)
        heap_mark(st, h->protected_values[i]);
    mark_gray(st);
    mark_lost(st);
    filter_table_sweep(st);
    object **link = &h->all;
    while (*link) {
        object *o = *link;
        if (o->marked != MARK_WHITE) {
            o->marked = MARK_WHITE;
            link = &o->next_all;
        } else {
            *link = o->next_all;
            object_free(st, o);
        }
    }
    set_threshold(h);
}

void heap_init(pps_state *st)
{
    memset(&st->heap, 0, sizeof(st->heap));
    st->heap.max_bytes = st->config.max_bytes;
    set_threshold(&st->heap);
}

void heap_done(pps_state *st)
{
    heap *h = &st->heap;
    while (h->all) {
        object *o = h->all;
        h->all = o->next_all;
        object_free(st, o);
    }
    heap_free(st, st->filters.slots, st->filters.cap * sizeof(filter *));
    st->filters = (filter_table){0};
    heap_free(st, h->protected_values, h->cap_protected * sizeof(value));
    heap_free(st, h->gray, h->cap_gray * sizeof(object *));
    h->protected_values = NULL;
    h->gray = NULL;
    h->n_protected = h->cap_protected = h->n_gray = h->cap_gray = 0;
}
