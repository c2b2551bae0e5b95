/* SPDX-License-Identifier: Apache-2.0
 *
 * buckets.c: parameters into buckets, each reduced (where its replicas hold copies) and updated
 * once per step, after the last microbatch.
 *
 * A bucket holds parameters of one group, one `replicate` and one way of being stored, in the order
 * in which a backward pass finishes them (last chunk first), cut where `bucket` says. From zero 2
 * on a bucket is of one stage, since it comes and goes with the stage's turns.
 *
 * Under `zero` the bytes are padded so that slices are equal and aligned. Parameters that are
 * shared out already (experts of a sharded region) have one owner each: their buckets stay as they
 * are.
 */
#include "passes/pass.h"

typedef struct open_bucket {
    uint32_t directive;
    uint32_t stage; /* zero 2, 3; else IR_NONE */
    uint32_t teams;
    bool cut, spread;
    uint32_t bucket;
    uint64_t bytes; /* of parameters, without gaps */
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

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Streams and windows of a bucket, as its directive says. */
static pps_status configure(pass_cx *cx, dag_bucket *k)
{
    const ir_directive *s = &cx->program->directives[k->directive];
    if (!k->reduced)
        return PPS_OK;
    PPS_TRY(pass_stream(cx, s->stream, "reduce", &k->reduce_stream));
    k->zero = (uint8_t)s->zero;
    k->every = s->every > 0 ? s->every : 1;
    if (k->zero == 0)
        return PPS_OK;
    k->bytes = round_up(k->bytes, (uint64_t)PLAN_ALIGN * cx->set->teams[k->teams].size);
    /* gathers ahead of computes would queue behind the reductions on one stream */
    if (s->gather != IR_NONE || k->zero == 3)
        return pass_stream(cx, s->gather, "gather", &k->gather_stream);
    k->gather_stream = k->reduce_stream;
    return PPS_OK;
}

/* What happens to a bucket once per step: an optimizer step, after the reduction of its gradients,
 * before the gathering of what it made. Windows are the zero pass's. */
static pps_status bucket_runs(pass_cx *cx, uint32_t b)
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
                   .teams = k->teams,
                   .pair = IR_NONE,
                   .span = p->train.source->span};
    PPS_TRY(dag_add_run(d, run, &k->update));
    k->reduce = k->gather = k->clear = IR_NONE;
    uint32_t sink = k->update;
    if (k->reduced)
        run.span = p->directives[k->directive].source->span;
    if (k->reduced && k->zero < 2) {
        run.kind = k->zero == 0 ? PLAN_ALL_REDUCE : PLAN_REDUCE_SCATTER;
        run.stream = k->reduce_stream;
        PPS_TRY(dag_add_run(d, run, &k->reduce));
        PPS_TRY(dag_add_edge(d, k->reduce, k->update));
        sink = k->reduce;
    }
    if (k->zero == 1 || k->zero == 2) {
        run.kind = PLAN_ALL_GATHER;
        run.stream = k->gather_stream;
        PPS_TRY(dag_add_run(d, run, &k->gather));
        PPS_TRY(dag_add_edge(d, k->update, k->gather));
    }
    if (k->zero >= 2)
        return PPS_OK; /* its gradients reach the update through reductions of windows */
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        bool uses = false;
        if (d->chunks[c].group == k->group && d->chunks[c].w != IR_NONE)
            for (uint32_t i = 0; i < g->chunks[c].params.n; i++)
                uses |= d->param_bucket[g->lists[g->chunks[c].params.begin + i]] == b;
        if (uses) {
            PPS_TRY(dag_add_edge(d, d->chunks[c].b, sink));
            PPS_TRY(dag_add_edge(d, d->chunks[c].w, sink));
        }
    }
    return PPS_OK;
}

/* A `zero` that found nothing but parameters with one owner each. */
static pps_status check_effect(pass_cx *cx)
{
    const dag *d = cx->dag;
    const ir_program *p = cx->program;
    bool *shards;
    PASS_ALLOC(shards, cx->scratch, p->n_directives);
    for (uint32_t b = 0; b < d->n_buckets; b++)
        if (d->buckets[b].zero > 0)
            shards[d->buckets[b].directive] = true;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        const ir_directive *s = &p->directives[i];
        char text[256];
        if (p->kinds[i] != PPS_DIR_REPLICATE || s->zero == 0 || shards[i])
            continue;
        const pps_clause *c = pps_directive_clause(s->source, "zero");
        pps_diag *diag = pass_diag(cx, s, c != NULL ? c->word_span : s->source->span, 410,
                                   "`zero %u` has no effect: it has nothing of %s to share out",
                                   s->zero, pass_filter_text(cx, &s->filter, text, sizeof text));
        pps_diag_note(diag, "each of its parameters is an expert's, and has one owner already");
        return pps_diag_done(diag);
    }
    return PPS_OK;
}

pps_status pass_buckets(pass_cx *cx)
{
    dag *d = cx->dag;
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    uint32_t *first_chunk;
    open_bucket *open;
    PASS_ALLOC(d->param_bucket, cx->mem, g->n_params);
    PASS_ALLOC(d->param_offset, cx->mem, g->n_params);
    PASS_ALLOC(first_chunk, cx->scratch, g->n_params);
    PASS_ALLOC(open, cx->scratch, g->n_params);
    PASS_ALLOC(d->buckets, cx->mem, g->n_params);
    PASS_ALLOC(d->bucket_params, cx->mem, g->n_params);
    for (uint32_t i = 0; i < g->n_params; i++)
        d->param_bucket[i] = first_chunk[i] = IR_NONE;

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
                bool cut = cx->param_cuts[q][0].teams != IR_NONE, spread = false;
                for (int j = 0; cut && j < PLAN_MAX_CUTS; j++)
                    spread |= cx->param_cuts[q][j].teams == d->groups[group].tensor;
                spread &= d->groups[group].tensor != IR_NONE;
                uint64_t bytes = pass_held_elems(cx, q) * 4;
                uint32_t teams = IR_NONE;
                if (k->replicate != IR_NONE)
                    PPS_TRY(pass_teams_gradients(cx, group, q, &teams));
                const ir_directive *s =
                    k->replicate != IR_NONE ? &p->directives[k->replicate] : NULL;
                uint64_t most = s != NULL ? s->bucket_bytes : 0;
                uint32_t stage = s != NULL && s->zero >= 2 ? dag_stage(g, c) : IR_NONE;
                uint32_t o = 0;
                while (o < n_open && (open[o].directive != k->replicate || open[o].cut != cut ||
                                      open[o].spread != spread || open[o].teams != teams ||
                                      open[o].stage != stage))
                    o++;
                if (o == n_open || (most > 0 && open[o].bytes + bytes > most)) {
                    if (o == n_open)
                        n_open++;
                    open[o] =
                        (open_bucket){k->replicate, stage, teams, cut, spread, d->n_buckets, 0};
                    d->buckets[d->n_buckets++] = (dag_bucket){.group = group,
                                                              .directive = k->replicate,
                                                              .teams = teams,
                                                              .spread = spread,
                                                              .reduced = teams != IR_NONE};
                }
                open[o].bytes += bytes;
                dag_bucket *bucket = &d->buckets[open[o].bucket];
                d->param_bucket[q] = open[o].bucket;
                d->param_offset[q] = bucket->bytes;
                bucket->bytes += round_up(bytes, PLAN_ALIGN);
                bucket->n++;
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
            if (first_chunk[q] == c && d->param_bucket[q] != IR_NONE) {
                dag_bucket *k = &d->buckets[d->param_bucket[q]];
                d->bucket_params[k->first + k->n++] = q;
                first_chunk[q] = IR_NONE; /* once */
            }
        }
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        PPS_TRY(configure(cx, &d->buckets[b]));
        PPS_TRY(bucket_runs(cx, b));
    }
    return check_effect(cx);
}
