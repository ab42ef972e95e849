/* SPDX-License-Identifier: MIT */
#ifndef TAS_WATCH_H
#define TAS_WATCH_H

#include "slow/stack.h"

/* Without inotify the service runs, but tas__watch_add() fails: 0 or -errno. */
int tas__watch_init(void);
void tas__watch_exit(void);

#endif
