/* SPDX-License-Identifier: Apache-2.0
 *
 * test_diag.c: the layout of diagnostics, their order and number, holding them back, did-you-mean.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include "front_state.h"
#include "lang/diag.h"

static const char two[] = "\n\n\n\n\n\n\nfor s in 0..2 {\n"
                          "  place {PPP: s} on devices[s] stream pp\n}\n";
static const char moe[] = "\n\n\n\n\n    annotate PP as stage {\n";

static uint32_t add(front_state *f, const char *name, const char *source)
{
    uint32_t file = 0;
    assert_int_equal(source_add(&f->st, name, source, strlen(source), &file), PPS_OK);
    return file;
}

/* The place of the first `word` in `source`. */
static pps_span find(uint32_t file, const char *source, const char *word)
{
    uint32_t begin = (uint32_t)(strstr(source, word) - source);
    return (pps_span){file, begin, begin + (uint32_t)strlen(word)};
}

static void full_layout(void **state)
{
    (void)state;
    front_state f;
    assert_true(front_open(&f, 0));
    uint32_t a = add(&f, "two.pps", two), b = add(&f, "models/moe.pps", moe);
    pps_diag *d = pps_diag_start(&f.st, PPS_SEV_ERROR, 203, find(a, two, "PPP"),
                                 "model '%s' has no tag '%s'", "moe", "PPP");
    pps_diag_label(d, "unknown tag");
    pps_span tag = find(b, moe, "PP");
    pps_diag_also(d, tag, "tags of this model: %s, %s", "PP", "EP");
    pps_diag_help(d, "did you mean '%s'?", "PP");
    pps_diag_help(d, "never more than one");
    pps_frame frames[] = {{NULL, find(a, two, "for")}};
    pps_diag_frames(d, frames, 1, "s = 0");
    assert_int_equal(pps_diag_done(d), PPS_ERR_SCRIPT);
    assert_string_equal(f.shown, "error[E0203]: model 'moe' has no tag 'PPP'\n"
                                 "  --> two.pps:9:10\n"
                                 "   |\n"
                                 " 9 |   place {PPP: s} on devices[s] stream pp\n"
                                 "   |          ^^^ unknown tag\n"
                                 "   |\n"
                                 "  ::: models/moe.pps:6:14\n"
                                 " 6 |     annotate PP as stage {\n"
                                 "   |              -- tags of this model: PP, EP\n"
                                 "   = help: did you mean 'PP'?\n"
                                 "   in loop at two.pps:8, s = 0\n");
    front_close(&f);
}

static void lines_of_one_file_are_in_order(void **state)
{
    (void)state;
    static const char source[] = "place a\nlet b = 1\nlet c = 2\nplace a\n";
    front_state f;
    assert_true(front_open(&f, 0));
    uint32_t file = add(&f, "t.pps", source);
    pps_diag *d =
        pps_diag_start(&f.st, PPS_SEV_ERROR, 402, (pps_span){file, 28, 35}, "placed twice");
    pps_diag_also(d, (pps_span){file, 0, 7}, "first placed here");
    pps_diag_also(d, (pps_span){file, 34, 35}, "this");
    pps_diag_note(d, "two\nlines");
    pps_diag_done(d);
    assert_string_equal(f.shown, "error[E0402]: placed twice\n"
                                 "  --> t.pps:4:1\n"
                                 "   |\n"
                                 " 1 | place a\n"
                                 "   | ------- first placed here\n"
                                 "...\n"
                                 " 4 | place a\n"
                                 "   | ^^^^^^^\n"
                                 "   |       - this\n"
                                 "   = note: two\n"
                                 "           lines\n");
    front_close(&f);
}

static void without_a_place(void **state)
{
    (void)state;
    front_state f;
    assert_true(front_open(&f, 0));
    pps_span nowhere = {0, 0, 0};
    pps_diag *d = pps_diag_start(&f.st, PPS_SEV_WARNING, 0, nowhere, "no data given");
    pps_diag_also(d, nowhere, "an also without a place is a note");
    assert_int_equal(pps_diag_done(d), PPS_OK);
    assert_string_equal(f.shown, "warning: no data given\n"
                                 "   = note: an also without a place is a note\n");
    assert_int_equal(pps_error_count(&f.st), 0);
    front_close(&f);
}

static void odd_text_is_shown_safely(void **state)
{
    (void)state;
    static const char source[] = "\t\xe6\x97\xa5\xe6\x9c\xac x\x1b[31m\xff  \r\n";
    front_state f;
    assert_true(front_open(&f, 0));
    uint32_t file = add(&f, "t.pps", source);
    pps_error(&f.st, (pps_span){file, 8, 9}, 16, "here");
    assert_string_equal(f.shown, "error[E0016]: here\n"
                                 "  --> t.pps:1:5\n"
                                 "   |\n"
                                 " 1 |  \xe6\x97\xa5\xe6\x9c\xac x?[31m?\n"
                                 "   |       ^\n");
    front_close(&f);
}

static void long_lines_are_cut(void **state)
{
    (void)state;
    static char source[100001];
    front_state f;
    memset(source, 'a', sizeof source - 1);
    assert_true(front_open(&f, 0));
    uint32_t file = add(&f, "t.pps", source);
    pps_error(&f.st, (pps_span){file, 50000, 90000}, 16, "here");
    assert_true(f.n_shown < 600);
    assert_non_null(strstr(f.shown, "t.pps:1:50001"));
    assert_non_null(strstr(f.shown, " 1 | ...aaa"));
    assert_non_null(strstr(f.shown, "aaa...\n"));
    front_close(&f);
}

static void batches_are_sorted_and_capped(void **state)
{
    (void)state;
    char source[200];
    front_state f;
    memset(source, '\n', sizeof source);
    source[sizeof source - 1] = '\0';
    assert_true(front_open(&f, 0));
    f.st.config.max_errors = 3;
    uint32_t file = add(&f, "t.pps", source);
    diag_batch(&f.st);
    diag_batch(&f.st);
    for (uint32_t i = 100; i > 90; i--) {
        pps_error(&f.st, (pps_span){file, i, i}, 16, "at %u", i);
        pps_error(&f.st, (pps_span){file, i, i}, 16, "at %u", i); /* said once */
    }
    diag_flush(&f.st);
    assert_int_equal(f.n_calls, 0);
    diag_flush(&f.st);
    assert_int_equal(f.n_calls, 4);
    assert_int_equal(pps_error_count(&f.st), 10);
    const char *first = strstr(f.shown, "at 91\n"), *third = strstr(f.shown, "at 93\n");
    assert_true(first != NULL && third != NULL && first < third);
    assert_null(strstr(f.shown, "at 94\n"));
    assert_non_null(strstr(f.shown, "... and 7 more errors\n"));
    pps_clear_errors(&f.st);
    assert_int_equal(pps_error_count(&f.st), 0);
    for (int i = 0; i < 10; i++)
        pps_error(&f.st, (pps_span){file, 1, 1}, 16, "at once");
    assert_int_equal(f.n_calls, 8); /* three, and that there are more */
    assert_non_null(strstr(f.shown, "further errors are not shown"));
    front_close(&f);
}

static void held_ones_are_dropped_or_reported(void **state)
{
    (void)state;
    front_state f;
    pps_span nowhere = {0, 0, 0};
    assert_true(front_open(&f, 0));
    assert_int_equal(diag_hold(&f.st), PPS_OK);
    pps_error(&f.st, nowhere, 314, "outer");
    assert_int_equal(diag_hold(&f.st), PPS_OK);
    pps_error(&f.st, nowhere, 314, "inner %d", 1);
    pps_error(&f.st, nowhere, 314, "inner 2");
    assert_string_equal(diag_release(&f.st), "inner 1");
    assert_int_equal(diag_hold(&f.st), PPS_OK);
    assert_string_equal(diag_release(&f.st), "");
    assert_int_equal(diag_hold(&f.st), PPS_OK);
    pps_error(&f.st, nowhere, 802, "limit");
    diag_release_reported(&f.st); /* still held by the outer one */
    assert_int_equal(f.n_calls, 0);
    assert_int_equal(pps_error_count(&f.st), 0);
    diag_release_reported(&f.st);
    assert_string_equal(f.shown, "error[E0314]: outer\nerror[E0802]: limit\n");
    assert_int_equal(pps_error_count(&f.st), 2);
    front_close(&f);
}

static void many_frames_are_shortened(void **state)
{
    (void)state;
    static const char source[] = "fn f(n) => f(n + 1)\nf(0)\n";
    front_state f;
    pps_frame frames[1000];
    assert_true(front_open(&f, 0));
    uint32_t file = add(&f, "t.pps", source);
    for (int i = 0; i < 1000; i++)
        frames[i] = (pps_frame){"f", {file, i == 999 ? 20 : 11, 24}};
    pps_diag *d = pps_diag_start(&f.st, PPS_SEV_ERROR, 801, frames[0].call, "too deep");
    pps_diag_frames(d, frames, 1000, "n = 1000");
    pps_diag_done(d);
    const char *calls = strstr(f.shown, "   with");
    assert_non_null(calls);
    assert_string_equal(calls, "   with n = 1000\n"
                               "   in f, called at t.pps:1\n"
                               "   in f, called at t.pps:1\n"
                               "   in f, called at t.pps:1\n"
                               "   ... 995 more calls of f\n"
                               "   in f, called at t.pps:1\n"
                               "   in f, called at t.pps:2\n");
    front_close(&f);
}

static void color_surrounds_and_ends(void **state)
{
    (void)state;
    front_state f;
    assert_true(front_open(&f, 0));
    f.st.config.color = true;
    uint32_t file = add(&f, "t.pps", "let\n");
    pps_error(&f.st, (pps_span){file, 0, 3}, 16, "here");
    assert_non_null(strstr(f.shown, "\033[1;31merror[E0016]\033[0m"));
    assert_non_null(strstr(f.shown, "\033[1;31m^^^\033[0m\n"));
    front_close(&f);
}

static void every_failed_allocation_degrades(void **state)
{
    (void)state;
    for (size_t fail_at = 1; fail_at < 40; fail_at++) {
        front_state f;
        uint32_t file;
        if (front_open(&f, fail_at) &&
            source_add(&f.st, "two.pps", two, sizeof two - 1, &file) == PPS_OK) {
            char big[6000];
            memset(big, 'b', sizeof big - 1);
            big[sizeof big - 1] = '\0';
            diag_batch(&f.st);
            for (int i = 0; i < 4; i++) {
                pps_diag *d = pps_diag_start(&f.st, PPS_SEV_ERROR, 203, find(file, two, "PPP"),
                                             "title %d %s", i, big);
                pps_diag_label(d, "label");
                pps_diag_also(d, find(file, two, "for"), "also %s", big);
                pps_diag_note(d, "note %s", big);
                pps_diag_help(d, "help");
                assert_int_equal(pps_diag_done(d), PPS_ERR_SCRIPT);
            }
            diag_flush(&f.st);
            assert_int_equal(f.n_calls, 4);
            assert_int_equal(pps_error_count(&f.st), 4);
        }
        front_close(&f);
    }
}

static void suggestions(void **state)
{
    (void)state;
    static const char *const names[] = {"stream", "xs", "moe", "one_f_one_b", "dp", "PP"};
    static const struct {
        const char *typed, *meant;
    } rows[] = {
        {"strem", "stream"}, {"strema", "stream"},         {"STREAM", "stream"}, {"x", "xs"},
        {"PPP", "PP"},       {"one_f_one", "one_f_one_b"}, {"pp", "PP"},         {"zzz", NULL},
        {"y", NULL},         {"streamstream", NULL},       {"", NULL},           {"mno", NULL},
        {"meo", "moe"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *got = pps_did_you_mean(rows[i].typed, names, 6);
        if (rows[i].meant == NULL)
            assert_null(got);
        else
            assert_string_equal(got, rows[i].meant);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_layout),
        cmocka_unit_test(lines_of_one_file_are_in_order),
        cmocka_unit_test(without_a_place),
        cmocka_unit_test(odd_text_is_shown_safely),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(batches_are_sorted_and_capped),
        cmocka_unit_test(held_ones_are_dropped_or_reported),
        cmocka_unit_test(many_frames_are_shortened),
        cmocka_unit_test(color_surrounds_and_ends),
        cmocka_unit_test(every_failed_allocation_degrades),
        cmocka_unit_test(suggestions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
