/* SPDX-License-Identifier: Apache-2.0
 *
 * tensor.c: `shard F on DEVICES as tensor sequence BOOL stream S`: which ranks are a team. The
 * graph has the sizes of one rank already (regions.c); here device groups get their teams, and
 * parameters the dimension along which a team's ranks share them out.
 *
 * A team's ranks work on the same batch rows, so a group has as many replicas as teams. Rank i of
 * one group feeds rank i of the next: they must be of the same replica, and where positions are
 * shared, of the same index in their teams.
 */
#include "passes/pass.h"

#include <string.h>

static bool is_tensor(const ir_program *p, uint32_t i)
{
    return p->kinds[i] == PPS_DIR_SHARD && p->directives[i].as[0] == 't';
}

static pps_status set_group(pass_cx *cx, uint32_t i, uint32_t c)
{
    const ir_directive *s = &cx->program->directives[i];
    dag_group *group = &cx->dag->groups[cx->dag->chunks[c].group];
    uint32_t teams;
    PPS_TRY(pass_teams_given(cx, s, c, &teams));
    if (group->tensor == IR_NONE)
        group->n_replicas /= cx->set->teams[teams].size;
    group->tensor = teams;
    cx->group_tensor[cx->dag->chunks[c].group] = i;
    group->tensor_splits_sequence = s->sequence;
    return PPS_OK;
}

/* Add `more` to `*teams` (IR_NONE: none so far), unless they are among them: a parameter's users
 * may be on several groups. */
static pps_status join_teams(pass_cx *cx, uint32_t more, uint32_t *teams)
{
    const plan_set *set = cx->set;
    if (*teams == IR_NONE) {
        *teams = more;
        return PPS_OK;
    }
    const plan_teams *t = &set->teams[*teams];
    for (uint32_t i = 0; i < t->n_ranks; i++)
        if (set->team_ranks[t->ranks + i] == set->team_ranks[set->teams[more].ranks])
            return PPS_OK;
    return pass_teams_merge(cx, *teams, more, teams);
}

static pps_status cut_params(pass_cx *cx)
{
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    PASS_ALLOC(cx->param_cuts, cx->scratch, g->n_params);
    for (uint32_t i = 0; i < g->n_params; i++)
        for (int k = 0; k < PLAN_MAX_CUTS; k++)
            cx->param_cuts[i][k] = (plan_cut){.teams = IR_NONE};
    for (uint32_t c = 0; c < g->n_chunks && cx->param_shares != NULL; c++)
        for (uint32_t i = 0; i < g->chunks[c].params.n; i++) {
            uint32_t q = g->lists[g->chunks[c].params.begin + i];
            const pass_param_share *share = &cx->param_shares[q];
            plan_cut *cut = &cx->param_cuts[q][PASS_CUT_TENSOR];
            if (!share->cut)
                continue;
            *cut = (plan_cut){.teams = cut->teams, .dim = share->dim, .blocks = share->blocks};
            PPS_TRY(join_teams(cx, d->groups[d->chunks[c].group].tensor, &cut->teams));
        }
    return PPS_OK;
}

bool pass_team_sums(const pass_cx *cx, uint32_t group, uint32_t param)
{
    const dag_group *k = &cx->dag->groups[group];
    return k->tensor != IR_NONE && cx->set->teams[k->tensor].size == k->n_ranks &&
           cx->param_shares[param].parts;
}

/* ---- groups that feed each other ---------------------------------------------------------------
 */

typedef struct roles {
    uint32_t *replica, *part;
    bool *speaks;
} roles;

static pps_status find_roles(pass_cx *cx, roles **ret)
{
    const dag *d = cx->dag;
    PASS_ALLOC(*ret, cx->phase, d->n_groups);
    for (uint32_t g = 0; g < d->n_groups; g++) {
        roles *r = &(*ret)[g];
        PASS_ALLOC(r->replica, cx->phase, d->groups[g].n_ranks);
        PASS_ALLOC(r->part, cx->phase, d->groups[g].n_ranks);
        PASS_ALLOC(r->speaks, cx->phase, d->groups[g].n_ranks);
        PPS_TRY(pass_rank_roles(cx, g, r->replica, r->part, r->speaks));
    }
    return PPS_OK;
}

/* Index in its tensor team of the group's k-th rank. */
static uint32_t index_of(const pass_cx *cx, uint32_t group, uint32_t k)
{
    const dag_group *g = &cx->dag->groups[group];
    const plan_teams *t = &cx->set->teams[g->tensor];
    uint32_t rank = cx->dag->group_ranks[g->ranks + k], at = 0;
    while (at < t->n_ranks && cx->set->team_ranks[t->ranks + at] != rank)
        at++;
    return at % t->size;
}

static pps_status check_link(pass_cx *cx, const roles *r, uint32_t src, uint32_t dst)
{
    const dag *d = cx->dag;
    const ir_program *p = cx->program;
    uint32_t a = d->chunks[src].group, b = d->chunks[dst].group;
    const dag_group *from = &d->groups[a], *to = &d->groups[b];
    bool same = true, shared = from->tensor != IR_NONE && to->tensor != IR_NONE &&
                               from->tensor_splits_sequence && to->tensor_splits_sequence;
    if (a == b || (from->tensor == IR_NONE && to->tensor == IR_NONE) ||
        from->n_ranks != to->n_ranks) /* other sizes: the dag pass says so */
        return PPS_OK;
    for (uint32_t k = 0; k < from->n_ranks; k++)
        same &= r[a].replica[k] == r[b].replica[k] && r[a].part[k] == r[b].part[k] &&
                (!shared || index_of(cx, a, k) == index_of(cx, b, k));
    if (same && (!shared || cx->set->teams[from->tensor].size == cx->set->teams[to->tensor].size))
        return PPS_OK;
    uint32_t which = cx->group_tensor[to->tensor != IR_NONE ? b : a];
    const ir_directive *s = &p->directives[which];
    char mine[128];
    pass_devices_text(d->group_ranks + to->ranks, to->n_ranks, mine, sizeof mine);
    pps_diag *diag =
        pass_diag(cx, s, s->devices.span, 438,
                  "the ranks of %s do not share tensors as those that feed them", mine);
    pps_diag_also(diag, from->span, "these feed them");
    pps_diag_also(diag, to->span, "placed here");
    pps_diag_note(diag, "rank i of one stage feeds rank i of the next: the same rows, and the same "
                        "share of them");
    pps_diag_help(diag, "give every stage `shard .. as tensor` with teams in the same order");
    return pps_diag_done(diag);
}

static pps_status check_links(pass_cx *cx)
{
    const ir_graph *g = cx->program->graph;
    roles *r;
    PPS_TRY(find_roles(cx, &r));
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        uint32_t base = c / cx->dag->n_model_chunks * cx->dag->n_model_chunks;
        for (uint32_t k = 0; k < g->chunks[c].in.n; k++) {
            const ir_tensor *t = &g->tensors[g->lists[g->chunks[c].in.begin + k]];
            PPS_TRY(check_link(cx, r, base + g->op_chunk[t->op], c));
        }
    }
    return PPS_OK;
}

pps_status pass_tensor(pass_cx *cx)
{
    ir_program *p = cx->program;
    bool any = false;
    PASS_ALLOC(cx->group_tensor, cx->scratch, cx->dag->n_groups);
    for (uint32_t i = 0; i < p->n_directives; i++)
        for (uint32_t c = 0; c < p->graph->n_chunks && is_tensor(p, i); c++) {
            pass_match m;
            bool means;
            if (!pass_match_chunk(cx, &p->directives[i].filter, c, &m))
                continue;
            PPS_TRY(pass_match_class(cx, &p->directives[i], m.mb, c, &means));
            if (!means)
                continue;
            PPS_TRY(set_group(cx, i, c));
            any = p->directives[i].applied = true;
        }
    PPS_TRY(cut_params(cx));
    return any ? check_links(cx) : PPS_OK;
}
