/* SPDX-License-Identifier: MIT */
/* The control socket and its sessions.  Private to slow/. */
#ifndef TAS_CONTROL_H
#define TAS_CONTROL_H

#include "slow/stack.h"

struct tas_session;

int tas__control_init(void); /* opens the socket; 0 or -errno, the reason printed */
void tas__control_exit(void); /* closes sessions without a word, removes the path */
/* Closes the socket and forgets the session; says nothing to its process. */
void tas__session_close(struct tas_session *s);
/* Ends the loop if it is to end with its last user and that one is gone. */
void tas__exit_if_unused(void);

#endif
