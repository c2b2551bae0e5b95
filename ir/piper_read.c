/* SPDX-License-Identifier: Apache-2.0
 *
 * piper_read.c: Piper's JSON to records. jansson reads one directive at a time, so memory follows
 * the largest row, not the file. Every member of a directive is a row of `fields`.
 *
 * Quirks that change nothing (indices as strings, `device` for `devices`, fields that nobody reads)
 * are gathered and told in one note each. What Piper takes and ignores, or can only match nothing,
 * is an error; so are the directives of its forks, with a word on what says the same here.
 */
#include "ir/piper_reader.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lang/source.h"

/* ---- A directive ----------------------------------------------------------------------------- */

enum { REGIONS = 1 << PPS_DIR_PLACE | 1 << PPS_DIR_REPLICATE | 1 << PPS_DIR_SHARD };

static const struct {
    const char *op, *instead;
} fork_ops[] = {
    {"shard_tensor", "`shard FILTER on DEVICES as tensor` divides a region's weights"},
    {"ring_exchange", "`shard FILTER on DEVICES as sequence` is ring attention"},
    {"layout", "say what it derives: `shard ... as tensor`, `shard ... as sequence`, `replicate`"},
    {"mesh", "`let m = mesh(pp=4, dp=2)` in a script: m(pp=0) is a list of devices"},
    {"route", "nothing is needed: a region's inputs always come straight from their producers"},
    {"fuse_collectives", "`replicate ... bucket MIB` joins the reductions of gradients"},
};

static const pps_directive_kind kinds[] = {PPS_DIR_PLACE, PPS_DIR_REPLICATE, PPS_DIR_SHARD,
                                           PPS_DIR_SPLIT, PPS_DIR_ORDER};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static pps_status take_kind(piper_reader *r, json_t *object, pps_directive_kind *ret)
{
    piper_where where = {NULL, 0};
    const char *key, *names[N_KINDS];
    json_t *v = NULL, *member;
    json_object_foreach(object, key, member)
    {
        if (strcmp(key, "op") == 0) {
            v = member;
            break;
        }
        where.ordinal++;
    }
    if (!v)
        return pps_diag_done(piper_complain(r, 471, NULL, "this directive has no \"op\""));
    const char *op = json_string_value(v);
    if (!op)
        return piper_wrong_type(r, &where, "\"op\"", "a directive's name", v);
    for (int i = 0; i < N_KINDS; i++) {
        names[i] = pps_directive_word(kinds[i]);
        if (strcmp(op, names[i]) == 0) {
            *ret = kinds[i];
            return PPS_OK;
        }
    }
    for (size_t i = 0; i < sizeof fork_ops / sizeof *fork_ops; i++)
        if (strcmp(op, fork_ops[i].op) == 0) {
            pps_diag *d =
                piper_complain(r, 474, &where, "`%s` is a directive of a fork of Piper", op);
            pps_diag_help(d, "%s", fork_ops[i].instead);
            return pps_diag_done(d);
        }
    pps_diag *d = piper_complain(r, 471, &where, "Piper has no directive '%.60s'", op);
    pps_diag_note(d, "it has place, replicate, shard, split and order");
    const char *meant = pps_did_you_mean(op, names, N_KINDS);
    if (meant)
        pps_diag_help(d, "did you mean '%s'?", meant);
    return pps_diag_done(d);
}

/* A field that nobody reads: one that looks like a slip is an error, others are told at the end. */
static pps_status take_unknown(piper_reader *r, const piper_where *where, const char *key)
{
    const char *names[PIPER_N_FIELDS];
    size_t n = 0;
    for (int i = 0; i < PIPER_N_FIELDS; i++)
        if (piper_fields[i].of & (1u << r->kind))
            names[n++] = piper_fields[i].name;
    pps_span span = piper_locate(r->text, r->element, where, true);
    const char *meant = pps_did_you_mean(key, names, n);
    if (meant) {
        pps_diag *d = pps_diag_start(r->st, PPS_SEV_ERROR, 472, span, "`%s` has no field '%.60s'",
                                     pps_directive_word(r->kind), key);
        pps_diag_note(d, "Piper would silently ignore it");
        pps_diag_help(d, "did you mean '%s'?", meant);
        return pps_diag_done(d);
    }
    uint32_t i = 0;
    while (i < r->n_unknown &&
           (strcmp(r->unknown[i].name, key) != 0 || r->unknown[i].kind != r->kind))
        i++;
    if (i == PIPER_MAX_UNKNOWN)
        return PPS_OK;
    if (i == r->n_unknown) {
        const char *name = pps_intern(r->st, key);
        if (!name)
            return PPS_ERR_NOMEM;
        r->unknown[r->n_unknown++] = (piper_unknown){name, r->kind, {0, span}};
    }
    r->unknown[i].seen.n++;
    return PPS_OK;
}

static pps_status take_field(piper_reader *r, const piper_where *where, const char *key, json_t *v,
                             ir_directive *out)
{
    for (int i = 0; i < PIPER_N_FIELDS; i++) {
        const piper_field *row = &piper_fields[i];
        if (strcmp(key, row->name) != 0)
            continue;
        if (row->of & (1u << r->kind))
            return row->nullable && json_is_null(v) ? PPS_OK : row->take(r, where, v, out);
        pps_diag *d = pps_diag_start(r->st, PPS_SEV_ERROR, 472,
                                     piper_locate(r->text, r->element, where, true),
                                     "`%s` has no field '%s'", pps_directive_word(r->kind), key);
        if (r->kind == PPS_DIR_REPLICATE && strcmp(key, "stream") == 0)
            pps_diag_help(d, "it has reduce_stream and gather_stream");
        return pps_diag_done(d);
    }
    return take_unknown(r, where, key);
}

static pps_status check_needed(piper_reader *r, json_t *object)
{
    for (int i = 0; i < PIPER_N_FIELDS; i++)
        if ((piper_fields[i].needed_by & (1u << r->kind)) &&
            !json_object_get(object, piper_fields[i].name))
            return pps_diag_done(piper_complain(r, 472, NULL, "`%s` needs the field '%s'",
                                                pps_directive_word(r->kind), piper_fields[i].name));
    if (((1u << r->kind) & REGIONS) && !json_object_get(object, "devices") &&
        !json_object_get(object, "device"))
        return pps_diag_done(piper_complain(r, 472, NULL, "`%s` needs the field 'devices'",
                                            pps_directive_word(r->kind)));
    return PPS_OK;
}

static pps_status keep(piper_reader *r, const ir_directive *out)
{
    ir_program *p = r->p;
    if (r->kind == PPS_DIR_ORDER) {
        PPS_TRY(IR_GROW(&r->f->mem, p, orders));
        p->orders[p->n_orders++] = r->source;
        return PPS_OK;
    }
    if (p->n_directives == PIPER_MAX_DIRECTIVES)
        return pps_diag_done(piper_complain(r, 477, NULL, "more than %d directives besides order",
                                            PIPER_MAX_DIRECTIVES));
    PPS_TRY(IR_GROW(&r->f->mem, p, directives));
    p->kinds[p->n_directives] = (uint8_t)r->kind;
    p->directives[p->n_directives++] = *out;
    return PPS_OK;
}

static pps_status take_directive(piper_reader *r, json_t *object)
{
    if (!json_is_object(object))
        return pps_diag_done(piper_complain(r, 471, NULL, "a directive is an object, this is %s",
                                            piper_type(object)));
    PPS_TRY(take_kind(r, object, &r->kind));
    PPS_TRY(check_needed(r, object));
    r->source = arena_zero(&r->f->mem, sizeof *r->source);
    if (!r->source)
        return PPS_ERR_NOMEM;
    r->source->kind = r->kind;
    r->source->span = r->element;
    ir_directive out = {.source = r->source, .stream = IR_NONE, .gather = IR_NONE};
    piper_where where = {NULL, 0};
    const char *key;
    json_t *v;
    json_object_foreach(object, key, v)
    {
        if (strcmp(key, "op") != 0)
            PPS_TRY(take_field(r, &where, key, v, &out));
        where.ordinal++;
    }
    return keep(r, &out);
}

/* ---- The file -------------------------------------------------------------------------------- */

static pps_status syntax_error(piper_reader *r, uint32_t at, uint32_t end, const char *what)
{
    pps_span span = {r->element.file, at, at < end ? at + 1 : at};
    return pps_error(r->st, span, 470, "this JSON cannot be read: %s", what);
}

/* *ret_object is a new reference. */
static pps_status parse_element(piper_reader *r, uint32_t end, json_t **ret_object)
{
    pps_span e = r->element;
    json_error_t error;
    json_t *object = json_loadb(r->text + e.begin, e.end - e.begin,
                                JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!object && json_error_code(&error) == json_error_out_of_memory)
        return PPS_ERR_NOMEM;
    if (!object) {
        uint32_t at = error.position > 0 ? e.begin + (uint32_t)error.position - 1 : e.begin;
        return syntax_error(r, at < end ? at : end, end, error.text);
    }
    *ret_object = object;
    return PPS_OK;
}

static pps_status cut_element(piper_reader *r, uint32_t at, uint32_t end)
{
    pps_span *e = &r->element;
    e->begin = at;
    switch (piper_value_end(r->text, at, end, &e->end)) {
    case PIPER_WHOLE:
    case PIPER_UNCLOSED: /* the parser says where */
        return PPS_OK;
    case PIPER_DEEP:
        return pps_error(r->st, (pps_span){e->file, e->end, e->end + 1}, 477,
                         "no directive is nested this deeply");
    case PIPER_LARGE:
        return pps_error(r->st, (pps_span){e->file, at, at + 1}, 477,
                         "this directive is too large");
    }
    return PPS_OK;
}

static pps_status open_list(piper_reader *r, uint32_t end, uint32_t *ret_at)
{
    uint32_t at = piper_skip_space(r->text, 0, end);
    if (at == end)
        return syntax_error(r, at, end, "the file is empty");
    if (r->text[at] == '{')
        return pps_error(r->st, (pps_span){r->element.file, at, at + 1}, 471,
                         "Piper's file is a list of directives, this is an object");
    if (r->text[at] != '[')
        return syntax_error(r, at, end, "a list of directives begins with '['");
    *ret_at = piper_skip_space(r->text, at + 1, end);
    return PPS_OK;
}

/* Goes on after mistakes in a directive, not after broken syntax. */
static pps_status read_list(piper_reader *r, uint32_t end)
{
    pps_status result = PPS_OK;
    uint32_t at = 0;
    PPS_TRY(open_list(r, end, &at));
    bool more = at == end || r->text[at] != ']';
    while (more) {
        json_t *object = NULL;
        if (at == end)
            return syntax_error(r, at, end, "the list is not closed");
        PPS_TRY(cut_element(r, at, end));
        PPS_TRY(parse_element(r, end, &object));
        pps_status status = take_directive(r, object);
        json_decref(object);
        if (status != PPS_OK && status != PPS_ERR_SCRIPT)
            return status;
        result = status != PPS_OK ? status : result;
        at = piper_skip_space(r->text, r->element.end, end);
        more = at < end && r->text[at] == ',';
        if (!more && (at == end || r->text[at] != ']'))
            return syntax_error(r, at, end, "expected ',' or ']' here");
        at = more ? piper_skip_space(r->text, at + 1, end) : at;
    }
    at = piper_skip_space(r->text, at + 1, end);
    if (at != end)
        return syntax_error(r, at, end, "something follows the list");
    return result;
}

/* ---- Notes ----------------------------------------------------------------------------------- */

static void note(const piper_reader *r, const piper_tally *t, const char *title, ...)
    PPS_PRINTF(3, 4);
static void note(const piper_reader *r, const piper_tally *t, const char *title, ...)
{
    char text[512];
    va_list args;
    if (t->n == 0)
        return;
    va_start(args, title);
    vsnprintf(text, sizeof text, title, args);
    va_end(args);
    pps_diag *d = pps_diag_start(r->st, PPS_SEV_NOTE, 0, t->first, "%s", text);
    if (t->n > 1)
        pps_diag_note(d, "so at %u more places", t->n - 1);
    pps_diag_done(d);
}

/* Nothing tells a misspelt stream from one that is meant; so all are named. */
static void note_streams(const piper_reader *r)
{
    char all[400] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < r->f->n_streams && at < sizeof all - 1; i++) {
        int n = snprintf(all + at, sizeof all - at, "%s%s (%u)", i ? ", " : "", r->f->streams[i],
                         r->stream_uses[i].n);
        at += n > 0 ? (size_t)n : 0;
    }
    piper_tally first = {r->f->n_streams > 0, r->stream_uses[0].first};
    note(r, &first, "the streams of this file, and how often each is named: %s", all);
}

static void give_notes(const piper_reader *r)
{
    note(r, &r->string_index, "an index written as a string is read as a number, as Piper does");
    note(r, &r->device, "`device` is read as `devices`, as Piper does");
    note(r, &r->fraction, "a bucket that is not whole megabytes; a megabyte is read as 2^20 bytes");
    note(r, &r->prefetch, "`prefetch_distance` is a fork's; it is read as `prefetch`");
    note(r, &r->compute_stream,
         "'default_stream' is where Piper computes; here it is a stream of "
         "its own, so this communication may overlap computation");
    for (uint32_t i = 0; i < r->n_unknown; i++)
        note(r, &r->unknown[i].seen, "`%s` has no field '%.60s'; it is ignored",
             pps_directive_word(r->unknown[i].kind), r->unknown[i].name);
    note_streams(r);
}

/* Piper has one stream for all transfers: a second name is a mistake, most likely in spelling. */
static pps_status check_place_streams(const piper_file *f)
{
    const ir_program *p = &f->p;
    const ir_directive *first = NULL;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        const ir_directive *d = &p->directives[i];
        if (p->kinds[i] != PPS_DIR_PLACE || d->stream == IR_NONE)
            continue;
        if (!first)
            first = d;
        if (first->stream == d->stream)
            continue;
        pps_diag *diag = pps_diag_start(p->st, PPS_SEV_ERROR, 475, d->source->span,
                                        "two places name different streams: '%s' and '%s'",
                                        f->streams[first->stream], f->streams[d->stream]);
        pps_diag_label(diag, "stream '%s'", f->streams[d->stream]);
        pps_diag_also(diag, first->source->span, "stream '%s'", f->streams[first->stream]);
        pps_diag_note(diag, "Piper sends everything on one stream and refuses this too");
        return pps_diag_done(diag);
    }
    return PPS_OK;
}

static pps_status read_all(piper_reader *r)
{
    piper_file *f = r->f;
    f->p.kinds = arena_new(&f->mem, PIPER_MAX_DIRECTIVES);
    r->stream_uses = arena_zero(&f->mem, PIPER_MAX_STREAMS * sizeof *r->stream_uses);
    if (!f->p.kinds || !r->stream_uses)
        return PPS_ERR_NOMEM;
    const source_file *source = source_get(r->st, r->element.file);
    r->text = source->text;
    PPS_TRY(read_list(r, (uint32_t)source->bytes));
    PPS_TRY(piper_check_repeats(&f->p));
    PPS_TRY(check_place_streams(f));
    give_notes(r);
    return PPS_OK;
}

pps_status piper_read(pps_state *st, const char *name, const char *json, size_t bytes,
                      piper_file *ret)
{
    *ret = (piper_file){.p = {.st = st}};
    arena_init(&ret->mem, NULL, NULL);
    piper_reader r = {.st = st, .f = ret, .p = &ret->p};
    PPS_TRY(source_add(st, name, json, bytes, &r.element.file));
    return read_all(&r);
}
