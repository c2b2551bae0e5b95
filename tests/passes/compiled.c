/* SPDX-License-Identifier: Apache-2.0
 *
 * compiled.c: see compiled.h.
 */
#include "compiled.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(compiled *c, const char *text)
{
    size_t have = strlen(c->said), n = strlen(text);
    if (n > sizeof c->said - 1 - have)
        n = sizeof c->said - 1 - have;
    memcpy(c->said + have, text, n);
    c->said[have + n] = '\0';
}

static void on_diag(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    compiled *c = ud;
    (void)span;
    if (severity != PPS_SEV_ERROR)
        c->n_notes++;
    else if (c->n_errors < 32)
        c->codes[c->n_errors++] = code;
    say(c, text);
}

static void release(void *ud, pps_source *source)
{
    (void)ud;
    free(source->text);
    free(source->resolved);
}

static pps_status load(void *ud, const char *from, const char *path, pps_source *ret,
                       char reason[256])
{
    const char *stdlib = getenv("PPS_STDLIB");
    char name[1024];
    (void)ud;
    (void)from;
    snprintf(name, sizeof name, "%s/%s.pps", stdlib != NULL ? stdlib : ".", path);
    FILE *file = fopen(name, "rb");
    if (file == NULL) {
        snprintf(reason, 256, "the stdlib has no %.100s; PPS_STDLIB names its folder", path);
        return PPS_ERR_IO;
    }
    char *text = malloc(1 << 20);
    if (text != NULL)
        ret->bytes = fread(text, 1, 1 << 20, file);
    fclose(file);
    ret->text = text;
    ret->resolved = strdup(path);
    ret->release = release;
    return text != NULL && ret->resolved != NULL ? PPS_OK : PPS_ERR_NOMEM;
}

static void add_dump(void *ud, const char *text, size_t n)
{
    compiled *c = ud;
    if (c->n_dump + n + 1 > c->cap_dump) {
        c->cap_dump = 2 * (c->n_dump + n + 1);
        c->dump = realloc(c->dump, c->cap_dump);
        if (c->dump == NULL)
            abort();
    }
    memcpy(c->dump + c->n_dump, text, n);
    c->n_dump += n;
    c->dump[c->n_dump] = '\0';
}

void compiled_open(compiled *c, const char *text, uint32_t max_streams, const char *stage)
{
    memset(c, 0, sizeof *c);
    pps_config config = {.size = sizeof config, .diag = on_diag, .diag_ud = c, .load = load};
    pass_options options = {.max_streams = max_streams,
                            .verify = true,
                            .dump_stage = stage,
                            .dump = add_dump,
                            .dump_ud = c};
    c->status = pps_open(PPS_ABI, &config, &c->st);
    if (c->status == PPS_OK)
        c->status = ir_open(c->st, &c->program);
    if (c->status == PPS_OK)
        c->status = pps_eval(c->st, "test.pps", "test.pps", text, strlen(text));
    if (c->status == PPS_OK)
        c->status = ir_program_finish(c->program);
    if (c->status == PPS_OK)
        c->status = pps_compile(c->st, c->program, &options, &c->set);
}

void compiled_close(compiled *c)
{
    pps_plan_free(c->set);
    pps_close(c->st);
    ir_close(c->program);
    free(c->dump);
}

bool compiled_ok(compiled *c, const char *text)
{
    compiled_open(c, text, 0, NULL);
    if (c->status == PPS_OK)
        return true;
    printf("status %d from:\n%s\n%s\n", (int)c->status, text, c->said);
    return false;
}
