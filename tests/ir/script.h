/* SPDX-License-Identifier: Apache-2.0
 *
 * script.h: run a script text with the tracing builtins and look at what came of it.
 */
#ifndef TEST_SCRIPT_H
#define TEST_SCRIPT_H

#include "ir/directive.h"

typedef struct script {
    pps_state *st;
    ir_program *program;
    pps_status status;          /* of pps_eval, then of ir_program_finish */
    int codes[32];              /* of the errors, in order */
    uint32_t n_errors, n_notes; /* n_notes: notes and warnings */
    char said[32768];           /* all diagnostics, then what was printed, as text */
} script;

/* Run `text`; `finish`: then ir_program_finish if it succeeded. */
void script_run(script *s, const char *text, bool finish);
void script_more(script *s, const char *text, bool finish); /* another text in the same state */
void script_close(script *s);
/* The graph's text form; valid until the next call. */
const char *script_dump(script *s);
/* One error with `code`, whose message contains `part` and points at line:column of "test.pps".
 * Prints what was said otherwise. */
bool script_fails(const char *text, int code, const char *place, const char *part);

#endif
