/* SPDX-License-Identifier: Apache-2.0
 *
 * test_view.c: the terminal grid to the character, and SVG and trace JSON for form and content.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "runtime/view/view.h"
#include "row_builder.h"

typedef struct buffer {
    char *bytes;
    size_t n, cap;
} buffer;

static void collect(void *ud, const char *text, size_t n)
{
    buffer *b = ud;
    if (b->n + n + 1 > b->cap) {
        b->cap = 2 * (b->n + n + 1);
        b->bytes = realloc(b->bytes, b->cap);
        assert_non_null(b->bytes);
    }
    memcpy(b->bytes + b->n, text, n);
    b->n += n;
    b->bytes[b->n] = '\0';
}

static view_timeline *dualpipev_2_4(void)
{
    ir_program p = {0};
    view_timeline *t = NULL;
    rows_dualpipev(&p, 2, 4);
    assert_int_equal(view_from_rows(&p, &t), PPS_OK);
    rows_done(&p);
    return t;
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part))
        n++;
    return n;
}

static void grid_of_dualpipev(void **state)
{
    (void)state;
    view_timeline *t = dualpipev_2_4();
    buffer b = {0};
    view_grid(t, false, 0, collect, &b);
    assert_string_equal(
        b.bytes,
        "rank 0 (0,3)  F0 F1  F2 F0' I0' W0' F1'    F3+B1' F2'+B0 B2' F3'+B1 B3' I2 W2  I3 W3\n"
        "rank 1 (1,2)  F0 F0' F1 F1' F2  B0' F2'+B0 F3+B1' F3'+B1 B2' B2     I3' I3 W3' W3\n"
        "bubble 7.7 %   makespan 13   peak live activations 2.5, 2.5     (per rank share: F=1 BI=1 "
        "BW=1 "
        "B=2, communication free; bubble makespan, release W, pairs atomic)\n");
    free(b.bytes);
    view_timeline_free(t);
}

static void grid_in_colour(void **state)
{
    (void)state;
    view_timeline *t = dualpipev_2_4();
    buffer b = {0};
    view_grid(t, true, 0, collect, &b);
    assert_non_null(strstr(b.bytes, "\033[34mF0\033[0m \033[34mF1\033[0m"));
    assert_non_null(strstr(b.bytes, "\033[1;34mF3\033[0m\033[1m+\033[0m\033[1;32mB1'\033[0m"));
    assert_non_null(strstr(b.bytes, "\033[36mI2\033[0m \033[33mW2\033[0m  "));
    free(b.bytes);
    view_timeline_free(t);
}

static void grid_is_cut_at_the_width(void **state)
{
    (void)state;
    view_timeline *t = dualpipev_2_4();
    buffer whole = {0};
    view_grid(t, false, 0, collect, &whole);
    const size_t full[2] = {strcspn(whole.bytes, "\n"),
                            strcspn(strchr(whole.bytes, '\n') + 1, "\n")};
    free(whole.bytes);
    for (uint32_t columns = 30; columns < 100; columns++) {
        buffer b = {0};
        view_grid(t, false, columns, collect, &b);
        char *line = b.bytes;
        for (int i = 0; i < 2; i++) {
            char *end = strchr(line, '\n');
            assert_true((size_t)(end - line) <= columns);
            assert_int_equal(strncmp(end - 4, " ...", 4) != 0, columns >= full[i]);
            line = end + 1;
        }
        free(b.bytes);
    }
    view_timeline_free(t);
}

static void later_stages_have_primes(void **state)
{
    (void)state;
    ir_program p = {0};
    view_timeline *t = NULL;
    rows_parse(&p, "F0:0 F1:0 F2:0 F3:0 F4:0 F5:0");
    assert_int_equal(view_from_rows(&p, &t), PPS_OK);
    buffer b = {0};
    view_grid(t, false, 0, collect, &b);
    assert_non_null(strstr(b.bytes, "rank 0 (0,1,2,3,4,5)  F0 F0' F0'' F0''' F0'4 F0'5\n"));
    free(b.bytes);
    view_timeline_free(t);
    rows_done(&p);
}

static void deadlocked_rows_give_no_timeline(void **state)
{
    (void)state;
    ir_program p = {0};
    view_timeline *t = NULL;
    rows_parse(&p, "F0:0 B0:0 F0:1 B0:1\nF1:0 F1:1 B1:0 B1:1");
    assert_int_equal(view_from_rows(&p, &t), PPS_ERR_SCRIPT);
    assert_null(t);
    rows_done(&p);
}

/* Tags opened and closed in order, as a reader of XML needs. */
static void assert_balanced(const char *xml)
{
    char open[64][16];
    int depth = 0;
    for (const char *at = strchr(xml, '<'); at != NULL; at = strchr(at + 1, '<')) {
        const char *end = strchr(at, '>');
        assert_non_null(end);
        char name[16];
        if (at[1] == '/') {
            size_t n = (size_t)(end - at - 2);
            assert_true(depth > 0 && strlen(open[depth - 1]) == n);
            assert_memory_equal(open[--depth], at + 2, n);
        } else if (end[-1] != '/') {
            assert_int_equal(sscanf(at + 1, "%15[a-z]", name), 1);
            assert_true(depth < 64);
            strcpy(open[depth++], name);
        }
    }
    assert_int_equal(depth, 0);
}

static void svg_holds_every_op(void **state)
{
    (void)state;
    view_timeline *t = dualpipev_2_4();
    t->title = "rows <a> & \"b\"";
    buffer b = {0};
    view_svg(t, collect, &b);
    assert_balanced(b.bytes);
    assert_int_equal(count(b.bytes, "<rect class=\"b\""), t->n_spans);
    /* a frame for each pair, and one in the legend */
    assert_int_equal(count(b.bytes, "class=\"p\""), 6 + 1);
    assert_non_null(strstr(b.bytes, "rows &lt;a&gt; &amp; &quot;b&quot;"));
    assert_non_null(strstr(b.bytes, "bubble 7.7 %, makespan 13, at most 2.5 live activations"));
    assert_non_null(strstr(b.bytes, "pairs atomic"));
    assert_non_null(strstr(b.bytes, ">F3:0  1.5 to 2</title>"));
    const char *out = getenv("PPS_VIEW_SVG"); /* to look at it */
    if (out != NULL) {
        FILE *f = fopen(out, "w");
        assert_non_null(f);
        fputs(b.bytes, f);
        fclose(f);
    }
    free(b.bytes);
    view_timeline_free(t);
}

/* A measured timeline: two streams, nanoseconds, an all-to-all under a pair whose ops alternate. */
static view_timeline measured(view_span spans[8])
{
    static const char *const lanes[] = {"compute", "ep", "dp"};
    static const char *const names[] = {"rank 0 \"a\""};
    static const view_span s[8] = {
        {.begin = 0, .end = 1e6, .pass = PPS_PASS_F, .mb = 0, .pair = IR_NONE, .label = "F0:0"},
        {.begin = 1e6, .end = 2e6, .pass = PPS_PASS_F, .mb = 1, .pair = 3, .label = "F0:1"},
        {.lane = 1,
         .begin = 1.5e6,
         .end = 3e6,
         .kind = PLAN_ALL_TO_ALL,
         .pass = PPS_PASS_F,
         .mb = 1,
         .pair = 3,
         .label = "all_to_all F0:1",
         .bytes = 4096,
         .place = "a\\b.pps:3"},
        {.begin = 2e6, .end = 3e6, .pass = PPS_PASS_B, .mb = 0, .pair = 3, .label = "B0:0"},
        {.begin = 3e6, .end = 4e6, .pass = PPS_PASS_F, .mb = 1, .pair = 3, .label = "F0:1"},
        {.begin = 4e6, .end = 5e6, .pass = PPS_PASS_B, .mb = 0, .pair = 3, .label = "B0:0"},
        {.begin = 5e6, .end = 7e6, .pass = PPS_PASS_B, .mb = 1, .pair = IR_NONE, .label = "B0:1"},
        {.begin = 7e6,
         .end = 8e6,
         .kind = PLAN_UPDATE,
         .stage = IR_NONE,
         .mb = IR_NONE,
         .pair = IR_NONE,
         .label = "update bucket 0"},
    };
    memcpy(spans, s, sizeof s);
    return (view_timeline){.title = "run",
                           .unit = "ns",
                           .n_ranks = 1,
                           .n_lanes = 3,
                           .lanes = lanes,
                           .rank_names = names,
                           .spans = spans,
                           .n_spans = 8,
                           .makespan = 8e6};
}

static void measured_pictures(void **state)
{
    (void)state;
    view_span spans[8];
    view_timeline t = measured(spans);
    buffer b = {0};
    view_svg(&t, collect, &b);
    assert_balanced(b.bytes);
    assert_int_equal(count(b.bytes, "<rect class=\"b\""), 6);
    assert_int_equal(count(b.bytes, "class=\"p\""), 1 + 1);
    assert_non_null(strstr(b.bytes, "makespan 8 ms"));
    assert_non_null(strstr(b.bytes, "all_to_all F0:1  1.5 ms to 3 ms  4096 bytes  a\\b.pps:3"));
    b.n = 0;
    view_grid(&t, false, 0, collect, &b);
    assert_string_equal(b.bytes, "rank 0 \"a\"  F0 F1+B0+F1+B0 B1\nbubble 0.0 %   makespan 8 ms\n");
    free(b.bytes);
}

static void trace_is_json(void **state)
{
    (void)state;
    view_span spans[8];
    view_timeline t = measured(spans);
    buffer b = {0};
    view_perfetto(&t, 1, collect, &b);
    json_error_t error;
    json_t *root = json_loads(b.bytes, 0, &error);
    if (root == NULL)
        fail_msg("line %d: %s", error.line, error.text);
    json_t *events = json_object_get(root, "traceEvents"), *event;
    size_t i, n = 0, names = 0;
    json_array_foreach(events, i, event)
    {
        const char *phase = json_string_value(json_object_get(event, "ph"));
        names += strcmp(phase, "M") == 0;
        if (strcmp(phase, "X") != 0)
            continue;
        if (n++ != 2)
            continue;
        json_t *args = json_object_get(event, "args");
        assert_string_equal(json_string_value(json_object_get(event, "name")), "all_to_all F0:1");
        assert_int_equal(json_integer_value(json_object_get(event, "tid")), 1);
        assert_true(json_number_value(json_object_get(event, "ts")) == 1500);
        assert_true(json_number_value(json_object_get(event, "dur")) == 1500);
        assert_int_equal(json_integer_value(json_object_get(args, "bytes")), 4096);
        assert_string_equal(json_string_value(json_object_get(args, "place")), "a\\b.pps:3");
    }
    assert_int_equal(n, 8);
    assert_int_equal(names, 2 * (1 + 3) + 1); /* name and position of a rank and its lanes */
    json_decref(root);
    free(b.bytes);
}

static void empty_timelines(void **state)
{
    (void)state;
    ir_program p = {0};
    view_timeline *t = NULL;
    assert_int_equal(view_from_rows(&p, &t), PPS_OK);
    buffer b = {0};
    view_svg(t, collect, &b);
    assert_balanced(b.bytes);
    b.n = 0;
    view_perfetto(t, 1000, collect, &b);
    json_t *root = json_loads(b.bytes, 0, NULL);
    assert_non_null(root);
    json_decref(root);
    b.n = 0;
    view_grid(t, false, 0, collect, &b);
    free(b.bytes);
    view_timeline_free(t);
    view_timeline_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grid_of_dualpipev),
        cmocka_unit_test(grid_in_colour),
        cmocka_unit_test(grid_is_cut_at_the_width),
        cmocka_unit_test(later_stages_have_primes),
        cmocka_unit_test(deadlocked_rows_give_no_timeline),
        cmocka_unit_test(svg_holds_every_op),
        cmocka_unit_test(measured_pictures),
        cmocka_unit_test(trace_is_json),
        cmocka_unit_test(empty_timelines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
