/* SPDX-License-Identifier: Apache-2.0
 *
 * form_rows.c: rows of `order` as flat entries, and back as canonical text.
 *
 *   F(0, 0) -> F(0, 2) | B(3, 0)      entries: F0:0   F0:2   B3:0 (joins)      text: F0:0 F0:2|B3:0
 */
#include "ir/trace.h"

#include <stdlib.h>
#include <string.h>

static pps_span subject_span(const pps_directive *d)
{
    return d ? d->subject_span : (pps_span){0, 0, 0};
}

static bool is_row_item(pps_value v)
{
    pps_type type = pps_typeof(v);
    return type == PPS_OP || type == PPS_FILTER || type == PPS_GROUP;
}

static pps_status bad_item(tracer *tr, const pps_directive *d, pps_value v, const char *inside)
{
    pps_diag *diag =
        form_diag(tr, d, subject_span(d), 445, "%s holds ops and groups of ops, this one holds %s",
                  inside, trace_kind_name(tr, v));
    if (pps_typeof(v) == PPS_PASS)
        pps_diag_help(diag, "name the stage and the microbatch: F(0, 0)");
    else if (pps_typeof(v) == PPS_LIST)
        pps_diag_note(diag, "`order` takes one row, or a list of rows");
    return pps_diag_done(diag);
}

/* Stage, microbatch and pass, as far as the filter names one of each. */
static pps_status take_filter(tracer *tr, const pps_directive *d, pps_value v, ir_entry *e)
{
    ir_program *p = &tr->program;
    PPS_TRY(IR_GROW(&tr->mem, p, filters));
    ir_filter *f = &p->filters[p->n_filters];
    PPS_TRY(form_filter(tr, d, v, subject_span(d), f));
    e->general = true;
    e->filter = p->n_filters++;
    e->stage = e->mb = IR_NONE;
    e->pass = PPS_PASS_COUNT;
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &p->terms[f->begin + i];
        bool one = t->kind == PPS_TERM_SET && t->n == 1;
        if (t->kind == PPS_TERM_PASS)
            e->pass = t->pass;
        else if (t->kind == PPS_TERM_COMM)
            e->comm = t->comm;
        else if (one && strcmp(t->tag, "PP") == 0)
            e->stage = p->ints[t->begin];
        else if (one && strcmp(t->tag, "MB") == 0)
            e->mb = p->ints[t->begin];
    }
    return PPS_OK;
}

static pps_status take_entry(tracer *tr, const pps_directive *d, pps_value v, bool joins)
{
    ir_program *p = &tr->program;
    ir_entry e = {.joins = joins};
    if (pps_typeof(v) == PPS_OP) {
        e.stage = pps_op_stage(v);
        e.mb = pps_op_mb(v);
        e.pass = (uint8_t)pps_op_pass(v);
        e.comm = (uint8_t)pps_op_comm(v);
        e.origin = pps_op_origin(v);
    } else {
        PPS_TRY(take_filter(tr, d, v, &e));
    }
    PPS_TRY(IR_GROW(&tr->mem, p, entries));
    p->entries[p->n_entries++] = e;
    return PPS_OK;
}

static pps_status take_item(tracer *tr, const pps_directive *d, pps_value v)
{
    if (pps_typeof(v) != PPS_GROUP)
        return take_entry(tr, d, v, false);
    for (size_t i = 0; i < pps_len(v); i++)
        PPS_TRY(take_entry(tr, d, pps_group_at(v, i), i > 0));
    return PPS_OK;
}

static pps_status push_row(tracer *tr, uint32_t begin, uint32_t n_groups)
{
    PPS_TRY(IR_GROW(&tr->mem, tr, rows));
    tr->rows[tr->n_rows++] = (ir_row){.begin = begin,
                                      .n = tr->program.n_entries - begin,
                                      .n_groups = n_groups,
                                      .directive = IR_NONE};
    return PPS_OK;
}

static pps_status take_row(tracer *tr, const pps_directive *d, pps_value row)
{
    size_t n = pps_len(row);
    if (n == 0)
        return pps_diag_done(form_diag(tr, d, subject_span(d), 446, "a row has no ops"));
    if (n > UINT32_MAX / 4)
        return PPS_ERR_NOMEM;
    uint32_t begin = tr->program.n_entries;
    PPS_TRY(pps_charge(tr->st, n));
    for (size_t i = 0; i < n; i++) {
        pps_value v = pps_list_at(row, i);
        if (!is_row_item(v))
            return bad_item(tr, d, v, "a row");
        PPS_TRY(take_item(tr, d, v));
    }
    return push_row(tr, begin, (uint32_t)n);
}

pps_status form_rows(tracer *tr, const pps_directive *d, pps_value rows, uint32_t *ret_first,
                     uint32_t *ret_n)
{
    uint32_t first = tr->n_rows;
    if (is_row_item(rows)) { /* one op or one group: a row of one */
        uint32_t begin = tr->program.n_entries;
        PPS_TRY(take_item(tr, d, rows));
        PPS_TRY(push_row(tr, begin, 1));
    } else if (pps_typeof(rows) != PPS_LIST) {
        return pps_diag_done(form_diag(tr, d, subject_span(d), 441,
                                       "order needs a row or a list of rows, got %s",
                                       trace_kind_name(tr, rows)));
    } else if (pps_len(rows) == 0) {
        return pps_diag_done(form_diag(tr, d, subject_span(d), 446, "this list has no rows"));
    } else if (pps_typeof(pps_list_at(rows, 0)) != PPS_LIST) {
        PPS_TRY(take_row(tr, d, rows));
    } else {
        for (size_t i = 0; i < pps_len(rows); i++) {
            pps_value row = pps_list_at(rows, i);
            if (pps_typeof(row) != PPS_LIST)
                return pps_diag_done(form_diag(tr, d, subject_span(d), 445,
                                               "a list of rows holds rows, item %zu is %s", i,
                                               trace_kind_name(tr, row)));
            PPS_TRY(take_row(tr, d, row));
        }
    }
    *ret_first = first;
    *ret_n = tr->n_rows - first;
    return PPS_OK;
}

pps_status ir_rows_from_value(ir_program *p, pps_value rows, const pps_directive *directive)
{
    tracer *tr = (tracer *)p;
    uint32_t first, n, order = IR_NONE;
    PPS_TRY(form_rows(tr, directive, rows, &first, &n));
    if (directive) {
        PPS_TRY(IR_GROW(&tr->mem, p, orders));
        order = p->n_orders;
        p->orders[p->n_orders++] = directive;
    }
    for (uint32_t i = 0; i < n; i++) {
        PPS_TRY(IR_GROW(&tr->mem, p, rows));
        p->rows[p->n_rows] = tr->rows[first + i];
        p->rows[p->n_rows++].directive = order;
    }
    return PPS_OK;
}

/* ---- Canonical text -----------------------------------------------------------------------------
 */

typedef struct row_text {
    char *bytes;
    size_t n, cap;
    bool failed;
} row_text;

static void add_bytes(row_text *t, const char *bytes, size_t n)
{
    if (t->n + n + 1 > t->cap) {
        size_t cap = t->cap * 2 > t->n + n + 1 ? t->cap * 2 : t->n + n + 256;
        char *bigger = t->failed ? NULL : realloc(t->bytes, cap);
        if (!bigger) {
            t->failed = true;
            return;
        }
        t->bytes = bigger;
        t->cap = cap;
    }
    memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
    t->bytes[t->n] = '\0';
}

static void add(row_text *t, const char *text)
{
    add_bytes(t, text, strlen(text));
}

/* Rows of long schedules are mostly numbers: printf would take longer than all the rest. */
static void add_number(row_text *t, uint32_t number)
{
    char digits[10];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    add_bytes(t, digits + at, sizeof digits - at);
}

static const char *const pass_names[] = {"F", "B", "BI", "BW"};
static const char *const comm_names[] = {
    [PPS_COMM_NONE] = "", [PPS_COMM_SEND] = "SEND", [PPS_COMM_RECV] = "RECV"};

static void add_indices(row_text *t, const uint32_t *ints, uint32_t n)
{
    if (n == 1) {
        add_number(t, ints[0]);
    } else if (n > 2 && ints[n - 1] - ints[0] == n - 1) {
        add_number(t, ints[0]);
        add(t, "..");
        add_number(t, ints[n - 1] + 1);
    } else {
        for (uint32_t i = 0; i < n; i++) {
            add(t, i ? "," : "[");
            add_number(t, ints[i]);
        }
        add(t, n > 0 ? "]" : "");
    }
}

/* TAG=value of a term, or TAG: value in a filter that is no op. */
static void add_term(row_text *t, const ir_program *p, const ir_term *term, const char *equals)
{
    add(t, term->tag);
    add(t, equals);
    switch ((pps_term_kind)term->kind) {
    case PPS_TERM_ANY:
        add(t, "*");
        break;
    case PPS_TERM_ABSENT:
        add(t, "-");
        break;
    case PPS_TERM_SET:
        add_indices(t, p->ints + term->begin, term->n);
        break;
    case PPS_TERM_PASS:
        add(t, pass_names[term->pass]);
        break;
    case PPS_TERM_COMM:
        add(t, comm_names[term->comm]);
        break;
    }
}

static bool is_core_tag(const ir_term *t)
{
    return t->kind == PPS_TERM_PASS || t->kind == PPS_TERM_COMM || strcmp(t->tag, "PP") == 0 ||
           strcmp(t->tag, "MB") == 0;
}

static void add_entry(row_text *t, const ir_program *p, const ir_entry *e)
{
    const ir_filter *f = e->general ? &p->filters[e->filter] : NULL;
    bool is_op = e->stage != IR_NONE && e->mb != IR_NONE && e->pass < PPS_PASS_COUNT;
    if (is_op) {
        add(t, comm_names[e->comm]);
        add(t, e->comm ? "(" : "");
        add(t, pass_names[e->pass]);
        add_number(t, e->stage);
        add(t, ":");
        add_number(t, e->mb);
    }
    uint32_t n = 0;
    if (!e->general && e->slice > 0 && p->slice_tag) {
        add(t, n++ == 0 ? "{" : ",");
        add(t, p->slice_tag);
        add(t, "=");
        add_number(t, e->slice - 1);
    }
    for (uint32_t i = 0; f && i < f->n; i++) {
        const ir_term *term = &p->terms[f->begin + i];
        if (is_op && is_core_tag(term))
            continue;
        add(t, n++ == 0 ? "{" : ",");
        add_term(t, p, term, is_op ? "=" : ":");
    }
    if (n > 0)
        add(t, "}");
    else if (!is_op)
        add(t, "{}");
    if (is_op && e->comm)
        add(t, ")");
}

char *ir_row_text(const ir_program *p, const ir_row *row)
{
    row_text t = {0};
    add(&t, "");
    for (uint32_t at = 0; at < row->n;) {
        uint32_t end = at + 1;
        while (end < row->n && p->entries[row->begin + end].joins)
            end++;
        bool first = true;
        for (int pass = 0; pass <= PPS_PASS_COUNT; pass++) /* F before B before BI before BW */
            for (uint32_t i = at; i < end; i++) {
                const ir_entry *e = &p->entries[row->begin + i];
                if (e->pass != pass)
                    continue;
                add(&t, !first ? "|" : at ? " " : "");
                add_entry(&t, p, e);
                first = false;
            }
        at = end;
    }
    if (t.failed) {
        free(t.bytes);
        return NULL;
    }
    return t.bytes;
}
