/* SPDX-License-Identifier: Apache-2.0
 *
 * Modules: one per resolved name and state. Finding a file is the loader hook's business; the
 * library opens none. A module runs once, at its first import; then its globals, what they hold and
 * what its functions captured are frozen. A module that fails is forgotten: importing it again runs
 * it again.
 */
#include "lang/compile.h"

#include <stdio.h>
#include <string.h>

#include "lang/diag.h"
#include "lang/parse.h"

pps_status module_new(pps_state *st, const char *name, const char *resolved, module **ret)
{
    void *p;
    struct vm *vm = st->vm;
    PPS_TRY(heap_object(st, PPS_MODULE, sizeof(module), &p));
    module *m = p;
    m->name = pps_intern(st, name);
    m->resolved = pps_intern(st, resolved);
    if (!m->name || !m->resolved)
        return PPS_ERR_NOMEM;
    void *array = vm->modules;
    PPS_TRY(vm_reserve(st, &array, &vm->cap_modules, vm->n_modules + 1, sizeof(module *)));
    vm->modules = array;
    vm->modules[vm->n_modules++] = m;
    *ret = m;
    return PPS_OK;
}

/* All three tables or none: they share `cap`. */
static pps_status grow_globals(pps_state *st, module *m)
{
    uint32_t cap = m->cap ? 2 * m->cap : 8;
    void *globals = NULL, *names = NULL, *spans = NULL;
    pps_status status = heap_alloc(st, cap * sizeof(value), &globals);
    if (status == PPS_OK)
        status = heap_alloc(st, cap * sizeof(char *), &names);
    if (status == PPS_OK)
        status = heap_alloc(st, cap * sizeof(pps_span), &spans);
    if (status != PPS_OK) {
        heap_free(st, globals, cap * sizeof(value));
        heap_free(st, names, cap * sizeof(char *));
        return status;
    }
    if (m->n) {
        memcpy(globals, m->globals, m->n * sizeof(value));
        memcpy(names, m->global_names, m->n * sizeof(char *));
        memcpy(spans, m->spans, m->n * sizeof(pps_span));
    }
    heap_free(st, m->globals, m->cap * sizeof(value));
    heap_free(st, (void *)m->global_names, m->cap * sizeof(char *));
    heap_free(st, m->spans, m->cap * sizeof(pps_span));
    m->globals = globals;
    m->global_names = names;
    m->spans = spans;
    m->cap = cap;
    return PPS_OK;
}

pps_status module_declare(pps_state *st, module *m, const char *name, pps_span span,
                          uint32_t *ret_slot)
{
    if (name_map_get(&m->names, name, ret_slot))
        return PPS_OK;
    if (m->n > BC_MAX_BX)
        return pps_error(st, span, 111, "more than %d names at the top level", BC_MAX_BX + 1);
    if (m->n == m->cap)
        PPS_TRY(grow_globals(st, m));
    PPS_TRY(name_map_set(st, &m->names, name, m->n));
    m->globals[m->n] = (value){.tag = VM_TAG_UNBOUND};
    m->global_names[m->n] = name;
    m->spans[m->n] = span;
    *ret_slot = m->n++;
    return PPS_OK;
}

/* ---- Freezing -------------------------------------------------------------------------------- */

static void freeze(pps_state *st, value v, uint32_t depth)
{
    value_freeze(v);
    if (pps_typeof(v) != PPS_FN || depth > 100)
        return;
    fn_object *f = v.as.ptr;
    for (uint32_t i = 0; i < f->n_cells; i++) {
        cell *c = f->cells[i];
        if (c->o.frozen)
            continue;
        c->o.frozen = 1;
        freeze(st, *c->at, depth + 1);
    }
}

void module_finish(pps_state *st, module *m)
{
    m->state = MODULE_READY;
    m->o.frozen = 1;
    for (uint32_t i = 0; i < m->n; i++)
        freeze(st, m->globals[i], 0);
}

/* ---- Fields ---------------------------------------------------------------------------------- */

pps_status module_field(pps_state *st, module *m, const char *name, pps_span span, value *ret)
{
    uint32_t slot;
    if (name_map_get(&m->names, name, &slot)) {
        *ret = m->globals[slot];
        if (ret->tag != VM_TAG_UNBOUND)
            return PPS_OK;
        *ret = pps_nil();
        return pps_diag_done(
            vm_error_at(st, span, 101, "`%s` of module %s has no value yet", name, m->name));
    }
    pps_diag *d = vm_error_at(st, span, 703, "module %s has no `%s`", m->name, name);
    const char *similar = pps_did_you_mean(name, m->global_names, m->n);
    if (similar)
        pps_diag_help(d, "did you mean `%s`?", similar);
    return pps_diag_done(d);
}

/* ---- Importing ------------------------------------------------------------------------------- */

static module *find(struct vm *vm, const char *resolved)
{
    for (uint32_t i = 0; i < vm->n_modules; i++)
        if (vm->modules[i]->resolved == resolved && vm->modules[i]->state != MODULE_FAILED)
            return vm->modules[i];
    return NULL;
}

/* `m` is imported while it runs: the modules that run since then are the cycle. */
static pps_status cycle(pps_state *st, const module *m, pps_span span)
{
    const struct vm *vm = st->vm;
    char path[400] = "";
    size_t used = 0;
    bool inside = false;
    const module *links[64];
    uint32_t n = 0;
    for (uint32_t i = 0; i < vm->n_frames; i++) {
        const bc_proto *p = vm->frames[i].proto;
        if (!p->is_main)
            continue;
        inside |= p->mod == m;
        if (inside && n < 64)
            links[n++] = p->mod;
    }
    for (uint32_t i = 0; i < n && used < sizeof(path); i++)
        used += (size_t)snprintf(path + used, sizeof(path) - used, "%s -> ", links[i]->name);
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 701, span, "import cycle %s%s", path, m->name);
    for (uint32_t i = 1; i < n; i++)
        pps_diag_also(d, links[i]->import_span, "imports %s", links[i]->name);
    return pps_diag_done(d);
}

static pps_status cannot_load(pps_state *st, pps_span span, const char *path, const char *reason)
{
    return pps_diag_done(vm_error_at(st, span, 702, "cannot import \"%s\": %s", path, reason));
}

static pps_status compile_source(pps_state *st, module *m, const pps_source *source, bc_proto **ret)
{
    arena trees;
    ast_file file = {0};
    PPS_TRY(source_add(st, m->name, source->text, source->bytes, &m->file));
    arena_init(&trees, heap_arena_alloc, st);
    pps_status status = parse_file(st, m->file, &trees, &file);
    if (status == PPS_OK)
        status = compile_module(st, m, &file, ret);
    arena_done(&trees);
    return status;
}

static pps_status use_source(pps_state *st, const char *path, pps_span span,
                             const pps_source *source, module **ret, bc_proto **ret_proto)
{
    const char *resolved = pps_intern(st, source->resolved ? source->resolved : path);
    if (!resolved)
        return PPS_ERR_NOMEM;
    module *m = find(st->vm, resolved);
    *ret_proto = NULL;
    if (m && m->state == MODULE_RUNNING)
        return cycle(st, m, span);
    if (!m) {
        PPS_TRY(module_new(st, path, resolved, &m));
        m->import_span = span;
        m->state = MODULE_RUNNING;
        pps_status status = compile_source(st, m, source, ret_proto);
        if (status != PPS_OK) {
            m->state = MODULE_FAILED;
            return status;
        }
    }
    *ret = m;
    return PPS_OK;
}

pps_status module_import(pps_state *st, module *from, const char *path, pps_span span, module **ret,
                         bc_proto **ret_proto)
{
    pps_source source = {0};
    char reason[256] = "it cannot be found";
    if (!st->config.load)
        return cannot_load(st, span, path, "this program loads no modules");
    pps_status status = st->config.load(st->config.load_ud, from->resolved, path, &source, reason);
    reason[sizeof(reason) - 1] = 0;
    if (status == PPS_ERR_NOMEM)
        return status;
    if (status != PPS_OK)
        return cannot_load(st, span, path, reason);
    status = use_source(st, path, span, &source, ret, ret_proto);
    if (source.release)
        source.release(st->config.load_ud, &source);
    return status;
}

/* ---- For `dump` ------------------------------------------------------------------------------ */

pps_status module_dump(pps_state *st, const char *name, const char *bytes, size_t n,
                       void (*print)(void *ud, const char *bytes, size_t n), void *ud)
{
    module *m;
    bc_proto *p;
    const pps_source source = {.text = (char *)bytes, .bytes = n};
    diag_batch(st);
    pps_status status = module_new(st, name, name, &m);
    if (status == PPS_OK) {
        m->is_main = true;
        m->state = MODULE_FAILED; /* it never runs, so nobody may import it */
        status = compile_source(st, m, &source, &p);
    }
    if (status == PPS_OK)
        bc_dump(st, p, print, ud);
    diag_flush(st);
    return status;
}
