/* SPDX-License-Identifier: Apache-2.0
 *
 * piper_write.c: a program's directives as Piper's file, a directive a line, rows a group a line.
 *
 * Everything is checked before anything is written, so all that Piper cannot say is reported at
 * once. Then places come first, replicate before shard (in Piper their order matters), split,
 * order. Ranges and lists of indices become an entry each, in places of PP also `*`.
 */
#include "ir/piper_form.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ir/trace.h"

enum { MAX_ENTRIES = 1 << 20 /* that one directive expands to */ };

typedef struct export_cx {
    const ir_program *p;
    piper_text t;
    uint32_t n_stages;     /* of the graph; 0: no graph */
    const char *split_tag; /* or NULL */
    uint32_t n_groups;     /* different device lists of places, as far as more than 1 matters */
    bool failed, first;
} export_cx;

/* ---- What Piper cannot say ------------------------------------------------------------------- */

static pps_diag *refuse(export_cx *x, const pps_directive *d, pps_span span, const char *title, ...)
    PPS_PRINTF(4, 5);
static pps_diag *refuse(export_cx *x, const pps_directive *d, pps_span span, const char *title, ...)
{
    char text[256];
    va_list args;
    va_start(args, title);
    vsnprintf(text, sizeof text, title, args);
    va_end(args);
    x->failed = true;
    return form_diag((tracer *)x->p, d, span, 490, "Piper cannot say this: %s", text);
}

static bool is_tag(const ir_term *t, const char *tag)
{
    return strcmp(t->tag, tag) == 0;
}

/* `regions`: the filter of a directive about regions, which have neither microbatch nor pass. */
static void check_filter(export_cx *x, const pps_directive *d, const ir_filter *f, bool regions)
{
    const ir_program *p = x->p;
    uint64_t entries = 1;
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &p->terms[f->begin + i];
        bool is_mb = is_tag(t, "MB") || (x->split_tag && is_tag(t, x->split_tag));
        if (t->kind == PPS_TERM_SET && entries <= MAX_ENTRIES)
            entries *= t->n;
        if (t->kind == PPS_TERM_ABSENT) {
            pps_diag *diag = refuse(x, d, f->span, "\"without the tag %s\"", t->tag);
            pps_diag_note(diag, "its filters have indices and `*`");
            pps_diag_done(diag);
        } else if (t->kind == PPS_TERM_COMM) {
            pps_diag_done(refuse(x, d, f->span, "the place of a transfer in a row"));
        } else if (regions && (t->kind == PPS_TERM_PASS || is_mb)) {
            pps_diag_done(refuse(x, d, f->span, "a %s that depends on %s",
                                 pps_directive_word(d->kind), t->tag));
        }
    }
    if (entries > MAX_ENTRIES)
        pps_diag_done(refuse(x, d, f->span, "a filter of more than %d indices", MAX_ENTRIES));
}

/* "every 2" */
static pps_span clause_span(const pps_clause *c)
{
    pps_span span = c->word_span;
    if (c->span.file == span.file && c->span.end > span.end)
        span.end = c->span.end;
    return span;
}

static void check_clause(export_cx *x, const pps_directive *d, const char *word, const char *why)
{
    const pps_clause *c = pps_directive_clause(d, word);
    if (!c)
        return;
    pps_diag *diag = refuse(x, d, clause_span(c), "`%s`", word);
    pps_diag_note(diag, "%s", why);
    pps_diag_done(diag);
}

static void check_devices(export_cx *x, const ir_directive *d)
{
    if (d->devices.n_groups > 1)
        pps_diag_done(refuse(x, d->source, d->devices.span, "several groups of devices"));
}

static void check_replicate(export_cx *x, const ir_directive *d)
{
    check_devices(x, d);
    check_clause(x, d->source, "every", "it reduces after every microbatch");
    check_clause(x, d->source, "prefetch", "it gathers whenever the stream is free");
    const pps_clause *zero = pps_directive_clause(d->source, "zero");
    if (d->zero != 1 || !zero)
        return;
    pps_diag *diag =
        refuse(x, d->source, clause_span(zero), "zero 1, the optimizer state alone sharded");
    pps_diag_note(diag, "it shards gradients (zero 2), or gradients and parameters (zero 3)");
    pps_diag_done(diag);
}

static void check_shard(export_cx *x, const ir_directive *d)
{
    check_devices(x, d);
    check_clause(x, d->source, "capacity", "its experts take every token");
    if (strcmp(d->as, "expert") == 0)
        return;
    const pps_clause *as = pps_directive_clause(d->source, "as");
    pps_diag_done(
        refuse(x, d->source, as ? clause_span(as) : d->source->span, "`shard ... as %s`", d->as));
}

static void check_split(export_cx *x, const ir_directive *d, const ir_directive **first)
{
    for (uint32_t i = 0; i < d->filter.n; i++) {
        const ir_term *t = &x->p->terms[d->filter.begin + i];
        if (t->kind != PPS_TERM_SET || t->n == 1)
            continue;
        pps_diag *diag = refuse(x, d->source, d->filter.span, "one split of several regions");
        pps_diag_help(diag, "if this is the whole model, write `split {}`");
        pps_diag_done(diag);
    }
    if (d->along_sequence) {
        const pps_clause *along = pps_directive_clause(d->source, "along");
        pps_diag *diag = refuse(x, d->source, clause_span(along), "`along sequence`");
        pps_diag_note(diag, "its splits divide the batch, and nothing passes between their parts");
        pps_diag_done(diag);
        return;
    }
    if (*first) {
        pps_diag *diag = refuse(x, d->source, d->source->span, "a second dimension that is split");
        pps_diag_also(diag, (*first)->source->span, "the first split");
        pps_diag_done(diag);
    }
    *first = *first ? *first : d;
}

static const char *stream_name(const export_cx *x, uint32_t stream)
{
    return stream == IR_NONE ? NULL : pps_stream_name(x->p->st, stream);
}

/* `{}` or `{PP: *}` */
static bool is_everything(const ir_program *p, const ir_filter *f)
{
    const ir_term *t = &p->terms[f->begin];
    return f->n == 0 || (f->n == 1 && is_tag(t, "PP") && t->kind == PPS_TERM_ANY);
}

static bool names_stages(const export_cx *x, const ir_filter *f)
{
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &x->p->terms[f->begin + i];
        if (is_tag(t, "PP") && t->kind == PPS_TERM_SET)
            return true;
    }
    return x->n_stages > 0 && is_everything(x->p, f);
}

/* Piper has one stream for all transfers between places. */
static void check_place(export_cx *x, const ir_directive *d, const ir_directive **first)
{
    check_devices(x, d);
    if (!names_stages(x, &d->filter)) {
        pps_diag *diag = refuse(x, d->source, d->filter.span, "a place that names no stage");
        pps_diag_help(diag, "name the indices of PP: place {PP: 0} on [0]");
        pps_diag_done(diag);
    }
    const ir_devices *devices = &d->devices;
    if (!*first) {
        *first = d;
        x->n_groups = 1;
        return;
    }
    if (devices->n != (*first)->devices.n ||
        memcmp(x->p->ints + devices->begin, x->p->ints + (*first)->devices.begin,
               devices->n * sizeof(uint32_t)) != 0)
        x->n_groups = 2;
    if (d->stream == (*first)->stream)
        return;
    pps_diag *diag = refuse(x, d->source, d->source->span, "places with different streams");
    const char *mine = stream_name(x, d->stream), *other = stream_name(x, (*first)->stream);
    pps_diag_label(diag, mine ? "stream '%s'" : "no stream", mine);
    pps_diag_also(diag, (*first)->source->span, other ? "stream '%s'" : "no stream", other);
    pps_diag_done(diag);
}

static void check_row(export_cx *x, const ir_row *row)
{
    const ir_program *p = x->p;
    const pps_directive *d = p->orders[row->directive];
    if (row->n_groups < 2)
        pps_diag_done(refuse(x, d, d->subject_span, "a row of one group"));
    for (uint32_t i = 0; i < row->n; i++) {
        const ir_entry *e = &p->entries[row->begin + i];
        bool failed = x->failed;
        if (e->general) {
            x->failed = false;
            check_filter(x, d, &p->filters[e->filter], false);
        } else if (e->comm != PPS_COMM_NONE) {
            pps_span span = e->origin ? pps_origin_span(p->st, e->origin) : d->subject_span;
            pps_diag_done(refuse(x, d, span, "the place of a transfer in a row"));
            return;
        }
        if (e->general && x->failed) /* one mistake per row */
            return;
        x->failed = failed;
    }
}

/* What Piper wants and a script may leave out. */
static void check_missing(export_cx *x, const ir_directive *place)
{
    const ir_program *p = x->p;
    bool orderless = p->n_rows == 0 && x->n_groups > 1;
    if (place && !orderless)
        return;
    x->failed = true;
    pps_span span = place          ? place->source->span
                    : p->has_train ? p->train.source->span
                                   : (pps_span){0};
    pps_diag *d = pps_diag_start(p->st, PPS_SEV_ERROR, 491, span,
                                 place ? "Piper needs the order of stages on several devices"
                                       : "Piper needs a place for every stage");
    if (place)
        pps_diag_note(d, "here work without `order` runs as 1F1B; there it is an error");
    pps_diag_help(d, place ? "say it: order one_f_one_b(RANKS, MICROBATCHES)"
                           : "place {PP: 0} on [0]");
    pps_diag_done(d);
}

static void check_all(export_cx *x)
{
    const ir_program *p = x->p;
    const ir_directive *place = NULL, *split = NULL;
    for (uint32_t i = 0; i < p->n_directives && !x->split_tag; i++)
        if (p->kinds[i] == PPS_DIR_SPLIT && !p->directives[i].along_sequence)
            x->split_tag = p->directives[i].tag;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        const ir_directive *d = &p->directives[i];
        check_filter(x, d->source, &d->filter, true);
        switch ((pps_directive_kind)p->kinds[i]) {
        case PPS_DIR_PLACE:
            check_place(x, d, &place);
            break;
        case PPS_DIR_REPLICATE:
            check_replicate(x, d);
            break;
        case PPS_DIR_SHARD:
            check_shard(x, d);
            break;
        case PPS_DIR_SPLIT:
            check_split(x, d, &split);
            break;
        case PPS_DIR_RECOMPUTE:
        case PPS_DIR_OFFLOAD:
            pps_diag_done(
                refuse(x, d->source, d->source->span, "`%s`", pps_directive_word(d->source->kind)));
            break;
        case PPS_DIR_TRAIN:
        case PPS_DIR_ORDER:
        case PPS_DIR_COUNT:
            break;
        }
    }
    for (uint32_t i = 0; i < p->n_rows; i++)
        check_row(x, &p->rows[i]);
    check_missing(x, place);
    if (!p->has_train && piper_check_repeats(p) != PPS_OK) /* else the compiler says it better */
        x->failed = true;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static void put_string(piper_text *t, const char *text)
{
    piper_put(t, "\"");
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            piper_put(t, "\\%c", *text);
        else if ((unsigned char)*text < ' ')
            piper_put(t, "\\u%04x", (unsigned)*text);
        else
            piper_put_text(t, text, 1);
    piper_put(t, "\"");
}

/* One of the filters that `f` expands to: `at` is the position in each term's indices. */
static void put_filter(export_cx *x, const ir_filter *f, const uint32_t at[PPS_MAX_TERMS])
{
    const ir_program *p = x->p;
    uint32_t order[PPS_MAX_TERMS];
    piper_term_order(p, f, order);
    piper_put(&x->t, "{");
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &p->terms[f->begin + order[i]];
        piper_put(&x->t, i ? ", " : "");
        put_string(&x->t, t->tag);
        if (t->kind == PPS_TERM_PASS)
            piper_put(&x->t, ": \"%s\"", piper_pass_names[t->pass]);
        else if (t->kind == PPS_TERM_ANY)
            piper_put(&x->t, ": \"*\"");
        else
            piper_put(&x->t, ": %u", p->ints[t->begin + at[order[i]]]);
    }
    piper_put(&x->t, "}");
}

/* The next combination of positions; false after the last. */
static bool next_filter(const ir_program *p, const ir_filter *f, uint32_t at[PPS_MAX_TERMS])
{
    for (uint32_t i = f->n; i-- > 0;) {
        const ir_term *t = &p->terms[f->begin + i];
        if (t->kind == PPS_TERM_SET && ++at[i] < t->n)
            return true;
        at[i] = 0;
    }
    return false;
}

static void begin_entry(export_cx *x, pps_directive_kind kind)
{
    piper_put(&x->t, "%s  {\"op\": \"%s\"", x->first ? "" : ",\n", pps_directive_word(kind));
    x->first = false;
}

static void put_stream(export_cx *x, const char *field, uint32_t stream)
{
    if (stream == IR_NONE)
        return;
    piper_put(&x->t, ", \"%s\": ", field);
    put_string(&x->t, stream_name(x, stream));
}

static void put_fields(export_cx *x, pps_directive_kind kind, const ir_directive *d)
{
    char number[40];
    if (kind == PPS_DIR_SPLIT) {
        piper_put(&x->t, ", \"dim_name\": \"%s\", \"num_microbatches\": %u}", d->tag, d->n);
        return;
    }
    piper_put(&x->t, ", \"devices\": [");
    for (uint32_t i = 0; i < d->devices.n; i++)
        piper_put(&x->t, "%s%u", i ? ", " : "", x->p->ints[d->devices.begin + i]);
    piper_put(&x->t, "]");
    put_stream(x, kind == PPS_DIR_REPLICATE ? "reduce_stream" : "stream", d->stream);
    put_stream(x, "gather_stream", d->gather);
    if (d->zero == 2)
        piper_put(&x->t, ", \"shard_grads\": true");
    if (d->zero == 3)
        piper_put(&x->t, ", \"shard_params\": true");
    if (d->bucket_bytes)
        piper_put(&x->t, ", \"bucket_size\": %s", piper_mib(d->bucket_bytes, number));
    piper_put(&x->t, "}");
}

static void put_directive(export_cx *x, pps_directive_kind kind, const ir_directive *d)
{
    uint32_t at[PPS_MAX_TERMS] = {0};
    do {
        begin_entry(x, kind);
        piper_put(&x->t, ", \"filter\": ");
        put_filter(x, &d->filter, at);
        put_fields(x, kind, d);
    } while (next_filter(x->p, &d->filter, at));
}

static void put_place_of_all(export_cx *x, const ir_directive *d)
{
    for (uint32_t s = 0; s < x->n_stages; s++) {
        begin_entry(x, PPS_DIR_PLACE);
        piper_put(&x->t, ", \"filter\": {\"PP\": %u}", s);
        put_fields(x, PPS_DIR_PLACE, d);
    }
}

static void put_entry(export_cx *x, const ir_entry *e)
{
    const ir_program *p = x->p;
    if (!e->general) {
        piper_put(&x->t, "{\"PP\": %u, \"MB\": %u, \"PASS\": \"%s\"}", e->stage, e->mb,
                  piper_pass_names[e->pass]);
        return;
    }
    uint32_t at[PPS_MAX_TERMS] = {0}, n = 0;
    do {
        piper_put(&x->t, n++ ? ", " : "");
        put_filter(x, &p->filters[e->filter], at);
    } while (next_filter(p, &p->filters[e->filter], at));
}

static void put_row(export_cx *x, const ir_row *row)
{
    begin_entry(x, PPS_DIR_ORDER);
    piper_put(&x->t, ", \"filters\": [\n");
    for (uint32_t i = 0; i < row->n; i++) {
        const ir_entry *e = &x->p->entries[row->begin + i];
        piper_put(&x->t, i == 0 ? "    [" : e->joins ? ", " : "],\n    [");
        put_entry(x, e);
    }
    piper_put(&x->t, "]\n  ]}");
}

static void put_all(export_cx *x)
{
    static const pps_directive_kind kinds[] = {PPS_DIR_PLACE, PPS_DIR_REPLICATE, PPS_DIR_SHARD,
                                               PPS_DIR_SPLIT};
    const ir_program *p = x->p;
    bool has_split = false;
    piper_put(&x->t, "[\n");
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (uint32_t i = 0; i < p->n_directives; i++) {
            const ir_directive *d = &p->directives[i];
            if (p->kinds[i] != kinds[k])
                continue;
            has_split |= kinds[k] == PPS_DIR_SPLIT;
            if (kinds[k] == PPS_DIR_PLACE && is_everything(p, &d->filter))
                put_place_of_all(x, d);
            else
                put_directive(x, kinds[k], d);
        }
    if (!has_split) { /* Piper wants one; into one part it changes nothing */
        begin_entry(x, PPS_DIR_SPLIT);
        piper_put(&x->t, ", \"filter\": {}, \"dim_name\": \"MB\", \"num_microbatches\": 1}");
    }
    for (uint32_t i = 0; i < p->n_rows; i++)
        put_row(x, &p->rows[i]);
    piper_put(&x->t, "\n]\n");
}

/* Thread blocks of a stream have no field; that changes speed alone. */
static void note_ctas(const export_cx *x)
{
    for (uint32_t i = 0; i < pps_stream_count(x->p->st); i++)
        if (pps_stream_ctas(x->p->st, i))
            pps_diag_done(pps_diag_start(x->p->st, PPS_SEV_NOTE, 0, (pps_span){0},
                                         "the ctas of stream '%s' are left out: Piper has no field "
                                         "for them",
                                         pps_stream_name(x->p->st, i)));
}

pps_status piper_export(const ir_program *p, char **ret_json)
{
    export_cx x = {.p = p, .first = true};
    for (uint32_t i = 0; p->has_train && p->graph && i < p->graph->n_regions; i++)
        if (strcmp(p->graph->regions[i].tag, "PP") == 0 && p->graph->regions[i].index >= x.n_stages)
            x.n_stages = p->graph->regions[i].index + 1;
    check_all(&x);
    if (x.failed)
        return PPS_ERR_SCRIPT;
    note_ctas(&x);
    put_all(&x);
    char *json = piper_text_done(&x.t);
    if (!json)
        return PPS_ERR_NOMEM;
    *ret_json = json;
    return PPS_OK;
}
