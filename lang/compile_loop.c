/* SPDX-License-Identifier: Apache-2.0
 *
 * Loops. A `for` over a range written in place counts in registers and makes no range:
 *
 *     FORPREP  A -> exit         A next value, A+1 the end, A+2 the variable
 *   body:
 *     ...
 *   continue:
 *     CLOSE    A+2               when a closure took the variable: each iteration has its own
 *     FORLOOP  A -> body
 *   exit:
 *
 * Any other `for` walks an object, which must not change until ITEREND:
 *
 *     ITER     A                 A the object, A+1 and A+2 the position
 *   head:
 *     ITERNEXT A B -> exit       B the variable, or UNPACK into several
 *     ...
 *   continue:
 *     JBACK    head
 *   exit:
 *     ITEREND  A
 */
#include "lang/compile_state.h"

#include <string.h>

static bool is_range(const ast_node *n)
{
    return n->kind == AST_BINARY && (n->op == AST_OP_RANGE || n->op == AST_OP_RANGE_CLOSED);
}

static void loop_begin(compiler *c, loop *l, int iter_reg)
{
    fn_state *fs = c->fs;
    *l = (loop){fs->loop, NO_JUMP, NO_JUMP, fs->n_annotations, iter_reg};
    fs->loop = l;
}

static void declare_targets(compiler *c, const ast_node *targets, uint32_t first)
{
    for (const ast_node *t = targets; t; t = t->next)
        declare_local(c, t->name, t->span, first++, true);
}

static void count_begin(compiler *c, walk *w, const ast_node *target, const ast_node *iterable)
{
    expr_to(c, iterable->a, w->first);
    expr_to(c, iterable->b, w->first + 1);
    scope_begin(c, &w->inside);
    uint32_t variable = new_temp(c, target->span);
    bool closed = iterable->op == AST_OP_RANGE_CLOSED;
    emit_jump(c, bc_abc(BC_FORPREP, w->first, 0, closed), &w->exits, iterable->span);
    note_arg(c, 0, iterable->a->span);
    note_arg(c, 1, iterable->b->span);
    w->head = label(c);
    declare_targets(c, target, variable);
}

static void iterate_begin(compiler *c, walk *w, const ast_node *targets, const ast_node *iterable)
{
    uint32_t n = 0;
    for (const ast_node *t = targets; t; t = t->next)
        n++;
    expr_to(c, iterable, w->first);
    emit(c, bc_abc(BC_ITER, w->first, 0, 0), iterable->span);
    w->iter_begin = w->head = label(c);
    scope_begin(c, &w->inside);
    uint32_t variable = new_temps(c, n, targets->span);
    if (n == 1) {
        emit_jump(c, bc_abc(BC_ITERNEXT, w->first, variable, 0), &w->exits, iterable->span);
    } else {
        uint32_t element = new_temp(c, targets->span);
        emit_jump(c, bc_abc(BC_ITERNEXT, w->first, element, 0), &w->exits, iterable->span);
        emit(c, bc_abc(BC_UNPACK, variable, element, n), targets->span);
        c->fs->free = element;
    }
    declare_targets(c, targets, variable);
}

void walk_begin(compiler *c, walk *w, const ast_node *targets, const ast_node *iterable,
                pps_span head)
{
    memset(w, 0, sizeof(*w));
    w->exits = NO_JUMP;
    w->counted = !targets->next && is_range(iterable);
    scope_begin(c, &w->outside);
    w->first = hidden_regs(c, w->counted ? 2 : 3, head);
    if (w->counted)
        count_begin(c, w, targets, iterable);
    else
        iterate_begin(c, w, targets, iterable);
    loop_begin(c, &w->l, w->counted ? -1 : (int)w->first);
}

static void note_iter(compiler *c, const walk *w)
{
    fn_state *fs = c->fs;
    void *array = fs->p->iters;
    if (!grow(c, &array, &fs->cap_iters, fs->p->n_iters + 1, sizeof(bc_iter)))
        return;
    fs->p->iters = array;
    fs->p->iters[fs->p->n_iters++] = (bc_iter){w->iter_begin, label(c), (uint8_t)w->first};
}

void walk_end(compiler *c, walk *w, pps_span head)
{
    c->fs->loop = w->l.outer;
    patch_here(c, w->l.continues);
    close_scope(c, &w->inside, head);
    emit_jump_to(c, bc_abc(w->counted ? BC_FORLOOP : BC_JBACK, w->first, 0, 0), w->head, head);
    patch_here(c, w->exits);
    patch_here(c, w->l.breaks);
    close_scope(c, &w->inside, head); /* a `break` came past the first one */
    scope_end(c);
    if (!w->counted) {
        note_iter(c, w);
        emit(c, bc_abc(BC_ITEREND, w->first, 0, 0), head);
    }
    scope_end(c);
}

void while_loop(compiler *c, const ast_node *n)
{
    loop l;
    scope s;
    uint32_t exits = NO_JUMP, head = label(c);
    pps_span span = {n->span.file, n->span.begin, n->a->span.end};
    scope_begin(c, &s);
    condition(c, n->a, false, &exits);
    loop_begin(c, &l, -1);
    block(c, n->b);
    c->fs->loop = l.outer;
    patch_here(c, l.continues);
    close_scope(c, &s, span);
    emit_jump_to(c, bc_abc(BC_JBACK, 0, 0, 0), head, span);
    patch_here(c, exits);
    patch_here(c, l.breaks);
    close_scope(c, &s, span);
    scope_end(c);
}
