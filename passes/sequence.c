/* SPDX-License-Identifier: Apache-2.0
 *
 * sequence.c: `shard F on DEVICES as sequence stream S`: which ranks share sequences. The graph
 * computes with their parts already (rounds.c); here device groups get their teams, and chunks the
 * directive whose stream the keys of their rounds travel on.
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

static pps_status share_chunk(pass_cx *cx, uint32_t i, uint32_t c)
{
    ir_program *p = cx->program;
    const ir_directive *s = &p->directives[i];
    dag_chunk *chunks = cx->dag->chunks;
    dag_group *group = &cx->dag->groups[chunks[c].group];
    uint32_t teams;
    PPS_TRY(pass_teams_given(cx, s, c, &teams));
    if (chunks[c].sequence != IR_NONE) {
        char tags[128];
        pps_diag *diag =
            pass_diag(cx, s, s->source->span, 411, "region %s is sharded twice",
                      ir_tagset_text(p->graph, p->graph->chunks[c].tagset, tags, sizeof tags));
        pps_diag_also(diag, p->directives[chunks[c].sequence].source->span, "first sharded here");
        return pps_diag_done(diag);
    }
    if (group->sequence != IR_NONE && group->sequence != teams) {
        uint32_t other = 0;
        while (chunks[other].sequence == IR_NONE || chunks[other].group != chunks[c].group)
            other++;
        pps_diag *diag =
            pass_diag(cx, s, s->devices.span, 431, "other ranks share the sequences here");
        pps_diag_also(diag, p->directives[chunks[other].sequence].devices.span,
                      "than for another region of the same devices");
        return pps_diag_done(diag);
    }
    chunks[c].sequence = i;
    if (group->sequence == IR_NONE)
        group->n_replicas /= cx->set->teams[teams].size;
    group->sequence = teams;
    return PPS_OK;
}

static pps_status share(pass_cx *cx, uint32_t i)
{
    ir_program *p = cx->program;
    ir_directive *s = &p->directives[i];
    char text[256];
    for (uint32_t c = 0; c < p->graph->n_chunks; c++) {
        pass_match m;
        if (!pass_match_chunk(cx, &s->filter, c, &m))
            continue;
        bool meant;
        if (m.pass != NULL || m.comm != NULL)
            return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 419,
                                           "shard names regions of the model, not passes: %s",
                                           pass_filter_text(cx, &s->filter, text, sizeof text)));
        PPS_TRY(pass_match_class(cx, s, m.mb, c, &meant));
        if (!meant)
            continue;
        PPS_TRY(share_chunk(cx, i, c));
        s->applied = true;
    }
    if (!s->applied)
        return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206,
                                       "%s matches nothing to shard",
                                       pass_filter_text(cx, &s->filter, text, sizeof text)));
    return PPS_OK;
}

/* No attention of theirs may be left out: its ranks would have parts of sequences all the same. */
static pps_status check_attention(pass_cx *cx)
{
    const ir_program *p = cx->program;
    const dag_chunk *chunks = cx->dag->chunks;
    for (uint32_t c = 0; c < p->graph->n_chunks; c++) {
        const ir_op *op = attention_of(p->graph, &p->graph->chunks[c]);
        if (op == NULL || chunks[c].sequence != IR_NONE ||
            cx->dag->groups[chunks[c].group].sequence == IR_NONE)
            continue;
        uint32_t by = 0; /* a chunk of these devices that a directive names */
        while (chunks[by].sequence == IR_NONE || chunks[by].group != chunks[c].group)
            by++;
        const ir_directive *s = &p->directives[chunks[by].sequence];
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
static pps_status check_groups(pass_cx *cx, uint32_t by)
{
    const dag *d = cx->dag;
    const ir_directive *s = &cx->program->directives[by];
    uint32_t *first[2], *own[2], model = 0; /* the group that the others are compared with */
    bool *speaks;
    PASS_ALLOC(speaks, cx->phase, d->n_ranks);
    for (int k = 0; k < 2; k++) {
        PASS_ALLOC(first[k], cx->phase, d->n_ranks);
        PASS_ALLOC(own[k], cx->phase, d->n_ranks);
    }
    while (d->groups[model].sequence == IR_NONE)
        model++;
    PPS_TRY(pass_rank_roles(cx, model, first[0], first[1], speaks));
    for (uint32_t g = 0; g < d->n_groups; g++) {
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
    uint32_t first = IR_NONE; /* directive */
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] != PPS_DIR_SHARD || p->directives[i].as[0] != 's')
            continue;
        first = first == IR_NONE ? i : first;
        PPS_TRY(share(cx, i));
    }
    if (first == IR_NONE)
        return PPS_OK;
    PPS_TRY(check_attention(cx));
    return check_groups(cx, first);
}
