/* SPDX-License-Identifier: Apache-2.0
 *
 * place.c: `place F on DEVICES stream S`: which device group runs a chunk.
 *
 * Each distinct device list is a group, numbered in order of first use; a device belongs to one
 * group. Without any place, everything runs on device 0. The transfers that groups imply are the
 * dag pass's.
 */
#include "passes/pass.h"

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
        d->groups[0] = (dag_group){.ranks = 0, .n_ranks = 1};
        d->group_ranks[0] = 0;
        d->n_groups = d->n_ranks = 1;
        return PPS_OK;
    }
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] != PPS_DIR_PLACE)
            continue;
        const ir_directive *s = &p->directives[i];
        if (s->devices.n_groups > 1)
            return pps_diag_done(
                pass_diag(cx, s, s->devices.span, 416, "place takes a flat list of devices"));
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
            d->groups[group] =
                (dag_group){.ranks = d->n_ranks, .n_ranks = s->devices.n, .span = s->source->span};
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

pps_status pass_place(pass_cx *cx)
{
    dag *d = cx->dag;
    ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    uint32_t *group_of;
    PASS_ALLOC(group_of, cx->scratch, p->n_directives);
    PASS_ALLOC(d->chunks, cx->mem, g->n_chunks);
    for (uint32_t c = 0; c < g->n_chunks; c++)
        d->chunks[c] = (dag_chunk){.group = IR_NONE,
                                   .place = IR_NONE,
                                   .replicate = IR_NONE,
                                   .shard = IR_NONE,
                                   .ep = 1,
                                   .f = IR_NONE,
                                   .b = IR_NONE,
                                   .w = IR_NONE,
                                   .offload = {IR_NONE, IR_NONE},
                                   .fetch = {IR_NONE, IR_NONE}};
    PPS_TRY(make_groups(cx, group_of));

    const ir_directive *last = NULL;
    pps_status status = PPS_OK;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] != PPS_DIR_PLACE)
            continue;
        ir_directive *s = &p->directives[i];
        char text[256], tags[128];
        uint32_t matched = 0;
        last = s;
        for (uint32_t c = 0; c < g->n_chunks; c++) {
            pass_match m;
            if (!pass_match_chunk(cx, &s->filter, c, &m))
                continue;
            if (m.mb != NULL || m.pass != NULL || m.comm != NULL)
                return pps_diag_done(
                    pass_diag(cx, s, s->source->subject_span, 419,
                              "place names regions of the model, not microbatches or passes: %s",
                              pass_filter_text(cx, &s->filter, text, sizeof text)));
            matched++;
            if (d->chunks[c].place != IR_NONE) {
                const ir_directive *first = &p->directives[d->chunks[c].place];
                uint32_t stage = dag_stage(g, c);
                pps_diag *diag =
                    stage != IR_NONE
                        ? pass_diag(cx, s, s->source->span, 402, "stage PP %u is placed twice",
                                    stage)
                        : pass_diag(cx, s, s->source->span, 402, "region %s is placed twice",
                                    ir_tagset_text(g, g->chunks[c].tagset, tags, sizeof tags));
                pps_diag_also(diag, first->source->span, "first placed here on %s",
                              pass_devices_text(p->ints + first->devices.begin, first->devices.n,
                                                text, sizeof text));
                status = pps_diag_done(diag);
                break;
            }
            d->chunks[c].place = i;
            d->chunks[c].group = group_of[i];
            s->applied = true;
        }
        if (matched == 0)
            status = pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206,
                                             "%s matches nothing to place",
                                             pass_filter_text(cx, &s->filter, text, sizeof text)));
    }
    if (status != PPS_OK)
        return status;
    if (last == NULL) {
        for (uint32_t c = 0; c < g->n_chunks; c++)
            d->chunks[c].group = 0;
        return PPS_OK;
    }
    /* everything must have a place */
    char missing[256] = "";
    size_t at = 0;
    uint32_t n_missing = 0, first_missing = IR_NONE;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        char tags[128];
        if (d->chunks[c].group != IR_NONE)
            continue;
        if (n_missing > 0 && g->chunks[c].tagset == g->chunks[first_missing].tagset)
            continue;
        if (first_missing == IR_NONE)
            first_missing = c;
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
    if (n_missing > 0) {
        uint32_t stage = dag_stage(g, first_missing);
        pps_diag *diag =
            stage != IR_NONE
                ? pass_diag(cx, NULL, last->source->span, 403, "stage PP %u has no `place`", stage)
                : pass_diag(cx, NULL, last->source->span, 403, "region %s has no `place`", missing);
        pps_diag_label(diag, "the last place");
        pps_diag_also(diag, g->chunks[first_missing].span, "this work is on no device");
        pps_diag_note(diag, "without a place: %s%s", missing, n_missing > 8 ? ", ..." : "");
        return pps_diag_done(diag);
    }
    return PPS_OK;
}
