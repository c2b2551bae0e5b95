/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_rows.c: `pps rows`: the canonical text of a schedule, one line per rank, without a model.
 */
#include "runtime/cli/commands.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/cli/session.h"

/* "1f1b" is no name of the language; here it stands for one_f_one_b. */
static const char *skip_alias(const char *word, const char **ret_name)
{
    static const char alias[] = "1f1b";
    size_t n = sizeof alias - 1;
    bool is_alias = strncmp(word, alias, n) == 0 && (word[n] == 0 || word[n] == '(');
    *ret_name = is_alias ? "one_f_one_b" : "";
    return is_alias ? word + n : word;
}

/* One word is an expression; several are a call: "NAME(ARGUMENT, ARGUMENT)". Owned: free. */
static char *expression_of(const cli_options *o)
{
    size_t bytes = 64;
    for (uint32_t i = 0; i < o->n_words; i++)
        bytes += strlen(o->words[i]) + 2;
    char *text = malloc(bytes);
    if (!text)
        return NULL;
    const char *name;
    const char *rest = skip_alias(o->words[0], &name);
    size_t n = (size_t)snprintf(text, bytes, "%s%s", name, rest);
    for (uint32_t i = 1; i < o->n_words; i++)
        n += (size_t)snprintf(text + n, bytes - n, "%s%s", i == 1 ? "(" : ", ", o->words[i]);
    if (o->n_words > 1)
        snprintf(text + n, bytes - n, ")");
    return text;
}

static pps_status print_rows(const ir_program *p)
{
    for (uint32_t i = 0; i < p->n_rows; i++) {
        char *text = ir_row_text(p, &p->rows[i]);
        if (!text)
            return PPS_ERR_NOMEM;
        printf("%s\n", text);
        free(text);
    }
    return PPS_OK;
}

int cmd_rows(const cli_options *options)
{
    session s;
    pps_status status = session_open(&s, options);
    char *expression = expression_of(options);
    if (status == PPS_OK)
        status = expression ? session_rows(&s, expression) : PPS_ERR_NOMEM;
    if (status == PPS_OK)
        status = print_rows(s.program);
    free(expression);
    return session_end(&s, status);
}
