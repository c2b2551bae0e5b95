/* SPDX-License-Identifier: Apache-2.0
 *
 * lower_buffers.c: which buffer a step's binding is. Chunks own their outputs and what they keep;
 * links own what lies between a producer and a consumer:
 *
 *   value     OUT(src) -> [FX_SRC] -> [F_RECV] -> [FX_DST] -> used by dst
 *   gradient  B_OWN    -> [BX_DST] -> [B_RECV] -> [BX_SRC] -> used by src
 *
 * A bracketed buffer exists where the hop before it does: where a border moves something in this
 * pass, and where the ends are on different groups. What F keeps and OFFLOAD copies is one buffer
 * up to there, one of host memory, and another one from FETCH on. Buckets own what windows gather
 * and sum. Numbers are per group: buffers of one group share nothing with another's.
 */
#include "passes/lower.h"

static uint32_t add_lives(lower_buffers *b, family f)
{
    f.base = b->n_lives[f.group];
    b->n_lives[f.group] += f.n;
    b->families[b->n_families] = f;
    return b->n_families++;
}

/* A buffer per microbatch of the chunk's class. */
static uint32_t add_family(lower_buffers *b, uint32_t chunk, uint32_t group, uint64_t bytes,
                           uint8_t what)
{
    return add_lives(b, (family){.bytes = bytes,
                                 .group = group,
                                 .n = dag_n_mb(b->cx->dag, chunk),
                                 .bucket = IR_NONE,
                                 .per = 1,
                                 .what = what});
}

static bool crosses(const dag *d, const dag_link *k)
{
    return d->chunks[k->src].group != d->chunks[k->dst].group;
}

/* The border at `end` of a link moves something in this pass. */
static bool moves(const dag_link *k, dag_end end, pps_pass pass)
{
    return dag_border_step((ir_border)k->border[end], pass) != PLAN_NONE;
}

static void link_families(lower_buffers *b, uint32_t id)
{
    pass_cx *cx = b->cx;
    const dag *d = cx->dag;
    const dag_link *k = &d->links[id];
    uint32_t *f = b->link + (size_t)id * LINK_FAMILIES;
    uint32_t here = d->chunks[k->dst].group, there = d->chunks[k->src].group;
    pass_link_bytes bytes = pass_bytes_of_link(cx, k);
    for (int i = 0; i < LINK_FAMILIES; i++)
        f[i] = IR_NONE;
    if (moves(k, DAG_SRC, PPS_PASS_F) && k->carrier == id)
        f[FX_SRC] = add_family(b, k->dst, there, bytes.wire, PLAN_BLOCK_ACT);
    if (crosses(d, k) && k->carrier == id)
        f[F_RECV] = add_family(b, k->dst, here, bytes.wire, PLAN_BLOCK_ACT);
    if (moves(k, DAG_DST, PPS_PASS_F))
        f[FX_DST] = add_family(b, k->dst, here, bytes.used, PLAN_BLOCK_ACT);
    if (k->b_again != IR_NONE)
        f[FX_AGAIN] = add_family(b, k->dst, here, bytes.used, PLAN_BLOCK_ACT);
    if (!k->grad)
        return;
    /* without a way back the gradient has the form that the value had before the border */
    uint64_t arrived = moves(k, DAG_SRC, PPS_PASS_BI) ? bytes.wire : bytes.made;
    uint64_t own = moves(k, DAG_DST, PPS_PASS_BI) ? bytes.used : arrived;
    f[B_OWN] = add_family(b, k->dst, here, own, PLAN_BLOCK_GRAD);
    if (moves(k, DAG_DST, PPS_PASS_BI))
        f[BX_DST] = add_family(b, k->dst, here, arrived, PLAN_BLOCK_GRAD);
    if (crosses(d, k))
        f[B_RECV] = add_family(b, k->dst, there, arrived, PLAN_BLOCK_GRAD);
    if (moves(k, DAG_SRC, PPS_PASS_BI))
        f[BX_SRC] = add_family(b, k->dst, there, bytes.made, PLAN_BLOCK_GRAD);
}

static pps_status bucket_families(lower_buffers *b)
{
    const dag *d = b->cx->dag;
    PASS_ALLOC(b->bucket_params, b->cx->phase, d->n_buckets);
    PASS_ALLOC(b->bucket_grads, b->cx->phase, d->n_buckets);
    for (uint32_t i = 0; i < d->n_buckets; i++) {
        const dag_bucket *k = &d->buckets[i];
        family f = {.bytes = k->bytes, .group = k->group, .bucket = i};
        b->bucket_params[i] = b->bucket_grads[i] = IR_NONE;
        if (k->zero == 3 && k->gather != IR_NONE) {
            f.what = PLAN_BLOCK_PARAMS;
            f.n = d->runs[k->gather].n;
            b->bucket_params[i] = add_lives(b, f);
        }
        if (k->zero >= 2) {
            f.what = PLAN_BLOCK_GRADS;
            f.n = d->runs[k->clear].n;
            f.per = k->every;
            b->bucket_grads[i] = add_lives(b, f);
        }
    }
    return PPS_OK;
}

static void offload_families(lower_buffers *b, uint32_t c)
{
    const dag_chunk *k = &b->cx->dag->chunks[c];
    const pass_chunk *layout = &b->cx->chunks[c];
    b->chunk_host[c] = IR_NONE;
    if (k->offload[0] == IR_NONE && k->offload[1] == IR_NONE)
        return;
    b->chunk_host[c] = add_family(b, c, k->group, layout->save_bi_bytes, PLAN_BLOCK_HOST);
    add_family(b, c, k->group, layout->save_bw_bytes, PLAN_BLOCK_HOST);
    add_family(b, c, k->group, layout->save_bi_bytes, PLAN_BLOCK_SAVE);
    add_family(b, c, k->group, layout->save_bw_bytes, PLAN_BLOCK_HELD);
}

pps_status lower_buffers_init(lower_buffers *b, pass_cx *cx)
{
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    uint32_t n = d->n_links * LINK_FAMILIES + 2 * d->n_buckets;
    *b = (lower_buffers){.cx = cx};
    for (uint32_t c = 0; c < g->n_chunks; c++)
        n += g->chunks[c].out.n + 10;
    PASS_ALLOC(b->families, cx->phase, n);
    PASS_ALLOC(b->chunk_out, cx->phase, g->n_chunks);
    PASS_ALLOC(b->chunk_save, cx->phase, g->n_chunks);
    PASS_ALLOC(b->chunk_held, cx->phase, g->n_chunks);
    PASS_ALLOC(b->chunk_host, cx->phase, g->n_chunks);
    PASS_ALLOC(b->link, cx->phase, (size_t)d->n_links * LINK_FAMILIES);
    PASS_ALLOC(b->n_lives, cx->phase, d->n_groups);
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        uint32_t group = d->chunks[c].group;
        b->chunk_out[c] = b->n_families;
        for (uint32_t k = 0; k < g->chunks[c].out.n; k++)
            add_family(b, c, group, pass_tensor_bytes(cx, g->lists[g->chunks[c].out.begin + k], c),
                       PLAN_BLOCK_ACT);
        b->chunk_save[c] = add_family(b, c, group, cx->chunks[c].save_bi_bytes, PLAN_BLOCK_SAVE);
        add_family(b, c, group, cx->chunks[c].save_bw_bytes, PLAN_BLOCK_HELD);
        add_family(b, c, group, cx->chunks[c].held_bytes[PASS_KEEPS], PLAN_BLOCK_HELD);
        for (int i = 0; i < 2; i++) /* one for all slices of a microbatch */
            add_lives(b, (family){.bytes = cx->chunks[c].carry_bytes[i],
                                  .group = group,
                                  .n = dag_n_mb(d, c) / d->n_slices,
                                  .bucket = IR_NONE,
                                  .per = d->n_slices,
                                  .what = PLAN_BLOCK_CARRY});
        b->chunk_held[c] = IR_NONE;
        if (cx->chunks[c].held_bytes[PASS_RECOMPUTES] > 0)
            b->chunk_held[c] =
                add_family(b, c, group, cx->chunks[c].held_bytes[PASS_RECOMPUTES], PLAN_BLOCK_HELD);
        offload_families(b, c);
    }
    for (uint32_t l = 0; l < d->n_links; l++)
        link_families(b, l);
    return bucket_families(b);
}

/* ---- lives -------------------------------------------------------------------------------------
 */

static uint32_t link_life(const lower_buffers *b, uint32_t link, link_family which, uint32_t mb)
{
    return b->families[b->link[(size_t)link * LINK_FAMILIES + which]].base + mb;
}

static uint32_t made_by(const lower_buffers *b, const dag_link *k, uint32_t mb)
{
    return b->families[b->chunk_out[k->src] + k->src_out].base + mb;
}

/* A link's value where it leaves the producer's side. */
static uint32_t value_leaving(const lower_buffers *b, uint32_t link, uint32_t mb)
{
    const dag_link *k = &b->cx->dag->links[link];
    return moves(k, DAG_SRC, PPS_PASS_F) ? link_life(b, k->carrier, FX_SRC, mb) : made_by(b, k, mb);
}

/* A link's value before the border at its consumer: what the producer's side hands over. */
static uint32_t value_arrived(const lower_buffers *b, uint32_t link, uint32_t mb)
{
    const dag_link *k = &b->cx->dag->links[link];
    if (crosses(b->cx->dag, k))
        return link_life(b, k->carrier, F_RECV, mb);
    return value_leaving(b, link, mb);
}

static uint32_t value_used(const lower_buffers *b, uint32_t link, pps_pass pass, uint32_t mb)
{
    if (pass != PPS_PASS_F && b->cx->dag->links[link].b_again != IR_NONE)
        return link_life(b, link, FX_AGAIN, mb);
    return moves(&b->cx->dag->links[link], DAG_DST, PPS_PASS_F) ? link_life(b, link, FX_DST, mb)
                                                                : value_arrived(b, link, mb);
}

/* A link's gradient behind the border at its consumer, before the one at its producer. */
static uint32_t grad_leaving(const lower_buffers *b, uint32_t link, uint32_t mb)
{
    bool moved = moves(&b->cx->dag->links[link], DAG_DST, PPS_PASS_BI);
    return link_life(b, link, moved ? BX_DST : B_OWN, mb);
}

static uint32_t grad_arrived(const lower_buffers *b, uint32_t link, uint32_t mb)
{
    const dag *d = b->cx->dag;
    return crosses(d, &d->links[link]) ? link_life(b, link, B_RECV, mb) : grad_leaving(b, link, mb);
}

static uint32_t grad_used(const lower_buffers *b, uint32_t link, uint32_t mb)
{
    return moves(&b->cx->dag->links[link], DAG_SRC, PPS_PASS_BI) ? link_life(b, link, BX_SRC, mb)
                                                                 : grad_arrived(b, link, mb);
}

/* What F keeps for BI or for BW: where F leaves it, or where it was fetched to. */
static uint32_t save_life(const lower_buffers *b, uint32_t chunk, pps_pass pass, uint32_t of_bw,
                          uint32_t mb)
{
    bool fetched = pass != PPS_PASS_F && dag_keeps(b->cx->dag, chunk, mb) == DAG_OFFLOAD;
    uint32_t first = fetched ? b->chunk_host[chunk] + 2 : b->chunk_save[chunk];
    return b->families[first + of_bw].base + mb;
}

uint32_t lower_bind_life(const lower_buffers *b, const pass_bind *bind, uint32_t chunk,
                         pps_pass pass, uint32_t mb)
{
    const dag *d = b->cx->dag;
    switch ((pass_bind_kind)bind->what) {
    case BIND_IN:
        return value_used(b, d->link_lists[d->chunks[chunk].in_links.begin + bind->index], pass,
                          mb);
    case BIND_OUT:
        return b->families[b->chunk_out[chunk] + bind->index].base + mb;
    case BIND_GRAD_IN:
        return grad_used(b, bind->index, mb);
    case BIND_GRAD_OUT:
        return link_life(b, bind->index, B_OWN, mb);
    case BIND_SAVE_BI:
    case BIND_SAVE_BW:
        return save_life(b, chunk, pass, bind->what == BIND_SAVE_BW, mb);
    case BIND_HELD:
        if (pass_variant_of(d, chunk, mb) == PASS_RECOMPUTES)
            return b->families[b->chunk_held[chunk]].base + mb;
        return b->families[b->chunk_save[chunk] + 2].base + mb;
    case BIND_CARRY:
    case BIND_CARRIED:
        return b->families[b->chunk_save[chunk] + 3 + (bind->what == BIND_CARRIED)].base +
               mb / d->n_slices;
    case BIND_PARAMS:
        return b->families[b->bucket_params[bind->index]].base +
               pass_gather_window(b->cx, bind->index, chunk, pass, mb);
    case BIND_GRADS: {
        uint32_t first = dag_class_of(d, chunk).begin;
        return b->families[b->bucket_grads[bind->index]].base +
               pass_reduce_window(&d->buckets[bind->index], d->class_mbs[first + mb]);
    }
    case BIND_WORK:
        break;
    }
    return IR_NONE;
}

uint32_t lower_comm_lives(const lower_buffers *b, uint32_t node, uint32_t ret[3])
{
    const dag *d = b->cx->dag;
    const dag_run *r = &d->runs[d->node_run[node]];
    if (dag_of_bucket(r)) {
        uint32_t f = IR_NONE;
        if (r->kind == PLAN_ALL_GATHER)
            f = b->bucket_params[r->chunk];
        else if (r->kind == PLAN_REDUCE_SCATTER || r->kind == PLAN_CLEAR)
            f = b->bucket_grads[r->chunk];
        if (f == IR_NONE)
            return 0;
        ret[0] = b->families[f].base + (node - r->first);
        return 1;
    }
    uint32_t mb = node - r->first;
    if (plan_is(r->kind, PLAN_COPY)) {
        uint32_t of_bw = r->pass == PPS_PASS_BW;
        pps_pass side = r->kind == PLAN_OFFLOAD ? PPS_PASS_F : PPS_PASS_B;
        ret[0] = save_life(b, r->chunk, side, of_bw, mb);
        ret[1] = b->families[b->chunk_host[r->chunk] + of_bw].base + mb;
        return 2;
    }
    const dag_link *k = &d->links[r->link];
    bool forward = r->pass == PPS_PASS_F;
    if (r->kind == PLAN_RECV) {
        ret[0] = link_life(b, r->link, forward ? F_RECV : B_RECV, mb);
        return 1;
    }
    if (r->kind == PLAN_SEND) {
        ret[0] = forward ? value_leaving(b, r->link, mb) : grad_leaving(b, r->link, mb);
        return 1;
    }
    dag_end end = dag_end_of(d, d->node_run[node]);
    if (k->b_again == d->node_run[node]) {
        ret[0] = value_arrived(b, r->link, mb);
        ret[1] = link_life(b, r->link, FX_AGAIN, mb);
        return 2;
    }
    if (end == DAG_DST) {
        ret[0] = forward ? value_arrived(b, r->link, mb) : link_life(b, r->link, B_OWN, mb);
        ret[1] = link_life(b, r->link, forward ? FX_DST : BX_DST, mb);
    } else {
        ret[0] = forward ? made_by(b, k, mb) : grad_arrived(b, r->link, mb);
        ret[1] = link_life(b, r->link, forward ? FX_SRC : BX_SRC, mb);
    }
    if (r->kind != PLAN_ALL_TO_ALL)
        return 2;
    uint32_t counts = end == DAG_DST ? pass_counts_link(d, k->dst, k->tensor)
                                     : pass_counts_link(d, k->src, k->made);
    ret[2] = link_life(b, counts, FX_DST, mb);
    return 3;
}
