/* SPDX-License-Identifier: Apache-2.0
 *
 * checks.c: the checks that every unit shares. A training is run once with all that it can write;
 * each check then compares that, or runs it again in one other way.
 */
#include "checks.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_WORDS = 24 };
static const double tolerance = 1e-5, loose_tolerance = 1e-4;

static bool read_tensors(const tool *t, const char *stem, const char *ending, tensor_file *ret,
                         reason *why)
{
    char name[UNIT_NAME + 48], path[512];
    snprintf(name, sizeof name, "%s.%s", stem, ending);
    return tensors_read(run_path(t, name, path), ret, why);
}

/* ---- Runs that others are compared with ------------------------------------------------------ */

static bool run_reference(const tool *t, const subject *of, uint32_t steps, reference *r)
{
    train_request request = {.script = of->script,
                             .stem = r->name,
                             .steps = steps,
                             .flags = TRAIN_SAVE | TRAIN_GRADIENTS,
                             .words = of->words};
    return run_training(t, &request, &r->tr, &r->why) &&
           read_tensors(t, r->name, "params", &r->params, &r->why) &&
           read_tensors(t, r->name, "gradients", &r->gradients, &r->why);
}

const reference *checks_reference(suite *s, const char *name, const subject *of, uint32_t steps)
{
    for (uint32_t i = 0; i < s->n_cached; i++) {
        if (strcmp(s->cache[i].name, name) == 0)
            return &s->cache[i];
    }
    if (s->n_cached == REFERENCES)
        checks_forget(s);
    reference *r = &s->cache[s->n_cached++];
    *r = (reference){0};
    snprintf(r->name, sizeof r->name, "%s", name);
    r->ok = run_reference(&s->tool, of, steps, r);
    return r;
}

void checks_forget(suite *s)
{
    for (uint32_t i = 0; i < s->n_cached; i++) {
        training_done(&s->cache[i].tr);
        tensors_done(&s->cache[i].params);
        tensors_done(&s->cache[i].gradients);
    }
    s->n_cached = 0;
}

/* ---- The unit's own run ---------------------------------------------------------------------- */

void checks_report(unit_run *r, const char *what, bool ok)
{
    report_check(&r->s->report, r->name, what, ok, &r->why);
}

bool checks_begin(unit_run *r)
{
    const tool *t = &r->s->tool;
    char trace_name[UNIT_NAME + 8], path[512];
    train_request request = {.script = r->of.script,
                             .stem = r->name,
                             .steps = SGD_STEPS,
                             .flags = TRAIN_SAVE | TRAIN_GRADIENTS | TRAIN_TRACE,
                             .words = r->of.words};
    snprintf(trace_name, sizeof trace_name, "%s.trace", r->name);
    bool ok = run_training(t, &request, &r->tr, &r->why) &&
              read_tensors(t, r->name, "params", &r->params, &r->why) &&
              read_tensors(t, r->name, "gradients", &r->gradients, &r->why) &&
              trace_read(run_path(t, trace_name, path), &r->trace, &r->why);
    checks_report(r, "trains", ok);
    return ok;
}

void checks_end(unit_run *r)
{
    training_done(&r->tr);
    tensors_done(&r->params);
    tensors_done(&r->gradients);
    trace_done(&r->trace);
}

/* ---- Checks ---------------------------------------------------------------------------------- */

void checks_numbers(unit_run *r, const reference *one_rank)
{
    if (!one_rank->ok) {
        r->why = one_rank->why;
        checks_report(r, "one rank", false);
        return;
    }
    checks_report(r, "losses", losses_near(&r->tr, &one_rank->tr, tolerance, &r->why));
    checks_report(r, "gradients of step 1",
                  tensors_near(&r->gradients, &one_rank->gradients, tolerance, &r->why));
    checks_report(r, "parameters after SGD",
                  tensors_near(&r->params, &one_rank->params, tolerance, &r->why));
}

/* Once more in another way, which writes nothing that the unit's own run wrote. */
static bool run_again(unit_run *r, const subject *of, uint32_t steps, unsigned flags, training *ret)
{
    char stem[UNIT_NAME + 8];
    snprintf(stem, sizeof stem, "%s-again", r->name);
    train_request request = {
        .script = of->script, .stem = stem, .steps = steps, .flags = flags, .words = of->words};
    return run_training(&r->s->tool, &request, ret, &r->why);
}

void checks_adamw(unit_run *r, const subject *adamw, const reference *one_rank)
{
    training tr = {0};
    r->why = one_rank->why;
    checks_report(r, "losses under AdamW",
                  one_rank->ok && run_again(r, adamw, ADAMW_STEPS, 0, &tr) &&
                      losses_near(&tr, &one_rank->tr, loose_tolerance, &r->why));
    training_done(&tr);
}

void checks_bits(unit_run *r, const char *what, const reference *other)
{
    r->why = other->why;
    checks_report(r, what, other->ok && same_bits(&r->tr, &other->tr, &r->why));
}

/* With an option that may not change a bit. */
static void again(unit_run *r, const char *what, const char *option, const char *value)
{
    const char *words[MAX_WORDS];
    training tr = {0};
    int n = 0;
    for (; r->of.words && r->of.words[n] && n < MAX_WORDS - 3; n++)
        words[n] = r->of.words[n];
    words[n++] = option;
    words[n++] = option ? value : NULL;
    words[n] = NULL;
    subject of = {r->of.script, words};
    checks_report(r, what, run_again(r, &of, SGD_STEPS, 0, &tr) && same_bits(&tr, &r->tr, &r->why));
    training_done(&tr);
}

static void openblas(unit_run *r)
{
    training tr = {0};
    bool ran = run_again(r, &r->of, SGD_STEPS, TRAIN_BLAS, &tr);
    if (ran && tr.no_openblas)
        report_skip(&r->s->report, r->name, "OpenBLAS is not installed");
    else
        checks_report(r, "losses with OpenBLAS",
                      ran && losses_near(&tr, &r->tr, loose_tolerance, &r->why));
    training_done(&tr);
}

void checks_again(unit_run *r)
{
    again(r, "twice", NULL, NULL);
    again(r, "ranks as threads", "--ranks", "threads");
    again(r, "one stream", "--streams", "1");
    again(r, "two streams", "--streams", "2");
    openblas(r);
}

/* Measured are the bytes up to the last one that changed. */
static bool fits_memory(unit_run *r, bool exact)
{
    const json_t *measured = json_object_get(r->tr.done, "peak_bytes");
    const json_t *planned = json_object_get(r->tr.done, "planned_bytes");
    for (size_t i = 0; i < json_array_size(planned); i++) {
        json_int_t a = json_integer_value(json_array_get(measured, i));
        json_int_t b = json_integer_value(json_array_get(planned, i));
        if (a <= 0 || a > b || (exact && a != b && (a + 63) / 64 * 64 != b))
            return fail(&r->why, "rank %zu used %lld bytes, planned are %lld", i, (long long)a,
                        (long long)b);
    }
    return json_array_size(planned) > 0 || fail(&r->why, "no rank says its bytes");
}

void checks_memory(unit_run *r, bool exact)
{
    checks_report(r, "memory", fits_memory(r, exact));
}

json_t *checks_plan(unit_run *r)
{
    const char *words[MAX_WORDS] = {"plan", r->of.script, "--format", "json"};
    char out[UNIT_NAME + 8];
    for (int i = 0; r->of.words && r->of.words[i] && i < MAX_WORDS - 5; i++)
        words[4 + i] = r->of.words[i];
    snprintf(out, sizeof out, "%s.plan", r->name);
    return run_json(&r->s->tool, words, out, &r->why);
}
