/* SPDX-License-Identifier: Apache-2.0
 *
 * compiled.c: see compiled.h.
 */
#include "compiled.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

const schedule_case schedule_cases[N_SCHEDULES] = {
    {"gpipe", "gpipe(%u, %u)", "loop_stages(%u, 1, %u)", 1, 1},
    {"1f1b", "one_f_one_b(%u, %u)", "loop_stages(%u, 1, %u)", 1, 1},
    {"interleaved", "interleaved_1f1b(%u, %u, 2)", "loop_stages(%u, 2, %u)", 2, 1},
    {"zerobubble", "zerobubble(%u, %u)", "loop_stages(%u, 1, %u)", 1, 1},
    {"dualpipev", "dualpipev(%u, %u)", "v_stages(%u, %u)", 2, 2},
};

static void say(compiled *c, const char *text, size_t n)
{
    size_t have = strlen(c->said), room = sizeof c->said - 1 - have;
    n = n < room ? n : room;
    memcpy(c->said + have, text, n);
    c->said[have + n] = '\0';
}

static void on_diag(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    (void)severity, (void)code, (void)span;
    say(ud, text, strlen(text));
}

static void on_print(void *ud, const char *text, size_t n)
{
    say(ud, text, n);
}

void compile_text(compiled *c, uint32_t streams, const char *text, ...)
{
    char script[8192];
    va_list args;
    va_start(args, text);
    int n = vsnprintf(script, sizeof script, text, args);
    va_end(args);
    assert_true(n > 0 && (size_t)n < sizeof script);
    memset(c, 0, sizeof *c);
    loader_init(&c->loader, 0);
    pps_config config = {.size = sizeof config,
                         .print = on_print,
                         .print_ud = c,
                         .diag = on_diag,
                         .diag_ud = c,
                         .load = loader_load,
                         .load_ud = &c->loader};
    pass_options options = {.max_streams = streams, .verify = true};
    pps_status status = pps_open(PPS_ABI, &config, &c->st);
    if (status == PPS_OK)
        status = ir_open(c->st, &c->program);
    if (status == PPS_OK)
        status = pps_eval(c->st, "test.pps", "test.pps", script, (size_t)n);
    if (status == PPS_OK)
        status = ir_program_finish(c->program);
    if (status == PPS_OK)
        status = pps_compile(c->st, c->program, &options, &c->set);
    if (status != PPS_OK)
        fail_msg("status %d from\n%s\n%s", (int)status, script, c->said);
}

void compiled_close(compiled *c)
{
    pps_plan_free(c->set);
    pps_close(c->st);
    ir_close(c->program);
    loader_done(&c->loader);
}

void pipeline_text(const schedule_case *schedule, uint32_t R, uint32_t dp, bool ep, uint32_t M,
                   const char *stream, char *ret, size_t n)
{
    char rows[64], stages[64];
    snprintf(rows, sizeof rows, schedule->rows, R, M);
    snprintf(stages, sizeof stages, schedule->stages, R, dp);
    int used =
        snprintf(ret, n,
                 "let stages_on = %s\n"
                 "split {} by MB into %u\n"
                 "for s in 0..%u {\n"
                 "  place {PP: s} on stages_on[s] stream stream(%s)\n"
                 "%s%s"
                 "}\n"
                 "order %s\n",
                 stages, M, R * schedule->per_rank, stream,
                 dp > 1 ? "  replicate {PP: s} on stages_on[s] reduce stream(\"dp\")\n" : "",
                 ep ? "  shard {PP: s, EP: *} on stages_on[s] stream stream(\"ep\")\n" : "", rows);
    assert_true(used > 0 && (size_t)used < n);
}
