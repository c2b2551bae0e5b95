/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c: the program `pps`: the table of its commands, and the way to one of them.
 */
#include <stdio.h>
#include <string.h>

#include "lang/pps.h"
#include "runtime/cli/commands.h"

#ifndef PPS_VERSION
#define PPS_VERSION "unknown"
#endif

static const cli_command commands[] = {
    {"run", "SCRIPT|PLAN [options]", "Train what the script, or its plan file, describes", CMD_RUN_EXAMPLE, CLI_RUN, 1, 1,
     cmd_run},
    {"check", "SCRIPT|PLAN [options]", "Everything but running: steps, bytes and bubble of every rank",
     CMD_CHECK_EXAMPLE, CLI_CHECK, 1, 1, cmd_check},
    {"rows", "EXPRESSION | NAME ARGUMENT...", "Print a schedule's rows, a line per rank",
     CMD_ROWS_EXAMPLE, CLI_ROWS, 1, 64, cmd_rows},
    {"plan", "SCRIPT|PLAN [-o FILE]", "Print what each rank does in one step, or write it as a file",
     CMD_PLAN_EXAMPLE, CLI_PLAN, 1, 1, cmd_plan},
    {"dump", "SCRIPT --stage NAME", "Print the program as one stage of the compiler leaves it",
     CMD_DUMP_EXAMPLE, CLI_DUMP, 1, 1, cmd_dump},
    {"view", "SCRIPT|PLAN [-o FILE]", "Show the schedule: a grid in the terminal, or a picture",
     CMD_VIEW_EXAMPLE, CLI_VIEW, 1, 1, cmd_view},
    {"import", "FILE [--model EXPRESSION]", "Turn Piper's JSON into a script", CMD_IMPORT_EXAMPLE,
     CLI_IMPORT, 1, 1, cmd_import},
    {"export", "SCRIPT [-o FILE]", "Write a script's directives as Piper's JSON",
     CMD_EXPORT_EXAMPLE, CLI_EXPORT, 1, 1, cmd_export},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out)
{
    fprintf(out, "pps: a scheduling language for distributed training\n\nusage:\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  pps %-7s%-31s %s\n", commands[i].name, commands[i].usage,
                commands[i].summary);
    fprintf(out, "  pps %-38s %s\n", "COMMAND --help", "Its options, with an example");
    fprintf(out, "  pps %-38s %s\n", "--version", "The version");
}

static const cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[N_COMMANDS];
    for (size_t i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    const char *close = pps_did_you_mean(name, names, N_COMMANDS);
    fprintf(stderr, "pps: unknown command '%s'", name);
    if (close)
        fprintf(stderr, "; did you mean '%s'?", close);
    fprintf(stderr, "\n`pps --help` lists the commands\n");
    return CLI_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return CLI_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0) {
        printf("pps %s\n", PPS_VERSION);
        return CLI_EXIT_OK;
    }
    bool is_help = strcmp(word, "help") == 0;
    if (is_help && argc > 2)
        word = argv[2];
    else if (is_help || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        print_help(stdout);
        return CLI_EXIT_OK;
    }
    const cli_command *command = find_command(word);
    if (!command)
        return unknown_command(word);
    if (is_help) {
        cli_help(command);
        return CLI_EXIT_OK;
    }
    cli_options options;
    int status = cli_options_parse(command, argc - 2, argv + 2, &options);
    if (status == CLI_EXIT_OK && options.help)
        cli_help(command);
    else if (status == CLI_EXIT_OK)
        status = command->run(&options);
    cli_options_done(&options);
    return status;
}
