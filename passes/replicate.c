/* SPDX-License-Identifier: Apache-2.0
 *
 * replicate.c: `replicate F on DEVICES reduce S gather S zero N bucket MIB every K prefetch D`:
 * data parallelism. Marks which chunks' gradients are summed over their group. The dag pass forms
 * the buckets with their reductions; what `zero` adds per window of microbatches is the zero
 * pass's.
 */
#include "passes/pass.h"

#include <string.h>

/* Directives that act on a placed region: it must be on exactly these devices, teams or not. */
pps_status pass_check_devices(pass_cx *cx, const ir_directive *s, uint32_t chunk)
{
    dag *d = cx->dag;
    const ir_program *p = cx->program;
    const dag_group *group = &d->groups[d->chunks[chunk].group];
    if (group->n_ranks == s->devices.n &&
        memcmp(d->group_ranks + group->ranks, p->ints + s->devices.begin,
               s->devices.n * sizeof *p->ints) == 0)
        return PPS_OK;
    char tags[128], mine[128], theirs[128];
    pps_diag *diag =
        pass_diag(cx, s, s->devices.span, 404, "%s is not placed on %s",
                  ir_tagset_text(p->graph, p->graph->chunks[chunk].tagset, tags, sizeof tags),
                  pass_devices_text(p->ints + s->devices.begin, s->devices.n, mine, sizeof mine));
    pass_devices_text(d->group_ranks + group->ranks, group->n_ranks, theirs, sizeof theirs);
    if (d->chunks[chunk].place != IR_NONE)
        pps_diag_also(diag, p->directives[d->chunks[chunk].place].source->span,
                      "it is placed on %s", theirs);
    else
        pps_diag_note(diag, "without `place` everything is on %s", theirs);
    return pps_diag_done(diag);
}

static pps_status check_clauses(pass_cx *cx, const ir_directive *s)
{
    static const struct {
        const char *word;
        uint32_t from; /* the lowest level at which it says something */
        const char *why;
    } words[] = {{"gather", 1, "below it every rank updates all parameters itself"},
                 {"every", 2, "below it gradients are reduced once, after the last microbatch"},
                 {"prefetch", 3, "below it every rank keeps all parameters"}};
    const dag *d = cx->dag;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const pps_clause *c = pps_directive_clause(s->source, words[i].word);
        if (c == NULL || s->zero >= words[i].from)
            continue;
        pps_diag *diag = pass_diag(cx, s, c->word_span, 410, "`%s` has no effect below `zero %u`",
                                   words[i].word, words[i].from);
        pps_diag_note(diag, "%s", words[i].why);
        return pps_diag_done(diag);
    }
    uint32_t n_mb = d->n_mb / d->n_slices;
    if (s->every <= n_mb)
        return PPS_OK;
    pps_diag *diag = pass_diag(cx, s, pps_directive_clause(s->source, "every")->span, 410,
                               "there are no %u microbatches to sum before a reduction", s->every);
    if (d->split != IR_NONE)
        pps_diag_also(diag, cx->program->directives[d->split].source->span, "this split makes %u",
                      n_mb);
    else
        pps_diag_note(diag, "nothing splits the batch: there is one microbatch");
    return pps_diag_done(diag);
}

pps_status pass_replicate(pass_cx *cx)
{
    dag *d = cx->dag;
    ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    char text[256];
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] != PPS_DIR_REPLICATE)
            continue;
        ir_directive *s = &p->directives[i];
        uint32_t matched = 0, params = 0;
        PPS_TRY(check_clauses(cx, s));
        for (uint32_t c = 0; c < g->n_chunks; c++) {
            pass_match m;
            if (!pass_match_chunk(cx, &s->filter, c, &m))
                continue;
            if (m.slice != NULL || m.pass != NULL || m.comm != NULL)
                return pps_diag_done(
                    pass_diag(cx, s, s->source->subject_span, 419,
                              "replicate names regions and microbatches, not passes: %s",
                              pass_filter_text(cx, &s->filter, text, sizeof text)));
            bool means;
            PPS_TRY(pass_match_class(cx, s, m.mb, c, &means));
            if (!means)
                continue;
            matched++;
            PPS_TRY(pass_check_devices(cx, s, c));
            if (d->chunks[c].replicate != IR_NONE) {
                char tags[128];
                pps_diag *diag =
                    pass_diag(cx, s, s->source->span, 409, "region %s is replicated twice",
                              ir_tagset_text(g, g->chunks[c].tagset, tags, sizeof tags));
                pps_diag_also(diag, p->directives[d->chunks[c].replicate].source->span,
                              "first replicated here");
                return pps_diag_done(diag);
            }
            d->chunks[c].replicate = i;
            params += g->chunks[c].params.n;
        }
        if (matched == 0)
            return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206,
                                           "%s matches nothing to replicate",
                                           pass_filter_text(cx, &s->filter, text, sizeof text)));
        if (s->devices.n < 2)
            return pps_diag_done(
                pass_diag(cx, s, s->devices.span, 410, "replicate on one device has no effect"));
        if (params == 0)
            return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 410,
                                           "replicate has no effect: %s has no parameters",
                                           pass_filter_text(cx, &s->filter, text, sizeof text)));
        s->applied = true;
    }
    return PPS_OK;
}
