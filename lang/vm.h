/* SPDX-License-Identifier: Apache-2.0
 *
 * vm.h: the running program, for lang's own files.
 *
 *   regs    | main: r0 r1 r2 | f: callee | r0 r1 ... | g: callee | r0 ...
 *                            ^ frame.base - 1        ^ where the result goes
 *
 * A call slides a window over one register stack: the callee's parameters are the caller's argument
 * registers. Script calls push a frame and never use the C stack; vm_call starts a nested run of
 * the interpreter loop, bounded by VM_MAX_NESTED. Registers and frames move when they grow, so C
 * code holds indices across anything that may call script code.
 */
#ifndef PPS_VM_H
#define PPS_VM_H

#include "lang/bytecode.h"
#include "lang/state.h"

enum {
    VM_SLICE = 1024,     /* steps between looks at limits, the interrupt flag and the heap */
    VM_MAX_NESTED = 100, /* vm_call inside vm_call */
    VM_MAX_ARGS = 250,
};

/* Two nils that no script sees: an argument that was left out, a global that is not bound yet. */
#define VM_TAG_UNSET   ((uint64_t)PPS_NIL | (uint64_t)1 << 8)
#define VM_TAG_UNBOUND ((uint64_t)PPS_NIL | (uint64_t)2 << 8)

/* From names to small numbers. Keys are interned pointers. */
typedef struct name_map {
    const char **keys;
    uint32_t *numbers;
    uint32_t n, cap; /* cap: 0 or a power of two */
} name_map;
pps_status name_map_set(pps_state *st, name_map *m, const char *name, uint32_t number);
bool name_map_get(const name_map *m, const char *name, uint32_t *ret);
void name_map_done(pps_state *st, name_map *m);

typedef enum module_state { MODULE_NEW, MODULE_RUNNING, MODULE_READY, MODULE_FAILED } module_state;
typedef struct module {
    object o;
    module_state state;
    bool is_main;
    const char *name, *resolved; /* interned */
    uint32_t file;
    name_map names;
    uint32_t n, cap;
    value *globals;
    const char **global_names;
    pps_span *spans;      /* where each was declared */
    pps_span import_span; /* the import that loaded it first */
} module;

typedef struct host_param {
    const char *name;
    value fallback; /* tag VM_TAG_UNSET: required */
} host_param;
typedef struct host_fn {
    struct host_fn *next;
    const char *name, *signature, *doc;
    pps_host_fn fn;
    void *ud;
    void (*free_ud)(void *ud);
    uint32_t n_params, n_positional; /* parameters after *rest go by name only */
    uint32_t rest, named_rest;       /* slot of *rest and **named, UINT32_MAX when there is none */
    host_param *params;
    bool is_builtin; /* keeps what it holds reachable itself, so collecting inside it is fine */
    bool makes_op;   /* SEND, RECV: its result gets the call site's origin */
} host_fn;

typedef enum fn_kind {
    FN_SCRIPT,
    FN_HOST,
    FN_ATTEMPT, /* the builtin that catches: it needs the interpreter loop */
    FN_CELL,    /* not a function: a captured variable; it shares the object type */
} fn_kind;

/* A captured variable: `at` points to its register while that is in scope, then to `closed`. */
typedef struct cell {
    object o;
    uint32_t kind; /* FN_CELL */
    value *at;
    value closed;
    struct cell *next_open; /* open ones, highest register first */
} cell;

typedef struct fn_object {
    object o;
    uint32_t kind; /* fn_kind; at the same place as in `cell` */
    uint32_t n_cells;
    bc_proto *proto; /* FN_SCRIPT */
    host_fn *host;   /* FN_HOST */
    cell *cells[];
} fn_object;

enum { FRAME_MODEL = 1, FRAME_MODULE = 2, FRAME_ATTEMPT = 4 };
typedef struct frame {
    const uint32_t *pc; /* behind the word now running; valid while the frame is not running */
    fn_object *fn;
    bc_proto *proto;
    uint32_t base;
    uint32_t flags;
} frame;

typedef struct annotation { /* a region that is open */
    const char *tag;
    uint32_t index, frame; /* index of the frame it was opened in */
    pps_span span;
} annotation;

/* The host call under way, for pps_call_span and pps_arg_span. */
typedef struct host_call {
    struct host_call *outer;
    uint32_t n_frames;    /* frames when it began; 0: called by the host itself */
    uint32_t n_args;      /* slots known below */
    const uint16_t *site; /* parameter slot -> argument as written, UINT16_MAX: left out */
} host_call;

typedef struct builtin {
    value v;
    const char *doc;
} builtin;

typedef struct handle_type {
    pps_handle_ops ops;
    void *ud;
} handle_type;

typedef struct script_param {
    const char *name, *text;
    bool used;
} script_param;

struct vm {
    value *regs;
    uint32_t cap_regs;
    uint32_t n_frames, cap_frames;
    frame *frames;
    uint32_t max_depth, nested;
    uint32_t no_collect; /* host functions under way: see pps_host_fn */
    uint64_t steps;      /* used up, in whole slices */
    int64_t slice;       /* what is left of the running slice */
    cell *open;
    host_call *call;
    pps_span *span_at; /* overrides the current span: an operand's */
    arena code;        /* bytecode and what else lives as long as the state */
    bc_proto *protos;
    bc_proto **by_origin; /* ascending origin_base */
    uint32_t n_by_origin, cap_by_origin, next_origin;
    name_map builtin_names;
    builtin *builtins;
    uint32_t n_builtins, cap_builtins;
    bool registering_builtins;
    host_fn *hosts;
    handle_type *handles; /* handle types count from 1 */
    uint32_t n_handles, cap_handles;
    module **modules;
    uint32_t n_modules, cap_modules;
    module *main;
    script_param *params;
    uint32_t n_params, cap_params;
    pps_directive **directives;
    uint32_t n_directives, cap_directives;
    annotation *annotations;
    uint32_t n_annotations, cap_annotations;
    name_map tag_slots; /* tag -> index into tag_counts */
    uint32_t *tag_counts;
    uint32_t cap_tags;
    uint32_t model_depth;
    value *refs; /* held by the host; free ones are VM_TAG_UNSET and name the next free one */
    uint32_t n_refs, cap_refs, free_ref;
    const char *name_append;
    bool evaluating; /* inside pps_eval, pps_eval_expr or pps_call */
};

/* ---- vm.c: life, stacks, calls --------------------------------------------------------------- */
pps_status vm_open(pps_state *st);
void vm_close(pps_state *st); /* after heap_done */
/* Grow an array to hold `n` elements; new memory is zeroed. */
pps_status vm_reserve(pps_state *st, void **array, uint32_t *cap, uint64_t n, size_t elem_bytes);
void *vm_new(pps_state *st,
             size_t bytes); /* zeroed, in the code arena; reports when out of memory */
pps_status vm_reserve_regs(pps_state *st, uint32_t n);
/* Push a frame of `fn`, whose callee register is `base - 1`; registers and frames may move. */
pps_status vm_push_frame(pps_state *st, fn_object *fn, uint32_t base, uint32_t flags,
                         const uint32_t *pc);
uint32_t vm_top(pps_state *st); /* the first register no frame uses */
void vm_close_cells(pps_state *st, value *from);
pps_status vm_closure(pps_state *st, bc_proto *p, fn_object *outer, value *regs, value *ret);
/* Charge what `slice` says was used beyond it, start a new slice, look at limits and the heap. */
pps_status vm_new_slice(pps_state *st);
/* Undo frames down to `stop` after `status`; PPS_OK when an `attempt` on the way took it. */
pps_status vm_unwind(pps_state *st, uint32_t stop, pps_status status);
/* What a frame with flags does when it returns `v`; may replace it. */
pps_status vm_leave(pps_state *st, value *v);
/* What `attempt` gives: {"ok": ok, "value": v, "error": title} */
pps_status vm_attempt_result(pps_state *st, bool ok, value v, const char *title, value *ret);
/* Run a compiled module or expression; its value (the module, or the expression's) is returned. */
pps_status vm_run_main(pps_state *st, bc_proto *p, uint32_t flags, value *ret);

/* ---- vm_run.c: the interpreter loop ---------------------------------------------------------- */
/* Until the frame count is down to `stop`; the result is in the callee register of the last frame.
 */
pps_status vm_run(pps_state *st, uint32_t stop);

/* ---- vm_ops.c: operators beyond the loop's fast paths ------------------------------------------
 */
pps_status vm_binary(pps_state *st, bc_op op, value a, value b, value *ret);
pps_status vm_compare(pps_state *st, bc_op op, value a, value b, bool *ret); /* EQ LT LE */
pps_status vm_negate(pps_state *st, value v, value *ret);
pps_status vm_add_to(pps_state *st, value a, value b, value *ret); /* a += b */
pps_status vm_row_add(pps_state *st, uint32_t dest, uint32_t first, uint32_t n, bool in_place);
pps_status vm_list_extend(pps_state *st, value l, const value *items, uint32_t n);
pps_status vm_not_bool(pps_state *st, value v, const char *where);
pps_status vm_unpack(pps_state *st, uint32_t dest, value v, uint32_t n);
pps_status vm_filter(pps_state *st, const bc_filter *f, const value *vals, value *ret);
pps_status vm_concat(pps_state *st, const value *vals, uint32_t n, value *ret);
pps_status vm_field(pps_state *st, value v, const char *name, value *ret);

/* ---- vm_call.c: binding arguments -------------------------------------------------------------
 */
typedef struct vm_args { /* arguments in registers: positional, then named, from `first` on */
    uint32_t first, n_pos, n_named;
    const char *const *names;
    const pps_span *name_spans;
} vm_args;
/* Order arguments as `p`'s parameters want them, missing ones unset. E0301, E0302. */
pps_status vm_bind(pps_state *st, const bc_proto *p, const vm_args *args,
                   const uint32_t **ret_entry);
/* Call anything that is not a script function: host functions, passes, handles; E0303 otherwise. */
pps_status vm_call_other(pps_state *st, value callee, const vm_args *args, value *ret);
pps_status vm_call_method(pps_state *st, value self, const char *name, const vm_args *args,
                          value *ret);

/* ---- vm_error.c: where we are, in the user's terms ---------------------------------------------
 */
const frame *vm_top_frame(pps_state *st); /* NULL when nothing runs */
pps_span vm_frame_span(const frame *f);
/* The span of operand `index` of the running instruction, or the instruction's own. */
pps_span vm_operand_span(pps_state *st, uint32_t index);
/* A variable by name as the running function sees it. */
bool vm_find_variable(pps_state *st, const char *name, size_t n, value *ret, pps_span *ret_span);
/* "s = 0, r = 1": loop variables of all frames, innermost last; at most n - 1 bytes. The span is of
 * the innermost one, in its loop's head; no place when there is none. */
pps_span vm_context(pps_state *st, char *buffer, size_t n);
/* Errors of the running program get its frames when they are done: vm_attach_frames. */
#define vm_error_at(st, span, code, ...) \
    pps_diag_start((st), PPS_SEV_ERROR, (code), (span), __VA_ARGS__)
void vm_attach_frames(pps_state *st, pps_diag *d);
/* "n = 4, m = 2": the variables named in a source text, or "". */
void vm_explain(pps_state *st, pps_span span, char *buffer, size_t n);

/* ---- module.c ---------------------------------------------------------------------------------
 */
pps_status module_new(pps_state *st, const char *name, const char *resolved, module **ret);
pps_status module_declare(pps_state *st, module *m, const char *name, pps_span span,
                          uint32_t *ret_slot);
/* Find or start the module at `path`, imported at `span` from module `from`. When it must run
 * first, *ret_proto is its code, to be run as a FRAME_MODULE; else NULL. */
pps_status module_import(pps_state *st, module *from, const char *path, pps_span span, module **ret,
                         bc_proto **ret_proto);
void module_finish(pps_state *st, module *m); /* it ran: freeze what it holds */
/* Compile a text and print its bytecode; nothing runs. For `pps dump --stage bc`. */
pps_status module_dump(pps_state *st, const char *name, const char *bytes, size_t n,
                       void (*print)(void *ud, const char *bytes, size_t n), void *ud);
pps_status module_field(pps_state *st, module *m, const char *name, pps_span span, value *ret);

/* ---- directive.c, annotate.c -------------------------------------------------------------------
 */
/* The clause `word` of a directive in clauses.def. */
bool directive_clause(pps_directive_kind kind, const char *word, bc_clause_type *ret);
uint32_t directive_words(pps_directive_kind kind, const char *words[PPS_MAX_CLAUSES]);
pps_status directive_record(pps_state *st, const bc_directive *d, const value *vals);
pps_status annotate_enter(pps_state *st, const bc_annotate *a, value *ret_index);
pps_status annotate_leave(pps_state *st);
void annotate_unwind(pps_state *st, uint32_t n_frames); /* leave regions of frames from there on */
pps_status model_enter(pps_state *st, const bc_proto *p, pps_span call);
pps_status model_leave(pps_state *st, const bc_proto *p, pps_span call);

/* ---- host.c ------------------------------------------------------------------------------------
 */
pps_status host_call_fn(pps_state *st, host_fn *h, const vm_args *args, value *ret);
bool vm_builtin(pps_state *st, const char *name, value *ret);

/* ---- param.c -----------------------------------------------------------------------------------
 */
/* Replace the default `v` of parameter `name` when the host set it. E0105. */
pps_status param_apply(pps_state *st, const char *name, value v, value *ret);
pps_status param_check_names(pps_state *st, const char *const *names, uint32_t n); /* E0110 */

#endif
