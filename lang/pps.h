/* SPDX-License-Identifier: Apache-2.0
 *
 * pps.h: the interpreter as a library. Plain C11; compiles alone and as C++.
 *
 * A `pps_state` holds everything: no writable globals, so different states run fully in parallel;
 * one state is used by one thread at a time (`pps_interrupt` is the only exception).
 * Nothing here prints, exits, aborts or jumps over a host frame: every failure is a status, and the
 * diagnostics that explain it go to the `diag` hook and stay readable until the next evaluation.
 */
#ifndef PPS_H
#define PPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PPS_API __attribute__((visibility("default")))
#define PPS_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define PPS_API
#define PPS_PRINTF(f, a)
#endif

#define PPS_ABI 1

typedef struct pps_state pps_state;

typedef enum pps_status {
    PPS_OK = 0,
    PPS_ERR_SCRIPT,    /* the user's program or data is wrong; diagnostics say where */
    PPS_ERR_LIMIT,     /* steps, memory or depth used up */
    PPS_ERR_INTERRUPT, /* pps_interrupt was called */
    PPS_ERR_NOMEM,     /* the allocator failed */
    PPS_ERR_ARG,       /* the host called us wrongly */
    PPS_ERR_IO,        /* a file could not be read or written */
    PPS_ERR_COLL,      /* a peer rank was lost or communication failed */
    PPS_ERR_MACHINE,   /* the machine lacks something (memory, a library, a device) */
    PPS_ERR_INTERNAL,  /* our bug */
} pps_status;

#define PPS_TRY(call)                                                                              \
    do {                                                                                           \
        pps_status pps_try_status_ = (call);                                                       \
        if (pps_try_status_ != PPS_OK)                                                             \
            return pps_try_status_;                                                                \
    } while (0)

/* ---- Source positions ------------------------------------------------------------------------ */

/* A place in a source file, in bytes: [begin, end). File 0 means "no place". */
typedef struct pps_span {
    uint32_t file, begin, end;
} pps_span;

/* ---- Values ---------------------------------------------------------------------------------- */

typedef enum pps_type {
    PPS_NIL,
    PPS_BOOL,
    PPS_INT,
    PPS_FLOAT,
    PPS_PASS,   /* F, B, BI, BW as first-class values; calling one makes an op */
    PPS_OP,     /* one op with only PP, MB, PASS (and COMM): an immediate */
    PPS_STREAM, /* stream("pp"): an index into the state's stream table */
    PPS_HANDLE, /* a host object: a registered type and 64 bits of payload */
    /* heap objects from here on */
    PPS_STRING,
    PPS_RANGE,
    PPS_LIST,
    PPS_MAP,
    PPS_FILTER, /* immutable, interned; an op with further tags is a filter */
    PPS_GROUP,  /* ops that may overlap: a | b */
    PPS_FN,     /* script function or model, or host function */
    PPS_MODULE,
} pps_type;

/* 16 bytes. The low byte of `tag` is the pps_type; the other bits belong to lang/value.h.
 * Treat the contents as opaque and use the accessors. A heap value stays valid while the state can
 * reach it; a host that keeps one across evaluations holds it with pps_ref. */
typedef struct pps_value {
    uint64_t tag;
    union {
        int64_t i;
        double f;
        uint64_t bits;
        void *ptr;
    } as;
} pps_value;

typedef enum pps_pass { PPS_PASS_F, PPS_PASS_B, PPS_PASS_BI, PPS_PASS_BW, PPS_PASS_COUNT } pps_pass;
typedef enum pps_comm { PPS_COMM_NONE, PPS_COMM_SEND, PPS_COMM_RECV } pps_comm;

static inline pps_type pps_typeof(pps_value v)
{
    return (pps_type)(v.tag & 0xff);
}
PPS_API const char *pps_type_name(pps_type type); /* "int", "list", ... as messages say it */

PPS_API pps_value pps_nil(void);
PPS_API pps_value pps_bool(bool b);
PPS_API pps_value pps_int(int64_t i);
PPS_API pps_value pps_float(double f);
PPS_API pps_value pps_op(uint32_t stage, uint32_t mb, pps_pass pass, pps_comm comm);
/* Allocating constructors return nil-with-status through `ret`; PPS_ERR_NOMEM or PPS_ERR_LIMIT. */
PPS_API pps_status pps_string(pps_state *st, const char *bytes, size_t n, pps_value *ret);
PPS_API pps_status pps_list(pps_state *st, pps_value *ret); /* empty */
PPS_API pps_status pps_list_push(pps_state *st, pps_value list, pps_value item);
PPS_API pps_value pps_handle(uint32_t handle_type, uint64_t payload);

PPS_API bool pps_as_bool(pps_value v);      /* PPS_BOOL */
PPS_API int64_t pps_as_int(pps_value v);    /* PPS_INT */
PPS_API double pps_as_number(pps_value v);  /* PPS_INT or PPS_FLOAT */
PPS_API const char *pps_as_string(pps_value v, size_t *ret_n); /* NUL-terminated; borrowed */
PPS_API uint32_t pps_handle_type_of(pps_value v);
PPS_API uint64_t pps_handle_payload(pps_value v);
PPS_API uint32_t pps_op_stage(pps_value v);
PPS_API uint32_t pps_op_mb(pps_value v);
PPS_API pps_pass pps_op_pass(pps_value v); /* of a PPS_OP or PPS_PASS */
PPS_API pps_comm pps_op_comm(pps_value v);
/* Where this op was made: an origin id, 0 when unknown; see pps_origin_span. */
PPS_API uint32_t pps_op_origin(pps_value v);
PPS_API pps_span pps_origin_span(pps_state *st, uint32_t origin);

PPS_API size_t pps_len(pps_value v); /* list, map, group; strings in code points */
PPS_API pps_value pps_list_at(pps_value list, size_t i);
PPS_API pps_value pps_group_at(pps_value group, size_t i); /* an op or a filter */
PPS_API uint32_t pps_stream_index(pps_value v);

/* Filters. Terms are sorted by tag name. A PPS_OP can be read as a filter through the same calls. */
typedef enum pps_term_kind {
    PPS_TERM_ANY,    /* TAG: *   */
    PPS_TERM_ABSENT, /* TAG: -   */
    PPS_TERM_SET,    /* TAG: i, TAG: a..b, TAG: [i, j]: n_ints indices, ascending */
    PPS_TERM_PASS,   /* PASS: F  */
    PPS_TERM_COMM,   /* COMM: SEND */
} pps_term_kind;
typedef struct pps_term {
    const char *tag; /* interned by the state: compare by pointer within one state */
    pps_term_kind kind;
    pps_pass pass;       /* PPS_TERM_PASS */
    pps_comm comm;       /* PPS_TERM_COMM */
    const int64_t *ints; /* PPS_TERM_SET; borrowed from the filter (of an op: from *scratch) */
    size_t n_ints;
} pps_term;
#define PPS_MAX_TERMS 16
/* `v` is a PPS_FILTER, a PPS_OP, or the empty map (which means everything: 0 terms).
 * Returns the number of terms written to `terms`, or -1 when `v` is none of these.
 * `scratch` holds the indices of an op's terms. */
PPS_API int pps_filter_terms(pps_state *st, pps_value v, pps_term terms[PPS_MAX_TERMS],
                             int64_t scratch[2]);

/* Print `v` as source that parses back. Owned by the caller: release with pps_free_text. */
PPS_API pps_status pps_repr(pps_state *st, pps_value v, char **ret_text);
PPS_API void pps_free_text(pps_state *st, char *text);

/* ---- Directives ------------------------------------------------------------------------------ */

typedef enum pps_directive_kind {
#define DIRECTIVE(name, word) PPS_DIR_##name,
#define CLAUSE(directive, word, type, json)
#include "lang/clauses.def"
#undef DIRECTIVE
#undef CLAUSE
    PPS_DIR_COUNT
} pps_directive_kind;

#define PPS_MAX_CLAUSES 10
typedef struct pps_clause {
    const char *word; /* interned, as in clauses.def */
    pps_value value;  /* the values of `by`, `as`, `to` are bare names: strings here */
    pps_span word_span, span;
} pps_clause;

typedef struct pps_frame { /* a call under way, innermost first */
    const char *function;
    pps_span call;
} pps_frame;

/* One executed directive statement. Lives as long as the state. */
typedef struct pps_directive {
    pps_directive_kind kind;
    pps_span span;         /* the whole statement */
    pps_span subject_span; /* the expression after the keyword */
    pps_value subject;
    uint32_t n_clauses;
    pps_clause clauses[PPS_MAX_CLAUSES];
    uint32_t n_frames;
    const pps_frame *frames;
    const char *context; /* loop variables' values where it ran, "s = 0, r = 1", or "" */
} pps_directive;

PPS_API const char *pps_directive_word(pps_directive_kind kind);
PPS_API size_t pps_directive_count(pps_state *st);
PPS_API const pps_directive *pps_directive_at(pps_state *st, size_t i);
PPS_API const pps_clause *pps_directive_clause(const pps_directive *d, const char *word);

PPS_API size_t pps_stream_count(pps_state *st); /* streams made by stream("name") */
PPS_API const char *pps_stream_name(pps_state *st, uint32_t index);
PPS_API uint32_t pps_stream_ctas(pps_state *st, uint32_t index); /* ctas=n, 0: not said */

/* ---- Diagnostics ----------------------------------------------------------------------------- */

typedef enum pps_severity { PPS_SEV_ERROR, PPS_SEV_WARNING, PPS_SEV_NOTE } pps_severity;

/* A diagnostic as its hook sees it: `text` is the whole rendered message with source lines, carets,
 * notes and help; borrowed during the call. */
typedef void (*pps_diag_hook)(void *ud, pps_severity severity, int code, pps_span span,
                              const char *text);

/* Building one: start, attach, finish. Finishing returns PPS_ERR_SCRIPT for errors, so reporting and
 * leaving are one line. A started diagnostic must be finished. Never fails (short of memory it
 * degrades to the title). */
typedef struct pps_diag pps_diag;
PPS_API pps_diag *pps_diag_start(pps_state *st, pps_severity severity, int code, pps_span span,
                                 const char *title, ...) PPS_PRINTF(5, 6);
PPS_API void pps_diag_label(pps_diag *d, const char *text, ...) PPS_PRINTF(2, 3); /* at the caret */
PPS_API void pps_diag_also(pps_diag *d, pps_span span, const char *text, ...) PPS_PRINTF(3, 4);
PPS_API void pps_diag_note(pps_diag *d, const char *text, ...) PPS_PRINTF(2, 3);
PPS_API void pps_diag_help(pps_diag *d, const char *text, ...) PPS_PRINTF(2, 3); /* one at most */
PPS_API void pps_diag_frames(pps_diag *d, const pps_frame *frames, uint32_t n, const char *context);
PPS_API pps_status pps_diag_done(pps_diag *d);
/* All three in one: an error without attachments. */
PPS_API pps_status pps_error(pps_state *st, pps_span span, int code, const char *title, ...)
    PPS_PRINTF(4, 5);
PPS_API size_t pps_error_count(pps_state *st); /* since the last pps_clear_errors */
PPS_API void pps_clear_errors(pps_state *st);
/* "two.pps", 9, 10 of a span's begin; line and column from 1. */
PPS_API void pps_span_place(pps_state *st, pps_span span, const char **ret_file, uint32_t *ret_line,
                            uint32_t *ret_column);
/* Places in texts that are not here, as a compiled file names them: a file by its name alone, and in it
 * spans that stand for line and column ([0], [1], from 1; `end` as `begin`). Messages show them without
 * source lines. They live as long as the state. PPS_ERR_ARG for a file that has a text. */
PPS_API pps_status pps_source_named(pps_state *st, const char *name, uint32_t *ret_file);
PPS_API pps_status pps_source_place(pps_state *st, uint32_t file, const uint32_t begin[2],
                                    const uint32_t end[2], pps_span *ret);
/* The closest of `names` to `name` by edit distance <= 2 (case-folded), or NULL. */
PPS_API const char *pps_did_you_mean(const char *name, const char *const *names, size_t n);

/* ---- A state --------------------------------------------------------------------------------- */

typedef struct pps_source { /* what a loader returns */
    char *text;             /* malloc'ed by the loader; the state calls `release` when done */
    size_t bytes;
    char *resolved; /* canonical name, the key for "each module once"; same ownership */
    void (*release)(void *ud, struct pps_source *source);
} pps_source;

typedef struct pps_config {
    size_t size; /* sizeof(pps_config) */
    void *(*alloc)(void *ud, void *ptr, size_t old_bytes, size_t new_bytes); /* realloc-style */
    void *alloc_ud;
    void (*print)(void *ud, const char *text, size_t n);
    void *print_ud;
    pps_diag_hook diag;
    void *diag_ud;
    /* Module loading; without it no import works. `from` is the resolved name of the importing
     * module. On failure writes a reason into `reason` and returns PPS_ERR_IO or PPS_ERR_SCRIPT. */
    pps_status (*load)(void *ud, const char *from, const char *path, pps_source *ret,
                       char reason[256]);
    void *load_ud;
    uint64_t max_steps;   /* 0: unlimited */
    size_t max_bytes;     /* 0: unlimited */
    uint32_t max_depth;   /* 0: 1000 */
    uint32_t max_errors;  /* 0: 20 */
    bool color;           /* colour in rendered diagnostics */
} pps_config;

PPS_API pps_status pps_open(uint32_t abi, const pps_config *config, pps_state **ret);
PPS_API void pps_close(pps_state *st); /* NULL is fine */

/* Set a script parameter before pps_eval: `text` is parsed as a literal of the default's type. */
PPS_API pps_status pps_set_param(pps_state *st, const char *name, const char *text);

/* Run a whole script as the main module. `name` is shown in messages; `resolved` is the canonical
 * name handed to the loader as `from`. Unknown pps_set_param names are errors. */
PPS_API pps_status pps_eval(pps_state *st, const char *name, const char *resolved, const char *text,
                            size_t bytes);
/* Evaluate one expression in the scope of the main module; `use` names a module whose globals are in
 * scope too (NULL: none), e.g. "schedules". */
PPS_API pps_status pps_eval_expr(pps_state *st, const char *name, const char *text, size_t bytes,
                                 const char *use, pps_value *ret);
PPS_API pps_status pps_call(pps_state *st, pps_value fn, size_t argc, const pps_value *argv,
                            pps_value *ret);
PPS_API pps_status pps_global(pps_state *st, const char *name, pps_value *ret); /* main module's */
PPS_API void pps_interrupt(pps_state *st); /* from any thread or a signal handler */

typedef uint32_t pps_ref_id;
PPS_API pps_status pps_ref(pps_state *st, pps_value v, pps_ref_id *ret);
PPS_API pps_value pps_deref(pps_state *st, pps_ref_id ref);
PPS_API void pps_unref(pps_state *st, pps_ref_id ref);

/* ---- Host functions and types ---------------------------------------------------------------- */

/* `argv` has one value per parameter of the signature, defaults filled in; borrowed for the call.
 * Return PPS_OK and *ret, or a failure after pps_error(st, pps_call_span(st), ...).
 * Nothing is collected while a host function runs, so new values need no rooting. */
typedef pps_status (*pps_host_fn)(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                                  pps_value *ret);

/* `signature`: "linear(x, n, bias=false, name=nil)"; defaults are literals. `doc` is its help text.
 * "*values" takes all further positional arguments: its argv slot holds one list; parameters after it
 * go by name only. "**axes", last, takes all further named arguments: one map with string keys in
 * call order. pps_arg_span of such a slot is its first argument's. "print(*values)",
 * "min(*values, key=nil)", "mesh(**axes)".
 * `free_ud` (may be NULL) is called with `ud` when the state closes. Strings are copied. */
PPS_API pps_status pps_def(pps_state *st, const char *signature, pps_host_fn fn, void *ud,
                           void (*free_ud)(void *ud), const char *doc);
PPS_API pps_span pps_call_span(pps_state *st);            /* the call now running: f(...) */
PPS_API pps_span pps_arg_span(pps_state *st, size_t arg); /* its argument, or the call's span when defaulted */
PPS_API pps_status pps_charge(pps_state *st, uint64_t steps); /* work done by a long host function */

typedef struct pps_handle_ops {
    const char *name; /* "tensor": as type names appear in messages */
    /* `op` is the operator's spelling ("+", "|", ...); one of a, b is of this type. */
    pps_status (*binary)(pps_state *st, void *ud, const char *op, pps_value a, pps_value b,
                         pps_value *ret);
    pps_status (*field)(pps_state *st, void *ud, pps_value v, const char *name, pps_value *ret);
    pps_status (*call)(pps_state *st, void *ud, pps_value v, size_t argc, const pps_value *argv,
                       size_t n_named, const char *const *names, const pps_value *named,
                       pps_value *ret); /* NULL: not callable */
    void (*print)(pps_state *st, void *ud, pps_value v, char *buffer, size_t n);
} pps_handle_ops;
PPS_API pps_status pps_handle_register(pps_state *st, const pps_handle_ops *ops, void *ud,
                                       uint32_t *ret_type);

typedef struct pps_hooks {
    void *ud;
    /* A model call begins (enter) or ends; depth counts nested model calls, from 0. */
    pps_status (*on_model)(void *ud, pps_state *st, bool enter, uint32_t depth, const char *name,
                           pps_span span);
    /* A region begins or ends. Indices count per tag from 0, restarted by each outermost model call. */
    pps_status (*on_annotate)(void *ud, pps_state *st, bool enter, const char *tag, uint32_t index,
                              pps_span span);
    /* After a directive was recorded; a failure stops the script. */
    pps_status (*on_directive)(void *ud, pps_state *st, const pps_directive *directive);
} pps_hooks;
PPS_API void pps_set_hooks(pps_state *st, const pps_hooks *hooks);

/* The state's copy of `name`: equal strings give equal pointers; lives as long as the state. */
PPS_API const char *pps_intern(pps_state *st, const char *name);

#ifdef __cplusplus
}
#endif
#endif
