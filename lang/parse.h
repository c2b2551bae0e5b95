/* SPDX-License-Identifier: Apache-2.0
 *
 * parse.h: text to tree. Lexical and syntax errors are reported through pps_diag_*, several per file;
 * the tree of the statements that parsed is still returned.
 */
#ifndef PPS_PARSE_H
#define PPS_PARSE_H

#include "lang/arena.h"
#include "lang/ast.h"

/* Parse source `file` into `trees`. PPS_ERR_SCRIPT after one or more reported errors. */
pps_status parse_file(pps_state *st, uint32_t file, arena *trees, ast_file *ret);
/* Parse one expression (nothing may follow it). */
pps_status parse_expr(pps_state *st, uint32_t file, arena *trees, ast_node **ret);
/* For a prompt: does `text` end in the middle of something (an open bracket, f-string or """)? */
bool parse_is_incomplete(const char *text, size_t bytes);
/* Print a tree, one node per line, no pointers. For `pps dump --stage ast`. */
void ast_dump(const ast_node *root, void (*print)(void *ud, const char *text, size_t n), void *ud);

#endif
