/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls and functions.
 *
 *   R[A] callee | positional arguments ... | named arguments ...       the result replaces R[A]
 *
 * A function's code begins with one piece per parameter that has a default: it evaluates the
 * default when the argument was left out. Calls that give every argument begin behind these pieces.
 */
#include "lang/compile_state.h"

#include <string.h>

/* ---- Calls ----------------------------------------------------------------------------------- */

static uint32_t name_list(compiler *c, const ast_node *first_named, uint32_t n)
{
    fn_state *fs = c->fs;
    bc_names list_of = {n, vm_new(c->st, n * sizeof(char *)), vm_new(c->st, n * sizeof(pps_span))};
    void *array = fs->p->name_lists;
    if (!list_of.names || !list_of.spans ||
        !grow(c, &array, &fs->cap_name_lists, fs->p->n_name_lists + 1, sizeof(list_of))) {
        fail(c, PPS_ERR_NOMEM);
        return 0;
    }
    uint32_t i = 0;
    for (const ast_node *arg = first_named; arg; arg = arg->next) {
        for (uint32_t k = 0; k < i; k++)
            if (list_of.names[k] == arg->name)
                fail(c, pps_error(c->st, arg->name_span, 302, "`%s` is given twice", arg->name));
        list_of.names[i] = arg->name;
        list_of.spans[i++] = arg->name_span;
    }
    fs->p->name_lists = array;
    fs->p->name_lists[fs->p->n_name_lists] = list_of;
    return fs->p->n_name_lists++;
}

void call_to(compiler *c, const ast_node *n, uint32_t reg)
{
    fn_state *fs = c->fs;
    const ast_node *callee = n->a, *first_named = NULL;
    bool method = callee->kind == AST_FIELD;
    uint32_t base = is_temp(c, reg) && reg + 1 == fs->free ? reg : new_temp(c, n->span);
    uint32_t n_pos = 0, n_named = 0;
    expr_to(c, method ? callee->a : callee, base);
    for (const ast_node *arg = n->b; arg; arg = arg->next) {
        if (arg->name) {
            n_named++;
            if (!first_named)
                first_named = arg;
        } else {
            n_pos++;
        }
        expr_next(c, arg->a);
    }
    if (method) {
        emit(c, bc_abc(BC_METHOD, base, n_pos, n_named), n->span);
        emit_word(c, name_index(c, callee->name), n->span);
    } else {
        emit(c, bc_abc(n_named ? BC_CALLN : BC_CALL, base, n_pos, n_named), n->span);
    }
    if (n_named)
        emit_word(c, name_list(c, first_named, n_named), n->span);
    else if (method)
        emit_word(c, UINT32_MAX, n->span);
    note_arg(c, BC_ARG_CALLEE, method ? callee->name_span : callee->span);
    uint32_t i = 0;
    for (const ast_node *arg = n->b; arg; arg = arg->next)
        note_arg(c, i++, arg->a->span);
    if (base != reg)
        emit(c, bc_abc(BC_MOVE, reg, base, 0), n->span);
}

/* ---- Functions ------------------------------------------------------------------------------- */

static pps_span head_span(const ast_node *n, const ast_node *params)
{
    pps_span head = n->span;
    if (n->kind != AST_FN_EXPR && n->name_span.end)
        head.end = n->name_span.end + 2; /* `fn f()` */
    else if (!params)
        head.end = head.begin + 4; /* `fn()` */
    for (const ast_node *p = params; p; p = p->next)
        head.end = p->span.end + 1;
    return head.end > n->span.end ? n->span : head;
}

static void parameters(compiler *c, const ast_node *params)
{
    fn_state *fs = c->fs;
    bc_proto *p = fs->p;
    uint32_t n = 0;
    for (const ast_node *k = params; k; k = k->next)
        n++;
    p->params = vm_new(c->st, (n + 1) * sizeof(bc_param));
    if (!p->params) {
        fail(c, PPS_ERR_NOMEM);
        return;
    }
    uint32_t first = new_temps(c, n, p->span);
    fs->n_local_regs = fs->free;
    for (const ast_node *k = params; k; k = k->next) {
        bc_param param = {k->name, k->name_span.end ? k->name_span : k->span, k->a != NULL};
        if (k->a) {
            uint32_t given = NO_JUMP;
            emit_jump(c, bc_abc(BC_ARGDEF, first + p->n_params, 0, 0), &given, k->span);
            expr_to(c, k->a, first + p->n_params);
            patch_here(c, given);
        } else {
            p->n_required++;
        }
        declare_local(c, k->name, param.span, first + p->n_params, false);
        p->params[p->n_params++] = param;
        if (c->status == PPS_ERR_NOMEM)
            return;
    }
    p->body = label(c);
}

static const char *doc_text(compiler *c, const ast_node *n)
{
    if (n->kind == AST_FN_EXPR || !n->v.s.bytes)
        return NULL;
    char *doc = vm_new(c->st, n->v.s.n + 1);
    if (doc)
        memcpy(doc, n->v.s.bytes, n->v.s.n);
    return doc;
}

void function_to(compiler *c, const ast_node *n, uint32_t reg)
{
    const ast_node *params = n->a, *body = n->b;
    fn_state fs;
    scope s;
    fn_begin(c, &fs, n->kind == AST_FN_EXPR ? "fn" : n->name, head_span(n, params), body);
    fs.p->is_model = n->kind == AST_MODEL;
    fs.p->doc = doc_text(c, n);
    scope_begin(c, &s);
    parameters(c, params);
    if (n->flags & AST_FLAG_EXPR_BODY)
        emit(c, bc_abc(BC_RETURN, expr_any(c, body), 0, 0), body->span);
    else if (body)
        statements(c, body->a);
    emit(c, bc_abc(BC_RETNIL, 0, 0, 0), n->span);
    scope_end(c);
    bc_proto *inner = fn_end(c);
    fn_state *outer = c->fs;
    void *array = outer->p->protos;
    if (!inner || !grow(c, &array, &outer->cap_protos, outer->p->n_protos + 1, sizeof(inner)))
        return;
    outer->p->protos = array;
    outer->p->protos[outer->p->n_protos] = inner;
    if (outer->p->n_protos > BC_MAX_BX)
        fail(c, pps_error(c->st, n->span, 111, "more than %d functions in one", BC_MAX_BX));
    emit(c, bc_abx(BC_CLOSURE, reg, outer->p->n_protos++), n->span);
}
