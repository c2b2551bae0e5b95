/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.c: without experts nothing about a step depends on the data, so a rank uses exactly the
 * bytes that were planned. A small Llama under each schedule, on two pipeline ranks.
 */
#include <string.h>

#include "parity.h"

static bool write_script(const tool *t, const char *schedule, const char *stages, uint32_t n_stages,
                         reason *why)
{
    char path[512];
    FILE *file = fopen(run_path(t, "memory.pps", path), "w");
    if (!file)
        return fail(why, "cannot write %s", path);
    fprintf(file,
            "from \"models/llama\" import llama\n"
            "from \"schedules\" import %s, loop_stages, v_stages\n"
            "let pp, dp = [stream(\"pp\"), stream(\"dp\")]\n"
            "train llama(tokens(16, 16), targets(), stages=%u, layers=4, dim=32, heads=2, "
            "kv_heads=1, hidden=48, vocab=64) optimizer adamw(lr=1e-3)\n"
            "let at = %s\n"
            "for s in 0..%u {\n"
            "  place {PP: s} on at[s] stream pp\n"
            "  replicate {PP: s} on at[s] reduce dp\n"
            "}\n"
            "split {} by MB into 4\n"
            "order %s(2, 4)\n",
            schedule, n_stages, stages, n_stages, schedule);
    return fclose(file) == 0 || fail(why, "cannot write %s", path);
}

/* Measured are the bytes up to the last one that changed; buffers are planned in steps of 64. */
static bool compare(const training *tr, reason *why)
{
    const json_t *measured = json_object_get(tr->done, "peak_bytes");
    const json_t *planned = json_object_get(tr->done, "planned_bytes");
    for (size_t i = 0; i < 4; i++) {
        json_int_t a = json_integer_value(json_array_get(measured, i));
        json_int_t b = json_integer_value(json_array_get(planned, i));
        if (a <= 0 || (a + 63) / 64 * 64 != b)
            return fail(why, "rank %zu used %lld bytes, planned are %lld", i, (long long)a,
                        (long long)b);
    }
    return true;
}

void memory_run(suite *s, const char *unit)
{
    static const struct {
        const char *name, *stages;
        uint32_t n_stages;
    } schedules[] = {
        {"gpipe", "loop_stages(2, dp=2)", 2},
        {"one_f_one_b", "loop_stages(2, dp=2)", 2},
        {"interleaved_1f1b", "loop_stages(2, v=2, dp=2)", 4},
        {"zerobubble", "loop_stages(2, dp=2)", 2},
        {"dualpipev", "v_stages(2, dp=2)", 4},
    };
    for (size_t i = 0; i < sizeof schedules / sizeof *schedules; i++) {
        training tr = {0};
        reason why;
        bool ok = write_script(&s->tool, schedules[i].name, schedules[i].stages,
                               schedules[i].n_stages, &why) &&
                  run_training(&s->tool, &(train_request){.script = "memory.pps", .steps = 3}, &tr,
                               &why) &&
                  compare(&tr, &why);
        report_check(&s->report, unit, schedules[i].name, ok, &why);
        training_done(&tr);
    }
}
