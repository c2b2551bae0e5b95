/* SPDX-License-Identifier: Apache-2.0
 *
 * source.h: the texts spans point into, and places in them.
 */
#ifndef PPS_SOURCE_H
#define PPS_SOURCE_H

#include "lang/arena.h"
#include "lang/pps.h"

typedef struct source_point {
    uint32_t line, column; /* from 1 */
} source_point;

typedef struct source_file {
    const char *name; /* as messages show it */
    char *text;       /* NUL-terminated copy, BOM kept out; NULL: the text is elsewhere */
    size_t bytes;
    uint32_t *lines; /* byte offset of each line's begin; built when first asked */
    uint32_t n_lines;
    source_point *points; /* without a text: what offsets into it stand for */
    uint32_t n_points, cap_points;
} source_file;

typedef struct source_table {
    source_file **files; /* [0] is unused: file 0 means "no place" */
    uint32_t n, cap;
} source_table;

/* Copies `text`. Files over 4 GiB - 1 are PPS_ERR_ARG. */
pps_status source_add(pps_state *st, const char *name, const char *text, size_t bytes,
                      uint32_t *ret_file);
const source_file *source_get(pps_state *st, uint32_t file); /* NULL for 0 */
void source_place(pps_state *st, uint32_t file, uint32_t offset, uint32_t *ret_line,
                  uint32_t *ret_column); /* from 1; columns in code points */
/* The line that holds `offset`: its number from 1, and its bytes [begin, end) without the newline. */
void source_line(pps_state *st, uint32_t file, uint32_t offset, uint32_t *ret_line,
                 uint32_t *ret_begin, uint32_t *ret_end);
void source_done(pps_state *st);

#endif
