/* SPDX-License-Identifier: Apache-2.0
 *
 * Statements, and the entry points of the compiler.
 *
 * Names bound at the top level of a file are globals of its module; they are declared before
 * anything is compiled, so that functions see those bound further down. All others are registers.
 */
#include "lang/compile_state.h"

#include <stdio.h>
#include <string.h>

static bool at_top_level(const compiler *c)
{
    return !c->fs->outer && !c->fs->scope;
}

/* Bind `name` to the value of `reg`, the first free register before it was evaluated. */
static void bind(compiler *c, const char *name, pps_span span, uint32_t reg)
{
    if (at_top_level(c)) {
        uint32_t slot;
        if (!name_map_get(&c->mod->names, name, &slot))
            return; /* declared twice, or memory ran out: reported */
        emit(c, bc_abx(BC_DEFG, reg, slot), span);
    } else {
        declare_local(c, name, span, reg, false);
    }
}

/* ---- let, param, assignment -------------------------------------------------------------------
 */

static uint32_t count(const ast_node *first)
{
    uint32_t n = 0;
    for (; first; first = first->next)
        n++;
    return n;
}

static void let(compiler *c, const ast_node *n)
{
    uint32_t n_targets = count(n->a);
    uint32_t first = new_temps(c, n_targets, n->span);
    if (n_targets == 1) {
        expr_to(c, n->b, first);
    } else if (n->b->kind == AST_LIST && count(n->b->a) == n_targets) {
        uint32_t reg = first; /* let a, b = [x, y] needs no list */
        for (const ast_node *item = n->b->a; item; item = item->next)
            expr_to(c, item, reg++);
    } else {
        uint32_t t = expr_any(c, n->b);
        emit(c, bc_abc(BC_UNPACK, first, t, n_targets), n->b->span);
    }
    c->fs->free = first + n_targets;
    for (const ast_node *t = n->a; t; t = t->next)
        bind(c, t->name, t->span, first++);
}

static void param(compiler *c, const ast_node *n)
{
    if (!at_top_level(c)) {
        fail(c, pps_error(c->st, n->span, 115, "`param` belongs to the top level of a file"));
        return;
    }
    uint32_t reg = expr_next(c, n->a);
    emit(c, bc_abc(BC_PARAM, reg, 0, 0), n->span);
    emit_word(c, name_index(c, n->name), n->span);
    bind(c, n->name, n->name_span, reg);
    if (n->b) {
        uint32_t holds = NO_JUMP;
        condition(c, n->b, true, &holds);
        emit(c, bc_abc(BC_PARAM_FAIL, reg, 0, 0), n->b->span);
        emit_word(c, name_index(c, n->name), n->b->span);
        patch_here(c, holds);
    }
}

/* Where an assignment to a name goes: a register to write, then `store` when it is no local. */
static name_ref target_of(compiler *c, const ast_node *target)
{
    name_ref ref = resolve(c, target->name);
    if (ref.kind == NAME_NONE || ref.kind == NAME_VALUE) {
        no_such_name(c, target->name, target->span, true);
        ref.kind = NAME_NONE;
    }
    return ref;
}

static void store(compiler *c, name_ref ref, uint32_t reg, pps_span span)
{
    if (ref.kind == NAME_UPVALUE)
        emit(c, bc_abc(BC_SETUP, reg, ref.index, 0), span);
    else if (ref.kind == NAME_GLOBAL)
        emit(c, bc_abx(BC_SETG, reg, ref.index), span);
}

static void assign(compiler *c, const ast_node *n)
{
    const ast_node *target = n->a;
    if (target->kind == AST_NAME) {
        name_ref ref = target_of(c, target);
        if (ref.kind == NAME_LOCAL)
            expr_to(c, n->b, ref.index);
        else
            store(c, ref, expr_any(c, n->b), n->span);
    } else if (target->kind == AST_INDEX) {
        uint32_t reg = operand(c, n->b, target);
        uint32_t object_reg = operand(c, target->a, target->b);
        uint32_t key = expr_any(c, target->b);
        emit(c, bc_abc(BC_SETINDEX, object_reg, key, reg), target->span);
        note_arg(c, 0, target->a->span);
        note_arg(c, 1, target->b->span);
    } else {
        pps_diag *d =
            pps_diag_start(c->st, PPS_SEV_ERROR, 104, target->span, "this cannot be assigned to");
        pps_diag_help(d, "a variable or an element stands on the left: `x = 1`, `xs[0] = 1`");
        fail(c, pps_diag_done(d));
    }
}

/* reg op= right */
static void change(compiler *c, ast_op op, uint32_t reg, const ast_node *left,
                   const ast_node *right, pps_span span)
{
    value v;
    if (op == AST_OP_ADD && right->kind == AST_BINARY && right->op == AST_OP_ARROW) {
        row_add_to(c, right, reg);
    } else if (op == AST_OP_ADD && is_short_list(right)) {
        list_add_to(c, right, reg);
    } else if (op == AST_OP_ADD && !(literal(c, right, &v) && is_number(v))) {
        emit(c, bc_abc(BC_IADD, reg, expr_any(c, right), 0), span);
        note_arg(c, 0, left->span);
        note_arg(c, 1, right->span);
    } else {
        arithmetic(c, op, reg, reg, right, left, span);
    }
}

static void change_element(compiler *c, const ast_node *n)
{
    const ast_node *target = n->a;
    uint32_t object_reg = expr_next(c, target->a), key = expr_next(c, target->b);
    uint32_t t = new_temp(c, n->span);
    emit(c, bc_abc(BC_INDEX, t, object_reg, key), target->span);
    note_arg(c, 0, target->a->span);
    note_arg(c, 1, target->b->span);
    change(c, (ast_op)n->op, t, target, n->b, n->span);
    emit(c, bc_abc(BC_SETINDEX, object_reg, key, t), target->span);
    note_arg(c, 0, target->a->span);
    note_arg(c, 1, target->b->span);
}

static void change_name(compiler *c, const ast_node *n)
{
    const ast_node *target = n->a;
    name_ref ref = target_of(c, target);
    if (ref.kind == NAME_NONE)
        return;
    if (ref.kind == NAME_LOCAL && !may_change_during(c, target->name, n->b)) {
        change(c, (ast_op)n->op, ref.index, target, n->b, n->span);
        return;
    }
    uint32_t t = new_temp(c, n->span);
    load_name(c, target, t);
    change(c, (ast_op)n->op, t, target, n->b, n->span);
    if (ref.kind == NAME_LOCAL)
        emit(c, bc_abc(BC_MOVE, ref.index, t, 0), n->span);
    else
        store(c, ref, t, n->span);
}

/* ---- Expression statements --------------------------------------------------------------------
 */

/* Is this an op, whatever the values are: F(..), SEND(F(..)), a | b, a -> b of such? */
static bool is_op(compiler *c, const ast_node *n)
{
    while (n->kind == AST_BINARY && (n->op == AST_OP_BAR || n->op == AST_OP_ARROW))
        n = n->a;
    if (n->kind != AST_CALL || n->a->kind != AST_NAME)
        return false;
    name_ref ref = resolve(c, n->a->name);
    if (ref.kind != NAME_VALUE)
        return false;
    if (pps_typeof(ref.v) == PPS_PASS)
        return true;
    const fn_object *f = pps_typeof(ref.v) == PPS_FN ? ref.v.as.ptr : NULL;
    return f && f->kind == FN_HOST && f->host->makes_op;
}

static void expr_stmt(compiler *c, const ast_node *n)
{
    if (is_op(c, n->a)) {
        pps_diag *d =
            pps_diag_start(c->st, PPS_SEV_ERROR, 107, n->a->span, "this op does nothing here");
        pps_diag_help(d, "write `->` between the steps of a row, as in "
                         "`order F(0, 0) -> F(0, 1)`");
        fail(c, pps_diag_done(d));
        return;
    }
    expr_any(c, n->a);
}

/* ---- Control --------------------------------------------------------------------------------- */

void block(compiler *c, const ast_node *n)
{
    scope s;
    scope_begin(c, &s);
    if (n && enter(c, n->span))
        statements(c, n->a);
    if (n) {
        leave(c);
        close_scope(c, &s, n->span);
    }
    scope_end(c);
}

static void if_stmt(compiler *c, const ast_node *n)
{
    uint32_t ends = NO_JUMP;
    while (n) {
        if (n->kind != AST_IF) {
            block(c, n);
            break;
        }
        uint32_t otherwise = NO_JUMP;
        condition(c, n->a, false, &otherwise);
        block(c, n->b);
        if (n->c)
            emit_jump(c, bc_abc(BC_JMP, 0, 0, 0), &ends, n->span);
        patch_here(c, otherwise);
        n = n->c;
    }
    patch_here(c, ends);
}

static void for_stmt(compiler *c, const ast_node *n)
{
    walk w;
    pps_span head = {n->span.file, n->span.begin, n->b->span.end};
    walk_begin(c, &w, n->a, n->b, head);
    block(c, n->c);
    walk_end(c, &w, head);
}

static void leave_annotations(compiler *c, uint32_t down_to, pps_span span)
{
    for (uint32_t i = c->fs->n_annotations; i > down_to; i--)
        emit(c, bc_abc(BC_ANNOTATE_END, 0, 0, 0), span);
}

static void jump_out(compiler *c, const ast_node *n)
{
    loop *l = c->fs->loop;
    const char *word = n->kind == AST_BREAK ? "break" : "continue";
    if (!l) {
        fail(c, pps_error(c->st, n->span, 113, "`%s` is not inside a loop", word));
        return;
    }
    leave_annotations(c, l->n_annotations, n->span);
    emit_jump(c, bc_abc(BC_JMP, 0, 0, 0), n->kind == AST_BREAK ? &l->breaks : &l->continues,
              n->span);
}

static void return_stmt(compiler *c, const ast_node *n)
{
    if (!c->fs->outer) {
        fail(c, pps_error(c->st, n->span, 112, "`return` is not inside a function"));
        return;
    }
    uint32_t reg = 0;
    if (n->a)
        reg = expr_any(c, n->a);
    for (loop *l = c->fs->loop; l; l = l->outer)
        if (l->iter_reg >= 0)
            emit(c, bc_abc(BC_ITEREND, (uint32_t)l->iter_reg, 0, 0), n->span);
    leave_annotations(c, 0, n->span);
    emit(c, bc_abc(n->a ? BC_RETURN : BC_RETNIL, reg, 0, 0), n->span);
}

static void annotate_stmt(compiler *c, const ast_node *n)
{
    fn_state *fs = c->fs;
    scope s;
    scope_begin(c, &s);
    bc_annotate a = {n->name, {n->span.file, n->span.begin, n->name_span.end}};
    uint32_t reg = new_temp(c, n->span);
    void *array = fs->p->annotates;
    if (grow(c, &array, &fs->cap_annotates, fs->p->n_annotates + 1, sizeof(a))) {
        fs->p->annotates = array;
        fs->p->annotates[fs->p->n_annotates] = a;
        emit(c, bc_abc(BC_ANNOTATE, reg, 0, 0), a.span);
        emit_word(c, fs->p->n_annotates++, a.span);
    }
    if (n->a)
        declare_local(c, n->a->name, n->a->span, reg, true);
    else
        c->fs->free = reg;
    fs->n_annotations++;
    block(c, n->b);
    fs->n_annotations--;
    emit(c, bc_abc(BC_ANNOTATE_END, 0, 0, 0), n->span);
    close_scope(c, &s, n->span);
    scope_end(c);
}

/* ---- import ---------------------------------------------------------------------------------- */

static uint32_t import_to_temp(compiler *c, const ast_node *n)
{
    uint32_t reg = new_temp(c, n->span);
    value path;
    pps_status status = string_new(c->st, n->v.s.bytes, n->v.s.n, &path);
    if (status != PPS_OK) {
        fail(c, status);
        return reg;
    }
    uint32_t k = constant(c, path);
    if (k > BC_MAX_BX)
        fail(c, pps_error(c->st, n->span, 111, "too many constants before this import"));
    emit(c, bc_abx(BC_IMPORT, reg, k), n->span);
    return reg;
}

static void import_stmt(compiler *c, const ast_node *n)
{
    uint32_t reg = import_to_temp(c, n);
    if (n->kind == AST_IMPORT) {
        bind(c, n->name, n->name_span.end ? n->name_span : n->span, reg);
        return;
    }
    /* The module's own register is free for the first name once the last one was read. */
    uint32_t n_names = count(n->a), first = new_temps(c, n_names, n->span), i = 0;
    for (const ast_node *name = n->a; name; name = name->next, i++) {
        emit(c, bc_abc(BC_FIELD, first + i, reg, 0), name->span);
        emit_word(c, name_index(c, name->name), name->span);
        note_arg(c, 0, name->name_span.end ? name->name_span : name->span);
    }
    i = 0;
    for (const ast_node *name = n->a; name; name = name->next, i++)
        bind(c, name->a ? name->a->name : name->name, name->a ? name->a->span : name->span,
             first + i);
}

/* ---- Directives ------------------------------------------------------------------------------ */

static void bad_clause(compiler *c, const bc_directive *d, const ast_node *clause)
{
    const char *words[PPS_MAX_CLAUSES];
    uint32_t n = directive_words(d->kind, words);
    const char *directive = pps_directive_word(d->kind);
    pps_span span = clause->name_span;
    pps_diag *e = pps_diag_start(c->st, PPS_SEV_ERROR, 106, span, "`%s` has no clause `%s`",
                                 directive, clause->name);
    char list_of[256];
    size_t used = 0;
    for (uint32_t i = 0; i < n && used < sizeof(list_of); i++)
        used += (size_t)snprintf(list_of + used, sizeof(list_of) - used, "%s%s", i ? ", " : "",
                                 words[i]);
    if (n)
        pps_diag_note(e, "it has: %s", list_of);
    else
        pps_diag_note(e, "it has no clauses");
    const char *similar = pps_did_you_mean(clause->name, words, n);
    if (similar)
        pps_diag_help(e, "did you mean `%s`?", similar);
    fail(c, pps_diag_done(e));
}

static void clause_to(compiler *c, bc_directive *d, const ast_node *n)
{
    bc_clause_type type;
    uint32_t reg = new_temp(c, n->span);
    if (!directive_clause(d->kind, n->name, &type)) {
        bad_clause(c, d, n);
        return;
    }
    for (uint32_t i = 0; i < d->n_clauses; i++) {
        if (d->clauses[i].word == n->name) {
            pps_diag *e = pps_diag_start(c->st, PPS_SEV_ERROR, 114, n->name_span,
                                         "`%s` is given twice", n->name);
            pps_diag_also(e, d->clauses[i].word_span, "first given here");
            fail(c, pps_diag_done(e));
            return;
        }
    }
    if (type == BC_CLAUSE_NAME) {
        value v;
        if (n->a->kind != AST_NAME) {
            fail(c, pps_error(c->st, n->a->span, 304, "`%s` takes a bare name", n->name));
            return;
        }
        pps_status status = string_new(c->st, n->a->name, strlen(n->a->name), &v);
        if (status != PPS_OK)
            fail(c, status);
        else
            load_constant(c, reg, v, n->a->span);
    } else {
        expr_to(c, n->a, reg);
    }
    d->clauses[d->n_clauses++] =
        (struct bc_directive_clause){n->name, type, n->name_span, n->a->span};
}

static void directive_stmt(compiler *c, const ast_node *n)
{
    fn_state *fs = c->fs;
    bc_directive d = {
        .kind = (pps_directive_kind)n->v.n, .span = n->span, .subject_span = n->a->span};
    if (!fs->outer && !c->mod->is_main) {
        pps_diag *e = pps_diag_start(c->st, PPS_SEV_ERROR, 108, n->span,
                                     "a directive at the top level of an imported module");
        pps_diag_help(e, "put it into a function that the main script calls");
        fail(c, pps_diag_done(e));
        return;
    }
    uint32_t reg = expr_next(c, n->a);
    for (const ast_node *clause = n->b; clause; clause = clause->next)
        clause_to(c, &d, clause);
    void *array = fs->p->directives;
    if (!grow(c, &array, &fs->cap_directives, fs->p->n_directives + 1, sizeof(d)))
        return;
    fs->p->directives = array;
    fs->p->directives[fs->p->n_directives] = d;
    emit(c, bc_abc(BC_DIRECTIVE, reg, 0, 0), n->span);
    emit_word(c, fs->p->n_directives++, n->span);
}

/* ---- All of them ------------------------------------------------------------------------------
 */

static void function_stmt(compiler *c, const ast_node *n)
{
    uint32_t reg = new_temp(c, n->span);
    if (!at_top_level(c)) /* first, so that it can call itself */
        declare_local(c, n->name, n->name_span, reg, false);
    function_to(c, n, reg);
    if (at_top_level(c))
        bind(c, n->name, n->name_span, reg);
}

static void statement(compiler *c, const ast_node *n)
{
    switch ((ast_kind)n->kind) {
    case AST_LET:
        let(c, n);
        break;
    case AST_PARAM:
        param(c, n);
        break;
    case AST_ASSIGN:
        assign(c, n);
        break;
    case AST_AUG_ASSIGN:
        if (n->a->kind == AST_NAME)
            change_name(c, n);
        else if (n->a->kind == AST_INDEX)
            change_element(c, n);
        else
            assign(c, n); /* which refuses the target */
        break;
    case AST_EXPR_STMT:
        expr_stmt(c, n);
        break;
    case AST_IF:
        if_stmt(c, n);
        break;
    case AST_FOR:
        for_stmt(c, n);
        break;
    case AST_WHILE:
        while_loop(c, n);
        break;
    case AST_FN_STMT:
    case AST_MODEL:
        function_stmt(c, n);
        break;
    case AST_ANNOTATE:
        annotate_stmt(c, n);
        break;
    case AST_RETURN:
        return_stmt(c, n);
        break;
    case AST_BREAK:
    case AST_CONTINUE:
        jump_out(c, n);
        break;
    case AST_IMPORT:
    case AST_FROM_IMPORT:
        import_stmt(c, n);
        break;
    case AST_DIRECTIVE:
        directive_stmt(c, n);
        break;
    case AST_BLOCK:
        block(c, n);
        break;
    case AST_ERROR_STMT:
        break;
    default:
        fail(c, pps_error(c->st, n->span, 1, "a statement is expected here"));
        break;
    }
}

void statements(compiler *c, const ast_node *first)
{
    for (const ast_node *n = first; n; n = n->next) {
        if (c->status == PPS_ERR_NOMEM || c->status == PPS_ERR_LIMIT)
            return;
        statement(c, n);
        c->fs->free = c->fs->n_local_regs;
    }
}

/* ---- Entry points -----------------------------------------------------------------------------
 */

static void declare_global(compiler *c, const char *name, pps_span span)
{
    uint32_t slot;
    if (name_map_get(&c->mod->names, name, &slot) && strcmp(name, "_") != 0) {
        pps_diag *d = pps_diag_start(c->st, PPS_SEV_ERROR, 103, span,
                                     "`%s` is declared twice in one block", name);
        pps_diag_also(d, c->mod->spans[slot], "first declared here");
        pps_diag_help(d, "to change it, write `%s = ...` without `let`", name);
        fail(c, pps_diag_done(d));
        return;
    }
    pps_status status = module_declare(c->st, c->mod, name, span, &slot);
    if (status != PPS_OK)
        fail(c, status);
}

static void declare_globals(compiler *c, const ast_node *first)
{
    for (const ast_node *n = first; n; n = n->next) {
        switch ((ast_kind)n->kind) {
        case AST_LET:
            for (const ast_node *t = n->a; t; t = t->next)
                declare_global(c, t->name, t->span);
            break;
        case AST_PARAM:
        case AST_FN_STMT:
        case AST_MODEL:
        case AST_IMPORT:
            declare_global(c, n->name, n->name_span.end ? n->name_span : n->span);
            break;
        case AST_FROM_IMPORT:
            for (const ast_node *t = n->a; t; t = t->next)
                declare_global(c, t->a ? t->a->name : t->name, t->a ? t->a->span : t->span);
            break;
        default:
            break;
        }
    }
}

static pps_status finish(compiler *c, bc_proto **ret)
{
    c->fs->p->is_main = true;
    bc_proto *p = fn_end(c);
    heap_free(c->st, c->bad_names, c->cap_bad_names * sizeof(*c->bad_names));
    if (c->status != PPS_OK)
        return c->status;
    *ret = p;
    return PPS_OK;
}

pps_status compile_module(pps_state *st, module *mod, const ast_file *file, bc_proto **ret)
{
    compiler c = {.st = st, .vm = st->vm, .mod = mod};
    fn_state fs;
    pps_span none = {file->file, 0, 0};
    const ast_node *first = file->root ? file->root->a : NULL;
    declare_globals(&c, first);
    fn_begin(&c, &fs, mod->name, none, first);
    statements(&c, first);
    emit(&c, bc_abc(BC_RETNIL, 0, 0, 0), none);
    return finish(&c, ret);
}

pps_status compile_expr(pps_state *st, module *mod, module *use, const ast_node *expr,
                        bc_proto **ret)
{
    compiler c = {.st = st, .vm = st->vm, .mod = mod, .use = use};
    fn_state fs;
    fn_begin(&c, &fs, "expression", expr->span, expr);
    emit(&c, bc_abc(BC_RETURN, expr_next(&c, expr), 0, 0), expr->span);
    return finish(&c, ret);
}
