/* SPDX-License-Identifier: MIT */
#ifndef TAS_ADMIN_H
#define TAS_ADMIN_H

#include <stddef.h>

#include "slow/stack.h"

/* JSON text for tasctl.  what: enum tas_admin_what; *cursor: where to go on, set to 0 when complete.  Returns the length
 * or -errno. */
int tas__admin_text(uint32_t what, uint32_t *cursor, char *text, size_t room);
void tas__admin_init(void);

#endif
