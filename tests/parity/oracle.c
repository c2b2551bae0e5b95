/* SPDX-License-Identifier: Apache-2.0
 *
 * oracle.c: what programs of others computed: losses of a whole training and gradient norms of its
 * first step, on one rank and under DualPipeV, with replicas, with experts sharded, with layers
 * divided over two ranks. The files are not part of the checkout; without them these units are
 * skipped.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "norms.h"
#include "parity.h"
#include "trace.h"

static const double tolerance = 1e-5;

typedef struct model_row {
    const char *oracle; /* the JSON's name without its ending */
    const char *weights;
    const char *train; /* the script's first lines */
} model_row;

static const model_row gpt2 = {
    "gpt2_tiny", "gpt2_tiny.bin",
    "from \"models/gpt2\" import gpt2\n"
    "train gpt2(tokens(8, 32), targets(), stages=4, layers=4, heads=2, dim=48, vocab=250, "
    "context=64) data token_file(\"gpt2_tiny_tokens.bin\") weights \"gpt2_tiny.bin\" "
    "optimizer adamw(lr=1e-3, weight_decay=0.1, decay=\"all\")\n"};
static const model_row qwen3_moe = {
    "qwen3_moe_tiny", "qwen3_moe_tiny.safetensors",
    "from \"models/qwen3_moe\" import qwen3_moe\n"
    "train qwen3_moe(tokens(8, 32), targets(), stages=4, layers=4, dim=48, heads=4, kv_heads=2, "
    "head_dim=16, experts=8, top_k=2, expert_hidden=32, vocab=250, rope_theta=1e6, eps=1e-6, "
    "aux_loss=0.0) data token_file(\"gpt2_tiny_tokens.bin\") weights "
    "\"qwen3_moe_tiny.safetensors\" optimizer adamw(lr=1e-3, weight_decay=0.1, decay=\"all\")\n"};

static const struct {
    const char *name;
    const model_row *model;
    uint32_t replicas; /* 0: one rank without directives */
    bool experts, tensor;
    uint32_t parts; /* ranks that share sequences, of each replica; 0: none */
} units[ORACLE_UNITS] = {
    {"oracle-gpt2-alone", &gpt2, 0, false},
    {"oracle-gpt2-dualpipev", &gpt2, 1, false},
    {"oracle-gpt2-dualpipev-dp2", &gpt2, 2, false},
    {"oracle-qwen3_moe-alone", &qwen3_moe, 0, false},
    {"oracle-qwen3_moe-dualpipev", &qwen3_moe, 1, false},
    {"oracle-qwen3_moe-dualpipev-dp2", &qwen3_moe, 2, false},
    {"oracle-qwen3_moe-dualpipev-dp2ep", &qwen3_moe, 2, true},
    {"oracle-gpt2-dualpipev-cp2", &gpt2, 1, .parts = 2},
    {"oracle-qwen3_moe-dualpipev-cp2", &qwen3_moe, 1, .parts = 2},
    {"oracle-qwen3_moe-dualpipev-dp2-cp2", &qwen3_moe, 2, .parts = 2},
    {"oracle-gpt2-tensor", &gpt2, 0, .tensor = true},
    {"oracle-qwen3_moe-tensor", &qwen3_moe, 0, .tensor = true},
};

const char *oracle_name(uint32_t i)
{
    return units[i].name;
}

static bool write_script(const tool *t, uint32_t i, const char *name, reason *why)
{
    char path[512];
    uint32_t n_ranks = units[i].replicas * (units[i].parts > 0 ? units[i].parts : 1);
    FILE *file = fopen(run_path(t, name, path), "w");
    if (!file)
        return fail(why, "cannot write %s", path);
    fputs(units[i].model->train, file);
    if (units[i].tensor)
        fputs("place {} on [0, 1]\nshard {TP: *} on [0, 1] as tensor sequence true\n", file);
    if (units[i].replicas > 0) {
        fprintf(file,
                "from \"schedules\" import dualpipev, v_stages\n"
                "let pp, dp, ep, cp = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\"), "
                "stream(\"cp\")]\n"
                "let at = v_stages(2, dp=%u)\n"
                "for s in 0..4 {\n  place {PP: s} on at[s] stream pp\n",
                n_ranks);
        if (units[i].parts > 0)
            fprintf(file,
                    "  shard {PP: s} on [at[s][r * %u:r * %u + %u] for r in 0..%u] as sequence "
                    "stream cp\n",
                    units[i].parts, units[i].parts, units[i].parts, units[i].replicas);
        if (n_ranks > 1)
            fputs("  replicate {PP: s} on at[s] reduce dp\n", file);
        if (units[i].experts)
            fputs("  shard {PP: s, EP: *} on at[s] stream ep\n", file);
        fputs("}\nsplit {} by MB into 4\norder dualpipev(2, 4)\n", file);
    }
    return fclose(file) == 0 || fail(why, "cannot write %s", path);
}

/* The folder's file beside the scripts, which name it. False: it is not there. */
static bool link_file(const suite *s, const char *name)
{
    char from[512], to[512];
    snprintf(from, sizeof from, "%s/%s", s->oracles, name);
    run_path(&s->tool, name, to);
    return access(from, R_OK) == 0 && (access(to, R_OK) == 0 || symlink(from, to) == 0);
}

static bool check_losses(const training *tr, const json_t *oracle, reason *why)
{
    const json_t *losses = json_object_get(oracle, "losses");
    for (uint32_t i = 0; i < tr->n_steps; i++) {
        double want = json_number_value(json_array_get(losses, i));
        if (!(fabs(tr->loss[i] - want) <= tolerance * want))
            return fail(why, "the loss of step %u is %.9g instead of %.9g", i + 1, tr->loss[i],
                        want);
    }
    return true;
}

static bool check_norms(const tool *t, const char *gradients_name, const json_t *oracle,
                        reason *why)
{
    char path[512];
    tensor_file gradients;
    double worst;
    if (!tensors_read(run_path(t, gradients_name, path), &gradients, why))
        return false;
    bool ok = norms_near(&gradients, json_object_get(oracle, "step1_gradient_l2"), tolerance,
                         &worst, why);
    tensors_done(&gradients);
    return ok;
}

/* Experts 0 to 3 are rank 0's, 4 to 7 rank 2's, and the two have equally many tokens. What rank 0
 * computes in layer 0 is what it kept, (all it routed) - (sent to rank 2), and what rank 2 sent. */
static bool check_expert_rows(const tool *t, const char *script, const char *trace_name,
                              const json_t *oracle, reason *why)
{
    const json_t *tokens = json_object_get(oracle, "step1_layer0_tokens_per_expert");
    int64_t want = 0, width = 48 * (int64_t)sizeof(float), routed = 4 * 32 * 2, sent[4] = {0};
    char path[512];
    training tr = {0};
    trace tc = {0};
    for (size_t e = 0; e < 4; e++)
        want += json_integer_value(json_array_get(tokens, e));
    bool ok = run_training(t, &(train_request){.script = script, .steps = 1, .flags = TRAIN_TRACE},
                           &tr, why) &&
              trace_read(run_path(t, trace_name, path), &tc, why);
    for (uint32_t i = 0; ok && i < tc.n; i++) {
        const trace_event *e = &tc.events[i];
        if (strcmp(e->kind, "all_to_all") == 0 && strcmp(e->pass, "F") == 0 && e->stage == 0 &&
            !strstr(e->label, " back "))
            sent[e->rank % 4] += (int64_t)e->bytes;
    }
    int64_t rows = routed + (sent[2] - sent[0]) / width;
    if (ok && (json_array_size(tokens) != 8 || sent[0] == 0 || rows != want))
        ok = fail(why, "rank 0 computes %lld rows in layer 0 instead of %lld", (long long)rows,
                  (long long)want);
    training_done(&tr);
    trace_done(&tc);
    return ok;
}

void oracle_run(suite *s, uint32_t i)
{
    const tool *t = &s->tool;
    const char *unit = units[i].name;
    char json_name[64], path[512], script[80], gradients[80], trace_name[80], cause[600];
    json_error_t error;
    reason why = {""};
    training tr = {0};
    snprintf(json_name, sizeof json_name, "%s.json", units[i].model->oracle);
    snprintf(script, sizeof script, "%s.pps", unit);
    snprintf(gradients, sizeof gradients, "%s.gradients", unit);
    snprintf(trace_name, sizeof trace_name, "%s.trace", unit);
    if (!link_file(s, json_name) || !link_file(s, units[i].model->weights) ||
        !link_file(s, "gpt2_tiny_tokens.bin")) {
        snprintf(cause, sizeof cause, "no %s in %s", json_name, s->oracles);
        report_skip(&s->report, unit, cause);
        return;
    }
    json_t *oracle = json_load_file(run_path(t, json_name, path), 0, &error);
    uint32_t steps = (uint32_t)json_array_size(json_object_get(oracle, "losses"));
    train_request request = {.script = script, .steps = steps, .flags = TRAIN_GRADIENTS};
    bool ok = steps > 0 || fail(&why, "%s has no losses", json_name);
    ok = ok && write_script(t, i, script, &why) && run_training(t, &request, &tr, &why);
    report_check(&s->report, unit, "losses", ok && check_losses(&tr, oracle, &why), &why);
    report_check(&s->report, unit, "gradient norms of step 1",
                 ok && check_norms(t, gradients, oracle, &why), &why);
    if (units[i].experts)
        report_check(&s->report, unit, "tokens per expert",
                     ok && check_expert_rows(t, script, trace_name, oracle, &why), &why);
    training_done(&tr);
    json_decref(oracle);
}
