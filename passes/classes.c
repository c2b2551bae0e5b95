/* SPDX-License-Identifier: Apache-2.0
 *
 * classes.c: placement that depends on the microbatch. Microbatches whose chunks all lie in the
 * same places form a class, and each class gets chunks of its own: the same ops and parameters,
 * elsewhere, for these microbatches only.
 *
 *   place {PP: 0, MB: 0..4} on 0   place {PP: 1, MB: 0..4} on 1      class 0: 0 1 2 3   chunks 0 1
 *   place {PP: 0, MB: 4..8} on 1   place {PP: 1, MB: 4..8} on 0      class 1: 4 5 6 7   chunks 2 3
 *
 * Nothing flows between microbatches, so nothing links the chunks of two classes; what they share
 * is parameters, whose gradients buckets.c sums over all groups that have them.
 */
#include "passes/pass.h"

#include <string.h>

/* Which class each unit is of: that of the first microbatch placed like its own. Slices of one
 * microbatch lie together. */
static pps_status find_classes(pass_cx *cx, const uint32_t *placed, uint32_t n_chunks)
{
    dag *d = cx->dag;
    uint32_t *like, at = 0; /* like: [n_classes] its first microbatch */
    PASS_ALLOC(like, cx->phase, d->n_mb);
    PASS_ALLOC(d->mb_class, cx->mem, d->n_mb);
    PASS_ALLOC(d->mb_index, cx->mem, d->n_mb);
    PASS_ALLOC(d->class_mbs, cx->mem, d->n_mb);
    d->n_classes = 0;
    for (uint32_t m = 0; m < d->n_mb; m++) {
        const uint32_t *mine = placed + (size_t)(m / d->n_slices) * n_chunks;
        uint32_t k = m > 0 ? d->mb_class[m - 1] : 0; /* likely that of its neighbour */
        if (m == 0 ||
            memcmp(placed + (size_t)like[k] * n_chunks, mine, n_chunks * sizeof *mine) != 0)
            for (k = 0; k < d->n_classes; k++)
                if (memcmp(placed + (size_t)like[k] * n_chunks, mine, n_chunks * sizeof *mine) == 0)
                    break;
        if (k == d->n_classes)
            like[d->n_classes++] = m / d->n_slices;
        d->mb_class[m] = k;
    }
    PASS_ALLOC(d->classes, cx->mem, d->n_classes);
    for (uint32_t m = 0; m < d->n_mb; m++)
        d->mb_index[m] = d->classes[d->mb_class[m]].n++;
    for (uint32_t k = 0; k < d->n_classes; k++) {
        d->classes[k].begin = at;
        at += d->classes[k].n;
    }
    for (uint32_t m = 0; m < d->n_mb; m++)
        d->class_mbs[d->classes[d->mb_class[m]].begin + d->mb_index[m]] = m;
    return PPS_OK;
}

pps_status pass_classes(pass_cx *cx, const uint32_t *placed, const uint32_t *group_of)
{
    dag *d = cx->dag;
    ir_graph *g;
    ir_program *p;
    uint32_t n = cx->program->graph->n_chunks;
    ir_chunk *chunks;
    dag_chunk *places;
    PPS_TRY(find_classes(cx, placed, n));
    d->n_model_chunks = n;
    PASS_ALLOC(g, cx->scratch, 1);
    PASS_ALLOC(p, cx->scratch, 1);
    PASS_ALLOC(chunks, cx->scratch, (size_t)n * d->n_classes);
    PASS_ALLOC(places, cx->mem, (size_t)n * d->n_classes);
    *g = *cx->program->graph;
    *p = *cx->program;
    for (uint32_t k = 0; k < d->n_classes; k++) {
        uint32_t mb = d->class_mbs[d->classes[k].begin] / d->n_slices;
        for (uint32_t c = 0; c < n; c++) {
            uint32_t place = placed[(size_t)mb * n + c];
            chunks[k * n + c] = g->chunks[c];
            places[k * n + c] = d->chunks[c];
            places[k * n + c].place = place;
            places[k * n + c].group = group_of[place];
        }
    }
    g->chunks = chunks;
    g->n_chunks = n * d->n_classes;
    p->graph = g;
    d->chunks = places;
    d->graph = g;
    d->program = cx->program = p;
    return PPS_OK;
}

pps_status pass_match_class(pass_cx *cx, const ir_directive *s, const ir_term *mb, uint32_t chunk,
                            bool *ret)
{
    const dag *d = cx->dag;
    const ir_program *p = cx->program;
    *ret = true;
    if (mb == NULL || mb->kind != PPS_TERM_SET)
        return PPS_OK;
    uint32_t named = 0, n = dag_n_mb(d, chunk) / d->n_slices, n_mb = d->n_mb / d->n_slices;
    for (uint32_t i = 0; i < mb->n; i++)
        named += p->ints[mb->begin + i] < n_mb &&
                 dag_mb_index(d, chunk, p->ints[mb->begin + i] * d->n_slices) != IR_NONE;
    *ret = named > 0;
    if (named == 0 || named == n)
        return PPS_OK;
    char text[256], tags[128];
    pps_diag *diag =
        pass_diag(cx, s, s->source->subject_span, 419,
                  "%s names %u of the %u microbatches that %s runs there",
                  pass_filter_text(cx, &s->filter, text, sizeof text), named, n,
                  ir_tagset_text(p->graph, p->graph->chunks[chunk].tagset, tags, sizeof tags));
    if (d->chunks[chunk].place != IR_NONE)
        pps_diag_also(diag, p->directives[d->chunks[chunk].place].source->span, "placed here");
    pps_diag_note(diag, "parameters serve all microbatches of their devices");
    return pps_diag_done(diag);
}
