/* SPDX-License-Identifier: Apache-2.0
 *
 * timeline.h: what ranks did, as view draws it.
 */
#ifndef PPS_CLI_TIMELINE_H
#define PPS_CLI_TIMELINE_H

#include "runtime/exec/exec.h"
#include "runtime/view/view.h"

typedef struct timeline {
    view_timeline view; /* borrows from the plans and from what follows */
    char *texts;        /* labels, places, names of ranks */
    const char **rank_names;
} timeline;

/* One training step of every rank: marks[r] holds the n_steps marks of rank r's plan. Times in ns
 * from the earliest one. `marks` may go afterwards, `set` and `st` may not. */
pps_status timeline_new(pps_state *st, const plan_set *set, exec_mark *const *marks, timeline *ret);
void timeline_done(timeline *t);

#endif
