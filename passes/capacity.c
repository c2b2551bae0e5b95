/* SPDX-License-Identifier: Apache-2.0
 *
 * capacity.c: `shard F on DEVICES as expert capacity C`: of the choices of one batch row an expert
 * takes the first ceil(C * T * top_k / experts), T being the row's positions; the others are
 * dropped. C = 1 is room for as many choices as every expert gets when they are spread evenly.
 *
 *   ROUTER -> DISPATCH -> EXPERTS -> COMBINE      all four know the capacity: the router drops, and
 *      ^                     ^                    what the others hold and send is bounded by it
 *      |                     the directive names their region
 *      a route has one capacity, whoever uses it
 *
 * The directive changes what is computed, on one device as on many: there it is what the others are
 * compared with. The graph belongs to the program, so its ops are copied before they are changed.
 * Part of the shard pass.
 */
#include "passes/pass.h"

#include <math.h>
#include <string.h>

static pps_status copy_ops(pass_cx *cx)
{
    ir_program *p;
    ir_graph *g;
    PASS_ALLOC(p, cx->scratch, 1);
    PASS_ALLOC(g, cx->scratch, 1);
    *p = *cx->program;
    *g = *p->graph;
    PASS_ALLOC(g->ops, cx->scratch, g->n_ops);
    memcpy(g->ops, p->graph->ops, g->n_ops * sizeof *g->ops);
    p->graph = g;
    cx->program = p;
    cx->dag->program = p;
    cx->dag->graph = g;
    return PPS_OK;
}

static const ir_directive *directive_of(const pass_cx *cx, uint32_t op)
{
    uint32_t chunk = cx->program->graph->op_chunk[op];
    uint32_t shard = chunk == IR_NONE ? IR_NONE : cx->dag->chunks[chunk].shard;
    return shard == IR_NONE ? NULL : &cx->program->directives[shard];
}

static uint32_t router_of(const ir_graph *g, const ir_op *experts)
{
    return g->tensors[experts->in[1]].op;
}

/* Choices of a batch row that an expert of this op takes; 0: no directive says. */
static pps_status capacity_of(pass_cx *cx, uint32_t op, uint32_t *ret)
{
    const ir_graph *g = cx->program->graph;
    const ir_op *experts = &g->ops[op];
    const ir_directive *s = directive_of(cx, op);
    uint32_t T = g->tensors[experts->in[0]].dims[1] / experts->attrs.top_k;
    *ret = 0;
    if (s == NULL || s->capacity <= 0.0)
        return PPS_OK;
    double taken = s->capacity * T * experts->attrs.top_k / experts->attrs.experts;
    taken = ceil(taken - 1e-9 * taken); /* 1.1 * 10 is 11, not a little more */
    if (taken >= T) {
        const pps_clause *clause = pps_directive_clause(s->source, "capacity");
        pps_diag *diag = pass_diag(cx, s, clause->span, 410,
                                   "capacity %g has no effect: no expert is chosen by more than "
                                   "the %u positions of a sequence",
                                   s->capacity, T);
        pps_diag_also(diag, experts->span, "these experts would take %g", taken);
        pps_diag_help(diag, "tokens are dropped below experts / top_k = %g",
                      (double)experts->attrs.experts / experts->attrs.top_k);
        return pps_diag_done(diag);
    }
    *ret = (uint32_t)taken;
    return PPS_OK;
}

static pps_status two_capacities(pass_cx *cx, uint32_t first, uint32_t second)
{
    const ir_graph *g = cx->program->graph;
    const ir_directive *a = directive_of(cx, first), *b = directive_of(cx, second);
    const ir_directive *s = b != NULL && b->capacity > 0.0 ? b : a;
    pps_diag *diag =
        pass_diag(cx, s, pps_directive_clause(s->source, "capacity")->span, 427,
                  "a route has one capacity, but other experts on this route have another");
    pps_diag_also(diag, g->ops[router_of(g, &g->ops[first])].span, "the route");
    pps_diag_also(diag, g->ops[first].span, "experts on it");
    pps_diag_also(diag, g->ops[second].span, "experts on it");
    pps_diag_help(diag, "name both regions in one `shard`, or give them a router each");
    return pps_diag_done(diag);
}

/* What the experts say, at their router. */
static pps_status set_routers(pass_cx *cx)
{
    ir_graph *g = cx->program->graph;
    uint32_t *user; /* [n_ops] of a router: experts on its route, plus one */
    PASS_ALLOC(user, cx->phase, g->n_ops);
    for (uint32_t i = 0; i < g->n_ops; i++) {
        uint32_t capacity, router;
        if (g->ops[i].kind != IR_EXPERTS || g->op_chunk[i] == IR_NONE)
            continue;
        PPS_TRY(capacity_of(cx, i, &capacity));
        router = router_of(g, &g->ops[i]);
        if (user[router] != 0 && g->ops[router].attrs.capacity != capacity)
            return two_capacities(cx, user[router] - 1, i);
        user[router] = i + 1;
        g->ops[router].attrs.capacity = capacity;
    }
    return PPS_OK;
}

pps_status pass_capacity(pass_cx *cx)
{
    bool any = false;
    for (uint32_t i = 0; i < cx->program->n_directives; i++)
        any |= cx->program->directives[i].capacity > 0.0;
    if (!any)
        return PPS_OK;
    PPS_TRY(copy_ops(cx));
    PPS_TRY(set_routers(cx));
    ir_graph *g = cx->program->graph;
    for (uint32_t i = 0; i < g->n_ops; i++) {
        ir_op *op = &g->ops[i];
        uint32_t route = op->kind == IR_DISPATCH || op->kind == IR_EXPERTS ? op->in[1]
                         : op->kind == IR_COMBINE                          ? op->in[2]
                                                                           : IR_NONE;
        if (route != IR_NONE)
            op->attrs.capacity = g->ops[g->tensors[route].op].attrs.capacity;
    }
    return PPS_OK;
}
