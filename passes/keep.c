/* SPDX-License-Identifier: Apache-2.0
 *
 * keep.c: `recompute F` and `offload F to host stream S`: which chunks, in which microbatches, do
 * not leave on the device what their forward pass keeps for their backward pass. Marks (chunk,
 * microbatch). What there is to keep, and the programs that make it again, are the layout pass's;
 * the copies are the offload pass's. Both also say whether a directive had any effect.
 */
#include "passes/pass.h"

#include <stdio.h>
#include <string.h>

/* A term names none but the `n` microbatches, or slices of each, that `split` makes. */
static pps_status check_term(pass_cx *cx, const ir_directive *s, const ir_term *t, bool of_mb)
{
    const ir_program *p = cx->program;
    const dag *d = cx->dag;
    const char *what = of_mb ? "microbatch" : "slice";
    uint32_t n_named = t != NULL && t->kind == PPS_TERM_SET ? t->n : 0;
    uint32_t n = of_mb ? d->n_mb / d->n_slices : d->n_slices;
    uint32_t split = of_mb ? d->split : d->sequence_split;
    if (n_named == 0 || p->ints[t->begin + n_named - 1] < n)
        return PPS_OK;
    pps_diag *diag = pass_diag(cx, s, s->source->subject_span, 205, "%s %u does not exist", what,
                               p->ints[t->begin + n_named - 1]);
    if (split != IR_NONE)
        pps_diag_also(diag, p->directives[split].source->span, "this split makes %s%s 0 to %u",
                      what, of_mb ? "es" : "s", n - 1);
    else
        pps_diag_note(diag, "nothing splits the batch: there is one microbatch, 0");
    return pps_diag_done(diag);
}

static pps_status check_terms(pass_cx *cx, const ir_directive *s, const pass_match *m)
{
    const char *word = pps_directive_word(s->source->kind);
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
    PPS_TRY(check_term(cx, s, m->mb, true));
    return check_term(cx, s, m->slice, false);
}

static pps_status twice(pass_cx *cx, uint32_t i, uint32_t c, uint32_t index)
{
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    const dag *d = cx->dag;
    const ir_directive *s = &p->directives[i];
    uint32_t first = cx->kept_by[(size_t)c * d->n_mb + index];
    uint32_t unit = d->class_mbs[dag_class_of(d, c).begin + index];
    const char *how = p->kinds[i] == PPS_DIR_RECOMPUTE ? "recomputed twice" : "offloaded twice";
    char tags[128], slice[32] = "";
    if (p->kinds[i] != p->kinds[first])
        how = "recomputed and offloaded";
    if (d->n_slices > 1)
        snprintf(slice, sizeof slice, ", slice %u", unit % d->n_slices);
    pps_diag *diag = pass_diag(cx, s, s->source->span, 422, "%s, microbatch %u%s, is %s",
                               ir_tagset_text(g, g->chunks[c].tagset, tags, sizeof tags),
                               unit / d->n_slices, slice, how);
    pps_diag_also(diag, p->directives[first].source->span, "first here");
    return pps_diag_done(diag);
}

/* The copies of a chunk are runs, which have one stream. */
static pps_status check_stream(pass_cx *cx, uint32_t i, uint32_t c)
{
    const ir_program *p = cx->program;
    const ir_directive *s = &p->directives[i];
    char tags[128];
    for (uint32_t m = 0; m < dag_n_mb(cx->dag, c); m++) {
        uint32_t other = cx->kept_by[(size_t)c * cx->dag->n_mb + m];
        if (other == IR_NONE || p->kinds[other] != PPS_DIR_OFFLOAD ||
            p->directives[other].stream == s->stream)
            continue;
        pps_diag *diag =
            pass_diag(cx, s, s->source->span, 426, "%s is offloaded on two streams",
                      ir_tagset_text(p->graph, p->graph->chunks[c].tagset, tags, sizeof tags));
        pps_diag_also(diag, p->directives[other].source->span, "on another one here");
        return pps_diag_done(diag);
    }
    return PPS_OK;
}

/* Those of the chunk's microbatches, or of their slices, that `m` names. */
static pps_status mark_chunk(pass_cx *cx, uint32_t i, uint32_t c, const pass_match *m,
                             bool *ret_any)
{
    const ir_program *p = cx->program;
    dag *d = cx->dag;
    ir_range mbs = dag_class_of(d, c);
    if (p->kinds[i] == PPS_DIR_OFFLOAD)
        PPS_TRY(check_stream(cx, i, c));
    for (uint32_t k = 0; k < mbs.n; k++) {
        size_t at = (size_t)c * d->n_mb + k;
        if (!pass_match_unit(cx, m, d->class_mbs[mbs.begin + k]))
            continue;
        if (cx->kept_by[at] != IR_NONE)
            return twice(cx, i, c, k);
        cx->kept_by[at] = i;
        d->kept[at] = p->kinds[i] == PPS_DIR_RECOMPUTE ? DAG_RECOMPUTE : DAG_OFFLOAD;
        *ret_any = true;
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
        PPS_TRY(mark_chunk(cx, i, c, &m, &matched));
    }
    if (matched)
        return PPS_OK;
    return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206, "%s matches nothing to %s",
                                   pass_filter_text(cx, &s->filter, text, sizeof text),
                                   pps_directive_word(s->source->kind)));
}

pps_status pass_keep(pass_cx *cx)
{
    dag *d = cx->dag;
    const ir_program *p = cx->program;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] != PPS_DIR_RECOMPUTE && p->kinds[i] != PPS_DIR_OFFLOAD)
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

pps_status pass_copy_streams(pass_cx *cx)
{
    const ir_program *p = cx->program;
    if (cx->dag->kept == NULL)
        return PPS_OK;
    PASS_ALLOC(cx->copy_streams, cx->scratch, p->n_directives);
    for (uint32_t i = 0; i < p->n_directives; i++) {
        uint16_t *streams = cx->copy_streams[i];
        if (p->kinds[i] != PPS_DIR_OFFLOAD)
            continue;
        /* each way is a queue of its own: what is fetched never waits for what is copied out */
        PPS_TRY(pass_stream(cx, p->directives[i].stream, "host", &streams[0]));
        PPS_TRY(pass_back_stream(cx, streams[0], &streams[1]));
    }
    return PPS_OK;
}
