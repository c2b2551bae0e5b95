/* SPDX-License-Identifier: Apache-2.0
 *
 * piper_form.h: what the files about Piper's JSON share. Internal to ir.
 *
 * A file's directives become records of an ir_program, as those of a script do, but for two things:
 * `source` of a record has kind and spans only, and streams index piper_file.streams.
 */
#ifndef PPS_IR_PIPER_FORM_H
#define PPS_IR_PIPER_FORM_H

#include "ir/build.h"
#include "ir/piper.h"

enum { PIPER_MAX_DIRECTIVES = 8192 /* besides order: they are compared with each other */ };

typedef struct piper_file {
    ir_program p; /* no graph, no train */
    arena mem;
    const char **streams; /* interned */
    uint32_t n_streams, cap_streams;
} piper_file;

/* ---- piper_read.c ---------------------------------------------------------------------------- */
/* `ret` is released with arena_done(&ret->mem) after success and after failure. */
pps_status piper_read(pps_state *st, const char *name, const char *json, size_t bytes,
                      piper_file *ret);

/* ---- piper_json.c: places inside JSON text --------------------------------------------------- */
/* A way down from a value: the ordinal of a member or element; NULL is the value itself. */
typedef struct piper_where {
    const struct piper_where *up;
    uint32_t ordinal;
} piper_where;
uint32_t piper_skip_space(const char *text, uint32_t at, uint32_t end);
typedef enum piper_extent { PIPER_WHOLE, PIPER_UNCLOSED, PIPER_DEEP, PIPER_LARGE } piper_extent;
/* Where the value that begins at `begin` ends, found by its brackets and quotes alone; where it
 * became too deep or too large otherwise. Unclosed ones end at `end`. */
piper_extent piper_value_end(const char *text, uint32_t begin, uint32_t end, uint32_t *ret_end);
/* The span of a value inside the valid JSON value `whole`; `key`: of its key if it is a member. */
pps_span piper_locate(const char *text, pps_span whole, const piper_where *where, bool key);

/* ---- piper_script.c -------------------------------------------------------------------------- */
/* Owned: free. NULL: out of memory. */
char *piper_script(piper_file *f, const char *name, const piper_model *model);

/* ---- piper.c --------------------------------------------------------------------------------- */
typedef struct piper_text { /* text that grows; `failed` is sticky */
    char *bytes;
    size_t n, cap;
    size_t line; /* where the last line begins */
    bool failed;
} piper_text;
void piper_put(piper_text *t, const char *format, ...) PPS_PRINTF(2, 3);
void piper_put_text(piper_text *t, const char *text, size_t n);
/* The text, owned: free; NULL after a failure. */
char *piper_text_done(piper_text *t);

/* E0475 when two directives of a kind are about the same regions, as far as filters show it. */
pps_status piper_check_repeats(const ir_program *p);
extern const char *const piper_pass_names[PPS_PASS_COUNT];
/* Terms are shown PP first, then by name, MB, PASS: the ordinals of a filter's terms in that order.
 */
void piper_term_order(const ir_program *p, const ir_filter *f, uint32_t order[PPS_MAX_TERMS]);
/* The shortest decimal number of units of 2^20 bytes that means `bytes`. */
const char *piper_mib(uint64_t bytes, char buffer[40]);

#endif
