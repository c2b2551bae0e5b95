/* SPDX-License-Identifier: Apache-2.0
 *
 * compile_state.h: what the compiler's files share: the function being compiled, its scopes and
 * registers, and the calls that emit code.
 *
 *   registers of a function    | locals, in order of declaration | temporaries, as a stack |
 *                              0                                 n_local_regs              free
 *
 * An expression's value goes where its user wants it: `expr_to` a given register, `expr_any` the
 * variable's own register or a new temporary. Only the last instruction of an expression may write
 * a local's register; whatever writes early (a list, a call) goes through a temporary.
 *
 * The first failure sticks in compiler.status; emitting goes on, harmlessly, so that callers need
 * no checks and several errors are found in one run.
 */
#ifndef PPS_COMPILE_STATE_H
#define PPS_COMPILE_STATE_H

#include "lang/compile.h"

enum { MAX_NESTING = 2000 }; /* the compiler recurses */

/* A jump list is threaded through the jump words that wait for their target. */
#define NO_JUMP UINT32_MAX

typedef struct local {
    const char *name;
    pps_span span;
    uint32_t debug; /* its row in fn_state.locals_table */
    uint8_t reg;
    bool captured;
} local;

typedef struct scope {
    struct scope *outer;
    uint32_t first_local;   /* locals declared in it start here */
    uint32_t n_regs_before; /* n_local_regs when it began */
    bool captured;          /* a closure took one of its variables */
} scope;

typedef struct loop {
    struct loop *outer;
    uint32_t breaks, continues; /* jump lists */
    uint32_t n_annotations;     /* open when the loop began */
    int iter_reg;               /* of a loop that walks an object, else -1 */
} loop;

typedef struct fn_state {
    struct fn_state *outer;
    bc_proto *p; /* &building */
    bc_proto building;
    scope *scope;
    loop *loop;
    local *locals;
    uint32_t n_locals, cap_locals;
    uint32_t n_local_regs, free;
    uint32_t n_annotations;       /* open regions */
    const char **assigned_inside; /* names that functions inside assign to */
    uint32_t n_assigned_inside, cap_assigned_inside;
    /* growing tables, copied into the code arena when the function is done */
    uint32_t n_spans, cap_code, cap_spans, cap_consts, cap_protos, cap_upvalues, cap_names;
    uint32_t cap_locals_table, cap_iters, cap_args, cap_filters, cap_name_lists, cap_directives;
    uint32_t cap_annotates;
} fn_state;

typedef struct compiler {
    pps_state *st;
    struct vm *vm;
    module *mod, *use;
    fn_state *fs;
    pps_status status;
    const char **bad_names; /* reported once each */
    uint32_t n_bad_names, cap_bad_names;
    uint32_t depth; /* of expressions and blocks now open */
} compiler;

typedef enum name_kind { NAME_NONE, NAME_LOCAL, NAME_UPVALUE, NAME_GLOBAL, NAME_VALUE } name_kind;
typedef struct name_ref {
    name_kind kind;
    uint32_t index; /* register, upvalue or global */
    value v;        /* NAME_VALUE: a builtin, or a global of `use` */
} name_ref;

/* ---- compile_emit.c: code, constants, registers, scopes, names ---------------------------------
 */
void fail(compiler *c, pps_status status); /* keeps the first */
bool grow(compiler *c, void **array, uint32_t *cap, uint32_t n, size_t elem_bytes);
uint32_t emit(compiler *c, uint32_t instruction, pps_span span); /* its position */
void emit_word(compiler *c, uint32_t word, pps_span span);
/* Instruction with one jump word on `jumps`, or to a known target. */
void emit_jump(compiler *c, uint32_t instruction, uint32_t *jumps, pps_span span);
void emit_jump_to(compiler *c, uint32_t instruction, uint32_t target, pps_span span);
void patch_here(compiler *c, uint32_t jumps);
uint32_t label(compiler *c); /* the next position, which something jumps to */
void note_arg(compiler *c, uint32_t index, pps_span span); /* operand of the last instruction */
uint32_t constant(compiler *c, value v);
uint32_t name_index(compiler *c, const char *name);
void load_constant(compiler *c, uint32_t reg, value v, pps_span span);
uint32_t new_temp(compiler *c, pps_span span);
uint32_t new_temps(compiler *c, uint32_t n, pps_span span);
bool is_temp(const compiler *c, uint32_t reg);
void scope_begin(compiler *c, scope *s);
void scope_end(compiler *c); /* names and registers go; captured registers must be closed before */
/* Make register n_local_regs (already a temporary, or the next free one) the variable `name`. */
void declare_local(compiler *c, const char *name, pps_span span, uint32_t reg, bool loop);
uint32_t hidden_regs(compiler *c, uint32_t n, pps_span span); /* locals without a name */
void close_scope(compiler *c, const scope *s, pps_span span); /* CLOSE when it was captured */
name_ref resolve(compiler *c, const char *name);
void no_such_name(compiler *c, const char *name, pps_span span, bool assigning);
bool may_change_during(compiler *c, const char *name, const ast_node *later);
void fn_begin(compiler *c, fn_state *fs, const char *name, pps_span span, const ast_node *body);
bc_proto *fn_end(compiler *c);          /* the finished function, NULL after a failure */
bool enter(compiler *c, pps_span span); /* one level deeper; E0020 past MAX_NESTING */
void leave(compiler *c);

/* ---- compile_expr.c ----------------------------------------------------------------------------
 */
void expr_to(compiler *c, const ast_node *n, uint32_t reg);
uint32_t expr_any(compiler *c, const ast_node *n);
uint32_t expr_next(compiler *c, const ast_node *n); /* in a new temporary */
/* As expr_any, but safe when `later` is evaluated before the value is used. */
uint32_t operand(compiler *c, const ast_node *n, const ast_node *later);
/* Arithmetic of `op` into `reg`: register or constant on the right, as fits. */
void arithmetic(compiler *c, ast_op op, uint32_t reg, uint32_t left, const ast_node *right,
                const ast_node *left_node, pps_span span);
/* Jump (onto *jumps) when `n` is `sense`, else fall through. */
void condition(compiler *c, const ast_node *n, bool sense, uint32_t *jumps);
bool literal(compiler *c, const ast_node *n, value *ret); /* numbers folded; strings made */
bool is_number(value v);
void load_name(compiler *c, const ast_node *n, uint32_t reg);
void row_add_to(compiler *c, const ast_node *n, uint32_t reg);  /* reg += a -> b */
void list_add_to(compiler *c, const ast_node *n, uint32_t reg); /* reg += [a, b] */
bool is_short_list(const ast_node *n); /* a list literal that list_add_to takes */

/* ---- compile_brace.c
 * ------------------------------------------------------------------------------ */
void brace_to(compiler *c, const ast_node *n, uint32_t reg); /* filters and maps */
void list_to(compiler *c, const ast_node *n, uint32_t reg);
void comprehension_to(compiler *c, const ast_node *n, uint32_t reg);

/* ---- compile_call.c
 * ------------------------------------------------------------------------------ */
void call_to(compiler *c, const ast_node *n, uint32_t reg);
void function_to(compiler *c, const ast_node *n, uint32_t reg); /* FN_STMT, MODEL, FN_EXPR */

/* ---- compile_loop.c
 * ------------------------------------------------------------------------------ */
typedef struct walk { /* a `for`, of a statement or a comprehension */
    loop l;
    scope outside, inside; /* hidden registers; the loop variables */
    uint32_t head, first, exits, iter_begin;
    bool counted; /* over a literal range */
} walk;
void walk_begin(compiler *c, walk *w, const ast_node *targets, const ast_node *iterable,
                pps_span head);
void walk_end(compiler *c, walk *w, pps_span head);
void while_loop(compiler *c, const ast_node *n);

/* ---- compile_stmt.c
 * ------------------------------------------------------------------------------ */
void block(compiler *c, const ast_node *n); /* with a scope of its own */
void statements(compiler *c, const ast_node *first);

#endif
