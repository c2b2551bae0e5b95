/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_export.c: `pps export`: a script's schedule for another system. A script that trains is
 * compiled too, so what is written is known to run; directives alone are written as they are.
 */
#include "runtime/cli/commands.h"

#include <stdlib.h>

#include "ir/piper.h"
#include "runtime/cli/session.h"

static pps_status export_script(session *s, char **ret_json)
{
    PPS_TRY(session_eval(s));
    PPS_TRY(ir_program_collect(s->program));
    bool trains = s->program->has_train;
    if (trains)
        PPS_TRY(ir_program_finish(s->program));
    PPS_TRY(piper_export(s->program, ret_json));
    return trains ? session_compile(s, NULL) : PPS_OK;
}

int cmd_export(const cli_options *options)
{
    session s;
    char *json = NULL;
    pps_status status = session_open(&s, options);
    if (status == PPS_OK)
        status = export_script(&s, &json);
    if (status == PPS_OK)
        status = session_output(&s, options->output, json);
    free(json);
    return session_end(&s, status);
}
