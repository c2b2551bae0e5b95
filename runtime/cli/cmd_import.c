/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_import.c: `pps import`: another system's schedule as a script. Piper's JSON is ir/piper.h's;
 * here the file is read, the model found, and the script tried before it is written: it evaluates,
 * and with a model it compiles.
 */
#include "runtime/cli/commands.h"

#include <stdlib.h>
#include <string.h>

#include "ir/piper.h"
#include "runtime/cli/session.h"

/* The stdlib module of the model that `expression` calls, as "models/NAME" into `module`; leaves
 * out what is no model of the stdlib: the expression may do with builtins alone. */
static void find_model(const session *s, const char *expression, char module[128],
                       piper_model *model)
{
    pps_source source = {0};
    char reason[256] = "";
    const char *begin = expression + strspn(expression, " \t\n");
    size_t n = strspn(begin, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    if (n == 0 || n > 100)
        return;
    snprintf(module, 128, "models/%.*s", (int)n, begin);
    if (loader_load((void *)&s->loader, "", module, &source, reason) != PPS_OK)
        return;
    loader_release(NULL, &source);
    model->module = module;
    model->name = strchr(module, '/') + 1;
}

/* Messages about the script name the file it is for. */
static pps_status try_script(session *s, const char *script, const char *resolved)
{
    const char *name = s->options->output ? s->options->output : "the imported script";
    PPS_TRY(pps_eval(s->st, name, resolved, script, strlen(script)));
    if (!s->options->model)
        return PPS_OK;
    PPS_TRY(ir_program_finish(s->program));
    return session_compile(s, NULL);
}

static pps_status import_file(session *s, char **ret_script)
{
    const cli_options *o = s->options;
    char reason[256] = "", module[128];
    pps_source source = {0};
    piper_model model = {.expression = o->model};
    pps_status status = loader_script(&s->loader, o->words[0], &source, reason);
    if (status != PPS_OK)
        return pps_error(s->st, (pps_span){0}, 971, "cannot read '%s': %s", o->words[0], reason);
    if (o->model)
        find_model(s, o->model, module, &model);
    status = piper_import(s->st, o->words[0], source.text, source.bytes, o->model ? &model : NULL,
                          ret_script);
    if (status == PPS_OK)
        status = try_script(s, *ret_script, source.resolved);
    loader_release(NULL, &source);
    return status;
}

int cmd_import(const cli_options *options)
{
    session s;
    char *script = NULL;
    pps_status status = session_open(&s, options);
    if (status == PPS_OK)
        status = import_file(&s, &script);
    if (status == PPS_OK)
        status = session_output(&s, options->output, script);
    free(script);
    return session_end(&s, status);
}
