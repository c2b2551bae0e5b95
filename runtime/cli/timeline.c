/* SPDX-License-Identifier: Apache-2.0
 *
 * timeline.c: the times of a step's plan steps on every rank, merged into one timeline with the
 * script's names: what a step is called, the stage and microbatch it belongs to, the script line
 * that caused it. Drawing and writing is view's.
 */
#include "runtime/cli/timeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL_BYTES = 64, PLACE_BYTES = 192, NAME_BYTES = 96 };

static const plan *plan_of_rank(const plan_set *set, uint32_t rank)
{
    return &set->plans[set->rank_group[rank]];
}

static uint32_t stage_of(const plan_set *set, const plan_step *step)
{
    bool of_bucket = plan_is(step->kind, PLAN_BUCKET);
    uint32_t chunk = plan_work_of(set, step)->chunk;
    return of_bucket || chunk == IR_NONE ? IR_NONE : set->chunk_stage[chunk];
}

static uint32_t lowest_stage(const plan_set *set, const plan *p)
{
    uint32_t lowest = IR_NONE;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        if (p->steps[i].kind == PLAN_COMPUTE && stage_of(set, &p->steps[i]) < lowest)
            lowest = stage_of(set, &p->steps[i]);
    }
    return lowest;
}

static int by_begin(const void *a, const void *b)
{
    const view_span *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->lane < y->lane ? -1 : x->lane > y->lane;
}

static view_span span_of(pps_state *st, const plan_set *set, uint32_t rank, uint32_t i,
                         const exec_mark *mark, uint64_t origin, char *text)
{
    const plan *p = plan_of_rank(set, rank);
    const plan_step *step = &p->steps[i];
    char *place = text + LABEL_BYTES;
    bool of_bucket = plan_is(step->kind, PLAN_BUCKET);
    plan_step_label(set, p, step, text, LABEL_BYTES);
    *place = 0;
    pps_span span = plan_place_of(set, step);
    if (span.file) {
        const char *file;
        uint32_t line, column;
        pps_span_place(st, span, &file, &line, &column);
        snprintf(place, PLACE_BYTES, "%s:%u", file, line);
    }
    return (view_span){
        .rank = rank,
        .lane = step->stream,
        .begin = (double)(mark->begin_ns - origin),
        .end = (double)(mark->end_ns - origin),
        .kind = step->kind,
        .pass = step->pass,
        .stage = stage_of(set, step),
        .mb = of_bucket ? IR_NONE : step->mb / set->n_slices,
        .slice = of_bucket || set->slice_tag == NULL ? 0 : step->mb % set->n_slices + 1,
        .pair = step->flags & PLAN_STEP_OVERLAP ? step->row_group : IR_NONE,
        .label = text,
        .place = *place ? place : NULL,
        .bytes = mark->sent_bytes,
    };
}

/* Every rank's spans into t->view.spans; how long ranks computed, in ns, to *ret_busy. */
static void fill(timeline *t, pps_state *st, const plan_set *set, exec_mark *const *marks,
                 uint64_t origin, double *ret_busy)
{
    char *text = t->texts;
    double busy = 0, last = 0;
    for (uint32_t r = 0; r < set->n_ranks; r++) {
        const plan *p = plan_of_rank(set, r);
        uint32_t lowest = lowest_stage(set, p);
        snprintf(text, NAME_BYTES, "rank %u", r);
        t->rank_names[r] = text;
        text += NAME_BYTES;
        for (uint32_t i = 0; i < p->n_steps; i++) {
            view_span span = span_of(st, set, r, i, &marks[r][i], origin, text);
            text += LABEL_BYTES + PLACE_BYTES;
            span.upper = span.stage != IR_NONE && span.stage != lowest;
            if (span.kind == PLAN_COMPUTE)
                busy += span.end - span.begin;
            if (span.end > last)
                last = span.end;
            t->view.spans[t->view.n_spans++] = span;
        }
    }
    t->view.makespan = last;
    *ret_busy = busy;
}

pps_status timeline_new(pps_state *st, const plan_set *set, exec_mark *const *marks, timeline *ret)
{
    uint64_t origin = UINT64_MAX;
    size_t n = 0;
    for (uint32_t r = 0; r < set->n_ranks; r++) {
        const plan *p = plan_of_rank(set, r);
        n += p->n_steps;
        for (uint32_t i = 0; i < p->n_steps; i++) {
            if (marks[r][i].begin_ns < origin)
                origin = marks[r][i].begin_ns;
        }
    }
    timeline t = {.view = {.title = "one training step, measured",
                           .unit = "ns",
                           .n_ranks = set->n_ranks,
                           .n_lanes = set->n_streams,
                           .lanes = set->streams,
                           .settings = "measured times of one training step"}};
    t.view.spans = calloc(n + 1, sizeof *t.view.spans);
    t.texts = malloc(n * (LABEL_BYTES + PLACE_BYTES) + (size_t)set->n_ranks * NAME_BYTES + 1);
    t.rank_names = calloc(set->n_ranks + 1, sizeof *t.rank_names);
    if (!t.view.spans || !t.texts || !t.rank_names) {
        timeline_done(&t);
        return PPS_ERR_NOMEM;
    }
    double busy;
    fill(&t, st, set, marks, origin, &busy);
    qsort(t.view.spans, t.view.n_spans, sizeof *t.view.spans, by_begin);
    t.view.rank_names = t.rank_names;
    t.view.bubble = t.view.makespan > 0 ? 1 - busy / (t.view.makespan * set->n_ranks) : 0;
    *ret = t;
    return PPS_OK;
}

void timeline_done(timeline *t)
{
    free(t->view.spans);
    free(t->texts);
    free(t->rank_names);
    *t = (timeline){0};
}
