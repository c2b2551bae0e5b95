/* SPDX-License-Identifier: Apache-2.0
 *
 * filter.c: filters {PP: 0..4, EP: *} and ops F(0, 1), which are filters that name one node.
 *
 * A filter is made in a `draft`: terms and indices in any order. `draft_finish` sorts, checks, and
 * then either gives the immediate op that the terms spell (PP, MB, PASS and COMM alone, one index
 * each) or looks the filter up in the state's table, so that equal filters are one object and the
 * spelling a script chose never shows. The table is weak: filter_table_sweep drops what a
 * collection did not reach. What a filter matches is for ir to find; groups and rows are row.c's.
 */
#include "lang/value.h"

#include <stdlib.h>
#include <string.h>

#include "lang/state.h"

#define MAX_STAGE   0xffffff
#define MAX_INDICES ((size_t)1 << 20) /* of one filter: a typo like 0..10**12 is an error */

/* ---- The table ------------------------------------------------------------------------------- */

static bool same_filter(const filter *f, const filter *g)
{
    if (f->hash != g->hash || f->n_terms != g->n_terms || f->n_ints != g->n_ints ||
        (f->n_ints && memcmp(f->ints, g->ints, f->n_ints * sizeof(int64_t)) != 0))
        return false;
    for (uint32_t i = 0; i < f->n_terms; i++) {
        const filter_term *a = &f->terms[i], *b = &g->terms[i];
        if (a->tag != b->tag || a->kind != b->kind || a->pass != b->pass || a->comm != b->comm ||
            a->n_ints != b->n_ints)
            return false;
    }
    return true;
}

static uint32_t mix(uint32_t h, uint64_t x)
{
    uint64_t y = ((uint64_t)h << 32 ^ x) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(y >> 32 ^ y);
}

static uint32_t hash_terms(const filter_term *terms, uint32_t n_terms, const int64_t *ints,
                           uint32_t n_ints)
{
    uint32_t h = n_terms;
    for (uint32_t i = 0; i < n_terms; i++) {
        h = mix(h, intern_hash(terms[i].tag, strlen(terms[i].tag)));
        h = mix(h, (uint64_t)terms[i].kind << 48 | (uint64_t)terms[i].pass << 40 |
                       (uint64_t)terms[i].comm << 32 | terms[i].n_ints);
    }
    for (uint32_t i = 0; i < n_ints; i++)
        h = mix(h, (uint64_t)ints[i]);
    return h;
}

static pps_status grow_table(pps_state *st)
{
    filter_table *t = &st->filters;
    size_t cap = t->cap ? 2 * t->cap : 64;
    void *p;
    PPS_TRY(heap_alloc(st, cap * sizeof(filter *), &p));
    filter **slots = p;
    memset(slots, 0, cap * sizeof(filter *));
    for (size_t i = 0; i < t->cap; i++) {
        for (filter *f = t->slots[i], *next; f; f = next) {
            next = f->next_in_slot;
            f->next_in_slot = slots[f->hash & (cap - 1)];
            slots[f->hash & (cap - 1)] = f;
        }
    }
    heap_free(st, t->slots, t->cap * sizeof(filter *));
    t->slots = slots;
    t->cap = cap;
    return PPS_OK;
}

void filter_table_sweep(pps_state *st)
{
    filter_table *t = &st->filters;
    for (size_t i = 0; i < t->cap; i++) {
        filter **link = &t->slots[i];
        while (*link) {
            if ((*link)->o.marked) {
                link = &(*link)->next_in_slot;
            } else {
                *link = (*link)->next_in_slot;
                t->n--;
            }
        }
    }
}

/* `terms` sorted, with ints_begin set; the filter that says this, old or new. */
static pps_status intern_filter(pps_state *st, const filter_term *terms, uint32_t n_terms,
                                const int64_t *ints, uint32_t n_ints, value *ret)
{
    filter_table *t = &st->filters;
    filter wanted = {.hash = hash_terms(terms, n_terms, ints, n_ints),
                     .n_terms = n_terms,
                     .n_ints = n_ints,
                     .terms = (filter_term *)terms,
                     .ints = (int64_t *)ints};
    if (t->cap) {
        for (filter *f = t->slots[wanted.hash & (t->cap - 1)]; f; f = f->next_in_slot) {
            if (same_filter(f, &wanted)) {
                *ret = value_object(PPS_FILTER, f);
                return PPS_OK;
            }
        }
    }
    if (t->n >= t->cap)
        PPS_TRY(grow_table(st));
    void *p;
    PPS_TRY(heap_object(st, PPS_FILTER,
                        sizeof(filter) + n_terms * sizeof(filter_term) + n_ints * sizeof(int64_t),
                        &p));
    filter *f = p;
    f->hash = wanted.hash;
    f->n_terms = n_terms;
    f->n_ints = n_ints;
    f->terms = (filter_term *)(f + 1);
    f->ints = (int64_t *)(f->terms + n_terms);
    if (n_terms)
        memcpy(f->terms, terms, n_terms * sizeof(filter_term));
    if (n_ints)
        memcpy(f->ints, ints, n_ints * sizeof(int64_t));
    f->next_in_slot = t->slots[f->hash & (t->cap - 1)];
    t->slots[f->hash & (t->cap - 1)] = f;
    t->n++;
    *ret = value_object(PPS_FILTER, f);
    return PPS_OK;
}

/* ---- Drafts ---------------------------------------------------------------------------------- */

typedef struct draft {
    pps_state *st;
    filter_term terms[PPS_MAX_TERMS];
    uint32_t n_terms;
    int64_t few[16]; /* the usual case allocates nothing */
    int64_t *ints;
    size_t n_ints, cap_ints;
} draft;

static void draft_init(draft *d, pps_state *st)
{
    d->st = st;
    d->n_terms = 0;
    d->ints = d->few;
    d->n_ints = 0;
    d->cap_ints = sizeof(d->few) / sizeof(d->few[0]);
}

static void draft_done(draft *d)
{
    if (d->ints != d->few)
        heap_free(d->st, d->ints, d->cap_ints * sizeof(int64_t));
}

static pps_status draft_reserve(draft *d, size_t n)
{
    if (n > MAX_INDICES || d->n_ints + n > MAX_INDICES)
        return pps_error(d->st, vm_current_span(d->st), 307, "a filter names at most %zu indices",
                         MAX_INDICES);
    size_t cap = d->cap_ints;
    while (cap < d->n_ints + n)
        cap *= 2;
    if (cap == d->cap_ints)
        return PPS_OK;
    void *p;
    PPS_TRY(heap_alloc(d->st, cap * sizeof(int64_t), &p));
    memcpy(p, d->ints, d->n_ints * sizeof(int64_t));
    draft_done(d);
    d->ints = p;
    d->cap_ints = cap;
    return PPS_OK;
}

static pps_status draft_int(draft *d, const char *tag, value v)
{
    if (pps_typeof(v) != PPS_INT)
        return pps_error(d->st, vm_current_span(d->st), 304, "an index of tag %s is an int, not %s",
                         tag, value_kind(d->st, v));
    if (v.as.i < 0)
        return pps_error(d->st, vm_current_span(d->st), 307,
                         "tag %s cannot have the index %lld: indices count from 0", tag,
                         (long long)v.as.i);
    PPS_TRY(draft_reserve(d, 1));
    d->ints[d->n_ints++] = v.as.i;
    return PPS_OK;
}

/* A new term of `tag`; its indices are those added from now on. */
static pps_status draft_term(draft *d, const char *tag, pps_term_kind kind, filter_term **ret)
{
    if (d->n_terms == PPS_MAX_TERMS)
        return pps_error(d->st, vm_current_span(d->st), 307, "a filter has at most %d tags",
                         PPS_MAX_TERMS);
    filter_term *term = &d->terms[d->n_terms++];
    *term = (filter_term){.tag = tag, .kind = kind, .ints_begin = (uint32_t)d->n_ints};
    *ret = term;
    return PPS_OK;
}

static int compare_ints(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Sort the indices of the term added last and drop repeats. */
static pps_status draft_close_set(draft *d)
{
    filter_term *term = &d->terms[d->n_terms - 1];
    int64_t *ints = d->ints + term->ints_begin;
    size_t n = d->n_ints - term->ints_begin, kept = 0;
    if (n == 0)
        return pps_error(d->st, vm_current_span(d->st), 307, "no index is left for tag %s",
                         term->tag);
    qsort(ints, n, sizeof(int64_t), compare_ints);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || ints[i] != ints[kept - 1])
            ints[kept++] = ints[i];
    term->n_ints = (uint32_t)kept;
    d->n_ints = term->ints_begin + kept;
    return PPS_OK;
}

static int compare_terms(const void *a, const void *b)
{
    return strcmp(((const filter_term *)a)->tag, ((const filter_term *)b)->tag);
}

/* The op that the terms spell: PP, MB and PASS (and COMM), one index each, in range. */
static bool draft_as_op(const draft *d, value *ret)
{
    const filter_term *pp = NULL, *mb = NULL, *pass = NULL, *comm = NULL;
    for (uint32_t i = 0; i < d->n_terms; i++) {
        const filter_term *term = &d->terms[i];
        if (term->kind == PPS_TERM_PASS)
            pass = term;
        else if (term->kind == PPS_TERM_COMM)
            comm = term;
        else if (term->kind != PPS_TERM_SET || term->n_ints != 1)
            return false;
        else if (term->tag == d->st->tags.pp)
            pp = term;
        else if (term->tag == d->st->tags.mb)
            mb = term;
        else
            return false;
    }
    if (!pp || !mb || !pass || d->ints[pp->ints_begin] > MAX_STAGE ||
        d->ints[mb->ints_begin] > UINT32_MAX)
        return false;
    *ret = pps_op((uint32_t)d->ints[pp->ints_begin], (uint32_t)d->ints[mb->ints_begin],
                  (pps_pass)pass->pass, comm ? (pps_comm)comm->comm : PPS_COMM_NONE);
    return true;
}

/* Sort, refuse repeats, intern. The draft is done afterwards, however this ends. */
static pps_status draft_finish(draft *d, value *ret)
{
    pps_status status = PPS_OK;
    qsort(d->terms, d->n_terms, sizeof(filter_term), compare_terms);
    for (uint32_t i = 1; i < d->n_terms && status == PPS_OK; i++)
        if (d->terms[i].tag == d->terms[i - 1].tag)
            status = pps_error(d->st, vm_current_span(d->st), 307, "tag %s is given twice",
                               d->terms[i].tag);
    if (status == PPS_OK && !draft_as_op(d, ret)) {
        /* indices follow the order of the sorted terms, so that equal filters have equal arrays */
        int64_t few[16], *ints = few;
        void *p = NULL;
        if (d->n_ints > sizeof(few) / sizeof(few[0])) {
            status = heap_alloc(d->st, d->n_ints * sizeof(int64_t), &p);
            ints = p;
        }
        uint32_t n = 0;
        for (uint32_t i = 0; i < d->n_terms && status == PPS_OK; i++) {
            filter_term *term = &d->terms[i];
            memcpy(ints + n, d->ints + term->ints_begin, term->n_ints * sizeof(int64_t));
            term->ints_begin = n;
            n += term->n_ints;
        }
        if (status == PPS_OK)
            status = intern_filter(d->st, d->terms, d->n_terms, ints, n, ret);
        heap_free(d->st, p, d->n_ints * sizeof(int64_t));
    }
    draft_done(d);
    return status;
}

static pps_status draft_fail(draft *d, pps_status status)
{
    draft_done(d);
    return status;
}

/* ---- From script values ---------------------------------------------------------------------- */

static bool is_word(value v, const char *word)
{
    return pps_typeof(v) == PPS_STRING && strcmp(((string *)v.as.ptr)->bytes, word) == 0;
}

/* The sign that a value of a map of filter({...}) stands for, or 0. */
static char sign_of(value v)
{
    return is_word(v, "*") ? '*' : is_word(v, "-") ? '-' : 0;
}

static pps_status add_pass(draft *d, const char *tag, value v)
{
    filter_term *term = NULL;
    if (pps_typeof(v) != PPS_PASS)
        return pps_error(d->st, vm_current_span(d->st), 304,
                         "tag %s takes F, B, BI or BW, this is %s", tag, value_kind(d->st, v));
    PPS_TRY(draft_term(d, tag, PPS_TERM_PASS, &term));
    term->pass = (uint8_t)pps_op_pass(v);
    return PPS_OK;
}

static pps_status add_comm(draft *d, const char *tag, value v)
{
    filter_term *term = NULL;
    const char *word = pps_typeof(v) == PPS_STRING ? ((string *)v.as.ptr)->bytes
                       : pps_typeof(v) == PPS_FN   ? vm_object_name(v.as.ptr)
                                                   : "";
    pps_comm comm = strcmp(word, "SEND") == 0   ? PPS_COMM_SEND
                    : strcmp(word, "RECV") == 0 ? PPS_COMM_RECV
                                                : PPS_COMM_NONE;
    if (comm == PPS_COMM_NONE)
        return pps_error(d->st, vm_current_span(d->st), 304,
                         "tag %s takes SEND or RECV, this is %s", tag, value_kind(d->st, v));
    PPS_TRY(draft_term(d, tag, PPS_TERM_COMM, &term));
    term->comm = (uint8_t)comm;
    return PPS_OK;
}

static pps_status add_indices(draft *d, const char *tag, value v)
{
    filter_term *term = NULL;
    PPS_TRY(draft_term(d, tag, PPS_TERM_SET, &term));
    if (pps_typeof(v) == PPS_RANGE) {
        const range *r = v.as.ptr;
        size_t n = range_count(r);
        PPS_TRY(vm_charge(d->st, n));
        PPS_TRY(draft_reserve(d, n));
        int64_t at = r->begin;
        for (size_t i = 0; i < n; i++, at = (int64_t)((uint64_t)at + (uint64_t)r->step))
            PPS_TRY(draft_int(d, tag, pps_int(at)));
    } else if (pps_typeof(v) == PPS_LIST) {
        const list *l = v.as.ptr;
        PPS_TRY(vm_charge(d->st, l->n));
        for (size_t i = 0; i < l->n; i++)
            PPS_TRY(draft_int(d, tag, l->items[i]));
    } else if (pps_typeof(v) == PPS_INT) {
        PPS_TRY(draft_int(d, tag, v));
    } else {
        pps_diag *g = pps_diag_start(d->st, PPS_SEV_ERROR, 304, vm_current_span(d->st),
                                     "tag %s takes an index, a range or list of indices, `*` or "
                                     "`-`, this is %s",
                                     tag, value_kind(d->st, v));
        if (pps_typeof(v) == PPS_FLOAT)
            pps_diag_help(g, "`int(x)` gives the int");
        else if (sign_of(v) != 0)
            pps_diag_help(g, "the sign stands without quotes: {%s: %c}", tag, sign_of(v));
        return pps_diag_done(g);
    }
    return draft_close_set(d);
}

static pps_status add_value_term(draft *d, const char *tag, char sign, value v)
{
    filter_term *term = NULL;
    if (sign == '*')
        return draft_term(d, tag, PPS_TERM_ANY, &term);
    if (sign == '-')
        return draft_term(d, tag, PPS_TERM_ABSENT, &term);
    if (tag == d->st->tags.pass)
        return add_pass(d, tag, v);
    if (tag == d->st->tags.comm)
        return add_comm(d, tag, v);
    return add_indices(d, tag, v);
}

static pps_status add_value_terms(draft *d, uint32_t n, const char *const *tags, const char *signs,
                                  const value *vals)
{
    for (uint32_t i = 0; i < n; i++)
        PPS_TRY(add_value_term(d, tags[i], signs ? signs[i] : sign_of(vals[i]), vals[i]));
    return PPS_OK;
}

pps_status filter_build(pps_state *st, uint32_t n, const char *const *tags, const char *signs,
                        const value *vals, value *ret)
{
    draft d;
    draft_init(&d, st);
    pps_status status = add_value_terms(&d, n, tags, signs, vals);
    return status == PPS_OK ? draft_finish(&d, ret) : draft_fail(&d, status);
}

static pps_status op_index_error(pps_state *st, const char *what, int64_t i, int64_t most)
{
    if (i < 0)
        return pps_error(st, vm_current_span(st), 307, "%s %lld does not exist: they count from 0",
                         what, (long long)i);
    return pps_error(st, vm_current_span(st), 307, "%s %lld is too large: %lld at most", what,
                     (long long)i, (long long)most);
}

pps_status filter_op(pps_state *st, pps_pass pass, int64_t stage, int64_t mb, uint32_t n_extra,
                     const char *const *tags, const value *vals, value *ret)
{
    if (stage < 0 || stage > MAX_STAGE)
        return op_index_error(st, "stage", stage, MAX_STAGE);
    if (mb < 0 || mb > UINT32_MAX)
        return op_index_error(st, "microbatch", mb, UINT32_MAX);
    if (n_extra == 0) {
        *ret = pps_op((uint32_t)stage, (uint32_t)mb, pass, PPS_COMM_NONE);
        return PPS_OK;
    }
    const char *const three[] = {st->tags.pp, st->tags.mb, st->tags.pass};
    const value vals3[] = {pps_int(stage), pps_int(mb), value_make(PPS_PASS, (uint64_t)pass)};
    static const char no_signs[PPS_MAX_TERMS];
    draft d;
    draft_init(&d, st);
    pps_status status = add_value_terms(&d, 3, three, no_signs, vals3);
    if (status == PPS_OK)
        status = add_value_terms(&d, n_extra, tags, no_signs, vals);
    return status == PPS_OK ? draft_finish(&d, ret) : draft_fail(&d, status);
}

/* ---- Reading, and both at once --------------------------------------------------------------- */

int pps_filter_terms(pps_state *st, pps_value v, pps_term terms[PPS_MAX_TERMS], int64_t scratch[2])
{
    if (pps_typeof(v) == PPS_MAP)
        return ((map *)v.as.ptr)->n_live == 0 ? 0 : -1;
    if (pps_typeof(v) == PPS_OP) {
        int n = 0;
        scratch[0] = pps_op_stage(v);
        scratch[1] = pps_op_mb(v);
        if (pps_op_comm(v))
            terms[n++] =
                (pps_term){.tag = st->tags.comm, .kind = PPS_TERM_COMM, .comm = pps_op_comm(v)};
        terms[n++] =
            (pps_term){.tag = st->tags.mb, .kind = PPS_TERM_SET, .ints = &scratch[1], .n_ints = 1};
        terms[n++] =
            (pps_term){.tag = st->tags.pass, .kind = PPS_TERM_PASS, .pass = pps_op_pass(v)};
        terms[n++] =
            (pps_term){.tag = st->tags.pp, .kind = PPS_TERM_SET, .ints = &scratch[0], .n_ints = 1};
        return n;
    }
    if (pps_typeof(v) != PPS_FILTER)
        return -1;
    const filter *f = v.as.ptr;
    for (uint32_t i = 0; i < f->n_terms; i++) {
        const filter_term *term = &f->terms[i];
        terms[i] = (pps_term){.tag = term->tag,
                              .kind = term->kind,
                              .pass = (pps_pass)term->pass,
                              .comm = (pps_comm)term->comm,
                              .ints = f->ints + term->ints_begin,
                              .n_ints = term->n_ints};
    }
    return (int)f->n_terms;
}

static pps_status add_copy(draft *d, const pps_term *from)
{
    filter_term *term = NULL;
    PPS_TRY(draft_term(d, from->tag, from->kind, &term));
    term->pass = (uint8_t)from->pass;
    term->comm = (uint8_t)from->comm;
    term->n_ints = (uint32_t)from->n_ints;
    PPS_TRY(draft_reserve(d, from->n_ints));
    if (from->n_ints)
        memcpy(d->ints + d->n_ints, from->ints, from->n_ints * sizeof(int64_t));
    d->n_ints += from->n_ints;
    return PPS_OK;
}

/* What both terms of one tag allow. `*` allows every index, so it gives way to the other; any other
 * two different kinds allow nothing, nor do different passes. */
static pps_status add_common(draft *d, const pps_term *a, const pps_term *b)
{
    if (a->kind == PPS_TERM_ANY && b->kind != PPS_TERM_ABSENT)
        return add_copy(d, b);
    if (b->kind == PPS_TERM_ANY && a->kind != PPS_TERM_ABSENT)
        return add_copy(d, a);
    bool same = a->kind == b->kind && a->pass == b->pass && a->comm == b->comm;
    if (same && a->kind != PPS_TERM_SET)
        return add_copy(d, a);
    if (same) {
        filter_term *term = NULL;
        PPS_TRY(draft_term(d, a->tag, PPS_TERM_SET, &term));
        PPS_TRY(draft_reserve(d, a->n_ints < b->n_ints ? a->n_ints : b->n_ints));
        for (size_t i = 0, j = 0; i < a->n_ints && j < b->n_ints;) {
            if (a->ints[i] == b->ints[j])
                d->ints[d->n_ints++] = a->ints[i];
            bool step_i = a->ints[i] <= b->ints[j], step_j = b->ints[j] <= a->ints[i];
            i += step_i;
            j += step_j;
        }
        if (d->n_ints > term->ints_begin)
            return draft_close_set(d);
    }
    return pps_error(d->st, vm_current_span(d->st), 307,
                     "nothing can match both filters: they contradict each other on tag %s",
                     a->tag);
}

static pps_status add_both(draft *d, const pps_term *a, int n_a, const pps_term *b, int n_b)
{
    int i = 0, j = 0;
    while (i < n_a || j < n_b) {
        int order = i == n_a ? 1 : j == n_b ? -1 : strcmp(a[i].tag, b[j].tag);
        if (order == 0)
            PPS_TRY(add_common(d, &a[i++], &b[j++]));
        else
            PPS_TRY(add_copy(d, order < 0 ? &a[i++] : &b[j++]));
    }
    return PPS_OK;
}

pps_status filter_and(pps_state *st, value a, value b, value *ret)
{
    pps_term terms_a[PPS_MAX_TERMS], terms_b[PPS_MAX_TERMS];
    int64_t scratch_a[2], scratch_b[2];
    int n_a = pps_filter_terms(st, a, terms_a, scratch_a);
    int n_b = pps_filter_terms(st, b, terms_b, scratch_b);
    if (n_a < 0 || n_b < 0)
        return pps_error(st, vm_current_span(st), 304, "`&` joins filters and ops, this is %s",
                         value_kind(st, n_a < 0 ? a : b));
    draft d;
    draft_init(&d, st);
    pps_status status = add_both(&d, terms_a, n_a, terms_b, n_b);
    return status == PPS_OK ? draft_finish(&d, ret) : draft_fail(&d, status);
}

pps_status filter_new(pps_state *st, const filter_term *terms, uint32_t n_terms,
                      const int64_t *ints, uint32_t n_ints, value *ret)
{
    (void)n_ints;
    draft d;
    draft_init(&d, st);
    pps_status status = PPS_OK;
    for (uint32_t i = 0; i < n_terms && status == PPS_OK; i++) {
        pps_term term = {.tag = terms[i].tag,
                         .kind = terms[i].kind,
                         .pass = (pps_pass)terms[i].pass,
                         .comm = (pps_comm)terms[i].comm,
                         .ints = ints + terms[i].ints_begin,
                         .n_ints = terms[i].n_ints};
        status = add_copy(&d, &term);
        if (status == PPS_OK && term.kind == PPS_TERM_SET)
            status = draft_close_set(&d);
    }
    return status == PPS_OK ? draft_finish(&d, ret) : draft_fail(&d, status);
}
