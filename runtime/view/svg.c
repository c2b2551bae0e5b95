/* SPDX-License-Identifier: Apache-2.0
 *
 * svg.c: a timeline as one self-contained SVG.
 *
 *   title; bubble, makespan and peak; settings
 *   rank 0 | boxes: ops, as wide as they take; bubbles stay white
 *          | thin bars below: the other streams, where any were used
 *   rank 1 | ...
 *   time axis
 *   legend
 *
 * The hue says the pass, the shade the stage. Ops of an overlapped pair that have one interval are
 * drawn on top of each other; a pair has a bold frame.
 */
#include "runtime/view/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* pixels */
enum {
    MARGIN = 24,
    HEAD = 96,      /* above the first row */
    OP_HEIGHT = 36, /* lane 0 */
    LANE_HEIGHT = 9,
    LANE_GAP = 2,
    ROW_GAP = 12,
    AXIS = 40,
    LEGEND = 44,
    OP_WIDTH = 30, /* of the shortest op, where the whole stays under WIDTH_MOST */
    WIDTH_LEAST = 760,
    WIDTH_MOST = 12000,
    WIDTH_MEASURED = 2400, /* most for measured times, whose shortest op says little */
    TICK_WIDTH = 70,
    CHAR_WIDTH = 7,
};

typedef struct hue {
    double h, s, light, dark; /* degrees; saturation; lightness of the first and the last stage */
} hue;

static const hue pass_hues[PPS_PASS_COUNT] = {
    [PPS_PASS_F] = {213, 0.72, 0.74, 0.50},
    [PPS_PASS_B] = {142, 0.46, 0.70, 0.44},
    [PPS_PASS_BI] = {184, 0.56, 0.72, 0.45},
    [PPS_PASS_BW] = {45, 0.88, 0.72, 0.54},
};
static const char *const pass_words[PPS_PASS_COUNT] = {
    [PPS_PASS_F] = "F forward",
    [PPS_PASS_B] = "B backward",
    [PPS_PASS_BI] = "I backward, inputs (BI)",
    [PPS_PASS_BW] = "W backward, weights (BW)",
};
static const char *const kind_colors[PLAN_STEP_KIND_COUNT] = {
    [PLAN_COMPUTE] = "#8a97a5",    [PLAN_SEND] = "#b07cc6",   [PLAN_RECV] = "#7f5aa8",
    [PLAN_ALL_REDUCE] = "#d0655f", [PLAN_COUNTS] = "#e0a06a", [PLAN_ALL_TO_ALL] = "#d9822b", [PLAN_SHIFT] = "#b5a13a",
    [PLAN_UPDATE] = "#6b7785",     [PLAN_CLEAR] = "#a9b2bc",  [PLAN_REDUCE_SCATTER] = "#c2506b",
    [PLAN_ALL_GATHER] = "#4f9a8f", [PLAN_SUM] = "#5a7fc9",    [PLAN_SEQ_SCATTER] = "#7a6fd0",
    [PLAN_SEQ_GATHER] = "#4aa3c7", [PLAN_SEQ_TAKE] = "#9aa8b8", [PLAN_STATS] = "#8f7f5a",
    [PLAN_OFFLOAD] = "#5f83b0",    [PLAN_FETCH] = "#8fae5c",
};

typedef struct canvas {
    const view_timeline *t;
    view_out out;
    double left, width; /* of the time area */
    double per_unit;    /* pixels */
    uint32_t n_stages;
    double row_height;
    double *lane_y; /* [n_lanes] within a row; < 0: the lane is empty */
    double bottom;  /* of the last row */
    bool kinds[PLAN_STEP_KIND_COUNT], passes[PPS_PASS_COUNT], pairs;
} canvas;

/* ---- colours -------------------------------------------------------------------------------- */

static double hue_channel(double n, double h, double s, double l)
{
    double k = fmod(n + h / 30, 12);
    double a = s * fmin(l, 1 - l);
    return l - a * fmax(-1, fmin(fmin(k - 3, 9 - k), 1));
}

static double stage_shade(const canvas *c, uint32_t stage)
{
    return c->n_stages > 1 ? (double)stage / (c->n_stages - 1) : 0.35;
}

static void pass_color(uint8_t pass, double shade, char ret[8])
{
    hue h = pass_hues[pass < PPS_PASS_COUNT ? pass : 0];
    double l = h.light + (h.dark - h.light) * shade;
    snprintf(ret, 8, "#%02x%02x%02x", (unsigned)lround(255 * hue_channel(0, h.h, h.s, l)),
             (unsigned)lround(255 * hue_channel(8, h.h, h.s, l)),
             (unsigned)lround(255 * hue_channel(4, h.h, h.s, l)));
}

static bool wants_white_text(uint8_t pass, double shade)
{
    return (pass == PPS_PASS_F || pass == PPS_PASS_B) && shade > 0.6;
}

static double x_of(const canvas *c, double time)
{
    return c->left + time * c->per_unit;
}

/* ---- layout --------------------------------------------------------------------------------- */

static void survey(canvas *c)
{
    const view_timeline *t = c->t;
    double shortest = INFINITY;
    bool measured = t->unit != NULL && strcmp(t->unit, "ns") == 0;
    for (uint32_t l = 0; l < t->n_lanes; l++)
        c->lane_y[l] = -1;
    for (uint32_t i = 0; i < t->n_spans; i++) {
        const view_span *s = &t->spans[i];
        if (s->kind < PLAN_STEP_KIND_COUNT && !view_is_op(s))
            c->kinds[s->kind] = true;
        if (s->lane < t->n_lanes)
            c->lane_y[s->lane] = 0;
        if (!view_is_op(s))
            continue;
        if (s->pass < PPS_PASS_COUNT)
            c->passes[s->pass] = true;
        c->pairs |= s->pair != IR_NONE;
        if (s->stage != IR_NONE && s->stage + 1 > c->n_stages)
            c->n_stages = s->stage + 1;
        if (s->end > s->begin && s->end - s->begin < shortest)
            shortest = s->end - s->begin;
    }
    double y = OP_HEIGHT;
    for (uint32_t l = 1; l < t->n_lanes; l++)
        if (c->lane_y[l] >= 0) {
            c->lane_y[l] = y + LANE_GAP;
            y += LANE_GAP + LANE_HEIGHT;
        }
    c->row_height = y;
    c->bottom = HEAD + t->n_ranks * (c->row_height + ROW_GAP) - ROW_GAP;

    size_t name = 0;
    for (uint32_t r = 0; r < t->n_ranks; r++)
        if (strlen(t->rank_names[r]) > name)
            name = strlen(t->rank_names[r]);
    c->left = MARGIN + (double)name * CHAR_WIDTH + 14;
    c->width = isinf(shortest) ? WIDTH_LEAST : OP_WIDTH * t->makespan / shortest;
    c->width = fmax(WIDTH_LEAST, fmin(c->width, measured ? WIDTH_MEASURED : WIDTH_MOST));
    c->per_unit = t->makespan > 0 ? c->width / t->makespan : 0;
}

static void draw_head(const canvas *c, double width, double height)
{
    const view_timeline *t = c->t;
    const view_out *o = &c->out;
    char number[VIEW_NUMBER_BYTES];
    view_printf(o,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
                "viewBox=\"0 0 %.0f %.0f\" role=\"img\">\n<title>",
                width, height, width, height);
    view_escape(o, VIEW_XML, t->title ? t->title : "schedule");
    view_printf(o,
                "</title>\n<style>"
                "text{font:12px Inter,Helvetica,Arial,sans-serif;fill:#1d2733}"
                ".h{font-size:17px;font-weight:600}.s{fill:#5b6773}.r{text-anchor:end}"
                ".o{text-anchor:middle;font-weight:500;pointer-events:none}.m{text-anchor:middle}"
                ".w{fill:#fff}.n{font-size:10px}.p{fill:none;stroke:#16202b;stroke-width:2}"
                ".b{stroke:#fff;stroke-width:.8}</style>\n"
                "<rect width=\"100%%\" height=\"100%%\" fill=\"#f3f5f8\"/>\n");
    view_printf(o, "<text class=\"h\" x=\"%d\" y=\"%d\">", MARGIN, 32);
    view_escape(o, VIEW_XML, t->title ? t->title : "schedule");
    view_printf(o, "</text>\n<text class=\"s\" x=\"%d\" y=\"%d\">bubble %.1f %%, makespan %s",
                MARGIN, 54, 100 * t->bubble, view_time(t, t->makespan, number));
    double most = 0;
    for (uint32_t r = 0; t->peak != NULL && r < t->n_ranks; r++)
        most = fmax(most, t->peak[r]);
    if (t->peak != NULL)
        view_printf(o, ", at most %s live activations on a rank", view_number(most, 4, number));
    view_printf(o, "</text>\n<text class=\"s\" x=\"%d\" y=\"%d\">", MARGIN, 74);
    if (t->settings != NULL)
        view_escape(o, VIEW_XML, t->settings);
    view_printf(o, "</text>\n");
}

/* A step near `least` of the form 1, 2 or 5 times a power of ten. */
static double nice_step(double least)
{
    double power = pow(10, floor(log10(least)));
    double m = least / power;
    return power * (m <= 1 ? 1 : m <= 2 ? 2 : m <= 5 ? 5 : 10);
}

static void draw_rows(const canvas *c)
{
    const view_timeline *t = c->t;
    for (uint32_t r = 0; r < t->n_ranks; r++) {
        double y = HEAD + r * (c->row_height + ROW_GAP);
        view_printf(&c->out,
                    "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"#fff\"/>\n",
                    c->left, y, c->width, c->row_height);
        view_printf(&c->out, "<text class=\"r\" x=\"%.1f\" y=\"%.1f\">", c->left - 10,
                    y + OP_HEIGHT / 2.0 + 4);
        view_escape(&c->out, VIEW_XML, t->rank_names[r]);
        view_printf(&c->out, "</text>\n");
    }
}

static void draw_axis(const canvas *c)
{
    const view_timeline *t = c->t;
    double y = c->bottom + 6;
    view_printf(
        &c->out,
        "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#8a97a5\" stroke-width=\"1\" fill=\"none\"/>\n",
        c->left, y, c->left + c->width);
    if (c->per_unit <= 0)
        return;
    double step = nice_step(TICK_WIDTH / c->per_unit);
    for (uint32_t i = 0; i * step <= t->makespan * (1 + 1e-12); i++) {
        char number[VIEW_NUMBER_BYTES];
        double x = x_of(c, i * step);
        view_printf(&c->out,
                    "<path d=\"M%.1f %.1fv4\" stroke=\"#8a97a5\"/><text class=\"m s\" x=\"%.1f\" "
                    "y=\"%.1f\">%s</text>\n",
                    x, y, x, y + 18, view_time(t, i * step, number));
    }
    if (t->unit != NULL && strcmp(t->unit, "ns") != 0) {
        view_printf(&c->out, "<text class=\"r s\" x=\"%.1f\" y=\"%.1f\">", c->left - 10, y + 18);
        view_escape(&c->out, VIEW_XML, t->unit);
        view_printf(&c->out, "</text>\n");
    }
}

/* ---- spans ---------------------------------------------------------------------------------- */

static void draw_tip(const canvas *c, const view_span *s)
{
    const view_out *o = &c->out;
    char a[VIEW_NUMBER_BYTES], b[VIEW_NUMBER_BYTES];
    view_printf(o, "<title>");
    view_escape(o, VIEW_XML, s->label ? s->label : plan_step_name((plan_step_kind)s->kind));
    view_printf(o, "  %s to %s", view_time(c->t, s->begin, a), view_time(c->t, s->end, b));
    if (s->bytes > 0)
        view_printf(o, "  %llu bytes", (unsigned long long)s->bytes);
    if (s->place != NULL) {
        view_printf(o, "  ");
        view_escape(o, VIEW_XML, s->place);
    }
    view_printf(o, "</title>");
}

static void draw_op(const canvas *c, const view_span *s, double y, double height)
{
    char color[8], label[VIEW_LABEL_BYTES];
    double shade = stage_shade(c, s->stage);
    double x = x_of(c, s->begin), width = fmax((s->end - s->begin) * c->per_unit, 0.5);
    pass_color(s->pass, shade, color);
    view_printf(
        &c->out,
        "<rect class=\"b\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" fill=\"%s\">", x, y,
        width, height, color);
    draw_tip(c, s);
    view_printf(&c->out, "</rect>");
    int n = view_op_label(s, label);
    bool small = n * CHAR_WIDTH + 4 > width;
    if (n * CHAR_WIDTH * 0.8 + 2 <= width)
        view_printf(&c->out, "<text class=\"o%s%s\" x=\"%.1f\" y=\"%.1f\">%s</text>",
                    wants_white_text(s->pass, shade) ? " w" : "", small ? " n" : "", x + width / 2,
                    y + height / 2 + 4, label);
    view_printf(&c->out, "\n");
}

static void draw_other(const canvas *c, const view_span *s, double row_y)
{
    if (s->lane >= c->t->n_lanes)
        return;
    double height = s->lane == 0 ? OP_HEIGHT : LANE_HEIGHT;
    view_printf(&c->out, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" fill=\"%s\">",
                x_of(c, s->begin), row_y + c->lane_y[s->lane],
                fmax((s->end - s->begin) * c->per_unit, 0.5), height,
                s->kind < PLAN_STEP_KIND_COUNT ? kind_colors[s->kind] : "#8a97a5");
    draw_tip(c, s);
    view_printf(&c->out, "</rect>\n");
}

/* Ops [i, end) that belong to span i's pair: returns how many, skipping other spans between them.
 */
static uint32_t pair_size(const view_timeline *t, uint32_t i, uint32_t end, bool *ret_stacked,
                          double *ret_end)
{
    uint32_t n = 0;
    bool stacked = true;
    double last = t->spans[i].end;
    for (uint32_t k = i; k < end; k++) {
        const view_span *s = &t->spans[k];
        if (!view_is_op(s))
            continue;
        if (s->pair == IR_NONE || s->pair != t->spans[i].pair)
            break;
        stacked &= s->begin == t->spans[i].begin;
        last = fmax(last, s->end);
        n++;
    }
    *ret_stacked = stacked && n > 1;
    *ret_end = last;
    return n;
}

static void draw_pair(const canvas *c, uint32_t i, uint32_t n, bool stacked, double last, double y)
{
    const view_timeline *t = c->t;
    double height = stacked ? (double)OP_HEIGHT / n : OP_HEIGHT;
    uint32_t drawn = 0;
    for (uint32_t k = i; drawn < n; k++)
        if (view_is_op(&t->spans[k])) {
            draw_op(c, &t->spans[k], stacked ? y + drawn * height : y, height);
            drawn++;
        }
    view_printf(&c->out,
                "<rect class=\"p\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\" rx=\"2\"/>\n",
                x_of(c, t->spans[i].begin) + 1, y + 1,
                fmax((last - t->spans[i].begin) * c->per_unit - 2, 0.5), OP_HEIGHT - 2);
}

static void draw_rank(const canvas *c, uint32_t rank, uint32_t begin, uint32_t end)
{
    const view_timeline *t = c->t;
    double y = HEAD + rank * (c->row_height + ROW_GAP);
    for (uint32_t i = begin; i < end; i++)
        if (!view_is_op(&t->spans[i]))
            draw_other(c, &t->spans[i], y);
    for (uint32_t i = begin; i < end; i++) {
        const view_span *s = &t->spans[i];
        if (!view_is_op(s))
            continue;
        if (s->pair == IR_NONE) {
            draw_op(c, s, y, OP_HEIGHT);
            continue;
        }
        bool stacked;
        double last;
        uint32_t n = pair_size(t, i, end, &stacked, &last);
        draw_pair(c, i, n, stacked, last, y);
        while (n > 0) /* step over the pair: its last op is where the loop goes on */
            n -= view_is_op(&t->spans[i++]);
        i--;
    }
}

/* ---- legend --------------------------------------------------------------------------------- */

static double legend_item(const canvas *c, double x, double y, const char *style, const char *word)
{
    view_printf(&c->out,
                "<rect x=\"%.1f\" y=\"%.1f\" width=\"16\" height=\"12\" rx=\"2\" %s/>"
                "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                x, y - 10, style, x + 22, y, word);
    return x + 22 + (double)strlen(word) * CHAR_WIDTH + 20;
}

static double legend_width(const canvas *c)
{
    double width = 2 * MARGIN + 320; /* pairs, bubbles, stages */
    for (uint32_t p = 0; p < PPS_PASS_COUNT; p++)
        width += c->passes[p] ? 42 + (double)strlen(pass_words[p]) * CHAR_WIDTH : 0;
    for (uint32_t k = 0; k < PLAN_STEP_KIND_COUNT; k++)
        width +=
            c->kinds[k] ? 42 + (double)strlen(plan_step_name((plan_step_kind)k)) * CHAR_WIDTH : 0;
    return width;
}

static void draw_legend(const canvas *c)
{
    double x = MARGIN, y = c->bottom + AXIS + 22;
    char style[80], color[8];
    for (uint32_t p = 0; p < PPS_PASS_COUNT; p++)
        if (c->passes[p]) {
            pass_color((uint8_t)p, 0.5, color);
            snprintf(style, sizeof style, "fill=\"%s\"", color);
            x = legend_item(c, x, y, style, pass_words[p]);
        }
    if (c->pairs)
        x = legend_item(c, x, y, "class=\"p\"", "overlapped");
    x = legend_item(c, x, y, "fill=\"#fff\" stroke=\"#c9d1d9\"", "bubble");
    for (uint32_t k = 0; k < PLAN_STEP_KIND_COUNT; k++)
        if (c->kinds[k]) {
            snprintf(style, sizeof style, "fill=\"%s\"", kind_colors[k]);
            x = legend_item(c, x, y, style, plan_step_name((plan_step_kind)k));
        }
    if (c->n_stages < 2)
        return;
    for (uint32_t i = 0; i < 6; i++) {
        pass_color(PPS_PASS_F, i / 5.0, color);
        view_printf(&c->out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"9\" height=\"12\" fill=\"%s\"/>",
                    x + 9 * i, y - 10, color);
    }
    view_printf(&c->out, "<text x=\"%.1f\" y=\"%.1f\">stage 0 to %u</text>\n", x + 62, y,
                c->n_stages - 1);
}

void view_svg(const view_timeline *t, ir_print_fn print, void *ud)
{
    canvas c = {.t = t, .out = {print, ud}};
    c.lane_y = calloc((size_t)t->n_lanes + 1, sizeof *c.lane_y);
    if (c.lane_y == NULL)
        return;
    survey(&c);
    double width = fmax(c.left + c.width + MARGIN, legend_width(&c));
    if (t->settings != NULL)
        width = fmax(width, 2 * MARGIN + (double)strlen(t->settings) * CHAR_WIDTH);
    draw_head(&c, width, c.bottom + AXIS + LEGEND);
    draw_rows(&c);
    draw_axis(&c);
    for (uint32_t rank = 0, begin, end = 0; rank < t->n_ranks; rank++) {
        view_rank_range(t, rank, &begin, &end);
        draw_rank(&c, rank, begin, end);
    }
    draw_legend(&c);
    view_printf(&c.out, "</svg>\n");
    free(c.lane_y);
}
