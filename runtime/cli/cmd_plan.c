/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_plan.c: `pps plan`: the steps of each plan as text, as JSON, or as a graph for Graphviz; or
 * all plans as a file that other machines run.
 *
 * Text is ir's own form. JSON has one object per plan with its ranks, memory and steps. In the
 * graph a column is a stream in issue order, and a line between columns is a wait.
 */
#include "runtime/cli/commands.h"

#include <string.h>

#include "ir/plan_file.h"
#include "runtime/cli/session.h"

static const char *const pass_names[] = {
    [PPS_PASS_F] = "F", [PPS_PASS_B] = "B", [PPS_PASS_BI] = "BI", [PPS_PASS_BW] = "BW"};

/* The plans to print: all, or that of the rank asked for. */
static bool wanted(const session *s, uint32_t group)
{
    return !s->options->has_rank || s->plans->rank_group[s->options->rank] == group;
}

static json_t *place_json(const session *s, pps_span span)
{
    const char *file;
    uint32_t line, column;
    if (!span.file)
        return json_null();
    pps_span_place(s->st, span, &file, &line, &column);
    return json_sprintf("%s:%u", file, line);
}

static json_t *step_json(const session *s, const plan *p, uint32_t i)
{
    const plan_set *set = s->plans;
    const plan_step *step = &p->steps[i];
    const plan_work *work = plan_work_of(set, step);
    char label[128];
    plan_step_label(set, p, step, label, sizeof label);
    json_t *json =
        json_pack("{s:i, s:s, s:s, s:s}", "step", (int)i, "kind", plan_step_name(step->kind),
                  "label", label, "stream", set->streams[step->stream]);
    json_t *waits = json_array();
    for (uint32_t w = 0; w < step->n_waits; w++)
        json_array_append_new(waits, json_integer(p->waits[step->waits + w]));
    json_object_set_new(json, "waits", waits);
    if (step->kind == PLAN_COMPUTE)
        json_object_set_new(json, "pass", json_string(pass_names[step->pass]));
    bool of_bucket = plan_is(step->kind, PLAN_BUCKET);
    if (of_bucket)
        json_object_set_new(json, "bucket", json_integer(work->chunk));
    if (of_bucket && step->mb != IR_NONE)
        json_object_set_new(json, "window", json_integer(step->mb));
    if (!of_bucket)
        json_object_set_new(json, "microbatch", json_integer(step->mb / set->n_slices));
    if (!of_bucket && set->slice_tag != NULL)
        json_object_set_new(json, "slice", json_integer(step->mb % set->n_slices));
    if (step->row_group != IR_NONE)
        json_object_set_new(json, "row_group", json_integer(step->row_group));
    if (!of_bucket && work->chunk != IR_NONE) {
        json_object_set_new(json, "chunk", json_string(set->chunk_names[work->chunk]));
        json_object_set_new(json, "stage", json_integer(set->chunk_stage[work->chunk]));
    }
    if (step->seq) {
        json_object_set_new(json, "sequence", json_integer(step->seq));
        json_object_set_new(json, "bytes", json_integer((json_int_t)work->bytes));
    }
    if (plan_is(step->kind, PLAN_COPY))
        json_object_set_new(json, "bytes", json_integer((json_int_t)work->bytes));
    if (work->teams != IR_NONE)
        json_object_set_new(json, "teams", json_integer(work->teams));
    if (step->kind == PLAN_SEND || step->kind == PLAN_RECV)
        json_object_set_new(json, "peer_group", json_integer(work->peer_group));
    if (step->flags & PLAN_STEP_OVERLAP)
        json_object_set_new(json, "overlap", json_true());
    if (step->flags & PLAN_STEP_RECOMPUTE)
        json_object_set_new(json, "recompute", json_true());
    json_object_set_new(json, "place", place_json(s, plan_place_of(set, step)));
    return json;
}

static json_t *bucket_json(const plan_bucket *b)
{
    json_t *json =
        json_pack("{s:i, s:I, s:b, s:i}", "parameters", (int)b->n, "bytes", (json_int_t)b->bytes,
                  "reduced", (int)plan_reduced(b), "zero", (int)b->zero);
    if (b->zero > 1)
        json_object_set_new(json, "every", json_integer(b->every));
    return json;
}

static json_t *plan_json(const session *s, const plan *p)
{
    const plan_set *set = s->plans;
    json_t *ranks = json_array(), *steps = json_array(), *buckets = json_array();
    for (uint32_t i = 0; i < p->n_ranks; i++)
        json_array_append_new(ranks, json_integer(set->group_ranks[p->ranks + i]));
    for (uint32_t i = 0; i < p->n_steps; i++)
        json_array_append_new(steps, step_json(s, p, i));
    for (uint32_t b = 0; b < p->n_buckets; b++)
        json_array_append_new(buckets, bucket_json(&p->buckets[b]));
    json_t *bytes =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "parameters", (json_int_t)p->param_bytes,
                  "gradients", (json_int_t)(p->opt_offset - p->grad_offset), "optimizer",
                  (json_int_t)p->opt_bytes, "data", (json_int_t)p->data_bytes, "activations",
                  (json_int_t)p->act_bytes, "total", (json_int_t)p->total_bytes, "host",
                  (json_int_t)p->host_bytes);
    return json_pack("{s:i, s:o, s:s, s:o, s:b, s:o, s:o}", "group", (int)p->group, "ranks", ranks,
                     "row", set->row_text && set->row_text[p->group] ? set->row_text[p->group] : "",
                     "bytes", bytes, "dropless", (int)p->dropless, "buckets", buckets, "steps",
                     steps);
}

/* [[0, 1], [2, 3]]: the teams that collectives of this number run in */
static json_t *teams_json(const plan_set *set, const plan_teams *t)
{
    json_t *teams = json_array(), *team = NULL;
    for (uint32_t i = 0; i < t->n_ranks; i++) {
        if (i % t->size == 0) {
            team = json_array();
            json_array_append_new(teams, team);
        }
        json_array_append_new(team, json_integer(set->team_ranks[t->ranks + i]));
    }
    return teams;
}

static bool print_json(const session *s)
{
    json_t *plans = json_array(), *teams = json_array();
    for (uint32_t i = 0; i < s->plans->n_teams; i++)
        json_array_append_new(teams, teams_json(s->plans, &s->plans->teams[i]));
    for (uint32_t g = 0; g < s->plans->n_groups; g++) {
        if (wanted(s, g))
            json_array_append_new(plans, plan_json(s, &s->plans->plans[g]));
    }
    return report_json(json_pack("{s:i, s:i, s:i, s:o, s:o, s:o}", "ranks", (int)s->plans->n_ranks,
                                 "microbatches", (int)(s->plans->n_mb / s->plans->n_slices),
                                 "slices", (int)s->plans->n_slices, "teams", teams, "plans", plans,
                                 "settings",
                                 report_settings()),
                       true);
}

static const char *step_color(const plan_step *step)
{
    static const char *const by_pass[] = {[PPS_PASS_F] = "#9ec5fe",
                                          [PPS_PASS_B] = "#a3d9a5",
                                          [PPS_PASS_BI] = "#a8e0e6",
                                          [PPS_PASS_BW] = "#f5e29a"};
    return step->kind == PLAN_COMPUTE ? by_pass[step->pass] : "#e8e8e8";
}

/* One cluster per plan: steps of a stream are chained, waits are dashed. */
static void print_dot_plan(const session *s, const plan *p)
{
    const plan_set *set = s->plans;
    printf("  subgraph cluster_%u {\n    label=\"ranks", p->group);
    for (uint32_t i = 0; i < p->n_ranks; i++)
        printf(" %u", set->group_ranks[p->ranks + i]);
    printf("\";\n");
    for (uint32_t i = 0; i < p->n_steps; i++) {
        char label[128];
        plan_step_label(set, p, &p->steps[i], label, sizeof label);
        printf("    g%us%u [label=\"%s\", fillcolor=\"%s\", group=\"g%u_%u\"];\n", p->group, i,
               label, step_color(&p->steps[i]), p->group, p->steps[i].stream);
    }
    for (uint32_t stream = 0; stream < set->n_streams; stream++) {
        uint32_t last = IR_NONE;
        for (uint32_t i = 0; i < p->n_steps; i++) {
            if (p->steps[i].stream != stream)
                continue;
            if (last != IR_NONE)
                printf("    g%us%u -> g%us%u;\n", p->group, last, p->group, i);
            last = i;
        }
    }
    for (uint32_t i = 0; i < p->n_steps; i++) {
        for (uint32_t w = 0; w < p->steps[i].n_waits; w++)
            printf("    g%us%u -> g%us%u [style=dashed];\n", p->group,
                   p->waits[p->steps[i].waits + w], p->group, i);
    }
    printf("  }\n");
}

static void print_dot(const session *s)
{
    printf("digraph plan {\n  rankdir=TB;\n  node [shape=box, style=filled, "
           "fontname=\"sans-serif\"];\n");
    for (uint32_t g = 0; g < s->plans->n_groups; g++) {
        if (wanted(s, g))
            print_dot_plan(s, &s->plans->plans[g]);
    }
    printf("}\n");
}

static pps_status print_plans(const session *s)
{
    const cli_options *o = s->options;
    if (o->has_rank && o->rank >= s->plans->n_ranks)
        return pps_error(s->st, (pps_span){0}, 973, "there is no rank %llu: the %s ranks 0 to %u",
                         (unsigned long long)o->rank,
                         s->from_file ? "plan file has" : "script places", s->plans->n_ranks - 1);
    if (o->json || o->format == CLI_JSON)
        return print_json(s) ? PPS_OK : PPS_ERR_MACHINE;
    if (o->format == CLI_DOT) {
        print_dot(s);
        return PPS_OK;
    }
    if (o->format == CLI_FILE_TEXT)
        return plan_file_write(s->st, s->plans, PLAN_FILE_TEXT, report_to_file, stdout);
    for (uint32_t g = 0; g < s->plans->n_groups; g++) {
        if (wanted(s, g))
            plan_dump(s->plans, g, report_to_file, stdout);
    }
    return PPS_OK;
}

int cmd_plan(const cli_options *options)
{
    bool whole = options->output || options->format == CLI_FILE_TEXT;
    if (whole && (options->has_rank || options->json)) {
        fprintf(stderr, "pps plan: a plan file holds the plans of all ranks: it goes without "
                        "--rank and --json\n");
        return CLI_EXIT_USAGE;
    }
    if (options->output && options->format != CLI_TEXT) {
        fprintf(stderr, "pps plan: -o writes a plan file, which has no --format\n");
        return CLI_EXIT_USAGE;
    }
    session s;
    pps_status status = session_plans(&s, options);
    if (status == PPS_OK && options->output)
        status = session_write_plans(&s, options->output);
    else if (status == PPS_OK)
        status = print_plans(&s);
    return session_end(&s, status);
}
