/* SPDX-License-Identifier: Apache-2.0
 *
 * run.c: the program under test as a child process, and its log read back.
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WORDS = 32 };

const char *run_path(const tool *t, const char *name, char buffer[512])
{
    snprintf(buffer, 512, "%s/%s", t->folder, name);
    return buffer;
}

/* ---- The child ----------------------------------------------------------------------------- */

/* Only returns when something failed. */
static void become(const tool *t, char *const *words, const char *out, const char *err)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int in_fd = open("/dev/null", O_RDONLY);
    int out_fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    int err_fd = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (in_fd >= 0 && out_fd >= 0 && err_fd >= 0 && dup2(in_fd, 0) >= 0 && dup2(out_fd, 1) >= 0 &&
        dup2(err_fd, 2) >= 0 && chdir(t->folder) == 0)
        execv(t->program, words);
}

/* The child's wait status; past the limit it is ended, and *ret_late set. */
static int wait_for(pid_t pid, unsigned limit_s, bool *ret_late)
{
    sigset_t child;
    int status = 0;
    struct timespec end, now;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += limit_s;
    *ret_late = false;
    while (waitpid(pid, &status, WNOHANG) != pid) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec >= end.tv_sec) {
            *ret_late = true;
            kill(pid, SIGKILL); /* its ranks end with it */
            waitpid(pid, &status, 0);
            break;
        }
        /* SIGCHLD is blocked: one that came before this call ends it at once */
        sigtimedwait(&child, NULL, &(struct timespec){.tv_sec = 1});
    }
    return status;
}

/* The first line of the file that is an error, else the first. */
static void first_message(const char *path, char text[300])
{
    char line[300];
    FILE *file = fopen(path, "r");
    text[0] = 0;
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!text[0] || strncmp(line, "error", 5) == 0)
            memcpy(text, line, sizeof line);
        if (strncmp(line, "error", 5) == 0)
            break;
    }
    if (file)
        fclose(file);
}

bool run_program(const tool *t, const char *const *arguments, const char *out, reason *why)
{
    char *words[MAX_WORDS + 2] = {(char *)t->program};
    char out_path[512], err_path[520], message[300];
    bool late;
    for (int i = 0; arguments[i] && i < MAX_WORDS; i++)
        words[i + 1] = (char *)arguments[i];
    run_path(t, out, out_path);
    snprintf(err_path, sizeof err_path, "%s.err", out_path);
    pid_t pid = fork();
    if (pid == 0) {
        become(t, words, out_path, err_path);
        _exit(126);
    }
    if (pid < 0)
        return fail(why, "cannot start %s: %s", t->program, strerror(errno));
    int status = wait_for(pid, t->limit_s, &late);
    if (late)
        return fail(why, "'pps %s %s' took more than %u s", arguments[0], arguments[1], t->limit_s);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    first_message(err_path, message);
    return fail(why, "'pps %s %s' ended with %s %d: %s", arguments[0], arguments[1],
                WIFEXITED(status) ? "status" : "signal",
                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), message);
}

char *run_text(const tool *t, const char *const *arguments, const char *out, reason *why)
{
    char path[512], *text = NULL;
    size_t bytes = 0;
    if (!run_program(t, arguments, out, why))
        return NULL;
    FILE *file = fopen(run_path(t, out, path), "r");
    if (!file || getdelim(&text, &bytes, 0, file) < 0) {
        free(text);
        text = NULL;
        fail(why, "'pps %s %s' printed nothing", arguments[0], arguments[1]);
    }
    if (file)
        fclose(file);
    return text;
}

json_t *run_json(const tool *t, const char *const *arguments, const char *out, reason *why)
{
    json_error_t error = {.text = "nothing there"};
    char *text = run_text(t, arguments, out, why);
    if (!text)
        return NULL;
    const char *line = text;
    while (*line && *line != '{' && *line != '[') {
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    json_t *json = json_loads(line, 0, &error);
    free(text);
    if (!json)
        fail(why, "'pps %s %s' printed no JSON: %s", arguments[0], arguments[1], error.text);
    return json;
}

/* ---- Training ------------------------------------------------------------------------------ */

static bool read_step(const json_t *line, training *tr)
{
    uint32_t i = tr->n_steps;
    if (i >= RUN_MAX_STEPS || !json_is_number(json_object_get(line, "loss")))
        return false;
    tr->loss[i] = json_number_value(json_object_get(line, "loss"));
    tr->aux_loss[i] = json_number_value(json_object_get(line, "aux_loss"));
    tr->dropped[i] = (uint64_t)json_integer_value(json_object_get(line, "dropped"));
    tr->n_steps++;
    return json_integer_value(json_object_get(line, "step")) == (json_int_t)tr->n_steps;
}

static bool keep_printed(const char *line, training *tr)
{
    size_t have = tr->printed ? strlen(tr->printed) : 0, n = strlen(line);
    char *text = realloc(tr->printed, have + n + 1);
    if (!text)
        return false;
    memcpy(text + have, line, n + 1);
    tr->printed = text;
    return true;
}

/* A line is a JSON object of the program's, or what the script printed. */
static bool read_log(const char *path, uint32_t steps, training *tr, reason *why)
{
    char *text = NULL;
    size_t bytes = 0;
    bool ok = true;
    FILE *file = fopen(path, "r");
    while (file && ok && getline(&text, &bytes, file) >= 0) {
        json_t *line = text[0] == '{' ? json_loads(text, 0, NULL) : NULL;
        if (text[0] != '{')
            ok = keep_printed(text, tr);
        else if (json_is_true(json_object_get(line, "done")))
            tr->done = json_incref(line);
        else
            ok = read_step(line, tr);
        json_decref(line);
    }
    free(text);
    if (file)
        fclose(file);
    const char *sha256 = json_string_value(json_object_get(tr->done, "params_sha256"));
    if (!ok || tr->n_steps != steps || !sha256 || strlen(sha256) != 64)
        return fail(why, "the log %s lacks steps or its last line", path);
    memcpy(tr->sha256, sha256, 65);
    return true;
}

static bool says_no_openblas(const char *out_path)
{
    char path[520], line[400];
    bool found = false;
    snprintf(path, sizeof path, "%s.err", out_path);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        found |= strstr(line, "[E0956]") != NULL;
    if (file)
        fclose(file);
    return found;
}

bool run_training(const tool *t, const train_request *q, training *ret, reason *why)
{
    char n[16], stem[160], out[176], params[176], gradients[176], trace[176], path[512];
    const char *words[MAX_WORDS] = {
        "run",   q->script, "--steps",   n,
        "--log", "json",    "--kernels", q->flags & TRAIN_BLAS ? "blas" : "plain"};
    int at = 8;
    if (q->stem)
        snprintf(stem, sizeof stem, "%s", q->stem);
    else
        snprintf(stem, sizeof stem, "%.*s", (int)strcspn(q->script, "."), q->script);
    snprintf(n, sizeof n, "%u", q->steps);
    snprintf(out, sizeof out, "%s.log", stem);
    snprintf(params, sizeof params, "%s.params", stem);
    snprintf(gradients, sizeof gradients, "%s.gradients", stem);
    snprintf(trace, sizeof trace, "%s.trace", stem);
    if (q->flags & TRAIN_SAVE)
        words[at++] = "--save", words[at++] = params;
    if (q->flags & TRAIN_GRADIENTS)
        words[at++] = "--save-gradients", words[at++] = gradients;
    if (q->flags & TRAIN_TRACE)
        words[at++] = "--trace", words[at++] = trace;
    for (const char *const *word = q->words; word && *word; word++) {
        if (at == MAX_WORDS - 1)
            return fail(why, "'pps run %s' has too many words", q->script);
        words[at++] = *word;
    }
    *ret = (training){0};
    if (!run_program(t, words, out, why))
        return false;
    run_path(t, out, path);
    ret->no_openblas = says_no_openblas(path);
    return read_log(path, q->steps, ret, why);
}

void training_done(training *tr)
{
    json_decref(tr->done);
    free(tr->printed);
    *tr = (training){0};
}

static bool near(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * (b != 0 ? fabs(b) : 1); /* false for NaN */
}

bool losses_near(const training *tr, const training *reference, double tolerance, reason *why)
{
    if (tr->n_steps != reference->n_steps)
        return fail(why, "%u steps instead of %u", tr->n_steps, reference->n_steps);
    for (uint32_t i = 0; i < tr->n_steps; i++) {
        if (!near(tr->loss[i], reference->loss[i], tolerance))
            return fail(why, "the loss of step %u is %.9g instead of %.9g", i + 1, tr->loss[i],
                        reference->loss[i]);
        if (!near(tr->aux_loss[i], reference->aux_loss[i], tolerance))
            return fail(why, "the auxiliary loss of step %u is %.9g instead of %.9g", i + 1,
                        tr->aux_loss[i], reference->aux_loss[i]);
    }
    return true;
}

bool same_bits(const training *tr, const training *reference, reason *why)
{
    if (!losses_near(tr, reference, 0, why))
        return false;
    if (strcmp(tr->sha256, reference->sha256) != 0)
        return fail(why, "equal losses, but the parameters' digest is %.12s... instead of %.12s...",
                    tr->sha256, reference->sha256);
    return true;
}
