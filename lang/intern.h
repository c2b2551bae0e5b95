/* SPDX-License-Identifier: Apache-2.0
 *
 * intern.h: one pointer per distinct name. The strings live in the arena handed to intern_init.
 */
#ifndef PPS_INTERN_H
#define PPS_INTERN_H

#include <stdint.h>
#include "lang/arena.h"

typedef struct intern_table {
    arena *strings;
    const char **slots;
    uint32_t *hashes;
    size_t n, cap;
} intern_table;

void intern_init(intern_table *t, arena *strings);
void intern_done(intern_table *t);
const char *intern(intern_table *t, const char *bytes, size_t n); /* NULL when out of memory */
uint32_t intern_hash(const char *bytes, size_t n); /* FNV-1a */

#endif
