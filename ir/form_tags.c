/* SPDX-License-Identifier: Apache-2.0
 *
 * form_tags.c: names in filters and rows against the regions of the trained model. A misspelt tag
 * or an index that no region has is found here, before any pass could take it for "matches
 * nothing".
 */
#include "ir/trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lang/source.h"

typedef struct known_tag { /* a tag of the model */
    const char *name;
    uint32_t n;    /* its indices are 0 to n - 1 */
    pps_span span; /* its first region */
} known_tag;

typedef struct checker {
    tracer *tr;
    const trace_scope *scope;
    known_tag *known;
    uint32_t n_known, cap_known;
    bool failed;
    bool pp_reported; /* rows without PP: say so once */
} checker;

static known_tag *find_tag(const checker *c, const char *name)
{
    for (uint32_t i = 0; i < c->n_known; i++)
        if (strcmp(c->known[i].name, name) == 0)
            return &c->known[i];
    return NULL;
}

static pps_status collect(checker *c, arena *mem)
{
    const ir_graph *g = &c->tr->trained;
    for (uint32_t i = 0; i < g->n_regions; i++) {
        const ir_region *r = &g->regions[i];
        known_tag *tag = find_tag(c, r->tag);
        if (!tag) {
            PPS_TRY(IR_GROW(mem, c, known));
            tag = &c->known[c->n_known++];
            *tag = (known_tag){r->tag, 0, r->span};
        }
        if (r->index >= tag->n)
            tag->n = r->index + 1;
    }
    return PPS_OK;
}

/* PASS, COMM and MB mean something in every model, a split tag in this one. */
static bool is_exempt(const checker *c, const char *tag)
{
    const ir_program *p = &c->tr->program;
    if (strcmp(tag, "PASS") == 0 || strcmp(tag, "COMM") == 0 || strcmp(tag, "MB") == 0)
        return true;
    for (uint32_t i = 0; i < p->n_directives; i++)
        if (p->kinds[i] == PPS_DIR_SPLIT && strcmp(p->directives[i].tag, tag) == 0)
            return true;
    return false;
}

/* ---- Places inside a filter as written ---------------------------------------------------------
 */

static bool is_word(char ch)
{
    return ch == '_' || (ch >= '0' && ch <= '9') || ((ch | 32) >= 'a' && (ch | 32) <= 'z');
}

/* In the source text of `span`: the key `tag` of a filter, or what stands behind its colon. The
 * whole span when the filter is not written out there. */
static pps_span inner_span(tracer *tr, pps_span span, const char *tag, bool value)
{
    const source_file *file = source_get(tr->st, span.file);
    size_t n = strlen(tag);
    if (!file || span.end > file->bytes || span.end < span.begin)
        return span;
    const char *text = file->text;
    for (uint32_t at = span.begin; at + n < span.end; at++) {
        if (memcmp(text + at, tag, n) != 0 || (at > span.begin && is_word(text[at - 1])) ||
            is_word(text[at + n]))
            continue;
        uint32_t end = at + (uint32_t)n, colon = end;
        while (colon < span.end && text[colon] == ' ')
            colon++;
        if (colon >= span.end || text[colon] != ':')
            continue;
        if (!value)
            return (pps_span){span.file, at, end};
        uint32_t begin = colon + 1;
        while (begin < span.end && text[begin] == ' ')
            begin++;
        end = begin;
        for (int depth = 0; end < span.end; end++) {
            char ch = text[end];
            if (depth == 0 && (ch == ',' || ch == '}' || ch == '\n'))
                break;
            depth += (ch == '[' || ch == '(') - (ch == ']' || ch == ')');
        }
        while (end > begin && text[end - 1] == ' ')
            end--;
        return end > begin ? (pps_span){span.file, begin, end} : span;
    }
    return span;
}

/* ---- Messages -----------------------------------------------------------------------------------
 */

static void report_tag(checker *c, const pps_directive *d, pps_span span, const char *tag)
{
    const char *model = c->scope->model;
    pps_diag *diag = model
                         ? form_diag(c->tr, d, span, 203, "model '%s' has no tag '%s'", model, tag)
                         : form_diag(c->tr, d, span, 203, "the model has no tag '%s'", tag);
    pps_diag_label(diag, "unknown tag");
    c->failed = true;
    if (c->n_known == 0) {
        pps_diag_note(diag, "it has no regions; `annotate %s { ... }` in a model makes one", tag);
        pps_diag_done(diag);
        return;
    }
    enum { SHOWN = 16 };
    const char *names[SHOWN];
    char all[256];
    size_t at = 0;
    uint32_t n = c->n_known < SHOWN ? c->n_known : SHOWN;
    for (uint32_t i = 0; i < n; i++) {
        names[i] = c->known[i].name;
        int wrote = snprintf(all + at, sizeof all - at, "%s%s", i ? ", " : "", names[i]);
        at = at + (size_t)wrote < sizeof all ? at + (size_t)wrote : sizeof all - 1;
    }
    pps_diag_also(diag, c->known[0].span, "tags of this model: %s", all);
    const char *meant = pps_did_you_mean(tag, names, n);
    if (meant)
        pps_diag_help(diag, "did you mean '%s'?", meant);
    pps_diag_done(diag);
}

static void report_index(checker *c, const pps_directive *d, pps_span span, const known_tag *tag,
                         uint32_t index)
{
    const char *file;
    uint32_t line, column;
    pps_diag *diag =
        tag->n == 1
            ? form_diag(c->tr, d, span, 204, "tag %s has index 0 only, there is no %s %u",
                        tag->name, tag->name, index)
            : form_diag(c->tr, d, span, 204, "tag %s has indices 0 to %u, there is no %s %u",
                        tag->name, tag->n - 1, tag->name, index);
    pps_span_place(c->tr->st, tag->span, &file, &line, &column);
    if (file)
        pps_diag_note(diag, "%u region%s come%s from %s:%u", tag->n, tag->n == 1 ? "" : "s",
                      tag->n == 1 ? "s" : "", file, line);
    pps_diag_done(diag);
    c->failed = true;
}

/* ---- Checks -------------------------------------------------------------------------------------
 */

static void check_filter(checker *c, const pps_directive *d, const ir_filter *f)
{
    const ir_program *p = &c->tr->program;
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &p->terms[f->begin + i];
        if (is_exempt(c, t->tag))
            continue;
        const known_tag *tag = find_tag(c, t->tag);
        if (!tag) {
            report_tag(c, d, inner_span(c->tr, f->span, t->tag, false), t->tag);
            continue;
        }
        const uint32_t *ints = p->ints + t->begin;
        if (t->kind != PPS_TERM_SET || t->n == 0 || ints[t->n - 1] < tag->n)
            continue;
        uint32_t bad = 0;
        while (ints[bad] < tag->n)
            bad++;
        report_index(c, d, inner_span(c->tr, f->span, t->tag, true), tag, ints[bad]);
    }
}

/* One mistake per row: the same loop tends to make them all. */
static void check_row(checker *c, const ir_row *row)
{
    const ir_program *p = &c->tr->program;
    const pps_directive *d = p->orders[row->directive];
    const known_tag *pp = find_tag(c, "PP");
    bool failed = c->failed;
    c->failed = false;
    for (uint32_t i = 0; i < row->n && !c->failed; i++) {
        const ir_entry *e = &p->entries[row->begin + i];
        if (e->general) {
            check_filter(c, d, &p->filters[e->filter]);
            continue;
        }
        if (pp && e->stage < pp->n)
            continue;
        pps_span span = e->origin ? pps_origin_span(c->tr->st, e->origin) : d->subject_span;
        if (pp)
            report_index(c, d, span, pp, e->stage);
        else if (!c->pp_reported)
            report_tag(c, d, span, "PP");
        c->failed = true;
        c->pp_reported |= !pp;
    }
    c->failed |= failed;
}

static void check_split(checker *c, const ir_directive *s)
{
    const known_tag *region = find_tag(c, s->tag);
    if (!region)
        return;
    const pps_clause *by = pps_directive_clause(s->source, "by");
    pps_diag *diag = form_diag(
        c->tr, s->source, by ? by->span : s->source->span, 450,
        "the tag %s names regions of the model, it cannot name parts of the batch", s->tag);
    pps_diag_also(diag, region->span, "a region of tag %s", s->tag);
    pps_diag_done(diag);
    c->failed = true;
}

static pps_status check_all(checker *c, arena *scratch)
{
    const ir_program *p = &c->tr->program;
    PPS_TRY(collect(c, scratch));
    for (uint32_t i = 0; i < p->n_directives; i++) {
        if (p->kinds[i] == PPS_DIR_SPLIT)
            check_split(c, &p->directives[i]);
        check_filter(c, p->directives[i].source, &p->directives[i].filter);
    }
    for (uint32_t i = 0; i < p->n_rows; i++)
        check_row(c, &p->rows[i]);
    return c->failed ? PPS_ERR_SCRIPT : PPS_OK;
}

pps_status form_check_tags(tracer *tr, const trace_scope *scope)
{
    arena scratch;
    arena_init(&scratch, NULL, NULL);
    checker c = {.tr = tr, .scope = scope};
    pps_status status = check_all(&c, &scratch);
    arena_done(&scratch);
    return status;
}
