/* SPDX-License-Identifier: MIT */
/* Between the files of libtas. */
#ifndef TAS_LOW_PRIVATE_H
#define TAS_LOW_PRIVATE_H

#include "lowlevel/low.h"

extern struct tas_mutex tas__attach_lock; /* outside of session.ws_lock and session.rpc */
void tas__tid_changed(void); /* in a forked child */

#endif
