/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_build.c: a plan_set from records, table after table. Room for a table is made when it
 * begins, as much as the file has records, so a file cannot ask for more memory than its own length
 * times a small factor. Tables that every plan has lie plan after plan; the plans, which come
 * before, say how many records each has.
 */
#include "ir/plan_row.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lang/lex_text.h"

plan_set *plan_set_new(void)
{
    arena *mem = malloc(sizeof *mem);
    if (mem == NULL)
        return NULL;
    arena_init(mem, NULL, NULL);
    plan_set *set = arena_zero(mem, sizeof *set);
    if (set == NULL) {
        arena_done(mem);
        free(mem);
        return NULL;
    }
    set->mem = mem;
    return set;
}

void plan_set_free(plan_set *set)
{
    if (set == NULL)
        return;
    arena *mem = set->mem;
    arena_done(mem);
    free(mem);
}

static pps_status make_arrays(plan_build *b, void *owner, uint32_t n)
{
    for (uint32_t i = 0; i < b->table.n_fields; i++) {
        const plan_field *f = &b->table.fields[i];
        void *array;
        if (f->array == PLAN_SELF)
            continue;
        memcpy(&array, (char *)owner + f->array, sizeof array);
        if (array != NULL)
            continue;
        array = arena_zero(b->mem, ((size_t)n + 1) * f->stride);
        if (array == NULL)
            return PPS_ERR_NOMEM;
        memcpy((char *)owner + f->array, &array, sizeof array);
    }
    return PPS_OK;
}

pps_status plan_build_table(plan_build *b, uint32_t id, char reason[256])
{
    b->table = plan_table_of(id);
    b->owner = b->at = 0;
    uint64_t n = b->n[id], held = 0;
    if (b->table.n == PLAN_SELF && n != 1) {
        snprintf(reason, 256, "there are %llu records of '%s' instead of 1", (unsigned long long)n,
                 b->table.name);
        return PPS_ERR_SCRIPT;
    }
    if (b->table.n != PLAN_SELF && !b->table.per_plan)
        memcpy((char *)b->set + b->table.n, &b->n[id], sizeof b->n[id]);
    if (!b->table.per_plan)
        return make_arrays(b, b->set, b->n[id]);
    for (uint32_t i = 0; i < b->set->n_groups; i++)
        held += plan_table_n(&b->table, &b->set->plans[i]);
    if (held != n) {
        snprintf(reason, 256, "there are %llu records of '%s', and the plans have %llu",
                 (unsigned long long)n, b->table.name, (unsigned long long)held);
        return PPS_ERR_SCRIPT;
    }
    for (uint32_t i = 0; i < b->set->n_groups; i++) {
        plan *p = &b->set->plans[i];
        PPS_TRY(make_arrays(b, p, plan_table_n(&b->table, p)));
    }
    return PPS_OK;
}

bool plan_build_next(plan_build *b, void **ret_owner, uint32_t *ret_i)
{
    uint32_t n_owners = plan_owners(&b->table, b->set);
    while (b->owner < n_owners) {
        void *owner = plan_owner(&b->table, b->set, b->owner);
        if (b->at < plan_table_n(&b->table, owner)) {
            *ret_owner = owner;
            *ret_i = b->at++;
            return true;
        }
        b->owner++;
        b->at = 0;
    }
    return false;
}

pps_status plan_build_finish(plan_build *b, char reason[256])
{
    plan_set *set = b->set;
    uint32_t at = 0;
    set->rank_group = arena_zero(b->mem, ((size_t)set->n_ranks + 1) * sizeof *set->rank_group);
    set->rank_index = arena_zero(b->mem, ((size_t)set->n_ranks + 1) * sizeof *set->rank_index);
    if (set->rank_group == NULL || set->rank_index == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const plan *p = &set->plans[g];
        if (p->ranks != at || p->n_ranks > set->n_ranks - at) {
            snprintf(reason, 256, "the ranks of group %u are not those after group %u's", g,
                     g == 0 ? 0 : g - 1);
            return PPS_ERR_SCRIPT;
        }
        for (uint32_t k = 0; k < p->n_ranks; k++, at++) {
            uint32_t rank = set->group_ranks[at];
            if (rank < set->n_ranks) {
                set->rank_group[rank] = g;
                set->rank_index[rank] = k;
            }
        }
    }
    return PPS_OK;
}

bool plan_text_valid(const char *text, size_t n)
{
    uint32_t c;
    for (size_t i = 0, length; i < n; i += length) {
        length = lex_utf8(text + i, n - i, &c);
        if (length == 0 || c == 0)
            return false;
    }
    return true;
}
