/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_dump.c: `pps dump`: the program as one stage of the compiler leaves it.
 */
#include "runtime/cli/commands.h"

#include <string.h>

#include "runtime/cli/session.h"

static bool is_stage(const char *name)
{
    for (const char *const *stage = pps_compile_stages(); *stage; stage++) {
        if (strcmp(*stage, name) == 0)
            return true;
    }
    return false;
}

static void list_stages(FILE *out, const char *before)
{
    for (const char *const *stage = pps_compile_stages(); *stage; stage++)
        fprintf(out, "%s%s", stage == pps_compile_stages() ? "" : before, *stage);
    fputc('\n', out);
}

int cmd_dump(const cli_options *options)
{
    const char *stage = options->stage;
    if (stage && strcmp(stage, "list") == 0) {
        list_stages(stdout, "\n");
        return CLI_EXIT_OK;
    }
    if (!stage || !is_stage(stage)) {
        if (stage)
            fprintf(stderr, "pps dump: there is no stage '%s'; stages are: ", stage);
        else
            fprintf(stderr, "pps dump: --stage is missing; stages are: ");
        list_stages(stderr, ", ");
        return CLI_EXIT_USAGE;
    }
    session s;
    pps_status status = session_open(&s, options);
    if (status == PPS_OK)
        status = session_script(&s);
    if (status == PPS_OK)
        status = session_compile(&s, stage);
    return session_end(&s, status);
}
