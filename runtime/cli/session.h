/* SPDX-License-Identifier: Apache-2.0
 *
 * session.h: one run of the program, from options to plans: the interpreter with its hooks, the
 * script, and what the compiler made of it. Everything that commands share.
 */
#ifndef PPS_CLI_SESSION_H
#define PPS_CLI_SESSION_H

#include "passes/pps_plan.h"
#include "runtime/cli/costs.h"
#include "runtime/cli/loader.h"
#include "runtime/cli/options.h"
#include "runtime/cli/report.h"

typedef struct session {
    const cli_options *options;
    pps_state *st;
    ir_program *program;
    plan_set *plans; /* after session_compile */
    costs costs;     /* of --costs */
    loader loader;
    reporter reporter;
    bool from_file;     /* the plans were read from a plan file: there is no program behind them */
    const char *script; /* as the command line names it; "" without one */
    const char
        *script_dir; /* canonical; borrowed from the loader. What data paths are relative to */
} session;

/* An interpreter with the model builtins and the stdlib, limits from the options. `s` is released
 * with session_done after success and after failure. */
pps_status session_open(session *s, const cli_options *options);
void session_done(session *s);

/* Run the script named by the command line's first word, with its -D parameters. */
pps_status session_eval(session *s);
/* The same; then take its directives apart. */
pps_status session_script(session *s);
/* Compile what the script made. `stage` is a stage to print onto stdout, or NULL. Checks -n. */
pps_status session_compile(session *s, const char *stage);
/* All three; or, where the first word names a plan file (which its first bytes tell), that file's
 * plans, validated and proved. */
pps_status session_plans(session *s, const cli_options *options);

/* The schedule's rows by `expression`, with the stdlib's schedules in scope, into s->program. */
pps_status session_rows(session *s, const char *expression);

/* Write `text` to the file `path`, or to stdout when that is NULL. */
pps_status session_output(session *s, const char *path, const char *text);

/* plan_file.c: the plans of `source`, a plan file, into s->plans: E0976 for options that only a
 * script can honour, E11xx and what pps_prove finds. */
pps_status session_read_plans(session *s, const pps_source *source);
/* s->plans as a file: text where `path` ends in .txt. Written beside it and renamed. E0974. */
pps_status session_write_plans(session *s, const char *path);
/* The rows that the plans of a file ran, into s->program; E0977 where they cannot be told. */
pps_status session_plan_rows(session *s);

/* Ctrl-C interrupts the script from session_open to this call, which gives SIGINT back. */
void session_release_sigint(void);
/* Exit status; closes the session. After an interrupt the program dies of SIGINT, as shells expect.
 */
int session_end(session *s, pps_status status);

#endif
