/* SPDX-License-Identifier: Apache-2.0
 *
 * run.h: the program under test as a child process: what it printed, what its training gave.
 */
#ifndef PPS_TESTS_PARITY_RUN_H
#define PPS_TESTS_PARITY_RUN_H

#include <jansson.h>

#include "report.h"
#include "tensors.h"

enum { RUN_MAX_STEPS = 64, RUN_MAX_RANKS = 16 };

typedef struct tool {
    const char *program; /* pps, absolute */
    const char *folder;  /* of scripts and results; the child runs there */
    unsigned limit_s;
} tool;

/* `folder`/`name` in a buffer of the caller. */
const char *run_path(const tool *t, const char *name, char buffer[512]);

/* Runs `pps ARGUMENTS...` (NULL-terminated); stdout goes to the file `out`, stderr to `out`.err.
 * False when it ends with another status than 0 or takes longer than the limit. */
bool run_program(const tool *t, const char *const *arguments, const char *out, reason *why);
/* The same; the JSON that it printed, after any lines of the script. Owned: json_decref. */
json_t *run_json(const tool *t, const char *const *arguments, const char *out, reason *why);
/* The same; what it printed. Owned: free. */
char *run_text(const tool *t, const char *const *arguments, const char *out, reason *why);

typedef struct training {
    uint32_t n_steps;
    double loss[RUN_MAX_STEPS], aux_loss[RUN_MAX_STEPS];
    uint64_t dropped[RUN_MAX_STEPS]; /* choices of experts, where a capacity is planned */
    char sha256[65];
    char *printed;    /* by the script, its lines; owned: training_done */
    json_t *done;     /* the last line; owned: training_done */
    bool no_openblas; /* it was asked for and is not installed */
} training;

/* What a training writes; files lie in the folder. */
enum {
    TRAIN_SAVE = 1,      /* SCRIPT.params */
    TRAIN_GRADIENTS = 2, /* SCRIPT.gradients */
    TRAIN_TRACE = 4,     /* SCRIPT.trace, of the last step */
    TRAIN_BLAS = 8,      /* OpenBLAS instead of the plain kernels */
};
typedef struct train_request {
    const char *script; /* from the folder, or absolute */
    const char *stem;   /* of the files that it writes in the folder; NULL: the script's name */
    uint32_t steps;
    unsigned flags;
    const char *const *words; /* more of the command, NULL-terminated; NULL: none */
} train_request;
/* `pps run SCRIPT --steps N --log json WORDS...`; the files above are STEM.ENDING. */
bool run_training(const tool *t, const train_request *q, training *ret, reason *why);
void training_done(training *tr);

/* Loss and auxiliary loss of every step within `tolerance` relative (absolute where the reference
 * is 0). */
bool losses_near(const training *tr, const training *reference, double tolerance, reason *why);
/* Losses as printed and the parameters' digest are equal. */
bool same_bits(const training *tr, const training *reference, reason *why);

#endif
