/* SPDX-License-Identifier: Apache-2.0
 *
 * The embedding API: a state's life, running scripts and expressions, calls, references held by the
 * host, and access to values. Host functions and types are in host.c, directives in directive.c,
 * parameters in param.c.
 */
#include "lang/compile.h"

#include <stdlib.h>
#include <string.h>

#include "lang/diag.h"
#include "lang/parse.h"

/* ---- Life ------------------------------------------------------------------------------------ */

static pps_status open_parts(pps_state *st)
{
    arena_init(&st->names, heap_arena_alloc, st);
    PPS_TRY(diag_open(st));
    intern_init(&st->intern, &st->names);
    st->tags.pp = pps_intern(st, "PP");
    st->tags.mb = pps_intern(st, "MB");
    st->tags.pass = pps_intern(st, "PASS");
    st->tags.comm = pps_intern(st, "COMM");
    if (!st->tags.pp || !st->tags.mb || !st->tags.pass || !st->tags.comm)
        return PPS_ERR_NOMEM;
    return vm_open(st);
}

static pps_state *allocate(const pps_config *config)
{
    if (config->alloc)
        return config->alloc(config->alloc_ud, NULL, 0, sizeof(pps_state));
    return malloc(sizeof(pps_state));
}

pps_status pps_open(uint32_t abi, const pps_config *config, pps_state **ret)
{
    if (abi != PPS_ABI || !config || !ret || config->size < sizeof(*config))
        return PPS_ERR_ARG;
    pps_state *st = allocate(config);
    if (!st)
        return PPS_ERR_NOMEM;
    memset(st, 0, sizeof(*st));
    st->config = *config;
    heap_init(st);
    pps_status status = open_parts(st);
    if (status != PPS_OK) {
        pps_close(st);
        return status;
    }
    *ret = st;
    return PPS_OK;
}

void pps_close(pps_state *st)
{
    if (!st)
        return;
    builtins_done(st);
    heap_done(st);
    vm_close(st);
    if (st->diag)
        diag_close(st);
    source_done(st);
    intern_done(&st->intern);
    arena_done(&st->names);
    if (st->config.alloc)
        st->config.alloc(st->config.alloc_ud, st, sizeof(*st), 0);
    else
        free(st);
}

void pps_set_hooks(pps_state *st, const pps_hooks *hooks)
{
    st->hooks = hooks ? *hooks : (pps_hooks){0};
}

void pps_interrupt(pps_state *st)
{
    atomic_store_explicit(&st->interrupted, true, memory_order_relaxed);
}

/* ---- Running --------------------------------------------------------------------------------- */

/* Steps are counted per evaluation; what a host function evaluates belongs to the one around it. */
static bool begin(pps_state *st)
{
    struct vm *vm = st->vm;
    bool outermost = !vm->evaluating;
    if (outermost) {
        vm->steps = 0;
        vm->slice = 0;
        vm->evaluating = true;
    }
    diag_batch(st);
    return outermost;
}

static pps_status end(pps_state *st, bool outermost, pps_status status)
{
    if (outermost)
        st->vm->evaluating = false;
    diag_flush(st);
    return status;
}

static pps_status check_params(pps_state *st, const ast_file *file)
{
    uint32_t n = 0, cap = 0;
    const char **names = NULL;
    pps_status status = PPS_OK;
    for (const ast_node *s = file->root ? file->root->a : NULL; s && status == PPS_OK;
         s = s->next) {
        if (s->kind != AST_PARAM)
            continue;
        void *array = (void *)names;
        status = vm_reserve(st, &array, &cap, n + 1, sizeof(*names));
        names = array;
        if (status == PPS_OK)
            names[n++] = s->name;
    }
    if (status == PPS_OK)
        status = param_check_names(st, names, n);
    heap_free(st, (void *)names, cap * sizeof(*names));
    return status;
}

static pps_status compile_main(pps_state *st, module *m, const char *bytes, size_t n,
                               bc_proto **ret)
{
    arena trees;
    ast_file file = {0};
    PPS_TRY(source_add(st, m->name, bytes, n, &m->file));
    arena_init(&trees, heap_arena_alloc, st);
    pps_status status = parse_file(st, m->file, &trees, &file);
    if (status == PPS_OK) {
        pps_status params = check_params(st, &file);
        status = compile_module(st, m, &file, ret);
        if (status == PPS_OK)
            status = params;
    }
    arena_done(&trees);
    return status;
}

static pps_status run_script(pps_state *st, const char *name, const char *resolved,
                             const char *bytes, size_t n)
{
    module *m;
    bc_proto *p;
    value unused;
    PPS_TRY(module_new(st, name, resolved ? resolved : name, &m));
    m->is_main = true;
    m->state = MODULE_RUNNING;
    st->vm->main = m;
    pps_status status = compile_main(st, m, bytes, n, &p);
    if (status == PPS_OK)
        status = vm_run_main(st, p, 0, &unused);
    m->state = status == PPS_OK ? MODULE_READY : MODULE_FAILED;
    return status;
}

pps_status pps_eval(pps_state *st, const char *name, const char *resolved, const char *bytes,
                    size_t n)
{
    bool outermost = begin(st);
    return end(st, outermost, run_script(st, name, resolved, bytes, n));
}

static pps_status use_module(pps_state *st, module *from, const char *use, module **ret)
{
    bc_proto *p;
    value unused;
    PPS_TRY(module_import(st, from, use, (pps_span){0}, ret, &p));
    if (!p)
        return PPS_OK;
    pps_status status = vm_run_main(st, p, FRAME_MODULE, &unused);
    if (status != PPS_OK)
        (*ret)->state = MODULE_FAILED;
    return status;
}

static pps_status run_expr(pps_state *st, const char *name, const char *bytes, size_t n,
                           const char *use, value *ret)
{
    uint32_t file;
    arena trees;
    ast_node *tree = NULL;
    module *used = NULL;
    bc_proto *p = NULL;
    if (!st->vm->main) {
        PPS_TRY(module_new(st, name, "", &st->vm->main));
        st->vm->main->is_main = true;
        st->vm->main->state = MODULE_READY;
    }
    if (use)
        PPS_TRY(use_module(st, st->vm->main, use, &used));
    PPS_TRY(source_add(st, name, bytes, n, &file));
    arena_init(&trees, heap_arena_alloc, st);
    pps_status status = parse_expr(st, file, &trees, &tree);
    if (status == PPS_OK)
        status = compile_expr(st, st->vm->main, used, tree, &p);
    arena_done(&trees);
    return status == PPS_OK ? vm_run_main(st, p, 0, ret) : status;
}

pps_status pps_eval_expr(pps_state *st, const char *name, const char *bytes, size_t n,
                         const char *use, pps_value *ret)
{
    bool outermost = begin(st);
    return end(st, outermost, run_expr(st, name, bytes, n, use, ret));
}

pps_status pps_call(pps_state *st, pps_value fn, size_t argc, const pps_value *argv, pps_value *ret)
{
    bool outermost = begin(st);
    return end(st, outermost, vm_call(st, fn, argc, argv, ret));
}

pps_status pps_global(pps_state *st, const char *name, pps_value *ret)
{
    uint32_t slot;
    const module *m = st->vm->main;
    const char *key = pps_intern(st, name);
    if (!key)
        return PPS_ERR_NOMEM;
    if (!m || !name_map_get(&m->names, key, &slot) || m->globals[slot].tag == VM_TAG_UNBOUND)
        return PPS_ERR_ARG;
    *ret = m->globals[slot];
    return PPS_OK;
}

/* ---- References ------------------------------------------------------------------------------ */

pps_status pps_ref(pps_state *st, pps_value v, pps_ref_id *ret)
{
    struct vm *vm = st->vm;
    uint32_t i = vm->free_ref;
    if (i != UINT32_MAX) {
        vm->free_ref = (uint32_t)vm->refs[i].as.bits;
    } else {
        void *array = vm->refs;
        PPS_TRY(vm_reserve(st, &array, &vm->cap_refs, vm->n_refs + 1, sizeof(value)));
        vm->refs = array;
        i = vm->n_refs++;
    }
    vm->refs[i] = v;
    *ret = i;
    return PPS_OK;
}

pps_value pps_deref(pps_state *st, pps_ref_id ref)
{
    const struct vm *vm = st->vm;
    return ref < vm->n_refs && vm->refs[ref].tag != VM_TAG_UNSET ? vm->refs[ref] : pps_nil();
}

void pps_unref(pps_state *st, pps_ref_id ref)
{
    struct vm *vm = st->vm;
    if (ref >= vm->n_refs || vm->refs[ref].tag == VM_TAG_UNSET)
        return;
    vm->refs[ref] = (value){.tag = VM_TAG_UNSET, .as.bits = vm->free_ref};
    vm->free_ref = ref;
}

/* ---- Values ---------------------------------------------------------------------------------- */

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
    value v = {.tag = PPS_FLOAT};
    v.as.f = f;
    return v;
}

pps_value pps_op(uint32_t stage, uint32_t mb, pps_pass pass, pps_comm comm)
{
    return value_make(PPS_OP, value_op_bits(stage, mb, pass, comm));
}

pps_status pps_string(pps_state *st, const char *bytes, size_t n, pps_value *ret)
{
    *ret = pps_nil();
    if (!string_is_utf8(bytes, n))
        return PPS_ERR_ARG;
    return string_new(st, bytes, n, ret);
}

pps_status pps_list(pps_state *st, pps_value *ret)
{
    *ret = pps_nil();
    return list_new(st, 0, ret);
}

pps_status pps_list_push(pps_state *st, pps_value l, pps_value item)
{
    return pps_typeof(l) == PPS_LIST ? list_push(st, l.as.ptr, item) : PPS_ERR_ARG;
}

pps_value pps_handle(uint32_t type, uint64_t payload)
{
    return value_with_origin(value_make(PPS_HANDLE, payload), type);
}

bool pps_as_bool(pps_value v)
{
    return v.as.bits != 0;
}

int64_t pps_as_int(pps_value v)
{
    return v.as.i;
}

double pps_as_number(pps_value v)
{
    return pps_typeof(v) == PPS_INT ? (double)v.as.i : v.as.f;
}

const char *pps_as_string(pps_value v, size_t *ret_n)
{
    const string *s = v.as.ptr;
    if (ret_n)
        *ret_n = s->n_bytes;
    return s->bytes;
}

uint32_t pps_handle_type_of(pps_value v)
{
    return (uint32_t)(v.tag >> TAG_ORIGIN_SHIFT);
}

uint64_t pps_handle_payload(pps_value v)
{
    return v.as.bits;
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

uint32_t pps_op_origin(pps_value v)
{
    return pps_typeof(v) == PPS_HANDLE ? 0 : (uint32_t)(v.tag >> TAG_ORIGIN_SHIFT);
}

pps_span pps_origin_span(pps_state *st, uint32_t origin)
{
    const struct vm *vm = st->vm;
    uint32_t low = 0, high = vm->n_by_origin; /* the last function that begins at or before it */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (vm->by_origin[middle]->origin_base <= origin)
            low = middle + 1;
        else
            high = middle;
    }
    if (origin == 0 || low == 0)
        return (pps_span){0};
    const bc_proto *p = vm->by_origin[low - 1];
    uint32_t at = origin - p->origin_base;
    return at < p->n_code ? p->spans[at] : (pps_span){0};
}

size_t pps_len(pps_value v)
{
    switch (pps_typeof(v)) {
    case PPS_STRING:
        return ((string *)v.as.ptr)->n_chars;
    case PPS_LIST:
        return ((list *)v.as.ptr)->n;
    case PPS_MAP:
        return ((map *)v.as.ptr)->n_live;
    case PPS_GROUP:
        return ((group *)v.as.ptr)->n;
    case PPS_RANGE:
        return range_count(v.as.ptr);
    default:
        return 0;
    }
}

pps_value pps_list_at(pps_value l, size_t i)
{
    const list *items = l.as.ptr;
    return i < items->n ? items->items[i] : pps_nil();
}

pps_value pps_group_at(pps_value g, size_t i)
{
    const group *items = g.as.ptr;
    return i < items->n ? items->items[i] : pps_nil();
}

uint32_t pps_stream_index(pps_value v)
{
    return (uint32_t)v.as.bits;
}

pps_status pps_repr(pps_state *st, pps_value v, char **ret_text)
{
    text t;
    size_t n;
    text_init(&t, st);
    text_repr(&t, v);
    return text_take(&t, ret_text, &n);
}

void pps_free_text(pps_state *st, char *bytes)
{
    if (bytes)
        heap_free(st, bytes, strlen(bytes) + 1);
}
