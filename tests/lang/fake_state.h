/* SPDX-License-Identifier: Apache-2.0
 *
 * fake_state.h: a pps_state without an interpreter, for testing values alone. What values ask of
 * the VM and of diagnostics is answered here: errors are kept as code and text, steps are counted,
 * the allocator fails when told to, and script functions are C functions.
 */
#ifndef PPS_FAKE_STATE_H
#define PPS_FAKE_STATE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "lang/state.h"

typedef struct fake_state {
    pps_state st;
    size_t n_allocs, fail_at; /* the fail_at-th allocation (from 1) fails; 0: none */
    size_t bytes_out;         /* handed out and not given back */
    int n_errors, code;       /* of the last error */
    char title[256], help[256];
    uint64_t steps;
    value roots[16];
    uint32_t n_roots;
} fake_state;

/* A function object whose call runs `call`. */
typedef struct fake_fn {
    object o;
    const char *name;
    pps_status (*call)(pps_state *st, const value *argv, value *ret);
} fake_fn;

void fake_open(fake_state *f, size_t max_bytes, size_t fail_at);
void fake_close(fake_state *f); /* checks that every byte was given back */
value fake_function(pps_state *st, const char *name,
                    pps_status (*call)(pps_state *st, const value *argv, value *ret));
value fake_string(pps_state *st, const char *bytes);
value fake_ints(pps_state *st, size_t n, const int64_t *ints); /* a list */
/* `v` as repr prints it; good until the next call. */
const char *fake_repr(pps_state *st, value v);

#endif
