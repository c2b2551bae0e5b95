/* SPDX-License-Identifier: Apache-2.0
 *
 * commands.h: the commands, one file each; their examples stand here so that help shows them.
 */
#ifndef PPS_CLI_COMMANDS_H
#define PPS_CLI_COMMANDS_H

#include "runtime/cli/options.h"

int cmd_run(const cli_options *options);
int cmd_check(const cli_options *options);
int cmd_rows(const cli_options *options);
int cmd_plan(const cli_options *options);
int cmd_dump(const cli_options *options);
int cmd_view(const cli_options *options);
int cmd_import(const cli_options *options);
int cmd_export(const cli_options *options);

#define CMD_RUN_EXAMPLE                                                     \
    "  pps run examples/quickstart.pps --steps 50 --trace out/trace.json\n" \
    "      trains for 50 steps and writes where every rank spent the last one\n"
#define CMD_CHECK_EXAMPLE                                            \
    "  pps check examples/quickstart.pps -D microbatches=8 --json\n" \
    "      says whether the schedule runs, what it costs and what it needs\n"
#define CMD_ROWS_EXAMPLE                                                          \
    "  pps rows 1f1b 2 4\n"                                                       \
    "  pps rows 'dualpipev(2, 4)'\n"                                              \
    "      the schedules of the stdlib are in scope: gpipe, one_f_one_b (1f1b), " \
    "interleaved_1f1b,\n"                                                         \
    "      zerobubble, dualpipev\n"
#define CMD_PLAN_EXAMPLE                                               \
    "  pps plan examples/quickstart.pps --rank 0\n"                    \
    "      every step of rank 0: stream, waits, buffers, script line\n" \
    "  pps plan examples/quickstart.pps -o quickstart.plan\n"          \
    "      a file that `pps run quickstart.plan` runs, also on a machine without the script\n"
#define CMD_DUMP_EXAMPLE                                 \
    "  pps dump examples/quickstart.pps --stage graph\n" \
    "      the model as traced, and the chunks that its regions cut it into\n"
#define CMD_VIEW_EXAMPLE                                       \
    "  pps view examples/quickstart.pps -o out/schedule.svg\n" \
    "      F blue, B green, BI cyan, BW yellow; overlapped pairs framed\n"
#define CMD_IMPORT_EXAMPLE                                                                       \
    "  pps import base.json --from piper-json --model 'qwen3_moe(stages=2)' -o base.pps\n"       \
    "      a script that trains this model as the file says; without --model directives alone\n"
#define CMD_EXPORT_EXAMPLE                                                      \
    "  pps export examples/quickstart.pps --to piper-json -o quickstart.json\n" \
    "      what Piper cannot say is refused, each with its place in the script\n"

#endif
