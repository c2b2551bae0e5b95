/* SPDX-License-Identifier: Apache-2.0
 *
 * Directive statements as data: what clauses.def allows, and the record of each one that ran, with
 * its values, its place, the calls it ran in and the loop variables there. What a directive means
 * is for the on_directive hook and the folders to the right.
 */
#include "lang/vm.h"

#include <string.h>

static const char *const directive_word[PPS_DIR_COUNT] = {
#define DIRECTIVE(name, word) [PPS_DIR_##name] = word,
#define CLAUSE(directive, word, type, json)
#include "lang/clauses.def"
#undef DIRECTIVE
#undef CLAUSE
};

static const struct clause_row {
    pps_directive_kind kind;
    const char *word;
    bc_clause_type type;
} clause_rows[] = {
#define DIRECTIVE(name, word)
#define CLAUSE(directive, word, type, json) {PPS_DIR_##directive, word, BC_CLAUSE_##type},
#include "lang/clauses.def"
#undef DIRECTIVE
#undef CLAUSE
};
enum { N_CLAUSE_ROWS = sizeof(clause_rows) / sizeof(clause_rows[0]) };

const char *pps_directive_word(pps_directive_kind kind)
{
    return directive_word[kind];
}

bool directive_clause(pps_directive_kind kind, const char *word, bc_clause_type *ret)
{
    for (size_t i = 0; i < N_CLAUSE_ROWS; i++) {
        if (clause_rows[i].kind == kind && strcmp(clause_rows[i].word, word) == 0) {
            *ret = clause_rows[i].type;
            return true;
        }
    }
    return false;
}

uint32_t directive_words(pps_directive_kind kind, const char *words[PPS_MAX_CLAUSES])
{
    uint32_t n = 0;
    for (size_t i = 0; i < N_CLAUSE_ROWS; i++)
        if (clause_rows[i].kind == kind && n < PPS_MAX_CLAUSES)
            words[n++] = clause_rows[i].word;
    return n;
}

/* ---- Checking -------------------------------------------------------------------------------- */

static bool is_devices(value v, uint32_t depth)
{
    if (pps_typeof(v) != PPS_LIST || depth > 8)
        return false;
    const list *l = v.as.ptr;
    for (size_t i = 0; i < l->n; i++)
        if (l->items[i].tag != PPS_INT && !is_devices(l->items[i], depth + 1))
            return false;
    return true;
}

static bool has_type(value v, bc_clause_type type, const char **ret_wanted)
{
    static const char *const wanted[] = {
        [BC_CLAUSE_INT] = "an int",
        [BC_CLAUSE_NUMBER] = "a number",
        [BC_CLAUSE_BOOL] = "true or false",
        [BC_CLAUSE_STRING] = "a string",
        [BC_CLAUSE_STREAM] = "a stream: `let s = stream(\"s\")`",
        [BC_CLAUSE_DEVICES] = "a list of devices",
        [BC_CLAUSE_NAME] = "a bare name",
        [BC_CLAUSE_DATA] = "a data source",
        [BC_CLAUSE_OPTIMIZER] = "an optimizer",
    };
    *ret_wanted = wanted[type];
    switch (type) {
    case BC_CLAUSE_INT:
        return pps_typeof(v) == PPS_INT;
    case BC_CLAUSE_NUMBER:
        return pps_typeof(v) == PPS_INT || pps_typeof(v) == PPS_FLOAT;
    case BC_CLAUSE_BOOL:
        return pps_typeof(v) == PPS_BOOL;
    case BC_CLAUSE_STRING:
    case BC_CLAUSE_NAME:
        return pps_typeof(v) == PPS_STRING;
    case BC_CLAUSE_STREAM:
        return pps_typeof(v) == PPS_STREAM;
    case BC_CLAUSE_DEVICES:
        return is_devices(v, 0);
    case BC_CLAUSE_DATA:
    case BC_CLAUSE_OPTIMIZER: /* which handle it is, is for its owner to check */
        return pps_typeof(v) == PPS_HANDLE;
    }
    return false;
}

/* Devices may be written as a range: 0..4 is [0, 1, 2, 3]. */
static pps_status devices_list(pps_state *st, value *v)
{
    value l;
    if (pps_typeof(*v) != PPS_RANGE)
        return PPS_OK;
    PPS_TRY(list_new(st, 0, &l));
    PPS_TRY(list_extend(st, l.as.ptr, *v));
    *v = l;
    return PPS_OK;
}

/* ---- Recording ------------------------------------------------------------------------------- */

static pps_status copy_values(pps_state *st, const bc_directive *b, const value *vals,
                              pps_directive *d)
{
    d->subject = vals[0];
    d->n_clauses = b->n_clauses;
    for (uint32_t i = 0; i < b->n_clauses; i++) {
        const struct bc_directive_clause *c = &b->clauses[i];
        pps_clause *to = &d->clauses[i];
        *to = (pps_clause){c->word, vals[1 + i], c->word_span, c->span};
        const char *wanted;
        if (c->type == BC_CLAUSE_DEVICES)
            PPS_TRY(devices_list(st, &to->value));
        if (has_type(to->value, c->type, &wanted))
            continue;
        return pps_diag_done(vm_error_at(st, c->span, 304, "`%s` takes %s, this is %s", c->word,
                                         wanted, value_kind(st, to->value)));
    }
    return PPS_OK;
}

static pps_status copy_place(pps_state *st, pps_directive *d)
{
    struct vm *vm = st->vm;
    char context[256];
    uint32_t n = 0, calls = 0;
    vm_context(st, context, sizeof(context));
    for (uint32_t i = 0; i < vm->n_frames; i++)
        calls += !vm->frames[i].proto->is_main;
    pps_frame *frames = vm_new(st, (calls + 1) * sizeof(pps_frame));
    char *text_of = vm_new(st, strlen(context) + 1);
    if (!frames || !text_of)
        return PPS_ERR_NOMEM;
    vm_current_frames(st, frames, calls, &n);
    d->frames = frames;
    d->n_frames = n;
    d->context = strcpy(text_of, context);
    return PPS_OK;
}

pps_status directive_record(pps_state *st, const bc_directive *b, const value *vals)
{
    struct vm *vm = st->vm;
    pps_directive *d = vm_new(st, sizeof(*d));
    if (!d)
        return PPS_ERR_NOMEM;
    d->kind = b->kind;
    d->span = b->span;
    d->subject_span = b->subject_span;
    PPS_TRY(copy_values(st, b, vals, d));
    PPS_TRY(copy_place(st, d));
    void *array = vm->directives;
    PPS_TRY(vm_reserve(st, &array, &vm->cap_directives, vm->n_directives + 1, sizeof(d)));
    vm->directives = array;
    vm->directives[vm->n_directives++] = d;
    if (st->hooks.on_directive)
        return st->hooks.on_directive(st->hooks.ud, st, d);
    return PPS_OK;
}

size_t pps_directive_count(pps_state *st)
{
    return st->vm->n_directives;
}

const pps_directive *pps_directive_at(pps_state *st, size_t i)
{
    return i < st->vm->n_directives ? st->vm->directives[i] : NULL;
}

const pps_clause *pps_directive_clause(const pps_directive *d, const char *word)
{
    for (uint32_t i = 0; i < d->n_clauses; i++)
        if (strcmp(d->clauses[i].word, word) == 0)
            return &d->clauses[i];
    return NULL;
}
