/* SPDX-License-Identifier: Apache-2.0
 *
 * builtins.h: what the builtins share. Each is a pps_host_fn and a row of builtins.def; each method
 * a method_fn and a row of methods.def. Errors point at the argument they are about.
 */
#ifndef PPS_BUILTINS_H
#define PPS_BUILTINS_H

#include "lang/state.h"

#define BUILTIN(fn, signature, doc) \
    pps_status builtin_##fn(pps_state *st, void *ud, size_t argc, const value *argv, value *ret);
#include "lang/builtins.def"
#undef BUILTIN

/* A method call with its arguments in the order of the method's parameters; left out ones are nil.
 */
enum { METHOD_MAX_ARGS = 3 };
typedef struct method_args {
    value self;
    value v[METHOD_MAX_ARGS];
    uint32_t written[METHOD_MAX_ARGS]; /* which argument of the call, for its span */
    bool given[METHOD_MAX_ARGS];
} method_args;
typedef pps_status (*method_fn)(pps_state *st, const method_args *a, value *ret);

#define METHOD(type, name, params, n_required, fn, doc) \
    pps_status method_##fn(pps_state *st, const method_args *a, value *ret);
#include "lang/methods.def"
#undef METHOD

/* E0304 at argument `arg`: "`len` needs a list, this is an int"; help `int(x)` when a float was
 * given where `wanted` is "an int". */
pps_status arg_wrong(pps_state *st, size_t arg, const char *wanted, value v);
/* The argument as an int, number, string or list, or E0304. */
pps_status arg_int(pps_state *st, size_t arg, value v, int64_t *ret);
pps_status arg_number(pps_state *st, size_t arg, value v, double *ret);
pps_status arg_string(pps_state *st, size_t arg, value v, const string **ret);
pps_status arg_bool(pps_state *st, size_t arg, value v, bool *ret);

/* A list of `n` nils that the collector sees until heap_unprotect(st, 1): where a builtin keeps
 * what it holds while script code runs. */
pps_status hold(pps_state *st, size_t n, list **ret);
/* Call `fn` with one value; the caller keeps what it holds reachable. */
pps_status call_one(pps_state *st, value fn, value v, value *ret);

/* Stable merge sort of `items` in place, by `keys` (NULL: the items are the keys). Charges n log n
 * steps. With `reverse`, too, equal items keep their order. */
pps_status sort_values(pps_state *st, value *items, const value *keys, size_t n, bool reverse);
/* Sort `l` by key function `key` (nil: by itself). `l` counts as iterated meanwhile. */
pps_status sort_list(pps_state *st, list *l, value key, bool reverse);

/* A whole text as a number, whatever the host's locale. False when `bytes` is no number. */
bool parse_int(const char *bytes, size_t n, int64_t *ret, bool *ret_overflow);
bool parse_float(const char *bytes, size_t n, double *ret);

/* A letter or _, then letters, digits and _: what the lexer takes for a name. */
bool is_tag_name(const char *bytes, size_t n);

/* builtins_rng.c, builtins_mesh.c, builtins_schedule.c: handle types, and what the state keeps */
pps_status rng_register(pps_state *st);
void rng_done(pps_state *st);
pps_status mesh_register(pps_state *st);
void mesh_done(pps_state *st);
void stream_done(pps_state *st);

#endif
