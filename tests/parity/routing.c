/* SPDX-License-Identifier: Apache-2.0
 *
 * routing.c: how many rows an all-to-all must carry. The model is a router right behind an
 * embedding, so where a token goes follows from two tensors: this file routes every token itself,
 * counts the rows whose expert another rank of its team owns, and compares with the bytes each rank
 * sent, microbatch by microbatch. Under a capacity rows that a sequence's earlier choices leave no
 * room for stay at home.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "parity.h"
#include "trace.h"

enum { B = 16, T = 16, DIM = 16, EXPERTS = 4, TOP_K = 2, PARTS = 4, TEXT_BYTES = 4096 };
enum { MAX_COPIES = 4 };

static const char script[] =
    "param copies = 2\n"
    "let dp, ep = [stream(\"dp\"), stream(\"ep\")]\n"
    "model routed(x, y) {\n"
    "  let h = embed(x, 256, 16, name=\"embed\")\n"
    "  let route = router(h, 4, 2, renorm=true, aux_loss=0.0, name=\"gate\")\n"
    "  let rows = nil\n"
    "  annotate EP {\n"
    "    rows = experts_mlp(h, route, 8, name=\"experts\")\n"
    "  }\n"
    "  return cross_entropy(linear(combine(rows, route), 256, bias=false, name=\"head\"), y)\n"
    "}\n"
    "train routed(tokens(16, 16), targets()) data bytes(\"routing.txt\") optimizer sgd(lr=0.0)\n"
    "place {} on 0..copies\n"
    "replicate {} on 0..copies reduce dp\n"
    "split {} by MB into 4\n";

/* Rank `index` of the team that replica d belongs to, d its place among its ranks. */
static uint32_t mate(const routing_unit *u, uint32_t d, uint32_t index)
{
    uint32_t n_teams = u->copies / u->size;
    return u->across ? d % n_teams + index * n_teams : d / u->size * u->size + index;
}

static void write_shard(const routing_unit *u, char *text, size_t size)
{
    size_t n = (size_t)snprintf(text, size, "shard {EP: *} on [");
    for (uint32_t team = 0; team < u->copies / u->size; team++)
        for (uint32_t i = 0; i < u->size; i++)
            n += (size_t)snprintf(text + n, size - n, "%s%u%s",
                                  i > 0      ? ", "
                                  : team > 0 ? ", ["
                                             : "[",
                                  mate(u, u->across ? team : team * u->size, i),
                                  i + 1 == u->size ? "]" : "");
    n += (size_t)snprintf(text + n, size - n, "] stream ep");
    if (u->capacity > 0)
        n += (size_t)snprintf(text + n, size - n, " capacity %g", u->capacity);
    snprintf(text + n, size - n, "\n");
}

/* Rows from rank to rank in one microbatch. */
typedef uint32_t routes[MAX_COPIES][MAX_COPIES];

static bool write_file(const tool *t, const char *name, const void *bytes, size_t n, reason *why)
{
    char path[512];
    FILE *file = fopen(run_path(t, name, path), "wb");
    bool ok = file && fwrite(bytes, 1, n, file) == n;
    if (file)
        ok = fclose(file) == 0 && ok;
    return ok || fail(why, "cannot write %s", path);
}

static void fill_text(unsigned char text[TEXT_BYTES])
{
    uint64_t x = 1;
    for (int i = 0; i < TEXT_BYTES; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        text[i] = (unsigned char)(x >> 56);
    }
}

/* The experts of a token: the TOP_K largest logits, of equal ones the lower expert. */
static void experts_of(const float *embedding, const float *gate, uint32_t ret[TOP_K])
{
    double logits[EXPERTS];
    for (uint32_t e = 0; e < EXPERTS; e++) {
        logits[e] = 0;
        for (uint32_t i = 0; i < DIM; i++)
            logits[e] += (double)embedding[i] * (double)gate[e * DIM + i];
    }
    for (uint32_t k = 0; k < TOP_K; k++) {
        uint32_t best = EXPERTS;
        for (uint32_t e = 0; e < EXPERTS; e++) {
            if ((k == 0 || e != ret[0]) && (best == EXPERTS || logits[e] > logits[best]))
                best = e;
        }
        ret[k] = best;
    }
}

/* Rank `d` has B/copies consecutive rows of the batch, microbatch `mb` the mb-th part of them.
 * Returns how many choices are dropped. */
static uint32_t count_routes(const routing_unit *u, const tensor *embedding, const tensor *gate,
                             const unsigned char *text, uint32_t mb, routes ret)
{
    uint32_t rows = B / u->copies, part = rows / PARTS, n_dropped = 0;
    memset(ret, 0, sizeof(routes));
    for (uint32_t d = 0; d < u->copies; d++)
        for (uint32_t row = d * rows + mb * part; row < d * rows + (mb + 1) * part; row++) {
            uint32_t taken[EXPERTS] = {0};
            for (uint32_t i = 0; i < T; i++) {
                uint32_t experts[TOP_K];
                uint32_t token = text[row * T + i];
                experts_of(embedding->values + token * DIM, gate->values, experts);
                for (uint32_t k = 0; k < TOP_K; k++)
                    if (u->capacity > 0 &&
                        ++taken[experts[k]] > ceil(u->capacity * T * TOP_K / EXPERTS))
                        n_dropped++;
                    else
                        ret[d][mate(u, d, experts[k] / (EXPERTS / u->size))]++;
            }
        }
    return n_dropped;
}

static uint64_t traced(const trace *t, uint32_t rank, uint32_t mb, bool forward, bool back)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        const trace_event *e = &t->events[i];
        if (e->rank == rank && e->mb == mb && strcmp(e->kind, "all_to_all") == 0 &&
            (strcmp(e->pass, "F") == 0) == forward && (strstr(e->label, " back ") != NULL) == back)
            sum += e->bytes;
    }
    return sum;
}

static bool compare(const routing_unit *u, const training *tr, const trace *t,
                    const tensor_file *params, const unsigned char *text, reason *why)
{
    uint32_t copies = u->copies, n_dropped = 0;
    const tensor *embedding = tensors_find(params, "embed.weight");
    const tensor *gate = tensors_find(params, "gate.weight");
    uint64_t width = DIM * sizeof(float);
    if (!embedding || !gate || embedding->elems != 256 * DIM || gate->elems != EXPERTS * DIM)
        return fail(why, "the parameters embed.weight and gate.weight were not saved");
    for (uint32_t mb = 0; mb < PARTS; mb++) {
        routes rows;
        n_dropped += count_routes(u, embedding, gate, text, mb, rows);
        for (uint32_t d = 0; d < copies; d++) {
            uint64_t out = 0, back = 0;
            for (uint32_t other = 0; other < copies; other++) {
                out += other != d ? rows[d][other] * width : 0;
                back += other != d ? rows[other][d] * width : 0;
            }
            if (traced(t, d, mb, true, false) != out || traced(t, d, mb, true, true) != back ||
                traced(t, d, mb, false, false) != out || traced(t, d, mb, false, true) != back)
                return fail(why,
                            "in microbatch %u rank %u sent %llu bytes of rows and %llu back, but "
                            "%llu and %llu are routed",
                            mb, d, (unsigned long long)traced(t, d, mb, true, false),
                            (unsigned long long)traced(t, d, mb, true, true),
                            (unsigned long long)out, (unsigned long long)back);
        }
    }
    if ((n_dropped > 0) != (u->capacity > 0) || tr->dropped[0] != n_dropped)
        return fail(why, "%llu choices were dropped instead of %u",
                    (unsigned long long)tr->dropped[0], n_dropped);
    return true;
}

void routing_run(suite *s, const routing_unit *u)
{
    const tool *t = &s->tool;
    unsigned char text[TEXT_BYTES];
    char definition[32], path[512], whole[sizeof script + 256];
    training tr = {0};
    tensor_file params = {0};
    trace tc = {0};
    reason why;
    fill_text(text);
    memcpy(whole, script, sizeof script);
    write_shard(u, whole + strlen(script), sizeof whole - strlen(script));
    snprintf(definition, sizeof definition, "copies=%u", u->copies);
    const char *const words[] = {"-D", definition, NULL};
    train_request request = {
        .script = "routing.pps", .steps = 1, .flags = TRAIN_SAVE | TRAIN_TRACE, .words = words};
    bool ok = write_file(t, "routing.txt", text, sizeof text, &why) &&
              write_file(t, "routing.pps", whole, strlen(whole), &why) &&
              run_training(t, &request, &tr, &why) &&
              tensors_read(run_path(t, "routing.params", path), &params, &why) &&
              trace_read(run_path(t, "routing.trace", path), &tc, &why) &&
              compare(u, &tr, &tc, &params, text, &why);
    report_check(&s->report, u->name, "rows routed to other ranks", ok, &why);
    training_done(&tr);
    tensors_done(&params);
    trace_done(&tc);
}
