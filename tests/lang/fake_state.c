/* SPDX-License-Identifier: Apache-2.0
 *
 * fake_state.c: see fake_state.h.
 */
#include "fake_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static fake_state *fake_of(pps_state *st)
{
    return (fake_state *)st; /* its first member */
}

static void *fake_alloc(void *ud, void *ptr, size_t old_bytes, size_t new_bytes)
{
    fake_state *f = ud;
    if (new_bytes > old_bytes && ++f->n_allocs == f->fail_at)
        return NULL;
    void *p = NULL;
    if (new_bytes == 0)
        free(ptr);
    else if (!(p = realloc(ptr, new_bytes)))
        return NULL;
    f->bytes_out += new_bytes - old_bytes;
    return p;
}

void fake_open(fake_state *f, size_t max_bytes, size_t fail_at)
{
    memset(f, 0, sizeof(*f));
    pps_state *st = &f->st;
    st->config.alloc = fake_alloc;
    st->config.alloc_ud = f;
    st->config.max_bytes = max_bytes;
    st->vm = (struct vm *)f; /* never looked into: only that it is there */
    arena_init(&st->names, NULL, NULL);
    intern_init(&st->intern, &st->names);
    st->tags.pp = pps_intern(st, "PP");
    st->tags.mb = pps_intern(st, "MB");
    st->tags.pass = pps_intern(st, "PASS");
    st->tags.comm = pps_intern(st, "COMM");
    heap_init(st);
    f->fail_at = fail_at;
    f->n_allocs = 0;
}

void fake_close(fake_state *f)
{
    heap_done(&f->st);
    assert_int_equal(f->st.heap.bytes, 0);
    assert_int_equal(f->bytes_out, 0);
    intern_done(&f->st.intern);
    arena_done(&f->st.names);
}

value fake_function(pps_state *st, const char *name,
                    pps_status (*call)(pps_state *st, const value *argv, value *ret))
{
    void *p;
    assert_int_equal(heap_object(st, PPS_FN, sizeof(fake_fn), &p), PPS_OK);
    fake_fn *fn = p;
    fn->name = name;
    fn->call = call;
    return value_object(PPS_FN, fn);
}

value fake_string(pps_state *st, const char *bytes)
{
    value v;
    assert_int_equal(string_new(st, bytes, strlen(bytes), &v), PPS_OK);
    return v;
}

value fake_ints(pps_state *st, size_t n, const int64_t *ints)
{
    value v;
    assert_int_equal(list_new(st, n, &v), PPS_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(list_push(st, v.as.ptr, pps_int(ints[i])), PPS_OK);
    return v;
}

const char *fake_repr(pps_state *st, value v)
{
    static char shown[4096];
    text t;
    text_init(&t, st);
    text_repr(&t, v);
    assert_int_equal(t.status, PPS_OK);
    snprintf(shown, sizeof(shown), "%s", t.bytes);
    text_done(&t);
    return shown;
}

/* ---- What the VM answers ----------------------------------------------------------------------
 */

pps_span vm_current_span(pps_state *st)
{
    (void)st;
    return (pps_span){0};
}

pps_span pps_call_span(pps_state *st)
{
    return vm_current_span(st);
}

pps_span pps_arg_span(pps_state *st, size_t arg)
{
    (void)arg;
    return vm_current_span(st);
}

pps_status vm_charge(pps_state *st, uint64_t steps)
{
    fake_of(st)->steps += steps;
    return PPS_OK;
}

pps_status vm_call(pps_state *st, value fn, size_t argc, const value *argv, value *ret)
{
    (void)argc;
    heap_collect(st); /* the worst a script could do */
    return ((fake_fn *)fn.as.ptr)->call(st, argv, ret);
}

void vm_mark_roots(pps_state *st)
{
    for (uint32_t i = 0; i < fake_of(st)->n_roots; i++)
        heap_mark(st, fake_of(st)->roots[i]);
}

void vm_object_mark(pps_state *st, object *o)
{
    (void)st, (void)o;
}

void vm_object_free(pps_state *st, object *o)
{
    heap_free(st, o, sizeof(fake_fn));
}

const char *vm_object_name(object *o)
{
    return ((fake_fn *)o)->name;
}

const pps_handle_ops *vm_handle_ops(pps_state *st, uint32_t handle_type, void **ret_ud)
{
    (void)st, (void)handle_type;
    *ret_ud = NULL;
    return NULL;
}

const char *pps_intern(pps_state *st, const char *name)
{
    return intern(&st->intern, name, strlen(name));
}

const char *pps_stream_name(pps_state *st, uint32_t index)
{
    (void)st, (void)index;
    return "pp";
}

/* ---- Diagnostics ------------------------------------------------------------------------------
 */

struct pps_diag {
    int unused;
};

static void keep_title(pps_state *st, int code, const char *title, va_list args)
{
    fake_state *f = fake_of(st);
    f->n_errors++;
    f->code = code;
    f->help[0] = '\0';
    vsnprintf(f->title, sizeof(f->title), title, args);
}

pps_status pps_error(pps_state *st, pps_span span, int code, const char *title, ...)
{
    (void)span;
    va_list args;
    va_start(args, title);
    keep_title(st, code, title, args);
    va_end(args);
    return PPS_ERR_SCRIPT;
}

pps_diag *pps_diag_start(pps_state *st, pps_severity severity, int code, pps_span span,
                         const char *title, ...)
{
    (void)severity, (void)span;
    va_list args;
    va_start(args, title);
    keep_title(st, code, title, args);
    va_end(args);
    return (pps_diag *)st;
}

void pps_diag_note(pps_diag *d, const char *note, ...)
{
    (void)d, (void)note;
}

void pps_diag_help(pps_diag *d, const char *help, ...)
{
    fake_state *f = (fake_state *)d;
    va_list args;
    va_start(args, help);
    vsnprintf(f->help, sizeof(f->help), help, args);
    va_end(args);
}

pps_status pps_diag_done(pps_diag *d)
{
    (void)d;
    return PPS_ERR_SCRIPT;
}

const char *pps_did_you_mean(const char *name, const char *const *names, size_t n)
{
    (void)name;
    return n ? names[0] : NULL;
}

/* ---- Accessors --------------------------------------------------------------------------------
 */

pps_value pps_nil(void)
{
    return value_make(PPS_NIL, 0);
}

pps_value pps_bool(bool b)
{
    return value_make(PPS_BOOL, b);
}

pps_value pps_int(int64_t i)
{
    return value_make(PPS_INT, (uint64_t)i);
}

pps_value pps_float(double f)
{
    pps_value v = value_make(PPS_FLOAT, 0);
    v.as.f = f;
    return v;
}

pps_value pps_op(uint32_t stage, uint32_t mb, pps_pass pass, pps_comm comm)
{
    return value_make(PPS_OP, value_op_bits(stage, mb, pass, comm));
}

bool pps_as_bool(pps_value v)
{
    return v.as.bits != 0;
}

uint32_t pps_op_stage(pps_value v)
{
    return (uint32_t)(v.as.bits >> 8) & 0xffffff;
}

uint32_t pps_op_mb(pps_value v)
{
    return (uint32_t)(v.as.bits >> 32);
}

pps_pass pps_op_pass(pps_value v)
{
    return (pps_pass)(v.as.bits & 3);
}

pps_comm pps_op_comm(pps_value v)
{
    return (pps_comm)(v.as.bits >> 2 & 3);
}

uint32_t pps_handle_type_of(pps_value v)
{
    return (uint32_t)(v.tag >> TAG_ORIGIN_SHIFT);
}

uint32_t pps_stream_index(pps_value v)
{
    return (uint32_t)v.as.bits;
}

size_t pps_len(pps_value v)
{
    return pps_typeof(v) == PPS_LIST ? ((list *)v.as.ptr)->n : ((map *)v.as.ptr)->n_live;
}
