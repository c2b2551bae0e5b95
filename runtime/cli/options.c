/* SPDX-License-Identifier: Apache-2.0
 *
 * options.c: one parser for the options of all commands, driven by a table.
 *
 * A row says which field an option sets, how its value is read and which commands take it. Long
 * options take `--name value` and `--name=value`, short ones `-n 4` and `-n4`; `--` ends them. What
 * the values mean is for the commands to say.
 */
#include "runtime/cli/options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lang/pps.h"

typedef enum option_kind {
    OPTION_FLAG,   /* bool */
    OPTION_COUNT,  /* uint64_t, at least 1 */
    OPTION_INDEX,  /* uint64_t from 0; sets the bool `given` */
    OPTION_BYTES,  /* uint64_t, with K, M, G or T for powers of 1024 */
    OPTION_TEXT,   /* const char * */
    OPTION_CHOICE, /* uint32_t, position in `choices` */
    OPTION_DEFINE, /* -D name=value */
} option_kind;

typedef struct option_row {
    const char *name; /* "--name"; NULL: short only */
    char letter;      /* 0: long only */
    option_kind kind;
    size_t field, given;
    uint32_t commands;
    const char *value; /* as help shows it; a choice's words, separated by '|' */
    const char *help;
} option_row;

#define FIELD(name) offsetof(cli_options, name)

static const option_row option_rows[] = {
    {"help", 'h', OPTION_FLAG, FIELD(help), 0, CLI_ALL, NULL, "show this text"},
    {NULL, 'D', OPTION_DEFINE, 0, 0, CLI_ALL & ~(CLI_ROWS | CLI_IMPORT), "NAME=VALUE",
     "set a script parameter"},
    {NULL, 'n', OPTION_COUNT, FIELD(ranks), 0, CLI_RUN | CLI_CHECK, "RANKS",
     "ranks to use; must be what the script places (the default)"},
    {"steps", 0, OPTION_COUNT, FIELD(steps), 0, CLI_RUN, "N", "training steps (20)"},
    {"backend", 0, OPTION_CHOICE, FIELD(backend), 0, CLI_RUN, "cpu|paced",
     "compute on the CPU, or sleep by unit costs instead"},
    {"ranks", 0, OPTION_CHOICE, FIELD(rank_kind), 0, CLI_RUN, "processes|threads",
     "what a rank is"},
    {"kernels", 0, OPTION_CHOICE, FIELD(kernels), 0, CLI_RUN, "blas|plain",
     "OpenBLAS where it is installed, or our plain kernels"},
    {"streams", 0, OPTION_COUNT, FIELD(streams), 0, CLI_RUN | CLI_CHECK | CLI_PLAN | CLI_DUMP, "N",
     "merge the streams onto at most N, compute included"},
    {"trace", 0, OPTION_TEXT, FIELD(trace), 0, CLI_RUN, "FILE",
     "write the last step of all ranks as a Perfetto trace"},
    {"profile", 0, OPTION_TEXT, FIELD(profile), 0, CLI_RUN, "FILE",
     "write what the last step's computes and communication took, for --costs"},
    {"costs", 0, OPTION_TEXT, FIELD(costs), 0, CLI_RUN | CLI_CHECK | CLI_PLAN | CLI_DUMP, "FILE",
     "overlap and order by these measured costs instead of costs from shapes"},
    {"save", 0, OPTION_TEXT, FIELD(save), 0, CLI_RUN, "FILE",
     "write the parameters as safetensors at the end"},
    {"save-gradients", 0, OPTION_TEXT, FIELD(save_gradients), 0, CLI_RUN, "FILE",
     "write the gradients of step 1 as safetensors"},
    {"log", 0, OPTION_CHOICE, FIELD(log), 0, CLI_RUN, "text|json", "json: a line per step"},
    {"json", 0, OPTION_FLAG, FIELD(json), 0, CLI_CHECK | CLI_PLAN, NULL, "print JSON"},
    {"rank", 0, OPTION_INDEX, FIELD(rank), FIELD(has_rank), CLI_PLAN, "R",
     "only the plan of rank R (all groups)"},
    {"format", 0, OPTION_CHOICE, FIELD(format), 0, CLI_PLAN, "text|json|dot|file-text",
     "how to print it; file-text is a plan file's text form"},
    {"stage", 0, OPTION_TEXT, FIELD(stage), 0, CLI_DUMP, "NAME",
     "the stage of the compiler to print; `list` names them"},
    {NULL, 'o', OPTION_TEXT, FIELD(output), 0, CLI_VIEW, "FILE",
     "write a picture: .svg, or .json for Perfetto"},
    {"from", 0, OPTION_CHOICE, FIELD(interchange), 0, CLI_IMPORT, "piper-json",
     "what the file is (piper-json)"},
    {"to", 0, OPTION_CHOICE, FIELD(interchange), 0, CLI_EXPORT, "piper-json",
     "what to write (piper-json)"},
    {"model", 0, OPTION_TEXT, FIELD(model), 0, CLI_IMPORT, "EXPRESSION",
     "what to train, such as 'qwen3_moe(stages=4)'"},
    {NULL, 'o', OPTION_TEXT, FIELD(output), 0, CLI_IMPORT | CLI_EXPORT, "FILE",
     "write this file instead of stdout"},
    {NULL, 'o', OPTION_TEXT, FIELD(output), 0, CLI_PLAN, "FILE",
     "write a plan file, which runs anywhere; as text if it ends in .txt"},
    {"max-steps", 0, OPTION_COUNT, FIELD(max_steps), 0, CLI_ALL, "N",
     "stop a script after N steps of its evaluation (2000000000)"},
    {"max-memory", 0, OPTION_BYTES, FIELD(max_memory), 0, CLI_ALL, "BYTES",
     "stop a script that needs more, e.g. 512M (16G)"},
    {"diagnostics", 0, OPTION_CHOICE, FIELD(diagnostics), 0, CLI_ALL, "text|json",
     "json: a line per message, with LSP's fields"},
};
enum { N_ROWS = sizeof option_rows / sizeof option_rows[0] };

static int usage_error(const cli_command *command, const char *what, const char *detail)
{
    fprintf(stderr, "pps %s: %s%s\n", command->name, what, detail ? detail : "");
    fprintf(stderr, "usage: pps %s %s\n       pps %s --help says more\n", command->name,
            command->usage, command->name);
    return CLI_EXIT_USAGE;
}

static const option_row *find_long(const cli_command *command, const char *name, size_t n)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        const option_row *row = &option_rows[i];
        if (row->name && (row->commands & command->bit) && strlen(row->name) == n &&
            memcmp(row->name, name, n) == 0)
            return row;
    }
    return NULL;
}

static const option_row *find_short(const cli_command *command, char letter)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        if (option_rows[i].letter == letter && (option_rows[i].commands & command->bit))
            return &option_rows[i];
    }
    return NULL;
}

static int unknown_option(const cli_command *command, const char *word)
{
    const char *names[N_ROWS];
    size_t n = 0;
    char name[64], detail[192];
    for (size_t i = 0; i < N_ROWS; i++) {
        if (option_rows[i].name && (option_rows[i].commands & command->bit))
            names[n++] = option_rows[i].name;
    }
    const char *bare = word + strspn(word, "-");
    size_t length = strcspn(bare, "=");
    length = length < sizeof name ? length : sizeof name - 1;
    memcpy(name, bare, length);
    name[length] = '\0';
    const char *close = strncmp(word, "--", 2) == 0 ? pps_did_you_mean(name, names, n) : NULL;
    snprintf(detail, sizeof detail, "'%.60s'%s%s%s", word, close ? "; did you mean '--" : "",
             close ? close : "", close ? "'?" : "");
    return usage_error(command, "unknown option ", detail);
}

/* Reads "123" or, with `units`, "16G". False when it is anything else or does not fit. */
static bool read_number(const char *text, bool units, uint64_t *ret)
{
    static const char letters[] = "KMGT";
    if (*text < '0' || *text > '9')
        return false;
    char *end = NULL;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno)
        return false;
    if (units && *end) {
        const char *unit = strchr(letters, *end & ~0x20);
        if (!unit || !*unit)
            return false;
        unsigned shift = 10u * (unsigned)(unit - letters + 1);
        if (n > (UINT64_MAX >> shift))
            return false;
        n <<= shift;
        end++;
        if (strcasecmp(end, "B") == 0 || strcasecmp(end, "iB") == 0)
            end += strlen(end);
    }
    if (*end)
        return false;
    *ret = n;
    return true;
}

static bool read_choice(const char *choices, const char *text, uint32_t *ret)
{
    size_t n = strlen(text);
    uint32_t position = 0;
    for (const char *at = choices; *at; position++) {
        size_t length = strcspn(at, "|");
        if (length == n && memcmp(at, text, n) == 0) {
            *ret = position;
            return true;
        }
        at += length + (at[length] == '|');
    }
    return false;
}

static int add_define(const cli_command *command, cli_options *o, const char *value)
{
    const char *equals = strchr(value, '=');
    if (!equals || equals == value)
        return usage_error(command, "-D takes NAME=VALUE, got ", value);
    size_t used = 0;
    for (uint32_t i = 0; i < o->n_defines; i++)
        used += strlen(o->defines[i].name) + 1;
    char *name = o->storage + used; /* room for all of argv was made */
    memcpy(name, value, (size_t)(equals - value));
    name[equals - value] = 0;
    o->defines[o->n_defines++] = (cli_define){name, equals + 1};
    return CLI_EXIT_OK;
}

static int set_option(const cli_command *command, cli_options *o, const option_row *row,
                      const char *shown, const char *value)
{
    char *field = (char *)o + row->field;
    char detail[256];
    uint64_t number;
    switch (row->kind) {
    case OPTION_FLAG:
        *(bool *)(void *)field = true;
        return CLI_EXIT_OK;
    case OPTION_TEXT:
        *(const char **)(void *)field = value;
        return CLI_EXIT_OK;
    case OPTION_DEFINE:
        return add_define(command, o, value);
    case OPTION_CHOICE:
        if (read_choice(row->value, value, (uint32_t *)(void *)field))
            return CLI_EXIT_OK;
        snprintf(detail, sizeof detail, "%s takes %s, got '%.60s'", shown, row->value, value);
        return usage_error(command, detail, NULL);
    case OPTION_COUNT:
    case OPTION_INDEX:
    case OPTION_BYTES:
        if (!read_number(value, row->kind == OPTION_BYTES, &number) ||
            (number == 0 && row->kind != OPTION_INDEX)) {
            snprintf(detail, sizeof detail, "%s takes %s, got '%.60s'", shown,
                     row->kind == OPTION_BYTES   ? "a number of bytes like 512M"
                     : row->kind == OPTION_COUNT ? "a number from 1"
                                                 : "a number from 0",
                     value);
            return usage_error(command, detail, NULL);
        }
        *(uint64_t *)(void *)field = number;
        if (row->kind == OPTION_INDEX)
            *(bool *)(void *)((char *)o + row->given) = true;
        return CLI_EXIT_OK;
    }
    return CLI_EXIT_OK;
}

/* One word that begins with '-'. *at is its position; moves on when the value is the next word. */
static int parse_option(const cli_command *command, cli_options *o, int argc, char **argv, int *at)
{
    const char *word = argv[*at];
    const option_row *row;
    const char *value = NULL;
    char shown[64];
    if (word[1] == '-') {
        size_t n = strcspn(word + 2, "=");
        row = find_long(command, word + 2, n);
        if (row && word[2 + n] == '=')
            value = word + 2 + n + 1;
        snprintf(shown, sizeof shown, "--%.*s", (int)(n < 60 ? n : 60), word + 2);
    } else {
        row = find_short(command, word[1]);
        if (row && word[2])
            value = word + 2;
        snprintf(shown, sizeof shown, "-%c", word[1]);
    }
    if (!row)
        return unknown_option(command, word);
    if (row->kind == OPTION_FLAG && value)
        return usage_error(command, shown, " takes no value");
    if (row->kind != OPTION_FLAG && !value) {
        if (*at + 1 >= argc)
            return usage_error(command, shown, " needs a value");
        value = argv[++*at];
    }
    return set_option(command, o, row, shown, value);
}

int cli_options_parse(const cli_command *command, int argc, char **argv, cli_options *ret)
{
    size_t bytes = 1;
    for (int i = 0; i < argc; i++)
        bytes += strlen(argv[i]) + 1;
    *ret = (cli_options){.command = command, .max_steps = 2000000000u, .max_memory = 16ull << 30};
    ret->words = calloc((size_t)argc + 1, sizeof *ret->words);
    ret->defines = calloc((size_t)argc + 1, sizeof *ret->defines);
    ret->storage = malloc(bytes);
    if (!ret->words || !ret->defines || !ret->storage) {
        fprintf(stderr, "pps: out of memory\n");
        return CLI_EXIT_MACHINE;
    }
    bool ended = false;
    for (int i = 0; i < argc; i++) {
        if (!ended && strcmp(argv[i], "--") == 0) {
            ended = true;
        } else if (!ended && argv[i][0] == '-' && argv[i][1]) {
            int status = parse_option(command, ret, argc, argv, &i);
            if (status)
                return status;
        } else {
            ret->words[ret->n_words++] = argv[i];
        }
    }
    if (ret->help)
        return CLI_EXIT_OK;
    if (ret->n_words < command->min_words)
        return usage_error(command, "something is missing", NULL);
    if (ret->n_words > command->max_words)
        return usage_error(command, "one argument too many: ", ret->words[command->max_words]);
    return CLI_EXIT_OK;
}

void cli_options_done(cli_options *o)
{
    free(o->words);
    free(o->defines);
    free(o->storage);
    *o = (cli_options){0};
}

void cli_help(const cli_command *command)
{
    printf("pps %s %s\n\n%s.\n\noptions:\n", command->name, command->usage, command->summary);
    for (size_t i = 0; i < N_ROWS; i++) {
        const option_row *row = &option_rows[i];
        char left[64];
        if (!(row->commands & command->bit))
            continue;
        int n = 0;
        if (row->letter)
            n += snprintf(left + n, sizeof left - (size_t)n, "-%c", row->letter);
        if (row->name)
            n += snprintf(left + n, sizeof left - (size_t)n, "%s--%s", row->letter ? ", " : "",
                          row->name);
        if (row->value)
            snprintf(left + n, sizeof left - (size_t)n, " %s", row->value);
        printf("  %-28s %s\n", left, row->help);
    }
    printf("\nexample:\n%s", command->example);
}
