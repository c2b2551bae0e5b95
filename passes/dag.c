/* SPDX-License-Identifier: Apache-2.0
 *
 * dag.c: the training DAG's runs, from chunks and what the directives before said of them.
 *
 *   forward   F(src) -> [back from the experts] -> [SEND, RECV] -> [out to the experts] -> F(dst)
 *   backward  B(dst) -> [back] -> [SEND, RECV] -> [out] -> B(src)
 *
 * The bracketed hops exist where a link's ends are sharded or on different groups. A tensor goes to
 * another group once, however many chunks use it there (the carrier link); gradients come back per
 * use. Buckets and their reductions and updates are buckets.c's.
 */
#include "passes/machine.h"

#include <string.h>

pps_status pass_stream(pass_cx *cx, uint32_t stream, const char *fallback, uint16_t *ret)
{
    dag *d = cx->dag;
    if (stream != IR_NONE) {
        *ret = (uint16_t)(stream + 1); /* stream 0 is compute */
        return PPS_OK;
    }
    for (uint32_t i = 0; i < d->n_streams; i++)
        if (strcmp(d->streams[i], fallback) == 0) {
            *ret = (uint16_t)i;
            return PPS_OK;
        }
    d->streams[d->n_streams] = fallback;
    *ret = (uint16_t)d->n_streams++;
    return PPS_OK;
}

/* The way back of a stream that carries transfers: "pp" and "pp<". */
static pps_status back_stream(pass_cx *cx, uint16_t stream, uint16_t *ret)
{
    const char *name = cx->dag->streams[stream];
    size_t n = strlen(name);
    char *back = arena_new(cx->mem, n + 2);
    if (back == NULL)
        return PPS_ERR_NOMEM;
    memcpy(back, name, n);
    memcpy(back + n, "<", 2);
    return pass_stream(cx, IR_NONE, back, ret);
}

static pps_status make_streams(pass_cx *cx)
{
    dag *d = cx->dag;
    size_t named = pps_stream_count(cx->st);
    PASS_ALLOC(d->streams, cx->mem, 2 * named + 6);
    d->streams[d->n_streams++] = "compute";
    for (size_t i = 0; i < named; i++) {
        const char *name = pps_stream_name(cx->st, (uint32_t)i);
        char *copy = arena_copy(cx->mem, name, strlen(name));
        if (copy == NULL)
            return PPS_ERR_NOMEM;
        d->streams[d->n_streams++] = copy;
    }
    return PPS_OK;
}

static uint32_t index_in(const ir_graph *g, ir_range list, uint32_t item)
{
    for (uint32_t i = 0; i < list.n; i++)
        if (g->lists[list.begin + i] == item)
            return i;
    return IR_NONE;
}

/* ---- links ----------------------------------------------------------------------------------- */

static pps_status make_links(pass_cx *cx)
{
    dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    uint32_t n = 0;
    for (uint32_t c = 0; c < g->n_chunks; c++)
        n += g->chunks[c].in.n;
    PASS_ALLOC(d->links, cx->mem, n);
    PASS_ALLOC(d->link_lists, cx->mem, 2 * (size_t)n);
    uint32_t *carrier; /* [tensor] latest link that carries it, chained through `next` */
    uint32_t *next;
    PASS_ALLOC(carrier, cx->scratch, g->n_tensors);
    PASS_ALLOC(next, cx->scratch, n);

    for (uint32_t c = 0; c < g->n_chunks; c++) {
        uint32_t base = c / d->n_model_chunks * d->n_model_chunks; /* its class's first chunk */
        if (c == base)
            memset(carrier, 0xff, g->n_tensors * sizeof *carrier);
        d->chunks[c].in_links = (ir_range){d->n_links, g->chunks[c].in.n};
        for (uint32_t k = 0; k < g->chunks[c].in.n; k++) {
            ir_id tensor = g->lists[g->chunks[c].in.begin + k];
            const ir_tensor *t = &g->tensors[tensor];
            uint32_t src = base + g->op_chunk[t->op], id = d->n_links++;
            bool src_ep = d->chunks[src].ep > 1, dst_ep = d->chunks[c].ep > 1;
            dag_link *l = &d->links[id];
            *l = (dag_link){.tensor = tensor,
                            .src = src,
                            .src_out = index_in(g, g->chunks[src].out, tensor),
                            .dst = c,
                            .dst_in = k,
                            .grad = (t->flags & IR_TENSOR_GRAD) != 0,
                            .carrier = id,
                            .f_send = IR_NONE,
                            .f_recv = IR_NONE,
                            .f_exchange = IR_NONE,
                            .b_send = IR_NONE,
                            .b_recv = IR_NONE,
                            .b_exchange = IR_NONE};
            if ((t->flags & IR_TENSOR_ROWS) && src_ep != dst_ep)
                l->exchange = DAG_EXCHANGE_ROWS;
            if ((t->flags & IR_TENSOR_COUNTS) && dst_ep)
                l->exchange = DAG_EXCHANGE_COUNTS;
            l->exchange_at_dst = l->exchange != DAG_NO_EXCHANGE && dst_ep;
            /* one transfer per tensor and group */
            next[id] = IR_NONE;
            if (d->chunks[src].group != d->chunks[c].group) {
                uint32_t other = carrier[tensor];
                while (other != IR_NONE &&
                       d->chunks[d->links[other].dst].group != d->chunks[c].group)
                    other = next[other];
                if (other != IR_NONE) {
                    l->carrier = other;
                } else {
                    next[id] = carrier[tensor];
                    carrier[tensor] = id;
                }
            }
            d->link_lists[id] = id;
        }
    }
    /* out-links per producer, ordered by (output, link) */
    uint32_t at = n;
    for (uint32_t c = 0; c < g->n_chunks; c++)
        d->chunks[c].out_links.n = 0;
    for (uint32_t l = 0; l < n; l++)
        d->chunks[d->links[l].src].out_links.n++;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        d->chunks[c].out_links.begin = at;
        at += d->chunks[c].out_links.n;
        d->chunks[c].out_links.n = 0;
    }
    for (uint32_t l = 0; l < n; l++) {
        dag_chunk *src = &d->chunks[d->links[l].src];
        d->link_lists[src->out_links.begin + src->out_links.n++] = l;
    }
    return PPS_OK;
}

uint32_t pass_counts_link(const dag *d, uint32_t chunk, ir_id rows)
{
    const ir_graph *g = d->graph;
    const ir_chunk *c = &g->chunks[chunk];
    for (uint32_t i = 0; i < c->ops.n; i++) {
        const ir_op *op = &g->ops[g->lists[c->ops.begin + i]];
        if (op->kind != IR_EXPERTS || (op->in[0] != rows && op->out[0] != rows))
            continue;
        uint32_t k = index_in(g, c->in, op->in[1]);
        return k == IR_NONE ? IR_NONE : d->link_lists[d->chunks[chunk].in_links.begin + k];
    }
    return IR_NONE;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static pps_status compute_runs(pass_cx *cx, uint32_t c)
{
    dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    dag_chunk *k = &d->chunks[c];
    dag_run run = {.kind = PLAN_COMPUTE,
                   .pass = PPS_PASS_F,
                   .group = (uint16_t)k->group,
                   .chunk = c,
                   .link = IR_NONE,
                   .pair = IR_NONE,
                   .span = g->chunks[c].span};
    PPS_TRY(dag_add_run(d, run, &k->f));
    if (g->chunks[c].has_grad_in || g->chunks[c].has_weights) {
        run.pass = PPS_PASS_BI;
        PPS_TRY(dag_add_run(d, run, &k->b));
        PPS_TRY(dag_add_edge(d, k->f, k->b));
    }
    if (g->chunks[c].has_weights) {
        run.pass = PPS_PASS_BW;
        PPS_TRY(dag_add_run(d, run, &k->w));
        PPS_TRY(dag_add_edge(d, k->b, k->w));
    }
    return PPS_OK;
}

typedef struct hop_cx { /* where a chain of hops has got to */
    uint32_t last;      /* run */
    uint8_t pass;
} hop_cx;

static pps_status add_transfer(pass_cx *cx, hop_cx *h, uint32_t link, uint32_t from, uint32_t to,
                               uint32_t consumer, uint32_t *ret_send, uint32_t *ret_recv)
{
    dag *d = cx->dag;
    const ir_program *p = cx->program;
    /* The sender's stream at both ends: the two are one operation of one channel. Each way of a
     * stream is a queue of its own, so that a receive that waits never holds up a send the other
     * way. */
    uint16_t stream;
    PPS_TRY(pass_stream(cx, p->directives[d->chunks[from].place].stream, "p2p", &stream));
    if (d->chunks[from].group > d->chunks[to].group)
        PPS_TRY(back_stream(cx, stream, &stream));
    for (int end = 0; end < 2; end++) {
        uint32_t chunk = end == 0 ? from : to;
        const ir_directive *place = &p->directives[d->chunks[chunk].place];
        dag_run run = {.kind = end == 0 ? PLAN_SEND : PLAN_RECV,
                       .pass = h->pass,
                       .group = (uint16_t)d->chunks[chunk].group,
                       .chunk = consumer,
                       .link = link,
                       .stream = stream,
                       .pair = IR_NONE,
                       .span = place->source->span};
        PPS_TRY(dag_add_run(d, run, end == 0 ? ret_send : ret_recv));
    }
    d->runs[*ret_send].pair = *ret_recv;
    d->runs[*ret_recv].pair = *ret_send;
    dag_join(d, *ret_send, *ret_recv);
    PPS_TRY(dag_add_edge(d, h->last, *ret_send));
    h->last = *ret_recv;
    return PPS_OK;
}

static pps_status add_exchange(pass_cx *cx, hop_cx *h, uint32_t link, uint32_t sharded, bool back,
                               uint32_t consumer, uint32_t *ret)
{
    dag *d = cx->dag;
    const dag_link *l = &d->links[link];
    const ir_directive *shard = &cx->program->directives[d->chunks[sharded].shard];
    dag_run run = {.kind = l->exchange == DAG_EXCHANGE_COUNTS ? PLAN_COUNTS : PLAN_ALL_TO_ALL,
                   .pass = h->pass,
                   .flags = back ? PLAN_A2A_RETURN : 0,
                   .group = (uint16_t)d->chunks[sharded].group,
                   .chunk = consumer,
                   .link = link,
                   .teams = d->chunks[sharded].ep_teams,
                   .pair = IR_NONE,
                   .span = shard->source->span};
    PPS_TRY(pass_stream(cx, shard->stream, "experts", &run.stream));
    PPS_TRY(dag_add_run(d, run, ret));
    PPS_TRY(dag_add_edge(d, h->last, *ret));
    if (run.kind == PLAN_ALL_TO_ALL) {
        uint32_t counts = pass_counts_link(d, sharded, l->tensor);
        PPS_TRY(dag_add_edge(d, d->links[counts].f_exchange, *ret));
    }
    h->last = *ret;
    return PPS_OK;
}

static pps_status link_hops(pass_cx *cx, uint32_t id)
{
    dag *d = cx->dag;
    dag_link *l = &d->links[id];
    bool crosses = d->chunks[l->src].group != d->chunks[l->dst].group;
    bool at_src = l->exchange != DAG_NO_EXCHANGE && !l->exchange_at_dst;
    bool at_dst = l->exchange != DAG_NO_EXCHANGE && l->exchange_at_dst;
    if (crosses &&
        d->groups[d->chunks[l->src].group].n_ranks != d->groups[d->chunks[l->dst].group].n_ranks) {
        const ir_directive *a = &cx->program->directives[d->chunks[l->src].place];
        const ir_directive *b = &cx->program->directives[d->chunks[l->dst].place];
        pps_diag *diag = pass_diag(
            cx, b, b->source->span, 413, "data flows between groups of %u and %u devices",
            d->groups[d->chunks[l->src].group].n_ranks, d->groups[d->chunks[l->dst].group].n_ranks);
        pps_diag_also(diag, a->source->span, "from here");
        pps_diag_note(diag, "replica i of one stage feeds replica i of the next");
        return pps_diag_done(diag);
    }
    hop_cx f = {.last = d->chunks[l->src].f, .pass = PPS_PASS_F};
    if (l->carrier != id) {
        const dag_link *carrier = &d->links[l->carrier];
        f.last = carrier->f_recv;
    } else {
        if (at_src)
            PPS_TRY(add_exchange(cx, &f, id, l->src, true, l->dst, &l->f_exchange));
        if (crosses)
            PPS_TRY(add_transfer(cx, &f, id, l->src, l->dst, l->dst, &l->f_send, &l->f_recv));
    }
    if (at_dst)
        PPS_TRY(add_exchange(cx, &f, id, l->dst, false, l->dst, &l->f_exchange));
    PPS_TRY(dag_add_edge(d, f.last, d->chunks[l->dst].f));

    if (!l->grad)
        return PPS_OK;
    hop_cx b = {.last = d->chunks[l->dst].b, .pass = PPS_PASS_BI};
    if (at_dst)
        PPS_TRY(add_exchange(cx, &b, id, l->dst, true, l->src, &l->b_exchange));
    if (crosses)
        PPS_TRY(add_transfer(cx, &b, id, l->dst, l->src, l->src, &l->b_send, &l->b_recv));
    if (at_src)
        PPS_TRY(add_exchange(cx, &b, id, l->src, false, l->src, &l->b_exchange));
    return dag_add_edge(d, b.last, d->chunks[l->src].b);
}

/* Logical streams onto fewer physical ones: compute stays 0, the others go round. */
static void merge_streams(pass_cx *cx)
{
    dag *d = cx->dag;
    uint32_t most = cx->options->max_streams;
    if (most == 0 || d->n_streams <= most)
        return;
    for (uint32_t i = 0; i < d->n_runs; i++)
        d->runs[i].stream = (uint16_t)(d->runs[i].stream % most);
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        d->buckets[b].reduce_stream = (uint16_t)(d->buckets[b].reduce_stream % most);
        d->buckets[b].gather_stream = (uint16_t)(d->buckets[b].gather_stream % most);
    }
    d->n_streams = most;
}

pps_status pass_dag(pass_cx *cx)
{
    dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    PPS_TRY(make_streams(cx));
    PPS_TRY(make_links(cx));
    for (uint32_t c = 0; c < g->n_chunks; c++)
        PPS_TRY(compute_runs(cx, c));
    /* counts before rows: an exchange of rows needs the counts' run */
    for (int rows = 0; rows < 2; rows++)
        for (uint32_t l = 0; l < d->n_links; l++)
            if ((d->links[l].exchange == DAG_EXCHANGE_ROWS) == (rows == 1))
                PPS_TRY(link_hops(cx, l));
    PPS_TRY(pass_buckets(cx));
    merge_streams(cx);
    PASS_ALLOC(d->split_bw, cx->mem, (size_t)g->n_chunks * d->n_mb);
    PPS_TRY(pass_local_rows(cx));
    PPS_TRY(pass_count_names(cx));
    PPS_TRY(machine_open(cx));
    return dag_seal(d);
}
