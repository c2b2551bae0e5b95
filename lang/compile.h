/* SPDX-License-Identifier: Apache-2.0
 *
 * compile.h: syntax tree to bytecode.
 */
#ifndef PPS_COMPILE_H
#define PPS_COMPILE_H

#include "lang/ast.h"
#include "lang/vm.h"

/* Compile a whole file as `mod`, declaring its globals. Reports several errors (E01xx) and then
 * returns PPS_ERR_SCRIPT. The tree is not needed afterwards. */
pps_status compile_module(pps_state *st, module *mod, const ast_file *file, bc_proto **ret);
/* Compile one expression in the scope of `mod`, and of `use` (may be NULL) behind it. */
pps_status compile_expr(pps_state *st, module *mod, module *use, const ast_node *expr,
                        bc_proto **ret);

#endif
