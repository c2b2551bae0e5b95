/* SPDX-License-Identifier: Apache-2.0
 *
 * session.c: from options to plans. Opens the interpreter with the program's hooks (print,
 * diagnostics, modules, Ctrl-C), evaluates the script or an expression, compiles. Printing results
 * is for commands.
 */
#include "runtime/cli/session.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "ir/plan_file.h"

/* The state that Ctrl-C interrupts. A signal handler has no argument, so this one pointer is a
 * global of the program (not of the library). */
static pps_state *volatile interrupted_state;

static void on_sigint(int number)
{
    (void)number;
    pps_state *st = interrupted_state;
    if (st)
        pps_interrupt(st);
}

/* A program started with Ctrl-C ignored (in the background of a script) leaves it ignored. */
static void set_sigint(void (*handler)(int))
{
    struct sigaction now, action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    if (sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler != SIG_IGN)
        sigaction(SIGINT, &action, NULL);
}

void session_release_sigint(void)
{
    set_sigint(SIG_DFL);
    interrupted_state = NULL;
}

pps_status session_open(session *s, const cli_options *options)
{
    *s = (session){.options = options, .script = ""};
    s->reporter.json = options->diagnostics == CLI_JSON;
    loader_init(&s->loader, options->max_memory);
    pps_config config = {
        .size = sizeof config,
        .print = report_print,
        .diag = report_diag,
        .diag_ud = &s->reporter,
        .load = loader_load,
        .load_ud = &s->loader,
        .max_steps = options->max_steps,
        .max_bytes = options->max_memory,
        .color = !s->reporter.json && report_color(stderr),
    };
    PPS_TRY(pps_open(PPS_ABI, &config, &s->st));
    s->reporter.st = s->st;
    interrupted_state = s->st;
    set_sigint(on_sigint);
    return ir_open(s->st, &s->program);
}

void session_done(session *s)
{
    session_release_sigint();
    pps_plan_free(s->plans);
    s->reporter.st = NULL;
    pps_close(s->st);
    ir_close(s->program);
    costs_done(&s->costs);
    loader_done(&s->loader);
    *s = (session){0};
}

static pps_status load(session *s, pps_source *ret)
{
    char reason[256] = "";
    s->script = s->options->words[0];
    if (loader_script(&s->loader, s->script, ret, reason) != PPS_OK)
        return pps_error(s->st, (pps_span){0}, 971, "cannot read '%s': %s", s->script, reason);
    s->script_dir = s->loader.root;
    return PPS_OK;
}

/* `source` is released. */
static pps_status evaluate(session *s, pps_source *source)
{
    pps_status status = PPS_OK;
    for (uint32_t i = 0; i < s->options->n_defines && status == PPS_OK; i++)
        status = pps_set_param(s->st, s->options->defines[i].name, s->options->defines[i].value);
    if (status == PPS_OK)
        status = pps_eval(s->st, s->script, source->resolved, source->text, source->bytes);
    loader_release(NULL, source);
    return status;
}

pps_status session_eval(session *s)
{
    pps_source source = {0};
    PPS_TRY(load(s, &source));
    return evaluate(s, &source);
}

pps_status session_script(session *s)
{
    pps_source source = {0};
    PPS_TRY(load(s, &source));
    if (plan_file_detect(source.text, source.bytes) == PLAN_FILE_NONE) {
        PPS_TRY(evaluate(s, &source));
        return ir_program_finish(s->program);
    }
    loader_release(NULL, &source);
    return pps_error(s->st, (pps_span){0}, 975, "'%s' is a plan file; `pps %s` needs a script",
                     s->script, s->options->command->name);
}

/* -n must be what the script places: another number would leave ranks idle or missing. */
static pps_status check_ranks(session *s)
{
    uint64_t asked = s->options->ranks;
    if (!asked || asked == s->plans->n_ranks)
        return PPS_OK;
    const pps_directive *last = NULL;
    for (uint32_t i = 0; i < s->program->n_directives; i++) {
        if (s->program->kinds[i] == PPS_DIR_PLACE)
            last = s->program->directives[i].source;
    }
    const pps_directive *train = s->program->train.source;
    pps_span span = last ? last->span : train ? train->span : (pps_span){0};
    pps_diag *d =
        pps_diag_start(s->st, PPS_SEV_ERROR, 972, span, "-n asks for %llu ranks, but the %s %u",
                       (unsigned long long)asked, s->from_file ? "plan file has" : "script places",
                       s->plans->n_ranks);
    if (last) {
        pps_diag_label(d, "the last place");
        if (train)
            pps_diag_also(d, train->span, "the model that is placed");
    } else if (!s->from_file) {
        pps_diag_label(d, "no place: one rank");
    }
    pps_diag_help(d, "leave -n away: the %s says how many ranks there are",
                  s->from_file ? "file" : "script");
    return pps_diag_done(d);
}

pps_status session_compile(session *s, const char *stage)
{
    pass_options options = {.max_streams = (uint32_t)s->options->streams,
                            .dump_stage = stage,
                            .dump = report_to_file,
                            .dump_ud = stdout};
#ifdef PPS_DEV
    options.verify = true;
#endif
    if (s->options->costs) {
        PPS_TRY(costs_read(s->st, s->options->costs, &s->costs));
        options.machine = &s->costs.machine;
    }
    PPS_TRY(pps_compile(s->st, s->program, &options, &s->plans));
    return check_ranks(s);
}

pps_status session_plans(session *s, const cli_options *options)
{
    pps_source source = {0};
    PPS_TRY(session_open(s, options));
    PPS_TRY(load(s, &source));
    if (plan_file_detect(source.text, source.bytes) == PLAN_FILE_NONE) {
        PPS_TRY(evaluate(s, &source));
        PPS_TRY(ir_program_finish(s->program));
        return session_compile(s, NULL);
    }
    s->from_file = true;
    pps_status status = session_read_plans(s, &source);
    loader_release(NULL, &source);
    PPS_TRY(status);
    return check_ranks(s);
}

pps_status session_rows(session *s, const char *expression)
{
    pps_value rows;
    PPS_TRY(pps_eval_expr(s->st, "rows", expression, strlen(expression), "schedules", &rows));
    return ir_rows_from_value(s->program, rows, NULL);
}

pps_status session_output(session *s, const char *path, const char *text)
{
    FILE *file = path ? fopen(path, "wb") : stdout;
    bool ok = file && fputs(text, file) >= 0;
    if (file && path)
        ok = fclose(file) == 0 && ok;
    if (ok)
        return PPS_OK;
    pps_error(s->st, (pps_span){0}, 974, "cannot write '%s': %s", path ? path : "stdout",
              strerror(errno));
    return PPS_ERR_MACHINE;
}

int session_end(session *s, pps_status status)
{
    int code = report_exit(&s->reporter, status);
    session_done(s);
    if (fflush(stdout) != 0 && code == CLI_EXIT_OK) {
        fprintf(stderr, "pps: cannot write the output\n");
        code = CLI_EXIT_MACHINE;
    }
    if (status == PPS_ERR_INTERRUPT)
        raise(SIGINT);
    return code;
}
