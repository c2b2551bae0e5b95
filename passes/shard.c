/* SPDX-License-Identifier: Apache-2.0
 *
 * shard.c: `shard F on DEVICES as expert stream S`: the experts of a region divided over its group,
 * or inside each of the teams that nested lists name, rows exchanged before and after. Marks chunks
 * and cuts parameters; the dag pass puts the exchanges on the links that carry expert rows,
 * whichever side of a transfer they lie on. Ranks with the same index in their teams hold the same
 * experts: their gradients are summed by the region's `replicate` (buckets.c, teams.c).
 *
 *   place {} on [0, 1, 2, 3]                  rank   0          1          2          3
 *   shard {EP: *} on [[0, 1], [2, 3]]         has    e0 e1      e2 e3      e0 e1      e2 e3
 *                                             rows   |<- exchange ->|      |<- exchange ->|
 *                                             sums   e0 e1 of 0 and 2,     e2 e3 of 1 and 3
 *
 * Runs after replicate, so it can also say which parameters nobody keeps equal.
 */
#include "passes/pass.h"

/* seat[rank] in teams of a directive, plus one; 0: it is in none. */
static pps_status index_of(pass_cx *cx, uint32_t teams, uint32_t **ret)
{
    const plan_set *set = cx->set;
    const plan_teams *t = &set->teams[teams];
    PASS_ALLOC(*ret, cx->phase, cx->dag->n_ranks);
    for (uint32_t i = 0; i < t->n_ranks; i++)
        (*ret)[set->team_ranks[t->ranks + i]] = i % t->size + 1;
    return PPS_OK;
}

/* Over the same teams as before; or, for a region that lives on several groups, over theirs too. */
static pps_status cut_param(pass_cx *cx, const ir_directive *s, uint32_t param, uint32_t teams)
{
    plan_cut *cut = &cx->param_cuts[param][PASS_CUT_EXPERT];
    const plan_teams *t = cx->set->teams;
    uint32_t both;
    if (cut->teams == IR_NONE) {
        *cut = (plan_cut){.teams = teams, .dim = 0, .blocks = 1};
        return PPS_OK;
    }
    if (t[cut->teams].size == t[teams].size) {
        PPS_TRY(pass_teams_merge(cx, cut->teams, teams, &both));
        if (both == IR_NONE)
            return pps_diag_done(pass_diag(cx, s, s->devices.span, 421,
                                           "'%s' is shared out in other teams elsewhere",
                                           cx->program->graph->params[param].name));
        cut->teams = both;
        return PPS_OK;
    }
    return pps_diag_done(pass_diag(cx, s, s->devices.span, 421,
                                   "'%s' is shared out over %u devices here, and over %u elsewhere",
                                   cx->program->graph->params[param].name, t[teams].size,
                                   t[cut->teams].size));
}

static pps_status bad_team(pass_cx *cx, const ir_directive *s, const uint32_t *team, uint32_t size,
                           int code, const char *what, const char *help)
{
    char ranks[128];
    pps_diag *diag = pass_diag(cx, s, s->devices.span, code, "the team %s %s",
                               pass_devices_text(team, size, ranks, sizeof ranks), what);
    pps_diag_help(diag, "%s", help);
    return pps_diag_done(diag);
}

/* A team's ranks are of different replicas, in the order of their batch rows (an expert's rows lie
 * in that order), and hold the same part of what tensor and sequence teams share out. */
static pps_status check_teams(pass_cx *cx, const ir_directive *s, uint32_t group, uint32_t teams)
{
    const plan_set *set = cx->set;
    const plan_teams *t = &set->teams[teams];
    const dag_group *k = &cx->dag->groups[group];
    uint32_t *place, *with[2] = {NULL, NULL};
    PPS_TRY(index_of(cx, group, &place));
    if (k->tensor != IR_NONE)
        PPS_TRY(index_of(cx, k->tensor, &with[0]));
    if (k->sequence != IR_NONE)
        PPS_TRY(index_of(cx, k->sequence, &with[1]));
    for (uint32_t i = 0; i < t->n_ranks; i++) {
        uint32_t first = i - i % t->size;
        const uint32_t *team = set->team_ranks + t->ranks + first;
        uint32_t rank = set->team_ranks[t->ranks + i];
        if (i > first && place[rank] < place[set->team_ranks[t->ranks + i - 1]])
            return bad_team(cx, s, team, t->size, 428,
                            "is not in the order in which its devices are placed",
                            "list each team's devices in the order of `place`");
        for (int w = 0; w < 2; w++)
            if (with[w] != NULL && with[w][rank] != with[w][team[0]])
                return bad_team(cx, s, team, t->size, 429,
                                w == 0 ? "has ranks of different places in their tensor teams"
                                       : "has ranks of different places in their sequence teams",
                                "experts are shared out over replicas: take the ranks that have "
                                "the same place in their teams");
    }
    return PPS_OK;
}

/* Experts that are divided over several ranks divide evenly, and their rows cross the region's
 * border, or there is nothing to exchange. */
static pps_status check_experts(pass_cx *cx, const ir_directive *s, uint32_t c, uint32_t ep,
                                const ir_op *experts)
{
    const ir_graph *g = cx->program->graph;
    if (experts->attrs.experts % ep != 0) {
        pps_diag *diag =
            pass_diag(cx, s, s->devices.span, 421, "%u experts do not divide over %u devices",
                      experts->attrs.experts, ep);
        pps_diag_also(diag, experts->span, "the experts");
        return pps_diag_done(diag);
    }
    ir_id row_sides[2] = {experts->in[0], experts->out[0]};
    const ir_chunk *chunk = &g->chunks[c];
    for (int side = 0; side < 2; side++) {
        ir_range list = side == 0 ? chunk->in : chunk->out;
        bool crosses = false;
        for (uint32_t k = 0; k < list.n; k++)
            crosses |= g->lists[list.begin + k] == row_sides[side];
        if (!crosses) {
            pps_diag *diag = pass_diag(cx, s, s->source->subject_span, 423,
                                       "the experts share their region with other work");
            pps_diag_also(diag, experts->span, "these experts");
            pps_diag_help(diag, "give them a region of their own: `annotate EP { ... }` around "
                                "experts_mlp, and filter on EP");
            return pps_diag_done(diag);
        }
    }
    return PPS_OK;
}

static bool is_expert(const ir_op *op)
{
    return op->kind == IR_EXPERTS;
}

static pps_status shard_chunk(pass_cx *cx, ir_directive *s, uint32_t i, uint32_t c)
{
    dag *d = cx->dag;
    ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    const ir_chunk *chunk = &g->chunks[c];
    const uint32_t *ops = g->lists + chunk->ops.begin;
    uint32_t n_experts = 0, teams, ep;
    for (uint32_t k = 0; k < chunk->ops.n; k++)
        n_experts += is_expert(&g->ops[ops[k]]);
    if (n_experts == 0)
        return PPS_OK;
    PPS_TRY(pass_teams_given(cx, s, c, &teams));
    if (d->chunks[c].shard != IR_NONE) {
        char tags[128];
        pps_diag *diag = pass_diag(cx, s, s->source->span, 411, "region %s is sharded twice",
                                   ir_tagset_text(g, g->chunks[c].tagset, tags, sizeof tags));
        pps_diag_also(diag, p->directives[d->chunks[c].shard].source->span, "first sharded here");
        return pps_diag_done(diag);
    }
    PPS_TRY(check_teams(cx, s, d->chunks[c].group, teams));
    d->chunks[c].shard = i;
    s->applied = true;
    ep = cx->set->teams[teams].size;
    if (ep == 1)
        return PPS_OK; /* for its capacity alone */
    for (uint32_t k = 0; k < chunk->ops.n; k++)
        if (is_expert(&g->ops[ops[k]]))
            PPS_TRY(check_experts(cx, s, c, ep, &g->ops[ops[k]]));
    d->chunks[c].ep = ep;
    d->chunks[c].ep_teams = teams;
    for (uint32_t k = 0; k < chunk->params.n; k++) {
        uint32_t q = g->lists[chunk->params.begin + k];
        if (g->params[q].flags & IR_PARAM_EXPERT)
            PPS_TRY(cut_param(cx, s, q, teams));
    }
    return PPS_OK;
}

/* A region that lives on several groups shares its experts out on all of them. */
static pps_status check_everywhere(pass_cx *cx)
{
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    for (uint32_t c = 0; c < g->n_chunks; c++)
        for (uint32_t i = 0; i < g->chunks[c].params.n && d->chunks[c].ep == 1; i++) {
            uint32_t q = g->lists[g->chunks[c].params.begin + i];
            if ((g->params[q].flags & IR_PARAM_EXPERT) == 0 ||
                cx->param_cuts[q][0].teams == IR_NONE || d->chunks[c].place == IR_NONE)
                continue;
            const ir_directive *place = &cx->program->directives[d->chunks[c].place];
            pps_diag *diag =
                pass_diag(cx, place, place->source->span, 421,
                          "'%s' is shared out over %u devices elsewhere, but not here",
                          g->params[q].name, cx->set->teams[cx->param_cuts[q][0].teams].size);
            pps_diag_also(diag, g->params[q].span, "the experts");
            return pps_diag_done(diag);
        }
    return PPS_OK;
}

/* On a group of several ranks every parameter is either reduced or, each slice, of one owner. */
static pps_status check_shared(pass_cx *cx)
{
    dag *d = cx->dag;
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        const dag_chunk *k = &d->chunks[c];
        if (d->groups[k->group].n_ranks < 2 || k->replicate != IR_NONE)
            continue;
        for (uint32_t i = 0; i < g->chunks[c].params.n; i++) {
            uint32_t id = g->lists[g->chunks[c].params.begin + i], teams;
            const ir_param *q = &g->params[id];
            PPS_TRY(pass_teams_gradients(cx, &k->group, 1, id, &teams));
            if (teams == IR_NONE || pass_team_sums(cx, k->group, id))
                continue;
            char tags[128];
            const ir_directive *place = &p->directives[k->place];
            pps_diag *diag =
                pass_diag(cx, place, place->source->span, 406,
                          "%s is on %u devices, but nothing keeps its parameters equal",
                          ir_tagset_text(g, g->chunks[c].tagset, tags, sizeof tags),
                          d->groups[k->group].n_ranks);
            pps_diag_also(diag, q->span, "'%s' is made here", q->name);
            pps_diag_help(diag, "add `replicate %s on ...`", tags);
            return pps_diag_done(diag);
        }
    }
    return PPS_OK;
}

pps_status pass_shard(pass_cx *cx)
{
    ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    char text[256];
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] != PPS_DIR_SHARD || p->directives[i].as[0] != 'e')
            continue;
        ir_directive *s = &p->directives[i];
        uint32_t matched = 0;
        for (uint32_t c = 0; c < g->n_chunks; c++) {
            pass_match m;
            if (!pass_match_chunk(cx, &s->filter, c, &m))
                continue;
            if (m.slice != NULL || m.pass != NULL || m.comm != NULL)
                return pps_diag_done(
                    pass_diag(cx, s, s->source->subject_span, 419,
                              "shard names regions and microbatches, not passes: %s",
                              pass_filter_text(cx, &s->filter, text, sizeof text)));
            bool means;
            PPS_TRY(pass_match_class(cx, s, m.mb, c, &means));
            if (!means)
                continue;
            matched++;
            PPS_TRY(shard_chunk(cx, s, i, c));
        }
        pass_filter_text(cx, &s->filter, text, sizeof text);
        if (matched == 0)
            return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206,
                                           "%s matches nothing to shard", text));
        if (s->devices.n == s->devices.n_groups && s->capacity <= 0.0)
            return pps_diag_done(pass_diag(cx, s, s->devices.span, 410,
                                           s->devices.n == 1
                                               ? "shard on one device has no effect"
                                               : "shard over teams of one device has no effect"));
        if (!s->applied)
            return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 410,
                                           "shard has no effect: %s has no experts", text));
    }
    PPS_TRY(check_everywhere(cx));
    PPS_TRY(check_shared(cx));
    return pass_capacity(cx);
}
