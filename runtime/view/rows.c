/* SPDX-License-Identifier: Apache-2.0
 *
 * rows.c: rows of `order` as a timeline, timed by the unit-cost simulation (passes/cost.h).
 *
 * A timeline made here is the first member of a block that owns an arena with everything it points
 * to.
 */
#include "runtime/view/view.h"
#include "passes/cost.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLACE_CACHE = 64, NAME_STAGES = 16 };

typedef struct rows_timeline {
    view_timeline t; /* first */
    arena mem;
} rows_timeline;

typedef struct place_cache { /* entries of one script line share one string */
    const char *file[PLACE_CACHE];
    uint32_t line[PLACE_CACHE];
    const char *text[PLACE_CACHE];
} place_cache;

static const char *const lanes[] = {"compute"};
static const char *const pass_names[PPS_PASS_COUNT] = {
    [PPS_PASS_F] = "F", [PPS_PASS_B] = "B", [PPS_PASS_BI] = "BI", [PPS_PASS_BW] = "BW"};

/* "script.pps:12", where the op was made; NULL when not known or out of memory. */
static const char *place_of(const ir_program *p, uint32_t origin, arena *mem, place_cache *cache)
{
    if (p->st == NULL || origin == 0)
        return NULL;
    const char *file;
    uint32_t line, column;
    pps_span_place(p->st, pps_origin_span(p->st, origin), &file, &line, &column);
    if (file == NULL)
        return NULL;
    uint32_t slot = line % PLACE_CACHE;
    if (cache->file[slot] != file || cache->line[slot] != line) {
        size_t bytes = strlen(file) + 16;
        char *text = arena_new(mem, bytes);
        if (text == NULL)
            return NULL;
        snprintf(text, bytes, "%s:%u", file, line);
        cache->file[slot] = file;
        cache->line[slot] = line;
        cache->text[slot] = text;
    }
    return cache->text[slot];
}

/* "rank 1 (1,2)": the rank and its stages. */
static const char *rank_name(const cost_rows *c, uint32_t rank, arena *mem)
{
    char text[NAME_STAGES * 11 + 32];
    int n = snprintf(text, sizeof text, "rank %u", rank);
    uint32_t begin = c->stage_begin[rank], end = c->stage_begin[rank + 1];
    for (uint32_t i = begin; i < end && i - begin <= NAME_STAGES; i++) {
        const char *before = i == begin ? " (" : ",";
        if (i - begin == NAME_STAGES)
            n += snprintf(text + n, sizeof text - (size_t)n, "%s...", before);
        else
            n += snprintf(text + n, sizeof text - (size_t)n, "%s%u", before, c->stages[i]);
    }
    if (end > begin)
        n += snprintf(text + n, sizeof text - (size_t)n, ")");
    return arena_copy(mem, text, (size_t)n);
}

/* Where `stage` stands among its rank's. */
static uint8_t level_of(const cost_rows *c, uint32_t rank, uint32_t stage)
{
    uint32_t low = c->stage_begin[rank], high = c->stage_begin[rank + 1];
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (c->stages[middle] <= stage)
            low = middle;
        else
            high = middle;
    }
    uint32_t level = low - c->stage_begin[rank];
    return level < UINT8_MAX ? (uint8_t)level : UINT8_MAX;
}

static bool is_pair(const ir_program *p, const ir_row *row, uint32_t entry)
{
    return p->entries[entry].joins ||
           (entry + 1 < row->begin + row->n && p->entries[entry + 1].joins);
}

static pps_status fill(const ir_program *p, const cost_rows *c, rows_timeline *rt)
{
    view_timeline *t = &rt->t;
    arena *mem = &rt->mem;
    size_t n = 0;
    for (uint32_t r = 0; r < p->n_rows; r++)
        n += p->rows[r].n;
    const char **names = arena_new(mem, (p->n_rows + 1) * sizeof *names);
    double *peak = arena_new(mem, (p->n_rows + 1) * sizeof *peak);
    t->spans = arena_new(mem, (n + 1) * sizeof *t->spans);
    if (!names || !peak || !t->spans)
        return PPS_ERR_NOMEM;

    place_cache cache = {0};
    for (uint32_t r = 0; r < p->n_rows; r++) {
        const ir_row *row = &p->rows[r];
        uint32_t group = IR_NONE; /* counts from 0: the first entry wraps it */
        peak[r] = c->peak[r];
        names[r] = rank_name(c, r, mem);
        if (names[r] == NULL)
            return PPS_ERR_NOMEM;
        for (uint32_t i = row->begin; i < row->begin + row->n; i++) {
            const ir_entry *e = &p->entries[i];
            if (i == row->begin || !e->joins)
                group++;
            if (e->comm != PPS_COMM_NONE)
                continue;
            char label[128];
            uint32_t slice = cost_entry_slice(p, e);
            int bytes =
                snprintf(label, sizeof label, "%s%u:%u", pass_names[e->pass], e->stage, e->mb);
            if (slice > 0)
                bytes += snprintf(label + bytes, sizeof label - (size_t)bytes, "{%.80s=%u}",
                                  p->slice_tag, slice - 1);
            view_span *s = &t->spans[t->n_spans++];
            *s = (view_span){.rank = r,
                             .begin = c->begin[i],
                             .end = c->end[i],
                             .kind = PLAN_COMPUTE,
                             .pass = e->pass,
                             .stage = e->stage,
                             .mb = e->mb,
                             .slice = slice,
                             .pair = is_pair(p, row, i) ? group : IR_NONE,
                             .upper = level_of(c, r, e->stage),
                             .label = arena_copy(mem, label, (size_t)bytes),
                             .place = place_of(p, e->origin, mem, &cache)};
            if (s->label == NULL)
                return PPS_ERR_NOMEM;
        }
    }
    t->title = "schedule";
    t->unit = "unit costs";
    t->n_ranks = p->n_rows;
    t->n_lanes = 1;
    t->lanes = lanes;
    t->rank_names = names;
    t->peak = peak;
    t->makespan = c->makespan;
    t->bubble = c->bubble;
    t->settings =
        "per rank share: F=1 BI=1 BW=1 B=2, communication free; bubble makespan, release W, "
        "pairs atomic";
    return PPS_OK;
}

pps_status view_from_rows(const ir_program *p, view_timeline **ret)
{
    cost_rows costs;
    pps_status status = cost_simulate_rows(p, NULL, &costs);
    rows_timeline *rt = NULL;
    if (status != PPS_OK)
        goto done;
    rt = calloc(1, sizeof *rt);
    if (rt == NULL) {
        status = PPS_ERR_NOMEM;
        goto done;
    }
    arena_init(&rt->mem, NULL, NULL);
    status = fill(p, &costs, rt);
    if (status == PPS_OK)
        *ret = &rt->t;
    else
        view_timeline_free(&rt->t);
done:
    cost_rows_done(&costs);
    return status;
}

void view_timeline_free(view_timeline *t)
{
    if (t == NULL)
        return;
    rows_timeline *rt = (rows_timeline *)(void *)t;
    arena_done(&rt->mem);
    free(rt);
}
