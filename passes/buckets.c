/* SPDX-License-Identifier: Apache-2.0
 *
 * buckets.c: parameters into buckets, each reduced (where its replicas hold copies) and updated
 * once per step, after the last microbatch.
 *
 * A bucket holds parameters of one group, one `replicate` and one way of being stored, in the order
 * in which a backward pass finishes them (last chunk first), cut where `bucket` says.
 */
#include "passes/pass.h"

typedef struct open_bucket {
    uint32_t directive;
    bool sharded;
    uint32_t bucket;
    uint64_t bytes;
} open_bucket;

static pps_status check_owner(pass_cx *cx, uint32_t param, uint32_t first_chunk, uint32_t chunk)
{
    dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    if (d->chunks[first_chunk].group == d->chunks[chunk].group)
        return PPS_OK;
    const ir_directive *a = &cx->program->directives[d->chunks[chunk].place];
    const ir_directive *b = &cx->program->directives[d->chunks[first_chunk].place];
    pps_diag *diag =
        pass_diag(cx, a, a->source->span, 412, "parameter '%s' is used on several device groups",
                  g->params[param].name);
    pps_diag_also(diag, b->source->span, "and placed here too");
    pps_diag_also(diag, g->params[param].span, "the parameter");
    pps_diag_help(diag, "place the regions that share it on one device list, as V placement does "
                        "with the first and last stage");
    return pps_diag_done(diag);
}

/* An optimizer step per bucket, after its reduction if it has one. */
static pps_status bucket_runs(pass_cx *cx, uint32_t b, const uint32_t *param_bucket)
{
    dag *d = cx->dag;
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    dag_bucket *k = &d->buckets[b];
    dag_run run = {.kind = PLAN_UPDATE,
                   .pass = PPS_PASS_BW,
                   .group = (uint16_t)k->group,
                   .chunk = b,
                   .link = IR_NONE,
                   .pair = IR_NONE,
                   .span = p->train.source->span};
    PPS_TRY(dag_add_run(d, run, &k->update));
    k->reduce = IR_NONE;
    uint32_t sink = k->update;
    if (k->reduced) {
        const ir_directive *s = &p->directives[k->directive];
        run.kind = PLAN_ALL_REDUCE;
        run.span = s->source->span;
        PPS_TRY(pass_stream(cx, s->stream, "reduce", &run.stream));
        PPS_TRY(dag_add_run(d, run, &k->reduce));
        PPS_TRY(dag_add_edge(d, k->reduce, k->update));
        sink = k->reduce;
    }
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        bool uses = false;
        if (d->chunks[c].group == k->group && d->chunks[c].w != IR_NONE)
            for (uint32_t i = 0; i < g->chunks[c].params.n; i++)
                uses |= param_bucket[g->lists[g->chunks[c].params.begin + i]] == b;
        if (uses) {
            PPS_TRY(dag_add_edge(d, d->chunks[c].b, sink));
            PPS_TRY(dag_add_edge(d, d->chunks[c].w, sink));
        }
    }
    return PPS_OK;
}

pps_status pass_buckets(pass_cx *cx)
{
    dag *d = cx->dag;
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    uint32_t *bucket_of, *first_chunk;
    open_bucket *open;
    PASS_ALLOC(bucket_of, cx->scratch, g->n_params);
    PASS_ALLOC(first_chunk, cx->scratch, g->n_params);
    PASS_ALLOC(open, cx->scratch, g->n_params);
    PASS_ALLOC(d->buckets, cx->mem, g->n_params);
    PASS_ALLOC(d->bucket_params, cx->mem, g->n_params);
    for (uint32_t i = 0; i < g->n_params; i++)
        bucket_of[i] = first_chunk[i] = IR_NONE;

    for (uint32_t group = 0; group < d->n_groups; group++) {
        uint32_t n_open = 0;
        for (uint32_t c = g->n_chunks; c-- > 0;) {
            const dag_chunk *k = &d->chunks[c];
            if (k->group != group)
                continue;
            for (uint32_t i = g->chunks[c].params.n; i-- > 0;) {
                uint32_t q = g->lists[g->chunks[c].params.begin + i];
                if (first_chunk[q] != IR_NONE) {
                    PPS_TRY(check_owner(cx, q, first_chunk[q], c));
                    continue;
                }
                first_chunk[q] = c;
                bool sharded = k->shard != IR_NONE && (g->params[q].flags & IR_PARAM_EXPERT);
                uint64_t bytes = ir_param_elems(&g->params[q]) / (sharded ? k->ep : 1) * 4;
                uint64_t most =
                    k->replicate != IR_NONE ? p->directives[k->replicate].bucket_bytes : 0;
                uint32_t o = 0;
                while (o < n_open &&
                       (open[o].directive != k->replicate || open[o].sharded != sharded))
                    o++;
                if (o == n_open || (most > 0 && open[o].bytes + bytes > most)) {
                    if (o == n_open)
                        n_open++;
                    open[o] = (open_bucket){k->replicate, sharded, d->n_buckets, 0};
                    d->buckets[d->n_buckets++] =
                        (dag_bucket){.group = group,
                                     .directive = k->replicate,
                                     .reduced = !sharded && k->replicate != IR_NONE &&
                                                d->groups[group].n_ranks > 1};
                }
                open[o].bytes += bytes;
                bucket_of[q] = open[o].bucket;
                d->buckets[open[o].bucket].n++;
            }
        }
    }
    /* parameters of each bucket, in the order they were met */
    uint32_t at = 0;
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        d->buckets[b].first = at;
        at += d->buckets[b].n;
        d->buckets[b].n = 0;
    }
    for (uint32_t c = g->n_chunks; c-- > 0;)
        for (uint32_t i = g->chunks[c].params.n; i-- > 0;) {
            uint32_t q = g->lists[g->chunks[c].params.begin + i];
            if (first_chunk[q] == c && bucket_of[q] != IR_NONE) {
                dag_bucket *k = &d->buckets[bucket_of[q]];
                d->bucket_params[k->first + k->n++] = q;
                first_chunk[q] = IR_NONE; /* once */
            }
        }
    for (uint32_t b = 0; b < d->n_buckets; b++)
        PPS_TRY(bucket_runs(cx, b, bucket_of));
    return PPS_OK;
}
