/* SPDX-License-Identifier: Apache-2.0
 *
 * split.c: `split F by TAG into N [along batch|sequence]`: the whole training graph, N times, each
 * on its share of the batch's rows, or of the positions of each row.
 *
 *     batch rows   | MB 0          | MB 1          |      split {} by MB into 2
 *     positions    | SEQ 0 | SEQ 1 | SEQ 0 | SEQ 1 |      split {} by SEQ into 2 along sequence
 *     units        | 0     | 1     | 2     | 3     |
 *
 * The graph repeats as runs of units (ir/dag.h), so splitting costs nothing here; it decides how
 * many there are and the tags that filters use for the copies (MB where nothing splits the batch).
 * What looks at a sequence as a whole cannot have it split: only attention knows how to go on where
 * the slice before ended.
 */
#include "passes/pass.h"

#include <string.h>

/* One split along each dimension, each by a tag of its own. */
static pps_status check_tags(pass_cx *cx, const ir_directive *s)
{
    const dag *d = cx->dag;
    const ir_program *p = cx->program;
    const uint32_t others[] = {d->split, d->sequence_split};
    for (size_t i = 0; i < 2; i++) {
        if (others[i] == IR_NONE)
            continue;
        const ir_directive *first = &p->directives[others[i]];
        bool same_tag = strcmp(first->tag, s->tag) == 0;
        if (!same_tag && first->along_sequence != s->along_sequence)
            continue;
        pps_diag *diag =
            same_tag ? pass_diag(cx, s, s->source->span, 405, "tag %s is split twice", s->tag)
                     : pass_diag(cx, s, s->source->span, 405, "the %s is split twice",
                                 s->along_sequence ? "sequence" : "batch");
        pps_diag_also(diag, first->source->span, "first split here into %u", first->n);
        if (!same_tag && !s->along_sequence)
            pps_diag_help(diag, "split the other one `along sequence`");
        return pps_diag_done(diag);
    }
    return PPS_OK;
}

static pps_status check_filter(pass_cx *cx, const ir_directive *s)
{
    const ir_graph *g = cx->program->graph;
    uint32_t matched = 0, missed = IR_NONE;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        pass_match m;
        bool yes = pass_match_chunk(cx, &s->filter, c, &m) && m.pass == NULL && m.comm == NULL &&
                   m.mb == NULL && m.slice == NULL;
        matched += yes;
        if (!yes && missed == IR_NONE)
            missed = c;
    }
    char text[256];
    if (matched == 0)
        return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206,
                                       "%s matches nothing to split",
                                       pass_filter_text(cx, &s->filter, text, sizeof text)));
    if (missed == IR_NONE)
        return PPS_OK;
    char tags[128];
    pps_diag *diag = pass_diag(cx, s, s->source->subject_span, 207,
                               "split must cover the whole model, and %s leaves out region %s",
                               pass_filter_text(cx, &s->filter, text, sizeof text),
                               ir_tagset_text(g, g->chunks[missed].tagset, tags, sizeof tags));
    pps_diag_also(diag, g->chunks[missed].span, "not matched");
    pps_diag_help(diag, "write `split {} by %s into %u%s`", s->tag, s->n,
                  s->along_sequence ? " along sequence" : "");
    return pps_diag_done(diag);
}

static pps_status check_rows(pass_cx *cx, const ir_directive *s)
{
    const ir_graph *g = cx->program->graph;
    const char *what = s->along_sequence ? "positions" : "rows";
    for (uint32_t k = 0; k < g->n_data; k++) {
        uint32_t n = s->along_sequence ? g->data[k].dims[1] : g->data[k].dims[0];
        if (n % s->n == 0)
            continue;
        pps_diag *diag =
            pass_diag(cx, s, s->source->span, 210,
                      "cannot split tag '%s' of %u %s into %u equal parts", s->tag, n, what, s->n);
        pps_diag_also(diag, g->data[k].span,
                      s->along_sequence ? "the sequences of %u positions come from here"
                                        : "the batch of %u rows comes from here",
                      n);
        return pps_diag_done(diag);
    }
    return PPS_OK;
}

/* ---- what needs whole sequences -----------------------------------------------------------------
 */

static pps_status whole_only(pass_cx *cx, const ir_directive *s, pps_span span, const char *what)
{
    pps_diag *diag = pass_diag(cx, s, s->source->span, 414,
                               "%s needs whole sequences, and these are split", what);
    pps_diag_also(diag, span, "it is here");
    return pps_diag_done(diag);
}

static pps_status check_ops(pass_cx *cx, const ir_directive *s)
{
    const ir_graph *g = cx->program->graph;
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const ir_op *op = &g->ops[i];
        if (g->op_chunk[i] == IR_NONE)
            continue;
        if (op->kind == IR_ROUTER && op->attrs.aux_coef > 0.0f)
            return whole_only(cx, s, op->span, "a router's auxiliary loss");
        if (op->kind == IR_OPAQUE)
            return whole_only(cx, s, op->span, "an opaque region");
    }
    return PPS_OK;
}

static pps_status check_shards(pass_cx *cx, const ir_directive *s)
{
    const ir_program *p = cx->program;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        const ir_directive *shard = &p->directives[i];
        if (p->kinds[i] != PPS_DIR_SHARD)
            continue;
        const pps_clause *capacity = pps_directive_clause(shard->source, "capacity");
        if (capacity != NULL)
            return whole_only(cx, s, capacity->word_span, "the experts' capacity");
        if (strcmp(shard->as, "sequence") == 0 || shard->sequence)
            return whole_only(cx, s, shard->source->span, "sharding along the sequence");
    }
    return PPS_OK;
}

pps_status pass_split(pass_cx *cx)
{
    dag *d = cx->dag;
    ir_program *p = cx->program;
    d->n_mb = d->n_slices = 1;
    d->mb_tag = "MB";
    d->slice_tag = NULL;
    d->split = d->sequence_split = IR_NONE;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        ir_directive *s = &p->directives[i];
        if (p->kinds[i] != PPS_DIR_SPLIT)
            continue;
        PPS_TRY(check_tags(cx, s));
        *(s->along_sequence ? &d->sequence_split : &d->split) = i;
        if (s->along_sequence)
            d->slice_tag = s->tag;
        else
            d->mb_tag = s->tag;
        s->applied = true;
    }
    const uint32_t splits[] = {d->split, d->sequence_split};
    for (size_t i = 0; i < 2; i++) {
        if (splits[i] == IR_NONE)
            continue;
        const ir_directive *s = &p->directives[splits[i]];
        PPS_TRY(check_filter(cx, s));
        PPS_TRY(check_rows(cx, s));
        if (!s->along_sequence) {
            d->n_mb = s->n;
            continue;
        }
        d->n_slices = s->n;
        if (s->n > 1) {
            PPS_TRY(check_ops(cx, s));
            PPS_TRY(check_shards(cx, s));
        }
    }
    if ((uint64_t)d->n_mb * d->n_slices >= IR_NONE)
        return PPS_ERR_LIMIT;
    d->n_mb *= d->n_slices;
    return PPS_OK;
}
