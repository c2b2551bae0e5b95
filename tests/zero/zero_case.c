/* SPDX-License-Identifier: Apache-2.0
 *
 * zero_case.c: see zero_case.h.
 */
#include "zero_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- Compiling ------------------------------------------------------------------------------- */

static void say(compiled *c, const char *text, size_t n)
{
    size_t have = strlen(c->said), room = sizeof c->said - 1 - have;
    n = n < room ? n : room;
    memcpy(c->said + have, text, n);
    c->said[have + n] = '\0';
}

static void on_diag(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    compiled *c = ud;
    (void)span;
    if (severity == PPS_SEV_ERROR)
        c->code = code;
    say(c, text, strlen(text));
}

static void on_print(void *ud, const char *text, size_t n)
{
    say(ud, text, n);
}

void zero_compile(compiled *c, const char *script)
{
    memset(c, 0, sizeof *c);
    loader_init(&c->loader, 0);
    pps_config config = {.size = sizeof config,
                         .print = on_print,
                         .print_ud = c,
                         .diag = on_diag,
                         .diag_ud = c,
                         .load = loader_load,
                         .load_ud = &c->loader};
    pass_options options = {.verify = true};
    assert_int_equal(pps_open(PPS_ABI, &config, &c->st), PPS_OK);
    assert_int_equal(ir_open(c->st, &c->program), PPS_OK);
    pps_status status = pps_eval(c->st, "test.pps", "test.pps", script, strlen(script));
    if (status == PPS_OK)
        status = ir_program_finish(c->program);
    if (status == PPS_OK)
        status = pps_compile(c->st, c->program, &options, &c->set);
    assert_true(status == PPS_OK || status == PPS_ERR_SCRIPT);
}

void zero_close(compiled *c)
{
    pps_plan_free(c->set);
    pps_close(c->st);
    ir_close(c->program);
    loader_done(&c->loader);
}

static const struct {
    const char *name, *devices, *rows;
    int stages;
} schedules[] = {
    {"alone", NULL, NULL, 4},
    {"1f1b", "loop_stages(2, 1, 2)", "one_f_one_b(2, 4)", 2},
    {"interleaved", "loop_stages(2, 4, 2)", "interleaved_1f1b(2, 4, 4)", 8},
    {"dualpipev", "v_stages(2, 2)", "dualpipev(2, 4)", 4},
};

void zero_open(compiled *c, const zero_case *z)
{
    char script[4096];
    size_t i = 0;
    while (strcmp(z->schedule, schedules[i].name) != 0)
        i++;
    int n = snprintf(
        script, sizeof script,
        "from \"models/qwen3_moe\" import qwen3_moe\n"
        "from \"schedules\" import one_f_one_b, interleaved_1f1b, dualpipev, loop_stages, "
        "v_stages\n"
        "train qwen3_moe(tokens(16, 8), targets(), stages=%d, layers=8, dim=16, heads=2, "
        "kv_heads=1, "
        "head_dim=8, experts=4, top_k=2, expert_hidden=16, vocab=50, aux_loss=0.01) optimizer %s\n",
        schedules[i].stages, z->optimizer != NULL ? z->optimizer : "sgd(lr=0.1)");
    if (schedules[i].devices != NULL)
        n += snprintf(script + n, sizeof script - (size_t)n,
                      "let devices = %s\n"
                      "let pp, dp, ep, ga = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\"), "
                      "stream(\"ga\")]\n"
                      "split {} by MB into 4\n"
                      "for s in 0..len(devices) {\n"
                      "  place {PP: s} on devices[s] stream pp\n"
                      "  replicate {PP: s} on devices[s] reduce dp %s\n"
                      "%s"
                      "}\n"
                      "order %s\n",
                      schedules[i].devices, z->clauses,
                      z->ep ? "  shard {PP: s, EP: *} on devices[s] stream ep\n" : "",
                      schedules[i].rows);
    assert_true((size_t)n < sizeof script);
    zero_compile(c, script);
    if (c->set == NULL)
        fail_msg("refused:\n%s\n%s", script, c->said);
}

/* ---- Running --------------------------------------------------------------------------------- */

static void on_step(void *ud, uint64_t step, double loss, double aux_loss, double ms)
{
    (void)ms;
    ((outcome *)ud)->losses[step - 1] = loss + aux_loss;
}

/* The values of a safetensors file: what lies at its end. */
static float *read_values(const char *path, uint64_t bytes)
{
    FILE *file = fopen(path, "rb");
    float *values = malloc(bytes);
    assert_true(file != NULL && values != NULL);
    assert_int_equal(fseek(file, -(long)bytes, SEEK_END), 0);
    assert_int_equal(fread(values, 1, bytes, file), bytes);
    fclose(file);
    return values;
}

void zero_run(compiled *c, outcome *ret)
{
    char folder[64], params[96], grads[96];
    const char *base = getenv("TMPDIR");
    train_layout layout;
    snprintf(folder, sizeof folder, "%.40s/pps-test-XXXXXX", base != NULL ? base : P_tmpdir);
    assert_non_null(mkdtemp(folder));
    snprintf(params, sizeof params, "%s/params", folder);
    snprintf(grads, sizeof grads, "%s/grads", folder);
    memset(ret, 0, sizeof *ret);
    launch_options options = {.set = c->set,
                              .st = c->st,
                              .steps = ZERO_STEPS,
                              .threads = true,
                              .backend = LAUNCH_CPU,
                              .plain_kernels = true,
                              .memory_check = true,
                              .save_path = params,
                              .save_gradients_path = grads,
                              .want_hash = true,
                              .on_step = on_step,
                              .on_step_ud = ret};
    c->said[0] = '\0';
    if (launch_run(&options, &ret->result) != PPS_OK)
        fail_msg("the run failed: %s", c->said);
    assert_int_equal(train_layout_new(c->set, &layout), PPS_OK);
    ret->params = read_values(params, layout.bytes);
    ret->grads = read_values(grads, layout.bytes);
    train_layout_done(&layout);
    unlink(params);
    unlink(grads);
    rmdir(folder);
}

void outcome_done(outcome *o)
{
    launch_result_done(&o->result);
    free(o->params);
    free(o->grads);
}

/* ---- Comparing ---------------------------------------------------------------------------------
 */

void zero_near(const char *what, const plan_set *set, const float *got, const float *wanted)
{
    train_layout layout;
    assert_int_equal(train_layout_new(set, &layout), PPS_OK);
    for (uint32_t q = 0; q < set->n_params; q++) {
        const float *a = got + layout.offsets[q] / 4, *b = wanted + layout.offsets[q] / 4;
        double worst = 0, largest = 0;
        for (uint64_t i = 0; i < ir_param_elems(&set->params[q]); i++) {
            double d = fabs((double)a[i] - (double)b[i]);
            worst = d > worst || isnan(d) ? d : worst;
            largest = fabs((double)b[i]) > largest ? fabs((double)b[i]) : largest;
        }
        if (!(worst <= 1e-5 * largest))
            fail_msg("%s of %s off by %g of %g", what, set->params[q].name, worst, largest);
    }
    train_layout_done(&layout);
}

/* Bytes that a rank's step sends by its plan, where that does not depend on the data. */
static uint64_t planned_bytes(const plan_set *set, const plan_step *s, const plan_seat *seats)
{
    const plan_work *w = plan_work_of(set, s);
    bool is_send = s->kind == PLAN_SEND;
    uint64_t n = is_send ? 1 : set->teams[w->teams].size, slice = w->bytes / n;
    switch ((plan_step_kind)s->kind) {
    case PLAN_SEND:
        return w->bytes;
    case PLAN_ALL_REDUCE: { /* the others' slices to them, our sums to all */
        uint64_t elems = w->bytes / 4, index = seats[w->teams].index;
        uint64_t own = elems * (index + 1) / n - elems * index / n;
        return (elems - own + (n - 1) * own) * 4;
    }
    case PLAN_REDUCE_SCATTER:
    case PLAN_ALL_GATHER:
        return (n - 1) * slice;
    default:
        return 0;
    }
}

void zero_as_planned(const plan_set *set, const outcome *o, bool ep)
{
    static const plan_step_kind kinds[] = {PLAN_SEND, PLAN_ALL_REDUCE, PLAN_REDUCE_SCATTER,
                                           PLAN_ALL_GATHER};
    plan_seat *seats = calloc(set->n_teams, sizeof *seats);
    assert_non_null(seats);
    for (uint32_t rank = 0; rank < set->n_ranks; rank++) {
        const plan *p = &set->plans[set->rank_group[rank]];
        uint64_t measured = o->result.measured_bytes[rank], planned = o->result.planned_bytes[rank];
        plan_find_seats(set, rank, seats);
        if (ep) /* room for rows that this data does not send */
            assert_true(measured <= planned);
        else
            assert_int_equal(measured, planned);
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            uint64_t bytes = 0;
            for (uint32_t i = 0; i < p->n_steps; i++)
                if (p->steps[i].kind == kinds[k])
                    bytes += planned_bytes(set, &p->steps[i], seats);
            assert_int_equal(o->result.sent_bytes[rank][kinds[k]], bytes);
        }
    }
    free(seats);
}
