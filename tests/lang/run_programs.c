/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs tests/lang/programs: every .pps file is a test whose comments say what must come of it.
 *
 *   # expect: TEXT            the next printed line is TEXT
 *   # expect error: E0301 [at L[:C]] [TEXT]   the next error has this code, place, and words
 *   # param: NAME = TEXT      pps_set_param before the run
 *   # limit: steps N | bytes N | depth N
 *   # directive: TEXT         the next recorded directive, as word, subject and clauses
 *   # event: TEXT             the next model or region event
 *
 * Errors may be expected anywhere; `at` counts lines of the file they are in. Imports load files
 * from the folder of the program. Usage: run_programs FOLDER [NAME...]
 */
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lang/pps.h"

enum { MAX_EXPECTED = 400, MAX_LINE = 400 };

typedef struct lines { /* expected or happened, in order */
    char *at[MAX_EXPECTED];
    int n;
} lines;

typedef struct program {
    const char *folder;
    pps_state *st;
    lines out, errors, directives, events;
    char *rendered; /* all diagnostics */
    char *partial;  /* printed text behind the last newline */
} program;

static char *copy(const char *s, size_t n)
{
    char *p = malloc(n + 1);
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

static void add(lines *l, const char *format, ...) PPS_PRINTF(2, 3);
static void add(lines *l, const char *format, ...)
{
    va_list args;
    char buffer[2 * MAX_LINE];
    if (l->n == MAX_EXPECTED)
        return;
    va_start(args, format);
    vsnprintf(buffer, sizeof(buffer), format, args);
    va_end(args);
    l->at[l->n++] = copy(buffer, strlen(buffer));
}

static void lines_done(lines *l)
{
    for (int i = 0; i < l->n; i++)
        free(l->at[i]);
    l->n = 0;
}

static char *append(char *to, const char *s, size_t n)
{
    size_t old = to ? strlen(to) : 0;
    to = realloc(to, old + n + 1);
    memcpy(to + old, s, n);
    to[old + n] = 0;
    return to;
}

/* ---- Hooks ----------------------------------------------------------------------------------- */

static void on_print(void *ud, const char *text, size_t n)
{
    program *p = ud;
    p->partial = append(p->partial, text, n);
    char *line = p->partial, *newline;
    while ((newline = strchr(line, '\n'))) {
        add(&p->out, "%.*s", (int)(newline - line), line);
        line = newline + 1;
    }
    memmove(p->partial, line, strlen(line) + 1);
}

static void on_diag(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    program *p = ud;
    const char *file;
    uint32_t line = 0, column = 0;
    p->rendered = append(p->rendered, text, strlen(text));
    if (severity != PPS_SEV_ERROR)
        return;
    if (p->st)
        pps_span_place(p->st, span, &file, &line, &column);
    add(&p->errors, "E%04d at %u:%u %s", code, line, column, text);
}

static char *read_file(const char *folder, const char *name, size_t *ret_n)
{
    char path[1000];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    fseek(f, 0, SEEK_SET);
    char *text = malloc((size_t)n + 1);
    *ret_n = fread(text, 1, (size_t)n, f);
    text[*ret_n] = 0;
    fclose(f);
    return text;
}

static void release(void *ud, pps_source *source)
{
    (void)ud;
    free(source->text);
    free(source->resolved);
}

static pps_status on_load(void *ud, const char *from, const char *path, pps_source *ret,
                          char reason[256])
{
    program *p = ud;
    (void)from;
    ret->text = read_file(p->folder, path, &ret->bytes);
    if (!ret->text) {
        snprintf(reason, 256, "there is no file %s", path);
        return PPS_ERR_IO;
    }
    ret->resolved = copy(path, strlen(path));
    ret->release = release;
    return PPS_OK;
}

static pps_status on_model(void *ud, pps_state *st, bool enter, uint32_t depth, const char *name,
                           pps_span span)
{
    program *p = ud;
    (void)st;
    (void)span;
    add(&p->events, "%s model %s at depth %u", enter ? "enter" : "leave", name, depth);
    return PPS_OK;
}

static pps_status on_annotate(void *ud, pps_state *st, bool enter, const char *tag, uint32_t index,
                              pps_span span)
{
    program *p = ud;
    (void)st;
    (void)span;
    add(&p->events, "%s %s %u", enter ? "enter" : "leave", tag, index);
    return PPS_OK;
}

static pps_status on_directive(void *ud, pps_state *st, const pps_directive *d)
{
    program *p = ud;
    char buffer[MAX_LINE], *text;
    int used = snprintf(buffer, sizeof(buffer), "%s", pps_directive_word(d->kind));
    if (pps_repr(st, d->subject, &text) == PPS_OK) {
        used += snprintf(buffer + used, sizeof(buffer) - (size_t)used, " %s", text);
        pps_free_text(st, text);
    }
    for (uint32_t i = 0; i < d->n_clauses; i++) {
        if (pps_repr(st, d->clauses[i].value, &text) != PPS_OK)
            return PPS_ERR_NOMEM;
        used += snprintf(buffer + used, sizeof(buffer) - (size_t)used, " %s %s", d->clauses[i].word,
                         text);
        pps_free_text(st, text);
    }
    if (d->context[0])
        snprintf(buffer + used, sizeof(buffer) - (size_t)used, " (%s)", d->context);
    add(&p->directives, "%s", buffer);
    return PPS_OK;
}

/* ---- A host type: a box holds one number, and says what is done to it
 * ---------------------------- */

static pps_status make_box(pps_state *st, void *ud, size_t argc, const pps_value *argv,
                           pps_value *ret)
{
    (void)argc;
    if (pps_typeof(argv[0]) != PPS_INT)
        return pps_error(st, pps_arg_span(st, 0), 304, "a box holds an int");
    *ret = pps_handle(*(uint32_t *)ud, (uint64_t)pps_as_int(argv[0]));
    return PPS_OK;
}

static int64_t box_number(pps_value v)
{
    return pps_typeof(v) == PPS_INT ? pps_as_int(v) : (int64_t)pps_handle_payload(v);
}

static pps_status box_binary(pps_state *st, void *ud, const char *op, pps_value a, pps_value b,
                             pps_value *ret)
{
    int64_t x = box_number(a), y = box_number(b);
    if (strcmp(op, "+") != 0 && strcmp(op, "-") != 0)
        return pps_error(st, pps_call_span(st), 304, "boxes do not know %s", op);
    *ret = pps_handle(*(uint32_t *)ud, (uint64_t)(op[0] == '+' ? x + y : x - y));
    return PPS_OK;
}

static pps_status box_field(pps_state *st, void *ud, pps_value v, const char *name, pps_value *ret)
{
    (void)ud;
    if (strcmp(name, "self") == 0)
        *ret = v;
    else if (strcmp(name, "number") == 0)
        *ret = pps_int((int64_t)pps_handle_payload(v));
    else
        return pps_error(st, pps_call_span(st), 306, "a box has no field `%s`", name);
    return PPS_OK;
}

static pps_status box_call(pps_state *st, void *ud, pps_value v, size_t argc, const pps_value *argv,
                           size_t n_named, const char *const *names, const pps_value *named,
                           pps_value *ret)
{
    int64_t sum = (int64_t)pps_handle_payload(v);
    (void)ud;
    (void)st;
    for (size_t i = 0; i < argc; i++)
        sum += pps_as_int(argv[i]);
    for (size_t i = 0; i < n_named; i++)
        sum += (int64_t)strlen(names[i]) * pps_as_int(named[i]);
    *ret = pps_int(sum);
    return PPS_OK;
}

static void box_print(pps_state *st, void *ud, pps_value v, char *buffer, size_t n)
{
    (void)st;
    (void)ud;
    snprintf(buffer, n, "box(%lld)", (long long)pps_handle_payload(v));
}

/* twice(f, x): calls back into the script */
static pps_status twice(pps_state *st, void *ud, size_t argc, const pps_value *argv, pps_value *ret)
{
    pps_value v;
    (void)ud;
    (void)argc;
    PPS_TRY(pps_call(st, argv[0], 1, &argv[1], &v));
    return pps_call(st, argv[0], 1, &v, ret);
}

static pps_status pick(pps_state *st, void *ud, size_t argc, const pps_value *argv, pps_value *ret)
{
    (void)ud;
    pps_value all;
    PPS_TRY(pps_list(st, &all));
    for (size_t i = 0; i < argc; i++)
        PPS_TRY(pps_list_push(st, all, argv[i]));
    *ret = all;
    return PPS_OK;
}

static pps_status define_host(pps_state *st, uint32_t *box_type)
{
    static const pps_handle_ops ops = {"box", box_binary, box_field, box_call, box_print};
    PPS_TRY(pps_handle_register(st, &ops, box_type, box_type));
    PPS_TRY(pps_def(st, "box(n)", make_box, box_type, NULL, "A box."));
    PPS_TRY(pps_def(st, "twice(f, x)", twice, NULL, NULL, "f(f(x))"));
    return pps_def(st, "pick(a, b=2, c=-1.5, d=\"x\", *rest, last=nil, **named)", pick, NULL, NULL,
                   "Its arguments.");
}

/* ---- One program ----------------------------------------------------------------------------- */

static const char *value_of(const char *line, const char *key)
{
    size_t n = strlen(key);
    const char *found = strstr(line, key);
    return found ? found + n + (found[n] == ' ') : NULL;
}

typedef struct expected {
    lines out, errors, directives, events;
} expected;

static void read_expectations(const char *text, expected *e, pps_config *config, lines *params)
{
    for (const char *line = text; line && *line;) {
        const char *newline = strchr(line, '\n'), *v;
        size_t n = newline ? (size_t)(newline - line) : strlen(line);
        char *row = copy(line, n);
        if ((v = value_of(row, "# expect error:")))
            add(&e->errors, "%s", v);
        else if ((v = value_of(row, "# expect:")))
            add(&e->out, "%s", v);
        else if ((v = value_of(row, "# directive:")))
            add(&e->directives, "%s", v);
        else if ((v = value_of(row, "# event:")))
            add(&e->events, "%s", v);
        else if ((v = value_of(row, "# param:")))
            add(params, "%s", v);
        else if ((v = value_of(row, "# limit: steps")))
            config->max_steps = strtoull(v, NULL, 10);
        else if ((v = value_of(row, "# limit: bytes")))
            config->max_bytes = strtoull(v, NULL, 10);
        else if ((v = value_of(row, "# limit: depth")))
            config->max_depth = (uint32_t)strtoul(v, NULL, 10);
        free(row);
        line = newline ? newline + 1 : NULL;
    }
}

static bool error_matches(const char *want, const char *got)
{
    char word[MAX_LINE];
    int used = 0;
    if (sscanf(want, "%399s%n", word, &used) != 1 || strncmp(got, word, strlen(word)) != 0)
        return false;
    want += used;
    const char *place = strstr(got, " at ");
    if (sscanf(want, " at %399s%n", word, &used) == 1) {
        size_t n = strlen(word);
        if (strncmp(place + 4, word, n) != 0 || (place[4 + n] != ':' && place[4 + n] != ' '))
            return false;
        want += used;
    }
    while (*want == ' ')
        want++;
    return !*want || strstr(place, want) != NULL;
}

static bool compare(const char *name, const char *what, const lines *want, const lines *got,
                    bool errors)
{
    for (int i = 0; i < want->n || i < got->n; i++) {
        const char *w = i < want->n ? want->at[i] : NULL, *g = i < got->n ? got->at[i] : NULL;
        if (w && g && (errors ? error_matches(w, g) : strcmp(w, g) == 0))
            continue;
        printf("%s: %s %d\n  expected: %s\n  got:      %s\n", name, what, i + 1, w ? w : "nothing",
               g ? g : "nothing");
        return false;
    }
    return true;
}

static bool run(const char *folder, const char *name, bool show)
{
    program p = {.folder = folder};
    expected e = {0};
    lines params = {0};
    uint32_t box_type;
    size_t n;
    pps_config config = {.size = sizeof(config),
                         .print = on_print,
                         .print_ud = &p,
                         .diag = on_diag,
                         .diag_ud = &p,
                         .load = on_load,
                         .load_ud = &p,
                         .max_steps = 50000000};
    pps_hooks hooks = {&p, on_model, on_annotate, on_directive};
    char *text = read_file(folder, name, &n);
    if (!text) {
        printf("%s: cannot be read\n", name);
        return false;
    }
    read_expectations(text, &e, &config, &params);
    bool ok = pps_open(PPS_ABI, &config, &p.st) == PPS_OK && define_host(p.st, &box_type) == PPS_OK;
    if (!ok) {
        printf("%s: no state\n", name);
        return false;
    }
    pps_set_hooks(p.st, &hooks);
    for (int i = 0; i < params.n; i++) {
        char key[100], setting[200];
        if (sscanf(params.at[i], "%99s = %199[^\n]", key, setting) == 2)
            pps_set_param(p.st, key, setting);
    }
    pps_status status = pps_eval(p.st, name, name, text, n);
    if ((status == PPS_OK) != (e.errors.n == 0)) {
        printf("%s: status %d\n", name, (int)status);
        ok = false;
    }
    ok &= compare(name, "error", &e.errors, &p.errors, true);
    ok &= compare(name, "printed line", &e.out, &p.out, false);
    if (e.directives.n)
        ok &= compare(name, "directive", &e.directives, &p.directives, false);
    if (e.events.n)
        ok &= compare(name, "event", &e.events, &p.events, false);
    if ((!ok || show) && p.rendered)
        printf("%s", p.rendered);
    pps_close(p.st);
    lines *all[] = {&p.out,    &p.errors,     &p.directives, &p.events, &e.out,
                    &e.errors, &e.directives, &e.events,     &params};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        lines_done(all[i]);
    free(p.rendered);
    free(p.partial);
    free(text);
    return ok;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: run_programs FOLDER [NAME...]\n");
        return 2;
    }
    if (argc > 2) {
        for (int i = 2; i < argc; i++)
            failed += !run(argv[1], argv[i], true);
        return failed != 0;
    }
    lines names = {0};
    DIR *folder = opendir(argv[1]);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        size_t n = strlen(entry->d_name);
        if (n > 4 && strcmp(entry->d_name + n - 4, ".pps") == 0 && entry->d_name[0] != '_')
            add(&names, "%s", entry->d_name);
    }
    if (folder)
        closedir(folder);
    qsort(names.at, (size_t)names.n, sizeof(names.at[0]), by_name);
    for (int i = 0; i < names.n; i++) {
        bool ok = run(argv[1], names.at[i], false);
        passed += ok;
        failed += !ok;
        if (!ok)
            printf("  again: run_programs %s %s\n", argv[1], names.at[i]);
    }
    lines_done(&names);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0 || passed == 0;
}
