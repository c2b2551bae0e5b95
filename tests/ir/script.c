/* SPDX-License-Identifier: Apache-2.0
 *
 * script.c: see script.h.
 */
#include "script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(script *s, const char *text, size_t n)
{
    size_t have = strlen(s->said);
    if (n > sizeof s->said - 1 - have)
        n = sizeof s->said - 1 - have;
    memcpy(s->said + have, text, n);
    s->said[have + n] = '\0';
}

static void on_diag(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    script *s = ud;
    (void)span;
    if (severity != PPS_SEV_ERROR)
        s->n_notes++;
    else if (s->n_errors < 32)
        s->codes[s->n_errors++] = code;
    say(s, text, strlen(text));
}

static void on_print(void *ud, const char *text, size_t n)
{
    say(ud, text, n);
}

void script_more(script *s, const char *text, bool finish)
{
    s->status = pps_eval(s->st, "test.pps", "test.pps", text, strlen(text));
    if (s->status == PPS_OK && finish)
        s->status = ir_program_finish(s->program);
}

void script_run(script *s, const char *text, bool finish)
{
    memset(s, 0, sizeof *s);
    pps_config config = {
        .size = sizeof config, .print = on_print, .print_ud = s, .diag = on_diag, .diag_ud = s};
    s->status = pps_open(PPS_ABI, &config, &s->st);
    if (s->status == PPS_OK)
        s->status = ir_open(s->st, &s->program);
    if (s->status == PPS_OK)
        script_more(s, text, finish);
}

void script_close(script *s)
{
    pps_close(s->st);
    ir_close(s->program);
}

static void put(void *ud, const char *text, size_t n)
{
    strncat(ud, text, n);
}

const char *script_dump(script *s)
{
    s->said[0] = '\0';
    ir_graph_dump(s->program->graph, put, s->said);
    return s->said;
}

bool script_fails(const char *text, int code, const char *place, const char *part)
{
    static script s;
    char head[32], where[64];
    snprintf(head, sizeof head, "E%04d", code);
    snprintf(where, sizeof where, "test.pps:%s", place);
    script_run(&s, text, true);
    bool as_wanted = s.status == PPS_ERR_SCRIPT && s.n_errors == 1 && s.codes[0] == code &&
                     strstr(s.said, head) && strstr(s.said, where) && strstr(s.said, part);
    if (!as_wanted)
        printf("wanted %s at %s with \"%s\" from:\n%s\ngot status %d, %u errors:\n%s\n", head,
               where, part, text, s.status, s.n_errors, s.said);
    script_close(&s);
    return as_wanted;
}
