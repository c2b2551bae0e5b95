/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_validate.c: is a plan_set whole? First every field by the rule that plan_fields.def gives
 * it, then what the set's tables say about each other; plan_check.c looks at each plan. Sizes that
 * others multiply are bounded here, so that they cannot overflow.
 */
#include "ir/plan_row.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pps_status plan_wrong(plan_checker *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->reason, 256, format, args);
    va_end(args);
    return PPS_ERR_SCRIPT;
}

/* ---- Fields -----------------------------------------------------------------------------------
 */

/* Records of table `id` that an index in a record of `owner` can mean. */
static uint32_t table_size(const plan_checker *c, uint32_t id, const void *owner)
{
    const plan_table *t = &c->tables[id];
    return plan_table_n(t, t->per_plan ? owner : c->set);
}

static pps_status wrong_field(plan_checker *c, const plan_table *t, const plan_field *f, uint32_t o,
                              uint32_t i, const char *why, unsigned long long a)
{
    char of[48] = "", value[32];
    if (t->per_plan)
        snprintf(of, sizeof of, " of group %u", o);
    snprintf(value, sizeof value, "%llu", a);
    return plan_wrong(c, "'%s' of %s %u%s is %s %s", f->name, t->name, i, of, why, value);
}

static pps_status check_field(plan_checker *c, const plan_table *t, const plan_field *f, uint32_t o)
{
    const void *owner = plan_owner(t, c->set, o);
    const plan_rule_of *rule = &f->check;
    bool is_index = rule->rule == PLAN_RULE_INDEX || rule->rule == PLAN_RULE_LINK ||
                    rule->rule == PLAN_RULE_RANGE;
    bool is_float = f->type == PLAN_TYPE_F32 || f->type == PLAN_TYPE_F64;
    uint32_t n = plan_table_n(t, owner), size = is_index ? table_size(c, rule->table, owner) : 0;
    if (rule->rule == PLAN_RULE_ANY && !is_float)
        return PPS_OK;
    for (uint32_t i = 0; i < n; i++) {
        plan_value v = plan_field_get(f, owner, i);
        if (is_float && !plan_field_takes(f, v.f))
            return wrong_field(c, t, f, o, i, "no number", 0);
        switch ((plan_rule)rule->rule) {
        case PLAN_RULE_UNDER:
            if (v.u >= rule->limit)
                return wrong_field(c, t, f, o, i, "not under", rule->limit);
            break;
        case PLAN_RULE_LINK:
            if (v.u == IR_NONE)
                break;
        /* fall through */
        case PLAN_RULE_INDEX:
            if (v.u >= size)
                return wrong_field(c, t, f, o, i, "past the end, which is", size);
            break;
        case PLAN_RULE_RANGE:
            if (v.u > size || plan_field_count(f, owner, i) > size - v.u)
                return wrong_field(c, t, f, o, i, "a range past the end, which is", size);
            break;
        case PLAN_RULE_NAME:
            if (v.text == NULL || v.bytes == 0)
                return wrong_field(c, t, f, o, i, "empty, number", i);
            break;
        case PLAN_RULE_LISTED:
        case PLAN_RULE_FIGURE:
        case PLAN_RULE_ANY:
            break;
        }
    }
    return PPS_OK;
}

static pps_status check_fields(plan_checker *c)
{
    for (uint32_t id = 0; id < PLAN_TABLE_COUNT; id++) {
        const plan_table *t = &c->tables[id];
        for (uint32_t o = 0; o < plan_owners(t, c->set); o++)
            for (uint32_t k = 0; k < t->n_fields; k++)
                PPS_TRY(check_field(c, t, &t->fields[k], o));
    }
    return PPS_OK;
}

/* ---- The set ----------------------------------------------------------------------------------
 */

static pps_status check_numbers(plan_checker *c)
{
    const plan_set *set = c->set;
    uint64_t n_steps = 0, n_computes = 0;
    if (set->n_groups == 0 || set->n_ranks == 0 || set->n_streams == 0 || set->n_places == 0 ||
        set->n_mb == 0 || set->batch == 0 || set->T == 0 || set->n_slices == 0)
        return plan_wrong(c, "it has no plans, ranks, streams, places, microbatches or batch");
    if (set->n_mb % set->n_slices != 0 || set->T % set->n_slices != 0 ||
        (set->n_slices > 1 && set->slice_tag == NULL))
        return plan_wrong(c, "its %u units or %u positions do not divide into %u slices", set->n_mb,
                          set->T, set->n_slices);
    for (uint32_t i = 0; i < set->n_data; i++)
        if (set->data[i].row_elems % set->n_slices != 0)
            return plan_wrong(c, "data %u does not divide into %u slices", i, set->n_slices);
    if (set->n_ranks > PLAN_MAX_RANKS)
        return plan_wrong(c, "it has more than %d ranks", PLAN_MAX_RANKS);
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const plan *p = &set->plans[g];
        n_steps += p->n_steps;
        for (uint32_t i = 0; i < p->n_steps; i++)
            n_computes += p->steps[i].kind == PLAN_COMPUTE;
    }
    if (n_steps >= UINT32_MAX)
        return plan_wrong(c, "it has more steps than can be numbered");
    uint32_t n_chunks = 0; /* of the model */
    for (uint32_t i = 0; i < set->n_chunks; i++) {
        n_chunks += set->chunk_model[i] == i;
        if (set->chunk_model[set->chunk_model[i]] != set->chunk_model[i])
            return plan_wrong(c, "chunk %u is no chunk of the model", i);
    }
    if ((uint64_t)set->n_mb * n_chunks > n_computes)
        return plan_wrong(c, "%u microbatches of %u chunks, and only %llu computes", set->n_mb,
                          n_chunks, (unsigned long long)n_computes);
    if ((uint64_t)set->n_mb * set->n_mb_losses != set->n_losses)
        return plan_wrong(c, "%u losses in %u microbatches of %u", set->n_losses, set->n_mb,
                          set->n_mb_losses);
    if ((set->train.data == IR_SOURCE_NONE) != (set->train.data_path == NULL))
        return plan_wrong(c, "it trains on data without a path, or has a path and no data");
    return PPS_OK;
}

static pps_status check_ranks(plan_checker *c)
{
    const plan_set *set = c->set;
    uint32_t at = 0;
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const plan *p = &set->plans[g];
        uint64_t rows = (uint64_t)p->n_replicas * (set->n_mb / set->n_slices);
        if (p->group != g || p->n_ranks == 0 || p->ranks != at)
            return plan_wrong(c, "group %u has no ranks, or not those after group %u's", g,
                              g > 0 ? g - 1 : 0);
        for (uint32_t k = 0; k < p->n_ranks; k++, at++) {
            uint32_t rank = set->group_ranks[at];
            if (set->rank_group[rank] != g || set->rank_index[rank] != k)
                return plan_wrong(c, "rank %u is in two places", rank);
            if (set->rank_replica[at] >= p->n_replicas || set->rank_part[at] >= p->n_parts)
                return plan_wrong(c, "rank %u has no share of the batch", rank);
        }
        if (rows == 0 || set->batch % rows != 0 || set->T % p->n_parts != 0)
            return plan_wrong(c, "%u rows do not divide over %u replicas and %u microbatches",
                              set->batch, p->n_replicas, set->n_mb / set->n_slices);
    }
    return at == set->n_ranks ? PPS_OK
                              : plan_wrong(c, "%u ranks are in no group", set->n_ranks - at);
}

/* Teams are of equal sizes, no rank is in two of them, and groups come first. */
static pps_status check_teams(plan_checker *c)
{
    const plan_set *set = c->set;
    uint32_t *seen = arena_zero(&c->mem, ((size_t)set->n_ranks + 1) * sizeof *seen);
    if (seen == NULL)
        return PPS_ERR_NOMEM;
    if (set->n_teams < set->n_groups)
        return plan_wrong(c, "%u groups, and only %u ways to form teams", set->n_groups,
                          set->n_teams);
    for (uint32_t i = 0; i < set->n_teams; i++) {
        const plan_teams *t = &set->teams[i];
        if (t->size == 0 || t->n_ranks == 0 || t->n_ranks % t->size != 0)
            return plan_wrong(c, "teams %u are not of equal sizes", i);
        for (uint32_t k = 0; k < t->n_ranks; k++) {
            uint32_t rank = set->team_ranks[t->ranks + k];
            if (seen[rank] == i + 1)
                return plan_wrong(c, "rank %u is in two teams of teams %u", rank, i);
            seen[rank] = i + 1;
            if (i < set->n_groups && (t->size != t->n_ranks || set->rank_group[rank] != i ||
                                      t->n_ranks != set->plans[i].n_ranks))
                return plan_wrong(c, "teams %u are not group %u", i, i);
        }
    }
    return PPS_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static pps_status check_params(plan_checker *c)
{
    const plan_set *set = c->set;
    uint64_t all = 0;
    const char **names = arena_new(&c->mem, ((size_t)set->n_params + 1) * sizeof *names);
    bool *held = arena_zero(&c->mem, (size_t)set->n_params + 1);
    if (names == NULL || held == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_params; i++)
            held[set->plans[g].params[i].param] = true;
    for (uint32_t i = 0; i < set->n_params; i++) {
        const ir_param *p = &set->params[i];
        uint64_t elems = 1;
        bool fits = p->n_dims > 0;
        for (uint32_t k = 0; k < p->n_dims; k++)
            fits = !__builtin_mul_overflow(elems, p->dims[k], &elems) && p->dims[k] > 0 && fits;
        if (!fits || elems > PLAN_MAX_BYTES / 4 || (all += elems) > PLAN_MAX_BYTES / 4)
            return plan_wrong(c, "parameter %u has no elements, or too many", i);
        if (!held[i])
            return plan_wrong(c, "no plan has parameter %u", i);
        names[i] = p->name;
    }
    if (set->n_params > 0)
        qsort(names, set->n_params, sizeof *names, by_name);
    for (uint32_t i = 1; i < set->n_params; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return plan_wrong(c, "two parameters are called '%.100s'", names[i]);
    return PPS_OK;
}

pps_status plan_validate(const plan_set *set, char reason[256], pps_span *ret_span)
{
    plan_checker c = {.set = set, .reason = reason};
    reason[0] = '\0';
    for (uint32_t id = 0; id < PLAN_TABLE_COUNT; id++)
        c.tables[id] = plan_table_of(id);
    arena_init(&c.mem, NULL, NULL);
    pps_status status = check_fields(&c);
    if (status == PPS_OK)
        status = check_numbers(&c);
    if (status == PPS_OK)
        status = check_ranks(&c);
    if (status == PPS_OK)
        status = check_teams(&c);
    if (status == PPS_OK)
        status = check_params(&c);
    if (status == PPS_OK)
        status = plan_check(&c);
    arena_done(&c.mem);
    if (ret_span != NULL)
        *ret_span = c.span;
    return status;
}
