/* SPDX-License-Identifier: Apache-2.0
 *
 * keep.c: `recompute F`: which chunks, in which microbatches, drop what their forward pass would
 * keep for their backward pass and make it again there. Marks (chunk, microbatch); what there is to
 * drop, and the programs that do without it, are the layout pass's, which also says whether a
 * directive had any effect.
 */
#include "passes/pass.h"

#include <string.h>

static pps_status check_terms(pass_cx *cx, const ir_directive *s, const pass_match *m)
{
    const char *word = pps_directive_word(s->source->kind);
    const dag *d = cx->dag;
    if (m->comm != NULL)
        return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 419,
                                       "%s names regions and microbatches, not transfers", word));
    if (m->pass != NULL && m->pass->pass != PPS_PASS_F) {
        pps_diag *diag =
            pass_diag(cx, s, s->source->subject_span, 419,
                      "%s is about what F keeps: it goes with PASS: F, or without", word);
        pps_diag_note(diag, "what B, BI and BW make is used by the next of them, or sent");
        return pps_diag_done(diag);
    }
    uint32_t n = m->mb != NULL && m->mb->kind == PPS_TERM_SET ? m->mb->n : 0;
    if (n == 0 || cx->program->ints[m->mb->begin + n - 1] < d->n_mb)
        return PPS_OK;
    pps_diag *diag = pass_diag(cx, s, s->source->subject_span, 205, "microbatch %u does not exist",
                               cx->program->ints[m->mb->begin + n - 1]);
    if (d->split != IR_NONE)
        pps_diag_also(diag, cx->program->directives[d->split].source->span,
                      "this split makes microbatches 0 to %u", d->n_mb - 1);
    else
        pps_diag_note(diag, "nothing splits the batch: there is one microbatch, 0");
    return pps_diag_done(diag);
}

static pps_status keep_chunk(pass_cx *cx, uint32_t i, uint32_t c, const pass_match *m)
{
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    dag *d = cx->dag;
    for (uint32_t mb = 0; mb < d->n_mb; mb++) {
        size_t at = (size_t)c * d->n_mb + mb;
        if (!pass_match_mb(cx, m->mb, mb))
            continue;
        if (cx->kept_by[at] != IR_NONE) {
            char tags[128];
            const ir_directive *s = &p->directives[i];
            ir_tagset_text(g, g->chunks[c].tagset, tags, sizeof tags);
            pps_diag *diag = pass_diag(cx, s, s->source->span, 431,
                                       "%s, microbatch %u, is recomputed twice", tags, mb);
            pps_diag_also(diag, p->directives[cx->kept_by[at]].source->span, "first here");
            return pps_diag_done(diag);
        }
        cx->kept_by[at] = i;
        d->kept[at] = DAG_RECOMPUTE;
    }
    return PPS_OK;
}

static pps_status apply(pass_cx *cx, uint32_t i)
{
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    const ir_directive *s = &p->directives[i];
    char text[256];
    bool matched = false;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        pass_match m;
        if (!pass_match_chunk(cx, &s->filter, c, &m))
            continue;
        PPS_TRY(check_terms(cx, s, &m));
        PPS_TRY(keep_chunk(cx, i, c, &m));
        matched = true;
    }
    if (matched)
        return PPS_OK;
    return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206,
                                   "%s matches nothing to recompute",
                                   pass_filter_text(cx, &s->filter, text, sizeof text)));
}

pps_status pass_keep(pass_cx *cx)
{
    dag *d = cx->dag;
    const ir_program *p = cx->program;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] == PPS_DIR_OFFLOAD) {
            const ir_directive *s = &p->directives[i];
            return pps_diag_done(
                pass_diag(cx, s, s->source->span, 420,
                          "this version keeps activations on the device: `%s` is not available",
                          pps_directive_word(s->source->kind)));
        }
        if (p->kinds[i] != PPS_DIR_RECOMPUTE)
            continue;
        if (d->kept == NULL) {
            size_t n = (size_t)p->graph->n_chunks * d->n_mb;
            PASS_ALLOC(d->kept, cx->scratch, n);
            PASS_ALLOC(cx->kept_by, cx->scratch, n);
            memset(cx->kept_by, 0xff, n * sizeof *cx->kept_by);
        }
        PPS_TRY(apply(cx, i));
    }
    return PPS_OK;
}
