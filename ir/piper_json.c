/* SPDX-License-Identifier: Apache-2.0
 *
 * piper_json.c: places inside JSON text. The parser gives values without places, and takes far more
 * memory than their text; so a file is cut into its directives here, by brackets and quotes alone,
 * and a value's place is looked for only when a message needs it.
 */
#include "ir/piper_form.h"

enum {
    MAX_DEPTH = 16,      /* a row in a directive is 5 deep */
    MAX_VALUES = 1 << 22 /* of one directive */
};

uint32_t piper_skip_space(const char *text, uint32_t at, uint32_t end)
{
    while (at < end &&
           (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r'))
        at++;
    return at;
}

/* Behind the closing quote of the string that begins at `at`. */
static uint32_t skip_string(const char *text, uint32_t at, uint32_t end)
{
    for (at++; at < end && text[at] != '"'; at++)
        at += text[at] == '\\' && at + 1 < end;
    return at < end ? at + 1 : end;
}

static uint32_t skip_word(const char *text, uint32_t at, uint32_t end)
{
    uint32_t begin = at;
    while (at < end && text[at] != ',' && text[at] != ']' && text[at] != '}' &&
           piper_skip_space(text, at, end) == at)
        at++;
    return at > begin || at == end ? at : at + 1;
}

piper_extent piper_value_end(const char *text, uint32_t begin, uint32_t end, uint32_t *ret_end)
{
    uint32_t depth = 0, values = 0, at = begin;
    if (text[at] != '{' && text[at] != '[') {
        *ret_end = text[at] == '"' ? skip_string(text, at, end) : skip_word(text, at, end);
        return PIPER_WHOLE;
    }
    while (at < end) {
        char c = text[at];
        if (c == '"') {
            at = skip_string(text, at, end);
            continue;
        }
        bool opens = c == '{' || c == '[';
        depth += opens;
        values += opens || c == ',';
        if (depth > MAX_DEPTH || values > MAX_VALUES) {
            *ret_end = at;
            return depth > MAX_DEPTH ? PIPER_DEEP : PIPER_LARGE;
        }
        at++;
        if ((c == '}' || c == ']') && --depth == 0) {
            *ret_end = at;
            return PIPER_WHOLE;
        }
    }
    *ret_end = end;
    return PIPER_UNCLOSED;
}

/* The value at position `ordinal` of `whole`, an object or array; or its key. */
static pps_span locate_child(const char *text, pps_span whole, uint32_t ordinal, bool key)
{
    uint32_t at = whole.begin + 1;
    for (uint32_t i = 0;; i++) {
        pps_span name, value = {whole.file, 0, 0};
        at = piper_skip_space(text, at, whole.end);
        name = (pps_span){whole.file, at, at};
        if (text[whole.begin] == '{') {
            name.end = skip_string(text, at, whole.end);
            at = piper_skip_space(text, name.end, whole.end) + 1; /* behind the colon */
            at = piper_skip_space(text, at, whole.end);
        }
        if (at >= whole.end) /* nothing there; valid text does not lead here */
            return whole;
        value.begin = at;
        piper_value_end(text, at, whole.end, &value.end);
        if (i == ordinal)
            return key && name.end > name.begin ? name : value;
        at = piper_skip_space(text, value.end, whole.end) + 1; /* behind the comma */
    }
}

pps_span piper_locate(const char *text, pps_span whole, const piper_where *where, bool key)
{
    if (!where)
        return whole;
    pps_span up = piper_locate(text, whole, where->up, false);
    return locate_child(text, up, where->ordinal, key);
}
