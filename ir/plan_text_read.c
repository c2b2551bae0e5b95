/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_text_read.c: a plan_set from lines. A first walk counts the records of every table, which
 * must stand in the order of plan_fields.def, and checks the last line; a second one reads them.
 * Blank lines and lines that begin with # are skipped. What is wrong is told at its line and column
 * of the file.
 */
#include "ir/plan_row.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "lang/lex_text.h"

typedef struct reader {
    pps_state *st;
    const char *name;
    const char *at, *end; /* of the text */
    const char *line;     /* begin of the current line */
    uint32_t line_number;
    const char *line_end;
    uint32_t *files;
    uint32_t n_files, file_at;
    plan_build build;
} reader;

PPS_PRINTF(3, 4)
static pps_status refuse(const reader *r, int code, const char *format, ...)
{
    char what[256];
    uint32_t file, column = 1;
    pps_span span = {0};
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    for (const char *c = r->line; c < r->at; c++)
        column += (*c & 0xc0) != 0x80;
    if (pps_source_named(r->st, r->name, &file) == PPS_OK)
        pps_source_place(r->st, file, (uint32_t[]){r->line_number, column},
                         (uint32_t[]){r->line_number, column + 1}, &span);
    return pps_error(r->st, span, code, "'%s' %s", r->name, what);
}

/* ---- Lines ------------------------------------------------------------------------------------
 */

/* Go to the next line that says something; false at the end. */
static bool next_line(reader *r)
{
    while (r->line_end < r->end) {
        r->line = r->at = r->line_end + (r->line_number > 0);
        if (r->line >= r->end)
            return false;
        const char *newline = memchr(r->line, '\n', (size_t)(r->end - r->line));
        r->line_end = newline != NULL ? newline : r->end;
        r->line_number++;
        if (r->line < r->line_end && *r->line != '#' && *r->line != '\r')
            return true;
    }
    return false;
}

static void rewind_to(reader *r, const char *begin)
{
    r->line = r->at = r->line_end = begin;
    r->line_number = 0;
}

static bool take(reader *r, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(r->line_end - r->at) < n || memcmp(r->at, text, n) != 0)
        return false;
    r->at += n;
    return true;
}

/* Bytes up to the next blank. */
static size_t word(const reader *r)
{
    size_t n = 0;
    while (r->at + n < r->line_end && r->at[n] != ' ')
        n++;
    return n;
}

/* Which kind of record the line is: 0 a file, 1 + id a table's, UINT32_MAX none. */
static uint32_t record_kind(const reader *r)
{
    size_t n = word(r);
    if (n == 4 && memcmp(r->at, "file", 4) == 0)
        return 0;
    for (uint32_t id = 0; id < PLAN_TABLE_COUNT; id++) {
        const char *name = plan_table_name(id);
        if (strlen(name) == n && memcmp(r->at, name, n) == 0)
            return 1 + id;
    }
    return UINT32_MAX;
}

static bool take_digits(reader *r, uint64_t *ret)
{
    size_t n = 0;
    while (r->at + n < r->line_end && r->at[n] >= '0' && r->at[n] <= '9')
        n++;
    if (n == 0 || !lex_uint(r->at, n, ret))
        return false;
    r->at += n;
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static pps_status check_end(reader *r, const char *begin, uint64_t n_records)
{
    const char *line = r->at;
    uint64_t n = 0, given = 0;
    plan_crc crc;
    if (!take(r, "end records=") || !take_digits(r, &n) || n != n_records)
        return refuse(r, 1102, "is cut off or was cut: it has %llu records before this line",
                      (unsigned long long)n_records);
    const char *told = r->at;
    bool edited = take(r, " crc=-");
    if (!edited && !take(r, " crc="))
        return refuse(r, 1102, "is cut off: after the number of records comes crc=");
    for (; !edited && r->at < r->line_end && hex_digit(*r->at) >= 0; r->at++)
        given = given << 4 | (uint64_t)hex_digit(*r->at);
    plan_crc_init(&crc);
    plan_crc_add(&crc, begin, (size_t)(told - begin));
    if (r->at != r->line_end || r->at == r->end)
        return refuse(r, 1102, "is cut off in its last line, or was cut there");
    if (!edited && (given != crc.sum || told + 13 != r->line_end))
        return refuse(r, 1103,
                      "is damaged: it does not match its checksum; in a file that was "
                      "changed on purpose stands \"crc=-\"");
    r->at = line;
    if (next_line(r))
        return refuse(r, 1102, "goes on after its end");
    return PPS_OK;
}

/* The first walk. */
static pps_status count_records(reader *r, const char *begin)
{
    uint64_t n_records = 0, version = 0;
    uint32_t last = 0;
    if (!next_line(r) || !take(r, PLAN_TEXT_MAGIC) || !take_digits(r, &version) ||
        r->at != r->line_end)
        return refuse(r, 1105, "is malformed: its first line names no version");
    if (version != PLAN_FILE_VERSION)
        return refuse(r, 1104, "is a plan file of version %llu; this program reads version %d%s",
                      (unsigned long long)version, PLAN_FILE_VERSION,
                      version > PLAN_FILE_VERSION ? "; a newer one wrote it" : "");
    while (next_line(r)) {
        uint32_t kind = record_kind(r);
        if (kind == UINT32_MAX && word(r) == 3 && memcmp(r->at, "end", 3) == 0)
            return check_end(r, begin, n_records);
        if (kind == UINT32_MAX)
            return refuse(r, 1105, "is malformed: there is no record '%.*s'",
                          (int)(word(r) < 40 ? word(r) : 40), r->at);
        if (kind < last)
            return refuse(r, 1105, "is malformed: a '%s' after a '%s'",
                          kind == 0 ? "file" : plan_table_name(kind - 1),
                          plan_table_name(last - 1));
        last = kind;
        if (n_records++ == UINT32_MAX - 1)
            return refuse(r, 1105, "has more records than can be numbered");
        if (kind == 0)
            r->n_files++;
        else
            r->build.n[kind - 1]++;
    }
    return refuse(r, 1102, "is cut off: it has no 'end'");
}

/* ---- Values -----------------------------------------------------------------------------------
 */

/* A quoted text, unescaped into the arena. */
static pps_status take_text(reader *r, bool list, plan_value *ret, bool *ret_ok)
{
    const char *close;
    size_t n = 0;
    *ret_ok = false;
    if (!take(r, "\""))
        return PPS_OK;
    for (close = r->at; close < r->line_end && *close != '"'; close++)
        close += *close == '\\';
    if (close >= r->line_end)
        return PPS_OK;
    char *text = arena_new(r->build.mem, (size_t)(close - r->at) + 1);
    if (text == NULL)
        return PPS_ERR_NOMEM;
    for (const char *c = r->at; c < close; c++) {
        if (*c != '\\') {
            text[n++] = *c;
        } else if (c[1] == '"' || c[1] == '\\') {
            text[n++] = *++c;
        } else {
            if (c[1] != 'x' || close - c < 4 || hex_digit(c[2]) < 0 || hex_digit(c[3]) < 0)
                return PPS_OK;
            text[n++] = (char)(hex_digit(c[2]) << 4 | hex_digit(c[3]));
            c += 3;
        }
    }
    text[n] = '\0';
    for (size_t at = 0; at <= n;) {
        size_t length = list ? strlen(text + at) : n;
        if (!plan_text_valid(text + at, length))
            return PPS_OK;
        at += length + 1;
    }
    r->at = close + 1;
    ret->text = text;
    ret->bytes = n;
    *ret_ok = true;
    return PPS_OK;
}

/* file:line:column-line:column */
static pps_status take_span(reader *r, plan_value *ret, bool *ret_ok)
{
    static const char *const before[5] = {"", ":", ":", "-", ":"};
    uint32_t point[5];
    *ret_ok = false;
    for (int k = 0; k < 5; k++) {
        uint64_t n;
        if (!take(r, before[k]) || !take_digits(r, &n) || n > UINT32_MAX)
            return PPS_OK;
        point[k] = (uint32_t)n;
    }
    if (point[0] == 0 || point[0] > r->n_files)
        return PPS_OK;
    *ret_ok = true;
    return pps_source_place(r->st, r->files[point[0] - 1], point + 1, point + 3, &ret->span);
}

static bool take_word(reader *r, const plan_field *f, plan_value *ret)
{
    size_t n = word(r);
    for (uint32_t i = 0; i < f->check.limit; i++) {
        const char *name = f->check.word(i);
        if (strlen(name) == n && memcmp(name, r->at, n) == 0) {
            r->at += n;
            ret->u = i;
            return true;
        }
    }
    return false;
}

static pps_status take_field(reader *r, const plan_field *f, plan_value *ret, bool *ret_ok)
{
    size_t n = word(r);
    bool none = n == 1 && *r->at == '-';
    *ret = (plan_value){0};
    *ret_ok = true;
    switch ((plan_type)f->type) {
    case PLAN_TYPE_U8:
    case PLAN_TYPE_U16:
    case PLAN_TYPE_U32:
    case PLAN_TYPE_U64:
    case PLAN_TYPE_BOOL:
        if (f->check.word != NULL) {
            *ret_ok = take_word(r, f, ret);
        } else if (none && f->type == PLAN_TYPE_U32) {
            ret->u = IR_NONE;
            r->at++;
        } else {
            *ret_ok = take_digits(r, &ret->u);
        }
        return PPS_OK;
    case PLAN_TYPE_F32:
    case PLAN_TYPE_F64:
        if (none) {
            ret->f = NAN;
            r->at++;
            return PPS_OK;
        }
        for (size_t i = 0; i < n; i++)
            *ret_ok &= strchr("0123456789.+-e", r->at[i]) != NULL && r->at[i] != '\0';
        *ret_ok = *ret_ok && n > 0 && lex_float(r->at, n, &ret->f);
        r->at += *ret_ok ? n : 0;
        return PPS_OK;
    case PLAN_TYPE_TEXT:
    case PLAN_TYPE_LIST:
        if (!none)
            return take_text(r, f->type == PLAN_TYPE_LIST, ret, ret_ok);
        r->at++;
        return PPS_OK;
    case PLAN_TYPE_SPAN:
        if (!none)
            return take_span(r, ret, ret_ok);
        r->at++;
        return PPS_OK;
    }
    return PPS_OK;
}

/* ---- Records ----------------------------------------------------------------------------------
 */

static bool take_name(reader *r, const char *name)
{
    const char *at = r->at;
    if (take(r, " ") && take(r, name) && take(r, "="))
        return true;
    r->at = at;
    return false;
}

static pps_status read_file_line(reader *r)
{
    plan_value name;
    bool ok;
    take(r, "file");
    if (!take_name(r, "name"))
        return refuse(r, 1105, "is malformed: here comes name=");
    PPS_TRY(take_text(r, false, &name, &ok));
    if (!ok || r->at != r->line_end)
        return refuse(r, 1105, "is malformed: a file has a name in quotes");
    return pps_source_named(r->st, name.text, &r->files[r->file_at++]);
}

static pps_status read_record(reader *r)
{
    const plan_table *t = &r->build.table;
    void *owner;
    uint32_t i;
    if (!plan_build_next(&r->build, &owner, &i))
        return refuse(r, 1105, "is malformed: too many records of '%s'", t->name);
    take(r, t->name);
    for (uint32_t k = 0; k < t->n_fields; k++) {
        const plan_field *f = &t->fields[k];
        plan_value v;
        bool ok;
        if (!take_name(r, f->name))
            return refuse(r, 1105, "is malformed: here comes %s=", f->name);
        PPS_TRY(take_field(r, f, &v, &ok));
        if (!ok || !plan_field_put(f, owner, i, &v))
            return refuse(r, 1105, "is malformed: this is no value of '%s'", f->name);
    }
    if (r->at != r->line_end)
        return refuse(r, 1105, "is malformed: the '%s' goes on after its last field", t->name);
    return PPS_OK;
}

static pps_status read_records(reader *r)
{
    char reason[256];
    bool more = next_line(r) && next_line(r); /* the second: after the version */
    for (; more && record_kind(r) == 0; more = next_line(r))
        PPS_TRY(read_file_line(r));
    for (uint32_t id = 0; id < PLAN_TABLE_COUNT; id++) {
        pps_status status = plan_build_table(&r->build, id, reason);
        if (status == PPS_ERR_SCRIPT)
            return refuse(r, 1105, "is malformed: %s", reason);
        PPS_TRY(status);
        for (uint32_t k = 0; k < r->build.n[id]; k++, more = next_line(r))
            PPS_TRY(read_record(r));
    }
    pps_status status = plan_build_finish(&r->build, reason);
    return status == PPS_ERR_SCRIPT ? refuse(r, 1105, "is malformed: %s", reason) : status;
}

pps_status plan_read_text(pps_state *st, const char *name, const char *bytes, size_t n,
                          plan_set *set)
{
    reader r = {.st = st, .name = name, .end = bytes + n, .build = {.mem = set->mem, .set = set}};
    rewind_to(&r, bytes);
    PPS_TRY(count_records(&r, bytes));
    r.files = arena_new(set->mem, ((size_t)r.n_files + 1) * sizeof *r.files);
    if (r.files == NULL)
        return PPS_ERR_NOMEM;
    rewind_to(&r, bytes);
    return read_records(&r);
}
