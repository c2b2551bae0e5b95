/* SPDX-License-Identifier: Apache-2.0
 *
 * builtins_mesh.c: mesh(pp=4, dp=2), a grid of devices 0, 1, ... with named axes, the first the
 * slowest:
 *
 *            dp=0  dp=1
 *     pp=0     0     1        m(pp=1)  is [2, 3]
 *     pp=1     2     3        m(dp=0)  is [0, 2, 4, 6]
 *     pp=2     4     5        m()      is all of them
 *     pp=3     6     7        m.pp     is 4
 *
 * With `by` the slice is cut into teams, the lists of devices that differ along that axis alone:
 * m(by="dp") is [[0, 1], [2, 3], [4, 5], [6, 7]], m(pp=0..2, by="pp") is [[0, 2], [1, 3]].
 *
 * A mesh is a handle; its payload is a row of the state's table, where equal meshes share a row.
 */
#include "lang/builtins.h"

#include <stdio.h>
#include <string.h>

#define MESH_MAX_AXES    8
#define MESH_MAX_DEVICES (1 << 20)

struct mesh {
    uint32_t n_axes;
    uint32_t sizes[MESH_MAX_AXES];
    const char *names[MESH_MAX_AXES]; /* interned */
};

static struct mesh *mesh_of(pps_state *st, value v)
{
    return &st->builtins.meshes[pps_handle_payload(v)];
}

static uint32_t find_axis(const struct mesh *m, const char *name)
{
    uint32_t i = 0;
    while (i < m->n_axes && strcmp(m->names[i], name) != 0)
        i++;
    return i;
}

static pps_status no_axis(pps_state *st, const struct mesh *m, pps_span span, int code,
                          const char *name)
{
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, code, span, "this mesh has no axis `%s`", name);
    const char *near = pps_did_you_mean(name, m->names, m->n_axes);
    if (near)
        pps_diag_help(d, "did you mean `%s`?", near);
    return pps_diag_done(d);
}

static void print_mesh(pps_state *st, void *ud, value v, char *buffer, size_t n)
{
    (void)ud;
    const struct mesh *m = mesh_of(st, v);
    size_t at = 0;
    for (uint32_t i = 0; i < m->n_axes && at < n; i++)
        at += (size_t)snprintf(buffer + at, n - at, "%s%s=%u", i ? ", " : "mesh(", m->names[i],
                               m->sizes[i]);
    if (at < n)
        snprintf(buffer + at, n - at, ")");
}

static pps_status mesh_field(pps_state *st, void *ud, value v, const char *name, value *ret)
{
    (void)ud;
    const struct mesh *m = mesh_of(st, v);
    uint32_t axis = find_axis(m, name);
    if (axis == m->n_axes)
        return no_axis(st, m, vm_current_span(st), 306, name);
    *ret = pps_int(m->sizes[axis]);
    return PPS_OK;
}

/* ---- m(pp=s): the devices of a slice ----------------------------------------------------------
 */

typedef struct slice { /* per axis, the indices asked for: an int, a range or a list; nil: all */
    value of[MESH_MAX_AXES];
    uint32_t n[MESH_MAX_AXES];
    uint32_t argument[MESH_MAX_AXES]; /* for its span */
    uint32_t by;                      /* teams vary along this axis; n_axes: no teams */
} slice;

static value slice_at(const slice *s, uint32_t axis, uint32_t i)
{
    value v = s->of[axis];
    if (pps_typeof(v) == PPS_NIL)
        return pps_int(i);
    if (pps_typeof(v) == PPS_RANGE) {
        const range *r = v.as.ptr;
        return pps_int((int64_t)((uint64_t)r->begin + i * (uint64_t)r->step));
    }
    return pps_typeof(v) == PPS_LIST ? ((list *)v.as.ptr)->items[i] : v;
}

static pps_status check_axis(pps_state *st, const struct mesh *m, uint32_t axis, slice *s)
{
    value v = s->of[axis];
    size_t n = 1;
    if (pps_typeof(v) == PPS_NIL)
        n = m->sizes[axis];
    else if (pps_typeof(v) == PPS_LIST || pps_typeof(v) == PPS_RANGE)
        PPS_TRY(value_count(st, v, pps_arg_span(st, s->argument[axis]), &n));
    if (n > m->sizes[axis])
        return pps_error(st, pps_arg_span(st, s->argument[axis]), 310,
                         "axis %s has %u indices, these are %zu", m->names[axis], m->sizes[axis],
                         n);
    s->n[axis] = (uint32_t)n;
    for (uint32_t i = 0; i < n; i++) {
        int64_t index;
        PPS_TRY(arg_int(st, s->argument[axis], slice_at(s, axis, i), &index));
        if (index < 0 || index >= m->sizes[axis])
            return pps_error(st, pps_arg_span(st, s->argument[axis]), 310,
                             "axis %s of this mesh has indices 0 to %u, there is no %lld",
                             m->names[axis], m->sizes[axis] - 1, (long long)index);
    }
    return PPS_OK;
}

/* The axes from the slowest; that of the teams comes last. */
static void axis_order(const struct mesh *m, const slice *s, uint32_t ret[MESH_MAX_AXES])
{
    uint32_t n = 0;
    for (uint32_t axis = 0; axis < m->n_axes; axis++)
        if (axis != s->by)
            ret[n++] = axis;
    if (s->by < m->n_axes)
        ret[n] = s->by;
}

static int64_t device_at(const struct mesh *m, const slice *s, const uint32_t *at)
{
    int64_t device = 0;
    for (uint32_t axis = 0; axis < m->n_axes; axis++)
        device = device * m->sizes[axis] + slice_at(s, axis, at[axis]).as.i;
    return device;
}

/* The devices of the slice, or with `by` lists of them, each filled while `by` counts up. */
static pps_status add_devices(pps_state *st, const struct mesh *m, const slice *s, list *ret)
{
    uint32_t at[MESH_MAX_AXES] = {0}, order[MESH_MAX_AXES];
    list *to = ret;
    for (uint32_t axis = 0; axis < m->n_axes; axis++)
        if (s->n[axis] == 0)
            return PPS_OK;
    axis_order(m, s, order);
    for (;;) {
        if (s->by < m->n_axes && at[s->by] == 0) {
            value team;
            PPS_TRY(list_new(st, s->n[s->by], &team));
            PPS_TRY(list_push(st, ret, team));
            to = team.as.ptr;
        }
        PPS_TRY(list_push(st, to, pps_int(device_at(m, s, at))));
        uint32_t i = m->n_axes; /* count up, the last axis fastest */
        while (i > 0 && ++at[order[i - 1]] == s->n[order[i - 1]])
            at[order[--i]] = 0;
        if (i == 0)
            return PPS_OK;
    }
}

static pps_status take_by(pps_state *st, const struct mesh *m, size_t argument, value v, slice *s)
{
    const string *name;
    PPS_TRY(arg_string(st, argument, v, &name));
    s->by = find_axis(m, name->bytes);
    if (s->by == m->n_axes)
        return no_axis(st, m, pps_arg_span(st, argument), 302, name->bytes);
    return PPS_OK;
}

/* Teams along an axis that is fixed to one index would be single devices. */
static pps_status check_by(pps_state *st, const struct mesh *m, const slice *s, size_t argument)
{
    if (s->by == m->n_axes || pps_typeof(s->of[s->by]) != PPS_INT)
        return PPS_OK;
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 312, pps_arg_span(st, argument),
                                 "teams along %s need more than its index %lld", m->names[s->by],
                                 (long long)s->of[s->by].as.i);
    pps_diag_also(d, pps_arg_span(st, s->argument[s->by]), "%s is fixed here", m->names[s->by]);
    return pps_diag_done(d);
}

static pps_status mesh_call(pps_state *st, void *ud, value v, size_t argc, const value *argv,
                            size_t n_named, const char *const *names, const value *named,
                            value *ret)
{
    (void)ud, (void)argv;
    const struct mesh m = *mesh_of(st, v);
    slice s = {.by = m.n_axes};
    size_t by_argument = 0;
    if (argc)
        return pps_error(st, pps_arg_span(st, 0), 301, "name the axis: `m(%s=...)`", m.names[0]);
    for (uint32_t i = 0; i < m.n_axes; i++)
        s.of[i] = pps_nil();
    for (size_t i = 0; i < n_named; i++) {
        if (strcmp(names[i], "by") == 0) {
            PPS_TRY(take_by(st, &m, i, named[i], &s));
            by_argument = i;
            continue;
        }
        uint32_t axis = find_axis(&m, names[i]);
        if (axis == m.n_axes)
            return no_axis(st, &m, pps_arg_span(st, i), 302, names[i]);
        s.of[axis] = named[i];
        s.argument[axis] = (uint32_t)i;
    }
    PPS_TRY(check_by(st, &m, &s, by_argument));
    size_t n = 1;
    for (uint32_t i = 0; i < m.n_axes; i++) {
        PPS_TRY(check_axis(st, &m, i, &s));
        n *= s.n[i];
    }
    PPS_TRY(vm_charge(st, n));
    PPS_TRY(list_new(st, s.by < m.n_axes && n ? n / s.n[s.by] : n, ret));
    return add_devices(st, &m, &s, ret->as.ptr);
}

/* ---- mesh(pp=4, dp=2) --------------------------------------------------------------------------
 */

pps_status mesh_register(pps_state *st)
{
    static const pps_handle_ops ops = {
        .name = "mesh", .field = mesh_field, .call = mesh_call, .print = print_mesh};
    return pps_handle_register(st, &ops, NULL, &st->builtins.mesh_type);
}

void mesh_done(pps_state *st)
{
    builtin_table *t = &st->builtins;
    heap_free(st, t->meshes, t->cap_meshes * sizeof(struct mesh));
    t->meshes = NULL;
    t->n_meshes = t->cap_meshes = 0;
}

static bool same_mesh(const struct mesh *a, const struct mesh *b)
{
    if (a->n_axes != b->n_axes)
        return false;
    for (uint32_t i = 0; i < a->n_axes; i++)
        if (a->names[i] != b->names[i] || a->sizes[i] != b->sizes[i])
            return false;
    return true;
}

static pps_status keep_mesh(pps_state *st, const struct mesh *m, uint32_t *ret)
{
    builtin_table *t = &st->builtins;
    for (uint32_t i = 0; i < t->n_meshes; i++) {
        if (same_mesh(&t->meshes[i], m)) {
            *ret = i;
            return PPS_OK;
        }
    }
    if (t->n_meshes == t->cap_meshes) {
        uint32_t cap = t->cap_meshes ? 2 * t->cap_meshes : 4;
        void *p = t->meshes;
        PPS_TRY(heap_grow(st, &p, t->cap_meshes * sizeof(*m), cap * sizeof(*m)));
        t->meshes = p;
        t->cap_meshes = cap;
    }
    t->meshes[t->n_meshes] = *m;
    *ret = t->n_meshes++;
    return PPS_OK;
}

pps_status builtin_mesh(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    const map *axes = argv[0].as.ptr;
    struct mesh m = {0};
    int64_t n_devices = 1;
    for (uint32_t i = 0; i < axes->n_entries; i++) {
        int64_t size;
        if (m.n_axes == MESH_MAX_AXES)
            return pps_error(st, pps_call_span(st), 312, "a mesh has at most %d axes",
                             MESH_MAX_AXES);
        PPS_TRY(arg_int(st, 0, axes->entries[i].val, &size));
        m.names[m.n_axes] = pps_intern(st, pps_as_string(axes->entries[i].key, NULL));
        if (!m.names[m.n_axes])
            return heap_no_memory(st);
        if (strcmp(m.names[m.n_axes], "by") == 0)
            return pps_error(st, pps_call_span(st), 312,
                             "an axis cannot be called `by`: `m(by=\"dp\")` lists teams");
        if (size < 1 || size > MESH_MAX_DEVICES || (n_devices *= size) > MESH_MAX_DEVICES)
            return pps_error(
                st, pps_call_span(st), 312,
                "a mesh has 1 to %d devices, and so has each axis: %s=%lld does not do",
                MESH_MAX_DEVICES, m.names[m.n_axes], (long long)size);
        m.sizes[m.n_axes++] = (uint32_t)size;
    }
    if (m.n_axes == 0)
        return pps_error(st, pps_call_span(st), 301, "a mesh needs an axis: `mesh(pp=4)`");
    uint32_t row;
    PPS_TRY(keep_mesh(st, &m, &row));
    *ret = pps_handle(st->builtins.mesh_type, row);
    return PPS_OK;
}
