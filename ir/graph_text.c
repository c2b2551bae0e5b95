/* SPDX-License-Identifier: Apache-2.0
 *
 * graph_text.c: a graph as text, one line per thing, the same for the same graph on every machine.
 *
 *   graph: 3 ops, 5 tensors, 2 params, 2 data
 *   data d0 tokens [8, 32] -> %0
 *   param p0 "wte.weight" [250, 48] normal 0.02
 *   op 0 {PP: 0} embed %0 p0 -> %2 f32 [8, 32, 48] grad
 *   chunk 0 {PP: 0}: ops 0 in - out %2 data d0 params p0 loss 0 weights
 */
#include "ir/build.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct sink {
    void (*print)(void *ud, const char *text, size_t n);
    void *ud;
} sink;

static void put(const sink *s, const char *format, ...) PPS_PRINTF(2, 3);
static void put(const sink *s, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n > 0)
        s->print(s->ud, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

static void put_text(const sink *s, const char *text) /* of any length */
{
    s->print(s->ud, text, strlen(text));
}

static void put_shape(const sink *s, const uint32_t *dims, uint32_t n_dims)
{
    char shape[IR_SHAPE_TEXT];
    put_text(s, ir_shape_text(dims, n_dims, shape));
}

static void put_tensor(const sink *s, const ir_graph *g, ir_id id)
{
    static const struct {
        uint8_t flag;
        const char *text;
    } flags[] = {
        {IR_TENSOR_GRAD, " grad"}, {IR_TENSOR_ROWS, " rows"}, {IR_TENSOR_COUNTS, " counts"}};
    const ir_tensor *t = &g->tensors[id];
    put(s, " %%%u %s ", id, t->dtype == IR_F32 ? "f32" : "i32");
    put_shape(s, t->dims, t->n_dims);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (t->flags & flags[i].flag)
            put_text(s, flags[i].text);
}

static void put_attrs(const sink *s, const ir_attrs *a)
{
    const struct {
        const char *name;
        double value;
    } attrs[] = {
        {"heads", a->heads},
        {"kv_heads", a->kv_heads},
        {"parts", a->parts},
        {"shift", a->shift},
        {"group", a->group},
        {"head_dim", a->head_dim},
        {"begin", a->begin},
        {"experts", a->experts},
        {"top_k", a->top_k},
        {"hidden", a->hidden},
        {"capacity", a->capacity},
        {"vocab", a->vocab},
        {"renorm", a->renorm},
        {"eps", a->eps},
        {"theta", a->theta},
        {"aux", a->aux_coef},
        {"count", a->count},
        {"save", (double)a->save_bytes},
        {"hold", (double)a->hold_bytes},
    };
    for (size_t i = 0; i < sizeof attrs / sizeof *attrs; i++)
        if (attrs[i].value != 0)
            put(s, " %s=%g", attrs[i].name, attrs[i].value);
    if (a->host)
        put(s, " host=\"%s\"", a->host);
}

static const char *const borders[] = {
#define BORDER(name, text, forward, backward) [IR_BORDER_##name] = text,
#include "ir/borders.def"
#undef BORDER
};

static void put_form(const sink *s, const ir_graph *g, ir_id id)
{
    const ir_tensor *t = &g->tensors[id];
    put(s, "form %s of %%%u ->", borders[t->border], t->of);
    put_tensor(s, g, id);
    if (t->border == IR_BORDER_SHIFT)
        put(s, " by %u", t->shift);
    put_text(s, "\n");
}

static void put_op(const sink *s, const ir_graph *g, ir_id id)
{
    const ir_op *op = &g->ops[id];
    char tags[256];
    put(s, "op %u %s %s", id, ir_tagset_text(g, op->tagset, tags, sizeof tags),
        ir_op_name((ir_op_kind)op->kind));
    for (uint32_t i = 0; i < op->n_in; i++)
        put(s, " %%%u", op->in[i]);
    for (uint32_t i = 0; i < op->n_param; i++)
        if (op->param[i] == IR_NONE)
            put_text(s, " -");
        else
            put(s, " p%u", op->param[i]);
    put_attrs(s, &op->attrs);
    for (uint32_t i = 0; i < op->n_out; i++) {
        put_text(s, i ? "," : " ->");
        put_tensor(s, g, op->out[i]);
    }
    put_text(s, "\n");
}

static void put_list(const sink *s, const ir_graph *g, const char *name, const char *prefix,
                     ir_range list)
{
    put(s, " %s", name);
    if (list.n == 0)
        put_text(s, " -");
    for (uint32_t i = 0; i < list.n; i++)
        put(s, " %s%u", prefix, g->lists[list.begin + i]);
}

static void put_chunk(const sink *s, const ir_graph *g, uint32_t id)
{
    const ir_chunk *c = &g->chunks[id];
    char tags[256];
    put(s, "chunk %u %s:", id, ir_tagset_text(g, c->tagset, tags, sizeof tags));
    put_list(s, g, "ops", "", c->ops);
    put_list(s, g, "in", "%", c->in);
    put_list(s, g, "out", "%", c->out);
    put_list(s, g, "data", "d", c->data);
    put_list(s, g, "params", "p", c->params);
    put(s, " loss %u%s%s\n", c->n_loss, c->has_grad_in ? " grad_in" : "",
        c->has_weights ? " weights" : "");
}

void ir_graph_dump(const ir_graph *g, void (*print)(void *ud, const char *text, size_t n), void *ud)
{
    static const char *const data_names[] = {"tokens", "targets", "features"};
    static const char *const init_names[] = {"normal", "zero", "one"};
    const sink s = {print, ud};
    put(&s, "graph: %u ops, %u tensors, %u params, %u data\n", g->n_ops, g->n_tensors, g->n_params,
        g->n_data);
    for (uint32_t i = 0; i < g->n_regions; i++)
        put(&s, "region %s %u\n", g->regions[i].tag, g->regions[i].index);
    for (uint32_t i = 0; i < g->n_data; i++) {
        const ir_data *d = &g->data[i];
        put(&s, "data d%u %s ", i, data_names[d->kind]);
        put_shape(&s, d->dims, d->n_dims);
        if (d->kind == IR_DATA_FEATURES)
            put(&s, " key=%u", d->key);
        put(&s, " -> %%%u\n", d->tensor);
    }
    for (uint32_t i = 0; i < g->n_params; i++) {
        const ir_param *p = &g->params[i];
        put(&s, "param p%u \"", i);
        put_text(&s, p->name);
        put_text(&s, "\" ");
        put_shape(&s, p->dims, p->n_dims);
        put(&s, " %s", init_names[p->init]);
        if (p->init == IR_INIT_NORMAL)
            put(&s, " %g", (double)p->init_std);
        put(&s, "%s\n", p->flags & IR_PARAM_EXPERT ? " expert" : "");
    }
    for (uint32_t i = 0; i < g->n_ops; i++)
        put_op(&s, g, i);
    for (uint32_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i].border != IR_NO_BORDER)
            put_form(&s, g, i);
    for (uint32_t i = 0; i < g->n_chunks; i++)
        put_chunk(&s, g, i);
}
