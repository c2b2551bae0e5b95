/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_run.c: `pps run`: train, show progress, and say at the end what came of it.
 */
#include "runtime/cli/commands.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "runtime/cli/session.h"
#include "runtime/cli/timeline.h"
#include "runtime/launch/launch.h"

enum { DEFAULT_STEPS = 20 };
/* The paced backend: a compute sleeps 2 ms, communication altogether half as long as computing. */
#define PACED_UNIT_NS    2e6
#define PACED_COMM_SHARE 0.5

typedef struct watch {
    progress progress;
    const launch_result *result;
} watch;

static void on_step(void *ud, uint64_t step, double loss, double aux_loss, double ms)
{
    watch *w = ud;
    w->progress.dropped = w->result->dropped;
    progress_step(&w->progress, step, loss, aux_loss, ms);
}

/* What a program's routers with a capacity choose for one microbatch on one rank. */
static uint64_t choices_of(const plan_set *set, const plan_program *p)
{
    uint64_t n = 0;
    for (uint32_t i = p->kernels; i < p->kernels + p->n_kernels; i++) {
        const plan_kernel *k = &set->kernels[i];
        if (k->op == IR_ROUTER && k->phase == IR_PHASE_F && k->attrs.capacity > 0)
            n += (uint64_t)k->B * k->T * k->attrs.top_k;
    }
    return n;
}

/* ... and in one step, on all ranks; of ranks that work on the same rows one counts. */
static uint64_t bounded_choices(const plan_set *set)
{
    uint64_t n = 0;
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const plan *p = &set->plans[g];
        uint64_t speaking = 0;
        for (uint32_t i = 0; i < p->n_ranks; i++)
            speaking += set->rank_speaks[p->ranks + i];
        for (uint32_t i = 0; i < p->n_steps; i++) {
            const plan_step *s = &p->steps[i];
            if (s->kind == PLAN_COMPUTE && s->pass == PPS_PASS_F)
                n += speaking * choices_of(set, &set->programs[plan_work_of(set, s)->program]);
        }
    }
    return n;
}

static pps_status write_trace(session *s, const launch_result *result)
{
    timeline t;
    const char *path = s->options->trace;
    PPS_TRY(timeline_new(s->st, s->plans, result->marks, &t));
    FILE *file = fopen(path, "wb");
    bool ok = file != NULL;
    if (file) {
        view_perfetto(&t.view, 1, report_to_file, file);
        ok = !ferror(file);
        ok = fclose(file) == 0 && ok;
    }
    timeline_done(&t);
    if (ok)
        return PPS_OK;
    pps_error(s->st, (pps_span){0}, 974, "cannot write '%s': %s", path, strerror(errno));
    return PPS_ERR_MACHINE;
}

static json_t *bytes_json(const uint64_t *bytes, uint32_t n)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer((json_int_t)bytes[i]));
    return array;
}

/* Per rank, what one step sent: {"SEND": 4096, ...}, kinds that sent nothing left out. */
static json_t *sent_json(const launch_result *result, uint32_t n_ranks)
{
    json_t *array = json_array();
    for (uint32_t r = 0; r < n_ranks; r++) {
        json_t *kinds = json_object();
        for (int k = 0; k < PLAN_STEP_KIND_COUNT; k++) {
            if (result->sent_bytes[r][k])
                json_object_set_new(kinds, plan_step_name((plan_step_kind)k),
                                    json_integer((json_int_t)result->sent_bytes[r][k]));
        }
        json_array_append_new(array, kinds);
    }
    return array;
}

static void print_done_json(const session *s, const launch_result *result)
{
    uint32_t n = s->plans->n_ranks;
    report_json(json_pack("{s:b, s:s, s:o, s:o, s:o, s:o, s:o}", "done", 1, "params_sha256",
                          result->params_sha256, "peak_bytes",
                          bytes_json(result->measured_bytes, n), "planned_bytes",
                          bytes_json(result->planned_bytes, n), "host_bytes",
                          bytes_json(result->measured_host_bytes, n), "planned_host_bytes",
                          bytes_json(result->planned_host_bytes, n), "sent_bytes",
                          sent_json(result, n)),
                false);
}

static void print_done(const session *s, const launch_result *result, const progress *p)
{
    const plan_set *set = s->plans;
    double first, last;
    char planned[32], measured[32];
    progress_means(p, &first, &last);
    if (s->options->backend == CLI_BACKEND_CPU) {
        printf("\nloss %.4f at step 1, %.4f at step %llu", p->first_loss, p->last_loss,
               (unsigned long long)p->n);
        if (p->n >= 20)
            printf("; mean of the first 10 steps %.4f, of the last 10 %.4f (%+.1f %%)", first, last,
                   100 * (last / first - 1));
        printf("\nkernels %s%s\n", result->blas_core[0] ? "OpenBLAS for " : "plain C",
               result->blas_core);
    }
    if (isfinite(set->bubble))
        printf("bubble %.1f %% (%s)\n", 100 * set->bubble, report_settings_text());
    uint64_t any_host = 0;
    for (uint32_t r = 0; r < set->n_ranks; r++)
        any_host |= result->planned_host_bytes[r];
    printf("%-5s %14s %14s%s\n", "rank", "planned peak", "measured peak",
           any_host != 0 ? "   planned host  measured host" : "");
    for (uint32_t r = 0; r < set->n_ranks; r++) {
        bool is_measured = result->measured_bytes[r] != 0;
        printf("%-5u %14s %14s", r, report_bytes(result->planned_bytes[r], planned),
               is_measured ? report_bytes(result->measured_bytes[r], measured) : "-");
        if (any_host != 0)
            printf(" %14s %14s", report_bytes(result->planned_host_bytes[r], planned),
                   is_measured ? report_bytes(result->measured_host_bytes[r], measured) : "-");
        printf("\n");
    }
    printf("parameters sha256 %s\n", result->params_sha256[0] ? result->params_sha256 : "-");
}

int cmd_run(const cli_options *options)
{
    session s;
    launch_result result = {0};
    watch w = {.result = &result};
    progress *p = &w.progress;
    pps_status status = session_plans(&s, options);
    if (status == PPS_OK) {
        launch_options launch = {
            .set = s.plans,
            .st = s.st,
            .base_dir = s.script_dir,
            .steps = options->steps ? options->steps : DEFAULT_STEPS,
            .threads = options->rank_kind == CLI_THREADS,
            .backend = options->backend == CLI_BACKEND_PACED ? LAUNCH_PACED : LAUNCH_CPU,
            .plain_kernels = options->kernels == CLI_KERNELS_PLAIN,
            .paced = exec_paced_share(s.plans, PACED_UNIT_NS, PACED_COMM_SHARE),
            .trace = options->trace != NULL || options->profile != NULL,
            .save_path = options->save,
            .save_gradients_path = options->save_gradients,
            .want_hash = true,
            .on_step = on_step,
            .on_step_ud = &w,
        };
        progress_begin(p, options->log == CLI_JSON, launch.steps,
                       (uint64_t)s.plans->batch * s.plans->T);
        if (launch.backend == LAUNCH_CPU) /* nothing is routed on the other */
            p->choices = bounded_choices(s.plans);
        session_release_sigint();
        status = launch_run(&launch, &result);
        progress_end(p);
    }
    if (status == PPS_OK && options->trace)
        status = write_trace(&s, &result);
    if (status == PPS_OK && options->profile)
        status = costs_write(s.st, s.plans, result.marks, options->profile);
    if (status == PPS_OK && options->log == CLI_JSON)
        print_done_json(&s, &result);
    else if (status == PPS_OK)
        print_done(&s, &result, p);
    launch_result_done(&result);
    return session_end(&s, status);
}
