/* SPDX-License-Identifier: Apache-2.0
 *
 * perfetto.c: a timeline as Chrome trace-event JSON, which Perfetto and chrome://tracing open. A
 * rank is a process, a stream a thread; every span is a complete event ("X").
 */
#include "runtime/view/text.h"

/* Name and position of a process (`is_rank`) or of one of its threads. */
static void name_event(const view_out *o, bool is_rank, uint32_t rank, uint32_t lane,
                       const char *name)
{
    const char *what = is_rank ? "process" : "thread";
    view_printf(o, "{\"ph\":\"M\",\"name\":\"%s_name\",\"pid\":%u,\"tid\":%u,\"args\":{\"name\":\"",
                what, rank, lane);
    view_escape(o, VIEW_JSON, name);
    view_printf(o,
                "\"}},\n{\"ph\":\"M\",\"name\":\"%s_sort_index\",\"pid\":%u,\"tid\":%u,"
                "\"args\":{\"sort_index\":%u}},\n",
                what, rank, lane, is_rank ? rank : lane);
}

static void string_arg(const view_out *o, const char *key, const char *text)
{
    view_printf(o, ",\"%s\":\"", key);
    view_escape(o, VIEW_JSON, text);
    view_printf(o, "\"");
}

static void span_event(const view_out *o, const view_span *s, double us_per_unit)
{
    static const char *const passes[PPS_PASS_COUNT] = {
        [PPS_PASS_F] = "F", [PPS_PASS_B] = "B", [PPS_PASS_BI] = "BI", [PPS_PASS_BW] = "BW"};
    const char *kind = plan_step_name((plan_step_kind)s->kind);
    view_printf(o, "{\"ph\":\"X\",\"name\":\"");
    view_escape(o, VIEW_JSON, s->label ? s->label : kind);
    view_printf(o,
                "\",\"cat\":\"%s\",\"pid\":%u,\"tid\":%u,\"ts\":%.3f,\"dur\":%.3f,\"args\":{"
                "\"kind\":\"%s\"",
                kind, s->rank, s->lane, s->begin * us_per_unit, (s->end - s->begin) * us_per_unit,
                kind);
    if (s->pass < PPS_PASS_COUNT && s->mb != IR_NONE)
        view_printf(o, ",\"pass\":\"%s\",\"microbatch\":%u", passes[s->pass], s->mb);
    if (s->slice > 0)
        view_printf(o, ",\"slice\":%u", s->slice - 1);
    if (s->stage != IR_NONE)
        view_printf(o, ",\"stage\":%u", s->stage);
    if (s->pair != IR_NONE)
        view_printf(o, ",\"pair\":%u", s->pair);
    if (s->bytes > 0)
        view_printf(o, ",\"bytes\":%llu", (unsigned long long)s->bytes);
    if (s->place != NULL)
        string_arg(o, "place", s->place);
    view_printf(o, "}}");
}

void view_perfetto(const view_timeline *t, double unit_ns, ir_print_fn print, void *ud)
{
    view_out o = {print, ud};
    char number[VIEW_NUMBER_BYTES];
    view_printf(&o, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"bubble\":%.9g,\"makespan\":%s",
                t->bubble, view_number(t->makespan, 6, number));
    if (t->title != NULL)
        string_arg(&o, "title", t->title);
    if (t->unit != NULL)
        string_arg(&o, "unit", t->unit);
    if (t->settings != NULL)
        string_arg(&o, "settings", t->settings);
    view_printf(&o, "},\n\"traceEvents\":[\n");
    for (uint32_t r = 0; r < t->n_ranks; r++) {
        name_event(&o, true, r, 0, t->rank_names[r]);
        for (uint32_t l = 0; l < t->n_lanes; l++)
            name_event(&o, false, r, l, t->lanes[l]);
    }
    /* a last name event without a comma keeps the list valid when there are no spans */
    view_printf(&o, "{\"ph\":\"M\",\"name\":\"trace\",\"pid\":0,\"tid\":0,\"args\":{}}");
    for (uint32_t i = 0; i < t->n_spans; i++) {
        view_printf(&o, ",\n");
        span_event(&o, &t->spans[i], unit_ns / 1000);
    }
    view_printf(&o, "\n]}\n");
}
