/* SPDX-License-Identifier: Apache-2.0
 *
 * source.c: texts live in the state's `names` arena as long as the state, since spans outlive runs.
 * A file's table of line begins is built when a place in it is first asked for; short of memory,
 * lines are counted instead. A file whose text is elsewhere has a list of points instead: the k-th
 * is what offset k stands for.
 */
#include "lang/source.h"

#include <string.h>
#include "lang/state.h"

static pps_status grow_table(pps_state *st)
{
    source_table *t = &st->sources;
    uint32_t cap = t->cap == 0 ? 16 : t->cap * 2;
    source_file **files =
        arena_realloc(&st->names, t->files, t->cap * sizeof *files, cap * sizeof *files);
    if (files == NULL)
        return PPS_ERR_NOMEM;
    t->files = files;
    t->cap = cap;
    if (t->n == 0)
        t->files[t->n++] = NULL;
    return PPS_OK;
}

pps_status source_add(pps_state *st, const char *name, const char *source, size_t bytes,
                      uint32_t *ret_file)
{
    source_table *t = &st->sources;
    if (bytes >= UINT32_MAX)
        return PPS_ERR_ARG;
    if (bytes >= 3 && memcmp(source, "\xef\xbb\xbf", 3) == 0) {
        source += 3;
        bytes -= 3;
    }
    if (t->n == t->cap)
        PPS_TRY(grow_table(st));
    source_file *file = arena_zero(&st->names, sizeof *file);
    if (file == NULL)
        return PPS_ERR_NOMEM;
    file->name = arena_copy(&st->names, name, strlen(name));
    file->text = arena_copy(&st->names, source, bytes);
    file->bytes = bytes;
    if (file->name == NULL || file->text == NULL)
        return PPS_ERR_NOMEM;
    t->files[t->n] = file;
    *ret_file = t->n++;
    return PPS_OK;
}

pps_status pps_source_named(pps_state *st, const char *name, uint32_t *ret_file)
{
    PPS_TRY(source_add(st, name, "", 0, ret_file));
    st->sources.files[*ret_file]->text = NULL;
    return PPS_OK;
}

pps_status pps_source_place(pps_state *st, uint32_t file_id, const uint32_t begin[2],
                            const uint32_t end[2], pps_span *ret)
{
    source_file *file = (source_file *)source_get(st, file_id);
    if (file == NULL || file->text != NULL)
        return PPS_ERR_ARG;
    if (file->cap_points - file->n_points < 2) {
        uint32_t cap = file->cap_points == 0 ? 16 : file->cap_points * 2;
        if (cap < file->cap_points)
            return PPS_ERR_NOMEM;
        source_point *points =
            arena_realloc(&st->names, file->points, file->cap_points * sizeof *points,
                          (size_t)cap * sizeof *points);
        if (points == NULL)
            return PPS_ERR_NOMEM;
        file->points = points;
        file->cap_points = cap;
    }
    *ret = (pps_span){file_id, file->n_points, file->n_points + 1};
    file->points[file->n_points++] = (source_point){begin[0], begin[1]};
    file->points[file->n_points++] = (source_point){end[0], end[1]};
    return PPS_OK;
}

const source_file *source_get(pps_state *st, uint32_t file)
{
    return file != 0 && file < st->sources.n ? st->sources.files[file] : NULL;
}

static uint32_t count_newlines(const char *from, const char *to)
{
    uint32_t n = 0;
    while (from < to && (from = memchr(from, '\n', (size_t)(to - from))) != NULL) {
        n++;
        from++;
    }
    return n;
}

static void build_lines(pps_state *st, source_file *file)
{
    const char *end = file->text + file->bytes;
    uint32_t n = count_newlines(file->text, end) + 1;
    uint32_t *lines = arena_new(&st->names, n * sizeof *lines);
    if (lines == NULL)
        return;
    const char *p = file->text;
    for (uint32_t i = 0; i < n; i++) {
        lines[i] = (uint32_t)(p - file->text);
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        p = newline != NULL ? newline + 1 : end;
    }
    file->lines = lines;
    file->n_lines = n;
}

void source_line(pps_state *st, uint32_t file_id, uint32_t offset, uint32_t *ret_line,
                 uint32_t *ret_begin, uint32_t *ret_end)
{
    source_file *file = (source_file *)source_get(st, file_id);
    if (file == NULL) {
        *ret_line = *ret_begin = *ret_end = 0;
        return;
    }
    if (file->text == NULL) {
        *ret_line = offset < file->n_points ? file->points[offset].line : 0;
        *ret_begin = *ret_end = 0;
        return;
    }
    if (offset > file->bytes)
        offset = (uint32_t)file->bytes;
    if (file->lines == NULL)
        build_lines(st, file);
    if (file->lines != NULL) {
        uint32_t low = 0, high = file->n_lines; /* lines[low] <= offset < lines[high] */
        while (high - low > 1) {
            uint32_t middle = low + (high - low) / 2;
            if (file->lines[middle] <= offset)
                low = middle;
            else
                high = middle;
        }
        *ret_line = low + 1;
        *ret_begin = file->lines[low];
    } else {
        *ret_line = 1 + count_newlines(file->text, file->text + offset);
        const char *before = memrchr(file->text, '\n', offset);
        *ret_begin = before != NULL ? (uint32_t)(before + 1 - file->text) : 0;
    }
    const char *newline = memchr(file->text + *ret_begin, '\n', file->bytes - *ret_begin);
    *ret_end = newline != NULL ? (uint32_t)(newline - file->text) : (uint32_t)file->bytes;
}

void source_place(pps_state *st, uint32_t file_id, uint32_t offset, uint32_t *ret_line,
                  uint32_t *ret_column)
{
    uint32_t begin, end, column = 1;
    source_line(st, file_id, offset, ret_line, &begin, &end);
    const source_file *file = source_get(st, file_id);
    if (file != NULL && file->text == NULL) {
        *ret_column = offset < file->n_points ? file->points[offset].column : 0;
        return;
    }
    for (uint32_t i = begin; file != NULL && i < offset && i < file->bytes; i++)
        column += (file->text[i] & 0xc0) != 0x80;
    *ret_column = column;
}

void source_done(pps_state *st)
{
    source_table *t = &st->sources;
    for (uint32_t i = 1; i < t->n; i++) {
        source_file *file = t->files[i];
        if (file->points != NULL)
            arena_realloc(&st->names, file->points, file->cap_points * sizeof *file->points, 0);
    }
    arena_realloc(&st->names, t->files, t->cap * sizeof *t->files, 0);
    *t = (source_table){0};
}

void pps_span_place(pps_state *st, pps_span span, const char **ret_file, uint32_t *ret_line,
                    uint32_t *ret_column)
{
    const source_file *file = source_get(st, span.file);
    *ret_file = file != NULL ? file->name : "";
    source_place(st, span.file, span.begin, ret_line, ret_column);
}
