/* SPDX-License-Identifier: Apache-2.0
 *
 * compiled.h: run a script text and compile it, as `pps check` does, for tests that look at the
 * plans.
 */
#ifndef TEST_COMPILED_H
#define TEST_COMPILED_H

#include "passes/pps_plan.h"

typedef struct compiled {
    pps_state *st;
    ir_program *program;
    plan_set *set;     /* NULL unless `status` is PPS_OK */
    pps_status status; /* of the last step that ran */
    int codes[32];     /* of the errors, in order */
    uint32_t n_errors, n_notes;
    char said[16384]; /* what was reported */
    char *dump;       /* what `stage` printed; owned */
    size_t n_dump, cap_dump;
} compiled;

/* Run `text` and compile it, every pass verified. `stage` is dumped (NULL: none); `max_streams` as
 * in pass_options. The stdlib is found in the folder PPS_STDLIB. */
void compiled_open(compiled *c, const char *text, uint32_t max_streams, const char *stage);
void compiled_close(compiled *c);
/* The same, and the script must compile: prints what was said otherwise, and returns false. */
bool compiled_ok(compiled *c, const char *text);

#endif
