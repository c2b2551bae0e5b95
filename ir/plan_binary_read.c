/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_binary_read.c: a plan_set from bytes that may be anything. First the file as a whole (magic,
 * version, checksum of the header, length), then every section (where it should be, as long as its
 * records, its checksum), then the records. Texts are taken from the last section one after the
 * other, in the order of the fields that have them.
 */
#include "ir/plan_row.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct section {
    const unsigned char *bytes;
    uint64_t offset, n;
    uint32_t record_bytes;
} section;

typedef struct reader {
    pps_state *st;
    const char *name;
    const unsigned char *bytes;
    size_t n;
    section sections[PLAN_SECTIONS];
    char *texts; /* copy of the last section */
    uint64_t text_at;
    uint32_t *files; /* pps_span.file of each, from 1 */
    uint32_t n_files;
    plan_build build;
} reader;

static uint64_t load(const unsigned char *at, uint32_t bytes)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << 8 * i;
    return value;
}

PPS_PRINTF(3, 4)
static pps_status refuse(const reader *r, int code, const char *format, ...)
{
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return pps_error(r->st, (pps_span){0}, code, "'%s' %s", r->name, what);
}

static const char *section_name(uint32_t i)
{
    if (i == PLAN_SECTION_FILES)
        return "file";
    return i == PLAN_SECTION_TEXTS ? "text" : plan_table_name(i - PLAN_SECTION_TABLES);
}

/* ---- The file as a whole ----------------------------------------------------------------------
 */

static pps_status cut_off(const reader *r, uint64_t of)
{
    return refuse(r, 1102, "is cut off: it ends after %zu bytes of %llu", r->n,
                  (unsigned long long)of);
}

static pps_status check_header(const reader *r, plan_crc *crc)
{
    const unsigned char *h = r->bytes;
    if (r->n < PLAN_AT_LAYOUT)
        return cut_off(r, PLAN_HEADER_BYTES);
    uint32_t version = (uint32_t)load(h + PLAN_AT_VERSION, 4);
    uint32_t header_bytes = (uint32_t)load(h + PLAN_AT_HEADER_BYTES, 4);
    /* where version, length and checksum are is the same in every version */
    if (header_bytes < PLAN_AT_LAYOUT || header_bytes > 1u << 20)
        return refuse(r, 1103, "is damaged: its header cannot be %u bytes long (bytes %u to %u)",
                      header_bytes, (unsigned)PLAN_AT_HEADER_BYTES, (unsigned)PLAN_AT_CRC);
    if (r->n < header_bytes)
        return cut_off(r, header_bytes);
    crc->sum = 0;
    plan_crc_add(crc, h, PLAN_AT_CRC);
    plan_crc_add(crc, h + PLAN_AT_LAYOUT, header_bytes - PLAN_AT_LAYOUT);
    if (crc->sum != load(h + PLAN_AT_CRC, 4))
        return refuse(r, 1103, "is damaged: its header (bytes 0 to %u) does not match its checksum",
                      header_bytes);
    if (version != PLAN_FILE_VERSION)
        return refuse(r, 1104, "is a plan file of version %u; this program reads version %d%s",
                      version, PLAN_FILE_VERSION,
                      version > PLAN_FILE_VERSION ? "; a newer one wrote it" : "");
    if (header_bytes != PLAN_HEADER_BYTES || load(h + PLAN_AT_SECTIONS, 4) != PLAN_SECTIONS ||
        load(h + PLAN_AT_LAYOUT, 4) != plan_layout())
        return refuse(r, 1104,
                      "was written by another build of this program, with other fields; "
                      "compile the script again");
    uint64_t total = load(h + PLAN_AT_TOTAL, 8);
    if (r->n < total)
        return cut_off(r, total);
    if (r->n > total)
        return refuse(r, 1102, "goes on after its end: it is %zu bytes long, its header says %llu",
                      r->n, (unsigned long long)total);
    return PPS_OK;
}

static pps_status check_sections(reader *r, plan_crc *crc)
{
    uint64_t at = PLAN_HEADER_BYTES;
    for (uint32_t i = 0; i < PLAN_SECTIONS; i++) {
        const unsigned char *row = r->bytes + PLAN_AT_ROWS + i * PLAN_ROW_BYTES;
        section *s = &r->sections[i];
        uint32_t wanted = 1;
        s->record_bytes = (uint32_t)load(row + PLAN_ROW_RECORD, 4);
        s->offset = load(row + PLAN_ROW_OFFSET, 8);
        s->n = load(row + PLAN_ROW_LENGTH, 8);
        if (i == PLAN_SECTION_FILES) {
            wanted = 4;
        } else if (i != PLAN_SECTION_TEXTS) {
            plan_table t = plan_table_of(i - PLAN_SECTION_TABLES);
            wanted = plan_table_bytes(&t);
        }
        if (load(row + PLAN_ROW_ID, 4) != i || s->offset != at || s->n > r->n - at ||
            s->record_bytes != wanted || s->n % wanted != 0 || s->n / wanted >= UINT32_MAX)
            return refuse(r, 1105, "is malformed: its '%s' section cannot be %llu bytes at %llu",
                          section_name(i), (unsigned long long)s->n, (unsigned long long)s->offset);
        s->bytes = r->bytes + at;
        at += s->n;
        crc->sum = 0;
        plan_crc_add(crc, s->bytes, s->n);
        if (crc->sum != load(row + PLAN_ROW_CRC, 4))
            return refuse(r, 1103,
                          "is damaged: its '%s' section (bytes %llu to %llu) does not match its "
                          "checksum",
                          section_name(i), (unsigned long long)s->offset, (unsigned long long)at);
    }
    if (at != r->n)
        return refuse(r, 1105, "is malformed: its sections end at %llu of %zu bytes",
                      (unsigned long long)at, r->n);
    return PPS_OK;
}

/* ---- Records ----------------------------------------------------------------------------------
 */

/* The next text, of `length` - 1 bytes. */
static bool take_text(reader *r, uint32_t length, bool list, plan_value *ret)
{
    const section *s = &r->sections[PLAN_SECTION_TEXTS];
    *ret = (plan_value){0};
    if (length == 0)
        return true;
    if (length > s->n - r->text_at)
        return false;
    ret->text = r->texts + r->text_at;
    ret->bytes = length - 1;
    r->text_at += length;
    if (ret->text[ret->bytes] != '\0')
        return false;
    for (size_t at = 0; at <= ret->bytes;) { /* a LIST's texts one by one */
        size_t n = list ? strlen(ret->text + at) : ret->bytes;
        if (!plan_text_valid(ret->text + at, n))
            return false;
        at += n + 1;
    }
    return true;
}

static pps_status read_files(reader *r)
{
    const section *s = &r->sections[PLAN_SECTION_FILES];
    plan_value name;
    r->n_files = (uint32_t)(s->n / 4);
    r->files = arena_new(r->build.mem, ((size_t)r->n_files + 1) * sizeof *r->files);
    if (r->files == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t i = 0; i < r->n_files; i++) {
        if (!take_text(r, (uint32_t)load(s->bytes + 4 * (size_t)i, 4), false, &name) ||
            name.text == NULL)
            return refuse(r, 1105, "is malformed: the name of file %u is no text", i);
        PPS_TRY(pps_source_named(r->st, name.text, &r->files[i]));
    }
    return PPS_OK;
}

static pps_status read_field(reader *r, const plan_field *f, const unsigned char *at,
                             plan_value *ret, bool *ret_ok)
{
    uint32_t point[5], bits32;
    float f32;
    *ret = (plan_value){0};
    *ret_ok = true;
    switch ((plan_type)f->type) {
    case PLAN_TYPE_U8:
    case PLAN_TYPE_U16:
    case PLAN_TYPE_U32:
    case PLAN_TYPE_U64:
    case PLAN_TYPE_BOOL:
        ret->u = load(at, plan_type_bytes(f->type));
        break;
    case PLAN_TYPE_F32:
        bits32 = (uint32_t)load(at, 4);
        memcpy(&f32, &bits32, sizeof f32);
        ret->f = f32;
        break;
    case PLAN_TYPE_F64:
        ret->u = load(at, 8);
        memcpy(&ret->f, &ret->u, sizeof ret->f);
        break;
    case PLAN_TYPE_TEXT:
    case PLAN_TYPE_LIST:
        *ret_ok = take_text(r, (uint32_t)load(at, 4), f->type == PLAN_TYPE_LIST, ret);
        break;
    case PLAN_TYPE_SPAN:
        for (int k = 0; k < 5; k++)
            point[k] = (uint32_t)load(at + 4 * k, 4);
        if (point[0] > r->n_files)
            *ret_ok = false;
        else if (point[0] != 0)
            PPS_TRY(
                pps_source_place(r->st, r->files[point[0] - 1], point + 1, point + 3, &ret->span));
        break;
    }
    return PPS_OK;
}

static pps_status read_table(reader *r, uint32_t id)
{
    const section *s = &r->sections[PLAN_SECTION_TABLES + id];
    char reason[256];
    const unsigned char *at = s->bytes;
    pps_status status = plan_build_table(&r->build, id, reason);
    const plan_table *t = &r->build.table;
    void *owner;
    uint32_t i;
    if (status == PPS_ERR_SCRIPT)
        return refuse(r, 1105, "is malformed: %s", reason);
    PPS_TRY(status);
    for (uint32_t k = 0; k < r->build.n[id]; k++) {
        if (!plan_build_next(&r->build, &owner, &i))
            return refuse(r, 1105, "is malformed: too many records of '%s'", t->name);
        for (uint32_t j = 0; j < t->n_fields; j++) {
            plan_value v;
            bool ok;
            PPS_TRY(read_field(r, &t->fields[j], at, &v, &ok));
            if (!ok || !plan_field_put(&t->fields[j], owner, i, &v))
                return refuse(r, 1105,
                              "is malformed: '%s' of %s %u (byte %llu) is no value of that field",
                              t->fields[j].name, t->name, k, (unsigned long long)(at - r->bytes));
            at += plan_type_bytes(t->fields[j].type);
        }
    }
    return PPS_OK;
}

pps_status plan_read_binary(pps_state *st, const char *name, const unsigned char *bytes, size_t n,
                            plan_set *set)
{
    reader r = {
        .st = st, .name = name, .bytes = bytes, .n = n, .build = {.mem = set->mem, .set = set}};
    char reason[256];
    plan_crc crc;
    plan_crc_init(&crc);
    PPS_TRY(check_header(&r, &crc));
    PPS_TRY(check_sections(&r, &crc));
    const section *texts = &r.sections[PLAN_SECTION_TEXTS];
    r.texts = arena_copy(set->mem, (const char *)texts->bytes, texts->n);
    if (r.texts == NULL)
        return PPS_ERR_NOMEM;
    PPS_TRY(read_files(&r));
    for (uint32_t id = 0; id < PLAN_TABLE_COUNT; id++) {
        const section *s = &r.sections[PLAN_SECTION_TABLES + id];
        r.build.n[id] = (uint32_t)(s->n / s->record_bytes);
    }
    for (uint32_t id = 0; id < PLAN_TABLE_COUNT; id++)
        PPS_TRY(read_table(&r, id));
    if (r.text_at != texts->n)
        return refuse(&r, 1105, "is malformed: %llu bytes of texts belong to no field",
                      (unsigned long long)(texts->n - r.text_at));
    pps_status status = plan_build_finish(&r.build, reason);
    return status == PPS_ERR_SCRIPT ? refuse(&r, 1105, "is malformed: %s", reason) : status;
}
