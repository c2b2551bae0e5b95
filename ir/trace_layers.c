/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_layers.c: the builtins of dense models: inputs, projections, norms, attention, activations.
 * Each checks its shapes and adds one op; attention() is the one composite.
 */
#include "ir/trace.h"

#include <inttypes.h>
#include <string.h>

/* ---- Inputs -------------------------------------------------------------------------------------
 */

static pps_status add_data(trace_call *c, ir_data_kind kind, uint32_t key, uint32_t n_dims,
                           const uint32_t *dims, pps_value *ret)
{
    uint64_t elems = 1;
    for (uint32_t i = 0; i < n_dims; i++)
        elems *= dims[i]; /* three factors below 2^21 once each check passed */
    if (c->status == PPS_OK && elems > (uint64_t)1 << 40)
        trace_arg_error(c, 0, 1003, "%s: one batch of more than 2^40 elements", c->name);
    if (c->status == PPS_OK)
        c->status = pps_charge(c->tr->st, 100);
    if (c->status != PPS_OK)
        return c->status;
    ir_id tensor;
    PPS_TRY(ir_add_data(&c->tr->graph, kind, key, n_dims, dims, pps_call_span(c->tr->st), &tensor));
    if (kind == IR_DATA_TOKENS)
        c->tr->tokens = trace_tensor(c->tr, tensor)->data;
    return trace_done(c, tensor, ret);
}

enum { MAX_DATA_DIM = 1 << 21 };

static uint32_t data_dim(trace_call *c, size_t arg, const char *what)
{
    return (uint32_t)trace_arg_int(c, arg, what, 1, MAX_DATA_DIM);
}

static pps_status fn_tokens(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                            pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("tokens");
    uint32_t dims[2] = {data_dim(&c, 0, "B"), data_dim(&c, 1, "T")};
    return add_data(&c, IR_DATA_TOKENS, 0, 2, dims, ret);
}

static pps_status fn_targets(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                             pps_value *ret)
{
    (void)argc;
    trace_call c = TRACE_CALL("targets");
    if (c.tr->tokens == IR_NONE) {
        pps_diag *d =
            pps_diag_start(st, PPS_SEV_ERROR, 1008, pps_call_span(st),
                           "targets() has the shape of the tokens, and there are none yet");
        pps_diag_help(d, "call tokens(B, T) first");
        return pps_diag_done(d);
    }
    uint32_t dims[2];
    memcpy(dims, c.tr->graph.data[c.tr->tokens].dims, sizeof dims);
    return add_data(&c, IR_DATA_TARGETS, 0, 2, dims, ret);
}

static pps_status fn_features(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                              pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("features");
    uint32_t dims[3] = {data_dim(&c, 0, "B"), data_dim(&c, 1, "T"), data_dim(&c, 2, "width")};
    uint32_t key = (uint32_t)trace_arg_int(&c, 3, "key", 0, UINT32_MAX);
    return add_data(&c, IR_DATA_FEATURES, key, 3, dims, ret);
}

/* ---- Embeddings and projections -----------------------------------------------------------------
 */

/* weight=: a parameter of shape [rows, width], or IR_NONE when nil. */
static ir_id arg_weight(trace_call *c, size_t arg, uint32_t rows, uint32_t width)
{
    if (!trace_arg_given(c, arg))
        return IR_NONE;
    ir_id id = trace_arg_handle(c, arg, TRACE_PARAM, "weight");
    if (c->status != PPS_OK)
        return IR_NONE;
    const ir_param *p = &c->tr->graph.params[id];
    if (p->n_dims == 2 && p->dims[0] == rows && p->dims[1] == width)
        return id;
    char shape[IR_SHAPE_TEXT];
    pps_diag *d = pps_diag_start(c->tr->st, PPS_SEV_ERROR, 1007, pps_arg_span(c->tr->st, arg),
                                 "%s: weight must have shape [%u, %u], '%s' has %s", c->name, rows,
                                 width, p->name, ir_shape_text(p->dims, p->n_dims, shape));
    pps_diag_also(d, p->span, "made here");
    c->status = pps_diag_done(d);
    return IR_NONE;
}

static pps_status fn_embed(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                           pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("embed");
    ir_id ids = trace_arg_ids(&c, 0, "ids");
    uint32_t dims[2] = {trace_arg_size(&c, 1, "vocab"), trace_arg_size(&c, 2, "dim")};
    const char *name = trace_arg_name(&c, 3);
    ir_id weight = arg_weight(&c, 4, dims[0], dims[1]);
    if (weight != IR_NONE && name)
        trace_arg_error(&c, 3, 1017, "embed: name has no effect beside weight");
    if (c.status == PPS_OK && weight == IR_NONE)
        weight = trace_param(&c, trace_base(&c, name, IR_EMBED), ".weight", IR_INIT_NORMAL, 0.02f,
                             2, dims, 0);
    trace_op op = {.kind = IR_EMBED,
                   .n_in = 1,
                   .n_param = 1,
                   .in = {ids},
                   .param = {weight},
                   .attrs = {.vocab = dims[0]},
                   .tagset = IR_NONE};
    return trace_done(&c, trace_output_like(&c, trace_emit(&c, &op), ids, dims[1]), ret);
}

static pps_status fn_position(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                              pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("position");
    uint32_t n;
    ir_id x = trace_arg_tensor(&c, 0, "x", &n);
    uint32_t dims[2] = {trace_arg_size(&c, 1, "context"), n};
    const char *name = trace_arg_name(&c, 2);
    if (c.status == PPS_OK && trace_tensor(c.tr, x)->dims[1] > dims[0])
        trace_arg_error(&c, 1, 1002, "position: x has %u positions, context is %u",
                        trace_tensor(c.tr, x)->dims[1], dims[0]);
    if (c.status != PPS_OK)
        return c.status;
    trace_op op = {.kind = IR_POSITION, .n_in = 1, .n_param = 1, .in = {x}, .tagset = IR_NONE};
    op.param[0] = trace_param(&c, trace_base(&c, name, IR_POSITION), ".weight", IR_INIT_NORMAL,
                              0.02f, 2, dims, 0);
    return trace_done(&c, trace_output_like(&c, trace_emit(&c, &op), x, n), ret);
}

static pps_status fn_linear(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                            pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("linear");
    uint32_t n_in;
    ir_id x = trace_arg_tensor(&c, 0, "x", &n_in);
    uint32_t n = trace_arg_size(&c, 1, "n");
    bool bias = trace_arg_bool(&c, 2, "bias");
    const char *name = trace_arg_name(&c, 3);
    ir_id weight = arg_weight(&c, 4, n, n_in);
    float std = trace_arg_given(&c, 5) ? (float)trace_arg_positive(&c, 5, "std") : 0.02f;
    if (weight != IR_NONE && trace_arg_given(&c, 5))
        trace_arg_error(&c, 5, 1017,
                        "linear: std has no effect beside weight; give it to parameter(...)");
    if (weight != IR_NONE && name && !bias)
        trace_arg_error(&c, 3, 1017, "linear: name has no effect beside weight without a bias");
    const char *base = weight == IR_NONE || bias ? trace_base(&c, name, IR_LINEAR) : NULL;
    return trace_done(&c, trace_linear(&c, x, n, bias, base, weight, std), ret);
}

static pps_status fn_parameter(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                               pps_value *ret)
{
    (void)argc;
    trace_call c = TRACE_CALL("parameter");
    const char *name =
        trace_arg_given(&c, 0) ? trace_arg_name(&c, 0) : trace_arg_string(&c, 0, "name");
    uint32_t dims[IR_MAX_DIMS];
    uint32_t n_dims = trace_arg_shape(&c, 1, argv[1], dims);
    const char *init = trace_arg_string(&c, 2, "init");
    double std = trace_arg_positive(&c, 3, "std");
    static const char *const inits[] = {
        [IR_INIT_NORMAL] = "normal", [IR_INIT_ZERO] = "zero", [IR_INIT_ONE] = "one"};
    int kind = 0;
    while (kind < 3 && strcmp(inits[kind], init) != 0)
        kind++;
    if (c.status == PPS_OK && kind == 3) {
        pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 1017, pps_arg_span(st, 2),
                                     "parameter: init is normal, zero or one, got '%s'", init);
        const char *meant = pps_did_you_mean(init, inits, 3);
        if (meant)
            pps_diag_help(d, "did you mean '%s'?", meant);
        return pps_diag_done(d);
    }
    if (c.status != PPS_OK)
        return c.status;
    ir_id id = trace_param(&c, name, "", (ir_init)kind, (float)std, n_dims, dims, 0);
    if (c.status == PPS_OK)
        *ret = trace_handle(c.tr, TRACE_PARAM, id);
    return c.status;
}

/* ---- Norms --------------------------------------------------------------------------------------
 */

/* `part` of the width must divide it. */
static void check_divides(trace_call *c, size_t arg, const char *what, uint32_t part,
                          uint32_t width)
{
    if (c->status == PPS_OK && width % part != 0)
        trace_arg_error(c, arg, 1004, "%s: width %u does not divide into parts of %s %u", c->name,
                        width, what, part);
}

static pps_status fn_rmsnorm(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                             pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("rmsnorm");
    uint32_t n;
    ir_id x = trace_arg_tensor(&c, 0, "x", &n);
    double eps = trace_arg_positive(&c, 1, "eps");
    const char *base = trace_base(&c, trace_arg_name(&c, 2), IR_RMSNORM);
    return trace_done(&c, trace_rmsnorm(&c, x, n, (float)eps, base), ret);
}

static pps_status fn_qk_norm(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                             pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("qk_norm");
    uint32_t n;
    ir_id x = trace_arg_tensor(&c, 0, "x", &n);
    uint32_t head_dim = trace_arg_size(&c, 1, "head_dim");
    check_divides(&c, 1, "head_dim", head_dim, n);
    double eps = trace_arg_positive(&c, 2, "eps");
    const char *base = trace_base(&c, trace_arg_name(&c, 3), IR_RMSNORM);
    return trace_done(&c, trace_rmsnorm(&c, x, head_dim, (float)eps, base), ret);
}

static pps_status fn_layernorm(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                               pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("layernorm");
    uint32_t n;
    ir_id x = trace_arg_tensor(&c, 0, "x", &n);
    trace_op op = {.kind = IR_LAYERNORM,
                   .n_in = 1,
                   .n_param = 2,
                   .in = {x},
                   .attrs = {.eps = (float)trace_arg_positive(&c, 1, "eps")},
                   .tagset = IR_NONE};
    const char *base = trace_base(&c, trace_arg_name(&c, 2), IR_LAYERNORM);
    if (c.status == PPS_OK)
        op.param[0] = trace_param(&c, base, ".weight", IR_INIT_ONE, 0, 1, &n, 0);
    if (c.status == PPS_OK)
        op.param[1] = trace_param(&c, base, ".bias", IR_INIT_ZERO, 0, 1, &n, 0);
    return trace_done(&c, trace_output_like(&c, trace_emit(&c, &op), x, n), ret);
}

/* ---- Attention ----------------------------------------------------------------------------------
 */

static void check_rope(trace_call *c, size_t arg, uint32_t head_dim)
{
    if (c->status == PPS_OK && head_dim % 2 != 0)
        trace_arg_error(c, arg, 1004, "%s: rotary embedding needs an even head_dim, got %u",
                        c->name, head_dim);
}

static pps_status fn_rope(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                          pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("rope");
    uint32_t n;
    ir_id x = trace_arg_tensor(&c, 0, "x", &n);
    uint32_t head_dim = trace_arg_size(&c, 1, "head_dim");
    check_rope(&c, 1, head_dim);
    check_divides(&c, 1, "head_dim", head_dim, n);
    double theta = trace_arg_positive(&c, 2, "theta");
    return trace_done(&c, trace_rope(&c, x, head_dim, (float)theta), ret);
}

/* Argument `arg` must have the batch and positions of `like`, and width `n` unless that is 0. */
static void check_like(trace_call *c, size_t arg, const char *what, ir_id x, const char *other,
                       ir_id like, uint32_t n)
{
    if (c->status != PPS_OK)
        return;
    const ir_tensor *a = trace_tensor(c->tr, x), *b = trace_tensor(c->tr, like);
    if (a->dims[0] == b->dims[0] && a->dims[1] == b->dims[1] && (n == 0 || a->dims[2] == n))
        return;
    uint32_t dims[3] = {b->dims[0], b->dims[1], n};
    char want[IR_SHAPE_TEXT], got[IR_SHAPE_TEXT];
    pps_diag *d = pps_diag_start(c->tr->st, PPS_SEV_ERROR, 1002, pps_arg_span(c->tr->st, arg),
                                 "%s: %s must have shape %s to go with %s, got %s", c->name, what,
                                 ir_shape_text(dims, n ? 3 : 2, want), other,
                                 ir_shape_text(a->dims, n ? 3 : 2, got));
    pps_diag_also(d, a->span, "%s is made here", what);
    pps_diag_also(d, b->span, "%s is made here", other);
    c->status = pps_diag_done(d);
}

static pps_status fn_attention_core(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                                    pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("attention_core");
    uint32_t n;
    ir_id q = trace_arg_tensor(&c, 0, "q", &n);
    ir_id k = trace_arg_tensor(&c, 1, "k", NULL);
    ir_id v = trace_arg_tensor(&c, 2, "v", NULL);
    uint32_t heads = trace_arg_size(&c, 3, "heads");
    uint32_t kv_heads = trace_arg_size_or(&c, 4, "kv_heads", heads);
    if (c.status == PPS_OK && n % heads != 0)
        trace_arg_error(&c, 3, 1004, "attention_core: width %u of q does not divide into %u heads",
                        n, heads);
    if (c.status == PPS_OK && heads % kv_heads != 0)
        trace_arg_error(&c, 4, 1004, "attention_core: %u heads do not divide over %u kv_heads",
                        heads, kv_heads);
    if (c.status != PPS_OK)
        return c.status;
    uint64_t kv_width = (uint64_t)(n / heads) * kv_heads;
    check_like(&c, 1, "k", k, "q", q, (uint32_t)kv_width);
    check_like(&c, 2, "v", v, "q", q, (uint32_t)kv_width);
    return trace_done(&c, trace_attention(&c, q, k, v, heads, kv_heads), ret);
}

static pps_status fn_attention(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                               pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("attention");
    uint32_t n;
    ir_id x = trace_arg_tensor(&c, 0, "x", &n);
    uint32_t heads = trace_arg_size(&c, 1, "heads");
    uint32_t kv_heads = trace_arg_size_or(&c, 2, "kv_heads", heads);
    uint32_t head_dim = trace_arg_size_or(&c, 3, "head_dim", n / heads);
    bool rotate = trace_arg_given(&c, 4);
    float theta = rotate ? (float)trace_arg_positive(&c, 4, "rope_theta") : 0;
    bool norm = trace_arg_bool(&c, 5, "qk_norm");
    float eps = (float)trace_arg_positive(&c, 6, "eps");
    const char *base = trace_base(&c, trace_arg_name(&c, 7), IR_OP_COUNT);
    if (c.status == PPS_OK && !trace_arg_given(&c, 3) && n % heads != 0)
        trace_arg_error(&c, 1, 1004, "attention: width %u does not divide into %u heads", n, heads);
    if (c.status == PPS_OK && heads % kv_heads != 0)
        trace_arg_error(&c, 2, 1004, "attention: %u heads do not divide over %u kv_heads", heads,
                        kv_heads);
    if (c.status == PPS_OK && (uint64_t)heads * head_dim > INT32_MAX)
        trace_arg_error(&c, 3, 1003, "attention: %u heads of %u are too wide", heads, head_dim);
    if (rotate)
        check_rope(&c, trace_arg_given(&c, 3) ? 3 : 1, head_dim);

    static const char *const parts[] = {".q", ".k", ".v"};
    ir_id qkv[3] = {0, 0, 0};
    for (int i = 0; i < 3; i++) {
        const char *at = trace_name(&c, base, parts[i]);
        uint32_t width = (i == 0 ? heads : kv_heads) * head_dim;
        qkv[i] = trace_linear(&c, x, width, false, trace_name(&c, at, "_proj"), IR_NONE, 0.02f);
        if (norm && i < 2)
            qkv[i] = trace_rmsnorm(&c, qkv[i], head_dim, eps, trace_name(&c, at, "_norm"));
        if (rotate && i < 2)
            qkv[i] = trace_rope(&c, qkv[i], head_dim, theta);
    }
    ir_id y = trace_attention(&c, qkv[0], qkv[1], qkv[2], heads, kv_heads);
    return trace_done(
        &c, trace_linear(&c, y, n, false, trace_name(&c, base, ".o_proj"), IR_NONE, 0.02f), ret);
}

/* ---- Elementwise --------------------------------------------------------------------------------
 */

static pps_status fn_gelu(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                          pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("gelu");
    uint32_t n;
    ir_id x = trace_arg_tensor(&c, 0, "x", &n);
    trace_op op = {.kind = IR_GELU, .n_in = 1, .in = {x}, .tagset = IR_NONE};
    return trace_done(&c, trace_output_like(&c, trace_emit(&c, &op), x, n), ret);
}

static pps_status fn_swiglu(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                            pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("swiglu");
    uint32_t n;
    ir_id a = trace_arg_tensor(&c, 0, "a", &n);
    ir_id b = trace_arg_tensor(&c, 1, "b", NULL);
    check_like(&c, 1, "b", b, "a", a, n);
    trace_op op = {.kind = IR_SWIGLU, .n_in = 2, .in = {a, b}, .tagset = IR_NONE};
    return trace_done(&c, trace_output_like(&c, trace_emit(&c, &op), a, n), ret);
}

static pps_status fn_slice(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                           pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("slice");
    uint32_t width;
    ir_id x = trace_arg_tensor(&c, 0, "x", &width);
    uint32_t begin = (uint32_t)trace_arg_int(&c, 1, "begin", 0, INT32_MAX);
    uint32_t n = trace_arg_size(&c, 2, "n");
    if (c.status == PPS_OK && (uint64_t)begin + n > width) {
        pps_diag *d = pps_diag_start(c.tr->st, PPS_SEV_ERROR, 1002, pps_arg_span(c.tr->st, 1),
                                     "slice: elements %u to %u of a width of %u", begin,
                                     begin + n - 1, width);
        pps_diag_also(d, trace_tensor(c.tr, x)->span, "x is made here");
        return pps_diag_done(d);
    }
    trace_op op = {
        .kind = IR_SLICE, .n_in = 1, .in = {x}, .attrs = {.begin = begin}, .tagset = IR_NONE};
    return trace_done(&c, trace_output_like(&c, trace_emit(&c, &op), x, n), ret);
}

pps_status trace_define_layers(tracer *tr)
{
    static const trace_builtin table[] = {
        {"tokens(B, T)", fn_tokens, "The global batch of token ids: ints [B, T]."},
        {"targets()", fn_targets, "The ids that follow the latest tokens(...): ints [B, T]."},
        {"features(B, T, width, key=0)", fn_features,
         "Numbers drawn from the seed, the same for equal keys: floats [B, T, width]."},
        {"embed(ids, vocab, dim, name=nil, weight=nil)", fn_embed,
         "A row of a table [vocab, dim] for each id."},
        {"position(x, context, name=nil)", fn_position,
         "x plus a learned row per position, from a table [context, width]."},
        {"linear(x, n, bias=false, name=nil, weight=nil, std=nil)", fn_linear,
         "x W^T, W [n, width]; `weight` shares a parameter(...)."},
        {"parameter(name, shape, init=\"normal\", std=0.02)", fn_parameter,
         "A parameter by its full name, for weight=. init: normal, zero, one."},
        {"rmsnorm(x, eps=1e-6, name=nil)", fn_rmsnorm, "RMSNorm over the width."},
        {"layernorm(x, eps=1e-5, name=nil)", fn_layernorm, "LayerNorm over the width."},
        {"qk_norm(x, head_dim, eps=1e-6, name=nil)", fn_qk_norm, "RMSNorm over each head."},
        {"rope(x, head_dim, theta=10000.0)", fn_rope, "Rotary embedding of each head."},
        {"attention_core(q, k, v, heads, kv_heads=nil)", fn_attention_core,
         "Causal grouped-query attention."},
        {"attention(x, heads, kv_heads=nil, head_dim=nil, rope_theta=nil, qk_norm=false, eps=1e-6, "
         "name=nil)",
         fn_attention, "Projections, optional norms and rotary embedding, attention, projection."},
        {"gelu(x)", fn_gelu, "GELU, tanh form."},
        {"swiglu(a, b)", fn_swiglu, "silu(a) * b."},
        {"slice(x, begin, n)", fn_slice, "Elements begin to begin + n of the width."},
    };
    return trace_define(tr, table, sizeof table / sizeof *table);
}
