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

/* An EXPERTS op as one chunk runs it. */
typedef struct user {
    uint32_t chunk, op;
} user;

static const ir_directive *directive_of(const pass_cx *cx, user u)
{
    uint32_t shard = cx->dag->chunks[u.chunk].shard;
    return shard == IR_NONE ? NULL : &cx->program->directives[shard];
}

static uint32_t router_of(const ir_graph *g, uint32_t experts)
{
    return g->tensors[g->ops[experts].in[1]].op;
}

/* Choices of a batch row that an expert takes here; 0: no directive says. */
static pps_status capacity_of(pass_cx *cx, user u, uint32_t *ret)
{
    const ir_graph *g = cx->program->graph;
    const ir_op *experts = &g->ops[u.op];
    const ir_directive *s = directive_of(cx, u);
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

static pps_status two_capacities(pass_cx *cx, user first, user second)
{
    const ir_graph *g = cx->program->graph;
    const ir_directive *a = directive_of(cx, first), *b = directive_of(cx, second);
    const ir_directive *s = b != NULL && b->capacity > 0.0 ? b : a;
    const ir_directive *other = s == b ? a : b;
    pps_diag *diag =
        pass_diag(cx, s, pps_directive_clause(s->source, "capacity")->span, 427,
                  "a route has one capacity, but experts on this route have another elsewhere");
    pps_diag_also(diag, g->ops[router_of(g, first.op)].span, "the route");
    if (other != NULL)
        pps_diag_also(diag, other->source->span, "another capacity, or none");
    pps_diag_also(diag, g->ops[first.op].span, "experts on it");
    if (first.op != second.op)
        pps_diag_also(diag, g->ops[second.op].span, "experts on it");
    pps_diag_help(diag, "name all its experts with one capacity, or give them a router each");
    return pps_diag_done(diag);
}

/* What the experts say, at their router. */
static pps_status set_routers(pass_cx *cx)
{
    ir_graph *g = cx->program->graph;
    user *users; /* [n_ops] of a router: who uses its route */
    PASS_ALLOC(users, cx->phase, g->n_ops);
    for (uint32_t i = 0; i < g->n_ops; i++)
        users[i].op = IR_NONE;
    for (uint32_t c = 0; c < g->n_chunks; c++)
        for (uint32_t i = 0; i < g->chunks[c].ops.n; i++) {
            user u = {.chunk = c, .op = g->lists[g->chunks[c].ops.begin + i]};
            uint32_t capacity, router;
            if (g->ops[u.op].kind != IR_EXPERTS)
                continue;
            PPS_TRY(capacity_of(cx, u, &capacity));
            router = router_of(g, u.op);
            if (users[router].op != IR_NONE && g->ops[router].attrs.capacity != capacity)
                return two_capacities(cx, users[router], u);
            users[router] = u;
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
