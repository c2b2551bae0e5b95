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

static const char sgd[] = "sgd(lr=0.1)", adamw[] = "adamw(lr=3e-3)";

/* The script NAME.pps of a cell; `alone`: without directives. An unwritten one fails as it runs. */
static void write_script(const tool *t, const cell *c, const char *optimizer, bool alone,
                         const char *name, char script[UNIT_NAME])
{
    char path[512];
    snprintf(script, UNIT_NAME, "%s.pps", name);
    FILE *file = fopen(run_path(t, script, path), "w");
    if (!file)
        return;
    cell_write(c, optimizer, alone, file);
    fclose(file);
}

/* The cell's model and batch on one rank. */
static const reference *one_rank(suite *s, const cell *c, bool with_adamw)
{
    char name[UNIT_NAME], script[UNIT_NAME];
    snprintf(name, sizeof name, "alone-l%u-b%u-c%g%s%s", cell_layers(c), cell_batch(c),
             100 * c->capacity, c->aux ? "-aux" : "", with_adamw ? "-adamw" : "");
    write_script(&s->tool, c, with_adamw ? adamw : sgd, true, name, script);
    return checks_reference(s, name, &(subject){.script = script},
                            with_adamw ? ADAMW_STEPS : SGD_STEPS);
}

static const reference *one_f_one_b(suite *s, const cell *c)
{
    char name[CELL_NAME], stem[UNIT_NAME], script[UNIT_NAME];
    cell same = *c;
    same.schedule = CELL_ONE_F_ONE_B;
    snprintf(stem, sizeof stem, "bits-%s", cell_name(&same, name));
    write_script(&s->tool, &same, sgd, false, stem, script);
    return checks_reference(s, stem, &(subject){.script = script}, SGD_STEPS);
}

static bool follows_rows(unit_run *r, const cell *c)
{
    char builder[CELL_NAME];
    const char *arguments[] = {"rows", cell_builder(c, builder), NULL};
    /* before, between and after the experts of each layer */
    uint32_t chunks = 2 * cell_layers(c) / cell_stages(c) + 1;
    uint32_t last = cell_stages(c) - 1;
    char *rows = run_text(&r->s->tool, arguments, "rows", &r->why);
    bool ok = rows != NULL;
    uint32_t n = 0;
    char *rest = NULL;
    for (char *row = strtok_r(rows, "\n", &rest); ok && row; row = strtok_r(NULL, "\n", &rest)) {
        for (uint32_t d = 0; ok && d < c->replicas; d++)
            ok = trace_follows(&r->trace, d * c->ranks + n, row, chunks, last, &r->why);
        n++;
    }
    free(rows);
    return ok && (n == c->ranks || fail(&r->why, "%u rows for %u ranks", n, c->ranks));
}

static bool sends_as_planned(unit_run *r, const cell *c)
{
    json_t *plan = checks_plan(r);
    bool ok = plan && traffic_as_planned(c, &r->tr, &r->trace, plan, &r->params, &r->why);
    json_decref(plan);
    return ok;
}

void matrix_run(suite *s, const cell *c)
{
    char name[CELL_NAME], stem[UNIT_NAME], script[UNIT_NAME], adamw_script[UNIT_NAME];
    cell_name(c, name);
    snprintf(stem, sizeof stem, "%s-adamw", name);
    write_script(&s->tool, c, sgd, false, name, script);
    write_script(&s->tool, c, adamw, false, stem, adamw_script);
    unit_run r = {.s = s, .name = name, .of = {.script = script}};
    if (checks_begin(&r)) {
        checks_numbers(&r, one_rank(s, c, false));
        checks_report(&r, "order of computes is that of pps rows", follows_rows(&r, c));
        checks_report(&r, "bytes sent", sends_as_planned(&r, c));
        if (cell_sharers(c) > 1)
            checks_report(&r, "all-to-alls", traffic_of_experts(c, &r.trace, &r.why));
        checks_memory(&r, false); /* planned for the worst case: all rows at one expert */
        if (c->schedule != CELL_ONE_F_ONE_B) /* the same sums in the same order */
            checks_bits(&r, "bits of 1F1B", one_f_one_b(s, c));
        checks_again(&r);
        checks_adamw(&r, &(subject){.script = adamw_script}, one_rank(s, c, true));
    }
    checks_end(&r);
}
