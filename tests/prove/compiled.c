/* SPDX-License-Identifier: Apache-2.0
 *
 * compiled.c: see compiled.h.
 */
#include "compiled.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/launch/launch.h"
#include "runtime/train/train.h"

static void on_diag(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    compiled *c = ud;
    size_t have = strlen(c->said);
    (void)span;
    if (severity != PPS_SEV_ERROR)
        return;
    c->code = code;
    strncpy(c->said + have, text, sizeof c->said - 1 - have);
}

void compiled_open(compiled *c, const char *text, uint32_t streams)
{
    pass_options options = {.max_streams = streams, .verify = true};
    memset(c, 0, sizeof *c);
    loader_init(&c->loader, 0);
    pps_config config = {.size = sizeof config,
                         .diag = on_diag,
                         .diag_ud = c,
                         .load = loader_load,
                         .load_ud = &c->loader};
    c->status = pps_open(PPS_ABI, &config, &c->st);
    if (c->status == PPS_OK)
        c->status = ir_open(c->st, &c->program);
    if (c->status == PPS_OK)
        c->status = pps_eval(c->st, "random.pps", "random.pps", text, strlen(text));
    if (c->status == PPS_OK)
        c->status = ir_program_finish(c->program);
    if (c->status == PPS_OK)
        c->status = pps_compile(c->st, c->program, &options, &c->set);
}

void compiled_close(compiled *c)
{
    pps_plan_free(c->set);
    pps_close(c->st);
    ir_close(c->program);
    loader_done(&c->loader);
}

int compiled_prove(compiled *c, bool buffered)
{
    prove_options options = {.buffered = buffered};
    c->code = 0;
    c->said[0] = '\0';
    pps_clear_errors(c->st);
    return pps_prove_with(c->st, c->set, &options) == PPS_OK ? 0 : c->code;
}

/* ---- running ------------------------------------------------------------------------------------
 */

typedef struct folder {
    char path[64], params[96], grads[96];
} folder;

static void make_folder(folder *f)
{
    const char *base = getenv("TMPDIR"), *memory = "/dev/shm";
    if (base == NULL && access(memory, W_OK) == 0)
        base = memory; /* what is saved is synced: hundreds of times on a disk */
    snprintf(f->path, sizeof f->path, "%.40s/pps-test-XXXXXX", base != NULL ? base : P_tmpdir);
    if (mkdtemp(f->path) == NULL)
        abort();
    snprintf(f->params, sizeof f->params, "%s/params", f->path);
    snprintf(f->grads, sizeof f->grads, "%s/grads", f->path);
}

static void drop_folder(const folder *f)
{
    unlink(f->params);
    unlink(f->grads);
    rmdir(f->path);
}

/* What is sent from the run's process. */
typedef struct report {
    enum run_end end;
    double loss[RUN_STEPS], aux[RUN_STEPS];
} report;

static void on_step(void *ud, uint64_t step, double loss, double aux_loss, double ms)
{
    report *r = ud;
    (void)ms;
    if (step >= 1 && step <= RUN_STEPS) {
        r->loss[step - 1] = loss;
        r->aux[step - 1] = aux_loss;
    }
}

static void run_here(const compiled *c, const folder *f, int to)
{
    report r = {.end = RUN_OK};
    launch_result result = {0};
    launch_options options = {.set = c->set,
                              .steps = RUN_STEPS,
                              .threads = true,
                              .plain_kernels = true,
                              .memory_check = true,
                              .save_path = f->params,
                              .save_gradients_path = f->grads,
                              .on_step = on_step,
                              .on_step_ud = &r};
    if (launch_run(&options, &result) != PPS_OK)
        r.end = RUN_FAILED;
    launch_result_done(&result);
    _exit(write(to, &r, sizeof r) == (ssize_t)sizeof r ? 0 : 1);
}

/* The values of a safetensors file: what lies at its end. NULL when they cannot be read. */
static float *read_values(const char *path, uint64_t bytes)
{
    FILE *file = fopen(path, "rb");
    float *values = malloc(bytes + 1);
    bool good = file != NULL && values != NULL && fseek(file, -(long)bytes, SEEK_END) == 0 &&
                fread(values, 1, bytes, file) == bytes;
    if (file != NULL)
        fclose(file);
    if (good)
        return values;
    free(values);
    return NULL;
}

static void read_tensors(const compiled *c, const folder *f, run_result *r)
{
    train_layout layout;
    if (train_layout_new(c->set, &layout) != PPS_OK)
        abort();
    r->params = read_values(f->params, layout.bytes);
    r->grads = read_values(f->grads, layout.bytes);
    r->ends = calloc(c->set->n_params + 1, sizeof *r->ends);
    if (r->ends == NULL)
        abort();
    for (; r->n_tensors < c->set->n_params; r->n_tensors++) {
        uint32_t q = layout.order[r->n_tensors];
        r->ends[r->n_tensors] = layout.offsets[q] / 4 + ir_param_elems(&c->set->params[q]);
    }
    train_layout_done(&layout);
    if (r->params == NULL || r->grads == NULL)
        r->end = RUN_FAILED;
}

run_result compiled_run(const compiled *c, unsigned limit_s)
{
    run_result r = {.end = RUN_CRASHED};
    report sent;
    folder f;
    int ends[2], how = 0;
    make_folder(&f);
    fflush(NULL);
    if (pipe(ends) != 0)
        abort();
    pid_t pid = fork();
    if (pid < 0)
        abort();
    if (pid == 0) {
        close(ends[0]);
        signal(SIGALRM, SIG_DFL);
        alarm(limit_s); /* a run that hangs dies of it */
        run_here(c, &f, ends[1]);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], &sent, sizeof sent);
    close(ends[0]);
    waitpid(pid, &how, 0);
    if (got == (ssize_t)sizeof sent) {
        r.end = sent.end;
        memcpy(r.loss, sent.loss, sizeof r.loss);
        memcpy(r.aux, sent.aux, sizeof r.aux);
        if (r.end == RUN_OK)
            read_tensors(c, &f, &r);
    } else if (WIFSIGNALED(how) && WTERMSIG(how) == SIGALRM) {
        r.end = RUN_HUNG;
    }
    drop_folder(&f);
    return r;
}

void run_done(run_result *r)
{
    free(r->params);
    free(r->grads);
    free(r->ends);
}

static double apart(double a, double b)
{
    double scale = fabs(a) > fabs(b) ? fabs(a) : fabs(b);
    return !isfinite(a) || !isfinite(b) ? INFINITY : scale == 0.0 ? 0.0 : fabs(a - b) / scale;
}

static double tensor_apart(const float *a, const float *b, uint64_t n)
{
    double most = 0.0, scale = 0.0;
    for (uint64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!isfinite(d))
            return INFINITY;
        most = fmax(most, d);
        scale = fmax(scale, fabs((double)b[i]));
    }
    return most == 0.0 ? 0.0 : scale == 0.0 ? INFINITY : most / scale;
}

double run_difference(const run_result *got, const run_result *wanted)
{
    double most = 0.0;
    if (got->end != RUN_OK || wanted->end != RUN_OK || got->n_tensors != wanted->n_tensors)
        return INFINITY;
    for (int i = 0; i < RUN_STEPS; i++) {
        most = fmax(most, apart(got->loss[i], wanted->loss[i]));
        most = fmax(most, apart(got->aux[i], wanted->aux[i]));
    }
    for (uint32_t i = 0; i < wanted->n_tensors; i++) {
        uint64_t begin = i > 0 ? wanted->ends[i - 1] : 0, n = wanted->ends[i] - begin;
        if (got->ends[i] != wanted->ends[i])
            return INFINITY;
        most = fmax(most, tensor_apart(got->params + begin, wanted->params + begin, n));
        most = fmax(most, tensor_apart(got->grads + begin, wanted->grads + begin, n));
    }
    return most;
}

const char *run_end_name(enum run_end end)
{
    static const char *const names[] = {"ran", "failed", "hung", "crashed"};
    return names[end];
}
