/* SPDX-License-Identifier: Apache-2.0
 *
 * compiled.c: see compiled.h.
 */
#include "compiled.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const compiled_scripts[] = {
    "model m() { annotate PP { return linear(features(4, 2, 3), 2, name=\"a\\\"b\") } }\n"
    "train mse(m(), features(4, 2, 2)) optimizer sgd(lr=0.1) seed 7\n",

    "from \"models/mlp\" import mlp\n"
    "from \"schedules\" import one_f_one_b\n"
    "let pp = stream(\"pp\")\n"
    "train mlp(tokens(24, 16), targets(), stages=2, layers=2, dim=16) "
    "data bytes([\"a.txt\", \"folder/b.txt\"]) weights \"w.safetensors\" optimizer adamw(lr=1e-3)\n"
    "for s in 0..2 { place {PP: s} on [s] stream pp }\n"
    "split {} by MB into 4\n"
    "order one_f_one_b(2, 4)\n",

    "from \"models/qwen3_moe\" import qwen3_moe\n"
    "from \"schedules\" import dualpipev, v_stages\n"
    "let pp, dp, ep = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\")]\n"
    "train qwen3_moe(tokens(16, 16), targets(), stages=4, layers=4, dim=32, heads=2, kv_heads=1,\n"
    "                head_dim=16, experts=4, top_k=2, expert_hidden=32) optimizer adamw(lr=3e-3)\n"
    "for s in 0..4 {\n"
    "  place     {PP: s}        on v_stages(2, dp=2)[s] stream pp\n"
    "  replicate {PP: s}        on v_stages(2, dp=2)[s] reduce dp\n"
    "  shard     {PP: s, EP: *} on v_stages(2, dp=2)[s] stream ep\n"
    "}\n"
    "split {} by MB into 4\n"
    "order dualpipev(2, 4)\n",

    "from \"models/gpt2\" import gpt2\n"
    "train gpt2(tokens(8, 16), targets(), stages=1, layers=1, heads=2, dim=32, context=32)\n"
    "place {} on [0, 1]\n"
    "shard {TP: *} on [0, 1] as tensor sequence true\n",

    "from \"models/gpt2\" import gpt2\n"
    "train gpt2(tokens(8, 32), targets(), stages=1, layers=2, heads=2, dim=48, vocab=250,\n"
    "           context=64) data token_file(\"t.bin\")\n",

    "from \"models/llama\" import llama\n"
    "from \"schedules\" import zerobubble\n"
    "let pp = stream(\"pp\")\n"
    "train llama(tokens(8, 16), targets(), stages=4, layers=4, dim=32, heads=2, kv_heads=1,\n"
    "            hidden=48)\n"
    "for s in 0..4 { place {PP: s} on [s] stream pp }\n"
    "split {} by MB into 4\n"
    "order zerobubble(4, 4)\n",

    "from \"models/llama\" import llama\n"
    "train llama(tokens(4, 8), targets(), stages=2)\n"
    "for s in 0..2 { place {PP: s} on [s] }\n"
    "split {} by MB into 2\n"
    "split {} by SEQ into 2 along sequence\n",
};
const unsigned compiled_n_scripts = sizeof compiled_scripts / sizeof compiled_scripts[0];

static void note(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    compiled *c = ud;
    (void)span;
    if (severity != PPS_SEV_ERROR)
        return;
    c->code = code;
    snprintf(c->said, sizeof c->said, "%s", text);
}

static void drop(void *ud, const char *text, size_t n)
{
    (void)ud, (void)text, (void)n;
}

static void release(void *ud, pps_source *source)
{
    (void)ud;
    free(source->text);
    free(source->resolved);
}

static pps_status load(void *ud, const char *from, const char *path, pps_source *ret,
                       char reason[256])
{
    (void)ud, (void)from;
    const char *folder = getenv("PPS_STDLIB");
    char name[1024];
    snprintf(name, sizeof name, "%s/%s.pps", folder != NULL ? folder : "stdlib", path);
    FILE *file = fopen(name, "rb");
    if (file == NULL) {
        snprintf(reason, 256, "no %.200s", name);
        return PPS_ERR_IO;
    }
    ret->text = malloc(1 << 20);
    ret->resolved = strdup(name);
    assert(ret->text != NULL && ret->resolved != NULL);
    ret->bytes = fread(ret->text, 1, 1 << 20, file);
    ret->release = release;
    fclose(file);
    return PPS_OK;
}

void compiled_open(compiled *c)
{
    memset(c, 0, sizeof *c);
    pps_config config = {
        .size = sizeof config, .print = drop, .diag = note, .diag_ud = c, .load = load};
    pps_status status = pps_open(PPS_ABI, &config, &c->st);
    assert(status == PPS_OK);
    (void)status;
}

void compiled_script(compiled *c, const char *text)
{
    pass_options options = {.verify = true};
    compiled_open(c);
    pps_status status = ir_open(c->st, &c->program);
    if (status == PPS_OK)
        status = pps_eval(c->st, "test.pps", "test.pps", text, strlen(text));
    if (status == PPS_OK)
        status = ir_program_finish(c->program);
    if (status == PPS_OK)
        status = pps_compile(c->st, c->program, &options, &c->set);
    if (status != PPS_OK)
        printf("status %d\n%s\n", status, c->said);
}

void compiled_close(compiled *c)
{
    plan_set_free(c->set);
    pps_close(c->st);
    ir_close(c->program);
    memset(c, 0, sizeof *c);
}

static void append(void *ud, const char *text, size_t n)
{
    bytes *b = ud;
    if (b->n + n > b->cap) {
        b->cap = 2 * (b->n + n);
        b->data = realloc(b->data, b->cap);
        assert(b->data != NULL);
    }
    memcpy(b->data + b->n, text, n);
    b->n += n;
}

bytes bytes_of(pps_state *st, const plan_set *set, plan_file_form form)
{
    bytes b = {0};
    pps_status status = plan_file_write(st, set, form, append, &b);
    assert(status == PPS_OK);
    (void)status;
    return b;
}

bool bytes_equal(const bytes *a, const bytes *b)
{
    return a->n == b->n && memcmp(a->data, b->data, a->n) == 0;
}

void compiled_read(compiled *c, const void *data, size_t n)
{
    compiled_open(c);
    /* a copy of its own length, so that reading past the end is seen */
    void *copy = malloc(n > 0 ? n : 1);
    assert(copy != NULL);
    if (n > 0)
        memcpy(copy, data, n);
    pps_status status = plan_file_read(c->st, "x.plan", copy, n, &c->set);
    free(copy);
    assert((status == PPS_OK) == (c->set != NULL));
    assert(status == PPS_OK || (status == PPS_ERR_SCRIPT && c->code != 0));
    (void)status;
}
