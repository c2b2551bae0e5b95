/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_experts.c: the builtins of mixtures of experts, and chunks whose compute a host supplies.
 *
 *   router       LINEAR (logits), ROUTER      -> route: gates, expert ids and row positions, counts
 *   experts_mlp  DISPATCH, EXPERTS            -> rows in expert order
 *   combine      COMBINE                      -> tensor
 *
 * DISPATCH and COMBINE lie in the router's regions wherever they are called: tokens are packed and
 * unpacked where they were routed, and only expert rows cross the border of the experts' region.
 */
#include "ir/trace.h"

#include <inttypes.h>
#include <string.h>

static pps_status fn_router(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                            pps_value *ret)
{
    (void)st, (void)argc;
    trace_call c = TRACE_CALL("router");
    ir_id x = trace_arg_tensor(&c, 0, "x", NULL);
    uint32_t experts = trace_arg_size(&c, 1, "experts");
    uint32_t top_k = trace_arg_size(&c, 2, "top_k");
    bool renorm = trace_arg_bool(&c, 3, "renorm");
    double aux = trace_arg_number(&c, 4, "aux_loss");
    const char *name = trace_arg_name(&c, 5);
    if (top_k > experts)
        trace_arg_error(&c, 2, 1002, "router: a token goes to top_k = %u of %u experts", top_k,
                        experts);
    if (aux < 0)
        trace_arg_error(&c, 4, 1003, "router: aux_loss must not be negative, got %g", aux);
    if (c.status != PPS_OK)
        return c.status;
    const ir_tensor *t = trace_tensor(c.tr, x);
    uint32_t B = t->dims[0], T = t->dims[1];
    if ((uint64_t)T * top_k > INT32_MAX)
        trace_arg_error(&c, 2, 1003, "router: %u positions to %u experts each are too many rows", T,
                        top_k);
    ir_id logits =
        trace_linear(&c, x, experts, false, trace_base(&c, name, IR_ROUTER), IR_NONE, 0.02f);
    trace_op op = {.kind = IR_ROUTER,
                   .n_in = 1,
                   .in = {logits},
                   .attrs = {.experts = experts,
                             .top_k = top_k,
                             .renorm = renorm,
                             .aux_coef = (float)aux,
                             .count = B},
                   .tagset = IR_NONE};
    ir_id id = trace_emit(&c, &op);
    const uint32_t route[3] = {B, T, 2 * top_k};
    trace_output_like(&c, id, x, top_k);
    trace_output(&c, id, IR_I32, IR_TENSOR_BATCH, 3, route);
    trace_output(&c, id, IR_I32, IR_TENSOR_COUNTS, 1, &experts);
    if (c.status == PPS_OK)
        *ret = trace_handle(c.tr, TRACE_ROUTE, id);
    return c.status;
}

static pps_status fn_experts_mlp(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                                 pps_value *ret)
{
    (void)argc;
    trace_call c = TRACE_CALL("experts_mlp");
    uint32_t n;
    ir_id x = trace_arg_tensor(&c, 0, "x", &n);
    ir_id route = trace_arg_handle(&c, 1, TRACE_ROUTE, "route");
    uint32_t hidden = trace_arg_size(&c, 2, "hidden");
    const char *base = trace_base(&c, trace_arg_name(&c, 3), IR_EXPERTS);
    if (c.status != PPS_OK)
        return c.status;
    const ir_op router = c.tr->graph.ops[route];
    const ir_tensor *t = trace_tensor(c.tr, x), *gates = trace_tensor(c.tr, router.out[0]);
    if (t->dims[0] != gates->dims[0] || t->dims[1] != gates->dims[1]) {
        pps_diag *d =
            pps_diag_start(st, PPS_SEV_ERROR, 1002, pps_arg_span(st, 0),
                           "experts_mlp: x is [%u, %u, ..], the route is for [%u, %u, ..]",
                           t->dims[0], t->dims[1], gates->dims[0], gates->dims[1]);
        pps_diag_also(d, router.span, "the route is made here");
        return pps_diag_done(d);
    }
    uint32_t experts = router.attrs.experts;
    const uint32_t rows[3] = {t->dims[0], t->dims[1] * router.attrs.top_k, n};
    ir_attrs attrs = {.experts = experts, .top_k = router.attrs.top_k, .hidden = hidden};

    trace_op dispatch = {.kind = IR_DISPATCH,
                         .n_in = 2,
                         .in = {x, router.out[1]},
                         .attrs = attrs,
                         .tagset = router.tagset};
    ir_id id = trace_emit(&c, &dispatch);
    ir_id packed = trace_output(&c, id, IR_F32, IR_TENSOR_BATCH | IR_TENSOR_ROWS, 3, rows);

    trace_op mlp = {.kind = IR_EXPERTS,
                    .n_in = 2,
                    .n_param = 3,
                    .in = {packed, router.out[2]},
                    .attrs = attrs,
                    .tagset = IR_NONE};
    static const char *const names[3] = {".gate_proj", ".up_proj", ".down_proj"};
    const uint32_t in_dims[3] = {experts, hidden, n}, out_dims[3] = {experts, n, hidden};
    for (int i = 0; i < 3; i++)
        mlp.param[i] = trace_param(&c, base, names[i], IR_INIT_NORMAL, 0.02f, 3,
                                   i < 2 ? in_dims : out_dims, IR_PARAM_EXPERT);
    id = trace_emit(&c, &mlp);
    trace_output(&c, id, IR_F32, IR_TENSOR_BATCH | IR_TENSOR_ROWS, 3, rows);
    if (c.status == PPS_OK)
        *ret = trace_handle(c.tr, TRACE_ROWS, id);
    return c.status;
}

static pps_status fn_combine(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                             pps_value *ret)
{
    (void)argc;
    trace_call c = TRACE_CALL("combine");
    ir_id rows = trace_arg_handle(&c, 0, TRACE_ROWS, "rows");
    ir_id route = trace_arg_handle(&c, 1, TRACE_ROUTE, "route");
    if (c.status != PPS_OK)
        return c.status;
    const ir_op mlp = c.tr->graph.ops[rows], router = c.tr->graph.ops[route];
    if (mlp.in[1] != router.out[2]) {
        pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 1013, pps_arg_span(st, 1),
                                     "combine: these rows were not sent along this route");
        pps_diag_also(d, mlp.span, "the rows are made here");
        pps_diag_also(d, router.span, "the route is made here");
        return pps_diag_done(d);
    }
    trace_op op = {.kind = IR_COMBINE,
                   .n_in = 3,
                   .in = {mlp.out[0], router.out[0], router.out[1]},
                   .attrs = {.experts = router.attrs.experts, .top_k = router.attrs.top_k},
                   .tagset = router.tagset};
    uint32_t n = trace_tensor(c.tr, mlp.out[0])->dims[2];
    return trace_done(&c, trace_output_like(&c, trace_emit(&c, &op), router.out[0], n), ret);
}

/* ---- Opaque -------------------------------------------------------------------------------------
 */

/* The list argument `arg`, of `least` to `most` items (nil is none); their number. */
static uint32_t arg_list(trace_call *c, size_t arg, const char *what, size_t least, size_t most)
{
    pps_value v = c->argv[arg];
    if (least == 0 && pps_typeof(v) == PPS_NIL)
        return 0;
    if (pps_typeof(v) != PPS_LIST) {
        trace_arg_error(c, arg, 1001, "%s: %s must be a list, got %s", c->name, what,
                        trace_kind_name(c->tr, v));
        return 0;
    }
    size_t n = pps_len(v);
    if (n < least || n > most) {
        trace_arg_error(c, arg, 1016, "%s: %s has %zu to %zu items, got %zu", c->name, what, least,
                        most, n);
        return 0;
    }
    return (uint32_t)n;
}

/* A list of handles of one type, as ids. */
static uint32_t arg_handles(trace_call *c, size_t arg, const char *what, trace_type type,
                            size_t least, size_t most, ir_id *ret)
{
    uint32_t n = arg_list(c, arg, what, least, most);
    for (uint32_t i = 0; c->status == PPS_OK && i < n; i++) {
        pps_value v = pps_list_at(c->argv[arg], i);
        if (trace_is(c->tr, v, type))
            ret[i] = (ir_id)pps_handle_payload(v);
        else
            trace_arg_error(c, arg, 1001, "%s: %s[%u] must be a %s, got %s", c->name, what, i,
                            type == TRACE_TENSOR ? "tensor" : "parameter",
                            trace_kind_name(c->tr, v));
    }
    return n;
}

static void arg_flops(trace_call *c, size_t arg, double flops[3])
{
    uint32_t n = trace_arg_given(c, arg) ? arg_list(c, arg, "flops", 3, 3) : 0;
    for (uint32_t i = 0; c->status == PPS_OK && i < n; i++) {
        pps_value v = pps_list_at(c->argv[arg], i);
        bool number = pps_typeof(v) == PPS_INT || pps_typeof(v) == PPS_FLOAT;
        flops[i] = number ? pps_as_number(v) : -1;
        if (!(flops[i] >= 0 && flops[i] < 1e30))
            trace_arg_error(c, arg, 1003, "opaque: flops is [F, BI, BW], numbers from 0");
    }
}

/* The host sees whole batch rows: inputs and outputs have one batch as first dimension. */
static void check_batch(trace_call *c, size_t arg, const char *what, uint32_t i, uint32_t got,
                        uint32_t B)
{
    if (c->status == PPS_OK && got != B)
        trace_arg_error(c, arg, 1002, "opaque: %s[%u] has %u rows, inputs[0] has a batch of %u",
                        what, i, got, B);
}

static pps_status fn_opaque(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                            pps_value *ret)
{
    (void)argc;
    trace_call c = TRACE_CALL("opaque");
    trace_op op = {.kind = IR_OPAQUE, .tagset = IR_NONE};
    op.attrs.host = trace_arg_string(&c, 0, "name");
    op.n_in = arg_handles(&c, 1, "inputs", TRACE_TENSOR, 1, IR_MAX_IN, op.in);
    uint32_t n_out = arg_list(&c, 2, "outputs", 1, IR_MAX_OUT);
    op.n_param = arg_handles(&c, 3, "params", TRACE_PARAM, 0, IR_MAX_PARAM, op.param);
    op.attrs.save_bytes = (uint64_t)trace_arg_int(&c, 4, "save", 0, (int64_t)1 << 50);
    op.attrs.hold_bytes = (uint64_t)trace_arg_int(&c, 5, "hold", 0, (int64_t)1 << 50);
    arg_flops(&c, 6, op.attrs.flops);
    if (c.status != PPS_OK)
        return c.status;

    uint32_t B = trace_tensor(c.tr, op.in[0])->dims[0];
    for (uint32_t i = 0; i < op.n_in; i++) {
        const ir_tensor *t = trace_tensor(c.tr, op.in[i]);
        check_batch(&c, 1, "inputs", i, t->flags & IR_TENSOR_BATCH ? t->dims[0] : 0, B);
    }
    uint32_t dims[IR_MAX_OUT][IR_MAX_DIMS], n_dims[IR_MAX_OUT];
    for (uint32_t i = 0; i < n_out && c.status == PPS_OK; i++) {
        n_dims[i] = trace_arg_shape(&c, 2, pps_list_at(argv[2], i), dims[i]);
        check_batch(&c, 2, "outputs", i, n_dims[i] ? dims[i][0] : B, B);
    }
    ir_id id = trace_emit(&c, &op);
    ir_id outputs[IR_MAX_OUT];
    for (uint32_t i = 0; i < n_out && c.status == PPS_OK; i++)
        outputs[i] = trace_output(&c, id, IR_F32, IR_TENSOR_BATCH, n_dims[i], dims[i]);
    if (c.status != PPS_OK || n_out == 1)
        return trace_done(&c, outputs[0], ret);
    PPS_TRY(pps_list(st, ret));
    for (uint32_t i = 0; i < n_out; i++)
        PPS_TRY(pps_list_push(st, *ret, trace_handle(c.tr, TRACE_TENSOR, outputs[i])));
    return PPS_OK;
}

pps_status trace_define_experts(tracer *tr)
{
    static const trace_builtin table[] = {
        {"router(x, experts, top_k, renorm=true, aux_loss=0.0, name=nil)", fn_router,
         "Send each token to its top_k experts: a route, for experts_mlp and combine."},
        {"experts_mlp(x, route, hidden, name=nil)", fn_experts_mlp,
         "SwiGLU experts on the rows routed to them: expert rows, for combine."},
        {"combine(rows, route)", fn_combine, "Expert rows back at their tokens, summed by gate."},
        {"opaque(name, inputs, outputs, params=nil, save=0, hold=0, flops=nil)", fn_opaque,
         "Compute that the host supplies under `name`: outputs is a list of shapes [B, ..]; save "
         "and "
         "hold are bytes kept from F and from BI; flops is [F, BI, BW]; all per global batch."},
    };
    return trace_define(tr, table, sizeof table / sizeof *table);
}
