/* SPDX-License-Identifier: Apache-2.0
 *
 * cells.c: the cells of the matrix and their scripts.
 */
#include "cells.h"

#include <string.h>

/* How a schedule is called and placed. */
static const struct schedule_row {
    const char *name, *stages; /* the function that places: "loop_stages(2, 1)" */
    uint32_t stages_per_rank;
    bool v_placed, ragged; /* ragged: M need not be a multiple of the ranks */
} schedules[CELL_SCHEDULES] = {
    [CELL_GPIPE] = {"gpipe", "loop_stages", 1, false, true},
    [CELL_ONE_F_ONE_B] = {"one_f_one_b", "loop_stages", 1, false, true},
    [CELL_INTERLEAVED] = {"interleaved_1f1b", "loop_stages", 2, false, false},
    [CELL_ZEROBUBBLE] = {"zerobubble", "loop_stages", 1, false, true},
    [CELL_DUALPIPEV] = {"dualpipev", "v_stages", 2, true, true},
};

uint32_t cells_all(cell cells[CELL_MAX])
{
    static const struct {
        uint32_t replicas;
        bool experts;
    } kinds[] = {{1, false}, {2, false}, {2, true}};
    uint32_t n = 0;
    for (int schedule = 0; schedule < CELL_SCHEDULES; schedule++)
        for (uint32_t ranks = 2; ranks <= 4; ranks += 2)
            for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
                for (uint32_t ragged = 0; ragged <= schedules[schedule].ragged; ragged++)
                    for (int aux = 0; aux < 2; aux++)
                        cells[n++] = (cell){.schedule = (cell_schedule)schedule,
                                            .ranks = ranks,
                                            .replicas = kinds[kind].replicas,
                                            .experts = kinds[kind].experts,
                                            .mbs = 2 * ranks + ragged,
                                            .aux = aux};
    /* experts with two owners each, under every level of zero */
    for (uint32_t ranks = 1; ranks <= 2; ranks++)
        for (int across = 0; across < 2; across++)
            for (uint32_t zero = 0; zero < 4; zero++)
                for (int aux = 0; aux < 2; aux++)
                    cells[n++] = (cell){.schedule = CELL_ONE_F_ONE_B,
                                        .ranks = ranks,
                                        .replicas = 4,
                                        .experts = true,
                                        .mbs = 2 * ranks,
                                        .aux = aux,
                                        .team = 2,
                                        .across = across,
                                        .zero = zero};
    static const double capacities[] = {0.5, 1.0, 1.25};
    for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++)
        for (uint32_t replicas = 1; replicas <= 2; replicas++)
            for (uint32_t team = 1; team <= replicas; team++)
                cells[n++] = (cell){.schedule = CELL_ONE_F_ONE_B,
                                    .ranks = 2,
                                    .replicas = replicas,
                                    .experts = true,
                                    .mbs = 4,
                                    .aux = i == 1,
                                    .team = team,
                                    .capacity = capacities[i]};
    return n;
}

uint32_t cell_kind(const cell *c)
{
    if (c->capacity > 0)
        return 4;
    return c->team > 0 ? 3 : c->experts ? 2 : c->replicas > 1;
}

uint32_t cell_sharers(const cell *c)
{
    return !c->experts ? 1 : c->team > 0 ? c->team : c->replicas;
}

uint32_t cell_mate(const cell *c, uint32_t d, uint32_t index)
{
    uint32_t size = cell_sharers(c), n_teams = c->replicas / size;
    return c->across ? d % n_teams + index * n_teams : d / size * size + index;
}

const char *cell_name(const cell *c, char name[CELL_NAME])
{
    char team[16] = "", zero[16] = "", capacity[16] = "";
    if (c->team > 0)
        snprintf(team, sizeof team, "%u%s", c->team, c->across ? "x" : "");
    if (c->zero > 0)
        snprintf(zero, sizeof zero, "-zero%u", c->zero);
    if (c->capacity > 0)
        snprintf(capacity, sizeof capacity, "-c%g", 100 * c->capacity);
    snprintf(name, CELL_NAME, "%s-pp%u-dp%u%s%s-m%u%s%s%s", schedules[c->schedule].name, c->ranks,
             c->replicas, c->experts ? "ep" : "", team, c->mbs, zero, capacity,
             c->aux ? "-aux" : "");
    return name;
}

uint32_t cell_layers(const cell *c)
{
    return CELL_LAYERS_PER_RANK * c->ranks;
}

uint32_t cell_stages(const cell *c)
{
    return schedules[c->schedule].stages_per_rank * c->ranks;
}

uint32_t cell_batch(const cell *c)
{
    return (c->replicas > 2 ? c->replicas : 2) *
           c->mbs; /* replicas take a row of each microbatch */
}

uint32_t cell_rank_of(const cell *c, uint32_t s)
{
    if (schedules[c->schedule].v_placed)
        return s < c->ranks ? s : 2 * c->ranks - 1 - s;
    return s % c->ranks;
}

const char *cell_builder(const cell *c, char text[CELL_NAME])
{
    snprintf(text, CELL_NAME, "%s(%u, %u)", schedules[c->schedule].name, c->ranks, c->mbs);
    return text;
}

static void write_capacity(const cell *c, FILE *file)
{
    if (c->capacity > 0)
        fprintf(file, " capacity %g", c->capacity);
    fprintf(file, "\n");
}

static void write_shard(const cell *c, FILE *file)
{
    uint32_t size = cell_sharers(c);
    fprintf(file, "  shard {PP: s, EP: *} on ");
    if (size == c->replicas) {
        fprintf(file, "at[s]");
    } else {
        for (uint32_t team = 0; team < c->replicas / size; team++)
            for (uint32_t i = 0; i < size; i++)
                fprintf(file, "%sat[s][%u]%s",
                        i > 0      ? ", "
                        : team > 0 ? ", ["
                                   : "[[",
                        cell_mate(c, c->across ? team : team * size, i), i + 1 == size ? "]" : "");
        fprintf(file, "]");
    }
    fprintf(file, " stream ep");
    write_capacity(c, file);
}

static void write_directives(const cell *c, FILE *file)
{
    const struct schedule_row *row = &schedules[c->schedule];
    char builder[CELL_NAME];
    fprintf(file, "let at = %s(%u, ", row->stages, c->ranks);
    if (!row->v_placed)
        fprintf(file, "v=%u, ", row->stages_per_rank);
    fprintf(file, "dp=%u)\nfor s in 0..%u {\n", c->replicas, cell_stages(c));
    fprintf(file, "  place {PP: s} on at[s] stream pp\n");
    if (c->replicas > 1) {
        fprintf(file, "  replicate {PP: s} on at[s] reduce dp");
        if (c->zero > 0)
            fprintf(file, " zero %u", c->zero);
        fprintf(file, "\n");
    }
    if (c->experts)
        write_shard(c, file);
    fprintf(file, "}\nsplit {} by MB into %u\norder %s\n", c->mbs, cell_builder(c, builder));
}

void cell_write(const cell *c, const char *optimizer, bool alone, FILE *file)
{
    fprintf(file,
            "from \"models/qwen3_moe\" import qwen3_moe\n"
            "from \"schedules\" import %s, %s\n"
            "let pp, dp, ep = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\")]\n"
            "train qwen3_moe(tokens(%u, %d), targets(), stages=%u, layers=%u, dim=%d, heads=2,\n"
            "                kv_heads=1, head_dim=16, experts=%d, top_k=%d, expert_hidden=16,\n"
            "                vocab=32, aux_loss=%s) optimizer %s\n",
            schedules[c->schedule].name, schedules[c->schedule].stages, cell_batch(c), CELL_T,
            cell_stages(c), cell_layers(c), CELL_DIM, CELL_EXPERTS, CELL_TOP_K,
            c->aux ? "0.01" : "0.0", optimizer);
    if (!alone) {
        write_directives(c, file);
    } else if (c->capacity > 0) { /* a capacity is part of the computation */
        fprintf(file, "shard {EP: *} on [0]");
        write_capacity(c, file);
    }
}
