/* SPDX-License-Identifier: Apache-2.0
 *
 * Expressions: literals and their folding, names, operators, conditions. Calls, functions,
 * collections and loops have files of their own.
 *
 * A comparison in a condition becomes one compare-and-jump; `and`, `or`, `not` become jumps.
 */
#include "lang/compile_state.h"

#include <string.h>

/* ---- Literals -------------------------------------------------------------------------------- */

bool is_number(value v)
{
    return v.tag == PPS_INT || v.tag == PPS_FLOAT;
}

static bool fold_binary(ast_op op, value a, value b, value *ret)
{
    if (a.tag == PPS_INT && b.tag == PPS_INT) {
        int64_t r;
        bool overflow = op == AST_OP_ADD   ? __builtin_add_overflow(a.as.i, b.as.i, &r)
                        : op == AST_OP_SUB ? __builtin_sub_overflow(a.as.i, b.as.i, &r)
                        : op == AST_OP_MUL ? __builtin_mul_overflow(a.as.i, b.as.i, &r)
                                           : true;
        if (!overflow)
            *ret = pps_int(r);
        return !overflow; /* left to the VM, which reports it */
    }
    double x = pps_as_number(a), y = pps_as_number(b);
    switch (op) {
    case AST_OP_ADD:
        *ret = pps_float(x + y);
        return true;
    case AST_OP_SUB:
        *ret = pps_float(x - y);
        return true;
    case AST_OP_MUL:
        *ret = pps_float(x * y);
        return true;
    default:
        return false;
    }
}

static bool string_literal(compiler *c, const ast_node *n, value *ret)
{
    const bc_proto *p = c->fs->p;
    for (uint32_t i = p->n_consts > 64 ? p->n_consts - 64 : 0; i < p->n_consts; i++) {
        if (p->consts[i].tag != PPS_STRING)
            continue;
        const string *s = p->consts[i].as.ptr;
        if (s->n_bytes == n->v.s.n && memcmp(s->bytes, n->v.s.bytes, n->v.s.n) == 0) {
            *ret = p->consts[i];
            return true;
        }
    }
    pps_status status = string_new(c->st, n->v.s.bytes, n->v.s.n, ret);
    if (status != PPS_OK)
        fail(c, status);
    return status == PPS_OK;
}

static bool number_literal(const ast_node *n, int depth, value *ret)
{
    value a, b;
    if (depth > 100)
        return false;
    switch ((ast_kind)n->kind) {
    case AST_INT:
        *ret = pps_int(n->v.i);
        return true;
    case AST_FLOAT:
        *ret = pps_float(n->v.f);
        return true;
    case AST_UNARY:
        if (n->op != AST_OP_NEG || !number_literal(n->a, depth + 1, &a))
            return false;
        if (a.tag == PPS_FLOAT)
            *ret = pps_float(-a.as.f);
        else if (a.as.i != INT64_MIN)
            *ret = pps_int(-a.as.i);
        else
            return false;
        return true;
    case AST_BINARY:
        if (n->op != AST_OP_ADD && n->op != AST_OP_SUB && n->op != AST_OP_MUL)
            return false;
        return number_literal(n->a, depth + 1, &a) && number_literal(n->b, depth + 1, &b) &&
               fold_binary((ast_op)n->op, a, b, ret);
    default:
        return false;
    }
}

bool literal(compiler *c, const ast_node *n, value *ret)
{
    switch ((ast_kind)n->kind) {
    case AST_NIL:
        *ret = pps_nil();
        return true;
    case AST_BOOL:
        *ret = pps_bool(n->v.i != 0);
        return true;
    case AST_STRING:
        return string_literal(c, n, ret);
    default:
        return number_literal(n, 0, ret);
    }
}

/* A number that fits the constant operand of an instruction. */
static bool small_constant(compiler *c, const ast_node *n, bool any_literal, uint32_t *ret)
{
    value v;
    if (any_literal ? !literal(c, n, &v) : !number_literal(n, 0, &v))
        return false;
    *ret = constant(c, v);
    return *ret <= 0xff;
}

/* ---- Names ----------------------------------------------------------------------------------- */

void load_name(compiler *c, const ast_node *n, uint32_t reg)
{
    name_ref ref = resolve(c, n->name);
    switch (ref.kind) {
    case NAME_NONE:
        no_such_name(c, n->name, n->span, false);
        break;
    case NAME_LOCAL:
        if (ref.index != reg)
            emit(c, bc_abc(BC_MOVE, reg, ref.index, 0), n->span);
        break;
    case NAME_UPVALUE:
        emit(c, bc_abc(BC_GETUP, reg, ref.index, 0), n->span);
        break;
    case NAME_GLOBAL:
        emit(c, bc_abx(BC_GETG, reg, ref.index), n->span);
        break;
    case NAME_VALUE:
        load_constant(c, reg, ref.v, n->span);
        break;
    }
}

uint32_t expr_any(compiler *c, const ast_node *n)
{
    if (n->kind == AST_NAME) {
        name_ref ref = resolve(c, n->name);
        if (ref.kind == NAME_LOCAL)
            return ref.index;
    }
    return expr_next(c, n);
}

uint32_t expr_next(compiler *c, const ast_node *n)
{
    uint32_t reg = new_temp(c, n->span);
    expr_to(c, n, reg);
    return reg;
}

uint32_t operand(compiler *c, const ast_node *n, const ast_node *later)
{
    if (n->kind == AST_NAME && may_change_during(c, n->name, later))
        return expr_next(c, n);
    return expr_any(c, n);
}

/* The same, but what needs a temporary is computed in `reg`, the result's own, if that is one: a
 * long chain of operators then takes one register, not one for each. */
static uint32_t operand_in(compiler *c, const ast_node *n, const ast_node *later, uint32_t reg)
{
    if (n->kind == AST_NAME || !is_temp(c, reg))
        return operand(c, n, later);
    expr_to(c, n, reg);
    return reg;
}

/* ---- Operators ------------------------------------------------------------------------------- */

static bc_op binary_op(ast_op op, bool right_constant)
{
    switch (op) {
    case AST_OP_ADD:
        return right_constant ? BC_ADDK : BC_ADD;
    case AST_OP_SUB:
        return right_constant ? BC_SUBK : BC_SUB;
    case AST_OP_MUL:
        return right_constant ? BC_MULK : BC_MUL;
    case AST_OP_DIV:
        return right_constant ? BC_DIVK : BC_DIV;
    case AST_OP_FLOORDIV:
        return right_constant ? BC_FLOORDIVK : BC_FLOORDIV;
    case AST_OP_MOD:
        return right_constant ? BC_MODK : BC_MOD;
    case AST_OP_POW:
        return BC_POW;
    case AST_OP_EQ:
        return BC_EQ;
    case AST_OP_NE:
        return BC_NE;
    case AST_OP_LT:
    case AST_OP_GT:
        return BC_LT;
    case AST_OP_LE:
    case AST_OP_GE:
        return BC_LE;
    case AST_OP_IN:
        return BC_IN;
    case AST_OP_NOT_IN:
        return BC_NOT_IN;
    case AST_OP_BITAND:
        return BC_BITAND;
    case AST_OP_BAR:
        return BC_BAR;
    case AST_OP_RANGE:
        return BC_RANGE;
    case AST_OP_RANGE_CLOSED:
        return BC_RANGE_CLOSED;
    case AST_OP_AND:
    case AST_OP_OR:
    case AST_OP_NOT:
    case AST_OP_NEG:
    case AST_OP_ARROW:
    case AST_OP_COUNT:
        break;
    }
    return BC_ADD;
}

static bool takes_constant(ast_op op)
{
    return op <= AST_OP_MOD;
}

void arithmetic(compiler *c, ast_op op, uint32_t reg, uint32_t left, const ast_node *right,
                const ast_node *left_node, pps_span span)
{
    uint32_t k;
    if (takes_constant(op) && small_constant(c, right, false, &k)) {
        emit(c, bc_abc(binary_op(op, true), reg, left, k), span);
    } else {
        uint32_t r = left == reg ? expr_any(c, right) : operand_in(c, right, NULL, reg);
        bool swap = op == AST_OP_GT || op == AST_OP_GE;
        emit(c, bc_abc(binary_op(op, false), reg, swap ? r : left, swap ? left : r), span);
    }
    note_arg(c, 0, left_node->span);
    note_arg(c, 1, right->span);
}

/* The operands of a chain a -> b -> c, which hangs on its left. Owned by the caller. */
static uint32_t chain(compiler *c, const ast_node *n, const ast_node ***ret, uint32_t *ret_cap)
{
    uint32_t count = 1, cap = 0;
    for (const ast_node *k = n; k->kind == AST_BINARY && k->op == AST_OP_ARROW; k = k->a)
        count++;
    void *array = NULL;
    *ret_cap = 0;
    if (!grow(c, &array, &cap, count, sizeof(*ret[0])))
        return 0;
    const ast_node **nodes = array;
    for (uint32_t i = count; i-- > 1; n = n->a)
        nodes[i] = n->b;
    nodes[0] = n;
    *ret = nodes;
    *ret_cap = cap;
    return count;
}

/* One instruction takes the operands from `from` on, all of them evaluated before. */
static void row_part(compiler *c, bc_op op, uint32_t reg, const ast_node **nodes, uint32_t from,
                     uint32_t n, pps_span span)
{
    uint32_t saved = c->fs->free, first = new_temps(c, n, span);
    for (uint32_t i = 0; i < n; i++)
        expr_to(c, nodes[from + i], first + i);
    emit(c, bc_abc(op, reg, first, n), span);
    for (uint32_t i = 0; i < n; i++)
        note_arg(c, i, nodes[from + i]->span);
    c->fs->free = saved;
}

enum { ROW_AT_ONCE = 32 };

/* The first part makes the list, later ones append to it. */
static void row_chain_to(compiler *c, const ast_node **nodes, uint32_t count, uint32_t reg,
                         pps_span span)
{
    uint32_t t = count <= ROW_AT_ONCE || is_temp(c, reg) ? reg : new_temp(c, span);
    for (uint32_t from = 0; from < count; from += ROW_AT_ONCE) {
        uint32_t n = count - from < ROW_AT_ONCE ? count - from : ROW_AT_ONCE;
        row_part(c, from == 0 ? BC_ROW : BC_ROWADD, t, nodes, from, n, span);
    }
    if (t != reg)
        emit(c, bc_abc(BC_MOVE, reg, t, 0), span);
}

static void row_to(compiler *c, const ast_node *n, uint32_t reg)
{
    const ast_node **nodes = NULL;
    uint32_t cap, count = chain(c, n, &nodes, &cap);
    row_chain_to(c, nodes, count, reg, n->span);
    heap_free(c->st, nodes, cap * sizeof(*nodes));
}

/* xs += [a, b]: the same without the list on the right. */
void list_add_to(compiler *c, const ast_node *n, uint32_t reg)
{
    uint32_t saved = c->fs->free, first = saved, count = 0;
    for (const ast_node *item = n->a; item; item = item->next, count++)
        expr_next(c, item);
    emit(c, bc_abc(BC_LISTEXTEND, reg, first, count), n->span);
    c->fs->free = saved;
}

bool is_short_list(const ast_node *n)
{
    uint32_t count = 0;
    if (n->kind != AST_LIST)
        return false;
    for (const ast_node *item = n->a; item && count <= ROW_AT_ONCE; item = item->next)
        count++;
    return count <= ROW_AT_ONCE;
}

/* row += a -> b: all operands first, then each is appended, without the list on the right. */
void row_add_to(compiler *c, const ast_node *n, uint32_t reg)
{
    const ast_node **nodes = NULL;
    uint32_t saved = c->fs->free, cap, count = chain(c, n, &nodes, &cap);
    if (count <= ROW_AT_ONCE) {
        row_part(c, BC_ROWADD, reg, nodes, 0, count, n->span);
    } else {
        uint32_t t = new_temp(c, n->span);
        row_chain_to(c, nodes, count, t, n->span);
        emit(c, bc_abc(BC_IADD, reg, t, 0), n->span);
    }
    heap_free(c->st, nodes, cap * sizeof(*nodes));
    c->fs->free = saved;
}

static void and_or_to(compiler *c, const ast_node *n, uint32_t reg)
{
    uint32_t t = is_temp(c, reg) ? reg : new_temp(c, n->span), end = NO_JUMP;
    bool is_or = n->op == AST_OP_OR;
    expr_to(c, n->a, t);
    emit_jump(c, bc_abc(BC_JBOOL, t, 0, is_or), &end, n->a->span);
    expr_to(c, n->b, t);
    emit(c, bc_abc(BC_CHECK_BOOL, t, 0, is_or), n->b->span);
    patch_here(c, end);
    if (t != reg)
        emit(c, bc_abc(BC_MOVE, reg, t, 0), n->span);
}

static void binary_to(compiler *c, const ast_node *n, uint32_t reg)
{
    ast_op op = (ast_op)n->op;
    if (op == AST_OP_AND || op == AST_OP_OR) {
        and_or_to(c, n, reg);
    } else if (op == AST_OP_ARROW) {
        row_to(c, n, reg);
    } else {
        uint32_t left = operand_in(c, n->a, n->b, reg);
        arithmetic(c, op, reg, left, n->b, n->a, n->span);
    }
}

/* ---- Conditions ------------------------------------------------------------------------------ */

static bool is_comparison(const ast_node *n)
{
    return n->kind == AST_BINARY && n->op >= AST_OP_EQ && n->op <= AST_OP_GE;
}

static void compare_jump(compiler *c, const ast_node *n, bool sense, uint32_t *jumps)
{
    ast_op op = (ast_op)n->op;
    bool equality = op == AST_OP_EQ || op == AST_OP_NE;
    uint32_t k, left = operand(c, n->a, n->b);
    if (op == AST_OP_NE)
        sense = !sense;
    if (small_constant(c, n->b, equality, &k)) {
        bc_op jump = equality          ? BC_JEQK
                     : op == AST_OP_LT ? BC_JLTK
                     : op == AST_OP_LE ? BC_JLEK
                     : op == AST_OP_GT ? BC_JGTK
                                       : BC_JGEK;
        emit_jump(c, bc_abc(jump, left, k, sense), jumps, n->span);
    } else {
        uint32_t right = expr_any(c, n->b);
        bool swap = op == AST_OP_GT || op == AST_OP_GE;
        bc_op jump = equality ? BC_JEQ : op == AST_OP_LT || op == AST_OP_GT ? BC_JLT : BC_JLE;
        emit_jump(c, bc_abc(jump, swap ? right : left, swap ? left : right, sense), jumps, n->span);
    }
}

void condition(compiler *c, const ast_node *n, bool sense, uint32_t *jumps)
{
    uint32_t saved = c->fs->free;
    if (!enter(c, n->span)) {
        leave(c);
        return;
    }
    if (n->kind == AST_UNARY && n->op == AST_OP_NOT) {
        condition(c, n->a, !sense, jumps);
    } else if (n->kind == AST_BINARY && (n->op == AST_OP_AND || n->op == AST_OP_OR)) {
        /* `a and b` is false as soon as a is; `a or b` is true as soon as a is */
        bool decides = n->op == AST_OP_OR;
        if (sense == decides) {
            condition(c, n->a, sense, jumps);
            condition(c, n->b, sense, jumps);
        } else {
            uint32_t skip = NO_JUMP;
            condition(c, n->a, decides, &skip);
            condition(c, n->b, sense, jumps);
            patch_here(c, skip);
        }
    } else if (n->kind == AST_BOOL) {
        if ((n->v.i != 0) == sense)
            emit_jump(c, bc_abc(BC_JMP, 0, 0, 0), jumps, n->span);
    } else if (is_comparison(n)) {
        compare_jump(c, n, sense, jumps);
    } else {
        uint32_t reg = expr_any(c, n);
        emit_jump(c, bc_abc(BC_JBOOL, reg, 0, sense), jumps, n->span);
    }
    leave(c);
    c->fs->free = saved;
}

/* ---- The rest -------------------------------------------------------------------------------- */

static void if_expr_to(compiler *c, const ast_node *n, uint32_t reg)
{
    uint32_t otherwise = NO_JUMP, end = NO_JUMP;
    condition(c, n->a, false, &otherwise);
    expr_to(c, n->b, reg);
    emit_jump(c, bc_abc(BC_JMP, 0, 0, 0), &end, n->span);
    patch_here(c, otherwise);
    expr_to(c, n->c, reg);
    patch_here(c, end);
}

/* Parts are joined some at a time, so that a long text needs few registers. */
static void fstring_to(compiler *c, const ast_node *n, uint32_t reg)
{
    enum { AT_ONCE = 24 };
    uint32_t first = c->fs->free, count = 0;
    for (const ast_node *part = n->a; part; part = part->next) {
        expr_next(c, part);
        if (++count == AT_ONCE && part->next) {
            emit(c, bc_abc(BC_CONCAT, first, first, count), n->span);
            count = 1;
            c->fs->free = first + 1;
        }
    }
    emit(c, bc_abc(BC_CONCAT, reg, first, count), n->span);
}

static void slice_to(compiler *c, const ast_node *n, uint32_t reg)
{
    uint32_t object_reg = expr_next(c, n->a);
    uint32_t bounds = new_temps(c, 2, n->span);
    const ast_node *ends[] = {n->b, n->c};
    for (uint32_t i = 0; i < 2; i++) {
        if (ends[i])
            expr_to(c, ends[i], bounds + i);
        else
            load_constant(c, bounds + i, pps_nil(), n->span);
    }
    emit(c, bc_abc(BC_SLICE, reg, object_reg, bounds), n->span);
}

static void index_to(compiler *c, const ast_node *n, uint32_t reg)
{
    uint32_t object_reg = operand_in(c, n->a, n->b, reg);
    uint32_t key = expr_any(c, n->b);
    emit(c, bc_abc(BC_INDEX, reg, object_reg, key), n->span);
    note_arg(c, 0, n->a->span);
    note_arg(c, 1, n->b->span);
}

void expr_to(compiler *c, const ast_node *n, uint32_t reg)
{
    uint32_t saved = c->fs->free, r;
    value v;
    if (!enter(c, n->span) || c->status == PPS_ERR_NOMEM || c->status == PPS_ERR_LIMIT) {
        leave(c);
        return;
    }
    switch ((ast_kind)n->kind) {
    case AST_NIL:
    case AST_BOOL:
    case AST_INT:
    case AST_FLOAT:
    case AST_STRING:
        if (literal(c, n, &v))
            load_constant(c, reg, v, n->span);
        break;
    case AST_FSTRING:
        fstring_to(c, n, reg);
        break;
    case AST_NAME:
        load_name(c, n, reg);
        break;
    case AST_LIST:
        list_to(c, n, reg);
        break;
    case AST_COMPREHENSION:
        comprehension_to(c, n, reg);
        break;
    case AST_BRACE:
        brace_to(c, n, reg);
        break;
    case AST_CALL:
        call_to(c, n, reg);
        break;
    case AST_INDEX:
        index_to(c, n, reg);
        break;
    case AST_SLICE:
        slice_to(c, n, reg);
        break;
    case AST_FIELD:
        r = operand_in(c, n->a, NULL, reg);
        emit(c, bc_abc(BC_FIELD, reg, r, 0), n->span);
        emit_word(c, name_index(c, n->name), n->span);
        note_arg(c, 0, n->name_span);
        break;
    case AST_FN_EXPR:
        function_to(c, n, reg);
        break;
    case AST_IF_EXPR:
        if_expr_to(c, n, reg);
        break;
    case AST_BINARY:
        if (number_literal(n, 0, &v))
            load_constant(c, reg, v, n->span);
        else
            binary_to(c, n, reg);
        break;
    case AST_UNARY:
        if (number_literal(n, 0, &v)) {
            load_constant(c, reg, v, n->span);
        } else {
            r = operand_in(c, n->a, NULL, reg);
            emit(c, bc_abc(n->op == AST_OP_NOT ? BC_NOT : BC_NEG, reg, r, 0), n->span);
            note_arg(c, 0, n->a->span);
        }
        break;
    default:
        fail(c, pps_error(c->st, n->span, 1, "an expression is expected here"));
        break;
    }
    leave(c);
    c->fs->free = saved;
}
