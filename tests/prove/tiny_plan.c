/* SPDX-License-Identifier: Apache-2.0
 *
 * tiny_plan.c: a tiny plan as a plan_set. Every compute is the forward of a chunk of its own, with
 * a program that does nothing; every step has a work of its own.
 */
#include "tiny.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = TINY_RANKS * TINY_STEPS };

struct tiny_prover {
    pps_state *st;
    int code;
    char said[4096];
    plan_set set;
    plan plans[TINY_RANKS];
    plan_step steps[TINY_RANKS][TINY_STEPS];
    uint32_t waits[TINY_RANKS][TINY_STEPS * TINY_STEPS];
    uint32_t bindings[TINY_RANKS][3 * TINY_STEPS];
    plan_work works[MOST];
    plan_program programs[MOST];
    plan_buffer buffers[1];
    uint32_t work_buffers[3];
    plan_bucket held[1];
    pps_span places[1];
    uint32_t ranks[TINY_RANKS], zeros[TINY_RANKS], chunk_stage[MOST], chunk_model[MOST];
    plan_teams teams[TINY_RANKS + MOST + 1]; /* groups; then each collective's */
    uint32_t team_ranks[TINY_RANKS * (TINY_RANKS + MOST + 1)];
    const char *chunk_names[MOST], *streams[TINY_STREAMS];
};

static void on_diag(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    tiny_prover *p = ud;
    (void)severity, (void)span;
    p->code = code;
    strncpy(p->said, text, sizeof p->said - 1);
}

tiny_prover *tiny_prover_new(void)
{
    tiny_prover *p = calloc(1, sizeof *p);
    if (p == NULL)
        abort();
    pps_config config = {.size = sizeof config, .diag = on_diag, .diag_ud = p};
    if (pps_open(PPS_ABI, &config, &p->st) != PPS_OK)
        abort();
    return p;
}

void tiny_prover_free(tiny_prover *p)
{
    pps_close(p->st);
    free(p);
}

const char *tiny_said(const tiny_prover *p)
{
    return p->said;
}

static uint32_t find_seq(const tiny *t, uint32_t rank, uint32_t seq)
{
    uint32_t base = 0, i = 0;
    for (uint32_t g = 0; g < rank; g++)
        base += t->n_steps[g];
    while (i < t->n_steps[rank] && t->steps[rank][i].seq != seq)
        i++;
    return base + i;
}

static void make_step(tiny_prover *p, const tiny *t, uint32_t g, uint32_t i, uint32_t id)
{
    static const uint8_t kinds[] = {
        [TINY_COMPUTE] = PLAN_COMPUTE,
        [TINY_SEND] = PLAN_SEND,
        [TINY_RECV] = PLAN_RECV,
        [TINY_COLLECTIVE] = PLAN_COUNTS,
    };
    const tiny_step *from = &t->steps[g][i];
    plan *mine = &p->plans[g];
    plan_step *s = &p->steps[g][i];
    plan_work *w = &p->works[id];
    *w = (plan_work){.program = IR_NONE, .peer_group = IR_NONE, .peer = IR_NONE, .teams = IR_NONE};
    *s = (plan_step){.kind = kinds[from->kind],
                     .stream = from->stream,
                     .work = id,
                     .waits = mine->n_waits,
                     .seq = from->seq,
                     .row_group = IR_NONE};
    for (uint32_t k = 0; k < i; k++)
        if (from->waits >> k & 1) {
            mine->waits[mine->n_waits++] = k;
            s->n_waits++;
        }
    switch ((tiny_kind)from->kind) {
    case TINY_COMPUTE:
        w->chunk = p->set.n_chunks++;
        w->program = p->set.n_programs++;
        p->programs[w->program] = (plan_program){.chunk = w->chunk, .pass = PPS_PASS_F};
        break;
    case TINY_SEND:
    case TINY_RECV:
        w->peer_group = from->peer;
        w->peer = find_seq(t, from->peer, from->seq);
        w->n_buffers = s->n_bindings = 1;
        break;
    case TINY_COLLECTIVE:
        w->teams = t->n_ranks + from->seq;
        w->n_buffers = s->n_bindings = 2; /* counts of no experts */
        break;
    }
    mine->n_bindings += s->n_bindings;
}

/* Every rank is a group and a team; then one team for each sequence number: the ranks that have it.
 */
static void make_teams(tiny_prover *p, const tiny *t)
{
    plan_set *set = &p->set;
    set->teams = p->teams;
    set->team_ranks = p->team_ranks;
    for (uint32_t i = 0; i < t->n_ranks + MOST + 1; i++) {
        plan_teams *teams = &set->teams[set->n_teams++];
        *teams = (plan_teams){.ranks = set->n_team_ranks};
        for (uint32_t g = 0; g < t->n_ranks; g++) {
            bool in = i == g;
            for (uint32_t k = 0; i >= t->n_ranks && k < t->n_steps[g]; k++)
                in |= t->steps[g][k].seq == i - t->n_ranks;
            if (in)
                p->team_ranks[set->n_team_ranks++] = g;
        }
        teams->n_ranks = set->n_team_ranks - teams->ranks;
        teams->size = teams->n_ranks > 0 ? teams->n_ranks : 1;
    }
}

int tiny_prove(tiny_prover *p, const tiny *t, bool buffered)
{
    prove_options options = {.buffered = buffered};
    uint32_t id = 0;
    p->set = (plan_set){.n_groups = t->n_ranks,
                        .n_ranks = t->n_ranks,
                        .plans = p->plans,
                        .group_ranks = p->ranks,
                        .rank_group = p->ranks,
                        .rank_index = p->zeros,
                        .rank_replica = p->zeros,
                        .rank_part = p->zeros,
                        .n_mb = 1,
                        .n_slices = 1,
                        .works = p->works,
                        .buffers = p->buffers,
                        .n_buffers = 1,
                        .work_buffers = p->work_buffers,
                        .n_work_buffers = 3,
                        .places = p->places,
                        .n_places = 1,
                        .programs = p->programs,
                        .streams = p->streams,
                        .n_streams = TINY_STREAMS,
                        .chunk_names = p->chunk_names,
                        .chunk_stage = p->chunk_stage,
                        .chunk_model = p->chunk_model};
    p->buffers[0] = (plan_buffer){.per = 1};
    make_teams(p, t);
    for (uint32_t i = 0; i < MOST; i++) {
        p->chunk_names[i] = "chunk";
        p->chunk_model[i] = i;
    }
    for (uint32_t g = 0; g < TINY_RANKS; g++)
        p->ranks[g] = g;
    for (uint32_t i = 0; i < TINY_STREAMS; i++)
        p->streams[i] = "stream";
    for (uint32_t g = 0; g < t->n_ranks; g++) {
        p->plans[g] = (plan){.group = g,
                             .n_ranks = 1,
                             .ranks = g,
                             .n_replicas = 1,
                             .n_parts = 1,
                             .steps = p->steps[g],
                             .n_steps = t->n_steps[g],
                             .bindings = p->bindings[g],
                             .waits = p->waits[g],
                             .buckets = p->held};
        for (uint32_t i = 0; i < t->n_steps[g]; i++)
            make_step(p, t, g, i, id++);
    }
    if (p->set.n_chunks == 0)
        p->set.n_chunks = 1; /* communication names chunk 0 */
    p->set.n_works = id;
    p->code = 0;
    p->said[0] = '\0';
    pps_clear_errors(p->st);
    return pps_prove_with(p->st, &p->set, &options) == PPS_OK ? 0 : p->code;
}
