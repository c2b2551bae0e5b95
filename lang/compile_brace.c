/* SPDX-License-Identifier: Apache-2.0
 *
 * Collections: lists, comprehensions, and what stands in braces: a map when its keys are written as
 * values, a filter when they are bare tag names; mixing the two is E0014.
 */
#include "lang/compile_state.h"

static uint32_t working_reg(compiler *c, uint32_t reg, pps_span span)
{
    return is_temp(c, reg) ? reg : new_temp(c, span);
}

static void result_to(compiler *c, uint32_t reg, uint32_t from, pps_span span)
{
    if (reg != from)
        emit(c, bc_abc(BC_MOVE, reg, from, 0), span);
}

void list_to(compiler *c, const ast_node *n, uint32_t reg)
{
    uint32_t t = working_reg(c, reg, n->span), count = 0;
    for (const ast_node *k = n->a; k; k = k->next)
        count++;
    emit(c, bc_abx(BC_LIST, t, count < BC_MAX_BX ? count : BC_MAX_BX), n->span);
    for (const ast_node *k = n->a; k; k = k->next) {
        uint32_t saved = c->fs->free;
        emit(c, bc_abc(BC_LISTADD, t, expr_any(c, k), 0), k->span);
        c->fs->free = saved;
    }
    result_to(c, reg, t, n->span);
}

static void comprehension_loops(compiler *c, const ast_node *n, const ast_node *clause, uint32_t t)
{
    if (!enter(c, clause ? clause->span : n->span)) {
        leave(c);
        return;
    }
    if (!clause) {
        uint32_t saved = c->fs->free;
        emit(c, bc_abc(BC_LISTADD, t, expr_any(c, n->a), 0), n->a->span);
        c->fs->free = saved;
    } else {
        walk w;
        walk_begin(c, &w, clause->a, clause->b, clause->span);
        if (clause->c)
            condition(c, clause->c, false, &w.l.continues);
        comprehension_loops(c, n, clause->next, t);
        walk_end(c, &w, clause->span);
    }
    leave(c);
}

void comprehension_to(compiler *c, const ast_node *n, uint32_t reg)
{
    /* The loops' variables are locals, which live below temporaries: what is a temporary now must
     * count as local while they run. */
    fn_state *fs = c->fs;
    uint32_t t = is_temp(c, reg) ? reg : new_temp(c, n->span);
    uint32_t locals_before = fs->n_local_regs, free_before = fs->free;
    emit(c, bc_abx(BC_LIST, t, 0), n->span);
    scope s;
    scope_begin(c, &s);
    fs->n_local_regs = fs->free;
    comprehension_loops(c, n, n->b, t);
    scope_end(c);
    fs->n_local_regs = locals_before;
    fs->free = free_before;
    result_to(c, reg, t, n->span);
}

static void filter_to(compiler *c, const ast_node *n, uint32_t reg)
{
    bc_filter f = {0};
    uint32_t first = c->fs->free;
    for (const ast_node *e = n->a; e; e = e->next) {
        if (f.n == PPS_MAX_TERMS) {
            fail(c, pps_error(c->st, e->span, 307, "a filter has at most %d tags", PPS_MAX_TERMS));
            return;
        }
        f.tags[f.n] = e->name;
        f.signs[f.n] = e->a->kind == AST_STAR ? '*' : e->a->kind == AST_MINUS ? '-' : 0;
        if (f.signs[f.n++] != 0)
            load_constant(c, new_temp(c, e->span), pps_nil(), e->span);
        else
            expr_next(c, e->a);
    }
    fn_state *fs = c->fs;
    void *array = fs->p->filters;
    if (!grow(c, &array, &fs->cap_filters, fs->p->n_filters + 1, sizeof(f)))
        return;
    fs->p->filters = array;
    fs->p->filters[fs->p->n_filters] = f;
    emit(c, bc_abc(BC_FILTER, reg, first, 0), n->span);
    emit_word(c, fs->p->n_filters++, n->span);
}

static void map_to(compiler *c, const ast_node *n, uint32_t reg)
{
    uint32_t t = working_reg(c, reg, n->span);
    emit(c, bc_abc(BC_MAP, t, 0, 0), n->span);
    for (const ast_node *e = n->a; e; e = e->next) {
        uint32_t saved = c->fs->free;
        uint32_t key = operand(c, e->a, e->b);
        emit(c, bc_abc(BC_MAPADD, t, key, expr_any(c, e->b)), e->a->span);
        c->fs->free = saved;
    }
    result_to(c, reg, t, n->span);
}

void brace_to(compiler *c, const ast_node *n, uint32_t reg)
{
    const ast_node *tag = NULL, *key = NULL;
    for (const ast_node *e = n->a; e; e = e->next) {
        if (e->kind == AST_FILTER_ENTRY && !tag)
            tag = e;
        if (e->kind == AST_MAP_ENTRY && !key)
            key = e;
    }
    if (tag && key) {
        pps_diag *d = pps_diag_start(
            c->st, PPS_SEV_ERROR, 14, n->span,
            "this mixes a filter (tag names without quotes) and a map (quoted keys)");
        pps_diag_also(d, tag->span, "an entry of a filter");
        pps_diag_also(d, key->span, "an entry of a map");
        fail(c, pps_diag_done(d));
    } else if (tag) {
        filter_to(c, n, reg);
    } else {
        map_to(c, n, reg);
    }
}
