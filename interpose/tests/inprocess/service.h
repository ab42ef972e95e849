/* SPDX-License-Identifier: MIT */
#ifndef TAS_INPROCESS_H
#define TAS_INPROCESS_H

#include <stdint.h>

int inprocess_start(void);  /* 0, or -1; sets TAS_SOCKET and TAS_REQUIRE */
void inprocess_stop(void);
uint64_t inprocess_counter(int which); /* enum tas_counter; a look that may be stale */

#endif
