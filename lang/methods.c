/* SPDX-License-Identifier: Apache-2.0
 *
 * methods.c: finds the method a call names in the rows of methods.def and puts its arguments in
 * order. What a method does is in methods_list.c, methods_map.c, methods_string.c and beside the
 * type it belongs to.
 */
#include "lang/builtins.h"

#include <stdio.h>
#include <string.h>

/* Types with methods. A handle type has no pps_type of its own. */
enum {
    METHODS_LIST = PPS_LIST,
    METHODS_RANGE = PPS_RANGE,
    METHODS_MAP = PPS_MAP,
    METHODS_STRING = PPS_STRING,
    METHODS_OP = PPS_OP,
    METHODS_FILTER = PPS_FILTER,
    METHODS_RNG = 64,
    METHODS_NONE,
};

typedef struct method_row {
    uint32_t type, n_required;
    const char *name, *params; /* names with a blank between them */
    method_fn fn;
} method_row;

static const method_row rows[] = {
#define METHOD(type, name, params, n_required, fn, doc) \
    {METHODS_##type, n_required, #name, params, method_##fn},
#include "lang/methods.def"
#undef METHOD
};
enum { N_ROWS = sizeof(rows) / sizeof(rows[0]) };

static uint32_t method_type(pps_state *st, value self)
{
    if (pps_typeof(self) != PPS_HANDLE)
        return pps_typeof(self);
    return pps_handle_type_of(self) == st->builtins.rng_type ? METHODS_RNG : METHODS_NONE;
}

static const method_row *find_method(uint32_t type, const char *name)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (rows[i].type == type && strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

/* Names people bring from other languages, and what they are called here. */
static const char *foreign_name(const char *name)
{
    static const char *const pairs[][2] = {
        {"push", "append"},       {"push_back", "append"},       {"add", "append"},
        {"trim", "strip"},        {"startswith", "starts_with"}, {"endswith", "ends_with"},
        {"toUpperCase", "upper"}, {"toLowerCase", "lower"},      {"includes", "contains"},
        {"has", "contains"},      {"indexOf", "index"},          {"forEach", "map"},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (strcmp(pairs[i][0], name) == 0)
            return pairs[i][1];
    return NULL;
}

static pps_status no_method(pps_state *st, value self, uint32_t type, const char *name,
                            pps_span span)
{
    const char *names[N_ROWS];
    size_t n = 0;
    for (size_t i = 0; i < N_ROWS; i++)
        if (rows[i].type == type)
            names[n++] = rows[i].name;
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 306, span, "%s has no method `%s`",
                                 value_kind(st, self), name);
    const char *near = foreign_name(name);
    if (!near || !find_method(type, near))
        near = pps_did_you_mean(name, names, n);
    if (near)
        pps_diag_help(d, "did you mean `%s`?", near);
    else if (strcmp(name, "len") == 0 || strcmp(name, "length") == 0 || strcmp(name, "size") == 0)
        pps_diag_help(d, "`len(x)` gives the length");
    return pps_diag_done(d);
}

/* ---- Binding arguments ------------------------------------------------------------------------
 */

static uint32_t count_params(const method_row *row)
{
    uint32_t n = row->params[0] != '\0';
    for (const char *p = row->params; *p; p++)
        n += *p == ' ';
    return n;
}

static uint32_t find_param(const method_row *row, const char *name)
{
    uint32_t i = 0;
    for (const char *p = row->params; *p; i++) {
        size_t n = strcspn(p, " ");
        if (strlen(name) == n && memcmp(p, name, n) == 0)
            return i;
        p += n + (p[n] == ' ');
    }
    return i;
}

static pps_status wrong_count(pps_state *st, const method_row *row, size_t n_given)
{
    uint32_t most = count_params(row);
    const char *plural = most == 1 ? "" : "s";
    if (row->n_required == most)
        return pps_error(st, pps_call_span(st), 301, "`.%s` needs %u argument%s, got %zu",
                         row->name, most, plural, n_given);
    return pps_error(st, pps_call_span(st), 301, "`.%s` takes %u to %u arguments, got %zu",
                     row->name, row->n_required, most, n_given);
}

static pps_status bind_arguments(pps_state *st, const method_row *row, size_t argc,
                                 const value *argv, size_t n_named, const char *const *names,
                                 const value *named, method_args *a)
{
    uint32_t n_params = count_params(row);
    if (argc > n_params)
        return wrong_count(st, row, argc + n_named);
    for (uint32_t i = 0; i < n_params; i++)
        a->v[i] = pps_nil();
    for (uint32_t i = 0; i < argc; i++) {
        a->v[i] = argv[i];
        a->written[i] = i;
        a->given[i] = true;
    }
    for (size_t i = 0; i < n_named; i++) {
        uint32_t param = find_param(row, names[i]), at = (uint32_t)(argc + i);
        if (param == n_params)
            return pps_error(st, pps_arg_span(st, at), 302, "`.%s` has no parameter `%s`",
                             row->name, names[i]);
        if (a->given[param])
            return pps_error(st, pps_arg_span(st, at), 302, "`%s` is given twice", names[i]);
        a->v[param] = named[i];
        a->written[param] = at;
        a->given[param] = true;
    }
    for (uint32_t i = 0; i < row->n_required; i++)
        if (!a->given[i])
            return wrong_count(st, row, argc + n_named);
    return PPS_OK;
}

pps_status method_call(pps_state *st, value self, const char *name, pps_span name_span, size_t argc,
                       const value *argv, size_t n_named, const char *const *names,
                       const value *named, value *ret)
{
    uint32_t type = method_type(st, self);
    const method_row *row = find_method(type, name);
    if (!row)
        return no_method(st, self, type, name, name_span);
    method_args a = {.self = self};
    PPS_TRY(bind_arguments(st, row, argc, argv, n_named, names, named, &a));
    return row->fn(st, &a, ret);
}
