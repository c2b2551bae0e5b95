/* SPDX-License-Identifier: Apache-2.0
 *
 * front_state.h: a state with the members that the front end needs and no others (names, sources,
 * diagnostics), which keeps what the diag hook was given and can let the n-th allocation fail.
 */
#ifndef FRONT_STATE_H
#define FRONT_STATE_H

#include "lang/parse.h"
#include "lang/state.h"

typedef struct front_state {
    pps_state st;
    arena trees;
    char *shown; /* all rendered diagnostics, one after the other */
    size_t n_shown;
    int n_calls;              /* of the hook */
    size_t n_allocs, fail_at; /* 0: none fails */
    size_t bytes_out;
} front_state;

/* False when an allocation failed; close it all the same. */
bool front_open(front_state *f, size_t fail_at);
void front_close(front_state *f); /* checks that every byte came back */
/* Parse `bytes` of `source` as file `name`. */
pps_status front_parse(front_state *f, const char *name, const char *source, size_t bytes,
                       ast_file *ret);
/* The codes of the errors of `source`, as "E0016 E0017", in order. */
const char *front_codes(const char *source, char out[256]);
/* The text of ast_dump; malloc'ed. */
char *front_dump(const ast_node *root);

#endif
