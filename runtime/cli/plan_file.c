/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_file.c: plan files from the command line: read and proved before anything uses them, written
 * so that a name never stands for half a file. What is in them is ir's.
 */
#include "runtime/cli/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ir/plan_file.h"

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

pps_status session_read_plans(session *s, const pps_source *source)
{
    double begin = now_ms();
    const cli_options *o = s->options;
    if (o->n_defines > 0 || o->streams > 0 || o->costs)
        return pps_error(s->st, (pps_span){0}, 976,
                         "'%s' is a plan file, in which %s was settled when it was written",
                         s->script,
                         o->n_defines > 0 ? "every parameter"
                         : o->streams > 0 ? "the number of streams"
                                          : "every order");
    PPS_TRY(plan_file_read(s->st, s->script, source->text, source->bytes, &s->plans));
    PPS_TRY(pps_prove(s->st, s->plans));
    s->plans->compile_ms = now_ms() - begin;
    return PPS_OK;
}

/* ---- Writing ----------------------------------------------------------------------------------
 */

static pps_status cannot_write(session *s, const char *path)
{
    pps_error(s->st, (pps_span){0}, 974, "cannot write '%s': %s", path, strerror(errno));
    return PPS_ERR_MACHINE;
}

pps_status session_write_plans(session *s, const char *path)
{
    size_t n = strlen(path), bytes = n + 32;
    bool is_text = n > 4 && strcmp(path + n - 4, ".txt") == 0;
    char *temporary = malloc(bytes);
    if (!temporary)
        return PPS_ERR_NOMEM;
    snprintf(temporary, bytes, "%s.%ld.tmp", path, (long)getpid());
    pps_status status = PPS_OK;
    FILE *file = fopen(temporary, "wb");
    bool ok = file != NULL;
    if (file) {
        status = plan_file_write(s->st, s->plans, is_text ? PLAN_FILE_TEXT : PLAN_FILE_BINARY,
                                 report_to_file, file);
        ok = !ferror(file);
        ok = fclose(file) == 0 && ok;
        ok = ok && (status != PPS_OK || rename(temporary, path) == 0);
    }
    if (!ok)
        status = cannot_write(s, path);
    if (file && status != PPS_OK)
        unlink(temporary);
    free(temporary);
    return status;
}

/* ---- Rows -------------------------------------------------------------------------------------
 */

/* Bytes of "{SEQ=1}", the one further tag that an op of a plan's row can have; 0: it is none. */
static size_t slice_bytes(const char *text, const char *slice_tag)
{
    size_t n = slice_tag ? strlen(slice_tag) : 0;
    if (n == 0 || text[0] != '{' || strncmp(text + 1, slice_tag, n) != 0 || text[n + 1] != '=')
        return 0;
    size_t digits = strspn(text + n + 2, "0123456789");
    return digits > 0 && text[n + 2 + digits] == '}' ? n + 3 + digits : 0;
}

/* "F0:2|B3:0 BI3:1{SEQ=0}" as a list of the language: "[F(0,2)|B(3,0),BI(3,1,SEQ=0)]". Every op
 * becomes at most 3 bytes longer. False for anything but passes, stages, microbatches and slices.
 */
static bool row_expression(const char *text, const char *slice_tag, char *out)
{
    static const char *const passes[] = {"F", "BI", "BW", "B"};
    *out++ = '[';
    for (const char *c = text; *c;) {
        size_t k = 0;
        while (k < sizeof passes / sizeof passes[0] &&
               strncmp(c, passes[k], strlen(passes[k])) != 0)
            k++;
        if (k == sizeof passes / sizeof passes[0])
            return false;
        size_t pass = strlen(passes[k]);
        size_t stage = strspn(c + pass, "0123456789");
        size_t mb = c[pass + stage] == ':' ? strspn(c + pass + stage + 1, "0123456789") : 0;
        if (stage == 0 || mb == 0)
            return false;
        out += sprintf(out, "%s(%.*s,%.*s", passes[k], (int)stage, c + pass, (int)mb,
                       c + pass + stage + 1);
        c += pass + stage + 1 + mb;
        size_t slice = slice_bytes(c, slice_tag);
        if (slice > 0)
            out += sprintf(out, ",%.*s", (int)slice - 2, c + 1);
        *out++ = ')';
        c += slice;
        if (*c && *c != '|' && *c != ' ')
            return false;
        if (*c)
            *out++ = *c++ == '|' ? '|' : ',';
    }
    *out++ = ']';
    *out = 0;
    return true;
}

pps_status session_plan_rows(session *s)
{
    const plan_set *set = s->plans;
    size_t bytes = 4;
    for (uint32_t g = 0; g < set->n_groups; g++)
        bytes += 2 * (set->row_text[g] ? strlen(set->row_text[g]) : 0) + 8;
    char *expression = malloc(bytes), *at = expression;
    if (!expression)
        return PPS_ERR_NOMEM;
    pps_status status = PPS_OK;
    *at++ = '[';
    for (uint32_t g = 0; g < set->n_groups && status == PPS_OK; g++) {
        const char *row = set->row_text[g] ? set->row_text[g] : "";
        if (!row_expression(row, set->slice_tag, at)) {
            status =
                pps_error(s->st, (pps_span){0}, 977,
                          "the row of group %u names more than stages, microbatches and slices", g);
            break;
        }
        at += strlen(at);
        *at++ = ',';
    }
    if (status == PPS_OK) {
        at[-1] = ']';
        *at = 0;
        s->program->slice_tag = set->slice_tag;
        s->program->n_slices = set->n_slices;
        status = session_rows(s, expression);
    }
    free(expression);
    return status;
}
