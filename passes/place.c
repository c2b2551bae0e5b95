/* SPDX-License-Identifier: Apache-2.0
 *
 * place.c: `place F on DEVICES stream S`: which device group runs a chunk, for which microbatches.
 *
 * Each distinct device list is a group, numbered in order of first use; a device belongs to one
 * group. A list of teams counts as its devices in a row: only `shard` reads teams. Without any
 * place, everything runs on device 0. The transfers that groups imply are the dag pass's.
 */
#include "passes/pass.h"

#include <stdio.h>
#include <string.h>

static bool same_devices(const ir_program *p, const ir_devices *a, const ir_devices *b)
{
    return a->n == b->n &&
           memcmp(p->ints + a->begin, p->ints + b->begin, a->n * sizeof *p->ints) == 0;
}

static pps_status make_groups(pass_cx *cx, uint32_t *ret_directive_group)
{
    dag *d = cx->dag;
    const ir_program *p = cx->program;
    uint32_t n_places = 0, n_devices = 0;
    for (uint32_t i = 0; i < p->n_directives; i++)
        if (p->kinds[i] == PPS_DIR_PLACE) {
            n_places++;
            n_devices += p->directives[i].devices.n;
        }
    PASS_ALLOC(d->groups, cx->mem, n_places + 1);
    PASS_ALLOC(d->group_ranks, cx->mem, n_devices + 1);
    uint32_t *owner; /* first directive of each group */
    PASS_ALLOC(owner, cx->scratch, n_places + 1);
    if (n_places == 0) {
        d->groups[0] =
            (dag_group){.n_ranks = 1, .n_replicas = 1, .tensor = IR_NONE, .sequence = IR_NONE};
        d->group_ranks[0] = 0;
        d->n_groups = d->n_ranks = 1;
        return PPS_OK;
    }
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] != PPS_DIR_PLACE)
            continue;
        const ir_directive *s = &p->directives[i];
        uint32_t group = 0;
        while (group < d->n_groups &&
               !same_devices(p, &s->devices, &p->directives[owner[group]].devices))
            group++;
        if (group == d->n_groups) {
            for (uint32_t k = 0; k < s->devices.n; k++) {
                uint32_t rank = p->ints[s->devices.begin + k];
                for (uint32_t g = 0; g < group; g++)
                    for (uint32_t j = 0; j < d->groups[g].n_ranks; j++)
                        if (d->group_ranks[d->groups[g].ranks + j] == rank) {
                            pps_diag *diag =
                                pass_diag(cx, s, s->devices.span, 417,
                                          "device %u is in two different device lists", rank);
                            pps_diag_also(diag, p->directives[owner[g]].devices.span,
                                          "the other list");
                            pps_diag_note(diag, "a device runs one plan: the lists it appears in "
                                                "must be equal, in the same order");
                            return pps_diag_done(diag);
                        }
            }
            owner[group] = i;
            d->groups[group] = (dag_group){.ranks = d->n_ranks,
                                           .n_ranks = s->devices.n,
                                           .span = s->source->span,
                                           .n_replicas = s->devices.n,
                                           .tensor = IR_NONE,
                                           .sequence = IR_NONE};
            memcpy(d->group_ranks + d->n_ranks, p->ints + s->devices.begin,
                   s->devices.n * sizeof *d->group_ranks);
            d->n_ranks += s->devices.n;
            d->n_groups++;
        }
        ret_directive_group[i] = group;
    }
    /* ranks are 0 .. n-1: plans address ranks by number */
    uint8_t *seen;
    PASS_ALLOC(seen, cx->scratch, d->n_ranks);
    for (uint32_t k = 0; k < d->n_ranks; k++)
        if (d->group_ranks[k] < d->n_ranks)
            seen[d->group_ranks[k]] = 1;
    for (uint32_t k = 0; k < d->n_ranks; k++)
        if (!seen[k]) {
            const ir_directive *s = &p->directives[owner[0]];
            for (uint32_t g = 0; g < d->n_groups; g++)
                for (uint32_t j = 0; j < d->groups[g].n_ranks; j++)
                    if (d->group_ranks[d->groups[g].ranks + j] >= d->n_ranks)
                        s = &p->directives[owner[g]];
            pps_diag *diag =
                pass_diag(cx, s, s->devices.span, 418,
                          "%u devices are used, but device %u is not among them", d->n_ranks, k);
            pps_diag_help(diag, "number devices from 0 without gaps");
            return pps_diag_done(diag);
        }
    return PPS_OK;
}

/* ---- chunks ---------------------------------------------------------------------------------- */

typedef struct placing {
    pass_cx *cx;
    bool by_mb;    /* some place names microbatches */
    uint32_t n_mb; /* 1 unless by_mb: the places of one hold for all */
    uint32_t n_chunks;
    uint32_t *placed;   /* [n_mb][n_chunks] directive, IR_NONE */
    uint32_t *group_of; /* [n_directives] */
} placing;

static pps_status placed_twice(const placing *w, const ir_directive *s, uint32_t c, uint32_t mb,
                               const ir_directive *first)
{
    pass_cx *cx = w->cx;
    const ir_program *p = cx->program;
    char text[256], tags[128], when[32] = "";
    uint32_t stage = dag_stage(p->graph, c);
    if (w->by_mb)
        snprintf(when, sizeof when, ", microbatch %u,", mb);
    pps_diag *diag =
        stage != IR_NONE
            ? pass_diag(cx, s, s->source->span, 402, "stage PP %u%s is placed twice", stage, when)
            : pass_diag(cx, s, s->source->span, 402, "region %s%s is placed twice",
                        ir_tagset_text(p->graph, p->graph->chunks[c].tagset, tags, sizeof tags),
                        when);
    pps_diag_also(
        diag, first->source->span, "first placed here on %s",
        pass_devices_text(p->ints + first->devices.begin, first->devices.n, text, sizeof text));
    return pps_diag_done(diag);
}

/* Place `c` for the microbatches that `mb` names: all where it is NULL. */
static pps_status place_chunk(placing *w, uint32_t directive, uint32_t c, const ir_term *mb)
{
    const ir_program *p = w->cx->program;
    const ir_directive *s = &p->directives[directive];
    bool set = w->by_mb && mb != NULL && mb->kind == PPS_TERM_SET;
    for (uint32_t i = 0; i < (set ? mb->n : w->n_mb); i++) {
        uint32_t m = set ? p->ints[mb->begin + i] : i;
        if (m >= w->n_mb) {
            pps_diag *diag = pass_diag(w->cx, s, s->source->subject_span, 205,
                                       "microbatch %u does not exist", m);
            if (w->cx->dag->split != IR_NONE)
                pps_diag_also(diag, p->directives[w->cx->dag->split].source->span,
                              "this split makes microbatches 0 to %u", w->n_mb - 1);
            return pps_diag_done(diag);
        }
        uint32_t *at = &w->placed[(size_t)m * w->n_chunks + c];
        if (*at != IR_NONE)
            return placed_twice(w, s, c, m, &p->directives[*at]);
        *at = directive;
    }
    return PPS_OK;
}

static pps_status apply(placing *w, uint32_t directive)
{
    pass_cx *cx = w->cx;
    ir_program *p = cx->program;
    ir_directive *s = &p->directives[directive];
    char text[256];
    uint32_t matched = 0;
    for (uint32_t c = 0; c < w->n_chunks; c++) {
        pass_match m;
        if (!pass_match_chunk(cx, &s->filter, c, &m))
            continue;
        if (m.slice != NULL || m.pass != NULL || m.comm != NULL)
            return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 419,
                                           "place names regions and microbatches, not passes: %s",
                                           pass_filter_text(cx, &s->filter, text, sizeof text)));
        matched++;
        PPS_TRY(place_chunk(w, directive, c, m.mb));
        s->applied = true;
    }
    if (matched > 0)
        return PPS_OK;
    return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206,
                                   "%s matches nothing to place",
                                   pass_filter_text(cx, &s->filter, text, sizeof text)));
}

/* Everything must have a place. */
static pps_status check_missing(const placing *w, const ir_directive *last)
{
    pass_cx *cx = w->cx;
    const ir_graph *g = cx->program->graph;
    char missing[256] = "", when[48] = "";
    size_t at = 0;
    uint32_t n_missing = 0, first_missing = IR_NONE;
    for (uint32_t c = 0; c < w->n_chunks; c++) {
        char tags[128];
        uint32_t m = 0;
        while (m < w->n_mb && w->placed[(size_t)m * w->n_chunks + c] != IR_NONE)
            m++;
        if (m == w->n_mb)
            continue;
        if (n_missing > 0 && g->chunks[c].tagset == g->chunks[first_missing].tagset)
            continue;
        if (first_missing == IR_NONE) {
            first_missing = c;
            if (w->by_mb)
                snprintf(when, sizeof when, ", microbatch %u,", m);
        }
        ir_tagset_text(g, g->chunks[c].tagset, tags, sizeof tags);
        if (n_missing < 8 && at + strlen(tags) + 3 < sizeof missing) {
            if (n_missing > 0) {
                memcpy(missing + at, ", ", 3);
                at += 2;
            }
            memcpy(missing + at, tags, strlen(tags) + 1);
            at += strlen(tags);
        }
        n_missing++;
    }
    if (n_missing == 0)
        return PPS_OK;
    uint32_t stage = dag_stage(g, first_missing);
    pps_diag *diag = stage != IR_NONE ? pass_diag(cx, NULL, last->source->span, 403,
                                                  "stage PP %u%s has no `place`", stage, when)
                                      : pass_diag(cx, NULL, last->source->span, 403,
                                                  "region %s%s has no `place`", missing, when);
    pps_diag_label(diag, "the last place");
    pps_diag_also(diag, g->chunks[first_missing].span, "this work is on no device");
    pps_diag_note(diag, "without a place: %s%s", missing, n_missing > 8 ? ", ..." : "");
    return pps_diag_done(diag);
}

static bool names_microbatches(const pass_cx *cx, const ir_filter *f)
{
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &cx->program->terms[f->begin + i];
        if (t->kind == PPS_TERM_SET && strcmp(t->tag, cx->dag->mb_tag) == 0)
            return true;
    }
    return false;
}

pps_status pass_place(pass_cx *cx)
{
    dag *d = cx->dag;
    ir_program *p = cx->program;
    placing w = {.cx = cx, .n_mb = 1, .n_chunks = p->graph->n_chunks};
    const ir_directive *last = NULL;
    pps_status status = PPS_OK;
    PASS_ALLOC(w.group_of, cx->scratch, p->n_directives);
    PASS_ALLOC(d->chunks, cx->mem, w.n_chunks);
    for (uint32_t c = 0; c < w.n_chunks; c++)
        d->chunks[c] = (dag_chunk){.group = 0,
                                   .place = IR_NONE,
                                   .replicate = IR_NONE,
                                   .shard = IR_NONE,
                                   .sequence = IR_NONE,
                                   .ep = 1,
                                   .ep_teams = IR_NONE,
                                   .f = IR_NONE,
                                   .b = IR_NONE,
                                   .w = IR_NONE,
                                   .offload = {IR_NONE, IR_NONE},
                                   .fetch = {IR_NONE, IR_NONE}};
    PPS_TRY(make_groups(cx, w.group_of));
    PPS_TRY(pass_teams_of_groups(cx));
    PPS_TRY(dag_one_class(d));
    for (uint32_t i = 0; i < p->n_directives; i++)
        if (p->kinds[i] == PPS_DIR_PLACE) {
            last = &p->directives[i];
            w.by_mb |= names_microbatches(cx, &last->filter);
        }
    if (last == NULL)
        return PPS_OK;
    w.n_mb = w.by_mb ? d->n_mb / d->n_slices : 1;
    PASS_ALLOC(w.placed, cx->scratch, (size_t)w.n_mb * w.n_chunks);
    memset(w.placed, 0xff, (size_t)w.n_mb * w.n_chunks * sizeof *w.placed);
    for (uint32_t i = 0; i < p->n_directives; i++)
        if (p->kinds[i] == PPS_DIR_PLACE && apply(&w, i) != PPS_OK)
            status = PPS_ERR_SCRIPT;
    PPS_TRY(status);
    PPS_TRY(check_missing(&w, last));
    if (w.by_mb)
        return pass_classes(cx, w.placed, w.group_of);
    for (uint32_t c = 0; c < w.n_chunks; c++) {
        d->chunks[c].place = w.placed[c];
        d->chunks[c].group = w.group_of[w.placed[c]];
    }
    return PPS_OK;
}
