/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_file.h: plans as files. A plan_set written by one machine runs on another; nothing of the
 * script, its model or its modules is needed there, only the data and weights that the plan names.
 * Both forms are described in PLAN_FILES.md.
 *
 * A file is read as if it came from a stranger: sizes are bounded by the file's length, and a plan
 * whose numbers do not fit together is refused before anything uses it. What plans promise each
 * other (no hang, no buffer used twice) is pps_prove's to check afterwards.
 */
#ifndef PPS_IR_PLAN_FILE_H
#define PPS_IR_PLAN_FILE_H

#include "ir/plan.h"

enum { PLAN_FILE_VERSION = 1 };

typedef enum plan_file_form { PLAN_FILE_NONE, PLAN_FILE_BINARY, PLAN_FILE_TEXT } plan_file_form;

/* Which form these bytes begin as; NONE: no plan file. */
plan_file_form plan_file_detect(const void *bytes, size_t n);

/* Print `set` in one of the two forms. Places are resolved by `st`, whose sources they point into.
 * The same set gives the same bytes everywhere; compile_ms is left out. PPS_ERR_NOMEM;
 * PPS_ERR_LIMIT for texts over 4 GiB. */
pps_status plan_file_write(pps_state *st, const plan_set *set, plan_file_form form,
                           ir_print_fn print, void *ud);

/* Read and validate a plan file of either form. `name` is what messages call it. On PPS_OK *ret is
 * owned (plan_set_free); places and names of files were added to `st`, which must outlive it.
 * PPS_ERR_SCRIPT after reporting E1101 (no plan file), E1102 (cut off, or longer than it says),
 * E1103 (damaged), E1104 (of another version), E1105 (malformed), E1106 (what it says cannot be a
 * plan); PPS_ERR_NOMEM. */
pps_status plan_file_read(pps_state *st, const char *name, const void *bytes, size_t n,
                          plan_set **ret);
/* Frees what plan_file_read or pps_compile returned; NULL is fine. */
void plan_set_free(plan_set *set);

/* Is `set` whole: every index and range inside its table, sizes that multiply without overflow,
 * areas of memory one after the other, every step with the buffers its kind needs, and every
 * operand of every kernel inside the memory it names. Assumes nothing but the array lengths.
 * PPS_ERR_SCRIPT with the first thing wrong in `reason`, and its place in *ret_span (NULL: not
 * wanted); PPS_ERR_NOMEM. */
pps_status plan_validate(const plan_set *set, char reason[256], pps_span *ret_span);

#endif
