/* SPDX-License-Identifier: Apache-2.0
 *
 * report.c: everything that goes to the terminal or to a log, in one place: messages as text or as
 * JSON lines, numbers, and the progress of a run. What is worth saying is for the commands to
 * decide.
 */
#include "runtime/cli/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/cli/options.h"

bool report_color(FILE *file)
{
    const char *none = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(fileno(file)) && !(none && *none) && !(terminal && strcmp(terminal, "dumb") == 0);
}

static json_t *position_json(pps_state *st, pps_span span, uint32_t at)
{
    const char *file;
    uint32_t line = 1, column = 1;
    pps_span_place(st, (pps_span){span.file, at, at}, &file, &line, &column);
    return json_pack("{s:I, s:I}", "line", (json_int_t)line - 1, "character",
                     (json_int_t)column - 1);
}

/* The title alone: the first line, without "error[E0101]: " and without colours. */
static json_t *title_json(const char *text)
{
    const char *colon = strstr(text, ": ");
    size_t n = strcspn(text, "\n");
    char title[1024];
    size_t used = 0;
    const char *from = colon && (size_t)(colon - text) < n ? colon + 2 : text;
    for (const char *c = from; c < text + n && used < sizeof title - 1; c++) {
        if (*c == '\033')
            c += strcspn(c, "m");
        else
            title[used++] = *c;
    }
    json_t *json = json_stringn(title, used);
    return json ? json : json_string("?");
}

static void diag_json(const reporter *r, pps_severity severity, int code, pps_span span,
                      const char *text)
{
    static const int lsp_severity[] = {
        [PPS_SEV_ERROR] = 1, [PPS_SEV_WARNING] = 2, [PPS_SEV_NOTE] = 3};
    const char *file = "";
    uint32_t line, column;
    char number[16] = "";
    if (span.file && r->st)
        pps_span_place(r->st, span, &file, &line, &column);
    if (code)
        snprintf(number, sizeof number, "E%04d", code);
    json_t *message =
        json_pack("{s:s, s:i, s:s, s:o, s:s}", "file", file, "severity", lsp_severity[severity],
                  "code", number, "message", title_json(text), "rendered", text);
    if (span.file && r->st)
        json_object_set_new(message, "range",
                            json_pack("{s:o, s:o}", "start", position_json(r->st, span, span.begin),
                                      "end", position_json(r->st, span, span.end)));
    char *line_text = json_dumps(message, JSON_COMPACT);
    if (line_text)
        fprintf(stderr, "%s\n", line_text);
    free(line_text);
    json_decref(message);
}

void report_diag(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    reporter *r = ud;
    if (severity == PPS_SEV_ERROR)
        r->n_errors++;
    if (r->json) {
        diag_json(r, severity, code, span, text);
        return;
    }
    size_t n = strlen(text);
    fflush(stdout); /* messages come after what the script printed before them */
    fwrite(text, 1, n, stderr);
    if (n == 0 || text[n - 1] != '\n')
        fputc('\n', stderr);
}

void report_print(void *ud, const char *text, size_t n)
{
    (void)ud;
    fwrite(text, 1, n, stdout);
}

void report_to_file(void *ud, const char *text, size_t n)
{
    fwrite(text, 1, n, ud);
}

int report_exit(const reporter *r, pps_status status)
{
    static const char *const silent[] = {
        [PPS_ERR_SCRIPT] = "the script was refused",
        [PPS_ERR_LIMIT] = "a limit was reached",
        [PPS_ERR_INTERRUPT] = "interrupted",
        [PPS_ERR_NOMEM] = "out of memory",
        [PPS_ERR_ARG] = "internal error: wrong arguments",
        [PPS_ERR_IO] = "a file could not be read or written",
        [PPS_ERR_COLL] = "a rank was lost",
        [PPS_ERR_MACHINE] = "the machine lacks something",
        [PPS_ERR_INTERNAL] = "internal error",
    };
    if (status == PPS_OK)
        return CLI_EXIT_OK;
    if (r->n_errors == 0)
        fprintf(stderr, "pps: %s\n", silent[status]);
    switch (status) {
    case PPS_ERR_SCRIPT:
    case PPS_ERR_LIMIT:
    case PPS_ERR_IO:
        return CLI_EXIT_SCRIPT;
    case PPS_OK:
    case PPS_ERR_INTERRUPT:
    case PPS_ERR_NOMEM:
    case PPS_ERR_ARG:
    case PPS_ERR_COLL:
    case PPS_ERR_MACHINE:
    case PPS_ERR_INTERNAL:
        break;
    }
    return CLI_EXIT_MACHINE;
}

const char *report_bytes(uint64_t bytes, char buffer[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double n = (double)bytes;
    size_t unit = 0;
    while (n >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        n /= 1024;
        unit++;
    }
    snprintf(buffer, 32, unit == 0 || n >= 100 ? "%.0f %s" : "%.1f %s", n, units[unit]);
    return buffer;
}

const char *report_duration(double seconds, char buffer[32])
{
    long s = isfinite(seconds) && seconds < 1e9 ? lround(seconds) : 0;
    if (s >= 3600)
        snprintf(buffer, 32, "%ld h %02ld min", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(buffer, 32, "%ld min %02ld s", s / 60, s % 60);
    else
        snprintf(buffer, 32, "%ld s", s);
    return buffer;
}

json_t *report_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

json_t *report_settings(void)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:{s:i, s:i, s:i, s:i}}", "bubble", "makespan",
                     "release", "W", "pairs", "atomic", "sends", "rendezvous", "costs", "F", 1,
                     "BI", 1, "BW", 1, "B", 2);
}

const char *report_settings_text(void)
{
    return "unit costs F=1 BI=1 BW=1 B=2 per rank share, makespan, pairs atomic";
}

bool report_json(json_t *value, bool indent)
{
    size_t flags = JSON_REAL_PRECISION(9) | (indent ? JSON_INDENT(2) : JSON_COMPACT);
    bool ok = value && json_dumpf(value, stdout, flags) == 0 && fputc('\n', stdout) != EOF;
    json_decref(value);
    return fflush(stdout) == 0 && ok;
}

/* ---- The progress of a run
 * ------------------------------------------------------------------------ */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_begin(progress *p, bool json, uint64_t steps, uint64_t tokens_per_step)
{
    *p = (progress){.json = json,
                    .terminal = !json && isatty(STDOUT_FILENO),
                    .steps = steps,
                    .tokens_per_step = tokens_per_step,
                    .begin_s = now_s()};
}

static void draw(progress *p, uint64_t step, double loss, double aux_loss, double tokens_per_s)
{
    char left[32], aux[32] = "", dropped[32] = "";
    double now = now_s();
    uint64_t every = p->terminal || p->steps < 40 ? 1 : p->steps / 20; /* a log stays readable */
    bool is_end = step == p->steps || step == 1;
    if (!is_end && (step % every != 0 || (p->terminal && now - p->drawn_s < 0.1)))
        return;
    p->drawn_s = now;
    if (aux_loss != 0)
        snprintf(aux, sizeof aux, "  aux %.4f", aux_loss);
    if (p->choices > 0)
        snprintf(dropped, sizeof dropped, "  dropped %.1f %%",
                 100.0 * (double)p->dropped / (double)p->choices);
    printf("%sstep %*llu/%llu  loss %.4f%s%s  %.0f tokens/s", p->terminal ? "\r\033[K" : "",
           snprintf(NULL, 0, "%llu", (unsigned long long)p->steps), (unsigned long long)step,
           (unsigned long long)p->steps, loss, aux, dropped, tokens_per_s);
    if (step < p->steps)
        printf(
            "  %s left",
            report_duration((now - p->begin_s) / (double)step * (double)(p->steps - step), left));
    if (!p->terminal)
        fputc('\n', stdout);
    p->open_line = p->terminal;
    fflush(stdout);
}

void progress_step(progress *p, uint64_t step, double loss, double aux_loss, double ms)
{
    double tokens_per_s = ms > 0 ? (double)p->tokens_per_step / ms * 1e3 : 0;
    if (p->n == 0)
        p->first_loss = loss;
    if (p->n < 10)
        p->first_sum += loss;
    p->recent[p->n++ % 10] = loss;
    p->last_loss = loss;
    if (!p->json) {
        draw(p, step, loss, aux_loss, tokens_per_s);
        return;
    }
    json_t *line = json_pack("{s:I, s:o, s:o, s:o, s:o}", "step", (json_int_t)step, "loss",
                             report_number(loss), "aux_loss", report_number(aux_loss), "ms",
                             report_number(ms), "tokens_per_s", report_number(tokens_per_s));
    if (p->choices > 0) {
        json_object_set_new(line, "choices", json_integer((json_int_t)p->choices));
        json_object_set_new(line, "dropped", json_integer((json_int_t)p->dropped));
    }
    report_json(line, false);
}

void progress_end(progress *p)
{
    if (p->open_line)
        fputc('\n', stdout);
    p->open_line = false;
}

void progress_means(const progress *p, double *ret_first, double *ret_last)
{
    uint64_t n = p->n < 10 ? p->n : 10;
    double last = 0;
    for (uint64_t i = 0; i < n; i++)
        last += p->recent[i];
    *ret_first = n ? p->first_sum / (double)n : 0;
    *ret_last = n ? last / (double)n : 0;
}
