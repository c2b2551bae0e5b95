/* SPDX-License-Identifier: Apache-2.0
 *
 * matrix.c: one cell. The same model and batch on one rank, without directives but a capacity, is
 * the truth for losses, gradients and parameters; 1F1B of the same shape is it for bits; `pps rows`
 * and the plan for what every rank did and sent.
 */
#include <stdlib.h>
#include <string.h>

#include "parity.h"
#include "traffic.h"

enum { SGD_STEPS = 5, ADAMW_STEPS = 12 };
static const char sgd[] = "sgd(lr=0.1)", adamw[] = "adamw(lr=3e-3)";
static const double tolerance = 1e-5, loose_tolerance = 1e-4;

static bool write_script(const tool *t, const cell *c, const char *optimizer, bool alone,
                         const char *name, reason *why)
{
    char path[512];
    FILE *file = fopen(run_path(t, name, path), "w");
    if (!file)
        return fail(why, "cannot write %s", path);
    cell_write(c, optimizer, alone, file);
    return fclose(file) == 0 || fail(why, "cannot write %s", path);
}

static bool read_tensors(const tool *t, const char *stem, const char *ending, tensor_file *ret,
                         reason *why)
{
    char name[CELL_NAME + 32], path[512];
    snprintf(name, sizeof name, "%s.%s", stem, ending);
    return tensors_read(run_path(t, name, path), ret, why);
}

/* ---- Runs that others are compared with ------------------------------------------------------ */

static bool run_reference(const tool *t, const cell *c, const char *optimizer, uint32_t steps,
                          bool alone, matrix_reference *r)
{
    char script[CELL_NAME + 32];
    snprintf(script, sizeof script, "%s.pps", r->name);
    return write_script(t, c, optimizer, alone, script, &r->why) &&
           run_training(t, script, steps, TRAIN_SAVE | TRAIN_GRADIENTS, NULL, NULL, &r->tr,
                        &r->why) &&
           read_tensors(t, r->name, "params", &r->params, &r->why) &&
           read_tensors(t, r->name, "gradients", &r->gradients, &r->why);
}

static const matrix_reference *reference(suite *s, const cell *c, const char *optimizer,
                                         uint32_t steps, bool alone, const char *name)
{
    for (uint32_t i = 0; i < s->n_cached; i++) {
        if (strcmp(s->cache[i].name, name) == 0)
            return &s->cache[i];
    }
    if (s->n_cached == MATRIX_CACHE)
        matrix_done(s);
    matrix_reference *r = &s->cache[s->n_cached++];
    *r = (matrix_reference){0};
    snprintf(r->name, sizeof r->name, "%s", name);
    r->ok = run_reference(&s->tool, c, optimizer, steps, alone, r);
    return r;
}

/* The cell's model and batch on one rank. */
static const matrix_reference *one_rank(suite *s, const cell *c, bool with_adamw)
{
    char name[CELL_NAME + 16];
    snprintf(name, sizeof name, "alone-l%u-b%u-c%g%s%s", cell_layers(c), cell_batch(c),
             100 * c->capacity, c->aux ? "-aux" : "", with_adamw ? "-adamw" : "");
    return reference(s, c, with_adamw ? adamw : sgd, with_adamw ? ADAMW_STEPS : SGD_STEPS, true,
                     name);
}

static const matrix_reference *one_f_one_b(suite *s, const cell *c)
{
    char name[CELL_NAME], stem[CELL_NAME + 16];
    cell same = *c;
    same.schedule = CELL_ONE_F_ONE_B;
    snprintf(stem, sizeof stem, "bits-%s", cell_name(&same, name));
    return reference(s, &same, sgd, SGD_STEPS, false, stem);
}

void matrix_done(suite *s)
{
    for (uint32_t i = 0; i < s->n_cached; i++) {
        training_done(&s->cache[i].tr);
        tensors_done(&s->cache[i].params);
        tensors_done(&s->cache[i].gradients);
    }
    s->n_cached = 0;
}

/* ---- One cell ------------------------------------------------------------------------------ */

typedef struct cell_run {
    suite *s;
    const cell *c;
    char name[CELL_NAME], script[CELL_NAME + 8];
    training tr;
    tensor_file params, gradients;
    trace trace;
    reason why;
} cell_run;

static void check(cell_run *r, const char *what, bool ok)
{
    report_check(&r->s->report, r->name, what, ok, &r->why);
}

static bool run_cell(cell_run *r)
{
    const tool *t = &r->s->tool;
    char trace_name[CELL_NAME + 8], path[512];
    snprintf(trace_name, sizeof trace_name, "%s.trace", r->name);
    return write_script(t, r->c, sgd, false, r->script, &r->why) &&
           run_training(t, r->script, SGD_STEPS, TRAIN_SAVE | TRAIN_GRADIENTS | TRAIN_TRACE, NULL,
                        NULL, &r->tr, &r->why) &&
           read_tensors(t, r->name, "params", &r->params, &r->why) &&
           read_tensors(t, r->name, "gradients", &r->gradients, &r->why) &&
           trace_read(run_path(t, trace_name, path), &r->trace, &r->why);
}

static void check_numbers(cell_run *r)
{
    const matrix_reference *alone = one_rank(r->s, r->c, false);
    if (!alone->ok) {
        r->why = alone->why;
        check(r, "one rank", false);
        return;
    }
    check(r, "losses", losses_near(&r->tr, &alone->tr, tolerance, &r->why));
    check(r, "gradients of step 1",
          tensors_near(&r->gradients, &alone->gradients, tolerance, &r->why));
    check(r, "parameters after SGD", tensors_near(&r->params, &alone->params, tolerance, &r->why));
}

static void check_adamw(cell_run *r)
{
    const matrix_reference *alone = one_rank(r->s, r->c, true);
    char script[CELL_NAME + 16];
    training tr = {0};
    r->why = alone->why;
    snprintf(script, sizeof script, "%s-adamw.pps", r->name);
    check(r, "losses under AdamW",
          alone->ok && write_script(&r->s->tool, r->c, adamw, false, script, &r->why) &&
              run_training(&r->s->tool, script, ADAMW_STEPS, 0, NULL, NULL, &tr, &r->why) &&
              losses_near(&tr, &alone->tr, loose_tolerance, &r->why));
    training_done(&tr);
}

/* The cell once more with an option that may not change a bit. */
static void check_again(cell_run *r, const char *what, const char *option, const char *value)
{
    training tr = {0};
    check(r, what,
          run_training(&r->s->tool, r->script, SGD_STEPS, 0, option, value, &tr, &r->why) &&
              same_bits(&tr, &r->tr, &r->why));
    training_done(&tr);
}

static void check_openblas(cell_run *r)
{
    training tr = {0};
    bool ran =
        run_training(&r->s->tool, r->script, SGD_STEPS, TRAIN_BLAS, NULL, NULL, &tr, &r->why);
    if (ran && tr.no_openblas)
        report_skip(&r->s->report, r->name, "OpenBLAS is not installed");
    else
        check(r, "losses with OpenBLAS", ran && losses_near(&tr, &r->tr, loose_tolerance, &r->why));
    training_done(&tr);
}

/* Schedules with one owner per stage add up the same sums in the same order. */
static void check_bits(cell_run *r)
{
    if (r->c->schedule == CELL_ONE_F_ONE_B)
        return;
    const matrix_reference *other = one_f_one_b(r->s, r->c);
    r->why = other->why;
    check(r, "bits of 1F1B", other->ok && same_bits(&r->tr, &other->tr, &r->why));
}

static bool follows_rows(cell_run *r)
{
    char builder[CELL_NAME];
    const char *arguments[] = {"rows", cell_builder(r->c, builder), NULL};
    /* before, between and after the experts of each layer */
    uint32_t chunks = 2 * cell_layers(r->c) / cell_stages(r->c) + 1;
    uint32_t last = cell_stages(r->c) - 1;
    char *rows = run_text(&r->s->tool, arguments, "rows", &r->why);
    bool ok = rows != NULL;
    uint32_t n = 0;
    char *rest = NULL;
    for (char *row = strtok_r(rows, "\n", &rest); ok && row; row = strtok_r(NULL, "\n", &rest)) {
        for (uint32_t d = 0; ok && d < r->c->replicas; d++)
            ok = trace_follows(&r->trace, d * r->c->ranks + n, row, chunks, last, &r->why);
        n++;
    }
    free(rows);
    return ok && (n == r->c->ranks || fail(&r->why, "%u rows for %u ranks", n, r->c->ranks));
}

static bool sends_as_planned(cell_run *r)
{
    const char *arguments[] = {"plan", r->script, "--format", "json", NULL};
    json_t *plan = run_json(&r->s->tool, arguments, "plan", &r->why);
    bool ok = plan && traffic_as_planned(r->c, &r->tr, &r->trace, plan, &r->params, &r->why);
    json_decref(plan);
    return ok;
}

/* The plan is the worst case: all rows may go to one expert. */
static bool fits_memory(cell_run *r)
{
    const json_t *measured = json_object_get(r->tr.done, "peak_bytes");
    const json_t *planned = json_object_get(r->tr.done, "planned_bytes");
    for (uint32_t i = 0; i < r->c->ranks * r->c->replicas; i++) {
        json_int_t a = json_integer_value(json_array_get(measured, i));
        json_int_t b = json_integer_value(json_array_get(planned, i));
        if (a <= 0 || a > b)
            return fail(&r->why, "rank %u used %lld bytes, planned are %lld", i, (long long)a,
                        (long long)b);
    }
    return true;
}

void matrix_run(suite *s, const cell *c)
{
    cell_run r = {.s = s, .c = c};
    cell_name(c, r.name);
    snprintf(r.script, sizeof r.script, "%s.pps", r.name);
    bool ran = run_cell(&r);
    check(&r, "trains", ran);
    if (ran) {
        check_numbers(&r);
        check(&r, "order of computes is that of pps rows", follows_rows(&r));
        check(&r, "bytes sent", sends_as_planned(&r));
        if (cell_sharers(c) > 1)
            check(&r, "all-to-alls", traffic_of_experts(c, &r.trace, &r.why));
        check(&r, "memory", fits_memory(&r));
        check_bits(&r);
        check_again(&r, "twice", NULL, NULL);
        check_again(&r, "ranks as threads", "--ranks", "threads");
        check_again(&r, "one stream", "--streams", "1");
        check_again(&r, "two streams", "--streams", "2");
        check_openblas(&r);
        check_adamw(&r);
    }
    training_done(&r.tr);
    tensors_done(&r.params);
    tensors_done(&r.gradients);
    trace_done(&r.trace);
}
