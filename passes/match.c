/* SPDX-License-Identifier: Apache-2.0
 *
 * match.c: filters against chunks, and the texts and diagnostics that directives share.
 */
#include "passes/pass.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool in_set(const ir_program *p, const ir_term *t, uint32_t index)
{
    uint32_t lo = t->begin, hi = t->begin + t->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (p->ints[mid] < index)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < t->begin + t->n && p->ints[lo] == index;
}

bool pass_match_chunk(const pass_cx *cx, const ir_filter *f, uint32_t chunk, pass_match *ret)
{
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    const ir_tagset *set = &g->tagsets[g->chunks[chunk].tagset];
    *ret = (pass_match){0};
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &p->terms[f->begin + i];
        if (t->kind == PPS_TERM_PASS) {
            ret->pass = t;
            continue;
        }
        if (t->kind == PPS_TERM_COMM) {
            ret->comm = t;
            continue;
        }
        if (strcmp(t->tag, cx->dag->mb_tag) == 0) {
            if (t->kind == PPS_TERM_ABSENT && cx->dag->split != IR_NONE)
                return false;
            ret->mb = t;
            continue;
        }
        if (cx->dag->slice_tag != NULL && strcmp(t->tag, cx->dag->slice_tag) == 0) {
            if (t->kind == PPS_TERM_ABSENT)
                return false;
            ret->slice = t;
            continue;
        }
        const ir_tag *found = NULL;
        for (uint32_t k = 0; k < set->n; k++)
            if (strcmp(g->tags[set->begin + k].name, t->tag) == 0)
                found = &g->tags[set->begin + k];
        if (t->kind == PPS_TERM_ABSENT ? found != NULL : found == NULL)
            return false;
        if (t->kind == PPS_TERM_SET && !in_set(p, t, found->index))
            return false;
    }
    return true;
}

static bool names(const pass_cx *cx, const ir_term *t, uint32_t index)
{
    return t == NULL || t->kind != PPS_TERM_SET || in_set(cx->program, t, index);
}

bool pass_match_unit(const pass_cx *cx, const pass_match *m, uint32_t unit)
{
    uint32_t n_slices = cx->dag->n_slices;
    return names(cx, m->mb, unit / n_slices) && names(cx, m->slice, unit % n_slices);
}

const char *pass_filter_text(const pass_cx *cx, const ir_filter *f, char *buffer, size_t n)
{
    static const char *const passes[] = {"F", "B", "BI", "BW"};
    size_t at = 0;
#define ADD(...)                                                       \
    do {                                                               \
        int k_ = snprintf(buffer + at, n - at, __VA_ARGS__);           \
        at = k_ < 0 || at + (size_t)k_ >= n ? n - 1 : at + (size_t)k_; \
    } while (0)
    ADD("{");
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &cx->program->terms[f->begin + i];
        const uint32_t *ints = cx->program->ints + t->begin;
        ADD("%s%s: ", i > 0 ? ", " : "", t->tag);
        switch ((pps_term_kind)t->kind) {
        case PPS_TERM_ANY:
            ADD("*");
            break;
        case PPS_TERM_ABSENT:
            ADD("-");
            break;
        case PPS_TERM_PASS:
            ADD("%s", passes[t->pass]);
            break;
        case PPS_TERM_COMM:
            ADD("%s", t->comm == PPS_COMM_SEND ? "SEND" : "RECV");
            break;
        case PPS_TERM_SET:
            if (t->n == 1) {
                ADD("%u", ints[0]);
            } else if (t->n > 2 && ints[t->n - 1] - ints[0] == t->n - 1) {
                ADD("%u..%u", ints[0], ints[t->n - 1] + 1);
            } else {
                for (uint32_t k = 0; k < t->n; k++)
                    ADD("%s%u", k == 0 ? "[" : ", ", ints[k]);
                ADD("]");
            }
            break;
        }
    }
    ADD("}");
#undef ADD
    return buffer;
}

const char *pass_chunk_name(const pass_cx *cx, uint32_t chunk, char buffer[PASS_NAME_BYTES])
{
    const ir_graph *g = cx->program->graph;
    const ir_tagset *tags = &g->tagsets[g->chunks[chunk].tagset];
    uint32_t stage = dag_stage(g, chunk);
    size_t at = 0;
    buffer[0] = '\0';
    if (stage != IR_NONE)
        at = (size_t)snprintf(buffer, PASS_NAME_BYTES, "PP%u", stage);
    for (uint32_t i = 0; i < tags->n && at < PASS_NAME_BYTES; i++) {
        const ir_tag *t = &g->tags[tags->begin + i];
        if (strcmp(t->name, "PP") != 0)
            at += (size_t)snprintf(buffer + at, PASS_NAME_BYTES - at, "%s%s%u", at > 0 ? "." : "",
                                   t->name, t->index);
    }
    if (at == 0)
        at = (size_t)snprintf(buffer, PASS_NAME_BYTES, "model");
    if (cx->chunk_times[chunk] > 1 && at < PASS_NAME_BYTES)
        snprintf(buffer + at, PASS_NAME_BYTES - at, "#%u", cx->chunk_times[chunk]);
    return buffer;
}

/* How many chunks of a class up to this one have its tags. */
pps_status pass_count_names(pass_cx *cx)
{
    const ir_graph *g = cx->program->graph;
    uint32_t *seen;
    PASS_ALLOC(cx->chunk_times, cx->scratch, g->n_chunks);
    PASS_ALLOC(seen, cx->phase, g->n_tagsets);
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        if (c % cx->dag->n_model_chunks == 0)
            memset(seen, 0, g->n_tagsets * sizeof *seen);
        cx->chunk_times[c] = ++seen[g->chunks[c].tagset];
    }
    return PPS_OK;
}

const char *pass_devices_text(const uint32_t *ranks, uint32_t n, char *buffer, size_t size)
{
    size_t at = 0;
    for (uint32_t i = 0; i <= n; i++) {
        int k = i == n ? snprintf(buffer + at, size - at, n == 0 ? "[]" : "]")
                       : snprintf(buffer + at, size - at, "%s%u", i == 0 ? "[" : ", ", ranks[i]);
        at = k < 0 || at + (size_t)k >= size ? size - 1 : at + (size_t)k;
    }
    return buffer;
}

pps_diag *pass_diag(pass_cx *cx, const ir_directive *d, pps_span span, int code, const char *title,
                    ...)
{
    char text[512];
    va_list args;
    va_start(args, title);
    vsnprintf(text, sizeof text, title, args);
    va_end(args);
    pps_diag *diag = pps_diag_start(cx->st, PPS_SEV_ERROR, code, span, "%s", text);
    if (d != NULL && d->source != NULL &&
        (d->source->n_frames > 0 || d->source->context[0] != '\0'))
        pps_diag_frames(diag, d->source->frames, d->source->n_frames, d->source->context);
    return diag;
}
