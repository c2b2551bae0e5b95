/* SPDX-License-Identifier: Apache-2.0
 *
 * costs.c: see costs.h. Chunks go by their names in plans, so a profile of one run fits every
 * schedule, placement and number of microbatches with the same regions and rows per microbatch.
 */
#include "runtime/cli/costs.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Measuring ---------------------------------------------------------------------------------
 */

/* What is measured of a chunk: its passes, and beside them those that run F again first. */
enum { AGAIN = PPS_PASS_COUNT, N_WORK = 2 * PPS_PASS_COUNT };

typedef struct sample {
    uint32_t chunk; /* of the model */
    uint8_t work;   /* pps_pass, or AGAIN + pps_pass */
    double seconds;
} sample;

typedef struct meeting { /* one communication, over all its ranks */
    double begin, end;   /* begin: of the last to come */
    uint64_t bytes;
} meeting;

static int by_what(const void *a, const void *b)
{
    const sample *x = a, *y = b;
    if (x->chunk != y->chunk)
        return x->chunk < y->chunk ? -1 : 1;
    if (x->work != y->work)
        return x->work < y->work ? -1 : 1;
    return x->seconds < y->seconds ? -1 : x->seconds > y->seconds;
}

static const plan *plan_of(const plan_set *set, uint32_t rank)
{
    return &set->plans[set->rank_group[rank]];
}

/* Costs are without what `recompute` adds: where a pass never ran otherwise, without its F. */
static void leave_out_again(double seconds[N_WORK])
{
    for (int pass = 0; pass < PPS_PASS_COUNT; pass++)
        if (isnan(seconds[pass]) && !isnan(seconds[AGAIN + pass]))
            seconds[pass] = fmax(seconds[AGAIN + pass] - seconds[PPS_PASS_F], 0);
}

/* seconds[chunk of the model][pass], NAN where nothing ran. */
static pps_status measure_computes(const plan_set *set, exec_mark *const *marks,
                                   double (*seconds)[N_WORK])
{
    size_t n = 0, at = 0;
    for (uint32_t r = 0; r < set->n_ranks; r++)
        n += plan_of(set, r)->n_steps;
    sample *samples = malloc((n + 1) * sizeof *samples);
    if (!samples)
        return PPS_ERR_NOMEM;
    for (uint32_t c = 0; c < set->n_chunks; c++)
        for (int work = 0; work < N_WORK; work++)
            seconds[c][work] = NAN;
    for (uint32_t r = 0; r < set->n_ranks; r++)
        for (uint32_t i = 0; i < plan_of(set, r)->n_steps; i++) {
            const plan_step *s = &plan_of(set, r)->steps[i];
            double ns = (double)(marks[r][i].end_ns - marks[r][i].begin_ns);
            int again = s->flags & PLAN_STEP_RECOMPUTE ? AGAIN : 0;
            if (s->kind == PLAN_COMPUTE)
                samples[at++] = (sample){set->chunk_model[plan_work_of(set, s)->chunk],
                                         (uint8_t)(again + s->pass), ns * 1e-9};
        }
    qsort(samples, at, sizeof *samples, by_what);
    for (size_t begin = 0, end; begin < at; begin = end) {
        for (end = begin; end < at && samples[end].chunk == samples[begin].chunk &&
                          samples[end].work == samples[begin].work;)
            end++;
        seconds[samples[begin].chunk][samples[begin].work] = samples[(begin + end) / 2].seconds;
    }
    free(samples);
    for (uint32_t c = 0; c < set->n_chunks; c++)
        leave_out_again(seconds[c]);
    return PPS_OK;
}

static pps_status measure_links(const plan_set *set, exec_mark *const *marks, pass_machine *ret)
{
    uint32_t n = 0;
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++)
            n = set->plans[g].steps[i].seq > n ? set->plans[g].steps[i].seq : n;
    meeting *all = calloc((size_t)n + 1, sizeof *all);
    if (!all)
        return PPS_ERR_NOMEM;
    for (uint32_t r = 0; r < set->n_ranks; r++)
        for (uint32_t i = 0; i < plan_of(set, r)->n_steps; i++) {
            const exec_mark *mark = &marks[r][i];
            meeting *m = &all[plan_of(set, r)->steps[i].seq];
            m->begin = fmax(m->begin, (double)mark->begin_ns * 1e-9);
            m->end = fmax(m->end, (double)mark->end_ns * 1e-9);
            m->bytes += mark->sent_bytes;
        }
    double least = INFINITY, beyond = 0, bytes = 0;
    for (uint32_t i = 1; i <= n; i++)
        if (all[i].end > all[i].begin)
            least = fmin(least, all[i].end - all[i].begin);
    for (uint32_t i = 1; i <= n; i++)
        if (all[i].end > all[i].begin) {
            beyond += all[i].end - all[i].begin - least;
            bytes += (double)all[i].bytes;
        }
    free(all);
    if (isfinite(least))
        ret->latency = least;
    if (beyond > 0 && bytes > 0)
        ret->bytes = bytes / beyond;
    return PPS_OK;
}

static bool runs_again(const plan_set *set, const plan_program *p)
{
    for (uint32_t i = p->kernels; i < p->kernels + p->n_kernels; i++)
        if (p->pass != PPS_PASS_F && set->kernels[i].op != PLAN_KERNEL_SUM &&
            set->kernels[i].phase == IR_PHASE_F)
            return true;
    return false;
}

/* FLOPs of a chunk's pass, whatever runs it; the least, if kernels of F run again in some. */
static double flops_of(const plan_set *set, uint32_t chunk, pps_pass pass)
{
    double least = INFINITY;
    for (uint32_t i = 0; i < set->n_programs; i++) {
        const plan_program *p = &set->programs[i];
        if (set->chunk_model[p->chunk] != chunk || p->pass != pass)
            continue;
        double again = runs_again(set, p) ? flops_of(set, chunk, PPS_PASS_F) : 0;
        least = fmin(least, fmax(p->flops - again, 0));
    }
    return isfinite(least) ? least : 0;
}

static json_t *chunk_json(const plan_set *set, uint32_t chunk, const double seconds[N_WORK])
{
    double bi = seconds[PPS_PASS_BI], bw = seconds[PPS_PASS_BW];
    if (!isnan(seconds[PPS_PASS_B]) && isnan(bi)) {
        double inputs = flops_of(set, chunk, PPS_PASS_BI);
        double all = inputs + flops_of(set, chunk, PPS_PASS_BW);
        bi = seconds[PPS_PASS_B] * (all > 0 ? inputs / all : 1);
        bw = seconds[PPS_PASS_B] - bi;
    }
    return json_pack("{s:s, s:[f, f, f]}", "chunk", set->chunk_names[chunk], "seconds",
                     seconds[PPS_PASS_F], isnan(bi) ? 0.0 : bi, isnan(bw) ? 0.0 : bw);
}

pps_status costs_write(pps_state *st, const plan_set *set, exec_mark *const *marks,
                       const char *path)
{
    pass_machine links = {.latency = -1, .bytes = -1};
    double(*seconds)[N_WORK] = malloc(((size_t)set->n_chunks + 1) * sizeof *seconds);
    pps_status status = seconds ? measure_computes(set, marks, seconds) : PPS_ERR_NOMEM;
    if (status == PPS_OK)
        status = measure_links(set, marks, &links);
    json_t *root = NULL, *list = json_array();
    for (uint32_t c = 0; status == PPS_OK && c < set->n_chunks; c++)
        if (set->chunk_model[c] == c)
            json_array_append_new(list, chunk_json(set, c, seconds[c]));
    free(seconds);
    if (status == PPS_OK)
        root = json_pack("{s:i, s:O}", "pps_costs", 1, "computes", list);
    json_decref(list);
    if (root && links.latency >= 0)
        json_object_set_new(root, "latency", json_real(links.latency));
    if (root && links.bytes > 0)
        json_object_set_new(root, "bytes_per_second", json_real(links.bytes));
    if (status == PPS_OK &&
        json_dump_file(root, path, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) != 0) {
        pps_error(st, (pps_span){0}, 974, "cannot write '%s': %s", path, strerror(errno));
        status = PPS_ERR_MACHINE;
    }
    json_decref(root);
    return status;
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

static bool read_seconds(const json_t *list, double ret[IR_PHASE_COUNT])
{
    if (!json_is_array(list) || json_array_size(list) != IR_PHASE_COUNT)
        return false;
    for (size_t i = 0; i < IR_PHASE_COUNT; i++) {
        const json_t *x = json_array_get(list, i);
        ret[i] = json_number_value(x);
        if (!json_is_number(x) || !isfinite(ret[i]) || ret[i] < 0)
            return false;
    }
    return true;
}

/* What is wrong with `root`, or NULL. */
static const char *take(const json_t *root, costs *c)
{
    json_int_t version = json_integer_value(json_object_get(root, "pps_costs"));
    const json_t *list = json_object_get(root, "computes"), *latency, *rate;
    size_t i, n = json_array_size(list);
    json_t *item;
    if (version != 1)
        return version > 1 ? "it is of a newer version" : "it does not say \"pps_costs\": 1";
    if (!json_is_array(list))
        return "it has no list \"computes\"";
    size_t texts = 0;
    json_array_foreach(list, i, item)
    {
        const json_t *name = json_object_get(item, "chunk");
        if (!json_is_string(name))
            return "one of its computes names no chunk";
        texts += json_string_length(name) + 1;
    }
    pass_cost *table = c->storage = malloc((n + 1) * sizeof *table + texts);
    if (!table)
        return "there is no memory for it";
    char *text = (char *)(table + n + 1);
    json_array_foreach(list, i, item)
    {
        const json_t *name = json_object_get(item, "chunk");
        table[i].chunk = text;
        memcpy(text, json_string_value(name), json_string_length(name) + 1);
        text += json_string_length(name) + 1;
        if (!read_seconds(json_object_get(item, "seconds"), table[i].seconds))
            return "\"seconds\" must be three numbers: of F, BI and BW";
    }
    c->machine = (pass_machine){.costs = table, .n_costs = (uint32_t)n, .latency = 0, .bytes = 0};
    latency = json_object_get(root, "latency");
    rate = json_object_get(root, "bytes_per_second");
    if ((latency && !(json_number_value(latency) >= 0)) || (rate && !(json_number_value(rate) > 0)))
        return "\"latency\" must be 0 or more, \"bytes_per_second\" more than 0";
    c->machine.latency = json_number_value(latency);
    c->machine.bytes = json_number_value(rate);
    return NULL;
}

pps_status costs_read(pps_state *st, const char *path, costs *ret)
{
    json_error_t error;
    *ret = (costs){0};
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return pps_error(st, (pps_span){0}, 979, "cannot read the costs in '%s': %s", path,
                         error.text);
    const char *wrong = take(root, ret);
    json_decref(root);
    return wrong
               ? pps_error(st, (pps_span){0}, 979, "the costs in '%s' are no use: %s", path, wrong)
               : PPS_OK;
}

void costs_done(costs *c)
{
    free(c->storage);
    *c = (costs){0};
}
