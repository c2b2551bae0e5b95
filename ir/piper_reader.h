/* SPDX-License-Identifier: Apache-2.0
 *
 * piper_reader.h: reading Piper's JSON: what the directives (piper_read.c) and their fields
 * (piper_fields.c) share. Internal to ir.
 */
#ifndef PPS_IR_PIPER_READER_H
#define PPS_IR_PIPER_READER_H

#include <jansson.h>

#include "ir/piper_form.h"

enum {
    PIPER_MAX_STREAMS = 256,
    PIPER_MAX_INDEX = 0xffffff, /* what an op can name */
    PIPER_MAX_UNKNOWN = 16,
    PIPER_MAX_TAGS = 16,
};

typedef struct piper_tally { /* of a quirk, for one note */
    uint32_t n;
    pps_span first;
} piper_tally;

typedef struct piper_unknown { /* a field that nobody reads */
    const char *name;          /* interned */
    pps_directive_kind kind;
    piper_tally seen;
} piper_unknown;

typedef struct piper_reader {
    pps_state *st;
    piper_file *f;
    ir_program *p;
    const char *text;
    pps_span element; /* the directive being read */
    pps_directive_kind kind;
    pps_directive *source;
    piper_tally string_index, device, fraction, prefetch, compute_stream;
    piper_unknown unknown[PIPER_MAX_UNKNOWN];
    uint32_t n_unknown;
    piper_tally *stream_uses;         /* [PIPER_MAX_STREAMS] */
    const char *tags[PIPER_MAX_TAGS]; /* interned; names of tags found good */
    uint32_t n_tags;
} piper_reader;

/* Start an error at a value of the directive being read. */
pps_diag *piper_complain(piper_reader *r, int code, const piper_where *where, const char *title,
                         ...) PPS_PRINTF(4, 5);
void piper_count(const piper_reader *r, piper_tally *t, const piper_where *where);
/* "a string", "null", ... as messages say it */
const char *piper_type(const json_t *v);
/* "WHAT takes WANTED, got ..." */
pps_status piper_wrong_type(piper_reader *r, const piper_where *where, const char *what,
                            const char *wanted, const json_t *got);

/* ---- piper_fields.c
 * ------------------------------------------------------------------------------ */
typedef struct piper_field {
    const char *name;
    uint32_t of, needed_by; /* directives, 1 << kind */
    bool nullable;          /* null is "not given", as Python writes it */
    pps_status (*take)(piper_reader *r, const piper_where *where, json_t *v, ir_directive *out);
} piper_field;
enum { PIPER_N_FIELDS = 14 };
extern const piper_field piper_fields[PIPER_N_FIELDS];

#endif
