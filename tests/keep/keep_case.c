/* SPDX-License-Identifier: Apache-2.0
 *
 * keep_case.c: see keep_case.h.
 */
#include "keep_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const struct {
    const char *name, *devices, *rows;
    int stages;
} schedules[] = {
    {"gpipe", "loop_stages(4, 1, %d)", "gpipe(4, 8)", 4},
    {"1f1b", "loop_stages(4, 1, %d)", "one_f_one_b(4, 8)", 4},
    {"interleaved", "loop_stages(4, 2, %d)", "interleaved_1f1b(4, 8, 2)", 8},
    {"zerobubble", "loop_stages(4, 1, %d)", "zerobubble(4, 8)", 4},
    {"dualpipev", "v_stages(4, %d)", "dualpipev(4, 8)", 8},
};

/* Odd sizes: nothing but the plan's own alignment makes buffers end where others begin. */
static const char llama[] = "train llama(tokens(16, 7), targets(), stages=%d, layers=8, dim=12, "
                            "heads=2, kv_heads=1, hidden=11, vocab=31) optimizer sgd(lr=0.1)\n";
static const char moe[] = "train qwen3_moe(tokens(16, 7), targets(), stages=%d, layers=8, dim=12, "
                          "heads=2, kv_heads=1, head_dim=6, experts=4, top_k=2, expert_hidden=7, "
                          "vocab=31, aux_loss=0.01) optimizer sgd(lr=0.1)\n";

void keep_open(compiled *c, const keep_case *k)
{
    char script[4096], model[512], devices[64];
    size_t i = 0;
    while (strcmp(k->schedule, schedules[i].name) != 0)
        i++;
    snprintf(model, sizeof model, k->experts ? moe : llama, schedules[i].stages);
    snprintf(devices, sizeof devices, schedules[i].devices, k->clauses != NULL ? 2 : 1);
    int n = snprintf(script, sizeof script,
                     "from \"models/llama\" import llama\n"
                     "from \"models/qwen3_moe\" import qwen3_moe\n"
                     "from \"schedules\" import gpipe, one_f_one_b, interleaved_1f1b, zerobubble, "
                     "dualpipev, loop_stages, v_stages\n"
                     "%s"
                     "let devices = %s\n"
                     "let pp, dp, ep, h = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\"), "
                     "stream(\"h\")]\n"
                     "split {} by MB into 8\n"
                     "for s in 0..len(devices) {\n"
                     "  place {PP: s} on devices[s] stream pp\n",
                     model, devices);
    if (k->clauses != NULL)
        n += snprintf(script + n, sizeof script - (size_t)n,
                      "  replicate {PP: s} on devices[s] reduce dp %s\n", k->clauses);
    if (k->shared)
        n += snprintf(script + n, sizeof script - (size_t)n,
                      "  shard {PP: s, EP: *} on devices[s] stream ep\n");
    n += snprintf(script + n, sizeof script - (size_t)n, "}\n%s\norder %s\n", k->keep,
                  schedules[i].rows);
    assert_true((size_t)n < sizeof script);
    zero_compile(c, script);
    if (c->set == NULL)
        fail_msg("refused:\n%s\n%s", script, c->said);
}
