/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_args.c: arguments of tracing builtins, checked as they are read. Every message names the
 * builtin, the parameter, what it takes and what it got, at the argument itself.
 */
#include "ir/trace.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const type_names[TRACE_TYPE_COUNT] = {
    [TRACE_TENSOR] = "tensor",       [TRACE_LOSS] = "loss",       [TRACE_ROUTE] = "route",
    [TRACE_ROWS] = "expert rows",    [TRACE_PARAM] = "parameter", [TRACE_DATA] = "data",
    [TRACE_OPTIMIZER] = "optimizer",
};

bool trace_is(const tracer *tr, pps_value v, trace_type type)
{
    return pps_typeof(v) == PPS_HANDLE && pps_handle_type_of(v) == tr->types[type];
}

const char *trace_kind_name(tracer *tr, pps_value v)
{
    for (int i = 0; i < TRACE_TYPE_COUNT; i++)
        if (trace_is(tr, v, (trace_type)i))
            return type_names[i];
    return pps_type_name(pps_typeof(v));
}

void trace_arg_error(trace_call *c, size_t arg, int code, const char *title, ...)
{
    if (c->status != PPS_OK)
        return;
    char text[384];
    va_list args;
    va_start(args, title);
    vsnprintf(text, sizeof text, title, args);
    va_end(args);
    c->status = pps_error(c->tr->st, pps_arg_span(c->tr->st, arg), code, "%s", text);
}

static void wrong_type(trace_call *c, size_t arg, const char *what, const char *wanted)
{
    trace_arg_error(c, arg, 1001, "%s: %s must be %s, got %s", c->name, what, wanted,
                    trace_kind_name(c->tr, c->argv[arg]));
}

bool trace_arg_given(const trace_call *c, size_t arg)
{
    return pps_typeof(c->argv[arg]) != PPS_NIL;
}

ir_id trace_arg_handle(trace_call *c, size_t arg, trace_type type, const char *what)
{
    static const char *const wanted[TRACE_TYPE_COUNT] = {
        [TRACE_TENSOR] = "a tensor",
        [TRACE_LOSS] = "a loss",
        [TRACE_ROUTE] = "a route (what router(...) returns)",
        [TRACE_ROWS] = "expert rows (what experts_mlp(...) returns)",
        [TRACE_PARAM] = "a parameter (what parameter(...) returns)",
        [TRACE_DATA] = "data",
        [TRACE_OPTIMIZER] = "an optimizer",
    };
    if (!trace_is(c->tr, c->argv[arg], type)) {
        wrong_type(c, arg, what, wanted[type]);
        return 0;
    }
    return (ir_id)pps_handle_payload(c->argv[arg]);
}

static ir_id tensor_of(trace_call *c, size_t arg, const char *what, ir_dtype dtype, uint32_t n_dims)
{
    ir_id id = trace_arg_handle(c, arg, TRACE_TENSOR, what);
    if (c->status != PPS_OK)
        return 0;
    const ir_tensor *t = trace_tensor(c->tr, id);
    if (t->dtype == dtype && t->n_dims == n_dims)
        return id;
    char shape[IR_SHAPE_TEXT];
    ir_shape_text(t->dims, t->n_dims, shape);
    pps_diag *d = pps_diag_start(
        c->tr->st, PPS_SEV_ERROR, t->dtype == dtype ? 1002 : 1005, pps_arg_span(c->tr->st, arg),
        "%s: %s must be %s, got %s %s", c->name, what,
        dtype == IR_F32 ? "floats [batch, positions, width]" : "ints [batch, positions]",
        t->dtype == IR_F32 ? "floats" : "ints", shape);
    pps_diag_also(d, t->span, "made here");
    if (dtype == IR_F32 && t->dtype == IR_I32)
        pps_diag_help(d, "embed(ids, vocab, dim) turns ids into floats");
    c->status = pps_diag_done(d);
    return 0;
}

ir_id trace_arg_tensor(trace_call *c, size_t arg, const char *what, uint32_t *ret_n)
{
    ir_id id = tensor_of(c, arg, what, IR_F32, 3);
    if (ret_n)
        *ret_n = c->status == PPS_OK ? trace_tensor(c->tr, id)->dims[2] : 1;
    return id;
}

ir_id trace_arg_ids(trace_call *c, size_t arg, const char *what)
{
    return tensor_of(c, arg, what, IR_I32, 2);
}

int64_t trace_arg_int(trace_call *c, size_t arg, const char *what, int64_t least, int64_t most)
{
    if (pps_typeof(c->argv[arg]) != PPS_INT) {
        wrong_type(c, arg, what, "an int");
        return least;
    }
    int64_t v = pps_as_int(c->argv[arg]);
    if (v < least || v > most) {
        trace_arg_error(c, arg, 1003, "%s: %s must be %" PRId64 " to %" PRId64 ", got %" PRId64,
                        c->name, what, least, most, v);
        return least;
    }
    return v;
}

uint32_t trace_arg_size(trace_call *c, size_t arg, const char *what)
{
    return (uint32_t)trace_arg_int(c, arg, what, 1, INT32_MAX);
}

uint32_t trace_arg_size_or(trace_call *c, size_t arg, const char *what, uint32_t when_nil)
{
    return trace_arg_given(c, arg) ? trace_arg_size(c, arg, what) : when_nil;
}

bool trace_arg_bool(trace_call *c, size_t arg, const char *what)
{
    if (pps_typeof(c->argv[arg]) != PPS_BOOL) {
        wrong_type(c, arg, what, "true or false");
        return false;
    }
    return pps_as_bool(c->argv[arg]);
}

double trace_arg_number(trace_call *c, size_t arg, const char *what)
{
    pps_type type = pps_typeof(c->argv[arg]);
    if (type != PPS_INT && type != PPS_FLOAT) {
        wrong_type(c, arg, what, "a number");
        return 1;
    }
    double v = pps_as_number(c->argv[arg]);
    if (!isfinite(v)) {
        trace_arg_error(c, arg, 1003, "%s: %s must be finite", c->name, what);
        return 1;
    }
    return v;
}

double trace_arg_positive(trace_call *c, size_t arg, const char *what)
{
    double v = trace_arg_number(c, arg, what);
    if (v <= 0)
        trace_arg_error(c, arg, 1003, "%s: %s must be above 0, got %g", c->name, what, v);
    return v;
}

const char *trace_arg_string(trace_call *c, size_t arg, const char *what)
{
    if (pps_typeof(c->argv[arg]) != PPS_STRING) {
        wrong_type(c, arg, what, "a string");
        return "";
    }
    size_t n;
    const char *text = pps_as_string(c->argv[arg], &n);
    if (strlen(text) != n) {
        trace_arg_error(c, arg, 1017, "%s: %s must not contain a NUL character", c->name, what);
        return "";
    }
    const char *name = pps_intern(c->tr->st, text);
    if (!name) {
        c->status = PPS_ERR_NOMEM;
        return "";
    }
    return name;
}

const char *trace_arg_name(trace_call *c, size_t arg)
{
    if (!trace_arg_given(c, arg))
        return NULL;
    const char *name = trace_arg_string(c, arg, "name");
    if (c->status == PPS_OK && !*name)
        trace_arg_error(c, arg, 1017, "%s: name must not be empty", c->name);
    return c->status == PPS_OK ? name : NULL;
}

uint32_t trace_arg_shape(trace_call *c, size_t arg, pps_value shape, uint32_t dims[IR_MAX_DIMS])
{
    if (pps_typeof(shape) != PPS_LIST) {
        trace_arg_error(c, arg, 1001, "%s: a shape is a list of ints, got %s", c->name,
                        trace_kind_name(c->tr, shape));
        return 0;
    }
    size_t n = pps_len(shape);
    if (n == 0 || n > IR_MAX_DIMS) {
        trace_arg_error(c, arg, 1003, "%s: a shape has 1 to %d dimensions, got %zu", c->name,
                        IR_MAX_DIMS, n);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        pps_value v = pps_list_at(shape, i);
        if (pps_typeof(v) != PPS_INT) {
            trace_arg_error(c, arg, 1001, "%s: a dimension is an int, got %s", c->name,
                            trace_kind_name(c->tr, v));
            return 0;
        }
        if (pps_as_int(v) < 1 || pps_as_int(v) > INT32_MAX) {
            trace_arg_error(c, arg, 1003, "%s: a dimension is 1 to %d, got %" PRId64, c->name,
                            INT32_MAX, pps_as_int(v));
            return 0;
        }
        dims[i] = (uint32_t)pps_as_int(v);
    }
    return (uint32_t)n;
}
