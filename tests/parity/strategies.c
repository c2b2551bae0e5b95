/* SPDX-License-Identifier: Apache-2.0
 *
 * strategies.c: the units of strategies/: every combination of the values that the comments of a
 * script name,
 *
 *     # over schedule: one_f_one_b, dualpipev     numbers do not depend on it
 *     # model M: 4, 8                             they do: the model's or the batch's
 *     # not schedule=dualpipev M=2                no such unit
 *
 * and which of them a sample takes: for each value of the first `over` one unit, by the seed.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parity.h"

enum { MAX_VALUES = 16, MAX_RULES = 24, MAX_FILES = 128, MAX_UNITS = 4096, WORD = 64 };

typedef struct parameter {
    char name[WORD], values[MAX_VALUES][WORD];
    uint32_t n;
    bool model;
} parameter;

typedef struct strategy {
    char name[WORD], path[512];
    parameter parameters[STRATEGY_PARAMETERS];
    uint32_t n_parameters;
    char rules[MAX_RULES][512]; /* " schedule=dualpipev M=2 " */
    uint32_t n_rules;
} strategy;

/* ---- The comments of a script ---------------------------------------------------------------- */

static bool read_parameter(strategy *s, const char *text, bool model, reason *why)
{
    parameter *p = &s->parameters[s->n_parameters];
    int used = 0;
    if (s->n_parameters == STRATEGY_PARAMETERS ||
        sscanf(text, "%63[^: ]:%n", p->name, &used) != 1 || used == 0)
        return fail(why, "%s: this names no parameter, or one too many: %s", s->path, text);
    for (text += used;
         p->n < MAX_VALUES && sscanf(text, " %63[^, \n]%n", p->values[p->n], &used) == 1; p->n++) {
        text += used;
        text += *text == ',';
    }
    p->model = model;
    s->n_parameters++;
    return p->n > 0 || fail(why, "%s: parameter %s has no values", s->path, p->name);
}

static bool read_line(strategy *s, char *line, reason *why)
{
    line[strcspn(line, "\n")] = 0;
    if (strncmp(line, "# over ", 7) == 0)
        return read_parameter(s, line + 7, false, why);
    if (strncmp(line, "# model ", 8) == 0)
        return read_parameter(s, line + 8, true, why);
    if (strncmp(line, "# not ", 6) != 0)
        return true;
    if (s->n_rules == MAX_RULES)
        return fail(why, "%s has more than %d rules", s->path, MAX_RULES);
    snprintf(s->rules[s->n_rules++], sizeof s->rules[0], "%s", line + 6);
    return true;
}

static bool read_strategy(const char *folder, const char *file_name, strategy *ret, reason *why)
{
    char line[512];
    bool ok = true;
    *ret = (strategy){0};
    snprintf(ret->path, sizeof ret->path, "%s/%s", folder, file_name);
    snprintf(ret->name, sizeof ret->name, "%.*s", (int)strcspn(file_name, "."), file_name);
    FILE *file = fopen(ret->path, "r");
    if (!file)
        return fail(why, "cannot read %s", ret->path);
    while (ok && fgets(line, sizeof line, file) && line[0] == '#')
        ok = read_line(ret, line, why);
    fclose(file);
    return ok;
}

/* ---- Units ----------------------------------------------------------------------------------- */

typedef struct unit_list {
    strategy_unit *units;
    uint32_t n;
    uint64_t seed;
} unit_list;

static uint64_t draw(uint64_t *state) /* splitmix64 */
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Whether a rule names nothing but values of this combination. */
static bool is_excluded(const strategy *s, const uint32_t *at)
{
    for (uint32_t i = 0; i < s->n_rules; i++) {
        char rule[512], *rest = NULL;
        uint32_t n_words = 0, n_met = 0;
        memcpy(rule, s->rules[i], sizeof rule);
        for (char *word = strtok_r(rule, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
            n_words++;
            for (uint32_t p = 0; p < s->n_parameters; p++) {
                char met[2 * WORD];
                snprintf(met, sizeof met, "%s=%s", s->parameters[p].name,
                         s->parameters[p].values[at[p]]);
                n_met += strcmp(met, word) == 0;
            }
        }
        if (n_words == n_met)
            return true;
    }
    return false;
}

static bool add_unit(unit_list *list, const strategy *s, const uint32_t *at, reason *why)
{
    strategy_unit *u = &list->units[list->n];
    char name[UNIT_NAME] = "", truth[UNIT_NAME] = "";
    int n_name = snprintf(name, sizeof name, "%s", s->name);
    int n_truth = snprintf(truth, sizeof truth, "alone-%s", s->name);
    if (list->n == MAX_UNITS)
        return fail(why, "more than %d units", MAX_UNITS);
    for (uint32_t p = 0; p < s->n_parameters; p++) {
        const parameter *q = &s->parameters[p];
        char word[2 * WORD];
        snprintf(word, sizeof word, "%s=%s", q->name, q->values[at[p]]);
        u->words[2 * p] = strdup("-D");
        u->words[2 * p + 1] = strdup(word);
        n_name += snprintf(name + n_name, sizeof name - (size_t)n_name, "-%s", word);
        if (q->model)
            n_truth += snprintf(truth + n_truth, sizeof truth - (size_t)n_truth, "-%s", word);
        if ((size_t)n_name >= sizeof name || (size_t)n_truth >= sizeof truth)
            return fail(why, "%s: names of parameters and values are too long", s->path);
    }
    u->name = strdup(name);
    u->truth = strdup(truth);
    u->script = strdup(s->path);
    list->n++;
    return true;
}

/* One unit of each value of the first `over`; all parameters of the model: of its first value. */
static void sample(unit_list *list, const strategy *s, uint32_t first, const uint32_t *values)
{
    uint32_t by = 0;
    while (by < s->n_parameters && s->parameters[by].model)
        by++;
    uint32_t n_values = by < s->n_parameters ? s->parameters[by].n : 1;
    for (uint32_t v = 0; v < n_values; v++) {
        uint32_t n = 0, of_value[MAX_UNITS];
        for (uint32_t i = first; i < list->n; i++) {
            if (by == s->n_parameters || values[i] == v)
                of_value[n++] = i;
        }
        if (n)
            list->units[of_value[draw(&list->seed) % n]].sampled = true;
    }
}

static bool add_strategy(unit_list *list, const strategy *s, reason *why)
{
    uint32_t at[STRATEGY_PARAMETERS] = {0}, p, by = 0, first = list->n;
    uint32_t values[MAX_UNITS]; /* of the parameter that is sampled by, by unit */
    while (by + 1 < s->n_parameters && s->parameters[by].model)
        by++;
    do {
        if (!is_excluded(s, at)) {
            values[list->n] = at[by];
            if (!add_unit(list, s, at, why))
                return false;
        }
        for (p = s->n_parameters; p > 0 && ++at[p - 1] == s->parameters[p - 1].n; p--)
            at[p - 1] = 0;
    } while (p > 0);
    sample(list, s, first, values);
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

bool strategies_read(const char *folder, uint64_t seed, strategy_unit **ret, uint32_t *ret_n,
                     reason *why)
{
    static const char ending[] = ".pps";
    char names[MAX_FILES][WORD];
    size_t n = 0;
    DIR *dir = opendir(folder);
    if (!dir)
        return fail(why, "cannot read the folder %s", folder);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        size_t length = strlen(e->d_name);
        if (length < sizeof ending || length >= WORD || e->d_name[0] == '_' || n == MAX_FILES ||
            strcmp(e->d_name + length - strlen(ending), ending) != 0)
            continue;
        strcpy(names[n++], e->d_name);
    }
    closedir(dir);
    qsort(names, n, sizeof names[0], by_name); /* the folder has no order */
    unit_list list = {.units = calloc(MAX_UNITS, sizeof *list.units), .seed = seed};
    bool ok = list.units || fail(why, "out of memory");
    for (size_t i = 0; ok && i < n; i++) {
        strategy s;
        ok = read_strategy(folder, names[i], &s, why) && add_strategy(&list, &s, why);
    }
    if (!ok) {
        strategies_free(list.units, list.n);
        return false;
    }
    *ret = list.units;
    *ret_n = list.n;
    return true;
}

void strategies_free(strategy_unit *units, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        free(units[i].name);
        free(units[i].script);
        free(units[i].truth);
        for (char **word = units[i].words; *word; word++)
            free(*word);
    }
    free(units);
}
