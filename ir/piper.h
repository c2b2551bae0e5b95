/* SPDX-License-Identifier: Apache-2.0
 *
 * piper.h: Piper's JSON directives, read into a script and written from a program.
 *
 *   [{"op": "place", "filter": {"PP": 0}, "devices": [0, 2], "stream": "pp"},
 *    {"op": "order", "filters": [[{"PP": 0, "MB": 0, "PASS": "F"}], [...], ...]}]
 *
 * What Piper accepts and means is accepted, with a note where it is a quirk; what it accepts and
 * silently does otherwise is refused. What a script can say and Piper cannot is refused at its
 * span.
 */
#ifndef PPS_IR_PIPER_H
#define PPS_IR_PIPER_H

#include "ir/directive.h"

typedef struct piper_model { /* what the script trains; Piper's file does not say */
    const char *expression;  /* "qwen3_moe(stages=4)" */
    const char *module;      /* the stdlib module that has it, or NULL: no import line */
    const char *name;        /* what to import from there */
} piper_model;

/* The script that says what the JSON text says, with directives alone when `model` is NULL. `name`
 * is the file's, for messages and the script's first line. *ret_script is owned: free.
 * PPS_ERR_SCRIPT after diagnostics E0470 to E0477 at places in the JSON. */
pps_status piper_import(pps_state *st, const char *name, const char *json, size_t bytes,
                        const piper_model *model, char **ret_script);

/* Piper's file for the directives of `p` after ir_program_collect or, better, ir_program_finish:
 * then a
 * `*` can become the indices that the model has where Piper wants them. *ret_json is owned: free.
 * PPS_ERR_SCRIPT after diagnostics E0490, E0491 at places in the script. */
pps_status piper_export(const ir_program *p, char **ret_json);

#endif
