/* SPDX-License-Identifier: Apache-2.0
 *
 * traffic.c: bytes sent, counted in four ways. What a figure must be follows here from the cell:
 * every stage boundary between ranks is crossed once per microbatch in each direction, a gradient
 * is reduced once per step, and one of an expert only between the ranks that own it.
 */
#include "traffic.h"

#include <stdlib.h>
#include <string.h>

enum {
    KIND_SEND,
    KIND_ALL_REDUCE,
    KIND_REDUCE_SCATTER,
    KIND_ALL_GATHER,
    KIND_COUNTS,
    KIND_ALL_TO_ALL,
    KINDS
};
static const char *const kind_names[KINDS] = {"send",       "all_reduce", "reduce_scatter",
                                              "all_gather", "counts",     "all_to_all"};

typedef uint64_t by_kind[KINDS];

/* ---- What the cell demands ----------------------------------------------------------------- */

static uint32_t rows_of_mb(const cell *c)
{
    return cell_batch(c) / (c->replicas * c->mbs);
}

static uint64_t sent_forward_and_back(const cell *c, uint32_t pipeline_rank)
{
    uint64_t one = (uint64_t)rows_of_mb(c) * CELL_T * CELL_DIM * sizeof(float), sum = 0;
    for (uint32_t s = 0; s + 1 < cell_stages(c); s++) {
        uint32_t from = cell_rank_of(c, s), to = cell_rank_of(c, s + 1);
        if (from != to)
            sum += ((from == pipeline_rank) + (to == pipeline_rank)) * c->mbs * one;
    }
    return sum;
}

static uint32_t stage_of_tensor(const cell *c, const char *name)
{
    static const char layers[] = "model.layers.";
    uint32_t per_stage = cell_layers(c) / cell_stages(c);
    if (strncmp(name, layers, strlen(layers)) == 0)
        return (uint32_t)strtoul(name + strlen(layers), NULL, 10) / per_stage;
    return strstr(name, "embed") ? 0 : cell_stages(c) - 1;
}

/* Each of n ranks sends the others their part of its sums, and its part of the totals. */
static uint64_t reduced(const cell *c, uint32_t pipeline_rank, const tensor_file *params)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < params->n; i++) {
        const tensor *t = &params->tensors[i];
        uint32_t sharers = strstr(t->name, ".experts.") ? cell_sharers(c) : 1;
        uint64_t bytes = t->elems / sharers * sizeof(float), n = c->replicas / sharers;
        if (cell_rank_of(c, stage_of_tensor(c, t->name)) == pipeline_rank)
            sum += 2 * (n - 1) * bytes / n;
    }
    return sum;
}

/* Under zero what is reduced and gathered is the plan's to say. */
static void demanded(const cell *c, uint32_t rank, const tensor_file *params, const by_kind plan,
                     by_kind ret)
{
    uint32_t r = rank % c->ranks;
    ret[KIND_SEND] = sent_forward_and_back(c, r);
    ret[KIND_ALL_REDUCE] = c->zero > 0 ? 0 : reduced(c, r, params);
    ret[KIND_REDUCE_SCATTER] = c->zero > 0 ? plan[KIND_REDUCE_SCATTER] : 0;
    ret[KIND_ALL_GATHER] = c->zero > 0 ? plan[KIND_ALL_GATHER] : 0;
    ret[KIND_COUNTS] = (uint64_t)(cell_sharers(c) - 1) * CELL_LAYERS_PER_RANK * c->mbs *
                       CELL_EXPERTS * sizeof(int32_t);
    ret[KIND_ALL_TO_ALL] = 0;
}

/* ---- What the plan says -------------------------------------------------------------------- */

static bool has_rank(const json_t *plan, uint32_t rank)
{
    const json_t *ranks = json_object_get(plan, "ranks");
    for (size_t i = 0; i < json_array_size(ranks); i++) {
        if (json_integer_value(json_array_get(ranks, i)) == (json_int_t)rank)
            return true;
    }
    return false;
}

/* Ranks of the teams that a collective runs in; 0 for other steps. */
static uint64_t team_size(const json_t *plans, const json_t *step)
{
    const json_t *number = json_object_get(step, "teams");
    const json_t *all = json_object_get(plans, "teams");
    return number ? json_array_size(
                        json_array_get(json_array_get(all, (size_t)json_integer_value(number)), 0))
                  : 0;
}

static bool planned(const json_t *plans, uint32_t rank, by_kind ret)
{
    size_t i, k;
    json_t *plan, *step;
    memset(ret, 0, sizeof(by_kind));
    json_array_foreach(json_object_get(plans, "plans"), i, plan)
    {
        if (!has_rank(plan, rank))
            continue;
        json_array_foreach(json_object_get(plan, "steps"), k, step)
        {
            const char *kind = json_string_value(json_object_get(step, "kind"));
            uint64_t bytes = (uint64_t)json_integer_value(json_object_get(step, "bytes"));
            uint64_t n = team_size(plans, step);
            for (int j = 0; j < KINDS; j++) {
                if (strcmp(kind, kind_names[j]) == 0)
                    ret[j] += j == KIND_ALL_REDUCE       ? 2 * (n - 1) * bytes / n
                              : j == KIND_REDUCE_SCATTER ? (n - 1) * (bytes / n)
                              : j == KIND_ALL_GATHER     ? (n - 1) * (bytes / n)
                                                         : bytes;
            }
        }
        return true;
    }
    return false;
}

static bool check_rank(const cell *c, uint32_t rank, const training *tr, const trace *t,
                       const json_t *plans, const tensor_file *params, reason *why)
{
    by_kind plan, must;
    const json_t *sent = json_array_get(json_object_get(tr->done, "sent_bytes"), rank);
    if (!planned(plans, rank, plan))
        return fail(why, "no plan is for rank %u", rank);
    demanded(c, rank, params, plan, must);
    for (int k = 0; k < KINDS; k++) {
        uint64_t ran = (uint64_t)json_integer_value(json_object_get(sent, kind_names[k]));
        uint64_t traced = trace_sent(t, rank, kind_names[k]);
        bool exact = k != KIND_COUNTS && k != KIND_ALL_TO_ALL;
        if (ran != traced)
            return fail(why, "rank %u sent %llu bytes by %s, but its trace says %llu", rank,
                        (unsigned long long)ran, kind_names[k], (unsigned long long)traced);
        if (exact ? ran != plan[k] : ran > plan[k])
            return fail(why, "rank %u sent %llu bytes by %s, planned are %llu", rank,
                        (unsigned long long)ran, kind_names[k], (unsigned long long)plan[k]);
        if (k != KIND_ALL_TO_ALL && ran != must[k])
            return fail(why, "rank %u sent %llu bytes by %s, but the cell demands %llu", rank,
                        (unsigned long long)ran, kind_names[k], (unsigned long long)must[k]);
    }
    return true;
}

bool traffic_as_planned(const cell *c, const training *tr, const trace *t, const json_t *plan,
                        const tensor_file *params, reason *why)
{
    for (uint32_t rank = 0; rank < c->ranks * c->replicas; rank++) {
        if (!check_rank(c, rank, tr, t, plan, params, why))
            return false;
    }
    return true;
}

/* ---- Experts ------------------------------------------------------------------------------- */

enum { MAX_LAYERS = 8 };

/* The bytes of one kind of all-to-all of (rank, stage, mb), by layer as they ran; their number. */
static uint32_t exchanges(const trace *t, uint32_t rank, uint32_t stage, uint32_t mb, bool forward,
                          bool back, uint64_t ret[MAX_LAYERS])
{
    static const char returning[] = "all_to_all back ";
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        const trace_event *e = &t->events[i];
        if (e->rank != rank || e->stage != stage || e->mb != mb ||
            strcmp(e->kind, "all_to_all") != 0 || (strcmp(e->pass, "F") == 0) != forward ||
            (strncmp(e->label, returning, strlen(returning)) == 0) != back)
            continue;
        if (n < MAX_LAYERS)
            ret[n] = e->bytes;
        n++;
    }
    return n;
}

static bool check_exchange(const cell *c, const trace *t, uint32_t rank, uint32_t stage,
                           uint32_t mb, uint64_t *total, reason *why)
{
    uint64_t out[MAX_LAYERS], back[MAX_LAYERS], d_out[MAX_LAYERS], d_back[MAX_LAYERS];
    uint64_t peer_out[MAX_LAYERS], width = CELL_DIM * sizeof(float);
    uint64_t most = (uint64_t)rows_of_mb(c) * CELL_T * CELL_TOP_K * width;
    uint32_t layers = cell_layers(c) / cell_stages(c);
    uint32_t d = rank / c->ranks; /* teams of two */
    uint32_t other = cell_mate(c, d, cell_mate(c, d, 0) == d);
    uint32_t peer = other * c->ranks + rank % c->ranks;
    if (exchanges(t, rank, stage, mb, true, false, out) != layers ||
        exchanges(t, rank, stage, mb, true, true, back) != layers ||
        exchanges(t, rank, stage, mb, false, false, d_out) != layers ||
        exchanges(t, rank, stage, mb, false, true, d_back) != layers ||
        exchanges(t, peer, stage, mb, true, false, peer_out) != layers)
        return fail(why, "stage %u of microbatch %u lacks all-to-alls on rank %u or %u", stage, mb,
                    rank, peer);
    for (uint32_t l = 0; l < layers; l++) {
        uint32_t mirrored = layers - 1 - l;
        if (out[l] % width != 0 || out[l] > most)
            return fail(why, "rank %u sent %llu bytes of rows, not 0 to %llu rows", rank,
                        (unsigned long long)out[l], (unsigned long long)(most / width));
        if (back[l] != peer_out[l] || d_out[mirrored] != out[l] || d_back[mirrored] != back[l])
            return fail(why,
                        "stage %u, microbatch %u on rank %u: %llu bytes out and %llu back forward, "
                        "%llu and %llu backward, %llu out of rank %u",
                        stage, mb, rank, (unsigned long long)out[l], (unsigned long long)back[l],
                        (unsigned long long)d_out[mirrored], (unsigned long long)d_back[mirrored],
                        (unsigned long long)peer_out[l], peer);
        *total += out[l];
    }
    return true;
}

bool traffic_of_experts(const cell *c, const trace *t, reason *why)
{
    uint64_t total = 0;
    for (uint32_t s = 0; s < cell_stages(c); s++)
        for (uint32_t d = 0; d < c->replicas; d++)
            for (uint32_t mb = 0; mb < c->mbs; mb++) {
                uint32_t rank = d * c->ranks + cell_rank_of(c, s);
                if (!check_exchange(c, t, rank, s, mb, &total, why))
                    return false;
            }
    return total > 0 || fail(why, "no row left its rank");
}
