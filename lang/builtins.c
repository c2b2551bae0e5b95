/* SPDX-License-Identifier: Apache-2.0
 *
 * builtins.c: registers the rows of builtins.def, and the builtins about any value: print, len,
 * type, conversions, assert, fail. Numbers, sequences and schedules have files of their own. What
 * the builtins share, checking arguments above all, is here too; see builtins.h.
 */
#include "lang/builtins.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct builtin_row {
    pps_host_fn fn;
    const char *signature, *doc;
} builtin_row;

static const builtin_row rows[] = {
#define BUILTIN(fn, signature, doc) {builtin_##fn, signature, doc},
#include "lang/builtins.def"
#undef BUILTIN
};

static const char *const pass_docs[PPS_PASS_COUNT] = {
    [PPS_PASS_F] = "F(stage, mb): the forward pass of a stage for a microbatch.",
    [PPS_PASS_B] = "B(stage, mb): its whole backward pass.",
    [PPS_PASS_BI] = "BI(stage, mb): the half of the backward pass that gives input gradients.",
    [PPS_PASS_BW] = "BW(stage, mb): the half of the backward pass that gives weight gradients.",
};
static const char *const pass_names[PPS_PASS_COUNT] = {"F", "B", "BI", "BW"};

pps_status builtins_register(pps_state *st)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        PPS_TRY(pps_def(st, rows[i].signature, rows[i].fn, NULL, NULL, rows[i].doc));
    for (int pass = 0; pass < PPS_PASS_COUNT; pass++)
        PPS_TRY(vm_def_value(st, pass_names[pass], value_make(PPS_PASS, (uint64_t)pass),
                             pass_docs[pass]));
    PPS_TRY(rng_register(st));
    return mesh_register(st);
}

void builtins_done(pps_state *st)
{
    mesh_done(st);
    rng_done(st);
    stream_done(st);
}

/* ---- Arguments ------------------------------------------------------------------------------- */

pps_status arg_wrong(pps_state *st, size_t arg, const char *wanted, value v)
{
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 304, pps_arg_span(st, arg),
                                 "%s is needed here, this is %s", wanted, value_kind(st, v));
    if (pps_typeof(v) == PPS_FLOAT && strcmp(wanted, "an int") == 0)
        pps_diag_help(d, "`int(x)` gives the int");
    return pps_diag_done(d);
}

pps_status arg_int(pps_state *st, size_t arg, value v, int64_t *ret)
{
    if (pps_typeof(v) != PPS_INT)
        return arg_wrong(st, arg, "an int", v);
    *ret = v.as.i;
    return PPS_OK;
}

pps_status arg_number(pps_state *st, size_t arg, value v, double *ret)
{
    if (pps_typeof(v) != PPS_INT && pps_typeof(v) != PPS_FLOAT)
        return arg_wrong(st, arg, "a number", v);
    *ret = pps_as_number(v);
    return PPS_OK;
}

pps_status arg_string(pps_state *st, size_t arg, value v, const string **ret)
{
    if (pps_typeof(v) != PPS_STRING)
        return arg_wrong(st, arg, "a string", v);
    *ret = v.as.ptr;
    return PPS_OK;
}

pps_status arg_bool(pps_state *st, size_t arg, value v, bool *ret)
{
    if (pps_typeof(v) != PPS_BOOL)
        return arg_wrong(st, arg, "a bool", v);
    *ret = pps_as_bool(v);
    return PPS_OK;
}

pps_status hold(pps_state *st, size_t n, list **ret)
{
    value v;
    PPS_TRY(list_new(st, n, &v));
    list *l = v.as.ptr;
    for (; l->n < n; l->n++)
        l->items[l->n] = pps_nil();
    PPS_TRY(heap_protect(st, v));
    *ret = l;
    return PPS_OK;
}

pps_status call_one(pps_state *st, value fn, value v, value *ret)
{
    return vm_call(st, fn, 1, &v, ret);
}

/* ---- Text to numbers ------------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void trim(const char **bytes, size_t *n)
{
    while (*n && strchr(" \t\r\n", (*bytes)[*n - 1]))
        --*n;
    for (; *n && strchr(" \t\r\n", (*bytes)[0]); --*n)
        ++*bytes;
}

static int digit_value(char c)
{
    return is_digit(c)            ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : 99;
}

bool parse_int(const char *bytes, size_t n, int64_t *ret, bool *ret_overflow)
{
    *ret_overflow = false;
    trim(&bytes, &n);
    bool negative = n && bytes[0] == '-';
    size_t i = n && (bytes[0] == '-' || bytes[0] == '+');
    int base = 10;
    if (n - i > 2 && bytes[i] == '0' && (bytes[i + 1] == 'x' || bytes[i + 1] == 'X')) {
        base = 16;
        i += 2;
    }
    if (i == n)
        return false;
    int64_t value_so_far = 0; /* negative: INT64_MIN has no positive counterpart */
    for (bool digit_before = false; i < n; i++) {
        if (bytes[i] == '_' && digit_before && i + 1 < n) {
            digit_before = false;
            continue;
        }
        int d = digit_value(bytes[i]);
        if (d >= base)
            return false;
        digit_before = true;
        if (__builtin_mul_overflow(value_so_far, base, &value_so_far) ||
            __builtin_sub_overflow(value_so_far, d, &value_so_far))
            *ret_overflow = true;
    }
    if (!negative && __builtin_sub_overflow(0, value_so_far, &value_so_far))
        *ret_overflow = true;
    *ret = value_so_far;
    return true;
}

static bool is_text(const char *bytes, size_t n, const char *word)
{
    return n == strlen(word) && memcmp(bytes, word, n) == 0;
}

/* The digits go to strtod as an integer and a power of ten, so that it never looks for the decimal
 * point of the host's locale. */
bool parse_float(const char *bytes, size_t n, double *ret)
{
    char digits[1100];
    size_t n_digits = 0, i = 0;
    trim(&bytes, &n);
    double sign = 1;
    if (n && (bytes[0] == '-' || bytes[0] == '+'))
        sign = bytes[i++] == '-' ? -1 : 1;
    if (is_text(bytes + i, n - i, "inf") || is_text(bytes + i, n - i, "nan")) {
        *ret = bytes[i] == 'i' ? sign * (double)INFINITY : (double)NAN;
        return true;
    }
    long exponent = 0;
    for (bool point = false; i < n && (is_digit(bytes[i]) || bytes[i] == '_' || bytes[i] == '.');
         i++) {
        if (bytes[i] == '.') {
            if (point)
                return false;
            point = true;
        } else if (bytes[i] == '_') {
            if (n_digits == 0)
                return false;
        } else {
            if (n_digits == 1000)
                return false;
            digits[n_digits++] = bytes[i];
            exponent -= point;
        }
    }
    if (n_digits == 0)
        return false;
    if (i < n && (bytes[i] == 'e' || bytes[i] == 'E')) {
        i++;
        bool negative = i < n && bytes[i] == '-';
        i += i < n && (bytes[i] == '-' || bytes[i] == '+');
        if (i == n)
            return false;
        long e = 0;
        for (; i < n && is_digit(bytes[i]); i++)
            e = e < 100000 ? 10 * e + (bytes[i] - '0') : e;
        exponent += negative ? -e : e;
    }
    if (i < n)
        return false;
    snprintf(digits + n_digits, sizeof(digits) - n_digits, "e%ld", exponent);
    *ret = sign * strtod(digits, NULL);
    return true;
}

/* ---- Any value ------------------------------------------------------------------------------- */

pps_status builtin_print(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    const list *values = argv[0].as.ptr;
    text t;
    text_init(&t, st);
    for (size_t i = 0; i < values->n; i++) {
        if (i)
            text_add(&t, " ", 1);
        text_display(&t, values->items[i]);
    }
    text_add(&t, "\n", 1);
    pps_status status = t.status;
    if (status == PPS_OK)
        status = vm_charge(st, t.n / 16);
    if (status == PPS_OK && st->config.print)
        st->config.print(st->config.print_ud, t.bytes, t.n);
    text_done(&t);
    *ret = pps_nil();
    return status;
}

pps_status builtin_len(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    size_t n;
    PPS_TRY(value_count(st, argv[0], pps_arg_span(st, 0), &n));
    if (n > INT64_MAX)
        return pps_error(st, pps_arg_span(st, 0), 602,
                         "the length of this range does not fit in 64 bits");
    *ret = pps_int((int64_t)n);
    return PPS_OK;
}

pps_status builtin_type(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    const char *name = value_type_name(st, argv[0]);
    return string_new(st, name, strlen(name), ret);
}

static pps_status convert_float(pps_state *st, double f, value *ret)
{
    if (!(f >= -0x1p63 && f < 0x1p63)) {
        char shown[32];
        value_float_text(f, shown);
        return pps_error(st, pps_arg_span(st, 0), 602, "%s does not fit in a 64-bit int", shown);
    }
    *ret = pps_int((int64_t)f);
    return PPS_OK;
}

pps_status builtin_int(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    value v = argv[0];
    if (pps_typeof(v) == PPS_STRING) {
        const string *s = v.as.ptr;
        int64_t i;
        bool overflow;
        if (!parse_int(s->bytes, s->n_bytes, &i, &overflow))
            return pps_error(st, pps_arg_span(st, 0), 312, "the text \"%.40s\" is not an int",
                             s->bytes);
        if (overflow)
            return pps_error(st, pps_arg_span(st, 0), 602, "%.40s does not fit in a 64-bit int",
                             s->bytes);
        *ret = pps_int(i);
    } else if (pps_typeof(v) == PPS_FLOAT) {
        return convert_float(st, v.as.f, ret);
    } else if (pps_typeof(v) == PPS_BOOL) {
        *ret = pps_int(pps_as_bool(v));
    } else if (pps_typeof(v) == PPS_INT) {
        *ret = v;
    } else {
        return arg_wrong(st, 0, "a number, bool or string", v);
    }
    return PPS_OK;
}

pps_status builtin_float(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    double f = 0;
    if (pps_typeof(argv[0]) == PPS_STRING) {
        const string *s = argv[0].as.ptr;
        if (!parse_float(s->bytes, s->n_bytes, &f))
            return pps_error(st, pps_arg_span(st, 0), 312, "the text \"%.40s\" is not a float",
                             s->bytes);
    } else {
        PPS_TRY(arg_number(st, 0, argv[0], &f));
    }
    *ret = pps_float(f);
    return PPS_OK;
}

pps_status builtin_str(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    text t;
    text_init(&t, st);
    text_display(&t, argv[0]);
    return text_string(&t, ret);
}

pps_status builtin_repr(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    text t;
    text_init(&t, st);
    text_repr(&t, argv[0]);
    return text_string(&t, ret);
}

pps_status builtin_bool(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)st, (void)ud, (void)argc;
    value v = argv[0];
    bool b = true;
    switch (pps_typeof(v)) {
    case PPS_NIL:
        b = false;
        break;
    case PPS_BOOL:
        b = pps_as_bool(v);
        break;
    case PPS_INT:
        b = v.as.i != 0;
        break;
    case PPS_FLOAT:
        b = v.as.f != 0;
        break;
    case PPS_STRING:
        b = ((string *)v.as.ptr)->n_bytes != 0;
        break;
    case PPS_RANGE:
        b = range_count(v.as.ptr) != 0;
        break;
    case PPS_LIST:
        b = ((list *)v.as.ptr)->n != 0;
        break;
    case PPS_MAP:
        b = ((map *)v.as.ptr)->n_live != 0;
        break;
    case PPS_PASS:
    case PPS_OP:
    case PPS_STREAM:
    case PPS_HANDLE:
    case PPS_FILTER:
    case PPS_GROUP:
    case PPS_FN:
    case PPS_MODULE:
        break;
    }
    *ret = pps_bool(b);
    return PPS_OK;
}

/* ---- Stopping -------------------------------------------------------------------------------- */

static pps_status stop_with(pps_state *st, int code, value message)
{
    text t;
    text_init(&t, st);
    text_display(&t, message);
    pps_status status = t.status;
    if (status == PPS_OK)
        status = pps_error(st, pps_call_span(st), code, "%s", t.n ? t.bytes : "assertion failed");
    text_done(&t);
    return status;
}

pps_status builtin_assert(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    bool holds = false;
    PPS_TRY(arg_bool(st, 0, argv[0], &holds));
    *ret = pps_nil();
    return holds ? PPS_OK : stop_with(st, 313, argv[1]);
}

pps_status builtin_fail(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc, (void)ret;
    return stop_with(st, 314, argv[0]);
}
