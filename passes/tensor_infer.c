/* SPDX-License-Identifier: Apache-2.0
 *
 * tensor_infer.c: forms of tensors and modes of ops inside tensor-parallel regions and around them.
 *
 *   x whole -> LINEAR columns -> split -> attention, SwiGLU, .. -> LINEAR rows -> partial
 *              gradient: a part <-                                  gradient: whole
 *
 * Four walks over the ops, each linear:
 *   1. backward: which tensors may be split: every use works on a part of the last dimension, up to
 *      an op that ends the split (LINEAR rows, CROSS_ENTROPY);
 *   2. forward: modes, forms, and what each use needs;
 *   3. backward: which gradients are parts of sums. Inside regions such a gradient goes on through
 *      ops that are linear in it; it is summed at the region's border, and before norms;
 *   4. forward: parameters.
 *
 * What turns one form into another is regions.c's.
 */
#include "passes/tensor.h"

#include <string.h>

static bool in_region(const tensor_layout *l, ir_id op)
{
    return l->region[op] != IR_NONE;
}

static bool shares_positions(const tensor_layout *l, ir_id op)
{
    return l->home[op] != IR_NONE && l->cx->program->directives[l->home[op]].sequence;
}

static uint32_t width_of(const tensor_layout *l, ir_id tensor)
{
    const ir_tensor *t = &l->graph->tensors[tensor];
    return t->dims[t->n_dims - 1];
}

static uint8_t form_of(const tensor_layout *l, ir_id tensor)
{
    return l->form[ir_made(l->graph, tensor)];
}

static bool per_head(const tensor_layout *l, const ir_op *op)
{
    return op->kind == IR_RMSNORM && op->attrs.group < width_of(l, op->in[0]);
}

static pps_status no_division(tensor_layout *l, ir_id op, uint32_t n, const char *what)
{
    pass_cx *cx = l->cx;
    const ir_directive *s = &cx->program->directives[l->home[op]];
    pps_diag *diag = pass_diag(cx, s, s->devices.span, 434, "%u %s do not divide over %u devices",
                               n, what, tensor_team(cx, l->home[op]));
    pps_diag_also(diag, l->graph->ops[op].span, "the %s", what);
    return pps_diag_done(diag);
}

static bool divides(const tensor_layout *l, ir_id op, uint32_t n)
{
    return n % tensor_team(l->cx, l->home[op]) == 0;
}

/* ---- 1. what may be split ----------------------------------------------------------------------
 */

/* Does the op, in a region, work on a part of input k's last dimension? */
static bool takes_split(const tensor_layout *l, const ir_op *op, uint32_t k, const uint8_t *may)
{
    switch ((ir_op_kind)op->kind) {
    case IR_LINEAR:
        return true;
    case IR_CROSS_ENTROPY:
        return k == 0;
    case IR_RMSNORM:
        return per_head(l, op) && may[op->out[0]];
    case IR_ROPE:
    case IR_ATTENTION:
    case IR_ATTENTION_PART:
    case IR_ATTENTION_END:
    case IR_GELU:
    case IR_SWIGLU:
    case IR_SLICE:
        return may[op->out[0]];
    case IR_EMBED:
    case IR_POSITION:
    case IR_LAYERNORM:
    case IR_ADD:
    case IR_ROUTER:
    case IR_DISPATCH:
    case IR_EXPERTS:
    case IR_COMBINE:
    case IR_CROSS_ENTROPY_PART:
    case IR_CROSS_ENTROPY_MERGE:
    case IR_MSE:
    case IR_OPAQUE:
    case IR_ATTENTION_SLICE: /* layout makes it of ATTENTION */
    case IR_OP_COUNT:
        break;
    }
    return false;
}

/* may[t]: all uses of t, at least one, are in its region and take it split. blocks[t]: the width of
 * the slices that all uses take, 0: no slices. */
static void find_splits(tensor_layout *l, uint8_t *may, uint32_t *slices)
{
    const ir_graph *g = l->graph;
    enum { UNUSED = 2 };
    memset(may, UNUSED, g->n_tensors);
    for (ir_id id = g->n_ops; id-- > 0;) {
        const ir_op *op = &g->ops[id];
        for (uint32_t k = 0; k < op->n_out; k++)
            may[op->out[k]] = may[op->out[k]] == 1;
        for (uint32_t k = 0; k < op->n_in; k++) {
            ir_id t = ir_made(g, op->in[k]), from = g->tensors[t].op;
            bool yes = in_region(l, id) && from != IR_NONE && in_region(l, from) &&
                       l->home[from] == l->home[id] && takes_split(l, op, k, may);
            uint32_t slice = op->kind == IR_SLICE ? width_of(l, op->out[0]) : 0;
            if (may[t] != UNUSED && slices[t] != slice)
                yes = false; /* uses that see the outputs differently */
            if (slice > 0 && (op->attrs.begin % slice != 0 || width_of(l, t) % slice != 0))
                yes = false;
            slices[t] = slice;
            may[t] = may[t] == UNUSED ? yes : may[t] && yes;
        }
    }
}

/* ---- 2. modes and forms ------------------------------------------------------------------------
 */

static void use_all(tensor_layout *l, ir_id id, tensor_form form)
{
    for (uint32_t k = 0; k < l->graph->ops[id].n_in; k++)
        l->uses[id][k].form = (uint8_t)form;
}

static void make_all(tensor_layout *l, ir_id id, tensor_form form)
{
    const ir_op *op = &l->graph->ops[id];
    for (uint32_t k = 0; k < op->n_out; k++)
        l->form[op->out[k]] = (uint8_t)form;
}

/* An op that treats every position alone: on the positions its inputs have. */
static void by_position(tensor_layout *l, ir_id id)
{
    const ir_op *op = &l->graph->ops[id];
    tensor_form form = TENSOR_WHOLE;
    for (uint32_t k = 0; k < op->n_in && shares_positions(l, id); k++) {
        uint8_t in = form_of(l, op->in[k]);
        if (in == TENSOR_SHARED || in == TENSOR_PARTIAL)
            form = TENSOR_SHARED;
    }
    use_all(l, id, form);
    make_all(l, id, form);
}

static pps_status linear(tensor_layout *l, ir_id id, const uint8_t *may, const uint32_t *slices)
{
    const ir_op *op = &l->graph->ops[id];
    uint32_t n_in = width_of(l, op->in[0]), n_out = width_of(l, op->out[0]);
    if (form_of(l, op->in[0]) == TENSOR_SPLIT) {
        if (!divides(l, id, n_in))
            return no_division(l, id, n_in, "inputs of a linear layer");
        l->mode[id] = TENSOR_ROWS;
        l->shared[id] = op->param[1] != IR_NONE;
        use_all(l, id, TENSOR_SPLIT);
        make_all(l, id, TENSOR_PARTIAL);
    } else if (in_region(l, id) && may[op->out[0]]) {
        uint32_t slice = slices[op->out[0]];
        l->blocks[id] = slice > 0 ? n_out / slice : 1;
        if (!divides(l, id, n_out / l->blocks[id]))
            return no_division(l, id, n_out / l->blocks[id], "outputs of a linear layer");
        l->mode[id] = TENSOR_COLUMNS;
        use_all(l, id, TENSOR_WHOLE);
        make_all(l, id, TENSOR_SPLIT);
    } else if (in_region(l, id)) {
        use_all(l, id, TENSOR_WHOLE);
        make_all(l, id, TENSOR_WHOLE);
    } else {
        by_position(l, id);
    }
    return PPS_OK;
}

static pps_status attention(tensor_layout *l, ir_id id)
{
    const ir_op *op = &l->graph->ops[id];
    pass_cx *cx = l->cx;
    uint32_t n_split = 0;
    for (uint32_t k = 0; k < op->n_in; k++)
        n_split += form_of(l, op->in[k]) == TENSOR_SPLIT;
    if (n_split == op->n_in) {
        if (!divides(l, id, op->attrs.heads))
            return no_division(l, id, op->attrs.heads, "heads of attention");
        if (!divides(l, id, op->attrs.kv_heads))
            return no_division(l, id, op->attrs.kv_heads, "key and value heads of attention");
        l->mode[id] = TENSOR_ELEMENTS;
        use_all(l, id, TENSOR_SPLIT);
        make_all(l, id, TENSOR_SPLIT);
        return PPS_OK;
    }
    const ir_directive *s = l->home[id] != IR_NONE ? &cx->program->directives[l->home[id]] : NULL;
    if (in_region(l, id)) {
        pps_diag *diag =
            pass_diag(cx, s, s->source->subject_span, 436,
                      "this region does not let the heads of its attention be divided");
        pps_diag_also(diag, op->span, "this attention");
        pps_diag_help(diag, "put the linear layers that make queries, keys and values, and the one "
                            "after, into the region");
        return pps_diag_done(diag);
    }
    if (shares_positions(l, id)) {
        pps_diag *diag =
            pass_diag(cx, s, pps_directive_clause(s->source, "sequence")->word_span, 435,
                      "`sequence true` divides the positions of attention that is in no tensor "
                      "region");
        pps_diag_also(diag, op->span, "this attention");
        pps_diag_help(diag, "annotate it, with its linear layers, as a region that this `shard` "
                            "names");
        return pps_diag_done(diag);
    }
    use_all(l, id, TENSOR_WHOLE);
    make_all(l, id, TENSOR_WHOLE);
    return PPS_OK;
}

static pps_status embedding(tensor_layout *l, ir_id id)
{
    const ir_op *op = &l->graph->ops[id];
    use_all(l, id, TENSOR_WHOLE);
    make_all(l, id, TENSOR_WHOLE);
    if (!in_region(l, id))
        return PPS_OK;
    if (!divides(l, id, op->attrs.vocab))
        return no_division(l, id, op->attrs.vocab, "rows of the embedding");
    l->mode[id] = TENSOR_TABLE;
    l->shared[id] = true; /* index says which rows are here */
    make_all(l, id, TENSOR_PARTIAL);
    return PPS_OK;
}

/* Elements of split inputs; with whole ones, positions. */
static pps_status elements(tensor_layout *l, ir_id id)
{
    const ir_op *op = &l->graph->ops[id];
    uint32_t n = width_of(l, op->out[0]), n_split = 0;
    for (uint32_t k = 0; k < op->n_in; k++)
        n_split += form_of(l, op->in[k]) == TENSOR_SPLIT;
    if (n_split < op->n_in) { /* the split ones cannot be: find_splits looked at all uses */
        by_position(l, id);
        return PPS_OK;
    }
    uint32_t unit = op->kind == IR_ROPE ? op->attrs.head_dim
                    : per_head(l, op)   ? op->attrs.group
                                        : 1;
    if (!divides(l, id, n / unit))
        return no_division(l, id, n / unit, unit > 1 ? "heads" : "elements");
    l->mode[id] = TENSOR_ELEMENTS;
    use_all(l, id, TENSOR_SPLIT);
    make_all(l, id, TENSOR_SPLIT);
    return PPS_OK;
}

static pps_status experts(tensor_layout *l, ir_id id)
{
    const ir_op *op = &l->graph->ops[id];
    use_all(l, id, TENSOR_WHOLE);
    make_all(l, id, TENSOR_WHOLE);
    if (!in_region(l, id))
        return PPS_OK;
    if (!divides(l, id, op->attrs.hidden))
        return no_division(l, id, op->attrs.hidden, "hidden elements of each expert");
    l->mode[id] = TENSOR_HIDDEN;
    make_all(l, id, TENSOR_PARTIAL);
    return PPS_OK;
}

static pps_status shape_op(tensor_layout *l, ir_id id, const uint8_t *may, const uint32_t *slices)
{
    const ir_op *op = &l->graph->ops[id];
    switch ((ir_op_kind)op->kind) {
    case IR_LINEAR:
        return linear(l, id, may, slices);
    case IR_ATTENTION:
    case IR_ATTENTION_PART:
    case IR_ATTENTION_END:
        return attention(l, id);
    case IR_EMBED:
        return embedding(l, id);
    case IR_EXPERTS:
        return experts(l, id);
    case IR_RMSNORM:
    case IR_ROPE:
        if (op->kind == IR_ROPE && form_of(l, op->in[0]) != TENSOR_SPLIT)
            break; /* angles are those of whole sequences */
        return elements(l, id);
    case IR_GELU:
    case IR_SWIGLU:
    case IR_SLICE:
        return elements(l, id);
    case IR_COMBINE:
        use_all(l, id, TENSOR_WHOLE);
        l->uses[id][0].form = form_of(l, op->in[0]);
        make_all(l, id, (tensor_form)l->uses[id][0].form);
        return PPS_OK;
    case IR_CROSS_ENTROPY:
        use_all(l, id, TENSOR_WHOLE);
        if (form_of(l, op->in[0]) != TENSOR_SPLIT)
            return PPS_OK;
        l->mode[id] = TENSOR_CLASSES;
        l->uses[id][0].form = TENSOR_SPLIT;
        return PPS_OK;
    case IR_POSITION:
        by_position(l, id);
        l->shared[id] = l->form[op->out[0]] == TENSOR_SHARED;
        return PPS_OK;
    case IR_LAYERNORM:
    case IR_ADD:
        by_position(l, id);
        return PPS_OK;
    case IR_ROUTER:
    case IR_DISPATCH:
    case IR_CROSS_ENTROPY_PART:
    case IR_CROSS_ENTROPY_MERGE:
    case IR_MSE:
    case IR_OPAQUE:
    case IR_ATTENTION_SLICE: /* layout makes it of ATTENTION */
    case IR_OP_COUNT:
        break;
    }
    use_all(l, id, TENSOR_WHOLE);
    make_all(l, id, TENSOR_WHOLE);
    return PPS_OK;
}

/* ---- 3. gradients ------------------------------------------------------------------------------
 */

/* Does a gradient that is a part of a sum go on through this op? Where it has parameters that would
 * make theirs parts too, so that more must be summed: through a router's linear layer, no norm. */
static bool passes_parts(const tensor_layout *l, ir_id id)
{
    switch ((ir_op_kind)l->graph->ops[id].kind) {
    case IR_DISPATCH:
        return l->home[id] != IR_NONE;
    case IR_RMSNORM:
    case IR_LAYERNORM:
    case IR_POSITION:
    case IR_OPAQUE:
        return false;
    case IR_EMBED:
    case IR_LINEAR:
    case IR_ROPE:
    case IR_ATTENTION:
    case IR_ATTENTION_PART:
    case IR_ATTENTION_END:
    case IR_GELU:
    case IR_SWIGLU:
    case IR_ADD:
    case IR_SLICE:
    case IR_ROUTER:
    case IR_EXPERTS:
    case IR_COMBINE:
    case IR_CROSS_ENTROPY:
    case IR_CROSS_ENTROPY_PART:
    case IR_CROSS_ENTROPY_MERGE:
    case IR_MSE:
    case IR_ATTENTION_SLICE: /* layout makes it of ATTENTION */
    case IR_OP_COUNT:
        break;
    }
    return in_region(l, id);
}

static void find_gradients(tensor_layout *l)
{
    const ir_graph *g = l->graph;
    enum { PARTS = 1, FULL = 2 };
    for (ir_id id = g->n_ops; id-- > 0;) {
        const ir_op *op = &g->ops[id];
        bool given_parts = false; /* the gradient of an output that is whole */
        for (uint32_t k = 0; k < op->n_out; k++)
            given_parts |= l->parts_back[op->out[k]] == PARTS && passes_parts(l, id) &&
                           l->form[op->out[k]] == TENSOR_WHOLE;
        l->given_parts[id] = given_parts;
        if (op->kind == IR_ROUTER && given_parts)
            l->shared[id] = true;
        for (uint32_t k = 0; k < op->n_in; k++) {
            tensor_use *use = &l->uses[id][k];
            ir_id t = ir_made(g, op->in[k]);
            if (use->form != TENSOR_WHOLE || g->tensors[t].dtype != IR_F32)
                continue;
            use->parts_back = l->mode[id] == TENSOR_COLUMNS || l->mode[id] == TENSOR_HIDDEN ||
                              given_parts ||
                              (op->kind == IR_COMBINE && l->uses[id][0].form == TENSOR_PARTIAL);
            ir_id from = g->tensors[t].op;
            bool same = from != IR_NONE && l->home[from] == l->home[id];
            l->parts_back[t] |= use->parts_back && same ? PARTS : FULL;
        }
        /* shared positions come back whole, and so do values that are split or parts of sums */
        for (uint32_t k = 0; k < op->n_in; k++)
            if (l->uses[id][k].form != TENSOR_WHOLE)
                l->parts_back[ir_made(g, op->in[k])] |= FULL;
    }
    for (ir_id id = 0; id < g->n_ops; id++)
        for (uint32_t k = 0; k < g->ops[id].n_in; k++) {
            ir_id t = ir_made(g, g->ops[id].in[k]), from = g->tensors[t].op;
            bool goes_on = from != IR_NONE && l->form[t] == TENSOR_WHOLE &&
                           l->parts_back[t] == PARTS && passes_parts(l, from) &&
                           l->home[from] == l->home[id];
            l->uses[id][k].convert_grad =
                l->uses[id][k].parts_back && !goes_on && (g->tensors[t].flags & IR_TENSOR_GRAD);
        }
}

/* ---- 4. parameters -----------------------------------------------------------------------------
 */

static pps_status share_param(tensor_layout *l, ir_id id, uint32_t k, pass_param_share share)
{
    pass_cx *cx = l->cx;
    ir_id q = l->graph->ops[id].param[k];
    if (q == IR_NONE)
        return PPS_OK;
    if (l->param_op[q] == IR_NONE) {
        l->param_op[q] = id;
        l->params[q] = share;
        return PPS_OK;
    }
    const pass_param_share *first = &l->params[q];
    if (first->cut == share.cut && first->dim == share.dim && first->blocks == share.blocks &&
        first->parts == share.parts)
        return PPS_OK;
    ir_id cut = first->cut || first->parts ? l->param_op[q] : id;
    ir_id other = cut == id ? l->param_op[q] : id;
    const ir_directive *s = &cx->program->directives[l->home[cut]];
    pps_diag *diag =
        pass_diag(cx, s, s->source->subject_span, 437,
                  "two uses of '%s' would divide it differently", l->graph->params[q].name);
    pps_diag_also(diag, l->graph->ops[cut].span, "one use");
    pps_diag_also(diag, l->graph->ops[other].span, "the other");
    pps_diag_help(diag, "put both into tensor regions, or neither");
    return pps_diag_done(diag);
}

static pps_status find_params(tensor_layout *l)
{
    const ir_graph *g = l->graph;
    for (ir_id id = 0; id < g->n_ops; id++) {
        const ir_op *op = &g->ops[id];
        for (uint32_t k = 0; k < op->n_param; k++) {
            pass_param_share share = {.blocks = 1};
            switch ((tensor_mode)l->mode[id]) {
            case TENSOR_COLUMNS:
                share = (pass_param_share){.cut = true, .blocks = l->blocks[id]};
                break;
            case TENSOR_ROWS: /* the bias is everyone's, with its whole gradient */
                share = (pass_param_share){.cut = k == 0, .dim = k == 0 ? 1 : 0, .blocks = 1};
                break;
            case TENSOR_TABLE:
                share = (pass_param_share){.cut = true, .blocks = 1};
                break;
            case TENSOR_HIDDEN:
                share = (pass_param_share){.cut = true, .dim = k == 2 ? 2 : 1, .blocks = 1};
                break;
            case TENSOR_ELEMENTS: /* a norm of each head: of one's own heads */
                share.parts = true;
                break;
            case TENSOR_PLAIN:
            case TENSOR_CLASSES:
                share.parts = l->given_parts[id] || l->uses[id][0].form == TENSOR_SHARED;
                break;
            }
            PPS_TRY(share_param(l, id, k, share));
        }
    }
    return PPS_OK;
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static pps_status check_use(tensor_layout *l, ir_id id, uint32_t k)
{
    const ir_graph *g = l->graph;
    const ir_op *op = &g->ops[id];
    const ir_tensor *t = &g->tensors[op->in[k]];
    pass_cx *cx = l->cx;
    uint8_t made = form_of(l, op->in[k]), used = l->uses[id][k].form;
    if (used == TENSOR_SHARED && !divides(l, id, t->dims[1]))
        return no_division(l, id, t->dims[1], "positions");
    if (t->op == IR_NONE)
        return PPS_OK;
    if (made == TENSOR_SPLIT && used != TENSOR_SPLIT) {
        const ir_directive *s = &cx->program->directives[l->home[t->op]];
        pps_diag *diag = pass_diag(cx, s, s->source->subject_span, 436,
                                   "this region divides one input of an op and not another");
        pps_diag_also(diag, op->span, "this op");
        pps_diag_also(diag, g->ops[t->op].span, "what is divided");
        return pps_diag_done(diag);
    }
    if (made != TENSOR_SHARED || l->home[t->op] == l->home[id] || used == TENSOR_SHARED)
        return PPS_OK;
    const ir_directive *s = &cx->program->directives[l->home[t->op]];
    pps_diag *diag = pass_diag(cx, s, pps_directive_clause(s->source, "sequence")->word_span, 438,
                               "`sequence true` here hands on shared positions to devices that do "
                               "not share them");
    pps_diag_also(diag, op->span, "used here");
    pps_diag_help(diag, "shard the other devices' regions with `sequence true` too, or neither");
    return pps_diag_done(diag);
}

pps_status tensor_infer(tensor_layout *l)
{
    const ir_graph *g = l->graph;
    arena *mem = l->cx->scratch;
    uint8_t *may;
    uint32_t *slices;
    PASS_ALLOC(may, mem, g->n_tensors);
    PASS_ALLOC(slices, mem, g->n_tensors);
    PASS_ALLOC(l->form, mem, g->n_tensors);
    PASS_ALLOC(l->parts_back, mem, g->n_tensors);
    PASS_ALLOC(l->mode, mem, g->n_ops);
    PASS_ALLOC(l->shared, mem, g->n_ops);
    PASS_ALLOC(l->given_parts, mem, g->n_ops);
    PASS_ALLOC(l->blocks, mem, g->n_ops);
    PASS_ALLOC(l->uses, mem, g->n_ops);
    PASS_ALLOC(l->params, mem, g->n_params);
    PASS_ALLOC(l->param_op, mem, g->n_params);
    memset(l->param_op, 0xff, g->n_params * sizeof *l->param_op);
    find_splits(l, may, slices);
    for (ir_id id = 0; id < g->n_ops; id++)
        PPS_TRY(shape_op(l, id, may, slices));
    for (ir_id id = 0; id < g->n_ops; id++)
        for (uint32_t k = 0; k < g->ops[id].n_in; k++)
            PPS_TRY(check_use(l, id, k));
    find_gradients(l);
    return find_params(l);
}
