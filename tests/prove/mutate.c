/* SPDX-License-Identifier: Apache-2.0
 *
 * mutate.c: see mutate.h. A change is a row of a table and works on a plan with steps.
 */
#include "mutate.h"

#include <stdio.h>
#include <string.h>

#include "ir/plan_row.h"

typedef struct draw {
    plan_set *set;
    plan *plan;
    random_source *r;
    char what[MUTATION_NAME]; /* in detail; "": its row's name says it all */
} draw;

static uint32_t below(draw *d, uint32_t n)
{
    return random_below(d->r, n);
}

static plan_step *any_step(draw *d)
{
    return &d->plan->steps[below(d, d->plan->n_steps)];
}

/* A step with `test`, NULL when none of some tries has it. */
static plan_step *step_with(draw *d, bool (*test)(const plan_step *s))
{
    for (int i = 0; i < 40; i++) {
        plan_step *s = any_step(d);
        if (test(s))
            return s;
    }
    return NULL;
}

static bool has_waits(const plan_step *s)
{
    return s->n_waits > 0;
}

static bool has_bindings(const plan_step *s)
{
    return s->n_bindings > 0;
}

static bool has_seq(const plan_step *s)
{
    return s->seq != 0;
}

static bool has_mb(const plan_step *s)
{
    return s->mb != IR_NONE;
}

static bool is_transfer(const plan_step *s)
{
    return s->kind == PLAN_SEND || s->kind == PLAN_RECV;
}

static void swap(plan_step *a, plan_step *b)
{
    plan_step was = *a;
    *a = *b;
    *b = was;
}

static bool swap_neighbours(draw *d)
{
    if (d->plan->n_steps < 2)
        return false;
    plan_step *s = &d->plan->steps[below(d, d->plan->n_steps - 1)];
    swap(s, s + 1);
    return true;
}

static bool swap_steps(draw *d)
{
    plan_step *a = any_step(d), *b = any_step(d);
    swap(a, b);
    return a != b;
}

/* Neighbours change places and keep their waits; waits on them follow them: another valid order, or
 * one that the proof must tell from it. */
static bool reorder(draw *d)
{
    plan *p = d->plan;
    if (p->n_steps < 2)
        return false;
    uint32_t i = below(d, p->n_steps - 1);
    swap(&p->steps[i], &p->steps[i + 1]);
    for (uint32_t k = 0; k < p->n_waits; k++)
        p->waits[k] = p->waits[k] == i ? i + 1 : p->waits[k] == i + 1 ? i : p->waits[k];
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        plan_block *k = &p->blocks[b];
        k->first = k->first == i ? i + 1 : k->first == i + 1 ? i : k->first;
        k->last = k->last == i ? i + 1 : k->last == i + 1 ? i : k->last;
    }
    for (uint32_t b = 1; b < p->n_blocks; b++) /* blocks stay in order of their first step */
        for (uint32_t k = b; k > 0 && p->blocks[k - 1].first > p->blocks[k].first; k--) {
            plan_block was = p->blocks[k];
            p->blocks[k] = p->blocks[k - 1];
            p->blocks[k - 1] = was;
        }
    return true;
}

static bool drop_wait(draw *d)
{
    plan_step *s = step_with(d, has_waits);
    if (s == NULL)
        return false;
    uint32_t *waits = d->plan->waits + s->waits;
    waits[below(d, s->n_waits)] = waits[s->n_waits - 1];
    s->n_waits--;
    return true;
}

static bool move_wait(draw *d)
{
    plan_step *s = step_with(d, has_waits);
    if (s == NULL)
        return false;
    d->plan->waits[s->waits + below(d, s->n_waits)] = below(d, d->plan->n_steps);
    return true;
}

/* One binding names another place. */
static bool retarget(draw *d)
{
    plan *p = d->plan;
    plan_step *s = step_with(d, has_bindings);
    if (s == NULL)
        return false;
    uint32_t *binding = &p->bindings[s->bindings + below(d, s->n_bindings)], was = *binding;
    *binding = below(d, 4) == 0 ? was + below(d, 9) - 4 : p->bindings[below(d, p->n_bindings)];
    return *binding != was;
}

/* Two steps of one work exchange a binding: two microbatches read each other's buffer. */
static bool exchange_bindings(draw *d)
{
    plan *p = d->plan;
    plan_step *s = step_with(d, has_bindings);
    if (s == NULL)
        return false;
    for (int i = 0; i < 200; i++) {
        plan_step *o = any_step(d);
        if (o == s || o->work != s->work)
            continue;
        uint32_t k = below(d, s->n_bindings);
        uint32_t *a = &p->bindings[s->bindings + k], *b = &p->bindings[o->bindings + k], was = *a;
        *a = *b;
        *b = was;
        return *a != *b;
    }
    return false;
}

/* A buffer lies elsewhere, and all that use it know. */
static bool move_block(draw *d)
{
    plan *p = d->plan;
    if (p->n_blocks == 0)
        return false;
    plan_block *b = &p->blocks[below(d, p->n_blocks)];
    uint32_t was = b->offset, units = (uint32_t)(p->act_bytes / PLAN_ALIGN);
    uint32_t to = below(d, 2) ? p->blocks[below(d, p->n_blocks)].offset : below(d, units);
    for (uint32_t i = b->first; i <= b->last; i++)
        for (uint32_t k = 0; k < p->steps[i].n_bindings; k++)
            if (p->bindings[p->steps[i].bindings + k] == was)
                p->bindings[p->steps[i].bindings + k] = to;
    b->offset = to;
    return to != was;
}

static bool change_block(draw *d)
{
    plan *p = d->plan;
    if (p->n_blocks == 0)
        return false;
    plan_block *b = &p->blocks[below(d, p->n_blocks)];
    switch (below(d, 4)) {
    case 0:
        b->units += below(d, 2) ? 1 : UINT32_MAX;
        break;
    case 1:
        b->last = below(d, p->n_steps);
        break;
    case 2:
        b->first = below(d, p->n_steps);
        break;
    default:
        b->offset += below(d, 5) - 2;
    }
    return true;
}

static bool change_seq(draw *d)
{
    plan_step *s = step_with(d, has_seq), *o = step_with(d, has_seq);
    if (s == NULL || o == NULL)
        return false;
    s->seq = below(d, 3) == 0 ? below(d, d->plan->n_steps) : o->seq;
    return true;
}

static bool exchange_seqs(draw *d)
{
    plan_step *s = step_with(d, has_seq), *o = step_with(d, has_seq);
    if (s == NULL || o == NULL || s == o)
        return false;
    uint32_t was = s->seq;
    s->seq = o->seq;
    o->seq = was;
    return true;
}

static bool change_mb(draw *d)
{
    plan_step *s = step_with(d, has_mb);
    if (s == NULL)
        return false;
    uint32_t was = s->mb;
    s->mb = below(d, d->set->n_mb);
    return s->mb != was;
}

static bool change_stream(draw *d)
{
    plan_step *s = any_step(d);
    uint16_t was = s->stream;
    s->stream = (uint16_t)below(d, d->set->n_streams);
    return s->stream != was;
}

static bool change_work(draw *d)
{
    plan_step *s = any_step(d), *o = any_step(d);
    uint32_t was = s->work;
    s->work = o->work;
    if (below(d, 2)) {
        s->kind = o->kind;
        s->pass = o->pass;
    }
    return s->work != was;
}

static bool change_transfer(draw *d)
{
    plan_step *s = step_with(d, is_transfer);
    if (s == NULL)
        return false;
    plan_work *w = &d->set->works[s->work];
    switch (below(d, 4)) {
    case 0:
        w->bytes += below(d, 2) ? 64 : -(uint64_t)4;
        break;
    case 1:
        w->peer_group = below(d, d->set->n_groups);
        break;
    case 2:
        s->kind = s->kind == PLAN_SEND ? PLAN_RECV : PLAN_SEND;
        break;
    default:
        w->peer = below(d, d->set->n_works);
    }
    return true;
}

/* A transfer, an exchange, a reduction: its payload. */
static bool change_bytes(draw *d)
{
    plan_step *s = step_with(d, has_seq);
    if (s == NULL)
        return false;
    d->set->works[s->work].bytes += 64u * (1 + below(d, 3)) * (below(d, 2) ? 1 : UINT64_MAX);
    return true;
}

/* A step is not there; waits on it neither. */
static bool remove_step(draw *d)
{
    plan *p = d->plan;
    uint32_t at = below(d, p->n_steps);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        plan_step *s = &p->steps[i];
        for (uint32_t k = 0; k < s->n_waits;) {
            uint32_t *wait = &p->waits[s->waits + k];
            if (*wait == at)
                *wait = p->waits[s->waits + --s->n_waits];
            else
                *wait -= *wait > at, k++;
        }
    }
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        p->blocks[b].first -= p->blocks[b].first > at;
        p->blocks[b].last -= p->blocks[b].last >= at && p->blocks[b].last > 0;
    }
    memmove(p->steps + at, p->steps + at + 1, (p->n_steps - at - 1) * sizeof *p->steps);
    p->n_steps--;
    return true;
}

static bool change_bucket(draw *d)
{
    plan *p = d->plan;
    if (p->n_buckets == 0)
        return false;
    plan_bucket *b = &p->buckets[below(d, p->n_buckets)];
    b->teams = b->teams == IR_NONE ? below(d, d->set->n_teams) : IR_NONE;
    return true;
}

static bool change_program(draw *d)
{
    plan_step *s = any_step(d);
    plan_work *w = &d->set->works[s->work];
    if (s->kind != PLAN_COMPUTE)
        return false;
    uint32_t was = w->program;
    w->program = below(d, d->set->n_programs);
    return w->program != was;
}

/* Fields that say what a step means. */
static bool is_meaning(const char *field)
{
    static const char *const names[] = {"buffers", "width", "aux", "cuts[1].dim", "cuts[1].blocks"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(field, names[i]) == 0)
            return true;
    return false;
}

/* Any field of a plan's records, by plan_fields.def: another record's value, the next one, or some
 * small number. Records are not added: memory has no more of them. */
static bool change_field(draw *d)
{
    static const uint8_t tables[] = {PLAN_TABLE_WORK, PLAN_TABLE_LOSS,  PLAN_TABLE_PLAN,
                                     PLAN_TABLE_STEP, PLAN_TABLE_STEP,  PLAN_TABLE_BUCKET,
                                     PLAN_TABLE_HELD, PLAN_TABLE_BLOCK, PLAN_TABLE_WAIT,
                                     PLAN_TABLE_STEP, PLAN_TABLE_WORK,  PLAN_TABLE_BINDING};
    plan_table t = plan_table_of(tables[below(d, sizeof tables)]);
    void *owner = t.per_plan ? (void *)d->plan : (void *)d->set;
    uint32_t n = plan_table_n(&t, owner);
    const plan_field *f = &t.fields[below(d, t.n_fields)];
    if (n == 0 || plan_type_is_text(f->type) || f->type == PLAN_TYPE_SPAN || is_meaning(f->name) ||
        (strcmp(f->name, "flags") == 0 && d->set->n_mb == 1)) /* no others to tell the way from */
        return false;
    uint32_t i = below(d, n);
    plan_value v = plan_field_get(f, owner, i), was = v;
    switch (below(d, 4)) {
    case 0:
        v.u++;
        break;
    case 1:
        v.u--;
        break;
    case 2:
        v.u = below(d, 5);
        break;
    default:
        v.u = plan_field_get(f, owner, below(d, n)).u;
    }
    if (v.u == was.u || (strncmp(f->name, "n_", 2) == 0 && v.u > was.u))
        return false;
    snprintf(d->what, sizeof d->what, "%s of %s %u: %llu instead of %llu", f->name, t.name, i,
             (unsigned long long)v.u, (unsigned long long)was.u);
    return plan_field_put(f, owner, i, &v);
}

static const struct {
    const char *name;
    bool (*change)(draw *d);
} mutations[] = {
    {"swap neighbours", swap_neighbours},
    {"swap steps", swap_steps},
    {"reorder", reorder},
    {"drop a wait", drop_wait},
    {"move a wait", move_wait},
    {"retarget a binding", retarget},
    {"exchange bindings", exchange_bindings},
    {"move a buffer", move_block},
    {"change a block", change_block},
    {"change a sequence number", change_seq},
    {"exchange sequence numbers", exchange_seqs},
    {"change a microbatch", change_mb},
    {"change a stream", change_stream},
    {"change a step's work", change_work},
    {"change a transfer", change_transfer},
    {"change bytes", change_bytes},
    {"remove a step", remove_step},
    {"change a bucket", change_bucket},
    {"change a program", change_program},
    {"change a field", change_field},
    {"change a field", change_field},
    {"change a field", change_field},
    {"change a field", change_field},
};
enum { N_MUTATIONS = sizeof mutations / sizeof *mutations };

bool mutate(plan_set *set, random_source *r, char what[MUTATION_NAME])
{
    draw d = {.set = set, .plan = &set->plans[random_below(r, set->n_groups)], .r = r};
    uint32_t which = random_below(r, N_MUTATIONS);
    if (d.plan->n_steps == 0 || !mutations[which].change(&d))
        return false;
    snprintf(what, MUTATION_NAME, "%s", d.what[0] != '\0' ? d.what : mutations[which].name);
    return true;
}
