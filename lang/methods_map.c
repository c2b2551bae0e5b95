/* SPDX-License-Identifier: Apache-2.0
 *
 * methods_map.c: methods of maps, and those that read ops. What a map gives is in insertion order.
 */
#include "lang/builtins.h"

enum { MAP_PART_KEY = 1, MAP_PART_VALUE = 2 };

static pps_status add_part(pps_state *st, const map_entry *e, int parts, list *to)
{
    if (parts != (MAP_PART_KEY | MAP_PART_VALUE))
        return list_push(st, to, parts == MAP_PART_KEY ? e->key : e->val);
    value pair;
    PPS_TRY(list_new(st, 2, &pair));
    PPS_TRY(list_push(st, pair.as.ptr, e->key));
    PPS_TRY(list_push(st, pair.as.ptr, e->val));
    return list_push(st, to, pair);
}

static pps_status list_of(pps_state *st, const map *m, int parts, value *ret)
{
    PPS_TRY(vm_charge(st, m->n_entries));
    PPS_TRY(list_new(st, m->n_live, ret));
    for (uint32_t i = 0; i < m->n_entries; i++)
        if (m->entries[i].live)
            PPS_TRY(add_part(st, &m->entries[i], parts, ret->as.ptr));
    return PPS_OK;
}

pps_status method_map_keys(pps_state *st, const method_args *a, value *ret)
{
    return list_of(st, a->self.as.ptr, MAP_PART_KEY, ret);
}

pps_status method_map_values(pps_state *st, const method_args *a, value *ret)
{
    return list_of(st, a->self.as.ptr, MAP_PART_VALUE, ret);
}

pps_status method_map_items(pps_state *st, const method_args *a, value *ret)
{
    return list_of(st, a->self.as.ptr, MAP_PART_KEY | MAP_PART_VALUE, ret);
}

pps_status method_map_get(pps_state *st, const method_args *a, value *ret)
{
    bool found;
    PPS_TRY(map_get(st, a->self.as.ptr, a->v[0], ret, &found));
    if (!found)
        *ret = a->v[1];
    return PPS_OK;
}

pps_status method_map_pop(pps_state *st, const method_args *a, value *ret)
{
    map *m = a->self.as.ptr;
    bool found;
    PPS_TRY(object_mutable(st, &m->o));
    PPS_TRY(map_get(st, m, a->v[0], ret, &found));
    if (found)
        return map_delete(st, m, a->v[0], &found);
    *ret = a->v[1];
    return a->given[1] ? PPS_OK : value_index(st, a->self, a->v[0], ret); /* says what is missing */
}

pps_status method_map_copy(pps_state *st, const method_args *a, value *ret)
{
    const map *m = a->self.as.ptr;
    PPS_TRY(vm_charge(st, m->n_entries));
    PPS_TRY(map_new(st, ret));
    for (uint32_t i = 0; i < m->n_entries; i++)
        if (m->entries[i].live)
            PPS_TRY(map_set(st, ret->as.ptr, m->entries[i].key, m->entries[i].val));
    return PPS_OK;
}

/* ---- Ops and filters --------------------------------------------------------------------------
 */

static pps_status find_term(pps_state *st, value v, const char *tag, pps_term *ret)
{
    pps_term terms[PPS_MAX_TERMS];
    int64_t scratch[2];
    int n = pps_filter_terms(st, v, terms, scratch);
    for (int i = 0; i < n; i++) {
        bool single = terms[i].kind == PPS_TERM_PASS ||
                      (terms[i].kind == PPS_TERM_SET && terms[i].n_ints == 1);
        if (terms[i].tag != tag || !single)
            continue;
        *ret = terms[i];
        return PPS_OK;
    }
    return pps_error(st, pps_call_span(st), 312, "this filter does not name one %s", tag);
}

static pps_status index_of(pps_state *st, value v, const char *tag, value *ret)
{
    if (pps_typeof(v) == PPS_OP) {
        *ret = pps_int(tag == st->tags.pp ? pps_op_stage(v) : pps_op_mb(v));
        return PPS_OK;
    }
    pps_term term;
    PPS_TRY(find_term(st, v, tag, &term));
    *ret = pps_int(term.ints[0]);
    return PPS_OK;
}

pps_status method_op_stage(pps_state *st, const method_args *a, value *ret)
{
    return index_of(st, a->self, st->tags.pp, ret);
}

pps_status method_op_mb(pps_state *st, const method_args *a, value *ret)
{
    return index_of(st, a->self, st->tags.mb, ret);
}

pps_status method_op_pass(pps_state *st, const method_args *a, value *ret)
{
    pps_term term;
    PPS_TRY(find_term(st, a->self, st->tags.pass, &term));
    *ret = value_make(PPS_PASS, (uint64_t)term.pass);
    return PPS_OK;
}
