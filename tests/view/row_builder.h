/* SPDX-License-Identifier: Apache-2.0
 *
 * row_builder.h: rows of known schedules as an ir_program, made without a script. Test code only.
 */
#ifndef PPS_TESTS_VIEW_ROW_BUILDER_H
#define PPS_TESTS_VIEW_ROW_BUILDER_H

#include "ir/directive.h"

/* `p` begins zeroed; p->st stays NULL, so nothing is reported. */
void rows_begin(ir_program *p);                                            /* a new, empty row */
void rows_op(ir_program *p, pps_pass pass, uint32_t stage, uint32_t mb);   /* a new group */
void rows_join(ir_program *p, pps_pass pass, uint32_t stage, uint32_t mb); /* in the last group */
void rows_done(ir_program *p);
/* "F0:0 F0:1|B1:0", rows separated by newlines */
void rows_parse(ir_program *p, const char *text);

void rows_gpipe(ir_program *p, uint32_t R, uint32_t M);
void rows_1f1b(ir_program *p, uint32_t R, uint32_t M);
void rows_eager_1f1b(ir_program *p, uint32_t R, uint32_t M);
void rows_interleaved(ir_program *p, uint32_t R, uint32_t M, uint32_t v);
void rows_looped_bfs(ir_program *p, uint32_t R, uint32_t M, uint32_t v);
void rows_zerobubble(ir_program *p, uint32_t R, uint32_t M);
void rows_dualpipev(ir_program *p, uint32_t R, uint32_t M);

#endif
