/* SPDX-License-Identifier: Apache-2.0
 *
 * compiled.h: scripts compiled to plans, and plan files in memory, for the tests of plan files.
 */
#ifndef TEST_COMPILED_H
#define TEST_COMPILED_H

#include "ir/plan_file.h"
#include "passes/pps_plan.h"

typedef struct compiled {
    pps_state *st;
    ir_program *program;
    plan_set *set; /* NULL: it did not compile */
    int code;      /* of the last error, 0: none */
    char said[4096];
} compiled;

/* A state that notes what is reported. */
void compiled_open(compiled *c);
/* Compile `text` as the script test.pps; modules come from the stdlib. */
void compiled_script(compiled *c, const char *text);
void compiled_close(compiled *c);

typedef struct bytes { /* owned: free(data) */
    unsigned char *data;
    size_t n, cap;
} bytes;
bytes bytes_of(pps_state *st, const plan_set *set, plan_file_form form);
bool bytes_equal(const bytes *a, const bytes *b);

/* Read a plan file into a fresh state; c->set is NULL when it was refused, c->code says why. */
void compiled_read(compiled *c, const void *data, size_t n);

/* Scripts of several kinds; the first is small. */
extern const char *const compiled_scripts[];
extern const unsigned compiled_n_scripts;

#endif
