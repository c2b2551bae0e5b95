/* SPDX-License-Identifier: Apache-2.0
 *
 * text.c: a growing text buffer, and values as text.
 *
 * text_repr prints source that parses back to an equal value; text_display prints the same but for
 * a string on its own, which is shown bare. The two are one walk with a flag. The walk keeps the
 * chain of containers it is inside of, so a list that contains itself prints `[...]`, as does
 * anything nested deeper than MAX_NESTING. Nothing printed depends on addresses, the locale or the
 * platform.
 */
#include "lang/value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lang/state.h"

#define MAX_NESTING 500

/* ---- The buffer ------------------------------------------------------------------------------ */

void text_init(text *t, pps_state *st)
{
    *t = (text){.st = st};
}

void text_done(text *t)
{
    heap_free(t->st, t->bytes, t->cap);
    t->bytes = NULL;
    t->n = t->cap = 0;
}

/* Room for `n` more bytes and a NUL. */
static bool reserve(text *t, size_t n)
{
    if (t->status != PPS_OK)
        return false;
    if (t->cap - t->n > n)
        return true;
    size_t cap = t->cap ? 2 * t->cap : 64;
    while (cap - t->n <= n)
        cap *= 2;
    void *p = t->bytes;
    t->status = heap_grow(t->st, &p, t->cap, cap);
    if (t->status != PPS_OK)
        return false;
    t->bytes = p;
    t->cap = cap;
    return true;
}

void text_add(text *t, const char *bytes, size_t n)
{
    if (!reserve(t, n))
        return;
    if (n)
        memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
    t->bytes[t->n] = '\0';
}

static void add(text *t, const char *word)
{
    text_add(t, word, strlen(word));
}

void text_printf(text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n >= 0 && reserve(t, (size_t)n)) {
        vsnprintf(t->bytes + t->n, (size_t)n + 1, format, again);
        t->n += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

pps_status text_take(text *t, char **ret_bytes, size_t *ret_n)
{
    text_add(t, "", 0);
    if (t->status == PPS_OK) {
        void *p = t->bytes;
        t->status = heap_grow(t->st, &p, t->cap, t->n + 1);
        if (t->status == PPS_OK) {
            *ret_bytes = p;
            *ret_n = t->n;
            t->bytes = NULL;
            t->n = t->cap = 0;
        }
    }
    pps_status status = t->status;
    text_done(t);
    return status;
}

pps_status text_string(text *t, value *ret)
{
    pps_status status = t->status;
    if (status == PPS_OK)
        status = string_new(t->st, t->bytes ? t->bytes : "", t->n, ret);
    text_done(t);
    return status;
}

/* ---- Floats ---------------------------------------------------------------------------------- */

/* The digits of `f` (finite, not 0) rounded to n_digits, and its decimal exponent. printf's
 * decimal point follows the host's locale, so only digits are picked up. */
static int float_digits(double f, int n_digits, char digits[20], int *ret_n)
{
    char e[48];
    snprintf(e, sizeof(e), "%.*e", n_digits - 1, f);
    int n = 0;
    const char *p = e;
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
    *ret_n = n;
    return atoi(p + 1);
}

static bool reads_back(double f, const char *digits, int n, int exponent)
{
    char e[48]; /* an integer times a power of ten: no decimal point for the locale to choose */
    snprintf(e, sizeof(e), "%se%d", digits, exponent - (n - 1));
    return strtod(e, NULL) == f;
}

int value_float_text(double f, char buffer[32])
{
    if (isnan(f))
        return snprintf(buffer, 32, "nan");
    const char *sign = signbit(f) ? "-" : "";
    if (isinf(f))
        return snprintf(buffer, 32, "%sinf", sign);
    if (f == 0)
        return snprintf(buffer, 32, "%s0.0", sign);
    f = fabs(f);
    char d[20];
    /* 15 digits always survive in a normal double, so if fewer do, the rest are zeros */
    int n, exponent, n_asked = f < 0x1p-1022 ? 1 : 15;
    do
        exponent = float_digits(f, n_asked, d, &n);
    while (n_asked++ < 17 && !reads_back(f, d, n, exponent));
    if (exponent < -5 || exponent > 15) {
        if (n == 1)
            return snprintf(buffer, 32, "%s%se%d", sign, d, exponent);
        return snprintf(buffer, 32, "%s%c.%se%d", sign, d[0], d + 1, exponent);
    }
    if (exponent < 0)
        return snprintf(buffer, 32, "%s0.%.*s%s", sign, -exponent - 1, "00000", d);
    if (n <= exponent + 1)
        return snprintf(buffer, 32, "%s%s%.*s.0", sign, d, exponent + 1 - n, "0000000000000000");
    return snprintf(buffer, 32, "%s%.*s.%s", sign, exponent + 1, d, d + exponent + 1);
}

/* ---- Values ---------------------------------------------------------------------------------- */

typedef struct inside { /* the containers around the value now printed, innermost first */
    const struct inside *outer;
    const void *object;
    uint32_t depth;
} inside;

static void add_float(text *t, double f, bool repr)
{
    char buffer[32];
    value_float_text(f, buffer);
    if (repr && !isfinite(f))
        text_printf(t, "float(\"%s\")", buffer);
    else
        add(t, buffer);
}

static void add_int(text *t, int64_t i, bool repr)
{
    if (repr && i == INT64_MIN) /* its digits alone are one too many for a literal */
        add(t, "(-9223372036854775807 - 1)");
    else
        text_printf(t, "%lld", (long long)i);
}

static void add_quoted(text *t, const char *bytes, size_t n)
{
    text_add(t, "\"", 1);
    size_t from = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        text_add(t, bytes + from, i - from);
        from = i + 1;
        switch (c) {
        case '\n':
            text_add(t, "\\n", 2);
            break;
        case '\t':
            text_add(t, "\\t", 2);
            break;
        case '\r':
            text_add(t, "\\r", 2);
            break;
        case '"':
        case '\\':
            text_printf(t, "\\%c", c);
            break;
        default:
            text_printf(t, "\\x%02x", c);
        }
    }
    text_add(t, bytes + from, n - from);
    text_add(t, "\"", 1);
}

static const char *const pass_names[] = {"F", "B", "BI", "BW"};
static const char *const comm_names[] = {"", "SEND", "RECV"};

static void add_op(text *t, value v)
{
    pps_comm comm = pps_op_comm(v);
    if (comm)
        text_printf(t, "%s(", comm_names[comm]);
    text_printf(t, "%s(%u, %u)", pass_names[pps_op_pass(v)], pps_op_stage(v), pps_op_mb(v));
    if (comm)
        text_add(t, ")", 1);
}

static void add_term_value(text *t, const filter *f, const filter_term *term)
{
    switch (term->kind) {
    case PPS_TERM_ANY:
        add(t, "*");
        return;
    case PPS_TERM_ABSENT:
        add(t, "-");
        return;
    case PPS_TERM_PASS:
        add(t, pass_names[term->pass]);
        return;
    case PPS_TERM_COMM:
        add(t, comm_names[term->comm]);
        return;
    case PPS_TERM_SET:
        break;
    }
    const int64_t *ints = f->ints + term->ints_begin;
    uint32_t n = term->n_ints;
    if (n == 1) {
        add_int(t, ints[0], true);
    } else if (ints[n - 1] - ints[0] == (int64_t)n - 1) {
        text_printf(t, "%lld..%lld", (long long)ints[0], (long long)ints[n - 1] + 1);
    } else {
        for (uint32_t i = 0; i < n; i++)
            text_printf(t, "%s%lld", i ? ", " : "[", (long long)ints[i]);
        text_add(t, "]", 1);
    }
}

static bool is_single(const filter_term *term)
{
    return term && term->kind == PPS_TERM_SET && term->n_ints == 1;
}

/* F(0, 1, DIR=1): a filter that names one op, all of its other tags being single indices too. */
static bool add_filter_as_op(text *t, const filter *f)
{
    const filter_term *pp = NULL, *mb = NULL, *pass = NULL, *comm = NULL;
    for (uint32_t i = 0; i < f->n_terms; i++) {
        const filter_term *term = &f->terms[i];
        if (term->tag == t->st->tags.pp)
            pp = term;
        else if (term->tag == t->st->tags.mb)
            mb = term;
        else if (term->kind == PPS_TERM_PASS)
            pass = term;
        else if (term->kind == PPS_TERM_COMM)
            comm = term;
        else if (!is_single(term))
            return false;
    }
    if (!is_single(pp) || !is_single(mb) || !pass)
        return false;
    if (comm)
        text_printf(t, "%s(", comm_names[comm->comm]);
    text_printf(t, "%s(%lld, %lld", pass_names[pass->pass], (long long)f->ints[pp->ints_begin],
                (long long)f->ints[mb->ints_begin]);
    for (uint32_t i = 0; i < f->n_terms; i++) {
        const filter_term *term = &f->terms[i];
        if (term != pp && term != mb && term->kind == PPS_TERM_SET)
            text_printf(t, ", %s=%lld", term->tag, (long long)f->ints[term->ints_begin]);
    }
    add(t, comm ? "))" : ")");
    return true;
}

/* PP first, then the program's own tags by name, then MB, PASS and COMM: the order of an op's
 * parts. */
static int term_place(const pps_state *st, const char *tag)
{
    return tag == st->tags.pp     ? 0
           : tag == st->tags.mb   ? 2
           : tag == st->tags.pass ? 3
           : tag == st->tags.comm ? 4
                                  : 1;
}

static void add_filter(text *t, const filter *f)
{
    if (add_filter_as_op(t, f))
        return;
    text_add(t, "{", 1);
    const char *before = "";
    for (int place = 0; place <= 4; place++) {
        for (uint32_t i = 0; i < f->n_terms; i++) {
            if (term_place(t->st, f->terms[i].tag) != place)
                continue;
            text_printf(t, "%s%s: ", before, f->terms[i].tag);
            add_term_value(t, f, &f->terms[i]);
            before = ", ";
        }
    }
    text_add(t, "}", 1);
}

static void add_range(text *t, const range *r)
{
    if (r->step != 1) {
        text_printf(t, "range(%lld, %lld, %lld)", (long long)r->begin, (long long)r->end,
                    (long long)r->step);
        return;
    }
    add_int(t, r->begin, true);
    add(t, "..");
    add_int(t, r->end, true);
}

static void add_handle(text *t, value v)
{
    void *ud;
    const pps_handle_ops *ops = vm_handle_ops(t->st, pps_handle_type_of(v), &ud);
    if (ops && ops->print) {
        char buffer[256];
        buffer[0] = '\0';
        ops->print(t->st, ud, v, buffer, sizeof(buffer));
        add(t, buffer);
    } else {
        add(t, ops ? ops->name : "handle");
    }
}

static void add_value(text *t, value v, bool repr, const inside *outer);

static void add_items(text *t, const value *items, size_t n, const char *before,
                      const char *between, const char *after, const inside *in)
{
    add(t, before);
    for (size_t i = 0; i < n && t->status == PPS_OK; i++) {
        if (i)
            add(t, between);
        add_value(t, items[i], true, in);
    }
    add(t, after);
}

/* A key as the literal wants it: a string or int alone, all else (also -1) in parentheses. */
static void add_key(text *t, value key, const inside *in)
{
    pps_type type = pps_typeof(key);
    bool alone = type == PPS_STRING || (type == PPS_INT && key.as.i >= 0);
    if (!alone)
        text_add(t, "(", 1);
    add_value(t, key, true, in);
    if (!alone)
        text_add(t, ")", 1);
}

static void add_map(text *t, const map *m, const inside *in)
{
    text_add(t, "{", 1);
    const char *before = "";
    for (uint32_t i = 0; i < m->n_entries && t->status == PPS_OK; i++) {
        if (!m->entries[i].live)
            continue;
        add(t, before);
        add_key(t, m->entries[i].key, in);
        add(t, ": ");
        add_value(t, m->entries[i].val, true, in);
        before = ", ";
    }
    text_add(t, "}", 1);
}

static bool is_inside(const inside *in, const void *container)
{
    for (; in; in = in->outer)
        if (in->object == container)
            return true;
    return false;
}

static void add_container(text *t, value v, const inside *outer)
{
    inside in = {outer, v.as.ptr, outer ? outer->depth + 1 : 0};
    bool is_map = pps_typeof(v) == PPS_MAP;
    if (in.depth >= MAX_NESTING || is_inside(outer, v.as.ptr)) {
        add(t, is_map ? "{...}" : "[...]");
        return;
    }
    if (t->status == PPS_OK && t->st->vm)
        t->status = vm_charge(t->st, pps_len(v));
    if (is_map) {
        add_map(t, v.as.ptr, &in);
    } else {
        const list *l = v.as.ptr;
        add_items(t, l->items, l->n, "[", ", ", "]", &in);
    }
}

static void add_value(text *t, value v, bool repr, const inside *outer)
{
    switch (pps_typeof(v)) {
    case PPS_NIL:
        add(t, "nil");
        return;
    case PPS_BOOL:
        add(t, pps_as_bool(v) ? "true" : "false");
        return;
    case PPS_INT:
        add_int(t, v.as.i, repr);
        return;
    case PPS_FLOAT:
        add_float(t, v.as.f, repr);
        return;
    case PPS_PASS:
        add(t, pass_names[pps_op_pass(v)]);
        return;
    case PPS_OP:
        add_op(t, v);
        return;
    case PPS_STREAM: {
        const char *name = pps_stream_name(t->st, pps_stream_index(v));
        add(t, "stream(");
        add_quoted(t, name, strlen(name));
        add(t, ")");
        return;
    }
    case PPS_HANDLE:
        add_handle(t, v);
        return;
    case PPS_STRING: {
        const string *s = v.as.ptr;
        if (repr)
            add_quoted(t, s->bytes, s->n_bytes);
        else
            text_add(t, s->bytes, s->n_bytes);
        return;
    }
    case PPS_RANGE:
        add_range(t, v.as.ptr);
        return;
    case PPS_LIST:
    case PPS_MAP:
        add_container(t, v, outer);
        return;
    case PPS_FILTER:
        add_filter(t, v.as.ptr);
        return;
    case PPS_GROUP: {
        const group *g = v.as.ptr;
        add_items(t, g->items, g->n, "", " | ", "", outer);
        return;
    }
    case PPS_FN:
        text_printf(t, "fn %s", vm_object_name(v.as.ptr));
        return;
    case PPS_MODULE:
        text_printf(t, "module %s", vm_object_name(v.as.ptr));
        return;
    }
}

void text_repr(text *t, value v)
{
    add_value(t, v, true, NULL);
}

void text_display(text *t, value v)
{
    add_value(t, v, false, NULL);
}
