/* SPDX-License-Identifier: MIT */
#ifndef TAS_INPROCESS_H
#define TAS_INPROCESS_H

#include <stdint.h>

int inprocess_environment(char **argv); /* first thing in main; executes the program again when needed */
int inprocess_start(void);              /* 0, or -1 */
void inprocess_stop(void);
uint64_t inprocess_counter(int which); /* enum tas_counter; a look that may be stale */

uint64_t inprocess_memory(void);        /* shared memory of sockets in use, likewise */

#endif
