/* SPDX-License-Identifier: Apache-2.0
 *
 * strategy_run.c: one unit of strategies/: the shared checks, what the plan says of bytes and
 * order, and what the script itself demands by the lines that it prints.
 */
#include <stdlib.h>
#include <string.h>

#include "parity.h"

enum { MAX_KINDS = 32, MAX_WORDS = 2 * STRATEGY_PARAMETERS + 5 };

/* ---- Bytes: as planned, by rank and kind ----------------------------------------------------- */

/* What a step of `bytes` sends from rank number `index` of a team of `n`. */
typedef enum amount {
    WHOLE,     /* as planned, which every kind is that is not in the table */
    REDUCED,   /* its parts of the sum to their owners, its own part's total to the others */
    OWN_SLICE, /* its slice, to the others */
    AT_MOST,   /* the data says; all rows may go to one expert */
    NOTHING,
} amount;

static const struct {
    const char *kind;
    amount amount;
} amounts[] = {
    {"recv", NOTHING},         {"all_reduce", REDUCED}, {"reduce_scatter", OWN_SLICE},
    {"all_gather", OWN_SLICE}, {"counts", AT_MOST},     {"all_to_all", AT_MOST},
    {"sum", REDUCED},          {"stats", OWN_SLICE},    {"seq_scatter", OWN_SLICE},
    {"seq_gather", OWN_SLICE}, {"seq_take", NOTHING},
};

static amount amount_of(const char *kind)
{
    for (size_t i = 0; i < sizeof amounts / sizeof *amounts; i++) {
        if (strcmp(amounts[i].kind, kind) == 0)
            return amounts[i].amount;
    }
    return WHOLE;
}

static uint64_t sent_by(const char *kind, uint64_t bytes, uint64_t index, uint64_t n)
{
    uint64_t elems = bytes / 4, own = elems * (index + 1) / n - elems * index / n;
    switch (amount_of(kind)) {
    case REDUCED:
        return (elems - own + (n - 1) * own) * 4;
    case OWN_SLICE:
        return (n - 1) * (bytes / n);
    case NOTHING:
        return 0;
    case WHOLE:
    case AT_MOST:
        break;
    }
    return bytes;
}

typedef struct sums {
    const char *kinds[MAX_KINDS];
    uint64_t bytes[MAX_KINDS];
    uint32_t n;
} sums;

static void add(sums *s, const char *kind, uint64_t bytes)
{
    uint32_t k = 0;
    while (k < s->n && strcmp(s->kinds[k], kind) != 0)
        k++;
    if (k == MAX_KINDS)
        return;
    if (k == s->n) {
        s->kinds[s->n++] = kind;
        s->bytes[k] = 0;
    }
    s->bytes[k] += bytes;
}

static size_t index_of(const json_t *ranks, uint32_t rank)
{
    size_t i = 0;
    while (i < json_array_size(ranks) &&
           json_integer_value(json_array_get(ranks, i)) != (json_int_t)rank)
        i++;
    return i;
}

/* NULL: none is for this rank. */
static const json_t *plan_of(const json_t *plans, uint32_t rank)
{
    size_t i;
    json_t *plan;
    json_array_foreach(json_object_get(plans, "plans"), i, plan)
    {
        const json_t *ranks = json_object_get(plan, "ranks");
        if (index_of(ranks, rank) < json_array_size(ranks))
            return plan;
    }
    return NULL;
}

/* The bytes that a step sends from `rank`. */
static uint64_t sent_by_step(const json_t *plans, const json_t *step, uint32_t rank)
{
    const char *kind = json_string_value(json_object_get(step, "kind"));
    uint64_t bytes = (uint64_t)json_integer_value(json_object_get(step, "bytes"));
    const json_t *number = json_object_get(step, "teams");
    size_t i;
    json_t *team;
    if (!number)
        return sent_by(kind, bytes, 0, 1);
    json_array_foreach(
        json_array_get(json_object_get(plans, "teams"), (size_t)json_integer_value(number)), i,
        team)
    {
        size_t index = index_of(team, rank), n = json_array_size(team);
        if (index < n)
            return sent_by(kind, bytes, index, n);
    }
    return 0;
}

static bool rank_sends_as_planned(unit_run *r, const json_t *plans, uint32_t rank)
{
    size_t i;
    json_t *step, *value;
    const char *kind;
    sums plan = {.n = 0};
    const json_t *its = plan_of(plans, rank);
    json_t *sent = json_array_get(json_object_get(r->tr.done, "sent_bytes"), rank);
    if (!its)
        return fail(&r->why, "no plan is for rank %u", rank);
    json_array_foreach(json_object_get(its, "steps"), i, step)
    {
        kind = json_string_value(json_object_get(step, "kind"));
        if (json_object_get(step, "bytes"))
            add(&plan, kind, sent_by_step(plans, step, rank));
    }
    json_object_foreach(sent, kind, value) add(&plan, kind, 0);
    for (uint32_t k = 0; k < plan.n; k++) {
        uint64_t ran = (uint64_t)json_integer_value(json_object_get(sent, plan.kinds[k]));
        uint64_t traced = trace_sent(&r->trace, rank, plan.kinds[k]);
        bool as_planned =
            amount_of(plan.kinds[k]) == AT_MOST ? ran <= plan.bytes[k] : ran == plan.bytes[k];
        if (ran != traced || !as_planned)
            return fail(&r->why,
                        "rank %u sent %llu bytes by %s; its trace says %llu, its plan %llu", rank,
                        (unsigned long long)ran, plan.kinds[k], (unsigned long long)traced,
                        (unsigned long long)plan.bytes[k]);
    }
    return true;
}

/* ---- Order: the computes of the plan, one after the other ------------------------------------ */

static bool rank_runs_as_planned(unit_run *r, const json_t *plans, uint32_t rank)
{
    size_t i;
    json_t *step;
    uint32_t at = 0;
    const trace *t = &r->trace;
    const json_t *plan = plan_of(plans, rank);
    json_array_foreach(json_object_get(plan, "steps"), i, step)
    {
        const char *label = json_string_value(json_object_get(step, "label"));
        if (strcmp(json_string_value(json_object_get(step, "kind")), "compute") != 0)
            continue;
        while (at < t->n &&
               (t->events[at].rank != rank || strcmp(t->events[at].kind, "compute") != 0))
            at++;
        if (at == t->n || strcmp(t->events[at].label, label) != 0)
            return fail(&r->why, "rank %u runs %s where its plan has %s", rank,
                        at == t->n ? "nothing" : t->events[at].label, label);
        at++;
    }
    return true;
}

static void check_plan(unit_run *r)
{
    json_t *plans = checks_plan(r);
    uint32_t n = (uint32_t)json_integer_value(json_object_get(plans, "ranks"));
    bool sends = n > 0, runs = n > 0;
    for (uint32_t rank = 0; sends && rank < n; rank++)
        sends = rank_sends_as_planned(r, plans, rank);
    checks_report(r, "bytes sent", sends);
    for (uint32_t rank = 0; runs && rank < n; rank++)
        runs = rank_runs_as_planned(r, plans, rank);
    checks_report(r, "order of computes", runs);
    json_decref(plans);
}

/* ---- What the script demands ----------------------------------------------------------------- */

/* "sends RANK KIND BYTES": in one step, over all communications of the kind. */
static bool check_demand(unit_run *r, const char *line)
{
    unsigned rank;
    unsigned long long bytes;
    char kind[32];
    if (sscanf(line, "sends %u %31s %llu", &rank, kind, &bytes) != 3)
        return fail(&r->why, "the script printed '%s'", line);
    const json_t *sent = json_array_get(json_object_get(r->tr.done, "sent_bytes"), rank);
    json_int_t ran = json_integer_value(json_object_get(sent, kind));
    return ran == (json_int_t)bytes ||
           fail(&r->why, "rank %u sent %lld bytes by %s, the script demands %llu", rank,
                (long long)ran, kind, bytes);
}

/* "bits NAME=VALUE ...": the same unit but for these. */
static void check_same_bits(unit_run *r, const strategy_unit *u, const char *line)
{
    const char *words[MAX_WORDS] = {0};
    char values[256], name[UNIT_NAME + 16], *rest = NULL;
    uint32_t n = 0, n_met = 0, n_values = 0;
    snprintf(values, sizeof values, "%s", line + strlen("bits "));
    for (; u->words[n]; n++)
        words[n] = u->words[n];
    for (char *value = strtok_r(values, " ", &rest); value; value = strtok_r(NULL, " ", &rest)) {
        size_t n_name = strcspn(value, "=") + 1;
        n_values++;
        for (uint32_t i = 1; i < n; i += 2) {
            if (strncmp(words[i], value, n_name) == 0) {
                words[i] = value;
                n_met++;
            }
        }
    }
    snprintf(name, sizeof name, "bits-%.*s", (int)strcspn(u->name, "-"), u->name);
    for (uint32_t i = 1; i < n; i += 2)
        snprintf(name + strlen(name), sizeof name - strlen(name), "-%s", words[i]);
    if (n_met != n_values) {
        fail(&r->why, "the script printed '%s', which names no parameter of the unit", line);
        checks_report(r, "bits of another", false);
        return;
    }
    checks_bits(r, line, checks_reference(r->s, name, &(subject){u->script, words}, SGD_STEPS));
}

static void check_printed(unit_run *r, const strategy_unit *u)
{
    bool exact = false, demands = true, any = false;
    char *text = strdup(r->tr.printed ? r->tr.printed : ""), *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (strcmp(line, "memory exact") == 0) {
            exact = true;
        } else if (strncmp(line, "bits ", 5) == 0) {
            check_same_bits(r, u, line);
        } else {
            any = true;
            demands = demands && check_demand(r, line);
        }
    }
    free(text);
    if (any)
        checks_report(r, "bytes that the script demands", demands);
    checks_memory(r, exact);
}

/* ---- One unit -------------------------------------------------------------------------------- */

/* The unit's run on one rank, under SGD or AdamW. */
static const reference *one_rank(suite *s, const strategy_unit *u, bool adamw)
{
    const char *words[MAX_WORDS];
    char name[UNIT_NAME + 16];
    uint32_t n = 0;
    for (; u->words[n]; n++)
        words[n] = u->words[n];
    words[n++] = "-D";
    words[n++] = "alone=true";
    if (adamw) {
        words[n++] = "-D";
        words[n++] = "with_adamw=true";
    }
    words[n] = NULL;
    snprintf(name, sizeof name, "%s%s", u->truth, adamw ? "-adamw" : "");
    return checks_reference(s, name, &(subject){u->script, words}, adamw ? ADAMW_STEPS : SGD_STEPS);
}

void strategy_run(suite *s, const strategy_unit *u)
{
    unit_run r = {.s = s, .name = u->name, .of = {u->script, (const char *const *)u->words}};
    if (checks_begin(&r)) {
        const char *words[MAX_WORDS] = {0};
        uint32_t n = 0;
        for (; u->words[n]; n++)
            words[n] = u->words[n];
        words[n++] = "-D";
        words[n++] = "with_adamw=true";
        checks_numbers(&r, one_rank(s, u, false));
        check_plan(&r);
        check_printed(&r, u);
        checks_again(&r);
        checks_adamw(&r, &(subject){u->script, words}, one_rank(s, u, true));
    }
    checks_end(&r);
}
