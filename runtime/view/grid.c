/* SPDX-License-Identifier: Apache-2.0
 *
 * grid.c: a schedule in the terminal. Slots, not time: the n-th group of every rank stands in
 * column n, each column as wide as its widest group.
 */
#include "runtime/view/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ELLIPSIS_WIDTH = 4 };

static const char *const pass_colors[PPS_PASS_COUNT] = {
    [PPS_PASS_F] = "34", [PPS_PASS_B] = "32", [PPS_PASS_BI] = "36", [PPS_PASS_BW] = "33"};

typedef struct grid {
    const view_timeline *t;
    view_out out;
    bool color;
    uint32_t limit;   /* columns of text per row; 0: any */
    uint32_t *widths; /* of slot n, over all ranks */
} grid;

/* The end of the group (a pair, or one op) that begins at span i; skips what is not an op. */
static uint32_t slot_end(const view_timeline *t, uint32_t i, uint32_t end)
{
    uint32_t pair = t->spans[i].pair;
    i++;
    while (i < end && (!view_is_op(&t->spans[i]) || (pair != IR_NONE && t->spans[i].pair == pair)))
        i++;
    return i;
}

static uint32_t slot_width(const view_timeline *t, uint32_t begin, uint32_t end)
{
    uint32_t width = 0;
    for (uint32_t i = begin; i < end; i++) {
        char label[VIEW_LABEL_BYTES];
        if (view_is_op(&t->spans[i]))
            width += (uint32_t)view_op_label(&t->spans[i], label) + (width > 0 ? 1 : 0);
    }
    return width;
}

static uint32_t first_op(const view_timeline *t, uint32_t i, uint32_t end)
{
    while (i < end && !view_is_op(&t->spans[i]))
        i++;
    return i;
}

static pps_status measure(grid *g)
{
    const view_timeline *t = g->t;
    g->widths = calloc((size_t)t->n_spans + 1, sizeof *g->widths); /* no rank has more slots */
    if (g->widths == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t rank = 0, begin, end = 0; rank < t->n_ranks; rank++) {
        view_rank_range(t, rank, &begin, &end);
        uint32_t slot = 0;
        for (uint32_t i = first_op(t, begin, end); i < end; slot++) {
            uint32_t next = slot_end(t, i, end);
            uint32_t width = slot_width(t, i, next);
            if (width > g->widths[slot])
                g->widths[slot] = width;
            i = next;
        }
    }
    return PPS_OK;
}

/* Columns that the whole row takes after its name. */
static uint32_t row_width(const grid *g, uint32_t begin, uint32_t end)
{
    uint32_t width = 0, slot = 0, pad = 0;
    for (uint32_t i = first_op(g->t, begin, end); i < end; slot++) {
        uint32_t next = slot_end(g->t, i, end);
        uint32_t own = slot_width(g->t, i, next);
        width += pad + 1 + own;
        pad = g->widths[slot] - own;
        i = next;
    }
    return width;
}

static void print_slot(grid *g, uint32_t begin, uint32_t end)
{
    bool first = true;
    for (uint32_t i = begin; i < end; i++) {
        const view_span *s = &g->t->spans[i];
        if (!view_is_op(s))
            continue;
        char label[VIEW_LABEL_BYTES];
        view_op_label(s, label);
        const char *bold = s->pair != IR_NONE ? "1;" : "";
        if (!first)
            view_printf(&g->out, g->color ? "\033[1m+\033[0m" : "+");
        if (g->color)
            view_printf(&g->out, "\033[%s%sm%s\033[0m", bold,
                        s->pass < PPS_PASS_COUNT ? pass_colors[s->pass] : "0", label);
        else
            view_printf(&g->out, "%s", label);
        first = false;
    }
}

static void print_row(grid *g, const char *name, uint32_t name_width, uint32_t begin, uint32_t end)
{
    const view_timeline *t = g->t;
    view_printf(&g->out, "%-*s ", (int)name_width, name);
    uint32_t used = name_width + 1, slot = 0, pad = 0;
    bool whole = g->limit == 0 || used + row_width(g, begin, end) <= g->limit;
    for (uint32_t i = first_op(t, begin, end); i < end; slot++) {
        uint32_t next = slot_end(t, i, end);
        uint32_t width = slot_width(t, i, next);
        if (!whole && used + pad + 1 + width + ELLIPSIS_WIDTH > g->limit) {
            view_printf(&g->out, " ...");
            break;
        }
        view_printf(&g->out, "%*s", (int)(pad + 1), "");
        print_slot(g, i, next);
        used += pad + 1 + width;
        pad = g->widths[slot] - width;
        i = next;
    }
    view_printf(&g->out, "\n");
}

static void print_summary(const grid *g)
{
    const view_timeline *t = g->t;
    char number[VIEW_NUMBER_BYTES];
    view_printf(&g->out, "bubble %.1f %%   makespan %s", 100 * t->bubble,
                view_time(t, t->makespan, number));
    if (t->peak != NULL) {
        view_printf(&g->out, "   peak live activations ");
        for (uint32_t r = 0; r < t->n_ranks; r++)
            view_printf(&g->out, "%s%s", r > 0 ? ", " : "", view_number(t->peak[r], 4, number));
    }
    if (t->settings != NULL)
        view_printf(&g->out, "     (%s)", t->settings);
    view_printf(&g->out, "\n");
}

void view_grid(const view_timeline *t, bool color, uint32_t columns, ir_print_fn print, void *ud)
{
    grid g = {.t = t, .out = {print, ud}, .color = color, .limit = columns};
    if (measure(&g) != PPS_OK)
        return;
    uint32_t name_width = 0;
    for (uint32_t r = 0; r < t->n_ranks; r++)
        if (strlen(t->rank_names[r]) > name_width)
            name_width = (uint32_t)strlen(t->rank_names[r]);
    for (uint32_t rank = 0, begin, end = 0; rank < t->n_ranks; rank++) {
        view_rank_range(t, rank, &begin, &end);
        print_row(&g, t->rank_names[rank], name_width, begin, end);
    }
    print_summary(&g);
    free(g.widths);
}
