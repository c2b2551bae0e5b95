/* SPDX-License-Identifier: Apache-2.0
 *
 * offload.c: what `offload F to host stream S` adds, now that it is known what chunks keep and in
 * which order a group computes. For what BI reads and for what BW reads, each where there is any:
 *
 *       row groups   s         s + 1       ..     t - 2     t - 1        t
 *       compute      F  ---\    ..         ..      .. ---\   ..     /-->  B, BI or BW
 *       S                   \-> OFFLOAD                   \        /
 *       S's way back                                       \-> FETCH
 *
 * A copy to host memory starts with the end of its F. The first compute of row group s + 2 waits
 * for it (lower.c), since until then it holds its buffer. The copy back starts with row group t - 1
 * and no sooner, as a receive does: from s + 2 to t - 1 the device has the memory to itself. All
 * these edges run forward in the group's order, so they close no cycle that is not there already.
 */
#include "passes/pass.h"

/* Row groups from F to B or BI with which there is one in between that has the memory. What is
 * needed sooner stays where it is: copies would cost time and save nothing. */
enum { LEAST_APART = 4 };

typedef struct counts { /* of a directive: forward passes whose values are copied, and are not */
    uint32_t away, near;
} counts;

static pps_status choose(pass_cx *cx, counts **ret)
{
    dag *d = cx->dag;
    counts *of;
    PASS_ALLOC(of, cx->phase, cx->program->n_directives);
    for (uint32_t c = 0; c < d->graph->n_chunks; c++) {
        const dag_chunk *k = &d->chunks[c];
        for (uint32_t m = 0; m < dag_n_mb(d, c); m++) {
            size_t at = (size_t)c * d->n_mb + m;
            if (d->kept[at] != DAG_OFFLOAD)
                continue;
            uint32_t from = cx->node_slot[d->runs[k->f].first + m];
            uint32_t to = cx->node_slot[d->runs[k->b].first + m];
            if (to - from >= LEAST_APART) {
                of[cx->kept_by[at]].away++;
            } else {
                of[cx->kept_by[at]].near++;
                d->kept[at] = DAG_KEEP;
            }
        }
    }
    *ret = of;
    return PPS_OK;
}

static pps_status check_effect(pass_cx *cx, const counts *of)
{
    const ir_program *p = cx->program;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        ir_directive *s = &p->directives[i];
        char text[256];
        if (p->kinds[i] != PPS_DIR_OFFLOAD || (of[i].away > 0 && of[i].near == 0))
            continue;
        pass_filter_text(cx, &s->filter, text, sizeof text);
        if (of[i].away + of[i].near == 0)
            return pps_diag_done(pass_diag(
                cx, s, s->source->subject_span, 410,
                "offload has no effect: %s keeps nothing between its passes but its inputs", text));
        const char *why = "it needs %d row groups between F and B: to copy it out, to use its "
                          "memory, to fetch it back";
        if (of[i].away == 0) {
            pps_diag *diag =
                pass_diag(cx, s, s->source->subject_span, 410,
                          "offload has no effect: what %s keeps is needed again at once", text);
            pps_diag_note(diag, why, LEAST_APART - 1);
            return pps_diag_done(diag);
        }
        pps_diag *note = pps_diag_start(cx->st, PPS_SEV_NOTE, 430, s->source->subject_span,
                                        "what %u of %u forward passes of %s keep stays on the "
                                        "device: it is needed again at once",
                                        of[i].near, of[i].near + of[i].away, text);
        pps_diag_note(note, why, LEAST_APART - 1);
        pps_diag_done(note);
    }
    return PPS_OK;
}

static pps_status copy_runs(pass_cx *cx, uint32_t c, uint32_t directive, int half)
{
    dag *d = cx->dag;
    dag_chunk *k = &d->chunks[c];
    dag_run run = {.kind = PLAN_OFFLOAD,
                   .pass = half == 0 ? PPS_PASS_BI : PPS_PASS_BW,
                   .group = (uint16_t)k->group,
                   .stream = (uint16_t)(cx->copy_streams[directive][0] % d->n_streams),
                   .chunk = c,
                   .link = IR_NONE,
                   .pair = IR_NONE,
                   .span = cx->program->directives[directive].source->span};
    if (pass_copy_bytes(cx, &run) == 0)
        return PPS_OK;
    PPS_TRY(dag_add_run(d, run, &k->offload[half]));
    run.kind = PLAN_FETCH;
    run.stream = (uint16_t)(cx->copy_streams[directive][1] % d->n_streams);
    PPS_TRY(dag_add_run(d, run, &k->fetch[half]));
    PPS_TRY(dag_add_edge(d, k->f, k->offload[half]));
    return dag_add_edge(d, k->offload[half], k->fetch[half]);
}

/* Runs for all microbatches; those of the ones that are not offloaded are dead. */
static pps_status add_runs(pass_cx *cx)
{
    const dag *d = cx->dag;
    for (uint32_t c = 0; c < d->graph->n_chunks; c++) {
        uint32_t m = 0, n = dag_n_mb(d, c);
        while (m < n && dag_keeps(d, c, m) != DAG_OFFLOAD)
            m++;
        for (int half = 0; half < 2 && m < n; half++)
            PPS_TRY(copy_runs(cx, c, cx->kept_by[(size_t)c * d->n_mb + m], half));
    }
    return PPS_OK;
}

/* Does BI read of what is kept for BW? */
static bool bi_reads_both(const pass_cx *cx, uint32_t c)
{
    const pass_program *p = &cx->chunks[c].programs[PASS_KEEPS][PPS_PASS_BI];
    for (uint32_t i = 0; i < p->binds.n; i++)
        if (cx->binds[p->binds.begin + i].what == BIND_SAVE_BW)
            return true;
    return false;
}

/* Each fetch before its first reader, and two row groups before that at the earliest. */
static pps_status prefetch(pass_cx *cx, uint32_t c)
{
    const dag *d = cx->dag;
    const dag_chunk *k = &d->chunks[c];
    bool both = bi_reads_both(cx, c);
    for (uint32_t m = 0; m < dag_n_mb(d, c); m++)
        for (int half = 0; half < 2; half++) {
            if (k->fetch[half] == IR_NONE || dag_keeps(d, c, m) != DAG_OFFLOAD)
                continue;
            bool by_bw = half == 1 && !both && dag_split(d, c, m);
            uint32_t reader = d->runs[by_bw ? k->w : k->b].first + m;
            uint32_t fetch = d->runs[k->fetch[half]].first + m, to = cx->node_slot[reader];
            PPS_TRY(pass_add_extra(cx, cx->slot_last[k->group][to - 2], fetch, IR_NONE));
            PPS_TRY(pass_add_extra(cx, fetch, reader, IR_NONE));
        }
    return PPS_OK;
}

pps_status pass_offload(pass_cx *cx)
{
    dag *d = cx->dag;
    uint32_t n_nodes = d->n_nodes, n_runs = d->n_runs;
    counts *of;
    if (d->kept == NULL)
        return PPS_OK;
    PPS_TRY(choose(cx, &of));
    PPS_TRY(check_effect(cx, of));
    dag_count(d); /* what stays on the device after all is not copied */
    PPS_TRY(add_runs(cx));
    if (d->n_runs > n_runs) {
        PPS_TRY(dag_seal(d));
        PPS_TRY(pass_extend_nodes(cx, n_nodes));
    }
    for (uint32_t c = 0; c < d->graph->n_chunks; c++)
        if (d->chunks[c].fetch[0] != IR_NONE || d->chunks[c].fetch[1] != IR_NONE)
            PPS_TRY(prefetch(cx, c));
    return PPS_OK;
}
