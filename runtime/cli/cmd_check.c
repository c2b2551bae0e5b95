/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_check.c: `pps check`: compile, prove, and say what every rank will do and need: its memory by
 * what it is for, the peak, and beside it the least that any way of placing buffers could need.
 */
#include "runtime/cli/commands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cli/session.h"

static const plan *plan_of_rank(const plan_set *set, uint32_t rank)
{
    return &set->plans[set->rank_group[rank]];
}

typedef struct memory_classes {     /* bytes of one rank; all but `least` sum up to `peak` */
    uint64_t parameters, gradients; /* with those in buffers, at the step at which most is live */
    uint64_t optimizer, data;
    uint64_t communication; /* other buffers that communication fills, at that step */
    uint64_t activations;   /* what the buffers take beside these */
    uint64_t peak;
    uint64_t least; /* the peak if buffers lay without any holes: see plan.least_bytes */
    uint64_t host;  /* of host memory */
} memory_classes;

enum { PARAMETERS, GRADIENTS, COMMUNICATION, ACTIVATIONS, N_CLASSES };

static int class_of(const plan *p, const plan_block *b)
{
    if (b->what == PLAN_BLOCK_PARAMS)
        return PARAMETERS;
    if (b->what == PLAN_BLOCK_GRADS)
        return GRADIENTS;
    return plan_communicates(p->steps[b->first].kind) ? COMMUNICATION : ACTIVATIONS;
}

/* Bytes of each class at the step at which most is live. */
static pps_status live_classes(const plan *p, uint64_t ret[N_CLASSES])
{
    uint64_t live[N_CLASSES] = {0}, all = 0, most = 0;
    uint64_t(*ended)[N_CLASSES] = calloc((size_t)p->n_steps + 1, sizeof *ended);
    if (ended == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t t = 0, b = 0; t < p->n_steps; t++) {
        for (; b < p->n_blocks && p->blocks[b].first == t; b++) {
            int class = class_of(p, &p->blocks[b]);
            live[class] += plan_block_bytes(&p->blocks[b]);
            all += plan_block_bytes(&p->blocks[b]);
            ended[p->blocks[b].last][class] += plan_block_bytes(&p->blocks[b]);
        }
        if (all > most) {
            most = all;
            memcpy(ret, live, sizeof live);
        }
        for (int k = 0; k < N_CLASSES; k++) {
            live[k] -= ended[t][k];
            all -= ended[t][k];
        }
    }
    free(ended);
    return PPS_OK;
}

static pps_status classes_of(const plan *p, memory_classes *ret)
{
    uint64_t live[N_CLASSES] = {0};
    PPS_TRY(live_classes(p, live));
    *ret = (memory_classes){.parameters = p->param_bytes + live[PARAMETERS],
                            .gradients = p->opt_offset - p->grad_offset + live[GRADIENTS],
                            .optimizer = p->opt_bytes,
                            .data = p->data_bytes,
                            .communication = live[COMMUNICATION],
                            .activations = p->act_bytes - live[PARAMETERS] - live[GRADIENTS] -
                                           live[COMMUNICATION],
                            .peak = p->total_bytes,
                            .least = p->total_bytes - p->act_bytes + p->least_bytes,
                            .host = p->host_bytes};
    return PPS_OK;
}

/* Classes of each group, once for all its ranks; owned by the caller. */
static memory_classes *all_classes(const plan_set *set)
{
    memory_classes *all = calloc((size_t)set->n_groups + 1, sizeof *all);
    for (uint32_t g = 0; all != NULL && g < set->n_groups; g++)
        if (classes_of(&set->plans[g], &all[g]) != PPS_OK) {
            free(all);
            return NULL;
        }
    return all;
}

static json_t *memory_json(const memory_classes *m)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "parameters",
                     (json_int_t)m->parameters, "gradients", (json_int_t)m->gradients, "optimizer",
                     (json_int_t)m->optimizer, "data", (json_int_t)m->data, "activations",
                     (json_int_t)m->activations, "communication", (json_int_t)m->communication,
                     "peak", (json_int_t)m->peak, "least", (json_int_t)m->least, "host",
                     (json_int_t)m->host);
}

static bool print_json(const plan_set *set, const memory_classes *classes)
{
    json_t *steps = json_array(), *peaks = json_array(), *memory = json_array();
    for (uint32_t r = 0; r < set->n_ranks; r++) {
        json_array_append_new(steps, json_integer(plan_of_rank(set, r)->n_steps));
        json_array_append_new(peaks, json_integer((json_int_t)plan_of_rank(set, r)->total_bytes));
        json_array_append_new(memory, memory_json(&classes[set->rank_group[r]]));
    }
    return report_json(
        json_pack("{s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "ranks", (int)set->n_ranks,
                  "nodes", (int)set->n_nodes, "edges", (int)set->n_edges, "plan_steps", steps,
                  "peak_bytes", peaks, "memory", memory, "bubble", report_number(set->bubble),
                  "hidden_exchange", report_number(set->hidden >= 0 ? set->hidden : NAN),
                  "compile_ms", report_number(set->compile_ms), "settings", report_settings()),
        false);
}

static void print_text(const session *s, const memory_classes *classes)
{
    const plan_set *set = s->plans;
    char parameters[32], gradients[32], optimizer[32], activations[32], communication[32];
    char peak[32], least[32], host[32];
    uint32_t n_mb = set->n_mb / set->n_slices;
    char slices[48] = "";
    if (set->n_slices > 1)
        snprintf(slices, sizeof slices, " of %u slices", set->n_slices);
    printf("%s: %u rank%s in %u group%s, %u microbatch%s%s, %u nodes, %u edges, %s in %.1f ms\n",
           s->script, set->n_ranks, set->n_ranks == 1 ? "" : "s", set->n_groups,
           set->n_groups == 1 ? "" : "s", n_mb, n_mb == 1 ? "" : "es", slices, set->n_nodes,
           set->n_edges, s->from_file ? "read and proved" : "compiled", set->compile_ms);
    uint64_t any_host = 0; /* a column only where there is something in it */
    for (uint32_t g = 0; g < set->n_groups; g++)
        any_host |= set->plans[g].host_bytes;
    printf("%-5s %6s %11s %11s %11s %11s %13s %11s %11s%s\n", "rank", "steps", "parameters",
           "gradients", "optimizer", "activations", "communication", "peak", "least",
           any_host != 0 ? "        host" : "");
    for (uint32_t r = 0; r < set->n_ranks; r++) {
        const plan *p = plan_of_rank(set, r);
        const memory_classes *m = &classes[set->rank_group[r]];
        printf("%-5u %6u %11s %11s %11s %11s %13s %11s %11s", r, p->n_steps,
               report_bytes(m->parameters, parameters), report_bytes(m->gradients, gradients),
               report_bytes(m->optimizer, optimizer), report_bytes(m->activations, activations),
               report_bytes(m->communication, communication), report_bytes(m->peak, peak),
               report_bytes(m->least, least));
        if (any_host != 0)
            printf(" %11s", report_bytes(m->host, host));
        printf("%s\n", p->dropless ? " at most" : "");
    }
    if (isfinite(set->bubble))
        printf("bubble %.1f %%, makespan %.9g (%s)\n", 100 * set->bubble, set->makespan,
               report_settings_text());
    if (set->hidden >= 0)
        printf("%.1f %% of the exchanges in overlapped groups are under compute (%s costs)\n",
               100 * set->hidden, s->options->costs ? "measured" : "shapes'");
}

int cmd_check(const cli_options *options)
{
    session s;
    pps_status status = session_plans(&s, options);
    memory_classes *classes = NULL;
    if (status == PPS_OK && (classes = all_classes(s.plans)) == NULL)
        status = PPS_ERR_NOMEM;
    if (status == PPS_OK && options->json)
        status = print_json(s.plans, classes) ? PPS_OK : PPS_ERR_MACHINE;
    else if (status == PPS_OK)
        print_text(&s, classes);
    free(classes);
    return session_end(&s, status);
}
