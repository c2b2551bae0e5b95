/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_train.c: the builtins around training: losses and their sums, data sources, optimizers.
 */
#include "ir/trace.h"

#include <inttypes.h>
#include <string.h>

/* ---- Losses -------------------------------------------------------------------------------------
 */

static pps_status new_loss(tracer *tr, const ir_id *ops, uint32_t n, pps_value *ret)
{
    ir_id *copy = arena_new(&tr->mem, n * sizeof *copy);
    if (!copy)
        return PPS_ERR_NOMEM;
    memcpy(copy, ops, n * sizeof *copy);
    PPS_TRY(IR_GROW(&tr->mem, tr, losses));
    tr->losses[tr->n_losses] = (trace_loss){copy, n};
    *ret = trace_handle(tr, TRACE_LOSS, tr->n_losses++);
    return PPS_OK;
}

/* Report that `b` must have the shape of `a`, at argument `arg`. */
static void shape_error(trace_call *c, size_t arg, const char *what, const ir_tensor *b,
                        const char *other, const ir_tensor *a, uint32_t n_dims)
{
    char want[IR_SHAPE_TEXT], got[IR_SHAPE_TEXT];
    pps_diag *d = pps_diag_start(c->tr->st, PPS_SEV_ERROR, 1002, pps_arg_span(c->tr->st, arg),
                                 "%s: %s must have shape %s to go with %s, got %s", c->name, what,
                                 ir_shape_text(a->dims, n_dims, want), other,
                                 ir_shape_text(b->dims, b->n_dims, got));
    pps_diag_also(d, b->span, "%s is made here", what);
    pps_diag_also(d, a->span, "%s is made here", other);
    c->status = pps_diag_done(d);
}

static pps_status fn_cross_entropy(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                                   pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("cross_entropy");
    uint32_t n;
    ir_id logits = trace_arg_tensor(&c, 0, "logits", &n);
    ir_id targets = trace_arg_ids(&c, 1, "targets");
    uint32_t vocab = trace_arg_size_or(&c, 2, "vocab", n);
    if (c.status == PPS_OK && vocab > n)
        trace_arg_error(&c, 2, 1002, "cross_entropy: vocab is %u, logits have %u columns", vocab,
                        n);
    if (c.status != PPS_OK)
        return c.status;
    const ir_tensor *a = trace_tensor(c.tr, logits), *b = trace_tensor(c.tr, targets);
    if (a->dims[0] != b->dims[0] || a->dims[1] != b->dims[1])
        shape_error(&c, 1, "targets", b, "logits", a, 2);
    trace_op op = {.kind = IR_CROSS_ENTROPY,
                   .n_in = 2,
                   .in = {logits, targets},
                   .attrs = {.vocab = vocab, .count = (double)a->dims[0] * a->dims[1]},
                   .tagset = IR_NONE};
    ir_id id = trace_emit(&c, &op);
    return c.status == PPS_OK ? new_loss(c.tr, &id, 1, ret) : c.status;
}

static pps_status fn_mse(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                         pps_value *ret)
{
    (void)argc;
    trace_call c = TRACE_CALL("mse");
    ir_id x = trace_arg_tensor(&c, 0, "x", NULL);
    ir_id y = trace_arg_tensor(&c, 1, "y", NULL);
    if (c.status != PPS_OK)
        return c.status;
    const ir_tensor *a = trace_tensor(c.tr, x), *b = trace_tensor(c.tr, y);
    if (memcmp(a->dims, b->dims, sizeof a->dims) != 0)
        shape_error(&c, 1, "y", b, "x", a, 3);
    else if (b->flags & IR_TENSOR_GRAD) {
        pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 1019, pps_arg_span(st, 1),
                                     "mse: y must be data, this is computed from parameters");
        pps_diag_also(d, b->span, "made here");
        pps_diag_note(d, "gradients flow through x only");
        c.status = pps_diag_done(d);
    }
    trace_op op = {.kind = IR_MSE,
                   .n_in = 2,
                   .in = {x, y},
                   .attrs = {.count = (double)a->dims[0] * a->dims[1] * a->dims[2]},
                   .tagset = IR_NONE};
    ir_id id = trace_emit(&c, &op);
    return c.status == PPS_OK ? new_loss(c.tr, &id, 1, ret) : c.status;
}

/* ---- Operators ----------------------------------------------------------------------------------
 */

static pps_status add_losses(tracer *tr, const trace_loss *a, const trace_loss *b, pps_value *ret)
{
    ir_id *ops = arena_new(&tr->mem, (size_t)(a->n + b->n) * sizeof *ops);
    if (!ops)
        return PPS_ERR_NOMEM;
    memcpy(ops, a->ops, a->n * sizeof *ops);
    memcpy(ops + a->n, b->ops, b->n * sizeof *ops);
    PPS_TRY(pps_charge(tr->st, (uint64_t)a->n * b->n));
    for (uint32_t i = 0; i < a->n; i++)
        for (uint32_t k = 0; k < b->n; k++)
            if (a->ops[i] == b->ops[k]) {
                pps_diag *d = pps_diag_start(tr->st, PPS_SEV_ERROR, 1012, pps_call_span(tr->st),
                                             "this loss is already part of the sum");
                pps_diag_also(d, tr->graph.ops[a->ops[i]].span, "it is made here");
                return pps_diag_done(d);
            }
    return new_loss(tr, ops, a->n + b->n, ret);
}

static pps_status add_tensors(tracer *tr, ir_id a, ir_id b, pps_value *ret)
{
    const ir_tensor *ta = trace_tensor(tr, a), *tb = trace_tensor(tr, b);
    bool same = ta->n_dims == tb->n_dims && ta->dtype == IR_F32 && tb->dtype == IR_F32 &&
                memcmp(ta->dims, tb->dims, ta->n_dims * sizeof *ta->dims) == 0;
    if (!same || ta->n_dims != 3) {
        char first[IR_SHAPE_TEXT], second[IR_SHAPE_TEXT];
        ir_shape_text(ta->dims, ta->n_dims, first);
        ir_shape_text(tb->dims, tb->n_dims, second);
        bool ints = ta->dtype == IR_I32 || tb->dtype == IR_I32;
        pps_diag *d = ints
                          ? pps_diag_start(tr->st, PPS_SEV_ERROR, 1005, pps_call_span(tr->st),
                                           "tensors of ints cannot be added")
                          : pps_diag_start(tr->st, PPS_SEV_ERROR, 1002, pps_call_span(tr->st),
                                           "cannot add tensors of shapes %s and %s", first, second);
        pps_diag_also(d, ta->span, "the left one, %s, is made here", first);
        pps_diag_also(d, tb->span, "the right one, %s, is made here", second);
        return pps_diag_done(d);
    }
    uint32_t n = ta->dims[2];
    trace_call c = {.tr = tr, .name = "+"};
    trace_op op = {.kind = IR_ADD, .n_in = 2, .in = {a, b}, .tagset = IR_NONE};
    return trace_done(&c, trace_output_like(&c, trace_emit(&c, &op), a, n), ret);
}

static bool is_zero(pps_value v)
{
    return (pps_typeof(v) == PPS_INT || pps_typeof(v) == PPS_FLOAT) && pps_as_number(v) == 0;
}

pps_status trace_add(tracer *tr, pps_value a, pps_value b, pps_value *ret)
{
    if (trace_is(tr, a, TRACE_TENSOR) && trace_is(tr, b, TRACE_TENSOR))
        return add_tensors(tr, (ir_id)pps_handle_payload(a), (ir_id)pps_handle_payload(b), ret);
    bool loss_a = trace_is(tr, a, TRACE_LOSS), loss_b = trace_is(tr, b, TRACE_LOSS);
    if (loss_a && loss_b) {
        const trace_loss la = tr->losses[pps_handle_payload(a)];
        const trace_loss lb = tr->losses[pps_handle_payload(b)];
        return add_losses(tr, &la, &lb, ret);
    }
    if ((loss_a && is_zero(b)) || (loss_b && is_zero(a))) { /* sum([..]) starts from 0 */
        *ret = loss_a ? a : b;
        return PPS_OK;
    }
    return pps_error(tr->st, pps_call_span(tr->st), 1009, "cannot add %s and %s",
                     trace_kind_name(tr, a), trace_kind_name(tr, b));
}

/* ---- Data ---------------------------------------------------------------------------------------
 */

static pps_status new_source(trace_call *c, ir_source_kind kind, const char *paths, uint32_t n,
                             pps_value *ret)
{
    tracer *tr = c->tr;
    PPS_TRY(IR_GROW(&tr->mem, tr, sources));
    tr->sources[tr->n_sources] = (trace_source){kind, paths, n, pps_call_span(tr->st)};
    *ret = trace_handle(tr, TRACE_DATA, tr->n_sources++);
    return PPS_OK;
}

static const char *path_text(trace_call *c, pps_value v)
{
    if (pps_typeof(v) != PPS_STRING) {
        trace_arg_error(c, 0, 1001, "%s: a path is a string, got %s", c->name,
                        trace_kind_name(c->tr, v));
        return NULL;
    }
    size_t n;
    const char *text = pps_as_string(v, &n);
    if (n == 0 || strlen(text) != n) {
        trace_arg_error(c, 0, 1017, "%s: %s", c->name,
                        n ? "a path cannot contain a NUL character" : "a path cannot be empty");
        return NULL;
    }
    return text;
}

/* One path or a list of them, one after the other. */
static pps_status fn_bytes(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                           pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("bytes");
    bool is_list = pps_typeof(argv[0]) == PPS_LIST;
    size_t n = is_list ? pps_len(argv[0]) : 1;
    if (n == 0 || n > 1 << 20)
        trace_arg_error(&c, 0, 1017, "bytes: needs 1 to 2^20 paths, got %zu", n);
    size_t bytes = 1;
    for (size_t i = 0; i < n && c.status == PPS_OK; i++) {
        const char *path = path_text(&c, is_list ? pps_list_at(argv[0], i) : argv[0]);
        bytes += path ? strlen(path) + 1 : 0;
    }
    char *paths = c.status == PPS_OK ? arena_new(&c.tr->mem, bytes) : NULL;
    if (!paths)
        return c.status == PPS_OK ? PPS_ERR_NOMEM : c.status;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const char *path = pps_as_string(is_list ? pps_list_at(argv[0], i) : argv[0], NULL);
        memcpy(paths + at, path, strlen(path) + 1);
        at += strlen(path) + 1;
    }
    paths[at] = '\0';
    return new_source(&c, IR_SOURCE_BYTES, paths, (uint32_t)n, ret);
}

static pps_status fn_token_file(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                                pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("token_file");
    const char *path = path_text(&c, argv[0]);
    if (!path)
        return c.status;
    char *copy = arena_copy(&c.tr->mem, path, strlen(path));
    return copy ? new_source(&c, IR_SOURCE_TOKENS, copy, 1, ret) : PPS_ERR_NOMEM;
}

/* ---- Optimizers ---------------------------------------------------------------------------------
 */

static float arg_range(trace_call *c, size_t arg, const char *what, double below)
{
    double v = trace_arg_number(c, arg, what);
    if (v < 0 || v >= below)
        trace_arg_error(c, arg, 1003, "%s: %s must be at least 0 and less than %g, got %g", c->name,
                        what, below, v);
    return (float)v;
}

static pps_status new_optimizer(trace_call *c, const ir_optimizer *o, pps_value *ret)
{
    if (c->status != PPS_OK)
        return c->status;
    tracer *tr = c->tr;
    PPS_TRY(IR_GROW(&tr->mem, tr, optimizers));
    tr->optimizers[tr->n_optimizers] = *o;
    *ret = trace_handle(tr, TRACE_OPTIMIZER, tr->n_optimizers++);
    return PPS_OK;
}

static pps_status fn_adamw(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                           pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("adamw");
    ir_optimizer o = {.kind = IR_OPT_ADAMW};
    o.lr = arg_range(&c, 0, "lr", 1e9);
    o.beta1 = arg_range(&c, 1, "beta1", 1);
    o.beta2 = arg_range(&c, 2, "beta2", 1);
    o.eps = (float)trace_arg_positive(&c, 3, "eps");
    o.weight_decay = arg_range(&c, 4, "weight_decay", 1e9);
    const char *decay = trace_arg_string(&c, 5, "decay");
    o.decay_all = strcmp(decay, "all") == 0;
    if (!o.decay_all && strcmp(decay, "matrices") != 0)
        trace_arg_error(&c, 5, 1017, "adamw: decay is \"matrices\" or \"all\", got \"%s\"", decay);
    return new_optimizer(&c, &o, ret);
}

static pps_status fn_sgd(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                         pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("sgd");
    ir_optimizer o = {.kind = IR_OPT_SGD};
    o.lr = arg_range(&c, 0, "lr", 1e9);
    o.momentum = arg_range(&c, 1, "momentum", 1);
    return new_optimizer(&c, &o, ret);
}

pps_status trace_define_train(tracer *tr)
{
    static const trace_builtin table[] = {
        {"cross_entropy(logits, targets, vocab=nil)", fn_cross_entropy,
         "Mean cross-entropy over all positions; columns from `vocab` on are padding."},
        {"mse(x, y)", fn_mse, "Mean squared difference from data y."},
        {"bytes(path_or_paths)", fn_bytes,
         "Data for train: the bytes of a file, or of several after each other, as token ids."},
        {"token_file(path)", fn_token_file, "Data for train: a token file in llm.c's format."},
        {"adamw(lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decay=\"matrices\")",
         fn_adamw, "AdamW; decay \"matrices\" leaves out one-dimensional parameters."},
        {"sgd(lr, momentum=0.0)", fn_sgd, "Gradient descent."},
    };
    return trace_define(tr, table, sizeof table / sizeof *table);
}
