/* SPDX-License-Identifier: Apache-2.0
 *
 * diag.h: diagnostics inside the library: the store of a state and the batches that sort it. The
 * functions that build diagnostics are public (pps.h), holding them back is in state.h.
 */
#ifndef PPS_DIAG_H
#define PPS_DIAG_H

#include "lang/arena.h"
#include "lang/pps.h"

/* By pps_open and pps_close. PPS_ERR_NOMEM. */
pps_status diag_open(pps_state *st);
void diag_close(pps_state *st); /* drops what was not shown */

/* Between the two (they nest), diagnostics are collected; the outermost flush sorts them by place
 * and gives the first `max_errors` errors and all warnings to the hook. Outside, each is given at
 * once. */
void diag_batch(pps_state *st);
void diag_flush(pps_state *st);

/* `attach` sees each error without frames when it is done: it may add those of the running program.
 */
void diag_on_error(pps_state *st, void (*attach)(pps_state *st, pps_diag *d));

/* ---- diag.c and diag_render.c ---------------------------------------------------------------- */

typedef struct diag_span { /* pps_diag_also */
    struct diag_span *next;
    pps_span span;
    const char *label;
} diag_span;

typedef struct diag_line { /* notes, and lines about calls */
    struct diag_line *next;
    const char *words;
} diag_line;

struct pps_diag {
    pps_state *st;
    pps_diag *next;
    pps_severity severity;
    int code;
    pps_span span;
    const char *title, *label, *help; /* label, help: NULL when there is none */
    diag_span *also, **also_end;
    diag_line *notes, **notes_end;
    diag_line *frames, **frames_end;
};

/* Growing bytes on the allocator of `memory`. Short of memory it stops growing. */
typedef struct diag_text {
    const arena *memory;
    char *bytes;
    size_t n, cap;
} diag_text;

/* The whole message, NUL-terminated; NULL bytes short of memory. */
void diag_render(const pps_diag *d, bool color, diag_text *ret);

#endif
