/* SPDX-License-Identifier: Apache-2.0
 *
 * dag.c: the training DAG's runs, from chunks and what the directives before said of them.
 *
 *   forward   F(src) -> [border at src] -> [SEND, RECV] -> [border at dst] -> F(dst)
 *   backward  B(dst) -> [border at dst] -> [SEND, RECV] -> [border at src] -> B(src)
 *
 * The bracketed hops exist where an end has a border (borders.def) that moves something in this
 * pass, and where the ends are on different groups. What leaves the producer's side is made once
 * for all chunks of a group that use it (the carrier link); gradients come back per use. Buckets
 * and their reductions and updates are buckets.c's.
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

pps_status pass_back_stream(pass_cx *cx, uint16_t stream, uint16_t *ret)
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
    PASS_ALLOC(d->streams, cx->mem, 2 * named + 12);
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

static bool leaves_first(ir_border border)
{
    return border == IR_BORDER_SUM || border == IR_BORDER_SCATTER || border == IR_BORDER_TAKE;
}

/* Tensors behind a border say so themselves; expert rows and counts cross into sharded chunks and
 * out of them. */
static void set_borders(const pass_cx *cx, dag_link *l)
{
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    const ir_tensor *used = &g->tensors[l->tensor];
    bool src_ep = d->chunks[l->src].ep > 1, dst_ep = d->chunks[l->dst].ep > 1;
    ir_border exchange = (used->flags & IR_TENSOR_ROWS) && src_ep != dst_ep ? IR_BORDER_ROWS
                         : (used->flags & IR_TENSOR_COUNTS) && dst_ep       ? IR_BORDER_COUNTS
                                                                            : IR_NO_BORDER;
    /* sums and what makes a tensor smaller before it leaves its producer's side, the rest after */
    for (ir_id t = l->tensor; g->tensors[t].border != IR_NO_BORDER; t = g->tensors[t].of) {
        const ir_tensor *form = &g->tensors[t];
        dag_end end = leaves_first((ir_border)form->border) ? DAG_SRC : DAG_DST;
        l->border[end] = form->border;
        l->directive[end] =
            form->border == IR_BORDER_SHIFT ? d->chunks[l->dst].sequence : form->directive;
        if (end == DAG_SRC)
            l->wire = t;
    }
    if (exchange != IR_NO_BORDER) {
        dag_end end = dst_ep ? DAG_DST : DAG_SRC;
        l->border[end] = (uint8_t)exchange;
        l->directive[end] = d->chunks[dst_ep ? l->dst : l->src].shard;
    }
}

static pps_status make_links(pass_cx *cx)
{
    dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    uint32_t n = 0;
    for (uint32_t c = 0; c < g->n_chunks; c++)
        n += g->chunks[c].in.n;
    PASS_ALLOC(d->links, cx->mem, n);
    PASS_ALLOC(d->link_lists, cx->mem, 2 * (size_t)n);
    uint32_t *carrier; /* [tensor] latest link that has it between its ends, by `next` */
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
            ir_id made = ir_made(g, tensor);
            dag_link *l = &d->links[id];
            *l = (dag_link){.made = made,
                            .wire = made,
                            .tensor = tensor,
                            .src = src,
                            .src_out = index_in(g, g->chunks[src].out, made),
                            .dst = c,
                            .dst_in = k,
                            .grad = (t->flags & IR_TENSOR_GRAD) != 0,
                            .carrier = id,
                            .f_send = IR_NONE,
                            .f_recv = IR_NONE,
                            .b_send = IR_NONE,
                            .b_recv = IR_NONE,
                            .f_border = {IR_NONE, IR_NONE},
                            .b_border = {IR_NONE, IR_NONE},
                            .b_again = IR_NONE,
                            .directive = {IR_NONE, IR_NONE}};
            set_borders(cx, l);
            /* one transfer, and one border before it, per tensor and group */
            next[id] = IR_NONE;
            if (d->chunks[src].group != d->chunks[c].group ||
                dag_border_step((ir_border)l->border[DAG_SRC], PPS_PASS_F) != PLAN_NONE) {
                uint32_t other = carrier[l->wire];
                while (other != IR_NONE &&
                       d->chunks[d->links[other].dst].group != d->chunks[c].group)
                    other = next[other];
                if (other != IR_NONE) {
                    l->carrier = other;
                } else {
                    next[id] = carrier[l->wire];
                    carrier[l->wire] = id;
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
    run.carried = d->n_slices > 1 && dag_carries(g, c);
    PPS_TRY(dag_add_run(d, run, &k->f));
    if (g->chunks[c].has_grad_in || g->chunks[c].has_weights) {
        run.pass = PPS_PASS_BI;
        PPS_TRY(dag_add_run(d, run, &k->b));
        PPS_TRY(dag_add_edge(d, k->f, k->b));
    }
    if (g->chunks[c].has_weights) {
        run.pass = PPS_PASS_BW;
        run.carried = false;
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
        PPS_TRY(pass_back_stream(cx, stream, &stream));
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

static const char *border_stream(unsigned kind)
{
    return kind == PLAN_SHIFT                               ? "ring"
           : kind == PLAN_ALL_TO_ALL || kind == PLAN_COUNTS ? "experts"
                                                            : "tensor";
}

/* The step of the link's border at `end` in this pass, if it has one. */
static pps_status add_border(pass_cx *cx, hop_cx *h, uint32_t link, dag_end end)
{
    dag *d = cx->dag;
    dag_link *l = &d->links[link];
    bool forward = h->pass == PPS_PASS_F;
    unsigned kind = dag_border_step((ir_border)l->border[end], (pps_pass)h->pass);
    if (kind == PLAN_NONE)
        return PPS_OK;
    uint32_t chunk = end == DAG_DST ? l->dst : l->src;
    const ir_directive *shard = &cx->program->directives[l->directive[end]];
    dag_run run = {.kind = (uint8_t)kind,
                   .pass = h->pass,
                   .group = (uint16_t)d->chunks[chunk].group,
                   .chunk = forward ? l->dst : l->src,
                   .link = link,
                   .teams = l->border[end] == IR_BORDER_ROWS || l->border[end] == IR_BORDER_COUNTS
                                ? d->chunks[chunk].ep_teams
                            : kind == PLAN_SHIFT ? d->groups[d->chunks[chunk].group].sequence
                                                 : d->groups[d->chunks[chunk].group].tensor,
                   .pair = IR_NONE,
                   .span = shard->source->span};
    if ((kind == PLAN_ALL_TO_ALL || kind == PLAN_SHIFT) && forward == (end == DAG_SRC))
        run.flags = PLAN_A2A_RETURN;
    uint32_t *made = forward ? &l->f_border[end] : &l->b_border[end];
    PPS_TRY(pass_stream(cx, shard->stream, border_stream(kind), &run.stream));
    PPS_TRY(dag_add_run(d, run, made));
    PPS_TRY(dag_add_edge(d, h->last, *made));
    if (kind == PLAN_ALL_TO_ALL) {
        uint32_t counts = pass_counts_link(d, chunk, end == DAG_DST ? l->tensor : l->made);
        PPS_TRY(dag_add_edge(d, d->links[counts].f_border[DAG_DST], *made));
    }
    h->last = *made;
    return PPS_OK;
}

/* A round's keys and values are not kept from its forward to its backward, where `from` brings them
 * once more: their owner has them anyway, and what a rank keeps is to grow with its own positions.
 */
static pps_status add_again(pass_cx *cx, uint32_t link, uint32_t from)
{
    dag *d = cx->dag;
    dag_link *l = &d->links[link];
    const dag_chunk *to = &d->chunks[l->dst];
    if (l->border[DAG_DST] != IR_BORDER_SHIFT || to->b == IR_NONE)
        return PPS_OK;
    dag_run run = d->runs[l->f_border[DAG_DST]];
    run.pass = PPS_PASS_BI;
    PPS_TRY(dag_add_run(d, run, &l->b_again));
    PPS_TRY(dag_add_edge(d, from, l->b_again));
    return dag_add_edge(d, l->b_again, to->b);
}

static pps_status link_hops(pass_cx *cx, uint32_t id)
{
    dag *d = cx->dag;
    dag_link *l = &d->links[id];
    bool crosses = d->chunks[l->src].group != d->chunks[l->dst].group;
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
        f.last = carrier->f_recv != IR_NONE ? carrier->f_recv : carrier->f_border[DAG_SRC];
    } else {
        PPS_TRY(add_border(cx, &f, id, DAG_SRC));
        if (crosses)
            PPS_TRY(add_transfer(cx, &f, id, l->src, l->dst, l->dst, &l->f_send, &l->f_recv));
    }
    uint32_t arrived = f.last;
    PPS_TRY(add_border(cx, &f, id, DAG_DST));
    PPS_TRY(dag_add_edge(d, f.last, d->chunks[l->dst].f));
    PPS_TRY(add_again(cx, id, arrived));

    if (!l->grad)
        return PPS_OK;
    hop_cx b = {.last = d->chunks[l->dst].b, .pass = PPS_PASS_BI};
    PPS_TRY(add_border(cx, &b, id, DAG_DST));
    if (crosses)
        PPS_TRY(add_transfer(cx, &b, id, l->dst, l->src, l->src, &l->b_send, &l->b_recv));
    PPS_TRY(add_border(cx, &b, id, DAG_SRC));
    return dag_add_edge(d, b.last, d->chunks[l->src].b);
}

static bool brings_rows(const dag_link *l)
{
    return l->border[DAG_SRC] == IR_BORDER_ROWS || l->border[DAG_DST] == IR_BORDER_ROWS;
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
            if (brings_rows(&d->links[l]) == (rows == 1))
                PPS_TRY(link_hops(cx, l));
    PPS_TRY(pass_buckets(cx));
    PPS_TRY(pass_copy_streams(cx));
    merge_streams(cx);
    PASS_ALLOC(d->split_bw, cx->mem, (size_t)g->n_chunks * d->n_mb);
    PPS_TRY(pass_local_rows(cx));
    PPS_TRY(pass_count_names(cx));
    PPS_TRY(machine_open(cx));
    return dag_seal(d);
}
