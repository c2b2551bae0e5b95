/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_check.c: `pps check`: compile, prove, and say what every rank will do and need.
 */
#include "runtime/cli/commands.h"

#include <math.h>

#include "runtime/cli/session.h"

static const plan *plan_of_rank(const plan_set *set, uint32_t rank)
{
    return &set->plans[set->rank_group[rank]];
}

static bool print_json(const plan_set *set)
{
    json_t *steps = json_array(), *peaks = json_array();
    for (uint32_t r = 0; r < set->n_ranks; r++) {
        json_array_append_new(steps, json_integer(plan_of_rank(set, r)->n_steps));
        json_array_append_new(peaks, json_integer((json_int_t)plan_of_rank(set, r)->total_bytes));
    }
    return report_json(json_pack("{s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o}", "ranks",
                                 (int)set->n_ranks, "nodes", (int)set->n_nodes, "edges",
                                 (int)set->n_edges, "plan_steps", steps, "peak_bytes", peaks,
                                 "bubble", report_number(set->bubble), "compile_ms",
                                 report_number(set->compile_ms), "settings", report_settings()),
                       false);
}

static void print_text(const session *s)
{
    const plan_set *set = s->plans;
    char parameters[32], gradients[32], optimizer[32], activations[32], peak[32];
    printf(
        "%s: %u rank%s in %u group%s, %u microbatch%s, %u nodes, %u edges, %s in %.1f ms\n",
        s->script, set->n_ranks, set->n_ranks == 1 ? "" : "s", set->n_groups,
        set->n_groups == 1 ? "" : "s", set->n_mb, set->n_mb == 1 ? "" : "es", set->n_nodes,
        set->n_edges, s->from_file ? "read and proved" : "compiled", set->compile_ms);
    printf("%-5s %6s %12s %12s %12s %12s %12s\n", "rank", "steps", "parameters", "gradients",
           "optimizer", "activations", "peak");
    for (uint32_t r = 0; r < set->n_ranks; r++) {
        const plan *p = plan_of_rank(set, r);
        printf("%-5u %6u %12s %12s %12s %12s %12s%s\n", r, p->n_steps,
               report_bytes(p->param_bytes, parameters),
               report_bytes(p->opt_offset - p->grad_offset, gradients),
               report_bytes(p->opt_bytes, optimizer), report_bytes(p->act_bytes, activations),
               report_bytes(p->total_bytes, peak), p->dropless ? " at most" : "");
    }
    if (isfinite(set->bubble))
        printf("bubble %.1f %%, makespan %.9g (%s)\n", 100 * set->bubble, set->makespan,
               report_settings_text());
}

int cmd_check(const cli_options *options)
{
    session s;
    pps_status status = session_plans(&s, options);
    if (status == PPS_OK && options->json)
        status = print_json(s.plans) ? PPS_OK : PPS_ERR_MACHINE;
    else if (status == PPS_OK)
        print_text(&s);
    return session_end(&s, status);
}
