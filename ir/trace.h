/* SPDX-License-Identifier: Apache-2.0
 *
 * trace.h: what the tracing builtins share. Internal to ir.
 *
 * Handles carry an index: a tensor its ir_tensor, a parameter its ir_param, a route its ROUTER op,
 * expert rows their EXPERTS op; losses, data sources and optimizers an entry of the tables below.
 * The traced graph only grows, so a handle stays good as long as the state.
 *
 * A builtin reads its arguments through a trace_call, whose status is sticky: the first mistake is
 * reported at its argument, later reads return something harmless, and the builtin leaves with
 * call.status before it uses any of them.
 */
#ifndef PPS_IR_TRACE_H
#define PPS_IR_TRACE_H

#include "ir/build.h"
#include "ir/directive.h"

enum { TRACE_MAX_TAGS = PPS_MAX_TERMS, TRACE_MAX_DEPTH = 64 };

typedef enum trace_type {
    TRACE_TENSOR,
    TRACE_LOSS,
    TRACE_ROUTE,
    TRACE_ROWS,
    TRACE_PARAM,
    TRACE_DATA,
    TRACE_OPTIMIZER,
    TRACE_TYPE_COUNT
} trace_type;

typedef struct trace_loss { /* a sum of terms */
    ir_id *ops;
    uint32_t n;
} trace_loss;

typedef struct trace_source { /* what bytes() and token_file() return */
    ir_source_kind kind;
    const char *paths; /* NUL-separated, n of them */
    uint32_t n_paths;
    pps_span span;
} trace_source;

typedef struct trace_record { /* a directive taken apart when it ran: later changes of its lists are
                                 not its */
    const pps_directive *source;
    ir_directive directive;
    uint32_t rows, n_rows; /* order: in tracer.rows */
} trace_record;

typedef struct trace_scope { /* one outermost model call and what follows it */
    const char *model;       /* NULL before the first */
    pps_span span;
} trace_scope;

typedef struct name_slot { /* parameters of the running scope, by name */
    const char *name;      /* interned; NULL: free */
    ir_id param;
} name_slot;

typedef struct tracer {
    ir_program program; /* first: an ir_program handed out is its tracer */
    arena mem;
    pps_state *st;
    ir_graph graph;   /* everything traced */
    ir_graph trained; /* program.graph: what train's loss needs */
    uint32_t types[TRACE_TYPE_COUNT];

    struct {
        ir_tag tag;
        pps_span span;
    } open[TRACE_MAX_TAGS]; /* regions around the code now running */
    uint32_t n_open;
    ir_id tagset; /* of `open`; IR_NONE: to be looked up */

    trace_scope *scopes;
    uint32_t n_scopes, cap_scopes;
    name_slot *names; /* open addressing; emptied with each scope */
    uint32_t n_names, cap_names;
    uint32_t unnamed[IR_OP_COUNT + 1]; /* next number of each kind; the last: attention() */
    ir_id tokens;                      /* latest tokens(): in graph.data, or IR_NONE */

    trace_loss *losses;
    uint32_t n_losses, cap_losses;
    trace_source *sources;
    uint32_t n_sources, cap_sources;
    ir_optimizer *optimizers;
    uint32_t n_optimizers, cap_optimizers;

    trace_record *records;
    uint32_t n_records, cap_records;
    ir_row *rows; /* of records; program.rows are those of the directives that count */
    uint32_t n_rows, cap_rows;
} tracer;

/* ---- trace_args.c: reading arguments -----------------------------------------------------------
 */
typedef struct trace_call {
    tracer *tr;
    const char *name; /* of the builtin, for messages */
    const pps_value *argv;
    pps_status status;
} trace_call;
#define TRACE_CALL(builtin) ((trace_call){.tr = ud, .name = builtin, .argv = argv})

/* Report at argument `arg` and make the call fail. */
void trace_arg_error(trace_call *c, size_t arg, int code, const char *title, ...) PPS_PRINTF(4, 5);
bool trace_arg_given(const trace_call *c, size_t arg); /* not nil */
ir_id trace_arg_handle(trace_call *c, size_t arg, trace_type type, const char *what);
/* A float tensor [B, T, n]; its last dimension goes to *ret_n (may be NULL). */
ir_id trace_arg_tensor(trace_call *c, size_t arg, const char *what, uint32_t *ret_n);
ir_id trace_arg_ids(trace_call *c, size_t arg, const char *what); /* an int tensor [B, T] */
int64_t trace_arg_int(trace_call *c, size_t arg, const char *what, int64_t least, int64_t most);
uint32_t trace_arg_size(trace_call *c, size_t arg, const char *what); /* 1 to 2^31 - 1 */
uint32_t trace_arg_size_or(trace_call *c, size_t arg, const char *what, uint32_t when_nil);
bool trace_arg_bool(trace_call *c, size_t arg, const char *what);
double trace_arg_number(trace_call *c, size_t arg, const char *what); /* finite */
double trace_arg_positive(trace_call *c, size_t arg, const char *what);
const char *trace_arg_string(trace_call *c, size_t arg, const char *what); /* interned */
const char *trace_arg_name(trace_call *c,
                           size_t arg); /* of parameters: interned, not empty; NULL when nil */
/* Dimensions from a list of ints. Returns how many, 0 on failure. */
uint32_t trace_arg_shape(trace_call *c, size_t arg, pps_value shape, uint32_t dims[IR_MAX_DIMS]);
const char *trace_kind_name(tracer *tr, pps_value v); /* "int", "tensor", ... for messages */
bool trace_is(const tracer *tr, pps_value v, trace_type type);

/* ---- trace_emit.c: adding to the graph ----------------------------------------------------------
 */
pps_value trace_handle(const tracer *tr, trace_type type, uint32_t payload);
const ir_tensor *trace_tensor(const tracer *tr, ir_id id);
/* Leave a builtin: its status, and on success `tensor` as a handle in *ret. */
pps_status trace_done(const trace_call *c, ir_id tensor, pps_value *ret);
/* base + suffix, interned. */
const char *trace_name(trace_call *c, const char *base, const char *suffix);
/* "linear.3" for the fourth unnamed linear of this scope; interned. `kind` IR_OP_COUNT: attention.
 */
const char *trace_base(trace_call *c, const char *given, ir_op_kind kind);
/* The parameter `base` + `suffix` ([dims]); the scope's own when it has one of that name and shape.
 */
ir_id trace_param(trace_call *c, const char *base, const char *suffix, ir_init init, float std,
                  uint32_t n_dims, const uint32_t *dims, uint8_t flags);
typedef struct trace_op { /* an op to be added; outputs follow by trace_output */
    ir_op_kind kind;
    uint32_t n_in, n_param;
    ir_id in[IR_MAX_IN], param[IR_MAX_PARAM];
    ir_attrs attrs;
    ir_id tagset; /* IR_NONE: the open regions' */
} trace_op;
ir_id trace_emit(trace_call *c, const trace_op *op);
/* [B, T, n] like tensor `like`, or given dims. Return the tensor. */
ir_id trace_output(trace_call *c, ir_id op, ir_dtype dtype, uint8_t flags, uint32_t n_dims,
                   const uint32_t *dims);
ir_id trace_output_like(trace_call *c, ir_id op, ir_id like, uint32_t n);
/* x W^T (+ bias): the LINEAR op and its output. `weight` IR_NONE: made from base and std. */
ir_id trace_linear(trace_call *c, ir_id x, uint32_t n, bool bias, const char *base, ir_id weight,
                   float std);
ir_id trace_rmsnorm(trace_call *c, ir_id x, uint32_t group, float eps, const char *base);
ir_id trace_rope(trace_call *c, ir_id x, uint32_t head_dim, float theta);
ir_id trace_attention(trace_call *c, ir_id q, ir_id k, ir_id v, uint32_t heads, uint32_t kv_heads);

/* ---- the builtins ---------------------------------------------------------------------------- */
typedef struct trace_builtin {
    const char *signature;
    pps_host_fn fn; /* ud: the tracer */
    const char *doc;
} trace_builtin;
pps_status trace_define(tracer *tr, const trace_builtin *table, size_t n);
pps_status trace_define_layers(tracer *tr);  /* trace_layers.c */
pps_status trace_define_experts(tracer *tr); /* trace_experts.c */
pps_status trace_define_train(tracer *tr);   /* trace_train.c */
/* a + b of tensors or losses. */
pps_status trace_add(tracer *tr, pps_value a, pps_value b, pps_value *ret);

/* ---- trace.c -----------------------------------------------------------------------------------
 */
uint32_t trace_now(const tracer *tr); /* ir_op.trace of what is traced now */

/* ---- form.c: what directives say ----------------------------------------------------------------
 */
/* Start an error of a directive (may be NULL), with its frames and loop variables attached. */
pps_diag *form_diag(tracer *tr, const pps_directive *d, pps_span span, int code, const char *title,
                    ...) PPS_PRINTF(5, 6);
/* Take a directive that just ran apart into `ret`; form errors are reported. */
pps_status form_take(tracer *tr, const pps_directive *d, trace_record *ret);
/* A filter, an op or {} as terms. */
pps_status form_filter(tracer *tr, const pps_directive *d, pps_value v, pps_span span,
                       ir_filter *ret);
/* What `train` says; the loss as ids in tr->graph. */
pps_status form_train(tracer *tr, const pps_directive *d, ir_train *ret);

/* ---- form_rows.c --------------------------------------------------------------------------------
 */
/* Rows of a value, appended to tr->rows. */
pps_status form_rows(tracer *tr, const pps_directive *d, pps_value rows, uint32_t *ret_first,
                     uint32_t *ret_n);

/* ---- form_tags.c --------------------------------------------------------------------------------
 */
/* Every tag and index that directives and rows name exists in the trained graph: E0203, E0204. All
 * mistakes are reported. `scope` is the model call it came from. */
pps_status form_check_tags(tracer *tr, const trace_scope *scope);

#endif
