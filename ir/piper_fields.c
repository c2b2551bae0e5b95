/* SPDX-License-Identifier: Apache-2.0
 *
 * piper_fields.c: the fields of Piper's directives: a row each in `piper_fields`, with the function
 * that checks a field's value and takes it into the directive's record.
 */
#include "ir/piper_reader.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lang/lex.h"

static pps_span span_of(const piper_reader *r, const piper_where *where)
{
    return piper_locate(r->text, r->element, where, false);
}

pps_diag *piper_complain(piper_reader *r, int code, const piper_where *where, const char *title,
                         ...)
{
    char text[512];
    va_list args;
    va_start(args, title);
    vsnprintf(text, sizeof text, title, args);
    va_end(args);
    return pps_diag_start(r->st, PPS_SEV_ERROR, code, span_of(r, where), "%s", text);
}

void piper_count(const piper_reader *r, piper_tally *t, const piper_where *where)
{
    if (t->n++ == 0)
        t->first = span_of(r, where);
}

/* As messages say it: "a string", ... */
const char *piper_type(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "a whole number";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

pps_status piper_wrong_type(piper_reader *r, const piper_where *where, const char *what,
                            const char *wanted, const json_t *got)
{
    return pps_diag_done(
        piper_complain(r, 472, where, "%s takes %s, got %s", what, wanted, piper_type(got)));
}

/* ---- Filters --------------------------------------------------------------------------------- */

/* Can this be a tag of a script? Letters and digits, and no word of the language. */
static bool is_name(const char *text)
{
    lexer lx;
    token first;
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        bool is_letter = c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z');
        if (!is_letter && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    if (n == 0 || n > 255)
        return false;
    lex_init(&lx, 0, text, n);
    lex_next(&lx, &first);
    return strcmp(lex_token_info(first.kind)->words, "a name") == 0;
}

static pps_status matches_nothing(piper_reader *r, const piper_where *where, const char *tag,
                                  const json_t *v)
{
    pps_diag *d;
    if (json_is_string(v))
        d = piper_complain(r, 473, where,
                           "%s: \"%.40s\" is no index, so this filter matches nothing", tag,
                           json_string_value(v));
    else
        d = piper_complain(r, 473, where, "%s: null matches no tag, so this filter matches nothing",
                           tag);
    if (json_is_null(v) || strcmp(json_string_value(v), "-") == 0)
        pps_diag_note(d, "Piper has no way to say \"without this tag\"; in a script `%s: -` is it",
                      tag);
    return pps_diag_done(d);
}

static pps_status take_pass(piper_reader *r, const piper_where *where, const json_t *v,
                            ir_term *term)
{
    const char *name = json_string_value(v);
    for (int pass = 0; name && pass < PPS_PASS_COUNT; pass++)
        if (strcmp(piper_pass_names[pass], name) == 0) {
            term->kind = PPS_TERM_PASS;
            term->pass = (uint8_t)pass;
            return PPS_OK;
        }
    if (!name)
        return piper_wrong_type(r, where, "PASS", "\"F\", \"B\", \"BI\" or \"BW\"", v);
    pps_diag *d = piper_complain(r, 472, where, "PASS is F, B, BI or BW, got \"%.40s\"", name);
    if (strncmp(name, "UPD", 3) == 0)
        pps_diag_note(d, "updates run last, where their parameters are; no row names them");
    return pps_diag_done(d);
}

static bool digits_only(const char *text)
{
    size_t n = strspn(text, "0123456789");
    return n > 0 && n < 10 && text[n] == 0;
}

static pps_status take_index(piper_reader *r, const piper_where *where, const char *tag,
                             const json_t *v, ir_term *term)
{
    const char *text = json_string_value(v);
    if (text && strcmp(text, "*") == 0) {
        term->kind = PPS_TERM_ANY;
        return PPS_OK;
    }
    if (json_is_null(v) || (text && !digits_only(text)))
        return matches_nothing(r, where, tag, v);
    if (!text && !json_is_integer(v))
        return piper_wrong_type(r, where, tag, "an index or \"*\"", v);
    if (text)
        piper_count(r, &r->string_index, where);
    json_int_t index = text ? strtol(text, NULL, 10) : json_integer_value(v);
    if (index < 0 || index > PIPER_MAX_INDEX)
        return pps_diag_done(piper_complain(
            r, 472, where, "%s: %" JSON_INTEGER_FORMAT " is not an index; indices are 0 to %d", tag,
            index, PIPER_MAX_INDEX));
    ir_program *p = r->p;
    PPS_TRY(IR_GROW(&r->f->mem, p, ints));
    *term = (ir_term){.tag = term->tag, .kind = PPS_TERM_SET, .begin = p->n_ints, .n = 1};
    p->ints[p->n_ints++] = (uint32_t)index;
    return PPS_OK;
}

/* `tag` is interned; rows name few tags very often, so what was found good is kept. */
static bool is_tag(piper_reader *r, const char *tag)
{
    for (uint32_t i = 0; i < r->n_tags; i++)
        if (r->tags[i] == tag)
            return true;
    if (!is_name(tag) || strcmp(tag, "COMM") == 0)
        return false;
    if (r->n_tags < PIPER_MAX_TAGS)
        r->tags[r->n_tags++] = tag;
    return true;
}

static pps_status take_term(piper_reader *r, const piper_where *where, const json_t *v,
                            ir_term *term)
{
    if (strcmp(term->tag, "PASS") == 0)
        return take_pass(r, where, v, term);
    if (!is_tag(r, term->tag)) {
        pps_span key = piper_locate(r->text, r->element, where, true);
        return pps_error(r->st, key, 472, "'%.60s' cannot be a tag of a model", term->tag);
    }
    return take_index(r, where, term->tag, v, term);
}

static pps_status take_filter(piper_reader *r, const piper_where *where, json_t *v, ir_filter *ret)
{
    ir_program *p = r->p;
    if (!json_is_object(v))
        return piper_wrong_type(r, where, "a filter", "an object like {\"PP\": 0}", v);
    if (json_object_size(v) > PPS_MAX_TERMS)
        return pps_diag_done(
            piper_complain(r, 472, where, "a filter has at most %d tags", PPS_MAX_TERMS));
    *ret = (ir_filter){.begin = p->n_terms};
    piper_where inner = {where, 0};
    const char *tag;
    json_t *value;
    json_object_foreach(v, tag, value)
    {
        ir_term term = {.tag = pps_intern(r->st, tag)};
        if (!term.tag)
            return PPS_ERR_NOMEM;
        PPS_TRY(take_term(r, &inner, value, &term));
        PPS_TRY(IR_GROW(&r->f->mem, p, terms));
        p->terms[p->n_terms++] = term;
        ret->n++;
        inner.ordinal++;
    }
    return PPS_OK;
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* The filter at the end of p->filters as an op, where it is one: then nothing of it is kept. */
static void take_op(ir_program *p, ir_entry *e)
{
    const ir_filter *f = &p->filters[p->n_filters];
    *e = (ir_entry){.stage = IR_NONE, .mb = IR_NONE, .pass = PPS_PASS_COUNT, .joins = e->joins};
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &p->terms[f->begin + i];
        if (t->kind == PPS_TERM_PASS)
            e->pass = t->pass;
        else if (t->kind == PPS_TERM_SET && strcmp(t->tag, "PP") == 0)
            e->stage = p->ints[t->begin];
        else if (t->kind == PPS_TERM_SET && strcmp(t->tag, "MB") == 0)
            e->mb = p->ints[t->begin];
    }
    e->general = f->n != 3 || e->stage == IR_NONE || e->mb == IR_NONE || e->pass == PPS_PASS_COUNT;
    if (e->general) {
        e->filter = p->n_filters++;
    } else {
        p->n_terms = f->begin;
        p->n_ints -= 2;
    }
}

static pps_status take_entry(piper_reader *r, const piper_where *where, json_t *v, bool joins)
{
    ir_program *p = r->p;
    ir_entry e = {.joins = joins};
    PPS_TRY(IR_GROW(&r->f->mem, p, filters));
    PPS_TRY(take_filter(r, where, v, &p->filters[p->n_filters]));
    take_op(p, &e);
    if (e.pass == PPS_PASS_COUNT) {
        pps_diag *d = piper_complain(r, 472, where, "a filter in a row must say its PASS");
        pps_diag_help(d, "{\"PP\": 0, \"MB\": 0, \"PASS\": \"F\"}");
        return pps_diag_done(d);
    }
    PPS_TRY(IR_GROW(&r->f->mem, p, entries));
    p->entries[p->n_entries++] = e;
    return PPS_OK;
}

static pps_status take_groups(piper_reader *r, const piper_where *where, json_t *v,
                              ir_directive *out)
{
    (void)out;
    ir_program *p = r->p;
    if (!json_is_array(v))
        return piper_wrong_type(r, where, "`filters`", "a list of groups of filters", v);
    if (json_array_size(v) < 2)
        return pps_diag_done(piper_complain(
            r, 472, where, "an order needs at least 2 groups, this has %zu", json_array_size(v)));
    ir_row row = {
        .begin = p->n_entries, .n_groups = (uint32_t)json_array_size(v), .directive = p->n_orders};
    piper_where at_group = {where, 0}, at_filter = {&at_group, 0};
    size_t g, i;
    json_t *group, *filter;
    json_array_foreach(v, g, group)
    {
        at_group.ordinal = (uint32_t)g;
        if (!json_is_array(group))
            return piper_wrong_type(r, &at_group, "a group", "a list of filters", group);
        if (json_array_size(group) == 0)
            return pps_diag_done(piper_complain(r, 472, &at_group, "this group has no filters"));
        json_array_foreach(group, i, filter)
        {
            at_filter.ordinal = (uint32_t)i;
            PPS_TRY(take_entry(r, &at_filter, filter, i > 0));
        }
    }
    row.n = p->n_entries - row.begin;
    PPS_TRY(IR_GROW(&r->f->mem, p, rows));
    p->rows[p->n_rows++] = row;
    return PPS_OK;
}

/* ---- Other fields ---------------------------------------------------------------------------- */

static pps_status take_subject(piper_reader *r, const piper_where *where, json_t *v,
                               ir_directive *out)
{
    PPS_TRY(take_filter(r, where, v, &out->filter));
    out->filter.span = span_of(r, where);
    return PPS_OK;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static pps_status check_twice(piper_reader *r, const piper_where *where, const ir_devices *devices)
{
    size_t bytes = devices->n * sizeof(uint32_t);
    uint32_t *sorted = malloc(bytes);
    if (!sorted)
        return PPS_ERR_NOMEM;
    memcpy(sorted, r->p->ints + devices->begin, bytes);
    qsort(sorted, devices->n, sizeof *sorted, by_value);
    uint32_t i = 1;
    while (i < devices->n && sorted[i] != sorted[i - 1])
        i++;
    uint32_t twice = i < devices->n ? sorted[i] : 0;
    free(sorted);
    if (i >= devices->n)
        return PPS_OK;
    return pps_diag_done(piper_complain(r, 472, where, "device %u is in this list twice", twice));
}

static pps_status take_device(piper_reader *r, const piper_where *where, const json_t *v)
{
    ir_program *p = r->p;
    if (!json_is_integer(v))
        return piper_wrong_type(r, where, "a list of devices", "device numbers", v);
    json_int_t device = json_integer_value(v);
    if (device < 0 || device >= INT32_MAX)
        return pps_diag_done(piper_complain(
            r, 472, where, "%" JSON_INTEGER_FORMAT " is not a device; devices count from 0",
            device));
    PPS_TRY(IR_GROW(&r->f->mem, p, ints));
    p->ints[p->n_ints++] = (uint32_t)device;
    return PPS_OK;
}

static pps_status take_devices(piper_reader *r, const piper_where *where, json_t *v,
                               ir_directive *out)
{
    if (out->devices.n > 0)
        return pps_diag_done(
            piper_complain(r, 472, where, "`device` and `devices` say the same twice"));
    out->devices = (ir_devices){.begin = r->p->n_ints, .n = 1, .n_groups = 1};
    if (json_is_integer(v))
        return take_device(r, where, v);
    if (!json_is_array(v))
        return piper_wrong_type(r, where, "`devices`", "a list of devices", v);
    if (json_array_size(v) == 0)
        return pps_diag_done(piper_complain(r, 472, where, "this list has no devices"));
    out->devices.n = (uint32_t)json_array_size(v);
    piper_where inner = {where, 0};
    size_t i;
    json_t *device;
    json_array_foreach(v, i, device)
    {
        inner.ordinal = (uint32_t)i;
        PPS_TRY(take_device(r, &inner, device));
    }
    return check_twice(r, where, &out->devices);
}

static pps_status take_device_quirk(piper_reader *r, const piper_where *where, json_t *v,
                                    ir_directive *out)
{
    piper_count(r, &r->device, where);
    return take_devices(r, where, v, out);
}

static pps_status take_stream_name(piper_reader *r, const piper_where *where, const json_t *v,
                                   uint32_t *ret)
{
    piper_file *f = r->f;
    const char *name = json_string_value(v);
    if (!name)
        return piper_wrong_type(r, where, "a stream", "a name", v);
    if (!*name || strlen(name) > 255)
        return pps_diag_done(piper_complain(r, 472, where, "this cannot be the name of a stream"));
    name = pps_intern(r->st, name);
    if (!name)
        return PPS_ERR_NOMEM;
    if (strcmp(name, "default_stream") == 0)
        piper_count(r, &r->compute_stream, where);
    uint32_t i = 0;
    while (i < f->n_streams && f->streams[i] != name)
        i++;
    if (i == PIPER_MAX_STREAMS)
        return pps_diag_done(
            piper_complain(r, 477, where, "more than %d streams", PIPER_MAX_STREAMS));
    if (i == f->n_streams) {
        PPS_TRY(IR_GROW(&f->mem, f, streams));
        f->streams[f->n_streams++] = name;
    }
    piper_count(r, &r->stream_uses[i], where);
    *ret = i;
    return PPS_OK;
}

static pps_status take_stream(piper_reader *r, const piper_where *where, json_t *v,
                              ir_directive *out)
{
    return take_stream_name(r, where, v, &out->stream);
}

static pps_status take_gather(piper_reader *r, const piper_where *where, json_t *v,
                              ir_directive *out)
{
    return take_stream_name(r, where, v, &out->gather);
}

static pps_status take_flag(piper_reader *r, const piper_where *where, const json_t *v,
                            ir_directive *out, uint32_t level)
{
    if (!json_is_boolean(v))
        return piper_wrong_type(r, where, level == 3 ? "`shard_params`" : "`shard_grads`",
                                "true or false", v);
    if (json_is_true(v) && out->zero < level)
        out->zero = level;
    return PPS_OK;
}

static pps_status take_shard_params(piper_reader *r, const piper_where *where, json_t *v,
                                    ir_directive *out)
{
    return take_flag(r, where, v, out, 3);
}

static pps_status take_shard_grads(piper_reader *r, const piper_where *where, json_t *v,
                                   ir_directive *out)
{
    return take_flag(r, where, v, out, 2);
}

static pps_status take_bucket(piper_reader *r, const piper_where *where, json_t *v,
                              ir_directive *out)
{
    if (!json_is_number(v))
        return piper_wrong_type(r, where, "`bucket_size`", "a number of megabytes", v);
    double mb = json_number_value(v), bytes = mb * 1048576.0;
    if (!(bytes >= 4) || mb > 1e9)
        return pps_diag_done(piper_complain(r, 472, where, "a bucket cannot have %g MB", mb));
    out->bucket_bytes = (uint64_t)bytes;
    if (mb != floor(mb))
        piper_count(r, &r->fraction, where);
    return PPS_OK;
}

static pps_status take_count(piper_reader *r, const piper_where *where, const char *what,
                             const json_t *v, uint32_t *ret)
{
    if (!json_is_integer(v))
        return piper_wrong_type(r, where, what, "a number from 1 up", v);
    json_int_t n = json_integer_value(v);
    if (n < 1 || n > PIPER_MAX_INDEX)
        return pps_diag_done(piper_complain(
            r, 472, where, "%s is 1 to %d, got %" JSON_INTEGER_FORMAT, what, PIPER_MAX_INDEX, n));
    *ret = (uint32_t)n;
    return PPS_OK;
}

static pps_status take_parts(piper_reader *r, const piper_where *where, json_t *v,
                             ir_directive *out)
{
    return take_count(r, where, "`num_microbatches`", v, &out->n);
}

static pps_status take_prefetch(piper_reader *r, const piper_where *where, json_t *v,
                                ir_directive *out)
{
    piper_count(r, &r->prefetch, where);
    return take_count(r, where, "`prefetch_distance`", v, &out->prefetch);
}

static pps_status take_regather(piper_reader *r, const piper_where *where, json_t *v,
                                ir_directive *out)
{
    (void)out;
    if (json_is_true(v))
        return PPS_OK;
    pps_diag *d = piper_complain(r, 474, where, "`regather` can only be left at true");
    pps_diag_note(d, "with zero 3 the schedule decides how long parameters stay; one gather serves "
                     "a forward and a backward that are neighbours");
    return pps_diag_done(d);
}

static pps_status take_dim(piper_reader *r, const piper_where *where, json_t *v, ir_directive *out)
{
    const char *name = json_string_value(v);
    if (!name)
        return piper_wrong_type(r, where, "`dim_name`", "a tag's name", v);
    if (!is_name(name) || strcmp(name, "PP") == 0 || strcmp(name, "PASS") == 0 ||
        strcmp(name, "COMM") == 0)
        return pps_diag_done(
            piper_complain(r, 472, where, "'%.60s' cannot name parts of the batch", name));
    out->tag = pps_intern(r->st, name);
    return out->tag ? PPS_OK : PPS_ERR_NOMEM;
}

/* ---- The table ------------------------------------------------------------------------------- */

enum {
    PLACE = 1 << PPS_DIR_PLACE,
    REPLICATE = 1 << PPS_DIR_REPLICATE,
    SHARD = 1 << PPS_DIR_SHARD,
    SPLIT = 1 << PPS_DIR_SPLIT,
    ORDER = 1 << PPS_DIR_ORDER,
    REGIONS = PLACE | REPLICATE | SHARD
};

const piper_field piper_fields[PIPER_N_FIELDS] = {
    {"filter", REGIONS | SPLIT, REGIONS | SPLIT, false, take_subject},
    {"filters", ORDER, ORDER, false, take_groups},
    {"devices", REGIONS, 0, false, take_devices},
    {"device", REGIONS, 0, false, take_device_quirk},
    {"stream", PLACE | SHARD, 0, true, take_stream},
    {"gather_stream", REPLICATE, 0, true, take_gather},
    {"reduce_stream", REPLICATE, 0, true, take_stream},
    {"shard_params", REPLICATE, 0, true, take_shard_params},
    {"shard_grads", REPLICATE, 0, true, take_shard_grads},
    {"bucket_size", REPLICATE, 0, true, take_bucket},
    {"prefetch_distance", REPLICATE, 0, true, take_prefetch},
    {"regather", REPLICATE, 0, true, take_regather},
    {"dim_name", SPLIT, SPLIT, false, take_dim},
    {"num_microbatches", SPLIT, SPLIT, false, take_parts},
};
