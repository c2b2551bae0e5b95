/* SPDX-License-Identifier: Apache-2.0
 *
 * sequence.c: `shard F on DEVICES as sequence stream S`: which ranks share sequences. The graph
 * computes with their parts already (rounds.c); here device groups get their teams, and rounds the
 * directive whose stream their keys travel on.
 *
 * A region that is not attention works on the positions it gets, so the directive is about whole
 * device groups: F names the attention of DEVICES, all of it. Groups that hand data to each other
 * share it out alike, rank by rank; so all groups do.
 */
#include "passes/pass.h"

#include <string.h>

static const ir_op *attention_of(const ir_graph *g, const ir_chunk *c)
{
    for (uint32_t i = 0; i < c->ops.n; i++) {
        const ir_op *op = &g->ops[g->lists[c->ops.begin + i]];
        if (op->kind == IR_ATTENTION_PART)
            return op;
    }
    return NULL;
}

/* The round's keys travel because of directive `i`. */
static void set_directive(ir_graph *g, const ir_op *op, uint32_t i)
{
    for (int k = 1; k <= 2; k++)
        if (g->tensors[op->in[k]].border == IR_BORDER_SHIFT)
            g->tensors[op->in[k]].directive = i;
}

static pps_status share_chunk(pass_cx *cx, uint32_t i, uint32_t c, uint32_t *sharer)
{
    ir_program *p = cx->program;
    const ir_directive *s = &p->directives[i];
    dag_group *group = &cx->dag->groups[cx->dag->chunks[c].group];
    uint32_t teams;
    PPS_TRY(pass_teams_given(cx, s, c, &teams));
    if (sharer[c] != IR_NONE) {
        char tags[128];
        pps_diag *diag =
            pass_diag(cx, s, s->source->span, 411, "region %s is sharded twice",
                      ir_tagset_text(p->graph, p->graph->chunks[c].tagset, tags, sizeof tags));
        pps_diag_also(diag, p->directives[sharer[c]].source->span, "first sharded here");
        return pps_diag_done(diag);
    }
    if (group->sequence != IR_NONE && group->sequence != teams) {
        uint32_t other = 0;
        while (sharer[other] == IR_NONE || cx->dag->chunks[other].group != cx->dag->chunks[c].group)
            other++;
        pps_diag *diag =
            pass_diag(cx, s, s->devices.span, 431, "other ranks share the sequences here");
        pps_diag_also(diag, p->directives[sharer[other]].devices.span,
                      "than for another region of the same devices");
        return pps_diag_done(diag);
    }
    sharer[c] = i;
    group->sequence = teams;
    group->n_replicas = group->n_ranks / cx->set->teams[teams].size;
    const ir_op *attention = attention_of(p->graph, &p->graph->chunks[c]);
    if (attention != NULL)
        set_directive(p->graph, attention, i);
    return PPS_OK;
}

static pps_status share(pass_cx *cx, uint32_t i, uint32_t *sharer)
{
    ir_program *p = cx->program;
    ir_directive *s = &p->directives[i];
    char text[256];
    for (uint32_t c = 0; c < p->graph->n_chunks; c++) {
        pass_match m;
        if (!pass_match_chunk(cx, &s->filter, c, &m))
            continue;
        if (m.mb != NULL || m.pass != NULL || m.comm != NULL)
            return pps_diag_done(
                pass_diag(cx, s, s->source->subject_span, 419,
                          "shard names regions of the model, not microbatches or passes: %s",
                          pass_filter_text(cx, &s->filter, text, sizeof text)));
        PPS_TRY(share_chunk(cx, i, c, sharer));
        s->applied = true;
    }
    if (!s->applied)
        return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206,
                                       "%s matches nothing to shard",
                                       pass_filter_text(cx, &s->filter, text, sizeof text)));
    return PPS_OK;
}

/* No attention of theirs may be left out: its ranks would have parts of sequences all the same. */
static pps_status check_attention(pass_cx *cx, const uint32_t *sharer)
{
    const ir_program *p = cx->program;
    for (uint32_t c = 0; c < p->graph->n_chunks; c++) {
        const ir_op *op = attention_of(p->graph, &p->graph->chunks[c]);
        if (op == NULL || sharer[c] != IR_NONE)
            continue;
        uint32_t other = 0;
        while (sharer[other] == IR_NONE)
            other++;
        for (uint32_t k = 0; k < p->graph->n_chunks; k++)
            if (sharer[k] != IR_NONE && cx->dag->chunks[k].group == cx->dag->chunks[c].group)
                other = k;
        const ir_directive *s = &p->directives[sharer[other]];
        char text[256];
        pps_diag *diag = pass_diag(cx, s, s->source->subject_span, 432,
                                   "%s leaves out attention over the sequences that it divides",
                                   pass_filter_text(cx, &s->filter, text, sizeof text));
        pps_diag_also(diag, op->span, "this attention");
        return pps_diag_done(diag);
    }
    return PPS_OK;
}

/* Rank i of one group hands its rows and positions to rank i of the next. */
static pps_status check_groups(pass_cx *cx, const uint32_t *sharer)
{
    const dag *d = cx->dag;
    const ir_program *p = cx->program;
    uint32_t *first[2], *own[2], n = d->n_groups, shown = 0;
    bool *speaks;
    PASS_ALLOC(speaks, cx->phase, d->n_ranks);
    for (int k = 0; k < 2; k++) {
        PASS_ALLOC(first[k], cx->phase, d->n_ranks);
        PASS_ALLOC(own[k], cx->phase, d->n_ranks);
    }
    while (sharer[shown] == IR_NONE)
        shown++;
    uint32_t model = d->chunks[shown].group; /* the group that the others are compared with */
    PPS_TRY(pass_rank_roles(cx, model, first[0], first[1], speaks));
    for (uint32_t g = 0; g < n; g++) {
        const dag_group *group = &d->groups[g];
        bool same = group->sequence != IR_NONE;
        if (same && group->n_ranks == d->groups[model].n_ranks) {
            PPS_TRY(pass_rank_roles(cx, g, own[0], own[1], speaks));
            for (int k = 0; k < 2; k++)
                same &= memcmp(own[k], first[k], group->n_ranks * sizeof *own[k]) == 0;
        }
        if (same)
            continue;
        char mine[128];
        const ir_directive *s = &p->directives[sharer[shown]];
        pass_devices_text(d->group_ranks + group->ranks, group->n_ranks, mine, sizeof mine);
        pps_diag *diag = pass_diag(cx, s, s->devices.span, 431,
                                   "these ranks share sequences otherwise than those of %s", mine);
        pps_diag_also(diag, group->span,
                      group->sequence == IR_NONE ? "here nothing shares them" : "placed here");
        pps_diag_note(diag, "rank i of one stage feeds rank i of the next: the same rows and "
                            "positions");
        pps_diag_help(diag, "add `shard .. on %s as sequence`, with teams in the same order", mine);
        return pps_diag_done(diag);
    }
    return PPS_OK;
}

pps_status pass_sequence(pass_cx *cx)
{
    const ir_program *p = cx->program;
    uint32_t *sharer; /* [n_chunks] directive, or IR_NONE */
    bool any = false;
    PASS_ALLOC(sharer, cx->phase, p->graph->n_chunks);
    memset(sharer, 0xff, p->graph->n_chunks * sizeof *sharer);
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] != PPS_DIR_SHARD || p->directives[i].as[0] != 's')
            continue;
        any = true;
        PPS_TRY(share(cx, i, sharer));
    }
    if (!any)
        return PPS_OK;
    PPS_TRY(check_attention(cx, sharer));
    return check_groups(cx, sharer);
}
