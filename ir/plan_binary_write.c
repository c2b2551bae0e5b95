/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_binary_write.c: a plan_set as bytes. Everything is encoded twice: once to learn the lengths
 * and checksums that the header names, once to print it, so that no plan is ever held twice.
 *
 *   header | files | table | table | ... | texts
 */
#include "ir/plan_row.h"

#include <math.h>
#include <string.h>

enum { BUFFER_BYTES = 1 << 14 };

typedef struct writer {
    const plan_out *out;
    bool measuring;
    plan_crc crc; /* measuring */
    uint64_t bytes;
    bool too_long; /* a text of 4 GiB */
    size_t n;
    unsigned char buffer[BUFFER_BYTES];
} writer;

static void flush(writer *w)
{
    if (w->measuring)
        plan_crc_add(&w->crc, w->buffer, w->n);
    else
        w->out->print(w->out->ud, (const char *)w->buffer, w->n);
    w->bytes += w->n;
    w->n = 0;
}

static void store(unsigned char *at, uint64_t value, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

static void put(writer *w, uint64_t value, uint32_t bytes)
{
    if (BUFFER_BYTES - w->n < 8)
        flush(w);
    store(w->buffer + w->n, value, bytes);
    w->n += bytes;
}

/* A text's length plus one; 0: there is none. */
static void put_length(writer *w, const char *text, size_t bytes)
{
    w->too_long |= bytes >= UINT32_MAX - 1;
    put(w, text != NULL ? bytes + 1 : 0, 4);
}

static void put_bytes(writer *w, const char *text, size_t n)
{
    flush(w);
    if (w->measuring)
        plan_crc_add(&w->crc, text, n);
    else
        w->out->print(w->out->ud, text, n);
    w->bytes += n;
}

static void put_field(writer *w, const plan_field *f, const void *owner, uint32_t i)
{
    plan_value v = plan_field_get(f, owner, i);
    uint64_t bits = v.u;
    float f32 = (float)v.f;
    uint32_t bits32;
    plan_point p;
    switch ((plan_type)f->type) {
    case PLAN_TYPE_U8:
    case PLAN_TYPE_U16:
    case PLAN_TYPE_U32:
    case PLAN_TYPE_U64:
    case PLAN_TYPE_BOOL:
        put(w, bits, plan_type_bytes(f->type));
        return;
    case PLAN_TYPE_F32:
        memcpy(&bits32, &f32, sizeof bits32);
        put(w, bits32, 4);
        return;
    case PLAN_TYPE_F64:
        memcpy(&bits, &v.f, sizeof bits);
        if (isnan(v.f))
            bits = 0x7ff8ull << 48; /* one of many, the same on every machine */
        put(w, bits, 8);
        return;
    case PLAN_TYPE_TEXT:
    case PLAN_TYPE_LIST:
        put_length(w, v.text, v.bytes);
        return;
    case PLAN_TYPE_SPAN:
        p = plan_point_of(w->out, v.span);
        put(w, p.file, 4);
        put(w, p.begin[0], 4);
        put(w, p.begin[1], 4);
        put(w, p.end[0], 4);
        put(w, p.end[1], 4);
        return;
    }
}

/* Every record of a table, or only its texts. */
static void put_table(writer *w, uint32_t id, bool texts)
{
    plan_table t = plan_table_of(id);
    bool has_text = false;
    for (uint32_t k = 0; k < t.n_fields; k++)
        has_text |= plan_type_is_text(t.fields[k].type);
    for (uint32_t o = 0; (has_text || !texts) && o < plan_owners(&t, w->out->set); o++) {
        const void *owner = plan_owner(&t, w->out->set, o);
        uint32_t n = plan_table_n(&t, owner);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t k = 0; k < t.n_fields; k++) {
                const plan_field *f = &t.fields[k];
                if (!texts) {
                    put_field(w, f, owner, i);
                } else if (plan_type_is_text(f->type)) {
                    plan_value v = plan_field_get(f, owner, i);
                    if (v.text != NULL)
                        put_bytes(w, v.text, v.bytes + 1);
                }
            }
    }
}

static void put_section(writer *w, uint32_t section)
{
    const plan_files *files = w->out->files;
    if (section == PLAN_SECTION_FILES) {
        for (uint32_t i = 0; i < files->n; i++)
            put_length(w, files->names[i], strlen(files->names[i]));
    } else if (section == PLAN_SECTION_TEXTS) {
        for (uint32_t i = 0; i < files->n; i++)
            put_bytes(w, files->names[i], strlen(files->names[i]) + 1);
        for (uint32_t id = 0; id < PLAN_TABLE_COUNT; id++)
            put_table(w, id, true);
    } else {
        put_table(w, section - PLAN_SECTION_TABLES, false);
    }
    flush(w);
}

static uint32_t record_bytes(uint32_t section)
{
    if (section == PLAN_SECTION_FILES)
        return 4;
    if (section == PLAN_SECTION_TEXTS)
        return 1;
    plan_table t = plan_table_of(section - PLAN_SECTION_TABLES);
    return plan_table_bytes(&t);
}

pps_status plan_write_binary(const plan_out *out)
{
    unsigned char header[PLAN_HEADER_BYTES] = {0};
    writer w = {.out = out, .measuring = true};
    uint64_t at = PLAN_HEADER_BYTES;
    memcpy(header, PLAN_MAGIC, sizeof PLAN_MAGIC - 1);
    store(header + PLAN_AT_VERSION, PLAN_FILE_VERSION, 4);
    store(header + PLAN_AT_HEADER_BYTES, PLAN_HEADER_BYTES, 4);
    store(header + PLAN_AT_LAYOUT, plan_layout(), 4);
    store(header + PLAN_AT_SECTIONS, PLAN_SECTIONS, 4);
    plan_crc_init(&w.crc);
    for (uint32_t i = 0; i < PLAN_SECTIONS; i++) {
        unsigned char *row = header + PLAN_AT_ROWS + i * PLAN_ROW_BYTES;
        w.bytes = 0;
        w.crc.sum = 0;
        put_section(&w, i);
        store(row + PLAN_ROW_ID, i, 4);
        store(row + PLAN_ROW_RECORD, record_bytes(i), 4);
        store(row + PLAN_ROW_OFFSET, at, 8);
        store(row + PLAN_ROW_LENGTH, w.bytes, 8);
        store(row + PLAN_ROW_CRC, w.crc.sum, 4);
        at += w.bytes;
    }
    if (w.too_long)
        return PPS_ERR_LIMIT;
    store(header + PLAN_AT_TOTAL, at, 8);
    w.crc.sum = 0;
    plan_crc_add(&w.crc, header, PLAN_AT_CRC);
    plan_crc_add(&w.crc, header + PLAN_AT_LAYOUT, PLAN_HEADER_BYTES - PLAN_AT_LAYOUT);
    store(header + PLAN_AT_CRC, w.crc.sum, 4);

    out->print(out->ud, (const char *)header, sizeof header);
    w.measuring = false;
    for (uint32_t i = 0; i < PLAN_SECTIONS; i++)
        put_section(&w, i);
    return PPS_OK;
}
