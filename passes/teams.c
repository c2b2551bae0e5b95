/* SPDX-License-Identifier: Apache-2.0
 *
 * teams.c: teams of ranks, in which collectives run: whole device groups, the teams that a `shard`
 * names, and ranks that hold the same slice of what others cut. Equal ways to form teams share one
 * number, so that whoever asks alike communicates in one order.
 */
#include "passes/pass.h"

#include <string.h>

static pps_status grow(arena *mem, void **array, uint32_t *cap, uint32_t n, uint32_t more,
                       size_t item)
{
    if (n + more <= *cap)
        return PPS_OK;
    uint32_t wanted = 2 * (n + more) + 16;
    void *bigger = arena_new(mem, wanted * item);
    if (bigger == NULL)
        return PPS_ERR_NOMEM;
    if (n > 0)
        memcpy(bigger, *array, n * item);
    *array = bigger;
    *cap = wanted;
    return PPS_OK;
}

pps_status pass_teams_add(pass_cx *cx, const uint32_t *ranks, uint32_t n_ranks, uint32_t size,
                          uint32_t *ret)
{
    plan_set *set = cx->set;
    for (uint32_t i = 0; i < set->n_teams; i++) {
        const plan_teams *t = &set->teams[i];
        if (t->n_ranks == n_ranks && t->size == size &&
            memcmp(set->team_ranks + t->ranks, ranks, n_ranks * sizeof *ranks) == 0) {
            *ret = i;
            return PPS_OK;
        }
    }
    PPS_TRY(
        grow(cx->mem, (void **)&set->teams, &cx->cap_teams, set->n_teams, 1, sizeof *set->teams));
    PPS_TRY(grow(cx->mem, (void **)&set->team_ranks, &cx->cap_team_ranks, set->n_team_ranks,
                 n_ranks, sizeof *set->team_ranks));
    *ret = set->n_teams;
    set->teams[set->n_teams++] =
        (plan_teams){.ranks = set->n_team_ranks, .n_ranks = n_ranks, .size = size};
    memcpy(set->team_ranks + set->n_team_ranks, ranks, n_ranks * sizeof *ranks);
    set->n_team_ranks += n_ranks;
    return PPS_OK;
}

pps_status pass_teams_of_groups(pass_cx *cx)
{
    const dag *d = cx->dag;
    for (uint32_t g = 0; g < d->n_groups; g++) {
        uint32_t own;
        PPS_TRY(pass_teams_add(cx, d->group_ranks + d->groups[g].ranks, d->groups[g].n_ranks,
                               d->groups[g].n_ranks, &own));
    }
    return PPS_OK;
}

/* ret[rank]: its index in its team; IR_NONE: in none. */
static pps_status index_ranks(pass_cx *cx, uint32_t teams, uint32_t **ret)
{
    const plan_set *set = cx->set;
    const plan_teams *t = &set->teams[teams];
    PASS_ALLOC(*ret, cx->phase, cx->dag->n_ranks);
    memset(*ret, 0xff, cx->dag->n_ranks * sizeof **ret);
    for (uint32_t k = 0; k < t->n_ranks; k++)
        (*ret)[set->team_ranks[t->ranks + k]] = k % t->size;
    return PPS_OK;
}

/* Ranks in their order, those with the same index in each of `by` as a team; IR_NONE: no two do. */
static pps_status teams_alike(pass_cx *cx, const uint32_t *ranks, uint32_t n_ranks,
                              const uint32_t *by, uint32_t n_by, uint32_t *ret)
{
    uint32_t n_keys = 1, *key, *at, *sorted;
    PASS_ALLOC(key, cx->phase, n_ranks);
    for (uint32_t i = 0; i < n_by; i++) {
        uint32_t *index, size = cx->set->teams[by[i]].size;
        PPS_TRY(index_ranks(cx, by[i], &index));
        for (uint32_t r = 0; r < n_ranks; r++)
            key[r] = key[r] * size + (index[ranks[r]] == IR_NONE ? 0 : index[ranks[r]]);
        n_keys *= size;
    }
    PASS_ALLOC(at, cx->phase, n_keys + 1);
    PASS_ALLOC(sorted, cx->phase, n_ranks);
    for (uint32_t r = 0; r < n_ranks; r++)
        at[key[r] + 1]++;
    for (uint32_t i = 0; i < n_keys; i++)
        at[i + 1] += at[i];
    for (uint32_t r = 0; r < n_ranks; r++)
        sorted[at[key[r]]++] = ranks[r];
    *ret = IR_NONE;
    return n_keys < n_ranks ? pass_teams_add(cx, sorted, n_ranks, n_ranks / n_keys, ret) : PPS_OK;
}

pps_status pass_teams_alike(pass_cx *cx, uint32_t group, const uint32_t *by, uint32_t n_by,
                            uint32_t *ret)
{
    const dag_group *k = &cx->dag->groups[group];
    return teams_alike(cx, cx->dag->group_ranks + k->ranks, k->n_ranks, by, n_by, ret);
}

pps_status pass_teams_merge(pass_cx *cx, uint32_t a, uint32_t b, uint32_t *ret)
{
    const plan_teams x = cx->set->teams[a], y = cx->set->teams[b];
    uint32_t *ranks, *seat, n = x.n_ranks; /* seat: [n_ranks] in x, + 1 */
    *ret = a;
    if (a == b)
        return PPS_OK;
    PASS_ALLOC(ranks, cx->phase, x.n_ranks + y.n_ranks);
    PASS_ALLOC(seat, cx->phase, cx->dag->n_ranks);
    memcpy(ranks, cx->set->team_ranks + x.ranks, x.n_ranks * sizeof *ranks);
    for (uint32_t i = 0; i < x.n_ranks; i++)
        seat[ranks[i]] = i + 1;
    for (uint32_t first = 0; first < y.n_ranks; first += y.size) {
        const uint32_t *team = cx->set->team_ranks + y.ranks + first;
        uint32_t at = seat[team[0]];
        for (uint32_t i = 0; i < y.size; i++)
            if (seat[team[i]] != (at > 0 ? at + i : 0) || (at > 0 && (at - 1) % x.size != 0)) {
                *ret = IR_NONE;
                return PPS_OK;
            }
        if (at == 0) {
            memcpy(ranks + n, team, y.size * sizeof *ranks);
            n += y.size;
        }
    }
    return n > x.n_ranks ? pass_teams_add(cx, ranks, n, x.size, ret) : PPS_OK;
}

pps_status pass_teams_given(pass_cx *cx, const ir_directive *s, uint32_t chunk, uint32_t *ret)
{
    const dag *d = cx->dag;
    const ir_program *p = cx->program;
    uint32_t group = d->chunks[chunk].group, *times;
    const dag_group *k = &d->groups[group];
    const uint32_t *listed = p->ints + s->devices.begin;
    if (s->devices.n_groups == 1) {
        PPS_TRY(pass_check_devices(cx, s, chunk));
        *ret = group; /* a group's own teams have its number */
        return PPS_OK;
    }
    PASS_ALLOC(times, cx->phase, d->n_ranks);
    bool same = s->devices.n == k->n_ranks;
    for (uint32_t i = 0; i < k->n_ranks; i++)
        times[d->group_ranks[k->ranks + i]] = 1;
    for (uint32_t i = 0; i < s->devices.n && same; i++)
        same = listed[i] < d->n_ranks && times[listed[i]]-- == 1;
    if (same)
        return pass_teams_add(cx, listed, s->devices.n, s->devices.n / s->devices.n_groups, ret);
    char tags[128], theirs[128];
    pps_diag *diag =
        pass_diag(cx, s, s->devices.span, 404, "these teams are not the devices that %s is on",
                  ir_tagset_text(p->graph, p->graph->chunks[chunk].tagset, tags, sizeof tags));
    pass_devices_text(d->group_ranks + k->ranks, k->n_ranks, theirs, sizeof theirs);
    if (d->chunks[chunk].place != IR_NONE)
        pps_diag_also(diag, p->directives[d->chunks[chunk].place].source->span,
                      "it is placed on %s", theirs);
    else
        pps_diag_note(diag, "without `place` everything is on %s", theirs);
    return pps_diag_done(diag);
}

/* ---- who does what on a device group --------------------------------------------------------- */

pps_status pass_teams_gradients(pass_cx *cx, const uint32_t *groups, uint32_t n_groups,
                                uint32_t param, uint32_t *ret)
{
    const dag *d = cx->dag;
    const plan_cut *cuts = cx->param_cuts[param];
    uint32_t *by, *ranks, n = 0, n_ranks = 0;
    const pass_param_share *share = cx->param_shares != NULL ? &cx->param_shares[param] : NULL;
    PASS_ALLOC(by, cx->phase, PLAN_MAX_CUTS + n_groups);
    PASS_ALLOC(ranks, cx->phase, d->n_ranks);
    for (int i = 0; i < PLAN_MAX_CUTS; i++) {
        if (cuts[i].teams == IR_NONE)
            continue;
        by[n++] = cuts[i].teams;
    }
    /* what a tensor team computes on equal values is equal already */
    uint32_t together = d->groups[groups[0]].tensor;
    for (uint32_t g = 1; g < n_groups && together != IR_NONE; g++)
        PPS_TRY(pass_teams_merge(cx, together, d->groups[groups[g]].tensor, &together));
    if (together != IR_NONE && !share->parts && !share->cut)
        by[n++] = together;
    for (uint32_t g = 0; g < n_groups; g++) {
        const dag_group *k = &d->groups[groups[g]];
        memcpy(ranks + n_ranks, d->group_ranks + k->ranks, k->n_ranks * sizeof *ranks);
        n_ranks += k->n_ranks;
    }
    return teams_alike(cx, ranks, n_ranks, by, n, ret);
}

/* Ranks that share a tensor or a sequence team, directly or through others, are one replica. */
static void join(const pass_cx *cx, uint32_t teams, uint32_t *label, bool *changed)
{
    const plan_teams *t = &cx->set->teams[teams];
    const uint32_t *ranks = cx->set->team_ranks + t->ranks;
    for (uint32_t first = 0; first < t->n_ranks; first += t->size) {
        uint32_t least = label[ranks[first]];
        for (uint32_t i = first; i < first + t->size; i++)
            least = label[ranks[i]] < least ? label[ranks[i]] : least;
        for (uint32_t i = first; i < first + t->size; i++) {
            *changed |= label[ranks[i]] != least;
            label[ranks[i]] = least;
        }
    }
}

pps_status pass_rank_roles(pass_cx *cx, uint32_t group, uint32_t *ret_replica, uint32_t *ret_part,
                           bool *ret_speaks)
{
    const dag_group *k = &cx->dag->groups[group];
    const uint32_t *ranks = cx->dag->group_ranks + k->ranks;
    uint32_t *tensor = NULL, *sequence = NULL, *label, n_replicas = 0;
    bool changed = true;
    PASS_ALLOC(label, cx->phase, cx->dag->n_ranks);
    if (k->tensor != IR_NONE)
        PPS_TRY(index_ranks(cx, k->tensor, &tensor));
    if (k->sequence != IR_NONE)
        PPS_TRY(index_ranks(cx, k->sequence, &sequence));
    for (uint32_t i = 0; i < k->n_ranks; i++)
        label[ranks[i]] = i;
    while (changed) {
        changed = false;
        if (k->tensor != IR_NONE)
            join(cx, k->tensor, label, &changed);
        if (k->sequence != IR_NONE)
            join(cx, k->sequence, label, &changed);
    }
    for (uint32_t i = 0; i < k->n_ranks; i++) {
        uint32_t first = label[ranks[i]]; /* the replica's first rank, by position */
        ret_replica[i] = first == i ? n_replicas++ : ret_replica[first];
        ret_part[i] = sequence != NULL ? sequence[ranks[i]] : 0;
        ret_speaks[i] = tensor == NULL || tensor[ranks[i]] == 0;
    }
    return PPS_OK;
}

uint64_t pass_held_elems(const pass_cx *cx, uint32_t param)
{
    uint64_t elems = ir_param_elems(&cx->program->graph->params[param]);
    for (int i = 0; i < PLAN_MAX_CUTS; i++)
        if (cx->param_cuts[param][i].teams != IR_NONE)
            elems /= cx->set->teams[cx->param_cuts[param][i].teams].size;
    return elems;
}
