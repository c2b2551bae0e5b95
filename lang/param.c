/* SPDX-License-Identifier: Apache-2.0
 *
 * Script parameters set by the host (-D name=value). A text becomes a value of the default's type
 * when the `param` statement runs; a default of nil takes any literal. Only the main script has
 * parameters that can be set.
 */
#include "lang/vm.h"

#include <string.h>

#include "lang/builtins.h"
#include "lang/parse.h"

pps_status pps_set_param(pps_state *st, const char *name, const char *setting)
{
    struct vm *vm = st->vm;
    const char *key = pps_intern(st, name);
    size_t n = strlen(setting);
    char *copy = vm_new(st, n + 1);
    if (!key || !copy)
        return PPS_ERR_NOMEM;
    memcpy(copy, setting, n);
    for (uint32_t i = 0; i < vm->n_params; i++) {
        if (vm->params[i].name == key) {
            vm->params[i].text = copy;
            return PPS_OK;
        }
    }
    void *array = vm->params;
    PPS_TRY(vm_reserve(st, &array, &vm->cap_params, vm->n_params + 1, sizeof(script_param)));
    vm->params = array;
    vm->params[vm->n_params++] = (script_param){key, copy, false};
    return PPS_OK;
}

static bool scalar(pps_state *st, const char *setting, pps_type type, value *ret)
{
    size_t n = strlen(setting);
    int64_t i = 0;
    double f = 0;
    bool overflow = false;
    (void)st;
    switch (type) {
    case PPS_INT:
        if (!parse_int(setting, n, &i, &overflow) || overflow)
            return false;
        *ret = pps_int(i);
        return true;
    case PPS_FLOAT:
        if (!parse_float(setting, n, &f))
            return false;
        *ret = pps_float(f);
        return true;
    case PPS_BOOL:
        if (strcmp(setting, "true") != 0 && strcmp(setting, "false") != 0)
            return false;
        *ret = pps_bool(setting[0] == 't');
        return true;
    default:
        return false;
    }
}

/* The value of a literal's tree; PPS_ERR_ARG when it is none. */
static pps_status tree_value(pps_state *st, const ast_node *n, uint32_t depth, value *ret)
{
    value item;
    if (depth > 50)
        return PPS_ERR_ARG;
    switch ((ast_kind)n->kind) {
    case AST_NIL:
        *ret = pps_nil();
        return PPS_OK;
    case AST_BOOL:
        *ret = pps_bool(n->v.i != 0);
        return PPS_OK;
    case AST_INT:
        *ret = pps_int(n->v.i);
        return PPS_OK;
    case AST_FLOAT:
        *ret = pps_float(n->v.f);
        return PPS_OK;
    case AST_STRING:
        return string_new(st, n->v.s.bytes, n->v.s.n, ret);
    case AST_UNARY:
        if (n->op != AST_OP_NEG || (n->a->kind != AST_INT && n->a->kind != AST_FLOAT))
            return PPS_ERR_ARG;
        *ret = n->a->kind == AST_INT ? pps_int(-n->a->v.i) : pps_float(-n->a->v.f);
        return PPS_OK;
    case AST_LIST:
        PPS_TRY(list_new(st, 0, ret));
        for (const ast_node *k = n->a; k; k = k->next) {
            PPS_TRY(tree_value(st, k, depth + 1, &item));
            PPS_TRY(list_push(st, ret->as.ptr, item));
        }
        return PPS_OK;
    default:
        return PPS_ERR_ARG;
    }
}

/* Any literal, parsed as the language does; parse errors stay silent here. */
static pps_status parsed(pps_state *st, const char *setting, value *ret)
{
    uint32_t file;
    arena trees;
    ast_node *tree = NULL;
    PPS_TRY(source_add(st, "-D", setting, strlen(setting), &file));
    PPS_TRY(diag_hold(st));
    arena_init(&trees, heap_arena_alloc, st);
    pps_status status = parse_expr(st, file, &trees, &tree);
    if (status == PPS_OK)
        status = tree_value(st, tree, 0, ret);
    arena_done(&trees);
    diag_release(st);
    return status == PPS_ERR_SCRIPT ? PPS_ERR_ARG : status;
}

static bool same_type(value v, value like)
{
    return pps_typeof(v) == pps_typeof(like);
}

static pps_status setting_value(pps_state *st, const char *setting, value like, value *ret)
{
    pps_type type = pps_typeof(like);
    if (scalar(st, setting, type, ret))
        return PPS_OK;
    if (type == PPS_INT || type == PPS_FLOAT || type == PPS_BOOL)
        return PPS_ERR_ARG;
    bool quoted = setting[0] == '"';
    if (type != PPS_STRING || quoted) {
        pps_status status = parsed(st, setting, ret);
        if (status == PPS_OK && (type == PPS_NIL || same_type(*ret, like)))
            return PPS_OK;
        if (status != PPS_OK && status != PPS_ERR_ARG)
            return status;
    }
    if (type == PPS_STRING || type == PPS_NIL)
        return string_new(st, setting, strlen(setting), ret);
    return PPS_ERR_ARG;
}

pps_status param_apply(pps_state *st, const char *name, value v, value *ret)
{
    struct vm *vm = st->vm;
    *ret = v;
    if (!vm_top_frame(st)->proto->mod->is_main)
        return PPS_OK;
    for (uint32_t i = 0; i < vm->n_params; i++) {
        script_param *p = &vm->params[i];
        if (p->name != name)
            continue;
        if (!string_is_utf8(p->text, strlen(p->text)))
            return pps_error(st, vm_current_span(st), 105,
                             "parameter `%s` is set to text that is not UTF-8", name);
        pps_status status = setting_value(st, p->text, v, ret);
        if (status != PPS_ERR_ARG)
            return status;
        pps_diag *d = vm_error_at(st, vm_current_span(st), 105,
                                  "parameter `%s` is set to `%.60s`, which is not %s", name,
                                  p->text, value_kind(st, v));
        pps_diag_label(d, "its default is %s", value_kind(st, v));
        return pps_diag_done(d);
    }
    return PPS_OK;
}

pps_status param_check_names(pps_state *st, const char *const *names, uint32_t n)
{
    const struct vm *vm = st->vm;
    pps_status status = PPS_OK;
    for (uint32_t i = 0; i < vm->n_params; i++) {
        uint32_t k = 0;
        while (k < n && names[k] != vm->params[i].name)
            k++;
        if (k < n)
            continue;
        const char *similar = pps_did_you_mean(vm->params[i].name, names, n);
        pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 110, (pps_span){0},
                                     "the script has no parameter `%s`", vm->params[i].name);
        if (similar)
            pps_diag_help(d, "did you mean `%s`?", similar);
        else if (n == 0)
            pps_diag_note(d, "it has none: `param name = 1` makes one");
        status = pps_diag_done(d);
    }
    return status;
}
