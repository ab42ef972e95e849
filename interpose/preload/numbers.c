// SPDX-License-Identifier: MIT
/*
 * Calls that make, copy and drop descriptor numbers.
 *
 * The table needs no help from open, pipe and the like: a number that was closed is marked kernel's or unknown, never
 * TAS's, so what such a call puts there is looked up at its first use at worst.  Only calls through which a TAS socket
 * can come or go are wrapped.
 */
#include <unistd.h>

#include "preload.h"

int tas__w_close_range(unsigned first, unsigned last, int flags)
{
	if (tas__passive())
		return tas__real.close_range(first, last, flags);
	return (int)tas__result(tas_close_range(first, last, flags));
}

void tas__w_closefrom(int first)
{
	/* libc's own falls back to /proc on kernels without close_range (before 5.9), which TAS does not run on */
	if (tas__passive() || tas_close_range(first < 0 ? 0 : (unsigned)first, ~0u, 0) < 0)
		tas__real.closefrom(first);
}

static int moved(int r)
{
	if (r >= 0 && r < 3)
		tas__standard_stream(r);
	return (int)tas__result(r);
}

int tas__w_dup2(int fd, int to)
{
	if (likely(tas__kernel(fd) && tas__kernel(to)) || tas__passive())
		return tas__real.dup2(fd, to);
	return moved(tas_dup2(fd, to));
}
TAS_SAME(__dup2, dup2);

int tas__w_dup3(int fd, int to, int flags)
{
	if (likely(tas__kernel(fd) && tas__kernel(to)) || tas__passive())
		return tas__real.dup3(fd, to, flags);
	return moved(tas_dup3(fd, to, flags));
}

int tas__w_pidfd_getfd(int pidfd, int fd, unsigned flags)
{
	int r = tas__real.pidfd_getfd(pidfd, fd, flags);

	if (r >= 0 && !tas__passive())
		tas_note_unknown(r);
	return r;
}

/* Puts fd on 0, 1 and 2 by libc's own dup2. */
int tas__w_login_tty(int fd)
{
	if (!tas__passive())
		for (int i = 0; i < 3; i++)
			if (!tas__kernel(i))
				tas_note_close(i);
	return tas__real.login_tty(fd);
}

bool tas__is_ours(int fd)
{
	int type;
	socklen_t len = sizeof type;

	if (tas__kernel(fd) || tas__passive())
		return false;
	tas_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len); /* an unknown number is looked up by its first use */
	return tas_fd_states[fd] == TAS_FD_TAS || tas_fd_states[fd] == TAS_FD_PLAIN;
}
