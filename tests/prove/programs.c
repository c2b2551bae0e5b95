/* SPDX-License-Identifier: Apache-2.0
 *
 * programs.c: see programs.h. Rows: a random order of all ops of all stages that respects the
 * dataflow is drawn, and each device group's row is its part of it, so rows cannot contradict each
 * other. Neighbours of a row become one overlapped group only where everything can still run with
 * both of them started together.
 */
#include "programs.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MOST_STAGES = 6, MOST_MB = 8, MOST_GROUPS = 3, MOST_RANKS = 4, NONE = UINT8_MAX };
enum { MOST_OPS = MOST_STAGES * MOST_MB * 3 };
enum { OP_F, OP_B, OP_BI, OP_BW };

/* What pairs of a group's ranks do together; POSITIONS: as TENSOR, and share out positions between.
 */
typedef enum team { APART, TENSOR, POSITIONS, SEQUENCE } team;

typedef struct draw { /* what a program is made of */
    random_source *r;
    program *p;
    uint32_t n_stages, n_groups, dp, n_mb, batch;
    bool moe, shard, named_streams;
    bool by_mb; /* a stage may lie on several groups */
    team team;
    uint32_t swaps; /* of ops in the order drawn: it may contradict the dataflow, or itself */
    uint32_t group_of[MOST_STAGES][MOST_MB];
    uint32_t device[MOST_RANKS]; /* numbers, shuffled */
} draw;

static void add(program *p, const char *format, ...) PPS_PRINTF(2, 3);
static void add(program *p, const char *format, ...)
{
    size_t have = strlen(p->text);
    va_list args;
    va_start(args, format);
    vsnprintf(p->text + have, sizeof p->text - have, format, args);
    va_end(args);
}

static bool chance(draw *d, uint32_t percent)
{
    return random_below(d->r, 100) < percent;
}

/* Replicas of a stage: ranks of a group, or pairs of them. */
static uint32_t replicas(const draw *d)
{
    return d->team == APART ? d->dp : d->dp / 2;
}

/* Do several ranks have parts of a gradient? */
static bool replicates(const draw *d)
{
    return d->dp > 1 && (replicas(d) > 1 || d->team == SEQUENCE);
}

static void model_text(const draw *d, char *ret, size_t n)
{
    static const char *const optimizers[] = {"sgd(lr=0.1)", "sgd(lr=0.05, momentum=0.9)"};
    const char *optimizer = optimizers[d->n_mb % 2];
    uint32_t layers = d->n_stages * (1 + d->batch / 4 % 2);
    if (d->team != APART)
        snprintf(ret, n,
                 "from \"models/llama\" import llama\n"
                 "train llama(tokens(%u, 8), targets(), stages=%u, layers=%u, dim=8, heads=2, "
                 "kv_heads=2, hidden=8, vocab=16) optimizer %s\n",
                 d->batch, d->n_stages, layers, optimizer);
    else if (d->moe)
        snprintf(ret, n,
                 "from \"models/qwen3_moe\" import qwen3_moe\n"
                 "train qwen3_moe(tokens(%u, 6), targets(), stages=%u, layers=%u, dim=8, heads=2, "
                 "kv_heads=1, head_dim=4, experts=4, top_k=2, expert_hidden=8, vocab=16, "
                 "aux_loss=0.01) optimizer %s\n",
                 d->batch, d->n_stages, d->n_stages, optimizer);
    else
        snprintf(ret, n,
                 "from \"models/mlp\" import mlp\n"
                 "train mlp(tokens(%u, 4), targets(), stages=%u, layers=%u, dim=8, hidden=8, "
                 "vocab=16) optimizer %s\n",
                 d->batch, d->n_stages, layers, optimizer);
}

static void add_devices(draw *d, uint32_t group)
{
    add(d->p, "[");
    for (uint32_t i = 0; i < d->dp; i++)
        add(d->p, i == 0 ? "%u" : ", %u", d->device[group + i * d->n_groups]);
    add(d->p, "]");
}

/* What a stage has of a kind of streams, and how it is kept equal: on all of its groups alike. */
typedef struct way {
    bool pp, dp, ep, ga;
    uint32_t zero, every, prefetch,
        bucket; /* bucket: 0, or a number of `buckets`; zero: 4, 5: not said */
    bool shard;
} way;
static const char *const buckets[] = {NULL, "0.0001", "0.0005", "0.002"};

static void add_replicate(draw *d, uint32_t group, const char *filter, const way *w)
{
    add(d->p, "replicate %s on ", filter);
    add_devices(d, group);
    add(d->p, w->dp ? " reduce dp" : "");
    if (w->zero < 4)
        add(d->p, " zero %u", w->zero);
    if (w->zero > 0 && w->zero < 4 && w->ga)
        add(d->p, " gather ga");
    if (w->bucket > 0)
        add(d->p, " bucket %s", buckets[w->bucket]);
    if ((w->zero == 2 || w->zero == 3) && w->every > 0)
        add(d->p, " every %u", w->every);
    if (w->zero == 3 && w->prefetch > 0)
        add(d->p, " prefetch %u", w->prefetch - 1);
    add(d->p, "\n");
}

static void add_pairs(draw *d, uint32_t group)
{
    for (uint32_t i = 0; i < d->dp; i += 2)
        add(d->p, i == 0 ? "[[%u, %u]" : ", [%u, %u]", d->device[group + i * d->n_groups],
            d->device[group + (i + 1) * d->n_groups]);
    add(d->p, "]");
}

/* What pairs of ranks do together in a stage, or in all of them. */
static void add_teams(draw *d, uint32_t group, uint32_t stage, bool all)
{
    static const char *const as[] = {
        [TENSOR] = "tensor", [POSITIONS] = "tensor sequence true", [SEQUENCE] = "sequence"};
    const char *region = d->team == SEQUENCE ? "" : "TP: *";
    if (d->team == APART)
        return;
    if (all)
        add(d->p, "shard {%s} on ", region);
    else
        add(d->p, "shard {PP: %u%s%s} on ", stage, region[0] != '\0' ? ", " : "", region);
    add_pairs(d, group);
    add(d->p, " as %s\n", as[d->team]);
}

/* Experts over the whole group, or in two teams of it. */
static void add_shard(draw *d, uint32_t group, const char *filter, const way *w)
{
    add(d->p, "shard %s on ", filter);
    if (d->dp == 4 && chance(d, 50))
        add_pairs(d, group);
    else
        add_devices(d, group);
    add(d->p, w->ep ? " stream ep\n" : "\n");
}

static way draw_way(draw *d)
{
    way w = {.zero = random_below(d->r, 6),
             .every = chance(d, 40) ? 1 + random_below(d->r, d->n_mb) : 0,
             .prefetch = chance(d, 40) ? 1 + random_below(d->r, 4) : 0,
             .bucket = chance(d, 40) ? 1 + random_below(d->r, 3) : 0,
             .shard = d->shard && chance(d, 80)};
    if (d->by_mb && (w.zero == 2 || w.zero == 3)) /* of one group's parameters alone */
        w.zero = 1;
    return w;
}

/* Stage s where it lies on `group`, if it does. */
static void add_stage(draw *d, uint32_t s, uint32_t group, const way *w)
{
    char mbs[64] = "", filter[128], experts[128];
    uint32_t n = 0;
    for (uint32_t m = 0; m < d->n_mb; m++)
        if (d->group_of[s][m] == group)
            snprintf(mbs + strlen(mbs), sizeof mbs - strlen(mbs), n++ > 0 ? ", %u" : "%u", m);
    if (n == 0)
        return;
    snprintf(filter, sizeof filter, n < d->n_mb ? "{PP: %u, MB: [%s]}" : "{PP: %u}", s, mbs);
    snprintf(experts, sizeof experts, n < d->n_mb ? "{PP: %u, MB: [%s], EP: *}" : "{PP: %u, EP: *}",
             s, mbs);
    add(d->p, "place %s on ", filter);
    add_devices(d, group);
    add(d->p, w->pp ? " stream pp\n" : "\n");
    add_teams(d, group, s, false);
    if (!replicates(d))
        return;
    add_replicate(d, group, filter, w);
    if (w->shard)
        add_shard(d, group, experts, w);
}

/* What some stages keep nothing of, for all microbatches or for one. */
static void add_keeps(draw *d)
{
    for (uint32_t s = 0; s < d->n_stages; s++)
        if (chance(d, 15)) {
            if (d->n_mb > 1 && chance(d, 30))
                add(d->p, "recompute {PP: %u, MB: %u}\n", s, random_below(d->r, d->n_mb));
            else
                add(d->p, "recompute {PP: %u}\n", s);
        }
}

static void add_placement(draw *d)
{
    bool pp = d->named_streams && chance(d, 70), dp = d->named_streams && chance(d, 70);
    bool ep = d->named_streams && chance(d, 70), ga = d->named_streams && chance(d, 50);
    bool at_once = d->n_groups == 1 && chance(d, 40);
    if (d->named_streams)
        add(d->p, "let pp, dp, ep, ga = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\"), "
                  "stream(\"ga\")]\n");
    for (uint32_t s = 0; s < (at_once ? 1 : d->n_stages); s++) {
        way w = draw_way(d);
        w.pp = pp, w.dp = dp, w.ep = ep, w.ga = ga;
        for (uint32_t g = 0; g < d->n_groups && !at_once; g++)
            add_stage(d, s, g, &w);
        if (!at_once)
            continue;
        add(d->p, "place {} on ");
        add_devices(d, 0);
        add(d->p, pp ? " stream pp\n" : "\n");
        add_teams(d, 0, 0, true);
        if (replicates(d))
            add_replicate(d, 0, "{}", &w);
        if (replicates(d) && w.shard)
            add_shard(d, 0, "{EP: *}", &w);
    }
}

/* ---- orders -------------------------------------------------------------------------------------
 */

typedef struct op {
    uint8_t what, stage, mb;
} op;

typedef struct progress { /* of one stage and microbatch */
    bool split, f, b, w;
} progress;

/* The op of (stage, mb) that could run now, NONE when there is none. */
static uint8_t ready(const draw *d, progress (*done)[MOST_MB], uint32_t s, uint32_t m)
{
    const progress *p = &done[s][m];
    if (!p->f)
        return s == 0 || done[s - 1][m].f ? OP_F : NONE;
    if (!p->b)
        return s + 1 == d->n_stages || done[s + 1][m].b ? (p->split ? OP_BI : OP_B) : NONE;
    return p->split && !p->w ? OP_BW : NONE;
}

static uint32_t draw_order(draw *d, op *ret)
{
    progress done[MOST_STAGES][MOST_MB] = {0};
    uint32_t n = 0, splits = random_below(d->r, 3) * 50, forward = 1 + random_below(d->r, 6);
    for (uint32_t s = 0; s < d->n_stages; s++)
        for (uint32_t m = 0; m < d->n_mb; m++)
            done[s][m].split = chance(d, splits);
    for (;;) {
        op choices[MOST_STAGES * MOST_MB * 6];
        uint32_t n_choices = 0;
        for (uint32_t s = 0; s < d->n_stages; s++)
            for (uint32_t m = 0; m < d->n_mb; m++) {
                uint8_t what = ready(d, done, s, m);
                /* forwards are likelier in some programs: more in flight at once */
                for (uint32_t k = 0; what != NONE && k < (what == OP_F ? forward : 1); k++)
                    choices[n_choices++] = (op){what, (uint8_t)s, (uint8_t)m};
            }
        if (n_choices == 0)
            return n;
        op o = ret[n++] = choices[random_below(d->r, n_choices)];
        progress *p = &done[o.stage][o.mb];
        p->f |= o.what == OP_F;
        p->b |= o.what == OP_B || o.what == OP_BI;
        p->w |= o.what == OP_BW;
    }
}

/* Does `b` need what `a` makes? */
static bool needs(const draw *d, op b, op a)
{
    if (a.mb != b.mb)
        return false;
    if (a.what == OP_F)
        return b.what == OP_F    ? a.stage + 1u == b.stage
               : b.what == OP_BW ? false
                                 : a.stage == b.stage;
    if (a.what == OP_BW)
        return false;
    if (b.what == OP_BW)
        return a.stage == b.stage && a.what == OP_BI;
    return b.what != OP_F && b.stage + 1u == a.stage && a.stage < d->n_stages;
}

/* Can the ops run if those with one unit run together? `row` is the op before in the same row. */
static bool can_run(const draw *d, const op *ops, uint32_t n, const uint32_t *unit,
                    const uint32_t *row)
{
    bool done[MOST_OPS] = {0};
    for (bool moved = true; moved;) {
        moved = false;
        for (uint32_t u = 0; u < n; u++) { /* a unit has the number of its first op */
            bool free = unit[u] == u && !done[u];
            for (uint32_t i = u; i < n && free; i++) {
                if (unit[i] != u)
                    continue;
                free = row[i] == MOST_OPS || unit[row[i]] == u || done[unit[row[i]]];
                for (uint32_t k = 0; k < n && free; k++)
                    free = !needs(d, ops[i], ops[k]) || (unit[k] != u && done[unit[k]]);
            }
            done[u] |= free;
            moved |= free;
        }
    }
    for (uint32_t i = 0; i < n; i++)
        if (!done[unit[i]])
            return false;
    return true;
}

/* Where the data of ops[i] goes by name: the position in the order after which it is sent, MOST_OPS
 * when it is not named, or stays. *ret_to is the stage it goes to. */
static uint32_t draw_transfer(draw *d, const op *ops, uint32_t n, uint32_t i, uint32_t named,
                              uint32_t *ret_to)
{
    bool forward = ops[i].what == OP_F;
    uint32_t to = forward ? ops[i].stage + 1u : ops[i].stage - 1u, k = i + 1;
    if (ops[i].what == OP_BW || to >= d->n_stages ||
        d->group_of[to][ops[i].mb] == d->group_of[ops[i].stage][ops[i].mb] || !chance(d, named))
        return MOST_OPS;
    while (k < n && (ops[k].stage != to || ops[k].mb != ops[i].mb || ops[k].what == OP_BW ||
                     forward != (ops[k].what == OP_F)))
        k++;
    *ret_to = to;
    return i + random_below(d->r, k - i);
}

static void add_transfers(draw *d, const op *ops, uint32_t n, const uint32_t *after,
                          const uint32_t *to, uint32_t at, uint32_t g, const char **join)
{
    for (uint32_t i = 0; i < n && i <= at; i++) {
        const char *name = ops[i].what == OP_F ? "F" : "B";
        if (after[i] != at)
            continue;
        if (d->group_of[ops[i].stage][ops[i].mb] == g)
            add(d->p, "%sSEND(%s(%u, %u))", *join, name, ops[i].stage, ops[i].mb);
        else if (d->group_of[to[i]][ops[i].mb] == g)
            add(d->p, "%sRECV(%s(%u, %u))", *join, name, to[i], ops[i].mb);
        else
            continue;
        d->p->n_transfers++;
        *join = " -> ";
    }
}

static void add_rows(draw *d, uint32_t overlap, uint32_t named)
{
    static const char *const names[] = {"F", "B", "BI", "BW"};
    op ops[MOST_OPS];
    uint32_t unit[MOST_OPS], row[MOST_OPS], last[MOST_GROUPS], n = draw_order(d, ops);
    uint32_t after[MOST_OPS], to[MOST_OPS];
    for (uint32_t g = 0; g < MOST_GROUPS; g++)
        last[g] = MOST_OPS;
    for (uint32_t k = 0; k < d->swaps; k++) {
        uint32_t i = random_below(d->r, n), j = (i + 1 + random_below(d->r, 6)) % n;
        op was = ops[i];
        ops[i] = ops[j];
        ops[j] = was;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t g = d->group_of[ops[i].stage][ops[i].mb];
        unit[i] = i;
        row[i] = last[g];
        last[g] = i;
    }
    for (uint32_t i = 0; i < n && overlap > 0; i++) {
        uint32_t before = row[i];
        if (before == MOST_OPS || unit[before] != before || !chance(d, overlap))
            continue;
        unit[i] = before;
        if (can_run(d, ops, n, unit, row))
            d->p->n_overlaps++;
        else
            unit[i] = i;
    }
    for (uint32_t i = 0; i < n; i++)
        after[i] = draw_transfer(d, ops, n, i, named, &to[i]);
    for (uint32_t g = 0; g < d->n_groups; g++) {
        const char *join = "order ";
        for (uint32_t i = 0; i < n; i++) {
            if (i > 0)
                add_transfers(d, ops, n, after, to, i - 1, g, &join);
            if (d->group_of[ops[i].stage][ops[i].mb] != g)
                continue;
            add(d->p, "%s%s(%u, %u)", unit[i] != i ? " | " : join, names[ops[i].what], ops[i].stage,
                ops[i].mb);
            join = " -> ";
        }
        add(d->p, "\n");
    }
}

/* Stage s lies on this group, for all microbatches. */
static void put(draw *d, uint32_t s, uint32_t group)
{
    for (uint32_t m = 0; m < MOST_MB; m++)
        d->group_of[s][m] = group;
}

/* A builder of the stdlib and the placement it is made for. */
static void draw_builder(draw *d, char *ret, size_t n)
{
    static const char *const names[] = {
        "gpipe",     "one_f_one_b", "zerobubble", "interleaved_1f1b",
        "dualpipev", "dualpipe",    "chimera"};
    uint32_t R = d->n_groups, which = random_below(d->r, R == 2 && d->team == APART ? 7 : 5);
    d->by_mb = which >= 5;
    d->n_stages = which < 3 || d->by_mb ? R : 2 * R;
    if (which == 3)
        d->n_mb = R * (1 + random_below(d->r, 2));
    if (which == 4)
        d->n_mb = 2 * R;
    if (which == 5)
        d->n_mb = 2 * R + 2 * random_below(d->r, 2);
    if (which == 6)
        d->n_mb = 2 + 2 * random_below(d->r, 2);
    for (uint32_t s = 0; s < d->n_stages; s++) {
        put(d, s, which == 4 && s >= R ? 2 * R - 1 - s : s % R);
        for (uint32_t m = d->n_mb / 2; m < d->n_mb && d->by_mb; m++) /* the other way */
            d->group_of[s][m] = R - 1 - s;
    }
    snprintf(ret, n, "from \"schedules\" import %s\norder %s(%u, %u)\n", names[which], names[which],
             R, d->n_mb);
}

static void draw_placement(draw *d, bool may_be_by_mb)
{
    d->n_stages = d->n_groups + random_below(d->r, MOST_STAGES - d->n_groups + 1);
    for (uint32_t s = 0; s < d->n_stages; s++)
        put(d, s, random_below(d->r, d->n_groups));
    for (uint32_t g = 0; g < d->n_groups; g++) /* every group has a stage */
        put(d, random_below(d->r, d->n_stages / d->n_groups) * d->n_groups + g, g);
    d->by_mb = may_be_by_mb && d->n_groups > 1 && d->n_mb > 1 && chance(d, 25);
    for (uint32_t s = 0; s < d->n_stages; s++) /* and keeps it, for microbatch 0 */
        for (uint32_t m = 1; m < d->n_mb && d->by_mb; m++)
            if (chance(d, 30))
                d->group_of[s][m] = random_below(d->r, d->n_groups);
}

void program_random(program *p, random_source *r, uint32_t swaps)
{
    draw d = {.r = r, .p = p, .swaps = swaps};
    char builder[256] = "";
    uint32_t kind = swaps > 0 ? 2 : random_below(r, 4);
    memset(p, 0, sizeof *p);
    d.n_groups = 1 + random_below(r, MOST_GROUPS);
    d.dp = 1 + random_below(r, MOST_RANKS / d.n_groups);
    for (uint32_t i = 0; i < d.n_groups * d.dp; i++) {
        uint32_t k = random_below(r, i + 1);
        d.device[i] = d.device[k];
        d.device[k] = i;
    }
    if (d.dp % 2 == 0 && random_below(r, 3) == 0)
        d.team = (team)(1 + random_below(r, 3));
    d.moe = d.team == APART && random_below(r, 2) == 0;
    d.shard = d.moe && d.dp % 2 == 0 && random_below(r, 4) != 0;
    d.named_streams = random_below(r, 3) != 0;
    d.n_mb = 1 + random_below(r, 4);
    if (kind == 0)
        draw_builder(&d, builder, sizeof builder);
    else
        draw_placement(&d, kind >= 2 && d.team == APART);
    d.batch = d.n_mb * replicas(&d) * (1 + random_below(r, 2));
    p->n_ranks = d.n_groups * d.dp;
    p->by_mb = d.by_mb;
    p->streams = random_below(r, 3) == 0 ? 1 + random_below(r, 3) : 0;
    model_text(&d, p->alone, sizeof p->alone);
    add(p, "%s", p->alone);
    add_placement(&d);
    add_keeps(&d);
    if (d.n_mb > 1 || kind == 0)
        add(p, "split {} by MB into %u\n", d.n_mb);
    if (kind == 0) {
        p->order = "builder";
        add(p, "%s", builder);
    } else if (kind == 1) {
        p->order = "default";
    } else {
        p->order = "rows";
        add_rows(&d, kind == 3 ? 30 : 0, kind == 2 ? random_below(r, 3) * 40 : 0);
    }
}
