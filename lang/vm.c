/* SPDX-License-Identifier: Apache-2.0
 *
 * The VM around its loop: its life, the register stack and the frames, captured variables, limits,
 * unwinding, roots for the collector, and calls from C. The loop is vm_run.c; what an error says is
 * vm_error.c's.
 */
#include "lang/vm.h"

#include <string.h>

#include "lang/diag.h"

/* ---- Growing --------------------------------------------------------------------------------- */

pps_status vm_reserve(pps_state *st, void **array, uint32_t *cap, uint64_t n, size_t elem_bytes)
{
    if (n <= *cap)
        return PPS_OK;
    uint64_t new_cap = *cap ? 2 * (uint64_t)*cap : 8;
    if (new_cap < n)
        new_cap = n;
    if (new_cap > UINT32_MAX)
        return PPS_ERR_LIMIT;
    PPS_TRY(heap_grow(st, array, *cap * elem_bytes, (size_t)new_cap * elem_bytes));
    memset((char *)*array + *cap * elem_bytes, 0, (size_t)(new_cap - *cap) * elem_bytes);
    *cap = (uint32_t)new_cap;
    return PPS_OK;
}
#define RESERVE(st, array, cap, n)                                               \
    do {                                                                         \
        void *reserve_ptr_ = (array);                                            \
        PPS_TRY(vm_reserve((st), &reserve_ptr_, &(cap), (n), sizeof(*(array)))); \
        (array) = reserve_ptr_;                                                  \
    } while (0)

void *vm_new(pps_state *st, size_t bytes)
{
    void *p = arena_zero(&st->vm->code, bytes);
    if (!p)
        pps_error(st, vm_current_span(st), 804, "no memory left for the program's code");
    return p;
}

static uint32_t name_slot(const name_map *m, const char *name)
{
    uint64_t h = (uint64_t)(uintptr_t)name * 0x9e3779b97f4a7c15u;
    uint32_t i = (uint32_t)(h >> 32) & (m->cap - 1);
    while (m->keys[i] && m->keys[i] != name)
        i = (i + 1) & (m->cap - 1);
    return i;
}

bool name_map_get(const name_map *m, const char *name, uint32_t *ret)
{
    if (!m->cap)
        return false;
    uint32_t i = name_slot(m, name);
    if (!m->keys[i])
        return false;
    *ret = m->numbers[i];
    return true;
}

pps_status name_map_set(pps_state *st, name_map *m, const char *name, uint32_t number)
{
    if (2 * (m->n + 1) > m->cap) {
        name_map bigger = {.cap = m->cap ? 2 * m->cap : 16};
        void *keys, *numbers;
        PPS_TRY(heap_alloc(st, bigger.cap * sizeof(char *), &keys));
        pps_status status = heap_alloc(st, bigger.cap * sizeof(uint32_t), &numbers);
        if (status != PPS_OK) {
            heap_free(st, keys, bigger.cap * sizeof(char *));
            return status;
        }
        memset(keys, 0, bigger.cap * sizeof(char *));
        bigger.keys = keys;
        bigger.numbers = numbers;
        bigger.n = m->n;
        for (uint32_t i = 0; i < m->cap; i++) {
            if (!m->keys[i])
                continue;
            uint32_t to = name_slot(&bigger, m->keys[i]);
            bigger.keys[to] = m->keys[i];
            bigger.numbers[to] = m->numbers[i];
        }
        name_map_done(st, m);
        *m = bigger;
    }
    uint32_t i = name_slot(m, name);
    if (!m->keys[i])
        m->n++;
    m->keys[i] = name;
    m->numbers[i] = number;
    return PPS_OK;
}

void name_map_done(pps_state *st, name_map *m)
{
    heap_free(st, m->keys, m->cap * sizeof(char *));
    heap_free(st, m->numbers, m->cap * sizeof(uint32_t));
    *m = (name_map){0};
}

/* ---- Captured variables -----------------------------------------------------------------------
 */

static pps_status open_cell(pps_state *st, value *at, cell **ret)
{
    cell **link = &st->vm->open;
    while (*link && (*link)->at > at)
        link = &(*link)->next_open;
    if (*link && (*link)->at == at) {
        *ret = *link;
        return PPS_OK;
    }
    void *p;
    PPS_TRY(heap_object(st, PPS_FN, sizeof(cell), &p));
    cell *c = p;
    c->kind = FN_CELL;
    c->at = at;
    c->next_open = *link;
    *link = c;
    *ret = c;
    return PPS_OK;
}

void vm_close_cells(pps_state *st, value *from)
{
    struct vm *vm = st->vm;
    while (vm->open && vm->open->at >= from) {
        cell *c = vm->open;
        vm->open = c->next_open;
        c->closed = *c->at;
        c->at = &c->closed;
        c->next_open = NULL;
    }
}

pps_status vm_closure(pps_state *st, bc_proto *p, fn_object *outer, value *regs, value *ret)
{
    void *o;
    PPS_TRY(heap_object(st, PPS_FN, sizeof(fn_object) + p->n_upvalues * sizeof(cell *), &o));
    fn_object *f = o;
    f->kind = FN_SCRIPT;
    f->proto = p;
    f->n_cells = p->n_upvalues;
    for (uint32_t i = 0; i < p->n_upvalues; i++) {
        const bc_upvalue *up = &p->upvalues[i];
        if (up->from_local)
            PPS_TRY(open_cell(st, regs + up->index, &f->cells[i]));
        else
            f->cells[i] = outer->cells[up->index];
    }
    *ret = value_object(PPS_FN, f);
    return PPS_OK;
}

/* ---- Stacks ---------------------------------------------------------------------------------- */

pps_status vm_reserve_regs(pps_state *st, uint32_t n)
{
    struct vm *vm = st->vm;
    if (n <= vm->cap_regs)
        return PPS_OK;
    value *before = vm->regs;
    RESERVE(st, vm->regs, vm->cap_regs, n);
    for (cell *c = vm->open; c && before; c = c->next_open)
        c->at = vm->regs + (c->at - before);
    return PPS_OK;
}

static pps_status too_deep(pps_state *st, const bc_proto *p)
{
    pps_diag *d = vm_error_at(st, vm_current_span(st), 801, "recursion deeper than %u calls",
                              st->vm->max_depth);
    pps_diag_label(d, "calls `%s`", p->name);
    pps_diag_done(d);
    return PPS_ERR_LIMIT;
}

pps_status vm_push_frame(pps_state *st, fn_object *fn, uint32_t base, uint32_t flags,
                         const uint32_t *pc)
{
    struct vm *vm = st->vm;
    bc_proto *p = fn->proto;
    if (vm->n_frames >= vm->max_depth)
        return too_deep(st, p);
    PPS_TRY(vm_reserve_regs(st, base + p->n_regs + 1));
    RESERVE(st, vm->frames, vm->cap_frames, vm->n_frames + 1);
    vm->frames[vm->n_frames++] =
        (frame){.pc = pc, .fn = fn, .proto = p, .base = base, .flags = flags};
    return PPS_OK;
}

uint32_t vm_top(pps_state *st)
{
    const frame *f = vm_top_frame(st);
    return f ? f->base + f->proto->n_regs : 0;
}

/* ---- Limits ---------------------------------------------------------------------------------- */

static pps_status too_many_steps(pps_state *st)
{
    pps_diag *d = vm_error_at(st, vm_current_span(st), 802, "stopped after %llu steps",
                              (unsigned long long)st->config.max_steps);
    pps_diag_help(d, "a larger limit is the host's to set: `--max-steps` of the pps program");
    pps_diag_done(d);
    return PPS_ERR_LIMIT;
}

static pps_status interrupted(pps_state *st)
{
    atomic_store(&st->interrupted, false);
    pps_diag_done(vm_error_at(st, vm_current_span(st), 805, "interrupted"));
    return PPS_ERR_INTERRUPT;
}

static pps_status look_around(pps_state *st)
{
    struct vm *vm = st->vm;
    if (st->config.max_steps && vm->steps > st->config.max_steps)
        return too_many_steps(st);
    if (atomic_load_explicit(&st->interrupted, memory_order_relaxed))
        return interrupted(st);
    return PPS_OK;
}

/* The slice ends where the limit is, so that the same program stops at the same place everywhere.
 */
pps_status vm_new_slice(pps_state *st)
{
    struct vm *vm = st->vm;
    uint64_t limit = st->config.max_steps;
    vm->steps -= (uint64_t)vm->slice; /* it is negative: what was used beyond the slice */
    vm->slice = 0;
    PPS_TRY(look_around(st));
    uint64_t left = limit ? limit - vm->steps : VM_SLICE;
    vm->slice = left < VM_SLICE ? (int64_t)left : VM_SLICE;
    vm->steps += (uint64_t)vm->slice;
    if (heap_wants_collection(st) && !vm->no_collect)
        heap_collect(st);
    return PPS_OK;
}

pps_status vm_charge(pps_state *st, uint64_t steps)
{
    struct vm *vm = st->vm;
    if (steps < VM_SLICE && vm->slice >= (int64_t)steps) {
        vm->slice -= (int64_t)steps;
        return PPS_OK;
    }
    vm->steps = steps > UINT64_MAX / 2 - vm->steps ? UINT64_MAX / 2 : vm->steps + steps;
    return look_around(st);
}

/* ---- Leaving frames -------------------------------------------------------------------------- */

pps_status vm_attempt_result(pps_state *st, bool ok, value v, const char *title, value *ret)
{
    static const char *const keys[] = {"ok", "value", "error"};
    value result, key, vals[] = {pps_bool(ok), v, pps_nil()};
    PPS_TRY(map_new(st, &result));
    if (title)
        PPS_TRY(string_new(st, title, strlen(title), &vals[2]));
    for (int i = 0; i < 3; i++) {
        PPS_TRY(string_new(st, keys[i], strlen(keys[i]), &key));
        PPS_TRY(map_set(st, result.as.ptr, key, vals[i]));
    }
    *ret = result;
    return PPS_OK;
}

/* The call that made frame `i`, as its caller's current span. */
static pps_span call_span(pps_state *st, uint32_t i)
{
    return i > 0 ? vm_frame_span(&st->vm->frames[i - 1]) : (pps_span){0};
}

pps_status vm_leave(pps_state *st, value *v)
{
    struct vm *vm = st->vm;
    uint32_t i = vm->n_frames - 1;
    frame f = vm->frames[i];
    if (f.flags & FRAME_MODEL) {
        vm->frames[i].flags &= ~(uint32_t)FRAME_MODEL; /* left, also when the hook fails */
        PPS_TRY(model_leave(st, f.proto, call_span(st, i)));
    }
    if (f.flags & FRAME_MODULE) {
        module_finish(st, f.proto->mod);
        *v = value_object(PPS_MODULE, f.proto->mod);
    }
    if (f.flags & FRAME_ATTEMPT) {
        value result;
        PPS_TRY(vm_attempt_result(st, true, *v, NULL, &result));
        diag_release(st);
        vm->frames[i].flags &= ~(uint32_t)FRAME_ATTEMPT; /* its hold is gone */
        vm->regs[f.base - 2] = result;
    }
    return PPS_OK;
}

static void release_iterators(pps_state *st, const frame *f)
{
    uint32_t pc = (uint32_t)(f->pc - f->proto->code);
    for (uint32_t i = 0; i < f->proto->n_iters; i++) {
        const bc_iter *it = &f->proto->iters[i];
        value v = st->vm->regs[f->base + it->reg];
        if (pc - 1 < it->begin || pc - 1 >= it->end)
            continue;
        if ((pps_typeof(v) == PPS_LIST || pps_typeof(v) == PPS_MAP))
            ((object *)v.as.ptr)->iterating--;
    }
}

pps_status vm_unwind(pps_state *st, uint32_t stop, pps_status status)
{
    struct vm *vm = st->vm;
    while (vm->n_frames > stop) {
        uint32_t i = vm->n_frames - 1;
        frame f = vm->frames[i];
        release_iterators(st, &f);
        vm_close_cells(st, vm->regs + f.base);
        annotate_unwind(st, i);
        vm->n_frames = i;
        if (f.flags & FRAME_MODEL) {
            pps_status left = model_leave(st, f.proto, call_span(st, i));
            (void)left; /* the first failure is the one that counts */
        }
        if (f.flags & FRAME_MODULE)
            f.proto->mod->state = MODULE_FAILED;
        if (f.flags & FRAME_ATTEMPT) {
            if (status != PPS_ERR_SCRIPT) {
                diag_release_reported(st);
                continue;
            }
            value result;
            status = vm_attempt_result(st, false, pps_nil(), diag_release(st), &result);
            if (status == PPS_OK) {
                vm->regs[f.base - 2] = result;
                return PPS_OK;
            }
        }
    }
    return status;
}

/* ---- Calls from C ---------------------------------------------------------------------------- */

static pps_status run_nested(pps_state *st, uint32_t stop, uint32_t result_reg, value *ret)
{
    struct vm *vm = st->vm;
    pps_status status;
    if (vm->nested >= VM_MAX_NESTED) {
        status = pps_error(st, vm_current_span(st), 801,
                           "functions called by builtins nest deeper than %d", VM_MAX_NESTED);
        vm_unwind(st, stop, PPS_ERR_LIMIT);
        return status == PPS_ERR_SCRIPT ? PPS_ERR_LIMIT : status;
    }
    host_call *call = vm->call;
    pps_span *span_at = vm->span_at;
    vm->span_at = NULL;
    vm->nested++;
    status = vm_run(st, stop);
    vm->nested--;
    vm->call = call;
    vm->span_at = span_at;
    if (status == PPS_OK)
        *ret = vm->regs[result_reg];
    return status;
}

pps_status vm_call(pps_state *st, value fn, size_t argc, const value *argv, value *ret)
{
    struct vm *vm = st->vm;
    uint32_t at = vm_top(st);
    if (argc > VM_MAX_ARGS)
        return pps_error(st, vm_current_span(st), 301, "a call with %zu arguments", argc);
    PPS_TRY(vm_reserve_regs(st, at + (uint32_t)argc + 2));
    /* The arguments lie above what frames use, where the collector does not look: no safepoint may
     * come before the callee's frame covers them. */
    vm->regs[at] = fn;
    if (argc)
        memcpy(vm->regs + at + 1, argv, argc * sizeof(value));
    vm_args args = {.first = at + 1, .n_pos = (uint32_t)argc};
    const fn_object *f = pps_typeof(fn) == PPS_FN ? fn.as.ptr : NULL;
    if (!f || f->kind != FN_SCRIPT) {
        vm->no_collect++;
        pps_status called = vm_call_other(st, fn, &args, ret);
        vm->no_collect--;
        return called;
    }
    uint32_t stop = vm->n_frames;
    const uint32_t *entry;
    PPS_TRY(vm_bind(st, f->proto, &args, &entry));
    uint32_t flags = 0;
    if (f->proto->is_model) {
        PPS_TRY(model_enter(st, f->proto, vm_current_span(st)));
        flags = FRAME_MODEL;
    }
    pps_status status = vm_push_frame(st, fn.as.ptr, at + 1, flags, entry);
    if (status != PPS_OK) {
        if (flags)
            (void)(model_leave(st, f->proto, vm_current_span(st)) == PPS_OK);
        return status;
    }
    return run_nested(st, stop, at, ret);
}

pps_status vm_run_main(pps_state *st, bc_proto *p, uint32_t flags, value *ret)
{
    uint32_t at = vm_top(st), stop = st->vm->n_frames;
    value fn;
    PPS_TRY(vm_closure(st, p, NULL, NULL, &fn));
    PPS_TRY(vm_reserve_regs(st, at + 2));
    st->vm->regs[at] = fn;
    PPS_TRY(vm_push_frame(st, fn.as.ptr, at + 1, flags, p->code));
    return run_nested(st, stop, at, ret);
}

/* ---- Collecting ------------------------------------------------------------------------------ */

static void mark_globals(pps_state *st)
{
    struct vm *vm = st->vm;
    for (uint32_t i = 0; i < vm->n_modules; i++)
        heap_mark_object(st, &vm->modules[i]->o);
    if (vm->main)
        heap_mark_object(st, &vm->main->o);
    for (uint32_t i = 0; i < vm->n_builtins; i++)
        heap_mark(st, vm->builtins[i].v);
    for (const host_fn *h = vm->hosts; h; h = h->next)
        for (uint32_t i = 0; i < h->n_params; i++)
            heap_mark(st, h->params[i].fallback);
    for (const bc_proto *p = vm->protos; p; p = p->next_all)
        for (uint32_t i = 0; i < p->n_consts; i++)
            heap_mark(st, p->consts[i]);
}

void vm_mark_roots(pps_state *st)
{
    struct vm *vm = st->vm;
    uint32_t top = vm_top(st);
    for (uint32_t i = 0; i < top; i++)
        heap_mark(st, vm->regs[i]);
    /* What lies above is dead, but a later frame covers it: it must not point to freed objects. */
    if (vm->cap_regs > top)
        memset(vm->regs + top, 0, (vm->cap_regs - top) * sizeof(value));
    for (uint32_t i = 0; i < vm->n_frames; i++)
        heap_mark_object(st, &vm->frames[i].fn->o);
    for (cell *c = vm->open; c; c = c->next_open)
        heap_mark_object(st, &c->o);
    mark_globals(st);
    for (uint32_t i = 0; i < vm->n_refs; i++)
        heap_mark(st, vm->refs[i]);
    for (uint32_t i = 0; i < vm->n_directives; i++) {
        const pps_directive *d = vm->directives[i];
        heap_mark(st, d->subject);
        for (uint32_t k = 0; k < d->n_clauses; k++)
            heap_mark(st, d->clauses[k].value);
    }
}

void vm_object_mark(pps_state *st, object *o)
{
    if (o->type == PPS_MODULE) {
        const module *m = (module *)o;
        for (uint32_t i = 0; i < m->n; i++)
            heap_mark(st, m->globals[i]);
        return;
    }
    const fn_object *f = (fn_object *)o;
    if (f->kind == FN_CELL) {
        heap_mark(st, *((cell *)o)->at);
        return;
    }
    for (uint32_t i = 0; i < f->n_cells; i++)
        heap_mark_object(st, (object *)f->cells[i]);
    if (f->kind == FN_SCRIPT)
        heap_mark_object(st, &f->proto->mod->o);
}

void vm_object_free(pps_state *st, object *o)
{
    if (o->type == PPS_MODULE) {
        module *m = (module *)o;
        name_map_done(st, &m->names);
        heap_free(st, m->globals, m->cap * sizeof(value));
        heap_free(st, m->global_names, m->cap * sizeof(char *));
        heap_free(st, m->spans, m->cap * sizeof(pps_span));
        heap_free(st, m, sizeof(*m));
        return;
    }
    fn_object *f = (fn_object *)o;
    if (f->kind == FN_CELL)
        heap_free(st, o, sizeof(cell));
    else
        heap_free(st, o, sizeof(fn_object) + f->n_cells * sizeof(cell *));
}

const char *vm_object_name(object *o)
{
    if (o->type == PPS_MODULE)
        return ((module *)o)->name;
    const fn_object *f = (fn_object *)o;
    if (f->kind == FN_SCRIPT)
        return f->proto->name;
    return f->kind == FN_HOST ? f->host->name : "attempt";
}

/* ---- Life ------------------------------------------------------------------------------------ */

pps_status vm_def_value(pps_state *st, const char *name, value v, const char *doc)
{
    struct vm *vm = st->vm;
    uint32_t i;
    const char *key = pps_intern(st, name);
    if (!key)
        return PPS_ERR_NOMEM;
    if (!name_map_get(&vm->builtin_names, key, &i)) {
        RESERVE(st, vm->builtins, vm->cap_builtins, vm->n_builtins + 1);
        PPS_TRY(name_map_set(st, &vm->builtin_names, key, vm->n_builtins));
        i = vm->n_builtins++;
    }
    vm->builtins[i] = (builtin){v, doc};
    return PPS_OK;
}

bool vm_builtin(pps_state *st, const char *name, value *ret)
{
    uint32_t i;
    if (!name_map_get(&st->vm->builtin_names, name, &i))
        return false;
    *ret = st->vm->builtins[i].v;
    return true;
}

static pps_status define_attempt(pps_state *st)
{
    void *p;
    PPS_TRY(heap_object(st, PPS_FN, sizeof(fn_object), &p));
    ((fn_object *)p)->kind = FN_ATTEMPT;
    return vm_def_value(st, "attempt", value_object(PPS_FN, p),
                        "attempt(f): call f; a map with \"ok\", \"value\" and \"error\".");
}

pps_status vm_open(pps_state *st)
{
    void *p;
    PPS_TRY(heap_alloc(st, sizeof(struct vm), &p));
    struct vm *vm = p;
    memset(vm, 0, sizeof(*vm));
    st->vm = vm;
    arena_init(&vm->code, heap_arena_alloc, st);
    vm->max_depth = st->config.max_depth ? st->config.max_depth : 1000;
    vm->next_origin = 1;
    vm->free_ref = UINT32_MAX;
    vm->name_append = pps_intern(st, "append");
    if (!vm->name_append)
        return PPS_ERR_NOMEM;
    PPS_TRY(vm_reserve_regs(st, 256));
    PPS_TRY(define_attempt(st));
    diag_on_error(st, vm_attach_frames);
    vm->registering_builtins = true;
    PPS_TRY(builtins_register(st));
    vm->registering_builtins = false;
    return PPS_OK;
}

void vm_close(pps_state *st)
{
    struct vm *vm = st->vm;
    if (!vm)
        return;
    for (host_fn *h = vm->hosts; h; h = h->next)
        if (h->free_ud)
            h->free_ud(h->ud);
    heap_free(st, vm->regs, vm->cap_regs * sizeof(*vm->regs));
    heap_free(st, vm->frames, vm->cap_frames * sizeof(*vm->frames));
    heap_free(st, vm->by_origin, vm->cap_by_origin * sizeof(*vm->by_origin));
    name_map_done(st, &vm->builtin_names);
    heap_free(st, vm->builtins, vm->cap_builtins * sizeof(*vm->builtins));
    heap_free(st, vm->handles, vm->cap_handles * sizeof(*vm->handles));
    heap_free(st, vm->modules, vm->cap_modules * sizeof(*vm->modules));
    heap_free(st, vm->params, vm->cap_params * sizeof(*vm->params));
    heap_free(st, vm->directives, vm->cap_directives * sizeof(*vm->directives));
    heap_free(st, vm->annotations, vm->cap_annotations * sizeof(*vm->annotations));
    name_map_done(st, &vm->tag_slots);
    heap_free(st, vm->tag_counts, vm->cap_tags * sizeof(*vm->tag_counts));
    heap_free(st, vm->refs, vm->cap_refs * sizeof(*vm->refs));
    arena_done(&vm->code);
    heap_free(st, vm, sizeof(*vm));
    st->vm = NULL;
}
