/* SPDX-License-Identifier: Apache-2.0
 *
 * parity.c: numbers that must agree, end to end: `pps run` on tiny models under every schedule,
 * pipeline depth and kind of replication against one rank without directives, against itself,
 * against its plan, and against other programs.
 *
 *   parity [--all] [--seed N] [--only NAME] [--keep] [--list]
 *
 *   --all        every cell of the matrix and every unit of strategies/; else, by the seed, one of
 *                each schedule and kind of replication, and a few of each strategy
 *   --seed N     what the sample is drawn with; printed, so that a run can be repeated
 *   --only NAME  that unit alone; --list names all
 *   --keep       leave the scripts and what they gave, and say where
 *
 * The environment: PPS is the program; PPS_TEST_ALL non-empty and PPS_TEST_SEED are as --all and
 * --seed; PPS_ORACLES is the folder of outside results, else shared/oracles beside the checkout,
 * PPS_ROOT, in which tests/parity/strategies are; PPS_TEST_LIMIT is the most seconds one run may
 * take.
 */
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "parity.h"

enum { DEFAULT_LIMIT_S = 60 };

static const routing_unit routing_units[] = {
    {"routing-2", 2, 2},
    {"routing-4", 4, 4},
    {"routing-4-teams", 4, 2},
    {"routing-4-across", 4, 2, .across = true},
    {"routing-2-capacity", 2, 2, .capacity = 0.75},
    {"routing-4-across-capacity", 4, 2, .across = true, .capacity = 1.1},
};

static const char memory_unit[] = "memory";

typedef struct request {
    bool all, keep, list;
    uint64_t seed;
    const char *only;
} request;

static bool read_request(int argc, char **argv, request *q)
{
    const char *all = getenv("PPS_TEST_ALL"), *seed = getenv("PPS_TEST_SEED");
    *q = (request){.all = all && *all};
    q->seed = seed && *seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL) % 1000000;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--all") == 0)
            q->all = true;
        else if (strcmp(argv[i], "--keep") == 0)
            q->keep = true;
        else if (strcmp(argv[i], "--list") == 0)
            q->list = true;
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            q->seed = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            q->only = argv[++i];
        else
            return false;
    }
    return true;
}

static uint64_t draw(uint64_t *state) /* splitmix64 */
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* One cell of each schedule and kind, by the seed. */
static void sample(const cell *cells, uint32_t n, uint64_t seed, bool wanted[CELL_MAX])
{
    for (int schedule = 0; schedule < CELL_SCHEDULES; schedule++)
        for (uint32_t kind = 0; kind < CELL_KINDS; kind++) {
            uint32_t of_kind[CELL_MAX], n_of_kind = 0;
            for (uint32_t i = 0; i < n; i++) {
                if ((int)cells[i].schedule == schedule && cell_kind(&cells[i]) == kind)
                    of_kind[n_of_kind++] = i;
            }
            uint64_t drawn = draw(&seed);
            if (n_of_kind > 0)
                wanted[of_kind[drawn % n_of_kind]] = true;
        }
}

/* Units whose number is not fixed. */
typedef struct units {
    cell cells[CELL_MAX];
    uint32_t n_cells;
    strategy_unit *strategies;
    uint32_t n_strategies;
} units;

static void list_units(const units *u)
{
    char name[CELL_NAME];
    for (uint32_t i = 0; i < u->n_cells; i++)
        printf("%s\n", cell_name(&u->cells[i], name));
    for (uint32_t i = 0; i < u->n_strategies; i++)
        printf("%s\n", u->strategies[i].name);
    for (size_t i = 0; i < sizeof routing_units / sizeof *routing_units; i++)
        printf("%s\n", routing_units[i].name);
    printf("%s\n", memory_unit);
    for (uint32_t i = 0; i < ORACLE_UNITS; i++)
        printf("%s\n", oracle_name(i));
}

static bool chosen(const request *q, const char *name)
{
    return !q->only || strcmp(q->only, name) == 0;
}

static bool is_unit(const char *wanted, const units *u)
{
    char name[CELL_NAME];
    bool found = strcmp(wanted, memory_unit) == 0;
    for (uint32_t i = 0; i < u->n_cells; i++)
        found |= strcmp(wanted, cell_name(&u->cells[i], name)) == 0;
    for (uint32_t i = 0; i < u->n_strategies; i++)
        found |= strcmp(wanted, u->strategies[i].name) == 0;
    for (size_t i = 0; i < sizeof routing_units / sizeof *routing_units; i++)
        found |= strcmp(wanted, routing_units[i].name) == 0;
    for (uint32_t i = 0; i < ORACLE_UNITS; i++)
        found |= strcmp(wanted, oracle_name(i)) == 0;
    return found;
}

static void run_units(suite *s, const request *q, const units *u)
{
    bool wanted[CELL_MAX] = {0};
    char name[CELL_NAME];
    sample(u->cells, u->n_cells, q->seed, wanted);
    for (uint32_t i = 0; i < u->n_cells; i++) {
        if (q->only ? chosen(q, cell_name(&u->cells[i], name)) : q->all || wanted[i])
            matrix_run(s, &u->cells[i]);
    }
    for (uint32_t i = 0; i < u->n_strategies; i++) {
        const strategy_unit *its = &u->strategies[i];
        if (q->only ? chosen(q, its->name) : q->all || its->sampled)
            strategy_run(s, its);
    }
    for (size_t i = 0; i < sizeof routing_units / sizeof *routing_units; i++) {
        if (chosen(q, routing_units[i].name))
            routing_run(s, &routing_units[i]);
    }
    if (chosen(q, memory_unit))
        memory_run(s, memory_unit);
    for (uint32_t i = 0; i < ORACLE_UNITS; i++) {
        if (chosen(q, oracle_name(i)))
            oracle_run(s, i);
    }
    checks_forget(s);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

/* Where everything is, as absolute paths: the children run in another folder. */
typedef struct places {
    char program[PATH_MAX], self[PATH_MAX], oracles[PATH_MAX + 32], command[4 * PATH_MAX + 96];
    char root[PATH_MAX], strategies[PATH_MAX + 32], folder[PATH_MAX];
} places;

static bool find_places(places *p)
{
    const char *program = getenv("PPS"), *root = getenv("PPS_ROOT");
    const char *oracles = getenv("PPS_ORACLES"), *temporary = getenv("TMPDIR");
    char beside[PATH_MAX + 32];
    if (!realpath(root && *root ? root : ".", p->root))
        return false;
    snprintf(p->strategies, sizeof p->strategies, "%s/tests/parity/strategies", p->root);
    if (!program || !realpath(program, p->program) || !realpath("/proc/self/exe", p->self))
        return false;
    snprintf(beside, sizeof beside, "%s/../shared/oracles", p->root);
    oracles = oracles && *oracles ? oracles : beside;
    if (!realpath(oracles, p->oracles))
        snprintf(p->oracles, sizeof p->oracles, "%s", oracles);
    snprintf(p->command, sizeof p->command, "PPS=%s PPS_ROOT=%s PPS_ORACLES=%s %s", p->program,
             p->root, p->oracles, p->self);
    snprintf(p->folder, sizeof p->folder, "%s/pps-parity-XXXXXX",
             temporary && *temporary ? temporary : P_tmpdir);
    return mkdtemp(p->folder) != NULL;
}

int main(int argc, char **argv)
{
    static suite s; /* large, as the next two */
    static units u;
    static places at;
    request q;
    reason why;
    sigset_t child;
    const char *limit = getenv("PPS_TEST_LIMIT");
    if (!read_request(argc, argv, &q)) {
        fprintf(stderr, "usage: parity [--all] [--seed N] [--only NAME] [--keep] [--list]\n");
        return 2;
    }
    if (!find_places(&at)) {
        fprintf(stderr, "parity: PPS must name the program to test, and TMPDIR be writable\n");
        return 2;
    }
    u.n_cells = cells_all(u.cells);
    if (!strategies_read(at.strategies, q.seed, &u.strategies, &u.n_strategies, &why)) {
        fprintf(stderr, "parity: %s\n", why.text);
        return 2;
    }
    if (q.list) {
        list_units(&u);
        rmdir(at.folder);
        return 0;
    }
    if (q.only && !is_unit(q.only, &u)) {
        fprintf(stderr, "parity: no unit is called '%s'; --list names them\n", q.only);
        return 2;
    }
    sigemptyset(&child); /* run.c waits for it */
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    s.tool = (tool){at.program, at.folder,
                    limit && *limit ? (unsigned)strtoul(limit, NULL, 10) : DEFAULT_LIMIT_S};
    s.report.command = at.command;
    s.oracles = at.oracles;
    if (q.only)
        printf("# %s\n", q.only);
    else if (q.all)
        printf("# every cell\n");
    else
        printf("# a sample of the cells with seed %llu\n", (unsigned long long)q.seed);
    run_units(&s, &q, &u);
    strategies_free(u.strategies, u.n_strategies);
    if (q.keep)
        printf("# kept %s\n", at.folder);
    else
        nftw(at.folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return report_end(&s.report) ? 0 : 1;
}
