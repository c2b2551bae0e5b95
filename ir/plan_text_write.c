/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_text_write.c: a plan_set as lines, one per record, in the order of plan_fields.def:
 *
 *   pps-plan 1
 *   file name="two.pps"
 *   plans n_mb=4 batch=24 ...
 *   ...
 *   step kind=compute pass=F ... place=3
 *   end records=812 crc=1a2b3c4d
 *
 * Numbers are written so that reading gives the same bits back, whatever the locale.
 */
#include "ir/plan_row.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "lang/lex_text.h"

enum { LINE_BYTES = 512 };

typedef struct writer {
    const plan_out *out;
    plan_crc crc;
    uint64_t n_records;
} writer;

static void put(writer *w, const char *text, size_t n)
{
    plan_crc_add(&w->crc, text, n);
    w->out->print(w->out->ud, text, n);
}

PPS_PRINTF(2, 3)
static void putf(writer *w, const char *format, ...)
{
    char text[LINE_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put(w, text, (size_t)n);
}

static void put_text(writer *w, const char *text, size_t n)
{
    put(w, "\"", 1);
    for (size_t i = 0, run; i < n; i += run) {
        for (run = 0; i + run < n; run++) {
            unsigned char c = (unsigned char)text[i + run];
            if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
                break;
        }
        if (run > 0) {
            put(w, text + i, run);
        } else {
            unsigned char c = (unsigned char)text[i];
            if (c == '"' || c == '\\')
                putf(w, "\\%c", c);
            else
                putf(w, "\\x%02x", c);
            run = 1;
        }
    }
    put(w, "\"", 1);
}

/* The shortest digits that read back as the same number. */
static void put_number(writer *w, double x, bool is_float)
{
    char text[64];
    for (int digits = is_float ? 6 : 15; digits <= 17; digits++) {
        int n = snprintf(text, sizeof text, "%.*g", digits, x);
        size_t kept = 0;
        double back;
        for (int i = 0; i < n; i++) { /* a locale's decimal point may be several bytes */
            bool plain = strchr("0123456789+-e", text[i]) != NULL;
            if (plain || (kept > 0 && text[kept - 1] != '.'))
                text[kept++] = plain ? text[i] : '.';
        }
        text[kept] = '\0';
        if (lex_float(text, kept, &back) && (is_float ? (float)back == (float)x : back == x))
            break;
    }
    put(w, text, strlen(text));
}

static void put_field(writer *w, const plan_field *f, const void *owner, uint32_t i)
{
    plan_value v = plan_field_get(f, owner, i);
    const char *word = NULL;
    plan_point p;
    putf(w, " %s=", f->name);
    switch ((plan_type)f->type) {
    case PLAN_TYPE_U8:
    case PLAN_TYPE_U16:
    case PLAN_TYPE_U32:
    case PLAN_TYPE_U64:
    case PLAN_TYPE_BOOL:
        if (f->check.word != NULL)
            word = f->check.word((uint32_t)v.u);
        if (word != NULL)
            put(w, word, strlen(word));
        else if (f->type == PLAN_TYPE_U32 && v.u == IR_NONE)
            put(w, "-", 1);
        else
            putf(w, "%llu", (unsigned long long)v.u);
        return;
    case PLAN_TYPE_F32:
    case PLAN_TYPE_F64:
        if (isnan(v.f))
            put(w, "-", 1);
        else
            put_number(w, v.f, f->type == PLAN_TYPE_F32);
        return;
    case PLAN_TYPE_TEXT:
    case PLAN_TYPE_LIST:
        if (v.text == NULL)
            put(w, "-", 1);
        else
            put_text(w, v.text, v.bytes);
        return;
    case PLAN_TYPE_SPAN:
        p = plan_point_of(w->out, v.span);
        if (p.file == 0)
            put(w, "-", 1);
        else
            putf(w, "%u:%u:%u-%u:%u", p.file, p.begin[0], p.begin[1], p.end[0], p.end[1]);
        return;
    }
}

pps_status plan_write_text(const plan_out *out)
{
    writer w = {.out = out};
    plan_crc_init(&w.crc);
    putf(&w, PLAN_TEXT_MAGIC "%d\n", PLAN_FILE_VERSION);
    for (uint32_t i = 0; i < out->files->n; i++) {
        put(&w, "file name=", 10);
        put_text(&w, out->files->names[i], strlen(out->files->names[i]));
        put(&w, "\n", 1);
        w.n_records++;
    }
    for (uint32_t id = 0; id < PLAN_TABLE_COUNT; id++) {
        plan_table t = plan_table_of(id);
        for (uint32_t o = 0; o < plan_owners(&t, out->set); o++) {
            const void *owner = plan_owner(&t, out->set, o);
            uint32_t n = plan_table_n(&t, owner);
            if (t.per_plan && n > 0)
                putf(&w, "# %ss of group %u\n", t.name, o);
            for (uint32_t i = 0; i < n; i++, w.n_records++) {
                put(&w, t.name, strlen(t.name));
                for (uint32_t k = 0; k < t.n_fields; k++)
                    put_field(&w, &t.fields[k], owner, i);
                put(&w, "\n", 1);
            }
        }
    }
    putf(&w, "end records=%llu", (unsigned long long)w.n_records);
    putf(&w, " crc=%08x\n", w.crc.sum);
    return PPS_OK;
}
