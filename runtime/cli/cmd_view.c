/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_view.c: `pps view`: the schedule in unit costs, as a grid in the terminal or as a picture in
 * a file.
 */
#include "runtime/cli/commands.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runtime/cli/session.h"
#include "runtime/view/view.h"

static uint32_t terminal_columns(void)
{
    struct winsize size;
    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0)
        return 0;
    return size.ws_col;
}

static bool ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n > m && strcmp(path + n - m, end) == 0;
}

static pps_status write_picture(session *s, const view_timeline *t, const char *path)
{
    FILE *file = fopen(path, "wb");
    bool ok = file != NULL;
    if (ok && ends_in(path, ".svg"))
        view_svg(t, report_to_file, file);
    else if (ok)
        view_perfetto(t, 1e3, report_to_file, file); /* a unit is a microsecond */
    if (file) {
        ok = !ferror(file);
        ok = fclose(file) == 0 && ok;
    }
    if (!ok) {
        pps_error(s->st, (pps_span){0}, 974, "cannot write '%s': %s", path, strerror(errno));
        return PPS_ERR_MACHINE;
    }
    return PPS_OK;
}

int cmd_view(const cli_options *options)
{
    const char *path = options->output;
    if (path && !ends_in(path, ".svg") && !ends_in(path, ".json")) {
        fprintf(stderr, "pps view: -o takes a name that ends in .svg or .json, got '%s'\n", path);
        return CLI_EXIT_USAGE;
    }
    session s;
    view_timeline *t = NULL;
    pps_status status = session_plans(&s, options);
    if (status == PPS_OK && s.from_file)
        status = session_plan_rows(&s);
    if (status == PPS_OK)
        status = view_from_rows(s.program, &t);
    if (status == PPS_OK)
        t->title = s.script;
    if (status == PPS_OK && path)
        status = write_picture(&s, t, path);
    else if (status == PPS_OK)
        view_grid(t, report_color(stdout), terminal_columns(), report_to_file, stdout);
    view_timeline_free(t);
    return session_end(&s, status);
}
