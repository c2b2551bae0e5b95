/* SPDX-License-Identifier: Apache-2.0
 *
 * text.h: how pictures write: formatted, escaped, with short numbers. For this folder only.
 */
#ifndef PPS_VIEW_TEXT_H
#define PPS_VIEW_TEXT_H

#include "runtime/view/view.h"

typedef struct view_out {
    ir_print_fn print;
    void *ud;
} view_out;

/* Lines longer than 1023 bytes are cut: pass unbounded text through view_escape. */
void view_printf(const view_out *o, const char *format, ...) PPS_PRINTF(2, 3);
typedef enum view_quoting { VIEW_XML, VIEW_JSON } view_quoting;
void view_escape(const view_out *o, view_quoting quoting, const char *text);

enum { VIEW_NUMBER_BYTES = 48, VIEW_LABEL_BYTES = 32 };
/* `x` with at most `decimals` decimals and no trailing zeros: 13, 28.5. Returns `buffer`. */
const char *view_number(double x, int decimals, char buffer[VIEW_NUMBER_BYTES]);
/* A time of the timeline for people: ns become ms, other units stay as they are. */
const char *view_time(const view_timeline *t, double x, char buffer[VIEW_NUMBER_BYTES]);
/* A compute as pictures name it: F3, I0', W2''. Returns its length. */
int view_op_label(const view_span *s, char buffer[VIEW_LABEL_BYTES]);
/* Computes that pictures draw as ops: lane 0's. */
bool view_is_op(const view_span *s);
/* [*begin, *end) are the spans of `rank`, given spans sorted by rank; start from *end = 0, rank 0.
 */
void view_rank_range(const view_timeline *t, uint32_t rank, uint32_t *begin, uint32_t *end);

#endif
