/* SPDX-License-Identifier: Apache-2.0
 *
 * split.c: `split F by TAG into N`: the whole training graph, N times, each on its share of the
 * batch.
 *
 * The graph repeats as runs of N nodes, so splitting costs nothing here; it decides N and the tag
 * that filters use for the copies (MB where nothing splits).
 */
#include "passes/pass.h"

#include <string.h>

pps_status pass_split(pass_cx *cx)
{
    dag *d = cx->dag;
    ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    d->n_mb = 1;
    d->mb_tag = "MB";
    d->split = IR_NONE;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] != PPS_DIR_SPLIT)
            continue;
        ir_directive *s = &p->directives[i];
        if (d->split != IR_NONE) {
            const ir_directive *first = &p->directives[d->split];
            pps_diag *diag =
                strcmp(first->tag, s->tag) == 0
                    ? pass_diag(cx, s, s->source->span, 405, "tag %s is split twice", s->tag)
                    : pass_diag(cx, s, s->source->span, 414,
                                "one dimension can be split, and %s already is", first->tag);
            pps_diag_also(diag, first->source->span, "first split here into %u", first->n);
            return pps_diag_done(diag);
        }
        d->split = i;
        d->n_mb = s->n;
        d->mb_tag = s->tag;
        s->applied = true;
    }
    if (d->split == IR_NONE)
        return PPS_OK;

    ir_directive *s = &p->directives[d->split];
    uint32_t matched = 0, missed = IR_NONE;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        pass_match m;
        bool yes = pass_match_chunk(cx, &s->filter, c, &m) && m.pass == NULL && m.comm == NULL &&
                   m.mb == NULL;
        matched += yes;
        if (!yes && missed == IR_NONE)
            missed = c;
    }
    char text[256];
    if (matched == 0)
        return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206,
                                       "%s matches nothing to split",
                                       pass_filter_text(cx, &s->filter, text, sizeof text)));
    if (missed != IR_NONE) {
        char tags[128];
        pps_diag *diag = pass_diag(cx, s, s->source->subject_span, 207,
                                   "split must cover the whole model, and %s leaves out region %s",
                                   pass_filter_text(cx, &s->filter, text, sizeof text),
                                   ir_tagset_text(g, g->chunks[missed].tagset, tags, sizeof tags));
        pps_diag_also(diag, g->chunks[missed].span, "not matched");
        pps_diag_help(diag, "write `split {} by %s into %u`", s->tag, s->n);
        return pps_diag_done(diag);
    }
    for (uint32_t k = 0; k < g->n_data; k++) {
        uint32_t rows = g->data[k].dims[0];
        if (rows % s->n != 0) {
            pps_diag *diag = pass_diag(cx, s, s->source->span, 210,
                                       "cannot split tag '%s' of %u rows into %u equal parts",
                                       s->tag, rows, s->n);
            pps_diag_also(diag, g->data[k].span, "the batch of %u rows comes from here", rows);
            return pps_diag_done(diag);
        }
    }
    return PPS_OK;
}
