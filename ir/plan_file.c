/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_file.c: plan files from the outside: which form it is, reading and then validating it,
 * writing it. The forms themselves are in plan_binary_*.c and plan_lines_*.c.
 */
#include "ir/plan_row.h"

#include <stdlib.h>
#include <string.h>

plan_file_form plan_file_detect(const void *bytes, size_t n)
{
    if (n >= sizeof PLAN_MAGIC - 1 && memcmp(bytes, PLAN_MAGIC, sizeof PLAN_MAGIC - 1) == 0)
        return PLAN_FILE_BINARY;
    if (n >= sizeof PLAN_TEXT_MAGIC - 1 &&
        memcmp(bytes, PLAN_TEXT_MAGIC, sizeof PLAN_TEXT_MAGIC - 1) == 0)
        return PLAN_FILE_TEXT;
    return PLAN_FILE_NONE;
}

pps_status plan_file_read(pps_state *st, const char *name, const void *bytes, size_t n,
                          plan_set **ret)
{
    char reason[256];
    pps_span span = {0};
    plan_file_form form = plan_file_detect(bytes, n);
    if (form == PLAN_FILE_NONE)
        return pps_error(st, span, 1101, "'%s' is not a plan file", name);
    plan_set *set = plan_set_new();
    if (set == NULL)
        return PPS_ERR_NOMEM;
    pps_status status = form == PLAN_FILE_BINARY ? plan_read_binary(st, name, bytes, n, set)
                                                 : plan_read_text(st, name, bytes, n, set);
    if (status == PPS_OK) {
        status = plan_validate(set, reason, &span);
        if (status == PPS_ERR_SCRIPT)
            pps_error(st, span, 1106, "'%s' does not hold a plan: %s", name, reason);
    }
    if (status == PPS_OK)
        *ret = set;
    else
        plan_set_free(set);
    return status;
}

/* ---- Writing ----------------------------------------------------------------------------------
 */

static bool grow(void *array, uint32_t *cap, uint32_t need, size_t element)
{
    uint32_t bigger = need + need / 2 + 16;
    void *old, *grown;
    if (need < *cap)
        return true;
    memcpy(&old, array, sizeof old);
    grown = bigger > need ? realloc(old, bigger * element) : NULL;
    if (grown == NULL)
        return false;
    memset((char *)grown + *cap * element, 0, (bigger - *cap) * element);
    memcpy(array, &grown, sizeof grown);
    *cap = bigger;
    return true;
}

static pps_status mention(pps_state *st, plan_files *files, pps_span span)
{
    uint32_t line, column;
    if (!grow(&files->index, &files->cap_index, span.file, sizeof *files->index) ||
        !grow(&files->names, &files->cap_names, files->n, sizeof *files->names))
        return PPS_ERR_NOMEM;
    if (span.file == 0 || files->index[span.file] != 0)
        return PPS_OK;
    pps_span_place(st, span, &files->names[files->n], &line, &column);
    files->index[span.file] = ++files->n;
    return PPS_OK;
}

static pps_status find_files(pps_state *st, const plan_set *set, plan_files *files)
{
    for (uint32_t id = 0; id < PLAN_TABLE_COUNT; id++) {
        plan_table t = plan_table_of(id);
        for (uint32_t f = 0; f < t.n_fields; f++) {
            if (t.fields[f].type != PLAN_TYPE_SPAN)
                continue;
            for (uint32_t o = 0; o < plan_owners(&t, set); o++) {
                const void *owner = plan_owner(&t, set, o);
                for (uint32_t i = 0; i < plan_table_n(&t, owner); i++)
                    PPS_TRY(mention(st, files, plan_field_get(&t.fields[f], owner, i).span));
            }
        }
    }
    return PPS_OK;
}

plan_point plan_point_of(const plan_out *out, pps_span span)
{
    const char *name;
    plan_point p = {0};
    if (span.file == 0)
        return p;
    p.file = out->files->index[span.file];
    pps_span_place(out->st, span, &name, &p.begin[0], &p.begin[1]);
    span.begin = span.end;
    pps_span_place(out->st, span, &name, &p.end[0], &p.end[1]);
    return p;
}

pps_status plan_file_write(pps_state *st, const plan_set *set, plan_file_form form,
                           ir_print_fn print, void *ud)
{
    plan_files files = {0};
    plan_out out = {.st = st, .set = set, .files = &files, .print = print, .ud = ud};
    pps_status status = find_files(st, set, &files);
    if (status == PPS_OK)
        status = form == PLAN_FILE_TEXT ? plan_write_text(&out) : plan_write_binary(&out);
    free(files.index);
    free(files.names);
    return status;
}
