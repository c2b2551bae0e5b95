/* SPDX-License-Identifier: Apache-2.0
 *
 * The compiler's ground floor: growing tables, instructions and their spans, jumps, constants,
 * registers, scopes, and what a name means. Nothing here knows the syntax tree but for
 * `may_change_during`.
 */
#include "lang/compile_state.h"

#include <string.h>

/* Lack of memory outranks mistakes: from then on nothing grows and nothing more is reported. */
void fail(compiler *c, pps_status status)
{
    if (c->status == PPS_OK || (c->status == PPS_ERR_SCRIPT && status != PPS_ERR_SCRIPT))
        c->status = status;
}

static bool out_of_memory(const compiler *c)
{
    return c->status != PPS_OK && c->status != PPS_ERR_SCRIPT;
}

bool grow(compiler *c, void **array, uint32_t *cap, uint32_t n, size_t elem_bytes)
{
    if (out_of_memory(c))
        return false;
    pps_status status = vm_reserve(c->st, array, cap, n, elem_bytes);
    if (status != PPS_OK)
        fail(c, status);
    return status == PPS_OK;
}

/* Append `item` to p->`field`, counted by p->n_`field`. */
#define APPEND(c, array, n, cap, item)                                    \
    do {                                                                  \
        void *append_ptr_ = (void *)(array);                              \
        if (grow((c), &append_ptr_, &(cap), (n) + 1, sizeof(*(array)))) { \
            (array) = append_ptr_;                                        \
            (array)[(n)++] = (item);                                      \
        }                                                                 \
    } while (0)

/* ---- Code ------------------------------------------------------------------------------------ */

void emit_word(compiler *c, uint32_t word, pps_span span)
{
    fn_state *fs = c->fs;
    APPEND(c, fs->p->spans, fs->n_spans, fs->cap_spans, span);
    APPEND(c, fs->p->code, fs->p->n_code, fs->cap_code, word);
}

uint32_t emit(compiler *c, uint32_t instruction, pps_span span)
{
    uint32_t at = c->fs->p->n_code;
    emit_word(c, instruction, span);
    return at;
}

void emit_jump(compiler *c, uint32_t instruction, uint32_t *jumps, pps_span span)
{
    emit(c, instruction, span);
    emit_word(c, *jumps, span);
    *jumps = c->fs->p->n_code - 1;
}

void emit_jump_to(compiler *c, uint32_t instruction, uint32_t target, pps_span span)
{
    emit(c, instruction, span);
    emit_word(c, target - (c->fs->p->n_code + 1), span);
}

uint32_t label(compiler *c)
{
    return c->fs->p->n_code;
}

void patch_here(compiler *c, uint32_t jumps)
{
    uint32_t target = label(c);
    if (out_of_memory(c))
        return; /* words may be missing */
    while (jumps != NO_JUMP) {
        uint32_t next = c->fs->p->code[jumps];
        c->fs->p->code[jumps] = target - (jumps + 1);
        jumps = next;
    }
}

void note_arg(compiler *c, uint32_t index, pps_span span)
{
    fn_state *fs = c->fs;
    bc_arg arg = {fs->p->n_code - 1, index, span};
    APPEND(c, fs->p->args, fs->p->n_args, fs->cap_args, arg);
}

uint32_t constant(compiler *c, value v)
{
    fn_state *fs = c->fs;
    bc_proto *p = fs->p;
    /* Look back a little only: a long table of data must not cost its square. */
    uint32_t from = p->n_consts > 64 ? p->n_consts - 64 : 0;
    for (uint32_t i = from; i < p->n_consts; i++)
        if (p->consts[i].tag == v.tag && p->consts[i].as.bits == v.as.bits)
            return i;
    APPEND(c, p->consts, p->n_consts, fs->cap_consts, v);
    return p->n_consts ? p->n_consts - 1 : 0;
}

uint32_t name_index(compiler *c, const char *name)
{
    fn_state *fs = c->fs;
    bc_proto *p = fs->p;
    for (uint32_t i = p->n_names > 64 ? p->n_names - 64 : 0; i < p->n_names; i++)
        if (p->names[i] == name)
            return i;
    APPEND(c, p->names, p->n_names, fs->cap_names, name);
    return p->n_names ? p->n_names - 1 : 0;
}

void load_constant(compiler *c, uint32_t reg, value v, pps_span span)
{
    uint32_t k = constant(c, v);
    if (k <= BC_MAX_BX) {
        emit(c, bc_abx(BC_LOADK, reg, k), span);
    } else {
        emit(c, bc_abc(BC_LOADKX, reg, 0, 0), span);
        emit_word(c, k, span);
    }
}

/* ---- Registers ------------------------------------------------------------------------------- */

uint32_t new_temps(compiler *c, uint32_t n, pps_span span)
{
    fn_state *fs = c->fs;
    uint32_t first = fs->free;
    if (first + n > BC_MAX_REGS) {
        if (c->status == PPS_OK) {
            pps_diag *d =
                pps_diag_start(c->st, PPS_SEV_ERROR, 111, span,
                               "`%s` needs more than %d variables and intermediate values",
                               fs->p->name, BC_MAX_REGS);
            pps_diag_help(d, "move a part of it into a function of its own");
            fail(c, pps_diag_done(d));
        }
        return 0;
    }
    fs->free = first + n;
    if (fs->free > fs->p->n_regs)
        fs->p->n_regs = fs->free;
    return first;
}

uint32_t new_temp(compiler *c, pps_span span)
{
    return new_temps(c, 1, span);
}

bool is_temp(const compiler *c, uint32_t reg)
{
    return reg >= c->fs->n_local_regs;
}

/* ---- Scopes ---------------------------------------------------------------------------------- */

void scope_begin(compiler *c, scope *s)
{
    fn_state *fs = c->fs;
    *s = (scope){fs->scope, fs->n_locals, fs->n_local_regs, false};
    fs->scope = s;
}

void scope_end(compiler *c)
{
    fn_state *fs = c->fs;
    scope *s = fs->scope;
    for (uint32_t i = s->first_local; i < fs->n_locals; i++)
        fs->p->locals[fs->locals[i].debug].end = fs->p->n_code;
    fs->n_locals = s->first_local;
    fs->n_local_regs = s->n_regs_before;
    fs->free = fs->n_local_regs;
    if (s->outer && s->captured)
        s->outer->captured = true; /* a jump may leave both at once */
    fs->scope = s->outer;
}

void close_scope(compiler *c, const scope *s, pps_span span)
{
    if (s->captured)
        emit(c, bc_abc(BC_CLOSE, s->n_regs_before, 0, 0), span);
}

static void declared_twice(compiler *c, const char *name, pps_span span, pps_span first)
{
    pps_diag *d = pps_diag_start(c->st, PPS_SEV_ERROR, 103, span,
                                 "`%s` is declared twice in one block", name);
    pps_diag_also(d, first, "first declared here");
    pps_diag_help(d, "to change it, write `%s = ...` without `let`", name);
    fail(c, pps_diag_done(d));
}

void declare_local(compiler *c, const char *name, pps_span span, uint32_t reg, bool is_loop)
{
    fn_state *fs = c->fs;
    bool anonymous = strcmp(name, "_") == 0;
    for (uint32_t i = fs->scope->first_local; i < fs->n_locals && !anonymous; i++)
        if (fs->locals[i].name == name)
            declared_twice(c, name, span, fs->locals[i].span);
    bc_local row = {name, span, fs->p->n_code, UINT32_MAX, (uint8_t)reg, is_loop && !anonymous};
    APPEND(c, fs->p->locals, fs->p->n_locals, fs->cap_locals_table, row);
    local l = {name, span, fs->p->n_locals ? fs->p->n_locals - 1 : 0, (uint8_t)reg, false};
    APPEND(c, fs->locals, fs->n_locals, fs->cap_locals, l);
    if (reg + 1 > fs->n_local_regs)
        fs->n_local_regs = reg + 1;
}

uint32_t hidden_regs(compiler *c, uint32_t n, pps_span span)
{
    uint32_t first = new_temps(c, n, span);
    if (c->fs->free > c->fs->n_local_regs)
        c->fs->n_local_regs = c->fs->free;
    return first;
}

/* ---- Names ----------------------------------------------------------------------------------- */

static local *find_local(fn_state *fs, const char *name)
{
    for (uint32_t i = fs->n_locals; i-- > 0;)
        if (fs->locals[i].name == name)
            return &fs->locals[i];
    return NULL;
}

static void mark_captured(fn_state *fs, local *l)
{
    l->captured = true;
    uint32_t i = (uint32_t)(l - fs->locals);
    for (scope *s = fs->scope; s; s = s->outer) {
        if (i >= s->first_local) {
            s->captured = true;
            return;
        }
    }
}

/* The upvalue of `fs` for `name`, through all functions between it and the variable; -1: none. */
static int find_upvalue(compiler *c, fn_state *fs, const char *name)
{
    if (!fs->outer || out_of_memory(c))
        return -1;
    for (uint32_t i = 0; i < fs->p->n_upvalues; i++)
        if (fs->p->upvalues[i].name == name)
            return (int)i;
    bc_upvalue up = {.name = name};
    local *l = find_local(fs->outer, name);
    if (l) {
        mark_captured(fs->outer, l);
        up.from_local = true;
        up.index = l->reg;
        up.span = l->span;
    } else {
        int outer = find_upvalue(c, fs->outer, name);
        if (outer < 0 || out_of_memory(c))
            return -1;
        up.index = (uint8_t)outer;
        up.span = fs->outer->p->upvalues[outer].span;
    }
    if (fs->p->n_upvalues >= BC_MAX_REGS) {
        fail(c, pps_error(c->st, fs->p->span, 111, "`%s` uses more than %d outer variables",
                          fs->p->name, BC_MAX_REGS));
        return 0;
    }
    APPEND(c, fs->p->upvalues, fs->p->n_upvalues, fs->cap_upvalues, up);
    return fs->p->n_upvalues ? (int)fs->p->n_upvalues - 1 : 0;
}

name_ref resolve(compiler *c, const char *name)
{
    name_ref ref = {.kind = NAME_NONE};
    local *l = find_local(c->fs, name);
    if (l) {
        ref.kind = NAME_LOCAL;
        ref.index = l->reg;
        return ref;
    }
    int up = find_upvalue(c, c->fs, name);
    if (up >= 0) {
        ref.kind = NAME_UPVALUE;
        ref.index = (uint32_t)up;
        return ref;
    }
    if (name_map_get(&c->mod->names, name, &ref.index)) {
        ref.kind = NAME_GLOBAL;
        return ref;
    }
    uint32_t slot;
    if (c->use && name_map_get(&c->use->names, name, &slot)) {
        ref.kind = NAME_VALUE;
        ref.v = c->use->globals[slot];
        return ref;
    }
    if (vm_builtin(c->st, name, &ref.v))
        ref.kind = NAME_VALUE;
    return ref;
}

static void add_name(compiler *c, const char ***names, uint32_t *n, uint32_t *cap, const char *name)
{
    APPEND(c, *names, *n, *cap, name);
}

/* The name in scope that `name` was probably meant to be. */
static const char *similar_name(compiler *c, const char *name, bool assigning)
{
    const char **names = NULL;
    uint32_t n = 0, cap = 0;
    for (fn_state *fs = c->fs; fs; fs = fs->outer)
        for (uint32_t i = fs->n_locals; i-- > 0;)
            add_name(c, &names, &n, &cap, fs->locals[i].name);
    for (uint32_t i = 0; i < c->mod->n; i++)
        add_name(c, &names, &n, &cap, c->mod->global_names[i]);
    if (!assigning) {
        for (uint32_t i = 0; c->use && i < c->use->n; i++)
            add_name(c, &names, &n, &cap, c->use->global_names[i]);
        for (uint32_t i = 0; i < c->vm->builtin_names.cap; i++)
            if (c->vm->builtin_names.keys[i])
                add_name(c, &names, &n, &cap, c->vm->builtin_names.keys[i]);
    }
    const char *best = pps_did_you_mean(name, names, n);
    heap_free(c->st, names, cap * sizeof(*names));
    return best;
}

void no_such_name(compiler *c, const char *name, pps_span span, bool assigning)
{
    if (out_of_memory(c))
        return;
    for (uint32_t i = 0; i < c->n_bad_names; i++)
        if (c->bad_names[i] == name)
            return; /* follows from the first report */
    APPEND(c, c->bad_names, c->n_bad_names, c->cap_bad_names, name);
    const char *similar = similar_name(c, name, assigning);
    value unused;
    pps_diag *d;
    if (!assigning) {
        d = pps_diag_start(c->st, PPS_SEV_ERROR, 101, span, "no variable `%s`", name);
        if (similar)
            pps_diag_help(d, "did you mean `%s`?", similar);
    } else {
        d = pps_diag_start(c->st, PPS_SEV_ERROR, 102, span, "no variable `%s` to assign", name);
        if (vm_builtin(c->st, name, &unused))
            pps_diag_note(d, "`%s` is a builtin; `let %s = ...` makes a variable of that name",
                          name, name);
        else if (similar)
            pps_diag_help(d, "`let %s = ...` makes one; did you mean `%s`?", name, similar);
        else
            pps_diag_help(d, "`let %s = ...` makes one", name);
    }
    fail(c, pps_diag_done(d));
}

/* ---- Operands and calls -----------------------------------------------------------------------
 */

static void collect_assigned(compiler *c, const ast_node *n, bool inside, int depth)
{
    for (; n && depth < 2 * MAX_NESTING; n = n->next) {
        bool in = inside;
        if (n->kind == AST_FN_STMT || n->kind == AST_MODEL || n->kind == AST_FN_EXPR)
            in = true;
        if (inside && (n->kind == AST_ASSIGN || n->kind == AST_AUG_ASSIGN) &&
            n->a->kind == AST_NAME)
            APPEND(c, c->fs->assigned_inside, c->fs->n_assigned_inside, c->fs->cap_assigned_inside,
                   n->a->name);
        collect_assigned(c, n->a, in, depth + 1);
        collect_assigned(c, n->b, in, depth + 1);
        collect_assigned(c, n->c, in, depth + 1);
        collect_assigned(c, n->d, in, depth + 1);
    }
}

static bool contains_call(const ast_node *n, int depth)
{
    if (!n || depth > 2 * MAX_NESTING)
        return false;
    if (n->kind == AST_CALL || n->kind == AST_FSTRING)
        return true;
    const ast_node *children[] = {n->a, n->b, n->c, n->d};
    for (int i = 0; i < 4; i++)
        for (const ast_node *k = children[i]; k; k = k->next)
            if (contains_call(k, depth + 1))
                return true;
    return false;
}

/* Operands are read from left to right, so a variable's register cannot stand for its value when a
 * call in a later operand may change it: `n + bump()` with `fn bump() { n += 1 ... }`. */
bool may_change_during(compiler *c, const char *name, const ast_node *later)
{
    fn_state *fs = c->fs;
    for (uint32_t i = 0; i < fs->n_assigned_inside; i++)
        if (fs->assigned_inside[i] == name)
            return contains_call(later, 0);
    return false;
}

/* ---- Functions --------------------------------------------------------------------------------
 */

bool enter(compiler *c, pps_span span)
{
    if (++c->depth <= MAX_NESTING)
        return true;
    if (c->status == PPS_OK)
        fail(c, pps_error(c->st, span, 20, "nested deeper than %d levels", MAX_NESTING));
    return false;
}

void leave(compiler *c)
{
    c->depth--;
}

void fn_begin(compiler *c, fn_state *fs, const char *name, pps_span span, const ast_node *body)
{
    memset(fs, 0, sizeof(*fs));
    fs->outer = c->fs;
    fs->p = &fs->building;
    c->fs = fs;
    fs->p->name = name;
    fs->p->span = span;
    fs->p->mod = c->mod;
    collect_assigned(c, body, false, 0);
}

/* Move a growing table into the code arena; the caller's pointer then points there. */
static void settle(compiler *c, void **array, uint32_t n, uint32_t cap, size_t elem_bytes)
{
    void *grown = *array, *kept = NULL;
    if (n && c->status == PPS_OK) {
        kept = vm_new(c->st, n * elem_bytes);
        if (kept)
            memcpy(kept, grown, n * elem_bytes);
        else
            fail(c, PPS_ERR_NOMEM);
    }
    heap_free(c->st, grown, cap * elem_bytes);
    *array = kept;
}
#define SETTLE(field, n, cap)                                   \
    do {                                                        \
        void *settle_ptr_ = (void *)p->field;                   \
        settle(c, &settle_ptr_, n, fs->cap, sizeof(*p->field)); \
        p->field = settle_ptr_;                                 \
    } while (0)

/* Steps a call costs: the words up to and with the first that may leave the straight line. */
static uint32_t entry_cost(const bc_proto *p)
{
    uint32_t at = 0;
    while (at < p->n_code) {
        const char *words = bc_op_words((bc_op)BC_OP(p->code[at]));
        at += 1 + (uint32_t)strlen(words);
        if (strchr(words, 'J'))
            break;
    }
    return at;
}

static void register_origins(compiler *c, bc_proto *p)
{
    struct vm *vm = c->vm;
    if (UINT32_MAX - vm->next_origin < p->n_code)
        return; /* ids ran out: ops made here have none */
    APPEND(c, vm->by_origin, vm->n_by_origin, vm->cap_by_origin, p);
    p->origin_base = vm->next_origin;
    vm->next_origin += p->n_code;
}

bc_proto *fn_end(compiler *c)
{
    fn_state *fs = c->fs;
    bc_proto *p = fs->p, *ret = NULL;
    c->fs = fs->outer;
    if (c->status == PPS_OK)
        p->cost = entry_cost(p);
    SETTLE(spans, fs->n_spans, cap_spans);
    SETTLE(code, p->n_code, cap_code);
    SETTLE(consts, p->n_consts, cap_consts);
    SETTLE(protos, p->n_protos, cap_protos);
    SETTLE(upvalues, p->n_upvalues, cap_upvalues);
    SETTLE(names, p->n_names, cap_names);
    SETTLE(locals, p->n_locals, cap_locals_table);
    SETTLE(iters, p->n_iters, cap_iters);
    SETTLE(args, p->n_args, cap_args);
    SETTLE(filters, p->n_filters, cap_filters);
    SETTLE(name_lists, p->n_name_lists, cap_name_lists);
    SETTLE(directives, p->n_directives, cap_directives);
    SETTLE(annotates, p->n_annotates, cap_annotates);
    heap_free(c->st, fs->locals, fs->cap_locals * sizeof(*fs->locals));
    heap_free(c->st, fs->assigned_inside, fs->cap_assigned_inside * sizeof(*fs->assigned_inside));
    if (c->status == PPS_OK && !(ret = vm_new(c->st, sizeof(*ret))))
        fail(c, PPS_ERR_NOMEM);
    if (c->status != PPS_OK)
        return NULL;
    *ret = *p;
    register_origins(c, ret);
    ret->next_all = c->vm->protos;
    c->vm->protos = ret;
    return ret;
}
