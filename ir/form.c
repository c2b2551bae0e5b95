/* SPDX-License-Identifier: Apache-2.0
 *
 * form.c: a directive's subject and clauses as plain records, checked for form: what must be there,
 * of which type, in which range. Whether it matches and makes sense is for the passes.
 */
#include "ir/trace.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pps_diag *form_diag(tracer *tr, const pps_directive *d, pps_span span, int code, const char *title,
                    ...)
{
    char text[512];
    va_list args;
    va_start(args, title);
    vsnprintf(text, sizeof text, title, args);
    va_end(args);
    pps_diag *diag = pps_diag_start(tr->st, PPS_SEV_ERROR, code, span, "%s", text);
    if (d && (d->n_frames > 0 || (d->context && d->context[0])))
        pps_diag_frames(diag, d->frames, d->n_frames, d->context ? d->context : "");
    return diag;
}

static const char *word_of(const pps_directive *d)
{
    return pps_directive_word(d->kind);
}

/* ---- Filters ------------------------------------------------------------------------------------
 */

static pps_status take_ints(tracer *tr, const pps_directive *d, const pps_term *term, pps_span span,
                            ir_term *ret)
{
    ir_program *p = &tr->program;
    ret->begin = p->n_ints;
    ret->n = (uint32_t)term->n_ints;
    for (size_t i = 0; i < term->n_ints; i++) {
        if (term->ints[i] < 0 || term->ints[i] >= UINT32_MAX)
            return pps_diag_done(form_diag(tr, d, span, 443,
                                           "%s: %" PRId64 " is not an index; indices count from 0",
                                           term->tag, term->ints[i]));
        PPS_TRY(IR_GROW(&tr->mem, p, ints));
        p->ints[p->n_ints++] = (uint32_t)term->ints[i];
    }
    return PPS_OK;
}

pps_status form_filter(tracer *tr, const pps_directive *d, pps_value v, pps_span span,
                       ir_filter *ret)
{
    pps_term terms[PPS_MAX_TERMS];
    int64_t scratch[2];
    int n = pps_filter_terms(tr->st, v, terms, scratch);
    if (n < 0) {
        pps_diag *diag = form_diag(tr, d, span, 441, "%s needs a filter, got %s",
                                   d ? word_of(d) : "this", trace_kind_name(tr, v));
        if (pps_typeof(v) == PPS_MAP)
            pps_diag_help(diag, "filter(m) turns a map of tags into a filter");
        return pps_diag_done(diag);
    }
    ir_program *p = &tr->program;
    *ret = (ir_filter){p->n_terms, (uint32_t)n, span};
    for (int i = 0; i < n; i++) {
        ir_term term = {.tag = terms[i].tag,
                        .kind = (uint8_t)terms[i].kind,
                        .pass = (uint8_t)terms[i].pass,
                        .comm = (uint8_t)terms[i].comm};
        if (terms[i].kind == PPS_TERM_SET)
            PPS_TRY(take_ints(tr, d, &terms[i], span, &term));
        PPS_TRY(IR_GROW(&tr->mem, p, terms));
        p->terms[p->n_terms++] = term;
    }
    return PPS_OK;
}

/* ---- Clauses ------------------------------------------------------------------------------------
 */

static pps_status need(tracer *tr, const pps_directive *d, const char *word, const char *example,
                       const pps_clause **ret)
{
    const pps_clause *c = pps_directive_clause(d, word);
    if (!c) {
        pps_diag *diag =
            form_diag(tr, d, d->span, 440, "`%s` needs the clause `%s`", word_of(d), word);
        pps_diag_help(diag, "%s", example);
        return pps_diag_done(diag);
    }
    *ret = c;
    return PPS_OK;
}

static pps_status wrong_type(tracer *tr, const pps_directive *d, const pps_clause *c,
                             const char *wanted)
{
    return pps_diag_done(form_diag(tr, d, c->span, 441, "`%s` takes %s, got %s", c->word, wanted,
                                   trace_kind_name(tr, c->value)));
}

/* The int of clause `word`, or `*ret` as it was when there is none. */
static pps_status clause_int(tracer *tr, const pps_directive *d, const char *word, int64_t least,
                             int64_t most, int64_t *ret)
{
    const pps_clause *c = pps_directive_clause(d, word);
    if (!c)
        return PPS_OK;
    if (pps_typeof(c->value) != PPS_INT)
        return wrong_type(tr, d, c, "an int");
    int64_t v = pps_as_int(c->value);
    if (v >= least && v <= most) {
        *ret = v;
        return PPS_OK;
    }
    pps_diag *diag =
        most >= INT32_MAX
            ? form_diag(tr, d, c->span, 443, "`%s` is %" PRId64 " or more, got %" PRId64, c->word,
                        least, v)
            : form_diag(tr, d, c->span, 443, "`%s` is %" PRId64 " to %" PRId64 ", got %" PRId64,
                        c->word, least, most, v);
    return pps_diag_done(diag);
}

static pps_status clause_u32(tracer *tr, const pps_directive *d, const char *word, uint32_t least,
                             uint32_t most, uint32_t *ret)
{
    int64_t v = *ret;
    PPS_TRY(clause_int(tr, d, word, least, most, &v));
    *ret = (uint32_t)v;
    return PPS_OK;
}

static pps_status clause_bool(tracer *tr, const pps_directive *d, const char *word, bool *ret)
{
    const pps_clause *c = pps_directive_clause(d, word);
    if (!c)
        return PPS_OK;
    if (pps_typeof(c->value) != PPS_BOOL)
        return wrong_type(tr, d, c, "true or false");
    *ret = pps_as_bool(c->value);
    return PPS_OK;
}

/* A number above 0. */
static pps_status clause_positive(tracer *tr, const pps_directive *d, const char *word, double *ret)
{
    const pps_clause *c = pps_directive_clause(d, word);
    if (!c)
        return PPS_OK;
    if (pps_typeof(c->value) != PPS_INT && pps_typeof(c->value) != PPS_FLOAT)
        return wrong_type(tr, d, c, "a number");
    double v = pps_as_number(c->value);
    if (!isfinite(v) || v <= 0 || v > 1e12)
        return pps_diag_done(
            form_diag(tr, d, c->span, 443, "`%s` must be above 0, got %g", c->word, v));
    *ret = v;
    return PPS_OK;
}

static pps_status clause_stream(tracer *tr, const pps_directive *d, const char *word, uint32_t *ret)
{
    const pps_clause *c = pps_directive_clause(d, word);
    if (!c)
        return PPS_OK;
    if (pps_typeof(c->value) != PPS_STREAM)
        return wrong_type(tr, d, c, "a stream");
    *ret = pps_stream_index(c->value);
    return PPS_OK;
}

/* A bare name, interned; one of `names` unless that is NULL. */
static pps_status clause_name(tracer *tr, const pps_directive *d, const pps_clause *c,
                              const char *const *names, size_t n, const char **ret)
{
    if (pps_typeof(c->value) != PPS_STRING)
        return wrong_type(tr, d, c, "a name");
    const char *name = pps_as_string(c->value, NULL);
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0) {
            *ret = names[i];
            return PPS_OK;
        }
    if (!names) {
        *ret = pps_intern(tr->st, name);
        return *ret ? PPS_OK : PPS_ERR_NOMEM;
    }
    char all[128] = "";
    for (size_t i = 0, at = 0; i < n && at < sizeof all; i++)
        at += (size_t)snprintf(all + at, sizeof all - at, "%s`%s`", i ? ", " : "", names[i]);
    pps_diag *diag = form_diag(tr, d, c->span, 451, "`%s %s %s` does not exist; there is %s",
                               word_of(d), c->word, name, all);
    const char *meant = pps_did_you_mean(name, names, n);
    if (meant)
        pps_diag_help(diag, "did you mean `%s`?", meant);
    return pps_diag_done(diag);
}

/* ---- Devices ------------------------------------------------------------------------------------
 */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static pps_status check_repeats(tracer *tr, const pps_directive *d, const ir_devices *devices)
{
    uint32_t n = devices->n;
    const uint32_t *ints = tr->program.ints + devices->begin;
    uint32_t *sorted = malloc(n * sizeof *sorted);
    if (!sorted)
        return PPS_ERR_NOMEM;
    memcpy(sorted, ints, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_value);
    uint32_t twice = IR_NONE;
    for (uint32_t i = 1; i < n && twice == IR_NONE; i++)
        if (sorted[i] == sorted[i - 1])
            twice = sorted[i];
    free(sorted);
    if (twice == IR_NONE)
        return PPS_OK;
    return pps_diag_done(
        form_diag(tr, d, devices->span, 442, "device %u is in this list twice", twice));
}

static pps_status take_group(tracer *tr, const pps_directive *d, pps_value list, pps_span span)
{
    ir_program *p = &tr->program;
    for (size_t i = 0; i < pps_len(list); i++) {
        pps_value v = pps_list_at(list, i);
        if (pps_typeof(v) != PPS_INT)
            return pps_diag_done(
                form_diag(tr, d, span, 442, "a device is an int, got %s", trace_kind_name(tr, v)));
        int64_t device = pps_as_int(v);
        if (device < 0 || device >= INT32_MAX)
            return pps_diag_done(form_diag(
                tr, d, span, 442, "%" PRId64 " is not a device; devices count from 0", device));
        PPS_TRY(IR_GROW(&tr->mem, p, ints));
        p->ints[p->n_ints++] = (uint32_t)device;
    }
    return PPS_OK;
}

/* [0, 1] is one group, [[0, 2], [1, 3]] two of equal size. */
static pps_status take_devices(tracer *tr, const pps_directive *d, const char *example,
                               ir_devices *ret)
{
    const pps_clause *c;
    PPS_TRY(need(tr, d, "on", example, &c));
    if (pps_typeof(c->value) != PPS_LIST)
        return wrong_type(tr, d, c, "a list of devices");
    size_t n = pps_len(c->value);
    if (n == 0)
        return pps_diag_done(form_diag(tr, d, c->span, 442, "this list has no devices"));
    *ret = (ir_devices){.begin = tr->program.n_ints, .n_groups = 1, .span = c->span};
    if (pps_typeof(pps_list_at(c->value, 0)) != PPS_LIST) {
        PPS_TRY(take_group(tr, d, c->value, c->span));
    } else {
        size_t size = pps_len(pps_list_at(c->value, 0));
        ret->n_groups = (uint32_t)n;
        for (size_t i = 0; i < n; i++) {
            pps_value group = pps_list_at(c->value, i);
            if (pps_typeof(group) != PPS_LIST)
                return pps_diag_done(
                    form_diag(tr, d, c->span, 442, "lists of devices and devices are mixed here"));
            if (pps_len(group) == 0)
                return pps_diag_done(form_diag(tr, d, c->span, 442, "list %zu has no devices", i));
            if (pps_len(group) != size)
                return pps_diag_done(form_diag(tr, d, c->span, 442,
                                               "groups of devices must be equal: list 0 has %zu, "
                                               "list %zu has %zu",
                                               size, i, pps_len(group)));
            PPS_TRY(take_group(tr, d, group, c->span));
        }
    }
    ret->n = tr->program.n_ints - ret->begin;
    return check_repeats(tr, d, ret);
}

/* ---- One directive ------------------------------------------------------------------------------
 */

static pps_status contradiction(tracer *tr, const pps_directive *d, const char *a, const char *b,
                                const char *why)
{
    const pps_clause *ca = pps_directive_clause(d, a), *cb = pps_directive_clause(d, b);
    pps_diag *diag = form_diag(tr, d, (ca ? ca : cb)->word_span, 444, "%s", why);
    if (ca && cb)
        pps_diag_also(diag, cb->word_span, "`%s` is here", b);
    return pps_diag_done(diag);
}

/* Exactly one tag, that nothing else gives meaning to; a region's tag is found in form_tags.c. */
static pps_status take_split(tracer *tr, const pps_directive *d, ir_directive *ret)
{
    static const char *const reserved[] = {"PASS", "COMM", "PP"};
    static const char *const dimensions[] = {"batch", "sequence"};
    const char *const example = "split {} by MB into 4";
    const pps_clause *by, *into;
    PPS_TRY(need(tr, d, "by", example, &by));
    PPS_TRY(need(tr, d, "into", example, &into));
    PPS_TRY(clause_name(tr, d, by, NULL, 0, &ret->tag));
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (strcmp(ret->tag, reserved[i]) == 0)
            return pps_diag_done(form_diag(tr, d, by->span, 450,
                                           "the tag %s cannot name parts of the batch", ret->tag));
    const pps_clause *along = pps_directive_clause(d, "along");
    if (along) {
        const char *what;
        PPS_TRY(clause_name(tr, d, along, dimensions, 2, &what));
        ret->along_sequence = what == dimensions[1];
    }
    return clause_u32(tr, d, "into", 1, INT32_MAX, &ret->n);
}

static pps_status take_replicate(tracer *tr, const pps_directive *d, ir_directive *ret)
{
    PPS_TRY(take_devices(tr, d, "replicate {PP: 0} on [0, 1] reduce s", &ret->devices));
    PPS_TRY(clause_stream(tr, d, "reduce", &ret->stream));
    PPS_TRY(clause_stream(tr, d, "gather", &ret->gather));
    PPS_TRY(clause_u32(tr, d, "zero", 0, 3, &ret->zero));
    PPS_TRY(clause_u32(tr, d, "every", 1, INT32_MAX, &ret->every));
    PPS_TRY(clause_u32(tr, d, "prefetch", 0, INT32_MAX, &ret->prefetch));
    double mib = 0;
    PPS_TRY(clause_positive(tr, d, "bucket", &mib));
    ret->bucket_bytes = (uint64_t)(mib * 1048576.0);
    if (mib > 0 && ret->bucket_bytes < 4)
        ret->bucket_bytes = 4; /* one element: as small as a bucket can be asked to be */
    bool grads = false, params = false;
    PPS_TRY(clause_bool(tr, d, "shard_grads", &grads));
    PPS_TRY(clause_bool(tr, d, "shard_params", &params));
    uint32_t level = params ? 3 : grads ? 2 : 0;
    if (level == 0)
        return PPS_OK;
    if (pps_directive_clause(d, "zero") && ret->zero != level)
        return contradiction(tr, d, "zero", params ? "shard_params" : "shard_grads",
                             params ? "`shard_params true` means zero 3"
                                    : "`shard_grads true` means zero 2");
    ret->zero = level;
    return PPS_OK;
}

static pps_status take_shard(tracer *tr, const pps_directive *d, ir_directive *ret)
{
    static const char *const ways[] = {"expert", "tensor", "sequence"};
    PPS_TRY(take_devices(tr, d, "shard {EP: *} on [0, 1] stream s", &ret->devices));
    ret->as = ways[0];
    const pps_clause *as = pps_directive_clause(d, "as");
    if (as)
        PPS_TRY(clause_name(tr, d, as, ways, 3, &ret->as));
    PPS_TRY(clause_bool(tr, d, "sequence", &ret->sequence));
    PPS_TRY(clause_positive(tr, d, "capacity", &ret->capacity));
    PPS_TRY(clause_stream(tr, d, "stream", &ret->stream));
    if (pps_directive_clause(d, "sequence") && ret->as != ways[1])
        return contradiction(tr, d, "sequence", "as", "`sequence` goes with `as tensor` only");
    if (pps_directive_clause(d, "capacity") && ret->as != ways[0])
        return contradiction(tr, d, "capacity", "as", "`capacity` goes with `as expert` only");
    return PPS_OK;
}

static pps_status take_offload(tracer *tr, const pps_directive *d, ir_directive *ret)
{
    static const char *const places[] = {"host"};
    const pps_clause *to;
    const char *place;
    PPS_TRY(need(tr, d, "to", "offload {PP: 0} to host", &to));
    PPS_TRY(clause_name(tr, d, to, places, 1, &place));
    return clause_stream(tr, d, "stream", &ret->stream);
}

pps_status form_train(tracer *tr, const pps_directive *d, ir_train *ret)
{
    *ret = (ir_train){.source = d};
    if (!trace_is(tr, d->subject, TRACE_LOSS)) {
        pps_diag *diag = form_diag(tr, d, d->subject_span, 449, "train needs a loss, got %s",
                                   trace_kind_name(tr, d->subject));
        pps_diag_note(diag, "cross_entropy(logits, targets) and mse(x, y) return losses");
        return pps_diag_done(diag);
    }
    const trace_loss *loss = &tr->losses[pps_handle_payload(d->subject)];
    ret->loss_ops = loss->ops;
    ret->n_loss_ops = loss->n;

    const pps_clause *c = pps_directive_clause(d, "data");
    if (c) {
        if (!trace_is(tr, c->value, TRACE_DATA))
            return wrong_type(tr, d, c, "bytes(...) or token_file(...)");
        const trace_source *s = &tr->sources[pps_handle_payload(c->value)];
        ret->data = s->kind;
        ret->data_path = s->paths;
        ret->n_data_paths = s->n_paths;
        ret->data_span = c->span;
    }
    c = pps_directive_clause(d, "weights");
    if (c) {
        size_t n = 0;
        const char *path = "";
        if (pps_typeof(c->value) != PPS_STRING)
            return wrong_type(tr, d, c, "a file name");
        path = pps_as_string(c->value, &n);
        if (n == 0 || strlen(path) != n)
            return pps_diag_done(form_diag(tr, d, c->span, 443, "this is not a file name"));
        ret->weights_path = arena_copy(&tr->mem, path, n);
        if (!ret->weights_path)
            return PPS_ERR_NOMEM;
        ret->weights_span = c->span;
    }
    c = pps_directive_clause(d, "optimizer");
    ret->optimizer = (ir_optimizer){.kind = IR_OPT_SGD, .lr = 0.01f};
    if (c) {
        if (!trace_is(tr, c->value, TRACE_OPTIMIZER))
            return wrong_type(tr, d, c, "adamw(...) or sgd(...)");
        ret->optimizer = tr->optimizers[pps_handle_payload(c->value)];
        ret->has_optimizer = true;
    }
    int64_t seed = 0;
    PPS_TRY(clause_int(tr, d, "seed", 0, INT64_MAX, &seed));
    ret->seed = (uint64_t)seed;
    return PPS_OK;
}

pps_status form_take(tracer *tr, const pps_directive *d, trace_record *ret)
{
    ir_train train;
    *ret = (trace_record){.source = d};
    ir_directive *out = &ret->directive;
    *out = (ir_directive){.source = d, .stream = IR_NONE, .gather = IR_NONE};
    if (d->kind == PPS_DIR_TRAIN)
        return form_train(tr, d, &train);
    if (d->kind == PPS_DIR_ORDER)
        return form_rows(tr, d, d->subject, &ret->rows, &ret->n_rows);
    PPS_TRY(form_filter(tr, d, d->subject, d->subject_span, &out->filter));
    switch (d->kind) {
    case PPS_DIR_SPLIT:
        return take_split(tr, d, out);
    case PPS_DIR_PLACE:
        PPS_TRY(take_devices(tr, d, "place {PP: 0} on [0]", &out->devices));
        return clause_stream(tr, d, "stream", &out->stream);
    case PPS_DIR_REPLICATE:
        return take_replicate(tr, d, out);
    case PPS_DIR_SHARD:
        return take_shard(tr, d, out);
    case PPS_DIR_OFFLOAD:
        return take_offload(tr, d, out);
    case PPS_DIR_RECOMPUTE:
    case PPS_DIR_TRAIN:
    case PPS_DIR_ORDER:
    case PPS_DIR_COUNT:
        break;
    }
    return PPS_OK;
}
