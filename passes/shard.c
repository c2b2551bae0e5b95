/* SPDX-License-Identifier: Apache-2.0
 *
 * shard.c: `shard F on DEVICES as expert stream S`: the experts of a region divided over its group,
 * rows exchanged before and after. Marks chunks; the dag pass puts the exchanges on the links that
 * carry expert rows, whichever side of a transfer they lie on, and keeps the experts out of the
 * reductions.
 *
 * Runs after replicate, so it can also say which parameters nobody keeps equal.
 */
#include "passes/pass.h"

static pps_status check_clauses(pass_cx *cx, const ir_directive *s)
{
    const pps_clause *as = pps_directive_clause(s->source, "as");
    const pps_clause *capacity = pps_directive_clause(s->source, "capacity");
    if (s->as[0] != 'e')
        return pps_diag_done(pass_diag(cx, s, as != NULL ? as->span : s->source->span, 420,
                                       "this version shards experts: `as %s` is not available",
                                       s->as));
    if (capacity != NULL)
        return pps_diag_done(
            pass_diag(cx, s, capacity->word_span, 420,
                      "this version never drops a token: `capacity` is not available"));
    if (s->devices.n_groups > 1)
        return pps_diag_done(pass_diag(cx, s, s->devices.span, 420,
                                       "this version shards experts over the whole replica group"));
    return PPS_OK;
}

static const ir_op *experts_of(const ir_graph *g, const ir_chunk *c)
{
    for (uint32_t i = 0; i < c->ops.n; i++) {
        const ir_op *op = &g->ops[g->lists[c->ops.begin + i]];
        if (op->kind == IR_EXPERTS)
            return op;
    }
    return NULL;
}

/* Over the same teams as before; or, for a region that lives on several groups, over theirs too. */
static pps_status cut_param(pass_cx *cx, const ir_directive *s, uint32_t param, uint32_t teams)
{
    plan_cut *cut = &cx->param_cuts[param][0];
    const plan_teams *t = cx->set->teams;
    if (cut->teams == IR_NONE) {
        *cut = (plan_cut){.teams = teams, .dim = 0};
        return PPS_OK;
    }
    if (t[cut->teams].size == t[teams].size)
        return pass_teams_merge(cx, cut->teams, teams, &cut->teams);
    return pps_diag_done(pass_diag(cx, s, s->devices.span, 421,
                                   "'%s' is shared out over %u devices here, and over %u elsewhere",
                                   cx->program->graph->params[param].name, t[teams].size,
                                   t[cut->teams].size));
}

static pps_status shard_chunk(pass_cx *cx, ir_directive *s, uint32_t i, uint32_t c,
                              const ir_op *experts)
{
    dag *d = cx->dag;
    ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    uint32_t teams;
    PPS_TRY(pass_teams_given(cx, s, c, &teams));
    if (d->chunks[c].shard != IR_NONE) {
        char tags[128];
        pps_diag *diag = pass_diag(cx, s, s->source->span, 411, "region %s is sharded twice",
                                   ir_tagset_text(g, g->chunks[c].tagset, tags, sizeof tags));
        pps_diag_also(diag, p->directives[d->chunks[c].shard].source->span, "first sharded here");
        return pps_diag_done(diag);
    }
    if (experts->attrs.experts % s->devices.n != 0) {
        pps_diag *diag =
            pass_diag(cx, s, s->devices.span, 421, "%u experts do not divide over %u devices",
                      experts->attrs.experts, s->devices.n);
        pps_diag_also(diag, experts->span, "the experts");
        return pps_diag_done(diag);
    }
    /* rows must cross the region's border, or there is nothing to exchange */
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
    d->chunks[c].shard = i;
    d->chunks[c].ep = cx->set->teams[teams].size;
    d->chunks[c].ep_teams = teams;
    for (uint32_t k = 0; k < chunk->params.n; k++) {
        uint32_t q = g->lists[chunk->params.begin + k];
        if (g->params[q].flags & IR_PARAM_EXPERT)
            PPS_TRY(cut_param(cx, s, q, teams));
    }
    s->applied = true;
    return PPS_OK;
}

/* On a group of several ranks every parameter is either reduced or an expert's with one owner. */
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
            if (teams == IR_NONE)
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
    PASS_ALLOC(cx->param_cuts, cx->scratch, g->n_params);
    for (uint32_t i = 0; i < g->n_params; i++)
        for (int k = 0; k < PLAN_MAX_CUTS; k++)
            cx->param_cuts[i][k] = (plan_cut){.teams = IR_NONE};
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] == PPS_DIR_RECOMPUTE || p->kinds[i] == PPS_DIR_OFFLOAD) {
            const ir_directive *s = &p->directives[i];
            return pps_diag_done(
                pass_diag(cx, s, s->source->span, 420,
                          "this version keeps all activations: `%s` is not available",
                          pps_directive_word(s->source->kind)));
        }
        if (p->kinds[i] != PPS_DIR_SHARD)
            continue;
        ir_directive *s = &p->directives[i];
        uint32_t matched = 0;
        PPS_TRY(check_clauses(cx, s));
        for (uint32_t c = 0; c < g->n_chunks; c++) {
            pass_match m;
            if (!pass_match_chunk(cx, &s->filter, c, &m))
                continue;
            if (m.pass != NULL || m.comm != NULL)
                return pps_diag_done(
                    pass_diag(cx, s, s->source->subject_span, 419,
                              "shard names regions and microbatches, not passes: %s",
                              pass_filter_text(cx, &s->filter, text, sizeof text)));
            bool means;
            PPS_TRY(pass_match_class(cx, s, m.mb, c, &means));
            if (!means)
                continue;
            matched++;
            const ir_op *experts = experts_of(g, &g->chunks[c]);
            if (experts != NULL && s->devices.n > 1)
                PPS_TRY(shard_chunk(cx, s, i, c, experts));
        }
        pass_filter_text(cx, &s->filter, text, sizeof text);
        if (matched == 0)
            return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206,
                                           "%s matches nothing to shard", text));
        if (s->devices.n < 2)
            return pps_diag_done(
                pass_diag(cx, s, s->devices.span, 410, "shard on one device has no effect"));
        if (!s->applied)
            return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 410,
                                           "shard has no effect: %s has no experts", text));
    }
    return check_shared(cx);
}
