/* SPDX-License-Identifier: Apache-2.0
 *
 * options.h: the command line as data. Every command and every option is a row of a table in
 * options.c; parsing, help and messages all come from these rows.
 */
#ifndef PPS_CLI_OPTIONS_H
#define PPS_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum cli_format { CLI_TEXT, CLI_JSON, CLI_DOT, CLI_FILE_TEXT } cli_format;

typedef struct cli_define { /* -D name=value */
    const char *name, *value;
} cli_define;

/* What the command line says; strings are borrowed from argv. 0 or NULL: not given. */
typedef struct cli_options {
    const struct cli_command *command;
    const char **words; /* positional arguments */
    uint32_t n_words;
    cli_define *defines;
    uint32_t n_defines;
    bool help, json;
    uint64_t ranks; /* -n */
    uint64_t steps, streams, rank;
    bool has_rank;
    uint64_t max_steps, max_memory; /* of the script's evaluation */
    uint32_t diagnostics;           /* cli_format */
    uint32_t format;                /* cli_format */
    uint32_t log;                   /* cli_format */
    uint32_t backend;               /* cli_backend */
    uint32_t rank_kind;             /* cli_rank_kind */
    uint32_t kernels;               /* cli_kernels */
    uint32_t interchange;           /* --from, --to: Piper's JSON is all there is */
    const char *stage, *output, *trace, *profile, *costs, *save, *save_gradients, *model;
    char *storage; /* split copies of the -D words */
} cli_options;

typedef enum cli_backend { CLI_BACKEND_CPU, CLI_BACKEND_PACED } cli_backend;
typedef enum cli_rank_kind { CLI_PROCESSES, CLI_THREADS } cli_rank_kind;
typedef enum cli_kernels { CLI_KERNELS_BLAS, CLI_KERNELS_PLAIN } cli_kernels;

typedef struct cli_command {
    const char *name;
    const char *usage;   /* after the name */
    const char *summary; /* one line */
    const char *example; /* a command line, and what it shows */
    uint32_t bit;        /* in cli_option rows */
    uint32_t min_words, max_words;
    int (*run)(const cli_options *options); /* returns the exit status */
} cli_command;

enum { CLI_EXIT_OK, CLI_EXIT_SCRIPT, CLI_EXIT_USAGE, CLI_EXIT_MACHINE };

enum { /* cli_command.bit */
       CLI_RUN = 1,
       CLI_CHECK = 2,
       CLI_ROWS = 4,
       CLI_PLAN = 8,
       CLI_DUMP = 16,
       CLI_VIEW = 32,
       CLI_IMPORT = 64,
       CLI_EXPORT = 128,
       CLI_ALL = 255
};

/* Parse argv after the command's name. Returns CLI_EXIT_OK, or CLI_EXIT_USAGE after a message on
 * stderr. `ret` is owned either way: cli_options_done. */
int cli_options_parse(const cli_command *command, int argc, char **argv, cli_options *ret);
void cli_options_done(cli_options *o);
/* The command's help: usage, options, example. On stdout. */
void cli_help(const cli_command *command);

#endif
