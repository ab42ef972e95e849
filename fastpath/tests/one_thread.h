/* SPDX-License-Identifier: MIT */
/* A service with one thread, for tests that link parts of it: it is always alone.  Include once. */
#ifndef TAS_ONE_THREAD_H
#define TAS_ONE_THREAD_H

#include "fast/core.h"

bool tas_alone = true;

void tas__shared_lock(void)
{
}

void tas__shared_unlock(void)
{
}

void tas_alone_in(void)
{
}

void tas_alone_out(void)
{
}

void tas_kick(struct tas_core *c)
{
	(void)c;
}

int tas_threads_hear(int fd, uint32_t slot)
{
	(void)fd;
	(void)slot;
	return 0;
}

void tas_threads_deaf(int fd, unsigned first)
{
	(void)fd;
	(void)first;
}

#endif
